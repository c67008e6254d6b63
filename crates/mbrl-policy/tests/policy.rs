//! Actors: probabilities beside closed forms, gradients beside finite differences and autodiff, bits that depend on no batch.

use burn::tensor::{Device, Tensor, TensorData, activation};
use mbrl_env::{ActionSpace, BoxSpace, EnvSpec, Rng};
use mbrl_model::{Activation, mlp::Pass};
use mbrl_policy::{ActMode, Actor, ActorConfig, ActorHead, ActorPass, ExportedPolicy, Policy, PolicyDraw, PolicyInfo};

const GAUSSIAN: ActorHead = ActorHead::Gaussian { log_std: [-3.0, 0.5] };

fn spec(obs: usize, low: &[f32], high: &[f32]) -> EnvSpec {
    let actions = ActionSpace::Box(BoxSpace::new(low, high).unwrap());
    EnvSpec::new("test", BoxSpace::unbounded(obs), actions, 0.1)
}

/// An actor of three observations and two actions whose weights are no one's initial ones.
fn actor(head: ActorHead, spread: f32, rng: &mut Rng) -> Actor {
    let config = ActorConfig { hidden: vec![9, 8], activation: Activation::Tanh, ..ActorConfig::default() };
    let mut actor = config.init(&spec(3, &[-2.0, 0.0], &[1.0, 0.5]), head, rng).unwrap();
    let moved: Vec<f32> = actor.network().parameters().iter().map(|p| p + spread * rng.normal()).collect();
    actor.network_mut().set_parameters(&moved);
    actor
}

fn normals(count: usize, rng: &mut Rng) -> Vec<f32> {
    (0..count).map(|_| rng.normal()).collect()
}

#[test]
fn probabilities_of_squashed_actions_sum_to_one_and_are_those_of_what_was_drawn() {
    let spec = spec(1, &[-1.0], &[1.0]);
    let config = ActorConfig { hidden: vec![], ..ActorConfig::default() };
    let mut actor = config.init(&spec, ActorHead::Gaussian { log_std: [-20.0, 2.0] }, &mut Rng::new(0)).unwrap();
    for (mean, log_std) in [(0.0, 0.0), (0.4, -1.0), (-1.5, -0.5), (0.2, 1.0)] {
        // No inputs matter: weights 0, biases the mean and the log of the deviation.
        actor.network_mut().set_parameters(&[0.0, 0.0, mean, log_std]);
        let mut pass = ActorPass::default();
        // By z, whose range is even: a = tanh z, da = (1 − a²) dz.
        const N: usize = 4000;
        let z = |i: usize| (i as f32 + 0.5) / N as f32 * 12.0 - 6.0;
        let actions: Vec<f32> = (0..N).map(|i| z(i).tanh()).collect();
        actor.sample(&[0.0; N], PolicyDraw::new(0), false, &mut pass);
        let (log_probs, _) = actor.log_likelihood(&pass, &actions);
        let sum: f64 =
            (0..N).map(|i| f64::from(log_probs[i].exp() * (1.0 - actions[i] * actions[i]) * 12.0 / N as f32)).sum();
        let inside = |z: f32| 0.5 * (1.0 + erf(f64::from((z - mean) / log_std.exp()) / 2f64.sqrt()));
        assert!((sum - (inside(6.0) - inside(-6.0))).abs() < 2e-3, "mean {mean}, log std {log_std}: {sum}");

        actor.sample(&[0.0; 64], PolicyDraw::new(9), false, &mut pass);
        let (again, _) = actor.log_likelihood(&pass, pass.actions());
        for (i, (a, b)) in pass.log_probs().iter().zip(&again).enumerate() {
            // Near the bounds the action in single precision no longer says where it came from.
            if pass.actions()[i].abs() < 0.99 {
                assert!((a - b).abs() < 1e-3, "{i}: {a} and {b}");
            }
        }
    }
}

/// By the series of Abramowitz and Stegun 7.1.26, to 1.5e-7.
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let p = ((((1.061_405_429 * t - 1.453_152_027) * t + 1.421_413_741) * t - 0.284_496_736) * t + 0.254_829_592) * t;
    (1.0 - p * (-x * x).exp()).copysign(x)
}

#[test]
fn probabilities_are_finite_and_right_where_the_tangent_is_one() {
    let spec = spec(1, &[-1.0], &[1.0]);
    let config = ActorConfig { hidden: vec![], ..ActorConfig::default() };
    let mut actor = config.init(&spec, ActorHead::Gaussian { log_std: [-20.0, 2.0] }, &mut Rng::new(0)).unwrap();
    for mean in [-300.0f32, -40.0, -12.0, 12.0, 40.0, 300.0] {
        actor.network_mut().set_parameters(&[0.0, 0.0, mean, -20.0]);
        let mut pass = ActorPass::default();
        actor.sample(&[0.0], PolicyDraw::new(1), true, &mut pass);
        // ε from the deviation of e^−20 is lost beside the mean; take it from the key.
        let mut noise = [0.0];
        mbrl_model::fill_normal(1, 0, 0, 1, &mut noise);
        let slope = 2.0 * (std::f64::consts::LN_2 - f64::from(mean.abs()));
        let exact = -0.5 * f64::from(noise[0]).powi(2) + 20.0 - 0.918_938_533 - slope;
        let found = f64::from(pass.log_probs()[0]);
        assert!((found - exact).abs() < 1e-6 * exact.abs(), "mean {mean}: {found} and {exact}");
        assert!(actor.pull(&pass, &[1.0], &[1.0]).iter().all(|g| g.is_finite()));
    }
}

/// A loss of actions and log-probabilities, and its gradients by both.
fn loss(actions: &[f32], log_probs: &[f32], weights: &[f32]) -> f64 {
    let squares =
        actions.iter().zip(weights).map(|(a, w)| f64::from(*w) * (f64::from(*a) + 0.5 * f64::from(*a).powi(2)));
    squares.sum::<f64>() + log_probs.iter().zip(weights).map(|(l, w)| 0.3 * f64::from(*w) * f64::from(*l)).sum::<f64>()
}

fn loss_gradients(actions: &[f32], rows: usize, weights: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let by_action = actions.iter().zip(weights).map(|(a, w)| w * (1.0 + a)).collect();
    (by_action, weights[..rows].iter().map(|w| 0.3 * w).collect())
}

#[test]
fn gradients_are_central_differences() {
    for (head, spread) in [(GAUSSIAN, 0.2), (GAUSSIAN, 0.8), (ActorHead::Deterministic { exploration: 0.1 }, 0.3)] {
        let mut rng = Rng::new(5);
        let mut actor = actor(head, spread, &mut rng);
        const ROWS: usize = 37;
        let inputs = normals(3 * ROWS, &mut rng);
        let weights = normals(2 * ROWS, &mut rng);
        let (draw, mut pass) = (PolicyDraw::new(3), ActorPass::default());
        actor.sample(&inputs, draw, true, &mut pass);
        let (by_action, by_log_prob) = loss_gradients(pass.actions(), ROWS, &weights);
        let grad_out = actor.pull(&pass, &by_action, &by_log_prob);
        let (by_parameter, by_input) = (actor.grads(&pass, &grad_out), actor.input_grad(&pass, &grad_out));
        let start = actor.network().parameters();
        let scale = by_parameter.iter().fold(1e-3f32, |scale, g| scale.max(g.abs()));
        let mut at = |actor: &Actor, inputs: &[f32]| {
            actor.sample(inputs, draw, false, &mut pass);
            loss(pass.actions(), pass.log_probs(), &weights)
        };
        let mut bends = 0;
        for i in 0..start.len() {
            let mut moved = |by: f32| {
                let mut parameters = start.clone();
                parameters[i] += by;
                actor.network_mut().set_parameters(&parameters);
                at(&actor, &inputs)
            };
            let difference = (moved(2e-3) - moved(-2e-3)) / 4e-3;
            // Where a deviation comes to a bound within the step, the difference is across a bend.
            bends += usize::from((f64::from(by_parameter[i]) - difference).abs() > 4e-3 * f64::from(scale));
        }
        assert!(bends <= start.len() / 20, "{head:?}: {bends} of {} gradients are off", start.len());
        actor.network_mut().set_parameters(&start);
        for i in 0..inputs.len() {
            let mut moved = |by: f32| {
                let mut inputs = inputs.clone();
                inputs[i] += by;
                at(&actor, &inputs)
            };
            let difference = (moved(2e-3) - moved(-2e-3)) / 4e-3;
            assert!((f64::from(by_input[i]) - difference).abs() < 1e-2 * f64::from(scale), "input {i}");
        }
    }
}

#[test]
fn gradients_are_those_of_autodiff() {
    let mut rng = Rng::new(6);
    const ROWS: usize = 40;
    // Wide enough that some deviations are cut off at either end.
    let actor = actor(GAUSSIAN, 0.9, &mut rng);
    let (inputs, weights) = (normals(3 * ROWS, &mut rng), normals(2 * ROWS, &mut rng));
    let mut pass = ActorPass::default();
    actor.sample(&inputs, PolicyDraw::new(8), true, &mut pass);
    let cut = pass.outputs().chunks(4).flat_map(|row| &row[2..]).filter(|log| !(-3.0..=0.5).contains(*log)).count();
    assert!(cut > 5 && cut < 2 * ROWS - 5, "{cut}");
    let (by_action, by_log_prob) = loss_gradients(pass.actions(), ROWS, &weights);
    let grad_out = actor.pull(&pass, &by_action, &by_log_prob);
    let found = actor.grads(&pass, &grad_out);

    let device = Device::flex();
    let tensor =
        |values: &[f32], shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &device);
    let mlp = burn::module::Module::train(actor.network().to_mlp(&device));
    let mut noise = vec![0.0; 2 * ROWS];
    mbrl_model::fill_normal(8, 0, 0, 2, &mut noise);
    let outputs = mlp.forward(tensor(&inputs, [ROWS, 3]).autodiff().unsqueeze(), Pass::Infer).squeeze_dim::<2>(0);
    let [mean, log] = [0, 2].map(|from| outputs.clone().slice([0..ROWS, from..from + 2]));
    let log = log.clamp(-3.0, 0.5);
    let noise = tensor(&noise, [ROWS, 2]).autodiff();
    let z = mean + log.clone().exp() * noise.clone();
    let action = z.clone().tanh();
    // log N(z; μ, σ) − log(1 − tanh² z), each as it stands in the books.
    let normal = noise.square() * -0.5 - log - 0.918_938_533;
    let slope = (z.clone().neg() - activation::softplus(z * -2.0, 1.0) + std::f64::consts::LN_2) * 2.0;
    let log_prob = (normal - slope).sum_dim(1);
    let weight = tensor(&weights, [ROWS, 2]).autodiff();
    let row_weight = tensor(&weights[..ROWS], [ROWS, 1]).autodiff();
    let told: Vec<f32> = log_prob.clone().inner().into_data().iter().collect();
    for (told, found) in told.iter().zip(pass.log_probs()) {
        assert!((told - found).abs() < 1e-4, "{told} and {found}");
    }
    let total = (weight * (action.clone() + action.square() * 0.5)).sum() + (row_weight * log_prob * 0.3).sum();
    let gradients = total.backward();
    let mut wanted = Vec::new();
    for (weight, bias) in mlp.weights.iter().zip(&mlp.biases) {
        for param in [weight, bias] {
            wanted.extend(param.val().grad(&gradients).unwrap().into_data().iter::<f32>());
        }
    }
    let scale = wanted.iter().fold(0f32, |scale, g| scale.max(g.abs()));
    assert_eq!(found.len(), wanted.len());
    for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        assert!((found - wanted).abs() < 1e-4 * scale, "{i}: {found} and {wanted}");
    }
}

#[test]
fn a_likelihood_has_the_gradient_of_its_differences() {
    let mut rng = Rng::new(7);
    let mut actor = actor(GAUSSIAN, 0.3, &mut rng);
    const ROWS: usize = 20;
    let inputs = normals(3 * ROWS, &mut rng);
    let actions: Vec<f32> = normals(2 * ROWS, &mut rng).iter().map(|z| (0.7 * z).tanh()).collect();
    let mut pass = ActorPass::default();
    actor.sample(&inputs, PolicyDraw::new(0), true, &mut pass);
    let (_, grad_out) = actor.log_likelihood(&pass, &actions);
    let found = actor.grads(&pass, &grad_out);
    let start = actor.network().parameters();
    for (i, found) in found.iter().enumerate() {
        let mut moved = |by: f32| {
            let mut parameters = start.clone();
            parameters[i] += by;
            actor.network_mut().set_parameters(&parameters);
            actor.sample(&inputs, PolicyDraw::new(0), false, &mut pass);
            actor.log_likelihood(&pass, &actions).0.iter().map(|l| f64::from(*l)).sum::<f64>() / ROWS as f64
        };
        let difference = (moved(2e-3) - moved(-2e-3)) / 4e-3;
        assert!((f64::from(*found) - difference).abs() < 5e-3, "{i}: {found} and {difference}");
    }
}

#[test]
fn actions_depend_on_neither_batch_nor_threads_and_lie_within_the_bounds() {
    for head in [GAUSSIAN, ActorHead::Deterministic { exploration: 0.4 }] {
        let mut rng = Rng::new(2);
        let config = ActorConfig { hidden: vec![150, 70], ..ActorConfig::default() };
        let actor = config.init(&spec(3, &[-2.0, 0.0], &[1.0, 0.5]), head, &mut rng).unwrap();
        const ROWS: usize = 300;
        let obs: Vec<f32> = normals(3 * ROWS, &mut rng).iter().map(|x| 5.0 * x).collect();
        let draw = PolicyDraw::new(77).at_step(4);
        let in_pool = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| actor.act(&obs, ActMode::Explore, draw))
        };
        let all = in_pool(1);
        assert_eq!(all, in_pool(2));
        for (from, rows) in [(0, 1), (17, 40), (299, 1)] {
            let part = actor.act(&obs[3 * from..][..3 * rows], ActMode::Explore, draw.from_row(from));
            assert_eq!(part, all[2 * from..][..2 * rows], "rows {from} to {}", from + rows);
        }
        for row in all.chunks(2) {
            assert!((-2.0..=1.0).contains(&row[0]) && (0.0..=0.5).contains(&row[1]), "{row:?}");
        }
        // Keys and steps draw differently; judging draws nothing.
        assert_ne!(all, actor.act(&obs, ActMode::Explore, draw.at_step(5)));
        assert_ne!(all, actor.act(&obs, ActMode::Explore, PolicyDraw::new(78).at_step(4)));
        let mean = actor.act(&obs, ActMode::Evaluate, draw);
        assert_eq!(mean, actor.act(&obs, ActMode::Evaluate, PolicyDraw::new(1)));
        assert_ne!(mean, all);
        let tensor = Tensor::<2>::from_data(TensorData::new(obs.clone(), [ROWS, 3]), &Device::flex());
        let by_tensor: Vec<f32> = actor.act_tensor(tensor, ActMode::Explore, draw).into_data().iter().collect();
        assert_eq!(by_tensor, all);
    }
}

#[test]
fn evaluations_act_by_the_running_average_of_the_weights_and_nothing_else_does() {
    let spec = spec(3, &[-2.0, 0.0], &[1.0, 0.5]);
    let made = |averaging: f32| {
        let config = ActorConfig { hidden: vec![9], layer_norm: true, averaging, ..ActorConfig::default() };
        config.init(&spec, GAUSSIAN, &mut Rng::new(1)).unwrap()
    };
    let (mut plain, mut averaged) = (made(0.0), made(0.25));
    let mut rng = Rng::new(2);
    let mut average = plain.network().parameters();
    for _ in 0..5 {
        let inputs = normals(3 * 16, &mut rng);
        let grad_out = normals(4 * 16, &mut rng);
        for actor in [&mut plain, &mut averaged] {
            let mut pass = ActorPass::default();
            actor.sample(&inputs, PolicyDraw::new(7), true, &mut pass);
            actor.step(&mut pass, &grad_out);
        }
        let now = plain.network().parameters();
        average.iter_mut().zip(&now).for_each(|(average, now)| *average += 0.25 * (now - *average));
    }
    // What is learned is the same.
    assert_eq!(averaged.network().parameters(), plain.network().parameters());
    assert_eq!(plain.evaluated().parameters(), plain.network().parameters());
    for (found, wanted) in averaged.evaluated().parameters().iter().zip(&average) {
        assert!((found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0), "{found} and {wanted}");
    }
    let obs = normals(3 * 8, &mut rng);
    let act = |actor: &Actor, mode| actor.act(&obs, mode, PolicyDraw::new(3));
    assert_eq!(act(&averaged, ActMode::Explore), act(&plain, ActMode::Explore));
    assert_ne!(act(&averaged, ActMode::Evaluate), act(&plain, ActMode::Evaluate));
    plain.network_mut().set_parameters(&averaged.evaluated().parameters());
    assert_eq!(act(&averaged, ActMode::Evaluate), act(&plain, ActMode::Evaluate));
    // It is what is exported.
    let file = |actor: Actor| ExportedPolicy::new(PolicyInfo::of(&spec), actor).unwrap().to_bytes();
    assert_eq!(file(averaged), file(plain));
}

#[test]
fn bad_settings_are_refused_by_name() {
    let spec = spec(1, &[-1.0], &[1.0]);
    let told = |config: ActorConfig, head| config.init(&spec, head, &mut Rng::new(0)).unwrap_err().to_string();
    let usual = ActorConfig::default;
    let negative = told(ActorConfig { learning_rate: -1.0, ..usual() }, GAUSSIAN);
    assert!(negative.starts_with("learning_rate = -1"), "{negative}");
    let averaging = told(ActorConfig { averaging: 1.5, ..usual() }, GAUSSIAN);
    assert!(averaging.starts_with("averaging = 1.5: expected a number in [0, 1]"), "{averaging}");
    let turned = told(usual(), ActorHead::Gaussian { log_std: [1.0, 0.0] });
    assert!(turned.starts_with("log_std = [1.0, 0.0]"), "{turned}");
    let noise = told(usual(), ActorHead::Deterministic { exploration: f32::NAN });
    assert!(noise.starts_with("exploration_noise = NaN"), "{noise}");
}
