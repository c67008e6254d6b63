//! Environments on MuJoCo keep the contract.
#![cfg(feature = "mujoco")]

use mbrl_env::{check, tasks};

const TASKS: &[&str] = &["HalfCheetah-v5", "Hopper-v5"];

#[test]
fn every_task_keeps_the_contract() {
    for name in TASKS {
        let mut task = tasks::make(name).unwrap();
        check::check_env(&mut task.env).unwrap();
        check::check_simulator(&mut task.env).unwrap();
    }
}
