//! Words to the person at the terminal: results on standard output, everything besides on standard error.

use std::{
    fmt::Display,
    io::{ErrorKind, Write, stderr, stdout},
};

use anyhow::{Context, Result};

/// Prints a result. A reader that went away (`| head`) wants to hear no more, which is no error.
pub(crate) fn out(text: impl Display) -> Result<()> {
    match stdout().write_all(format!("{text}\n").as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

/// Tells what goes on. Nothing that a run does may depend on whether this can be read.
pub(crate) fn note(text: impl Display) {
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}

/// The error and its causes, leaving out a cause that the message before it already tells.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
        }
    }
    text
}
