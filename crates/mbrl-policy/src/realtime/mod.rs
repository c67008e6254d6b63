//! Driving a robot in real time: by plans, at a fixed control period, within limits.
//!
//! ```text
//!  robot ── Link ──> Driver ── what was measured, what is under way ──> PlanThread: Pilot (an agent, a learner, a closure)
//!    ^                 │ <──────────── actions from the next period on ──────┘
//!    └── SafeCommand ── Envelope <─ action of the newest plan for this period, or the safe action
//! ```
//!
//! - [`Driver`] sends one command per control period, at its time, whatever the planner, the link and the clock do ([`DriverConfig`]).
//! - [`Envelope`] is the last stage before the link. A [`Link`] takes [`SafeCommand`]s, and nothing else makes them.
//! - [`PlanThread`] lets a [`Pilot`] plan beside the loop; [`AgentPilot`] is one for any [`Agent`](crate::Agent). It starts at the
//!   state that the robot will be in when the plan acts ([`Foresight`]).
//! - [`SocketLink`] reaches a robot over TCP. [`StandIn`] is an environment in a robot's place, behind a bad line and with faults:
//!   in the same process ([`SimulatedLink`]), or behind a socket ([`Loopback`]).
//! - [`DriveLog`] keeps everything, in the format that `mbrl fit` reads.
//!
//! All of it uses a [`Clock`]; with a [`SimulatedClock`] and [`SimulatedPlanning`] a run is deterministic and takes no time.
//! `docs/guides/real-time.md` goes through it with an arm at 50 Hz.

mod clock;
mod driver;
mod envelope;
mod error;
mod link;
mod log;
mod planning;
mod socket;
mod stand_in;
mod wire;

pub use clock::{Clock, MonotonicClock, SimulatedClock};
pub use driver::{DriveReport, Driver, DriverConfig, EmergencyStop, SafeAction, Source, Tick};
pub use envelope::{Drive, Envelope, EnvelopeConfig, Intervention, JointLimits, SafeCommand};
pub use error::{DriveError, LinkError};
pub use link::{Acted, Link, Measurement};
pub use log::DriveLog;
pub use planning::{
    AgentPilot, Foresight, Pilot, PlanReply, PlanRequest, PlanSource, PlanThread, PlannerGone, SimulatedPlanning,
};
pub use socket::{Loopback, SocketLink};
pub use stand_in::{Faults, LineConfig, SimulatedLink, StandIn, StandInConfig};
pub use wire::{Hello, WIRE_VERSION};
