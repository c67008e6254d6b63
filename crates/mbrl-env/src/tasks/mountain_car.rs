//! Rock a weak car up a hill: Gymnasium's MountainCarContinuous-v0.

use std::sync::Arc;

use burn::tensor::{Bool, Tensor};

use super::{Episode, Phase, column, named};
use crate::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Reward, Role, Shape, Sketch, Step, Termination, check_action,
};

pub(super) const NAME: &str = "mountain-car";

const MIN_POSITION: f32 = -1.2;
const MAX_POSITION: f32 = 0.6;
const MAX_SPEED: f32 = 0.07;
const GOAL: f32 = 0.45;
const POWER: f64 = 0.0015;
const GRAVITY: f64 = 0.0025;
const PRIZE: f64 = 100.0;
const ACTION_COST: f64 = 0.1;

/// Moore's car in a valley, too weak to climb out at once: Gymnasium 1.4.0's `MountainCarContinuous-v0`.
///
/// # Action
/// | Num | Action | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | force, clipped | −1 | 1 | 0.0015 m per step² |
///
/// The cost is that of the action before clipping, as upstream.
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | horizontal position x | −1.2 | 0.6 | m |
/// | 1 | velocity v | −0.07 | 0.07 | m per step |
///
/// The state is the observation, in single precision, as upstream's after the first step of an episode.
///
/// # Dynamics
/// `v ← clip(v + 0.0015 u − 0.0025 cos 3x, ±0.07)`, then `x ← clip(x + v, −1.2, 0.6)`; at the left wall the car stops. The
/// ground is `0.45 sin 3x + 0.55` high. Upstream's steps have no duration; the control period is that of its
/// pictures, 1/30 s.
///
/// # Reward
/// `−0.1 u²`, and 100 for arriving: an agent that has never arrived learns to sit still.
///
/// # Start
/// x uniform in [−0.6, −0.4], v = 0: upstream's distribution, drawn from our own generator. Upstream computes the first
/// step of an episode in double precision.
///
/// # End
/// Terminates where x ≥ 0.45 and v ≥ 0; the task's time limit is 999 steps.
///
/// ```
/// use mbrl_env::{Env, tasks::MountainCar};
/// let mut env = MountainCar::new();
/// env.set_state([0.44, 0.03])?;
/// let step = env.step(&[0.0])?;
/// assert!(step.terminated && step.reward == 100.0);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct MountainCar {
    spec: Arc<EnvSpec>,
    /// Single precision, in double.
    episode: Episode<2>,
}

impl MountainCar {
    /// A car that awaits its first reset.
    #[must_use]
    pub fn new() -> Self {
        let obs = BoxSpace::new([MIN_POSITION, -MAX_SPEED], [MAX_POSITION, MAX_SPEED]);
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).expect("constant bounds"));
        let fields = [Field::linear("position", "m"), Field::linear("velocity", "m/step")];
        let spec = EnvSpec::new(NAME, obs.expect("constant bounds"), actions, 1.0 / 30.0);
        let spec = named(spec, fields, [Field::linear("force", "0.0015 m/step²")]);
        Self { spec: Arc::new(spec), episode: Episode::new() }
    }

    /// The state (x, v), in m and m per step.
    #[must_use]
    pub fn state(&self) -> [f32; 2] {
        self.episode.state.map(|entry| entry as f32)
    }

    /// Begins an episode at a state (x, v) and returns the observation there.
    ///
    /// # Errors
    /// [`EnvError::NonFinite`], and [`EnvError::Config`] if the state is outside of the observation's bounds.
    pub fn set_state(&mut self, state: [f32; 2]) -> Result<Vec<f32>, EnvError> {
        let beyond = |x: f32, low: f32, high: f32| x < low || x > high;
        if beyond(state[0], MIN_POSITION, MAX_POSITION) || beyond(state[1], -MAX_SPEED, MAX_SPEED) {
            let rule = "a position in [-1.2, 0.6] and a velocity in [-0.07, 0.07]";
            return Err(EnvError::Config { field: "state", value: format!("{state:?}"), rule });
        }
        self.episode.begin_at(NAME, state.map(f64::from))?;
        Ok(state.to_vec())
    }
}

impl Default for MountainCar {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for MountainCar {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.episode.begin(seed, |rng| [f64::from(rng.uniform(-0.6, -0.4)), 0.0]);
        Ok(self.state().to_vec())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.episode.require_running(NAME)?;
        check_action(&self.spec, action)?;
        let [position, velocity] = self.state();
        let slope = GRAVITY * f64::from(3.0 * position).cos();
        // Upstream's state and action are float32; a clipped action becomes a Python float, and what is computed
        // from those alone stays in double precision.
        let push = match action[0] {
            force if force.abs() > 1.0 => (f64::from(force.signum()) * POWER - slope) as f32,
            force => force * POWER as f32 - slope as f32,
        };
        let mut velocity = (velocity + push).clamp(-MAX_SPEED, MAX_SPEED);
        let position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION);
        if position == MIN_POSITION && velocity < 0.0 {
            velocity = 0.0;
        }
        self.episode.state = [position, velocity].map(f64::from);

        let terminated = position >= GOAL && velocity >= 0.0;
        if terminated {
            self.episode.phase = Phase::Over;
        }
        let prize = if terminated { PRIZE } else { 0.0 };
        let reward = prize - f64::from(action[0]).powi(2) * ACTION_COST;
        Ok(Step::new([position, velocity], reward).with_terminated(terminated))
    }
}

simulator_by_clone!(MountainCar);

/// `[N]`: written so that NaN counts as not arrived.
fn arrived(next_obs: &Tensor<2>) -> Tensor<1, Bool> {
    column(next_obs, 0).greater_equal_elem(GOAL).bool_and(column(next_obs, 1).greater_equal_elem(0.0))
}

/// [`MountainCar`]'s reward, from the action (not clipped) and the observation after the step.
///
/// The prize is constant except at its edge, so it carries no gradient; only the cost of the action does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountainCarReward;

impl Reward for MountainCarReward {
    fn reward(&self, _: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        arrived(&next_obs).float() * PRIZE - column(&actions, 0).square() * ACTION_COST
    }
}

/// [`MountainCar`]'s termination: arrived at 0.45 m, not rolling back. A NaN prediction does not terminate, because termination is the
/// goal here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountainCarTermination;

impl Termination for MountainCarTermination {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        arrived(&next_obs)
    }
}

fn height(position: f32) -> f32 {
    0.45 * (3.0 * position).sin() + 0.55
}

/// The car on its hill, and the flag.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    let on_ground = |position: f32| [position, height(position)];
    let ground = (0..=60).map(|i| on_ground(MIN_POSITION + (MAX_POSITION - MIN_POSITION) * i as f32 / 60.0)).collect();
    let [x, y] = on_ground(GOAL);
    let (tangent, [at, up]) = ((1.35 * (3.0 * obs[0]).cos()).atan(), on_ground(obs[0]));
    let (sin, cos) = tangent.sin_cos();
    let corner = |[along, above]: [f32; 2]| [at + along * cos - above * sin, up + along * sin + above * cos];
    Sketch {
        view: [-1.35, 0.0, 0.75, 1.3],
        shapes: vec![
            Shape::Line { role: Role::Ground, points: ground, width: 0.015 },
            Shape::Line { role: Role::Goal, points: vec![[x, y], [x, y + 0.2]], width: 0.02 },
            Shape::Polygon {
                role: Role::Body,
                points: [[-0.06, 0.01], [0.06, 0.01], [0.06, 0.07], [-0.06, 0.07]].map(corner).to_vec(),
            },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn episode(seed: u64, mut policy: impl FnMut([f32; 2]) -> f32) -> (f64, bool) {
        let mut env = MountainCar::new();
        env.reset(Some(seed)).unwrap();
        let mut sum = 0.0;
        for _ in 0..999 {
            let step = env.step(&[policy(env.state())]).unwrap();
            sum += step.reward;
            if step.terminated {
                return (sum, true);
            }
        }
        (sum, false)
    }

    #[test]
    fn a_random_agent_stays_in_the_valley_and_rocking_gets_out() {
        let mut rng = Rng::new(0);
        for seed in 0..20 {
            // A mean cost of 0.1/3 per step.
            let (sum, arrived) = episode(seed, |_| rng.uniform(-1.0, 1.0));
            assert!(!arrived && (sum + 33.3).abs() < 5.0, "{sum}");
            let (sum, arrived) = episode(seed, |[_, velocity]| if velocity < 0.0 { -1.0 } else { 1.0 });
            assert!(arrived && sum > 85.0, "{sum}");
            // Too weak to climb at once.
            assert!(!episode(seed, |_| 1.0).1);
        }
    }

    #[test]
    fn the_left_wall_stops_the_car_and_rolling_back_is_no_end() {
        let mut env = MountainCar::new();
        env.set_state([-1.19, -0.07]).unwrap();
        let step = env.step(&[-1.0]).unwrap();
        assert_eq!(step.obs, [-1.2, 0.0]);
        env.set_state([0.55, -0.01]).unwrap();
        assert!(!env.step(&[0.0]).unwrap().terminated);
        assert!(matches!(env.set_state([0.7, 0.0]), Err(EnvError::Config { .. })));
    }

    #[test]
    fn the_cost_is_of_the_action_that_was_asked_for() {
        let mut env = MountainCar::new();
        env.set_state([-0.5, 0.0]).unwrap();
        assert_eq!(env.step(&[2.0]).unwrap().reward, -0.4);
    }
}
