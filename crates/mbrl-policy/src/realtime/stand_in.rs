//! An environment in a robot's place, behind an unreliable connection.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mbrl_env::{Env, EnvError, Rng, World};
use serde::{Deserialize, Serialize};

use super::{Acted, Clock, DriveError, Link, LinkError, Measurement, SafeCommand, error::refuse};

/// What a connection does to messages, each way.
///
/// ```
/// use mbrl_policy::realtime::LineConfig;
/// use std::time::Duration;
///
/// // A bad radio: every twentieth message is lost.
/// let line = LineConfig { jitter: Duration::from_millis(30), loss: 0.05, ..LineConfig::default() };
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineConfig {
    /// Time that every message takes.
    pub latency: Duration,
    /// Largest time that a message takes on top; uniform. Messages may overtake each other.
    pub jitter: Duration,
    /// Share of the messages that never arrive, 0 to 1.
    pub loss: f64,
    /// Seed of jitter and loss.
    pub seed: u64,
}

impl LineConfig {
    fn check(&self) -> Result<(), DriveError> {
        if !(0.0..=1.0).contains(&self.loss) {
            return refuse("loss", self.loss, "a share from 0 to 1");
        }
        Ok(())
    }
}

/// A line in one direction.
#[derive(Debug)]
struct Line<T> {
    config: LineConfig,
    rng: Rng,
    /// What is on its way, with the time at which it arrives and its number.
    under_way: Vec<(Duration, u64, T)>,
    count: u64,
}

impl<T> Line<T> {
    fn new(config: LineConfig, rng: Rng) -> Self {
        Self { config, rng, under_way: Vec::new(), count: 0 }
    }

    fn put(&mut self, now: Duration, message: T) {
        let (lost, late) = (self.rng.uniform_f64(0.0, 1.0) < self.config.loss, self.rng.uniform_f64(0.0, 1.0));
        if !lost {
            let arrives = now + self.config.latency + self.config.jitter.mul_f64(late);
            self.under_way.push((arrives, self.count, message));
            self.count += 1;
        }
    }

    /// What arrives first, with its time, if that has come.
    fn take(&mut self, now: Duration) -> Option<(Duration, T)> {
        let first = (0..self.under_way.len()).min_by_key(|i| (self.under_way[*i].0, self.under_way[*i].1))?;
        if self.under_way[first].0 > now {
            return None;
        }
        let (arrived, _, message) = self.under_way.remove(first);
        Some((arrived, message))
    }

    /// The clock jumped: what is on its way arrives as much later as it would have.
    fn shift(&mut self, from: Duration, to: Duration) {
        for (arrives, ..) in &mut self.under_way {
            *arrives = to + arrives.saturating_sub(from);
        }
    }
}

/// What comes from a driver.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heard {
    pub(super) tick: u64,
    /// `None`: an emergency stop.
    pub(super) action: Option<Vec<f32>>,
}

/// How a stand-in behaves, as plain data.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StandInConfig {
    /// What it does by itself: before the first command, after a stop, and when no more commands come, `[A]` (default: the action nearest
    /// to 0).
    pub rest: Option<Vec<f32>>,
    /// Control periods without a new command until it holds still by itself (default 5).
    pub watchdog: u32,
    /// Seed of the first episode; each further one counts on from it (default 0).
    pub seed: u64,
    /// The line, both ways (default: a perfect one).
    pub line: LineConfig,
    /// Time between two steps, where it is not the environment's own control period: the same physics, faster or slower (default: its own).
    pub period: Option<Duration>,
}

impl Default for StandInConfig {
    fn default() -> Self {
        Self { rest: None, watchdog: 5, seed: 0, line: LineConfig::default(), period: None }
    }
}

impl StandInConfig {
    /// With another line.
    #[must_use]
    pub fn with_line(self, line: LineConfig) -> Self {
        Self { line, ..self }
    }

    /// With another seed of the first episode.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With another number of periods until it holds still by itself.
    #[must_use]
    pub fn with_watchdog(self, periods: u32) -> Self {
        Self { watchdog: periods, ..self }
    }

    /// With another time between two steps.
    #[must_use]
    pub fn with_period(self, period: Duration) -> Self {
        Self { period: Some(period), ..self }
    }

    /// With another action for when it is left alone, `[A]`.
    #[must_use]
    pub fn with_rest(self, rest: Vec<f32>) -> Self {
        Self { rest: Some(rest), ..self }
    }
}

/// Faults that come and go while a stand-in runs. Clones share the same one.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<FaultState>>);

#[derive(Debug, Default)]
struct FaultState {
    killed: bool,
    blind: bool,
    clock_offset: f64,
}

impl Faults {
    /// No fault.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, FaultState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the link, or restores it. What was under way is lost; the robot continues.
    pub fn kill(&self, killed: bool) {
        self.state().killed = killed;
    }

    /// Makes the sensors give NaN, or ends that.
    pub fn blind(&self, blind: bool) {
        self.state().blind = blind;
    }

    /// Sets the robot's clock ahead by this many seconds.
    pub fn shift_clock(&self, seconds: f64) {
        self.state().clock_offset = seconds;
    }

    pub(super) fn is_killed(&self) -> bool {
        self.state().killed
    }
}

/// An environment in a robot's place: it steps by its own clock, whether commands come or not.
///
/// In each period it reports what it measured, and lets the newest command that has arrived act until the next one. A command therefore
/// acts from the robot's next period on, as with a real one.
pub struct StandIn {
    world: World,
    period: Duration,
    config: StandInConfig,
    rest: Vec<f32>,
    faults: Faults,
    up: Line<Heard>,
    down: Line<Measurement>,
    /// When it steps next; `None` before the first time.
    next_step: Option<Duration>,
    /// The newest command and what acts now.
    newest: Option<(u64, Vec<f32>)>,
    acting: Acted,
    action: Vec<f32>,
    silent: u32,
    stopped: bool,
    over: bool,
    sequence: u64,
    episode: u64,
    /// Sums of rewards of the episodes that are over, and of the running one.
    returns: Vec<f64>,
    total: f64,
    /// What acted in each period.
    acted: Option<Vec<(Acted, Vec<f32>)>>,
    /// The first thing that went wrong in the world.
    trouble: Option<EnvError>,
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, stopped, acting, .. } = self;
        let mut it = f.debug_struct("StandIn");
        it.field("env", &self.world.spec().name).field("sequence", sequence);
        it.field("acting", acting).field("stopped", stopped).finish_non_exhaustive()
    }
}

impl StandIn {
    /// A stand-in, at the start of its first episode.
    ///
    /// # Errors
    /// [`DriveError::Config`] for an impossible line and a rest of the wrong width; an error of the environment.
    pub fn new(mut world: World, config: StandInConfig, faults: Faults) -> Result<Self, DriveError> {
        config.line.check()?;
        let spec = world.spec();
        let width = spec.actions.width();
        let period = config.period.unwrap_or(Duration::from_secs_f64(spec.control_period));
        if period.is_zero() {
            return refuse("period", "0 s", "a positive time");
        }
        let zero = match &spec.actions {
            mbrl_env::ActionSpace::Box(space) => space.clipped(&vec![0.0; width]),
            _ => return refuse("actions", &spec.name, "an environment whose actions are real numbers"),
        };
        let rest = config.rest.clone().unwrap_or(zero);
        if rest.len() != width {
            return refuse("rest", format!("{} numbers", rest.len()), width.to_string());
        }
        world.reset(Some(config.seed))?;
        let mut rng = Rng::new(config.line.seed);
        let (up, down) = (Line::new(config.line, rng.split()), Line::new(config.line, rng.split()));
        Ok(Self {
            world,
            period,
            action: rest.clone(),
            rest,
            faults,
            up,
            down,
            next_step: None,
            newest: None,
            acting: Acted::Itself,
            silent: 0,
            stopped: false,
            over: false,
            sequence: 0,
            episode: 0,
            returns: Vec::new(),
            total: 0.0,
            acted: None,
            trouble: None,
            config,
        })
    }

    /// Records what acts, for [`acted`](Self::acted).
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.acted = Some(Vec::new());
        self
    }

    /// The action that acted in each period so far, `[A]`, and which command it came from, where it [records](Self::recording).
    #[must_use]
    pub fn acted(&self) -> &[(Acted, Vec<f32>)] {
        self.acted.as_deref().unwrap_or_default()
    }

    /// The sum of rewards of each episode that is over.
    #[must_use]
    pub fn returns(&self) -> &[f64] {
        &self.returns
    }

    /// The environment.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Control period.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Whether an emergency stop has arrived.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What went wrong in the environment, the first time that something did.
    #[must_use]
    pub fn trouble(&self) -> Option<&EnvError> {
        self.trouble.as_ref()
    }

    /// Its faults.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Loses what is under way.
    pub(super) fn cut(&mut self) {
        self.up.under_way.clear();
        self.down.under_way.clear();
    }

    /// A message leaves the driver.
    pub(super) fn hear(&mut self, now: Duration, heard: Heard) {
        self.up.put(now, heard);
    }

    /// The next measurement that has arrived at the driver.
    pub(super) fn tell(&mut self, now: Duration) -> Option<Measurement> {
        self.down.take(now).map(|(_, measured)| measured)
    }

    /// Steps until `now`.
    pub(super) fn run_to(&mut self, now: Duration) {
        let next = *self.next_step.get_or_insert(now);
        // The robot's own clock knows nothing of a jump.
        let jumped_back = next > now + self.period;
        if jumped_back || now > next + self.period * 100 {
            let before = if jumped_back { next } else { next.max(now.saturating_sub(self.period)) };
            self.up.shift(before, now);
            self.down.shift(before, now);
            self.next_step = Some(if jumped_back { now + self.period } else { now });
        }
        while let Some(at) = self.next_step.filter(|at| *at <= now) {
            while let Some((_, heard)) = self.up.take(at) {
                self.take_in(heard);
            }
            self.step(at);
            self.next_step = Some(at + self.period);
        }
    }

    fn take_in(&mut self, heard: Heard) {
        match heard.action {
            None => self.stopped = true,
            Some(action)
                if action.len() == self.rest.len() && self.newest.as_ref().is_none_or(|n| n.0 < heard.tick) =>
            {
                self.newest = Some((heard.tick, action));
                self.silent = 0;
            }
            Some(_) => {}
        }
    }

    /// A new driver counts its periods anew.
    pub(super) fn forget(&mut self) {
        self.newest = None;
        self.silent = 0;
    }

    /// What acted until now has acted; measures, and chooses what acts next.
    fn step(&mut self, now: Duration) {
        let mut acted = self.acting;
        let mut obs = Vec::new();
        if self.sequence == 0 || self.over {
            if self.sequence > 0 {
                self.episode += 1;
            }
            acted = Acted::Itself;
            (self.over, self.total) = (false, 0.0);
            match self.world.reset(Some(self.config.seed + self.episode)) {
                Ok(found) => obs = found,
                Err(error) => self.fail(error),
            }
        } else {
            match self.world.step(&self.action) {
                Ok(step) => {
                    self.over = step.episode_over();
                    self.total += step.reward;
                    if self.over {
                        self.returns.push(std::mem::take(&mut self.total));
                    }
                    obs = step.obs;
                    if let Some(record) = &mut self.acted {
                        record.push((self.acting, self.action.clone()));
                    }
                }
                Err(error) => self.fail(error),
            }
        }
        let state = self.faults.state();
        let (blind, offset) = (state.blind, state.clock_offset);
        drop(state);
        if blind || obs.is_empty() {
            obs = vec![f32::NAN; self.world.spec().obs.width()];
        }
        let mut measured = Measurement::new(self.sequence, now.as_secs_f64() + offset, obs).with_acted(acted);
        measured.over = self.over;
        measured.snapshot = self.world.simulator().map(mbrl_env::Simulator::save);
        self.down.put(now, measured);
        self.sequence += 1;

        self.silent = self.silent.saturating_add(1);
        let resting = self.stopped || self.silent > self.config.watchdog;
        (self.acting, self.action) = match &self.newest {
            Some((tick, action)) if !resting => (Acted::Command(*tick), action.clone()),
            _ => (Acted::Itself, self.rest.clone()),
        };
    }

    fn fail(&mut self, error: EnvError) {
        tracing::warn!(%error, "the stand-in's environment failed; it begins anew");
        self.trouble.get_or_insert(error);
        self.over = true;
    }
}

/// A link to a [`StandIn`] in the same process, on any clock: with a [`SimulatedClock`](super::SimulatedClock) a run is
/// deterministic, bit for bit, and as fast as it can be. Measurements carry the simulator's snapshot, where it is one.
///
/// The environment steps on the thread of the driver.
#[derive(Debug)]
pub struct SimulatedLink<C> {
    robot: StandIn,
    clock: C,
    faults: Faults,
    killed: bool,
    session: u32,
}

impl<C: Clock> SimulatedLink<C> {
    /// A link to a stand-in. `clock` is the driver's.
    #[must_use]
    pub fn new(robot: StandIn, clock: C) -> Self {
        let faults = robot.faults.clone();
        Self { robot, clock, faults, killed: false, session: 0 }
    }

    /// The stand-in.
    #[must_use]
    pub fn robot(&self) -> &StandIn {
        &self.robot
    }

    /// The stand-in itself.
    #[must_use]
    pub fn into_robot(self) -> StandIn {
        self.robot
    }

    /// Steps the robot, and says whether the link is there.
    fn advance(&mut self) -> Result<Duration, LinkError> {
        let now = self.clock.now();
        self.robot.run_to(now);
        let killed = self.faults.is_killed();
        if killed != self.killed {
            self.robot.cut();
            self.killed = killed;
            self.session += u32::from(!killed);
        }
        if killed { Err(LinkError::Down { peer: "the stand-in".into() }) } else { Ok(now) }
    }
}

impl<C: Clock> Link for SimulatedLink<C> {
    fn send(&mut self, command: &SafeCommand) -> Result<(), LinkError> {
        let now = self.advance()?;
        self.robot.hear(now, Heard { tick: command.tick(), action: command.action().map(<[f32]>::to_vec) });
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Measurement>, LinkError> {
        let now = self.advance()?;
        Ok(self.robot.tell(now).map(|measured| measured.in_session(self.session)))
    }
}
