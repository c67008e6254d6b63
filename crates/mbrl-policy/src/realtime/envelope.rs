//! The last stage before the link: no command outside the limits passes, wherever it comes from.

use std::{fmt, time::Duration};

use mbrl_env::{ActionSpace, EnvSpec};
use serde::{Deserialize, Serialize};

use super::{DriveError, error::refuse};

/// Limits of a robot, as plain data; `mbrl drive --limits` reads them from a TOML file with these keys.
///
/// ```
/// use mbrl_policy::realtime::{EnvelopeConfig, JointLimits};
///
/// let config = EnvelopeConfig {
///     low: vec![-2.0],
///     high: vec![2.0],
///     rate: vec![20.0],
///     rest: vec![0.0],
///     reaction: 0.04,
///     joints: vec![JointLimits::new("shoulder").with_position(0, [-2.5, 2.5]).with_velocity(1, 8.0)],
/// };
/// let envelope = config.init(std::time::Duration::from_millis(20), 2)?;
/// # Ok::<(), mbrl_policy::realtime::DriveError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeConfig {
    /// Smallest command, `[A]`, in the robot's units (N m, rad, …).
    pub low: Vec<f32>,
    /// Largest command, `[A]`.
    pub high: Vec<f32>,
    /// Largest change of a command per second, `[A]`; infinity for no limit.
    pub rate: Vec<f32>,
    /// A command that does the robot no harm, `[A]`, such as no torque. The first command changes from it, and a command that is
    /// not finite is replaced by it.
    pub rest: Vec<f32>,
    /// Longest time from sending a command until it acts (s), for [`Drive`]: latency, jitter and delays of the robot (default 0).
    #[serde(default)]
    pub reaction: f64,
    /// Limits of what is measured (default: none).
    #[serde(default)]
    pub joints: Vec<JointLimits>,
}

/// Limits of a joint. A measurement beyond them is an emergency stop; with a [`Drive`] commands brake early enough to prevent that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointLimits {
    /// Name, for messages.
    pub name: String,
    /// Column of the observation that holds the position, and its range (rad, m: the column's unit).
    #[serde(default)]
    pub position: Option<(usize, [f32; 2])>,
    /// Column of the observation that holds the velocity, and the largest speed (rad/s, m/s: the column's unit).
    #[serde(default)]
    pub velocity: Option<(usize, f32)>,
    /// How its command moves it, if that is a force or a torque. Needs `velocity`.
    #[serde(default)]
    pub drive: Option<Drive>,
}

/// How a command that is a force or a torque moves a joint. From these the envelope knows when braking has to begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Column of the command. Positive commands accelerate the joint in its positive direction.
    pub action: usize,
    /// Largest acceleration under any command within the limits, gravity and coupling to other joints included (rad/s², m/s²).
    pub acceleration: f64,
    /// Smallest deceleration under the full braking command, with gravity and everything else acting against it (rad/s², m/s²).
    pub braking: f64,
}

impl JointLimits {
    /// A joint without limits yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), position: None, velocity: None, drive: None }
    }

    /// With a range of the position in this column of the observation.
    #[must_use]
    pub fn with_position(mut self, column: usize, range: [f32; 2]) -> Self {
        self.position = Some((column, range));
        self
    }

    /// With a largest speed in this column of the observation.
    #[must_use]
    pub fn with_velocity(mut self, column: usize, speed: f32) -> Self {
        self.velocity = Some((column, speed));
        self
    }

    /// With what drives it.
    #[must_use]
    pub fn with_drive(mut self, drive: Drive) -> Self {
        self.drive = Some(drive);
        self
    }
}

impl EnvelopeConfig {
    /// The limits of an environment's actions and no others: no rate, no joints. The rest is the command nearest to 0.
    ///
    /// # Errors
    /// [`DriveError::Config`] for discrete actions and for actions without finite limits.
    pub fn of_spec(spec: &EnvSpec) -> Result<Self, DriveError> {
        let ActionSpace::Box(space) = &spec.actions else {
            return refuse("actions", format!("{:?}", spec.actions), "real numbers within bounds");
        };
        if !space.is_bounded() {
            return refuse("actions", &spec.name, "an environment whose actions have finite limits");
        }
        let width = space.width();
        let rest = space.clipped(&vec![0.0; width]);
        let (low, high) = (space.low().to_vec(), space.high().to_vec());
        Ok(Self { low, high, rate: vec![f32::INFINITY; width], rest, reaction: 0.0, joints: Vec::new() })
    }

    /// With the same largest change per second for all columns.
    #[must_use]
    pub fn with_rate(mut self, rate: f32) -> Self {
        self.rate.fill(rate);
        self
    }

    /// The envelope for a control period and observations of a width.
    ///
    /// # Errors
    /// [`DriveError::Config`] for limits that are not finite or in the wrong order, columns that do not exist, and a joint that cannot be
    /// guaranteed to stay within its range.
    pub fn init(self, period: Duration, obs_width: usize) -> Result<Envelope, DriveError> {
        let width = self.low.len();
        if width == 0 {
            return refuse("low", "[]", "at least one command");
        }
        for (field, found) in [("high", &self.high), ("rate", &self.rate), ("rest", &self.rest)] {
            if found.len() != width {
                return refuse(field, format!("{} numbers", found.len()), format!("{width}, as in low"));
            }
        }
        if period.is_zero() {
            return refuse("period", "0 s", "a positive time");
        }
        if !(self.reaction >= 0.0 && self.reaction.is_finite()) {
            return refuse("reaction", self.reaction, "a time of at least 0 s");
        }
        for i in 0..width {
            let (low, high, rate, rest) = (self.low[i], self.high[i], self.rate[i], self.rest[i]);
            if !(low.is_finite() && high.is_finite() && low <= high && (high - low).is_finite()) {
                return refuse(
                    format!("low[{i}], high[{i}]"),
                    format!("{low}, {high}"),
                    "finite limits in their order",
                );
            }
            if rate.is_nan() || rate <= 0.0 {
                return refuse(format!("rate[{i}]"), rate, "a positive number, infinity for none");
            }
            if !(low..=high).contains(&rest) {
                return refuse(format!("rest[{i}]"), rest, format!("a number from {low} to {high}"));
            }
        }
        let seconds = period.as_secs_f64();
        let change = self.rate.iter().map(|rate| (f64::from(*rate) * seconds) as f32).collect();
        for joint in &self.joints {
            joint.check(&self, seconds, obs_width)?;
        }
        let last = self.rest.clone();
        Ok(Envelope { config: self, period: seconds, obs_width, change, last, seen: None, stopped: None })
    }

    /// Time from a decision until the joint brakes at its limit, beside the age of what is known (s).
    fn until_braking(&self, action: usize, period: f64) -> f64 {
        let swing = f64::from(self.high[action] - self.low[action]) / f64::from(self.rate[action]);
        // A decision holds for a period before the next; a swing ends with a whole period.
        self.reaction + period + if swing > 0.0 { swing + period } else { 0.0 }
    }
}

impl JointLimits {
    fn check(&self, config: &EnvelopeConfig, period: f64, obs_width: usize) -> Result<(), DriveError> {
        let field = |what: &str| format!("joints.{}.{what}", self.name);
        let columns = [self.position.map(|p| ("position", p.0)), self.velocity.map(|v| ("velocity", v.0))];
        for (what, column) in columns.into_iter().flatten() {
            if column >= obs_width {
                return refuse(field(what), column, format!("a column of the observation, below {obs_width}"));
            }
        }
        if let Some((_, [low, high])) = self.position
            && !(low < high && low.is_finite() && high.is_finite())
        {
            return refuse(field("position"), format!("[{low}, {high}]"), "a range of finite numbers");
        }
        if let Some((_, speed)) = self.velocity
            && (speed.is_nan() || speed <= 0.0)
        {
            return refuse(field("velocity"), speed, "a positive speed");
        }
        let Some(drive) = self.drive else { return Ok(()) };
        if drive.action >= config.low.len() {
            return refuse(field("drive.action"), drive.action, "a column of the command");
        }
        for (what, value) in [("drive.acceleration", drive.acceleration), ("drive.braking", drive.braking)] {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(field(what), value, "a positive number");
            }
        }
        if self.velocity.is_none() {
            let rule = format!(
                "joints.{}.velocity = [COLUMN, LARGEST] beside it, because the way until the joint stands depends on its speed; or no drive",
                self.name
            );
            return refuse(field("drive"), "set", rule);
        }
        // What both directions need at once at the worst speed; two periods of age.
        let (a, b) = (drive.acceleration, drive.braking);
        let time = config.until_braking(drive.action, period) + 2.0 * period;
        let need = 2.0 * (a * time).powi(2) / b + a * time * time;
        if let Some((_, [low, high])) = self.position
            && f64::from(high - low) <= need
        {
            let rule = format!(
                "a range above {need:.3}, which it needs to brake in time; a larger rate or braking, or a shorter reaction help"
            );
            return refuse(field("position"), format!("[{low}, {high}]"), rule);
        }
        if let Some((_, speed)) = self.velocity
            && f64::from(speed) <= a * time
        {
            let rule = format!("a speed above {:.3}, which it may gain before it brakes", a * time);
            return refuse(field("velocity"), speed, rule);
        }
        Ok(())
    }

    /// What of a measurement lies beyond the limits.
    fn violation(&self, obs: &[f32]) -> Option<String> {
        let name = &self.name;
        if let Some((column, [low, high])) = self.position
            && !(low..=high).contains(&obs[column])
        {
            return Some(format!("position of {name} = {}: expected {low} to {high}", obs[column]));
        }
        if let Some((column, speed)) = self.velocity
            && obs[column].abs() > speed
        {
            return Some(format!("velocity of {name} = {}: expected at most {speed}", obs[column]));
        }
        None
    }

    /// The range of its command that is left: shares of the whole from below and above, 1 and 1 where it is free.
    fn room(&self, drive: Drive, obs: &[f32], time: f64) -> [f64; 2] {
        let velocity = self.velocity.map_or(0.0, |(column, _)| f64::from(obs[column]));
        let mut room = [1.0_f64; 2];
        for (side, sign) in [(0, -1.0), (1, 1.0)] {
            let speed = sign * velocity;
            let fastest = speed + drive.acceleration * time;
            if let Some((_, limit)) = self.velocity {
                room[side] = room[side].min((f64::from(limit) - fastest) / (0.2 * f64::from(limit)));
            }
            if let Some((column, [low, high])) = self.position {
                let position = f64::from(obs[column]);
                let left = if side == 0 { position - f64::from(low) } else { f64::from(high) - position };
                let way =
                    speed * time + 0.5 * drive.acceleration * time * time + fastest.powi(2) / (2.0 * drive.braking);
                let way = if fastest > 0.0 { way.max(0.0) } else { 0.0 };
                room[side] = room[side].min((left - way) / (0.1 * f64::from(high - low)));
            }
        }
        room.map(|share| share.clamp(0.0, 1.0))
    }
}

/// What the envelope changed of a wanted command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Intervention {
    /// The command was not finite, or had the wrong width: the rest took its place.
    pub replaced: bool,
    /// It lay outside its limits.
    pub clipped: bool,
    /// A joint had to brake.
    pub braked: bool,
    /// It changed too fast.
    pub slowed: bool,
}

impl Intervention {
    /// Whether anything was changed.
    #[must_use]
    pub fn any(self) -> bool {
        self.replaced || self.clipped || self.braked || self.slowed
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [(self.replaced, "replaced"), (self.clipped, "clipped"), (self.braked, "braked"), (self.slowed, "slowed")];
        let words: Vec<&str> = parts.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
        f.write_str(&words.join("+"))
    }
}

/// A command that passed an [`Envelope`], or an emergency stop. Nothing else can make one, and a [`Link`](super::Link) takes nothing else.
///
/// ```compile_fail
/// use mbrl_policy::realtime::SafeCommand;
/// let forged = SafeCommand { tick: 0, action: Some(vec![1e9]) }; // private
/// ```
#[derive(Debug, PartialEq)]
pub struct SafeCommand {
    tick: u64,
    action: Option<Vec<f32>>,
}

impl SafeCommand {
    /// Number of the control period that it is for.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// The command `[A]`; `None` is an emergency stop: the robot brings itself to a halt.
    #[must_use]
    pub fn action(&self) -> Option<&[f32]> {
        self.action.as_deref()
    }
}

/// Keeps commands within limits of range and rate, and joints within theirs; made by [`EnvelopeConfig::init`].
///
/// - **Range**: each command lies within `low` and `high`.
/// - **Rate**: it differs from the command before by at most the rate times a control period. Where a link loses commands, those that arrive
///   differ by at most the rate times the periods between them.
/// - **Joints**: a measurement beyond a limit, or one that is older than the driver allows, is an emergency stop. Where a [`Drive`] is
///   known, the command is moved towards full braking early enough that position and speed stay within, however the joint accelerates
///   until then.
/// - A command that is not finite, or has the wrong width, is replaced by the rest.
/// - A stop is final: to continue, make a new envelope.
#[derive(Debug)]
pub struct Envelope {
    config: EnvelopeConfig,
    /// Control period (s).
    period: f64,
    obs_width: usize,
    /// Largest change per period.
    change: Vec<f32>,
    last: Vec<f32>,
    /// The newest measurement, and how old it is (s).
    seen: Option<(Vec<f32>, f64)>,
    stopped: Option<String>,
}

impl Envelope {
    /// The limits.
    #[must_use]
    pub fn config(&self) -> &EnvelopeConfig {
        &self.config
    }

    /// Control period (s).
    #[must_use]
    pub fn period(&self) -> f64 {
        self.period
    }

    /// Width of the observations that it reads.
    #[must_use]
    pub fn obs_width(&self) -> usize {
        self.obs_width
    }

    /// The last command, the rest before the first.
    #[must_use]
    pub fn last(&self) -> &[f32] {
        &self.last
    }

    /// Why it stopped, where it did.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Takes in a measurement `[O]` of an `age` (s). One beyond a limit is an emergency stop; one of another width or not finite is ignored.
    pub fn observe(&mut self, obs: &[f32], age: f64) {
        if obs.len() != self.obs_width || obs.iter().any(|x| !x.is_finite()) {
            return;
        }
        if let Some(violation) = self.config.joints.iter().find_map(|joint| joint.violation(obs)) {
            self.stopped.get_or_insert(violation);
        }
        let age = if age.is_finite() { age.max(0.0) } else { 0.0 };
        self.seen = Some((obs.to_vec(), age));
    }

    /// The safe command nearest to the `wanted` one, `[A]`, for a control period, and what was changed. After a stop, a stop.
    pub fn pass(&mut self, tick: u64, wanted: &[f32]) -> (SafeCommand, Intervention) {
        let mut done = Intervention::default();
        if self.stopped.is_some() {
            return (SafeCommand { tick, action: None }, done);
        }
        let config = &self.config;
        let fits = wanted.len() == self.last.len() && wanted.iter().all(|x| x.is_finite());
        done.replaced = !fits;
        let wanted = if fits { wanted } else { &config.rest };
        let mut action: Vec<f32> = (0..wanted.len()).map(|i| wanted[i].clamp(config.low[i], config.high[i])).collect();
        done.clipped = fits && action != wanted;

        let (mut low, mut high) = (config.low.clone(), config.high.clone());
        for joint in &config.joints {
            let Some(drive) = joint.drive else { continue };
            let i = drive.action;
            let Some((obs, age)) = &self.seen else {
                // Nothing is known of where it is: it rests.
                (low[i], high[i]) = (config.rest[i], config.rest[i]);
                continue;
            };
            let [below, above] = joint.room(drive, obs, age + config.until_braking(i, self.period));
            if below == 0.0 && above == 0.0 {
                self.stopped = Some(format!(
                    "{} has no room left to brake in: it moves faster than joints.{}.drive says that it can; bring it back by hand, and give a \
                     larger acceleration, a smaller braking or a longer reaction",
                    joint.name, joint.name
                ));
                return (SafeCommand { tick, action: None }, done);
            }
            let whole = f64::from(config.high[i] - config.low[i]);
            // A side without room has the last word.
            if above > 0.0 {
                low[i] = low[i].max((f64::from(config.high[i]) - below * whole) as f32);
            }
            if below > 0.0 {
                high[i] = high[i].min((f64::from(config.low[i]) + above * whole) as f32);
            }
        }
        for i in 0..action.len() {
            // Where both sides ask for something, the middle.
            let braked = match low[i] <= high[i] {
                true => action[i].clamp(low[i], high[i]),
                false => 0.5 * low[i] + 0.5 * high[i],
            };
            done.braked |= braked != action[i];
            let slowed = within(self.last[i], self.change[i], braked);
            done.slowed |= slowed != braked;
            action[i] = slowed;
        }
        if let Some((_, age)) = &mut self.seen {
            *age += self.period;
        }
        self.last.clone_from(&action);
        (SafeCommand { tick, action: Some(action) }, done)
    }

    /// An emergency stop, now and from now on.
    pub fn stop(&mut self, tick: u64, reason: impl Into<String>) -> SafeCommand {
        self.stopped.get_or_insert(reason.into());
        SafeCommand { tick, action: None }
    }
}

/// The number nearest to `wanted` that differs from `last` by at most `change`, by the difference of `f32` too.
fn within(last: f32, change: f32, wanted: f32) -> f32 {
    let mut near = wanted.clamp(last - change, last + change);
    while (near - last).abs() > change {
        near = if near > last { near.next_down() } else { near.next_up() };
    }
    near
}

#[cfg(test)]
mod tests {
    use mbrl_env::Rng;

    use super::*;

    const PERIOD: f64 = 0.02;

    fn period() -> Duration {
        Duration::from_secs_f64(PERIOD)
    }

    /// Any `f32`, including NaN and the infinities.
    fn any(rng: &mut Rng) -> f32 {
        match rng.below(8) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => f32::from_bits(rng.key() as u32),
            4 => rng.uniform(-1e6, 1e6),
            _ => rng.uniform(-3.0, 3.0),
        }
    }

    fn random_config(rng: &mut Rng) -> EnvelopeConfig {
        let width = 1 + rng.below(3);
        let mut config =
            EnvelopeConfig { low: vec![], high: vec![], rate: vec![], rest: vec![], reaction: 0.0, joints: vec![] };
        for i in 0..width {
            let low = rng.uniform(-5.0, 1.0);
            let high = low + rng.uniform(0.0, 4.0);
            config.low.push(low);
            config.high.push(high);
            config.rate.push(if rng.below(4) == 0 { f32::INFINITY } else { rng.uniform(0.1, 50.0) });
            config.rest.push(rng.uniform(low, high).clamp(low, high));
            if rng.below(2) == 0 {
                let joint = JointLimits::new(format!("joint {i}")).with_position(2 * i, [-2.0, 2.0]);
                config.joints.push(joint.with_velocity(2 * i + 1, 2.5));
            }
        }
        config
    }

    /// 10⁶ sequences: whatever is wanted and measured, in whatever order, what passes is within the limits, alone and from any command
    /// that a lossy link let through to any later one.
    #[test]
    fn no_sequence_of_actions_and_measurements_passes_the_limits() {
        let mut rng = Rng::new(19);
        let mut stops = 0_u32;
        for _ in 0..1000 {
            let config = random_config(&mut rng);
            let width = config.low.len();
            for _ in 0..1000 {
                let mut envelope = config.clone().init(period(), 6).unwrap();
                let (mut arrived, mut stopped) = ((0, config.rest.clone()), false);
                let mut before = config.rest.clone();
                for tick in 1..=6_u64 {
                    if rng.below(3) > 0 {
                        let obs: Vec<f32> = (0..6 - rng.below(6) / 5).map(|_| any(&mut rng).clamp(-9.0, 9.0)).collect();
                        let counts = obs.len() == 6 && obs.iter().all(|x| x.is_finite());
                        envelope.observe(&obs, f64::from(any(&mut rng)));
                        stopped |= counts && config.joints.iter().any(|joint| joint.violation(&obs).is_some());
                    }
                    if rng.below(50) == 0 {
                        assert_eq!(envelope.stop(tick, "test").action(), None);
                        stopped = true;
                    }
                    let wanted: Vec<f32> = (0..width + rng.below(9) / 8).map(|_| any(&mut rng)).collect();
                    let (command, _) = envelope.pass(tick, &wanted);
                    // A stop is for good, and comes with the very next command.
                    assert_eq!(command.action().is_none(), stopped, "{config:?}");
                    let Some(action) = command.action() else {
                        stops += 1;
                        continue;
                    };
                    let periods = (tick - arrived.0) as f32;
                    for i in 0..width {
                        assert!(action[i] >= config.low[i] && action[i] <= config.high[i], "{action:?} {config:?}");
                        let change = (f64::from(config.rate[i]) * PERIOD) as f32;
                        assert!((action[i] - before[i]).abs() <= change, "{action:?} {before:?} {config:?}");
                        let slack = 1.0 + 1e-5 * periods;
                        assert!((action[i] - arrived.1[i]).abs() <= change * periods * slack + 1e-6);
                    }
                    before = action.to_vec();
                    if rng.below(3) > 0 {
                        arrived = (tick, action.to_vec());
                    }
                }
            }
        }
        assert!(stops > 100_000, "{stops}");
    }

    /// A joint that accelerates by 30 under the largest command and by up to 10 under whatever else pulls at it.
    fn driven(reaction: f64) -> EnvelopeConfig {
        let joint = JointLimits::new("elbow").with_position(0, [-2.5, 2.5]).with_velocity(1, 12.0);
        EnvelopeConfig {
            low: vec![-1.0],
            high: vec![1.0],
            rate: vec![200.0],
            rest: vec![0.0],
            reaction,
            joints: vec![joint.with_drive(Drive { action: 0, acceleration: 40.0, braking: 20.0 })],
        }
    }

    /// What a joint comes to where commands are lost and late within the reaction, measurements are lost, and somebody wants the worst.
    fn driven_joint(rng: &mut Rng, ticks: u64, drive: bool) -> (f64, f64, bool) {
        let mut config = driven(0.06);
        if !drive {
            config.joints[0].drive = None;
        }
        let mut envelope = config.init(period(), 2).unwrap();
        let (mut x, mut v, mut acting, mut standing) = (rng.uniform_f64(-0.3, 0.3), 0.0_f64, 0.0_f64, false);
        let mut under_way: Vec<(u64, f64)> = Vec::new();
        let (mut furthest, mut fastest, mut lost, mut unseen) = (0.0_f64, 0.0_f64, 0, 0);
        let (mut wanted, mut pull, mut measured) = (0.0, 0.0, (x, v));
        const PARTS: u64 = 4;
        for tick in 0..ticks {
            // Measured up to a period ago; at most five in a row get lost.
            if rng.below(4) > 0 || unseen == 5 {
                envelope.observe(&[measured.0 as f32, measured.1 as f32], PERIOD);
                unseen = 0;
            } else {
                unseen += 1;
            }
            measured = (x, v);
            if rng.below(10) == 0 {
                wanted = any(rng);
                pull = rng.uniform_f64(-1.0, 1.0).signum() * 10.0;
            }
            let (command, _) = envelope.pass(tick, &[wanted]);
            match command.action() {
                None => standing = true,
                // Up to two in a row get lost, and each takes up to a period.
                Some(_) if lost < 2 && rng.below(4) == 0 => lost += 1,
                Some(action) => {
                    under_way.push((tick * PARTS + rng.below(PARTS as usize) as u64, f64::from(action[0])));
                    lost = 0;
                }
            }
            for part in tick * PARTS..(tick + 1) * PARTS {
                under_way.retain(|(at, command)| {
                    if *at <= part {
                        acting = *command;
                    }
                    *at > part
                });
                let force = if standing { -v.signum() * 20.0 } else { 30.0 * acting + pull };
                let dt = PERIOD / PARTS as f64;
                let before = v;
                v += force * dt;
                if standing && before * v <= 0.0 {
                    v = 0.0;
                }
                x += 0.5 * (before + v) * dt;
                furthest = furthest.max(x.abs());
                fastest = fastest.max(v.abs());
            }
        }
        (furthest, fastest, standing)
    }

    #[test]
    fn a_driven_joint_stays_within_its_limits_whoever_pushes_and_whatever_is_lost() {
        let mut rng = Rng::new(3);
        let (mut near, mut quick, mut stops) = (0.0_f64, 0.0_f64, 0);
        for _ in 0..4000 {
            let (furthest, fastest, stopped) = driven_joint(&mut rng, 300, true);
            assert!(furthest <= 2.5 && fastest <= 12.0, "{furthest} {fastest}");
            (near, quick) = (near.max(furthest), quick.max(fastest));
            stops += u32::from(stopped);
        }
        // They are limits, not walls far away; and it gets by without stopping.
        assert!(near > 1.0 && quick > 5.0 && stops < 2000, "{near} {quick} {stops}");
        // Without braking in time it goes beyond, and only then stops.
        let beyond = (0..200).filter(|_| driven_joint(&mut rng, 300, false).0 > 2.5).count();
        assert!(beyond > 100, "{beyond}");
    }

    /// The command that passes for a wanted one, where this was measured so long ago.
    fn passed(config: EnvelopeConfig, obs: [f32; 2], age: f64, wanted: f32) -> (Option<f32>, Intervention, Envelope) {
        let mut envelope = config.init(period(), 2).unwrap();
        envelope.observe(&obs, age);
        let (command, done) = envelope.pass(0, &[wanted]);
        (command.action().map(|action| action[0]), done, envelope)
    }

    #[test]
    fn a_speed_beyond_its_limit_stops_in_either_direction_and_the_first_reason_stays() {
        let joint = JointLimits::new("elbow").with_position(0, [-1.0, 1.0]).with_velocity(1, 2.0);
        let config = EnvelopeConfig { joints: vec![joint], ..driven(0.0) };
        for speed in [2.5, -2.5] {
            let (action, _, mut envelope) = passed(config.clone(), [0.0, speed], 0.0, 0.0);
            assert_eq!(action, None);
            let reason = format!("velocity of elbow = {speed}: expected at most 2");
            assert_eq!(envelope.stopped(), Some(&*reason));
            envelope.observe(&[5.0, 0.0], 0.0);
            envelope.stop(1, "somebody pulled it");
            assert_eq!(envelope.stopped(), Some(&*reason));
        }
        assert_eq!(passed(config, [0.9, -2.0], 0.0, 0.5).0, Some(0.5));
    }

    #[test]
    fn what_was_changed_is_said() {
        let config = EnvelopeConfig { rate: vec![10.0], rest: vec![0.5], joints: Vec::new(), ..driven(0.0) };
        let mut envelope = config.init(period(), 2).unwrap();
        let none = Intervention::default();
        let mut pass = |wanted: &[f32]| {
            let (command, done) = envelope.pass(0, wanted);
            (command.action().unwrap()[0], done)
        };
        assert_eq!(pass(&[0.4]), (0.4, none));
        // No number, or another width: not the last command, but the rest.
        for wanted in [&[f32::NAN][..], &[0.1, 0.1]] {
            assert_eq!(pass(wanted), (0.5, Intervention { replaced: true, ..none }));
            assert_eq!(pass(&[0.4]), (0.4, none));
        }
        let (action, done) = pass(&[5.0]);
        assert!((action - 0.6).abs() < 1e-6, "{action}");
        assert_eq!(done, Intervention { clipped: true, slowed: true, ..none });
        assert_eq!(done.to_string(), "clipped+slowed");
        // With a drive it rests until it knows where the joint is.
        let mut envelope = driven(0.0).init(period(), 2).unwrap();
        let (command, done) = envelope.pass(0, &[1.0]);
        assert_eq!((command.action(), done), (Some(&[0.0][..]), Intervention { braked: true, ..none }));
    }

    #[test]
    fn braking_begins_in_time_by_the_closed_form() {
        // The reaction, a period until the next decision, the swing of 2 at 200 per second, and the rest of its last period.
        let config = driven(0.06);
        assert!((config.until_braking(0, PERIOD) - (0.06 + 0.02 + 0.01 + 0.02)).abs() < 1e-9);
        let free = EnvelopeConfig { rate: vec![f32::INFINITY], ..config.clone() };
        assert!((free.until_braking(0, PERIOD) - 0.08).abs() < 1e-9);
        // With two periods of age, 0.15 s at 40: 2 · 6² / 20 + 40 · 0.15².
        let narrow = |half: f32| {
            let mut config = config.clone();
            config.joints[0].position = Some((0, [-half, half]));
            config.init(period(), 2)
        };
        assert!(narrow(2.26).is_ok());
        let error = narrow(2.24).unwrap_err().to_string();
        assert!(error.contains("expected a range above 4.500"), "{error}");

        // At a speed at which it may become too fast before it brakes, without any limit of its position.
        let mut of_speed = config.clone();
        of_speed.joints[0].position = None;
        assert_eq!(passed(of_speed.clone(), [0.0, 0.0], 0.0, 1.0).0, Some(1.0));
        assert_eq!(passed(of_speed, [0.0, 9.0], 0.0, 1.0).0, Some(-1.0));
        // Near a bound and fast on its way from it: it brakes for the other one, and nothing holds it here.
        let mut fast = config.clone();
        fast.joints[0].velocity = Some((1, 100.0));
        let (action, done, envelope) = passed(fast, [2.4, -30.0], 0.0, 0.0);
        assert_eq!((action, done.braked, envelope.stopped()), (Some(1.0), true, None));
        // An age below 0 is none.
        assert_eq!(passed(config.clone(), [1.9, 5.0], -1.0, 1.0).0, passed(config.clone(), [1.9, 5.0], 0.0, 1.0).0);
        // Where both sides ask for the same, the middle; where neither has any room, a stop.
        assert_eq!(passed(config.clone(), [0.0, 0.0], 0.0879, 1.0).0.map(|action| action.abs() < 1e-6), Some(true));
        let (action, _, envelope) = passed(config, [0.0, 0.0], 1.0, 1.0);
        assert_eq!(action, None);
        assert!(envelope.stopped().unwrap().starts_with("elbow has no room left to brake in"));
    }

    #[test]
    fn limits_that_cannot_be_are_refused() {
        let refused = |change: fn(&mut EnvelopeConfig)| {
            let mut config = driven(0.02);
            change(&mut config);
            config.init(period(), 2).unwrap_err().to_string()
        };
        for (change, text) in [
            ((|c| c.low.clear()) as fn(&mut EnvelopeConfig), "low = []"),
            (|c| c.high.push(1.0), "high = 2 numbers: expected 1"),
            (|c| c.low[0] = 2.0, "low[0], high[0] = 2, 1"),
            (|c| c.high[0] = f32::INFINITY, "low[0], high[0] = -1, inf"),
            (|c| c.rate[0] = 0.0, "rate[0] = 0"),
            (|c| c.rate[0] = f32::NAN, "rate[0] = NaN"),
            (|c| c.rest[0] = 1.5, "rest[0] = 1.5: expected a number from -1 to 1"),
            (|c| c.reaction = -1.0, "reaction = -1"),
            (|c| c.joints[0].position = Some((2, [0.0, 1.0])), "joints.elbow.position = 2: expected a column"),
            (
                |c| c.joints[0].position = Some((0, [-0.5, 0.5])),
                "joints.elbow.position = [-0.5, 0.5]: expected a range above",
            ),
            (|c| c.joints[0].velocity = Some((1, 2.0)), "joints.elbow.velocity = 2: expected a speed above"),
            (
                |c| c.joints[0].velocity = None,
                "joints.elbow.drive = set: expected joints.elbow.velocity = [COLUMN, LARGEST] beside it",
            ),
            (|c| c.joints[0].drive.as_mut().unwrap().braking = 0.0, "joints.elbow.drive.braking = 0"),
        ] {
            let error = refused(change);
            assert!(error.starts_with(text), "{error}");
        }
        let choices = EnvSpec::new("lift", mbrl_env::BoxSpace::unbounded(1), ActionSpace::Discrete(3), 0.1);
        assert!(EnvelopeConfig::of_spec(&choices).unwrap_err().to_string().starts_with("actions = Discrete(3)"));
    }
}
