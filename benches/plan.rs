//! One control step: every iteration of the planner, every roll-out step, sampling, rewards, refit.
//!
//! `cargo bench -p mbrl-benches --bench plan`. Throughput is in model steps (one particle, one step of the horizon). With the
//! feature `wgpu` or `cuda` also on a GPU: `plan-wgpu`, `plan-cuda`.
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::SHAPES;
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{MemberRule, Propagation};
use mbrl_plan::{CemConfig, PddmConfig, Planner, Problem};

fn plan(c: &mut Criterion) {
    plan_on(c, "plan", Device::flex());
    #[cfg(feature = "wgpu")]
    plan_on(c, "plan-wgpu", Device::wgpu(burn::tensor::DeviceKind::DefaultDevice));
    #[cfg(feature = "cuda")]
    plan_on(c, "plan-cuda", Device::cuda(0));
}

fn plan_on(c: &mut Criterion, group: &str, device: Device) {
    // The reward of the comparison with other frameworks: −|s'|² − 0.01 |a|².
    let reward = reward_fn(|_, actions: Tensor<2>, next: Tensor<2>| {
        (next.square().sum_dim(1) + actions.square().sum_dim(1) * 0.01).neg().squeeze_dim(1)
    });
    let mut group = c.benchmark_group(group);
    group.sample_size(10);
    let pets = Propagation { members: MemberRule::Ts1, noise: true, particles: 20 };
    for (id, shape, horizon) in [("pets-cartpole", SHAPES[2], 15), ("pets-halfcheetah", SHAPES[0], 30)] {
        let model = shape.ensemble(&device);
        let actions = ActionSpace::Box(BoxSpace::symmetric(shape.action, 1.0).expect("bounds"));
        let config = CemConfig { horizon, population: 350, elites: 35, variance_stop: 0.0, ..CemConfig::default() };
        let mut planner = config.init(&actions, pets).expect("a planner");
        let problem = Problem::new(&model, &actions).with_reward(&reward);
        let obs = vec![0.1; shape.obs];
        let mut rng = Rng::new(0);
        group.throughput(Throughput::Elements((5 * 350 * 20 * horizon) as u64));
        group.bench_function(id, |b| {
            b.iter(|| {
                planner.reset();
                planner.plan(&Situation::of(&obs), &problem, &mut rng).expect("a plan")
            });
        });
    }

    let shape = SHAPES[3];
    let model = shape.ensemble(&device);
    let actions = ActionSpace::Box(BoxSpace::symmetric(shape.action, 1.0).expect("bounds"));
    let every_member = Propagation { members: MemberRule::TsInf, noise: false, particles: 3 };
    let config = PddmConfig { horizon: 7, population: 700, kappa: 20.0, beta: 0.6, ..PddmConfig::default() };
    let mut planner = config.init(&actions, every_member).expect("a planner");
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let obs = vec![0.1; shape.obs];
    let mut rng = Rng::new(0);
    group.throughput(Throughput::Elements(3 * 700 * 7));
    group.bench_function("pddm-hand", |b| {
        b.iter(|| {
            planner.reset();
            planner.plan(&Situation::of(&obs), &problem, &mut rng).expect("a plan")
        });
    });
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
