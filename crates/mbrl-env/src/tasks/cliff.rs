//! Walk up a hill and stop before its edge: a model of random data leads the planner astray here.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use super::{Episode, Phase, column, named};
use crate::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Reward, Role, Shape, Sketch, Step, Termination, check_action,
};

pub(super) const NAME: &str = "cliff";

/// Starts lie within this many step lengths of 0.
const START_SPREAD: f64 = 0.5;

/// The shape of a [`Cliff`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CliffConfig {
    /// Height gained per metre to the right (default: 1).
    pub slope: f64,
    /// Where the ground ends on the right (m, default: 2).
    pub edge: f64,
    /// Where a wall ends it on the left (m, default: −1).
    pub wall: f64,
    /// How deep the fall is (m, default: 4).
    pub drop: f64,
    /// Distance moved by one unit of action (m, default: 0.1).
    pub step_length: f64,
}

impl Default for CliffConfig {
    fn default() -> Self {
        Self { slope: 1.0, edge: 2.0, wall: -1.0, drop: 4.0, step_length: 0.1 }
    }
}

impl CliffConfig {
    /// A point on the hill that awaits its first reset.
    ///
    /// # Errors
    /// [`EnvError::Config`] if a number is not finite; `slope`, `edge` or `step_length` is not positive; `wall` is not
    /// negative; or `drop` does not end below the foot of the wall, so that a fall would be rewarded as much as standing there.
    pub fn init(&self) -> Result<Cliff, EnvError> {
        let Self { slope, edge, wall, drop, step_length } = *self;
        for (field, value) in [("slope", slope), ("edge", edge), ("step_length", step_length)] {
            require(value > 0.0 && value.is_finite(), field, value, "a positive finite number")?;
        }
        require(wall < 0.0 && wall.is_finite(), "wall", wall, "a negative finite number")?;
        let deep = drop > slope * (edge - wall) && drop.is_finite();
        require(deep, "drop", drop, "a finite number above slope · (edge − wall)")?;

        let obs = BoxSpace::new([wall as f32], [(edge + step_length) as f32])?;
        let spec = EnvSpec::new(NAME, obs, ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?), 0.1);
        let step_unit = format!("{step_length} m");
        let spec = named(spec, [Field::linear("position", "m")], [Field::linear("step", step_unit)]);
        Ok(Cliff { spec: Arc::new(spec), config: *self, episode: Episode::new() })
    }

    /// The true reward on this hill, as a batch function. A planner with this function knows where the edge is; an agent that should
    /// discover the edge learns reward and termination instead.
    #[must_use]
    pub fn reward(&self) -> CliffReward {
        CliffReward { slope: self.slope as f32, edge: self.edge as f32, floor: self.floor() as f32 }
    }

    /// The true termination on this hill, as a batch function.
    #[must_use]
    pub fn termination(&self) -> CliffTermination {
        CliffTermination { edge: self.edge as f32 }
    }

    fn floor(&self) -> f64 {
        self.slope * self.edge - self.drop
    }

    /// Compared in single precision, as reward and termination see the observation: twenty steps of 0.1 m from 0 add up to slightly
    /// more than 2 m in double precision, and both precisions must agree on a fall.
    fn is_beyond_edge(&self, position: f64) -> bool {
        position as f32 > self.edge as f32
    }

    fn height(&self, position: f64) -> f64 {
        if self.is_beyond_edge(position) { self.floor() } else { self.slope * position }
    }
}

fn require(holds: bool, field: &'static str, value: f64, rule: &'static str) -> Result<(), EnvError> {
    if holds { Ok(()) } else { Err(EnvError::Config { field, value: value.to_string(), rule }) }
}

/// A point on a line that walks uphill to the right; past the edge it falls.
///
/// The reward is the height, and nothing tells the agent where the hill ends: it is meant to learn reward and termination along
/// with the motion. In data from a random walk near the start, "going right means going higher" is true, and a model that has
/// learned it sends its planner over the edge: a plan visits other states than those the model was trained on.
/// Once falls are in the data, replanning at each step goes to the top and stops.
///
/// # Action
/// | Num | Action | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | step to the right, clipped | −1 | 1 | 0.1 m |
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | position x | −1 | 2.1 | m |
///
/// # Dynamics
/// `x ← max(x + 0.1 u, −1)` every 0.1 s, without inertia and noise. The height is x up to the edge at x = 2 m, and −2 m
/// beyond. Shape and step length are set by [`CliffConfig`].
///
/// The hill is twenty steps long, so a walker on its way to the top has twenty occasions to stop. A random walk of 40 uniform
/// steps has a standard deviation of 3.7 step lengths; the probability that it ever gets 19.5 to the right is at most
/// exp(−3 · 19.5² / (2 · 40)) = 6e-7 (a uniform step is sub-Gaussian with variance 1/3; Doob's inequality). A walker that always
/// goes right falls after 20 or 21 steps.
///
/// # Reward
/// The height *after* the step. Standing on the top gives 2 per step, a fall −2 once and nothing afterwards.
///
/// # Start
/// x uniform in ±0.05 m, half a step.
///
/// # End
/// Terminates past the edge; the task's time limit is 40 steps.
///
/// ```
/// use mbrl_env::{Env, tasks::Cliff};
/// let mut env = Cliff::new();
/// env.set_state(1.95)?;
/// assert_eq!(env.step(&[-1.0])?.terminated, false);
/// env.set_state(1.95)?;
/// let step = env.step(&[1.0])?;
/// assert!(step.terminated && step.reward == -2.0);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cliff {
    spec: Arc<EnvSpec>,
    config: CliffConfig,
    /// The position.
    episode: Episode<1>,
}

impl Cliff {
    /// The hill of [`CliffConfig::default`].
    #[must_use]
    pub fn new() -> Self {
        CliffConfig::default().init().expect("the default is sound")
    }

    /// Its shape.
    #[must_use]
    pub fn config(&self) -> &CliffConfig {
        &self.config
    }

    /// Where the point is (m).
    #[must_use]
    pub fn position(&self) -> f64 {
        self.episode.state[0]
    }

    /// Begins an episode at a position (m) and returns the observation there.
    ///
    /// # Errors
    /// [`EnvError::NonFinite`], and [`EnvError::Config`] for a position without ground.
    pub fn set_state(&mut self, position: f64) -> Result<Vec<f32>, EnvError> {
        let beyond = position < self.config.wall || self.config.is_beyond_edge(position);
        require(!beyond, "position", position, "a place between the wall and the edge")?;
        self.episode.begin_at(NAME, [position])?;
        Ok(self.observation())
    }

    fn observation(&self) -> Vec<f32> {
        vec![self.position() as f32]
    }
}

impl Default for Cliff {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for Cliff {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let CliffConfig { step_length, wall, edge, .. } = self.config;
        let spread = START_SPREAD * step_length;
        self.episode.begin(seed, |rng| [rng.uniform_f64(-spread, spread).clamp(wall, edge)]);
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.episode.require_running(NAME)?;
        check_action(&self.spec, action)?;
        let way = self.config.step_length * f64::from(action[0].clamp(-1.0, 1.0));
        let position = (self.position() + way).max(self.config.wall);
        self.episode.state = [position];
        let terminated = self.config.is_beyond_edge(position);
        if terminated {
            self.episode.phase = Phase::Over;
        }
        let reward = self.config.height(position);
        Ok(Step::new(self.observation(), reward).with_terminated(terminated))
    }
}

simulator_by_clone!(Cliff);

/// [`Cliff`]'s reward: the height after the step; made by [`CliffConfig::reward`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CliffReward {
    slope: f32,
    edge: f32,
    floor: f32,
}

impl Reward for CliffReward {
    fn reward(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        let position = column(&next_obs, 0);
        let fallen = position.clone().greater_elem(self.edge);
        (position * self.slope).mask_fill(fallen, self.floor)
    }
}

/// [`Cliff`]'s termination: a position past the edge; made by [`CliffConfig::termination`]. A NaN prediction
/// terminates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CliffTermination {
    edge: f32,
}

impl Termination for CliffTermination {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        column(&next_obs, 0).lower_equal_elem(self.edge).bool_not()
    }
}

/// The hill of the default shape and the point that walks on it.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    let shape = CliffConfig::default();
    let [wall, edge, floor] = [shape.wall, shape.edge, shape.floor()].map(|entry| entry as f32);
    let [foot, top] = [shape.height(shape.wall), shape.height(shape.edge)].map(|entry| entry as f32);
    Sketch {
        view: [-1.3, -2.3, 2.6, 2.3],
        shapes: vec![
            Shape::Polygon {
                role: Role::Ground,
                points: vec![[wall, floor], [edge, floor], [edge, top], [wall, foot]],
            },
            Shape::Line { role: Role::Obstacle, points: vec![[edge, floor], [edge + 0.5, floor]], width: 0.04 },
            Shape::Disc { role: Role::Goal, at: [edge, top], radius: 0.06 },
            Shape::Disc { role: Role::Body, at: [obs[0], shape.height(f64::from(obs[0])) as f32 + 0.06], radius: 0.06 },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    /// Return and length of an episode of 40 steps, and whether it fell.
    fn episode(seed: u64, mut policy: impl FnMut(f64) -> f32) -> (f64, u32, bool) {
        let mut env = Cliff::new();
        env.reset(Some(seed)).unwrap();
        let mut sum = 0.0;
        for length in 1..=40 {
            let step = env.step(&[policy(env.position())]).unwrap();
            sum += step.reward;
            if step.terminated {
                return (sum, length, true);
            }
        }
        (sum, 40, false)
    }

    #[test]
    fn a_random_walk_stays_low_going_right_falls_and_stopping_in_time_pays() {
        let (mut rng, mut random, mut highest) = (Rng::new(0), 0.0, 0.0_f64);
        for seed in 0..200 {
            let (sum, _, fell) = episode(seed, |position| {
                highest = highest.max(position);
                rng.uniform(-1.0, 1.0)
            });
            random += sum / 200.0;
            assert!(!fell);
            // 19 to 21 steps of 0.1 m, on average halfway up, then the fall.
            let (sum, length, fell) = episode(seed, |_| 1.0);
            assert!(fell && (20..=21).contains(&length) && (14.0..24.0).contains(&sum), "{sum} in {length} steps");
            // The top is reached after 19 steps, so at least 20 more have a reward of 1.85 or more.
            let (sum, _, fell) = episode(seed, |position| if position < 1.85 { 1.0 } else { 0.0 });
            assert!(!fell && sum > 50.0, "{sum}");
        }
        // 3.7 standard deviations of the last position, seen over 200 episodes: a fall, 5.3 away, is out of the question.
        assert!(random.abs() < 1.5 && highest < 1.6, "{random}, {highest} m");
    }

    #[test]
    fn the_wall_holds() {
        let mut env = Cliff::new();
        env.set_state(-0.95).unwrap();
        assert_eq!(env.step(&[-1.0]).unwrap().obs, [-1.0]);
        assert_eq!(env.step(&[-1.0]).unwrap().obs, [-1.0]);
        for position in [-1.1, 2.1] {
            assert!(matches!(env.set_state(position), Err(EnvError::Config { field: "position", .. })));
        }
        assert!(matches!(env.set_state(f64::NAN), Err(EnvError::NonFinite { .. })));
    }

    #[test]
    fn every_rule_of_the_shape_is_checked() {
        let default = CliffConfig::default();
        for (config, at_fault) in [
            (CliffConfig { slope: 0.0, ..default }, "slope"),
            (CliffConfig { edge: -1.0, ..default }, "edge"),
            (CliffConfig { edge: f64::INFINITY, ..default }, "edge"),
            (CliffConfig { step_length: f64::NAN, ..default }, "step_length"),
            (CliffConfig { wall: 0.0, ..default }, "wall"),
            (CliffConfig { drop: 3.0, ..default }, "drop"),
        ] {
            match config.init() {
                Err(EnvError::Config { field, .. }) => assert_eq!(field, at_fault),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
        assert_eq!(serde_json::from_str::<CliffConfig>(r#"{"edge": 3.0}"#).unwrap().edge, 3.0);
        assert!(serde_json::from_str::<CliffConfig>(r#"{"hedge": 3.0}"#).is_err());
    }

    /// Number of steps to the right from `start` until the fall; environment and batch functions must agree at each.
    fn steps_to_the_fall(config: CliffConfig, start: f64) -> u32 {
        let (mut env, reward, end) = (config.init().unwrap(), config.reward(), config.termination());
        env.set_state(start).unwrap();
        for count in 1.. {
            let step = env.step(&[1.0]).unwrap();
            let next = Tensor::<1>::from_floats(step.obs.as_slice(), &burn::tensor::Device::flex()).unsqueeze::<2>();
            let says = end.terminated(next.clone(), next.clone(), next.clone());
            assert_eq!(says.into_data().iter::<bool>().next(), Some(step.terminated), "{step:?}");
            let pays = f64::from(reward.reward(next.clone(), next.clone(), next).into_scalar::<f32>());
            assert!((pays - step.reward).abs() < 1e-5, "{pays}: {step:?}");
            if step.terminated {
                return count;
            }
        }
        unreachable!()
    }

    #[test]
    fn environment_and_batch_functions_agree_at_the_edge_too() {
        let config = CliffConfig { slope: 0.5, edge: 1.0, drop: 2.0, step_length: 0.2, ..CliffConfig::default() };
        assert_eq!(steps_to_the_fall(config, 0.03), 5);
        // Numbers without an exact form, onto the edge itself: it belongs to the hill.
        assert_eq!(steps_to_the_fall(CliffConfig::default(), 0.0), 21);
        assert_eq!(steps_to_the_fall(CliffConfig { edge: 1.1, ..CliffConfig::default() }, 0.0), 12);
    }
}
