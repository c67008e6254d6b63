//! The optimizers under the planners, for any function of any parameter vector.
//!
//! First order: [`ascend`], Adam from many starts at once. Zeroth order: [`search`] with any
//! [`SequenceSampler`](crate::SequenceSampler), such as the cross-entropy method, iCEM and MPPI. All maximise; negate a loss.

#[cfg(feature = "gradient")]
mod ascend;
mod search;

#[cfg(feature = "gradient")]
pub use ascend::{AscendConfig, ascend};
pub use search::search;

use burn::tensor::{Device, Tensor};

use crate::{
    PlanError,
    error::{check_size, require},
    host::to_device,
};

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
    /// The most evaluations of the function; a gradient counts as one more.
    pub evaluations: u64,
    /// Stops once a value of this or more was found; `INFINITY` for no such limit.
    pub value: f32,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// The best parameters evaluated, `[D]`.
    pub parameters: Vec<f32>,
    /// Their value.
    pub value: f32,
    /// Evaluations of the function, gradients included.
    pub evaluations: u64,
    /// (evaluations, best value so far) after each iteration, rising; −∞ before anything finite was found.
    pub trace: Vec<(u64, f32)>,
}

impl Stop {
    /// Refuses a limit below `least` evaluations, and a value that cannot be compared with (NaN).
    fn check(self, least: u64, rule: &'static str) -> Result<(), PlanError> {
        require(self.evaluations >= least, "stop.evaluations", self.evaluations, rule)?;
        require(!self.value.is_nan(), "stop.value", self.value, "a number, or INFINITY for none")
    }
}

/// An objective as a function of parameters in the units of a region.
struct InUnits<'a> {
    objective: &'a dyn Objective,
    /// `[1, D]`, as is the scale.
    centre: Tensor<2>,
    scale: Tensor<2>,
}

impl<'a> InUnits<'a> {
    /// # Errors
    /// [`PlanError::Width`] for a region with another number of dimensions, [`PlanError::NonFinite`] for a centre or a scale that
    /// is not finite, [`PlanError::Config`] for a scale that is not above 0.
    fn new(objective: &'a dyn Objective, region: &Region, dimensions: usize) -> Result<Self, PlanError> {
        check_size("entries of region.centre", dimensions, region.centre.len())?;
        check_size("entries of region.scale", dimensions, region.scale.len())?;
        for (what, values) in [("region.centre", &region.centre), ("region.scale", &region.scale)] {
            if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                return Err(PlanError::NonFinite { what, index, value: values[index] });
            }
        }
        let least = region.scale.iter().copied().fold(f32::INFINITY, f32::min);
        require(least > 0.0, "region.scale", least, "a number above 0 in every dimension")?;
        let row = |values: &[f32]| to_device(values.to_vec(), [1, dimensions], &region.device);
        Ok(Self { objective, centre: row(&region.centre), scale: row(&region.scale) })
    }

    /// Parameters `[K, D]` from units `[K, D]`.
    fn parameters(&self, units: Tensor<2>) -> Tensor<2> {
        units * self.scale.clone() + self.centre.clone()
    }

    /// Values `[K]` at units `[K, D]`.
    fn evaluate(&self, units: Tensor<2>) -> Result<Tensor<1>, PlanError> {
        let count = units.dims()[0];
        let values = self.objective.evaluate(self.parameters(units));
        check_size("values of the objective", count, values.dims()[0])?;
        Ok(values)
    }
}
