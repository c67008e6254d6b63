//! Ensembles of neural networks, learned from transitions.

mod angles;
mod assignment;
mod bf16;
mod config;
#[cfg(feature = "train")]
mod copies;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod device;
mod engine;
mod inputs;
mod network;
mod predicted;
#[cfg(feature = "train")]
mod stepper;
mod store;
mod taped;
#[cfg(feature = "train")]
mod train;

use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};
use mbrl_env::{Augment, Features, Knowledge, Known, Rng, Situation};

use angles::Wrap;
use assignment::Assignment;
use bf16::Rounded;
pub use config::{Angles, Emphasis, EnsembleConfig, Head, Precision, Variance};
use engine::{Engine, Imagination, Layer, Work};
use inputs::Inputs;
use network::Heads;
pub use network::Network;
use predicted::Predicted;
use taped::HostTaped;
#[cfg(feature = "train")]
pub use train::{EnsembleExamples, EnsembleStatistics};

use tracing::trace_span;

use crate::{
    Chunk, Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Normalizer, Prediction, Start, Taped, Trajectories,
    dynamics::{check_particles, check_size, host_chunk, host_start, is_cpu, is_tracked, rollout_by_steps},
    mlp::kernel::Packed,
    sample_taped_by_autodiff,
};

/// An ensemble of multilayer perceptrons that predicts how observations change.
///
/// Each member maps the standardised `(embed(s), a)` to the change of the observation, as a Gaussian or as its mean.
/// The disagreement of the members shows what the data has not taught (epistemic spread); a Gaussian head shows the noise of
/// the world (aleatoric spread). Made by [`EnsembleConfig::init`], fitted by [`fit`](crate::fit()).
///
/// Roll-outs without gradients are fused: on a CPU by an engine, on a GPU, with the feature `wgpu` or `cuda`, by one kernel for the
/// whole horizon. With a gradient on states or actions they run as Burn tensors. All draw the same noise and agree to 1e-5 per step (1e-4 on a
/// GPU), unless the engine is told to [round](Self::set_precision).
///
/// ## State
/// The observation; with [`past`](EnsembleConfig::past) steps the observation, then that many pairs of an earlier
/// observation and the action taken at it, the newest first: `S = O + past·(O + A)`. [`encode`](Dynamics::encode) takes them
/// from the situation's history; where an episode has had fewer steps, the missing ones repeat its first observation with
/// actions of 0, as in [`Dataset::of_replay`](crate::Dataset::of_replay). A step moves the present into the past. In a
/// [`Prediction`] of the next state the columns of the past are known: their spread is 0.
///
/// ## Rewards and terminations
/// A model with a [`reward`](EnsembleConfig::reward) imagines rewards; one with [`termination`](EnsembleConfig::termination)
/// imagines terminations. The reward is the mean that the row's member predicts and is never sampled, because planning wants its
/// expectation; a row terminates where its probability is above ½. Where a row follows all members, both come from the mean over them.
///
/// ## What is known of a task
/// An ensemble that is made [for a task](EnsembleConfig::init_for_task) uses the task's [`Knowledge`]. Columns that are
/// [`Known`] are not targets and take no part in losses, holdout errors and noise; every step of a roll-out fills them in, and their
/// spread in a [`Prediction`] is 0. A fit shows each row as one of the copies that an [`Augment`] makes of its transition, drawn afresh for
/// every batch. Statistics of inputs and targets are computed over all copies, holdout errors over the transitions as they are.
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
    /// What the networks see.
    seen: Inputs,
    /// What they predict.
    predicted: Predicted,
    /// What is known about the task and used.
    knowledge: Knowledge,
    /// Of the network's inputs, and of its targets (the identity where these are not standardised).
    inputs: Normalizer,
    targets: Normalizer,
    /// Predicted angles that jump by a turn, and where their values lie.
    wraps: Vec<Wrap>,
    /// What was subtracted from the observations of the data, `[O]`; empty before the first fit.
    offset: Vec<f64>,
    /// Members that roll-outs draw from.
    elites: Vec<usize>,
    /// The same on the device.
    device_weights: DeviceWeights,
    /// The host's snapshot of the elites; `None` on a GPU, or where switched off.
    engine: Option<Arc<Engine>>,
    use_engine: bool,
    /// What the fused kernel of a GPU needs, where the kernel is usable; made when a roll-out asks for it.
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    fused: OnceLock<Option<Arc<device::Fused>>>,
    precision: Precision,
    /// What steps with a backward pass need on the host; made on demand.
    taped: OnceLock<Arc<HostTaped>>,
}

/// What roll-outs as tensors need, on the device.
#[derive(Debug, Clone)]
struct DeviceWeights {
    /// The network restricted to the elites.
    network: Network,
    /// Rows `[1, width]`.
    input_mean: Tensor<2>,
    input_std: Tensor<2>,
    target_mean: Tensor<2>,
    target_std: Tensor<2>,
    /// 1 for columns that are predicted as a change, 0 for the other predicted ones, `[1, D]`.
    delta: Tensor<2>,
    /// The predicted columns, where these are not all, and [where each column stands](Predicted::places) behind them.
    predicted: Option<[Tensor<1, Int>; 2]>,
    /// Columns of the state that the network sees as they are, where these are not all, and as sine and cosine.
    plain: Option<Tensor<1, Int>>,
    all_plain: bool,
    angles: Option<Tensor<1, Int>>,
    /// Factors that convert these angles to radians, `[1, angles]`, where they are in another unit.
    radians: Option<Tensor<2>>,
    /// For predicted columns that jump, `[1, D]` each: 1, lows and turns; 0, 0 and 1 for the others.
    wraps: Option<[Tensor<2>; 3]>,
}

/// What each member predicts for one step, for N rows, in environment units.
struct Step {
    /// Means of the change of the observation's predicted columns, or of their next values where these are predicted directly,
    /// `[E, N, D]`. The present observation is not added: beside it, a small spread of the members would be lost.
    change: Tensor<3>,
    /// Standard deviations of its noise, `[E, N, D]`.
    std: Option<Tensor<3>>,
    /// Means of the reward, `[E, N, 1]`.
    reward: Option<Tensor<3>>,
    /// Probabilities of a termination, `[E, N, 1]`.
    end: Option<Tensor<3>>,
}

impl Step {
    /// The mean over members, `[1, N, ·]`, without spread.
    fn expectation(self) -> Self {
        let mean = |part: Tensor<3>| part.mean_dim(0);
        Self { change: mean(self.change), std: None, reward: self.reward.map(mean), end: self.end.map(mean) }
    }

    /// The mean over members, `[1, N, ·]`, with the spread that the law of total variance gives their mixture: that of the
    /// members, and with `noise` their own.
    fn mixture(mut self, noise: bool) -> Self {
        let between = self.between();
        let within = self.std.take().filter(|_| noise).map(|std| std.square().mean_dim(0));
        let variance = match (between, within) {
            (Some(between), Some(within)) => Some(between + within),
            (between, within) => between.or(within),
        };
        Self { std: variance.map(root), ..self.expectation() }
    }

    /// Variance of the members' means, `[1, N, D]`, where there are several.
    fn between(&self) -> Option<Tensor<3>> {
        let means = || self.change.clone();
        (means().dims()[0] > 1).then(|| (means() - means().mean_dim(0)).square().mean_dim(0))
    }

    /// Each part, changed in the same way.
    fn map(self, change: impl Fn(Tensor<3>) -> Tensor<3>) -> Self {
        Self {
            change: change(self.change),
            std: self.std.map(&change),
            reward: self.reward.map(&change),
            end: self.end.map(&change),
        }
    }
}

impl DeviceWeights {
    fn new(
        network: &Network,
        [inputs, targets]: [&Normalizer; 2],
        delta: &[f32],
        (Inputs { plain, angles, all_plain, .. }, predicted): (&Inputs, &Predicted),
        wraps: &[Wrap],
        elites: &[usize],
        device: &Device,
    ) -> Self {
        let row = |values: &[f32]| Tensor::from_data(TensorData::new(values.to_vec(), [1, values.len()]), device);
        let radians: Vec<f32> = angles.iter().map(|(_, scale)| *scale).collect();
        let [plain, angles] = [plain.clone(), angles.iter().map(|(c, _)| *c).collect()].map(|columns| {
            let columns: Vec<i32> = columns.into_iter().map(|c| c as i32).collect();
            (!columns.is_empty()).then(|| indices(columns, device))
        });
        let wraps = (!wraps.is_empty()).then(|| {
            let of = |other: f32, value: fn(&Wrap) -> f32| {
                let at = |column: &usize| wraps.iter().find(|wrap| wrap.column == *column).map_or(other, value);
                row(&predicted.columns.iter().map(at).collect::<Vec<f32>>())
            };
            [of(0.0, |_| 1.0), of(0.0, |wrap| wrap.low), of(1.0, |wrap| wrap.turn)]
        });
        Self {
            network: network.select(elites),
            input_mean: row(inputs.mean()),
            input_std: row(inputs.std()),
            target_mean: row(targets.mean()),
            target_std: row(targets.std()),
            delta: row(&predicted.columns.iter().map(|c| delta[*c]).collect::<Vec<f32>>()),
            predicted: predicted.known.is_some().then(|| {
                [&predicted.columns, &predicted.places()]
                    .map(|columns| indices(columns.iter().map(|c| *c as i32).collect(), device))
            }),
            plain,
            all_plain: *all_plain,
            angles,
            radians: radians.iter().any(|scale| *scale != 1.0).then(|| row(&radians)),
            wraps,
        }
    }
}

impl Ensemble {
    pub(crate) fn new(
        mut config: EnsembleConfig,
        obs: usize,
        action: usize,
        knowledge: Knowledge,
        device: &Device,
        rng: &mut Rng,
    ) -> Self {
        let device = device.clone().without_autodiff();
        // What the model is stored with: without a task there are none.
        config.angles = Angles::Columns(config.angles.columns().to_vec());
        let seen = Inputs::new(&config, obs, action, knowledge.features.clone());
        let predicted = Predicted::new(obs, knowledge.known.clone());
        let network = Network::new(&config, seen.width(), predicted.count(), &device, rng);
        let elites: Vec<usize> = (0..config.members).take(elite_count(&config)).collect();
        let spec = DynamicsSpec::new("ensemble", config.state(obs, action), action, &device)
            .with_obs(obs)
            .with_members(elites.len())
            .with_differentiable(true)
            .with_stochastic(config.head == Head::Gaussian)
            .with_angles(config.angles.columns())
            .with_known(predicted.known_columns());
        let inputs = Normalizer::identity(seen.width());
        let targets = Normalizer::identity(config.targets(predicted.count()));
        let mut wraps = Wrap::of(config.angles.columns());
        wraps.retain(|wrap| predicted.contains(wrap.column));
        let (statistics, delta) = ([&inputs, &targets], delta(&config, obs));
        let device_weights =
            DeviceWeights::new(&network, statistics, &delta, (&seen, &predicted), &wraps, &elites, &device);
        let mut ensemble = Self {
            spec,
            network,
            seen,
            predicted,
            knowledge,
            inputs,
            targets,
            wraps,
            offset: Vec::new(),
            elites,
            device_weights,
            engine: None,
            use_engine: true,
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            fused: OnceLock::new(),
            precision: Precision::default(),
            taped: OnceLock::new(),
            config,
        };
        ensemble.snapshot();
        ensemble
    }

    /// Draws new weights and forgets all statistics.
    pub fn reinitialize(&mut self, rng: &mut Rng) {
        let (use_engine, precision) = (self.use_engine, self.precision);
        let (knowledge, device) = (self.knowledge.clone(), self.spec.device.clone());
        *self = Self::new(self.config.clone(), self.spec.obs, self.spec.action, knowledge, &device, rng);
        (self.use_engine, self.precision) = (use_engine, precision);
        self.snapshot();
    }

    /// The configuration that it was made from.
    #[must_use]
    pub fn config(&self) -> &EnsembleConfig {
        &self.config
    }

    /// Members that roll-outs draw from: best first where they are a selection, in order where they are all.
    #[must_use]
    pub fn elites(&self) -> &[usize] {
        &self.elites
    }

    /// What was subtracted from each column of the observations that it was fitted to, `[O]`: an observation of the world minus
    /// this is an observation of the model ([`Dataset::of_f64`](crate::Dataset::of_f64)). Zeros where nothing was subtracted.
    #[must_use]
    pub fn offset(&self) -> Vec<f64> {
        if self.offset.is_empty() { vec![0.0; self.spec.obs] } else { self.offset.clone() }
    }

    /// The weights of all members.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Sets whether roll-outs without gradients are fused and, on a CPU, fits run on the engine's kernels (default), or everything
    /// runs as Burn tensors.
    pub fn set_engine(&mut self, on: bool) {
        self.use_engine = on;
        self.snapshot();
    }

    /// Sets the precision in which roll-outs on the CPU engine multiply (default `f32`). It is kept through fits,
    /// [`reinitialize`](Self::reinitialize) and [`load`](Self::load); [`save`](Self::save) does not write it.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
        self.snapshot();
    }

    /// The precision in which roll-outs on the CPU engine multiply.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Takes over new weights, statistics and elites, and makes the engine's snapshot of them.
    fn install(&mut self, network: Network, inputs: Normalizer, targets: Normalizer, elites: Vec<usize>) {
        (self.network, self.inputs, self.targets, self.elites) = (network, inputs, targets, elites);
        self.spec.members = self.elites.len();
        let delta = delta(&self.config, self.spec.obs);
        let statistics = [&self.inputs, &self.targets];
        let (columns, device) = ((&self.seen, &self.predicted), &self.spec.device);
        self.device_weights =
            DeviceWeights::new(&self.network, statistics, &delta, columns, &self.wraps, &self.elites, device);
        self.snapshot();
    }

    fn snapshot(&mut self) {
        self.taped = OnceLock::new();
        self.engine = (self.use_engine && is_cpu(&self.spec.device)).then(|| Arc::new(self.engine_snapshot()));
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        {
            self.fused = OnceLock::new();
        }
    }

    /// What the fused kernel of a GPU needs, where it serves.
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    fn fused(&self) -> Option<&device::Fused> {
        let make = || self.use_engine.then(|| device::Fused::new(self)).flatten().map(Arc::new);
        self.fused.get_or_init(make).as_deref()
    }

    fn engine_snapshot(&self) -> Engine {
        let layers: Vec<(Vec<f32>, Vec<f32>, [usize; 3])> = self
            .network
            .weights
            .iter()
            .zip(&self.network.biases)
            .map(|(w, b)| (to_vec(w.val()), to_vec(b.val()), w.val().dims()))
            .collect();
        // The first and the last layer are small, and rounding hurts most there.
        let rounded = |layer: usize| self.precision == Precision::Bf16 && layer > 0 && layer + 1 < layers.len();
        let member = |e: &usize| {
            layers
                .iter()
                .enumerate()
                .map(|(i, (w, b, [_, inputs, outputs]))| {
                    let weight = &w[e * inputs * outputs..(e + 1) * inputs * outputs];
                    let bias = &b[e * outputs..(e + 1) * outputs];
                    match rounded(i) {
                        true => Layer::Bf16(Rounded::new(weight, bias)),
                        false => Layer::F32(Packed::new(weight, bias)),
                    }
                })
                .collect()
        };
        Engine {
            members: self.elites.iter().map(member).collect(),
            activation: self.config.activation,
            head: self.config.head,
            reward: self.config.reward,
            termination: self.config.termination,
            state: self.spec.state,
            obs: self.spec.obs,
            action: self.spec.action,
            seen: self.seen.clone(),
            predicted: self.predicted.clone(),
            wraps: self.wraps.clone(),
            input_mean: self.inputs.mean().to_vec(),
            input_std: self.inputs.std().to_vec(),
            target_mean: self.targets.mean().to_vec(),
            target_std: self.targets.std().to_vec(),
            delta: delta(&self.config, self.spec.obs),
            max_log_var: to_vec(self.network.max_log_var.val()),
            min_log_var: to_vec(self.network.min_log_var.val()),
        }
    }

    /// The features of a task that the networks look at, where there are any.
    #[must_use]
    pub fn features(&self) -> Option<&dyn Features> {
        self.seen.features.as_deref()
    }

    /// The symmetries of a task that fits use, where there are any.
    #[must_use]
    pub fn symmetries(&self) -> Option<&dyn Augment> {
        self.knowledge.augment.as_deref()
    }

    /// What computes the columns of the observation that are not predicted, where there are any.
    #[must_use]
    pub fn known(&self) -> Option<&dyn Known> {
        self.predicted.known.as_deref()
    }

    /// Standardised network inputs, `[N, in]`.
    fn network_inputs(&self, states: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        let mut parts = Vec::with_capacity(5);
        let weights = &self.device_weights;
        match &weights.plain {
            _ if weights.all_plain => parts.push(states.clone()),
            Some(plain) => parts.push(states.clone().select(1, plain.clone())),
            None => {}
        }
        if let Some(angles) = &weights.angles {
            let angles = states.clone().select(1, angles.clone());
            let angles = match &weights.radians {
                Some(radians) => angles * radians.clone(),
                None => angles,
            };
            parts.extend([angles.clone().sin(), angles.cos()]);
        }
        parts.push(actions.clone());
        if let Some(features) = &self.seen.features {
            parts.push(features.tensor(states.narrow(1, 0, self.spec.obs), actions));
        }
        (Tensor::cat(parts, 1) - weights.input_mean.clone()) / weights.input_std.clone()
    }

    /// What each member predicts for inputs `[E, N, in]`.
    fn step(&self, inputs: Tensor<3>) -> Step {
        let Heads { mean, log_var, end } = self.device_weights.network.heads(inputs, &self.config);
        let scale: Tensor<3> = self.device_weights.target_std.clone().unsqueeze();
        let shift: Tensor<3> = self.device_weights.target_mean.clone().unsqueeze();
        let std = log_var.map(|lv| (lv * 0.5).exp() * scale.clone());
        let mean = mean * scale + shift;
        let end = end.map(activation::sigmoid);
        if !self.config.reward {
            return Step { change: mean, std, reward: None, end };
        }
        let d = self.predicted.count();
        let reward = Some(mean.clone().narrow(2, d, 1));
        Step { change: mean.narrow(2, 0, d), std: std.map(|std| std.narrow(2, 0, d)), reward, end }
    }

    /// Where a change leads from `states`, `[N, D]`.
    fn next_obs(&self, states: Tensor<2>, change: Tensor<2>) -> Tensor<2> {
        let now = self.observe(states);
        let now = match &self.device_weights.predicted {
            None => now,
            Some([columns, _]) => now.select(1, columns.clone()),
        };
        now * self.device_weights.delta.clone() + change
    }

    /// Rows `[N, D]` of the predicted columns, with `[N, C]` of the known ones, as rows `[N, O]` of the observation.
    fn put_together(&self, predicted: Tensor<2>, known: Tensor<2>) -> Tensor<2> {
        match &self.device_weights.predicted {
            None => predicted,
            Some([_, places]) => Tensor::cat(vec![predicted, known], 1).select(1, places.clone()),
        }
    }

    /// Zeros in place of the known columns, for so many rows.
    fn nothing_known(&self, rows: usize) -> Tensor<2> {
        Tensor::zeros([rows, self.predicted.known_columns().len()], &self.spec.device)
    }

    /// The next observations `[N, O]` of which the predicted columns are `next` `[N, D]`.
    fn completed(&self, states: &Tensor<2>, actions: &Tensor<2>, next: Tensor<2>) -> Tensor<2> {
        let Some(known) = &self.predicted.known else { return next };
        let predicted = self.put_together(next.clone(), self.nothing_known(next.dims()[0]));
        let values = known.tensor(self.observe(states.clone()), actions.clone(), predicted);
        self.put_together(next, values)
    }

    /// Angles that jump, in the range of the data. Whole turns are subtracted, so gradients pass.
    fn placed(&self, next_obs: Tensor<2>) -> Tensor<2> {
        let Some([wraps, low, turn]) = self.device_weights.wraps.clone() else { return next_obs };
        let turns = ((next_obs.clone() - low) * wraps / turn.clone()).floor();
        next_obs - turn * turns
    }

    /// The states after a step under `actions`: what was present becomes past.
    fn shifted(&self, states: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<2> {
        if self.config.past == 0 {
            return next_obs;
        }
        let (o, pair) = (self.spec.obs, self.spec.obs + self.spec.action);
        let mut parts = vec![next_obs, states.clone().narrow(1, 0, o), actions];
        if self.config.past > 1 {
            parts.push(states.narrow(1, o, (self.config.past - 1) * pair));
        }
        Tensor::cat(parts, 1)
    }

    fn check(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        check_size("columns of states", self.spec.state, states.dims()[1])?;
        check_size("columns of actions", self.spec.action, actions.dims()[1])?;
        check_size("rows of actions", states.dims()[0], actions.dims()[0])
    }

    /// Adds the state of a situation to `states`.
    fn encode_into(&self, situation: &Situation<'_>, states: &mut Vec<f32>) -> Result<(), ModelError> {
        let (o, a) = (self.spec.obs, self.spec.action);
        check_size("entries of the observation", o, situation.obs.len())?;
        mbrl_env::check_finite("observation", situation.obs)?;
        let steps = || situation.past.obs.iter().zip(&situation.past.actions);
        let first = steps().next().map_or(situation.obs, |(obs, _)| obs);
        let rest = vec![0f32; a];
        states.extend_from_slice(situation.obs);
        for back in 0..self.config.past {
            let step = steps().rev().nth(back).map_or((first, &rest[..]), |(obs, action)| (obs, action));
            for (what, expected, row) in [("past observation", o, step.0), ("past action", a, step.1)] {
                check_size(what, expected, row.len())?;
                mbrl_env::check_finite(what, row)?;
                states.extend_from_slice(row);
            }
        }
        Ok(())
    }

    /// Which member moves which of these candidates' `rows`.
    fn assign(&self, draw: &Draw, rows: usize) -> Result<Assignment, ModelError> {
        let particles = draw.propagation.particles;
        check_particles(particles, rows)?;
        let candidates = rows / particles;
        let Chunk { first, population } = draw.chunk_of(candidates);
        Ok(match Assignment::assign(draw, self.elites.len(), particles * population)? {
            // One particle: rows are candidates.
            Assignment::Rows(members) => Assignment::Rows(members[first..first + candidates].to_vec()),
            assignment => assignment,
        })
    }

    /// One step of N rows as Burn tensors.
    fn sample_tensors(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        let rows = states.dims()[0];
        let members = self.elites.len();
        let assignment = self.assign(&draw, rows)?;
        if rows == 0 {
            // To Burn a size of 0 in a new shape means "as before".
            let device = &self.spec.device;
            return Ok(Imagined {
                next: states,
                reward: self.config.reward.then(|| Tensor::empty([0], device)),
                terminated: self.config.termination.then(|| Tensor::empty([0], device)),
            });
        }
        let x = self.network_inputs(states.clone(), actions.clone());
        let step = match &assignment {
            Assignment::All => self.step(x.unsqueeze::<3>().repeat_dim(0, members)).expectation(),
            Assignment::Mixture => self.step(x.unsqueeze::<3>().repeat_dim(0, members)).mixture(draw.propagation.noise),
            Assignment::Particles(assigned) | Assignment::Rows(assigned) => {
                // Particles or rows.
                let (groups, inputs, device) = (assigned.len(), x.dims()[1], &self.spec.device);
                let x = x.reshape([groups, rows / groups, inputs]);
                let (x, back) = match Assignment::order(assigned, members) {
                    None => (x, None),
                    Some((order, place)) => (x.select(0, indices(order, device)), Some(indices(place, device))),
                };
                // With the padding that gives each member as many.
                let [padded, rows_each, _] = x.dims();
                let n = padded * rows_each;
                let step = self.step(x.reshape([members, n / members, inputs]));
                let step = if draw.propagation.noise { step } else { Step { std: None, ..step } };
                step.map(|part| {
                    let width = part.dims()[2];
                    let part = part.reshape([padded, rows_each, width]);
                    let part = match &back {
                        None => part,
                        Some(place) => part.select(0, place.clone()),
                    };
                    part.reshape([1, rows, width])
                })
            }
        };
        let mut next = self.next_obs(states.clone(), step.change.squeeze_dim(0));
        if let Some(std) = step.std {
            next = next + std.squeeze_dim(0) * draw.normals([rows, self.predicted.count()], &self.spec.device);
        }
        let next = self.completed(&states, &actions, self.placed(next));
        Ok(Imagined {
            next: self.shifted(states, actions, next),
            reward: step.reward.map(|reward| reward.reshape([rows])),
            terminated: step.end.map(|end| end.reshape::<1, _>([rows]).greater_elem(0.5)),
        })
    }

    /// The engine's roll-out of `start` (`[P·K, S]`, `[K, S]`, or `[1, S]` for all) under actions `[H, K, A]` or
    /// `[H, P·K, A]`.
    fn run_engine(
        &self,
        engine: &Engine,
        start: &[f32],
        actions: &[f32],
        [horizon, candidates]: [usize; 2],
        draw: Draw,
    ) -> Result<Imagination, ModelError> {
        let particles = draw.propagation.particles;
        let rows = particles * candidates;
        let assignments = (0..horizon).map(|t| self.assign(&draw.later(t), rows)).collect::<Result<Vec<_>, _>>()?;
        Ok(engine.rollout(&Work {
            start,
            actions,
            horizon,
            candidates,
            particles,
            noise: draw.propagation.noise,
            key: draw.key,
            first_step: draw.step,
            chunk: draw.chunk_of(candidates),
            assignments: &assignments,
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
        let x = self.network_inputs(states.clone(), actions.clone()).unsqueeze::<3>().repeat_dim(0, members);
        let mut step = self.step(x);
        let epistemic_std = step.between().map(|variance| root(variance).squeeze_dim(0));
        let aleatoric_std = step.std.take().map(|s| s.square().mean_dim(0).sqrt().squeeze_dim(0));
        let change = step.expectation().change.squeeze_dim(0);
        // What becomes past is known, and so are known columns.
        let sure = |spread: Tensor<2>| {
            let rows = spread.dims()[0];
            let spread = match self.predicted.known {
                None => spread,
                Some(_) => self.put_together(spread, self.nothing_known(rows)),
            };
            match self.spec.state - self.spec.obs {
                0 => spread,
                past => Tensor::cat(vec![spread, Tensor::zeros([rows, past], &self.spec.device)], 1),
            }
        };
        let next = self.placed(self.next_obs(states.clone(), change));
        let next = self.completed(&states, &actions, next);
        Ok(Prediction {
            mean: self.shifted(states, actions, next),
            aleatoric_std: aleatoric_std.map(sure),
            epistemic_std: epistemic_std.map(sure),
        })
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        self.check(&states, &actions)?;
        let Some(engine) = self.engine.as_ref().filter(|_| !states.is_autodiff() && !actions.is_autodiff()) else {
            return self.sample_tensors(states, actions, draw);
        };
        let (rows, o) = (states.dims()[0], self.spec.obs);
        let particles = draw.propagation.particles;
        check_particles(particles, rows)?;
        // Kept only where they become past: a tensor without another owner is read without a copy.
        let past = (self.config.past > 0).then(|| (states.clone(), actions.clone()));
        let step = self.run_engine(engine, &to_vec(states), &to_vec(actions), [1, rows / particles], draw)?;
        let device = &self.spec.device;
        let next = Tensor::from_data(TensorData::new(step.obs[rows * o..].to_vec(), [rows, o]), device);
        Ok(Imagined {
            next: match past {
                Some((states, actions)) => self.shifted(states, actions, next),
                None => next,
            },
            reward: step.reward.map(|reward| Tensor::from_data(TensorData::new(reward, [rows]), device)),
            terminated: step.terminated.map(|ends| Tensor::from_data(TensorData::new(ends, [rows]), device)),
        })
    }

    fn sample_taped(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Taped, ModelError> {
        self.check(&states, &actions)?;
        if states.is_autodiff() || actions.is_autodiff() || !self.tapes_on_the_host(draw) || states.dims()[0] == 0 {
            return sample_taped_by_autodiff(self, states, actions, draw);
        }
        self.sample_taped_on_the_host(states, actions, draw)
    }

    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        self.encode_batch(&[*situation])
    }

    fn encode_batch(&self, situations: &[Situation<'_>]) -> Result<Tensor<2>, ModelError> {
        let width = self.spec.state;
        let mut states = Vec::with_capacity(situations.len() * width);
        situations.iter().try_for_each(|situation| self.encode_into(situation, &mut states))?;
        Ok(Tensor::from_data(TensorData::new(states, [situations.len(), width]), &self.spec.device))
    }

    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        if self.config.past == 0 { states } else { states.narrow(1, 0, self.spec.obs) }
    }

    fn chunk_size(&self, horizon: usize, particles: usize) -> Option<usize> {
        self.engine.is_some().then(|| host_chunk(horizon, particles, self.spec.obs))
    }

    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        if is_tracked(&from, &actions) {
            return rollout_by_steps(self, from, actions, draw);
        }
        let Some(engine) = &self.engine else {
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            if let Some(fused) = self.fused()
                && let Some(trajectories) = fused.rollout(self, &from, &actions, draw)?
            {
                return Ok(trajectories);
            }
            return rollout_by_steps(self, from, actions, draw);
        };
        let _span = trace_span!("imagine", model = "ensemble").entered();
        let [horizon, candidates, _] = actions.dims();
        let start = host_start(self, from, &actions)?;
        let all = self.run_engine(engine, &start, &to_vec(actions), [horizon, candidates], draw)?;
        let rows = draw.propagation.particles * candidates;
        let device = &self.spec.device;
        let steps = [horizon, rows];
        let terminated = all.terminated.filter(|_| horizon > 0);
        Ok(Trajectories {
            obs: Tensor::from_data(TensorData::new(all.obs, [horizon + 1, rows, self.spec.obs]), device),
            reward: all.reward.filter(|_| horizon > 0).map(|r| Tensor::from_data(TensorData::new(r, steps), device)),
            terminated: terminated.map(|ends| Tensor::<2, Bool>::from_data(TensorData::new(ends, steps), device)),
            cut: None,
        })
    }
}

/// Standard deviations. The plain root has no gradient where members agree to the bit: it would give NaN.
fn root(variance: Tensor<3>) -> Tensor<3> {
    (variance + f32::MIN_POSITIVE).sqrt()
}

/// 1 for columns of the observation predicted as a change, 0 for the others, `[O]`.
fn delta(config: &EnsembleConfig, obs: usize) -> Vec<f32> {
    (0..obs).map(|c| if config.no_delta.contains(&c) { 0.0 } else { 1.0 }).collect()
}

fn indices(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

fn elite_count(config: &EnsembleConfig) -> usize {
    if config.elites == 0 { config.members } else { config.elites }
}

/// A tensor's values on the host, row by row.
pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("a float tensor reads as f32")
}

#[cfg(test)]
mod tests;
