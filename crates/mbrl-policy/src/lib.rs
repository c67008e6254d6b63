//! Agents that learn a model of their world and control it by planning, the loop that runs them, and the files
//! that a run leaves behind.
//!
//! # Overview
//!
//! - [`Agent`] chooses actions; [`Learner`] is an agent that learns from what it observes.
//! - [`MpcAgent`] plans through any given model, such as the simulator itself, towards any [`Goal`]; [`ModelBased`] also
//!   learns the model (PETS, PDDM); [`RandomAgent`] is the baseline.
//! - [`Policy`] maps observations to actions; [`Sac`] and [`Td3`] improve one on batches of transitions ([`OffPolicy`]), and
//!   [`ModelFree`] feeds them real ones: the reference for agents with a model. [`Mbpo`] also learns a model, and feeds them imagined
//!   transitions ([`imagine`]) and gradients through the model ([`ModelLookahead`]).
//! - [`ExportedPolicy`] is a policy in a file of its own, which runs without the program that trained it; [`ExportedAgent`] is a
//!   planning agent with its experiment, in such a file.
//! - [`TrainConfig`] makes a [`Training`]: the loop of acting, learning, evaluating and storing.
//! - [`evaluate`] judges an agent on fixed start states.
//! - [`experiment`] makes all of these from a TOML text, as the command line does, for your own programs.
//! - [`realtime`] drives a robot with an agent: one command per control period, within limits, with planning on a thread of its own.
//! - An [`Observer`] watches a run; [`RunFiles`] keep its metrics, which [`MetricsReader`] reads, its [`Checkpoints`], and
//!   what it was made with ([`Provenance`]).
//!
//! # Should I be using this crate?
//!
//! To train an agent on a built-in task, use the command line, `mbrl`. Use this crate to train on your own
//! environment, with your own goal, from your own program, or to write another learner that gets evaluation, metrics
//! and checkpoints for free. If you only want to plan through a model that you already have, `mbrl-plan` is enough.
//!
//! # Example: learn and plan
//!
//! All parts of a run in one place, on the pendulum with a model and a budget far too small to swing it up.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use mbrl_env::{Env, tasks};
//! use mbrl_model::{EnsembleConfig, FitConfig, MemberRule, Propagation};
//! use mbrl_plan::{CemConfig, Mpc, Replan};
//! use mbrl_policy::{Device, Goal, ModelBasedConfig, Outcome, TrainConfig};
//!
//! let mut task = tasks::make("pendulum")?;
//! let spec = task.env.spec().clone();
//! let mut training = TrainConfig::default().init(210, 0)?; // 210 real steps from seed 0
//!
//! let model = EnsembleConfig { members: 2, hidden: vec![16], ..EnsembleConfig::default() }
//!     .init(3, 1, &Device::flex(), &mut training.split_rng())?;
//! let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 2 };
//! let planner = CemConfig { horizon: 4, population: 10, elites: 2, iterations: 1, ..CemConfig::default() }
//!     .init(&spec.actions, propagation)?;
//! let mpc = Mpc::new(Box::new(planner), Replan::EveryStep)?;
//! let fit = FitConfig { max_epochs: 2, ..FitConfig::default() };
//! let mut agent = ModelBasedConfig::default().init(&spec, model, fit, Goal::of_task(&task), mpc)?;
//!
//! let stop = AtomicBool::new(false); // raised by Ctrl-C, say
//! let outcome = training.run(&mut task.env, &mut agent, None, &mut (), &stop)?;
//! assert_eq!((outcome, training.episode(), agent.is_fitted()), (Outcome::Finished, 2, true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Example: a baseline
//!
//! Every agent is judged from the same start states.
//!
//! ```
//! use mbrl_env::{Env, tasks};
//! use mbrl_policy::{RandomAgent, evaluate, start_seeds};
//!
//! let mut task = tasks::make("pendulum")?;
//! let mut random = RandomAgent::new(task.env.spec().actions.clone());
//! let found = evaluate(&mut task.env, &mut random, &start_seeds(0, 5))?;
//! assert!(found.return_mean() < -500.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a run promises
//!
//! - **Every real step counts**, random ones and those of a cut episode included; evaluation episodes do not.
//! - **One seed, one result**: every random number comes from the run's generator. Two runs differ in
//!   [`WALL_TIME_KEYS`] alone.
//! - **A kill changes nothing, and loses no more than the episodes since the newest checkpoint** (by default only the
//!   interrupted one): checkpoints are written whole at episode ends, and a resumed run repeats what came after them with the
//!   same random numbers.
//! - **A NaN is named where it appears**: the world's as [`AgentError::NonFiniteWorld`], the agent's as
//!   [`AgentError::Action`]. A fit whose loss becomes NaN is reported, and the run continues with the model of the
//!   previous fit.
//!
//! # Crate features
//!
//! None is on by default, and the library never picks a device. `flex`, `ndarray`, `wgpu` and `cuda` forward to
//! Burn's backends.

pub use burn::tensor::{Device, Tensor};
pub use mbrl_env::{MAX_PAST, World};

mod agent;
mod checkpoint;
mod cloning;
mod diagnose;
mod error;
mod evaluate;
pub mod experiment;
mod export;
mod files;
mod given;
mod goal;
mod guided;
mod imagine;
mod lasting;
mod limits;
mod lookahead;
mod mbpo;
mod means;
mod metrics;
mod model_based;
mod model_free;
mod model_learner;
mod mpc_agent;
mod observer;
mod off_policy;
mod on_policy;
mod policy;
mod propose;
mod provenance;
pub mod realtime;
mod record;
mod train;
mod value;
mod world;

pub use agent::{ActMode, Acted, Agent, Learned, LearnedValue, Learner, RandomAgent, Report, ReportKind, Turn};
pub use checkpoint::{CheckpointReader, CheckpointWriter, Checkpoints, Newest};
#[doc(hidden)]
pub use checkpoint::{FORMAT, KEPT};
pub use cloning::{CloningConfig, CloningReport};
pub use diagnose::{
    DiagnoseConfig, Diagnosis, PlanDiagnosis, Planning, PolicyDiagnosis, Promise, ValueDiagnosis, Visited,
};
pub use error::AgentError;
pub use evaluate::{
    Evaluation, EvaluationEpisode, MAX_EPISODES, evaluate, evaluate_stoppable, evaluate_together, evaluate_watched,
    start_seeds,
};
pub use export::{ExportedAgent, ExportedPolicy, POLICY_EXTENSION, PolicyInfo, PolicyNetwork};
#[doc(hidden)]
pub use files::{FolderLock, sync_parent, write_atomically};
pub use given::GivenValue;
pub use goal::{Goal, GoalKey, TerminalValue};
pub use guided::{DistilConfig, DistilRole, Guided, GuidedConfig, PlanningAgent, ValueConfig, ValueSource, WarmUpBy};
pub use imagine::{Act, Imagination, Rollouts, imagine};
pub use lookahead::ModelLookahead;
pub use mbpo::{GrowingLength, Imagining, Mbpo, MbpoConfig, RolloutConfig, RolloutLength, RolloutStarts};
pub use metrics::{MetricsWriter, WALL_TIME_KEYS};
pub use model_based::{FitSchedule, ModelBased, ModelBasedConfig};
pub use model_free::{ModelFree, ModelFreeConfig};
pub use model_learner::ModelLearner;
pub use mpc_agent::MpcAgent;
pub use observer::{Moment, Observer, Phase, Scalars};
pub use off_policy::{
    ActorCritic, ActorGradient, CriticPass, Critics, CriticsConfig, Lookahead, OffPolicy, OnDevice, OnHost,
    PolicyValue, Reduction, Sac, SacConfig, Td3, Td3Config,
};
pub use on_policy::{
    Baseline, BaselineConfig, Npg, NpgConfig, PolicyBatch, StochasticConfig, StochasticPolicy, advantages,
    conjugate_gradients,
};
pub use policy::{ActionScale, Actor, ActorConfig, ActorHead, ActorPass, Inputs, Policy, PolicyAgent, PolicyDraw};
pub use propose::PolicyProposals;
pub use provenance::Provenance;
pub use record::{MetricsLine, MetricsReader};
pub use train::{Best, Outcome, RunFiles, TrainConfig, Training, WhichCheckpoint};
pub use value::{StateValue, Trajectory, ValueLearner, ValueNetConfig, ValueReport, lambda_returns};
pub use world::EpisodeSummary;
