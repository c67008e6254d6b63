//! What a diagnosis says of models and values whose faults are known.

mod common;

use std::sync::Arc;

use common::Point;
use mbrl_env::{Replay, Rng, Situation, Transition, reward_fn, termination_fn, value_fn};
use mbrl_model::{Draw, Dynamics, Propagation, dynamics_fn};
use mbrl_plan::{ActionRate, CemConfig, Planner};
use mbrl_policy::{
    ActMode, Agent, AgentError, CheckpointReader, CheckpointWriter, Device, DiagnoseConfig, Diagnosis, Goal, Learned,
    LearnedValue, Learner, PlanDiagnosis, Planning, RandomAgent, Report, Rollouts, Tensor, World, imagine,
};

/// Stays where it is.
struct Still;

impl Agent for Still {
    fn act(&mut self, _: &Situation<'_>, _: ActMode, _: &mut Rng) -> Result<Vec<f32>, AgentError> {
        Ok(vec![0.0])
    }
}

fn planning() -> Planning {
    let actions = mbrl_env::Env::spec(&Point::world(12)).actions.clone();
    let planner = || -> Box<dyn Planner> {
        let config = CemConfig { horizon: 6, population: 100, elites: 10, iterations: 4, ..CemConfig::default() };
        Box::new(config.init(&actions, Propagation::MEAN).unwrap())
    };
    let reward = reward_fn(|_, _, next: Tensor<2>| -next.square().squeeze_dim::<1>(1));
    let (planner, with_simulator) = (planner(), Some(planner()));
    Planning { goal: Goal::new(Arc::new(reward)), planner, propagation: Propagation::MEAN, with_simulator }
}

/// A model of a point that an action of 1 moves by 0.1, looked at where random actions lead.
fn diagnosed(model: &dyn Dynamics) -> Diagnosis {
    diagnosed_by(model, planning())
}

fn diagnosed_by(model: &dyn Dynamics, planning: Planning) -> Diagnosis {
    let mut world = World::from_simulator(Point::limited(12));
    let mut agent = RandomAgent::new(mbrl_env::Env::spec(&world).actions.clone());
    let mut replay = Replay::new(1, 1, 10).unwrap();
    for x in 0..10 {
        let (obs, next_obs) = (vec![x as f32], vec![x as f32 + 0.1]);
        let step = Transition { obs, action: vec![1.0], reward: 0.0, next_obs, terminated: false, truncated: false };
        replay.push(&step).unwrap();
    }
    let mut config = DiagnoseConfig::default();
    (config.plans, config.evaluate.horizon, config.evaluate.propagation) = (16, 6, Some(Propagation::MEAN));
    let visited = config.visit(&mut world, &mut agent).unwrap();
    let learned = Learned::new(model, true, &replay);
    visited.diagnose(&world, &Device::flex(), Some(learned), Some(planning), None).unwrap()
}

fn plans(model: &dyn Dynamics) -> PlanDiagnosis {
    diagnosed(model).plans.unwrap()
}

#[test]
fn plans_of_a_true_model_keep_what_they_promise_and_lose_nothing() {
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1);
    let found = diagnosed(&model);
    let plans = found.plans.as_ref().unwrap();
    // From steps 4, 5 and 6 of five episodes: plans from later ones would meet the time limit.
    assert_eq!((plans.states, plans.horizon, plans.along.len(), plans.distance.len()), (15, 6, 6, 6));
    for promise in plans.along.iter().chain([&plans.plans, &plans.random]) {
        assert!(promise.excess().abs() < 1e-4, "{promise:?}");
    }
    assert_eq!(plans.along[5], plans.plans, "the whole of a plan is its last step");
    assert!(plans.distance.iter().all(|distance| *distance < 1e-4), "{:?}", plans.distance);
    // Both searches are random: what they find differs a little.
    assert!(plans.share_lost().unwrap().abs() < 0.02, "{plans:?}");
    assert!(plans.goes_wrong_at().is_none() && plans.plans.kept > plans.random.kept);
    let own = found.own.unwrap();
    assert!(own.one_step.rmse[0] < 1e-6 && own.one_step.unchanged_rmse[0] > 0.03, "{:?}", own.one_step);
    assert_eq!(own.one_step.rows, 60, "the agent's own steps: 5 episodes of 12");
    assert_eq!(found.data.unwrap().one_step.rows, 10);
}

#[test]
fn with_the_simulator_plans_pay_for_changes_of_the_action_as_those_in_the_model_do() {
    let mut planning = planning();
    // Small changes alone are allowed, so that plans gather way slowly, or overshoot.
    planning.goal.action_rate = Some(ActionRate::new(0.0, 0.25));
    let found = diagnosed_by(&dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1), planning);
    let plans = found.plans.unwrap();
    assert!(plans.share_lost().unwrap().abs() < 0.02, "{plans:?}");
}

#[test]
fn plans_of_a_model_that_is_wrong_lose_all_that_there_is_to_gain() {
    let plans = plans(&dynamics_fn(1, 1, &Device::flex(), |s, a| s - a * 0.1));
    assert!(plans.share_lost().unwrap() > 1.0, "driven away: worse than random actions, {plans:?}");
    assert!(plans.plans.excess() > 0.5 && plans.goes_wrong_at().is_some());
    assert!(plans.distance.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", plans.distance);
}

#[test]
fn a_search_that_finds_a_hole_in_the_model_is_told_from_a_model_that_errs_alike_everywhere() {
    // Whoever pushes with nearly all its force is at the goal, says the model.
    let holed = dynamics_fn(1, 1, &Device::flex(), |s, a| {
        let hole = a.clone().greater_elem(0.95);
        (s + a * 0.1).mask_fill(hole, 0.0)
    });
    let holed = plans(&holed);
    assert!(holed.plans.excess() > 2.0 * holed.random.excess().abs(), "{holed:?}");
    // All is a little better than it is.
    let bright = plans(&dynamics_fn(1, 1, &Device::flex(), |s, a| (s + a * 0.1) * 0.95));
    assert!(bright.plans.excess() < 2.0 * bright.random.excess(), "{bright:?}");
}

#[test]
fn clipped_columns_of_the_data_are_told() {
    let model = dynamics_fn(1, 1, &Device::flex(), |s, _| s);
    let at_ends = |most: f32, is_fitted: bool| {
        let mut replay = Replay::new(1, 1, 300).unwrap();
        for x in 0..300 {
            let (obs, action) = (vec![(x as f32 * 0.1).sin().min(most)], vec![0.0]);
            let next_obs = obs.clone();
            let step = Transition { obs, action, reward: 0.0, next_obs, terminated: false, truncated: x % 100 == 99 };
            replay.push(&step).unwrap();
        }
        let (mut world, mut config) = (Point::world(12), DiagnoseConfig::default());
        (config.evaluate.horizon, config.evaluate.propagation) = (2, Some(Propagation::MEAN));
        let visited = config.visit(&mut world, &mut Still).unwrap();
        let learned = Learned::new(&model, is_fitted, &replay);
        visited.diagnose(&world, &Device::flex(), Some(learned), None, None).unwrap().at_ends
    };
    let [whole] = at_ends(1.0, true).unwrap()[..] else { panic!("one column") };
    assert!(whole < 0.01, "{whole}");
    // A sine is above half of its height for a third of the time; these are 4.8 of its turns.
    let [clipped] = at_ends(0.5, true).unwrap()[..] else { panic!("one column") };
    assert!((clipped - 1.0 / 3.0).abs() < 0.03, "{clipped}");
    assert_eq!(at_ends(0.5, false), None, "data that nothing was learned from limit nothing");
}

#[test]
fn values_are_held_against_what_came() {
    let discount = 0.9;
    let judged = |scale: f64| {
        let mut world = World::from_simulator(Point::limited(12));
        let config = DiagnoseConfig::default();
        let visited = config.visit(&mut world, &mut Still).unwrap();
        // Who stays earns −x² for ever.
        let value =
            value_fn(move |obs: Tensor<2>| obs.square().squeeze_dim::<1>(1) * (-scale / (1.0 - f64::from(discount))));
        let value = LearnedValue::new(Arc::new(value), discount);
        visited.diagnose(&world, &Device::flex(), None, None, Some(&value)).unwrap().values.unwrap()
    };
    let right = judged(1.0);
    assert_eq!(right.states, 60);
    assert!(right.rmse < 1e-4 * right.earned.abs() && (right.correlation - 1.0).abs() < 1e-6, "{right:?}");
    let twice = judged(2.0);
    // A cut episode is ended by the value itself, which is too large as well.
    assert!(twice.expected < 1.3 * twice.earned && (twice.expected - 2.0 * right.expected).abs() < 1e-3, "{twice:?}");
    assert!(twice.rmse > 0.1 * twice.earned.abs() && twice.correlation > 0.9, "{twice:?}");
}

/// A policy that stays where it is, in a model of what then comes.
struct Dreamer<'a> {
    model: &'a dyn Dynamics,
    goal: &'a Goal,
}

impl Agent for Dreamer<'_> {
    fn act(&mut self, _: &Situation<'_>, _: ActMode, _: &mut Rng) -> Result<Vec<f32>, AgentError> {
        Ok(vec![0.0])
    }
}

impl Learner for Dreamer<'_> {
    fn observe(&mut self, _: &Transition) -> Result<(), AgentError> {
        Ok(())
    }
    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        Ok(())
    }
    fn update(&mut self, _: &mut Rng, _: &mut dyn Report) -> Result<(), AgentError> {
        Ok(())
    }
    fn save(&self, _: &mut CheckpointWriter) -> Result<(), AgentError> {
        Ok(())
    }
    fn load(&mut self, _: &CheckpointReader) -> Result<(), AgentError> {
        Ok(())
    }
    fn value(&self) -> Option<LearnedValue> {
        Some(LearnedValue::new(Arc::new(value_fn(|obs: Tensor<2>| obs.squeeze_dim::<1>(1))), 0.5))
    }
    fn roll_out_in_model(&self, starts: &[f32], steps: usize, key: u64) -> Result<Option<Rollouts>, AgentError> {
        let mut act = |obs: &[f32], _: usize| Ok(vec![0.0; obs.len()]);
        let draw = Draw::new(Propagation::MEAN, key);
        imagine(self.model, self.goal, &mut act, starts, steps, draw).map(Some)
    }
}

#[test]
fn a_policy_is_followed_in_the_model_and_in_the_world() {
    let reward = Arc::new(reward_fn(|_, _, next: Tensor<2>| -next.square().squeeze_dim::<1>(1)));
    let look = |model: &dyn Dynamics, goal: &Goal, limit: u32| {
        let config = DiagnoseConfig::default();
        let mut agent = Dreamer { model, goal };
        let visited = config.visit(&mut World::from_simulator(Point::limited(limit)), &mut agent).unwrap();
        visited.policy_in_model(&agent).unwrap().unwrap()
    };
    // In a true model all is as in the world: −x² at each step, discounted by a half.
    let (still, goal) = (dynamics_fn(1, 1, &Device::flex(), |s, _| s), Goal::new(reward));
    let right = look(&still, &goal, 12);
    // Six steps, half of an episode, are known from the first seven states of each.
    assert_eq!((right.states, right.steps()), (35, 6));
    for promise in &right.along {
        assert!(promise.excess().abs() < 1e-6 && promise.kept < 0.0, "{promise:?}");
    }
    assert!((right.along[1].kept / right.along[0].kept - 1.5).abs() < 1e-9);
    assert!(right.alive.iter().all(|alive| (alive.promised, alive.kept) == (1.0, 1.0)));

    // One in which the third step ends it: what comes after that is missing, and the share says why.
    let clock = dynamics_fn(1, 1, &Device::flex(), |s, _| s + 10.0);
    let mut ends = Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.ones_like().squeeze_dim::<1>(1))));
    ends.termination =
        Some(Arc::new(termination_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1).greater_elem(25.0))));
    let short = look(&clock, &ends, 12);
    let promised: Vec<f64> = short.along.iter().map(|promise| promise.promised).collect();
    assert_eq!(promised, [1.0, 1.5, 1.75, 1.75, 1.75, 1.75]);
    let alive: Vec<f64> = short.alive.iter().map(|alive| alive.promised).collect();
    assert_eq!(alive, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(short.alive.iter().all(|alive| alive.kept == 1.0));
    assert_eq!((short.earned().promised, short.survived().promised), (1.75, 0.0));
}

#[test]
fn a_diagnosis_needs_episodes_and_tells_where_there_is_nothing_to_look_at() {
    let mut config = DiagnoseConfig::default();
    config.plans = 0;
    let mut world = World::from_simulator(Point::limited(12));
    let error = config.visit(&mut world, &mut Still).unwrap_err().to_string();
    assert_eq!(error, "plans = 0: expected at least 1");
    (config.plans, config.ahead) = (1, 0);
    let error = config.visit(&mut world, &mut Still).unwrap_err().to_string();
    assert_eq!(error, "ahead = 0: expected at least 1");
    // No simulator: plans cannot be executed from states in the middle.
    let mut world = Point::world(12);
    let visited = DiagnoseConfig::default().visit(&mut world, &mut Still).unwrap();
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
    let mut replay = Replay::new(1, 1, 1).unwrap();
    let step = Transition {
        obs: vec![0.0],
        action: vec![0.0],
        reward: 0.0,
        next_obs: vec![0.0],
        terminated: false,
        truncated: true,
    };
    replay.push(&step).unwrap();
    let unfitted = Learned::new(&model, false, &replay);
    let found = visited.diagnose(&world, &Device::flex(), Some(unfitted), Some(planning()), None).unwrap();
    assert!(found.own.is_none() && found.plans.is_none() && found.values.is_none());
    assert_eq!(found.returns.len(), 5);
}
