//! An environment of any kind, owned.

use std::fmt;

use crate::{Env, EnvError, EnvSpec, Frame, Scene, Simulator, Step};

/// What an agent acts in: any environment, or a simulator whose complete state can be saved and restored.
///
/// A machine, a recording or a process is a [`World::Env`]: agents learn and act in it as in any other. Planning with the
/// environment itself, and whatever else takes snapshots, needs a [`World::Simulator`].
///
/// ```
/// use mbrl_env::{Env, World, tasks::Pendulum};
///
/// let mut world = World::from_simulator(Pendulum::new());
/// world.reset(Some(0))?;
/// assert!(world.simulator().is_some());
/// let machine = World::from_env(Pendulum::new()); // as if nothing could be saved
/// assert!(machine.simulator().is_none());
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
pub enum World {
    /// An environment whose state cannot be saved and restored.
    Env(Box<dyn Env>),
    /// A simulator.
    Simulator(Box<dyn Simulator>),
}

impl World {
    /// Any environment; a simulator, too, then offers only what every environment can do.
    #[must_use]
    pub fn from_env(env: impl Env + 'static) -> Self {
        Self::Env(Box::new(env))
    }

    /// A simulator.
    #[must_use]
    pub fn from_simulator(simulator: impl Simulator + 'static) -> Self {
        Self::Simulator(Box::new(simulator))
    }

    /// The simulator, where it is one.
    #[must_use]
    pub fn simulator(&self) -> Option<&dyn Simulator> {
        match self {
            Self::Env(_) => None,
            Self::Simulator(simulator) => Some(&**simulator),
        }
    }

    /// The simulator, to be changed.
    pub fn simulator_mut(&mut self) -> Option<&mut dyn Simulator> {
        match self {
            Self::Env(_) => None,
            Self::Simulator(simulator) => Some(&mut **simulator),
        }
    }

    /// The simulator.
    ///
    /// # Errors
    /// [`EnvError::NotASimulator`].
    pub fn require_simulator(&self) -> Result<&dyn Simulator, EnvError> {
        self.simulator().ok_or_else(|| not_a_simulator(self.spec()))
    }

    /// The simulator itself.
    ///
    /// # Errors
    /// [`EnvError::NotASimulator`].
    pub fn into_simulator(self) -> Result<Box<dyn Simulator>, EnvError> {
        match self {
            Self::Env(env) => Err(not_a_simulator(env.spec())),
            Self::Simulator(simulator) => Ok(simulator),
        }
    }

    fn as_env(&self) -> &dyn Env {
        match self {
            Self::Env(env) => &**env,
            Self::Simulator(simulator) => &**simulator,
        }
    }

    fn as_env_mut(&mut self) -> &mut dyn Env {
        match self {
            Self::Env(env) => &mut **env,
            Self::Simulator(simulator) => &mut **simulator,
        }
    }
}

fn not_a_simulator(spec: &EnvSpec) -> EnvError {
    EnvError::NotASimulator { env: spec.name.clone() }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Env(_) => "Env",
            Self::Simulator(_) => "Simulator",
        };
        f.debug_tuple(kind).field(self.spec()).finish()
    }
}

impl Env for World {
    fn spec(&self) -> &EnvSpec {
        self.as_env().spec()
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.as_env_mut().reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.as_env_mut().step(action)
    }

    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        self.as_env_mut().render(width, height)
    }

    fn scene(&mut self) -> Option<Scene> {
        self.as_env_mut().scene()
    }
}

impl From<Box<dyn Env>> for World {
    fn from(env: Box<dyn Env>) -> Self {
        Self::Env(env)
    }
}

impl From<Box<dyn Simulator>> for World {
    fn from(simulator: Box<dyn Simulator>) -> Self {
        Self::Simulator(simulator)
    }
}
