//! Ask/tell: what distinguishes one shooting planner from another.

use std::fmt::Debug;

use burn::tensor::{Device, Int, Tensor, TensorData};
use mbrl_env::{ActionSpace, Rng};
use mbrl_model::is_cpu;

use crate::{
    PlanError,
    error::{check_size, require},
    host::{to_device, to_host},
    units::bounded,
};

/// Proposes sequences of actions and learns from their returns.
///
/// A sampler knows neither model nor reward nor environment units: it works in units of half the action range, where
/// every action lies in `[-1, 1]^A`. Among n discrete choices A is n, and the largest of the n numbers is the choice.
/// [`Shooting`](crate::Shooting) turns it into a planner:
///
/// ```text
/// begin → (ask → score → tell) × iterations, or until converged → solution
/// ```
///
/// Contract:
/// - `ask` may leave `[-1, 1]`; the caller clips, and `tell` gets the clipped sequences (1 for a choice, −1 for the others);
/// - `tell` may get more sequences than `ask` gave (a policy's proposals), and returns of −∞, which never count;
/// - every random number comes from the `rng` that was passed in; its keys draw in bulk on any device
///   ([`normals`](crate::normals), [`uniforms`](crate::uniforms));
/// - sequences need not leave the device: [`Scored`] fetches those that are asked for;
/// - `reset` restores the state of a new sampler.
///
/// A complete implementation, random shooting:
///
/// ```
/// use mbrl_plan::{Device, PlanError, Rng, Scored, SequenceSampler, Tensor, uniforms};
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
///         let draws = uniforms(rng.key(), [self.population, horizon * width], device) * 2.0 - 1.0;
///         draws.reshape([self.population, horizon, width])
///     }
///     fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError> {
///         let scored = Scored::new(self.shape, iteration, candidates, returns)?;
///         self.best = scored.candidate(scored.best());
///         Ok(())
///     }
///     fn solution(&self) -> Vec<f32> { self.best.clone() }
///     fn advance(&mut self, _: usize) {}
///     fn reset(&mut self) {}
/// }
/// ```
pub trait SequenceSampler: Send + Debug {
    /// Name, for messages and traces.
    fn name(&self) -> &'static str;

    /// Horizon and width of an action, `[H, A]`.
    fn shape(&self) -> [usize; 2];

    /// Rounds of ask and tell per control step, at least 1.
    fn iterations(&self) -> usize;

    /// A control step begins.
    fn begin(&mut self);

    /// Sequences to be scored, `[K, H, A]`.
    fn ask(&mut self, iteration: usize, device: &Device, rng: &mut Rng) -> Tensor<3>;

    /// Learns from the returns `[K']` of scored sequences `[K', H, A]`.
    ///
    /// # Errors
    /// [`PlanError::Width`] for arrays of the wrong size, [`PlanError::NoFiniteReturn`].
    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError>;

    /// Learns that a refinement (see [`Shooting::with_refinement`](crate::Shooting::with_refinement)) found `sequence` `[1, H, A]`, of
    /// return `value`, which will be executed instead of the solution. By default, one more iteration reports it alone.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    fn adopt(&mut self, iteration: usize, sequence: Tensor<3>, value: f32) -> Result<(), PlanError> {
        self.tell(iteration, sequence, &[value])
    }

    /// Whether further iterations would change nothing.
    fn converged(&self) -> bool {
        false
    }

    /// Whether the sampler itself keeps its samples within `[-1, 1]`, so that it cannot search where there are no bounds.
    fn presumes_bounds(&self) -> bool {
        false
    }

    /// The sequence to be executed, `[H, A]` in row-major order.
    fn solution(&self) -> Vec<f32>;

    /// The first `executed` actions of the solution were executed.
    fn advance(&mut self, executed: usize);

    /// A new episode begins.
    fn reset(&mut self);
}

impl<S: SequenceSampler + ?Sized> SequenceSampler for Box<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn shape(&self) -> [usize; 2] {
        (**self).shape()
    }
    fn iterations(&self) -> usize {
        (**self).iterations()
    }
    fn begin(&mut self) {
        (**self).begin();
    }
    fn ask(&mut self, iteration: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        (**self).ask(iteration, device, rng)
    }
    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError> {
        (**self).tell(iteration, candidates, returns)
    }
    fn adopt(&mut self, iteration: usize, sequence: Tensor<3>, value: f32) -> Result<(), PlanError> {
        (**self).adopt(iteration, sequence, value)
    }
    fn converged(&self) -> bool {
        (**self).converged()
    }
    fn presumes_bounds(&self) -> bool {
        (**self).presumes_bounds()
    }
    fn solution(&self) -> Vec<f32> {
        (**self).solution()
    }
    fn advance(&mut self, executed: usize) {
        (**self).advance(executed);
    }
    fn reset(&mut self) {
        (**self).reset();
    }
}

/// Scored sequences. On a GPU they stay there, and only those that are asked for are copied to the host.
#[derive(Debug, Clone)]
pub struct Scored {
    sequences: Sequences,
    /// Length of one sequence, `H·A`.
    len: usize,
    /// Indices of the sequences with finite returns, ascending; never empty.
    finite: Vec<usize>,
    returns: Vec<f32>,
}

/// Sequences `[K, H·A]`.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one per iteration")]
enum Sequences {
    Host(Vec<f32>),
    Device(Tensor<2>),
}

impl Scored {
    /// Takes sequences `[K, H, A]` with their returns `[K]`, and leaves out those without a finite return.
    ///
    /// # Errors
    /// [`PlanError::Width`] for arrays of the wrong size, [`PlanError::NoFiniteReturn`] where nothing is left.
    pub fn new(shape: [usize; 2], iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<Self, PlanError> {
        let [population, horizon, width] = candidates.dims();
        check_size("horizon of the candidates", shape[0], horizon)?;
        check_size("width of the candidates' actions", shape[1], width)?;
        check_size("returns of the candidates", population, returns.len())?;
        let finite: Vec<usize> = (0..population).filter(|&k| returns[k].is_finite()).collect();
        if finite.is_empty() {
            return Err(PlanError::NoFiniteReturn { population, iteration });
        }
        let len = horizon * width;
        let sequences = if is_cpu(&candidates.device()) {
            Sequences::Host(to_host(candidates))
        } else {
            Sequences::Device(candidates.reshape([population, len]))
        };
        Ok(Self { sequences, len, finite, returns: returns.to_vec() })
    }

    /// Indices of the sequences with finite returns, ascending.
    #[must_use]
    pub fn finite(&self) -> &[usize] {
        &self.finite
    }

    /// Sequence `k`, `[H, A]` in row-major order.
    #[must_use]
    pub fn candidate(&self, k: usize) -> Vec<f32> {
        self.candidates(&[k])
    }

    /// Sequences one after the other, `[chosen, H, A]` in row-major order; fetched together.
    #[must_use]
    pub fn candidates(&self, chosen: &[usize]) -> Vec<f32> {
        match &self.sequences {
            Sequences::Host(all) => chosen.iter().flat_map(|&k| self.row(all, k)).copied().collect(),
            Sequences::Device(_) if chosen.is_empty() => Vec::new(),
            Sequences::Device(all) => to_host(select(all, chosen)),
        }
    }

    fn row<'a>(&self, all: &'a [f32], k: usize) -> &'a [f32] {
        &all[k * self.len..(k + 1) * self.len]
    }

    /// Return of sequence `k`.
    #[must_use]
    pub fn value(&self, k: usize) -> f32 {
        self.returns[k]
    }

    /// The sequence with the largest return; of equals the first.
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
    /// they are divided by their sum, which is above 0. In double precision on a CPU, in single precision on other devices.
    pub(crate) fn moments(&self, weights: &[(usize, f64)]) -> (Vec<f64>, Vec<f64>) {
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let (chosen, weights): (Vec<usize>, Vec<f64>) = weights.iter().map(|(k, weight)| (*k, weight / total)).unzip();
        match &self.sequences {
            Sequences::Host(all) => {
                let rows = chosen.iter().map(|&k| self.row(all, k));
                moments(rows.zip(weights.iter().copied()), self.len)
            }
            Sequences::Device(all) => {
                let weights = weights.iter().map(|&weight| weight as f32).collect();
                let weights = to_device::<2>(weights, [chosen.len(), 1], &all.device());
                let rows = select(all, &chosen);
                // Not a matrix product, which is less precise on some GPUs.
                let mean = (rows.clone() * weights.clone()).sum_dim(0);
                let variance = ((rows - mean.clone()).square() * weights).sum_dim(0);
                let both: Vec<f64> = to_host(Tensor::cat(vec![mean, variance], 0)).into_iter().map(f64::from).collect();
                let (mean, variance) = both.split_at(self.len);
                (mean.to_vec(), variance.to_vec())
            }
        }
    }

    /// Σᵢ wᵢ (xᵢ − cᵢ) of each chosen sequence x, for a centre c and weights w, `[H·A]` each.
    pub(crate) fn weighted_deviation(&self, chosen: &[usize], centre: &[f32], weights: &[f32]) -> Vec<f64> {
        match &self.sequences {
            Sequences::Host(all) => {
                let of = |k: &usize| {
                    let row = self.row(all, *k).iter().zip(centre);
                    row.zip(weights).map(|((x, c), w)| f64::from(x - c) * f64::from(*w)).sum()
                };
                chosen.iter().map(of).collect()
            }
            Sequences::Device(all) => {
                let row = |values: &[f32]| to_device::<2>(values.to_vec(), [1, self.len], &all.device());
                let sums = ((select(all, chosen) - row(centre)) * row(weights)).sum_dim(1);
                to_host(sums).into_iter().map(f64::from).collect()
            }
        }
    }

    /// Mean and variance of sequences that were fetched ([`Self::candidates`]), entry by entry `[H·A]`.
    pub(crate) fn fit(&self, fetched: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let share = self.len as f64 / fetched.len() as f64;
        moments(fetched.chunks_exact(self.len).zip(std::iter::repeat(share)), self.len)
    }
}

/// Some rows of `[K, ·]`.
fn select(all: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows: Vec<i32> = rows.iter().map(|&k| k as i32).collect();
    let count = rows.len();
    all.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &all.device()))
}

/// Mean and variance of rows whose weights sum to 1.
fn moments<'a>(rows: impl Iterator<Item = (&'a [f32], f64)> + Clone, len: usize) -> (Vec<f64>, Vec<f64>) {
    let mut mean = vec![0.0; len];
    for (row, weight) in rows.clone() {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += weight * f64::from(*x));
    }
    let mut variance = vec![0.0; len];
    for (row, weight) in rows {
        for ((v, m), x) in variance.iter_mut().zip(&mean).zip(row) {
            *v += weight * (f64::from(*x) - m).powi(2);
        }
    }
    (mean, variance)
}

/// Sequences `[K, H, A]` with a mean and a standard deviation `[H, A]`, from standard noise.
pub(crate) fn around(mean: &[f32], std: &[f32], noise: Tensor<3>) -> Tensor<3> {
    let [_, horizon, width] = noise.dims();
    let row = |values: &[f32]| to_device(values.to_vec(), [1, horizon, width], &noise.device());
    let (mean, std) = (row(mean), row(std));
    noise * std + mean
}

/// Moves `old` towards `new`, keeping the share `alpha` of the old.
pub(crate) fn blend(old: &mut [f32], new: &[f64], alpha: f32) {
    let alpha = f64::from(alpha);
    old.iter_mut().zip(new).for_each(|(old, new)| *old = (alpha * f64::from(*old) + (1.0 - alpha) * new) as f32);
}

/// Numbers per step that a sampler draws for an action space: the width of a bounded box, or one for each choice.
///
/// # Errors
/// [`PlanError::ActionSpace`] for other spaces.
pub(crate) fn sampler_width(actions: &ActionSpace, planner: &'static str) -> Result<usize, PlanError> {
    // A number per choice, step and candidate: beyond this no memory would suffice, nor would a search find anything.
    const CHOICES: usize = 1 << 16;
    match actions {
        ActionSpace::Discrete(choices) if (1..=CHOICES).contains(choices) => Ok(*choices),
        ActionSpace::Discrete(choices) if *choices > CHOICES => Err(PlanError::ActionSpace {
            planner,
            expected: "at most 65536 discrete choices",
            space: format!("discrete with {choices} choices"),
        }),
        _ => Ok(bounded(actions, planner, "a bounded box or discrete choices")?.width()),
    }
}

/// Rules for the sizes of every sampler.
pub(crate) fn check_sizes(width: usize, horizon: usize, population: usize, iterations: usize) -> Result<(), PlanError> {
    require(width > 0, "width", width, "at least one action dimension")?;
    require(horizon > 0, "horizon", horizon, "at least one step")?;
    require(population > 0, "population", population, "at least one candidate")?;
    require(iterations > 0, "iterations", iterations, "at least one iteration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_beyond_all_memory_are_refused() {
        assert_eq!(sampler_width(&ActionSpace::Discrete(1 << 16), "test").unwrap(), 1 << 16);
        for choices in [(1 << 16) + 1, usize::MAX] {
            let error = sampler_width(&ActionSpace::Discrete(choices), "test").unwrap_err().to_string();
            assert!(error.contains("expected at most 65536 discrete choices"), "{error}");
        }
        assert!(sampler_width(&ActionSpace::Discrete(0), "test").is_err());
    }

    fn scored(returns: &[f32]) -> Result<Scored, PlanError> {
        let device = Device::flex();
        let k = returns.len();
        let sequences: Vec<f32> = (0..k).flat_map(|k| [k as f32, -(k as f32)]).collect();
        let candidates = Tensor::<1>::from_floats(sequences.as_slice(), &device).reshape([k, 2, 1]);
        Scored::new([2, 1], 3, candidates, returns)
    }

    #[test]
    fn nothing_that_is_not_finite_is_an_elite() {
        let scored = scored(&[f32::NAN, 1.0, f32::NEG_INFINITY, 3.0, f32::INFINITY, 2.0]).unwrap();
        assert_eq!(scored.finite(), [1, 3, 5]);
        assert_eq!(scored.elites(2), [3, 5]);
        assert_eq!(scored.elites(6), [1, 3, 5]);
        assert_eq!(scored.candidate(scored.best()), [3.0, -3.0]);
        assert_eq!(scored.candidates(&[5, 1]), [5.0, -5.0, 1.0, -1.0]);
    }

    #[test]
    fn sequences_that_stay_on_the_device_give_the_same() {
        let host = scored(&[1.0, f32::NAN, -2.0, 3.0, 0.5]).unwrap();
        let Sequences::Host(all) = host.sequences.clone() else { panic!("a CPU's sequences are on the host") };
        let device = Scored { sequences: Sequences::Device(to_device(all, [5, 2], &Device::flex())), ..host.clone() };
        assert_eq!(device.candidates(&[4, 0, 3]), host.candidates(&[4, 0, 3]));
        let near = |a: Vec<f64>, b: Vec<f64>| {
            assert!(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} and {b:?}");
        };
        let weights = [(0, 1.0), (2, 0.25), (3, 0.125), (4, 0.01)];
        let ((a, b), (c, d)) = (host.moments(&weights), device.moments(&weights));
        near(a.clone(), c);
        near(b, d);
        // By hand: (0 + 2/4 + 3/8 + 0.04) / 1.385.
        near(a, vec![0.915 / 1.385, -0.915 / 1.385]);
        assert!(device.candidates(&[]).is_empty());
        // (3 − 1) · 0.5 + (−3 − 2) · 2, and for the other (2 − 1) · 0.5 + (−2 − 2) · 2.
        for scored in [&host, &device] {
            near(scored.weighted_deviation(&[3, 2], &[1.0, 2.0], &[0.5, 2.0]), vec![-9.0, -7.5]);
        }
        let (mean, variance) = host.fit(&host.candidates(&[0, 4]));
        near(mean, vec![2.0, -2.0]);
        near(variance, vec![4.0, 4.0]);
    }

    #[test]
    fn of_equals_the_first_are_elites() {
        let scored = scored(&[0.0, 1.0, 1.0, 1.0, 2.0, 1.0]).unwrap();
        assert_eq!(scored.elites(3), [1, 2, 4]);
        assert_eq!(scored.elites(1), [4]);
    }

    #[test]
    fn nothing_finite_is_an_error_that_names_the_iteration() {
        let error = scored(&[f32::NAN, f32::NEG_INFINITY]).unwrap_err();
        assert_eq!(error.to_string(), "none of the 2 candidates of iteration 3 has a finite return");
    }
}
