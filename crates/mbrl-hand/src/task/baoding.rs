//! `baoding`: a hand rolls two balls round each other.

use std::f64::consts::{PI, TAU};

use mbrl_env::{EnvError, Features, Field, Knowledge, Known};
use serde::{Deserialize, Serialize};

use super::{
    Choices, SensorNoise, Told, check_above_0, check_at_least_0, choices,
    digits::{Beside, Digit, Look, Place, point},
    field, hand_layout, hand_servo,
};
use crate::{
    Servo,
    blocks::{Block, Formula, FormulaFeatures, FormulaKnown, Input},
    objective::{Objective, either},
    robot::{HandConfig, Pose},
    scalar::{Kernel, Scalar, Vector, each, length, way_from_line},
    scene::{BALL_RADIUS, BALLS_AT, Contacts, PhysicsConfig, RandomizeConfig, Variation, balls, hand_scene},
    symmetry::{Permutation, Permutations},
};

/// Joints of the hand.
pub(crate) const JOINTS: usize = 24;
/// Positions of the balls, three columns each; three columns of velocity follow.
pub(crate) const BALLS: [usize; 2] = [48, 54];
/// Targets of the balls, two columns each.
pub(crate) const TARGETS: [usize; 2] = [60, 62];
/// The targets' rotation per step (rad).
pub(crate) const TURN: usize = 64;
pub(crate) const WIDTH: usize = 65;

/// The targets' ellipse: its centre and semi-axes (m), in the world, whose origin is the palm's.
pub(crate) const CENTRE: [f64; 2] = [0.062, 0.0];
/// Along the hand, and across it.
pub(crate) const RADII: [f64; 2] = [0.036, 0.022];
/// A ball below this height has fallen (m): 4 cm under the wrist.
pub const FALLEN: f64 = 0.21;

/// The bowl: the wrist 0.25 rad down and the knuckles flexed by 0.9 make a trough, which the cupped palm closes at its sides.
pub(crate) const REST: Pose = &[
    ("WRJ0", -0.25),
    ("FFJ2", 0.9),
    ("MFJ2", 0.9),
    ("RFJ2", 0.9),
    ("LFJ2", 1.0),
    ("FFJ1", 0.2),
    ("MFJ1", 0.2),
    ("RFJ1", 0.2),
    ("LFJ1", 0.2),
    ("FFJ0", 0.2),
    ("MFJ0", 0.2),
    ("RFJ0", 0.2),
    ("LFJ0", 0.2),
    ("LFJ4", 0.15),
    ("THJ4", 0.0),
    ("THJ3", 0.5),
    ("THJ1", 0.1),
    ("THJ0", 0.5),
];

/// What the balls should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaodingGoal {
    /// Turn round each other, counter-clockwise seen from above (default).
    #[default]
    CounterClockwise,
    /// The other way round.
    Clockwise,
    /// The first ball goes to a place on the ellipse, drawn anew in each episode, and stays; the other one only must not fall.
    Place,
    /// Drawn in each episode: either way round, one turn in 60, 80 or 120 steps, from a phase within ±1.6 rad of the usual
    /// one. Data for a model that should know them all.
    Mixed,
}

/// Roll two Baoding balls round each other in the palm; PDDM's task (Nagabandi et al. 2019) on a robot of our own.
///
/// Each ball has a target that moves on an ellipse by the clock. Reward per step, with distances in the plane:
/// `−5 (|ball₁ − target₁| + |ball₂ − target₂|) − 500·[a ball fell] − 10·[wrist bent up by more than 0.15 rad]`; the episode is over when a ball
/// falls. An observation has 24 joint angles and velocities, positions and velocities of the balls, the targets, and how fast these
/// turn: 65 columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaodingConfig {
    /// What the balls should do.
    pub goal: BaodingGoal,
    /// Steps per turn of the targets (default: 60). With `goal = "mixed"` a turn takes 1, 4/3 or 2 times as many; with `"place"` the targets
    /// do not move.
    pub period: f64,
    /// How far the targets may be ahead of the balls (rad). From half of this lead on they turn more slowly, and at the full lead they wait.
    /// By default they move by the clock, as PDDM's do.
    pub lead: Option<f64>,
    /// Settings of the engine's steps.
    pub physics: PhysicsConfig,
    /// Largest speed of a joint (default: 3 rad/s, which bounds the servos' forces).
    pub speed: f64,
    /// Share of the joints' range that actions use (default: 0.9).
    pub action_scale: f64,
    /// Standard deviation of the joints at the start (default: 0.02 rad); objects start within 2 mm, one standard deviation.
    pub start_noise: f64,
    /// Steps per episode (default: 100).
    pub max_steps: u32,
    /// Noise of the sensors (default: none).
    pub sensors: SensorNoise,
    /// Delay of actions, in steps (default: 0).
    pub action_delay: usize,
    /// Variation of the physics between episodes (default: none).
    pub randomize: Option<RandomizeConfig>,
}

impl Default for BaodingConfig {
    fn default() -> Self {
        Self {
            goal: BaodingGoal::default(),
            period: 60.0,
            lead: None,
            physics: PhysicsConfig::default(),
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

impl BaodingConfig {
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
        hand_servo(&HandConfig::angles(REST), self.action_scale, self.speed)
    }

    /// The scene as MJCF.
    #[must_use]
    pub fn mjcf(&self, variation: &Variation) -> String {
        let contacts = Contacts::default();
        let [slide, twist, roll] = contacts.friction;
        let objects = balls(variation, [slide * variation.friction, twist, roll], BALLS_AT);
        hand_scene(&self.physics, &contacts, &HandConfig::default(), variation, &objects)
    }

    pub(crate) fn choices(&self) -> Choices<'_> {
        choices!(self)
    }

    pub(crate) fn targets(&self) -> Targets {
        Targets { centre: CENTRE, radii: RADII, lead: self.lead }
    }

    pub(crate) fn layout() -> Vec<(Field, Told)> {
        hand_layout(ball_fields())
    }

    /// The reward and the termination.
    #[must_use]
    pub fn objective(&self) -> BaodingObjective {
        BaodingObjective::of(self.goal, FALLEN)
    }

    /// What a model of the task may use: the hand relative to the balls, measured and commanded; the exchange of the balls; how
    /// the targets turn.
    #[must_use]
    pub fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::none();
        if self.goal != BaodingGoal::Place {
            knowledge = knowledge.with_augment(exchange());
        }
        knowledge.features = Some(std::sync::Arc::new(self.features()));
        knowledge.known = Some(std::sync::Arc::new(self.targets().known()));
        knowledge
    }

    /// The features alone.
    #[must_use]
    pub fn features(&self) -> impl Features + use<> {
        FormulaFeatures { formula: Beside::<Links>::new(self.servo()), replaces: (TARGETS[0]..WIDTH).collect() }
    }
}

/// Fields of the balls and the targets.
pub(crate) fn ball_fields() -> Vec<(Field, Told)> {
    vec![
        field("ball0", "m", 3, Told::Position),
        field("ball0_velocity", "m/s", 3, Told::Velocity),
        field("ball1", "m", 3, Told::Position),
        field("ball1_velocity", "m/s", 3, Told::Velocity),
        field("target0", "m", 2, Told::Goal),
        field("target1", "m", 2, Told::Goal),
        field("target_turn", "rad", 1, Told::Goal),
    ]
}

/// The first ball starts at the palm's end of the ellipse.
pub(crate) const START_PHASE: f64 = PI;

/// The balls are alike: they and their targets may be exchanged.
pub(crate) fn exchange() -> Permutations {
    let same = (Permutation::identity(WIDTH), Permutation::identity(JOINTS));
    let mut exchanged = Permutation::identity(WIDTH);
    for (columns, pair) in [(6, BALLS), (2, TARGETS)] {
        for k in 0..columns {
            exchanged.set(pair[0] + k, pair[1] + k, 1.0);
            exchanged.set(pair[1] + k, pair[0] + k, 1.0);
        }
    }
    Permutations { name: "baoding-exchange-1", copies: vec![same, (exchanged, Permutation::identity(JOINTS))] }
}

pub(crate) fn check_lead(lead: Option<f64>, goal: BaodingGoal, sensors: &SensorNoise) -> Result<(), EnvError> {
    let Some(lead) = lead else { return Ok(()) };
    check_above_0(&[("lead", lead)])?;
    if goal == BaodingGoal::Place {
        let rule = "none with goal = \"place\", whose targets stand";
        return Err(EnvError::Config { field: "lead", value: lead.to_string(), rule });
    }
    if sensors.positions > 0.0 {
        let rule = "0 with lead: targets wait for where the balls are, and a model is told where they seem to be";
        return Err(EnvError::Config { field: "sensors.positions", value: sensors.positions.to_string(), rule });
    }
    Ok(())
}

/// Two opposite targets that move round an ellipse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets {
    pub(crate) centre: [f64; 2],
    pub(crate) radii: [f64; 2],
    /// See [`BaodingConfig::lead`].
    pub(crate) lead: Option<f64>,
}

impl Targets {
    /// The first ball's target at a phase; the second ball's is opposite.
    pub(crate) fn at(&self, phase: f64) -> [f64; 2] {
        let (sin, cos) = phase.sin_cos();
        [self.centre[0] + self.radii[0] * cos, self.centre[1] + self.radii[1] * sin]
    }

    /// The targets' rotation in a step: `turn` by the clock, less where they wait for balls that lag. `target` belongs to `ball`.
    pub(crate) fn advance<S: Scalar>(&self, turn: &S, target: &[S; 2], ball: &[S; 2], other: &[S; 2]) -> S {
        let Some(lead) = self.lead else { return turn.clone() };
        // On the circle from which the ellipse is stretched, where phases are angles.
        let [u, v] = [0, 1].map(|k| target[k].shift(-self.centre[k]).scale(1.0 / self.radii[k]));
        let [x, y] = [0, 1].map(|k| (ball[k].clone() - other[k].clone()).scale(1.0 / self.radii[k]));
        let across = x.clone() * v.clone() - y.clone() * u.clone();
        // The shift keeps the gradient finite where both balls are at the same point.
        let ahead = across.atan2(&(x * u + y * v).shift(1e-9));
        let direction = turn.above(0.0) - turn.below(0.0);
        turn.clone() * (ahead * direction).scale(-2.0 / lead).shift(2.0).clamp(0.0, 1.0)
    }

    /// The targets' columns need not be learned.
    pub(crate) fn known(self) -> impl Known {
        let columns = |first: usize, number: usize| (first..first + number).map(Input::Obs);
        let block = |(target, ball, other): (usize, usize, usize)| {
            let mut inputs: Vec<Input> = columns(target, 2).chain(columns(TURN, 1)).collect();
            if self.lead.is_some() {
                inputs.extend(columns(ball, 2).chain(columns(other, 2)));
            }
            Block { inputs, width: 2 }
        };
        let mut blocks: Vec<Block> =
            [(TARGETS[0], BALLS[0], BALLS[1]), (TARGETS[1], BALLS[1], BALLS[0])].map(block).into();
        blocks.push(Block { inputs: vec![Input::Obs(TURN)], width: 1 });
        FormulaKnown { formula: Turning { targets: self, blocks }, columns: (TARGETS[0]..WIDTH).collect() }
    }
}

/// The targets' next positions, from the angle in the observation.
struct Turning {
    targets: Targets,
    blocks: Vec<Block>,
}

impl Formula for Turning {
    fn name(&self) -> &'static str {
        if self.targets.lead.is_some() { "baoding-waiting-1" } else { "baoding-clock-1" }
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn evaluate<S: Scalar>(&self, block: usize, inputs: &[S], out: &mut Vec<S>) {
        let pair = |first: usize| [0, 1].map(|k| inputs[first + k].clone());
        let (target, turn) = match inputs {
            [turn] if block == 2 => return out.push(turn.clone()),
            [_, _, turn] => (pair(0), turn.clone()),
            _ => (pair(0), self.targets.advance(&inputs[2], &pair(0), &pair(3), &pair(5))),
        };
        let Targets { centre: [cx, cy], radii: [rx, ry], .. } = self.targets;
        let (x, y) = (target[0].shift(-cx), target[1].shift(-cy));
        let (sin, cos) = turn.sin_cos();
        out.push((x.clone() * cos.clone() - (y.clone() * sin.clone()).scale(rx / ry)).shift(cx));
        out.push((y * cos + (x * sin).scale(ry / rx)).shift(cy));
    }
}

/// The reward for turning balls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BaodingObjective {
    /// Weight of the second ball's distance: 0 where only the first one has a place to go to.
    pub second: f64,
    /// A ball below this height has fallen (m).
    pub fallen: f64,
    /// The column of a wrist joint that must not bend up, and the angle above which it costs 10 per step (rad).
    pub wrist: Option<(usize, f64)>,
}

impl BaodingObjective {
    /// The objective of a goal, for a hand whose balls have fallen below a height (m); the wrist costs from 0.15 rad on.
    #[must_use]
    pub fn of(goal: BaodingGoal, fallen: f64) -> Self {
        let second = if goal == BaodingGoal::Place { 0.0 } else { 1.0 };
        Self { second, fallen, wrist: Some((1, 0.15)) }
    }
}

impl Objective for BaodingObjective {
    fn reward<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let away = |ball: usize, target: usize| {
            let [x, y] = std::array::from_fn(|k| next(ball + k) - next(target + k));
            (x.square() + y.square()).root()
        };
        let mut cost = away(BALLS[0], TARGETS[0]);
        if self.second != 0.0 {
            cost = cost + away(BALLS[1], TARGETS[1]).scale(self.second);
        }
        let mut reward = cost.scale(-5.0) - self.fell(next).scale(500.0);
        if let Some((column, limit)) = self.wrist {
            reward = reward - next(column).above(limit).scale(10.0);
        }
        reward
    }

    fn over<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> Option<S> {
        Some(self.fell(next))
    }
}

impl BaodingObjective {
    fn fell<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let [a, b] = BALLS.map(|ball| next(ball + 2).below(self.fallen));
        either(&a, &b)
    }
}

/// The hand relative to the balls. For each digit: where it is and where it is commanded to be; the gap between each of its links and each
/// ball, now and at the commanded place, clipped to −2 and 4 cm; the direction in which it pushes each ball, scaled by how deep its links
/// would be in the ball at the commanded place. In addition, the balls in the palm's frame.
struct Links;

/// Inputs: the ends of a link's axis, measured and commanded; a ball; the push of the digit's other links on it. Outputs: the gaps between
/// link and ball (now and as commanded), and the push with this link's added.
struct BesideLink {
    /// Distance of the ball's centre from the axis where they touch (m).
    reach: f64,
}

impl Kernel<6, 2> for BesideLink {
    #[inline(always)]
    fn of<S: Scalar>(&self, [from, to, from_then, to_then, ball, push]: [Vector<S>; 6]) -> [Vector<S>; 2] {
        let away = way_from_line([&from, &to], &ball);
        let [far, far_after] = [length(&away), length(&way_from_line([&from_then, &to_then], &ball))];
        let [gap, gap_after] = [far.shift(-self.reach), far_after.shift(-self.reach)];
        let pressed = gap_after.clamp(-0.02, 0.0).times(&far.recip());
        let push = each(|i| push[i].minus(&away[i].times(&pressed)));
        [[gap.clamp(-0.02, 0.04), gap_after.clamp(-0.02, 0.04), pressed], push]
    }
}

impl Look for Links {
    const NAME: &'static str = "baoding-links-2";
    const WIDTH: usize = 30;

    fn objects() -> Vec<usize> {
        BALLS.iter().flat_map(|ball| *ball..ball + 3).collect()
    }

    fn in_palm() -> Vec<usize> {
        Self::objects()
    }

    fn look<S: Scalar>(digit: &Digit, [measured, commanded]: &[Place<S>; 2], objects: &[S], out: &mut Vec<S>) {
        out.extend(measured.points[1..].iter().flatten().cloned());
        out.extend(commanded.tip().iter().cloned());
        for ball in [0, 1].map(|k| point(objects, k)) {
            let mut push = each(|i| ball[i].like(0.0));
            for link in 0..3 {
                let [[from, to], [from_then, to_then]] =
                    [measured, commanded].map(|place| [&place.points[link], &place.points[link + 1]]);
                let beside = BesideLink { reach: digit.radii[link] + BALL_RADIUS };
                let [[gap, gap_after, _], all] = S::run(&beside, [from, to, from_then, to_then, &ball, &push]);
                out.push(gap);
                out.push(gap_after);
                push = all;
            }
            out.extend(push);
        }
    }
}

/// The outcome of an episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BaodingScore {
    /// How far the balls turned round each other in the targets' direction (degrees). Reported beside drops, because balls can stall
    /// without falling.
    pub rotation: f64,
    /// Whether a ball fell.
    pub dropped: bool,
    /// Mean distance of a ball from its target (m).
    pub distance: f64,
    /// Mean distance of the first ball from its target over the last five steps (m): the score for the goal of a fixed place.
    pub final_distance: f64,
}

impl BaodingScore {
    /// The score of an episode, from its first observation and those after each step; a ball below `fallen` (m) has fallen.
    #[must_use]
    pub fn of(observations: &[Vec<f32>], fallen: f64) -> Self {
        let phase = |obs: &Vec<f32>| {
            let [x, y] = [0, 1].map(|k| f64::from(obs[BALLS[0] + k] - obs[BALLS[1] + k]));
            y.atan2(x)
        };
        let away = |obs: &Vec<f32>, ball: usize| {
            let [x, y] = [0, 1].map(|k| f64::from(obs[BALLS[ball] + k] - obs[TARGETS[ball] + k]));
            x.hypot(y)
        };
        let turned: f64 =
            observations.windows(2).map(|pair| (phase(&pair[1]) - phase(&pair[0]) + PI).rem_euclid(TAU) - PI).sum();
        let after = &observations[1..];
        let direction = observations.first().map_or(0.0, |obs| f64::from(obs[TURN]));
        let mean = |all: &[Vec<f32>], balls: &[usize]| {
            let sum: f64 = all.iter().flat_map(|obs| balls.iter().map(|ball| away(obs, *ball))).sum();
            sum / (all.len() * balls.len()) as f64
        };
        let fell = |obs: &Vec<f32>| BALLS.iter().any(|ball| f64::from(obs[ball + 2]) < fallen);
        Self {
            rotation: turned.to_degrees() * if direction < 0.0 { -1.0 } else { 1.0 },
            dropped: after.iter().any(fell),
            distance: mean(after, &[0, 1]),
            final_distance: mean(&after[after.len().saturating_sub(5)..], &[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{objective::Batched, testing};
    use mbrl_env::{Augment, Device, check};

    #[test]
    fn features_and_symmetries_keep_their_rules() {
        // Few rows: gaps to links have kinks within millimetres, and the rows must lie where the gaps are smooth.
        let (mut obs, actions) = testing::rows(WIDTH, JOINTS, 2, 0.2);
        for (index, row) in obs.chunks_exact_mut(WIDTH).enumerate() {
            for (ball, x) in BALLS.into_iter().zip([0.0413, 0.0927]) {
                let y = 0.0131 * index as f32 - 0.0109;
                row[ball..ball + 3].copy_from_slice(&[x, y, 0.2836]);
            }
            // Rest angles, and room on both sides.
            row[..24].iter_mut().zip(HandConfig::angles(REST)).for_each(|(q, rest)| *q = rest as f32 + 0.3 * *q + 0.1);
        }
        let config = BaodingConfig::default();
        check::check_features(&config.features(), &obs, &actions, [WIDTH, JOINTS], &Device::flex()).unwrap();
        let next: Vec<f32> = obs.iter().map(|x| x + 0.01).collect();
        let reward = Batched(config.objective());
        check::check_augment(&exchange(), &obs, &actions, &next, [WIDTH, JOINTS], Some(&reward), &Device::flex())
            .unwrap();
    }

    #[test]
    fn a_link_pushes_a_ball_away_by_as_much_as_it_would_be_in_it() {
        let Some(digit) = Digit::all(&HandConfig::default()).into_iter().next() else {
            panic!("a hand without digits")
        };
        // Three links along x, the first one under a ball, 1 mm away; the other ball is far.
        let place = |height: f64| Place { points: [0.0, 0.03, 0.06, 0.09].map(|x| [x, 0.0, height]).to_vec() };
        let ball = [0.015, 0.0, digit.radii[0] + BALL_RADIUS + 0.001];
        let seen = |by: f64| {
            let (objects, mut out) = ([ball, [0.0, 0.3, 0.3]].concat(), Vec::new());
            Links::look(&digit, &[place(0.0), place(by)], &objects, &mut out);
            assert_eq!(out.len(), Links::WIDTH);
            let ball = |first: usize| -> [f64; 9] { std::array::from_fn(|k| out[first + k]) };
            (ball(12), ball(21))
        };
        for (by, after, push) in [(0.0, 0.001, 0.0), (0.0005, 0.0005, 0.0), (0.004, -0.003, 0.003)] {
            let (near, far) = seen(by);
            for (k, expected) in [(0, 0.001), (1, after), (6, 0.0), (7, 0.0), (8, push)] {
                assert!((near[k] - expected).abs() < 1e-8, "{by}, number {k}: {near:?}");
            }
            assert!(far[..6].iter().all(|gap| *gap == 0.04) && far[6..].iter().all(|x| *x == 0.0), "{far:?}");
        }
    }

    /// An episode in which the balls follow their targets with a constant lag.
    fn episode(steps: usize, turn: f64, lag: f64) -> Vec<Vec<f32>> {
        let targets = BaodingConfig::default().targets();
        let row = |t: usize| {
            let mut row = vec![0.0; WIDTH];
            let phase = START_PHASE + turn * t as f64;
            for (ball, more) in [0.0, PI].into_iter().enumerate() {
                let (at, target) = (targets.at(phase + more - lag), targets.at(phase + more));
                for k in 0..2 {
                    row[BALLS[ball] + k] = at[k] as f32;
                    row[TARGETS[ball] + k] = target[k] as f32;
                }
                row[BALLS[ball] + 2] = 0.27;
            }
            row[TURN] = turn as f32;
            row
        };
        (0..=steps).map(row).collect()
    }

    #[test]
    fn rotation_is_counted_beyond_a_turn_and_in_the_targets_direction() {
        for turn in [TAU / 60.0, -TAU / 60.0] {
            // At half turns the direction on an ellipse equals that on a circle.
            let score = BaodingScore::of(&episode(90, turn, 0.0), FALLEN);
            assert!((score.rotation - 540.0).abs() < 0.1, "{score:?}");
            assert!(!score.dropped && score.distance < 1e-7);
        }
        let mut fallen = episode(30, TAU / 60.0, 0.3);
        fallen[30][BALLS[1] + 2] = 0.2;
        let score = BaodingScore::of(&fallen, FALLEN);
        assert!(score.dropped && score.distance > 0.005 && (score.rotation - 180.0).abs() < 0.1, "{score:?}");
    }

    #[test]
    fn the_clock_turns_targets_as_the_ellipse_does_and_exchanges_with_the_balls() {
        let known = BaodingConfig::default().targets().known();
        let rows = episode(7, TAU / 60.0, 0.4);
        let exchanged = |row: &Vec<f32>| {
            let mut row = row.clone();
            exchange().observation(1, &mut row);
            row
        };
        let device = Device::flex();
        for pair in rows.windows(2) {
            for (now, next) in [(pair[0].clone(), pair[1].clone()), (exchanged(&pair[0]), exchanged(&pair[1]))] {
                let tensor = burn::tensor::Tensor::<1>::from_floats(&now[..], &device).unsqueeze_dim::<2>(0);
                let found: Vec<f32> =
                    known.tensor(tensor.clone(), tensor.clone(), tensor).into_data().iter::<f32>().collect();
                for (found, column) in found.iter().zip(known.columns()) {
                    assert!(
                        (found - next[*column]).abs() < 1e-6,
                        "column {column}: {found}, expected {}",
                        next[*column]
                    );
                }
            }
        }
    }

    #[test]
    fn targets_wait_for_balls_that_lag_either_way_round() {
        let targets = Targets { lead: Some(0.8), ..BaodingConfig::default().targets() };
        for turn in [0.1, -0.1_f64] {
            for phase in [0.3, 2.9, -1.2] {
                let target = targets.at(phase);
                // Balls ahead or behind by less than half of the lead, by three quarters of it, by all of it, by nearly half a turn.
                for (behind, share) in [(-0.5, 1.0), (0.0, 1.0), (0.39, 1.0), (0.6, 0.5), (0.8, 0.0), (3.0, 0.0)] {
                    let at = phase - behind * turn.signum();
                    // The point midway between the balls does not matter.
                    let [ball, other] = [at, at + PI].map(|phase| targets.at(phase).map(|x| x + 0.004));
                    let found = targets.advance(&turn, &target, &ball, &other);
                    assert!((found - share * turn).abs() < 1e-5, "{behind} behind: {found} of {turn}");
                }
            }
        }
        let config = BaodingConfig { lead: Some(0.0), ..BaodingConfig::default() };
        assert!(config.check().unwrap_err().to_string().starts_with("lead = 0: expected"));
        let sensors = SensorNoise { positions: 0.002, ..SensorNoise::default() };
        let config = BaodingConfig { lead: Some(0.8), sensors, ..BaodingConfig::default() };
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("sensors.positions = 0.002: expected 0 with lead"), "{error}");
        BaodingConfig { sensors, ..BaodingConfig::default() }.check().unwrap();
        let config = BaodingConfig { action_delay: 10_001, ..BaodingConfig::default() };
        assert!(config.check().unwrap_err().to_string().starts_with("action_delay = 10001: expected at most"));
        let config = BaodingConfig { lead: Some(0.8), goal: BaodingGoal::Place, ..BaodingConfig::default() };
        assert!(config.check().unwrap_err().to_string().starts_with("lead = 0.8: expected none with goal"));
    }

    #[test]
    fn the_reward_by_hand() {
        let mut row = episode(0, 0.1, 0.0).remove(0);
        row[BALLS[0]] += 0.03;
        row[BALLS[0] + 1] += 0.04;
        let next = |row: Vec<f32>| move |column: usize| f64::from(row[column]);
        let objective = BaodingConfig::default().objective();
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
        near(objective.reward(&next(row.clone())), -0.25);
        row[1] = 0.2; // the wrist
        near(objective.reward(&next(row.clone())), -10.25);
        row[BALLS[1] + 2] = 0.1;
        near(objective.reward(&next(row.clone())), -510.25);
        assert_eq!(objective.over(&next(row.clone())), Some(1.0));
        row[BALLS[1]] += 1.0;
        near(objective.reward(&next(row.clone())), -515.25);
        let place = BaodingConfig { goal: BaodingGoal::Place, ..BaodingConfig::default() }.objective();
        near(place.reward(&next(row)), -510.25);
    }
}
