//! Columns that are angles.

use std::f32::consts::TAU;

use serde::{Deserialize, Serialize};

/// A column that is an angle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AngleColumn {
    /// Index of the column.
    pub column: usize,
    /// One turn in the column's unit: 2π for rad, 360 for degrees.
    pub turn: f32,
    /// Whether the value jumps by a turn in the data.
    pub wraps: bool,
}

impl AngleColumn {
    /// An angle in radians that does not wrap.
    #[must_use]
    pub fn radians(column: usize) -> Self {
        Self { column, turn: TAU, wraps: false }
    }
}
