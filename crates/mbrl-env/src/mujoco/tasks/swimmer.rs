//! Gymnasium's Swimmer-v5.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{
        RunnerReward, Running, check_numbers, check_scale, check_sizes, control_cost, joint_fields, plane_info,
        uniform_noise, velocity,
    },
};
use crate::{
    EnvError, Field, Reward, Rng,
    mujoco::{InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome},
    tasks::Task,
};

/// Gymnasium 1.4.0's `Swimmer-v5`, with its options and their defaults: swim along x, in a viscous plane, as three links
/// with two motors.
///
/// Reward: `forward_reward_weight · Δx / dt − ctrl_cost_weight · ‖a‖²`. Never terminates; 1000 steps of 0.04 s.
///
/// The observation holds positions, `[x, y, heading, 2 joints]`, and as many velocities; the first two positions, which a batch
/// reward needs, are left out by default. The heading turns all the way round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwimmerConfig {
    /// The model: a Gymnasium file by its bare name, or a path.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Weight of the velocity.
    pub forward_reward_weight: f64,
    /// Weight of the squared controls.
    pub ctrl_cost_weight: f64,
    /// Scale of the uniform noise at the start.
    pub reset_noise_scale: f64,
    /// Whether to leave the position in the plane out of the observation.
    pub exclude_current_positions_from_observation: bool,
}

impl Default for SwimmerConfig {
    fn default() -> Self {
        Self {
            xml_file: "swimmer.xml".into(),
            frame_skip: 4,
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 1e-4,
            reset_noise_scale: 0.1,
            exclude_current_positions_from_observation: true,
        }
    }
}

impl SwimmerConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[
            ("forward_reward_weight", self.forward_reward_weight),
            ("ctrl_cost_weight", self.ctrl_cost_weight),
        ])?;
        check_scale("reset_noise_scale", self.reset_noise_scale)?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, 3, 3)?;
        let period = model.timestep() * f64::from(self.frame_skip);
        let skipped = 2 * usize::from(self.exclude_current_positions_from_observation);
        let reward = (skipped == 0).then(|| -> Arc<dyn Reward> {
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
            rules: Arc::new(Swimmer { config: self.clone(), period }),
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
        self.parts("Swimmer-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

struct Swimmer {
    config: SwimmerConfig,
    period: f64,
}

impl Rules for Swimmer {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let skipped = 2 * usize::from(self.config.exclude_current_positions_from_observation);
        obs.extend_from_slice(&sim.qpos()[skipped..]);
        obs.extend_from_slice(sim.qvel());
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        Some(joint_fields(model, 2 * usize::from(self.config.exclude_current_positions_from_observation)))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, self.config.reset_noise_scale, rng);
        uniform_noise(qvel, self.config.reset_noise_scale, rng);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        measured.extend_from_slice(&sim.qpos()[..2]);
    }

    fn judge(&self, before: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let velocity = velocity(before, [sim.qpos()[0], sim.qpos()[1]], self.period);
        let forward = self.config.forward_reward_weight * velocity[0];
        let control = control_cost(self.config.ctrl_cost_weight, action);
        Running { forward, control, ..Running::default() }.judge(false, plane_info(sim, velocity))
    }
}
