//! A closure as a model: planning needs nothing more.

use std::fmt;

use burn::tensor::{Device, Tensor};

use crate::{
    Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Prediction,
    dynamics::{check_particles, check_size},
};

/// Makes a deterministic model from a closure `(states [N, S], actions [N, A]) -> next states [N, S]`.
///
/// ```
/// use mbrl_model::{Device, Dynamics, dynamics_fn};
/// // A double integrator: position and velocity, acceleration as action, steps of 0.1 s.
/// let model = dynamics_fn(2, 1, &Device::flex(), |s, a| {
///     let velocity = s.clone().narrow(1, 1, 1);
///     s + burn::Tensor::cat(vec![velocity * 0.1, a * 0.1], 1)
/// });
/// assert_eq!(model.spec().state, 2);
/// ```
pub fn dynamics_fn<F>(state: usize, action: usize, device: &Device, f: F) -> DynamicsFn<F>
where
    F: Fn(Tensor<2>, Tensor<2>) -> Tensor<2> + Send + Sync,
{
    let spec = DynamicsSpec::new("closure", state, action, device).with_differentiable(true);
    DynamicsFn { spec, f }
}

/// A closure as a [`Dynamics`], made by [`dynamics_fn`].
pub struct DynamicsFn<F> {
    spec: DynamicsSpec,
    f: F,
}

impl<F> fmt::Debug for DynamicsFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicsFn").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl<F> DynamicsFn<F>
where
    F: Fn(Tensor<2>, Tensor<2>) -> Tensor<2> + Send + Sync,
{
    fn next(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let [rows, width] = states.dims();
        check_size("columns of states", self.spec.state, width)?;
        check_size("columns of actions", self.spec.action, actions.dims()[1])?;
        check_size("rows of actions", rows, actions.dims()[0])?;
        let next = (self.f)(states, actions);
        check_size("rows of the closure's next states", rows, next.dims()[0])?;
        check_size("columns of the closure's next states", self.spec.state, next.dims()[1])?;
        Ok(next)
    }
}

impl<F> Dynamics for DynamicsFn<F>
where
    F: Fn(Tensor<2>, Tensor<2>) -> Tensor<2> + Send + Sync,
{
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        self.next(states, actions).map(Prediction::new)
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        check_particles(draw.propagation.particles, states.dims()[0])?;
        self.next(states, actions).map(Imagined::new)
    }
}
