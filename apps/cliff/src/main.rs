//! The lecture's cliff: how planning on a learned model fails, and two remedies.
//!
//! A walker climbs a hill to the right; past its edge it falls. Nobody tells it where that is: motion, height and end are all
//! learned. Data of a random walk near the start says "right is higher", and a plan on that model goes right, over the edge.
//! First remedy: append what was seen, refit, plan again. Second remedy: replan at every step. Run it with
//! `cargo run --release -p mbrl-cliff`; it takes some minutes and leaves `cliff.svg`, with the walkers of every seed.

use std::{path::PathBuf, sync::atomic::AtomicBool};

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use clap::Parser;
use mbrl_env::{Env, Transition, tasks};
use mbrl_model::{EnsembleConfig, FitConfig, Head, MemberRule, Propagation};
use mbrl_plan::{Aggregate, CemConfig, Mpc, Replan};
use mbrl_policy::{Goal, ModelBased, ModelBasedConfig, TrainConfig, evaluate, start_seeds};
use plotters::prelude::*;
use rayon::prelude::*;

/// Steps of the random walk, and of what is added to it in the episodes that are planned.
const RANDOM_STEPS: u64 = 300;
const PLANNED_STEPS: u64 = 600;
/// Episodes by which each stage is judged, a seed.
const EPISODES: usize = 5;

#[derive(Debug, Parser)]
#[command(about = "Draws how planning on a learned model falls off a cliff, and what helps")]
struct Args {
    /// Seeds, each with a model and data of its own.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The picture.
    #[arg(long, default_value = "cliff.svg")]
    out: PathBuf,
}

/// Positions over the steps of one episode, and whether it ended below the cliff.
type Walk = (Vec<f32>, bool);

/// An agent that knows nothing yet.
fn agent(seed: u64, replan: Replan) -> Result<(tasks::Task, mbrl_policy::Training, ModelBased)> {
    let task = tasks::make("cliff")?;
    let spec = task.env.spec();
    let mut training = TrainConfig::default().init(RANDOM_STEPS, seed)?;
    let model = EnsembleConfig {
        hidden: vec![32, 32],
        head: Head::Deterministic,
        normalize_targets: true,
        reward: true,
        termination: true,
        ..EnsembleConfig::default()
    };
    let model = model.init(spec.obs.width(), spec.actions.width(), &Device::flex(), &mut training.split_rng())?;
    let fit = FitConfig { batch_size: 64, max_epochs: 20, holdout: 0.0, ..FitConfig::default() };
    let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: 5 };
    let planner = CemConfig {
        horizon: 20,
        population: 100,
        elites: 10,
        initial_std: 1.0,
        constrain_variance: false,
        ..CemConfig::default()
    };
    // A fall that one member of five foresees counts: the worst of them decides.
    let planner = planner.init(&spec.actions, propagation)?.with_aggregate(Aggregate::Worst);
    let mpc = Mpc::new(Box::new(planner), replan)?;
    // Neither reward nor end are given: the model's own count.
    let config = ModelBasedConfig { random_steps: RANDOM_STEPS, ..ModelBasedConfig::default() };
    let agent = config.init(spec, model, fit, Goal::of_model(), mpc)?;
    Ok((task, training, agent))
}

/// Walks before and after the agent has learned from its own plans.
fn walks(seed: u64, replan: Replan) -> Result<[Vec<Walk>; 2]> {
    let (mut task, mut training, mut agent) = agent(seed, replan)?;
    let never = AtomicBool::new(false);
    training.run(&mut task.env, &mut agent, None, &mut (), &never)?;
    let before = judge(&mut task, &mut agent, seed)?;
    let mut training = TrainConfig::default().init(PLANNED_STEPS, seed + 1000)?;
    training.run(&mut task.env, &mut agent, None, &mut (), &never)?;
    Ok([before, judge(&mut task, &mut agent, seed)?])
}

fn judge(task: &mut tasks::Task, agent: &mut ModelBased, seed: u64) -> Result<Vec<Walk>> {
    let evaluation = evaluate(&mut task.env, agent, &start_seeds(seed, EPISODES))?;
    let walk = |transitions: &[Transition]| {
        let positions = transitions.iter().take(1).map(|t| t.obs[0]).chain(transitions.iter().map(|t| t.next_obs[0]));
        positions.collect()
    };
    Ok(evaluation.episodes.iter().map(|e| (walk(&e.transitions), e.summary.terminated)).collect())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let both: Vec<[[Vec<Walk>; 2]; 2]> = (0..args.seeds)
        .into_par_iter()
        .map(|seed| Ok([walks(seed, Replan::OpenLoop)?, walks(seed, Replan::EveryStep)?]))
        .collect::<Result<_>>()?;
    let stage =
        |replan: usize, when: usize| -> Vec<Walk> { both.iter().flat_map(|b| b[replan][when].clone()).collect() };
    let stages = [
        ("random data, open loop", stage(0, 0)),
        ("iterated, open loop", stage(0, 1)),
        ("random data, replanned", stage(1, 0)),
        ("iterated, replanned", stage(1, 1)),
    ];
    println!("{} seeds, {EPISODES} episodes each", args.seeds);
    for (name, walks) in &stages {
        let falls = walks.iter().filter(|w| w.1).count();
        // Never to fall is easy for one who stays where he is.
        let ends: f32 = walks.iter().filter_map(|w| w.0.last()).sum();
        let episodes = walks.len() as f32;
        println!(
            "{name:<24} falls in {:>5.1} % of episodes, ends at {:.2} m on average",
            100.0 * falls as f32 / episodes,
            ends / episodes
        );
    }
    draw(&args.out, &stages).map_err(|error| anyhow!("{}: {error}", args.out.display()))?;
    println!("picture: {}", args.out.display());
    Ok(())
}

fn draw(path: &PathBuf, stages: &[(&str, Vec<Walk>); 4]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (1200, 340)).into_drawing_area();
    area.fill(&WHITE)?;
    let all = || stages.iter().flat_map(|(_, walks)| walks.iter().flat_map(|w| w.0.iter().copied()));
    let (low, high) = all().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    let steps = stages.iter().flat_map(|(_, walks)| walks.iter().map(|w| w.0.len())).max().unwrap_or(1);
    for (panel, (name, walks)) in area.split_evenly((1, 4)).iter().zip(stages) {
        let mut chart = ChartBuilder::on(panel)
            .caption(name, ("sans-serif", 17))
            .margin(8)
            .x_label_area_size(35)
            .y_label_area_size(40)
            .build_cartesian_2d(0f32..steps as f32, low..high + 0.1)?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc("position (m)")
            .x_label_formatter(&|t| format!("{t:.0}"))
            .x_labels(5)
            .max_light_lines(0)
            .draw()?;
        let edge = tasks::CliffConfig::default().edge as f32;
        chart.draw_series([Rectangle::new([(0.0, edge), (steps as f32, high + 0.1)], RED.mix(0.08).filled())])?;
        for (walk, fell) in walks {
            let colour = if *fell { RED.mix(0.5) } else { BLUE.mix(0.5) };
            let points: Vec<(f32, f32)> = walk.iter().enumerate().map(|(t, x)| (t as f32, *x)).collect();
            let end = points.last().copied().unwrap_or_default();
            chart.draw_series(LineSeries::new(points, colour.stroke_width(1)))?;
            if *fell {
                chart.draw_series([Circle::new(end, 3, RED.filled())])?;
            }
        }
    }
    area.present()?;
    Ok(())
}
