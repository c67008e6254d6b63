//! What can be wrong with an experiment.

use std::{io, path::PathBuf};

use mbrl_env::EnvError;
use mbrl_model::ModelError;
use mbrl_plan::PlanError;

use crate::AgentError;

/// An error of an experiment. Every variant names the key, the file or the word at fault and says what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// No experiment of that name in the registry.
    #[error("unknown experiment `{name}`: expected a registered name, or the path of a file that ends in .toml{hint}")]
    UnknownExperiment {
        /// The name asked for.
        name: String,
        /// Close names, as `; did you mean …?`, or nothing.
        hint: String,
    },
    /// No task of that name in the registry.
    #[error("unknown task `{name}`{hint}; known tasks: {known}")]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// Close names, as `; did you mean …?`, or nothing.
        hint: String,
        /// The registered names, separated by commas.
        known: String,
    },
    /// A file could not be read.
    #[error("{path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// A text that is not TOML.
    #[error("not a TOML document")]
    Syntax(#[source] toml::de::Error),
    /// A value that TOML cannot hold, such as an integer above 2⁶³ − 1.
    #[error("the experiment cannot be written as TOML")]
    Unwritable(#[source] toml::ser::Error),
    /// A key or a section that does not exist.
    #[error("unknown key `{key}`{hint}")]
    UnknownKey {
        /// Its dotted name.
        key: String,
        /// Close names, as `; did you mean …?`, what it is called today, or nothing.
        hint: String,
    },
    /// A key or a section that is missing.
    #[error("missing {what}")]
    Missing {
        /// The key or section, and who needs it.
        what: String,
    },
    /// A value of the wrong type, or one that breaks a rule.
    #[error("{key} = {value}: expected {rule}")]
    Value {
        /// Its dotted name.
        key: String,
        /// The value that came, as TOML.
        value: String,
        /// What is expected.
        rule: String,
    },
    /// A value of the wrong type within a section.
    #[error("section [{section}]: found {value}, expected {rule}")]
    ValueIn {
        /// The section.
        section: String,
        /// The value that came.
        value: String,
        /// What is expected.
        rule: String,
    },
    /// A value that its type refuses, in the words of the type.
    #[error("{key}: {reason}")]
    Refused {
        /// Its dotted name.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An override that is not `key=value`.
    #[error("--set {word}: expected key=value, for example planner.population=500")]
    Word {
        /// The word that came.
        word: String,
    },
    /// A device that is not known, not part of this build or not there.
    #[error("device = {word:?}: expected {rule}")]
    Device {
        /// The word that came.
        word: String,
        /// What is expected.
        rule: String,
    },
    /// An error that an agent, a model, a planner or the loop reports for the values of a section.
    #[error("section {section}")]
    Section {
        /// The section or sections, as `[model]`.
        section: &'static str,
        /// The error.
        #[source]
        source: Box<AgentError>,
    },
    /// What is wrong in a named experiment or file.
    #[error("experiment {origin}")]
    In {
        /// Its name or path.
        origin: String,
        /// The error.
        #[source]
        source: Box<ExperimentError>,
    },
    /// What is wrong in a study, or in one of its methods.
    #[error("study {origin}")]
    InStudy {
        /// Its name or path, and the method.
        origin: String,
        /// The error.
        #[source]
        source: Box<ExperimentError>,
    },
    /// No study of that name in the registry.
    #[error("unknown study `{name}`: expected a registered name, or the path of a file that ends in .toml{hint}")]
    UnknownStudy {
        /// The name asked for.
        name: String,
        /// Close names, as `; did you mean …?`, or nothing.
        hint: String,
    },
    /// An error of the task or its options.
    #[error(transparent)]
    Env(#[from] EnvError),
}

impl ExperimentError {
    /// A value that breaks a rule.
    pub(super) fn rule(key: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Self::Value { key: key.into(), value: value.to_string(), rule: rule.into() }
    }

    /// What is wrong with a section, such as `[model]`. A value that breaks a rule is reported with its dotted key, as one of the
    /// wrong type is.
    pub(super) fn section<E: Into<AgentError>>(section: &'static str) -> impl FnOnce(E) -> Self {
        let key = move |field: &str| match section.trim_matches(['[', ']']) {
            // Already dotted, or a key of its own outside all sections.
            _ if field.contains('.') || field == "steps" => field.to_owned(),
            name => format!("{name}.{field}"),
        };
        move |error| match error.into() {
            AgentError::Config { field, value, rule } | AgentError::Env(EnvError::Config { field, value, rule }) => {
                Self::rule(key(field), value, rule)
            }
            AgentError::Model(ModelError::Config { field, value, rule })
            | AgentError::Plan(PlanError::Config { field, value, rule })
            | AgentError::Plan(PlanError::Model(ModelError::Config { field, value, rule })) => {
                Self::rule(key(field), value, rule)
            }
            source => Self::Section { section, source: Box::new(source) },
        }
    }

    /// Wraps what is wrong in a named experiment or file.
    pub(super) fn within(origin: &str) -> impl FnOnce(Self) -> Self {
        let origin = origin.to_owned();
        move |error| Self::In { origin, source: Box::new(error) }
    }
}
