//! An arm with one joint at 50 Hz, planned for by model-predictive control, whose motor acts two control periods late.
//!
//! ```text
//! cargo run --release -p mbrl-policy --features flex --example arm_50hz            # 20 s of real time
//! cargo run --release -p mbrl-policy --features flex --example arm_50hz -- 60 log  # 60 s, logged into a folder
//! ```
//!
//! First in simulated time, where runs are deterministic: the delay compensated for beside not, and the torque at rest with and
//! without a cost of its changes. Then over a socket, in real time. `docs/guides/real-time.md` goes through it.

use std::{error::Error, path::Path, time::Duration};

use mbrl_env::{ActionSpace, BoxSpace, Delay, Env, EnvError, EnvSpec, Field, Rng, Step, World, check_action};
use mbrl_model::dynamics_fn;
use mbrl_plan::{ActionRate, IcemConfig, Mpc, Propagation, Replan, reward_fn};
use mbrl_policy::{
    Device, Goal, MpcAgent, Tensor,
    realtime::{
        AgentPilot, DriveLog, Driver, DriverConfig, Envelope, EnvelopeConfig, Faults, Foresight, JointLimits,
        LineConfig, Link, Loopback, MonotonicClock, PlanSource, PlanThread, SimulatedClock, SimulatedLink,
        SimulatedPlanning, SocketLink, StandIn, StandInConfig,
    },
};

const PERIOD: f64 = 0.02;
/// Control periods that the motor takes to act.
const DELAY: usize = 2;
/// Acceleration per N m and by gravity (rad/s²), and friction (1/s).
const TORQUE: f32 = 9.0;
const GRAVITY: f32 = 12.0;
const FRICTION: f32 = 0.3;
const MAX_TORQUE: f32 = 2.0;
/// Where the arm is to stand (rad from upright).
const TARGET: f32 = 0.5;
/// Cost of a change of the torque over half its range, squared.
const WEIGHT: f32 = 5.0;

/// The arm: angle from upright (rad) and speed (rad/s), moved by a torque (N m).
#[derive(Debug, Clone)]
struct Arm {
    spec: EnvSpec,
    state: [f32; 2],
    rng: Rng,
}

impl Arm {
    fn new() -> Result<Self, EnvError> {
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, MAX_TORQUE)?);
        let spec = EnvSpec::new("arm", BoxSpace::unbounded(2), actions, PERIOD)
            .with_fields([Field::linear("angle", "rad"), Field::linear("speed", "rad/s")])?
            .with_action_fields([Field::linear("torque", "N m")])?;
        Ok(Self { spec, state: [0.0; 2], rng: Rng::new(0) })
    }
}

impl Env for Arm {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.rng = Rng::new(seed.unwrap_or(0));
        self.state = [self.rng.uniform(-0.3, 0.3), 0.0];
        Ok(self.state.to_vec())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        let [angle, speed] = self.state;
        let torque = action[0].clamp(-MAX_TORQUE, MAX_TORQUE);
        // What no model knows: a push now and then, and sensors that are not exact.
        let push = 0.3 * self.rng.normal();
        let speed = speed + PERIOD as f32 * (GRAVITY * angle.sin() + TORQUE * torque - FRICTION * speed + push);
        self.state = [angle + PERIOD as f32 * speed, speed];
        let seen = [self.state[0] + 0.002 * self.rng.normal(), self.state[1] + 0.02 * self.rng.normal()];
        Ok(Step::new(seen, 0.0))
    }
}

/// The arm's equations, for N arms at once.
fn model() -> impl mbrl_model::Dynamics + 'static {
    let dt = PERIOD as f32;
    dynamics_fn(2, 1, &Device::flex(), move |s, a| {
        let (angle, speed) = (s.clone().narrow(1, 0, 1), s.narrow(1, 1, 1));
        let force =
            angle.clone().sin() * GRAVITY + a.clamp(-MAX_TORQUE, MAX_TORQUE) * TORQUE - speed.clone() * FRICTION;
        let speed = speed + force * dt;
        Tensor::cat(vec![angle + speed.clone() * dt, speed], 1)
    })
}

/// Plans to the target, 0.6 s ahead.
fn pilot(foresees: bool, weight: f32) -> Result<AgentPilot, Box<dyn Error>> {
    let actions = ActionSpace::Box(BoxSpace::symmetric(1, MAX_TORQUE)?);
    let planner = IcemConfig {
        horizon: 30,
        population: 100,
        iterations: 4,
        noise_exponent: 3.0,
        initial_std: 0.3,
        ..IcemConfig::default()
    };
    let mpc = Mpc::new(Box::new(planner.init(&actions, Propagation::MEAN)?), Replan::EveryStep)?;
    let reward = reward_fn(|_, _, next: Tensor<2>| {
        let (angle, speed) = (next.clone().narrow(1, 0, 1), next.narrow(1, 1, 1));
        -((angle - TARGET).square() + speed.square() * 0.02).squeeze_dim::<1>(1)
    });
    let mut goal = Goal::new(std::sync::Arc::new(reward));
    if weight > 0.0 {
        goal.action_rate = Some(ActionRate::new(weight, f32::INFINITY));
    }
    let agent = MpcAgent::new(model(), goal, actions, mpc);
    let foresight = if foresees { Foresight::Model(Box::new(model())) } else { Foresight::Off };
    Ok(AgentPilot::new(Box::new(agent), foresight, Rng::new(0))?)
}

fn envelope() -> Result<Envelope, Box<dyn Error>> {
    // Gravity is stronger than the motor far from upright, so braking cannot be promised: beyond these the arm is stopped.
    let joint = JointLimits::new("shoulder").with_position(0, [-2.0, 2.0]).with_velocity(1, 12.0);
    let mut config = EnvelopeConfig::of_spec(Arm::new()?.spec())?.with_rate(200.0);
    config.joints.push(joint);
    Ok(config.init(Duration::from_secs_f64(PERIOD), 2)?)
}

fn robot(line: LineConfig) -> Result<StandIn, Box<dyn Error>> {
    let world = World::from_env(Delay::actions(Arm::new()?, DELAY));
    Ok(StandIn::new(world, StandInConfig::default().with_line(line), Faults::new())?)
}

/// What the last half of a run looks like.
struct AtRest {
    /// Root mean square of the distance from the target (rad).
    error: f32,
    /// The largest change of the torque from one command to the next, and the root mean square of the changes (N m).
    hop: f32,
    hops: f32,
}

fn drive<L: Link, P: PlanSource, C: mbrl_policy::realtime::Clock>(
    driver: &mut Driver<L, P, C>,
    ticks: u64,
) -> Result<AtRest, Box<dyn Error>> {
    let (mut errors, mut changes, mut last) = (Vec::new(), Vec::new(), 0.0);
    for tick in 0..ticks {
        let Some(action) = driver.tick().action else { break };
        if tick >= ticks / 2
            && let Some(measured) = driver.newest()
        {
            errors.push(measured.obs[0] - TARGET);
            changes.push(action[0] - last);
        }
        last = action[0];
    }
    let rms = |values: &[f32]| (values.iter().map(|x| x * x).sum::<f32>() / values.len().max(1) as f32).sqrt();
    let hop = changes.iter().fold(0.0_f32, |most, change| most.max(change.abs()));
    Ok(AtRest { error: rms(&errors), hop, hops: rms(&changes) })
}

fn simulated(foresees: bool, weight: f32) -> Result<(AtRest, Option<String>), Box<dyn Error>> {
    let clock = SimulatedClock::default();
    let link = SimulatedLink::new(robot(LineConfig::default())?, clock.clone());
    let plans = SimulatedPlanning::new(pilot(foresees, weight)?, |_| Duration::from_millis(15));
    let config = DriverConfig { delay: DELAY, ..DriverConfig::default() };
    let mut driver = config.init(link, envelope()?, plans, clock)?;
    let found = drive(&mut driver, 400)?;
    Ok((found, driver.report().stopped.clone()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let seconds: f64 = words.next().as_deref().unwrap_or("20").parse()?;
    let folder = words.next();

    println!(
        "simulated, 8 s, the last half: distance from the target, change of the torque per command (root mean square, largest)"
    );
    for (name, foresees, weight) in [
        ("delay compensated, changes cost", true, WEIGHT),
        ("delay compensated, changes free", true, 0.0),
        ("delay not compensated, changes cost", false, WEIGHT),
        ("delay not compensated, changes free", false, 0.0),
    ] {
        let (AtRest { error, hop, hops }, stopped) = simulated(foresees, weight)?;
        let stopped = stopped.map_or(String::new(), |reason| format!("; stopped: {reason}"));
        println!("  {name:36} {error:.4} rad, {hops:.3} N m, {hop:.3} N m{stopped}");
    }

    if seconds == 0.0 {
        return Ok(());
    }
    println!("\nover a socket in real time, {seconds} s: 1 ms of latency, 5 ms of jitter, 1 % loss");
    let line = LineConfig { latency: Duration::from_millis(1), jitter: Duration::from_millis(5), loss: 0.01, seed: 0 };
    let loopback = Loopback::start(robot(line)?, "127.0.0.1:0")?;
    let link = SocketLink::connect(&loopback.address())?;
    let plans = PlanThread::start(pilot(true, WEIGHT)?)?;
    let config = DriverConfig { delay: DELAY, ..DriverConfig::default() };
    let mut driver = config.init(link, envelope()?, plans, MonotonicClock::start())?;
    if let Some(folder) = &folder {
        driver = driver.with_log(DriveLog::create(Path::new(folder), Arm::new()?.spec())?);
    }
    let AtRest { error, hop, hops } = drive(&mut driver, (seconds / PERIOD) as u64)?;
    println!("distance from the target {error:.4} rad, change of the torque {hops:.3} N m, at most {hop:.3} N m");
    println!("{}", driver.finish()?);
    Ok(())
}
