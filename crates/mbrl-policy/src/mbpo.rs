//! Learning a policy in a learned model.
//!
//! ```text
//! act at random until the first fit, by the policy from then on
//! after each real step: append it to the data; where a fit is due, fit the model to all data
//!   every so many steps: roll the policy out in the model from states of the data; keep the last so many of such generations
//!   improve the policy on batches of imagined and real transitions, `updates` times
//! ```
//!
//! | | starts of roll-outs | steps of a roll-out | updates per real step | gradients through the model |
//! |---|---|---|---|---|
//! | MBPO \[1\] | all states seen | 1, growing | 20 to 40 | no |
//! | DHMBPO \[2\] (default) | all states seen | 20 | 1 | 3 to 5 steps |
//! | SVG \[3\] | real states alone (`rollout.count = 0`) | – | 1 | 1 to 9 steps |
//!
//! Errors of a model grow with each imagined step, and states that the policy has not been led to grow rarer: where roll-outs start, and
//! how far they go, decides what the policy is told ([`RolloutStarts`]).
//!
//! ## References
//! \[1\] Janner et al. (2019), *When to Trust Your Model: Model-Based Policy Optimization*, NeurIPS.
//! \[2\] Kubo et al. (2025), *Double Horizon Model-Based Policy Optimization*, arXiv 2512.15439.
//! \[3\] Amos et al. (2021), *On the model-based stochastic value gradient for continuous reinforcement learning*, L4DC.

use std::collections::VecDeque;

use mbrl_env::{Batch, EnvSpec, Replay, Rng, Situation, Transition};
use mbrl_model::{Draw, Ensemble, FitConfig, LearnedModel, ModelError, Propagation};
use serde::{Deserialize, Serialize};

use crate::{
    ActMode, Agent, AgentError, CheckpointReader, CheckpointWriter, FitSchedule, Goal, Learned, LearnedValue, Learner,
    ModelBasedConfig, ModelLearner, ModelLookahead, OffPolicy, PolicyDraw, PolicyNetwork, RandomAgent, Report,
    ReportKind,
    goal::no_reward,
    imagine::{Imagination, Rollouts, check_markov, imagine},
    limits::fits_memory,
    policy::follow,
};

/// Where imagined roll-outs start: the three ways of the lecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutStarts {
    /// In initial states, and they go on to the time limit of the task: what the policy is to be good at, and where errors of the model
    /// add up.
    Episodes,
    /// In initial states, for a few steps: little error, and no late state is ever seen.
    Initial,
    /// In all states seen so far, for a few steps (default; MBPO): little error and all states, as those policies before came by them.
    Seen,
}

/// Steps of a roll-out: a number, or `{ from, to, over = [first, last] }` for one that grows with the real steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number of steps, or { from = 1, to = 15, over = [20000, 150000] }")]
pub enum RolloutLength {
    /// Always as many.
    Fixed(usize),
    /// From one number to another.
    Growing(GrowingLength),
}

/// A length that grows linearly between two numbers of real steps, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrowingLength {
    /// Steps of a roll-out at first.
    pub from: usize,
    /// Steps of a roll-out in the end.
    pub to: usize,
    /// Real steps between which it grows.
    pub over: [u64; 2],
}

impl RolloutLength {
    /// Steps of a roll-out after so many real steps.
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
    /// Real steps between two generations of roll-outs; a fit is followed by one too (default: 20; DHMBPO).
    pub every: u64,
    /// Roll-outs of a generation; 0: the policy learns from real states alone (default: 256; DHMBPO).
    pub count: usize,
    /// Generations that are kept (default: 10; DHMBPO).
    pub keep: usize,
    /// Imagined rewards are lowered by this times the variance of the members' predictions, each column in units of the standard deviation
    /// of its changes in the data (default: 0).
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

/// By what an agent imagines.
#[derive(Debug, Clone)]
pub struct Imagining {
    /// Rewards and ends of imagined steps; the model's where it leaves them open.
    pub goal: Goal,
    /// Where roll-outs start, how far they go, and how many there are.
    pub rollout: RolloutConfig,
    /// How uncertainty is carried through them; of one particle.
    pub propagation: Propagation,
}

/// How an agent collects data, when it fits, and how its policy learns. The defaults have both parts of DHMBPO, with three
/// steps of gradients in place of five.
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
    /// Transitions of a batch (default: 256).
    pub batch_size: usize,
    /// Share of real transitions in a batch (default: 0; MBPO 0.05).
    pub real_share: f32,
    /// Whether critics learn of the real transitions of a batch what came of them in the world, where they would otherwise learn what the
    /// model makes of their first states (default: false). Without `training_rollout` they always do.
    pub real_targets: bool,
    /// Whether critics learn of the imagined transitions of a batch what came of them when they were imagined, with the actions of then, where
    /// they would otherwise learn what the model makes of their first states and the policy of now (default: false). Without
    /// `training_rollout` they always do.
    pub imagined_targets: bool,
    /// Steps that gradients go through the model into the policy, from the states of a batch; 0: the learner's own update
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
    fn real_rows(&self) -> usize {
        ((self.real_share * self.batch_size as f32).round() as usize).min(self.batch_size)
    }

    /// An agent that knows nothing yet, for an environment like `spec`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule, a goal without reward where the model learns none, and a model that looks
    /// back; [`AgentError::Env`] and [`AgentError::Model`] for parts of other widths.
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
    /// For a task like `spec`, and a model of so many members.
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

/// Collects, fits, imagines and improves a policy on what it imagines. Made by [`MbpoConfig::init`].
#[derive(Debug)]
pub struct Mbpo<M = Ensemble, L = crate::Sac> {
    learner: ModelLearner<M>,
    config: MbpoConfig,
    rollout: RolloutConfig,
    /// The task's time limit, in steps.
    limit: Option<u32>,
    propagation: Propagation,
    goal: Goal,
    explorer: RandomAgent,
    policy: L,
    slots: usize,
    imagined: Generations,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Real steps whose updates were made.
    learned: u64,
    /// Updates since the last generation of roll-outs.
    since: u64,
    /// Updates in all.
    updates: u64,
    /// The model is another than the last generation's, which waits for the next update.
    #[serde(default)]
    fresh: bool,
}

const PROGRESS: &str = "mbpo.json";
const IMAGINED: &str = "imagined.bin";

impl<M: LearnedModel, L: OffPolicy> Mbpo<M, L> {
    /// For so many environments in lockstep.
    #[must_use]
    pub fn in_lockstep(mut self, slots: usize) -> Self {
        self.slots = slots.max(1);
        self.learner = self.learner.in_lockstep(slots);
        self
    }

    /// With data that are there already, and its model taken as fitted to them: a policy can then be learned without a further real step
    /// ([`practise`](Self::practise)).
    ///
    /// # Errors
    /// [`AgentError::Env`] for data of other widths or without a transition.
    pub fn with_data(mut self, data: Replay) -> Result<Self, AgentError> {
        self.policy.observe(&data.columns().obs);
        self.learner = self.learner.with_data(data)?;
        self.progress.learned = self.learner.steps();
        Ok(self)
    }

    /// Improves the policy so many times, by what the model imagines from the data that there are, without a real step.
    ///
    /// # Errors
    /// As those of an update; [`AgentError::Config`] where the model was never fitted.
    pub fn practise(&mut self, updates: u64, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        if !self.learner.is_fitted() {
            let rule = "a model that was fitted, or data by with_data";
            return Err(AgentError::Config { field: "model", value: "never fitted".into(), rule });
        }
        self.progress.fresh |= self.imagined.len() == 0;
        self.learn(updates, rng, report)
    }

    /// Updates of the policy, with new generations of roll-outs when they are due; at once where the model is another.
    fn learn(&mut self, updates: u64, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let every = self.rollout.every * self.config.updates;
        for _ in 0..updates {
            if self.rollout.count > 0 && (self.progress.fresh || self.progress.since >= every) {
                self.imagine(rng, report)?;
                (self.progress.fresh, self.progress.since) = (false, 0);
            }
            self.improve(rng, report)?;
            self.progress.since += 1;
            self.progress.updates += 1;
        }
        Ok(())
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &M {
        self.learner.model()
    }

    /// What improves the policy.
    #[must_use]
    pub fn policy(&self) -> &L {
        &self.policy
    }

    /// Real data so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        self.learner.replay()
    }

    /// Imagined transitions that are kept.
    #[must_use]
    pub fn imagined(&self) -> usize {
        self.imagined.len()
    }

    /// A generation of roll-outs.
    fn imagine(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let replay = self.learner.replay();
        let positions: Vec<usize> = match self.rollout.starts {
            RolloutStarts::Seen => (0..self.rollout.count).map(|_| rng.below(replay.len())).collect(),
            RolloutStarts::Initial | RolloutStarts::Episodes => {
                let mut first: Vec<usize> = replay.episodes().map(|episode| episode.start).collect();
                // A full replay has cut the beginning off its oldest episode.
                if replay.pushed() > replay.len() as u64 && first.len() > 1 {
                    first.remove(0);
                }
                (0..self.rollout.count).map(|_| first[rng.below(first.len())]).collect()
            }
        };
        let steps = match (self.rollout.starts, self.limit) {
            (RolloutStarts::Episodes, Some(limit)) => limit as usize,
            _ => self.rollout.length.at(self.learner.steps()),
        };
        let starts = replay.gather(positions).obs;
        let scale = match self.rollout.penalty > 0.0 || self.rollout.stop_at > 0.0 {
            true => Some(changes(replay)),
            false => None,
        };
        let (key, draw) = (rng.key(), Draw::new(self.propagation, rng.key()));
        let policy = self.policy.policy();
        let mut act =
            |obs: &[f32], t: usize| Ok(policy.act(obs, ActMode::Explore, PolicyDraw::new(key).at_step(t as u32)));
        let imagination = Imagination {
            model: self.learner.model(),
            goal: &self.goal,
            scale: scale.as_deref(),
            penalty: self.rollout.penalty,
            stop_at: self.rollout.stop_at,
        };
        let rollouts = imagination.roll_out(&mut act, &starts, steps, draw)?;
        let batch = rollouts.to_batch();
        let rows = rollouts.rows.max(1) as f64;
        report.scalar(ReportKind::Policy, "imagined/steps", batch.len() as f64 / rows);
        report.scalar(ReportKind::Policy, "imagined/broken", rollouts.broken as f64 / rows);
        if !batch.is_empty() {
            let reward = batch.rewards.iter().sum::<f64>() / batch.len() as f64;
            report.scalar(ReportKind::Policy, "imagined/reward", reward);
            self.imagined.push(batch, self.rollout.keep);
        }
        Ok(())
    }

    /// One update of the policy.
    fn improve(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let size = self.config.batch_size;
        let real = match self.imagined.len() {
            0 => size,
            _ => self.config.real_rows(),
        };
        let imagined = self.imagined.draw(size - real, rng);
        let replay = self.learner.replay();
        let real: Vec<usize> = (0..real).map(|_| rng.below(replay.len())).collect();
        if self.config.training_rollout == 0 {
            let mut batches = self.imagined.gather(&imagined);
            if !real.is_empty() {
                batches.push(replay.gather(real));
            }
            return self.policy.improve(&concat(batches), None, rng, report);
        }
        let real = replay.gather(real);
        let MbpoConfig { real_targets, imagined_targets, training_rollout: steps, .. } = self.config;
        // What critics learn as it came stands last.
        let (mut obs, mut came) = (Vec::new(), Vec::new());
        if imagined_targets {
            came = self.imagined.gather(&imagined);
        } else {
            obs = self.imagined.observations(&imagined);
        }
        if real_targets {
            came.push(real);
        } else {
            obs.extend_from_slice(&real.obs);
        }
        let came = (!came.is_empty()).then(|| concat(came));
        obs.extend(came.iter().flat_map(|came| came.obs.iter()));
        let draw = Draw::new(self.propagation, rng.key());
        let mut look = ModelLookahead::new(self.learner.model(), &self.goal, self.policy.parts(), &obs, steps, draw)?;
        if let Some(came) = &came {
            look = look.with_transitions(came)?;
        }
        self.policy.improve(look.batch(), Some(&look), rng, report)
    }
}

/// Standard deviations of the changes of each column, `[O]`, at least a millionth of the largest.
fn changes(replay: &Replay) -> Vec<f32> {
    let columns = replay.columns();
    let (o, n) = (columns.obs_width, columns.len() as f64);
    let mut sums = vec![[0.0f64; 2]; o];
    for (now, next) in columns.obs.chunks(o).zip(columns.next_obs.chunks(o)) {
        for (sums, (now, next)) in sums.iter_mut().zip(now.iter().zip(next)) {
            let change = f64::from(next - now);
            *sums = [sums[0] + change, sums[1] + change * change];
        }
    }
    let std: Vec<f64> = sums.iter().map(|[sum, square]| (square / n - (sum / n).powi(2)).max(0.0).sqrt()).collect();
    let least = std.iter().fold(f64::from(f32::MIN_POSITIVE), |most, std| most.max(1e-6 * std));
    std.into_iter().map(|std| std.max(least) as f32).collect()
}

impl<M: LearnedModel, L: OffPolicy> Agent for Mbpo<M, L> {
    fn name(&self) -> &str {
        "mbpo"
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        if mode == ActMode::Explore && !self.learner.is_fitted() {
            return self.explorer.act(situation, mode, rng);
        }
        follow(self.policy.policy(), situation, mode, rng)
    }

    fn slots(&self) -> usize {
        self.slots
    }
}

impl<M: LearnedModel, L: OffPolicy> Learner for Mbpo<M, L> {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.observe_in(0, transition)
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.truncate_episode_in(0)
    }

    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        self.learner.observe(slot, transition)?;
        self.policy.observe(&transition.obs);
        Ok(())
    }

    fn truncate_episode_in(&mut self, slot: usize) -> Result<(), AgentError> {
        self.learner.truncate_episode(slot)
    }

    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.progress.fresh |= self.learner.update(rng, report)?;
        let steps = self.learner.steps();
        if !self.learner.is_fitted() {
            if !self.config.catch_up {
                self.progress.learned = steps;
            }
            return Ok(());
        }
        let due = (steps - self.progress.learned) * self.config.updates;
        self.progress.learned = steps;
        self.learn(due, rng, report)
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        self.learner.save(into)?;
        into.put_json(PROGRESS, &self.progress)?;
        into.put(IMAGINED, &self.imagined.save())?;
        into.scope("learner", |into| self.policy.save(into))
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let progress = from.get_json(PROGRESS)?;
        let spec = self.learner.model().spec();
        let imagined = Generations::load(from.get(IMAGINED)?, [spec.obs, spec.action])
            .ok_or_else(|| from.refuse(IMAGINED, "no whole generations of imagined transitions".into()))?;
        self.learner.load(from)?;
        self.policy.load(&from.scope("learner"))?;
        (self.progress, self.imagined) = (progress, imagined);
        Ok(())
    }

    fn learned(&self) -> Option<Learned<'_>> {
        Some(self.learner.learned())
    }

    fn value(&self) -> Option<LearnedValue> {
        Some(LearnedValue::new(self.policy.value(), self.policy.parts().discount))
    }

    fn roll_out_in_model(&self, starts: &[f32], steps: usize, key: u64) -> Result<Option<Rollouts>, AgentError> {
        if !self.learner.is_fitted() {
            return Ok(None);
        }
        let mut rng = Rng::new(key);
        let (act_key, draw) = (rng.key(), Draw::new(self.propagation, rng.key()));
        let policy = self.policy.policy();
        let mut act =
            |obs: &[f32], t: usize| Ok(policy.act(obs, ActMode::Evaluate, PolicyDraw::new(act_key).at_step(t as u32)));
        imagine(self.learner.model(), &self.goal, &mut act, starts, steps, draw).map(Some)
    }

    fn policy_network(&self) -> Option<PolicyNetwork> {
        Some(self.policy.parts().actor.clone().into())
    }
}

/// Imagined transitions, a batch for each generation, the oldest first.
#[derive(Debug, Default)]
struct Generations(VecDeque<Batch>);

impl Generations {
    fn len(&self) -> usize {
        self.0.iter().map(|batch| batch.len()).sum()
    }

    fn push(&mut self, batch: Batch, keep: usize) {
        self.0.push_back(batch);
        while self.0.len() > keep {
            self.0.pop_front();
        }
    }

    /// Rows of each generation that `count` draws fall on, each uniform among all and independent of the others.
    fn draw(&self, count: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
        let total = self.len();
        let mut picked = vec![Vec::new(); self.0.len()];
        for _ in 0..count {
            let mut place = rng.below(total);
            for (batch, picked) in self.0.iter().zip(&mut picked) {
                if place < batch.len() {
                    picked.push(place);
                    break;
                }
                place -= batch.len();
            }
        }
        picked
    }

    /// Transitions that were drawn, in pieces.
    fn gather(&self, drawn: &[Vec<usize>]) -> Vec<Batch> {
        let picked = self.0.iter().zip(drawn).filter(|(_, rows)| !rows.is_empty());
        picked.map(|(batch, rows)| batch.select(rows)).collect()
    }

    /// Their observations alone, `[N, O]`.
    fn observations(&self, drawn: &[Vec<usize>]) -> Vec<f32> {
        let each = self.0.iter().zip(drawn).flat_map(|(batch, rows)| rows.iter().map(move |row| (batch, *row)));
        each.flat_map(|(batch, row)| &batch.obs[row * batch.obs_width..][..batch.obs_width]).copied().collect()
    }

    fn save(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u64).to_le_bytes().to_vec();
        for batch in &self.0 {
            bytes.extend((batch.len() as u64).to_le_bytes());
            for column in [&batch.obs, &batch.actions, &batch.next_obs] {
                bytes.extend(column.iter().flat_map(|x| x.to_le_bytes()));
            }
            bytes.extend(batch.rewards.iter().flat_map(|x| x.to_le_bytes()));
            bytes.extend(batch.terminated.iter().map(|end| u8::from(*end)));
        }
        bytes
    }

    /// What [`save`](Self::save) wrote, of observations and actions of these widths.
    fn load(bytes: &[u8], [o, a]: [usize; 2]) -> Option<Self> {
        let mut rest = bytes;
        let mut take = |count: usize| -> Option<&[u8]> {
            let (front, back) = rest.split_at_checked(count)?;
            rest = back;
            Some(front)
        };
        let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
        let floats =
            |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect() };
        let mut all = VecDeque::new();
        for _ in 0..number(take(8)?)? {
            let n = usize::try_from(number(take(8)?)?).ok().filter(|n| *n <= bytes.len())?;
            let (obs, actions, next_obs) =
                (floats(take(4 * n * o)?), floats(take(4 * n * a)?), floats(take(4 * n * o)?));
            let rewards: Vec<f64> = take(8 * n)?.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
            let terminated: Vec<bool> = take(n)?.iter().map(|end| *end == 1).collect();
            all.push_back(Batch {
                obs_width: o,
                action_width: a,
                obs: obs.into(),
                actions: actions.into(),
                rewards: rewards.into(),
                next_obs: next_obs.into(),
                terminated: terminated.into(),
                truncated: vec![false; n].into(),
            });
        }
        rest.is_empty().then_some(Self(all))
    }
}

/// Batches one after another; at least one.
fn concat(batches: Vec<Batch>) -> Batch {
    let mut batches = batches.into_iter();
    let mut all = batches.next().expect("a batch has at least one row");
    for batch in batches {
        all.obs.to_mut().extend_from_slice(&batch.obs);
        all.actions.to_mut().extend_from_slice(&batch.actions);
        all.rewards.to_mut().extend_from_slice(&batch.rewards);
        all.next_obs.to_mut().extend_from_slice(&batch.next_obs);
        all.terminated.to_mut().extend_from_slice(&batch.terminated);
        all.truncated.to_mut().extend_from_slice(&batch.truncated);
    }
    all
}

#[cfg(test)]
mod tests {
    use mbrl_env::{ActionSpace, BoxSpace};
    use mbrl_model::{Device, EnsembleConfig};

    use super::*;
    use crate::{ActorConfig, CriticsConfig, SacConfig};

    struct Quiet;

    impl Report for Quiet {
        fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
    }

    /// Episodes of six steps that start at 0 and count up.
    fn agent(rollout: RolloutConfig) -> Mbpo<Ensemble, crate::Sac> {
        agent_that_keeps(1000, rollout)
    }

    fn agent_that_keeps(replay_capacity: usize, rollout: RolloutConfig) -> Mbpo<Ensemble, crate::Sac> {
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let mut spec = EnvSpec::new("line", BoxSpace::unbounded(1), actions, 0.1);
        spec.max_steps = Some(6);
        let mut rng = Rng::new(0);
        let config = EnsembleConfig { members: 2, hidden: vec![8], reward: true, ..EnsembleConfig::default() };
        let model = config.init(1, 1, &Device::flex(), &mut rng).unwrap();
        let actor = ActorConfig { hidden: vec![8], ..ActorConfig::default() };
        let critics = CriticsConfig { hidden: vec![8], ..CriticsConfig::default() };
        let sac = SacConfig::default().init(&spec, &actor, &critics, &mut rng).unwrap();
        let imagining = Imagining { goal: Goal::of_model(), rollout, propagation: Propagation::MEAN };
        let config = MbpoConfig { random_steps: 1000, replay_capacity, ..MbpoConfig::default() };
        let mut agent = config.init(&spec, model, FitConfig::default(), imagining, sac).unwrap();
        for _ in 0..4 {
            for x in 0..6 {
                let (obs, next_obs) = (vec![x as f32], vec![x as f32 + 1.0]);
                let transition =
                    Transition { obs, action: vec![0.0], reward: 0.0, next_obs, terminated: false, truncated: x == 5 };
                agent.observe(&transition).unwrap();
            }
        }
        agent
    }

    #[test]
    fn roll_outs_start_where_they_are_told_to_and_go_as_far() {
        let length = RolloutLength::Fixed(3);
        for (starts, steps) in [(RolloutStarts::Seen, 3), (RolloutStarts::Initial, 3), (RolloutStarts::Episodes, 6)] {
            let mut agent = agent(RolloutConfig { starts, length, count: 40, ..RolloutConfig::default() });
            agent.imagine(&mut Rng::new(1), &mut Quiet).unwrap();
            assert_eq!(agent.imagined(), 40 * steps, "{starts:?}");
            let first = &agent.imagined.0[0].obs[..40];
            let late = first.iter().filter(|x| **x > 0.0).count();
            // Five of six states are no initial ones; 4 standard deviations from it.
            let expected = if starts == RolloutStarts::Seen { 24..=40 } else { 0..=0 };
            assert!(expected.contains(&late), "{starts:?}: {first:?}");
        }
    }

    #[test]
    fn an_episode_whose_beginning_is_lost_is_no_initial_state() {
        // Of 24 transitions the last 15 are kept: the oldest episode begins at 3.
        let length = RolloutLength::Fixed(1);
        let rollout = RolloutConfig { starts: RolloutStarts::Initial, length, count: 40, ..RolloutConfig::default() };
        let mut agent = agent_that_keeps(15, rollout);
        assert_eq!(agent.replay().get(0).unwrap().obs, [3.0]);
        agent.imagine(&mut Rng::new(1), &mut Quiet).unwrap();
        assert!(agent.imagined.0[0].obs[..40].iter().all(|x| *x == 0.0));
    }

    #[test]
    fn a_generation_that_a_fit_calls_for_waits_for_the_next_update() {
        let mut agent = agent(RolloutConfig { length: RolloutLength::Fixed(3), count: 5, ..RolloutConfig::default() });
        let mut rng = Rng::new(1);
        agent.progress.fresh = true;
        // An episode broke down: a fit, and no step whose update would come.
        agent.learn(0, &mut rng, &mut Quiet).unwrap();
        assert_eq!(agent.imagined(), 0);
        agent.learn(1, &mut rng, &mut Quiet).unwrap();
        assert_eq!(agent.imagined(), 15);
        agent.learn(1, &mut rng, &mut Quiet).unwrap();
        assert_eq!(agent.imagined(), 15);
    }

    #[test]
    fn generations_are_kept_sampled_evenly_and_stored_whole() {
        let mut all = Generations::default();
        for (i, n) in [5, 1, 3, 6].into_iter().enumerate() {
            let row = |j: usize| 10.0 * i as f32 + j as f32;
            all.push(
                Batch {
                    obs_width: 2,
                    action_width: 1,
                    obs: (0..n).flat_map(|j| [row(j), 0.5]).collect(),
                    actions: (0..n).map(|j| -row(j)).collect(),
                    rewards: (0..n).map(|j| f64::from(row(j)) / 3.0).collect(),
                    next_obs: (0..n).flat_map(|j| [row(j), 1.5]).collect(),
                    terminated: (0..n).map(|j| j % 2 == 0).collect(),
                    truncated: vec![false; n].into(),
                },
                3,
            );
        }
        assert_eq!(all.len(), 10);
        let drawn = all.draw(4000, &mut Rng::new(0));
        let sampled = concat(all.gather(&drawn));
        assert_eq!(all.observations(&drawn), *sampled.obs);
        assert_eq!(sampled.len(), 4000);
        for row in [10.0, 20.0, 21.0, 22.0, 30.0, 35.0] {
            let count = sampled.obs.iter().step_by(2).filter(|x| **x == row).count();
            // 400 of 4,000, within 5 standard deviations.
            assert!((305..495).contains(&count), "row {row}: {count}");
        }
        for (row, reward) in sampled.obs.chunks(2).zip(&*sampled.rewards) {
            assert_eq!(*reward, f64::from(row[0]) / 3.0, "columns belong together");
        }
        let bytes = all.save();
        let loaded = Generations::load(&bytes, [2, 1]).unwrap();
        assert_eq!(loaded.0, all.0);
        for cut in [0, 8, 20, bytes.len() - 1] {
            assert!(Generations::load(&bytes[..cut], [2, 1]).is_none(), "{cut} bytes");
        }
        assert!(Generations::load(&bytes, [1, 1]).is_none() && Generations::load(&[255; 16], [1, 1]).is_none());
    }

    #[test]
    fn changes_are_measured_per_column_and_none_is_0() {
        let mut replay = Replay::new(2, 1, 10).unwrap();
        for change in [-1.0f32, 1.0, -1.0, 1.0] {
            let (obs, next_obs) = (vec![5.0, 7.0], vec![5.0 + 2.0 * change, 7.0]);
            let transition =
                Transition { obs, action: vec![0.0], reward: 0.0, next_obs, terminated: false, truncated: false };
            replay.push(&transition).unwrap();
        }
        let scale = changes(&replay);
        assert!((scale[0] - 2.0).abs() < 1e-6 && scale[1] > 0.0 && scale[1] < 1e-5, "{scale:?}");
    }
}
