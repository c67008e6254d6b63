//! `mbrl drive`: a stand-in, in real time.

mod util;

use std::{
    fs,
    time::{Duration, Instant},
};

use util::Dir;

#[test]
fn a_run_drives_its_task_in_real_time_and_its_log_can_be_fitted() {
    let dir = Dir::new();
    dir.train(&["--out", "run"]).ok();
    let words = ["drive", "run", "--for", "3", "--threads", "1", "--log", "log", "--jitter", "5", "--loss", "0.02"];
    let said = dir.run(&words).ok().out;
    for word in [
        "pendulum at 20 Hz for 3 s",
        "the learned model predicts the effect of pending commands",
        "control periods",
        "plans took",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let ticks = fs::read_to_string(dir.path("log/ticks.csv")).unwrap();
    // As many as fit into the time, or fewer on a busy machine.
    let rows = ticks.lines().filter(|line| !line.starts_with('#')).count() - 1;
    assert!((5..=61).contains(&rows), "{rows}");
    // The log can be read, whether its transitions are enough for a fit or not.
    let fitted = dir.run(&["fit", "log/transitions.csv", "--out", "model", "--set", "fit.max_epochs=1"]);
    assert!(format!("{}{}", fitted.out, fitted.err).contains("transition"), "{fitted:#?}");
    // A log is never overwritten.
    dir.run(&words).fails(1, &["log/transitions.csv", "cannot be written", "without another drive's log"]);
}

/// A drive that loses its log is stopped, and says so at once.
#[cfg(unix)]
#[test]
fn a_full_disk_under_the_log_stops_the_robot() {
    let dir = Dir::new();
    dir.train(&["--out", "run"]).ok();
    let began = Instant::now();
    let said = dir.run_in_blocks(2, &["drive", "run", "--for", "300", "--threads", "1", "--log", "log"]);
    assert!(began.elapsed() < Duration::from_secs(100), "{said:?}");
    let said = said.fails(1, &[".csv: the log cannot be written", "File too large", "stopped"]);
    assert!(said.err.contains("control periods"), "the report is told all the same: {said:?}");
    // What was written before is still there.
    let ticks = fs::read_to_string(dir.path("log/ticks.csv")).unwrap();
    assert!(ticks.contains("\ntick,time,late_ms"), "{ticks}");
}

#[test]
fn the_simulator_itself_drives_a_stand_in_that_carries_its_state() {
    let dir = Dir::new();
    let set = ["--set", "agent.kind=ground-truth", "--set", "train.eval_every=0"];
    dir.run(&[&["train", "smoke", "--steps", "2", "--out", "run"], &set[..]].concat()).ok();
    let said = dir.run(&["drive", "run", "--for", "2", "--threads", "1"]).ok().out;
    assert!(
        said.contains("the simulator predicts the effect of pending commands") && said.contains("; 0 failed"),
        "{said}"
    );
    dir.run(&["drive", "run", "--link", "tcp://127.0.0.1:1"]).fails(1, &["--link", "ground-truth", "no robot tells"]);
}

#[test]
fn what_cannot_be_driven_is_told_before_anything_moves() {
    let dir = Dir::new();
    dir.train(&["--out", "run"]).ok();
    dir.write("limits.toml", "low = [-1]\nhigh = [1]\nrate = [0]\nrest = [0]\n");
    dir.run(&["drive", "run", "--limits", "limits.toml"]).fails(1, &["rate[0] = 0: expected a positive number"]);
    dir.write("limits.toml", "low = [-1, -1]\nhigh = [1, 1]\nrate = [1, 1]\nrest = [0, 0]\n");
    dir.run(&["drive", "run", "--limits", "limits.toml"]).fails(1, &["2 commands, expected 1"]);
    dir.write("limits.toml", "lower = [-1]\n");
    dir.run(&["drive", "run", "--limits", "limits.toml"]).fails(
        1,
        &["limits.toml: expected the limits of the robot: low, high, rate and rest", "real-time.md", "lower"],
    );
    dir.run(&["drive", "run", "--link", "tcp://127.0.0.1:1"]).fails(1, &["127.0.0.1:1"]);
    dir.run(&["drive", "run", "--loss", "2"]).fails(1, &["loss = 2: expected a share from 0 to 1"]);
    for hz in ["0", "1e-300", "nan"] {
        dir.run(&["drive", "run", "--hz", hz]).fails(2, &["--hz", "a number from 0.001 to a million"]);
    }
    dir.run(&["drive", "run", "--hz", "0.5", "--for", "1"])
        .fails(1, &["--for = 1", "at least one control period, 2 s"]);
    // A refused drive leaves no folder behind.
    dir.run(&["drive", "run", "--link", "tcp://127.0.0.1:1", "--log", "refused"]).fails(1, &["127.0.0.1:1"]);
    assert!(!dir.path("refused").exists());
    // A robot from which nothing arrives is no success.
    dir.run(&["drive", "run", "--loss", "1", "--for", "0.5"]).fails(1, &["no measurement that could be used"]);
}
