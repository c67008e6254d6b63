//! Angles: as sine and cosine in any unit, and the short way round where the data jumps.
#![cfg(feature = "train")]

use std::f32::consts::{PI, TAU};

use mbrl_env::{AngleColumn, Replay, Rng, Transition};
use mbrl_model::{
    Angles, Dataset, Device, Dynamics, EnsembleConfig, EvaluateConfig, FitConfig, Head, ModelEvaluation, Tensor, check,
    evaluate, fit,
};

/// How an angle comes in a log.
#[derive(Debug, Clone, Copy)]
struct Log {
    turn: f32,
    /// From where it jumps by a turn.
    low: Option<f32>,
}

/// A wheel with a mass off its axis, driven round and round: angle and speed, `v' = v + 0.1 (2 u + sin x − 0.1 v)`,
/// `x' = x + 0.1 v'`.
fn wheel(log: Log, seed: u64) -> Replay {
    let mut rng = Rng::new(seed);
    let mut data = Replay::new(2, 1, 3000).unwrap();
    let shown = |x: f32| {
        let x = x * log.turn / TAU;
        log.low.map_or(x, |low| (x - low).rem_euclid(log.turn) + low)
    };
    for _ in 0..30 {
        let (mut x, mut v) = (rng.uniform(-PI, PI), rng.uniform(-4.0, 4.0));
        for t in 0..40 {
            let u = rng.uniform(-1.0, 1.0);
            let before = vec![shown(x), v];
            v += 0.1 * (2.0 * u + x.sin() - 0.1 * v);
            x += 0.1 * v;
            let next_obs = vec![shown(x), v];
            let (action, truncated) = (vec![u], t == 39);
            data.push(&Transition { obs: before, action, reward: 0.0, next_obs, terminated: false, truncated })
                .unwrap();
        }
    }
    data
}

fn config(angles: Angles) -> EnsembleConfig {
    EnsembleConfig {
        members: 2,
        hidden: vec![32, 32],
        head: Head::Deterministic,
        normalize_targets: true,
        angles,
        ..EnsembleConfig::default()
    }
}

fn judged(log: Log, angles: Angles) -> ModelEvaluation {
    let mut rng = Rng::new(1);
    let mut model = config(angles).init(2, 1, &Device::flex(), &mut rng).unwrap();
    let fit_config = FitConfig { max_epochs: 60, batch_size: 64, ..FitConfig::default() };
    fit(&mut model, &Dataset::of_replay(&wheel(log, 2), 0).unwrap(), &fit_config, &mut rng).unwrap();
    evaluate(&model, &wheel(log, 3), &EvaluateConfig { horizon: 10, ..EvaluateConfig::default() }, &mut rng).unwrap()
}

#[test]
fn an_angle_that_wraps_is_learned_as_well_as_one_that_does_not() {
    let unwrapped = judged(Log { turn: TAU, low: None }, Angles::radians([0]));
    let error = |found: &ModelEvaluation, turn: f32| {
        let turns = [&found.one_step.rmse, &found.steps[9].rmse].map(|rmse| rmse[0] / f64::from(turn));
        assert!(turns.iter().all(|e| e.is_finite()));
        turns
    };
    let reference = error(&unwrapped, TAU);
    assert!(reference[0] < 2e-3, "{reference:?}");
    for (turn, low) in [(TAU, -PI), (TAU, 0.0), (360.0, -180.0), (360.0, 0.0)] {
        let log = Log { turn, low: Some(low) };
        let found = judged(log, Angles::Columns(vec![AngleColumn { column: 0, turn, wraps: true }]));
        let here = error(&found, turn);
        assert!(here[0] < 2.0 * reference[0] && here[1] < 2.0 * reference[1], "{log:?}: {here:?}, {reference:?}");
        // "Nothing changes" is off by a step, not by a turn.
        assert!(found.one_step.unchanged_rmse[0] < 0.2 * f64::from(turn), "{found:?}");
        let jumping = judged(log, Angles::Columns(vec![AngleColumn { column: 0, turn, wraps: false }]));
        assert!(error(&jumping, turn)[0] > 20.0 * reference[0], "the test sees no jumps");
    }
}

#[test]
fn predictions_lie_where_the_data_does() {
    let device = Device::flex();
    for (low, value) in [(-180.0, 179.0), (0.0, 359.0)] {
        let log = Log { turn: 360.0, low: Some(low) };
        let mut rng = Rng::new(1);
        let angles = Angles::Columns(vec![AngleColumn { column: 0, turn: 360.0, wraps: true }]);
        let mut model = config(angles.clone()).init(2, 1, &device, &mut rng).unwrap();
        let fit_config = FitConfig { max_epochs: 60, batch_size: 64, ..FitConfig::default() };
        fit(&mut model, &Dataset::of_replay(&wheel(log, 2), 0).unwrap(), &fit_config, &mut rng).unwrap();
        // A speed of 1 rad/s for 0.1 s is 5.7°: over the jump.
        let row = |x: f32| Tensor::<2>::from_floats([[x, 1.0], [x - 40.0, 1.0]], &device);
        let still = || Tensor::<2>::zeros([2, 1], &device);
        let next = model.predict(row(value), still()).unwrap().mean.try_into_vec_as::<f32>().unwrap();
        assert!((next[0] - (value + 5.7 - 360.0)).abs() < 2.0, "{next:?}");
        assert!((next[2] - (value - 40.0 + 5.7)).abs() < 2.0, "{next:?}");
        check::check_dynamics(&model, row(value), still()).unwrap();
        // In units of degrees a step of 0.1 is small beside what the network is curved by.
        check::check_gradients(&model, row(100.0), still(), 0.05).unwrap();
        // Where the data lies is stored.
        let mut again = config(angles).init(2, 1, &device, &mut Rng::new(9)).unwrap();
        again.load(&model.save().unwrap()).unwrap();
        let reloaded = again.predict(row(value), still()).unwrap().mean.try_into_vec_as::<f32>().unwrap();
        assert_eq!(next, reloaded);
    }
}

#[test]
fn a_model_of_an_earlier_version_is_read() {
    // What an earlier version wrote, letter by letter: plain numbers are angles in radians that do not jump.
    let before = concat!(
        r#"{"config":{"members":2,"elites":0,"hidden":[32,32],"activation":"silu","head":"deterministic","#,
        r#""weight_decay":[],"angles":[0],"no_delta":[],"normalize_targets":true,"max_log_var":0.5,"min_log_var":-10.0,"#,
        r#""learn_bounds":true,"bounds_weight":0.01,"reward":false,"termination":false,"past":0},"obs":2,"action":1,"#,
        r#""elites":[0,1]}"#
    );
    let model = config(Angles::radians([0])).init(2, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
    let bytes = model.save().unwrap();
    let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    // Today's has four settings more.
    let today = before.replace(r#""weight_decay""#, r#""variance":"input","weight_decay""#);
    let today = today.replace(r#""normalize_"#, r#""emphasis":{"columns":[],"weight":1.0},"normalize_"#);
    let today = today.replace(r#""reward""#, r#""nll_beta":0.0,"reward""#);
    let today = today.replace(r#""past":0"#, r#""past":0,"hallucinated_steps":0"#);
    assert_eq!(std::str::from_utf8(&bytes[12..12 + length]).unwrap(), today);
    let old = [&bytes[..8], &(before.len() as u32).to_le_bytes(), before.as_bytes(), &bytes[12 + length..]].concat();
    let mut again = config(Angles::radians([0])).init(2, 1, &Device::flex(), &mut Rng::new(9)).unwrap();
    again.load(&old).unwrap();
    assert_eq!(again.save().unwrap(), bytes);
    // A model without angles, with no task named, is stored as before, too.
    let plain = config(Angles::Task).init(2, 1, &Device::flex(), &mut Rng::new(0)).unwrap().save().unwrap();
    assert!(String::from_utf8_lossy(&plain).contains(r#""angles":[],"#));
    // Other angles are other models, of the same shape.
    let angle = AngleColumn { column: 0, turn: 360.0, wraps: false };
    for other in [angle, AngleColumn { wraps: true, ..angle }] {
        let mut other = config(Angles::Columns(vec![other])).init(2, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
        let told = other.load(&bytes).unwrap_err().to_string();
        assert!(told.contains("angles"), "{told}");
    }
}

#[test]
fn angles_are_written_as_task_numbers_or_tables() {
    let read = |text: &str| serde_json::from_str::<Angles>(text);
    let compass = AngleColumn { column: 2, turn: 360.0, wraps: true };
    for (text, angles) in [
        (r#""task""#, Angles::Task),
        ("[]", Angles::NONE),
        ("[0,3]", Angles::radians([0, 3])),
        (r#"[0,{"column":2,"turn":360.0,"wraps":true}]"#, Angles::Columns(vec![AngleColumn::radians(0), compass])),
    ] {
        assert_eq!(read(text).unwrap(), angles);
        assert_eq!(serde_json::to_string(&angles).unwrap(), text);
    }
    for wrong in [r#""none""#, "[-1]", r#"[{"column":2}]"#, "1"] {
        let told = read(wrong).unwrap_err().to_string();
        assert!(told.contains("column"), "{wrong}: {told}");
    }
}
