//! `mbrl study`: every method of a study with every seed, and tables and pictures of the results so far. If it is stopped or killed, the
//! same command continues.

use std::{
    fmt::Write as _,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_env::atomic_file;
use mbrl_policy::{
    FolderLock, Outcome,
    experiment::{COMPARISON, Experiment, Study, StudyGroup, StudyPlan},
    write_atomically,
};

use crate::{
    args::StudyArgs,
    commands::{STOPPED, cores, counted, message_of, resume_may_help, stop_on_signals},
    compare::{Baseline, Comparison, Format, Question, Tables, compare, evaluate_random},
    console, folder,
    plot::{Chart, Colour, Key, Picture, Points, Size},
    progress::Display,
    registry::registry,
    report::{self, BAND, Group, LEAST_SPAN, Metric, Run, STEPS, draw_group},
    run::{CURVE, EXPERIMENT, RunFolder},
};

/// One run of a study.
#[derive(Debug)]
struct Due {
    place: PathBuf,
    /// Index of its experiment in the plan.
    experiment: usize,
    seed: u64,
}

/// A study in a folder.
struct Work {
    out: PathBuf,
    summary: String,
    plan: StudyPlan,
    /// Ordered by seed, so that at any time all methods have results.
    runs: Vec<Due>,
    random: Vec<Baseline>,
    /// Whether the plan has all ablations of the study, which one picture shows together.
    all_ablations: bool,
}

/// Failures of the runs.
#[derive(Debug, Default)]
struct Failures {
    /// Runs that resuming may help.
    unfinished: Vec<String>,
    /// Runs that ended with an error that resuming alone would not avoid.
    ended: Vec<String>,
}

pub(crate) fn run(args: &StudyArgs) -> Result<ExitCode> {
    let mut whole = registry().load_study(&args.study)?;
    whole.steps = args.steps.unwrap_or(whole.steps);
    whole.seeds = args.seeds.unwrap_or(whole.seeds);
    let all = whole.plan(registry())?;
    let plan = if args.only.is_empty() { all } else { all.only(&args.only).context("--only")? };
    if !args.no_train {
        for (experiment, _) in plan.experiments.iter().zip(&plan.requested).filter(|(_, requested)| **requested) {
            experiment
                .check(registry())
                .with_context(|| format!("study {}, method {}", whole.name, experiment.name))?;
            if let Some(warning) = experiment.learns_nothing() {
                console::note(format_args!("warning: method {}: {warning}", experiment.name));
            }
        }
    }
    let out = args.out.clone().unwrap_or_else(|| Path::new("studies").join(whole.folder_name()));
    let mut runs = Vec::new();
    for seed in 0..whole.seeds {
        for (i, experiment) in plan.experiments.iter().enumerate() {
            runs.push(Due { place: out.join(format!("{}-{seed}", experiment.name)), experiment: i, seed });
        }
    }
    let folders = runs.iter().map(|due| opened(due, &plan.experiments[due.experiment])).collect::<Result<Vec<_>>>()?;
    let begun = folders.iter().flatten().count();
    if args.no_train && begun == 0 {
        bail!("{}: no run of the study {} yet; leave out --no-train to train", out.display(), whole.name);
    }
    let about = out.join("study.toml");
    if let Ok(other) = Study::from_file(&about)
        && other.folder_name() != whole.folder_name()
    {
        bail!(
            "{} is of the study {}: expected a folder of {}, or a new one; choose another --out",
            out.display(),
            other.name,
            whole.name
        );
    }
    // A folder that holds anything else may have files with the names of tables.
    if begun == 0 && !about.exists() {
        // A lock is left of a study that was stopped before it wrote anything.
        let is_taken = match fs::read_dir(&out) {
            Ok(entries) => entries.flatten().any(|entry| entry.file_name() != "lock"),
            Err(_) => out.exists(),
        };
        if is_taken {
            return Err(folder::taken(&out));
        }
    }
    let all_ablations = args.only.is_empty();
    let mut work = Work { out, summary: whole.summary.clone(), plan, runs, random: Vec::new(), all_ablations };
    if !args.no_train {
        work.check_budgets(&folders)?;
    }
    let out = &work.out;
    fs::create_dir_all(out).with_context(|| format!("folder {}", out.display()))?;
    // Two commands that train here would take each other's runs for failures. Tables can be written while one trains.
    let _lock = if args.no_train { None } else { Some(FolderLock::acquire(out)?) };
    for file in atomic_file::leftovers(out) {
        // Nothing depends on this.
        let _ = fs::remove_file(file);
    }
    // A description of the folder for its readers. The given file stays as it is.
    if folder::real(&about) != folder::real(Path::new(&args.study)) {
        write_atomically(&about, whole.to_toml()?.as_bytes())?;
    }

    if let Some(experiment) = work.plan.experiments.first().filter(|_| whole.random) {
        match evaluate_random(experiment) {
            Ok(random) => work.random = vec![random],
            // A build without the task can still write its tables.
            Err(error) if args.no_train => {
                console::note(format_args!("note: random actions are left out: {}", console::chain(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    let mut failures = Failures::default();
    let stop = Arc::new(AtomicBool::new(false));
    if !args.no_train {
        stop_on_signals(&stop)?;
        let threads = args.threads.unwrap_or(1);
        let jobs = args.jobs.unwrap_or_else(|| (cores() / threads).max(1));
        failures = work.train(threads, jobs, &stop)?;
    }
    let written = work.write(true)?;
    console::out(written.trim_end())?;
    let requested = work.requested();
    let missing = requested.iter().filter(|due| work.finished(due).is_none()).count();
    let again = format!("mbrl study {}", command_line(args));
    if !failures.ended.is_empty() {
        console::note(format_args!(
            "\nended with an error that would occur again; change the method or leave it out of the study, and move damaged runs away: {}",
            failures.ended.join(" ")
        ));
    }
    if !failures.unfinished.is_empty() {
        console::note(format_args!("\nnot finished: {}", failures.unfinished.join(" ")));
    }
    if missing > 0 {
        let all = counted(requested.len() as u64, "run");
        console::note(format_args!("{missing} of {all} are not there yet; to go on: {again}"));
    }
    Ok(match () {
        () if !failures.ended.is_empty() || !failures.unfinished.is_empty() => ExitCode::FAILURE,
        () if stop.load(Ordering::Relaxed) && missing > 0 => ExitCode::from(STOPPED),
        () => ExitCode::SUCCESS,
    })
}

/// Whether an error comes from the machine that all runs share, and would end every one of them: a full disk, for example.
fn is_shared(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.any(|kind| matches!(kind, StorageFull | QuotaExceeded | ReadOnlyFilesystem | FileTooLarge))
}

/// The command line, so that the same command can be given again.
fn command_line(args: &StudyArgs) -> String {
    let mut words = report::quoted(&args.study);
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing into a string cannot fail.
            let _ = write!(words, " --{flag} {}", report::quoted(&value));
        }
    };
    add("seeds", args.seeds.map(|n| n.to_string()));
    add("steps", args.steps.map(|n| n.to_string()));
    for name in &args.only {
        add("only", Some(name.clone()));
    }
    add("out", args.out.as_ref().map(|out| out.display().to_string()));
    words
}

/// The folder of a run, if it was begun. One made with other settings is refused: its figures would belong to another method.
fn opened(due: &Due, experiment: &Experiment) -> Result<Option<RunFolder>> {
    if !due.place.join(EXPERIMENT).exists() {
        folder::check_free(&due.place).map_err(|_| {
            anyhow!("{} is no run of the study and not empty; move it, or choose another --out", due.place.display())
        })?;
        return Ok(None);
    }
    let folder = RunFolder::open(&due.place)?;
    let wanted = experiment.with_seed(due.seed);
    if folder.experiment.settings()? != wanted.settings()? {
        let (there, here) = (folder.experiment.flat()?, wanted.flat()?);
        let value = |all: &[(String, String)], key: &str| {
            all.iter().find(|(known, _)| known == key).map_or("none".to_owned(), |(_, value)| value.clone())
        };
        let mut keys: Vec<&String> = here
            .iter()
            .chain(&there)
            .filter(|pair| !(here.contains(pair) && there.contains(pair)))
            .map(|(key, _)| key)
            .collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| !["name", "summary", "steps"].contains(&key.as_str()));
        let told = keys.iter().take(5).map(|key| format!("{key} = {} (now {})", value(&there, key), value(&here, key)));
        bail!(
            "{} was made with other settings than the study has: {}; move it away to run it anew, or choose another --out",
            due.place.display(),
            told.collect::<Vec<_>>().join(", ")
        );
    }
    // A run that continued beyond the study's budget is compared at the same step as all others.
    let steps = wanted.steps.max(folder.experiment.steps);
    Ok(Some(folder.with_steps(steps)?))
}

impl Work {
    /// Refuses runs that were begun for more steps than the study has and are not finished: they would be trained to their own end.
    fn check_budgets(&self, folders: &[Option<RunFolder>]) -> Result<()> {
        for (due, folder) in self.runs.iter().zip(folders) {
            let Some(folder) = folder else { continue };
            let (own, here) = (folder.experiment.steps, self.plan.experiments[due.experiment].steps);
            if self.plan.requested[due.experiment] && own > here && self.finished(due).is_none() {
                bail!(
                    "{0} was begun for {own} steps and is not finished, steps = {here} here: expected --steps {own}; or finish it \
                     by `mbrl resume {1}`, move it away to run it anew, or choose another --out",
                    due.place.display(),
                    report::quoted_path(&due.place)
                );
            }
        }
        Ok(())
    }

    /// The folder of a run, created if it does not exist yet.
    fn folder(&self, due: &Due) -> Result<RunFolder> {
        let experiment = &self.plan.experiments[due.experiment];
        match opened(due, experiment)? {
            Some(folder) => Ok(folder),
            None => RunFolder::create(&due.place, false, experiment.with_seed(due.seed)),
        }
    }

    /// The results of a run, if it is finished.
    fn finished(&self, due: &Due) -> Option<Run> {
        // The picture is the last thing that training writes.
        if !due.place.join(CURVE).exists() {
            return None;
        }
        let run = Run::read(&due.place).ok()?;
        let steps = self.plan.experiments[due.experiment].steps;
        (run.is_finished() && run.env_step() >= steps).then_some(run)
    }

    /// The runs of the requested methods.
    fn requested(&self) -> Vec<&Due> {
        self.runs.iter().filter(|due| self.plan.requested[due.experiment]).collect()
    }

    /// Trains unfinished runs, `jobs` at a time.
    fn train(&self, threads: usize, jobs: usize, stop: &AtomicBool) -> Result<Failures> {
        let requested = self.requested();
        let all = requested.len();
        let due: Vec<&Due> = requested.into_iter().filter(|due| self.finished(due).is_none()).collect();
        let there = all - due.len();
        console::note(format_args!("{there} of {} are finished", counted(all as u64, "run")));
        let display = Display::new();
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Failures::default());
        let outside = AtomicBool::new(false);
        let tables = Mutex::new(());
        std::thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, due.len().max(1)) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && !outside.load(Ordering::Relaxed) {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(due_now) = due.get(i) else { break };
                        let path = due_now.place.display().to_string();
                        display.note(&format!("{path}: {} of {all}", there + i + 1));
                        // A panic is that run's error, and the others continue.
                        let trained = panic::catch_unwind(AssertUnwindSafe(|| {
                            self.folder(due_now)?.train(threads, &display, stop, false)
                        }));
                        match trained.unwrap_or_else(|panic| Err(anyhow!("panic: {}", message_of(&*panic)))) {
                            Ok(end) if end.outcome == Outcome::Finished => {
                                // Tables can be written again: nothing of the study depends on it.
                                let _one = tables.lock();
                                let written = panic::catch_unwind(AssertUnwindSafe(|| self.write(false)));
                                let written =
                                    written.unwrap_or_else(|panic| Err(anyhow!("panic: {}", message_of(&*panic))));
                                if let Err(error) = written {
                                    display.note(&format!("warning: {}", console::chain(&error)));
                                }
                            }
                            Ok(_) => {}
                            Err(error) => {
                                let told = console::chain(&error);
                                let whose = if told.contains(&path) { String::new() } else { format!("{path}: ") };
                                display.note(&format!("error: {whose}{told}"));
                                let resumable = resume_may_help(&error);
                                if is_shared(&error) {
                                    outside.store(true, Ordering::Relaxed);
                                }
                                if let Ok(mut failures) = failures.lock() {
                                    let list = if resumable { &mut failures.unfinished } else { &mut failures.ended };
                                    list.push(path);
                                }
                            }
                        }
                    }
                });
            }
        });
        drop(display);
        failures.into_inner().map_err(|_| anyhow!("a thread of the study broke down"))
    }

    /// The finished runs of a group, by method, and notes on missing ones.
    fn groups(&self, group: &StudyGroup) -> (Vec<Group>, Vec<String>) {
        let mut found = Vec::new();
        let mut notes = Vec::new();
        for (colour, (name, experiment)) in group.methods.iter().enumerate() {
            let due: Vec<&Due> = self.runs.iter().filter(|due| due.experiment == *experiment).collect();
            let runs: Vec<Run> = due.iter().filter_map(|due| self.finished(due)).collect();
            // Where other methods were requested, this one may never have been begun.
            if runs.len() < due.len() && (self.plan.requested[*experiment] || !runs.is_empty()) {
                notes.push(format!("{name}: {} of {} runs finished", runs.len(), due.len()));
            }
            let planned = self.plan.experiments[*experiment].steps;
            for run in &runs {
                notes.extend(run.notes.iter().map(|note| format!("{}: {note}", run.label)));
                let steps = run.experiment().steps;
                if steps > planned {
                    notes.push(format!("{} was continued to {steps} steps", run.label));
                }
            }
            if !runs.is_empty() {
                found.push(Group::new(name.clone(), runs, colour));
            }
        }
        (found, notes)
    }

    fn compared(&self, group: &StudyGroup) -> Result<Option<(Vec<Group>, Comparison)>> {
        let (groups, notes) = self.groups(group);
        if groups.is_empty() {
            return Ok(None);
        }
        let task = groups[0].task();
        // Computed once for all: they are the same for every method.
        let baselines = if group.name == COMPARISON { self.random.clone() } else { Vec::new() };
        let question = Question { baselines, ..Question::default() };
        let mut comparison = compare(&groups, &question).with_context(|| group.name.clone())?;
        comparison.notes.splice(0..0, notes);
        for block in &mut comparison.blocks {
            block.task = if group.name == COMPARISON { task.clone() } else { format!("{task}, {}", group.title) };
        }
        Ok(Some((groups, comparison)))
    }

    /// Writes tables and pictures of the finished runs and, with `page`, the page with the curves; returns the tables as text.
    fn write(&self, page: bool) -> Result<String> {
        let mut told = String::new();
        let mut panels: Vec<(String, Picture)> = Vec::new();
        for group in &self.plan.groups {
            let Some((groups, comparison)) = self.compared(group)? else { continue };
            for format in [Format::Text, Format::Markdown, Format::Latex, Format::Csv] {
                let place = self.out.join(format!("{}.{}", group.file, format.extension()));
                let mut text = format.write(&comparison);
                if !matches!(format, Format::Csv) {
                    let sign = if matches!(format, Format::Latex) { "% " } else { "" };
                    comparison.notes.iter().for_each(|note| text.push_str(&format!("\n{sign}Note: {note}\n")));
                }
                write_atomically(&place, text.as_bytes())?;
            }
            told.push_str(&Tables::of(&comparison).text());
            comparison.notes.iter().for_each(|note| told.push_str(&format!("note: {note}\n")));
            told.push('\n');
            let picture = drawn(&group.title, &groups);
            write_atomically(&self.out.join(format!("{}.svg", group.file)), picture.svg().as_bytes())?;
            if group.name == COMPARISON {
                if page {
                    let place = self.out.join("report.html");
                    report::write_comparison(&groups, &self.random, &comparison, &place, cores())?;
                }
            } else {
                panels.push((group.name.clone(), picture));
            }
        }
        if !panels.is_empty() && self.all_ablations {
            let title = if self.summary.is_empty() { "Ablations".to_owned() } else { self.summary.clone() };
            let pictures: Vec<Picture> = panels.into_iter().map(|(_, picture)| picture).collect();
            let svg = Picture::side_by_side(&title, &pictures, 2, BAND.trim());
            write_atomically(&self.out.join("ablations.svg"), svg.as_bytes())?;
        }
        let _ = writeln!(told, "{}", self.out.display());
        Ok(told)
    }
}

/// Curves of a group over real steps: the share or figure by which the task is judged first, or the return.
fn drawn(title: &str, groups: &[Group]) -> Picture {
    let judged: Vec<Vec<Option<(&'static str, Points)>>> =
        groups.iter().map(|group| group.runs.iter().map(Run::outcome_curve).collect()).collect();
    let name = judged.iter().flatten().flatten().map(|(name, _)| *name).next();
    let evaluated = groups.iter().flat_map(|group| &group.runs).any(|run| !run.curve(Metric::Evaluation).is_empty());
    let (metric, of_returns) = match evaluated {
        true => (Metric::Evaluation, "mean return of the evaluation"),
        false => (Metric::Episode, "return of the training episode"),
    };
    let returns = |run: &Run| -> Points {
        let points = run.curve(metric).into_iter();
        points.filter(|point| point.value.is_finite()).map(|point| (point.env_step, point.value)).collect()
    };
    let y = name.unwrap_or(of_returns);
    let last = groups.iter().flat_map(|group| &group.runs).map(Run::env_step).max().unwrap_or(1);
    let mut chart = Chart::new(Size::Panel(300.0), format!("{y} over real steps"), STEPS, y);
    chart.x_range = Some((0.0, last.max(1) as f64));
    chart.least_span = LEAST_SPAN;
    if y.ends_with("(%)") {
        chart.y_range = Some((0.0, 103.0));
    }
    let mut legend = Vec::new();
    for (group, judged) in groups.iter().zip(judged) {
        let curves: Vec<Points> = match name {
            Some(_) => judged.into_iter().flatten().map(|(_, points)| points).collect(),
            None => group.runs.iter().map(returns).collect(),
        };
        let colour = Colour::Series(group.colour);
        draw_group(&mut chart, colour, &group.name, &curves);
        legend.push((Key::Line, colour, format!("{} (n = {})", group.name, group.runs.len())));
    }
    Picture {
        title: title.to_owned(),
        legend,
        columns: 1,
        charts: vec![(String::new(), chart)],
        caption: String::new(),
    }
}
