//! Planning through any model of dynamics: choose actions by looking ahead.
//!
//! Jump to: [an example](#example) · [discrete actions](#choices-instead-of-numbers) · [which planner](#the-planners) ·
//! [what a problem is](#what-a-problem-is) · [contracts](#contracts) · [features](#crate-features).
//!
//! # Should I be using this crate?
//!
//! If you can say how actions change the state (a closure, a simulator, a learned network: a [`Dynamics`]) and what you
//! want (a [`Reward`]), this crate finds the actions. Only the planners that follow gradients need anything to be
//! differentiable, and nothing is trained. Expect to pay at every control step: a plan usually takes thousands to tens of
//! thousands of model steps. Plans reach as far as their horizon and are as accurate as the model.
//!
//! If you want an agent that also learns the model, use `mbrl-policy`, which builds on this crate.
//!
//! # Example
//!
//! `cargo add mbrl-plan -F flex` is all that it needs: this crate re-exports the items from `mbrl-env`, `mbrl-model` and Burn
//! that its signatures use.
//!
//! A mass on a rail is to stop at 0. The model and the reward are closures over N states at once.
//!
//! ```
//! use mbrl_plan::{
//!     ActionSpace, BoxSpace, CemConfig, Device, Mpc, Problem, Propagation, Replan, Rng, Situation, Tensor, dynamics_fn,
//!     reward_fn,
//! };
//!
//! let device = Device::flex();
//! // State: position and speed [N, 2]; action: force [N, 1]; 0.1 s per step.
//! let model = dynamics_fn(2, 1, &device, |s, a| {
//!     let speed = s.clone().narrow(1, 1, 1);
//!     s + Tensor::cat(vec![speed * 0.1, a * 0.1], 1)
//! });
//! let reward = reward_fn(|_obs, _actions, next: Tensor<2>| -(next.clone() * next).sum_dim(1).squeeze_dim(1));
//! let actions = ActionSpace::Box(BoxSpace::symmetric(1, 2.0)?);
//! let problem = Problem::new(&model, &actions).with_reward(&reward);
//!
//! let planner = CemConfig::default().init(&actions, Propagation::MEAN)?;
//! let mut mpc = Mpc::new(Box::new(planner), Replan::EveryStep)?;
//! let mut rng = Rng::new(0);
//! let (mut position, mut speed) = (1.0, 0.0);
//! for _ in 0..60 {
//!     let force = mpc.act(&Situation::of(&[position, speed]), &problem, &mut rng)?.action[0];
//!     (position, speed) = (position + 0.1 * speed, speed + 0.1 * force);
//! }
//! assert!(position.abs() < 0.05 && speed.abs() < 0.05);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/plan_closure.rs` swings up a pendulum in the same way.
//!
//! ## Choices instead of numbers
//!
//! Every sampling planner also plans among n discrete choices; the model then gets their numbers, 0 to n − 1, `[N, 1]`.
//!
//! ```
//! use mbrl_plan::{
//!     ActionSpace, Device, IcemConfig, Planner, Problem, Propagation, Rng, Situation, Tensor, dynamics_fn, reward_fn,
//! };
//!
//! // A lift: down, stay or up by one floor. Passengers wait on floor 3.
//! let lift = dynamics_fn(1, 1, &Device::flex(), |floor, choice| (floor + choice - 1.0).clamp(0.0, 5.0));
//! let waiting = reward_fn(|_, _, next: Tensor<2>| next.equal_elem(3.0).float().squeeze_dim::<1>(1));
//! let actions = ActionSpace::Discrete(3);
//! let problem = Problem::new(&lift, &actions).with_reward(&waiting);
//!
//! let mut planner = IcemConfig { horizon: 5, ..IcemConfig::default() }.init(&actions, Propagation::MEAN)?;
//! let plan = planner.plan(&Situation::of(&[1.0]), &problem, &mut Rng::new(0))?;
//! assert_eq!(plan.actions, [2.0, 2.0, 1.0, 1.0, 1.0]);
//! assert_eq!(plan.best_return, 4.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The planners
//!
//! All implement [`Planner`] and are interchangeable; [`PlannerConfig`] chooses one at run time. A sampled plan
//! costs `iterations · population · particles · horizon` model steps; the numbers below are for the defaults and one particle.
//!
//! - [`Cem`], the cross-entropy method as in PETS ([`CemConfig`]). Refits a Gaussian to the best sequences, five times per
//!   plan: 50,000 model steps. The first to try: exact where the problem is smooth, insensitive to the scale of the
//!   reward. Its candidates are independent from one time step to the next, so it scales badly with the horizon and the
//!   number of action dimensions.
//! - [`Pddm`], filtered and reward-weighted sampling ([`PddmConfig`]). One refinement per plan with noise that is smooth in
//!   time: 1400 model steps. Made for hands with 24 joints at 10 Hz: smooth motions, many dimensions, little time. Its
//!   `kappa` has to fit the scale of the reward. A single plan is rougher than CEM's: plans improve over the steps of an
//!   episode, through the warm start.
//! - [`Icem`], CEM with noise that is smooth in time and with elites that are kept, also for the next control step
//!   ([`IcemConfig`]). About 100 candidates per plan: 3200 model steps. The first to try where planning is too slow; its
//!   `noise_exponent` should fit the task (small for fast gaits, large for slow motions).
//! - [`Mppi`], model-predictive path integral control ([`MppiConfig`]): the mean of all candidates, weighted by their
//!   exponentiated returns. 1500 model steps. As with PDDM, its `kappa` has to fit the scale of the reward, unless returns are
//!   normalised; with a refitted spread it is as exact as CEM.
//! - [`RandomShooting`], the best of many sequences from a fixed distribution ([`RandomShootingConfig`], [`Proposal`]). 20,000
//!   model steps. Simple, and enough for a few steps of one or two actions; beyond that it finds next to nothing.
//! - [`GradientShooting`], Adam through the model ([`GradientConfig`]). Climbs the gradient of the return from eight starts,
//!   40 steps: 16,200 model steps, gradients included. Needs a differentiable model and reward. Where these are smooth, its
//!   cost hardly grows with the horizon and the dimensions, and it finds the optimum itself; where the return has many
//!   local maxima, one of the starts has to lead to the right one.
//! - [`Shooting`] over a [`SequenceSampler`] of your own: a sampler says which sequences to try and learns from their
//!   returns; `Shooting` takes care of bounds, units, scoring and NaN.
//!
//! Every sampling planner also plans among discrete choices ([`Shooting`] says how), can refine its best candidates by
//! gradient steps ([`Shooting::with_refinement`], [`Refinement`]) and can keep to a time budget ([`Shooting::with_time_budget`]).
//!
//! On linear-quadratic problems with known optimum, one plan of up to 72 numbers comes within 0.7 % of it with CEM, iCEM and MPPI,
//! which take 23,000 to 40,000 sequences, and within 0.8 % with PDDM, which takes 150,000. Random shooting misses it by a quarter
//! for 12 numbers, and by multiples of the optimum for more (`tests/linear_quadratic.rs`). A hundred gradient steps from one start come
//! within 0.02 % and take 201 evaluations, gradients included; the default of 40 comes within 2.5 % (`tests/gradient.rs`).
//!
//! [`optimize`] applies each of them, and Adam, to any function of any parameter vector.
//!
//! [`Mpc`] executes plans and makes a new one at every step, every n steps, or once per episode, open loop ([`Replan`]).
//!
//! # What a problem is
//!
//! A [`Problem`] borrows the model, the reward and the bounds. Optionally, it also borrows a termination rule, a terminal value,
//! proposals, a bonus for going where the members of an ensemble disagree ([`Disagreement`]: exploration), and a cost of changes of
//! the action with a limit on them ([`ActionRate`]). It is passed with each call, so the
//! goal, and everything else, can change between two control steps. [`returns`] is the one place where sequences are scored;
//! [`Aggregate`] says how the particles of an uncertain model are combined.
//!
//! # Contracts
//!
//! - Actions and bounds are in the environment's units here, and in units of half the action range inside samplers and the
//!   gradient optimizers.
//! - A candidate with a return of NaN or infinity never wins; if there is no other, planning is an error.
//! - Every random number comes from the [`Rng`] passed in: the same seed gives the same bits, unless a time
//!   budget stops the work.
//! - `reset` forgets everything from the last episode.
//!
//! [`check::check_planner`] tests these on any planner.
//!
//! # Crate features
//!
//! - `gradient` (default): [`GradientShooting`], [`Refinement`] and [`optimize::ascend`], with Burn's autodiff.
//! - No backend is on by default: `flex`, `ndarray`, `wgpu` and `cuda` forward to Burn's.

pub use burn::tensor::{Bool, Device, Tensor};
pub use mbrl_env::{
    ActionSpace, BoxSpace, EnvError, History, Reward, Rng, Situation, Snapshot, Termination, Value, reward_fn,
    termination_fn, value_fn,
};
pub use mbrl_model::{
    Chunk, Draw, Dynamics, DynamicsFn, DynamicsSpec, Imagined, MemberRule, ModelError, Prediction, Propagation, Start,
    Trajectories, dynamics_fn, normals, truncated_normals, uniforms,
};

pub mod check;
pub mod optimize;

mod action_rate;
#[cfg(feature = "gradient")]
mod adam;
#[cfg(feature = "gradient")]
mod climb;
mod clock;
mod config;
mod disagreement;
mod error;
#[cfg(feature = "gradient")]
mod gradient;
mod host;
mod mpc;
mod noise;
mod planner;
mod problem;
mod propose;
mod refinement;
mod returns;
mod sampler;
mod samplers;
mod shooting;
mod trajectory;
mod units;
mod warm_start;

pub use action_rate::ActionRate;
pub use config::PlannerConfig;
pub use disagreement::Disagreement;
pub use error::PlanError;
#[cfg(feature = "gradient")]
pub use gradient::{GradientConfig, GradientShooting};
pub use mpc::{LockstepSlot, Mpc, MpcAction, PlanSummary, Replan, act_in_lockstep};
pub use noise::ColouredNoise;
pub use planner::{Candidate, IterationReport, Plan, PlanStats, Planner};
pub use problem::Problem;
pub use propose::Propose;
pub use refinement::Refinement;
pub use returns::{Aggregate, Returns, returns};
pub use sampler::{Scored, SequenceSampler};
pub use samplers::{
    cem::{CemConfig, CemSampler, Execute},
    icem::{IcemConfig, IcemSampler},
    mppi::{MppiConfig, MppiSampler},
    pddm::{PddmConfig, PddmSampler},
    random::{Proposal, RandomShootingConfig, RandomShootingSampler},
};
pub use shooting::{Cem, Icem, Mppi, Pddm, RandomShooting, Shooting};
pub use trajectory::Trajectory;
pub use warm_start::Tail;

/// Compiles and runs the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
