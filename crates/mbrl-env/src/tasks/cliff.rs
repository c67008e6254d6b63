//! Walk up a hill and stop before its edge: where a model of random data leads a planner astray.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use super::{Episode, Phase, column};
use crate::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Info, Reward, Role, Shape, Sketch, Step, Termination, check_action,
};

pub(super) const NAME: &str = "cliff";

/// In step lengths.
const START_SPREAD: f64 = 0.5;
/// In step lengths; above 1, so that there is a place from which no step leads back.
const LONGEST_SLIDE: f64 = 1.5;

/// The shape of a [`Cliff`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CliffConfig {
    /// Height won for each metre to the right (default: 1).
    pub slope: f64,
    /// Where the hill ends on the right (m, default: 2).
    pub edge: f64,
    /// Where a wall ends it on the left (m, default: −1).
    pub wall: f64,
    /// How far below the edge the floor is (m, default: 4).
    pub drop: f64,
    /// Height lost for each metre past the edge (default: 4).
    pub steepness: f64,
    /// Way of one unit of action (m, default: 0.1).
    pub step_length: f64,
    /// Standard deviation of what chance adds to each step, in step lengths (default: 0.1).
    ///
    /// Not 0, because a Gaussian model of a motion without any noise grows ever surer of itself.
    pub noise: f64,
}

impl Default for CliffConfig {
    fn default() -> Self {
        Self { slope: 1.0, edge: 2.0, wall: -1.0, drop: 4.0, steepness: 4.0, step_length: 0.1, noise: 0.1 }
    }
}

impl CliffConfig {
    /// A point on the hill that awaits its first reset.
    ///
    /// # Errors
    /// [`EnvError::Config`] where a number is not finite; `slope`, `edge`, `steepness` or `step_length` is not positive;
    /// `wall` is not negative; `noise` is negative; or `drop` does not end below the foot of the wall, where heights would
    /// not tell a fall from a walk.
    pub fn init(&self) -> Result<Cliff, EnvError> {
        let Self { slope, edge, wall, drop, steepness, step_length, noise } = *self;
        let positive = [("slope", slope), ("edge", edge), ("steepness", steepness), ("step_length", step_length)];
        for (field, value) in positive {
            require(value > 0.0 && value.is_finite(), field, value, "positive and finite")?;
        }
        require(wall < 0.0 && wall.is_finite(), "wall", wall, "negative and finite")?;
        require(noise >= 0.0 && noise.is_finite(), "noise", noise, "finite and at least 0")?;
        let deep = drop > slope * (edge - wall) && drop.is_finite();
        require(deep, "drop", drop, "finite and above slope · (edge − wall)")?;

        let low = [wall as f32, self.floor() as f32];
        let high = [f32::INFINITY, (slope * edge) as f32];
        let spec = EnvSpec {
            name: NAME.into(),
            obs: BoxSpace::new(low, high)?,
            actions: ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?),
            control_period: 0.1,
        };
        Ok(Cliff { spec: Arc::new(spec), config: *self, episode: Episode::new() })
    }

    /// The end of episodes on this hill, as a batch function: a height nearer to the floor than to the foot of the wall.
    #[must_use]
    pub fn termination(&self) -> CliffTermination {
        CliffTermination { below: self.lost() as f32 }
    }

    fn floor(&self) -> f64 {
        self.slope * self.edge - self.drop
    }

    /// The height below which there is only the fall.
    fn lost(&self) -> f64 {
        (self.floor() + self.slope * self.wall) / 2.0
    }

    fn past_edge(&self, position: f64) -> f64 {
        (position - self.edge).max(0.0)
    }

    fn height(&self, position: f64) -> f64 {
        (self.slope * position.min(self.edge) - self.steepness * self.past_edge(position)).max(self.floor())
    }
}

fn require(holds: bool, field: &'static str, value: f64, rule: &'static str) -> Result<(), EnvError> {
    if holds { Ok(()) } else { Err(EnvError::Config { field, value: value.to_string(), rule }) }
}

/// A point on a line that walks uphill to the right; past the edge it slides and falls.
///
/// On data of a random walk near the start, "going right means going higher" is true, and a model that has learned it
/// sends its planner over the edge: the states that a plan visits are not those that the model was trained on. With falls
/// in the data a model can know better; a planner that does goes to the top and stops.
///
/// # Action
/// | Num | Action | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | step to the right, clipped | −1 | 1 | 0.1 m |
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | position x | −1 | ∞ | m |
/// | 1 | height | −2 | 2 | m |
///
/// # Dynamics
/// Every 0.1 s, `x ← max(x + 0.1 (u + 0.1 n) + min(d, 0.15), −1)`, where n is standard normal and d = max(x − 2, 0) is the
/// way past the edge at 2 m. The height is `x` up to the edge and `2 − 4 d` beyond, down to a floor at −2 m. So one
/// slides on the far side, at first by as much as one is past the edge: from within 0.1 m, one step length, full steps lead
/// back; from further away they do not, and the fall of 3.5 m takes some steps more. All numbers are those of
/// [`CliffConfig`].
///
/// The hill is twenty steps long, so a walker that wants the top has twenty occasions to stop. A random walk of 40 uniform
/// steps has a standard deviation of 3.7 step lengths; that it ever comes 19.5 to the right has a probability of at most
/// exp(−19.5² / (2 · 40 · 0.343)) = 1e-6 (a uniform step with the noise is sub-Gaussian with variance 1/3 + 0.01; Doob's
/// inequality). Always going right is over after some 25 steps.
///
/// # Reward
/// The height *after* the step. Standing on the top pays 2 a step.
///
/// # Start
/// x uniform in ±0.05 m, half a step.
///
/// # End
/// Terminates below −1.5 m, half way between the floor and the foot of the wall; the task's time limit is 40 steps.
///
/// ```
/// use mbrl_env::{Env, tasks::Cliff};
/// let mut env = Cliff::new();
/// env.set_state(2.5)?; // past the edge, too far to come back
/// let steps = (1..40).find(|_| env.step(&[-1.0]).expect("a running episode").terminated);
/// assert!(steps.is_some());
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
    /// [`EnvError::NonFinite`], and [`EnvError::Config`] beyond the wall or where an episode is over.
    pub fn set_state(&mut self, position: f64) -> Result<Vec<f32>, EnvError> {
        let beyond = position < self.config.wall || self.config.height(position) < self.config.lost();
        require(!beyond, "position", position, "right of the wall, above the height of the end")?;
        self.episode.begin_at(NAME, [position])?;
        Ok(self.observation())
    }

    fn observation(&self) -> Vec<f32> {
        vec![self.position() as f32, self.config.height(self.position()) as f32]
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
        let CliffConfig { step_length, wall, noise, .. } = self.config;
        let chance = noise * self.episode.rng.normal_f64();
        let way = step_length * (f64::from(action[0].clamp(-1.0, 1.0)) + chance);
        let slide = self.config.past_edge(self.position()).min(LONGEST_SLIDE * step_length);
        let position = (self.position() + way + slide).max(wall);
        self.episode.state = [position];
        let reward = self.config.height(position);
        let terminated = reward < self.config.lost();
        if terminated {
            self.episode.phase = Phase::Over;
        }
        Ok(Step { obs: self.observation(), reward, terminated, truncated: false, info: Info::new() })
    }
}

simulator_by_clone!(Cliff);

/// [`Cliff`]'s reward: the height after the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CliffReward;

impl Reward for CliffReward {
    fn reward(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        column(&next_obs, 1)
    }
}

/// [`Cliff`]'s end, by the height after the step; made by [`CliffConfig::termination`]. A prediction that is NaN counts as
/// an end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CliffTermination {
    below: f32,
}

impl Termination for CliffTermination {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        column(&next_obs, 1).greater_equal_elem(self.below).bool_not()
    }
}

/// The hill of the default shape and who walks on it.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    let shape = CliffConfig::default();
    let landing = shape.edge + shape.drop / shape.steepness;
    let [wall, edge, floor, landing] = [shape.wall, shape.edge, shape.floor(), landing].map(|entry| entry as f32);
    let [foot, top] = [shape.height(shape.wall), shape.height(shape.edge)].map(|entry| entry as f32);
    let hill = vec![[wall, floor], [landing, floor], [edge, top], [wall, foot]];
    Sketch {
        view: [-1.3, -2.3, 3.6, 2.3],
        shapes: vec![
            Shape::Polygon { role: Role::Ground, points: hill },
            Shape::Line { role: Role::Obstacle, points: vec![[landing, floor], [landing + 0.5, floor]], width: 0.04 },
            Shape::Disc { role: Role::Goal, at: [edge, top], radius: 0.06 },
            Shape::Disc { role: Role::Body, at: [obs[0], obs[1] + 0.06], radius: 0.06 },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    /// Return, length and whether it fell, of an episode of 40 steps.
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
            // Some 20 steps of 0.1 m, on average half way up, and 4 or 5 down.
            let (sum, length, fell) = episode(seed, |_| 1.0);
            assert!(fell && (23..=28).contains(&length) && (14.0..28.0).contains(&sum), "{sum} in {length} steps");
            // The top is reached after 19 steps, so some 20 more are paid with about 1.85.
            let (sum, _, fell) = episode(seed, |position| (10.0 * (1.85 - position)) as f32);
            assert!(!fell && sum > 50.0, "{sum}");
        }
        // 3.7 standard deviations of the last position, seen over 200 episodes: a fall, 5.3 away, is out of the question.
        assert!(random.abs() < 1.5 && highest < 1.6, "{random}, {highest} m");
    }

    #[test]
    fn the_wall_holds() {
        let mut env = CliffConfig { noise: 0.0, ..CliffConfig::default() }.init().unwrap();
        env.set_state(-0.95).unwrap();
        assert_eq!(env.step(&[-1.0]).unwrap().obs, [-1.0, -1.0]);
        assert_eq!(env.step(&[-1.0]).unwrap().obs, [-1.0, -1.0]);
        for position in [-1.1, 2.9] {
            assert!(matches!(env.set_state(position), Err(EnvError::Config { field: "position", .. })));
        }
        assert!(matches!(env.set_state(f64::NAN), Err(EnvError::NonFinite { .. })));
    }

    #[test]
    fn full_steps_lead_back_from_within_a_step_of_the_edge_and_from_no_further() {
        let mut env = CliffConfig { noise: 0.0, ..CliffConfig::default() }.init().unwrap();
        for (past, expected) in [(0.02, true), (0.09, true), (0.11, false), (0.3, false), (0.6, false)] {
            env.set_state(2.0 + past).unwrap();
            let back = (0..200).map_while(|_| env.step(&[-1.0]).ok()).any(|step| step.obs[0] < 1.99);
            assert_eq!(back, expected, "from {past} m past the edge");
        }
        // Height and slide past the edge, by hand: 0.2 m past, a step to the left; the slide is at its longest.
        env.set_state(2.2).unwrap();
        let step = env.step(&[-1.0]).unwrap();
        assert!((step.obs[0] - 2.25).abs() < 1e-6 && (step.reward - 1.0).abs() < 1e-9, "{step:?}");
    }

    #[test]
    fn the_noise_of_a_step_has_its_standard_deviation() {
        let (mut env, n) = (Cliff::new(), 4000);
        let mut squares = 0.0;
        env.reset(Some(0)).unwrap();
        for _ in 0..n {
            env.set_state(0.0).unwrap();
            env.step(&[0.5]).unwrap();
            squares += (env.position() - 0.05).powi(2);
        }
        // Standard error std/√(2n); four of them.
        let std = (squares / f64::from(n)).sqrt();
        assert!((std - 0.01).abs() < 0.045 * 0.01, "{std} m");
    }

    #[test]
    fn every_rule_of_the_shape_is_checked() {
        let default = CliffConfig::default();
        for (config, at_fault) in [
            (CliffConfig { slope: 0.0, ..default }, "slope"),
            (CliffConfig { edge: -1.0, ..default }, "edge"),
            (CliffConfig { edge: f64::INFINITY, ..default }, "edge"),
            (CliffConfig { step_length: f64::NAN, ..default }, "step_length"),
            (CliffConfig { steepness: -4.0, ..default }, "steepness"),
            (CliffConfig { noise: -0.1, ..default }, "noise"),
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

    #[test]
    fn another_shape_ends_where_its_own_rule_says() {
        let config = CliffConfig { slope: 0.5, edge: 1.0, drop: 2.0, step_length: 0.2, ..CliffConfig::default() };
        let (mut env, end) = (config.init().unwrap(), config.termination());
        env.reset(Some(0)).unwrap();
        loop {
            let step = env.step(&[1.0]).unwrap();
            let next = Tensor::<1>::from_floats(step.obs.as_slice(), &burn::tensor::Device::flex()).unsqueeze::<2>();
            let says = end.terminated(next.clone(), next.clone(), next).into_data().iter::<bool>().next().unwrap();
            assert_eq!(says, step.terminated, "{step:?}");
            if says {
                break;
            }
        }
    }
}
