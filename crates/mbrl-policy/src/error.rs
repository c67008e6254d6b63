//! What can go wrong with an agent or a run.

use std::path::PathBuf;

use mbrl_env::EnvError;
use mbrl_model::ModelError;
use mbrl_plan::PlanError;

/// An error of this crate. Every variant carries what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A value of a configuration that breaks a rule.
    #[error("{field} = {value}: expected {rule}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The value that came, as text.
        value: String,
        /// What is expected.
        rule: &'static str,
    },
    /// An agent returned something that is no action.
    #[error("agent {agent} chose {action:?}: {source}")]
    Action {
        /// The agent.
        agent: String,
        /// What it chose.
        action: Vec<f32>,
        /// Why it is none.
        #[source]
        source: EnvError,
    },
    /// An environment gave a NaN or an infinity.
    #[error("the environment {env} gave {what} = {value} at environment step {env_step}")]
    NonFiniteWorld {
        /// Name of the environment.
        env: String,
        /// `reward`, or the entry of the observation.
        what: String,
        /// The value.
        value: f64,
        /// Real steps taken before.
        env_step: u64,
    },
    /// A file could not be read or written. What is already on disk is untouched.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// Another process works in the folder of this run.
    #[error("{path}: another process is at work in this folder", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A run that goes on in another environment than it began in.
    #[error("the run began in the environment {expected} and cannot go on in {actual}")]
    World {
        /// The environment it began in.
        expected: String,
        /// The environment that came.
        actual: String,
    },
    /// A checkpoint that is truncated, foreign or newer than this program.
    #[error("{path}: {reason}", path = path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What was expected and what came.
        reason: String,
    },
    /// An error of the environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An error of the planner.
    #[error(transparent)]
    Plan(#[from] PlanError),
}
