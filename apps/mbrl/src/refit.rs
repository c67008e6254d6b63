//! `mbrl refit`: fits another model to the data of a run.

use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use mbrl_env::World;
use mbrl_policy::{
    MetricsReader, Observer, RunFiles,
    experiment::{Experiment, Parts},
    write_atomically,
};

use crate::{
    args::RefitArgs,
    commands::{STOPPED, stop_on_signals},
    console, folder,
    plot::rounded,
    progress::Display,
    registry::registry,
    report,
    run::{EXPERIMENT, METRICS, RunFolder, in_pool, warn},
    trajectories::TrajectoryWriter,
};

pub(crate) fn run(args: &RefitArgs) -> Result<ExitCode> {
    let from = RunFolder::open(&args.run)?;
    let words: Vec<&str> = args.set.iter().map(String::as_str).collect();
    let (mut experiment, notes) = from.experiment.overridden_with_notes(&words)?;
    notes.iter().for_each(|note| console::note(format_args!("note: {note}")));
    same_world(&from.experiment, &experiment)?;
    experiment.check(registry())?;
    // The name of a folder is certain only in its full path: `.` may be typed.
    let source = from.path.canonicalize().with_context(|| from.path.display().to_string())?;
    let label = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = match &args.out {
        Some(out) => out.clone(),
        None if from.path.ends_with(&label) => from.path.with_file_name(format!("{label}-refit")),
        None => source.with_file_name(format!("{label}-refit")),
    };
    let next_free = args.out.is_none();
    folder::check(&place, next_free)?;
    if folder::above(&place).canonicalize().is_ok_and(|above| above.starts_with(&source)) {
        bail!("--out {}: expected a folder outside of the run {}", place.display(), from.path.display());
    }
    // It is not a run of the same experiment from its first step on, and must not be taken for one.
    if experiment.name == from.experiment.name {
        experiment.name.push_str("-refit");
    }
    experiment.summary = format!("{} (refitted to the data of {label})", experiment.summary);

    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals(&stop)?;
    // It gets its name once there is a checkpoint: a run without one would begin at its first step.
    let path = folder::create(&place, next_free, |partial| {
        in_pool(args.threads.count(), || refit(args, &from, &experiment, partial, &stop))?
    })?;
    console::out(summary(&path, &experiment)?)?;
    if stop.load(Ordering::Relaxed) {
        console::note("stopped: the fit is kept; mbrl resume goes on from it");
        return Ok(ExitCode::from(STOPPED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses an experiment in another environment: the data belong to the one in which they were collected.
fn same_world(from: &Experiment, experiment: &Experiment) -> Result<()> {
    for (key, same) in [
        ("task", from.task == experiment.task),
        ("task_options", from.task_options == experiment.task_options),
        ("wrappers", from.wrappers == experiment.wrappers),
    ] {
        if !same {
            bail!(
                "--set {key}: expected that of the run, because its data come from that environment; to use the model for another goal: mbrl eval RUN --set {key}…"
            );
        }
    }
    Ok(())
}

/// Fills the folder of the new run.
fn refit(args: &RefitArgs, from: &RunFolder, experiment: &Experiment, place: &Path, stop: &AtomicBool) -> Result<()> {
    write_atomically(&place.join(EXPERIMENT), experiment.to_toml()?.as_bytes())?;
    let Parts { task, more, mut training, mut agent, .. } = experiment.build(registry())?;
    let mut worlds: Vec<World> = [task.env].into_iter().chain(more).collect();
    let (mut files, _) = RunFiles::open(place, &mut training, &mut *agent)?;
    let display = Display::new();
    let mut progress = display.run(&from.label(), &training);
    let mut trajectories = TrajectoryWriter::new(place);
    let mut observers: Vec<&mut dyn Observer> = vec![&mut progress, &mut trajectories];
    let (other, which) = (&from.path, args.which.checkpoint);
    let damaged = training.refit(other, which, &mut worlds, &mut *agent, &mut files, &mut observers, stop)?;
    warn(&damaged, &display);
    Ok(())
}

/// The result.
fn summary(path: &Path, experiment: &Experiment) -> Result<String> {
    let metrics = MetricsReader::open_whole(&path.join(METRICS))?;
    let mut text = format!("\n{}: refitted", path.display());
    let fit = metrics.of("fit").last();
    if let Some(fit) = fit {
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
    let eval = metrics.of("eval").last();
    if let Some(eval) = eval {
        let number = |name: &str| eval.get(name).map_or("none".to_owned(), |value| rounded(value, 2));
        let (mean, std) = (number("eval/return_mean"), number("eval/return_std"));
        text.push_str(&format!("  eval    mean return {mean}, standard deviation {std}\n"));
    }
    // A finished run continues only for more steps, or with the evaluation that was stopped.
    let due = eval.is_none() && experiment.train.eval_every > 0;
    let over = !due && fit.is_some_and(|fit| fit.env_step >= experiment.steps);
    let more = if over { format!(" --steps {}", 2 * experiment.steps) } else { String::new() };
    text.push_str(&format!(
        "  next    mbrl eval {0}, mbrl diagnose {0}, mbrl resume {0}{more}",
        report::quoted_path(path)
    ));
    Ok(text)
}
