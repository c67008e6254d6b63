//! Rewards and terminations, written once: for the simulator's single steps and for batches.

use burn::tensor::{Bool, Tensor};
use mbrl_env::{Reward, Termination};

use crate::scalar::Scalar;

/// The reward of a step, and whether the step is the last, computed from the observation after it.
pub trait Objective: Send + Sync {
    /// The reward.
    fn reward<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S;

    /// 1 where the episode is over, else 0; `None` for a task that never ends.
    fn over<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> Option<S>;
}

/// An objective as a batch function.
#[derive(Debug, Clone, PartialEq)]
pub struct Batched<T>(pub T);

fn columns(obs: &Tensor<2>) -> impl Fn(usize) -> Tensor<2> + '_ {
    |column| obs.clone().narrow(1, column, 1)
}

impl<T: Objective> Reward for Batched<T> {
    fn reward(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        self.0.reward(&columns(&next_obs)).squeeze_dim::<1>(1)
    }
}

impl<T: Objective> Termination for Batched<T> {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        match self.0.over(&columns(&next_obs)) {
            Some(over) => over.squeeze_dim::<1>(1).greater_elem(0.5),
            None => Tensor::<1, Bool>::zeros([next_obs.dims()[0]], &next_obs.device()),
        }
    }
}

/// 1 where at least one of two flags is 1.
pub(crate) fn either<S: Scalar>(a: &S, b: &S) -> S {
    (a.clone() + b.clone()).clamp(0.0, 1.0)
}

/// Reward and termination for one observation, in double precision.
#[cfg(feature = "mujoco")]
pub(crate) fn judge<T: Objective>(objective: &T, next: &[f64]) -> (f64, bool) {
    let column = |column: usize| next[column];
    (objective.reward(&column), objective.over(&column).is_some_and(|over| over > 0.5))
}
