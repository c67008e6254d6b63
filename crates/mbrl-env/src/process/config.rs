//! How a process is started and how long to wait for it, as plain data.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use serde::{Deserialize, Serialize};

use super::{ProcessEnv, ProcessFault};
use crate::{EnvError, EnvSpec, Field, TimeLimit, World, tasks::Task};

/// The name of the task.
pub const TASK: &str = "process";

/// The options that say how long to wait and what to show. They affect no number of a run, so they may change during a run.
pub const WAITING_OPTIONS: &[&str] = &["start_timeout", "timeout", "stop_timeout", "show_stderr"];

/// The Python side, for Gymnasium environments by their ids: they need nothing installed besides Gymnasium.
const SHIM: &str = include_str!("../../python/mbrl_env/__init__.py");

/// How to start a process that serves an environment, and how long to wait for it: the options of the task `process`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// The program and its arguments, such as `["python3", "my_env.py"]`. The program is found in `PATH`, or in `directory` where it is a
    /// relative path.
    pub command: Vec<String>,
    /// In place of a command: a Gymnasium id (`"Pendulum-v1"`), or a class as `"module:Name"` or `"file.py:Name"`.
    pub id: Option<String>,
    /// Which Python serves `id` (default `python3`). Gymnasium must be installed there for its ids.
    pub python: Option<String>,
    /// Modules that are imported before `id` is made: those that register it.
    pub imports: Vec<String>,
    /// The keyword arguments that `id` is made with, as JSON text: `'{"g": 9.81}'`.
    pub make: Option<String>,
    /// Further arguments after the command.
    pub args: Vec<String>,
    /// Working directory (default: that of this program).
    pub directory: Option<PathBuf>,
    /// Environment variables in addition to those of this program. They are stored with a run, so do not put secrets here.
    pub env: BTreeMap<String, String>,
    /// Names of the observation's columns, in place of those that the process gives.
    pub fields: Vec<FieldConfig>,
    /// The same for the action.
    pub action_fields: Vec<FieldConfig>,
    /// Steps after which an episode is cut; 0 where episodes end by themselves. Default: as the process says.
    pub max_steps: Option<u32>,
    /// Duration of a step (s). Default: as the process says, else 1.
    pub control_period: Option<f64>,
    /// How long the process may take to say hello (s; default 120, for imports from a slow disk).
    pub start_timeout: f64,
    /// How long it may take for a step or a reset (s; default 60).
    pub timeout: f64,
    /// How long it may take to exit when asked to (s; default 5); then it is ended.
    pub stop_timeout: f64,
    /// Whether its standard error is shown as it is written (default: only its end, in errors).
    pub show_stderr: bool,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            id: None,
            python: None,
            imports: Vec::new(),
            make: None,
            args: Vec::new(),
            directory: None,
            env: BTreeMap::new(),
            fields: Vec::new(),
            action_fields: Vec::new(),
            max_steps: None,
            control_period: None,
            start_timeout: 120.0,
            timeout: 60.0,
            stop_timeout: 5.0,
            show_stderr: false,
        }
    }
}

/// A field as plain data: its name, or a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a name, or { name = …, unit = …, angle = true, turn = …, wraps = true, flag = true, shape = [..] }"
)]
pub enum FieldConfig {
    /// A number on a line without a unit.
    Name(String),
    /// Anything else.
    Field {
        /// Its name.
        name: String,
        /// Its unit.
        #[serde(default)]
        unit: String,
        /// It can turn all the way round.
        #[serde(default)]
        angle: bool,
        /// One turn in its unit (default 2π, or 360 where the unit is `deg`); makes it an angle.
        #[serde(default)]
        turn: Option<f32>,
        /// Its value jumps by a turn; makes it an angle.
        #[serde(default)]
        wraps: bool,
        /// 0 or 1.
        #[serde(default)]
        flag: bool,
        /// Its shape; empty for one column.
        #[serde(default)]
        shape: Vec<usize>,
    },
}

impl FieldConfig {
    fn field(&self) -> Field {
        match self {
            Self::Name(name) => Field::linear(&**name, ""),
            Self::Field { name, unit, angle, turn, wraps, flag, shape } => {
                let turn =
                    turn.or((*angle || *wraps).then_some(if unit == "deg" { 360.0 } else { std::f32::consts::TAU }));
                let field = match turn {
                    Some(turn) => {
                        Field::angle(&**name).with_unit(if unit.is_empty() { "rad" } else { &**unit }).with_turn(turn)
                    }
                    None if *flag => Field::flag(&**name),
                    None => Field::linear(&**name, &**unit),
                };
                if *wraps { field.wrapping().with_shape(shape.clone()) } else { field.with_shape(shape.clone()) }
            }
        }
    }
}

/// Refuses an option.
fn refuse<T>(option: &str, value: impl std::fmt::Display, expected: &str) -> Result<T, EnvError> {
    let reason = format!("{option} = {value}: expected {expected}");
    Err(EnvError::Options { task: TASK.into(), reason })
}

impl ProcessConfig {
    /// Starts the process and asks what it serves.
    ///
    /// # Errors
    /// [`EnvError::Options`] for a value that breaks a rule; [`EnvError::Process`] where the process does not start, does not say
    /// hello in time or says something else.
    pub fn init(&self) -> Result<ProcessEnv, EnvError> {
        self.check()?;
        ProcessEnv::start(self.clone())
    }

    /// The task: the environment under its time limit. A model must learn its reward and termination, or expressions must give them.
    ///
    /// # Errors
    /// As [`init`](Self::init); [`EnvError::Options`] where nobody says how long an episode is.
    pub fn task(&self) -> Result<Task, EnvError> {
        let env = self.init()?;
        let limit = match (self.max_steps, env.told_max_steps()) {
            (Some(0), _) => None,
            (None, None) => {
                let told = "the number of steps after which an episode is cut, because the process says none (`max_steps`); 0 where every \
                    episode ends by itself";
                return refuse("max_steps", "nothing", told);
            }
            (mine, told) => mine.into_iter().chain(told).min(),
        };
        Ok(Task::new(match limit {
            Some(limit) => World::from_env(TimeLimit::new(env, limit)?),
            None => World::from_env(env),
        }))
    }

    fn check(&self) -> Result<(), EnvError> {
        if self.command.is_empty() == self.id.is_none() {
            let value = if self.id.is_some() { format!("{:?} beside id", self.command) } else { "[]".into() };
            let told = "the program and its words, such as [\"python3\", \"my_env.py\"], or in its place id = \"Pendulum-v1\" for an \
                environment of Gymnasium";
            return refuse("command", value, told);
        }
        if self.command.first().or(self.id.as_ref()).is_some_and(|word| word.trim().is_empty()) {
            return refuse("command", "\"\"", "a program");
        }
        let with_id =
            [("python", self.python.is_some()), ("imports", !self.imports.is_empty()), ("make", self.make.is_some())];
        if let (None, Some((option, _))) = (&self.id, with_id.iter().find(|(_, given)| *given)) {
            return refuse(option, "given", "id beside it: with a command, the command says all of that");
        }
        if let Some(make) = &self.make
            && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(make).is_err()
        {
            return refuse("make", format!("{make:?}"), "an object of JSON, such as '{\"g\": 9.81}'");
        }
        for (option, seconds) in
            [("start_timeout", self.start_timeout), ("timeout", self.timeout), ("stop_timeout", self.stop_timeout)]
        {
            if !(seconds > 0.0 && seconds <= 1e6) {
                return refuse(option, seconds, "seconds, above 0 and at most 1e6");
            }
        }
        if let Some(period) = self.control_period
            && !(period > 0.0 && period.is_finite())
        {
            return refuse("control_period", period, "seconds, above 0");
        }
        let words = self.command.iter().chain(&self.args).chain(self.env.keys()).chain(self.env.values());
        if words.chain(&self.id).any(|word| word.contains('\0'))
            || self.env.keys().any(|name| name.is_empty() || name.contains('='))
        {
            return refuse("command, args or env", "…", "words without NUL, and names of variables without `=`");
        }
        Ok(())
    }

    /// How it is started.
    pub(super) fn command(&self) -> Result<Command, ProcessFault> {
        if let Some(directory) = &self.directory
            && !directory.is_dir()
        {
            return Err(ProcessFault::Directory(directory.clone()));
        }
        let mut command = match (&self.id, self.command.split_first()) {
            (Some(id), _) => {
                let mut command = Command::new(self.python.as_deref().unwrap_or("python3"));
                // By default Python finds modules in the script's folder; here it finds them in the working directory.
                command.args(["-c", SHIM, id]);
                for module in &self.imports {
                    command.args(["--import", module]);
                }
                if let Some(make) = &self.make {
                    command.args(["--make", make]);
                }
                command
            }
            (None, Some((program, words))) => {
                let mut command = Command::new(program);
                command.args(words);
                command
            }
            (None, None) => return Err(ProcessFault::Start(std::io::ErrorKind::NotFound.into())),
        };
        command.args(&self.args).envs(&self.env);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        Ok(command)
    }

    /// The command as text.
    pub(super) fn words(&self) -> String {
        let served = self.id.iter().flat_map(|id| [self.python.as_deref().unwrap_or("python3"), "-m", "mbrl_env", id]);
        let words: Vec<&str> = served.chain(self.command.iter().chain(&self.args).map(String::as_str)).collect();
        words.join(" ")
    }

    /// A specification under the names of the options.
    pub(super) fn named(&self, mut spec: EnvSpec) -> Result<EnvSpec, ProcessFault> {
        let fields = |given: &[FieldConfig]| given.iter().map(FieldConfig::field).collect::<Vec<_>>();
        if !self.fields.is_empty() {
            spec.fields = fields(&self.fields);
        }
        if !self.action_fields.is_empty() {
            spec.action_fields = fields(&self.action_fields);
        }
        spec.check_fields().map_err(|error| ProcessFault::Spec { reason: error.to_string() })?;
        Ok(spec)
    }
}
