//! `agent.kind = "mbpo"`.

use mbrl_env::Env;
use mbrl_model::{EnsembleConfig, FitConfig, MemberRule, Propagation};
use serde::{Deserialize, Serialize, Serializer};

use super::{
    ExperimentError, GoalConfig, RewardSource, TerminationSource,
    agent::{Kind, Site, with_kind},
    limits::check_weights,
    model_free::check_parts,
};
use crate::{ActorConfig, CriticsConfig, Goal, Imagining, Learner, MbpoConfig, RolloutConfig, SacConfig, Training};

/// The sections of an agent that learns a policy in a learned model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MbpoSections {
    /// `[agent]`: how data is collected, when the model is fitted, how the policy learns.
    #[serde(default, serialize_with = "written")]
    pub agent: MbpoConfig,
    /// `[goal]`: where rewards and terminations of imagined steps come from.
    #[serde(default)]
    pub goal: ImaginedGoalConfig,
    /// `[model]`: the ensemble.
    pub model: EnsembleConfig,
    /// `[fit]`: how it is fitted.
    #[serde(default)]
    pub fit: FitConfig,
    /// `[rollout]`: imagined data.
    #[serde(default)]
    pub rollout: RolloutConfig,
    /// `[propagation]`: how uncertainty is carried through roll-outs (default: a member drawn anew for each row at each step, with noise;
    /// MBPO).
    #[serde(default = "propagation")]
    pub propagation: Propagation,
    /// `[policy]`: the actor's network.
    #[serde(default)]
    pub policy: ActorConfig,
    /// `[critics]`: the critics' networks, which judge actions.
    #[serde(default)]
    pub critics: CriticsConfig,
    /// `[sac]`: constants of soft actor-critic, which improves the policy.
    #[serde(default)]
    pub sac: SacConfig,
}

/// Where rewards and terminations of imagined steps come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImaginedGoalConfig {
    /// As [`GoalConfig::reward`].
    pub reward: Option<RewardSource>,
    /// As [`GoalConfig::termination`].
    pub termination: Option<TerminationSource>,
}

fn propagation() -> Propagation {
    Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 }
}

fn written<S: Serializer>(agent: &MbpoConfig, serializer: S) -> Result<S::Ok, S::Error> {
    with_kind::<MbpoSections, _, _>(agent, serializer)
}

impl Kind for MbpoSections {
    const NAME: &'static str = "mbpo";
    const SECTIONS: &'static [&'static str] =
        &["agent", "goal", "model", "fit", "rollout", "propagation", "policy", "critics", "sac"];

    fn complete(&mut self) {
        self.goal.reward.get_or_insert(RewardSource::Task);
        self.goal.termination.get_or_insert(TerminationSource::Task);
    }

    fn build(&self, site: &Site<'_>, training: &mut Training) -> Result<Box<dyn Learner>, ExperimentError> {
        let spec = site.task.env.spec();
        let (obs, action) = (spec.obs.width(), spec.actions.width());
        check_parts(Self::NAME, spec, &self.policy, &self.critics)?;
        check_weights(&self.model.for_env(spec), obs, action)?;
        if self.model.past > 0 {
            let told = "0: imagined roll-outs start from single observations";
            return Err(ExperimentError::rule("model.past", self.model.past, told));
        }
        let model = self
            .model
            .init_for_task(spec, &site.task.knowledge, site.device, &mut training.split_rng())
            .map_err(ExperimentError::section("[model]"))?;
        let goal: Goal = GoalConfig {
            reward: self.goal.reward.clone(),
            termination: self.goal.termination.clone(),
            ..GoalConfig::default()
        }
        .init(site.task, Some(&self.model))?;
        self.fit.validate().map_err(ExperimentError::section("[fit]"))?;
        let policy = self
            .sac
            .init(spec, &self.policy, &self.critics, &mut training.split_rng())
            .map_err(ExperimentError::section("[sac]"))?;
        let imagining = Imagining { goal, rollout: self.rollout.clone(), propagation: self.propagation };
        let agent = self
            .agent
            .init(spec, model, self.fit.clone(), imagining, policy)
            .map_err(ExperimentError::section("[agent]"))?;
        Ok(Box::new(agent.in_lockstep(site.environments)))
    }
}
