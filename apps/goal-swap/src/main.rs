//! One model, learned without any reward, and goals that it was never told of.
//!
//! A two-link arm moves at random and a model of how it moves is fitted: nobody says what is good. Then the arm is given targets: three
//! episodes with one each, and a fourth in which the target changes half way. Planning through the one model reaches them, because
//! the goal is not in the model. Run it with `cargo run --release -p mbrl-goal-swap`; it takes about a minute and leaves
//! `goal-swap.svg` with the paths of the tip.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use clap::Parser;
use mbrl_env::{
    Env, Replay, Rng, Situation, TimeLimit, collect_with,
    tasks::{Reacher, ReacherReward},
};
use mbrl_model::{Angles, Dataset, Ensemble, EnsembleConfig, FitConfig, MemberRule, Propagation, fit};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{ActMode, Agent, Goal, MpcAgent};
use plotters::prelude::*;

/// Random episodes that the model is learned from, and the steps of each episode.
const RANDOM_EPISODES: u64 = 40;
const STEPS: usize = 50;
/// A goal is reached where the tip is nearer than this at its end (m); a random arm's tip is some 0.2 away.
const NEAR: f32 = 0.02;
/// Targets (m) of three episodes.
const GOALS: [[f32; 2]; 3] = [[0.12, 0.12], [-0.15, 0.05], [0.0, -0.17]];

#[derive(Debug, Parser)]
#[command(about = "Draws one learned model reaching goals that it was never told of")]
struct Args {
    /// Seeds, each with data and a model of its own.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The picture, of the first seed.
    #[arg(long, default_value = "goal-swap.svg")]
    out: PathBuf,
}

/// A model of the arm, of random motion alone.
fn learn(seed: u64) -> Result<Ensemble> {
    let arm = TimeLimit::new(Reacher::new(), STEPS as u32)?;
    let (obs, actions) = (arm.spec().obs.width(), arm.spec().actions.width());
    // Torques that change slowly: white ones cancel out and the arm hardly moves.
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
            draw(&args.out, &episodes).map_err(|error| anyhow!("{}: {error}", args.out.display()))?;
        }
    }
    let reached = missed.iter().filter(|m| **m < NEAR).count();
    println!("{reached} of {} goals reached, within {:.0} mm", missed.len(), 1000.0 * NEAR);
    println!("picture: {}", args.out.display());
    Ok(())
}

fn draw(path: &PathBuf, episodes: &[Episode]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (1200, 330)).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, episode) in area.split_evenly((1, 4)).iter().zip(episodes) {
        let title = if episode.targets.len() > 1 { "the goal changes half way" } else { "one goal" };
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 17))
            .margin(8)
            .x_label_area_size(30)
            .y_label_area_size(45)
            .build_cartesian_2d(-0.23f32..0.23, -0.23f32..0.23)?;
        chart.configure_mesh().x_desc("x (m)").y_desc("y (m)").max_light_lines(0).x_labels(5).y_labels(5).draw()?;
        let share = episode.path.len() / episode.targets.len();
        for (i, target) in episode.targets.iter().enumerate() {
            let colour = Palette99::pick(i + 1).to_rgba();
            let end = if i + 1 == episode.targets.len() { episode.path.len() } else { (i + 1) * share + 1 };
            let part = episode.path[i * share..end].iter().map(|p| (p[0], p[1]));
            chart.draw_series(LineSeries::new(part.clone(), colour.stroke_width(2)))?;
            chart.draw_series(part.map(|p| Circle::new(p, 2, colour.filled())))?;
            chart.draw_series([Circle::new((target[0], target[1]), 9, colour.stroke_width(2))])?;
        }
        chart.draw_series([Cross::new((episode.path[0][0], episode.path[0][1]), 5, BLACK)])?;
    }
    area.present()?;
    Ok(())
}
