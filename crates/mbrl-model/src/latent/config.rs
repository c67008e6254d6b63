//! Configuration of a latent model and of its loss.

use std::borrow::Cow;

use mbrl_env::{ActionSpace, EnvSpec, FieldKind, Rng};
use serde::{Deserialize, Serialize};

use super::LatentModel;
use crate::{
    Device, ModelError,
    mlp::{Activation, MlpConfig},
};

/// What keeps latents at one scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatentNorm {
    /// Mean 0 and variance 1 over a latent's entries; a step predicts a change, which is added before the sum is normalised.
    Layer,
    /// Groups of 8 entries that are positive and sum to 1 (SimNorm, TD-MPC2 \[2\]); a step predicts new logits.
    Simplex,
}

/// A model of images: an encoder of some successive frames, dynamics and rewards in its latent space, and a decoder.
///
/// Made by [`init_for`](Self::init_for), for an environment that observes pixels.
///
/// ## References
/// \[1\] Hafner et al. (2019), *Learning Latent Dynamics for Planning from Pixels* (PlaNet), ICML.
/// \[2\] Hansen, Su, Wang (2024), *TD-MPC2: Scalable, Robust World Models for Continuous Control*, ICLR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatentConfig {
    /// Successive frames that are encoded together, 1 to 4 (default 2: one shows no speeds). At the beginning of an episode, copies of
    /// the first one stand in for those before it.
    pub frames: usize,
    /// Side of the squares that the first convolution looks at, in pixels; they do not overlap (default 4).
    pub patch: usize,
    /// Channels after each convolution (default `[16, 16]`). The second and later ones join 2 × 2 places each. Every convolution has a
    /// hidden layer four times as wide.
    pub channels: Vec<usize>,
    /// Hidden layers between the convolutions and the latent (default `[256]`).
    pub encoder: Vec<usize>,
    /// Width of the latent, `S` (default 64).
    pub latent: usize,
    /// What keeps latents at one scale (default `"layer"`).
    pub norm: LatentNorm,
    /// Hidden layers of the dynamics, which also predict the reward; they are normalised (default `[256, 256]`).
    pub hidden: Vec<usize>,
    /// Hidden layers of the decoder (default `[256]`).
    pub decoder: Vec<usize>,
    /// Activation of all hidden layers (default `"silu"`).
    pub activation: Activation,
    /// Steps of a window that it is fitted to, `H` (default 8): the first frames are encoded, and what follows is predicted from the actions alone.
    pub window: usize,
    /// Weight of the squared distance between predicted latents and those encoded from the frames that were seen (default 1; \[2\]: 20 on simplices).
    pub consistency: f32,
    /// Weight of the squared error of rewards, in standard deviations (default 1).
    pub reward: f32,
    /// Weight of the squared error of decoded pixels, in standard deviations over all pixels (default 1). With 0 the decoder is not fitted,
    /// and latents need not keep what it would need.
    pub reconstruction: f32,
    /// Weight of each step of a window relative to that of the step before, in (0, 1] (default 1; \[2\]: 0.5).
    pub fading: f32,
}

impl Default for LatentConfig {
    fn default() -> Self {
        Self {
            frames: 2,
            patch: 4,
            channels: vec![16, 16],
            encoder: vec![256],
            latent: 64,
            norm: LatentNorm::Layer,
            hidden: vec![256, 256],
            decoder: vec![256],
            activation: Activation::Silu,
            window: 8,
            consistency: 1.0,
            reward: 1.0,
            reconstruction: 1.0,
            fading: 1.0,
        }
    }
}

/// Entries of a group of [`LatentNorm::Simplex`].
pub(super) const GROUP: usize = 8;

/// What is seen and done: shapes that do not depend on the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shapes {
    /// `[height, width, channels]` of a frame.
    pub(super) image: [usize; 3],
    /// Middle and half range of each action, `[A]`: the dynamics see actions within ±1.
    pub(super) middle: Vec<f32>,
    pub(super) half_range: Vec<f32>,
}

impl Shapes {
    pub(super) fn pixels(&self) -> usize {
        self.image.iter().product()
    }

    pub(super) fn action(&self) -> usize {
        self.middle.len()
    }

    /// Actions `[N, A]` in the environment's units become those within ±1.
    pub(super) fn scale(&self, actions: &mut [f32]) {
        for row in actions.chunks_exact_mut(self.action()) {
            for ((value, middle), half) in row.iter_mut().zip(&self.middle).zip(&self.half_range) {
                *value = (*value - middle) / half;
            }
        }
    }
}

/// Sizes of all networks.
#[derive(Debug, Clone)]
pub(super) struct Networks {
    pub(super) stages: Vec<MlpConfig>,
    pub(super) trunk: MlpConfig,
    pub(super) dynamics: MlpConfig,
    pub(super) decoder: MlpConfig,
}

impl LatentConfig {
    /// Checks every rule that does not depend on the images.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the field.
    pub fn validate(&self) -> Result<(), ModelError> {
        let rule = |ok: bool, field, value: &dyn std::fmt::Debug, rule| match ok {
            true => Ok(()),
            false => Err(ModelError::Config { field, value: format!("{value:?}"), rule: Cow::Borrowed(rule) }),
        };
        let positive = |widths: &[usize]| widths.iter().all(|width| *width > 0);
        rule((1..=4).contains(&self.frames), "frames", &self.frames, "1 to 4 frames")?;
        rule(self.patch > 0, "patch", &self.patch, "at least 1 pixel")?;
        rule(
            positive(&self.channels) && !self.channels.is_empty(),
            "channels",
            &self.channels,
            "at least one convolution, each of at least 1 channel",
        )?;
        rule(positive(&self.encoder), "encoder", &self.encoder, "widths of at least 1")?;
        rule(positive(&self.hidden), "hidden", &self.hidden, "widths of at least 1")?;
        rule(positive(&self.decoder), "decoder", &self.decoder, "widths of at least 1")?;
        rule(self.latent > 1, "latent", &self.latent, "at least 2")?;
        let groups = self.norm != LatentNorm::Simplex || self.latent.is_multiple_of(GROUP);
        rule(groups, "latent", &self.latent, "a multiple of 8 with norm = \"simplex\"")?;
        rule((1..=64).contains(&self.window), "window", &self.window, "1 to 64 steps")?;
        let weight = |weight: f32| weight.is_finite() && weight >= 0.0;
        for (field, value) in [("consistency", self.consistency), ("reconstruction", self.reconstruction)] {
            rule(weight(value), field, &value, "a finite number of at least 0")?;
        }
        rule(weight(self.reward) && self.reward > 0.0, "reward", &self.reward, "a positive finite number")?;
        rule(self.fading > 0.0 && self.fading <= 1.0, "fading", &self.fading, "a number in (0, 1]")
    }

    /// A model with fresh weights, for an environment that observes one field of pixels, `[height, width]` or `[height, width, channels]`.
    ///
    /// ```
    /// use mbrl_env::{Env, tasks};
    /// use mbrl_model::{Device, Dynamics, LatentConfig, Rng};
    ///
    /// let task = tasks::make("pendulum-pixels")?;
    /// let model = LatentConfig::default().init_for(task.env.spec(), &Device::flex(), &mut Rng::new(0))?;
    /// assert_eq!((model.spec().obs, model.spec().state), (32 * 32, 64));
    ///
    /// let numbers = tasks::make("pendulum")?;
    /// let error = LatentConfig::default().init_for(numbers.env.spec(), &Device::flex(), &mut Rng::new(0)).unwrap_err();
    /// assert!(error.to_string().starts_with("observation = cos_angle, sin_angle, angular_velocity: expected one field of pixels"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError::Config`] for a value that breaks a rule, for observations that are not an image, and for an image that the
    /// convolutions do not divide into squares.
    pub fn init_for(&self, spec: &EnvSpec, device: &Device, rng: &mut Rng) -> Result<LatentModel, ModelError> {
        self.validate()?;
        let shapes = self.shapes(spec)?;
        Ok(LatentModel::new(self.clone(), shapes, device, rng))
    }

    fn shapes(&self, spec: &EnvSpec) -> Result<Shapes, ModelError> {
        let refuse = |field, value: String, rule: String| Err(ModelError::Config { field, value, rule: rule.into() });
        let image = match &spec.fields[..] {
            [field] if field.kind == FieldKind::Pixels => match field.shape[..] {
                [height, width] => Some([height, width, 1]),
                [height, width, channels] => Some([height, width, channels]),
                _ => None,
            },
            _ => None,
        };
        let Some(image) = image else {
            let names: Vec<&str> = spec.fields.iter().map(|field| &*field.name).collect();
            let rule = "one field of pixels, [height, width, channels]: a latent model sees images, as those of the task pendulum-pixels";
            return refuse("observation", names.join(", "), rule.into());
        };
        // What one place after all convolutions has seen.
        let unit = self.patch << (self.channels.len() - 1);
        if image[2] == 0 || image[..2].iter().any(|side| *side == 0 || !side.is_multiple_of(unit)) {
            let rule = format!(
                "sides that are multiples of {unit} pixels (patch = {}, doubled by each further of {} convolutions)",
                self.patch,
                self.channels.len()
            );
            return refuse("image", format!("{} × {}", image[1], image[0]), rule);
        }
        let (middle, half_range) = match &spec.actions {
            ActionSpace::Box(space) => space
                .low()
                .iter()
                .zip(space.high())
                .map(|(low, high)| match (high - low).is_finite() && high > low {
                    true => (0.5 * (low + high), 0.5 * (high - low)),
                    false => (0.0, 1.0),
                })
                .unzip(),
            // The index of a choice.
            ActionSpace::Discrete(choices) => {
                let half = (*choices as f32 - 1.0) / 2.0;
                (vec![half], vec![half.max(1.0)])
            }
            _ => (vec![0.0; spec.actions.width()], vec![1.0; spec.actions.width()]),
        };
        Ok(Shapes { image, middle, half_range })
    }

    /// Places after all convolutions.
    fn places(&self, shapes: &Shapes) -> usize {
        let unit = self.patch << (self.channels.len() - 1);
        (shapes.image[0] / unit) * (shapes.image[1] / unit)
    }

    pub(super) fn networks(&self, shapes: &Shapes) -> Networks {
        let plain = |inputs: usize, hidden: Vec<usize>, outputs: usize| MlpConfig {
            activation: self.activation,
            ..MlpConfig::new(inputs, hidden, outputs)
        };
        let mut inputs = self.patch * self.patch * shapes.image[2] * self.frames;
        let stages = self.channels.iter().map(|channels| {
            let stage = plain(inputs, vec![4 * channels], *channels);
            inputs = 4 * channels;
            stage
        });
        let stages: Vec<MlpConfig> = stages.collect();
        let last = self.channels.last().copied().unwrap_or_default();
        Networks {
            stages,
            trunk: plain(self.places(shapes) * last, self.encoder.clone(), self.latent),
            // What the latent becomes, and the reward.
            dynamics: MlpConfig {
                layer_norm: true,
                ..plain(self.latent + shapes.action(), self.hidden.clone(), self.latent + 1)
            },
            decoder: plain(self.latent, self.decoder.clone(), shapes.pixels()),
        }
    }
}
