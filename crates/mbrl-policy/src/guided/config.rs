//! Sections `[value]` and `[distil]`: what is added to a planning agent.

use std::path::PathBuf;

use mbrl_env::{EnvSpec, Replay, Rng};
use mbrl_model::Activation;
use mbrl_plan::Mpc;
use serde::{Deserialize, Serialize};

use super::{Guided, PlanningAgent, Progress, Slot, Student};
use crate::{
    ActorConfig, ActorHead, AgentError, CriticsConfig, FitSchedule, Reduction, SacConfig, ValueNetConfig,
    WhichCheckpoint, imagine::check_markov, limits::fits_memory,
};

/// What the value that plans end in is learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueSource {
    /// Plans end in no value (default).
    Off,
    /// λ-returns of the real episodes.
    Episodes,
    /// λ-returns of episodes that the distilled policy imagines in the model, from states of the data.
    Imagined,
    /// A critic that learns from the same data by soft actor-critic: `V(s) = Q(s, π(s))`.
    Critic,
    /// The value of another run's agent ([`run`](ValueConfig::run)). It learns nothing here.
    Run,
}

/// What acts until values are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarmUpBy {
    /// The planner, over [`warm_up_horizon`](ValueConfig::warm_up_horizon) steps (default).
    Planner,
    /// The critic's policy, which explores and needs no plan; evaluations plan.
    Policy,
}

/// Section `[value]`: a value that plans end in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValueConfig {
    /// What it is learned from (default: `"off"`).
    pub source: ValueSource,
    /// The folder of the run for [`Run`](ValueSource::Run): a run of any agent that has values, on the same task.
    pub run: PathBuf,
    /// Which of that run's checkpoints: `"last"` (default), `"best"` or its real steps.
    pub checkpoint: WhichCheckpoint,
    /// Real steps before it is used (default: 0).
    pub warm_up: u64,
    /// What acts until then (default: `"planner"`).
    pub warm_up_by: WarmUpBy,
    /// The planner's horizon until then; 0 for its own (default). A longer one shows the value what the short one would not find.
    pub warm_up_horizon: usize,
    /// When it is learned, with [`Episodes`](ValueSource::Episodes) and [`Imagined`](ValueSource::Imagined) (default: at each episode end).
    pub every: FitSchedule,
    /// Discount γ per step (default 0.99); a critic has that of `[sac]`.
    pub discount: f32,
    /// λ of the targets, in [0, 1]; 1 for Monte Carlo (default: 0.95).
    pub lambda: f32,
    /// As [`ValueNetConfig::members`] (default: 2).
    pub members: usize,
    /// As [`ValueNetConfig::reduction`] (default: `"mean"`).
    pub reduction: Reduction,
    /// As [`ValueNetConfig::hidden`] (default: 128, 128).
    pub hidden: Vec<usize>,
    /// As [`ValueNetConfig::activation`] (default: SiLU).
    pub activation: Activation,
    /// As [`ValueNetConfig::learning_rate`] (default: 1e-3).
    pub learning_rate: f32,
    /// States per batch of each network; for a critic, transitions per batch (default: 128).
    pub batch_size: usize,
    /// As [`ValueNetConfig::optimizer_steps`] (default: 400).
    pub optimizer_steps: usize,
    /// As [`ValueNetConfig::rounds`] (default: 4).
    pub rounds: usize,
    /// Imagined episodes each time that it is learned (default: 256).
    pub count: usize,
    /// Their steps (default: 20).
    pub length: usize,
    /// Updates of a critic per real step (default: 1).
    pub updates: u64,
    /// Sequences that the policy of a critic, or of the other run, proposes to each plan; 0 for none (default: 4).
    pub proposals: usize,
    /// Transitions that are kept if the agent itself keeps none, and to learn a policy from (default: 1,000,000).
    pub replay_capacity: usize,
}

impl Default for ValueConfig {
    fn default() -> Self {
        let net = ValueNetConfig::default();
        Self {
            source: ValueSource::Off,
            run: PathBuf::new(),
            checkpoint: WhichCheckpoint::Last,
            warm_up: 0,
            warm_up_by: WarmUpBy::Planner,
            warm_up_horizon: 0,
            every: FitSchedule::Episode,
            discount: net.discount,
            lambda: net.lambda,
            members: net.members,
            reduction: net.reduction,
            hidden: net.hidden,
            activation: net.activation,
            learning_rate: net.learning_rate,
            batch_size: net.batch_size,
            optimizer_steps: net.optimizer_steps,
            rounds: net.rounds,
            count: 256,
            length: 20,
            updates: 1,
            proposals: 4,
            replay_capacity: 1_000_000,
        }
    }
}

impl ValueConfig {
    /// The network's part.
    #[must_use]
    pub fn net(&self) -> ValueNetConfig {
        ValueNetConfig {
            discount: self.discount,
            lambda: self.lambda,
            members: self.members,
            reduction: self.reduction,
            hidden: self.hidden.clone(),
            activation: self.activation,
            learning_rate: self.learning_rate,
            batch_size: self.batch_size,
            optimizer_steps: self.optimizer_steps,
            rounds: self.rounds,
        }
    }
}

/// Sequences that may be proposed to one plan: far beyond what a planner of any size has use for.
const MOST_PROPOSALS: usize = 1 << 16;

/// What a policy that is distilled from plans is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistilRole {
    /// There is none (default).
    Off,
    /// It proposes sequences to the planner, which acts.
    Propose,
    /// It acts: in evaluations, and in the training episodes that [`expert_share`](DistilConfig::expert_share) leaves to it.
    Act,
}

/// Section `[distil]`: a policy that is distilled from plans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistilConfig {
    /// What it is for (default: `"off"`).
    pub role: DistilRole,
    /// When it is fitted to all plans so far (default: at each episode end).
    pub every: FitSchedule,
    /// Real steps before the first fit, which the planner takes (default: 0).
    pub warm_up: u64,
    /// Share of the episodes after the first fit in which the planner acts, in [0, 1] (default: 0; DAgger's variant without a parameter).
    pub expert_share: f32,
    /// As [`CloningConfig::max_epochs`](crate::CloningConfig::max_epochs) (default: 30: each fit continues from the last one).
    pub max_epochs: usize,
    /// As [`CloningConfig::batch_size`](crate::CloningConfig::batch_size) (default: 256).
    pub batch_size: usize,
    /// As [`CloningConfig::holdout`](crate::CloningConfig::holdout) (default: 0.1).
    pub holdout: f64,
    /// As [`CloningConfig::patience`](crate::CloningConfig::patience) (default: 5).
    pub patience: usize,
    /// Standard deviation of the noise on all proposals but the first, for actions in [−1, 1] (default: 0.2).
    pub noise: f32,
    /// Sequences that it proposes to each plan where it proposes (default: 4). A policy that acts proposes none: the planner would keep
    /// to the policy's mistakes.
    pub proposals: usize,
}

impl Default for DistilConfig {
    fn default() -> Self {
        Self {
            role: DistilRole::Off,
            every: FitSchedule::Episode,
            warm_up: 0,
            expert_share: 0.0,
            max_epochs: 30,
            batch_size: 256,
            holdout: 0.1,
            patience: 5,
            noise: 0.2,
            proposals: 4,
        }
    }
}

/// What is added to a planning agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GuidedConfig {
    /// A value that its plans end in.
    pub value: ValueConfig,
    /// A policy that is distilled from its plans.
    pub distil: DistilConfig,
    /// The network of the distilled policy, or of the critic's policy.
    pub policy: ActorConfig,
    /// Critics.
    pub critics: CriticsConfig,
    /// How critics and their policy learn.
    pub sac: SacConfig,
}

impl GuidedConfig {
    /// Whether there is anything to learn.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.value.source != ValueSource::Off || self.distil.role != DistilRole::Off
    }

    /// Checks every rule of the parts that are on.
    ///
    /// # Errors
    /// [`AgentError::Config`] naming the section's field.
    pub fn validate(&self) -> Result<(), AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        let Self { value, distil, .. } = self;
        value.net().validate().map_err(of_section)?;
        for (field, schedule) in [("value.every", value.every), ("distil.every", distil.every)] {
            if schedule == FitSchedule::Steps(0) {
                return refuse(field, "0".into(), "\"episode\" or at least 1 step");
            }
        }
        if value.source == ValueSource::Imagined && distil.role == DistilRole::Off {
            let rule = "\"propose\" or \"act\" with value.source = \"imagined\": the distilled policy acts in what is imagined";
            return refuse("distil.role", "\"off\"".into(), rule);
        }
        if value.source == ValueSource::Imagined && (value.count == 0 || value.length == 0) {
            return refuse("value.count", value.count.to_string(), "at least 1, as value.length");
        }
        if value.source == ValueSource::Imagined && !fits_memory(&[value.count, value.length]) {
            let rule = "imagined episodes of at most 2147483648 steps in all: fewer or shorter";
            return refuse("value.count", format!("{}, value.length = {}", value.count, value.length), rule);
        }
        let of_run = value.source == ValueSource::Run;
        if of_run != (value.run != PathBuf::new()) {
            let rule = match of_run {
                true => "the folder of a run, whose value plans end in with value.source = \"run\"",
                false => "none, or value.source = \"run\"",
            };
            return refuse("value.run", format!("{:?}", value.run), rule);
        }
        if !of_run && value.checkpoint != WhichCheckpoint::Last {
            let rule = "\"last\", or value.source = \"run\"";
            return refuse("value.checkpoint", format!("\"{}\"", value.checkpoint), rule);
        }
        let counts_at_once = "0 with value.source = \"run\": such a value counts at once";
        if of_run && value.warm_up > 0 {
            return refuse("value.warm_up", value.warm_up.to_string(), counts_at_once);
        }
        if of_run && value.warm_up_horizon > 0 {
            return refuse("value.warm_up_horizon", value.warm_up_horizon.to_string(), counts_at_once);
        }
        if of_run && distil.role == DistilRole::Propose && value.proposals > 0 {
            let rule = "0 with value.source = \"run\" and distil.role = \"propose\": one policy proposes";
            return refuse("value.proposals", value.proposals.to_string(), rule);
        }
        if value.warm_up_by == WarmUpBy::Policy && value.source != ValueSource::Critic {
            let rule = "\"planner\", or value.source = \"critic\", which has a policy";
            return refuse("value.warm_up_by", "\"policy\"".into(), rule);
        }
        if value.source == ValueSource::Critic && distil.role == DistilRole::Propose {
            let rule = "\"off\" or \"act\" with value.source = \"critic\", whose policy proposes (value.proposals)";
            return refuse("distil.role", "\"propose\"".into(), rule);
        }
        if self.policy.averaging > 0.0 && distil.role != DistilRole::Off {
            let rule = "0 with distil.role: a fit is too short for averaged weights to catch up";
            return refuse("policy.averaging", self.policy.averaging.to_string(), rule);
        }
        if value.replay_capacity < 2 {
            return refuse("value.replay_capacity", value.replay_capacity.to_string(), "at least 2 transitions");
        }
        if !(0.0..=1.0).contains(&distil.expert_share) {
            return refuse("distil.expert_share", distil.expert_share.to_string(), "a share in [0, 1]");
        }
        for (field, number) in [
            ("distil.max_epochs", distil.max_epochs),
            ("distil.batch_size", distil.batch_size),
            ("distil.patience", distil.patience),
            ("distil.proposals", distil.proposals),
        ] {
            if number == 0 {
                return refuse(field, "0".into(), "at least 1");
            }
        }
        for (field, number) in [("value.proposals", value.proposals), ("distil.proposals", distil.proposals)] {
            if number > MOST_PROPOSALS {
                return refuse(field, number.to_string(), "at most 65536 sequences for each plan");
            }
        }
        if !(0.0..1.0).contains(&distil.holdout) {
            return refuse("distil.holdout", distil.holdout.to_string(), "a share in [0, 1)");
        }
        if !(distil.noise.is_finite() && distil.noise >= 0.0) {
            return refuse("distil.noise", distil.noise.to_string(), "a finite number of at least 0");
        }
        Ok(())
    }

    /// Adds value and policy to a planning agent that has learned nothing yet, in an environment like `spec`. `later` are the
    /// planners that take over after [`warm_up`](ValueConfig::warm_up), one per environment; if empty, the agent keeps its own. With
    /// [`ValueSource::Run`] the value must be handed over by [`Guided::with_value`]; until then the agent refuses to act.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule, for discrete actions where a policy is to be learned, and for a model that
    /// cannot imagine episodes where values are to be learned from them.
    pub fn init(
        &self,
        spec: &EnvSpec,
        agent: Box<dyn PlanningAgent>,
        later: Vec<Mpc>,
        rng: &mut Rng,
    ) -> Result<Guided, AgentError> {
        self.validate()?;
        let Self { value, distil, policy, critics, sac } = self;
        if value.source == ValueSource::Imagined {
            check_markov(agent.planned_in())?;
            if agent.goal().shaping.is_some() {
                let rule = "none with value.source = \"imagined\", which does not count it";
                return Err(AgentError::Config { field: "goal.cost", value: "some".into(), rule });
            }
        }
        let nets = matches!(value.source, ValueSource::Episodes | ValueSource::Imagined);
        let net = if nets { Some(value.net().init(spec, rng)?) } else { None };
        let critic = match value.source {
            ValueSource::Critic => Some(sac.init(spec, policy, critics, rng)?),
            _ => None,
        };
        let (widths, capacity) = ([spec.obs.width(), spec.actions.width()], value.replay_capacity);
        let replay = || Replay::new(widths[0], widths[1], capacity);
        let student = match distil.role {
            DistilRole::Off => None,
            _ => {
                let head = ActorHead::Deterministic { exploration: distil.noise };
                Some(Student { actor: policy.init(spec, head, rng)?, labels: replay()?, learned: false })
            }
        };
        let data = if agent.learned().is_some() { None } else { Some(replay()?) };
        let slots = agent.slots();
        Ok(Guided {
            config: self.clone(),
            learned_for: agent.goal().key(),
            of_first_goal: true,
            agent,
            later,
            data,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            net,
            untaught: critic.clone(),
            critic,
            given: None,
            student,
            progress: Progress::default(),
            warm: false,
        })
    }
}

/// A rule of the network, reported with the name of its section.
fn of_section(error: AgentError) -> AgentError {
    match error {
        AgentError::Config { field, value, rule } => {
            let field = match field {
                "discount" => "value.discount",
                "lambda" => "value.lambda",
                "members" => "value.members",
                "reduction" => "value.reduction",
                "batch_size" => "value.batch_size",
                "rounds" => "value.rounds",
                "learning_rate" => "value.learning_rate",
                other => other,
            };
            AgentError::Config { field, value, rule }
        }
        other => other,
    }
}
