//! An environment in another process: in Python, or in any language that speaks the protocol.
//!
//! [`ProcessConfig`] says how the process is started; [`ProcessEnv`] is the environment. It is the task `process` of
//! [`tasks`](crate::tasks), with the configuration's fields as its options. `docs/process-protocol.md` describes the
//! messages on the pipes; the Python side is in `python/` of this crate.
//!
//! ```no_run
//! use mbrl_env::{Env, process::ProcessConfig};
//!
//! let config = ProcessConfig { command: vec!["python3".into(), "my_env.py".into()], ..ProcessConfig::default() };
//! let mut env = config.init()?;
//! let first = env.reset(Some(0))?;
//! assert_eq!(first.len(), env.spec().obs.width());
//! # Ok::<(), mbrl_env::EnvError>(())
//! ```

#[cfg(unix)]
mod child;
#[cfg(not(unix))]
#[path = "no_child.rs"]
mod child;
mod config;
mod env;
mod error;
mod protocol;

pub use config::{FieldConfig, ProcessConfig, TASK, WAITING_OPTIONS};
pub use env::ProcessEnv;
pub use error::{ProcessError, ProcessFault};
