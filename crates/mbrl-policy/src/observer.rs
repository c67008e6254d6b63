//! What a run reports while it is running.

use mbrl_env::{Info, Transition};

use crate::{AgentError, EpisodeSummary, Evaluation};

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Real environment steps so far, random ones included. Steps of evaluation episodes do not count.
    pub env_step: u64,
    /// Finished training episodes.
    pub episode: u64,
    /// Wall time of this run so far (s), time before a resume included.
    pub wall_s: f64,
    /// Which of several environments in lockstep a real step was taken in, from 0; 0 for events that belong to none.
    pub slot: usize,
}

/// Long work between two events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The agent fits: `epoch` epochs are done, of at most `epochs`.
    Fitting {
        /// Epochs done.
        epoch: usize,
        /// Epochs at most.
        epochs: usize,
    },
    /// The policy is improved: `update` updates are done, of the `updates` that are due. Told of 100 or more, as after random steps.
    Updating {
        /// Updates done.
        update: u64,
        /// Updates that are due.
        updates: u64,
    },
    /// The agent is evaluated: `episode` episodes are done.
    Evaluating {
        /// Episodes done.
        episode: usize,
        /// Episodes of the evaluation.
        episodes: usize,
    },
}

/// Named numbers of one event, `group/name`, in the order in which they were reported.
pub type Scalars = [(String, f64)];

/// Watches a run. Every method does nothing by default; an error stops the run.
///
/// ```
/// use mbrl_policy::{AgentError, EpisodeSummary, Moment, Observer};
///
/// #[derive(Default)]
/// struct Best(f64);
///
/// impl Observer for Best {
///     fn on_episode(&mut self, _: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
///         self.0 = self.0.max(episode.total_reward);
///         Ok(())
///     }
/// }
/// ```
pub trait Observer {
    /// A real step was taken; the environment also reported `info`.
    ///
    /// # Errors
    /// Stops the run.
    fn on_step(&mut self, _: Moment, _: &Transition, _info: &Info) -> Result<(), AgentError> {
        Ok(())
    }

    /// Long work progressed: for displays, not an event that is recorded. It ends with the next step, fit or evaluation that is
    /// reported.
    fn on_phase(&mut self, _: Moment, _: Phase) {}

    /// A training episode ended.
    ///
    /// # Errors
    /// Stops the run.
    fn on_episode(&mut self, _: Moment, _: &EpisodeSummary) -> Result<(), AgentError> {
        Ok(())
    }

    /// What planning cost and expected in the episode that just ended, averaged over its planned steps; `plan/failed` is how many
    /// of them failed, where any did. Not called for an episode without planning.
    ///
    /// # Errors
    /// Stops the run.
    fn on_plan(&mut self, _: Moment, _: &Scalars) -> Result<(), AgentError> {
        Ok(())
    }

    /// What a policy reported in the episode that just ended, averaged over its updates. Not called where it reported nothing.
    ///
    /// # Errors
    /// Stops the run.
    fn on_policy(&mut self, _: Moment, _: &Scalars) -> Result<(), AgentError> {
        Ok(())
    }

    /// The agent learned something.
    ///
    /// # Errors
    /// Stops the run.
    fn on_fit(&mut self, _: Moment, _: &Scalars) -> Result<(), AgentError> {
        Ok(())
    }

    /// The agent was evaluated.
    ///
    /// # Errors
    /// Stops the run.
    fn on_eval(&mut self, _: Moment, _: &Evaluation) -> Result<(), AgentError> {
        Ok(())
    }
}

/// Watches nothing.
impl Observer for () {}

/// Calls each in turn; the first error stops.
impl Observer for Vec<&mut dyn Observer> {
    fn on_step(&mut self, at: Moment, transition: &Transition, info: &Info) -> Result<(), AgentError> {
        self.iter_mut().try_for_each(|o| o.on_step(at, transition, info))
    }
    fn on_phase(&mut self, at: Moment, phase: Phase) {
        self.iter_mut().for_each(|o| o.on_phase(at, phase));
    }
    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        self.iter_mut().try_for_each(|o| o.on_episode(at, episode))
    }
    fn on_plan(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.iter_mut().try_for_each(|o| o.on_plan(at, scalars))
    }
    fn on_policy(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.iter_mut().try_for_each(|o| o.on_policy(at, scalars))
    }
    fn on_fit(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.iter_mut().try_for_each(|o| o.on_fit(at, scalars))
    }
    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        self.iter_mut().try_for_each(|o| o.on_eval(at, evaluation))
    }
}
