//! Folders that appear complete, or not at all.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_env::atomic_file::parent;
use mbrl_model::ModelError;
use mbrl_policy::{AgentError, sync_parent};

/// A path without links and detours, if it exists; two equal ones are the same place.
pub(crate) fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Checks the place of a file with this extension, as far as possible before there is anything to write.
pub(crate) fn checked_out(out: &Path, extension: &str) -> Result<PathBuf> {
    if out.extension().is_none_or(|found| found != extension) {
        bail!("--out {}: expected a name that ends in .{extension}", out.display());
    }
    let parent = parent(out);
    if !parent.is_dir() {
        bail!("--out {}: no folder {}", out.display(), parent.display());
    }
    Ok(out.to_owned())
}

/// Makes a folder that is complete from the moment it exists, filled by `fill`.
///
/// Uses `place` if it is free or empty; otherwise, with `next_free`, the first free one of `place-2`, `place-3`, …
pub(crate) fn create(place: &Path, next_free: bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = parent(place);
    fs::create_dir_all(parent).with_context(|| format!("folder {}", parent.display()))?;
    let name = place
        .file_name()
        .with_context(|| format!("--out {}: expected a folder with a name", place.display()))?
        .to_string_lossy()
        .into_owned();
    remove_leftovers(parent);
    let partial = temporary(parent, &name).with_context(|| format!("folder {}", place.display()))?;
    // Held until the folder has its name, so that no other command mistakes it for a leftover.
    let at_work = lock(&partial);
    let filled = || -> Result<()> {
        // Errors name the requested place, not the temporary one.
        let asked = |path: PathBuf| path.strip_prefix(&partial).map_or(path.clone(), |inner| place.join(inner));
        let renamed = |error: anyhow::Error| match error.downcast() {
            Ok(AgentError::Io { path, source }) => AgentError::Io { path: asked(path), source }.into(),
            Ok(other) => other.into(),
            Err(error) => error,
        };
        fill(&partial).map_err(|error| match error.downcast() {
            Ok(ModelError::Io { path, source }) => ModelError::Io { path: asked(path), source }.into(),
            Ok(other) => other.into(),
            Err(error) => renamed(error),
        })
    };
    let placed = filled().and_then(|()| {
        for number in 1.. {
            let path = if number == 1 { place.to_owned() } else { parent.join(format!("{name}-{number}")) };
            // Renaming onto a folder that is not empty fails: two commands at once cannot take the same place.
            match fs::rename(&partial, &path) {
                Ok(()) => {
                    sync_parent(&path)?;
                    return Ok(path);
                }
                Err(_) if path.exists() && next_free => {}
                Err(_) if path.exists() => return Err(taken(&path)),
                Err(error) => return Err(error).with_context(|| format!("folder {}", path.display())),
            }
        }
        bail!("no free place for {}", place.display())
    });
    drop(at_work);
    if placed.is_err() {
        // The error that led here is the one to report.
        let _ = fs::remove_dir_all(&partial);
    }
    placed
}

/// A new folder with a unique name: among processes with the same id, for example in containers, the first to create it gets the name.
fn temporary(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let mut number = std::process::id();
    loop {
        let partial = parent.join(format!(".{name}.{number}.partial"));
        match fs::create_dir(&partial) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number = number.wrapping_add(1),
            made => return made.map(|()| partial),
        }
    }
}

/// Removes folders that a kill left before they had their names. Nothing depends on this, so a folder that cannot be removed stays.
fn remove_leftovers(parent: &Path) {
    // Between its creation and its lock, a folder looks like a leftover.
    const YOUNG: Duration = Duration::from_secs(2);
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial"));
        let process = inner.and_then(|inner| inner.rsplit_once('.')).map(|(_, process)| process);
        process.is_some_and(|process| process.parse::<u32>().is_ok())
    };
    let age = |path: &Path| fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
    for folder in entries.filter(is_ours).filter(|path| age(path).is_some_and(|age| age > YOUNG)) {
        if lock(&folder).is_some() {
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

/// A lock on a folder; `None` if another process has it, and on systems without locks.
fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock().is_ok().then_some(file)
}

/// Refuses a place that [`create`] could not use, before any work is done in vain.
pub(crate) fn check(place: &Path, next_free: bool) -> Result<()> {
    if !next_free {
        check_free(place)?;
    }
    place.file_name().with_context(|| format!("{}: the folder needs a name", place.display()))?;
    // It must be possible to create a folder there.
    let above = above(place);
    let probed = temporary(above, "mbrl").and_then(|probe| fs::remove_dir(&probe));
    probed.with_context(|| format!("folder {}", place.display()))
}

/// The nearest existing folder above a place.
pub(crate) fn above(place: &Path) -> &Path {
    let mut folders = place.ancestors().skip(1).map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    folders.find(|p| p.exists()).unwrap_or(Path::new("."))
}

/// Refuses a place that is already taken.
pub(crate) fn check_free(place: &Path) -> Result<()> {
    let free = match fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !place.exists(),
    };
    if free { Ok(()) } else { Err(taken(place)) }
}

/// A place that is already taken, as an error.
pub(crate) fn taken(place: &Path) -> anyhow::Error {
    let what = if place.is_dir() { "is not empty" } else { "is no folder" };
    anyhow!("{} exists and {what}; choose another --out", place.display())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn who_comes_at_the_same_time_gets_a_place_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("run");
        let fill = |partial: &Path| {
            check(&place, true)?;
            fs::write(partial.join("experiment.toml"), "")?;
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        };
        let paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| create(&place, true, fill).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let names: BTreeSet<String> = ["run", "run-2", "run-3", "run-4"].map(str::to_owned).into();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(paths.iter().map(name).collect::<BTreeSet<_>>(), names);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "nothing else is left");
    }
}
