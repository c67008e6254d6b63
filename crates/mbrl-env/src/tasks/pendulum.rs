//! Swing a pendulum up and hold it: Gymnasium's Pendulum-v1.

use std::{f64::consts::PI, sync::Arc};

use burn::tensor::Tensor;

use super::{Episode, column, named};
use crate::{ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Reward, Role, Shape, Sketch, Step, check_action};

pub(super) const NAME: &str = "pendulum";

const MAX_SPEED: f64 = 8.0;
const MAX_TORQUE: f32 = 2.0;
const TIME_STEP: f64 = 0.05;
/// Weights of speed and torque in the cost.
const SPEED_COST: f64 = 0.1;
const TORQUE_COST: f32 = 0.001;

/// A frictionless pendulum whose motor is too weak to lift it at once: Gymnasium 1.4.0's `Pendulum-v1`.
///
/// # Action
/// | Num | Action | Min | Max | Joint | Unit |
/// | --- | --- | --- | --- | --- | --- |
/// | 0 | torque, clipped | −2 | 2 | pivot | N·m |
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | cos θ | −1 | 1 | |
/// | 1 | sin θ | −1 | 1 | |
/// | 2 | θ̇ | −8 | 8 | rad/s |
///
/// θ = 0 is upright. The state is (θ, θ̇); θ is not wrapped.
///
/// # Dynamics
/// A uniform rod with m = 1 kg and l = 1 m, g = 10 m/s², a semi-implicit Euler step of 0.05 s:
/// `θ̇ ← clip(θ̇ + (3g/(2l) sin θ + 3/(m l²) u) dt, ±8)`, then `θ ← θ + θ̇ dt`.
///
/// # Reward
/// `−(wrap(θ)² + 0.1 θ̇² + 0.001 u²)`, with the state *before* the step; between −16.3 and 0.
///
/// # Start
/// θ uniform in ±π, θ̇ uniform in ±1: upstream's distribution, drawn from our own generator, so equal seeds do not give
/// upstream's starts.
///
/// # End
/// Never terminates; the task's time limit is 200 steps.
///
/// ```
/// use mbrl_env::{Env, tasks::Pendulum};
/// let mut env = Pendulum::new();
/// env.set_state([0.0, 0.0])?; // upright, at rest: nothing to pay
/// let step = env.step(&[0.0])?;
/// assert_eq!((step.reward, step.obs), (0.0, vec![1.0, 0.0, 0.0]));
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pendulum {
    spec: Arc<EnvSpec>,
    episode: Episode<2>,
}

impl Pendulum {
    /// A pendulum that awaits its first reset.
    #[must_use]
    pub fn new() -> Self {
        let obs = BoxSpace::new([-1.0, -1.0, -MAX_SPEED as f32], [1.0, 1.0, MAX_SPEED as f32]);
        let actions = BoxSpace::symmetric(1, MAX_TORQUE);
        let fields = [
            Field::linear("cos_angle", ""),
            Field::linear("sin_angle", ""),
            Field::linear("angular_velocity", "rad/s"),
        ];
        let actions = ActionSpace::Box(actions.expect("constant bounds"));
        let spec = EnvSpec::new(NAME, obs.expect("constant bounds"), actions, TIME_STEP);
        let spec = named(spec, fields, [Field::linear("torque", "N m")]);
        Self { spec: Arc::new(spec), episode: Episode::new() }
    }

    /// The state (θ, θ̇), in rad and rad/s.
    #[must_use]
    pub fn state(&self) -> [f64; 2] {
        self.episode.state
    }

    /// Begins an episode at a state (θ, θ̇), in rad and rad/s, and returns the observation there.
    ///
    /// # Errors
    /// [`EnvError::NonFinite`].
    pub fn set_state(&mut self, state: [f64; 2]) -> Result<Vec<f32>, EnvError> {
        self.episode.begin_at(NAME, state)?;
        Ok(self.observation())
    }

    fn observation(&self) -> Vec<f32> {
        let [angle, speed] = self.episode.state;
        vec![angle.cos() as f32, angle.sin() as f32, speed as f32]
    }
}

impl Default for Pendulum {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for Pendulum {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.episode.begin(seed, |rng| [rng.uniform_f64(-PI, PI), rng.uniform_f64(-1.0, 1.0)]);
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.episode.require_running(NAME)?;
        check_action(&self.spec, action)?;
        let [angle, speed] = self.episode.state;
        // Upstream's torque is a float32 among float64 numbers: what is computed from it alone stays in float32.
        let torque = action[0].clamp(-MAX_TORQUE, MAX_TORQUE);
        let cost = wrap(angle).powi(2) + SPEED_COST * speed.powi(2) + f64::from(TORQUE_COST * (torque * torque));

        let acceleration = 15.0 * angle.sin() + f64::from(3.0 * torque);
        let speed = (speed + acceleration * TIME_STEP).clamp(-MAX_SPEED, MAX_SPEED);
        self.episode.state = [angle + speed * TIME_STEP, speed];

        Ok(Step::new(self.observation(), -cost))
    }
}

simulator_by_clone!(Pendulum);

/// The rod, turning counter-clockwise as upstream draws it, and where its tip should be.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    // By its angle: if a model predicts a sine and a cosine that belong to no angle, the rod keeps its length.
    let (sin, cos) = obs[1].atan2(obs[0]).sin_cos();
    Sketch {
        view: [-1.3, -1.3, 1.3, 1.3],
        shapes: vec![
            Shape::Disc { role: Role::Goal, at: [0.0, 1.0], radius: 0.15 },
            Shape::Line { role: Role::Body, points: vec![[0.0, 0.0], [-sin, cos]], width: 0.15 },
            Shape::Disc { role: Role::Ground, at: [0.0, 0.0], radius: 0.05 },
        ],
    }
}

/// An angle, moved into [−π, π).
fn wrap(angle: f64) -> f64 {
    (angle + PI).rem_euclid(2.0 * PI) - PI
}

/// [`Pendulum`]'s reward, from the observation before the step and the action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendulumReward;

impl Reward for PendulumReward {
    fn reward(&self, obs: Tensor<2>, actions: Tensor<2>, _: Tensor<2>) -> Tensor<1> {
        let (cos, sin, speed) = (column(&obs, 0), column(&obs, 1), column(&obs, 2));
        // A model may predict (0, 0), where the arctangent has no gradient: its angle is taken as 0.
        let degenerate = (cos.clone().abs() + sin.clone().abs()).lower_elem(1e-6);
        let angle = sin.atan2(cos.mask_fill(degenerate, 1.0));
        let torque = column(&actions, 0).clamp(-MAX_TORQUE, MAX_TORQUE);
        -(angle.square() + speed.square() * SPEED_COST + torque.square() * TORQUE_COST)
    }
}
