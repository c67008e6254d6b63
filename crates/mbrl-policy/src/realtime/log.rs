//! All commands and measurements of a robot, in files.

use std::{
    error::Error as _,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mbrl_env::EnvSpec;

use super::DriveError;

/// Files of what passed between a driver and a robot, written by a thread of its own: a slow disk does not hold up the control loop.
///
/// - `transitions.csv` is what `mbrl fit` reads: an observation per row, and the command that acted on it. Only what is certain
///   becomes a transition; where a measurement was lost, or the robot held still by itself, an episode ends and the next begins.
/// - `ticks.csv` has a row per command: when it left, what was wanted and what was sent, from which plan, what the envelope changed, and events
///   such as missed control periods.
///
/// Both are written out at least once a second, so that a kill loses no more than that, and a full disk is noticed as soon: the driver then stops
/// the robot.
#[derive(Debug)]
pub struct DriveLog {
    folder: PathBuf,
    /// What could not be written, once something could not.
    failure: Arc<OnceLock<String>>,
    rows: mpsc::Sender<Row>,
    writer: JoinHandle<Result<(), DriveError>>,
}

#[derive(Debug)]
enum Row {
    Tick(String),
    Transition(String),
}

impl DriveLog {
    /// Begins the files in a folder, which is created if it does not exist.
    ///
    /// # Errors
    /// [`DriveError::Log`] where a file cannot be created, or exists already: a log is never overwritten.
    pub fn create(folder: &Path, spec: &EnvSpec) -> Result<Self, DriveError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DriveError::Log { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let begin = |name: &str, head: &str| {
            let path = folder.join(name);
            let file = File::create_new(&path).map_err(failed(&path))?;
            let mut file = BufWriter::new(file);
            file.write_all(head.as_bytes()).map_err(failed(&path))?;
            Ok::<_, DriveError>((path, file))
        };
        let transitions = begin("transitions.csv", &transitions_head(spec))?;
        let ticks = begin("ticks.csv", &ticks_head(spec))?;
        Self::write_to(folder, transitions, ticks)
    }

    fn write_to(
        folder: &Path,
        transitions: (PathBuf, BufWriter<File>),
        ticks: (PathBuf, BufWriter<File>),
    ) -> Result<Self, DriveError> {
        let (sender, rows) = mpsc::channel();
        let failure = Arc::new(OnceLock::new());
        let told = failure.clone();
        let work = move || {
            write(&rows, transitions, ticks).inspect_err(|error| {
                let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
                told.get_or_init(|| format!("{error}{cause}"));
            })
        };
        let writer = thread::Builder::new().name("drive log".into()).spawn(work);
        let writer = writer.map_err(|source| DriveError::Log { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), failure, rows: sender, writer })
    }

    /// What could not be written, with its cause; `None` while all could.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// Where the files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn tick(&self, row: String) {
        // A writer that failed has said so.
        let _ = self.rows.send(Row::Tick(row));
    }

    pub(super) fn transition(&self, row: String) {
        let _ = self.rows.send(Row::Transition(row));
    }

    /// Writes what is left and waits until it is on the disk.
    ///
    /// # Errors
    /// [`DriveError::Log`] for the first thing that could not be written.
    pub fn finish(self) -> Result<(), DriveError> {
        let Self { folder, rows, writer, .. } = self;
        drop(rows);
        let panicked = |_| DriveError::Log { path: folder, source: io::Error::other("the writer panicked") };
        writer.join().map_err(panicked)?
    }
}

fn write(
    rows: &mpsc::Receiver<Row>,
    mut transitions: (PathBuf, BufWriter<File>),
    mut ticks: (PathBuf, BufWriter<File>),
) -> Result<(), DriveError> {
    fn named<T>(path: &Path, done: io::Result<T>) -> Result<T, DriveError> {
        done.map_err(|source| DriveError::Log { path: path.to_owned(), source })
    }
    const OFTEN: Duration = Duration::from_secs(1);
    let mut flushed = Instant::now();
    loop {
        let row = rows.recv_timeout(OFTEN);
        match &row {
            Ok(Row::Tick(row)) => named(&ticks.0, writeln!(ticks.1, "{row}"))?,
            Ok(Row::Transition(row)) => named(&transitions.0, writeln!(transitions.1, "{row}"))?,
            Err(_) => {}
        }
        let ended = matches!(row, Err(RecvTimeoutError::Disconnected));
        if ended || flushed.elapsed() >= OFTEN {
            for (path, file) in [&mut transitions, &mut ticks] {
                named(path, file.flush())?;
            }
            flushed = Instant::now();
        }
        if ended {
            for (path, file) in [&transitions, &ticks] {
                named(path, file.get_ref().sync_all())?;
            }
            return Ok(());
        }
    }
}

/// What the numbered columns are, as comments.
fn legend(spec: &EnvSpec) -> String {
    let mut text = format!("# {}, {} s per step\n", spec.name, spec.control_period);
    for (what, names) in [("obs", spec.column_names()), ("action", spec.action_names())] {
        for (i, name) in names.iter().enumerate() {
            let _ = writeln!(text, "# {what}_{i} = {}", name.replace('\n', " "));
        }
    }
    text
}

fn columns(what: &str, count: usize) -> String {
    (0..count).fold(String::new(), |mut text, i| {
        let _ = write!(text, ",{what}_{i}");
        text
    })
}

fn transitions_head(spec: &EnvSpec) -> String {
    let (obs, actions) = (columns("obs", spec.obs.width()), columns("action", spec.actions.width()));
    format!("{}episode,step,time{obs}{actions},terminated\n", legend(spec))
}

fn ticks_head(spec: &EnvSpec) -> String {
    let width = spec.actions.width();
    let (wanted, sent) = (columns("wanted", width), columns("sent", width));
    format!("{}tick,time,late_ms,source,plan_age,plan_ms,measurement,age{wanted}{sent},envelope,event\n", legend(spec))
}

/// Numbers of a row, each with a comma before it; as many empty fields where there are none.
pub(super) fn fields(values: Option<&[f32]>, width: usize) -> String {
    match values {
        Some(values) => values.iter().fold(String::new(), |mut text, value| {
            let _ = write!(text, ",{value}");
            text
        }),
        None => ",".repeat(width),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A log both of whose files are on a full disk.
    fn on_a_full_disk() -> DriveLog {
        let full = || {
            let path = PathBuf::from("/dev/full");
            let file = File::options().write(true).open(&path).unwrap();
            (path, BufWriter::new(file))
        };
        DriveLog::write_to(Path::new("drive"), full(), full()).unwrap()
    }

    #[test]
    fn a_full_disk_is_known_while_the_drive_goes_on() {
        let log = on_a_full_disk();
        assert_eq!(log.failure(), None);
        log.tick("0,0.0".to_owned());
        let began = Instant::now();
        while log.failure().is_none() && began.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(5));
        }
        let failure = log.failure().unwrap();
        assert!(failure.starts_with("/dev/full: ") && failure.contains("No space left"), "{failure}");
        assert!(matches!(log.finish(), Err(DriveError::Log { .. })));
    }

    #[test]
    fn a_drive_whose_log_is_lost_is_stopped() {
        use mbrl_env::{Env, World, tasks::Pendulum};

        use crate::realtime::{
            DriverConfig, EnvelopeConfig, Faults, PlanRequest, SimulatedClock, SimulatedLink, SimulatedPlanning,
            StandIn, StandInConfig,
        };

        let (clock, world) = (SimulatedClock::default(), World::from_simulator(Pendulum::new()));
        let envelope = EnvelopeConfig::of_spec(world.spec()).unwrap().init(Duration::from_millis(50), 3).unwrap();
        let robot = StandIn::new(world, StandInConfig::default(), Faults::new()).unwrap();
        let plans = SimulatedPlanning::new(|_: &PlanRequest| Ok(vec![vec![0.0]]), |_| Duration::from_millis(10));
        let driver = DriverConfig::default().init(SimulatedLink::new(robot, clock.clone()), envelope, plans, clock);
        let mut driver = driver.unwrap().with_log(on_a_full_disk());
        let began = Instant::now();
        while driver.report().stopped.is_none() && began.elapsed() < Duration::from_secs(30) {
            driver.tick();
            thread::sleep(Duration::from_millis(5));
        }
        let reason = driver.report().stopped.clone().unwrap();
        assert!(reason.starts_with("/dev/full: the log cannot be written"), "{reason}");
        driver.run(20);
        assert!(driver.link().robot().is_stopped());
        assert!(driver.finish().is_err());
    }
}
