//! The display for people: a line per episode, and below them, on a terminal, bars.

use std::{
    fmt::Write as _,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use mbrl_env::{Info, Transition};
use mbrl_policy::{AgentError, EpisodeSummary, Evaluation, Moment, Observer, Phase, Scalars, Training};

use crate::{commands::counted, console, plot::rounded};

/// A bar and everything beside it fit a terminal of 60 columns; a message that is longer than the rest of the line is cut off.
const TEMPLATE: &str = "{prefix} {bar:8} {percent:>3}% {rate} {left} {wide_msg}";
/// Number of letters of a run's name.
const NAME: usize = 12;

/// Without a terminal, long work is told of in a line where none was printed for this long.
const SILENCE: Duration = Duration::from_secs(30);

/// All runs of one command.
#[derive(Debug, Clone)]
pub(crate) struct Display {
    bars: Option<MultiProgress>,
}

impl Display {
    pub(crate) fn new() -> Self {
        Self { bars: stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Prints another message.
    pub(crate) fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| console::note(text)),
            None => console::note(text),
        }
    }

    /// The display of one run; `label` distinguishes it from the others.
    pub(crate) fn run(&self, label: &str, training: &Training) -> Progress {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(training.steps()));
            bar.set_style(style());
            bar.set_prefix(shortened(label));
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
            last: String::new(),
            last_wall_s: training.wall_s(),
            told: Instant::now(),
        }
    }
}

fn style() -> ProgressStyle {
    // The template is a constant; should it ever be wrong, the default style does.
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Writing to the display cannot fail.
    style
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&rate(state.per_sec()));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&left(state.eta()));
        })
}

/// Steps per second to two digits, per minute if they are few.
fn rate(per_second: f64) -> String {
    match per_second {
        v if !v.is_finite() || v <= 0.0 => String::new(),
        v if v >= 10.0 => format!("{v:.0}/s"),
        v if v >= 1.0 => format!("{v:.1}/s"),
        v => format!("{:.1}/min", 60.0 * v),
    }
}

/// The remaining time, rounded.
fn left(eta: Duration) -> String {
    match eta.as_secs() {
        0 => String::new(),
        s if s < 100 => format!("eta {s} s"),
        s if s < 6000 => format!("eta {} min", s / 60),
        s => format!("eta {:.1} h", s as f64 / 3600.0),
    }
}

/// A name that leaves room for the bar: its end, which distinguishes seeds, after an ellipsis.
fn shortened(label: &str) -> String {
    let count = label.chars().count();
    if count <= NAME {
        return label.to_owned();
    }
    let end: String = label.chars().skip(count - (NAME - 1)).collect();
    format!("…{end}")
}

/// What a run does when it is not taking steps.
fn doing(phase: Phase) -> String {
    match phase {
        Phase::Fitting { epoch, epochs } => format!("fitting {epoch}/{epochs}"),
        Phase::Updating { update, updates } => format!("updating the policy {update}/{updates}"),
        Phase::Evaluating { episode, episodes } => format!("evaluating {episode}/{episodes}"),
        _ => String::new(),
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
    /// The last return, in words.
    last: String,
    last_wall_s: f64,
    /// When the last line was printed.
    told: Instant,
}

impl Progress {
    fn line(&mut self, text: &str) {
        self.display.note(&format!("{}: {text}", self.label));
        self.told = Instant::now();
    }

    /// The line about long work, where there is no bar that shows it and the last line is long past.
    fn phase_line(&self, at: Moment, phase: Phase) -> Option<String> {
        let silent = self.bar.is_none() && self.told.elapsed() >= SILENCE;
        silent.then(|| format!("step {:>6}/{}  {}", at.env_step, self.steps, doing(phase)))
    }

    fn message(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }
}

/// The line about an episode.
fn episode_line(at: Moment, steps: u64, episode: &EpisodeSummary, loss: Option<f64>, seconds: f64) -> String {
    let paid = rounded(episode.total_reward, 2);
    let mut line = format!("step {:>6}/{steps}  episode {:>3}  return {paid:>8}", at.env_step, at.episode);
    if episode.cut {
        line.push_str(" (cut by the budget)");
    }
    if episode.breakdown.is_some() {
        line.push_str(" (broke down)");
    }
    // Writing into a string cannot fail.
    if let Some(loss) = loss {
        let _ = write!(line, "  fit loss {}", rounded(loss, 3));
    }
    let _ = write!(line, "  {seconds:.1} s  ({:.0} s in all)", at.wall_s);
    line
}

impl Observer for Progress {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        if let Some(bar) = &self.bar {
            bar.set_position(at.env_step);
            if bar.message() != self.last {
                bar.set_message(self.last.clone());
            }
        }
        Ok(())
    }

    fn on_phase(&mut self, at: Moment, phase: Phase) {
        self.message(doing(phase));
        if let Some(line) = self.phase_line(at, phase) {
            self.line(&line);
        }
    }

    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        self.last = format!("return {}", rounded(episode.total_reward, 1));
        self.message(self.last.clone());
        let seconds = at.wall_s - self.last_wall_s;
        self.last_wall_s = at.wall_s;
        self.line(&episode_line(at, self.steps, episode, self.loss, seconds));
        Ok(())
    }

    fn on_fit(&mut self, _: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.loss = scalars.iter().find(|(name, _)| *name == "model/train_loss").map(|(_, loss)| *loss).or(self.loss);
        Ok(())
    }

    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        let whole = evaluation.returns().count() as u64;
        let found = match whole {
            0 => "no mean return".to_owned(),
            _ => format!(
                "mean return {} of {}, standard deviation {}",
                rounded(evaluation.return_mean(), 2),
                counted(whole, "episode"),
                rounded(evaluation.return_std(), 2)
            ),
        };
        let broken = match evaluation.breakdowns() as u64 {
            0 => String::new(),
            n => format!(" ({} broke down)", counted(n, "episode")),
        };
        self.line(&format!("step {:>6}/{}  evaluation: {found}{broken}", at.env_step, self.steps));
        self.message(self.last.clone());
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    #[test]
    fn rates_and_times_are_rounded() {
        let rates = [688.1146, 12.34, 9.87, 0.25, 0.0, f64::NAN].map(rate);
        assert_eq!(rates, ["688/s", "12/s", "9.9/s", "15.0/min", "", ""]);
        let times = [0, 7, 99, 125, 6000, 100_000].map(|s| left(Duration::from_secs(s)));
        assert_eq!(times, ["", "eta 7 s", "eta 99 s", "eta 2 min", "eta 1.7 h", "eta 27.8 h"]);
        assert_eq!(shortened("smoke-0"), "smoke-0");
        assert_eq!(shortened("pets-cartpole-swingup-12"), "…-swingup-12");
    }

    #[test]
    fn a_cut_episode_says_that_it_was_cut() {
        let at = Moment { env_step: 500, episode: 3, wall_s: 12.3, slot: 0 };
        let mut episode = EpisodeSummary::default();
        episode.total_reward = -0.001;
        let line = episode_line(at, 500, &episode, None, 1.26);
        assert_eq!(line, "step    500/500  episode   3  return     0.00  1.3 s  (12 s in all)");
        episode.cut = true;
        let line = episode_line(at, 500, &episode, Some(0.5), 1.26);
        assert!(line.contains("0.00 (cut by the budget)  fit loss 0.500"), "{line}");
        (episode.cut, episode.breakdown) = (false, Some("diverged".into()));
        let line = episode_line(at, 500, &episode, None, 1.26);
        assert!(line.contains("0.00 (broke down)  1.3 s"), "{line}");
    }

    #[test]
    fn without_a_terminal_long_work_is_told_of_every_half_minute() {
        let mut progress = Progress {
            display: Display { bars: None },
            bar: None,
            label: "run".into(),
            steps: 60_000,
            loss: None,
            last: String::new(),
            last_wall_s: 0.0,
            told: Instant::now(),
        };
        let at = Moment { env_step: 8000, episode: 3, wall_s: 12.3, slot: 0 };
        let phase = Phase::Updating { update: 250, updates: 8000 };
        assert_eq!(progress.phase_line(at, phase), None);
        progress.told -= SILENCE;
        let line = progress.phase_line(at, phase);
        assert_eq!(line.as_deref(), Some("step   8000/60000  updating the policy 250/8000"));
        progress.on_phase(at, phase);
        assert_eq!(progress.phase_line(at, phase), None, "told a moment ago");
    }

    /// A terminal of 60 columns that keeps its output.
    #[derive(Debug, Clone, Default)]
    struct Narrow(Arc<Mutex<String>>);

    impl Narrow {
        fn put(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
    }

    impl TermLike for Narrow {
        fn width(&self) -> u16 {
            60
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.put(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.put(text)
        }
        fn clear_line(&self) -> std::io::Result<()> {
            self.put("\n")
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_fits_sixty_columns_and_tells_the_phase() {
        let terminal = Narrow::default();
        let bar =
            ProgressBar::with_draw_target(Some(300_000), ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        bar.set_style(style());
        bar.set_prefix(shortened("pets-cartpole-swingup-12"));
        bar.set_position(299_000);
        for phase in [Phase::Fitting { epoch: 31, epochs: 100 }, Phase::Evaluating { episode: 7, episodes: 20 }] {
            bar.set_message(doing(phase));
            bar.force_draw();
        }
        let shown = terminal.0.lock().unwrap().clone();
        let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 60, "{widest}: {shown}");
        assert!(shown.contains("fitting 31/100") && shown.contains("evaluating 7/20"), "{shown}");
    }
}
