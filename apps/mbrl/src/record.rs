//! The results of a run from its `metrics.jsonl`, for summaries and pictures.

use std::path::Path;

use anyhow::Result;
use mbrl_policy::MetricsReader;

/// One training episode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EpisodeLine {
    /// Real steps at its end.
    pub(crate) env_step: u64,
    /// Undiscounted return.
    pub(crate) total_reward: f64,
}

/// The results of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    /// Complete episodes.
    pub(crate) episodes: Vec<EpisodeLine>,
    /// Episodes that the end of the budget truncated.
    pub(crate) cut: usize,
    /// Episodes that broke down.
    pub(crate) breakdowns: usize,
    /// Plans that failed in training episodes.
    pub(crate) failed_plans: u64,
    /// Fits, including those that diverged.
    pub(crate) fits: usize,
    /// Fits that diverged.
    pub(crate) diverged: usize,
    /// Fits whose model is no better than predicting that nothing changes.
    pub(crate) useless: usize,
    /// Mean and standard deviation of the last evaluation.
    pub(crate) evaluation: Option<(f64, f64)>,
}

impl Record {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let metrics = MetricsReader::open_whole(path)?;
        let number = |line: &mbrl_policy::MetricsLine, name| line.get(name).unwrap_or(f64::NAN);
        let whole = metrics.of("episode").filter(|line| !line.is_cut() && !line.is_breakdown());
        let episodes =
            whole.map(|line| EpisodeLine { env_step: line.env_step, total_reward: number(line, "episode/return") });
        let evaluation = metrics.of("eval").last();
        Ok(Self {
            episodes: episodes.collect(),
            cut: metrics.of("episode").filter(|line| line.is_cut()).count(),
            breakdowns: metrics.of("episode").filter(|line| line.is_breakdown()).count(),
            failed_plans: metrics.of("plan").filter_map(|line| line.get("plan/failed")).sum::<f64>() as u64,
            fits: metrics.of("fit").filter(|line| line.is_model_fit()).count(),
            useless: metrics
                .of("fit")
                .filter(|line| line.get("model/unchanged_ratio").is_some_and(|r| r >= 1.0))
                .count(),
            diverged: metrics.of("fit").filter(|line| line.get("model/diverged") == Some(1.0)).count(),
            evaluation: evaluation.map(|line| (number(line, "eval/return_mean"), number(line, "eval/return_std"))),
        })
    }

    /// Training episodes, complete or not.
    pub(crate) fn all_episodes(&self) -> usize {
        self.episodes.len() + self.cut + self.breakdowns
    }

    pub(crate) fn best(&self) -> Option<f64> {
        self.episodes.iter().map(|e| e.total_reward).reduce(f64::max)
    }

    pub(crate) fn last(&self) -> Option<f64> {
        self.episodes.last().map(|e| e.total_reward)
    }
}
