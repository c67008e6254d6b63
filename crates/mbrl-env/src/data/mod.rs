//! Transitions from files of other programs: logs of real machines, data sets of other libraries.
//!
//! [`read`] turns a CSV, Parquet or NumPy file into a [`Replay`]. A row holds what was known at one instant: the observation,
//! the action that was taken on it, and what came of that action (reward, end flags):
//!
//! ```text
//! time,x,v,u,reward,terminated
//! 0.00,0.0,0.0,1.0,-0.1,false
//! 0.02,0.0,0.2,1.0,-0.1,false
//! ```
//!
//! # Which column is what
//!
//! A [`Layout`] names the columns; what it leaves out is looked for under usual names. A column that is an observation or an
//! action already is nothing else by its name: a temperature `t` is no time.
//!
//! | part | usual names | where it is missing |
//! |---|---|---|
//! | observation | `obs`, `observation`, `observations`, as one column of vectors or numbered (`obs_0`, `obs_1`, …) | an error |
//! | action | `action`, `actions`, in the same way | an error |
//! | next observation | `next_` and the name of each observation column | taken from the next row |
//! | reward | `reward`, `rewards` | 0 |
//! | terminated | `terminated`, `terminations`, `terminals` | nothing terminates |
//! | truncated | `truncated`, `truncations`, `timeouts` | nothing is cut |
//! | done | `done`, `dones` | |
//! | episode | `episode`, `episode_id`, `episode_index` | one episode, save for the flags and the time |
//! | time | `time`, `t`, `timestamp`, `step` | |
//!
//! Vectors are list columns of a Parquet file, arrays `[N, W]` of an `.npz` file and array fields of a structured `.npy` file.
//! A 2-D `.npy` file has no names: [`Layout::names`] gives them.
//!
//! # Episodes and next observations
//!
//! A new episode begins where the episode column changes, where the time goes back, and after a row that is terminated,
//! truncated or done. `done` alone does not say why an episode ended: where the row is not terminated as well, it counts as
//! truncated, which teaches no end state that is none. Gaps in the time are not looked for.
//!
//! Without columns of next observations, those are in the next row of the same episode, so the last row of an episode makes
//! no transition ([`Log::dropped`] counts these) — and a `terminated` that stands there is lost with it. To keep it, end the
//! episode with a row that holds the last observation alone, the fields of action, reward and flags empty (null in Parquet).
//!
//! # Errors
//!
//! Files are checked to the last row before anything is returned. [`DataError`] names the file, the line (CSV) or row (from
//! 0, as pandas and NumPy count), the column, what was expected and what came.
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
//!
//! let error = data::read(&path, &Layout { obs: vec!["X".into()], ..layout }).unwrap_err().to_string();
//! assert!(error.contains("no column `X`; did you mean `x`?"), "{error}");
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(all(feature = "csv", feature = "numpy", feature = "parquet")),
    allow(dead_code, reason = "each reader uses a part of what they share")
)]

mod assemble;
#[cfg(feature = "csv")]
mod csv;
mod error;
mod layout;
#[cfg(feature = "numpy")]
mod numpy;
#[cfg(feature = "parquet")]
mod parquet;

use std::path::Path;

pub use error::{DataError, Place};
pub use layout::Layout;

use crate::Replay;

/// What was read from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The transitions, in the order of the file. It keeps everything that is pushed.
    pub replay: Replay,
    /// The layout asked for, with the columns of observation and action that were found.
    pub layout: Layout,
    /// Names of the entries of an observation, `[O]`; those of a column of vectors are `name[0]`, `name[1]`, …
    pub obs_names: Vec<String>,
    /// Names of the entries of an action, `[A]`.
    pub action_names: Vec<String>,
    /// Whether the file has rewards; otherwise all are 0.
    pub has_rewards: bool,
    /// Rows of the file, the header not counted.
    pub rows: u64,
    /// Rows with an action that made no transition, because no observation follows them.
    pub dropped: u64,
}

/// Reads a `.csv`, `.parquet`, `.npz` or `.npy` file; the extension says which.
///
/// The file is read as a stream: memory is that of the replay and a small block. Two exceptions hold more: arrays in Fortran
/// order, which are kept whole meanwhile, and single rows of a CSV file, which may be of any length.
///
/// # Errors
/// Each [`DataError`]. Nothing is returned then, however much was read.
pub fn read(path: impl AsRef<Path>, layout: &Layout) -> Result<Log, DataError> {
    let path = path.as_ref();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let known: &[(&str, Option<Reader>)] = &[
        #[cfg(feature = "csv")]
        ("csv", Some(csv::read)),
        #[cfg(not(feature = "csv"))]
        ("csv", None),
        #[cfg(feature = "parquet")]
        ("parquet", Some(parquet::read)),
        #[cfg(not(feature = "parquet"))]
        ("parquet", None),
        #[cfg(feature = "numpy")]
        ("npz", Some(numpy::read_npz)),
        #[cfg(feature = "numpy")]
        ("npy", Some(numpy::read_npy)),
        #[cfg(not(feature = "numpy"))]
        ("npz", None),
        #[cfg(not(feature = "numpy"))]
        ("npy", None),
    ];
    match known.iter().find(|(name, _)| *name == extension) {
        Some((_, Some(read))) => read(path, layout),
        Some((name, None)) => Err(DataError::NotBuilt {
            path: path.to_owned(),
            feature: if name.starts_with("np") { "numpy" } else { name },
        }),
        None => Err(DataError::Extension { path: path.to_owned(), extension }),
    }
}

type Reader = fn(&Path, &Layout) -> Result<Log, DataError>;
