//! The one seam between models and everything that uses them.

use burn::tensor::{Bool, Device, Tensor};
use mbrl_env::Situation;
use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    noise::{self, Distribution, Rows},
};

/// Widths and abilities of a model.
#[derive(Debug, Clone)]
pub struct DynamicsSpec {
    /// Name, for messages.
    pub name: String,
    /// Width of the model's own state, `S`.
    pub state: usize,
    /// Width of an observation, `O`.
    pub obs: usize,
    /// Width of an action, `A`.
    pub action: usize,
    /// Members of an ensemble that roll-outs draw from (its elites), `E`; 1 for a single model.
    pub members: usize,
    /// Where its tensors live.
    pub device: Device,
    /// Whether gradients flow through it.
    pub differentiable: bool,
}

/// Expectation and spread of the next state of N rows, in state units.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// Mean over members, `[N, S]`.
    pub mean: Tensor<2>,
    /// Standard deviation of the noise of the world (root of the mean variance over members), `[N, S]`.
    pub aleatoric_std: Option<Tensor<2>>,
    /// Standard deviation of the members' means, `[N, S]`: what the model does not know.
    pub epistemic_std: Option<Tensor<2>>,
}

/// Which member of an ensemble moves a particle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MemberRule {
    /// The mean over members moves every particle (PETS's E). Needs one particle and draws no noise.
    Expectation,
    /// Trajectory sampling 1: members are dealt out afresh at every step, in equal shares (PETS's TS1).
    Ts1,
    /// Trajectory sampling ∞: particle p keeps member ⌊p·E/P⌋ over the whole horizon (PETS's TS∞). With one particle a
    /// member and without noise this is PDDM's "every member rolls out every candidate".
    TsInf,
    /// Distribution sampling (PETS's DS): each particle moves by a draw from the Gaussian with the mean and the variance, a
    /// dimension, of the mixture of all members at its own state, as in the authors' `BNN.py` (`create_prediction_tensors`).
    /// What the members say beyond that is lost: that there are several modes, and how dimensions hang together. The spread
    /// of the members is drawn always, their own noise where `noise` says so. Any number of particles; each costs as many
    /// network evaluations as there are members.
    Ds,
}

/// How uncertainty is carried through a roll-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// Which member moves a particle.
    pub members: MemberRule,
    /// Whether the members' own noise is drawn (otherwise their means are followed; with DS the spread of these is drawn).
    pub noise: bool,
    /// Particles a candidate, `P`.
    pub particles: usize,
}

impl Propagation {
    /// One particle that follows the mean.
    pub const MEAN: Self = Self { members: MemberRule::Expectation, noise: false, particles: 1 };
}

/// What a roll-out draws with. Noise is a function of (key, step, row, dimension), never of threads or devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// How uncertainty is carried.
    pub propagation: Propagation,
    /// Key of all noise of this roll-out.
    pub key: u64,
    /// Step within the roll-out, from 0.
    pub step: u32,
    /// The candidates are a part of a larger population: the number of the first one, and the size of the whole. Rows are then
    /// those that they are in the whole. Only models that have parts ([`Dynamics::part`]) meet it.
    pub part: Option<(usize, usize)>,
}

impl Draw {
    /// The draw of a roll-out's first step.
    #[must_use]
    pub fn new(propagation: Propagation, key: u64) -> Self {
        Self { propagation, key, step: 0, part: None }
    }

    /// This step's standard normals for `rows` of particles and candidates, `[rows, dims]`, made on `device` as
    /// [`normals`](crate::normals) are: what a model's `sample` draws with.
    #[must_use]
    pub fn normals(&self, [rows, dims]: [usize; 2], device: &Device) -> Tensor<2> {
        let candidates = rows / self.propagation.particles.max(1);
        let (first, population) = self.part.unwrap_or((0, candidates));
        let rows = Rows { count: rows, candidates, population, first };
        noise::draw(Distribution::Normal, self.key, self.step, rows, dims, device)
    }
}

/// Where a roll-out starts: planning starts at one situation, imagination at many states.
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
pub struct Imagined {
    /// Next states, `[N, S]`.
    pub next: Tensor<2>,
    /// Reward by a learned head or by the simulator, `[N]`.
    pub reward: Option<Tensor<1>>,
    /// End by a learned head or by the simulator, `[N]`.
    pub terminated: Option<Tensor<1, Bool>>,
}

/// Imagined trajectories of K candidates with P particles each; row = particle · K + candidate.
#[derive(Debug, Clone)]
pub struct Trajectories {
    /// Observations, the start included, `[H+1, P·K, O]`.
    pub obs: Tensor<3>,
    /// Rewards where the model gives them, `[H, P·K]`.
    pub reward: Option<Tensor<2>>,
    /// Ends where the model gives them, `[H, P·K]`.
    pub terminated: Option<Tensor<2, Bool>>,
}

/// Anything that can say where N states go under N actions.
///
/// Contract, tested by [`check::check_dynamics`](crate::check::check_dynamics) (the gradients by `check_gradients`):
/// - rows are independent: a batch gives what its rows give one by one, in any order, for `predict`;
/// - `sample` and `rollout` with the same [`Draw`] give the same bits on a CPU, whatever the number of threads;
/// - `rollout` agrees with the loop over `sample` (its default) on equal noise: per step and column the largest
///   difference is at most 1e-5 of that column's largest magnitude;
/// - gradients flow from the outputs to `states` and `actions` where `spec().differentiable`.
pub trait Dynamics: Send + Sync {
    /// Widths and abilities.
    fn spec(&self) -> &DynamicsSpec;

    /// Expectation and spread of the next states: `states` `[N, S]`, `actions` `[N, A]` in environment units.
    ///
    /// # Errors
    /// [`ModelError::Width`] for arrays of the wrong size.
    fn predict(&self, states: Tensor<2>, actions: Tensor<2>) -> Result<Prediction, ModelError>;

    /// One imagined step of N rows: `states` `[N, S]`, `actions` `[N, A]`. N is P·K with row = particle · K + candidate.
    ///
    /// # Errors
    /// [`ModelError::Width`] for arrays of the wrong size; [`ModelError::Config`] for particles that do not divide N.
    fn sample(&self, states: Tensor<2>, actions: Tensor<2>, draw: Draw) -> Result<Imagined, ModelError>;

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

    /// What rewards, values and policies see: `[N, S]` → `[N, O]`. Default: the state.
    fn observe(&self, states: Tensor<2>) -> Tensor<2> {
        states
    }

    /// How many candidates of a population are best rolled out at a time, for so many steps and particles. Parts stay in
    /// cache from the roll-out to the rewards, and are scored side by side; with `draw.part` they give the same bits as the
    /// whole. Default: `None`, the whole population at once.
    fn part(&self, horizon: usize, particles: usize) -> Option<usize> {
        let _ = (horizon, particles);
        None
    }

    /// Whole imagined trajectories for given actions `[H, K, A]`, of `draw.propagation.particles` particles each.
    /// Default: a loop over [`sample`](Self::sample), differentiable where that is.
    ///
    /// # Errors
    /// As `encode` and `sample`.
    fn rollout(&self, from: Start<'_>, actions: Tensor<3>, draw: Draw) -> Result<Trajectories, ModelError> {
        rollout_by_steps(self, from, actions, draw)
    }
}

/// The default [`Dynamics::rollout`]: one [`sample`](Dynamics::sample) a step. Public, so that a faster roll-out can be
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
    let [horizon, candidates, _] = actions.dims();
    let particles = draw.propagation.particles;
    check_particles(particles, candidates * particles)?;
    let start = match from {
        Start::States(states) => {
            check_size("rows of the start states", candidates, states.dims()[0])?;
            states
        }
        Start::Situation(situation) => model.encode(&situation)?.repeat_dim(0, candidates),
    };
    let mut states = start.repeat_dim(0, particles);
    let mut obs = vec![model.observe(states.clone())];
    let (mut reward, mut terminated) = (Vec::new(), Vec::new());
    for t in 0..horizon {
        let now = actions.clone().narrow(0, t, 1).squeeze_dim::<2>(0).repeat_dim(0, particles);
        let step = model.sample(states, now, Draw { step: draw.step + t as u32, ..draw })?;
        states = step.next;
        obs.push(model.observe(states.clone()));
        reward.extend(step.reward);
        terminated.extend(step.terminated);
    }
    Ok(Trajectories {
        obs: Tensor::stack(obs, 0),
        reward: (reward.len() == horizon && horizon > 0).then(|| Tensor::stack(reward, 0)),
        terminated: (terminated.len() == horizon && horizon > 0).then(|| Tensor::stack(terminated, 0)),
    })
}

/// Whether a device is one of Burn's on the CPU, flex or ndarray: the engine runs there, and tensors cost nothing to read.
///
/// ```
/// assert!(mbrl_model::is_cpu(&burn::tensor::Device::flex()));
/// ```
#[must_use]
pub fn is_cpu(device: &Device) -> bool {
    // Without Burn's feature `extension` a device names its backend in its `Debug` form alone.
    let name = format!("{device:?}").to_lowercase();
    name.contains("flex") || name.contains("ndarray")
}

/// Refuses particles that do not divide the rows.
pub(crate) fn check_particles(particles: usize, rows: usize) -> Result<(), ModelError> {
    if particles > 0 && rows.is_multiple_of(particles) {
        return Ok(());
    }
    Err(ModelError::Config {
        field: "particles",
        value: particles.to_string(),
        rule: "a divisor of the rows, at least 1",
    })
}

/// Refuses an array of the wrong size.
pub(crate) fn check_size(what: &'static str, expected: usize, actual: usize) -> Result<(), ModelError> {
    if expected == actual { Ok(()) } else { Err(ModelError::Width { what, expected, actual }) }
}
