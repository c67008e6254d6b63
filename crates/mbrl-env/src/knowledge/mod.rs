//! Knowledge of a task besides its data: features, symmetries, columns that need not be learned.
//!
//! Each is written once and used on every path of a model: as Burn tensors on any device, with gradients, and as tiles of 32 rows
//! on the CPU engine. The checks in [`check`](crate::check) compare the forms with each other and with the task.

pub(crate) mod check;

use std::sync::Arc;

use burn::tensor::Tensor;

/// Number of rows that the CPU engine processes in parallel.
pub const TILE: usize = 32;

/// One column of a tile: its values in [`TILE`] rows.
pub type Lanes = [f32; TILE];

/// Inputs of a model's network besides the observation and the action: positions of fingertips from joint angles, distances,
/// angles between objects. They are functions of the observation **and** the action, so that they can describe a commanded pose as
/// well as a measured one.
///
/// Features are standardised like every other input. [`check_features`](crate::check::check_features) compares the forms.
///
/// ```
/// use mbrl_env::{Device, Features, Lanes, Tensor, check::check_features};
///
/// /// How far a hand at (x, y) is from the origin.
/// struct Reach;
///
/// impl Features for Reach {
///     fn name(&self) -> &str {
///         "reach-1"
///     }
///     fn width(&self) -> usize {
///         1
///     }
///     fn tensor(&self, obs: Tensor<2>, _: Tensor<2>) -> Tensor<2> {
///         obs.square().sum_dim(1).sqrt()
///     }
///     fn tile(&self, obs: &[Lanes], _: &[Lanes], out: &mut [Lanes]) {
///         for r in 0..mbrl_env::TILE {
///             out[0][r] = obs[0][r].hypot(obs[1][r]);
///         }
///     }
///     fn pullback(&self, obs: &[Lanes], _: &[Lanes], grad: &[Lanes], grad_obs: &mut [Lanes], _: &mut [Lanes]) {
///         for r in 0..mbrl_env::TILE {
///             let length = obs[0][r].hypot(obs[1][r]);
///             grad_obs[0][r] += grad[0][r] * obs[0][r] / length;
///             grad_obs[1][r] += grad[0][r] * obs[1][r] / length;
///         }
///     }
/// }
///
/// let (obs, actions) = (vec![0.3, 0.4, -1.0, 2.0], vec![0.0, 0.0]); // two rows
/// check_features(&Reach, &obs, &actions, [2, 1], &Device::flex())?;
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
pub trait Features: Send + Sync {
    /// Name and version, stored with a model: a model that was fitted with other features is refused.
    fn name(&self) -> &str;

    /// Number of columns, `F`.
    fn width(&self) -> usize;

    /// Columns of the observation that the network does not see directly, such as an angle that counts modulo a third of a turn and
    /// is among the features as sine and cosine of its triple. Default: none.
    fn replaces(&self) -> &[usize] {
        &[]
    }

    /// `obs` `[N, O]`, `actions` `[N, A]` in the environment's units → `[N, F]`, differentiable.
    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>) -> Tensor<2>;

    /// The same for [`TILE`] rows: `obs` `[O]`, `actions` `[A]`, `out` `[F]` of [`Lanes`]. All of `out` is written. Some of the
    /// rows may be padding.
    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]);

    /// Pulls a gradient with respect to the features, `grad` `[F]`, back to the inputs: adds the gradients with respect to them to
    /// `grad_obs` `[O]` and `grad_actions` `[A]`.
    fn pullback(
        &self,
        obs: &[Lanes],
        actions: &[Lanes],
        grad: &[Lanes],
        grad_obs: &mut [Lanes],
        grad_actions: &mut [Lanes],
    );
}

/// Symmetries of a task: a valve with three arms looks the same after a third of a turn, two balls may be exchanged. A model
/// that is trained on all copies of its data learns from each transition what would otherwise take several.
///
/// A copy maps observations (before and after the step alike) and actions; the world behaves the same under the map. Copies are made
/// when a batch is drawn: each of its rows is one of the copies of its transition, all equally likely. They take no memory, and stay
/// on their transition's side of the holdout and in its bootstrap samples.
/// [`check_augment`](crate::check::check_augment) tests what can be tested without the world.
pub trait Augment: Send + Sync {
    /// Name and version, for records.
    fn name(&self) -> &str;

    /// Number of copies of each transition, including itself: at least 1.
    fn copies(&self) -> usize;

    /// Maps an observation `[O]` in place. Copy 0 is the observation itself.
    fn observation(&self, copy: usize, obs: &mut [f32]);

    /// Maps an action `[A]` in place. Copy 0 is the action itself.
    fn action(&self, copy: usize, action: &mut [f32]);

    /// Maps the reward of a transition. By default it is unchanged, because the reward is symmetric too. Only models that learn the
    /// reward call this.
    fn reward(&self, copy: usize, reward: f32) -> f32 {
        let _ = copy;
        reward
    }
}

/// Columns of the observation that need not be learned: a target that moves by the clock, a constant goal.
///
/// A model does not predict them: they are not targets, are left out of losses, choices of elites, disagreements and errors, and
/// carry no noise. Roll-outs fill them in. Everything they depend on must be in the observation, so a target that moves by the
/// clock needs its phase there. [`check_known`](crate::check::check_known) compares the forms with each other and with the world.
pub trait Known: Send + Sync {
    /// Name and version, stored with a model: a model that was fitted without them, or with others, is refused.
    fn name(&self) -> &str;

    /// The `C` columns, in rising order.
    fn columns(&self) -> &[usize];

    /// Their next values, `[N, C]`, differentiable: from `obs` `[N, O]`, `actions` `[N, A]` in the environment's units, and `next`
    /// `[N, O]`, in which the other columns hold the predictions and these columns hold meaningless values.
    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>) -> Tensor<2>;

    /// The same for [`TILE`] rows: `obs` and `next` `[O]`, `actions` `[A]`, `out` `[C]` of [`Lanes`].
    fn tile(&self, obs: &[Lanes], actions: &[Lanes], next: &[Lanes], out: &mut [Lanes]);

    /// Pulls a gradient with respect to the values, `grad` `[C]`, back to the inputs: adds the gradients with respect to them to `into`.
    fn pullback(&self, at: KnownAt<'_>, grad: &[Lanes], into: KnownGrads<'_>);
}

/// The inputs at which a [`Known`] is evaluated or differentiated.
#[derive(Debug, Clone, Copy)]
pub struct KnownAt<'a> {
    /// Observations, `[O]`.
    pub obs: &'a [Lanes],
    /// Actions, `[A]`.
    pub actions: &'a [Lanes],
    /// Next observations, `[O]`.
    pub next: &'a [Lanes],
}

/// Gradients to which [`Known::pullback`] adds.
#[derive(Debug)]
pub struct KnownGrads<'a> {
    /// With respect to the observations, `[O]`.
    pub obs: &'a mut [Lanes],
    /// With respect to the actions, `[A]`.
    pub actions: &'a mut [Lanes],
    /// With respect to the next observations, `[O]`.
    pub next: &'a mut [Lanes],
}

/// Everything known of a task; each part is optional.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Knowledge {
    /// Inputs of networks besides observation and action.
    pub features: Option<Arc<dyn Features>>,
    /// Symmetries.
    pub augment: Option<Arc<dyn Augment>>,
    /// Columns that need not be learned.
    pub known: Option<Arc<dyn Known>>,
}

impl Knowledge {
    /// No knowledge.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// With features.
    #[must_use]
    pub fn with_features(mut self, features: impl Features + 'static) -> Self {
        self.features = Some(Arc::new(features));
        self
    }

    /// With symmetries.
    #[must_use]
    pub fn with_augment(mut self, augment: impl Augment + 'static) -> Self {
        self.augment = Some(Arc::new(augment));
        self
    }

    /// With columns that need not be learned.
    #[must_use]
    pub fn with_known(mut self, known: impl Known + 'static) -> Self {
        self.known = Some(Arc::new(known));
        self
    }
}

impl std::fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knowledge")
            .field("features", &self.features.as_ref().map(|features| features.name()))
            .field("augment", &self.augment.as_ref().map(|augment| augment.name()))
            .field("known", &self.known.as_ref().map(|known| known.name()))
            .finish()
    }
}
