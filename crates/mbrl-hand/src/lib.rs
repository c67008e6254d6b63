//! Robot hands for model-based reinforcement learning: robots, tasks, scores, kinematics and symmetries.
//!
//! | what | where |
//! |---|---|
//! | Robots as data, and the MJCF generated from them: a hand with 24 joints, a claw with nine | [`robot`] |
//! | Positions of fingertips from joint angles; in `f64`, tiles, tensors and duals alike | [`Chain`], [`scalar`] |
//! | Tasks: options, rewards, terminations, scores, knowledge | [`task`] |
//! | From actions to servos | [`Servo`] |
//! | Physics of a task, and variants of it | [`PhysicsConfig`], [`RandomizeConfig`] |
//! | Random actions that keep the handled object | [`RandomActions`] |
//! | Tables of tasks, experiments and studies for a program's registry | [`tasks`], [`EXPERIMENTS`], [`STUDIES`] |
//!
//! All of this is available without MuJoCo; the environments need the feature `mujoco`, and the engine's library
//! (`docs/mujoco.md` in the repository). The tasks are `valve`, `baoding`, `reorient` and `write`, two of them
//! on the Adroit hand too; `docs/hand.md` describes them, with
//! figures.
#![cfg_attr(not(feature = "mujoco"), allow(dead_code, reason = "the environments read much of a task alone"))]

mod blocks;
mod kinematics;
mod objective;
mod random;
mod scene;
mod score;
mod servo;
mod symmetry;
mod table;

pub mod robot;
pub mod scalar;
pub mod task;

#[cfg(feature = "mujoco")]
mod sim;
#[cfg(test)]
mod testing;

pub use kinematics::{Chain, Frame};
pub use objective::{Batched, Objective};
pub use random::RandomActions;
pub use scene::{PERIOD, PhysicsConfig, RandomizeConfig, Variation};
pub use score::Score;
pub use servo::Servo;
pub use table::{EXPERIMENTS, STUDIES, tasks};
