//! A latent model with memory, for tests of everything that plans, imagines and checks.

use mbrl_env::Situation;
use mbrl_model::{Device, Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, ModelError, Prediction, Tensor};

/// A slider of mass 1 that is pushed: position x and speed v, `v' = v + 0.1 a`, `x' = x + 0.1 v'`.
///
/// What makes it a latent model: only `o = 2 x` is observed; the model's own state `[z0, z1, n]` is `(x, v)` turned by an angle
/// and a column of noise, so that no column of the state is one of the observation; and the speed is found in the situation's
/// past, so that two situations of one observation are different states.
///
/// Its reward is `−(o' − 1)²`, it terminates where `o' > 5`, and the speed is pushed by noise of standard deviation 0.02.
#[derive(Debug)]
pub(crate) struct Latent {
    spec: DynamicsSpec,
}

/// Cosine and sine of the angle between (x, v) and the latent state.
const TURN: [f32; 2] = [0.8, 0.6];
const DT: f32 = 0.1;
const NOISE: f32 = 0.02;

impl Latent {
    pub(crate) fn new(device: &Device) -> Self {
        let spec = DynamicsSpec::new("latent slider", 3, 1, device).with_obs(1);
        Self { spec: spec.with_differentiable(true).with_stochastic(true) }
    }

    /// Position and speed, each `[N, 1]`.
    fn decode(states: &Tensor<2>) -> [Tensor<2>; 2] {
        let [z0, z1] = [0, 1].map(|c| states.clone().narrow(1, c, 1));
        [z0.clone() * TURN[0] - z1.clone() * TURN[1], z0 * TURN[1] + z1 * TURN[0]]
    }

    /// The next state where the speed is pushed by `noise`, `[N, 1]`.
    fn next(states: &Tensor<2>, actions: Tensor<2>, noise: Tensor<2>) -> Tensor<2> {
        let [x, v] = Self::decode(states);
        let v = v + actions * DT + noise.clone();
        let x = x + v.clone() * DT;
        let z0 = x.clone() * TURN[0] + v.clone() * TURN[1];
        Tensor::cat(vec![z0, v * TURN[0] - x * TURN[1], noise], 1)
    }
}

impl Dynamics for Latent {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let rows = states.dims()[0];
        let mean = Self::next(&states, actions, Tensor::zeros([rows, 1], &states.device()));
        // Both latent columns move with the speed, the first one also with the position that it moves.
        let std = [DT * TURN[0] + TURN[1], TURN[0] - DT * TURN[1], 1.0].map(|gain| NOISE * gain);
        Ok(Prediction::new(mean).with_aleatoric_std(Tensor::from_floats([std], &self.spec.device).repeat_dim(0, rows)))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let rows = states.dims()[0];
        let noise = match draw.propagation.noise && draw.propagation.rule != MemberRule::Expectation {
            true => draw.normals([rows, 1], &self.spec.device) * NOISE,
            false => Tensor::zeros([rows, 1], &self.spec.device),
        };
        let next = Self::next(&states, actions, noise);
        let seen: Tensor<1> = self.observe(next.clone()).squeeze_dim(1);
        let terminated = seen.clone().greater_elem(5.0);
        Ok(Imagined::new(next).with_reward(-(seen - 1.0).square()).with_terminated(terminated))
    }

    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        let x = situation.obs[0] / 2.0;
        let before = situation.past.obs.last().map_or(x, |obs| obs[0] / 2.0);
        let v = (x - before) / DT;
        let z = [x * TURN[0] + v * TURN[1], v * TURN[0] - x * TURN[1], 0.0];
        Ok(Tensor::from_floats([z], &self.spec.device))
    }

    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        let [x, _] = Self::decode(&states);
        x * 2.0
    }

    fn chunk_size(&self, _: usize, _: usize) -> Option<usize> {
        Some(32)
    }
}
