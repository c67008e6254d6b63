//! The networks of an ensemble as one Burn module: every layer is one batched product `[E, N, in] × [E, in, out]`.

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData, activation},
};
use mbrl_env::Rng;

use super::config::{EnsembleConfig, Head, Variance};
use crate::{
    Activation,
    mlp::{self, draw_weights},
};

/// Weights of all members.
#[derive(Module, Debug)]
pub struct Network {
    /// One `[E, in, out]` per layer.
    pub(crate) weights: Vec<Param<Tensor<3>>>,
    /// One `[E, 1, out]` per layer.
    pub(crate) biases: Vec<Param<Tensor<3>>>,
    /// Upper bound of the log-variance, `[1, 1, D]`, shared by the members (PETS).
    pub(crate) max_log_var: Param<Tensor<3>>,
    /// Lower bound, `[1, 1, D]`.
    pub(crate) min_log_var: Param<Tensor<3>>,
}

/// What the last layer predicts for N rows, in the network's target units; the D columns are those of the observation that are
/// predicted, then the reward.
pub(crate) struct Heads {
    /// `[E, N, D]`.
    pub(crate) mean: Tensor<3>,
    /// Softly bounded, `[E, N, D]`, of a Gaussian head.
    pub(crate) log_var: Option<Tensor<3>>,
    /// Logit of the probability of a termination, `[E, N, 1]`.
    pub(crate) end: Option<Tensor<3>>,
}

impl Network {
    /// Weights from a normal of standard deviation 1/(2·√in), truncated at two of them; biases 0 (PETS, `FC.py`). Outputs that do not
    /// depend on inputs have weights of 0.
    pub(crate) fn new(
        config: &EnsembleConfig,
        inputs: usize,
        predicted: usize,
        device: &Device,
        rng: &mut Rng,
    ) -> Self {
        let widths: Vec<usize> =
            std::iter::once(inputs).chain(config.hidden.iter().copied()).chain([config.outputs(predicted)]).collect();
        let members = config.members;
        let mut weights = Vec::new();
        let mut biases = Vec::new();
        for (l, pair) in widths.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let shape = [members, inputs, outputs];
            let mut drawn = draw_weights(shape, rng);
            if l == config.hidden.len() {
                let constant = config.constant_outputs(predicted);
                drawn.chunks_exact_mut(outputs).for_each(|row| row[constant.clone()].fill(0.0));
            }
            weights.push(Param::from_data(TensorData::new(drawn, shape), device));
            biases
                .push(Param::from_data(TensorData::new(vec![0f32; members * outputs], [members, 1, outputs]), device));
        }
        let targets = config.targets(predicted);
        let bound = |value: f32| Param::from_data(TensorData::new(vec![value; targets], [1, 1, targets]), device);
        Self { weights, biases, max_log_var: bound(config.max_log_var), min_log_var: bound(config.min_log_var) }
    }

    /// The network of some members, in their order, without gradients.
    pub(crate) fn select(&self, members: &[usize]) -> Self {
        if members.iter().copied().eq(0..self.weights[0].val().dims()[0]) {
            return self.clone();
        }
        let device = self.max_log_var.val().device();
        let index: Vec<i32> = members.iter().map(|&e| e as i32).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [members.len()]), &device);
        let pick = |p: &Param<Tensor<3>>| Param::from_tensor(p.val().select(0, index.clone()));
        Self {
            weights: self.weights.iter().map(pick).collect(),
            biases: self.biases.iter().map(pick).collect(),
            max_log_var: self.max_log_var.clone(),
            min_log_var: self.min_log_var.clone(),
        }
        .valid()
    }

    /// `[E, N, in]` → `[E, N, out]`, before the head.
    pub(crate) fn forward(&self, inputs: Tensor<3>, act: Activation) -> Tensor<3> {
        mlp::forward(&self.weights, &self.biases, inputs, act, |_, x| x)
    }

    /// `[E, N, in]` → what each head predicts.
    pub(crate) fn heads(&self, inputs: Tensor<3>, config: &EnsembleConfig) -> Heads {
        let out = self.forward(inputs, config.activation);
        let last = out.dims()[2] - usize::from(config.termination);
        let end = config.termination.then(|| out.clone().narrow(2, last, 1));
        match config.head {
            Head::Deterministic => {
                let mean = if config.termination { out.narrow(2, 0, last) } else { out };
                Heads { mean, log_var: None, end }
            }
            Head::Gaussian => {
                let width = last / 2;
                let mean = out.clone().narrow(2, 0, width);
                let (mut max, mut min) = (self.max_log_var.val(), self.min_log_var.val());
                if !config.learn_bounds {
                    (max, min) = (max.detach(), min.detach());
                }
                let raw = match config.variance {
                    Variance::Input => out.narrow(2, width, width),
                    // The weights are 0; past them no gradient reaches them.
                    Variance::Column => {
                        let bias = self.biases[self.biases.len() - 1].val().narrow(2, width, width);
                        bias.expand([out.dims()[0], out.dims()[1], width])
                    }
                };
                let below_max = max.clone() - activation::softplus(max - raw, 1.0);
                let log_var = min.clone() + activation::softplus(below_max - min, 1.0);
                Heads { mean, log_var: Some(log_var), end }
            }
        }
    }
}
