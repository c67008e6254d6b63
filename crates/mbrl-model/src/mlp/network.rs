//! The networks as one Burn module: every layer is one batched product `[E, N, in] × [E, in, out]`.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, activation},
};
use mbrl_env::Rng;

use super::{Activation, MlpConfig, Pass, VARIANCE_FLOOR, config::draw_weights, dropout::Dropout};

/// Several multilayer perceptrons as a Burn module: the definition of what they compute, on any device, differentiable.
///
/// [`HostMlp`](super::HostMlp) computes the same on a CPU, several times as fast.
#[derive(Module, Debug)]
pub struct Mlp {
    /// One `[E, in, out]` per layer.
    pub weights: Vec<Param<Tensor<3>>>,
    /// One `[E, 1, out]` per layer.
    pub biases: Vec<Param<Tensor<3>>>,
    /// One `[E, 1, out]` per hidden layer, where layers are normalised.
    pub gains: Vec<Param<Tensor<3>>>,
    /// As the gains.
    pub shifts: Vec<Param<Tensor<3>>>,
    #[module(skip)]
    config: MlpConfig,
}

impl Mlp {
    pub(crate) fn new(config: &MlpConfig, device: &Device, rng: &mut Rng) -> Self {
        let mut mlp = Self::empty(config);
        let normalised = if config.layer_norm { config.hidden.len() } else { 0 };
        let full = |value: f32, width: usize| {
            let shape = [config.members, 1, width];
            Param::from_data(TensorData::new(vec![value; config.members * width], shape), device)
        };
        for (l, [inputs, outputs]) in config.layers().enumerate() {
            let shape = [config.members, inputs, outputs];
            mlp.weights.push(Param::from_data(TensorData::new(draw_weights(shape, rng), shape), device));
            mlp.biases.push(full(0.0, outputs));
            if l < normalised {
                mlp.gains.push(full(1.0, outputs));
                mlp.shifts.push(full(0.0, outputs));
            }
        }
        mlp
    }

    /// Without parameters yet.
    pub(super) fn empty(config: &MlpConfig) -> Self {
        Self { weights: Vec::new(), biases: Vec::new(), gains: Vec::new(), shifts: Vec::new(), config: config.clone() }
    }

    /// The configuration that it was made from.
    #[must_use]
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }

    /// Inputs `[E, N, in]` → outputs `[E, N, out]`.
    #[must_use]
    pub fn forward(&self, inputs: Tensor<3>, pass: Pass) -> Tensor<3> {
        let dropout = Dropout::of(&self.config, pass);
        let norms: Vec<_> = self.gains.iter().map(Param::val).zip(self.shifts.iter().map(Param::val)).collect();
        forward(&self.weights, &self.biases, inputs, self.config.activation, |l, x| {
            let x = match &dropout {
                Some(dropout) => {
                    let device = x.device();
                    let keep = dropout.factors(l, x.dims());
                    x.clone() * Tensor::from_data(TensorData::new(keep, x.dims()), &device)
                }
                None => x,
            };
            match norms.get(l) {
                Some((gain, shift)) => normalised(x) * gain.clone() + shift.clone(),
                None => x,
            }
        })
    }
}

/// Layers of weights `[E, in, out]` and biases `[E, 1, out]`; `between` transforms each hidden layer before its activation.
pub(crate) fn forward(
    weights: &[Param<Tensor<3>>],
    biases: &[Param<Tensor<3>>],
    inputs: Tensor<3>,
    act: Activation,
    between: impl Fn(usize, Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let mut x = inputs;
    for (layer, (weight, bias)) in weights.iter().zip(biases).enumerate() {
        x = x.matmul(weight.val()) + bias.val();
        if layer + 1 < weights.len() {
            x = activate(between(layer, x), act);
        }
    }
    x
}

fn activate(x: Tensor<3>, act: Activation) -> Tensor<3> {
    match act {
        Activation::Silu => activation::silu(x),
        Activation::Relu => activation::relu(x),
        Activation::Tanh => activation::tanh(x),
        // For values that are not below 0 the exponential could overflow, and its gradient would be NaN.
        Activation::Elu => activation::relu(x.clone()) + x.clamp_max(0.0).exp() - 1.0,
        Activation::Mish => activation::mish(x),
    }
}

fn normalised(x: Tensor<3>) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    centred / (variance + VARIANCE_FLOOR).sqrt()
}
