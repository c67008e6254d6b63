//! Environments around environments.

/// Implements `Simulator` for a wrapper around `env` that keeps nothing between two steps: its snapshot is that of the environment
/// inside, marked as its own. Fields besides `env` are named and cloned.
macro_rules! simulator_of_inside {
    ($Wrapper:ident { $($field:ident),+ }) => {
        #[derive(Debug)]
        struct Saved($crate::Snapshot);

        impl<E: $crate::Simulator + 'static> $crate::Simulator for $Wrapper<E> {
            fn save(&self) -> $crate::Snapshot {
                $crate::Snapshot::new(Saved(self.env.save()))
            }

            fn restore(&mut self, snapshot: &$crate::Snapshot) -> Result<(), $crate::EnvError> {
                let foreign = || $crate::EnvError::ForeignSnapshot { env: self.spec.name.clone() };
                let Saved(inside) = snapshot.get().ok_or_else(foreign)?;
                self.env.restore(inside)
            }

            fn boxed_clone(&self) -> Box<dyn $crate::Simulator> {
                Box::new($Wrapper { env: self.env.boxed_clone(), $($field: self.$field.clone()),+ })
            }
        }
    };
}

mod action_limits;
mod action_repeat;
mod config;
mod delay;
mod noise;
mod pixels;
mod time_limit;

#[cfg(feature = "mujoco")]
pub(crate) use action_limits::narrowed;
pub use action_limits::{ActionLimits, LimitsConfig, Own};
pub use action_repeat::ActionRepeat;
pub use config::{NoiseStd, WrappersConfig};
pub use delay::{Delay, check_delay};
pub use noise::Noise;
pub use pixels::Pixels;
pub use time_limit::TimeLimit;
