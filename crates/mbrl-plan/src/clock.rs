//! How long planning may take.

use std::time::{Duration, Instant};

/// Measures iterations, and says whether there is time for another one.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    budget: Option<Duration>,
    /// When the running iteration began, counted from the start.
    lap: Duration,
    slowest: Duration,
}

impl Clock {
    pub(crate) fn start(budget: Option<Duration>) -> Self {
        Self { started: Instant::now(), budget, lap: Duration::ZERO, slowest: Duration::ZERO }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Iterations of another kind begin: the durations of the earlier ones say nothing about these.
    #[cfg(any(feature = "gradient", test))]
    pub(crate) fn start_phase(&mut self) {
        (self.lap, self.slowest) = (self.elapsed(), Duration::ZERO);
    }

    /// Ends an iteration. Says whether another one, as slow as the slowest so far, still fits into the budget.
    pub(crate) fn allows_another(&mut self) -> bool {
        let now = self.elapsed();
        self.slowest = self.slowest.max(now.saturating_sub(self.lap));
        self.lap = now;
        self.has_time()
    }

    /// Whether an iteration as slow as the slowest so far fits into the budget.
    pub(crate) fn has_time(&self) -> bool {
        self.budget.is_none_or(|budget| self.elapsed() + self.slowest <= budget)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn another_iteration_is_allowed_where_the_slowest_fits() {
        let mut free = Clock::start(None);
        // A tenth of a second for a busy machine.
        let mut tight = Clock::start(Some(Duration::from_millis(300)));
        sleep(Duration::from_millis(200));
        assert!(free.allows_another() && !tight.allows_another(), "200 ms more would be 400");
        assert!(!tight.has_time(), "nor does a later look allow it");
        // Another kind of iteration that takes no time fits.
        tight.start_phase();
        assert!(tight.allows_another());
        sleep(Duration::from_millis(110));
        assert!(!tight.allows_another());
    }
}
