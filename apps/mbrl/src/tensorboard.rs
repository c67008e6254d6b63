//! `tensorboard/`: all scalars of a run as event files, which TensorBoard reads.
//!
//! A file is a sequence of TFRecords: the length of the data (`u64`), its masked CRC, the data, its masked CRC, little-endian
//! throughout; the CRC is CRC-32C, masked as `rotate_right(crc, 15) + 0xa282ead8`
//! (`tensorflow/core/lib/io/record_writer.h`, `tensorflow/core/lib/hash/crc32c.h`). The data is a protobuf message `Event`
//! (`tensorflow/core/util/event.proto`, `tensorflow/core/framework/summary.proto`):
//!
//! | message | fields |
//! |---|---|
//! | `Event` | 1 `wall_time` double, 2 `step` int64, 3 `file_version` string, 5 `summary` Summary, 7 `session_log` SessionLog |
//! | `Summary` | 1 `value` repeated Value |
//! | `Value` | 1 `tag` string, 2 `simple_value` float |
//! | `SessionLog` | 1 `status` enum, of which 1 is `START` |
//!
//! Each start writes a new file, as TensorBoard itself does: an older file that a kill cut short is never touched. A start
//! announces the step from which it continues, and TensorBoard then discards what older files say about later steps.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use mbrl_policy::{AgentError, EpisodeSummary, Evaluation, Moment, Observer, Scalars};

/// Writes `tensorboard/events.out.tfevents.<seconds>.<number>.mbrl`.
#[derive(Debug)]
pub(crate) struct TensorBoardWriter {
    path: PathBuf,
    file: File,
}

impl TensorBoardWriter {
    /// A new file for a run in folder `run` that continues from `env_step`.
    pub(crate) fn create(run: &Path, env_step: u64) -> Result<Self, AgentError> {
        let folder = run.join("tensorboard");
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.map_err(|source| AgentError::Io { path: folder.clone(), source })?,
        }
        let seconds = now().as_secs();
        let mut number = 0;
        let (path, file) = loop {
            // TensorBoard reads the files in the order of their names.
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.{number}.mbrl"));
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(AgentError::Io { path, source }),
            }
        };
        let mut writer = Self { path, file };
        writer.write(0, &string(3, "brain.Event:2"))?;
        // Events up to this step stay valid; later ones are written again.
        let start = message(7, &varint(1, 1));
        writer.write(env_step + 1, &start)?;
        Ok(writer)
    }

    fn scalars(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        let values: Vec<u8> = scalars
            .iter()
            .flat_map(|(name, value)| message(1, &[string(1, name), float(2, *value as f32)].concat()))
            .collect();
        self.write(at.env_step, &message(5, &values))
    }

    /// Writes one event: a kill cuts off at most the last one, which readers skip.
    fn write(&mut self, step: u64, what: &[u8]) -> Result<(), AgentError> {
        let event = [&double(1, now().as_secs_f64()), &varint(2, step), what].concat();
        self.file.write_all(&record(&event)).map_err(|source| AgentError::Io { path: self.path.clone(), source })
    }
}

impl Observer for TensorBoardWriter {
    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        self.scalars(at, &episode.scalars(at.episode))
    }

    fn on_plan(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.scalars(at, scalars)
    }

    fn on_policy(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.scalars(at, scalars)
    }

    fn on_fit(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.scalars(at, scalars)
    }

    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        self.scalars(at, &evaluation.scalars())
    }
}

/// Time since 1970; a clock before that counts as then.
fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

// Protobuf: a key `field << 3 | type`, then the value.

fn varint(field: u64, value: u64) -> Vec<u8> {
    let mut bytes = base128(field << 3);
    bytes.extend(base128(value));
    bytes
}

fn double(field: u64, value: f64) -> Vec<u8> {
    let mut bytes = base128(field << 3 | 1);
    bytes.extend(value.to_le_bytes());
    bytes
}

fn message(field: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = base128(field << 3 | 2);
    bytes.extend(base128(content.len() as u64));
    bytes.extend(content);
    bytes
}

fn string(field: u64, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

fn float(field: u64, value: f32) -> Vec<u8> {
    let mut bytes = base128(field << 3 | 5);
    bytes.extend(value.to_le_bytes());
    bytes
}

fn base128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a file, with each CRC verified.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let unmasked = |crc: &[u8]| {
            let crc = u32::from_le_bytes(crc.try_into().unwrap());
            crc.wrapping_sub(0xa282_ead8).rotate_left(15)
        };
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(unmasked(&bytes[8..12]), crc32c::crc32c(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(unmasked(&bytes[12 + length..16 + length]), crc32c::crc32c(data));
            records.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        records
    }

    /// Fields of a message: number and raw value (varints and fixed widths as little-endian bytes).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let take = |bytes: &mut &[u8]| {
            let (mut value, mut shift) = (0_u64, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = take(&mut bytes);
            let width = match key & 7 {
                0 => {
                    found.push((key >> 3, take(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => take(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, bytes[..width].to_vec()));
            bytes = &bytes[width..];
        }
        found
    }

    fn field(bytes: &[u8], number: u64) -> Vec<u8> {
        fields(bytes).into_iter().find(|(n, _)| *n == number).map(|(_, value)| value).unwrap()
    }

    fn step(event: &[u8]) -> u64 {
        u64::from_le_bytes(field(event, 2).try_into().unwrap())
    }

    #[test]
    fn the_crc_is_castagnolis() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn base128_is_protobufs() {
        // The example from protobuf's own description of the encoding.
        assert_eq!(base128(150), [0x96, 0x01]);
        assert_eq!(varint(1, 150), [0x08, 0x96, 0x01]);
        assert_eq!(string(2, "testing"), b"\x12\x07testing");
    }

    #[test]
    fn a_file_holds_a_version_a_start_and_every_scalar() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TensorBoardWriter::create(folder.path(), 300).unwrap();
        let at = Moment { env_step: 1234, episode: 1, wall_s: 0.0, slot: 0 };
        writer.on_plan(at, &[("plan/ms".to_owned(), 1.5), ("plan/best_return".to_owned(), -2.25)]).unwrap();
        let mut episode = EpisodeSummary::default();
        episode.total_reward = 7.0;
        writer.on_episode(at, &episode).unwrap();

        let events = records(&fs::read(&writer.path).unwrap());
        assert_eq!(field(&events[0], 3), b"brain.Event:2");
        assert_eq!((step(&events[1]), field(&events[1], 7)), (301, varint(1, 1)));
        let values = |event: &[u8]| -> Vec<(String, f32)> {
            fields(&field(event, 5))
                .iter()
                .map(|(_, value)| {
                    let number = f32::from_le_bytes(field(value, 2).try_into().unwrap());
                    (String::from_utf8(field(value, 1)).unwrap(), number)
                })
                .collect()
        };
        let plan = [("plan/ms".to_owned(), 1.5), ("plan/best_return".to_owned(), -2.25)];
        assert_eq!((step(&events[2]), values(&events[2])), (1234, plan.to_vec()));
        let told = values(&events[3]);
        assert_eq!(told.len(), episode.scalars(1).len());
        assert!(told.contains(&("episode/return".to_owned(), 7.0)));
        let seconds = f64::from_le_bytes(field(&events[3], 1).try_into().unwrap());
        assert!((now().as_secs_f64() - seconds).abs() < 3600.0);
    }

    #[test]
    fn every_start_has_a_file_of_its_own_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let first = TensorBoardWriter::create(folder.path(), 0).unwrap();
        let before = fs::read(&first.path).unwrap();
        let second = TensorBoardWriter::create(folder.path(), 0).unwrap();
        assert!(first.path < second.path, "{first:?} {second:?}");
        assert_eq!(fs::read(&first.path).unwrap(), before);
    }
}
