//! The optimizers under the planners, for any function of any parameter vector.
//!
//! First order: [`ascend`], Adam from many starts at once. Zeroth order: [`search`] with any
//! [`SequenceSampler`](crate::SequenceSampler), of which the cross-entropy method, iCEM and MPPI are some. All maximise; negate a loss.

#[cfg(feature = "gradient")]
mod ascend;
mod search;

#[cfg(feature = "gradient")]
pub use ascend::{AscendConfig, ascend};
pub use search::search;

use burn::tensor::{Device, Tensor};

/// A function to be maximised, of K parameter vectors at once: `[K, D]` → `[K]`. Any such closure is one.
///
/// Rows are independent: row k of the result depends on row k of the parameters alone.
pub trait Objective {
    /// Its values, `[K]`. NaN and infinities never win.
    fn evaluate(&self, parameters: Tensor<2>) -> Tensor<1>;
}

impl<F: Fn(Tensor<2>) -> Tensor<1>> Objective for F {
    fn evaluate(&self, parameters: Tensor<2>) -> Tensor<1> {
        self(parameters)
    }
}

/// Where to search: parameters are `centre + scale · u`, dimension by dimension, and optimizers move u.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Where the search begins, `[D]`.
    pub centre: Vec<f32>,
    /// One unit of each dimension, above 0, `[D]`.
    pub scale: Vec<f32>,
    /// Whether u is held in `[-1, 1]`: the region is then a box.
    pub bounded: bool,
    /// Where tensors live.
    pub device: Device,
}

/// When a search ends: at whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    /// No more evaluations of the function than this; a gradient counts as one more.
    pub evaluations: u64,
    /// A value of this or more was found; `INFINITY` for none.
    pub value: f32,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The best parameters evaluated, `[D]`.
    pub parameters: Vec<f32>,
    /// Their value.
    pub value: f32,
    /// Evaluations of the function, gradients included.
    pub evaluations: u64,
    /// (evaluations, best value so far) after each iteration, rising.
    pub trace: Vec<(u64, f32)>,
}
