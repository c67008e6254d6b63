//! The contract of planners, for every planner under every option, and what single options are for.

use std::sync::Mutex;

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, BoxSpace, Env, Reward, Rng, Situation, reward_fn, tasks, termination_fn};
use mbrl_model::{Dynamics, MemberRule, ModelError, Propagation, SimulatorModel, dynamics_fn};
use mbrl_plan::{
    Aggregate, CemConfig, Execute, GradientConfig, IcemConfig, MppiConfig, PddmConfig, Planner, PlannerConfig, Problem,
    Proposal, Propose, RandomShootingConfig, Refinement, Tail, check::check_planner, returns,
};
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

fn bounded(low: f32, high: f32) -> ActionSpace {
    ActionSpace::Box(BoxSpace::new([low], [high]).unwrap())
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[test]
fn cem_keeps_the_contract_under_every_option() {
    let base = || CemConfig { horizon: 8, population: 120, elites: 12, iterations: 3, ..CemConfig::default() };
    let options = [
        base(),
        CemConfig { alpha: 0.0, ..base() },
        CemConfig { elites: 1, ..base() },
        CemConfig { elites: 60, ..base() },
        CemConfig { iterations: 1, ..base() },
        CemConfig { execute: Execute::Best, ..base() },
        CemConfig { tail: Tail::Last, ..base() },
        CemConfig { constrain_variance: false, ..base() },
        CemConfig { truncation: 1.0, ..base() },
        CemConfig { truncation: f32::INFINITY, initial_std: 2.0, constrain_variance: false, ..base() },
        CemConfig { variance_stop: 0.1, ..base() },
    ];
    for config in options {
        check_planner(|actions| config.init(actions, Propagation::MEAN), &Device::flex())
            .unwrap_or_else(|error| panic!("{error} with {config:?}"));
    }
}

#[test]
fn pddm_keeps_the_contract_under_every_option() {
    let options = [
        PddmConfig::default(),
        PddmConfig { code_compat: true, ..PddmConfig::default() },
        PddmConfig { iterations: 3, ..PddmConfig::default() },
        PddmConfig { beta: 1.0, ..PddmConfig::default() },
        PddmConfig { kappa: 0.5, ..PddmConfig::default() },
        // So large that all but the best candidate have a weight of 0.
        PddmConfig { kappa: 1e30, ..PddmConfig::default() },
    ];
    for config in options {
        check_planner(|actions| config.init(actions, Propagation::MEAN), &Device::flex())
            .unwrap_or_else(|error| panic!("{error} with {config:?}"));
    }
}

#[test]
fn icem_keeps_the_contract_under_every_option() {
    let base = || IcemConfig { horizon: 8, ..IcemConfig::default() };
    let options = [
        IcemConfig::default(),
        base(),
        IcemConfig { noise_exponent: 0.0, ..base() },
        IcemConfig { keep_elites: 0.0, ..base() },
        IcemConfig { keep_elites: 1.0, ..base() },
        IcemConfig { shift_elites: false, ..base() },
        IcemConfig { mean_in_last: false, ..base() },
        IcemConfig { execute: Execute::Mean, ..base() },
        IcemConfig { population_decay: 3.0, ..base() },
        IcemConfig { iterations: 1, ..base() },
        IcemConfig { elites: 1, initial_std: 2.0, ..base() },
    ];
    for config in options {
        check_planner(|actions| config.init(actions, Propagation::MEAN), &Device::flex())
            .unwrap_or_else(|error| panic!("{error} with {config:?}"));
    }
}

#[test]
fn mppi_keeps_the_contract_under_every_option() {
    let base = || MppiConfig { horizon: 8, ..MppiConfig::default() };
    let options = [
        base(),
        MppiConfig { iterations: 3, tail: Tail::Last, ..base() },
        MppiConfig { control_cost: 1.0, kappa: 20.0, ..base() },
        MppiConfig { adapt_std: true, elites: 0.1, iterations: 3, ..base() },
        MppiConfig { normalize_returns: true, kappa: 10.0, iterations: 3, ..base() },
        // So large that all but the best candidate have a weight of 0.
        MppiConfig { kappa: 1e30, ..base() },
        MppiConfig::td_mpc2(),
    ];
    for config in options {
        check_planner(|actions| config.init(actions, Propagation::MEAN), &Device::flex())
            .unwrap_or_else(|error| panic!("{error} with {config:?}"));
    }
}

#[test]
fn random_shooting_keeps_the_contract_with_every_proposal() {
    let coloured = Proposal::Coloured { std: 0.5, exponent: 2.0 };
    for proposal in [Proposal::Uniform, Proposal::Hold { steps: 3 }, Proposal::Normal { std: 0.5 }, coloured] {
        let config = RandomShootingConfig { horizon: 8, iterations: 2, proposal, ..RandomShootingConfig::default() };
        check_planner(|actions| config.init(actions, Propagation::MEAN), &Device::flex())
            .unwrap_or_else(|error| panic!("{error} with {config:?}"));
    }
}

#[test]
fn particles_and_aggregates_keep_the_contract() {
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 3 };
    let config = CemConfig { horizon: 8, population: 100, elites: 10, ..CemConfig::default() };
    for aggregate in [Aggregate::Mean, Aggregate::MeanMinusStd(1.0), Aggregate::Worst] {
        let make = |actions: &ActionSpace| Ok(config.init(actions, propagation)?.with_aggregate(aggregate));
        check_planner(make, &Device::flex()).unwrap();
    }
}

/// The state moves by the action; the reward is −(x' − goal)².
fn walk() -> impl Dynamics {
    dynamics_fn(1, 1, &Device::flex(), |s, a| s + a)
}

fn towards(goal: f32) -> impl Reward {
    reward_fn(move |_, _, next: Tensor<2>| {
        let miss = next - goal;
        -(miss.clone() * miss).squeeze_dim::<1>(1)
    })
}

#[test]
fn an_optimal_proposal_is_found_at_once() {
    let (model, reward, actions) = (walk(), towards(3.0), bounded(-1.0, 4.0));
    let mut problem = Problem::new(&model, &actions).with_reward(&reward);
    let config = CemConfig {
        horizon: 3,
        population: 1,
        elites: 1,
        iterations: 1,
        execute: Execute::Best,
        ..CemConfig::default()
    };
    let plan = |problem: &Problem<'_>| {
        let mut planner = config.init(&actions, Propagation::MEAN).unwrap();
        planner.plan(&Situation::of(&[1.0]), problem, &mut Rng::new(0)).unwrap()
    };
    assert!(plan(&problem).best_return < -0.5, "one sample is no plan");
    problem.proposals = Some(Tensor::from_floats([[[1.0], [1.0], [1.0]], [[2.0], [0.0], [0.0]]], &Device::flex()));
    let found = plan(&problem);
    assert!(found.best_return.abs() < 1e-9, "{found:?}");
    let actions = found.actions;
    assert!(actions.iter().zip([2.0, 0.0, 0.0]).all(|(a, e)| (a - e).abs() < 1e-6), "{actions:?}");
    assert_eq!(found.stats.model_steps, 3 * 3, "the proposals are scored too");
}

/// Proposes one sequence, by the situation and the horizon; and says how often it was asked, and with which keys.
#[derive(Default)]
struct Straight(Mutex<Vec<u64>>);

impl Propose for Straight {
    fn propose(
        &self,
        situation: &Situation<'_>,
        model: &dyn Dynamics,
        horizon: usize,
        key: u64,
    ) -> Result<Tensor<3>, ModelError> {
        self.0.lock().unwrap().push(key);
        let mut actions = vec![0.0; horizon];
        actions[0] = 3.0 - situation.obs[0];
        Ok(Tensor::<1>::from_floats(actions.as_slice(), &model.spec().device).reshape([1, horizon, 1]))
    }
}

#[test]
fn every_planner_tries_what_is_proposed_to_it_once_per_plan() {
    let (model, reward, actions) = (walk(), towards(3.0), bounded(-1.0, 4.0));
    let plain = Problem::new(&model, &actions).with_reward(&reward);
    let planners: [PlannerConfig; 6] = [
        CemConfig { horizon: 3, population: 3, elites: 1, iterations: 2, ..CemConfig::default() }.into(),
        IcemConfig { horizon: 3, population: 3, elites: 1, iterations: 2, ..IcemConfig::default() }.into(),
        PddmConfig { horizon: 3, population: 3, ..PddmConfig::default() }.into(),
        MppiConfig { horizon: 3, population: 3, ..MppiConfig::default() }.into(),
        RandomShootingConfig { horizon: 3, population: 3, ..RandomShootingConfig::default() }.into(),
        GradientConfig { horizon: 3, starts: 2, ..GradientConfig::default() }.into(),
    ];
    for config in planners {
        let plan = |problem: &Problem<'_>| {
            let mut planner = config.init(&actions, Propagation::MEAN, Aggregate::Mean, &Refinement::off()).unwrap();
            planner.plan(&Situation::of(&[1.0]), problem, &mut Rng::new(0)).unwrap()
        };
        let straight = Straight::default();
        let found = plan(&plain.clone().with_proposer(&straight));
        assert!(found.best_return.abs() < 1e-9, "{}: {found:?}", config.kind());
        if !config.needs_gradients() {
            assert!(plan(&plain).best_return < -1e-3, "{}: three samples are no plan", config.kind());
        }
        let keys = straight.0.lock().unwrap().clone();
        assert_eq!(keys.len(), 1, "{}", config.kind());
    }
}

#[test]
fn proposals_are_clipped_and_checked() {
    let (model, reward, actions) = (walk(), towards(9.0), bounded(-1.0, 4.0));
    let config = CemConfig { horizon: 2, population: 3, elites: 1, execute: Execute::Best, ..CemConfig::default() };
    let plan = |proposals: Tensor<3>| {
        let mut problem = Problem::new(&model, &actions).with_reward(&reward);
        problem.proposals = Some(proposals);
        config.init(&actions, Propagation::MEAN).unwrap().plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0))
    };
    let device = Device::flex();
    let clipped = plan(Tensor::from_floats([[[9.0], [9.0]]], &device)).unwrap().actions;
    assert_eq!(clipped, [4.0, 4.0]);
    let error = plan(Tensor::from_floats([[[0.0], [f32::NAN]]], &device)).unwrap_err().to_string();
    assert_eq!(error, "proposals[1] = NaN: expected a finite number");
    let error = plan(Tensor::zeros([1, 5, 1], &device)).unwrap_err().to_string();
    assert_eq!(error, "horizon of the proposals = 5: expected 2");
    let error = plan(Tensor::zeros([1, 2, 2], &device)).unwrap_err().to_string();
    assert_eq!(error, "width of the proposals' actions = 2: expected 1");
}

#[test]
fn a_plan_counts_its_model_steps() {
    let (model, reward, actions) = (walk(), towards(0.0), bounded(-1.0, 1.0));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 2 };
    let config =
        CemConfig { horizon: 4, population: 10, elites: 3, iterations: 3, variance_stop: 0.0, ..CemConfig::default() };
    let stats = config
        .init(&actions, propagation)
        .unwrap()
        .plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0))
        .unwrap()
        .stats;
    assert_eq!((stats.iterations, stats.model_steps), (3, 3 * 10 * 4 * 2));
    assert!(!stats.elapsed.is_zero());
}

#[test]
fn a_plan_tells_what_each_iteration_found() {
    let (model, actions) = (walk(), bounded(-1.0, 1.0));
    // NaN for every sequence that ends on the left.
    let reward = reward_fn(|_, _, next: Tensor<2>| (next.sqrt() * 2.0).squeeze_dim::<1>(1));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let config = CemConfig { horizon: 1, population: 50, elites: 5, variance_stop: 0.0, ..CemConfig::default() };
    let mut planner = config.init(&actions, Propagation::MEAN).unwrap();
    let plan = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)).unwrap();
    assert_eq!(plan.trace.len(), plan.stats.iterations);
    assert_eq!(plan.trace.iter().map(|iteration| iteration.model_steps).sum::<u64>(), plan.stats.model_steps);
    let best = plan.trace.iter().map(|iteration| iteration.best_return).fold(f32::NEG_INFINITY, f32::max);
    assert_eq!(best, plan.best_return);
    let (first, last) = (plan.trace[0], plan.trace[4]);
    assert!(first.candidates == 50 && (15..35).contains(&first.finite), "half of them: {first:?}");
    assert_eq!(last.finite, 50, "it has left the left");
    assert!(last.mean_return > first.mean_return + 0.3, "{:?}", plan.trace);
}

#[test]
fn cem_stops_when_its_variance_is_spent() {
    let (model, reward, actions) = (walk(), towards(0.5), bounded(-1.0, 1.0));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let config = CemConfig { horizon: 1, iterations: 100, ..CemConfig::default() };
    let mut planner = config.init(&actions, Propagation::MEAN).unwrap();
    let plan = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)).unwrap();
    assert!(plan.stats.iterations < 10, "{:?}", plan.stats);
    assert!(planner.sampler().variance()[0] <= 1e-3);
}

#[test]
fn spaces_that_cannot_be_planned_in_are_refused_by_name() {
    let unbounded = ActionSpace::Box(BoxSpace::unbounded(1));
    let error = CemConfig::default().init(&unbounded, Propagation::MEAN).unwrap_err().to_string();
    let spaces = "a bounded box or discrete choices";
    assert_eq!(
        error,
        format!("actions = unbounded box, low [-inf], high [inf]: expected {spaces} for the planner cem")
    );
    let error = PddmConfig::default().init(&ActionSpace::Discrete(0), Propagation::MEAN).unwrap_err().to_string();
    assert_eq!(error, format!("actions = discrete with 0 choices: expected {spaces} for the planner pddm"));
    let none = Propagation { particles: 0, ..Propagation::MEAN };
    let error = CemConfig::default().init(&bounded(-1.0, 1.0), none).unwrap_err().to_string();
    assert_eq!(error, "particles = 0: expected at least one particle");
}

#[test]
fn an_aggregate_with_nan_is_refused() {
    let (model, reward, actions) = (walk(), towards(0.0), bounded(-1.0, 1.0));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let planner = PddmConfig::default().init(&actions, Propagation::MEAN).unwrap();
    let mut planner = planner.with_aggregate(Aggregate::MeanMinusStd(f32::NAN));
    let error = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)).unwrap_err().to_string();
    assert_eq!(error, "aggregate = NaN: expected a finite factor of the standard deviation");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Also where the optimum lies on a bound, and where bounds are so far apart or so near that sums round or overflow.
    #[test]
    fn plans_lie_within_any_bounds(
        low in proptest::num::f32::NORMAL,
        high in proptest::num::f32::NORMAL,
        upwards in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (low, high) = (low.min(high), low.max(high));
        proptest::prop_assume!(low < high);
        let actions = bounded(low, high);
        let model = dynamics_fn(1, 1, &Device::flex(), |s, _| s);
        let reward = reward_fn(move |_, a: Tensor<2>, _| {
            // Between −1 and 1 whatever the units are.
            let share = a / low.abs().max(high.abs());
            (if upwards { share } else { -share }).squeeze_dim(1)
        });
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let cem = CemConfig { horizon: 3, population: 30, elites: 3, execute: Execute::Best, ..CemConfig::default() };
        let mut planners: Vec<Box<dyn Planner>> = vec![
            Box::new(cem.init(&actions, Propagation::MEAN).unwrap()),
            Box::new(CemConfig { constrain_variance: false, ..cem }.init(&actions, Propagation::MEAN).unwrap()),
            Box::new(PddmConfig::default().init(&actions, Propagation::MEAN).unwrap()),
            Box::new(IcemConfig { horizon: 3, ..IcemConfig::default() }.init(&actions, Propagation::MEAN).unwrap()),
            Box::new(MppiConfig { horizon: 3, ..MppiConfig::default() }.init(&actions, Propagation::MEAN).unwrap()),
        ];
        for planner in &mut planners {
            let mut rng = Rng::new(seed);
            for _ in 0..2 {
                let plan = planner.plan(&Situation::of(&[0.0]), &problem, &mut rng).unwrap();
                let planned = plan.actions;
                prop_assert!(planned.iter().all(|&a| actions.contains(&[a])), "{planned:?} in [{low}, {high}]");
                planner.advance(1);
            }
        }
    }
}

#[test]
fn the_model_sees_no_action_beyond_the_bounds() {
    let seen = Mutex::new((f32::INFINITY, f32::NEG_INFINITY));
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| {
        let mut seen = seen.lock().unwrap();
        for a in host(a) {
            *seen = (seen.0.min(a), seen.1.max(a));
        }
        s
    });
    let reward = reward_fn(|_, a: Tensor<2>, _| a.squeeze_dim(1));
    let wide = CemConfig { constrain_variance: false, initial_std: 2.0, ..CemConfig::default() };
    // In the second, the middle plus half the range rounds to beyond the bounds.
    for (low, high) in [(-1.0, 3.0), (-0.14, 2.2)] {
        let actions = bounded(low, high);
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let planners: [Box<dyn Planner>; 2] = [
            Box::new(wide.init(&actions, Propagation::MEAN).unwrap()),
            Box::new(PddmConfig { sigma: 2.0, ..PddmConfig::default() }.init(&actions, Propagation::MEAN).unwrap()),
        ];
        for mut planner in planners {
            *seen.lock().unwrap() = (f32::INFINITY, f32::NEG_INFINITY);
            planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)).unwrap();
            // The whole range is tried, and nothing outside of it.
            assert_eq!(*seen.lock().unwrap(), (low, high));
        }
    }
}

#[test]
fn a_range_that_overflows_is_planned_in() {
    let model = dynamics_fn(1, 1, &Device::flex(), |s, _| s);
    let reward = reward_fn(|_, a: Tensor<2>, _| (a / 3e38).squeeze_dim(1));
    let actions = bounded(-3e38, 3e38);
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let mut planner = CemConfig { horizon: 1, ..CemConfig::default() }.init(&actions, Propagation::MEAN).unwrap();
    let plan = planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(0)).unwrap();
    assert!((0.8..=1.0).contains(&plan.best_return), "{plan:?}");
}

#[test]
fn configurations_are_read_with_defaults_and_without_unknown_keys() {
    let cem: CemConfig = serde_json::from_str(r#"{"population": 500, "returns": "best", "tail": "last"}"#).unwrap();
    let expected = CemConfig { population: 500, execute: Execute::Best, tail: Tail::Last, ..CemConfig::default() };
    assert_eq!(cem, expected);
    let pddm: PddmConfig = serde_json::from_str(r#"{"code_compat": true}"#).unwrap();
    assert_eq!(pddm, PddmConfig { code_compat: true, ..PddmConfig::default() });
    let icem: IcemConfig = serde_json::from_str(r#"{"returns": "mean", "keep_elites": 0.5}"#).unwrap();
    assert_eq!(icem, IcemConfig { execute: Execute::Mean, keep_elites: 0.5, ..IcemConfig::default() });
    let mppi: MppiConfig = serde_json::from_str(r#"{"sigma": [0.1, 0.2]}"#).unwrap();
    assert_eq!(mppi, MppiConfig { sigma: vec![0.1, 0.2], ..MppiConfig::default() });
    let text = r#"{"population": 5000, "proposal": {"coloured": {"std": 0.5, "exponent": 2.0}}}"#;
    let random: RandomShootingConfig = serde_json::from_str(text).unwrap();
    let proposal = Proposal::Coloured { std: 0.5, exponent: 2.0 };
    assert_eq!(random, RandomShootingConfig { proposal, ..RandomShootingConfig::swimmer() });
    let error = serde_json::from_str::<IcemConfig>(r#"{"noise_beta": 2.0}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `noise_beta`"), "{error}");
    let error = serde_json::from_str::<MppiConfig>(r#"{"lambda": 1.0}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `lambda`"), "{error}");
    let error = serde_json::from_str::<RandomShootingConfig>(r#"{"proposal": "cauchy"}"#).unwrap_err().to_string();
    assert!(error.contains("unknown variant `cauchy`"), "{error}");
    let aggregate: Aggregate = serde_json::from_str(r#"{"mean-minus-std": 4.0}"#).unwrap();
    assert_eq!(aggregate, Aggregate::MeanMinusStd(4.0));
    let error = serde_json::from_str::<CemConfig>(r#"{"popsize": 500}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `popsize`"), "{error}");
    let error = serde_json::from_str::<PddmConfig>(r#"{"lambda": 1.0}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `lambda`"), "{error}");
}

/// Behind a time limit a simulator stands still, and a rule that knows no limit would let plans be paid there for ever.
#[test]
fn nothing_is_earned_behind_a_simulators_time_limit_whatever_the_rule_says() {
    let device = Device::flex();
    let mut world = tasks::make("pendulum").unwrap().env.into_simulator().unwrap();
    let mut obs = world.reset(Some(0)).unwrap();
    let limit = world.spec().max_steps.unwrap();
    for _ in 0..limit - 3 {
        obs = world.step(&[0.0]).unwrap().obs;
    }
    let snapshot = world.save();
    let model = SimulatorModel::new(world.boxed_clone(), &device);
    let (actions, here) =
        (world.spec().actions.clone(), Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) });
    let one = reward_fn(|_, _, next: Tensor<2>| next.ones_like().narrow(1, 0, 1).squeeze_dim::<1>(1));
    let never = termination_fn(|_, _, next: Tensor<2>| next.narrow(1, 0, 1).squeeze_dim::<1>(1).greater_elem(9.0));
    let problem = Problem::new(&model, &actions).with_reward(&one);
    let earned = |problem: &Problem<'_>| {
        host(returns(problem, &here, Tensor::zeros([2, 10, 1], &device), Propagation::MEAN, 0).unwrap().per_particle)
    };
    assert_eq!(earned(&problem), [3.0, 3.0]);
    assert_eq!(earned(&problem.clone().with_termination(&never)), [3.0, 3.0]);
    // What comes after a termination does not come after a time limit.
    let problem = problem.with_after_termination(-500.0);
    assert_eq!(earned(&problem), [3.0, 3.0]);
    assert_eq!(earned(&problem.clone().with_termination(&never)), [3.0, 3.0]);
    // Ended in the first of three steps: two are paid for, and those behind the limit are not.
    let at_once = termination_fn(|_, _, next: Tensor<2>| next.narrow(1, 0, 1).squeeze_dim::<1>(1).greater_elem(-9.0));
    assert_eq!(earned(&problem.with_termination(&at_once)), [1.0 - 2.0 * 500.0; 2]);
}
