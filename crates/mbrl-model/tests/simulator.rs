//! A simulator as a model: what a roll-out says is what stepping the environment gives.

use mbrl_env::{Env, EnvError, EnvSpec, Rng, Simulator, Situation, Snapshot, Step, tasks};
use mbrl_model::{Device, Draw, Dynamics, MemberRule, ModelError, Propagation, SimulatorModel, Start, Tensor};

fn plans(horizon: usize, candidates: usize, limit: f32, seed: u64) -> (Vec<f32>, Tensor<3>) {
    let mut rng = Rng::new(seed);
    let values: Vec<f32> = (0..horizon * candidates).map(|_| rng.uniform(-limit, limit)).collect();
    let data = burn::tensor::TensorData::new(values.clone(), [horizon, candidates, 1]);
    (values, Tensor::from_data(data, &Device::flex()))
}

/// Observations, rewards and ends `[H][K]` by stepping a clone for each candidate.
fn by_hand(env: &dyn Simulator, actions: &[f32], horizon: usize, k: usize) -> Vec<(Vec<f32>, f32, bool)> {
    let candidates = actions.len() / horizon;
    let mut env = env.boxed_clone();
    let mut over = false;
    let mut last = Vec::new();
    (0..horizon)
        .map(|t| {
            let mut reward = 0.0;
            if !over {
                let step = env.step(&[actions[t * candidates + k]]).unwrap();
                over = step.episode_over();
                reward = step.reward as f32;
                last = step.obs;
            }
            (last.clone(), reward, over)
        })
        .collect()
}

#[test]
fn a_rollout_is_stepping_a_clone_for_each_candidate() {
    for (name, warm_up, limit) in [("pendulum", 5, 2.0), ("cartpole", 3, 1.0), ("pendulum", 193, 2.0)] {
        // The last one meets the time limit, the cart-pole falls within the horizon.
        let mut env = tasks::make(name).unwrap().env.into_simulator().unwrap();
        let mut obs = env.reset(Some(4)).unwrap();
        for _ in 0..warm_up {
            obs = env.step(&[0.1]).unwrap().obs;
        }
        let (horizon, candidates) = (40, 9);
        let (actions, tensor) = plans(horizon, candidates, limit, 1);
        let model = SimulatorModel::new(env.boxed_clone(), &Device::flex());
        let snapshot = env.save();
        let situation = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
        let mut ends = 0;
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let draw = Draw::new(Propagation::MEAN, 0);
            let out = pool.install(|| model.rollout(Start::Situation(situation), tensor.clone(), draw)).unwrap();
            let width = obs.len();
            let states = out.obs.try_into_vec_as::<f32>().unwrap();
            let rewards = out.reward.unwrap().try_into_vec_as::<f32>().unwrap();
            let over: Vec<bool> = out.terminated.unwrap().into_data().iter::<bool>().collect();
            for k in 0..candidates {
                assert_eq!(states[k * width..(k + 1) * width], obs);
                for (t, (want, reward, end)) in by_hand(&*env, &actions, horizon, k).into_iter().enumerate() {
                    let row = (t + 1) * candidates + k;
                    assert_eq!(states[row * width..(row + 1) * width], want, "{name}, candidate {k}, step {t}");
                    assert_eq!((rewards[t * candidates + k], over[t * candidates + k]), (reward, end));
                    ends += usize::from(end);
                }
            }
        }
        assert_eq!(ends > 0, name == "cartpole" || warm_up == 193);
    }
}

#[test]
fn what_a_simulator_cannot_do_is_said() {
    let mut env = tasks::make("pendulum").unwrap().env.into_simulator().unwrap();
    let obs = env.reset(Some(0)).unwrap();
    let model = SimulatorModel::new(env.boxed_clone(), &Device::flex());
    let (_, actions) = plans(2, 3, 1.0, 0);
    let draw = |particles| Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles }, 0);
    let bare = Situation::of(&obs);
    let result = model.rollout(Start::Situation(bare), actions.clone(), draw(1));
    assert!(matches!(result, Err(ModelError::NeedsSnapshot { .. })));
    let states = Start::States(Tensor::zeros([3, 3], &Device::flex()));
    assert!(matches!(model.rollout(states, actions.clone(), draw(1)), Err(ModelError::Unsupported { .. })));
    let snapshot = env.save();
    let situation = Situation { snapshot: Some(&snapshot), ..bare };
    for particles in [0, 2] {
        let result = model.rollout(Start::Situation(situation), actions.clone(), draw(particles));
        assert!(matches!(result, Err(ModelError::Config { field: "particles", .. })));
    }
    // A bad action of one candidate is an error, and the pool is whole afterwards.
    let bad = Tensor::from_floats([[[f32::NAN], [0.0], [0.0]]], &Device::flex());
    assert!(matches!(model.rollout(Start::Situation(situation), bad, draw(1)), Err(ModelError::Env(_))));
    // Of several it is the first one, whichever thread came first.
    let values: Vec<f32> = (0..200)
        .map(|k| {
            if k < 57 {
                0.0
            } else if k == 57 {
                f32::NAN
            } else {
                f32::INFINITY
            }
        })
        .collect();
    let bad = Tensor::from_data(burn::tensor::TensorData::new(values, [1, 200, 1]), &Device::flex());
    for _ in 0..20 {
        let error = model.rollout(Start::Situation(situation), bad.clone(), draw(1)).unwrap_err().to_string();
        assert!(error.contains("NaN"), "{error}");
    }
    assert!(model.rollout(Start::Situation(situation), actions, draw(1)).is_ok());
}

/// A pendulum whose simulation breaks down under a torque of more than 1.
struct Fragile(Box<dyn Simulator>);

impl Env for Fragile {
    fn spec(&self) -> &EnvSpec {
        self.0.spec()
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.0.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        if action[0] > 1.0 {
            return Err(EnvError::Simulation { time: 0.0, reason: "too strong".into() });
        }
        self.0.step(action)
    }
}

impl Simulator for Fragile {
    fn save(&self) -> Snapshot {
        self.0.save()
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.0.restore(snapshot)
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        Box::new(Self(self.0.boxed_clone()))
    }
}

#[test]
fn a_candidate_whose_simulation_breaks_down_is_worth_nothing_and_spoils_no_other() {
    let mut env = Fragile(tasks::make("pendulum").unwrap().env.into_simulator().unwrap());
    let obs = env.reset(Some(0)).unwrap();
    let snapshot = env.save();
    let model = SimulatorModel::new(env.boxed_clone(), &Device::flex());
    // Four candidates: whole, broken at the first step, at the third, whole.
    let torques = [[0.5, 2.0, 0.5, -1.0], [0.5, 0.0, 0.5, 1.0], [0.5, 0.0, 1.5, 1.0], [0.5, 0.0, 0.0, 1.0]];
    let actions = Tensor::<3>::from_data(torques.map(|row| row.map(|torque| [torque])), &Device::flex());
    let situation = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    let out = model.rollout(Start::Situation(situation), actions, Draw::new(Propagation::MEAN, 0)).unwrap();
    let rewards = out.reward.unwrap().try_into_vec_as::<f32>().unwrap();
    let over: Vec<bool> = out.terminated.unwrap().into_data().iter::<bool>().collect();
    let at = |t: usize, k: usize| (rewards[4 * t + k], over[4 * t + k]);
    for k in [0, 3] {
        assert!((0..4).all(|t| at(t, k).0 < 0.0 && !at(t, k).1), "candidate {k}");
    }
    assert!(at(0, 1).0.is_nan() && (0..4).all(|t| at(t, 1).1));
    assert!(at(1, 2).0 < 0.0 && at(2, 2).0.is_nan() && at(3, 2).1);
    assert!(out.obs.try_into_vec_as::<f32>().unwrap().iter().all(|x| x.is_finite()));
}
