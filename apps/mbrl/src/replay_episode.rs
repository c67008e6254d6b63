//! Replays recorded episodes in their task, to draw afterwards what was not recorded.

use anyhow::{Context, Result};
use mbrl_env::{Env, EnvError, Frame, Scene, World};
use mbrl_policy::{experiment::Experiment, start_seeds};

use crate::{registry::registry, trajectories::Stored};

/// An evaluation episode, replayed by its recorded actions. A difference of a single bit from the record is an
/// error, because the pictures would then show something else.
pub(crate) struct EpisodeReplay<'a> {
    env: World,
    episode: &'a Stored,
    /// Number of steps taken.
    at: usize,
}

impl<'a> EpisodeReplay<'a> {
    /// Starts at the beginning of an episode of a run's evaluation.
    pub(crate) fn new(experiment: &Experiment, episode: &'a Stored) -> Result<Self> {
        let mut env = experiment.make_task(registry())?.env;
        let seeds = start_seeds(experiment.train.eval_seed, episode.number);
        let obs = env.reset(Some(*seeds.last().context("episodes are counted from 1")?))?;
        let first = &episode.transitions.first().context("the episode has no step")?.obs;
        compare(episode.number, 0, "the start", &obs, first)?;
        Ok(Self { env, episode, at: 0 })
    }

    /// Duration of a step (s).
    #[cfg(feature = "mujoco")]
    pub(crate) fn period(&self) -> f64 {
        self.env.spec().control_period
    }

    /// Draws the state after this many steps, not fewer than before.
    pub(crate) fn frame(&mut self, steps: usize, (width, height): (u32, u32)) -> Result<Frame, EnvError> {
        self.go_on(steps)?;
        self.env.render(width, height)
    }

    /// The state after this many steps, not fewer than before, as solids; `None` if the environment provides none.
    pub(crate) fn scene(&mut self, steps: usize) -> Result<Option<Scene>, EnvError> {
        self.go_on(steps)?;
        Ok(self.env.scene())
    }

    fn go_on(&mut self, steps: usize) -> Result<(), EnvError> {
        for recorded in &self.episode.transitions[self.at..steps] {
            let step = self.env.step(&recorded.action)?;
            self.at += 1;
            let number = self.episode.number;
            compare(number, self.at, "the observation", &step.obs, &recorded.next_obs)?;
            if step.reward.to_bits() != recorded.reward.to_bits() || step.terminated != recorded.terminated {
                let reason = format!(
                    "step {}: reward {} and end {} where {} and {} were recorded",
                    self.at, step.reward, step.terminated, recorded.reward, recorded.terminated
                );
                return Err(differs(number, reason));
            }
        }
        Ok(())
    }
}

fn compare(number: usize, step: usize, what: &str, found: &[f32], recorded: &[f32]) -> Result<(), EnvError> {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
    if found.len() == recorded.len() && found.iter().zip(recorded).all(same) {
        return Ok(());
    }
    Err(differs(number, format!("step {step}: {what} is {found:?} where {recorded:?} was recorded")))
}

fn differs(number: usize, reason: String) -> EnvError {
    let reason = format!("{reason}; it was recorded with another version, another engine or other settings");
    EnvError::Check { what: format!("the replay of episode {number}"), reason }
}

#[cfg(test)]
mod tests {
    use mbrl_env::tasks;
    use mbrl_policy::{RandomAgent, evaluate};

    use super::*;

    fn recorded() -> (Experiment, Vec<Stored>) {
        let experiment = registry().load("smoke", &[]).unwrap();
        let mut task = tasks::make(&experiment.task).unwrap();
        let mut agent = RandomAgent::new(task.env.spec().actions.clone());
        let seeds = start_seeds(experiment.train.eval_seed, 3);
        let evaluation = evaluate(&mut task.env, &mut agent, &seeds).unwrap();
        let stored =
            |(i, episode): (usize, _)| -> Stored { Stored { number: i + 1, transitions: Vec::clone(episode) } };
        (experiment, evaluation.episodes.iter().map(|e| &e.transitions).enumerate().map(stored).collect())
    }

    /// Its task draws no pictures: this error comes only after all bits have matched.
    fn to_the_end(experiment: &Experiment, episode: &Stored) -> String {
        let frame = |mut replay: EpisodeReplay<'_>| Ok(replay.frame(episode.transitions.len(), (8, 8))?);
        EpisodeReplay::new(experiment, episode).and_then(frame).unwrap_err().to_string()
    }

    #[test]
    fn every_bit_of_an_evaluation_comes_again() {
        let (experiment, episodes) = recorded();
        for episode in &episodes {
            assert!(to_the_end(&experiment, episode).ends_with("draws no pictures"));
        }
    }

    #[test]
    fn what_differs_is_told() {
        let (experiment, mut episodes) = recorded();
        episodes[0].number = 2;
        let told = to_the_end(&experiment, &episodes[0]);
        assert!(told.contains("replay of episode 2") && told.contains("step 0: the start"), "{told}");
        let last = episodes[1].transitions.len() - 1;
        let entry = &mut episodes[1].transitions[last].next_obs[0];
        *entry = f32::from_bits(entry.to_bits() ^ 1);
        assert!(to_the_end(&experiment, &episodes[1]).contains(&format!("step {}: the observation", last + 1)));
        episodes[2].transitions[0].reward += 1e-9;
        assert!(to_the_end(&experiment, &episodes[2]).contains("step 1: reward"));
    }
}
