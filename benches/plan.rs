//! One control step: every iteration of the planner, every roll-out step, sampling, rewards, refit; with products in `f32`
//! and of bfloat16 (`plan-bf16`).
//!
//! `cargo bench -p mbrl-benches --bench plan`. Throughput is in model steps (one particle, one step of the horizon). With the
//! feature `wgpu` or `cuda` also on a GPU: `plan-wgpu`, `plan-cuda`.
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::ControlStep;
use mbrl_model::Precision;

fn plan(c: &mut Criterion) {
    plan_on(c, "plan", Precision::F32, &Device::flex());
    plan_on(c, "plan-bf16", Precision::Bf16, &Device::flex());
    #[cfg(feature = "wgpu")]
    plan_on(c, "plan-wgpu", Precision::F32, &Device::wgpu(burn::tensor::DeviceKind::DefaultDevice));
    #[cfg(feature = "cuda")]
    plan_on(c, "plan-cuda", Precision::F32, &Device::cuda(0));
}

fn plan_on(c: &mut Criterion, group: &str, precision: Precision, device: &Device) {
    let mut group = c.benchmark_group(group);
    group.sample_size(10);
    for mut step in ControlStep::all(precision, device) {
        group.throughput(Throughput::Elements(step.model_steps));
        group.bench_function(step.name, |b| b.iter(|| step.run()));
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
