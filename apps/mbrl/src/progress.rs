//! What a person sees: a line an episode, and below them, on a terminal, bars.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mbrl_env::{Info, Transition};
use mbrl_policy::{AgentError, EpisodeSummary, Evaluation, Moment, Observer, Scalars, Training};

use crate::say;

/// All runs of one command.
#[derive(Debug, Clone)]
pub(crate) struct Display {
    bars: Option<MultiProgress>,
}

impl Display {
    pub(crate) fn new() -> Self {
        Self { bars: stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Tells something besides.
    pub(crate) fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| say::note(text)),
            None => say::note(text),
        }
    }

    /// The display of one run; `label` tells it from the others.
    pub(crate) fn run(&self, label: &str, training: &Training) -> Progress {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(training.steps()));
            // The template is a constant; should it ever be wrong, the default style does.
            let style = ProgressStyle::with_template(
                "{prefix} {bar:24} {pos}/{len} steps  {per_sec}  {elapsed} (eta {eta})  {msg}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(label.to_owned());
            bar.set_position(training.env_step());
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Progress {
            display: self.clone(),
            bar,
            label: label.to_owned(),
            steps: training.steps(),
            loss: None,
            last_wall_s: training.wall_s(),
        }
    }
}

/// Watches one run.
#[derive(Debug)]
pub(crate) struct Progress {
    display: Display,
    bar: Option<ProgressBar>,
    label: String,
    steps: u64,
    /// Training loss of the last fit.
    loss: Option<f64>,
    last_wall_s: f64,
}

impl Progress {
    fn line(&self, text: &str) {
        self.display.note(&format!("{}: {text}", self.label));
    }
}

impl Observer for Progress {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        if let Some(bar) = &self.bar {
            bar.set_position(at.env_step);
        }
        Ok(())
    }

    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        let total_reward = episode.total_reward;
        if let Some(bar) = &self.bar {
            bar.set_message(format!("return {total_reward:.1}"));
        }
        let loss = self.loss.map_or(String::new(), |loss| format!("  fit loss {loss:.3}"));
        let rate = at.wall_s - self.last_wall_s;
        self.last_wall_s = at.wall_s;
        self.line(&format!(
            "step {:>6}/{}  episode {:>3}  return {total_reward:>8.2}{loss}  {rate:.1} s  ({:.0} s in all)",
            at.env_step, self.steps, at.episode, at.wall_s
        ));
        Ok(())
    }

    fn on_fit(&mut self, _: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.loss = scalars.iter().find(|(name, _)| *name == "model/train_loss").map(|(_, loss)| *loss).or(self.loss);
        Ok(())
    }

    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        self.line(&format!(
            "step {:>6}/{}  evaluation: return {:.2} ± {:.2} over {} episodes",
            at.env_step,
            self.steps,
            evaluation.return_mean(),
            evaluation.return_std(),
            evaluation.episodes.len()
        ));
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
