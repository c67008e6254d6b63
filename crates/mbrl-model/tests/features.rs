//! Features of a task in an ensemble: on every path, in storage, and where they decide whether anything is learned.

use burn::tensor::TensorData;
use mbrl_env::{Device, Features, Knowledge, Lanes, Rng, TILE, Tensor, check::check_features};
use mbrl_model::{
    Dataset, Dynamics, Ensemble, EnsembleConfig, FitConfig, Head, MemberRule,
    check::{check_dynamics, check_gradients},
    fit,
};

/// Of an observation (x, θ, φ) and a push: sin(7θ + 5φ) and the push times x. With `replacing` the angles are not seen by
/// themselves.
struct Waves {
    name: &'static str,
    replacing: bool,
}

impl Features for Waves {
    fn name(&self) -> &str {
        self.name
    }

    fn width(&self) -> usize {
        2
    }

    fn replaces(&self) -> &[usize] {
        if self.replacing { &[1, 2] } else { &[] }
    }

    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        let column = |c: usize| obs.clone().narrow(1, c, 1);
        Tensor::cat(vec![(column(1) * 7.0 + column(2) * 5.0).sin(), column(0) * actions], 1)
    }

    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]) {
        for r in 0..TILE {
            out[0][r] = (7.0 * obs[1][r] + 5.0 * obs[2][r]).sin();
            out[1][r] = obs[0][r] * actions[0][r];
        }
    }

    fn pullback(
        &self,
        obs: &[Lanes],
        actions: &[Lanes],
        grad: &[Lanes],
        grad_obs: &mut [Lanes],
        grad_actions: &mut [Lanes],
    ) {
        for r in 0..TILE {
            let slope = grad[0][r] * (7.0 * obs[1][r] + 5.0 * obs[2][r]).cos();
            grad_obs[0][r] += grad[1][r] * actions[0][r];
            grad_obs[1][r] += 7.0 * slope;
            grad_obs[2][r] += 5.0 * slope;
            grad_actions[0][r] += grad[1][r] * obs[0][r];
        }
    }
}

fn waves(replacing: bool) -> Knowledge {
    Knowledge::none().with_features(Waves { name: "waves-1", replacing })
}

/// The waves move x by 0.3 of them; the push turns φ.
fn data(rows: usize, seed: u64) -> Dataset {
    let mut rng = Rng::new(seed);
    let (mut obs, mut actions, mut next) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rows {
        let [x, theta, phi, push] = std::array::from_fn(|_| rng.uniform(-1.0, 1.0));
        obs.extend([x, theta, phi]);
        actions.push(push);
        next.extend([x + 0.3 * (7.0 * theta + 5.0 * phi).sin() + 0.1 * x * push, theta, phi + 0.1 * push]);
    }
    Dataset::new(obs, actions, next, 3, 1).unwrap()
}

fn config() -> EnsembleConfig {
    EnsembleConfig {
        members: 2,
        hidden: vec![24, 24],
        head: Head::Deterministic,
        weight_decay: vec![],
        normalize_targets: true,
        ..EnsembleConfig::default()
    }
}

fn fitted(knowledge: &Knowledge) -> Ensemble {
    let mut model = config().init_with(3, 1, knowledge, &Device::flex(), &mut Rng::new(1)).unwrap();
    let settings = FitConfig { max_epochs: 150, ..FitConfig::default() };
    fit(&mut model, &data(400, 2), &settings, &mut Rng::new(3)).unwrap();
    model
}

/// Root mean square of the error in x, beside 0.21 of "nothing changes".
fn error(model: &Ensemble) -> f64 {
    let fresh = data(500, 7);
    let tensor = |values: &[f32], width: usize| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), [fresh.len(), width]), &Device::flex())
    };
    let mean = model.predict(tensor(fresh.obs(), 3), tensor(fresh.actions(), 1)).unwrap().mean;
    let mean: Vec<f32> = mean.into_data().iter().collect();
    let square = |row: usize| f64::from(mean[3 * row] - fresh.next_obs()[3 * row]).powi(2);
    ((0..fresh.len()).map(square).sum::<f64>() / fresh.len() as f64).sqrt()
}

#[test]
fn what_is_not_learned_without_features_is_learned_with_them() {
    let rows = data(40, 5);
    check_features(&Waves { name: "waves-1", replacing: true }, rows.obs(), rows.actions(), [3, 1], &Device::flex())
        .unwrap();
    // 400 transitions do not show so quick a wave to a small network; a feature that is the wave, or nearly, does.
    let of = |knowledge: Knowledge| error(&fitted(&knowledge));
    let (without, with, replacing) = (of(Knowledge::none()), of(waves(false)), of(waves(true)));
    assert!(without > 0.1, "{without}");
    assert!(with < 0.03 && replacing < 0.03, "{with} {replacing}");
}

#[test]
fn features_are_the_same_on_every_path() {
    let rows = data(70, 11);
    let tensor = |values: &[f32], width: usize| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), [70, width]), &Device::flex())
    };
    let (states, actions) = (tensor(rows.obs(), 3), tensor(rows.actions(), 1));
    for head in [Head::Deterministic, Head::Gaussian] {
        for replacing in [false, true] {
            let config = EnsembleConfig { head, ..config() };
            let mut model = config.init_with(3, 1, &waves(replacing), &Device::flex(), &mut Rng::new(4)).unwrap();
            fit(&mut model, &rows, &FitConfig { max_epochs: 3, ..FitConfig::default() }, &mut Rng::new(5)).unwrap();
            // The engine and Burn, roll-outs and steps, chunks and wholes, gradients and differences.
            for engine in [true, false] {
                model.set_engine(engine);
                check_dynamics(&model, states.clone(), actions.clone()).unwrap();
            }
            check_gradients(&model, states.clone(), actions.clone(), 1e-2).unwrap();
            let other: Vec<f32> = {
                model.set_engine(false);
                model.predict(states.clone(), actions.clone()).unwrap().mean.into_data().iter().collect()
            };
            model.set_engine(true);
            let draw = mbrl_model::Draw::new(
                mbrl_model::Propagation { rule: MemberRule::Expectation, noise: false, particles: 1 },
                0,
            );
            let sampled = model.sample(states.clone(), actions.clone(), draw).unwrap().next;
            let sampled: Vec<f32> = sampled.into_data().iter().collect();
            for (a, b) in sampled.iter().zip(&other) {
                assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} by the engine, {b} by Burn");
            }
        }
    }
}

#[test]
fn features_are_stored_with_a_model_by_their_name() {
    let model = fitted(&waves(true));
    let stored = model.save().unwrap();
    let fresh = |knowledge: Knowledge| config().init_with(3, 1, &knowledge, &Device::flex(), &mut Rng::new(9)).unwrap();
    let mut again = fresh(waves(true));
    again.load(&stored).unwrap();
    assert_eq!(error(&again), error(&model));
    let told = fresh(Knowledge::none()).load(&stored).unwrap_err().to_string();
    assert!(told.contains("features `waves-1` (2 columns), expected no features"), "{told}");
    let mut newer = fresh(Knowledge::none().with_features(Waves { name: "waves-2", replacing: true }));
    let told = newer.load(&stored).unwrap_err().to_string();
    assert!(told.contains("`waves-1`") && told.contains("expected the features `waves-2`"), "{told}");
    // Drawn anew, it keeps them.
    again.reinitialize(&mut Rng::new(1));
    assert_eq!(again.features().unwrap().name(), "waves-1");
    let beyond = config().init_with(2, 1, &waves(true), &Device::flex(), &mut Rng::new(9)).unwrap_err().to_string();
    assert_eq!(beyond, "features = column 2: expected features that replace columns of the observation, below 2");
}
