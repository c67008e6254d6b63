//! The interface of a planner.

use std::time::Duration;

use mbrl_env::{Rng, Situation};

use crate::{
    PlanError, Problem,
    error::{check_size, require},
};

/// What a plan cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanStats {
    /// Iterations of the optimizer.
    pub iterations: usize,
    /// Model steps: one per particle, candidate and step of the horizon, and one more for each where a gradient is taken. The
    /// measure of sample efficiency.
    pub model_steps: u64,
    /// Wall-clock time.
    pub elapsed: Duration,
}

impl PlanStats {
    /// The cost of a plan.
    #[must_use]
    pub fn new(iterations: usize, model_steps: u64, elapsed: Duration) -> Self {
        Self { iterations, model_steps, elapsed }
    }

    /// The cost of these iterations.
    pub(crate) fn of(trace: &[IterationReport], elapsed: Duration) -> Self {
        Self::new(trace.len(), trace.iter().map(|iteration| iteration.model_steps).sum(), elapsed)
    }
}

/// What one iteration of a planner found. Shows whether a search converges, stalls or meets NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct IterationReport {
    /// Sequences scored.
    pub candidates: usize,
    /// How many of them have a finite return; the others never count.
    pub finite: usize,
    /// Largest finite return of this iteration; −∞ where there is none.
    pub best_return: f32,
    /// Mean of the finite returns; NaN where there is none.
    pub mean_return: f32,
    /// Model steps taken, as in [`PlanStats::model_steps`].
    pub model_steps: u64,
}

impl IterationReport {
    /// An iteration that scored sequences with these returns, `[K]`.
    #[must_use]
    pub fn of(returns: &[f32], model_steps: u64) -> Self {
        let finite = || returns.iter().copied().filter(|value| value.is_finite());
        let count = finite().count();
        let mean = finite().map(f64::from).sum::<f64>() / count as f64;
        Self {
            candidates: returns.len(),
            finite: count,
            best_return: finite().fold(f32::NEG_INFINITY, f32::max),
            mean_return: mean as f32,
            model_steps,
        }
    }
}

/// A sequence of actions that was scored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// Actions in the environment's units, `[H, A]` in row-major order.
    pub actions: Vec<f32>,
    /// Its return, as predicted by the model.
    pub value: f32,
}

/// A planned sequence of actions.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Actions in the environment's units, `[H, A]` in row-major order.
    pub actions: Vec<f32>,
    /// Horizon and width of an action, `[H, A]`, each at least 1.
    pub shape: [usize; 2],
    /// The return that the model predicts for the best sequence that was scored: the plan itself where the planner executes the best,
    /// else a bound that the plan need not reach (the mean of a distribution is not scored).
    pub best_return: f32,
    /// What it cost.
    pub stats: PlanStats,
    /// What each iteration found, in order; empty where a planner does not report it.
    pub trace: Vec<IterationReport>,
    /// The best sequences of the last iteration, best first, where the planner was told to keep some
    /// ([`Shooting::with_candidates`](crate::Shooting::with_candidates)); else empty.
    pub candidates: Vec<Candidate>,
}

impl Plan {
    /// A plan of `actions` `[H, A]`, in the environment's units and row-major order, without a trace.
    ///
    /// ```
    /// use mbrl_plan::{Plan, PlanStats};
    ///
    /// // Two steps of three actions.
    /// let plan = Plan::new(vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [2, 3], -1.5, PlanStats::default())?;
    /// assert_eq!(plan.action(1), [0.4, 0.5, 0.6]);
    /// assert!(Plan::new(vec![0.1], [2, 3], 0.0, PlanStats::default()).is_err());
    /// # Ok::<(), mbrl_plan::PlanError>(())
    /// ```
    ///
    /// # Errors
    /// [`PlanError::Config`] for a plan without steps or without action dimensions, [`PlanError::Width`] where there are not
    /// `H · A` actions.
    pub fn new(actions: Vec<f32>, shape: [usize; 2], best_return: f32, stats: PlanStats) -> Result<Self, PlanError> {
        let plan = Self { actions, shape, best_return, stats, trace: Vec::new(), candidates: Vec::new() };
        plan.check()?;
        Ok(plan)
    }

    /// The action of step `t`, `[A]`.
    ///
    /// # Panics
    /// For a step beyond the horizon.
    #[must_use]
    pub fn action(&self, t: usize) -> &[f32] {
        let width = self.shape[1];
        &self.actions[t * width..(t + 1) * width]
    }

    /// Steps planned, `H`.
    #[must_use]
    pub fn horizon(&self) -> usize {
        self.shape[0]
    }

    /// Whether the actions have the stated shape, which is not certain since the fields are public.
    pub(crate) fn check(&self) -> Result<(), PlanError> {
        let [horizon, width] = self.shape;
        require(horizon > 0 && width > 0, "shape of the plan", format!("[{horizon}, {width}]"), "at least one action")?;
        check_size("entries of the plan", horizon * width, self.actions.len())
    }
}

/// Chooses actions by looking ahead.
///
/// Contract, tested by [`check::check_planner`](crate::check::check_planner) except for the last point, since not every planner
/// keeps a warm start:
/// - plans lie within the bounds of `problem.actions` and are finite, whatever the model returns (a NaN never wins);
/// - the same situation, problem and generator state give the same bits;
/// - `reset` forgets everything from earlier episodes: elites, means, filters;
/// - `advance(n)` shifts the warm start by the n steps that were executed.
///
/// Planners that sample sequences and learn from their returns are easier to write as a
/// [`SequenceSampler`](crate::SequenceSampler). A complete implementation of a planner, which holds the best action over the
/// horizon:
///
/// ```
/// use mbrl_plan::{
///     Aggregate, Device, Plan, PlanError, PlanStats, Planner, Problem, Propagation, Rng, Situation, Tensor,
///     check::check_planner, returns,
/// };
///
/// /// Tries 100 random actions, each held for five steps.
/// struct Hold;
///
/// impl Planner for Hold {
///     fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
///         let (tries, horizon, width) = (100, 5, problem.actions.width());
///         let refused = |_| PlanError::ActionSpace {
///             planner: "hold",
///             expected: "bounds or choices",
///             space: format!("{:?}", problem.actions),
///         };
///         let actions: Vec<Vec<f32>> =
///             (0..tries).map(|_| problem.actions.sample(rng)).collect::<Result<_, _>>().map_err(refused)?;
///         let sequences: Vec<f32> = actions.iter().flat_map(|action| action.repeat(horizon)).collect();
///         let device = &problem.dynamics.spec().device;
///         let candidates = Tensor::<1>::from_floats(&sequences[..], device).reshape([tries, horizon, width]);
///
///         let scored = returns(problem, situation, candidates, Propagation::MEAN, rng.key())?;
///         // Finite, or −∞ for what must not win.
///         let scores: Vec<f32> = scored.aggregate(Aggregate::Mean).into_data().iter().collect();
///         let best = (0..tries).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).expect("some were tried");
///         if !scores[best].is_finite() {
///             return Err(PlanError::NoFiniteReturn { population: tries, iteration: 0 });
///         }
///         let stats = PlanStats::new(1, scored.model_steps, std::time::Duration::ZERO);
///         Plan::new(actions[best].repeat(horizon), [horizon, width], scores[best], stats)
///     }
///     fn advance(&mut self, _executed: usize) {}
///     fn reset(&mut self) {}
/// }
///
/// // Bounds, NaN, determinism, reset, other spaces.
/// check_planner(|_| Ok(Hold), &Device::flex())?;
/// # Ok::<(), PlanError>(())
/// ```
pub trait Planner: Send {
    /// Plans from `situation`.
    ///
    /// # Errors
    /// [`PlanError`] for a problem that cannot be planned, or an error of the model.
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError>;

    /// Shifts the warm start after the first `executed` actions of the last plan were executed.
    fn advance(&mut self, executed: usize);

    /// A new episode begins: forgets the warm start.
    fn reset(&mut self);
}

impl<P: Planner + ?Sized> Planner for &mut P {
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
        (**self).plan(situation, problem, rng)
    }
    fn advance(&mut self, executed: usize) {
        (**self).advance(executed);
    }
    fn reset(&mut self) {
        (**self).reset();
    }
}

impl<P: Planner + ?Sized> Planner for Box<P> {
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
        (**self).plan(situation, problem, rng)
    }
    fn advance(&mut self, executed: usize) {
        (**self).advance(executed);
    }
    fn reset(&mut self) {
        (**self).reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_finite_returns_alone() {
        let report = IterationReport::of(&[1.0, f32::NAN, -4.0, f32::NEG_INFINITY, 6.0], 70);
        let expected =
            IterationReport { candidates: 5, finite: 3, best_return: 6.0, mean_return: 1.0, model_steps: 70 };
        assert_eq!(report, expected);
        let nothing = IterationReport::of(&[f32::NAN, f32::INFINITY], 2);
        assert_eq!((nothing.finite, nothing.best_return), (0, f32::NEG_INFINITY));
        assert!(nothing.mean_return.is_nan());
        let stats = PlanStats::of(&[report, nothing], Duration::from_millis(3));
        assert_eq!(stats, PlanStats::new(2, 72, Duration::from_millis(3)));
    }

    #[test]
    fn a_plan_has_the_shape_that_it_says() {
        let plan = |len, shape| Plan::new(vec![0.0; len], shape, 0.0, PlanStats::default());
        assert_eq!(plan(6, [3, 2]).unwrap().horizon(), 3);
        assert_eq!(plan(5, [3, 2]).unwrap_err().to_string(), "entries of the plan = 5: expected 6");
        for shape in [[0, 2], [3, 0]] {
            let error = plan(0, shape).unwrap_err().to_string();
            assert_eq!(error, format!("shape of the plan = {shape:?}: expected at least one action"));
        }
    }
}
