//! Updates of SAC as published: 256 × 256 units, two critics, 256 transitions, every part of an update (targets, critics, actor,
//! temperature, target networks) including the sampling of its batch; and complete steps, in which the policy acts and the environment
//! steps too. On one thread. Also the time of an update of DHMBPO, with gradients through 1, 3 and 5 steps of a model (`dhmbpo-update`),
//! and the time of an action of a policy (`policy-act`).
//!
//! `cargo bench -p mbrl-benches --bench sac`. Throughput is in updates. With the feature `wgpu` or `cuda` also with the networks on a GPU:
//! `sac-update-wgpu`, `sac-update-cuda`; `sac-update-flex` is the same in Burn's tensors on the CPU.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::gpus;
use mbrl_env::{ActionSpace, BoxSpace, Env, EnvSpec, Replay, Rng, Situation, Transition, tasks};
use mbrl_model::{Activation, Draw, EnsembleConfig, MemberRule, Propagation};
use mbrl_policy::{
    ActMode, ActorConfig, ActorHead, Agent, CriticsConfig, Goal, Learner, ModelFreeConfig, ModelLookahead, OffPolicy,
    OnDevice, Policy, PolicyDraw, Report, ReportKind, Sac, SacConfig,
};

struct Quiet;

impl Report for Quiet {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

/// Random transitions of an environment with these widths.
fn replay(obs: usize, action: usize, rng: &mut Rng) -> Replay {
    let mut replay = Replay::new(obs, action, 10_000).expect("a replay");
    for _ in 0..10_000 {
        let mut row = |width: usize| (0..width).map(|_| rng.normal()).collect::<Vec<f32>>();
        let (obs, next_obs) = (row(obs), row(obs));
        let action = row(action).iter().map(|a| a.tanh()).collect();
        let reward = f64::from(row(1)[0]);
        let transition = Transition { obs, action, reward, next_obs, terminated: false, truncated: false };
        replay.push(&transition).expect("a transition");
    }
    replay
}

fn updates(c: &mut Criterion) {
    updates_of(c, "sac-update", |sac| Box::new(sac));
    let on = |device: Device| {
        move |sac| -> Box<dyn OffPolicy> { Box::new(OnDevice::new(sac, &device).expect("a learner for devices")) }
    };
    updates_of(c, "sac-update-flex", on(Device::flex()));
    for (name, gpu) in gpus() {
        updates_of(c, &format!("sac-update-{name}"), on(gpu));
    }
}

fn updates_of(c: &mut Criterion, group: &str, learner: impl Fn(Sac) -> Box<dyn OffPolicy>) {
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let dhmbpo =
        CriticsConfig { count: 5, hidden: vec![256; 3], layer_norm: true, dropout: 1e-3, ..CriticsConfig::default() };
    for (id, obs, action, critics) in [
        ("pendulum", 3, 1, CriticsConfig::default()),
        ("halfcheetah", 17, 6, CriticsConfig::default()),
        ("hopper-5-critics", 11, 3, dhmbpo),
    ] {
        let mut rng = Rng::new(3);
        let actions = ActionSpace::Box(BoxSpace::symmetric(action, 1.0).expect("bounds"));
        let spec = EnvSpec::new(id, BoxSpace::unbounded(obs), actions, 0.1);
        let sac = SacConfig::default().init(&spec, &ActorConfig::default(), &critics, &mut rng).expect("a learner");
        let mut sac = learner(sac);
        let replay = replay(obs, action, &mut rng);
        group.bench_function(id, |b| {
            pool.install(|| {
                b.iter(|| {
                    let batch = replay.sample_batch(256, &mut rng).expect("a batch");
                    sac.improve(&batch, None, &mut rng, &mut Quiet).expect("an update");
                });
            });
        });
    }
    group.finish();
}

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("sac-step");
    group.throughput(Throughput::Elements(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let mut rng = Rng::new(3);
    let mut task = tasks::make("pendulum").expect("a task");
    let spec = task.env.spec().clone();
    let sac = SacConfig::default().init(&spec, &ActorConfig::default(), &CriticsConfig::default(), &mut rng);
    let mut agent = ModelFreeConfig::default().init(&spec, sac.expect("a learner")).expect("an agent");
    let mut obs = task.env.reset(Some(0)).expect("a start");
    let mut step = || {
        let action = agent.act(&Situation::of(&obs), ActMode::Explore, &mut rng).expect("an action");
        let step = task.env.step(&action).expect("a step");
        let (terminated, truncated) = (step.terminated, step.truncated);
        let (reward, next_obs) = (step.reward, step.obs.clone());
        let transition = Transition { obs: obs.clone(), action, reward, next_obs, terminated, truncated };
        agent.observe(&transition).expect("room");
        agent.update(&mut rng, &mut Quiet).expect("an update");
        obs = if transition.episode_over() { task.env.reset(None).expect("a start") } else { step.obs };
    };
    (0..500).for_each(|_| step());
    group.bench_function("pendulum", |b| pool.install(|| b.iter(&mut step)));
    group.finish();
}

/// With the networks of `dhmbpo-hopper`, from 256 states: one round of updates.
fn through_the_model(c: &mut Criterion) {
    let mut group = c.benchmark_group("dhmbpo-update");
    group.throughput(Throughput::Elements(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let (hidden, activation) = (vec![256; 3], Activation::Silu);
    for (id, obs, action) in [("hopper", 11, 3), ("halfcheetah", 17, 6)] {
        let mut rng = Rng::new(3);
        let actions = ActionSpace::Box(BoxSpace::symmetric(action, 1.0).expect("bounds"));
        let spec = EnvSpec::new(id, BoxSpace::unbounded(obs), actions, 0.1);
        let actor = ActorConfig { hidden: hidden.clone(), activation, ..ActorConfig::default() };
        let critics = CriticsConfig {
            count: 5,
            hidden: hidden.clone(),
            activation,
            layer_norm: true,
            ..CriticsConfig::default()
        };
        let mut sac = SacConfig::default().init(&spec, &actor, &critics, &mut rng).expect("a learner");
        let model = EnsembleConfig { members: 5, hidden: hidden.clone(), reward: true, ..EnsembleConfig::default() };
        let model = model.init(obs, action, &Device::flex(), &mut rng).expect("a model");
        let (goal, replay) = (Goal::of_model(), replay(obs, action, &mut rng));
        let propagation = Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 };
        for steps in [1, 3, 5] {
            group.bench_function(format!("{id}-{steps}"), |b| {
                pool.install(|| {
                    b.iter(|| {
                        let batch = replay.sample_batch(256, &mut rng).expect("a batch");
                        let draw = Draw::new(propagation, rng.key());
                        let look = ModelLookahead::new(&model, &goal, sac.parts(), &batch.obs, steps, draw);
                        let look = look.expect("a roll-out");
                        sac.improve(look.batch(), Some(&look), &mut rng, &mut Quiet).expect("an update");
                    });
                });
            });
        }
    }
    group.finish();
}

/// The time of an action of a policy: a deterministic actor that gets one observation at a time.
fn acts(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy-act");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let task = tasks::make("cartpole-swingup").expect("a task");
    let spec = task.env.spec();
    for (id, width, layer_norm) in [("128x128", 128, false), ("256x256", 256, false), ("256x256-layer-norm", 256, true)]
    {
        let config = ActorConfig { hidden: vec![width; 2], layer_norm, ..ActorConfig::default() };
        let actor =
            config.init(spec, ActorHead::Deterministic { exploration: 0.1 }, &mut Rng::new(3)).expect("an actor");
        let obs: Vec<f32> = (0..spec.obs.width()).map(|i| 0.1 * i as f32).collect();
        let act = || actor.act(black_box(&obs), ActMode::Evaluate, PolicyDraw::new(0));
        group.bench_function(id, |b| pool.install(|| b.iter(act)));
    }
    group.finish();
}

criterion_group!(benches, updates, steps, through_the_model, acts);
criterion_main!(benches);
