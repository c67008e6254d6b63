//! The outside world for model-based reinforcement learning.
//!
//! (front page: written by the crate's author)

pub use burn::tensor::{Bool, Device, Tensor};

pub mod check;
pub mod tasks;

mod env;
mod error;
mod objective;
mod replay;
mod rng;
mod space;
mod transition;
mod wrappers;

pub use env::{Env, EnvSpec, Info, Simulator, Snapshot, Step, check_action};
pub use error::{EnvError, check_finite, check_width};
pub use objective::{
    Reward, RewardFn, Termination, TerminationFn, Value, ValueFn, reward_fn, termination_fn, value_fn,
};
pub use replay::{Batch, Columns, Replay};
pub use rng::{Rng, philox4x32};
pub use space::{ActionSpace, BoxSpace};
pub use transition::{History, Situation, Transition};
pub use wrappers::TimeLimit;
