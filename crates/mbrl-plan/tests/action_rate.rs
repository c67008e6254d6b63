//! Changes of the action: what they cost, and that no planner makes larger ones than it may.

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, History, Rng, Situation, reward_fn};
use mbrl_model::{Propagation, dynamics_fn};
use mbrl_plan::{
    Aggregate, CemConfig, GradientConfig, IcemConfig, Mpc, MppiConfig, PddmConfig, Plan, PlanError, PlanStats, Planner,
    Problem, RandomShootingConfig, Refinement, Replan, Trajectory, returns,
};

fn space() -> ActionSpace {
    ActionSpace::Box(BoxSpace::new(vec![-2.0, 0.0], vec![2.0, 10.0]).unwrap())
}

/// All planners, for two actions.
fn planners(horizon: usize) -> Vec<(&'static str, Box<dyn Planner>)> {
    let (actions, mean) = (space(), Propagation::MEAN);
    let cem = CemConfig { horizon, ..CemConfig::default() };
    let refined = IcemConfig { horizon, ..IcemConfig::default() }.init(&actions, mean).unwrap();
    let refinement = Refinement { iterations: 5, ..Refinement::default() };
    vec![
        ("cem", Box::new(cem.init(&actions, mean).unwrap())),
        ("icem", Box::new(IcemConfig { horizon, ..IcemConfig::default() }.init(&actions, mean).unwrap())),
        ("refined icem", Box::new(refined.with_refinement(refinement).unwrap())),
        ("mppi", Box::new(MppiConfig { horizon, ..MppiConfig::default() }.init(&actions, mean).unwrap())),
        ("pddm", Box::new(PddmConfig { horizon, ..PddmConfig::default() }.init(&actions, mean).unwrap())),
        ("gradient", Box::new(GradientConfig { horizon, ..GradientConfig::default() }.init(&actions, mean).unwrap())),
        (
            "random",
            Box::new(RandomShootingConfig { horizon, ..RandomShootingConfig::default() }.init(&actions, mean).unwrap()),
        ),
    ]
}

/// The largest change of a plan in half ranges, that from `before` included.
fn largest_change(plan: &[f32], before: &[f32]) -> f32 {
    let all: Vec<f32> = before.iter().chain(plan).copied().collect();
    let halves = [2.0, 5.0];
    (2..all.len()).map(|i| (all[i] - all[i - 2]).abs() / halves[i % 2]).fold(0.0, f32::max)
}

#[test]
fn no_planner_changes_an_action_by_more_than_it_may() {
    let (model, actions) = (dynamics_fn(2, 2, &Device::flex(), |s, a| s + a), space());
    // Pays for being as far as possible: every planner wants the bounds at once.
    let reward = reward_fn(|_, _, next: Tensor<2>| next.sum_dim(1).squeeze_dim(1));
    let past = History { obs: vec![vec![0.0; 2]], actions: vec![vec![-2.0, 1.0]] };
    let here = Situation { past: &past, ..Situation::of(&[0.0, 0.0]) };
    let free = Problem::new(&model, &actions).with_reward(&reward);
    let limited = free.clone().with_action_rate(0.0, 0.3);
    for (name, mut planner) in planners(6) {
        let change = |plan: Plan| largest_change(&plan.actions, &past.actions[0]);
        let mut rng = Rng::new(1);
        assert!(change(planner.plan(&here, &free, &mut rng).unwrap()) > 0.5, "{name}");
        for _ in 0..3 {
            let plan = planner.plan(&here, &limited, &mut rng).unwrap();
            let found = change(plan.clone());
            assert!(found <= 0.3 + 1e-5, "{name}: {found}");
            // What is promised is what the plan's own bounds allow: 6 steps up by at most 0.3 half ranges each.
            let most: f32 =
                (1..=6).map(|t| (7 - t) as f32 * ((-2.0 + 0.6 * t as f32).min(2.0) + 1.0 + 1.5 * t as f32)).sum();
            assert!(plan.best_return <= most + 1e-2, "{name}: {} of {most}", plan.best_return);
            planner.advance(1);
        }
    }
}

#[test]
fn a_change_costs_its_square_in_half_ranges() {
    let (model, actions) = (dynamics_fn(1, 2, &Device::flex(), |s, _| s), space());
    let nothing = reward_fn(|_, _, next: Tensor<2>| (next * 0.0).squeeze_dim(1));
    let problem = Problem::new(&model, &actions).with_reward(&nothing).with_action_rate(0.5, f32::INFINITY);
    let candidates = Tensor::<3>::from_floats([[[0.0, 5.0], [1.0, 5.0], [1.0, 10.0]]], &Device::flex());
    let score = |problem: &Problem<'_>, here: &Situation<'_>, candidates: Tensor<3>| -> f32 {
        let scored = returns(problem, here, candidates, Propagation::MEAN, 0).unwrap();
        scored.aggregate(Aggregate::Mean).into_data().iter::<f32>().next().unwrap()
    };
    let (free, here) = (Situation::of(&[0.0]), &[0.0]);
    // By hand: (1/2)² and (5/5)², times a half.
    assert_eq!(score(&problem, &free, candidates.clone()), -0.5 * (0.25 + 1.0));
    let past = History { obs: vec![vec![0.0]], actions: vec![vec![-2.0, 5.0]] };
    let after = Situation { past: &past, ..Situation::of(here) };
    assert_eq!(score(&problem, &after, candidates.clone()), -0.5 * (1.0 + 0.25 + 1.0));
    let discounted = problem.clone().with_discount(0.5);
    assert_eq!(score(&discounted, &after, candidates), -0.5 * (1.0 + 0.5 * 0.25 + 0.25));
}

#[test]
fn the_gradient_of_the_cost_is_that_of_differences() {
    let device = Device::flex();
    let (model, actions) = (dynamics_fn(1, 2, &device, |s, _| s), space());
    let nothing = reward_fn(|_, _, next: Tensor<2>| (next * 0.0).squeeze_dim(1));
    let problem = Problem::new(&model, &actions).with_reward(&nothing).with_action_rate(0.7, f32::INFINITY);
    let past = History { obs: vec![vec![0.0]], actions: vec![vec![0.5, 2.0]] };
    let here = Situation { past: &past, ..Situation::of(&[0.0]) };
    let values = [0.3_f32, 4.0, -0.6, 7.0, 1.1, 6.5];
    let score = |values: &[f32]| -> f64 {
        let candidates = Tensor::<1>::from_floats(values, &device).reshape([1, 3, 2]);
        let scored = returns(&problem, &here, candidates, Propagation::MEAN, 0).unwrap();
        scored.aggregate(Aggregate::Mean).into_data().iter::<f64>().next().unwrap()
    };
    let points = Tensor::<1>::from_floats(values, &device).reshape([1, 3, 2]).autodiff().require_grad();
    let scored = returns(&problem, &here, points.clone(), Propagation::MEAN, 0).unwrap();
    let gradient = points.grad(&scored.aggregate(Aggregate::Mean).sum().backward()).unwrap();
    for (i, found) in gradient.into_data().iter::<f64>().enumerate() {
        let mut shifted = [values, values];
        shifted[0][i] += 0.01;
        shifted[1][i] -= 0.01;
        let difference = (score(&shifted[0]) - score(&shifted[1])) / 0.02;
        assert!((found - difference).abs() < 2e-3, "{i}: {found}, by differences {difference}");
    }
}

/// A planner that knows nothing of limits.
struct Stubborn;

impl Planner for Stubborn {
    fn plan(&mut self, _: &Situation<'_>, _: &Problem<'_>, _: &mut Rng) -> Result<Plan, PlanError> {
        Plan::new(vec![2.0, 10.0, -2.0, 0.0], [2, 2], 0.0, PlanStats::default())
    }
    fn advance(&mut self, _: usize) {}
    fn reset(&mut self) {}
}

#[test]
fn what_is_executed_keeps_to_the_limit_whoever_planned() {
    let (model, actions) = (dynamics_fn(2, 2, &Device::flex(), |s, a| s + a), space());
    let problem = Problem::new(&model, &actions).with_action_rate(0.0, 0.1);
    let mut mpc = Mpc::new(Box::new(Stubborn), Replan::Every(2)).unwrap();
    let mut past = History::default();
    let mut before = vec![0.0, 5.0];
    past.push(vec![0.0, 0.0], before.clone(), 4);
    for _ in 0..10 {
        let here = Situation { past: &past, ..Situation::of(&[0.0, 0.0]) };
        let action = mpc.act(&here, &problem, &mut Rng::new(0)).unwrap().action;
        assert!(largest_change(&action, &before) <= 0.1 + 2e-5, "{before:?} {action:?}");
        assert_ne!(action, before);
        past.push(vec![0.0, 0.0], action.clone(), 4);
        before = action;
    }
}

#[test]
fn rates_that_cannot_be_are_refused() {
    let (model, actions) = (dynamics_fn(2, 2, &Device::flex(), |s, a| s + a), space());
    let reward = reward_fn(|_, _, next: Tensor<2>| next.sum_dim(1).squeeze_dim(1));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let here = Situation::of(&[0.0, 0.0]);
    let mut planner = CemConfig { horizon: 2, ..CemConfig::default() }.init(&actions, Propagation::MEAN).unwrap();
    for (weight, limit, text) in [
        (-1.0, 1.0, "action_rate.weight = -1: expected a finite number of at least 0"),
        (f32::NAN, 1.0, "action_rate.weight = NaN: expected a finite number of at least 0"),
        (1.0, 0.0, "action_rate.limit = 0: expected a number above 0, infinity for no limit"),
        (1.0, f32::NAN, "action_rate.limit = NaN: expected a number above 0, infinity for no limit"),
    ] {
        let error =
            planner.plan(&here, &problem.clone().with_action_rate(weight, limit), &mut Rng::new(0)).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let (choices, lift) = (ActionSpace::Discrete(3), dynamics_fn(1, 1, &Device::flex(), |s, a| s + a));
    let problem = Problem::new(&lift, &choices).with_reward(&reward).with_action_rate(1.0, 1.0);
    let mut planner = CemConfig { horizon: 2, ..CemConfig::default() }.init(&choices, Propagation::MEAN).unwrap();
    let error = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(error.contains("action rate"), "{error}");
}

#[test]
fn a_trajectory_is_where_the_model_goes_and_candidates_are_what_was_scored() {
    let (model, actions) = (dynamics_fn(2, 2, &Device::flex(), |s, a| s + a), space());
    let reward = reward_fn(|_, _, next: Tensor<2>| next.sum_dim(1).squeeze_dim(1));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let here = Situation::of(&[1.0, -1.0]);
    let mut planner =
        CemConfig { horizon: 3, ..CemConfig::default() }.init(&actions, Propagation::MEAN).unwrap().with_candidates(4);
    let plan = planner.plan(&here, &problem, &mut Rng::new(0)).unwrap();
    let ahead = plan.trajectory(&problem, &here).unwrap();
    assert_eq!((ahead.shape, ahead.at(0)), ([4, 2], &[1.0, -1.0][..]));
    for t in 0..3 {
        for i in 0..2 {
            assert_eq!(ahead.at(t + 1)[i], ahead.at(t)[i] + plan.action(t)[i]);
        }
    }
    assert_eq!(plan.candidates.len(), 4);
    assert!(plan.candidates.windows(2).all(|pair| pair[0].value >= pair[1].value));
    for candidate in &plan.candidates {
        let led = Trajectory::of(&problem, &here, &candidate.actions).unwrap();
        let earned: f32 = (1..4).map(|t| led.at(t).iter().sum::<f32>()).sum();
        assert!((earned - candidate.value).abs() < 1e-3, "{earned} {}", candidate.value);
    }
    assert!(Trajectory::of(&problem, &here, &[1.0, 2.0, 3.0]).is_err());
    assert!(Trajectory::of(&problem, &here, &[]).is_err());
}
