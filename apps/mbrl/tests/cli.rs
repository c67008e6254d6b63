//! The command line, from outside: its files, and its answers to bad input.

mod util;

use std::{fs, path::Path};

use util::{Dir, QUICK, Said};

#[test]
fn lists_tasks_and_experiments() {
    let said = Dir::new().run(&["list"]).ok();
    for word in ["smoke", "pets-cartpole-swingup-paper", "pddm-pendulum", "cartpole-swingup", "Pendulum-v1"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
}

#[test]
fn a_run_leaves_its_folder() {
    let dir = Dir::new();
    let said = dir.train(&["--out", "run", "--set", "train.eval_every=500"]).ok();
    assert!(said.out.contains("finished") && said.out.contains("500 in 3 episodes"), "{}", said.out);
    assert!(said.err.contains("episode   3"), "{}", said.err);
    let experiment = fs::read_to_string(dir.path("run/experiment.toml")).unwrap();
    for line in ["steps = 500", "population = 8", "replay_capacity = 1000000", "device = \"flex\""] {
        assert!(experiment.contains(line), "{line} is missing in\n{experiment}");
    }
    assert!(fs::read_to_string(dir.path("run/curve.svg")).unwrap().contains("real environment steps"));
    let rows = fs::read_to_string(dir.path("run/episodes/500-1.csv")).unwrap();
    assert_eq!(rows.lines().count(), 202, "a header, 200 steps and the last observation");
    let metrics = dir.metrics("run");
    let count = |event: &str| metrics.iter().filter(|line| line["event"] == event).count();
    // One random episode, two planned ones.
    assert_eq!((count("episode"), count("fit"), count("plan"), count("eval")), (3, 3, 2, 1));
    assert!(metrics.iter().all(|line| line.contains_key("env_step")));
    let mut left: Vec<_> =
        fs::read_dir(dir.path("run/checkpoints")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["400", "500", "shared"]);

    // The resolved experiment reproduces the run.
    fs::copy(dir.path("run/experiment.toml"), dir.path("again.toml")).unwrap();
    dir.run(&["train", "again.toml", "--out", "again"]).ok();
    assert_eq!(dir.metrics("again"), metrics);

    // A finished run says so, and nothing changes.
    let before = dir.files();
    let said = dir.run(&["resume", "run"]).ok();
    assert!(said.out.contains("already finished"), "{}", said.out);
    assert_eq!(dir.files(), before);

    // An evaluation writes nothing, and with the same seed gives the numbers of the one in training.
    let said = dir.run(&["eval", "run", "--episodes", "2"]).ok();
    let evaluation = metrics.iter().find(|line| line["event"] == "eval").unwrap();
    let mean = format!("mean return {:.3}", evaluation["eval/return_mean"].as_f64().unwrap());
    assert!(said.out.contains(&mean), "{mean}: {}", said.out);
    assert_eq!(dir.files(), before);
}

#[test]
fn a_diagnosis_looks_at_model_plans_and_values_of_a_run() {
    let dir = Dir::new();
    dir.train(&["--out", "run"]).ok();
    let before = dir.files();
    let said = dir.run(&["diagnose", "run", "--episodes", "1", "--plans", "2"]).ok();
    for word in ["angular_velocity", "the same planner in the simulator", "diagnosis.json", "diagnosis.svg"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    assert!(
        said.err.contains("running 1 episode\nmaking 2 plans in the model and as many in the simulator"),
        "{said:?}"
    );
    let text = fs::read_to_string(dir.path("run/diagnosis.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&found["plans"]["states"], &found["env_step"]), (&2.into(), &500.into()));
    assert_eq!(dir.files().len(), before.len() + 2, "nothing else is written");
    dir.run(&["report", "run"]).ok();
    let page = fs::read_to_string(dir.path("run/report.html")).unwrap();
    assert!(
        page.contains("the same planner in the simulator") && page.contains("by mbrl diagnose"),
        "no diagnosis in the report"
    );
    // From another place, with another seed, and on any number of threads: the same.
    let again = |threads| {
        let words = ["diagnose", "run", "--episodes", "1", "--plans", "2", "--seed", "3", "--threads", threads];
        let said = dir.run(&[&words[..], &["--out", "other.svg"]].concat()).ok();
        (said.out, fs::read_to_string(dir.path("other.json")).unwrap())
    };
    let (one, two) = (again("1"), again("2"));
    assert_eq!(one, two);
    assert_ne!(one.1, text);

    // With other settings: not in place of the run's own, and by what they say.
    let set = ["diagnose", "run", "--episodes", "1", "--plans", "2", "--set", "planner.horizon=3"];
    dir.run(&set).fails(2, &["--out <FILE.svg>"]);
    let said = dir.run(&[&set[..], &["--out", "short.svg"]].concat()).ok();
    assert!(said.out.contains("step 500, planner.horizon=3\n") && said.out.contains("plans   of 3 steps"), "{said:?}");
    let short: serde_json::Value = serde_json::from_str(&fs::read_to_string(dir.path("short.json")).unwrap()).unwrap();
    assert_eq!(short["set"], serde_json::json!(["planner.horizon=3"]));
    // The data are still the run's.
    let data = |found: &serde_json::Value| found["data"]["column_std"].as_array().unwrap().clone();
    assert_eq!(data(&short), data(&found));
    assert!(fs::read_to_string(dir.path("short.svg")).unwrap().contains("planner.horizon=3"));
    // Not taken for the run's own by a report.
    fs::copy(dir.path("short.json"), dir.path("run/diagnosis.json")).unwrap();
    dir.run(&["report", "run"]).ok();
    assert!(!fs::read_to_string(dir.path("run/report.html")).unwrap().contains("by mbrl diagnose"));
    dir.run(&["diagnose", "run", "--set", "model.members=3", "--out", "s.svg"])
        .fails(1, &["mbrl refit RUN --set model"]);

    let small = ["policy.hidden=[8]", "critics.hidden=[8]", "train.eval_every=0"].map(|set| ["--set", set]).concat();
    dir.run(&[&["train", "sac-pendulum", "--steps", "400", "--out", "free"], &small[..]].concat()).ok();
    let said = dir.run(&["diagnose", "free", "--episodes", "1"]).ok();
    assert!(said.out.contains("values  at 200 states: expected") && !said.out.contains("plans"), "{}", said.out);
}

#[test]
fn the_simulator_as_the_model_trains_and_evaluates_like_any_other() {
    let dir = Dir::new();
    let train = |words: &[&str]| {
        let eval = ["--set", "train.eval_every=250", "--set", "train.eval_episodes=1"];
        let quick = [&["train", "ground-truth-cartpole-swingup", "--steps", "250"], &eval[..]].concat();
        dir.run(&[&quick[..], words].concat()).ok()
    };
    let said = train(&["--out", "one", "--threads", "1"]);
    assert!(said.out.contains("250 in 2 episodes") && !said.err.contains("fit loss"), "{said:?}");
    let metrics = dir.metrics("one");
    let count = |event: &str| metrics.iter().filter(|line| line["event"] == event).count();
    assert_eq!((count("episode"), count("plan"), count("fit"), count("eval")), (2, 2, 0, 1));
    let whole = fs::read_to_string(dir.path("one/metrics.jsonl")).unwrap();
    assert_eq!(whole.matches("\"plan/ms\"").count(), 2);
    // 40 + 32 + 25 sequences and three elites in each of the later iterations, 25 steps each.
    let steps = metrics.iter().find(|line| line["event"] == "plan").unwrap()["plan/model_steps"].as_f64().unwrap();
    assert!((2400.0..2650.0).contains(&steps), "{steps}");
    // A hanging pole earns about 0 per step, an upright one 1: with the true model it swings up in the first episode.
    assert!(metrics[0]["episode/return"].as_f64().unwrap() > 120.0, "{metrics:?}");

    train(&["--out", "two", "--threads", "2"]);
    assert_eq!(dir.metrics("two"), metrics);
    let evaluation = metrics.iter().find(|line| line["event"] == "eval").unwrap();
    let mean = format!("mean return {:.3}", evaluation["eval/return_mean"].as_f64().unwrap());
    let said = dir.run(&["eval", "one", "--episodes", "1"]).ok();
    assert!(said.out.contains(&mean), "{mean}: {}", said.out);
    // The same episode is recorded as in the run.
    dir.run(&["eval", "one", "--episodes", "1", "--record", "seen"]).ok();
    let [seen, own] = ["seen", "one"].map(|run| fs::read(dir.path(run).join("episodes/250-1.csv")).unwrap());
    assert_eq!(seen, own);
    dir.run(&["eval", "one", "--episodes", "1", "--record", "seen"])
        .fails(1, &["--record seen: expected", "not there yet"]);
    dir.run(&["eval", "one", "--episodes", "1", "--record", "no/where"]).fails(1, &["--record no/where: expected"]);

    let resolved = fs::read_to_string(dir.path("one/experiment.toml")).unwrap();
    assert!(resolved.contains("kind = \"ground-truth\"") && !resolved.contains("[model]"), "{resolved}");
    train(&["--seeds", "2", "--out", "seeds"]);
    assert_eq!(dir.metrics("seeds/ground-truth-cartpole-swingup-0"), metrics);
    assert_ne!(dir.metrics("seeds/ground-truth-cartpole-swingup-1"), metrics);

    // Another planner, the task's own reward; planners that need gradients are refused.
    let other = ["--set", "planner.kind=mppi", "--set", "goal.reward=task", "--steps", "20", "--out", "mppi"];
    dir.run(&[&["train", "ground-truth-cartpole-swingup"], &other[..]].concat()).ok();
    for (word, key) in [("planner.kind=gradient", "planner.kind"), ("refinement.iterations=1", "refinement.iterations")]
    {
        let words = ["train", "ground-truth-cartpole-swingup", "--set", word, "--out", "refused"];
        dir.run(&words).fails(1, &[key, "gradients"]);
        assert!(!dir.path("refused").exists());
    }
}

#[test]
fn task_options_are_the_tasks_and_part_of_the_run() {
    let dir = Dir::new();
    let cliff =
        ["--set", "task=cliff", "--set", "agent.kind=ground-truth", "--set", "train.eval_every=0", "--steps", "60"];
    let words = ["--set", "task_options.edge=1.5", "--out", "run"];
    dir.run(&[&["train", "smoke"], &cliff[..], &words].concat()).ok();
    let resolved = fs::read_to_string(dir.path("run/experiment.toml")).unwrap();
    assert!(resolved.contains("[task_options]\nedge = 1.5"), "{resolved}");
    dir.run(&["resume", "run"]).ok();
    dir.write("run/experiment.toml", &resolved.replace("edge = 1.5", "edge = 1.25"));
    dir.run(&["resume", "run"]).fails(1, &["`edge = 1.25`", "`edge = 1.5`"]);
    refused(&["train", "smoke", "--set", "task_options.edge=1"], 1, &["pendulum", "`edge`"]);
    refused(
        &["train", "smoke", "--set", "task=cliff", "--set", "task_options.hedge=1"],
        1,
        &["cliff", "`hedge`", "`edge`"],
    );
}

/// A run of `smoke` that version 0.1 left after 400 of its steps: see `tests/runs`.
fn earlier(dir: &Dir) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runs/smoke-0.1");
    fs::create_dir_all(dir.path("run/checkpoints/400")).unwrap();
    for name in ["experiment.toml", "metrics.jsonl"] {
        fs::copy(from.join(name), dir.path("run").join(name)).unwrap();
    }
    for entry in fs::read_dir(from.join("checkpoints/400")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), dir.path("run/checkpoints/400").join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_run_of_the_version_before_goes_on() {
    let dir = Dir::new();
    earlier(&dir);
    let text = fs::read_to_string(dir.path("run/experiment.toml")).unwrap();
    assert!(text.contains("dynamics = \"ensemble\"") && text.contains("members = \"ts-inf\""), "{text}");
    // Real differences are refused.
    dir.write("run/experiment.toml", &text.replace("population = 40", "population = 41"));
    dir.run(&["resume", "run"]).fails(1, &["`population = 41`", "`population = 40`"]);
    dir.write("run/experiment.toml", &text.replace("steps = 400", "steps = 600"));
    let said = dir.run(&["eval", "run", "--episodes", "2"]).ok();
    assert!(said.out.contains("checkpoint of step 400") && !said.err.contains("warning"), "{said:?}");
    let before = dir.metrics("run");
    let said = dir.run(&["resume", "run"]).ok();
    assert!(said.out.contains("600 in 3 episodes") && !said.err.contains("warning"), "{said:?}");
    let after = dir.metrics("run");
    assert_eq!(after[..before.len()], before);
    // It equals the run that today's version makes from the start: to the bit on a processor with the instructions used for the first 400
    // steps; others add in another order.
    dir.run(&["train", "smoke", "--out", "today"]).ok();
    let today = dir.metrics("today");
    assert_eq!(after.len(), today.len());
    let alike = dir.run(&["doctor"]).out.contains("roll-outs run on avx512");
    let tolerance = if alike { 0.0 } else { 1e-4 };
    for (after, today) in after.iter().zip(&today).skip(before.len()) {
        assert!(after.keys().eq(today.keys()), "{after:?}, expected {today:?}");
        for (key, found) in after {
            let expected = &today[key];
            let close = |(found, expected): (f64, f64)| (found - expected).abs() <= tolerance * expected.abs();
            let same = found.as_f64().zip(expected.as_f64()).map_or(found == expected, close);
            assert!(same, "{key}: {found}, expected {expected}");
        }
    }
    let machine = fs::read_to_string(dir.path("run/machine.json")).unwrap();
    assert!(machine.contains("\"env_step\": 400") && !machine.contains("\"env_step\": 0"), "{machine}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let dir = Dir::new();
    dir.train(&["--out", "one", "--threads", "1"]).ok();
    dir.train(&["--out", "two", "--threads", "2"]).ok();
    assert_eq!(dir.metrics("one"), dir.metrics("two"));
    assert!(dir.metrics("one").iter().any(|line| line["event"] == "plan"));
    // The comparison can fail.
    dir.train(&["--out", "other", "--seed", "1"]).ok();
    assert_ne!(dir.metrics("one"), dir.metrics("other"));
}

#[test]
fn several_seeds_side_by_side_are_the_single_ones() {
    let dir = Dir::new();
    let said = dir.train(&["--seeds", "2", "--seed", "3", "--steps", "300"]).ok();
    assert!(said.out.contains("over 2 seeds"), "{}", said.out);
    assert!(dir.path("runs/smoke.from-3.svg").exists());
    dir.train(&["--seed", "4", "--steps", "300", "--out", "single"]).ok();
    assert_eq!(dir.metrics("runs/smoke-4"), dir.metrics("single"));
    assert_ne!(dir.metrics("runs/smoke-3"), dir.metrics("single"));

    // If resumed together, they are summarised in the same way.
    let summary = |said: &str| said.lines().find(|line| line.contains("over 2 seeds")).map(str::to_owned);
    assert_eq!(fs::read_dir(dir.path("runs")).unwrap().count(), 3, "two runs, which smoke-* names, and the picture");
    let curve = fs::read(dir.path("runs/smoke.from-3.svg")).unwrap();
    fs::remove_file(dir.path("runs/smoke.from-3.svg")).unwrap();
    dir.run(&["resume", "runs/smoke-3", "runs/../runs/smoke-3"]).fails(1, &["is named twice: expected each run once"]);
    let again = dir.run(&["resume", "runs/smoke-3", "runs/smoke-4"]).ok();
    assert_eq!(summary(&again.out), summary(&said.out));
    assert_eq!(fs::read(dir.path("runs/smoke.from-3.svg")).unwrap(), curve);

    // If some fail, each says why; resuming alone does not help.
    for seed in ["3", "4"] {
        fs::remove_file(dir.path("runs").join(format!("smoke-{seed}/metrics.jsonl"))).unwrap();
    }
    let errors = ["smoke-3/metrics.jsonl: missing", "smoke-4/metrics.jsonl: missing"];
    let said = dir.run(&["resume", "runs/smoke-3", "runs/smoke-4"]).fails(1, &errors);
    assert!(!said.err.contains("runs/smoke-3: "), "a file is named once: {}", said.err);
    assert!(said.out.contains("would occur again if simply resumed: runs/smoke-3 runs/smoke-4"), "{}", said.out);
    assert!(!dir.path("runs/smoke-3/metrics.jsonl").exists());
}

#[test]
fn seeds_find_all_their_places_free_or_take_none() {
    let dir = Dir::new();
    dir.train(&["--steps", "50", "--out", "many/smoke-1"]).ok();
    let before = dir.files();
    dir.train(&["--seeds", "2", "--out", "many"]).fails(1, &["many/smoke-1", "not empty"]);
    assert_eq!(dir.files(), before);
}

#[test]
fn a_run_goes_on_with_its_own_settings_and_for_longer() {
    let dir = Dir::new();
    dir.train(&["--out", "run", "--steps", "250"]).ok();
    let text = fs::read_to_string(dir.path("run/experiment.toml")).unwrap();
    dir.write("run/experiment.toml", &text.replace("population = 8", "population = 9"));
    let before = dir.files();
    for command in ["resume", "eval"] {
        dir.run(&[command, "run"]).fails(1, &["run.json", "`population = 9`", "`population = 8`"]);
    }
    assert_eq!(dir.files(), before);
    dir.write("run/experiment.toml", &text.replace("steps = 250", "steps = 420"));
    let said = dir.run(&["resume", "run"]).ok();
    assert!(said.out.contains("420 in 3 episodes"), "{}", said.out);
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_told_harms_no_run() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let dir = Dir::new();
    let words = |out| [&["train", "smoke"], &QUICK[..], &["--steps", "250", "--out", out]].concat();
    dir.run(&words("heard")).ok();
    // Progress output that cannot be written is no error.
    Said::of(&dir.command(&words("silent")).stderr(full()).output().unwrap()).ok();
    assert_eq!(dir.metrics("silent"), dir.metrics("heard"));
    // A result that cannot be written is one, but the run is complete.
    Said::of(&dir.command(&words("untold")).stdout(full()).output().unwrap()).fails(1, &["standard output"]);
    assert_eq!(dir.metrics("untold"), dir.metrics("heard"));
    assert!(dir.path("untold/curve.svg").exists());
    // A reader that has closed the pipe is no error.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = Said::of(&dir.command(&["list"]).stdout(writer).output().unwrap()).ok();
    assert_eq!(said.err, "");
}

#[test]
fn a_place_that_is_taken_is_never_overwritten() {
    let dir = Dir::new();
    dir.train(&["--steps", "50"]).ok();
    let before = dir.files();
    let said = dir.train(&["--steps", "50"]).ok();
    assert!(said.err.contains("runs/smoke-0 exists") && said.err.contains("smoke-0-2"), "{}", said.err);
    let after = dir.files();
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes));
    let before = after;
    dir.train(&["--out", "runs/smoke-0"]).fails(1, &["runs/smoke-0", "not empty"]);
    assert_eq!(dir.files(), before);
}

#[test]
fn a_random_agent_is_the_baseline() {
    let dir = Dir::new();
    let said = dir.run(&["eval", "--random", "pendulum", "--episodes", "3"]).ok();
    assert!(said.out.contains("over 3 episodes"), "{}", said.out);
    assert!(dir.files().is_empty());
}

// Bad input: each names the offending word, exits non-zero and leaves no file.

#[track_caller]
fn refused(words: &[&str], code: i32, offending: &[&str]) {
    let dir = Dir::new();
    dir.run(words).fails(code, offending);
    assert!(dir.files().is_empty(), "{:?}", dir.files().keys());
}

#[test]
fn an_unknown_experiment_is_named() {
    refused(&["train", "pets-cartpol"], 1, &["error: ", "`pets-cartpol`", "`pets-cartpole`"]);
    refused(&["train", "missing.toml"], 1, &["missing.toml", "No such file"]);
}

#[test]
fn an_unknown_key_is_named() {
    refused(&["train", "smoke", "--set", "planner.popluation=5"], 1, &["`planner.popluation`", "`planner.population`"]);
    let dir = Dir::new();
    let text = include_str!("../experiments/smoke.toml").replace("horizon", "horizont");
    dir.write("mine.toml", &text);
    let before = dir.files();
    dir.run(&["train", "mine.toml"]).fails(1, &["mine.toml", "`planner.horizont`", "`planner.horizon`"]);
    assert_eq!(dir.files(), before);
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    refused(&["train", "smoke", "--set", "planner.population=many"], 1, &["planner.population", "many"]);
}

#[test]
fn another_planner_says_what_it_kept() {
    let dir = Dir::new();
    let said = dir.train(&["--set", "planner.kind=random-shooting", "--steps", "20", "--out", "run"]);
    // `elites` is set too, and random shooting has none.
    said.fails(1, &["`planner.elites`"]);
    let words = ["train", "smoke", "--set", "planner.kind=icem", "--steps", "20", "--out", "run"];
    let said = dir.run(&words).ok();
    assert!(
        said.err.contains("note: planner.kind = \"icem\": keeps ") && said.err.contains("population = 40"),
        "{said:?}"
    );
    assert!(fs::read_to_string(dir.path("run/experiment.toml")).unwrap().contains("population = 40"));
}

#[test]
fn more_episodes_than_fit_into_memory_are_refused() {
    refused(
        &["eval", "--random", "pendulum", "--episodes", "9223372036854775807"],
        1,
        &["9223372036854775807", "100000"],
    );
    refused(&["train", "smoke", "--set", "train.eval_episodes=9223372036854775807"], 1, &["train.eval_episodes = 9"]);
}

#[test]
fn an_unknown_task_is_named() {
    refused(&["train", "smoke", "--set", "task=pendulun"], 1, &["`pendulun`", "pendulum"]);
    refused(&["eval", "--random", "pendulun"], 1, &["`pendulun`", "pendulum"]);
}

#[test]
fn an_unknown_device_is_named() {
    refused(&["train", "smoke", "--device", "tpu"], 1, &["\"tpu\"", "flex"]);
    refused(&["train", "smoke", "--device", "wgpu:first"], 1, &["`first`"]);
    if !cfg!(feature = "cuda") {
        refused(&["train", "smoke", "--device", "cuda:0"], 1, &["`cuda`", "--features cuda"]);
    }
}

#[test]
fn a_precision_that_would_change_nothing_is_refused() {
    let told = &["`precision`", "unknown key"];
    refused(&["train", "ground-truth-cartpole-swingup", "--set", "precision=bf16"], 1, told);
    #[cfg(feature = "wgpu")]
    refused(&["train", "smoke", "--device", "wgpu", "--set", "precision=bf16"], 1, &["precision", "wgpu"]);
}

#[test]
fn values_that_break_a_rule_are_named() {
    for (value, offending) in [
        ("planner.population=0", "planner.population = 0: expected at least one candidate"),
        ("planner.horizon=0", "planner.horizon = 0: expected "),
        ("planner.elites=41", "planner.elites = 41: expected "),
        ("train.max_breakdowns=0", "train.max_breakdowns = 0: expected at least 1"),
        ("agent.replay_capacity=1", "agent.replay_capacity = 1: expected at least 2"),
        ("fit.holdout=2", "fit.holdout = 2: expected "),
        ("wrappers.action_repeat=0", "wrappers.action_repeat = 0: expected at least 1"),
        ("model.past=99999999999", "model.past = 99999999999: expected "),
        ("precision=0", "precision = 0: expected one of f32, bf16"),
        ("propagation.particles=0", "particles"),
        ("model.members=0", "members"),
        ("model.angles=[3]", "angles"),
        ("fit.batch_size=0", "batch_size"),
        ("agent.random_steps=0", "random_steps"),
        ("goal.discount=0", "discount"),
        ("steps=0", "error: steps = 0: expected at least 1"),
        ("mpc.replan={every=0}", "mpc.replan = every 0 steps: expected at least 1 step"),
        // Folders are named after it.
        ("name=../elsewhere", "../elsewhere"),
        ("name=..", "name"),
        ("name=", "name"),
        // Rules that only a roll-out checks: three members.
        ("propagation.particles=4", "particles"),
        ("propagation.rule=expectation", "particles"),
        // Sizes beyond any machine.
        ("planner.population=1000000000000", "1000000000000"),
        ("planner.horizon=9000000000000000000", "9000000000000000000"),
        ("propagation.particles=3000000000000", "3000000000000"),
        ("model.members=1000000000000", "1000000000000"),
        ("model.hidden=[1000000,1000000]", "[1000000, 1000000]"),
    ] {
        refused(&["train", "smoke", "--set", value], 1, &[offending]);
    }
}

#[test]
fn a_word_of_any_length_is_told_in_a_line() {
    let long = "x".repeat(100_000);
    for word in [format!("task={long}"), format!("planner.population={long}"), format!("{long}=3")] {
        let said = Dir::new().run(&["train", "smoke", "--set", &word]);
        assert!(said.code == Some(1) && said.err.len() < 2000, "{} bytes", said.err.len());
    }
}

#[test]
fn a_model_that_diverges_costs_plans_and_not_the_run() {
    let dir = Dir::new();
    let said = dir.train(&["--set", "fit.learning_rate=30", "--set", "train.eval_every=500", "--out", "run"]).ok();
    let metrics = dir.metrics("run");
    let sum = |name: &str| metrics.iter().filter_map(|line| line.get(name)?.as_u64()).sum::<u64>();
    assert!(sum("plan/failed") > 0 && sum("eval/failed_plans") > 0 && sum("episode/breakdown") == 0, "{metrics:?}");
    let failed = format!("{} plans failed", sum("plan/failed"));
    assert!(said.out.contains(&failed) && said.err.contains("WARN") && said.out.contains("finished"), "{said:?}");
    let said = dir.run(&["eval", "run", "--episodes", "2"]).ok();
    assert!(said.out.contains("plans failed") && said.out.contains("mean return"), "{said:?}");

    // Too many in a row end the run, without advice that would not help.
    let words = ["--set", "fit.learning_rate=30", "--set", "train.max_breakdowns=1", "--out", "ended"];
    let said = dir.train(&words).fails(1, &["train.max_breakdowns", "finite return", "ended"]);
    assert!(
        !said.out.contains("mbrl resume") && said.out.contains("would occur again if simply resumed: ended"),
        "{said:?}"
    );
    let again = dir.run(&["resume", "ended"]).fails(1, &["train.max_breakdowns"]);
    assert!(!again.out.contains("mbrl resume"), "{again:?}");

    // If every fit diverges, nothing is learned, and the output says so.
    let said = dir.train(&["--set", "fit.learning_rate=1000", "--out", "random"]).ok();
    assert!(said.out.contains("3 of 3 fits diverged: nothing was learned"), "{said:?}");
}

#[test]
fn a_run_goes_on_for_longer_than_it_was_to() {
    let dir = Dir::new();
    dir.train(&["--out", "run", "--steps", "250"]).ok();
    dir.run(&["resume", "run", "--steps", "249"]).fails(1, &["--steps = 249: expected at least 250", "run"]);
    let said = dir.run(&["resume", "run", "--steps", "420"]).ok();
    assert!(said.out.contains("420 in 3 episodes"), "{}", said.out);
    assert!(fs::read_to_string(dir.path("run/experiment.toml")).unwrap().contains("steps = 420"));
    // The folder keeps the new budget.
    assert!(dir.run(&["resume", "run"]).ok().out.contains("already finished"));
    let said = dir.train(&["--out", "one", "--steps", "50"]).ok();
    assert!(said.out.contains("50 in 1 episode\n"), "{}", said.out);
}

#[test]
fn the_best_checkpoint_is_kept_and_can_be_chosen() {
    let dir = Dir::new();
    let words = ["--set", "train.eval_every=1", "--set", "train.eval_episodes=2", "--steps", "800", "--out", "run"];
    let said = dir.train(&words).ok();
    let found: Vec<(u64, f64)> = dir
        .metrics("run")
        .iter()
        .filter(|line| line["event"] == "eval")
        .map(|line| (line["env_step"].as_u64().unwrap(), line["eval/return_mean"].as_f64().unwrap()))
        .collect();
    let (step, mean) = found.iter().copied().reduce(|best, x| if x.1 > best.1 { x } else { best }).unwrap();
    assert!(said.out.contains(&format!("best    mean return {mean:.2} at step {step}: mbrl eval run")), "{said:?}");
    for (which, step, mean) in [
        ("best", step, mean),
        (&step.to_string(), step, mean),
        ("last", 800, found.last().unwrap().1),
        ("600", 600, found[found.len() - 2].1),
    ] {
        let said = dir.run(&["eval", "run", "--episodes", "2", "--checkpoint", which]).ok();
        let told = format!("mean return {mean:.3}");
        assert!(said.out.contains(&format!("checkpoint of step {step}\n")) && said.out.contains(&told), "{said:?}");
    }
    dir.run(&["eval", "run", "--checkpoint", "7"]).fails(1, &["no checkpoint of step 7", "800"]);
    dir.run(&["eval", "run", "--checkpoint", "newest"]).fails(2, &["best, last or a number of steps"]);
    dir.run(&["eval", "--random", "pendulum", "--checkpoint", "best"]).fails(2, &["--checkpoint"]);
    dir.run(&["render", "run", "--checkpoint", "7"]).fails(1, &["no evaluation was recorded at step 7"]);
    let log = "run/episodes/800-1.csv";
    let said = dir.run(&["evaluate-model", "run", log, "--checkpoint", "600", "--horizon", "2"]).ok();
    assert!(said.out.contains("step 600"), "{said:?}");
    dir.run(&["eval", "run", "--episodes", "1"]).ok();
}

#[test]
fn what_a_killed_command_left_is_removed_by_the_next_one() {
    let dir = Dir::new();
    dir.train(&["--steps", "250"]).ok();
    let kept = dir.files().into_keys().collect::<Vec<_>>();
    let left = ["runs/.smoke-0.4194305.partial", "runs/smoke-0/checkpoints/9.partial"];
    for folder in left {
        fs::create_dir(dir.path(folder)).unwrap();
        fs::write(dir.path(folder).join("experiment.toml"), "half").unwrap();
    }
    let half = dir.path("runs/smoke-0/curve.svg.partial");
    fs::write(&half, "half").unwrap();
    let hour = std::time::Duration::from_secs(3600);
    fs::File::open(&half).unwrap().set_modified(std::time::SystemTime::now() - hour).unwrap();
    // Opening a run cleans up its folder; a new run beside it cleans up the parent folder, once the leftovers are old enough.
    dir.run(&["eval", "runs/smoke-0", "--episodes", "1"]).ok();
    assert!(!dir.path(left[1]).exists() && !half.exists());
    std::thread::sleep(std::time::Duration::from_millis(2100));
    dir.train(&["--steps", "50", "--out", "runs/other"]).ok();
    assert!(!dir.path(left[0]).exists());
    fs::remove_dir_all(dir.path("runs/other")).unwrap();
    assert_eq!(dir.files().into_keys().collect::<Vec<_>>(), kept);
}

#[cfg(unix)]
#[test]
fn a_full_disk_at_the_list_of_starts_loses_nothing() {
    let dir = Dir::new();
    for out in ["run", "whole"] {
        dir.train(&["--out", out, "--steps", "250"]).ok();
    }
    let machine = fs::read(dir.path("run/machine.json")).unwrap();
    // The list is the first file that a resumed run writes.
    let said = dir.run_in_blocks(0, &["resume", "run", "--steps", "420"]).fails(1, &["machine.json", "File too large"]);
    assert!(said.out.contains("to go on: mbrl resume run"), "{said:?}");
    assert_eq!(fs::read(dir.path("run/machine.json")).unwrap(), machine);
    for out in ["run", "whole"] {
        dir.run(&["resume", out, "--steps", "420"]).ok();
    }
    assert_eq!(dir.metrics("run"), dir.metrics("whole"));
}

#[test]
fn a_command_line_without_sense_is_a_usage_error() {
    refused(&["trian", "smoke"], 2, &["trian"]);
    refused(&["train", "smoke", "--seeds", "0"], 2, &["--seeds"]);
    refused(&["train", "smoke", "--seed", "9223372036854775808"], 2, &["--seed", "9223372036854775808"]);
    refused(&["train", "smoke", "--seed", "9223372036854775807", "--seeds", "2"], 1, &["seed + seeds", "2^63"]);
    refused(&["eval"], 2, &["Usage"]);
    for [command, name] in [["train", "--steps"], ["train", "--seed"], ["train", "--seeds"], ["eval", "--episodes"]] {
        refused(&[command, "smoke", name, "-5"], 2, &["invalid value '-5'", name]);
    }
    refused(&["eval", "--random", "pendulum", "--episodes", "0"], 2, &["--episodes"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = Dir::new();
    // Nobody can create a folder under a regular file, not even root.
    dir.write("file", "kept");
    let before = dir.files();
    dir.train(&["--out", "file/run"]).fails(1, &["file"]);
    dir.train(&["--out", "file"]).fails(1, &["file"]);
    assert_eq!(dir.files(), before);
    // Nor in a file system of the kernel; the error names the requested place, not a temporary one.
    if cfg!(target_os = "linux") {
        let said = dir.train(&["--out", "/proc/mbrl-run"]).fails(1, &["/proc/mbrl-run"]);
        assert!(!said.err.contains(".partial"), "{}", said.err);
    }
}

/// Blocks of a full disk: before the run, at its first checkpoint, at its second, at an evaluation and at the last one.
#[cfg(unix)]
const FULL: [u32; 6] = [0, 2, 8, 16, 30, 34];

#[cfg(unix)]
#[test]
fn a_full_disk_names_the_file_and_loses_nothing() {
    let words = |out| {
        [&["train", "smoke"], &QUICK[..], &["--set", "train.eval_every=400", "--set", "model.hidden=[8]", "--out", out]]
            .concat()
    };
    let dir = Dir::new();
    dir.run(&words("whole")).ok();
    let expected = dir.metrics("whole");
    let (mut named, mut midway) = (std::collections::BTreeSet::new(), 0);
    for blocks in FULL {
        let dir = Dir::new();
        let said = dir.run_in_blocks(blocks, &words("run")).fails(1, &["error: ", "File too large"]);
        assert!(!said.err.contains("experiment.toml.partial"), "{}", said.err);
        let files = ["experiment.toml", "metrics.jsonl", "shared/replay", "shared/model", ".csv", "curve.svg"];
        named.extend(files.into_iter().filter(|file| said.err.contains(file)));
        midway += usize::from(dir.path("run/checkpoints/200/manifest.json").exists());
        if dir.path("run").exists() {
            let said = dir.run(&["resume", "run"]).ok();
            assert!(!said.err.contains("warning"), "{}", said.err);
        } else {
            assert!(dir.files().is_empty(), "{:?}", dir.files().keys());
            dir.run(&words("run")).ok();
        }
        assert_eq!(dir.metrics("run"), expected, "{blocks} blocks");
        assert!(dir.path("run/curve.svg").exists());
    }
    assert!(named.len() >= 3 && midway >= 2, "{named:?}, {midway} after the first checkpoint");
}

#[test]
fn runs_are_called_after_what_was_changed_and_nothing_is_overwritten() {
    let dir = Dir::new();
    let few = ["train", "smoke", "--steps", "20", "--seeds", "2"];
    let kinds: [&[&str]; 3] = [&[], &["--set", "planner.population=80"], &[]];
    let mut pictures = Vec::new();
    for words in kinds {
        let before = dir.files();
        dir.run(&[&few[..], words].concat()).ok();
        let after = dir.files();
        assert!(before.iter().all(|(file, content)| after.get(file) == Some(content)), "something was overwritten");
        let new = after.keys().filter(|file| !before.contains_key(*file) && file.parent().unwrap().ends_with("runs"));
        let names = new.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned());
        pictures.extend(names.filter(|name| name.ends_with(".svg")));
    }
    assert_eq!(pictures, ["smoke.svg", "smoke,planner.population=80.svg", "smoke.2.svg"]);
    assert!(dir.path("runs/smoke,planner.population=80-1/curve.svg").exists());
}

#[test]
fn a_folder_without_a_run_is_named() {
    refused(&["resume", "nowhere"], 1, &["nowhere", "experiment.toml"]);
    refused(&["eval", "nowhere"], 1, &["nowhere", "experiment.toml"]);
}

#[test]
fn a_run_that_was_killed_before_its_first_checkpoint_starts_over() {
    let dir = Dir::new();
    dir.train(&["--out", "run", "--steps", "250"]).ok();
    let expected = dir.metrics("run");
    fs::remove_dir_all(dir.path("run/checkpoints")).unwrap();
    dir.run(&["eval", "run"]).fails(1, &["run", "no checkpoint"]);

    // It had passed its first checkpoint, which is lost; starting over would lose the record too.
    let before = dir.files();
    dir.run(&["resume", "run"]).fails(1, &["run/checkpoints", "2 episodes"]);
    assert_eq!(dir.files(), before);

    let record = fs::read_to_string(dir.path("run/metrics.jsonl")).unwrap();
    let second = record.match_indices(r#"{"event":"episode""#).nth(1).unwrap().0;
    dir.write("run/metrics.jsonl", &record[..second]);
    dir.run(&["resume", "run"]).ok();
    assert_eq!(dir.metrics("run"), expected);
}

#[test]
fn bad_checkpoints_are_named_and_nothing_is_lost() {
    let dir = Dir::new();
    dir.train(&["--out", "run"]).ok();
    let expected = dir.metrics("run");
    let newest = dir.path("run/checkpoints/500");
    let manifest = fs::read_to_string(newest.join("manifest.json")).unwrap();

    // Foreign and newer ones are refused, although an older checkpoint is intact.
    let today = format!("\"format\": {}", mbrl_policy::FORMAT);
    assert!(manifest.contains(&today), "{manifest}");
    for (from, to, offending) in
        [("\"mbrl\"", "\"other\"", "`other`"), (&*today, "\"format\": 99", "format 99 is newer")]
    {
        fs::write(newest.join("manifest.json"), manifest.replace(from, to)).unwrap();
        let before = dir.files();
        dir.run(&["resume", "run"]).fails(1, &["checkpoints/500/manifest.json", offending]);
        dir.run(&["eval", "run"]).fails(1, &["checkpoints/500/manifest.json", offending]);
        assert_eq!(dir.files(), before);
    }
    fs::write(newest.join("manifest.json"), &manifest).unwrap();

    // A damaged one is skipped with a warning: the last episode is repeated.
    let model = fs::read(newest.join("agent.json")).unwrap();
    fs::write(newest.join("agent.json"), &model[..model.len() / 2]).unwrap();
    let said = dir.run(&["resume", "run"]).ok();
    assert!(said.err.contains("warning") && said.err.contains("500/agent.json"), "{}", said.err);
    assert_eq!(dir.metrics("run"), expected);
    assert_eq!(fs::read(newest.join("agent.json")).unwrap(), model);

    // If all are damaged, it is an error.
    for step in ["400", "500"] {
        fs::write(dir.path("run/checkpoints").join(step).join("agent.json"), "").unwrap();
    }
    let before = dir.files();
    dir.run(&["resume", "run"]).fails(1, &["agent.json", "0 bytes"]);
    assert_eq!(dir.files(), before);

    // So is a record shorter than the checkpoint says.
    fs::write(newest.join("agent.json"), &model).unwrap();
    dir.write("run/metrics.jsonl", "{}\n");
    let before = dir.files();
    dir.run(&["resume", "run"]).fails(1, &["metrics.jsonl", "3 bytes"]);
    assert_eq!(dir.files(), before);

    // A checkpoint that exists but cannot be read does not count as damaged.
    fs::remove_file(newest.join("agent.json")).unwrap();
    fs::create_dir(newest.join("agent.json")).unwrap();
    let before = dir.files();
    dir.run(&["resume", "run"]).fails(1, &["500/agent.json", "directory"]);
    assert_eq!(dir.files(), before);
}

#[test]
fn policies_are_exported_and_act_as_in_their_run() {
    use mbrl_env::tasks;
    use mbrl_policy::{ExportedPolicy, PolicyAgent, evaluate, start_seeds};

    let dir = Dir::new();
    let small = ["--set", "policy.hidden=[8]", "--set", "critics.hidden=[8]", "--set", "train.checkpoint_episodes=1"];
    dir.run(&[&["train", "sac-pendulum", "--steps", "410", "--out", "run"], &small[..]].concat()).ok();
    let said = dir.run(&["export", "run"]).ok();
    assert!(said.out.contains("policy-410.safetensors") && said.out.contains("[3] to actions [1]"), "{}", said.out);
    let policy = ExportedPolicy::load(&dir.path("run/policy-410.safetensors")).unwrap();
    let info = policy.info();
    assert_eq!((info.task.as_str(), info.agent.as_str(), info.env_step), ("pendulum", "sac", 410));
    let mut task = tasks::make("pendulum").unwrap();
    let found = evaluate(&mut task.env, &mut PolicyAgent::new(policy), &start_seeds(0, 2)).unwrap();
    let said = dir.run(&["eval", "run", "--episodes", "2"]).ok();
    let mean = format!("mean return {:.3}", found.return_mean());
    assert!(said.out.contains(&mean), "{mean}: {}", said.out);

    // Older checkpoints; existing files are left alone; other names are refused.
    dir.run(&["export", "run", "--checkpoint", "400", "--out", "older.safetensors"]).ok();
    assert_eq!(ExportedPolicy::load(&dir.path("older.safetensors")).unwrap().info().env_step, 400);
    let before = dir.files();
    dir.run(&["export", "run"]).fails(1, &["policy-410.safetensors", "exists"]);
    dir.run(&["export", "run", "--out", "older.safetensors"]).fails(1, &["older.safetensors", "exists"]);
    dir.run(&["export", "run", "--out", "policy.bin"]).fails(1, &["policy.bin", ".safetensors"]);
    dir.run(&["export", "run", "--out", "nowhere/policy.safetensors"]).fails(1, &["no folder nowhere"]);
    dir.run(&["export", "run", "--checkpoint", "300"]).fails(1, &["300"]);
    dir.run(&["export", "none"]).fails(1, &["none", "not a run folder"]);
    assert_eq!(dir.files(), before);

    // A policy serves only its task.
    let refused = ["agent.kind = \"sac\"", "expected \"model-based\""];
    dir.run(&["eval", "run", "--set", "task_options.dt=0.1"]).fails(1, &refused);
    dir.run(&["eval", "older.safetensors"]).fails(1, &["format = \"mbrl-policy\": expected mbrl-agent"]);
}

/// The lines of an evaluation, without its time.
fn judged(said: &Said) -> Vec<String> {
    let lines = said.out.lines().map(|line| line.split(" (").next().unwrap_or_default().to_owned());
    lines.filter(|line| !line.starts_with("checkpoint")).collect()
}

#[test]
fn a_run_is_refitted_without_a_new_step_and_goes_on() {
    let dir = Dir::new();
    dir.train(&["--out", "run"]).ok();
    let before = dir.files();
    let evaluated = ["--set", "train.eval_every=100", "--set", "train.eval_episodes=2"];
    let words = [&["refit", "run", "--set", "model.hidden=[24]", "--set", "fit.holdout=0.2"], &evaluated[..]].concat();
    let said = dir.run(&words).ok();
    let rest = "run-refit: refitted to 500 transitions\n  fit     ";
    assert!(said.out.contains(rest) && said.out.contains("on held-out data"), "{said:?}");
    // One fit of another network to the data of the run, judged on its holdout, and one evaluation.
    let metrics = dir.metrics("run-refit");
    let events: Vec<&str> = metrics.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["fit", "eval"]);
    assert!(metrics.iter().all(|line| line["env_step"] == 500));
    let (rows, held) = (&metrics[0]["model/transitions"], &metrics[0]["model/holdout_rows"]);
    assert_eq!((rows.as_f64(), held.as_f64()), (Some(500.0), Some(100.0)));
    // The start states of an evaluation are those of any other.
    let judged_by = |run: &str| judged(&dir.run(&["eval", run, "--episodes", "2"]).ok());
    let (old, new) = (judged_by("run"), judged_by("run-refit"));
    assert_ne!(old, new, "another model");
    let mean = metrics[1]["eval/return_mean"].as_f64().unwrap();
    assert!(new.last().unwrap().contains(&format!("mean return {mean:.3}")), "{mean}: {new:?}");
    // The same bits on any number of threads, into the next free folder; the run stays as it is.
    dir.run(&[&words[..], &["--threads", "1"]].concat()).ok();
    assert_eq!(dir.metrics("run-refit-2"), metrics);
    let mut kept = dir.files();
    kept.retain(|file, _| before.contains_key(file));
    assert_eq!(kept, before);

    // In a comparison, it is at the step where its data ends, and refits of two seeds are seeds of one method.
    dir.train(&["--seed", "1", "--out", "other"]).ok();
    dir.run(&[&["refit", "other"], &words[2..]].concat()).ok();
    let said = dir.run(&["compare", "run-refit", "other-refit", "--at", "500"]).ok();
    assert!(
        said.out.contains("n = 2") || said.out.lines().any(|line| line.contains("smoke-refit") && line.contains(" 2 ")),
        "{said:?}"
    );
    assert!(!said.err.contains("step 0"), "{said:?}");

    // It continues from there.
    let said = dir.run(&["resume", "run-refit", "--steps", "700"]).ok();
    assert!(said.out.contains("steps   700 in"), "{said:?}");
    let steps = dir.metrics("run-refit").iter().filter_map(|line| line["env_step"].as_u64()).collect::<Vec<_>>();
    assert!(steps[..2] == [500, 500] && steps[2..].iter().all(|step| *step > 500), "{steps:?}");

    // It keeps as many of the newest transitions as requested, and lies beside a run that is given as `.`.
    let few = ["--set", "agent.replay_capacity=120", "--set", "train.eval_every=0"];
    let said = dir.run(&[&["refit", "run", "--out", "few"], &few[..]].concat()).ok();
    assert!(
        said.out.contains("few: refitted to 120 transitions") && said.out.contains("mbrl resume few --steps"),
        "{said:?}"
    );
    let said = dir.command(&[&["refit", "."], &few[..]].concat()).current_dir(dir.path("run")).output().unwrap();
    let said = Said::of(&said).ok();
    assert!(said.out.contains("run-refit-3: refitted"), "{said:?}");
    let text = fs::read_to_string(dir.path("few/experiment.toml")).unwrap();
    assert!(text.contains("-refit\"") && text.contains("(refitted to the data of run)"), "{text}");

    // Invalid cases: another environment, fewer steps than were taken, a fit that diverges, a taken place, agents that learn a
    // policy. Nothing is left behind.
    let before = dir.files();
    let refused = |words: &[&str], told: &[&str]| dir.run(&[&["refit"], words].concat()).fails(1, told);
    refused(&["run", "--set", "task=cliff"], &["--set task: expected that of the run"]);
    refused(&["run", "--set", "wrappers.action_repeat=2"], &["--set wrappers: expected that of the run"]);
    refused(&["run", "--out", "run/inner"], &["expected a folder outside of the run run"]);
    refused(&["run", "--set", "steps=400"], &["expected at most steps = 400, found 500 steps taken"]);
    refused(&["run", "--set", "fit.learning_rate=1e30"], &["a fit that does not diverge"]);
    refused(&["run", "--out", "run"], &["run exists and is not empty"]);
    refused(&["run", "--checkpoint", "7"], &["no checkpoint of step 7"]);
    assert_eq!(dir.files(), before);
    let small = ["policy.hidden=[8]", "critics.hidden=[8]"].map(|set| ["--set", set]).concat();
    dir.run(&[&["train", "sac-pendulum", "--steps", "300", "--out", "free"], &small[..]].concat()).ok();
    refused(&["free"], &["agent sac: cannot be refitted", "model-based"]);
}

#[test]
fn agents_that_plan_are_exported_and_plan_as_in_their_run() {
    let dir = Dir::new();
    dir.train(&["--set", "task=cliff", "--out", "run"]).ok();
    let said = dir.run(&["export", "run", "--out", "agent.safetensors"]).ok();
    assert!(
        said.out.contains("agent.safetensors: an agent that plans on cliff") && said.out.contains("crc32c"),
        "{said:?}"
    );
    let size = fs::metadata(dir.path("agent.safetensors")).unwrap().len();
    assert!(said.out.contains(&format!("{:.2} MB", size as f64 / 1e6)) && size < 1_000_000, "{said:?}");
    let judge = |words: &[&str]| judged(&dir.run(&[&["eval"], words, &["--episodes", "2"]].concat()).ok());
    let in_its_run = judge(&["run"]);
    assert_eq!(in_its_run.len(), 3, "{in_its_run:?}");

    // Its model on the same task with another edge, and with another planner, from the run and from the file.
    let elsewhere = ["--set", "task_options.edge=0.3"];
    let from_run = judge(&[&["run"], &elsewhere[..]].concat());
    assert_ne!(from_run, in_its_run);
    assert_eq!(judge(&["run", "--set", "task=cliff"]), in_its_run, "the same task");
    assert_ne!(judge(&["run", "--set", "planner.horizon=2"]), in_its_run);
    // Another planner keeps what both have, and says what it leaves out.
    let said = dir.run(&["eval", "run", "--episodes", "1", "--set", "planner.kind=random-shooting"]).ok();
    assert!(said.err.contains("note: planner.kind = \"random-shooting\""), "{said:?}");
    // No data and no checkpoints are needed.
    let before = dir.files();
    fs::rename(dir.path("run"), dir.path("gone")).unwrap();
    assert_eq!(judge(&["agent.safetensors"]), in_its_run);
    assert_eq!(judge(&["agent.safetensors", "--set", "device=ndarray"]).len(), 3, "on another device");
    let which = ["eval", "agent.safetensors", "--checkpoint", "best"];
    dir.run(&which).fails(1, &["--checkpoint: agent.safetensors is an exported agent, which has no checkpoints"]);
    assert_eq!(judge(&[&["agent.safetensors"], &elsewhere[..]].concat()), from_run);
    fs::rename(dir.path("gone"), dir.path("run")).unwrap();
    assert_eq!(dir.files(), before, "an evaluation leaves nothing");

    // A learned reward belongs to its own task.
    let learned = ["--set", "task=cliff", "--set", "model.reward=true", "--set", "goal.reward=model", "--out", "paid"];
    dir.train(&learned).ok();
    let told = |more: &[&str]| {
        let said = dir.run(&[&["eval", "paid", "--episodes", "1"], more].concat()).ok();
        said.err.contains("plans use the reward that the model learned in its own task")
    };
    assert!(told(&elsewhere) && !told(&[]) && !told(&["--set", "planner.horizon=2"]));
    assert!(!told(&[&elsewhere[..], &["--set", "goal.reward=task"]].concat()));
    // Nor can its promises there be compared with what the simulator pays.
    let diagnosed = |run, more: &[&str]| {
        dir.run(
            &[&["diagnose", run, "--episodes", "1", "--plans", "1", "--out", "there.svg"], &elsewhere[..], more]
                .concat(),
        )
    };
    diagnosed("paid", &[]).fails(1, &["the model has learned the reward of its own task", "--set goal.reward=task"]);
    diagnosed("paid", &["--set", "goal.reward=task"]).ok();
    let said = diagnosed("run", &[]).ok();
    assert!(said.out.contains("step 500, task_options.edge=0.3\n"), "{said:?}");

    // Tasks with other columns, unknown keys.
    let other = ["eval", "agent.safetensors", "--set", "task=pendulum"];
    dir.run(&other).fails(1, &["the model of cliff cannot be used on pendulum, expected the same observations"]);
    dir.run(&["eval", "run", "--set", "task_options.hedge=1"]).fails(1, &["`hedge`"]);
    // Settings that an evaluation would not read.
    for (word, way) in [
        ("seed=5", "--seed N"),
        ("fit.max_epochs=1", "mbrl refit RUN"),
        ("agent.fit_every=5", "mbrl refit RUN"),
        ("model.nll_beta=0.5", "mbrl refit RUN"),
        ("steps=9", "resume"),
    ] {
        dir.run(&["eval", "run", "--set", word]).fails(1, &[&format!("--set {word}: "), way]);
    }
    // Damaged files, files without an agent, agents that have learned nothing.
    let bytes = fs::read(dir.path("agent.safetensors")).unwrap();
    fs::write(dir.path("cut.safetensors"), &bytes[..bytes.len() - 9]).unwrap();
    dir.run(&["eval", "cut.safetensors"]).fails(1, &["cut.safetensors", "no whole file of safetensors"]);
    dir.run(&["eval", "nowhere.safetensors"]).fails(1, &["nowhere.safetensors"]);
    let said = dir.train(&["--steps", "100", "--out", "young"]).ok();
    assert!(
        said.err.contains("warning: agent.random_steps = 200: expected less than steps = 100; all actions are random"),
        "{said:?}"
    );
    dir.run(&["export", "young"]).fails(1, &["young", "after its first fit"]);
}

#[cfg(feature = "wgpu")]
#[test]
fn a_gpu_learns_and_plans_too() {
    let dir = Dir::new();
    dir.train(&["--device", "wgpu", "--steps", "410", "--out", "gpu"]).ok();
    dir.train(&["--device", "flex", "--steps", "410", "--out", "cpu"]).ok();
    let (gpu, cpu) = (dir.metrics("gpu"), dir.metrics("cpu"));
    assert_eq!(gpu.len(), cpu.len());
    // The same draws on both: the random episode is equal, and so is the loss after the first fit, up to rounding.
    assert_eq!(gpu[0], cpu[0]);
    let loss = |run: &[serde_json::Map<String, serde_json::Value>]| {
        run.iter().find_map(|line| line.get("model/train_loss")?.as_f64()).unwrap()
    };
    assert!((loss(&gpu) - loss(&cpu)).abs() < 1e-2 * loss(&cpu).abs(), "{} {}", loss(&gpu), loss(&cpu));
}

#[cfg(feature = "wgpu")]
#[test]
fn a_policy_learns_on_a_gpu_or_says_that_it_does_not() {
    let dir = Dir::new();
    let train = |device: &str| {
        let small = ["--set", "policy.hidden=[8]", "--set", "critics.hidden=[8]", "--set", "agent.random_steps=190"];
        let words = ["train", "sac-pendulum", "--steps", "200", "--device", device, "--out", device];
        dir.run(&[&words[..], &small[..]].concat()).ok();
        let metrics = dir.metrics(device);
        let of = |key: &str| metrics.iter().find_map(|line| line.get(key)?.as_f64()).unwrap();
        ["episode/return", "critic/loss", "actor/loss", "actor/entropy"].map(of)
    };
    for (gpu, cpu) in train("wgpu").into_iter().zip(train("flex")) {
        assert!((gpu - cpu).abs() < 1e-3 * cpu.abs().max(1.0), "{gpu} {cpu}");
    }
    let refused = dir.run(&["train", "npg-cartpole", "--device", "wgpu", "--out", "npg"]);
    refused.fails(1, &["device = \"wgpu\"", "flex", "natural policy gradients"]);
    assert!(!dir.path("npg").exists());
}
