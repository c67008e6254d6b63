//! Actions and observations that arrive late.

use std::collections::VecDeque;

use crate::{ActionSpace, Env, EnvError, EnvSpec, Frame, Scene, Simulator, Snapshot, Step, check_action};

/// Delays actions or observations by a number of steps.
///
/// Until the first delayed action takes effect, the environment gets the action nearest to zero in its space; until the
/// first delayed observation arrives, the agent sees the first one of the episode again. Rewards, terminations and info are not
/// delayed: they are those of the step that the environment takes now. The last observations of an episode are therefore never
/// seen. With delayed observations or actions a single observation is not a state: to predict well, a model
/// needs the past actions too.
///
/// The queue is part of the snapshot. A delay of 0 steps changes nothing.
///
/// ```
/// use mbrl_env::{Delay, Env, tasks::PointMass};
/// let mut env = Delay::actions(PointMass::new(), 1);
/// let start = env.reset(Some(0))?;
/// assert_eq!(env.step(&[1.0, 0.0])?.obs, start); // nothing yet
/// assert!(env.step(&[0.0, 0.0])?.obs[0] > start[0]);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Delay<E> {
    env: E,
    what: What,
    steps: usize,
    /// What is on its way, oldest first: `steps` entries while an episode runs.
    queue: VecDeque<Vec<f32>>,
}

/// Refuses a delay that would need too much memory: each step of it is kept.
///
/// # Errors
/// [`EnvError::Config`], naming `field`, for more than 10,000 steps.
pub fn check_delay(field: &'static str, steps: usize) -> Result<(), EnvError> {
    match steps > 10_000 {
        true => Err(EnvError::Config { field, value: steps.to_string(), rule: "at most 10000 steps" }),
        false => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Actions,
    Observations,
}

impl<E: Env> Delay<E> {
    /// Actions take effect `steps` steps late.
    #[must_use]
    pub fn actions(env: E, steps: usize) -> Self {
        Self { env, what: What::Actions, steps, queue: VecDeque::new() }
    }

    /// Observations arrive `steps` steps late.
    #[must_use]
    pub fn observations(env: E, steps: usize) -> Self {
        Self { env, what: What::Observations, steps, queue: VecDeque::new() }
    }

    /// The environment inside.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.env
    }

    /// Puts `new` at the end of the queue and takes what has waited longest.
    fn exchange(&mut self, new: Vec<f32>) -> Vec<f32> {
        self.queue.push_back(new);
        self.queue.pop_front().unwrap_or_default()
    }
}

/// The action in effect before the first one arrives.
fn nearest_to_zero(actions: &ActionSpace) -> Vec<f32> {
    match actions {
        ActionSpace::Box(space) => space.clipped(&vec![0.0; space.width()]),
        ActionSpace::Discrete(_) => vec![0.0],
    }
}

impl<E: Env> Env for Delay<E> {
    fn spec(&self) -> &EnvSpec {
        self.env.spec()
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let obs = self.env.reset(seed)?;
        let waiting = match self.what {
            What::Actions => nearest_to_zero(&self.env.spec().actions),
            What::Observations => obs.clone(),
        };
        self.queue = std::iter::repeat_n(waiting, self.steps).collect();
        Ok(obs)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(self.env.spec(), action)?;
        match self.what {
            What::Actions => {
                // The queue moves only if the environment does.
                let acts = self.queue.front().map_or(action, Vec::as_slice);
                let step = self.env.step(acts)?;
                self.exchange(action.to_vec());
                Ok(step)
            }
            What::Observations => {
                let step = self.env.step(action)?;
                Ok(Step { obs: self.exchange(step.obs), ..step })
            }
        }
    }

    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        self.env.render(width, height)
    }

    fn scene(&mut self) -> Option<Scene> {
        self.env.scene()
    }
}

#[derive(Debug)]
struct Saved {
    inside: Snapshot,
    /// The delay that the queue belongs to.
    kind: (What, usize),
    queue: VecDeque<Vec<f32>>,
}

impl<E: Simulator + 'static> Simulator for Delay<E> {
    fn save(&self) -> Snapshot {
        let kind = (self.what, self.steps);
        Snapshot::new(Saved { inside: self.env.save(), kind, queue: self.queue.clone() })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let foreign = || EnvError::ForeignSnapshot { env: self.env.spec().name.clone() };
        let is_own = |saved: &&Saved| saved.kind == (self.what, self.steps);
        let saved: &Saved = snapshot.get().filter(is_own).ok_or_else(foreign)?;
        self.env.restore(&saved.inside)?;
        self.queue.clone_from(&saved.queue);
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        let Self { env, what, steps, queue } = self;
        Box::new(Delay { env: env.boxed_clone(), what: *what, steps: *steps, queue: queue.clone() })
    }
}
