//! `mbrl identify`: estimates the constants of a machine from a log of it.

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use mbrl_env::{Field, FieldKind, data::Log};
use mbrl_model::{
    Bound, Dataset, Identification, IdentifiedModel, IdentifyConfig, MACHINES, Parameter, PhysicsModel, identify,
    machine,
};
use mbrl_policy::experiment::{DEFAULT_DEVICE, open_device};

use crate::{args::IdentifyArgs, console, fit, folder, report, run::in_pool};

/// From this correlation between successive errors of a column on, the equations lack something.
const FOLLOWS: f64 = 0.3;

pub(crate) fn run(args: &IdentifyArgs) -> Result<ExitCode> {
    let place = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("models").join(fit::name_of(&args.data[0])?),
    };
    let next_free = args.out.is_none();
    folder::check(&place, next_free)?;
    let began = Instant::now();
    let device = open_device(DEFAULT_DEVICE)?;
    // Arguments are checked before the log is read.
    let substeps = args.substeps.map(|steps| steps as usize);
    let physics = || machine(&args.model, substeps).context("--model");
    let mut model = parameters(PhysicsModel::new(physics()?, args.period.unwrap_or(1.0), &device)?, args)?;

    let mut layout = args.columns.layout();
    let names = |fields: &[Field]| fields.iter().map(|field| field.name.to_string()).collect::<Vec<_>>();
    if layout.obs.is_empty() {
        layout.obs = names(model.fields());
    }
    if layout.actions.is_empty() {
        layout.actions = names(model.action_fields());
    }
    let log = fit::read(&args.data, &layout, &args.columns.options())?;
    console::out(&log.report)?;
    check_columns(&model, &log)?;
    let period = match (args.period, log.period) {
        (Some(period), _) => period,
        (None, Some(period)) => {
            model = parameters(PhysicsModel::new(physics()?, period, &device)?, args)?;
            period
        }
        (None, None) => {
            bail!("the log has no time, or one that counts rows: --period says how many seconds a step takes")
        }
    };
    let data = Dataset::of_replay(&log.replay, 0)?.with_offset(log.obs_offset.clone())?;
    let mut config = IdentifyConfig::default().with_window(args.window);
    if !args.noise.is_empty() {
        config = config.with_noise(args.noise.clone());
    }
    let found = in_pool(args.threads.count(), || identify(&model, &data, &config))??;
    let named = IdentifiedModel::new(&args.model, substeps, &found)?.with_layout(log.layout.clone());
    let path = folder::create(&place, next_free, |partial| Ok(named.save(partial)?))?;
    let seconds = began.elapsed().as_secs_f64();
    console::out(told(&args.model, &found, &log.obs_names, args.noise.is_empty()))?;
    console::out(format_args!("  period  {} s, {seconds:.1} s of work", number(period)))?;
    console::out(format_args!("  files   {}: physics.toml", path.display()))?;
    console::out(format_args!("to judge it on another log: mbrl evaluate-model {} LOG", report::quoted_path(&path)))?;
    Ok(ExitCode::SUCCESS)
}

fn parameters(mut model: PhysicsModel, args: &IdentifyArgs) -> Result<PhysicsModel> {
    for (name, value) in &args.known {
        model = model.with_known(name, *value).context("--known")?;
    }
    for (name, value) in &args.guess {
        if args.known.iter().any(|(known, _)| known == name) {
            bail!("--guess {name}: it is known already");
        }
        model = model.with_unknown(name, *value).context("--guess")?;
    }
    Ok(model)
}

/// The name of a field, with its unit if it has one.
fn with_unit(name: &str, unit: &str) -> String {
    if unit.is_empty() { name.to_owned() } else { format!("{name} ({unit})") }
}

fn listed(fields: &[Field]) -> String {
    fields.iter().map(|field| with_unit(&field.name, &field.unit)).collect::<Vec<_>>().join(", ")
}

/// The machines with their columns and parameters, for the help.
pub(crate) fn machines() -> String {
    let mut text = "Machines:\n".to_owned();
    for (name, summary) in MACHINES {
        // All of them can be created.
        let Ok(machine) = machine(name, None) else { continue };
        let parameters = machine.parameters();
        let told = |fitted: bool| {
            let those = parameters.iter().filter(|parameter| parameter.fitted == fitted);
            let told = those.map(|Parameter { name, unit, value, .. }| {
                // Without trailing zeros.
                let value = number(*value).parse().unwrap_or(*value);
                format!("{name} = {value} {unit}").trim_end().to_owned()
            });
            told.collect::<Vec<_>>().join(", ")
        };
        text.push_str(&format!("  {name}: {summary}\n"));
        text.push_str(&format!("    observation  {}\n", listed(&machine.observations())));
        text.push_str(&format!("    action       {}\n", listed(&machine.actions())));
        text.push_str(&format!("    to be found  {} (the guesses)\n", told(true)));
        if parameters.iter().any(|parameter| !parameter.fitted) {
            text.push_str(&format!("    known        {}\n", told(false)));
        }
    }
    text
}

/// Refuses a log whose columns are not those of the machine.
fn check_columns(model: &PhysicsModel, log: &Log) -> Result<()> {
    for (option, fields, names) in
        [("--obs", model.fields(), &log.obs_names), ("--actions", model.action_fields(), &log.action_names)]
    {
        if names.len() != fields.len() {
            let count = names.len();
            bail!("{option}: {count} columns ({}), expected {}: {}", names.join(", "), fields.len(), listed(fields));
        }
    }
    for angle in &log.angles {
        if (angle.turn - std::f32::consts::TAU).abs() > 1e-3 {
            bail!(
                "column `{}` is in degrees: expected radians, and radians per second for its speed",
                log.obs_names[angle.column]
            );
        }
        if !matches!(model.fields()[angle.column].kind, FieldKind::Angle { .. }) {
            bail!("column `{}` is no angle of this machine", log.obs_names[angle.column]);
        }
    }
    Ok(())
}

/// The estimates, one line per parameter.
fn told(name: &str, found: &Identification, columns: &[String], estimated: bool) -> String {
    let Identification { windows, transitions, iterations, .. } = *found;
    let mut text =
        format!("\nidentified: {name}, {transitions} transitions in {windows} windows, {iterations} iterations\n");
    let width = found.estimates.iter().map(|estimate| estimate.name.chars().count()).max().unwrap_or(0);
    for estimate in &found.estimates {
        let (name, value, unit) = (&estimate.name, number(estimate.value), &estimate.unit);
        let line = match (estimate.fitted, estimate.std_error, estimate.at_bound) {
            (false, ..) => format!("{value} {unit} (known)"),
            (true, error, None) if error.is_finite() => format!("{value} ± {} {unit}", number(error)),
            (true, error, Some(Bound::Lower)) if error.is_finite() => {
                let most = number(estimate.interval().1);
                format!("not determined: at the lower bound of the search, as good as 0 (below {most} {unit})")
            }
            (true, _, Some(Bound::Lower)) => {
                format!("not determined: at the lower bound of the search, {value} {unit}")
            }
            (true, _, Some(Bound::Upper)) => {
                format!("not determined: at the upper bound of the search, {value} {unit}")
            }
            (true, ..) => "not determined".to_owned(),
        };
        text.push_str(&format!("  {name:<width$}  {line}\n"));
    }
    for undetermined in &found.undetermined {
        text.push_str(&format!("  not determined by this log: {undetermined}\n"));
    }
    if !found.undetermined.is_empty() {
        text.push_str("    --known NAME=VALUE gives a value known from elsewhere, such as a data sheet or scales\n");
    }
    if found.estimates.iter().any(|estimate| estimate.at_bound.is_some() && estimate.std_error.is_infinite()) {
        text.push_str(
            "    --guess NAME=VALUE says where the search begins; it covers a millionth to a million times that value\n",
        );
    }
    let from = if estimated { "estimated" } else { "as given" };
    for (column, name) in columns.iter().enumerate() {
        let (noise, rmse) = (number(found.noise[column]), number(found.rmse[column]));
        text.push_str(&format!("  {name}: noise {noise} ({from}), root mean square error {rmse}\n"));
        let follows = found.correlation[column];
        if follows > FOLLOWS {
            text.push_str(&format!(
                "    its errors are correlated in time (correlation {follows:.2}): the equations lack something, and the standard \
                 errors above are too small; try --window {}\n",
                (transitions / windows / 4).max(5)
            ));
        }
    }
    if !found.converged {
        text.push_str("  the search had not settled when it ended: better guesses (--guess NAME=VALUE) help\n");
    }
    text.trim_end().to_owned()
}

/// With four digits.
pub(crate) fn number(x: f64) -> String {
    if x == 0.0 || !x.is_finite() {
        return x.to_string();
    }
    let power = x.abs().log10().floor() as i32;
    match power {
        -3..=4 => format!("{x:.*}", (3 - power).max(0) as usize),
        _ => format!("{x:.3e}"),
    }
}
