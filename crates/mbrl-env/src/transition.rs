//! One real step, and what an agent knows when it acts.

use serde::{Deserialize, Serialize};

use crate::Snapshot;

/// One real step of the world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// Observation before the action, `[O]`.
    pub obs: Vec<f32>,
    /// The action, in the environment's units, `[A]`.
    pub action: Vec<f32>,
    /// Reward of the step.
    pub reward: f64,
    /// Observation after the action, `[O]`; at an episode's end the last one, never that of the next reset.
    pub next_obs: Vec<f32>,
    /// The task reached a terminal state.
    pub terminated: bool,
    /// The episode was cut from outside.
    pub truncated: bool,
}

impl Transition {
    /// Whether the episode ended with this step.
    #[must_use]
    pub fn episode_over(&self) -> bool {
        self.terminated || self.truncated
    }
}

/// Number of past steps that situations carry in the loops of these crates, in training and in evaluations: no agent and no
/// model can look back further.
pub const MAX_PAST: usize = 16;

/// The recent past of the running episode, oldest first: for models that need more than one observation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Past observations, `[T][O]`, the present one excluded.
    pub obs: Vec<Vec<f32>>,
    /// The actions taken at them, `[T][A]`.
    pub actions: Vec<Vec<f32>>,
}

impl History {
    /// Appends one step and forgets all but the last `keep`.
    pub fn push(&mut self, obs: Vec<f32>, action: Vec<f32>, keep: usize) {
        self.obs.push(obs);
        self.actions.push(action);
        let excess = self.obs.len().saturating_sub(keep);
        self.obs.drain(..excess);
        self.actions.drain(..excess);
    }

    /// Forgets everything: a new episode begins.
    pub fn clear(&mut self) {
        self.obs.clear();
        self.actions.clear();
    }
}

/// What an agent knows now: the observation, the recent past, a snapshot where the world is a simulator, and the belief of a
/// model with memory.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The present observation, `[O]`.
    pub obs: &'a [f32],
    /// What came before it in this episode.
    pub past: &'a History,
    /// The simulator's complete state, for models that are the simulator.
    pub snapshot: Option<&'a Snapshot>,
    /// The belief that a model with memory has formed over the whole episode so far, in numbers of its own: information that one
    /// observation and the recent past do not hold. The caller that acts with such a model keeps it; without it the model must rely on
    /// the rest.
    pub belief: Option<&'a [f32]>,
}

impl<'a> Situation<'a> {
    /// A situation with only an observation.
    #[must_use]
    pub fn of(obs: &'a [f32]) -> Self {
        static NO_PAST: History = History { obs: Vec::new(), actions: Vec::new() };
        Self { obs, past: &NO_PAST, snapshot: None, belief: None }
    }
}
