//! Files that are complete or absent: a kill or a full disk at any moment leaves the old content or the new one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The suffix of files that are not complete yet.
const PARTIAL: &str = "partial";

/// Replaces a file as a whole: `write` writes into a temporary file in the same folder, which is renamed into place once it
/// is on the disk. An existing file survives a failure. Concurrent writers do not interfere: each has its own temporary file,
/// and the last one to finish wins.
///
/// # Errors
/// Those of `write`, and those of the operating system as converted by `failed`.
pub fn write<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let (file, partial) = temporary(path).map_err(&failed)?;
    let written = || -> Result<(), E> {
        let mut output = BufWriter::new(file);
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

/// A new file beside the one that it will become, under a unique name: a count distinguishes threads, the process id distinguishes
/// processes, and among processes with the same id on different machines the first to create the file gets the name.
fn temporary(path: &Path) -> io::Result<(File, PathBuf)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{}.{PARTIAL}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let partial = path.with_file_name(name);
        match File::create_new(&partial) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (file, partial)),
        }
    }
}

/// Files of a folder that a kill left incomplete: temporary ones, except those younger than a minute, which a writer may still
/// be using.
#[must_use]
pub fn leftovers(folder: &Path) -> Vec<PathBuf> {
    const YOUNG: Duration = Duration::from_secs(60);
    let is_old = |path: &PathBuf| {
        let age = fs::metadata(path).and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age > YOUNG)
    };
    let is_half = |path: &PathBuf| path.extension().is_some_and(|end| end == PARTIAL) && path.is_file();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_half).filter(is_old).collect()
}

/// As [`write`](fn@write), with the content at hand.
///
/// # Errors
/// Those of the operating system.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, |error| error, |output| output.write_all(bytes))
}

/// Writes a file in place and waits until it is on the disk: for files in a folder that is renamed once it is complete.
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
        // A file cannot take the place of a folder that is not empty, not even for root.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write_bytes(&taken, b"new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn writers_of_one_file_at_the_same_time_all_succeed_and_one_of_them_wins_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        // A file left by a killed process with this same id is skipped.
        for count in 0..64 {
            fs::write(folder.path().join(format!("table.csv.{}-{count}.partial", process::id())), "half").unwrap();
        }
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..25 {
                        write_bytes(path, &vec![writer; 20_000]).unwrap();
                    }
                });
            }
        });
        let found = fs::read(&path).unwrap();
        assert!(found.len() == 20_000 && found.iter().all(|byte| *byte == found[0]));
        let remains = || fs::read_dir(folder.path()).unwrap().count() - 1;
        assert_eq!(remains(), 64);
        assert!(leftovers(folder.path()).is_empty(), "they are young");
        let hour = Duration::from_secs(3600);
        let old = folder.path().join(format!("table.csv.{}-0.partial", process::id()));
        File::open(&old).unwrap().set_modified(std::time::SystemTime::now() - hour).unwrap();
        assert_eq!(leftovers(folder.path()), [old]);
    }
}
