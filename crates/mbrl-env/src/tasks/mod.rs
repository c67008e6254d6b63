//! The tasks, and the registry that makes them by name.
//!
//! A task is more than an environment: planning needs its reward and its end as batch functions, and a model wants to
//! know which columns are angles. [`make`] gives all of it; [`make_with`] takes options, as plain data.
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
//! // The builds with MuJoCo know more.
//! assert!(unknown.starts_with("unknown task `pendulun`; known tasks: pendulum, cartpole, cartpole-swingup, reacher, \
//!     point-mass, point-mass-sparse, mountain-car, cliff"));
//! # Ok::<(), mbrl_env::EnvError>(())
//! ```

/// Implements `Simulator` for a task, whose whole state is itself.
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
mod pendulum;
mod point_mass;
mod reacher;

use std::{
    collections::BTreeMap,
    fmt, iter,
    sync::{Arc, LazyLock},
};

use burn::tensor::Tensor;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, value},
};

use crate::{EnvError, Reward, Rng, Role, Shape, Simulator, SketchFn, Termination, TimeLimit, check_finite};

pub use cartpole::{CartPole, CartPoleReward, CartPoleTermination};
pub use cartpole_swingup::{CartPoleSwingup, CartPoleSwingupReward};
pub use cliff::{Cliff, CliffConfig, CliffReward, CliffTermination};
pub use mountain_car::{MountainCar, MountainCarReward, MountainCarTermination};
pub use pendulum::{Pendulum, PendulumReward};
pub use point_mass::{PointMass, PointMassReward};
pub use reacher::{Reacher, ReacherReward};

/// An environment with everything that model-based learning wants to know about it.
pub struct Task {
    /// The environment, under its time limit.
    pub env: Box<dyn Simulator>,
    /// Its reward, as planners see it; `None` where the observation does not hold what it needs. A model must then have
    /// learned the reward, or be the simulator.
    pub reward: Option<Arc<dyn Reward>>,
    /// Its end states; `None` where the task has none.
    pub termination: Option<Arc<dyn Termination>>,
    /// Columns of the observation that are angles (rad) and turn all the way round: models embed them as sine and
    /// cosine.
    pub angles: Vec<usize>,
    /// Draws an observation; `None` where there is nothing to see.
    pub sketch: Option<SketchFn>,
    /// The time limit (steps).
    pub max_steps: u32,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("spec", self.env.spec())
            .field("reward", &self.reward.is_some())
            .field("terminates", &self.termination.is_some())
            .field("angles", &self.angles)
            .field("max_steps", &self.max_steps)
            .finish_non_exhaustive()
    }
}

/// A line of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskInfo {
    /// What [`make`] calls it.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
}

/// The tasks that need nothing else.
const CLASSIC: &[TaskInfo] = &[
    TaskInfo { name: pendulum::NAME, summary: "swing a pendulum up and hold it (Gymnasium's Pendulum-v1)" },
    TaskInfo { name: cartpole::NAME, summary: "balance a pole on a cart by a continuous force (mbrl-lib's)" },
    TaskInfo { name: cartpole_swingup::NAME, summary: "swing a pole on a cart up and hold it (PETS's cart-pole)" },
    TaskInfo { name: reacher::NAME, summary: "reach a target with a two-link arm (not MuJoCo's Reacher)" },
    TaskInfo { name: point_mass::NAME, summary: "push a mass round obstacles to a goal, paid by its distance" },
    TaskInfo { name: point_mass::SPARSE_NAME, summary: "the same, paid only in the goal" },
    TaskInfo { name: mountain_car::NAME, summary: "rock a weak car up a hill (Gymnasium's MountainCarContinuous-v0)" },
    TaskInfo { name: cliff::NAME, summary: "walk up a hill and stop before its edge" },
];

/// Those on MuJoCo, known by name in every build.
const ON_MUJOCO: &[TaskInfo] = &[
    TaskInfo { name: "HalfCheetah-v5", summary: "run on two legs in the plane" },
    TaskInfo { name: "Hopper-v5", summary: "hop on one leg in the plane without falling" },
    TaskInfo { name: "Walker2d-v5", summary: "walk on two legs in the plane without falling" },
    TaskInfo { name: "Ant-v5", summary: "run on four legs" },
    TaskInfo { name: "Humanoid-v5", summary: "walk on two legs, with arms, without falling" },
    TaskInfo { name: "Swimmer-v5", summary: "swim as a snake of three links" },
    TaskInfo { name: "InvertedPendulum-v5", summary: "balance a pole on a cart" },
    TaskInfo { name: "InvertedDoublePendulum-v5", summary: "balance two poles, one on the other, on a cart" },
    TaskInfo { name: "Reacher-v5", summary: "reach a target with a two-link arm" },
    TaskInfo { name: "Pusher-v5", summary: "push a cylinder to a goal with a seven-joint arm" },
    TaskInfo { name: "pets-halfcheetah", summary: "PETS's half-cheetah, which sees its velocity" },
    TaskInfo { name: "pets-pusher", summary: "PETS's pusher: an arm pushes a cylinder to a goal" },
    TaskInfo { name: "pets-reacher", summary: "PETS's reacher: an arm of seven joints goes to a point in space" },
    TaskInfo { name: "pddm-halfcheetah", summary: "PDDM's half-cheetah, which sees all and ends on its back" },
];

/// All tasks of this build: those on MuJoCo are in builds with the feature `mujoco`.
#[must_use]
pub fn list() -> &'static [TaskInfo] {
    static ALL: LazyLock<Vec<TaskInfo>> = LazyLock::new(|| {
        let on_mujoco = if cfg!(feature = "mujoco") { ON_MUJOCO } else { &[] };
        [CLASSIC, on_mujoco].concat()
    });
    &ALL
}

/// Makes a task as it is without options.
///
/// Its environment has not begun an episode; until a seed is given to `reset`, its generator is that of seed 0.
///
/// # Errors
/// As [`make_with`].
pub fn make(name: &str) -> Result<Task, EnvError> {
    let none = iter::empty::<(&str, &str)>();
    make_with(name, value::MapDeserializer::<_, value::Error>::new(none))
}

/// Makes a task with options, a map of any format: those left out keep their defaults. `cliff` takes the fields of
/// [`CliffConfig`], those on MuJoCo the fields of their configurations (`mujoco::HalfCheetahConfig` and its siblings), the
/// others none.
///
/// ```
/// use mbrl_env::tasks;
///
/// let task = tasks::make_with("cliff", serde_json::json!({ "edge": 1.0 }))?;
/// assert_eq!(task.env.spec().obs.high()[0], 1.1);
/// let refused = tasks::make_with("pendulum", serde_json::json!({ "edge": 1.0 })).unwrap_err().to_string();
/// assert_eq!(refused, "options of the task pendulum: unknown option `edge`, this task takes none");
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
///
/// # Errors
/// [`EnvError::UnknownTask`], listing the known ones; [`EnvError::Options`] for options that the task does not have or that
/// are of the wrong type; [`EnvError::Config`] for a value that breaks a rule of the task. Tasks on MuJoCo:
/// [`EnvError::Engine`] in a build without it or where its library or models are not as they should be, and what loading a
/// model gives.
pub fn make_with<'de, D: Deserializer<'de>>(name: &str, options: D) -> Result<Task, EnvError> {
    // Tasks that take options read their own.
    match name {
        cliff::NAME => cliff_of(&read_options(name, options)?),
        _ if ON_MUJOCO.iter().any(|task| task.name == name) => on_mujoco(name, options),
        _ => {
            let task = without_options(name)?;
            refuse_options(name, options)?;
            Ok(task)
        }
    }
}

/// For a task that takes none.
pub(crate) fn refuse_options<'de, D: Deserializer<'de>>(name: &str, options: D) -> Result<(), EnvError> {
    let given: BTreeMap<String, IgnoredAny> = read_options(name, options)?;
    match given.keys().next() {
        None => Ok(()),
        Some(option) => {
            let reason = format!("unknown option `{option}`, this task takes none");
            Err(EnvError::Options { task: name.to_owned(), reason })
        }
    }
}

#[cfg(feature = "mujoco")]
fn on_mujoco<'de, D: Deserializer<'de>>(name: &str, options: D) -> Result<Task, EnvError> {
    crate::mujoco::make_with(name, options)
}
#[cfg(not(feature = "mujoco"))]
fn on_mujoco<'de, D: Deserializer<'de>>(name: &str, _: D) -> Result<Task, EnvError> {
    let reason = format!("task {name} needs a build with the feature `mujoco`; `mbrl doctor` says how to get it");
    Err(EnvError::Engine { reason })
}

pub(crate) fn read_options<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    task: &str,
    options: D,
) -> Result<T, EnvError> {
    T::deserialize(options).map_err(|error| {
        // Some formats say where it happened on a line of its own.
        let reason = error.to_string().trim_end().replace('\n', " ");
        EnvError::Options { task: task.to_owned(), reason }
    })
}

fn cliff_of(config: &CliffConfig) -> Result<Task, EnvError> {
    let end: Arc<dyn Termination> = Arc::new(config.termination());
    let cliff = task(config.init()?, 40, config.reward(), Some(end), &[], cliff::sketch)?;
    // The sketch is one of the default shape.
    Ok(Task { sketch: cliff.sketch.filter(|_| *config == CliffConfig::default()), ..cliff })
}

fn without_options(name: &str) -> Result<Task, EnvError> {
    match name {
        pendulum::NAME => task(Pendulum::new(), 200, PendulumReward, None, &[], pendulum::sketch),
        // The pole's angle stays within 12°: sine and cosine of it would say less, not more.
        cartpole::NAME => {
            let end: Arc<dyn Termination> = Arc::new(CartPoleTermination);
            task(CartPole::new(), 200, CartPoleReward, Some(end), &[], cartpole::sketch)
        }
        cartpole_swingup::NAME => {
            task(CartPoleSwingup::new(), 200, CartPoleSwingupReward, None, &[1], cartpole_swingup::sketch)
        }
        reacher::NAME => task(Reacher::new(), 50, ReacherReward::default(), None, &[0, 1], reacher::sketch),
        point_mass::NAME | point_mass::SPARSE_NAME => {
            let env = if name == point_mass::NAME { PointMass::new() } else { PointMass::new().sparse() };
            let reward = env.reward();
            task(env, 100, reward, None, &[], point_mass::sketch)
        }
        mountain_car::NAME => {
            let end: Arc<dyn Termination> = Arc::new(MountainCarTermination);
            task(MountainCar::new(), 999, MountainCarReward, Some(end), &[], mountain_car::sketch)
        }
        _ => Err(EnvError::UnknownTask {
            name: name.to_owned(),
            known: list().iter().map(|task| task.name).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn task(
    env: impl Simulator + 'static,
    max_steps: u32,
    reward: impl Reward + 'static,
    termination: Option<Arc<dyn Termination>>,
    angles: &[usize],
    sketch: SketchFn,
) -> Result<Task, EnvError> {
    let env = Box::new(TimeLimit::new(env, max_steps)?);
    let reward: Arc<dyn Reward> = Arc::new(reward);
    Ok(Task { env, reward: Some(reward), termination, angles: angles.to_vec(), sketch: Some(sketch), max_steps })
}

/// What every classic task carries beside its specification: the physical state, the generator of starts, and where in
/// an episode it is.
#[derive(Debug, Clone)]
struct Episode<const N: usize> {
    state: [f64; N],
    rng: Rng,
    phase: Phase,
}

/// Where an episode is.
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
/// Its gradient is 0 where the two meet: that of the square root alone would be NaN there.
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
