//! Runs on an environment in another process: trained, killed, resumed, evaluated and reported like any other.
#![cfg(unix)]

mod util;

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use util::Dir;

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/mbrl-env/python");

/// A cart that should stand at 0. If the file `trouble` exists, it dies at the step of the whole run given there; with the file `claim`,
/// the first of several that takes sixty steps dies.
const CART: &str = r#"
import os, sys, time
from mbrl_env import field, serve

class Cart:
    name = "cart"
    fields = [field("x", "m"), field("v", "m/s")]
    action_fields = [field("force", "N")]
    action_low, action_high = -1.0, 1.0
    control_period, max_steps = 0.1, 25

    def reset(self, seed):
        self.state = [(seed % 1000) / 500.0 - 1.0, 0.0]
        return self.state

    def step(self, action):
        if os.path.exists("trouble"):
            count = int(open("count").read()) + 1 if os.path.exists("count") else 1
            open("count", "w").write(str(count))
            if count == int(open("trouble").read()):
                sys.stderr.write("the wheel came off\n")
                sys.stderr.flush()
                os._exit(7)
        if os.path.exists("claim"):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 60:
                os.rename("claim", "claimed")
                os._exit(7)
        if os.path.exists("slow"):
            # Whole or not at all: the test reads it while steps go on.
            with open("self.new", "w") as file:
                file.write(str(os.getpid()))
            os.replace("self.new", "self")
            time.sleep(0.05)
        print("a word to nobody")
        x, v = self.state
        self.state = [x + 0.1 * v, v + 0.3 * action[0]]
        return self.state, -self.state[0] ** 2, False, False, {"distance": abs(x)}

serve(Cart)
"#;

const EXPERIMENT: &str = r#"
task = "process"
steps = 120

[task_options]
command = ["python3", "cart.py"]

[agent]
random_steps = 50

[goal]
reward = "-next.x^2"

[model]
members = 2
hidden = [12]
weight_decay = []

[fit]
max_epochs = 3

[planner]
kind = "cem"
horizon = 5
population = 12
elites = 3
iterations = 2

[propagation]
rule = "ts-inf"
noise = true
particles = 2

[train]
eval_every = 75
eval_episodes = 2
"#;

/// A folder with the cart and its experiment; `None` if there is no Python.
fn cart() -> Option<Dir> {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: python3 is not installed");
        return None;
    }
    let dir = Dir::new();
    dir.write("cart.py", CART);
    dir.write("cart.toml", EXPERIMENT);
    Some(dir)
}

fn command(dir: &Dir, words: &[&str]) -> Command {
    let mut command = dir.command(words);
    command.env("PYTHONPATH", SHIM);
    command
}

fn run(dir: &Dir, words: &[&str]) -> util::Said {
    util::Said::of(&command(dir, words).output().unwrap())
}

#[test]
fn trains_evaluates_reports_and_repeats_bit_for_bit() {
    let Some(dir) = cart() else { return };
    let said = run(&dir, &["train", "cart.toml", "--seeds", "2", "--out", "runs"]).ok();
    assert!(said.out.contains("120 in 5 episodes"), "{}", said.out);
    let metrics = dir.metrics("runs/cart-0");
    assert_ne!(metrics, dir.metrics("runs/cart-1"));
    let episodes: Vec<_> = metrics.iter().filter(|line| line["event"] == "episode").collect();
    assert!(episodes[0]["reward/distance"].as_f64().unwrap() > 0.0);
    let number = |key: &str| episodes[0][key].as_f64().unwrap();
    assert_eq!((number("episode/length"), number("episode/truncated")), (25.0, 1.0));
    run(&dir, &["train", "cart.toml", "--out", "again", "--threads", "2"]).ok();
    assert_eq!(dir.metrics("again"), metrics);

    let said = run(&dir, &["eval", "runs/cart-0", "--episodes", "2"]).ok();
    let evaluated = metrics.iter().rfind(|line| line["event"] == "eval").unwrap();
    let mean = format!("mean return {:.3}", evaluated["eval/return_mean"].as_f64().unwrap());
    assert!(said.out.contains(&mean), "{mean}: {}", said.out);
    let said = run(&dir, &["eval", "--random", "cart.toml", "--episodes", "2"]).ok();
    assert!(said.out.contains("mean return"), "{}", said.out);
    run(&dir, &["report", "runs/cart-0", "runs/cart-1"]).ok();
    let page = fs::read_to_string(dir.path("runs/report.html")).unwrap();
    assert!(page.contains("aria-label=\"v over time\""), "columns have the names that the process gives");
    assert!(run(&dir, &["resume", "runs/cart-0"]).ok().out.contains("already finished"));
}

#[test]
fn several_processes_take_steps_side_by_side() {
    let Some(dir) = cart() else { return };
    let several = ["--set", "train.environments=3"];
    for out in ["three", "again"] {
        run(&dir, &[&["train", "cart.toml", "--out", out], &several[..]].concat()).ok();
    }
    assert_eq!(dir.metrics("three"), dir.metrics("again"));
    // One of them dies.
    dir.write("claim", "");
    let said = run(&dir, &[&["train", "cart.toml", "--out", "died"], &several[..]].concat());
    said.fails(1, &["python3 cart.py", "step"]);
    assert!(!dir.path("claim").exists());
    run(&dir, &["resume", "died"]).ok();
    assert_eq!(dir.metrics("died"), dir.metrics("three"));
}

#[test]
fn the_guides_example_runs() {
    let Some(dir) = cart() else { return };
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/your-own-environment-in-python.md");
    let guide = fs::read_to_string(guide).unwrap();
    let block = |kind: &str, with: &str| {
        let blocks = guide.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix(kind));
        blocks.filter(|block| block.contains(with)).map(str::to_owned).next().unwrap()
    };
    dir.write("tank.py", &block("python", "class Tank"));
    dir.write("tank.toml", &block("toml", "tank.py"));
    let quick = [
        "agent.random_steps=150",
        "planner.population=20",
        "planner.elites=4",
        "fit.max_epochs=4",
        "train.eval_every=300",
    ];
    let quick = quick.iter().flat_map(|word| ["--set", word]);
    let words: Vec<&str> = ["train", "tank.toml", "--steps", "300"].into_iter().chain(quick).collect();
    run(&dir, &words).ok();
    run(&dir, &["eval", "--random", "tank.toml", "--episodes", "2"]).ok();
    // What it reports about a slip.
    let said = run(&dir, &["train", "tank.toml", "--set", "goal.reward=-abs(next.levle - 0.5)"]);
    let told = said.fails(1, &["levle"]).err;
    assert!(guide.contains(told.trim()), "{told}");
}

#[test]
fn a_death_ends_the_run_and_nothing_is_lost() {
    let Some(dir) = cart() else { return };
    run(&dir, &["train", "cart.toml", "--out", "whole"]).ok();
    // In training, and in an evaluation: 75 steps of training, two episodes of 25 steps, and so on.
    for (number, step) in ["60", "110", "140"].into_iter().enumerate() {
        let out = format!("run-{number}");
        dir.write("trouble", step);
        let said = run(&dir, &["train", "cart.toml", "--out", &out]);
        let said = said.fails(1, &["python3 cart.py", "exit code 7", "the wheel came off", "of an episode"]);
        assert!(said.out.contains(&format!("to go on: mbrl resume {out}")), "{}", said.out);
        // It is not repaired yet.
        dir.write("trouble", "1");
        fs::remove_file(dir.path("count")).unwrap();
        run(&dir, &["resume", &out]).fails(1, &["exit code 7"]);
        fs::remove_file(dir.path("trouble")).unwrap();
        fs::remove_file(dir.path("count")).unwrap();
        // The time limit for its answers may change meanwhile.
        let file = dir.path(&out).join("experiment.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("[task_options]", "[task_options]\ntimeout = 99.0")).unwrap();
        run(&dir, &["resume", &out]).ok();
        assert_eq!(dir.metrics(&out), dir.metrics("whole"));
    }
}

#[test]
fn a_kill_leaves_no_process_behind_and_the_run_goes_on() {
    let Some(dir) = cart() else { return };
    run(&dir, &["train", "cart.toml", "--out", "whole"]).ok();
    dir.write("slow", "");
    let mut training = command(&dir, &["train", "cart.toml", "--out", "run"]).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !dir.path("run/checkpoints").exists() || fs::read_dir(dir.path("run/checkpoints")).unwrap().count() < 2 {
        assert!(Instant::now() < until, "no checkpoint came");
        thread::sleep(Duration::from_millis(20));
    }
    let pid: u32 = fs::read_to_string(dir.path("self")).unwrap().parse().unwrap();
    training.kill().unwrap();
    training.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    // A process that waits to be reaped no longer runs.
    let runs = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|state| !state.contains(") Z "));
    while runs() {
        assert!(Instant::now() < until, "process {pid} goes on");
        thread::sleep(Duration::from_millis(20));
    }
    fs::remove_file(dir.path("slow")).unwrap();
    run(&dir, &["resume", "run"]).ok();
    assert_eq!(dir.metrics("run"), dir.metrics("whole"));
}

#[test]
fn what_is_wrong_is_told_before_anything_is_written() {
    let Some(dir) = cart() else { return };
    for (word, words) in [
        (
            "goal.reward=-next.y^2",
            &["goal.reward: `-next.y^2`, letter 7", "no column `y`", "It has: x, v", "did you mean `v`, `x`?"][..],
        ),
        (
            "goal.reward=task",
            &["goal.reward = \"task\"", "cart gives planners no reward function", "goal.reward = \"-next.NAME^2\""],
        ),
        ("task_options.command=[\"python3\", \"gone.py\"]", &["python3 gone.py", "exit code 2", "No such file"]),
        ("task_options.command=[\"no-such-program\"]", &["no-such-program", "cannot be started", "No such file"]),
        ("task_options.comand=[\"python3\"]", &["options of the task process", "`comand`"]),
        ("agent.kind=ground-truth", &["agent.kind = \"ground-truth\"", "no simulator"]),
    ] {
        run(&dir, &["train", "cart.toml", "--out", "run", "--set", word]).fails(1, words);
        assert!(!dir.path("run").exists(), "{word}");
    }
}

#[test]
fn a_name_of_gymnasium_is_told_where_it_belongs() {
    let dir = Dir::new();
    let told = ["`gymnasium`", "--set task_options.id=Pendulum-v1", "task_options.python", "`pets-pendulum`"];
    dir.run(&["train", "Pendulum-v1"]).fails(1, &told);
    dir.run(&["train", "Foo-v3"]).fails(1, &["--set task_options.id=Foo-v3"]);
    dir.run(&["train", "pendulum"]).fails(1, &["`pendulum` is a task", "`pets-pendulum`"]);
    for word in ["eval", "render"] {
        dir.run(&[word, "Foo-v3"]).fails(1, &["Foo-v3 looks like an environment of Gymnasium", "mbrl train Foo-v3"]);
    }
    dir.run(&["eval", "--random", "Foo-v3"]).fails(1, &["unknown task `Foo-v3`", "task_options.id=Foo-v3"]);
}
