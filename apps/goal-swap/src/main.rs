//! One model, learned without any reward, and goals that it was never told of.
//!
//! A two-link arm moves at random and a model of its motion is fitted, without any reward. Then the arm is given targets: three
//! episodes with one each, and a fourth in which the target changes halfway. Planning through the one model reaches them, because
//! the goal is not in the model. Run it with `cargo run --release -p mbrl-goal-swap`; it takes about a minute and leaves
//! `goal-swap.svg` with the paths of the tip.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Parser;
use mbrl_env::{
    Env, Replay, Rng, Situation, TimeLimit, collect_with,
    tasks::{Reacher, ReacherReward},
};
use mbrl_model::{Angles, Dataset, Ensemble, EnsembleConfig, FitConfig, MemberRule, Propagation, fit};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{ActMode, Agent, Goal, MpcAgent};
use plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style};

/// Number of random episodes from which the model is learned, and the steps of each episode.
const RANDOM_EPISODES: u64 = 40;
const STEPS: usize = 50;
/// A goal is reached if the tip is nearer than this at its end (m); the tip of a random arm is some 0.2 away.
const NEAR: f32 = 0.02;
/// Targets (m) of three episodes.
const GOALS: [[f32; 2]; 3] = [[0.12, 0.12], [-0.15, 0.05], [0.0, -0.17]];

#[derive(Debug, Parser)]
#[command(about = "Draws one learned model reaching goals that it was never told of")]
struct Args {
    /// Number of seeds, each with its own data and model.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The picture, of the first seed.
    #[arg(long, default_value = "goal-swap.svg")]
    out: PathBuf,
}

/// A model of the arm, from random motion alone.
fn learn(seed: u64) -> Result<Ensemble> {
    let arm = TimeLimit::new(Reacher::new(), STEPS as u32)?;
    let (obs, actions) = (arm.spec().obs.width(), arm.spec().actions.width());
    // Torques that change slowly: white noise averages out and the arm hardly moves.
    let episodes = collect_with(&arm, (0..RANDOM_EPISODES).map(|i| seed * RANDOM_EPISODES + i), || {
        let mut torque = [0.0; 2];
        move |_: &[f32], rng: &mut Rng| {
            torque = torque.map(|u| (0.9 * u + 0.4 * rng.normal()).clamp(-1.0, 1.0));
            torque.to_vec()
        }
    })?;
    let mut replay = Replay::new(obs, actions, RANDOM_EPISODES as usize * STEPS)?;
    episodes.iter().try_for_each(|episode| replay.push_episode(episode))?;

    let mut rng = Rng::new(seed);
    let config = EnsembleConfig {
        hidden: vec![100, 100],
        angles: Angles::radians([0, 1]),
        normalize_targets: true,
        ..Default::default()
    };
    let mut model = config.init(obs, actions, &Device::flex(), &mut rng)?;
    let config = FitConfig { batch_size: 64, max_epochs: 60, ..FitConfig::default() };
    fit(&mut model, &Dataset::of_replay(&replay, 0)?, &config, &mut rng)?;
    Ok(model)
}

/// Where the tip went, and how far from each target it ended.
struct Episode {
    targets: Vec<[f32; 2]>,
    path: Vec<[f32; 2]>,
    misses: Vec<f32>,
}

/// Gives the arm targets one after the other, each for an equal part of an episode. The model stays as it is.
fn reach(model: &Ensemble, targets: &[[f32; 2]], seed: u64) -> Result<Episode> {
    let mut arm = Reacher::new();
    let actions = arm.spec().actions.clone();
    let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 5 };
    let planner = CemConfig { horizon: 12, population: 100, elites: 10, iterations: 4, ..CemConfig::default() };
    let mpc = Mpc::new(Box::new(planner.init(&actions, propagation)?), Replan::EveryStep)?;
    let goal = |target: [f32; 2]| Goal::new(Arc::new(ReacherReward::to(target)));
    let mut agent = MpcAgent::new(model.clone(), goal(targets[0]), actions, mpc);

    let mut rng = Rng::new(seed);
    let mut obs = arm.reset(Some(seed))?;
    let mut path = vec![Reacher::tip(&obs)];
    let mut misses = Vec::new();
    for target in targets {
        *agent.goal_mut() = goal(*target);
        for _ in 0..STEPS / targets.len() {
            let action = agent.act(&Situation::of(&obs), ActMode::Evaluate, &mut rng)?;
            obs = arm.step(&action)?.obs;
            path.push(Reacher::tip(&obs));
        }
        let [x, y] = Reacher::tip(&obs);
        misses.push((x - target[0]).hypot(y - target[1]));
    }
    Ok(Episode { targets: targets.to_vec(), path, misses })
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut missed = Vec::new();
    for seed in 0..args.seeds {
        let model = learn(seed)?;
        let mut episodes = Vec::new();
        for targets in [&GOALS[..1], &GOALS[1..2], &GOALS[2..], &GOALS[..2]] {
            episodes.push(reach(&model, targets, 1000 + seed)?);
        }
        let misses: Vec<f32> = episodes.iter().flat_map(|e| e.misses.iter().copied()).collect();
        let millimetres: Vec<String> = misses.iter().map(|m| format!("{:.0}", 1000.0 * m)).collect();
        println!("seed {seed}: tip from target (mm) {}", millimetres.join(" "));
        missed.extend(misses);
        if seed == 0 {
            fs::write(&args.out, picture(&episodes).svg()).with_context(|| args.out.display().to_string())?;
        }
    }
    let reached = missed.iter().filter(|m| **m < NEAR).count();
    println!("{reached} of {} goals reached, within {:.0} mm", missed.len(), 1000.0 * NEAR);
    println!("picture: {}", args.out.display());
    Ok(())
}

/// The path of the tip to each target, from its start or from the target before.
fn paths(episode: &Episode) -> Vec<Points> {
    let share = episode.path.len() / episode.targets.len();
    (0..episode.targets.len())
        .map(|i| {
            let end = if i + 1 == episode.targets.len() { episode.path.len() } else { (i + 1) * share + 1 };
            episode.path[i * share..end].iter().map(|p| (f64::from(p[0]), f64::from(p[1]))).collect()
        })
        .collect()
}

fn picture(episodes: &[Episode]) -> Picture {
    let chart = |episode: &Episode| {
        let mut chart = Chart::new(Size::Panel(330.0), "the tip's path to its goals", "x (m)", "y (m)");
        chart.x_range = Some((-0.23, 0.23));
        chart.y_range = Some((-0.23, 0.23));
        for (i, (target, path)) in episode.targets.iter().zip(paths(episode)).enumerate() {
            chart.marks.push(Mark::Line(Colour::Series(i), Style::Thick, path.clone()));
            chart.marks.push(Mark::Dots(Colour::Series(i), path));
            chart.marks.push(Mark::Rings(Colour::Series(i), vec![(f64::from(target[0]), f64::from(target[1]))]));
        }
        let start = episode.path[0];
        chart.marks.push(Mark::Crosses(Colour::Ink, vec![(f64::from(start[0]), f64::from(start[1]))]));
        let heading = if episode.targets.len() > 1 { "the goal changes half way" } else { "one goal" };
        (heading.to_owned(), chart)
    };
    let legend = [
        (Key::Cross, Colour::Ink, "start of the tip"),
        (Key::Line, Colour::Series(0), "its path, a dot per step"),
        (Key::Ring, Colour::Series(0), "goal"),
        (Key::Line, Colour::Series(1), "path to the second goal"),
        (Key::Ring, Colour::Series(1), "second goal"),
    ];
    Picture {
        title: "One learned model, goals that it was never told of".to_owned(),
        legend: legend.map(|(key, colour, word)| (key, colour, word.to_owned())).to_vec(),
        columns: 2,
        charts: episodes.iter().map(chart).collect(),
        caption: format!(
            "Tip of a two-link arm, seen from above; {STEPS} steps per episode. The model was learned from random motion \
             without any reward and is the same in all four; only the planner's goal differs."
        ),
    }
}
