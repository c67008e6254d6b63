//! Adam from many starts at once.

use mbrl_env::Rng;
use serde::{Deserialize, Serialize};

use super::{Found, InUnits, Objective, Region, Stop};
use crate::{
    PlanError,
    climb::{Climb, random, value_and_gradient},
    error::require,
    host::{to_device, to_host},
};

/// After so many rounds of starts without a finite value, the search gives up.
const HOPELESS: usize = 100;

/// Settings of [`ascend`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AscendConfig {
    /// Points that climb, `K` (default: 8). The first starts from the centre of the region; the others uniformly in it, or
    /// from a standard normal in its units where it has no bounds.
    pub starts: usize,
    /// Length of the first steps in each dimension, in units of the region (default: 0.1: ten steps are a radius of the
    /// region; with larger steps, success is luck).
    pub learning_rate: f32,
}

impl Default for AscendConfig {
    fn default() -> Self {
        Self { starts: 8, learning_rate: 0.1 }
    }
}

/// Maximises a differentiable function by following its gradient from many starts, with Adam and its constants from \[1\].
///
/// All starts share one graph and one backward pass per iteration. Each climbs independently: one that has not improved for ten
/// steps, or that has stepped to where the function is not finite, goes back to its best place with steps half as long, so the
/// search converges to a point however long the first steps are. One that has never seen a finite value starts afresh. Points
/// are kept in a bounded region by projection.
///
/// An iteration costs two evaluations per start, one of them for the gradient. The search ends as `stop` says, or when no start
/// can improve any more. The same seed gives the same bits.
///
/// ```
/// use mbrl_plan::{Device, Rng, Tensor, optimize::{AscendConfig, Region, Stop, ascend}};
///
/// // The summit is at (1, −2).
/// let hill = |x: Tensor<2>| {
///     let summit = Tensor::<2>::from_floats([[1.0, -2.0]], &x.device());
///     -(x - summit).square().sum_dim(1).squeeze_dim::<1>(1)
/// };
/// let region = Region { centre: vec![0.0; 2], scale: vec![3.0; 2], bounded: true, device: Device::flex() };
/// let stop = Stop { evaluations: 10_000, value: -1e-6 };
/// let found = ascend(&hill, &region, &AscendConfig::default(), stop, &mut Rng::new(0))?;
/// assert!(found.value >= -1e-6 && found.evaluations < 10_000);
/// # Ok::<(), mbrl_plan::PlanError>(())
/// ```
///
/// # Errors
/// [`PlanError::Config`], [`PlanError::Width`] or [`PlanError::NonFinite`] for a value that breaks its rule,
/// [`PlanError::NoFiniteReturn`] where nothing finite was found, at the latest after 100 iterations.
///
/// ## References
/// \[1\] Kingma, Ba (2015), *Adam: A Method for Stochastic Optimization*, ICLR. arXiv:1412.6980
pub fn ascend(
    objective: &dyn Objective,
    region: &Region,
    config: &AscendConfig,
    stop: Stop,
    rng: &mut Rng,
) -> Result<Found, PlanError> {
    let AscendConfig { starts, learning_rate } = *config;
    let len = region.centre.len();
    require(len > 0, "entries of region.centre", len, "at least one dimension")?;
    let function = InUnits::new(objective, region, len)?;
    require(starts > 0, "starts", starts, "at least one start")?;
    require(
        learning_rate.is_finite() && learning_rate > 0.0,
        "learning_rate",
        learning_rate,
        "a finite number above 0",
    )?;
    let count = starts as u64;
    stop.check(count, "at least one evaluation per start")?;

    let mut points = vec![0.0; len];
    for _ in 1..starts {
        points.extend(random(len, region.bounded, rng));
    }
    let mut climb = Climb::new(points, len, region.bounded);
    let (mut evaluations, mut trace) = (0, Vec::new());
    loop {
        let left = stop.evaluations - evaluations;
        let hopeless = trace.len() >= HOPELESS && climb.best().is_none();
        if left < count || climb.arrived() || hopeless {
            break;
        }
        let points = to_device(climb.points().to_vec(), [starts, len], &region.device);
        // The remaining evaluations may suffice for the values of the last points but not for the gradients there.
        let (values, gradients) = if left < 2 * count {
            (to_host(function.evaluate(points)?), None)
        } else {
            let (values, gradients) = value_and_gradient(points, |points| function.evaluate(points))?;
            (values, Some(gradients))
        };
        evaluations += if gradients.is_some() { 2 * count } else { count };
        climb.see(&values);
        let best = climb.best().map_or(f32::NEG_INFINITY, |(value, _)| value);
        trace.push((evaluations, best));
        if best >= stop.value {
            break;
        }
        if let Some(gradients) = gradients {
            climb.step(&values, &gradients, learning_rate, rng);
        }
    }
    let Some((value, best)) = climb.best() else {
        return Err(PlanError::NoFiniteReturn { population: starts, iteration: trace.len() - 1 });
    };
    let parameters = to_host(function.parameters(to_device(best.to_vec(), [1, len], &region.device)));
    Ok(Found { parameters, value, evaluations, trace })
}
