//! The cost of features: a roll-out of a hand with and without its fingertips, the fingertips alone, and the features of `mbrl-hand`'s tasks.
//!
//! `cargo bench -p mbrl-benches --bench features`. Three members of 2 × 500, 512 candidates of seven steps, 24 joints; the features are
//! the positions of five fingertips by forward kinematics, at the measured and at the commanded joint angles. Before criterion's figures
//! it prints the shares from alternating rounds, which other work on the machine affects less. `hand-features/…` is the time per tile of 32 rows.
#![allow(missing_docs, reason = "criterion's macros")]

use std::{hint::black_box, time::Instant};

use burn::tensor::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mbrl_benches::{SHAPES, normal};
use mbrl_env::{Features, Knowledge, Lanes, Rng, TILE, lanes::sin_cos_of};
use mbrl_hand::task::{BaodingConfig, ReorientConfig, ValveConfig, WriteConfig};
use mbrl_model::{Draw, Dynamics, Ensemble, MemberRule, Propagation, Start};

const CANDIDATES: usize = 512;
const HORIZON: usize = 7;
const ROUNDS: usize = 41;

/// Joints of a finger, in the order of the hand's columns: first the joint in the palm before it (if any), then the sideways one,
/// then three that bend. Then its origin (m) and the lengths of its links.
struct Finger {
    palm: Option<usize>,
    side: usize,
    bends: [usize; 3],
    base: [f32; 2],
    links: [f32; 3],
}

/// Wrist 0 and 1; first, middle and ring finger of four joints, little finger and thumb of five.
const FINGERS: [Finger; 5] = [
    Finger { palm: None, side: 2, bends: [3, 4, 5], base: [0.033, 0.095], links: [0.045, 0.025, 0.026] },
    Finger { palm: None, side: 6, bends: [7, 8, 9], base: [0.011, 0.099], links: [0.045, 0.025, 0.026] },
    Finger { palm: None, side: 10, bends: [11, 12, 13], base: [-0.011, 0.095], links: [0.045, 0.025, 0.026] },
    Finger { palm: Some(14), side: 15, bends: [16, 17, 18], base: [-0.033, 0.086], links: [0.045, 0.025, 0.026] },
    Finger { palm: Some(19), side: 20, bends: [21, 22, 23], base: [0.034, 0.029], links: [0.038, 0.032, 0.027] },
];

/// The five tips in the frame of the forearm, `[15]`, twice.
struct Fingertips;

/// Rotates (x, y) by an angle whose sine and cosine are given.
fn turn(x: &mut Lanes, y: &mut Lanes, sin: &Lanes, cos: &Lanes) {
    for (((x, y), sin), cos) in x.iter_mut().zip(y).zip(sin).zip(cos) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

/// Tips `[15]` of a hand with these joint angles `[24]`.
fn tips(joints: &[Lanes], out: &mut [Lanes]) {
    let of = |angle: &Lanes| {
        let (mut sin, mut cos) = ([0.0; TILE], [0.0; TILE]);
        sin_cos_of(angle, &mut sin, &mut cos);
        (sin, cos)
    };
    let wrist = [of(&joints[0]), of(&joints[1])];
    for (finger, out) in FINGERS.iter().zip(out.chunks_exact_mut(3)) {
        let [x, y, z] = out else { unreachable!("three columns") };
        // In the finger's own plane: along and across.
        let (mut along, mut across, mut bend) = ([0.0; TILE], [0.0; TILE], [0.0; TILE]);
        for (joint, length) in finger.bends.iter().zip(finger.links) {
            for (bend, angle) in bend.iter_mut().zip(&joints[*joint]) {
                *bend += angle;
            }
            let (sin, cos) = of(&bend);
            for r in 0..TILE {
                along[r] += length * cos[r];
                across[r] += length * sin[r];
            }
        }
        let (sin, cos) = of(&joints[finger.side]);
        for r in 0..TILE {
            x[r] = along[r] * sin[r] + finger.base[0];
            y[r] = along[r] * cos[r];
            z[r] = across[r];
        }
        if let Some(palm) = finger.palm {
            let (sin, cos) = of(&joints[palm]);
            turn(x, z, &sin, &cos);
        }
        y.iter_mut().for_each(|y| *y += finger.base[1]);
        turn(y, z, &wrist[0].0, &wrist[0].1);
        turn(x, y, &wrist[1].0, &wrist[1].1);
    }
}

impl Features for Fingertips {
    fn name(&self) -> &str {
        "fingertips-1"
    }
    fn width(&self) -> usize {
        30
    }
    fn tensor(&self, _: Tensor<2>, _: Tensor<2>) -> Tensor<2> {
        unreachable!("this bench rolls out on the engine")
    }
    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]) {
        let (measured, commanded) = out.split_at_mut(15);
        tips(&obs[..24], measured);
        tips(actions, commanded);
    }
    fn pullback(&self, _: &[Lanes], _: &[Lanes], _: &[Lanes], _: &mut [Lanes], _: &mut [Lanes]) {
        unreachable!("this bench rolls out on the engine")
    }
}

fn features(c: &mut Criterion) {
    let (device, shape) = (Device::flex(), SHAPES[3]);
    let plain = shape.ensemble(&device);
    let seeing = shape.knowing(&Knowledge::none().with_features(Fingertips), &device);
    let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: shape.members };
    let start = normal(CANDIDATES, shape.obs, 1, &device);
    let actions = normal(HORIZON * CANDIDATES, shape.action, 2, &device).reshape([HORIZON, CANDIDATES, shape.action]);
    let roll = |model: &Ensemble| {
        let draw = Draw::new(propagation, 3);
        model.rollout(Start::States(start.clone()), actions.clone(), draw).expect("a roll-out")
    };
    // As many tiles as a roll-out has.
    let tiles = shape.members * CANDIDATES.div_ceil(TILE) * HORIZON;
    let mut rng = Rng::new(4);
    let mut lanes =
        |width: usize| -> Vec<Lanes> { (0..width).map(|_| std::array::from_fn(|_| rng.normal())).collect() };
    let (obs, action, mut out) = (lanes(shape.obs), lanes(shape.action), vec![[0.0; TILE]; 30]);
    let mut alone = || {
        for _ in 0..tiles {
            Fingertips.tile(black_box(&obs), black_box(&action), black_box(&mut out));
        }
    };

    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    let mut shares = Vec::new();
    pool.install(|| {
        for _ in 0..ROUNDS {
            let time = |work: &mut dyn FnMut()| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64()
            };
            let without = time(&mut || drop(black_box(roll(&plain))));
            let with = time(&mut || drop(black_box(roll(&seeing))));
            shares.push([with / without - 1.0, time(&mut alone) / with]);
        }
    });
    let median = |of: usize| {
        let mut shares: Vec<f64> = shares.iter().map(|share| share[of]).collect();
        shares.sort_by(f64::total_cmp);
        100.0 * shares[ROUNDS / 2]
    };
    println!(
        "one thread, medians of {ROUNDS} alternating rounds: with fingertips a roll-out takes {:.1} % more; they alone are {:.1} % of it",
        median(0),
        median(1)
    );

    let mut group = c.benchmark_group("features");
    group.sample_size(20);
    group.throughput(Throughput::Elements((shape.members * CANDIDATES * HORIZON) as u64));
    group.bench_function("hand-3x512-without", |b| b.iter(|| pool.install(|| roll(&plain))));
    group.bench_function("hand-3x512-fingertips", |b| b.iter(|| pool.install(|| roll(&seeing))));
    group.bench_function("hand-3x512-alone", |b| b.iter(&mut alone));
    group.finish();
}

/// Features of a tile of the hands' own tasks.
fn hands(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand-features");
    group.throughput(Throughput::Elements(TILE as u64));
    let features: [(&str, Box<dyn Features>); 4] = [
        ("valve", Box::new(ValveConfig::default().features())),
        ("reorient", Box::new(ReorientConfig::default().features())),
        ("write", Box::new(WriteConfig::default().features())),
        ("baoding", Box::new(BaodingConfig::default().features())),
    ];
    let mut rng = Rng::new(5);
    for (task, features) in features {
        // Wider than any observation.
        let mut lanes = || -> Vec<Lanes> { (0..128).map(|_| std::array::from_fn(|_| rng.normal())).collect() };
        let (obs, actions, mut out) = (lanes(), lanes(), vec![[0.0; TILE]; features.width()]);
        group.bench_function(task, |b| {
            b.iter(|| features.tile(black_box(&obs), black_box(&actions), black_box(&mut out)));
        });
    }
    group.finish();
}

criterion_group!(benches, features, hands);
criterion_main!(benches);
