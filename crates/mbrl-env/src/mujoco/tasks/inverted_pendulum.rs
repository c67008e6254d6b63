//! Gymnasium's InvertedPendulum-v5.

use std::{path::PathBuf, sync::Arc};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{WithinLimits, check_scale, check_sizes, following, info, joint_fields, uniform_noise},
};
use crate::{
    EnvError, Field, Reward, Rng,
    mujoco::{Camera, InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome},
    tasks::Task,
};

/// Largest angle of the pole (rad).
const LIMIT: f64 = 0.2;

/// Gymnasium 1.4.0's `InvertedPendulum-v5`, with its options and their defaults: balance a pole on a cart with a force.
///
/// Reward: 1 for each step that does not terminate the episode. It terminates when the pole leans by more than 0.2 rad. 1000 steps of
/// 0.04 s. The observation is (x, θ, ẋ, θ̇): all that batch reward and termination need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvertedPendulumConfig {
    /// The model: a Gymnasium file by its bare name, or a path.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Scale of the uniform noise at the start.
    pub reset_noise_scale: f64,
}

impl Default for InvertedPendulumConfig {
    fn default() -> Self {
        Self { xml_file: "inverted_pendulum.xml".into(), frame_skip: 2, reset_noise_scale: 0.01 }
    }
}

impl InvertedPendulumConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_scale("reset_noise_scale", self.reset_noise_scale)?;
        let upright = WithinLimits { limits: vec![(1, -LIMIT, LIMIT)], closed: true };
        let model = model(&self.xml_file)?;
        check_sizes(&model, 2, 1)?;
        Ok(Parts {
            name: name.to_owned(),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(InvertedPendulum { noise: self.reset_noise_scale }),
            reward: Some(Arc::new(UprightReward(upright.clone()))),
            termination: Some(Arc::new(upright)),
            max_steps: 1000,
        })
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// As [`tasks::make_with`](crate::tasks::make_with).
    pub fn init(&self) -> Result<MujocoEnv, EnvError> {
        self.parts("InvertedPendulum-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

struct InvertedPendulum {
    noise: f64,
}

impl Rules for InvertedPendulum {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        obs.extend(sim.qpos().iter().chain(sim.qvel()));
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        Some(joint_fields(model, 0))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, self.noise, rng);
        uniform_noise(qvel, self.noise, rng);
    }

    fn judge(&self, _: &[f64], sim: &Sim, _: &[f32]) -> StepOutcome {
        let fallen = sim.qpos()[1].abs() > LIMIT;
        let reward = if fallen { 0.0 } else { 1.0 };
        StepOutcome { reward, terminated: fallen, info: info([("reward_survive", reward)]) }
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "cart", 0.5, 3.0, -15.0)
    }
}

struct UprightReward(WithinLimits);

impl Reward for UprightReward {
    fn reward(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        self.0.holds(&next_obs).float()
    }
}
