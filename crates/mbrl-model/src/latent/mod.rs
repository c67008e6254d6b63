//! Models of images: dynamics and rewards in a latent space.
//!
//! An encoder maps some successive frames to a latent, a network maps latent and action to the next latent and the reward, and a
//! decoder maps a latent to the frame that it stands for. The model is fitted to windows of episodes: the first frames of a window are
//! encoded, the rest is predicted from the actions alone, and gradients go back through all steps. The loss has three terms, with a
//! weight each: the error of the predicted reward (which planners maximise), the distance of the predicted latent from the encoding of
//! the frames that were seen (latent consistency, TD-MPC2 \[1\]), and the error of the decoded frame (PlaNet).
//!
//! Convolutions do not overlap, so that each is a small network of one square, applied to all squares: everything runs on
//! [`HostMlp`](crate::mlp::HostMlp).
//!
//! ## References
//! \[1\] Hansen, Su, Wang (2024), *TD-MPC2: Scalable, Robust World Models for Continuous Control*, ICLR.

mod config;
mod images;
mod network;
mod norm;
#[cfg(feature = "train")]
mod stepper;
#[cfg(feature = "train")]
mod train;

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_env::{Rng, Situation};
use serde::{Deserialize, Serialize};

use crate::{
    Draw, Dynamics, DynamicsSpec, Imagined, ModelError, Prediction, Start, Trajectories,
    dynamics::{check_particles, check_size, start_states},
    ensemble::to_vec,
    is_cpu, rollout_by_steps,
};
use config::Shapes;
use images::{Patches, scaled};
use network::{HostNetwork, joined};

pub use config::{LatentConfig, LatentNorm};
pub use network::LatentNetwork;
#[cfg(feature = "train")]
pub use train::LatentExamples;

/// Statistics of the data of the first fit; later fits keep them, so that the outputs of the networks keep their units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentStatistics {
    /// Mean of the rewards.
    pub mean: f32,
    /// Standard deviation of the rewards.
    pub std: f32,
    /// Variance of the pixels, within ±½, over all frames and places.
    pub pixels: f32,
}

/// A model of images: see [`LatentConfig`], which makes it.
///
/// Its state is a latent, which is also what rewards and values see ([`DynamicsSpec::view`]): the model learns the reward itself. A
/// [`Situation`] is encoded from its observation and the frames of its past. The model has no noise; it has gradients of states and actions.
#[derive(Debug, Clone)]
pub struct LatentModel {
    config: LatentConfig,
    shapes: Shapes,
    spec: DynamicsSpec,
    network: HostNetwork,
    /// The same in Burn, where it was asked for.
    module: OnceLock<LatentNetwork>,
    patches: Patches,
    statistics: Option<LatentStatistics>,
}

impl LatentModel {
    fn new(config: LatentConfig, shapes: Shapes, device: &Device, rng: &mut Rng) -> Self {
        let device = device.clone().without_autodiff();
        let spec = DynamicsSpec::new("latent model", config.latent, shapes.action(), &device)
            .with_obs(shapes.pixels())
            .with_view(config.latent)
            .with_differentiable(true);
        Self {
            network: HostNetwork::new(&config, &shapes, rng),
            patches: Patches::new(&shapes, config.patch, config.channels.len(), config.frames),
            module: OnceLock::new(),
            statistics: None,
            spec,
            config,
            shapes,
        }
    }

    /// The configuration that it was made from.
    #[must_use]
    pub fn config(&self) -> &LatentConfig {
        &self.config
    }

    /// Shape of a frame, `[height, width, channels]`.
    #[must_use]
    pub fn image(&self) -> [usize; 3] {
        self.shapes.image
    }

    fn module(&self) -> &LatentNetwork {
        self.module.get_or_init(|| self.network.to_module(&self.spec.device))
    }

    /// The networks have changed.
    fn changed(&mut self) {
        self.module = OnceLock::new();
    }

    fn check(&self, states: &Tensor<2>, actions: &Tensor<2>) -> Result<(), ModelError> {
        check_size("columns of states", self.spec.state, states.dims()[1])?;
        check_size("columns of actions", self.spec.action, actions.dims()[1])?;
        check_size("rows of actions", states.dims()[0], actions.dims()[0])
    }

    /// Whether nothing asks for tensors.
    fn on_the_host(&self, states: &Tensor<2>, tracked: bool) -> bool {
        is_cpu(&self.spec.device) && !states.is_autodiff() && !tracked
    }

    /// Mean and deviation of rewards.
    fn reward_scale(&self) -> [f32; 2] {
        self.statistics.map_or([0.0, 1.0], |statistics| [statistics.mean, statistics.std])
    }

    /// Next latents and rewards, on the host.
    fn host_step(&self, latents: &[f32], actions: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (next, mut rewards) = self.network.step(&joined(latents, actions, self.spec.state, self.spec.action));
        let [mean, std] = self.reward_scale();
        rewards.iter_mut().for_each(|reward| *reward = mean + std * *reward);
        (next, rewards)
    }

    /// Next latents and rewards, as tensors.
    fn tensor_step(&self, states: Tensor<2>, actions: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let row = |values: &[f32]| Tensor::<1>::from_floats(values, &self.spec.device).unsqueeze::<2>();
        let actions = (actions - row(&self.shapes.middle)) / row(&self.shapes.half_range);
        let (next, rewards) = self.module().step(states, actions);
        let [mean, std] = self.reward_scale();
        (next, rewards * std + mean)
    }

    fn step(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<(Tensor<2>, Tensor<1>), ModelError> {
        self.check(&states, &actions)?;
        let rows = states.dims()[0];
        if rows == 0 || !self.on_the_host(&states, actions.is_autodiff()) {
            return Ok(match rows {
                0 => (states, Tensor::empty([0], &self.spec.device)),
                _ => self.tensor_step(states, actions),
            });
        }
        let mut actions = to_vec(actions);
        self.shapes.scale(&mut actions);
        let (next, rewards) = self.host_step(&to_vec(states), &actions);
        let device = &self.spec.device;
        let next = Tensor::from_data(TensorData::new(next, [rows, self.spec.state]), device);
        Ok((next, Tensor::from_data(TensorData::new(rewards, [rows]), device)))
    }

    /// The frames of a situation, as the first convolution wants them.
    fn put_image(&self, situation: &Situation<'_>, images: &mut Vec<f32>) -> Result<(), ModelError> {
        let count = self.config.frames;
        let past = &situation.past.obs;
        let before = images.len();
        images.resize(before + self.patches.len(), 0.0);
        for number in 0..count {
            // So many steps ago; before the beginning the first one stands.
            let ago = count - 1 - number;
            let frame = match past.len() {
                0 => situation.obs,
                _ if ago == 0 => situation.obs,
                known => &past[known.saturating_sub(ago)],
            };
            check_size("pixels of the observed image", self.spec.obs, frame.len())?;
            mbrl_env::check_finite("observed image", frame)?;
            self.patches.put(frame, number, &mut images[before..], scaled);
        }
        Ok(())
    }
}

impl Dynamics for LatentModel {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }

    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        Ok(Prediction::new(self.step(states, actions)?.0))
    }

    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        check_particles(draw.propagation.particles, states.dims()[0])?;
        let (next, reward) = self.step(states, actions)?;
        Ok(Imagined::new(next).with_reward(reward))
    }

    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        self.encode_batch(&[*situation])
    }

    fn encode_batch(&self, situations: &[Situation<'_>]) -> Result<Tensor<2>, ModelError> {
        let mut images = Vec::with_capacity(situations.len() * self.patches.len());
        situations.iter().try_for_each(|situation| self.put_image(situation, &mut images))?;
        let shape = [situations.len(), self.spec.state];
        Ok(match situations.is_empty() {
            true => Tensor::empty(shape, &self.spec.device),
            false => Tensor::from_data(TensorData::new(self.network.encode(&images), shape), &self.spec.device),
        })
    }

    /// Latents as the decoder shows them: the newest of the frames that are encoded.
    fn reconstruct(&self, states: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        check_size("columns of states", self.spec.state, states.dims()[1])?;
        let rows = states.dims()[0];
        let mut frames = if rows > 0 { self.network.decode(&to_vec(states)) } else { Vec::new() };
        frames.iter_mut().for_each(|x| *x = (255.0 * (*x + 0.5)).clamp(0.0, 255.0));
        Ok(Tensor::from_data(TensorData::new(frames, [rows, self.spec.obs]), &self.spec.device))
    }

    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let [horizon, candidates, width] = actions.dims();
        let start = start_states(self, from, candidates)?;
        check_size("columns of actions", self.spec.action, width)?;
        if horizon * candidates == 0 || !self.on_the_host(&start, actions.is_autodiff()) {
            return rollout_by_steps(self, Start::States(start), actions, draw);
        }
        let particles = draw.propagation.particles;
        check_particles(particles, candidates * particles)?;
        let mut actions = to_vec(actions);
        self.shapes.scale(&mut actions);
        let mut obs = vec![to_vec(start)];
        let mut rewards = Vec::with_capacity(horizon * candidates * particles);
        for actions in actions.chunks_exact(candidates * width) {
            let (next, reward) = self.host_step(&obs[obs.len() - 1], actions);
            // Nothing is drawn, so all particles go the same way.
            (0..particles).for_each(|_| rewards.extend_from_slice(&reward));
            obs.push(next);
        }
        let rows = candidates * particles;
        let obs: Vec<f32> = obs.iter().flat_map(|states| (0..particles).flat_map(move |_| states)).copied().collect();
        let device = &self.spec.device;
        let obs = Tensor::from_data(TensorData::new(obs, [horizon + 1, rows, self.spec.state]), device);
        let rewards = Tensor::from_data(TensorData::new(rewards, [horizon, rows]), device);
        Ok(Trajectories::new(obs).with_reward(rewards))
    }
}

const MAGIC: &[u8; 8] = b"MBRLLAT1";

/// The header of a stored model, before its networks.
#[derive(Serialize, Deserialize)]
struct Header {
    config: LatentConfig,
    shapes: Shapes,
    /// As bits: text would not keep every one.
    statistics: Option<[u32; 3]>,
}

impl LatentModel {
    /// Networks and statistics as bytes; [`load`](Self::load) gives back the same bits.
    ///
    /// # Errors
    /// [`ModelError::Storage`] where the header cannot be written.
    pub fn save(&self) -> Result<Vec<u8>, ModelError> {
        let header = Header {
            config: self.config.clone(),
            shapes: self.shapes.clone(),
            statistics: self.statistics.map(|s| [s.mean, s.std, s.pixels].map(f32::to_bits)),
        };
        let header = serde_json::to_vec(&header).map_err(|error| ModelError::Storage(error.to_string()))?;
        let mut bytes = MAGIC.to_vec();
        let mut put = |part: &[u8]| {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        };
        put(&header);
        for network in self.network.all() {
            put(&network.parameters().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        }
        Ok(bytes)
    }

    /// Restores what [`save`](Self::save) wrote, from a model of the same configuration for images of the same shape. On an error
    /// nothing changes.
    ///
    /// # Errors
    /// [`ModelError::Storage`] for bytes that are not a complete record of a latent model, or belong to another one.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let broken = |what: String| ModelError::Storage(format!("not a whole latent model: {what}"));
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin with MBRLLAT1".into()))?;
        let mut part = || {
            let (length, after) = rest.split_first_chunk::<8>()?;
            let (part, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            rest = after;
            Some(part)
        };
        let header = part().ok_or_else(|| broken("it ends in the header".into()))?;
        let header: Header = serde_json::from_slice(header).map_err(|error| broken(error.to_string()))?;
        if (&header.config, &header.shapes) != (&self.config, &self.shapes) {
            let told = format!(
                "weights of a latent model {:?} of images {:?}: expected {:?} of images {:?}",
                header.config, header.shapes.image, self.config, self.shapes.image
            );
            return Err(ModelError::Storage(told));
        }
        let mut network = self.network.clone();
        for network in network.all_mut() {
            let (values, rest) = part().ok_or_else(|| broken("it ends in its networks".into()))?.as_chunks();
            let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let count = network.config().parameters();
            if values.len() != count || !rest.is_empty() {
                return Err(broken(format!("{} parameters of a network, expected {count}", values.len())));
            }
            network.set_parameters(&values);
        }
        if !rest.is_empty() {
            return Err(broken(format!("{} bytes behind its networks", rest.len())));
        }
        self.network = network;
        self.statistics = header.statistics.map(|bits| {
            let [mean, std, pixels] = bits.map(f32::from_bits);
            LatentStatistics { mean, std, pixels }
        });
        self.changed();
        Ok(())
    }

    /// Draws new weights and forgets what was fitted.
    pub fn reinitialize(&mut self, rng: &mut Rng) {
        self.network = HostNetwork::new(&self.config, &self.shapes, rng);
        self.statistics = None;
        self.changed();
    }
}

#[cfg(all(test, feature = "train"))]
mod tests;
