//! Symmetries of a task in fits: where they decide whether anything is learned, which side of the holdout copies are on, and what is judged.
#![cfg(feature = "train")]

use std::f32::consts::TAU;

use burn::tensor::TensorData;
use mbrl_env::{AngleColumn, Augment, Device, Knowledge, Rng, Tensor, check::check_augment};
use mbrl_model::{
    Angles, Dataset, Draw, Dynamics, Ensemble, EnsembleConfig, FitConfig, Head, Propagation, Residual, dynamics_fn, fit,
};

/// Angle of a valve with three arms, from 0 to 2π: it looks the same after a third of a turn.
struct ThreeArms;

impl Augment for ThreeArms {
    fn name(&self) -> &str {
        "three-arms-1"
    }

    fn copies(&self) -> usize {
        3
    }

    fn observation(&self, copy: usize, obs: &mut [f32]) {
        if copy > 0 {
            obs[0] = (obs[0] + copy as f32 * TAU / 3.0).rem_euclid(TAU);
        }
    }

    fn action(&self, _: usize, _: &mut [f32]) {}
}

/// The arms swing by 0.2 sin 3θ, and are pushed.
fn moved(angle: f32, push: f32) -> f32 {
    (angle + 0.2 * (3.0 * angle).sin() + 0.1 * push).rem_euclid(TAU)
}

fn valve(rows: usize, most: f32, seed: u64) -> Dataset {
    let mut rng = Rng::new(seed);
    let obs: Vec<f32> = (0..rows).map(|_| rng.uniform(0.0, most)).collect();
    let actions: Vec<f32> = (0..rows).map(|_| rng.uniform(-1.0, 1.0)).collect();
    let next: Vec<f32> = obs.iter().zip(&actions).map(|(angle, push)| moved(*angle, *push)).collect();
    Dataset::new(obs, actions, next, 1, 1).unwrap()
}

fn config() -> EnsembleConfig {
    EnsembleConfig {
        members: 2,
        hidden: vec![24, 24],
        head: Head::Deterministic,
        normalize_targets: true,
        angles: Angles::Columns(vec![AngleColumn { column: 0, turn: TAU, wraps: true }]),
        ..EnsembleConfig::default()
    }
}

fn tensor(values: &[f32], width: usize) -> Tensor<2> {
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

/// Root mean square of the error of the angle, the short way round, beside 0.15 of "nothing changes".
fn error(model: &Ensemble, on: &Dataset) -> f32 {
    let mean = model.predict(tensor(on.obs(), 1), tensor(on.actions(), 1)).unwrap().mean;
    let mean: Vec<f32> = mean.into_data().iter().collect();
    let square = |(found, next): (&f32, &f32)| {
        let off = found - next;
        (off - TAU * (off / TAU).round()).powi(2)
    };
    (mean.iter().zip(on.next_obs()).map(square).sum::<f32>() / mean.len() as f32).sqrt()
}

#[test]
fn what_one_arm_shows_is_learned_of_all() {
    let whole = valve(500, TAU, 7);
    check_augment(&ThreeArms, whole.obs(), whole.actions(), whole.next_obs(), [1, 1], None, &Device::flex()).unwrap();
    // Data of a third of the circle. Of the rest a network knows nothing, unless it is told that the rest is the same.
    let third = valve(600, TAU / 3.0, 2);
    let learned = |knowledge: &Knowledge| {
        let mut model = config().init_with(1, 1, knowledge, &Device::flex(), &mut Rng::new(1)).unwrap();
        let settings = FitConfig { max_epochs: 150, batch_size: 32, patience: 20, ..FitConfig::default() };
        fit(&mut model, &third, &settings, &mut Rng::new(3)).unwrap();
        [error(&model, &valve(200, TAU / 3.0, 8)), error(&model, &whole)]
    };
    let [here, everywhere] = learned(&Knowledge::none().with_augment(ThreeArms));
    assert!(here < 0.04 && everywhere < 0.04, "{here} {everywhere}");
    let [here, everywhere] = learned(&Knowledge::none());
    assert!(here < 0.04 && everywhere > 0.1, "{here} {everywhere}");
}

/// Left and right: the reward, which a force earns to the right, is lost to the left.
struct Mirror;

impl Augment for Mirror {
    fn name(&self) -> &str {
        "mirror-1"
    }

    fn copies(&self) -> usize {
        2
    }

    fn observation(&self, copy: usize, obs: &mut [f32]) {
        if copy == 1 {
            obs[0] = -obs[0];
        }
    }

    fn action(&self, copy: usize, action: &mut [f32]) {
        if copy == 1 {
            action[0] = -action[0];
        }
    }

    fn reward(&self, copy: usize, reward: f32) -> f32 {
        if copy == 1 { -reward } else { reward }
    }
}

#[test]
fn learned_rewards_are_those_of_the_copies() {
    let mut rng = Rng::new(4);
    let obs: Vec<f32> = (0..300).map(|_| rng.uniform(0.2, 1.0)).collect();
    let actions: Vec<f32> = (0..300).map(|_| rng.uniform(-1.0, 1.0)).collect();
    let next: Vec<f32> = obs.iter().zip(&actions).map(|(x, a)| x + 0.1 * a).collect();
    let rewards: Vec<f32> = obs.iter().map(|x| x * x).collect();
    let data = Dataset::new(obs, actions, next, 1, 1).unwrap().with_rewards(rewards).unwrap();
    let config = EnsembleConfig { reward: true, angles: Angles::NONE, ..config() };
    let knowledge = Knowledge::none().with_augment(Mirror);
    let mut model = config.init_with(1, 1, &knowledge, &Device::flex(), &mut Rng::new(1)).unwrap();
    fit(&mut model, &data, &FitConfig { max_epochs: 150, ..FitConfig::default() }, &mut Rng::new(3)).unwrap();
    // To the left nothing was seen: there the reward is −x².
    let step = model.sample(tensor(&[0.7, -0.7], 1), tensor(&[0.0, 0.0], 1), Draw::new(Propagation::MEAN, 0)).unwrap();
    let reward: Vec<f32> = step.reward.unwrap().into_data().iter().collect();
    assert!((reward[0] - 0.49).abs() < 0.05 && (reward[1] + 0.49).abs() < 0.05, "{reward:?}");
}

#[test]
fn errors_are_of_the_transitions_that_were_held_out_as_they_are() {
    let data = valve(200, TAU / 3.0, 5);
    let held: Vec<usize> = (0..200).filter(|row| row % 4 == 1).collect();
    let knowledge = Knowledge::none().with_augment(ThreeArms);
    // Targets in their own units, so that errors are too.
    let config = EnsembleConfig { normalize_targets: false, members: 1, ..config() };
    let mut model = config.init_with(1, 1, &knowledge, &Device::flex(), &mut Rng::new(1)).unwrap();
    let split = data.clone().with_holdout(held.clone()).unwrap();
    let settings = FitConfig { max_epochs: 5, ..FitConfig::default() };
    let report = fit(&mut model, &split, &settings, &mut Rng::new(3)).unwrap();
    assert_eq!((report.train_rows, report.holdout_rows), (150, 50));
    let of = |rows: &[f32]| held.iter().map(|row| rows[*row]).collect::<Vec<f32>>();
    let apart = Dataset::new(of(data.obs()), of(data.actions()), of(data.next_obs()), 1, 1).unwrap();
    let found = error(&model, &apart).powi(2);
    assert!((report.errors[0] / found - 1.0).abs() < 1e-3, "{} and {found}", report.errors[0]);
}

#[test]
fn one_copy_is_no_symmetry() {
    /// The transition itself.
    struct Same;
    impl Augment for Same {
        fn name(&self) -> &str {
            "same"
        }
        fn copies(&self) -> usize {
            1
        }
        fn observation(&self, _: usize, _: &mut [f32]) {}
        fn action(&self, _: usize, _: &mut [f32]) {}
    }
    let fitted = |knowledge: &Knowledge| {
        let mut model = config().init_with(1, 1, knowledge, &Device::flex(), &mut Rng::new(1)).unwrap();
        fit(&mut model, &valve(100, TAU, 5), &FitConfig { max_epochs: 5, ..FitConfig::default() }, &mut Rng::new(3))
            .unwrap();
        error(&model, &valve(100, TAU, 6))
    };
    assert_eq!(fitted(&Knowledge::none().with_augment(Same)), fitted(&Knowledge::none()));
}

/// The base may be wrong in a way that the symmetry does not know: copies of its errors would be wrong too.
#[test]
fn a_residual_has_no_symmetries() {
    let device = Device::flex();
    let config =
        EnsembleConfig { members: 2, hidden: vec![8], angles: Angles::radians([0]), ..EnsembleConfig::default() };
    let knowledge = Knowledge::none().with_augment(ThreeArms);
    let spec = mbrl_env::EnvSpec::new(
        "valve",
        mbrl_env::BoxSpace::unbounded(1),
        mbrl_env::ActionSpace::Box(mbrl_env::BoxSpace::symmetric(1, 1.0).unwrap()),
        0.1,
    );
    for (knowledge, fits) in [(knowledge, false), (Knowledge::none(), true)] {
        let ensemble = config.init_for_task(&spec, &knowledge, &device, &mut Rng::new(0)).unwrap();
        let base = dynamics_fn(1, 1, &device, |s, _| s + 0.2);
        assert_eq!(Residual::new(base, ensemble).is_ok(), fits);
    }
}
