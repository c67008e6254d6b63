//! The episode contract, and environments whose complete state can be saved, restored and cloned.

use std::{any::Any, borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use crate::{
    ActionSpace, AngleColumn, BoxSpace, EnvError, Field, Frame, Scene,
    error::{check_finite, check_width},
    field,
};

/// What an environment is called, sees and takes.
///
/// ```
/// use mbrl_env::{ActionSpace, BoxSpace, EnvSpec, Field};
///
/// let (obs, actions) = (BoxSpace::unbounded(2), ActionSpace::Box(BoxSpace::symmetric(1, 2.0)?));
/// // Without names the columns are numbered.
/// let spec = EnvSpec::new("arm", obs, actions, 0.05);
/// assert_eq!(spec.column_names(), ["obs[0]", "obs[1]"]);
/// let spec = spec
///     .with_fields([Field::angle("shoulder"), Field::linear("shoulder_velocity", "rad/s")])?
///     .with_action_fields([Field::linear("torque", "N m")])?;
/// assert_eq!((spec.angles()[0].column, &*spec.action_names()[0]), (0, "torque"));
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EnvSpec {
    /// Name, as in the task registry.
    pub name: String,
    /// Space of observations `[O]`.
    pub obs: BoxSpace,
    /// What the columns of an observation are, in their order.
    pub fields: Vec<Field>,
    /// Space of actions `[A]`, in the environment's units.
    pub actions: ActionSpace,
    /// What the columns of an action are, in their order.
    pub action_fields: Vec<Field>,
    /// Time between two actions (s).
    pub control_period: f64,
    /// Largest number of steps per episode, set by [`TimeLimit`](crate::TimeLimit); `None` for no limit.
    pub max_steps: Option<u32>,
}

impl EnvSpec {
    /// A specification whose columns are numbered, `obs[0]`, `obs[1]`, …, `action[0]`, …, and have no names yet.
    /// `control_period` is the time between two actions (s).
    #[must_use]
    pub fn new(name: impl Into<String>, obs: BoxSpace, actions: ActionSpace, control_period: f64) -> Self {
        let (fields, action_fields) = (field::unnamed("obs", obs.width()), field::unnamed("action", actions.width()));
        Self { name: name.into(), obs, fields, actions, action_fields, control_period, max_steps: None }
    }

    /// With names, units and kinds of an observation's columns.
    ///
    /// # Errors
    /// [`EnvError::Fields`] where the fields do not have as many columns as the observation, or two share a name.
    pub fn with_fields(mut self, fields: impl Into<Vec<Field>>) -> Result<Self, EnvError> {
        self.fields = fields.into();
        self.check_fields()?;
        Ok(self)
    }

    /// With names, units and kinds of an action's columns.
    ///
    /// # Errors
    /// [`EnvError::Fields`] where the fields do not have as many columns as the action, or two share a name.
    pub fn with_action_fields(mut self, fields: impl Into<Vec<Field>>) -> Result<Self, EnvError> {
        self.action_fields = fields.into();
        self.check_fields()?;
        Ok(self)
    }

    /// Checks that the fields describe the spaces: as many columns, a unique name for each field, positive turns.
    ///
    /// # Errors
    /// [`EnvError::Fields`].
    pub fn check_fields(&self) -> Result<(), EnvError> {
        for (what, fields, width) in
            [("observation", &self.fields, self.obs.width()), ("action", &self.action_fields, self.actions.width())]
        {
            if let Some(reason) = field::fault(fields, width) {
                return Err(EnvError::Fields { what: format!("{what} of {}", self.name), reason });
            }
        }
        Ok(())
    }

    /// Checks what types cannot: a control period above 0, at least one column in observations and actions, a number of discrete
    /// choices that an action can represent, and the [fields](Self::check_fields).
    ///
    /// # Errors
    /// [`EnvError::Config`], [`EnvError::Fields`].
    pub fn check(&self) -> Result<(), EnvError> {
        // Actions are f32: beyond this number, not every index is an f32.
        const CHOICES: usize = 1 << 24;
        let refuse = |field, value: String, rule| Err(EnvError::Config { field, value, rule });
        if !(self.control_period > 0.0 && self.control_period.is_finite()) {
            return refuse("control_period", self.control_period.to_string(), "a positive number of seconds");
        }
        for (field, width) in
            [("width of the observations", self.obs.width()), ("width of the actions", self.actions.width())]
        {
            if width == 0 {
                return refuse(field, "0".into(), "at least 1");
            }
        }
        if let ActionSpace::Discrete(choices) = self.actions
            && !(1..=CHOICES).contains(&choices)
        {
            return refuse("discrete choices", choices.to_string(), "1 to 16777216: an action holds the index as f32");
        }
        self.check_fields()
    }

    /// A name for each column of an observation.
    #[must_use]
    pub fn column_names(&self) -> Vec<String> {
        self.fields.iter().flat_map(Field::column_names).collect()
    }

    /// A name for each column of an action.
    #[must_use]
    pub fn action_names(&self) -> Vec<String> {
        self.action_fields.iter().flat_map(Field::column_names).collect()
    }

    /// Refuses a box of actions without finite limits: random actions and planners need them.
    ///
    /// # Errors
    /// [`EnvError::Unlimited`], naming the columns and the ways to set limits.
    pub fn require_limited_actions(&self) -> Result<(), EnvError> {
        let ActionSpace::Box(space) = &self.actions else { return Ok(()) };
        let finite = |column: usize| space.low()[column].is_finite() && space.high()[column].is_finite();
        let columns: Vec<String> =
            self.action_names().into_iter().enumerate().filter(|(i, _)| !finite(*i)).map(|(_, name)| name).collect();
        if columns.is_empty() {
            return Ok(());
        }
        Err(EnvError::Unlimited { env: self.name.clone(), columns: columns.join(", ") })
    }

    /// The columns of an observation that are angles: models see them as sine and cosine.
    #[must_use]
    pub fn angles(&self) -> Vec<AngleColumn> {
        field::angles(&self.fields)
    }
}

/// Named numbers for logs: reward terms, distances, contact counts. Constant names cost nothing;
/// others may be made at run time.
pub type Info = BTreeMap<Cow<'static, str>, f64>;

/// The result of one step.
///
/// ```
/// use mbrl_env::Step;
///
/// let step = Step::new([0.5], -1.0).with_terminated(true).with_info("distance", 1.0);
/// assert!(step.episode_over() && !step.truncated);
/// assert_eq!(step.info["distance"], 1.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// The next observation `[O]`, also at the end of an episode: never the one of the next reset.
    pub obs: Vec<f32>,
    /// Reward of this step.
    pub reward: f64,
    /// The task reached a terminal state: nothing follows, values do not bootstrap.
    pub terminated: bool,
    /// The episode was cut from outside (a time limit): values do bootstrap. Both flags may be true.
    pub truncated: bool,
    /// Named numbers for logs; the same names at every step.
    pub info: Info,
}

impl Step {
    /// A step after which the episode continues, without info.
    #[must_use]
    pub fn new(obs: impl Into<Vec<f32>>, reward: f64) -> Self {
        Self { obs: obs.into(), reward, terminated: false, truncated: false, info: Info::new() }
    }

    /// Whether the task reached a terminal state.
    #[must_use]
    pub fn with_terminated(mut self, terminated: bool) -> Self {
        self.terminated = terminated;
        self
    }

    /// Whether the episode was cut from outside.
    #[must_use]
    pub fn with_truncated(mut self, truncated: bool) -> Self {
        self.truncated = truncated;
        self
    }

    /// Adds a named number for logs.
    #[must_use]
    pub fn with_info(mut self, name: impl Into<Cow<'static, str>>, value: f64) -> Self {
        self.info.insert(name.into(), value);
        self
    }

    /// Whether `reset` must come next.
    #[must_use]
    pub fn episode_over(&self) -> bool {
        self.terminated || self.truncated
    }
}

/// An environment with Gymnasium's episode contract.
///
/// Implementors keep to this, and [`check::check_env`](crate::check::check_env) tests it:
/// - `reset(Some(seed))` followed by the same actions gives the same bits, whatever happened before;
/// - `reset(None)` continues with the environment's own generator;
/// - after a step with `terminated` or `truncated`, and before the first reset, `step` is an error;
/// - every step has the same names in its info, and finite numbers;
/// - an action of the wrong width or with a NaN is an error and changes nothing; the environment
///   clips one outside the bounds;
/// - a simulation that breaks down is [`EnvError::Simulation`], and the episode is over;
/// - `truncated` comes only from wrappers such as [`TimeLimit`](crate::TimeLimit).
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

    /// The present state as solids in their places, for pictures that can be turned; `None` (default) where the environment has none.
    /// The call changes nothing.
    fn scene(&mut self) -> Option<Scene> {
        None
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

/// The complete state of a simulator: opaque, cheap to clone, restored bit for bit by the simulator that made it or by a
/// clone of it.
#[derive(Clone)]
pub struct Snapshot(Arc<dyn Any + Send + Sync>);

impl Snapshot {
    /// Wraps a simulator's state.
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

/// An environment whose complete state can be saved, restored and cloned: physics, counters, delays and generators, those of
/// its wrappers included.
///
/// [`check::check_simulator`](crate::check::check_simulator) tests that restoring gives back the same bits.
pub trait Simulator: Env {
    /// The complete state.
    fn save(&self) -> Snapshot;

    /// Restores a state.
    ///
    /// # Errors
    /// [`EnvError::ForeignSnapshot`] where another kind of simulator made it.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError>;

    /// An independent copy in the same state.
    fn boxed_clone(&self) -> Box<dyn Simulator>;
}

macro_rules! forwarded {
    ($Pointer:ty) => {
        impl<E: Env + ?Sized> Env for $Pointer {
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
            fn scene(&mut self) -> Option<Scene> {
                (**self).scene()
            }
        }

        impl<E: Simulator + ?Sized> Simulator for $Pointer {
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
    };
}

forwarded!(Box<E>);
forwarded!(&mut E);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_that_cannot_be_is_refused() {
        let spec = |actions, period| EnvSpec::new("x", BoxSpace::unbounded(2), actions, period).check();
        assert!(spec(ActionSpace::Discrete(3), 0.1).is_ok());
        for (actions, period, what) in [
            (ActionSpace::Discrete(3), f64::NAN, "control_period = NaN"),
            (ActionSpace::Discrete(3), 0.0, "control_period = 0"),
            (ActionSpace::Discrete(3), f64::INFINITY, "control_period = inf"),
            (ActionSpace::Discrete(0), 0.1, "discrete choices = 0"),
            (ActionSpace::Discrete(usize::MAX), 0.1, "discrete choices = 18446744073709551615"),
            (ActionSpace::Box(BoxSpace::unbounded(0)), 0.1, "width of the actions = 0"),
        ] {
            let error = spec(actions, period).unwrap_err().to_string();
            assert!(error.starts_with(what), "{error}");
        }
        let mut named = EnvSpec::new("x", BoxSpace::unbounded(2), ActionSpace::Discrete(3), 0.1);
        named.fields.pop();
        assert!(matches!(named.check(), Err(EnvError::Fields { .. })));
    }
}
