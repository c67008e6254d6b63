//! Planners that sample sequences, score them with the model and learn from the scores.

use std::time::Duration;

use burn::tensor::Tensor;
use mbrl_env::{Rng, Situation};
use mbrl_model::Propagation;

use crate::{
    Aggregate, Candidate, CemSampler, IcemSampler, IterationReport, MppiSampler, PddmSampler, Plan, PlanError,
    PlanStats, Planner, Problem, RandomShootingSampler, SequenceSampler,
    action_rate::RateLimit,
    clock::Clock,
    error::{check_size, require},
    host::to_host,
    propose::proposed,
    returns,
    units::Units,
};
#[cfg(feature = "gradient")]
use crate::{Refinement, Scored, gradient::Ascent, host::to_device};

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

/// A planner made from a [`SequenceSampler`].
///
/// Each iteration asks the sampler for sequences, adds the problem's proposals, clips all to the bounds, scores them with
/// [`returns`] and reports the scores to the sampler. The sampler sees units of half the action range, the model environment units:
/// `action = middle + half range · u`, dimension by dimension. Bounds come with each problem, so they may change between
/// two control steps; their width may not.
///
/// # Discrete actions
///
/// Among n choices the sampler draws n numbers per step, and the largest is the choice (the first of equals). The sampler then
/// learns from sequences with 1 for the choice and −1 for the others, whatever the numbers were. The plan takes the choice with
/// the largest number in each step of the solution.
///
/// CEM becomes the cross-entropy method for categorical distributions, whose refit is the frequency p of each choice among the
/// elites: per step and choice the mean is 2p − 1 and the variance 4p(1 − p), which vanishes as one choice prevails. Only the
/// draws differ: a choice is drawn where 2p − 1 plus noise of that variance is the largest, not with probability p, so frequent
/// choices are drawn even more often. Planners that weight candidates average frequencies in the same way.
#[derive(Debug, Clone)]
pub struct Shooting<S> {
    sampler: S,
    propagation: Propagation,
    aggregate: Aggregate,
    time_budget: Option<Duration>,
    /// How many of the last iteration's sequences a plan reports.
    kept: usize,
    #[cfg(feature = "gradient")]
    refinement: Option<Refinement>,
}

impl<S: SequenceSampler> Shooting<S> {
    /// A planner that scores sequences by their mean over the particles of `propagation`.
    ///
    /// # Errors
    /// [`PlanError::Config`] where there are no particles.
    pub fn new(sampler: S, propagation: Propagation) -> Result<Self, PlanError> {
        require(propagation.particles > 0, "particles", propagation.particles, "at least one particle")?;
        Ok(Self {
            sampler,
            propagation,
            aggregate: Aggregate::Mean,
            time_budget: None,
            kept: 0,
            #[cfg(feature = "gradient")]
            refinement: None,
        })
    }

    /// Scores sequences by another aggregate over particles.
    #[must_use]
    pub fn with_aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// Improves the sampler's solution and the best candidates of the last iteration by gradient steps. The best of them all is
    /// executed, which may be the unchanged solution. A better sequence is reported to the sampler as one more iteration with
    /// this candidate alone, so that its warm start begins there.
    ///
    /// Needs a differentiable model and a bounded box of actions. 0 iterations do not refine.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule.
    #[cfg(feature = "gradient")]
    pub fn with_refinement(mut self, refinement: Refinement) -> Result<Self, PlanError> {
        refinement.validate()?;
        self.refinement = refinement.is_on().then_some(refinement);
        Ok(self)
    }

    /// For real time: an iteration begins only if, at the pace of the slowest so far, it would end within `budget` of the
    /// call. The first one always runs. A refinement gets the time that sampling leaves, and is left out where the budget ends the
    /// sampling. [`PlanStats`] says what was done.
    ///
    /// Plans then depend on the speed of the machine: the same seed no longer gives the same bits.
    #[must_use]
    pub fn with_time_budget(mut self, budget: Duration) -> Self {
        self.time_budget = Some(budget);
        self
    }

    /// Keeps this many of the best sequences of the last iteration in [`Plan::candidates`] (default: none).
    /// [`Trajectory::of`](crate::Trajectory::of) says where they lead.
    #[must_use]
    pub fn with_candidates(mut self, kept: usize) -> Self {
        self.kept = kept;
        self
    }

    /// The sampler.
    #[must_use]
    pub fn sampler(&self) -> &S {
        &self.sampler
    }
}

impl<S: SequenceSampler> Planner for Shooting<S> {
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
        let mut clock = Clock::start(self.time_budget);
        let name = self.sampler.name();
        let [horizon, width] = self.sampler.shape();
        let device = &problem.dynamics.spec().device;
        let limit = RateLimit::of(problem.action_rate, problem.actions, situation)?;
        let units = Units::new(problem.actions, name, device)?.within(limit);
        check_size("width of the action space", width, units.width())?;
        self.aggregate.check()?;
        let proposals = proposed(problem, situation, &units, horizon, rng)?;
        #[cfg(feature = "gradient")]
        let refinement = match &self.refinement {
            Some(refinement) => {
                let ascent = Ascent::new("refinement", problem, situation, self.propagation, self.aggregate)?;
                Some((refinement, ascent))
            }
            None => None,
        };

        let mut trace = Vec::new();
        let mut best_return = f32::NEG_INFINITY;
        let mut best = Vec::new();
        self.sampler.begin();
        #[cfg(feature = "gradient")]
        let mut last = None;
        loop {
            let iteration = trace.len();
            let _span = tracing::debug_span!("plan", planner = name, iteration).entered();
            let mut candidates = units.feasible(self.sampler.ask(iteration, device, rng));
            if let Some(proposals) = &proposals {
                candidates = Tensor::cat(vec![candidates, proposals.clone()], 0);
            }
            let in_env = units.to_env(candidates.clone());
            let scored = returns(problem, situation, in_env.clone(), self.propagation, rng.key())?;
            let scores = to_host(scored.aggregate(self.aggregate));
            if self.kept > 0 {
                best = best_of(&to_host(in_env), &scores, self.kept);
            }
            let report = IterationReport::of(&scores, scored.model_steps);
            tracing::trace!(best = report.best_return, model_steps = report.model_steps);
            #[cfg(feature = "gradient")]
            if refinement.is_some() {
                last = Some(Scored::new([horizon, width], iteration, candidates.clone(), &scores)?);
            }
            self.sampler.tell(iteration, candidates, &scores)?;
            best_return = best_return.max(report.best_return);
            trace.push(report);
            let time = clock.allows_another();
            if trace.len() >= self.sampler.iterations() || self.sampler.converged() || !time {
                break;
            }
        }
        let solution = self.sampler.solution();
        check_size("entries of the sampler's solution", horizon * width, solution.len())?;
        #[cfg(feature = "gradient")]
        let solution = match (refinement, last) {
            (Some((refinement, ascent)), Some(scored)) if clock.has_time() => {
                let iteration = trace.len();
                let mut starts = solution.clone();
                starts.extend(scored.candidates(&scored.elites(refinement.candidates)));
                match ascent.climb(starts, [horizon, width], refinement.into(), &mut clock, &mut trace, rng)? {
                    Some((value, better)) if better != solution => {
                        let only = to_device(better.clone(), [1, horizon, width], device);
                        self.sampler.adopt(iteration, only, value)?;
                        best_return = best_return.max(value);
                        better
                    }
                    _ => solution,
                }
            }
            _ => solution,
        };
        let actions = units.solution_to_env(solution);
        let (shape, stats) = ([horizon, problem.actions.width()], PlanStats::of(&trace, clock.elapsed()));
        Ok(Plan { actions, shape, best_return, stats, trace, candidates: best })
    }

    fn advance(&mut self, executed: usize) {
        self.sampler.advance(executed);
    }

    fn reset(&mut self) {
        self.sampler.reset();
    }
}

/// The best of sequences `[K, H, A]` by their returns `[K]`, best first; those that never count are left out.
fn best_of(sequences: &[f32], values: &[f32], count: usize) -> Vec<Candidate> {
    let len = sequences.len() / values.len().max(1);
    let mut order: Vec<usize> = (0..values.len()).filter(|k| values[*k].is_finite()).collect();
    // Stable sort: the first of equals stays first.
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    let candidate = |k: usize| Candidate { actions: sequences[k * len..(k + 1) * len].to_vec(), value: values[k] };
    order.into_iter().take(count).map(candidate).collect()
}
