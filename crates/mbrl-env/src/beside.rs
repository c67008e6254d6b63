//! Files that are whole or not there.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use crate::EnvError;

/// Writes a file beside its place and moves it there when it is whole, so that one that was there before survives a failure.
pub(crate) fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), EnvError>,
) -> Result<(), EnvError> {
    let failed = |source| EnvError::Io { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let written = || -> Result<(), EnvError> {
        let mut output = BufWriter::new(File::create(&beside).map_err(failed)?);
        write(&mut output)?;
        let placed = || -> io::Result<()> {
            output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&beside, path)?;
            // A renaming is on the disk when its folder is. Windows cannot open a folder as a file.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        placed().map_err(failed)
    };
    written().inspect_err(|_| {
        // The error of writing is the one to report, whether or not the remains can be removed.
        let _ = fs::remove_file(&beside);
    })
}
