//! `agent.kind = "sac"` and `agent.kind = "td3"`.

use mbrl_env::{ActionSpace, Env, EnvSpec, Rng};
use mbrl_model::is_cpu;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    ExperimentError,
    agent::{Kind, Site, with_kind},
    limits::check_networks,
};
use crate::{
    ActorConfig, AgentError, CriticsConfig, Learner, ModelFreeConfig, OffPolicy, OnDevice, OnHost, SacConfig,
    Td3Config, Training,
};

/// The sections of an agent that learns by soft actor-critic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SacSections {
    /// `[agent]`: how transitions are collected and how often it learns.
    #[serde(default, serialize_with = "sac_written")]
    pub agent: ModelFreeConfig,
    /// `[policy]`: the actor's network.
    #[serde(default)]
    pub policy: ActorConfig,
    /// `[critics]`: the critics' networks.
    #[serde(default)]
    pub critics: CriticsConfig,
    /// `[sac]`: constants of the algorithm.
    #[serde(default)]
    pub sac: SacConfig,
}

/// The sections of an agent that learns by twin delayed deep deterministic policy gradients.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Td3Sections {
    /// `[agent]`: how transitions are collected and how often it learns.
    #[serde(default, serialize_with = "td3_written")]
    pub agent: ModelFreeConfig,
    /// `[policy]`: the actor's network.
    #[serde(default)]
    pub policy: ActorConfig,
    /// `[critics]`: the critics' networks. As published, `actor = "first"`.
    #[serde(default)]
    pub critics: CriticsConfig,
    /// `[td3]`: constants of the algorithm.
    #[serde(default)]
    pub td3: Td3Config,
}

fn sac_written<S: Serializer>(agent: &ModelFreeConfig, serializer: S) -> Result<S::Ok, S::Error> {
    with_kind::<SacSections, _, _>(agent, serializer)
}

fn td3_written<S: Serializer>(agent: &ModelFreeConfig, serializer: S) -> Result<S::Ok, S::Error> {
    with_kind::<Td3Sections, _, _>(agent, serializer)
}

impl Kind for SacSections {
    const NAME: &'static str = "sac";
    const SECTIONS: &'static [&'static str] = &["agent", "policy", "critics", "sac"];

    fn complete(&mut self) {}

    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError> {
        let init = |spec: &EnvSpec, rng: &mut Rng| self.sac.init(spec, &self.policy, &self.critics, rng);
        build(&self.agent, &self.policy, &self.critics, (Self::NAME, "[sac]"), site, training, init)
    }
}

impl Kind for Td3Sections {
    const NAME: &'static str = "td3";
    const SECTIONS: &'static [&'static str] = &["agent", "policy", "critics", "td3"];

    fn complete(&mut self) {}

    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError> {
        let init = |spec: &EnvSpec, rng: &mut Rng| self.td3.init(spec, &self.policy, &self.critics, rng);
        build(&self.agent, &self.policy, &self.critics, (Self::NAME, "[td3]"), site, training, init)
    }
}

fn build<L: OffPolicy + Into<OnHost> + 'static>(
    agent: &ModelFreeConfig,
    policy: &ActorConfig,
    critics: &CriticsConfig,
    (kind, section): (&'static str, &'static str),
    site: &Site<'_>,
    training: &mut Training,
    init: impl FnOnce(&EnvSpec, &mut Rng) -> Result<L, AgentError>,
) -> Result<Box<dyn Learner>, ExperimentError> {
    let spec = site.task.env.spec();
    check_parts(kind, spec, policy, critics)?;
    let learner = init(spec, &mut training.split_rng()).map_err(ExperimentError::section(section))?;
    // On a CPU the host's own kernels do the same.
    match is_cpu(site.device) {
        true => collecting(agent, spec, learner, site),
        false => {
            let learner = OnDevice::new(learner, site.device).map_err(ExperimentError::section(section))?;
            collecting(agent, spec, learner, site)
        }
    }
}

fn collecting<L: OffPolicy + 'static>(
    agent: &ModelFreeConfig,
    spec: &EnvSpec,
    learner: L,
    site: &Site<'_>,
) -> Result<Box<dyn Learner>, ExperimentError> {
    let agent = agent.init(spec, learner).map_err(ExperimentError::section("[agent]"))?;
    Ok(Box::new(agent.in_lockstep(site.environments)))
}

/// Refuses tasks whose actions are choices, and networks that break a rule or that no machine has the memory for.
pub(super) fn check_parts(
    kind: &str,
    spec: &EnvSpec,
    policy: &ActorConfig,
    critics: &CriticsConfig,
) -> Result<(), ExperimentError> {
    if let ActionSpace::Discrete(n) = spec.actions {
        let told = format!(
            "\"model-based\" or \"npg\" for {}, whose actions are {n} choices: \"{kind}\" needs real numbers",
            spec.name
        );
        return Err(ExperimentError::rule("agent.kind", format!("\"{kind}\""), told));
    }
    let (obs, action) = (spec.obs.width(), spec.actions.width());
    policy.validate().map_err(ExperimentError::section("[policy]"))?;
    critics.validate().map_err(ExperimentError::section("[critics]"))?;
    // Angles enter twice, and a Gaussian outputs two numbers for each entry of an action.
    check_networks("policy.hidden", &policy.hidden, [1, 2 * obs, 2 * action])?;
    check_networks("critics.hidden", &critics.hidden, [critics.count, 2 * obs + action, 1])
}
