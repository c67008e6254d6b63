//! Wrappers as plain data.

use serde::{Deserialize, Serialize};

use super::{ActionLimits, ActionRepeat, Delay, LimitsConfig, Noise, check_delay};
use crate::{Env, EnvError, World};

/// Wrappers that make a world harder, as plain data: an experiment's section `[wrappers]`.
///
/// From the agent inwards: its action waits out the delay, gets its noise, is held for some environment steps and
/// clipped to its limits; the observation that comes back gets its noise and waits out its own delay. Delays count the agent's steps.
///
/// ```
/// use mbrl_env::{Env, WrappersConfig, tasks};
///
/// let config: WrappersConfig = serde_json::from_str(r#"{ "action_repeat": 2, "observation_noise": 0.01 }"#)?;
/// let world = config.apply(tasks::make("pendulum")?.env)?;
/// assert_eq!((world.spec().control_period, world.spec().max_steps), (0.1, Some(100)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A reward as a batch function covers one environment step: with `action_repeat` above 1 it no longer equals the reward that the
/// world gives, and with delays or noise it does so only up to these. A model can learn the reward that is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WrappersConfig {
    /// Limits on the actions, within the environment's own ([`ActionLimits`]; default: its own). Exploration and planning need this
    /// setting where the environment gives no limits.
    pub action_limits: LimitsConfig,
    /// Environment steps per action ([`ActionRepeat`]; default 1). With more of them, a horizon of the same number of decisions reaches
    /// further, but the agent reacts later.
    pub action_repeat: u32,
    /// Standard deviation of the noise on observations, in their units ([`Noise`]; default 0). Not for pictures.
    pub observation_noise: NoiseStd,
    /// Standard deviation of the noise on actions, in their units ([`Noise`]; default 0).
    pub action_noise: NoiseStd,
    /// Number of steps by which observations arrive late ([`Delay`]; default 0).
    pub observation_delay: usize,
    /// Number of steps by which actions take effect late ([`Delay`]; default 0).
    pub action_delay: usize,
}

/// A standard deviation for all columns, or one for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, or a list of numbers, one per column")]
pub enum NoiseStd {
    /// The same for all columns.
    All(f32),
    /// One per column.
    Each(Vec<f32>),
}

impl NoiseStd {
    /// One per column; `None` where there is no noise.
    fn columns(&self, width: usize) -> Option<Vec<f32>> {
        match self {
            Self::All(std) => (*std != 0.0).then(|| vec![*std; width]),
            Self::Each(std) => Some(std.clone()),
        }
    }
}

impl Default for NoiseStd {
    fn default() -> Self {
        Self::All(0.0)
    }
}

impl Default for WrappersConfig {
    fn default() -> Self {
        let none = NoiseStd::default;
        Self {
            action_limits: LimitsConfig::default(),
            action_repeat: 1,
            observation_noise: none(),
            action_noise: none(),
            observation_delay: 0,
            action_delay: 0,
        }
    }
}

/// Puts a wrapper around an environment of either kind.
macro_rules! wrapped {
    ($world:expr, |$env:ident| $wrapper:expr) => {
        match $world {
            World::Env($env) => World::from_env($wrapper),
            World::Simulator($env) => World::from_simulator($wrapper),
        }
    };
}

impl WrappersConfig {
    /// Whether it changes anything.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Puts the wrappers around a world. A simulator stays one.
    ///
    /// # Errors
    /// [`EnvError::Config`] for an `action_repeat` of 0, for a delay of more than 10,000 steps, and for noise that is negative, not finite, on pixels or on discrete actions;
    /// [`EnvError::Width`] for a list without exactly one number per column; those of
    /// [`LimitsConfig::resolve`] and [`ActionLimits::clip`].
    pub fn apply(&self, world: World) -> Result<World, EnvError> {
        let mut world = world;
        if !self.action_limits.is_own() {
            let limits = self.action_limits.resolve(world.spec())?;
            world = wrapped!(world, |env| ActionLimits::clip(env, limits)?);
        }
        for (field, steps) in [("observation_delay", self.observation_delay), ("action_delay", self.action_delay)] {
            check_delay(field, steps)?;
        }
        if self.action_repeat == 0 {
            return Err(EnvError::Config { field: "action_repeat", value: "0".into(), rule: "at least 1" });
        }
        if self.action_repeat != 1 {
            world = wrapped!(world, |env| ActionRepeat::new(env, self.action_repeat)?);
        }
        let obs_std = self.observation_noise.columns(world.spec().obs.width());
        let action_std = self.action_noise.columns(world.spec().actions.width());
        if obs_std.is_some() || action_std.is_some() {
            world = wrapped!(world, |env| {
                let mut noise = Noise::new(env);
                if let Some(std) = obs_std {
                    noise = noise.on_observations(std)?;
                }
                if let Some(std) = action_std {
                    noise = noise.on_actions(std)?;
                }
                noise
            });
        }
        if self.action_delay > 0 {
            world = wrapped!(world, |env| Delay::actions(env, self.action_delay));
        }
        if self.observation_delay > 0 {
            world = wrapped!(world, |env| Delay::observations(env, self.observation_delay));
        }
        Ok(world)
    }
}
