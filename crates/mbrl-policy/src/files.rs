//! Writing files so that a kill or a full disk at any moment leaves the old or the new content, never half of it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::AgentError;

/// Names the file in an error of the operating system.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::Io { path, source }
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

/// Waits until the entries of a folder (creations, renamings) are on the disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), AgentError> {
    // Windows cannot open a folder as a file; there, renaming is as safe as it gets.
    if cfg!(unix) { File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error(path)) } else { Ok(()) }
}

/// Replaces a file whole: writes beside it, waits for the disk, renames into place.
///
/// # Errors
/// [`AgentError::Io`] naming the file; what was there before is untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial: PathBuf = path.with_file_name(name);
    let result = write_synced(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path).map_err(io_error(path)))
        .and_then(|()| sync_folder(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))));
    if result.is_err() {
        // The error that led here is the one to report.
        let _ = fs::remove_file(&partial);
    }
    result
}
