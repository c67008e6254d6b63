//! Planning by a model with memory: its filter is followed through each episode, in each slot by itself.

mod common;

use std::sync::{Arc, Mutex};

use mbrl_env::{
    ActionSpace, BoxSpace, Device, Env, EnvError, EnvSpec, Replay, Rng, Situation, Step, Tensor, TimeLimit, Transition,
    World, check_action, reward_fn,
};
use mbrl_model::{
    Draw, Dynamics, DynamicsSpec, EvaluateConfig, Imagined, ModelError, Prediction, Propagation, belief_of,
    check::check_dynamics, evaluate as evaluate_model,
};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{ActMode, Agent, Goal, MpcAgent, Turn, evaluate, evaluate_together, start_seeds};

/// Control period (s).
const DT: f32 = 0.2;
/// A wind that blows in this world, and of which nobody tells (m/s²).
const WIND: f32 = -0.7;

/// A mass of which the position alone is seen. It is pushed, and a wind blows.
struct Mass {
    spec: EnvSpec,
    x: f32,
    v: f32,
}

impl Mass {
    fn world() -> World {
        let spec = EnvSpec::new("mass", BoxSpace::unbounded(1), actions(), f64::from(DT));
        World::from_env(TimeLimit::new(Self { spec, x: 0.0, v: 0.0 }, 60).unwrap())
    }
}

impl Env for Mass {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let mut rng = Rng::new(seed.unwrap_or(0));
        (self.x, self.v) = (rng.uniform(-1.0, 1.0), rng.uniform(-0.5, 0.5));
        Ok(vec![self.x])
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        (self.x, self.v) = (self.x + self.v * DT, self.v + (action[0].clamp(-2.0, 2.0) + WIND) * DT);
        Ok(Step::new([self.x], -f64::from(self.x.abs())))
    }
}

fn actions() -> ActionSpace {
    ActionSpace::Box(BoxSpace::symmetric(1, 2.0).unwrap())
}

/// The physics of the mass, state `[x, v, w]`, and a filter that finds speed and wind: an observer whose error dies away over some
/// steps. A fourth number counts the steps that it followed.
struct Observer {
    spec: DynamicsSpec,
    /// Whether it remembers.
    filters: bool,
    /// Counts of the beliefs that it was asked to plan from.
    counts: Arc<Mutex<Vec<f32>>>,
}

impl Observer {
    fn new(filters: bool) -> Self {
        let spec = DynamicsSpec::new("observer", 3, 1, &Device::flex()).with_obs(1).with_differentiable(true);
        let spec = if filters { spec.with_belief(4) } else { spec };
        Self { spec, filters, counts: Arc::default() }
    }
}

fn columns<const N: usize>(rows: &Tensor<2>) -> [Tensor<2>; N] {
    std::array::from_fn(|c| rows.clone().narrow(1, c, 1))
}

impl Dynamics for Observer {
    fn spec(&self) -> &DynamicsSpec {
        &self.spec
    }
    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
        let [x, v, w] = columns(&states);
        let next = vec![x + v.clone() * DT, v + (actions + w.clone()) * DT, w];
        Ok(Prediction::new(Tensor::cat(next, 1)))
    }
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, _: Draw) -> Result<Imagined, ModelError> {
        Ok(Imagined::new(self.predict(states, actions)?.mean))
    }
    fn begin(&self, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let rest = Tensor::zeros([obs.dims()[0], 3], &self.spec.device);
        Ok(Tensor::cat(vec![obs, rest], 1))
    }
    fn follow(&self, beliefs: Tensor<2>, actions: Tensor<2>, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let [x, v, w, count] = columns(&beliefs);
        // What the physics expect, corrected by what is seen.
        let surprise = obs - (x.clone() + v.clone() * DT);
        let v = v + (actions + w.clone()) * DT + surprise.clone() * (0.7 / DT);
        Ok(Tensor::cat(
            vec![
                x + (beliefs.narrow(1, 1, 1)) * DT + surprise.clone(),
                v,
                w + surprise * (0.15 / DT / DT),
                count + 1.0,
            ],
            1,
        ))
    }
    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        if !self.filters {
            return Ok(Tensor::from_floats([[situation.obs[0], 0.0, 0.0]], &self.spec.device));
        }
        let belief = belief_of(self, situation)?;
        self.counts.lock().unwrap().push(belief.clone().narrow(1, 3, 1).into_scalar());
        Ok(belief.narrow(1, 0, 3))
    }
    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        states.narrow(1, 0, 1)
    }
}

fn mpc() -> Mpc {
    let planner = CemConfig { horizon: 12, population: 60, elites: 8, iterations: 3, ..CemConfig::default() };
    Mpc::new(Box::new(planner.init(&actions(), Propagation::MEAN).unwrap()), Replan::EveryStep).unwrap()
}

fn agent(filters: bool, slots: usize) -> (MpcAgent<Observer>, Arc<Mutex<Vec<f32>>>) {
    let model = Observer::new(filters);
    let counts = Arc::clone(&model.counts);
    let reward = reward_fn(|obs: Tensor<2>, _, next: Tensor<2>| {
        -(next.clone().square() + (next - obs).square() * 10.0).squeeze_dim::<1>(1)
    });
    let agent = MpcAgent::new(model, Goal::new(Arc::new(reward)), actions(), mpc());
    (agent.with_more((1..slots).map(|_| mpc()).collect()), counts)
}

#[test]
fn the_filter_decides_whether_the_mass_comes_to_rest() {
    let rows = [[0.1, 0.2, 0.0], [-0.4, 0.5, -0.7], [1.0, -0.3, 0.2]];
    let states = Tensor::from_floats(rows, &Device::flex());
    check_dynamics(&Observer::new(true), states, Tensor::from_floats([[0.5], [-1.0], [0.0]], &Device::flex())).unwrap();
    // Whoever takes speed and wind for 0 is blown away from the goal; the filter knows them after some steps.
    let late = |filters: bool| {
        let (mut agent, _) = agent(filters, 1);
        let found = evaluate(&mut Mass::world(), &mut agent, &start_seeds(3, 1)).unwrap();
        let furthest = |steps: &Vec<Transition>| steps.iter().skip(40).fold(0f32, |m, t| m.max(t.next_obs[0].abs()));
        found.episodes.iter().map(|episode| furthest(&episode.transitions)).fold(0.0, f32::max)
    };
    let [with, without] = [late(true), late(false)];
    assert!(with < 0.15 && without > 0.4, "{with} m from the goal with the filter, {without} m without");
}

#[test]
fn each_slot_follows_its_own_episode_as_it_would_alone() {
    let seeds = start_seeds(5, 7);
    let (mut alone, counts) = agent(true, 1);
    let one = evaluate(&mut Mass::world(), &mut alone, &seeds).unwrap();
    // Longer than what situations remember; each episode begins anew.
    let counts: Vec<f32> = std::mem::take(&mut *counts.lock().unwrap());
    let often = |steps: f32| counts.iter().filter(|count| **count == steps).count();
    assert!(often(0.0) > 0 && often(59.0) == often(0.0) && often(60.0) == 0);
    let (mut side_by_side, _) = agent(true, 3);
    let mut worlds: Vec<World> = (0..3).map(|_| Mass::world()).collect();
    let together = evaluate_together(&mut worlds, &mut side_by_side, &seeds, &mut |_| {}).unwrap();
    for (one, other) in one.episodes.iter().zip(&together.episodes) {
        assert_eq!((one.seed, &one.transitions), (other.seed, &other.transitions));
    }
}

#[test]
fn an_episode_that_began_without_the_model_is_followed_from_what_is_remembered() {
    let (mut agent, counts) = agent(true, 2);
    let mut past = mbrl_env::History::default();
    for t in 0..20_u8 {
        past.push(vec![f32::from(t)], vec![0.5], mbrl_env::MAX_PAST);
    }
    let here = Situation { past: &past, ..Situation::of(&[20.0]) };
    let mut rngs = [Rng::new(1), Rng::new(2)];
    let [first, second] = &mut rngs;
    // One slot in the middle of an episode, one at a beginning.
    let turns = vec![
        Turn { slot: 0, situation: here, rng: first },
        Turn { slot: 1, situation: Situation::of(&[0.0]), rng: second },
    ];
    agent.act_batch(turns, ActMode::Explore).unwrap();
    let mut seen: Vec<f32> = std::mem::take(&mut *counts.lock().unwrap());
    seen.dedup();
    seen.sort_by(f32::total_cmp);
    seen.dedup();
    assert_eq!(seen, [0.0, 16.0]);
    // It goes on from there, by the action that was taken.
    past.push(vec![20.0], vec![0.0], mbrl_env::MAX_PAST);
    agent.act(&Situation { past: &past, ..Situation::of(&[21.0]) }, ActMode::Explore, &mut rngs[0]).unwrap();
    assert!(counts.lock().unwrap().iter().all(|count| *count == 17.0));
}

#[test]
fn an_evaluation_follows_episodes_from_their_beginning() {
    let (mut rng, mut replay) = (Rng::new(3), Replay::new(1, 1, 1000).unwrap());
    let mut world = Mass::world();
    for seed in 0..4 {
        let mut obs = world.reset(Some(seed)).unwrap();
        loop {
            let action = vec![rng.uniform(-2.0, 2.0)];
            let step = world.step(&action).unwrap();
            let t = Transition {
                obs: std::mem::replace(&mut obs, step.obs.clone()),
                action,
                reward: step.reward,
                next_obs: step.obs.clone(),
                terminated: step.terminated,
                truncated: step.truncated,
            };
            replay.push(&t).unwrap();
            if step.episode_over() {
                break;
            }
        }
    }
    let config =
        EvaluateConfig { horizon: 5, levels: vec![], propagation: Some(Propagation::MEAN), ..Default::default() };
    let off = |filters| {
        let model = Observer::new(filters);
        let found = evaluate_model(&model, &replay, &config, &mut Rng::new(0)).unwrap().steps[4].rmse[0];
        // Further back than situations remember.
        assert!(!filters || model.counts.lock().unwrap().contains(&50.0));
        found
    };
    let [with, without] = [off(true), off(false)];
    assert!(with < 0.3 * without, "{with} m after five steps with the filter, {without} m without");
}
