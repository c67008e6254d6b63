//! The networks of a latent model: in Burn, where they are defined, and on the host.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use mbrl_env::Rng;

use super::config::{LatentConfig, LatentNorm, Networks, Shapes};
use crate::mlp::{HostMlp, Mlp, Pass, Rows};

/// The networks of a [`LatentModel`](super::LatentModel) as one Burn module.
#[derive(Module, Debug)]
pub struct LatentNetwork {
    /// Convolutions whose stride is their size: networks of one square each.
    pub stages: Vec<Mlp>,
    /// From the outputs of the convolutions to the latent.
    pub trunk: Mlp,
    /// From latent and action to the next latent and the reward.
    pub dynamics: Mlp,
    /// From the latent to the newest of its frames.
    pub decoder: Mlp,
    #[module(skip)]
    norm: LatentNorm,
}

/// Rows of one network.
fn apply(mlp: &Mlp, rows: Tensor<2>) -> Tensor<2> {
    mlp.forward(rows.unsqueeze(), Pass::Infer).squeeze_dim(0)
}

impl LatentNetwork {
    /// The latents `[N, S]` of images, `[N, …]` in the order of the first convolution.
    #[cfg(feature = "train")]
    pub(super) fn encode(&self, images: Tensor<2>) -> Tensor<2> {
        let [count, _] = images.dims();
        let mut x = images;
        for stage in &self.stages {
            let [rows, width] = x.dims();
            let inputs = stage.config().inputs;
            x = apply(stage, x.reshape([rows * width / inputs, inputs]));
        }
        let inputs = self.trunk.config().inputs;
        self.norm.tensor(apply(&self.trunk, x.reshape([count, inputs])))
    }

    /// The next latents `[N, S]` and the rewards `[N]`, in standard deviations, of latents `[N, S]` and actions `[N, A]` within ±1.
    pub(super) fn step(&self, latents: Tensor<2>, actions: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let width = latents.dims()[1];
        let said = apply(&self.dynamics, Tensor::cat(vec![latents.clone(), actions], 1));
        let (change, reward) = (said.clone().narrow(1, 0, width), said.narrow(1, width, 1));
        let next = if self.norm.adds() { latents + change } else { change };
        (self.norm.tensor(next), reward.squeeze_dim(1))
    }

    /// The newest frames `[N, pixels]`, within ±½, of latents `[N, S]`.
    #[cfg(feature = "train")]
    pub(super) fn decode(&self, latents: Tensor<2>) -> Tensor<2> {
        apply(&self.decoder, latents)
    }
}

/// The same on the host.
#[derive(Debug, Clone)]
pub(super) struct HostNetwork {
    pub(super) stages: Vec<HostMlp>,
    pub(super) trunk: HostMlp,
    pub(super) dynamics: HostMlp,
    pub(super) decoder: HostMlp,
    pub(super) norm: LatentNorm,
}

impl HostNetwork {
    pub(super) fn new(config: &LatentConfig, shapes: &Shapes, rng: &mut Rng) -> Self {
        let Networks { stages, trunk, dynamics, decoder } = config.networks(shapes);
        let mut make = |config| HostMlp::new(&config, rng);
        Self {
            stages: stages.into_iter().map(&mut make).collect(),
            trunk: make(trunk),
            dynamics: make(dynamics),
            decoder: make(decoder),
            norm: config.norm,
        }
    }

    #[cfg(feature = "train")]
    pub(super) fn of(network: &LatentNetwork) -> Self {
        Self {
            stages: network.stages.iter().map(HostMlp::of).collect(),
            trunk: HostMlp::of(&network.trunk),
            dynamics: HostMlp::of(&network.dynamics),
            decoder: HostMlp::of(&network.decoder),
            norm: network.norm,
        }
    }

    pub(super) fn to_module(&self, device: &Device) -> LatentNetwork {
        LatentNetwork {
            stages: self.stages.iter().map(|stage| stage.to_mlp(device)).collect(),
            trunk: self.trunk.to_mlp(device),
            dynamics: self.dynamics.to_mlp(device),
            decoder: self.decoder.to_mlp(device),
            norm: self.norm,
        }
    }

    /// All networks, in the order in which they are stored.
    pub(super) fn all(&self) -> impl Iterator<Item = &HostMlp> {
        self.stages.iter().chain([&self.trunk, &self.dynamics, &self.decoder])
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut HostMlp> {
        self.stages.iter_mut().chain([&mut self.trunk, &mut self.dynamics, &mut self.decoder])
    }

    pub(super) fn width(&self) -> usize {
        self.trunk.config().outputs
    }

    /// The latents `[N, S]` of images.
    pub(super) fn encode(&self, images: &[f32]) -> Vec<f32> {
        let mut said = None;
        for stage in &self.stages {
            let rows = said.as_deref().unwrap_or(images);
            said = Some(stage.forward(Rows::Shared(rows), Pass::Infer, None));
        }
        let mut latents = self.trunk.forward(Rows::Shared(said.as_deref().unwrap_or(images)), Pass::Infer, None);
        self.norm.forward(&mut latents, self.width(), &mut Vec::new());
        latents
    }

    /// The next latents and rewards of rows `[N, S + A]`; `inputs` become the next latents, with whatever their actions were.
    pub(super) fn step(&self, inputs: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let said = self.dynamics.forward(Rows::Shared(inputs), Pass::Infer, None);
        let (mut next, rewards) = self.split(inputs, &said);
        self.norm.forward(&mut next, self.width(), &mut Vec::new());
        (next, rewards)
    }

    /// The dynamics' outputs for rows `[N, S + A]`, as latents before they are normalised and rewards.
    pub(super) fn split(&self, inputs: &[f32], said: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (width, adds) = (self.width(), self.norm.adds());
        let count = said.len() / (width + 1);
        let (mut next, mut rewards) = (Vec::with_capacity(count * width), Vec::with_capacity(count));
        let inputs = inputs.chunks_exact(self.dynamics.config().inputs);
        for (said, latent) in said.chunks_exact(width + 1).zip(inputs) {
            match adds {
                true => next.extend(said[..width].iter().zip(latent).map(|(change, x)| x + change)),
                false => next.extend_from_slice(&said[..width]),
            }
            rewards.push(said[width]);
        }
        (next, rewards)
    }

    pub(super) fn decode(&self, latents: &[f32]) -> Vec<f32> {
        self.decoder.forward(Rows::Shared(latents), Pass::Infer, None)
    }
}

/// Rows `[N, S + A]` of latents and actions.
pub(super) fn joined(latents: &[f32], actions: &[f32], width: usize, action: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(latents.len() + actions.len());
    for (latent, action) in latents.chunks_exact(width).zip(actions.chunks_exact(action)) {
        rows.extend_from_slice(latent);
        rows.extend_from_slice(action);
    }
    rows
}
