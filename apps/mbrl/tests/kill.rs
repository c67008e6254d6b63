//! Killed and stopped runs go on as if nothing had happened.

mod util;

use std::{
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use util::{Dir, QUICK, Said};

fn start(dir: &Dir, words: &[&str]) -> Child {
    dir.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn train(out: &str) -> Vec<&str> {
    [&["train", "smoke"], &QUICK[..], &["--out", out]].concat()
}

/// Kills a run after `wait`, then resumes it until it is done.
fn kill_and_resume(dir: &Dir, train: &[&str], out: &str, wait: Duration) {
    let mut child = start(dir, train);
    sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
    if dir.path(out).exists() {
        dir.run(&["resume", out]).ok();
    } else {
        // Killed before the folder was there: nothing to resume.
        dir.run(train).ok();
    }
}

#[test]
fn killed_runs_go_on_as_if_nothing_had_happened() {
    let dir = Dir::new();
    let begun = Instant::now();
    dir.run(&train("whole")).ok();
    let length = begun.elapsed();
    for i in 0..3 {
        let out = format!("killed-{i}");
        kill_and_resume(&dir, &train(&out), &out, length.mul_f64((f64::from(i) + 0.5) / 3.0));
        assert_eq!(dir.metrics(&out), dir.metrics("whole"), "killed after {i} of 3");
    }
}

#[test]
#[ignore = "20 runs of the whole smoke experiment, minutes; .ci/run has it"]
fn smoke_killed_at_twenty_moments_goes_on_as_if_nothing_had_happened() {
    let dir = Dir::new();
    let begun = Instant::now();
    dir.run(&["train", "smoke", "--out", "whole"]).ok();
    let length = begun.elapsed();
    for i in 0..20 {
        let out = format!("killed-{i}");
        let words = ["train", "smoke", "--out", &out];
        kill_and_resume(&dir, &words, &out, length.mul_f64((f64::from(i) + 0.5) / 20.0));
        assert_eq!(dir.metrics(&out), dir.metrics("whole"), "killed at {i} of 20");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_at_the_next_step_and_says_how_to_go_on() {
    let dir = Dir::new();
    dir.run(&train("whole")).ok();
    let child = start(&dir, &train("stopped"));
    let begun = Instant::now();
    while !dir.path("stopped/checkpoints/200/manifest.json").exists() && begun.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let said = Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{said:#?}");
    assert!(said.out.contains("mbrl resume stopped"), "{said:#?}");
    dir.run(&["resume", "stopped"]).ok();
    assert_eq!(dir.metrics("stopped"), dir.metrics("whole"));
}
