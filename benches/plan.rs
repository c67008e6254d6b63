//! One control step: every iteration of the planner, every roll-out step, sampling, rewards, refit; with products in `f32`
//! and in bfloat16 (`plan-bf16`).
//!
//! `cargo bench -p mbrl-benches --bench plan`. Throughput is in model steps (one particle, one step of the horizon). With the
//! feature `wgpu` or `cuda` also on a GPU: `plan-wgpu`, `plan-cuda`; there `…-x16` has 16 times the candidates.
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{ControlStep, gpus};
use mbrl_model::Precision;

fn plan(c: &mut Criterion) {
    plan_with(c, "plan", ControlStep::all(Precision::F32, &Device::flex()));
    plan_with(c, "plan-bf16", ControlStep::all(Precision::Bf16, &Device::flex()));
    for (name, gpu) in gpus() {
        let all = [ControlStep::all, ControlStep::large].map(|steps| steps(Precision::F32, &gpu));
        plan_with(c, &format!("plan-{name}"), all.into_iter().flatten());
    }
}

fn plan_with(c: &mut Criterion, group: &str, steps: impl IntoIterator<Item = ControlStep>) {
    let mut group = c.benchmark_group(group);
    group.sample_size(10);
    for mut step in steps {
        group.throughput(Throughput::Elements(step.model_steps));
        group.bench_function(step.name.clone(), |b| b.iter(|| step.run()));
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
