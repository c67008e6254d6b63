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
    /// Leave the row out; the episode ends there.
    Drop,
}

/// How files are read, besides which column is what.
///
/// ```
/// use mbrl_env::data::{Missing, ReadOptions};
/// let options = ReadOptions::default().with_missing(Missing::Drop).with_max_gap(3.0);
/// assert_eq!(options.max_gap, 3.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Longest step of the time, in median periods, that does not end an episode (default 1.5: one row left out is noticed).
    pub max_gap: f64,
    /// What to do with a row that lacks a value.
    pub missing: Missing,
    /// What the fields of a text are apart by; a blank stands for any number of blanks (default: found out).
    pub delimiter: Option<char>,
    /// Which axis of arrays `[E, T, O]` or `[T, N, O]` is the time, 0 or 1 (default: the one along which observations change
    /// less).
    pub time_axis: Option<usize>,
    /// Rows of an episode, where nothing in the file tells (default: none).
    pub episode_rows: Option<usize>,
    /// Columns of another log, taken where the layout says nothing and the file has them.
    pub stored: Option<Layout>,
    /// What is taken off each column of the observation before it is rounded to `f32`, `[O]` (default: chosen where `f32`
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
    /// With another longest step of the time.
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

    /// With the axis that is the time.
    #[must_use]
    pub fn with_time_axis(self, axis: usize) -> Self {
        Self { time_axis: Some(axis), ..self }
    }

    /// With episodes of so many rows.
    #[must_use]
    pub fn with_episode_rows(self, rows: usize) -> Self {
        Self { episode_rows: Some(rows), ..self }
    }

    /// With the columns that another log was read by.
    #[must_use]
    pub fn with_stored(self, layout: Layout) -> Self {
        Self { stored: Some(layout), ..self }
    }

    /// With what is taken off each column of the observation, `[O]`.
    #[must_use]
    pub fn with_obs_offset(self, offset: impl Into<Vec<f64>>) -> Self {
        Self { obs_offset: Some(offset.into()), ..self }
    }
}
