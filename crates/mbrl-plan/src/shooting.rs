//! Planners that sample sequences, score them with the model and learn from the scores.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use mbrl_env::{BoxSpace, Rng, Situation};
use mbrl_model::Propagation;

use crate::{
    Aggregate, CemSampler, IcemSampler, MppiSampler, PddmSampler, Plan, PlanError, PlanStats, Planner, Problem,
    RandomShootingSampler, SequenceSampler,
    error::{check_size, require},
    host::{to_device, to_host},
    returns,
    sampler::bounded,
};

/// The cross-entropy method; made by [`CemConfig::init`](crate::CemConfig::init).
pub type Cem = Shooting<CemSampler>;

/// PDDM's filtered, reward-weighted planner; made by [`PddmConfig::init`](crate::PddmConfig::init).
pub type Pddm = Shooting<PddmSampler>;

/// iCEM; made by [`IcemConfig::init`](crate::IcemConfig::init).
pub type Icem = Shooting<IcemSampler>;

/// Model-predictive path integral control; made by [`MppiConfig::init`](crate::MppiConfig::init).
pub type Mppi = Shooting<MppiSampler>;

/// Random shooting; made by [`RandomShootingConfig::init`](crate::RandomShootingConfig::init).
pub type RandomShooting = Shooting<RandomShootingSampler>;

/// A planner out of a [`SequenceSampler`].
///
/// Each iteration asks the sampler for sequences, adds the problem's proposals, clips all to the bounds, scores them with
/// [`returns`] and tells the sampler. The sampler sees units of half the action range, the model environment units:
/// `action = middle + half range · u`, dimension by dimension. Bounds come with each problem, so they may change between
/// two control steps; their width may not.
#[derive(Debug, Clone)]
pub struct Shooting<S> {
    sampler: S,
    propagation: Propagation,
    aggregate: Aggregate,
}

impl<S: SequenceSampler> Shooting<S> {
    /// A planner that scores sequences by their mean over the particles of `propagation`.
    ///
    /// # Errors
    /// [`PlanError::Config`] where there are no particles.
    pub fn new(sampler: S, propagation: Propagation) -> Result<Self, PlanError> {
        require(propagation.particles > 0, "particles", propagation.particles, "at least one particle")?;
        Ok(Self { sampler, propagation, aggregate: Aggregate::Mean })
    }

    /// Scores sequences by another aggregate over particles.
    #[must_use]
    pub fn with_aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// The sampler, to be looked at.
    #[must_use]
    pub fn sampler(&self) -> &S {
        &self.sampler
    }
}

impl<S: SequenceSampler> Planner for Shooting<S> {
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
        let started = Instant::now();
        let name = self.sampler.name();
        let shape @ [horizon, width] = self.sampler.shape();
        let device = &problem.dynamics.spec().device;
        let bounds = bounded(problem.actions, name)?;
        check_size("width of the action space", width, bounds.width())?;
        if let Aggregate::MeanMinusStd(factor) = self.aggregate {
            require(factor.is_finite(), "aggregate", factor, "a finite factor of the standard deviation")?;
        }
        let units = HalfRange::new(bounds, device);
        let proposals = match &problem.proposals {
            Some(proposals) => {
                let [_, h, a] = proposals.dims();
                check_size("horizon of the proposals", horizon, h)?;
                check_size("width of the proposals' actions", width, a)?;
                let values = to_host(proposals.clone());
                if let Some(index) = values.iter().position(|v| !v.is_finite()) {
                    return Err(PlanError::NonFinite { what: "proposals", index, value: values[index] });
                }
                Some(units.of_env(proposals.clone()))
            }
            None => None,
        };

        let mut stats = PlanStats::default();
        let mut predicted_return = f32::NEG_INFINITY;
        self.sampler.begin();
        for iteration in 0..self.sampler.iterations() {
            let _span = tracing::debug_span!("plan", planner = name, iteration).entered();
            let mut candidates = self.sampler.ask(iteration, device, rng);
            if let Some(proposals) = &proposals {
                candidates = Tensor::cat(vec![candidates, proposals.clone()], 0);
            }
            let candidates = candidates.clamp(-1.0, 1.0);
            let scored = returns(problem, situation, units.to_env(candidates.clone()), self.propagation, rng.key())?;
            let scores = scored.aggregate(self.aggregate);
            let best = to_host(scores.clone()).into_iter().fold(f32::NEG_INFINITY, f32::max);
            tracing::trace!(best, model_steps = scored.model_steps);
            self.sampler.tell(iteration, candidates, scores)?;
            predicted_return = predicted_return.max(best);
            stats.iterations += 1;
            stats.model_steps += scored.model_steps;
            if self.sampler.converged() {
                break;
            }
        }
        let actions = units.to_env_host(to_host(self.sampler.solution(device)));
        stats.elapsed = started.elapsed();
        Ok(Plan { actions: to_device(actions, shape, device), predicted_return, stats })
    }

    fn advance(&mut self, executed: usize) {
        self.sampler.advance(executed);
    }

    fn reset(&mut self) {
        self.sampler.reset();
    }
}

/// Between environment units and units of half the action range.
struct HalfRange<'a> {
    bounds: &'a BoxSpace,
    middle: Vec<f32>,
    half: Vec<f32>,
    device: &'a Device,
}

impl<'a> HalfRange<'a> {
    fn new(bounds: &'a BoxSpace, device: &'a Device) -> Self {
        let (low, high) = (bounds.low(), bounds.high());
        // Halved before they are added: the range of two large bounds may overflow.
        let middle = low.iter().zip(high).map(|(l, h)| 0.5 * h + 0.5 * l).collect();
        let half = low.iter().zip(high).map(|(l, h)| 0.5 * h - 0.5 * l).collect();
        Self { bounds, middle, half, device }
    }

    /// A row `[1, 1, A]` to go with sequences `[K, H, A]`.
    fn row(&self, values: &[f32]) -> Tensor<3> {
        to_device(values.to_vec(), [1, 1, values.len()], self.device)
    }

    /// Clipped: the sum may round to just beyond a bound.
    fn to_env(&self, sequences: Tensor<3>) -> Tensor<3> {
        let actions = sequences * self.row(&self.half) + self.row(&self.middle);
        actions.max_pair(self.row(self.bounds.low())).min_pair(self.row(self.bounds.high()))
    }

    fn of_env(&self, sequences: Tensor<3>) -> Tensor<3> {
        (sequences - self.row(&self.middle)) / self.row(&self.half)
    }

    /// One sequence `[H, A]`, clipped as well.
    fn to_env_host(&self, mut sequence: Vec<f32>) -> Vec<f32> {
        for action in sequence.chunks_exact_mut(self.half.len()) {
            for (i, u) in action.iter_mut().enumerate() {
                *u = (self.middle[i] + self.half[i] * *u).clamp(self.bounds.low()[i], self.bounds.high()[i]);
            }
        }
        sequence
    }
}
