//! `mbrl compare`, from outside: runs in, tables and a page out.

mod util;

use std::fs;

use util::Dir;

/// Two methods with two seeds each, and evaluations at 200 and 400 steps.
fn methods(dir: &Dir) {
    let quiet = ["--steps", "400", "--set", "train.eval_every=200", "--set", "train.eval_episodes=2", "--seeds", "2"];
    dir.train(&[&quiet[..], &["--out", "a"]].concat()).ok();
    dir.train(&[&quiet[..], &["--set", "planner.horizon=5", "--out", "b"]].concat()).ok();
}

/// The cells of a line of CSV by the names of their columns.
fn cell<'a>(csv: &'a str, row: usize, column: &str) -> &'a str {
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    lines[row][lines[0].iter().position(|name| *name == column).unwrap()]
}

#[test]
fn methods_are_compared_from_their_folders() {
    let dir = Dir::new();
    methods(&dir);
    let before = dir.files();
    let said = dir.run(&["compare", "a/smoke-0", "a/smoke-1", "b/smoke-*", "--random"]).ok();
    for word in [
        "pendulum: mean return of the evaluation",
        "smoke: planner.horizon = 8",
        "planner.horizon = 5",
        "random",
        "IQM",
    ] {
        assert!(said.out.contains(word), "`{word}`: {said:?}");
    }
    assert_eq!(dir.files(), before, "a table on the terminal leaves nothing");

    // The figures are those that the runs recorded.
    let words =
        ["compare", "long=a/smoke-*", "short=b/smoke-*", "random=-1200", "--threshold", "-1e9", "--format", "csv"];
    let said = dir.run(&words).ok();
    let finals: Vec<f64> = ["a/smoke-0", "a/smoke-1"]
        .iter()
        .map(|run| {
            let metrics = dir.metrics(run);
            metrics.iter().rfind(|line| line["event"] == "eval").unwrap()["eval/return_mean"].as_f64().unwrap()
        })
        .collect();
    let mean = 0.5 * (finals[0] + finals[1]);
    assert_eq!((cell(&said.out, 1, "method"), cell(&said.out, 1, "n")), ("long", "2"));
    for column in ["median", "iqm"] {
        assert!((cell(&said.out, 1, column).parse::<f64>().unwrap() - mean).abs() < 1e-9, "{said:?}");
    }
    // For two scores, the interval reaches from the lower to the higher.
    assert_eq!(cell(&said.out, 1, "iqm_low"), finals[0].min(finals[1]).to_string());
    assert_eq!((cell(&said.out, 2, "steps_to_threshold"), cell(&said.out, 2, "reached")), ("200", "2"));
    assert_eq!((cell(&said.out, 3, "method"), cell(&said.out, 3, "median")), ("random", "-1200"));
    assert_eq!(dir.run(&words).ok().out, said.out, "the same runs give the same bytes");
    // At an earlier step.
    let said = dir.run(&[&words[..], &["--at", "200"]].concat()).ok();
    let first =
        dir.metrics("a/smoke-0").iter().find(|line| line["event"] == "eval").unwrap()["eval/return_mean"].as_f64();
    let ends = [cell(&said.out, 1, "iqm_low"), cell(&said.out, 1, "iqm_high")].map(|end| end.parse::<f64>().ok());
    assert!(ends.contains(&first), "{said:?}");

    // Files, by their names.
    for (file, word) in
        [("t.md", "| long | 2 |"), ("t.tex", "\\begin{tabular}"), ("t.csv", "task,method"), ("t.txt", "  long")]
    {
        let said = dir.run(&["compare", "long=a/smoke-*", "short=b/smoke-*", "--out", file]).ok();
        assert_eq!(said.out.trim(), file);
        assert!(fs::read_to_string(dir.path(file)).unwrap().contains(word), "{file}");
    }
    dir.run(&["compare", "long=a/smoke-*", "short=b/smoke-*", "random=-1200", "--out", "page.html"]).ok();
    let page = fs::read_to_string(dir.path("page.html")).unwrap();
    let part = |id: &str| {
        let from = page.find(&format!("<section id=\"{id}\">")).unwrap_or_else(|| panic!("no section {id}"));
        &page[from..from + page[from..].find("</section>").unwrap()]
    };
    for name in ["long", "short", "random"] {
        assert!(part("comparison").contains(&format!("</span>{name}</td>")), "{name}: {}", part("comparison"));
    }
    for mark in ["class=\"band c0\"", "class=\"band c1\"", "line dashed c2", "random: \u{2212}1200"] {
        assert!(part("evaluation").contains(mark), "{mark}");
    }
    // A report of both says it too.
    dir.run(&["report", "a/smoke-0", "a/smoke-1", "b/smoke-0", "b/smoke-1", "--out", "report.html"]).ok();
    assert!(fs::read_to_string(dir.path("report.html")).unwrap().contains("<section id=\"comparison\">"));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let dir = Dir::new();
    methods(&dir);
    dir.train(&["--steps", "400", "--set", "train.eval_every=0", "--out", "none"]).ok();
    dir.train(&["--steps", "200", "--set", "train.eval_every=200", "--set", "train.eval_episodes=2", "--out", "short"])
        .ok();
    let before = dir.files();
    let fails = |words: &[&str], expected: &[&str]| {
        dir.run(&[&["compare"], words].concat()).fails(1, expected);
    };
    fails(&["a"], &["a: not a run folder", "a/*/"]);
    fails(&["nowhere"], &["nowhere", "experiment.toml"]);
    fails(&["a/smoke-0", "x=nowhere"], &["x=nowhere", "run folder"]);
    fails(&["random=-3"], &["no runs"]);
    fails(&["a/smoke-*", "random=1", "random=2"], &["random=2", "NAME@TASK=NUMBER"]);
    fails(&["a/smoke-*", "random@cartpole=1"], &["cartpole", "pendulum"]);
    fails(&["a/smoke-*", "--at", "500"], &["--at 500", "ends at step 400"]);
    fails(&["a/smoke-*", "--baseline", "b"], &["--baseline b"]);
    fails(&["a/smoke-*", "--out", "x.pdf"], &["x.pdf", ".csv"]);
    fails(&["a/smoke-*", "--out", "nowhere/x.md"], &["nowhere"]);
    fails(&["a/smoke-*", "--out", "x.html", "--format", "csv"], &["--format"]);
    fails(&["a/smoke-*", "random=1", "--random"], &["--random"]);
    dir.run(&["compare"]).fails(2, &["NAME=DIR"]);
    dir.run(&["compare", "a/smoke-*", "--threshold", "high"]).fails(2, &["--threshold", "finite return"]);
    assert_eq!(dir.files(), before);

    // Valid cases, with their notes.
    let notes = |words: &[&str], expected: &[&str]| {
        let said = dir.run(&[&["compare"], words].concat()).ok();
        for word in expected {
            assert!(said.err.contains(word), "`{word}`: {said:?}");
        }
    };
    notes(&["a/smoke-0", "b/smoke-0"], &["one seed, so there is no interval"]);
    notes(&["a/smoke-*", "a/smoke-0"], &["a/smoke-0 is named twice"]);
    notes(&["a/smoke-*", "s=short"], &["200 to 400 steps: compared at step 200"]);
    notes(&["a/smoke-*", "n=none"], &["no evaluations (train.eval_every = 0)", "training episodes"]);
    notes(&["mixed=a/smoke-*", "mixed=b/smoke-*"], &["mixed: its runs differ in planner.horizon"]);
}
