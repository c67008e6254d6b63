//! What can be wrong with a file of transitions.

use std::{fmt, path::PathBuf};

use crate::EnvError;

/// A position in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Line of a text file, counted from 1.
    Line(u64),
    /// Row of a table or an array, counted from 0.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row} (from 0)"),
        }
    }
}

/// Why a file could not be read as transitions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file could not be opened or read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The format's reader is not part of this build.
    #[error("{path}: mbrl-env was built without its feature `{feature}`", path = path.display())]
    NotBuilt {
        /// The file.
        path: PathBuf,
        /// The feature that reads it.
        feature: &'static str,
    },
    /// The file is damaged, or not of the format that its name says.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has no rows.
    #[error("{path}: no rows", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No row is followed by an observation.
    #[error("{path}: no transition in {rows} rows: no row is followed by another of its episode ({sources})", path = path.display())]
    NoTransition {
        /// The file.
        path: PathBuf,
        /// Rows of the file.
        rows: u64,
        /// The columns from which episodes and time were read.
        sources: String,
    },
    /// Required columns are missing.
    #[error("{path}: no column {}{}; the file has {}", quoted(missing), did_you_mean(near), quoted(present), path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Names that were looked up.
        missing: Vec<String>,
        /// Present names that are similar.
        near: Vec<String>,
        /// All present names.
        present: Vec<String>,
    },
    /// The file has more than one column with a required name.
    #[error("{path}: more than one column `{column}`", path = path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The name.
        column: String,
    },
    /// A column holds something other than what is needed.
    #[error("{path}, column `{column}`: {found}, expected {expected}", path = path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What it holds.
        found: String,
        /// What is needed.
        expected: &'static str,
    },
    /// Columns of different lengths.
    #[error("{path}: arrays of different lengths: {}", lengths.iter().map(|(n, l)| format!("`{n}` {l}")).collect::<Vec<_>>().join(", "), path = path.display())]
    Lengths {
        /// The file.
        path: PathBuf,
        /// Name and length of each.
        lengths: Vec<(String, u64)>,
    },
    /// A row has more or fewer fields than the header.
    #[error("{path}, {at}: {actual} fields, expected {expected} as in the header", path = path.display())]
    Fields {
        /// The file.
        path: PathBuf,
        /// The row.
        at: Place,
        /// Fields of the header.
        expected: usize,
        /// Fields of the row.
        actual: usize,
    },
    /// A value that cannot be used.
    #[error("{path}, {at}, column `{column}`{}: found {found}, expected {expected}", taken(part, *guessed), path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The row.
        at: Place,
        /// The column.
        column: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
        /// The role of the column, for example `time`.
        part: &'static str,
        /// Whether the role was guessed from its name alone.
        guessed: bool,
    },
    /// A column that was named as the time is not a clock.
    #[error("{path}, column `{column}` (time): {reason}, expected times that rise within each episode", path = path.display())]
    Clock {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file's columns differ from those of the files before it.
    #[error("{path}: {what} {}, expected {} as in the files before", quoted(found), quoted(expected), path = path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// Which columns, for example `observation`.
        what: &'static str,
        /// The columns of the files before.
        expected: Vec<String>,
        /// The file's own columns.
        found: Vec<String>,
    },
    /// The files of a data set have fewer or more rows than its description says.
    #[error("{path}: {expected} rows by this description, the files hold {found}; is one missing?", path = path.display())]
    Incomplete {
        /// The description.
        path: PathBuf,
        /// Number of rows that it gives.
        expected: u64,
        /// Number of rows that were read.
        found: u64,
    },
    /// An option that breaks a rule.
    #[error("{field} = {value}: expected {rule}")]
    Option {
        /// The option.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is expected.
        rule: &'static str,
    },
    /// An episode continues after another one has begun.
    #[error("{path}, {at}: episode {episode} comes again after another one; sort the rows by episode", path = path.display())]
    EpisodeAgain {
        /// The file.
        path: PathBuf,
        /// The first row at which it appears again.
        at: Place,
        /// Its name.
        episode: String,
    },
    /// The replay refused the widths or a transition.
    #[error(transparent)]
    Env(#[from] EnvError),
}

/// Names for a message, at most the first thirty.
fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 30;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    if text.is_empty() { "none".into() } else { text }
}

/// The role of a column, where it is not obvious.
fn taken(part: &str, guessed: bool) -> String {
    match (part, guessed) {
        ("observation" | "action" | "next observation", _) => String::new(),
        (part, true) => format!(" (taken for: {part}, by its name)"),
        (part, false) => format!(" ({part})"),
    }
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", quoted(near)) }
}
