//! The tasks against the environments that they replicate, step by step; `fixtures/make_fixtures.py` recorded those.
//!
//! Two questions: does one step from upstream's own state give upstream's step, and does a whole episode stay on
//! upstream's track? Equal bits cannot be asked for: sine and cosine come from different libraries, which differ by one
//! unit in the last place (2e-16 of a number), and chaos carries such a difference on.
//!
//! What it would have shown: an action in double precision (rewards of the pendulum off by 1e-10), the reward of the
//! state after the step, semi-implicit in place of explicit Euler.

use mbrl_env::{
    Env, Step,
    tasks::{CartPole, Pendulum},
};
use serde_json::Value;

/// A few units in the last place, relative to max(1, |x|).
const ONE_STEP: f64 = 4e-15;
/// The largest difference measured over the recorded episodes is 2e-13; a wrong rounding of the action alone gives 1e-8.
const WHOLE_EPISODE: f64 = 1e-11;

struct Recorded {
    action: f32,
    state: Vec<f64>,
    obs: Vec<f64>,
    reward: f64,
    terminated: bool,
}

fn numbers(text: &Value) -> Vec<f64> {
    text.as_str().unwrap().split(' ').map(|number| number.parse().unwrap()).collect()
}

fn episodes(json: &str) -> Vec<(Vec<f64>, Vec<Recorded>)> {
    let root: Value = serde_json::from_str(json).unwrap();
    let step = |step: &Value| Recorded {
        action: numbers(&step["action"])[0] as f32,
        state: numbers(&step["state"]),
        obs: numbers(&step["obs"]),
        reward: numbers(&step["reward"])[0],
        terminated: step["terminated"].as_bool().unwrap(),
    };
    let episode = |episode: &Value| {
        (numbers(&episode["start"]), episode["steps"].as_array().unwrap().iter().map(step).collect())
    };
    root["episodes"].as_array().unwrap().iter().map(episode).collect()
}

fn assert_close(what: &str, ours: f64, upstream: f64, tolerance: f64) -> f64 {
    let error = (ours - upstream).abs() / upstream.abs().max(1.0);
    assert!(error <= tolerance, "{what}: {ours}, upstream {upstream}, differ by {error:e}");
    error
}

/// Compares all episodes and returns the largest differences: of one step, of a whole episode.
fn align<const N: usize, E: Env>(
    json: &str,
    mut env: E,
    set_state: impl Fn(&mut E, [f64; N]),
    state: impl Fn(&E) -> [f64; N],
) -> (f64, f64) {
    let as_state = |numbers: &[f64]| -> [f64; N] { numbers.try_into().unwrap() };
    let compare = |at: &str, env: &E, step: &Step, recorded: &Recorded, tolerance: f64| {
        let mut worst = 0.0_f64;
        for (ours, upstream) in state(env).iter().zip(&recorded.state) {
            worst = worst.max(assert_close(&format!("state {at}"), *ours, *upstream, tolerance));
        }
        // One unit in the last place of a float32: a difference in the 16th digit may turn a rounding.
        for (ours, upstream) in step.obs.iter().zip(&recorded.obs) {
            let rounded = *upstream as f32;
            let error = (ours - rounded).abs();
            assert!(error <= f32::EPSILON * rounded.abs(), "obs {at}: {ours}, upstream {rounded}");
        }
        worst = worst.max(assert_close(&format!("reward {at}"), step.reward, recorded.reward, tolerance));
        assert_eq!((step.terminated, step.truncated), (recorded.terminated, false), "flags {at}");
        assert_eq!(step.obs.len(), recorded.obs.len());
        worst
    };

    let (mut one_step, mut whole) = (0.0_f64, 0.0_f64);
    for (index, (start, steps)) in episodes(json).into_iter().enumerate() {
        let mut from = as_state(&start);
        for (time, recorded) in steps.iter().enumerate() {
            set_state(&mut env, from);
            let step = env.step(&[recorded.action]).unwrap();
            let at = format!("of step {time}, episode {index}");
            one_step = one_step.max(compare(&at, &env, &step, recorded, ONE_STEP));
            from = as_state(&recorded.state);
        }
        set_state(&mut env, as_state(&start));
        for (time, recorded) in steps.iter().enumerate() {
            let step = env.step(&[recorded.action]).unwrap();
            let at = format!("after steps 0 to {time}, episode {index}");
            whole = whole.max(compare(&at, &env, &step, recorded, WHOLE_EPISODE));
        }
    }
    (one_step, whole)
}

#[test]
fn pendulum_is_gymnasiums() {
    let set_state = |env: &mut Pendulum, state| drop(env.set_state(state).unwrap());
    let worst = align(include_str!("fixtures/pendulum.json"), Pendulum::new(), set_state, Pendulum::state);
    println!("largest differences: {worst:?}");
}

#[test]
fn cartpole_is_mbrl_libs() {
    let set_state = |env: &mut CartPole, state| drop(env.set_state(state).unwrap());
    let worst = align(include_str!("fixtures/cartpole.json"), CartPole::new(), set_state, CartPole::state);
    println!("largest differences: {worst:?}");
}
