//! Ground-truth planning with a hand, compared with the engine alone on the same candidates, and environment steps with a bare loop.
//!
//! `cargo bench -p mbrl-benches --features mujoco --bench hand`. Both sides alternate, `MBRL_PAIRS` times (default 5), on all threads; medians.
#![allow(missing_docs, reason = "a program")]

use std::{
    env,
    sync::{Arc, Mutex},
    time::Instant,
};

use burn::tensor::Device;
use mbrl_env::{
    Env, EnvError, EnvSpec, Rng, Simulator, Situation, Snapshot, Step,
    mujoco::{
        MujocoEnv,
        mujoco_rs::prelude::{MjData, MjModel, MjtState},
    },
};
use mbrl_hand::{
    Servo,
    task::{BaodingConfig, ReorientConfig, ValveConfig, WriteConfig},
};
use mbrl_model::{Propagation, SimulatorModel};
use mbrl_plan::{PddmConfig, Planner, Problem};
use rayon::prelude::*;

const STATE: u32 = MjtState::mjSTATE_INTEGRATION as u32;
/// Number of environment steps per turn.
const STEPS: usize = 60;
/// Number of engine steps per environment step.
const SKIP: usize = 25;

type Sequences = Arc<Mutex<Vec<Vec<Vec<f32>>>>>;

/// A simulator that records its calls.
struct Spy {
    inside: Box<dyn Simulator>,
    now: Vec<Vec<f32>>,
    all: Sequences,
}

impl Spy {
    fn write_down(&mut self) {
        if !self.now.is_empty() {
            self.all.lock().expect("no panic").push(std::mem::take(&mut self.now));
        }
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        self.write_down();
    }
}

impl Env for Spy {
    fn spec(&self) -> &EnvSpec {
        self.inside.spec()
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.inside.reset(seed)
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.now.push(action.to_vec());
        self.inside.step(action)
    }
}

impl Simulator for Spy {
    fn save(&self) -> Snapshot {
        self.inside.save()
    }
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.write_down();
        self.inside.restore(snapshot)
    }
    fn boxed_clone(&self) -> Box<dyn Simulator> {
        Box::new(Self { inside: self.inside.boxed_clone(), now: Vec::new(), all: self.all.clone() })
    }
}

fn plan(model: &SimulatorModel, env: &MujocoEnv, config: &PddmConfig, situation: &Situation<'_>) {
    let mut planner = config.init(&env.spec().actions, Propagation::MEAN).expect("a planner");
    let problem = Problem::new(model, &env.spec().actions).with_after_termination(-500.0);
    planner.plan(situation, &problem, &mut Rng::new(1)).expect("a plan");
}

fn engine(data: &mut MjData<Arc<MjModel>>, servo: &Servo, state: &[f64], actions: &[Vec<f32>]) {
    data.set_state(state, STATE).expect("a state");
    let width = servo.width();
    let mut commands = vec![0.0; width];
    for action in actions {
        servo.commands(action, &data.qpos()[..width], &mut commands);
        data.ctrl_mut().copy_from_slice(&commands);
        for _ in 0..SKIP {
            data.step();
        }
    }
}

fn seconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(name: &str, mut env: MujocoEnv, servo: &Servo, config: &PddmConfig, pairs: usize) {
    let obs = env.reset(Some(0)).expect("a start");
    let snapshot = env.save();
    let situation = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
    let all = Sequences::default();
    let spy = Spy { inside: env.boxed_clone(), now: Vec::new(), all: all.clone() };
    {
        let model = SimulatorModel::new(Box::new(spy), &Device::flex());
        plan(&model, &env, config, &situation);
    }
    let sequences = all.lock().expect("no panic").clone();
    let count: usize = sequences.iter().map(Vec::len).sum();
    let model = SimulatorModel::new(env.boxed_clone(), &Device::flex());
    let state = env.sim().data().state(STATE);
    let pool: Mutex<Vec<MjData<Arc<MjModel>>>> = Mutex::default();
    let bare = || {
        sequences.par_iter().with_max_len(1).for_each(|actions| {
            let idle = pool.lock().expect("no panic").pop();
            let mut data = idle.unwrap_or_else(|| env.sim().data().clone());
            engine(&mut data, servo, &state, actions);
            pool.lock().expect("no panic").push(data);
        });
    };
    // Clones are made before the clock starts.
    plan(&model, &env, config, &situation);
    bare();
    let mut plans = Vec::new();
    for _ in 0..pairs {
        plans.push((seconds(|| plan(&model, &env, config, &situation)), seconds(bare)));
    }
    let mut rng = Rng::new(0);
    let quiet: Vec<Vec<f32>> =
        (0..STEPS).map(|_| (0..servo.width()).map(|_| rng.uniform(-0.1, 0.1)).collect()).collect();
    let mut data = env.sim().data().clone();
    let mut steps = Vec::new();
    for _ in 0..pairs {
        let ours = seconds(|| {
            env.restore(&snapshot).expect("its own");
            quiet.iter().for_each(|action| drop(env.step(action).expect("a step")));
        });
        steps.push((ours, seconds(|| engine(&mut data, servo, &state, &quiet))));
    }
    let ratio = |pairs: &[(f64, f64)]| median(pairs.iter().map(|(ours, bare)| ours / bare).collect());
    let ours = |pairs: &[(f64, f64)]| median(pairs.iter().map(|(ours, _)| *ours).collect());
    println!(
        "{name}: a control step of {count} environment steps {:.0} ms, {:.3} x the engine alone; {:.0} environment steps/s, {:.3} x a bare loop's",
        ours(&plans) * 1e3,
        ratio(&plans),
        STEPS as f64 / ours(&steps),
        1.0 / ratio(&steps)
    );
}

fn main() {
    let pairs = env::var("MBRL_PAIRS").ok().and_then(|pairs| pairs.parse().ok()).unwrap_or(5);
    let pddm = |population: usize, sigma: f32, beta: f32, kappa: f32| PddmConfig {
        population,
        sigma,
        beta,
        kappa,
        keep_mean: true,
        quiet_share: 0.1,
        ..PddmConfig::default()
    };
    let valve = ValveConfig::default();
    measure("valve", valve.init("valve").expect("a task"), &valve.servo(), &pddm(100, 0.9, 0.7, 0.5), pairs);
    let baoding = BaodingConfig::default();
    let env = baoding.init("baoding").expect("a task");
    measure("baoding", env, &baoding.servo(), &pddm(200, 0.5, 0.6, 20.0), pairs);
    let reorient = ReorientConfig::default();
    let env = reorient.init("reorient").expect("a task");
    measure("reorient", env, &reorient.servo(), &pddm(200, 0.5, 0.6, 10.0), pairs);
    let write = WriteConfig::default();
    measure("write", write.init("write").expect("a task"), &write.servo(), &pddm(150, 0.3, 0.5, 5.0), pairs);
}
