//! MuJoCo: the field's benchmark tasks as Gymnasium 1.4 defines them, and your own robots.
//!
//! The engine is a C library that the build needs: `docs/mujoco.md` in the repository has the
//! command that fetches it. The tasks' models are Gymnasium's own files, read at run time from the folder that the environment
//! variable `MBRL_MUJOCO_MODELS` names or, if it is not set, from the folder next to the engine at build time.
//!
//! - [`Model`] is compiled MJCF, [`Sim`] a model in a state, [`MujocoEnv`] an environment: a simulation with an
//!   observation, a reward and a start, given by closures ([`MujocoEnv::builder`]) or by a type ([`Rules`]). Actions are the
//!   model's controls, or whatever you define: moving a mocap body, forces ([`Controls`]).
//! - The tasks are made by name like all others ([`tasks::make`](crate::tasks::make)); their options are the fields of
//!   [`HalfCheetahConfig`] and its siblings ([`tasks::make_with`](crate::tasks::make_with)).
//! - [`Renderer`] draws a simulation from a [`Camera`], without a window.
//!
//! All input to the engine is checked first (widths, finiteness, names). Its warnings and its fatal errors, which by default
//! end the process, become [`EnvError::Simulation`](crate::EnvError::Simulation) and end the episode; it prints
//! nothing and writes no `MUJOCO_LOG.TXT`. Three ways to end the process remain:
//!
//! - a fatal error of the engine in a program built with `panic = "abort"`;
//! - lack of memory while a model is compiled (a height field of absurd size) or a simulation is
//!   made or copied, as everywhere in Rust;
//! - your own calls on [`mujoco_rs`]' types, accessible by [`Model::inner`] and [`Sim::data`]: its documentation says which
//!   of them end the process.
//!
//! Loading the first model redirects the engine's messages for the whole process. A program that also uses [`mujoco_rs`] on
//! other threads calls [`about()`] before it starts them.

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
