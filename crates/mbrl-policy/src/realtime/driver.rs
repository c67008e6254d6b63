//! The control loop: one command per period, whatever happens.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mbrl_env::{History, MAX_PAST};
use serde::{Deserialize, Serialize};

use super::{
    Acted, Clock, DriveError, DriveLog, Envelope, Intervention, Link, Measurement, PlanReply, PlanRequest, PlanSource,
    error::refuse, log::fields,
};

/// The command that is sent where there is no plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SafeAction {
    /// The envelope's rest (default), such as no torque.
    #[default]
    Rest,
    /// The last command again: for robots commanded by position.
    Hold,
}

/// How a driver behaves, as plain data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriverConfig {
    /// The part of the delay until a command acts that measurements do not show, in control periods (default 0): for a robot that reports which
    /// command acted ([`Acted`]) its own delay after that; for one that does not, the whole delay.
    pub delay: usize,
    /// Control periods without a new measurement after which the safe action is sent (default 3). Until then plans start where the
    /// model predicts the robot to be under the commands sent.
    pub stale_after: u64,
    /// Control periods without one after which the robot is stopped (default 10).
    pub stop_after: u64,
    /// How many control periods late an action of an older plan may be sent when newer plans are late; then the safe action (default 5).
    pub reuse: u64,
    /// What is sent where there is no plan (default: the envelope's rest).
    pub safe_action: SafeAction,
    /// Whether to continue when the robot reports that its episode is over, resting until the next one begins, instead of an emergency stop
    /// (default: false).
    pub many_episodes: bool,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self { delay: 0, stale_after: 3, stop_after: 10, reuse: 5, safe_action: SafeAction::Rest, many_episodes: false }
    }
}

impl DriverConfig {
    /// A driver of a robot behind `link`, with a plan source and a clock. The control period is the envelope's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mbrl_env::{Env, tasks};
    /// use mbrl_policy::realtime::{
    ///     DriverConfig, EnvelopeConfig, Faults, PlanRequest, SimulatedClock, SimulatedLink, SimulatedPlanning, StandIn,
    ///     StandInConfig,
    /// };
    ///
    /// let world = tasks::make("pendulum")?.env;
    /// let spec = world.spec().clone();
    /// let envelope = EnvelopeConfig::of_spec(&spec)?.with_rate(20.0).init(Duration::from_millis(50), 3)?;
    /// let clock = SimulatedClock::default();
    /// let link = SimulatedLink::new(StandIn::new(world, StandInConfig::default(), Faults::new())?, clock.clone());
    /// // Brakes the pendulum; its plans are ready after 10 ms.
    /// let brake = |request: &PlanRequest| Ok(vec![vec![-0.5 * request.obs[2]]]);
    /// let plans = SimulatedPlanning::new(brake, |_| Duration::from_millis(10));
    ///
    /// let mut driver = DriverConfig::default().init(link, envelope, plans, clock)?;
    /// let report = driver.run(100);
    /// assert_eq!((report.ticks, report.missed), (100, 0));
    /// assert!(report.planned_share() > 0.95);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DriveError::Config`] for settings that contradict each other.
    pub fn init<L: Link, P: PlanSource, C: Clock>(
        self,
        link: L,
        envelope: Envelope,
        plans: P,
        clock: C,
    ) -> Result<Driver<L, P, C>, DriveError> {
        if self.stop_after <= self.stale_after {
            return refuse("stop_after", self.stop_after, format!("more than stale_after = {}", self.stale_after));
        }
        let period = Duration::from_secs_f64(envelope.period());
        Ok(Driver {
            config: self,
            link,
            envelope,
            plans,
            clock,
            period,
            log: None,
            stop: EmergencyStop::default(),
            origin: None,
            last_now: Duration::ZERO,
            tick: 0,
            newest: None,
            fresh_at: 0,
            past: History::default(),
            begins: true,
            between: false,
            plan: None,
            sent: BTreeMap::new(),
            row: LogRow::default(),
            report: DriveReport::default(),
        })
    }
}

/// Stops the robot, from any thread: the next command, one control period later at most, is an emergency stop, and so are all after it.
#[derive(Debug, Clone, Default)]
pub struct EmergencyStop(Arc<AtomicBool>);

impl EmergencyStop {
    /// Stops.
    pub fn pull(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was pulled.
    #[must_use]
    pub fn is_pulled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Where a command came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// No measurement of an episode has come yet to plan from: rest.
    Waiting,
    /// The plan that was made for this control period.
    Plan,
    /// A plan made for this many control periods earlier.
    OlderPlan(u64),
    /// The safe action: no plan reaches this far, or measurements are too old.
    Safe,
    /// An emergency stop.
    Stop,
}

/// What happened in one control period.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tick {
    /// Number of the control period, from 0 on.
    pub tick: u64,
    /// How late the command left.
    pub late: Duration,
    /// Where the command came from.
    pub source: Source,
    /// The command, `[A]`; `None` after an emergency stop.
    pub action: Option<Vec<f32>>,
    /// What the envelope changed.
    pub intervention: Intervention,
    /// Control periods before this one that were missed: the machine was too late.
    pub missed: u64,
}

/// Counts and times of a run.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct DriveReport {
    /// Control periods in which a command was sent, emergency stops and failed sends included.
    pub ticks: u64,
    /// Control periods without a command, because the machine was late by a whole period or more.
    pub missed: u64,
    /// Commands from the plan that was made for their control period.
    pub planned: u64,
    /// Commands from an older plan.
    pub older: u64,
    /// Safe actions.
    pub safe: u64,
    /// Commands before the first measurement, and between two episodes of the robot.
    pub waiting: u64,
    /// Emergency stops sent.
    pub stops: u64,
    /// Commands that the envelope changed.
    pub changed: u64,
    /// Plans that failed.
    pub failed_plans: u64,
    /// Why the first of them did.
    pub plan_failure: Option<String>,
    /// Measurements taken in.
    pub measurements: u64,
    /// Measurements that were refused: not finite, or of another width.
    pub refused: u64,
    /// Errors of the link.
    pub link_errors: u64,
    /// Times that a clock, the machine's or the robot's, jumped.
    pub clock_jumps: u64,
    /// Episodes of the robot that ended.
    pub episodes: u64,
    /// Why it stopped, where it did.
    pub stopped: Option<String>,
    /// How late commands left (s), in order of the control periods.
    pub late: Vec<f32>,
    /// How long plans took (s), in the order in which they came.
    pub planning: Vec<f32>,
}

impl DriveReport {
    /// Share of the control periods whose command left within its period and came from the plan that was made for it. Periods before the first
    /// measurement of an episode and after a stop do not count.
    #[must_use]
    pub fn planned_share(&self) -> f64 {
        let all = self.planned + self.older + self.safe + self.missed;
        if all == 0 { 0.0 } else { self.planned as f64 / all as f64 }
    }

    /// Quantile of how late commands left (s): 0.99 gives the 99th percentile. 0 before the first.
    #[must_use]
    pub fn late_quantile(&self, share: f64) -> f32 {
        quantile(&self.late, share)
    }

    /// Quantile of the time that plans took (s), as in [`late_quantile`](Self::late_quantile).
    #[must_use]
    pub fn planning_quantile(&self, share: f64) -> f32 {
        quantile(&self.planning, share)
    }
}

fn quantile(values: &[f32], share: f64) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

impl fmt::Display for DriveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |seconds: f32| seconds * 1e3;
        writeln!(f, "control periods      {} and {} missed", self.ticks, self.missed)?;
        writeln!(
            f,
            "commands by          {} plans ({:.2} %), {} older plans, {} safe actions, {} while waiting, {} stops",
            self.planned,
            100.0 * self.planned_share(),
            self.older,
            self.safe,
            self.waiting,
            self.stops
        )?;
        writeln!(
            f,
            "commands left        {:.2} ms late (median), {:.2} ms (99 %), {:.2} ms (longest)",
            ms(self.late_quantile(0.5)),
            ms(self.late_quantile(0.99)),
            ms(self.late_quantile(1.0))
        )?;
        writeln!(
            f,
            "plans took           {:.1} ms (median), {:.1} ms (99 %), {:.1} ms (longest); {} failed",
            ms(self.planning_quantile(0.5)),
            ms(self.planning_quantile(0.99)),
            ms(self.planning_quantile(1.0)),
            self.failed_plans
        )?;
        write!(
            f,
            "measurements         {} and {} refused; {} errors of the link, {} jumps of a clock; the envelope changed {} commands",
            self.measurements, self.refused, self.link_errors, self.clock_jumps, self.changed
        )?;
        if let Some(reason) = &self.plan_failure {
            write!(f, "\nfirst plan to fail   {reason}")?;
        }
        match &self.stopped {
            Some(reason) => write!(f, "\nstopped              {reason}"),
            None => Ok(()),
        }
    }
}

/// The row of the transitions that is not whole yet.
#[derive(Debug, Default)]
struct LogRow {
    episode: u64,
    step: u64,
    open: Option<Measurement>,
}

/// Drives a robot by plans; made by [`DriverConfig::init`].
///
/// In each control period it takes in what was measured, sends one command through the [`Envelope`], and asks for the plan of the next
/// period, which is made meanwhile ([`PlanThread`](super::PlanThread)): the command leaves at its time, however long a plan takes. The
/// plan starts at the state that the robot will be in when its first action acts ([`Foresight`](super::Foresight)). If a plan is late,
/// the next action of the previous plan is sent, a few times, and then the safe action.
///
/// Emergency stops have these causes: somebody triggered one, a limit was passed or can no longer be kept, no measurement came for too
/// long, the episode was over (without [`DriverConfig::many_episodes`]), the log could not be written, or the planner panicked.
pub struct Driver<L, P, C> {
    config: DriverConfig,
    link: L,
    envelope: Envelope,
    plans: P,
    clock: C,
    period: Duration,
    log: Option<DriveLog>,
    stop: EmergencyStop,
    /// A control period, and when it began.
    origin: Option<(u64, Duration)>,
    last_now: Duration,
    tick: u64,
    newest: Option<Measurement>,
    /// The control period in which it came.
    fresh_at: u64,
    past: History,
    begins: bool,
    /// The robot's episode was over in the last control period: no plan was requested.
    between: bool,
    plan: Option<(u64, Vec<Vec<f32>>, Duration)>,
    /// What was sent in the last control periods.
    sent: BTreeMap<u64, Vec<f32>>,
    row: LogRow,
    report: DriveReport,
}

/// Control periods of which commands are remembered.
const REMEMBERED: u64 = 256;
/// Measurements that are taken in per control period at most: a link that never ends must not hold up the loop.
const AT_ONCE: usize = 64;

impl<L, P, C> fmt::Debug for Driver<L, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("config", &self.config).field("tick", &self.tick).finish_non_exhaustive()
    }
}

impl<L: Link, P: PlanSource, C: Clock> Driver<L, P, C> {
    /// Logs everything. A log that cannot be written is an emergency stop: what the robot does next would not be recorded.
    #[must_use]
    pub fn with_log(mut self, log: DriveLog) -> Self {
        self.log = Some(log);
        self
    }

    /// The emergency stop.
    #[must_use]
    pub fn emergency_stop(&self) -> EmergencyStop {
        self.stop.clone()
    }

    /// The link.
    #[must_use]
    pub fn link(&self) -> &L {
        &self.link
    }

    /// The newest measurement.
    #[must_use]
    pub fn newest(&self) -> Option<&Measurement> {
        self.newest.as_ref()
    }

    /// The report so far.
    #[must_use]
    pub fn report(&self) -> &DriveReport {
        &self.report
    }

    /// Drives for this many control periods, or until it has stopped the robot: then it sends the stop
    /// [`DriverConfig::stop_after`] times, in case some are lost.
    pub fn run(&mut self, ticks: u64) -> DriveReport {
        let end = self.tick.saturating_add(ticks);
        while self.tick < end && self.report.stops < self.config.stop_after {
            self.tick();
        }
        self.report.clone()
    }

    /// Ends the log.
    ///
    /// # Errors
    /// [`DriveError::Log`] for the first thing that could not be written.
    pub fn finish(self) -> Result<DriveReport, DriveError> {
        self.into_parts().map(|(report, _)| report)
    }

    /// Ends the log, and gives the link back.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn into_parts(mut self) -> Result<(DriveReport, L), DriveError> {
        self.close_row();
        if let Some(log) = self.log.take() {
            log.finish()?;
        }
        Ok((self.report, self.link))
    }

    /// One control period: waits for its time, and sends one command.
    pub fn tick(&mut self) -> Tick {
        let mut events = Vec::new();
        let (late, missed) = self.wait(&mut events);
        let tick = self.tick;
        self.receive(&mut events);
        let mut gone = None;
        loop {
            match self.plans.poll(self.clock.now()) {
                Ok(Some(reply)) => self.take_plan(reply, &mut events),
                Ok(None) => break,
                Err(_) => {
                    gone = Some(
                        "the planner's thread has ended, by a panic that it wrote to the standard error; mend that, and start a new drive"
                            .to_owned(),
                    );
                    break;
                }
            }
        }
        let age = tick - self.fresh_at.min(tick);
        let (mut source, wanted, plan_ms) = self.choose(age);
        let reason = if self.stop.is_pulled() {
            Some("the emergency stop was pulled".to_owned())
        } else if self.newest.is_some() && age > self.config.stop_after {
            Some(format!("no measurement for {age} control periods"))
        } else if self.newest.as_ref().is_some_and(|m| m.over) && !self.config.many_episodes {
            Some("the robot's episode is over".to_owned())
        } else if let Some(failure) = self.log.as_ref().and_then(DriveLog::failure) {
            Some(failure)
        } else {
            gone
        };
        let (command, intervention) = match reason {
            Some(reason) => (self.envelope.stop(tick, reason), Intervention::default()),
            None => self.envelope.pass(tick, &wanted),
        };
        if let Err(error) = self.link.send(&command) {
            self.report.link_errors += 1;
            events.push(error.to_string());
        }
        let action = command.action().map(<[f32]>::to_vec);
        match &action {
            Some(action) => {
                self.sent.insert(tick, action.clone());
                while self.sent.first_key_value().is_some_and(|(first, _)| first + REMEMBERED < tick) {
                    self.sent.pop_first();
                }
            }
            None => source = Source::Stop,
        }
        self.count(source, intervention, late);
        if source == Source::Stop && self.report.stopped.is_none() {
            self.report.stopped = self.envelope.stopped().map(str::to_owned);
            events.extend(self.report.stopped.clone());
        }
        if let Some(log) = &self.log {
            let (name, plan_age) = match source {
                Source::Waiting => ("waiting", String::new()),
                Source::Plan => ("plan", "0".to_owned()),
                Source::OlderPlan(age) => ("older plan", age.to_string()),
                Source::Safe => ("safe", String::new()),
                Source::Stop => ("stop", String::new()),
            };
            let (now, late) = (self.last_now.as_secs_f64(), late.as_secs_f64() * 1e3);
            let width = self.envelope.last().len();
            let measured = self.newest.as_ref().map(|m| m.sequence.to_string()).unwrap_or_default();
            let (wanted, sent) = (fields(Some(&wanted), width), fields(action.as_deref(), width));
            let events = events.join("; ").replace(['"', ',', '\n'], " ");
            log.tick(format!(
                "{tick},{now:.6},{late:.3},{name},{plan_age},{plan_ms},{measured},{age}{wanted}{sent},{intervention},{events}"
            ));
        }
        if source != Source::Stop {
            self.ask(age);
        }
        self.tick += 1;
        Tick { tick, late, source, action, intervention, missed }
    }

    /// Waits for the time of the control period. Returns how late it is, and how many periods were missed.
    fn wait(&mut self, events: &mut Vec<String>) -> (Duration, u64) {
        let before = self.clock.now();
        let (first, origin) = *self.origin.get_or_insert((self.tick, before));
        let mut due = origin + self.period.mul_f64((self.tick - first) as f64);
        let went_back = |events: &mut Vec<String>, report: &mut DriveReport| {
            events.push("the clock went back".to_owned());
            report.clock_jumps += 1;
        };
        // No wait is longer than a period: then the clock went back, and time is counted anew, one period from now.
        if before < self.last_now || due.saturating_sub(before) > self.period.mul_f64(1.5) {
            went_back(events, &mut self.report);
            due = before + self.period;
            self.origin = Some((self.tick, due));
        }
        self.clock.wait_until(due);
        let now = self.clock.now();
        let mut missed = 0;
        let mut late = now.saturating_sub(due);
        if now < due {
            went_back(events, &mut self.report);
            self.origin = Some((self.tick, now));
            late = Duration::ZERO;
        } else if late >= self.period {
            // Time that is gone is not caught up with: commands must not come closer than a period.
            let periods = (late.as_secs_f64() / self.period.as_secs_f64()) as u64;
            events.push(format!("{periods} control periods were missed"));
            self.report.clock_jumps += u64::from(periods > self.config.stop_after);
            missed = periods;
            self.report.missed += missed;
            // The count continues without a gap, from now on: the next command leaves a whole period from here.
            self.origin = Some((self.tick, now));
            late = late.saturating_sub(self.period.mul_f64(periods as f64));
        }
        self.last_now = now;
        (late, missed)
    }

    fn receive(&mut self, events: &mut Vec<String>) {
        for _ in 0..AT_ONCE {
            match self.link.receive() {
                Ok(Some(measured)) => self.take_in(measured, events),
                Ok(None) => break,
                Err(error) => {
                    self.report.link_errors += 1;
                    events.push(error.to_string());
                    break;
                }
            }
        }
    }

    fn take_in(&mut self, measured: Measurement, events: &mut Vec<String>) {
        let width = self.envelope.obs_width();
        if measured.obs.len() != width || measured.obs.iter().any(|x| !x.is_finite()) {
            self.report.refused += 1;
            events.push(format!("measurement {} is no {width} numbers", measured.sequence));
            return;
        }
        let mut follows = false;
        if let Some(last) = &self.newest {
            if measured.session == last.session && measured.sequence <= last.sequence {
                // Overtaken.
                return;
            }
            follows = measured.session == last.session && measured.sequence == last.sequence + 1 && !last.over;
            let step = measured.time - last.time;
            let expected = (measured.sequence.saturating_sub(last.sequence)) as f64 * self.period.as_secs_f64();
            let as_expected = (step - expected).abs() <= expected + 0.1;
            if measured.session == last.session && !as_expected {
                self.report.clock_jumps += 1;
                events.push(format!("the robot's clock jumped by {:.3} s", step - expected));
            }
            if measured.session != last.session {
                events.push("the link is there again".to_owned());
            }
        }
        self.report.measurements += 1;
        self.report.episodes += u64::from(measured.over);
        // How many control periods ago it was measured: those after the one whose command acted last.
        let lag = match measured.acted {
            Acted::Command(of) => self.tick.saturating_sub(of + 1),
            Acted::Unknown | Acted::Itself => 1,
        };
        self.envelope.observe(&measured.obs, lag as f64 * self.period.as_secs_f64());
        let acted = self.acted(&measured);
        self.log_measurement(&measured, follows.then_some(acted.as_deref()).flatten());
        match (&self.newest, acted) {
            (Some(last), Some(acted)) if follows => self.past.push(last.obs.clone(), acted, MAX_PAST),
            _ => self.past.clear(),
        }
        if self.newest.as_ref().is_none_or(|last| last.over) {
            self.begins = true;
        }
        self.fresh_at = self.tick;
        self.newest = Some(measured);
    }

    /// The command that acted before a measurement.
    fn acted(&self, measured: &Measurement) -> Option<Vec<f32>> {
        let of = match measured.acted {
            Acted::Command(of) => of.checked_sub(self.config.delay as u64)?,
            Acted::Unknown => self.tick.checked_sub(1 + self.config.delay as u64)?,
            Acted::Itself => return None,
        };
        self.sent.get(&of).cloned()
    }

    /// Commands that have not acted in a measurement, but will have when that of the next control period does.
    fn pending(&self, measured: &Measurement) -> Vec<Vec<f32>> {
        let delay = self.config.delay as u64;
        let first = match measured.acted {
            Acted::Command(of) => (of + 1).saturating_sub(delay),
            Acted::Unknown => self.fresh_at.saturating_sub(delay),
            // What it held still by is not known: the commands since it was measured.
            Acted::Itself => self.fresh_at.saturating_sub(1 + delay),
        };
        let mut last = self.envelope.last().to_vec();
        (first..=self.tick)
            .map(|tick| {
                if let Some(sent) = self.sent.get(&tick) {
                    last.clone_from(sent);
                }
                last.clone()
            })
            .collect()
    }

    fn take_plan(&mut self, reply: PlanReply, events: &mut Vec<String>) {
        self.report.planning.push(reply.elapsed.as_secs_f32());
        match reply.actions {
            Ok(actions) if !actions.is_empty() => self.plan = Some((reply.tick, actions, reply.elapsed)),
            Ok(_) => {
                self.report.failed_plans += 1;
                events.push("a plan without actions".to_owned());
            }
            Err(error) => {
                self.report.failed_plans += 1;
                events.push(format!("no plan: {error}"));
                self.report.plan_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// What to send, where from, and how long its plan took (ms).
    fn choose(&self, age: u64) -> (Source, Vec<f32>, String) {
        let safe = || match self.config.safe_action {
            SafeAction::Rest => self.envelope.config().rest.clone(),
            SafeAction::Hold => self.envelope.last().to_vec(),
        };
        if self.newest.is_none() || self.between {
            return (Source::Waiting, self.envelope.config().rest.clone(), String::new());
        }
        if age > self.config.stale_after {
            return (Source::Safe, safe(), String::new());
        }
        if let Some((of, actions, elapsed)) = &self.plan
            && let Some(offset) = self.tick.checked_sub(*of)
            && offset <= self.config.reuse
            && let Some(action) = actions.get(offset as usize)
        {
            let source = if offset == 0 { Source::Plan } else { Source::OlderPlan(offset) };
            return (source, action.clone(), format!("{:.3}", elapsed.as_secs_f64() * 1e3));
        }
        // The first plan is still being made.
        let source =
            if self.plan.is_none() && self.report.planning.is_empty() { Source::Waiting } else { Source::Safe };
        (source, safe(), String::new())
    }

    fn count(&mut self, source: Source, intervention: Intervention, late: Duration) {
        let report = &mut self.report;
        report.ticks += 1;
        report.late.push(late.as_secs_f32());
        report.changed += u64::from(intervention.any());
        *match source {
            Source::Waiting => &mut report.waiting,
            Source::Plan => &mut report.planned,
            Source::OlderPlan(_) => &mut report.older,
            Source::Safe => &mut report.safe,
            Source::Stop => &mut report.stops,
        } += 1;
    }

    /// Asks for the plan of the next control period.
    fn ask(&mut self, age: u64) {
        self.between = self.newest.as_ref().is_some_and(|m| m.over);
        let Some(measured) = self.newest.as_ref().filter(|m| age <= self.config.stale_after && !m.over) else { return };
        let request = PlanRequest {
            tick: self.tick + 1,
            obs: measured.obs.clone(),
            past: self.past.clone(),
            snapshot: measured.snapshot.clone(),
            pending: self.pending(measured),
            begins: std::mem::take(&mut self.begins),
        };
        self.plans.ask(request, self.clock.now());
    }

    /// A measurement closes the row of the one before.
    fn log_measurement(&mut self, measured: &Measurement, acted: Option<&[f32]>) {
        if self.log.is_none() {
            return;
        }
        match acted {
            Some(acted) => {
                self.write_row(Some((acted, measured.over)));
                self.row.step += 1;
            }
            None => self.close_row(),
        }
        self.row.open = Some(Measurement { snapshot: None, ..measured.clone() });
    }

    /// Ends the log's episode with its last observation.
    fn close_row(&mut self) {
        // An observation alone says nothing.
        if self.row.step > 0 {
            self.write_row(None);
            (self.row.episode, self.row.step) = (self.row.episode + 1, 0);
        }
        self.row.open = None;
    }

    fn write_row(&self, acted: Option<(&[f32], bool)>) {
        let (Some(log), Some(open)) = (&self.log, &self.row.open) else { return };
        let obs = fields(Some(&open.obs), open.obs.len());
        let action = fields(acted.map(|(action, _)| action), self.envelope.last().len());
        let ended = acted.map(|(_, over)| over.to_string()).unwrap_or_default();
        log.transition(format!("{},{},{:.6}{obs}{action},{ended}", self.row.episode, self.row.step, open.time));
    }
}
