//! Policies: maps from observations to actions, in batches, on the host.

mod actor;
mod inputs;
mod scale;

pub use actor::{Actor, ActorConfig, ActorHead, ActorPass};
pub(crate) use actor::{HALF_LOG_TAU, check_learning_rate, load_network};
pub use inputs::Inputs;
pub use scale::ActionScale;

use burn::tensor::{Tensor, TensorData};
use mbrl_env::{Rng, Situation};
use mbrl_model::mlp::{HostMlp, MlpConfig};

use crate::{ActMode, Agent, AgentError};

/// Which random numbers a policy acts with. They are a function of key, step and row, so that neither the size of a batch nor
/// the number of threads changes a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyDraw {
    /// Drawn from the caller's generator.
    pub key: u64,
    /// Number of the step, where one key serves a whole roll-out.
    pub step: u32,
    /// Number of the first row, where a batch is a part of a larger one.
    pub first_row: usize,
}

impl PolicyDraw {
    /// Step 0, rows from 0 on.
    #[must_use]
    pub fn new(key: u64) -> Self {
        Self { key, step: 0, first_row: 0 }
    }

    /// The same key at another step.
    #[must_use]
    pub fn at_step(self, step: u32) -> Self {
        Self { step, ..self }
    }

    /// The same for a batch whose first row is number `first_row` of a larger one.
    #[must_use]
    pub fn from_row(self, first_row: usize) -> Self {
        Self { first_row, ..self }
    }
}

/// Maps observations to actions.
pub trait Policy: Send + Sync {
    /// O, entries of an observation.
    fn obs_width(&self) -> usize;

    /// A, entries of an action.
    fn action_width(&self) -> usize;

    /// Actions `[N, A]` in the environment's units, within its bounds, for observations `[N, O]`. [`ActMode::Explore`] draws
    /// them, [`ActMode::Evaluate`] gives the mean action and ignores `draw`.
    ///
    /// # Panics
    /// If the observations are not whole rows.
    fn act(&self, obs: &[f32], mode: ActMode, draw: PolicyDraw) -> Vec<f32>;

    /// As [`act`](Self::act), on tensors: actions on the device of the observations, computed on the host and without gradients.
    fn act_tensor(&self, obs: Tensor<2>, mode: ActMode, draw: PolicyDraw) -> Tensor<2> {
        let (device, rows) = (obs.device(), obs.dims()[0]);
        let obs: Vec<f32> = obs.into_data().iter().collect();
        Tensor::from_data(TensorData::new(self.act(&obs, mode, draw), [rows, self.action_width()]), &device)
    }
}

/// An [`Agent`] that follows a policy and learns nothing.
///
/// ```
/// use mbrl_env::{Env, Rng, tasks};
/// use mbrl_policy::{ActorConfig, ActorHead, PolicyAgent, evaluate, start_seeds};
///
/// let mut task = tasks::make("pendulum")?;
/// let head = ActorHead::Gaussian { log_std: [-20.0, 2.0] };
/// let policy = ActorConfig::default().init(task.env.spec(), head, &mut Rng::new(0))?;
/// let found = evaluate(&mut task.env, &mut PolicyAgent::new(policy), &start_seeds(0, 2))?;
/// assert_eq!(found.episodes.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PolicyAgent<P> {
    policy: P,
}

impl<P: Policy> PolicyAgent<P> {
    /// Follows `policy`.
    #[must_use]
    pub fn new(policy: P) -> Self {
        Self { policy }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &P {
        &self.policy
    }
}

impl<P: Policy> Agent for PolicyAgent<P> {
    fn name(&self) -> &str {
        "policy"
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        follow(&self.policy, situation, mode, rng)
    }

    fn slots(&self) -> usize {
        usize::MAX
    }
}

/// The action of a policy in a situation.
pub(crate) fn follow(
    policy: &dyn Policy,
    situation: &Situation<'_>,
    mode: ActMode,
    rng: &mut Rng,
) -> Result<Vec<f32>, AgentError> {
    mbrl_env::check_width("observation", policy.obs_width(), situation.obs.len())?;
    // Judging draws nothing.
    let key = if mode == ActMode::Explore { rng.key() } else { 0 };
    Ok(policy.act(situation.obs, mode, PolicyDraw::new(key)))
}

/// A network whose weights and biases are uniform within ±1/√in, gains 1 and shifts 0: PyTorch's linear layers, and so
/// Stable-Baselines3's networks.
pub(crate) fn init_network(config: &MlpConfig, rng: &mut Rng) -> Result<HostMlp, AgentError> {
    let mut network = config.init_host(rng)?;
    let mut parameters = Vec::with_capacity(config.parameters());
    let outputs = config.hidden.iter().copied().chain([config.outputs]);
    let mut inputs = config.inputs;
    for (l, width) in outputs.enumerate() {
        let bound = 1.0 / (inputs as f32).sqrt();
        let drawn = config.members * (inputs + 1) * width;
        parameters.extend((0..drawn).map(|_| rng.uniform(-bound, bound)));
        if config.layer_norm && l < config.hidden.len() {
            parameters.extend(std::iter::repeat_n(1.0, config.members * width));
            parameters.extend(std::iter::repeat_n(0.0, config.members * width));
        }
        inputs = width;
    }
    network.set_parameters(&parameters);
    Ok(network)
}
