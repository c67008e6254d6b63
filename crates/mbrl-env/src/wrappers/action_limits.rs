//! Your own limits on actions.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Frame, Scene, Step, check_action};

/// Gives actions other limits: narrower ones, limits where the environment has none, or the range [−1, 1] for all.
///
/// Random actions and planners need finite limits. [`clip`](Self::clip) gives them to a motor without a `ctrlrange`, or to a
/// Gymnasium environment with `Box(-inf, inf)`. A lower limit that equals the upper one locks a joint.
///
/// ```
/// use mbrl_env::{ActionLimits, ActionSpace, BoxSpace, Env, tasks::Pendulum};
///
/// let weak = BoxSpace::new([-0.5], [0.5])?;
/// let (mut weak, mut whole) = (ActionLimits::clip(Pendulum::new(), weak)?, Pendulum::new());
/// weak.reset(Some(0))?;
/// whole.reset(Some(0))?;
/// assert_eq!(weak.step(&[2.0])?, whole.step(&[0.5])?);
///
/// // The pendulum's torque is within ±2 N m.
/// let mut scaled = ActionLimits::rescale(Pendulum::new())?;
/// assert_eq!(scaled.spec().actions, ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?));
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
///
/// After [`rescale`](Self::rescale), a reward as a batch function gets other actions than the environment: a task's reward
/// does not apply around this wrapper.
#[derive(Debug, Clone)]
pub struct ActionLimits<E> {
    env: E,
    spec: Arc<EnvSpec>,
    /// The limits inside, where actions are scaled to them.
    scaled_to: Option<BoxSpace>,
}

impl<E: Env> ActionLimits<E> {
    /// Clips actions to `limits`, which become those of the environment.
    ///
    /// # Errors
    /// [`EnvError::ActionLimits`] for discrete actions and for limits that reach beyond the environment's own,
    /// [`EnvError::Width`] for those of another width.
    pub fn clip(env: E, limits: BoxSpace) -> Result<Self, EnvError> {
        let spec = narrowed(env.spec(), limits)?;
        Ok(Self { env, spec: Arc::new(spec), scaled_to: None })
    }

    /// Scales actions from [−1, 1] to the environment's own limits.
    ///
    /// # Errors
    /// [`EnvError::ActionLimits`] for discrete actions, [`EnvError::Unlimited`] where a limit is infinite.
    pub fn rescale(env: E) -> Result<Self, EnvError> {
        let own = require_box(env.spec())?.clone();
        env.spec().require_limited_actions()?;
        let mut spec = env.spec().clone();
        spec.actions = ActionSpace::Box(BoxSpace::symmetric(own.width(), 1.0)?);
        Ok(Self { env, spec: Arc::new(spec), scaled_to: Some(own) })
    }

    /// The environment inside.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.env
    }

    /// The action that the environment inside gets.
    fn told(&self, action: &[f32]) -> Vec<f32> {
        let ActionSpace::Box(limits) = &self.spec.actions else { unreachable!("made of boxes alone") };
        let mut told = limits.clipped(action);
        if let Some(own) = &self.scaled_to {
            for (x, (low, high)) in told.iter_mut().zip(own.low().iter().zip(own.high())) {
                // Halved before they are added: the range of two large limits may overflow.
                *x = (0.5 * high + 0.5 * low + *x * (0.5 * high - 0.5 * low)).clamp(*low, *high);
            }
        }
        told
    }
}

/// A specification with narrower limits on the actions.
pub(crate) fn narrowed(spec: &EnvSpec, limits: BoxSpace) -> Result<EnvSpec, EnvError> {
    let own = require_box(spec)?;
    crate::check_width("action limits", own.width(), limits.width())?;
    let beyond = |i: &usize| limits.low()[*i] < own.low()[*i] || limits.high()[*i] > own.high()[*i];
    if let Some(i) = (0..own.width()).find(beyond) {
        let (low, high, name) = (own.low()[i], own.high()[i], &spec.action_names()[i]);
        let asked = (limits.low()[i], limits.high()[i]);
        let reason =
            format!("`{name}` from {} to {}: expected limits within its own, {low} and {high}", asked.0, asked.1);
        return Err(EnvError::ActionLimits { env: spec.name.clone(), reason });
    }
    let mut spec = spec.clone();
    spec.actions = ActionSpace::Box(limits);
    Ok(spec)
}

/// The box of an environment's actions.
fn require_box(spec: &EnvSpec) -> Result<&BoxSpace, EnvError> {
    match &spec.actions {
        ActionSpace::Box(space) => Ok(space),
        ActionSpace::Discrete(_) => {
            let reason = "its actions are discrete, expected a box".to_owned();
            Err(EnvError::ActionLimits { env: spec.name.clone(), reason })
        }
    }
}

impl<E: Env> Env for ActionLimits<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.env.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        // Clipping would turn NaN or infinity into a number.
        check_action(&self.spec, action)?;
        self.env.step(&self.told(action))
    }

    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        self.env.render(width, height)
    }

    fn scene(&mut self) -> Option<Scene> {
        self.env.scene()
    }
}

simulator_of_inside!(ActionLimits { spec, scaled_to });

/// Limits on actions as plain data: `"own"`, those of the environment (default), `[-1, 1]` for all columns, `[[-1, 1], [0, 2]]` one pair per column,
/// or `{ elbow = [-0.5, 0.5] }` by the names of the columns, which leaves the others as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "\"own\", [low, high], a list of [low, high] with one per column, or { NAME = [low, high] }"
)]
pub enum LimitsConfig {
    /// The environment's own.
    Own(Own),
    /// The same for all columns.
    All([f32; 2]),
    /// One pair per column.
    Each(Vec<[f32; 2]>),
    /// By name.
    Named(BTreeMap<String, [f32; 2]>),
}

/// The word for the environment's own limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Own {
    /// `"own"`.
    #[default]
    Own,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self::Own(Own::Own)
    }
}

impl LimitsConfig {
    /// Whether they are those of the environment.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// The limits on the actions of `spec`.
    ///
    /// # Errors
    /// [`EnvError::ActionLimits`] for discrete actions and unknown names, [`EnvError::Width`] for a list without exactly
    /// one pair per column, [`EnvError::Bounds`] for a pair that is no interval.
    pub fn resolve(&self, spec: &EnvSpec) -> Result<BoxSpace, EnvError> {
        let own = require_box(spec)?;
        let mut pairs: Vec<[f32; 2]> = own.low().iter().zip(own.high()).map(|(low, high)| [*low, *high]).collect();
        match self {
            Self::Own(_) => {}
            Self::All(pair) => pairs.fill(*pair),
            Self::Each(each) => pairs.clone_from(each),
            Self::Named(named) => {
                let names = spec.action_names();
                for (name, pair) in named {
                    match names.iter().position(|known| known == name) {
                        Some(column) => pairs[column] = *pair,
                        None => {
                            let reason = format!("no action is called `{name}`; there are: {}", names.join(", "));
                            return Err(EnvError::ActionLimits { env: spec.name.clone(), reason });
                        }
                    }
                }
            }
        }
        crate::check_width("action limits", own.width(), pairs.len())?;
        let (low, high): (Vec<f32>, Vec<f32>) = pairs.into_iter().map(|[low, high]| (low, high)).unzip();
        BoxSpace::new(low, high)
    }
}
