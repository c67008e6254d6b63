//! Angles whose value jumps by a turn.

use mbrl_env::AngleColumn;
use multiversion::multiversion;
use serde::{Deserialize, Serialize};

/// A column of the observation that jumps by a turn, and where its values lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wrap {
    pub(crate) column: usize,
    pub(crate) turn: f32,
    /// Values lie in `[low, low + turn)`.
    pub(crate) low: f32,
}

impl Wrap {
    /// Those of `angles` that jump, with values within ± half a turn: the assumption without data.
    pub(crate) fn of(angles: &[AngleColumn]) -> Vec<Self> {
        let wraps = angles.iter().filter(|angle| angle.wraps);
        wraps.map(|&AngleColumn { column, turn, .. }| Self { column, turn, low: -0.5 * turn }).collect()
    }

    /// The same column with values from 0 on, if none of `rows` `[N, width]` is negative.
    #[cfg(feature = "train")]
    pub(crate) fn seen<'a>(self, mut rows: impl Iterator<Item = &'a [f32]>) -> Self {
        Self { low: if rows.all(|row| row[self.column] >= 0.0) { 0.0 } else { -0.5 * self.turn }, ..self }
    }

    /// A change taken the short way round, within ± half a turn.
    #[cfg(feature = "train")]
    pub(crate) fn change(self, change: f32) -> f32 {
        change - self.turn * (change / self.turn).round()
    }

    /// Values in the range of the data. Whole turns are subtracted, so gradients pass.
    pub(crate) fn place(self, values: &mut [f32]) {
        place(values, self.low, self.turn);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn place(values: &mut [f32], low: f32, turn: f32) {
    for value in values {
        *value -= turn * ((*value - low) / turn).floor();
    }
}
