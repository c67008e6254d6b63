//! `mbrl fit`: fits a model to a log.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_env::{
    AngleColumn, Rng,
    data::{self, DataError, Layout, Log, ReadOptions},
};
use mbrl_model::{
    Angles, Dataset, Ensemble, EnsembleConfig, Epoch, FitConfig, FitReport, FittedModel, ModelCard, ModelError,
    fit_watched,
};
use mbrl_policy::{
    MAX_PAST,
    experiment::{DEFAULT_DEVICE, Experiment, check_weights, open_device, override_setting},
};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::{args::FitArgs, console, folder, registry::registry, report, run::in_pool};

/// How to fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    seed: u64,
    device: String,
    model: EnsembleConfig,
    fit: FitConfig,
}

impl Default for Settings {
    /// PETS's ensemble, fitted by MBPO's rule. Targets are standardised, because a machine's columns may have any units.
    fn default() -> Self {
        Self {
            seed: 0,
            device: DEFAULT_DEVICE.into(),
            model: EnsembleConfig { normalize_targets: true, ..EnsembleConfig::default() },
            fit: FitConfig::default(),
        }
    }
}

impl Settings {
    fn of(args: &FitArgs) -> Result<Self> {
        let mut settings = match &args.config {
            None => Self::default(),
            Some(name_or_path) => {
                let named = || format!("experiment {name_or_path}");
                let (_, text) = registry().source(name_or_path)?;
                Self::of_experiment(&text).with_context(named)?
            }
        };
        let mut overrides = args.set.clone();
        overrides.extend(args.epochs.map(|epochs| format!("fit.max_epochs={epochs}")));
        overrides.extend(args.seed.map(|seed| format!("seed={seed}")));
        overrides.extend(args.device.as_ref().map(|device| format!("device=\"{device}\"")));
        for word in &overrides {
            settings = override_setting(&settings, word)?;
        }
        settings.fit.validate().map_err(|error| in_section("fit", error))?;
        if args.holdout_episodes && settings.fit.holdout == 0.0 {
            bail!("--holdout-episodes: fit.holdout = 0 holds nothing out");
        }
        Ok(settings)
    }

    /// The sections of an experiment that say how to fit.
    fn of_experiment(text: &str) -> Result<Self> {
        let table: Table = toml::from_str(text)?;
        if !table.contains_key("task") {
            // Only the sections [model] and [fit].
            return Ok(table.try_into()?);
        }
        let experiment = Experiment::from_toml(text)?;
        let Some((model, fit)) = experiment.agent.learned_model() else {
            bail!(
                "agent.kind = \"{}\": expected a kind that learns a model of columns: \"model-based\" or \"mbpo\"",
                experiment.agent.kind()
            );
        };
        Ok(Self { seed: experiment.seed, device: experiment.device.clone(), model: model.clone(), fit: fit.clone() })
    }
}

pub(crate) fn run(args: &FitArgs) -> Result<ExitCode> {
    let settings = Settings::of(args)?;
    if args.check {
        let log = read(&args.data, &args.columns.layout(), &args.columns.options())?;
        console::out(&log.report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("models").join(name_of(&args.data[0])?),
    };
    let next_free = args.out.is_none();
    folder::check(&place, next_free)?;
    let device = open_device(&settings.device)?;

    let log = read(&args.data, &args.columns.layout(), &args.columns.options())?;
    console::out(&log.report)?;
    let Settings { seed, model: mut config, fit, .. } = settings;
    angles(&mut config, &log);
    let (obs, action) = (log.replay.obs_width(), log.replay.action_width());
    check_weights(&config, obs, action)?;
    if config.reward && !log.has_rewards {
        bail!("model.reward: the log has no rewards to learn");
    }
    if config.termination && log.report.ends == 0 {
        match log.report.dropped_ends {
            0 => bail!("model.termination: the log has no terminated transition to learn from"),
            lost => bail!(
                "model.termination: all {lost} terminations of the log are in rows without a following observation, and nothing \
                 can be learned from those; end each episode with a row of its last observation alone (action and reward empty or \
                 NaN), or give the next observations (--next-obs)"
            ),
        }
    }
    if config.past > MAX_PAST {
        bail!(
            "model.past = {}: expected at most {MAX_PAST} steps, the number of past steps that agents keep",
            config.past
        );
    }
    let mut rng = Rng::new(seed);
    let mut model = config.init(obs, action, &device, &mut rng).map_err(|error| in_section("model", error))?;
    let data = dataset(&log, config.past, args.holdout_episodes.then_some(fit.holdout), &mut rng)?;
    let mut card = ModelCard::new::<String, 0, 0>([], [], config, log.layout);
    (card.obs, card.obs_units, card.obs_offset) = (log.obs_names, log.obs_units, log.obs_offset);
    (card.actions, card.action_units) = (log.action_names, log.action_units);
    (card.seed, card.period, card.fit) = (seed, log.period, fit);
    card.data.file = args.data[0].display().to_string();
    card.data.rows = log.rows;
    card.data.transitions = log.replay.len();
    card.data.episodes = log.replay.episodes().count();
    card.data.holdout_episodes = args.holdout_episodes;
    card.report = log.report;
    // The data set now holds everything.
    drop(log.replay);

    let report = in_pool(args.threads.count(), || fitted(&mut model, &data, &card.fit, &mut rng))??;
    card.result.epochs = report.epochs;
    card.result.train_rows = report.train_rows;
    card.result.holdout_rows = report.holdout_rows;
    card.result.train_loss = report.train_loss;
    card.result.errors = report.errors;
    card.result.column_errors = report.column_errors;
    card.result.seconds = report.elapsed.as_secs_f64();
    let fitted = FittedModel::new(card, model)?;
    let path = folder::create(&place, next_free, |partial| Ok(fitted.save(partial)?))?;
    console::out(told(fitted.card(), &path))?;
    Ok(ExitCode::SUCCESS)
}

/// A name for the model of a log: that of the file without its extensions, or of the folder.
pub(crate) fn name_of(path: &Path) -> Result<String> {
    let stem = path.file_name().with_context(|| format!("{}: no file", path.display()))?.to_string_lossy();
    let stem = stem.replace(['*', '?'], "");
    let stem = stem.strip_suffix(".gz").unwrap_or(&stem);
    let stem = Path::new(stem).file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
    Ok(if stem.is_empty() || stem.starts_with('.') { "model".into() } else { stem })
}

/// Columns that were named as angles are angles of the model too, in addition to those of its configuration. An angle wraps if
/// the log jumps by a turn, whoever named it.
fn angles(config: &mut EnsembleConfig, log: &Log) {
    let mut angles = log.angles.clone();
    for &angle in config.angles.columns() {
        let wraps = log
            .report
            .columns
            .get(angle.column)
            .is_some_and(|found| found.wraps > 0 && (found.turn as f32 - angle.turn).abs() <= 1e-3 * angle.turn);
        if !angles.iter().any(|named| named.column == angle.column) {
            angles.push(AngleColumn { wraps: wraps || angle.wraps, ..angle });
        }
    }
    angles.sort_by_key(|angle| angle.column);
    if !angles.is_empty() {
        config.angles = Angles::Columns(angles);
    }
}

/// Reads a log; an error says which option helps.
pub(crate) fn read(paths: &[PathBuf], layout: &Layout, options: &ReadOptions) -> Result<Log> {
    data::read_all(paths, layout, options).map_err(|error| {
        let advice = match &error {
            DataError::Missing { .. } => "--obs, --actions and so on name the columns (see --help)".to_owned(),
            DataError::Value { found, .. } if found == "nothing" => "--missing drop leaves such rows out".to_owned(),
            DataError::Value { part, .. } if !matches!(*part, "observation" | "action" | "next observation") => {
                format!("--{part} '' if it is none")
            }
            DataError::Clock { .. } => "--time '' if it is none".to_owned(),
            DataError::NoTransition { .. } => "--time '' and --episode '' where they are none".to_owned(),
            DataError::Format { reason, .. }
                if reason.contains("of the layout") || reason.contains("the layout names") =>
            {
                "--names a,b,… names them".to_owned()
            }
            DataError::Fields { .. } => "--delimiter if another character separates the fields".to_owned(),
            _ => return error.into(),
        };
        anyhow!("{error}; {advice}")
    })
}

/// The log as a data set, with whole episodes held out if a share of them is given.
fn dataset(log: &Log, past: usize, holdout: Option<f32>, rng: &mut Rng) -> Result<Dataset> {
    let data = Dataset::of_replay(&log.replay, past)?.with_offset(log.obs_offset.clone())?;
    let Some(share) = holdout else { return Ok(data) };
    let (_, chosen) = log.replay.split_episodes(f64::from(share), rng)?;
    if chosen.is_empty() {
        bail!("--holdout-episodes: the log has one episode, two or more are needed");
    }
    Ok(data.with_holdout(chosen)?)
}

fn fitted(model: &mut Ensemble, data: &Dataset, config: &FitConfig, rng: &mut Rng) -> Result<FitReport> {
    let began = Instant::now();
    let of = config.max_epochs;
    let EnsembleConfig { members, hidden, .. } = model.config();
    console::note(format_args!("fitting {members} members {hidden:?} to {} transitions", data.len()));
    Ok(fit_watched(model, data, config, rng, &mut |&Epoch { number, train_loss, errors }| {
        let error = (errors.iter().sum::<f32>() / errors.len() as f32).sqrt();
        let seconds = began.elapsed().as_secs_f64();
        console::note(format_args!(
            "epoch {number:>3}/{of}  loss {train_loss:>8.4}  error {error:.4}  ({seconds:.1} s)"
        ));
    })?)
}

/// How the fit ended.
fn told(card: &ModelCard, path: &Path) -> String {
    let mbrl_model::ResultCard { epochs, train_rows, holdout_rows, errors, column_errors, seconds, .. } = &card.result;
    let EnsembleConfig { members, hidden, normalize_targets, .. } = &card.model;
    let on = match (holdout_rows, card.data.holdout_episodes) {
        (0, _) => "training rows".to_owned(),
        (rows, true) => format!("{rows} rows of episodes held out"),
        (rows, false) => format!("{rows} rows held out"),
    };
    let units = if *normalize_targets { "in standard deviations of the changes" } else { "in units of the columns" };
    let mut text =
        format!("\nfitted: {members} members {hidden:?}, {epochs} epochs on {train_rows} rows, {seconds:.1} s\n");
    text.push_str(&format!("  error on {on}, {units}\n"));
    let of_members = (1..).zip(errors).map(|(member, error)| (format!("member {member}"), error));
    let learned = [(card.model.reward, "reward"), (card.model.termination, "end")];
    let heads = learned.into_iter().filter(|(is_learned, _)| *is_learned).map(|(_, name)| name.to_owned());
    let of_columns = card.obs.iter().cloned().chain(heads).zip(column_errors);
    let lines: Vec<(String, &f32)> = of_members.chain(of_columns).collect();
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, error) in lines {
        text.push_str(&format!("    {name:<width$}  {:.4}\n", error.sqrt()));
    }
    text.push_str(&format!("  files   {}: model.toml, model.bin\n", path.display()));
    text.push_str(&format!("to judge it on another log: mbrl evaluate-model {} LOG", report::quoted_path(path)));
    text
}

/// A value that breaks a rule, with its dotted key.
fn in_section(section: &str, error: ModelError) -> anyhow::Error {
    match error {
        ModelError::Config { field, value, rule } => anyhow!("{section}.{field} = {value}: expected {rule}"),
        other => anyhow::Error::from(other).context(format!("section [{section}]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::embedded;

    #[test]
    fn every_experiment_that_learns_says_how_to_fit_with_all_its_values_written_out_too() {
        for experiment in embedded() {
            let experiment = experiment.unwrap();
            let settings = Settings::of_experiment(&experiment.to_toml().unwrap());
            match experiment.agent.learned_model() {
                Some(learned) => {
                    let settings = settings.unwrap();
                    assert_eq!((&settings.model, &settings.fit), learned);
                }
                None => {
                    let error = settings.unwrap_err().to_string();
                    assert!(error.contains(experiment.agent.kind()) && error.contains("learns a model"), "{error}");
                }
            }
        }
        assert!(Settings::of_experiment("[modle]\nmembers = 3\n").is_err());
    }
}
