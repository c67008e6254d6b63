//! What a trained model predicts, and what the agent does: one stored run of each experiment on the episodes of its newest
//! evaluation, which are not in its training data.

use std::{fmt::Write as _, fs};

use anyhow::{Context, Result};
#[cfg(feature = "mujoco")]
use mbrl_env::EnvError;
use mbrl_env::{Env, Form, Replay, Rng, Scene, Shape, Situation, Solid, Transition};
use mbrl_model::{Draw, Dynamics, EvaluateConfig, ModelEvaluation, Propagation, Start, evaluate};
use mbrl_plan::PlannerConfig;
use mbrl_policy::{Learned, Tensor, WhichCheckpoint, experiment::AgentConfig};
use serde_json::{Value, json};

use super::{
    curves::mean_std,
    film::film,
    html::{absent, escape, figure, json as script_json, legend, mean_and_std, number, table},
    runs::{Group, Run},
};
use crate::{
    console,
    diagnose::DIAGNOSIS,
    model_chart::{coverage_chart, error_chart, in_words},
    plot::{Chart, Colour, Key, Mark, Points, Size, Style},
    replay_episode::EpisodeReplay,
    run::Restored,
    trajectories::{self, Stored},
};

/// Numbers of observation columns drawn and of particles in a fan, and the maximum number of frames of an animation.
const COLUMNS: usize = 12;
const FAN: usize = 40;
const FEW: usize = 8;
const FRAMES: usize = 1000;
/// Maximum number of pictures of an episode, and their size: a page with them stays within a few megabytes.
#[cfg(feature = "mujoco")]
const PICTURES: usize = 100;
const PICTURE: (u32, u32) = (240, 180);
/// Maximum number of scenes of an episode.
const SCENES: usize = 201;
/// Steps of open-loop predictions: three planning horizons, within these.
const AHEAD: (usize, usize) = (30, 100);
/// Number of starts of the roll-outs by which the model is judged: a report should take seconds.
const STARTS: usize = 200;

/// The parts of the page about one experiment's model and behaviour, as HTML.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) model: String,
    pub(super) prediction: String,
    pub(super) episode: String,
    pub(super) notes: Vec<String>,
}

/// Shows a group. `id` is unique on the page. Notes replace whatever is missing or damaged.
pub(super) fn show(group: &Group, id: usize) -> Shown {
    let mut shown = show_run(group, id);
    shown.model.extend(group.runs.iter().find_map(diagnosed));
    shown
}

/// What `mbrl diagnose` found about the plans of a run, if it was used.
fn diagnosed(run: &Run) -> Option<String> {
    let found: Value = serde_json::from_slice(&fs::read(run.folder.path.join(DIAGNOSIS)).ok()?).ok()?;
    // With other settings (--set) the figures are not the run's.
    if found.get("set").and_then(Value::as_array).is_some_and(|set| !set.is_empty()) {
        return None;
    }
    let plans = found.get("plans")?;
    let told = |place: &str| plans.pointer(place).and_then(Value::as_f64).map_or("–".to_owned(), number);
    let row = |name: &str, promised: &str, earned: &str| vec![name.to_owned(), told(promised), told(earned)];
    let rows = [
        row("plans in the model", "/plans/promised", "/plans/kept"),
        row("random actions", "/random/promised", "/random/kept"),
        row("the same planner in the simulator", "/with_simulator", "/with_simulator"),
    ];
    let count = |place: &str| found.pointer(place).and_then(Value::as_u64).unwrap_or_default();
    let caption = format!(
        "Return over plans of {} steps from {} states of the agent's own episodes, as the model promises it and as the simulator pays it: \
         {}, step {}, by mbrl diagnose.",
        count("/plans/horizon"),
        count("/plans/states"),
        run.label,
        count("/env_step")
    );
    Some(figure(&table(&["what limits the plans", "promised", "earned"], 1, &rows), "", &caption))
}

fn show_run(group: &Group, id: usize) -> Shown {
    let mut shown = Shown::default();
    let Some((run, restored)) = restore(group, &mut shown.notes) else {
        shown.model = absent("No checkpoint that could be read.");
        shown.prediction = shown.model.clone();
        // The recorded episodes can still be shown.
        let with_episodes = group.runs.iter().find_map(|run| Some((run, episodes(run, &mut shown.notes)?)));
        shown.episode = match with_episodes {
            Some((run, episodes)) => played_middle(run, &episodes, id),
            None => absent(NO_EPISODES),
        };
        return shown;
    };
    let episodes = episodes(run, &mut shown.notes);
    if let (Some(learned), AgentConfig::Latent(sections)) = (restored.agent.learned(), &run.experiment().agent) {
        let of = format!("{}, the checkpoint of step {}", run.label, restored.env_step);
        shown.model = absent("A model of images is judged by what it foresees, below.");
        shown.prediction = match &episodes {
            None => absent(NO_EPISODES),
            Some(_) if !learned.is_fitted => absent("The model was not fitted yet."),
            Some(episodes) => {
                let (spec, steps) = (restored.task.env.spec(), 2 * sections.planner.horizon());
                film(learned.model, spec, &episodes.middle().transitions, steps, &of)
                    .unwrap_or_else(|error| failed(&error))
            }
        };
        shown.episode = episodes.map_or_else(|| absent(NO_EPISODES), |episodes| played_middle(run, &episodes, id));
        return shown;
    }
    let (Some(learned), Some(sections)) = (restored.agent.learned(), run.experiment().agent.model_based()) else {
        shown.model = absent(without_model(run.experiment().agent.ground_truth().is_some()));
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
        shown.model = judged(run, model, &episodes, horizon, &of).unwrap_or_else(|error| failed(&error));
        shown.prediction =
            foreseen(run, model, sections.propagation, &episodes, horizon, &of).unwrap_or_else(|error| failed(&error));
    } else {
        shown.model = absent("The model was not fitted yet.");
        shown.prediction = shown.model.clone();
    }
    shown.episode = played_middle(run, &episodes, id);
    shown
}

/// For a run that learns no model: nothing at all, or a policy from real transitions.
pub(super) fn without_model(is_ground_truth: bool) -> &'static str {
    match is_ground_truth {
        true => "The simulator itself is the model: nothing is learned.",
        false => "A policy is learned without a model.",
    }
}

const NO_EPISODES: &str = "No evaluation episode was recorded: set train.eval_every in the experiment to have them.";

fn failed(error: &anyhow::Error) -> String {
    absent(&format!("Left out: {}", console::chain(error)))
}

/// The first run with a readable checkpoint.
fn restore<'a>(group: &'a Group, notes: &mut Vec<String>) -> Option<(&'a Run, Restored)> {
    for run in &group.runs {
        if !run.folder.path.join("checkpoints").exists() {
            continue;
        }
        match run.folder.restored(WhichCheckpoint::Last) {
            Ok(restored) => {
                notes.extend(
                    restored
                        .damaged
                        .iter()
                        .map(|e| format!("damaged checkpoint passed over: {}", console::chain_of(e))),
                );
                return Some((run, restored));
            }
            Err(error) => notes.push(format!("{}: no model: {}", run.label, console::chain(&error))),
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
    /// The episode with the median return.
    fn middle(&self) -> &Stored {
        let mut by_return: Vec<&Stored> = self.episodes.iter().collect();
        by_return.sort_by(|a, b| a.total_reward().total_cmp(&b.total_reward()));
        by_return[(by_return.len() - 1) / 2]
    }
}

fn episodes(run: &Run, notes: &mut Vec<String>) -> Option<Episodes> {
    let newest = trajectories::newest(&run.folder.path, None);
    let (env_step, found) = match newest {
        Ok(newest) => newest?,
        Err(error) => {
            notes.push(format!("{}: {}", run.label, console::chain(&error)));
            return None;
        }
    };
    let mut episodes = Vec::new();
    for episode in found {
        match episode {
            Ok(episode) if !episode.transitions.is_empty() => episodes.push(episode),
            Ok(_) => {}
            Err(error) => notes.push(format!("{}: episode left out: {}", run.label, console::chain(&error))),
        }
    }
    (!episodes.is_empty()).then_some(Episodes { env_step, episodes })
}

/// k-step errors and calibration.
fn judged(run: &Run, model: &dyn Dynamics, episodes: &Episodes, horizon: usize, of: &str) -> Result<String> {
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
        "{}, on the {} episodes of the evaluation at step {} ({rows} transitions). {}",
        escape(of),
        episodes.episodes.len(),
        episodes.env_step,
        escape(&in_words(&found))
    );
    let shown = |(chart, keys): (Chart, Vec<_>)| format!("<div>{}{}</div>", legend(&keys), chart.svg());
    let coverage = coverage_chart(Size::Small, &found).map_or(String::new(), shown);
    let charts = format!("<div class=\"several\">{}{coverage}</div>", shown(error_chart(Size::Small, &found)));
    Ok(figure(&charts, "", &caption) + &columns(&found, &Names::of(run)))
}

/// The figures of each column.
fn columns(found: &ModelEvaluation, names: &Names) -> String {
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
                escape(&names.obs(i)),
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

/// What a model predicts from the first of some transitions on, with the actions that were taken.
struct Foreseen {
    particles: usize,
    width: usize,
    /// `[steps + 1, particles, width]`.
    imagined: Vec<f32>,
}

impl Foreseen {
    fn of(model: &dyn Dynamics, propagation: Propagation, followed: &[Transition]) -> Result<Self> {
        let (width, action_width) = (model.spec().obs, model.spec().action);
        let actions: Vec<f32> = followed.iter().flat_map(|t| t.action.iter().copied()).collect();
        let actions =
            Tensor::<1>::from_floats(&actions[..], &model.spec().device).reshape([followed.len(), 1, action_width]);
        let draw = Draw::new(propagation, 0);
        let imagined = model.rollout(Start::Situation(Situation::of(&followed[0].obs)), actions, draw)?.obs;
        let imagined: Vec<f32> = imagined.try_into_vec_as().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(Self { particles: propagation.particles, width, imagined })
    }

    fn at(&self, step: usize, particle: usize, column: usize) -> f64 {
        f64::from(self.imagined[(step * self.particles + particle) * self.width + column])
    }

    /// Mean and standard deviation of the particles.
    fn spread(&self, step: usize, column: usize) -> (f64, f64) {
        mean_std(&(0..self.particles).map(|p| self.at(step, p, column)).collect::<Vec<_>>())
    }

    /// All finite predictions of a column.
    fn values(&self, column: usize) -> impl Iterator<Item = f64> + '_ {
        self.imagined.iter().skip(column).step_by(self.width).map(|v| f64::from(*v)).filter(|v| v.is_finite())
    }

    /// Predictions of a column over time, beside the real values, `[steps + 1]`. `range` is that of the whole evaluation.
    fn chart(&self, column: usize, name: &str, real: &Points, horizon: f64, range: (f64, f64)) -> Chart {
        let mut chart = Chart::new(Size::Small, format!("{name}, predicted and real"), "time (s)", "");
        let spread: Vec<(f64, f64)> = (0..real.len()).map(|step| self.spread(step, column)).collect();
        chart.hover = real
            .iter()
            .zip(&spread)
            .map(|((time, value), (mean, std))| {
                let (value, predicted) = (number(*value), mean_and_std(*mean, *std));
                (*time, format!("{time:.2} s\nreal {value}\npredicted {predicted}"))
            })
            .collect();
        // A diverging model must not flatten the real values.
        let (low, high) = ends(real.iter().map(|p| p.1));
        let margin = (0.5 * (range.1 - range.0)).max(1e-3);
        let lowest = self.values(column).fold(low, f64::min).max(low - margin);
        let highest = self.values(column).fold(high, f64::max).min(high + margin);
        let pad = 0.05 * (highest - lowest).max(1e-6);
        chart.y_range = Some((lowest - pad, highest + pad));
        for particle in 0..self.particles.min(FAN) {
            let path = real.iter().enumerate().map(|(step, p)| (p.0, self.at(step, particle, column))).collect();
            // A few can each be followed.
            let style = if self.particles > FEW { Style::Faint } else { Style::Thin };
            chart.marks.push(Mark::Line(Colour::Series(0), style, path));
        }
        if real.last().is_some_and(|end| horizon < end.0) {
            chart.marks.push(Mark::Rule(horizon, "planning horizon".to_owned()));
        }
        chart.marks.push(Mark::Line(Colour::Ink, Style::Thick, real.clone()));
        let mean = real.iter().zip(&spread).map(|(p, spread)| (p.0, spread.0)).collect();
        chart.marks.push(Mark::Line(Colour::Series(1), Style::Dashed, mean));
        chart
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// Open-loop predictions beside the real episode.
fn foreseen(
    run: &Run,
    model: &dyn Dynamics,
    propagation: Propagation,
    episodes: &Episodes,
    horizon: usize,
    of: &str,
) -> Result<String> {
    let episode = episodes.middle();
    let steps = episode.transitions.len().min((3 * horizon).clamp(AHEAD.0, AHEAD.1));
    let followed = &episode.transitions[..steps];
    let foreseen = Foreseen::of(model, propagation, followed)?;
    let (period, names) = (period(run), Names::of(run));
    let mut charts = String::from("<div class=\"several\">");
    for column in 0..foreseen.width.min(COLUMNS) {
        let everywhere = episodes.episodes.iter().flat_map(|e| &e.transitions).map(|t| f64::from(t.obs[column]));
        let real = observations(followed, column, period);
        let name = names.obs(column);
        let chart = foreseen.chart(column, &name, &real, horizon as f64 * period, ends(everywhere));
        let _ = write!(charts, "<div><h4>{}</h4>{}</div>", escape(&name), chart.svg());
    }
    charts.push_str("</div>");
    let particles = foreseen.particles;
    let keys = [
        (Key::Line, Colour::Ink, "real".to_owned()),
        (Key::Thin, Colour::Series(0), format!("{} of {particles} particles", particles.min(FAN))),
        (Key::Dashed, Colour::Series(1), "mean of the particles".to_owned()),
    ];
    let more = match foreseen.width.saturating_sub(COLUMNS) {
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

fn observations(transitions: &[Transition], column: usize, period: f64) -> Points {
    let last = transitions.last().map(|t| &t.next_obs);
    let all = transitions.iter().map(|t| &t.obs).chain(last).enumerate();
    all.map(|(s, obs)| (s as f64 * period, f64::from(obs[column]))).collect()
}

/// Names of the columns.
#[derive(Debug, Default)]
struct Names {
    obs: Vec<String>,
    actions: Vec<String>,
}

impl Names {
    /// From the task; empty for a task that this program does not know.
    fn of(run: &Run) -> Self {
        run.known().map_or_else(Self::default, |known| Self {
            obs: known.spec.column_names(),
            actions: known.spec.action_names(),
        })
    }

    fn obs(&self, column: usize) -> String {
        self.obs.get(column).cloned().unwrap_or_else(|| format!("obs[{column}]"))
    }

    fn action(&self, column: usize) -> String {
        self.actions.get(column).cloned().unwrap_or_else(|| format!("action[{column}]"))
    }
}

/// Duration of a step (s); 1 for a task that this program does not know.
fn period(run: &Run) -> f64 {
    run.known().map_or(1.0, |known| known.spec.control_period)
}

/// The evaluation's episode with the median return.
fn played_middle(run: &Run, episodes: &Episodes, id: usize) -> String {
    let episode = episodes.middle();
    let (number, count, step) = (episode.number, episodes.episodes.len(), episodes.env_step);
    let what =
        format!("episode {number} of {count} of the evaluation at step {step}, the one in the middle of the returns");
    let (drawn, note) = match drawn(run, episode) {
        Ok(drawn) => (drawn, String::new()),
        Err(error) => {
            let why = escape(&console::chain(&error));
            (Drawn::Nothing, format!("<p class=\"lead\"><small>Without pictures: {why}.</small></p>\n"))
        }
    };
    played(run, &episode.transitions, &drawn, &what, id) + &note
}

/// The last training episode, if nothing was evaluated.
fn played_training(run: &Run, learned: Learned<'_>, env_step: u64, id: usize) -> String {
    let replay = learned.replay;
    let last: Vec<Transition> = replay.episodes().last().into_iter().flatten().filter_map(|i| replay.get(i)).collect();
    if last.is_empty() {
        return absent(NO_EPISODES);
    }
    let what = format!("the last training episode by step {env_step}, since no evaluation episode was recorded");
    played(run, &last, &Drawn::Nothing, &what, id)
}

/// What an environment itself draws of an episode.
enum Drawn {
    /// Nothing: the task's sketch or its observations are shown instead.
    Nothing,
    /// Scenes at this many moments, as the script reads them.
    Scenes(Value, usize),
    /// PNG files from its start to its end.
    #[cfg_attr(not(feature = "mujoco"), allow(dead_code, reason = "PNG files need the feature"))]
    Pictures(Vec<Vec<u8>>),
}

/// An episode as the task draws it.
fn drawn(run: &Run, episode: &Stored) -> Result<Drawn> {
    let steps = episode.transitions.len();
    // A task with a sketch shows nothing else, and may have been recorded by an earlier version. A process and a task of another program
    // draw nothing here either.
    let shows = run.known().is_some_and(|known| known.sketch.is_none());
    if !shows || run.experiment().task == mbrl_env::process::TASK {
        return Ok(Drawn::Nothing);
    }
    let mut replay = EpisodeReplay::new(run.experiment(), episode)?;
    if let Some(first) = replay.scene(0)? {
        let last = (SCENES - 1).min(steps);
        let mut scenes = vec![first];
        for i in 1..=last {
            scenes.extend(replay.scene(i * steps / last)?);
        }
        return Ok(Drawn::Scenes(scenes_json(&scenes), scenes.len()));
    }
    pictures(replay, steps)
}

#[cfg(feature = "mujoco")]
fn pictures(mut replay: EpisodeReplay<'_>, steps: usize) -> Result<Drawn> {
    let last = (PICTURES - 1).min(steps);
    let draw = |i: usize| replay.frame(i * steps / last, PICTURE)?.png();
    match (0..=last).map(draw).collect() {
        Err(EnvError::NoPicture { .. }) => Ok(Drawn::Nothing),
        pictures => Ok(Drawn::Pictures(pictures?)),
    }
}

/// PNG files need the feature.
#[cfg(not(feature = "mujoco"))]
fn pictures(_: EpisodeReplay<'_>, _: usize) -> Result<Drawn> {
    Ok(Drawn::Nothing)
}

/// Scenes of one environment: its solids, the places of the moving ones in each scene, and the camera.
fn scenes_json(scenes: &[Scene]) -> Value {
    let round = |v: f32, digits: f64| if v.is_finite() { (f64::from(v) * digits).round() / digits } else { 0.0 };
    let Some(first) = scenes.first() else { return Value::Null };
    let place = |solid: &Solid| -> Vec<f64> {
        solid.at.iter().map(|x| round(*x, 1e4)).chain(solid.axes.iter().map(|x| round(*x, 1e3))).collect()
    };
    let same = |scene: &&Scene| scene.solids.len() == first.solids.len();
    let whole: Vec<&Scene> = scenes.iter().take_while(same).collect();
    let moves = |i: usize| whole.iter().any(|scene| place(&scene.solids[i]) != place(&first.solids[i]));
    let moving: Vec<usize> = (0..first.solids.len()).filter(|i| moves(*i)).collect();
    let solids: Vec<Value> = first
        .solids
        .iter()
        .map(|solid| {
            let form = match solid.form {
                Form::Plane => "plane",
                Form::Ellipsoid => "ellipsoid",
                Form::Capsule => "capsule",
                Form::Cylinder => "cylinder",
                _ => "box",
            };
            json!([form, solid.size.map(|x| round(x, 1e5)), solid.colour.map(|x| round(x, 1e3)), place(solid)])
        })
        .collect();
    let places = |scene: &&Scene| moving.iter().map(|i| place(&scene.solids[*i])).collect::<Vec<_>>();
    json!({
        "solids": solids,
        "moving": moving,
        "places": whole.iter().map(places).collect::<Vec<_>>(),
        "lookat": whole.iter().map(|scene| scene.lookat.map(|x| round(x, 1e4))).collect::<Vec<_>>(),
        "distance": round(first.distance, 1e4),
        "azimuth": round(first.azimuth, 1e2),
        "elevation": round(first.elevation, 1e2),
    })
}

/// An episode that can be played, of at least one step: its pictures, the task's sketch or its observations, with actions and
/// rewards.
fn played(run: &Run, all: &[Transition], drawn: &Drawn, what: &str, id: usize) -> String {
    let every = all.len().div_ceil(FRAMES);
    let shown: Vec<&Transition> = all.iter().step_by(every).collect();
    let period = period(run);
    let mut paid = 0.0;
    let so_far = all.iter().map(|t| {
        paid += t.reward;
        paid
    });
    // After the steps of each frame, including the last one.
    let sums: Vec<f64> = so_far.collect();
    let returns: Vec<f64> = sums.chunks(every).map(|chunk| (1e3 * chunk[chunk.len() - 1]).round() / 1e3).collect();
    let mut data = json!({ "dt": period * every as f64, "returns": returns });
    let sketch = run.known().and_then(|known| known.sketch).filter(|_| matches!(drawn, Drawn::Nothing));
    let last = &all[all.len() - 1].next_obs;
    let mut canvas = String::new();
    let mut moments = String::new();
    match drawn {
        Drawn::Nothing => {}
        Drawn::Scenes(scenes, count) => {
            data["scene"] = scenes.clone();
            canvas = r#"<canvas class="scene" tabindex="0" role="img" aria-label="the episode in space; drag or use the arrow keys to turn it, the wheel or + and - to come closer"></canvas>"#.to_owned();
            moments = format!(" Shown at {count} moments; drag to turn it.");
        }
        Drawn::Pictures(pictures) => {
            data["pictures"] = pictures.iter().map(|png| format!("data:image/png;base64,{}", base64(png))).collect();
            let (width, height) = PICTURE;
            canvas = format!(r#"<img alt="the episode" width="{width}" height="{height}">"#);
            moments = format!(" Drawn at {} moments.", pictures.len());
        }
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

    let names = Names::of(run);
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
            strips.push_str(&strip(&names.obs(column), vec![line(Colour::Series(0), points)], ""));
        }
    }
    let actions = all[0].action.len();
    let of_step = |value: &dyn Fn(&Transition) -> f64| -> Points {
        all.iter().enumerate().map(|(s, t)| (s as f64 * period, value(t))).collect()
    };
    let action_lines = (0..actions.min(COLUMNS)).map(|a| line(Colour::Series(a), of_step(&|t| f64::from(t.action[a]))));
    if actions > 1 {
        let keys: Vec<_> = (0..actions.min(COLUMNS)).map(|a| (Key::Line, Colour::Series(a), names.action(a))).collect();
        strips.push_str(&legend(&keys));
    }
    strips.push_str(&strip(if actions == 1 { "action" } else { "actions" }, action_lines.collect(), ""));
    strips.push_str(&strip("reward", vec![line(Colour::Series(2), of_step(&|t| t.reward))], "time (s)"));

    let ended = match all.last() {
        Some(t) if t.terminated => "ended by the task",
        Some(t) if t.truncated => "cut by the time limit",
        _ => "cut by the end of the run",
    };
    let total: f64 = all.iter().map(|t| t.reward).sum();
    let caption =
        format!("{}: {what}: {} steps, return {}, {ended}.{moments}", escape(&run.label), all.len(), number(total));
    let player = format!(
        r#"<div class="player" data-source="episode-{id}" data-frame="0">{canvas}<div class="controls"><button type="button">Play</button><input type="range" min="0" max="{}" value="0" aria-label="step"><select aria-label="speed"><option value="0.25">¼ ×</option><option value="0.5">½ ×</option><option value="1" selected>1 ×</option><option value="2">2 ×</option><option value="4">4 ×</option></select><output></output></div>{strips}</div><script type="application/json" id="episode-{id}">{}</script>"#,
        shown.len(),
        script_json(&data)
    );
    figure(&player, "", &caption)
}

/// Bytes as text, according to RFC 4648.
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
    use mbrl_model::{Device, dynamics_fn};

    use super::{super::runs, *};
    use crate::plot::tests::{Read, assert_near};

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

    /// An episode of one step with this reward.
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

    /// Three steps of s' = s + a with different actions and rewards.
    fn walk() -> Vec<Transition> {
        let mut at = 1.0;
        [(2.0, 0.5), (-1.0, -4.0), (3.0, 1.5)]
            .into_iter()
            .enumerate()
            .map(|(i, (action, reward))| {
                let obs = vec![at];
                at += action;
                Transition {
                    obs,
                    action: vec![action],
                    reward,
                    next_obs: vec![at],
                    terminated: false,
                    truncated: i == 2,
                }
            })
            .collect()
    }

    /// A model that doubles every action predicts 1, 1 + 4, 1 + 4 − 2, 1 + 4 − 2 + 6, which depends on the actions.
    #[test]
    fn predictions_follow_the_actions_that_were_taken() {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 2.0);
        let propagation = Propagation { particles: 2, ..Propagation::MEAN };
        let walk = walk();
        let found = Foreseen::of(&model, propagation, &walk).unwrap();
        let expected = [1.0, 5.0, 3.0, 9.0];
        for (step, value) in expected.into_iter().enumerate() {
            assert_eq!(
                (found.at(step, 0, 0), found.at(step, 1, 0), found.spread(step, 0)),
                (value, value, (value, 0.0))
            );
        }
        let real = observations(&walk, 0, 0.5);
        assert_eq!(real, [(0.0, 1.0), (0.5, 3.0), (1.0, 2.0), (1.5, 5.0)]);
        let svg = found.chart(0, "x", &real, 1.0, (-20.0, 20.0)).svg();
        let read = Read::new(&svg, false, false);
        let drawn: Points = expected.into_iter().enumerate().map(|(step, v)| (0.5 * step as f64, v)).collect();
        assert_near(&read.line("line thick ink"), &real, (0.01, 0.05));
        assert_near(&read.line("line dashed c1"), &drawn, (0.01, 0.05));
        let particles = read.lines("line thin c0");
        assert_eq!(particles.len(), 2);
        assert_near(&particles[1], &drawn, (0.01, 0.05));
        assert!(svg.contains("planning horizon") && svg.contains("real 5.00\\npredicted 9.00"), "{svg}");
    }

    #[test]
    fn an_episode_is_played_with_its_actions_and_rewards() {
        let mut run = runs::tests::run(&[]);
        run.folder.experiment.task = "a task of another program".into();
        let html = played(&run, &walk(), &Drawn::Nothing, "an episode", 0);
        assert!(html.contains(r#""returns":[0.5,-3.5,-2.0]"#), "{html}");
        assert!(html.contains("3 steps, return −2.00, cut by the time limit"), "{html}");
        let strip = |name: &str| &html[html.find(&format!(r#"aria-label="{name} over time""#)).unwrap()..];
        let line = |name: &str, class: &str| Read::new(strip(name), false, false).lines(class).remove(0);
        let exact = (0.01, 0.05);
        assert_near(&line("obs[0]", "line thick c0"), &[(0.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 5.0)], exact);
        assert_near(&line("action", "line thick c0"), &[(0.0, 2.0), (1.0, -1.0), (2.0, 3.0)], exact);
        assert_near(&line("reward", "line thick c2"), &[(0.0, 0.5), (1.0, -4.0), (2.0, 1.5)], exact);
    }

    #[test]
    fn the_table_of_columns_says_what_was_found() {
        let transitions = walk();
        let mut data = Replay::new(1, 1, 3).unwrap();
        transitions.iter().for_each(|t| data.push(t).unwrap());
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 2.0);
        let config = EvaluateConfig { horizon: 3, ..EvaluateConfig::default() };
        let found = evaluate(&model, &data, &config, &mut Rng::new(0)).unwrap();
        let html = columns(&found, &Names::default());
        // Next observations 3, 2, 5: their standard deviation; actions 2, −1, 3: the error of one step is theirs, as is that of
        // no change; after three steps the sum of them, 4.
        let rms = number((14.0_f64 / 3.0).sqrt());
        let cells: Vec<&str> =
            html.split("<td").skip(1).map(|c| c[c.find('>').unwrap() + 1..].split('<').next().unwrap()).collect();
        let std = number((14.0_f64 / 9.0).sqrt());
        assert_eq!(cells, ["obs[0]", &std, &rms, &rms, "–", "–", "–", "4.00", "–", "–"]);
    }

    #[test]
    fn scenes_tell_places_once_of_what_stands_and_each_time_of_what_moves() {
        let ground = Solid::new(Form::Plane, [1.0, 1.0, 0.0], [0.5, 0.5, 0.5, 1.0]);
        let turned = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let ball = |x: f32| Solid::new(Form::Ellipsoid, [0.02; 3], [1.0, 0.0, 0.0, 1.0]).at([x, 0.0, 0.123_46], turned);
        let scene = |x| Scene::new(vec![ground, ball(x)], [0.0, 0.0, 0.1], 0.5, [90.0, -30.0]);
        let json = scenes_json(&[scene(0.0), scene(0.25)]);
        assert_eq!(json["moving"], json!([1]));
        let at = |x: f64| json!([x, 0.0, 0.1235, 0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(json["places"], json!([[at(0.0)], [at(0.25)]]));
        assert_eq!(
            json["solids"][0],
            json!([
                "plane",
                [1.0, 1.0, 0.0],
                [0.5, 0.5, 0.5, 1.0],
                [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            ])
        );
        assert_eq!((&json["azimuth"], &json["elevation"]), (&json!(90.0), &json!(-30.0)));
        let mut run = runs::tests::run(&[]);
        run.folder.experiment.task = "a task of another program".into();
        let html = played(&run, &walk(), &Drawn::Scenes(json, 2), "an episode", 0);
        assert!(
            html.contains(r#"<canvas class="scene""#) && html.contains("Shown at 2 moments; drag to turn it."),
            "{html}"
        );
        assert!(html.contains(r#""moving":[1]"#), "{html}");
    }

    #[test]
    fn an_episode_without_a_sketch_is_played_as_lines() {
        let episodes = Episodes { env_step: 400, episodes: vec![episode(1, -2.5)] };
        let sketched = played_middle(&runs::tests::run(&[]), &episodes, 0);
        assert!(sketched.contains("<canvas") && sketched.contains(r#""frames":[[["disc""#), "{sketched}");
        let mut run = runs::tests::run(&[]);
        run.folder.experiment.task = "a task of another program".into();
        let plain = played_middle(&run, &episodes, 0);
        assert!(!plain.contains("<canvas") && !plain.contains("frames"), "{plain}");
        for line in ["obs[0]", "obs[2]", "action", "reward", r#""returns":[-2.5]"#] {
            assert!(plain.contains(line), "{line}: {plain}");
        }
    }
}
