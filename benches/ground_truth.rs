//! Roll-outs of the simulator as the model, on one thread and on all of them.
//!
//! `cargo bench -p mbrl-benches --bench ground_truth`. Throughput is in steps of the simulator's episodes. The cart-pole's step
//! costs a fraction of a microsecond, so that it shows the overhead of a roll-out; held for 100 steps it costs as much as
//! a physics engine's. The candidates of the last bench terminate after a quarter of the horizon, or continue.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mbrl_env::{ActionRepeat, Rng, Simulator, Situation, TimeLimit, tasks};
use mbrl_model::{Draw, Dynamics, Propagation, SimulatorModel, Start};

const HORIZON: usize = 30;

/// Candidates `[H, K, 1]`; if `uneven`, those of the first half always pull to one side.
fn candidates(population: usize, uneven: bool, device: &Device) -> Tensor<3> {
    let mut rng = Rng::new(0);
    let values: Vec<f32> = (0..HORIZON * population)
        .map(|i| if uneven && i % population < population / 2 { 1.0 } else { rng.uniform(-0.1, 0.1) })
        .collect();
    Tensor::from_data(TensorData::new(values, [HORIZON, population, 1]), device)
}

fn rollout(c: &mut Criterion) {
    let device = Device::flex();
    let make = |name| tasks::make(name).and_then(|task| task.env.into_simulator()).expect("a simulator");
    let cheap = || make("cartpole-swingup");
    let held =
        |env, repeat| TimeLimit::new(ActionRepeat::new(env, repeat).expect("a repetition"), 200).expect("a limit");
    let costly: Box<dyn Simulator> = Box::new(held(tasks::CartPoleSwingup::new(), 100));
    let uneven = make("cartpole");

    let mut group = c.benchmark_group("ground-truth");
    group.sample_size(20);
    for (task, mut env, population, is_uneven) in [
        ("cartpole-swingup", cheap(), 500, false),
        ("cartpole-swingup-held", costly, 40, false),
        ("cartpole", uneven, 500, true),
    ] {
        let obs = env.reset(Some(0)).expect("a start");
        let snapshot = env.save();
        let model = SimulatorModel::new(env, &device);
        let actions = candidates(population, is_uneven, &device);
        group.throughput(Throughput::Elements((HORIZON * population) as u64));
        for (name, threads) in [("1-thread", 1), ("all-threads", rayon::current_num_threads())] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            group.bench_function(BenchmarkId::new(task, name), |b| {
                b.iter(|| {
                    let situation = Situation { snapshot: Some(&snapshot), ..Situation::of(&obs) };
                    let draw = Draw::new(Propagation::MEAN, 0);
                    pool.install(|| black_box(model.rollout(Start::Situation(situation), actions.clone(), draw)))
                        .expect("a roll-out")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, rollout);
criterion_main!(benches);
