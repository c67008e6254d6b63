//! Time, behind a trait, so that tests can simulate it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// The clock of the control loop.
pub trait Clock: Send + fmt::Debug {
    /// Time since an origin of the clock's own.
    fn now(&self) -> Duration;

    /// Returns when that time has come, at once if it is past.
    fn wait_until(&self, time: Duration);
}

/// The machine's monotonic clock: setting the time of day does not move it.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock(Instant);

impl MonotonicClock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait_until(&self, time: Duration) {
        thread::sleep(time.saturating_sub(self.now()));
    }
}

/// A clock that moves only when told to: for tests, and for simulations that are to run as fast as they can. Clones show the same
/// time.
///
/// ```
/// use std::time::Duration;
/// use mbrl_policy::realtime::{Clock, SimulatedClock};
///
/// let clock = SimulatedClock::default();
/// clock.wait_until(Duration::from_secs(2)); // takes no time
/// assert_eq!(clock.now(), Duration::from_secs(2));
/// clock.jump_to(Duration::from_secs(1)); // a fault
/// assert_eq!(clock.now(), Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Default)]
pub struct SimulatedClock(Arc<Mutex<Duration>>);

impl SimulatedClock {
    /// Shows another time from now on, an earlier one too.
    pub fn jump_to(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, time: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = (*now).max(time);
    }
}

impl<C: Clock + ?Sized> Clock for Box<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn wait_until(&self, time: Duration) {
        (**self).wait_until(time);
    }
}
