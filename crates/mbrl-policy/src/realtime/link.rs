//! The connection to a robot and back.

use mbrl_env::Snapshot;

use super::{LinkError, SafeCommand};

/// What acted on the robot in the period before a measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acted {
    /// The robot does not report it.
    #[default]
    Unknown,
    /// The command of this control period.
    Command(u64),
    /// None: the robot held still by itself, before the first command or after the last.
    Itself,
}

/// What a robot measured.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Measurement {
    /// Number of the connection: on a new one the robot restarts the numbers of its measurements.
    pub session: u32,
    /// Number of the measurement; one that is not above the last is a repetition, or late.
    pub sequence: u64,
    /// When it was measured, by the robot's clock (s).
    pub time: f64,
    /// The observation, `[O]`.
    pub obs: Vec<f32>,
    /// What acted in the control period before.
    pub acted: Acted,
    /// The robot's episode is over: it fell, it dropped what it held.
    pub over: bool,
    /// The complete state, where the robot is a simulator in the same process.
    pub snapshot: Option<Snapshot>,
}

impl Measurement {
    /// A measurement of a robot that does not report what acted.
    #[must_use]
    pub fn new(sequence: u64, time: f64, obs: impl Into<Vec<f32>>) -> Self {
        Self { sequence, time, obs: obs.into(), ..Self::default() }
    }

    /// With what acted in the period before.
    #[must_use]
    pub fn with_acted(mut self, acted: Acted) -> Self {
        self.acted = acted;
        self
    }

    /// In a session: the number of the connection that it came by.
    #[must_use]
    pub fn in_session(mut self, session: u32) -> Self {
        self.session = session;
        self
    }

    /// With whether the robot's episode is over.
    #[must_use]
    pub fn with_over(mut self, over: bool) -> Self {
        self.over = over;
        self
    }
}

/// The connection to a robot and back. The [`Driver`](super::Driver) copes with a link that fails, loses, delays or repeats messages.
///
/// Commands are the heartbeat: one leaves in every control period, and a robot that hears none for a while should halt by itself.
/// Measurements are the robot's.
///
/// A robot with one joint, in the same process:
///
/// ```
/// use mbrl_policy::realtime::{Acted, Link, LinkError, Measurement, SafeCommand};
///
/// #[derive(Debug)]
/// struct Direct { position: f32, waiting: Option<Measurement>, count: u64 }
///
/// impl Link for Direct {
///     fn send(&mut self, command: &SafeCommand) -> Result<(), LinkError> {
///         if let Some(action) = command.action() {
///             self.position += 0.1 * action[0];
///         }
///         self.count += 1;
///         let measured = Measurement::new(self.count, self.count as f64 * 0.1, [self.position]);
///         self.waiting = Some(measured.with_acted(Acted::Command(command.tick())));
///         Ok(())
///     }
///     fn receive(&mut self) -> Result<Option<Measurement>, LinkError> {
///         Ok(self.waiting.take())
///     }
/// }
/// ```
pub trait Link: Send {
    /// Sends a command. Must not block: what cannot be sent at once is lost.
    ///
    /// # Errors
    /// [`LinkError`]; the driver counts it and continues.
    fn send(&mut self, command: &SafeCommand) -> Result<(), LinkError>;

    /// The next measurement that has arrived, oldest first. Must not block.
    ///
    /// # Errors
    /// [`LinkError`]; the driver counts it and continues.
    fn receive(&mut self) -> Result<Option<Measurement>, LinkError>;
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn send(&mut self, command: &SafeCommand) -> Result<(), LinkError> {
        (**self).send(command)
    }

    fn receive(&mut self) -> Result<Option<Measurement>, LinkError> {
        (**self).receive()
    }
}
