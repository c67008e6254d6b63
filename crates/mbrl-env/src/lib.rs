//! The outside world for model-based reinforcement learning: environments, goals, recorded experience and random numbers.
//!
//! This is the lowest layer of [`mbrl`](https://github.com/mbrl-rs/mbrl). It knows nothing of models, planners and
//! agents, which build on it.
//!
//! # Should I be using this crate?
//!
//! - To plan or learn with `mbrl` in **one of its tasks**, you need [`tasks::make`] and little else.
//! - To bring **your own environment**, implement [`Env`], and [`Simulator`] if its complete state can be saved, restored and
//!   cloned; state what you want as a [`Reward`]; let module [`check`] test them.
//! - To plan with **a model of your own and no environment at all**, start at the crate `mbrl-plan`: it re-exports what
//!   you need from here.
//!
//! # Examples
//!
//! A task holds the environment and whatever else planning needs. The same seed gives the same bits:
//!
//! ```
//! use mbrl_env::{Env, tasks};
//!
//! let mut task = tasks::make("cartpole")?;
//! let mut episode = |seed| -> Result<Vec<f32>, mbrl_env::EnvError> {
//!     task.env.reset(Some(seed))?;
//!     loop {
//!         let step = task.env.step(&[0.3])?;
//!         if step.terminated || step.truncated {
//!             return Ok(step.obs);
//!         }
//!     }
//! };
//! assert_eq!(episode(5)?, episode(5)?);
//! assert_ne!(episode(5)?, episode(6)?);
//! # Ok::<(), mbrl_env::EnvError>(())
//! ```
//!
//! A goal is a function of a batch of transitions, separate from the environment, so it can be changed at any time. Rewards
//! have rank 1, one number per row:
//!
//! ```
//! use mbrl_env::{Device, Reward, Tensor, reward_fn};
//!
//! // Be at 2, with little effort.
//! let reward = reward_fn(|_obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>| {
//!     let distance = (next_obs - 2.0).square().sum_dim(1);
//!     let effort = actions.square().sum_dim(1) * 0.1;
//!     -(distance + effort).squeeze_dim::<1>(1)
//! });
//! let device = Device::flex();
//! let row = |x: f32| Tensor::<2>::from_data([[x]], &device);
//! let value = reward.reward(row(0.0), row(1.0), row(1.0)).into_scalar::<f32>();
//! assert!((value + 1.1).abs() < 1e-6);
//! ```
//!
//! A simulator can be restored to an earlier state, generators and counters included:
//!
//! ```
//! use mbrl_env::{Env, Simulator, tasks};
//!
//! let mut sim = tasks::make("pendulum")?.env.into_simulator()?;
//! sim.reset(Some(0))?;
//! let here = sim.save();
//! let one_way = sim.step(&[2.0])?;
//! sim.restore(&here)?;
//! let other_way = sim.step(&[-2.0])?;
//! sim.restore(&here)?;
//! assert_ne!(one_way, other_way);
//! assert_eq!(one_way, sim.step(&[2.0])?);
//! # Ok::<(), mbrl_env::EnvError>(())
//! ```
//!
//! # What is in it
//!
//! | | |
//! | --- | --- |
//! | The episode contract | [`Env`], [`EnvSpec`], [`Step`], [`ActionSpace`], [`BoxSpace`] |
//! | Environments whose complete state can be saved, restored and cloned | [`Simulator`], [`Snapshot`] |
//! | Either of the two, owned | [`World`] |
//! | What columns are: names, units, angles | [`Field`], [`FieldKind`], [`AngleColumn`] |
//! | Goals, in batches | [`Reward`], [`Termination`], [`Value`]; closures by [`reward_fn`], [`termination_fn`], [`value_fn`] |
//! | The same as text over named columns | [`Expression`] |
//! | What an agent knows when it acts | [`Situation`], [`History`] |
//! | Recorded experience | [`Transition`], [`Replay`], [`Columns`] |
//! | Transitions from files of other programs | [`data`]: CSV, Parquet and NumPy, with the features of these names |
//! | Random numbers | [`Rng`]: explicit, counter-based, serialisable; [`philox4x32`] under it |
//! | Episodes on all threads | [`collect`](collect()), [`collect_with`]; [`collect_in`] in several processes |
//! | Time limits | [`TimeLimit`], the only place where episodes are truncated |
//! | What makes a world harder | [`ActionRepeat`], [`ActionLimits`], [`Noise`], [`Delay`], [`Pixels`], around any environment; as plain data [`WrappersConfig`] |
//! | Tasks by name, and tables of your own | [`tasks`]: `pendulum`, `cartpole`, `cartpole-swingup`, `reacher`, `point-mass`, `mountain-car`, `cliff`, and two of them as pictures |
//! | Pictures instead of numbers | [`Raster`], [`Pixels`]: an environment that shows its sketch |
//! | Environments in other processes, for example in Python | [`process`] |
//! | Tests for environments of your own | [`check`] |
//!
//! # Themes
//!
//! - **Batches on Burn tensors, episodes on the host.** What planners call millions of times ([`Reward`],
//!   [`Termination`], [`Value`]) takes `[N, O]` tensors on whatever device they are on and lets gradients through; the
//!   real world is stepped one `&[f32]` at a time. No function here picks a device.
//! - **`terminated` is not `truncated`.** Nothing follows a terminal state; a time limit cuts an episode that would have continued.
//! - **No hidden randomness.** Every draw comes from an [`Rng`] that is passed in or seeded by `reset`.
//! - **Bad input is an [`EnvError`]** that says what was expected and what was given, and changes nothing.
//!
//! # Crate features
//!
//! None is on by default. `csv`, `numpy` and `parquet` switch on the readers of module [`data`]. `flex`, `ndarray`, `wgpu` and
//! `cuda` switch on Burn's backend of that name; binaries choose one, libraries do not.

pub use burn::tensor::{Bool, Device, Tensor};

#[doc(hidden)]
pub mod atomic_file;
pub mod check;
pub mod data;
pub mod lanes;
#[cfg(feature = "mujoco")]
pub mod mujoco;
#[doc(hidden)]
pub mod nearest;
pub mod process;
pub mod tasks;

#[cfg(feature = "mujoco")]
mod animation;
mod collect;
mod env;
mod error;
mod expression;
mod field;
mod frame;
mod knowledge;
mod objective;
mod raster;
mod replay;
mod rng;
mod scene;
mod sketch;
mod space;
mod transition;
mod world;
mod wrappers;

#[cfg(feature = "mujoco")]
pub use animation::write_animation;
pub use collect::{collect, collect_in, collect_with};
pub use env::{Env, EnvSpec, Info, Simulator, Snapshot, Step, check_action};
pub use error::{EnvError, check_finite, check_width};
pub use expression::{ColumnNames, Expression, ExpressionError};
pub use field::{AngleColumn, Field, FieldKind};
pub use frame::Frame;
pub use knowledge::{Augment, Features, Knowledge, Known, KnownAt, KnownGrads, Lanes, TILE};
pub use objective::{
    Reward, RewardFn, Termination, TerminationFn, Value, ValueFn, reward_fn, termination_fn, value_fn,
};
pub use raster::Raster;
pub use replay::{Batch, Columns, RecordField, RecordKind, Replay, ReplayIndex};
pub use rng::{Rng, philox4x32};
pub use scene::{Form, Scene, Solid};
pub use sketch::{Role, Shape, Sketch, SketchFn};
pub use space::{ActionSpace, BoxSpace};
pub use transition::{History, MAX_PAST, Situation, Transition};
pub use world::World;
pub use wrappers::{
    ActionLimits, ActionRepeat, Delay, LimitsConfig, Noise, NoiseStd, Own, Pixels, TimeLimit, WrappersConfig,
    check_delay,
};

/// The example of the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
