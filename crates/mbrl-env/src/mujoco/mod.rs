//! MuJoCo: the field's benchmark tasks as Gymnasium 1.4 defines them, and any robot of one's own.
//!
//! The engine is a library in C that must be at hand for the build: `docs/mujoco.md` in the repository says how one
//! command fetches it. The tasks' models are Gymnasium's own files, read at run time from the folder that the environment
//! variable `MBRL_MUJOCO_MODELS` names; where it is not set, from the folder next to the engine at build time.
//!
//! - [`Model`] is compiled MJCF, [`Sim`] a model in a state, [`MujocoEnv`] an environment: a simulation with an
//!   observation, a reward and a start, given by closures ([`MujocoEnv::builder`]) or by a type ([`Rules`]). Actions are the
//!   model's controls, or what one makes of them: a mocap body that is moved, forces ([`Controls`]).
//! - The tasks are made by name like all others ([`tasks::make`](crate::tasks::make)); their options are the fields of
//!   [`HalfCheetahConfig`] and its siblings ([`tasks::make_with`](crate::tasks::make_with)).
//! - [`Renderer`] draws a simulation from a [`Camera`], without a window.
//!
//! What goes into the engine is checked before (widths, finiteness, names). What it warns of, and what it cannot do, which by
//! itself would end the process, is [`EnvError::Simulation`](crate::EnvError::Simulation) and the end of the episode; it prints
//! nothing and writes no `MUJOCO_LOG.TXT`. Three ways to end the process remain:
//!
//! - a program built with `panic = "abort"`, where the engine cannot go on;
//! - memory that the system does not give, while a model is compiled (a height field of absurd size) or a simulation is
//!   made or copied, as everywhere in Rust;
//! - calls of one's own on [`mujoco_rs`]' types, in reach by [`Model::inner`] and [`Sim::data`]: its documentation says which
//!   of them end the process.
//!
//! The engine's messages are taken for the whole process when the first model is loaded. A program that uses [`mujoco_rs`] on
//! other threads too calls [`about()`] before it starts them.

mod about;
mod camera;
mod engine;
mod env;
mod fields;
mod initial;
mod limits;
mod model;
mod render;
mod scene;
mod sim;
mod tasks;
#[cfg(feature = "mujoco-viewer")]
mod viewer;

pub use about::about;
pub use camera::{Camera, View};
pub use env::{Controls, MujocoEnv, MujocoEnvBuilder, Rules, StepOutcome};
pub use initial::InitialState;
pub use model::{ENGINE_VERSION, Model};
pub use mujoco_rs;
pub use render::Renderer;
pub use sim::Sim;
pub use tasks::{
    AntConfig, HalfCheetahConfig, HopperConfig, HumanoidConfig, InvertedDoublePendulumConfig, InvertedPendulumConfig,
    MainBody, PddmHalfCheetahConfig, PusherConfig, PusherReward, ReacherConfig, ReacherReward, RunnerReward,
    SwimmerConfig, TipFalls, Walker2dConfig, WithinLimits, models_folder,
};
pub(crate) use tasks::{pets_halfcheetah, pets_pusher, pets_reacher};
#[cfg(feature = "mujoco-viewer")]
pub use viewer::Viewer;
