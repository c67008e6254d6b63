//! Configuration of a network.

use std::borrow::Cow;

use burn::tensor::Device;
use mbrl_env::Rng;
use serde::{Deserialize, Serialize};

use super::{HostMlp, Mlp};
use crate::ModelError;

/// Activation between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// x / (1 + e^-x), also called swish (PETS, MBPO).
    Silu,
    /// max(x, 0) (PDDM, Nagabandi et al.; SAC, TD3).
    Relu,
    /// Hyperbolic tangent (natural policy gradients).
    Tanh,
    /// e^x − 1 below 0, x above (Dreamer's heads).
    Elu,
    /// x tanh(ln(1 + e^x)) (TD-MPC2).
    Mish,
}

/// Several multilayer perceptrons of one shape.
///
/// ```
/// use mbrl_model::mlp::MlpConfig;
///
/// // Twin critics of a task with 17 observations and 6 actions.
/// let config = MlpConfig { members: 2, layer_norm: true, ..MlpConfig::new(17 + 6, vec![256, 256], 1) };
/// assert_eq!(config.parameters(), 2 * ((23 + 3) * 256 + (256 + 3) * 256 + 256 + 1));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Width of an input.
    pub inputs: usize,
    /// Width of an output.
    pub outputs: usize,
    /// Networks side by side, `E`, each with weights of its own.
    pub members: usize,
    /// Widths of the hidden layers; none is a linear map.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// Whether each hidden layer is normalised before its activation: over its units, to mean 0 and variance 1 (a variance
    /// of 1e-5 is added), times a learned gain, plus a learned shift.
    pub layer_norm: bool,
    /// Probability, in [0, 1), that a training pass sets a hidden unit to 0; the others are divided by 1 minus it. Dropout acts
    /// on the result of the weights, before normalisation and activation (DroQ, Hiraoka et al. 2022).
    pub dropout: f32,
}

impl MlpConfig {
    /// One member with ReLU, without layer norm and dropout.
    #[must_use]
    pub fn new(inputs: usize, hidden: Vec<usize>, outputs: usize) -> Self {
        Self { inputs, outputs, members: 1, hidden, activation: Activation::Relu, layer_norm: false, dropout: 0.0 }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the field.
    pub fn validate(&self) -> Result<(), ModelError> {
        let rule = |ok: bool, field, value: &dyn std::fmt::Debug, rule| match ok {
            true => Ok(()),
            false => Err(ModelError::Config { field, value: format!("{value:?}"), rule: Cow::Borrowed(rule) }),
        };
        rule(self.inputs > 0, "inputs", &self.inputs, "at least 1")?;
        rule(self.outputs > 0, "outputs", &self.outputs, "at least 1")?;
        rule(self.members > 0, "members", &self.members, "at least 1")?;
        rule(self.hidden.iter().all(|&width| width > 0), "hidden", &self.hidden, "widths of at least 1")?;
        rule((0.0..1.0).contains(&self.dropout), "dropout", &self.dropout, "a probability in [0, 1)")
    }

    /// A network with fresh weights as a Burn module on `device`: weights come from a normal of standard deviation 1/(2·√in),
    /// truncated at two standard deviations; biases and shifts are 0, gains 1 (PETS, `FC.py`).
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, device: &Device, rng: &mut Rng) -> Result<Mlp, ModelError> {
        self.validate()?;
        Ok(Mlp::new(self, device, rng))
    }

    /// The same network for the CPU; the same bits as [`init`](Self::init) from the same generator.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init_host(&self, rng: &mut Rng) -> Result<HostMlp, ModelError> {
        self.validate()?;
        Ok(HostMlp::new(self, rng))
    }

    /// Number of parameters of all members together.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.arrays().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Inputs and outputs of each layer.
    pub(crate) fn layers(&self) -> impl Iterator<Item = [usize; 2]> {
        let outputs = self.hidden.iter().copied().chain([self.outputs]);
        std::iter::once(self.inputs).chain(self.hidden.iter().copied()).zip(outputs).map(|(i, o)| [i, o])
    }

    /// The arrays of all layers in the order in which parameters are listed, `[E, rows, out]` each.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = (Array, [usize; 3])> {
        let last = self.hidden.len();
        self.layers().enumerate().flat_map(move |(l, [inputs, outputs])| {
            let norm = if self.layer_norm && l < last { &[Array::Gain, Array::Shift][..] } else { &[] };
            [Array::Weight, Array::Bias].into_iter().chain(norm.iter().copied()).map(move |array| {
                let rows = if array == Array::Weight { inputs } else { 1 };
                (array, [self.members, rows, outputs])
            })
        })
    }
}

/// The kind of an array of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Array {
    Weight,
    Bias,
    Gain,
    Shift,
}

/// The weights of a layer, `[E, in, out]`: see [`MlpConfig::init`].
pub(crate) fn draw_weights([members, inputs, outputs]: [usize; 3], rng: &mut Rng) -> Vec<f32> {
    let std = 0.5 / (inputs as f32).sqrt();
    (0..members * inputs * outputs).map(|_| std * truncated_normal(rng)).collect()
}

/// A standard normal, drawn again until it lies within ±2.
fn truncated_normal(rng: &mut Rng) -> f32 {
    loop {
        let x = rng.normal();
        if x.abs() <= 2.0 {
            return x;
        }
    }
}
