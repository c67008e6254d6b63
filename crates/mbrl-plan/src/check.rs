//! The contract of [`Planner`], as a check for your own planners.

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{Propagation, dynamics_fn};

use crate::{
    Plan, PlanError, Planner, Problem,
    host::{to_device, to_host},
    returns,
};

/// Where each check starts: at rest, one metre from the goal.
const START: [f32; 3] = [1.0, 0.0, 0.0];
/// Control period (s).
const DT: f32 = 0.3;
/// Bounds of the force (N), asymmetric, to detect a planner that mixes up units.
const BOUNDS: (f32, f32) = (-3.0, 1.0);
/// Discrete choices: forces of −3, −2, −1, 0 and 1 N.
const CHOICES: usize = 5;
const SEED: u64 = 20;
/// Number of successive plans for the same situation before a plan has to be good.
const REFINED: usize = 10;

/// Checks that planners made by `make` keep the contract of [`Planner`], on a double integrator on `device`.
///
/// - plans have the width of the action space, lie within its bounds and are finite;
/// - the tenth plan for the same situation is better than doing nothing;
/// - the same situation, problem and seed give the same bits;
/// - candidates whose reward or states become NaN never win; if all become NaN, the result is
///   [`PlanError::NoFiniteReturn`], after which the planner still works;
/// - a reset planner plans like a new one;
/// - bounds that changed between two plans are respected;
/// - in an action space of another width, an unbounded one and one of another kind, a planner plans correctly or refuses with
///   [`PlanError::ActionSpace`] or [`PlanError::Width`];
/// - all of this except the bounds holds among discrete choices too, unless `make` or the planner refuses these with
///   [`PlanError::ActionSpace`].
///
/// ```
/// use mbrl_plan::{CemConfig, Device, Propagation, check::check_planner};
///
/// let config = CemConfig { horizon: 8, population: 100, elites: 10, ..CemConfig::default() };
/// check_planner(|actions| config.init(actions, Propagation::MEAN), &Device::flex())?;
/// # Ok::<(), mbrl_plan::PlanError>(())
/// ```
///
/// # Errors
/// [`PlanError::Check`] naming the broken rule, or the planner's own error.
pub fn check_planner<P: Planner>(
    make: impl Fn(&ActionSpace) -> Result<P, PlanError>,
    device: &Device,
) -> Result<(), PlanError> {
    let actions = interval(BOUNDS.0, BOUNDS.1);
    keeps_the_contract(&make, &actions, device)?;
    keeps_new_bounds(&mut make(&actions)?, &actions, device)?;
    let wide = ActionSpace::Box(BoxSpace::symmetric(2, 1.0).expect("a positive limit"));
    let others = [wide, ActionSpace::Box(BoxSpace::unbounded(1)), ActionSpace::Discrete(CHOICES)];
    keeps_out_of_spaces(&mut make(&actions)?, &others, device)?;

    let choices = ActionSpace::Discrete(CHOICES);
    match keeps_the_contract(&make, &choices, device) {
        Err(PlanError::ActionSpace { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let others = [actions, ActionSpace::Discrete(CHOICES + 1), ActionSpace::Discrete(CHOICES - 1)];
            keeps_out_of_spaces(&mut make(&choices)?, &others, device)
        }
    }
}

/// The rules that hold in every space that can be planned in.
fn keeps_the_contract<P: Planner>(
    make: &impl Fn(&ActionSpace) -> Result<P, PlanError>,
    actions: &ActionSpace,
    device: &Device,
) -> Result<(), PlanError> {
    plans_well(&mut make(actions)?, actions, device)?;
    repeats_and_forgets(make, actions, device)?;
    for poison in [Poison::Reward, Poison::States] {
        avoids_nan(&mut make(actions)?, actions, poison, device)?;
    }
    survives_nothing_finite(make, actions, device)
}

/// What becomes NaN where the first action is above the middle of the range.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Poison {
    Nothing,
    Reward,
    States,
    /// The reward, always.
    Everything,
}

/// Calls `f` with a double integrator, penalised for its distance, speed and effort. In a space of several dimensions the
/// forces add up.
///
/// State: position (m), speed (m/s), and −1 or 1 for a first action below or above the middle.
fn with_problem<R>(actions: &ActionSpace, poison: Poison, device: &Device, f: impl FnOnce(&Problem<'_>) -> R) -> R {
    let middle = 0.5 * (BOUNDS.0 + BOUNDS.1);
    // Choices are forces, one newton apart.
    let least = if let ActionSpace::Discrete(_) = actions { BOUNDS.0 } else { 0.0 };
    let model = dynamics_fn(3, actions.width(), device, move |s: Tensor<2>, a: Tensor<2>| {
        let a = a.sum_dim(1) + least;
        let (x, v, mark) = (s.clone().narrow(1, 0, 1), s.clone().narrow(1, 1, 1), s.narrow(1, 2, 1));
        // The middle itself counts as above, so that every first action is marked.
        let side = (a.clone() - middle + 1e-3).sign();
        let unmarked = mark.clone().equal_elem(0.0);
        let mark = mark.mask_where(unmarked, side);
        let next_x = x + v.clone() * DT + a.clone() * (0.5 * DT * DT);
        let next_x = match poison {
            Poison::States => next_x.mask_fill(mark.clone().greater_elem(0.0), f32::NAN),
            _ => next_x,
        };
        Tensor::cat(vec![next_x, v + a * DT, mark], 1)
    });
    let reward = reward_fn(move |_, a: Tensor<2>, next: Tensor<2>| {
        let cost = |x: Tensor<2>, weight: f32| (x.clone() * x * weight).squeeze_dim::<1>(1);
        let gain = -cost(next.clone().narrow(1, 0, 1), 1.0)
            - cost(next.clone().narrow(1, 1, 1), 0.1)
            - cost(a.sum_dim(1) + least, 0.01);
        match poison {
            Poison::Reward => gain.mask_fill(next.narrow(1, 2, 1).squeeze_dim::<1>(1).greater_elem(0.0), f32::NAN),
            Poison::Everything => gain * f32::NAN,
            Poison::Nothing | Poison::States => gain,
        }
    });
    f(&Problem::new(&model, actions).with_reward(&reward))
}

fn interval(low: f32, high: f32) -> ActionSpace {
    ActionSpace::Box(BoxSpace::new([low], [high]).expect("low below high"))
}

fn failed<T>(what: &'static str, reason: String) -> Result<T, PlanError> {
    Err(PlanError::Check { what, reason })
}

/// A plan's actions, once checked to have the right width and to lie within the bounds.
fn checked(plan: Plan, actions: &ActionSpace) -> Result<Vec<f32>, PlanError> {
    let [horizon, width] = plan.shape;
    if width != actions.width() || plan.check().is_err() {
        let (entries, expected) = (plan.actions.len(), actions.width());
        return failed("shape", format!("{entries} entries as [{horizon}, {width}], expected [H, {expected}]"));
    }
    for t in 0..horizon {
        let action = plan.action(t);
        if !actions.contains(action) {
            return failed("bounds", format!("action {t} of the plan is {action:?}, expected one of {actions:?}"));
        }
    }
    if !plan.best_return.is_finite() {
        return failed("best_return", format!("{}, expected a finite number", plan.best_return));
    }
    if plan.stats.iterations == 0 || plan.stats.model_steps == 0 {
        return failed("stats", format!("{:?}, expected iterations and model steps", plan.stats));
    }
    Ok(plan.actions)
}

fn score(problem: &Problem<'_>, sequence: Vec<f32>) -> Result<f32, PlanError> {
    let shape = [1, sequence.len(), 1];
    let candidates = to_device(sequence, shape, &problem.dynamics.spec().device);
    let scored = returns(problem, &Situation::of(&START), candidates, Propagation::MEAN, 0)?;
    Ok(to_host(scored.per_particle)[0])
}

fn plans_well(planner: &mut impl Planner, actions: &ActionSpace, device: &Device) -> Result<(), PlanError> {
    with_problem(actions, Poison::Nothing, device, |problem| {
        let mut rng = Rng::new(SEED);
        let mut plan = planner.plan(&Situation::of(&START), problem, &mut rng)?;
        // A planner that refines its last plan may still be worse after a single plan.
        for _ in 1..REFINED {
            plan = planner.plan(&Situation::of(&START), problem, &mut rng)?;
        }
        let sequence = checked(plan, actions)?;
        let idle = if let ActionSpace::Discrete(_) = actions { -BOUNDS.0 } else { 0.0 };
        let nothing = score(problem, vec![idle; sequence.len()])?;
        let planned = score(problem, sequence)?;
        if planned > nothing {
            return Ok(());
        }
        failed("improvement", format!("the plan's return is {planned}, expected more than {nothing}, that of no force"))
    })
}

/// Three plans of one episode.
fn episode(planner: &mut impl Planner, actions: &ActionSpace, device: &Device) -> Result<Vec<u32>, PlanError> {
    with_problem(actions, Poison::Nothing, device, |problem| {
        let mut rng = Rng::new(SEED);
        let mut bits = Vec::new();
        for start in [START, [0.9, -0.1, 0.0], [0.7, -0.2, 0.0]] {
            let plan = planner.plan(&Situation::of(&start), problem, &mut rng)?;
            bits.extend(checked(plan, actions)?.into_iter().map(f32::to_bits));
            planner.advance(1);
        }
        Ok(bits)
    })
}

fn repeats_and_forgets<P: Planner>(
    make: &impl Fn(&ActionSpace) -> Result<P, PlanError>,
    actions: &ActionSpace,
    device: &Device,
) -> Result<(), PlanError> {
    let mut planner = make(actions)?;
    let first = episode(&mut planner, actions, device)?;
    if first != episode(&mut make(actions)?, actions, device)? {
        return failed("determinism", "two new planners with the same seed gave different plans".into());
    }
    planner.reset();
    if first != episode(&mut planner, actions, device)? {
        return failed("reset", "a reset planner plans differently from a new one with the same seed".into());
    }
    Ok(())
}

fn avoids_nan(
    planner: &mut impl Planner,
    actions: &ActionSpace,
    poison: Poison,
    device: &Device,
) -> Result<(), PlanError> {
    with_problem(actions, poison, device, |problem| {
        let mut rng = Rng::new(SEED);
        // Twice, so that the warm start counts too.
        for _ in 0..2 {
            let plan = planner.plan(&Situation::of(&START), problem, &mut rng)?;
            let sequence = checked(plan, actions)?;
            let first = sequence[0];
            if !score(problem, sequence)?.is_finite() {
                return failed(
                    "NaN never wins",
                    format!("the plan begins with {first}, where the return is NaN ({poison:?})"),
                );
            }
        }
        Ok(())
    })
}

fn survives_nothing_finite<P: Planner>(
    make: &impl Fn(&ActionSpace) -> Result<P, PlanError>,
    actions: &ActionSpace,
    device: &Device,
) -> Result<(), PlanError> {
    let mut planner = make(actions)?;
    let made = with_problem(actions, Poison::Everything, device, |problem| {
        planner.plan(&Situation::of(&START), problem, &mut Rng::new(SEED))
    });
    if !matches!(made, Err(PlanError::NoFiniteReturn { .. })) {
        return failed("nothing finite", format!("the planner gave {made:?}, expected PlanError::NoFiniteReturn"));
    }
    planner.reset();
    if episode(&mut planner, actions, device)? != episode(&mut make(actions)?, actions, device)? {
        return failed("reset", "after an error, a reset planner plans differently from a new one".into());
    }
    Ok(())
}

fn keeps_new_bounds(planner: &mut impl Planner, actions: &ActionSpace, device: &Device) -> Result<(), PlanError> {
    let mut rng = Rng::new(SEED);
    for actions in [actions, &interval(0.25, 0.5), &interval(-2.5, -2.0)] {
        with_problem(actions, Poison::Nothing, device, |problem| {
            checked(planner.plan(&Situation::of(&START), problem, &mut rng)?, actions)
        })?;
        planner.advance(1);
    }
    Ok(())
}

/// The model fits each space, so that only the planner can refuse it.
fn keeps_out_of_spaces(planner: &mut impl Planner, spaces: &[ActionSpace], device: &Device) -> Result<(), PlanError> {
    for actions in spaces {
        let made = with_problem(actions, Poison::Nothing, device, |problem| {
            planner.plan(&Situation::of(&START), problem, &mut Rng::new(SEED))
        });
        match made {
            Err(PlanError::ActionSpace { .. } | PlanError::Width { .. }) => {}
            Err(error) => {
                let expected = "expected PlanError::ActionSpace or PlanError::Width";
                return failed("action spaces", format!("{actions:?} is refused with `{error}`, {expected}"));
            }
            Ok(plan) => {
                if let Err(error) = checked(plan, actions) {
                    return failed("action spaces", format!("the plan for {actions:?} is none: {error}"));
                }
            }
        }
    }
    Ok(())
}
