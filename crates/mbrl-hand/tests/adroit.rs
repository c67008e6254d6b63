//! The tasks on the Adroit hand: `eval "$(crates/mbrl-hand/scripts/get-adroit)"`, then with `-- --ignored`.
#![cfg(feature = "mujoco")]

use mbrl_env::{Device, Env, Rng, Simulator, check, mujoco::MujocoEnv, tasks::Options};
use mbrl_hand::{task::AdroitPenConfig, tasks};
use serde_json::Value;

fn make(name: &str) -> mbrl_env::tasks::Task {
    let entries = tasks();
    entries.iter().find(|entry| entry.name() == name).unwrap().make(&Options::new()).unwrap()
}

#[test]
#[ignore = "needs the Adroit hand's files"]
fn environments_keep_their_contracts() {
    for name in ["baoding-adroit", "reorient-adroit", "AdroitHandPen"] {
        let mut task = make(name);
        check::check_env(&mut task.env).unwrap();
        check::check_simulator(task.env.simulator_mut().unwrap()).unwrap();
        let (reward, termination) = (task.reward.as_deref().unwrap(), task.termination.as_deref());
        check::check_reward_agrees(&mut task.env, reward, termination, 3, &Device::flex(), &mut Rng::new(0)).unwrap();
        if let Some(known) = task.knowledge.known.clone() {
            check::check_known(&*known, &mut task.env, 2, &Device::flex(), &mut Rng::new(0)).unwrap();
        }
    }
}

#[test]
#[ignore = "needs the Adroit hand's files"]
fn at_rest_the_objects_stay_for_ten_seconds() {
    for name in ["baoding-adroit", "reorient-adroit"] {
        for seed in 0..5 {
            let entries = tasks();
            let entry = entries.iter().find(|entry| entry.name() == name).unwrap();
            let options = Options::new().with("max_steps", 100);
            let mut env: Box<dyn Simulator> = entry.make(&options).unwrap().env.into_simulator().unwrap();
            let first = env.reset(Some(seed)).unwrap();
            println!("{name}, seed {seed}: starts at {:?}, targets {:?}", &first[48..57], &first[60..64]);
            for step in 0..100 {
                let outcome = env.step(&[0.0; 24]).unwrap();
                assert!(!outcome.terminated, "{name}, seed {seed}: over after {step} steps");
                if step == 99 {
                    println!("{name}, seed {seed}: ends at {:?}", &outcome.obs[48..57]);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs the Adroit hand's files"]
fn a_cube_that_turns_up_rises_on_the_side_of_the_fingers() {
    let entries = tasks();
    // Fingers of the Adroit hand point along y, ours along x: these axes of the goal.
    for (name, axis) in [("reorient-adroit", 72), ("reorient", 69)] {
        let entry = entries.iter().find(|entry| entry.name() == name).unwrap();
        for (goal, sign) in [("up", 1.0), ("half-up", 1.0), ("down", -1.0)] {
            let obs = entry.make(&Options::new().with("goals", goal)).unwrap().env.reset(Some(0)).unwrap();
            assert!(sign * obs[axis + 2] > 0.6, "{name}, {goal}: {:?}", &obs[69..75]);
        }
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
#[ignore = "needs the Adroit hand's files"]
fn the_pen_goes_as_in_gymnasium_robotics() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/adroit_pen.json")).unwrap();
    let mut env: MujocoEnv = AdroitPenConfig::default().init("AdroitHandPen").unwrap();
    let mut state = env.sim().model().initial_state();
    let target = env.sim().model().mocap("target").unwrap();
    state.mocap_quat[target].copy_from_slice(&numbers(&fixture["wanted"]));
    let near = |what: &str, found: &[f32], expected: &[f64]| {
        for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
            let off = (f64::from(*found) - expected).abs();
            assert!(off <= 1e-6 * expected.abs().max(1.0), "{what}, column {column}: {found}, expected {expected}");
        }
    };
    near("at the start", &env.begin(&state).unwrap(), &numbers(&fixture["first"]));
    for (number, step) in fixture["steps"].as_array().unwrap().iter().enumerate() {
        let action: Vec<f32> = numbers(&step["action"]).into_iter().map(|a| a as f32).collect();
        let found = env.step(&action).unwrap();
        near(&format!("after step {number}"), &found.obs, &numbers(&step["obs"]));
        let reward = step["reward"].as_f64().unwrap();
        assert!((found.reward - reward).abs() < 1e-5, "step {number}: {}, expected {reward}", found.reward);
        assert_eq!(found.info["success"] > 0.5, step["success"].as_bool().unwrap());
    }
}
