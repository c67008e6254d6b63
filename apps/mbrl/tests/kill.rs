//! Killed and stopped runs continue as if nothing had happened.

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

/// Kills runs at `moments` spread over their length, resumes them until they are done, and compares each with an undisturbed
/// one. Returns how many were hit before they ended by themselves.
#[cfg(unix)]
fn kill_and_resume<'a>(dir: &Dir, train: impl Fn(&'a str) -> Vec<&'a str>, outs: &'a [String]) -> usize {
    use std::os::unix::process::ExitStatusExt;

    let begun = Instant::now();
    dir.run(&train("whole")).ok();
    let mut length = begun.elapsed();
    let mut hit = 0;
    for (i, out) in outs.iter().enumerate() {
        let begun = Instant::now();
        let mut child = start(dir, &train(out));
        let moment = length.mul_f64((i as f64 + 0.5) / outs.len() as f64);
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if begun.elapsed() >= moment => break None,
                None => sleep(Duration::from_millis(1)),
            }
        };
        match ended {
            // The machine is faster than before: later moments are adjusted.
            Some(status) => {
                assert!(status.success());
                length = begun.elapsed();
            }
            None => {
                child.kill().unwrap();
                hit += usize::from(child.wait().unwrap().signal() == Some(9));
            }
        }
        if dir.path(out).exists() {
            dir.run(&["resume", out]).ok();
        } else {
            // Killed before the folder existed: nothing to resume.
            dir.run(&train(out)).ok();
        }
        assert_eq!(dir.metrics(out), dir.metrics("whole"), "{out} of {}", outs.len());
    }
    hit
}

#[cfg(unix)]
fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("killed-{i}")).collect()
}

#[cfg(unix)]
#[test]
fn killed_runs_go_on_as_if_nothing_had_happened() {
    // The first two moments lie before half of the measured length, whatever else the machine does.
    assert!(kill_and_resume(&Dir::new(), train, &names(3)) >= 1);
}

#[cfg(unix)]
#[test]
fn killed_runs_with_the_simulator_as_the_model_go_on_too() {
    fn words(out: &str) -> Vec<&str> {
        vec!["train", "ground-truth-cartpole-swingup", "--steps", "450", "--set", "train.eval_every=0", "--out", out]
    }
    assert!(kill_and_resume(&Dir::new(), words, &names(3)) >= 1);
}

#[cfg(unix)]
#[test]
#[ignore = "20 runs of the whole smoke experiment, minutes; .ci/run has it"]
fn smoke_killed_at_twenty_moments_goes_on_as_if_nothing_had_happened() {
    let hit = kill_and_resume(&Dir::new(), |out| vec!["train", "smoke", "--out", out], &names(20));
    assert!(hit >= 18, "{hit} of 20 moments lay within the run");
}

#[test]
fn a_second_process_keeps_its_hands_off() {
    let dir = Dir::new();
    let mut child = start(&dir, &["train", "smoke", "--out", "run"]);
    let begun = Instant::now();
    while !dir.path("run/metrics.jsonl").exists() && begun.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(2));
    }
    dir.run(&["resume", "run"]).fails(1, &["run", "another process"]);
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock of a killed process is gone with it.
    dir.run(&["resume", "run"]).ok();
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_sigterm_stop_at_the_next_step_and_say_how_to_go_on() {
    let dir = Dir::new();
    dir.run(&train("whole")).ok();
    for (signal, out) in [("-INT", "stopped"), ("-TERM", "terminated")] {
        let child = start(&dir, &train(out));
        let begun = Instant::now();
        let stored = dir.path(out).join("checkpoints/200/manifest.json");
        while !stored.exists() && begun.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(2));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let said = Said::of(&child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(130), "{said:#?}");
        assert!(said.out.contains(&format!("mbrl resume {out}")), "{said:#?}");
        dir.run(&["resume", out]).ok();
        assert_eq!(dir.metrics(out), dir.metrics("whole"));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_in_an_evaluation_keeps_the_episodes_that_have_ended() {
    use std::io::{BufRead, BufReader, Read};

    let dir = Dir::new();
    let mut child = start(&dir, &["eval", "--random", "pendulum", "--episodes", "100000", "--record", "log"]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let said = Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{rest}");
    let told = first.lines().chain(rest.lines()).filter(|line| line.starts_with("episode")).count();
    assert!((1..100_000).contains(&told), "{told}");
    assert!(rest.contains(&format!("stopped: {told} of 100000 episodes had ended")), "{rest}");
    assert!(rest.contains(&format!("over {told} episode")), "{rest}");
    assert_eq!(std::fs::read_dir(dir.path("log/episodes")).unwrap().count(), told);
}

/// What plans need from another run is copied: that run may continue or be removed.
#[test]
fn a_run_with_the_value_of_another_one_is_whole_by_itself() {
    let dir = Dir::new();
    dir.run(&["train", "sac-pendulum", "--steps", "250", "--set", "agent.random_steps=200", "--out", "taught"]).ok();
    let value = ["--set", "value.source=run", "--set", "value.run=taught", "--out", "plans"];
    dir.run(&[&["train", "smoke"], &QUICK[..], &value].concat()).ok();
    let text = std::fs::read_to_string(dir.path("plans/experiment.toml")).unwrap();
    assert!(text.contains("run = \"value\"") && text.contains("checkpoint = 250"), "{text}");
    std::fs::remove_dir_all(dir.path("taught")).unwrap();
    std::fs::create_dir(dir.path("moved")).unwrap();
    std::fs::rename(dir.path("plans"), dir.path("moved/plans")).unwrap();
    dir.run(&["eval", "moved/plans", "--episodes", "1"]).ok();
    dir.run(&["resume", "moved/plans", "--steps", "600"]).ok();
    assert!(std::fs::read_to_string(dir.path("moved/plans/experiment.toml")).unwrap().contains("run = \"value\""));
    dir.run(&["eval", "moved/plans", "--episodes", "1"]).ok();
}
