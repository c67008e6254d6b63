//! Actions that are held for several steps.

use std::{collections::BTreeMap, sync::Arc};

use crate::{Env, EnvError, EnvSpec, Frame, Scene, Step};

/// Holds each action for a number of steps of the environment inside: the control period is longer, so a horizon of the same number of
/// decisions reaches further.
///
/// Rewards are summed, without a discount. The repetition stops where the episode ends. The observation and the flags are those of
/// the last step taken inside. Each number of the info is the mean over the steps inside that reported it. Its meaning, a distance
/// or a reward term per environment step, thus stays the same (a sum would turn a distance into something else, the
/// last value would hide what happened in between). Reward terms therefore add up to the reward divided by the steps taken
/// inside. When the repetition is around a [`TimeLimit`](crate::TimeLimit), the limit counts the steps
/// inside; when it is within one, the limit counts decisions.
///
/// A reward as a batch function covers one step: a task's reward does not apply to the repeated steps of its environment.
///
/// ```
/// use mbrl_env::{ActionRepeat, Env, tasks::Pendulum};
/// let (mut once, mut held) = (Pendulum::new(), ActionRepeat::new(Pendulum::new(), 2)?);
/// once.reset(Some(0))?;
/// held.reset(Some(0))?;
/// let (first, second, both) = (once.step(&[1.0])?, once.step(&[1.0])?, held.step(&[1.0])?);
/// assert_eq!((both.reward, both.obs), (first.reward + second.reward, second.obs));
/// assert_eq!(held.spec().control_period, 2.0 * once.spec().control_period);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ActionRepeat<E> {
    env: E,
    spec: Arc<EnvSpec>,
    repeat: u32,
}

impl<E: Env> ActionRepeat<E> {
    /// `repeat` steps of `env` per action.
    ///
    /// # Errors
    /// [`EnvError::Config`] where `repeat` is 0.
    pub fn new(env: E, repeat: u32) -> Result<Self, EnvError> {
        if repeat == 0 {
            return Err(EnvError::Config { field: "repeat", value: "0".into(), rule: "at least 1" });
        }
        let mut spec = env.spec().clone();
        spec.control_period *= f64::from(repeat);
        spec.max_steps = spec.max_steps.map(|steps| steps.div_ceil(repeat));
        Ok(Self { env, spec: Arc::new(spec), repeat })
    }

    /// The environment inside.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.env
    }
}

impl<E: Env> Env for ActionRepeat<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.env.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        let mut last = self.env.step(action)?;
        let mut told: BTreeMap<_, (f64, u32)> = BTreeMap::new();
        for taken in 1..=self.repeat {
            if self.repeat > 1 {
                for (name, value) in &last.info {
                    let (sum, count) = told.entry(name.clone()).or_default();
                    (*sum, *count) = (*sum + value, *count + 1);
                }
            }
            if taken == self.repeat || last.episode_over() {
                break;
            }
            let next = self.env.step(action)?;
            last = Step { reward: last.reward + next.reward, ..next };
        }
        for (name, (sum, count)) in told {
            last.info.insert(name, sum / f64::from(count));
        }
        Ok(last)
    }

    fn render(&mut self, width: u32, height: u32) -> Result<Frame, EnvError> {
        self.env.render(width, height)
    }

    fn scene(&mut self) -> Option<Scene> {
        self.env.scene()
    }
}

simulator_of_inside!(ActionRepeat { spec, repeat });
