//! Planners × models: the table of the README, every cell of it.
#![cfg(feature = "gradient")]

use burn::tensor::{Device, Tensor};
use mbrl_env::{ActionSpace, Env, History, Rng, Situation, tasks};
use mbrl_model::{Dynamics, EnsembleConfig, Head, MemberRule, Propagation, SimulatorModel, dynamics_fn};
use mbrl_plan::{
    CemConfig, GradientConfig, IcemConfig, MppiConfig, PddmConfig, PlanError, Planner, Problem, RandomShootingConfig,
    Refinement, SequenceSampler, Shooting,
};

const HORIZON: usize = 5;

/// A planner's name, whether it needs gradients, and what became of its making.
type Made = (&'static str, bool, Result<Box<dyn Planner>, PlanError>);

/// A sampling planner, alone and refined.
fn sampling<S: SequenceSampler + 'static>(
    name: &'static str,
    init: impl Fn() -> Result<Shooting<S>, PlanError>,
) -> [Made; 2] {
    let refinement = Refinement { candidates: 2, iterations: 2, ..Refinement::default() };
    let boxed = |planner: Shooting<S>| Box::new(planner) as Box<dyn Planner>;
    [
        (name, false, init().map(boxed)),
        (name, true, init().and_then(|planner| planner.with_refinement(refinement)).map(boxed)),
    ]
}

fn planners(actions: &ActionSpace, propagation: Propagation) -> Vec<Made> {
    let random = RandomShootingConfig { horizon: HORIZON, population: 30, ..Default::default() };
    let cem = CemConfig { horizon: HORIZON, population: 30, elites: 5, iterations: 2, ..Default::default() };
    let icem = IcemConfig { horizon: HORIZON, ..Default::default() };
    let mppi = MppiConfig { horizon: HORIZON, ..Default::default() };
    let pddm = |code_compat| PddmConfig { horizon: HORIZON, population: 30, code_compat, ..Default::default() };
    let gradient = GradientConfig { horizon: HORIZON, starts: 2, iterations: 2, ..Default::default() };
    let alone = gradient.init(actions, propagation).map(|planner| Box::new(planner) as Box<dyn Planner>);
    [
        sampling("random shooting", || random.init(actions, propagation)),
        sampling("CEM", || cem.init(actions, propagation)),
        sampling("iCEM", || icem.init(actions, propagation)),
        sampling("MPPI", || mppi.init(actions, propagation)),
        sampling("PDDM, the paper's form", || pddm(false).init(actions, propagation)),
        sampling("PDDM, the code's form", || pddm(true).init(actions, propagation)),
    ]
    .into_iter()
    .flatten()
    .chain([("gradient shooting", true, alone)])
    .collect()
}

/// Every planner makes a plan, those that need gradients where there are some.
fn column(problem: &Problem<'_>, situation: &Situation<'_>, propagation: Propagation, gradients: bool) {
    for (name, needs_gradients, made) in planners(problem.actions, propagation) {
        let plan = made.and_then(|mut planner| planner.plan(situation, problem, &mut Rng::new(0)));
        match plan {
            Ok(plan) => {
                assert!(gradients || !needs_gradients, "{name} planned without gradients");
                assert_eq!(plan.actions.dims(), [HORIZON, problem.actions.width()], "{name}");
                assert!(plan.predicted_return.is_finite(), "{name}");
                let actions: Vec<f32> = plan.actions.into_data().try_into_vec().unwrap();
                assert!(actions.iter().all(|a| (-2.0..=2.0).contains(a)), "{name}: {actions:?}");
            }
            Err(error) => assert!(needs_gradients && !gradients, "{name}: {error}"),
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
    let particles = Propagation { members: MemberRule::TsInf, noise: true, particles: 3 };

    for head in [Head::Gaussian, Head::Deterministic] {
        let config = EnsembleConfig { members: 3, hidden: vec![16], head, ..Default::default() };
        let ensemble = config.init(3, 1, &device, &mut Rng::new(0)).unwrap();
        let problem = Problem::new(&ensemble, &actions).with_reward(reward);
        column(&problem, &Situation::of(&obs), particles, true);
    }

    let simulator = SimulatorModel::new(task.env.require_simulator().unwrap().boxed_clone(), &device);
    assert!(!simulator.spec().differentiable);
    let snapshot = task.env.require_simulator().unwrap().save();
    let situation = Situation { obs: &obs, past: &History::default(), snapshot: Some(&snapshot) };
    let problem = Problem::new(&simulator, &actions).with_reward(reward);
    column(&problem, &situation, Propagation::MEAN, false);

    let closure = dynamics_fn(3, 1, &device, |s, a| s + Tensor::cat(vec![a.clone(), a.clone(), a], 1) * 0.1);
    let problem = Problem::new(&closure, &actions).with_reward(reward);
    column(&problem, &Situation::of(&obs), Propagation::MEAN, true);

    let choices = ActionSpace::Discrete(3);
    let problem = Problem::new(&closure, &choices).with_reward(reward);
    column(&problem, &Situation::of(&obs), Propagation::MEAN, false);
}
