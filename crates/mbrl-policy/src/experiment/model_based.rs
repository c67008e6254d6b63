//! `agent.kind = "model-based"`.

use mbrl_env::{Env, Situation, tasks::Task};
use mbrl_model::{Draw, Dynamics, EnsembleConfig, FitConfig, Precision, Propagation, Start, is_cpu};
use mbrl_plan::{Mpc, PlannerConfig, Refinement, Replan};
use serde::{Deserialize, Serialize, Serializer};

use super::{
    ExperimentError, GoalConfig, RewardSource, TerminationSource,
    agent::{Kind, Site, with_kind},
    limits::{check_networks, check_plan, check_weights},
    of_run::value_of_run,
};
use crate::{
    ActorConfig, CriticsConfig, DistilConfig, DistilRole, GuidedConfig, Learner, ModelBasedConfig, Planning,
    PlanningAgent, SacConfig, Tensor, Training, ValueConfig, ValueSource,
};

/// The sections of an agent that learns an ensemble and plans through it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelBasedSections {
    /// Precision of the products in roll-outs on a CPU: `"f32"` (default) or `"bf16"`.
    #[serde(default)]
    pub precision: Precision,
    /// `[agent]`: how data is collected and when the model is fitted.
    #[serde(default, serialize_with = "written")]
    pub agent: ModelBasedConfig,
    /// `[goal]`: how plans are judged.
    #[serde(default)]
    pub goal: GoalConfig,
    /// `[model]`: the ensemble.
    pub model: EnsembleConfig,
    /// `[fit]`: how it is fitted.
    #[serde(default)]
    pub fit: FitConfig,
    /// `[planner]`: which planner, and its settings.
    pub planner: PlannerConfig,
    /// `[refinement]`: gradient steps after a sampling planner's iterations; off unless `iterations` is above 0.
    #[serde(default = "Refinement::off")]
    pub refinement: Refinement,
    /// `[propagation]`: how uncertainty is carried through roll-outs.
    pub propagation: Propagation,
    /// `[mpc]`: how plans are executed.
    #[serde(default)]
    pub mpc: MpcConfig,
    /// `[value]`: a value that plans end in; off unless `source` says what it is learned from.
    #[serde(default)]
    pub value: ValueConfig,
    /// `[distil]`: a policy that is distilled from plans; off unless `role` says what it is for.
    #[serde(default)]
    pub distil: DistilConfig,
    /// `[policy]`: the network of the distilled policy, or of the critic's.
    #[serde(default)]
    pub policy: ActorConfig,
    /// `[critics]`: where `value.source = "critic"`.
    #[serde(default)]
    pub critics: CriticsConfig,
    /// `[sac]`: how these learn.
    #[serde(default)]
    pub sac: SacConfig,
}

/// How plans are executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MpcConfig {
    /// `"every-step"` (default), `{ every = n }` or `"open-loop"`.
    pub replan: Replan,
}

impl ModelBasedSections {
    /// What plans of this agent on `task` are judged with.
    pub(super) fn planning(&self, task: &Task) -> Result<Planning, ExperimentError> {
        let actions = &task.env.spec().actions;
        let planner = |propagation, refinement: &Refinement| {
            self.planner
                .init(actions, propagation, self.goal.aggregate, refinement)
                .map_err(ExperimentError::section("[planner]"))
        };
        Ok(Planning {
            goal: self.goal.init(task, Some(&self.model))?,
            planner: planner(self.propagation, &self.refinement)?,
            propagation: self.propagation,
            with_simulator: match self.planner.needs_gradients() {
                true => None,
                false => Some(planner(Propagation::MEAN, &Refinement::off())?),
            },
        })
    }
}

fn written<S: Serializer>(agent: &ModelBasedConfig, serializer: S) -> Result<S::Ok, S::Error> {
    with_kind::<ModelBasedSections, _, _>(agent, serializer)
}

impl Kind for ModelBasedSections {
    const NAME: &'static str = "model-based";
    const SECTIONS: &'static [&'static str] = &[
        "precision",
        "agent",
        "goal",
        "model",
        "fit",
        "planner",
        "refinement",
        "propagation",
        "mpc",
        "value",
        "distil",
        "policy",
        "critics",
        "sac",
    ];

    fn complete(&mut self) {
        self.goal.reward.get_or_insert(RewardSource::Task);
        self.goal.termination.get_or_insert(TerminationSource::Task);
    }

    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError> {
        let spec = site.task.env.spec();
        let (obs, action) = (spec.obs.width(), spec.actions.width());
        check_plan(&self.planner, self.propagation.particles, obs, action)?;
        check_weights(&self.model.for_env(spec), obs, action)?;
        let mut model = self
            .model
            .init_for_task(spec, &site.task.knowledge, site.device, &mut training.split_rng())
            .map_err(ExperimentError::section("[model]"))?;
        if self.precision == Precision::Bf16 && !is_cpu(site.device) {
            let told = format!("\"f32\": roll-outs on device = {:?} multiply in f32", site.device_word);
            return Err(ExperimentError::rule("precision", "\"bf16\"", told));
        }
        model.set_precision(self.precision);
        // One imagined step: only a roll-out shows whether particles and members are compatible.
        let start = vec![0.0; obs];
        let actions = Tensor::zeros([1, 1, action], site.device);
        let draw = Draw::new(self.propagation, 0);
        model
            .rollout(Start::Situation(Situation::of(&start)), actions, draw)
            .map_err(ExperimentError::section("[propagation]"))?;
        let guide = guide_of((&self.value, &self.distil, &self.policy, &self.critics, &self.sac));
        let now = first_planner(&self.planner, &guide, self.propagation.particles, site)?;
        let (mpc, more) = mpcs(&now, &self.refinement, &self.goal, &self.mpc, site, self.propagation)?;
        let goal = self.goal.init(site.task, Some(&self.model))?;
        self.fit.validate().map_err(ExperimentError::section("[fit]"))?;
        let agent =
            self.agent.init(spec, model, self.fit.clone(), goal, mpc).map_err(ExperimentError::section("[agent]"))?;
        let agent = if more.is_empty() { agent } else { agent.with_more(more) };
        let later = || mpcs(&self.planner, &self.refinement, &self.goal, &self.mpc, site, self.propagation);
        guided(&guide, agent, self.mpc.replan, later, site, training)
    }
}

/// The sections of what is added to a planning agent.
type GuideSections<'a> = (&'a ValueConfig, &'a DistilConfig, &'a ActorConfig, &'a CriticsConfig, &'a SacConfig);

/// What is added to a planning agent.
pub(super) fn guide_of((value, distil, policy, critics, sac): GuideSections<'_>) -> GuidedConfig {
    GuidedConfig {
        value: value.clone(),
        distil: distil.clone(),
        policy: policy.clone(),
        critics: critics.clone(),
        sac: sac.clone(),
    }
}

/// The planner of the warm-up, or the only planner where there is none.
pub(super) fn first_planner(
    planner: &PlannerConfig,
    guide: &GuidedConfig,
    particles: usize,
    site: &Site<'_>,
) -> Result<PlannerConfig, ExperimentError> {
    if !warms_up(guide) {
        return Ok(planner.clone());
    }
    let spec = site.task.env.spec();
    let longer = planner.clone().with_horizon(guide.value.warm_up_horizon);
    check_plan(&longer, particles, spec.obs.width(), spec.actions.width())?;
    Ok(longer)
}

/// Whether another planner takes over after a warm-up.
fn warms_up(guide: &GuidedConfig) -> bool {
    guide.is_on() && guide.value.warm_up > 0 && guide.value.warm_up_horizon > 0
}

/// A planning agent with value and policy added, where either of them is on. `later` makes the planners after the warm-up.
pub(super) fn guided(
    guide: &GuidedConfig,
    agent: impl PlanningAgent + 'static,
    replan: Replan,
    later: impl FnOnce() -> Result<(Mpc, Vec<Mpc>), ExperimentError>,
    site: &Site<'_>,
    training: &mut Training,
) -> Result<Box<dyn Learner>, ExperimentError> {
    guide.validate().map_err(ExperimentError::section("[value] or [distil]"))?;
    if !guide.is_on() {
        return Ok(Box::new(agent));
    }
    let spec = site.task.env.spec();
    let (obs, action) = (spec.obs.width(), spec.actions.width());
    guide.policy.validate().map_err(ExperimentError::section("[policy]"))?;
    guide.critics.validate().map_err(ExperimentError::section("[critics]"))?;
    check_networks("value.hidden", &guide.value.hidden, [guide.value.members, 2 * obs, 1])?;
    check_networks("policy.hidden", &guide.policy.hidden, [1, 2 * obs, 2 * action])?;
    check_networks("critics.hidden", &guide.critics.hidden, [guide.critics.count, 2 * obs + action, 1])?;
    let later = if warms_up(guide) {
        let (first, more) = later()?;
        [first].into_iter().chain(more).collect()
    } else {
        Vec::new()
    };
    check_teacher(guide, &agent, replan)?;
    let agent = guide.init(spec, Box::new(agent), later, &mut training.split_rng());
    let agent = agent.map_err(ExperimentError::section("[value] or [distil]"))?;
    Ok(Box::new(match guide.value.source {
        ValueSource::Run => agent.with_value(value_of_run(guide, site)?),
        _ => agent,
    }))
}

/// A policy that acts learns what the planner would do at the policy's own states: from a plan for exactly that state, and not to
/// explore, which the policy would continue to do in evaluations.
fn check_teacher(guide: &GuidedConfig, agent: &impl PlanningAgent, replan: Replan) -> Result<(), ExperimentError> {
    if guide.distil.role != DistilRole::Act {
        return Ok(());
    }
    if replan != Replan::EveryStep {
        let shown = match replan {
            Replan::Every(steps) => format!("{{ every = {steps} }}"),
            _ => "\"open-loop\"".to_owned(),
        };
        let told =
            "\"every-step\" with distil.role = \"act\": the policy learns from a plan for each state that it meets";
        return Err(ExperimentError::rule("mpc.replan", shown, told));
    }
    if let Some(weight) = agent.goal().disagreement.as_ref().map(|term| term.weight).filter(|weight| *weight > 0.0) {
        let told = "at most 0 with distil.role = \"act\": the policy would explore in evaluations too";
        return Err(ExperimentError::rule("goal.disagreement.weight", weight.to_string(), told));
    }
    Ok(())
}

/// The controller of the first environment, and those of the others.
pub(super) fn mpcs(
    planner: &PlannerConfig,
    refinement: &Refinement,
    goal: &GoalConfig,
    config: &MpcConfig,
    site: &Site<'_>,
    propagation: Propagation,
) -> Result<(Mpc, Vec<Mpc>), ExperimentError> {
    let one = || mpc(planner, refinement, goal, config, site, propagation);
    Ok((one()?, (1..site.environments).map(|_| one()).collect::<Result<_, _>>()?))
}

/// The controller around a planner.
fn mpc(
    planner: &PlannerConfig,
    refinement: &Refinement,
    goal: &GoalConfig,
    mpc: &MpcConfig,
    site: &Site<'_>,
    propagation: Propagation,
) -> Result<Mpc, ExperimentError> {
    let actions = &site.task.env.spec().actions;
    let planner = planner
        .init(actions, propagation, goal.aggregate, refinement)
        .map_err(ExperimentError::section("[planner]"))?;
    Mpc::new(planner, mpc.replan).map_err(ExperimentError::section("[mpc]"))
}
