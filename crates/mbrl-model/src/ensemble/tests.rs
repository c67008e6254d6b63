use std::f32::consts::TAU;

use mbrl_env::{AngleColumn, History, MAX_PAST, Rng, Situation};

use super::*;
use crate::{Activation, Emphasis, MemberRule, Propagation, check, mlp::kernel};

#[cfg(feature = "train")]
mod hallucinated;
mod heads;
mod knowledge;
mod mixture;
mod past;
mod precision;

/// With both learned heads and two past steps.
fn extended(config: EnsembleConfig) -> EnsembleConfig {
    EnsembleConfig { reward: true, termination: true, past: 2, ..config }
}

fn config(activation: Activation, head: Head) -> EnsembleConfig {
    EnsembleConfig {
        members: 5,
        hidden: vec![24, 17],
        activation,
        head,
        weight_decay: Vec::new(),
        angles: Angles::radians([1]),
        no_delta: vec![2],
        ..EnsembleConfig::default()
    }
}

/// An ensemble with statistics that are not the identity and biases that are not 0, as after a fit.
fn ensemble(config: &EnsembleConfig, obs: usize, action: usize, device: &Device, seed: u64) -> Ensemble {
    let mut rng = Rng::new(seed);
    let mut model = config.init(obs, action, device, &mut rng).unwrap();
    let mut column = |width: usize, shift: f32, scale: f32| {
        let rows: Vec<f32> = (0..width * 50).map(|_| shift + scale * rng.normal()).collect();
        Normalizer::of(&rows, width)
    };
    let (inputs, targets) = (column(config.inputs(obs, action), 0.3, 1.7), column(config.targets(obs), -0.1, 0.4));
    let elites = (0..config.members).collect();
    let mut network = model.network.clone();
    // Those of a new network are all 0.
    for bias in &mut network.biases {
        let [members, _, width] = bias.val().dims();
        let drawn = normal(members, width, device, &mut rng) * 0.1;
        *bias = burn::module::Param::from_tensor(drawn.reshape([members, 1, width]));
    }
    model.install(network, inputs, targets, elites);
    model
}

fn normal(rows: usize, width: usize, device: &Device, rng: &mut Rng) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * width).map(|_| rng.normal()).collect();
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Bar: per column at most 1e-5 of the column's largest magnitude; a NaN is off.
fn assert_columns_near(a: &[f32], b: &[f32], width: usize) {
    assert_eq!(a.len(), b.len());
    for column in 0..width {
        let at = |v: &[f32]| v.iter().skip(column).step_by(width).copied().collect::<Vec<_>>();
        let (a, b) = (at(a), at(b));
        let scale = b.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (x, y) in a.iter().zip(&b) {
            assert!((x - y).abs() <= 1e-5 * scale, "column {column}: {x} and {y}, magnitude {scale}");
        }
    }
}

/// Devices of this build that the suite runs on.
fn devices() -> Vec<Device> {
    let gpus = [
        #[cfg(feature = "wgpu")]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        Device::cuda(0),
    ];
    cpus().into_iter().chain(gpus).collect()
}

fn cpus() -> Vec<Device> {
    vec![
        Device::flex(),
        #[expect(deprecated, reason = "still one of the backends that users choose")]
        Device::ndarray(),
    ]
}

/// Ends that differ: a probability may lie on 1/2 but for rounding.
fn differing(a: &[bool], b: &[bool]) -> usize {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a != b).count()
}

fn to_bools<const D: usize>(tensor: Tensor<D, Bool>) -> Vec<bool> {
    to_vec(tensor.float()).iter().map(|&end| end == 1.0).collect()
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[test]
fn the_fused_kernel_of_a_gpu_gives_the_roll_outs_of_single_steps() {
    use crate::dynamics::Chunk;

    let jump = AngleColumn { column: 0, turn: 2.5, wraps: true };
    let angles = Angles::Columns(vec![jump, AngleColumn { column: 3, turn: 360.0, wraps: false }]);
    let gaussian = EnsembleConfig { members: 5, hidden: vec![30, 70], ..EnsembleConfig::default() };
    let turning = EnsembleConfig { angles, reward: true, termination: true, ..gaussian.clone() };
    let deterministic = EnsembleConfig {
        head: Head::Deterministic,
        activation: Activation::Relu,
        hidden: vec![260],
        termination: true,
        no_delta: vec![1],
        ..gaussian.clone()
    };
    let [elu, mish, tanh] = [Activation::Elu, Activation::Mish, Activation::Tanh].map(|activation| EnsembleConfig {
        activation,
        reward: true,
        ..gaussian.clone()
    });
    for device in devices().into_iter().filter(|device| !crate::is_cpu(device)) {
        for config in [&gaussian, &turning, &deterministic, &elu, &mish, &tanh] {
            let model = ensemble(config, 5, 2, &device, 1);
            assert!(model.fused().is_some(), "{device:?}: {config:?}");
            let mut tensors = model.clone();
            tensors.set_engine(false);
            assert!(tensors.fused().is_none());
            let mut rng = Rng::new(2);
            // Not a multiple of any tile.
            let (horizon, candidates) = (4, 77);
            let starts = normal(candidates, 5, &device, &mut rng);
            let actions = normal(horizon * candidates, 2, &device, &mut rng).reshape([horizon, candidates, 2]);
            for (rule, particles) in [(MemberRule::Ts1, 10), (MemberRule::TsInf, 5)] {
                for noise in [true, false] {
                    let draw = Draw::new(Propagation { rule, noise, particles }, 3).at_step(2);
                    let chunk = draw.in_chunk(Chunk { first: 100, population: 1000 });
                    let one = [0.3, -0.1, 0.4, 0.2, 0.0];
                    for (draw, single) in [(draw, false), (chunk, true)] {
                        let roll = |m: &Ensemble| {
                            let start = match single {
                                true => Start::Situation(Situation::of(&one)),
                                false => Start::States(starts.clone()),
                            };
                            m.rollout(start, actions.clone(), draw).unwrap()
                        };
                        let (fused, looped) = (roll(&model), roll(&tensors));
                        // Rounding grows with the steps.
                        let near = |a: Vec<f32>, b: Vec<f32>, what: &str| {
                            assert_eq!(a.len(), b.len());
                            let far = a.iter().zip(&b).filter(|(a, b)| !((**a - **b).abs() <= 2e-4 * b.abs().max(1.0)));
                            // An angle may jump on one side of a turn and not on the other.
                            assert!(far.count() <= a.len() / 500, "{device:?}: {what} of {config:?}, {draw:?}");
                        };
                        near(to_vec(fused.obs), to_vec(looped.obs), "observations");
                        assert_eq!(fused.reward.is_some(), config.reward);
                        if let (Some(fused), Some(looped)) = (fused.reward, looped.reward) {
                            near(to_vec(fused), to_vec(looped), "rewards");
                        }
                        assert_eq!(fused.terminated.is_some(), config.termination);
                        if let (Some(fused), Some(looped)) = (fused.terminated, looped.terminated) {
                            assert!(differing(&to_bools(fused), &to_bools(looped)) <= 2);
                        }
                    }
                }
            }
        }
    }
}

/// Reads must wait for the kernel, large roll-outs included.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[test]
#[ignore = "slow on a CPU that plays a GPU"]
fn a_large_fused_roll_out_is_complete_when_it_is_read() {
    let config = EnsembleConfig { members: 5, hidden: vec![200; 4], ..EnsembleConfig::default() };
    for device in devices().into_iter().filter(|device| !crate::is_cpu(device)) {
        let model = ensemble(&config, 17, 6, &device, 1);
        let mut tensors = model.clone();
        tensors.set_engine(false);
        let mut rng = Rng::new(2);
        let (horizon, candidates) = (10, 2000);
        let actions = normal(horizon * candidates, 6, &device, &mut rng).reshape([horizon, candidates, 6]) * 0.1;
        let draws = [3, 4].map(|key| Draw::new(Propagation { rule: MemberRule::Ts1, noise: true, particles: 20 }, key));
        let roll = |m: &Ensemble, draw: Draw, last: bool| {
            let start = Start::Situation(Situation::of(&[0.1; 17]));
            let obs = m.rollout(start, actions.clone(), draw).unwrap().obs;
            let rows = obs.dims()[1];
            to_vec(if last { obs.narrow(0, horizon, 1).narrow(1, rows - 1, 1) } else { obs })
        };
        let whole = draws.map(|draw| {
            let (fused, looped) = (roll(&model, draw, false), roll(&tensors, draw, false));
            let off =
                fused.iter().zip(&looped).filter(|(a, b)| !((**a - **b).abs() <= 1e-3 * b.abs().max(1.0))).count();
            assert_eq!(off, 0, "{device:?}: numbers that differ, of {}", fused.len());
            fused
        });
        for i in 0..20 {
            let last = roll(&model, draws[i % 2], true);
            assert_eq!(last, whole[i % 2][whole[0].len() - 17..], "{device:?}");
        }
    }
}

#[test]
fn every_activation_and_head_keeps_the_contract_on_every_device() {
    // `check_dynamics` compares a roll-out with single steps for each propagation, on equal noise; then the engine is
    // compared with Burn's tensors.
    for device in devices() {
        for activation in [Activation::Silu, Activation::Relu, Activation::Tanh] {
            for head in [Head::Gaussian, Head::Deterministic] {
                let plain = config(activation, head);
                // A jump within the range of the rows, and an angle that is no radian.
                let jump = AngleColumn { column: 0, turn: 2.5, wraps: true };
                let angles = Angles::Columns(vec![jump, AngleColumn { column: 3, turn: 360.0, wraps: false }]);
                let turning = EnsembleConfig { angles, ..extended(plain.clone()) };
                let pays = EnsembleConfig { reward: true, ..plain.clone() };
                let variance = if head == Head::Gaussian { Variance::Column } else { Variance::Input };
                let even = EnsembleConfig { variance, ..plain.clone() };
                for config in [pays, turning, even, extended(plain.clone()), plain] {
                    let model = ensemble(&config, 4, 2, &device, 1);
                    let width = model.spec.state;
                    let mut rng = Rng::new(2);
                    let (states, actions) = (normal(7, width, &device, &mut rng), normal(7, 2, &device, &mut rng));
                    check::check_dynamics(&model, states.clone(), actions.clone()).unwrap();
                    let mut tensors = model.clone();
                    tensors.set_engine(false);
                    check::check_dynamics(&tensors, states.clone(), actions.clone()).unwrap();
                    assert_eq!(model.engine.is_some(), cpus().contains(&device), "{device:?}");
                    assert!(tensors.engine.is_none());
                    for members in [MemberRule::Expectation, MemberRule::Ts1, MemberRule::TsInf, MemberRule::Ds] {
                        let draw = Draw::new(Propagation { rule: members, noise: true, particles: 1 }, 3);
                        let step = |m: &Ensemble| m.sample(states.clone(), actions.clone(), draw).unwrap();
                        let (fused, looped) = (step(&model), step(&tensors));
                        assert_columns_near(&to_vec(fused.next), &to_vec(looped.next), width);
                        assert_eq!(
                            (fused.reward.is_some(), fused.terminated.is_some()),
                            (config.reward, config.termination)
                        );
                        if let (Some(fused), Some(looped)) = (fused.reward, looped.reward) {
                            assert_columns_near(&to_vec(fused), &to_vec(looped), 1);
                        }
                        if let (Some(fused), Some(looped)) = (fused.terminated, looped.terminated) {
                            assert_eq!(differing(&to_bools(fused), &to_bools(looped)), 0);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_engine_agrees_with_the_loop_on_random_shapes() {
    let device = Device::flex();
    let mut rng = Rng::new(3);
    let mut terminations = 0;
    for trial in 0..60 {
        let (obs, action) = (1 + rng.below(9), 1 + rng.below(5));
        let activation = [Activation::Silu, Activation::Relu, Activation::Tanh][rng.below(3)];
        let head = [Head::Gaussian, Head::Deterministic][rng.below(2)];
        let members = 1 + rng.below(5);
        let config = EnsembleConfig {
            members,
            hidden: (0..rng.below(4)).map(|_| 1 + rng.below(90)).collect(),
            activation,
            head,
            weight_decay: Vec::new(),
            angles: Angles::Columns(
                (0..obs)
                    .filter(|_| rng.below(3) == 0)
                    .map(|column| AngleColumn { turn: [TAU, 3.0][column % 2], ..AngleColumn::radians(column) })
                    .collect(),
            ),
            no_delta: (0..obs).filter(|_| rng.below(4) == 0).collect(),
            reward: rng.below(2) == 0,
            termination: rng.below(2) == 0,
            past: rng.below(3),
            ..EnsembleConfig::default()
        };
        let mut config = config;
        if let Angles::Columns(angles) = &mut config.angles {
            angles.iter_mut().for_each(|angle| angle.wraps = !config.no_delta.contains(&angle.column));
        }
        let mut fused = ensemble(&config, obs, action, &device, trial);
        // Some of the members, in any order.
        let elites: Vec<usize> = rng.permutation(members).into_iter().take(1 + rng.below(members)).collect();
        let members = elites.len();
        fused.install(fused.network.clone(), fused.inputs.clone(), fused.targets.clone(), elites);
        assert!(fused.engine.is_some());
        let mut looped = fused.clone();
        looped.set_engine(false);
        let candidates = 1 + rng.below(300);
        let states = normal(candidates, fused.spec.state, &device, &mut rng);
        let actions: Tensor<3> = normal(candidates, action, &device, &mut rng).unsqueeze();
        for (rule, particles) in [
            (MemberRule::Expectation, 1),
            (MemberRule::Ts1, 1),
            (MemberRule::Ts1, 2 * members),
            (MemberRule::TsInf, members),
            (MemberRule::TsInf, 1),
            (MemberRule::Ds, 3),
        ] {
            let propagation = Propagation { rule, noise: true, particles };
            let draw = Draw::new(propagation, trial).at_step(3);
            let run = |m: &Ensemble| m.rollout(Start::States(states.clone()), actions.clone(), draw).unwrap();
            let (a, b) = (run(&fused), run(&looped));
            let rows = candidates * particles;
            for all in [&a, &b] {
                assert_eq!((all.reward.is_some(), all.terminated.is_some()), (config.reward, config.termination));
            }
            assert_columns_near(&to_vec(a.obs)[rows * obs..], &to_vec(b.obs)[rows * obs..], obs);
            if let (Some(a), Some(b)) = (a.reward, b.reward) {
                assert_columns_near(&to_vec(a), &to_vec(b), 1);
            }
            if let (Some(a), Some(b)) = (a.terminated, b.terminated) {
                let (a, b) = (to_bools(a), to_bools(b));
                assert_eq!(differing(&a, &b), 0);
                terminations += a.iter().filter(|end| **end).count();
            }
        }
    }
    assert!(terminations > 1000, "{terminations} rows of all trials terminate: too few to compare");
}

#[test]
fn a_whole_rollout_is_the_loop_step_by_step() {
    let device = Device::flex();
    let plain = config(Activation::Silu, Head::Gaussian);
    for config in [extended(plain.clone()), plain] {
        let fused = ensemble(&config, 4, 2, &device, 5);
        let mut looped = fused.clone();
        looped.set_engine(false);
        let mut rng = Rng::new(6);
        let actions = normal(6 * 33, 2, &device, &mut rng).reshape([6, 33, 2]);
        let mut past = History::default();
        past.push(vec![0.5, -0.4, 0.1, 0.7], vec![0.3, -0.9], 2);
        for (members, particles) in [
            (MemberRule::TsInf, 10),
            (MemberRule::Ts1, 10),
            (MemberRule::Expectation, 1),
            (MemberRule::Ts1, 1),
            (MemberRule::Ds, 3),
        ] {
            let draw = Draw::new(Propagation { rule: members, noise: true, particles }, 77);
            let here = Situation { past: &past, ..Situation::of(&[0.1, -0.2, 0.3, 0.0]) };
            let run = |m: &Ensemble| m.rollout(Start::Situation(here), actions.clone(), draw).unwrap();
            let a = run(&fused);
            assert_eq!(a.obs.dims(), [7, 33 * particles, 4]);
            assert_eq!((a.reward.is_some(), a.terminated.is_some()), (config.reward, config.termination));
            let at = |t| a.obs.clone().narrow(0, t, 1).squeeze_dim::<2>(0);
            // Each step of the loop goes on from where the engine had come to: nothing amplifies the rounding of a step.
            let mut state = looped.encode(&here).unwrap().repeat_dim(0, 33 * particles);
            assert_eq!(to_vec(looped.observe(state.clone())), to_vec(at(0)));
            for t in 0..6 {
                let now = actions.clone().narrow(0, t, 1).squeeze_dim::<2>(0).repeat_dim(0, particles);
                let step = looped.sample(state.clone(), now.clone(), draw.later(t)).unwrap();
                assert_columns_near(&to_vec(at(t + 1)), &to_vec(looped.observe(step.next)), 4);
                if let (Some(a), Some(b)) = (&a.reward, step.reward) {
                    assert_columns_near(&to_vec(a.clone().narrow(0, t, 1)), &to_vec(b), 1);
                }
                if let (Some(a), Some(b)) = (&a.terminated, step.terminated) {
                    assert_eq!(differing(&to_bools(a.clone().narrow(0, t, 1)), &to_bools(b)), 0, "step {t}");
                }
                state = looped.shifted(state, now, at(t + 1));
            }
        }
    }
}

#[test]
fn chunks_of_a_population_are_those_of_the_whole() {
    let device = Device::flex();
    let model = ensemble(&extended(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 5);
    let (horizon, population) = (5, 75);
    let actions = normal(horizon * population, 2, &device, &mut Rng::new(6)).reshape([horizon, population, 2]);
    for (members, particles) in [
        (MemberRule::Ts1, 5),
        (MemberRule::TsInf, 10),
        (MemberRule::TsInf, 1),
        (MemberRule::Expectation, 1),
        (MemberRule::Ds, 2),
    ] {
        let draw = Draw::new(Propagation { rule: members, noise: true, particles }, 1);
        let run = |from: usize, count: usize, draw| {
            let here = Start::Situation(Situation::of(&[0.0; 4]));
            let all = model.rollout(here, actions.clone().narrow(1, from, count), draw).unwrap();
            let by_particle = |x: Tensor<3>, width| x.reshape([horizon + 1, particles, count * width]);
            (by_particle(all.obs, 4), all.reward.unwrap().reshape([horizon, particles, count]))
        };
        let whole = run(0, population, draw);
        for (from, count) in [(0, 32), (32, 32), (64, 11), (7, 1)] {
            let chunk = run(from, count, draw.in_chunk(Chunk { first: from, population }));
            assert_eq!(to_vec(chunk.0), to_vec(whole.0.clone().narrow(2, from * 4, count * 4)), "{members:?}");
            assert_eq!(to_vec(chunk.1), to_vec(whole.1.clone().narrow(2, from, count)), "{members:?}");
        }
    }
    // About as many as a cache holds, in whole tiles, at least one.
    assert_eq!(model.chunk_size(15, 20).unwrap() % kernel::TILE, 0);
    assert_eq!(model.chunk_size(1_000, 1_000), Some(kernel::TILE));
    let mut looped = model;
    looped.set_engine(false);
    assert_eq!(looped.chunk_size(15, 20), None);
}

#[test]
fn threads_change_no_bit() {
    let device = Device::flex();
    let model = ensemble(&extended(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 5);
    let actions = normal(5 * 700, 2, &device, &mut Rng::new(6)).reshape([5, 700, 2]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let draw = Draw::new(Propagation { rule: MemberRule::Ts1, noise: true, particles: 5 }, 1);
        let obs = Situation::of(&[0.0; 4]);
        let run = || model.rollout(Start::Situation(obs), actions.clone(), draw).unwrap();
        pool.install(|| to_vec(Tensor::cat(vec![run().obs.flatten::<1>(0, 2), run().reward.unwrap().flatten(0, 1)], 0)))
    };
    let one: Vec<u32> = run(1).iter().map(|v| v.to_bits()).collect();
    for threads in [2, 3] {
        assert_eq!(one, run(threads).iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
}

#[test]
fn no_rows_are_no_rows() {
    let device = Device::flex();
    let mut model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 5);
    for engine in [true, false] {
        model.set_engine(engine);
        for (members, particles) in [(MemberRule::Ts1, 10), (MemberRule::Ts1, 1), (MemberRule::Ds, 2)] {
            let draw = Draw::new(Propagation { rule: members, noise: true, particles }, 1);
            let none = |width| Tensor::<2>::zeros([0, width], &device);
            assert_eq!(model.sample(none(4), none(2), draw).unwrap().next.dims(), [0, 4], "{members:?}, {engine}");
        }
    }
}

#[test]
fn elites_alone_are_drawn_from() {
    for device in devices() {
        let mut model = ensemble(&config(Activation::Tanh, Head::Deterministic), 4, 2, &device, 8);
        let (states, actions) = (normal(3, 4, &device, &mut Rng::new(1)), normal(3, 2, &device, &mut Rng::new(2)));
        let of = |model: &Ensemble| to_vec(model.predict(states.clone(), actions.clone()).unwrap().mean);
        let mut single = Vec::new();
        for member in 0..5 {
            model.install(model.network.clone(), model.inputs.clone(), model.targets.clone(), vec![member]);
            single.push(of(&model));
        }
        model.install(model.network.clone(), model.inputs.clone(), model.targets.clone(), vec![4, 1]);
        assert_eq!(model.spec().members, 2);
        for (i, v) in of(&model).iter().enumerate() {
            let want = 0.5 * (single[4][i] + single[1][i]);
            assert!((v - want).abs() < 1e-5, "{v} {want}");
        }
        check::check_dynamics(&model, states, actions).unwrap();
    }
}

#[test]
fn spread_is_what_the_members_say() {
    // By hand: the epistemic part is the members' standard deviation, the aleatoric part the root of their mean variance.
    let device = Device::flex();
    let mut model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
    let (states, actions) = (normal(1, 4, &device, &mut Rng::new(1)), normal(1, 2, &device, &mut Rng::new(2)));
    let whole = model.predict(states.clone(), actions.clone()).unwrap();
    let (mut means, mut variances) = (Vec::new(), Vec::new());
    for member in 0..5 {
        model.install(model.network.clone(), model.inputs.clone(), model.targets.clone(), vec![member]);
        let one = model.predict(states.clone(), actions.clone()).unwrap();
        assert!(one.epistemic_std.is_none());
        means.push(to_vec(one.mean));
        variances.push(to_vec(one.aleatoric_std.unwrap().square()));
    }
    for d in 0..4 {
        let mean = means.iter().map(|m| m[d]).sum::<f32>() / 5.0;
        let spread = (means.iter().map(|m| (m[d] - mean).powi(2)).sum::<f32>() / 5.0).sqrt();
        let noise = (variances.iter().map(|v| v[d]).sum::<f32>() / 5.0).sqrt();
        assert!((to_vec(whole.epistemic_std.clone().unwrap())[d] - spread).abs() < 1e-5);
        assert!((to_vec(whole.aleatoric_std.clone().unwrap())[d] - noise).abs() < 1e-5);
    }
}

#[test]
fn imagined_noise_has_the_predicted_spread() {
    let device = Device::flex();
    let mut model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
    model.install(model.network.clone(), model.inputs.clone(), model.targets.clone(), vec![2]);
    let (state, action) = (normal(1, 4, &device, &mut Rng::new(1)), normal(1, 2, &device, &mut Rng::new(2)));
    let one = model.predict(state.clone(), action.clone()).unwrap();
    let rows = 20_000;
    let draw = Draw::new(Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 }, 5);
    let next = model.sample(state.repeat_dim(0, rows), action.repeat_dim(0, rows), draw).unwrap().next;
    let (mean, std) = (to_vec(one.mean), to_vec(one.aleatoric_std.unwrap()));
    let values = to_vec(next);
    for d in 0..4 {
        let m = values.iter().skip(d).step_by(4).sum::<f32>() / rows as f32;
        let s = (values.iter().skip(d).step_by(4).map(|v| (v - m).powi(2)).sum::<f32>() / rows as f32).sqrt();
        // Standard error of the mean 0.7 % of the spread, of the spread 0.5 %; five of each.
        assert!((m - mean[d]).abs() < 0.036 * std[d] && (s / std[d] - 1.0).abs() < 0.026, "{m} {s} {mean:?} {std:?}");
    }
}

#[test]
fn a_nan_in_a_state_is_not_hidden() {
    let device = Device::flex();
    for activation in [Activation::Silu, Activation::Relu, Activation::Tanh] {
        let model = ensemble(&config(activation, Head::Deterministic), 4, 2, &device, 4);
        let states = Tensor::from_floats([[f32::NAN, 0.0, 0.0, 0.0], [0.0; 4]], &device);
        let draw = Draw::new(Propagation::MEAN, 0);
        let next = to_vec(model.sample(states, Tensor::zeros([2, 2], &device), draw).unwrap().next);
        assert!(next[..4].iter().any(|v| v.is_nan()) && next[4..].iter().all(|v| v.is_finite()));
    }
}

#[test]
fn bits_survive_saving() {
    for device in devices() {
        let model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
        let bytes = model.save().unwrap();
        let mut back = model.config.init(4, 2, &device, &mut Rng::new(99)).unwrap();
        back.load(&bytes).unwrap();
        let (states, actions) = (normal(3, 4, &device, &mut Rng::new(1)), normal(3, 2, &device, &mut Rng::new(2)));
        let of = |m: &Ensemble| to_vec(m.predict(states.clone(), actions.clone()).unwrap().mean);
        assert_eq!(of(&model), of(&back));
        assert_eq!(back.save().unwrap().len(), bytes.len());

        let mut other = EnsembleConfig { hidden: vec![24, 18], ..model.config.clone() }
            .init(4, 2, &device, &mut Rng::new(0))
            .unwrap();
        assert!(matches!(other.load(&bytes), Err(ModelError::Record { .. })));
        let before = of(&back);
        for cut in [0, 5, 11, 40, bytes.len() / 2, bytes.len() - 1] {
            assert!(back.load(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(of(&back), before, "a failed load changed the model");
    }
}

#[test]
fn wrong_widths_are_refused() {
    let device = Device::flex();
    let model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
    let zeros = |n, w| Tensor::<2>::zeros([n, w], &device);
    let draw = Draw::new(Propagation::MEAN, 0);
    for (s, a) in [(zeros(3, 5), zeros(3, 2)), (zeros(3, 4), zeros(3, 1)), (zeros(3, 4), zeros(2, 2))] {
        assert!(matches!(model.predict(s.clone(), a.clone()), Err(ModelError::Width { .. })));
        assert!(matches!(model.sample(s, a, draw), Err(ModelError::Width { .. })));
    }
    let start = Situation::of(&[0.0; 3]);
    assert!(matches!(
        model.rollout(Start::Situation(start), Tensor::zeros([2, 3, 2], &device), draw),
        Err(ModelError::Width { expected: 4, actual: 3, .. })
    ));
    let nan = Situation::of(&[0.0, f32::NAN, 0.0, 0.0]);
    assert!(model.rollout(Start::Situation(nan), Tensor::zeros([2, 3, 2], &device), draw).is_err());
}

#[test]
fn each_rule_of_the_configuration_is_checked() {
    let bad = |change: fn(&mut EnsembleConfig), field: &str| {
        let mut config = config(Activation::Silu, Head::Gaussian);
        change(&mut config);
        match config.init(4, 2, &Device::flex(), &mut Rng::new(0)) {
            Err(ModelError::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    };
    bad(|c| c.members = 0, "members");
    bad(|c| c.elites = 6, "elites");
    bad(|c| c.hidden = vec![10, 0], "hidden");
    bad(|c| c.weight_decay = vec![0.1], "weight_decay");
    bad(|c| c.weight_decay = vec![0.1, f32::NAN, 0.0], "weight_decay");
    bad(|c| c.angles = Angles::radians([4]), "angles");
    bad(|c| c.angles = Angles::radians([3, 1]), "angles");
    fn turn(turn: f32, wraps: bool) -> Angles {
        Angles::Columns(vec![AngleColumn { column: 1, turn, wraps }])
    }
    bad(|c| c.angles = turn(0.0, false), "angles");
    bad(|c| c.angles = turn(f32::NAN, false), "angles");
    bad(|c| (c.angles, c.no_delta) = (turn(360.0, true), vec![1]), "no_delta");
    bad(|c| c.no_delta = vec![1, 1], "no_delta");
    bad(|c| c.emphasis.columns = vec![4], "emphasis.columns");
    bad(|c| c.emphasis = Emphasis { columns: vec![1], weight: 0.0 }, "emphasis.weight");
    bad(|c| c.emphasis.columns = vec![1], "emphasis");
    bad(|c| c.emphasis.weight = 2.0, "emphasis");
    bad(|c| c.min_log_var = 1.0, "min_log_var");
    bad(|c| c.bounds_weight = -1.0, "bounds_weight");
    bad(|c| (c.head, c.variance) = (Head::Deterministic, Variance::Column), "variance");
    bad(|c| c.nll_beta = 1.5, "nll_beta");
    bad(|c| (c.head, c.nll_beta) = (Head::Deterministic, 0.5), "nll_beta");
    bad(|c| c.nll_beta = f32::NAN, "nll_beta");
    bad(|c| c.past = MAX_PAST + 1, "past");
    let most = EnsembleConfig { past: MAX_PAST, ..config(Activation::Silu, Head::Gaussian) };
    most.validate(4).unwrap();
    let told = EnsembleConfig { past: 99, ..most }.validate(4).unwrap_err().to_string();
    assert!(told.contains(&format!("at most {MAX_PAST} ")), "{told}");
}

#[test]
fn a_nan_log_variance_is_not_hidden() {
    let device = Device::flex();
    let mut model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
    // The log-variance of the first output alone is NaN.
    let mut network = model.network.clone();
    let last = network.biases.pop().unwrap();
    let mut values = to_vec(last.val());
    values.iter_mut().skip(4).step_by(8).for_each(|v| *v = f32::NAN);
    network.biases.push(burn::module::Param::from_data(TensorData::new(values, [5, 1, 8]), &device));
    model.install(network, model.inputs.clone(), model.targets.clone(), (0..5).collect());
    for engine in [true, false] {
        model.set_engine(engine);
        let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: true, particles: 1 }, 0);
        let next =
            to_vec(model.sample(Tensor::zeros([5, 4], &device), Tensor::zeros([5, 2], &device), draw).unwrap().next);
        for row in next.chunks(4) {
            assert!(row[0].is_nan() && row[1..].iter().all(|v| v.is_finite()), "engine {engine}: {row:?}");
        }
    }
}

#[test]
fn weights_with_another_meaning_are_refused() {
    let device = Device::flex();
    let model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
    let bytes = model.save().unwrap();
    let refused = |change: fn(&mut EnsembleConfig)| {
        let mut config = model.config.clone();
        change(&mut config);
        let mut other = config.init(4, 2, &device, &mut Rng::new(0)).unwrap();
        assert!(matches!(other.load(&bytes), Err(ModelError::Storage(_))), "{config:?}");
    };
    refused(|c| c.activation = Activation::Tanh);
    refused(|c| c.angles = Angles::radians([0]));
    refused(|c| c.no_delta = vec![]);
    refused(|c| c.normalize_targets = true);
    refused(|c| c.variance = Variance::Column);
    // One output more in both, but not the same one.
    let with =
        |reward, termination| EnsembleConfig { reward, termination, ..config(Activation::Silu, Head::Deterministic) };
    let pays = with(true, false).init(4, 2, &device, &mut Rng::new(0)).unwrap();
    let mut ends = with(false, true).init(4, 2, &device, &mut Rng::new(0)).unwrap();
    assert!(matches!(ends.load(&pays.save().unwrap()), Err(ModelError::Storage(_))));
    let mut remembers =
        EnsembleConfig { past: 1, ..model.config.clone() }.init(4, 2, &device, &mut Rng::new(0)).unwrap();
    assert!(matches!(remembers.load(&bytes), Err(ModelError::Record { .. })));
}

#[test]
fn files_from_before_there_were_heads_are_read() {
    let device = Device::flex();
    let mut model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 4);
    let bytes = model.save().unwrap();
    let (magic, rest) = bytes.split_at(8);
    let (length, rest) = rest.split_at(4);
    let (header, rest) = rest.split_at(u32::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    for field in ["reward", "termination", "past"] {
        assert!(header["config"].as_object_mut().unwrap().remove(field).is_some());
    }
    let header = serde_json::to_vec(&header).unwrap();
    let old = [magic, &(header.len() as u32).to_le_bytes(), &header, rest].concat();
    model.load(&old).unwrap();
    assert_eq!(model.save().unwrap()[12..40], bytes[12..40]);
    let mut pays =
        EnsembleConfig { reward: true, ..model.config.clone() }.init(4, 2, &device, &mut Rng::new(0)).unwrap();
    assert!(matches!(pays.load(&old), Err(ModelError::Record { .. })));
}

#[cfg(feature = "train")]
mod trained {
    use mbrl_env::{Replay, Transition};

    use super::*;
    use crate::{Dataset, Fit, FitConfig, fit};

    #[test]
    fn the_trainer_sees_the_features_that_predictions_see() {
        let device = Device::flex();
        let plain = EnsembleConfig {
            angles: Angles::radians([1, 3]),
            normalize_targets: true,
            ..config(Activation::Silu, Head::Gaussian)
        };
        for config in [extended(plain.clone()), plain] {
            let mut rng = Rng::new(1);
            let mut model = config.init(4, 2, &device, &mut rng).unwrap();
            // Three episodes, the first of one step, and their situations as an agent meets them.
            let mut replay = Replay::new(4, 2, 100).unwrap();
            let (mut states, mut actions, mut now, mut next) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for length in [1, 2, 9] {
                let mut past = History::default();
                for step in 0..length {
                    let mut row = |width: usize| (0..width).map(|_| rng.normal()).collect::<Vec<f32>>();
                    let (obs, action, next_obs) = (row(4), row(2), row(4));
                    let here = Situation { past: &past, ..Situation::of(&obs) };
                    states.push(model.encode(&here).unwrap());
                    now.extend(&obs);
                    actions.extend(&action);
                    next.extend(&next_obs);
                    past.push(obs.clone(), action.clone(), 16);
                    let (reward, terminated) = (f64::from(step), step + 1 == length);
                    let t = Transition { obs, action, reward, next_obs, terminated, truncated: false };
                    replay.push(&t).unwrap();
                }
            }
            let states = Tensor::cat(states, 0);
            let tensor =
                |rows: &[f32], width| Tensor::<2>::from_data(TensorData::new(rows.to_vec(), [12, width]), &device);
            let (examples, statistics) = model.prepare(&Dataset::of_replay(&replay, config.past).unwrap()).unwrap();
            let network = model.network.clone();
            model.finish(network, statistics, &[0.0; 5]);
            let inputs = config.inputs(4, 2);
            let features = model.network_inputs(states, tensor(&actions, 2));
            let pairs = examples.pairs();
            assert_columns_near(&to_vec(pairs.inputs.clone()), &to_vec(features), inputs);
            // Targets undone: the change, or for column 2 the value itself; then rewards and ends.
            let width = config.targets(4);
            let targets = pairs.targets.clone().narrow(1, 0, width) * model.device_weights.target_std.clone();
            let targets = targets + model.device_weights.target_mean.clone();
            let back = targets.clone().narrow(1, 0, 4) + tensor(&now, 4) * model.device_weights.delta.clone();
            assert_columns_near(&to_vec(back), &next, 4);
            if config.reward {
                let steps: Vec<f32> = [1, 2, 9].iter().flat_map(|&n| (0..n).map(|t| t as f32)).collect();
                assert_columns_near(&to_vec(targets.narrow(1, 4, 1)), &steps, 1);
                let ends: Vec<f32> = (0..12).map(|row| f32::from(u8::from([0, 2, 11].contains(&row)))).collect();
                assert_eq!(to_vec(pairs.targets.clone().narrow(1, 5, 1)), ends);
            }
        }
    }

    #[test]
    fn the_loss_is_the_one_by_hand() {
        // Two members, no hidden layer, one input of width 1 + 1, one output: ŷ = w·x + b in plain numbers.
        let config = EnsembleConfig {
            members: 2,
            hidden: vec![],
            weight_decay: vec![0.3],
            angles: Angles::NONE,
            no_delta: vec![],
            ..config(Activation::Silu, Head::Gaussian)
        };
        let device = Device::flex();
        let model = config.init(1, 1, &device, &mut Rng::new(3)).unwrap();
        let w = to_vec(model.network.weights[0].val()); // [2, 2, 2]
        let (x, y) = ([[0.5f32, -1.0], [0.2, 0.7]], [0.3f32, -0.4]);
        let softplus = |v: f64| v.exp().ln_1p();
        let mut want = 0.01 * (0.5 + 10.0) + w.iter().map(|w| 0.15 * f64::from(*w).powi(2)).sum::<f64>();
        for e in 0..2 {
            let out = |k: usize| f64::from(x[e][0] * w[e * 4 + k] + x[e][1] * w[e * 4 + 2 + k]);
            let below = 0.5 - softplus(0.5 - out(1));
            let log_var = -10.0 + softplus(below + 10.0);
            want += (out(0) - f64::from(y[e])).powi(2) * (-log_var).exp() + log_var;
        }
        let inputs = Tensor::<2>::from_floats(x, &device).reshape([2, 1, 2]);
        let targets = Tensor::<1>::from_floats(y, &device).reshape([2, 1, 1]);
        let got = model.loss_of(&model.network, inputs, targets).into_scalar::<f32>();
        assert!((f64::from(got) - want).abs() < 1e-5, "{got} {want}");
    }

    #[test]
    fn the_loss_of_rewards_and_ends_is_the_one_by_hand() {
        // One member, no hidden layer; outputs: means of the change and the reward, their log-variances, the logit.
        let device = Device::flex();
        let (x, y) = ([0.5f32, -1.0], [0.3f32, -0.4, 1.0]);
        let softplus = |v: f64| v.exp().ln_1p();
        for head in [Head::Gaussian, Head::Deterministic] {
            let bare = EnsembleConfig {
                members: 1,
                hidden: vec![],
                angles: Angles::NONE,
                no_delta: vec![],
                ..Default::default()
            };
            let emphasis = Emphasis { columns: vec![0], weight: 3.0 };
            let config = EnsembleConfig { head, reward: true, termination: true, bounds_weight: 0.0, emphasis, ..bare };
            let model = config.init(1, 1, &device, &mut Rng::new(3)).unwrap();
            let w = to_vec(model.network.weights[0].val()); // [1, 2, outputs]
            let outputs = config.outputs(1);
            let out = |k: usize| f64::from(x[0] * w[k] + x[1] * w[outputs + k]);
            let mut likelihoods = 0.0;
            let mut squares = Vec::new();
            for (d, &y) in y.iter().enumerate().take(2) {
                let bounded = |raw: f64| -10.0 + softplus(0.5 - softplus(0.5 - raw) + 10.0);
                let log_var = if head == Head::Gaussian { bounded(out(2 + d)) } else { 0.0 };
                let square = (out(d) - f64::from(y)).powi(2);
                likelihoods += 0.5 * [3.0, 1.0][d] * (square * (-log_var).exp() + log_var);
                squares.push(square);
            }
            let probability = 1.0 / (1.0 + (-out(outputs - 1)).exp());
            // Twice the mean over two columns of negative log-likelihoods, that of the end among them.
            let weight = if head == Head::Gaussian { 10.0 } else { 1.0 };
            let want = likelihoods - weight * probability.ln();
            let inputs = Tensor::<1>::from_floats(x, &device).reshape([1, 1, 2]);
            let targets = Tensor::<1>::from_floats(y, &device).reshape([1, 1, 3]);
            let got = model.loss_of(&model.network, inputs.clone(), targets.clone()).into_scalar::<f32>();
            assert!((f64::from(got) - want).abs() < 1e-5, "{head:?}: {got} {want}");
            let errors = to_vec(model.error_of(&model.network, [inputs.squeeze_dim(0), targets.squeeze_dim(0)]));
            squares.push((1.0 - probability).powi(2));
            assert_eq!(errors.len(), 3);
            for (error, want) in errors.iter().zip(squares) {
                assert!((f64::from(*error) - want).abs() < 1e-5, "{head:?}: {error} {want}");
            }
        }
    }

    #[test]
    fn data_without_what_is_learned_is_refused() {
        let device = Device::flex();
        let data = Dataset::new(vec![0.0; 8], vec![0.0; 4], vec![0.0; 8], 2, 1).unwrap();
        let bare = EnsembleConfig { hidden: vec![4], ..EnsembleConfig::default() };
        let refused = |config: &EnsembleConfig, data: &Dataset| {
            let mut model = config.init(2, 1, &device, &mut Rng::new(0)).unwrap();
            fit(&mut model, data, &FitConfig::default(), &mut Rng::new(0)).unwrap_err().to_string()
        };
        let reward = EnsembleConfig { reward: true, ..bare.clone() };
        assert_eq!(refused(&reward, &data), "the model learns rewards, the data has none");
        let termination = EnsembleConfig { termination: true, ..bare.clone() };
        let paid = data.with_rewards(vec![0.0; 4]).unwrap();
        assert_eq!(refused(&termination, &paid), "the model learns terminations, the data has none");
        let past = EnsembleConfig { past: 2, ..bare };
        assert_eq!(refused(&past, &paid), "past steps of the data = 0: expected 2");
    }

    #[test]
    fn bounds_are_learned_where_asked_and_otherwise_stay() {
        let device = Device::flex();
        let mut rng = Rng::new(1);
        let mut column = |width: usize| (0..200 * width).map(|_| rng.normal()).collect::<Vec<f32>>();
        let data = Dataset::new(column(4), column(2), column(4), 4, 2).unwrap();
        for learn_bounds in [true, false] {
            let config = EnsembleConfig { learn_bounds, ..config(Activation::Silu, Head::Gaussian) };
            let mut model = config.init(4, 2, &device, &mut Rng::new(2)).unwrap();
            fit(&mut model, &data, &FitConfig { max_epochs: 3, ..FitConfig::default() }, &mut Rng::new(3)).unwrap();
            let unchanged = to_vec(model.network.max_log_var.val()).iter().all(|v| *v == 0.5)
                && to_vec(model.network.min_log_var.val()).iter().all(|v| *v == -10.0);
            assert_eq!(unchanged, !learn_bounds);
        }
    }
}
