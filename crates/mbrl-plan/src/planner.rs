//! The planner's seam.

use std::time::Duration;

use burn::tensor::Tensor;
use mbrl_env::{Rng, Situation};

use crate::{PlanError, Problem};

/// What a plan cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanStats {
    /// Iterations of the optimizer.
    pub iterations: usize,
    /// Model steps, one for each particle, candidate and step of the horizon, and one more for each where a gradient is taken:
    /// the currency of sample efficiency.
    pub model_steps: u64,
    /// Wall time.
    pub elapsed: Duration,
}

/// A planned sequence of actions.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Actions in the environment's units, `[H, A]`.
    pub actions: Tensor<2>,
    /// What the model expects of the best candidate seen.
    pub predicted_return: f32,
    /// What it cost.
    pub stats: PlanStats,
}

/// Chooses actions by looking ahead.
///
/// Contract, tested by [`check::check_planner`](crate::check::check_planner), the last point aside, since not every planner
/// keeps a warm start:
/// - plans lie within the bounds of `problem.actions` and are finite, whatever the model returns (a NaN never wins);
/// - the same situation, problem and generator state give the same bits;
/// - `reset` forgets everything of earlier episodes: elites, means, filters;
/// - `advance(n)` shifts the warm start by the n steps that were executed.
pub trait Planner: Send {
    /// Plans from `situation`.
    ///
    /// # Errors
    /// [`PlanError`] for a problem that cannot be planned, or an error of the model.
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError>;

    /// Tells that the first `executed` actions of the last plan were executed.
    fn advance(&mut self, executed: usize);

    /// A new episode begins: forgets the warm start.
    fn reset(&mut self);
}
