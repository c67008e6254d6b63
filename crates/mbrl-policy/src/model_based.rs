//! The agent that learns its model while it plans with it (PETS, PDDM).
//!
//! ```text
//! act at random until the first fit
//! after each real step: append it to the data; where a fit is due, fit the ensemble to all data
//! then: plan through the ensemble at every step, execute the first action
//! ```
//!
//! | | PETS \[1\] | PDDM \[2\] | mbrl-lib's PETS |
//! |---|---|---|---|
//! | [`random_steps`](ModelBasedConfig::random_steps) | one episode | 20 to 200 episodes | one episode |
//! | [`fit_every`](ModelBasedConfig::fit_every) | episode | 20 to 40 episodes | 50 steps |
//! | [`reinitialize`](ModelBasedConfig::reinitialize) | no | yes | no |
//!
//! A model with heads learns rewards and ends from the same data; where the [`Goal`] leaves one of them open, plans use the
//! model's own. A model that looks back reads the past of each step within its episode.
//!
//! ## References
//! \[1\] Chua et al. (2018), *Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics
//! Models*, NeurIPS.
//! \[2\] Nagabandi et al. (2019), *Deep Dynamics Models for Learning Dexterous Manipulation*, CoRL.

use std::fmt;

use mbrl_env::{ActionSpace, EnvSpec, Replay, Rng, Situation, Transition};
use mbrl_model::{Dynamics, Ensemble, FitConfig, LearnedModel, ModelError};
use mbrl_plan::{Disagreement, Mpc, PlanError, Problem};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    ActMode, Acted, Agent, AgentError, CheckpointReader, CheckpointWriter, Goal, Learned, Learner, ModelLearner,
    PlanningAgent, RandomAgent, Report, Turn, mpc_agent::Controller,
};

/// When the model is fitted, once the random steps are over. Written `"episode"`, or a number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitSchedule {
    /// At each episode end.
    Episode,
    /// After this many real steps, in the middle of an episode too.
    Steps(u64),
}

impl Serialize for FitSchedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Episode => serializer.serialize_str("episode"),
            Self::Steps(n) => serializer.serialize_u64(*n),
        }
    }
}

impl<'de> Deserialize<'de> for FitSchedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = FitSchedule;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"episode\" or a number of steps")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<FitSchedule, E> {
                if word == "episode" {
                    Ok(FitSchedule::Episode)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(word), &self))
                }
            }
            fn visit_u64<E: de::Error>(self, steps: u64) -> Result<FitSchedule, E> {
                Ok(FitSchedule::Steps(steps))
            }
            fn visit_i64<E: de::Error>(self, steps: i64) -> Result<FitSchedule, E> {
                u64::try_from(steps)
                    .map(FitSchedule::Steps)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(steps), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How an agent collects data and when it fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelBasedConfig {
    /// Real steps before the first fit, taken at random (default: 200, one episode of PETS's cart-pole). With
    /// [`FitSchedule::Episode`] the running episode is finished at random first.
    pub random_steps: u64,
    /// Standard deviation of random actions, in half ranges, where they are to be [smooth](RandomAgent::smooth); 0 for uniform ones (default).
    pub random_sigma: f32,
    /// Share of a smooth random action that is new at each step, in (0, 1] (default: 1).
    pub random_beta: f32,
    /// When the model is fitted (default: at each episode end, PETS).
    pub fit_every: FitSchedule,
    /// Whether each fit starts from fresh weights (PDDM) instead of the last ones (default: false, PETS).
    pub reinitialize: bool,
    /// Transitions that are kept; the oldest are forgotten (default: 1 000 000, which none of the papers reaches).
    pub replay_capacity: usize,
}

impl Default for ModelBasedConfig {
    fn default() -> Self {
        Self {
            random_steps: 200,
            random_sigma: 0.0,
            random_beta: 1.0,
            fit_every: FitSchedule::Episode,
            reinitialize: false,
            replay_capacity: 1_000_000,
        }
    }
}

impl ModelBasedConfig {
    /// An untrained agent for an environment like `spec`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule and for a goal without reward where the model learns none,
    /// [`AgentError::Model`] for a model of different widths.
    pub fn init<M: LearnedModel>(
        &self,
        spec: &EnvSpec,
        model: M,
        fit: FitConfig,
        goal: Goal,
        mpc: Mpc,
    ) -> Result<ModelBased<M>, AgentError> {
        spec.check()?;
        if goal.reward.is_none() && !model.learns_reward() {
            let rule = "true for the model, because the goal uses the model's reward";
            return Err(AgentError::Config { field: "reward", value: "false".into(), rule });
        }
        let widths = model.spec();
        for (what, expected, actual) in [
            ("observation of the model", spec.obs.width(), widths.obs),
            ("action of the model", spec.actions.width(), widths.action),
        ] {
            if expected != actual {
                return Err(ModelError::Width { what, expected, actual }.into());
            }
        }
        Ok(ModelBased {
            learner: ModelLearner::new(self, model, fit)?,
            goal,
            actions: spec.actions.clone(),
            explorer: RandomAgent::new(spec.actions.clone()).smooth(self.random_sigma, self.random_beta)?,
            controller: Controller::new(mpc),
        })
    }
}

/// Collects, fits, plans and appends. Made by [`ModelBasedConfig::init`].
#[derive(Debug)]
pub struct ModelBased<M = Ensemble> {
    learner: ModelLearner<M>,
    goal: Goal,
    actions: ActionSpace,
    explorer: RandomAgent,
    controller: Controller,
}

impl<M: LearnedModel> ModelBased<M> {
    /// The model.
    #[must_use]
    pub fn model(&self) -> &M {
        self.learner.model()
    }

    /// All data so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        self.learner.replay()
    }

    /// Whether the model was fitted: until then the agent acts at random.
    #[must_use]
    pub fn is_fitted(&self) -> bool {
        self.learner.is_fitted()
    }

    /// With more controllers: it then acts in that many more environments side by side, and takes in their data as a
    /// [`ModelLearner`] does.
    #[must_use]
    pub fn with_more(mut self, mpcs: Vec<Mpc>) -> Self {
        self.controller.add(mpcs);
        self.learner = self.learner.in_lockstep(self.controller.slots());
        self
    }
}

/// Evaluations never explore: a bonus for disagreement counts only in training. A cost of disagreement always counts.
pub(crate) fn as_judged(mode: ActMode, mut problem: Problem<'_>) -> Problem<'_> {
    let counts = |disagreement: &&Disagreement| mode == ActMode::Explore || disagreement.weight < 0.0;
    problem.disagreement = problem.disagreement.filter(counts);
    problem
}

impl<M: LearnedModel> Agent for ModelBased<M> {
    fn name(&self) -> &str {
        "model-based"
    }

    fn begin_episode(&mut self) {
        self.controller.begin_episodes();
    }

    fn slots(&self) -> usize {
        self.controller.slots()
    }

    fn begin_episode_in(&mut self, slot: usize) {
        self.controller.begin_episode(slot);
    }

    fn act_batch(&mut self, turns: Vec<Turn<'_>>, mode: ActMode) -> Result<Vec<Acted>, AgentError> {
        if self.learner.is_fitted() {
            let problem = as_judged(mode, self.goal.problem(self.learner.model(), &self.actions)?);
            self.controller.act_batch(&problem, turns)
        } else {
            self.explorer.act_batch(turns, mode)
        }
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        if self.learner.is_fitted() {
            let problem = as_judged(mode, self.goal.problem(self.learner.model(), &self.actions)?);
            self.controller.act(&problem, situation, rng)
        } else {
            self.explorer.act(situation, mode, rng)
        }
    }

    fn ahead(&self) -> Vec<Vec<f32>> {
        self.controller.ahead()
    }

    fn skip(&mut self, steps: usize) {
        self.controller.skip(steps);
    }

    fn take_plan_failure(&mut self) -> Option<PlanError> {
        self.controller.take_failure()
    }
}

impl<M: LearnedModel> PlanningAgent for ModelBased<M> {
    fn goal(&self) -> &Goal {
        &self.goal
    }

    fn goal_mut(&mut self) -> &mut Goal {
        &mut self.goal
    }

    fn planned_in(&self) -> &dyn Dynamics {
        self.learner.model()
    }

    fn is_planning(&self) -> bool {
        self.learner.is_fitted()
    }

    fn replace_controllers(&mut self, mpcs: Vec<Mpc>) {
        self.controller.replace(mpcs);
    }
}

impl<M: LearnedModel> Learner for ModelBased<M> {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.learner.observe(0, transition)
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.learner.truncate_episode(0)
    }

    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        self.learner.observe(slot, transition)
    }

    fn truncate_episode_in(&mut self, slot: usize) -> Result<(), AgentError> {
        self.learner.truncate_episode(slot)
    }

    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.controller.report(report);
        if self.learner.update(rng, report)? {
            // Those of the model as it was.
            self.controller.forget_beliefs();
        }
        Ok(())
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        self.learner.save(into)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        self.learner.load(from)?;
        self.controller.begin_episodes();
        Ok(())
    }

    fn take_data(&mut self, from: &CheckpointReader) -> Result<bool, AgentError> {
        self.learner.take_data(from)?;
        self.controller.begin_episodes();
        Ok(true)
    }

    fn learned(&self) -> Option<Learned<'_>> {
        Some(self.learner.learned())
    }

    fn planned_model(&self) -> Result<Option<Vec<u8>>, AgentError> {
        self.is_fitted().then(|| Ok(self.learner.model().save()?)).transpose()
    }

    fn plan_in(&mut self, model: &[u8]) -> Result<bool, AgentError> {
        self.learner.take_model(model)?;
        self.controller.forget_beliefs();
        self.controller.begin_episodes();
        Ok(true)
    }
}
