//! Transitions from files of other programs: logs of real machines, data sets of other libraries.
//!
//! [`read`] turns a CSV, Parquet or NumPy file into a [`Replay`], [`read_all`] several files or a folder of them. A row
//! describes one instant: the observation, the action taken on it, and the result of that action (reward, end
//! flags):
//!
//! ```text
//! time,x,v,u,reward,terminated
//! 0.00,0.0,0.0,1.0,-0.1,false
//! 0.02,0.0,0.2,1.0,-0.1,false
//! ```
//!
//! [`Log::report`] has the findings: the role of each column, why each episode ends, the period, gaps, wraps and
//! jumps, missing, repeated and quantised values.
//!
//! # Which column is what
//!
//! A [`Layout`] names the columns; parts that it leaves out are looked up under usual names, whatever their case and with or
//! without a unit behind (`time [s]`). A column that already belongs to the observation or the action gets no other role by its name.
//!
//! | part | usual names | where it is missing |
//! |---|---|---|
//! | observation | `obs`, `observation`, `observations`, `observation.state`, `state`, `states`, as one column of vectors or numbered (`obs_0`, `obs_1`, …) | an error |
//! | action | `action`, `actions`, `acts`, in the same way | an error |
//! | next observation | `next_` or `next.` and the name of each observation column | taken from the next row |
//! | reward | `reward`, `rewards`, `next.reward` | 0 |
//! | terminated | `terminated`, `terminations`, `terminals`, `terminal`, `is_terminal`, `next.terminated` | nothing terminates |
//! | truncated | `truncated`, `truncations`, `timeouts`, `timeout`, `next.truncated` | nothing is cut |
//! | done | `done`, `dones`, `next.done`, `is_last` | |
//! | start | `episode_starts`, `episode_start`, `is_first` | |
//! | episode | `episode`, `episode_id`, `episode_index` | told by flags, time and form of the file |
//! | time | `time`, `t`, `timestamp`, `timestamps`, `step`, `frame_index` | |
//!
//! A role guessed from a name is checked against the values: a time must rise within episodes (a temperature `t` does not), and
//! neither time nor episode may end an episode at more than half of the rows. A guess that fails is dropped, and the report says so.
//! Times are numbers in any unit, or `2026-01-31T12:00:00.5`, which is read as seconds.
//!
//! # Forms
//!
//! The first bytes of a file determine its format, not its name; gzip is unpacked.
//!
//! - **Text**: fields separated by commas, semicolons, tabs, bars or blanks, detected unless
//!   [`ReadOptions::delimiter`] says; a decimal comma is read, in quotes or with another separator. Lines that
//!   begin with `#`, `%` or `//` are comments, a second line of words holds units, a blank line ends an episode, and so does
//!   a repeated header. Without a header, [`Layout::names`] gives the names. UTF-8 and UTF-16.
//! - **Parquet**: flat columns, lists of equal length, decimals, timestamps; or one row per episode (lists of lists).
//! - **`.npz`**: arrays `[N]` and `[N, W]` under the usual names. `[E, T, W]` are episodes, `[T, N, W]` parallel
//!   environments (of the two axes, time is the one along which observations change less; [`ReadOptions::time_axis`]). If there
//!   is one more observation than actions, it is the last one of an episode.
//! - **`.npy`**: a structured array, or a 2-D array whose columns [`Layout::names`] names.
//! - **Folders**: every file is one or more episodes; folders of LeRobot (v2, v3) are recognised by `meta/info.json`.
//!
//! # Episodes and next observations
//!
//! A new episode begins with each file, where the episode column changes, where a flag says so, at a break in the form of the
//! file, and where the time goes back, stands still or jumps ahead by more than [`ReadOptions::max_gap`] median periods. Such a
//! step is ignored if a jittering clock makes up for it within a few rows. Interleaved rows of parallel episodes
//! are put in order.
//!
//! `done` alone does not say why an episode ended: unless the row is also terminated, it counts as truncated, so that
//! no false terminal state is learned.
//!
//! Without columns of next observations, the next row of the same episode provides them, so the last row of an episode makes
//! no transition ([`Log::dropped`] counts these), and a `terminated` in that row is lost with it. To keep it, end the
//! episode with a row that holds only the last observation, with the fields of action and reward empty, null or NaN.
//!
//! Every other row must be complete, or the file is refused; with [`Missing::Drop`], incomplete rows are left out and end their
//! episode.
//!
//! # Numbers
//!
//! Files are read in `f64` and rounded once, to `f32`. Where `f32` could not hold the changes of an observation's column (a
//! position of 5 300 000 m that moves by millimetres), an offset is subtracted first: [`Log::obs_offset`].
//!
//! An angle ([`Layout::angles`]) that is wrapped in the file stays wrapped if a full turn changes nothing. If its turns
//! count, as for a joint with a spring, it is unwrapped along each episode: [`Layout::multi_turn`] says so, or the
//! data do.
//!
//! # Errors
//!
//! Files are checked to the last row before anything is returned. [`DataError`] names the file, the line (text) or row (from
//! 0, as pandas and NumPy count), the column, what was expected and what was found.
//!
//! ```
//! # #[cfg(feature = "csv")] {
//! use mbrl_env::data::{self, Layout};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("log.csv");
//! std::fs::write(&path, "time,x,v,u\n0.0,0.0,0.0,1.0\n0.1,0.0,0.1,1.0\n0.2,0.01,0.2,-1.0\n")?;
//!
//! let layout = Layout { obs: vec!["x".into(), "v".into()], actions: vec!["u".into()], ..Layout::default() };
//! let log = data::read(&path, &layout)?;
//! assert_eq!((log.rows, log.replay.len(), log.dropped), (3, 2, 1));
//! assert_eq!(log.replay.get(1).unwrap().next_obs, [0.01, 0.2]);
//! assert_eq!((log.report.sources(), log.period), ("no episode column, time `time`".to_owned(), Some(0.1)));
//!
//! let error = data::read(&path, &Layout { obs: vec!["X".into()], ..layout }).unwrap_err().to_string();
//! assert!(error.contains("no column `X`; did you mean `x`?"), "{error}");
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(clippy::result_large_err, reason = "a file is read once, and its error says where and what")]
#![cfg_attr(
    not(all(feature = "csv", feature = "numpy", feature = "parquet")),
    allow(dead_code, reason = "each reader uses a part of what they share")
)]

mod assemble;
mod clock;
#[cfg(feature = "csv")]
mod csv;
mod error;
mod input;
mod layout;
#[cfg(feature = "parquet")]
mod lerobot;
#[cfg(feature = "numpy")]
mod numpy;
mod options;
#[cfg(feature = "parquet")]
mod parquet;
mod report;
mod table;
mod turns;

use std::path::{Path, PathBuf};

pub use error::{DataError, Place};
use input::{Format, Input};
pub use layout::{Layout, split_names};
pub use options::{Missing, ReadOptions};
pub use report::{CLIPPED, ClockReport, ColumnReport, DataReport, EndCause, Taken, share_at_ends};
use table::Table;

use crate::{AngleColumn, Replay};

/// The result of reading files.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Log {
    /// The transitions, in the order of the files. The buffer keeps everything that is pushed.
    pub replay: Replay,
    /// The requested layout, with the columns of observation and action that were found.
    pub layout: Layout,
    /// Names of the entries of an observation, `[O]`; those of a vector column are `name[0]`, `name[1]`, …
    pub obs_names: Vec<String>,
    /// Their units, `[O]`; empty where the file gives none.
    pub obs_units: Vec<String>,
    /// Offset subtracted from each of them, `[O]`: an observation of the replay is the file's minus this.
    pub obs_offset: Vec<f64>,
    /// Entries of an observation that were named as angles.
    pub angles: Vec<AngleColumn>,
    /// Names of the entries of an action, `[A]`.
    pub action_names: Vec<String>,
    /// Their units, `[A]`.
    pub action_units: Vec<String>,
    /// Whether the files have rewards; otherwise all are 0.
    pub has_rewards: bool,
    /// Rows of the files, without headers.
    pub rows: u64,
    /// Rows with an action that made no transition, because no observation follows them.
    pub dropped: u64,
    /// Median time step, in the time's unit, if there is a time; `step` and `frame_index` count rows and give none.
    pub period: Option<f64>,
    /// The findings.
    pub report: DataReport,
}

/// Reads a file, or a folder of files, with the [default options](ReadOptions).
///
/// # Errors
/// As [`read_all`].
pub fn read(path: impl AsRef<Path>, layout: &Layout) -> Result<Log, DataError> {
    read_all(&[path.as_ref().to_owned()], layout, &ReadOptions::default())
}

/// Reads files, folders of them, and patterns with `*` and `?`, into one log. Each file is one or more separate episodes.
///
/// Meanwhile all values are held in `f64`, in addition to the replay made from them.
///
/// # Errors
/// Any [`DataError`]. Then nothing is returned, however much was read.
pub fn read_all(paths: &[PathBuf], layout: &Layout, options: &ReadOptions) -> Result<Log, DataError> {
    let files = input::files(paths)?;
    let mut tables = Vec::with_capacity(files.paths.len());
    for path in &files.paths {
        tables.push(table(path, layout, options)?);
    }
    if tables.is_empty() {
        return Err(DataError::Option { field: "paths", value: "[]".into(), rule: "at least one file" });
    }
    assemble::assemble(tables, &files, options)
}

fn table(path: &Path, layout: &Layout, options: &ReadOptions) -> Result<Table, DataError> {
    let (input, format) = Input::new(path)?;
    #[allow(unused_variables, reason = "without any reader")]
    let (input, layout, options) = (&input, layout, options);
    #[allow(unreachable_patterns, reason = "each feature has its own")]
    match format {
        #[cfg(feature = "csv")]
        Format::Text => csv::read(input, layout, options),
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::read(input, layout, options),
        #[cfg(feature = "numpy")]
        Format::Npz => numpy::read_npz(input, layout, options),
        #[cfg(feature = "numpy")]
        Format::Npy => numpy::read_npy(input, layout, options),
        other => Err(DataError::NotBuilt {
            path: path.to_owned(),
            feature: match other {
                Format::Text => "csv",
                Format::Parquet => "parquet",
                Format::Npz | Format::Npy => "numpy",
            },
        }),
    }
}

/// A 16-bit float.
#[cfg(any(feature = "numpy", feature = "parquet"))]
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        exponent => sign * (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

#[cfg(all(test, any(feature = "numpy", feature = "parquet")))]
mod tests {
    use super::*;

    #[test]
    fn floats_of_16_bits() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_953_125),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x8000, 0.0),
        ] {
            assert_eq!(half(bits), value, "{bits:04x}");
        }
        assert!(half(0x7e00).is_nan() && half(0x7c00) == f64::INFINITY);
    }
}
