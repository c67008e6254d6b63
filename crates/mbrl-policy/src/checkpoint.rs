//! Checkpoints that survive a kill at any moment.
//!
//! A checkpoint is a folder `checkpoints/<env step>/` of named files and a `manifest.json` that lists them with
//! length and CRC-32. It is first written under a temporary name, flushed to the disk and renamed into place, so
//! that a folder with a step as its name is whole or was damaged afterwards. The newest [`KEPT`] are kept, and the best one
//! where the run says which one it is. Old ones are renamed before they are deleted, for the same reason; what a kill leaves of
//! them, or of one that was being written, is removed by [`Checkpoints::tidy`].
//!
//! A replay and a model need not be written anew with each: streams that only grow, and files that are kept until they change, lie in
//! `checkpoints/shared/`, and the manifest says how much of them belongs to the checkpoint. A copy of a run's folder is whole; a copy
//! of one checkpoint is not.
//!
//! | on the disk | what [`Checkpoints::newest`] does |
//! |---|---|
//! | several checkpoints | opens the newest |
//! | the newest is cut, hit by a bit error, lacks a file or has another step's name | opens the next older one, and hands over the error as a warning |
//! | the newest cannot be read, though it is there | refuses: it may be whole |
//! | the newest was written by another program, or by a newer format | refuses: going back would lose work |
//! | none | `None` |

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, ErrorKind},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use mbrl_env::{EnvError, Replay};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    AgentError,
    files::{io_error, sync_folder, sync_parent, write_synced},
    lasting::{self, Lasting, SHARED, Streams, Unread},
};

/// Version of the format. A reader refuses a newer one and reads all older ones.
pub const FORMAT: u32 = 4;
/// Number of checkpoints that are kept.
pub const KEPT: usize = 2;

const PROGRAM: &str = "mbrl";
/// What is being written, and what is being deleted.
const PARTIAL: &str = ".partial";
const REMOVED: &str = ".removed";
pub(crate) const MANIFEST: &str = "manifest.json";

/// The list of a checkpoint's files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    program: String,
    format: u32,
    env_step: u64,
    files: BTreeMap<String, FileEntry>,
    /// Checkpoints before format 4 have none.
    #[serde(default)]
    shared: Lasting,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    length: u64,
    crc32: u32,
}

/// The folder that holds a run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// The newest whole checkpoint, and why newer ones were passed over.
#[derive(Debug)]
pub struct Newest {
    /// The checkpoint.
    pub reader: CheckpointReader,
    /// What is wrong with the damaged ones that are newer.
    pub damaged: Vec<AgentError>,
}

impl Checkpoints {
    /// The checkpoints in a folder, which need not exist yet.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Steps of the checkpoints on the disk, ascending.
    ///
    /// # Errors
    /// [`AgentError::Io`] where the folder cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>, AgentError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io_error(&self.folder))?,
        };
        let mut steps = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error(&self.folder))?;
            steps.extend(entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Writes a checkpoint: `fill` puts the files, then all of it appears at once, or, on an error, nothing does. Older ones but
    /// the newest [`KEPT`] and that of step `best` are deleted then, with what of the shared files no other names.
    ///
    /// `after` is the step of the checkpoint that the run continues from, whose shared files are extended.
    ///
    /// The folder that holds the checkpoints' folder must be there: a run's folder that was renamed or removed meanwhile is an
    /// error, and is not created again.
    ///
    /// # Errors
    /// Errors of `fill`, or [`AgentError::Io`] naming the file. Older checkpoints are then untouched.
    pub fn write(
        &self,
        env_step: u64,
        best: Option<u64>,
        after: Option<u64>,
        fill: impl FnOnce(&mut CheckpointWriter) -> Result<(), AgentError>,
    ) -> Result<PathBuf, AgentError> {
        if !self.folder.is_dir() {
            fs::create_dir(&self.folder).map_err(io_error(&self.folder))?;
            sync_parent(&self.folder)?;
        }
        // What cannot be read is not extended.
        let before = after.and_then(|step| self.manifest(step)).map_or_else(Lasting::default, |found| found.shared);
        let partial = self.folder.join(format!("{env_step}{PARTIAL}"));
        let written = self.write_partial(&partial, env_step, before, fill);
        if written.is_err() {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        written?;
        let place = self.folder.join(env_step.to_string());
        if place.exists() {
            // The same step again, after a fall back to an older checkpoint: the one in place is the damaged one.
            self.remove(env_step)?;
        }
        fs::rename(&partial, &place).map_err(io_error(&place))?;
        sync_folder(&self.folder)?;
        for old in self.old(env_step, best)? {
            self.remove(old)?;
        }
        self.collect_garbage();
        Ok(place)
    }

    fn manifest(&self, step: u64) -> Option<Manifest> {
        CheckpointReader::read_manifest(&self.folder.join(step.to_string()).join(MANIFEST)).ok()
    }

    /// Deletes shared files that no checkpoint on the disk names, unless there is one that cannot be asked.
    fn collect_garbage(&self) {
        let Ok(steps) = self.steps() else { return };
        let mut named = BTreeSet::new();
        for step in steps {
            let Some(manifest) = self.manifest(step) else { return };
            named.extend(manifest.shared.files().map(str::to_owned));
        }
        lasting::collect_garbage(&self.folder.join(SHARED), &named);
    }

    fn write_partial(
        &self,
        partial: &Path,
        env_step: u64,
        before: Lasting,
        fill: impl FnOnce(&mut CheckpointWriter) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        if partial.exists() {
            // Left over by a kill.
            fs::remove_dir_all(partial).map_err(io_error(partial))?;
        }
        fs::create_dir(partial).map_err(io_error(partial))?;
        let mut writer = CheckpointWriter {
            folder: partial.to_owned(),
            shared_folder: self.folder.join(SHARED),
            scope: String::new(),
            env_step,
            files: BTreeMap::new(),
            before,
            shared: Lasting::default(),
        };
        fill(&mut writer)?;
        let CheckpointWriter { files, shared, .. } = writer;
        let manifest = Manifest { program: PROGRAM.to_owned(), format: FORMAT, env_step, files, shared };
        write_synced(&partial.join(MANIFEST), &to_json(&manifest)?)?;
        sync_folder(partial)
    }

    /// Steps of the checkpoints that are no longer needed when that of step `newest` is there. A folder of a later step is
    /// not part of this run's past but, for example, a copy of a checkpoint: it is left alone, and does not count.
    fn old(&self, newest: u64, best: Option<u64>) -> Result<Vec<u64>, AgentError> {
        let mut steps = self.steps()?;
        steps.retain(|step| *step <= newest);
        steps.truncate(steps.len().saturating_sub(KEPT));
        steps.retain(|step| Some(*step) != best);
        Ok(steps)
    }

    /// Deletes a checkpoint, under another name: a kill leaves no half of it that could be taken for one.
    fn remove(&self, step: u64) -> Result<(), AgentError> {
        let (place, removed) = (self.folder.join(step.to_string()), self.folder.join(format!("{step}{REMOVED}")));
        if removed.exists() {
            // Left over by a kill.
            fs::remove_dir_all(&removed).map_err(io_error(&removed))?;
        }
        fs::rename(&place, &removed).map_err(io_error(&place))?;
        fs::remove_dir_all(&removed).map_err(io_error(&removed))
    }

    /// Removes what a kill left of checkpoints that were being written or deleted, and old ones that were to be deleted: all but
    /// the newest [`KEPT`] and that of step `best`, unless one of the newest is damaged. No process may be writing here. Nothing
    /// depends on it, so what cannot be removed stays.
    pub fn tidy(&self, best: Option<u64>) {
        for folder in leftovers(&self.folder) {
            let _ = fs::remove_dir_all(folder);
        }
        let steps = self.steps().unwrap_or_default();
        let looks_whole = |step: &u64| looks_whole(&self.folder.join(step.to_string()));
        let Some(newest) = steps.last().copied().filter(|_| steps.iter().rev().take(KEPT).all(looks_whole)) else {
            return;
        };
        for old in self.old(newest, best).unwrap_or_default() {
            let _ = self.remove(old);
        }
        self.collect_garbage();
    }

    /// The newest whole checkpoint; `None` where there is none at all.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`], naming the file, for one that is foreign or newer than this program, and where all
    /// are damaged; [`AgentError::Io`] for one that is there and cannot be read.
    pub fn newest(&self) -> Result<Option<Newest>, AgentError> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match CheckpointReader::read(&self.folder.join(step.to_string())) {
                Ok(reader) => return Ok(Some(Newest { reader, damaged })),
                Err(Refusal::Damaged(error)) => damaged.push(error),
                Err(Refusal::Final(error)) => return Err(error),
            }
        }
        match damaged.into_iter().next() {
            None => Ok(None),
            Some(newest) => Err(newest),
        }
    }
}

/// Takes in the files of a checkpoint that is being written.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: PathBuf,
    shared_folder: PathBuf,
    /// The prefix of names.
    scope: String,
    env_step: u64,
    files: BTreeMap<String, FileEntry>,
    /// Shared files as the checkpoint before has them.
    before: Lasting,
    shared: Lasting,
}

impl CheckpointWriter {
    /// Stores bytes under a file name.
    ///
    /// # Errors
    /// [`AgentError::Io`] naming the file.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), AgentError> {
        let name = self.scoped(name)?;
        write_synced(&self.folder.join(&name), bytes)?;
        self.files.insert(name, FileEntry { length: bytes.len() as u64, crc32: crc32fast::hash(bytes) });
        Ok(())
    }

    /// A writer that prefixes names with a scope, `critic.model.bin` for `model.bin`: for parts of a learner that know
    /// nothing of each other.
    ///
    /// # Errors
    /// Errors of `fill`.
    pub fn scope(
        &mut self,
        scope: &str,
        fill: impl FnOnce(&mut Self) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        let outer = self.scope.clone();
        self.scope = format!("{outer}{scope}.");
        let filled = fill(self);
        self.scope = outer;
        filled
    }

    /// Stores bytes that seldom change, such as a model: they are written where they differ from those of the checkpoint
    /// before, and named again where they do not.
    ///
    /// # Errors
    /// [`AgentError::Io`] naming the file.
    pub fn put_lasting(&mut self, name: &str, bytes: &[u8]) -> Result<(), AgentError> {
        let name = self.scoped(name)?;
        self.make_shared_folder()?;
        let Self { shared, shared_folder, before, env_step, .. } = self;
        shared.put(shared_folder, before, &name, bytes, *env_step)
    }

    /// Stores a replay: the transitions that the previous checkpoint does not have are appended to a stream.
    ///
    /// # Errors
    /// [`AgentError::Io`] naming the file.
    pub fn put_replay(&mut self, name: &str, replay: &Replay) -> Result<(), AgentError> {
        self.put_json(&format!("{name}.json"), &replay.index())?;
        let name = self.scoped(name)?;
        self.make_shared_folder()?;
        let range = replay.pushed() - replay.len() as u64..replay.pushed();
        let Self { shared, shared_folder, before, env_step, .. } = self;
        let fields = replay.record_fields();
        shared.append(shared_folder, before, &name, fields, range, *env_step, |from| replay.records(from))
    }

    fn make_shared_folder(&self) -> Result<(), AgentError> {
        if !self.shared_folder.is_dir() {
            fs::create_dir(&self.shared_folder).map_err(io_error(&self.shared_folder))?;
            sync_parent(&self.shared_folder)?;
        }
        Ok(())
    }

    /// A name in its scope, not taken so far.
    fn scoped(&self, name: &str) -> Result<String, AgentError> {
        let scoped = format!("{}{name}", self.scope);
        let taken = self.files.contains_key(&scoped) || self.shared.names().any(|name| name == scoped);
        if scoped == MANIFEST || !is_file_name(&scoped) || taken {
            let (path, reason) = (self.folder.join(&scoped), format!("{scoped:?} is no free file name"));
            return Err(AgentError::Checkpoint { path, reason });
        }
        Ok(scoped)
    }

    /// Stores a value as JSON. Floating-point numbers may come back off by one unit in the last place: numbers that
    /// must survive bit for bit go into [`put`](Self::put), or are stored as integers.
    ///
    /// # Errors
    /// [`AgentError::Io`] naming the file.
    pub fn put_json<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), AgentError> {
        let bytes = to_json(value)?;
        self.put(name, &bytes)
    }
}

/// A checkpoint, read whole and verified.
#[derive(Debug, Clone)]
pub struct CheckpointReader {
    folder: PathBuf,
    env_step: u64,
    /// The prefix of names.
    scope: String,
    files: Arc<BTreeMap<String, Vec<u8>>>,
    streams: Arc<Streams>,
}

/// Why a checkpoint was not read.
enum Refusal {
    /// Cut, hit by a bit error or without one of its files: an older one may do.
    Damaged(AgentError),
    /// Written by something else or something newer, or unreadable for now: continuing from an older one would lose work.
    Final(AgentError),
}

impl Refusal {
    fn into_error(self) -> AgentError {
        match self {
            Self::Damaged(error) | Self::Final(error) => error,
        }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            ErrorKind::NotFound => Self::Damaged(io_error(path)(source)),
            _ => Self::Final(io_error(path)(source)),
        }
    }
}

impl CheckpointReader {
    /// Reads and verifies the checkpoint in a folder.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for one that is truncated, foreign or newer than this program, [`AgentError::Io`] for
    /// one that cannot be read, naming the file.
    pub fn open(folder: &Path) -> Result<Self, AgentError> {
        Self::read(folder).map_err(Refusal::into_error)
    }

    /// Copies it, with what it shares with others, into a folder of checkpoints that is made for it, and reads the copy.
    ///
    /// # Errors
    /// [`AgentError::Io`] naming the file; [`AgentError::Checkpoint`] where the copy is not whole.
    pub fn copy(&self, into: &Path) -> Result<(), AgentError> {
        let manifest = Self::read_manifest(&self.folder.join(MANIFEST)).map_err(Refusal::into_error)?;
        let to = into.join(self.env_step.to_string());
        let (shared, shared_there) = (self.folder.parent().unwrap_or(Path::new("")).join(SHARED), into.join(SHARED));
        for folder in [&to, &shared_there] {
            fs::create_dir_all(folder).map_err(io_error(folder))?;
        }
        let own = manifest.files.keys().map(String::as_str).chain([MANIFEST]);
        let own = own.map(|name| (self.folder.join(name), to.join(name)));
        let others = manifest.shared.files().map(|name| (shared.join(name), shared_there.join(name)));
        for (from, to) in own.chain(others) {
            fs::copy(&from, &to).map_err(io_error(&from))?;
        }
        Self::open(&to).map(drop)
    }

    fn read(folder: &Path) -> Result<Self, Refusal> {
        let path = folder.join(MANIFEST);
        let manifest = Self::read_manifest(&path)?;
        let damaged = |reason| Err(Refusal::Damaged(AgentError::Checkpoint { path: path.clone(), reason }));
        // A folder is found by its name: a copy under another one must not be taken for another step.
        let named = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
        if let Some(named) = named.filter(|named| *named != manifest.env_step) {
            let step = manifest.env_step;
            return damaged(format!("the folder is called {named}, and holds the checkpoint of step {step}"));
        }
        let names = manifest.files.keys().map(String::as_str).chain(manifest.shared.files());
        if let Some(name) = names.into_iter().find(|name| !is_file_name(name)) {
            return damaged(format!("the file name {name:?} leads out of the folder"));
        }
        let mut files = BTreeMap::new();
        for (name, entry) in manifest.files {
            let path = folder.join(&name);
            let bytes = fs::read(&path).map_err(Refusal::io(&path))?;
            let found = FileEntry { length: bytes.len() as u64, crc32: crc32fast::hash(&bytes) };
            if found != entry {
                let reason = format!(
                    "expected {} bytes with checksum {:08x}, found {} bytes with checksum {:08x}",
                    entry.length, entry.crc32, found.length, found.crc32
                );
                return Err(Refusal::Damaged(AgentError::Checkpoint { path, reason }));
            }
            files.insert(name, bytes);
        }
        let shared = folder.parent().unwrap_or(Path::new("")).join(SHARED);
        let loaded = manifest.shared.read(&shared).map_err(|unread| match unread {
            Unread::Io(path, error) => Refusal::io(&path)(error),
            Unread::Damaged(path, reason) => Refusal::Damaged(AgentError::Checkpoint { path, reason }),
        })?;
        files.extend(loaded.files);
        Ok(Self {
            folder: folder.to_owned(),
            env_step: manifest.env_step,
            scope: String::new(),
            files: Arc::new(files),
            streams: Arc::new(loaded.streams),
        })
    }

    fn read_manifest(path: &Path) -> Result<Manifest, Refusal> {
        let refuse = |reason: String| AgentError::Checkpoint { path: path.to_owned(), reason };
        let damaged = |error: serde_json::Error| Refusal::Damaged(refuse(format!("not a whole manifest: {error}")));
        let text = fs::read(path).map_err(Refusal::io(path))?;
        // The version first: a newer format may hold anything else.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        match value.get("program").and_then(serde_json::Value::as_str) {
            Some(PROGRAM) => {}
            other => {
                let found = other.map_or("nothing".to_owned(), |p| format!("`{p}`"));
                return Err(Refusal::Final(refuse(format!("expected a checkpoint of `{PROGRAM}`, found {found}"))));
            }
        }
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format <= u64::from(FORMAT) => {}
            Some(format) => {
                let reason = format!("format {format} is newer than this program, which reads up to {FORMAT}");
                return Err(Refusal::Final(refuse(reason)));
            }
            None => return Err(Refusal::Damaged(refuse("no format version".to_owned()))),
        }
        serde_json::from_value(value).map_err(damaged)
    }

    /// The folder it was read from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Real environment steps at which it was written.
    #[must_use]
    pub fn env_step(&self) -> u64 {
        self.env_step
    }

    /// A reader that prefixes names with a scope, as [`CheckpointWriter::scope`] wrote them.
    #[must_use]
    pub fn scope(&self, scope: &str) -> Self {
        Self { scope: format!("{}{scope}.", self.scope), ..self.clone() }
    }

    /// The bytes stored under a file name.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] where there is no such file.
    pub fn get(&self, name: &str) -> Result<&[u8], AgentError> {
        let found = self.files.get(&format!("{}{name}", self.scope));
        found.map(Vec::as_slice).ok_or_else(|| self.refuse(name, "not in this checkpoint".to_owned()))
    }

    /// The replay stored under a name; checkpoints before format 4 have it as a file `name.bin`.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] where there is none, or something else.
    pub fn get_replay(&self, name: &str) -> Result<Replay, AgentError> {
        let refuse = |error: EnvError| self.refuse(name, error.to_string());
        let Some((fields, records)) = self.streams.get(&format!("{}{name}", self.scope)) else {
            return Replay::load(&mut self.get(&format!("{name}.bin"))?).map_err(refuse);
        };
        let replay = Replay::of_records(&self.get_json(&format!("{name}.json"))?, records).map_err(refuse)?;
        if replay.record_fields() != *fields {
            return Err(self.refuse(name, format!("records of {fields:?}, expected {:?}", replay.record_fields())));
        }
        Ok(replay)
    }

    /// A value stored as JSON.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] where there is no such file or it holds something else.
    pub fn get_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, AgentError> {
        serde_json::from_slice(self.get(name)?).map_err(|error| self.refuse(name, error.to_string()))
    }

    /// An error that names one of this checkpoint's files.
    #[must_use]
    pub fn refuse(&self, name: &str, reason: String) -> AgentError {
        AgentError::Checkpoint { path: self.folder.join(format!("{}{name}", self.scope)), reason }
    }
}

/// Whether a name is that of a file in a folder, and not a way out of it.
fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.contains(['/', '\\']) && matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

/// What a kill left of checkpoints that were being written or deleted.
pub(crate) fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_left = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let step = [PARTIAL, REMOVED].iter().find_map(|end| name.strip_suffix(end));
        step.is_some_and(|step| step.parse::<u64>().is_ok())
    };
    entries.map(|entry| entry.path()).filter(is_left).collect()
}

/// Whether all files are there in their lengths; a bit error does not show.
fn looks_whole(folder: &Path) -> bool {
    let Ok(manifest) = CheckpointReader::read_manifest(&folder.join(MANIFEST)) else { return false };
    let there = |(name, entry): (&String, &FileEntry)| {
        fs::metadata(folder.join(name)).is_ok_and(|found| found.len() == entry.length)
    };
    let shared = folder.parent().unwrap_or(Path::new("")).join(SHARED);
    let there = manifest.files.iter().all(there) && manifest.shared.looks_whole(&shared);
    folder.ends_with(manifest.env_step.to_string()) && there
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, AgentError> {
    serde_json::to_vec_pretty(value).map_err(|error| AgentError::Io { path: MANIFEST.into(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(checkpoints: &Checkpoints, step: u64) -> PathBuf {
        checkpoints
            .write(step, None, None, |writer| {
                writer.put("model.bin", &step.to_le_bytes())?;
                writer.put_json("numbers.json", &[step, u64::MAX])
            })
            .unwrap()
    }

    fn opened_step(checkpoints: &Checkpoints) -> u64 {
        checkpoints.newest().unwrap().unwrap().reader.env_step()
    }

    #[test]
    fn reads_back_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path().join("checkpoints"));
        assert!(checkpoints.newest().unwrap().is_none());
        let place = write(&checkpoints, 7);
        let reader = CheckpointReader::open(&place).unwrap();
        assert_eq!(reader.get("model.bin").unwrap(), 7u64.to_le_bytes());
        assert_eq!(reader.get_json::<[u64; 2]>("numbers.json").unwrap(), [7, u64::MAX]);
        let missing = reader.get("replay.bin").unwrap_err().to_string();
        assert!(missing.contains("replay.bin"), "{missing}");
    }

    #[test]
    fn keeps_the_two_newest() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        for step in [5, 90, 100] {
            write(&checkpoints, step);
        }
        assert_eq!(checkpoints.steps().unwrap(), [90, 100], "ordered as numbers, not as words");
        assert_eq!(opened_step(&checkpoints), 100);
    }

    #[test]
    fn a_file_cut_at_any_byte_is_noticed_and_the_older_checkpoint_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        write(&checkpoints, 1);
        let newest = write(&checkpoints, 2);
        for name in [MANIFEST, "model.bin", "numbers.json"] {
            let path = newest.join(name);
            let whole = fs::read(&path).unwrap();
            for length in 0..whole.len() {
                fs::write(&path, &whole[..length]).unwrap();
                let error = CheckpointReader::open(&newest).unwrap_err().to_string();
                assert!(error.contains(name), "{name} cut to {length} bytes: {error}");
                let found = checkpoints.newest().unwrap().unwrap();
                assert_eq!((found.reader.env_step(), found.damaged.len()), (1, 1));
            }
            fs::write(&path, whole).unwrap();
        }
        assert_eq!(opened_step(&checkpoints), 2);
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let place = write(&Checkpoints::in_folder(folder.path()), 3);
        let mut bytes = fs::read(place.join("model.bin")).unwrap();
        bytes[2] ^= 16;
        fs::write(place.join("model.bin"), bytes).unwrap();
        let error = CheckpointReader::open(&place).unwrap_err().to_string();
        assert!(error.contains("model.bin") && error.contains("checksum"), "{error}");
    }

    #[test]
    fn foreign_and_newer_checkpoints_are_refused_even_where_an_older_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        write(&checkpoints, 1);
        let manifest = write(&checkpoints, 2).join(MANIFEST);
        let text = fs::read_to_string(&manifest).unwrap();
        for (from, to, offending) in [
            ("\"mbrl\"", "\"other\"", "`other`"),
            ("\"format\": 4", "\"format\": 5, \"shards\": 3", "format 5 is newer"),
        ] {
            assert!(text.contains(from));
            fs::write(&manifest, text.replace(from, to)).unwrap();
            let error = checkpoints.newest().unwrap_err().to_string();
            assert!(error.contains(offending) && error.contains(MANIFEST), "{error}");
        }
    }

    #[test]
    fn an_error_while_writing_leaves_the_older_one_and_no_rubbish() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        write(&checkpoints, 1);
        let failed = checkpoints.write(2, None, None, |writer| {
            writer.put("model.bin", b"half")?;
            Err(AgentError::Io { path: "replay.bin".into(), source: std::io::ErrorKind::StorageFull.into() })
        });
        assert!(failed.unwrap_err().to_string().contains("replay.bin"));
        assert_eq!(opened_step(&checkpoints), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_kill_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        fs::create_dir(folder.path().join("2.partial")).unwrap();
        fs::write(folder.path().join("2.partial/model.bin"), b"half").unwrap();
        assert!(checkpoints.newest().unwrap().is_none());
        write(&checkpoints, 2);
        assert_eq!(opened_step(&checkpoints), 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_checkpoint_goes_by_the_step_that_it_holds_and_not_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        write(&checkpoints, 1);
        let place = write(&checkpoints, 2);
        let copy = folder.path().join("99999");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&place).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let found = checkpoints.newest().unwrap().unwrap();
        assert_eq!(found.reader.env_step(), 2);
        let told = found.damaged[0].to_string();
        assert!(told.contains("called 99999") && told.contains("step 2"), "{told}");
        // It does not push good ones out.
        write(&checkpoints, 3);
        assert_eq!(checkpoints.steps().unwrap(), [2, 3, 99999]);
        checkpoints.tidy(None);
        assert_eq!(checkpoints.steps().unwrap(), [2, 3, 99999]);
    }

    #[test]
    fn files_lie_in_the_folder_itself() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path().join("checkpoints"));
        let manifest = write(&checkpoints, 2).join(MANIFEST);
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(folder.path().join("outside.bin"), 2_u64.to_le_bytes()).unwrap();
        let outside = folder.path().join("outside.bin");
        for name in ["../../outside.bin", outside.to_str().unwrap(), "..", "a\\\\b"] {
            fs::write(&manifest, text.replace("\"model.bin\"", &format!("\"{name}\""))).unwrap();
            let error = checkpoints.newest().unwrap_err().to_string();
            assert!(error.contains("leads out of the folder"), "{name}: {error}");
        }
        for name in ["../outside.bin", "", MANIFEST] {
            assert!(checkpoints.write(3, None, None, |into| into.put(name, b"")).is_err(), "{name}");
        }
    }

    #[test]
    fn the_best_one_is_kept_besides() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        for step in [10, 20, 30, 40] {
            checkpoints.write(step, Some(10), None, |writer| writer.put("model.bin", b"")).unwrap();
        }
        assert_eq!(checkpoints.steps().unwrap(), [10, 30, 40]);
        checkpoints.write(50, Some(50), None, |writer| writer.put("model.bin", b"")).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [40, 50]);
    }

    #[test]
    fn what_a_kill_leaves_is_tidied_up() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let make = |step: u64| write(&Checkpoints::in_folder(folder.path().join("other")), step);
        fs::create_dir(folder.path().join("other")).unwrap();
        // Old ones: whole, half deleted by an earlier version, and the best one.
        for step in [5, 7, 9] {
            fs::rename(make(step), folder.path().join(step.to_string())).unwrap();
        }
        fs::remove_dir_all(folder.path().join("other")).unwrap();
        fs::remove_file(folder.path().join("7/manifest.json")).unwrap();
        for left in ["30.partial", "3.removed"] {
            fs::create_dir(folder.path().join(left)).unwrap();
            fs::write(folder.path().join(left).join("model.bin"), b"half").unwrap();
        }
        fs::write(folder.path().join("notes.partial"), "the user's").unwrap();
        for step in [10, 20] {
            let place = folder.path().join(step.to_string());
            fs::create_dir(&place).unwrap();
            let files = BTreeMap::new();
            let manifest =
                Manifest { program: PROGRAM.into(), format: FORMAT, env_step: step, files, shared: Lasting::default() };
            fs::write(place.join(MANIFEST), to_json(&manifest).unwrap()).unwrap();
        }
        let names = || {
            let mut names: Vec<String> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        // One of the newest is damaged: the old ones may be needed.
        fs::rename(folder.path().join("20/manifest.json"), folder.path().join("20/kept")).unwrap();
        checkpoints.tidy(Some(9));
        assert_eq!(names(), ["10", "20", "5", "7", "9", "notes.partial"]);
        fs::rename(folder.path().join("20/kept"), folder.path().join("20/manifest.json")).unwrap();
        checkpoints.tidy(Some(9));
        assert_eq!(names(), ["10", "20", "9", "notes.partial"]);
    }

    #[test]
    fn a_folder_that_is_gone_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        let checkpoints = Checkpoints::in_folder(run.join("checkpoints"));
        write(&checkpoints, 1);
        fs::rename(&run, folder.path().join("renamed")).unwrap();
        let error = checkpoints.write(2, None, None, |writer| writer.put("model.bin", b"")).unwrap_err();
        assert!(matches!(error, AgentError::Io { .. }) && !run.exists(), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        write(&checkpoints, 1);
        let newest = write(&checkpoints, 2);
        for name in ["model.bin", MANIFEST] {
            // A folder in place of the file: as unreadable for root as for anyone.
            fs::rename(newest.join(name), newest.join("kept")).unwrap();
            fs::create_dir(newest.join(name)).unwrap();
            match checkpoints.newest().unwrap_err() {
                AgentError::Io { path, .. } => assert_eq!(path, newest.join(name)),
                other => panic!("{other}"),
            }
            fs::remove_dir(newest.join(name)).unwrap();
            // A missing one is damage.
            assert_eq!(opened_step(&checkpoints), 1);
            fs::rename(newest.join("kept"), newest.join(name)).unwrap();
        }
        assert_eq!(opened_step(&checkpoints), 2);
    }

    #[test]
    fn checksums_are_the_standard_crc_32() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let place = checkpoints.write(1, None, None, |writer| writer.put("model.bin", b"123456789")).unwrap();
        let manifest = fs::read_to_string(place.join(MANIFEST)).unwrap();
        // CRC-32/ISO-HDLC in Williams's and Cook's catalogues: check = 0xcbf43926.
        assert!(manifest.contains(&format!("\"crc32\": {}", 0xCBF4_3926_u32)), "{manifest}");
    }

    #[test]
    fn damaged_checkpoints_alone_are_an_error_not_a_fresh_start() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let place = write(&checkpoints, 4);
        fs::remove_file(place.join("model.bin")).unwrap();
        let error = checkpoints.newest().unwrap_err().to_string();
        assert!(error.contains("model.bin"), "{error}");
    }
}
