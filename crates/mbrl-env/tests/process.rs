//! Environments in other processes: what they give is what Python gives, and whatever they do wrong is an error in time.
//!
//! Needs `python3`, of its standard library alone; where there is none, each test prints so and passes.
#![cfg(unix)]

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use mbrl_env::{
    ActionSpace, Env, EnvError, Field, FieldKind, check,
    process::{FieldConfig, ProcessConfig, ProcessEnv, ProcessError, ProcessFault},
    tasks::{self, Options},
};
use serde_json::json;

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");

/// Whether there is a Python; says so where there is none.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: python3 is not installed");
    }
    found
}

/// A folder with `env.py`, and the configuration that runs it. Waits are short, so that tests are.
fn config(script: &str) -> (tempfile::TempDir, ProcessConfig) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("env.py"), script).unwrap();
    let config = ProcessConfig {
        command: vec!["python3".into(), "env.py".into()],
        directory: Some(folder.path().to_owned()),
        env: [("PYTHONPATH".to_owned(), SHIM.to_owned())].into(),
        start_timeout: 30.0,
        timeout: 30.0,
        stop_timeout: 1.0,
        ..ProcessConfig::default()
    };
    (folder, config)
}

/// A point on a line that is pushed. `{step}` and `{reset}` are lines of Python that come first in those methods.
fn line(reset: &str, step: &str) -> String {
    format!(
        r#"
import os, signal, subprocess, sys, time
from mbrl_env import field, serve

class Line:
    fields = [field("x", "m"), field("v", "m/s")]
    action_fields = ["force"]
    action_low, action_high = -1.0, 1.0
    control_period, max_steps = 0.1, 20

    def reset(self, seed=None):
        {reset}
        self.x, self.v = (0.1 if seed is None else (seed % 7) / 7.0), 0.0
        self.steps = 0
        return [self.x, self.v]

    def step(self, action):
        self.steps += 1
        {step}
        # With NumPy at hand an action is an array of single precision.
        self.v += 0.1 * float(action[0])
        self.x += 0.1 * self.v
        return [self.x, self.v], -self.x**2, abs(self.x) > 2.0, False, {{"distance": abs(self.x)}}

serve(Line)
"#
    )
}

/// The protocol by hand: `hello()` greets, `send(kind, payload)` writes a frame, `ask()` reads one.
fn by_hand(script: &str) -> String {
    let spec = r#"{"protocol": 1, "name": "hand", "observation": {"fields": [{"name": "x"}], "low": [null], "high": [null]},
        "action": {"kind": "discrete", "n": 2, "fields": [{"name": "push"}]}, "control_period": 0.1, "max_steps": 5}"#;
    format!(
        r#"
import os, struct, sys, time
MAGIC = b"\x89mbrl-env\r\n"
SPEC = b'''{spec}'''
def write(data):
    while data:
        data = data[os.write(1, data):]
def send(kind, payload):
    write(struct.pack("<IB", len(payload) + 1, kind) + payload)
def ask():
    length, kind = struct.unpack("<IB", os.read(0, 5))
    return kind, os.read(0, length - 1) if length > 1 else b""
def hello(spec=SPEC):
    ask()
    write(MAGIC)
    send(17, spec)
OBS = struct.pack("<Id", 1, 0.5)
STEP = struct.pack("<BdIdII", 0, 1.0, 1, 0.25, 0, 0)
{script}
"#
    )
}

fn process_error(error: EnvError) -> ProcessError {
    match error {
        EnvError::Process(error) => *error,
        other => panic!("{other:?}"),
    }
}

/// The error of starting a script.
#[track_caller]
fn fails_to_start(script: &str, change: impl FnOnce(&mut ProcessConfig)) -> ProcessError {
    let (_folder, mut config) = config(script);
    change(&mut config);
    let began = Instant::now();
    let error = process_error(config.init().expect_err("an error"));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}: {error}", began.elapsed());
    assert_eq!(error.asked, "at its start");
    error
}

/// The error of a reset and up to three steps.
#[track_caller]
fn fails(script: &str) -> ProcessError {
    fails_within(20.0, script)
}

/// The same of a script that never answers.
#[track_caller]
fn hangs(script: &str) -> ProcessError {
    fails_within(2.0, script)
}

#[track_caller]
fn fails_within(timeout: f64, script: &str) -> ProcessError {
    let (_folder, mut config) = config(script);
    config.timeout = timeout;
    let mut env = config.init().unwrap();
    let began = Instant::now();
    let action = [0.0; 1];
    let error = env.reset(Some(1)).and_then(|_| {
        for _ in 0..3 {
            env.step(&action)?;
        }
        Ok(())
    });
    let error = process_error(error.expect_err("an error"));
    assert!(began.elapsed().as_secs_f64() < timeout + 8.0, "{:?}: {error}", began.elapsed());
    assert!(matches!(env.step(&action), Err(EnvError::NeedsReset { .. })));
    let goes_on = matches!(error.fault, ProcessFault::NonFinite { .. });
    if !goes_on {
        // It is gone, and a start without a seed cannot go on.
        assert!(matches!(process_error(env.reset(None).unwrap_err()).fault, ProcessFault::Lost));
    }
    let (told, fault) = (error.to_string(), EnvError::Process(Box::new(error)));
    assert_eq!((fault.is_breakdown(), fault.is_external()), (goes_on, true), "{told}");
    process_error(fault)
}

macro_rules! assert_fault {
    ($error:expr, $fault:pat, $($word:expr),+) => {{
        let error: ProcessError = $error;
        assert!(matches!(error.fault, $fault), "{error:?}");
        let told = format!("{error}");
        for word in [$($word),+] {
            assert!(told.contains(word), "`{word}` is missing in: {told}");
        }
    }};
}

#[test]
fn a_class_of_ones_own_is_an_environment() {
    if !has_python() {
        return;
    }
    let (_folder, config) = config(&line("", ""));
    let mut task = config.task().unwrap();
    assert!(task.env.simulator().is_none() && task.reward.is_none() && task.termination.is_none());
    let spec = task.env.spec();
    assert_eq!((&*spec.name, spec.control_period, spec.max_steps), ("Line", 0.1, Some(20)));
    assert_eq!(spec.fields, [Field::linear("x", "m"), Field::linear("v", "m/s")]);
    assert_eq!(spec.action_names(), ["force"]);
    check::check_env(&mut task.env).unwrap();
    // The first episode: x of seed 3, pushed by 1; the time limit cuts it.
    assert_eq!(task.env.reset(Some(3)).unwrap(), [3.0 / 7.0, 0.0]);
    let (mut x, mut v) = (3.0_f64 / 7.0, 0.0_f64);
    for step in 1..=20 {
        // Beyond the bounds is clipped.
        let found = task.env.step(&[if step % 2 == 0 { -0.5 } else { 9.0 }]).unwrap();
        v += 0.1 * if step % 2 == 0 { -0.5 } else { 1.0 };
        x += 0.1 * v;
        assert_eq!(found.obs, [x as f32, v as f32]);
        assert_eq!(found.reward.to_bits(), (-(x * x)).to_bits());
        assert_eq!((found.terminated, found.truncated, found.info["distance"]), (false, step == 20, x.abs()));
    }
    assert!(matches!(task.env.step(&[0.0]), Err(EnvError::NeedsReset { .. })));
}

#[test]
fn it_is_a_task_of_the_registry_with_options() {
    if !has_python() {
        return;
    }
    let (folder, _) = config(&line("", ""));
    let options = json!({
        "command": ["python3", "env.py"], "directory": folder.path(), "env": { "PYTHONPATH": SHIM }, "max_steps": 7,
        "fields": ["place", { "name": "turned", "angle": true, "unit": "deg" }], "action_fields": ["push"], "control_period": 0.5,
    });
    let task = tasks::make_with("process", options).unwrap();
    let spec = task.env.spec();
    assert_eq!((spec.control_period, spec.max_steps), (0.5, Some(7)));
    assert_eq!(spec.column_names(), ["place", "turned"]);
    assert_eq!(spec.fields[1].kind, FieldKind::Angle { turn: 360.0, wraps: false });
    assert_eq!(spec.action_names(), ["push"]);

    for (options, words) in [
        (json!({}), "command = []: expected the program and its words"),
        (json!({ "command": ["python3"], "id": "x" }), "beside id"),
        (json!({ "command": ["python3"], "timeout": 0 }), "timeout = 0: expected seconds"),
        (json!({ "command": ["python3"], "timeout": f64::NAN }), "timeout"),
        (json!({ "command": ["python3"], "make": "{}" }), "make = given: expected id beside it"),
        (json!({ "id": "x", "make": "[1]" }), "expected an object of JSON"),
        (json!({ "comand": ["python3"] }), "unknown field `comand`"),
        (json!({ "command": ["python3", "a\u{0}b"] }), "without NUL"),
        (json!({ "command": [""] }), "expected a program"),
    ] {
        let told = tasks::make_with("process", options).unwrap_err().to_string();
        assert!(told.starts_with("options of the task process: ") && told.contains(words), "{told}");
    }
    assert_eq!(Options::new().read::<ProcessConfig>("process").unwrap(), ProcessConfig::default());
}

#[test]
fn a_class_can_be_named_without_a_script() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let class = "class Box:\n    actions = 3\n    fields = 2\n    def __init__(self, size=1.0):\n        self.size = size\n    \
        def reset(self):\n        import random\n        return [self.size, random.random()]\n    \
        def step(self, action):\n        return [action, self.size], 0.5, action == 2\n";
    fs::write(folder.path().join("boxes.py"), class).unwrap();
    for id in ["boxes:Box", "boxes.py:Box"] {
        let config = ProcessConfig {
            id: Some(id.into()),
            make: Some(r#"{"size": 2.5}"#.into()),
            directory: Some(folder.path().to_owned()),
            max_steps: Some(4),
            ..ProcessConfig::default()
        };
        // Neither the package nor NumPy is installed for it.
        let mut task = config.task().unwrap();
        assert_eq!(task.env.spec().actions, ActionSpace::Discrete(3));
        assert_eq!(task.env.spec().column_names(), ["obs[0]", "obs[1]"]);
        let first = task.env.reset(Some(1)).unwrap();
        assert_eq!(first[0], 2.5);
        // A reset that takes no seed draws from Python's own generator, which is seeded for it.
        assert_eq!((first.clone(), task.env.reset(Some(1)).unwrap()), (first.clone(), first.clone()));
        assert_ne!(task.env.reset(Some(2)).unwrap(), first);
        assert_eq!(task.env.step(&[1.0]).unwrap().obs, [1.0, 2.5]);
        assert!(matches!(task.env.step(&[0.5]), Err(EnvError::Config { field: "action", .. })));
        assert!(matches!(task.env.step(&[3.0]), Err(EnvError::Config { field: "action", .. })));
        let last = task.env.step(&[2.0]).unwrap();
        assert_eq!((last.reward, last.terminated), (0.5, true));
    }
}

#[test]
fn without_a_limit_of_steps_one_is_asked_for() {
    if !has_python() {
        return;
    }
    let script = line("", "").replace(", max_steps = 0.1, 20", " = 0.1");
    let (_folder, mut config) = config(&script);
    let told = config.task().unwrap_err().to_string();
    assert!(told.contains("max_steps = nothing: expected the number of steps"), "{told}");
    config.max_steps = Some(0);
    assert_eq!(config.task().unwrap().env.spec().max_steps, None);
    config.max_steps = Some(3);
    assert_eq!(config.task().unwrap().env.spec().max_steps, Some(3));
}

#[test]
fn what_it_prints_goes_nowhere_near_the_frames() {
    if !has_python() {
        return;
    }
    let script = line(
        "print('reset')",
        r#"print("x" * 10000, flush=True); os.write(1, b"raw"); subprocess.run(["echo", "from a child"]); sys.stderr.write("y" * 100000)"#,
    );
    let (_folder, config) =
        config(&format!("print('hello from the pygame community'); import sys; sys.stdout.flush()\n{script}"));
    let mut env = config.init().unwrap();
    env.reset(Some(0)).unwrap();
    for _ in 0..10 {
        env.step(&[0.5]).unwrap();
    }
    drop(env);
    // Input is nobody's either.
    let script = line("", "input()");
    assert_fault!(fails(&script), ProcessFault::Raised { .. }, "EOFError", "step 1 of an episode");
}

#[test]
fn a_program_that_is_not_there() {
    let error = fails_to_start("", |config| config.command[0] = "no-such-python".into());
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("No such file"), "{cause}");
    assert_fault!(error, ProcessFault::Start(_), "no-such-python", "task_options.command");
}

#[test]
fn a_folder_that_is_not_there() {
    let error = fails_to_start("", |config| config.directory = Some("/no/such/folder".into()));
    assert_fault!(error, ProcessFault::Directory(_), "/no/such/folder", "task_options.directory");
}

#[test]
fn a_start_that_fails() {
    if !has_python() {
        return;
    }
    // A file that is not there.
    let error = fails_to_start("", |config| config.command[1] = "other.py".into());
    assert_fault!(error, ProcessFault::Exited(_), "exit code 2", "other.py", "No such file");
    // A module that is not there, and that of the protocol.
    let error = fails_to_start("import no_such_module", |_| {});
    assert_fault!(error, ProcessFault::Exited(_), "exit code 1", "No module named 'no_such_module'");
    let error = fails_to_start("import mbrl_env", |config| config.env.clear());
    assert_fault!(error, ProcessFault::Exited(_), "No module named 'mbrl_env'", "pip install crates/mbrl-env/python");
    // An end without a word.
    let error = fails_to_start("pass", |_| {});
    assert_fault!(error, ProcessFault::Exited(_), "exit code 0", "serve(");
    // An environment that cannot be made, and what is none.
    let error =
        fails_to_start("from mbrl_env import serve\ndef make():\n    raise OSError('no camera')\nserve(make)", |_| {});
    assert_fault!(error, ProcessFault::Raised { .. }, "OSError: no camera", "line 3");
    let error = fails_to_start("from mbrl_env import serve\nserve(3)", |_| {});
    assert_fault!(error, ProcessFault::Raised { .. }, "int has no method `reset`");
    let error = fails_to_start(&line("", "").replace("action_low, action_high = -1.0, 1.0", "pass"), |_| {});
    assert_fault!(error, ProcessFault::Raised { .. }, "serve(action_low=..., action_high=...)");
    let error = fails_to_start(&line("", "").replace("    fields = ", "    columns = "), |_| {});
    assert_fault!(error, ProcessFault::Raised { .. }, "serve(fields=[...])");
}

#[test]
fn a_start_that_takes_long() {
    if !has_python() {
        return;
    }
    let slow = format!("import time\ntime.sleep(1.5)\n{}", line("", ""));
    let (_folder, config) = config(&slow);
    config.init().unwrap();
    let error = fails_to_start(&slow, |config| config.start_timeout = 0.3);
    assert_fault!(error, ProcessFault::TimedOut { .. }, "within 0.3 s", "task_options.start_timeout");
}

#[test]
fn a_start_with_something_else() {
    if !has_python() {
        return;
    }
    let text = "Welcome to my simulator!\n";
    for script in [
        format!("import sys, time\nsys.stdout.write({text:?}); sys.stdout.flush(); time.sleep(60)"),
        format!("import sys, time, os\nsys.stdout.write({text:?}); sys.stdout.flush(); os.close(1); time.sleep(60)"),
    ] {
        let error = fails_to_start(&script, |config| config.start_timeout = 5.0);
        assert_fault!(error, ProcessFault::Rubbish { .. }, "Welcome to my simulator!", "standard error");
    }
    let error = fails_to_start("while True:\n    print('y')", |_| {});
    assert_fault!(error, ProcessFault::Rubbish { .. }, "y\\ny\\n");
    let error = fails_to_start(&by_hand("hello(SPEC.replace(b'\"protocol\": 1', b'\"protocol\": 2'))"), |_| {});
    assert_fault!(error, ProcessFault::Version { found: 2 }, "version 2", "expected 1");
    let error = fails_to_start(&by_hand("ask(); write(MAGIC); send(18, OBS)"), |_| {});
    assert_fault!(error, ProcessFault::Order { .. }, "the observation of a reset", "expected its specification");
    for (from, to, words) in [
        ("\"name\": \"hand\"", "\"name\": \" \"", "name"),
        ("[null], \"high\": [null]", "[], \"high\": []", "0 columns"),
        ("[null], \"high\": [null]", "[2], \"high\": [1]", "low 2 is above high 1"),
        ("[null], \"high\": [null]", "[2], \"high\": [1, 2]", "upper bound has 2 entries"),
        ("[{\"name\": \"x\"}]", "[{\"name\": \"x\"}, {\"name\": \"y\"}]", "2 columns in 2 fields"),
        ("\"n\": 2", "\"n\": 0", "0 discrete actions"),
        ("\"max_steps\": 5", "\"max_steps\": 0", "max_steps 0"),
        ("\"control_period\": 0.1", "\"control_period\": -1", "control period -1"),
        ("\"kind\": \"discrete\"", "\"kind\": \"words\"", "unknown variant `words`"),
        ("\"protocol\": 1", "\"protocol\": one", "expected value"),
        (
            "\"kind\": \"discrete\", \"n\": 2",
            "\"kind\": \"box\", \"low\": [], \"high\": []",
            "an action without columns",
        ),
    ] {
        let error = fails_to_start(&by_hand(&format!("hello(SPEC.replace(b'{from}', b'{to}'))")), |_| {});
        assert_fault!(error, ProcessFault::Spec { .. }, words);
    }
}

#[test]
fn a_hang() {
    if !has_python() {
        return;
    }
    let hang = "if self.steps == 2: time.sleep(1000)";
    assert_fault!(
        hangs(&line("", hang)),
        ProcessFault::TimedOut { .. },
        "step 2 of an episode",
        "within 2 s",
        "task_options.timeout"
    );
    assert_fault!(hangs(&line("time.sleep(1000)", "")), ProcessFault::TimedOut { .. }, "a reset with seed 1");
    // One that does not end when asked to either.
    let deaf =
        format!("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{}", line("", "while True: pass"));
    assert_fault!(hangs(&deaf), ProcessFault::TimedOut { .. }, "step 1");
    // Bytes that come too slowly, and a message that never ends.
    let drip = by_hand(
        "hello(); ask()\nfor byte in struct.pack('<IB', 13, 18) + OBS:\n    write(bytes([byte])); time.sleep(0.5)",
    );
    assert_fault!(hangs(&drip), ProcessFault::TimedOut { .. }, "within 2 s");
    let half = by_hand("hello(); ask(); write(struct.pack('<IB', 13, 18) + OBS[:7]); time.sleep(1000)");
    assert_fault!(hangs(&half), ProcessFault::TimedOut { .. }, "reset");
}

#[test]
fn a_death() {
    if !has_python() {
        return;
    }
    let dies = |how: &str| fails(&line("", &format!("if self.steps == 2: {how}")));
    let error = dies("sys.stderr.write('out of luck\\n'); sys.stderr.flush(); os._exit(3)");
    assert_fault!(error, ProcessFault::Exited(_), "step 2 of an episode", "exit code 3", "out of luck");
    assert_fault!(dies("sys.exit('enough')"), ProcessFault::Exited(_), "exit code 1", "enough");
    assert_fault!(dies("os.kill(os.getpid(), signal.SIGKILL)"), ProcessFault::Exited(_), "signal 9", "memory");
    assert_fault!(dies("os.kill(os.getpid(), signal.SIGSEGV)"), ProcessFault::Exited(_), "signal 11 (SIGSEGV)");
    // In the middle of a message, and with children that hold the pipes.
    let torn = by_hand("hello(); ask(); write(struct.pack('<IB', 13, 18) + OBS[:7]); os._exit(4)");
    assert_fault!(fails(&torn), ProcessFault::Exited(_), "exit code 4");
    let closed = by_hand("hello(); ask(); os.close(1); time.sleep(1000)");
    assert_fault!(fails(&closed), ProcessFault::Closed, "closed its standard input or output");
    // Closed before the answer: what is asked next cannot be faster.
    let deaf = by_hand("hello(); ask(); os.close(0); send(18, OBS)");
    assert_fault!(fails(&format!("{deaf}\ntime.sleep(1000)")), ProcessFault::Closed, "step 1");
}

#[test]
fn an_exception() {
    if !has_python() {
        return;
    }
    let error = fails(&line("", "if self.steps == 2: raise ValueError('the arm is stuck')"));
    assert_fault!(
        error,
        ProcessFault::Raised { .. },
        "step 2 of an episode",
        "ValueError: the arm is stuck",
        "env.py\", line",
        "in step"
    );
    let error = fails(&line("raise ValueError('no start')", ""));
    assert_fault!(error, ProcessFault::Raised { .. }, "a reset with seed 1", "no start");
    assert_fault!(
        fails(&line("", "return 3")),
        ProcessFault::Raised { .. },
        "step returned int 3, expected (observation, reward"
    );
    assert_fault!(fails(&line("", "return [[1.0], 'a'], 0.0, False")), ProcessFault::Raised { .. }, "Error");
    assert_fault!(fails(&line("", "return [1.0, 2.0], None, False")), ProcessFault::Raised { .. }, "Error");
}

#[test]
fn numbers_that_are_none_or_too_many() {
    if !has_python() {
        return;
    }
    // One that is none ends the episode, and the next one goes on in the same process.
    let (_folder, once) = config(&line("", "if self.steps == 2: return [0.0, float('nan')], 0.0, False"));
    let mut env = once.init().unwrap();
    let first = env.reset(Some(5)).unwrap();
    env.step(&[0.5]).unwrap();
    assert!(env.step(&[0.5]).unwrap_err().is_breakdown());
    assert!(matches!(env.step(&[0.5]), Err(EnvError::NeedsReset { .. })));
    env.reset(None).unwrap();
    assert_eq!(env.reset(Some(5)).unwrap(), first);
    // Actions may be without limits; what needs some says so.
    let free =
        line("", "").replace("action_low, action_high = -1.0, 1.0", "action_low, action_high = [float('-inf')], [1.0]");
    let (_folder, free) = config(&free);
    let env = free.init().unwrap();
    assert!(matches!(env.spec().require_limited_actions(), Err(EnvError::Unlimited { .. })));
    let gives = |what: &str| fails(&line("", &format!("return {what}, False")));
    assert_fault!(
        gives("[1.0, float('nan')], 0.0"),
        ProcessFault::NonFinite { .. },
        "observation `v` is NaN",
        "step 1"
    );
    assert_fault!(gives("[1e300, 1.0], 0.0"), ProcessFault::NonFinite { .. }, "observation `x` is inf");
    assert_fault!(gives("[1.0, 1.0], float('inf')"), ProcessFault::NonFinite { .. }, "reward is inf");
    assert_fault!(gives("[1.0], 0.0"), ProcessFault::Width { .. }, "1 numbers, expected 2");
    assert_fault!(gives("[[1.0, 2.0], [3.0, 4.0]], 0.0"), ProcessFault::Width { .. }, "4 numbers, expected 2");
    let error = fails(&line("return [float('nan'), 0.0]", ""));
    assert_fault!(error, ProcessFault::NonFinite { .. }, "observation `x` is NaN", "a reset with seed 1");
}

#[test]
fn messages_that_are_none() {
    if !has_python() {
        return;
    }
    let hung = |script: &str| hangs(&by_hand(&format!("hello(); ask(); {script}\ntime.sleep(1000)")));
    let answers = |script: &str| fails(&by_hand(&format!("hello(); ask(); {script}\ntime.sleep(1000)")));
    assert_fault!(
        answers("write(b'Segmentation warning: all is well\\n')"),
        ProcessFault::Rubbish { .. },
        "Segmentation warning"
    );
    assert_fault!(hung("write(b'ok')"), ProcessFault::Rubbish { .. }, "\"ok\"");
    assert_fault!(answers("write(struct.pack('<IB', 1 << 31, 1))"), ProcessFault::TooLarge { .. }, "2147483648 bytes");
    assert_fault!(answers("write(struct.pack('<I', 0))"), ProcessFault::Malformed { .. }, "empty");
    assert_fault!(
        answers("send(19, STEP)"),
        ProcessFault::Order { .. },
        "the outcome of a step",
        "expected the observation of a reset"
    );
    assert_fault!(answers("send(99, b'')"), ProcessFault::Order { .. }, "unknown kind 99");
    assert_fault!(answers("send(18, OBS[:-1])"), ProcessFault::Malformed { .. }, "8 more bytes", "7 are left");
    assert_fault!(answers("send(18, OBS + b'x')"), ProcessFault::Malformed { .. }, "1 bytes too many");
    assert_fault!(answers("send(20, b'out of paper')"), ProcessFault::Raised { .. }, "out of paper");
    assert_fault!(
        answers("write(struct.pack('<IB', 13, 18) + OBS + struct.pack('<IB', 13, 18) + OBS)"),
        ProcessFault::Order { .. },
        "step 1",
        "no message before a request"
    );
    let steps = |script: &str| answers(&format!("send(18, OBS); ask(); {script}"));
    assert_fault!(steps("send(19, b'\\x07' + STEP[1:])"), ProcessFault::Malformed { .. }, "flags 7");
    let names = "struct.pack('<BdIdII', 0, 1.0, 1, 0.25, 2, 1) + b'a' + bytes(16)";
    assert_fault!(
        steps(&format!("send(19, {names})")),
        ProcessFault::Malformed { .. },
        "2 numbers of information under 1 names"
    );
}

/// The number in a file, once there is one.
fn number_in(path: &Path) -> i32 {
    for _ in 0..500 {
        if let Some(number) = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
            return number;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{}: no number came", path.display());
}

/// Whether a process is there; a zombie counts.
fn is_there(pid: i32) -> bool {
    Command::new("kill").args(["-0", &pid.to_string()]).stderr(Stdio::null()).status().unwrap().success()
}

/// Whether nothing of it runs: one that lost its parent may wait to be reaped by another.
fn has_ended(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    !is_there(pid) || state.is_ok_and(|state| state.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('Z')))
}

#[track_caller]
fn is_gone_within(seconds: u64, pid: i32) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !has_ended(pid) {
        assert!(Instant::now() < until, "process {pid} is still there");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes the numbers of its process and of a grandchild that ignores every wish.
const FAMILY: &str = r#"
import os, signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["python3", "-c", "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(1000)"], stdout=subprocess.PIPE)
child.stdout.readline()
open("child", "w").write(str(child.pid))
open("self", "w").write(str(os.getpid()))
"#;

#[test]
fn its_end_leaves_nobody_behind() {
    if !has_python() {
        return;
    }
    // One that is well-behaved is asked, and closes what it has.
    let closing = line("", "")
        .replace("    def step", "    def close(self):\n        open('closed', 'w').write('1')\n\n    def step");
    let (folder, config_) = config(&format!("import os\nopen('self', 'w').write(str(os.getpid()))\n{closing}"));
    let env = config_.init().unwrap();
    let pid = number_in(&folder.path().join("self"));
    assert!(is_there(pid));
    let began = Instant::now();
    drop(env);
    assert!(!is_there(pid) && began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(number_in(&folder.path().join("closed")), 1);

    // One whose `close` never returns, that ignores SIGTERM, with a child that does too.
    let stubborn =
        line("", "").replace("    def step", "    def close(self):\n        time.sleep(1000)\n\n    def step");
    let (folder, config_) = config(&format!("{FAMILY}{stubborn}"));
    let env = config_.init().unwrap();
    let (pid, child) = (number_in(&folder.path().join("self")), number_in(&folder.path().join("child")));
    assert!(is_there(pid) && is_there(child));
    drop(env);
    assert!(!is_there(pid), "killed and reaped");
    is_gone_within(5, child);

    // A grandchild that has the pipes, of one that died.
    let (folder, config_) = config(&format!("{FAMILY}{}", line("", "os._exit(1)")));
    let mut env = config_.init().unwrap();
    let child = number_in(&folder.path().join("child"));
    env.reset(Some(0)).unwrap();
    assert_fault!(process_error(env.step(&[0.0]).unwrap_err()), ProcessFault::Exited(_), "exit code 1");
    is_gone_within(5, child);
}

/// The parent of the next test: starts an environment that hangs, and waits for it.
#[test]
#[ignore = "a part of the next test"]
fn a_parent_that_will_be_killed() {
    let Some(folder) = env::var_os("MBRL_TEST_PARENT") else { return };
    let (_scripts, mut config) = config(&format!("{FAMILY}{}", line("", "while True: pass")));
    config.directory = Some(folder.into());
    config.command[1] = format!("{}/env.py", _scripts.path().display());
    config.timeout = 600.0;
    let mut env = config.init().unwrap();
    env.reset(Some(0)).unwrap();
    env.step(&[0.0]).unwrap();
}

#[test]
fn the_death_of_this_process_is_the_end_of_that_one() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_parent_that_will_be_killed", "--include-ignored"])
        .env("MBRL_TEST_PARENT", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (pid, child) = (number_in(&folder.path().join("self")), number_in(&folder.path().join("child")));
    thread::sleep(Duration::from_millis(300));
    assert!(is_there(pid) && is_there(child));
    parent.kill().unwrap();
    parent.wait().unwrap();
    is_gone_within(10, pid);
    is_gone_within(10, child);
}

#[test]
fn after_an_error_a_seed_starts_it_again() {
    if !has_python() {
        return;
    }
    let (folder, config) =
        config(&line("", "if self.steps == 3 and not os.path.exists('mended'): raise ValueError('stuck')"));
    let mut env: ProcessEnv = config.init().unwrap();
    env.reset(Some(2)).unwrap();
    let first = env.step(&[0.5]).unwrap();
    env.step(&[0.5]).unwrap();
    assert!(env.step(&[0.5]).is_err());
    fs::write(folder.path().join("mended"), "").unwrap();
    env.reset(Some(2)).unwrap();
    assert_eq!(env.step(&[0.5]).unwrap(), first);
    env.step(&[0.5]).unwrap();
    env.step(&[0.5]).unwrap();
    // One that has become another environment is refused.
    fs::remove_file(folder.path().join("mended")).unwrap();
    env.reset(Some(2)).unwrap();
    while env.step(&[0.0]).is_ok() {}
    let other = line("", "").replace("\"m/s\"", "\"km/h\"");
    fs::write(folder.path().join("env.py"), other).unwrap();
    assert_fault!(
        process_error(env.reset(Some(0)).unwrap_err()),
        ProcessFault::Changed { .. },
        "another environment",
        "km/h"
    );
}

#[test]
fn wide_observations_and_many_numbers_arrive_whole() {
    if !has_python() {
        return;
    }
    let script = r#"
from mbrl_env import serve
class Wide:
    fields, action_low, action_high, action_fields, max_steps = 100_000, [-1.0] * 3000, [1.0] * 3000, 3000, 3
    def reset(self, seed=None):
        return [float(i % 977) for i in range(100_000)]
    def step(self, action):
        info = {"sum": sum(action), "none": None, "word": "a", "nan": float("nan"), "flag": True, "two\nlines": 2, "größe": 1.5, "": 3, "huge": 10**400}
        return [action[i % 3000] for i in range(100_000)], 1, False, False, info
serve(Wide())
"#;
    let (_folder, config) = config(script);
    let mut task = config.task().unwrap();
    let first = task.env.reset(Some(0)).unwrap();
    assert!((0..100_000).all(|i| first[i] == (i % 977) as f32));
    let action: Vec<f32> = (0..3000).map(|i| i as f32 / 4096.0).collect();
    // The second step's infos are read like those of the first.
    task.env.step(&action).unwrap();
    let step = task.env.step(&action).unwrap();
    assert!((0..100_000).all(|i| step.obs[i] == action[i % 3000]));
    let names: Vec<&str> = step.info.keys().map(|name| &**name).collect();
    assert_eq!(names, ["flag", "größe", "sum", "two lines"]);
    assert_eq!((step.info["flag"], step.info["größe"]), (1.0, 1.5));
    let _ = FieldConfig::Name("x".into());
}
