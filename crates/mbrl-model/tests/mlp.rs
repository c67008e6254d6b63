//! The CPU's networks beside their definition as a Burn module, and beside finite differences.

use burn::{
    module::Module,
    optim::{AdamConfig as BurnAdam, GradientsParams},
    tensor::{Device, Tensor, TensorData},
};
use mbrl_model::{
    Activation, Rng,
    mlp::{Adam, AdamConfig, HostMlp, Mlp, MlpConfig, Pass, Rows, Tape},
};

const PASS: Pass = Pass::Train { key: 7 };

fn normals(count: usize, rng: &mut Rng) -> Vec<f32> {
    (0..count).map(|_| rng.normal()).collect()
}

/// Shapes that fill tiles, panels and lanes, and that do not; every activation, with layer norm and dropout and without.
fn configs() -> Vec<(MlpConfig, usize)> {
    let shapes: [(usize, usize, &[usize], usize, usize); 6] = [
        (1, 1, &[], 1, 1),
        (3, 2, &[7], 5, 33),
        (23, 1, &[64, 64], 1, 64),
        (5, 5, &[17, 24, 13], 11, 40),
        (2, 2, &[131, 12], 12, 5),
        // Large enough for several threads.
        (37, 2, &[150, 70], 3, 96),
    ];
    let activations = [Activation::Relu, Activation::Silu, Activation::Tanh, Activation::Elu, Activation::Mish];
    let mut configs = Vec::new();
    for (i, (inputs, members, hidden, outputs, batch)) in shapes.into_iter().enumerate() {
        for (j, (layer_norm, dropout)) in [(false, 0.0), (true, 0.0), (false, 0.3), (true, 0.2)].into_iter().enumerate()
        {
            configs.push((
                MlpConfig {
                    members,
                    activation: activations[(i + j) % activations.len()],
                    layer_norm,
                    dropout,
                    ..MlpConfig::new(inputs, hidden.to_vec(), outputs)
                },
                batch,
            ));
        }
    }
    configs
}

/// Parameters that are no one's initial ones: biases, gains and shifts matter too.
fn network(config: &MlpConfig, rng: &mut Rng) -> HostMlp {
    let mut host = config.init_host(rng).unwrap();
    let moved: Vec<f32> = host.parameters().iter().map(|p| p + 0.2 * rng.normal()).collect();
    host.set_parameters(&moved);
    host
}

fn tensor(values: &[f32], shape: [usize; 3]) -> Tensor<3> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn near(what: &str, a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len(), "{what}");
    let scale = b.iter().fold(1e-3f32, |scale, value| scale.max(value.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what} [{i}]: {a} and {b}, magnitude {scale}");
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Parameters of a module in the order of the host's.
fn flat(mlp: &Mlp, of: impl Fn(&Tensor<3>) -> Tensor<3>) -> Vec<f32> {
    let mut all = Vec::new();
    for (l, (weight, bias)) in mlp.weights.iter().zip(&mlp.biases).enumerate() {
        all.extend(values(of(&weight.val())));
        all.extend(values(of(&bias.val())));
        if let (Some(gain), Some(shift)) = (mlp.gains.get(l), mlp.shifts.get(l)) {
            all.extend(values(of(&gain.val())));
            all.extend(values(of(&shift.val())));
        }
    }
    all
}

#[test]
fn outputs_gradients_and_steps_are_those_of_autodiff() {
    for (trial, (config, batch)) in configs().into_iter().enumerate() {
        let mut rng = Rng::new(trial as u64);
        let mut host = network(&config, &mut rng);
        let layers = config.hidden.len() + 1;
        let (inputs, outputs, members) = (config.inputs, config.outputs, config.members);
        let x = normals(members * batch * inputs, &mut rng);
        let target = normals(members * batch * outputs, &mut rng);
        let decay = if trial % 2 == 0 { vec![0.01; layers] } else { Vec::new() };
        let settings = AdamConfig { learning_rate: 3e-3, decay: decay.clone(), ..AdamConfig::default() };
        let mut adam = Adam::new(&host, settings);
        let mut burn_adam = BurnAdam::new().with_epsilon(1e-8).init();
        let mut mlp = host.to_mlp(&Device::flex()).train();
        let mut tape = Tape::new();
        for step in 0..3u64 {
            let pass = Pass::Train { key: step };
            let name = |what: &str| format!("{what} at step {step}, batch {batch} of {config:?}");
            let y = host.forward(Rows::Own(&x), pass, Some(&mut tape));
            let inputs_tensor = tensor(&x, [members, batch, inputs]).autodiff().require_grad();
            let burn_y = mlp.forward(inputs_tensor.clone(), pass);
            near(&name("outputs"), &y, &values(burn_y.clone().inner()), 2e-5);

            let error = burn_y - tensor(&target, [members, batch, outputs]);
            let mut loss = (error.clone() * error).sum();
            for (weight, decay) in mlp.weights.iter().zip(&decay) {
                loss = loss + weight.val().square().sum() * (0.5 * decay);
            }
            let gradients = loss.backward();
            let grad_out: Vec<f32> = y.iter().zip(&target).map(|(y, t)| 2.0 * (y - t)).collect();
            let grad_in = values(inputs_tensor.grad(&gradients).unwrap());
            near(&name("input gradients"), &host.input_grad(&tape, &grad_out), &grad_in, 5e-5);
            if decay.is_empty() {
                let wanted = flat(&mlp, |param| param.grad(&gradients).unwrap());
                near(&name("gradients"), &host.grads(&tape, &grad_out), &wanted, 5e-5);
            }
            let by_step = host.step(&mut tape, &grad_out, true, &mut adam).unwrap();
            near(&name("input gradients of a step"), &by_step, &grad_in, 5e-5);
            let gradients = GradientsParams::from_grads(gradients, &mlp);
            mlp = burn_adam.step(3e-3, mlp, gradients);
            // Where a gradient is nearly 0, Adam's step has its sign alone: a few steps of 3e-3 at most.
            let moved = values_apart(&host.parameters(), &flat(&mlp, |param| param.clone().inner()));
            assert!(moved <= 2e-3, "{}: {moved}", name("parameters"));
        }
        assert_eq!(adam.steps(), 3);
    }
}

/// The mean distance, which rare signs of rounding do not decide.
fn values_apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32 * 100.0
}

#[test]
fn gradients_are_central_differences() {
    for (trial, (config, batch)) in configs().into_iter().enumerate() {
        // Differences across a bend mean nothing.
        let config = MlpConfig { activation: Activation::Tanh, ..config };
        let mut rng = Rng::new(trial as u64);
        let host = network(&config, &mut rng);
        let x = normals(batch * config.inputs, &mut rng);
        let mut tape = Tape::new();
        let y = host.forward(Rows::Shared(&x), PASS, Some(&mut tape));
        let weights = normals(y.len(), &mut rng);
        let value = |host: &HostMlp, x: &[f32]| {
            let y = host.forward(Rows::Shared(x), PASS, None);
            y.iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum::<f64>()
        };
        let difference = |along: &[f32], at: &[f32], value: &dyn Fn(&[f32]) -> f64| {
            let h = 2e-3;
            let moved = |sign: f32| at.iter().zip(along).map(|(a, d)| a + sign * h * d).collect::<Vec<f32>>();
            (value(&moved(1.0)) - value(&moved(-1.0))) / (2.0 * f64::from(h))
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let norm = |a: &[f32]| dot(a, a).sqrt();

        let parameters = host.parameters();
        let unit = |count: usize, rng: &mut Rng| {
            let v = normals(count, rng);
            let size = norm(&v) as f32;
            v.iter().map(|v| v / size).collect::<Vec<f32>>()
        };
        let v = unit(parameters.len(), &mut rng);
        let gradient = host.grads(&tape, &weights);
        let numeric = difference(&v, &parameters, &|p| {
            let mut moved = host.clone();
            moved.set_parameters(p);
            value(&moved, &x)
        });
        let scale = norm(&gradient).max(1.0);
        assert!((dot(&gradient, &v) - numeric).abs() < 1e-2 * scale, "{} {numeric} {config:?}", dot(&gradient, &v));

        let v = unit(x.len(), &mut rng);
        // Shared inputs: their gradient is the sum over members.
        let mut by_input = vec![0.0; x.len()];
        for member in host.input_grad(&tape, &weights).chunks(x.len()) {
            by_input.iter_mut().zip(member).for_each(|(sum, g)| *sum += g);
        }
        let numeric = difference(&v, &x, &|x| value(&host, x));
        let scale = norm(&by_input).max(1.0);
        assert!((dot(&by_input, &v) - numeric).abs() < 1e-2 * scale, "{} {numeric} {config:?}", dot(&by_input, &v));
    }
}

#[test]
fn forward_products_are_differences_and_the_transpose_of_gradients() {
    for (trial, (config, batch)) in configs().into_iter().enumerate() {
        let mut rng = Rng::new(trial as u64);
        let host = network(&config, &mut rng);
        let x = normals(config.members * batch * config.inputs, &mut rng);
        let mut tape = Tape::new();
        let y = host.forward(Rows::Own(&x), PASS, Some(&mut tape));
        let v = normals(config.parameters(), &mut rng);
        let w = normals(y.len(), &mut rng);
        let moved = host.jvp(&tape, &v);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (forward, backward) = (dot(&moved, &w), dot(&v, &host.grads(&tape, &w)));
        let scale = dot(&moved, &moved).sqrt() * dot(&w, &w).sqrt();
        assert!((forward - backward).abs() < 1e-5 * scale.max(1.0), "{forward} and {backward} of {config:?}");

        if matches!(config.activation, Activation::Tanh | Activation::Silu | Activation::Mish) {
            let parameters = host.parameters();
            let h = 1e-3;
            let at = |sign: f32| {
                let mut other = host.clone();
                other.set_parameters(&parameters.iter().zip(&v).map(|(p, v)| p + sign * h * v).collect::<Vec<_>>());
                other.forward(Rows::Own(&x), PASS, None)
            };
            let numeric: Vec<f32> = at(1.0).iter().zip(at(-1.0)).map(|(a, b)| (a - b) / (2.0 * h)).collect();
            near(&format!("forward product of {config:?}"), &moved, &numeric, 1e-2);
        }
    }
}

#[test]
fn threads_and_tapes_change_no_bit_and_batches_none_of_a_row() {
    for (trial, (config, batch)) in configs().into_iter().enumerate() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut rng = Rng::new(trial as u64);
                let mut host = network(&config, &mut rng);
                let mut adam = Adam::new(&host, AdamConfig::default());
                let x = normals(batch * config.inputs, &mut rng);
                let mut tape = Tape::new();
                let y = host.forward(Rows::Shared(&x), PASS, Some(&mut tape));
                let jvp = host.jvp(&tape, &host.parameters());
                let gradients = host.grads(&tape, &y);
                let inputs = host.step(&mut tape, &y, true, &mut adam).unwrap();
                [y, jvp, gradients, inputs, host.parameters()].map(|values| bits(&values))
            })
        };
        assert_eq!(run(1), run(3));

        let mut rng = Rng::new(trial as u64);
        let host = network(&config, &mut rng);
        let table = normals(2 * batch * config.inputs, &mut rng);
        let rows: Vec<usize> = (0..config.members * batch).map(|_| rng.below(2 * batch)).collect();
        let picked = host.forward(Rows::Picked { of: &table, rows: &rows }, Pass::Infer, None);
        for (i, &row) in rows.iter().enumerate() {
            let x = &table[row * config.inputs..(row + 1) * config.inputs];
            let (alone, member) = (host.forward(Rows::Shared(x), Pass::Infer, None), i / batch);
            let width = config.outputs;
            assert_eq!(picked[i * width..(i + 1) * width], alone[member * width..(member + 1) * width]);
        }
    }
}

#[test]
fn a_step_over_several_passes_is_one_of_their_sum() {
    // The network applied to what it said, as a recurrent one is: gradients add up over both passes.
    for members in [1, 3] {
        for layer_norm in [false, true] {
            let mut rng = Rng::new(11);
            let config =
                MlpConfig { members, layer_norm, activation: Activation::Silu, ..MlpConfig::new(4, vec![20, 9], 4) };
            let network = network(&config, &mut rng);
            let (x, grad) = (normals(members * 33 * 4, &mut rng), normals(members * 33 * 4, &mut rng));
            let mut tapes = vec![Tape::new(), Tape::new()];
            let y = network.forward(Rows::Own(&x), Pass::Infer, Some(&mut tapes[0]));
            network.forward(Rows::Own(&y), Pass::Infer, Some(&mut tapes[1]));
            // By hand: two products with the transposed Jacobian.
            let grad_between = network.input_grad(&tapes[1], &grad);
            let both: Vec<f32> = network
                .grads(&tapes[1], &grad)
                .iter()
                .zip(network.grads(&tapes[0], &grad_between))
                .map(|(a, b)| a + b)
                .collect();
            let config = AdamConfig { learning_rate: 1e-2, betas: [0.0, 0.0], epsilon: 1.0, ..AdamConfig::default() };
            let mut adam = Adam::new(&network, config);
            let mut moved = network.clone();
            assert_eq!(network.go_back(&mut tapes[1], &grad, true), Some(grad_between.clone()));
            network.go_back(&mut tapes[0], &grad_between, false);
            moved.step_over(&mut tapes, &mut adam);
            let expected: Vec<f32> =
                network.parameters().iter().zip(&both).map(|(p, g)| p - 1e-2 * g / (g.abs() + 1.0)).collect();
            near("parameters", &moved.parameters(), &expected, 1e-5);
            // The tapes can be used again.
            moved.forward(Rows::Own(&x), Pass::Infer, Some(&mut tapes[0]));
            assert_eq!(bits(&moved.input_grad(&tapes[0], &grad)), {
                let mut fresh = Tape::new();
                moved.forward(Rows::Own(&x), Pass::Infer, Some(&mut fresh));
                bits(&moved.input_grad(&fresh, &grad))
            });
        }
    }
}

#[test]
#[should_panic(expected = "a tape without gradients")]
fn a_step_over_a_pass_whose_gradients_have_not_gone_back_is_refused() {
    let mut host = MlpConfig::new(1, vec![4], 1).init_host(&mut Rng::new(0)).unwrap();
    let mut adam = Adam::new(&host, AdamConfig::default());
    let mut tapes = vec![Tape::new()];
    host.forward(Rows::Shared(&[1.0]), Pass::Infer, Some(&mut tapes[0]));
    host.step_over(&mut tapes, &mut adam);
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() {
    // A linear layer of ones above hidden units that are 1: the output counts those that are kept.
    let units = 1000;
    let config = MlpConfig { dropout: 0.25, ..MlpConfig::new(1, vec![units], 1) };
    let mut host = config.init_host(&mut Rng::new(0)).unwrap();
    let mut parameters = vec![0.0; config.parameters()];
    parameters[units..2 * units].fill(1.0);
    parameters[2 * units..3 * units].fill(1.0 / units as f32);
    host.set_parameters(&parameters);
    let x = vec![0.0; 200];
    assert!(host.forward(Rows::Shared(&x), Pass::Infer, None).iter().all(|y| (y - 1.0).abs() < 1e-5));
    let means = |key: u64| host.forward(Rows::Shared(&x), Pass::Train { key }, None);
    let y = means(1);
    // Standard deviation of a row: sqrt(0.25 · 0.75 / 1000) / 0.75 = 0.018.
    assert!(y.iter().all(|y| (y - 1.0).abs() < 0.09));
    assert!((y.iter().sum::<f32>() / 200.0 - 1.0).abs() < 0.0065);
    assert!(y.windows(2).filter(|y| y[0] == y[1]).count() < 20, "rows alike");
    assert_ne!(y, means(2));
    assert_eq!(y, means(1));
}

#[test]
fn tracking_goes_the_share_of_the_way() {
    let config = MlpConfig { members: 2, layer_norm: true, ..MlpConfig::new(3, vec![20], 2) };
    let mut rng = Rng::new(0);
    let (mut target, source) = (network(&config, &mut rng), network(&config, &mut rng));
    let (start, end) = (target.parameters(), source.parameters());
    let (x, grad) = ([0.5; 3], [1.0; 4]);
    for _ in 0..10 {
        // Makes the transposed weights, which must follow.
        let mut tape = Tape::new();
        target.forward(Rows::Shared(&x), Pass::Infer, Some(&mut tape));
        let _ = target.input_grad(&tape, &grad);
        target.track(&source, 0.1);
    }
    let share = 0.9f32.powi(10);
    let wanted: Vec<f32> = start.iter().zip(&end).map(|(a, b)| share * a + (1.0 - share) * b).collect();
    near("tracked", &target.parameters(), &wanted, 1e-5);
    target.track(&source, 1.0);
    assert_eq!(target.parameters(), end);
    let grads = |host: &HostMlp| {
        let mut tape = Tape::new();
        host.forward(Rows::Shared(&x), Pass::Infer, Some(&mut tape));
        host.input_grad(&tape, &grad)
    };
    assert_eq!(grads(&target), grads(&source));
}

#[test]
fn clipping_scales_each_members_gradient_to_its_norm() {
    let config = MlpConfig { members: 2, layer_norm: true, ..MlpConfig::new(3, vec![20, 9], 2) };
    let mut rng = Rng::new(0);
    let host = network(&config, &mut rng);
    let x = normals(8 * 3, &mut rng);
    let grad_out = normals(2 * 8 * 2, &mut rng);
    let step = |clip: f32, decay: &[f32]| {
        let mut host = host.clone();
        // A large epsilon drowns the second moment: a step is the gradient, times 1e-3.
        let settings =
            AdamConfig { learning_rate: 1e6, epsilon: 1e9, clip, decay: decay.to_vec(), ..Default::default() };
        let mut adam = Adam::new(&host, settings);
        let mut tape = Tape::new();
        host.forward(Rows::Shared(&x), Pass::Infer, Some(&mut tape));
        let gradients = host.grads(&tape, &grad_out);
        let before = host.parameters();
        host.step(&mut tape, &grad_out, false, &mut adam);
        let moved: Vec<f32> = host.parameters().iter().zip(before).map(|(a, b)| (b - a) * 1e3).collect();
        (gradients, moved)
    };
    let (gradients, free) = step(0.0, &[]);
    near("unclipped", &free, &gradients, 2e-3);
    let decay = [0.3, 0.2, 0.1];
    let decayed = step(0.0, &decay).1;
    assert_ne!(bits(&free), bits(&decayed));
    assert_eq!(bits(&decayed), bits(&step(1e9, &decay).1));
    let (_, tight) = step(0.5, &[]);
    // Members' halves of each array.
    let mut sizes = [0.0f64; 2];
    let mut at = 0;
    for len in [3 * 20, 20, 20, 20, 20 * 9, 9, 9, 9, 9 * 2, 2] {
        for size in &mut sizes {
            *size += tight[at..at + len].iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
            at += len;
        }
    }
    assert!(sizes.iter().all(|size| (size.sqrt() - 0.5).abs() < 5e-3), "{sizes:?}");
}

#[test]
fn what_is_saved_goes_on_to_the_same_bits() {
    let config = MlpConfig { members: 2, layer_norm: true, dropout: 0.1, ..MlpConfig::new(3, vec![20, 9], 2) };
    let mut rng = Rng::new(0);
    let mut host = network(&config, &mut rng);
    let mut adam = Adam::new(&host, AdamConfig::default());
    let x = normals(8 * 3, &mut rng);
    let mut tape = Tape::new();
    let mut step = |host: &mut HostMlp, adam: &mut Adam| {
        let y = host.forward(Rows::Shared(&x), PASS, Some(&mut tape));
        host.step(&mut tape, &y, false, adam);
        bits(&host.parameters())
    };
    step(&mut host, &mut adam);
    let (network_bytes, adam_bytes) = (host.save(), adam.save(&host));
    let wanted = [step(&mut host, &mut adam), step(&mut host, &mut adam)];

    let mut host = HostMlp::open(&network_bytes).unwrap();
    let mut adam = Adam::new(&host, AdamConfig::default());
    adam.load(&host, &adam_bytes).unwrap();
    assert_eq!(adam.steps(), 1);
    assert_eq!([step(&mut host, &mut adam), step(&mut host, &mut adam)], wanted);

    // A Burn module of it is the same too.
    assert_eq!(bits(&HostMlp::of(&host.to_mlp(&Device::flex())).parameters()), bits(&host.parameters()));
    let fresh = config.init(&Device::flex(), &mut Rng::new(3)).unwrap();
    let same = config.init_host(&mut Rng::new(3)).unwrap();
    assert_eq!(bits(&HostMlp::of(&fresh).parameters()), bits(&same.parameters()));

    // Damage is seen, and changes nothing.
    let before = bits(&host.parameters());
    for cut in [0, 3, 8, 20, network_bytes.len() - 1] {
        assert!(host.load(&network_bytes[..cut]).is_err(), "{cut} bytes");
    }
    let mut damaged = network_bytes.clone();
    *damaged.iter_mut().rev().nth(40).unwrap() ^= 1;
    assert!(host.load(&damaged).unwrap_err().to_string().contains("checksum"));
    let other = MlpConfig { dropout: 0.0, ..config }.init_host(&mut Rng::new(0)).unwrap();
    assert!(host.load(&other.save()).unwrap_err().to_string().contains("expected"));
    assert!(adam.load(&host, &adam_bytes[..adam_bytes.len() - 4]).is_err());
    assert_eq!(bits(&host.parameters()), before);
    host.load(&network_bytes).unwrap();
}

#[test]
fn settings_that_break_a_rule_are_named() {
    let good = MlpConfig::new(3, vec![4], 2);
    for (config, field) in [
        (MlpConfig { inputs: 0, ..good.clone() }, "inputs"),
        (MlpConfig { outputs: 0, ..good.clone() }, "outputs"),
        (MlpConfig { members: 0, ..good.clone() }, "members"),
        (MlpConfig { hidden: vec![4, 0], ..good.clone() }, "hidden"),
        (MlpConfig { dropout: 1.0, ..good.clone() }, "dropout"),
        (MlpConfig { dropout: f32::NAN, ..good }, "dropout"),
    ] {
        let fault = config.init_host(&mut Rng::new(0)).unwrap_err().to_string();
        assert!(fault.starts_with(field), "{fault}");
    }
}

#[test]
#[should_panic(expected = "a tape that is spent by a step")]
fn a_tape_serves_one_step() {
    let mut host = MlpConfig::new(1, vec![4], 1).init_host(&mut Rng::new(0)).unwrap();
    let mut adam = Adam::new(&host, AdamConfig::default());
    let mut tape = Tape::new();
    host.forward(Rows::Shared(&[1.0]), Pass::Infer, Some(&mut tape));
    host.step(&mut tape, &[1.0], false, &mut adam);
    host.step(&mut tape, &[1.0], false, &mut adam);
}
