//! Writing files so that a kill or a full disk at any moment leaves the old or the new content, never half of it.

use std::{io, path::Path};

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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_error_names_the_file_and_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.svg");
        write_atomically(&path, b"old").unwrap();
        // A folder in the place of the temporary file: as unwritable for root as for anyone.
        fs::create_dir(folder.path().join("curve.svg.partial")).unwrap();
        match write_atomically(&path, b"new").unwrap_err() {
            AgentError::Io { path: named, .. } => assert_eq!(named, path),
            other => panic!("{other}"),
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
