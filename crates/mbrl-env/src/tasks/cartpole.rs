//! Balance a pole on a cart with a continuous force: mbrl-lib's `cartpole_continuous`.

use std::{f64::consts::PI, sync::Arc};

use burn::tensor::{Bool, Tensor};

use super::{Episode, Phase, cart_and_pole, column, named};
use crate::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Reward, Role, Shape, Sketch, Step, Termination, check_action,
};

pub(super) const NAME: &str = "cartpole";

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = POLE_MASS + 1.0;
/// Half the pole's length (m).
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = POLE_MASS * LENGTH;
const FORCE: f32 = 10.0;
const TIME_STEP: f64 = 0.02;
const MAX_POSITION: f64 = 2.4;
/// 12°, in upstream's order of operations.
const MAX_ANGLE: f64 = 12.0 * 2.0 * PI / 360.0;

/// Barto, Sutton and Anderson's cart-pole with a continuous force: `mbrl/env/cartpole_continuous.py` of mbrl-lib 0.2.0.
///
/// # Action
/// | Num | Action | Min | Max | Joint | Unit |
/// | --- | --- | --- | --- | --- | --- |
/// | 0 | force on the cart, clipped | −1 | 1 | slide | 10 N |
///
/// Upstream does not clip and leaves forces outside of the bounds to its caller.
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | cart position x | −4.8 | 4.8 | m |
/// | 1 | cart velocity ẋ | −∞ | ∞ | m/s |
/// | 2 | pole angle θ, 0 upright | −24 | 24 | deg (the observation itself in rad) |
/// | 3 | pole velocity θ̇ | −∞ | ∞ | rad/s |
///
/// The state is the observation, in double precision.
///
/// # Dynamics
/// Cart of 1 kg, pole of 0.1 kg and 1 m, no friction, g = 9.8 m/s², an explicit Euler step of 0.02 s.
///
/// # Reward
/// The environment gives 1 for every step, *including the one that fails*, as upstream does. Planners see
/// [`CartPoleReward`], which is 1 − done: it gives nothing for a failing step. On all other steps the two agree.
///
/// # Start
/// All four uniform in ±0.05: upstream's distribution, drawn from our own generator.
///
/// # End
/// Terminates where |x| > 2.4 m or |θ| > 12°; the task's time limit is 200 steps.
#[derive(Debug, Clone)]
pub struct CartPole {
    spec: Arc<EnvSpec>,
    episode: Episode<4>,
}

impl CartPole {
    /// A cart-pole that awaits its first reset.
    #[must_use]
    pub fn new() -> Self {
        let high = [2.0 * MAX_POSITION as f32, f32::INFINITY, 2.0 * MAX_ANGLE as f32, f32::INFINITY];
        let obs = BoxSpace::new(high.map(|bound| -bound), high).expect("constant bounds");
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).expect("constant bounds"));
        // The angle stays within 12°: its sine and cosine would carry less information, not more.
        let fields = [
            Field::linear("position", "m"),
            Field::linear("velocity", "m/s"),
            Field::linear("angle", "rad"),
            Field::linear("angular_velocity", "rad/s"),
        ];
        let spec = EnvSpec::new(NAME, obs, actions, TIME_STEP);
        let spec = named(spec, fields, [Field::linear("force", "10 N")]);
        Self { spec: Arc::new(spec), episode: Episode::new() }
    }

    /// The state (x, ẋ, θ, θ̇), in m, m/s, rad and rad/s.
    #[must_use]
    pub fn state(&self) -> [f64; 4] {
        self.episode.state
    }

    /// Begins an episode at a state (x, ẋ, θ, θ̇) and returns the observation there.
    ///
    /// # Errors
    /// [`EnvError::NonFinite`].
    pub fn set_state(&mut self, state: [f64; 4]) -> Result<Vec<f32>, EnvError> {
        self.episode.begin_at(NAME, state)?;
        Ok(self.observation())
    }

    fn observation(&self) -> Vec<f32> {
        self.episode.state.iter().map(|&entry| entry as f32).collect()
    }
}

impl Default for CartPole {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for CartPole {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.episode.begin(seed, |rng| std::array::from_fn(|_| rng.uniform_f64(-0.05, 0.05)));
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.episode.require_running(NAME)?;
        check_action(&self.spec, action)?;
        let [x, x_dot, theta, theta_dot] = self.episode.state;
        // Upstream's force is a float32 among float64 numbers.
        let force = f64::from(action[0].clamp(-1.0, 1.0) * FORCE);
        let (sin, cos) = theta.sin_cos();

        let temp = (force + POLE_MASS_LENGTH * theta_dot.powi(2) * sin) / TOTAL_MASS;
        let theta_acc = (GRAVITY * sin - cos * temp) / (LENGTH * (4.0 / 3.0 - POLE_MASS * cos.powi(2) / TOTAL_MASS));
        let x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS;

        let x = x + TIME_STEP * x_dot;
        let theta = theta + TIME_STEP * theta_dot;
        self.episode.state = [x, x_dot + TIME_STEP * x_acc, theta, theta_dot + TIME_STEP * theta_acc];

        let terminated = x.abs() > MAX_POSITION || theta.abs() > MAX_ANGLE;
        if terminated {
            self.episode.phase = Phase::Over;
        }
        Ok(Step::new(self.observation(), 1.0).with_terminated(terminated))
    }
}

simulator_by_clone!(CartPole);

/// The cart between the ends of its rail, and the pole.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    let (x, theta) = (obs[0], obs[2]);
    let (length, limit) = (2.0 * LENGTH as f32, MAX_POSITION as f32);
    let [cart, pole] = cart_and_pole(x, [x + length * theta.sin(), length * theta.cos()]);
    let end = |x: f32| Shape::Line { role: Role::Obstacle, points: vec![[x, -0.1], [x, 0.2]], width: 0.04 };
    Sketch {
        view: [-3.2, -0.4, 3.2, 1.2],
        shapes: vec![
            Shape::Line { role: Role::Ground, points: vec![[-limit, 0.0], [limit, 0.0]], width: 0.02 },
            end(-limit),
            end(limit),
            cart,
            pole,
        ],
    }
}

/// [`CartPole`]'s termination: after the step, the cart is more than 2.4 m or the pole more than 12° from the middle.
/// A NaN prediction terminates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CartPoleTermination;

impl Termination for CartPoleTermination {
    fn terminated(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        upright(&next_obs).bool_not()
    }
}

/// [`CartPole`]'s reward as planners see it: 1 − done, as in mbrl-lib's `reward_fns.cartpole`.
///
/// It is constant except at its edge, so it carries no gradient.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CartPoleReward;

impl Reward for CartPoleReward {
    fn reward(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        upright(&next_obs).float()
    }
}

/// `[N]`: written so that NaN is not upright.
fn upright(next_obs: &Tensor<2>) -> Tensor<1, Bool> {
    let centred = column(next_obs, 0).abs().lower_equal_elem(MAX_POSITION);
    centred.bool_and(column(next_obs, 2).abs().lower_equal_elem(MAX_ANGLE))
}
