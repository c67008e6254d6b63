//! MuJoCo: the field's benchmark tasks as Gymnasium 1.4 defines them, and any robot of one's own.
//!
//! The engine is a library in C that must be at hand for the build: `docs/mujoco.md` in the repository says how one
//! command fetches it. The tasks' models are Gymnasium's own files, read at run time from the folder that the environment
//! variable `MBRL_MUJOCO_MODELS` names; where it is not set, from the folder that lay beside the engine at the build.
//!
//! - [`Model`] is compiled MJCF, [`Sim`] a model in a state, [`MujocoEnv`] an environment: a simulation with an
//!   observation, a reward and a start, given by closures ([`MujocoEnv::builder`]) or by a type ([`Rules`]).
//! - The tasks are made by name like all others ([`tasks::make`](crate::tasks::make)); their options are the fields of
//!   [`HalfCheetahConfig`] and its siblings ([`tasks::make_with`](crate::tasks::make_with)).
//! - [`Renderer`] draws a simulation from a [`Camera`], without a window.
//!
//! Errors of the engine end the process from inside C; so whatever goes into it is checked before (sizes, finiteness,
//! names, limits, memory), and what it warns of becomes [`EnvError::Simulation`](crate::EnvError::Simulation) and the end of
//! the episode.

mod about;
mod camera;
mod env;
mod log;
mod model;
mod render;
mod sim;
mod tasks;
#[cfg(feature = "mujoco-viewer")]
mod viewer;

pub use about::about;
pub use camera::{Camera, View};
pub use env::{Judgement, MujocoEnv, MujocoEnvBuilder, Rules};
pub use model::{ENGINE_VERSION, Model};
pub use mujoco_rs;
pub use render::Renderer;
pub use sim::Sim;
pub(crate) use tasks::make_with;
pub use tasks::{
    HalfCheetahConfig, HopperConfig, InvertedPendulumConfig, PddmHalfCheetahConfig, RunnerReward, WithinLimits,
    models_folder,
};
#[cfg(feature = "mujoco-viewer")]
pub use viewer::Viewer;
