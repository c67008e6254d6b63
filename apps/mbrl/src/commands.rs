//! What each subcommand does.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{CommandFactory, builder::PossibleValuesParser};
use mbrl_env::{
    Env, World,
    tasks::{Options, TaskEntry},
};
use mbrl_model::MACHINES;
use mbrl_policy::{
    AgentError, EvaluationEpisode, MAX_EPISODES, Outcome, POLICY_EXTENSION, RandomAgent, evaluate_stoppable,
    experiment::{DEVICES, Study},
    start_seeds,
};

use crate::{
    args::{Args, Command, EvalArgs, ReportArgs, ResumeArgs, TrainArgs},
    chart, compare, console, diagnose, doctor, drive, evaluate_model, export, fit, folder, identify,
    judged::Judged,
    naming,
    plot::{estimate, rounded},
    progress::Display,
    record::Record,
    refit,
    registry::{embedded, registry},
    render, report,
    run::{Ended, RunFolder, in_pool, warn},
    study, trajectories,
};

/// By Ctrl-C or SIGTERM, as shells report the first.
pub(crate) const STOPPED: u8 = 130;

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::List => list(),
        Command::Train(args) => train(&args),
        Command::Resume(args) => resume(&args),
        Command::Refit(args) => refit::run(&args),
        Command::Eval(args) => eval(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Identify(args) => identify::run(&args),
        Command::EvaluateModel(args) => evaluate_model::run(&args),
        Command::Report(args) => report(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Study(args) => study::run(&args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Drive(args) => drive::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Doctor => Ok(if doctor::examine()? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Command::Completions { shell } => completions(shell),
    }
}

fn list() -> Result<ExitCode> {
    console::out("experiments (mbrl train NAME):")?;
    let tasks = registry().task_entries();
    let needs = |task: Option<&TaskEntry>| match task {
        Some(task) if !task.is_available() => {
            format!(" [needs the feature {}: mbrl doctor]", task.needs().unwrap_or_default())
        }
        _ => String::new(),
    };
    for experiment in embedded() {
        let experiment = experiment?;
        let needs = needs(tasks.iter().find(|entry| entry.name() == experiment.task));
        console::out(format_args!("  {:<30} {}{needs}", experiment.name, experiment.summary))?;
    }
    console::out("\nstudies (mbrl study NAME):")?;
    for name in registry().study_names() {
        let study = registry().load_study(name)?;
        let needs = needs(study_task(&study).and_then(|task| tasks.iter().find(|entry| entry.name() == task)));
        console::out(format_args!("  {:<30} {}{needs}", study.name, study.summary))?;
    }
    console::out("\ntasks:")?;
    for task in tasks {
        console::out(format_args!("  {:<30} {}{}", task.name(), task.summary(), needs(Some(task))))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The task of a study's experiments, which all share.
fn study_task(study: &Study) -> Option<String> {
    study.plan(registry()).ok()?.experiments.first().map(|experiment| experiment.task.clone())
}

fn train(args: &TrainArgs) -> Result<ExitCode> {
    let mut overrides = args.set.clone();
    overrides.extend(args.seed.map(|seed| format!("seed={seed}")));
    overrides.extend(args.steps.map(|steps| format!("steps={steps}")));
    overrides.extend(args.device.as_ref().map(|device| format!("device=\"{device}\"")));
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let (experiment, notes) = registry().load_with_notes(&args.experiment, &overrides)?;
    experiment.check(registry())?;
    for note in notes {
        console::note(format_args!("note: {note}"));
    }
    if let Some(warning) = experiment.learns_nothing() {
        console::note(format_args!("warning: {warning}"));
    }

    let name = &experiment.name;
    let several = args.seeds.is_some();
    let next_free = args.out.is_none();
    let mut runs = Vec::new();
    for i in 0..args.seeds.unwrap_or(1) {
        // TOML has no larger integers.
        let seed = experiment.seed.checked_add(i).filter(|seed| i64::try_from(*seed).is_ok());
        let seed = seed.context("seed + seeds: expected at most 2^63 − 1")?;
        let place = match &args.out {
            Some(out) if !several => out.clone(),
            Some(out) => out.join(format!("{name}-{seed}")),
            None => Path::new("runs").join(format!("{}-{seed}", naming::run_name(name, &args.set))),
        };
        if !next_free {
            folder::check_free(&place)?;
        }
        runs.push((place, experiment.with_seed(seed)));
    }
    let mut folders = Vec::new();
    for (place, experiment) in runs {
        let folder = RunFolder::create(&place, next_free, experiment)?;
        if folder.path != place {
            console::note(format_args!("note: {} exists, the run goes to {}", place.display(), folder.path.display()));
        }
        folders.push(folder);
    }
    train_all(&folders, args.threads.unwrap_or(if several { 1 } else { cores() }), several, args.tensorboard)
}

fn resume(args: &ResumeArgs) -> Result<ExitCode> {
    let open = |path: &PathBuf| {
        let folder = RunFolder::open(path)?;
        match args.steps {
            Some(steps) => folder.with_steps(steps),
            None => Ok(folder),
        }
    };
    let folders = args.runs.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut places = Vec::new();
    for folder in &folders {
        let place = folder::real(&folder.path);
        if places.contains(&place) {
            bail!("{} is named twice: expected each run once", folder.path.display());
        }
        places.push(place);
    }
    let threads = args.threads.unwrap_or(if folders.len() > 1 { 1 } else { cores() });
    // Seeds of one experiment in the same folder, as `train --seeds` leaves them.
    let kind = |folder: &RunFolder| {
        let parent = folder.path.parent().map(Path::to_owned);
        (parent, folder.experiment.with_seed(0))
    };
    let together = folders.len() > 1 && folders.iter().all(|folder| kind(folder) == kind(&folders[0]));
    train_all(&folders, threads, together, args.tensorboard)
}

/// Trains runs side by side, as many at a time as the cores allow, and reports each; with `together` they are seeds of one
/// experiment, which are also summarised.
fn train_all(folders: &[RunFolder], threads: usize, together: bool, tensorboard: bool) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;
    let display = Display::new();
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Ended>>>> = folders.iter().map(|_| Mutex::new(None)).collect();
    let at_a_time = (cores() / threads).clamp(1, folders.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(folder) = folders.get(i) else { break };
                    // A panic is that run's error, and the others continue.
                    let trained =
                        panic::catch_unwind(AssertUnwindSafe(|| folder.train(threads, &display, &stop, tensorboard)));
                    let result = trained.unwrap_or_else(|panic| Err(anyhow!("panic: {}", message_of(&*panic))));
                    if let Ok(mut slot) = results[i].lock() {
                        *slot = Some(result);
                    }
                }
            });
        }
    });
    drop(display);

    let mut text = String::new();
    let mut records = Vec::new();
    let (mut unfinished, mut ended) = (Vec::new(), Vec::new());
    let mut code = ExitCode::SUCCESS;
    for (folder, result) in folders.iter().zip(results) {
        let path = folder.path.display();
        match result.into_inner().ok().flatten() {
            Some(Ok(end)) => {
                text.push_str(&ending(folder, &end));
                match end.outcome {
                    Outcome::Finished => records.push(end.record),
                    Outcome::Stopped => unfinished.push(path.to_string()),
                }
            }
            Some(Err(error)) => {
                let (path, resumable) = (path.to_string(), resume_may_help(&error));
                let error = console::chain(&error);
                // Most errors name a file in the folder.
                let whose = if error.contains(&path) { String::new() } else { format!("{path}: ") };
                console::note(format_args!("error: {whose}{error}"));
                if resumable {
                    unfinished.push(path);
                } else {
                    ended.push(path);
                }
                code = ExitCode::FAILURE;
            }
            None => unfinished.push(path.to_string()),
        }
    }
    if !ended.is_empty() {
        text.push_str(&format!(
            "\nended with an error that would occur again if simply resumed: {}\n",
            ended.join(" ")
        ));
    }
    let drawn = match unfinished.is_empty() {
        true if !ended.is_empty() => Ok(()),
        true if together => summed_up(&folders[0], &records, &mut text),
        true => Ok(()),
        false => {
            text.push_str(&format!(
                "\nto go on: mbrl resume {}\n",
                unfinished.iter().map(|run| report::quoted(run)).collect::<Vec<_>>().join(" ")
            ));
            if code == ExitCode::SUCCESS {
                code = ExitCode::from(STOPPED);
            }
            Ok(())
        }
    };
    console::out(text.trim_end())?;
    drawn?;
    Ok(code)
}

/// Whether a run that ended with this error may get further when it is resumed: runs are deterministic, so only if the
/// cause lies outside of the run.
pub(crate) fn resume_may_help(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<std::io::Error>() || cause.downcast_ref::<AgentError>().is_some_and(AgentError::resume_may_help)
    })
}

/// The message of a panic.
pub(crate) fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// The first Ctrl-C stops at the next step, the second at once. The same holds for SIGTERM, which schedulers and service managers send.
pub(crate) fn stop_on_signals(stop: &Arc<AtomicBool>) -> Result<()> {
    let asked = |stop: &AtomicBool| {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(STOPPED));
        }
        console::note("stopping at the next step; once more to stop at once");
    };
    let by_ctrl_c = stop.clone();
    ctrlc::set_handler(move || asked(&by_ctrl_c)).context("handler of Ctrl-C")?;
    // Not with ctrlc's feature for it: that would catch SIGHUP too, which `nohup` makes the process ignore.
    #[cfg(unix)]
    {
        let by_term = stop.clone();
        let mut signals =
            signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).context("handler of SIGTERM")?;
        std::thread::spawn(move || signals.forever().for_each(|_| asked(&by_term)));
    }
    Ok(())
}

/// Draws the seeds of one experiment into one picture beside their folders, and reports their mean.
fn summed_up(first: &RunFolder, records: &[Record], text: &mut String) -> Result<()> {
    let name = &first.experiment.name;
    let path = naming::picture(&first.path, name, first.experiment.seed);
    let last: Vec<f64> = records.iter().filter_map(Record::last).collect();
    if let Some(found) = estimate(&last) {
        let (mean, seeds) = (rounded(found.mean, 2), last.len());
        text.push_str(&format!("\n{name}: mean return of the last whole episode over {seeds} seeds: {mean}\n"));
        if let Some((low, high)) = found.interval {
            text.push_str(&format!("  95 % bootstrap interval {} to {}\n", rounded(low, 2), rounded(high, 2)));
        }
    }
    text.push_str(&format!("  curve   {}\n", path.display()));
    chart::draw_runs(&path, &format!("{name}, {} seeds", records.len()), records)
}

fn ending(folder: &RunFolder, end: &Ended) -> String {
    let number = |value: Option<f64>| value.map_or("none".into(), |v| format!("{v:.2}"));
    let how = match (end.outcome, end.stored_step) {
        (Outcome::Finished, _) if end.was_finished => "already finished".to_owned(),
        (Outcome::Finished, _) => "finished".to_owned(),
        (Outcome::Stopped, Some(step)) => format!("stopped, the newest checkpoint is of step {step}"),
        (Outcome::Stopped, None) => "stopped before the first checkpoint".to_owned(),
    };
    let mut text = format!("\n{}: {how}\n", folder.label());
    text.push_str(&format!("  steps   {} in {}\n", end.env_step, counted(end.record.all_episodes() as u64, "episode")));
    text.push_str(&trouble(&end.record));
    text.push_str(&format!(
        "  return  last whole episode {}, best {}\n",
        number(end.record.last()),
        number(end.record.best())
    ));
    if let Some((mean, std)) = end.record.evaluation {
        text.push_str(&format!("  eval    mean return {mean:.2}, standard deviation {std:.2} (the last one)\n"));
    }
    if let Some(best) = end.best {
        let (mean, step, path) = (best.return_mean, best.env_step, report::quoted_path(&folder.path));
        text.push_str(&format!("  best    mean return {mean:.2} at step {step}: mbrl eval {path} --checkpoint best\n"));
    }
    text.push_str(&format!("  time    {:.0} s\n", end.wall_s));
    let curve = if end.outcome == Outcome::Finished { ", curve.svg" } else { "" };
    text.push_str(&format!("  files   {}: metrics.jsonl, checkpoints/{curve}\n", folder.path.display()));
    text
}

/// Problems in a run that continued despite them, one per line.
fn trouble(record: &Record) -> String {
    let Record { breakdowns, failed_plans, fits, diverged, useless, .. } = *record;
    let mut text = String::new();
    if breakdowns > 0 {
        let broken = counted(breakdowns as u64, "episode");
        text.push_str(&format!("  broken  {broken} broke down: truncated there and left out of the returns\n"));
    }
    if failed_plans > 0 {
        text.push_str(&format!("  plans   {}\n", plans_failed(failed_plans)));
    }
    if diverged > 0 {
        let rest = if diverged == fits { ": nothing was learned, all actions were random" } else { "" };
        let fits = counted(fits as u64, "fit");
        text.push_str(&format!("  fits    {diverged} of {fits} diverged{rest}\n"));
    }
    if useless > 0 {
        let fits = counted(fits as u64, "fit");
        text.push_str(&format!("  model   no better than \"nothing changes\" after {useless} of {fits}\n"));
    }
    text
}

/// A count with its noun, in words.
pub(crate) fn counted(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// How many plans failed, and what was done instead.
pub(crate) fn plans_failed(n: u64) -> String {
    format!("{} failed: replaced by the rest of the last plan or by random actions", counted(n, "plan"))
}

fn eval(args: &EvalArgs) -> Result<ExitCode> {
    let threads = args.threads.count();
    if args.episodes > MAX_EPISODES {
        bail!("--episodes {}: expected at most {MAX_EPISODES}", args.episodes);
    }
    args.record.as_deref().map(trajectories::check_record).transpose()?;
    let mut env_step = 0;
    let (mut number, mut told) = (0, Ok(()));
    let mut tell = |episode: &EvaluationEpisode| {
        number += 1;
        let (paid, length) = (rounded(episode.summary.total_reward, 3), episode.summary.length);
        if told.is_ok() {
            let broken = if episode.summary.breakdown.is_some() { "  (broke down)" } else { "" };
            told = console::out(format_args!("episode {number:>3}  return {paid:>9}  length {length:>4}{broken}"));
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;
    let evaluation = match (&args.random, &args.run) {
        (Some(name), _) => {
            // A task without options, or the task of an experiment with all its settings.
            let is_task = registry().task_entries().iter().any(|task| task.name() == name);
            let is_experiment = name.ends_with(".toml") || registry().experiment_names().any(|known| known == name);
            let mut task = match !is_task && is_experiment {
                true => registry().load(name, &[])?.make_task(registry())?,
                false => registry().make_task(name, &Options::new())?,
            };
            let mut agent = random_agent(&task.env);
            let seeds = start_seeds(args.seed, args.episodes);
            in_pool(threads, || evaluate_stoppable(&mut task.env, &mut agent, &seeds, &stop, &mut tell))??
        }
        (None, run) => {
            let path: PathBuf = run.clone().unwrap_or_default();
            let is_file =
                path.is_file() || (!path.exists() && path.extension().is_some_and(|of| of == POLICY_EXTENSION));
            let seeds = start_seeds(args.seed, args.episodes);
            in_pool(threads, || -> Result<_> {
                let mut judged = match is_file {
                    true if args.checkpoint.is_some() => bail!(
                        "--checkpoint: {} is an exported agent, which has no checkpoints; mbrl export RUN --checkpoint … writes another one",
                        path.display()
                    ),
                    true => Judged::of_file(&path, &args.set)?,
                    false => {
                        let restored = RunFolder::open(&path)?.restored(args.checkpoint.unwrap_or_default())?;
                        warn(&restored.damaged, &Display::new());
                        Judged::of_run(RunFolder::open(&path)?.experiment, restored)
                    }
                };
                if !args.set.is_empty() {
                    judged = judged.elsewhere(&args.set)?;
                }
                env_step = judged.env_step;
                console::out(format_args!("checkpoint of step {env_step}"))?;
                Ok(evaluate_stoppable(&mut judged.task.env, &mut *judged.agent, &seeds, &stop, &mut tell)?)
            })??
        }
    };
    told?;
    let ended = evaluation.episodes.len();
    let stopped = ended < args.episodes;
    if stopped {
        console::out(format_args!("stopped: {ended} of {} had ended", counted(args.episodes as u64, "episode")))?;
    }
    if ended == 0 {
        return Ok(ExitCode::from(STOPPED));
    }
    let returns: Vec<f64> = evaluation.returns().collect();
    let between = estimate(&returns).and_then(|found| found.interval).map_or(String::new(), |(low, high)| {
        format!(", 95 % bootstrap interval {} to {}", rounded(low, 3), rounded(high, 3))
    });
    if evaluation.breakdowns() > 0 {
        let (broken, all) = (evaluation.breakdowns(), counted(evaluation.episodes.len() as u64, "episode"));
        console::out(format_args!("{broken} of {all} broke down and ended there: left out of the mean"))?;
    }
    if evaluation.failed_plans() > 0 {
        console::out(format_args!("{}", plans_failed(evaluation.failed_plans())))?;
    }
    let seconds = evaluation.elapsed.as_secs_f64();
    if returns.is_empty() {
        console::out(format_args!("no episode was whole, so there is no mean return ({seconds:.1} s)"))?;
    } else {
        let (mean, episodes) = (rounded(evaluation.return_mean(), 3), counted(returns.len() as u64, "episode"));
        console::out(format_args!("mean return {mean} over {episodes}{between} ({seconds:.1} s)"))?;
    }
    // Last, so that a full disk does not lose the figures.
    if let Some(place) = &args.record {
        trajectories::record(place, env_step, &evaluation)?;
    }
    Ok(if stopped { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS })
}

/// An agent that acts uniformly at random.
pub(crate) fn random_agent(world: &World) -> RandomAgent {
    RandomAgent::new(world.spec().actions.clone())
}

fn report(args: &ReportArgs) -> Result<ExitCode> {
    let path = report::write(&args.runs, args.out.as_deref(), cores())?;
    console::out(path.display())?;
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut with_known_words(Args::command()), "mbrl", &mut script);
    console::out(String::from_utf8(script)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The command line with the known values of some of its arguments, only for completion: other values may be valid
/// too, such as the path of a file.
fn with_known_words(command: clap::Command) -> clap::Command {
    let known = |argument: clap::Arg, words: Vec<&'static str>| argument.value_parser(PossibleValuesParser::new(words));
    let experiments = || registry().experiment_names().collect();
    let tasks = || registry().task_entries().iter().map(TaskEntry::name).collect();
    let devices = || DEVICES.iter().filter(|(_, built_in)| *built_in).map(|(word, _)| *word).collect();
    let checkpoints = || vec!["best", "last"];
    command
        .mut_subcommand("train", |train| {
            train
                .mut_arg("experiment", |argument| known(argument, experiments()))
                .mut_arg("device", |argument| known(argument, devices()))
        })
        .mut_subcommand("study", |study| {
            study.mut_arg("study", |argument| known(argument, registry().study_names().collect()))
        })
        .mut_subcommand("fit", |fit| fit.mut_arg("device", |argument| known(argument, devices())))
        .mut_subcommand("identify", |identify| {
            identify.mut_arg("model", |argument| known(argument, MACHINES.iter().map(|(name, _)| *name).collect()))
        })
        .mut_subcommand("eval", |eval| {
            eval.mut_arg("random", |argument| known(argument, tasks()))
                .mut_arg("checkpoint", |argument| known(argument, checkpoints()))
        })
        .mut_subcommand("refit", |refit| refit.mut_arg("checkpoint", |argument| known(argument, checkpoints())))
        .mut_subcommand("diagnose", |diagnose| {
            diagnose.mut_arg("checkpoint", |argument| known(argument, checkpoints()))
        })
        .mut_subcommand("export", |export| export.mut_arg("checkpoint", |argument| known(argument, checkpoints())))
        .mut_subcommand("render", |render| render.mut_arg("checkpoint", |argument| known(argument, checkpoints())))
        .mut_subcommand("evaluate-model", |evaluate| {
            evaluate.mut_arg("checkpoint", |argument| known(argument, checkpoints()))
        })
}

/// Number of threads that the machine runs at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
