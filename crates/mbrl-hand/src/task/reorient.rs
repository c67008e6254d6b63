//! `reorient`: a hand turns a cube in the palm.

use std::fmt;

use mbrl_env::{Augment, EnvError, Features, Field, Knowledge, Known};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IntoDeserializer, SeqAccess, Unexpected, Visitor, value::SeqAccessDeserializer},
};

use super::{
    Choices, SensorNoise, Told, check_above_0, check_at_least_0, choices,
    digits::{Beside, Digit, Look, Place, beside, point},
    field, hand_layout, hand_servo,
};
use crate::{
    Servo,
    blocks::{Block, Formula, FormulaFeatures, FormulaKnown, Input},
    objective::{Objective, either},
    robot::{HandConfig, Pose},
    scalar::{Kernel, Scalar, Vector, add, cross, dot, each, length, scaled, subtract},
    scene::{CUBE_AT, CUBE_HALF, Contacts, PhysicsConfig, RandomizeConfig, Variation, cube, hand_scene},
};

/// Joints of the hand.
pub(crate) const JOINTS: usize = 24;
/// The cube's position.
pub(crate) const AT: usize = 48;
/// The directions of its first two axes; they follow its velocity.
pub(crate) const AXES: usize = 54;
/// Its rotation in the last step; it follows its angular velocity.
pub(crate) const TURNED: usize = 63;
/// Where it lay at the start.
pub(crate) const HOME: usize = 66;
/// The directions of the goal's first two axes.
pub(crate) const GOAL: usize = 69;
pub(crate) const WIDTH: usize = 75;

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

/// A goal of the cube: how it is to lie, seen from how it lay at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CubeTurn {
    /// Turned by 1.5 rad about the vertical, counter-clockwise seen from above.
    Left,
    /// The same clockwise.
    Right,
    /// Turned by 1.5 rad about the axis across the hand: the side towards the fingers rises.
    Up,
    /// The same the other way: that side sinks.
    Down,
    /// As `Left`, by 0.7 rad.
    HalfLeft,
    /// As `Right`, by 0.7 rad.
    HalfRight,
    /// As `Up`, by 0.7 rad.
    HalfUp,
    /// As `Down`, by 0.7 rad.
    HalfDown,
}

impl CubeTurn {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Left, Self::Right, Self::Up, Self::Down, Self::HalfLeft, Self::HalfRight, Self::HalfUp, Self::HalfDown];

    /// An axis of the world and the angle about it (rad). `across` is the axis across the hand, with the sign that makes it the cross product of
    /// the vertical and the direction of the fingers.
    #[cfg(feature = "mujoco")]
    pub(crate) fn rotation(self, across: (usize, f64)) -> (usize, f64) {
        let sideways = |angle: f64| (across.0, across.1 * angle);
        match self {
            Self::Left => (2, 1.5),
            Self::Right => (2, -1.5),
            Self::Up => sideways(-1.5),
            Self::Down => sideways(1.5),
            Self::HalfLeft => (2, 0.7),
            Self::HalfRight => (2, -0.7),
            Self::HalfUp => sideways(-0.7),
            Self::HalfDown => sideways(0.7),
        }
    }
}

/// The goals unless others are named: the four turns by 1.5 rad.
pub(crate) fn usual_goals() -> Vec<CubeTurn> {
    CubeTurn::ALL[..4].to_vec()
}

/// Refuses no goal, and a goal that is named twice.
pub(crate) fn check_goals(goals: &[CubeTurn]) -> Result<(), EnvError> {
    let refused = |value: &str, rule| Err(EnvError::Config { field: "goals", value: value.into(), rule });
    if goals.is_empty() {
        return refused("[]", "at least one");
    }
    if goals.iter().enumerate().any(|(i, turn)| goals[..i].contains(turn)) {
        return refused("a list with one of them twice", "each goal at most once");
    }
    Ok(())
}

/// Reads goals: a number of the first of [`CubeTurn::ALL`], a name, or a list of names.
pub(crate) fn read_goals<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CubeTurn>, D::Error> {
    struct Goals;

    impl<'de> Visitor<'de> for Goals {
        type Value = Vec<CubeTurn>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("2, 4, 8, a name such as \"down\", or a list such as [\"left\", \"half-down\"]")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Vec<CubeTurn>, E> {
            match number {
                2 | 4 | 8 => Ok(CubeTurn::ALL[..number as usize].to_vec()),
                _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
            }
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Vec<CubeTurn>, E> {
            match u64::try_from(number) {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
            }
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<Vec<CubeTurn>, E> {
            CubeTurn::deserialize(name.into_deserializer()).map(|turn| vec![turn])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<CubeTurn>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(list))
        }
    }

    deserializer.deserialize_any(Goals)
}

/// Turn a cube of 57 mm in the palm to an orientation and keep it there; PDDM's task (Nagabandi et al. 2019) on a robot of our own.
///
/// Reward per step: `−7 · angle − 1000·[it fell] − 20·|position − start|`, with the geodesic angle to the goal (rad). The position
/// term turns "reaches" into "reaches and stays". The episode is over when the cube is 6 cm below or 9 cm beside its start.
/// An observation has 24 joint angles and velocities; the cube's position, velocity, directions of two axes, angular velocity, and the
/// rotation vector by which it turned in the last step; where it started; the goal's two axes: 75 columns. It has two axes instead of a
/// quaternion, because they never jump. The rotation vector does not depend on how the cube's sides are named, and the axes follow from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReorientConfig {
    /// Goals from which one is drawn (default: the four turns by 1.5 rad). As an option: names, one name, or a number: 2 (left, right), 4 (and
    /// up, down) or 8 (and the halves).
    #[serde(deserialize_with = "read_goals")]
    pub goals: Vec<CubeTurn>,
    /// Weight of the distance from the start (default: 20; the paper has no such term, and its cube only reaches the goal).
    pub position_weight: f64,
    /// Settings of the engine's steps.
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
    /// Delay of actions, in steps (default: 0).
    pub action_delay: usize,
    /// Variation of the physics between episodes (default: none).
    pub randomize: Option<RandomizeConfig>,
}

impl Default for ReorientConfig {
    fn default() -> Self {
        Self {
            goals: usual_goals(),
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

impl ReorientConfig {
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

    /// The reward and the termination.
    #[must_use]
    pub fn objective(&self) -> ReorientObjective {
        ReorientObjective { position: self.position_weight }
    }

    /// What a model of the task may use: the hand relative to the cube, in a frame of the cube that does not depend on how its sides are named;
    /// the axes, which follow from the cube's rotation; the constant columns.
    #[must_use]
    pub fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::none();
        knowledge.features = Some(std::sync::Arc::new(self.features()));
        knowledge.known = Some(std::sync::Arc::new(known()));
        knowledge
    }

    /// The features alone.
    #[must_use]
    pub fn features(&self) -> impl Features + use<> {
        let replaces = (AXES..AXES + 6).chain(TURNED..WIDTH).collect();
        FormulaFeatures { formula: Beside::<InCube>::new(self.servo()), replaces }
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
        field("cube_turned", "rad", 3, Told::Goal),
        field("home", "m", 3, Told::Goal),
        field("goal_x", "", 3, Told::Goal),
        field("goal_y", "", 3, Told::Goal),
    ]
}

/// The axes follow from the cube's rotation; start and goal are constant.
pub(crate) fn known() -> impl Known {
    let turned = (AXES..AXES + 6).map(Input::Obs).chain((TURNED..TURNED + 3).map(Input::Next));
    let kept = (HOME..WIDTH).map(Input::Obs);
    let blocks = [Block { inputs: turned.collect(), width: 6 }, Block { inputs: kept.collect(), width: WIDTH - HOME }];
    FormulaKnown { formula: TurnedAxes(blocks), columns: (AXES..AXES + 6).chain(HOME..WIDTH).collect() }
}

/// The axes after a rotation, then the constant columns.
struct TurnedAxes([Block; 2]);

impl Formula for TurnedAxes {
    fn name(&self) -> &'static str {
        "reorient-turned-1"
    }

    fn blocks(&self) -> &[Block] {
        &self.0
    }

    fn evaluate<S: Scalar>(&self, block: usize, inputs: &[S], out: &mut Vec<S>) {
        if block > 0 {
            return out.extend_from_slice(inputs);
        }
        let by = point(inputs, 2);
        for axis in [point(inputs, 0), point(inputs, 1)] {
            out.extend(rotated(&axis, &by));
        }
    }
}

/// A vector rotated by a rotation vector (rad).
fn rotated<S: Scalar>(v: &Vector<S>, by: &Vector<S>) -> Vector<S> {
    let angle = length(by);
    // Half angles keep their digits where the rotation is small.
    let (sin, cos) = angle.scale(0.5).sin_cos();
    let over = angle.recip();
    let across = sin.times(&cos).times(&over).scale(2.0);
    let along = sin.times(&over).square().times(&dot(by, v)).scale(2.0);
    let kept = sin.square().scale(-2.0).shift(1.0);
    let normal = cross(by, v);
    each(|i| v[i].times(&kept).plus(&normal[i].times(&across)).plus(&by[i].times(&along)))
}

/// Of the 24 ways to name the axes of a cube, the one whose first axis is nearest to the world's x and whose second, of those left, is
/// nearest to y. A network therefore sees the same input whichever of its identical sides a cube lies on.
#[inline(always)]
fn nearest_axes<S: Scalar>([x, y]: [Vector<S>; 2]) -> [Vector<S>; 3] {
    let axes = [x.clone(), y.clone(), cross(&x, &y)];
    let none = each(|i| axes[i][0].like(0.0));
    let first = largest(&each(|i| axes[i][0].clone()), &none);
    let taken = each(|i| first[i].square());
    let second = largest(&each(|i| axes[i][1].clone()), &taken);
    let [first, second] = [first, second].map(|parts| {
        each(|k| axes[0][k].times(&parts[0]).plus(&axes[1][k].times(&parts[1])).plus(&axes[2][k].times(&parts[2])))
    });
    let third = cross(&first, &second);
    [first, second, third]
}

/// At the position of the number with the largest magnitude among those not `taken`: its sign; 0 at the other positions.
#[inline(always)]
fn largest<S: Scalar>(numbers: &[S; 3], taken: &[S; 3]) -> [S; 3] {
    let size = each(|i| numbers[i].magnitude().times(&taken[i].scale(-1.0).shift(1.0)).minus(&taken[i]));
    let beaten = |i: usize, j: usize| size[i].minus(&size[j]).below(0.0);
    let not = |flag: S| flag.scale(-1.0).shift(1.0);
    let first = not(beaten(0, 1)).times(&not(beaten(0, 2)));
    let second = not(first.clone()).times(&not(beaten(1, 2)));
    let third = not(first.plus(&second));
    let chosen = [first, second, third];
    each(|i| chosen[i].times(&numbers[i].below(0.0).scale(-2.0).shift(1.0)))
}

/// The 24 rotations that map a cube to itself: how its sides are named makes no difference.
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

/// The angle of the rotation between two orientations (rad), from its sine and cosine: accurate to the last digits near 0, also for axes
/// that are not quite perpendicular.
pub(crate) fn angle_between<S: Scalar>(a: &[Vector<S>; 2], b: &[Vector<S>; 2]) -> S {
    let third = |pair: &[Vector<S>; 2]| cross(&pair[0], &pair[1]);
    let (a, b) = ([a[0].clone(), a[1].clone(), third(a)], [b[0].clone(), b[1].clone(), third(b)]);
    let [p, q, r] = std::array::from_fn(|k| cross(&b[k], &a[k]));
    let sine = length(&add(&add(&p, &q), &r)).scale(0.5);
    let [p, q, r] = std::array::from_fn(|k| dot(&a[k], &b[k]));
    sine.atan2(&(p + q + r).shift(-1.0).scale(0.5))
}

/// The reward for turning the cube.
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

/// The hand in the frame of the cube's [nearest axes](nearest_axes). For each digit: its tip and last joint, and the tip's commanded place,
/// within 8 cm; the gaps between the cube and five spheres in its links, now and where the command would take them, clipped to −2 and 4 cm;
/// how its tip pushes the cube, and the moment of that push. In addition, these axes and the cube in the palm's frame.
struct InCube;

/// [`nearest_axes`].
struct NearestAxes;

impl Kernel<2, 3> for NearestAxes {
    #[inline(always)]
    fn of<S: Scalar>(&self, axes: [Vector<S>; 2]) -> [Vector<S>; 3] {
        nearest_axes(axes)
    }
}

/// A point relative to an origin, within 30 cm, along three axes.
struct Inside;

impl Kernel<5, 1> for Inside {
    #[inline(always)]
    fn of<S: Scalar>(&self, [point, origin, x, y, z]: [Vector<S>; 5]) -> [Vector<S>; 1] {
        let away = beside(&point, &origin, 0.3);
        [[dot(&x, &away), dot(&y, &away), dot(&z, &away)]]
    }
}

/// A sphere in a link relative to the cube, in the frame of the cube's nearest axes.
struct Sphere {
    radius: f64,
}

impl Sphere {
    /// For a position of the sphere's centre: the normal at the cube's nearest point, and the gap between sphere and cube.
    #[inline(always)]
    fn beside_cube<S: Scalar>(&self, at: &Vector<S>) -> (Vector<S>, S) {
        let beyond = each(|i| at[i].magnitude().shift(-CUBE_HALF));
        let outside = each(|i| beyond[i].clamp(0.0, f64::MAX));
        let away = length(&outside);
        let over = away.recip();
        let sign = |i: usize| at[i].below(0.0).scale(-2.0).shift(1.0);
        let normal = each(|i| outside[i].times(&over).times(&sign(i)));
        let deepest = larger(&larger(&beyond[0], &beyond[1]), &beyond[2]);
        let gap = away.plus(&deepest.clamp(f64::MIN, 0.0)).shift(-self.radius);
        (normal, gap)
    }
}

/// Inputs: two points, measured and commanded, with the sphere midway between them. Outputs: the sphere's gaps to the cube, now and after
/// that small move; how it then pushes the cube; the moment of that push.
impl Kernel<4, 3> for Sphere {
    #[inline(always)]
    fn of<S: Scalar>(&self, [from, to, from_then, to_then]: [Vector<S>; 4]) -> [Vector<S>; 3] {
        let [now, then] = [[from, to], [from_then, to_then]].map(|[a, b]| each(|i| a[i].plus(&b[i]).scale(0.5)));
        let (normal, gap) = self.beside_cube(&now);
        let after = gap.plus(&dot(&normal, &subtract(&then, &now)));
        let pressed = after.clamp(-0.02, 0.0);
        let push = each(|i| normal[i].times(&pressed));
        let moment = scaled(&cross(&now, &push), 1.0 / CUBE_HALF);
        [[gap.clamp(-0.02, 0.04), after.clamp(-0.02, 0.04), pressed], push, moment]
    }
}

#[inline(always)]
fn larger<S: Scalar>(a: &S, b: &S) -> S {
    a.plus(b).plus(&a.minus(b).magnitude()).scale(0.5)
}

impl Look for InCube {
    const NAME: &'static str = "reorient-tips-3";
    const WIDTH: usize = 25;

    fn objects() -> Vec<usize> {
        (AT..AT + 3).chain(AXES..AXES + 6).collect()
    }

    fn in_palm() -> Vec<usize> {
        (AT..AT + 3).collect()
    }

    const ONCE: usize = 6;

    fn whole() -> Vec<usize> {
        (AXES..AXES + 6).collect()
    }

    fn once<S: Scalar>(objects: &[S], out: &mut Vec<S>) {
        let [first, second, _] = S::run(&NearestAxes, [&point(objects, 0), &point(objects, 1)]);
        out.extend(first.into_iter().chain(second));
    }

    fn look<S: Scalar>(digit: &Digit, places: &[Place<S>; 2], objects: &[S], out: &mut Vec<S>) {
        let at = point(objects, 0);
        let [x, y, z] = S::run(&NearestAxes, [&point(objects, 1), &point(objects, 2)]);
        // Measured and commanded: where the links begin, and the tip.
        let [mut measured, mut commanded] = [Vec::with_capacity(4), Vec::with_capacity(4)];
        for (place, inside) in places.iter().zip([&mut measured, &mut commanded]) {
            for of in &place.points {
                inside.extend(S::run(&Inside, [of, &at, &x, &y, &z]));
            }
        }
        for x in [&measured[3], &measured[2], &commanded[3]].into_iter().flatten() {
            out.push(x.clamp(-0.08, 0.08));
        }
        let [root, middle, tip] = digit.radii;
        // The ends of the links, with the tip last, then the middles of the inner two.
        for (ends, radius) in [([1, 1], middle), ([2, 2], tip), ([3, 3], tip), ([0, 1], root), ([1, 2], middle)] {
            let [[from, to], [from_then, to_then]] = [&measured, &commanded].map(|of| ends.map(|end| &of[end]));
            let [[gap, after, _], push, moment] = S::run(&Sphere { radius }, [from, to, from_then, to_then]);
            out.push(gap);
            out.push(after);
            if ends == [3, 3] {
                out.extend(moment.into_iter().chain(push));
            }
        }
    }
}

/// The outcome of an episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReorientScore {
    /// Mean angle to the goal over the last five steps (rad).
    pub final_angle: f64,
    /// Largest angle to the goal in the last five steps (rad): below 0.3, the goal is kept.
    pub kept_angle: f64,
    /// Steps until the angle was below 0.3 rad.
    pub hit: Option<usize>,
    /// Whether the cube fell.
    pub dropped: bool,
}

impl ReorientScore {
    /// The score of an episode, from the observations after each step.
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

/// The first two axes of a frame, from its unit quaternion (real part first).
pub(crate) fn axes_of([w, x, y, z]: [f64; 4]) -> [[f64; 3]; 2] {
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y)],
        [2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x)],
    ]
}

/// The quaternion of a rotation by an angle about an axis of the world.
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

    #[test]
    fn goals_are_a_number_a_name_or_names() {
        use CubeTurn::{Down, HalfDown, Left, Right, Up};
        let read = |goals: serde_json::Value| {
            let config = serde_json::from_value(serde_json::json!({ "goals": goals }));
            config.map(|config: ReorientConfig| config.goals).map_err(|error| error.to_string())
        };
        assert_eq!(read(2.into()).unwrap(), [Left, Right]);
        assert_eq!(read(4.into()).unwrap(), [Left, Right, Up, Down]);
        assert_eq!(read(8.into()).unwrap(), CubeTurn::ALL);
        assert_eq!(read("down".into()).unwrap(), [Down]);
        assert_eq!(read(vec!["up", "half-down"].into()).unwrap(), [Up, HalfDown]);
        for (wrong, word) in
            [(3.into(), "integer `3`"), ((-2).into(), "integer `-2`"), (2.5.into(), "floating point `2.5`")]
        {
            let said = read(wrong).unwrap_err();
            assert!(said.contains(word) && said.contains("expected 2, 4, 8, a name such as"), "{said}");
        }
        assert!(read("upwards".into()).unwrap_err().contains("unknown variant `upwards`, expected one of `left`"));
        let config = ReorientConfig { goals: vec![HalfDown, Up], ..Default::default() };
        assert_eq!(serde_json::from_value::<ReorientConfig>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }

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
        // Two rotations about different axes: cos(θ/2) = cos²(45°).
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
    fn features_do_not_depend_on_how_the_sides_are_called() {
        let (rotations, features) = (CubeRotations::new(), ReorientConfig::default().features());
        let mut rng = mbrl_env::Rng::new(5);
        for _ in 0..20 {
            let angles = [0, 1, 2].map(|axis| about(axis, rng.uniform_f64(-3.0, 3.0)));
            let [a, b, c] = angles.map(axes_of);
            // Three rotations, one after the other.
            let turn = |axes: [[f64; 3]; 2], [x, y]: [[f64; 3]; 2]| {
                let z = cross(&x, &y);
                axes.map(|v| each(|k| x[k] * v[0] + y[k] * v[1] + z[k] * v[2]))
            };
            let axes = turn(turn(a, b), c);
            let mut obs: Vec<f32> = row([0.1, 0.003, 0.29], about(0, 0.0), about(2, 1.5));
            obs[AXES..AXES + 6].iter_mut().zip(axes.as_flattened()).for_each(|(to, from)| *to = *from as f32);
            let seen = |copy: usize| -> Vec<f32> {
                let mut obs = obs.clone();
                rotations.observation(copy, &mut obs);
                let (device, rows) = (Device::flex(), [1, WIDTH]);
                let obs = burn::tensor::Tensor::<1>::from_floats(&obs[..], &device).reshape(rows);
                let actions = burn::tensor::Tensor::<2>::zeros([1, JOINTS], &device);
                features.tensor(obs, actions).into_data().iter::<f32>().collect()
            };
            let first = seen(0);
            for copy in 1..24 {
                for (found, expected) in seen(copy).iter().zip(&first) {
                    assert!((found - expected).abs() < 1e-5, "copy {copy}: {found}, expected {expected}");
                }
            }
            // A frame: right-handed, and within 55° of the world's axes, as is the nearest of 24.
            let [x, y, z] = nearest_axes(axes);
            for (axis, k) in [(&x, 0), (&y, 1), (&z, 2)] {
                assert!((length(axis) - 1.0).abs() < 1e-9);
                assert!(k == 2 || axis[k] > 0.5, "{axis:?}");
            }
            assert!(dot(&x, &y).abs() < 1e-9 && dot(&cross(&x, &y), &z) > 0.999);
        }
    }

    #[test]
    fn axes_turn_by_a_rotation_vector() {
        for angle in [0.0, 1e-5, 0.3, 2.0] {
            let direction: Vector<f64> = [0.48, -0.6, 0.64];
            let by = direction.map(|x| x * angle);
            let (v, w) = ([0.2, 0.9, -0.3], [-0.7, 0.1, 0.4]);
            let (turned, other) = (rotated(&v, &by), rotated(&w, &by));
            // Lengths, angles and the part along the direction are unchanged; the part across it turns by the angle.
            assert!(
                (dot(&turned, &other) - dot(&v, &w)).abs() < 1e-12
                    && (dot(&turned, &turned) - dot(&v, &v)).abs() < 1e-12
            );
            assert!((dot(&turned, &direction) - dot(&v, &direction)).abs() < 1e-12);
            let across = |v: &[f64; 3]| each(|i| v[i] - direction[i] * dot(v, &direction));
            let (before, after) = (across(&v), across(&turned));
            let sine = dot(&cross(&before, &after), &direction);
            assert!((sine.atan2(dot(&before, &after)) - angle).abs() < 1e-9, "{angle}");
        }
    }

    #[test]
    fn gaps_to_the_cube_are_those_to_its_nearest_point() {
        let (h, radius) = (CUBE_HALF, 0.008);
        let mut rng = mbrl_env::Rng::new(3);
        for _ in 0..200 {
            let at: Vector<f64> = [(); 3].map(|()| rng.uniform_f64(-2.0 * h, 2.0 * h));
            let sphere = Sphere { radius };
            let (normal, gap) = sphere.beside_cube(&at);
            let away = subtract(&at, &at.map(|x| x.clamp(-h, h)));
            if length(&away) < 1e-4 {
                // Inside: the depth is the distance to the nearest side, and there is no push.
                let deep = at.iter().map(|x| h - x.abs()).fold(f64::MAX, f64::min);
                assert!((gap + deep + radius).abs() < 2e-6, "{at:?}: {gap}");
                assert!(length(&normal) <= 1.0);
                continue;
            }
            assert!((gap - (length(&away) - radius)).abs() < 1e-9, "{at:?}: {gap}");
            // The normal points away from the nearest point, and a small move changes the gap by its part along the normal.
            assert!((dot(&normal, &away) - length(&away)).abs() < 1e-9);
            let moved = add(&at, &[(); 3].map(|()| rng.uniform_f64(-1e-6, 1e-6)));
            let (_, found) = sphere.beside_cube(&moved);
            let [[now, after, _], ..] = sphere.of([at, at, moved, moved]);
            assert!((now - gap.clamp(-0.02, 0.04)).abs() < 1e-12);
            assert!((after - found.clamp(-0.02, 0.04)).abs() < 1e-8, "{at:?}");
        }
    }

    #[test]
    fn features_keep_their_rules() {
        // Two rows at each of three places: gaps have kinks within millimetres, and the rows must lie where the gaps are smooth.
        for (turn, [x, y]) in [(0, [0.093, -0.0028]), (0, [0.114, -0.0028]), (2, [0.0983, -0.0067])] {
            let (mut obs, actions) = testing::rows(WIDTH, JOINTS, 2, 0.2);
            for (index, row) in obs.chunks_exact_mut(WIDTH).enumerate() {
                let turned: Vec<f32> =
                    axes_of(about((index + turn) % 3, 0.4)).as_flattened().iter().map(|x| *x as f32).collect();
                row[AXES..AXES + 6].copy_from_slice(&turned);
                row[AT..AT + 3].copy_from_slice(&[x, y, 0.29]);
                row[..24]
                    .iter_mut()
                    .zip(HandConfig::angles(REST))
                    .for_each(|(q, rest)| *q = rest as f32 + 0.3 * *q + 0.1);
            }
            let config = ReorientConfig::default();
            check::check_features(&config.features(), &obs, &actions, [WIDTH, JOINTS], &Device::flex()).unwrap();
        }
    }
}
