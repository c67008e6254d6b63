//! `valve`: a claw turns a valve to an angle.

use mbrl_env::{EnvError, Features, Field, Knowledge, Known};
use serde::{Deserialize, Serialize};

use super::{Choices, SensorNoise, Told, check_above_0, choices, field, joint_fields};
use crate::{
    Servo,
    blocks::{Block, Constant, Formula, FormulaFeatures, Input},
    kinematics::Chain,
    objective::Objective,
    robot::ClawConfig,
    scalar::Scalar,
    scene::{Contacts, PhysicsConfig, RandomizeConfig, Variation, claw_scene, valve},
    symmetry::{Permutation, Permutations},
};

/// Joints of the claw.
pub(crate) const JOINTS: usize = 9;
/// Columns of the valve's angle, its velocity and its goal.
pub(crate) const ANGLE: usize = 18;
pub(crate) const GOAL: usize = 20;
pub(crate) const WIDTH: usize = 21;

/// Turn a valve with three arms to an angle, using a claw with three fingers; PDDM's task (Nagabandi et al. 2019) on a robot of our own.
///
/// The goal is ±U(π/2, π), the valve starts at U(−π/4, π/4). Low friction of the fingertips and dry friction of the hinge make regrasping
/// necessary. Reward per step, with d the angle to the goal, at most half a turn: `−10 d + 1[d < 0.25] + 10·1[d < 0.1]`. The episode
/// never terminates. An observation has nine joint angles and velocities, the valve's angle and velocity, and the goal: 21 columns, as in
/// PDDM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValveConfig {
    /// Settings of the engine's steps.
    pub physics: PhysicsConfig,
    /// Largest speed of a joint (default: 3 rad/s).
    pub speed: f64,
    /// Steps per episode (default: 40).
    pub max_steps: u32,
    /// Noise of the sensors (default: none).
    pub sensors: SensorNoise,
    /// Delay of actions, in steps (default: 0).
    pub action_delay: usize,
    /// Variation of the physics between episodes (default: none).
    pub randomize: Option<RandomizeConfig>,
}

impl Default for ValveConfig {
    fn default() -> Self {
        let (physics, sensors) = (PhysicsConfig::default(), SensorNoise::default());
        Self { physics, speed: 3.0, max_steps: 40, sensors, action_delay: 0, randomize: None }
    }
}

impl ValveConfig {
    /// Refuses settings from which no task can be made.
    ///
    /// # Errors
    /// [`EnvError::Config`].
    pub fn check(&self) -> Result<(), EnvError> {
        check_above_0(&[("speed", self.speed)])?;
        self.choices().check()
    }

    /// The map from actions to commanded angles.
    #[must_use]
    pub fn servo(&self) -> Servo {
        let of = |bound: usize| -> Vec<f64> { (0..JOINTS).map(|j| ClawConfig::RANGE[j % 3][bound]).collect() };
        let rest = (0..JOINTS).map(|j| ClawConfig::REST[j % 3]).collect();
        Servo { rest, low: of(0), high: of(1), scale: 1.0, speed: self.speed }
    }

    /// The scene as MJCF.
    #[must_use]
    pub fn mjcf(&self, variation: &Variation) -> String {
        let contacts = Contacts { friction: [0.2, 0.005, 0.0001], ..Contacts::default() };
        claw_scene(&self.physics, &contacts, variation, &valve(variation))
    }

    pub(crate) fn choices(&self) -> Choices<'_> {
        choices!(self)
    }

    pub(crate) fn layout() -> Vec<(Field, Told)> {
        let mut fields = joint_fields(&ClawConfig::JOINTS);
        fields.push(field("valve", "rad", 1, Told::Position));
        fields.push(field("valve_velocity", "rad/s", 1, Told::Velocity));
        fields.push(field("goal", "rad", 1, Told::Goal));
        fields
    }

    /// What a model of the task may use: fingertips, measured and commanded, in the valve's frame; the six symmetries; the constant
    /// goal.
    #[must_use]
    pub fn knowledge(&self) -> Knowledge {
        let mut knowledge = Knowledge::none().with_augment(symmetries());
        knowledge.features = Some(std::sync::Arc::new(self.features()));
        knowledge.known = Some(std::sync::Arc::new(known()));
        knowledge
    }

    /// The features alone.
    #[must_use]
    pub fn features(&self) -> impl Features + use<> {
        FormulaFeatures { formula: Tips::new(self.servo()), replaces: vec![ANGLE, GOAL] }
    }
}

/// The goal is constant.
pub(crate) fn known() -> impl Known {
    Constant::known("valve-goal-1", vec![GOAL])
}

/// The six symmetries: three rotations by 120°, which permute the fingers and leave the valve looking the same, and a mirror.
pub(crate) fn symmetries() -> Permutations {
    let copy = |mirrored: bool, turns: usize| {
        let (mut obs, mut action) = (Permutation::identity(WIDTH), Permutation::identity(JOINTS));
        let sign = if mirrored { -1.0 } else { 1.0 };
        for finger in 0..3 {
            let from = if mirrored { (2 - finger + turns) % 3 } else { (finger + turns) % 3 };
            for joint in 0..3 {
                // A mirror swings a finger to the other side and leaves its bend as it is.
                let sign = if joint == 0 { sign } else { 1.0 };
                for block in [0, JOINTS] {
                    obs.set(block + 3 * finger + joint, block + 3 * from + joint, sign);
                }
                action.set(3 * finger + joint, 3 * from + joint, sign);
            }
        }
        (ANGLE..WIDTH).for_each(|column| obs.set(column, column, sign));
        (obs, action)
    };
    let copies =
        [false, true].into_iter().flat_map(|mirrored| (0..3).map(move |turns| copy(mirrored, turns))).collect();
    Permutations { name: "valve-sixfold-1", copies }
}

/// The reward for turning a valve.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ValveObjective;

/// The angle from one direction to another, at most half a turn either way.
pub(crate) fn turn_between<S: Scalar>(from: &S, to: &S) -> S {
    let (sin, cos) = (to.clone() - from.clone()).sin_cos();
    sin.atan2(&cos)
}

impl Objective for ValveObjective {
    fn reward<S: Scalar>(&self, next: &impl Fn(usize) -> S) -> S {
        let away = turn_between(&next(GOAL), &next(ANGLE)).magnitude();
        away.below(0.25) + away.below(0.1).scale(10.0) - away.scale(10.0)
    }

    fn over<S: Scalar>(&self, _: &impl Fn(usize) -> S) -> Option<S> {
        None
    }
}

/// Fingertips in the valve's frame, measured and commanded: radius, height, and three times the angle from the nearest
/// gap between arms, as sine and cosine. The valve's own angle counts modulo 120°.
struct Tips {
    servo: Servo,
    chains: Vec<Chain>,
    blocks: Vec<Block>,
}

impl Tips {
    fn new(servo: Servo) -> Self {
        let robot = ClawConfig::default().body();
        let (mut chains, mut blocks) = (Vec::new(), Vec::new());
        for finger in 0..3 {
            let order = &ClawConfig::JOINTS[3 * finger..3 * finger + 3];
            chains.extend(Chain::to(&robot, ClawConfig::TIPS[finger], order));
            let joints = 3 * finger..3 * finger + 3;
            let mut inputs: Vec<Input> = joints.clone().map(Input::Obs).collect();
            inputs.extend(joints.map(Input::Action));
            inputs.push(Input::Obs(ANGLE));
            blocks.push(Block { inputs, width: 11 });
        }
        blocks.push(Block { inputs: vec![Input::Obs(ANGLE)], width: 2 });
        Self { servo, chains, blocks }
    }
}

/// `(c + i s)³`.
fn cubed<S: Scalar>(sin: &S, cos: &S) -> (S, S) {
    let (s2, c2) = (sin.square(), cos.square());
    (sin.clone() * (c2.scale(3.0) - s2.clone()), cos.clone() * (c2 - s2.scale(3.0)))
}

impl Formula for Tips {
    fn name(&self) -> &'static str {
        "valve-tips-1"
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn evaluate<S: Scalar>(&self, block: usize, inputs: &[S], out: &mut Vec<S>) {
        let (sin, cos) = inputs[inputs.len() - 1].sin_cos();
        let (sin3, cos3) = cubed(&sin, &cos);
        let Some(chain) = self.chains.get(block) else {
            out.extend([sin3, cos3]);
            return;
        };
        let measured = &inputs[..3];
        let command = |j: usize| self.servo.command(3 * block + j, &inputs[3 + j], &inputs[j]);
        let commanded: [S; 3] = std::array::from_fn(command);
        for angles in [measured, &commanded] {
            let [x, y, z] = chain.frame(angles).origin;
            let radius = (x.square() + y.square()).root();
            let over = radius.recip();
            let (sin, cos) = cubed(&(y * over.clone()), &(x * over));
            // The difference of the two angles plus half a turn: 0 in the middle of a gap.
            let (s, c) =
                (cos.clone() * sin3.clone() - sin.clone() * cos3.clone(), -(cos * cos3.clone() + sin * sin3.clone()));
            out.extend([radius, z, s, c]);
        }
        out.extend(commanded.into_iter().zip(measured).map(|(command, angle)| command - angle.clone()));
    }
}

/// The outcome of an episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValveScore {
    /// Mean angle to the goal over the last five steps (rad).
    pub final_angle: f64,
    /// Steps until the angle was below 0.25 rad.
    pub hit: Option<usize>,
}

impl ValveScore {
    /// The score of an episode, from the observations after each step.
    #[must_use]
    pub fn of(observations: &[Vec<f32>]) -> Self {
        let away = |obs: &Vec<f32>| turn_between(&f64::from(obs[GOAL]), &f64::from(obs[ANGLE])).abs();
        let all: Vec<f64> = observations.iter().map(away).collect();
        let last = &all[all.len().saturating_sub(5)..];
        Self {
            final_angle: last.iter().sum::<f64>() / last.len() as f64,
            hit: all.iter().position(|away| *away < 0.25).map(|step| step + 1),
        }
    }
}

/// The valve's largest angle at the start, on either side (rad).
#[cfg(feature = "mujoco")]
pub(crate) const START: f64 = std::f64::consts::FRAC_PI_4;
/// The goal's smallest and largest angle, on either side (rad).
#[cfg(feature = "mujoco")]
pub(crate) const GOALS: [f64; 2] = [std::f64::consts::FRAC_PI_2, std::f64::consts::PI];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{objective::Batched, testing};
    use mbrl_env::{Device, Tensor, check};

    fn row(valve: f32, goal: f32) -> Vec<f32> {
        let mut row = vec![0.0; WIDTH];
        (row[ANGLE], row[GOAL]) = (valve, goal);
        row
    }

    #[test]
    fn the_reward_by_hand() {
        let rows = [row(0.5, 2.0), row(-3.0, 3.0), row(0.5, 0.3), row(0.5, 0.45)];
        // The second is across the half turn: 2π − 6.
        let away = [1.5, std::f32::consts::TAU - 6.0, 0.2, 0.05];
        let bonus = [0.0, 0.0, 1.0, 11.0];
        let next = Tensor::<2>::from_data(burn::tensor::TensorData::new(rows.concat(), [4, WIDTH]), &Device::flex());
        let found: Vec<f32> = mbrl_env::Reward::reward(&Batched(ValveObjective), next.clone(), next.clone(), next)
            .into_data()
            .iter::<f32>()
            .collect();
        for ((found, away), bonus) in found.iter().zip(away).zip(bonus) {
            assert!((found - (bonus - 10.0 * away)).abs() < 1e-4, "{found}: {away}, {bonus}");
        }
    }

    #[test]
    fn features_and_symmetries_keep_their_rules() {
        let (mut obs, actions) = testing::rows(WIDTH, JOINTS, 40, 0.3);
        for row in obs.chunks_exact_mut(WIDTH) {
            // Near rest: the tips stay clear of the axis.
            for (joint, q) in row[..JOINTS].iter_mut().enumerate() {
                *q = ClawConfig::REST[joint % 3] as f32 + 0.4 * *q;
            }
        }
        let config = ValveConfig::default();
        check::check_features(&config.features(), &obs, &actions, [WIDTH, JOINTS], &Device::flex()).unwrap();
        let next: Vec<f32> = obs.iter().map(|x| x + 0.01).collect();
        let reward = Batched(ValveObjective);
        check::check_augment(&symmetries(), &obs, &actions, &next, [WIDTH, JOINTS], Some(&reward), &Device::flex())
            .unwrap();
    }

    #[test]
    fn what_the_valve_looks_like_after_a_third_of_a_turn_is_seen_alike() {
        let formula = Tips::new(ValveConfig::default().servo());
        let of = |obs: &[f32], action: &[f32]| -> Vec<f64> {
            let mut out = Vec::new();
            for (number, block) in formula.blocks().iter().enumerate() {
                let get = |input: &Input| match input {
                    Input::Obs(column) => f64::from(obs[*column]),
                    Input::Action(column) => f64::from(action[*column]),
                    Input::Next(_) => f64::NAN,
                };
                let inputs: Vec<f64> = block.inputs.iter().map(get).collect();
                formula.evaluate(number, &inputs, &mut out);
            }
            out
        };
        let (obs, actions) = testing::rows(WIDTH, JOINTS, 1, 0.5);
        let mut turned = obs.clone();
        turned[ANGLE] += std::f32::consts::TAU / 3.0;
        for (a, b) in of(&obs, &actions).iter().zip(of(&turned, &actions)) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
        // The symmetries permute the fingers' features.
        let (mut other, mut act) = (obs.clone(), actions.clone());
        let symmetries = symmetries();
        mbrl_env::Augment::observation(&symmetries, 1, &mut other);
        mbrl_env::Augment::action(&symmetries, 1, &mut act);
        let (before, after) = (of(&obs, &actions), of(&other, &act));
        for k in 0..11 {
            assert!((before[11 + k] - after[k]).abs() < 1e-6, "feature {k}");
        }
    }
}
