//! Environments around environments.

mod action_limits;
mod action_repeat;
mod config;
mod delay;
mod noise;
mod time_limit;

#[cfg(feature = "mujoco")]
pub(crate) use action_limits::narrowed;
pub use action_limits::{ActionLimits, LimitsConfig, Own};
pub use action_repeat::ActionRepeat;
pub use config::{NoiseStd, WrappersConfig};
pub use delay::Delay;
pub use noise::Noise;
pub use time_limit::TimeLimit;
