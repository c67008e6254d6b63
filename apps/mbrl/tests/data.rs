//! From a log of a machine to an evaluated model, and the errors where that is impossible.

mod util;

use std::{fmt::Write as _, fs};

use serde_json::Value;
use util::{Dir, QUICK};

/// A small network and few epochs.
const SMALL: [&str; 6] = ["--set", "model.hidden=[32,32]", "--set", "model.members=3", "--epochs", "40"];

/// A damped pendulum under a changing torque, as its controller might write it: episodes of 50 rows.
fn log(episodes: u32) -> String {
    let mut text = String::from("run,time,angle,speed,torque\n");
    // A separate generator, so that the numbers never change.
    let mut state = 12_345_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) * 2.0 - 1.0
    };
    for run in 0..episodes {
        let (mut angle, mut speed) = (random(), 2.0 * random());
        for step in 0..50 {
            let torque = 2.0 * random();
            writeln!(text, "{run},{:.2},{angle:.6},{speed:.6},{torque:.6}", 0.05 * f64::from(step)).unwrap();
            speed += 0.05 * (-9.0 * angle.sin() - 0.2 * speed + 3.0 * torque) + 0.01 * random();
            angle += 0.05 * speed;
        }
    }
    text
}

const COLUMNS: [&str; 6] = ["--obs", "angle,speed", "--actions", "torque", "--episode", "run"];

#[test]
fn a_log_becomes_a_model_that_is_judged_on_another() {
    let dir = Dir::new();
    dir.write("bench.csv", &log(40));
    // Other runs: the generator continues from the first ones.
    let whole = log(60);
    let later = whole.lines().skip(1 + 40 * 50).collect::<Vec<_>>().join("\n");
    dir.write("later.csv", &format!("{}\n{later}\n", whole.lines().next().unwrap()));

    let said = dir.run(&[&["fit", "bench.csv", "--holdout-episodes"], &COLUMNS[..], &SMALL].concat()).ok();
    for words in ["2000 rows, 1960 transitions in 40 episodes of 49 to 49", "40 rows end an episode", "angle", "torque"]
    {
        assert!(said.out.contains(words), "{words} is missing: {}", said.out);
    }
    for words in ["392 rows of episodes held out", "member 3", "models/bench: model.toml, model.bin"] {
        assert!(said.out.contains(words), "{words} is missing: {}", said.out);
    }
    assert!(said.err.contains("epoch   1/40"), "{}", said.err);
    let card = fs::read_to_string(dir.path("models/bench/model.toml")).unwrap();
    for line in ["obs = [\"angle\", \"speed\"]", "transitions = 1960", "hidden = [32, 32]", "episode = \"run\""] {
        assert!(card.contains(line), "{line} is missing in\n{card}");
    }

    let said = dir.run(&["evaluate-model", "models/bench", "later.csv", "--horizon", "10"]).ok();
    assert!(said.out.contains("bench on later.csv: 1000 rows, 980 transitions in 20 episodes"), "{}", said.out);
    let json = fs::read_to_string(dir.path("models/bench/evaluation.json")).unwrap();
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found["columns"], serde_json::json!(["angle", "speed"]));
    // The noise of the speed is uniform in ±0.01; predicting no change is wrong by the whole motion, about 0.3 rad/s per step.
    let speed = |key: &str| found["one_step"][key][1].as_f64().unwrap();
    assert!(speed("rmse") < 0.2 * speed("unchanged_rmse"), "{json}");
    assert_eq!(found["steps"].as_array().unwrap().len(), 10);
    let svg = fs::read_to_string(dir.path("models/bench/evaluation.svg")).unwrap();
    assert!(svg.contains("bench on later.csv"));

    // The same command on another number of threads gives the same model, in the next free place.
    let words = [&["fit", "bench.csv", "--holdout-episodes", "--threads", "1"], &COLUMNS[..], &SMALL].concat();
    let said = dir.run(&words).ok();
    assert!(said.out.contains("models/bench-2: model.toml"), "{}", said.out);
    dir.run(&["evaluate-model", "models/bench-2", "later.csv", "--horizon", "10", "--threads", "1"]).ok();
    let again = fs::read_to_string(dir.path("models/bench-2/evaluation.json")).unwrap();
    assert_eq!(again.replace("\"model\": \"bench-2\"", "\"model\": \"bench\""), json);

    // Another log has other names; if they are not given, the error says which are missing.
    dir.write("renamed.csv", &log(4).replace("angle", "theta"));
    dir.run(&["evaluate-model", "models/bench", "renamed.csv"]).fails(1, &["no column `angle`", "`theta`", "--obs"]);
    let words = ["evaluate-model", "models/bench", "renamed.csv", "--obs", "theta,speed", "--out", "other.svg"];
    dir.run(&words).ok();
    assert!(dir.path("other.svg").exists() && dir.path("other.json").exists());

    // A model predicts changes over one step: it is not evaluated on a log whose steps take half the time.
    let halved = |line: &str| {
        let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
        if let Ok(time) = fields[1].parse::<f64>() {
            fields[1] = format!("{:.3}", 0.5 * time);
        }
        fields.join(",") + "\n"
    };
    dir.write("fast.csv", &log(4).lines().map(halved).collect::<String>());
    let words = ["evaluate-model", "models/bench", "fast.csv", "--out", "fast.svg"];
    dir.run(&words).fails(1, &["fast.csv: period = 0.02500, expected that of the model, 0.05000", "--period"]);
    assert!(!dir.path("fast.svg").exists());
    dir.run(&[&words[..], &["--period", "0.05"]].concat()).ok();
    let words = ["evaluate-model", "models/bench", "renamed.csv", "--obs", "theta"];
    dir.run(&words).fails(1, &["observations of 1 columns, the model has 2"]);
}

#[test]
fn a_run_is_judged_on_its_own_evaluation_episodes() {
    let dir = Dir::new();
    let words = [&["train", "smoke", "--out", "run", "--set", "train.eval_every=500"], &QUICK[..]].concat();
    dir.run(&words).ok();
    let said = dir.run(&["evaluate-model", "run", "run/episodes/500-1.csv", "--horizon", "5"]).ok();
    assert!(
        said.out.contains("run, step 500 on run/episodes/500-1.csv: 201 rows, 200 transitions in 1 episode"),
        "{}",
        said.out
    );
    assert!(dir.path("run/evaluation.json").exists() && dir.path("run/evaluation.svg").exists());
    let other = ["evaluate-model", "run", "run/episodes/500-1.csv", "--period", "0.1"];
    dir.run(&other).fails(1, &["period = 0.1000, expected that of the model, 0.05000"]);
    // The folder is still one that can be resumed.
    dir.run(&["resume", "run"]).ok();
}

#[test]
fn bad_logs_and_flags_are_refused_before_any_work_and_leave_nothing() {
    let dir = Dir::new();
    let good = log(3);
    dir.write("log.csv", &good);
    let line = good.lines().nth(41).unwrap();
    dir.write("short.csv", &good.replace(line, "0,1"));
    dir.write("nan.csv", &good.replace(line, "0,2.0,NaN,0,0"));
    dir.write("word.csv", &good.replace(line, "0,2.0,left,0,0"));
    dir.write("empty.csv", "");
    dir.write("one.csv", &log(1));
    dir.write("fit.toml", "[model]\nhiden = [3]\n");
    fs::create_dir(dir.path("taken")).unwrap();
    dir.write("taken/file", "");
    let before = dir.files();

    let fit = |words: &[&str], code: i32, expected: &[&str]| {
        dir.run(&[&["fit"], words, &COLUMNS[..]].concat()).fails(code, expected);
        assert!(dir.files() == before, "{words:?} left something");
    };
    fit(&["missing.csv"], 1, &["missing.csv", "No such file"]);
    fit(&["log.txt"], 1, &["log.txt: No such file"]);
    fit(&["short.csv"], 1, &["short.csv, line 42", "2 fields, expected 5"]);
    fit(&["nan.csv"], 1, &["nan.csv, line 42, column `angle`", "found nothing", "a finite number", "--missing drop"]);
    fit(&["word.csv"], 1, &["word.csv, line 42, column `angle`", "`left`"]);
    fit(&["empty.csv"], 1, &["empty.csv: no rows"]);
    fit(&["log.csv", "--reward", "cost"], 1, &["no column `cost`", "`torque`", "--obs"]);
    fit(&["log.csv", "--out", "taken"], 1, &["taken exists and is not empty"]);
    // Before anything is read.
    fit(&["missing.csv", "--out", "taken/file/m"], 1, &["folder taken/file/m"]);
    fit(&["missing.csv", "--out", ".."], 1, &[".."]);
    fit(&["log.csv", "--epochs", "0"], 2, &["--epochs", "at least 1"]);
    fit(&["log.csv", "--set", "model.hiden=[3]"], 1, &["`model.hiden`", "`model.hidden`"]);
    fit(&["log.csv", "--set", "planner.population=3"], 1, &["unknown key `planner.population`"]);
    fit(&["log.csv", "--set", "model.members=0"], 1, &["members = 0"]);
    fit(&["log.csv", "--set", "model.hidden=[9000000]", "--set", "model.members=1000"], 1, &["weights"]);
    fit(&["log.csv", "--set", "fit.batch_size=0"], 1, &["batch_size = 0"]);
    fit(&["log.csv", "--set", "model.reward=true"], 1, &["the log has no rewards"]);
    fit(&["log.csv", "--set", "model.termination=true"], 1, &["the log has no terminated transition"]);
    fit(&["log.csv", "--set", "model.past=17"], 1, &["model.past = 17", "at most 16"]);
    fit(&["log.csv", "--config", "fit.toml"], 1, &["fit.toml", "hiden"]);
    fit(&["log.csv", "--config", "no.toml"], 1, &["no.toml"]);
    fit(&["log.csv", "--config", "smoky"], 1, &["unknown experiment `smoky`", "`smoke`"]);
    fit(&["log.csv", "--device", "tpu"], 1, &["device = \"tpu\"", "expected flex"]);
    fit(&["one.csv", "--holdout-episodes"], 1, &["one episode"]);
    fit(&["log.csv", "--holdout-episodes", "--set", "fit.holdout=0"], 1, &["fit.holdout = 0"]);
    dir.run(&["fit", "log.csv"]).fails(1, &["no column `obs_0`", "`angle`", "--obs"]);
    dir.run(&["fit"]).fails(2, &["<DATA>"]);

    for (words, expected) in [
        (&["evaluate-model", "nowhere", "log.csv"][..], &["nowhere", "neither a model"][..]),
        (&["evaluate-model", "taken", "log.csv"], &["taken", "neither a model"]),
        (&["evaluate-model", "taken", "log.csv", "--out", "a.png"], &["a.png", ".svg"]),
        (&["evaluate-model", "taken", "log.csv", "--out", "no/a.svg"], &["no folder no"]),
    ] {
        dir.run(words).fails(1, expected);
    }
    assert_eq!(dir.files(), before);
}

/// A heading that turns with the rudder, from 0° to 360° and on from 0°.
fn compass(seed: u32) -> String {
    let mut text = String::from("# boat 7\nstamp;heading;rate;rudder\ns;deg;deg/s;-\n");
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) * 2.0 - 1.0
    };
    let (mut heading, mut rate) = (0.0_f64, 0.0);
    for row in 0..1200 {
        let rudder = random();
        // Every hundredth row is missing.
        if row % 100 != 50 {
            let line = format!("{:.2};{heading:.4};{rate:.4};{rudder:.4}\n", 0.1 * f64::from(row));
            text.push_str(&line.replace('.', ","));
        }
        rate += 0.1 * (60.0 * rudder - 0.5 * rate) + 0.5;
        heading = (heading + 0.1 * rate).rem_euclid(360.0);
    }
    text
}

#[test]
fn a_log_is_reported_before_the_fit_and_its_angles_are_the_models() {
    let dir = Dir::new();
    dir.write("boat.csv", &compass(7));
    dir.write("other.csv", &compass(8));
    let before = dir.files();
    let columns = ["--obs", "heading,rate", "--actions", "rudder", "--time", "stamp"];
    let said = dir.run(&[&["fit", "boat.csv", "--check"], &columns[..]].concat()).ok();
    for words in [
        "1188 rows",
        "in 13 episodes",
        "time `stamp`",
        "period 0.1",
        "12 at a gap in the time",
        "fields separated by `;`",
        "decimal commas",
        "line 3 holds the units",
        "heading (deg)",
        "an angle in degrees? --angles-deg",
    ] {
        assert!(said.out.contains(words), "{words} is missing: {}", said.out);
    }
    assert!(dir.files() == before && !said.out.contains("fitted"), "--check fits nothing");

    let fit = |out: &str, angles: &[&str]| -> f64 {
        dir.run(&[&["fit", "boat.csv", "--out", out], &columns[..], &SMALL, angles].concat()).ok();
        dir.run(&["evaluate-model", out, "other.csv", "--horizon", "5"]).ok();
        let json = fs::read_to_string(dir.path(out).join("evaluation.json")).unwrap();
        let found: Value = serde_json::from_str(&json).unwrap();
        found["one_step"]["rmse"][0].as_f64().unwrap()
    };
    let (unnamed, named) = (fit("unnamed", &[]), fit("named", &["--angles-deg", "heading"]));
    assert!(named < 0.5 && unnamed > 5.0 * named, "degrees: {unnamed} without, {named} with the angle named");
    let card = fs::read_to_string(dir.path("named/model.toml")).unwrap();
    for line in ["obs_units = [\"deg\", \"deg/s\"]", "period = 0.1", "[report]", "turn = 360.0", "time-gap = 12"] {
        assert!(card.contains(line), "{line} is missing in\n{card}");
    }
}

#[test]
fn logs_of_other_programs_come_in_with_a_flag_or_a_hint() {
    let dir = Dir::new();
    let plain = log(3);
    let rows = plain.split_once('\n').unwrap().1;
    dir.write("no-names.csv", rows);
    dir.write("ends.csv", "x,v,u,terminated\n0,0,1,0\n1,0,1,1\n5,0,1,0\n6,0,1,1\n");
    dir.write("comma.csv", &plain.replace("speed", "\"speed (rad/s), raw\""));
    dir.write("temperature.csv", &plain.replace("run,time", "t,other"));
    dir.write("countdown.csv", "step,x,v,u\n3,1,0,0\n2,2,0,0\n1,3,0,0\n0,4,0,0\n");
    fs::create_dir(dir.path("runs")).unwrap();
    dir.write("runs/a.csv", &plain);
    dir.write("runs/b.csv", &plain.replace("time", "clock"));
    let check = |words: &[&str]| dir.run(&[&["fit", "--check"], words].concat());
    check(&["no-names.csv", "--obs", "x,v", "--actions", "u"]).fails(1, &["line 1 holds numbers", "--names"]);
    let named = ["no-names.csv", "--names", "run,time,x,v,u", "--obs", "x,v", "--actions", "u", "--episode", "run"];
    assert!(check(&named).ok().out.contains("in 3 episodes of 49 to 49"));
    let machine = ["--obs", "x,v", "--actions", "u"];
    let words = [&["fit", "ends.csv", "--set", "model.termination=true"], &machine[..]].concat();
    dir.run(&words).fails(1, &["all 2 terminations of the log are in rows without a following observation"]);
    let two = ["comma.csv", "--obs", "angle", "--obs", "speed (rad/s), raw", "--actions", "torque"];
    check(&two).ok();
    check(&["comma.csv", "--obs", "angle,\"speed (rad/s), raw\"", "--actions", "torque"]).ok();
    let words = ["temperature.csv", "--obs", "angle,speed", "--actions", "torque"];
    check(&words).ok();
    let words = [&["countdown.csv", "--time", "step"], &machine[..]].concat();
    check(&words).fails(1, &["column `step` (time)", "--time ''"]);
    // Two files with different names for the time: a column that not all have is not used as the time.
    let said = check(&[&["runs"], &COLUMNS[..]].concat()).ok();
    assert!(said.out.contains("2 files from runs/a.csv on: 300 rows, 294 transitions in 6 episodes"), "{}", said.out);
    let said = check(&[&["runs/*.csv"], &COLUMNS[..]].concat()).ok();
    assert!(said.out.contains("300 rows"), "{}", said.out);

    // A log without the columns that the model's log had.
    dir.run(&[&["fit", "runs/a.csv", "--out", "m"], &COLUMNS[..], &SMALL].concat()).ok();
    let one: Vec<&str> = plain.lines().take(51).map(|line| line.splitn(3, ',').nth(2).unwrap()).collect();
    dir.write("one.csv", &one.join("\n"));
    let said = dir.run(&["evaluate-model", "m", "one.csv"]).ok();
    assert!(said.out.contains("49 transitions in 1 episode of 49"), "{}", said.out);
}

#[test]
fn an_experiment_says_how_to_fit() {
    let dir = Dir::new();
    dir.write("log.csv", &log(3));
    let words = [&["fit", "log.csv", "--out", "m", "--config", "smoke", "--epochs", "1"], &COLUMNS[..]].concat();
    dir.run(&words).ok();
    let card = fs::read_to_string(dir.path("m/model.toml")).unwrap();
    for line in ["members = 3", "hidden = [32, 32]", "batch_size = 64", "max_epochs = 1"] {
        assert!(card.contains(line), "{line} is missing in\n{card}");
    }
    // So does the complete experiment of a run, with every section written out.
    dir.train(&["--steps", "50", "--out", "run"]).ok();
    let whole = [&["fit", "log.csv", "--out", "w", "--config", "run/experiment.toml", "--epochs", "1"], &COLUMNS[..]];
    dir.run(&whole.concat()).ok();
    // A damaged model is not evaluated.
    let mut weights = fs::read(dir.path("m/model.bin")).unwrap();
    weights[200] ^= 1;
    fs::write(dir.path("m/model.bin"), weights).unwrap();
    dir.run(&["evaluate-model", "m", "log.csv"]).fails(1, &["m/model.bin", "damaged"]);
    assert!(!dir.path("m/evaluation.json").exists());
}

#[test]
fn a_learned_reward_is_judged_where_the_log_has_rewards_alone() {
    let dir = Dir::new();
    let paid: Vec<String> = log(3).lines().map(|line| line.to_owned() + ",1.5").collect();
    dir.write("paid.csv", &paid.join("\n").replacen(",1.5", ",reward", 1));
    dir.write("log.csv", &log(3));
    let words = ["fit", "paid.csv", "--out", "m", "--set", "model.reward=true", "--epochs", "1"];
    dir.run(&[&words[..], &COLUMNS].concat()).ok();
    for (log, judged) in [("paid.csv", true), ("log.csv", false)] {
        let said = dir.run(&["evaluate-model", "m", log, "--horizon", "2"]).ok();
        assert_eq!(said.out.contains("reward error"), judged, "{}", said.out);
        let json = fs::read_to_string(dir.path("m/evaluation.json")).unwrap();
        let found: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(found["steps"][0]["reward_rmse"].is_number(), judged, "{json}");
    }
}

/// A full disk: partial output is removed, and the message names the model's file.
#[cfg(unix)]
#[test]
fn a_model_that_cannot_be_written_leaves_nothing() {
    let dir = Dir::new();
    dir.write("log.csv", &log(3));
    let before = dir.files();
    let words = [&["fit", "log.csv", "--out", "m", "--epochs", "1"], &COLUMNS[..]].concat();
    for (blocks, named) in [(0, "m/"), (2, "m/"), (64, "m/model.bin")] {
        dir.run_in_blocks(blocks, &words).fails(1, &[named, "File too large"]);
        assert_eq!(dir.files(), before, "{blocks} blocks");
    }
}

/// A motor's speed under a voltage, measured every 10 ms with some noise: four runs of 150 rows.
fn motor_log() -> String {
    let (inertia, constant, resistance, viscous, coulomb) = (2e-4, 0.05, 1.2, 2e-5, 4e-3);
    let mut text = String::from("run,time,speed,voltage\n");
    let mut state = 777_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) * 2.0 - 1.0
    };
    for run in 0..4 {
        let (mut speed, mut voltage) = (0.0f64, 0.0);
        for step in 0..150 {
            if step % 20 == 0 {
                voltage = 10.0 * random();
            }
            let noise = 0.2 * (random() + random() + random());
            writeln!(text, "{run},{:.2},{:.4},{voltage:.4}", 0.01 * f64::from(step), speed + noise).unwrap();
            for _ in 0..100 {
                let torque =
                    constant * (voltage - constant * speed) / resistance - viscous * speed - coulomb * speed.tanh();
                speed += 1e-4 * torque / inertia;
            }
        }
    }
    text
}

#[test]
fn a_machine_is_identified_from_its_log_and_judged_on_it() {
    let dir = Dir::new();
    dir.write("motor.csv", &motor_log());
    let data_sheet = ["--known", "torque_constant=0.05", "--known", "resistance=1.2"];
    let common = ["identify", "motor.csv", "--model", "dc-motor", "--episode", "run"];
    let said = dir.run(&[&common[..], &data_sheet].concat()).ok();
    for words in ["0.05000 N m/A (known)", "kg m²", "coulomb_friction", "(estimated)", "models/motor: physics.toml"] {
        assert!(said.out.contains(words), "{words} is missing: {}", said.out);
    }
    assert!(!said.out.contains("not determined"), "{}", said.out);
    let value = |name: &str| -> f64 {
        let line = said.out.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(
        (value("inertia") / 2e-4 - 1.0).abs() < 0.05 && (value("coulomb_friction") / 4e-3 - 1.0).abs() < 0.2,
        "{}",
        said.out
    );

    let said = dir.run(&["evaluate-model", "models/motor", "motor.csv", "--horizon", "10"]).ok();
    assert!(said.out.contains("speed"), "{}", said.out);
    let other = ["evaluate-model", "models/motor", "motor.csv", "--period", "0.02"];
    dir.run(&other).fails(1, &["period = 0.02000, expected that of the model, 0.01000"]);

    // Without a data sheet, the speed does not determine everything, and the error names what is missing.
    let said = dir.run(&common).ok();
    for words in ["not determined by this log", "--known NAME=VALUE"] {
        assert!(said.out.contains(words), "{words} is missing: {}", said.out);
    }

    for (more, words) in [
        (&["--known", "inertai=1"][..], "parameter `inertai`: expected one of `inertia`, "),
        (&["--known", "inertai=1"], "did you mean `inertia`?"),
        (&["--known", "inertia=-1"], "inertia of -1"),
        (&["--guess", "inertia"], "NAME=VALUE"),
        (&["--obs", "speed,run"], "--obs: 2 columns (speed, run), expected 1: speed (rad/s)"),
        (&["--noise", "0.1,0.2"], "columns of noise = 2: expected 1"),
        (&["--period", "0"], "period = 0"),
    ] {
        let said = dir.run(&[&common[..], more].concat());
        assert!(said.code != Some(0) && said.err.contains(words), "{more:?}: {}", said.err);
    }
    // A guess from which the search does not reach the truth: where it stops is no result.
    let said = dir.run(&[&common[..], &data_sheet, &["--guess", "inertia=1e3"]].concat()).ok();
    let line = said.out.lines().find(|line| line.trim_start().starts_with("inertia")).unwrap();
    assert!(line.contains("not determined: at the lower bound of the search, 0.001000 kg m²"), "{}", said.out);
    assert!(said.out.contains("--guess NAME=VALUE says where the search begins"), "{}", said.out);
    let stored = fs::read_to_string(dir.path("models/motor-3/physics.toml")).unwrap();
    assert!(stored.contains("inertia: at the lower bound of the search"), "{stored}");
    // A motor that stands still gives no information.
    let still = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join(",") + ",3.0,0.0\n";
    dir.write(
        "still.csv",
        &(motor_log()
            .lines()
            .take(1)
            .map(|line| format!("{line}\n"))
            .chain(motor_log().lines().skip(1).map(still))
            .collect::<String>()),
    );
    let before = dir.files();
    let said = dir.run(&["identify", "still.csv", "--model", "dc-motor", "--episode", "run"]);
    said.fails(1, &["data = observations that never change: expected a log in which the machine moves"]);
    assert!(dir.files() == before);
    // Nor do counted rows about the duration of a step.
    dir.write("counted.csv", &motor_log().replace("run,time", "run,step"));
    let counted = ["identify", "counted.csv", "--model", "dc-motor", "--episode", "run"];
    dir.run(&counted).fails(1, &["the log has no time, or one that counts rows: --period says"]);
    dir.run(&[&counted[..], &["--period", "0.01"], &data_sheet].concat()).ok();
    // The help lists machines with their columns and parameters.
    let help = dir.run(&["identify", "--help"]).ok().out;
    for words in [
        "two-link-arm",
        "shoulder_velocity (rad/s)",
        "coulomb_friction",
        "gravity = 9.81 m/s²",
        "inertia_ratio = 0.3333,",
        "voltage (V)",
    ] {
        assert!(help.contains(words), "{words}: {help}");
    }
    // Impossible values are refused in the file too.
    let file = dir.path("models/motor/physics.toml");
    let text = fs::read_to_string(&file).unwrap();
    let noise = text.lines().find(|line| line.starts_with("noise = ")).unwrap();
    for (bad, words) in
        [("[-0.1]", "noise of speed = -0.1"), ("[nan]", "noise of speed = NaN"), ("[0.1, 0.2]", "expected 1")]
    {
        fs::write(&file, text.replace(noise, &format!("noise = {bad}"))).unwrap();
        dir.run(&["evaluate-model", "models/motor", "motor.csv"]).fails(1, &["physics.toml", words]);
    }
    let said = dir.run(&["identify", "motor.csv", "--model", "dc-moter"]);
    assert!(said.code != Some(0) && said.err.contains("expected one of pendulum, "), "{}", said.err);
}
