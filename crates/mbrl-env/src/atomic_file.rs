//! Files that are whole or not there: a kill or a full disk at any moment leaves the old content or the new one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Replaces a file whole: what `write` writes goes into a temporary file in the same folder, which is renamed into place when it
/// is on the disk. A file that was there before survives a failure.
///
/// # Errors
/// Those of `write`, and what `failed` makes of those of the operating system.
pub fn write<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial: PathBuf = path.with_file_name(name);
    let written = || -> Result<(), E> {
        let mut output = BufWriter::new(File::create(&partial).map_err(&failed)?);
        write(&mut output)?;
        let place = || -> io::Result<()> {
            output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&partial, path)?;
            sync_parent(path)
        };
        place().map_err(&failed)
    };
    written().inspect_err(|_| {
        // The error of writing is the one to report, whether or not the remains can be removed.
        let _ = fs::remove_file(&partial);
    })
}

/// As [`write`](fn@write), with the content at hand.
///
/// # Errors
/// Those of the operating system.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, |error| error, |output| output.write_all(bytes))
}

/// Writes a file in its place and waits until it is on the disk: for files in a folder that is renamed when it is whole.
///
/// # Errors
/// Those of the operating system.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the entries of a folder (creations, renamings) are on the disk.
///
/// # Errors
/// Those of the operating system.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    // Windows cannot open a folder as a file; there, renaming is as safe as it gets.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Waits until a file or folder that was just made or renamed is on the disk under its name.
///
/// # Errors
/// Those of the operating system.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(parent(path))
}

/// The folder that a file or folder is in.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_no_remains() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.svg");
        write_bytes(&path, b"old").unwrap();
        let halfway = write(
            &path,
            |error| error,
            |output| {
                output.write_all(b"new")?;
                Err(io::Error::other("enough"))
            },
        );
        assert_eq!(halfway.unwrap_err().to_string(), "enough");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // A folder in the place of the temporary file: as unwritable for root as for anyone.
        fs::create_dir(folder.path().join("curve.svg.partial")).unwrap();
        assert!(write_bytes(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::remove_dir(folder.path().join("curve.svg.partial")).unwrap();
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
