//! The one interface between models and everything that uses them.

use std::sync::Arc;

use burn::tensor::{Bool, Device, Tensor};
use mbrl_env::{AngleColumn, Situation, lanes::TILE};
use serde::{Deserialize, Serialize};
use tracing::trace_span;

use crate::{
    ModelError, Taped,
    ensemble::to_vec,
    noise::{self, Distribution, Rows},
    sample_taped_by_autodiff,
};

/// Widths and capabilities of a model.
///
/// ```
/// use mbrl_model::{Device, DynamicsSpec};
///
/// // A state of position, speed and a hidden friction, of which position and speed are observed; noise is sampled.
/// let spec = DynamicsSpec::new("slider", 3, 1, &Device::flex()).with_obs(2).with_differentiable(true).with_stochastic(true);
/// assert_eq!((spec.state, spec.obs, spec.action, spec.members), (3, 2, 1, 1));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DynamicsSpec {
    /// Name, for messages.
    pub name: String,
    /// Width of the model's own state, `S`.
    pub state: usize,
    /// Width of an observation, `O`: what the world shows.
    pub obs: usize,
    /// Width of what [`observe`](Dynamics::observe) makes of a state, `V`: what rewards, terminations and values see. It equals the
    /// width of an observation unless a model says otherwise, such as a model of images, whose goals are expressed in numbers of another kind.
    pub view: usize,
    /// Width of a belief, `B`, of a model with memory: what its [filter](Dynamics::follow) keeps of an episode. 0 without memory.
    pub belief: usize,
    /// Width of an action, `A`.
    pub action: usize,
    /// Members of an ensemble that roll-outs draw from (its elites), `E`; 1 for a single model.
    pub members: usize,
    /// Where its tensors live.
    pub device: Device,
    /// Whether gradients flow through it.
    pub differentiable: bool,
    /// Whether the model has noise of its own: `sample` then draws it where [`Propagation::noise`] says so, and follows the
    /// mean where it does not. A model without noise gives the same results either way. (The choice of the member that moves a
    /// row, and the spread that [`MemberRule::Ds`] draws, do not count as noise of the model.) Without this,
    /// [`check_dynamics`](crate::check::check_dynamics) could not tell a model without noise from one that forgets to draw it.
    pub stochastic: bool,
    /// Whether roll-outs need the [snapshot](Situation::snapshot) of a simulator: agents then ask for one at every step.
    pub needs_snapshot: bool,
    /// Columns of the observation that are angles. Whoever compares observations takes differences of those that
    /// [wrap](AngleColumn::wraps) the short way round.
    pub angles: Vec<AngleColumn>,
    /// Columns of the observation, in rising order, whose next values are known and not predicted: they are left out of every measure
    /// of a model's error and of its members' disagreement.
    pub known: Vec<usize>,
}

impl DynamicsSpec {
    /// A difference of two values of a column of the observation; for an [angle that wraps](AngleColumn::wraps), the short way round.
    ///
    /// ```
    /// use mbrl_model::{AngleColumn, Device, DynamicsSpec};
    ///
    /// let mut spec = DynamicsSpec::new("compass", 2, 1, &Device::flex());
    /// spec.angles = vec![AngleColumn { column: 1, turn: 360.0, wraps: true }];
    /// assert_eq!((spec.difference(0, 358.0), spec.difference(1, 358.0)), (358.0, -2.0));
    /// ```
    #[must_use]
    pub fn difference(&self, column: usize, difference: f64) -> f64 {
        match self.angles.iter().find(|angle| angle.wraps && angle.column == column) {
            None => difference,
            Some(angle) => {
                let turn = f64::from(angle.turn);
                difference - turn * (difference / turn).round()
            }
        }
    }

    /// A single model whose state of width `state` is what is observed, without gradients or noise and with no need for
    /// snapshots; tensors live on `device`.
    #[must_use]
    pub fn new(name: impl Into<String>, state: usize, action: usize, device: &Device) -> Self {
        Self {
            name: name.into(),
            state,
            obs: state,
            view: state,
            belief: 0,
            action,
            members: 1,
            device: device.clone(),
            differentiable: false,
            stochastic: false,
            needs_snapshot: false,
            angles: Vec::new(),
            known: Vec::new(),
        }
    }

    /// Sets the width of an observation, where it differs from the state's, and with it the width of what rewards see.
    #[must_use]
    pub fn with_obs(self, obs: usize) -> Self {
        Self { obs, view: obs, ..self }
    }

    /// Sets the width of what rewards see, where it differs from the observation's; call it after [`with_obs`](Self::with_obs).
    #[must_use]
    pub fn with_view(self, view: usize) -> Self {
        Self { view, ..self }
    }

    /// Sets the width of the belief of a model with memory.
    #[must_use]
    pub fn with_belief(self, belief: usize) -> Self {
        Self { belief, ..self }
    }

    /// Sets which columns of the observation are known.
    #[must_use]
    pub fn with_known(self, known: impl Into<Vec<usize>>) -> Self {
        Self { known: known.into(), ..self }
    }

    /// Sets the number of members that roll-outs draw from.
    #[must_use]
    pub fn with_members(self, members: usize) -> Self {
        Self { members, ..self }
    }

    /// Sets whether gradients flow through the model.
    #[must_use]
    pub fn with_differentiable(self, differentiable: bool) -> Self {
        Self { differentiable, ..self }
    }

    /// Sets whether the model has noise of its own.
    #[must_use]
    pub fn with_stochastic(self, stochastic: bool) -> Self {
        Self { stochastic, ..self }
    }

    /// Sets whether roll-outs need the snapshot of a simulator.
    #[must_use]
    pub fn with_needs_snapshot(self, needs_snapshot: bool) -> Self {
        Self { needs_snapshot, ..self }
    }

    /// Sets which columns of the observation are angles.
    #[must_use]
    pub fn with_angles(self, angles: impl Into<Vec<AngleColumn>>) -> Self {
        Self { angles: angles.into(), ..self }
    }
}

/// Expectation and spread of the next states of N rows, in state units.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prediction {
    /// Mean over members, `[N, S]`.
    pub mean: Tensor<2>,
    /// Standard deviation of the noise of the world (root of the mean variance over members), `[N, S]`.
    pub aleatoric_std: Option<Tensor<2>>,
    /// Standard deviation of the members' means, `[N, S]`: what the model does not know.
    pub epistemic_std: Option<Tensor<2>>,
}

impl Prediction {
    /// The mean `[N, S]` alone.
    #[must_use]
    pub fn new(mean: Tensor<2>) -> Self {
        Self { mean, aleatoric_std: None, epistemic_std: None }
    }

    /// Adds the standard deviation of the noise, `[N, S]`.
    #[must_use]
    pub fn with_aleatoric_std(self, std: Tensor<2>) -> Self {
        Self { aleatoric_std: Some(std), ..self }
    }

    /// Adds the standard deviation of the members' means, `[N, S]`.
    #[must_use]
    pub fn with_epistemic_std(self, std: Tensor<2>) -> Self {
        Self { epistemic_std: Some(std), ..self }
    }
}

/// Which member of an ensemble moves a particle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MemberRule {
    /// The mean over members moves every particle (PETS's E). Needs one particle and draws no noise.
    Expectation,
    /// Trajectory sampling 1: members are assigned afresh at every step, in equal shares (PETS's TS1).
    Ts1,
    /// Trajectory sampling ∞: particle p keeps member ⌊p·E/P⌋ over the whole horizon (PETS's TS∞). With one particle per member
    /// and without noise this is PDDM's "every member rolls out every candidate".
    TsInf,
    /// Distribution sampling (PETS's DS): each particle samples each dimension from a Gaussian whose mean and variance match
    /// the mixture of all members at the particle's own state, as in the authors' `BNN.py` (`create_prediction_tensors`).
    /// Everything else that the mixture says is lost: several modes, correlations between dimensions. The spread between members is
    /// always sampled, their own noise only with [`Propagation::noise`]. Takes any number of particles; each costs as many
    /// network evaluations as there are members.
    Ds,
}

/// How uncertainty is propagated through a roll-out.
///
/// ```
/// use mbrl_model::{MemberRule, Propagation};
///
/// // PETS: trajectory sampling with 20 particles per candidate. In an experiment: `rule = "ts-inf"`.
/// let pets = Propagation { rule: MemberRule::TsInf, noise: true, particles: 20 };
/// assert_ne!(pets, Propagation::MEAN);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propagation {
    /// Which member moves a particle (called `members` in files of earlier versions, which are still read).
    #[serde(alias = "members")]
    pub rule: MemberRule,
    /// Whether the members' own noise is sampled; otherwise their means are followed. (DS samples the spread between
    /// members in either case.)
    pub noise: bool,
    /// Particles per candidate, `P`.
    pub particles: usize,
}

impl Propagation {
    /// One particle that follows the mean.
    pub const MEAN: Self = Self { rule: MemberRule::Expectation, noise: false, particles: 1 };
}

/// Which candidates of a larger population a roll-out covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Index of the chunk's first candidate in the population.
    pub first: usize,
    /// Number of candidates in the whole population.
    pub population: usize,
}

/// What determines the random draws of a roll-out. Noise is a function of (key, step, row, dimension), never of threads or devices.
///
/// ```
/// use mbrl_model::{Chunk, Draw, Propagation};
///
/// let draw = Draw::new(Propagation::MEAN, 7);
/// // The third step of the candidates from number 32 on, of 100.
/// let part = draw.at_step(2).in_chunk(Chunk { first: 32, population: 100 });
/// assert_eq!((part.key, part.step), (7, 2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Draw {
    /// How uncertainty is propagated.
    pub propagation: Propagation,
    /// Key of all noise of this roll-out.
    pub key: u64,
    /// Step within the roll-out, from 0.
    pub step: u32,
    /// Set when these candidates are a chunk of a larger population. Noise and member assignment are then indexed as in the
    /// whole population, so that chunks give the same bits as the whole. Only models with a [`Dynamics::chunk_size`] are given one.
    pub chunk: Option<Chunk>,
}

impl Draw {
    /// The draw of a roll-out's first step.
    #[must_use]
    pub fn new(propagation: Propagation, key: u64) -> Self {
        Self { propagation, key, step: 0, chunk: None }
    }

    /// The draw of step `step`.
    #[must_use]
    pub fn at_step(self, step: u32) -> Self {
        Self { step, ..self }
    }

    /// The draw of a step that is `steps` later.
    #[must_use]
    pub fn later(self, steps: usize) -> Self {
        Self { step: self.step + steps as u32, ..self }
    }

    /// The draw of a chunk of a larger population.
    #[must_use]
    pub fn in_chunk(self, chunk: Chunk) -> Self {
        Self { chunk: Some(chunk), ..self }
    }

    /// This step's standard normals for `rows` of particles and candidates, `[rows, dims]`, made on `device` as
    /// [`normals`](crate::normals) are: what a model's `sample` draws with.
    #[must_use]
    pub fn normals(&self, [rows, dims]: [usize; 2], device: &Device) -> Tensor<2> {
        let candidates = rows / self.propagation.particles.max(1);
        let Chunk { first, population } = self.chunk_of(candidates);
        let rows = Rows { count: rows, candidates, population, first };
        noise::draw(Distribution::Normal, self.key, self.step, rows, dims, device)
    }

    /// Where `candidates` stand in their population; without a chunk they are the whole population.
    pub(crate) fn chunk_of(&self, candidates: usize) -> Chunk {
        self.chunk.unwrap_or(Chunk { first: 0, population: candidates })
    }
}

/// Where a roll-out starts: planning starts from one situation, imagination from many states.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once a roll-out and passed on by value")]
pub enum Start<'a> {
    /// One situation, for all candidates.
    Situation(Situation<'a>),
    /// A state for each candidate, `[K, S]`.
    States(Tensor<2>),
}

/// One imagined step of N rows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Imagined {
    /// Next states, `[N, S]`.
    pub next: Tensor<2>,
    /// Reward from a learned head or from the simulator, `[N]`.
    pub reward: Option<Tensor<1>>,
    /// Termination from a learned head or from the simulator, `[N]`.
    pub terminated: Option<Tensor<1, Bool>>,
}

impl Imagined {
    /// Next states `[N, S]` alone.
    #[must_use]
    pub fn new(next: Tensor<2>) -> Self {
        Self { next, reward: None, terminated: None }
    }

    /// Adds rewards, `[N]`.
    #[must_use]
    pub fn with_reward(self, reward: Tensor<1>) -> Self {
        Self { reward: Some(reward), ..self }
    }

    /// Adds terminations, `[N]`.
    #[must_use]
    pub fn with_terminated(self, terminated: Tensor<1, Bool>) -> Self {
        Self { terminated: Some(terminated), ..self }
    }
}

/// Imagined trajectories of K candidates with P particles each; row = particle · K + candidate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trajectories {
    /// Observations, the start included, `[H+1, P·K, V]`: what [`Dynamics::observe`] makes of the states.
    pub obs: Tensor<3>,
    /// Rewards where the model gives them, `[H, P·K]`.
    pub reward: Option<Tensor<2>>,
    /// Terminations where the model gives them, `[H, P·K]`.
    pub terminated: Option<Tensor<2, Bool>>,
    /// Marks the step in which a trajectory was cut from outside, for example by a time limit, `[H, P·K]`, where the model says so: no
    /// reward is earned after it. Cut trajectories count as terminated too.
    pub cut: Option<Tensor<2, Bool>>,
}

impl Trajectories {
    /// Observations `[H+1, P·K, V]` alone.
    #[must_use]
    pub fn new(obs: Tensor<3>) -> Self {
        Self { obs, reward: None, terminated: None, cut: None }
    }

    /// Adds rewards, `[H, P·K]`.
    #[must_use]
    pub fn with_reward(self, reward: Tensor<2>) -> Self {
        Self { reward: Some(reward), ..self }
    }

    /// Adds terminations, `[H, P·K]`.
    #[must_use]
    pub fn with_terminated(self, terminated: Tensor<2, Bool>) -> Self {
        Self { terminated: Some(terminated), ..self }
    }

    /// Adds where they were cut from outside, `[H, P·K]`.
    #[must_use]
    pub fn with_cut(self, cut: Tensor<2, Bool>) -> Self {
        Self { cut: Some(cut), ..self }
    }
}

/// Anything that predicts N next states from N states and N actions.
///
/// Contract, tested by [`check::check_dynamics`](crate::check::check_dynamics) (the gradients by `check_gradients`):
/// - rows are independent: a batch gives what its rows give one by one, in any order; in `sample`, apart from the noise;
/// - when `sample` follows the expectation without noise, it gives the mean of `predict`;
/// - noise is a function of (key, step, row, dimension), drawn only where `spec().stochastic` and the draw say so;
/// - `sample` and `rollout` with the same [`Draw`] give the same bits on a CPU, whatever the number of threads, and in chunks
///   as in the whole population;
/// - `rollout` agrees with the loop over `sample` (its default) on equal noise: per step and column the largest
///   difference is at most 1e-5 of that column's largest magnitude; from a situation it starts where `encode` says;
/// - gradients flow from the outputs to `states` and `actions` where `spec().differentiable`;
/// - `encode_batch` gives what `encode` gives one by one;
/// - beliefs are finite, each row depends only on its own inputs, and `encode` reads them.
///
/// ## Models with memory
/// Where one observation does not tell everything, a model may look back over the situation's past, which is short, or carry a
/// belief through the whole episode: numbers of its own that [`begin`](Self::begin) makes from the first observation and
/// [`follow`](Self::follow) updates after each step. Whoever acts with the model calls `follow` and puts the result into
/// [`Situation::belief`], from which `encode` makes the state. `MpcAgent` and `ModelBased` in `mbrl-policy` do this.
///
/// A complete model, of a point that the wind pushes about:
///
/// ```
/// use mbrl_model::{
///     Device, Draw, Dynamics, DynamicsSpec, Imagined, MemberRule, ModelError, Prediction, Tensor, check::check_dynamics,
/// };
///
/// struct Windy(DynamicsSpec);
///
/// impl Dynamics for Windy {
///     fn spec(&self) -> &DynamicsSpec {
///         &self.0
///     }
///
///     fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
///         let mean = states + actions;
///         let std = mean.zeros_like() + 0.1;
///         Ok(Prediction::new(mean).with_aleatoric_std(std))
///     }
///
///     fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
///         let next = self.predict(states, actions)?.mean;
///         // The expectation never draws noise. Wrong would be noise from a generator of one's own, such as
///         // `Tensor::random`: equal draws would differ, and plans could not be compared on equal noise.
///         let noisy = draw.propagation.noise && draw.propagation.rule != MemberRule::Expectation;
///         Ok(Imagined::new(match noisy {
///             true => next.clone() + draw.normals(next.dims(), &self.0.device) * 0.1,
///             false => next,
///         }))
///     }
/// }
///
/// let device = Device::flex();
/// let model = Windy(DynamicsSpec::new("windy", 1, 1, &device).with_differentiable(true).with_stochastic(true));
/// check_dynamics(&model, Tensor::from_floats([[0.0], [1.0]], &device), Tensor::from_floats([[0.5], [-0.5]], &device))?;
/// # Ok::<(), ModelError>(())
/// ```
pub trait Dynamics: Send + Sync {
    /// Widths and capabilities.
    fn spec(&self) -> &DynamicsSpec;

    /// Expectation and spread of the next states: `states` `[N, S]`, `actions` `[N, A]` in environment units.
    ///
    /// # Errors
    /// [`ModelError::Width`] for arrays of the wrong size.
    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError>;

    /// One imagined step of N rows: `states` `[N, S]`, `actions` `[N, A]`. N is P·K with row = particle · K + candidate.
    ///
    /// # Errors
    /// [`ModelError::Width`] for arrays of the wrong size; [`ModelError::Config`] where the number of particles does not divide N.
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError>;

    /// [`sample`](Self::sample) with its backward pass, for learning through the model, as when a policy learns by the gradient
    /// of imagined rewards. Default: by Burn's autodiff.
    ///
    /// # Errors
    /// As `sample`; [`ModelError::Unsupported`] for a model without gradients.
    fn sample_taped(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Taped, ModelError> {
        sample_taped_by_autodiff(self, states, actions, draw)
    }

    /// The model's own state in a situation, `[1, S]`. Default: the observation.
    ///
    /// # Errors
    /// [`ModelError::Width`] or [`ModelError::NonFinite`] for an observation of another width or with a NaN.
    fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
        let spec = self.spec();
        check_size("entries of the observation", spec.obs, situation.obs.len())?;
        mbrl_env::check_finite("observation", situation.obs)?;
        Ok(Tensor::<1>::from_floats(situation.obs, &spec.device).unsqueeze())
    }

    /// The states of N situations, `[N, S]`. Default: [`encode`](Self::encode) of each.
    ///
    /// # Errors
    /// As `encode`.
    fn encode_batch(&self, situations: &[Situation<'_>]) -> Result<Tensor<2>, ModelError> {
        let states = situations.iter().map(|situation| self.encode(situation)).collect::<Result<Vec<_>, _>>()?;
        Ok(match states.is_empty() {
            true => Tensor::empty([0, self.spec().state], &self.spec().device),
            false => Tensor::cat(states, 0),
        })
    }

    /// The beliefs `[N, B]` with which N episodes begin, given their first observations `[N, O]`. Called only on models with a
    /// [`belief`](DynamicsSpec::belief).
    ///
    /// # Errors
    /// [`ModelError::Width`] for arrays of the wrong size; [`ModelError::Unsupported`] (default).
    fn begin(&self, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let _ = obs;
        Err(ModelError::Unsupported { model: self.spec().name.clone(), what: "begin a belief: it has no memory" })
    }

    /// The beliefs `[N, B]` after `actions` `[N, A]`, taken at `beliefs` `[N, B]`, have led to observations `obs` `[N, O]`: a step of
    /// the model's filter. Called only on models with a [`belief`](DynamicsSpec::belief).
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn follow(&self, beliefs: Tensor<2>, actions: Tensor<2>, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let _ = (beliefs, actions, obs);
        Err(ModelError::Unsupported { model: self.spec().name.clone(), what: "follow a belief: it has no memory" })
    }

    /// What rewards, values and policies see: `[N, S]` → `[N, V]`. Default: the state.
    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        states
    }

    /// The observations that states `[N, S]` stand for, `[N, O]`, where states are of another kind: for example, the frames that a model of
    /// images sees in its latents, for people to look at. Default: what [`observe`](Self::observe) gives, where that is as wide as an observation.
    ///
    /// # Errors
    /// [`ModelError::Width`] for arrays of the wrong size; [`ModelError::Unsupported`] for a model that cannot say.
    fn reconstruct(&self, states: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let spec = self.spec();
        if spec.view != spec.obs {
            let what = "say which observations its states stand for";
            return Err(ModelError::Unsupported { model: spec.name.clone(), what });
        }
        check_size("columns of states", spec.state, states.dims()[1])?;
        Ok(self.observe(states))
    }

    /// Preferred number of candidates per roll-out, for a given `horizon` and number of `particles` per candidate; `None` (default): roll out
    /// the whole population at once. Chunks stay in cache from the roll-out to the rewards, and are scored side by side; with
    /// [`Draw::chunk`] they give the same bits as the whole.
    fn chunk_size(&self, horizon: usize, particles: usize) -> Option<usize> {
        let _ = (horizon, particles);
        None
    }

    /// Whole imagined trajectories for given actions `[H, K, A]`, with `draw.propagation.particles` particles each. Default: a
    /// loop over [`sample`](Self::sample), differentiable where `sample` is.
    ///
    /// # Errors
    /// As `encode` and `sample`.
    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        rollout_by_steps(self, from, actions, draw)
    }

    /// The actions `[M, H, A]` that a policy takes in `rows` roll-outs of `steps` steps side by side, all from one situation: what a
    /// policy proposes to a planner. `draw` has one particle.
    /// Default: a loop over [`sample`](Self::sample).
    ///
    /// # Errors
    /// As `encode` and `sample`; [`ModelError::Width`] where `choose` gives another number of actions.
    fn rollout_policy(
        &self,
        situation: &Situation<'_>,
        [rows, steps]: [usize; 2],
        choose: &mut Choose<'_>,
        draw: Draw,
    ) -> Result<Vec<f32>, ModelError> {
        let (width, device) = (self.spec().action, &self.spec().device);
        let mut states = self.encode(situation)?.repeat_dim(0, rows);
        let mut actions = vec![0.0; rows * steps * width];
        for t in 0..steps {
            let obs: Vec<f32> = self.observe(states.clone()).into_data().iter().collect();
            let chosen = choose(&obs, t);
            check_size("entries of the chosen actions", rows * width, chosen.len())?;
            put_step(&mut actions, &chosen, [steps, width], t);
            if t + 1 < steps {
                let chosen = Tensor::<1>::from_floats(chosen.as_slice(), device).reshape([rows, width]);
                states = self.sample(states, chosen, draw.later(t))?.next;
            }
        }
        Ok(actions)
    }
}

/// A policy in a roll-out: from what N rows see, `[N, V]`, at a step counted from 0, to actions `[N, A]` in the environment's units.
pub type Choose<'a> = dyn FnMut(&[f32], usize) -> Vec<f32> + 'a;

/// Puts actions `[M, A]` of a step into those of whole roll-outs, `[M, H, A]`.
pub(crate) fn put_step(all: &mut [f32], chosen: &[f32], [steps, width]: [usize; 2], t: usize) {
    for (row, chosen) in all.chunks_exact_mut(steps * width).zip(chosen.chunks_exact(width)) {
        row[t * width..][..width].copy_from_slice(chosen);
    }
}

/// A model behind a pointer is a model: `MpcAgent<Box<dyn Dynamics>>`, or one shared by several planners in an `Arc`.
macro_rules! forward_to_the_model_behind {
    ($($pointer:ty),*) => {$(
        impl<D: Dynamics + ?Sized> Dynamics for $pointer {
            fn spec(&self) -> &DynamicsSpec {
                (**self).spec()
            }
            fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError> {
                (**self).predict(states, actions)
            }
            fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError> {
                (**self).sample(states, actions, draw)
            }
            fn sample_taped(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Taped, ModelError> {
                (**self).sample_taped(states, actions, draw)
            }
            fn encode(&self, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
                (**self).encode(situation)
            }
            fn encode_batch(&self, situations: &[Situation<'_>]) -> Result<Tensor<2>, ModelError> {
                (**self).encode_batch(situations)
            }
            fn begin(&self, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
                (**self).begin(obs)
            }
            fn follow(&self, beliefs: Tensor<2>, actions: Tensor<2>, obs: Tensor<2>) -> Result<Tensor<2>, ModelError> {
                (**self).follow(beliefs, actions, obs)
            }
            fn observe(&self, states: Tensor<2>) -> Tensor<2> {
                (**self).observe(states)
            }
            fn reconstruct(&self, states: Tensor<2>) -> Result<Tensor<2>, ModelError> {
                (**self).reconstruct(states)
            }
            fn chunk_size(&self, horizon: usize, particles: usize) -> Option<usize> {
                (**self).chunk_size(horizon, particles)
            }
            fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
                (**self).rollout(from, actions, draw)
            }
            fn rollout_policy(
                &self,
                situation: &Situation<'_>,
                shape: [usize; 2],
                choose: &mut Choose<'_>,
                draw: Draw,
            ) -> Result<Vec<f32>, ModelError> {
                (**self).rollout_policy(situation, shape, choose, draw)
            }
        }
    )*};
}

forward_to_the_model_behind!(&D, Box<D>, Arc<D>);

/// The belief `[1, B]` of a model with memory in a situation: the one that the situation carries or, where it carries none, the one that
/// the model makes from the situation's observation and short past. The `encode` of such a model begins with it.
///
/// # Errors
/// As [`Dynamics::begin`] and [`Dynamics::follow`]; [`ModelError::Width`] and [`ModelError::NonFinite`] for a situation that does not fit
/// the model.
pub fn belief_of<D: Dynamics + ?Sized>(model: &D, situation: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
    let spec = model.spec();
    let row = |what: &'static str, width: usize, values: &[f32]| -> Result<Tensor<2>, ModelError> {
        check_size(what, width, values.len())?;
        mbrl_env::check_finite(what, values)?;
        Ok(Tensor::<1>::from_floats(values, &spec.device).unsqueeze())
    };
    if let Some(belief) = situation.belief {
        return row("entries of the belief", spec.belief, belief);
    }
    let past = situation.past;
    let first = past.obs.first().map_or(situation.obs, Vec::as_slice);
    let mut belief = model.begin(row("entries of the observation", spec.obs, first)?)?;
    let later = past.obs.iter().skip(1).map(Vec::as_slice).chain([situation.obs]);
    for (action, obs) in past.actions.iter().zip(later) {
        let action = row("entries of the action", spec.action, action)?;
        belief = model.follow(belief, action, row("entries of the observation", spec.obs, obs)?)?;
    }
    Ok(belief)
}

/// The default [`Dynamics::rollout`]: one [`sample`](Dynamics::sample) per step. Public, so that a faster roll-out can be
/// compared with it.
///
/// # Errors
/// As [`Dynamics::rollout`].
pub fn rollout_by_steps<D: Dynamics + ?Sized>(
    model: &D,
    from: Start<'_>,
    actions: Tensor<3>,
    draw: Draw,
) -> Result<Trajectories, ModelError> {
    let _span = trace_span!("imagine", model = %model.spec().name).entered();
    let [horizon, candidates, _] = actions.dims();
    let particles = draw.propagation.particles;
    check_particles(particles, candidates * particles)?;
    let start = start_states(model, from, candidates)?;
    let spec = model.spec();
    let rows = candidates * particles;
    // A model's author is responsible for its outputs, and a wrong shape would cause a panic later, or a wrong sum.
    let observed = |states: Tensor<2>| {
        let obs = model.observe(states);
        check_size("rows that the model observes", rows, obs.dims()[0])?;
        check_size("columns that the model observes", spec.view, obs.dims()[1])?;
        Ok::<_, ModelError>(obs)
    };
    let mut states = start.repeat_dim(0, particles);
    let mut obs = vec![observed(states.clone())?];
    let (mut reward, mut terminated) = (Vec::new(), Vec::new());
    for t in 0..horizon {
        let now = actions.clone().narrow(0, t, 1).squeeze_dim::<2>(0).repeat_dim(0, particles);
        let step = model.sample(states, now, draw.later(t))?;
        states = step.next;
        check_size("rows of the model's next states", rows, states.dims()[0])?;
        check_size("columns of the model's next states", spec.state, states.dims()[1])?;
        obs.push(observed(states.clone())?);
        if let Some([n]) = step.reward.as_ref().map(Tensor::dims) {
            check_size("the model's rewards", rows, n)?;
        }
        if let Some([n]) = step.terminated.as_ref().map(Tensor::dims) {
            check_size("the model's terminations", rows, n)?;
        }
        reward.extend(step.reward);
        terminated.extend(step.terminated);
    }
    Ok(Trajectories {
        obs: Tensor::stack(obs, 0),
        reward: (reward.len() == horizon && horizon > 0).then(|| Tensor::stack(reward, 0)),
        terminated: (terminated.len() == horizon && horizon > 0).then(|| Tensor::stack(terminated, 0)),
        cut: None,
    })
}

/// Whether a device is one of Burn's CPU devices, flex or ndarray: the engine runs there, and tensors cost nothing to read.
///
/// Burn 0.22 names a device's backend only in the device's `Debug` text: what it dispatches on is public only with the
/// feature `extension`, and has a variant per enabled backend. This is the one place that reads the text.
///
/// ```
/// let device = mbrl_model::Device::flex();
/// assert!(mbrl_model::is_cpu(&device) && mbrl_model::is_cpu(&device.autodiff()));
/// ```
#[must_use]
pub fn is_cpu(device: &Device) -> bool {
    names_a_cpu(&format!("{:?}", device.clone().without_autodiff()))
}

/// `Device<Backend(…)>`: the backend's own name decides, and nothing within the brackets, such as a host's name.
fn names_a_cpu(text: &str) -> bool {
    let name = text.strip_prefix("Device<").and_then(|text| text.split('(').next());
    matches!(name, Some("Flex" | "NdArray"))
}

/// Observations of a chunk of a population (bytes): about what a second-level cache holds.
const CHUNK_BYTES: usize = 1 << 20;

/// Candidates in a chunk of a population on a CPU: as many as keep observations of `width` columns in cache, in whole tiles of rows, one
/// tile at least.
pub(crate) fn host_chunk(horizon: usize, particles: usize, width: usize) -> usize {
    let bytes = size_of::<f32>() * particles * (horizon + 1) * width;
    (CHUNK_BYTES / bytes.max(1) / TILE).max(1) * TILE
}

/// Whether a roll-out carries gradients of its start or of its actions.
pub(crate) fn is_tracked(from: &Start<'_>, actions: &Tensor<3>) -> bool {
    actions.is_autodiff() || matches!(from, Start::States(states) if states.is_autodiff())
}

/// What a roll-out starts from: a state for each candidate, `[K, S]`, or one for all, `[1, S]`. Checks it.
pub(crate) fn start_rows<D: Dynamics + ?Sized>(
    model: &D,
    from: Start<'_>,
    candidates: usize,
) -> Result<Tensor<2>, ModelError> {
    let (start, rows, what) = match from {
        Start::States(states) => (states, candidates, "rows of the start states"),
        Start::Situation(situation) => (model.encode(&situation)?, 1, "rows of the encoded state"),
    };
    check_size(what, rows, start.dims()[0])?;
    check_size("columns of the start states", model.spec().state, start.dims()[1])?;
    Ok(start)
}

/// The same on the host. Checks the actions' columns too.
pub(crate) fn host_start<D: Dynamics>(model: &D, from: Start<'_>, actions: &Tensor<3>) -> Result<Vec<f32>, ModelError> {
    let [_, candidates, width] = actions.dims();
    check_size("columns of actions", model.spec().action, width)?;
    start_rows(model, from, candidates).map(to_vec)
}

/// The same with a state for each candidate, `[K, S]`.
pub(crate) fn start_states<D: Dynamics + ?Sized>(
    model: &D,
    from: Start<'_>,
    candidates: usize,
) -> Result<Tensor<2>, ModelError> {
    let one = matches!(from, Start::Situation(_));
    let start = start_rows(model, from, candidates)?;
    Ok(if one { start.repeat_dim(0, candidates) } else { start })
}

/// Refuses particles that do not divide the rows.
pub(crate) fn check_particles(particles: usize, rows: usize) -> Result<(), ModelError> {
    if particles > 0 && rows.is_multiple_of(particles) {
        return Ok(());
    }
    Err(ModelError::Config {
        field: "particles",
        value: particles.to_string(),
        rule: format!("a divisor of {rows} (the rows), at least 1").into(),
    })
}

/// Refuses an array of the wrong size.
pub(crate) fn check_size(what: &'static str, expected: usize, actual: usize) -> Result<(), ModelError> {
    if expected == actual { Ok(()) } else { Err(ModelError::Width { what, expected, actual }) }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Situation;

    use super::*;

    /// A model of two columns that gives other shapes than it declares.
    struct Misshapen(DynamicsSpec, &'static str);

    impl Dynamics for Misshapen {
        fn spec(&self) -> &DynamicsSpec {
            &self.0
        }
        fn predict(&self, states: Tensor<2>, _: Tensor<2>) -> Result<Prediction, ModelError> {
            Ok(Prediction::new(states))
        }
        fn encode(&self, _: &Situation<'_>) -> Result<Tensor<2>, ModelError> {
            let shape = match self.1 {
                "encoded row" => [3, 2],
                "encoded column" => [1, 3],
                _ => [1, 2],
            };
            Ok(Tensor::zeros(shape, &self.0.device))
        }
        fn observe(&self, states: Tensor<2>) -> Tensor<2> {
            if self.1 == "observed column" { states.narrow(1, 0, 1) } else { states }
        }
        fn sample(&self, states: Tensor<2>, _: Tensor<2>, _: Draw) -> Result<Imagined, ModelError> {
            let [rows, _] = states.dims();
            let device = &self.0.device;
            let next = match self.1 {
                "next row" => Tensor::zeros([rows + 1, 2], device),
                "next column" => Tensor::zeros([rows, 3], device),
                _ => states,
            };
            let reward = Tensor::zeros([if self.1 == "reward" { rows + 1 } else { rows }], device);
            let ends = Tensor::<1>::zeros([if self.1 == "end" { 1 } else { rows }], device).greater_elem(1.0);
            Ok(Imagined::new(next).with_reward(reward).with_terminated(ends))
        }
    }

    #[test]
    fn a_model_of_wrong_shapes_is_named_and_no_panic() {
        let device = Device::flex();
        let rollout = |wrong| {
            let model = Misshapen(DynamicsSpec::new("misshapen", 2, 1, &device), wrong);
            let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: 2 }, 0);
            let from = Start::Situation(Situation::of(&[0.0, 0.0]));
            model.rollout(from, Tensor::zeros([3, 4, 1], &device), draw)
        };
        assert_eq!(rollout("").unwrap().obs.dims(), [4, 8, 2]);
        for (wrong, what) in [
            ("encoded row", "rows of the encoded state = 3: expected 1"),
            ("encoded column", "columns of the start states = 3: expected 2"),
            ("observed column", "columns that the model observes = 1: expected 2"),
            ("next row", "rows of the model's next states = 9: expected 8"),
            ("next column", "columns of the model's next states = 3: expected 2"),
            ("reward", "the model's rewards = 9: expected 8"),
            ("end", "the model's terminations = 1: expected 8"),
        ] {
            assert_eq!(rollout(wrong).unwrap_err().to_string(), what, "{wrong}");
        }
    }

    #[test]
    fn the_backend_decides_whether_a_device_is_a_cpu() {
        #[expect(deprecated, reason = "an oracle as long as Burn ships it")]
        for device in [Device::flex(), Device::ndarray()] {
            assert!(is_cpu(&device) && is_cpu(&device.clone().autodiff()), "{device:?}");
        }
        for gpu in
            ["Device<Cube(CubeDevice { runtime: Cuda, index: 0 })>", "Device<Remote(\"flex-server\")>", "", "Flex"]
        {
            assert!(!names_a_cpu(gpu), "{gpu}");
        }
    }

    #[test]
    fn propagation_reads_its_older_name_and_refuses_others() {
        let now: Propagation = serde_json::from_str(r#"{"rule": "ts1", "noise": true, "particles": 5}"#).unwrap();
        let before: Propagation = serde_json::from_str(r#"{"members": "ts1", "noise": true, "particles": 5}"#).unwrap();
        assert_eq!((now, before.rule), (before, MemberRule::Ts1));
        assert_eq!(serde_json::to_string(&before).unwrap(), r#"{"rule":"ts1","noise":true,"particles":5}"#);
        let extra = r#"{"rule": "ts1", "noise": true, "particles": 5, "aggregate": "worst"}"#;
        let told = serde_json::from_str::<Propagation>(extra).unwrap_err().to_string();
        assert!(told.contains("unknown field `aggregate`"), "{told}");
    }
}
