//! # CEM: the cross-entropy method, as PETS plans with it
//!
//! Samples sequences from a diagonal Gaussian, refits it to the best, and repeats. The mean is kept and shifted from one
//! control step to the next; the variance is reset.
//!
//! | PETS (`dmbrl/misc/optimizers/cem.py`) | here |
//! |---|---|
//! | `popsize`, `num_elites`, `max_iters` | [`CemConfig::population`], [`CemConfig::elites`], [`CemConfig::iterations`] |
//! | `alpha`, on mean and variance | [`CemConfig::alpha`] |
//! | `init_var = (ub − lb)² / 16` | [`CemConfig::initial_std`] = 0.5 half ranges |
//! | `truncnorm(−2, 2)` | [`CemConfig::truncation`] |
//! | `constrained_var` | [`CemConfig::constrain_variance`] |
//! | `epsilon` | [`CemConfig::variance_stop`] |
//!
//! Differences from PETS: everything is in units of half the action range, so `variance_stop` is too (PETS's is in
//! environment units); a new episode forgets the mean; candidates without a finite return are left out (PETS gives them
//! a cost of 10⁶); `variance_stop` is checked after an iteration, so that at least one runs.
//!
//! ## References
//! \[1\] Chua et al. (2018), *Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics Models*,
//! NeurIPS. arXiv:1805.12114
//! \[2\] Rubinstein, Kroese (2004), *The Cross-Entropy Method*, Springer.

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Rng};
use mbrl_model::{Propagation, truncated_normals};
use serde::{Deserialize, Serialize};

use crate::{
    Cem, PlanError, Scored, SequenceSampler, Shooting,
    error::{refused, require},
    sampler::{around, blend, check_sizes, sampler_width},
    warm_start::{Tail, shift},
};

const NAME: &str = "cem";

/// Which sequence CEM and [`Icem`](crate::Icem) execute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Execute {
    /// The mean of the last distribution (CEM's default; PETS).
    #[default]
    Mean,
    /// The best sequence: CEM's of this control step, from which the next one starts as well; iCEM's of the last
    /// iteration (its default), while the next control step starts from the mean.
    Best,
}

/// Settings of [`Cem`]. The default is PETS's for its cart-pole \[1\].
///
/// ```
/// use mbrl_plan::{ActionSpace, BoxSpace, CemConfig, Propagation};
///
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 3.0)?);
/// let planner = CemConfig { population: 200, elites: 20, ..CemConfig::default() }.init(&actions, Propagation::MEAN)?;
/// assert!(CemConfig { elites: 500, ..CemConfig::default() }.init(&actions, Propagation::MEAN).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CemConfig {
    /// Horizon in steps, `H` (default: 25).
    pub horizon: usize,
    /// Candidates per iteration, `K` (default: 400).
    pub population: usize,
    /// Elites: how many of the candidates the distribution is refitted to (default: 40).
    pub elites: usize,
    /// Iterations per control step (default: 5).
    pub iterations: usize,
    /// Weight of the old mean and of the old **variance** (as in PETS; iCEM smooths the standard deviation) in `[0, 1)`
    /// (default: 0.1).
    pub alpha: f32,
    /// Standard deviation at the start of each control step, in half ranges (default: 0.5, a quarter of the range).
    pub initial_std: f32,
    /// Iterations end when no variance is above this, in half ranges squared (default: 1e-3).
    pub variance_stop: f32,
    /// Samples lie within this many standard deviations of the mean (default: 2). `inf` turns truncation off.
    pub truncation: f32,
    /// Whether the standard deviation is held below half the distance to the nearer bound, so that samples truncated at
    /// 2 never leave the bounds (default: true). Near a bound this leaves little room to explore: a warm start that lies on a
    /// bound hardly leaves it. With `false`, samples are clipped instead. Has no effect among discrete choices.
    pub constrain_variance: bool,
    /// Which sequence is executed (default: the mean).
    #[serde(alias = "returns")]
    pub execute: Execute,
    /// What fills the end of the shifted mean (default: the middle of the range).
    pub tail: Tail,
}

impl Default for CemConfig {
    fn default() -> Self {
        Self {
            horizon: 25,
            population: 400,
            elites: 40,
            iterations: 5,
            alpha: 0.1,
            initial_std: 0.5,
            variance_stop: 1e-3,
            truncation: 2.0,
            constrain_variance: true,
            execute: Execute::Mean,
            tail: Tail::Middle,
        }
    }
}

impl CemConfig {
    /// Settings for [`search`](crate::optimize::search): one vector of parameters instead of a sequence, many
    /// iterations, and nothing that presumes bounds or ends early.
    #[must_use]
    pub fn for_search() -> Self {
        Self {
            horizon: 1,
            elites: 80,
            iterations: 200,
            variance_stop: 0.0,
            truncation: f32::INFINITY,
            constrain_variance: false,
            ..Self::default()
        }
    }

    /// A planner for an action space.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, [`PlanError::ActionSpace`] for a space that is
    /// neither a bounded box nor discrete.
    pub fn init(&self, actions: &ActionSpace, propagation: Propagation) -> Result<Cem, PlanError> {
        let width = sampler_width(actions, NAME)?;
        // A choice is the largest of several unbounded numbers: there are no bounds to keep away from.
        let constrain_variance = self.constrain_variance && !matches!(actions, ActionSpace::Discrete(_));
        let sampler = Self { constrain_variance, ..self.clone() }.sampler(width)?;
        Shooting::new(sampler, propagation)
    }

    /// The sampler alone, for actions of `width` dimensions.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule.
    pub fn sampler(&self, width: usize) -> Result<CemSampler, PlanError> {
        let Self { horizon, population, elites, iterations, alpha, initial_std, variance_stop, truncation, .. } = *self;
        check_sizes(width, horizon, population, iterations)?;
        if !(1..=population).contains(&elites) {
            return Err(refused("elites", elites, format!("1 to {population}, the population")));
        }
        require((0.0..1.0).contains(&alpha), "alpha", alpha, "a number in [0, 1)")?;
        require(initial_std.is_finite() && initial_std > 0.0, "initial_std", initial_std, "a finite number above 0")?;
        require(
            variance_stop.is_finite() && variance_stop >= 0.0,
            "variance_stop",
            variance_stop,
            "a finite number of at least 0",
        )?;
        require(truncation > 0.0, "truncation", truncation, "a number above 0")?;
        let mut sampler =
            CemSampler { config: self.clone(), width, mean: Vec::new(), variance: Vec::new(), best: None };
        sampler.reset();
        Ok(sampler)
    }
}

/// CEM's distribution over sequences; made by [`CemConfig::sampler`].
#[derive(Debug, Clone)]
pub struct CemSampler {
    config: CemConfig,
    width: usize,
    /// `[H, A]`.
    mean: Vec<f32>,
    /// `[H, A]`.
    variance: Vec<f32>,
    /// The best sequence of this control step and its return, where [`Execute::Best`] asks for it.
    best: Option<(f32, Vec<f32>)>,
}

impl CemSampler {
    /// Mean of the distribution, `[H, A]` in row-major order.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Variance of the distribution, `[H, A]` in row-major order.
    #[must_use]
    pub fn variance(&self) -> &[f32] {
        &self.variance
    }

    /// Standard deviations that the next candidates are drawn with.
    fn sampling_std(&self) -> Vec<f32> {
        let constrain = self.config.constrain_variance;
        self.mean
            .iter()
            .zip(&self.variance)
            .map(|(mean, variance)| {
                let std = variance.sqrt();
                // The distances to the bounds −1 and 1; equivalent to the rule for variances.
                if constrain { std.min(0.5 * (mean + 1.0).min(1.0 - mean)).max(0.0) } else { std }
            })
            .collect()
    }

    /// Makes the sequence that was executed the start of the next control step.
    fn keep_best(&mut self) {
        if let Some((_, best)) = self.best.take() {
            self.mean = best;
        }
    }
}

impl SequenceSampler for CemSampler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn shape(&self) -> [usize; 2] {
        [self.config.horizon, self.width]
    }

    fn iterations(&self) -> usize {
        self.config.iterations
    }

    fn begin(&mut self) {
        self.keep_best();
        self.variance.fill(self.config.initial_std * self.config.initial_std);
    }

    fn ask(&mut self, _: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        let CemConfig { population, horizon, truncation, .. } = self.config;
        let noise = truncated_normals(rng.key(), [population, self.mean.len()], truncation, device);
        around(&self.mean, &self.sampling_std(), noise.reshape([population, horizon, self.width]))
    }

    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError> {
        let scored = Scored::new(self.shape(), iteration, candidates, returns)?;
        let (mean, variance) = scored.fit(&scored.candidates(&scored.elites(self.config.elites)));
        blend(&mut self.mean, &mean, self.config.alpha);
        blend(&mut self.variance, &variance, self.config.alpha);
        if self.config.execute == Execute::Best {
            let k = scored.best();
            if self.best.as_ref().is_none_or(|(value, _)| scored.value(k) > *value) {
                self.best = Some((scored.value(k), scored.candidate(k)));
            }
        }
        Ok(())
    }

    fn adopt(&mut self, iteration: usize, sequence: Tensor<3>, value: f32) -> Result<(), PlanError> {
        // This sequence will be executed, even where another scored better under the random draws of sampling.
        self.best = None;
        self.tell(iteration, sequence, &[value])
    }

    fn converged(&self) -> bool {
        self.variance.iter().all(|v| *v <= self.config.variance_stop)
    }

    fn presumes_bounds(&self) -> bool {
        self.config.constrain_variance
    }

    fn solution(&self) -> Vec<f32> {
        self.best.as_ref().map_or(&self.mean, |(_, best)| best).clone()
    }

    fn advance(&mut self, executed: usize) {
        self.keep_best();
        shift(&mut self.mean, self.width, executed, self.config.tail);
    }

    fn reset(&mut self) {
        let len = self.config.horizon * self.width;
        self.mean = vec![0.0; len];
        self.variance = vec![self.config.initial_std * self.config.initial_std; len];
        self.best = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::to_host;

    fn sampler(config: CemConfig) -> CemSampler {
        config.sampler(1).unwrap()
    }

    fn tell<const K: usize, const H: usize>(sampler: &mut CemSampler, sequences: [[f32; H]; K], returns: [f32; K]) {
        let device = Device::flex();
        let candidates = Tensor::<2>::from_floats(sequences, &device).unsqueeze_dim(2);
        sampler.tell(0, candidates, &returns).unwrap();
    }

    fn assert_near(actual: &[f32], expected: &[f32]) {
        let near = actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-6);
        assert!(near, "{actual:?}, expected {expected:?}");
    }

    #[test]
    fn the_refit_by_hand() {
        let config = CemConfig { horizon: 2, population: 4, elites: 2, alpha: 0.25, ..CemConfig::default() };
        let mut cem = sampler(config);
        cem.begin();
        // Elites are the second and the fourth: means 0.4 and −0.1, variances (divisor 2) 0.04 and 0.01.
        let sequences = [[0.9, 0.9], [0.2, 0.0], [-0.9, -0.9], [0.6, -0.2]];
        tell(&mut cem, sequences, [-5.0, 3.0, -7.0, 1.0]);
        assert_near(cem.mean(), &[0.3, -0.075]);
        // The variance is smoothed, not the standard deviation: 0.25 · 0.25 + 0.75 · 0.04 and 0.01.
        assert_near(cem.variance(), &[0.0925, 0.07]);
        // A second one smooths again.
        tell(&mut cem, sequences, [-5.0, 3.0, -7.0, 1.0]);
        assert_near(cem.mean(), &[0.375, -0.09375]);
        assert_near(cem.variance(), &[0.053125, 0.025]);
        // The mean is executed.
        assert_near(&cem.solution(), &[0.375, -0.09375]);
    }

    #[test]
    fn candidates_without_a_finite_return_are_no_elites() {
        let config = CemConfig { horizon: 1, population: 4, elites: 3, alpha: 0.0, ..CemConfig::default() };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut cem = sampler(config.clone());
            tell(&mut cem, [[1.0], [0.4], [1.0], [0.2]], [bad, -1e9, bad, -1e9]);
            assert_near(cem.mean(), &[0.3]);
            assert_near(cem.variance(), &[0.01]);
        }
    }

    #[test]
    fn the_variance_is_constrained_by_the_nearer_bound() {
        let mut cem = sampler(CemConfig { horizon: 4, ..CemConfig::default() });
        cem.mean = vec![0.0, 0.8, -0.9, 1.0];
        // min(((μ + 1) / 2)², ((1 − μ) / 2)², 0.5²), as standard deviations.
        assert_near(&cem.sampling_std(), &[0.5, 0.1, 0.05, 0.0]);
        let drawn = to_host(cem.ask(0, &Device::flex(), &mut Rng::new(0)));
        assert!(drawn.iter().all(|x| x.abs() <= 1.0), "left the bounds");
        cem.config.constrain_variance = false;
        assert_near(&cem.sampling_std(), &[0.5; 4]);
    }

    #[test]
    fn samples_have_the_mean_and_spread_of_the_distribution() {
        let mut cem = sampler(CemConfig { horizon: 2, population: 20_000, ..CemConfig::default() });
        cem.mean = vec![0.3, -0.4];
        cem.variance = vec![0.01, 0.04];
        let drawn = to_host(cem.ask(0, &Device::flex(), &mut Rng::new(0)));
        for (t, (mean, std)) in [(0.3, 0.1), (-0.4, 0.2)].into_iter().enumerate() {
            let column: Vec<f32> = drawn.iter().skip(t).step_by(2).copied().collect();
            assert!(column.iter().all(|x| (x - mean).abs() <= 2.0 * std + 1e-6));
            let n = column.len() as f32;
            let m = column.iter().sum::<f32>() / n;
            let v = column.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
            assert!((m - mean).abs() < 0.05 * std, "mean {m}, expected {mean}");
            assert!((v / (std * std) - 0.774).abs() < 0.03, "variance {v} of {std}²");
        }
    }

    #[test]
    fn the_warm_start_is_the_shifted_mean_with_a_fresh_variance() {
        let mut cem = sampler(CemConfig { horizon: 3, elites: 1, population: 2, alpha: 0.0, ..CemConfig::default() });
        tell(&mut cem, [[0.1, 0.2, 0.3], [0.0; 3]], [1.0, 0.0]);
        assert!(cem.converged(), "one elite has no variance");
        cem.advance(1);
        cem.begin();
        assert_eq!(cem.mean(), [0.2, 0.3, 0.0]);
        assert_eq!(cem.variance(), [0.25; 3]);
        cem.config.tail = Tail::Last;
        cem.advance(2);
        assert_eq!(cem.mean(), [0.0, 0.0, 0.0]);
        cem.reset();
        assert_eq!(cem.mean(), [0.0; 3]);
    }

    #[test]
    fn the_best_of_a_control_step_is_executed_and_then_shifted() {
        let config = CemConfig { horizon: 2, elites: 2, population: 2, execute: Execute::Best, ..CemConfig::default() };
        let mut cem = sampler(config);
        cem.begin();
        tell(&mut cem, [[0.1, 0.2], [0.5, 0.6]], [1.0, 9.0]);
        tell(&mut cem, [[0.3, 0.4], [0.7, 0.8]], [1.0, 2.0]);
        assert_eq!(cem.solution(), [0.5, 0.6]);
        cem.advance(1);
        assert_eq!(cem.mean(), [0.6, 0.0]);
        cem.begin();
        // The next control step starts with no best: a lower return than before is now the best.
        tell(&mut cem, [[0.1, 0.2], [0.2, 0.2]], [-1.0, -2.0]);
        assert_eq!(cem.solution(), [0.1, 0.2]);
        cem.reset();
        assert_eq!(cem.solution(), [0.0, 0.0]);
    }

    #[test]
    fn what_a_refinement_made_is_where_the_next_step_starts() {
        let config = CemConfig { horizon: 2, elites: 2, population: 2, execute: Execute::Best, ..CemConfig::default() };
        let mut cem = sampler(config);
        cem.begin();
        tell(&mut cem, [[0.1, 0.2], [0.5, 0.6]], [1.0, 9.0]);
        // Under other draws of noise the better sequence has a lower value than the best one had.
        let refined = Tensor::<3>::from_floats([[[0.7], [0.8]]], &Device::flex());
        cem.adopt(1, refined, 8.0).unwrap();
        assert_eq!(cem.solution(), [0.7, 0.8]);
        cem.advance(1);
        assert_eq!(cem.mean(), [0.8, 0.0]);
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |config: CemConfig| config.sampler(1).unwrap_err().to_string();
        let base = CemConfig::default;
        assert_eq!(fails(CemConfig { horizon: 0, ..base() }), "horizon = 0: expected at least one step");
        assert_eq!(fails(CemConfig { population: 0, ..base() }), "population = 0: expected at least one candidate");
        assert_eq!(fails(CemConfig { iterations: 0, ..base() }), "iterations = 0: expected at least one iteration");
        for elites in [0, 401] {
            let error = fails(CemConfig { elites, ..base() });
            assert_eq!(error, format!("elites = {elites}: expected 1 to 400, the population"));
        }
        for alpha in [-0.1, 1.0, f32::NAN] {
            assert_eq!(fails(CemConfig { alpha, ..base() }), format!("alpha = {alpha}: expected a number in [0, 1)"));
        }
        for initial_std in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = fails(CemConfig { initial_std, ..base() });
            assert_eq!(error, format!("initial_std = {initial_std}: expected a finite number above 0"));
        }
        for variance_stop in [-1.0, f32::NAN] {
            let error = fails(CemConfig { variance_stop, ..base() });
            assert_eq!(error, format!("variance_stop = {variance_stop}: expected a finite number of at least 0"));
        }
        for truncation in [0.0, -2.0, f32::NAN] {
            let error = fails(CemConfig { truncation, ..base() });
            assert_eq!(error, format!("truncation = {truncation}: expected a number above 0"));
        }
        assert!(base().sampler(0).is_err());
    }
}
