//! Noise on observations and actions.

use std::sync::Arc;

use crate::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, FieldKind, Frame, Rng, Scene, Simulator, Snapshot, Step,
    check_action, check_width, rng::Purpose,
};

/// Adds independent Gaussian noise to observations, to actions, or to both.
///
/// The environment inside gets the noisy action and clips it; rewards and terminations are its own, from the true state. A reward
/// as a batch function, which sees noisy observations, therefore matches the environment's only up to the noise. Noisy observations may leave
/// the bounds of the environment's space: the specification gives those columns infinite bounds. The info is the environment's.
///
/// `reset(Some(seed))` seeds the noise too, with a separate stream, so an episode starts in the same state with and without
/// noise; the generator is part of the snapshot. Do not nest two of these wrappers, which would draw the same noise twice: one
/// holds both kinds.
///
/// ```
/// use mbrl_env::{Env, Noise, tasks::Pendulum};
/// let mut env = Noise::new(Pendulum::new()).on_observations([0.0, 0.0, 0.5])?.on_actions([0.1])?;
/// let (seen, true_start) = (env.reset(Some(0))?, Pendulum::new().reset(Some(0))?);
/// assert_eq!(seen[..2], true_start[..2]); // the angle is seen as it is
/// assert_ne!(seen[2], true_start[2]);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Noise<E> {
    env: E,
    spec: Arc<EnvSpec>,
    /// Empty where there is no such noise.
    obs_std: Vec<f32>,
    action_std: Vec<f32>,
    rng: Rng,
    purpose: Purpose,
}

impl<E: Env> Noise<E> {
    /// No noise yet.
    #[must_use]
    pub fn new(env: E) -> Self {
        let spec = Arc::new(env.spec().clone());
        Self {
            env,
            spec,
            obs_std: vec![],
            action_std: vec![],
            rng: Rng::beside(0, Purpose::Noise),
            purpose: Purpose::Noise,
        }
    }

    /// Adds noise with standard deviations `[O]`, in the units of the observation, to observations, including the first one
    /// of an episode.
    ///
    /// # Errors
    /// [`EnvError::Width`], and [`EnvError::Config`] for one that is negative or not finite, and for noise on pixels.
    pub fn on_observations(mut self, std: impl Into<Vec<f32>>) -> Result<Self, EnvError> {
        let std = std.into();
        let inside = &self.env.spec().obs;
        check_std("observation_noise", inside.width(), &std)?;
        let mut of_column = std.iter();
        for field in &self.env.spec().fields {
            let noisy = of_column.by_ref().take(field.width()).find(|std| **std > 0.0);
            if let (FieldKind::Pixels, Some(std)) = (field.kind, noisy) {
                return Err(EnvError::Config {
                    field: "observation_noise",
                    value: std.to_string(),
                    rule: "0 for a picture: pixels are whole numbers from 0 to 255",
                });
            }
        }
        let widened = |bounds: &[f32], free: f32| -> Vec<f32> {
            bounds.iter().zip(&std).map(|(&bound, &std)| if std > 0.0 { free } else { bound }).collect()
        };
        let (low, high) = (widened(inside.low(), f32::NEG_INFINITY), widened(inside.high(), f32::INFINITY));
        Arc::make_mut(&mut self.spec).obs = BoxSpace::new(low, high)?;
        self.obs_std = std;
        Ok(self)
    }

    /// Adds noise with standard deviations `[A]`, in the units of the action, to actions.
    ///
    /// # Errors
    /// [`EnvError::Width`], and [`EnvError::Config`] for one that is negative or not finite and for discrete actions.
    pub fn on_actions(mut self, std: impl Into<Vec<f32>>) -> Result<Self, EnvError> {
        let std = std.into();
        check_std("action_noise", self.spec.actions.width(), &std)?;
        if let ActionSpace::Discrete(n) = self.spec.actions {
            let value = format!("{std:?} on {n} choices");
            return Err(EnvError::Config {
                field: "action_noise",
                value,
                rule: "actions in a box, which noise can move",
            });
        }
        self.action_std = std;
        Ok(self)
    }

    /// Draws different numbers from those of a `Noise` around it with the same seed: for sensors of the environment itself.
    #[must_use]
    pub fn of_sensors(mut self) -> Self {
        self.purpose = Purpose::Sensors;
        self.rng = Rng::beside(0, self.purpose);
        self
    }

    /// The environment inside.
    #[must_use]
    pub fn inner(&self) -> &E {
        &self.env
    }
}

fn check_std(field: &'static str, width: usize, std: &[f32]) -> Result<(), EnvError> {
    check_width(field, width, std.len())?;
    match std.iter().find(|std| !(**std >= 0.0 && std.is_finite())) {
        None => Ok(()),
        Some(std) => Err(EnvError::Config { field, value: std.to_string(), rule: "a finite number of at least 0" }),
    }
}

fn add_noise(values: &mut [f32], std: &[f32], rng: &mut Rng) {
    for (value, std) in values.iter_mut().zip(std) {
        *value += std * rng.normal();
    }
}

impl<E: Env> Env for Noise<E> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let mut obs = self.env.reset(seed)?;
        if let Some(seed) = seed {
            self.rng = Rng::beside(seed, self.purpose);
        }
        add_noise(&mut obs, &self.obs_std, &mut self.rng);
        Ok(obs)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        // A step that is refused must not use up draws.
        let mut rng = self.rng.clone();
        let mut action = action.to_vec();
        add_noise(&mut action, &self.action_std, &mut rng);
        let mut step = self.env.step(&action)?;
        add_noise(&mut step.obs, &self.obs_std, &mut rng);
        self.rng = rng;
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
    rng: Rng,
}

impl<E: Simulator + 'static> Simulator for Noise<E> {
    fn save(&self) -> Snapshot {
        Snapshot::new(Saved { inside: self.env.save(), rng: self.rng.clone() })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        let foreign = || EnvError::ForeignSnapshot { env: self.spec.name.clone() };
        let saved: &Saved = snapshot.get().ok_or_else(foreign)?;
        self.env.restore(&saved.inside)?;
        self.rng = saved.rng.clone();
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Simulator> {
        let Self { env, spec, obs_std, action_std, rng, purpose } = self;
        Box::new(Noise {
            env: env.boxed_clone(),
            spec: spec.clone(),
            obs_std: obs_std.clone(),
            action_std: action_std.clone(),
            rng: rng.clone(),
            purpose: *purpose,
        })
    }
}
