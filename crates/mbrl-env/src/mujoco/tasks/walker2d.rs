//! Gymnasium's Walker2d-v5.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Parts,
    legged::{Legged, within},
    model,
    parts::{WithinLimits, check_numbers, check_range, check_scale, check_sizes},
};
use crate::{
    EnvError,
    mujoco::{MujocoEnv, Sim},
    tasks::Task,
};

/// Gymnasium 1.4.0's `Walker2d-v5`, with its options and their defaults: walk forward on two legs, in the plane, with six
/// motors, without falling.
///
/// Reward: `healthy_reward` while healthy, `+ forward_reward_weight · Δx / dt − ctrl_cost_weight · ‖a‖²`. The episode terminates when
/// the walker is not healthy: height or pitch is outside its range. 1000 steps of 0.008 s.
///
/// The observation holds positions, `[x, z, pitch, 6 joints]`, and as many velocities, clipped to ±10; the first position, which a
/// batch reward needs, is left out by default. Walking legs turn faster than 10 rad/s, so an
/// observation does not hold the full state unless `clip_velocities` is false.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Walker2dConfig {
    /// The model: a Gymnasium file by its bare name, or a path.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Weight of the velocity.
    pub forward_reward_weight: f64,
    /// Weight of the squared controls.
    pub ctrl_cost_weight: f64,
    /// Reward of each step that ends healthy.
    pub healthy_reward: f64,
    /// Whether an unhealthy state ends the episode.
    pub terminate_when_unhealthy: bool,
    /// Open range of the height (m).
    pub healthy_z_range: (f64, f64),
    /// Open range of the pitch (rad).
    pub healthy_angle_range: (f64, f64),
    /// Scale of the uniform noise at the start.
    pub reset_noise_scale: f64,
    /// Whether to leave the position along the track out of the observation.
    pub exclude_current_positions_from_observation: bool,
    /// Whether to clip the velocities of the observation to ±10 (m/s, rad/s), as Gymnasium always does. Without clipping, one
    /// observation holds the full state.
    pub clip_velocities: bool,
}

impl Default for Walker2dConfig {
    fn default() -> Self {
        Self {
            xml_file: "walker2d_v5.xml".into(),
            frame_skip: 4,
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 1e-3,
            healthy_reward: 1.0,
            terminate_when_unhealthy: true,
            healthy_z_range: (0.8, 2.0),
            healthy_angle_range: (-1.0, 1.0),
            reset_noise_scale: 5e-3,
            exclude_current_positions_from_observation: true,
            clip_velocities: true,
        }
    }
}

impl Walker2dConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[
            ("forward_reward_weight", self.forward_reward_weight),
            ("ctrl_cost_weight", self.ctrl_cost_weight),
            ("healthy_reward", self.healthy_reward),
        ])?;
        check_scale("reset_noise_scale", self.reset_noise_scale)?;
        check_range("healthy_z_range", self.healthy_z_range)?;
        check_range("healthy_angle_range", self.healthy_angle_range)?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, 3, 3)?;
        let skipped = usize::from(self.exclude_current_positions_from_observation);
        let ((z_low, z_high), (low, high)) = (self.healthy_z_range, self.healthy_angle_range);
        let limits = vec![(1 - skipped, z_low, z_high), (2 - skipped, low, high)];
        let config = self.clone();
        let rules = Legged {
            period: model.timestep() * f64::from(self.frame_skip),
            forward_reward_weight: self.forward_reward_weight,
            ctrl_cost_weight: self.ctrl_cost_weight,
            healthy_reward: self.healthy_reward,
            terminate_when_unhealthy: self.terminate_when_unhealthy,
            reset_noise_scale: self.reset_noise_scale,
            skipped,
            velocity_limit: if self.clip_velocities { 10.0 } else { f64::INFINITY },
            is_healthy: move |sim: &Sim| {
                within(sim.qpos()[1], config.healthy_z_range) && within(sim.qpos()[2], config.healthy_angle_range)
            },
            distance: 4.0,
        };
        let healthy = WithinLimits { limits, closed: false };
        let (reward, termination) = (rules.reward(&healthy), rules.termination(healthy));
        Ok(Parts {
            name: name.to_owned(),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(rules),
            reward,
            termination,
            max_steps: 1000,
        })
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// As [`tasks::make_with`](crate::tasks::make_with).
    pub fn init(&self) -> Result<MujocoEnv, EnvError> {
        self.parts("Walker2d-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}
