//! Optimizer steps of an ensemble: gather, forward, backward, Adam. A fit of one epoch, so that what it does once weighs little.
//!
//! `cargo bench -p mbrl-benches --bench fit`. Throughput is in optimizer steps.
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::Device;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::SHAPES;
use mbrl_env::Rng;
use mbrl_model::{Dataset, FitConfig, fit};

fn fits(c: &mut Criterion) {
    let mut group = c.benchmark_group("fit");
    group.sample_size(10);
    for (shape, batch_size, id) in [(SHAPES[0], 256, "halfcheetah-5x256"), (SHAPES[3], 512, "hand-3x512")] {
        const STEPS: usize = 128;
        let mut rng = Rng::new(3);
        let mut column = |width: usize| (0..STEPS * batch_size * width).map(|_| rng.normal()).collect::<Vec<f32>>();
        let data = Dataset::new(column(shape.obs), column(shape.action), column(shape.obs), shape.obs, shape.action)
            .expect("a data set");
        let config = FitConfig { batch_size, max_epochs: 1, holdout: 0.0, ..FitConfig::default() };
        let model = shape.ensemble(&Device::flex());
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

criterion_group!(benches, fits);
criterion_main!(benches);
