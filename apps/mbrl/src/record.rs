//! What a run's `metrics.jsonl` says, for summaries and pictures.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

/// One training episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EpisodeLine {
    /// Real steps at its end.
    pub(crate) env_step: u64,
    /// Undiscounted return.
    pub(crate) total_reward: f64,
}

/// What a run has come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    /// Whole ones.
    pub(crate) episodes: Vec<EpisodeLine>,
    /// Episodes that the end of the budget cut.
    pub(crate) cut: usize,
    /// Mean and standard deviation of the last evaluation.
    pub(crate) evaluation: Option<(f64, f64)>,
}

impl Record {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut record = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line: Value =
                serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))?;
            let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
            match line["event"].as_str() {
                Some("episode") if number("episode/cut") == 1.0 => record.cut += 1,
                Some("episode") => record.episodes.push(EpisodeLine {
                    env_step: line["env_step"].as_u64().unwrap_or(0),
                    total_reward: number("episode/return"),
                }),
                Some("eval") => record.evaluation = Some((number("eval/return_mean"), number("eval/return_std"))),
                _ => {}
            }
        }
        Ok(record)
    }

    pub(crate) fn best(&self) -> Option<f64> {
        self.episodes.iter().map(|e| e.total_reward).reduce(f64::max)
    }

    pub(crate) fn last(&self) -> Option<f64> {
        self.episodes.last().map(|e| e.total_reward)
    }
}
