//! Adam, with its state.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use super::host::{HostMlp, Params};
use crate::ModelError;

/// How Adam steps (Kingma and Ba 2015).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Step size (default 1e-3).
    pub learning_rate: f32,
    /// Decay of the moments (default 0.9 and 0.999).
    pub betas: [f32; 2],
    /// Added to the root of the second moment (default 1e-8).
    pub epsilon: f32,
    /// Weight decay of each layer's weights, added to the loss as `decay · ½‖W‖²`; one for each layer, or none (default).
    pub decay: Vec<f32>,
    /// Largest norm of a member's gradient over all its arrays, weight decay included; larger ones are scaled down to it.
    /// 0 for no clipping (default). With clipping, gradients are stored before the step and read again.
    pub clip: f32,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-3, betas: [0.9, 0.999], epsilon: 1e-8, decay: Vec::new(), clip: 0.0 }
    }
}

/// Adam's moments of a network's parameters, and the number of its steps. Made afresh for each fit, or saved with the network.
#[derive(Debug, Clone)]
pub struct Adam {
    pub(super) config: AdamConfig,
    pub(super) steps: i32,
    pub(super) first: Params,
    pub(super) second: Params,
    /// Of clipped steps.
    pub(super) gradients: Option<Params>,
}

impl Adam {
    /// For `network`, before its first step.
    ///
    /// # Panics
    /// If `config.decay` has neither one value per layer nor none.
    #[must_use]
    pub fn new(network: &HostMlp, config: AdamConfig) -> Self {
        let layers = network.config().hidden.len() + 1;
        assert!(
            config.decay.is_empty() || config.decay.len() == layers,
            "decay = {:?}: expected {layers} values (one per layer), or none",
            config.decay
        );
        Self { config, steps: 0, first: network.zeros(), second: network.zeros(), gradients: None }
    }

    /// How it steps.
    #[must_use]
    pub fn config(&self) -> &AdamConfig {
        &self.config
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps as usize
    }

    /// Sets the step size, from the next step on.
    pub fn set_learning_rate(&mut self, learning_rate: f32) {
        self.config.learning_rate = learning_rate;
    }

    /// First and second moments, each in the order of [`HostMlp::parameters`].
    #[must_use]
    pub fn moments(&self, network: &HostMlp) -> [Vec<f32>; 2] {
        [&self.first, &self.second].map(|moments| network.flat(moments))
    }

    /// Sets the moments, in the order of [`HostMlp::parameters`], as they are after `steps` steps.
    ///
    /// # Panics
    /// If their number differs from the network's number of parameters.
    pub fn set_moments(&mut self, network: &HostMlp, steps: usize, [first, second]: &[Vec<f32>; 2]) {
        self.steps = i32::try_from(steps).unwrap_or(i32::MAX);
        (self.first, self.second) = (network.shaped(first), network.shaped(second));
    }

    /// Moments and number of steps as bytes; [`load`](Self::load) gives back the same bits. Settings are not included.
    #[must_use]
    pub fn save(&self, network: &HostMlp) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.steps.to_le_bytes());
        for moments in [&self.first, &self.second] {
            bytes.extend(network.flat(moments).iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }

    /// Restores what [`save`](Self::save) wrote for a network of the same shape. On an error nothing changes.
    ///
    /// # Errors
    /// [`ModelError::Storage`] for bytes that are not a complete state of Adam, or belong to a network of another shape.
    pub fn load(&mut self, network: &HostMlp, bytes: &[u8]) -> Result<(), ModelError> {
        let broken = |what: &str| ModelError::Storage(format!("not a whole state of Adam: {what}"));
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin with MBRLADM1"))?;
        let (steps, rest) = rest.split_first_chunk::<4>().ok_or_else(|| broken("it ends before its moments"))?;
        let count = network.config().parameters();
        if rest.len() != 8 * count {
            return Err(broken(&format!("{} bytes of moments, expected {}", rest.len(), 8 * count)));
        }
        let steps = i32::from_le_bytes(*steps);
        let values: Vec<f32> = rest.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if steps < 0 || values.iter().any(|value| !value.is_finite()) {
            return Err(broken("its numbers are not finite"));
        }
        self.steps = steps;
        (self.first, self.second) = (network.shaped(&values[..count]), network.shaped(&values[count..]));
        Ok(())
    }

    /// Counts a step; what it multiplies by.
    pub(crate) fn begin(&mut self) -> Rates {
        self.steps = self.steps.saturating_add(1);
        self.rates()
    }

    /// Those of the last step.
    pub(crate) fn rates(&self) -> Rates {
        Rates::new(&self.config, self.steps)
    }
}

const MAGIC: &[u8; 8] = b"MBRLADM1";

/// The numbers of one bias-corrected step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    betas: [f32; 2],
    rate: f32,
    epsilon: f32,
}

impl Rates {
    fn new(config: &AdamConfig, step: i32) -> Self {
        let betas = config.betas;
        let root = (1.0 - betas[1].powi(step)).sqrt();
        Self { betas, rate: config.learning_rate * root / (1.0 - betas[0].powi(step)), epsilon: config.epsilon * root }
    }

    /// One step of some values with their moments.
    pub(crate) fn step(&self, [values, first, second]: [&mut [f32]; 3], gradients: &[f32], decay: f32) {
        adam(values, first, second, gradients, self.betas, [self.rate, self.epsilon, decay]);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn adam(
    values: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    gradients: &[f32],
    betas: [f32; 2],
    [rate, epsilon, decay]: [f32; 3],
) {
    for (((value, first), second), gradient) in values.iter_mut().zip(first).zip(second).zip(gradients) {
        let gradient = gradient + decay * *value;
        *first = betas[0] * *first + (1.0 - betas[0]) * gradient;
        *second = betas[1] * *second + (1.0 - betas[1]) * gradient * gradient;
        *value -= rate * *first / (second.sqrt() + epsilon);
    }
}
