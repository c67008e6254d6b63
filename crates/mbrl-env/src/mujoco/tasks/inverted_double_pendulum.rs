//! Gymnasium's InvertedDoublePendulum-v5.

use std::{path::PathBuf, sync::Arc};

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{check_numbers, check_scale, check_sizes, following, info, normal_noise, uniform_noise},
};
use crate::{
    EnvError, Field, Rng, Termination,
    field::with_unique_names,
    mujoco::{Camera, InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome},
    tasks::Task,
};

/// Gymnasium 1.4.0's `InvertedDoublePendulum-v5`, with its options and their defaults: balance two poles, one on the other,
/// on a cart with one motor.
///
/// Reward: `healthy_reward` while the tip is above 1 m, `− 0.01 x² − (y − 2)² − 0.001 θ̇₁² − 0.005 θ̇₂²`, where (x, y) is the
/// tip. The episode terminates when the tip is not above 1 m. 1000 steps of 0.05 s.
///
/// The observation holds `[x, sin θ₁, sin θ₂, cos θ₁, cos θ₂]` (θ₂ is relative to the lower pole), their three velocities and the
/// force on the cart's end stop, all four clipped to ±10. The tip is where the engine last computed it, within
/// its last step, and up to 0.1 mm away from that of the observation. There is therefore no batch reward, and the batch termination rule
/// ([`TipFalls`]) uses the observation's tip, which disagrees in about one episode in 500.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvertedDoublePendulumConfig {
    /// The model: a Gymnasium file by its bare name, or a path. The tip is its first site.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Reward of each step that does not terminate.
    pub healthy_reward: f64,
    /// Scale of the noise at the start: uniform on positions, Gaussian on velocities.
    pub reset_noise_scale: f64,
}

impl Default for InvertedDoublePendulumConfig {
    fn default() -> Self {
        Self {
            xml_file: "inverted_double_pendulum.xml".into(),
            frame_skip: 5,
            healthy_reward: 10.0,
            reset_noise_scale: 0.1,
        }
    }
}

impl InvertedDoublePendulumConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[("healthy_reward", self.healthy_reward)])?;
        check_scale("reset_noise_scale", self.reset_noise_scale)?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, 3, 3)?;
        let falls = TipFalls::of(&model)?;
        Ok(Parts {
            name: name.to_owned(),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(InvertedDoublePendulum {
                healthy_reward: self.healthy_reward,
                noise: self.reset_noise_scale,
            }),
            reward: None,
            termination: Some(Arc::new(falls)),
            max_steps: 1000,
        })
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// As [`tasks::make_with`](crate::tasks::make_with).
    pub fn init(&self) -> Result<MujocoEnv, EnvError> {
        self.parts("InvertedDoublePendulum-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

/// Terminates when the tip of two poles, computed from the sines and cosines of an observation, is not above a height: mbrl-lib's
/// rule for `InvertedDoublePendulum`.
#[derive(Debug, Clone, PartialEq)]
pub struct TipFalls {
    /// Lengths of the lower and the upper pole (m).
    pub poles: [f64; 2],
    /// The height (m).
    pub height: f64,
}

impl TipFalls {
    /// With the lengths of a model's poles.
    fn of(model: &Model) -> Result<Self, EnvError> {
        let inner = model.inner();
        let (Some(tip), Some(pole)) = (inner.site_pos().first(), inner.site_bodyid().first()) else {
            return Err(EnvError::Engine {
                reason: format!("{} has no site, expected one at the tip", model.origin()),
            });
        };
        Ok(Self { poles: [inner.body_pos()[*pole as usize][2], tip[2]], height: HEIGHT })
    }

    /// Height of the tip, `[N]`, from observations `[N, O]`.
    #[must_use]
    pub fn tip(&self, obs: &Tensor<2>) -> Tensor<1> {
        let column = |index: usize| obs.clone().select_dim::<1>(1, index);
        let (sin1, sin2, cos1, cos2) = (column(1), column(2), column(3), column(4));
        let upper = cos1.clone() * cos2 - sin1 * sin2;
        cos1 * self.poles[0] + upper * self.poles[1]
    }
}

impl Termination for TipFalls {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        // NaN is not above it.
        self.tip(&next_obs).greater_elem(self.height).bool_not()
    }
}

/// The tip must be above it (m).
const HEIGHT: f64 = 1.0;

struct InvertedDoublePendulum {
    healthy_reward: f64,
    noise: f64,
}

impl Rules for InvertedDoublePendulum {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let (x, angles) = (sim.qpos()[0], &sim.qpos()[1..]);
        obs.push(x);
        obs.extend(angles.iter().map(|angle| angle.sin()));
        obs.extend(angles.iter().map(|angle| angle.cos()));
        let force = sim.data().qfrc_constraint()[0];
        obs.extend(sim.qvel().iter().chain([&force]).map(|entry| entry.clamp(-10.0, 10.0)));
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let positions = model.position_fields();
        let of = |what: &str| -> Vec<Field> {
            positions[1..].iter().map(|field| Field::linear(format!("{what}_{}", field.name), "")).collect()
        };
        let force = vec![Field::linear(format!("{}_constraint_force", positions[0].name), "N")];
        let all = [&positions[..1], &of("sin"), &of("cos"), &model.velocity_fields(), &force].concat();
        Some(with_unique_names(all))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, self.noise, rng);
        normal_noise(qvel, self.noise, rng);
    }

    fn judge(&self, _: &[f64], sim: &Sim, _: &[f32]) -> StepOutcome {
        let [x, _, y] = sim.site_xpos(0);
        let (lower, upper) = (sim.qvel()[1], sim.qvel()[2]);
        let terminated = y <= HEIGHT;
        let survive = if terminated { 0.0 } else { self.healthy_reward };
        let distance = 0.01 * (x * x) + (y - 2.0) * (y - 2.0);
        let speed = 1e-3 * (lower * lower) + 5e-3 * (upper * upper);
        StepOutcome {
            reward: survive - distance - speed,
            terminated,
            info: info([("reward_survive", survive), ("distance_penalty", -distance), ("velocity_penalty", -speed)]),
        }
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "cart", 0.5, 3.0, -15.0)
    }
}
