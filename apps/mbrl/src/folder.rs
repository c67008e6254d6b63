//! Folders that appear whole, or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_model::ModelError;
use mbrl_policy::{AgentError, sync_parent};

/// Where a file of that extension shall go, as far as can be said before there is anything to write.
pub(crate) fn checked_out(out: &Path, extension: &str) -> Result<PathBuf> {
    if out.extension().is_none_or(|found| found != extension) {
        bail!("--out {}: expected a name that ends in .{extension}", out.display());
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        bail!("--out {}: no folder {}", out.display(), parent.display());
    }
    Ok(out.to_owned())
}

/// Makes a folder that holds what `fill` writes from the moment at which it exists.
///
/// `place` is taken where it is free or empty; otherwise, with `next_free`, the first free one of `place-2`, `place-3`, …
pub(crate) fn create(place: &Path, next_free: bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("folder {}", parent.display()))?;
    let name = place.file_name().context("the folder needs a name")?.to_string_lossy().into_owned();
    let partial = parent.join(format!(".{name}.{}.partial", std::process::id()));
    let filled = || -> Result<()> {
        fs::create_dir_all(&partial).with_context(|| format!("folder {}", place.display()))?;
        // Errors name the place that was asked for, not the temporary one.
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
            // Renaming onto a folder with something in it fails: two commands at once cannot take the same place.
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
    if placed.is_err() {
        // The error that led here is the one to report.
        let _ = fs::remove_dir_all(&partial);
    }
    placed
}

/// Refuses a place that [`create`] could not take, so that nobody works for it in vain.
pub(crate) fn check(place: &Path, next_free: bool) -> Result<()> {
    if !next_free {
        check_free(place)?;
    }
    place.file_name().with_context(|| format!("{}: the folder needs a name", place.display()))?;
    // The nearest folder above that exists must take another one.
    let mut folders = place.ancestors().skip(1).map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    let above = folders.find(|p| p.exists()).unwrap_or(Path::new("."));
    let probe = above.join(format!(".mbrl.{}.partial", std::process::id()));
    let probed = fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe));
    probed.with_context(|| format!("folder {}", place.display()))
}

/// Refuses a place where something is already.
pub(crate) fn check_free(place: &Path) -> Result<()> {
    let free = match fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !place.exists(),
    };
    if free { Ok(()) } else { Err(taken(place)) }
}

fn taken(place: &Path) -> anyhow::Error {
    let what = if place.is_dir() { "is not empty" } else { "is no folder" };
    anyhow!("{} exists and {what}; choose another --out", place.display())
}
