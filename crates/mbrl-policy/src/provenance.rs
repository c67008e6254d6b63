//! `machine.json`: what a run was made with.

use std::{env::consts, fs, io::ErrorKind, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    AgentError,
    files::{io_error, write_atomically},
};

const FILE: &str = "machine.json";

/// What a run was made with, per start: versions, machine, threads. A run that was resumed elsewhere has
/// several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Provenance {
    /// Real environment steps before this start.
    pub env_step: u64,
    /// Version of this crate.
    pub version: String,
    /// The commit that it was built from, if the build was given it: the variable `MBRL_COMMIT` at build time.
    pub commit: Option<String>,
    /// Whether it was built with optimisations.
    pub optimised: bool,
    /// Architecture and operating system, `x86_64-linux`.
    pub target: String,
    /// The processor's name, where the system reports it.
    pub cpu: Option<String>,
    /// Threads that the run computes on.
    pub threads: usize,
}

impl Provenance {
    /// The provenance of this process, with the threads that computations would use here.
    #[must_use]
    pub fn here(env_step: u64) -> Self {
        Self {
            env_step,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("MBRL_COMMIT").filter(|commit| !commit.is_empty()).map(str::to_owned),
            optimised: !cfg!(debug_assertions),
            target: format!("{}-{}", consts::ARCH, consts::OS),
            cpu: cpu(),
            threads: rayon::current_num_threads(),
        }
    }

    /// The starts of a run, the first one first; none for a run of a version that did not write them.
    ///
    /// # Errors
    /// [`AgentError::Io`] where the file cannot be read, [`AgentError::Checkpoint`] where it is not whole.
    pub fn of_run(folder: &Path) -> Result<Vec<Self>, AgentError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| AgentError::Checkpoint { path, reason: error.to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// Adds a start to a run. Starts after that step are dropped: their work is done again.
    pub(crate) fn add(self, folder: &Path) -> Result<(), AgentError> {
        // A damaged list is no reason to stop.
        let mut starts = Self::of_run(folder).unwrap_or_default();
        starts.retain(|start| start.env_step < self.env_step);
        starts.push(self);
        let path = folder.join(FILE);
        let mut bytes = serde_json::to_vec_pretty(&starts)
            .map_err(|error| AgentError::Checkpoint { path: path.clone(), reason: error.to_string() })?;
        bytes.push(b'\n');
        write_atomically(&path, &bytes)
    }
}

/// What Linux says of the processor.
fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_is_kept_until_its_steps_are_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Provenance::of_run(folder.path()).unwrap(), []);
        for (env_step, expected) in [(0, vec![0]), (400, vec![0, 400]), (800, vec![0, 400, 800]), (400, vec![0, 400])] {
            Provenance::here(env_step).add(folder.path()).unwrap();
            let starts = Provenance::of_run(folder.path()).unwrap();
            assert_eq!(starts.iter().map(|start| start.env_step).collect::<Vec<_>>(), expected);
            assert_eq!(starts.last(), Some(&Provenance::here(env_step)));
        }
        let start = &Provenance::of_run(folder.path()).unwrap()[0];
        assert_eq!(start.version, env!("CARGO_PKG_VERSION"));
        assert!(start.threads >= 1 && start.target.contains('-'));
        fs::write(folder.path().join(FILE), "[{").unwrap();
        let error = Provenance::of_run(folder.path()).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
