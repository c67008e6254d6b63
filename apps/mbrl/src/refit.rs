//! `mbrl refit`: another model for the data of a run.

use std::{path::Path, process::ExitCode, sync::Arc, sync::atomic::AtomicBool};

use anyhow::{Result, bail};
use mbrl_env::World;
use mbrl_policy::{
    MetricsReader, Observer, RunFiles,
    experiment::{Experiment, Parts},
    write_atomically,
};

use crate::{
    args::RefitArgs,
    commands::{STOPPED, cores, same_columns, stop_on_signals},
    console, folder,
    plot::rounded,
    progress::Display,
    registry::registry,
    run::{EXPERIMENT, METRICS, RunFolder, in_pool, warn},
    trajectories::TrajectoryWriter,
};

pub(crate) fn run(args: &RefitArgs) -> Result<ExitCode> {
    let from = RunFolder::open(&args.run)?;
    let words: Vec<&str> = args.set.iter().map(String::as_str).collect();
    let experiment = from.experiment.overridden(&words)?;
    same_columns(&from.experiment.make_task(registry())?, &experiment)?;
    experiment.check(registry())?;
    let place = args.out.clone().unwrap_or_else(|| from.path.with_file_name(format!("{}-refit", from.label())));
    let next_free = args.out.is_none();
    folder::check(&place, next_free)?;

    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;
    let mut is_whole = true;
    // It gets its name when there is a checkpoint: a run without one would begin at its first step.
    let made = folder::create(&place, next_free, |partial| {
        let refit = || refit(args, &from, &experiment, partial, &stop);
        is_whole = in_pool(args.threads.unwrap_or_else(cores), refit)??;
        if is_whole { Ok(()) } else { bail!("stopped") }
    });
    if !is_whole {
        console::note("stopped: nothing was written");
        return Ok(ExitCode::from(STOPPED));
    }
    let path = made?;
    console::out(summary(&path)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Fills the folder of the new run; `false` where it was stopped.
fn refit(args: &RefitArgs, from: &RunFolder, experiment: &Experiment, place: &Path, stop: &AtomicBool) -> Result<bool> {
    write_atomically(&place.join(EXPERIMENT), experiment.to_toml()?.as_bytes())?;
    let Parts { task, more, mut training, mut agent, .. } = experiment.build(registry())?;
    let mut worlds: Vec<World> = [task.env].into_iter().chain(more).collect();
    let (mut files, _) = RunFiles::open(place, &mut training, &mut *agent)?;
    let display = Display::new();
    let mut progress = display.run(&from.label(), &training);
    let mut trajectories = TrajectoryWriter::new(place);
    let mut observers: Vec<&mut dyn Observer> = vec![&mut progress, &mut trajectories];
    let (other, which) = (&from.path, args.checkpoint);
    let damaged = training.refit(other, which, &mut worlds, &mut *agent, &mut files, &mut observers, stop)?;
    if let Some(damaged) = &damaged {
        warn(damaged, &display);
    }
    Ok(damaged.is_some())
}

/// What came of it.
fn summary(path: &Path) -> Result<String> {
    let metrics = MetricsReader::open_whole(&path.join(METRICS))?;
    let mut text = format!("\n{}: refitted", path.display());
    if let Some(fit) = metrics.of("fit").last() {
        let number = |name: &str, digits| fit.get(name).map_or("none".to_owned(), |value| rounded(value, digits));
        let of = match fit.get("model/holdout_rows") {
            Some(rows) if rows > 0.0 => "held-out data",
            _ => "the data of the fit",
        };
        text.push_str(&format!(
            " to {} transitions\n  fit     {} optimizer steps in {} s, squared error {} on {of}\n",
            number("model/transitions", 0),
            number("model/optimizer_steps", 0),
            number("model/fit_s", 0),
            number("model/mse", 4),
        ));
    }
    if let Some(eval) = metrics.of("eval").last() {
        let number = |name: &str| eval.get(name).map_or("none".to_owned(), |value| rounded(value, 2));
        let (mean, std) = (number("eval/return_mean"), number("eval/return_std"));
        text.push_str(&format!("  eval    mean return {mean}, standard deviation {std}\n"));
    }
    text.push_str(&format!("  next    mbrl eval {0}, mbrl diagnose {0}, mbrl resume {0}", path.display()));
    Ok(text)
}
