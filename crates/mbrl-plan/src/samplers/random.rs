//! # Random shooting
//!
//! Draws sequences from a fixed distribution, tries them all and keeps the best. Nothing is learned from one
//! iteration, or control step, to the next.
//!
//! | Nagabandi et al. \[1\] | here |
//! |---|---|
//! | `K`, `H` | [`RandomShootingConfig::population`], [`RandomShootingConfig::horizon`] |
//! | uniform actions | [`Proposal::Uniform`] |
//!
//! ## References
//! \[1\] Nagabandi et al. (2018), *Neural Network Dynamics for Model-Based Deep Reinforcement Learning with Model-Free
//! Fine-Tuning*, ICRA. arXiv:1708.02596

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Rng};
use mbrl_model::{Propagation, uniforms};
use serde::{Deserialize, Serialize};

use crate::{
    ColouredNoise, PlanError, RandomShooting, Scored, SequenceSampler, Shooting,
    error::require,
    sampler::{check_sizes, sampler_width},
};

const NAME: &str = "random shooting";

/// The distribution of the sequences. Actions beyond the bounds are clipped.
///
/// Sequences from elsewhere, a policy's say, are tried besides these if they are given as the problem's
/// [`proposals`](crate::Problem::proposals).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Proposal {
    /// Every action uniform between the bounds, anew at each step (default).
    #[default]
    Uniform,
    /// Uniform between the bounds, each action held for some steps (as in PDDM's random policy).
    Hold {
        /// Steps that an action is held for, at least 1.
        steps: usize,
    },
    /// Normal around the middle of the range, anew at each step.
    Normal {
        /// Standard deviation, in half ranges.
        std: f32,
    },
    /// Normal around the middle of the range, with a spectrum of f^−exponent: see [`ColouredNoise`].
    Coloured {
        /// Standard deviation, in half ranges.
        std: f32,
        /// Exponent of the spectrum: 0 is white, larger values give slower actions.
        exponent: f32,
    },
}

/// Settings of [`RandomShooting`]. The default is that of the authors' half-cheetah \[1\].
///
/// ```
/// use mbrl_plan::{ActionSpace, BoxSpace, Propagation, Proposal, RandomShootingConfig};
///
/// let actions = ActionSpace::Box(BoxSpace::symmetric(6, 1.0)?);
/// let proposal = Proposal::Coloured { std: 0.5, exponent: 2.0 };
/// let planner = RandomShootingConfig { proposal, ..RandomShootingConfig::default() }.init(&actions,
/// Propagation::MEAN)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomShootingConfig {
    /// Horizon in steps, `H` (default: 20).
    pub horizon: usize,
    /// Sequences per iteration, `K` (default: 1000).
    pub population: usize,
    /// Iterations per control step (default: 1): equivalent to a larger population, in less memory.
    pub iterations: usize,
    /// The distribution that they are drawn from (default: uniform).
    pub proposal: Proposal,
}

impl Default for RandomShootingConfig {
    fn default() -> Self {
        Self { horizon: 20, population: 1000, iterations: 1, proposal: Proposal::Uniform }
    }
}

impl RandomShootingConfig {
    /// The authors' ant: 15,000 sequences of 5 steps.
    #[must_use]
    pub fn ant() -> Self {
        Self { horizon: 5, population: 15_000, ..Self::default() }
    }

    /// The authors' hopper: 1000 sequences of 40 steps.
    #[must_use]
    pub fn hopper() -> Self {
        Self { horizon: 40, ..Self::default() }
    }

    /// The authors' swimmer: 5000 sequences of 20 steps.
    #[must_use]
    pub fn swimmer() -> Self {
        Self { population: 5000, ..Self::default() }
    }

    /// Settings for [`search`](crate::optimize::search): one vector of parameters instead of a sequence, many
    /// iterations, and draws that reach beyond one unit where there are no bounds.
    #[must_use]
    pub fn for_search() -> Self {
        Self { horizon: 1, population: 400, iterations: 200, proposal: Proposal::Normal { std: 0.5 } }
    }

    /// A planner for an action space.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, [`PlanError::ActionSpace`] for a space that is neither a
    /// bounded box nor discrete.
    pub fn init(&self, actions: &ActionSpace, propagation: Propagation) -> Result<RandomShooting, PlanError> {
        let sampler = self.sampler(sampler_width(actions, NAME)?)?;
        Shooting::new(sampler, propagation)
    }

    /// The sampler alone, for actions of `width` dimensions.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule.
    pub fn sampler(&self, width: usize) -> Result<RandomShootingSampler, PlanError> {
        check_sizes(width, self.horizon, self.population, self.iterations)?;
        let exponent = match self.proposal {
            Proposal::Uniform | Proposal::Normal { .. } => 0.0,
            Proposal::Hold { steps } => {
                require(steps > 0, "steps", steps, "at least one step")?;
                0.0
            }
            Proposal::Coloured { exponent, .. } => exponent,
        };
        if let Proposal::Normal { std } | Proposal::Coloured { std, .. } = self.proposal {
            require(std.is_finite() && std > 0.0, "std", std, "a finite number above 0")?;
        }
        let noise = ColouredNoise::new(exponent, self.horizon)?;
        Ok(RandomShootingSampler { config: self.clone(), width, noise, best: None })
    }
}

/// The distribution of random shooting, and the best sequence; made by [`RandomShootingConfig::sampler`].
#[derive(Debug, Clone)]
pub struct RandomShootingSampler {
    config: RandomShootingConfig,
    width: usize,
    /// For normal proposals.
    noise: ColouredNoise,
    /// The best sequence of this control step and its return.
    best: Option<(f32, Vec<f32>)>,
}

impl RandomShootingSampler {
    /// Uniform actions, each held for some steps.
    fn held(&self, steps: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        let RandomShootingConfig { population, horizon, .. } = self.config;
        let (drawn, width) = (horizon.div_ceil(steps), self.width);
        let actions = uniforms(rng.key(), [population, drawn * width], device) * 2.0 - 1.0;
        if steps == 1 {
            return actions.reshape([population, horizon, width]);
        }
        let held = actions.reshape([population, drawn, 1, width]).repeat_dim(2, steps.min(horizon));
        held.reshape([population, drawn * steps.min(horizon), width]).narrow(1, 0, horizon)
    }
}

impl SequenceSampler for RandomShootingSampler {
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
        self.best = None;
    }

    fn ask(&mut self, _: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        match self.config.proposal {
            Proposal::Uniform => self.held(1, device, rng),
            Proposal::Hold { steps } => self.held(steps, device, rng),
            Proposal::Normal { std } | Proposal::Coloured { std, .. } => {
                self.noise.sample(self.config.population, self.width, device, rng) * std
            }
        }
    }

    fn tell(&mut self, iteration: usize, candidates: Tensor<3>, returns: &[f32]) -> Result<(), PlanError> {
        let scored = Scored::new(self.shape(), iteration, candidates, returns)?;
        let k = scored.best();
        if self.best.as_ref().is_none_or(|(value, _)| scored.value(k) > *value) {
            self.best = Some((scored.value(k), scored.candidate(k)));
        }
        Ok(())
    }

    fn solution(&self) -> Vec<f32> {
        let best = self.best.as_ref().map(|(_, sequence)| sequence.clone());
        best.unwrap_or_else(|| vec![0.0; self.config.horizon * self.width])
    }

    fn advance(&mut self, _: usize) {}

    fn reset(&mut self) {
        self.best = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::to_host;

    fn sampler(proposal: Proposal, width: usize) -> RandomShootingSampler {
        RandomShootingConfig { horizon: 6, population: 4000, iterations: 1, proposal }.sampler(width).unwrap()
    }

    /// The values of one entry over all sequences.
    fn entries(sampler: &mut RandomShootingSampler, entry: usize) -> Vec<f64> {
        let len = 6 * sampler.width;
        let drawn = to_host(sampler.ask(0, &Device::flex(), &mut Rng::new(2)));
        drawn.into_iter().skip(entry).step_by(len).map(f64::from).collect()
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        values.sum::<f64>() / 4000.0
    }

    #[test]
    fn each_proposal_has_its_spread_and_its_memory() {
        // Proposal, variance, covariance with the next step.
        let cases = [
            (Proposal::Uniform, 1.0 / 3.0, 0.0),
            (Proposal::Hold { steps: 2 }, 1.0 / 3.0, 1.0 / 3.0),
            (Proposal::Hold { steps: 9 }, 1.0 / 3.0, 1.0 / 3.0),
            (Proposal::Normal { std: 0.3 }, 0.09, 0.0),
            (Proposal::Coloured { std: 0.3, exponent: 0.0 }, 0.09, 0.0),
        ];
        for (proposal, variance, with_next) in cases {
            let (now, next) = (entries(&mut sampler(proposal, 2), 0), entries(&mut sampler(proposal, 2), 2));
            let other = entries(&mut sampler(proposal, 2), 1);
            // The standard error of a mean product is at most the variance times √2 / √4000 = 2.2 %; five of them.
            let margin = 0.11 * variance;
            assert!((mean(now.iter().map(|x| x * x)) - variance).abs() < margin, "{proposal:?}");
            assert!((mean(now.iter().zip(&next).map(|(a, b)| a * b)) - with_next).abs() < margin, "{proposal:?}");
            assert!(mean(now.iter().zip(&other).map(|(a, b)| a * b)).abs() < margin, "{proposal:?}");
        }
    }

    #[test]
    fn actions_are_held_and_then_drawn_anew() {
        let mut held = sampler(Proposal::Hold { steps: 4 }, 1);
        let sequence = |k: usize, drawn: &[f32]| drawn[6 * k..6 * (k + 1)].to_vec();
        let drawn = to_host(held.ask(0, &Device::flex(), &mut Rng::new(2)));
        for k in 0..100 {
            let s = sequence(k, &drawn);
            assert!(s[..4].iter().all(|x| *x == s[0]) && s[4] == s[5] && s[3] != s[4], "{s:?}");
        }
    }

    #[test]
    fn colour_gives_slow_sequences() {
        let mut slow = sampler(Proposal::Coloured { std: 0.3, exponent: 3.0 }, 1);
        let (now, next) = (entries(&mut slow, 2), entries(&mut slow, 3));
        let product = mean(now.iter().zip(&next).map(|(a, b)| a * b));
        assert!(product > 0.5 * 0.09, "{product}");
    }

    #[test]
    fn the_best_of_all_iterations_is_kept_and_the_next_control_step_starts_without_it() {
        let device = Device::flex();
        let mut random =
            RandomShootingConfig { horizon: 2, iterations: 3, ..RandomShootingConfig::default() }.sampler(1).unwrap();
        let tell = |random: &mut RandomShootingSampler, returns: [f32; 2]| {
            let candidates = Tensor::<3>::from_floats([[[0.1], [0.2]], [[0.3], [0.4]]], &device);
            random.tell(0, candidates, &returns)
        };
        random.begin();
        assert!(tell(&mut random, [f32::NAN; 2]).is_err());
        tell(&mut random, [1.0, 2.0]).unwrap();
        tell(&mut random, [1.5, 1.0]).unwrap();
        assert_eq!(random.solution(), [0.3, 0.4]);
        random.begin();
        tell(&mut random, [-1.0, -2.0]).unwrap();
        assert_eq!(random.solution(), [0.1, 0.2]);
        random.reset();
        assert_eq!(random.solution(), [0.0, 0.0]);
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |config: RandomShootingConfig| config.sampler(1).unwrap_err().to_string();
        let base = RandomShootingConfig::default;
        assert_eq!(fails(RandomShootingConfig { horizon: 0, ..base() }), "horizon = 0: expected at least one step");
        assert_eq!(
            fails(RandomShootingConfig { population: 0, ..base() }),
            "population = 0: expected at least one candidate"
        );
        assert_eq!(
            fails(RandomShootingConfig { iterations: 0, ..base() }),
            "iterations = 0: expected at least one iteration"
        );
        let of = |proposal| fails(RandomShootingConfig { proposal, ..base() });
        assert_eq!(of(Proposal::Hold { steps: 0 }), "steps = 0: expected at least one step");
        for std in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(of(Proposal::Normal { std }), format!("std = {std}: expected a finite number above 0"));
            assert_eq!(
                of(Proposal::Coloured { std, exponent: 1.0 }),
                format!("std = {std}: expected a finite number above 0")
            );
        }
        let error = of(Proposal::Coloured { std: 1.0, exponent: -1.0 });
        assert_eq!(error, "noise_exponent = -1: expected a finite number of at least 0");
        assert!(base().sampler(0).is_err());
    }
}
