//! `mbrl study`, from outside: one command that continues from wherever it was stopped.

mod util;

use std::{fs, process::Stdio, thread::sleep, time::Duration};

use util::Dir;

/// Two methods and an ablation of a third experiment; the second variant is the first method.
const STUDY: &str = r#"
summary = "planners that look less far"
experiment = "smoke"
steps = 400
seeds = 2
set = ["train.eval_every=200", "train.eval_episodes=2"]
base_set = ["planner.population=8", "planner.elites=2", "fit.max_epochs=2"]

[[method]]
name = "Eight"

[[method]]
name = "SAC"
experiment = "sac-pendulum"
set = ["agent.random_steps=350", "policy.hidden=[8]", "critics.hidden=[8]"]

[[ablation]]
name = "horizon"
title = "steps looked ahead"
method = [{ name = "2", set = ["planner.horizon=2"] }, { name = "8" }]
"#;

const RUNS: [&str; 6] = ["eight-0", "sac-0", "horizon-2-0", "eight-1", "sac-1", "horizon-2-1"];

fn place(run: &str) -> String {
    format!("studies/quick/{run}")
}

#[test]
fn a_study_goes_on_from_wherever_it_was_killed() {
    let dir = Dir::new();
    dir.write("quick.toml", STUDY);
    let words = ["study", "quick.toml", "--jobs", "1"];

    // Before anything exists.
    let said = dir.run(&["study", "quick.toml", "--no-train"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("no run of the study quick yet"), "{said:?}");
    assert!(!dir.path("studies").exists(), "refused before anything is written");

    // Killed in the middle.
    let mut child = dir.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !dir.path(&place("eight-0")).exists() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
    // Meanwhile, another command cannot train there and says so at once; tables can be written.
    let said = dir.run(&words).fails(1, &["studies/quick: another process is at work in this folder"]);
    assert!(!said.err.contains("runs are finished") && !said.err.contains("not there yet"), "{said:?}");
    dir.run(&["study", "quick.toml", "--no-train"]).ok();
    while !dir.path(&place("sac-0")).exists() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!dir.path(&place("horizon-2-1")).exists(), "killed too late to say anything");
    let first = dir.metrics(&place("eight-0"));

    // Finished runs count already, and the output says how many are missing.
    let said = dir.run(&["study", "quick.toml", "--no-train"]).ok();
    assert!(said.out.contains("Eight: 1 of 2 runs finished") && !said.out.contains("\n  SAC"), "{said:?}");
    assert!(said.err.contains("5 of 6 runs are not there yet; to go on: mbrl study quick.toml"), "{said:?}");

    // The same command continues, and trains nothing twice.
    let said = dir.run(&words).ok();
    for word in ["pendulum: mean return of the evaluation", "Eight", "SAC", "random", "steps looked ahead", "IQM"] {
        assert!(said.out.contains(word), "`{word}`: {said:?}");
    }
    assert!(said.err.contains("1 of 6 runs are finished") || said.err.contains("1 of 6"), "{said:?}");
    assert_eq!(dir.metrics(&place("eight-0")), first);
    for run in RUNS {
        assert!(dir.path(&place(run)).join("curve.svg").exists(), "{run}");
    }
    // The ablation's second variant is a method, and has no separate run.
    assert!(!dir.path(&place("horizon-8-0")).exists());
    // A run of a study is the run of the same experiment alone.
    let alone = ["--steps", "400", "--seed", "1", "--out", "alone", "--set", "planner.population=8", "--set"];
    let rest = ["planner.elites=2", "--set", "fit.max_epochs=2", "--set", "train.eval_every=200", "--set"];
    dir.run(&[&["train", "smoke"], &alone[..], &rest[..], &["train.eval_episodes=2"]].concat()).ok();
    assert_eq!(dir.metrics("alone"), dir.metrics(&place("eight-1")));

    let read = |file: &str| fs::read_to_string(dir.path(&place(file))).unwrap();
    assert!(read("comparison.md").contains("| Eight | 2 |") && read("comparison.md").contains("| random | – |"));
    assert!(read("comparison.tex").contains("\\begin{tabular}") && read("comparison.txt").contains("SAC"));
    assert_eq!(read("horizon.csv").lines().count(), 3);
    assert!(read("ablations.svg").contains("steps looked ahead") && read("ablations.svg").contains("8 (n = 2)"));
    assert!(read("report.html").contains("<section id=\"comparison\">"));
    assert!(read("study.toml").contains("seeds = 2"));

    // Once finished, it trains nothing; more seeds continue from there.
    let said = dir.run(&words).ok();
    assert!(said.err.contains("6 of 6 runs are finished"), "{said:?}");
    let said = dir.run(&["study", "quick.toml", "--seeds", "3", "--only", "horizon"]).ok();
    assert!(dir.path(&place("eight-2")).exists() && !dir.path(&place("sac-2")).exists(), "{said:?}");
    // The picture of all ablations is of a whole study.
    let whole = fs::read_to_string(dir.path(&place("ablations.svg"))).unwrap();
    assert!(whole.contains("8 (n = 2)"), "left as it was");
    // One method by itself; the finished runs of the others stay in its table.
    let said = dir.run(&["study", "quick.toml", "--seeds", "4", "--only", "SAC"]).ok();
    assert!(said.err.contains("2 of 4 runs are finished"), "{said:?}");
    assert!(dir.path(&place("sac-3")).exists() && !dir.path(&place("eight-3")).exists(), "{said:?}");
    let table = fs::read_to_string(dir.path(&place("comparison.md"))).unwrap();
    assert!(table.contains("| SAC | 4 |") && table.contains("| Eight | 3 |"), "{table}");

    // A run that was begun for more steps is not trained to its own end.
    dir.run(&["study", "quick.toml", "--out", "long", "--seeds", "1", "--only", "Eight", "--steps", "400"]).ok();
    let own = dir.path("long/eight-0");
    let text = fs::read_to_string(own.join("experiment.toml")).unwrap();
    fs::write(own.join("experiment.toml"), text.replace("\nsteps = 400\n", "\nsteps = 40000\n")).unwrap();
    let said = dir.run(&["study", "quick.toml", "--out", "long", "--seeds", "1", "--only", "Eight"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("was begun for 40000 steps and is not finished"), "{said:?}");

    // Other settings are another method: its runs are not taken for this one's.
    dir.write("quick.toml", &STUDY.replace("planner.horizon=2", "planner.horizon=3"));
    let before = dir.files();
    let said = dir.run(&words);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("horizon-2-0 was made with other settings than the study has: planner.horizon = 2 (now 3)"),
        "{said:?}"
    );
    assert_eq!(dir.files(), before);
}

#[test]
fn what_cannot_be_run_is_said_before_anything_is_written() {
    let dir = Dir::new();
    for (text, word) in [
        (STUDY.replace("planner.horizon=2", "planner.horizn=2"), "quick, method horizon: 2"),
        (STUDY.replace("planner.horizon=2", "planner.horizon=0"), "planner.horizon = 0"),
        (STUDY.replace("sac-pendulum", "sac-pendulm"), "did you mean `sac-pendulum`?"),
        (STUDY.replace("steps = 400", "steps = \"many\""), "steps = \"many\""),
        // Names become parts of paths, and these keys are the study's own.
        (STUDY.replace("name = \"horizon\"", "name = \"../..\""), "ablation.name = \"../..\""),
        (STUDY.replace("name = \"horizon\"", "name = \"Ablations\""), "ablation.name = \"Ablations\""),
        (STUDY.replace("name = \"Eight\"", &format!("name = \"{}\"", "e".repeat(101))), "of at most 100 bytes"),
        (format!("name = \"..\"\n{STUDY}"), "name = \"..\""),
        (STUDY.replace("train.eval_every=200", "seed=7"), "seed = 7: expected no such key in `set`"),
        (STUDY.replace("planner.horizon=2", "steps = 800"), "steps = 800: expected no such key in `set`"),
    ] {
        dir.write("quick.toml", &text);
        let said = dir.run(&["study", "quick.toml"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(word), "`{word}`: {said:?}");
        assert!(!dir.path("studies").exists());
    }
    let said = dir.run(&["study", "vlave"]);
    assert!(said.err.contains("unknown study `vlave`") && said.err.contains("did you mean `valve`?"), "{said:?}");
    dir.write("quick.toml", STUDY);
    let said = dir.run(&["study", "quick.toml", "--only", "horizn"]);
    assert!(said.err.contains("expected one of comparison, horizon, ablations, the name of a method"), "{said:?}");
    assert!(said.err.contains("did you mean `horizon`?"), "{said:?}");
    dir.write("quick.toml", STUDY.split("[[ablation]]").next().unwrap());
    let said = dir.run(&["study", "quick.toml", "--only", "ablations"]);
    assert!(said.code == Some(1) && said.err.contains("expected one of comparison"), "{said:?}");
    assert!(!dir.path("studies").exists());
}

/// Files of a study lie in its folder, whatever its names are, and no file of another study is touched.
#[test]
fn a_study_writes_where_it_belongs() {
    let dir = Dir::new();
    fs::create_dir(dir.path("notes")).unwrap();
    fs::write(dir.path("notes/mine.md"), "precious").unwrap();
    let study = STUDY.replace("name = \"horizon\"", "name = \"../notes/mine\"");
    // Given from within the study's own folder: comments and seeds stay.
    fs::create_dir_all(dir.path("own")).unwrap();
    let given = format!("# mine\nname = \"Own one\"\n{study}");
    fs::write(dir.path("own/study.toml"), &given).unwrap();
    let words = ["study", "own/study.toml", "--out", "own", "--seeds", "1", "--only", "../notes/mine"];
    dir.run(&words).ok();
    assert_eq!(fs::read_to_string(dir.path("own/study.toml")).unwrap(), given);
    assert_eq!(fs::read_to_string(dir.path("notes/mine.md")).unwrap(), "precious");
    assert!(dir.path("own/notes-mine.md").exists() && dir.path("own/notes-mine.svg").exists());
    // A folder with anything else may have files that tables would overwrite.
    let said = dir.run(&["study", "own/study.toml", "--out", "notes"]).fails(1, &["notes exists and is not empty"]);
    assert_eq!(fs::read_dir(dir.path("notes")).unwrap().count(), 1, "{said:?}");
    // The folder belongs to another study.
    dir.write("quick.toml", STUDY);
    let before = dir.files();
    let said = dir.run(&["study", "quick.toml", "--out", "own"]);
    assert!(said.code == Some(1) && said.err.contains("own is of the study Own one"), "{said:?}");
    assert_eq!(dir.files(), before);
    // The command for continuing can be pasted.
    let said = dir.run(&["study", "own/study.toml", "--out", "own", "--no-train"]).ok();
    assert!(said.err.contains("to go on: mbrl study own/study.toml --out own"), "{said:?}");
    let said = dir.run(&["study", "quick.toml", "--out", "two words", "--seeds", "1", "--only", "horizon"]).ok();
    assert!(dir.path("two words/study.toml").exists(), "{said:?}");
    let said = dir.run(&["study", "quick.toml", "--out", "two words", "--no-train"]).ok();
    assert!(said.err.contains("mbrl study quick.toml --out 'two words'"), "{said:?}");

    // An unreadable line is reported, as in `mbrl compare`.
    let metrics = dir.path("two words/horizon-2-0/metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let broken = lines.iter().rposition(|line| line.contains("\"eval\"")).unwrap();
    let damaged: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(i, line)| if i == broken { line.replace(':', ";") } else { (*line).into() })
        .collect();
    fs::write(&metrics, damaged.join("\n") + "\n").unwrap();
    let said = dir.run(&["study", "quick.toml", "--out", "two words", "--no-train"]).ok();
    assert!(said.out.contains(&format!("left out line {}", broken + 1)), "{said:?}");
}

/// A policy that breaks down ends only its own run.
#[test]
fn a_run_that_fails_is_named_and_the_others_go_on() {
    let dir = Dir::new();
    dir.write("quick.toml", &STUDY.replace("agent.random_steps=350", "policy.learning_rate=1e30"));
    let words = ["study", "quick.toml", "--seeds", "1", "--jobs", "1"];
    let said = dir.run(&words);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("ended with an error that would occur again"), "{said:?}");
    assert!(said.err.contains("studies/quick/sac-0") && said.err.contains("1 of 3 runs are not there yet"), "{said:?}");
    assert!(dir.path(&place("horizon-2-0")).join("curve.svg").exists() && said.out.contains("Eight"), "{said:?}");
    assert!(said.out.contains("SAC: 0 of 1 runs finished"), "{said:?}");
}

/// An error in the folder of one run concerns only that run.
#[test]
fn a_damaged_folder_does_not_keep_the_others_waiting() {
    let dir = Dir::new();
    dir.write("quick.toml", STUDY);
    let words = ["study", "quick.toml", "--seeds", "1", "--jobs", "1", "--only", "horizon"];
    dir.run(&["study", "quick.toml", "--seeds", "1", "--jobs", "1", "--only", "comparison"]).ok();
    for file in ["curve.svg", "checkpoints"] {
        let place = dir.path(&place("eight-0")).join(file);
        if place.is_dir() { fs::remove_dir_all(&place).unwrap() } else { fs::remove_file(&place).unwrap() }
    }
    fs::write(dir.path(&place("eight-0")).join("checkpoints"), "a file").unwrap();
    let said = dir.run(&words);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(dir.path(&place("horizon-2-0")).join("curve.svg").exists(), "{said:?}");
}

/// A full disk ends the study, not one run after the other; with room again, the same command continues to the same figures.
#[test]
#[cfg(unix)]
fn a_full_disk_loses_nothing() {
    let dir = Dir::new();
    dir.write("quick.toml", STUDY);
    let words = ["study", "quick.toml", "--seeds", "1", "--jobs", "1"];
    let said = dir.run_in_blocks(20, &words);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("to go on: mbrl study quick.toml --seeds 1"), "{said:?}");
    assert!(!dir.path(&place("sac-0")).exists(), "the next run was begun all the same: {said:?}");
    dir.run(&words).ok();
    let other = Dir::new();
    other.write("quick.toml", STUDY);
    other.run(&words).ok();
    for run in &RUNS[..3] {
        assert_eq!(dir.metrics(&place(run)), other.metrics(&place(run)), "{run}");
    }
}
