use burn::tensor::Tolerance;
use mbrl_env::{Rng, Situation};

use super::*;
use crate::{MemberRule, Propagation, check};

fn config(activation: Activation, head: Head) -> EnsembleConfig {
    EnsembleConfig {
        members: 5,
        hidden: vec![24, 17],
        activation,
        head,
        weight_decay: Vec::new(),
        angles: vec![1],
        no_delta: vec![2],
        ..EnsembleConfig::default()
    }
}

/// An ensemble with statistics that are not the identity, as after a fit.
fn ensemble(config: &EnsembleConfig, obs: usize, action: usize, device: &Device, seed: u64) -> Ensemble {
    let mut rng = Rng::new(seed);
    let mut model = config.init(obs, action, device, &mut rng).unwrap();
    let mut column = |width: usize, shift: f32, scale: f32| {
        let rows: Vec<f32> = (0..width * 50).map(|_| shift + scale * rng.normal()).collect();
        Normalizer::of(&rows, width)
    };
    let (inputs, targets) = (column(config.inputs(obs, action), 0.3, 1.7), column(obs, -0.1, 0.4));
    let elites = (0..config.members).collect();
    model.install(model.network.clone(), inputs, targets, elites);
    model
}

fn normal(rows: usize, width: usize, device: &Device, rng: &mut Rng) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * width).map(|_| rng.normal()).collect();
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Devices of this build that the suite runs on.
fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[expect(deprecated, reason = "still one of the backends that users choose")]
        Device::ndarray(),
        #[cfg(feature = "wgpu")]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
    ]
}

#[test]
fn every_activation_and_head_keeps_the_contract_on_every_device() {
    // `check_dynamics` compares the engine with the loop for each propagation, on equal noise.
    for device in devices() {
        for activation in [Activation::Silu, Activation::Relu, Activation::Tanh] {
            for head in [Head::Gaussian, Head::Deterministic] {
                let model = ensemble(&config(activation, head), 4, 2, &device, 1);
                let mut rng = Rng::new(2);
                let (states, actions) = (normal(7, 4, &device, &mut rng), normal(7, 2, &device, &mut rng));
                check::check_dynamics(&model, states.clone(), actions.clone()).unwrap();
                let mut tensors = model.clone();
                tensors.set_engine(false);
                check::check_dynamics(&tensors, states, actions).unwrap();
            }
        }
    }
}

#[test]
fn the_engine_agrees_with_the_loop_on_random_shapes() {
    // Bar: per step and column at most 1e-5 of the column's largest magnitude. Each step starts from equal states.
    let device = Device::flex();
    let mut rng = Rng::new(3);
    for trial in 0..40 {
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
            angles: (0..obs).filter(|_| rng.below(3) == 0).collect(),
            no_delta: (0..obs).filter(|_| rng.below(4) == 0).collect(),
            ..EnsembleConfig::default()
        };
        let fused = ensemble(&config, obs, action, &device, trial);
        let mut looped = fused.clone();
        looped.set_engine(false);
        let candidates = 1 + rng.below(300);
        let states = normal(candidates, obs, &device, &mut rng);
        let actions: Tensor<3> = normal(candidates, action, &device, &mut rng).unsqueeze();
        for (rule, particles) in [
            (MemberRule::Expectation, 1),
            (MemberRule::Ts1, 1),
            (MemberRule::Ts1, 2 * members),
            (MemberRule::TsInf, members),
            (MemberRule::TsInf, 1),
        ] {
            let draw = Draw { propagation: Propagation { members: rule, noise: true, particles }, key: trial, step: 3 };
            let values =
                |m: &Ensemble| to_vec(m.rollout(Start::States(states.clone()), actions.clone(), draw).unwrap().obs);
            let (a, b) = (values(&fused), values(&looped));
            let rows = candidates * particles;
            for column in 0..obs {
                let at = |v: &[f32], r: usize| v[(rows + r) * obs + column];
                let scale = (0..rows).map(|r| at(&b, r).abs()).fold(0f32, f32::max);
                let worst = (0..rows).map(|r| (at(&a, r) - at(&b, r)).abs()).fold(0f32, f32::max);
                assert!(worst <= 1e-5 * scale, "{config:?} {draw:?} column {column}: {worst} of {scale}");
            }
        }
    }
}

#[test]
fn a_whole_rollout_is_the_loop_step_by_step() {
    let device = Device::flex();
    let fused = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 5);
    let mut looped = fused.clone();
    looped.set_engine(false);
    let mut rng = Rng::new(6);
    let actions = normal(6 * 33, 2, &device, &mut rng).reshape([6, 33, 2]);
    for (members, particles) in
        [(MemberRule::TsInf, 10), (MemberRule::Ts1, 10), (MemberRule::Expectation, 1), (MemberRule::Ts1, 1)]
    {
        let draw = Draw::new(Propagation { members, noise: true, particles }, 77);
        let obs = [0.1, -0.2, 0.3, 0.0];
        let run = |m: &Ensemble| m.rollout(Start::Situation(Situation::of(&obs)), actions.clone(), draw).unwrap().obs;
        let (a, b) = (run(&fused), run(&looped));
        assert_eq!(a.dims(), [7, 33 * particles, 4]);
        // Rounding of one step is amplified by the next ones.
        a.into_data().assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(2e-3));
    }
}

#[test]
fn threads_change_no_bit() {
    let device = Device::flex();
    let model = ensemble(&config(Activation::Silu, Head::Gaussian), 4, 2, &device, 5);
    let actions = normal(5 * 700, 2, &device, &mut Rng::new(6)).reshape([5, 700, 2]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let draw = Draw::new(Propagation { members: MemberRule::Ts1, noise: true, particles: 5 }, 1);
        let obs = Situation::of(&[0.0; 4]);
        pool.install(|| to_vec(model.rollout(Start::Situation(obs), actions.clone(), draw).unwrap().obs))
    };
    let one: Vec<u32> = run(1).iter().map(|v| v.to_bits()).collect();
    for threads in [2, 3] {
        assert_eq!(one, run(threads).iter().map(|v| v.to_bits()).collect::<Vec<_>>());
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
    let draw = Draw::new(Propagation { members: MemberRule::Ts1, noise: true, particles: 1 }, 5);
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
    bad(|c| c.angles = vec![4], "angles");
    bad(|c| c.no_delta = vec![1, 1], "no_delta");
    bad(|c| c.min_log_var = 1.0, "min_log_var");
    bad(|c| c.bounds_weight = -1.0, "bounds_weight");
}
