//! What several test files use.
#![allow(dead_code, reason = "each test file uses a part of it")]

use mbrl_plan::{
    Device, Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, ModelError, Plan, Prediction, Propagation, Tensor,
};

/// Two members that disagree: an action of 1 moves the first by 1, the second by ½.
#[derive(Debug)]
pub(crate) struct TwoMembers(DynamicsSpec);

impl TwoMembers {
    /// A particle per member.
    pub(crate) const BOTH: Propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 2 };

    pub(crate) fn new() -> Self {
        Self(DynamicsSpec::new("two members", 1, 1, &Device::flex()).with_members(2).with_differentiable(true))
    }
}

impl Dynamics for TwoMembers {
    fn spec(&self) -> &DynamicsSpec {
        &self.0
    }
    fn predict(&self, _: Tensor<2>, _: Tensor<2>) -> Result<Prediction, ModelError> {
        unreachable!("planning samples")
    }
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let rows = states.dims()[0];
        // Rows are particle-major, and particles share the members out evenly.
        let particle = rows / draw.propagation.particles;
        let first = |row: usize| 2 * (row / particle) < draw.propagation.particles;
        let gains: Vec<f32> = (0..rows).map(|row| if first(row) { 1.0 } else { 0.5 }).collect();
        let gains = Tensor::<1>::from_floats(&gains[..], &self.0.device).unsqueeze_dim(1);
        Ok(Imagined::new(states + actions * gains))
    }
}

/// All of a plan that does not depend on the clock.
pub(crate) fn bits(plan: &Plan) -> Vec<u32> {
    let numbers = plan.actions.iter().chain([&plan.best_return]).map(|x| x.to_bits());
    let counts = [plan.shape[0], plan.shape[1], plan.stats.iterations].map(|n| n as u32);
    numbers.chain(counts).chain([plan.stats.model_steps as u32]).collect()
}
