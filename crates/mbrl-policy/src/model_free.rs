//! An agent that learns a policy from real transitions alone: the reference for model-based agents.
//!
//! ```text
//! act at random for the first steps, by the policy from then on
//! after each real step: append it to the data; improve the policy on batches drawn from all of it
//! ```

use mbrl_env::{EnvSpec, Replay, Rng, Situation, Transition};
use serde::{Deserialize, Serialize};

use crate::{
    ActMode, Agent, AgentError, CheckpointReader, CheckpointWriter, LearnedValue, Learner, OffPolicy, PolicyNetwork,
    RandomAgent, Report, policy::follow,
};

/// How an agent collects transitions and how often it learns from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelFreeConfig {
    /// Real steps taken at random before the policy acts and learns (default: 100, Stable-Baselines3's SAC).
    pub random_steps: u64,
    /// Real steps from one time that it learns to the next (default: 1).
    pub update_every: u64,
    /// Updates each time that it learns (default: 1).
    pub updates: u64,
    /// Transitions per batch (default: 256; SAC, TD3).
    pub batch_size: usize,
    /// Transitions that are kept; the oldest are forgotten (default: 1 000 000; SAC, TD3).
    pub replay_capacity: usize,
}

impl Default for ModelFreeConfig {
    fn default() -> Self {
        Self { random_steps: 100, update_every: 1, updates: 1, batch_size: 256, replay_capacity: 1_000_000 }
    }
}

impl ModelFreeConfig {
    /// An untrained agent for an environment like `spec`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule; [`AgentError::Env`] for a learner of different widths.
    pub fn init<L: OffPolicy>(&self, spec: &EnvSpec, learner: L) -> Result<ModelFree<L>, AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if self.update_every == 0 {
            return refuse("update_every", "0".into(), "at least 1 step");
        }
        if !(1..=1 << 20).contains(&self.batch_size) {
            return refuse("batch_size", self.batch_size.to_string(), "1 to 1048576 transitions");
        }
        if self.replay_capacity == 0 {
            return refuse("replay_capacity", "0".into(), "at least 1 transition");
        }
        let (obs, action) = (spec.obs.width(), spec.actions.width());
        mbrl_env::check_width("observation of the policy", obs, learner.policy().obs_width())?;
        mbrl_env::check_width("action of the policy", action, learner.policy().action_width())?;
        Ok(ModelFree {
            replay: Replay::new(obs, action, self.replay_capacity)?,
            explorer: RandomAgent::new(spec.actions.clone()),
            config: self.clone(),
            learner,
            slots: 1,
            steps: 0,
            learned: 0,
        })
    }
}

/// Collects transitions and improves a policy on them. Made by [`ModelFreeConfig::init`].
///
/// With several environments a transition enters the data as soon as it comes; which episode it belongs to is then forgotten.
#[derive(Debug)]
pub struct ModelFree<L> {
    config: ModelFreeConfig,
    learner: L,
    replay: Replay,
    explorer: RandomAgent,
    slots: usize,
    /// Real steps observed.
    steps: u64,
    /// Those of them whose updates were made.
    learned: u64,
}

impl<L: OffPolicy> ModelFree<L> {
    /// For this many environments in lockstep.
    #[must_use]
    pub fn in_lockstep(mut self, slots: usize) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// What learns.
    #[must_use]
    pub fn learner(&self) -> &L {
        &self.learner
    }

    /// All data so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Updates due for steps `from..to`.
    fn due(&self, from: u64, to: u64) -> u64 {
        let every = self.config.update_every;
        let from = from.max(self.config.random_steps);
        (to / every).saturating_sub(from / every) * self.config.updates
    }
}

const STEPS: &str = "agent.json";
const REPLAY: &str = "replay";

/// What a checkpoint holds besides data and learner.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    steps: u64,
}

impl<L: OffPolicy> Agent for ModelFree<L> {
    fn name(&self) -> &str {
        self.learner.name()
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        if mode == ActMode::Explore && self.steps < self.config.random_steps {
            return self.explorer.act(situation, mode, rng);
        }
        follow(self.learner.policy(), situation, mode, rng)
    }

    fn slots(&self) -> usize {
        self.slots
    }
}

impl<L: OffPolicy> Learner for ModelFree<L> {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.replay.push(transition)?;
        self.learner.observe(&transition.obs);
        self.steps += 1;
        Ok(())
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.replay.truncate_episode();
        Ok(())
    }

    fn observe_in(&mut self, _: usize, transition: &Transition) -> Result<(), AgentError> {
        self.observe(transition)?;
        if self.slots > 1 {
            // The next one is another environment's.
            self.replay.end_episode();
        }
        Ok(())
    }

    fn truncate_episode_in(&mut self, _: usize) -> Result<(), AgentError> {
        // With several environments nothing runs in the data: the last transition of the broken episode bootstraps as it is.
        self.truncate_episode()
    }

    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let due = self.due(self.learned, self.steps);
        self.learned = self.steps;
        for _ in 0..due {
            let batch = self.replay.sample_batch(self.config.batch_size, rng)?;
            self.learner.improve(&batch, None, rng, report)?;
        }
        Ok(())
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put_replay(REPLAY, &self.replay)?;
        into.put_json(STEPS, &Progress { steps: self.steps })?;
        into.scope("learner", |into| self.learner.save(into))
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let Progress { steps } = from.get_json(STEPS)?;
        let replay = from.get_replay(REPLAY)?;
        let widths = |replay: &Replay| (replay.obs_width(), replay.action_width());
        if widths(&replay) != widths(&self.replay) {
            let (expected, found) = (widths(&self.replay), widths(&replay));
            let reason = format!("expected observations and actions of widths {expected:?}, found {found:?}");
            return Err(from.refuse(REPLAY, reason));
        }
        self.learner.load(&from.scope("learner"))?;
        (self.replay, self.steps, self.learned) = (replay, steps, steps);
        Ok(())
    }

    fn value(&self) -> Option<LearnedValue> {
        Some(LearnedValue::new(self.learner.value(), self.learner.parts().discount))
    }

    fn policy_network(&self) -> Option<PolicyNetwork> {
        Some(self.learner.parts().actor.clone().into())
    }
}
