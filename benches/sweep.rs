//! How the cost of scoring candidates grows with the population, the horizon, the members and the width of their layers.
//!
//! `cargo bench -p mbrl-benches --bench sweep`. Throughput is in model steps (one particle, one step of the horizon), so that it
//! is constant where the cost is linear.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, Shape};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{MemberRule, Propagation};
use mbrl_plan::{Problem, returns};

/// The cost of a score when one quantity varies and the others have medium values.
const POPULATION: usize = 256;
const HORIZON: usize = 16;

fn sweep(c: &mut Criterion) {
    const WIDTHS: [&[usize]; 5] = [&[32; 4], &[64; 4], &[128; 4], &[256; 4], &[512; 4]];
    let device = Device::flex();
    let reward = reward_fn(|_, actions: Tensor<2>, next: Tensor<2>| {
        (next.square().sum_dim(1) + actions.square().sum_dim(1) * 0.01).neg().squeeze_dim(1)
    });
    let mut group = c.benchmark_group("sweep");
    group.sample_size(10);
    let mut score = |name: &str, value: usize, shape: Shape, population: usize, horizon: usize| {
        let model = shape.ensemble(&device);
        let actions = ActionSpace::Box(BoxSpace::symmetric(shape.action, 1.0).expect("bounds"));
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: shape.members };
        let mut rng = Rng::new(0);
        let values: Vec<f32> = (0..population * horizon * shape.action).map(|_| rng.uniform(-1.0, 1.0)).collect();
        let candidates = Tensor::<3>::from_data(TensorData::new(values, [population, horizon, shape.action]), &device);
        let obs = vec![0.1; shape.obs];
        group.throughput(Throughput::Elements((shape.members * population * horizon) as u64));
        group.bench_function(BenchmarkId::new(name, value), |b| {
            b.iter(|| {
                let candidates = candidates.clone();
                black_box(returns(&problem, &Situation::of(&obs), candidates, propagation, 1).expect("returns"))
            });
        });
    };
    let shape = SHAPES[0];
    for population in [64, 128, 256, 512, 1024] {
        score("population", population, shape, population, HORIZON);
    }
    for horizon in [4, 8, 16, 32, 64] {
        score("horizon", horizon, shape, POPULATION, horizon);
    }
    for members in [1, 2, 4, 8] {
        score("members", members, Shape { members, ..shape }, POPULATION, HORIZON);
    }
    for hidden in WIDTHS {
        score("width", hidden[0], Shape { hidden, ..shape }, POPULATION, HORIZON);
    }
    group.finish();
}

criterion_group!(benches, sweep);
criterion_main!(benches);
