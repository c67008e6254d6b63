//! Sections `[agent]` and `[rollout]` of an agent that learns a policy in its model.

use mbrl_env::EnvSpec;
use mbrl_model::{FitConfig, LearnedModel, ModelError, Propagation};
use serde::{Deserialize, Serialize};

use super::{Generations, Mbpo, Progress};
use crate::{
    AgentError, FitSchedule, Goal, ModelBasedConfig, ModelLearner, OffPolicy, RandomAgent, goal::no_reward,
    imagine::check_markov, limits::fits_memory,
};

/// Where imagined roll-outs start: the three ways that the lecture on model-based RL compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutStarts {
    /// In initial states, up to the task's time limit: these are the episodes that the policy is to be good at, but the model's errors
    /// add up.
    Episodes,
    /// In initial states, for a few steps: little error, but no late state is ever seen.
    Initial,
    /// In all states seen so far, for a few steps (default; MBPO): little error and all states, as earlier policies visited them.
    Seen,
}

/// Steps of a roll-out: a number, or `{ from, to, over = [first, last] }` for one that grows with the real steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number of steps, or { from = 1, to = 15, over = [20000, 150000] }")]
pub enum RolloutLength {
    /// Always the same number.
    Fixed(usize),
    /// From one number to another.
    Growing(GrowingLength),
}

/// A length that grows linearly between two numbers of real steps, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrowingLength {
    /// Steps of a roll-out at the start.
    pub from: usize,
    /// Steps of a roll-out in the end.
    pub to: usize,
    /// Real steps between which it grows.
    pub over: [u64; 2],
}

impl RolloutLength {
    /// Steps of a roll-out after this many real steps.
    ///
    /// ```
    /// use mbrl_policy::{GrowingLength, RolloutLength};
    ///
    /// // MBPO on the hopper: 1 step until 20,000 real steps, 15 from 150,000 on.
    /// let length = RolloutLength::Growing(GrowingLength { from: 1, to: 15, over: [20_000, 150_000] });
    /// assert_eq!([0, 20_000, 85_000, 149_999, 1_000_000].map(|step| length.at(step)), [1, 1, 8, 14, 15]);
    /// ```
    #[must_use]
    pub fn at(&self, real_steps: u64) -> usize {
        match *self {
            Self::Fixed(steps) => steps,
            Self::Growing(GrowingLength { from, to, over: [first, last] }) => {
                let done = real_steps.clamp(first, last) - first;
                let (from, to, done, of) =
                    (from as i128, to as i128, i128::from(done), i128::from((last - first).max(1)));
                (from + (to - from) * done / of) as usize
            }
        }
    }
}

/// Section `[rollout]`: imagined data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// Where roll-outs start (default: `"seen"`).
    pub starts: RolloutStarts,
    /// Steps of a roll-out; those of [`RolloutStarts::Episodes`] go to the task's time limit instead (default: 20; DHMBPO).
    pub length: RolloutLength,
    /// Real steps between two generations of roll-outs; each fit is followed by one too (default: 20; DHMBPO).
    pub every: u64,
    /// Roll-outs per generation; 0: the policy learns from real states alone (default: 256; DHMBPO).
    pub count: usize,
    /// Generations that are kept (default: 10; DHMBPO).
    pub keep: usize,
    /// Imagined rewards are lowered by this times the variance of the members' predictions, each column in units of the standard deviation
    /// of its changes in the data; columns that never change, or whose next values the model knows, do not count (default: 0).
    pub penalty: f32,
    /// Roll-outs end, as truncated, before a step on which the members disagree by more than this, in the same units; 0 for never
    /// (default).
    pub stop_at: f32,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            starts: RolloutStarts::Seen,
            length: RolloutLength::Fixed(20),
            every: 20,
            count: 256,
            keep: 10,
            penalty: 0.0,
            stop_at: 0.0,
        }
    }
}

/// What an agent imagines with.
#[derive(Debug, Clone)]
pub struct Imagining {
    /// Rewards and ends of imagined steps; the model's where the goal leaves them open.
    pub goal: Goal,
    /// Where roll-outs start, how far they go, and how many there are.
    pub rollout: RolloutConfig,
    /// How uncertainty is carried through them, with one particle.
    pub propagation: Propagation,
}

/// How an agent collects data, when it fits, and how its policy learns. The defaults have both parts of DHMBPO, with gradients
/// through three steps instead of five.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MbpoConfig {
    /// Real steps before the first fit, taken at random (default: 1,000).
    pub random_steps: u64,
    /// When the model is fitted (default: every 250 steps; MBPO).
    pub fit_every: FitSchedule,
    /// Whether each fit starts from fresh weights (default: false).
    pub reinitialize: bool,
    /// Real transitions that are kept; the oldest are forgotten (default: 1,000,000).
    pub replay_capacity: usize,
    /// Updates of the policy per real step (default: 1; MBPO 20 to 40).
    pub updates: u64,
    /// Whether the random steps' updates follow the first fit (default: true).
    pub catch_up: bool,
    /// Transitions per batch (default: 256).
    pub batch_size: usize,
    /// Share of real transitions in a batch (default: 0; MBPO 0.05).
    pub real_share: f32,
    /// Whether critics learn, for a batch's real transitions, their actual outcome in the world, instead of what the model predicts from
    /// their first states (default: false). Without `training_rollout` they always do.
    pub real_targets: bool,
    /// Whether critics learn, for a batch's imagined transitions, their outcome when they were imagined, with the actions taken then, instead of
    /// what the model and the current policy predict from their first states (default: false). Without `training_rollout` they always do.
    pub imagined_targets: bool,
    /// Steps over which gradients flow through the model into the policy, from the states of a batch; 0: the learner's own update
    /// (default: 3).
    pub training_rollout: usize,
}

impl Default for MbpoConfig {
    fn default() -> Self {
        Self {
            random_steps: 1000,
            fit_every: FitSchedule::Steps(250),
            reinitialize: false,
            replay_capacity: 1_000_000,
            updates: 1,
            catch_up: true,
            batch_size: 256,
            real_share: 0.0,
            real_targets: false,
            imagined_targets: false,
            training_rollout: 3,
        }
    }
}

/// Numbers of a transition: both observations, the action, the reward and the end.
fn transition_width(obs: usize, action: usize) -> usize {
    2 * obs + action + 2
}

impl MbpoConfig {
    /// Real transitions of a batch, where there are imagined ones.
    pub(super) fn real_rows(&self) -> usize {
        ((self.real_share * self.batch_size as f32).round() as usize).min(self.batch_size)
    }

    /// An untrained agent for an environment like `spec`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule, a goal without reward where the model learns none, and a model that looks
    /// back; [`AgentError::Env`] and [`AgentError::Model`] for parts of different widths.
    pub fn init<M: LearnedModel, L: OffPolicy>(
        &self,
        spec: &EnvSpec,
        model: M,
        fit: FitConfig,
        imagining: Imagining,
        policy: L,
    ) -> Result<Mbpo<M, L>, AgentError> {
        let Imagining { goal, rollout, propagation } = imagining;
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        spec.check()?;
        if goal.reward.is_none() && !model.learns_reward() {
            return Err(no_reward());
        }
        check_markov(&model)?;
        let (obs, action) = (spec.obs.width(), spec.actions.width());
        for (what, expected, actual) in
            [("observation of the model", obs, model.spec().obs), ("action of the model", action, model.spec().action)]
        {
            if expected != actual {
                return Err(ModelError::Width { what, expected, actual }.into());
            }
        }
        mbrl_env::check_width("observation of the policy", obs, policy.policy().obs_width())?;
        mbrl_env::check_width("action of the policy", action, policy.policy().action_width())?;
        if !(1..=1 << 20).contains(&self.batch_size) {
            return refuse("batch_size", self.batch_size.to_string(), "1 to 1048576 transitions");
        }
        if !(0.0..=1.0).contains(&self.real_share) {
            return refuse("real_share", self.real_share.to_string(), "a share in [0, 1]");
        }
        if self.real_share > 0.0 && self.real_rows() == 0 {
            let rule = "0, or so much that at least one transition of a batch is real: 0.5 / batch_size";
            return refuse("real_share", self.real_share.to_string(), rule);
        }
        if self.updates == 0 {
            return refuse("updates", "0".into(), "at least 1 per real step");
        }
        if !fits_memory(&[self.batch_size, self.training_rollout.saturating_add(1), transition_width(obs, action)]) {
            let value = format!("{}, batch_size = {}", self.training_rollout, self.batch_size);
            let rule = "roll-outs of a batch of at most 2147483648 numbers: shorter or fewer";
            return refuse("training_rollout", value, rule);
        }
        if self.real_targets && self.real_share == 0.0 && rollout.count > 0 {
            let rule = "false, or real transitions to learn from: agent.real_share above 0";
            return refuse("real_targets", "true".into(), rule);
        }
        if self.imagined_targets && (rollout.count == 0 || self.real_share == 1.0) {
            let rule =
                "false, or imagined transitions to learn from: rollout.count above 0 and agent.real_share below 1";
            return refuse("imagined_targets", "true".into(), rule);
        }
        if propagation.particles != 1 {
            let rule = "1: each imagined row is one particle";
            return refuse("propagation.particles", propagation.particles.to_string(), rule);
        }
        for (what, some) in [
            ("shaping", goal.shaping.is_some()),
            ("disagreement", goal.disagreement.is_some()),
            ("action_rate", goal.action_rate.is_some()),
        ] {
            if some {
                return refuse(
                    "goal",
                    what.into(),
                    "none of shaping, disagreement and action_rate, which count in plans alone",
                );
            }
        }
        rollout.check(spec, model.spec().members)?;
        if rollout.penalty > 0.0 && (self.training_rollout > 0 || rollout.count == 0) {
            let rule = "0, or rewards of imagined data to take it from: rollout.count above 0 and training_rollout = 0 \
                        (gradients through the model earn its rewards anew)";
            return refuse("rollout.penalty", rollout.penalty.to_string(), rule);
        }
        let collect = ModelBasedConfig {
            random_steps: self.random_steps,
            fit_every: self.fit_every,
            reinitialize: self.reinitialize,
            replay_capacity: self.replay_capacity,
            ..ModelBasedConfig::default()
        };
        Ok(Mbpo {
            learner: ModelLearner::new(&collect, model, fit)?,
            config: self.clone(),
            rollout,
            limit: spec.max_steps,
            propagation,
            goal,
            explorer: RandomAgent::new(spec.actions.clone()),
            policy,
            slots: 1,
            imagined: Generations::default(),
            progress: Progress::default(),
        })
    }
}

impl RolloutConfig {
    /// For a task like `spec`, and a model of this many members.
    fn check(&self, spec: &EnvSpec, members: usize) -> Result<(), AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if self.every == 0 {
            return refuse("rollout.every", "0".into(), "at least 1 step");
        }
        if self.keep == 0 {
            return refuse("rollout.keep", "0".into(), "at least 1 generation");
        }
        let ends = match self.length {
            RolloutLength::Fixed(steps) => [steps, steps],
            RolloutLength::Growing(GrowingLength { from, to, over: [first, last] }) => {
                if first >= last {
                    return refuse(
                        "rollout.length.over",
                        format!("[{first}, {last}]"),
                        "two numbers of steps that rise",
                    );
                }
                [from, to]
            }
        };
        if ends.contains(&0) {
            return refuse("rollout.length", "0".into(), "at least 1 step; without roll-outs rollout.count = 0");
        }
        let longest = match self.starts {
            RolloutStarts::Episodes => spec.max_steps.unwrap_or(0) as usize,
            _ => ends[0].max(ends[1]),
        };
        let row = transition_width(spec.obs.width(), spec.actions.width());
        if !fits_memory(&[longest, self.count, self.keep, row]) {
            let value = format!("{longest}, rollout.count = {}, rollout.keep = {}", self.count, self.keep);
            return refuse(
                "rollout.length",
                value,
                "imagined data of at most 2147483648 numbers: fewer, shorter or less kept",
            );
        }
        if self.starts == RolloutStarts::Episodes && spec.max_steps.is_none() {
            let rule = "\"initial\" or \"seen\": this task has no time limit that roll-outs could go to";
            return refuse("rollout.starts", "\"episodes\"".into(), rule);
        }
        if !(self.penalty.is_finite() && self.penalty >= 0.0) {
            return refuse("rollout.penalty", self.penalty.to_string(), "a finite number of at least 0");
        }
        if !(self.stop_at.is_finite() && self.stop_at >= 0.0) {
            return refuse("rollout.stop_at", self.stop_at.to_string(), "a finite number of at least 0");
        }
        if self.stop_at > 0.0 && self.count == 0 {
            let rule = "0, or roll-outs that could stop: rollout.count above 0";
            return refuse("rollout.stop_at", self.stop_at.to_string(), rule);
        }
        for (field, number) in [("rollout.penalty", self.penalty), ("rollout.stop_at", self.stop_at)] {
            if number > 0.0 && members < 2 {
                let rule = "0, or a model of at least 2 members that roll-outs draw from: one alone never disagrees";
                return refuse(field, number.to_string(), rule);
            }
        }
        Ok(())
    }
}
