//! Policies that draw actions from a distribution with a known Fisher information.

use mbrl_env::{ActionSpace, EnvSpec, Rng, philox4x32};
use mbrl_model::{
    Activation, fill_normal,
    mlp::{HostMlp, MlpConfig, Pass, Rows, Tape},
};
use serde::{Deserialize, Serialize};

use crate::{
    ActMode, ActionScale, AgentError, CheckpointReader, CheckpointWriter, Inputs, Policy, PolicyDraw,
    policy::{init_network, load_network},
};

/// ½ log 2π.
const HALF_LOG_TAU: f64 = 0.918_938_533_204_672_7;
/// What the last layer is scaled by at first, so that actions start around the middle (mjrl).
const LAST_LAYER: f32 = 0.01;

const NETWORK: &str = "network.bin";
const LOG_STD: &str = "log-std.bin";

/// The policy of an on-policy learner.
///
/// For continuous actions it is a Gaussian, in units in which the bounds are [−1, 1]: its means are a network's outputs, and its standard
/// deviations are learned but the same in all states. Draws beyond the bounds are clipped for the environment alone. For discrete actions
/// it is a softmax of the outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StochasticConfig {
    /// Widths of the hidden layers (default: 64, 64; mjrl).
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers (default: tanh; mjrl).
    pub activation: Activation,
    /// Log of the standard deviation at the start (default: 0; mjrl).
    pub initial_log_std: f32,
    /// Least log of the standard deviation (default: −3; mjrl).
    pub min_log_std: f32,
    /// Whether columns that the task calls angles enter as sine and cosine (default: yes).
    pub angles: bool,
    /// Whether inputs are standardised by mean and standard deviation of all observations of earlier updates (default: no).
    pub normalize: bool,
}

impl Default for StochasticConfig {
    fn default() -> Self {
        Self {
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            initial_log_std: 0.0,
            min_log_std: -3.0,
            angles: true,
            normalize: false,
        }
    }
}

impl StochasticConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`AgentError::Config`] or [`AgentError::Model`], naming the field.
    pub fn validate(&self) -> Result<(), AgentError> {
        let (low, first) = (self.min_log_std, self.initial_log_std);
        if !(-20.0..=20.0).contains(&low) {
            return refuse("min_log_std", low.to_string(), "a number from -20 to 20");
        }
        if !(low..=20.0).contains(&first) {
            return refuse("initial_log_std", first.to_string(), "a number from min_log_std to 20");
        }
        Ok(MlpConfig::new(1, self.hidden.clone(), 1).validate()?)
    }

    /// A policy with fresh weights for an environment.
    ///
    /// # Errors
    /// [`AgentError::Config`] for actions without bounds, or a value that breaks a rule.
    pub fn init(&self, spec: &EnvSpec, rng: &mut Rng) -> Result<StochasticPolicy, AgentError> {
        self.validate()?;
        let (head, outputs) = match spec.actions {
            ActionSpace::Discrete(n) => (Head::Choice(n), n),
            _ => {
                let scale = ActionScale::new(&spec.actions)?;
                let width = scale.width();
                let log_std = vec![self.initial_log_std; width];
                (Head::Gaussian { scale, log_std, floor: self.min_log_std }, width)
            }
        };
        let inputs = Inputs::new(spec, self.angles, self.normalize);
        let config =
            MlpConfig { activation: self.activation, ..MlpConfig::new(inputs.width(), self.hidden.clone(), outputs) };
        let mut network = init_network(&config, rng)?;
        let mut parameters = network.parameters();
        let last = (self.hidden.last().unwrap_or(&config.inputs) + 1) * outputs;
        let from = parameters.len() - last;
        parameters[from..].iter_mut().for_each(|weight| *weight *= LAST_LAYER);
        network.set_parameters(&parameters);
        Ok(StochasticPolicy { network, head, inputs })
    }
}

fn refuse<T>(field: &'static str, value: String, rule: &'static str) -> Result<T, AgentError> {
    Err(AgentError::Config { field, value, rule })
}

/// A policy that draws its actions: Gaussian where they are continuous, categorical where they are discrete. Made by
/// [`StochasticConfig::init`].
///
/// Learning works on *drawn* actions `[N, A]`: for a Gaussian in [−1, 1] before they are clipped at the bounds, for choices their index.
/// Parameters are those of the network in the order of [`HostMlp::parameters`], then the logs of the standard deviations.
#[derive(Debug, Clone)]
pub struct StochasticPolicy {
    network: HostMlp,
    head: Head,
    inputs: Inputs,
}

#[derive(Debug, Clone)]
enum Head {
    Gaussian { scale: ActionScale, log_std: Vec<f32>, floor: f32 },
    Choice(usize),
}

/// A forward pass over a batch, for gradients.
#[derive(Debug, Clone)]
pub struct PolicyBatch {
    tape: Tape,
    /// Means or logits, `[N, out]`.
    outputs: Vec<f32>,
    rows: usize,
}

impl StochasticPolicy {
    /// A policy of choices, read from a file.
    pub(crate) fn of_choices(network: HostMlp, inputs: Inputs) -> Self {
        Self { head: Head::Choice(network.config().outputs), network, inputs }
    }

    /// A Gaussian policy, read from a file.
    pub(crate) fn of_gaussian(network: HostMlp, inputs: Inputs, scale: ActionScale, log_std: Vec<f32>) -> Self {
        Self { network, head: Head::Gaussian { scale, log_std, floor: f32::NEG_INFINITY }, inputs }
    }

    /// Between [−1, 1] and the environment's units; `None` for a policy of choices.
    #[must_use]
    pub fn scale(&self) -> Option<&ActionScale> {
        match &self.head {
            Head::Gaussian { scale, .. } => Some(scale),
            Head::Choice(_) => None,
        }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &HostMlp {
        &self.network
    }

    /// The inputs that the network sees.
    #[must_use]
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Takes observations `[N, O]` into the statistics of the inputs, where there are any.
    pub fn observe(&mut self, obs: &[f32]) {
        self.inputs.observe(obs);
    }

    /// Logs of the standard deviations, `[A]`; none for a policy of choices.
    #[must_use]
    pub fn log_std(&self) -> &[f32] {
        match &self.head {
            Head::Gaussian { log_std, .. } => log_std,
            Head::Choice(_) => &[],
        }
    }

    /// All parameters, the network's and then the logs of the standard deviations.
    #[must_use]
    pub fn parameters(&self) -> Vec<f32> {
        [&self.network.parameters(), self.log_std()].concat()
    }

    /// Sets the parameters; logs of standard deviations below their floor are raised to it.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn set_parameters(&mut self, parameters: &[f32]) {
        let (weights, rest) = parameters.split_at(self.network.config().parameters());
        self.network.set_parameters(weights);
        if let Head::Gaussian { log_std, floor, .. } = &mut self.head {
            assert_eq!(rest.len(), log_std.len(), "logs of standard deviations");
            log_std.iter_mut().zip(rest).for_each(|(log_std, new)| *log_std = new.max(*floor));
        }
    }

    fn prepared(&self, obs: &[f32]) -> Vec<f32> {
        let mut inputs = Vec::with_capacity(obs.len());
        self.inputs.prepare(obs, &mut inputs);
        inputs
    }

    /// Draws actions `[N, A]` for observations `[N, O]`, in the form that learning uses; [`to_env`](Self::to_env) makes them those of the
    /// environment. [`ActMode::Evaluate`] gives the mean or the likeliest choice.
    ///
    /// # Panics
    /// If the observations are not whole rows.
    #[must_use]
    pub fn draw(&self, obs: &[f32], mode: ActMode, draw: PolicyDraw) -> Vec<f32> {
        let mut outputs = self.network.forward(Rows::Shared(&self.prepared(obs)), Pass::Infer, None);
        match &self.head {
            Head::Gaussian { log_std, .. } => {
                if mode == ActMode::Explore {
                    let mut noise = vec![0.0; outputs.len()];
                    fill_normal(draw.key, draw.step, draw.first_row, log_std.len(), &mut noise);
                    for (row, noise) in outputs.chunks_exact_mut(log_std.len()).zip(noise.chunks_exact(log_std.len())) {
                        for ((mean, noise), log_std) in row.iter_mut().zip(noise).zip(log_std) {
                            *mean += log_std.exp() * noise;
                        }
                    }
                }
                outputs
            }
            Head::Choice(n) => {
                let rows = outputs.chunks_exact(*n).enumerate();
                rows.map(|(row, logits)| match mode {
                    ActMode::Evaluate => likeliest(logits) as f32,
                    ActMode::Explore => {
                        let u = uniform(PolicyDraw { first_row: draw.first_row + row, ..draw });
                        chosen(&probabilities(logits), u) as f32
                    }
                })
                .collect()
            }
        }
    }

    /// Drawn actions `[N, A]` become those of the environment.
    pub fn to_env(&self, actions: &mut [f32]) {
        if let Head::Gaussian { scale, .. } = &self.head {
            scale.to_env(actions);
        }
    }

    /// Actions `[N, A]` of an environment as they might have been drawn.
    #[must_use]
    pub fn of_env(&self, actions: &[f32]) -> Vec<f32> {
        match &self.head {
            Head::Gaussian { scale, .. } => {
                let mut drawn = Vec::with_capacity(actions.len());
                scale.to_unit(actions, &mut drawn);
                drawn
            }
            Head::Choice(_) => actions.to_vec(),
        }
    }

    /// A forward pass for observations `[N, O]`.
    ///
    /// # Panics
    /// If the observations are not whole rows.
    #[must_use]
    pub fn batch(&self, obs: &[f32]) -> PolicyBatch {
        let inputs = self.prepared(obs);
        let mut tape = Tape::new();
        let outputs = self.network.forward(Rows::Shared(&inputs), Pass::Infer, Some(&mut tape));
        PolicyBatch { tape, outputs, rows: inputs.len() / self.inputs.width() }
    }

    /// Log-probabilities (of a Gaussian, densities) `[N]` of drawn actions `[N, A]`.
    #[must_use]
    pub fn log_probs(&self, batch: &PolicyBatch, drawn: &[f32]) -> Vec<f64> {
        match &self.head {
            Head::Gaussian { log_std, .. } => {
                let width = log_std.len();
                let rows = batch.outputs.chunks_exact(width).zip(drawn.chunks_exact(width));
                let of = |((mean, action), log_std): ((&f32, &f32), &f32)| {
                    let (log_std, off) = (f64::from(*log_std), f64::from(action - mean));
                    let off = off / log_std.exp();
                    -0.5 * off * off - log_std - HALF_LOG_TAU
                };
                rows.map(|(means, actions)| means.iter().zip(actions).zip(log_std).map(of).sum()).collect()
            }
            Head::Choice(n) => {
                let rows = batch.outputs.chunks_exact(*n).zip(drawn);
                rows.map(|(logits, choice)| log_probabilities(logits)[*choice as usize]).collect()
            }
        }
    }

    /// Gradient of the mean over the rows of `weights[i] · log π(action i)`, with respect to the parameters.
    ///
    /// # Panics
    /// If there is not one weight and one action for each row.
    #[must_use]
    pub fn score(&self, batch: &PolicyBatch, drawn: &[f32], weights: &[f64]) -> Vec<f64> {
        assert_eq!(weights.len(), batch.rows, "one weight for each row");
        let share = 1.0 / batch.rows as f64;
        let mut by_outputs = vec![0.0; batch.outputs.len()];
        let mut by_log_std = vec![0.0; self.log_std().len()];
        match &self.head {
            Head::Gaussian { log_std, .. } => {
                let width = log_std.len();
                for (row, weight) in weights.iter().enumerate() {
                    for i in 0..width {
                        let (at, std) = (row * width + i, f64::from(log_std[i]).exp());
                        let off = f64::from(drawn[at] - batch.outputs[at]) / std;
                        by_outputs[at] = (share * weight * off / std) as f32;
                        by_log_std[i] += share * weight * (off * off - 1.0);
                    }
                }
            }
            Head::Choice(n) => {
                let rows = batch.outputs.chunks_exact(*n).zip(by_outputs.chunks_exact_mut(*n));
                for (((logits, gradients), choice), weight) in rows.zip(drawn).zip(weights) {
                    for (i, (gradient, p)) in gradients.iter_mut().zip(probabilities(logits)).enumerate() {
                        let hit = if i == *choice as usize { 1.0 } else { 0.0 };
                        *gradient = (share * weight * (hit - p)) as f32;
                    }
                }
            }
        }
        self.pulled(batch, &by_outputs, by_log_std)
    }

    /// The product of the mean Fisher information of the rows with a direction: `1/N Σ Jᵀ M J v`, `M` being the information of the
    /// outputs, `diag(1/σ²)` or `diag(p) − p pᵀ`, and twice the entries of the logs of standard deviations.
    #[must_use]
    pub fn fisher_product(&self, batch: &PolicyBatch, direction: &[f64]) -> Vec<f64> {
        let share = 1.0 / batch.rows as f64;
        let (along, rest) = direction.split_at(self.network.config().parameters());
        let along: Vec<f32> = along.iter().map(|v| *v as f32).collect();
        let mut moved = self.network.jvp(&batch.tape, &along);
        match &self.head {
            Head::Gaussian { log_std, .. } => {
                let per_entry: Vec<f32> =
                    log_std.iter().map(|log_std| (share * f64::from(-2.0 * log_std).exp()) as f32).collect();
                for row in moved.chunks_exact_mut(log_std.len()) {
                    row.iter_mut().zip(&per_entry).for_each(|(v, scale)| *v *= scale);
                }
            }
            Head::Choice(n) => {
                for (row, logits) in moved.chunks_exact_mut(*n).zip(batch.outputs.chunks_exact(*n)) {
                    let p = probabilities(logits);
                    let mean: f64 = p.iter().zip(&*row).map(|(p, v)| p * f64::from(*v)).sum();
                    row.iter_mut().zip(p).for_each(|(v, p)| *v = (share * p * (f64::from(*v) - mean)) as f32);
                }
            }
        }
        self.pulled(batch, &moved, rest.iter().map(|v| 2.0 * v).collect())
    }

    /// Gradients with respect to the parameters, from those with respect to the outputs and the logs of standard deviations.
    fn pulled(&self, batch: &PolicyBatch, by_outputs: &[f32], by_log_std: Vec<f64>) -> Vec<f64> {
        let weights = self.network.grads(&batch.tape, by_outputs);
        weights.into_iter().map(f64::from).chain(by_log_std).collect()
    }

    /// Mean over the rows of the Kullback-Leibler divergence of `other`, with its pass over the same rows, from this one.
    #[must_use]
    pub fn divergence(&self, batch: &PolicyBatch, other: &Self, others: &PolicyBatch) -> f64 {
        let sum: f64 = match (&self.head, &other.head) {
            (Head::Gaussian { log_std, .. }, Head::Gaussian { log_std: new, .. }) => {
                let of = |(i, (old, moved)): (usize, (&f32, &f32))| {
                    let i = i % log_std.len();
                    let (from, to) = (f64::from(log_std[i]), f64::from(new[i]));
                    let off = f64::from(moved - old);
                    to - from + ((2.0 * from).exp() + off * off) / (2.0 * (2.0 * to).exp()) - 0.5
                };
                batch.outputs.iter().zip(&others.outputs).enumerate().map(of).sum()
            }
            (Head::Choice(n), _) => {
                let rows = batch.outputs.chunks_exact(*n).zip(others.outputs.chunks_exact(*n));
                rows.map(|(old, new)| {
                    let (old, new) = (log_probabilities(old), log_probabilities(new));
                    old.iter().zip(new).map(|(old, new)| old.exp() * (old - new)).sum::<f64>()
                })
                .sum()
            }
            _ => f64::NAN,
        };
        sum / batch.rows as f64
    }

    /// Mean entropy of the rows; of a Gaussian that of its density over actions in [−1, 1].
    #[must_use]
    pub fn entropy(&self, batch: &PolicyBatch) -> f64 {
        match &self.head {
            Head::Gaussian { log_std, .. } => log_std.iter().map(|l| f64::from(*l) + HALF_LOG_TAU + 0.5).sum(),
            Head::Choice(n) => {
                let rows = batch.outputs.chunks_exact(*n).map(log_probabilities);
                let sum: f64 = rows.map(|row| row.iter().map(|l| -l.exp() * l).sum::<f64>()).sum();
                sum / batch.rows as f64
            }
        }
    }

    /// Writes network, standard deviations and statistics.
    ///
    /// # Errors
    /// Errors of input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put(NETWORK, &self.network.save())?;
        into.put(LOG_STD, &self.log_std().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        self.inputs.save(into)
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of another shape.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let bytes = from.get(LOG_STD)?;
        let stored: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if bytes.len() != 4 * self.log_std().len() || stored.iter().any(|value| !value.is_finite()) {
            let reason = format!("{} bytes: expected {} finite numbers", bytes.len(), self.log_std().len());
            return Err(from.refuse(LOG_STD, reason));
        }
        load_network(&mut self.network, from, NETWORK)?;
        self.inputs.load(from)?;
        if let Head::Gaussian { log_std, .. } = &mut self.head {
            *log_std = stored;
        }
        Ok(())
    }
}

impl Policy for StochasticPolicy {
    fn obs_width(&self) -> usize {
        self.inputs.obs_width()
    }

    fn action_width(&self) -> usize {
        match &self.head {
            Head::Gaussian { scale, .. } => scale.width(),
            Head::Choice(_) => 1,
        }
    }

    fn act(&self, obs: &[f32], mode: ActMode, draw: PolicyDraw) -> Vec<f32> {
        let mut actions = self.draw(obs, mode, draw);
        self.to_env(&mut actions);
        actions
    }
}

/// Logs of the softmax.
fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    logits.iter().map(|logit| f64::from(logit - highest) - sum.ln()).collect()
}

fn probabilities(logits: &[f32]) -> Vec<f64> {
    log_probabilities(logits).into_iter().map(f64::exp).collect()
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// The choice at a place of the cumulative probabilities.
fn chosen(p: &[f64], u: f64) -> usize {
    let mut sum = 0.0;
    for (i, p) in p.iter().enumerate() {
        sum += p;
        if u < sum {
            return i;
        }
    }
    // Rounding leaves a hair above the sum.
    p.len() - 1
}

/// Uniform in (0, 1), a function of the draw and its first row.
fn uniform(draw: PolicyDraw) -> f64 {
    let row = draw.first_row as u64;
    let words = philox4x32([row as u32, (row >> 32) as u32, draw.step, 0], [draw.key as u32, (draw.key >> 32) as u32]);
    (f64::from(words[0]) + 0.5) / 4_294_967_296.0
}
