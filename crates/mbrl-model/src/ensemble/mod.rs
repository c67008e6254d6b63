//! Ensembles of neural networks, learned from transitions.

mod config;
mod engine;
mod kernel;
mod members;
mod network;
mod store;
#[cfg(feature = "train")]
mod train;

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use mbrl_env::Rng;

pub use config::{Activation, EnsembleConfig, Head};
use engine::{Engine, Layer, Work};
use members::Members;
pub use network::Network;
#[cfg(feature = "train")]
pub use train::EnsembleStatistics;

use crate::{
    Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Normalizer, Prediction, Start, Trajectories,
    dynamics::{check_size, rollout_by_steps},
};

/// An ensemble of multilayer perceptrons that predicts how observations change: its state is the observation.
///
/// Each member maps the standardised `(embed(s), a)` to the change of the observation, as a Gaussian or as its mean.
/// Members that disagree show what the data has not taught (epistemic spread); a Gaussian head shows the noise of the world
/// (aleatoric spread). Made by [`EnsembleConfig::init`], fitted by [`fit`](crate::fit()).
///
/// Roll-outs without gradients run on the fused CPU engine where the device is a CPU; with a gradient on states or actions,
/// or on a GPU, they run as Burn tensors. Both draw the same noise and agree to 1e-5 a step.
///
/// ## References
/// \[1\] Chua et al. (2018), *Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics Models*
/// (PETS), NeurIPS.
/// \[2\] Nagabandi et al. (2019), *Deep Dynamics Models for Learning Dexterous Manipulation* (PDDM), CoRL.
#[derive(Debug, Clone)]
pub struct Ensemble {
    spec: DynamicsSpec,
    config: EnsembleConfig,
    network: Network,
    /// Of the network's inputs, and of its targets (the identity where these are not standardised).
    inputs: Normalizer,
    targets: Normalizer,
    /// Members that roll-outs draw from.
    elites: Vec<usize>,
    /// The same on the device.
    drawn: Drawn,
    /// The host's snapshot of the elites; `None` on a GPU, or where switched off.
    engine: Option<Arc<Engine>>,
    use_engine: bool,
}

/// What roll-outs as tensors need, on the device.
#[derive(Debug, Clone)]
struct Drawn {
    /// The network restricted to the elites.
    network: Network,
    /// Rows `[1, width]`.
    input_mean: Tensor<2>,
    input_std: Tensor<2>,
    target_mean: Tensor<2>,
    target_std: Tensor<2>,
    /// 1 for columns predicted as a change, 0 for the others.
    delta: Tensor<2>,
}

impl Drawn {
    fn new(
        network: &Network,
        [inputs, targets]: [&Normalizer; 2],
        delta: &[f32],
        elites: &[usize],
        device: &Device,
    ) -> Self {
        let row = |values: &[f32]| Tensor::from_data(TensorData::new(values.to_vec(), [1, values.len()]), device);
        Self {
            network: network.select(elites),
            input_mean: row(inputs.mean()),
            input_std: row(inputs.std()),
            target_mean: row(targets.mean()),
            target_std: row(targets.std()),
            delta: row(delta),
        }
    }
}

impl Ensemble {
    pub(crate) fn new(config: EnsembleConfig, obs: usize, action: usize, device: &Device, rng: &mut Rng) -> Self {
        let device = device.clone().without_autodiff();
        let network = Network::new(&config, obs, action, &device, rng);
        let elites: Vec<usize> = (0..config.members).take(elite_count(&config)).collect();
        let spec = DynamicsSpec {
            name: "ensemble".into(),
            state: obs,
            obs,
            action,
            members: elites.len(),
            device: device.clone(),
            differentiable: true,
        };
        let inputs = Normalizer::identity(config.inputs(obs, action));
        let targets = Normalizer::identity(obs);
        let drawn = Drawn::new(&network, [&inputs, &targets], &delta(&config, obs), &elites, &device);
        let use_engine = is_cpu(&device);
        let mut ensemble = Self { spec, network, inputs, targets, elites, drawn, engine: None, use_engine, config };
        ensemble.snapshot();
        ensemble
    }

    /// Draws new weights and forgets all statistics.
    pub fn reinitialize(&mut self, rng: &mut Rng) {
        let use_engine = self.use_engine;
        *self = Self::new(self.config.clone(), self.spec.obs, self.spec.action, &self.spec.device.clone(), rng);
        self.set_engine(use_engine);
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &EnsembleConfig {
        &self.config
    }

    /// Members that roll-outs draw from: best first where they are some, in order where they are all.
    #[must_use]
    pub fn elites(&self) -> &[usize] {
        &self.elites
    }

    /// The weights of all members.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Whether roll-outs without gradients run on the fused CPU engine (default: where the device is a CPU).
    pub fn set_engine(&mut self, on: bool) {
        self.use_engine = on;
        self.snapshot();
    }

    /// Takes over new weights, statistics and elites, and makes the engine's snapshot of them.
    fn install(&mut self, network: Network, inputs: Normalizer, targets: Normalizer, elites: Vec<usize>) {
        (self.network, self.inputs, self.targets, self.elites) = (network, inputs, targets, elites);
        self.spec.members = self.elites.len();
        let delta = delta(&self.config, self.spec.obs);
        let statistics = [&self.inputs, &self.targets];
        self.drawn = Drawn::new(&self.network, statistics, &delta, &self.elites, &self.spec.device);
        self.snapshot();
    }

    fn snapshot(&mut self) {
        self.engine = self.use_engine.then(|| Arc::new(self.engine_snapshot()));
    }

    fn engine_snapshot(&self) -> Engine {
        let layers: Vec<(Vec<f32>, Vec<f32>, [usize; 3])> = self
            .network
            .weights
            .iter()
            .zip(&self.network.biases)
            .map(|(w, b)| (to_vec(w.val()), to_vec(b.val()), w.val().dims()))
            .collect();
        let member = |e: &usize| {
            layers
                .iter()
                .map(|(w, b, [_, inputs, outputs])| Layer {
                    inputs: *inputs,
                    outputs: *outputs,
                    weight: w[e * inputs * outputs..(e + 1) * inputs * outputs].to_vec(),
                    bias: b[e * outputs..(e + 1) * outputs].to_vec(),
                })
                .collect()
        };
        Engine {
            members: self.elites.iter().map(member).collect(),
            activation: self.config.activation,
            head: self.config.head,
            obs: self.spec.obs,
            action: self.spec.action,
            plain: self.plain_columns(),
            angles: self.config.angles.clone(),
            input_mean: self.inputs.mean().to_vec(),
            input_std: self.inputs.std().to_vec(),
            target_mean: self.targets.mean().to_vec(),
            target_std: self.targets.std().to_vec(),
            delta: delta(&self.config, self.spec.obs),
            max_log_var: to_vec(self.network.max_log_var.val()),
            min_log_var: to_vec(self.network.min_log_var.val()),
        }
    }

    fn plain_columns(&self) -> Vec<usize> {
        (0..self.spec.obs).filter(|c| !self.config.angles.contains(c)).collect()
    }

    /// Standardised network inputs, `[N, in]`.
    fn features(&self, states: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        let mut parts = Vec::with_capacity(4);
        if self.config.angles.is_empty() {
            parts.push(states);
        } else {
            let columns = |c: &[usize]| {
                let c: Vec<i32> = c.iter().map(|&c| c as i32).collect();
                let n = c.len();
                Tensor::<1, Int>::from_data(TensorData::new(c, [n]), &self.spec.device)
            };
            let plain = self.plain_columns();
            if !plain.is_empty() {
                parts.push(states.clone().select(1, columns(&plain)));
            }
            let angles = states.select(1, columns(&self.config.angles));
            parts.extend([angles.clone().sin(), angles.cos()]);
        }
        parts.push(actions);
        (Tensor::cat(parts, 1) - self.drawn.input_mean.clone()) / self.drawn.input_std.clone()
    }

    /// Means `[E, N, S]` of the next states and standard deviations `[E, N, S]` of their noise, in state units, for inputs
    /// `[E, N, in]` at states `[E, N, S]` or `[1, N, S]`.
    fn next_states(&self, inputs: Tensor<3>, states: Tensor<3>) -> (Tensor<3>, Option<Tensor<3>>) {
        let (mean, log_var) = self.drawn.network.heads(inputs, &self.config);
        let scale: Tensor<3> = self.drawn.target_std.clone().unsqueeze();
        let shift: Tensor<3> = self.drawn.target_mean.clone().unsqueeze();
        let delta: Tensor<3> = self.drawn.delta.clone().unsqueeze();
        let std = log_var.map(|lv| (lv * 0.5).exp() * scale.clone());
        (states * delta + (mean * scale + shift), std)
    }

    fn check(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        check_size("columns of states", self.spec.state, states.dims()[1])?;
        check_size("columns of actions", self.spec.action, actions.dims()[1])?;
        check_size("rows of actions", states.dims()[0], actions.dims()[0])
    }

    /// One step of N rows as Burn tensors.
    fn sample_tensors(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Tensor<2>, ModelError> {
        let [rows, width] = states.dims();
        let members = self.elites.len();
        let turns = Members::deal(&draw, members, rows)?;
        let x = self.features(states.clone(), actions);
        let (mean, std) = if turns == Members::All {
            let x = x.unsqueeze::<3>().repeat_dim(0, members);
            let (mean, _) = self.next_states(x, states.unsqueeze());
            (mean.mean_dim(0).squeeze_dim(0), None)
        } else {
            let order = turns.order(members, rows);
            let index = |v: Vec<i32>| {
                let n = v.len();
                Tensor::<1, Int>::from_data(TensorData::new(v, [n]), &self.spec.device)
            };
            let (x, s, back) = match order {
                None => (x, states, None),
                Some((order, place)) => {
                    let order = index(order);
                    (x.select(0, order.clone()), states.select(0, order), Some(index(place)))
                }
            };
            let [n, inputs] = x.dims();
            let share = n / members;
            let (mean, std) = self.next_states(x.reshape([members, share, inputs]), s.reshape([members, share, width]));
            let flat = |t: Tensor<3>| {
                let t = t.reshape([n, width]);
                match &back {
                    None => t,
                    Some(place) => t.select(0, place.clone()),
                }
            };
            (flat(mean), std.map(flat))
        };
        match std {
            Some(std) if draw.propagation.noise => {
                let mut noise = vec![0f32; rows * width];
                crate::fill_normal(draw.key, draw.step, 0, width, &mut noise);
                Ok(mean + std * Tensor::from_data(TensorData::new(noise, [rows, width]), &self.spec.device))
            }
            _ => Ok(mean),
        }
    }

    /// The engine's roll-out of `start` (`[K, S]`, or `[1, S]` for all) under actions `[H, K, A]`: `[H+1, P·K, S]`.
    fn run_engine(
        &self,
        engine: &Engine,
        start: &[f32],
        actions: &[f32],
        [horizon, candidates]: [usize; 2],
        particles: usize,
        draw: Draw,
    ) -> Result<Vec<f32>, ModelError> {
        let rows = particles * candidates;
        let turns = (0..horizon)
            .map(|t| Members::deal(&Draw { step: draw.step + t as u32, ..draw }, self.elites.len(), rows))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(engine.rollout(&Work {
            start,
            actions,
            horizon,
            candidates,
            particles,
            noise: draw.propagation.noise,
            key: draw.key,
            first_step: draw.step,
            turns: &turns,
        }))
    }
}

impl Dynamics for Ensemble {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        self.check(&states, &actions)?;
        let members = self.elites.len();
        let x = self.features(states.clone(), actions).unsqueeze::<3>().repeat_dim(0, members);
        let (means, stds) = self.next_states(x, states.unsqueeze());
        let mean = means.clone().mean_dim(0);
        let epistemic_std = (members > 1).then(|| (means - mean.clone()).square().mean_dim(0).sqrt().squeeze_dim(0));
        let aleatoric_std = stds.map(|s| s.square().mean_dim(0).sqrt().squeeze_dim(0));
        Ok(Prediction { mean: mean.squeeze_dim(0), aleatoric_std, epistemic_std })
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        self.check(&states, &actions)?;
        let next = match &self.engine {
            Some(engine) if !states.is_autodiff() && !actions.is_autodiff() => {
                let [rows, width] = states.dims();
                let particles = draw.propagation.particles;
                let all = engine.rollout(&Work {
                    start: &to_vec(states),
                    actions: &to_vec(actions),
                    horizon: 1,
                    candidates: rows / particles.max(1),
                    particles,
                    noise: draw.propagation.noise,
                    key: draw.key,
                    first_step: draw.step,
                    turns: &[Members::deal(&draw, self.elites.len(), rows)?],
                });
                Tensor::from_data(TensorData::new(all[rows * width..].to_vec(), [rows, width]), &self.spec.device)
            }
            _ => self.sample_tensors(states, actions, draw)?,
        };
        Ok(Imagined { next, reward: None, terminated: None })
    }

    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let Some(engine) = &self.engine else { return rollout_by_steps(self, from, actions, draw) };
        let tracked = actions.is_autodiff() || matches!(&from, Start::States(s) if s.is_autodiff());
        if tracked {
            return rollout_by_steps(self, from, actions, draw);
        }
        let [horizon, candidates, width] = actions.dims();
        check_size("columns of actions", self.spec.action, width)?;
        let start = match from {
            Start::States(states) => {
                check_size("rows of the start states", candidates, states.dims()[0])?;
                check_size("columns of the start states", self.spec.state, states.dims()[1])?;
                to_vec(states)
            }
            Start::Situation(situation) => to_vec(self.encode(&situation)?),
        };
        let particles = draw.propagation.particles;
        let all = self.run_engine(engine, &start, &to_vec(actions), [horizon, candidates], particles, draw)?;
        let shape = [horizon + 1, particles * candidates, self.spec.obs];
        let obs = Tensor::from_data(TensorData::new(all, shape), &self.spec.device);
        Ok(Trajectories { obs, reward: None, terminated: None })
    }
}

/// 1 for columns predicted as a change, 0 for the others.
fn delta(config: &EnsembleConfig, obs: usize) -> Vec<f32> {
    (0..obs).map(|c| if config.no_delta.contains(&c) { 0.0 } else { 1.0 }).collect()
}

fn elite_count(config: &EnsembleConfig) -> usize {
    if config.elites == 0 { config.members } else { config.elites }
}

/// Burn names a device's backend in its `Debug` form alone.
fn is_cpu(device: &Device) -> bool {
    let name = format!("{device:?}").to_lowercase();
    name.contains("flex") || name.contains("ndarray")
}

/// A tensor's values on the host, row by row.
pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("a float tensor reads as f32")
}

#[cfg(test)]
mod tests;
