//! What can go wrong in a model.

use std::{borrow::Cow, path::PathBuf};

use mbrl_env::{EnvError, nearest::suggest};

/// An error of this crate. Every variant carries what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// An array has the wrong size.
    #[error("{what} = {actual}: expected {expected}")]
    Width {
        /// What was counted, for example `columns of states`.
        what: &'static str,
        /// The expected size.
        expected: usize,
        /// The actual size.
        actual: usize,
    },
    /// Data or weights hold NaN or infinities.
    #[error("{what}: {rows} of {total} rows hold a NaN or an infinity, the first is row {first}")]
    NonFinite {
        /// What holds them.
        what: &'static str,
        /// Number of rows with a NaN or an infinity.
        rows: usize,
        /// Number of all rows.
        total: usize,
        /// Index of the first such row.
        first: usize,
    },
    /// A value of a configuration that breaks a rule.
    #[error("{field} = {value}: expected {rule}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The actual value, as text.
        value: String,
        /// What is expected, as a noun phrase.
        rule: Cow<'static, str>,
    },
    /// Too little data to fit.
    #[error("examples to fit = {actual}: expected at least {needed}")]
    TooLittleData {
        /// Number of examples, such as transitions, available.
        actual: usize,
        /// Number of examples needed.
        needed: usize,
    },
    /// The data lacks what the model learns.
    #[error("the model learns {what}, the data has none")]
    MissingData {
        /// What is missing, for example `rewards`.
        what: &'static str,
    },
    /// The loss became NaN or infinite. The model keeps its last good weights.
    #[error("the loss became {value} at optimizer step {step} (epoch {epoch}); the last good weights are kept")]
    Diverged {
        /// Optimizer step within this fit, from 0.
        step: usize,
        /// Epoch within this fit, from 0.
        epoch: usize,
        /// The loss.
        value: f32,
    },
    /// The model needs the simulator's snapshot and the situation has none.
    #[error("{model} needs a snapshot of the simulator, the situation has none")]
    NeedsSnapshot {
        /// Name of the model.
        model: String,
    },
    /// The model cannot do what was asked.
    #[error("{model} cannot {what}")]
    Unsupported {
        /// Name of the model.
        model: String,
        /// What it cannot do.
        what: &'static str,
    },
    /// Stored weights do not fit this model.
    #[error("weights of {what} = {actual:?}: expected shape {expected:?}")]
    Record {
        /// Which weights.
        what: String,
        /// Shape in this model.
        expected: Vec<usize>,
        /// Shape of the stored weights.
        actual: Vec<usize>,
    },
    /// Stored weights could not be read or written.
    #[error("stored weights: {0}")]
    Storage(String),
    /// A file could not be read or written.
    #[error("{path}: it cannot be read or written", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file of a model is damaged, or not of this version.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that matches no column, or a column without a value.
    #[error("column `{name}`: expected {rule}; the model has `{}`", known.join("`, `"))]
    Column {
        /// The name.
        name: String,
        /// What was expected.
        rule: &'static str,
        /// The names that the model knows.
        known: Vec<String>,
    },
    /// A name that matches no parameter of a physics.
    #[error("parameter `{name}`: expected one of `{}`{}", known.join("`, `"), suggest(name, known.iter().map(String::as_str)))]
    Parameter {
        /// The name.
        name: String,
        /// The existing parameters.
        known: Vec<String>,
    },
    /// A model breaks its contract (module `check`).
    #[error("check of {model} failed: {reason}")]
    Check {
        /// Name of the model.
        model: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// An error of the underlying environment.
    #[error(transparent)]
    Env(#[from] EnvError),
}

impl ModelError {
    /// Whether only numbers broke down, in a model or in the simulator under it: with other data or from another state the same call may succeed.
    #[must_use]
    pub fn is_breakdown(&self) -> bool {
        match self {
            Self::Diverged { .. } | Self::NonFinite { .. } => true,
            Self::Env(error) => error.is_breakdown(),
            _ => false,
        }
    }

    /// Whether the cause lies outside the program, as in [`EnvError::is_external`].
    #[must_use]
    pub fn is_external(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Env(error) => error.is_external(),
            _ => false,
        }
    }
}
