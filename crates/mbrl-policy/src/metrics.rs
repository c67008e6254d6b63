//! Writing `metrics.jsonl`: the record of a run, one event per line, only ever appended to.
//!
//! Every line has `event`, `env_step` (real steps so far, random ones included, evaluation episodes not) and
//! `wall_s`. The names and their meaning are listed in `docs/metrics.md`. A number that is not finite is written as
//! `null`: JSON has none.
//!
//! ```text
//! {"event":"episode","env_step":200,"wall_s":0.1,"episode/index":1,"episode/return":11.3,"episode/length":200,…}
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    AgentError, EpisodeSummary, Evaluation, Moment, Observer, Scalars,
    files::{io_error, sync_parent},
};

/// The names whose values are wall times. They differ between two runs with the same seed; everything else is the
/// same bit for bit.
pub const WALL_TIME_KEYS: [&str; 8] = [
    "wall_s",
    "episode/env_s",
    "episode/act_s",
    "plan/ms",
    "model/fit_s",
    "value/fit_s",
    "distil/fit_s",
    "eval/time_s",
];

/// Writes `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    length: u64,
    /// Of all that was written.
    crc: crc32fast::Hasher,
}

impl MetricsWriter {
    /// Starts at `length` bytes of an existing file, cutting off what follows; 0 makes a new one. With `crc32`, the bytes before
    /// must have that CRC-32.
    ///
    /// # Errors
    /// [`AgentError::Io`] where it cannot be written; [`AgentError::Checkpoint`] where the file is missing, shorter than
    /// `length` or of other bytes. Nothing on the disk is changed then.
    pub fn open_at(path: &Path, length: u64, crc32: Option<u32>) -> Result<Self, AgentError> {
        let refuse = |found: String| AgentError::Checkpoint {
            path: path.to_owned(),
            reason: format!("{found}, the checkpoint was written at {length} bytes"),
        };
        let file = OpenOptions::new().create(length == 0).truncate(false).read(true).write(true).open(path);
        let mut file = file.map_err(|source| match source.kind() {
            ErrorKind::NotFound if length > 0 => refuse("missing".into()),
            _ => io_error(path)(source),
        })?;
        let found = file.metadata().map_err(io_error(path))?.len();
        if found < length {
            return Err(refuse(format!("has {found} bytes")));
        }
        let mut covered = Vec::new();
        (&mut file).take(length).read_to_end(&mut covered).map_err(io_error(path))?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&covered);
        let has = crc.clone().finalize();
        if let Some(expected) = crc32.filter(|expected| *expected != has) {
            return Err(AgentError::Checkpoint {
                path: path.to_owned(),
                reason: format!(
                    "its first {length} bytes have checksum {has:08x}, the checkpoint was written at {expected:08x}: the file \
                     was changed, put the old one back"
                ),
            });
        }
        file.set_len(length).and_then(|()| file.seek(std::io::SeekFrom::End(0))).map_err(io_error(path))?;
        if length == 0 {
            sync_parent(path)?;
        }
        Ok(Self { path: path.to_owned(), file, length, crc })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written, those before a resume included.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// CRC-32 of these bytes.
    #[must_use]
    pub fn crc32(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    /// [`AgentError::Io`].
    pub fn sync(&mut self) -> Result<(), AgentError> {
        self.file.sync_data().map_err(io_error(&self.path))
    }

    /// Refuses to continue where the file was removed, renamed or changed meanwhile, because new lines would then go elsewhere.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`], or [`AgentError::Io`] where nothing can be said.
    pub fn check_in_place(&self) -> Result<(), AgentError> {
        let found = match fs::metadata(&self.path) {
            Ok(found) if found.len() == self.length => return Ok(()),
            Ok(found) => format!("has {} bytes where {} were written", found.len(), self.length),
            Err(error) if error.kind() == ErrorKind::NotFound => "is gone".to_owned(),
            Err(error) => return Err(io_error(&self.path)(error)),
        };
        let reason = format!("{found}: it, or its folder, was removed, renamed or changed while the run went on");
        Err(AgentError::Checkpoint { path: self.path.clone(), reason })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// [`AgentError::Io`].
    pub fn write(&mut self, event: &str, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        // By hand, because a JSON map would sort the names.
        let mut text =
            format!(r#"{{"event":{},"env_step":{},"wall_s":{}"#, json!(event), at.env_step, json!(at.wall_s));
        for (name, value) in scalars {
            text.push_str(&format!(",{}:{}", json!(name), number(*value)));
        }
        text.push_str("}\n");
        // One call per line, so that a kill cuts between lines where the system can help it.
        self.file.write_all(text.as_bytes()).map_err(io_error(&self.path))?;
        self.length += text.len() as u64;
        self.crc.update(text.as_bytes());
        Ok(())
    }
}

/// Counts are written as integers, so that 200 does not become 200.0.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { json!(value as i64) } else { json!(value) }
}

impl Observer for MetricsWriter {
    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        self.write("episode", at, &episode.scalars(at.episode))
    }

    fn on_plan(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.write("plan", at, scalars)
    }

    fn on_policy(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.write("policy", at, scalars)
    }

    fn on_fit(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.write("fit", at, scalars)
    }

    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        self.write("eval", at, &evaluation.scalars())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::time::Duration;

    use super::*;

    const AT: Moment = Moment { env_step: 200, episode: 3, wall_s: 0.25, slot: 0 };

    #[test]
    fn a_line_holds_the_event_the_moment_and_the_numbers_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open_at(&path, 0, None).unwrap();
        let episode = EpisodeSummary {
            total_reward: 11.5,
            length: 200,
            truncated: true,
            env_time: Duration::from_millis(125),
            act_time: Duration::from_millis(2500),
            ..EpisodeSummary::default()
        };
        writer.on_episode(AT, &episode).unwrap();
        writer.on_plan(AT, &[("plan/ms".to_owned(), 1.5), ("plan/best_return".to_owned(), f64::NAN)]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"event":"episode","env_step":200,"wall_s":0.25,"episode/index":3,"#), "{text}");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0],
            json!({"event": "episode", "env_step": 200, "wall_s": 0.25, "episode/index": 3, "episode/return": 11.5,
                   "episode/length": 200, "episode/terminated": 0, "episode/truncated": 1, "episode/cut": 0,
                   "episode/breakdown": 0, "episode/env_s": 0.125, "episode/act_s": 2.5})
        );
        assert_eq!(
            lines[1],
            json!({"event": "plan", "env_step": 200, "wall_s": 0.25, "plan/ms": 1.5, "plan/best_return": null})
        );
        assert_eq!(writer.length(), text.len() as u64);
        assert_eq!(crate::MetricsReader::open_whole(&path).unwrap().episodes(), 1);
    }

    #[test]
    fn a_missing_file_is_refused_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let error = MetricsWriter::open_at(&path, 100, None).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl: missing") && error.contains("100"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn resuming_cuts_off_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open_at(&path, 0, None).unwrap();
        writer.write("first", AT, &[]).unwrap();
        let length = writer.length();
        writer.write("lost", AT, &[]).unwrap();
        drop(writer);
        let mut writer = MetricsWriter::open_at(&path, length, None).unwrap();
        writer.write("again", AT, &[]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("first") && text.contains("again") && !text.contains("lost"), "{text}");
        assert_eq!(writer.length(), text.len() as u64);
    }

    #[test]
    fn bytes_that_were_changed_are_refused_and_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open_at(&path, 0, None).unwrap();
        writer.write("first", AT, &[]).unwrap();
        let (length, crc) = (writer.length(), writer.crc32());
        writer.write("lost", AT, &[]).unwrap();
        let reopened = MetricsWriter::open_at(&path, length, Some(crc)).unwrap();
        assert_eq!(reopened.crc32(), crc, "it goes on from what is there");
        let changed = fs::read_to_string(&path).unwrap().replace("first", "worst");
        fs::write(&path, &changed).unwrap();
        let error = MetricsWriter::open_at(&path, length, Some(crc)).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl") && error.contains("was changed"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    }

    #[test]
    fn a_file_that_is_no_longer_in_its_place_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open_at(&path, 0, None).unwrap();
        writer.write("first", AT, &[]).unwrap();
        writer.check_in_place().unwrap();
        fs::rename(&path, folder.path().join("renamed")).unwrap();
        assert!(writer.check_in_place().unwrap_err().to_string().contains("is gone"));
        fs::write(&path, "{}\n").unwrap();
        assert!(writer.check_in_place().unwrap_err().to_string().contains("has 3 bytes"));
    }

    #[test]
    fn a_file_shorter_than_recorded_is_refused_and_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{}\n").unwrap();
        let error = MetricsWriter::open_at(&path, 100, None).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl") && error.contains("3 bytes"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        // A path under a regular file, which root cannot write either.
        fs::write(folder.path().join("file"), "").unwrap();
        let error = MetricsWriter::open_at(&folder.path().join("file/metrics.jsonl"), 0, None).unwrap_err().to_string();
        assert!(error.contains("file/metrics.jsonl"), "{error}");
    }
}
