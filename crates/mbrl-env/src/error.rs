//! What can go wrong in an environment, a space or a replay.

use std::path::PathBuf;

use crate::process::{ProcessError, ProcessFault};

/// An error of this crate. Every variant carries what was expected and what was given; one with a
/// [source](std::error::Error::source) does not repeat it in its own message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A vector has the wrong number of entries.
    #[error("{what} has {actual} entries, expected {expected}")]
    Width {
        /// What was measured, for example `action of pendulum`.
        what: String,
        /// The width that the specification requires.
        expected: usize,
        /// The width that was given.
        actual: usize,
    },
    /// A number is NaN or infinite.
    #[error("{what}: entry {index} is {value}, expected a finite number")]
    NonFinite {
        /// What holds the number, for example `action of pendulum`.
        what: String,
        /// Index of the first such entry.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A space whose bounds form no interval.
    #[error("bounds of {what}, dimension {index}: low {low} is above high {high}")]
    Bounds {
        /// What the bounds belong to.
        what: String,
        /// The dimension at fault.
        index: usize,
        /// Its lower bound.
        low: f32,
        /// Its upper bound.
        high: f32,
    },
    /// Actions without finite limits, where random actions or a planner need them.
    #[error(
        "actions of {env}: no limits for {columns}: expected finite ones, by the model (`ctrlrange` in MuJoCo's), by \
         `ActionLimits::clip` or, in an experiment, by `wrappers.action_limits = [low, high]`"
    )]
    Unlimited {
        /// Name of the environment.
        env: String,
        /// The columns, separated by commas.
        columns: String,
    },
    /// Limits that actions cannot have.
    #[error("action limits of {env}: {reason}")]
    ActionLimits {
        /// Name of the environment.
        env: String,
        /// What was expected and what came.
        reason: String,
    },
    /// `step` was called before `reset`, or after the end of an episode.
    #[error("{env}: step needs a reset first ({why})")]
    NeedsReset {
        /// Name of the environment.
        env: String,
        /// `no episode has begun` or `the episode is over`.
        why: &'static str,
    },
    /// A snapshot that this simulator did not make.
    #[error("{env}: the snapshot was made by another simulator")]
    ForeignSnapshot {
        /// Name of the environment that refused it.
        env: String,
    },
    /// An environment that is not a [`Simulator`](crate::Simulator), where one is needed: to plan with the environment itself, or
    /// to take snapshots.
    #[error("{env} is not a simulator: its state cannot be saved and restored")]
    NotASimulator {
        /// Name of the environment.
        env: String,
    },
    /// Fields that do not describe the columns of an observation or an action.
    #[error("fields of the {what}: {reason}")]
    Fields {
        /// What they should describe, for example `observation of pendulum`.
        what: String,
        /// What was expected and what came.
        reason: String,
    },
    /// No task of that name.
    #[error("unknown task `{name}`; known tasks: {known}")]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// The known names, separated by commas.
        known: String,
    },
    /// A task that this build lacks.
    #[error(
        "the task {task} needs a build with the feature `{feature}`; `mbrl doctor` and docs/mujoco.md say how to get it"
    )]
    NeedsFeature {
        /// Name of the task.
        task: String,
        /// The feature.
        feature: &'static str,
    },
    /// Options that a task does not take, or of the wrong type.
    #[error("options of the task {task}: {reason}")]
    Options {
        /// Name of the task.
        task: String,
        /// What is wrong with them, as reported by the parser of the options.
        reason: String,
    },
    /// A value of a configuration that breaks a rule.
    #[error("{field} = {value}: expected {rule}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// The value that was given, as text.
        value: String,
        /// What is expected, as a noun phrase.
        rule: &'static str,
    },
    /// Too little data for what was asked.
    #[error("{what}: {actual} transitions, at least {needed} are needed")]
    TooLittleData {
        /// What was asked for.
        what: &'static str,
        /// Transitions at hand.
        actual: usize,
        /// Transitions needed.
        needed: usize,
    },
    /// A file could not be read or written.
    #[error("{path}: cannot be read or written", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Reading from or writing to a stream without a name failed.
    #[error("{what}: cannot be read or written")]
    Stream {
        /// What was read or written, for example `replay`.
        what: &'static str,
        /// The error of the stream.
        #[source]
        source: std::io::Error,
    },
    /// Data from a stream without a name is not what it should be.
    #[error("{what}: {reason}")]
    Malformed {
        /// What was read, for example `replay`.
        what: &'static str,
        /// What was expected and what came.
        reason: String,
    },
    /// A simulation that cannot continue: its state diverged, or its buffers are full. The episode is over.
    #[error("the simulation broke down at {time:.3} s: {reason}")]
    Simulation {
        /// Simulated time (s).
        time: f64,
        /// The message of the engine.
        reason: String,
    },
    /// A simulator whose library, files or drivers are not as they should be.
    #[error("MuJoCo: {reason}")]
    Engine {
        /// What was expected and what came.
        reason: String,
    },
    /// A model that has no part of that name.
    #[error("{origin} has no {what} `{name}`; it has: {known}")]
    UnknownName {
        /// Where the model comes from.
        origin: Box<str>,
        /// `body`, `joint`, `actuator`, `site`, `geom`, `camera`, `keyframe` or `mocap body`.
        what: &'static str,
        /// The name asked for.
        name: Box<str>,
        /// The known names, separated by commas.
        known: Box<str>,
    },
    /// A process that serves an environment, or should. The error ends the run, which can be resumed; a number that is not finite ends
    /// only the episode.
    #[error(transparent)]
    Process(Box<ProcessError>),
    /// An environment that draws no pictures of itself.
    #[error("{env} draws no pictures")]
    NoPicture {
        /// Name of the environment.
        env: String,
    },
    /// `reward`, `termination` and environment, or two runs of one environment, disagree (module `check`).
    #[error("check of {what} failed: {reason}")]
    Check {
        /// What was checked.
        what: String,
        /// What was expected and what came.
        reason: String,
    },
}

impl EnvError {
    /// Whether only the episode broke down, because the engine diverged, say. The next reset begins a new episode, and
    /// a run can continue without this one.
    #[must_use]
    pub fn is_breakdown(&self) -> bool {
        match self {
            Self::Simulation { .. } => true,
            // The process keeps running; its episode has ended.
            Self::Process(error) => matches!(error.fault, ProcessFault::NonFinite { .. }),
            _ => false,
        }
    }

    /// Whether the cause lies outside of the program, a full disk say, so that the same call may succeed later.
    #[must_use]
    pub fn is_external(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Stream { .. } | Self::Process(_))
    }
}

/// Refuses a vector of the wrong width.
///
/// # Errors
/// [`EnvError::Width`].
pub fn check_width(what: &str, expected: usize, actual: usize) -> Result<(), EnvError> {
    if expected == actual {
        return Ok(());
    }
    Err(EnvError::Width { what: what.to_owned(), expected, actual })
}

/// Refuses NaN and infinities.
///
/// # Errors
/// [`EnvError::NonFinite`], naming the first such entry.
pub fn check_finite(what: &str, values: &[f32]) -> Result<(), EnvError> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(EnvError::NonFinite { what: what.to_owned(), index, value: values[index] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_that_breaks_down_is_no_fault_of_the_disk_or_the_caller() {
        let io = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let kinds = |error: EnvError| (error.is_breakdown(), error.is_external());
        let diverged = EnvError::Simulation { time: 0.1, reason: "diverged".into() };
        assert_eq!(kinds(diverged), (true, false));
        assert_eq!(kinds(EnvError::Io { path: "log".into(), source: io() }), (false, true));
        assert_eq!(kinds(EnvError::Stream { what: "replay", source: io() }), (false, true));
        for error in [
            EnvError::Width { what: "action".into(), expected: 1, actual: 2 },
            EnvError::NonFinite { what: "action".into(), index: 0, value: f32::NAN },
            EnvError::NeedsReset { env: "point".into(), why: "the episode is over" },
            EnvError::Engine { reason: "no library".into() },
        ] {
            assert_eq!(kinds(error), (false, false));
        }
    }
}
