//! Planners × models: the table of the README, every cell of it.
#![cfg(feature = "gradient")]

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Env, Rng, Situation, tasks};
use mbrl_model::{
    Dynamics, EnsembleConfig, Head, MemberRule, Pendulum, PhysicsModel, Propagation, Residual, SimulatorModel,
    dynamics_fn,
};
use mbrl_plan::{
    Aggregate, CemConfig, GradientConfig, IcemConfig, MppiConfig, PddmConfig, PlanError, PlannerConfig, Problem,
    RandomShootingConfig, Refinement,
};

const HORIZON: usize = 5;

fn planners() -> [(&'static str, PlannerConfig); 7] {
    let random = RandomShootingConfig { horizon: HORIZON, population: 30, ..Default::default() };
    let cem = CemConfig { horizon: HORIZON, population: 30, elites: 5, iterations: 2, ..Default::default() };
    let icem = IcemConfig { horizon: HORIZON, ..Default::default() };
    let mppi = MppiConfig { horizon: HORIZON, ..Default::default() };
    let pddm = |code_compat| PddmConfig { horizon: HORIZON, population: 30, code_compat, ..Default::default() };
    let gradient = GradientConfig { horizon: HORIZON, starts: 2, iterations: 2, ..Default::default() };
    [
        ("random shooting", random.into()),
        ("CEM", cem.into()),
        ("iCEM", icem.into()),
        ("MPPI", mppi.into()),
        ("PDDM, the paper's form", pddm(false).into()),
        ("PDDM, the code's form", pddm(true).into()),
        ("gradient shooting", gradient.into()),
    ]
}

/// Every planner, alone and refined, makes a plan; those that need gradients where there are some, and else refuse by name.
fn column(problem: &Problem<'_>, situation: &Situation<'_>, propagation: Propagation, gradients: bool) {
    let refinement = Refinement { candidates: 2, iterations: 2, ..Refinement::default() };
    for (name, config) in planners() {
        for refinement in [Refinement::off(), refinement.clone()] {
            if config.needs_gradients() && refinement.is_on() {
                continue;
            }
            let climbs = config.needs_gradients() || refinement.is_on();
            let made = config.init(problem.actions, propagation, Aggregate::Mean, &refinement);
            match made.and_then(|mut planner| planner.plan(situation, problem, &mut Rng::new(0))) {
                Ok(plan) => {
                    assert!(gradients || !climbs, "{name} planned without gradients");
                    assert_eq!(plan.shape, [HORIZON, problem.actions.width()], "{name}");
                    assert!(plan.best_return.is_finite(), "{name}");
                    assert!(plan.actions.iter().all(|a| (-2.0..=2.0).contains(a)), "{name}: {:?}", plan.actions);
                }
                Err(PlanError::NotDifferentiable { .. } | PlanError::ActionSpace { .. }) => {
                    assert!(climbs && !gradients, "{name} is refused where it could plan");
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

#[test]
fn every_planner_plans_with_every_model() {
    let device = Device::flex();
    let mut task = tasks::make("pendulum").unwrap();
    let obs = task.env.reset(Some(0)).unwrap();
    let actions = task.env.spec().actions.clone();
    let reward = task.reward.as_deref().unwrap();
    let particles = Propagation { rule: MemberRule::TsInf, noise: true, particles: 3 };

    for head in [Head::Gaussian, Head::Deterministic] {
        let config = EnsembleConfig { members: 3, hidden: vec![16], head, ..Default::default() };
        let ensemble = config.init(3, 1, &device, &mut Rng::new(0)).unwrap();
        let problem = Problem::new(&ensemble, &actions).with_reward(reward);
        column(&problem, &Situation::of(&obs), particles, true);
    }

    let simulator = SimulatorModel::new(task.env.require_simulator().unwrap().boxed_clone(), &device);
    assert!(!simulator.spec().differentiable);
    let snapshot = task.env.require_simulator().unwrap().save();
    let situation = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    let problem = Problem::new(&simulator, &actions).with_reward(reward);
    column(&problem, &situation, Propagation::MEAN, false);

    let closure = dynamics_fn(3, 1, &device, |s, a| s + Tensor::cat(vec![a.clone(), a.clone(), a], 1) * 0.1);
    let problem = Problem::new(&closure, &actions).with_reward(reward);
    column(&problem, &Situation::of(&obs), Propagation::MEAN, true);

    let physics = PhysicsModel::new(Pendulum::gymnasium(), 0.05, &device).unwrap();
    let problem = Problem::new(&physics, &actions).with_reward(reward);
    column(&problem, &Situation::of(&obs), Propagation::MEAN, true);
    let config = EnsembleConfig { members: 3, hidden: vec![16], ..Default::default() };
    let joined = Residual::new(physics, config.init(3, 1, &device, &mut Rng::new(0)).unwrap()).unwrap();
    let problem = Problem::new(&joined, &actions).with_reward(reward);
    column(&problem, &Situation::of(&obs), particles, true);

    let choices = ActionSpace::Discrete(3);
    let problem = Problem::new(&closure, &choices).with_reward(reward);
    column(&problem, &Situation::of(&obs), Propagation::MEAN, false);
}
