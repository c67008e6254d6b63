//! Physics with unknown parameters in the place of an ensemble: learners collect, fit its constants and use it.

use std::sync::atomic::AtomicBool;

use mbrl_env::{Env, Rng, tasks};
use mbrl_model::{Device, FitConfig, Pendulum, PhysicsModel, Propagation};
use mbrl_plan::{IcemConfig, Mpc, Replan};
use mbrl_policy::{
    ActorConfig, CriticsConfig, FitSchedule, Goal, Imagining, Learner, MbpoConfig, ModelBasedConfig, RolloutConfig,
    RolloutLength, SacConfig, TrainConfig, evaluate, start_seeds,
};

/// The task's equations with a wrong mass and a wrong length.
fn guess() -> PhysicsModel {
    let model = PhysicsModel::new(Pendulum::gymnasium(), 0.05, &Device::flex()).unwrap();
    model.with_unknown("mass", 1.7).unwrap().with_unknown("length", 0.7).unwrap()
}

fn fit() -> FitConfig {
    FitConfig { learning_rate: 0.03, batch_size: 32, max_epochs: 60, ..FitConfig::default() }
}

fn learn(learner: &mut dyn Learner, steps: u64) {
    let mut task = tasks::make("pendulum").unwrap();
    let mut training = TrainConfig::default().init(steps, 0).unwrap();
    training.run(&mut task.env, learner, None, &mut (), &AtomicBool::new(false)).unwrap();
}

fn check(model: &PhysicsModel) {
    for name in ["mass", "length"] {
        let value = model.value(name).unwrap();
        assert!((value - 1.0).abs() < 0.03, "{name}: {value}");
    }
}

#[test]
fn a_planning_learner_finds_the_constants_and_swings_up() {
    let mut task = tasks::make("pendulum").unwrap();
    let spec = task.env.spec().clone();
    let planner = IcemConfig { horizon: 25, ..IcemConfig::default() };
    let mpc = Mpc::new(Box::new(planner.init(&spec.actions, Propagation::MEAN).unwrap()), Replan::EveryStep).unwrap();
    let config = ModelBasedConfig { random_steps: 200, fit_every: FitSchedule::Episode, ..ModelBasedConfig::default() };
    let mut agent = config.init(&spec, guess(), fit(), Goal::of_task(&task), mpc).unwrap();
    learn(&mut agent, 200);
    check(agent.model());
    let found = evaluate(&mut task.env, &mut agent, &start_seeds(0, 3)).unwrap().return_mean();
    assert!(found > -300.0, "{found}; random actions get −1,100");
}

#[test]
fn a_policy_is_learned_in_it() {
    let task = tasks::make("pendulum").unwrap();
    let spec = task.env.spec().clone();
    let actor = ActorConfig { hidden: vec![16], ..ActorConfig::default() };
    let critics = CriticsConfig { hidden: vec![16], ..CriticsConfig::default() };
    let sac = SacConfig::default().init(&spec, &actor, &critics, &mut Rng::new(5)).unwrap();
    let rollout =
        RolloutConfig { length: RolloutLength::Fixed(3), every: 20, count: 32, keep: 5, ..RolloutConfig::default() };
    let imagining = Imagining { goal: Goal::of_task(&task), rollout, propagation: Propagation::MEAN };
    let config =
        MbpoConfig { random_steps: 200, fit_every: FitSchedule::Steps(200), batch_size: 32, ..MbpoConfig::default() };
    let mut agent = config.init(&spec, guess(), fit(), imagining, sac).unwrap();
    learn(&mut agent, 240);
    let learned = agent.learned().unwrap();
    assert!(learned.is_fitted && learned.model.spec().name == "pendulum-gymnasium");
    check(agent.model());
}
