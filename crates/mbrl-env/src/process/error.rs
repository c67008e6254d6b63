//! What can go wrong with a process that serves an environment.

use std::{error::Error, fmt, io, path::PathBuf, process::ExitStatus};

use super::protocol::{MAX_FRAME, PROTOCOL};

/// An error of a process that serves an environment: which process, what it was asked, what went wrong and its last output.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProcessError {
    /// The command that started it.
    pub command: String,
    /// What it was asked for, for example `step 12 of an episode`.
    pub asked: String,
    /// What went wrong.
    pub fault: ProcessFault,
    /// The end of what it wrote to standard error.
    pub said: String,
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the process `{}`, {}: {}", self.command, self.asked, self.fault)?;
        let said = self.said.trim_end();
        if said.is_empty() { Ok(()) } else { write!(f, "\nthe end of its standard error:\n{said}") }
    }
}

/// The message already includes the fault, so the source is that of the fault.
impl Error for ProcessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.fault.source()
    }
}

/// What went wrong with a process that serves an environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessFault {
    /// The program does not exist or cannot be run.
    #[error(
        "it cannot be started; task_options.command names the program and its words, the program by a path or by a name that is found \
         in PATH"
    )]
    Start(#[source] io::Error),
    /// The working directory does not exist.
    #[error("task_options.directory = {directory:?}: expected a folder that is there", directory = .0.display().to_string())]
    Directory(PathBuf),
    /// No answer in time.
    #[error(
        "no answer within {seconds} s, so the process was ended; if it needs more time, raise task_options.{option}"
    )]
    TimedOut {
        /// How long the parent waited (s).
        seconds: f64,
        /// The option that says how long to wait.
        option: &'static str,
    },
    /// It exited by itself.
    #[error("it ended {}", ending(.0))]
    Exited(ExitStatus),
    /// It is still running, but its output or its input is closed.
    #[error("it closed its standard input or output, which carry the messages, and was ended")]
    Closed,
    /// It sent text instead of a message.
    #[error(
        "it wrote {text:?} to standard output, where only messages of the protocol may go: print to standard error, and start the \
         messages by mbrl_env.serve"
    )]
    Rubbish {
        /// The beginning of the text.
        text: String,
    },
    /// A message that is too large.
    #[error("it announced a message of {bytes} bytes, expected at most {MAX_FRAME}")]
    TooLarge {
        /// The size that was received.
        bytes: u64,
    },
    /// Another version of the protocol.
    #[error(
        "it speaks version {found} of the protocol, expected {PROTOCOL}: install the Python package that came with this program \
         (crates/mbrl-env/python)"
    )]
    Version {
        /// The version that was received.
        found: u32,
    },
    /// A message that was not asked for.
    #[error("it sent {found}, expected {expected}")]
    Order {
        /// What came.
        found: String,
        /// The message that was requested.
        expected: &'static str,
    },
    /// A message that ends too early or too late, or has invalid contents.
    #[error("its message is damaged: {reason}")]
    Malformed {
        /// What was expected and what came.
        reason: String,
    },
    /// A specification that makes no sense.
    #[error("its specification: {reason}")]
    Spec {
        /// What was expected and what came.
        reason: String,
    },
    /// An observation of the wrong width.
    #[error("its observation has {actual} numbers, expected {expected} as its specification says")]
    Width {
        /// The width that the specification states.
        expected: usize,
        /// The width that was received.
        actual: usize,
    },
    /// A number that is not finite, in an observation or a reward. The process keeps running, and its episode is over.
    #[error(
        "its {what} is {value}, expected a finite number; let the environment terminate the episode before it gives such a number"
    )]
    NonFinite {
        /// `reward`, or the name of the column.
        what: String,
        /// What came.
        value: f64,
    },
    /// Its code raised an exception.
    #[error("its code failed:\n{}", .traceback.trim_end())]
    Raised {
        /// The exception as the process reports it.
        traceback: String,
    },
    /// After a restart it serves another environment.
    #[error("started again, it serves another environment: {reason}")]
    Changed {
        /// What differs.
        reason: String,
    },
    /// It failed before, and its generator of start states is lost.
    #[error("it failed before: begin its next episode with a seed, which starts it again")]
    Lost,
    /// The pipes failed.
    #[error("its pipes failed")]
    Io(#[source] io::Error),
    /// A platform that lacks what the bridge needs.
    #[error("environments in processes need Linux, macOS or another Unix")]
    Platform,
}

fn ending(status: &ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(status) {
        let name = match signal {
            4 => " (SIGILL)",
            6 => " (SIGABRT)",
            8 => " (SIGFPE)",
            9 => " (SIGKILL: ended from outside, by a lack of memory for example)",
            11 => " (SIGSEGV)",
            15 => " (SIGTERM)",
            _ => "",
        };
        return format!("by signal {signal}{name}");
    }
    match status.code() {
        Some(0) => "with exit code 0, as if nothing more was to come: its last line must be mbrl_env.serve(…)".into(),
        Some(code) => format!("with exit code {code}"),
        None => "without an exit code".into(),
    }
}
