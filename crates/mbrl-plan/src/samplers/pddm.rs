//! # PDDM: filtered, reward-weighted sampling
//!
//! A softer relative of CEM: noise that is smoothed in time is added to the last plan, and the new plan is the mean of
//! all candidates, weighted by their exponentiated returns. One refinement per control step is enough.
//!
//! | paper \[1\], eqs. 3-5 | here |
//! |---|---|
//! | `N`, `H` | [`PddmConfig::population`], [`PddmConfig::horizon`] |
//! | `u_t ~ N(0, Σ)` | [`PddmConfig::sigma`], the same for all dimensions |
//! | `n_t = β u_t + (1 − β) n_{t−1}`, `n_{t<0} = 0`, `a_t = μ_t + n_t` | [`PddmConfig::beta`] |
//! | `μ_t = Σ_k e^{γ R_k} a_t^k / Σ_j e^{γ R_j}` | [`PddmConfig::kappa`] (γ is the discount elsewhere in this crate) |
//!
//! Without a filter (`beta = 1`) this is MPPI \[2\] with the temperature λ = 1/κ and no control cost.
//!
//! The authors' code differs from their paper: it filters mean and noise together, starting from the action executed
//! last, `a_0 = β (μ_0 + ε_0) + (1 − β) past`, `a_t = β (μ_t + ε_t) + (1 − β) a_{t−1}`, so the plan lags and is smoothed
//! again at every control step. [`PddmConfig::code_compat`] selects that form.
//!
//! Differences from both: `reset` forgets the plan (the authors' controller is built once and carries its plan from one
//! episode into the next). The code's smaller noise for a tenth of the candidates, used on some position-controlled hands, is
//! [`PddmConfig::quiet_share`]; [`PddmConfig::keep_mean`] scores the plan itself too.
//!
//! ## References
//! \[1\] Nagabandi et al. (2019), *Deep Dynamics Models for Learning Dexterous Manipulation*, CoRL. arXiv:1909.11652
//! \[2\] Williams et al. (2017), *Information Theoretic MPC for Model-Based Reinforcement Learning*, ICRA.

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Rng};
use mbrl_model::Propagation;
use serde::{Deserialize, Serialize};

use crate::{
    Pddm, PlanError, Scored, SequenceSampler, Shooting,
    error::require,
    host::to_device,
    noise::mixed,
    sampler::{check_sizes, sampler_width},
    warm_start::{Tail, shift},
};

const NAME: &str = "pddm";

/// Settings of [`Pddm`]. The default is the paper's table for turning a valve; `sigma` is not in the table and is taken
/// from the authors' configuration files.
///
/// Handwriting, in-hand reorientation and Baoding balls use other values (κ 0.5, 50, 20; N 700; β 0.5, 0.7, 0.7).
/// κ acts on unscaled returns, so choose it to fit the scale of the reward.
///
/// ```
/// use mbrl_plan::{ActionSpace, BoxSpace, PddmConfig, Propagation};
///
/// let actions = ActionSpace::Box(BoxSpace::symmetric(24, 1.0)?);
/// let planner = PddmConfig { population: 700, kappa: 20.0, beta: 0.7, ..PddmConfig::default() }
///     .init(&actions, Propagation::MEAN)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PddmConfig {
    /// Horizon in steps, `H` (default: 7).
    pub horizon: usize,
    /// Candidates per iteration, `K` (default: 200).
    pub population: usize,
    /// Refinements per control step (default: 1).
    pub iterations: usize,
    /// Weight of the return in the exponent, κ = 1/λ (default: 10). Large values approach the best candidate, small ones
    /// the plain mean.
    pub kappa: f32,
    /// Standard deviation of the noise before the filter, in half ranges (default: 0.9).
    pub sigma: f32,
    /// Weight of the new noise in the filter, in (0, 1] (default: 0.6). 1 is white noise; smaller values give slower
    /// actions. In the long run the filtered noise has the variance σ² β / (2 − β).
    pub beta: f32,
    /// Whether mean and noise are filtered together, as in the authors' code (default: false, as in the paper).
    pub code_compat: bool,
    /// Whether the plan itself is among the candidates (default: false, as in paper and code), so that noise cannot lose what
    /// has been found. With `code_compat` the candidate is the filtered plan, which lags.
    pub keep_mean: bool,
    /// Share of the candidates whose noise is smaller, in [0, 1] (default: 0; the code uses 0.1 on some hands): they refine while the
    /// others explore.
    pub quiet_share: f32,
    /// Factor on the noise of these candidates, in (0, 1] (default: 0.3); has no effect where there are none.
    pub quiet_scale: f32,
    /// Factor on the noise of each refinement after the first, in (0, 1] (default: 1): later ones search closer to the plan. Has no effect with
    /// one iteration.
    pub noise_decay: f32,
}

impl Default for PddmConfig {
    fn default() -> Self {
        Self {
            horizon: 7,
            population: 200,
            iterations: 1,
            kappa: 10.0,
            sigma: 0.9,
            beta: 0.6,
            code_compat: false,
            keep_mean: false,
            quiet_share: 0.0,
            quiet_scale: 0.3,
            noise_decay: 1.0,
        }
    }
}

impl PddmConfig {
    /// A planner for an action space.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, [`PlanError::ActionSpace`] for a space that is
    /// neither a bounded box nor discrete.
    pub fn init(&self, actions: &ActionSpace, propagation: Propagation) -> Result<Pddm, PlanError> {
        let sampler = self.sampler(sampler_width(actions, NAME)?)?;
        Shooting::new(sampler, propagation)
    }

    /// The sampler alone, for actions of `width` dimensions.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule.
    pub fn sampler(&self, width: usize) -> Result<PddmSampler, PlanError> {
        let Self { horizon, population, iterations, kappa, sigma, beta, .. } = *self;
        check_sizes(width, horizon, population, iterations)?;
        require(kappa.is_finite() && kappa > 0.0, "kappa", kappa, "a finite number above 0")?;
        require(sigma.is_finite() && sigma > 0.0, "sigma", sigma, "a finite number above 0")?;
        require(beta > 0.0 && beta <= 1.0, "beta", beta, "a number in (0, 1]")?;
        let Self { quiet_share, quiet_scale, noise_decay, .. } = *self;
        require((0.0..=1.0).contains(&quiet_share), "quiet_share", quiet_share, "a number in [0, 1]")?;
        require(quiet_scale > 0.0 && quiet_scale <= 1.0, "quiet_scale", quiet_scale, "a number in (0, 1]")?;
        require(noise_decay > 0.0 && noise_decay <= 1.0, "noise_decay", noise_decay, "a number in (0, 1]")?;
        let mean = vec![0.0; horizon * width];
        Ok(PddmSampler { config: self.clone(), width, mean, past: vec![0.0; width] })
    }
}

/// PDDM's plan; made by [`PddmConfig::sampler`].
#[derive(Debug, Clone)]
pub struct PddmSampler {
    config: PddmConfig,
    width: usize,
    /// `[H, A]`.
    mean: Vec<f32>,
    /// The action executed last, `[A]`, from which the code's filter starts. A copy, because the plan is shifted.
    past: Vec<f32>,
}

impl PddmSampler {
    /// The plan, `[H, A]` in row-major order.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The candidate without noise, `[H, A]`: the plan, or the plan after the code's filter.
    fn centre(&self) -> Vec<f32> {
        if !self.config.code_compat {
            return self.mean.clone();
        }
        let beta = self.config.beta;
        let mut before = self.past.clone();
        let mut centre = Vec::with_capacity(self.mean.len());
        for mean in self.mean.chunks_exact(self.width) {
            before.iter_mut().zip(mean).for_each(|(a, mean)| *a = beta * mean + (1.0 - beta) * *a);
            centre.extend_from_slice(&before);
        }
        centre
    }

    /// Factors on the noise of each candidate, `[K]`: 0 for the plan itself, small ones at the end; `None` where all are 1.
    fn loudness(&self) -> Option<Vec<f32>> {
        let PddmConfig { population, keep_mean, quiet_share, quiet_scale, .. } = self.config;
        let quiet = (quiet_share * population as f32) as usize;
        if !keep_mean && quiet == 0 {
            return None;
        }
        let mut factors = vec![1.0; population];
        factors[population - quiet..].fill(quiet_scale);
        if keep_mean {
            factors[0] = 0.0;
        }
        Some(factors)
    }

    /// The filter's response to one unit of noise at each step, `[H, H]`: σ β (1 − β)^(t − s) at step t to noise at step s.
    fn responses(&self) -> Vec<f32> {
        let PddmConfig { horizon, sigma, beta, .. } = self.config;
        let response = |s: usize, t: usize| if t < s { 0.0 } else { sigma * beta * (1.0 - beta).powi((t - s) as i32) };
        (0..horizon).flat_map(|s| (0..horizon).map(move |t| response(s, t))).collect()
    }
}

impl SequenceSampler for PddmSampler {
    fn name(&self) -> &'static str {
        NAME
    }

    fn shape(&self) -> [usize; 2] {
        [self.config.horizon, self.width]
    }

    fn iterations(&self) -> usize {
        self.config.iterations
    }

    fn begin(&mut self) {}

    fn ask(&mut self, iteration: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        let [horizon, width] = self.shape();
        // The filter is linear: its response to the noise is added to its response without noise.
        let mut noise = mixed(&self.responses(), [self.config.population, horizon, width], device, rng);
        if self.config.noise_decay < 1.0 && iteration > 0 {
            noise = noise * self.config.noise_decay.powi(iteration as i32);
        }
        if let Some(factors) = self.loudness() {
            noise = noise * to_device(factors, [self.config.population, 1, 1], device);
        }
        noise + to_device(self.centre(), [1, horizon, width], device)
    }

    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError> {
        let scored = Scored::new(self.shape(), iteration, candidates, returns)?;
        let (kappa, top) = (f64::from(self.config.kappa), f64::from(scored.value(scored.best())));
        // Relative to the best return: the largest weight is 1, so the sum neither overflows nor vanishes.
        let weight = |k: usize| (kappa * (f64::from(scored.value(k)) - top)).exp();
        let weights: Vec<(usize, f64)> = scored.finite().iter().map(|&k| (k, weight(k))).collect();
        self.mean = scored.moments(&weights).0.into_iter().map(|m| m as f32).collect();
        Ok(())
    }

    fn solution(&self) -> Vec<f32> {
        self.mean.clone()
    }

    fn advance(&mut self, executed: usize) {
        if let Some(last) = executed.min(self.config.horizon).checked_sub(1) {
            self.past.copy_from_slice(&self.mean[last * self.width..(last + 1) * self.width]);
            shift(&mut self.mean, self.width, executed, Tail::Last);
        }
    }

    fn reset(&mut self) {
        self.mean.fill(0.0);
        self.past.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::to_host;

    fn sampler(config: PddmConfig, width: usize) -> PddmSampler {
        config.sampler(width).unwrap()
    }

    fn assert_near(actual: &[f32], expected: &[f32]) {
        let near = actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-6);
        assert!(near, "{actual:?}, expected {expected:?}");
    }

    /// The candidate that results from this noise `[H, A]`.
    fn filtered(pddm: &PddmSampler, noise: &[f32]) -> Vec<f32> {
        let ([horizon, width], responses) = (pddm.shape(), pddm.responses());
        let mut asked = pddm.centre();
        for s in 0..horizon {
            for t in 0..horizon {
                for a in 0..width {
                    asked[t * width + a] += noise[s * width + a] * responses[s * horizon + t];
                }
            }
        }
        asked
    }

    #[test]
    fn what_is_asked_for_is_filtered_noise_around_the_plan() {
        let config = PddmConfig { horizon: 4, population: 3, sigma: 0.5, beta: 0.7, ..PddmConfig::default() };
        let mut pddm = sampler(config, 2);
        pddm.mean = (0..8).map(|i| 0.1 * i as f32).collect();
        let device = Device::flex();
        let asked = to_host(pddm.ask(0, &device, &mut Rng::new(2)));
        // The same draws: one per candidate, dimension and step.
        let drawn = to_host(mbrl_model::normals(Rng::new(2).key(), [6, 4], &device));
        for (k, asked) in asked.chunks(8).enumerate() {
            let noise: Vec<f32> = (0..8).map(|i| drawn[(2 * k + i % 2) * 4 + i / 2]).collect();
            assert_near(asked, &filtered(&pddm, &noise));
        }
    }

    #[test]
    fn the_papers_filter_by_hand() {
        let mut pddm = sampler(PddmConfig { horizon: 3, sigma: 1.0, beta: 0.75, ..PddmConfig::default() }, 2);
        pddm.mean = vec![0.1, -0.1, 0.2, -0.2, 0.3, -0.3];
        pddm.past = vec![9.0, 9.0];
        let noise = [0.4, 0.8, 0.0, -0.8, 1.0, 0.0];
        // n: 0.3, 0.6; 0.075, −0.45; 0.76875, −0.1125. The executed action has no part in it.
        assert_near(&filtered(&pddm, &noise), &[0.4, 0.5, 0.275, -0.65, 1.06875, -0.4125]);
    }

    #[test]
    fn the_codes_filter_by_hand() {
        let config = PddmConfig { horizon: 3, sigma: 1.0, beta: 0.75, code_compat: true, ..PddmConfig::default() };
        let mut pddm = sampler(config, 1);
        pddm.mean = vec![0.1, 0.2, 0.3];
        pddm.past = vec![-0.4];
        let noise = [0.3, 0.0, -0.5];
        // 0.75 · 0.4 − 0.25 · 0.4 = 0.2; 0.75 · 0.2 + 0.25 · 0.2 = 0.2; 0.75 · (−0.2) + 0.25 · 0.2 = −0.1.
        assert_near(&filtered(&pddm, &noise), &[0.2, 0.2, -0.1]);
    }

    #[test]
    fn without_noise_the_papers_form_keeps_the_plan_and_the_codes_form_lags() {
        let mean = vec![0.0, 1.0, 1.0];
        for (code_compat, expected) in [(false, [0.0, 1.0, 1.0]), (true, [0.0, 0.5, 0.75])] {
            let mut pddm = sampler(PddmConfig { horizon: 3, beta: 0.5, code_compat, ..PddmConfig::default() }, 1);
            pddm.mean.clone_from(&mean);
            assert_near(&pddm.centre(), &expected);
        }
    }

    #[test]
    fn the_weights_by_hand() {
        let device = Device::flex();
        let mut pddm = sampler(PddmConfig { horizon: 2, kappa: 2.0, ..PddmConfig::default() }, 1);
        let candidates = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [9.0, 9.0]], &device);
        let ln2 = std::f32::consts::LN_2;
        // Weights 1, 1/4, 1/16 and none: sum 21/16.
        let returns = [1e3, 1e3 - ln2, 1e3 - 2.0 * ln2, f32::NAN];
        pddm.tell(0, candidates.unsqueeze_dim(2), &returns).unwrap();
        let expected = [(1.0 + 0.5 / 16.0) * 16.0 / 21.0, (0.25 + 0.5 / 16.0) * 16.0 / 21.0];
        // Returns near 1000 are only exact to 6e-5.
        assert!(pddm.mean().iter().zip(expected).all(|(m, e)| (m - e).abs() < 1e-4), "{:?}, {expected:?}", pddm.mean());
    }

    #[test]
    fn later_refinements_search_closer_to_the_plan() {
        let asked = |noise_decay: f32, iteration: usize| {
            let mut pddm = sampler(PddmConfig { horizon: 3, population: 5, noise_decay, ..PddmConfig::default() }, 1);
            to_host(pddm.ask(iteration, &Device::flex(), &mut Rng::new(2)))
        };
        let first = asked(0.5, 0);
        assert_eq!(first, asked(1.0, 2), "without decay all are alike");
        assert_near(&asked(0.5, 2), &first.iter().map(|a| 0.25 * a).collect::<Vec<f32>>());
    }

    #[test]
    fn sigma_has_an_effect_and_beta_narrows_it() {
        let spread = |sigma: f32, beta: f32, t: usize| {
            let config = PddmConfig { horizon: 20, population: 4000, sigma, beta, ..PddmConfig::default() };
            let drawn = to_host(sampler(config, 1).ask(0, &Device::flex(), &mut Rng::new(1)));
            let column: Vec<f32> = drawn.iter().skip(t).step_by(20).copied().collect();
            (column.iter().map(|x| x * x).sum::<f32>() / column.len() as f32).sqrt()
        };
        for sigma in [0.1f32, 0.9] {
            // The standard error of a standard deviation from 4000 draws is 1.1 %.
            assert!((spread(sigma, 1.0, 0) / sigma - 1.0).abs() < 0.05);
            assert!((spread(sigma, 0.6, 0) / (0.6 * sigma) - 1.0).abs() < 0.05);
            assert!((spread(sigma, 0.6, 19) / (sigma * (0.6f32 / 1.4).sqrt()) - 1.0).abs() < 0.05);
        }
    }

    #[test]
    fn the_plan_itself_and_quiet_candidates_are_among_those_asked_for() {
        let config = PddmConfig { horizon: 3, population: 20, beta: 0.7, ..PddmConfig::default() };
        let drawn = |config: PddmConfig| {
            let mut pddm = sampler(config, 2);
            pddm.mean = (0..6).map(|i| 0.1 * i as f32).collect();
            (to_host(pddm.ask(0, &Device::flex(), &mut Rng::new(3))), pddm.mean)
        };
        let (plain, mean) = drawn(config.clone());
        let (asked, _) = drawn(PddmConfig { keep_mean: true, quiet_share: 0.25, quiet_scale: 0.4, ..config });
        assert_eq!(asked[..6], mean[..]);
        for (k, (asked, plain)) in asked.chunks(6).zip(plain.chunks(6)).enumerate().skip(1) {
            let scale = if k < 15 { 1.0 } else { 0.4 };
            let expected: Vec<f32> = plain.iter().zip(&mean).map(|(a, mean)| mean + scale * (a - mean)).collect();
            assert_near(asked, &expected);
        }
    }

    #[test]
    fn the_plan_shifts_with_its_last_row_doubled_and_the_past_is_a_copy() {
        let mut pddm = sampler(PddmConfig { horizon: 3, code_compat: true, ..PddmConfig::default() }, 1);
        pddm.mean = vec![0.1, 0.2, 0.3];
        pddm.advance(1);
        assert_eq!(pddm.mean, [0.2, 0.3, 0.3]);
        // The executed action, not the first of the shifted plan.
        assert_eq!(pddm.past, [0.1]);
        pddm.advance(0);
        assert_eq!((pddm.mean.as_slice(), pddm.past.as_slice()), ([0.2, 0.3, 0.3].as_slice(), [0.1].as_slice()));
        pddm.advance(2);
        assert_eq!((pddm.mean.as_slice(), pddm.past.as_slice()), ([0.3, 0.3, 0.3].as_slice(), [0.3].as_slice()));
        pddm.reset();
        assert_eq!((pddm.mean.as_slice(), pddm.past.as_slice()), ([0.0; 3].as_slice(), [0.0].as_slice()));
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |config: PddmConfig| config.sampler(1).unwrap_err().to_string();
        let base = PddmConfig::default;
        assert_eq!(fails(PddmConfig { horizon: 0, ..base() }), "horizon = 0: expected at least one step");
        assert_eq!(fails(PddmConfig { population: 0, ..base() }), "population = 0: expected at least one candidate");
        assert_eq!(fails(PddmConfig { iterations: 0, ..base() }), "iterations = 0: expected at least one iteration");
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(
                fails(PddmConfig { kappa: bad, ..base() }),
                format!("kappa = {bad}: expected a finite number above 0")
            );
            assert_eq!(
                fails(PddmConfig { sigma: bad, ..base() }),
                format!("sigma = {bad}: expected a finite number above 0")
            );
            assert_eq!(fails(PddmConfig { beta: bad, ..base() }), format!("beta = {bad}: expected a number in (0, 1]"));
        }
        assert_eq!(fails(PddmConfig { beta: 1.1, ..base() }), "beta = 1.1: expected a number in (0, 1]");
        assert_eq!(fails(PddmConfig { quiet_share: 1.5, ..base() }), "quiet_share = 1.5: expected a number in [0, 1]");
        assert_eq!(fails(PddmConfig { quiet_scale: 0.0, ..base() }), "quiet_scale = 0: expected a number in (0, 1]");
        assert!(base().sampler(0).is_err());
    }
}
