//! What can go wrong between an agent and a robot.

use std::{io, path::PathBuf};

use mbrl_env::EnvError;

use crate::AgentError;

/// An error of the link to a robot. None of them ends a run: the driver counts them and uses what it knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no connection at the moment.
    #[error("the link to {peer} is down")]
    Down {
        /// Who is at the other end.
        peer: String,
    },
    /// What came is not a frame of the protocol.
    #[error("{peer} sent {reason}")]
    Protocol {
        /// Who sent it.
        peer: String,
        /// What was expected and what came.
        reason: String,
    },
    /// An error of the operating system.
    #[error("the link to {peer} failed")]
    Io {
        /// Who is at the other end.
        peer: String,
        /// What it says.
        #[source]
        source: io::Error,
    },
}

/// An error that keeps a robot from being driven, found before the first command; that of a log also ends a drive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// A setting that breaks its rule.
    #[error("{field} = {value}: expected {rule}")]
    Config {
        /// Name of the setting.
        field: String,
        /// The value that came, as text.
        value: String,
        /// What is expected.
        rule: String,
    },
    /// A log that cannot be written.
    #[error(
        "{path}: the log cannot be written, expected a folder without another drive's log on a disk with room; free some, or log elsewhere",
        path = path.display()
    )]
    Log {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// An error of the link, before anything was sent.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// An error of the agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// An error of an environment that stands in for a robot.
    #[error(transparent)]
    Env(#[from] EnvError),
}

/// Refuses a setting.
pub(super) fn refuse<T>(
    field: impl Into<String>,
    value: impl ToString,
    rule: impl Into<String>,
) -> Result<T, DriveError> {
    Err(DriveError::Config { field: field.into(), value: value.to_string(), rule: rule.into() })
}
