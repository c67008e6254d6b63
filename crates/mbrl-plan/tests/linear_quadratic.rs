//! Planners against the exact optimum of linear-quadratic problems with inactive bounds: a single plan from rest, without
//! a warm start. `cargo test --test linear_quadratic -- --ignored --nocapture` prints what each tries and how far above the
//! optimum its cost is.

mod lq;

use std::ops::RangeInclusive;

use burn::tensor::Device;
use lq::Lq;
use mbrl_env::{Rng, Situation};
use mbrl_model::Propagation;
use mbrl_plan::{CemConfig, IcemConfig, MppiConfig, PddmConfig, Planner, Problem, Proposal, RandomShootingConfig};

/// Name, planner, and the excess that it may have; one below 0 would be that of a wrong optimum.
type Entry = (&'static str, Box<dyn Planner>, RangeInclusive<f64>);

/// What random shooting misses by for 12, 24 and 72 numbers: uniform and coloured draws. It has no small excess to be held to, so
/// it is held to what it is good for; better than half of what was measured would be a wrong optimum or another planner.
fn of_random(lq: &Lq) -> [RangeInclusive<f64>; 2] {
    match lq.horizon * lq.inputs() {
        12 => [0.12..=0.4, 0.03..=0.15],
        24 => [2.0..=7.0, 0.4..=1.4],
        _ => [30.0..=90.0, 6.0..=20.0],
    }
}

/// Every planner with the settings that serve all three systems. They need many iterations: what a control step's warm start
/// gives over the steps of an episode is to come of a single plan here.
fn planners(lq: &Lq) -> Vec<Entry> {
    let (horizon, actions) = (lq.horizon, lq.actions());
    let cem = CemConfig {
        horizon,
        population: 800,
        elites: 120,
        iterations: 40,
        alpha: 0.3,
        variance_stop: 1e-5,
        ..CemConfig::default()
    };
    // The optimal actions fade within some steps, so slow noise is of no use, and the decay is for few iterations.
    let icem = IcemConfig {
        horizon,
        population: 1000,
        population_decay: 1.0,
        elites: 150,
        iterations: 40,
        noise_exponent: 0.25,
        keep_elites: 0.02,
        ..IcemConfig::default()
    };
    let mppi = MppiConfig {
        horizon,
        population: 1000,
        iterations: 30,
        kappa: 3.0,
        elites: 0.1,
        adapt_std: true,
        std_range: [0.01, 2.0],
        normalize_returns: true,
        ..MppiConfig::default()
    };
    // With a constant spread the plan never comes to rest: it must be small from the start, and the way is long.
    let constant = MppiConfig {
        horizon,
        population: 1000,
        iterations: 100,
        kappa: 10.0,
        sigma: vec![0.05],
        normalize_returns: true,
        ..MppiConfig::default()
    };
    let pddm = PddmConfig {
        horizon,
        population: 1000,
        iterations: 150,
        kappa: 3.0,
        sigma: 0.05,
        beta: 0.9,
        ..PddmConfig::default()
    };
    let random = |proposal| RandomShootingConfig { horizon, population: 1000, iterations: 40, proposal };
    let coloured = random(Proposal::Coloured { std: 0.3, exponent: 1.0 });
    let mean = Propagation::MEAN;
    let within = |bar| -1e-9..=bar;
    let [of_uniform, of_coloured] = of_random(lq);
    vec![
        ("CEM", Box::new(cem.init(&actions, mean).unwrap()), within(0.01)),
        ("iCEM", Box::new(icem.init(&actions, mean).unwrap()), within(0.01)),
        ("MPPI", Box::new(mppi.init(&actions, mean).unwrap()), within(0.01)),
        ("MPPI, constant spread", Box::new(constant.init(&actions, mean).unwrap()), within(0.01)),
        ("PDDM", Box::new(pddm.init(&actions, mean).unwrap()), within(0.01)),
        ("random, uniform", Box::new(random(Proposal::Uniform).init(&actions, mean).unwrap()), of_uniform),
        ("random, coloured", Box::new(coloured.init(&actions, mean).unwrap()), of_coloured),
    ]
}

/// Sequences tried, and the excess of the plan's cost over the optimum.
fn plan(lq: &Lq, planner: &mut dyn Planner, seed: u64) -> (u64, f64) {
    let (model, reward, actions) = (lq.model(&Device::flex()), lq.reward(), lq.actions());
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    planner.reset();
    let plan = planner.plan(&Situation::of(&lq.observation()), &problem, &mut Rng::new(seed)).unwrap();
    let (promised, optimum) = (-f64::from(plan.best_return), lq.cost(&lq.optimum()));
    assert!(promised > 0.999 * optimum, "{}: a cost of {promised} is promised, the optimum is {optimum}", lq.name);
    (plan.stats.model_steps / lq.horizon as u64, lq.excess(&plan.actions))
}

/// Prints the worst of some seeds and holds all to the bar.
fn compare(lq: &Lq, seeds: u64) {
    for (name, mut planner, bar) in planners(lq) {
        let plans: Vec<(u64, f64)> = (0..seeds).map(|seed| plan(lq, planner.as_mut(), seed)).collect();
        let tried = plans.iter().map(|(tried, _)| *tried).max().unwrap();
        let worst = plans.iter().map(|(_, excess)| *excess).fold(f64::MIN, f64::max);
        println!("{:<20} {name:<22} {tried:>7} sequences {:>9.3} %", lq.name, 100.0 * worst);
        assert!(plans.iter().all(|(_, excess)| bar.contains(excess)), "{}, {name}: {plans:?}", lq.name);
    }
}

#[test]
fn planners_come_near_the_optimum_of_the_double_integrator() {
    compare(&Lq::double_integrator(), 1);
}

#[test]
#[ignore = "20 s"]
fn planners_come_near_the_optimum_of_every_system() {
    for lq in Lq::all() {
        compare(&lq, 3);
    }
}
