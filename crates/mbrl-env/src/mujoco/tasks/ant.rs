//! Gymnasium's Ant-v5.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{
        FORCES, Running, WithinLimits, body_fields, check_numbers, check_range, check_scale, check_sizes, control_cost,
        following, joint_fields, normal_noise, plane_info, sum_of_squares, uniform_noise, velocity,
    },
};
use crate::{
    EnvError, Field, Rng, Termination,
    field::with_unique_names,
    mujoco::{Camera, InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome},
    tasks::Task,
};

/// Gymnasium 1.4.0's `Ant-v5`, with its options and their defaults: run along x on four legs with eight motors.
///
/// Reward: `healthy_reward` while healthy, `+ forward_reward_weight · Δx / dt − ctrl_cost_weight · ‖a‖² − contact_cost_weight ·
/// ‖f‖²`, where x is that of `main_body` and f the forces on all bodies, clipped to `contact_force_range`. The episode terminates when
/// the ant is not healthy: its height is outside the range, or its state is not finite. 1000 steps of 0.05 s.
///
/// The observation holds `[x, y, z, quaternion, 8 joints]`, 14 velocities, and the clipped forces on the 13 bodies, six
/// numbers each; the first two are left out by default. There is no batch reward, because the observation lacks two things: the
/// body's position as the engine last computed it, within its last step, and the forces on the world, which cost too. The batch
/// termination rule is that of the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AntConfig {
    /// The model: a Gymnasium file by its bare name, or a path.
    pub xml_file: PathBuf,
    /// Steps of the engine per step of the environment.
    pub frame_skip: u32,
    /// Weight of the velocity.
    pub forward_reward_weight: f64,
    /// Weight of the squared controls.
    pub ctrl_cost_weight: f64,
    /// Weight of the squared forces.
    pub contact_cost_weight: f64,
    /// Reward of each step that ends healthy.
    pub healthy_reward: f64,
    /// The body whose velocity is rewarded.
    pub main_body: MainBody,
    /// Whether an unhealthy state ends the episode.
    pub terminate_when_unhealthy: bool,
    /// Closed range of the height (m).
    pub healthy_z_range: (f64, f64),
    /// The range to which forces are clipped (N, and N·m).
    pub contact_force_range: (f64, f64),
    /// Scale of the noise at the start: uniform on positions, Gaussian on velocities.
    pub reset_noise_scale: f64,
    /// Whether to leave the position in the plane out of the observation.
    pub exclude_current_positions_from_observation: bool,
    /// Whether to include the forces in the observation.
    pub include_cfrc_ext_in_observation: bool,
}

/// A body by its index or its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MainBody {
    /// By its index; the world is body 0.
    Index(usize),
    /// By its name.
    Name(String),
}

impl MainBody {
    fn index(&self, model: &Model) -> Result<usize, EnvError> {
        let count = model.inner().body_mass().len();
        match self {
            Self::Name(name) => model.body(name),
            Self::Index(index) if *index < count => Ok(*index),
            Self::Index(index) => Err(EnvError::Engine {
                reason: format!("main_body = {index}: {} has {count} bodies, the world among them", model.origin()),
            }),
        }
    }
}

impl Default for AntConfig {
    fn default() -> Self {
        Self {
            xml_file: "ant.xml".into(),
            frame_skip: 5,
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 0.5,
            contact_cost_weight: 5e-4,
            healthy_reward: 1.0,
            main_body: MainBody::Index(1),
            terminate_when_unhealthy: true,
            healthy_z_range: (0.2, 1.0),
            contact_force_range: (-1.0, 1.0),
            reset_noise_scale: 0.1,
            exclude_current_positions_from_observation: true,
            include_cfrc_ext_in_observation: true,
        }
    }
}

impl AntConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[
            ("forward_reward_weight", self.forward_reward_weight),
            ("ctrl_cost_weight", self.ctrl_cost_weight),
            ("contact_cost_weight", self.contact_cost_weight),
            ("healthy_reward", self.healthy_reward),
        ])?;
        check_scale("reset_noise_scale", self.reset_noise_scale)?;
        check_range("healthy_z_range", self.healthy_z_range)?;
        check_range("contact_force_range", self.contact_force_range)?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, 3, 3)?;
        let body = self.main_body.index(&model)?;
        let period = model.timestep() * f64::from(self.frame_skip);
        let skipped = 2 * usize::from(self.exclude_current_positions_from_observation);
        let height = 2 - skipped;
        let (low, high) = self.healthy_z_range;
        let finite = |column| (column, f64::from(f32::MIN), f64::from(f32::MAX));
        let limits = (0..model.nq() + model.nv() - skipped)
            .map(|column| if column == height { (column, low, high) } else { finite(column) })
            .collect();
        let healthy = WithinLimits { limits, closed: true };
        Ok(Parts {
            name: name.to_owned(),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(Ant { config: self.clone(), body, period }),
            reward: None,
            termination: self.terminate_when_unhealthy.then(|| -> Arc<dyn Termination> { Arc::new(healthy) }),
            max_steps: 1000,
        })
    }

    /// The environment alone, without a time limit.
    ///
    /// # Errors
    /// As [`tasks::make_with`](crate::tasks::make_with).
    pub fn init(&self) -> Result<MujocoEnv, EnvError> {
        self.parts("Ant-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

struct Ant {
    config: AntConfig,
    body: usize,
    period: f64,
}

impl Ant {
    /// Forces on all bodies, including the world.
    fn forces<'a>(&self, sim: &'a Sim) -> impl Iterator<Item = f64> + 'a {
        let (low, high) = self.config.contact_force_range;
        sim.data().cfrc_ext().as_flattened().iter().map(move |force| force.clamp(low, high))
    }
}

impl Rules for Ant {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let skipped = 2 * usize::from(self.config.exclude_current_positions_from_observation);
        obs.extend_from_slice(&sim.qpos()[skipped..]);
        obs.extend_from_slice(sim.qvel());
        if self.config.include_cfrc_ext_in_observation {
            obs.extend(self.forces(sim).skip(6));
        }
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let skipped = 2 * usize::from(self.config.exclude_current_positions_from_observation);
        let mut fields = joint_fields(model, skipped);
        if self.config.include_cfrc_ext_in_observation {
            fields.extend(body_fields(model, &FORCES));
        }
        Some(with_unique_names(fields))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, self.config.reset_noise_scale, rng);
        normal_noise(qvel, self.config.reset_noise_scale, rng);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        measured.extend_from_slice(&sim.xpos(self.body)[..2]);
    }

    fn judge(&self, before: &[f64], sim: &Sim, action: &[f32]) -> StepOutcome {
        let config = &self.config;
        let [x, y, _] = sim.xpos(self.body);
        let velocity = velocity(before, [x, y], self.period);
        // The state is finite, otherwise the step would have failed.
        let (low, high) = config.healthy_z_range;
        let healthy = (low..=high).contains(&sim.qpos()[2]);
        let forces: Vec<f64> = self.forces(sim).collect();
        let paid = Running {
            forward: config.forward_reward_weight * velocity[0],
            control: control_cost(config.ctrl_cost_weight, action),
            survive: Some(if healthy { config.healthy_reward } else { 0.0 }),
            contact: Some(config.contact_cost_weight * sum_of_squares(&forces)),
        };
        paid.judge(config.terminate_when_unhealthy && !healthy, plane_info(sim, velocity))
    }

    fn reads_body_forces(&self) -> bool {
        self.config.include_cfrc_ext_in_observation || self.config.contact_cost_weight != 0.0
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "torso", 0.5, 4.0, -45.0)
    }
}
