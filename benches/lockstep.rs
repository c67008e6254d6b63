//! Sixteen environments in lockstep: their plans in one batch, only the model steps of these plans, and the plans one by one.
//!
//! `cargo bench -p mbrl-benches --bench lockstep`. The case study's sizes: three members of 2 × 256, 160 candidates of seven steps,
//! a hand with 24 joints. A batch of plans should take little more time than its model steps.
#![allow(missing_docs, reason = "criterion's macros")]

use burn::tensor::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, Shape, normal};
use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
use mbrl_model::{Draw, Dynamics, MemberRule, Propagation, Start};
use mbrl_plan::{LockstepSlot, Mpc, PddmConfig, Problem, Replan, act_in_lockstep};
use rayon::prelude::*;

const ENVIRONMENTS: usize = 16;
const CANDIDATES: usize = 160;
const HORIZON: usize = 7;

fn lockstep(c: &mut Criterion) {
    let device = Device::flex();
    let shape = Shape { hidden: &[256; 2], ..SHAPES[3] };
    let model = shape.ensemble(&device);
    let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: shape.members };
    let actions = ActionSpace::Box(BoxSpace::symmetric(shape.action, 1.0).expect("bounds"));
    let reward = reward_fn(|_, actions: Tensor<2>, next: Tensor<2>| {
        (next.square().sum_dim(1) + actions.square().sum_dim(1) * 0.01).neg().squeeze_dim(1)
    });
    let problem = Problem::new(&model, &actions).with_reward(&reward);
    let config = PddmConfig { horizon: HORIZON, population: CANDIDATES, ..PddmConfig::default() };
    let mpc = || {
        let planner = config.init(&actions, propagation).expect("a planner");
        Mpc::new(Box::new(planner), Replan::EveryStep).expect("a controller")
    };
    let obs: Vec<Vec<f32>> = (0..ENVIRONMENTS).map(|slot| vec![0.1 + 0.01 * slot as f32; shape.obs]).collect();
    let mut mpcs: Vec<Mpc> = (0..ENVIRONMENTS).map(|_| mpc()).collect();
    let mut rngs: Vec<Rng> = (0..ENVIRONMENTS as u64).map(Rng::new).collect();

    let mut group = c.benchmark_group("lockstep");
    group.sample_size(20);
    group.throughput(Throughput::Elements((ENVIRONMENTS * shape.members * CANDIDATES * HORIZON) as u64));
    group.bench_function("plans-16", |b| {
        b.iter(|| {
            let each = mpcs.iter_mut().zip(&obs).zip(&mut rngs);
            let slots = each.map(|((mpc, obs), rng)| LockstepSlot { mpc, situation: Situation::of(obs), rng });
            act_in_lockstep(slots.collect(), &problem)
        });
    });
    group.bench_function("model-steps-16", |b| {
        let candidates = normal(HORIZON * CANDIDATES, shape.action, 1, &device);
        let candidates = candidates.reshape([HORIZON, CANDIDATES, shape.action]);
        b.iter(|| {
            let roll = |obs: &Vec<f32>| {
                let start = Start::Situation(Situation::of(obs));
                model.rollout(start, candidates.clone(), Draw::new(propagation, 3)).expect("a roll-out")
            };
            obs.par_iter().map(roll).collect::<Vec<_>>()
        });
    });
    group.bench_function("one-by-one-16", |b| {
        b.iter(|| {
            let each = mpcs.iter_mut().zip(&obs).zip(&mut rngs);
            each.map(|((mpc, obs), rng)| mpc.act(&Situation::of(obs), &problem, rng)).collect::<Vec<_>>()
        });
    });
    group.finish();
}

criterion_group!(benches, lockstep);
criterion_main!(benches);
