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
    try_write_synced(path, bytes).map_err(io_error(path))
}

fn try_write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the entries of a folder (creations, renamings) are on the disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), AgentError> {
    // Windows cannot open a folder as a file; there, renaming is as safe as it gets.
    if cfg!(unix) { File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error(path)) } else { Ok(()) }
}

/// Waits until a file or folder that was just made or renamed is on the disk under its name.
///
/// # Errors
/// [`AgentError::Io`] naming the folder that it is in.
pub fn sync_parent(path: &Path) -> Result<(), AgentError> {
    sync_folder(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Replaces a file whole: writes beside it, waits for the disk, renames into place.
///
/// # Errors
/// [`AgentError::Io`] naming the file; what was there before is untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial: PathBuf = path.with_file_name(name);
    // The temporary name is nothing that the caller knows: errors name the file itself.
    let result = try_write_synced(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(io_error(path))
        .and_then(|()| sync_parent(path));
    if result.is_err() {
        // The error that led here is the one to report.
        let _ = fs::remove_file(&partial);
    }
    result
}

#[cfg(test)]
mod tests {
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
