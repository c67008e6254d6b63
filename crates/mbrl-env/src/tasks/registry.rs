//! The table of tasks.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    CartPole, CartPoleReward, CartPoleSwingup, CartPoleSwingupReward, CartPoleTermination, CliffConfig, MountainCar,
    MountainCarReward, MountainCarTermination, Options, Pendulum, PendulumReward, PointMass, Reacher, ReacherReward,
    Task, cartpole, cartpole_swingup, cliff, mountain_car, pendulum, point_mass, reacher, task,
};
use crate::{
    EnvError, Pixels, Raster, World,
    process::{ProcessConfig, TASK as PROCESS},
};

type Make = dyn Fn(&Options) -> Result<Task, EnvError> + Send + Sync;

/// A line of a table of tasks: a name, and how the task is made from options.
///
/// ```
/// use mbrl_env::{TimeLimit, World, tasks::{CliffConfig, Options, Task, TaskEntry}};
///
/// let steep = TaskEntry::new("steep-cliff", "a cliff that is twice as steep", |options| {
///     let config = CliffConfig { slope: 2.0, drop: 8.0, ..options.read("steep-cliff")? };
///     let env = World::from_simulator(TimeLimit::new(config.init()?, 40)?);
///     Ok(Task::new(env).with_reward(std::sync::Arc::new(config.reward())))
/// });
/// assert!(steep.make(&Options::new().with("edge", 1.0)).is_ok());
/// assert!(steep.make(&Options::new().with("hedge", 1.0)).is_err());
/// ```
#[derive(Clone)]
pub struct TaskEntry {
    name: Arc<str>,
    summary: Arc<str>,
    needs: Option<&'static str>,
    /// `None` in a build that lacks what it needs.
    make: Option<Arc<Make>>,
}

impl TaskEntry {
    /// A task by its name, a one-line description, and the function that makes it.
    pub fn new(
        name: impl Into<Arc<str>>,
        summary: impl Into<Arc<str>>,
        make: impl Fn(&Options) -> Result<Task, EnvError> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), summary: summary.into(), needs: None, make: Some(Arc::new(make)) }
    }

    /// A task that this build lacks: its name is known, and [`make`](Self::make) says which feature it needs.
    #[must_use]
    pub fn missing(name: impl Into<Arc<str>>, summary: impl Into<Arc<str>>, feature: &'static str) -> Self {
        Self { name: name.into(), summary: summary.into(), needs: Some(feature), make: None }
    }

    /// Marks the task as available only in builds with a feature.
    #[must_use]
    pub fn needing(mut self, feature: &'static str) -> Self {
        self.needs = Some(feature);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its one-line description.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// The feature that the task needs, if any.
    #[must_use]
    pub fn needs(&self) -> Option<&'static str> {
        self.needs
    }

    /// Whether this build can make it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.make.is_some()
    }

    /// Makes the task.
    ///
    /// # Errors
    /// [`EnvError::NeedsFeature`] if it is not [available](Self::is_available); [`EnvError::Options`] for options that the
    /// task does not have or that are of the wrong type; [`EnvError::Config`] for a value that breaks a rule of the task; and
    /// any other error that keeps the task from being made.
    pub fn make(&self, options: &Options) -> Result<Task, EnvError> {
        match (&self.make, self.needs) {
            (Some(make), _) => make(options),
            (None, needs) => {
                Err(EnvError::NeedsFeature { task: (*self.name).into(), feature: needs.unwrap_or_default() })
            }
        }
    }
}

impl fmt::Debug for TaskEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskEntry")
            .field("name", &self.name)
            .field("summary", &self.summary)
            .field("needs", &self.needs)
            .field("is_available", &self.is_available())
            .finish()
    }
}

/// A task on MuJoCo, by its configuration or, as `fn`, without options.
#[cfg(feature = "mujoco")]
macro_rules! on_mujoco {
    ($name:literal, $summary:literal, fn $make:ident) => {
        plain($name, $summary, || crate::mujoco::$make($name)).needing("mujoco")
    };
    ($name:literal, $summary:literal, $Config:ident) => {
        TaskEntry::new($name, $summary, |options| options.read::<crate::mujoco::$Config>($name)?.task($name))
            .needing("mujoco")
    };
}
#[cfg(not(feature = "mujoco"))]
macro_rules! on_mujoco {
    ($name:literal, $summary:literal, $($make:tt)+) => {
        TaskEntry::missing($name, $summary, "mujoco")
    };
}

/// A task without options.
fn plain(
    name: &'static str,
    summary: &'static str,
    make: impl Fn() -> Result<Task, EnvError> + Send + Sync + 'static,
) -> TaskEntry {
    TaskEntry::new(name, summary, move |options| {
        options.expect_none(name)?;
        make()
    })
}

/// A task that is observed only by its sketch: options are those of [`PixelsConfig`]. Rewards and terminations must be learned.
fn seen_as_pixels(
    name: &'static str,
    summary: &'static str,
    [width, height]: [usize; 2],
    make: impl Fn() -> Result<Task, EnvError> + Send + Sync + 'static,
) -> TaskEntry {
    TaskEntry::new(name, summary, move |options| {
        let config: PixelsConfig = options.read(name)?;
        let Task { env, sketch, .. } = make()?;
        let sketch = sketch.ok_or_else(|| EnvError::NoPicture { env: name.into() })?;
        Ok(Task::new(World::from_simulator(Pixels::new(
            env.into_simulator()?,
            sketch,
            config.raster([width, height])?,
        )?)))
    })
}

/// The size of the pictures of a task that is observed by pictures; sides that are left out take the task's own size.
///
/// ```
/// use mbrl_env::{Env, tasks};
///
/// let task = tasks::make_with("pendulum-pixels", serde_json::json!({ "width": 64, "height": 64, "colour": true }))?;
/// assert_eq!(task.env.spec().fields[0].shape, [64, 64, 3]);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PixelsConfig {
    /// Pixels per row, up to 256.
    pub width: Option<usize>,
    /// Rows, up to 256.
    pub height: Option<usize>,
    /// Red, green and blue instead of a level of gray (default: false).
    pub colour: bool,
}

impl PixelsConfig {
    fn raster(&self, [width, height]: [usize; 2]) -> Result<Raster, EnvError> {
        const MOST: usize = 256;
        let (width, height) = (self.width.unwrap_or(width), self.height.unwrap_or(height));
        for (field, value) in [("width", width), ("height", height)] {
            if !(1..=MOST).contains(&value) {
                return Err(EnvError::Config {
                    field,
                    value: value.to_string(),
                    rule: "a number of pixels from 1 to 256",
                });
            }
        }
        if self.colour { Raster::coloured(width, height) } else { Raster::gray(width, height) }
    }
}

/// All tasks of this crate, including those that this build lacks: every build knows their names.
///
/// ```
/// use mbrl_env::tasks;
///
/// let names: Vec<String> = tasks::entries().iter().map(|entry| entry.name().to_owned()).collect();
/// assert!(names.iter().any(|name| name == "pendulum") && names.iter().any(|name| name == "Ant-v5"));
/// ```
#[must_use]
pub fn entries() -> Vec<TaskEntry> {
    vec![
        plain(pendulum::NAME, "swing a pendulum up and hold it (Gymnasium's Pendulum-v1)", || {
            task(Pendulum::new(), 200, PendulumReward, pendulum::sketch)
        }),
        plain(cartpole::NAME, "balance a pole on a cart by a continuous force (mbrl-lib's)", || {
            let task = task(CartPole::new(), 200, CartPoleReward, cartpole::sketch)?;
            Ok(task.with_termination(Arc::new(CartPoleTermination)))
        }),
        plain(cartpole_swingup::NAME, "swing a pole on a cart up and hold it (PETS's cart-pole)", || {
            task(CartPoleSwingup::new(), 200, CartPoleSwingupReward, cartpole_swingup::sketch)
        }),
        plain(reacher::NAME, "reach a target with a two-link arm (not MuJoCo's Reacher)", || {
            task(Reacher::new(), 50, ReacherReward::default(), reacher::sketch)
        }),
        plain(point_mass::NAME, "push a mass round obstacles to a goal, paid by its distance", || {
            let env = PointMass::new();
            let reward = env.reward();
            task(env, 100, reward, point_mass::sketch)
        }),
        plain(point_mass::SPARSE_NAME, "the same, paid only in the goal", || {
            let env = PointMass::new().sparse();
            let reward = env.reward();
            task(env, 100, reward, point_mass::sketch)
        }),
        plain(mountain_car::NAME, "rock a weak car up a hill (Gymnasium's MountainCarContinuous-v0)", || {
            let task = task(MountainCar::new(), 999, MountainCarReward, mountain_car::sketch)?;
            Ok(task.with_termination(Arc::new(MountainCarTermination)))
        }),
        TaskEntry::new(cliff::NAME, "walk up a hill and stop before its edge", |options| {
            let config: CliffConfig = options.read(cliff::NAME)?;
            let mut task = task(config.init()?, 40, config.reward(), cliff::sketch)?;
            // The sketch shows the default shape.
            task.sketch = task.sketch.filter(|_| config == CliffConfig::default());
            Ok(task.with_termination(Arc::new(config.termination())))
        }),
        seen_as_pixels("pendulum-pixels", "the pendulum, seen as a picture of 32 × 32 pixels", [32, 32], || {
            task(Pendulum::new(), 200, PendulumReward, pendulum::sketch)
        }),
        seen_as_pixels(
            "cartpole-swingup-pixels",
            "PETS's cart-pole, seen as a picture of 64 × 16 pixels",
            [64, 16],
            || task(CartPoleSwingup::new(), 200, CartPoleSwingupReward, cartpole_swingup::sketch),
        ),
        TaskEntry::new(PROCESS, "any environment in a process of its own, of Gymnasium for one", |options| {
            options.read::<ProcessConfig>(PROCESS)?.task()
        }),
        on_mujoco!("HalfCheetah-v5", "run on two legs in the plane", HalfCheetahConfig),
        on_mujoco!("Hopper-v5", "hop on one leg in the plane without falling", HopperConfig),
        on_mujoco!("Walker2d-v5", "walk on two legs in the plane without falling", Walker2dConfig),
        on_mujoco!("Ant-v5", "run on four legs", AntConfig),
        on_mujoco!("Humanoid-v5", "walk on two legs, with arms, without falling", HumanoidConfig),
        on_mujoco!("Swimmer-v5", "swim as a snake of three links", SwimmerConfig),
        on_mujoco!("InvertedPendulum-v5", "balance a pole on a cart", InvertedPendulumConfig),
        on_mujoco!(
            "InvertedDoublePendulum-v5",
            "balance two poles, one on the other, on a cart",
            InvertedDoublePendulumConfig
        ),
        on_mujoco!("Reacher-v5", "reach a target with a two-link arm", ReacherConfig),
        on_mujoco!("Pusher-v5", "push a cylinder to a goal with a seven-joint arm", PusherConfig),
        on_mujoco!("pets-halfcheetah", "PETS's half-cheetah, which sees its velocity", fn pets_halfcheetah),
        on_mujoco!("pets-pusher", "PETS's pusher: an arm pushes a cylinder to a goal", fn pets_pusher),
        on_mujoco!("pets-reacher", "PETS's reacher: an arm of seven joints goes to a point in space", fn pets_reacher),
        on_mujoco!(
            "pddm-halfcheetah",
            "PDDM's half-cheetah, which sees all and ends on its back",
            PddmHalfCheetahConfig
        ),
    ]
}

/// Makes a task with its default options.
///
/// Its environment has not begun an episode; until `reset` is given a seed, its generator is that of seed 0.
///
/// # Errors
/// As [`make_with`].
pub fn make(name: &str) -> Result<Task, EnvError> {
    find(name)?.make(&Options::new())
}

/// Makes a task with [`Options`], a map in any format: those left out keep their defaults. `cliff` takes the fields of
/// [`CliffConfig`], `process` those of [`ProcessConfig`],
/// `pendulum-pixels` and `cartpole-swingup-pixels` those of [`PixelsConfig`], those on MuJoCo the fields of their configurations (`mujoco::HalfCheetahConfig` and its siblings), the
/// others none.
///
/// ```
/// use mbrl_env::{Env, tasks};
///
/// let task = tasks::make_with("cliff", serde_json::json!({ "edge": 1.0 }))?;
/// assert_eq!(task.env.spec().obs.high()[0], 1.1);
/// let refused = tasks::make_with("pendulum", serde_json::json!({ "edge": 1.0 })).unwrap_err().to_string();
/// assert_eq!(refused, "options of the task pendulum: unknown option `edge`, this task takes none");
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
///
/// # Errors
/// [`EnvError::UnknownTask`], listing the known ones; those of [`TaskEntry::make`]. Tasks on MuJoCo: [`EnvError::Engine`] if
/// its library or models are not as they should be, and the errors of loading a model.
pub fn make_with<'de, D: Deserializer<'de>>(name: &str, options: D) -> Result<Task, EnvError> {
    find(name)?.make(&Options::of(name, options)?)
}

fn find(name: &str) -> Result<TaskEntry, EnvError> {
    let mut entries = entries();
    match entries.iter().position(|entry| entry.name() == name) {
        Some(index) => Ok(entries.swap_remove(index)),
        None => {
            let known = entries.iter().map(TaskEntry::name).collect::<Vec<_>>().join(", ");
            Err(EnvError::UnknownTask { name: name.to_owned(), known })
        }
    }
}
