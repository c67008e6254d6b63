//! One forward pass of an ensemble, `[E, N, in] → [E, N, out]`: the fused CPU engine beside Burn's flex backend, and a plain
//! matrix product as the machine's measure.
//!
//! `cargo bench -p mbrl-benches --bench forward`. Throughput is in operations of the matrix products.
#![allow(missing_docs, unsafe_code, reason = "criterion's macros; the call of the gemm crate")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, normal};
use mbrl_model::{Draw, Dynamics, MemberRule, Propagation, Start};

fn forward(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("forward");
    group.sample_size(20);
    for shape in SHAPES {
        group.throughput(Throughput::Elements(shape.flop()));
        // One deterministic step in which every member moves every row: the network and little else.
        let draw = Draw::new(Propagation { members: MemberRule::TsInf, noise: false, particles: shape.members }, 0);
        let states = normal(shape.rows, shape.obs, 1, &device);
        let actions: Tensor<3> = normal(shape.rows, shape.action, 2, &device).unsqueeze();
        let mut model = shape.ensemble(&device);
        for (name, engine) in [("engine", true), ("flex", false)] {
            model.set_engine(engine);
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

/// A square product through the same kernel, on all threads: what the machine can do.
fn sgemm(c: &mut Criterion) {
    const N: usize = 1024;
    let (a, b) = (vec![1.0f32; N * N], vec![0.5f32; N * N]);
    let mut out = vec![0.0f32; N * N];
    let mut group = c.benchmark_group("sgemm");
    group.sample_size(20).throughput(Throughput::Elements(2 * (N * N * N) as u64));
    for (name, parallelism) in
        [("1-thread", gemm::Parallelism::None), ("all-threads", gemm::Parallelism::Rayon(rayon::current_num_threads()))]
    {
        group.bench_function(name, |bench| {
            // SAFETY: three dense N × N matrices, `out` disjoint from the others.
            bench.iter(|| unsafe {
                gemm::gemm(
                    N,
                    N,
                    N,
                    out.as_mut_ptr(),
                    N as isize,
                    1,
                    false,
                    a.as_ptr(),
                    N as isize,
                    1,
                    b.as_ptr(),
                    N as isize,
                    1,
                    0.0f32,
                    1.0f32,
                    false,
                    false,
                    false,
                    parallelism,
                );
                black_box(out[0])
            });
        });
    }
    group.finish();
}

criterion_group!(benches, forward, sgemm);
criterion_main!(benches);
