//! Gymnasium's HalfCheetah-v5.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{
        RunnerReward, Running, check_numbers, check_scale, check_sizes, control_cost, following, info, joint_fields,
        normal_noise, uniform_noise,
    },
};
use crate::{
    EnvError, Field, Reward, Rng,
    mujoco::{Camera, InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome},
    tasks::Task,
};

/// Gymnasium 1.4.0's `HalfCheetah-v5`, with its options and their defaults: run forward, in the plane, with six motors.
///
/// Reward: `forward_reward_weight · Δx / dt − ctrl_cost_weight · ‖a‖²`. Never terminates; 1000 steps of 0.05 s.
///
/// The observation holds positions, `[x, z, pitch, 6 joints]`, and as many velocities; the first position, which a batch reward
/// needs, is left out by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HalfCheetahConfig {
    /// The model: a Gymnasium file by its bare name, or a path.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Weight of the velocity.
    pub forward_reward_weight: f64,
    /// Weight of the squared controls.
    pub ctrl_cost_weight: f64,
    /// Scale of the noise at the start: uniform on positions, Gaussian on velocities.
    pub reset_noise_scale: f64,
    /// Whether to leave the position along the track out of the observation.
    pub exclude_current_positions_from_observation: bool,
}

impl Default for HalfCheetahConfig {
    fn default() -> Self {
        Self {
            xml_file: "half_cheetah.xml".into(),
            frame_skip: 5,
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 0.1,
            reset_noise_scale: 0.1,
            exclude_current_positions_from_observation: true,
        }
    }
}

impl HalfCheetahConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[
            ("forward_reward_weight", self.forward_reward_weight),
            ("ctrl_cost_weight", self.ctrl_cost_weight),
        ])?;
        check_scale("reset_noise_scale", self.reset_noise_scale)?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, 1, 1)?;
        let period = model.timestep() * f64::from(self.frame_skip);
        let reward = (!self.exclude_current_positions_from_observation).then(|| -> Arc<dyn Reward> {
            Arc::new(RunnerReward {
                position: 0,
                period,
                forward: self.forward_reward_weight,
                control: self.ctrl_cost_weight,
                healthy: None,
            })
        });
        Ok(Parts {
            name: name.to_owned(),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(HalfCheetah { config: self.clone(), period }),
            reward,
            termination: None,
            max_steps: 1000,
        })
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// As [`tasks::make_with`](crate::tasks::make_with).
    pub fn init(&self) -> Result<MujocoEnv, EnvError> {
        self.parts("HalfCheetah-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

struct HalfCheetah {
    config: HalfCheetahConfig,
    period: f64,
}

impl Rules for HalfCheetah {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let skipped = usize::from(self.config.exclude_current_positions_from_observation);
        obs.extend_from_slice(&sim.qpos()[skipped..]);
        obs.extend_from_slice(sim.qvel());
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        Some(joint_fields(model, usize::from(self.config.exclude_current_positions_from_observation)))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, self.config.reset_noise_scale, rng);
        normal_noise(qvel, self.config.reset_noise_scale, rng);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        measured.push(sim.qpos()[0]);
    }

    fn judge(&self, before: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let x = sim.qpos()[0];
        let speed = (x - before[0]) / self.period;
        let forward = self.config.forward_reward_weight * speed;
        let control = control_cost(self.config.ctrl_cost_weight, action);
        let info = info([("x_position", x), ("x_velocity", speed)]);
        Running { forward, control, ..Running::default() }.judge(false, info)
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "torso", 0.5, 4.0, -45.0)
    }
}
