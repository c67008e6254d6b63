//! # MPPI: model-predictive path integral control
//!
//! Adds Gaussian noise to the last plan; the new plan is the mean of all candidates, weighted by their exponentiated
//! returns.
//!
//! | information-theoretic MPPI \[1\] | here |
//! |---|---|
//! | `K`, `T` | [`MppiConfig::population`], [`MppiConfig::horizon`] |
//! | `Σ`, diagonal | [`MppiConfig::sigma`], its roots |
//! | `λ` | 1 / [`MppiConfig::kappa`] |
//! | `w_k ∝ exp(−(S_k − min S) / λ)`, `u_t ← u_t + Σ_k w_k ε_t^k` | returns are −S; the same where nothing is clipped |
//! | `γ u_tᵀ Σ⁻¹ ε_t` in `S`, `γ = λ (1 − α)` | [`MppiConfig::control_cost`] = 1 − α |
//!
//! The control cost comes from the paper's derivation, where staying near zero control is part of the goal: it
//! draws the plan to the middle of the action range, whatever the reward says. The default leaves it out (α = 1, as
//! in mbrl-lib and PDDM), since here the reward accounts for effort; 1 gives `pytorch_mppi`'s form (α = 0). As in
//! `pytorch_mppi`, ε is the noise that is left after clipping.
//!
//! Two extensions, off by default: the spread is refitted with the same weights, to the best candidates, as in TD-MPC2
//! \[2\] ([`MppiConfig::adapt_std`], [`MppiConfig::elites`]), which lets iterations converge; returns are scaled to
//! [0, 1] in each iteration, as PI² scales its costs \[3\] ([`MppiConfig::normalize_returns`]), which makes κ independent of
//! the scale of the reward.
//!
//! Differences from `pytorch_mppi`: the first plan is the middle of the range instead of noise. mbrl-lib's planner of
//! this name is PDDM's, see [`PddmConfig::code_compat`](crate::PddmConfig::code_compat).
//!
//! ## References
//! \[1\] Williams et al. (2018), *Information-Theoretic Model Predictive Control: Theory and Applications to Autonomous
//! Driving*, IEEE Transactions on Robotics 34. arXiv:1707.02342
//! \[2\] Hansen et al. (2024), *TD-MPC2: Scalable, Robust World Models for Continuous Control*, ICLR. arXiv:2310.16828
//! \[3\] Theodorou et al. (2010), *A Generalized Path Integral Control Approach to Reinforcement Learning*, JMLR 11.

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Rng};
use mbrl_model::Propagation;
use serde::{Deserialize, Serialize};

use crate::{
    Mppi, PlanError, Scored, SequenceSampler, Shooting,
    error::{check_size, require},
    noise::white,
    sampler::{around, check_sizes, sampler_width},
    warm_start::{Tail, shift},
};

const NAME: &str = "mppi";

/// Settings of [`Mppi`]. The default is that of `pytorch_mppi` (`K = 100`, `T = 15`, `λ = 1`). That package has no default for
/// sigma, which is 0.5 half ranges here, as in CEM and iCEM.
///
/// ```
/// use mbrl_plan::{ActionSpace, BoxSpace, MppiConfig, Propagation};
///
/// // Steering may change more than thrust does.
/// let actions = ActionSpace::Box(BoxSpace::symmetric(2, 1.0)?);
/// let planner = MppiConfig { population: 1000, sigma: vec![0.5, 0.2], kappa: 20.0, ..MppiConfig::default() }
///     .init(&actions, Propagation::MEAN)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MppiConfig {
    /// Horizon in steps, `H` (default: 15).
    pub horizon: usize,
    /// Candidates per iteration, `K` (default: 100).
    pub population: usize,
    /// Refinements per control step (default: 1).
    pub iterations: usize,
    /// Weight of the return in the exponent, κ = 1/λ (default: 1). Large values approach the best candidate, small
    /// ones the plain mean. Unless returns are normalised, it acts on them unscaled, so choose it to fit the scale of the reward.
    pub kappa: f32,
    /// Standard deviation of the noise in half ranges: one for all action dimensions, or one for each (default: 0.5).
    pub sigma: Vec<f32>,
    /// Weight 1 − α of the control cost `uᵀ Σ⁻¹ ε`, in `[0, 1]` (default: 0).
    pub control_cost: f32,
    /// Share of the candidates, the best ones, that get a weight, in (0, 1] (default: 1, all; TD-MPC2: 64 of 512).
    pub elites: f32,
    /// Whether the standard deviation is refitted after each iteration (default: false). It starts from `sigma` at each
    /// control step.
    pub adapt_std: bool,
    /// Range that a refitted standard deviation is held within, in half ranges (default: TD-MPC2's 0.05 to 2). Has no effect without `adapt_std`.
    pub std_range: [f32; 2],
    /// Whether returns are scaled in each iteration so that the worst is 0 and the best 1 (default: false). PI² does so, with
    /// κ = 10.
    pub normalize_returns: bool,
    /// What fills the end of the shifted plan (default: the middle of the range).
    pub tail: Tail,
}

impl Default for MppiConfig {
    fn default() -> Self {
        Self {
            horizon: 15,
            population: 100,
            iterations: 1,
            kappa: 1.0,
            sigma: vec![0.5],
            control_cost: 0.0,
            elites: 1.0,
            adapt_std: false,
            std_range: [0.05, 2.0],
            normalize_returns: false,
            tail: Tail::Middle,
        }
    }
}

impl MppiConfig {
    /// TD-MPC2's planner \[2\]: horizon 3 before a terminal value, 512 candidates, 64 elites, 6 iterations,
    /// temperature 0.5, a spread of 2 half ranges that is refitted. TD-MPC2 executes one of the elites at random; this
    /// planner executes the mean.
    #[must_use]
    pub fn td_mpc2() -> Self {
        Self {
            horizon: 3,
            population: 512,
            iterations: 6,
            kappa: 0.5,
            sigma: vec![2.0],
            elites: 0.125,
            adapt_std: true,
            ..Self::default()
        }
    }

    /// Settings for [`search`](crate::optimize::search): one vector of parameters instead of a sequence, many
    /// iterations, normalised returns, and a spread that is refitted to a fifth of the candidates without a floor.
    #[must_use]
    pub fn for_search() -> Self {
        Self {
            horizon: 1,
            population: 400,
            iterations: 200,
            kappa: 3.0,
            elites: 0.2,
            adapt_std: true,
            std_range: [0.0, 2.0],
            normalize_returns: true,
            ..Self::default()
        }
    }

    /// A planner for an action space.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, [`PlanError::Width`] for sigmas that are neither one nor one per action dimension, [`PlanError::ActionSpace`] for a space that is neither a
    /// bounded box nor discrete.
    pub fn init(&self, actions: &ActionSpace, propagation: Propagation) -> Result<Mppi, PlanError> {
        let sampler = self.sampler(sampler_width(actions, NAME)?)?;
        Shooting::new(sampler, propagation)
    }

    /// The sampler alone, for actions of `width` dimensions.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, [`PlanError::Width`] for sigmas that are neither one
    /// nor one per action dimension.
    pub fn sampler(&self, width: usize) -> Result<MppiSampler, PlanError> {
        let Self { horizon, population, iterations, kappa, control_cost, elites, std_range: [least, most], .. } = *self;
        check_sizes(width, horizon, population, iterations)?;
        require(kappa.is_finite() && kappa > 0.0, "kappa", kappa, "a finite number above 0")?;
        if self.sigma.len() != 1 {
            check_size("entries of sigma", width, self.sigma.len())?;
        }
        for &sigma in &self.sigma {
            require(sigma.is_finite() && sigma > 0.0, "sigma", sigma, "a finite number above 0")?;
        }
        require((0.0..=1.0).contains(&control_cost), "control_cost", control_cost, "1 − α, a number in [0, 1]")?;
        require(elites > 0.0 && elites <= 1.0, "elites", elites, "a share in (0, 1]")?;
        let range = format!("[{least}, {most}]");
        require(
            least >= 0.0 && least <= most && most.is_finite(),
            "std_range",
            range,
            "two finite numbers, rising, from 0 on",
        )?;
        let sigma: Vec<f32> = self.sigma.iter().copied().cycle().take(width).collect();
        let mut sampler = MppiSampler { config: self.clone(), sigma, mean: Vec::new(), std: Vec::new() };
        sampler.reset();
        Ok(sampler)
    }
}

/// MPPI's plan; made by [`MppiConfig::sampler`].
#[derive(Debug, Clone)]
pub struct MppiSampler {
    config: MppiConfig,
    /// Standard deviation that each control step starts from, `[A]`.
    sigma: Vec<f32>,
    /// `[H, A]`.
    mean: Vec<f32>,
    /// `[H, A]`.
    std: Vec<f32>,
}

impl MppiSampler {
    /// The plan, `[H, A]` in row-major order.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviation of the noise, `[H, A]` in row-major order.
    #[must_use]
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// Candidates that get a weight, with their weights; the largest weight is 1.
    fn weights(&self, scored: &Scored) -> Vec<(usize, f64)> {
        let MppiConfig { kappa, control_cost, elites, normalize_returns, .. } = self.config;
        let elites = scored.elites(((elites * scored.finite().len() as f32) as usize).max(1));
        let value = |k: usize| f64::from(scored.value(k));
        let span = || {
            let (low, high) = scored
                .finite()
                .iter()
                .fold((f64::MAX, f64::MIN), |(low, high), &k| (low.min(value(k)), high.max(value(k))));
            if high > low { high - low } else { 1.0 }
        };
        let scale = f64::from(kappa) / if normalize_returns { span() } else { 1.0 };
        let top = value(scored.best());
        let costs = if control_cost > 0.0 { self.control_costs(scored, &elites) } else { vec![0.0; elites.len()] };
        let exponent = |(&k, cost): (&usize, f64)| scale * (value(k) - top) - f64::from(control_cost) * cost;
        let exponents: Vec<f64> = elites.iter().zip(costs).map(exponent).collect();
        // Relative to the largest, so that the sum neither overflows nor vanishes.
        let largest = exponents.iter().copied().fold(f64::MIN, f64::max);
        elites.into_iter().zip(exponents).map(|(k, exponent)| (k, (exponent - largest).exp())).collect()
    }

    /// uᵀ Σ⁻¹ ε over all steps, for ε = candidate − u.
    fn control_costs(&self, scored: &Scored, chosen: &[usize]) -> Vec<f64> {
        let weight = |(u, std): (&f32, &f32)| u / (std * std);
        let weights = self.mean.iter().zip(&self.std).map(weight);
        // With a standard deviation of 0, or close to it, there is no noise to charge for.
        let weights: Vec<f32> = weights.map(|weight| if weight.is_finite() { weight } else { 0.0 }).collect();
        scored.weighted_deviation(chosen, &self.mean, &weights)
    }
}

impl SequenceSampler for MppiSampler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn shape(&self) -> [usize; 2] {
        [self.config.horizon, self.sigma.len()]
    }

    fn iterations(&self) -> usize {
        self.config.iterations
    }

    fn begin(&mut self) {
        self.std = self.sigma.repeat(self.config.horizon);
    }

    fn ask(&mut self, _: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        let [horizon, width] = self.shape();
        around(&self.mean, &self.std, white([self.config.population, horizon, width], device, rng))
    }

    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError> {
        let scored = Scored::new(self.shape(), iteration, candidates, returns)?;
        let (mean, variance) = scored.moments(&self.weights(&scored));
        self.mean = mean.into_iter().map(|m| m as f32).collect();
        if self.config.adapt_std {
            let [least, most] = self.config.std_range;
            self.std = variance.into_iter().map(|v| (v.sqrt() as f32).clamp(least, most)).collect();
        }
        Ok(())
    }

    fn solution(&self) -> Vec<f32> {
        self.mean.clone()
    }

    fn advance(&mut self, executed: usize) {
        shift(&mut self.mean, self.sigma.len(), executed, self.config.tail);
    }

    fn reset(&mut self) {
        self.mean = vec![0.0; self.config.horizon * self.sigma.len()];
        self.begin();
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::LN_2;

    use super::*;
    use crate::host::to_host;

    fn sampler(config: MppiConfig, width: usize) -> MppiSampler {
        config.sampler(width).unwrap()
    }

    fn tell<const K: usize, const H: usize>(sampler: &mut MppiSampler, sequences: [[f32; H]; K], returns: [f32; K]) {
        let device = Device::flex();
        let candidates = Tensor::<2>::from_floats(sequences, &device).unsqueeze_dim(2);
        sampler.tell(0, candidates, &returns).unwrap();
    }

    fn assert_near(actual: &[f32], expected: &[f32]) {
        let near = actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-5);
        assert!(near, "{actual:?}, expected {expected:?}");
    }

    const SEQUENCES: [[f32; 2]; 4] = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.9, 0.9]];

    #[test]
    fn the_weights_by_hand() {
        let mut mppi = sampler(MppiConfig { horizon: 2, kappa: 2.0, ..MppiConfig::default() }, 1);
        // Weights 1, 1/4, 1/16 and none: sum 21/16.
        tell(&mut mppi, SEQUENCES, [-3.0, -3.0 - LN_2, -3.0 - 2.0 * LN_2, f32::NAN]);
        assert_near(mppi.mean(), &[(1.0 + 0.5 / 16.0) * 16.0 / 21.0, (0.25 + 0.5 / 16.0) * 16.0 / 21.0]);
        assert_eq!(mppi.std(), [0.5, 0.5], "the spread stays");
        assert_eq!(mppi.solution(), mppi.mean());
    }

    #[test]
    fn returns_of_any_size_neither_overflow_nor_vanish() {
        for offset in [-1e30, -1e6, 0.0, 1e6, 1e30] {
            let mut mppi = sampler(MppiConfig { horizon: 2, kappa: 1e6, ..MppiConfig::default() }, 1);
            tell(&mut mppi, SEQUENCES, [offset, offset, f32::NEG_INFINITY, f32::INFINITY]);
            assert_near(mppi.mean(), &[0.5, 0.5]);
        }
    }

    #[test]
    fn sigma_has_an_effect_in_each_dimension() {
        let config = MppiConfig { horizon: 3, population: 4000, sigma: vec![0.1, 0.8], ..MppiConfig::default() };
        let mut mppi = sampler(config, 2);
        mppi.mean = vec![0.3; 6];
        let drawn = to_host(mppi.ask(0, &Device::flex(), &mut Rng::new(1)));
        for (entry, sigma) in [0.1f32, 0.8, 0.1, 0.8, 0.1, 0.8].into_iter().enumerate() {
            let spread = drawn.iter().skip(entry).step_by(6).map(|x| (x - 0.3).powi(2)).sum::<f32>() / 4000.0;
            // The standard error of a standard deviation from 4000 draws is 1.1 %.
            assert!((spread.sqrt() / sigma - 1.0).abs() < 0.05, "{spread}, sigma {sigma}");
        }
    }

    #[test]
    fn the_control_cost_by_hand() {
        let config = MppiConfig { horizon: 2, sigma: vec![0.5], control_cost: 1.0, ..MppiConfig::default() };
        let mut mppi = sampler(config, 1);
        mppi.mean = vec![0.5, 0.0];
        // uᵀ ε / σ² = 0.5 · 0.5 / 0.25 = 1, and −1 for the second; the second step, where u is 0, costs nothing.
        let device = Device::flex();
        let scored = Scored::new(
            [2, 1],
            0,
            Tensor::<2>::from_floats([[0.0, 0.7], [1.0, 0.7]], &device).unsqueeze_dim(2),
            &[0.0; 2],
        );
        let costs = mppi.control_costs(&scored.unwrap(), &[1, 0]);
        assert!((costs[0] - 1.0).abs() < 1e-6 && (costs[1] + 1.0).abs() < 1e-6, "{costs:?}");
        tell(&mut mppi, [[1.0, 0.7], [0.0, 0.7]], [2.0, 0.0]);
        // Returns minus costs: 1 and 1, so both have equal weight, whatever κ does to the returns alone.
        assert_near(mppi.mean(), &[0.5, 0.7]);
        // κ weighs the return and not the cost (γ = λ (1 − α)): 4 − 1 against 0 + 1.
        mppi.mean = vec![0.5, 0.0];
        mppi.config.kappa = 2.0;
        tell(&mut mppi, [[1.0, 0.7], [0.0, 0.7]], [2.0, 0.0]);
        assert_near(mppi.mean(), &[1.0 / (1.0 + (-2.0f32).exp()), 0.7]);
        // Left out by default.
        mppi.mean = vec![0.5, 0.0];
        mppi.config.control_cost = 0.0;
        tell(&mut mppi, [[1.0, 0.7], [0.0, 0.7]], [2.0, 0.0]);
        assert_near(mppi.mean(), &[1.0 / (1.0 + (-4.0f32).exp()), 0.7]);
    }

    #[test]
    fn normalised_returns_free_kappa_from_the_scale() {
        let mut means = Vec::new();
        for scale in [1e-6, 1.0, 1e6] {
            let config = MppiConfig { horizon: 2, kappa: 4.0 * LN_2, normalize_returns: true, ..MppiConfig::default() };
            let mut mppi = sampler(config, 1);
            // Scaled to 1, 3/4 and 0: weights 1, 1/2 and 1/16. A candidate without a finite return has no weight and no part in the scaling.
            tell(&mut mppi, SEQUENCES, [4.0 * scale, 3.0 * scale, 0.0, f32::NEG_INFINITY]);
            means.push(mppi.mean().to_vec());
        }
        let total = 1.0 + 0.5 + 0.0625;
        means.iter().for_each(|mean| assert_near(mean, &[(1.0 + 0.03125) / total, (0.5 + 0.03125) / total]));
        let mut equal = sampler(MppiConfig { horizon: 2, normalize_returns: true, ..MppiConfig::default() }, 1);
        tell(&mut equal, SEQUENCES, [7.0; 4]);
        assert_near(equal.mean(), &[0.6, 0.6]);
    }

    #[test]
    fn the_spread_is_refitted_to_the_weighted_elites_within_its_range() {
        let config = MppiConfig {
            horizon: 2,
            kappa: 1e-9,
            elites: 0.5,
            adapt_std: true,
            std_range: [0.1, 0.4],
            ..MppiConfig::default()
        };
        let mut mppi = sampler(config, 1);
        // Two elites of equal weight: standard deviations 0.5, cut to 0.4, and 0, raised to 0.1.
        tell(&mut mppi, [[1.0, 0.3], [0.0, 0.3], [0.5, -0.5], [-0.9, 0.9]], [5.0, 5.0, 4.0, 3.0]);
        assert_near(mppi.mean(), &[0.5, 0.3]);
        assert_near(mppi.std(), &[0.4, 0.1]);
        mppi.begin();
        assert_eq!(mppi.std(), [0.5, 0.5], "each control step starts from sigma");
    }

    #[test]
    fn the_plan_shifts_and_is_forgotten() {
        let mut mppi = sampler(MppiConfig { horizon: 3, ..MppiConfig::default() }, 1);
        mppi.mean = vec![0.1, 0.2, 0.3];
        mppi.advance(1);
        assert_eq!(mppi.mean(), [0.2, 0.3, 0.0]);
        mppi.config.tail = Tail::Last;
        mppi.mean[2] = 0.4;
        mppi.advance(1);
        assert_eq!(mppi.mean(), [0.3, 0.4, 0.4]);
        mppi.reset();
        assert_eq!(mppi.mean(), [0.0; 3]);
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |config: MppiConfig| config.sampler(2).unwrap_err().to_string();
        let base = MppiConfig::default;
        assert_eq!(fails(MppiConfig { horizon: 0, ..base() }), "horizon = 0: expected at least one step");
        assert_eq!(fails(MppiConfig { population: 0, ..base() }), "population = 0: expected at least one candidate");
        assert_eq!(fails(MppiConfig { iterations: 0, ..base() }), "iterations = 0: expected at least one iteration");
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(
                fails(MppiConfig { kappa: bad, ..base() }),
                format!("kappa = {bad}: expected a finite number above 0")
            );
            assert_eq!(
                fails(MppiConfig { sigma: vec![0.5, bad], ..base() }),
                format!("sigma = {bad}: expected a finite number above 0")
            );
        }
        for count in [0, 3] {
            let error = fails(MppiConfig { sigma: vec![0.5; count], ..base() });
            assert_eq!(error, format!("entries of sigma = {count}: expected 2"));
        }
        for bad in [-0.1, 1.1, f32::NAN] {
            let error = fails(MppiConfig { control_cost: bad, ..base() });
            assert_eq!(error, format!("control_cost = {bad}: expected 1 − α, a number in [0, 1]"));
        }
        for bad in [0.0, 1.1, f32::NAN] {
            assert_eq!(
                fails(MppiConfig { elites: bad, ..base() }),
                format!("elites = {bad}: expected a share in (0, 1]")
            );
        }
        for [least, most] in [[-0.1, 1.0], [0.5, 0.4], [0.0, f32::INFINITY], [f32::NAN, 1.0]] {
            let error = fails(MppiConfig { std_range: [least, most], ..base() });
            assert_eq!(error, format!("std_range = [{least}, {most}]: expected two finite numbers, rising, from 0 on"));
        }
        assert!(base().sampler(0).is_err());
    }
}
