//! # iCEM: sample-efficient cross-entropy method for real-time planning
//!
//! CEM with noise that is coloured in time, elites kept between iterations and shifted between control steps, and a
//! population that shrinks from one iteration to the next.
//!
//! | authors' settings (`icem/controllers/icem.py`) | here |
//! |---|---|
//! | `num_simulated_trajectories`, `factor_decrease_num` | [`IcemConfig::population`], [`IcemConfig::population_decay`] |
//! | `elites_size`, `opt_iterations`, `alpha`, `init_std` | [`IcemConfig::elites`], [`IcemConfig::iterations`], [`IcemConfig::alpha`], [`IcemConfig::initial_std`] |
//! | `noise_beta` | [`IcemConfig::noise_exponent`] of [`ColouredNoise`] |
//! | `fraction_elites_reused`, with `keep_previous_elites` | [`IcemConfig::keep_elites`] |
//! | `shift_elites_over_time` | [`IcemConfig::shift_elites`] |
//! | `use_mean_actions` | [`IcemConfig::mean_in_last`] |
//!
//! Iteration i draws max(2 · elites, ⌊population / decayⁱ⌋) sequences around the mean. The first iteration adds the shifted
//! elites of the last control step, with fresh draws for the steps that they lack; each later one adds the best elites of
//! the iteration before. Standard deviations are smoothed, not variances as in CEM. The next control step starts from the
//! mean, shifted with its last action repeated, and from the initial standard deviation.
//!
//! With `noise_exponent = 0`, `keep_elites = 0`, `population_decay = 1`, `mean_in_last = false` and `execute = "mean"`
//! it is CEM without truncation, except that it smooths the standard deviation.
//!
//! Differences from the authors' code: kept elites are scored again, since their score changes with the draws of a random
//! model and with the next situation; the decay is not rounded separately at each iteration; the noise has variance 1
//! (theirs up to 1.25, see [`ColouredNoise`]).
//!
//! ## References
//! \[1\] Pinneri et al. (2020), *Sample-efficient Cross-Entropy Method for Real-time Planning*, CoRL. arXiv:2008.06389

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Rng};
use mbrl_model::Propagation;
use serde::{Deserialize, Serialize};

use crate::{
    ColouredNoise, Execute, Icem, PlanError, Scored, SequenceSampler, Shooting,
    error::{refused, require},
    host::{to_device, to_host},
    sampler::{around, blend, check_sizes, sampler_width},
    warm_start::{Tail, shift},
};

const NAME: &str = "icem";

/// Settings of [`Icem`]. The default is the authors' `icem/settings/defaults/i-cem-blitz.json` \[1\].
///
/// ```
/// use mbrl_plan::{ActionSpace, BoxSpace, IcemConfig, Propagation};
///
/// let actions = ActionSpace::Box(BoxSpace::symmetric(6, 1.0)?);
/// let planner = IcemConfig { horizon: 15, ..IcemConfig::half_cheetah() }.init(&actions, Propagation::MEAN)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IcemConfig {
    /// Horizon in steps, `H` (default: 30).
    pub horizon: usize,
    /// Sequences drawn in the first iteration (default: 40).
    pub population: usize,
    /// Factor by which the population shrinks from one iteration to the next, at least 1 (default: 1.25). It never falls
    /// below twice the elites.
    pub population_decay: f32,
    /// How many sequences the distribution is refitted to, at most half the population (default: 10).
    pub elites: usize,
    /// Iterations per control step (default: 3).
    pub iterations: usize,
    /// Weight of the old mean and of the old **standard deviation** in `[0, 1)` (default: 0.1).
    pub alpha: f32,
    /// Standard deviation at the start of each control step, in half ranges (default: 0.5).
    pub initial_std: f32,
    /// Exponent β of the noise spectrum f^−β (default: 3). 0 is white noise; larger values give slower actions.
    pub noise_exponent: f32,
    /// Share of the elites, the best ones, that is kept for the next iteration, in `[0, 1]` (default: 0.3). Rounded down, but at
    /// least one where the share is not 0.
    pub keep_elites: f32,
    /// Whether elites are also kept from one control step to the next, shifted by the executed steps (default: true). Has no effect where
    /// `keep_elites` is 0.
    pub shift_elites: bool,
    /// Whether the mean replaces a sequence of the last iteration (default: true).
    pub mean_in_last: bool,
    /// Which sequence is executed (default: the best of the last iteration; CEM executes the mean).
    #[serde(alias = "returns")]
    pub execute: Execute,
}

impl Default for IcemConfig {
    fn default() -> Self {
        Self {
            horizon: 30,
            population: 40,
            population_decay: 1.25,
            elites: 10,
            iterations: 3,
            alpha: 0.1,
            initial_std: 0.5,
            noise_exponent: 3.0,
            keep_elites: 0.3,
            shift_elites: true,
            mean_in_last: true,
            execute: Execute::Best,
        }
    }
}

impl IcemConfig {
    /// The authors' `settings/halfcheetah_running`: β = 0.25, fast actions.
    #[must_use]
    pub fn half_cheetah() -> Self {
        Self { noise_exponent: 0.25, ..Self::default() }
    }

    /// The authors' `settings/humanoid_standup`: β = 2.
    #[must_use]
    pub fn humanoid_standup() -> Self {
        Self { noise_exponent: 2.0, ..Self::default() }
    }

    /// The authors' `settings/door`, a hand of 24 joints that opens a door: β = 2.5.
    #[must_use]
    pub fn door() -> Self {
        Self { noise_exponent: 2.5, ..Self::default() }
    }

    /// The authors' `settings/relocate`, a hand of 24 joints that moves a ball: β = 3.5, slow actions.
    #[must_use]
    pub fn relocate() -> Self {
        Self { noise_exponent: 3.5, ..Self::default() }
    }

    /// Settings for [`search`](crate::optimize::search): one vector of parameters instead of a sequence (so that noise
    /// has no colour), many iterations of a larger population, and fewer elites kept, since otherwise their spread would
    /// soon be that of all candidates.
    #[must_use]
    pub fn for_search() -> Self {
        Self {
            horizon: 1,
            population: 400,
            elites: 80,
            iterations: 200,
            alpha: 0.5,
            keep_elites: 0.05,
            ..Self::default()
        }
    }

    /// A planner for an action space.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, [`PlanError::ActionSpace`] for a space that is neither a
    /// bounded box nor discrete.
    pub fn init(&self, actions: &ActionSpace, propagation: Propagation) -> Result<Icem, PlanError> {
        let sampler = self.sampler(sampler_width(actions, NAME)?)?;
        Shooting::new(sampler, propagation)
    }

    /// The sampler alone, for actions of `width` dimensions.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule.
    pub fn sampler(&self, width: usize) -> Result<IcemSampler, PlanError> {
        let Self { horizon, population, population_decay: decay, elites, iterations, alpha, initial_std, .. } = *self;
        check_sizes(width, horizon, population, iterations)?;
        require(decay.is_finite() && decay >= 1.0, "population_decay", decay, "a finite number of at least 1")?;
        let most = population / 2;
        if !(1..=most).contains(&elites) {
            return Err(refused("elites", elites, format!("1 to {most}, half the population")));
        }
        require((0.0..1.0).contains(&alpha), "alpha", alpha, "a number in [0, 1)")?;
        require(initial_std.is_finite() && initial_std > 0.0, "initial_std", initial_std, "a finite number above 0")?;
        require((0.0..=1.0).contains(&self.keep_elites), "keep_elites", self.keep_elites, "a share in [0, 1]")?;
        let mut sampler = IcemSampler {
            noise: ColouredNoise::new(self.noise_exponent, horizon)?,
            config: self.clone(),
            width,
            mean: Vec::new(),
            std: Vec::new(),
            elites: Vec::new(),
            missing: 0,
            best: None,
        };
        sampler.reset();
        Ok(sampler)
    }
}

/// iCEM's distribution over sequences, and its elites; made by [`IcemConfig::sampler`].
#[derive(Debug, Clone)]
pub struct IcemSampler {
    config: IcemConfig,
    noise: ColouredNoise,
    width: usize,
    /// `[H, A]`.
    mean: Vec<f32>,
    /// `[H, A]`.
    std: Vec<f32>,
    /// Kept elites of the last iteration, the best first, each `[H, A]`.
    elites: Vec<Vec<f32>>,
    /// Steps at the end of the elites that are still to be drawn, since they were shifted.
    missing: usize,
    /// The best sequence of the last iteration of this control step.
    best: Option<Vec<f32>>,
}

impl IcemSampler {
    /// Mean of the distribution, `[H, A]` in row-major order.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviation of the distribution, `[H, A]` in row-major order.
    #[must_use]
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// Sequences drawn in an iteration, kept elites not counted.
    #[must_use]
    pub fn population(&self, iteration: usize) -> usize {
        let IcemConfig { population, population_decay, elites, .. } = self.config;
        let shrunk = population as f64 / f64::from(population_decay).powf(iteration as f64);
        (2 * elites).max(shrunk as usize)
    }

    fn draw(&self, population: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        around(&self.mean, &self.std, self.noise.sample(population, self.width, device, rng))
    }

    /// Draws the steps that the shifted elites lack.
    fn complete_elites(&mut self, device: &Device, rng: &mut Rng) {
        let known = self.mean.len().saturating_sub(self.missing.saturating_mul(self.width));
        self.missing = 0;
        if known == 0 {
            // No steps of them are left.
            self.elites.clear();
        }
        if self.elites.is_empty() {
            return;
        }
        let drawn = to_host(self.draw(self.elites.len(), device, rng));
        for (elite, drawn) in self.elites.iter_mut().zip(drawn.chunks_exact(self.mean.len())) {
            elite[known..].copy_from_slice(&drawn[known..]);
        }
    }
}

impl SequenceSampler for IcemSampler {
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
        self.std.fill(self.config.initial_std);
        self.best = None;
        if !self.config.shift_elites {
            self.elites.clear();
        }
    }

    fn ask(&mut self, iteration: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        let [horizon, width] = self.shape();
        let shape = |count: usize| [count, horizon, width];
        let mut population = self.population(iteration);
        let mut parts = Vec::with_capacity(3);
        if self.config.mean_in_last && iteration + 1 == self.config.iterations {
            parts.push(to_device(self.mean.clone(), shape(1), device));
            population -= 1;
        }
        parts.push(self.draw(population, device, rng));
        if self.missing > 0 {
            self.complete_elites(device, rng);
        }
        if !self.elites.is_empty() {
            parts.push(to_device(self.elites.concat(), shape(self.elites.len()), device));
        }
        Tensor::cat(parts, 0)
    }

    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError> {
        let scored = Scored::new(self.shape(), iteration, candidates, returns)?;
        let mut elites = scored.elites(self.config.elites);
        // Stable sort, so that of equals the first stay first.
        elites.sort_by(|&a, &b| scored.value(b).total_cmp(&scored.value(a)));
        let fetched = scored.candidates(&elites);
        let (mean, variance) = scored.fit(&fetched);
        let std: Vec<f64> = variance.into_iter().map(f64::sqrt).collect();
        blend(&mut self.mean, &mean, self.config.alpha);
        blend(&mut self.std, &std, self.config.alpha);
        // At least one: a refined plan is the only candidate reported in its iteration, and would otherwise not be kept.
        let least = usize::from(self.config.keep_elites > 0.0);
        let kept = ((self.config.keep_elites * elites.len() as f32) as usize).max(least);
        let best_first = || fetched.chunks_exact(self.mean.len()).map(<[f32]>::to_vec);
        self.elites = best_first().take(kept).collect();
        self.best = best_first().next();
        Ok(())
    }

    fn solution(&self) -> Vec<f32> {
        match (self.config.execute, &self.best) {
            (Execute::Best, Some(best)) => best.clone(),
            _ => self.mean.clone(),
        }
    }

    fn advance(&mut self, executed: usize) {
        shift(&mut self.mean, self.width, executed, Tail::Last);
        for elite in &mut self.elites {
            shift(elite, self.width, executed, Tail::Last);
        }
        self.missing = self.missing.saturating_add(executed);
    }

    fn reset(&mut self) {
        let len = self.config.horizon * self.width;
        self.mean = vec![0.0; len];
        self.std = vec![self.config.initial_std; len];
        self.elites.clear();
        self.missing = 0;
        self.best = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CemConfig;

    fn small() -> IcemConfig {
        IcemConfig { horizon: 2, population: 4, elites: 2, alpha: 0.25, keep_elites: 0.5, ..IcemConfig::default() }
    }

    fn ask(sampler: &mut IcemSampler, iteration: usize, rng: &mut Rng) -> Vec<Vec<f32>> {
        let len = sampler.mean.len();
        to_host(sampler.ask(iteration, &Device::flex(), rng)).chunks(len).map(<[f32]>::to_vec).collect()
    }

    fn tell<const K: usize, const H: usize>(sampler: &mut IcemSampler, sequences: [[f32; H]; K], returns: [f32; K]) {
        let device = Device::flex();
        let candidates = Tensor::<2>::from_floats(sequences, &device).unsqueeze_dim(2);
        sampler.tell(0, candidates, &returns).unwrap();
    }

    fn solution(sampler: &IcemSampler) -> Vec<f32> {
        sampler.solution()
    }

    fn assert_near(actual: &[f32], expected: &[f32]) {
        let near = actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-6);
        assert!(near, "{actual:?}, expected {expected:?}");
    }

    const SEQUENCES: [[f32; 2]; 4] = [[0.9, 0.9], [0.2, 0.0], [-0.9, -0.9], [0.6, -0.2]];
    const RETURNS: [f32; 4] = [-5.0, 1.0, -7.0, 3.0];

    #[test]
    fn the_refit_by_hand() {
        let mut icem = small().sampler(1).unwrap();
        icem.begin();
        // Elites are the fourth and the second: means 0.4 and −0.1, standard deviations (divisor 2) 0.2 and 0.1.
        tell(&mut icem, SEQUENCES, RETURNS);
        assert_near(icem.mean(), &[0.3, -0.075]);
        // The standard deviation is smoothed, not the variance: 0.25 · 0.5 + 0.75 · 0.2 and 0.1.
        assert_near(icem.std(), &[0.275, 0.2]);
        // Half of the two elites is kept: the better one.
        assert_eq!(icem.elites, [[0.6, -0.2]]);
    }

    #[test]
    fn the_best_of_the_last_iteration_is_executed_or_the_mean_if_asked_for() {
        for (execute, expected) in [(Execute::Best, [0.6, -0.2]), (Execute::Mean, [0.3, -0.075])] {
            let mut icem = IcemConfig { execute, ..small() }.sampler(1).unwrap();
            icem.begin();
            assert_eq!(solution(&icem), [0.0, 0.0]);
            tell(&mut icem, SEQUENCES, RETURNS);
            assert_near(&solution(&icem), &expected);
            // Either way the next control step starts from the shifted mean.
            icem.advance(1);
            icem.begin();
            assert_near(icem.mean(), &[-0.075, -0.075]);
        }
        let mut icem = small().sampler(1).unwrap();
        icem.begin();
        tell(&mut icem, SEQUENCES, RETURNS);
        tell(&mut icem, SEQUENCES, [-9.0, -8.0, -7.0, -6.5]);
        tell(&mut icem, SEQUENCES, [-9.0, -8.0, -7.0, -7.5]);
        assert_eq!(solution(&icem), [-0.9, -0.9], "the best of the last iteration, not of all");
    }

    #[test]
    fn the_population_shrinks_and_stays_above_twice_the_elites() {
        let sizes = |config: IcemConfig| {
            let sampler = config.sampler(1).unwrap();
            [0, 1, 2, 3, 4, 50].map(|i| sampler.population(i))
        };
        // 40, 32, 25.6, 20.48, 16.4.
        assert_eq!(sizes(IcemConfig::default()), [40, 32, 25, 20, 20, 20]);
        assert_eq!(sizes(IcemConfig { population_decay: 1.0, ..IcemConfig::default() }), [40; 6]);
        // Beyond the range of powers.
        let sampler = IcemConfig { population_decay: 1e30, ..IcemConfig::default() }.sampler(1).unwrap();
        assert_eq!((sampler.population(0), sampler.population(usize::MAX)), (40, 20));
        let mut icem = IcemConfig { keep_elites: 0.0, ..IcemConfig::default() }.sampler(1).unwrap();
        let mut rng = Rng::new(0);
        assert_eq!([0, 1, 2].map(|i| ask(&mut icem, i, &mut rng).len()), [40, 32, 25]);
    }

    #[test]
    fn samples_have_the_mean_and_spread_of_the_distribution_at_any_exponent() {
        for noise_exponent in [0.0, 0.25, 2.0, 3.5] {
            let config = IcemConfig { horizon: 5, population: 4000, noise_exponent, ..IcemConfig::default() };
            let mut icem = config.sampler(2).unwrap();
            icem.mean = (0..10).map(|i| 0.1 * i as f32).collect();
            icem.std = (0..10).map(|i| 0.05 * (i + 1) as f32).collect();
            let drawn = ask(&mut icem, 0, &mut Rng::new(1));
            for i in 0..10 {
                let centred = |s: &Vec<f32>| f64::from((s[i] - icem.mean[i]) / icem.std[i]);
                let mean = drawn.iter().map(centred).sum::<f64>() / 4000.0;
                let variance = drawn.iter().map(|s| centred(s).powi(2)).sum::<f64>() / 4000.0;
                // Standard errors 0.016 and 0.022; five of them.
                assert!(mean.abs() < 0.08 && (variance - 1.0).abs() < 0.11, "{mean}, {variance} at {noise_exponent}");
            }
        }
    }

    #[test]
    fn kept_elites_are_asked_for_again_in_the_next_iteration() {
        let mut icem = small().sampler(1).unwrap();
        let mut rng = Rng::new(0);
        icem.begin();
        assert_eq!(ask(&mut icem, 0, &mut rng).len(), 4);
        tell(&mut icem, SEQUENCES, RETURNS);
        let asked = ask(&mut icem, 1, &mut rng);
        assert_eq!((asked.len(), asked.last().unwrap().as_slice()), (5, [0.6, -0.2].as_slice()));
        // It is only a candidate: where it scores badly now, it is dropped.
        tell(&mut icem, SEQUENCES, [3.0, 2.0, -7.0, -9.0]);
        assert_eq!(icem.elites, [[0.9, 0.9]]);
        // A single sequence, as refinement tells of one, is kept as well.
        tell(&mut icem, [[0.3, 0.4]], [1.0]);
        assert_eq!(icem.elites, [[0.3, 0.4]]);
        let mut none = IcemConfig { keep_elites: 0.0, ..small() }.sampler(1).unwrap();
        none.begin();
        tell(&mut none, SEQUENCES, RETURNS);
        assert_eq!(ask(&mut none, 1, &mut rng).len(), 4);
    }

    #[test]
    fn elites_are_shifted_to_the_next_control_step_with_fresh_ends() {
        let config = IcemConfig { horizon: 3, keep_elites: 1.0, initial_std: 1e-3, ..small() };
        let mut icem = config.sampler(1).unwrap();
        let mut rng = Rng::new(0);
        icem.begin();
        tell(&mut icem, [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]], [3.0, 2.0, 1.0]);
        icem.advance(1);
        icem.begin();
        let last = icem.mean()[2];
        let asked = ask(&mut icem, 0, &mut rng);
        assert_eq!(asked.len(), 4 + 2);
        assert_eq!((&asked[4][..2], &asked[5][..2]), ([0.2, 0.3].as_slice(), [0.5, 0.6].as_slice()));
        // The missing action is drawn around the mean's, with the initial standard deviation: neither 0.3 nor 0.6.
        for elite in &asked[4..] {
            assert!((elite[2] - last).abs() < 6e-3 && elite[2] != last, "{elite:?}, mean {last}");
        }
        // After another `ask`, they are complete.
        assert_eq!(ask(&mut icem, 1, &mut rng)[4..], asked[4..]);
        // Steps executed in two calls add up; after a whole horizon nothing is left of the elites.
        icem.advance(1);
        icem.advance(2);
        icem.begin();
        assert_eq!(ask(&mut icem, 0, &mut rng).len(), 4);
        // Not executed, not shifted.
        tell(&mut icem, [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [3.0, 2.0]);
        icem.advance(0);
        icem.begin();
        assert_eq!(ask(&mut icem, 0, &mut rng)[4], [0.1, 0.2, 0.3]);
        let mut forgets = IcemConfig { shift_elites: false, ..config }.sampler(1).unwrap();
        tell(&mut forgets, [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [3.0, 2.0]);
        forgets.advance(1);
        forgets.begin();
        assert_eq!(ask(&mut forgets, 0, &mut rng).len(), 4);
    }

    #[test]
    fn the_mean_is_a_candidate_of_the_last_iteration_alone() {
        let mut icem = IcemConfig { iterations: 2, ..small() }.sampler(1).unwrap();
        icem.mean = vec![0.125, -0.25];
        let mut rng = Rng::new(0);
        icem.begin();
        assert!(!ask(&mut icem, 0, &mut rng).contains(&icem.mean));
        assert_eq!(ask(&mut icem, 1, &mut rng)[0], icem.mean);
        icem.config.mean_in_last = false;
        assert!(!ask(&mut icem, 1, &mut rng).contains(&icem.mean));
    }

    #[test]
    fn reset_forgets_elites_mean_and_spread() {
        let mut icem = small().sampler(1).unwrap();
        icem.begin();
        tell(&mut icem, SEQUENCES, RETURNS);
        icem.advance(1);
        icem.reset();
        assert_eq!((icem.mean(), icem.std()), ([0.0; 2].as_slice(), [0.5; 2].as_slice()));
        assert_eq!(solution(&icem), [0.0, 0.0]);
        icem.begin();
        let mut new = small().sampler(1).unwrap();
        new.begin();
        // The same number of candidates, and the same ones.
        assert_eq!(ask(&mut icem, 0, &mut Rng::new(3)), ask(&mut new, 0, &mut Rng::new(3)));
    }

    #[test]
    fn the_standard_deviation_starts_anew_at_each_control_step() {
        let mut icem = small().sampler(1).unwrap();
        icem.begin();
        tell(&mut icem, SEQUENCES, RETURNS);
        icem.advance(1);
        icem.begin();
        assert_eq!(icem.std(), [0.5, 0.5]);
    }

    #[test]
    fn without_its_additions_it_is_cem() {
        let cem = CemConfig {
            horizon: 3,
            population: 30,
            elites: 5,
            iterations: 2,
            // The smoothed quantity is the only other difference.
            alpha: 0.0,
            truncation: f32::INFINITY,
            constrain_variance: false,
            tail: Tail::Last,
            ..CemConfig::default()
        };
        let icem = IcemConfig {
            horizon: 3,
            population: 30,
            population_decay: 1.0,
            elites: 5,
            iterations: 2,
            alpha: 0.0,
            noise_exponent: 0.0,
            keep_elites: 0.0,
            mean_in_last: false,
            execute: Execute::Mean,
            ..IcemConfig::default()
        };
        let device = Device::flex();
        let run = |sampler: &mut dyn SequenceSampler| {
            let mut rng = Rng::new(1);
            for _ in 0..2 {
                sampler.begin();
                for iteration in 0..2 {
                    let asked = sampler.ask(iteration, &device, &mut rng);
                    let returns = -(asked.clone() - 0.3).square().sum_dim(1).sum_dim(2).reshape([30]);
                    sampler.tell(iteration, asked, &to_host(returns)).unwrap();
                }
                sampler.advance(1);
            }
            sampler.solution()
        };
        let (cem, icem) = (run(&mut cem.sampler(2).unwrap()), run(&mut icem.sampler(2).unwrap()));
        // Up to the rounding of a root.
        assert!(cem.iter().zip(&icem).all(|(a, b)| (a - b).abs() < 1e-5), "{cem:?}, {icem:?}");
        assert!(cem.iter().all(|x| (x - 0.3).abs() < 0.3), "{cem:?}");
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |config: IcemConfig| config.sampler(1).unwrap_err().to_string();
        let base = IcemConfig::default;
        assert_eq!(fails(IcemConfig { horizon: 0, ..base() }), "horizon = 0: expected at least one step");
        assert_eq!(fails(IcemConfig { population: 0, ..base() }), "population = 0: expected at least one candidate");
        assert_eq!(fails(IcemConfig { iterations: 0, ..base() }), "iterations = 0: expected at least one iteration");
        for elites in [0, 21] {
            let error = fails(IcemConfig { elites, ..base() });
            assert_eq!(error, format!("elites = {elites}: expected 1 to 20, half the population"));
        }
        for bad in [0.9, f32::NAN, f32::INFINITY] {
            let error = fails(IcemConfig { population_decay: bad, ..base() });
            assert_eq!(error, format!("population_decay = {bad}: expected a finite number of at least 1"));
        }
        for bad in [-0.1, 1.0, f32::NAN] {
            assert_eq!(
                fails(IcemConfig { alpha: bad, ..base() }),
                format!("alpha = {bad}: expected a number in [0, 1)")
            );
        }
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = fails(IcemConfig { initial_std: bad, ..base() });
            assert_eq!(error, format!("initial_std = {bad}: expected a finite number above 0"));
        }
        for bad in [-0.1, 1.1, f32::NAN] {
            let error = fails(IcemConfig { keep_elites: bad, ..base() });
            assert_eq!(error, format!("keep_elites = {bad}: expected a share in [0, 1]"));
        }
        let error = fails(IcemConfig { noise_exponent: -1.0, ..base() });
        assert_eq!(error, "noise_exponent = -1: expected a finite number of at least 0");
        assert!(base().sampler(0).is_err());
    }
}
