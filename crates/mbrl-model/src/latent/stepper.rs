//! Optimizer steps of a latent model on the host: the loss of [`loss`](crate::Fit::loss) with its gradient by hand, through time.

use super::{
    LatentConfig, LatentModel,
    network::{HostNetwork, LatentNetwork, joined},
    train::LatentExamples,
};
use crate::{
    Device, FitBatch, Stepper,
    mlp::{Adam, AdamConfig, Pass, Rows, Tape},
};

#[derive(Debug)]
pub(super) struct HostStepper {
    config: LatentConfig,
    network: HostNetwork,
    examples: LatentExamples,
    device: Device,
    /// Of the convolutions, the trunk, the dynamics and the decoder.
    adams: Vec<Adam>,
    stages: Vec<Tape>,
    trunk: Tape,
    /// One for each step of a window.
    dynamics: Vec<Tape>,
    decoder: Tape,
    /// Scratch.
    images: Vec<f32>,
}

/// Latents `[B, S]` at a step of a window.
struct Latents {
    values: Vec<f32>,
    /// What [`LatentNorm::back`](super::LatentNorm) needs.
    scales: Vec<f32>,
    gradients: Vec<f32>,
}

impl HostStepper {
    pub(super) fn new(model: &LatentModel, examples: LatentExamples) -> Self {
        let network = model.network.clone();
        let adam = AdamConfig::default();
        Self {
            adams: network.all().map(|mlp| Adam::new(mlp, adam.clone())).collect(),
            stages: vec![Tape::new(); network.stages.len()],
            trunk: Tape::new(),
            dynamics: vec![Tape::new(); model.config.window],
            decoder: Tape::new(),
            config: model.config.clone(),
            device: model.spec.device.clone(),
            network,
            examples,
            images: Vec::new(),
        }
    }

    /// The latents of the first frames, with tapes.
    fn encode(&mut self, rows: &[usize]) -> Latents {
        self.images.clear();
        self.examples.images(rows, 0, &mut self.images);
        let mut said = std::mem::take(&mut self.images);
        for (stage, tape) in self.network.stages.iter().zip(&mut self.stages) {
            let next = stage.forward(Rows::Shared(&said), Pass::Infer, Some(tape));
            let used = std::mem::replace(&mut said, next);
            if self.images.capacity() < used.capacity() {
                self.images = used;
            }
        }
        let said = self.network.trunk.forward(Rows::Shared(&said), Pass::Infer, Some(&mut self.trunk));
        self.normalised(said)
    }

    fn normalised(&self, mut values: Vec<f32>) -> Latents {
        let mut scales = Vec::new();
        self.network.norm.forward(&mut values, self.network.width(), &mut scales);
        Latents { gradients: vec![0.0; values.len()], values, scales }
    }

    /// The encodings of the frames of each step but the first.
    fn seen(&mut self, rows: &[usize]) -> Vec<f32> {
        self.images.clear();
        for step in 1..=self.config.window {
            self.examples.images(rows, step, &mut self.images);
        }
        self.network.encode(&self.images)
    }

    /// The decoder's loss on the first and the last latents, its step, and what it makes of their gradients.
    fn reconstruct(&mut self, rows: &[usize], trajectory: &mut [Latents]) -> f64 {
        let last = self.config.window;
        let mut latents = trajectory[0].values.clone();
        latents.extend_from_slice(&trajectory[last].values);
        let mut wanted = Vec::with_capacity(2 * rows.len() * self.examples.pixels);
        self.examples.newest(rows, 0, &mut wanted);
        self.examples.newest(rows, last, &mut wanted);
        let mut said = self.network.decoder.forward(Rows::Shared(&latents), Pass::Infer, Some(&mut self.decoder));
        // The mean over both steps, windows and pixels.
        let weight = self.config.reconstruction * self.examples.precision / said.len() as f32;
        let loss = pull(&mut said, &wanted, weight);
        let adam = self.adams.last_mut().expect("the decoder's");
        let gradients = self.network.decoder.step(&mut self.decoder, &said, true, adam).unwrap_or_default();
        let (front, back) = gradients.split_at(gradients.len() / 2);
        add(&mut trajectory[0].gradients, front);
        add(&mut trajectory[last].gradients, back);
        loss
    }
}

/// Values become gradients of `weight` times their squared distance, which is returned.
fn pull(values: &mut [f32], to: &[f32], weight: f32) -> f64 {
    let mut sum = 0.0;
    for (values, to) in values.chunks_mut(1024).zip(to.chunks(1024)) {
        let mut part = 0.0;
        for (value, to) in values.iter_mut().zip(to) {
            let error = *value - to;
            part += error * error;
            *value = 2.0 * weight * error;
        }
        sum += f64::from(part);
    }
    f64::from(weight) * sum
}

fn add(to: &mut [f32], what: &[f32]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}

impl Stepper<LatentNetwork> for HostStepper {
    fn set_learning_rate(&mut self, rate: f64) {
        self.adams.iter_mut().for_each(|adam| adam.set_learning_rate(rate as f32));
    }

    fn step(&mut self, batch: &FitBatch<'_>) -> f32 {
        let rows = batch.rows;
        let (count, width, action) = (rows.len(), self.network.width(), self.examples.action);
        let mut loss = 0.0;
        let seen = if self.config.consistency > 0.0 { self.seen(rows) } else { Vec::new() };
        let mut trajectory = vec![self.encode(rows)];
        let mut of_rewards = Vec::with_capacity(self.config.window);
        let shares = self.config.shares();
        for (step, share) in shares.iter().enumerate() {
            let inputs = joined(&trajectory[step].values, &self.examples.actions(rows, step), width, action);
            let said =
                self.network.dynamics.forward(Rows::Shared(&inputs), Pass::Infer, Some(&mut self.dynamics[step]));
            let (next, mut rewards) = self.network.split(&inputs, &said);
            let mut next = self.normalised(next);
            loss += pull(&mut rewards, &self.examples.rewards(rows, step), self.config.reward * share / count as f32);
            of_rewards.push(rewards);
            if self.config.consistency > 0.0 {
                let seen = &seen[step * count * width..][..count * width];
                next.gradients.copy_from_slice(&next.values);
                loss += pull(&mut next.gradients, seen, self.config.consistency * share / (count * width) as f32);
            }
            trajectory.push(next);
        }
        if self.config.reconstruction > 0.0 {
            loss += self.reconstruct(rows, &mut trajectory);
        }

        let Self { network, adams, dynamics, .. } = self;
        let norm = network.norm;
        for step in (0..of_rewards.len()).rev() {
            let (before, after) = trajectory.split_at_mut(step + 1);
            let (latents, next) = (&mut before[step], &mut after[0]);
            norm.back(&next.values, width, &next.scales, &mut next.gradients);
            let mut of_outputs = Vec::with_capacity(count * (width + 1));
            for (gradients, reward) in next.gradients.chunks_exact(width).zip(&of_rewards[step]) {
                of_outputs.extend_from_slice(gradients);
                of_outputs.push(*reward);
            }
            let of_inputs = network.dynamics.go_back(&mut dynamics[step], &of_outputs, true).unwrap_or_default();
            for (gradients, row) in
                latents.gradients.chunks_exact_mut(width).zip(of_inputs.chunks_exact(width + action))
            {
                add(gradients, &row[..width]);
            }
            if norm.adds() {
                add(&mut latents.gradients, &next.gradients);
            }
        }
        let convolutions = network.stages.len();
        network.dynamics.step_over(dynamics, &mut adams[convolutions + 1]);
        let Latents { values, scales, mut gradients } = trajectory.swap_remove(0);
        norm.back(&values, width, &scales, &mut gradients);
        let mut gradients = network.trunk.step(&mut self.trunk, &gradients, true, &mut adams[convolutions]);
        for (i, (stage, tape)) in network.stages.iter_mut().zip(&mut self.stages).enumerate().rev() {
            let of_outputs = gradients.unwrap_or_default();
            gradients = stage.step(tape, &of_outputs, i > 0, &mut adams[i]);
        }
        loss as f32
    }

    fn errors(&self, rows: &[usize]) -> Vec<Vec<f32>> {
        vec![self.examples.errors(&self.network, &self.config, rows).to_vec()]
    }

    fn parameters(&self) -> LatentNetwork {
        self.network.to_module(&self.device)
    }
}
