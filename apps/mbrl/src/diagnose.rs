//! `mbrl diagnose`: what an agent has learned, examined at the states that it reaches, and what limits it.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use mbrl_env::{Env, data::CLIPPED};
use mbrl_model::ModelEvaluation;
use mbrl_policy::{
    DiagnoseConfig, Diagnosis, Learned, PlanDiagnosis, PolicyDiagnosis, Promise, ValueDiagnosis,
    experiment::open_device, write_atomically,
};
use serde::Serialize;

use crate::{
    args::DiagnoseArgs,
    commands::counted,
    console,
    folder::checked_out,
    judged::Judged,
    model_chart::{error_chart, number},
    plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style},
    progress::Display,
    run::{RunFolder, in_pool, warn},
};

/// The figures in a run's folder.
pub(crate) const DIAGNOSIS: &str = "diagnosis.json";

/// The content of the file of figures.
#[derive(Debug, Serialize)]
struct Written<'a> {
    run: &'a str,
    env_step: u64,
    seed: u64,
    /// Settings in place of the run's own, `key=value`.
    set: &'a [String],
    #[serde(flatten)]
    found: &'a Diagnosis,
}

pub(crate) fn run(args: &DiagnoseArgs) -> Result<ExitCode> {
    let svg = match &args.out {
        Some(out) => checked_out(out, "svg")?,
        None => args.run.join(DIAGNOSIS).with_extension("svg"),
    };
    let folder = RunFolder::open(&args.run)?;
    let (found, env_step, columns) = in_pool(args.threads.count(), || look(args, &folder))??;
    let label = folder.label();
    let json = svg.with_extension("json");
    let mut title = format!("{label}, step {env_step}");
    for word in &args.set {
        let _ = write!(title, ", {word}");
    }
    // First, so that a full disk does not lose the figures.
    console::out(format_args!("{title}\n{}", in_words(&found, &columns)))?;
    let written = Written { run: &label, env_step, seed: args.seed, set: &args.set, found: &found };
    write_atomically(&json, (serde_json::to_string_pretty(&written)? + "\n").as_bytes())?;
    let mut files = json.display().to_string();
    if draw(&svg, &title, &found)? {
        let _ = write!(files, ", {}", svg.display());
    }
    console::out(format_args!("files   {files}"))?;
    Ok(ExitCode::SUCCESS)
}

fn look(args: &DiagnoseArgs, folder: &RunFolder) -> Result<(Diagnosis, u64, Vec<String>)> {
    let restored = folder.restored(args.which.checkpoint)?;
    warn(&restored.damaged, &Display::new());
    let mut own = Judged::of_run(folder.experiment.clone(), restored);
    let mut elsewhere = (!args.set.is_empty()).then(|| own.elsewhere(&args.set)).transpose()?;
    if elsewhere.as_ref().is_some_and(|there| own.is_of_other_task(&there.experiment) && there.has_learned_reward()) {
        bail!(
            "--set: the model has learned the reward of its own task, so what it promises on another one means nothing; expected the other \
             task's reward: --set goal.reward=task"
        );
    }
    let judged = elsewhere.as_mut().unwrap_or(&mut own);
    let mut config = DiagnoseConfig::default();
    (config.episodes, config.plans, config.seed) = (args.episodes, args.plans, args.seed);
    let planning = judged.experiment.planning(&judged.task)?;
    let device = open_device(&judged.experiment.device)?;
    console::note(format_args!("running {}", counted(args.episodes as u64, "episode")));
    let visited = config.visit(&mut judged.task.env, &mut *judged.agent)?;
    let simulator = judged.task.env.simulator();
    if simulator.is_some() && planning.as_ref().is_some_and(|planning| planning.with_simulator.is_some()) {
        let plans = counted(args.plans as u64, "plan");
        console::note(format_args!("making {plans} in the model and as many in the simulator, which may take minutes"));
    }
    let judged = elsewhere.as_ref().unwrap_or(&own);
    // An agent elsewhere has the model alone; the data that it was fitted to are the run's.
    let learned = judged.agent.learned().zip(own.agent.learned());
    let learned = learned.map(|(learned, own)| Learned::new(learned.model, learned.is_fitted, own.replay));
    let value = judged.agent.value();
    let mut found = visited.diagnose(&judged.task.env, &device, learned, planning, value.as_ref())?;
    found.policy = visited.policy_in_model(&*judged.agent)?;
    Ok((found, judged.env_step, judged.task.env.spec().column_names()))
}

/// The findings as text.
fn in_words(found: &Diagnosis, columns: &[String]) -> String {
    let mut text = String::new();
    let mean = found.returns.iter().sum::<f64>() / found.returns.len() as f64;
    let episodes = counted(found.returns.len() as u64, "episode");
    let _ = writeln!(text, "  return  mean {} of {episodes}\n", number(mean));
    if let (Some(own), Some(data)) = (&found.own, &found.data) {
        text.push_str(&model_in_words(own, data, columns));
    }
    if let Some(at_ends) = &found.at_ends {
        text.push_str(&clipped_in_words(at_ends, columns));
    }
    if let Some(plans) = &found.plans {
        text.push_str(&plans_in_words(plans));
    }
    if let Some(policy) = &found.policy {
        text.push_str(&policy_in_words(policy));
    }
    if let Some(values) = &found.values {
        text.push_str(&values_in_words(values));
    }
    if found.own.is_none() && found.values.is_none() {
        text.push_str("  the agent has learned neither a model nor values: there is nothing to look into\n");
    }
    text
}

fn model_in_words(own: &ModelEvaluation, data: &ModelEvaluation, columns: &[String]) -> String {
    let mut text = String::from(
        "model   error of one step: at the agent's own states, at those of its data, of \"nothing changes\"\n",
    );
    let wide = columns.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (c, name) in columns.iter().enumerate().filter(|(c, _)| !own.known.contains(c)) {
        let [mine, theirs, still] =
            [&own.one_step.rmse, &data.one_step.rmse, &own.one_step.unchanged_rmse].map(|f| number(f[c]));
        let _ = writeln!(text, "  {name:<wide$}  {mine:>10}  {theirs:>10}  {still:>10}");
    }
    let ahead: Vec<String> = own
        .steps
        .iter()
        .filter(|step| [1, 2, 5, 10, 20].contains(&step.step))
        .map(|step| format!("{} after {}", number(own.scaled(&step.rmse)), counted(step.step as u64, "step")))
        .collect();
    let _ = writeln!(text, "  along the agent's own actions, in standard deviations: {}\n", ahead.join(", "));
    text
}

/// Columns of the data that seem to be clipped; empty if there are none.
fn clipped_in_words(at_ends: &[f64], columns: &[String]) -> String {
    let clipped: Vec<(&String, f64)> =
        columns.iter().zip(at_ends.iter().copied()).filter(|(_, share)| *share >= CLIPPED).collect();
    if clipped.is_empty() {
        return String::new();
    }
    let wide = clipped.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::from(
        "clipped share of the data in which a column is exactly at its lowest or highest value: such observations do not tell\n  \
         the whole state, and no model of one step can make up for it\n",
    );
    for (name, share) in clipped {
        let _ = writeln!(text, "  {name:<wide$}  {:>9.0} %", 100.0 * share);
    }
    text.push('\n');
    text
}

fn plans_in_words(plans: &PlanDiagnosis) -> String {
    let mut text = format!(
        "plans   of {} from {}: return over the plan\n",
        counted(plans.horizon as u64, "step"),
        counted(plans.states as u64, "state")
    );
    let row = |name: &str, promised: String, kept: f64| {
        format!("  {name:<34}  promised {promised:>10}  earned {:>10}\n", number(kept))
    };
    text.push_str(&row("plans in the model", number(plans.plans.promised), plans.plans.kept));
    text.push_str(&row("random actions", number(plans.random.promised), plans.random.kept));
    if let Some(best) = plans.with_simulator {
        text.push_str(&row("the same planner in the simulator", number(best), best));
    }
    let _ = writeln!(text, "  {}\n", verdict(plans));
    text
}

/// What limits the plans.
fn verdict(plans: &PlanDiagnosis) -> String {
    let mut parts = Vec::new();
    match (plans.share_lost(), plans.regret()) {
        (Some(share), Some(regret)) if share < 0.05 => parts.push(format!(
            "the model costs {} ({:.0} % of what planning gains): longer horizons, more search or a terminal value would help, a better model hardly",
            number(regret.max(0.0)),
            100.0 * share.max(0.0)
        )),
        (Some(share), Some(regret)) => parts.push(format!(
            "errors of the model cost {} ({:.0} % of what planning gains)",
            number(regret),
            100.0 * share
        )),
        _ => parts.push("nothing to compare the plans with".to_owned()),
    }
    let (searched, not) = (plans.plans.excess(), plans.random.excess().abs());
    let gain = plans.with_simulator.map_or(f64::NAN, |best| (best - plans.random.kept).abs());
    if searched > 0.05 * gain && searched > 2.0 * not {
        let from = plans.goes_wrong_at().map_or(String::new(), |step| format!(", from step {step} on"));
        parts.push(format!(
            "plans promise {} more than they earn, random actions {}: the search exploits the model{from}",
            number(searched),
            number(plans.random.excess())
        ));
    }
    parts.join("\n  ")
}

fn policy_in_words(policy: &PolicyDiagnosis) -> String {
    let row = |name: &str, Promise { promised, kept, .. }: Promise| {
        format!("  {name:<34}  in the model {:>10}  in the world {:>10}\n", number(promised), number(kept))
    };
    let steps = counted(policy.steps() as u64, "step");
    let mut text = format!("policy  followed for {steps} from {}\n", counted(policy.states as u64, "state"));
    text.push_str(&row("rewards (discounted)", policy.earned()));
    text.push_str(&row("share without an end", policy.survived()));
    text.push('\n');
    text
}

fn values_in_words(values: &ValueDiagnosis) -> String {
    let ValueDiagnosis { states, expected, earned, rmse, correlation, .. } = *values;
    format!(
        "values  at {}: expected {}, earned {} (discounted), root mean square error {}, correlation {}\n",
        counted(states as u64, "state"),
        number(expected),
        number(earned),
        number(rmse),
        number(correlation)
    )
}

/// One figure of each over the steps, from the first on.
fn over_steps<T>(steps: &[T], value: impl Fn(&T) -> f64) -> Points {
    steps.iter().enumerate().map(|(h, step)| ((h + 1) as f64, value(step))).collect()
}

/// Whether there was something to draw.
fn draw(path: &Path, title: &str, found: &Diagnosis) -> Result<bool> {
    let size = Size::Panel(290.0);
    let (mut charts, mut legend) = (Vec::new(), Vec::new());
    if let Some(plans) = &found.plans {
        let mut chart = Chart::new(size, "return of plans over their steps", "steps of the plan", "return");
        chart.marks = vec![
            Mark::Line(Colour::Series(1), Style::Thick, over_steps(&plans.along, |promise| promise.promised)),
            Mark::Line(Colour::Series(0), Style::Thick, over_steps(&plans.along, |promise| promise.kept)),
        ];
        charts.push(("Return of plans: promised and earned".to_owned(), chart));
        legend.push((Key::Line, Colour::Series(0), "earned in the simulator".to_owned()));
        legend.push((Key::Line, Colour::Series(1), "promised by the model".to_owned()));
        let far = over_steps(&plans.distance, |distance| *distance);
        let mut chart =
            Chart::new(size, "distance of states over the steps of plans", "steps of the plan", "distance / std");
        chart.marks = vec![Mark::Line(Colour::Series(0), Style::Thick, far)];
        charts.push(("Distance of the model's states from the simulator's".to_owned(), chart));
    } else if let Some(own) = &found.own {
        let (chart, keys) = error_chart(size, own);
        charts.push(("Error at the agent's own states".to_owned(), chart));
        legend.extend(keys);
    }
    if let Some(policy) = &found.policy {
        for (title, name, promises) in [
            ("Rewards of the policy (discounted)", "sum of rewards", &policy.along),
            ("Share without an end", "share", &policy.alive),
        ] {
            let mut chart = Chart::new(size, title, "steps", name);
            chart.marks = vec![
                Mark::Line(Colour::Series(3), Style::Thick, over_steps(promises, |promise| promise.promised)),
                Mark::Line(Colour::Series(2), Style::Thick, over_steps(promises, |promise| promise.kept)),
            ];
            charts.push((title.to_owned(), chart));
        }
        legend.push((Key::Line, Colour::Series(2), "the policy in the world".to_owned()));
        legend.push((Key::Line, Colour::Series(3), "the policy in the model".to_owned()));
    }
    if charts.is_empty() {
        return Ok(false);
    }
    let caption = "States that the agent came to in its own episodes, without exploring.".to_owned();
    let picture = Picture { title: title.to_owned(), legend, columns: 1, charts, caption };
    write_atomically(path, picture.svg().as_bytes()).context("picture of a diagnosis")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipped_columns_are_told_by_name_and_others_are_not() {
        let columns = ["height".to_owned(), "knee_velocity".to_owned(), "x".to_owned()];
        let text = clipped_in_words(&[0.001, 0.266, 0.0], &columns);
        assert!(text.starts_with("clipped ") && text.contains("  knee_velocity         27 %\n"), "{text}");
        assert!(!text.contains("height"), "{text}");
        assert_eq!(clipped_in_words(&[0.001, 0.04, 0.0], &columns), "");
    }
}
