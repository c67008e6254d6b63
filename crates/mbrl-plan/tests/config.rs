//! Planners chosen by data: what is read, what is refused, and that nothing of it is lost on the way to the planner.
#![cfg(feature = "gradient")]

mod common;

use common::{TwoMembers, bits};
use mbrl_plan::{
    ActionSpace, Aggregate, BoxSpace, CemConfig, Device, Execute, GradientConfig, IcemConfig, MppiConfig, PddmConfig,
    Plan, PlanError, Planner, PlannerConfig, Problem, Propagation, RandomShootingConfig, Refinement, Rng,
    SequenceSampler, Shooting, Situation, Tensor, optimize, reward_fn,
};
use serde_json::json;

const KINDS: [&str; 6] = ["cem", "pddm", "icem", "mppi", "random-shooting", "gradient"];

fn read(text: &str) -> Result<PlannerConfig, serde_json::Error> {
    serde_json::from_str(text)
}

fn of_kind(kind: &str) -> PlannerConfig {
    read(&format!(r#"{{"kind": "{kind}", "horizon": 4}}"#)).unwrap()
}

fn actions() -> ActionSpace {
    ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap())
}

#[test]
fn each_kind_is_read_with_its_defaults_and_written_back() {
    let defaults: [PlannerConfig; 6] = [
        CemConfig::default().into(),
        PddmConfig::default().into(),
        IcemConfig::default().into(),
        MppiConfig::default().into(),
        RandomShootingConfig::default().into(),
        GradientConfig::default().into(),
    ];
    for (kind, expected) in KINDS.into_iter().zip(defaults) {
        let config = read(&format!(r#"{{"kind": "{kind}"}}"#)).unwrap();
        assert_eq!((config.kind(), &config), (kind, &expected));
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(written["kind"], kind);
        assert_eq!(serde_json::from_value::<PlannerConfig>(written).unwrap(), config);
        assert_eq!(of_kind(kind).horizon(), 4);
        assert_eq!(config.needs_gradients(), kind == "gradient");
    }
    assert_eq!(PlannerConfig::default().kind(), "cem");
}

#[test]
fn unknown_keys_and_kinds_are_refused() {
    for kind in KINDS {
        let error = read(&format!(r#"{{"kind": "{kind}", "horizn": 4}}"#)).unwrap_err().to_string();
        assert!(error.contains("unknown field `horizn`"), "{kind}: {error}");
    }
    // A key of another planner is none of this one's.
    let error = read(r#"{"kind": "pddm", "elites": 4}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `elites`"), "{error}");
    let error = read(r#"{"kind": "cma-es"}"#).unwrap_err().to_string();
    assert!(error.contains("unknown variant `cma-es`"), "{error}");
    let error = read(r#"{"horizon": 4}"#).unwrap_err().to_string();
    assert!(error.contains("missing field `kind`"), "{error}");
}

#[test]
fn the_old_name_of_execute_is_read_and_the_new_one_written() {
    for kind in ["cem", "icem"] {
        let config = |key: &str, value: &str| read(&format!(r#"{{"kind": "{kind}", "{key}": "{value}"}}"#));
        for value in ["best", "mean"] {
            let config = [config("returns", value).unwrap(), config("execute", value).unwrap()];
            assert_eq!(config[0], config[1]);
            let written = serde_json::to_value(&config[0]).unwrap();
            assert_eq!((written["execute"].as_str(), written.get("returns")), (Some(value), None));
        }
        let both = read(&format!(r#"{{"kind": "{kind}", "returns": "best", "execute": "mean"}}"#));
        assert!(both.unwrap_err().to_string().contains("duplicate field `execute`"));
    }
    assert_eq!(CemConfig::default().execute, Execute::Mean);
    assert_eq!(IcemConfig::default().execute, Execute::Best);
}

/// A plan through two members that disagree about how far an action goes.
fn plan(planner: &mut dyn Planner) -> Plan {
    let (model, actions) = (TwoMembers::new(), actions());
    let reward = reward_fn(|_, _, next: Tensor<2>| -(next - 1.0).square().squeeze_dim::<1>(1));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    planner.plan(&Situation::of(&[0.0]), &problem, &mut Rng::new(3)).unwrap()
}

#[test]
fn a_planner_is_the_one_that_its_own_configuration_makes() {
    let actions = actions();
    let (by, refinement) = (Aggregate::Worst, Refinement { candidates: 2, iterations: 3, learning_rate: 0.2 });
    fn own<S: SequenceSampler>(
        made: Result<Shooting<S>, PlanError>,
        by: Aggregate,
        refinement: &Refinement,
    ) -> Result<Shooting<S>, PlanError> {
        made?.with_aggregate(by).with_refinement(refinement.clone())
    }
    for kind in KINDS {
        let config = of_kind(kind);
        for refinement in [Refinement::off(), refinement.clone()] {
            let made = config.init(&actions, TwoMembers::BOTH, by, &refinement);
            let direct: Result<Plan, PlanError> = match &config {
                PlannerConfig::Cem(c) => {
                    own(c.init(&actions, TwoMembers::BOTH), by, &refinement).map(|mut p| plan(&mut p))
                }
                PlannerConfig::Pddm(c) => {
                    own(c.init(&actions, TwoMembers::BOTH), by, &refinement).map(|mut p| plan(&mut p))
                }
                PlannerConfig::Icem(c) => {
                    own(c.init(&actions, TwoMembers::BOTH), by, &refinement).map(|mut p| plan(&mut p))
                }
                PlannerConfig::Mppi(c) => {
                    own(c.init(&actions, TwoMembers::BOTH), by, &refinement).map(|mut p| plan(&mut p))
                }
                PlannerConfig::RandomShooting(c) => {
                    own(c.init(&actions, TwoMembers::BOTH), by, &refinement).map(|mut p| plan(&mut p))
                }
                PlannerConfig::Gradient(_) if refinement.is_on() => {
                    let error = made.map(drop).unwrap_err().to_string();
                    let rule = "expected 0 with the planner gradient, which climbs already";
                    assert_eq!(error, format!("refinement.iterations = 3: {rule}"));
                    continue;
                }
                PlannerConfig::Gradient(c) => {
                    c.init(&actions, TwoMembers::BOTH).map(|p| plan(&mut p.with_aggregate(by)))
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(bits(&plan(&mut made.unwrap())), bits(&direct.unwrap()), "{kind}, {refinement:?}");
        }
    }
}

#[test]
fn refinement_aggregate_and_propagation_change_the_plan() {
    let actions = actions();
    for kind in KINDS {
        let config = of_kind(kind);
        let made = |propagation, by, refinement: &Refinement| {
            bits(&plan(&mut config.init(&actions, propagation, by, refinement).unwrap()))
        };
        let plain = made(TwoMembers::BOTH, Aggregate::Mean, &Refinement::off());
        for by in [Aggregate::Worst, Aggregate::MeanMinusStd(1.0)] {
            assert_ne!(made(TwoMembers::BOTH, by, &Refinement::off()), plain, "{kind}: {by:?} is ignored");
        }
        let four = Propagation { particles: 4, ..TwoMembers::BOTH };
        assert_ne!(made(four, Aggregate::Mean, &Refinement::off()), plain, "{kind}: particles are ignored");
        if !config.needs_gradients() {
            let refined = made(TwoMembers::BOTH, Aggregate::Mean, &Refinement::default());
            assert_ne!(refined, plain, "{kind}: the refinement is ignored");
        }
        let error = config.init(&actions, TwoMembers::BOTH, Aggregate::MeanMinusStd(f32::NAN), &Refinement::off());
        let error = error.map(drop).unwrap_err().to_string();
        assert_eq!(error, "aggregate = NaN: expected a finite factor of the standard deviation");
    }
    let wrong = Refinement { learning_rate: 0.0, ..Refinement::default() };
    let error = of_kind("cem").init(&actions, TwoMembers::BOTH, Aggregate::Mean, &wrong).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "refinement.learning_rate = 0: expected a finite number above 0");
}

#[test]
fn candidates_are_the_most_that_an_iteration_scores() {
    let actions = actions();
    for kind in KINDS {
        let config = of_kind(kind);
        let mut planner = config.init(&actions, TwoMembers::BOTH, Aggregate::Mean, &Refinement::off()).unwrap();
        // The second plan tries the elites of the first.
        let first = plan(&mut planner);
        planner.advance(1);
        let second = plan(&mut planner);
        let most = first.trace.iter().chain(&second.trace).map(|iteration| iteration.candidates).max().unwrap();
        let bound = config.candidates();
        if kind == "icem" {
            // It keeps three of ten elites.
            assert_eq!((most, bound), (43, 50));
        } else {
            assert_eq!(most, bound, "{kind}");
        }
    }
}

#[test]
fn boxed_and_borrowed_planners_and_samplers_are_what_they_hold() {
    let actions = actions();
    // Its variance ends it early, so that a forgotten `converged` shows.
    let config = CemConfig { horizon: 4, variance_stop: 0.02, iterations: 50, ..CemConfig::default() };
    let planner = || config.init(&actions, TwoMembers::BOTH).unwrap();
    let expected = plan(&mut planner());
    assert!(expected.stats.iterations < 50);
    let (mut lent, mut boxed): (_, Box<dyn Planner>) = (planner(), Box::new(planner()));
    fn through<P: Planner>(mut planner: P) -> Vec<Vec<u32>> {
        let first = bits(&plan(&mut planner));
        planner.advance(2);
        let second = bits(&plan(&mut planner));
        planner.reset();
        vec![first, second, bits(&plan(&mut planner))]
    }
    let direct = through(planner());
    assert_ne!(direct[0], direct[1], "the warm start counts");
    assert_eq!(direct[0], direct[2]);
    assert_eq!(through(&mut lent), direct);
    assert_eq!(through(&mut boxed), direct);
    let sampler: Box<dyn SequenceSampler> = Box::new(config.sampler(1).unwrap());
    assert_eq!(through(Shooting::new(sampler, TwoMembers::BOTH).unwrap()), direct);

    // A forgotten `presumes_bounds` would let it search where it cannot.
    let mut held: Box<dyn SequenceSampler> = Box::new(config.sampler(1).unwrap());
    let open = optimize::Region { centre: vec![0.0; 4], scale: vec![1.0; 4], bounded: false, device: Device::flex() };
    let stop = optimize::Stop { evaluations: 10, value: 0.0 };
    let hill = |x: Tensor<2>| -x.square().sum_dim(1).squeeze_dim::<1>(1);
    let error = optimize::search(&mut held, &hill, &open, stop, &mut Rng::new(0)).unwrap_err();
    assert!(matches!(error, PlanError::Config { field: "region.bounded", .. }), "{error}");
}

#[test]
fn every_setting_of_a_refinement_changes_something() {
    let actions = actions();
    let base = Refinement { candidates: 2, iterations: 3, learning_rate: 0.05 };
    let made = |refinement: &Refinement| {
        let config = CemConfig { horizon: 4, iterations: 1, ..CemConfig::default() };
        let planner = PlannerConfig::from(config).init(&actions, TwoMembers::BOTH, Aggregate::Mean, refinement);
        bits(&plan(&mut planner.unwrap()))
    };
    let keys = ["candidates", "iterations", "learning_rate"];
    let written = serde_json::to_value(&base).unwrap();
    assert!(written.as_object().unwrap().keys().eq(keys), "{written}");
    for (key, value) in keys.into_iter().zip([json!(6), json!(5), json!(0.3)]) {
        let mut changed = written.clone();
        changed[key] = value;
        let changed: Refinement = serde_json::from_value(changed).unwrap();
        assert_ne!(made(&changed), made(&base), "{key} changes nothing");
    }
}
