//! `check_planner` finds each fault that it is for: one broken planner per rule, and the rule that refuses it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mbrl_plan::{
    ActionSpace, CemConfig, Device, Plan, PlanError, PlanStats, Planner, Problem, Propagation, Rng, Situation, Tensor,
    check::check_planner, returns,
};

/// What is wrong with a planner that is right otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// A column too many.
    Wide,
    /// An entry too few.
    Short,
    /// Its last action lies beyond the bounds.
    BeyondBounds,
    /// Its first action is NaN.
    NanAction,
    /// Plans within the bounds that it saw first, whatever the problem says.
    OldBounds,
    /// Expects a return of NaN.
    NanReturn,
    /// Says that it cost nothing.
    Free,
    /// Does nothing.
    Idle,
    /// Draws from a generator of its own.
    OwnRandomness,
    /// `reset` does nothing.
    NeverForgets,
    /// Plans by another number after an error, which `reset` does not bring back.
    RemembersErrors,
    /// Among candidates NaN is the largest number.
    NanWins,
    /// Has a plan where no candidate has a finite return.
    AlwaysAPlan,
    /// Names another error there.
    WrongError,
    /// Plans in any space as if it were the one that it was made for.
    AnySpace,
    /// Refuses other spaces with an error about something else.
    VagueRefusal,
    /// Among choices: half a choice.
    HalfAChoice,
}

const HORIZON: usize = 8;

struct Broken {
    inner: mbrl_plan::Cem,
    fault: Fault,
    /// The space that it was made for.
    made_for: ActionSpace,
    failed: bool,
}

impl Broken {
    fn new(fault: Fault, actions: &ActionSpace) -> Result<Self, PlanError> {
        let config = CemConfig { horizon: HORIZON, population: 100, elites: 10, ..CemConfig::default() };
        let inner = config.init(actions, Propagation::MEAN)?;
        Ok(Self { inner, fault, made_for: actions.clone(), failed: false })
    }
}

/// What a planner cannot adapt to: choices, or width and whether there are bounds.
fn kind(actions: &ActionSpace) -> (bool, usize, bool) {
    match actions {
        ActionSpace::Discrete(choices) => (true, *choices, true),
        ActionSpace::Box(space) => (false, space.width(), space.is_bounded()),
        _ => unreachable!("no other kinds"),
    }
}

/// The best of random sequences as IEEE's total order has it.
fn nan_wins(situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
    let draws: Vec<f32> = (0..100 * HORIZON).map(|_| problem.actions.sample(rng).unwrap()[0]).collect();
    let candidates = Tensor::<1>::from_floats(&draws[..], &problem.dynamics.spec().device).reshape([100, HORIZON, 1]);
    let scored = returns(problem, situation, candidates, Propagation::MEAN, 0)?;
    let scores: Vec<f32> = scored.per_particle.into_data().iter().collect();
    if scores.iter().all(|score| score.is_nan()) {
        return Err(PlanError::NoFiniteReturn { population: 100, iteration: 0 });
    }
    let best = (0..100).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
    let stats = PlanStats::new(1, scored.model_steps, Duration::ZERO);
    Plan::new(draws[best * HORIZON..(best + 1) * HORIZON].to_vec(), [HORIZON, 1], 0.0, stats)
}

impl Planner for Broken {
    fn plan(&mut self, situation: &Situation<'_>, problem: &Problem<'_>, rng: &mut Rng) -> Result<Plan, PlanError> {
        static DRAWS: AtomicU64 = AtomicU64::new(0);
        let foreign = kind(problem.actions) != kind(&self.made_for);
        let mut own = Rng::new(DRAWS.fetch_add(1, Ordering::Relaxed));
        let mut known = problem.clone();
        match self.fault {
            Fault::NanWins if !foreign => return nan_wins(situation, problem, rng),
            Fault::OldBounds => known.actions = &self.made_for,
            Fault::AnySpace if foreign => {
                let stats = PlanStats::new(1, 1, Duration::ZERO);
                return Plan::new(vec![0.5; HORIZON], [HORIZON, 1], 0.0, stats);
            }
            Fault::VagueRefusal if foreign => return Err(PlanError::NoFiniteReturn { population: 1, iteration: 0 }),
            Fault::RemembersErrors if self.failed => _ = rng.key(),
            _ => {}
        }
        let rng = if self.fault == Fault::OwnRandomness { &mut own } else { rng };
        let mut plan = match self.inner.plan(situation, &known, rng) {
            Err(PlanError::NoFiniteReturn { .. }) if self.fault == Fault::AlwaysAPlan => {
                Plan::new(vec![0.0; HORIZON], [HORIZON, 1], 0.0, PlanStats::new(1, 1, Duration::ZERO))?
            }
            Err(PlanError::NoFiniteReturn { .. }) if self.fault == Fault::WrongError => {
                return Err(PlanError::NoReward { model: "none".to_owned() });
            }
            Err(error) => {
                self.failed |= matches!(error, PlanError::NoFiniteReturn { .. });
                return Err(error);
            }
            Ok(plan) => plan,
        };
        let last = plan.actions.len() - 1;
        match self.fault {
            Fault::Wide => plan.shape = [HORIZON / 2, 2],
            Fault::Short => _ = plan.actions.pop(),
            Fault::BeyondBounds => plan.actions[last] = 100.0,
            Fault::NanAction => plan.actions[0] = f32::NAN,
            Fault::NanReturn => plan.best_return = f32::NAN,
            Fault::Free => plan.stats = PlanStats::default(),
            // No force: 0 in the box, the fourth of five choices.
            Fault::Idle => plan.actions.fill(if let ActionSpace::Discrete(_) = problem.actions { 3.0 } else { 0.0 }),
            Fault::HalfAChoice if matches!(problem.actions, ActionSpace::Discrete(_)) => plan.actions[last] = 0.5,
            _ => {}
        }
        Ok(plan)
    }

    fn advance(&mut self, executed: usize) {
        self.inner.advance(executed);
    }

    fn reset(&mut self) {
        if self.fault != Fault::NeverForgets {
            self.inner.reset();
        }
    }
}

#[test]
fn each_fault_is_found_by_its_rule() {
    let cases = [
        (Fault::Wide, "check of shape failed"),
        (Fault::Short, "check of shape failed: 7 entries as [8, 1]"),
        (Fault::BeyondBounds, "check of bounds failed: action 7"),
        (Fault::NanAction, "check of bounds failed: action 0 of the plan is [NaN]"),
        (Fault::OldBounds, "check of bounds failed"),
        (Fault::NanReturn, "check of best_return failed"),
        (Fault::Free, "check of stats failed"),
        (Fault::Idle, "check of improvement failed"),
        (Fault::OwnRandomness, "check of determinism failed"),
        (Fault::NeverForgets, "check of reset failed: a reset planner"),
        (Fault::RemembersErrors, "check of reset failed: after an error"),
        (Fault::NanWins, "check of NaN never wins failed"),
        (Fault::AlwaysAPlan, "check of nothing finite failed"),
        (Fault::WrongError, "check of nothing finite failed"),
        (Fault::AnySpace, "check of action spaces failed: the plan for"),
        (Fault::VagueRefusal, "check of action spaces failed"),
        (Fault::HalfAChoice, "check of bounds failed: action 7 of the plan is [0.5]"),
    ];
    let missed = cases.into_iter().filter_map(|(fault, rule)| {
        let found = check_planner(|actions| Broken::new(fault, actions), &Device::flex());
        let found = found.map_or_else(|error| error.to_string(), |()| "nothing".to_owned());
        (!found.starts_with(rule)).then(|| format!("{fault:?}: {found}, expected {rule}"))
    });
    assert_eq!(missed.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn old_bounds_are_found_where_they_change() {
    // Not before: within the bounds that it was made for such a planner is right.
    let make = |actions: &ActionSpace| Broken::new(Fault::OldBounds, actions);
    let error = check_planner(make, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("0.25"), "the first of the new bounds: {error}");
}

#[test]
fn a_planner_for_boxes_alone_may_refuse_choices() {
    let make = |actions: &ActionSpace| match actions {
        ActionSpace::Box(_) => CemConfig { horizon: HORIZON, ..CemConfig::default() }.init(actions, Propagation::MEAN),
        other => Err(PlanError::ActionSpace { planner: "boxes", expected: "a box", space: format!("{other:?}") }),
    };
    check_planner(make, &Device::flex()).unwrap();
    let vague = |actions: &ActionSpace| match actions {
        ActionSpace::Box(_) => CemConfig { horizon: HORIZON, ..CemConfig::default() }.init(actions, Propagation::MEAN),
        _ => Err(PlanError::NoReward { model: "none".to_owned() }),
    };
    assert!(matches!(check_planner(vague, &Device::flex()), Err(PlanError::NoReward { .. })));
}
