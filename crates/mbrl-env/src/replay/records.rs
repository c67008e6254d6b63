//! A replay as records of one size, which are written once and in order: what grows with a run is appended, never rewritten.
//!
//! ```text
//! obs [O], action [A]        f32, little-endian bit patterns
//! reward                     f64
//! next_obs [O]               f32
//! flags                      u8: 1 terminated, 2 truncated, 4 first of its episode
//! ```

use serde::{Deserialize, Serialize};

use super::Replay;
use crate::EnvError;

const TERMINATED: u8 = 1;
const TRUNCATED: u8 = 2;
const FIRST: u8 = 4;

/// A part of each record of a stream: what it is called, of which type its numbers are, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordField {
    /// Its name, such as `obs`.
    pub name: String,
    /// Type of its numbers.
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

/// What a replay holds beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayIndex {
    /// Entries of an observation.
    pub obs_width: usize,
    /// Entries of an action.
    pub action_width: usize,
    /// How many transitions are kept at most.
    pub capacity: usize,
    /// How many transitions are kept now.
    pub len: usize,
    /// How many were ever pushed: records are numbered from 0, and those kept are the last ones.
    pub pushed: u64,
    /// Whether the last episode goes on.
    pub running: bool,
    /// Whether the last transition was truncated after it was written.
    pub last_truncated: bool,
}

impl Replay {
    /// How many transitions were ever pushed, those that are forgotten among them.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// What its records are made of.
    #[must_use]
    pub fn record_fields(&self) -> Vec<RecordField> {
        fields(self.obs_width, self.action_width)
    }

    /// What [`of_records`](Self::of_records) needs beside the records.
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
        }
    }

    /// The records from number `from` on, or from the oldest that is kept.
    #[must_use]
    pub fn records(&self, from: u64) -> Vec<u8> {
        let oldest = self.pushed - self.len() as u64;
        let first = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX).min(self.len());
        let mut starts = vec![false; self.len() - first];
        // Newest first: what was written before is not looked at.
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
            let (o, a) = (self.obs_width, self.action_width);
            for values in [&self.obs[slot * o..][..o], &self.actions[slot * a..][..a]] {
                bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            }
            bytes.extend(self.rewards[slot].to_le_bytes());
            bytes.extend(self.next_obs[slot * o..][..o].iter().flat_map(|x| x.to_le_bytes()));
            let flag = |on: bool, flag: u8| if on { flag } else { 0 };
            let ended = flag(self.terminated[slot], TERMINATED) | flag(self.truncated[slot], TRUNCATED);
            bytes.push(ended | flag(start, FIRST));
        }
        bytes
    }

    /// The replay of an index and the records that it keeps, `index.len` of them.
    ///
    /// # Errors
    /// [`EnvError::Malformed`] for records that do not fit the index.
    pub fn of_records(index: &ReplayIndex, records: &[u8]) -> Result<Self, EnvError> {
        let malformed = |reason: String| EnvError::Malformed { what: "replay", reason };
        let ReplayIndex { obs_width: o, action_width: a, capacity, len, pushed, running, last_truncated } = *index;
        let mut replay = Self::new(o, a, capacity).map_err(|error| malformed(error.to_string()))?;
        let size: usize = fields(o, a).iter().map(RecordField::size).sum();
        if len > capacity || (len as u64) > pushed || len.checked_mul(size) != Some(records.len()) {
            let found = records.len();
            return Err(malformed(format!(
                "{found} bytes for {len} records of {size} bytes, of {pushed} in {capacity}"
            )));
        }
        (replay.pushed, replay.running) = (pushed, running && len > 0);
        for (position, record) in records.chunks_exact(size).enumerate() {
            let mut rest = record;
            let mut numbers = |count: usize, into: &mut Vec<f32>| {
                let (part, after) = rest.split_at(4 * count);
                rest = after;
                into.extend(part.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            };
            numbers(o, &mut replay.obs);
            numbers(a, &mut replay.actions);
            let reward = &record[4 * (o + a)..][..8];
            replay.rewards.push(f64::from_le_bytes(reward.try_into().unwrap_or_default()));
            let next = &record[4 * (o + a) + 8..][..4 * o];
            replay.next_obs.extend(next.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
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

fn fields(o: usize, a: usize) -> Vec<RecordField> {
    vec![
        RecordField::new("obs", RecordKind::F32, o),
        RecordField::new("action", RecordKind::F32, a),
        RecordField::new("reward", RecordKind::F64, 1),
        RecordField::new("next_obs", RecordKind::F32, o),
        RecordField::new("flags", RecordKind::U8, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transition;

    fn push(replay: &mut Replay, x: f32, terminated: bool, truncated: bool) {
        let (obs, action, next_obs) = (vec![x, -x], vec![0.5 * x], vec![x + 1.0, -x - 1.0]);
        replay.push(&Transition { obs, action, reward: f64::from(x) / 3.0, next_obs, terminated, truncated }).unwrap();
    }

    /// Whether two replays hold the same, wherever their rings begin.
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
        // More than is kept cannot be had.
        assert_eq!(replay.records(0).len(), size * 7);
        assert!(replay.records(u64::MAX).is_empty());
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
