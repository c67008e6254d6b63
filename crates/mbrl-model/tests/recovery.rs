//! What an ensemble must recover of systems that are known: their means, their noise, and where it has seen nothing.
#![cfg(feature = "train")]

use std::sync::OnceLock;

use mbrl_env::{Replay, Rng, Transition};
use mbrl_model::{
    Calibration, Dataset, Device, Dynamics, Ensemble, EnsembleConfig, EvaluateConfig, FitConfig, ModelEvaluation,
    Prediction, Tensor, Variance, evaluate, fit,
};

/// Standard deviation of the noise at a state.
type Noise = fn(&[f32]) -> f32;

const SIGMA: f32 = 0.1;
const EVEN: Noise = |_| SIGMA;
/// From 0.02 where the first column is 0 to about 0.3 where it is large.
const UNEVEN: Noise = |s| 0.02 + 0.1 * s[0].abs();

/// Expectation of a stable linear system.
fn truth(s: &[f32], a: f32) -> [f32; 2] {
    [0.9 * s[0] + 0.2 * s[1], -0.1 * s[0] + 0.8 * s[1] + 0.5 * a]
}

/// Episodes of 20 steps from uniform starts under uniform actions.
fn collect(transitions: usize, noise: Noise, rng: &mut Rng) -> Replay {
    let mut data = Replay::new(2, 1, transitions).unwrap();
    let mut obs = Vec::new();
    for t in 0..transitions {
        if t % 20 == 0 {
            obs = vec![rng.uniform(-2.0, 2.0), rng.uniform(-2.0, 2.0)];
        }
        let action = vec![rng.uniform(-2.0, 2.0)];
        let std = noise(&obs);
        let next_obs = truth(&obs, action[0]).map(|mean| mean + std * rng.normal()).to_vec();
        let truncated = t % 20 == 19;
        let transition =
            Transition { obs, action, reward: 0.0, next_obs: next_obs.clone(), terminated: false, truncated };
        data.push(&transition).unwrap();
        obs = next_obs;
    }
    data
}

struct Fitted {
    model: Ensemble,
    train: Replay,
    held_out: Replay,
}

/// An ensemble fitted to 2000 transitions, and 10 000 others.
///
/// PETS's ensemble with smaller layers, fitted as PETS fits: nothing held out, a fixed number of epochs. MBPO's rule (the
/// default: stop when the holdout's squared error no longer falls) ends a fit of these systems after 20 to 50 epochs, when the
/// means are right and the variances still on their way down from about 1: over five seeds of each system it left aleatoric
/// deviations of 1.0 to 1.6 times the noise and 90 % intervals that held 90.6 to 94.6 %; with standardised targets up to
/// four times, and 100 %. After 100 epochs the variances have settled.
///
/// The figures in the tests are of seeds 0 to 4; the tests take the first.
fn fitted(noise: Noise) -> Fitted {
    let mut rng = Rng::new(0);
    let (train, held_out) = (collect(2000, noise, &mut rng), collect(10_000, noise, &mut rng));
    let config = EnsembleConfig { hidden: vec![64, 64], ..EnsembleConfig::default() };
    let mut model = config.init(2, 1, &Device::flex(), &mut rng).unwrap();
    let columns = train.columns();
    let data = Dataset::new(&*columns.obs, &*columns.actions, &*columns.next_obs, 2, 1).unwrap();
    let how = FitConfig { holdout: 0.0, max_epochs: 100, ..FitConfig::default() };
    fit(&mut model, &data, &how, &mut rng).unwrap();
    Fitted { model, train, held_out }
}

/// The one of even noise, fitted once for all tests.
fn even() -> &'static Fitted {
    static FITTED: OnceLock<Fitted> = OnceLock::new();
    FITTED.get_or_init(|| fitted(EVEN))
}

fn evaluated(model: &Ensemble, data: &Replay) -> ModelEvaluation {
    let config = EvaluateConfig { horizon: 10, starts: 2000, ..EvaluateConfig::default() };
    evaluate(model, data, &config, &mut Rng::new(0)).unwrap()
}

fn predict(model: &Ensemble, obs: &[f32], actions: &[f32]) -> Prediction {
    let tensor = |values: &[f32], width| {
        Tensor::<1>::from_floats(values, &Device::flex()).reshape([values.len() / width, width])
    };
    model.predict(tensor(obs, 2), tensor(actions, 1)).unwrap()
}

#[test]
#[ignore = "fits an ensemble: 8 s"]
fn means_are_recovered_to_the_noise_floor() {
    let Fitted { model, held_out, .. } = even();
    let rmse = evaluated(model, held_out).one_step.rmse;
    let columns = held_out.columns();
    let mean = predict(model, &columns.obs, &columns.actions).mean.try_into_vec_as::<f32>().unwrap();
    let mut square = [0.0; 2];
    for (row, (obs, action)) in columns.obs.chunks_exact(2).zip(columns.actions.iter()).enumerate() {
        let truth = truth(obs, *action);
        (0..2).for_each(|d| square[d] += f64::from(mean[row * 2 + d] - truth[d]).powi(2));
    }
    for d in 0..2 {
        // Noisy data cannot be predicted better than to the noise, σ, and an error e of the mean makes √(σ² + e²) of it. The bar
        // is e = σ/4, which is 3 % above the floor; the standard error of a deviation of 10 000 rows is 0.7 %.
        // Measured: 0.994 to 1.020 σ to the data, 0.073 to 0.115 σ to the truth.
        let (noisy, clean) = (rmse[d] / f64::from(SIGMA), (square[d] / 1e4).sqrt() / f64::from(SIGMA));
        assert!((0.97..=1.03).contains(&noisy), "column {d}: {noisy} σ to the data");
        assert!(clean <= 0.25, "column {d}: {clean} σ to the truth");
    }
}

/// That the 90 % intervals of both columns hold 85 to `most` of the observations.
fn check_coverage(what: &str, calibration: &Calibration, most: f64) {
    // The third of the default levels.
    let coverage = &calibration.coverage[2];
    assert!(coverage.iter().all(|c| (0.85..=most).contains(c)), "{what}: {coverage:.3?}");
}

fn check_steps(what: &str, found: &ModelEvaluation) {
    check_coverage(what, found.one_step.calibration.as_ref().unwrap(), 0.95);
    // Roll-outs overlap: 2000 starts of 500 episodes, with a standard error of about 1 %.
    for step in [1, 5, 10] {
        check_coverage(&format!("{what}, step {step}"), found.steps[step - 1].calibration.as_ref().unwrap(), 0.95);
    }
}

#[test]
#[ignore = "fits an ensemble: 8 s"]
fn intervals_hold_what_they_should_where_noise_is_even() {
    // Measured: 88.2 to 92.5 %.
    check_steps("even", &evaluated(&even().model, &even().held_out));
}

#[test]
#[ignore = "fits an ensemble: 8 s"]
fn intervals_hold_what_they_should_where_noise_is_not() {
    let Fitted { model, held_out, .. } = fitted(UNEVEN);
    // Measured: 88.4 to 92.1 %.
    check_steps("uneven", &evaluated(&model, &held_out));
    // One deviation for all, 0.11, would hold 99.9 % where the noise is small (0.045 on average) and 73 % where it is large
    // (0.16). Measured: 92.5 to 94.8 %, and 89.9 to 92.1 %.
    for (part, range) in [("small noise", 0.0..0.5), ("large noise", 1.0..f32::INFINITY)] {
        let mut some = Replay::new(2, 1, held_out.len()).unwrap();
        for transition in (0..held_out.len()).filter_map(|position| held_out.get(position)) {
            if range.contains(&transition.obs[0].abs()) {
                some.push(&transition).unwrap();
                some.end_episode();
            }
        }
        assert!(some.len() > 2000);
        check_coverage(part, &evaluated(&model, &some).one_step.calibration.unwrap(), 0.97);
    }
}

#[test]
#[ignore = "fits an ensemble: 8 s"]
fn members_disagree_where_there_was_no_data() {
    let Fitted { model, train, held_out } = even();
    let columns = held_out.columns();
    let spread = |obs: &[f32]| {
        let std = predict(model, obs, &columns.actions).epistemic_std.unwrap().try_into_vec_as::<f32>().unwrap();
        std.iter().sum::<f32>() / std.len() as f32
    };
    let inside = spread(&columns.obs);
    for d in 0..2 {
        let seen: Vec<f32> = train.columns().obs.iter().skip(d).step_by(2).copied().collect();
        let sigma = (seen.iter().map(|v| v * v).sum::<f32>() / seen.len() as f32).sqrt();
        let (low, high) = seen.iter().fold((0f32, 0f32), |(low, high), v| (low.min(*v), high.max(*v)));
        // Held-out states with one column moved three of its deviations beyond all that was seen, to either side.
        let outside = [low - 3.0 * sigma, high + 3.0 * sigma].map(|value| {
            let mut moved = columns.obs.to_vec();
            moved.iter_mut().skip(d).step_by(2).for_each(|v| *v = value);
            spread(&moved)
        });
        // Measured: 6.4 to 12.4 times; of 20 single sides, 19 between 5.7 and 13.5, one 4.7.
        let ratio = 0.5 * (outside[0] + outside[1]) / inside;
        assert!(ratio >= 5.0, "column {d}: {ratio} times the spread inside, {inside}");
    }
}

#[test]
fn one_variance_per_column_is_that_of_the_errors() {
    let mut rng = Rng::new(0);
    let (train, held_out) = (collect(1000, UNEVEN, &mut rng), collect(10_000, UNEVEN, &mut rng));
    let config = EnsembleConfig {
        members: 2,
        hidden: vec![32],
        variance: Variance::Column,
        normalize_targets: true,
        ..EnsembleConfig::default()
    };
    let mut model = config.init(2, 1, &Device::flex(), &mut rng).unwrap();
    let columns = train.columns();
    let data = Dataset::new(&*columns.obs, &*columns.actions, &*columns.next_obs, 2, 1).unwrap();
    let how = FitConfig { learning_rate: 3e-3, batch_size: 32, holdout: 0.0, max_epochs: 100, ..FitConfig::default() };
    fit(&mut model, &data, &how, &mut rng).unwrap();
    let columns = held_out.columns();
    let said = predict(&model, &columns.obs, &columns.actions).aleatoric_std.unwrap();
    let said = said.try_into_vec_as::<f32>().unwrap();
    // The noise is 2 to 30 hundredths; what is said of it is the same everywhere, to the bit.
    assert!(said.chunks_exact(2).all(|row| row == &said[..2]));
    let rmse = evaluated(&model, &held_out).one_step.rmse;
    for d in 0..2 {
        // Measured over seeds 0 to 2: 0.91 to 1.00; errors on the data of the fit are a little smaller.
        let ratio = f64::from(said[d]) / rmse[d];
        assert!((0.85..=1.1).contains(&ratio), "column {d}: {ratio} times the errors");
    }
}

#[test]
fn a_weighted_likelihood_learns_what_the_likelihood_takes_for_noise() {
    // One column falls by a fifth at each step and is learned at once; the other is thrown by a wave of the first.
    let wave = |s: f32| (2.0 * s).sin();
    let error = |nll_beta: f32| {
        let mut rng = Rng::new(0);
        let obs: Vec<f32> = (0..2000).map(|_| rng.uniform(-2.0, 2.0)).collect();
        let actions: Vec<f32> = (0..1000).map(|_| rng.uniform(-1.0, 1.0)).collect();
        let next: Vec<f32> = obs.chunks_exact(2).flat_map(|s| [0.8 * s[0], s[1] + wave(s[0])]).collect();
        let data = Dataset::new(&*obs, &*actions, &*next, 2, 1).unwrap();
        let config = EnsembleConfig {
            members: 3,
            hidden: vec![64, 64],
            normalize_targets: true,
            nll_beta,
            ..EnsembleConfig::default()
        };
        let mut model = config.init(2, 1, &Device::flex(), &mut rng).unwrap();
        let how = FitConfig { holdout: 0.0, max_epochs: 300, ..FitConfig::default() };
        fit(&mut model, &data, &how, &mut rng).unwrap();
        let mean = predict(&model, &obs, &actions).mean.try_into_vec_as::<f32>().unwrap();
        let square = mean.chunks_exact(2).zip(next.chunks_exact(2)).map(|(mean, next)| (mean[1] - next[1]).powi(2));
        (square.sum::<f32>() / 1000.0).sqrt()
    };
    let (plain, weighted) = (error(0.0), error(0.5));
    // The wave's own standard deviation is 0.7. Measured: 0.47, and 0.02; of a wave of 3 s 0.68, and 0.15.
    assert!(plain > 0.3, "{plain} without weights");
    assert!(weighted < 0.1, "{weighted} with weights");
}
