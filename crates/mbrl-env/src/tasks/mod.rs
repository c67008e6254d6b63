//! The tasks, and the registry that makes them by name.
//!
//! A task is more than an environment: planning needs its reward and its termination as batch functions. [`make`] returns all
//! of them; [`make_with`] takes options, as plain data; [`entries`] is the table of all tasks, and your own [`TaskEntry`]
//! is made like its entries.
//!
//! ```
//! use mbrl_env::{Env, Rng, tasks};
//!
//! let mut task = tasks::make("pendulum")?;
//! let mut rng = Rng::new(0);
//! let first = task.env.reset(Some(7))?;
//! assert_eq!(first.len(), task.env.spec().obs.width());
//! let action = task.env.spec().actions.sample(&mut rng)?;
//! assert!(task.env.step(&action)?.reward <= 0.0);
//!
//! let unknown = tasks::make("pendulun").unwrap_err().to_string();
//! assert!(unknown.starts_with("unknown task `pendulun`; known tasks: pendulum, cartpole, cartpole-swingup, reacher, \
//!     point-mass, point-mass-sparse, mountain-car, cliff, pendulum-pixels, cartpole-swingup-pixels, process, HalfCheetah-v5"));
//! # Ok::<(), mbrl_env::EnvError>(())
//! ```

/// Implements `Simulator` for a task that is its own complete state.
macro_rules! simulator_by_clone {
    ($Task:ty) => {
        impl $crate::Simulator for $Task {
            fn save(&self) -> $crate::Snapshot {
                $crate::Snapshot::new(self.clone())
            }

            fn restore(&mut self, snapshot: &$crate::Snapshot) -> Result<(), $crate::EnvError> {
                let foreign = || $crate::EnvError::ForeignSnapshot { env: self.spec.name.clone() };
                let saved = snapshot.get::<Self>().ok_or_else(foreign)?;
                self.clone_from(saved);
                Ok(())
            }

            fn boxed_clone(&self) -> Box<dyn $crate::Simulator> {
                Box::new(self.clone())
            }
        }
    };
}

mod cartpole;
mod cartpole_swingup;
mod cliff;
mod mountain_car;
mod options;
mod pendulum;
mod point_mass;
mod reacher;
mod registry;

use std::{fmt, sync::Arc};

use burn::tensor::Tensor;

use crate::{
    EnvError, EnvSpec, Field, Knowledge, Reward, Rng, Role, Shape, Simulator, SketchFn, Termination, TimeLimit, World,
    check_finite,
};

pub use cartpole::{CartPole, CartPoleReward, CartPoleTermination};
pub use cartpole_swingup::{CartPoleSwingup, CartPoleSwingupReward};
pub use cliff::{Cliff, CliffConfig, CliffReward, CliffTermination};
pub use mountain_car::{MountainCar, MountainCarReward, MountainCarTermination};
pub use options::{OptionValue, Options};
pub use pendulum::{Pendulum, PendulumReward};
pub use point_mass::{PointMass, PointMassReward};
pub use reacher::{Reacher, ReacherReward};
pub use registry::{PixelsConfig, TaskEntry, entries, make, make_with};

/// An environment with everything that model-based learning needs to know about it.
///
/// ```
/// use std::sync::Arc;
/// use mbrl_env::{Env, Tensor, TimeLimit, World, reward_fn, tasks::{Pendulum, Task}};
///
/// let spin = reward_fn(|_obs, _actions, next_obs: Tensor<2>| next_obs.select_dim::<1>(1, 2));
/// let task = Task::new(World::from_simulator(TimeLimit::new(Pendulum::new(), 100)?)).with_reward(Arc::new(spin));
/// assert_eq!(task.env.spec().max_steps, Some(100));
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[non_exhaustive]
pub struct Task {
    /// The environment, under its time limit. Its [specification](crate::EnvSpec) says which columns are angles and how long
    /// episodes are.
    pub env: World,
    /// Its reward, as planners see it; `None` if the observation lacks something that the reward needs. A model must then have
    /// learned the reward, or be the simulator.
    pub reward: Option<Arc<dyn Reward>>,
    /// Its termination; `None` if the task has none.
    pub termination: Option<Arc<dyn Termination>>,
    /// Draws an observation; `None` if there is nothing to draw.
    pub sketch: Option<SketchFn>,
    /// What a model of it may use besides data.
    pub knowledge: Knowledge,
}

impl Task {
    /// An environment alone, whose reward a model must learn.
    #[must_use]
    pub fn new(env: impl Into<World>) -> Self {
        Self { env: env.into(), reward: None, termination: None, sketch: None, knowledge: Knowledge::none() }
    }

    /// With its reward as a batch function.
    #[must_use]
    pub fn with_reward(mut self, reward: Arc<dyn Reward>) -> Self {
        self.reward = Some(reward);
        self
    }

    /// With its termination as a batch function.
    #[must_use]
    pub fn with_termination(mut self, termination: Arc<dyn Termination>) -> Self {
        self.termination = Some(termination);
        self
    }

    /// With what a model of it may use besides data.
    #[must_use]
    pub fn with_knowledge(mut self, knowledge: Knowledge) -> Self {
        self.knowledge = knowledge;
        self
    }

    /// With a drawing of its observations.
    #[must_use]
    pub fn with_sketch(mut self, sketch: SketchFn) -> Self {
        self.sketch = Some(sketch);
        self
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("env", &self.env)
            .field("reward", &self.reward.is_some())
            .field("terminates", &self.termination.is_some())
            .field("sketch", &self.sketch.is_some())
            .field("knowledge", &self.knowledge)
            .finish()
    }
}

/// A classic task: a simulator under its time limit, with its reward and a sketch.
fn task(
    env: impl Simulator + 'static,
    max_steps: u32,
    reward: impl Reward + 'static,
    sketch: SketchFn,
) -> Result<Task, EnvError> {
    let env = World::from_simulator(TimeLimit::new(env, max_steps)?);
    Ok(Task::new(env).with_reward(Arc::new(reward)).with_sketch(sketch))
}

/// A specification with constant names.
fn named(spec: EnvSpec, fields: impl Into<Vec<Field>>, action_fields: impl Into<Vec<Field>>) -> EnvSpec {
    let named = spec.with_fields(fields).and_then(|spec| spec.with_action_fields(action_fields));
    named.expect("a name for each column")
}

/// What every classic task has besides its specification: the physical state, the generator of starts, and the phase of
/// the episode.
#[derive(Debug, Clone)]
struct Episode<const N: usize> {
    state: [f64; N],
    rng: Rng,
    phase: Phase,
}

/// The phase of an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Unbegun,
    Running,
    Over,
}

impl Phase {
    /// Refuses a step outside of an episode of the environment `name`.
    pub(crate) fn require_running(self, name: &str) -> Result<(), EnvError> {
        let why = match self {
            Self::Running => return Ok(()),
            Self::Unbegun => "no episode has begun",
            Self::Over => "the episode is over",
        };
        Err(EnvError::NeedsReset { env: name.to_owned(), why })
    }
}

impl<const N: usize> Episode<N> {
    fn new() -> Self {
        Self { state: [0.0; N], rng: Rng::new(0), phase: Phase::Unbegun }
    }

    /// Begins an episode at the state that `draw` takes from the generator.
    fn begin(&mut self, seed: Option<u64>, draw: impl FnOnce(&mut Rng) -> [f64; N]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.state = draw(&mut self.rng);
        self.phase = Phase::Running;
    }

    /// Begins an episode at a given state.
    fn begin_at(&mut self, name: &str, state: [f64; N]) -> Result<(), EnvError> {
        check_finite(&format!("state of {name}"), &state.map(|entry| entry as f32))?;
        self.state = state;
        self.phase = Phase::Running;
        Ok(())
    }

    fn require_running(&self, name: &str) -> Result<(), EnvError> {
        self.phase.require_running(name)
    }
}

/// One column of `[N, D]`, as `[N]`.
fn column(rows: &Tensor<2>, index: usize) -> Tensor<1> {
    rows.clone().select_dim::<1>(1, index)
}

/// One step of the classical Runge-Kutta method for an autonomous system.
fn runge_kutta<const N: usize>(state: [f64; N], time_step: f64, rate: impl Fn([f64; N]) -> [f64; N]) -> [f64; N] {
    let along = |rate: [f64; N], time: f64| -> [f64; N] { std::array::from_fn(|i| state[i] + time * rate[i]) };
    let k1 = rate(state);
    let k2 = rate(along(k1, 0.5 * time_step));
    let k3 = rate(along(k2, 0.5 * time_step));
    let k4 = rate(along(k3, time_step));
    let mean = std::array::from_fn(|i| (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]) / 6.0);
    along(mean, time_step)
}

/// Distance of each row of `[N, 2]` to the point of that row, `[N]`.
///
/// Its gradient is 0 where the two coincide: that of the square root alone would be NaN there.
pub(crate) fn distance(from: Tensor<2>, to: Tensor<2>) -> Tensor<1> {
    (from - to).square().sum_dim(1).squeeze_dim::<1>(1).clamp_min(1e-12).sqrt()
}

/// A cart at `x` on a rail at height 0, a pole from it to `tip`.
fn cart_and_pole(x: f32, tip: [f32; 2]) -> [Shape; 2] {
    let (across, up) = (0.2, 0.1);
    let corners = vec![[x - across, -up], [x + across, -up], [x + across, up], [x - across, up]];
    [
        Shape::Polygon { role: Role::Body, points: corners },
        Shape::Line { role: Role::Body, points: vec![[x, 0.0], tip], width: 0.06 },
    ]
}
