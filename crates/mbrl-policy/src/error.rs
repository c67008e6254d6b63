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
    #[error("agent {agent} chose {action:?}, which is no action")]
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
        /// Number of the step, from 1; that of the last step before a reset.
        env_step: u64,
    },
    /// An environment gave a reward that no learner can take in.
    #[error("the environment {env} gave reward = {value:e} at environment step {env_step}: expected at most {max:e}", max = f32::MAX)]
    HugeReward {
        /// Name of the environment.
        env: String,
        /// The reward.
        value: f64,
        /// Number of the step, from 1.
        env_step: u64,
    },
    /// Too many episodes in a row broke down: continuing would be of no use.
    #[error(
        "train.max_breakdowns = {episodes}: as many episodes in a row broke down, or had no plan that worked (environment step \
         {env_step}); other settings of the model, the fit or the task may help, resuming does not"
    )]
    BrokeDown {
        /// How many.
        episodes: u64,
        /// Real steps taken before.
        env_step: u64,
        /// Why the last one did.
        #[source]
        source: Box<AgentError>,
    },
    /// A policy or its critics broke down while they learned.
    #[error(
        "{what} = {loss} after {updates} updates: expected a finite number; smaller rewards (wrappers or goal), a smaller learning rate \
         or critics.layer_norm = true may help"
    )]
    Diverged {
        /// The loss that is not finite.
        what: &'static str,
        /// Its value.
        loss: f64,
        /// Updates before.
        updates: u64,
    },
    /// A file could not be read or written. What is already on disk is untouched.
    #[error("{path}: cannot be read or written", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// Another process is working in the folder of this run.
    #[error("{path}: another process is at work in this folder; wait until it has ended, or stop it", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A run that continues in an environment other than the one it began in.
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
    /// A file that holds no policy that this program reads, or a place that is taken.
    #[error("{path}: {reason}", path = path.display())]
    PolicyFile {
        /// The file.
        path: PathBuf,
        /// What was expected and what came.
        reason: String,
    },
    /// An agent whose model cannot be taken elsewhere.
    #[error(
        "agent.kind = {kind:?}: expected \"model-based\" without [value] and [distil], after its first fit: an agent that plans in its model \
         and has learned nothing else"
    )]
    Untransferable {
        /// What it is.
        kind: String,
    },
    /// An agent whose model cannot be fitted anew by itself.
    #[error("agent {agent}: cannot be refitted, expected {rule}")]
    NoRefit {
        /// The agent.
        agent: String,
        /// What is expected.
        rule: &'static str,
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

impl AgentError {
    /// Whether only an episode, or a plan in it, broke down: a run continues with the next one, and counts it.
    #[must_use]
    pub fn is_breakdown(&self) -> bool {
        match self {
            Self::NonFiniteWorld { .. } | Self::HugeReward { .. } => true,
            Self::Env(error) => error.is_breakdown(),
            Self::Model(error) => error.is_breakdown(),
            Self::Plan(error) => error.is_breakdown(),
            _ => false,
        }
    }

    /// Whether resuming the run may help: the cause lies outside it, such as a full disk. Runs are deterministic, so after any
    /// other error a resumed run ends in the same way.
    #[must_use]
    pub fn resume_may_help(&self) -> bool {
        match self {
            Self::Io { .. } | Self::InUse { .. } => true,
            Self::Env(error) => error.is_external(),
            Self::Model(error) | Self::Plan(PlanError::Model(error)) => error.is_external(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn breakdowns_go_by_and_only_what_lies_outside_can_be_resumed() {
        let kinds = |error: AgentError| (error.is_breakdown(), error.resume_may_help());
        let diverged = || EnvError::Simulation { time: 0.1, reason: "diverged".into() };
        let full = || EnvError::Io { path: "log".into(), source: ErrorKind::StorageFull.into() };
        let no_plan = || PlanError::NoFiniteReturn { population: 8, iteration: 0 };
        let (env, what) = ("point".to_owned(), "reward".to_owned());
        for breakdown in [
            diverged().into(),
            AgentError::Model(diverged().into()),
            AgentError::Plan(PlanError::Model(diverged().into())),
            no_plan().into(),
            AgentError::NonFiniteWorld { env: env.clone(), what, value: f64::NAN, env_step: 3 },
            AgentError::HugeReward { env, value: 1e300, env_step: 3 },
        ] {
            assert_eq!(kinds(breakdown), (true, false));
        }
        for outside in [
            full().into(),
            AgentError::Model(full().into()),
            AgentError::Plan(PlanError::Model(full().into())),
            AgentError::Io { path: "metrics.jsonl".into(), source: ErrorKind::StorageFull.into() },
            AgentError::InUse { path: "run".into() },
        ] {
            assert_eq!(kinds(outside), (false, true));
        }
        let last = Box::new(no_plan().into());
        assert_eq!(kinds(AgentError::BrokeDown { episodes: 2, env_step: 9, source: last }), (false, false));
        let width = EnvError::Width { what: "observation".into(), expected: 1, actual: 2 };
        assert_eq!(kinds(width.into()), (false, false));
    }
}
