//! What each subcommand does.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use mbrl_env::{Simulator, tasks};
use mbrl_policy::{Evaluation, Outcome, RandomAgent, World, evaluate, start_seeds};

use crate::{
    args::{Args, Command, EvalArgs, ResumeArgs, TrainArgs},
    chart, experiment,
    experiment::Experiment,
    progress::Display,
    run::{Ended, RunFolder, in_pool},
};

/// By Ctrl-C, as shells report it.
const STOPPED: u8 = 130;

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::List => list(),
        Command::Train(args) => train(&args),
        Command::Resume(args) => resume(&args),
        Command::Eval(args) => eval(&args),
    }
}

fn list() -> Result<ExitCode> {
    println!("experiments (mbrl train NAME):");
    for experiment in experiment::embedded() {
        let Experiment { name, summary, .. } = experiment?;
        println!("  {name:<28} {summary}");
    }
    println!("\ntasks:");
    for task in tasks::list() {
        println!("  {:<28} {}", task.name, task.summary);
    }
    Ok(ExitCode::SUCCESS)
}

fn train(args: &TrainArgs) -> Result<ExitCode> {
    let mut overrides = args.set.clone();
    overrides.extend(args.seed.map(|seed| format!("seed={seed}")));
    overrides.extend(args.steps.map(|steps| format!("steps={steps}")));
    overrides.extend(args.device.as_ref().map(|device| format!("device=\"{device}\"")));
    let experiment = Experiment::load(&args.experiment, &overrides)?;
    experiment.check()?;

    let name = experiment.name.clone();
    let several = args.seeds.is_some();
    let mut folders = Vec::new();
    for i in 0..args.seeds.unwrap_or(1) {
        let seed = experiment.seed.checked_add(i).context("the seeds run over")?;
        let place = match &args.out {
            Some(out) if !several => out.clone(),
            Some(out) => out.join(format!("{name}-{seed}")),
            None => Path::new("runs").join(format!("{name}-{seed}")),
        };
        let next_free = args.out.is_none();
        let folder = RunFolder::create(&place, next_free, Experiment { seed, ..experiment.clone() })?;
        if folder.path != place {
            eprintln!("note: {} exists, the run goes to {}", place.display(), folder.path.display());
        }
        folders.push(folder);
    }
    let (ended, code) = train_all(&folders, args.threads.unwrap_or(if several { 1 } else { cores() }))?;
    if several && code == ExitCode::SUCCESS {
        let parent = folders[0].path.parent().unwrap_or(Path::new("."));
        let path = parent.join(format!("{name}-curve.svg"));
        let records: Vec<_> = ended.iter().map(|e| e.record.clone()).collect();
        chart::draw_runs(&path, &format!("{name}, {} seeds", records.len()), &records)?;
        let mut last: Vec<f64> = records.iter().filter_map(crate::record::Record::last).collect();
        last.sort_by(f64::total_cmp);
        if let Some(median) = chart::median(&last) {
            println!("\n{name}: median return of the last episode over {} seeds: {median:.2}", last.len());
        }
        println!("  curve   {}", path.display());
    }
    Ok(code)
}

fn resume(args: &ResumeArgs) -> Result<ExitCode> {
    let folders = args.runs.iter().map(|path| RunFolder::open(path)).collect::<Result<Vec<_>>>()?;
    let threads = args.threads.unwrap_or(if folders.len() > 1 { 1 } else { cores() });
    Ok(train_all(&folders, threads)?.1)
}

/// Trains runs side by side, as many at a time as the cores allow, and reports each.
fn train_all(folders: &[RunFolder], threads: usize) -> Result<(Vec<Ended>, ExitCode)> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_ctrl_c(stop.clone())?;
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
                    let result = folder.train(threads, &display, &stop);
                    if let Ok(mut slot) = results[i].lock() {
                        *slot = Some(result);
                    }
                }
            });
        }
    });
    drop(display);

    let mut ended = Vec::new();
    let mut unfinished: Vec<&RunFolder> = Vec::new();
    let mut failed = None;
    for (folder, result) in folders.iter().zip(results) {
        match result.into_inner().ok().flatten() {
            Some(Ok(end)) => {
                report(folder, &end);
                if end.outcome == Outcome::Stopped {
                    unfinished.push(folder);
                }
                ended.push(end);
            }
            Some(Err(error)) => failed = failed.or(Some(error.context(folder.path.display().to_string()))),
            None => unfinished.push(folder),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if unfinished.is_empty() {
        return Ok((ended, ExitCode::SUCCESS));
    }
    let paths: Vec<String> = unfinished.iter().map(|folder| folder.path.display().to_string()).collect();
    println!("stopped; to go on: mbrl resume {}", paths.join(" "));
    Ok((ended, ExitCode::from(STOPPED)))
}

/// The first Ctrl-C stops at the next step, the second at once.
fn stop_on_ctrl_c(stop: Arc<AtomicBool>) -> Result<()> {
    ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(STOPPED));
        }
        eprintln!("stopping at the next step; once more to stop at once");
    })
    .context("handler of Ctrl-C")
}

fn report(folder: &RunFolder, end: &Ended) {
    let number = |value: Option<f64>| value.map_or("none".into(), |v| format!("{v:.2}"));
    let path = &folder.path;
    println!();
    match end.outcome {
        Outcome::Finished if end.was_finished => println!("{}: already finished", folder.label()),
        Outcome::Finished => println!("{}: finished", folder.label()),
        Outcome::Stopped => println!("{}: stopped, the newest checkpoint is of step {}", folder.label(), end.env_step),
    }
    println!("  steps   {} in {} episodes", end.env_step, end.record.episodes.len());
    println!("  return  last episode {}, best {}", number(end.record.last()), number(end.record.best()));
    if let Some((mean, std)) = end.record.evaluation {
        println!("  eval    {mean:.2} ± {std:.2} (the last one)");
    }
    println!("  time    {:.0} s", end.wall_s);
    println!("  files   {}: metrics.jsonl, checkpoints/, curve.svg", path.display());
}

fn eval(args: &EvalArgs) -> Result<ExitCode> {
    let threads = args.threads.unwrap_or_else(cores);
    let evaluation = match (&args.random, &args.run) {
        (Some(task), _) => {
            let mut task = tasks::make(task)?;
            let mut agent = RandomAgent::new(task.env.spec().actions.clone());
            let simulator: &mut dyn Simulator = &mut *task.env;
            let seeds = start_seeds(args.seed, args.episodes);
            in_pool(threads, || evaluate(&mut World::Simulator(simulator), &mut agent, &seeds))??
        }
        (None, run) => {
            let path: PathBuf = run.clone().unwrap_or_default();
            let evaluated = RunFolder::open(&path)?.evaluate(args.episodes, args.seed, threads, &Display::new())?;
            println!("checkpoint of step {}", evaluated.env_step);
            evaluated.evaluation
        }
    };
    print_evaluation(&evaluation);
    Ok(ExitCode::SUCCESS)
}

fn print_evaluation(evaluation: &Evaluation) {
    for (i, episode) in evaluation.episodes.iter().enumerate() {
        let summary = episode.summary;
        println!("episode {:>3}  return {:>9.3}  length {:>4}", i + 1, summary.total_reward, summary.length);
    }
    println!(
        "return {:.3} ± {:.3} over {} episodes ({:.1} s)",
        evaluation.return_mean(),
        evaluation.return_std(),
        evaluation.episodes.len(),
        evaluation.elapsed.as_secs_f64()
    );
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
