//! Driving a stand-in: whatever line, planner, sensor and clock do.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mbrl_env::{Delay, Env, Rng, World, tasks::Pendulum};
use mbrl_model::dynamics_fn;
use mbrl_plan::{Mpc, Plan, PlanError, PlanStats, Planner, Problem, Replan};
use mbrl_policy::{
    ActMode, Agent, AgentError, Device, Goal, MpcAgent, Tensor,
    realtime::{
        Acted, AgentPilot, Clock, DriveLog, Driver, DriverConfig, EnvelopeConfig, Faults, Foresight, LineConfig, Link,
        Loopback, Measurement, MonotonicClock, Pilot, PlanRequest, PlanSource, PlanThread, SafeAction, SimulatedClock,
        SimulatedLink, SimulatedPlanning, SocketLink, Source, StandIn, StandInConfig,
    },
};

const PERIOD: Duration = Duration::from_millis(50);
/// Largest change of the torque per second, and so per control period.
const RATE: f32 = 30.0;
const CHANGE: f32 = 1.5;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn pendulum(line: LineConfig, faults: &Faults) -> StandIn {
    let config = StandInConfig::default().with_line(line).with_seed(4);
    StandIn::new(World::from_simulator(Pendulum::new()), config, faults.clone()).unwrap().recording()
}

fn envelope() -> EnvelopeConfig {
    EnvelopeConfig::of_spec(Pendulum::new().spec()).unwrap().with_rate(RATE)
}

/// Wants anything, numbers or not, for as long as eight periods.
fn wild() -> impl FnMut(&PlanRequest) -> Result<Vec<Vec<f32>>, AgentError> + Send {
    let mut rng = Rng::new(8);
    move |_: &PlanRequest| {
        let wanted = |rng: &mut Rng| match rng.below(6) {
            0 => f32::NAN,
            1 => 1e30,
            _ => rng.uniform(-3.0, 3.0),
        };
        if rng.below(20) == 0 {
            return Err(AgentError::Config { field: "plan", value: "none".into(), rule: "a plan" });
        }
        Ok((0..8).map(|_| vec![wanted(&mut rng)]).collect())
    }
}

/// The rows of a log, without comments and the header.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.map(|row| row.split(',').map(str::to_owned).collect()).collect()
}

/// Every transition is one of the pendulum's: observation, the command that acted, and the observation that came of it.
fn check_transitions(path: &Path) -> usize {
    let rows = rows(path);
    let number = |row: &[String], i: usize| row[i].parse::<f32>().unwrap();
    let mut found = 0;
    for pair in rows.windows(2) {
        let (row, next) = (&pair[0], &pair[1]);
        if row[0] != next[0] {
            // An episode ends with an observation alone.
            assert!(row[6].is_empty() && row[7].is_empty(), "{row:?}");
            continue;
        }
        let mut env = Pendulum::new();
        let angle = f64::from(number(row, 4)).atan2(f64::from(number(row, 3)));
        env.set_state([angle, f64::from(number(row, 5))]).unwrap();
        let after = env.step(&[number(row, 6)]).unwrap().obs;
        for (i, expected) in after.iter().enumerate() {
            assert!((number(next, 3 + i) - expected).abs() < 1e-4, "{row:?} {next:?} {after:?}");
        }
        found += 1;
    }
    found
}

/// What goes wrong, by control period.
type Scenario = (&'static str, LineConfig, fn(u64, &Faults, &SimulatedClock), fn(u64) -> Duration);

#[test]
fn faults_never_pass_the_limits_the_log_is_whole_and_a_stop_takes_one_period() {
    let fine = LineConfig::default();
    let bad = LineConfig { latency: ms(5), jitter: ms(30), loss: 0.05, seed: 1 };
    let nothing = |_: u64, _: &Faults, _: &SimulatedClock| {};
    let scenarios: [Scenario; 7] = [
        ("a perfect line", fine, nothing, |_| ms(10)),
        ("5 % loss and 30 ms of jitter", bad, nothing, |_| ms(30)),
        ("a link that is killed and restarted", bad, |tick, faults, _| faults.kill(tick % 60 >= 54), |_| ms(20)),
        ("a planner that stalls", bad, nothing, |tick| if tick % 50 == 20 { ms(1200) } else { ms(20) }),
        ("a sensor that gives NaN", bad, |tick, faults, _| faults.blind(tick % 40 > 33), |_| ms(20)),
        (
            "a clock that jumps",
            bad,
            |tick, _, clock| match tick % 90 {
                30 => clock.jump_to(clock.now() + Duration::from_secs(3600)),
                60 => clock.jump_to(clock.now().saturating_sub(Duration::from_secs(1000))),
                _ => {}
            },
            |_| ms(20),
        ),
        (
            "a robot whose clock jumps",
            bad,
            |tick, faults, _| faults.shift_clock(if tick % 70 > 35 { -500.0 } else { 0.0 }),
            |_| ms(20),
        ),
    ];
    for (name, line, trouble, takes) in scenarios {
        let folder = tempfile::tempdir().unwrap();
        let (clock, faults) = (SimulatedClock::default(), Faults::new());
        let link = SimulatedLink::new(pendulum(line, &faults), clock.clone());
        let log = DriveLog::create(&folder.path().join("log"), Pendulum::new().spec()).unwrap();
        let plans = SimulatedPlanning::new(wild(), takes);
        let config = DriverConfig::default();
        let stop_after = config.stop_after;
        let envelope = envelope().init(PERIOD, 3).unwrap();
        let mut driver = config.init(link, envelope, plans, clock.clone()).unwrap().with_log(log);

        let (mut last, mut times) = (0.0_f32, Vec::new());
        for tick in 0..600 {
            trouble(tick, &faults, &clock);
            let done = driver.tick();
            assert_eq!(done.tick, tick);
            times.push(clock.now());
            let Some(action) = done.action else { panic!("{name}: stopped: {:?}", driver.report().stopped) };
            assert!(action[0].abs() <= 2.0 && (action[0] - last).abs() <= CHANGE, "{name}: {last} {action:?}");
            last = action[0];
        }
        // Never closer than a period, whatever the clock does: but where it goes back.
        for pair in times.windows(2) {
            assert!(pair[1] < pair[0] || pair[1] - pair[0] >= PERIOD - Duration::from_micros(1), "{name}: {pair:?}");
        }
        driver.emergency_stop().pull();
        let stopped = driver.tick();
        assert_eq!((stopped.tick, stopped.source, stopped.action), (600, Source::Stop, None), "{name}");
        faults.kill(false);
        driver.run(u64::MAX);
        assert!(driver.link().robot().is_stopped(), "{name}");
        // What acted on the robot was what was sent, within the limits from any command to any later one.
        let acted = driver.link().robot().acted().to_vec();
        let commands: Vec<(u64, f32)> = acted
            .iter()
            .filter_map(|(of, action)| match of {
                Acted::Command(of) => Some((*of, action[0])),
                _ => None,
            })
            .collect();
        assert!(commands.len() > 300, "{name}: {}", commands.len());
        for pair in commands.windows(2) {
            let periods = (pair[1].0 - pair[0].0) as f32;
            assert!((pair[1].1 - pair[0].1).abs() <= CHANGE * periods + 1e-5, "{name}: {pair:?}");
        }
        let report = driver.finish().unwrap();
        let ticks = rows(&folder.path().join("log/ticks.csv"));
        // Whole: a row for each control period, with what was sent.
        assert_eq!(ticks.len() as u64, report.ticks, "{name}");
        assert_eq!(report.stops, stop_after);
        for (i, row) in ticks.iter().enumerate() {
            assert_eq!((row.len(), row[0].parse()), (12, Ok(i)), "{name}: {row:?}");
        }
        for (of, action) in commands {
            assert_eq!(ticks[of as usize][9].parse(), Ok(action), "{name}");
        }
        let transitions = check_transitions(&folder.path().join("log/transitions.csv"));
        assert!(transitions > 250, "{name}: {transitions}");
        match name {
            "a perfect line" => {
                assert_eq!((report.refused, report.missed, report.older), (0, 0, report.failed_plans), "{report}");
                assert!(transitions > 590);
            }
            "a clock that jumps" => assert!(report.clock_jumps >= 12, "{report}"),
            "a robot whose clock jumps" => assert!(report.clock_jumps >= 8, "{report}"),
            "a planner that stalls" => assert!(report.older > 20 && report.safe > 100, "{report}"),
            "a sensor that gives NaN" => assert!(report.refused > 50 && report.safe > 10, "{report}"),
            "a link that is killed and restarted" => assert!(report.link_errors > 70, "{report}"),
            _ => {}
        }
    }
}

#[test]
fn the_same_run_twice_has_the_same_bits() {
    let run = || {
        let clock = SimulatedClock::default();
        let line = LineConfig { latency: ms(20), jitter: ms(60), loss: 0.1, seed: 9 };
        let link = SimulatedLink::new(pendulum(line, &Faults::new()), clock.clone());
        let plans = SimulatedPlanning::new(wild(), |tick| ms(20 + tick * 7 % 60));
        let mut driver = DriverConfig::default().init(link, envelope().init(PERIOD, 3).unwrap(), plans, clock).unwrap();
        let mut all = Vec::new();
        for _ in 0..200 {
            let tick = driver.tick();
            all.push((tick.source, tick.action.unwrap()[0].to_bits()));
        }
        (all, driver.newest().unwrap().obs.clone())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_late_plan_falls_back_to_the_one_before_and_then_to_the_safe_action() {
    let clock = SimulatedClock::default();
    let link = SimulatedLink::new(pendulum(LineConfig::default(), &Faults::new()), clock.clone());
    // A plan says for which control period each action is.
    let numbered = |request: &PlanRequest| Ok((0..4).map(|i| vec![(request.tick + i) as f32 * 0.01]).collect());
    let plans = SimulatedPlanning::new(numbered, |tick| if tick == 10 { ms(500) } else { ms(40) });
    let config = DriverConfig { reuse: 2, safe_action: SafeAction::Hold, ..DriverConfig::default() };
    let mut driver = config.init(link, envelope().init(PERIOD, 3).unwrap(), plans, clock).unwrap();
    let ticks: Vec<_> = (0..24).map(|_| driver.tick()).collect();
    let sources: Vec<Source> = ticks.iter().map(|tick| tick.source).collect();
    let late = [Source::OlderPlan(1), Source::OlderPlan(2)];
    assert_eq!(sources[0], Source::Waiting);
    assert!(sources[1..10].iter().all(|source| *source == Source::Plan), "{sources:?}");
    assert_eq!(sources[10..12], late);
    // Asked for in period 9, ready ten later: for long over. The one after it is for the period in which it comes.
    assert!(sources[12..20].iter().all(|source| *source == Source::Safe), "{sources:?}");
    // Planning is quicker than a period, and catches up with it.
    let caught_up = |source: &Source| matches!(source, Source::Plan | Source::OlderPlan(1));
    assert!(sources[20..].iter().all(caught_up) && sources[23] == Source::Plan, "{sources:?}");
    for tick in &ticks[1..12] {
        assert_eq!(tick.action.as_deref(), Some(&[tick.tick as f32 * 0.01][..]));
    }
    assert_eq!(ticks[15].action, ticks[11].action, "held");
}

/// Brakes a mass on a rail: `x'' = u`, by a feedback that is stable for the state as it is and not for one of three periods ago.
struct Feedback;

impl Agent for Feedback {
    fn act(&mut self, here: &mbrl_env::Situation<'_>, _: ActMode, _: &mut Rng) -> Result<Vec<f32>, AgentError> {
        Ok(vec![-40.0 * here.obs[0] - 11.0 * here.obs[1]])
    }
}

#[derive(Clone)]
struct Rail(mbrl_env::EnvSpec, [f32; 2]);

impl Rail {
    fn new() -> Self {
        use mbrl_env::{ActionSpace, BoxSpace, EnvSpec};
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 50.0).unwrap());
        Self(EnvSpec::new("rail", BoxSpace::unbounded(2), actions, 0.05), [1.0, 0.0])
    }
}

impl Env for Rail {
    fn spec(&self) -> &mbrl_env::EnvSpec {
        &self.0
    }
    fn reset(&mut self, _: Option<u64>) -> Result<Vec<f32>, mbrl_env::EnvError> {
        self.1 = [1.0, 0.0];
        Ok(self.1.to_vec())
    }
    fn step(&mut self, action: &[f32]) -> Result<mbrl_env::Step, mbrl_env::EnvError> {
        let [x, v] = self.1;
        self.1 = [x + 0.05 * v, v + 0.05 * action[0]];
        Ok(mbrl_env::Step::new(self.1, 0.0))
    }
}

/// How far from 0 the mass is in the last second of four, with a robot whose commands act so many periods late, or a line as slow.
fn rail(foresees: bool, delay: usize, latency: Duration) -> f32 {
    let clock = SimulatedClock::default();
    let world = World::from_env(Delay::actions(Rail::new(), delay));
    let line = LineConfig { latency, ..LineConfig::default() };
    let robot = StandIn::new(world, StandInConfig::default().with_line(line), Faults::new()).unwrap();
    let link = SimulatedLink::new(robot, clock.clone());
    let model = dynamics_fn(2, 1, &Device::flex(), |s, a| {
        let speed = s.clone().narrow(1, 1, 1);
        s + Tensor::cat(vec![speed * 0.05, a * 0.05], 1)
    });
    let foresight = if foresees { Foresight::Model(Box::new(model)) } else { Foresight::Off };
    let pilot = AgentPilot::new(Box::new(Feedback), foresight, Rng::new(0)).unwrap();
    let envelope = EnvelopeConfig::of_spec(&Rail::new().0).unwrap().init(PERIOD, 2).unwrap();
    let config = DriverConfig { delay, ..DriverConfig::default() };
    let plans = SimulatedPlanning::new(pilot, |_| ms(10));
    let mut driver = config.init(link, envelope, plans, clock).unwrap();
    let mut furthest = 0.0_f32;
    for tick in 0..80 {
        driver.tick();
        if tick >= 60 {
            furthest = furthest.max(driver.newest().unwrap().obs[0].abs());
        }
    }
    furthest
}

#[test]
fn a_plan_starts_where_the_robot_will_be_when_it_acts() {
    for (delay, latency) in [(0, ms(0)), (2, ms(0)), (0, ms(45)), (1, ms(60))] {
        let (with, without) = (rail(true, delay, latency), rail(false, delay, latency));
        assert!(with < 0.01, "delay {delay}, {latency:?}: {with}");
        assert!(without > 0.2, "delay {delay}, {latency:?}: {without}");
    }
}

/// Remembers how far its warm start was shifted before each plan.
#[derive(Default)]
struct Shifted {
    steps: usize,
    told: Arc<Mutex<Vec<usize>>>,
}

impl Planner for Shifted {
    fn plan(&mut self, _: &mbrl_env::Situation<'_>, _: &Problem<'_>, _: &mut Rng) -> Result<Plan, PlanError> {
        let mut told = self.told.lock().unwrap();
        told.push(std::mem::take(&mut self.steps));
        if told.len() == 4 {
            return Err(PlanError::NoFiniteReturn { population: 1, iteration: 0 });
        }
        Plan::new(vec![0.5; 3], [3, 1], 0.0, PlanStats::default())
    }
    fn advance(&mut self, executed: usize) {
        self.steps += executed;
    }
    fn reset(&mut self) {
        self.steps = 0;
    }
}

#[test]
fn a_warm_start_is_shifted_by_as_many_periods_as_the_last_plan_took() {
    let planner = Shifted::default();
    let told = Arc::clone(&planner.told);
    let mpc = Mpc::new(Box::new(planner), Replan::EveryStep).unwrap();
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
    let actions = mbrl_env::ActionSpace::Box(mbrl_env::BoxSpace::symmetric(1, 1.0).unwrap());
    let agent = MpcAgent::new(model, Goal::of_model(), actions, mpc);
    let mut pilot = AgentPilot::new(Box::new(agent), Foresight::Off, Rng::new(0)).unwrap();
    for (tick, begins) in [(5, true), (6, false), (9, false), (11, false), (12, false), (40, true), (42, false)] {
        let mut request = PlanRequest::default();
        (request.tick, request.obs, request.begins) = (tick, vec![0.0], begins);
        let planned = pilot.plan(&request).unwrap();
        // The fourth fails, and what is left of the third is for the period in which it is asked for.
        assert_eq!(planned.len(), if tick == 11 { 1 } else { 3 }, "{tick}");
    }
    assert_eq!(*told.lock().unwrap(), [0, 1, 3, 2, 1, 0, 2]);
}

#[test]
fn between_two_episodes_of_the_robot_it_rests_and_plans_anew() {
    let clock = SimulatedClock::default();
    let world = World::from_simulator(mbrl_env::TimeLimit::new(Pendulum::new(), 20).unwrap());
    let robot = StandIn::new(world, StandInConfig::default(), Faults::new()).unwrap();
    let link = SimulatedLink::new(robot, clock.clone());
    let begun = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&begun);
    let plans = move |request: &PlanRequest| {
        count.fetch_add(u64::from(request.begins), Ordering::SeqCst);
        // Of a past that is this episode's alone.
        assert!(!request.begins || request.past.obs.is_empty());
        Ok(vec![vec![1.0]; 5])
    };
    let plans = SimulatedPlanning::new(plans, |_| ms(10));
    let config = DriverConfig { many_episodes: true, ..DriverConfig::default() };
    let mut driver = config.init(link, envelope().init(PERIOD, 3).unwrap(), plans, clock).unwrap();
    let report = driver.run(100);
    // 20 steps and a reset: five beginnings, and four ends before which everything was planned for.
    assert_eq!((report.episodes, begun.load(Ordering::SeqCst)), (4, 5), "{report}");
    assert_eq!((report.older, report.safe, report.stops), (0, 0, 0), "{report}");
    assert_eq!(report.waiting, 5, "{report}");
    assert_eq!(driver.link().robot().returns().len(), 4);
}

/// A link that gives measurements from a list, one per call, and remembers what was sent.
struct Scripted(Vec<Measurement>, Arc<Mutex<Vec<Option<Vec<f32>>>>>);

impl Link for Scripted {
    fn send(&mut self, command: &mbrl_policy::realtime::SafeCommand) -> Result<(), mbrl_policy::realtime::LinkError> {
        self.1.lock().unwrap().push(command.action().map(<[f32]>::to_vec));
        Ok(())
    }
    fn receive(&mut self) -> Result<Option<Measurement>, mbrl_policy::realtime::LinkError> {
        Ok((!self.0.is_empty()).then(|| self.0.remove(0)))
    }
}

fn scripted(measured: Vec<Measurement>) -> (Driver<Scripted, PlanThread, SimulatedClock>, SimulatedClock) {
    let clock = SimulatedClock::default();
    let plans = PlanThread::start(|_: &PlanRequest| -> Result<Vec<Vec<f32>>, AgentError> { panic!("a bug") }).unwrap();
    let joint = mbrl_policy::realtime::JointLimits::new("hinge").with_velocity(2, 8.0);
    let envelope = EnvelopeConfig { joints: vec![joint], ..envelope() }.init(PERIOD, 3).unwrap();
    let driver = DriverConfig::default().init(Scripted(measured, Arc::default()), envelope, plans, clock.clone());
    (driver.unwrap(), clock)
}

#[test]
fn what_cannot_go_on_stops() {
    // Too fast.
    let (mut driver, _) = scripted(vec![Measurement::new(0, 0.0, [1.0, 0.0, 8.5])]);
    assert_eq!(driver.tick().source, Source::Stop);
    assert!(driver.report().stopped.as_ref().unwrap().contains("velocity of hinge = 8.5"));
    // Nothing measured any more.
    let (mut driver, _) = scripted(vec![Measurement::new(0, 0.0, [1.0, 0.0, 0.0])]);
    driver.tick();
    // Whoever plans has panicked: that is a stop as well, once it is known.
    let began = Instant::now();
    while driver.report().stopped.is_none() && began.elapsed() < Duration::from_secs(20) {
        driver.tick();
        thread::sleep(ms(1));
    }
    let reason = driver.report().stopped.clone().unwrap();
    assert!(reason.contains("planner's thread has ended") || reason.contains("no measurement for 11"), "{reason}");
    // The episode is over.
    let (mut driver, _) = scripted(vec![Measurement::new(0, 0.0, [1.0, 0.0, 0.0]).with_over(true)]);
    assert_eq!(driver.tick().source, Source::Stop);
    // Without any measurement it rests, and sends that as its heartbeat.
    let (mut driver, _) = scripted(vec![]);
    for _ in 0..50 {
        let tick = driver.tick();
        assert_eq!((tick.source, tick.action), (Source::Waiting, Some(vec![0.0])));
    }
    assert_eq!(driver.link().1.lock().unwrap().len(), 50);
}

#[test]
fn a_planner_that_stalls_does_not_hold_up_the_loop() {
    let asked = Arc::new(AtomicU64::new(0));
    let (count, (release, held)) = (Arc::clone(&asked), std::sync::mpsc::channel::<()>());
    let stalled = move |_: &PlanRequest| -> Result<Vec<Vec<f32>>, AgentError> {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = held.recv();
        Ok(vec![vec![0.0]])
    };
    let clock = SimulatedClock::default();
    let link = SimulatedLink::new(pendulum(LineConfig::default(), &Faults::new()), clock.clone());
    let plans = PlanThread::start(stalled).unwrap();
    let mut driver = DriverConfig::default().init(link, envelope().init(PERIOD, 3).unwrap(), plans, clock).unwrap();
    let report = driver.run(1000);
    assert_eq!((report.ticks, report.planned, report.stops), (1000, 0, 0));
    // It was asked once, and has not come back from it.
    assert!(asked.load(Ordering::SeqCst) <= 1);
    drop(release);
}

#[test]
fn over_a_socket_the_link_comes_back_after_it_was_killed_and_the_stop_arrives() {
    let faults = Faults::new();
    let line = LineConfig { jitter: ms(10), loss: 0.05, ..LineConfig::default() };
    let loopback = Loopback::start(pendulum(line, &faults), "127.0.0.1:0").unwrap();
    let link = SocketLink::connect(&loopback.address()).unwrap();
    assert_eq!((link.hello().name.as_str(), link.hello().obs, link.hello().actions), ("pendulum", 3, 1));
    let plans = PlanThread::start(|request: &PlanRequest| Ok(vec![vec![-0.3 * request.obs[2]]; 10])).unwrap();
    // A machine that is busy elsewhere must not fail the test: nothing stops but what is told to.
    let config = DriverConfig { stale_after: 1000, stop_after: 1001, ..DriverConfig::default() };
    let envelope = envelope().init(PERIOD, 3).unwrap();
    let mut driver = config.init(link, envelope, plans, MonotonicClock::start()).unwrap();
    let began = Instant::now();
    let until = |driver: &mut Driver<SocketLink, PlanThread, MonotonicClock>, measurements: u64| {
        while driver.report().measurements < measurements {
            driver.tick();
            assert!(began.elapsed() < Duration::from_secs(60), "{}", driver.report());
        }
    };
    until(&mut driver, 8);
    faults.kill(true);
    while driver.report().link_errors == 0 {
        driver.tick();
    }
    let (before, session) = (driver.report().measurements, driver.newest().unwrap().session);
    faults.kill(false);
    until(&mut driver, before + 8);
    assert!(driver.newest().unwrap().session > session);
    assert!(driver.report().planned > 0, "{}", driver.report());
    driver.emergency_stop().pull();
    for _ in 0..5 {
        assert_eq!(driver.tick().source, Source::Stop);
    }
    drop(driver);
    let robot = loopback.stop().unwrap();
    assert!(robot.is_stopped() && robot.acted().iter().any(|(of, _)| matches!(of, Acted::Command(_))));
}

#[test]
fn an_address_where_nobody_answers_is_named() {
    let error = SocketLink::connect("tcp://nowhere").unwrap_err().to_string();
    assert!(error.starts_with("link = tcp://nowhere: expected tcp://HOST:PORT"), "{error}");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = SocketLink::connect(&format!("127.0.0.1:{port}")).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[test]
fn a_log_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    DriveLog::create(folder.path(), Pendulum::new().spec()).unwrap().finish().unwrap();
    let error = DriveLog::create(folder.path(), Pendulum::new().spec()).unwrap_err().to_string();
    assert!(error.contains("transitions.csv"), "{error}");
}

/// A source that never has a plan.
#[derive(Debug)]
struct Nothing;

impl PlanSource for Nothing {
    fn ask(&mut self, _: PlanRequest, _: Duration) {}
    fn poll(
        &mut self,
        _: Duration,
    ) -> Result<Option<mbrl_policy::realtime::PlanReply>, mbrl_policy::realtime::PlannerGone> {
        Ok(None)
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let clock = SimulatedClock::default();
    let link = SimulatedLink::new(pendulum(LineConfig::default(), &Faults::new()), clock.clone());
    let config = DriverConfig { stale_after: 10, stop_after: 10, ..DriverConfig::default() };
    let error = config.init(link, envelope().init(PERIOD, 3).unwrap(), Nothing, clock).unwrap_err().to_string();
    assert_eq!(error, "stop_after = 10: expected more than stale_after = 10");
    let lossy = LineConfig { loss: 1.5, ..LineConfig::default() };
    let config = StandInConfig::default().with_line(lossy);
    let error = StandIn::new(World::from_simulator(Pendulum::new()), config, Faults::new()).unwrap_err().to_string();
    assert_eq!(error, "loss = 1.5: expected a share from 0 to 1");
}

/// A link that gives the measurements of each control period, and goes to the next with the command.
struct ByTick(std::collections::VecDeque<Vec<Measurement>>);

impl Link for ByTick {
    fn send(&mut self, _: &mbrl_policy::realtime::SafeCommand) -> Result<(), mbrl_policy::realtime::LinkError> {
        self.0.pop_front();
        Ok(())
    }
    fn receive(&mut self) -> Result<Option<Measurement>, mbrl_policy::realtime::LinkError> {
        Ok(self.0.front_mut().filter(|due| !due.is_empty()).map(|due| due.remove(0)))
    }
}

/// What came of measurements by control period: ticks, the requests for plans, and the transitions of the log, by episode: what was observed
/// first, and what acted (empty at the end).
struct Drove {
    ticks: Vec<mbrl_policy::realtime::Tick>,
    report: mbrl_policy::realtime::DriveReport,
    requests: Vec<PlanRequest>,
    episodes: Vec<Vec<(f32, String)>>,
}

/// Plans tell the control period that each action is for, in hundredths.
fn drove(config: DriverConfig, due: Vec<Vec<Measurement>>) -> Drove {
    let (clock, count) = (SimulatedClock::default(), due.len());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&requests);
    let numbered = move |request: &PlanRequest| {
        asked.lock().unwrap().push(request.clone());
        Ok((0..8).map(|i| vec![(request.tick + i) as f32 * 0.01]).collect())
    };
    let plans = SimulatedPlanning::new(numbered, |_| ms(10));
    let folder = tempfile::tempdir().unwrap();
    let log = DriveLog::create(&folder.path().join("log"), Pendulum::new().spec()).unwrap();
    let envelope = envelope().init(PERIOD, 3).unwrap();
    let mut driver = config.init(ByTick(due.into()), envelope, plans, clock).unwrap().with_log(log);
    let ticks = (0..count).map(|_| driver.tick()).collect();
    let report = driver.finish().unwrap();
    let mut episodes: Vec<Vec<(f32, String)>> = Vec::new();
    for row in rows(&folder.path().join("log/transitions.csv")) {
        let episode: usize = row[0].parse().unwrap();
        episodes.resize(episodes.len().max(episode + 1), Vec::new());
        episodes[episode].push((row[3].parse().unwrap(), row[6].clone()));
    }
    let requests = std::mem::take(&mut *requests.lock().unwrap());
    Drove { ticks, report, requests, episodes }
}

/// The measurement with this number, which is also what it observes.
fn numbered(sequence: u64) -> Measurement {
    Measurement::new(sequence, sequence as f64 * PERIOD.as_secs_f64(), [sequence as f32, 0.0, 0.0])
}

#[test]
fn old_measurements_are_planned_from_then_safe_and_then_a_stop() {
    let config = DriverConfig { stale_after: 3, stop_after: 6, reuse: 20, ..DriverConfig::default() };
    let mut due = vec![vec![numbered(0)]];
    due.resize(9, Vec::new());
    let Drove { ticks, requests, report, .. } = drove(config, due);
    let sources: Vec<Source> = ticks.iter().map(|tick| tick.source).collect();
    let [waiting, plan, safe, stop] = [Source::Waiting, Source::Plan, Source::Safe, Source::Stop];
    assert_eq!(sources, [waiting, plan, plan, plan, safe, safe, safe, stop, stop]);
    // Beyond three periods nobody plans from it.
    assert_eq!(requests.iter().map(|request| request.tick).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(report.stopped.as_deref(), Some("no measurement for 7 control periods"));
}

#[test]
fn commands_under_way_and_those_that_acted_are_told_by_the_delay() {
    // A robot that names its command, and one that does not, both of which act a period later than they tell.
    for names in [true, false] {
        let acted = |tick: u64| match tick.checked_sub(1) {
            Some(before) if names => Acted::Command(before),
            _ => Acted::Unknown,
        };
        let due = (0..12).map(|tick| vec![numbered(tick).with_acted(acted(tick))]).collect();
        let Drove { requests, episodes, ticks, .. } = drove(DriverConfig { delay: 1, ..DriverConfig::default() }, due);
        let sent: Vec<f32> = ticks.iter().map(|tick| tick.action.as_ref().unwrap()[0]).collect();
        assert!((sent[5] - 0.05).abs() < 1e-6, "a plan's: {sent:?}");
        for request in &requests[2..] {
            let now = request.tick as usize - 1;
            assert_eq!(request.pending, [[sent[now - 1]], [sent[now]]], "names: {names}, period {now}");
        }
        // Between the observations t and t + 1 the command of t − 1 acted.
        let [episode] = &episodes[..] else { panic!("{episodes:?}") };
        assert!(episode.len() >= 10, "{episode:?}");
        for (seen, action) in &episode[..episode.len() - 1] {
            assert_eq!(action.parse::<f32>().unwrap(), sent[*seen as usize - 1], "names: {names}, {episode:?}");
        }
        assert_eq!(episode[episode.len() - 1].1, "");
    }
}

#[test]
fn only_what_follows_becomes_a_transition() {
    let measured = |sequence: u64| numbered(sequence);
    let due = vec![
        // All that came at once is taken in.
        (0..3).map(measured).collect(),
        vec![measured(3)],
        // Twice, and overtaken.
        vec![measured(3), measured(1), measured(4)],
        // One is lost.
        vec![measured(6)],
        vec![measured(7).with_over(true)],
        // The next episode begins.
        vec![measured(8)],
        vec![measured(9)],
        // The robot held still by itself.
        vec![measured(10).with_acted(Acted::Itself)],
        vec![measured(11)],
        // It was switched on anew.
        vec![measured(0).in_session(1)],
        vec![measured(1).in_session(1)],
    ];
    let Drove { episodes, report, requests, .. } =
        drove(DriverConfig { many_episodes: true, ..DriverConfig::default() }, due);
    let seen: Vec<Vec<f32>> = episodes.iter().map(|episode| episode.iter().map(|row| row.0).collect()).collect();
    // The end of an episode is told by the row before it, which says that it terminated; so the last observation has a row of its own.
    // Of the first two nobody knows what acted on them.
    assert_eq!(seen, [vec![2.0, 3.0, 4.0], vec![6.0, 7.0], vec![8.0, 9.0], vec![10.0, 11.0], vec![0.0, 1.0]]);
    assert_eq!((report.measurements, report.episodes), (13, 1), "{report}");
    // A past never reaches over a gap.
    let past = |at: usize| requests[at].past.obs.len();
    assert_eq!((requests[0].obs[0], [0, 1, 2, 3].map(past)), (2.0, [0, 1, 2, 0]), "{requests:?}");
}

#[test]
fn the_older_what_is_known_the_earlier_it_brakes() {
    let drive = mbrl_policy::realtime::Drive { action: 0, acceleration: 20.0, braking: 5.0 };
    let joint = mbrl_policy::realtime::JointLimits::new("hinge").with_velocity(2, 8.0).with_drive(drive);
    let wants = |acted: u64| {
        let clock = SimulatedClock::default();
        let envelope = EnvelopeConfig { joints: vec![joint.clone()], ..envelope() }.init(PERIOD, 3).unwrap();
        let plans = SimulatedPlanning::new(|_: &PlanRequest| Ok(vec![vec![2.0]; 8]), |_| ms(10));
        let measured = |tick: u64, acted| {
            let obs = [1.0, 0.0, 1.0];
            vec![Measurement::new(tick, tick as f64 * PERIOD.as_secs_f64(), obs).with_acted(Acted::Command(acted))]
        };
        let mut due: Vec<Vec<Measurement>> = (0..10).map(|tick: u64| measured(tick, tick.saturating_sub(1))).collect();
        due.push(measured(10, acted));
        let mut driver = DriverConfig::default().init(ByTick(due.into()), envelope, plans, clock).unwrap();
        let last = (0..11).map(|_| driver.tick()).last().unwrap();
        (last.action.unwrap()[0], last.intervention.braked)
    };
    // The same motion, but two periods ago: by now it may be as fast as it may become.
    assert_eq!(wants(9), (2.0, false));
    let (action, braked) = wants(7);
    assert!(action < 1.0 && braked, "{action}");
}

#[test]
fn the_report_says_what_was_missed_late_and_first_to_fail() {
    let mut report = mbrl_policy::realtime::DriveReport::default();
    (report.planned, report.older, report.safe, report.missed, report.waiting) = (5, 1, 2, 2, 7);
    assert_eq!(report.planned_share(), 0.5);
    report.late = vec![3.0, 1.0, 2.0];
    // The smallest that a half, or all, lie at or below.
    assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| report.late_quantile(share)), [1.0, 2.0, 3.0, 3.0]);

    let clock = SimulatedClock::default();
    let mut failures = 0;
    let fails = move |_: &PlanRequest| {
        failures += 1;
        Err(AgentError::Config { field: "plan", value: failures.to_string(), rule: "a plan" })
    };
    let plans = SimulatedPlanning::new(fails, |_| ms(10));
    let due: Vec<Vec<Measurement>> = (0..9).map(|tick| vec![numbered(tick)]).collect();
    let envelope = envelope().init(PERIOD, 3).unwrap();
    let mut driver = DriverConfig::default().init(ByTick(due.into()), envelope, plans, clock.clone()).unwrap();
    (0..3).for_each(|_| drop(driver.tick()));
    // Away for 2.4 periods beyond the next one's time: two are missed, and the command is late by the rest.
    clock.jump_to(clock.now() + PERIOD.mul_f64(3.4));
    let tick = driver.tick();
    assert_eq!((tick.missed, driver.report().clock_jumps), (2, 0));
    assert!((tick.late.as_secs_f64() - 0.4 * PERIOD.as_secs_f64()).abs() < 1e-6, "{tick:?}");
    // Away for longer than any measurement may be: as if the clock had jumped.
    clock.jump_to(clock.now() + PERIOD * 30 + ms(10));
    driver.tick();
    assert_eq!((driver.report().missed, driver.report().clock_jumps), (2 + 29, 1));
    assert!(driver.report().failed_plans > 1);
    let first = driver.report().plan_failure.clone().unwrap();
    assert!(first.starts_with("plan = 1:"), "{first}");
}
