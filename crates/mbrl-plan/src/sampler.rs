//! Ask/tell: all that distinguishes one shooting planner from another.

use std::fmt::Debug;

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Rng};

use crate::{
    PlanError,
    error::{check_size, require},
    host::to_host,
    units::bounded,
};

/// Proposes sequences of actions and learns from their returns.
///
/// A sampler knows neither model nor reward nor environment units: it works in units of half the action range, where
/// every action lies in `[-1, 1]^A`. Among n discrete choices A is n, and the largest of the n numbers is the choice.
/// [`Shooting`](crate::Shooting) makes a planner of it:
///
/// ```text
/// begin → (ask → score → tell) × iterations, or until converged → solution
/// ```
///
/// Contract:
/// - `ask` may leave `[-1, 1]`; the caller clips, and tells of the clipped sequences (of 1 for a choice, −1 for the others);
/// - `tell` may be given more sequences than were asked for (proposals of a policy), and returns of −∞, which never
///   count;
/// - every random number comes from the `rng` that was passed in;
/// - `reset` brings back the state of a new sampler.
///
/// A complete implementation, random shooting:
///
/// ```
/// use mbrl_env::{ActionSpace, Rng};
/// use mbrl_plan::{Device, PlanError, SequenceSampler, Tensor, Told};
///
/// #[derive(Debug)]
/// struct Random { population: usize, shape: [usize; 2], best: Vec<f32> }
///
/// impl SequenceSampler for Random {
///     fn name(&self) -> &'static str { "random shooting" }
///     fn shape(&self) -> [usize; 2] { self.shape }
///     fn iterations(&self) -> usize { 1 }
///     fn begin(&mut self) {}
///     fn ask(&mut self, _: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
///         let [horizon, width] = self.shape;
///         let draws: Vec<f32> = (0..self.population * horizon * width).map(|_| rng.uniform(-1.0, 1.0)).collect();
///         Tensor::<1>::from_floats(draws.as_slice(), device).reshape([self.population, horizon, width])
///     }
///     fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: Tensor<1>) -> Result<(), PlanError> {
///         let told = Told::new(self.shape, iteration, candidates, returns)?;
///         self.best = told.candidate(told.best()).to_vec();
///         Ok(())
///     }
///     fn solution(&self, device: &Device) -> Tensor<2> {
///         Tensor::<1>::from_floats(self.best.as_slice(), device).reshape(self.shape)
///     }
///     fn advance(&mut self, _: usize) {}
///     fn reset(&mut self) {}
/// }
/// ```
pub trait SequenceSampler: Send + Debug {
    /// Name, for messages and traces.
    fn name(&self) -> &'static str;

    /// Horizon and width of an action, `[H, A]`.
    fn shape(&self) -> [usize; 2];

    /// Rounds of ask and tell a control step, at least 1.
    fn iterations(&self) -> usize;

    /// A control step begins.
    fn begin(&mut self);

    /// Sequences to be scored, `[K, H, A]`.
    fn ask(&mut self, iteration: usize, device: &Device, rng: &mut Rng) -> Tensor<3>;

    /// What sequences `[K', H, A]` brought, `[K']`.
    ///
    /// # Errors
    /// [`PlanError::Width`] for arrays of the wrong size, [`PlanError::NoFiniteReturn`].
    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: Tensor<1>) -> Result<(), PlanError>;

    /// Whether further iterations would change nothing.
    fn converged(&self) -> bool {
        false
    }

    /// Whether its samples keep to `[-1, 1]` by themselves, so that it cannot search where there are no bounds.
    fn presumes_bounds(&self) -> bool {
        false
    }

    /// The sequence to be executed, `[H, A]`.
    fn solution(&self, device: &Device) -> Tensor<2>;

    /// The first `executed` actions of the solution were executed.
    fn advance(&mut self, executed: usize);

    /// A new episode begins.
    fn reset(&mut self);
}

/// Scored sequences on the host, for samplers that work there.
#[derive(Debug, Clone)]
pub struct Told {
    sequences: Vec<f32>,
    /// Length of one sequence, `H·A`.
    len: usize,
    /// Indices of the sequences with finite returns, ascending; never empty.
    finite: Vec<usize>,
    returns: Vec<f32>,
}

impl Told {
    /// Fetches sequences `[K, H, A]` and returns `[K]`, and leaves out what has no finite return.
    ///
    /// # Errors
    /// [`PlanError::Width`] for arrays of the wrong size, [`PlanError::NoFiniteReturn`] where nothing is left.
    pub fn new(
        shape: [usize; 2],
        iteration: usize,
        candidates: Tensor<3>,
        returns: Tensor<1>,
    ) -> Result<Self, PlanError> {
        let [population, horizon, width] = candidates.dims();
        check_size("horizon of the candidates", shape[0], horizon)?;
        check_size("width of the candidates' actions", shape[1], width)?;
        check_size("returns of the candidates", population, returns.dims()[0])?;
        let returns = to_host(returns);
        let finite: Vec<usize> = (0..population).filter(|&k| returns[k].is_finite()).collect();
        if finite.is_empty() {
            return Err(PlanError::NoFiniteReturn { population, iteration });
        }
        Ok(Self { sequences: to_host(candidates), len: horizon * width, finite, returns })
    }

    /// Indices of the sequences with finite returns, ascending.
    #[must_use]
    pub fn finite(&self) -> &[usize] {
        &self.finite
    }

    /// Sequence `k`, `[H, A]` in row-major order.
    #[must_use]
    pub fn candidate(&self, k: usize) -> &[f32] {
        &self.sequences[k * self.len..(k + 1) * self.len]
    }

    /// Return of sequence `k`.
    #[must_use]
    pub fn value(&self, k: usize) -> f32 {
        self.returns[k]
    }

    /// The sequence with the largest return, the first of equals.
    #[must_use]
    pub fn best(&self) -> usize {
        self.elites(1)[0]
    }

    /// The `count` sequences with the largest finite returns, or all where there are fewer; of equals the first ones.
    /// Ascending indices.
    #[must_use]
    pub fn elites(&self, count: usize) -> Vec<usize> {
        let mut order = self.finite.clone();
        if count < order.len() {
            // A total order, so that the chosen set does not depend on the selection algorithm.
            order.select_nth_unstable_by(count, |&a, &b| {
                self.returns[b].total_cmp(&self.returns[a]).then_with(|| a.cmp(&b))
            });
            order.truncate(count);
            order.sort_unstable();
        }
        order
    }

    /// Mean and variance over sequences, given as index and weight, entry by entry `[H·A]`. Weights are relative:
    /// their sum, which is above 0, is divided by.
    pub(crate) fn moments(&self, weights: &[(usize, f64)]) -> (Vec<f64>, Vec<f64>) {
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut mean = vec![0.0; self.len];
        for &(k, weight) in weights {
            mean.iter_mut().zip(self.candidate(k)).for_each(|(m, x)| *m += weight * f64::from(*x));
        }
        mean.iter_mut().for_each(|m| *m /= total);
        let mut variance = vec![0.0; self.len];
        for &(k, weight) in weights {
            for ((v, m), x) in variance.iter_mut().zip(&mean).zip(self.candidate(k)) {
                *v += weight * (f64::from(*x) - m).powi(2);
            }
        }
        variance.iter_mut().for_each(|v| *v /= total);
        (mean, variance)
    }

    /// [`Self::moments`] of equally weighted sequences.
    pub(crate) fn fit(&self, chosen: &[usize]) -> (Vec<f64>, Vec<f64>) {
        self.moments(&chosen.iter().map(|&k| (k, 1.0)).collect::<Vec<_>>())
    }
}

/// Moves `old` towards `new`, keeping the share `alpha` of the old.
pub(crate) fn blend(old: &mut [f32], new: &[f64], alpha: f32) {
    let alpha = f64::from(alpha);
    old.iter_mut().zip(new).for_each(|(old, new)| *old = (alpha * f64::from(*old) + (1.0 - alpha) * new) as f32);
}

/// Numbers a step that a sampler draws for an action space: the width of a bounded box, or one for each choice.
///
/// # Errors
/// [`PlanError::ActionSpace`] for other spaces.
pub(crate) fn sampler_width(actions: &ActionSpace, planner: &'static str) -> Result<usize, PlanError> {
    match actions {
        ActionSpace::Discrete(choices) if *choices > 0 => Ok(*choices),
        _ => Ok(bounded(actions, planner, "bounded boxes of actions and among discrete choices")?.width()),
    }
}

/// Rules that every sampler's sizes keep.
pub(crate) fn check_sizes(width: usize, horizon: usize, population: usize, iterations: usize) -> Result<(), PlanError> {
    require(width > 0, "width", width, "at least one action dimension")?;
    require(horizon > 0, "horizon", horizon, "at least one step")?;
    require(population > 0, "population", population, "at least one candidate")?;
    require(iterations > 0, "iterations", iterations, "at least one iteration")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(returns: &[f32]) -> Result<Told, PlanError> {
        let device = Device::flex();
        let k = returns.len();
        let sequences: Vec<f32> = (0..k).flat_map(|k| [k as f32, -(k as f32)]).collect();
        let candidates = Tensor::<1>::from_floats(sequences.as_slice(), &device).reshape([k, 2, 1]);
        Told::new([2, 1], 3, candidates, Tensor::from_floats(returns, &device))
    }

    #[test]
    fn nothing_that_is_not_finite_is_an_elite() {
        let told = told(&[f32::NAN, 1.0, f32::NEG_INFINITY, 3.0, f32::INFINITY, 2.0]).unwrap();
        assert_eq!(told.finite(), [1, 3, 5]);
        assert_eq!(told.elites(2), [3, 5]);
        assert_eq!(told.elites(6), [1, 3, 5]);
        assert_eq!(told.candidate(told.best()), [3.0, -3.0]);
    }

    #[test]
    fn of_equals_the_first_are_elites() {
        let told = told(&[0.0, 1.0, 1.0, 1.0, 2.0, 1.0]).unwrap();
        assert_eq!(told.elites(3), [1, 2, 4]);
        assert_eq!(told.elites(1), [4]);
    }

    #[test]
    fn nothing_finite_is_an_error_that_names_the_iteration() {
        let error = told(&[f32::NAN, f32::NEG_INFINITY]).unwrap_err();
        assert_eq!(error.to_string(), "none of the 2 candidates of iteration 3 has a finite return");
    }
}
