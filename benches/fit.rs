//! Optimizer steps: of an ensemble (gather, forward, backward, Adam; a fit of one epoch, in which one-time work matters
//! little), and of one critic (forward, squared error, backward, Adam) on one thread.
//!
//! `cargo bench -p mbrl-benches --bench fit`. Throughput is in optimizer steps. With the feature `wgpu` or `cuda` also on a GPU:
//! `fit-wgpu`, `fit-cuda`.
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::Device;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, gpus};
use mbrl_env::{Augment, Knowledge, Rng};
use mbrl_model::{
    Dataset, FitConfig, fit,
    mlp::{Adam, AdamConfig, MlpConfig, Pass, Rows, Tape},
};

fn fits(c: &mut Criterion) {
    fits_on(c, "fit", &Device::flex());
    for (name, gpu) in gpus() {
        fits_on(c, &format!("fit-{name}"), &gpu);
    }
}

fn fits_on(c: &mut Criterion, group: &str, device: &Device) {
    let mut group = c.benchmark_group(group);
    group.sample_size(10);
    for (shape, batch_size, id, copies) in [
        (SHAPES[0], 256, "halfcheetah-5x256", false),
        (SHAPES[3], 512, "hand-3x512", false),
        (SHAPES[3], 512, "hand-3x512-copies", true),
    ] {
        const STEPS: usize = 128;
        let mut rng = Rng::new(3);
        let mut column = |width: usize| (0..STEPS * batch_size * width).map(|_| rng.normal()).collect::<Vec<f32>>();
        let data = Dataset::new(column(shape.obs), column(shape.action), column(shape.obs), shape.obs, shape.action)
            .expect("a data set");
        let config = FitConfig { batch_size, max_epochs: 1, holdout: 0.0, ..FitConfig::default() };
        let knowledge = if copies { Knowledge::none().with_augment(Turns) } else { Knowledge::none() };
        let model = shape.knowing(&knowledge, device);
        group.throughput(Throughput::Elements(STEPS as u64));
        group.bench_function(id, |b| {
            b.iter_batched_ref(
                || model.clone(),
                |model| fit(model, &data, &config, &mut Rng::new(1)).expect("a fit"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Six copies of everything: columns of the hand go round.
struct Turns;

impl Augment for Turns {
    fn name(&self) -> &str {
        "turns"
    }
    fn copies(&self) -> usize {
        6
    }
    fn observation(&self, copy: usize, obs: &mut [f32]) {
        obs.rotate_left(copy);
    }
    fn action(&self, copy: usize, action: &mut [f32]) {
        action.rotate_left(copy);
    }
}

/// As in SAC and TD3: two hidden layers of 256 ReLU units on 17 observations and 6 actions, one value, 256 rows.
fn critic(c: &mut Criterion) {
    const BATCH: usize = 256;
    let mut group = c.benchmark_group("fit");
    let mut rng = Rng::new(3);
    let config = MlpConfig::new(17 + 6, vec![256, 256], 1);
    let x: Vec<f32> = (0..BATCH * config.inputs).map(|_| rng.normal()).collect();
    let target: Vec<f32> = (0..BATCH).map(|_| rng.normal()).collect();
    let mut network = config.init_host(&mut rng).expect("a network");
    let mut adam = Adam::new(&network, AdamConfig::default());
    let mut tape = Tape::new();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    group.throughput(Throughput::Elements(1));
    group.bench_function("critic-1x256", |b| {
        pool.install(|| {
            b.iter(|| {
                let y = network.forward(Rows::Shared(&x), Pass::Infer, Some(&mut tape));
                let slope = |(y, target): (&f32, &f32)| 2.0 / BATCH as f32 * (y - target);
                let grad_out: Vec<f32> = y.iter().zip(&target).map(slope).collect();
                network.step(&mut tape, &grad_out, false, &mut adam);
            });
        });
    });
    group.finish();
}

criterion_group!(benches, fits, critic);
criterion_main!(benches);
