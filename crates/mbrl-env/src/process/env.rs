//! The environment that a process serves.

use std::{fmt, time::Duration};

use super::{
    ProcessConfig, ProcessError, ProcessFault,
    child::{Deadline, Server},
    protocol::{self, Reader, ToldSpec},
};
use crate::{ActionSpace, Env, EnvError, EnvSpec, Info, Step, check_action, tasks::Phase};

/// An environment in another process. It is not a simulator: its state cannot be saved.
///
/// Observations arrive as doubles and are rounded to `f32` once; rewards stay as they arrive. Actions are clipped to their bounds
/// before they are sent.
///
/// After an error the process is gone, and `reset` with a seed starts it again; only a number that is not finite
/// ([`ProcessFault::NonFinite`]) ends just the episode. Dropping the environment asks the process to exit, and ends it and
/// all that it started if it does not.
pub struct ProcessEnv {
    config: ProcessConfig,
    spec: EnvSpec,
    told_max_steps: Option<u32>,
    /// `None` after an error.
    server: Option<Server>,
    phase: Phase,
    /// Whether its generator was ever seeded.
    is_seeded: bool,
    /// Steps of this episode, for messages.
    steps: u64,
    out: Vec<u8>,
    names: Names,
}

/// The names of an info, which rarely change.
#[derive(Default)]
struct Names {
    blob: Vec<u8>,
    names: Vec<String>,
}

impl fmt::Debug for ProcessEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessEnv")
            .field("command", &self.config.words())
            .field("spec", &self.spec)
            .field("is_running", &self.server.is_some())
            .finish()
    }
}

impl ProcessEnv {
    pub(super) fn start(config: ProcessConfig) -> Result<Self, EnvError> {
        let mut out = Vec::new();
        let (server, spec) = start(&config, &mut out)?;
        let told_max_steps = spec.max_steps;
        Ok(Self {
            config,
            spec,
            told_max_steps,
            server: Some(server),
            phase: Phase::Unbegun,
            is_seeded: false,
            steps: 0,
            out,
            names: Names::default(),
        })
    }

    /// The step limit that the process itself reports.
    pub(super) fn told_max_steps(&self) -> Option<u32> {
        self.told_max_steps
    }

    /// Sends the contents of `out` and reads the answer with `read`; any error ends the process.
    fn ask<T>(
        &mut self,
        asked: impl FnOnce(u64) -> String,
        expected: (u8, &'static str),
        read: impl FnOnce(&EnvSpec, &mut Names, &[u8]) -> Result<T, ProcessFault>,
    ) -> Result<T, EnvError> {
        let Some(server) = &mut self.server else {
            return Err(error(&self.config, asked(self.steps), ProcessFault::Lost, String::new()));
        };
        let deadline = Deadline::after(self.config.timeout, "timeout");
        let answer = exchange(server, &self.out, deadline, expected)
            .and_then(|payload| read(&self.spec, &mut self.names, payload));
        answer.map_err(|fault| {
            let goes_on = matches!(fault, ProcessFault::NonFinite { .. });
            self.phase = if goes_on { Phase::Over } else { Phase::Unbegun };
            let said = if goes_on { String::new() } else { self.server.take().map_or(String::new(), last_words) };
            error(&self.config, asked(self.steps), fault, said)
        })
    }
}

/// Starts the process and reads its specification.
fn start(config: &ProcessConfig, out: &mut Vec<u8>) -> Result<(Server, EnvSpec), EnvError> {
    let failed = |fault, said| error(config, "at its start".into(), fault, said);
    let stop = Duration::from_secs_f64(config.stop_timeout);
    let spawned = config.command().and_then(|command| Server::spawn(command, stop, config.show_stderr));
    let mut server = spawned.map_err(|fault| failed(fault, String::new()))?;
    let mut greet = || {
        let deadline = Deadline::after(config.start_timeout, "start_timeout");
        protocol::begin(out, protocol::HELLO);
        out.extend_from_slice(
            format!(r#"{{"protocols": [{}], "program": "mbrl {}"}}"#, protocol::PROTOCOL, env!("CARGO_PKG_VERSION"))
                .as_bytes(),
        );
        protocol::end(out);
        server.send(out, deadline)?;
        server.hello(deadline)?;
        let payload = match server.receive(deadline)? {
            (protocol::SPEC, payload) => payload,
            other => return Err(refused(other, "its specification")),
        };
        config.named(ToldSpec::read(payload)?.spec(config.control_period)?)
    };
    match greet() {
        Ok(spec) => Ok((server, spec)),
        Err(fault) => Err(failed(fault, last_words(server))),
    }
}

/// Ends a process that failed, and reports its output.
fn last_words(mut server: Server) -> String {
    server.abandon();
    server.said()
}

fn error(config: &ProcessConfig, asked: String, fault: ProcessFault, said: String) -> EnvError {
    let said = if said.contains("No module named 'mbrl_env'") {
        said + "\n(the Python package mbrl_env comes with mbrl: `pip install crates/mbrl-env/python`, or PYTHONPATH=crates/mbrl-env/python)"
    } else {
        said
    };
    EnvError::Process(Box::new(ProcessError { command: config.words(), asked, fault, said }))
}

/// A request and its answer's payload.
fn exchange<'a>(
    server: &'a mut Server,
    request: &[u8],
    deadline: Deadline,
    (kind, expected): (u8, &'static str),
) -> Result<&'a [u8], ProcessFault> {
    if server.has_more() {
        // Unrequested data would be taken for the answer.
        let found = match server.receive(deadline)? {
            (protocol::ERROR, payload) => return Err(raised(payload)),
            (kind, _) => protocol::kind_name(kind),
        };
        return Err(ProcessFault::Order { found, expected: "no message before a request" });
    }
    server.send(request, deadline)?;
    match server.receive(deadline)? {
        (found, payload) if found == kind => Ok(payload),
        other => Err(refused(other, expected)),
    }
}

fn raised(payload: &[u8]) -> ProcessFault {
    ProcessFault::Raised { traceback: String::from_utf8_lossy(payload).into_owned() }
}

/// The fault of an answer of another kind.
fn refused((kind, payload): (u8, &[u8]), expected: &'static str) -> ProcessFault {
    match kind {
        protocol::ERROR => raised(payload),
        other => ProcessFault::Order { found: protocol::kind_name(other), expected },
    }
}

/// An observation of so many numbers, all finite.
fn observation(spec: &EnvSpec, reader: &mut Reader<'_>, count: usize) -> Result<Vec<f32>, ProcessFault> {
    let expected = spec.obs.width();
    if count != expected {
        return Err(ProcessFault::Width { expected, actual: count });
    }
    let obs = reader.rounded(count)?;
    match obs.iter().position(|number| !number.is_finite()) {
        None => Ok(obs),
        Some(index) => {
            let what = format!("observation `{}`", spec.column_names()[index]);
            Err(ProcessFault::NonFinite { what, value: f64::from(obs[index]) })
        }
    }
}

/// The outcome of a step.
fn transition(spec: &EnvSpec, names: &mut Names, payload: &[u8]) -> Result<Step, ProcessFault> {
    let mut reader = Reader(payload);
    let (flags, reward, count) = (reader.u8()?, reader.f64()?, reader.count()?);
    if flags > 3 {
        return Err(ProcessFault::Malformed {
            reason: format!("flags {flags}, expected terminated (1), truncated (2) or both"),
        });
    }
    let obs = observation(spec, &mut reader, count)?;
    if !reward.is_finite() {
        return Err(ProcessFault::NonFinite { what: "reward".into(), value: reward });
    }
    let (count, length) = (reader.count()?, reader.count()?);
    let blob = reader.take(length)?;
    if blob != names.blob {
        let text = String::from_utf8_lossy(blob);
        names.names = if blob.is_empty() { Vec::new() } else { text.split('\n').map(str::to_owned).collect() };
        names.blob = blob.to_vec();
    }
    if names.names.len() != count {
        let reason = format!("{count} numbers of information under {} names", names.names.len());
        return Err(ProcessFault::Malformed { reason });
    }
    let mut info = Info::new();
    for name in &names.names {
        let value = reader.f64()?;
        if value.is_finite() {
            info.insert(name.clone().into(), value);
        }
    }
    reader.finish()?;
    let mut step = Step::new(obs, reward).with_terminated(flags & 1 != 0).with_truncated(flags & 2 != 0);
    step.info = info;
    Ok(step)
}

impl Env for ProcessEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        let asked = |_| seed.map_or("a reset without a seed".to_owned(), |seed| format!("a reset with seed {seed}"));
        if self.server.is_none() && seed.is_some() {
            let (server, spec) = start(&self.config, &mut self.out)?;
            if spec != self.spec {
                let reason = format!("{spec:?} where {:?} was", self.spec);
                return Err(error(&self.config, asked(0), ProcessFault::Changed { reason }, last_words(server)));
            }
            self.server = Some(server);
        }
        // Before the first seed an environment's generator is that of seed 0.
        let seed = seed.or((!self.is_seeded).then_some(0));
        protocol::begin(&mut self.out, protocol::RESET);
        self.out.push(u8::from(seed.is_some()));
        self.out.extend_from_slice(&seed.unwrap_or(0).to_le_bytes());
        protocol::end(&mut self.out);
        let obs = self.ask(asked, (protocol::OBSERVATION, "the observation of a reset"), |spec, _, payload| {
            let mut reader = Reader(payload);
            let count = reader.count()?;
            let obs = observation(spec, &mut reader, count)?;
            reader.finish()?;
            Ok(obs)
        })?;
        (self.phase, self.is_seeded, self.steps) = (Phase::Running, true, 0);
        Ok(obs)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        self.phase.require_running(&self.spec.name)?;
        protocol::begin(&mut self.out, protocol::STEP);
        match &self.spec.actions {
            ActionSpace::Box(space) => {
                for ((number, low), high) in action.iter().zip(space.low()).zip(space.high()) {
                    self.out.extend_from_slice(&number.clamp(*low, *high).to_le_bytes());
                }
            }
            space @ ActionSpace::Discrete(_) => {
                if !space.contains(action) {
                    return Err(EnvError::Config {
                        field: "action",
                        value: action[0].to_string(),
                        rule: "a whole number from 0 to one less than there are actions",
                    });
                }
                self.out.extend_from_slice(&action[0].to_le_bytes());
            }
        }
        protocol::end(&mut self.out);
        self.steps += 1;
        let asked = |steps| format!("step {steps} of an episode");
        let step = self.ask(asked, (protocol::TRANSITION, "the outcome of a step"), transition)?;
        if step.episode_over() {
            self.phase = Phase::Over;
        }
        Ok(step)
    }
}

impl Drop for ProcessEnv {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            protocol::begin(&mut self.out, protocol::CLOSE);
            protocol::end(&mut self.out);
            server.stop(&self.out);
        }
    }
}
