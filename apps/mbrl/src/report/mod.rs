//! `mbrl report`: the results of runs, on one HTML page that needs no network.
//!
//! The page contains its drawings, its style and its script; its security policy forbids it to load anything. The same runs give the
//! same bytes.

mod curves;
mod film;
mod html;
mod model;
pub(crate) mod runs;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf, absolute},
};

use anyhow::{Context, Result};
use mbrl_policy::{Provenance, experiment::Experiment, write_atomically};

use self::html::{absent, cell};
pub(crate) use self::{
    curves::{BAND, LEAST_SPAN, STEPS, draw_group},
    html::{escape, interval, number, seconds, table},
    runs::{CurvePoint, Group, Metric, Run, tell_apart},
};
use crate::{
    compare::{Baseline, Comparison, Question, Tables, compare},
    console,
    folder::checked_out,
    plot::{self, Colour, Estimate, estimate, mean},
    registry::registry,
    run::in_pool,
};

/// Writes the page about the runs in some folders, and returns its path.
pub(crate) fn write(paths: &[PathBuf], out: Option<&Path>, threads: usize) -> Result<PathBuf> {
    let place = out.map_or_else(|| default_place(paths), |out| checked_out(out, "html"))?;
    let groups = runs::read(paths)?;
    let compared = (groups.len() > 1).then(|| match compare(&groups, &Question::default()) {
        Ok(comparison) => compared(&comparison),
        Err(error) => absent(&format!("Left out: {}", console::chain(&error))),
    });
    write_page(&groups, &[], compared, &place, threads)?;
    Ok(place)
}

/// Writes the page about compared methods, with figures without runs as lines.
pub(crate) fn write_comparison(
    groups: &[Group],
    baselines: &[Baseline],
    comparison: &Comparison,
    place: &Path,
    threads: usize,
) -> Result<()> {
    write_page(groups, baselines, Some(compared(comparison)), place, threads)
}

fn write_page(
    groups: &[Group],
    baselines: &[Baseline],
    compared: Option<String>,
    place: &Path,
    threads: usize,
) -> Result<()> {
    let shown =
        in_pool(threads, || groups.iter().enumerate().map(|(i, group)| model::show(group, i)).collect::<Vec<_>>())?;
    write_atomically(place, page(groups, baselines, compared.as_deref(), &shown)?.as_bytes())?;
    Ok(())
}

/// Tables of methods, and notes about them.
fn compared(comparison: &Comparison) -> String {
    Tables::of(comparison).html() + &listed(&comparison.notes)
}

fn listed(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    format!("<ul class=\"notes\">{items}</ul>\n")
}

/// `report.html` in the only folder, or in the folder that holds them all.
fn default_place(paths: &[PathBuf]) -> Result<PathBuf> {
    let name = "report.html";
    if let [path] = paths {
        return Ok(path.join(name));
    }
    // As typed, if they are in the same folder.
    let parent = paths[0].parent();
    if let Some(parent) = parent
        && paths.iter().all(|path| path.parent() == Some(parent))
    {
        return Ok(parent.join(name));
    }
    let whole: Vec<PathBuf> = paths.iter().map(absolute).collect::<Result<_, _>>()?;
    let common = whole[0].ancestors().skip(1).find(|folder| whole.iter().all(|path| path.starts_with(folder)));
    Ok(common.context("the runs have no folder in common; give --out")?.join(name))
}

type Section = (&'static str, &'static str);
const SECTIONS: [Section; 9] = [
    ("summary", "Summary"),
    ("learning", "Learning curves"),
    ("evaluation", "Evaluation"),
    ("model-error", "Model error"),
    ("time", "Time"),
    ("model", "Model evaluation"),
    ("prediction", "Predicted and real"),
    ("episode", "Episode"),
    ("experiment", "Experiments"),
];

/// The comparison of methods, after the summary.
const COMPARISON: Section = ("comparison", "Comparison");

fn page(groups: &[Group], baselines: &[Baseline], compared: Option<&str>, shown: &[model::Shown]) -> Result<String> {
    let runs: usize = groups.iter().map(|group| group.runs.len()).sum();
    let title = match groups {
        [group] => group.name.clone(),
        groups => format!("{} experiments", groups.len()),
    };
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0} – mbrl</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{4}{1}</style>\n</head>\n<body>\n<header><h1>{0}</h1>\n\
         <p class=\"lead\">{2} of {3}</p>\n<nav>",
        escape(&title),
        include_str!("page.css"),
        if runs == 1 { "One run".to_owned() } else { format!("{runs} runs") },
        escape(&about(groups)),
        plot::STYLE,
    );
    let mut sections = SECTIONS.to_vec();
    if compared.is_some() {
        sections.insert(1, COMPARISON);
    }
    for (id, name) in &sections {
        let _ = write!(html, "<a href=\"#{id}\">{name}</a>");
    }
    html.push_str("</nav></header>\n<main>\n");
    for (id, name) in sections {
        let content = match id {
            "summary" => summary(groups, shown),
            "comparison" => compared.unwrap_or_default().to_owned(),
            "learning" => curves::learning(groups),
            "evaluation" => curves::evaluation(groups, baselines),
            "model-error" => curves::model_error(groups),
            "time" => curves::time(groups),
            "model" => by_group(groups, shown.iter().map(|s| &s.model)),
            "prediction" => by_group(groups, shown.iter().map(|s| &s.prediction)),
            "episode" => by_group(groups, shown.iter().map(|s| &s.episode)),
            _ => experiments(groups)?,
        };
        let _ = write!(html, "<section id=\"{id}\">\n<h2>{name}</h2>\n{content}</section>\n");
    }
    let _ = write!(html, "</main>\n<script>\n{}</script>\n</body>\n</html>\n", include_str!("page.js"));
    Ok(html)
}

/// The tasks and experiments in words.
fn about(groups: &[Group]) -> String {
    let words: Vec<String> =
        groups.iter().map(|group| format!("{} on the task {}", group.name, group.experiment().task)).collect();
    words.join("; ")
}

/// A part of the page for each experiment, under its name if there are several.
fn by_group<'a>(groups: &[Group], parts: impl Iterator<Item = &'a String>) -> String {
    let mut html = String::new();
    for (group, part) in groups.iter().zip(parts) {
        if groups.len() > 1 {
            let _ = writeln!(html, "<h3>{}{}</h3>", swatch(group.colour), escape(&group.name));
        }
        html.push_str(part);
    }
    html
}

pub(crate) fn swatch(group: usize) -> String {
    format!(r#"<span class="swatch {}"></span>"#, Colour::Series(group).class())
}

/// The figures of one run in a table.
#[derive(Debug, PartialEq)]
struct Figures {
    last: Option<f64>,
    best: Option<f64>,
    /// For the episodes whose actions the agent chose.
    mean: Option<f64>,
    evaluation: Option<Estimate>,
}

impl Figures {
    fn of(run: &Run) -> Self {
        let returns = |points: Vec<(f64, f64)>| points.into_iter().map(|p| p.1).collect::<Vec<f64>>();
        let (all, chosen) = (returns(run.returns()), returns(run.chosen_returns()));
        Self {
            last: all.last().copied(),
            best: all.iter().copied().reduce(f64::max),
            mean: (!chosen.is_empty()).then(|| mean(&chosen)),
            evaluation: run.evaluation().map(curves::of_episodes).filter(|found| found.mean.is_finite()),
        }
    }
}

/// The same for several seeds: means over them, with intervals; for one, its own figures.
fn over_seeds(all: &[Figures]) -> [Option<Estimate>; 4] {
    let over = |figure: &dyn Fn(&Figures) -> Option<f64>| estimate(&all.iter().filter_map(figure).collect::<Vec<_>>());
    let evaluation = match all {
        [one] => one.evaluation,
        _ => over(&|f| f.evaluation.map(|found| found.mean)),
    };
    [over(&|f| f.last), over(&|f| f.best), over(&|f| f.mean), evaluation]
}

fn summary(groups: &[Group], shown: &[model::Shown]) -> String {
    let mut rows = Vec::new();
    let mut single = Vec::new();
    for group in groups {
        let experiment = group.experiment();
        let (least, most) = group.runs.iter().map(Run::env_step).fold((u64::MAX, 0), |(l, m), s| (l.min(s), m.max(s)));
        let steps = if least == most { most.to_string() } else { format!("{least}–{most}") };
        let mut row = vec![
            format!("{}{}<small>{}</small>", swatch(group.colour), escape(&group.name), escape(&experiment.task)),
            escape(&group.seeds()),
            format!("{steps}<small>of {}</small>", experiment.steps),
        ];
        row.extend(over_seeds(&group.runs.iter().map(Figures::of).collect::<Vec<_>>()).map(cell));
        row.push(seconds(mean(&group.runs.iter().map(Run::wall_s).collect::<Vec<_>>())));
        rows.push(row);
        for run in &group.runs {
            let mut row = vec![
                format!("{}{}", swatch(group.colour), escape(&run.label)),
                run.experiment().seed.to_string(),
                format!("{}{}", run.env_step(), if run.is_finished() { "" } else { "<small>not finished</small>" }),
                run.episodes().to_string(),
            ];
            row.extend(over_seeds(&[Figures::of(run)]).map(cell));
            row.push(seconds(run.wall_s()));
            single.push(row);
        }
    }
    let header = ["experiment", "seeds", "steps", "last return", "best", "mean", "evaluation", "wall time"];
    let mut html = table(&header, 2, &rows);
    html.push_str(
        "<p class=\"lead\"><small>Returns of whole training episodes: of the last one, of the best one, and the mean of all, \
         random ones aside. Of several seeds each figure is the mean over the seeds, below it its 95 % bootstrap \
         interval. Evaluation: the last one; of a single run the interval is that of the mean over its start states (1.96 \
         standard errors). Wall time: mean over the seeds.</small></p>\n",
    );
    if single.len() > 1 {
        let header = ["run", "seed", "steps", "episodes", "last return", "best", "mean", "evaluation", "wall time"];
        let _ = writeln!(html, "<details open><summary>Every run</summary>{}</details>", table(&header, 2, &single));
    }
    let mut notes = Vec::new();
    for (group, shown) in groups.iter().zip(shown) {
        for run in &group.runs {
            notes.extend(run.notes.iter().map(|note| format!("{}: {note}", run.label)));
            if !run.is_finished() {
                let (step, steps, path) = (run.env_step(), run.experiment().steps, quoted_path(&run.folder.path));
                notes.push(format!("{} stands at step {step} of {steps}; to go on: mbrl resume {path}", run.label));
            }
        }
        notes.extend(shown.notes.iter().cloned());
    }
    html + &listed(&notes)
}

/// The resolved experiments, their differences, and how to reproduce the runs.
fn experiments(groups: &[Group]) -> Result<String> {
    let mut html = String::new();
    if groups.len() > 1 {
        html.push_str(&differences(groups)?);
    }
    for group in groups {
        if groups.len() > 1 {
            let _ = writeln!(html, "<h3>{}{}</h3>", swatch(group.colour), escape(&group.name));
        }
        let summary = &group.experiment().summary;
        if !summary.is_empty() {
            let _ = writeln!(html, "<p>{}</p>", escape(summary));
        }
        let _ = write!(
            html,
            "<p>To make {} again, with {}:</p>",
            match group.runs.len() {
                1 => "this run",
                _ => "these runs",
            },
            escape(&made_with(&group.runs))
        );
        let _ = writeln!(html, "<pre>{}</pre>", escape(&commands(group)?));
        let _ = writeln!(
            html,
            "<details><summary>The resolved experiment{}</summary><pre>{}</pre></details>",
            if group.runs.len() > 1 { ", of the first seed" } else { "" },
            escape(&group.experiment().to_toml()?)
        );
    }
    Ok(html)
}

/// Versions and machine with which runs were made, as recorded in them.
fn made_with(runs: &[Run]) -> String {
    let mut found: Vec<String> = Vec::new();
    for start in runs.iter().flat_map(|run| Provenance::of_run(&run.folder.path).unwrap_or_default()) {
        let commit = start.commit.map_or(String::new(), |commit| format!(" (commit {commit})"));
        let cpu = start.cpu.map_or(String::new(), |cpu| format!(", {cpu}"));
        let build = if start.optimised { "" } else { ", a build without optimisations" };
        let threads = if start.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", start.threads) };
        let text = format!("mbrl {}{commit} on {}{cpu}, {threads}{build}", start.version, start.target);
        if !found.contains(&text) {
            found.push(text);
        }
    }
    if found.is_empty() { "an unknown version, which did not record its number".into() } else { found.join("; ") }
}

/// A table of the settings that differ between experiments.
fn differences(groups: &[Group]) -> Result<String> {
    let all = groups.iter().map(|group| Ok(group.experiment().flat()?)).collect::<Result<Vec<_>>>()?;
    let mut keys: Vec<&String> = all.iter().flatten().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let value = |settings: &[(String, String)], key: &str| {
        settings.iter().find(|(k, _)| k == key).map_or("–".to_owned(), |(_, v)| v.clone())
    };
    let mut rows = Vec::new();
    for key in keys.into_iter().filter(|key| !["name", "summary", "seed"].contains(&key.as_str())) {
        let values: Vec<String> = all.iter().map(|settings| value(settings, key)).collect();
        if values.iter().any(|v| *v != values[0]) {
            let code = |text: &String| format!("<code>{}</code>", escape(text));
            rows.push([vec![code(key)], values.iter().map(code).collect()].concat());
        }
    }
    if rows.is_empty() {
        return Ok(absent("The experiments differ in their names alone."));
    }
    let names: Vec<String> = groups.iter().map(|group| swatch(group.colour) + &escape(&group.name)).collect();
    let header: Vec<&str> = ["setting"].into_iter().chain(names.iter().map(String::as_str)).collect();
    Ok(format!("<h3>What differs</h3>{}", table(&header, header.len(), &rows)))
}

/// Command lines that reproduce the runs.
fn commands(group: &Group) -> Result<String> {
    let experiment = group.experiment();
    let mut words = vec!["mbrl train".to_owned()];
    let mut note = String::new();
    match overrides(experiment)? {
        Some(overrides) => {
            words.push(experiment.name.clone());
            words.extend(overrides.iter().map(|word| format!("--set {}", quoted(word))));
        }
        None => {
            let file = format!("{}.toml", experiment.name);
            note = format!("# with the experiment below as {file}\n");
            words.push(quoted(&file));
        }
    }
    let seeds: Vec<u64> = group.runs.iter().map(|run| run.experiment().seed).collect();
    let base = words.join(" ");
    let lines: Vec<String> = match seeds[..] {
        [first, .., last] if (first..=last).eq(seeds.iter().copied()) => {
            vec![format!("{base} --seed {first} --seeds {}", seeds.len())]
        }
        _ => seeds.iter().map(|seed| format!("{base} --seed {seed}")).collect(),
    };
    Ok(note + &lines.join("\n"))
}

/// The settings that turn the embedded experiment of the same name into this one, apart from its seed; `None` if settings do not suffice.
fn overrides(experiment: &Experiment) -> Result<Option<Vec<String>>> {
    let Ok(embedded) = registry().load(&experiment.name, &[]) else { return Ok(None) };
    let theirs = embedded.flat()?;
    let differ = |pair: &&(String, String)| pair.0 != "seed" && !theirs.contains(pair);
    let words: Vec<String> =
        experiment.flat()?.iter().filter(differ).map(|(key, value)| format!("{key}={value}")).collect();
    let rebuilt = registry().load(&experiment.name, &words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    let same = rebuilt.is_some_and(|rebuilt| rebuilt.with_seed(experiment.seed) == *experiment);
    Ok(same.then_some(words))
}

/// A word for a POSIX shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-=/".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// A path as a word for a POSIX shell.
pub(crate) fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_place_is_the_run_or_the_folder_of_all() {
        let place = |paths: &[&str]| default_place(&paths.iter().map(PathBuf::from).collect::<Vec<_>>()).unwrap();
        assert_eq!(place(&["runs/a"]), Path::new("runs/a/report.html"));
        assert_eq!(place(&["runs/a", "runs/b"]), Path::new("runs/report.html"));
        assert_eq!(place(&["a", "b"]), Path::new("report.html"));
        assert_eq!(place(&["/x/runs/a", "/x/other/deep/b"]), Path::new("/x/report.html"));
    }

    fn episode(step: u64, paid: f64) -> String {
        format!(
            r#"{{"event":"episode","env_step":{step},"wall_s":{step},"episode/return":{paid},"episode/length":100,"episode/cut":0}}"#
        )
    }

    fn run_of(lines: &[String]) -> Run {
        runs::tests::run(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A random episode of −50, then planned ones.
    fn learned(planned: [f64; 3]) -> Vec<String> {
        let mut lines = vec![episode(100, -50.0), r#"{"event":"fit","env_step":100,"wall_s":1}"#.to_owned()];
        lines.extend(planned.iter().enumerate().map(|(i, paid)| episode(200 + 100 * i as u64, *paid)));
        lines
    }

    #[test]
    fn figures_of_a_run_are_its_last_its_best_and_the_mean_of_what_was_chosen() {
        let mut lines = learned([-20.0, 10.0, -5.0]);
        lines.push(r#"{"event":"eval","env_step":400,"wall_s":500,"eval/return_mean":3,"eval/return_std":2,"eval/episodes":5}"#.into());
        let found = Figures::of(&run_of(&lines));
        let evaluation = Estimate { mean: 3.0, interval: Some((3.0 - 1.96, 3.0 + 1.96)) };
        let expected = Figures { last: Some(-5.0), best: Some(10.0), mean: Some(-5.0), evaluation: Some(evaluation) };
        assert_eq!(found, expected);
        let none = Figures { last: None, best: None, mean: None, evaluation: None };
        assert_eq!(Figures::of(&run_of(&[])), none);
    }

    #[test]
    fn the_summary_says_means_and_intervals_over_the_seeds() {
        let seeds = [[-20.0, 10.0, -5.0], [0.0, 0.0, 0.0], [2.0, 20.0, 8.0]];
        let mut group = Group::new("smoke".into(), seeds.map(|planned| run_of(&learned(planned))).into(), 0);
        for (run, seed) in group.runs.iter_mut().zip(3..) {
            run.folder.experiment.seed = seed;
        }
        let html = summary(&[group], &[model::Shown::default()]);
        let cells: Vec<&str> =
            html.split("<td").skip(1).map(|c| &c[c.find('>').unwrap() + 1..c.find("</td>").unwrap()]).collect();
        let figures = [
            "1.00<small>−5.00 to 8.00</small>",
            "10.00<small>0.00 to 20.00</small>",
            "1.67<small>−5.00 to 10.00</small>",
            "–",
            "6 min 40 s",
        ];
        assert_eq!(cells[3..8], figures, "{html}");
        assert_eq!(cells[1], "3–5");
        // Then every run: its name, seed, steps, episodes, last, best, mean, evaluation and time.
        assert_eq!(cells[8 + 3..8 + 9], ["4", "−5.00", "10.00", "−5.00", "–", "6 min 40 s"], "{html}");
    }

    #[test]
    fn overrides_rebuild_an_experiment_or_are_none() {
        let words = ["planner.population=17", "model.hidden=[8, 8]", "device=ndarray", "fit.learning_rate=0.5"];
        let mut changed = registry().load("smoke", &words).unwrap();
        let mut found = overrides(&changed).unwrap().unwrap();
        found.sort();
        assert_eq!(
            found,
            ["device=\"ndarray\"", "fit.learning_rate=0.5", "model.hidden=[8, 8]", "planner.population=17"]
        );
        assert_eq!(overrides(&registry().load("smoke", &[]).unwrap().with_seed(3)).unwrap(), Some(vec![]));
        changed.name = "mine".into();
        assert_eq!(overrides(&changed).unwrap(), None);
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("planner.population=17"), "planner.population=17");
        assert_eq!(quoted("model.hidden=[8, 8]"), "'model.hidden=[8, 8]'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
