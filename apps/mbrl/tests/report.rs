//! `mbrl report`, `doctor`, `completions` and TensorBoard's files, from outside.

mod util;

use std::{collections::BTreeSet, fs, path::Path};

use util::{Dir, QUICK, Said};

const SECTIONS: [&str; 9] =
    ["summary", "learning", "evaluation", "model-error", "time", "model", "prediction", "episode", "experiment"];

/// The content of each section of a page, as HTML.
fn sections(page: &Path) -> Vec<String> {
    let html = fs::read_to_string(page).unwrap();
    let content = |id: &str| {
        let from = html.find(&format!("<section id=\"{id}\">")).unwrap_or_else(|| panic!("no section {id}"));
        html[from..from + html[from..].find("</section>").unwrap()].to_owned()
    };
    SECTIONS.iter().map(|id| content(id)).collect()
}

fn section(page: &Path, id: &str) -> String {
    sections(page).swap_remove(SECTIONS.iter().position(|section| *section == id).unwrap())
}

/// Anything that would make a browser load something.
fn loads(html: &str) -> Vec<&str> {
    [
        "http://",
        "https://",
        "//cdn",
        "<link rel=\"stylesheet",
        "@import",
        "url(",
        "<img",
        "<iframe",
        "fetch(",
        "import(",
    ]
    .into_iter()
    .filter(|word| html.replace("http://www.w3.org/2000/svg", "").contains(word))
    .collect()
}

#[test]
fn a_report_shows_every_part_of_two_seeds() {
    let dir = Dir::new();
    dir.train(&["--seeds", "2", "--set", "train.eval_every=300"]).ok();
    let before = dir.files();
    let said = dir.run(&["report", "runs/smoke-0", "runs/smoke-1/"]).ok();
    assert_eq!(said.out.trim(), "runs/report.html");
    let page = dir.path("runs/report.html");
    // Only the page was written.
    let after = dir.files();
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert_eq!(new, [&page]);
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes));

    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains(
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\""
    ));
    assert_eq!(loads(&html), [""; 0]);
    assert!(!html.contains("NaN"));
    // The versions that made the runs; no plan failed, and none is mentioned.
    assert!(html.contains(concat!("mbrl ", env!("CARGO_PKG_VERSION"))), "the version is missing");
    assert!(!html.contains("failed: replaced by the rest of the last plan"));
    for (id, html) in SECTIONS.into_iter().zip(sections(&page)) {
        assert!(!html.contains("class=\"absent\""), "{id}: {html}");
    }
    for id in ["learning", "evaluation", "model-error", "model", "prediction"] {
        assert!(section(&page, id).contains("<path class=\"line thick"), "{id}");
    }
    assert!(section(&page, "learning").contains("class=\"band c0\""), "two seeds have a band");
    assert!(section(&page, "learning").contains("smoke, 2 seeds"));
    assert!(section(&page, "episode").contains("<canvas"), "the pendulum has a sketch");
    let commands = section(&page, "experiment");
    assert!(commands.contains("mbrl train smoke --set") && commands.contains("--seed 0 --seeds 2"), "{commands}");
    // Training is measured whole: no part is a guess.
    assert!(!section(&page, "time").contains('≈'));

    // The same runs give the same bytes.
    dir.run(&["report", "runs/smoke-0", "runs/smoke-1", "--out", "again.html"]).ok();
    assert_eq!(fs::read_to_string(dir.path("again.html")).unwrap(), html);
}

#[test]
fn experiments_are_compared_and_seeds_grouped() {
    let dir = Dir::new();
    let quiet = ["--steps", "250", "--set", "train.eval_every=0"];
    dir.train(&[&quiet[..], &["--out", "a"]].concat()).ok();
    dir.train(&[&quiet[..], &["--out", "b", "--seed", "1"]].concat()).ok();
    dir.train(&["--steps", "250", "--set", "planner.horizon=5", "--set", "train.eval_every=250", "--out", "c"]).ok();
    assert_eq!(dir.run(&["report", "c", "b", "a", "a"]).ok().out.trim(), "report.html");
    let page = dir.path("report.html");
    let summary = section(&page, "summary");
    // They are named by what differs.
    for name in ["smoke: planner.horizon = 5", "smoke: planner.horizon = 8"] {
        assert!(summary.contains(&format!("</span>{name}")), "{name}: {summary}");
    }
    // One experiment has an evaluation, the other has none.
    assert!(section(&page, "evaluation").contains("<circle"));
    assert!(section(&page, "episode").contains("<canvas"));
    assert!(section(&page, "prediction").contains("No evaluation episode was recorded"));
    assert!(section(&page, "episode").contains("the last training episode by step 250"));
    // Curves of one task share their axes; those of two do not.
    assert_eq!(section(&page, "learning").matches("<figure").count(), 1);
    let differences = section(&page, "experiment");
    assert!(differences.contains("planner.horizon") && !differences.contains("<code>seed</code>"), "{differences}");
    dir.train(&[&quiet[..], &["--set", "task=cartpole", "--set", "model.angles=[]", "--out", "d"]].concat()).ok();
    dir.run(&["report", "a", "d"]).ok();
    for id in ["learning", "model-error"] {
        let found = section(&page, id);
        assert!(found.matches("<figure").count() == 2 && found.contains("<h3>cartpole</h3>"), "{id}: {found}");
    }
}

#[test]
fn a_report_of_the_simulator_as_the_model_shows_what_there_is() {
    let dir = Dir::new();
    let train = |words: &[&str]| dir.run(&[&["train", "ground-truth-cartpole-swingup"], words].concat()).ok();
    train(&["--steps", "250", "--set", "train.eval_every=0", "--out", "run"]);
    dir.run(&["report", "run"]).ok();
    let page = dir.path("run/report.html");
    for id in ["model-error", "model", "prediction"] {
        assert!(section(&page, id).contains("The simulator itself is the model"), "{id}");
    }
    assert!(section(&page, "episode").contains("No evaluation episode was recorded"));
    assert!(section(&page, "learning").contains("<circle"));
    train(&["--steps", "200", "--set", "train.eval_every=200", "--set", "train.eval_episodes=1", "--out", "other"]);
    dir.run(&["report", "other"]).ok();
    let episode = section(&dir.path("other/report.html"), "episode");
    assert!(episode.contains("<canvas"), "{episode}");
    dir.write("log.csv", "obs_0,action_0\n0,0\n1,0\n");
    dir.run(&["evaluate-model", "other", "log.csv"]).fails(1, &["other", "simulator"]);
}

#[test]
fn a_report_is_made_of_a_run_in_any_state() {
    let dir = Dir::new();
    dir.train(&["--out", "run", "--set", "train.eval_every=300"]).ok();
    let metrics = fs::read_to_string(dir.path("run/metrics.jsonl")).unwrap();
    let lines: Vec<&str> = metrics.lines().collect();
    let report = |expected: &[&str]| {
        dir.run(&["report", "run"]).ok();
        let page = dir.path("run/report.html");
        sections(&page);
        let html = fs::read_to_string(&page).unwrap();
        for word in expected {
            assert!(html.contains(word), "`{word}` is missing");
        }
        assert!(!html.contains("NaN"));
    };

    // Killed in the middle of a line.
    dir.write("run/metrics.jsonl", &metrics[..metrics.len() - 40]);
    report(&["metrics.jsonl, left out line"]);
    // Killed after one episode; the evaluation and the checkpoints are from later.
    dir.write("run/metrics.jsonl", &format!("{}\n", lines[0]));
    report(&["stands at step 200 of 500", "mbrl resume run", "No fit yet", "No evaluation"]);
    // Numbers that were not finite.
    let nulls: Vec<String> = lines
        .iter()
        .map(|line| {
            let mut line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            for (key, value) in &mut line {
                if key.contains('/') {
                    *value = serde_json::Value::Null;
                }
            }
            serde_json::to_string(&line).unwrap()
        })
        .collect();
    dir.write("run/metrics.jsonl", &nulls.join("\n"));
    report(&["No whole training episode"]);
    // A record of an older version: without the time spent in the environment.
    let old: Vec<String> = lines
        .iter()
        .map(|line| {
            let cut = line.find(",\"episode/env_s\"").map_or(line.len() - 1, |at| at);
            format!("{}}}\n", &line[..cut])
        })
        .collect();
    dir.write("run/metrics.jsonl", &old.concat());
    report(&["≈ ", "Runs of an older version"]);
    dir.write("run/metrics.jsonl", &metrics);

    // A damaged checkpoint is skipped; if all are damaged, the model is left out, and the episode is still shown.
    fs::write(dir.path("run/checkpoints/500/agent.json"), "half").unwrap();
    report(&["damaged checkpoint passed over", "the checkpoint of step 400"]);
    fs::write(dir.path("run/checkpoints/400/agent.json"), "half").unwrap();
    report(&["No checkpoint that could be read", "500/agent.json", "<canvas"]);
    fs::remove_dir_all(dir.path("run/checkpoints")).unwrap();
    // A damaged episode is left out.
    fs::write(dir.path("run/episodes/500-1.csv"), "step,obs_0\n").unwrap();
    report(&["episode left out", "500-1.csv", "<canvas"]);
    fs::remove_dir_all(dir.path("run/episodes")).unwrap();
    report(&["No evaluation episode was recorded"]);
    fs::remove_file(dir.path("run/metrics.jsonl")).unwrap();
    report(&["no metrics.jsonl", "No episode yet", "No whole training episode yet"]);
}

#[test]
fn text_of_an_experiment_is_never_markup() {
    let dir = Dir::new();
    dir.train(&["--out", "run", "--steps", "50"]).ok();
    let text = fs::read_to_string(dir.path("run/experiment.toml")).unwrap();
    let evil = r#"</script><script>alert("1")</script><img src=x>"#;
    let changed = text.lines().map(|line| match line.starts_with("summary") {
        true => format!("summary = '{evil}'\n"),
        false if line.starts_with("name") => format!("name = '{evil}'\n"),
        false => format!("{line}\n"),
    });
    dir.write("run/experiment.toml", &changed.collect::<String>());
    dir.run(&["report", "run"]).ok();
    let html = fs::read_to_string(dir.path("run/report.html")).unwrap();
    assert!(html.contains("&lt;script&gt;alert(&quot;1&quot;)"));
    assert!(!html.contains("<script>alert") && !html.contains("<img"));
}

#[test]
fn what_is_no_run_is_named_and_nothing_is_written() {
    let dir = Dir::new();
    dir.train(&["--steps", "50"]).ok();
    fs::create_dir(dir.path("empty")).unwrap();
    dir.write("file", "");
    let before = dir.files();
    dir.run(&["report"]).fails(2, &["DIR"]);
    dir.run(&["report", "nowhere"]).fails(1, &["nowhere", "experiment.toml"]);
    dir.run(&["report", "empty"]).fails(1, &["empty", "experiment.toml"]);
    dir.run(&["report", "file"]).fails(1, &["file", "experiment.toml"]);
    dir.run(&["report", "runs"]).fails(1, &["runs", "runs/*/"]);
    dir.run(&["report", "runs/smoke-0", "empty"]).fails(1, &["empty"]);
    // A place that cannot be written, not even by root.
    dir.run(&["report", "runs/smoke-0", "--out", "file/report.html"]).fails(1, &["file/report.html"]);
    assert_eq!(dir.files(), before);
    dir.write("runs/smoke-0/experiment.toml", "task = 3");
    dir.run(&["report", "runs/smoke-0"]).fails(1, &["runs/smoke-0/experiment.toml"]);
}

#[test]
fn progress_is_plain_where_nobody_watches_and_a_cut_episode_says_so() {
    let dir = Dir::new();
    let words = ["train", "smoke", "--out", "run", "--set", "train.eval_every=300"];
    let mut command = dir.command(&[&words[..], &QUICK].concat());
    let said = Said::of(&command.env("RUST_LOG", "debug").output().unwrap()).ok();
    assert!(!said.err.contains('\u{1b}') && !said.out.contains('\u{1b}'), "{said:?}");
    let line = |step: &str| said.err.lines().find(|line| line.contains(step)).unwrap().to_owned();
    assert!(line("step    500/500  episode").contains("(cut by the budget)"), "{said:?}");
    assert!(!line("step    400/500  episode").contains("cut"), "{said:?}");
    assert!(line("step    500/500  eval").contains("mean return"), "{said:?}");
    // The picture of the run leaves it out, and says so.
    let svg = fs::read_to_string(dir.path("run/curve.svg")).unwrap();
    assert_eq!(svg.matches("<circle").count(), 2 + 1, "two episodes, and one in the legend");
    assert!(svg.contains("cut by the budget"), "{svg}");
}

#[test]
fn the_doctor_says_what_works_and_what_is_missing() {
    let dir = Dir::new();
    let said = dir.run(&["doctor"]);
    let works = cfg!(feature = "flex");
    assert_eq!(said.code, Some(if works { 0 } else { 1 }), "{said:?}");
    for word in [env!("CARGO_PKG_VERSION"), "flex", "ndarray", "wgpu", "cuda", "threads", "memory", "disk", "runs/"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    if !cfg!(feature = "cuda") {
        assert!(said.out.contains("not part of this build: cargo build --release --features cuda"), "{}", said.out);
    }
    assert!(dir.files().is_empty(), "an examination leaves nothing");
    if !cfg!(feature = "mujoco") {
        let with = |folder: Option<&str>| {
            let mut command = dir.command(&["doctor"]);
            command.env_remove("MUJOCO_DYNAMIC_LINK_DIR");
            command.envs(folder.map(|folder| ("MUJOCO_DYNAMIC_LINK_DIR", folder)));
            let out = Said::of(&command.output().unwrap()).out;
            out[out.find("MuJoCo").unwrap()..].to_owned()
        };
        let (script, build) = ("eval \"$(crates/mbrl-env/scripts/get-mujoco)\"", "--release --features mujoco");
        let said = with(None);
        assert!(said.contains(script) && said.contains(build) && !said.contains("LINK_DIR"), "{said}");
        let said = with(Some("elsewhere"));
        assert!(said.contains(script) && said.contains("MUJOCO_DYNAMIC_LINK_DIR = elsewhere"), "{said}");
        let library = format!("{}mujoco{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        dir.write(&library, "");
        let said = with(Some("."));
        assert!(!said.contains(script) && said.contains(build) && said.contains("the library is in ."), "{said}");
        fs::remove_file(dir.path(&library)).unwrap();
    }
    // `runs` is a file: no run can go there.
    dir.write("runs", "");
    assert!(dir.run(&["doctor"]).out.contains("cannot be written"));
}

#[test]
fn completions_are_scripts_that_know_the_words() {
    let dir = Dir::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = dir.run(&["completions", shell]).ok();
        for word in ["mbrl", "train", "report", "doctor", "tensorboard"] {
            assert!(said.out.contains(word), "{shell}: {word}");
        }
    }
    dir.run(&["completions", "tcsh"]).fails(2, &["tcsh", "bash"]);
    #[cfg(unix)]
    if let Ok(bash) = std::process::Command::new("bash").arg("--version").output()
        && bash.status.success()
    {
        dir.write("mbrl.bash", &dir.run(&["completions", "bash"]).out);
        let script = "bash -n mbrl.bash && . ./mbrl.bash && COMP_WORDS=(mbrl re) COMP_CWORD=1 && _mbrl mbrl re mbrl \
                      && echo \"${COMPREPLY[@]}\"";
        let output =
            std::process::Command::new("bash").current_dir(dir.path("")).args(["-c", script]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.trim(), "resume report refit render", "{}", String::from_utf8_lossy(&output.stderr));
        for (words, known, other) in [
            ("train ground", "ground-truth-hopper", "smoke"),
            ("eval --random mountain", "mountain-car", "pendulum"),
            ("train smoke --device f", "flex", "ndarray"),
            ("eval runs/smoke-0 --checkpoint b", "best", "last"),
        ] {
            let (words, last) = words.rsplit_once(' ').unwrap();
            let count = words.split(' ').count() + 1;
            let before = words.rsplit(' ').next().unwrap();
            let script = format!(
                ". ./mbrl.bash && COMP_WORDS=(mbrl {words} {last}) COMP_CWORD={count} && _mbrl mbrl {last} {before} && \
                 echo \"${{COMPREPLY[@]}}\""
            );
            let output =
                std::process::Command::new("bash").current_dir(dir.path("")).args(["-c", &script]).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(said.contains(known) && !said.contains(other), "{words} {last}: {said}");
        }
    }
}

/// Names of the scalars in a run's TensorBoard files, found as the protobuf strings of `Value.tag`.
fn tags(run: &Path) -> BTreeSet<String> {
    let mut tags = BTreeSet::new();
    for entry in fs::read_dir(run.join("tensorboard")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        // Field 1, a string, with its length, followed by field 2, a float.
        for at in 0..bytes.len().saturating_sub(2) {
            let end = at + 2 + usize::from(bytes[at + 1]);
            if bytes[at] == 0x0a && bytes.get(end) == Some(&0x15) {
                tags.extend(
                    std::str::from_utf8(&bytes[at + 2..end]).ok().filter(|t| t.contains('/')).map(str::to_owned),
                );
            }
        }
    }
    tags
}

#[test]
fn tensorboard_has_every_scalar_and_changes_no_metric() {
    let dir = Dir::new();
    let words = ["--set", "train.eval_every=500"];
    dir.train(&[&words[..], &["--out", "with", "--tensorboard"]].concat()).ok();
    dir.train(&[&words[..], &["--out", "without"]].concat()).ok();
    assert_eq!(dir.metrics("with"), dir.metrics("without"));
    assert!(!dir.path("without/tensorboard").exists());
    let metrics = fs::read_to_string(dir.path("with/metrics.jsonl")).unwrap();
    let mut expected = BTreeSet::new();
    for line in metrics.lines() {
        let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        expected.extend(line.keys().filter(|key| key.contains('/')).cloned());
    }
    assert_eq!(tags(&dir.path("with")), expected);

    // Resuming writes a new file and leaves the old one alone.
    let files = |run: &str| -> Vec<_> {
        let entries = fs::read_dir(dir.path(run).join("tensorboard")).unwrap();
        let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).map(|p| (p.clone(), fs::read(p).unwrap())).collect();
        files.sort();
        files
    };
    let before = files("with");
    let text = fs::read_to_string(dir.path("with/experiment.toml")).unwrap();
    dir.write("with/experiment.toml", &text.replace("steps = 500", "steps = 600"));
    dir.run(&["resume", "with", "--tensorboard"]).ok();
    let after = files("with");
    assert_eq!((before.len(), after.len()), (1, 2));
    assert_eq!(after[0], before[0]);
}
