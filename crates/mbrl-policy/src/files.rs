//! Writing files so that a kill or a full disk at any moment leaves the old or the new content, never half of it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use mbrl_env::atomic_file;

use crate::AgentError;

/// Names the file in an error of the operating system.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::Io { path, source }
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    atomic_file::write_synced(path, bytes).map_err(io_error(path))
}

/// Waits until the entries of a folder (creations, renamings) are on the disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), AgentError> {
    atomic_file::sync_folder(path).map_err(io_error(path))
}

/// Waits until a file or folder that was just made or renamed is on the disk under its name.
///
/// # Errors
/// [`AgentError::Io`] naming the folder that it is in.
pub fn sync_parent(path: &Path) -> Result<(), AgentError> {
    sync_folder(atomic_file::parent(path))
}

/// Replaces a file whole: a temporary file in the same folder is renamed into place when it is on the disk.
///
/// # Errors
/// [`AgentError::Io`] naming the file; what was there before is untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    // The temporary name is nothing that the caller knows: errors name the file itself.
    atomic_file::write_bytes(path, bytes).map_err(io_error(path))
}

/// A folder that this process has locked. The operating system releases it however the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks the folder by a file `lock` in it: a file of its own, because some systems do not let others read a locked one.
    ///
    /// # Errors
    /// [`AgentError::InUse`] while another process has it; [`AgentError::Io`].
    pub fn acquire(folder: &Path) -> Result<Self, AgentError> {
        let path = folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io_error(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(AgentError::InUse { path: folder.to_owned() }),
            // A file system without locks: better without than not at all.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Self { _file: file }),
            Err(TryLockError::Error(error)) => Err(io_error(&path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_error_names_the_file_and_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        // A file cannot take the place of a folder with something in it, for root no more than for anyone.
        let path = folder.path().join("curve.svg");
        fs::create_dir_all(path.join("old")).unwrap();
        match write_atomically(&path, b"new").unwrap_err() {
            AgentError::Io { path: named, .. } => assert_eq!(named, path),
            other => panic!("{other}"),
        }
        assert!(path.join("old").exists());
    }

    #[test]
    fn a_folder_is_one_workers_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::acquire(folder.path()).unwrap();
        let error = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(&error, AgentError::InUse { path } if path == folder.path()), "{error}");
        drop(lock);
        FolderLock::acquire(folder.path()).unwrap();
    }
}
