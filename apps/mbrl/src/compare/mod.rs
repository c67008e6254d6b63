//! `mbrl compare`: methods over seeds, from their run folders.
//!
//! A method has runs on one or more tasks. On each task, its scores are the returns of its runs at one step, the same for
//! all; [`statistics`] has the statistics of the scores.

mod print;
mod statistics;
mod words;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use mbrl_policy::{evaluate_watched, experiment::Experiment, start_seeds, write_atomically};

pub(crate) use self::{
    print::{Format, Tables},
    words::once,
};
use crate::{
    args::CompareArgs,
    commands::{cores, counted, random_agent},
    console, folder,
    plot::{estimate, mean},
    registry::{outcomes, registry},
    report::{self, CurvePoint, Group, Metric, Run, interval, number},
    run::in_pool,
    trajectories::observations,
};

/// The name of a group or figure for the return of random actions.
const RANDOM: &str = "random";
/// Position of the threshold between the start and the best method's figure, if none is given.
const SHARE: f64 = 0.9;

/// The runs with one name, by task.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    pub(crate) name: String,
    /// At least one, on different tasks.
    pub(crate) groups: Vec<Group>,
}

/// A reference figure without runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Baseline {
    pub(crate) name: String,
    /// `None` for every task.
    pub(crate) task: Option<String>,
    pub(crate) value: f64,
    /// Other outcomes of the episodes, by name.
    pub(crate) outcomes: Vec<(&'static str, f64)>,
}

/// What to compare.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question {
    pub(crate) baselines: Vec<Baseline>,
    /// The step at which runs are compared; if left out, their ends.
    pub(crate) at: Option<u64>,
    /// Thresholds: for a task, or for the only one.
    pub(crate) thresholds: Vec<(Option<String>, f64)>,
}

/// The result of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score {
    value: f64,
    /// Wall-clock time by then (s).
    wall_s: f64,
    /// The first step at which the threshold was reached, if by then.
    reached: Option<f64>,
}

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

/// A line of a table: a method, or a baseline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) colour: usize,
    pub(crate) is_baseline: bool,
    /// Number of runs; 0 for a mere figure.
    pub(crate) n: usize,
    pub(crate) median: f64,
    pub(crate) iqm: Found,
    /// Probability of improvement over the first method.
    pub(crate) improvement: Option<Found>,
    /// Median over the runs of the steps to the threshold, infinite if fewer than half of them reached it, and how many did.
    pub(crate) steps: Option<(f64, usize)>,
    /// Median over the runs (s).
    pub(crate) wall_s: Option<f64>,
    /// Other outcomes of the episodes, as named by [`Block::outcomes`]: means over the runs.
    pub(crate) outcomes: Vec<Option<Found>>,
}

/// Methods on one task, or on all of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    pub(crate) task: String,
    /// What the scores are.
    pub(crate) about: String,
    /// The threshold, and its reason.
    pub(crate) threshold: Option<(f64, String)>,
    /// The figures by which the task is judged besides the return; none for most tasks.
    pub(crate) outcomes: Vec<&'static str>,
    /// Methods in the order in which they were named, then baselines.
    pub(crate) rows: Vec<Row>,
}

impl Block {
    /// The first method, with which the others are compared.
    pub(crate) fn first(&self) -> Option<&Row> {
        self.rows.iter().find(|row| !row.is_baseline)
    }
}

/// The result.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Comparison {
    /// One per task, then one over all tasks if there are several.
    pub(crate) blocks: Vec<Block>,
    /// Additional notes for the reader.
    pub(crate) notes: Vec<String>,
}

pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode> {
    let page = args.out.as_ref().is_some_and(|out| out.extension().is_some_and(|extension| extension == "html"));
    if page && args.format.is_some() {
        bail!("--format: a page has its own; leave it out where --out ends in .html");
    }
    let format = match (args.format, &args.out) {
        (None, Some(out)) if !page => Format::of_file(out)?,
        (format, _) => format.unwrap_or(Format::Text),
    };
    if let Some(out) = &args.out {
        let extension = out.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default();
        folder::checked_out(out, &extension)?;
    }
    let (mut methods, mut baselines) = words::read(&args.methods)?;
    for name in &args.baseline {
        let known = methods.iter_mut().find(|method| method.name == *name);
        let groups = &mut known.with_context(|| format!("--baseline {name}: no runs of that name"))?.groups;
        groups.iter_mut().for_each(|group| group.is_baseline = true);
    }
    for group in methods.iter_mut().filter(|method| method.name == RANDOM).flat_map(|method| &mut method.groups) {
        group.is_baseline = true;
    }
    if methods.is_empty() {
        bail!("no runs: expected run folders beside the figures, as in mbrl compare runs/a-* runs/b-*");
    }
    let groups: Vec<Group> = methods.into_iter().flat_map(|method| method.groups).collect();
    for run in groups.iter().flat_map(|group| &group.runs) {
        run.notes.iter().for_each(|note| console::note(format_args!("note: {}: {note}", run.label)));
    }
    if args.random {
        baselines.extend(random_of_groups(&groups, &baselines)?);
    }
    let question = Question { baselines, at: args.at, thresholds: args.threshold.clone() };
    let comparison = compare(&groups, &question)?;
    for note in &comparison.notes {
        console::note(format_args!("note: {note}"));
    }
    match &args.out {
        Some(out) if page => {
            report::write_comparison(&groups, &question.baselines, &comparison, out, cores())?;
            console::out(Tables::of(&comparison).text().trim_end())?;
            console::out(format_args!("\n{}", out.display()))?;
        }
        Some(out) => {
            write_atomically(out, format.write(&comparison).as_bytes())?;
            console::out(out.display())?;
        }
        None => console::out(format.write(&comparison).trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The return of random actions on each task, from the start states of the runs' evaluations.
fn random_of_groups(groups: &[Group], baselines: &[Baseline]) -> Result<Vec<Baseline>> {
    if groups.iter().any(|group| group.name == RANDOM) || baselines.iter().any(|figure| figure.name == RANDOM) {
        bail!("--random: there is a baseline of the name {RANDOM} already");
    }
    let mut found = Vec::new();
    for task in tasks_of(groups) {
        let experiment = groups.iter().find(|group| group.task() == task).context("a task has runs")?.experiment();
        found.push(Baseline { task: Some(task), ..evaluate_random(experiment)? });
    }
    Ok(found)
}

/// The return of random actions on an experiment's task, from the start states of its evaluations.
pub(crate) fn evaluate_random(experiment: &Experiment) -> Result<Baseline> {
    let mut world = experiment.make_task(registry())?.env;
    let (mut agent, train) = (random_agent(&world), &experiment.train);
    let seeds = start_seeds(train.eval_seed, train.eval_episodes);
    let evaluation = in_pool(cores(), || evaluate_watched(&mut world, &mut agent, &seeds, &mut |_| {}))??;
    let mut came: Vec<(&'static str, Vec<f64>)> = Vec::new();
    for episode in &evaluation.episodes {
        for (name, value) in outcomes(&experiment.task, &observations(&episode.transitions)) {
            match came.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => came.push((name, vec![value])),
            }
        }
    }
    let outcomes = came.into_iter().map(|(name, values)| (name, mean(&values))).collect();
    Ok(Baseline { name: RANDOM.to_owned(), task: None, value: evaluation.return_mean(), outcomes })
}

/// The tasks of groups, in order of appearance.
fn tasks_of(groups: &[Group]) -> Vec<String> {
    let mut tasks: Vec<String> = Vec::new();
    for task in groups.iter().map(Group::task) {
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    tasks
}

/// Compares groups of runs, one for each method and task.
///
/// # Errors
/// Runs shorter than the requested step, figures of tasks without runs, methods without a figure from any run.
pub(crate) fn compare(groups: &[Group], question: &Question) -> Result<Comparison> {
    let tasks = tasks_of(groups);
    for (task, what) in question
        .baselines
        .iter()
        .map(|figure| (&figure.task, format!("{} = {}", figure.name, figure.value)))
        .chain(question.thresholds.iter().map(|(task, value)| (task, format!("--threshold {value}"))))
    {
        if let Some(task) = task.as_ref().filter(|task| !tasks.contains(task)) {
            bail!("{what}: no runs on the task {task}, expected one of {}", tasks.join(", "));
        }
    }
    if tasks.len() > 1 && question.thresholds.iter().any(|(task, _)| task.is_none()) {
        bail!("--threshold: expected TASK=RETURN, once for each of the tasks {}", tasks.join(", "));
    }
    let mut comparison = Comparison::default();
    let notes = &mut comparison.notes;
    let metric = metric(groups, notes);
    // One task after the other, keeping the scores of each group for the table over all tasks.
    let mut scored: Vec<Scored<'_>> = Vec::new();
    for task in &tasks {
        let own: Vec<&Group> = groups.iter().filter(|group| group.task() == *task).collect();
        let (block, scores) = on_task(task, &own, metric, question, tasks.len() > 1, notes)?;
        comparison.blocks.push(block);
        scored.extend(own.into_iter().zip(scores).map(|(group, scores)| Scored { task: task.clone(), group, scores }));
    }
    if tasks.len() > 1 {
        comparison.blocks.extend(over_tasks(&tasks, &comparison.blocks, &scored, notes));
    }
    Ok(comparison)
}

/// A method's scores on a task.
struct Scored<'a> {
    task: String,
    group: &'a Group,
    scores: Vec<f64>,
}

/// Evaluations, if all experiments have some.
fn metric(groups: &[Group], notes: &mut Vec<String>) -> Metric {
    let mut runs = groups.iter().flat_map(|group| &group.runs);
    let without = runs.find(|run| run.experiment().train.eval_every == 0 && run.curve(Metric::Evaluation).is_empty());
    let Some(run) = without else { return Metric::Evaluation };
    notes.push(format!(
        "{} has no evaluations (train.eval_every = 0): all are compared by whole training episodes, exploration included",
        run.label
    ));
    Metric::Episode
}

/// Methods and baselines on one task, with the scores of each group.
fn on_task(
    task: &str,
    groups: &[&Group],
    metric: Metric,
    question: &Question,
    named: bool,
    notes: &mut Vec<String>,
) -> Result<(Block, Vec<Vec<f64>>)> {
    let whose = if named { format!("{task}: ") } else { String::new() };
    check_alike(groups, &whose, notes)?;
    let all_baselines = groups.iter().all(|group| group.is_baseline);
    let is_method = |group: &Group| all_baselines || !group.is_baseline;
    let mut curves: Vec<Vec<(&Run, Vec<CurvePoint>)>> = Vec::new();
    for group in groups {
        let mut own = Vec::new();
        for run in &group.runs {
            let curve = run.curve(metric);
            match curve.is_empty() {
                true => notes.push(format!("{}: {}, left out", run.label, nothing_yet(metric))),
                false => own.push((run, curve)),
            }
        }
        if own.is_empty() {
            let runs: Vec<String> = group.runs.iter().map(|run| run.folder.path.display().to_string()).collect();
            bail!("{}: {} in {}", group.name, nothing_yet(metric), runs.join(", "));
        }
        curves.push(own);
    }
    let methods: Vec<&&Group> = groups.iter().filter(|group| is_method(group)).collect();
    let at = common_step(&methods, metric, question.at, &whose, notes)?;
    // Baselines learn nothing, so their last evaluation is as good as any.
    let place = |group: &Group, curve: &[CurvePoint]| match at {
        Some(at) if is_method(group) => nearest(curve, at),
        _ => curve.len() - 1,
    };
    let mut finals: Vec<Vec<f64>> = Vec::new();
    for (group, curves) in groups.iter().zip(&mut curves) {
        let before = curves.len();
        curves.retain(|(_, curve)| curve[place(group, curve)].value.is_finite());
        if curves.len() < before {
            let lost = counted((before - curves.len()) as u64, "run");
            notes.push(format!("{whose}{}: {lost} without a finite return, left out", group.name));
        }
        if curves.is_empty() {
            bail!("{whose}{}: no run has a finite return", group.name);
        }
        finals.push(curves.iter().map(|(_, curve)| curve[place(group, curve)].value).collect());
    }
    for (group, curves) in groups.iter().zip(&curves).filter(|(group, _)| is_method(group)) {
        let steps = curves.iter().map(|(_, curve)| curve[place(group, curve)].env_step);
        let far = at.and_then(|at| steps.max_by(|a, b| (a - at).abs().total_cmp(&(b - at).abs())).map(|far| (at, far)));
        // Evaluations come at the ends of episodes.
        if let Some((at, far)) = far.filter(|(at, far)| (far - at).abs() > 0.05 * at) {
            notes.push(format!("{whose}{}: its figure nearest to step {at} is from step {far}", group.name));
        }
    }
    let figures: Vec<&Baseline> =
        question.baselines.iter().filter(|figure| figure.task.as_ref().is_none_or(|of| of == task)).collect();
    let iqms = |wanted: &dyn Fn(&Group) -> bool| -> Vec<f64> {
        groups
            .iter()
            .zip(&finals)
            .filter(|(group, _)| wanted(group))
            .map(|(_, scores)| statistics::iqm(scores))
            .collect()
    };
    let best = iqms(&is_method).into_iter().fold(f64::NEG_INFINITY, f64::max);
    let random = figures.iter().find(|figure| figure.name == RANDOM).map(|figure| figure.value);
    let random = random.or_else(|| iqms(&|group| group.name == RANDOM).first().copied());
    let firsts = groups.iter().zip(&curves).filter(|(group, _)| is_method(group));
    let firsts = firsts.map(|(_, curves)| mean(&curves.iter().map(|(_, curve)| curve[0].value).collect::<Vec<_>>()));
    let threshold = match question.thresholds.iter().rev().find(|(of, _)| of.as_ref().is_none_or(|of| of == task)) {
        Some((_, value)) => Some((*value, "as asked for".to_owned())),
        None => threshold(random, firsts.fold(f64::INFINITY, f64::min), best),
    };
    if threshold.is_none() {
        notes.push(format!(
            "{whose}no method got better than where it started, so there is no threshold: give --threshold"
        ));
    }

    // For each group and run; only evaluations are recorded.
    let came: Vec<Vec<Vec<(&'static str, f64)>>> = groups
        .iter()
        .zip(&curves)
        .map(|(group, curves)| match metric {
            Metric::Evaluation => {
                curves.iter().map(|(run, curve)| run.outcomes(curve[place(group, curve)].env_step)).collect()
            }
            Metric::Episode => Vec::new(),
        })
        .collect();
    let named = came.iter().flatten().chain(figures.iter().map(|figure| &figure.outcomes)).find(|of| !of.is_empty());
    let named: Vec<&'static str> = named.map_or(Vec::new(), |of| of.iter().map(|(name, _)| *name).collect());
    let outcomes_of = |runs: &[Vec<(&'static str, f64)>]| -> Vec<Option<Found>> {
        let values = |name: &str| -> Vec<f64> {
            runs.iter().flatten().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect()
        };
        named
            .iter()
            .map(|name| estimate(&values(name)).map(|found| Found { value: found.mean, interval: found.interval }))
            .collect()
    };

    let first = groups.iter().position(|group| is_method(group));
    let mut rows = Vec::new();
    for ((i, group), curves) in groups.iter().enumerate().zip(&curves) {
        let scores: Vec<Score> = curves
            .iter()
            .map(|(_, curve)| {
                let end = place(group, curve);
                let arrived = |point: &&CurvePoint| threshold.as_ref().is_some_and(|(t, _)| point.value >= *t);
                let reached = curve[..=end].iter().find(arrived).map(|point| point.env_step);
                Score { value: curve[end].value, wall_s: curve[end].wall_s, reached }
            })
            .collect();
        let against = first.filter(|first| *first != i && is_method(group)).map(|first| &finals[first]);
        let outcomes = outcomes_of(&came[i]);
        rows.push(Row { outcomes, ..row(group, !is_method(group), &scores, &finals[i], against, threshold.is_some()) });
        if scores.len() == 1 && is_method(group) {
            notes.push(format!("{whose}{}: one seed, so there is no interval", group.name));
        }
    }
    // A stable sort: methods keep their order.
    rows.sort_by_key(|row| row.is_baseline);
    let colours = groups.iter().map(|group| group.colour + 1).max().unwrap_or(0);
    rows.extend(figures.iter().enumerate().map(|(i, figure)| Row {
        name: figure.name.clone(),
        colour: colours + i,
        is_baseline: true,
        n: 0,
        median: figure.value,
        iqm: Found { value: figure.value, interval: None },
        improvement: None,
        steps: None,
        wall_s: None,
        outcomes: outcomes_of(std::slice::from_ref(&figure.outcomes)),
    }));
    let what = match metric {
        Metric::Evaluation => "mean return of the evaluation",
        Metric::Episode => "return of the training episode",
    };
    let when = at.map_or_else(|| "the end of each run".to_owned(), |at| format!("step {at}"));
    let about = match metric {
        Metric::Evaluation if at.is_none() => format!("{what} at {when}"),
        _ if at.is_none() => "return of the last whole training episode".to_owned(),
        _ => format!("{what} nearest to {when}"),
    };
    Ok((Block { task: task.to_owned(), about, threshold, outcomes: named, rows }, finals))
}

fn nothing_yet(metric: Metric) -> &'static str {
    match metric {
        Metric::Evaluation => "no evaluation yet",
        Metric::Episode => "no whole training episode yet",
    }
}

/// Notes on runs that count as one method, or are compared with each other, although other settings differ.
fn check_alike(groups: &[&Group], whose: &str, notes: &mut Vec<String>) -> Result<()> {
    for group in groups {
        let settings = |run: &Run| -> Result<Vec<(String, String)>> { Ok(run.experiment().flat()?) };
        let first = settings(&group.runs[0])?;
        let mut keys: Vec<String> = Vec::new();
        for run in &group.runs[1..] {
            let own = settings(run)?;
            let differ =
                own.iter().filter(|pair| !first.contains(pair)).chain(first.iter().filter(|pair| !own.contains(pair)));
            keys.extend(differ.map(|(key, _)| key.clone()));
        }
        keys.retain(|key| !["seed", "steps", "name", "summary"].contains(&key.as_str()));
        keys.sort();
        keys.dedup();
        if !keys.is_empty() {
            notes.push(format!("{whose}{}: its runs differ in {}", group.name, keys.join(", ")));
        }
    }
    let evaluated = |run: &Run| (run.experiment().train.eval_episodes, run.experiment().train.eval_seed);
    let mut all: Vec<_> = groups.iter().flat_map(|group| &group.runs).map(evaluated).collect();
    all.sort_unstable();
    all.dedup();
    if all.len() > 1 {
        notes.push(format!(
            "{whose}evaluations differ in train.eval_episodes or train.eval_seed, so in their start states"
        ));
    }
    for run in groups.iter().flat_map(|group| &group.runs).filter(|run| !run.is_finished()) {
        let (step, steps) = (run.env_step(), run.experiment().steps);
        notes.push(format!("{} stands at step {step} of {steps}", run.folder.path.display()));
    }
    for run in groups.iter().flat_map(|group| &group.runs).filter(|run| run.is_finished() && !run.is_evaluated()) {
        notes.push(format!(
            "{} lacks its final evaluation; if the run was stopped there, mbrl resume does it",
            run.folder.path.display()
        ));
    }
    Ok(())
}

/// The step at which runs are compared; `None` for their ends, if all are equally long.
fn common_step(
    methods: &[&&Group],
    metric: Metric,
    at: Option<u64>,
    whose: &str,
    notes: &mut Vec<String>,
) -> Result<Option<f64>> {
    let runs = || methods.iter().flat_map(|group| &group.runs).filter(|run| !run.curve(metric).is_empty());
    let ends: Vec<f64> = runs().filter_map(|run| run.curve(metric).last().map(|point| point.env_step)).collect();
    let common = ends.iter().copied().fold(f64::INFINITY, f64::min);
    if let Some(at) = at {
        if let Some(short) = runs().find(|run| run.env_step() < at) {
            let (path, step) = (short.folder.path.display(), short.env_step());
            bail!("--at {at}: {whose}{path} ends at step {step}; all runs have figures up to step {common}");
        }
        return Ok(Some(at as f64));
    }
    let length = |run: &Run| match run.curve(metric).last() {
        Some(last) if !run.is_finished() || (matches!(metric, Metric::Evaluation) && !run.is_evaluated()) => {
            last.env_step as u64
        }
        _ => run.experiment().steps,
    };
    let mut lengths: Vec<u64> = runs().map(length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    match lengths[..] {
        [] | [_] => Ok(None),
        [shortest, .., longest] => {
            notes.push(format!(
                "{whose}runs are of {shortest} to {longest} steps: compared at step {common}, where the shortest ends"
            ));
            Ok(Some(common))
        }
    }
}

/// The point of a curve nearest to a step; the earlier one of two equally near.
fn nearest(curve: &[CurvePoint], step: f64) -> usize {
    let distance = |i: &usize| (curve[*i].env_step - step).abs();
    (0..curve.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
}

/// The threshold if none is given: most of the way from the start to the best method.
fn threshold(random: Option<f64>, first: f64, best: f64) -> Option<(f64, String)> {
    let (start, from) = match random {
        Some(random) => (random, "random actions"),
        None => (first, "the lowest first figure of a method"),
    };
    let way = best - start;
    (way > 0.0 && way.is_finite()).then(|| {
        let why = format!(
            "{:.0} % of the way from {from} ({}) to the best method's IQM ({})",
            100.0 * SHARE,
            number(start),
            number(best)
        );
        (start + SHARE * way, why)
    })
}

fn row(
    group: &Group,
    is_baseline: bool,
    scores: &[Score],
    finals: &[f64],
    against: Option<&Vec<f64>>,
    has_threshold: bool,
) -> Row {
    let of = |value: &dyn Fn(&Score) -> f64| -> Vec<f64> { scores.iter().map(value).collect() };
    let values = of(&|score| score.value);
    let improvement = against.map(|others| {
        let pair = [finals.to_vec(), others.clone()];
        let over = |drawn: &[Vec<f64>]| statistics::improvement(&drawn[..1], &drawn[1..]);
        Found { value: over(&pair), interval: statistics::interval(&pair, over) }
    });
    let reached = scores.iter().filter(|score| score.reached.is_some()).count();
    Row {
        name: group.name.clone(),
        colour: group.colour,
        is_baseline,
        n: scores.len(),
        median: statistics::median(&values),
        iqm: pooled(&[values]),
        improvement,
        steps: has_threshold
            .then(|| (statistics::median(&of(&|score| score.reached.unwrap_or(f64::INFINITY))), reached)),
        wall_s: Some(statistics::median(&of(&|score| score.wall_s))),
        outcomes: Vec::new(),
    }
}

/// The IQM of all scores, with the interval of resamples within each task.
fn pooled(strata: &[Vec<f64>]) -> Found {
    let iqm = |drawn: &[Vec<f64>]| statistics::iqm(&drawn.concat());
    Found { value: iqm(strata), interval: statistics::interval(strata, iqm) }
}

/// The statistics of methods that have runs on every task: with scores that are 0 for random actions and 1 for the best figure of
/// the task, if the return of random actions is known.
fn over_tasks(tasks: &[String], blocks: &[Block], scored: &[Scored<'_>], notes: &mut Vec<String>) -> Option<Block> {
    let mut names: Vec<&str> = Vec::new();
    for one in scored.iter().filter(|one| !one.group.is_baseline) {
        if !names.contains(&one.group.name.as_str()) {
            names.push(&one.group.name);
        }
    }
    let of = |name: &str, task: &String| {
        scored.iter().find(|one| one.group.name == name && one.task == *task && !one.group.is_baseline)
    };
    let everywhere: Vec<&str> =
        names.iter().copied().filter(|name| tasks.iter().all(|task| of(name, task).is_some())).collect();
    for name in names.iter().filter(|name| !everywhere.contains(name)) {
        let missing: Vec<&str> = tasks.iter().filter(|task| of(name, task).is_none()).map(String::as_str).collect();
        notes.push(format!("{name} has no runs on {}: left out of the table over all tasks", missing.join(", ")));
    }
    if everywhere.is_empty() {
        return None;
    }
    // For each task: the return of random actions, and the best figure.
    let ends: Option<Vec<(f64, f64)>> = blocks
        .iter()
        .map(|block| {
            let random = block.rows.iter().find(|row| row.is_baseline && row.name == RANDOM)?.iqm.value;
            let best = block.rows.iter().map(|row| row.iqm.value).fold(f64::NEG_INFINITY, f64::max);
            (best > random).then_some((random, best))
        })
        .collect();
    let random_of = |block: &Block| block.rows.iter().any(|row| row.is_baseline && row.name == RANDOM);
    match blocks.iter().all(random_of) {
        _ if ends.is_some() => {}
        true => notes.push(
            "on a task nothing is better than random actions: returns are not normalised and summed up".to_owned(),
        ),
        false => notes.push(
            "returns of different tasks have no common scale: with --random, or random@TASK=RETURN for each task, they are \
             normalised and summed up"
                .to_owned(),
        ),
    }
    let strata = |name: &str| -> Vec<Vec<f64>> {
        let scores = tasks.iter().filter_map(|task| of(name, task)).map(|one| one.scores.clone());
        scores
            .enumerate()
            .map(|(i, scores)| match ends.as_ref().map(|ends| ends[i]) {
                Some((low, high)) => scores.iter().map(|score| (score - low) / (high - low)).collect(),
                None => scores,
            })
            .collect()
    };
    let first = strata(everywhere[0]);
    let rows = everywhere.iter().map(|name| {
        let own = strata(name);
        let improvement = (*name != everywhere[0]).then(|| {
            let both = [own.clone(), first.clone()].concat();
            let over = |drawn: &[Vec<f64>]| statistics::improvement(&drawn[..tasks.len()], &drawn[tasks.len()..]);
            Found { value: over(&both), interval: statistics::interval(&both, over) }
        });
        let unknown = Found { value: f64::NAN, interval: None };
        Row {
            name: (*name).to_owned(),
            colour: of(name, &tasks[0]).map_or(0, |one| one.group.colour),
            is_baseline: false,
            n: own.iter().map(Vec::len).sum(),
            median: if ends.is_some() { statistics::median(&own.concat()) } else { f64::NAN },
            iqm: if ends.is_some() { pooled(&own) } else { unknown },
            improvement,
            steps: None,
            wall_s: None,
            outcomes: Vec::new(),
        }
    });
    let about = match ends {
        Some(_) => "scores: 0 is random actions, 1 the best figure of each task",
        None => "probability of improvement, the mean over the tasks",
    };
    let (task, about) = (format!("all {} tasks", tasks.len()), about.to_owned());
    Some(Block { task, about, threshold: None, outcomes: Vec::new(), rows: rows.collect() })
}

/// A figure with its interval, in words.
fn found(found: Found, unit: impl Fn(f64) -> String, ends: impl Fn((f64, f64)) -> String) -> (String, String) {
    let value = if found.value.is_nan() { "–".to_owned() } else { unit(found.value) };
    (value, found.interval.map_or_else(|| "–".to_owned(), ends))
}

/// In the format of reports.
fn in_words(value: Found) -> (String, String) {
    found(value, number, interval)
}

#[cfg(test)]
mod tests;
