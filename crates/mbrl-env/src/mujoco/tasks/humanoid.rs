//! Gymnasium's Humanoid-v5.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Parts, model,
    parts::{
        FORCES, Running, WithinLimits, body_fields, check_numbers, check_range, check_scale, check_sizes, following,
        joint_fields, plane_info, sum, sum_of_squares, uniform_noise, velocity,
    },
};
use crate::{
    EnvError, Field, Rng, Termination,
    field::with_unique_names,
    mujoco::{Camera, InitialState, Model, MujocoEnv, Rules, Sim, StepOutcome},
    tasks::Task,
};

/// Degrees of freedom of the root, which no motor moves.
const ROOT: usize = 6;

/// Gymnasium 1.4.0's `Humanoid-v5`, with its options and their defaults: walk along x on two legs, with 17 motors, without
/// falling.
///
/// Reward: `healthy_reward` while healthy, `+ forward_reward_weight · Δx / dt − ctrl_cost_weight · ‖a‖² −` the contact cost,
/// `contact_cost_weight · ‖f‖²` clipped to `contact_cost_range`, where x is that of the centre of mass and f the forces on
/// all bodies. The episode terminates when the humanoid is not healthy: its height is outside the range. 1000 steps of 0.015 s.
///
/// The observation holds `[x, y, z, quaternion, 17 joints]`, 23 velocities, and by default for each of the 13 bodies inertia and
/// mass (10 numbers), velocity (6) and forces (6), and the motors' torques (17); the first two positions are left out by
/// default. The centre of mass is where the engine last computed it, within its last step; observations do not hold it, so
/// there is no batch reward. Gymnasium's infos `tendon_length` and `tendon_velocity`, which are not single numbers, are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HumanoidConfig {
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
    /// The range to which the cost of contacts is clipped.
    pub contact_cost_range: (f64, f64),
    /// Reward of each step that ends healthy.
    pub healthy_reward: f64,
    /// Whether an unhealthy state ends the episode.
    pub terminate_when_unhealthy: bool,
    /// Open range of the height (m).
    pub healthy_z_range: (f64, f64),
    /// Scale of the uniform noise at the start.
    pub reset_noise_scale: f64,
    /// Whether to leave the position in the plane out of the observation.
    pub exclude_current_positions_from_observation: bool,
    /// Whether to include inertia and mass of the bodies in the observation.
    pub include_cinert_in_observation: bool,
    /// Whether to include velocities of the bodies in the observation.
    pub include_cvel_in_observation: bool,
    /// Whether to include torques of the motors in the observation.
    pub include_qfrc_actuator_in_observation: bool,
    /// Whether to include forces on the bodies in the observation.
    pub include_cfrc_ext_in_observation: bool,
}

impl Default for HumanoidConfig {
    fn default() -> Self {
        Self {
            xml_file: "humanoid.xml".into(),
            frame_skip: 5,
            forward_reward_weight: 1.25,
            ctrl_cost_weight: 0.1,
            contact_cost_weight: 5e-7,
            contact_cost_range: (f64::NEG_INFINITY, 10.0),
            healthy_reward: 5.0,
            terminate_when_unhealthy: true,
            healthy_z_range: (1.0, 2.0),
            reset_noise_scale: 1e-2,
            exclude_current_positions_from_observation: true,
            include_cinert_in_observation: true,
            include_cvel_in_observation: true,
            include_qfrc_actuator_in_observation: true,
            include_cfrc_ext_in_observation: true,
        }
    }
}

impl HumanoidConfig {
    fn parts(&self, name: &str) -> Result<Parts, EnvError> {
        check_numbers(&[
            ("forward_reward_weight", self.forward_reward_weight),
            ("ctrl_cost_weight", self.ctrl_cost_weight),
            ("contact_cost_weight", self.contact_cost_weight),
            ("healthy_reward", self.healthy_reward),
        ])?;
        check_scale("reset_noise_scale", self.reset_noise_scale)?;
        check_range("contact_cost_range", self.contact_cost_range)?;
        check_range("healthy_z_range", self.healthy_z_range)?;
        let model = model(&self.xml_file)?;
        check_sizes(&model, 3, ROOT)?;
        let mass = sum(model.inner().body_mass(), |mass| mass);
        let period = model.timestep() * f64::from(self.frame_skip);
        let skipped = 2 * usize::from(self.exclude_current_positions_from_observation);
        let (low, high) = self.healthy_z_range;
        let healthy = WithinLimits { limits: vec![(2 - skipped, low, high)], closed: false };
        Ok(Parts {
            name: name.to_owned(),
            model,
            frame_skip: self.frame_skip,
            rules: Arc::new(Humanoid { config: self.clone(), mass, period }),
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
        self.parts("Humanoid-v5")?.env()
    }

    pub(crate) fn task(&self, name: &str) -> Result<Task, EnvError> {
        self.parts(name)?.task()
    }
}

struct Humanoid {
    config: HumanoidConfig,
    /// Of all bodies (kg).
    mass: f64,
    period: f64,
}

impl Humanoid {
    /// The position of the centre of mass in the plane.
    fn centre(&self, sim: &Sim) -> [f64; 2] {
        let bodies = sim.model().inner().body_mass().iter().zip(sim.data().xipos());
        let [x, y] = bodies.fold([0.0; 2], |[x, y], (mass, at)| [x + mass * at[0], y + mass * at[1]]);
        [x / self.mass, y / self.mass]
    }
}

impl Rules for Humanoid {
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        let (config, data) = (&self.config, sim.data());
        let skipped = 2 * usize::from(config.exclude_current_positions_from_observation);
        obs.extend_from_slice(&sim.qpos()[skipped..]);
        obs.extend_from_slice(sim.qvel());
        // Of the bodies without the world.
        if config.include_cinert_in_observation {
            obs.extend_from_slice(data.cinert()[1..].as_flattened());
        }
        if config.include_cvel_in_observation {
            obs.extend_from_slice(data.cvel()[1..].as_flattened());
        }
        if config.include_qfrc_actuator_in_observation {
            obs.extend_from_slice(&data.qfrc_actuator()[ROOT..]);
        }
        if config.include_cfrc_ext_in_observation {
            obs.extend_from_slice(data.cfrc_ext()[1..].as_flattened());
        }
    }

    fn fields(&self, model: &Model) -> Option<Vec<Field>> {
        let config = &self.config;
        let skipped = 2 * usize::from(config.exclude_current_positions_from_observation);
        let mut fields = joint_fields(model, skipped);
        if config.include_cinert_in_observation {
            fields.extend(body_fields(model, &[("inertia", "", 10)]));
        }
        if config.include_cvel_in_observation {
            fields.extend(body_fields(model, &[("angular_velocity", "rad/s", 3), ("velocity", "m/s", 3)]));
        }
        if config.include_qfrc_actuator_in_observation {
            let moved = &model.velocity_fields()[ROOT..];
            let torque = |field: &Field| {
                let name = field.name.strip_suffix("_velocity").unwrap_or(&field.name);
                Field::linear(format!("{name}_torque"), "N m")
            };
            fields.extend(moved.iter().map(torque));
        }
        if config.include_cfrc_ext_in_observation {
            fields.extend(body_fields(model, &FORCES));
        }
        Some(with_unique_names(fields))
    }

    fn start(&self, InitialState { qpos, qvel, .. }: &mut InitialState, rng: &mut Rng) {
        uniform_noise(qpos, self.config.reset_noise_scale, rng);
        uniform_noise(qvel, self.config.reset_noise_scale, rng);
    }

    fn measure(&self, sim: &Sim, measured: &mut Vec<f64>) {
        measured.extend(self.centre(sim));
    }

    fn judge(&self, before: &[f64], sim: &Sim, _: &[f32]) -> StepOutcome {
        let config = &self.config;
        let velocity = velocity(before, self.centre(sim), self.period);
        let ((low, high), z) = (config.healthy_z_range, sim.qpos()[2]);
        let healthy = low < z && z < high;
        let contact = config.contact_cost_weight * sum_of_squares(sim.data().cfrc_ext().as_flattened());
        let (least, most) = config.contact_cost_range;
        let paid = Running {
            forward: config.forward_reward_weight * velocity[0],
            // From the engine's controls, which are `f64`, unlike the actions.
            control: config.ctrl_cost_weight * sum_of_squares(sim.ctrl()),
            survive: Some(if healthy { config.healthy_reward } else { 0.0 }),
            contact: Some(contact.clamp(least, most)),
        };
        paid.judge(config.terminate_when_unhealthy && !healthy, plane_info(sim, velocity))
    }

    fn reads_body_forces(&self) -> bool {
        self.config.include_cfrc_ext_in_observation || self.config.contact_cost_weight != 0.0
    }

    fn camera(&self, model: &Model) -> Camera {
        following(model, "torso", 1.0, 4.0, -20.0)
    }
}
