//! A replay as records of one size, which are written once and in order: data that grows with a run is appended, never rewritten.
//!
//! ```text
//! obs [O]                    f32, little-endian bit patterns; u8 where the replay is in bytes
//! action [A]                 f32
//! reward                     f64
//! next_obs [O]               as obs
//! flags                      u8: 1 terminated, 2 truncated, 4 first of its episode
//! ```

use serde::{Deserialize, Serialize};

use super::Replay;
use crate::EnvError;

const TERMINATED: u8 = 1;
const TRUNCATED: u8 = 2;
const FIRST: u8 = 4;

/// A part of each record of a stream: its name, and the type and count of its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordField {
    /// Its name, such as `obs`.
    pub name: String,
    /// The type of its numbers.
    pub kind: RecordKind,
    /// Numbers.
    pub width: usize,
}

/// Type of the numbers of a [`RecordField`], little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RecordKind {
    /// One byte: flags, pixels.
    U8,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl RecordField {
    fn new(name: &str, kind: RecordKind, width: usize) -> Self {
        Self { name: name.into(), kind, width }
    }

    /// Bytes in a record.
    #[must_use]
    pub fn size(&self) -> usize {
        let size = match self.kind {
            RecordKind::U8 => 1,
            RecordKind::F32 => 4,
            RecordKind::F64 => 8,
        };
        size * self.width
    }
}

/// What a replay holds besides its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayIndex {
    /// Entries of an observation.
    pub obs_width: usize,
    /// Entries of an action.
    pub action_width: usize,
    /// The most transitions that are kept.
    pub capacity: usize,
    /// Number of transitions kept now.
    pub len: usize,
    /// Total number pushed: records are numbered from 0, and those kept are the last ones.
    pub pushed: u64,
    /// Whether the last episode is still running.
    pub running: bool,
    /// Whether the last transition was truncated after it was written.
    pub last_truncated: bool,
    /// Whether observations are [bytes](Replay::in_bytes).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes: bool,
}

impl Replay {
    /// Total number of transitions pushed, including those that were dropped.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The parts of its records.
    #[must_use]
    pub fn record_fields(&self) -> Vec<RecordField> {
        fields(self.obs_width, self.action_width, self.is_in_bytes())
    }

    /// What [`of_records`](Self::of_records) needs besides the records.
    #[must_use]
    pub fn index(&self) -> ReplayIndex {
        let last = self.len().checked_sub(1).map(|last| self.slot(last));
        ReplayIndex {
            obs_width: self.obs_width,
            action_width: self.action_width,
            capacity: self.capacity,
            len: self.len(),
            pushed: self.pushed,
            running: self.running,
            last_truncated: last.is_some_and(|last| self.truncated[last]),
            bytes: self.is_in_bytes(),
        }
    }

    /// The records from number `from` on, or from the oldest that is kept.
    #[must_use]
    pub fn records(&self, from: u64) -> Vec<u8> {
        let oldest = self.pushed - self.len() as u64;
        let first = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX).min(self.len());
        let mut starts = vec![false; self.len() - first];
        // Newest first: records that were written before are not read.
        let mut end = self.len();
        for length in self.episodes.iter().rev() {
            let start = end - length;
            if start < first {
                break;
            }
            starts[start - first] = true;
            end = start;
        }
        let size: usize = self.record_fields().iter().map(RecordField::size).sum();
        let mut bytes = Vec::with_capacity(starts.len() * size);
        for (position, start) in (first..self.len()).zip(starts) {
            let slot = self.slot(position);
            let a = self.action_width;
            self.seen.write(slot, self.ring(), false, &mut bytes);
            bytes.extend(self.actions[slot * a..][..a].iter().flat_map(|x| x.to_le_bytes()));
            bytes.extend(self.rewards[slot].to_le_bytes());
            self.seen.write(slot, self.ring(), true, &mut bytes);
            let flag = |on: bool, flag: u8| if on { flag } else { 0 };
            let ended = flag(self.terminated[slot], TERMINATED) | flag(self.truncated[slot], TRUNCATED);
            bytes.push(ended | flag(start, FIRST));
        }
        bytes
    }

    /// The replay restored from an index and the records that it keeps, `index.len` of them.
    ///
    /// # Errors
    /// [`EnvError::Malformed`] for records that do not fit the index.
    pub fn of_records(index: &ReplayIndex, records: &[u8]) -> Result<Self, EnvError> {
        let malformed = |reason: String| EnvError::Malformed { what: "replay", reason };
        let ReplayIndex { obs_width: o, action_width: a, capacity, len, pushed, running, last_truncated, bytes } =
            *index;
        let replay = Self::new(o, a, capacity).map_err(|error| malformed(error.to_string()))?;
        let mut replay = if bytes { replay.in_bytes() } else { replay };
        let sizes: Vec<usize> = fields(o, a, bytes).iter().map(RecordField::size).collect();
        let size: usize = sizes.iter().sum();
        if len > capacity || (len as u64) > pushed || len.checked_mul(size) != Some(records.len()) {
            let found = records.len();
            return Err(malformed(format!(
                "{found} bytes for {len} records of {size} bytes, of {pushed} in {capacity}"
            )));
        }
        (replay.pushed, replay.running) = (pushed, running && len > 0);
        for (position, record) in records.chunks_exact(size).enumerate() {
            let mut rest = record;
            let [obs, action, reward, next_obs] = [0, 1, 2, 3].map(|field| {
                let (part, after) = rest.split_at(sizes[field]);
                rest = after;
                part
            });
            let [obs, next_obs] = [obs, next_obs].map(|part| replay.seen.read(part));
            let put = replay.seen.put(position, position.checked_sub(1), [&obs, &next_obs]);
            put.map_err(|error| malformed(error.to_string()))?;
            replay.actions.extend(action.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            replay.rewards.push(f64::from_le_bytes(reward.try_into().unwrap_or_default()));
            let flags = record[size - 1];
            if flags > TERMINATED | TRUNCATED | FIRST {
                return Err(malformed(format!("record {position} has the flags {flags}")));
            }
            replay.terminated.push(flags & TERMINATED > 0);
            replay.truncated.push(flags & TRUNCATED > 0);
            // The oldest episode may have lost its beginning.
            match replay.episodes.back_mut() {
                Some(length) if flags & FIRST == 0 => *length += 1,
                _ => replay.episodes.push_back(1),
            }
        }
        if let Some(last) = replay.truncated.last_mut() {
            *last = last_truncated;
        }
        Ok(replay)
    }
}

fn fields(o: usize, a: usize, bytes: bool) -> Vec<RecordField> {
    let seen = if bytes { RecordKind::U8 } else { RecordKind::F32 };
    vec![
        RecordField::new("obs", seen, o),
        RecordField::new("action", RecordKind::F32, a),
        RecordField::new("reward", RecordKind::F64, 1),
        RecordField::new("next_obs", seen, o),
        RecordField::new("flags", RecordKind::U8, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::seen::Seen, *};
    use crate::Transition;

    fn push(replay: &mut Replay, x: f32, terminated: bool, truncated: bool) {
        let (obs, action, next_obs) = (vec![x, -x], vec![0.5 * x], vec![x + 1.0, -x - 1.0]);
        replay.push(&Transition { obs, action, reward: f64::from(x) / 3.0, next_obs, terminated, truncated }).unwrap();
    }

    /// Whether two replays hold the same data, wherever their rings begin.
    fn assert_same(a: &Replay, b: &Replay) {
        assert_eq!(a.columns(), b.columns());
        assert_eq!(a.episodes().collect::<Vec<_>>(), b.episodes().collect::<Vec<_>>());
        assert_eq!(a.index(), b.index());
    }

    #[test]
    fn records_that_were_appended_piece_by_piece_are_the_replay() {
        // A ring that wraps, episodes that end in every way, pieces of every length.
        let mut replay = Replay::new(2, 1, 7).unwrap();
        let (mut file, mut written) = (Vec::new(), 0);
        let size: usize = replay.record_fields().iter().map(RecordField::size).sum();
        assert_eq!(size, 4 * 5 + 8 + 1);
        for step in 0..40_u8 {
            push(&mut replay, f32::from(step), step % 5 == 4, step % 7 == 6);
            if step == 11 {
                replay.end_episode();
            }
            if step % 3 == 0 {
                if step == 15 {
                    // As when the step after it breaks down.
                    replay.truncate_episode();
                }
                let new = replay.records(written);
                assert_eq!(new.len() as u64, size as u64 * (replay.pushed() - written));
                file.extend(new);
                written = replay.pushed();
                let kept = &file[file.len() - size * replay.len()..];
                assert_same(&Replay::of_records(&replay.index(), kept).unwrap(), &replay);
            }
        }
        // Ended after it was written: the next record says so, and the index what the last one has become.
        push(&mut replay, 100.0, false, false);
        file.extend(replay.records(written));
        replay.truncate_episode();
        let kept = &file[file.len() - size * replay.len()..];
        assert_same(&Replay::of_records(&replay.index(), kept).unwrap(), &replay);
        // Records that are no longer kept cannot be read.
        assert_eq!(replay.records(0).len(), size * 7);
        assert!(replay.records(u64::MAX).is_empty());
    }

    #[test]
    fn a_replay_of_bytes_is_the_one_of_numbers_and_holds_each_frame_once() {
        for capacity in [1, 2, 7, 100] {
            let (mut bytes, mut numbers) =
                (Replay::new(3, 1, capacity).unwrap().in_bytes(), Replay::new(3, 1, capacity).unwrap());
            let (mut file, mut written) = (Vec::new(), 0);
            let size: usize = bytes.record_fields().iter().map(RecordField::size).sum();
            assert_eq!(size, 3 + 4 + 8 + 3 + 1);
            let mut level = 0.0;
            for step in 0..40_u8 {
                let frame = |level: f32| vec![level, 255.0 - level, f32::from(step / 10)];
                let (obs, next_obs) = (frame(level), frame(level + 1.0));
                level = if step % 9 == 8 { 100.0 } else { level + 1.0 };
                let (terminated, truncated) = (step % 9 == 8, false);
                let seen = Transition { obs, action: vec![-0.5], reward: 0.25, next_obs, terminated, truncated };
                bytes.push(&seen).unwrap();
                numbers.push(&seen).unwrap();
                assert_eq!(bytes.columns(), numbers.columns());
                let last = bytes.len() - 1;
                assert_eq!(bytes.get(last), Some(seen.clone()));
                assert_eq!(bytes.gather([last, 0]), numbers.gather([last, 0]));
                assert_eq!(bytes.observation(last), seen.obs);
                if step % 3 == 0 {
                    file.extend(bytes.records(written));
                    written = bytes.pushed();
                    let kept = &file[file.len() - size * bytes.len()..];
                    let read = Replay::of_records(&bytes.index(), kept).unwrap();
                    assert_same(&read, &bytes);
                    assert!(read.is_in_bytes());
                }
            }
            // What a frame becomes in the middle of an episode differs here from what comes next (its third entry) three times.
            let Seen::Bytes { after, .. } = &bytes.seen else { panic!("numbers") };
            assert!(after.len() <= 9, "{}", after.len());
            let wrong = Transition { obs: vec![0.0, 256.0, 0.0], ..bytes.get(0).unwrap() };
            let before = bytes.clone();
            let error = bytes.push(&wrong).unwrap_err().to_string();
            assert_eq!(error, "observation = 256: expected whole numbers from 0 to 255, since the replay keeps bytes");
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn records_that_do_not_fit_are_refused() {
        let mut replay = Replay::new(2, 1, 7).unwrap();
        push(&mut replay, 1.0, false, false);
        let (index, records) = (replay.index(), replay.records(0));
        assert!(Replay::of_records(&index, &records[1..]).is_err());
        assert!(Replay::of_records(&ReplayIndex { len: 2, ..index }, &records).is_err());
        assert!(Replay::of_records(&ReplayIndex { obs_width: 3, ..index }, &records).is_err());
        assert!(Replay::of_records(&ReplayIndex { capacity: 0, ..index }, &records).is_err());
        assert!(Replay::of_records(&ReplayIndex { pushed: 0, ..index }, &records).is_err());
        let mut flags = records;
        *flags.last_mut().unwrap() = 8;
        assert!(Replay::of_records(&index, &flags).is_err());
    }
}
