//! What a trained model foresees, and what the agent does: one stored run of each experiment on the episodes of its newest
//! evaluation, which are not in its training data.

use std::fmt::Write as _;

use anyhow::{Context, Result};
#[cfg(feature = "mujoco")]
use mbrl_env::EnvError;
use mbrl_env::{Env, Replay, Rng, Shape, Situation, Transition};
use mbrl_model::{Draw, Dynamics, EvaluateConfig, ModelEvaluation, Propagation, Start, evaluate};
use mbrl_plan::PlannerConfig;
use mbrl_policy::{Learned, Tensor};
use serde_json::{Value, json};

use super::{
    chart::{Chart, Colour, Mark, Size, Style},
    curves::mean_std,
    html::{Key, absent, escape, figure, json as script_json, legend, mean_and_std, number, table},
    runs::{Group, Run},
};
#[cfg(feature = "mujoco")]
use crate::retake::Retake;
use crate::{
    registry::registry,
    run::Restored,
    say,
    trajectories::{self, Stored},
};

/// Columns of the observation that are drawn, particles of a fan, and most frames of an animation.
const COLUMNS: usize = 12;
const FAN: usize = 40;
const FRAMES: usize = 1000;
/// Most pictures of an episode, and their size: a page with them stays within a few megabytes.
#[cfg(feature = "mujoco")]
const PICTURES: usize = 100;
const PICTURE: (u32, u32) = (240, 180);
/// Steps of open-loop predictions: three planning horizons, within these.
const AHEAD: (usize, usize) = (30, 100);
/// Starts of the roll-outs that the model is judged by: a report should take seconds.
const STARTS: usize = 200;

/// The parts of the page about one experiment's model and behaviour, as HTML.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) model: String,
    pub(super) prediction: String,
    pub(super) episode: String,
    pub(super) notes: Vec<String>,
}

/// Shows a group. `id` is unique on the page. Whatever is missing or damaged is told instead.
pub(super) fn show(group: &Group, id: usize) -> Shown {
    let mut shown = Shown::default();
    let Some((run, restored)) = restore(group, &mut shown.notes) else {
        shown.model = absent("No checkpoint that could be read.");
        shown.prediction = shown.model.clone();
        // What was recorded can be shown all the same.
        let with_episodes = group.runs.iter().find_map(|run| Some((run, episodes(run, &mut shown.notes)?)));
        shown.episode = match with_episodes {
            Some((run, episodes)) => played_middle(run, &episodes, id),
            None => absent(NO_EPISODES),
        };
        return shown;
    };
    let episodes = episodes(run, &mut shown.notes);
    let (Some(learned), Some(sections)) = (restored.agent.learned(), run.experiment().agent.model_based()) else {
        shown.model = absent(GROUND_TRUTH);
        shown.prediction = shown.model.clone();
        shown.episode = episodes.map_or_else(|| absent(NO_EPISODES), |episodes| played_middle(run, &episodes, id));
        return shown;
    };
    let Some(episodes) = episodes else {
        shown.model = absent(NO_EPISODES);
        shown.prediction = shown.model.clone();
        shown.episode = played_training(run, learned, restored.env_step, id);
        return shown;
    };
    let model = learned.model;
    let of = format!("{}, the checkpoint of step {}", run.label, restored.env_step);
    let horizon = run.experiment().agent.planner().map_or(20, PlannerConfig::horizon);
    if learned.is_fitted {
        shown.model = judged(model, &episodes, horizon, &of).unwrap_or_else(|error| failed(&error));
        shown.prediction =
            foreseen(run, model, sections.propagation, &episodes, horizon, &of).unwrap_or_else(|error| failed(&error));
    } else {
        shown.model = absent("The model was not fitted yet.");
        shown.prediction = shown.model.clone();
    }
    shown.episode = played_middle(run, &episodes, id);
    shown
}

/// Of a run that learns nothing.
pub(super) const GROUND_TRUTH: &str = "The simulator itself is the model: nothing is learned.";

const NO_EPISODES: &str = "No evaluation episode was recorded: set train.eval_every in the experiment to have them.";

fn failed(error: &anyhow::Error) -> String {
    absent(&format!("Left out: {}", say::chain(error)))
}

/// The first run with a checkpoint that can be read.
fn restore<'a>(group: &'a Group, notes: &mut Vec<String>) -> Option<(&'a Run, Restored)> {
    for run in &group.runs {
        if !run.folder.path.join("checkpoints").exists() {
            continue;
        }
        match run.folder.restored() {
            Ok(restored) => {
                notes.extend(restored.damaged.iter().map(|e| format!("damaged checkpoint passed over: {e}")));
                return Some((run, restored));
            }
            Err(error) => notes.push(format!("{}: no model: {}", run.label, say::chain(&error))),
        }
    }
    None
}

/// The newest evaluation of a run.
struct Episodes {
    env_step: u64,
    /// At least one, none of them empty.
    episodes: Vec<Stored>,
}

impl Episodes {
    /// The episode in the middle of the returns.
    fn middle(&self) -> &Stored {
        let mut by_return: Vec<&Stored> = self.episodes.iter().collect();
        by_return.sort_by(|a, b| a.total_reward().total_cmp(&b.total_reward()));
        by_return[(by_return.len() - 1) / 2]
    }
}

fn episodes(run: &Run, notes: &mut Vec<String>) -> Option<Episodes> {
    let newest = trajectories::newest(&run.folder.path);
    let (env_step, found) = match newest {
        Ok(newest) => newest?,
        Err(error) => {
            notes.push(format!("{}: {}", run.label, say::chain(&error)));
            return None;
        }
    };
    let mut episodes = Vec::new();
    for episode in found {
        match episode {
            Ok(episode) if !episode.transitions.is_empty() => episodes.push(episode),
            Ok(_) => {}
            Err(error) => notes.push(format!("{}: episode left out: {}", run.label, say::chain(&error))),
        }
    }
    (!episodes.is_empty()).then_some(Episodes { env_step, episodes })
}

/// k-step errors and calibration.
fn judged(model: &dyn Dynamics, episodes: &Episodes, horizon: usize, of: &str) -> Result<String> {
    let spec = model.spec();
    let rows = episodes.episodes.iter().map(|e| e.transitions.len()).sum::<usize>();
    let mut data = Replay::new(spec.obs, spec.action, rows)?;
    for episode in &episodes.episodes {
        episode
            .transitions
            .iter()
            .try_for_each(|t| data.push(t))
            .with_context(|| format!("episode {}", episode.number))?;
        data.end_episode();
    }
    let config = EvaluateConfig { horizon: horizon.clamp(1, AHEAD.1), starts: STARTS, ..EvaluateConfig::default() };
    let found = evaluate(model, &data, &config, &mut Rng::new(0))?;
    let caption = format!(
        "{}, on the {} episodes of the evaluation at step {} ({rows} transitions): roll-outs of the recorded actions from {} \
         instants, {} particles. First: root mean squared error of the particles' mean, each column in units of its standard \
         deviation, mean over the columns. Second: the share of observations in the model's central intervals against the \
         share that should be there; below the diagonal the model is too sure of itself.",
        escape(of),
        episodes.episodes.len(),
        episodes.env_step,
        found.steps.first().map_or(0, |step| step.starts),
        found.propagation.particles
    );
    let charts =
        format!("<div class=\"several\"><div>{}</div><div>{}</div></div>", errors(&found), calibration(&found));
    Ok(figure(&charts, "", &caption) + &columns(&found))
}

fn errors(found: &ModelEvaluation) -> String {
    let curve = |figure: &dyn Fn(usize) -> f64| -> Vec<(f64, f64)> {
        found.steps.iter().enumerate().map(|(i, step)| (step.step as f64, figure(i))).collect()
    };
    let model = curve(&|i| found.scaled(&found.steps[i].rmse));
    let unchanged = curve(&|i| found.scaled(&found.steps[i].unchanged_rmse));
    let mut chart = Chart::new(Size::Small, "prediction error over steps ahead", "steps ahead", "error / std");
    let last = found.steps.last().map_or(1.0, |step| step.step as f64);
    chart.hover = model
        .iter()
        .zip(&unchanged)
        .map(|(m, u)| (m.0, format!("{} steps ahead\nmodel {}\nnothing changes {}", m.0, number(m.1), number(u.1))))
        .collect();
    chart.marks = vec![
        Mark::Line(Colour::Muted, Style::Dashed, vec![(1.0, 1.0), (last, 1.0)]),
        Mark::Line(Colour::Series(1), Style::Thick, unchanged),
        Mark::Line(Colour::Series(0), Style::Thick, model),
    ];
    let highest = chart.marks.iter().flat_map(|mark| match mark {
        Mark::Line(_, _, points) => points.iter().map(|p| p.1).filter(|y| y.is_finite()).collect(),
        _ => Vec::new(),
    });
    chart.y_range = Some((0.0, 1.05 * highest.fold(1.0, f64::max)));
    let keys = [
        (Key::Line, Colour::Series(0), "model".to_owned()),
        (Key::Line, Colour::Series(1), "\u{201c}nothing changes\u{201d}".to_owned()),
        (Key::Dashed, Colour::Muted, "always the mean".to_owned()),
    ];
    legend(&keys) + &chart.svg()
}

fn calibration(found: &ModelEvaluation) -> String {
    let mut lines: Vec<(String, &Vec<Vec<f64>>)> = Vec::new();
    if let Some(calibration) = &found.one_step.calibration {
        lines.push(("one step, Gaussian".to_owned(), &calibration.coverage));
    }
    let count = found.steps.len();
    for step in [count.div_ceil(4), count].into_iter().filter(|k| *k > 0).map(|k| &found.steps[k - 1]) {
        if let Some(calibration) = &step.calibration {
            lines.push((format!("{} steps, particles", step.step), &calibration.coverage));
        }
    }
    if lines.is_empty() {
        return absent("The model gives no spread: there is nothing to calibrate.");
    }
    let mut chart =
        Chart::new(Size::Small, "observed against nominal coverage", "share that should be inside", "share inside");
    chart.x_range = Some((0.4, 1.0));
    chart.y_range = Some((0.0, 1.0));
    chart.marks.push(Mark::Line(Colour::Muted, Style::Dashed, vec![(0.4, 0.4), (1.0, 1.0)]));
    let mut keys = Vec::new();
    for (i, (name, coverage)) in lines.into_iter().enumerate() {
        let points: Vec<(f64, f64)> =
            found.levels.iter().zip(coverage).map(|(level, columns)| (*level, mean_std(columns).0)).collect();
        chart.hover.extend(
            points
                .iter()
                .map(|p| (p.0, format!("{:.0} % should be inside\n{name}: {:.0} %", 100.0 * p.0, 100.0 * p.1))),
        );
        chart.marks.push(Mark::Line(Colour::Series(i), Style::Thick, points.clone()));
        chart.marks.push(Mark::Dots(Colour::Series(i), points));
        keys.push((Key::Line, Colour::Series(i), name));
    }
    legend(&keys) + &chart.svg()
}

/// The figures of each column.
fn columns(found: &ModelEvaluation) -> String {
    let last = found.steps.last();
    let ahead = last.map_or(0, |step| step.step);
    let level = found.levels.iter().position(|level| *level == 0.9);
    let one = found.one_step.calibration.as_ref();
    let far = last.and_then(|step| step.calibration.as_ref());
    let cell = |value: Option<f64>| value.map_or("–".to_owned(), number);
    let share = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{:.0} %", 100.0 * v));
    let rows: Vec<Vec<String>> = (0..found.column_std.len())
        .map(|i| {
            vec![
                format!("obs {i}"),
                number(found.column_std[i]),
                number(found.one_step.rmse[i]),
                number(found.one_step.unchanged_rmse[i]),
                cell(one.map(|c| c.std[i])),
                share(one.zip(level).map(|(c, l)| c.coverage[l][i])),
                cell(one.map(|c| c.nll[i])),
                cell(last.map(|step| step.rmse[i])),
                cell(far.map(|c| c.std[i])),
                share(far.zip(level).map(|(c, l)| c.coverage[l][i])),
            ]
        })
        .collect();
    let far_error = format!("error, {ahead}\u{a0}steps");
    let header = [
        "column",
        "std of the data",
        "error, 1\u{a0}step",
        "nothing changes",
        "predicted std",
        "in\u{a0}90\u{a0}%",
        "NLL",
        &far_error,
        "predicted std",
        "in\u{a0}90\u{a0}%",
    ];
    table(&header, 1, &rows)
}

/// Open-loop predictions beside what happened.
fn foreseen(
    run: &Run,
    model: &dyn Dynamics,
    propagation: Propagation,
    episodes: &Episodes,
    horizon: usize,
    of: &str,
) -> Result<String> {
    let episode = episodes.middle();
    let (obs_width, action_width) = (model.spec().obs, model.spec().action);
    let steps = episode.transitions.len().min((3 * horizon).clamp(AHEAD.0, AHEAD.1));
    let followed = &episode.transitions[..steps];
    let actions: Vec<f32> = followed.iter().flat_map(|t| t.action.iter().copied()).collect();
    let actions = Tensor::<1>::from_floats(&actions[..], &model.spec().device).reshape([steps, 1, action_width]);
    let draw = Draw::new(propagation, 0);
    let imagined = model.rollout(Start::Situation(Situation::of(&followed[0].obs)), actions, draw)?.obs;
    let imagined: Vec<f32> = imagined.try_into_vec_as().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let particles = propagation.particles;
    let at = |step: usize, particle: usize, column: usize| {
        f64::from(imagined[(step * particles + particle) * obs_width + column])
    };
    let period = period(run);
    let time = |step: usize| step as f64 * period;
    let mut charts = String::from("<div class=\"several\">");
    for column in 0..obs_width.min(COLUMNS) {
        let real: Vec<(f64, f64)> = observations(followed, column, period);
        let spread: Vec<(f64, f64)> = (0..=steps)
            .map(|step| mean_std(&(0..particles).map(|p| at(step, p, column)).collect::<Vec<_>>()))
            .collect();
        let mut chart = Chart::new(Size::Small, format!("observation {column}, predicted and real"), "time (s)", "");
        chart.hover = (0..=steps)
            .map(|s| {
                let (mean, std) = spread[s];
                let (real, predicted) = (number(real[s].1), mean_and_std(mean, std));
                (time(s), format!("{:.2} s\nreal {real}\npredicted {predicted}", time(s)))
            })
            .collect();
        // A model that runs away must not flatten what is real.
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let (low, high) = range(&mut real.iter().map(|p| p.1));
        let everywhere = episodes.episodes.iter().flat_map(|e| &e.transitions).map(|t| f64::from(t.obs[column]));
        let (lowest, highest) = range(&mut everywhere.into_iter());
        let margin = (0.5 * (highest - lowest)).max(1e-3);
        let values =
            || imagined.iter().skip(column).step_by(obs_width).map(|v| f64::from(*v)).filter(|v| v.is_finite());
        let lowest = values().fold(low, f64::min).max(low - margin);
        let highest = values().fold(high, f64::max).min(high + margin);
        let pad = 0.05 * (highest - lowest).max(1e-6);
        chart.y_range = Some((lowest - pad, highest + pad));
        for particle in 0..particles.min(FAN) {
            let path = (0..=steps).map(|s| (time(s), at(s, particle, column))).collect();
            chart.marks.push(Mark::Line(Colour::Series(0), Style::Faint, path));
        }
        if horizon < steps {
            chart.marks.push(Mark::Rule(time(horizon), "planning horizon".to_owned()));
        }
        chart.marks.push(Mark::Line(Colour::Ink, Style::Thick, real));
        let mean = spread.iter().enumerate().map(|(s, m)| (time(s), m.0)).collect();
        chart.marks.push(Mark::Line(Colour::Series(1), Style::Dashed, mean));
        let _ = write!(charts, "<div><h4>observation {column}</h4>{}</div>", chart.svg());
    }
    charts.push_str("</div>");
    let keys = [
        (Key::Line, Colour::Ink, "real".to_owned()),
        (Key::Line, Colour::Series(0), format!("{} of {particles} particles", particles.min(FAN))),
        (Key::Dashed, Colour::Series(1), "mean of the particles".to_owned()),
    ];
    let more = match obs_width.saturating_sub(COLUMNS) {
        0 => String::new(),
        more => format!(" {more} further columns are left out."),
    };
    let caption = format!(
        "{}: open-loop prediction of {steps} steps from the start of episode {} of the evaluation at step {} under the \
         actions that were executed, propagated as the planner does. No observation after the first one is given to the \
         model. The axes end half of the evaluation's range beyond what is real.{more}",
        escape(of),
        episode.number,
        episodes.env_step
    );
    Ok(figure(&charts, &legend(&keys), &caption))
}

fn observations(transitions: &[Transition], column: usize, period: f64) -> Vec<(f64, f64)> {
    let last = transitions.last().map(|t| &t.next_obs);
    let all = transitions.iter().map(|t| &t.obs).chain(last).enumerate();
    all.map(|(s, obs)| (s as f64 * period, f64::from(obs[column]))).collect()
}

/// Time of a step (s), of a task that this program does not know: 1.
fn period(run: &Run) -> f64 {
    run.experiment().make_task(registry()).map_or(1.0, |task| task.env.spec().control_period)
}

/// The evaluation's episode in the middle of the returns.
fn played_middle(run: &Run, episodes: &Episodes, id: usize) -> String {
    let episode = episodes.middle();
    let (number, count, step) = (episode.number, episodes.episodes.len(), episodes.env_step);
    let what =
        format!("episode {number} of {count} of the evaluation at step {step}, the one in the middle of the returns");
    let (pictures, note) = match pictures(run, episode) {
        Ok(pictures) => (pictures, String::new()),
        Err(error) => {
            let why = escape(&say::chain(&error));
            (Vec::new(), format!("<p class=\"lead\"><small>Without pictures: {why}.</small></p>\n"))
        }
    };
    played(run, &episode.transitions, &pictures, &what, id) + &note
}

/// The last training episode, where nothing was evaluated.
fn played_training(run: &Run, learned: Learned<'_>, env_step: u64, id: usize) -> String {
    let replay = learned.replay;
    let last: Vec<Transition> = replay.episodes().last().into_iter().flatten().filter_map(|i| replay.get(i)).collect();
    if last.is_empty() {
        return absent(NO_EPISODES);
    }
    let what = format!("the last training episode by step {env_step}, since no evaluation episode was recorded");
    played(run, &last, &[], &what, id)
}

/// An episode as the task draws it, as PNG files from its start to its end; none where the task draws none.
#[cfg(feature = "mujoco")]
fn pictures(run: &Run, episode: &Stored) -> Result<Vec<Vec<u8>>> {
    let steps = episode.transitions.len();
    let last = (PICTURES - 1).min(steps);
    // What has a sketch draws nothing else, and may have been recorded by an earlier version.
    if run.experiment().make_task(registry())?.sketch.is_some() {
        return Ok(Vec::new());
    }
    let mut retake = Retake::new(run.experiment(), episode)?;
    let draw = |i: usize| retake.frame(i * steps / last, PICTURE)?.png();
    match (0..=last).map(draw).collect() {
        Err(EnvError::NoPicture { .. }) => Ok(Vec::new()),
        pictures => Ok(pictures?),
    }
}

/// No task of this build draws any.
#[cfg(not(feature = "mujoco"))]
fn pictures(_: &Run, _: &Stored) -> Result<Vec<Vec<u8>>> {
    Ok(Vec::new())
}

/// An episode that plays, at least one step: pictures of it, the task's sketch, or its observations, with actions and
/// rewards.
fn played(run: &Run, all: &[Transition], pictures: &[Vec<u8>], what: &str, id: usize) -> String {
    let every = all.len().div_ceil(FRAMES);
    let shown: Vec<&Transition> = all.iter().step_by(every).collect();
    let period = period(run);
    let mut paid = 0.0;
    let so_far = all.iter().map(|t| {
        paid += t.reward;
        paid
    });
    // After the steps of each frame, the last one included.
    let sums: Vec<f64> = so_far.collect();
    let returns: Vec<f64> = sums.chunks(every).map(|chunk| (1e3 * chunk[chunk.len() - 1]).round() / 1e3).collect();
    let mut data = json!({ "dt": period * every as f64, "returns": returns });
    let sketch =
        run.experiment().make_task(registry()).ok().and_then(|task| task.sketch).filter(|_| pictures.is_empty());
    let last = &all[all.len() - 1].next_obs;
    let mut canvas = String::new();
    if !pictures.is_empty() {
        data["pictures"] = pictures.iter().map(|png| format!("data:image/png;base64,{}", base64(png))).collect();
        let (width, height) = PICTURE;
        canvas = format!(r#"<img alt="the episode" width="{width}" height="{height}">"#);
    }
    if let Some(sketch) = sketch {
        let view = sketch(last).view;
        let frames: Vec<Value> =
            shown.iter().map(|t| &t.obs).chain([last]).map(|obs| frame(&sketch(obs).shapes)).collect();
        data["view"] = json!(view);
        data["frames"] = Value::Array(frames);
        canvas = format!(
            r#"<canvas style="aspect-ratio:{:.3}" role="img" aria-label="animation of the episode"></canvas>"#,
            f64::from(view[2] - view[0]) / f64::from(view[3] - view[1])
        );
    }

    let end = all.len() as f64 * period;
    let strip = |name: &str, marks: Vec<Mark>, x: &str| {
        let mut chart = Chart::new(Size::Strip, format!("{name} over time"), x, name);
        chart.x_range = Some((0.0, end));
        chart.marks = marks;
        chart.cursor = true;
        chart.svg()
    };
    let line = |colour, points| Mark::Line(colour, Style::Thick, points);
    let mut strips = String::new();
    if canvas.is_empty() {
        for column in 0..last.len().min(COLUMNS) {
            let points = observations(all, column, period);
            strips.push_str(&strip(&format!("obs {column}"), vec![line(Colour::Series(0), points)], ""));
        }
    }
    let actions = all[0].action.len();
    let of_step = |value: &dyn Fn(&Transition) -> f64| -> Vec<(f64, f64)> {
        all.iter().enumerate().map(|(s, t)| (s as f64 * period, value(t))).collect()
    };
    let action_lines = (0..actions.min(COLUMNS)).map(|a| line(Colour::Series(a), of_step(&|t| f64::from(t.action[a]))));
    strips.push_str(&strip(if actions == 1 { "action" } else { "actions" }, action_lines.collect(), ""));
    strips.push_str(&strip("reward", vec![line(Colour::Series(2), of_step(&|t| t.reward))], "time (s)"));

    let ended = match all.last() {
        Some(t) if t.terminated => "ended by the task",
        Some(t) if t.truncated => "cut by the time limit",
        _ => "cut by the end of the run",
    };
    let total: f64 = all.iter().map(|t| t.reward).sum();
    let drawn = match pictures.len() {
        0 => String::new(),
        count => format!(" Drawn at {count} moments."),
    };
    let caption =
        format!("{}: {what}: {} steps, return {}, {ended}.{drawn}", escape(&run.label), all.len(), number(total));
    let player = format!(
        r#"<div class="player" data-source="episode-{id}" data-frame="0">{canvas}<div class="controls"><button type="button">Play</button><input type="range" min="0" max="{}" value="0" aria-label="step"><select aria-label="speed"><option value="0.25">¼ ×</option><option value="0.5">½ ×</option><option value="1" selected>1 ×</option><option value="2">2 ×</option><option value="4">4 ×</option></select><output></output></div>{strips}</div><script type="application/json" id="episode-{id}">{}</script>"#,
        shown.len(),
        script_json(&data)
    );
    figure(&player, "", &caption)
}

/// Bytes as text, by RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().chain(&[0; 2]).take(3).fold(0, |word, byte| word << 8 | usize::from(*byte));
        for digit in 0..4 {
            let known = digit <= group.len();
            text.push(if known { char::from(DIGITS[word >> (18 - 6 * digit) & 63]) } else { '=' });
        }
    }
    text
}

/// Shapes as `[kind, role, points, size]`, to four digits.
fn frame(shapes: &[Shape]) -> Value {
    let round = |v: f32| if v.is_finite() { (f64::from(v) * 1e4).round() / 1e4 } else { 0.0 };
    let points = |points: &[[f32; 2]]| -> Vec<[f64; 2]> { points.iter().map(|p| p.map(round)).collect() };
    let shape = |shape: &Shape| match shape {
        Shape::Line { role, points: p, width } => json!(["line", role, points(p), round(*width)]),
        Shape::Disc { role, at, radius } => json!(["disc", role, points(&[*at]), round(*radius)]),
        Shape::Polygon { role, points: p } => json!(["polygon", role, points(p), 0]),
    };
    shapes.iter().map(shape).collect()
}

#[cfg(test)]
mod tests {
    use mbrl_env::Role;

    use super::{super::runs, *};

    /// RFC 4648, section 10.
    #[test]
    fn bytes_are_text_by_the_standard() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in pairs {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn shapes_are_as_the_script_reads_them() {
        let shapes = [
            Shape::Disc { role: Role::Goal, at: [0.0, 1.0], radius: 0.15 },
            Shape::Line { role: Role::Body, points: vec![[0.0, 0.0], [0.123_45, f32::NAN]], width: 0.1 },
            Shape::Polygon { role: Role::Obstacle, points: vec![[1.0, 2.0]] },
        ];
        let expected = json!([
            ["disc", "goal", [[0.0, 1.0]], 0.15],
            ["line", "body", [[0.0, 0.0], [0.1235, 0.0]], 0.1],
            ["polygon", "obstacle", [[1.0, 2.0]], 0]
        ]);
        assert_eq!(frame(&shapes), expected);
    }

    /// An episode of one step that earns this.
    fn episode(number: usize, reward: f64) -> Stored {
        let transition = Transition {
            obs: vec![1.0, 0.0, 0.5],
            action: vec![0.0],
            reward,
            next_obs: vec![1.0, 0.1, 0.5],
            terminated: false,
            truncated: true,
        };
        Stored { number, transitions: vec![transition] }
    }

    #[test]
    fn the_episode_in_the_middle_of_the_returns_is_shown() {
        let of = |episodes| Episodes { env_step: 0, episodes };
        assert_eq!(of(vec![episode(1, 3.0), episode(2, -9.0), episode(3, 2.0)]).middle().number, 3);
        assert_eq!(of(vec![episode(1, 3.0), episode(2, -9.0)]).middle().number, 2);
    }

    #[test]
    fn an_episode_without_a_sketch_is_played_as_lines() {
        let episodes = Episodes { env_step: 400, episodes: vec![episode(1, -2.5)] };
        let mut run = runs::tests::run(&[]);
        let sketched = played_middle(&run, &episodes, 0);
        assert!(sketched.contains("<canvas") && sketched.contains(r#""frames":[[["disc""#), "{sketched}");
        run.folder.experiment.task = "a task of another program".into();
        let plain = played_middle(&run, &episodes, 0);
        assert!(!plain.contains("<canvas") && !plain.contains("frames"), "{plain}");
        for line in ["obs 0", "obs 2", "action", "reward", r#""returns":[-2.5]"#] {
            assert!(plain.contains(line), "{line}: {plain}");
        }
    }
}
