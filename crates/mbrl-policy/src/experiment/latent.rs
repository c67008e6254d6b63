//! `agent.kind = "latent"`.

use mbrl_env::Env;
use mbrl_model::{Draw, Dynamics, FitConfig, LatentConfig, Propagation, Start};
use mbrl_plan::{PlannerConfig, Refinement};
use serde::{Deserialize, Serialize, Serializer};

use super::{
    ExperimentError, GoalConfig, MpcConfig,
    agent::{Kind, Site, with_kind},
    limits::{check_networks, check_plan},
    model_based::mpcs,
};
use crate::{Goal, Learner, ModelBasedConfig, Tensor, Training};

/// The sections of an agent that observes images, learns a latent model of them and plans in its latent space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LatentSections {
    /// `[agent]`: how data is collected and when the model is fitted, as with `"model-based"`.
    #[serde(default, serialize_with = "written")]
    pub agent: ModelBasedConfig,
    /// `[goal]`: how plans are judged.
    #[serde(default)]
    pub goal: LatentGoalConfig,
    /// `[model]`: the latent model.
    #[serde(default)]
    pub model: LatentConfig,
    /// `[fit]`: how it is fitted. Its examples are windows of `model.window` steps.
    #[serde(default)]
    pub fit: FitConfig,
    /// `[planner]`: which planner, and its settings.
    pub planner: PlannerConfig,
    /// `[refinement]`: gradient steps after a sampling planner's iterations; off unless `iterations` is above 0.
    #[serde(default = "Refinement::off")]
    pub refinement: Refinement,
    /// `[mpc]`: how plans are executed.
    #[serde(default)]
    pub mpc: MpcConfig,
}

/// How plans in a latent space are judged: by the reward that the model has learned, the only one available there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LatentGoalConfig {
    /// Discount per step, in (0, 1] (default 1).
    pub discount: f32,
}

impl Default for LatentGoalConfig {
    fn default() -> Self {
        Self { discount: 1.0 }
    }
}

fn written<S: Serializer>(agent: &ModelBasedConfig, serializer: S) -> Result<S::Ok, S::Error> {
    with_kind::<LatentSections, _, _>(agent, serializer)
}

impl Kind for LatentSections {
    const NAME: &'static str = "latent";
    const SECTIONS: &'static [&'static str] = &["agent", "goal", "model", "fit", "planner", "refinement", "mpc"];

    fn complete(&mut self) {}

    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError> {
        let spec = site.task.env.spec();
        let action = spec.actions.width();
        if site.task.termination.is_some() {
            let told = "a task that never terminates: a latent model learns no terminations";
            return Err(ExperimentError::rule("task", &spec.name, told));
        }
        let (discount, LatentConfig { latent, hidden, encoder, decoder, .. }) = (self.goal.discount, &self.model);
        if !(discount > 0.0 && discount <= 1.0) {
            return Err(ExperimentError::rule("goal.discount", discount, "a number in (0, 1]"));
        }
        check_plan(&self.planner, 1, *latent, action)?;
        check_networks("model.hidden", hidden, [1, latent.saturating_add(action), latent.saturating_add(1)])?;
        check_networks("model.encoder", encoder, [1, spec.obs.width(), *latent])?;
        check_networks("model.decoder", decoder, [1, *latent, spec.obs.width()])?;
        let model = self
            .model
            .init_for(spec, site.device, &mut training.split_rng())
            .map_err(ExperimentError::section("[model]"))?;
        // One imagined step.
        let (states, actions) = (Tensor::zeros([1, *latent], site.device), Tensor::zeros([1, 1, action], site.device));
        model
            .rollout(Start::States(states), actions, Draw::new(Propagation::MEAN, 0))
            .map_err(ExperimentError::section("[model]"))?;
        let goal = GoalConfig::default();
        let (mpc, more) = mpcs(&self.planner, &self.refinement, &goal, &self.mpc, site, Propagation::MEAN)?;
        self.fit.validate().map_err(ExperimentError::section("[fit]"))?;
        let goal = Goal { discount, ..Goal::of_model() };
        let agent =
            self.agent.init(spec, model, self.fit.clone(), goal, mpc).map_err(ExperimentError::section("[agent]"))?;
        Ok(Box::new(if more.is_empty() { agent } else { agent.with_more(more) }))
    }
}
