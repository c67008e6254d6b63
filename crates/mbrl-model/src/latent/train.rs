//! What a latent model is fitted to, and its loss: in Burn, where it is defined.

use burn::tensor::{Tensor, TensorData};

use super::{
    LatentConfig, LatentModel, LatentStatistics,
    config::Shapes,
    images::{Patches, byte, scaled},
    network::{HostNetwork, LatentNetwork},
    stepper::HostStepper,
};
use crate::{Dataset, Device, Examples, Fit, FitBatch, FitConfig, ModelError, Stepper, dynamics::check_size, is_cpu};

/// Windows that errors are taken over at most: neighbours are nearly copies of each other.
const JUDGED: usize = 512;

/// Windows of episodes: each frame once, in bytes.
#[derive(Debug, Clone)]
pub struct LatentExamples {
    pub(super) patches: Patches,
    pub(super) pixels: usize,
    /// `[F, pixels]`: those of an episode follow each other, one more than it has transitions.
    pub(super) frames: Vec<u8>,
    pub(super) windows: Vec<Window>,
    /// The episode of each window, `[W]`.
    episodes: Vec<usize>,
    /// Windows that touch a row which the data holds out.
    holdout: Option<Vec<usize>>,
    /// `[N, A]`, within ±1.
    pub(super) actions: Vec<f32>,
    /// `[N]`, in standard deviations.
    pub(super) rewards: Vec<f32>,
    pub(super) action: usize,
    pub(super) stack: usize,
    /// 1 over the variance of pixels.
    pub(super) precision: f32,
}

/// Where a window begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Its first transition.
    pub(super) row: usize,
    /// The frame before that.
    pub(super) frame: usize,
    /// The first frame of the episode.
    pub(super) first: usize,
}

impl Examples for LatentExamples {
    fn count(&self) -> usize {
        self.windows.len()
    }

    fn holdout(&self) -> Option<&[usize]> {
        self.holdout.as_deref()
    }

    /// Windows of an episode share frames.
    fn groups(&self) -> Option<&[usize]> {
        Some(&self.episodes)
    }
}

impl LatentExamples {
    fn new(
        data: &Dataset,
        config: &LatentConfig,
        shapes: &Shapes,
        statistics: &LatentStatistics,
    ) -> Result<Self, ModelError> {
        let (pixels, a) = (shapes.pixels(), shapes.action());
        let rewards = data.rewards().ok_or(ModelError::MissingData { what: "rewards" })?;
        let mut frames = Vec::with_capacity((data.len() + data.episodes().count()) * pixels);
        let (mut windows, mut episodes) = (Vec::new(), Vec::new());
        for (number, episode) in data.episodes().enumerate() {
            let first = frames.len() / pixels;
            let count = (episode.len() + 1).saturating_sub(config.window);
            windows.extend((0..count).map(|i| Window { row: episode.start + i, frame: first + i, first }));
            episodes.resize(windows.len(), number);
            let seen = &data.obs()[episode.start * pixels..episode.end * pixels];
            let last = &data.next_obs()[(episode.end - 1) * pixels..][..pixels];
            frames.extend(seen.iter().chain(last).map(|level| byte(*level)));
        }
        let starts: Vec<usize> = windows.iter().map(|window| window.row).collect();
        let holdout = data.held_windows(&starts, config.window);
        let mut actions = data.actions().to_vec();
        shapes.scale(&mut actions);
        Ok(Self {
            patches: config.patches(shapes),
            pixels,
            frames,
            windows,
            episodes,
            holdout,
            actions,
            rewards: rewards.iter().map(|reward| (reward - statistics.mean) / statistics.std).collect(),
            action: a,
            stack: config.frames,
            precision: 1.0 / statistics.pixels,
        })
    }

    /// The images `[B, …]` of some windows after so many steps, in the order of the first convolution.
    pub(super) fn images(&self, rows: &[usize], steps: usize, into: &mut Vec<f32>) {
        let length = self.patches.len();
        let before = into.len();
        into.resize(before + rows.len() * length, 0.0);
        for (image, row) in into[before..].chunks_exact_mut(length).zip(rows) {
            let Window { frame, first, .. } = self.windows[*row];
            for number in 0..self.stack {
                let frame = (frame + steps + number + 1).saturating_sub(self.stack).max(first);
                let frame = &self.frames[frame * self.pixels..][..self.pixels];
                self.patches.put(frame, number, image, |level| scaled(f32::from(level)));
            }
        }
    }

    /// The newest frames `[B, pixels]` of some windows after so many steps, within ±½.
    pub(super) fn newest(&self, rows: &[usize], steps: usize, into: &mut Vec<f32>) {
        for row in rows {
            let frame = self.windows[*row].frame + steps;
            into.extend(self.frames[frame * self.pixels..][..self.pixels].iter().map(|x| scaled(f32::from(*x))));
        }
    }

    /// The actions `[B, A]` of some windows at a step.
    pub(super) fn actions(&self, rows: &[usize], step: usize) -> Vec<f32> {
        rows.iter()
            .flat_map(|row| &self.actions[(self.windows[*row].row + step) * self.action..][..self.action])
            .copied()
            .collect()
    }

    /// The rewards `[B]` of some windows at a step.
    pub(super) fn rewards(&self, rows: &[usize], step: usize) -> Vec<f32> {
        rows.iter().map(|row| self.rewards[self.windows[*row].row + step]).collect()
    }

    /// Mean squared errors over windows: of latents, and of rewards.
    pub(super) fn errors(&self, network: &HostNetwork, config: &LatentConfig, rows: &[usize]) -> [f32; 2] {
        let stride = rows.len().div_ceil(JUDGED).max(1);
        let rows: Vec<usize> = rows.iter().step_by(stride).copied().collect();
        let mut images = Vec::new();
        self.images(&rows, 0, &mut images);
        let mut latents = network.encode(&images);
        let (mut of_latents, mut of_rewards) = (0.0, 0.0);
        let square_sum = |found: &[f32], wanted: &[f32]| -> f64 {
            found.iter().zip(wanted).map(|(found, wanted)| f64::from(found - wanted).powi(2)).sum()
        };
        for step in 0..config.window {
            let inputs = super::network::joined(&latents, &self.actions(&rows, step), network.width(), self.action);
            let (next, rewards) = network.step(&inputs);
            of_rewards += square_sum(&rewards, &self.rewards(&rows, step));
            images.clear();
            self.images(&rows, step + 1, &mut images);
            of_latents += square_sum(&next, &network.encode(&images));
            latents = next;
        }
        let count = (rows.len() * config.window) as f64;
        [(of_latents / (count * network.width() as f64)) as f32, (of_rewards / count) as f32]
    }
}

impl LatentStatistics {
    /// Of data; what never changes counts as of deviation 1.
    fn of(data: &Dataset) -> Result<Self, ModelError> {
        let rewards = data.rewards().ok_or(ModelError::MissingData { what: "rewards" })?;
        let moments = |values: &mut dyn Iterator<Item = f32>| {
            let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
            for value in values {
                let value = f64::from(value);
                (count, sum, squares) = (count + 1.0, sum + value, squares + value * value);
            }
            let mean = sum / count;
            (mean as f32, (squares / count - mean * mean).max(0.0) as f32)
        };
        let (mean, variance) = moments(&mut rewards.iter().copied());
        let (_, pixels) = moments(&mut data.obs().iter().map(|level| scaled(*level)));
        let sound = |variance: f32, least: f32| if variance > least { variance } else { 1.0 };
        Ok(Self { mean, std: sound(variance, 1e-12).sqrt(), pixels: sound(pixels, 1e-6) })
    }
}

impl Fit for LatentModel {
    type Data = Dataset;
    type Examples = LatentExamples;
    type Parameters = LatentNetwork;
    type Statistics = LatentStatistics;

    fn name(&self) -> &str {
        &self.spec.name
    }

    fn members(&self) -> usize {
        1
    }

    fn prepare(&self, data: &Dataset) -> Result<(LatentExamples, LatentStatistics), ModelError> {
        check_size("pixels of the observed images", self.spec.obs, data.obs_width())?;
        check_size("columns of actions", self.spec.action, data.action_width())?;
        let statistics = match self.statistics {
            Some(statistics) => statistics,
            None => LatentStatistics::of(data)?,
        };
        Ok((LatentExamples::new(data, &self.config, &self.shapes, &statistics)?, statistics))
    }

    fn parameters(&self) -> LatentNetwork {
        self.network.to_module(&self.spec.device)
    }

    fn loss(&self, parameters: &LatentNetwork, examples: &LatentExamples, batch: &FitBatch<'_>) -> Tensor<1> {
        let (rows, device, config) = (batch.rows, &self.spec.device, &self.config);
        let tensor = |values: Vec<f32>| to_rows(values, rows.len(), device);
        let images = |step| {
            let mut images = Vec::new();
            examples.images(rows, step, &mut images);
            tensor(images)
        };
        let newest = |step| {
            let mut frames = Vec::new();
            examples.newest(rows, step, &mut frames);
            tensor(frames)
        };
        let decoded = |latents: Tensor<2>, step| {
            let error = (parameters.decode(latents) - newest(step)).square().mean();
            error * (0.5 * config.reconstruction * examples.precision)
        };
        let mut latents = parameters.encode(images(0));
        let mut loss = Tensor::zeros([1], device);
        if config.reconstruction > 0.0 {
            loss = loss + decoded(latents.clone(), 0);
        }
        for (step, share) in config.shares().into_iter().enumerate() {
            let (next, rewards) = parameters.step(latents, tensor(examples.actions(rows, step)));
            let wanted = tensor(examples.rewards(rows, step)).squeeze_dim::<1>(1);
            loss = loss + (rewards - wanted).square().mean() * (config.reward * share);
            if config.consistency > 0.0 {
                let seen = parameters.encode(images(step + 1)).detach();
                loss = loss + (next.clone() - seen).square().mean() * (config.consistency * share);
            }
            latents = next;
        }
        if config.reconstruction > 0.0 {
            loss = loss + decoded(latents, config.window);
        }
        loss
    }

    fn error(&self, parameters: &LatentNetwork, examples: &LatentExamples, rows: &[usize]) -> Tensor<2> {
        let errors = examples.errors(&HostNetwork::of(parameters), &self.config, rows);
        Tensor::from_floats([errors], &self.spec.device)
    }

    fn choose(old: LatentNetwork, new: LatentNetwork, take: &[bool]) -> LatentNetwork {
        if take.contains(&true) { new } else { old }
    }

    fn stepper(&self, examples: &LatentExamples, config: &FitConfig) -> Option<Box<dyn Stepper<LatentNetwork>>> {
        if !is_cpu(&self.spec.device) || config.grad_clip > 0.0 {
            return None;
        }
        Some(Box::new(HostStepper::new(self, examples.clone())))
    }

    fn finish(&mut self, parameters: LatentNetwork, statistics: LatentStatistics, _: &[f32]) {
        self.network = HostNetwork::of(&parameters);
        self.statistics = Some(statistics);
        self.changed();
    }
}

impl LatentConfig {
    pub(super) fn patches(&self, shapes: &Shapes) -> Patches {
        Patches::new(shapes, self.patch, self.channels.len(), self.frames)
    }

    /// What each step of a window counts; they sum to 1.
    pub(super) fn shares(&self) -> Vec<f32> {
        let counts: Vec<f32> = (0..self.window).map(|step| self.fading.powi(step as i32)).collect();
        let sum: f32 = counts.iter().sum();
        counts.into_iter().map(|count| count / sum).collect()
    }
}

/// `[rows, …]`.
pub(super) fn to_rows(values: Vec<f32>, rows: usize, device: &Device) -> Tensor<2> {
    let width = values.len() / rows.max(1);
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}
