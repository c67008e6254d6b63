//! `mbrl drive`: a robot, or a stand-in for one, in real time.

use std::{
    fs,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mbrl_env::{Env, EnvSpec, Rng, World, tasks::Task};
use mbrl_policy::{
    Learner,
    realtime::{
        AgentPilot, Clock, DriveLog, DriveReport, Driver, DriverConfig, Envelope, EnvelopeConfig, Faults, Foresight,
        LineConfig, Link, Loopback, MonotonicClock, Pilot, PlanRequest, PlanThread, SimulatedLink, SocketLink, StandIn,
        StandInConfig,
    },
};

use crate::{
    args::DriveArgs,
    commands::{STOPPED, cores, counted, stop_on_signals},
    console,
    plot::rounded,
    progress::Display,
    registry::registry,
    run::{Restored, RunFolder, in_pool, warn},
};

pub(crate) fn run(args: &DriveArgs) -> Result<ExitCode> {
    let folder = RunFolder::open(&args.run)?;
    let threads = args.threads.unwrap_or_else(cores);
    let Restored { task, agent, env_step, damaged } = in_pool(threads, || folder.restored(args.which.checkpoint))??;
    warn(&damaged, &Display::new());
    let spec = task.env.spec().clone();
    let period = Duration::from_secs_f64(args.hz.map_or(spec.control_period, |hz| 1.0 / hz));
    let limits = match &args.limits {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
            toml::from_str::<EnvelopeConfig>(&text).with_context(|| {
                format!(
                    "{}: expected the limits of the robot: low, high, rate and rest with a number per command, and [[joints]] (an \
                     example is in docs/guides/real-time.md)",
                    path.display()
                )
            })?
        }
        None => EnvelopeConfig::of_spec(&spec)?,
    };
    if limits.low.len() != spec.actions.width() {
        bail!("limits: {} commands, expected {}", limits.low.len(), spec.actions.width());
    }
    if args.seconds < period.as_secs_f64() {
        bail!("--for = {}: expected at least one control period, {} s", args.seconds, period.as_secs_f64());
    }
    let envelope = limits.init(period, spec.obs.width())?;
    let snapshots = agent.needs_snapshot();
    if snapshots && args.link.is_some() {
        bail!(
            "--link: {} plans with the simulator's own state, which no robot tells; a learned model or a policy can drive it",
            folder.experiment.agent.kind()
        );
    }
    let (pilot, foresight) = pilot(agent, &task, args.seed)?;
    let planner = planner(pilot, threads)?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;
    let clock = MonotonicClock::start();
    let course = Course { args, period, envelope, planner, spec: spec.clone(), stop, clock };
    let hz = 1.0 / period.as_secs_f64();
    console::out(format_args!(
        "{} at {} Hz for {} s, checkpoint of step {env_step}; {foresight}",
        spec.name,
        (hz * 100.0).round() / 100.0,
        args.seconds
    ))?;

    let (report, robot) = if let Some(address) = &args.link {
        let link = SocketLink::connect(address)?;
        let hello = link.hello();
        if (usize::from(hello.obs), usize::from(hello.actions)) != (spec.obs.width(), spec.actions.width()) {
            bail!(
                "the robot {} has {} numbers per observation and {} per command, expected {} and {}",
                hello.name,
                hello.obs,
                hello.actions,
                spec.obs.width(),
                spec.actions.width()
            );
        }
        let own = hello.period;
        if !(own.is_finite() && own > 0.0) {
            bail!("the robot {} tells a control period of {own} s, expected a number above 0", hello.name);
        }
        if (own - period.as_secs_f64()).abs() > 0.01 * own {
            bail!("the robot {} has a control period of {own} s: --hz {}", hello.name, rounded(1.0 / own, 3));
        }
        (course.drive(link)?.0, None)
    } else {
        // A simulator accepts only snapshots of its own clones.
        let own = task.env.simulator().filter(|_| snapshots).map(|simulator| World::from(simulator.boxed_clone()));
        let robot = stand_in(&folder, own, args, period)?;
        if snapshots {
            // Snapshots cannot be sent over a socket.
            let link = SimulatedLink::new(robot, clock);
            let (report, link) = course.drive(link)?;
            (report, Some(link.into_robot()))
        } else {
            let loopback = Loopback::start(robot, "127.0.0.1:0")?;
            let link = SocketLink::connect(&loopback.address())?;
            let (report, link) = course.drive(link)?;
            drop(link);
            (report, loopback.stop())
        }
    };
    console::out(&report)?;
    if let Some(robot) = robot {
        let returns = robot.returns();
        if !returns.is_empty() {
            let mean = returns.iter().sum::<f64>() / returns.len() as f64;
            let episodes = counted(returns.len() as u64, "whole episode");
            console::out(format_args!("mean return          {} over {episodes} of the stand-in", rounded(mean, 3)))?;
        }
        if let Some(trouble) = robot.trouble() {
            bail!("the stand-in broke down: {trouble}");
        }
    }
    if report.planned + report.older == 0 && report.stopped.is_none() {
        bail!(match &report.plan_failure {
            Some(why) => format!("no plan worked; the first one failed: {why}"),
            None => "the robot sent no measurement that could be used, so nothing was planned".to_owned(),
        });
    }
    Ok(match &report.stopped {
        None => ExitCode::SUCCESS,
        Some(_) if course_was_stopped(&report) => ExitCode::from(STOPPED),
        Some(_) => ExitCode::FAILURE,
    })
}

/// Whether the user stopped it.
fn course_was_stopped(report: &DriveReport) -> bool {
    report.stopped.as_deref().is_some_and(|reason| reason.contains("emergency stop was pulled"))
}

/// The pilot, and a description of how it predicts.
fn pilot(agent: Box<dyn Learner>, task: &Task, seed: u64) -> Result<(AgentPilot, &'static str)> {
    let rng = Rng::new(seed);
    if agent.needs_snapshot() {
        let simulator = task.env.require_simulator()?.boxed_clone();
        let pilot = AgentPilot::of_learner(agent, Foresight::Simulator(simulator), rng)?;
        return Ok((pilot, "the simulator predicts the effect of pending commands"));
    }
    let learned = agent.learned().is_some_and(|learned| {
        let spec = learned.model.spec();
        learned.is_fitted && spec.view == spec.obs && !spec.needs_snapshot
    });
    let (foresight, told) = match learned {
        true => (Foresight::Learned, "the learned model predicts the effect of pending commands"),
        false => (
            Foresight::Off,
            "it acts on the last measurement: there is no model to predict the effect of pending commands",
        ),
    };
    Ok((AgentPilot::of_learner(agent, foresight, rng)?, told))
}

/// The planner's thread, with its own thread pool.
fn planner(mut pilot: AgentPilot, threads: usize) -> Result<PlanThread> {
    const STACK: usize = 16 << 20;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build()?;
    Ok(PlanThread::start(move |request: &PlanRequest| pool.install(|| pilot.plan(request)))?)
}

/// The run's task in place of the robot.
fn stand_in(folder: &RunFolder, own: Option<World>, args: &DriveArgs, period: Duration) -> Result<StandIn> {
    let ms = |ms: f64| Duration::from_secs_f64(ms * 1e-3);
    let line = LineConfig { latency: ms(args.latency), jitter: ms(args.jitter), loss: args.loss, seed: args.seed };
    let config = StandInConfig::default().with_line(line).with_seed(args.seed).with_period(period);
    let world = match own {
        Some(own) => own,
        None => folder.experiment.make_task(registry())?.env,
    };
    Ok(StandIn::new(world, config, Faults::new())?)
}

/// Everything that driving needs except the link.
struct Course<'a> {
    args: &'a DriveArgs,
    period: Duration,
    envelope: Envelope,
    planner: PlanThread,
    spec: EnvSpec,
    stop: Arc<AtomicBool>,
    clock: MonotonicClock,
}

impl Course<'_> {
    fn drive<L: Link>(self, link: L) -> Result<(DriveReport, L)> {
        let Self { args, period, envelope, planner, spec, stop, clock } = self;
        // Last, so that a refused drive leaves no folder behind.
        let log = args.log.as_deref().map(|path| DriveLog::create(path, &spec)).transpose();
        let log = log.context("--log")?;
        let config = DriverConfig { delay: args.delay as usize, many_episodes: true, ..DriverConfig::default() };
        let stop_after = config.stop_after;
        let mut driver: Driver<L, PlanThread, MonotonicClock> = config.init(link, envelope, planner, clock)?;
        if let Some(log) = log {
            driver = driver.with_log(log);
        }
        let pulled = driver.emergency_stop();
        let began = clock.now();
        let ends = began + Duration::from_secs_f64(args.seconds);
        while clock.now() + period / 2 < ends && driver.report().stops < stop_after {
            if stop.load(Ordering::Relaxed) {
                pulled.pull();
            }
            driver.tick();
        }
        let report = driver.report().clone();
        // A drive is reported even if its log failed.
        Ok(driver.into_parts().inspect_err(|_| console::note(&report))?)
    }
}
