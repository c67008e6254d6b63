//! `mbrl evaluate-model`: the error of a model on a log, and whether its uncertainty matches.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_env::{
    Env, EnvError, Rng,
    data::{DataError, ReadOptions},
};
use mbrl_model::{
    Dynamics, Ensemble, EvaluateConfig, FittedModel, IdentifiedModel, ModelEvaluation, PhysicsModel, evaluate,
};
use mbrl_policy::{
    Learner, WhichCheckpoint,
    experiment::{DEFAULT_DEVICE, open_device},
    write_atomically,
};
use serde::Serialize;

use crate::{
    args::EvaluateModelArgs,
    console, fit,
    folder::checked_out,
    identify::number,
    model_chart,
    progress::Display,
    run::{RunFolder, in_pool, warn},
};

/// Periods that differ by at most this share count as the same.
const SAME_PERIOD: f64 = 0.05;

/// The content of `evaluation.json`.
#[derive(Debug, Serialize)]
struct Written<'a> {
    model: String,
    data: String,
    /// Names of the entries of an observation.
    columns: &'a [String],
    transitions: usize,
    seed: u64,
    #[serde(flatten)]
    evaluation: &'a ModelEvaluation,
}

pub(crate) fn run(args: &EvaluateModelArgs) -> Result<ExitCode> {
    let svg = place(args)?;
    let Found { judged, period, options, label } = found(&args.model, args.checkpoint, args.columns.options())?;
    let model = judged.model()?;
    let named = args.data[0].display();
    let log = fit::read(&args.data, &args.columns.layout(), &options).map_err(|error| {
        match error.downcast_ref::<DataError>() {
            // There are as many offsets as the model has columns.
            Some(DataError::Env(EnvError::Width { what, expected, actual })) if what.contains("offset") => {
                anyhow!("{named}: observations of {expected} columns, the model has {actual}")
            }
            _ => error,
        }
    })?;
    if let (Some(log), Some(of_model)) = (args.period.or(log.period), period) {
        // The median of an irregular clock is not exact.
        if (log / of_model - 1.0).abs() > SAME_PERIOD {
            let [log, of_model] = [log, of_model].map(number);
            bail!(
                "{named}: period = {log}, expected that of the model, {of_model}, because it learned the changes over one such step; \
                 if the log's time has another unit, give the time per step with --period"
            );
        }
    }
    let spec = model.spec();
    for (what, expected, names) in
        [("observations", spec.obs, &log.obs_names), ("actions", spec.action, &log.action_names)]
    {
        if names.len() != expected {
            bail!("{}: {what} of {} columns ({}), the model has {expected}", named, names.len(), names.join(", "));
        }
    }

    let config = EvaluateConfig { horizon: args.horizon, ..EvaluateConfig::default() };
    let mut evaluation =
        in_pool(args.threads.count(), || evaluate(model, &log.replay, &config, &mut Rng::new(args.seed)))??;
    if !log.has_rewards {
        // Zeros in place of rewards are no reference.
        evaluation.steps.iter_mut().for_each(|step| step.reward_rmse = None);
    }
    let written = Written {
        model: label.clone(),
        data: named.to_string(),
        columns: &log.obs_names,
        transitions: log.replay.len(),
        seed: args.seed,
        evaluation: &evaluation,
    };
    let json = svg.with_extension("json");
    // First, so that a full disk does not lose the figures.
    console::out(format_args!(
        "{label} on {}\n{}",
        log.report.summary(),
        model_chart::table(&evaluation, &log.obs_names)
    ))?;
    write_atomically(&json, (serde_json::to_string_pretty(&written)? + "\n").as_bytes())?;
    let data = args.data[0].file_name().unwrap_or_default().to_string_lossy();
    model_chart::draw_model(&svg, &format!("{label} on {data}"), &evaluation)?;
    console::out(format_args!("files   {}, {}", json.display(), svg.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The path of the picture, checked before the work.
fn place(args: &EvaluateModelArgs) -> Result<PathBuf> {
    match &args.out {
        Some(out) => checked_out(out, "svg"),
        None => Ok(args.model.join("evaluation.svg")),
    }
}

/// A model to be judged, and the folder that holds it.
enum Judged {
    Fitted(Box<Ensemble>),
    Identified(Box<PhysicsModel>),
    OfRun(Box<dyn Learner>),
}

/// The content of a folder.
struct Found {
    judged: Judged,
    /// Time per step, in the unit of the log's time; seconds if the model knows its unit.
    period: Option<f64>,
    /// How to read its log.
    options: ReadOptions,
    /// A short name.
    label: String,
}

impl Judged {
    fn model(&self) -> Result<&dyn Dynamics> {
        match self {
            Self::Fitted(model) => Ok(&**model),
            Self::Identified(model) => Ok(&**model),
            Self::OfRun(agent) => Ok(agent.learned().context("nothing was learned")?.model),
        }
    }
}

/// The model of a folder.
fn found(folder: &Path, checkpoint: Option<WhichCheckpoint>, options: ReadOptions) -> Result<Found> {
    let named = || folder.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    let is_identified = IdentifiedModel::is_in(folder);
    if checkpoint.is_some() && (is_identified || FittedModel::is_in(folder)) {
        let by = if is_identified { "identify" } else { "fit" };
        bail!("--checkpoint: {} is a model of `mbrl {by}`, which has no checkpoints", folder.display());
    }
    if is_identified {
        let identified = IdentifiedModel::open(folder, &open_device(DEFAULT_DEVICE)?)?;
        // Equations use the log's own units, without any offset.
        let width = identified.model().spec().obs;
        let options = options.with_stored(identified.layout().clone()).with_obs_offset(vec![0.0; width]);
        let period = Some(identified.model().period());
        let judged = Judged::Identified(Box::new(identified.into_model()));
        return Ok(Found { judged, period, options, label: named() });
    }
    if FittedModel::is_in(folder) {
        let fitted = FittedModel::open(folder, &open_device(DEFAULT_DEVICE)?)?;
        let card = fitted.card();
        let options = options.with_stored(card.layout.clone()).with_obs_offset(card.obs_offset.clone());
        let period = fitted.period();
        let judged = Judged::Fitted(Box::new(fitted.into_model()));
        return Ok(Found { judged, period, options, label: named() });
    }
    let run = RunFolder::open(folder)
        .with_context(|| format!("{}: neither a model of `mbrl fit` or `mbrl identify` nor a run", folder.display()))?;
    let restored = run.restored(checkpoint.unwrap_or_default())?;
    warn(&restored.damaged, &Display::new());
    let Some(learned) = restored.agent.learned() else {
        let kind = run.experiment.agent.kind();
        let why = if kind == "ground-truth" { ", the simulator is the model" } else { "" };
        bail!(
            "{}: no model was learned here{why} (agent.kind = {kind:?}), expected a run of an agent that fits one",
            folder.display()
        );
    };
    if !learned.is_fitted {
        bail!("{}: no fit yet at step {}", folder.display(), restored.env_step);
    }
    let label = format!("{}, step {}", run.label(), restored.env_step);
    let period = Some(restored.task.env.spec().control_period);
    Ok(Found { judged: Judged::OfRun(restored.agent), period, options, label })
}
