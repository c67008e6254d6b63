//! The time limit: the only place where episodes are truncated.

use std::sync::Arc;

use crate::{Env, EnvError, EnvSpec, Frame, Scene, Simulator, Snapshot, Step};

/// Cuts episodes after a number of steps, and says so in the specification ([`EnvSpec::max_steps`]).
///
/// The last step is `truncated`; where the task also ends there, it is `terminated` too, and learning must use that
/// flag: a terminated step has no future to bootstrap from, a truncated one has.
///
/// It counts the steps of the environment that it wraps. Around [`ActionRepeat`](crate::ActionRepeat) it limits decisions; inside
/// of one it limits the environment's own steps, and the repetition stops at the limit. The order of the limit relative to
/// [`Noise`](crate::Noise) and [`Delay`](crate::Delay) makes no difference.
///
/// ```
/// use mbrl_env::{Env, TimeLimit, tasks::Pendulum};
/// let mut env = TimeLimit::new(Pendulum::new(), 2)?;
/// assert_eq!(env.spec().max_steps, Some(2));
/// env.reset(Some(0))?;
/// assert!(!env.step(&[0.0])?.truncated);
/// assert!(env.step(&[0.0])?.truncated);
/// assert!(env.step(&[0.0]).is_err()); // the episode is over
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TimeLimit<E> {
    env: E,
    spec: Arc<EnvSpec>,
    max_steps: u32,
    elapsed: u32,
    cut: bool,
}

impl<E: Env> TimeLimit<E> {
    /// At most `max_steps` steps per episode; a smaller limit inside still holds.
    ///
    /// # Errors
    /// [`EnvError::Config`] where `max_steps` is 0.
    pub fn new(env: E, max_steps: u32) -> Result<Self, EnvError> {
        if max_steps == 0 {
            return Err(EnvError::Config { field: "max_steps", value: "0".into(), rule: "at least 1" });
        }
        let mut spec = env.spec().clone();
        spec.max_steps = Some(spec.max_steps.map_or(max_steps, |inside| inside.min(max_steps)));
        Ok(Self { env, spec: Arc::new(spec), max_steps, elapsed: 0, cut: false })
    }

    /// The limit (steps).
    #[must_use]
    pub fn max_steps(&self) -> u32 {
        self.max_steps
    }

    /// Steps taken in this episode.
    #[must_use]
    pub fn elapsed(&self) -> u32 {
        self.elapsed
    }

    /// The environment inside.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.env
    }

    /// The environment inside, without the limit.
    #[must_use]
    pub fn into_inner(self) -> E {
        self.env
    }
}

impl<E: Env> Env for TimeLimit<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let obs = self.env.reset(seed)?;
        (self.elapsed, self.cut) = (0, false);
        Ok(obs)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        if self.cut {
            // The environment inside knows nothing of the limit.
            return Err(EnvError::NeedsReset { env: self.spec().name.clone(), why: "the episode is over" });
        }
        let mut step = self.env.step(action)?;
        self.elapsed += 1;
        self.cut = self.elapsed >= self.max_steps;
        step.truncated |= self.cut;
        Ok(step)
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
    elapsed: u32,
    cut: bool,
}

impl<E: Simulator + 'static> Simulator for TimeLimit<E> {
    fn save(&self) -> Snapshot {
        Snapshot::new(Saved { inside: self.env.save(), elapsed: self.elapsed, cut: self.cut })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let saved =
            snapshot.get::<Saved>().ok_or_else(|| EnvError::ForeignSnapshot { env: self.spec().name.clone() })?;
        self.env.restore(&saved.inside)?;
        (self.elapsed, self.cut) = (saved.elapsed, saved.cut);
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        let Self { env, spec, max_steps, elapsed, cut } = self;
        let (env, spec) = (env.boxed_clone(), spec.clone());
        Box::new(TimeLimit { env, spec, max_steps: *max_steps, elapsed: *elapsed, cut: *cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{CartPole, Pendulum};

    #[test]
    fn a_limit_of_zero_is_refused() {
        assert!(matches!(TimeLimit::new(Pendulum::new(), 0), Err(EnvError::Config { field: "max_steps", .. })));
    }

    #[test]
    fn the_specification_says_the_limit_that_holds() {
        let limits = |inner, outer| {
            let inside = TimeLimit::new(Pendulum::new(), inner).unwrap();
            TimeLimit::new(inside, outer).unwrap().spec().max_steps
        };
        assert_eq!((limits(7, 5), limits(5, 7)), (Some(5), Some(5)));
        assert_eq!(Pendulum::new().spec().max_steps, None);
    }

    #[test]
    fn an_end_on_the_last_step_sets_both_flags() {
        // Driven to one side, the pole falls after some steps; the limit is set to just those.
        let fall = |limit| {
            let mut env = TimeLimit::new(CartPole::new(), limit).unwrap();
            env.reset(Some(0)).unwrap();
            loop {
                let step = env.step(&[1.0]).unwrap();
                if step.episode_over() {
                    return (env.elapsed(), step.terminated, step.truncated);
                }
            }
        };
        let (length, terminated, truncated) = fall(1000);
        assert_eq!((terminated, truncated), (true, false));
        assert_eq!(fall(length), (length, true, true));
        assert_eq!(fall(length - 1), (length - 1, false, true));
    }

    #[test]
    fn refused_actions_and_restored_snapshots_do_not_use_up_steps() {
        let mut env = TimeLimit::new(Pendulum::new(), 3).unwrap();
        env.reset(Some(0)).unwrap();
        env.step(&[0.0]).unwrap();
        assert!(env.step(&[f32::NAN]).is_err());
        assert_eq!(env.elapsed(), 1);
        let snapshot = env.save();
        for _ in 0..3 {
            assert!(!env.step(&[0.0]).unwrap().truncated);
            assert!(env.step(&[0.0]).unwrap().truncated);
            assert!(matches!(env.step(&[0.0]), Err(EnvError::NeedsReset { .. })));
            env.restore(&snapshot).unwrap();
        }
        env.reset(None).unwrap();
        assert_eq!(env.elapsed(), 0);
    }
}
