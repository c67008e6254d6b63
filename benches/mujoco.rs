//! Environment steps on MuJoCo, compared with a bare loop over the engine's own step on the same model.
//!
//! `cargo bench -p mbrl-benches --features mujoco --bench mujoco`. Throughput is in environment steps. With
//! `MBRL_PAIRS=31` it does not use Criterion, but alternates both loops as often as given, and prints medians:
//! `benches/mujoco-beside-gymnasium` adds Gymnasium's Python for comparison.
#![allow(missing_docs, reason = "criterion's macros")]

use std::{env, time::Instant};

use criterion::{Criterion, Throughput, criterion_group};
use mbrl_env::{
    Rng, Simulator,
    mujoco::{
        Model, models_folder,
        mujoco_rs::prelude::{MjData, MjModel},
    },
    tasks,
};

/// Name of a task, its model, engine steps per step.
const TASKS: [(&str, &str, u32); 4] = [
    ("HalfCheetah-v5", "half_cheetah.xml", 5),
    ("Hopper-v5", "hopper.xml", 4),
    ("Ant-v5", "ant.xml", 5),
    ("Humanoid-v5", "humanoid.xml", 5),
];
/// Number of steps of an iteration: one episode.
const STEPS: usize = 1000;

/// A task whose episodes all begin alike, so that both loops go through the same states.
fn task(name: &str) -> Box<dyn Simulator> {
    let task = tasks::make_with(name, serde_json::json!({ "reset_noise_scale": 0.0 })).expect("a task");
    task.env.into_simulator().expect("a simulator")
}

/// Random actions within the limits, drawn before the clock starts.
fn actions(env: &dyn Simulator) -> Vec<Vec<f32>> {
    let mut rng = Rng::new(0);
    (0..STEPS).map(|_| env.spec().actions.sample(&mut rng).expect("bounded actions")).collect()
}

/// The environment, with a reset at each end of an episode.
fn ours(env: &mut dyn Simulator, actions: &[Vec<f32>]) {
    env.reset(Some(0)).expect("a reset");
    for action in actions {
        if env.step(action).expect("a step").episode_over() {
            env.reset(None).expect("a reset");
        }
    }
}

/// The engine, with a reset where the environment's episodes end.
fn bare(data: &mut MjData<&MjModel>, actions: &[Vec<f32>], ends: &[bool], frame_skip: u32) {
    data.reset();
    data.forward();
    for (action, end) in actions.iter().zip(ends) {
        for (to, from) in data.ctrl_mut().iter_mut().zip(action) {
            *to = f64::from(*from);
        }
        for _ in 0..frame_skip {
            data.step();
        }
        if *end {
            data.reset();
            data.forward();
        }
    }
}

fn ends(env: &mut dyn Simulator, actions: &[Vec<f32>]) -> Vec<bool> {
    env.reset(Some(0)).expect("a reset");
    let over = |action: &Vec<f32>| {
        let over = env.step(action).expect("a step").episode_over();
        if over {
            env.reset(None).expect("a reset");
        }
        over
    };
    actions.iter().map(over).collect()
}

fn env_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("env-step");
    group.throughput(Throughput::Elements(STEPS as u64));
    for (name, file, frame_skip) in TASKS {
        let mut env = task(name);
        let model = Model::load(models_folder().expect("models").join(file)).expect("a model");
        let actions = actions(&*env);
        let ends = ends(&mut *env, &actions);
        let mut data = MjData::new(&**model.inner());
        group.bench_function(format!("{name}/mbrl"), |b| b.iter(|| ours(&mut *env, &actions)));
        group.bench_function(format!("{name}/bare"), |b| b.iter(|| bare(&mut data, &actions, &ends, frame_skip)));
    }
    group.finish();
}

/// Steps per second of both loops, alternating `pairs` times: with short turns, other work on the machine affects both alike. Medians, and
/// the median of the ratios.
fn print_pairs(pairs: usize) {
    for (name, file, frame_skip) in TASKS {
        let mut env = task(name);
        let model = Model::load(models_folder().expect("models").join(file)).expect("a model");
        let actions = actions(&*env);
        let ends = ends(&mut *env, &actions);
        let mut data = MjData::new(&**model.inner());
        let mut rates = Vec::new();
        for _ in 0..pairs {
            let ours = rate(|| ours(&mut *env, &actions));
            let bare = rate(|| bare(&mut data, &actions, &ends, frame_skip));
            rates.push((ours, bare));
        }
        let mbrl = median(rates.iter().map(|(ours, _)| *ours));
        let bare = median(rates.iter().map(|(_, bare)| *bare));
        let ratio = median(rates.iter().map(|(ours, bare)| ours / bare));
        println!("{name}\t{mbrl:.0}\t{bare:.0}\t{ratio:.3}");
    }
}

fn rate(steps: impl FnOnce()) -> f64 {
    let began = Instant::now();
    steps();
    STEPS as f64 / began.elapsed().as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

criterion_group!(benches, env_step);

fn main() {
    match env::var("MBRL_PAIRS") {
        Ok(pairs) => print_pairs(pairs.parse().expect("a number of pairs")),
        Err(_) => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}
