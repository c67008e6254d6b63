//! Sequences that planners try in addition to their own.

use burn::tensor::Tensor;
use mbrl_env::{Rng, Situation};
use mbrl_model::{Dynamics, ModelError};

use crate::{PlanError, Problem, units::Units};

/// Makes action sequences for a planner to try among its candidates, whenever a plan is made: a policy's roll-outs, say.
///
/// ```
/// use mbrl_plan::{
///     ActionSpace, BoxSpace, CemConfig, Device, Planner, Problem, Propagation, Propose, Rng, Situation, Tensor, dynamics_fn,
///     reward_fn,
/// };
/// use mbrl_model::{Dynamics, ModelError};
///
/// /// As hard to the right as can be.
/// struct Right;
///
/// impl Propose for Right {
///     fn propose(&self, _: &Situation<'_>, model: &dyn Dynamics, horizon: usize, _: u64) -> Result<Tensor<3>, ModelError> {
///         Ok(Tensor::ones([1, horizon, model.spec().action], &model.spec().device))
///     }
/// }
///
/// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
/// let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
/// let problem = Problem::new(&model, &actions).with_reward(&reward).with_proposer(&Right);
/// let mut planner = CemConfig { horizon: 3, iterations: 1, ..CemConfig::default() }.init(&actions, Propagation::MEAN)?;
/// let plan = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0))?;
/// assert_eq!(plan.best_return, 6.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Propose: Send + Sync {
    /// Sequences `[M, H, A]` in environment units, on the model's device, for a `horizon` of H steps from a situation. Random numbers depend
    /// on `key` alone.
    ///
    /// # Errors
    /// Those of the model.
    fn propose(
        &self,
        situation: &Situation<'_>,
        model: &dyn Dynamics,
        horizon: usize,
        key: u64,
    ) -> Result<Tensor<3>, ModelError>;
}

/// All sequences that a problem proposes for a plan, `[M, H, W]` in the planner's units; checked.
pub(crate) fn proposed(
    problem: &Problem<'_>,
    situation: &Situation<'_>,
    units: &Units<'_>,
    horizon: usize,
    rng: &mut Rng,
) -> Result<Option<Tensor<3>>, PlanError> {
    let made = match problem.proposer {
        // Without one nothing is drawn.
        Some(proposer) => Some(proposer.propose(situation, problem.dynamics, horizon, rng.key())?),
        None => None,
    };
    let all: Vec<_> = problem.proposals.clone().into_iter().chain(made).collect();
    let checked: Vec<_> = all.iter().map(|all| units.of_proposals(all, horizon)).collect::<Result<_, _>>()?;
    Ok((!checked.is_empty()).then(|| Tensor::cat(checked, 0)))
}
