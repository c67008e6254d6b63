//! One control step: every iteration of the planner, every roll-out step, sampling, rewards, refit; with products in `f32`
//! and of bfloat16 (`plan-bf16`).
//!
//! `cargo bench -p mbrl-benches --bench plan`. Throughput is in model steps (one particle, one step of the horizon). With the
//! feature `wgpu` or `cuda` also on a GPU: `plan-wgpu`, `plan-cuda`. `…-x16` has 16 times the candidates.
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{ControlStep, gpus};
use mbrl_model::Precision;

fn plan(c: &mut Criterion) {
    plan_on(c, "plan", Precision::F32, &Device::flex());
    plan_on(c, "plan-bf16", Precision::Bf16, &Device::flex());
    for (name, gpu) in gpus() {
        plan_on(c, &format!("plan-{name}"), Precision::F32, &gpu);
    }
}

fn plan_on(c: &mut Criterion, group: &str, precision: Precision, device: &Device) {
    let mut group = c.benchmark_group(group);
    group.sample_size(10);
    for mut step in ControlStep::all(precision, device).into_iter().chain(ControlStep::large(precision, device)) {
        group.throughput(Throughput::Elements(step.model_steps));
        group.bench_function(step.name.clone(), |b| b.iter(|| step.run()));
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
