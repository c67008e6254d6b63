//! One control step: every iteration of the planner, every roll-out step, sampling, rewards, refit; with products in `f32`
//! and of bfloat16 (`plan-bf16`).
//!
//! `cargo bench -p mbrl-benches --bench plan`. Throughput is in model steps (one particle, one step of the horizon).
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::ControlStep;
use mbrl_model::Precision;

fn plan(c: &mut Criterion) {
    for (name, precision) in [("plan", Precision::F32), ("plan-bf16", Precision::Bf16)] {
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        for mut step in ControlStep::all(precision, &Device::flex()) {
            group.throughput(Throughput::Elements(step.model_steps));
            group.bench_function(step.name, |b| b.iter(|| step.run()));
        }
        group.finish();
    }
}

criterion_group!(benches, plan);
criterion_main!(benches);
