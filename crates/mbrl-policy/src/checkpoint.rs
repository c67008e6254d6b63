//! Checkpoints that survive a kill at any moment.
//!
//! A checkpoint is a folder `checkpoints/<env step>/` of named files and a `manifest.json` that lists them with
//! length and CRC-32. It is written beside under a temporary name, flushed to the disk and renamed into place, so
//! that a folder with a step as its name is whole or was damaged afterwards. The newest [`KEPT`] are kept.
//!
//! | on the disk | what [`Checkpoints::newest`] does |
//! |---|---|
//! | several checkpoints | opens the newest |
//! | the newest is cut, hit by a bit error or lacks a file | opens the next older one, and hands over the error as a warning |
//! | the newest cannot be read, though it is there | refuses: it may be whole |
//! | the newest was written by another program, or by a newer format | refuses: going back would lose work |
//! | none | `None` |

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    AgentError,
    files::{io_error, sync_folder, sync_parent, write_synced},
};

/// Version of the format. A reader refuses a newer one and reads all older ones.
pub const FORMAT: u32 = 2;
/// Number of checkpoints that are kept.
pub const KEPT: usize = 2;

const PROGRAM: &str = "mbrl";
const MANIFEST: &str = "manifest.json";

/// The list of a checkpoint's files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    program: String,
    format: u32,
    env_step: u64,
    files: BTreeMap<String, FileEntry>,
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

    /// Writes a checkpoint: `fill` puts the files, then all of it appears at once, or, on an error, nothing does.
    ///
    /// # Errors
    /// What `fill` gives, or [`AgentError::Io`] naming the file. Older checkpoints are then untouched.
    pub fn write(
        &self,
        env_step: u64,
        fill: impl FnOnce(&mut CheckpointWriter) -> Result<(), AgentError>,
    ) -> Result<PathBuf, AgentError> {
        if !self.folder.is_dir() {
            fs::create_dir_all(&self.folder).map_err(io_error(&self.folder))?;
            sync_parent(&self.folder)?;
        }
        let partial = self.folder.join(format!("{env_step}.partial"));
        let written = self.write_partial(&partial, env_step, fill);
        if written.is_err() {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        written?;
        let place = self.folder.join(env_step.to_string());
        if place.exists() {
            // The same step again, after a fall back to an older checkpoint: the one in place is the damaged one.
            fs::remove_dir_all(&place).map_err(io_error(&place))?;
        }
        fs::rename(&partial, &place).map_err(io_error(&place))?;
        sync_folder(&self.folder)?;
        self.forget_old()?;
        Ok(place)
    }

    fn write_partial(
        &self,
        partial: &Path,
        env_step: u64,
        fill: impl FnOnce(&mut CheckpointWriter) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        if partial.exists() {
            // Left over by a kill.
            fs::remove_dir_all(partial).map_err(io_error(partial))?;
        }
        fs::create_dir(partial).map_err(io_error(partial))?;
        let mut writer = CheckpointWriter { folder: partial.to_owned(), files: BTreeMap::new() };
        fill(&mut writer)?;
        let manifest = Manifest { program: PROGRAM.to_owned(), format: FORMAT, env_step, files: writer.files };
        write_synced(&partial.join(MANIFEST), &to_json(&manifest)?)?;
        sync_folder(partial)
    }

    fn forget_old(&self) -> Result<(), AgentError> {
        let steps = self.steps()?;
        for step in &steps[..steps.len().saturating_sub(KEPT)] {
            let old = self.folder.join(step.to_string());
            fs::remove_dir_all(&old).map_err(io_error(&old))?;
        }
        Ok(())
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
    files: BTreeMap<String, FileEntry>,
}

impl CheckpointWriter {
    /// Stores bytes under a file name.
    ///
    /// # Errors
    /// [`AgentError::Io`] naming the file.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), AgentError> {
        debug_assert!(name != MANIFEST && !name.contains(['/', '\\']), "{name} is no free file name");
        write_synced(&self.folder.join(name), bytes)?;
        self.files.insert(name.to_owned(), FileEntry { length: bytes.len() as u64, crc32: crc32fast::hash(bytes) });
        Ok(())
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
#[derive(Debug)]
pub struct CheckpointReader {
    folder: PathBuf,
    env_step: u64,
    files: BTreeMap<String, Vec<u8>>,
}

/// Why a checkpoint was not read.
enum Refusal {
    /// Cut, hit by a bit error or without one of its files: an older one may do.
    Damaged(AgentError),
    /// Written by something else or something newer, or unreadable for now: going on from an older one would lose work.
    Final(AgentError),
}

impl Refusal {
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
        Self::read(folder).map_err(|refusal| match refusal {
            Refusal::Damaged(error) | Refusal::Final(error) => error,
        })
    }

    fn read(folder: &Path) -> Result<Self, Refusal> {
        let path = folder.join(MANIFEST);
        let manifest = Self::read_manifest(&path)?;
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
        Ok(Self { folder: folder.to_owned(), env_step: manifest.env_step, files })
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

    /// The bytes stored under a file name.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] where there is no such file.
    pub fn get(&self, name: &str) -> Result<&[u8], AgentError> {
        self.files.get(name).map(Vec::as_slice).ok_or_else(|| self.refuse(name, "not in this checkpoint".to_owned()))
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
        AgentError::Checkpoint { path: self.folder.join(name), reason }
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, AgentError> {
    serde_json::to_vec_pretty(value).map_err(|error| AgentError::Io { path: MANIFEST.into(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(checkpoints: &Checkpoints, step: u64) -> PathBuf {
        checkpoints
            .write(step, |writer| {
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
            ("\"format\": 2", "\"format\": 3, \"shards\": 3", "format 3 is newer"),
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
        let failed = checkpoints.write(2, |writer| {
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
        let place = checkpoints.write(1, |writer| writer.put("model.bin", b"123456789")).unwrap();
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
