//! Output to the terminal: results on standard output, everything else on standard error.

use std::{
    error::Error,
    fmt::Display,
    io::{ErrorKind, Write, stderr, stdout},
    iter,
};

use anyhow::{Context, Result};

/// Prints a result. A reader that has closed the pipe (`| head`) is no error.
pub(crate) fn out(text: impl Display) -> Result<()> {
    match stdout().write_all(format!("{text}\n").as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output"),
    }
}

/// Prints a progress message. A run must not depend on whether it can be written.
pub(crate) fn note(text: impl Display) {
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}

/// The error and its causes, without any cause that the text so far already contains.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    joined(error.chain())
}

/// The same for an error that is not wrapped.
pub(crate) fn chain_of(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    joined(iter::from_fn(|| {
        let error = next?;
        next = error.source();
        Some(error)
    }))
}

fn joined<'a>(causes: impl Iterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut text = String::new();
    for cause in causes.map(|cause| shortened(&cause.to_string())) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
        }
    }
    text
}

/// A message with words of readable length: user input and file contents may have megabytes.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 300;
    const SHOWN: usize = 60;
    let shorter = |word: &str| match word.chars().count() {
        count if count > LONGEST => {
            let (start, end) = (word.chars().take(SHOWN), word.chars().skip(count - SHOWN));
            format!("{}…{} ({count} characters)", start.collect::<String>(), end.collect::<String>())
        }
        _ => word.to_owned(),
    };
    text.split(' ').map(shorter).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_any_length_become_legible() {
        assert_eq!(shortened("a = 3: expected  b"), "a = 3: expected  b");
        let told = shortened(&format!("task = \"{}\": expected one", "x".repeat(100_000)));
        assert!(told.len() < 250 && told.ends_with("xx\": (100003 characters) expected one"), "{told}");
    }
}
