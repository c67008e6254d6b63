//! `mbrl fit`: a model of a log.

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Context, Result, anyhow, bail};
use mbrl_env::{
    Rng,
    data::{self, DataError, Layout, Log},
};
use mbrl_model::{Dataset, Ensemble, EnsembleConfig, Epoch, FitConfig, FitReport, fit_watched};
use mbrl_policy::{
    MAX_PAST,
    experiment::{DEFAULT_DEVICE, Experiment, check_weights, open_device, override_setting},
};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::{
    args::FitArgs,
    commands::cores,
    folder, model_chart,
    model_folder::{self, Card, DataCard, ResultCard},
    registry::registry,
    run::in_pool,
    say,
};

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
    /// PETS's ensemble, fitted by MBPO's rule. Targets are standardised, since a machine's columns come in any units.
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
        settings.fit.validate().context("section [fit]")?;
        if args.holdout_episodes && settings.fit.holdout == 0.0 {
            bail!("--holdout-episodes: fit.holdout = 0 holds nothing out");
        }
        Ok(settings)
    }

    /// The sections of an experiment that say how to fit.
    fn of_experiment(text: &str) -> Result<Self> {
        let table: Table = toml::from_str(text)?;
        if !table.contains_key("task") {
            // Sections [model] and [fit] alone.
            return Ok(table.try_into()?);
        }
        let experiment = Experiment::from_toml(text)?;
        let Some((model, fit)) = experiment.agent.learned_model() else {
            bail!("agent.kind = \"{}\": expected a kind that learns a model", experiment.agent.kind());
        };
        Ok(Self { seed: experiment.seed, device: experiment.device.clone(), model: model.clone(), fit: fit.clone() })
    }
}

pub(crate) fn run(args: &FitArgs) -> Result<ExitCode> {
    let settings = Settings::of(args)?;
    let stem = args.data.file_stem().with_context(|| format!("{}: no file", args.data.display()))?;
    let place = args.out.clone().unwrap_or_else(|| Path::new("models").join(stem));
    let next_free = args.out.is_none();
    folder::check(&place, next_free)?;
    let device = open_device(&settings.device)?;

    let began = Instant::now();
    let log = read(&args.data, &args.columns.layout(&Layout::default()))?;
    say::out(summary(&args.data, &log, began.elapsed().as_secs_f64()))?;
    let Settings { seed, model: config, fit, .. } = settings;
    let (obs, action) = (log.replay.obs_width(), log.replay.action_width());
    check_weights(&config, obs, action)?;
    if config.reward && !log.has_rewards {
        bail!("model.reward: the log has no rewards to learn");
    }
    if config.termination && !log.replay.columns().terminated.contains(&true) {
        bail!("model.termination: the log has no end to learn, no transition that is terminated");
    }
    if config.past > MAX_PAST {
        bail!("model.past = {}: at most {MAX_PAST} steps, which is what agents look back on", config.past);
    }
    let mut rng = Rng::new(seed);
    let mut model = config.init(obs, action, &device, &mut rng).context("section [model]")?;
    let data = dataset(&log, config.past, args.holdout_episodes.then_some(fit.holdout), &mut rng)?;
    let mut card = Card {
        obs: log.obs_names,
        actions: log.action_names,
        seed,
        layout: log.layout,
        data: DataCard {
            file: args.data.display().to_string(),
            rows: log.rows,
            transitions: log.replay.len(),
            episodes: log.replay.episodes().count(),
            holdout_episodes: args.holdout_episodes,
        },
        result: ResultCard {
            epochs: 0,
            train_rows: 0,
            holdout_rows: 0,
            train_loss: f32::NAN,
            errors: Vec::new(),
            column_errors: Vec::new(),
            seconds: 0.0,
        },
        model: config,
        fit,
    };
    // All of it is in the data set now.
    drop(log.replay);

    let report = in_pool(args.threads.unwrap_or_else(cores), || fitted(&mut model, &data, &card.fit, &mut rng))??;
    card.result = ResultCard {
        epochs: report.epochs,
        train_rows: report.train_rows,
        holdout_rows: report.holdout_rows,
        train_loss: report.train_loss,
        errors: report.errors,
        column_errors: report.column_errors,
        seconds: report.elapsed.as_secs_f64(),
    };
    let path = folder::create(&place, next_free, |partial| model_folder::write(partial, &card, &model))?;
    say::out(told(&card, &path))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a log; where columns are missing, says how to name them.
pub(crate) fn read(path: &Path, layout: &Layout) -> Result<Log> {
    data::read(path, layout).map_err(|error| match error {
        DataError::Missing { .. } => anyhow!("{error}; --obs, --actions and so on name the columns (see --help)"),
        other => other.into(),
    })
}

/// The log as a data set, with whole episodes held out where a share of them is given.
fn dataset(log: &Log, past: usize, holdout: Option<f32>, rng: &mut Rng) -> Result<Dataset> {
    let data = Dataset::of_replay(&log.replay, past)?;
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
    say::note(format_args!("fitting {members} members {hidden:?} to {} transitions", data.len()));
    Ok(fit_watched(model, data, config, rng, &mut |&Epoch { number, train_loss, errors }| {
        let error = (errors.iter().sum::<f32>() / errors.len() as f32).sqrt();
        let seconds = began.elapsed().as_secs_f64();
        say::note(format_args!("epoch {number:>3}/{of}  loss {train_loss:>8.4}  error {error:.4}  ({seconds:.1} s)"));
    })?)
}

/// What was read, with the range of each column.
fn summary(path: &Path, log: &Log, seconds: f64) -> String {
    let columns = log.replay.columns();
    let episodes: Vec<usize> = log.replay.episodes().map(|episode| episode.len()).collect();
    let lengths = (episodes.iter().min().unwrap_or(&0), episodes.iter().max().unwrap_or(&0));
    let mut text = format!(
        "{}: {} rows, {} transitions in {} episodes of {} to {} ({seconds:.1} s)\n",
        path.display(),
        log.rows,
        log.replay.len(),
        episodes.len(),
        lengths.0,
        lengths.1
    );
    if log.dropped > 0 {
        text.push_str(&format!("  {} rows end an episode without a next observation and are left out\n", log.dropped));
    }
    let mut lines = Vec::new();
    for (part, names, values) in
        [("observation", &log.obs_names, &columns.obs), ("action", &log.action_names, &columns.actions)]
    {
        for (i, name) in names.iter().enumerate() {
            lines.push((
                name.as_str(),
                part,
                Range::of(values.iter().skip(i).step_by(names.len()).map(|v| f64::from(*v))),
            ));
        }
    }
    if log.has_rewards {
        lines.push(("reward", "reward", Range::of(columns.rewards.iter().copied())));
    }
    let width = lines.iter().map(|line| line.0.chars().count()).max().unwrap_or(0).max("column".len());
    text.push_str(&format!("  {:<width$}  {:<11}  {:>9}  {:>9}  {:>9}\n", "column", "", "lowest", "mean", "highest"));
    for (name, part, Range { low, mean, high }) in lines {
        let constant = if low == high { "  never changes" } else { "" };
        let [low, mean, high] = [low, mean, high].map(model_chart::number);
        text.push_str(&format!("  {name:<width$}  {part:<11}  {low:>9}  {mean:>9}  {high:>9}{constant}\n"));
    }
    text.trim_end().to_owned()
}

#[derive(Debug, PartialEq)]
struct Range {
    low: f64,
    mean: f64,
    high: f64,
}

impl Range {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high, mut sum, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0);
        for value in values {
            (low, high, sum, count) = (low.min(value), high.max(value), sum + value, count + 1.0);
        }
        Self { low, mean: sum / count, high }
    }
}

/// How the fit ended.
fn told(card: &Card, path: &Path) -> String {
    let ResultCard { epochs, train_rows, holdout_rows, errors, column_errors, seconds, .. } = &card.result;
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
    text.push_str(&format!("to judge it on another log: mbrl evaluate-model {} LOG", path.display()));
    text
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
                None => assert!(settings.unwrap_err().to_string().contains("ground-truth")),
            }
        }
        assert!(Settings::of_experiment("[modle]\nmembers = 3\n").is_err());
    }
}
