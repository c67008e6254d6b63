//! `agent.kind = "ground-truth"`.

use mbrl_env::Env;
use mbrl_model::{Propagation, SimulatorModel};
use mbrl_plan::{PlannerConfig, Refinement};
use serde::{Deserialize, Serialize, Serializer};

use super::{
    ExperimentError, GoalConfig, MpcConfig, RewardSource, TerminationSource,
    agent::{Kind, NoSettings, Site, with_kind},
    limits::check_plan,
    model_based::{first_planner, guide_of, guided, mpcs},
};
use crate::{ActorConfig, CriticsConfig, DistilConfig, Learner, MpcAgent, SacConfig, Training, ValueConfig};

/// The sections of an agent that plans through the simulator itself and learns nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GroundTruthSections {
    /// `[agent]`: only its kind.
    #[serde(default, serialize_with = "written")]
    pub agent: NoSettings,
    /// `[goal]`: how plans are judged.
    #[serde(default)]
    pub goal: GoalConfig,
    /// `[planner]`: which planner, and its settings.
    pub planner: PlannerConfig,
    /// `[refinement]`: off, because a simulator has no gradients.
    #[serde(default = "Refinement::off")]
    pub refinement: Refinement,
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

impl Default for GroundTruthSections {
    fn default() -> Self {
        let mut sections = Self {
            agent: NoSettings {},
            goal: GoalConfig::default(),
            planner: PlannerConfig::default(),
            refinement: Refinement::off(),
            mpc: MpcConfig::default(),
            value: ValueConfig::default(),
            distil: DistilConfig::default(),
            policy: ActorConfig::default(),
            critics: CriticsConfig::default(),
            sac: SacConfig::default(),
        };
        sections.complete();
        sections
    }
}

fn written<S: Serializer>(agent: &NoSettings, serializer: S) -> Result<S::Ok, S::Error> {
    with_kind::<GroundTruthSections, _, _>(agent, serializer)
}

impl Kind for GroundTruthSections {
    const NAME: &'static str = "ground-truth";
    const SECTIONS: &'static [&'static str] =
        &["agent", "goal", "planner", "refinement", "mpc", "value", "distil", "policy", "critics", "sac"];

    fn complete(&mut self) {
        self.goal.reward.get_or_insert(RewardSource::Model);
        self.goal.termination.get_or_insert(TerminationSource::Model);
    }

    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError> {
        let spec = site.task.env.spec();
        let why = "agent.kind = \"ground-truth\" plans through a simulator, which has no gradients";
        if self.planner.needs_gradients() {
            let told = format!("a planner that samples: {why}");
            return Err(ExperimentError::rule("planner.kind", format!("\"{}\"", self.planner.kind()), told));
        }
        if self.refinement.is_on() {
            let told = format!("0: {why}");
            return Err(ExperimentError::rule("refinement.iterations", self.refinement.iterations, told));
        }
        check_plan(&self.planner, 1, spec.obs.width(), spec.actions.width())?;
        let simulator = site.task.env.require_simulator().map_err(|_| {
            let told = "\"model-based\" in an environment that is no simulator: its state cannot be saved and restored";
            ExperimentError::rule("agent.kind", "\"ground-truth\"", told)
        })?;
        let model = SimulatorModel::new(simulator.boxed_clone(), site.device);
        let guide = guide_of((&self.value, &self.distil, &self.policy, &self.critics, &self.sac));
        let now = first_planner(&self.planner, &guide, 1, site)?;
        let (mpc, more) = mpcs(&now, &self.refinement, &self.goal, &self.mpc, site, Propagation::MEAN)?;
        let goal = self.goal.init(site.task, None)?;
        let agent = MpcAgent::new(model, goal, spec.actions.clone(), mpc).with_more(more);
        let later = || mpcs(&self.planner, &self.refinement, &self.goal, &self.mpc, site, Propagation::MEAN);
        guided(&guide, agent, self.mpc.replan, later, site, training)
    }
}
