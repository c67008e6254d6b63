//! Models that learn what is rewarded and where it ends, and models that look back, inside of the loop.

mod common;

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use common::Point;
use mbrl_env::{ActionSpace, Env, EnvError, EnvSpec, Rng, Situation, Step, TimeLimit, Transition, reward_fn, tasks};
use mbrl_model::{
    Device, Draw, Dynamics, DynamicsSpec, Ensemble, EnsembleConfig, FitConfig, Imagined, MemberRule, ModelError,
    Prediction, Propagation, Start, Trajectories,
};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{
    AgentError, Evaluation, Goal, ModelBased, ModelBasedConfig, Moment, MpcAgent, Observer, Outcome, RandomAgent,
    Scalars, Tensor, TrainConfig, World, evaluate, start_seeds,
};

/// The goal that knows nothing: reward and end are the model's.
fn silent() -> Goal {
    let goal = Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    Goal { reward: None, ..goal }
}

fn planner(actions: &ActionSpace, propagation: Propagation) -> Mpc {
    let planner = CemConfig { horizon: 5, population: 30, elites: 4, iterations: 3, ..Default::default() };
    Mpc::new(Box::new(planner.init(actions, propagation).unwrap()), Replan::EveryStep).unwrap()
}

fn learner(spec: &EnvSpec, model: &EnsembleConfig, goal: Goal, rng: &mut Rng) -> Result<ModelBased, AgentError> {
    let model = model.init(spec.obs.width(), spec.actions.width(), &Device::flex(), rng)?;
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 2 };
    let fit = FitConfig { learning_rate: 1e-2, max_epochs: 30, batch_size: 16, holdout: 0.0, ..Default::default() };
    let config = ModelBasedConfig { random_steps: 60, ..Default::default() };
    config.init(spec, model, fit, goal, planner(&spec.actions, propagation))
}

fn small(model: EnsembleConfig) -> EnsembleConfig {
    EnsembleConfig { members: 2, hidden: vec![16], normalize_targets: true, ..model }
}

#[test]
fn an_agent_whose_goal_is_silent_learns_to_collect_the_reward() {
    // The point on a line pays −x'². Nobody tells the agent.
    let mut env = Point::world(10);
    let spec = env.spec().clone();
    let mut training = TrainConfig::default().init(120, 1).unwrap();
    let model = small(EnsembleConfig { reward: true, termination: true, ..Default::default() });
    let mut agent = learner(&spec, &model, silent(), &mut training.split_rng()).unwrap();
    let outcome = training.run(&mut env, &mut agent, None, &mut (), &AtomicBool::new(false)).unwrap();
    assert!(outcome == Outcome::Finished && agent.is_fitted());
    let mut env = Point::world(20);
    let seeds = start_seeds(0, 10);
    let learned = evaluate(&mut env, &mut agent, &seeds).unwrap().return_mean();
    let mut random = RandomAgent::new(spec.actions);
    let random = evaluate(&mut env, &mut random, &seeds).unwrap().return_mean();
    // A random walk keeps about the square of its start, a third on average, for all 20 steps; going straight to 0 pays
    // the first few of them.
    assert!(learned > 0.5 * random, "learned {learned}, random {random}");
}

#[test]
fn a_goal_without_reward_needs_a_model_that_learns_one() {
    let spec = Point::new().spec().clone();
    let agent = |model: EnsembleConfig| learner(&spec, &small(model), silent(), &mut Rng::new(0));
    let refused = agent(EnsembleConfig::default());
    assert!(matches!(refused, Err(AgentError::Config { field: "reward", .. })), "{refused:?}");
    assert!(agent(EnsembleConfig { reward: true, ..Default::default() }).is_ok());
}

/// A point on a line whose motor answers one step late: x' = x + 0.3 · the action before.
#[derive(Debug)]
struct Late {
    spec: EnvSpec,
    x: f32,
    before: f32,
}

impl Late {
    fn limited(steps: u32) -> TimeLimit<Self> {
        TimeLimit::new(Self { spec: Point::new().spec().clone(), x: 0.0, before: 0.0 }, steps).unwrap()
    }
}

impl Env for Late {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        (self.x, self.before) = (Rng::new(seed.unwrap_or(0)).uniform(-1.0, 1.0), 0.0);
        Ok(vec![self.x])
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.x += 0.3 * self.before;
        self.before = action[0];
        let reward = -f64::from(self.x * self.x);
        Ok(Step::new([self.x], reward))
    }
}

/// The last `model/mse` of a run.
#[derive(Default)]
struct LastError(f64);

impl Observer for LastError {
    fn on_fit(&mut self, _: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.0 = scalars.iter().find(|(name, _)| *name == "model/mse").map_or(f64::NAN, |(_, value)| *value);
        Ok(())
    }
}

#[test]
fn an_agent_that_looks_back_controls_a_motor_that_answers_late() {
    let run = |past: usize| {
        let mut env = World::from_env(Late::limited(20));
        let spec = env.spec().clone();
        let mut training = TrainConfig::default().init(200, 3).unwrap();
        let model = small(EnsembleConfig { past, reward: true, ..Default::default() });
        let mut agent = learner(&spec, &model, silent(), &mut training.split_rng()).unwrap();
        let mut error = LastError::default();
        training.run(&mut env, &mut agent, None, &mut error, &AtomicBool::new(false)).unwrap();
        let seeds = start_seeds(0, 10);
        (error.0, evaluate(&mut env, &mut agent, &seeds).unwrap().return_mean())
    };
    let ((blind, swinging), (seeing, steady)) = (run(0), run(1));
    // Standardised targets: without the action before, nearly all of the variance of the change is left; with it the system
    // is linear and noiseless.
    assert!(seeing < 0.1 * blind, "{blind} without, {seeing} with the step before");
    assert!(steady > swinging, "{swinging} without, {steady} with the step before");
}

/// A model of two past steps that writes down from where it is asked to imagine.
struct Spy {
    model: Ensemble,
    starts: Arc<Mutex<Vec<Vec<f32>>>>,
}

impl Dynamics for Spy {
    fn spec(&self) -> &DynamicsSpec {
        self.model.spec()
    }
    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        self.model.predict(states, actions)
    }
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
        self.model.sample(states, actions, draw)
    }
    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        self.model.encode(situation)
    }
    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        self.model.observe(states)
    }
    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        let Start::Situation(situation) = from else { panic!("plans start from a situation") };
        let state = self.model.encode(&situation)?.try_into_vec_as::<f32>().unwrap();
        let mut starts = self.starts.lock().unwrap();
        // One roll-out an iteration of the planner, all from the same state.
        if starts.last() != Some(&state) {
            starts.push(state);
        }
        drop(starts);
        self.model.rollout(from, actions, draw)
    }
}

#[test]
fn the_history_of_the_running_episode_reaches_the_model() {
    let mut env = Point::world(5);
    let spec = env.spec().clone();
    let config = EnsembleConfig { past: 2, reward: true, ..small(EnsembleConfig::default()) };
    let model = config.init(1, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let spy = Spy { model, starts: starts.clone() };
    let mpc = planner(&spec.actions, Propagation::MEAN);
    let mut agent = MpcAgent::new(spy, silent(), spec.actions, mpc);
    let Evaluation { episodes, .. } = evaluate(&mut env, &mut agent, &start_seeds(0, 2)).unwrap();
    let mut expected = Vec::new();
    for episode in &episodes {
        let steps: Vec<&Transition> = episode.transitions.iter().collect();
        for t in 0..steps.len() {
            let mut state = steps[t].obs.clone();
            for back in 1..=2 {
                let pair = t.checked_sub(back).map(|then| (steps[then].obs[0], steps[then].action[0]));
                state.extend(<[f32; 2]>::from(pair.unwrap_or((steps[0].obs[0], 0.0))));
            }
            expected.push(state);
        }
    }
    assert_eq!(expected.len(), 10);
    assert_eq!(*starts.lock().unwrap(), expected);
}

#[test]
#[ignore = "learns the pendulum's reward and swings it up, about 30 seconds"]
fn the_pendulum_is_swung_up_by_a_learned_reward() {
    let task = tasks::make("pendulum").unwrap();
    let spec = task.env.spec().clone();
    let mut env = task.env;
    let mut training = TrainConfig::default().init(1000, 0).unwrap();
    let model = EnsembleConfig {
        members: 3,
        hidden: vec![64, 64],
        normalize_targets: true,
        reward: true,
        ..EnsembleConfig::default()
    };
    let model = model.init(3, 1, &Device::flex(), &mut training.split_rng()).unwrap();
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 3 };
    let planner = CemConfig { horizon: 20, population: 60, elites: 6, iterations: 3, ..Default::default() };
    let mpc = Mpc::new(Box::new(planner.init(&spec.actions, propagation).unwrap()), Replan::EveryStep).unwrap();
    let fit = FitConfig { batch_size: 64, max_epochs: 40, holdout: 0.0, ..Default::default() };
    let mut agent = ModelBasedConfig::default().init(&spec, model, fit, silent(), mpc).unwrap();
    training.run(&mut env, &mut agent, None, &mut (), &AtomicBool::new(false)).unwrap();
    let seeds = start_seeds(0, 5);
    let learned = evaluate(&mut env, &mut agent, &seeds).unwrap().return_mean();
    let mut random = RandomAgent::new(spec.actions);
    let random = evaluate(&mut env, &mut random, &seeds).unwrap().return_mean();
    println!("learned {learned}, random {random}");
    // Found: −460, random −1200 to −1400. Without a reward there is nothing to plan for, and no return beyond chance.
    assert!(learned > 0.6 * random, "learned {learned}, random {random}");
}
