//! Experiments: what a run does, as a TOML text with every value written out or left to its default.
//!
//! A [`Registry`] holds the tasks and the named experiments of a program; the library itself knows none. An [`Experiment`]
//! is loaded from it by name or from a file, with single values overridden, and [built](Experiment::build) into the
//! [`Parts`] of a run.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use mbrl_policy::{Device, experiment::Registry};
//!
//! let registry = Registry::new().tasks(mbrl_env::tasks::entries()).experiments(&[(
//!     "tiny",
//!     r#"
//!         summary = "far too small to swing the pendulum up"
//!         task = "pendulum"
//!         steps = 210
//!
//!         [model]
//!         members = 2
//!         hidden = [16]
//!
//!         [fit]
//!         max_epochs = 2
//!
//!         [planner]
//!         kind = "cem"
//!         horizon = 4
//!         population = 10
//!         elites = 2
//!
//!         [propagation]
//!         rule = "ts-inf"
//!         noise = true
//!         particles = 2
//!     "#,
//! )]);
//! let experiment = registry.load("tiny", &["planner.iterations=1", "steps=205"])?;
//! assert_eq!((experiment.steps, experiment.agent.kind()), (205, "model-based"));
//!
//! // `build` opens the experiment's device; here it is given.
//! let mut parts = experiment.build_on(&registry, &Device::flex())?;
//! parts.training.run(&mut parts.task.env, &mut *parts.agent, None, &mut (), &AtomicBool::new(false))?;
//! assert_eq!(parts.training.episode(), 2);
//!
//! // Misspelt words are named with their neighbours.
//! let error = registry.load("tiny", &["planner.popluation=20"]).unwrap_err();
//! assert_eq!(error.to_string(), "unknown key `planner.popluation`; did you mean `planner.population`?");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a text holds
//!
//! | key or section | |
//! |---|---|
//! | `name`, `summary` | for folders and lists; the name is that of the file where it is left out |
//! | `task`, `[task_options]` | an entry of the registry, and options of its own |
//! | `steps`, `seed` | real environment steps, random ones included; the seed of all random numbers (0) |
//! | `device` | where tensors live: `flex` (default), `ndarray`, `wgpu[:n]`, `cuda[:n]` |
//! | `[wrappers]` | [`WrappersConfig`]: what makes the task harder |
//! | `[knowledge]` | [`KnowledgeConfig`]: which parts of the task's knowledge are used |
//! | `[practice]` | [`PracticeConfig`]: other forms of the task that are learned from |
//! | `[train]` | [`TrainConfig`]: environments side by side, evaluations, checkpoints |
//! | `[agent]` | `kind` says which learner it is ([`AgentConfig`]) and which other sections exist |
//!
//! Unknown keys and sections are refused with the nearest known one.

mod agent;
mod device;
mod error;
mod goal;
mod ground_truth;
mod knowledge;
mod latent;
mod limits;
mod mbpo;
mod model_based;
mod model_free;
mod npg;
mod of_run;
mod overrides;
mod practice;
mod read;
mod registry;
mod study;
#[cfg(test)]
mod tests;
mod translate;

use std::{
    fmt, fs,
    path::{Component, Path, PathBuf},
};

use mbrl_env::{
    Env, EnvError, World, WrappersConfig, process,
    tasks::{Options, Task},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use toml::{Table, Value};

use self::agent::Site;
pub use self::{
    agent::{AgentConfig, NoSettings},
    device::{DEFAULT_DEVICE, DEVICES, device_name, open_device},
    error::ExperimentError,
    goal::{ActionRateConfig, DisagreementConfig, GoalConfig, RewardSource, TerminationSource},
    ground_truth::GroundTruthSections,
    knowledge::KnowledgeConfig,
    latent::{LatentGoalConfig, LatentSections},
    limits::check_weights,
    mbpo::{ImaginedGoalConfig, MbpoSections},
    model_based::{ModelBasedSections, MpcConfig},
    model_free::{SacSections, Td3Sections},
    npg::NpgSections,
    overrides::override_setting,
    practice::PracticeConfig,
    registry::{Registry, is_gymnasium_id},
    study::{Ablation, COMPARISON, Study, StudyGroup, StudyMethod, StudyPlan},
};
use crate::{Device, Learner, Planning, TrainConfig, Training, ValueSource, WhichCheckpoint};

/// Everything that determines what a run does. Its [text](Self::to_toml), with every value written out, reproduces the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
#[non_exhaustive]
pub struct Experiment {
    /// Name, for folders; that of the file where it is left out.
    #[serde(default)]
    pub name: String,
    /// One line about it.
    #[serde(default)]
    pub summary: String,
    /// A task of the registry.
    pub task: String,
    /// Real environment steps, random ones included.
    pub steps: u64,
    /// Seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// Where tensors live.
    #[serde(default = "default_device")]
    pub device: String,
    /// The agent and the sections that it owns.
    #[serde(flatten, skip_deserializing, default = "AgentConfig::placeholder")]
    pub agent: AgentConfig,
    /// The task's own options.
    #[serde(default)]
    pub task_options: Options,
    /// What makes the task harder: noise, delays, held actions (default: nothing).
    #[serde(default)]
    pub wrappers: WrappersConfig,
    /// Which parts of the task's knowledge are used (default: all).
    #[serde(default)]
    pub knowledge: KnowledgeConfig,
    /// Other forms of the task that are learned from (default: none).
    #[serde(default)]
    pub practice: PracticeConfig,
    /// When the run evaluates its agent and writes checkpoints.
    #[serde(default)]
    pub train: TrainConfig,
}

/// The keys that are the run's own, whatever its agent.
const COMMON: &[&str] = &[
    "name",
    "summary",
    "task",
    "steps",
    "seed",
    "device",
    "task_options",
    "wrappers",
    "knowledge",
    "practice",
    "train",
];

/// A value as it would be typed. TOML has only one width of floats; the digits beyond the narrower one mean nothing.
fn shown(value: &Value) -> String {
    match value {
        Value::Float(wide) if f64::from(*wide as f32) == *wide => format!("{:?}", *wide as f32),
        Value::Array(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

fn default_device() -> String {
    DEFAULT_DEVICE.into()
}

/// Writes every value, defaults included.
impl Serialize for Experiment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Reads experiments of earlier versions too.
impl<'de> Deserialize<'de> for Experiment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_table(Table::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Name of the experiment's file in the folder of a run.
pub const EXPERIMENT_FILE: &str = "experiment.toml";

/// The parts of an experiment's run, built before anything is written: anything wrong with the experiment shows up here.
#[non_exhaustive]
pub struct Parts {
    /// The environment, and what else planning needs.
    pub task: Task,
    /// Further environments of the same task, for [`TrainConfig::environments`] above 1: clones of the first where that is a
    /// simulator; the last of them are those of [`PracticeConfig`].
    pub more: Vec<World>,
    /// The learning loop at its start.
    pub training: Training,
    /// The agent, untrained.
    pub agent: Box<dyn Learner>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("task", &self.task)
            .field("training", &self.training)
            .field("agent", &self.agent.name())
            .finish()
    }
}

impl Experiment {
    /// Reads a text. Experiments of earlier versions are translated to today's form.
    ///
    /// # Errors
    /// [`ExperimentError::Syntax`] for a text that is not TOML; [`ExperimentError::UnknownKey`],
    /// [`ExperimentError::Missing`], [`ExperimentError::Value`] and their siblings, naming the key.
    pub fn from_toml(text: &str) -> Result<Self, ExperimentError> {
        Self::from_table(text.parse().map_err(ExperimentError::Syntax)?)
    }

    /// Reads a file, such as the resolved experiment in a run's folder.
    ///
    /// # Errors
    /// [`ExperimentError::Io`] for a file that cannot be read; [`ExperimentError::In`], naming the file, for what
    /// [`from_toml`](Self::from_toml) gives.
    pub fn from_file(path: &Path) -> Result<Self, ExperimentError> {
        let text = fs::read_to_string(path).map_err(|source| ExperimentError::Io { path: path.to_owned(), source })?;
        Self::from_toml(&text).map_err(ExperimentError::within(&path.display().to_string()))
    }

    fn from_table(mut table: Table) -> Result<Self, ExperimentError> {
        translate::translate(&mut table)?;
        let agent = AgentConfig::take(&mut table, COMMON)?;
        let run = read::read_by(table, Self::deserialize)?;
        Ok(Self { agent, ..run })
    }

    /// With every value written out.
    ///
    /// # Errors
    /// [`ExperimentError::Unwritable`] for a number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, ExperimentError> {
        toml::to_string(self).map_err(ExperimentError::Unwritable)
    }

    pub(super) fn to_table(&self) -> Result<Table, ExperimentError> {
        Table::try_from(self).map_err(ExperimentError::Unwritable)
    }

    /// Every value with its dotted key, as overrides take them, in the order of the keys.
    ///
    /// # Errors
    /// As [`to_toml`](Self::to_toml).
    pub fn flat(&self) -> Result<Vec<(String, String)>, ExperimentError> {
        let table = self.to_table()?;
        Ok(overrides::entries(&table).into_iter().map(|(key, value)| (key, shown(value))).collect())
    }

    /// The same with another seed.
    #[must_use]
    pub fn with_seed(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }

    /// The same with values replaced, `key=value` in order, as by [`Registry::load`].
    ///
    /// # Errors
    /// [`ExperimentError`], naming the key.
    pub fn overridden(&self, words: &[&str]) -> Result<Self, ExperimentError> {
        self.overridden_with_notes(words).map(|(experiment, _)| experiment)
    }

    /// As [`overridden`](Self::overridden), with notes on what another planner or agent left out or took from its own defaults.
    ///
    /// # Errors
    /// As [`overridden`](Self::overridden).
    pub fn overridden_with_notes(&self, words: &[&str]) -> Result<(Self, Vec<String>), ExperimentError> {
        let mut notes = Vec::new();
        let experiment = overrides::apply(self.clone(), words, &mut notes)?;
        Ok((experiment, notes))
    }

    /// The run whose value plans end in, and which of its checkpoints, where `value.source = "run"`.
    #[must_use]
    pub fn value_run(&self) -> Option<(&Path, WhichCheckpoint)> {
        let (_, value) = self.agent.goal_and_value().filter(|(_, value)| value.source == ValueSource::Run)?;
        Some((&value.run, value.checkpoint))
    }

    /// The same with that run in another place; unchanged where there is none.
    #[must_use]
    pub fn with_value_run(mut self, run: impl Into<PathBuf>, checkpoint: WhichCheckpoint) -> Self {
        if let Some(value) = self.agent.value_mut().filter(|value| value.source == ValueSource::Run) {
            (value.run, value.checkpoint) = (run.into(), checkpoint);
        }
        self
    }

    /// What must not change when a run continues: all but the number of steps, which may be raised, the words about it, how long to wait
    /// for a process, and where the value of another run lies (a separate check makes sure that it is the same one).
    ///
    /// # Errors
    /// As [`to_toml`](Self::to_toml).
    pub fn settings(&self) -> Result<String, ExperimentError> {
        let mut settings = Self { steps: 0, name: String::new(), summary: String::new(), ..self.clone() };
        settings = settings.with_value_run(PathBuf::new(), WhichCheckpoint::Last);
        if self.task == process::TASK {
            settings.task_options = settings.task_options.without(process::WAITING_OPTIONS);
        }
        settings.to_toml()
    }

    /// The settings that a checkpoint holds as they would be written today: keys that came since have their defaults.
    fn settings_today(text: &str) -> Option<String> {
        Self::from_toml(text).ok()?.settings().ok()
    }

    /// The task with its options, in its wrappers.
    ///
    /// # Errors
    /// [`ExperimentError::UnknownTask`], errors of task and wrappers for their options, and a task whose actions have no
    /// limits ([`EnvError::Unlimited`]).
    pub fn make_task(&self, registry: &Registry) -> Result<Task, ExperimentError> {
        let mut task = registry.make_task(&self.task, &self.task_options)?;
        task.env = self.wrappers.apply(task.env).map_err(|error| match error {
            EnvError::Config { field, value, rule } => ExperimentError::rule(format!("wrappers.{field}"), value, rule),
            other => other.into(),
        })?;
        task.knowledge = self.knowledge.used(task.knowledge, &self.wrappers)?;
        task.env.spec().require_limited_actions()?;
        Ok(task)
    }

    /// Opens the device and builds the parts of a run. Nothing is written.
    ///
    /// # Errors
    /// [`ExperimentError`], naming the key or section at fault.
    pub fn build(&self, registry: &Registry) -> Result<Parts, ExperimentError> {
        self.build_on(registry, &open_device(&self.device)?)
    }

    /// As [`build`](Self::build), on a device that is open already.
    ///
    /// # Errors
    /// [`ExperimentError`], naming the key or section at fault.
    pub fn build_on(&self, registry: &Registry, device: &Device) -> Result<Parts, ExperimentError> {
        let task = self.make_task(registry)?;
        let practised = self.practice.of(self, registry)?;
        let (training, agent) = self.beginning(&task, device)?;
        let evaluated = self.train.environments - self.practice.environments;
        let more = (1..evaluated).map(|_| match task.env.simulator() {
            // Snapshots of one are understood by all.
            Some(simulator) => Ok(World::Simulator(simulator.boxed_clone())),
            None => Ok(self.make_task(registry)?.env),
        });
        let mut more = more.collect::<Result<Vec<_>, ExperimentError>>()?;
        if let Some(other) = practised {
            let practice = (0..self.practice.environments).map(|_| Ok(other.make_task(registry)?.env));
            more.extend(practice.collect::<Result<Vec<_>, ExperimentError>>()?);
        }
        Ok(Parts { task, more, training, agent })
    }

    /// The loop and the agent at their start, on a task of this experiment.
    fn beginning(&self, task: &Task, device: &Device) -> Result<(Training, Box<dyn Learner>), ExperimentError> {
        let training = self.train.init(self.steps, self.seed).map_err(ExperimentError::section("[train]"))?;
        let training = training.evaluating_in(self.train.environments - self.practice.environments);
        let mut training = training.described(self.settings()?).upgrading(Self::settings_today);
        let environments = self.train.environments;
        let site = Site { task, experiment: self, device, device_word: &self.device, environments };
        let agent = self.agent.build(&site, &mut training)?;
        Ok((training, agent))
    }

    /// What plans of its agent are judged with in a [diagnosis](crate::DiagnoseConfig); `None` for agents that do not plan in a model
    /// that they learn.
    ///
    /// # Errors
    /// [`ExperimentError`], naming the key or section at fault.
    pub fn planning(&self, task: &Task) -> Result<Option<Planning>, ExperimentError> {
        self.agent.model_based().map(|sections| sections.planning(task)).transpose()
    }

    /// What to tell a user whose run would take random actions alone; `None` where it would learn. Such a run is no error: it can continue with
    /// more steps.
    #[must_use]
    pub fn learns_nothing(&self) -> Option<String> {
        let (random, steps) = (self.agent.random_steps(), self.steps);
        (random >= steps).then(|| {
            format!(
                "agent.random_steps = {random}: expected less than steps = {steps}; all actions are random, and what is learned is never \
                 used: take more steps, now or when the run is resumed, or fewer random ones"
            )
        })
    }

    /// Checks, without writing anything, whether the experiment can run.
    ///
    /// # Errors
    /// [`ExperimentError`], naming the key or section at fault.
    pub fn check(&self, registry: &Registry) -> Result<(), ExperimentError> {
        // Folders are called after it.
        let mut parts = Path::new(&self.name).components();
        let one = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == &*self.name);
        if !one || self.name.contains(char::is_control) {
            return Err(ExperimentError::rule("name", format!("{:?}", self.name), "a name that a folder can have"));
        }
        self.build(registry).map(drop)
    }
}
