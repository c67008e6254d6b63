//! Multilayer perceptrons for every learner: one definition, one set of CPU kernels.
//!
//! An [`MlpConfig`] describes `E` networks of one shape with weights of their own: an ensemble, twin critics (`E = 2`), an
//! actor (`E = 1`). [`Mlp`] is the definition, a Burn module for any device; [`HostMlp`] computes the same on a CPU, several
//! times as fast. What a learner needs starts at the outputs, because every loss in this field has a closed-form gradient there:
//!
//! | call | gives |
//! |---|---|
//! | [`forward`](HostMlp::forward) | outputs; with a [`Tape`] what the calls below need |
//! | [`step`](HostMlp::step) | Adam's step for gradients of the outputs, fused with them |
//! | [`input_grad`](HostMlp::input_grad) | gradients of the inputs alone: actors through critics, plans through models |
//! | [`grads`](HostMlp::grads), [`jvp`](HostMlp::jvp) | products with the Jacobian and its transpose: natural gradients |
//! | [`go_back`](HostMlp::go_back), [`step_over`](HostMlp::step_over) | one step of Adam for several passes: recurrent networks |
//! | [`track`](HostMlp::track) | target networks |
//!
//! A regression:
//!
//! ```
//! use mbrl_model::mlp::{Adam, AdamConfig, MlpConfig, Pass, Rows, Tape};
//!
//! let x: Vec<f32> = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
//! let mut network = MlpConfig::new(1, vec![32, 32], 1).init_host(&mut mbrl_model::Rng::new(0))?;
//! let (mut adam, mut tape) = (Adam::new(&network, AdamConfig::default()), Tape::new());
//! let mut loss = f32::NAN;
//! for _ in 0..500 {
//!     let y = network.forward(Rows::Shared(&x), Pass::Infer, Some(&mut tape));
//!     let error: Vec<f32> = y.iter().zip(&x).map(|(y, x)| y - (3.0 * x).sin()).collect();
//!     loss = error.iter().map(|e| e * e).sum::<f32>() / 64.0;
//!     let grad_out: Vec<f32> = error.iter().map(|e| 2.0 * e / 64.0).collect();
//!     network.step(&mut tape, &grad_out, false, &mut adam);
//! }
//! assert!(loss < 0.01, "{loss}");
//! # Ok::<(), mbrl_model::ModelError>(())
//! ```
//!
//! The number of threads changes no bit, and neither do a row's place or the other rows: each output adds its products in the order of the inputs.

mod adam;
mod config;
mod dropout;
mod host;
pub(crate) mod kernel;
mod network;
mod norm;
mod step;
mod tape;

pub use adam::{Adam, AdamConfig};
pub(crate) use config::draw_weights;
pub use config::{Activation, MlpConfig};
pub use host::HostMlp;
#[cfg(feature = "train")]
pub(crate) use host::{Layer, gather};
pub use network::Mlp;
pub(crate) use network::forward;
#[cfg(test)]
pub(crate) use step::clear;
pub use tape::Tape;
#[cfg(feature = "train")]
pub(crate) use tape::Tile;

use kernel::{Lanes, TILE};
use norm::VARIANCE_FLOOR;

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// All units.
    Infer,
    /// [Dropout](MlpConfig::dropout), if there is any, as a function of the key, the member, the layer, the row and the unit. Give
    /// each pass a key of its own, drawn from the learner's generator.
    Train {
        /// Seeds what is dropped.
        key: u64,
    },
}

/// Inputs of a pass.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// `[B, in]`, the same for all members.
    Shared(&'a [f32]),
    /// `[E, B, in]`, each member's own.
    Own(&'a [f32]),
    /// Rows of a table.
    Picked {
        /// `[N, in]`.
        of: &'a [f32],
        /// `[E, B]`, each member's own.
        rows: &'a [usize],
    },
}

impl Rows<'_> {
    /// Rows per member, `B`.
    pub(crate) fn batch(&self, config: &MlpConfig) -> usize {
        let (what, len, unit) = match self {
            Self::Shared(all) => ("shared inputs", all.len(), config.inputs),
            Self::Own(all) => ("inputs", all.len(), config.inputs * config.members),
            Self::Picked { rows, .. } => ("rows", rows.len(), config.members),
        };
        assert!(len.is_multiple_of(unit), "{what} = {len}: expected a multiple of {unit}");
        len / unit
    }

    /// A tile of a member, from row `row` of its batch on; the lanes beyond the batch repeat the last row.
    pub(crate) fn gather(&self, width: usize, member: usize, batch: usize, row: usize, columns: &mut [Lanes]) {
        let count = (batch - row).min(TILE);
        let first = match self {
            Self::Shared(_) => row,
            Self::Own(_) | Self::Picked { .. } => member * batch + row,
        };
        let mut places = [0; TILE];
        for (i, place) in places.iter_mut().enumerate() {
            *place = first + i;
        }
        match self {
            Self::Shared(all) | Self::Own(all) => host::gather(all, width, &places[..count], columns),
            Self::Picked { of, rows } => host::gather(of, width, &rows[first..first + count], columns),
        }
    }
}
