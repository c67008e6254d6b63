//! One forward pass of an ensemble, `[E, N, in] → [E, N, out]`: the fused CPU engine, in `f32` and with products of
//! bfloat16, beside Burn's flex backend, and a plain matrix product as the machine's measure.
//!
//! `cargo bench -p mbrl-benches --bench forward`. Throughput is in operations of the matrix products.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, normal};
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

/// Square products on flex, one on each thread: what the machine can do.
fn sgemm(c: &mut Criterion) {
    const N: usize = 1024;
    let device = Device::flex();
    let mut group = c.benchmark_group("sgemm");
    group.sample_size(20);
    for (name, threads) in [("1-thread", 1), ("all-threads", rayon::current_num_threads())] {
        let pairs: Vec<_> =
            (0..threads as u64).map(|i| (normal(N, N, 2 * i, &device), normal(N, N, 2 * i + 1, &device))).collect();
        // A thread's product is its own: one thread in the pool that it runs in.
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

criterion_group!(benches, forward, sgemm);
criterion_main!(benches);
