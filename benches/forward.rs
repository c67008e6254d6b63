//! One forward pass of an ensemble, `[E, N, in] → [E, N, out]`: the fused CPU engine, in `f32` and with products of
//! bfloat16, beside Burn's flex backend, and a plain matrix product as a measure of the machine.
//!
//! `cargo bench -p mbrl-benches --bench forward`. Throughput is in operations of the matrix products.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, gpus, normal};
use mbrl_env::Situation;
use mbrl_model::{Draw, Dynamics, MemberRule, Precision, Propagation, Start};

fn forward(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("forward");
    group.sample_size(20);
    for shape in SHAPES {
        group.throughput(Throughput::Elements(shape.flop()));
        // One deterministic step in which every member moves every row: the network and little else.
        let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: shape.members }, 0);
        let states = normal(shape.rows, shape.obs, 1, &device);
        let actions: Tensor<3> = normal(shape.rows, shape.action, 2, &device).unsqueeze();
        let mut model = shape.ensemble(&device);
        for (name, engine, precision) in
            [("engine", true, Precision::F32), ("bf16", true, Precision::Bf16), ("flex", false, Precision::F32)]
        {
            model.set_engine(engine);
            model.set_precision(precision);
            group.bench_function(BenchmarkId::new(shape.name, name), |b| {
                b.iter(|| {
                    let start = Start::States(states.clone());
                    black_box(model.rollout(start, actions.clone(), draw).expect("a roll-out").obs)
                });
            });
        }
    }
    group.finish();
}

/// Square products on flex, one on each thread: the capacity of the machine.
fn sgemm(c: &mut Criterion) {
    const N: usize = 1024;
    let device = Device::flex();
    let mut group = c.benchmark_group("sgemm");
    group.sample_size(20);
    for (name, threads) in [("1-thread", 1), ("all-threads", rayon::current_num_threads())] {
        let pairs: Vec<_> =
            (0..threads as u64).map(|i| (normal(N, N, 2 * i, &device), normal(N, N, 2 * i + 1, &device))).collect();
        // Each thread computes its own product: the pool in which it runs has one thread.
        let alone: Vec<_> = pairs
            .iter()
            .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread"))
            .collect();
        group.throughput(Throughput::Elements(2 * (threads * N * N * N) as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                std::thread::scope(|scope| {
                    for ((a, b), pool) in pairs.iter().zip(&alone) {
                        scope.spawn(|| pool.install(|| black_box(a.clone().matmul(b.clone()))));
                    }
                });
            });
        });
    }
    group.finish();
}

/// Roll-outs as planners request them, on a GPU.
fn rollouts(c: &mut Criterion) {
    for (name, device) in gpus() {
        let mut group = c.benchmark_group(format!("rollout-{name}"));
        group.sample_size(10);
        for (id, shape, horizon, candidates, rule, particles) in [
            ("pets-cartpole", SHAPES[2], 15, 350, MemberRule::Ts1, 20),
            ("pets-halfcheetah", SHAPES[0], 30, 350, MemberRule::Ts1, 20),
            ("pddm-hand", SHAPES[3], 7, 700, MemberRule::TsInf, 3),
            ("pets-halfcheetah-x16", SHAPES[0], 30, 16 * 350, MemberRule::Ts1, 20),
            ("pddm-hand-x16", SHAPES[3], 7, 16 * 700, MemberRule::TsInf, 3),
        ] {
            let draw = Draw::new(Propagation { rule, noise: rule == MemberRule::Ts1, particles }, 0);
            let model = shape.ensemble(&device);
            let obs = vec![0.1; shape.obs];
            let actions = normal(horizon * candidates, shape.action, 2, &device);
            let actions = actions.reshape([horizon, candidates, shape.action]);
            group.throughput(Throughput::Elements((horizon * candidates * particles) as u64));
            group.bench_function(id, |b| {
                b.iter(|| {
                    let start = Start::Situation(Situation::of(&obs));
                    let all = model.rollout(start, actions.clone(), draw).expect("a roll-out").obs;
                    // Reading one number waits for the device.
                    all.sum().into_scalar::<f32>()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, forward, rollouts, sgemm);
criterion_main!(benches);
