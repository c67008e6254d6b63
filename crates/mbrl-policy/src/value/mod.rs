//! Values of states that plans end in, learned from trajectories.

mod returns;

use std::sync::Arc;

use burn::{
    module::Module,
    tensor::{Tensor, TensorData},
};
use mbrl_env::{EnvSpec, Rng, Value};
use mbrl_model::{
    Activation,
    mlp::{Adam, AdamConfig, HostMlp, MlpConfig, Pass, Rows, Tape},
};

pub use returns::{Trajectory, lambda_returns};

use crate::{
    AgentError, CheckpointReader, CheckpointWriter, Inputs, Reduction,
    off_policy::{reduce, reduce_tensor},
    policy::{check_learning_rate, init_network, load_network},
};

const NETWORK: &str = "network.bin";
const SCALE: &str = "scale.bin";

/// A value network, and how it is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueNetConfig {
    /// Discount γ per step, in (0, 1] (default: 0.99).
    pub discount: f32,
    /// λ of the targets, in [0, 1]; 1 for Monte Carlo (default: 0.95, as in generalised advantage estimation).
    pub lambda: f32,
    /// Networks side by side, from weights of their own (default: 2).
    pub members: usize,
    /// How they become one value (default: their mean).
    pub reduction: Reduction,
    /// Widths of the hidden layers (default: 128, 128).
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers (default: SiLU).
    pub activation: Activation,
    /// Adam's step size (default 1e-3). Adam begins anew with each call of [`ValueLearner::learn`].
    pub learning_rate: f32,
    /// States per batch of each network (default: 128).
    pub batch_size: usize,
    /// Steps of Adam in a call of [`ValueLearner::learn`] (default: 400).
    pub optimizer_steps: usize,
    /// How often targets are recomputed during a call, with the values of that moment (default: 4).
    pub rounds: usize,
}

impl Default for ValueNetConfig {
    fn default() -> Self {
        Self {
            discount: 0.99,
            lambda: 0.95,
            members: 2,
            reduction: Reduction::Mean,
            hidden: vec![128, 128],
            activation: Activation::Silu,
            learning_rate: 1e-3,
            batch_size: 128,
            optimizer_steps: 400,
            rounds: 4,
        }
    }
}

impl ValueNetConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`AgentError::Config`] or [`AgentError::Model`], naming the field.
    pub fn validate(&self) -> Result<(), AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if !(self.discount > 0.0 && self.discount <= 1.0) {
            return refuse("discount", self.discount.to_string(), "a number in (0, 1]");
        }
        if !(0.0..=1.0).contains(&self.lambda) {
            return refuse("lambda", self.lambda.to_string(), "a number in [0, 1]; 1 for Monte Carlo");
        }
        if !(1..=64).contains(&self.members) {
            return refuse("members", self.members.to_string(), "1 to 64 networks");
        }
        if self.reduction == Reduction::Pair {
            let rule = "\"min\", \"mean\" or \"first\": random pairs are only for critic targets";
            return refuse("reduction", "\"pair\"".into(), rule);
        }
        if !(1..=1 << 20).contains(&self.batch_size) {
            return refuse("batch_size", self.batch_size.to_string(), "1 to 1048576 states");
        }
        if self.rounds == 0 || self.rounds > self.optimizer_steps {
            return refuse("rounds", self.rounds.to_string(), "at least 1, and at most as many as optimizer_steps");
        }
        check_learning_rate(self.learning_rate)?;
        Ok(MlpConfig::new(1, self.hidden.clone(), 1).validate()?)
    }

    /// A value with fresh weights for an environment. It is 0 until it has learned.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, spec: &EnvSpec, rng: &mut Rng) -> Result<ValueLearner, AgentError> {
        self.validate()?;
        let inputs = Inputs::new(spec, true, true);
        let network = MlpConfig {
            members: self.members,
            activation: self.activation,
            ..MlpConfig::new(inputs.width(), self.hidden.clone(), 1)
        };
        let net = Net {
            network: init_network(&network, rng)?,
            inputs,
            mean: 0.0,
            std: 0.0,
            ends: [0.0; 2],
            reduction: self.reduction,
        };
        Ok(ValueLearner { config: self.clone(), net })
    }
}

/// The result of a call of [`ValueLearner::learn`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ValueReport {
    /// States that it learned from.
    pub states: usize,
    /// Mean of the last targets.
    pub mean: f64,
    /// Share of the first targets' variance that the values left unexplained before: mean (V − G)² divided by the targets' variance.
    pub unexplained: f64,
    /// The same for the last targets, over the batches of the last round.
    pub loss: f64,
}

/// Learns the values of states from λ-returns of trajectories of any origin. Made by [`ValueNetConfig::init`].
///
/// Its networks see angles as sine and cosine, and everything standardised; they output values in units of the targets' standard deviation, and are
/// rescaled when that changes. No value is beyond what the rewards so far allow, `r / (1 − γ)` for the least and the largest `r`, 0 among
/// them.
///
/// ```
/// use mbrl_env::{Env, Rng, tasks};
/// use mbrl_policy::{Trajectory, ValueNetConfig};
///
/// let spec = tasks::make("pendulum")?.env.spec().clone();
/// let mut rng = Rng::new(0);
/// let mut value = ValueNetConfig { hidden: vec![16], ..ValueNetConfig::default() }.init(&spec, &mut rng)?;
/// let still = Trajectory { obs: [1.0, 0.0, 0.0].repeat(101), rewards: vec![-1.0; 100], terminated: false };
/// value.learn(&[still], &mut rng);
/// let worth = value.values(&[1.0, 0.0, 0.0])[0];
/// assert!((-100.0..-30.0).contains(&worth), "{worth}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ValueLearner {
    config: ValueNetConfig,
    net: Net,
}

/// A network and what its outputs mean.
#[derive(Debug, Clone)]
struct Net {
    network: HostMlp,
    inputs: Inputs,
    mean: f64,
    /// 0 before anything was learned.
    std: f64,
    /// Least and largest value that rewards allow; not known where they are equal.
    ends: [f32; 2],
    reduction: Reduction,
}

impl Net {
    fn values(&self, obs: &[f32]) -> Vec<f32> {
        if self.std == 0.0 {
            return vec![0.0; obs.len() / self.inputs.obs_width()];
        }
        let mut inputs = Vec::new();
        self.inputs.prepare(obs, &mut inputs);
        let outputs = self.network.forward(Rows::Shared(&inputs), Pass::Infer, None);
        let mut values = reduce(&outputs, self.network.config().members, self.reduction);
        values.iter_mut().for_each(|value| *value = self.meaning(*value));
        values
    }

    fn meaning(&self, output: f32) -> f32 {
        let value = self.mean as f32 + self.std as f32 * output;
        let [low, high] = self.ends;
        // A NaN is kept.
        if high > low { value.clamp(low, high) } else { value }
    }

    fn tensor(&self, obs: Tensor<2>) -> Tensor<1> {
        if self.std == 0.0 {
            return obs.sum_dim(1).squeeze_dim::<1>(1) * 0.0;
        }
        let outputs = forward_tensor(&self.network, self.inputs.tensor(obs)).squeeze_dim::<2>(2);
        let values = reduce_tensor(outputs, self.reduction) * self.std as f32 + self.mean as f32;
        let [low, high] = self.ends;
        if high > low { values.clamp(low, high) } else { values }
    }

    /// Another mean and unit for the same values.
    fn rescale(&mut self, mean: f64, std: f64) {
        if self.std > 0.0 {
            let mut parameters = self.network.parameters();
            let biases = self.network.config().members;
            let weights = biases * self.network.config().hidden.last().copied().unwrap_or(self.inputs.width());
            let (ratio, count) = (self.std / std, parameters.len());
            let last = &mut parameters[count - weights - biases..];
            last.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * ratio) as f32);
            let moved = ((self.mean - mean) / std) as f32;
            last[weights..].iter_mut().for_each(|bias| *bias += moved);
            self.network.set_parameters(&parameters);
        }
        (self.mean, self.std) = (mean, std);
    }
}

impl ValueLearner {
    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &ValueNetConfig {
        &self.config
    }

    /// Whether it has learned: until then it is 0.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        self.net.std > 0.0
    }

    /// Takes real observations `[N, O]` into the statistics of its inputs.
    pub fn observe(&mut self, obs: &[f32]) {
        self.net.inputs.observe(obs);
    }

    /// Values `[N]` of observations `[N, O]`.
    ///
    /// # Panics
    /// If the observations are not whole rows.
    #[must_use]
    pub fn values(&self, obs: &[f32]) -> Vec<f32> {
        self.net.values(obs)
    }

    /// A snapshot of the current value, for plans to end in. It has a gradient.
    #[must_use]
    pub fn snapshot(&self) -> StateValue {
        StateValue(Arc::new(self.net.clone()))
    }

    /// Discards what was learned, for example for another goal; statistics of inputs stay.
    pub fn forget(&mut self) {
        (self.net.mean, self.net.std, self.net.ends) = (0.0, 0.0, [0.0; 2]);
    }

    /// Fits it to λ-returns of trajectories; without a step it stays as it is.
    ///
    /// # Panics
    /// If a trajectory does not have one state more than rewards.
    pub fn learn(&mut self, trajectories: &[Trajectory], rng: &mut Rng) -> Option<ValueReport> {
        let count: usize = trajectories.iter().map(Trajectory::steps).sum();
        if count == 0 {
            return None;
        }
        let o = self.net.inputs.obs_width();
        self.bound(trajectories);
        let mut inputs = Vec::with_capacity(count * self.net.inputs.width());
        for trajectory in trajectories {
            assert_eq!(trajectory.obs.len(), (trajectory.steps() + 1) * o, "a state more than rewards");
            self.net.inputs.prepare(&trajectory.obs[..trajectory.steps() * o], &mut inputs);
        }
        let ValueNetConfig { optimizer_steps, rounds, batch_size, learning_rate, members, .. } = self.config;
        let mut adam = Adam::new(&self.net.network, AdamConfig { learning_rate, ..AdamConfig::default() });
        let mut tape = Tape::new();
        let mut report = ValueReport { states: count, mean: 0.0, unexplained: 0.0, loss: 0.0 };
        for round in 0..rounds {
            let (targets, now) = self.targets(trajectories);
            let mean = targets.iter().map(|g| f64::from(*g)).sum::<f64>() / count as f64;
            let square = |off: f32| f64::from(off).powi(2);
            let variance = targets.iter().map(|g| (f64::from(*g) - mean).powi(2)).sum::<f64>() / count as f64;
            report.mean = mean;
            if round == 0 {
                let missed = now.iter().zip(&targets).map(|(v, g)| square(v - g)).sum::<f64>() / count as f64;
                report.unexplained = if variance > 0.0 { missed / variance } else { 0.0 };
            }
            // Targets that are all alike have no unit of their own.
            let unit = if variance.sqrt() > 1e-6 * mean.abs() { variance.sqrt() } else { mean.abs().max(1.0) };
            self.net.rescale(mean, unit);
            let wanted: Vec<f32> = targets.iter().map(|g| ((f64::from(*g) - mean) / unit) as f32).collect();
            let steps = optimizer_steps * (round + 1) / rounds - optimizer_steps * round / rounds;
            let mut sum = 0.0;
            for _ in 0..steps {
                // Rows of its own for each member.
                let batch = batch_size.min(count);
                let picked: Vec<usize> = (0..members * batch).map(|_| rng.below(count)).collect();
                let rows = Rows::Picked { of: &inputs, rows: &picked };
                let outputs = self.net.network.forward(rows, Pass::Infer, Some(&mut tape));
                let off: Vec<f32> = outputs.iter().zip(&picked).map(|(v, row)| v - wanted[*row]).collect();
                sum += off.iter().map(|off| square(*off)).sum::<f64>() / off.len() as f64;
                let scale = 2.0 / batch as f32;
                let gradients: Vec<f32> = off.iter().map(|off| scale * off).collect();
                self.net.network.step(&mut tape, &gradients, false, &mut adam);
            }
            report.loss = sum / steps as f64;
        }
        Some(report)
    }

    /// λ-returns of all steps, and the values of their states as they are.
    fn targets(&self, trajectories: &[Trajectory]) -> (Vec<f32>, Vec<f32>) {
        let (mut targets, mut now) = (Vec::new(), Vec::new());
        for Trajectory { obs, rewards, terminated } in trajectories {
            let values = self.net.values(obs);
            let ValueNetConfig { discount, lambda, .. } = self.config;
            targets.extend(lambda_returns(rewards, &values[1..], *terminated, discount, lambda));
            now.extend_from_slice(&values[..rewards.len()]);
        }
        (targets, now)
    }

    /// Takes rewards into what values are possible.
    fn bound(&mut self, trajectories: &[Trajectory]) {
        let left = 1.0 - self.config.discount;
        if left <= 0.0 {
            return;
        }
        let [low, high] = &mut self.net.ends;
        for reward in trajectories.iter().flat_map(|trajectory| &trajectory.rewards) {
            *low = low.min(reward / left);
            *high = high.max(reward / left);
        }
    }

    /// Writes network, scale and statistics.
    ///
    /// # Errors
    /// Errors of input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        let Net { network, inputs, mean, std, ends, .. } = &self.net;
        into.put(NETWORK, &network.save())?;
        let numbers = [*mean, *std, f64::from(ends[0]), f64::from(ends[1])];
        into.put(SCALE, &numbers.map(f64::to_le_bytes).concat())?;
        inputs.save(into)
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of another shape.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let numbers: Vec<f64> = from.get(SCALE)?.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        let [mean, std, low, high] = numbers[..] else {
            return Err(from.refuse(SCALE, "expected a mean, a standard deviation and two bounds".to_owned()));
        };
        if !(numbers.iter().all(|x| x.is_finite()) && std >= 0.0) {
            return Err(from.refuse(SCALE, format!("{numbers:?}: expected finite numbers")));
        }
        load_network(&mut self.net.network, from, NETWORK)?;
        self.net.inputs.load(from)?;
        (self.net.mean, self.net.std, self.net.ends) = (mean, std, [low as f32, high as f32]);
        Ok(())
    }
}

/// A snapshot of a learned value: a [`Value`] for plans to end in. On the host, or, where observations carry gradients, as Burn tensors.
#[derive(Debug, Clone)]
pub struct StateValue(Arc<Net>);

impl StateValue {
    /// Values `[N]` of observations `[N, O]`.
    ///
    /// # Panics
    /// If the observations are not whole rows.
    #[must_use]
    pub fn of(&self, obs: &[f32]) -> Vec<f32> {
        self.0.values(obs)
    }
}

impl Value for StateValue {
    fn value(&self, obs: Tensor<2>) -> Tensor<1> {
        if obs.is_autodiff() {
            return self.0.tensor(obs);
        }
        let (device, rows) = (obs.device(), obs.dims()[0]);
        let obs: Vec<f32> = obs.into_data().iter().collect();
        Tensor::from_data(TensorData::new(self.of(&obs), [rows]), &device)
    }
}

/// Outputs `[E, N, out]` of networks for inputs `[N, in]` that they share, as Burn tensors: with gradients where the inputs have them.
pub(crate) fn forward_tensor(network: &HostMlp, inputs: Tensor<2>) -> Tensor<3> {
    let mlp = network.to_mlp(&inputs.device()).no_grad();
    let [rows, width] = inputs.dims();
    let shared = inputs.unsqueeze::<3>().expand([network.config().members, rows, width]);
    mlp.forward(shared, Pass::Infer)
}

#[cfg(test)]
mod tests {
    use mbrl_env::{Env, tasks};
    use mbrl_model::Device;

    use super::*;

    fn spec() -> EnvSpec {
        // Columns x, θ and their velocities; θ is an angle.
        tasks::make("cartpole-swingup").unwrap().env.spec().clone()
    }

    /// A value of two members that has learned something of random trajectories.
    fn learned(reduction: Reduction) -> ValueLearner {
        let mut rng = Rng::new(4);
        let config = ValueNetConfig { hidden: vec![16], reduction, optimizer_steps: 60, ..ValueNetConfig::default() };
        let mut value = config.init(&spec(), &mut rng).unwrap();
        let obs: Vec<f32> = (0..4 * 41).map(|_| rng.normal()).collect();
        value.observe(&obs);
        let rewards = obs.chunks(4).take(40).map(|row| 5.0 + row[0]).collect();
        value.learn(&[Trajectory { obs, rewards, terminated: true }], &mut rng).unwrap();
        value
    }

    #[test]
    fn a_pair_is_refused() {
        let config = ValueNetConfig { reduction: Reduction::Pair, ..ValueNetConfig::default() };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("reduction = \"pair\""), "{error}");
    }

    #[test]
    fn it_learns_the_value_of_a_ride_to_the_end() {
        // A point moves by 1 per step from 0 to 10, where it ends; each step costs 1. γ = 1: the value is x − 10.
        let mut rng = Rng::new(0);
        let actions = mbrl_env::ActionSpace::Box(mbrl_env::BoxSpace::symmetric(1, 1.0).unwrap());
        let spec = EnvSpec::new("line", mbrl_env::BoxSpace::unbounded(1), actions, 0.1);
        let config = ValueNetConfig { discount: 1.0, lambda: 0.5, hidden: vec![32], ..ValueNetConfig::default() };
        let mut value = config.init(&spec, &mut rng).unwrap();
        assert_eq!(value.values(&[3.0, 4.0]), [0.0, 0.0]);
        let ride = |from: usize| Trajectory {
            obs: (from..=10).map(|x| x as f32).collect(),
            rewards: vec![-1.0; 10 - from],
            terminated: true,
        };
        let rides = [ride(0), ride(4), ride(8)];
        rides.iter().for_each(|ride| value.observe(&ride.obs));
        let mut last = f64::INFINITY;
        for _ in 0..4 {
            last = value.learn(&rides, &mut rng).unwrap().unexplained;
        }
        assert!(last < 0.05, "{last}");
        for x in [0.0f32, 3.0, 6.0, 9.0] {
            let got = value.values(&[x])[0];
            assert!((got - (x - 10.0)).abs() < 0.5, "{x}: {got}");
        }
        value.forget();
        assert_eq!(value.values(&[3.0]), [0.0]);
    }

    #[test]
    fn any_number_of_states_and_networks_can_be_learned_from() {
        for (members, states) in [(1, 1), (3, 7), (2, 153)] {
            let mut rng = Rng::new(4);
            let config = ValueNetConfig { hidden: vec![8], members, optimizer_steps: 8, ..ValueNetConfig::default() };
            let mut value = config.init(&spec(), &mut rng).unwrap();
            let obs: Vec<f32> = (0..4 * (states + 1)).map(|_| rng.normal()).collect();
            let rewards = (0..states).map(|_| rng.normal()).collect();
            let report = value.learn(&[Trajectory { obs, rewards, terminated: false }], &mut rng).unwrap();
            assert!(report.states == states && report.loss.is_finite(), "{report:?}");
            assert!(value.values(&[0.1; 4])[0].is_finite());
        }
        let mut value = learned(Reduction::Mean);
        let before = value.values(&[0.1; 4]);
        assert!(value.learn(&[], &mut Rng::new(0)).is_none());
        assert_eq!(value.values(&[0.1; 4]), before);
    }

    #[test]
    fn a_change_of_unit_changes_no_value() {
        let mut value = learned(Reduction::Min);
        let obs: Vec<f32> = (0..20).map(|i| 0.1 * i as f32 - 1.0).collect();
        let before = value.values(&obs);
        value.net.rescale(-20.0, 7.0);
        for (before, after) in before.iter().zip(value.values(&obs)) {
            assert!((before - after).abs() < 1e-3 * before.abs().max(1.0), "{before} and {after}");
        }
    }

    #[test]
    fn values_stay_within_what_rewards_allow() {
        let mut value = learned(Reduction::Mean);
        let far: Vec<f32> = [50.0, 1.0, 50.0, 50.0].repeat(3);
        let [low, high] = value.net.ends;
        assert!(low <= 0.0 && high > 100.0);
        value.net.mean = 1e6;
        assert!(value.values(&far).iter().all(|v| *v == high), "{:?} within {high}", value.values(&far));
    }

    #[test]
    fn tensors_say_the_same_and_have_its_gradient() {
        for reduction in [Reduction::Mean, Reduction::Min, Reduction::First] {
            let value = learned(reduction).snapshot();
            let obs = vec![0.3, 2.0, -0.4, 0.7, -0.2, -1.0, 0.5, 0.1];
            let rows = |obs: &[f32], device: &Device| Tensor::<1>::from_floats(obs, device).reshape([2, 4]);
            let device = Device::flex();
            let plain: Vec<f32> = value.value(rows(&obs, &device)).into_data().iter().collect();
            assert_eq!(plain, value.of(&obs));
            let tracked = rows(&obs, &device.autodiff()).require_grad();
            let said = value.value(tracked.clone());
            let numbers: Vec<f32> = said.clone().into_data().iter().collect();
            for (a, b) in numbers.iter().zip(&plain) {
                assert!((a - b).abs() < 1e-3 * b.abs().max(1.0), "{a} and {b}");
            }
            let gradients: Vec<f32> = tracked.grad(&said.sum().backward()).unwrap().into_data().iter().collect();
            for i in 0..obs.len() {
                let moved = |by: f32| {
                    let mut obs = obs.clone();
                    obs[i] += by;
                    value.of(&obs).iter().map(|v| f64::from(*v)).sum::<f64>()
                };
                let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                let got = f64::from(gradients[i]);
                assert!((got - difference).abs() < 2e-2 * difference.abs().max(1.0), "{i}: {got} and {difference}");
            }
        }
    }
}
