//! Dynamics models: anything that predicts N next states from N states and N actions.
//!
//! Everything that uses a model (planners, evaluation, imagination) is written once against the trait [`Dynamics`]; ensembles
//! learned from experience, simulators and closures implement it.
//!
//! - [Should I use this crate?](#should-i-use-this-crate)
//! - [Example: learn a system](#example-learn-a-system-ask-for-its-next-state-and-for-how-sure-that-is)
//! - [Example: equations as a model](#example-equations-as-a-model-rolled-out)
//! - [Models and what they can do](#models-and-what-they-can-do)
//! - [Themes](#themes), [features](#features)
//!
//! # Should I use this crate?
//!
//! - To **plan with equations you know**, take [`dynamics_fn`] and the crate `mbrl-plan`; you need nothing else from here.
//! - To **learn a model from transitions**, take [`EnsembleConfig`], [`Dataset`] and [`fit`](fit()).
//! - To **find masses, lengths and frictions from measurements**, take [`Physics`] and [`identify`].
//! - To **plan with a simulator as the model**, take [`SimulatorModel`].
//! - For a whole agent that explores, learns and plans, take `mbrl-policy`, or the command line tool `mbrl`.
//!
//! It is not a general training framework: the trainer fits dynamics models, to single steps or to windows of several steps, and does that well.
//!
//! # Example: learn a system, ask for its next state and for how sure that is
//!
//! ```
//! use mbrl_env::Rng;
//! use mbrl_model::{Dataset, Device, Dynamics, EnsembleConfig, FitConfig, Tensor, fit};
//!
//! // 500 transitions of s' = 0.9 s + a, in columns.
//! let mut rng = Rng::new(0);
//! let obs: Vec<f32> = (0..500).map(|_| rng.uniform(-1.0, 1.0)).collect();
//! let actions: Vec<f32> = (0..500).map(|_| rng.uniform(-1.0, 1.0)).collect();
//! let next: Vec<f32> = obs.iter().zip(&actions).map(|(s, a)| 0.9 * s + a).collect();
//! let data = Dataset::new(obs, actions, next, 1, 1)?;
//!
//! let device = Device::flex();
//! let config = EnsembleConfig { hidden: vec![32, 32], ..EnsembleConfig::default() };
//! let mut model = config.init(1, 1, &device, &mut rng)?;
//! fit(&mut model, &data, &FitConfig { batch_size: 64, max_epochs: 40, ..FitConfig::default() }, &mut rng)?;
//!
//! let at = |s: f32, a: f32| model.predict(Tensor::from_floats([[s]], &device), Tensor::from_floats([[a]], &device));
//! let inside = at(0.5, 0.2)?;
//! assert!((inside.mean.into_scalar::<f32>() - 0.65).abs() < 0.1);
//! // Members agree where there was data, and less where there was none.
//! let outside = at(20.0, 0.2)?;
//! assert!(outside.epistemic_std.unwrap().into_scalar::<f32>() > inside.epistemic_std.unwrap().into_scalar::<f32>());
//! # Ok::<(), mbrl_model::ModelError>(())
//! ```
//!
//! # Example: equations as a model, rolled out
//!
//! ```
//! use mbrl_model::{Device, Draw, Dynamics, Propagation, Situation, Start, Tensor, dynamics_fn};
//!
//! // A tank that fills by its action and leaks a tenth per step; K = 2 candidates of H = 3 actions from one situation.
//! let device = Device::flex();
//! let tank = dynamics_fn(1, 1, &device, |level, inflow| level * 0.9 + inflow);
//! let actions = Tensor::<3>::from_floats([[[1.0], [0.0]], [[1.0], [0.0]], [[1.0], [0.0]]], &device); // [H, K, A]
//! let draw = Draw::new(Propagation::MEAN, 0);
//! let imagined = tank.rollout(Start::Situation(Situation::of(&[0.0])), actions, draw)?;
//! assert_eq!(imagined.obs.dims(), [4, 2, 1]); // [H + 1, K, O], the start included
//! assert!((imagined.obs.into_data().iter::<f32>().nth(6).unwrap() - 2.71).abs() < 1e-6);
//! # Ok::<(), mbrl_model::ModelError>(())
//! ```
//!
//! # Models and what they can do
//!
//! | model | learned | uncertainty | gradients | needs |
//! |---|---|---|---|---|
//! | [`Ensemble`], Gaussian head | yes | aleatoric and epistemic | yes | transitions; rewards and terminations for their heads |
//! | [`Ensemble`], deterministic head | yes | epistemic | yes | the same |
//! | [`LatentModel`] | yes | none | yes | episodes of images and rewards |
//! | [`DynamicsFn`] | no | none | if the closure's operations have them | equations |
//! | [`PhysicsModel`] | its unknown parameters | standard errors of the parameters | yes | equations, and measured trajectories |
//! | [`Residual`] | the errors of its base | those of its ensemble | if both have them | a base and transitions |
//! | [`SimulatorModel`] | no | none | no | a [`Simulator`] and its snapshot |
//!
//! # Themes
//!
//! - **Where things run.** A Burn [`Device`] is chosen at run time; no backend is forced. On a CPU, roll-outs
//!   without gradients run on a fused engine that keeps a block of rows in cache through all layers and steps; with
//!   gradients, or on a GPU, they run as Burn tensors. Both agree to 1e-5 per step and draw the same noise.
//! - **Randomness** is a function of (key, step, row, dimension): see [`fill_normal`]. The number of threads and the
//!   division into blocks change no bit.
//! - **Propagation of uncertainty**: [`Propagation`] and [`MemberRule`] (expectation, TS1, TS∞, DS).
//! - **Rewards and terminations** come from the task, unless they cannot be written down: then an ensemble learns them too
//!   ([`EnsembleConfig::reward`], [`EnsembleConfig::termination`]).
//! - **What one observation hides**, such as a speed, an ensemble infers from the preceding steps: [`EnsembleConfig::past`].
//! - **Angles** enter networks as sine and cosine, in any unit, and may jump by a full turn: [`Angles`]. Columns far from
//!   their origin keep the precision of their changes: [`Dataset::of_f64`].
//! - **What is known about a task** besides data: features that networks see, symmetries that fits use, columns that need not be learned
//!   ([`EnsembleConfig::init_for_task`]).
//! - **Images** are encoded into a latent space, where dynamics and rewards are learned: [`LatentConfig`].
//! - **Memory**: a model may carry a belief through a whole episode ([`Dynamics#models-with-memory`]).
//! - **Equations with unknown constants**: write a [`Physics`], or take one of the [`MACHINES`]; [`identify`] finds the constants, says how sure it is
//!   and names what the data do not determine.
//! - **Judging a model**: [`evaluate`](evaluate()) rolls it out under recorded actions: error after k steps compared with
//!   two baselines, calibration and sharpness.
//! - **A model in a folder**: [`FittedModel::open`] loads what `mbrl fit` wrote, with names, units, period and ranges.
//! - **Your own networks**, for policies, critics and values: module [`mlp`].
//! - **Your own model**: implement [`Dynamics`] (three methods), then call [`check::check_dynamics`] in its tests;
//!   implement `Fit` to train it with the same trainer, which also fits policies and anything else that has a loss.
//!
//! # Features
//!
//! - `train` (default): fitting, with Burn's autodiff and optimizers. Planning with given models needs none of it.
//! - `flex`, `ndarray`, `wgpu`, `cuda`: forwarded to Burn, for binaries, tests and examples. With `wgpu` or `cuda`, noise is
//!   made on the GPU.
//! - `fusion`: Burn's fusion of element-wise operations on GPUs. Enable it here, not with Burn's feature alone.
//!
//! Spans of [`tracing`]: `fit` (debug; an event per epoch), `imagine` (trace; a roll-out).

pub use burn::tensor::{Bool, Device, Tensor};
pub use mbrl_env::{
    AngleColumn, EnvError, EnvSpec, Field, History, Replay, Rng, Simulator, Situation, Snapshot, Transition,
};

pub mod check;
mod closure;
mod dataset;
mod dynamics;
mod ensemble;
mod error;
mod evaluate;
#[cfg(feature = "train")]
mod fit;
mod fitted;
mod latent;
#[cfg(feature = "train")]
mod learned;
pub mod mlp;
mod noise;
mod normalizer;
mod physics;
mod residual;
mod simulated;
mod taped;
mod vmath;

pub use closure::{DynamicsFn, dynamics_fn};
pub use dataset::Dataset;
pub use dynamics::{
    Choose, Chunk, Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, Prediction, Propagation, Start, Trajectories,
    belief_of, is_cpu, rollout_by_steps,
};
pub use ensemble::{Angles, Emphasis, Ensemble, EnsembleConfig, Head, Network, Precision, Variance};
#[cfg(feature = "train")]
pub use ensemble::{EnsembleExamples, EnsembleStatistics};
pub use error::ModelError;
pub use evaluate::{Calibration, EvaluateConfig, ModelEvaluation, OneStepEvaluation, StepEvaluation, evaluate};
#[cfg(feature = "train")]
pub use fit::{Epoch, Examples, Fit, FitBatch, FitConfig, FitReport, Pairs, Stepper, fit, fit_watched};
pub use fitted::{DataCard, FittedModel, ModelCard, ResultCard};
#[cfg(feature = "train")]
pub use latent::LatentExamples;
pub use latent::{LatentConfig, LatentModel, LatentNetwork, LatentNorm, LatentStatistics};
#[cfg(feature = "train")]
pub use learned::LearnedModel;
pub use mlp::Activation;
pub use noise::{fill_normal, normals, truncated_normals, uniforms};
pub use normalizer::Normalizer;
pub use physics::{
    Bound, CartPole, DcMotor, Estimate, Identification, IdentifiedModel, IdentifyConfig, MACHINES, Named, Num,
    Parameter, Pendulum, Physics, PhysicsModel, TwoLinkArm, Undetermined, identify, machine, runge_kutta,
};
#[cfg(feature = "train")]
pub use physics::{PhysicsLogs, PhysicsWindows};
pub use residual::Residual;
pub use simulated::SimulatorModel;
pub use taped::{Pullback, Taped, sample_taped_by_autodiff};

/// Compiles and runs the code of the README.
#[cfg(all(doctest, feature = "train", feature = "flex"))]
#[doc = include_str!("../README.md")]
struct Readme;
