//! What checkpoints share: files that outlast the checkpoint that they were written with.
//!
//! A replay grows by an episode while a checkpoint is written after each, and a model stays as it is until the next fit. If they were
//! written into every checkpoint, the bytes that a run writes would grow with the square of its length. They therefore lie beside
//! the checkpoints, in `checkpoints/shared/`, and each checkpoint's manifest says which part of them is its own:
//!
//! - a **stream** of records of one size, in segments that are only appended to. A checkpoint has a number of first records of each
//!   of its segments, with their CRC-32. Segments end at some size, so that those whose records are all forgotten can be deleted;
//! - a **lasting file**, which is written once and named again by each checkpoint until it changes.
//!
//! What no checkpoint on the disk names is deleted after the next one was written. A segment that is longer than a checkpoint says
//! was appended to by a newer one, or by one that a kill left unfinished: the excess is cut off when more is appended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use crc32fast::Hasher;
use mbrl_env::RecordField;
use serde::{Deserialize, Serialize};

use crate::{
    AgentError,
    files::{io_error, sync_folder, write_synced},
};

/// Folder beside the checkpoints.
pub(crate) const SHARED: &str = "shared";
/// When a segment has grown to this many bytes, a new one follows.
const SEGMENT: u64 = if cfg!(test) { 300 } else { 64 << 20 };

/// What a manifest says of its streams and lasting files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lasting {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    streams: BTreeMap<String, Stream>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    lasting: BTreeMap<String, Whole>,
}

/// A stream as one checkpoint has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    /// What a record is made of.
    fields: Vec<RecordField>,
    /// Number of the first record that counts.
    from: u64,
    /// In the order of their records.
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Segment {
    file: String,
    /// Number of its first record.
    first: u64,
    records: u64,
    /// Of these records.
    crc32: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    file: String,
    length: u64,
    crc32: u32,
}

impl Segment {
    fn end(&self) -> u64 {
        self.first + self.records
    }
}

impl Lasting {
    /// The names of all files in it.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let segments = self.streams.values().flat_map(|stream| &stream.segments).map(|segment| segment.file.as_str());
        segments.chain(self.lasting.values().map(|whole| whole.file.as_str()))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().chain(self.lasting.keys()).map(String::as_str)
    }

    /// Whether every file is there and long enough.
    pub(crate) fn looks_whole(&self, folder: &Path) -> bool {
        let long = |file: &str, bytes: u64| fs::metadata(folder.join(file)).is_ok_and(|found| found.len() >= bytes);
        let streams = self.streams.values().all(|stream| {
            let size = record_size(&stream.fields);
            stream.segments.iter().all(|segment| long(&segment.file, segment.records * size))
        });
        streams && self.lasting.values().all(|whole| long(&whole.file, whole.length))
    }

    /// Appends records to a stream; `fresh` gives those from a number on. `range` are those that this checkpoint needs. Starts
    /// anew where the stream is of other fields, or has come further.
    #[expect(clippy::too_many_arguments, reason = "what a stream is, and where it lies")]
    pub(crate) fn append(
        &mut self,
        folder: &Path,
        before: &Self,
        name: &str,
        fields: Vec<RecordField>,
        range: Range<u64>,
        env_step: u64,
        fresh: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<(), AgentError> {
        let size = record_size(&fields);
        let known = before.streams.get(name).filter(|stream| stream.fields == fields);
        let mut segments = known.map_or(Vec::new(), |stream| stream.segments.clone());
        segments.retain(|segment| segment.end() > range.start);
        let reaches = segments.last().map_or(range.start, Segment::end);
        let begins = segments.first().map_or(range.start, |segment| segment.first);
        if begins > range.start || reaches > range.end {
            segments.clear();
        }
        let from = segments.last().map_or(range.start, Segment::end);
        if from < range.end {
            let bytes = fresh(from);
            if bytes.len() as u64 != (range.end - from) * size {
                let reason = format!("{} bytes for {} records of {size}", bytes.len(), range.end - from);
                return Err(AgentError::Checkpoint { path: folder.join(name), reason });
            }
            if segments.last().is_none_or(|segment| segment.records * size >= SEGMENT) {
                segments.push(Segment { file: format!("{name}-{env_step}.bin"), first: from, records: 0, crc32: 0 });
            }
            // There is one: it was pushed, or the last one has room.
            if let Some(segment) = segments.last_mut() {
                append_synced(&folder.join(&segment.file), segment.records * size, &bytes)?;
                let mut crc = Hasher::new_with_initial_len(segment.crc32, segment.records * size);
                crc.update(&bytes);
                (segment.crc32, segment.records) = (crc.finalize(), range.end - segment.first);
            }
        }
        self.streams.insert(name.to_owned(), Stream { fields, from: range.start, segments });
        Ok(())
    }

    /// Stores a file that stays until it changes.
    pub(crate) fn put(
        &mut self,
        folder: &Path,
        before: &Self,
        name: &str,
        bytes: &[u8],
        env_step: u64,
    ) -> Result<(), AgentError> {
        let (length, crc32) = (bytes.len() as u64, crc32fast::hash(bytes));
        // A checksum alone is not enough: it is the same for all files that end in their own checksum.
        let same = before.lasting.get(name).filter(|whole| (whole.length, whole.crc32) == (length, crc32));
        let same = same.filter(|whole| fs::read(folder.join(&whole.file)).is_ok_and(|known| known == bytes));
        let whole = match same {
            Some(whole) => whole.clone(),
            None => {
                let file = format!("{name}-{env_step}");
                write_synced(&folder.join(&file), bytes)?;
                Whole { file, length, crc32 }
            }
        };
        self.lasting.insert(name.to_owned(), whole);
        Ok(())
    }

    /// Reads and verifies everything: fields and records of each stream, and each lasting file.
    pub(crate) fn read(&self, folder: &Path) -> Result<Loaded, Unread> {
        let mut loaded = Loaded::default();
        for (name, stream) in &self.streams {
            let size = record_size(&stream.fields);
            let mut records = Vec::new();
            let mut expected = None;
            for segment in &stream.segments {
                let path = folder.join(&segment.file);
                if expected.is_some_and(|next| next != segment.first) {
                    return Err(Unread::Damaged(path, format!("begins with record {}", segment.first)));
                }
                expected = Some(segment.end());
                let start = records.len();
                let file = File::open(&path).map_err(|error| Unread::Io(path.clone(), error))?;
                let length = segment.records * size;
                let read = file.take(length).read_to_end(&mut records);
                read.map_err(|error| Unread::Io(path.clone(), error))?;
                let (found, crc32) = ((records.len() - start) as u64, crc32fast::hash(&records[start..]));
                if (found, crc32) != (length, segment.crc32) {
                    return Err(differs(path, (length, segment.crc32), (found, crc32)));
                }
            }
            let first = stream.segments.first().map_or(stream.from, |segment| segment.first);
            let skipped = usize::try_from((stream.from - first) * size).unwrap_or(usize::MAX);
            records.drain(..skipped.min(records.len()));
            loaded.streams.insert(name.clone(), (stream.fields.clone(), records));
        }
        for (name, whole) in &self.lasting {
            let path = folder.join(&whole.file);
            let bytes = fs::read(&path).map_err(|error| Unread::Io(path.clone(), error))?;
            let found = (bytes.len() as u64, crc32fast::hash(&bytes));
            if found != (whole.length, whole.crc32) {
                return Err(differs(path, (whole.length, whole.crc32), found));
            }
            loaded.files.insert(name.clone(), bytes);
        }
        Ok(loaded)
    }
}

/// Streams by name: what a record is made of, and the records.
pub(crate) type Streams = BTreeMap<String, (Vec<RecordField>, Vec<u8>)>;

/// What a checkpoint has beside its own files.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) streams: Streams,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// Why something was not read.
pub(crate) enum Unread {
    Io(PathBuf, std::io::Error),
    Damaged(PathBuf, String),
}

fn differs(path: PathBuf, expected: (u64, u32), found: (u64, u32)) -> Unread {
    let reason = format!(
        "expected {} bytes with checksum {:08x}, found {} bytes with checksum {:08x}",
        expected.0, expected.1, found.0, found.1
    );
    Unread::Damaged(path, reason)
}

fn record_size(fields: &[RecordField]) -> u64 {
    fields.iter().map(RecordField::size).sum::<usize>() as u64
}

/// Writes bytes behind the first `length` of a file, cutting off what is beyond, and waits until they are on the disk.
fn append_synced(path: &Path, length: u64, bytes: &[u8]) -> Result<(), AgentError> {
    let mut file =
        OpenOptions::new().create(length == 0).truncate(false).write(true).open(path).map_err(io_error(path))?;
    let append = |file: &mut File| {
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    append(&mut file).map_err(io_error(path))
}

/// Deletes what no checkpoint names. Nothing depends on it, so what cannot be deleted stays.
pub(crate) fn collect_garbage(folder: &Path, named: &BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut gone = false;
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| !named.contains(name)) {
            gone |= fs::remove_file(entry.path()).is_ok();
        }
    }
    if gone {
        let _ = sync_folder(folder);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use mbrl_env::{Replay, Transition};

    use super::*;
    use crate::{CheckpointReader, Checkpoints};

    /// Bytes of a record of one observation and one action.
    const RECORD: u64 = 4 * 3 + 8 + 1;

    fn push(replay: &mut Replay, count: u64) {
        for _ in 0..count {
            let x = replay.pushed() as f32;
            let (obs, action, next_obs) = (vec![x], vec![-x], vec![x + 1.0]);
            let truncated = replay.pushed() % 5 == 4;
            let transition = Transition { obs, action, reward: 1.0, next_obs, terminated: false, truncated };
            replay.push(&transition).unwrap();
        }
    }

    fn write(checkpoints: &Checkpoints, step: u64, after: Option<u64>, replay: &Replay, model: &[u8]) {
        let written = checkpoints.write(step, None, after, |writer| {
            writer.put_replay("replay", replay)?;
            writer.put_lasting("model.bin", model)
        });
        written.unwrap();
    }

    fn read(folder: &Path, step: u64) -> Result<(Replay, Vec<u8>), AgentError> {
        let reader = CheckpointReader::open(&folder.join(step.to_string()))?;
        Ok((reader.get_replay("replay")?, reader.get("model.bin")?.to_vec()))
    }

    #[test]
    fn what_has_changed_is_written_even_where_its_checksum_has_not() {
        let sealed = |content: &[u8]| [content, &crc32fast::hash(content).to_le_bytes()].concat();
        let (first, second) = (sealed(b"first one"), sealed(b"other one"));
        assert_eq!(crc32fast::hash(&first), crc32fast::hash(&second));
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let mut replay = Replay::new(1, 1, 100).unwrap();
        push(&mut replay, 1);
        write(&checkpoints, 1, None, &replay, &first);
        write(&checkpoints, 2, Some(1), &replay, &second);
        assert_eq!(read(folder.path(), 1).unwrap().1, first);
        assert_eq!(read(folder.path(), 2).unwrap().1, second);
    }

    /// Names and sizes of the shared files.
    fn shared(folder: &Path) -> Vec<(String, u64)> {
        let entries = fs::read_dir(folder.join(SHARED)).unwrap().map(Result::unwrap);
        let mut files: Vec<(String, u64)> =
            entries.map(|e| (e.file_name().to_str().unwrap().to_owned(), e.metadata().unwrap().len())).collect();
        files.sort();
        files
    }

    #[test]
    fn what_grows_is_appended_and_what_stays_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let mut replay = Replay::new(1, 1, 1000).unwrap();
        let mut after = None;
        for step in 1..=4 {
            push(&mut replay, 3);
            write(&checkpoints, step, after, &replay, if step < 4 { b"first" } else { b"second" });
            after = Some(step);
            assert_eq!(read(folder.path(), step).unwrap().0, replay);
        }
        // The third checkpoint still has the first model; the segment is one, of twelve records.
        let expected = [("model.bin-1", 5), ("model.bin-4", 6), ("replay-1.bin", 12 * RECORD)];
        assert_eq!(shared(folder.path()), expected.map(|(name, size)| (name.to_owned(), size)));
        let (third, model) = read(folder.path(), 3).unwrap();
        assert_eq!((third.pushed(), third.len(), &model[..]), (9, 9, &b"first"[..]));
        push(&mut replay, 1);
        write(&checkpoints, 5, after, &replay, b"second");
        assert!(shared(folder.path()).iter().all(|(name, _)| name != "model.bin-1"), "no checkpoint names it");
    }

    /// As many as before, but others: what is on the disk is of no use.
    #[test]
    fn a_replay_that_was_cleared_begins_anew_on_the_disk_too() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let mut replay = Replay::new(1, 1, 1000).unwrap();
        push(&mut replay, 3);
        write(&checkpoints, 1, None, &replay, b"");
        replay.clear();
        for x in [10.0, 11.0, 12.0, 13.0, 14.0] {
            let (obs, action, next_obs) = (vec![x], vec![-x], vec![x + 1.0]);
            replay
                .push(&Transition { obs, action, reward: 2.0, next_obs, terminated: false, truncated: false })
                .unwrap();
        }
        write(&checkpoints, 2, Some(1), &replay, b"");
        let (found, _) = read(folder.path(), 2).unwrap();
        assert_eq!((found.columns(), found.index()), (replay.columns(), replay.index()));
        replay.clear();
        write(&checkpoints, 3, Some(2), &replay, b"");
        assert!(read(folder.path(), 3).unwrap().0.is_empty());
    }

    #[test]
    fn segments_end_at_their_size_and_go_with_their_records() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let mut replay = Replay::new(1, 1, 20).unwrap();
        let mut most = 0;
        for step in 1..=40 {
            push(&mut replay, 4);
            write(&checkpoints, step, step.checked_sub(1).filter(|step| *step > 0), &replay, b"");
            let (found, _) = read(folder.path(), step).unwrap();
            assert_eq!((found.columns(), found.index()), (replay.columns(), replay.index()));
            assert_eq!(found.episodes().collect::<Vec<_>>(), replay.episodes().collect::<Vec<_>>());
            most = most.max(shared(folder.path()).iter().map(|(_, size)| size).sum());
        }
        // 20 records are kept of 160; a segment has 16 at most, and the checkpoint before needs one more.
        assert!(most <= 4 * 16 * RECORD, "{most} bytes");
        assert!(shared(folder.path()).len() >= 3, "{:?}", shared(folder.path()));
    }

    #[test]
    fn what_lies_beyond_a_checkpoint_is_cut_off_and_what_is_damaged_leads_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let mut replay = Replay::new(1, 1, 1000).unwrap();
        push(&mut replay, 3);
        write(&checkpoints, 1, None, &replay, b"model");
        let first = replay.clone();
        push(&mut replay, 3);
        write(&checkpoints, 2, Some(1), &replay, b"model");

        // A bit error in what the second one appended: the first is whole.
        let path = folder.path().join(SHARED).join("replay-1.bin");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let newest = checkpoints.newest().unwrap().unwrap();
        assert_eq!((newest.reader.env_step(), newest.damaged.len()), (1, 1));
        assert!(newest.damaged[0].to_string().contains("replay-1.bin"), "{}", newest.damaged[0]);
        assert_eq!(newest.reader.get_replay("replay").unwrap(), first);

        // From there on it goes another way: as after a kill, what is beyond does not count.
        let mut again = first;
        push(&mut again, 2);
        write(&checkpoints, 3, Some(1), &again, b"model");
        assert_eq!(read(folder.path(), 3).unwrap().0, again);
        assert_eq!(fs::metadata(&path).unwrap().len(), 5 * RECORD);

        // Without its files a checkpoint is damaged, not empty.
        fs::remove_file(folder.path().join(SHARED).join("model.bin-1")).unwrap();
        assert!(read(folder.path(), 3).unwrap_err().to_string().contains("model.bin-1"));
    }

    #[test]
    fn scopes_keep_names_apart() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let written = checkpoints.write(1, None, None, |writer| {
            writer.put("model.bin", b"outer")?;
            writer.scope("critic", |writer| {
                writer.put("model.bin", b"critic")?;
                writer.scope("target", |writer| writer.put_lasting("model.bin", b"target"))
            })?;
            writer.put("rest.bin", b"rest")?;
            assert!(writer.put("model.bin", b"again").is_err());
            assert!(writer.scope("critic", |writer| writer.put_lasting("model.bin", b"again")).is_err());
            Ok(())
        });
        let reader = CheckpointReader::open(&written.unwrap()).unwrap();
        let critic = reader.scope("critic");
        assert_eq!(reader.get("model.bin").unwrap(), b"outer");
        assert_eq!(critic.get("model.bin").unwrap(), b"critic");
        assert_eq!(critic.scope("target").get("model.bin").unwrap(), b"target");
        assert!(critic.get("rest.bin").unwrap_err().to_string().contains("critic.rest.bin"));
    }
}
