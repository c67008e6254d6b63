//! The tasks: what is observed, what is rewarded, what is known; with the feature `mujoco`, also the environments.

pub(crate) mod adroit;
pub(crate) mod baoding;
mod digits;
pub(crate) mod reorient;
pub(crate) mod valve;
pub(crate) mod write;

use mbrl_env::{EnvError, Field, check_delay};
use serde::{Deserialize, Serialize};

use crate::{
    robot::HandConfig,
    scene::{PhysicsConfig, RandomizeConfig},
};

pub use adroit::{AdroitPenConfig, AdroitPenObjective, BaodingAdroitConfig, ReorientAdroitConfig};
pub use baoding::{BaodingConfig, BaodingGoal, BaodingObjective, BaodingScore, FALLEN};
pub use reorient::{CubeTurn, ReorientConfig, ReorientObjective, ReorientScore};
pub use valve::{ValveConfig, ValveObjective, ValveScore};
pub use write::{WriteConfig, WriteObjective, WritePath, WriteScore};

/// A ball below this height has fallen out of the Adroit hand (m), as in PDDM.
pub const FALLEN_ADROIT: f64 = 0.06;

/// Sensor noise: Gaussian, given by its standard deviations.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SensorNoise {
    /// On joint angles (rad; default: 0).
    pub joints: f32,
    /// On joint velocities (rad/s; default: 0).
    pub joint_velocities: f32,
    /// On the position of an object (m, and rad for a valve; default: 0). The orientation of a cube or a pencil is always measured exactly.
    pub positions: f32,
    /// On the velocities of an object (m/s and rad/s; default: 0).
    pub velocities: f32,
}

/// The kind of a column of the observation, as far as sensor noise differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Joint,
    JointVelocity,
    Position,
    Velocity,
    /// A goal, which is not measured.
    Goal,
}

impl SensorNoise {
    /// Whether it changes anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    #[cfg(feature = "mujoco")]
    pub(crate) fn columns(&self, layout: &[(Field, Told)]) -> Vec<f32> {
        let std = |told: Told| match told {
            Told::Joint => self.joints,
            Told::JointVelocity => self.joint_velocities,
            Told::Position => self.positions,
            Told::Velocity => self.velocities,
            Told::Goal => 0.0,
        };
        layout.iter().flat_map(|(field, told)| vec![std(*told); field.width()]).collect()
    }
}

/// The options that all tasks have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choices<'a> {
    pub(crate) physics: &'a PhysicsConfig,
    pub(crate) sensors: &'a SensorNoise,
    pub(crate) action_delay: usize,
    pub(crate) randomize: Option<&'a RandomizeConfig>,
    pub(crate) max_steps: u32,
}

impl Choices<'_> {
    /// Refuses options from which no environment can be made.
    pub(crate) fn check(&self) -> Result<(), EnvError> {
        self.randomize.map_or(Ok(()), RandomizeConfig::check)?;
        let SensorNoise { joints, joint_velocities, positions, velocities } = *self.sensors;
        check_at_least_0(&[
            ("sensors.joints", joints.into()),
            ("sensors.joint_velocities", joint_velocities.into()),
            ("sensors.positions", positions.into()),
            ("sensors.velocities", velocities.into()),
        ])?;
        check_delay("action_delay", self.action_delay)?;
        self.physics.frame_skip().map(|_| ())
    }
}

/// The fields of a configuration that are [`Choices`].
macro_rules! choices {
    ($config:expr) => {
        $crate::task::Choices {
            physics: &$config.physics,
            sensors: &$config.sensors,
            action_delay: $config.action_delay,
            randomize: $config.randomize.as_ref(),
            max_steps: $config.max_steps,
        }
    };
}
pub(crate) use choices;

/// The layout of an observation: the five-fingered hand, then the objects.
pub(crate) fn hand_layout(objects: Vec<(Field, Told)>) -> Vec<(Field, Told)> {
    joint_fields(&HandConfig::names()).into_iter().chain(objects).collect()
}

/// Fields of joint angles and velocities.
pub(crate) fn joint_fields(names: &[&str]) -> Vec<(Field, Told)> {
    let angle = |name: &&str| (Field::linear(*name, "rad"), Told::Joint);
    let velocity = |name: &&str| (Field::linear(format!("{name}_velocity"), "rad/s"), Told::JointVelocity);
    names.iter().map(angle).chain(names.iter().map(velocity)).collect()
}

/// A field with some columns.
pub(crate) fn field(name: &str, unit: &str, columns: usize, told: Told) -> (Field, Told) {
    let field = Field::linear(name, unit);
    (if columns == 1 { field } else { field.with_shape([columns]) }, told)
}

/// The servos of the five-fingered hand around a pose.
pub(crate) fn hand_servo(rest: &[f64], scale: f64, speed: f64) -> crate::Servo {
    crate::Servo {
        rest: rest.to_vec(),
        low: HandConfig::JOINTS.iter().map(|joint| joint.1).collect(),
        high: HandConfig::JOINTS.iter().map(|joint| joint.2).collect(),
        scale,
        speed,
    }
}

/// Refuses numbers that are not finite and at least 0.
pub(crate) fn check_at_least_0(numbers: &[(&'static str, f64)]) -> Result<(), EnvError> {
    match numbers.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
        None => Ok(()),
        Some((field, value)) => {
            Err(EnvError::Config { field, value: value.to_string(), rule: "a finite number of at least 0" })
        }
    }
}

/// Refuses numbers that are not finite and above 0.
pub(crate) fn check_above_0(numbers: &[(&'static str, f64)]) -> Result<(), EnvError> {
    match numbers.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
        None => Ok(()),
        Some((field, value)) => {
            Err(EnvError::Config { field, value: value.to_string(), rule: "a finite number above 0" })
        }
    }
}
