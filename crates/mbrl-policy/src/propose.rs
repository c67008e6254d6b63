//! Plans that a policy proposes.

use std::fmt;

use burn::tensor::{Tensor, TensorData};
use mbrl_env::Situation;
use mbrl_model::{Draw, Dynamics, ModelError, Propagation};
use mbrl_plan::Propose;

use crate::{ActMode, Policy, PolicyDraw};

/// A policy's actions, rolled out in the planner's model: one sequence with its mean actions, the others with its noise.
///
/// ```
/// use std::sync::Arc;
///
/// use mbrl_env::{Env, Rng, Situation, tasks};
/// use mbrl_model::{Device, dynamics_fn};
/// use mbrl_plan::Propose;
/// use mbrl_policy::{ActorConfig, ActorHead, PolicyProposals};
///
/// let task = tasks::make("pendulum")?;
/// let actor = ActorConfig::default().init(task.env.spec(), ActorHead::Deterministic { exploration: 0.2 }, &mut Rng::new(0))?;
/// let proposals = PolicyProposals::new(Arc::new(actor), 4);
/// let model = dynamics_fn(3, 1, &Device::flex(), |s, _| s);
/// let made = proposals.propose(&Situation::of(&[1.0, 0.0, 0.0]), &model, 10, 0)?;
/// assert_eq!(made.dims(), [4, 10, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PolicyProposals<P: ?Sized> {
    count: usize,
    policy: std::sync::Arc<P>,
}

impl<P: Policy + ?Sized> PolicyProposals<P> {
    /// `count` sequences per plan, at least 1, from a policy.
    #[must_use]
    pub fn new(policy: std::sync::Arc<P>, count: usize) -> Self {
        Self { policy, count: count.max(1) }
    }
}

impl<P: ?Sized> fmt::Debug for PolicyProposals<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyProposals").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<P: Policy + ?Sized> Propose for PolicyProposals<P> {
    fn propose(
        &self,
        situation: &Situation<'_>,
        model: &dyn Dynamics,
        horizon: usize,
        key: u64,
    ) -> Result<Tensor<3>, ModelError> {
        let (count, width) = (self.count, self.policy.action_width());
        let mut last = vec![0.0; count * width];
        let mut choose = |obs: &[f32], t: usize| {
            let (first, others) = obs.split_at(obs.len() / count);
            let draw = PolicyDraw::new(key).at_step(t as u32);
            let mut actions = self.policy.act(first, ActMode::Evaluate, draw);
            if !others.is_empty() {
                actions.extend(self.policy.act(others, ActMode::Explore, draw));
            }
            // Where a model has diverged, the policy has no valid input: it repeats its last action.
            for (action, last) in actions.iter_mut().zip(&last) {
                if !action.is_finite() {
                    *action = *last;
                }
            }
            last.copy_from_slice(&actions);
            actions
        };
        let draw = Draw::new(Propagation::MEAN, key);
        let actions = model.rollout_policy(situation, [count, horizon], &mut choose, draw)?;
        Ok(Tensor::from_data(TensorData::new(actions, [count, horizon, width]), &model.spec().device))
    }
}
