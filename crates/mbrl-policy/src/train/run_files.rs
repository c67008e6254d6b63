//! The files of a run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mbrl_env::atomic_file;

use super::{Best, Training, WhichCheckpoint};
use crate::{
    AgentError, Checkpoints, Learner, MetricsReader, MetricsWriter, Provenance,
    checkpoint::{KEPT, leftovers},
    files::FolderLock,
};

/// What a run leaves on the disk: `metrics.jsonl`, `checkpoints/` and `machine.json` in one folder. Only one process at a time can open them.
#[derive(Debug)]
pub struct RunFiles {
    /// Held while the files are open.
    _lock: FolderLock,
    pub(super) metrics: MetricsWriter,
    pub(super) checkpoints: Checkpoints,
}

impl RunFiles {
    /// Opens the files of a run and restores `training` and `learner` from its newest whole checkpoint; a run that did not
    /// get as far as its first one starts from the beginning. Returns what is wrong with newer checkpoints that had to
    /// be passed over.
    ///
    /// # Errors
    /// [`AgentError::InUse`] while another process has them; [`AgentError::Checkpoint`] for checkpoints that are
    /// foreign, newer than this program, of another run, all damaged or gone, naming the file; [`AgentError::Io`].
    /// The run is then left unchanged.
    pub fn open(
        folder: &Path,
        training: &mut Training,
        learner: &mut dyn Learner,
    ) -> Result<(Self, Vec<AgentError>), AgentError> {
        let lock = FolderLock::acquire(folder)?;
        tidy_locked(folder);
        let damaged = training.restore(folder, learner)?;
        let metrics = folder.join("metrics.jsonl");
        if training.stored.is_none() {
            // A kill just before the first checkpoint leaves the metrics of the episodes that it was to cover.
            let episodes = MetricsReader::open(&metrics)?.map_or(0, |metrics| metrics.episodes() as u64);
            // In lockstep they come in rounds.
            let round = training.config.environments as u64;
            let covered = training.config.checkpoint_episodes.next_multiple_of(round);
            if episodes > covered {
                let reason = format!(
                    "there is no checkpoint, but metrics.jsonl has {episodes} episodes and the first checkpoint comes \
                     after {covered}; to start over, remove metrics.jsonl"
                );
                return Err(AgentError::Checkpoint { path: folder.join(CHECKPOINTS), reason });
            }
        }
        let metrics = MetricsWriter::open_at(&metrics, training.state.metrics_length, training.state.metrics_crc32)?;
        if !training.is_finished() {
            Provenance::here(training.state.env_step).add(folder)?;
        }
        Ok((Self { _lock: lock, metrics, checkpoints: checkpoints_of(folder) }, damaged))
    }

    /// Copies a checkpoint of a run into another folder, from which an agent can then be restored as from the run; returns its
    /// step, or `None` where there is none yet.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] where the requested one does not exist, or is not whole; [`AgentError::Io`], naming the file.
    pub fn copy_checkpoint(run: &Path, which: WhichCheckpoint, into: &Path) -> Result<Option<u64>, AgentError> {
        let Some((reader, _)) = Training::find(run, which)? else { return Ok(None) };
        reader.copy(&into.join(CHECKPOINTS))?;
        Ok(Some(reader.env_step()))
    }

    /// Removes what a kill left of files and checkpoints that were being written or deleted, unless a process is working in the
    /// folder. Nothing depends on it, so what cannot be removed stays.
    pub fn tidy(folder: &Path) {
        let steps = checkpoints_of(folder).steps().unwrap_or_default();
        let is_tidy = leftovers(&folder.join(CHECKPOINTS)).is_empty()
            && half_written(folder).is_empty()
            && steps.len() <= KEPT + usize::from(best_of(folder).is_some());
        // The lock is left alone where it is not needed: another process may want it this instant.
        if !is_tidy && let Ok(_lock) = FolderLock::acquire(folder) {
            tidy_locked(folder);
        }
    }

    /// The file of the metrics.
    #[must_use]
    pub fn metrics_path(&self) -> PathBuf {
        self.metrics.path().to_owned()
    }
}

pub(crate) const CHECKPOINTS: &str = "checkpoints";

fn tidy_locked(folder: &Path) {
    for file in half_written(folder) {
        let _ = fs::remove_file(file);
    }
    checkpoints_of(folder).tidy(best_of(folder));
}

/// Files in a run's folder and that of its episodes that were being written when the process was killed.
fn half_written(folder: &Path) -> Vec<PathBuf> {
    [folder.to_owned(), folder.join("episodes")].iter().flat_map(|folder| atomic_file::leftovers(folder)).collect()
}

/// Step of the best evaluation.
fn best_of(folder: &Path) -> Option<u64> {
    Best::of_run(folder).map(|best| best.env_step)
}

pub(super) fn checkpoints_of(folder: &Path) -> Checkpoints {
    Checkpoints::in_folder(folder.join(CHECKPOINTS))
}
