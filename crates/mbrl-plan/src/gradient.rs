//! # Gradient shooting: climb through the model
//!
//! Adam improves action sequences along the gradient of their return, back-propagated through the model and the reward.
//! Many starts climb at once, in one graph; the best sequence that any of them has seen is the plan.
//!
//! - Sequences are in units of half the action range and are held within the bounds by projection.
//! - The first start is the last plan, shifted by the steps that were executed. Half of the others are that plan with noise,
//!   half begin with one random action held over the horizon: the return has many local maxima where angles wrap or an
//!   obstacle is in the way, and a gradient only leads to the nearest one uphill.
//! - All iterations of a control step use the same random numbers: a sequence that has a larger value than another is better,
//!   and not luckier.
//! - A sequence whose value or gradient is not finite starts again, without affecting the others; NaN never wins.
//!
//! The gradient costs about as much as the evaluation and needs no more evaluations in more dimensions: this is
//! the planner for long horizons and many joints, where the model is smooth. A [`Termination`](mbrl_env::Termination) is a
//! jump that a gradient does not see: only the rewards before it can steer away from it.
//!
//! ## References
//! \[1\] Kingma, Ba (2015), *Adam: A Method for Stochastic Optimization*, ICLR. arXiv:1412.6980
//! \[2\] Bharadhwaj, Xie, Shkurti (2020), *Model-Predictive Control via Cross-Entropy and Gradient-Based Optimization*, L4DC:
//! sampling, then gradients, as [`Refinement`] does. arXiv:2004.08763

use std::time::Duration;

use burn::tensor::Tensor;
use mbrl_env::{ActionSpace, Rng, Situation};
use mbrl_model::Propagation;
use serde::{Deserialize, Serialize};

use crate::{
    Aggregate, IterationReport, Plan, PlanError, PlanStats, Planner, Problem, Refinement,
    action_rate::RateLimit,
    climb::{Climb, value_and_gradient},
    clock::Clock,
    error::{check_size, require},
    host::{to_device, to_host},
    propose::proposed,
    returns,
    units::{HalfRange, Units, bounded},
    warm_start::{Tail, shift},
};

const NAME: &str = "gradient";

/// Settings of [`GradientShooting`].
///
/// ```
/// use mbrl_plan::{ActionSpace, BoxSpace, GradientConfig, Propagation};
///
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 3.0)?);
/// let planner = GradientConfig { horizon: 50, ..GradientConfig::default() }.init(&actions, Propagation::MEAN)?;
/// assert!(GradientConfig::default().init(&ActionSpace::Discrete(3), Propagation::MEAN).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradientConfig {
    /// Horizon in steps, `H` (default: 25, as in [`CemConfig`](crate::CemConfig)).
    pub horizon: usize,
    /// Sequences that climb, `K`, including the last plan; proposals come on top (default: 8).
    pub starts: usize,
    /// Gradient steps per control step (default: 40).
    pub iterations: usize,
    /// Length of the first steps in each dimension, in half ranges; the steps of a control step shrink evenly to nothing, so
    /// that the last ones settle (default: 0.1: 40 of them can just cross the whole range, which is 2).
    pub learning_rate: f32,
    /// Standard deviation of the noise on the last plan, in half ranges (default: 0.5, as CEM's).
    pub initial_std: f32,
    /// What fills the end of the shifted plan (default: the middle of the range).
    pub tail: Tail,
}

impl Default for GradientConfig {
    fn default() -> Self {
        Self { horizon: 25, starts: 8, iterations: 40, learning_rate: 0.1, initial_std: 0.5, tail: Tail::Middle }
    }
}

impl GradientConfig {
    /// A planner for an action space.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a value that breaks its rule, [`PlanError::ActionSpace`] for a space that is not a bounded box.
    pub fn init(&self, actions: &ActionSpace, propagation: Propagation) -> Result<GradientShooting, PlanError> {
        let width = bounded(actions, NAME, BOXES)?.width();
        let Self { horizon, starts, initial_std, .. } = *self;
        require(width > 0, "width", width, "at least one action dimension")?;
        require(horizon > 0, "horizon", horizon, "at least one step")?;
        require(starts > 0, "starts", starts, "at least one start")?;
        self.steps().validate()?;
        require(
            initial_std.is_finite() && initial_std >= 0.0,
            "initial_std",
            initial_std,
            "a finite number of at least 0",
        )?;
        require(propagation.particles > 0, "particles", propagation.particles, "at least one particle")?;
        Ok(GradientShooting {
            width,
            propagation,
            aggregate: Aggregate::Mean,
            time_budget: None,
            plan: vec![0.0; horizon * width],
            config: self.clone(),
        })
    }

    fn steps(&self) -> Steps {
        Steps { iterations: self.iterations, learning_rate: self.learning_rate }
    }
}

/// The number of gradient steps and their length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    iterations: usize,
    learning_rate: f32,
}

impl From<&Refinement> for Steps {
    fn from(refinement: &Refinement) -> Self {
        Self { iterations: refinement.iterations, learning_rate: refinement.learning_rate }
    }
}

impl Steps {
    fn validate(self) -> Result<(), PlanError> {
        let Self { iterations, learning_rate } = self;
        require(iterations > 0, "iterations", iterations, "at least one iteration")?;
        require(
            learning_rate.is_finite() && learning_rate > 0.0,
            "learning_rate",
            learning_rate,
            "a finite number above 0",
        )
    }
}

/// A planner that climbs the gradient of the return; made by [`GradientConfig::init`].
///
/// Needs a differentiable model and a bounded box of actions.
///
/// ```
/// use mbrl_plan::{
///     ActionSpace, BoxSpace, Device, GradientConfig, Planner, Problem, Propagation, Rng, Situation, Tensor,
///     dynamics_fn, reward_fn,
/// };
///
/// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1);
/// let reward = reward_fn(|_, _, next: Tensor<2>| -(next - 0.3).square().squeeze_dim::<1>(1));
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
/// let problem = Problem::new(&model, &actions).with_reward(&reward);
/// let mut planner = GradientConfig { horizon: 6, ..GradientConfig::default() }.init(&actions, Propagation::MEAN)?;
/// let plan = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0))?;
/// // As fast as possible to 0.3, which costs 0.2² + 0.1² on the way.
/// assert!((plan.best_return + 0.05).abs() < 1e-3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GradientShooting {
    config: GradientConfig,
    width: usize,
    propagation: Propagation,
    aggregate: Aggregate,
    time_budget: Option<Duration>,
    /// The last plan, shifted by the executed steps, in half ranges, `[H, A]`.
    plan: Vec<f32>,
}

impl GradientShooting {
    /// Scores sequences by another aggregate over particles (default: their mean).
    #[must_use]
    pub fn with_aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// For real time: an iteration begins only if, at the pace of the slowest so far, it would end within `budget` of the
    /// call. The first one always runs. [`PlanStats`] says what was done.
    ///
    /// Plans then depend on the speed of the machine: the same seed no longer gives the same bits.
    #[must_use]
    pub fn with_time_budget(mut self, budget: Duration) -> Self {
        self.time_budget = Some(budget);
        self
    }

    /// The last plan, then alternately that plan with noise and one random action held over the horizon.
    fn starts(&self, rng: &mut Rng) -> Vec<f32> {
        let mut starts = self.plan.clone();
        for start in 1..self.config.starts {
            if start % 2 == 1 {
                starts.extend(self.plan.iter().map(|u| u + self.config.initial_std * rng.normal()));
            } else {
                let held: Vec<f32> = (0..self.width).map(|_| rng.uniform(-1.0, 1.0)).collect();
                starts.extend(held.repeat(self.config.horizon));
            }
        }
        starts
    }
}

impl Planner for GradientShooting {
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
        let mut clock = Clock::start(self.time_budget);
        let _span = tracing::debug_span!("plan", planner = NAME).entered();
        let shape @ [horizon, width] = [self.config.horizon, self.width];
        let ascent = Ascent::new(NAME, problem, situation, self.propagation, self.aggregate)?;
        let device = &problem.dynamics.spec().device;
        let limit = RateLimit::of(problem.action_rate, problem.actions, situation)?;
        let units = Units::new(problem.actions, NAME, device)?.within(limit);
        check_size("width of the action space", width, problem.actions.width())?;
        let mut starts = self.starts(rng);
        if let Some(proposals) = proposed(problem, situation, &units, horizon, rng)? {
            starts.extend(to_host(proposals));
        }
        let population = starts.len() / self.plan.len();
        let mut trace = Vec::new();
        let found = ascent.climb(starts, shape, self.config.steps(), &mut clock, &mut trace, rng)?;
        let iteration = trace.len().saturating_sub(1);
        let (best_return, plan) = found.ok_or(PlanError::NoFiniteReturn { population, iteration })?;
        self.plan = plan;
        let actions = units.solution_to_env(self.plan.clone());
        Ok(Plan {
            actions,
            shape,
            best_return,
            stats: PlanStats::of(&trace, clock.elapsed()),
            trace,
            candidates: Vec::new(),
        })
    }

    fn advance(&mut self, executed: usize) {
        shift(&mut self.plan, self.width, executed, self.config.tail);
    }

    fn reset(&mut self) {
        self.plan.fill(0.0);
    }
}

const BOXES: &str = "a bounded box";

/// The function that is climbed in one control step.
pub(crate) struct Ascent<'a> {
    problem: &'a Problem<'a>,
    situation: &'a Situation<'a>,
    units: HalfRange<'a>,
    rate: Option<RateLimit>,
    propagation: Propagation,
    aggregate: Aggregate,
}

impl<'a> Ascent<'a> {
    /// # Errors
    /// [`PlanError::NotDifferentiable`], [`PlanError::ActionSpace`] for a space that is not a bounded box, [`PlanError::Config`]
    /// for an aggregate that breaks its rule.
    pub(crate) fn new(
        planner: &'static str,
        problem: &'a Problem<'a>,
        situation: &'a Situation<'a>,
        propagation: Propagation,
        aggregate: Aggregate,
    ) -> Result<Self, PlanError> {
        let spec = problem.dynamics.spec();
        if !spec.differentiable {
            return Err(PlanError::NotDifferentiable { planner, model: spec.name.clone() });
        }
        aggregate.check()?;
        let units = HalfRange::new(bounded(problem.actions, planner, BOXES)?, &spec.device);
        let rate = RateLimit::of(problem.action_rate, problem.actions, situation)?;
        Ok(Self { problem, situation, units, rate, propagation, aggregate })
    }

    /// Climbs from `starts` `[K, H, A]`, in half ranges, always with the same random numbers of the model. Returns the best
    /// sequence seen, the starts included, and its value; `None` where no value was finite. Each iteration is added to `trace`.
    pub(crate) fn climb(
        &self,
        starts: Vec<f32>,
        [horizon, width]: [usize; 2],
        steps: Steps,
        clock: &mut Clock,
        trace: &mut Vec<IterationReport>,
        rng: &mut Rng,
    ) -> Result<Option<(f32, Vec<f32>)>, PlanError> {
        let len = horizon * width;
        let population = starts.len() / len;
        let mut climb = Climb::new(starts, len, true).within(self.rate.clone());
        let key = rng.key();
        clock.start_phase();
        for iteration in 0..=steps.iterations {
            let mut model_steps = 0;
            let mut evaluate = |points: Tensor<2>| {
                let candidates = self.units.to_env_tracked(points.reshape([population, horizon, width]));
                let scored = returns(self.problem, self.situation, candidates, self.propagation, key)?;
                model_steps = scored.model_steps;
                Ok(scored.aggregate(self.aggregate))
            };
            let device = &self.problem.dynamics.spec().device;
            let points = to_device(climb.points().to_vec(), [population, len], device);
            // The last points are evaluated, but no step is taken from them.
            let (values, gradients) = if iteration == steps.iterations {
                (to_host(evaluate(points)?), None)
            } else {
                let (values, gradients) = value_and_gradient(points, evaluate)?;
                (values, Some(gradients))
            };
            climb.see(&values);
            let evaluations = if gradients.is_some() { 2 } else { 1 };
            trace.push(IterationReport::of(&values, evaluations * model_steps));
            let Some(gradients) = gradients else { break };
            if !clock.allows_another() {
                break;
            }
            let left = 1.0 - iteration as f32 / steps.iterations as f32;
            climb.step(&values, &gradients, steps.learning_rate * left, rng);
        }
        Ok(climb.best().map(|(value, sequence)| (value, sequence.to_vec())))
    }
}
