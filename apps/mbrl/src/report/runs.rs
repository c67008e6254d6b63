//! Results of runs, read whatever state they are in.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Result, bail};
use mbrl_env::{Env, EnvSpec, SketchFn, WrappersConfig};
use mbrl_policy::{DistilRole, MetricsLine, MetricsReader, ValueSource, experiment::Experiment};

use crate::{
    commands::{counted, plans_failed},
    compare::once,
    console, folder,
    registry::{outcomes, registry},
    run::{EXPERIMENT, METRICS, RunFolder},
    trajectories,
};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    event: String,
    pub(super) env_step: f64,
    wall_s: f64,
    line: MetricsLine,
}

impl Line {
    fn new(line: MetricsLine) -> Self {
        Self { event: line.event.clone(), env_step: line.env_step as f64, wall_s: line.wall_s, line }
    }

    /// The value; NaN if it is `null` or missing.
    pub(super) fn get(&self, key: &str) -> f64 {
        self.line.get(key).unwrap_or(f64::NAN)
    }
}

/// A run and its record.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) folder: RunFolder,
    pub(crate) label: String,
    lines: Vec<Line>,
    /// What is wrong with its files.
    pub(crate) notes: Vec<String>,
    /// Its task's description, read on demand, because this may start a process.
    known: OnceLock<Option<Known>>,
}

/// A task's description.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) spec: EnvSpec,
    pub(super) sketch: Option<SketchFn>,
}

/// How a run spent its wall-clock time (s).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Times {
    pub(super) simulation: f64,
    pub(super) acting: f64,
    pub(super) fitting: f64,
    pub(super) evaluation: f64,
    pub(super) rest: f64,
    /// The total.
    pub(super) total: f64,
    /// The record comes from an older version: acting is estimated, and simulation is part of the rest.
    pub(super) estimated: bool,
}

impl Run {
    /// Reads a folder; only one without a readable experiment is refused.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if !path.join(EXPERIMENT).exists() {
            // A folder of many runs is easily given in place of one of them.
            let holds_runs = fs::read_dir(path)
                .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join(EXPERIMENT).exists()));
            if holds_runs {
                let path = path.display();
                bail!("{path}: not a run folder: {EXPERIMENT} not found; the runs in it are {path}/*/");
            }
        }
        let folder = RunFolder::open(path)?;
        let label = folder.label();
        let mut run = Self { folder, label, lines: Vec::new(), notes: Vec::new(), known: OnceLock::new() };
        match MetricsReader::open(&path.join(METRICS))? {
            Some(metrics) => {
                run.lines = metrics.lines.into_iter().map(Line::new).collect();
                run.notes.extend(metrics.damaged.iter().map(|what| format!("{METRICS}, left out {what}")));
            }
            None => run.notes.push(format!("no {METRICS}: no episode has ended yet")),
        }
        let broken = run.of("episode").filter(|line| line.get("episode/breakdown") == 1.0).count();
        if broken > 0 {
            run.notes
                .push(format!("{broken} of {} broke down and are left out", counted(run.episodes() as u64, "episode")));
        }
        let failed: f64 = run.points("plan", "plan/failed").iter().map(|(_, count)| count).sum();
        if failed > 0.0 {
            run.notes.push(plans_failed(failed as u64));
        }
        Ok(run)
    }

    pub(crate) fn experiment(&self) -> &Experiment {
        &self.folder.experiment
    }

    /// Returns over real steps: of evaluations, with NaN if no episode was complete, or of complete training episodes.
    pub(crate) fn curve(&self, metric: Metric) -> Vec<CurvePoint> {
        let point = |line: &Line, value| CurvePoint { env_step: line.env_step, value, wall_s: line.wall_s };
        match metric {
            Metric::Evaluation => self.of("eval").map(|line| point(line, line.get("eval/return_mean"))).collect(),
            Metric::Episode => self.whole_lines().map(|line| point(line, line.get("episode/return"))).collect(),
        }
    }

    /// The outcomes of the episodes of the evaluation at a step, besides their return: the figures by which its task is judged, means over
    /// the episodes, in the task's order. Empty if the task has none, or if the episodes are no longer there.
    pub(crate) fn outcomes(&self, env_step: f64) -> Vec<(&'static str, f64)> {
        let mut sums: Vec<(&'static str, f64, usize)> = Vec::new();
        let stored = trajectories::newest(&self.folder.path, Some(env_step as u64)).ok().flatten();
        for episode in stored.into_iter().flat_map(|(_, episodes)| episodes).flatten() {
            for (i, (name, value)) in outcomes(&self.experiment().task, &episode.observations()).into_iter().enumerate()
            {
                if sums.len() <= i {
                    sums.push((name, 0.0, 0));
                }
                sums[i].1 += value;
                sums[i].2 += 1;
            }
        }
        sums.into_iter().map(|(name, sum, n)| (name, sum / n as f64)).collect()
    }

    /// The first of these figures over real steps.
    pub(crate) fn outcome_curve(&self) -> Option<(&'static str, Vec<(f64, f64)>)> {
        let mut name = None;
        let mut points = Vec::new();
        for line in self.of("eval") {
            if let Some((first, value)) = self.outcomes(line.env_step).first().copied() {
                name = Some(first);
                points.push((line.env_step, value));
            }
        }
        name.map(|name| (name, points))
    }

    /// Its task's description; `None` for a task that this program does not know, or that does not start here.
    pub(super) fn known(&self) -> Option<&Known> {
        let known = self.known.get_or_init(|| {
            let task = self.experiment().make_task(registry()).ok()?;
            Some(Known { spec: task.env.spec().clone(), sketch: task.sketch })
        });
        known.as_ref()
    }

    fn of<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Line> + 'a {
        self.lines.iter().filter(move |line| line.event == event)
    }

    /// Real steps and values of a metric, where they are finite.
    pub(super) fn points(&self, event: &str, key: &str) -> Vec<(f64, f64)> {
        self.of(event).map(|line| (line.env_step, line.get(key))).filter(|p| p.1.is_finite()).collect()
    }

    /// Real steps and returns of the complete training episodes.
    pub(super) fn returns(&self) -> Vec<(f64, f64)> {
        self.whole(|_| true)
    }

    /// Those of them whose actions the agent chose from the first step on, by plans or by its policy, without the random ones before.
    pub(super) fn chosen_returns(&self) -> Vec<(f64, f64)> {
        let agent = &self.experiment().agent;
        let random = match (self.first_fit(), agent.learned_model()) {
            (Some(fit), _) => fit,
            // Until its first fit, an agent with a model acts at random.
            (None, Some(_)) => f64::INFINITY,
            (None, None) => agent.random_steps() as f64,
        };
        self.whole(|line| line.env_step - line.get("episode/length") >= random)
    }

    /// Complete training episodes.
    fn whole_lines(&self) -> impl Iterator<Item = &Line> {
        let flagged = |line: &Line| ["episode/cut", "episode/breakdown"].iter().any(|flag| line.get(flag) == 1.0);
        self.of("episode").filter(move |line| !flagged(line))
    }

    fn whole(&self, which: impl Fn(&Line) -> bool) -> Vec<(f64, f64)> {
        let whole = self.whole_lines().filter(|line| which(line));
        whole.map(|line| (line.env_step, line.get("episode/return"))).filter(|p| p.1.is_finite()).collect()
    }

    /// Real steps at the first fit, up to which actions were random.
    pub(super) fn first_fit(&self) -> Option<f64> {
        self.of("fit").find(|line| line.line.is_model_fit()).map(|line| line.env_step)
    }

    pub(super) fn episodes(&self) -> usize {
        self.of("episode").count()
    }

    /// Real steps by the end of the last episode; for a refit, which has no episodes, those of its data.
    pub(crate) fn env_step(&self) -> u64 {
        let episodes = self.of("episode").map(|line| line.env_step as u64).max();
        episodes.or_else(|| self.lines.iter().map(|line| line.env_step as u64).max()).unwrap_or(0)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.env_step() >= self.experiment().steps
    }

    /// Whether the last recorded figure belongs to its last step: an evaluation at the end may have been stopped.
    pub(crate) fn is_evaluated(&self) -> bool {
        let at_the_end = || self.evaluation().is_some_and(|line| line.env_step as u64 >= self.env_step());
        self.experiment().train.eval_every == 0 || at_the_end()
    }

    /// The last evaluation.
    pub(super) fn evaluation(&self) -> Option<&Line> {
        self.of("eval").last()
    }

    pub(super) fn evaluations(&self) -> impl Iterator<Item = &Line> {
        self.of("eval")
    }

    pub(super) fn wall_s(&self) -> f64 {
        self.lines.iter().map(|line| line.wall_s).filter(|s| s.is_finite()).fold(0.0, f64::max)
    }

    pub(super) fn times(&self) -> Times {
        // An empty sum is −0.
        let sum = |event: &str, key: &str| self.points(event, key).iter().fold(0.0, |sum, p| sum + p.1);
        let estimated = self.points("episode", "episode/act_s").is_empty() && self.episodes() > 0;
        let acting = if estimated { self.planning_estimated() } else { sum("episode", "episode/act_s") };
        let simulation = sum("episode", "episode/env_s");
        let (fitting, evaluation) = (sum("fit", "model/fit_s"), sum("eval", "eval/time_s"));
        let total = self.wall_s();
        let rest = (total - acting - simulation - fitting - evaluation).max(0.0);
        Times { simulation, acting, fitting, evaluation, rest, total, estimated }
    }

    /// Mean time of a plan times the number of steps of its episode.
    fn planning_estimated(&self) -> f64 {
        let mut length = 0.0;
        let mut sum = 0.0;
        for line in &self.lines {
            match line.event.as_str() {
                "episode" => length = line.get("episode/length"),
                "plan" => sum += 1e-3 * line.get("plan/ms") * length,
                _ => {}
            }
        }
        if sum.is_finite() { sum } else { 0.0 }
    }
}

/// The metric of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Mean return of each evaluation.
    Evaluation,
    /// Return of each complete training episode, including exploration.
    Episode,
}

/// A point of a run's curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CurvePoint {
    pub(crate) env_step: f64,
    pub(crate) value: f64,
    pub(crate) wall_s: f64,
}

/// The seeds of one experiment, or of one method on one task.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Unique among the groups of a task.
    pub(crate) name: String,
    /// In the order of their seeds; at least one.
    pub(crate) runs: Vec<Run>,
    /// Index of its series colour, the same on the whole page.
    pub(crate) colour: usize,
    /// Whether it is a reference for the others, which learns nothing.
    pub(crate) is_baseline: bool,
}

impl Group {
    /// Runs with one name.
    pub(crate) fn new(name: String, runs: Vec<Run>, colour: usize) -> Self {
        // With a value function or a policy, planning in the simulator learns too.
        let learns_nothing = |run: &Run| {
            let sections = run.experiment().agent.ground_truth();
            sections.is_some_and(|of| of.value.source == ValueSource::Off && of.distil.role == DistilRole::Off)
        };
        let is_baseline = runs.iter().all(learns_nothing);
        Self { name, runs, colour, is_baseline }
    }

    /// The experiment of the first seed.
    pub(crate) fn experiment(&self) -> &Experiment {
        self.runs[0].experiment()
    }

    /// The task of its runs, with its settings: returns of different ones are not comparable.
    pub(crate) fn task(&self) -> String {
        task_of(self.experiment())
    }

    pub(crate) fn seeds(&self) -> String {
        let seeds: Vec<u64> = self.runs.iter().map(|run| run.experiment().seed).collect();
        match seeds[..] {
            [first, _, .., last] if (first..=last).eq(seeds.iter().copied()) => format!("{first}–{last}"),
            _ => seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}

/// The task of an experiment, with the options and wrappers that make it a different one.
fn task_of(experiment: &Experiment) -> String {
    let mut plain = experiment.clone();
    plain.wrappers = WrappersConfig::default();
    let defaults = plain.flat().unwrap_or_default();
    let settings = experiment.flat().unwrap_or_default();
    let words: Vec<String> = settings
        .iter()
        .filter_map(|(key, value)| match key.split_once('.') {
            Some(("task_options", option)) => Some(format!("{option} = {value}")),
            Some(("wrappers", wrapper)) if !defaults.contains(&(key.clone(), value.clone())) => {
                Some(format!("{wrapper} = {value}"))
            }
            _ => None,
        })
        .collect();
    if words.is_empty() { experiment.task.clone() } else { format!("{} ({})", experiment.task, words.join(", ")) }
}

/// Reads all runs and groups those whose experiments differ only in the seed.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Group>> {
    let mut places = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for path in paths {
        // A run that is named twice counts once.
        let place = folder::real(path);
        if places.contains(&place) {
            console::note(format_args!("note: {} is named twice", path.display()));
            continue;
        }
        places.push(place);
        let run = Run::read(path)?;
        let settings = |run: &Run| run.experiment().with_seed(0);
        match groups.iter_mut().find(|group| settings(&group.runs[0]) == settings(&run)) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group::new(run.experiment().name.clone(), vec![run], groups.len())),
        }
    }
    for group in &mut groups {
        group.runs.sort_by_key(|run| run.experiment().seed);
        once(&mut group.runs);
    }
    tell_apart(&mut groups);
    Ok(groups)
}

/// Names groups with equal names by the settings in which they differ, and runs with equal folder names by their paths.
pub(crate) fn tell_apart(groups: &mut [Group]) {
    let settings: Vec<Settings> = groups.iter().map(|group| group.experiment().flat().unwrap_or_default()).collect();
    let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    for (i, group) in groups.iter_mut().enumerate() {
        let alike: Vec<&Settings> = (0..names.len()).filter(|j| names[*j] == names[i]).map(|j| &settings[j]).collect();
        if alike.len() > 1 {
            group.name = format!("{}: {}", names[i], differing(&settings[i], &alike));
        }
    }
    let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    for (i, group) in groups.iter_mut().enumerate() {
        // So many settings differ that the first ones are the same.
        if names.iter().filter(|name| **name == names[i]).count() > 1 {
            let number = names[..=i].iter().filter(|name| **name == names[i]).count();
            group.name = format!("{} ({number})", names[i]);
        }
    }
    let labels: Vec<String> = groups.iter().flat_map(|group| &group.runs).map(|run| run.label.clone()).collect();
    for run in groups.iter_mut().flat_map(|group| &mut group.runs) {
        if labels.iter().filter(|label| **label == run.label).count() > 1 {
            run.label = run.folder.path.display().to_string();
        }
    }
}

/// Keys and values.
type Settings = Vec<(String, String)>;

/// Maximum number of settings in a name.
const NAMED: usize = 3;

/// The settings that distinguish one of `alike` from the others, in words: as few as suffice, and an ellipsis if more differ. The seed
/// does not count.
fn differing(own: &Settings, alike: &[&Settings]) -> String {
    let value = |settings: &Settings, key: &str| settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let mut keys: Vec<&str> = alike.iter().flat_map(|settings| settings.iter().map(|(key, _)| key.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    let kinds = |chosen: &[&str]| {
        let kinds = alike.iter().map(|other| chosen.iter().map(|key| value(other, key)).collect::<Vec<_>>());
        kinds.collect::<std::collections::BTreeSet<_>>().len()
    };
    keys.retain(|key| !["name", "summary", "seed"].contains(key) && kinds(&[key]) > 1);
    let mut chosen: Vec<&str> = Vec::new();
    while chosen.len() < NAMED.min(keys.len()) && kinds(&chosen) < alike.len() {
        let with = |key: &str| kinds(&[&chosen[..], &[key]].concat());
        let all_have = |key: &str| alike.iter().all(|settings| value(settings, key).is_some());
        // Among equally good ones, one that all have, and of these the first by name.
        let left = keys.iter().filter(|key| !chosen.contains(key));
        let best = left.rev().max_by_key(|key| (with(key), all_have(key)));
        chosen.extend(best);
    }
    let words: Vec<String> = chosen
        .iter()
        .map(|key| value(own, key).map_or_else(|| format!("no {key}"), |value| format!("{key} = {value}")))
        .collect();
    words.join(", ") + if chosen.len() < keys.len() { ", …" } else { "" }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::registry::registry;

    /// A run of `smoke` with these lines as its record.
    pub(crate) fn run(lines: &[&str]) -> Run {
        let folder =
            RunFolder { path: "run".into(), experiment: registry().load("smoke", &[]).unwrap(), longer: false };
        let lines = MetricsReader::parse(lines.join("\n").as_bytes()).lines.into_iter().map(Line::new).collect();
        Run { folder, label: "run".into(), lines, notes: Vec::new(), known: OnceLock::new() }
    }

    #[test]
    fn groups_that_nothing_tells_apart_are_numbered_and_others_are_not() {
        let group = |name: &str| Group { name: name.into(), runs: vec![run(&[])], colour: 0, is_baseline: false };
        let mut groups = [group("twice"), group("once"), group("twice")];
        tell_apart(&mut groups);
        let [first, once, second] = groups.map(|group| group.name);
        assert!(first.ends_with("(1)") && second.ends_with("(2)") && once == "once", "{first}, {once}, {second}");
    }

    #[test]
    fn planning_in_the_simulator_is_a_baseline_unless_it_learns_a_value_or_a_policy() {
        let group = |name: &str| {
            let experiment = registry().load(name, &[]).unwrap();
            let folder = RunFolder { path: "run".into(), experiment, longer: false };
            Group::new(name.into(), vec![Run { folder, ..run(&[]) }], 0)
        };
        for (name, is_baseline) in [
            ("ground-truth-cartpole-swingup", true),
            ("value-cartpole-swingup", false),
            ("distil-reacher", false),
            ("smoke", false),
        ] {
            assert_eq!(group(name).is_baseline, is_baseline, "{name}");
        }
    }

    #[test]
    fn the_first_fit_is_that_of_a_model() {
        let value = r#"{"event":"fit","env_step":50,"wall_s":1.0,"value/fit_s":1.0}"#;
        assert_eq!(run(&[value]).first_fit(), None);
        let both = [value, r#"{"event":"fit","env_step":200,"wall_s":4.0,"model/fit_s":1.0}"#];
        assert_eq!(run(&both).first_fit(), Some(200.0));
    }

    #[test]
    fn wall_time_is_split_without_a_remainder() {
        let times = run(&[
            r#"{"event":"episode","env_step":200,"wall_s":3.0,"episode/env_s":0.5,"episode/act_s":2.0}"#,
            r#"{"event":"fit","env_step":200,"wall_s":4.0,"model/fit_s":1.0}"#,
            r#"{"event":"episode","env_step":400,"wall_s":7.0,"episode/env_s":0.25,"episode/act_s":2.5}"#,
            r#"{"event":"eval","env_step":400,"wall_s":9.0,"eval/time_s":1.5}"#,
        ])
        .times();
        let expected = Times {
            simulation: 0.75,
            acting: 4.5,
            fitting: 1.0,
            evaluation: 1.5,
            rest: 1.25,
            total: 9.0,
            estimated: false,
        };
        assert_eq!(times, expected);
    }

    #[test]
    fn an_older_record_estimates_planning_from_its_plans() {
        let times = run(&[
            r#"{"event":"episode","env_step":100,"wall_s":0.5,"episode/length":100}"#,
            r#"{"event":"episode","env_step":300,"wall_s":3.0,"episode/length":200}"#,
            r#"{"event":"plan","env_step":300,"wall_s":3.0,"plan/ms":10.0}"#,
        ])
        .times();
        assert!(times.estimated);
        assert_eq!((times.acting, times.rest, times.simulation), (2.0, 1.0, 0.0));
    }

    /// A group of one run of `smoke` with these overrides.
    fn group(words: &[&str]) -> Group {
        let mut run = run(&[]);
        run.folder.experiment = registry().load("smoke", words).unwrap();
        Group::new("smoke".into(), vec![run], 0)
    }

    #[test]
    fn experiments_of_one_name_are_called_by_what_differs() {
        let mut groups = [group(&["planner.horizon=5"]), group(&["planner.horizon=7", "seed=3"]), group(&[])];
        groups[2].name = "other".into();
        tell_apart(&mut groups);
        assert_eq!(
            groups.map(|group| group.name),
            ["smoke: planner.horizon = 5", "smoke: planner.horizon = 7", "other"]
        );
        // As few settings as distinguish all of them.
        let both = ["planner.horizon=5", "planner.population=30"];
        let mut groups = [group(&both), group(&both[..1]), group(&both[1..]), group(&[])];
        tell_apart(&mut groups);
        assert_eq!(groups[0].name, "smoke: planner.horizon = 5, planner.population = 30");
        let mut groups = [group(&["fit.max_epochs=3", "steps=300"]), group(&[])];
        tell_apart(&mut groups);
        assert_eq!(groups[0].name, "smoke: fit.max_epochs = 3, …");
    }

    #[test]
    fn random_episodes_are_no_chosen_ones() {
        let lines = [
            r#"{"event":"episode","env_step":200,"wall_s":1,"episode/return":-9,"episode/length":200,"episode/cut":0}"#,
            r#"{"event":"fit","env_step":200,"wall_s":1}"#,
            r#"{"event":"episode","env_step":400,"wall_s":2,"episode/return":-1,"episode/length":200,"episode/cut":0}"#,
            r#"{"event":"fit","env_step":400,"wall_s":2}"#,
            r#"{"event":"episode","env_step":450,"wall_s":3,"episode/return":-2,"episode/length":50,"episode/cut":1}"#,
        ];
        let found = run(&lines);
        assert_eq!((found.chosen_returns(), found.first_fit()), (vec![(400.0, -1.0)], Some(200.0)));
        assert_eq!(found.returns(), [(200.0, -9.0), (400.0, -1.0)]);
        // Before the first fit all is random, unless nothing is learned.
        let mut found = run(&lines[..1]);
        assert_eq!(found.chosen_returns(), []);
        found.folder.experiment = registry().load("ground-truth-cartpole-swingup", &[]).unwrap();
        assert_eq!(found.chosen_returns(), [(200.0, -9.0)]);
        // A policy acts after its random steps; one that is learned in a model, after the first fit.
        found.folder.experiment = registry().load("sac-pendulum", &["agent.random_steps=1"]).unwrap();
        assert_eq!(found.chosen_returns(), []);
        found.folder.experiment = registry().load("sac-pendulum", &["agent.random_steps=0"]).unwrap();
        assert_eq!(found.chosen_returns(), [(200.0, -9.0)]);
        found.folder.experiment = registry().load("dhmbpo-pendulum", &[]).unwrap();
        assert_eq!(found.chosen_returns(), []);
        // A fit in the middle of an episode: actions are chosen only from there on.
        let middle = [
            r#"{"event":"fit","env_step":100,"wall_s":1}"#,
            r#"{"event":"episode","env_step":150,"wall_s":2,"episode/return":-9,"episode/length":150,"episode/cut":0}"#,
            r#"{"event":"episode","env_step":200,"wall_s":3,"episode/return":-1,"episode/length":50,"episode/cut":0}"#,
        ];
        assert_eq!(run(&middle).chosen_returns(), [(200.0, -1.0)]);
    }

    #[test]
    fn returns_leave_out_what_was_cut_and_what_is_not_finite() {
        let run = run(&[
            r#"{"event":"episode","env_step":200,"wall_s":1,"episode/return":-5.5,"episode/cut":0}"#,
            r#"{"event":"episode","env_step":400,"wall_s":2,"episode/return":null,"episode/cut":0}"#,
            r#"{"event":"episode","env_step":600,"wall_s":3,"episode/return":-1,"episode/cut":1}"#,
        ]);
        assert_eq!(run.returns(), [(200.0, -5.5)]);
        assert_eq!((run.episodes(), run.env_step(), run.is_finished()), (3, 600, true));
    }
}
