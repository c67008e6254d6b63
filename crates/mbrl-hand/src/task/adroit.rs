//! `baoding-adroit`, `reorient-adroit`: PDDM's tasks on the hand that PDDM used; `AdroitHandPen`: a task with published results by others.

use mbrl_env::{EnvError, Field};
use serde::{Deserialize, Serialize};

use super::{
    BaodingGoal, BaodingObjective, Choices, FALLEN_ADROIT, ReorientObjective, SensorNoise, Told,
    baoding::{ball_fields, check_lead},
    check_above_0, check_at_least_0, choices, hand_layout,
    reorient::{CubeTurn, check_goals, cube_fields, read_goals, usual_goals},
};
use crate::{
    Servo,
    objective::Objective,
    scalar::{Scalar, Vector, dot, length},
    scene::{PhysicsConfig, RandomizeConfig},
};

/// Stops of the Adroit hand's servos (rad), in the order of the joints, which have the same names as those of [`HandConfig`]; the thumb's
/// last joint bends the other way.
pub(crate) const RANGES: [[f64; 2]; 24] = [
    [-0.524, 0.175],
    [-0.79, 0.61],
    [-0.44, 0.44],
    [0.0, 1.6],
    [0.0, 1.6],
    [0.0, 1.6],
    [-0.44, 0.44],
    [0.0, 1.6],
    [0.0, 1.6],
    [0.0, 1.6],
    [-0.44, 0.44],
    [0.0, 1.6],
    [0.0, 1.6],
    [0.0, 1.6],
    [0.0, 0.7],
    [-0.44, 0.44],
    [0.0, 1.6],
    [0.0, 1.6],
    [0.0, 1.6],
    [-1.0, 1.0],
    [0.0, 1.3],
    [-0.26, 0.26],
    [-0.52, 0.52],
    [-1.571, 0.0],
];

/// PDDM's key pose for Baoding balls (rad).
pub(crate) const BAODING_REST: [f64; 24] = [
    0.0126, -0.398, 0.379, 0.0564, 1.167, 0.0407, 0.265, -0.136, 1.144, 0.045, 0.074, 0.139, 1.112, 0.234, -0.022,
    -0.368, 0.0, 1.25, 0.152, -0.021, 0.374, 0.0939, -0.126, -0.536,
];
/// PDDM's key pose for the cube (rad).
pub(crate) const REORIENT_REST: [f64; 24] = [
    0.0, 0.0, 0.31828, 0.212085, 1.06828, 0.45559, 0.16132, 0.1571, 0.699095, 0.61269, -0.03052, 0.10997, 0.91118,
    0.56556, 0.09074, -0.22236, 0.10997, 0.746225, 0.589125, -0.71196, 0.477785, -0.262, -0.524, -0.80121,
];

/// The targets' ellipse in the palm's frame: its middle and semi-axes, across the hand and along it (m).
pub(crate) const ELLIPSE: [[f64; 2]; 2] = [[0.005, 0.055], [0.02, 0.036]];
/// Height of its targets above the palm (m).
pub(crate) const ABOVE_PALM: f64 = 0.07;

/// The servos around a pose, within the stops.
fn servo(rest: &[f64; 24], scale: f64, speed: f64) -> Servo {
    let of = |bound: usize| RANGES.iter().map(|range| range[bound]).collect::<Vec<_>>();
    let (low, high) = (of(0), of(1));
    let rest = (0..24).map(|j| rest[j].clamp(low[j], high[j])).collect();
    Servo { rest, low, high, scale, speed }
}

fn physics() -> PhysicsConfig {
    PhysicsConfig { timestep: 0.0025, ..PhysicsConfig::default() }
}

/// [`BaodingConfig`](super::BaodingConfig) on the Adroit hand as PDDM changed it: servos of the wrist at 5 N m/rad, friction
/// (1, 0.005, 0.001), wider fingertips, steps of 2.5 ms; its pose, balls and ellipse.
///
/// Differences from PDDM: fingertips and forearm have no extra collision meshes; the targets do not move with the wrist,
/// so that the clock determines them; 24 joint velocities, and how fast the targets turn, are observed too.
///
/// The hand's files are those of gymnasium-robotics 1.4.2, read at run time from the folder that `MBRL_ADROIT_MODELS` names;
/// `crates/mbrl-hand/scripts/get-adroit` fetches them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaodingAdroitConfig {
    /// What the balls should do.
    pub goal: BaodingGoal,
    /// Steps per turn of the targets (default: 60).
    pub period: f64,
    /// How far the targets may be ahead of the balls (rad; [`BaodingConfig::lead`](super::BaodingConfig::lead)).
    pub lead: Option<f64>,
    /// Settings of the engine's steps (default: 2.5 ms, as in PDDM).
    pub physics: PhysicsConfig,
    /// Largest speed of a joint (default: 3 rad/s, as in PDDM).
    pub speed: f64,
    /// Share of the joints' range that actions use (default: 0.9, as in PDDM).
    pub action_scale: f64,
    /// Standard deviation of the joints at the start (default: 0.02 rad; 0 in PDDM).
    pub start_noise: f64,
    /// Steps per episode (default: 100).
    pub max_steps: u32,
    /// Noise of the sensors (default: none).
    pub sensors: SensorNoise,
    /// Delay of actions, in steps (default: 0).
    pub action_delay: usize,
    /// Variation of the physics between episodes (default: none). The robot's own masses do not vary.
    pub randomize: Option<RandomizeConfig>,
}

impl Default for BaodingAdroitConfig {
    fn default() -> Self {
        Self {
            goal: BaodingGoal::default(),
            period: 60.0,
            lead: None,
            physics: physics(),
            speed: 3.0,
            action_scale: 0.9,
            start_noise: 0.02,
            max_steps: 100,
            sensors: SensorNoise::default(),
            action_delay: 0,
            randomize: None,
        }
    }
}

impl BaodingAdroitConfig {
    /// Refuses settings from which no task can be made.
    ///
    /// # Errors
    /// [`EnvError::Config`].
    pub fn check(&self) -> Result<(), EnvError> {
        check_above_0(&[("period", self.period), ("speed", self.speed), ("action_scale", self.action_scale)])?;
        check_at_least_0(&[("start_noise", self.start_noise)])?;
        check_lead(self.lead, self.goal, &self.sensors)?;
        self.choices().check()
    }

    /// The map from actions to commanded angles.
    #[must_use]
    pub fn servo(&self) -> Servo {
        servo(&BAODING_REST, self.action_scale, self.speed)
    }

    /// The reward and the termination.
    #[must_use]
    pub fn objective(&self) -> BaodingObjective {
        BaodingObjective::of(self.goal, FALLEN_ADROIT)
    }

    pub(crate) fn choices(&self) -> Choices<'_> {
        choices!(self)
    }

    pub(crate) fn layout() -> Vec<(Field, Told)> {
        hand_layout(ball_fields())
    }
}

/// [`ReorientConfig`](super::ReorientConfig) on the Adroit hand, in PDDM's pose, with our own cube, geodesic angle and position
/// term; its files are read and patched as for [`BaodingAdroitConfig`]. Goals are rotations about the vertical and the axis across the
/// hand, which is x here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReorientAdroitConfig {
    /// Goals from which one is drawn (default: the four turns by 1.5 rad). As an option: names, one name, or a number: 2 (left, right), 4 (and
    /// up, down) or 8 (and the halves).
    #[serde(deserialize_with = "read_goals")]
    pub goals: Vec<CubeTurn>,
    /// Weight of the distance from the start (default: 20).
    pub position_weight: f64,
    /// Settings of the engine's steps (default: 2.5 ms, as in PDDM).
    pub physics: PhysicsConfig,
    /// Largest speed of a joint (default: 3 rad/s, as in PDDM).
    pub speed: f64,
    /// Share of the joints' range that actions use (default: 1, as in PDDM).
    pub action_scale: f64,
    /// Standard deviation of the joints at the start (default: 0.02 rad; 0 in PDDM).
    pub start_noise: f64,
    /// Steps per episode (default: 30).
    pub max_steps: u32,
    /// Noise of the sensors (default: none).
    pub sensors: SensorNoise,
    /// Delay of actions, in steps (default: 0).
    pub action_delay: usize,
    /// Variation of the physics between episodes (default: none). The robot's own masses do not vary.
    pub randomize: Option<RandomizeConfig>,
}

impl Default for ReorientAdroitConfig {
    fn default() -> Self {
        Self {
            goals: usual_goals(),
            position_weight: 20.0,
            physics: physics(),
            speed: 3.0,
            action_scale: 1.0,
            start_noise: 0.02,
            max_steps: 30,
            sensors: SensorNoise::default(),
            action_delay: 0,
            randomize: None,
        }
    }
}

impl ReorientAdroitConfig {
    /// Refuses settings from which no task can be made.
    ///
    /// # Errors
    /// [`EnvError::Config`].
    pub fn check(&self) -> Result<(), EnvError> {
        check_goals(&self.goals)?;
        check_above_0(&[("speed", self.speed), ("action_scale", self.action_scale)])?;
        check_at_least_0(&[("start_noise", self.start_noise), ("position_weight", self.position_weight)])?;
        self.choices().check()
    }

    /// The map from actions to commanded angles.
    #[must_use]
    pub fn servo(&self) -> Servo {
        servo(&REORIENT_REST, self.action_scale, self.speed)
    }

    /// The reward and the termination.
    #[must_use]
    pub fn objective(&self) -> ReorientObjective {
        ReorientObjective { position: self.position_weight }
    }

    pub(crate) fn choices(&self) -> Choices<'_> {
        choices!(self)
    }

    pub(crate) fn layout() -> Vec<(Field, Told)> {
        hand_layout(cube_fields())
    }
}

/// Gymnasium-Robotics' `AdroitHandPen-v1`: turn a pen in the hand to an orientation.
///
/// Actions in [−1, 1] span the servos' ranges; 200 steps of 10 ms; never terminates. Dense reward per step: similarity of the directions
/// minus the distance from the middle, +10 where the distance is below 7.5 cm and the similarity above 0.9, +50 more above 0.95, −5 where
/// the pen lies lower than 7.5 cm. Sparse reward: 10 where it is solved, else −0.1. An observation has 24 angles, the pen's position, six
/// velocities and direction, the desired direction, and both differences: 45 columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdroitPenConfig {
    /// Whether the reward is sparse (default: false).
    pub sparse_reward: bool,
}

/// The pen's height, direction, difference from the middle; the desired direction.
pub(crate) mod pen {
    pub(crate) const AT: usize = 24;
    pub(crate) const DIRECTION: usize = 33;
    pub(crate) const WANTED: usize = 36;
    pub(crate) const AWAY: usize = 39;
    #[cfg(feature = "mujoco")]
    pub(crate) const WIDTH: usize = 45;
}

impl AdroitPenConfig {
    /// The reward.
    #[must_use]
    pub fn objective(&self) -> AdroitPenObjective {
        AdroitPenObjective { sparse: self.sparse_reward }
    }

    #[cfg(feature = "mujoco")]
    pub(crate) fn fields() -> Vec<Field> {
        use super::field;
        use crate::robot::HandConfig;
        let mut fields: Vec<Field> = HandConfig::names().iter().map(|name| Field::linear(*name, "rad")).collect();
        let more = [
            ("pen", "m", 3),
            ("pen_velocity", "", 6),
            ("pen_direction", "", 3),
            ("wanted_direction", "", 3),
            ("pen_away", "m", 3),
            ("direction_away", "", 3),
        ];
        fields.extend(more.map(|(name, unit, columns)| field(name, unit, columns, Told::Goal).0));
        fields
    }
}

/// The reward for turning the pen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdroitPenObjective {
    /// Whether the reward is sparse.
    pub sparse: bool,
}

fn vector<S: Scalar>(next: &impl Fn(usize) -> S, first: usize) -> Vector<S> {
    std::array::from_fn(|k| next(first + k))
}

impl AdroitPenObjective {
    /// How far the pen is from the middle (m), and how similar its direction is to the desired one.
    pub(crate) fn closeness<S: Scalar>(next: &impl Fn(usize) -> S) -> [S; 2] {
        let away = length(&vector(next, pen::AWAY));
        [away, dot(&vector(next, pen::DIRECTION), &vector(next, pen::WANTED))]
    }
}

impl Objective for AdroitPenObjective {
    fn reward<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let [away, similar] = Self::closeness(next);
        let near = away.below(0.075);
        let solved = near.clone() * similar.above(0.95);
        if self.sparse {
            return solved.scale(10.1).shift(-0.1);
        }
        let nearly = near * similar.above(0.9);
        let low = next(pen::AT + 2).below(0.075);
        similar - away + nearly.scale(10.0) + solved.scale(50.0) - low.scale(5.0)
    }

    fn over<S: Scalar>(&self, _: &impl Fn(usize) -> S) -> Option<S> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_poses_lie_within_the_stops() {
        for servo in [BaodingAdroitConfig::default().servo(), ReorientAdroitConfig::default().servo()] {
            for j in 0..24 {
                assert!((servo.low[j]..=servo.high[j]).contains(&servo.rest[j]), "joint {j}");
            }
        }
        // A knuckle's −0.136 and a metacarpal's −0.022 lie beyond them.
        assert_eq!(BaodingAdroitConfig::default().servo().rest[7], 0.0);
    }

    #[test]
    fn the_pens_reward_by_hand() {
        let of = |sparse: bool, similar: f64, away: f64, height: f64| {
            let mut row = [0.0; 45];
            (row[pen::AT + 2], row[pen::DIRECTION], row[pen::WANTED], row[pen::AWAY]) = (height, 1.0, similar, away);
            AdroitPenObjective { sparse }.reward(&|column: usize| row[column])
        };
        let near =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        near(of(false, 0.97, 0.05, 0.2), 60.92);
        near(of(false, 0.92, 0.05, 0.2), 10.87);
        near(of(false, 0.97, 0.08, 0.2), 0.89);
        near(of(false, 0.5, 0.1, 0.07), -4.6);
        near(of(true, 0.97, 0.05, 0.2), 10.0);
        near(of(true, 0.92, 0.05, 0.2), -0.1);
    }
}
