//! Actors: a network, and a head that turns its outputs into actions.
//!
//! Both heads end in a hyperbolic tangent, so that actions `u` lie in [−1, 1], which the environment's bounds are scaled to.
//!
//! | head | action | outputs |
//! |---|---|---|
//! | Gaussian (SAC \[1\]) | `u = tanh(μ + σ ε)`, ε standard normal | `[μ, log σ]` |
//! | deterministic (TD3 \[2\]) | `u = tanh(μ)`, with noise where the agent explores | `[μ]` |
//!
//! The log-probability of a squashed action is that of a normal less `Σ log(1 − u²)`. With `z = μ + σ ε` the latter is
//! `Σ 2 (log 2 − z − softplus(−2 z))`, which is exact however large `z` is.
//!
//! ## References
//! \[1\] Haarnoja et al. (2018), *Soft Actor-Critic Algorithms and Applications*, arXiv 1812.05905.
//! \[2\] Fujimoto et al. (2018), *Addressing Function Approximation Error in Actor-Critic Methods*, ICML.

use std::f32::consts::LN_2;

use mbrl_env::{EnvSpec, Rng};
use mbrl_model::{
    Activation, fill_normal,
    mlp::{Adam, AdamConfig, HostMlp, MlpConfig, Pass, Rows, Tape},
};
use serde::{Deserialize, Serialize};

use super::{ActionScale, Inputs, Policy, PolicyDraw, init_network};
use crate::{ActMode, AgentError, CheckpointReader, CheckpointWriter};

/// ½ log 2π.
pub(crate) const HALF_LOG_TAU: f32 = 0.918_938_5;

const NETWORK: &str = "network.bin";
const ADAM: &str = "adam.bin";
const AVERAGE: &str = "average.bin";

/// An actor's network, and how it learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActorConfig {
    /// Widths of the hidden layers (default: 256, 256; SAC, TD3).
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers (default: ReLU; SAC, TD3).
    pub activation: Activation,
    /// Whether hidden layers are normalised (default: no).
    pub layer_norm: bool,
    /// Adam's step size (default 3e-4; SAC).
    pub learning_rate: f32,
    /// Evaluations and exports use a running average of the weights, which moves towards them by this share at each update: 0.001 averages
    /// about the last thousand. 0 (default; SAC, TD3): they use the weights themselves. What is learned does not depend on it.
    pub averaging: f32,
    /// Whether columns that the task calls angles enter as sine and cosine, for the critics too (default: yes). Tasks that show
    /// sines and cosines themselves, as Gymnasium's pendulum does, have no such columns.
    pub angles: bool,
    /// Whether inputs are standardised by mean and standard deviation of all real observations so far, for the critics too (default:
    /// no; SAC).
    pub normalize: bool,
}

impl Default for ActorConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            activation: Activation::Relu,
            layer_norm: false,
            learning_rate: 3e-4,
            averaging: 0.0,
            angles: true,
            normalize: false,
        }
    }
}

/// How an actor's outputs become actions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ActorHead {
    /// A normal squashed by a hyperbolic tangent.
    Gaussian {
        /// Least and largest log of the standard deviation. The network's outputs beyond are clipped, and have no gradient.
        log_std: [f32; 2],
    },
    /// One action.
    Deterministic {
        /// Standard deviation of the noise added to actions in [−1, 1] to explore; they are clipped to [−1, 1] again.
        exploration: f32,
    },
}

impl ActorHead {
    /// Numbers that it needs for each entry of an action.
    fn outputs(self) -> usize {
        match self {
            Self::Gaussian { .. } => 2,
            Self::Deterministic { .. } => 1,
        }
    }
}

impl ActorConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`AgentError::Config`] or [`AgentError::Model`], naming the field.
    pub fn validate(&self) -> Result<(), AgentError> {
        check_learning_rate(self.learning_rate)?;
        if !(0.0..=1.0).contains(&self.averaging) {
            let (value, rule) = (self.averaging.to_string(), "a number in [0, 1]");
            return Err(AgentError::Config { field: "averaging", value, rule });
        }
        Ok(MlpConfig::new(1, self.hidden.clone(), 1).validate()?)
    }

    /// An actor with fresh weights for an environment.
    ///
    /// # Errors
    /// [`AgentError::Config`] for actions that are discrete or have no bounds, or a value that breaks a rule.
    pub fn init(&self, spec: &EnvSpec, head: ActorHead, rng: &mut Rng) -> Result<Actor, AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        self.validate()?;
        match head {
            ActorHead::Gaussian { log_std: [low, high] } => {
                // exp(20) squared is still far from the ends of `f32`.
                if !(-20.0 <= low && low <= high && high <= 20.0) {
                    return refuse(
                        "log_std",
                        format!("{:?}", [low, high]),
                        "two numbers in rising order, from -20 to 20",
                    );
                }
            }
            ActorHead::Deterministic { exploration } => {
                if !(exploration >= 0.0 && exploration.is_finite()) {
                    return refuse("exploration_noise", exploration.to_string(), "a finite number of at least 0");
                }
            }
        }
        let scale = ActionScale::new(&spec.actions)?;
        let inputs = Inputs::new(spec, self.angles, self.normalize);
        let network = MlpConfig {
            activation: self.activation,
            layer_norm: self.layer_norm,
            ..MlpConfig::new(inputs.width(), self.hidden.clone(), head.outputs() * scale.width())
        };
        let network = init_network(&network, rng)?;
        let adam = AdamConfig { learning_rate: self.learning_rate, ..AdamConfig::default() };
        let average =
            (self.averaging > 0.0).then(|| Box::new(Average { network: network.clone(), share: self.averaging }));
        Ok(Actor { adam: Adam::new(&network, adam), network, average, head, scale, inputs })
    }
}

/// A policy that learns: a network with a head, and the state of its optimizer. Made by [`ActorConfig::init`].
///
/// Learning works on [inputs](Inputs) instead of observations, `[N, I]`, and on actions in [−1, 1]; acting works on observations,
/// and on actions in the environment's units.
#[derive(Debug, Clone)]
pub struct Actor {
    network: HostMlp,
    average: Option<Box<Average>>,
    adam: Adam,
    head: ActorHead,
    scale: ActionScale,
    inputs: Inputs,
}

/// The network that evaluations use in place of the current one.
#[derive(Debug, Clone)]
struct Average {
    network: HostMlp,
    /// The share by which it moves towards the network at each update.
    share: f32,
}

/// Actions that an actor drew, and what their gradients need. When reused, it allocates little.
#[derive(Debug, Clone, Default)]
pub struct ActorPass {
    tape: Tape,
    outputs: Vec<f32>,
    noise: Vec<f32>,
    /// Standard deviations, of a Gaussian head.
    std: Vec<f32>,
    actions: Vec<f32>,
    log_probs: Vec<f32>,
}

impl ActorPass {
    /// Actions in [−1, 1], `[N, A]`.
    #[must_use]
    pub fn actions(&self) -> &[f32] {
        &self.actions
    }

    /// Log-probability density of each action in [−1, 1]^A, `[N]`; empty for a deterministic head.
    #[must_use]
    pub fn log_probs(&self) -> &[f32] {
        &self.log_probs
    }

    /// The network's outputs, `[N, 2A]` (means, then logs of standard deviations as they come, before clipping) or `[N, A]`.
    #[must_use]
    pub fn outputs(&self) -> &[f32] {
        &self.outputs
    }
}

impl Actor {
    /// Read from a file, with an optimizer that has not stepped yet.
    pub(crate) fn of_parts(network: HostMlp, head: ActorHead, scale: ActionScale, inputs: Inputs) -> Self {
        Self { adam: Adam::new(&network, AdamConfig::default()), network, average: None, head, scale, inputs }
    }

    /// The inputs that the network sees.
    #[must_use]
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Takes real observations `[N, O]` into the statistics of the inputs, where there are any.
    pub fn observe(&mut self, obs: &[f32]) {
        self.inputs.observe(obs);
    }

    /// Takes the statistics of observations `[N, O]` in place of those so far, where there are any.
    pub fn observe_anew(&mut self, obs: &[f32]) {
        self.inputs.observe_anew(obs);
    }

    /// Between [−1, 1] and the environment's units.
    #[must_use]
    pub fn scale(&self) -> &ActionScale {
        &self.scale
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &HostMlp {
        &self.network
    }

    /// Whether evaluations use a [running average](ActorConfig::averaging) of the weights.
    #[must_use]
    pub fn is_averaged(&self) -> bool {
        self.average.is_some()
    }

    /// The network that evaluations use: its [running average](ActorConfig::averaging) where there is one, else the network itself.
    #[must_use]
    pub fn evaluated(&self) -> &HostMlp {
        self.average.as_ref().map_or(&self.network, |average| &average.network)
    }

    /// Its network, mutable.
    pub fn network_mut(&mut self) -> &mut HostMlp {
        &mut self.network
    }

    /// Its network and optimizer, mutable.
    pub(crate) fn learned_mut(&mut self) -> (&mut HostMlp, &mut Adam) {
        (&mut self.network, &mut self.adam)
    }

    /// How the network's outputs become actions.
    #[must_use]
    pub fn head(&self) -> ActorHead {
        self.head
    }

    /// Draws actions for `inputs` `[N, I]`: a Gaussian head's with noise, a deterministic head's without. With `tape`, gradients can
    /// be taken.
    pub fn sample(&self, inputs: &[f32], draw: PolicyDraw, tape: bool, pass: &mut ActorPass) {
        let width = self.scale.width();
        let ActorPass { tape: kept, outputs, noise, std, actions, log_probs } = pass;
        *outputs = self.network.forward(Rows::Shared(inputs), Pass::Infer, tape.then_some(kept));
        let ActorHead::Gaussian { log_std: [low, high] } = self.head else {
            actions.clear();
            actions.extend(outputs.iter().map(|z| z.tanh()));
            log_probs.clear();
            return;
        };
        let rows = outputs.len() / (2 * width);
        for (numbers, len) in
            [(&mut *noise, rows * width), (std, rows * width), (actions, rows * width), (log_probs, rows)]
        {
            numbers.resize(len, 0.0);
        }
        fill_normal(draw.key, draw.step, draw.first_row, width, noise);
        let each = outputs.chunks_exact(2 * width).zip(noise.chunks_exact(width));
        let each = each.zip(pass.std.chunks_exact_mut(width)).zip(pass.actions.chunks_exact_mut(width));
        for ((((outputs, noise), std), actions), log_prob) in each.zip(&mut pass.log_probs) {
            let (means, logs) = outputs.split_at(width);
            *log_prob = 0.0;
            for i in 0..width {
                let log_std = logs[i].clamp(low, high);
                std[i] = log_std.exp();
                let z = means[i] + std[i] * noise[i];
                actions[i] = z.tanh();
                *log_prob += -0.5 * noise[i] * noise[i] - log_std - HALF_LOG_TAU - log_slope(z);
            }
        }
    }

    /// Mean actions `[N, A]` in [−1, 1]: `tanh(μ)`.
    #[must_use]
    pub fn mean(&self, inputs: &[f32]) -> Vec<f32> {
        self.mean_of(&self.network, inputs)
    }

    fn mean_of(&self, network: &HostMlp, inputs: &[f32]) -> Vec<f32> {
        let mut outputs = network.forward(Rows::Shared(inputs), Pass::Infer, None);
        let (width, per_row) = (self.scale.width(), self.network.config().outputs);
        if per_row != width {
            outputs = outputs.chunks_exact(per_row).flat_map(|row| &row[..width]).copied().collect();
        }
        outputs.iter_mut().for_each(|z| *z = z.tanh());
        outputs
    }

    /// Gradients with respect to the network's outputs, from those with respect to the actions in [−1, 1] `[N, A]` and the log-probabilities
    /// `[N]` (empty for a deterministic head). The noise is held fixed, so these are reparametrised gradients.
    #[must_use]
    pub fn pull(&self, pass: &ActorPass, grad_actions: &[f32], grad_log_probs: &[f32]) -> Vec<f32> {
        let width = self.scale.width();
        let mut gradients = vec![0.0; pass.outputs.len()];
        let ActorHead::Gaussian { log_std: [low, high] } = self.head else {
            for ((gradient, action), by_action) in gradients.iter_mut().zip(&pass.actions).zip(grad_actions) {
                *gradient = by_action * (1.0 - action * action);
            }
            return gradients;
        };
        for (row, gradients) in gradients.chunks_exact_mut(2 * width).enumerate() {
            let by_log_prob = grad_log_probs[row];
            let logs = &pass.outputs[row * 2 * width + width..][..width];
            for i in 0..width {
                let at = row * width + i;
                let action = pass.actions[at];
                // d log(1 − tanh²z) / dz = −2 tanh z.
                let by_z = grad_actions[at] * (1.0 - action * action) + 2.0 * by_log_prob * action;
                gradients[i] = by_z;
                // Beyond its bounds the deviation is a constant.
                let moves = (low..=high).contains(&logs[i]);
                gradients[width + i] = if moves { by_z * pass.std[at] * pass.noise[at] - by_log_prob } else { 0.0 };
            }
        }
        gradients
    }

    /// Gradients with respect to the inputs `[N, I]` of a pass with a tape, from those with respect to the outputs.
    #[must_use]
    pub fn input_grad(&self, pass: &ActorPass, grad_out: &[f32]) -> Vec<f32> {
        self.network.input_grad(&pass.tape, grad_out)
    }

    /// Gradients with respect to all parameters, in the order of [`HostMlp::parameters`], from those of the outputs of a pass with a tape.
    #[must_use]
    pub fn grads(&self, pass: &ActorPass, grad_out: &[f32]) -> Vec<f32> {
        self.network.grads(&pass.tape, grad_out)
    }

    /// One step of Adam against gradients of the outputs of a pass with a tape, which is spent.
    pub fn step(&mut self, pass: &mut ActorPass, grad_out: &[f32]) {
        self.network.step(&mut pass.tape, grad_out, false, &mut self.adam);
        if let Some(average) = &mut self.average {
            average.network.track(&self.network, average.share);
        }
    }

    /// Log-probability density `[N]` of given actions `[N, A]` in (−1, 1) under a Gaussian head, and the gradients of their mean
    /// with respect to the outputs of the pass, which was made for the same rows with a tape: these fit a likelihood. Actions at the bounds
    /// are taken as slightly inside.
    ///
    /// # Panics
    /// For a deterministic head.
    #[must_use]
    pub fn log_likelihood(&self, pass: &ActorPass, actions: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let ActorHead::Gaussian { log_std: [low, high] } = self.head else {
            panic!("the likelihood of an action under a deterministic head: expected a Gaussian one");
        };
        const INSIDE: f32 = 1.0 - 1e-6;
        let width = self.scale.width();
        let mut gradients = vec![0.0; pass.outputs.len()];
        let rows = actions.len() / width;
        let share = 1.0 / rows as f32;
        let mut log_probs = Vec::with_capacity(rows);
        let each = pass.outputs.chunks_exact(2 * width).zip(gradients.chunks_exact_mut(2 * width));
        for ((outputs, gradients), actions) in each.zip(actions.chunks_exact(width)) {
            let (means, logs) = outputs.split_at(width);
            let mut log_prob = 0.0;
            for i in 0..width {
                let z = actions[i].clamp(-INSIDE, INSIDE).atanh();
                let log_std = logs[i].clamp(low, high);
                let off = (z - means[i]) / log_std.exp();
                log_prob += -0.5 * off * off - log_std - HALF_LOG_TAU - log_slope(z);
                gradients[i] = share * off / log_std.exp();
                gradients[width + i] = if (low..=high).contains(&logs[i]) { share * (off * off - 1.0) } else { 0.0 };
            }
            log_probs.push(log_prob);
        }
        (log_probs, gradients)
    }

    /// Writes network, optimizer and statistics.
    ///
    /// # Errors
    /// Errors of input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put(NETWORK, &self.network.save())?;
        into.put(ADAM, &self.adam.save(&self.network))?;
        if let Some(average) = &self.average {
            into.put(AVERAGE, &average.network.save())?;
        }
        self.inputs.save(into)
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of another shape.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        load_network(&mut self.network, from, NETWORK)?;
        self.adam.load(&self.network, from.get(ADAM)?).map_err(|e| from.refuse(ADAM, e.to_string()))?;
        if let Some(average) = &mut self.average {
            load_network(&mut average.network, from, AVERAGE)?;
        }
        self.inputs.load(from)
    }
}

/// Refuses an invalid step size.
pub(crate) fn check_learning_rate(value: f32) -> Result<(), AgentError> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    let (value, rule) = (value.to_string(), "a finite number of at least 0");
    Err(AgentError::Config { field: "learning_rate", value, rule })
}

/// A network from a checkpoint.
pub(crate) fn load_network(network: &mut HostMlp, from: &CheckpointReader, name: &str) -> Result<(), AgentError> {
    network.load(from.get(name)?).map_err(|e| from.refuse(name, e.to_string()))
}

/// log(1 − tanh²z), exact for any z.
fn log_slope(z: f32) -> f32 {
    // softplus(−2z) = max(−2z, 0) + log(1 + e^−2|z|); with −z it comes to −|z|.
    2.0 * (LN_2 - z.abs() - (-2.0 * z.abs()).exp().ln_1p())
}

impl Policy for Actor {
    fn obs_width(&self) -> usize {
        self.inputs.obs_width()
    }

    fn action_width(&self) -> usize {
        self.scale.width()
    }

    fn act(&self, obs: &[f32], mode: ActMode, draw: PolicyDraw) -> Vec<f32> {
        let mut inputs = Vec::with_capacity(obs.len());
        self.inputs.prepare(obs, &mut inputs);
        let mut actions = match (mode, self.head) {
            (ActMode::Evaluate, _) => self.mean_of(self.evaluated(), &inputs),
            (ActMode::Explore, ActorHead::Gaussian { .. }) => {
                let mut pass = ActorPass::default();
                self.sample(&inputs, draw, false, &mut pass);
                pass.actions
            }
            (ActMode::Explore, ActorHead::Deterministic { exploration }) => {
                let mut actions = self.mean(&inputs);
                let mut noise = vec![0.0; actions.len()];
                fill_normal(draw.key, draw.step, draw.first_row, self.scale.width(), &mut noise);
                for (action, noise) in actions.iter_mut().zip(noise) {
                    *action = (*action + exploration * noise).clamp(-1.0, 1.0);
                }
                actions
            }
        };
        self.scale.to_env(&mut actions);
        actions
    }
}
