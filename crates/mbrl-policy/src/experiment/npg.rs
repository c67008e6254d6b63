//! `agent.kind = "npg"`.

use mbrl_env::Env;
use mbrl_model::is_cpu;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    ExperimentError,
    agent::{Kind, Site, with_kind},
    limits::check_networks,
};
use crate::{BaselineConfig, Learner, NpgConfig, StochasticConfig, Training};

/// The sections of an agent that learns by natural policy gradients.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NpgSections {
    /// `[agent]`: how much is collected for an update, and how far it goes.
    #[serde(default, serialize_with = "written")]
    pub agent: NpgConfig,
    /// `[policy]`: the policy's network.
    #[serde(default)]
    pub policy: StochasticConfig,
    /// `[baseline]`: the network for values, and how it is fitted.
    #[serde(default)]
    pub baseline: BaselineConfig,
}

fn written<S: Serializer>(agent: &NpgConfig, serializer: S) -> Result<S::Ok, S::Error> {
    with_kind::<NpgSections, _, _>(agent, serializer)
}

impl Kind for NpgSections {
    const NAME: &'static str = "npg";
    const SECTIONS: &'static [&'static str] = &["agent", "policy", "baseline"];

    fn complete(&mut self) {}

    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError> {
        if !is_cpu(site.device) {
            let told = "\"flex\" or \"ndarray\": natural policy gradients are computed on the CPU alone";
            return Err(ExperimentError::rule("device", format!("{:?}", site.device_word), told));
        }
        let spec = site.task.env.spec();
        let obs = spec.obs.width();
        let outputs = match spec.actions {
            mbrl_env::ActionSpace::Discrete(n) => n,
            _ => spec.actions.width(),
        };
        self.policy.validate().map_err(ExperimentError::section("[policy]"))?;
        self.baseline.validate().map_err(ExperimentError::section("[baseline]"))?;
        // Angles enter twice, and the baseline sees powers of the time.
        check_networks("policy.hidden", &self.policy.hidden, [1, 2 * obs, outputs])?;
        check_networks("baseline.hidden", &self.baseline.hidden, [1, 2 * obs + 4, 1])?;
        let agent = self
            .agent
            .init(spec, &self.policy, &self.baseline, &mut training.split_rng())
            .map_err(ExperimentError::section("[agent]"))?;
        Ok(Box::new(agent.in_lockstep(site.environments)))
    }
}
