//! The episode contract, and environments that can be copied whole.

use std::{any::Any, collections::BTreeMap, fmt, sync::Arc};

use crate::{
    ActionSpace, AngleColumn, BoxSpace, EnvError, Frame,
    error::{check_finite, check_width},
};

/// What an environment is called, sees and takes.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvSpec {
    /// Name, as in the task registry.
    pub name: String,
    /// Space of observations.
    pub obs: BoxSpace,
    /// Space of actions, in the environment's units.
    pub actions: ActionSpace,
    /// Time between two actions (s).
    pub control_period: f64,
}

impl EnvSpec {
    /// The columns of an observation that are angles: models see them as sine and cosine.
    #[must_use]
    pub fn angles(&self) -> Vec<AngleColumn> {
        Vec::new()
    }
}

/// Named numbers beside the reward, for logs: reward terms, distances, contact counts.
pub type Info = BTreeMap<&'static str, f64>;

/// What one step gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The next observation, also at the end of an episode: never the one of the next reset.
    pub obs: Vec<f32>,
    /// Reward of this step.
    pub reward: f64,
    /// The task reached an end state: nothing follows, values do not bootstrap.
    pub terminated: bool,
    /// The episode was cut from outside (a time limit): values do bootstrap. Both flags may be true.
    pub truncated: bool,
    /// Named numbers for logs.
    pub info: Info,
}

impl Step {
    /// Whether `reset` must come next.
    #[must_use]
    pub fn episode_over(&self) -> bool {
        self.terminated || self.truncated
    }
}

/// An environment with Gymnasium's episode contract.
///
/// Implementors keep to this, and [`check::check_env`](crate::check::check_env) tests it:
/// - `reset(Some(seed))` then the same actions give the same bits, whatever happened before;
/// - `reset(None)` goes on with the environment's own generator;
/// - after a step with `terminated` or `truncated`, and before the first reset, `step` is an error;
/// - an action of the wrong width or with a NaN is an error and changes nothing; one outside the bounds is the
///   environment's to clip;
/// - a simulation that breaks down is [`EnvError::Simulation`], and the episode is over;
/// - `truncated` comes from wrappers such as [`TimeLimit`](crate::TimeLimit) alone.
pub trait Env: Send {
    /// What the environment is called, sees and takes.
    fn spec(&self) -> &EnvSpec;

    /// Begins an episode and returns its first observation.
    ///
    /// # Errors
    /// Whatever keeps the environment from starting.
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError>;

    /// Advances by one control period under `action` `[A]`, in the environment's units.
    ///
    /// # Errors
    /// [`EnvError::Width`], [`EnvError::NonFinite`] or [`EnvError::NeedsReset`]; the state is then unchanged.
    /// [`EnvError::Simulation`]: the episode is over, `reset` comes next.
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError>;

    /// Draws the present state, without a window. Most environments have no such picture, only a
    /// [sketch](crate::tasks::Task::sketch) of their observations.
    ///
    /// # Errors
    /// [`EnvError::NoPicture`] (the default), or [`EnvError::Engine`] where what draws it is missing.
    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        let _ = (width, height);
        Err(EnvError::NoPicture { env: self.spec().name.clone() })
    }
}

/// Checks an action against a specification: width and finiteness.
///
/// # Errors
/// [`EnvError::Width`] or [`EnvError::NonFinite`], naming the environment.
pub fn check_action(spec: &EnvSpec, action: &[f32]) -> Result<(), EnvError> {
    let what = || format!("action of {}", spec.name);
    if action.len() != spec.actions.width() {
        check_width(&what(), spec.actions.width(), action.len())?;
    }
    if action.iter().any(|a| !a.is_finite()) {
        check_finite(&what(), action)?;
    }
    Ok(())
}

/// The whole state of a simulator: opaque, cheap to clone, restored bit for bit by the simulator that made it or by a
/// clone of that one.
#[derive(Clone)]
pub struct Snapshot(Arc<dyn Any + Send + Sync>);

impl Snapshot {
    /// Wraps a simulator's own state type.
    pub fn new<T: Any + Send + Sync>(state: T) -> Self {
        Self(Arc::new(state))
    }

    /// The state, where it has the type `T`.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot(..)")
    }
}

/// An environment that can be copied whole: physics, counters, delays and generators of its wrappers included.
///
/// [`check::check_simulator`](crate::check::check_simulator) tests that restoring gives back the same bits.
pub trait Simulator: Env {
    /// The whole state.
    fn save(&self) -> Snapshot;

    /// Goes back to a state.
    ///
    /// # Errors
    /// [`EnvError::ForeignSnapshot`] where another kind of simulator made it.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError>;

    /// An independent copy in the same state.
    fn boxed_clone(&self) -> Box<dyn Simulator>;
}

impl<E: Env + ?Sized> Env for Box<E> {
    fn spec(&self) -> &EnvSpec {
        (**self).spec()
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        (**self).reset(seed)
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        (**self).step(action)
    }
    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        (**self).render(width, height)
    }
}

impl<E: Simulator + ?Sized> Simulator for Box<E> {
    fn save(&self) -> Snapshot {
        (**self).save()
    }
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        (**self).restore(snapshot)
    }
    fn boxed_clone(&self) -> Box<dyn Simulator> {
        (**self).boxed_clone()
    }
}
