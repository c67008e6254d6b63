//! How files are read.

use serde::{Deserialize, Serialize};

use super::Layout;

/// What to do with a row that lacks a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Refuse the file (default).
    #[default]
    Refuse,
    /// Leave the row out, which ends the episode there.
    Drop,
}

/// How files are read, apart from the roles of their columns.
///
/// ```
/// use mbrl_env::data::{Missing, ReadOptions};
/// let options = ReadOptions::default().with_missing(Missing::Drop).with_max_gap(3.0);
/// assert_eq!(options.max_gap, 3.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Longest time step, in median periods, that does not end an episode (default 1.5: a single missing row is noticed).
    pub max_gap: f64,
    /// What to do with a row that lacks a value.
    pub missing: Missing,
    /// Separator of the fields of a text; a blank stands for any number of blanks (default: detected).
    pub delimiter: Option<char>,
    /// Which axis of arrays `[E, T, O]` or `[T, N, O]` is the time, 0 or 1 (default: the one along which observations change
    /// less).
    pub time_axis: Option<usize>,
    /// Rows per episode, if nothing in the file marks episodes (default: none).
    pub episode_rows: Option<usize>,
    /// Columns of another log, used where the layout leaves a part out and the file has them.
    pub stored: Option<Layout>,
    /// Offset subtracted from each column of the observation before it is rounded to `f32`, `[O]` (default: chosen where `f32`
    /// could not hold the changes).
    pub obs_offset: Option<Vec<f64>>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            max_gap: 1.5,
            missing: Missing::Refuse,
            delimiter: None,
            time_axis: None,
            episode_rows: None,
            stored: None,
            obs_offset: None,
        }
    }
}

impl ReadOptions {
    /// With another longest time step.
    #[must_use]
    pub fn with_max_gap(self, periods: f64) -> Self {
        Self { max_gap: periods, ..self }
    }

    /// With another rule for missing values.
    #[must_use]
    pub fn with_missing(self, missing: Missing) -> Self {
        Self { missing, ..self }
    }

    /// With a separator of fields.
    #[must_use]
    pub fn with_delimiter(self, delimiter: char) -> Self {
        Self { delimiter: Some(delimiter), ..self }
    }

    /// With the given axis as the time.
    #[must_use]
    pub fn with_time_axis(self, axis: usize) -> Self {
        Self { time_axis: Some(axis), ..self }
    }

    /// With episodes of this many rows.
    #[must_use]
    pub fn with_episode_rows(self, rows: usize) -> Self {
        Self { episode_rows: Some(rows), ..self }
    }

    /// With the columns by which another log was read.
    #[must_use]
    pub fn with_stored(self, layout: Layout) -> Self {
        Self { stored: Some(layout), ..self }
    }

    /// With the offset subtracted from each column of the observation, `[O]`.
    #[must_use]
    pub fn with_obs_offset(self, offset: impl Into<Vec<f64>>) -> Self {
        Self { obs_offset: Some(offset.into()), ..self }
    }
}
