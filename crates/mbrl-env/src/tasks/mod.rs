//! The classic tasks, and the registry that makes them by name.
//!
//! A task is more than an environment: planning needs its reward and its end as batch functions, and a model wants to
//! know which columns are angles. [`make`] gives all of it.
//!
//! ```
//! use mbrl_env::{Env, Rng, tasks};
//!
//! let mut task = tasks::make("pendulum")?;
//! let mut rng = Rng::new(0);
//! let first = task.env.reset(Some(7))?;
//! assert_eq!(first.len(), task.env.spec().obs.width());
//! let action = task.env.spec().actions.sample(&mut rng)?;
//! assert!(task.env.step(&action)?.reward <= 0.0);
//!
//! let unknown = tasks::make("pendulun").unwrap_err().to_string();
//! assert_eq!(unknown, "unknown task `pendulun`; known tasks: pendulum, cartpole, cartpole-swingup");
//! # Ok::<(), mbrl_env::EnvError>(())
//! ```

mod cartpole;
mod cartpole_swingup;
mod pendulum;

use std::{fmt, sync::Arc};

use burn::tensor::Tensor;

use crate::{EnvError, Reward, Rng, Simulator, SketchFn, Termination, TimeLimit, check_finite};

pub use cartpole::{CartPole, CartPoleReward, CartPoleTermination};
pub use cartpole_swingup::{CartPoleSwingup, CartPoleSwingupReward};
pub use pendulum::{Pendulum, PendulumReward};

/// An environment with everything that model-based learning wants to know about it.
pub struct Task {
    /// The environment, under its time limit.
    pub env: Box<dyn Simulator>,
    /// Its reward, as planners see it.
    pub reward: Arc<dyn Reward>,
    /// Its end states; `None` where the task has none.
    pub termination: Option<Arc<dyn Termination>>,
    /// Columns of the observation that are angles (rad) and turn all the way round: models embed them as sine and
    /// cosine.
    pub angles: Vec<usize>,
    /// Draws an observation; `None` where there is nothing to see.
    pub sketch: Option<SketchFn>,
    /// The time limit (steps).
    pub max_steps: u32,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("spec", self.env.spec())
            .field("terminates", &self.termination.is_some())
            .field("angles", &self.angles)
            .field("max_steps", &self.max_steps)
            .finish_non_exhaustive()
    }
}

/// A line of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskInfo {
    /// What [`make`] calls it.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
}

/// All tasks.
#[must_use]
pub fn list() -> &'static [TaskInfo] {
    &[
        TaskInfo { name: pendulum::NAME, summary: "swing a pendulum up and hold it (Gymnasium's Pendulum-v1)" },
        TaskInfo { name: cartpole::NAME, summary: "balance a pole on a cart by a continuous force (mbrl-lib's)" },
        TaskInfo { name: cartpole_swingup::NAME, summary: "swing a pole on a cart up and hold it (PETS's cart-pole)" },
    ]
}

/// Makes a task.
///
/// Its environment has not begun an episode; until a seed is given to `reset`, its generator is that of seed 0.
///
/// # Errors
/// [`EnvError::UnknownTask`], listing the known ones.
pub fn make(name: &str) -> Result<Task, EnvError> {
    match name {
        pendulum::NAME => task(Pendulum::new(), 200, PendulumReward, None, vec![]),
        // The pole's angle stays within 12°: sine and cosine of it would say less, not more.
        cartpole::NAME => task(CartPole::new(), 200, CartPoleReward, Some(Arc::new(CartPoleTermination)), vec![]),
        cartpole_swingup::NAME => task(CartPoleSwingup::new(), 200, CartPoleSwingupReward, None, vec![1]),
        _ => Err(EnvError::UnknownTask {
            name: name.to_owned(),
            known: list().iter().map(|task| task.name).collect::<Vec<_>>().join(", "),
        }),
    }
}

fn task(
    env: impl Simulator + 'static,
    max_steps: u32,
    reward: impl Reward + 'static,
    termination: Option<Arc<dyn Termination>>,
    angles: Vec<usize>,
) -> Result<Task, EnvError> {
    let env = Box::new(TimeLimit::new(env, max_steps)?);
    Ok(Task { env, reward: Arc::new(reward), termination, angles, sketch: None, max_steps })
}

/// What every classic task carries beside its specification: the physical state, the generator of starts, and where in
/// an episode it is.
#[derive(Debug, Clone)]
struct Episode<const N: usize> {
    state: [f64; N],
    rng: Rng,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unbegun,
    Running,
    Over,
}

impl<const N: usize> Episode<N> {
    fn new() -> Self {
        Self { state: [0.0; N], rng: Rng::new(0), phase: Phase::Unbegun }
    }

    /// Begins an episode at the state that `draw` takes from the generator.
    fn begin(&mut self, seed: Option<u64>, draw: impl FnOnce(&mut Rng) -> [f64; N]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.state = draw(&mut self.rng);
        self.phase = Phase::Running;
    }

    /// Begins an episode at a given state.
    fn begin_at(&mut self, name: &str, state: [f64; N]) -> Result<(), EnvError> {
        check_finite(&format!("state of {name}"), &state.map(|entry| entry as f32))?;
        self.state = state;
        self.phase = Phase::Running;
        Ok(())
    }

    fn require_running(&self, name: &str) -> Result<(), EnvError> {
        let why = match self.phase {
            Phase::Running => return Ok(()),
            Phase::Unbegun => "no episode has begun",
            Phase::Over => "the episode is over",
        };
        Err(EnvError::NeedsReset { env: name.to_owned(), why })
    }
}

/// One column of `[N, D]`, as `[N]`.
fn column(rows: &Tensor<2>, index: usize) -> Tensor<1> {
    rows.clone().select_dim::<1>(1, index)
}
