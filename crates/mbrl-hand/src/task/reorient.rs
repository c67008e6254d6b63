//! `reorient`: a hand turns a cube in the palm.

use mbrl_env::{Augment, EnvError, Features, Field, Knowledge, Known};
use serde::{Deserialize, Serialize};

use super::{
    Choices, SensorNoise, Told, check_above_0, check_at_least_0, choices,
    digits::{Beside, Digit, Look, Place, beside, point},
    field, hand_layout, hand_servo,
};
use crate::{
    Servo,
    blocks::{Constant, FormulaFeatures},
    objective::{Objective, either},
    robot::{HandConfig, Pose},
    scalar::{Scalar, Vector, add, cross, dot, length, subtract},
    scene::{CUBE_AT, Contacts, PhysicsConfig, RandomizeConfig, Variation, cube, hand_scene},
};

/// Joints of the hand.
pub(crate) const JOINTS: usize = 24;
/// The cube's position.
pub(crate) const AT: usize = 48;
/// The directions of its first two axes, after its velocity.
pub(crate) const AXES: usize = 54;
/// Where it lay at the start, after its angular velocity.
pub(crate) const HOME: usize = 63;
/// The directions of the goal's first two axes.
pub(crate) const GOAL: usize = 66;
pub(crate) const WIDTH: usize = 72;

/// The cube lies on the roots of the fingers and the palm's far edge; half-curled fingers are the front, the thumb the side.
pub(crate) const REST: Pose = &[
    ("FFJ2", 0.3),
    ("MFJ2", 0.3),
    ("RFJ2", 0.3),
    ("LFJ2", 0.3),
    ("FFJ1", 0.9),
    ("MFJ1", 0.9),
    ("RFJ1", 0.9),
    ("LFJ1", 0.9),
    ("FFJ0", 0.5),
    ("MFJ0", 0.5),
    ("RFJ0", 0.5),
    ("LFJ0", 0.5),
    ("LFJ4", 0.05),
    ("THJ4", 0.2),
    ("THJ3", 0.7),
    ("THJ1", 0.2),
    ("THJ0", 0.4),
];

/// Goals: an axis of the world and an angle about it (rad). Left and right about the vertical, up and down about the axis across the
/// hand; then the same by less than half.
pub(crate) const GOALS: [(usize, f64); 8] =
    [(2, 1.5), (2, -1.5), (1, -1.5), (1, 1.5), (2, 0.7), (2, -0.7), (1, -0.7), (1, 0.7)];

/// Turn a cube of 57 mm in the palm to an orientation, and keep it; PDDM's task (Nagabandi et al. 2019) on a robot of our own.
///
/// Reward per step: `−7 · angle − 1000·[it fell] − 20·|position − start|`, with the geodesic angle to the goal (rad). The position
/// term turns "reaches" into "reaches and stays". The episode is over when the cube is 6 cm below or 9 cm beside its start.
/// Observed are 24 joint angles and velocities; the cube's position, velocity, directions of two axes and angular
/// velocity; where it started; the goal's two axes: 72 columns. Two axes instead of a quaternion, because they never jump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReorientConfig {
    /// From how many goals one is drawn: 2 (left, right), 4 (and up, down) or 8 (and half as far; default: 4).
    pub goals: usize,
    /// Weight of the distance from the start (default: 20; the paper has none, and its cube only reaches).
    pub position_weight: f64,
    /// How the engine steps.
    pub physics: PhysicsConfig,
    /// Largest speed of a joint (default: 3 rad/s).
    pub speed: f64,
    /// Share of the joints' range that actions use (default: 0.9).
    pub action_scale: f64,
    /// Standard deviation of the joints at the start (default: 0.02 rad); the cube starts within 2 mm, one standard deviation.
    pub start_noise: f64,
    /// Steps per episode (default: 30).
    pub max_steps: u32,
    /// Noise of the sensors (default: none).
    pub sensors: SensorNoise,
    /// Steps that actions come late (default: 0).
    pub action_delay: usize,
    /// Physics that vary between episodes (default: none).
    pub randomize: Option<RandomizeConfig>,
}

impl Default for ReorientConfig {
    fn default() -> Self {
        Self {
            goals: 4,
            position_weight: 20.0,
            physics: PhysicsConfig::default(),
            speed: 3.0,
            action_scale: 0.9,
            start_noise: 0.02,
            max_steps: 30,
            sensors: SensorNoise::default(),
            action_delay: 0,
            randomize: None,
        }
    }
}

/// Refuses a number of goals that there is not.
pub(crate) fn check_goals(goals: usize) -> Result<(), EnvError> {
    match goals {
        2 | 4 | 8 => Ok(()),
        _ => Err(EnvError::Config { field: "goals", value: goals.to_string(), rule: "2, 4 or 8" }),
    }
}

impl ReorientConfig {
    /// Refuses what no task can be made of.
    ///
    /// # Errors
    /// [`EnvError::Config`].
    pub fn check(&self) -> Result<(), EnvError> {
        check_goals(self.goals)?;
        check_above_0(&[("speed", self.speed), ("action_scale", self.action_scale)])?;
        check_at_least_0(&[("start_noise", self.start_noise), ("position_weight", self.position_weight)])?;
        self.choices().check()
    }

    /// From actions to commanded angles.
    #[must_use]
    pub fn servo(&self) -> Servo {
        hand_servo(&HandConfig::angles(REST), self.action_scale, self.speed)
    }

    /// The scene as MJCF.
    #[must_use]
    pub fn mjcf(&self, variation: &Variation) -> String {
        hand_scene(&self.physics, &Contacts::default(), &HandConfig::default(), variation, &cube(variation, CUBE_AT))
    }

    pub(crate) fn choices(&self) -> Choices<'_> {
        choices!(self)
    }

    pub(crate) fn layout() -> Vec<(Field, Told)> {
        hand_layout(cube_fields())
    }

    /// The reward and the end.
    #[must_use]
    pub fn objective(&self) -> ReorientObjective {
        ReorientObjective { position: self.position_weight }
    }

    /// What a model of the task may use: the hand beside the cube, in the cube's own frame; the cube's 24 rotations; what stays.
    #[must_use]
    pub fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::none().with_augment(CubeRotations::new());
        knowledge.features = Some(std::sync::Arc::new(self.features()));
        knowledge.known = Some(std::sync::Arc::new(known()));
        knowledge
    }

    /// The features alone.
    #[must_use]
    pub fn features(&self) -> impl Features + use<> {
        FormulaFeatures { formula: Beside::<InCube>::new(self.servo()), replaces: (HOME..WIDTH).collect() }
    }
}

/// Fields of the cube and its goal.
pub(crate) fn cube_fields() -> Vec<(Field, Told)> {
    vec![
        field("cube", "m", 3, Told::Position),
        field("cube_velocity", "m/s", 3, Told::Velocity),
        field("cube_x", "", 3, Told::Goal),
        field("cube_y", "", 3, Told::Goal),
        field("cube_turning", "rad/s", 3, Told::Velocity),
        field("home", "m", 3, Told::Goal),
        field("goal_x", "", 3, Told::Goal),
        field("goal_y", "", 3, Told::Goal),
    ]
}

/// Start and goal stay.
pub(crate) fn known() -> impl Known {
    Constant::known("reorient-goal-1", (HOME..WIDTH).collect())
}

/// The 24 rotations that map a cube to itself: which of its sides is called which makes no difference.
#[derive(Debug, Clone)]
pub(crate) struct CubeRotations(Vec<[[i8; 3]; 3]>);

impl CubeRotations {
    pub(crate) fn new() -> Self {
        let mut all = Vec::new();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for signs in 0..8_u8 {
                let mut matrix = [[0_i8; 3]; 3];
                for (row, column) in order.into_iter().enumerate() {
                    matrix[row][column] = if signs >> row & 1 == 0 { 1 } else { -1 };
                }
                if determinant(&matrix) == 1 {
                    all.push(matrix);
                }
            }
        }
        Self(all)
    }
}

fn determinant(m: &[[i8; 3]; 3]) -> i8 {
    let minor = |i: usize, j: usize| m[1][i] * m[2][j] - m[1][j] * m[2][i];
    m[0][0] * minor(1, 2) - m[0][1] * minor(0, 2) + m[0][2] * minor(0, 1)
}

impl Augment for CubeRotations {
    fn name(&self) -> &str {
        "reorient-cube-1"
    }

    fn copies(&self) -> usize {
        self.0.len()
    }

    fn observation(&self, copy: usize, obs: &mut [f32]) {
        if copy == 0 {
            return;
        }
        for first in [AXES, GOAL] {
            let of = |axis: usize| -> [f32; 3] { std::array::from_fn(|k| obs[first + 3 * axis + k]) };
            let (x, y) = (of(0), of(1));
            let axes = [x, y, cross3(x, y)];
            for new in 0..2 {
                for k in 0..3 {
                    // One of them is ±1.
                    obs[first + 3 * new + k] = (0..3).map(|old| f32::from(self.0[copy][old][new]) * axes[old][k]).sum();
                }
            }
        }
    }

    fn action(&self, _: usize, _: &mut [f32]) {}
}

fn cross3(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// The angle by which one orientation is turned against another (rad): that of the rotation between them, by sine and cosine, good to
/// the last digits near 0, and for axes that are not quite perpendicular.
pub(crate) fn angle_between<S: Scalar>(a: &[Vector<S>; 2], b: &[Vector<S>; 2]) -> S {
    let third = |pair: &[Vector<S>; 2]| cross(&pair[0], &pair[1]);
    let (a, b) = ([a[0].clone(), a[1].clone(), third(a)], [b[0].clone(), b[1].clone(), third(b)]);
    let [p, q, r] = std::array::from_fn(|k| cross(&b[k], &a[k]));
    let sine = length(&add(&add(&p, &q), &r)).scale(0.5);
    let [p, q, r] = std::array::from_fn(|k| dot(&a[k], &b[k]));
    sine.atan2(&(p + q + r).shift(-1.0).scale(0.5))
}

/// What turning the cube is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReorientObjective {
    /// Weight of the distance from the start.
    pub position: f64,
}

fn vector<S: Scalar>(next: &impl Fn(usize) -> S, first: usize) -> Vector<S> {
    std::array::from_fn(|k| next(first + k))
}

fn axes<S: Scalar>(next: &impl Fn(usize) -> S, first: usize) -> [Vector<S>; 2] {
    [vector(next, first), vector(next, first + 3)]
}

impl Objective for ReorientObjective {
    fn reward<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let angle = angle_between(&axes(next, AXES), &axes(next, GOAL));
        let away = length(&subtract(&vector(next, AT), &vector(next, HOME)));
        -(angle.scale(7.0) + self.fell(next).scale(1000.0) + away.scale(self.position))
    }

    fn over<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> Option<S> {
        Some(self.fell(next))
    }
}

impl ReorientObjective {
    fn fell<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let [x, y, z] = subtract(&vector(next, AT), &vector(next, HOME));
        either(&z.below(-0.06), &(x.square() + y.square()).above(0.09 * 0.09))
    }
}

/// The hand in the cube's frame: of each digit its tip and last joint, and the tip's commanded place, within 8 cm; the cube in the palm's
/// frame.
struct InCube;

impl Look for InCube {
    const NAME: &'static str = "reorient-tips-1";
    const WIDTH: usize = 9;

    fn objects() -> Vec<usize> {
        (AT..AT + 3).chain(AXES..AXES + 6).collect()
    }

    fn in_palm() -> Vec<usize> {
        (AT..AT + 3).collect()
    }

    fn look<S: Scalar>(_: &Digit, [measured, commanded]: &[Place<S>; 2], objects: &[S], out: &mut Vec<S>) {
        let [at, x, y] = [0, 1, 2].map(|k| point(objects, k));
        let z = cross(&x, &y);
        for tip in [measured.tip(), &measured.points[2], commanded.tip()] {
            let away = beside(tip, &at, 0.3);
            out.extend([&x, &y, &z].map(|axis| dot(axis, &away).clamp(-0.08, 0.08)));
        }
    }
}

/// What an episode came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReorientScore {
    /// Mean angle to the goal over the last five steps (rad).
    pub final_angle: f64,
    /// Largest angle to the goal in the last five steps (rad): below 0.3 it is kept.
    pub kept_angle: f64,
    /// Steps until the angle was below 0.3 rad.
    pub hit: Option<usize>,
    /// Whether the cube fell.
    pub dropped: bool,
}

impl ReorientScore {
    /// The score of an episode, by its observations after each step.
    #[must_use]
    pub fn of(observations: &[Vec<f32>]) -> Self {
        let angle = |obs: &Vec<f32>| {
            let next = |column: usize| f64::from(obs[column]);
            angle_between(&axes(&next, AXES), &axes(&next, GOAL))
        };
        let all: Vec<f64> = observations.iter().map(angle).collect();
        let last = &all[all.len().saturating_sub(5)..];
        let fell =
            |obs: &Vec<f32>| ReorientObjective { position: 0.0 }.fell(&|column: usize| f64::from(obs[column])) > 0.5;
        Self {
            final_angle: last.iter().sum::<f64>() / last.len() as f64,
            kept_angle: last.iter().copied().fold(0.0, f64::max),
            hit: all.iter().position(|angle| *angle < 0.3).map(|step| step + 1),
            dropped: observations.iter().any(fell),
        }
    }
}

/// The first two axes of a frame by its unit quaternion (real part first).
pub(crate) fn axes_of([w, x, y, z]: [f64; 4]) -> [[f64; 3]; 2] {
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y)],
        [2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x)],
    ]
}

/// The quaternion of a turn by an angle about an axis of the world.
pub(crate) fn about(axis: usize, angle: f64) -> [f64; 4] {
    let (sin, cos) = (angle / 2.0).sin_cos();
    let mut quaternion = [cos, 0.0, 0.0, 0.0];
    quaternion[1 + axis] = sin;
    quaternion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{objective::Batched, testing};
    use mbrl_env::{Device, check};

    fn row(at: [f64; 3], turn: [f64; 4], goal: [f64; 4]) -> Vec<f32> {
        let mut row = vec![0.0_f32; WIDTH];
        let mut put = |first: usize, values: &[f64]| {
            row[first..first + values.len()].iter_mut().zip(values).for_each(|(to, from)| *to = *from as f32);
        };
        put(AT, &at);
        put(AXES, axes_of(turn).as_flattened());
        put(GOAL, axes_of(goal).as_flattened());
        row
    }

    #[test]
    fn angles_are_those_of_the_rotation_between() {
        for angle in [0.0, 1e-4, 0.3, 1.5, 3.0, 3.1] {
            for axis in 0..3 {
                let (a, b) = (axes_of(about(axis, 0.2)), axes_of(about(axis, 0.2 - angle)));
                let found = angle_between(&a, &b);
                assert!((found - angle).abs() < 2e-6, "{found}, expected {angle}");
            }
        }
        // Two turns about different axes: cos(θ/2) = cos²(45°).
        let (half, _) = (std::f64::consts::FRAC_PI_2, ());
        let found = angle_between(&axes_of(about(0, half)), &axes_of(about(2, -half)));
        assert!((found - 2.0 * 0.5_f64.acos()).abs() < 1e-9, "{found}");
    }

    #[test]
    fn the_reward_by_hand() {
        let objective = ReorientConfig::default().objective();
        let of = |row: &[f32]| {
            let next = |column: usize| f64::from(row[column]);
            (objective.reward(&next), objective.over(&next))
        };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
        let (reward, over) = of(&row([0.03, 0.0, -0.04], about(2, 0.5), about(2, 1.5)));
        near(reward, -7.0 - 1.0);
        assert_eq!(over, Some(0.0));
        let (reward, over) = of(&row([0.0, 0.0, -0.07], about(2, 1.5), about(2, 1.5)));
        near(reward, -1000.0 - 1.4);
        assert_eq!(over, Some(1.0));
        assert_eq!(of(&row([0.07, 0.07, 0.0], about(2, 1.5), about(2, 1.5))).1, Some(1.0));
    }

    #[test]
    fn there_are_24_rotations_and_each_keeps_the_reward() {
        let rotations = CubeRotations::new();
        assert_eq!(rotations.copies(), 24);
        let rows: Vec<f32> = (0..3).flat_map(|i| row([0.01; 3], about(i, 0.7), about(2, 1.5))).collect();
        let reward = Batched(ReorientConfig::default().objective());
        let actions = vec![0.1; 3 * JOINTS];
        check::check_augment(&rotations, &rows, &actions, &rows, [WIDTH, JOINTS], Some(&reward), &Device::flex())
            .unwrap();
    }

    #[test]
    fn features_keep_their_rules() {
        let (mut obs, actions) = testing::rows(WIDTH, JOINTS, 5, 0.2);
        for (index, row) in obs.chunks_exact_mut(WIDTH).enumerate() {
            let turned: Vec<f32> = axes_of(about(index % 3, 0.4)).as_flattened().iter().map(|x| *x as f32).collect();
            row[AXES..AXES + 6].copy_from_slice(&turned);
            row[AT..AT + 3].copy_from_slice(&[0.1, 0.003, 0.29]);
            row[..24].iter_mut().zip(HandConfig::angles(REST)).for_each(|(q, rest)| *q = rest as f32 + 0.3 * *q + 0.1);
        }
        let config = ReorientConfig::default();
        check::check_features(&config.features(), &obs, &actions, [WIDTH, JOINTS], &Device::flex()).unwrap();
    }
}
