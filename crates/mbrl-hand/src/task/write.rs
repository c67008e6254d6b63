//! `write`: a hand moves a pencil along a path on paper.

use std::f64::consts::TAU;

use mbrl_env::{EnvError, Features, Field, Knowledge, Known, Rng};
use serde::{Deserialize, Serialize};

use super::{
    Choices, SensorNoise, Told, check_above_0, check_at_least_0, choices,
    digits::{Beside, Digit, Look, Place, on_axis, point},
    field, hand_layout, hand_servo,
};
use crate::{
    Servo,
    blocks::{Block, Formula, FormulaFeatures, FormulaKnown, Input},
    objective::{Objective, either},
    robot::{HandConfig, Pose},
    scalar::{Scalar, Vector, dot, length, subtract},
    scene::{Contacts, PENCIL_TIP, PENCIL_TIP_RADIUS, PhysicsConfig, RandomizeConfig, Variation, hand_scene, pencil},
};

/// Joints of the hand.
pub(crate) const JOINTS: usize = 24;
/// The pencil's middle.
pub(crate) const AT: usize = 48;
/// The direction from its tip to its blunt end, after its velocity; its angular velocity follows.
pub(crate) const AXIS: usize = 54;
/// Cosine and sine of the path's phase.
pub(crate) const PHASE: usize = 60;
/// The tip's target.
pub(crate) const TARGET: usize = 62;
/// Where the tip was at the start.
pub(crate) const ORIGIN: usize = 64;
/// The path: coefficients of cosine and sine of the phase, then of twice the phase, two columns each.
pub(crate) const PATH: usize = 66;
/// Where the pencil's middle was at the start.
pub(crate) const HOME: usize = 74;
pub(crate) const WIDTH: usize = 77;

/// The grasp squeezes 6 mm beyond contact: the thumb against the first three fingers, across the pencil.
pub(crate) const REST: Pose = &[
    ("FFJ2", 0.832),
    ("FFJ1", 0.919),
    ("FFJ0", 0.650),
    ("MFJ2", 0.878),
    ("MFJ1", 0.941),
    ("MFJ0", 0.655),
    ("RFJ2", 0.832),
    ("RFJ1", 0.919),
    ("RFJ0", 0.650),
    ("LFJ2", 0.15),
    ("LFJ1", 0.1),
    ("LFJ0", 0.1),
    ("THJ4", -0.762),
    ("THJ3", 1.239),
    ("THJ2", 0.003),
    ("THJ1", 0.004),
    ("THJ0", 0.006),
];

/// The pose that touches the pencil: episodes start in it, then the servos close.
pub(crate) const OPEN: Pose = &[
    ("FFJ2", 0.774),
    ("FFJ1", 0.875),
    ("FFJ0", 0.633),
    ("MFJ2", 0.811),
    ("MFJ1", 0.906),
    ("MFJ0", 0.646),
    ("RFJ2", 0.774),
    ("RFJ1", 0.875),
    ("RFJ0", 0.633),
    ("LFJ2", 0.15),
    ("LFJ1", 0.1),
    ("LFJ0", 0.1),
    ("THJ4", -0.492),
    ("THJ3", 1.177),
    ("THJ2", 0.169),
    ("THJ1", 0.282),
    ("THJ0", 0.323),
];

/// The hand rests on the little finger's edge.
const ROLL: f64 = -1.75;
/// Height of the wrist at which the pencil's tip is on the paper (m).
const HEIGHT: f64 = 0.0824;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WritePath {
    /// A circle that begins at a new place in each episode (default).
    #[default]
    Circle,
    /// A figure eight: ± radius along the hand, and across it at twice the frequency.
    FigureEight,
    /// A closed curve of two harmonics, a new one in each episode, as long as the circle.
    Unseen,
}

/// Move the tip of a pencil along a path on paper; PDDM's handwriting task (Nagabandi et al. 2019), whose code was not published, on
/// a robot of our own.
///
/// Reward per step: `−100·|tip − target| − 100·|height of the tip| − 10·[tilted by more than 41°] − 500·[lost]`, in metres. The pencil is
/// lost, and the episode over, when its axis is below 30° or its middle more than 6 cm from where it started. (The publication weights the
/// height by 20; the tip then hovers.) An observation has 24 joint angles and velocities; position, velocity, axis and angular velocity of
/// the pencil; the path's phase, the target, and the path's coefficients: 77 columns.
///
/// A fingertip grasp needs elliptic friction cones with `impratio` 20 and stiff contacts: with pyramidal cones the pencil slowly slips
/// out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriteConfig {
    /// What is written.
    pub path: WritePath,
    /// Size of the path (default: 0.010 m).
    pub radius: f64,
    /// Steps until the path is closed (default: 60).
    pub period: f64,
    /// Settings of the engine's steps.
    pub physics: PhysicsConfig,
    /// Largest speed of a joint (default: 3 rad/s).
    pub speed: f64,
    /// Share of the joints' range that actions use (default: 0.35, small motions around the grasp).
    pub action_scale: f64,
    /// Standard deviation of the joints at the start (default: 0.02 rad).
    pub start_noise: f64,
    /// Steps per episode (default: 60).
    pub max_steps: u32,
    /// Noise of the sensors (default: none).
    pub sensors: SensorNoise,
    /// Delay of actions, in steps (default: 0).
    pub action_delay: usize,
    /// Variation of the physics between episodes (default: none).
    pub randomize: Option<RandomizeConfig>,
}

impl Default for WriteConfig {
    fn default() -> Self {
        Self {
            path: WritePath::default(),
            radius: 0.010,
            period: 60.0,
            physics: PhysicsConfig::default(),
            speed: 3.0,
            action_scale: 0.35,
            start_noise: 0.02,
            max_steps: 60,
            sensors: SensorNoise::default(),
            action_delay: 0,
            randomize: None,
        }
    }
}

impl WriteConfig {
    /// Refuses settings from which no task can be made.
    ///
    /// # Errors
    /// [`EnvError::Config`].
    pub fn check(&self) -> Result<(), EnvError> {
        check_above_0(&[("period", self.period), ("speed", self.speed), ("action_scale", self.action_scale)])?;
        check_at_least_0(&[("start_noise", self.start_noise), ("radius", self.radius)])?;
        self.choices().check()
    }

    fn hand() -> HandConfig {
        HandConfig { height: HEIGHT, roll: ROLL, ..HandConfig::default() }
    }

    /// The map from actions to commanded angles.
    #[must_use]
    pub fn servo(&self) -> Servo {
        hand_servo(&HandConfig::angles(REST), self.action_scale, self.speed)
    }

    /// The scene as MJCF.
    #[must_use]
    pub fn mjcf(&self, variation: &Variation) -> String {
        let contacts = Contacts {
            elliptic: Some(20.0),
            solref: [0.01, 1.0],
            solimp: [0.95, 0.99, 0.001],
            floor_touches_robot: true,
            ..Contacts::default()
        };
        hand_scene(&self.physics, &contacts, &Self::hand(), variation, &pencil(variation))
    }

    pub(crate) fn choices(&self) -> Choices<'_> {
        choices!(self)
    }

    pub(crate) fn layout() -> Vec<(Field, Told)> {
        hand_layout(vec![
            field("pencil", "m", 3, Told::Position),
            field("pencil_velocity", "m/s", 3, Told::Velocity),
            field("pencil_axis", "", 3, Told::Goal),
            field("pencil_turning", "rad/s", 3, Told::Velocity),
            field("phase", "", 2, Told::Goal),
            field("target", "m", 2, Told::Goal),
            field("origin", "m", 2, Told::Goal),
            field("path", "m", 8, Told::Goal),
            field("home", "m", 3, Told::Goal),
        ])
    }

    /// A path: coefficients of cosine − 1 and sine of the phase, then of twice the phase, whose sum is the target's offset from the start, in
    /// the plane (m).
    pub(crate) fn draw_path(&self, rng: &mut Rng) -> [f64; 8] {
        let r = self.radius;
        match self.path {
            WritePath::Circle => {
                // r (cos(θ + φ) − cos φ, sin(θ + φ) − sin φ)
                let (sin, cos) = rng.uniform_f64(0.0, TAU).sin_cos();
                [r * cos, r * sin, -r * sin, r * cos, 0.0, 0.0, 0.0, 0.0]
            }
            WritePath::FigureEight => [0.0, 0.0, r, 0.0, 0.0, 0.0, 0.0, r],
            WritePath::Unseen => {
                let mut path: [f64; 8] = std::array::from_fn(|_| rng.normal_f64());
                // The second harmonic is half as large, so that neither dominates the other.
                path[4..].iter_mut().for_each(|x| *x *= 0.5);
                let scale = TAU * r / path_length(&path).max(1e-9);
                path.map(|x| x * scale)
            }
        }
    }

    /// The reward and the termination.
    #[must_use]
    pub fn objective(&self) -> WriteObjective {
        WriteObjective
    }

    /// What a model of the task may use: the hand relative to the pencil; a target that moves by the clock.
    #[must_use]
    pub fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::none();
        knowledge.features = Some(std::sync::Arc::new(self.features()));
        knowledge.known = Some(std::sync::Arc::new(self.known()));
        knowledge
    }

    /// The features alone.
    #[must_use]
    pub fn features(&self) -> impl Features + use<> {
        FormulaFeatures { formula: Beside::<AtPencil>::new(self.servo()), replaces: (PHASE..WIDTH).collect() }
    }

    /// The target, which moves by the clock, and the constant columns.
    #[must_use]
    pub fn known(&self) -> impl Known + use<> {
        let (sin, cos) = (TAU / self.period).sin_cos();
        let one = |column: usize| Block { inputs: vec![Input::Obs(column)], width: 1 };
        let mut blocks =
            vec![Block { inputs: (PHASE..PHASE + 2).chain(ORIGIN..PATH + 8).map(Input::Obs).collect(), width: 4 }];
        blocks.extend((ORIGIN..WIDTH).map(one));
        FormulaKnown { formula: Clock { sin, cos, blocks }, columns: (PHASE..WIDTH).collect() }
    }
}

/// Length of a closed path (m).
fn path_length(path: &[f64; 8]) -> f64 {
    let at = |step: usize| offset(&(TAU * step as f64 / 360.0).sin_cos(), path);
    (0..360)
        .map(|step| {
            let (a, b) = (at(step), at(step + 1));
            (a[0] - b[0]).hypot(a[1] - b[1])
        })
        .sum()
}

/// The target's offset from the path's origin at a phase, given by its sine and cosine.
pub(crate) fn offset<S: Scalar>((sin, cos): &(S, S), path: &[S; 8]) -> [S; 2] {
    // Of twice the phase.
    let (sin2, cos2) = ((sin.clone() * cos.clone()).scale(2.0), cos.square() - sin.square());
    let terms = [cos.shift(-1.0), sin.clone(), cos2.shift(-1.0), sin2];
    std::array::from_fn(|k| {
        let [a, b, c, d] = std::array::from_fn(|i| path[2 * i + k].clone() * terms[i].clone());
        a + b + c + d
    })
}

/// The target, which moves by the clock.
struct Clock {
    sin: f64,
    cos: f64,
    blocks: Vec<Block>,
}

impl Formula for Clock {
    fn name(&self) -> &'static str {
        "write-clock-1"
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn evaluate<S: Scalar>(&self, block: usize, inputs: &[S], out: &mut Vec<S>) {
        if block > 0 {
            out.push(inputs[0].clone());
            return;
        }
        let cos = inputs[0].scale(self.cos) - inputs[1].scale(self.sin);
        let sin = inputs[0].scale(self.sin) + inputs[1].scale(self.cos);
        let path = std::array::from_fn(|k| inputs[4 + k].clone());
        let [x, y] = offset(&(sin.clone(), cos.clone()), &path);
        out.extend([cos, sin, inputs[2].clone() + x, inputs[3].clone() + y]);
    }
}

/// The reward for writing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WriteObjective;

fn vector<S: Scalar>(next: &impl Fn(usize) -> S, first: usize) -> Vector<S> {
    std::array::from_fn(|k| next(first + k))
}

/// The centre of the pencil's tip (m).
pub(crate) fn tip<S: Scalar>(next: &impl Fn(usize) -> S) -> Vector<S> {
    on_axis(&vector(next, AT), &vector(next, AXIS), PENCIL_TIP)
}

impl Objective for WriteObjective {
    fn reward<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let [x, y, z] = tip(next);
        let (x, y) = (x - next(TARGET), y - next(TARGET + 1));
        let away = (x.square() + y.square()).root();
        let height = z.shift(-PENCIL_TIP_RADIUS).magnitude();
        // A vertical part of 0.75: 41°.
        let tilted = next(AXIS + 2).below(0.75);
        -((away + height).scale(100.0) + tilted.scale(10.0) + self.lost(next).scale(500.0))
    }

    fn over<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> Option<S> {
        Some(self.lost(next))
    }
}

impl WriteObjective {
    fn lost<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let away = subtract(&vector(next, AT), &vector(next, HOME));
        either(&next(AXIS + 2).below(0.5), &dot(&away, &away).above(0.06 * 0.06))
    }
}

/// The hand relative to the pencil: for each digit its tip and the tip's commanded place, along the pencil's axis and across it, and the
/// difference between the two; the pencil in the palm's frame.
struct AtPencil;

impl Look for AtPencil {
    const NAME: &'static str = "write-tips-1";
    const WIDTH: usize = 10;

    fn hand() -> HandConfig {
        WriteConfig::hand()
    }

    fn objects() -> Vec<usize> {
        (AT..AT + 3).chain(AXIS..AXIS + 3).collect()
    }

    fn in_palm() -> Vec<usize> {
        (AT..AT + 3).collect()
    }

    fn look<S: Scalar>(_: &Digit, [measured, commanded]: &[Place<S>; 2], objects: &[S], out: &mut Vec<S>) {
        let [at, axis] = [0, 1].map(|k| point(objects, k));
        for place in [measured, commanded] {
            let away = subtract(place.tip(), &at);
            let along = dot(&away, &axis);
            let beside = length(&subtract(&away, &axis.clone().map(|x| x * along.clone())));
            out.extend([along, beside]);
        }
        out.extend(subtract(measured.tip(), &at));
        out.extend(subtract(commanded.tip(), measured.tip()));
    }
}

/// The outcome of an episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WriteScore {
    /// Mean distance of the tip from its target, in the plane (m).
    pub error: f64,
    /// Mean height of the tip above the paper (m).
    pub height: f64,
    /// Whether the pencil was lost.
    pub lost: bool,
}

impl WriteScore {
    /// The score of an episode, from the observations after each step.
    #[must_use]
    pub fn of(observations: &[Vec<f32>]) -> Self {
        let (mut error, mut height) = (0.0, 0.0);
        for ([x, y, z], target) in Self::track(observations) {
            error += (x - target[0]).hypot(y - target[1]);
            height += (z - PENCIL_TIP_RADIUS).abs();
        }
        let count = observations.len() as f64;
        let lost = |obs: &Vec<f32>| WriteObjective.lost(&|column: usize| f64::from(obs[column])) > 0.5;
        Self { error: error / count, height: height / count, lost: observations.iter().any(lost) }
    }

    /// The tip's position and its target on the paper (m), at each observation.
    pub fn track(observations: &[Vec<f32>]) -> impl Iterator<Item = ([f64; 3], [f64; 2])> {
        observations.iter().map(|obs| {
            let next = |column: usize| f64::from(obs[column]);
            (tip(&next), [next(TARGET), next(TARGET + 1)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use mbrl_env::{Device, check};

    #[test]
    fn paths_start_at_their_origin_and_have_the_length_of_the_circle() {
        let mut rng = Rng::new(1);
        for path in [WritePath::Circle, WritePath::Unseen, WritePath::Unseen] {
            let path = WriteConfig { path, ..WriteConfig::default() }.draw_path(&mut rng);
            assert_eq!(offset(&(0.0, 1.0), &path), [0.0; 2]);
            assert!((path_length(&path) - TAU * 0.01).abs() < 1e-5, "{}", path_length(&path));
        }
        let eight = WriteConfig { path: WritePath::FigureEight, ..WriteConfig::default() }.draw_path(&mut rng);
        let [x, y] = offset(&0.3_f64.sin_cos(), &eight);
        assert!((x - 0.01 * 0.3_f64.sin()).abs() < 1e-12 && (y - 0.01 * 0.6_f64.sin()).abs() < 1e-12);
        let circle = WriteConfig::default().draw_path(&mut rng);
        let (middle, at) = ([-circle[0], -circle[1]], offset(&1.1_f64.sin_cos(), &circle));
        assert!(((at[0] - middle[0]).hypot(at[1] - middle[1]) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn the_reward_by_hand() {
        let mut row = vec![0.0_f32; WIDTH];
        // Upright, the tip 1 mm above the paper and 3 and 4 mm beside the target.
        row[AXIS + 2] = 1.0;
        row[AT..AT + 3].copy_from_slice(&[0.003, 0.004, 0.072]);
        row[HOME..HOME + 3].copy_from_slice(&[0.0, 0.0, 0.07]);
        let of = |row: &[f32]| {
            let next = |column: usize| f64::from(row[column]);
            (WriteObjective.reward(&next), WriteObjective.over(&next))
        };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
        near(of(&row).0, -0.5 - 0.1);
        assert_eq!(of(&row).1, Some(0.0));
        row[HOME] = 0.07;
        near(of(&row).0, -0.6 - 500.0);
        assert_eq!(of(&row).1, Some(1.0));
        row[HOME] = 0.0;
        row[AXIS..AXIS + 3].copy_from_slice(&[0.6, 0.8, 0.0]);
        assert_eq!(of(&row).1, Some(1.0));
    }

    #[test]
    fn features_keep_their_rules() {
        let (mut obs, actions) = testing::rows(WIDTH, JOINTS, 5, 0.2);
        for row in obs.chunks_exact_mut(WIDTH) {
            row[AT..AT + 3].copy_from_slice(&[0.1, 0.069, 0.07]);
            row[AXIS..AXIS + 3].copy_from_slice(&[0.0, 0.18, 0.98]);
            row[..24].iter_mut().zip(HandConfig::angles(REST)).for_each(|(q, rest)| *q = rest as f32 + 0.3 * *q + 0.1);
        }
        let config = WriteConfig::default();
        check::check_features(&config.features(), &obs, &actions, [WIDTH, JOINTS], &Device::flex()).unwrap();
    }
}
