//! Reading `metrics.jsonl`.

use std::{fs, io::ErrorKind, path::Path};

use serde_json::{Map, Value};

use crate::{AgentError, files::io_error};

/// One line of `metrics.jsonl`: an event and its numbers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetricsLine {
    /// `episode`, `fit`, `plan`, `policy` or `eval`.
    pub event: String,
    /// Real environment steps so far.
    pub env_step: u64,
    /// Wall time since the start of the run (s).
    pub wall_s: f64,
    values: Map<String, Value>,
}

impl MetricsLine {
    /// Reads a line, or says what is wrong with it.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let values: Map<String, Value> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let need = |key: &str, rule: &str| format!("`{key}`: expected {rule}");
        let event = values.get("event").and_then(Value::as_str).ok_or_else(|| need("event", "a name"))?.to_owned();
        let env_step = values.get("env_step").and_then(Value::as_u64);
        let env_step = env_step.ok_or_else(|| need("env_step", "a number of steps"))?;
        let wall_s = values.get("wall_s").and_then(Value::as_f64).ok_or_else(|| need("wall_s", "a number"))?;
        Ok(Self { event, env_step, wall_s, values })
    }

    /// A number by its name; `None` where the line has none of that name, or one that is not finite.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name)?.as_f64()
    }

    /// The names of the line's numbers, `event`, `env_step` and `wall_s` left out, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).filter(|name| !["event", "env_step", "wall_s"].contains(name))
    }

    /// Whether it records an episode that the end of the run's budget cut: its return is not that of a whole one.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_episode_that("episode/cut")
    }

    /// Whether it records an episode that broke down: its return is not that of a whole one.
    #[must_use]
    pub fn is_breakdown(&self) -> bool {
        self.is_episode_that("episode/breakdown")
    }

    /// Whether it records a fit of a model, not only of a value or a distilled policy.
    #[must_use]
    pub fn is_model_fit(&self) -> bool {
        let has = |name| self.get(name).is_some();
        self.event == "fit" && (has("model/fit_s") || !(has("value/fit_s") || has("distil/fit_s")))
    }

    fn is_episode_that(&self, flag: &str) -> bool {
        self.event == "episode" && self.get(flag) == Some(1.0)
    }
}

/// The lines of a `metrics.jsonl` that can be read, and what is wrong with the others.
///
/// ```
/// use mbrl_policy::MetricsReader;
///
/// let text = br#"{"event":"episode","env_step":200,"wall_s":0.5,"episode/return":11.5}
/// {"event":"eval","env_step":200,"#;
/// let metrics = MetricsReader::parse(text);
/// assert_eq!(metrics.of("episode").next().unwrap().get("episode/return"), Some(11.5));
/// // A kill cuts the last line.
/// assert_eq!(metrics.damaged.len(), 1);
/// assert!(metrics.damaged[0].starts_with("line 2: "));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct MetricsReader {
    /// The lines, in the order in which they were written.
    pub lines: Vec<MetricsLine>,
    /// What is wrong with the lines that are left out, as `line 7: …`.
    pub damaged: Vec<String>,
}

impl MetricsReader {
    /// Reads a file; `None` where there is none yet.
    ///
    /// # Errors
    /// [`AgentError::Io`] where it is there and cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>, AgentError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(Self::parse(&bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(path)(error)),
        }
    }

    /// Reads a file that must be whole.
    ///
    /// # Errors
    /// [`AgentError::Io`] where it cannot be read; [`AgentError::Checkpoint`], naming the line, where one is damaged.
    pub fn open_whole(path: &Path) -> Result<Self, AgentError> {
        let metrics = Self::parse(&fs::read(path).map_err(io_error(path))?);
        match metrics.damaged.first() {
            None => Ok(metrics),
            Some(reason) => Err(AgentError::Checkpoint { path: path.to_owned(), reason: reason.clone() }),
        }
    }

    /// Reads the bytes of a file.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut metrics = Self::default();
        for (number, text) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.is_empty()) {
            match MetricsLine::parse(text) {
                Ok(line) => metrics.lines.push(line),
                Err(reason) => metrics.damaged.push(format!("line {}: {reason}", number + 1)),
            }
        }
        metrics
    }

    /// The lines of one event.
    pub fn of(&self, event: &str) -> impl Iterator<Item = &MetricsLine> {
        self.lines.iter().filter(move |line| line.event == event)
    }

    /// Training episodes, those that the end of the budget cut included.
    #[must_use]
    pub fn episodes(&self) -> usize {
        self.of("episode").count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_of_another_type_damages_a_line_and_no_other() {
        let good = r#"{"event":"plan","env_step":3,"wall_s":1,"plan/ms":null,"plan/iterations":2}"#;
        for (bad, named) in [
            (r#"{"env_step":3,"wall_s":1}"#, "`event`"),
            (r#"{"event":7,"env_step":3,"wall_s":1}"#, "`event`"),
            (r#"{"event":"plan","wall_s":1}"#, "`env_step`"),
            (r#"{"event":"plan","env_step":-3,"wall_s":1}"#, "`env_step`"),
            (r#"{"event":"plan","env_step":3.5,"wall_s":1}"#, "`env_step`"),
            (r#"{"event":"plan","env_step":3}"#, "`wall_s`"),
            ("[]", "map"),
            ("{", "EOF"),
        ] {
            let metrics = MetricsReader::parse(format!("{good}\n{bad}\n\n{good}\n").as_bytes());
            assert_eq!(metrics.lines.len(), 2, "{bad}");
            assert_eq!(metrics.damaged.len(), 1, "{bad}");
            assert!(metrics.damaged[0].starts_with("line 2: ") && metrics.damaged[0].contains(named), "{metrics:?}");
        }
        let line = &MetricsReader::parse(good.as_bytes()).lines[0];
        assert_eq!((line.env_step, line.wall_s, line.event.as_str()), (3, 1.0, "plan"));
        assert_eq!((line.get("plan/ms"), line.get("plan/iterations"), line.get("plan/x")), (None, Some(2.0), None));
        assert_eq!(line.names().collect::<Vec<_>>(), ["plan/iterations", "plan/ms"]);
    }

    #[test]
    fn a_damaged_file_is_refused_where_it_must_be_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(MetricsReader::open(&path).unwrap(), None);
        assert!(MetricsReader::open_whole(&path).is_err());
        fs::write(&path, "{\"event\":\"episode\",\"env_step\":1,\"wall_s\":1}\n{\"event\"").unwrap();
        assert_eq!(MetricsReader::open(&path).unwrap().unwrap().episodes(), 1);
        let error = MetricsReader::open_whole(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl: line 2"), "{error}");
    }
}
