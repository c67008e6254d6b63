//! The parts of a control step besides the network: roll-out noise, rewards, each planner's own work, replay batches.
//!
//! `cargo bench -p mbrl-benches --bench parts`. Throughput is in normals, rows, model steps and transitions.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, normal};
use mbrl_env::{ActionSpace, BoxSpace, Env, Replay, Rng, Situation, Transition, reward_fn, tasks};
use mbrl_model::{Propagation, dynamics_fn, fill_normal};
use mbrl_plan::{
    CemConfig, GradientConfig, IcemConfig, MppiConfig, PddmConfig, Planner, Problem, RandomShootingConfig,
};

fn noise(c: &mut Criterion) {
    let mut group = c.benchmark_group("noise");
    let (rows, width) = (7_000, 17);
    let mut out = vec![0.0; rows * width];
    group.throughput(Throughput::Elements(out.len() as u64));
    group.bench_function("7000x17", |b| b.iter(|| fill_normal(1, 0, 0, width, black_box(&mut out))));
    group.finish();
}

fn reward(c: &mut Criterion) {
    let mut group = c.benchmark_group("reward");
    let device = Device::flex();
    for name in ["cartpole-swingup", "pendulum", "reacher"] {
        let task = tasks::make(name).expect("a task");
        let (obs, action) = (task.env.spec().obs.width(), task.env.spec().actions.width());
        let reward = task.reward.expect("a reward");
        let rows = 10_000;
        let (now, actions) = (normal(rows, obs, 1, &device), normal(rows, action, 2, &device));
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(name, |b| {
            b.iter(|| black_box(reward.reward(now.clone(), actions.clone(), now.clone())));
        });
    }
    group.finish();
}

/// Each planner on a world that costs almost nothing, with 24 action dimensions and 20 steps: sampling, weighting, refitting. The
/// last one uses its gradients.
fn planners(c: &mut Criterion) {
    let device = Device::flex();
    let width = 24;
    let model = dynamics_fn(width, width, &device, |s, a| s + a);
    let reward = reward_fn(|_, _, next: Tensor<2>| next.square().sum_dim(1).neg().squeeze_dim(1));
    let actions = ActionSpace::Box(BoxSpace::symmetric(width, 1.0).expect("bounds"));
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let (horizon, population, iterations, elites) = (20, 500, 3, 50);
    let p = Propagation::MEAN;
    let cem = CemConfig { horizon, population, iterations, elites, variance_stop: 0.0, ..CemConfig::default() };
    let icem = IcemConfig { horizon, population, iterations, elites, population_decay: 1.0, ..IcemConfig::default() };
    let mppi = MppiConfig { horizon, population, iterations, ..MppiConfig::default() };
    let pddm = PddmConfig { horizon, population, ..PddmConfig::default() };
    let shooting = RandomShootingConfig { horizon, population, ..RandomShootingConfig::default() };
    let gradient = GradientConfig { horizon, iterations: 10, ..GradientConfig::default() };
    let all: [(&str, Box<dyn Planner>); 6] = [
        ("cem", Box::new(cem.init(&actions, p).expect("a planner"))),
        ("icem", Box::new(icem.init(&actions, p).expect("a planner"))),
        ("mppi", Box::new(mppi.init(&actions, p).expect("a planner"))),
        ("pddm", Box::new(pddm.init(&actions, p).expect("a planner"))),
        ("random-shooting", Box::new(shooting.init(&actions, p).expect("a planner"))),
        ("gradient", Box::new(gradient.init(&actions, p).expect("a planner"))),
    ];
    let mut group = c.benchmark_group("planner");
    group.sample_size(20);
    let obs = vec![0.1; width];
    for (name, mut planner) in all {
        let mut rng = Rng::new(0);
        let steps = planner.plan(&Situation::of(&obs), &problem, &mut rng).expect("a plan").stats.model_steps;
        group.throughput(Throughput::Elements(steps));
        group.bench_function(name, |b| {
            b.iter(|| {
                planner.reset();
                planner.plan(&Situation::of(&obs), &problem, &mut rng).expect("a plan")
            });
        });
    }
    group.finish();
}

fn replay(c: &mut Criterion) {
    let shape = SHAPES[0];
    let mut replay = Replay::new(shape.obs, shape.action, 100_000).expect("a replay");
    let mut rng = Rng::new(0);
    for _ in 0..100_000 {
        let mut row = |width: usize| (0..width).map(|_| rng.normal()).collect::<Vec<f32>>();
        let transition = Transition {
            obs: row(shape.obs),
            action: row(shape.action),
            reward: 0.0,
            next_obs: row(shape.obs),
            terminated: false,
            truncated: false,
        };
        replay.push(&transition).expect("room");
    }
    let mut group = c.benchmark_group("replay");
    group.throughput(Throughput::Elements(256));
    group.bench_function("sample-256-of-100000", |b| {
        b.iter(|| black_box(replay.sample_batch(256, &mut rng).expect("a batch")));
    });
    group.finish();
}

criterion_group!(benches, noise, reward, planners, replay);
criterion_main!(benches);
