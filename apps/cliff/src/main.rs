//! The lecture's cliff: how planning on a learned model fails, and two remedies.
//!
//! A walker climbs a hill to the right; past its edge it falls. Nothing tells it where the edge is: motion, height and termination
//! are all learned. Data from a random walk near the start says "right is higher", and a plan with that model goes right, over the edge,
//! replanned or not: planning cannot find what the model has never seen. First remedy: append the new data, refit, plan again.
//!
//! Then the world changes: the walker has become lighter than it was when it learned, and each step carries it further than
//! its model predicts. A plan that is executed open loop goes over the edge. Second remedy: replan at every step, from where the
//! last one really led. Run it with `cargo run --release -p mbrl-cliff`; it takes some minutes and leaves `cliff.svg`.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

use std::{fs, path::PathBuf, sync::atomic::AtomicBool};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use mbrl_env::{Env, TimeLimit, Transition, World, tasks};
use mbrl_model::{Draw, Dynamics, EnsembleConfig, FitConfig, Head, MemberRule, Propagation, Start};
use mbrl_plan::{Aggregate, CemConfig, Mpc, Replan};
use mbrl_policy::{Goal, ModelBased, ModelBasedConfig, TrainConfig, evaluate, start_seeds};
use plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style};
use rayon::prelude::*;

/// Steps of the random walk, and steps added to it in the planned episodes.
const RANDOM_STEPS: u64 = 300;
const PLANNED_STEPS: u64 = 600;
/// Number of episodes per seed by which each stage is judged, and the steps of each.
const EPISODES: usize = 5;
const STEPS: u32 = 40;
/// Planning horizon in steps, and members of the model.
const HORIZON: usize = 20;
const MEMBERS: usize = 5;
/// Step length of the lighter walker (m); the model has learned 0.1.
const LIGHTER: f64 = 0.2;

#[derive(Debug, Parser)]
#[command(about = "Draws how planning on a learned model falls off a cliff, and what helps")]
struct Args {
    /// Number of seeds, each with its own model and data.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The picture.
    #[arg(long, default_value = "cliff.svg")]
    out: PathBuf,
}

/// One episode.
#[derive(Debug, Clone)]
struct Walk {
    /// Positions after 0, 1, 2, … steps (m).
    positions: Vec<f32>,
    actions: Vec<f32>,
    /// Whether it ended below the cliff.
    fell: bool,
}

/// The predictions of a model.
#[derive(Debug, Clone)]
struct Belief {
    /// The height that each member predicts at a position.
    heights: Vec<Points>,
    /// The predicted position and height along a plan, step by step.
    plan: Points,
    /// Positions from which the model has learned.
    data: Vec<f32>,
}

/// The stages of one agent: with random data, with data from its own plans, and lighter than it knows.
struct Lives {
    walks: [Vec<Walk>; 3],
    beliefs: [Belief; 2],
}

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
        members: MEMBERS,
        ..EnsembleConfig::default()
    };
    let model = model.init(spec.obs.width(), spec.actions.width(), &Device::flex(), &mut training.split_rng())?;
    let fit = FitConfig { batch_size: 64, max_epochs: 20, holdout: 0.0, ..FitConfig::default() };
    let propagation = Propagation { rule: MemberRule::TsInf, noise: false, particles: MEMBERS };
    let planner = CemConfig {
        horizon: HORIZON,
        population: 100,
        elites: 10,
        initial_std: 1.0,
        constrain_variance: false,
        ..CemConfig::default()
    };
    // A fall that one of five members predicts counts: the worst of them decides.
    let planner = planner.init(&spec.actions, propagation)?.with_aggregate(Aggregate::Worst);
    let mpc = Mpc::new(Box::new(planner), replan)?;
    // Neither reward nor termination is given: the model's own count.
    let config = ModelBasedConfig { random_steps: RANDOM_STEPS, ..ModelBasedConfig::default() };
    let agent = config.init(spec, model, fit, Goal::of_model(), mpc)?;
    Ok((task, training, agent))
}

fn live(seed: u64, replan: Replan) -> Result<Lives> {
    let (mut task, mut training, mut agent) = agent(seed, replan)?;
    let never = AtomicBool::new(false);
    training.run(&mut task.env, &mut agent, None, &mut (), &never)?;
    let random = judge(&mut task.env, &mut agent, seed)?;
    let believed = belief(&agent, &random[0])?;
    let mut training = TrainConfig::default().init(PLANNED_STEPS, seed + 1000)?;
    training.run(&mut task.env, &mut agent, None, &mut (), &never)?;
    let iterated = judge(&mut task.env, &mut agent, seed)?;
    let beliefs = [believed, belief(&agent, &iterated[0])?];
    let lighter = tasks::CliffConfig { step_length: LIGHTER, ..tasks::CliffConfig::default() };
    let mut lighter = World::Simulator(Box::new(TimeLimit::new(lighter.init()?, STEPS)?));
    let lighter = judge(&mut lighter, &mut agent, seed)?;
    Ok(Lives { walks: [random, iterated, lighter], beliefs })
}

/// Nothing is learned here.
fn judge(world: &mut World, agent: &mut ModelBased, seed: u64) -> Result<Vec<Walk>> {
    let evaluation = evaluate(world, agent, &start_seeds(seed, EPISODES))?;
    let walk = |transitions: &[Transition], fell| {
        let positions = transitions.iter().take(1).map(|t| t.obs[0]).chain(transitions.iter().map(|t| t.next_obs[0]));
        Walk { positions: positions.collect(), actions: transitions.iter().map(|t| t.action[0]).collect(), fell }
    };
    Ok(evaluation.episodes.iter().map(|e| walk(&e.transitions, e.summary.terminated)).collect())
}

/// The model's predictions for every position, and for the plan with which a walk began.
fn belief(agent: &ModelBased, walk: &Walk) -> Result<Belief> {
    let model = agent.model();
    let device = &model.spec().device;
    // One member per particle.
    let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: MEMBERS }, 0);
    let config = tasks::CliffConfig::default();

    // One step to the right from each position shows the prediction one step further on.
    let count = 130;
    let at = |i: usize| config.wall + (config.edge + 0.3 - config.wall) * i as f64 / (count - 1) as f64;
    let from: Vec<f32> = (0..count).map(|i| (at(i) - config.step_length) as f32).collect();
    let from = Tensor::<1>::from_floats(&from[..], device).reshape([count, 1]);
    let imagined = model.rollout(Start::States(from), Tensor::ones([1, count, 1], device), draw)?;
    let expected = floats(imagined.reward.context("the model learns the reward")?.reshape([MEMBERS * count]))?;
    let heights = expected
        .chunks(count)
        .map(|member| member.iter().enumerate().map(|(i, height)| (at(i), f64::from(*height))).collect())
        .collect();

    let steps = walk.actions.len().min(HORIZON);
    let actions = Tensor::<1>::from_floats(&walk.actions[..steps], device).reshape([steps, 1, 1]);
    let start = Tensor::<1>::from_floats(&walk.positions[..1], device).reshape([1, 1]);
    let imagined = model.rollout(Start::States(start), actions, draw)?;
    let positions = floats(imagined.obs.reshape([(steps + 1) * MEMBERS]))?;
    let rewards = floats(imagined.reward.context("the model learns the reward")?.reshape([steps * MEMBERS]))?;
    let mean = |values: &[f32]| f64::from(values.iter().sum::<f32>()) / MEMBERS as f64;
    let plan =
        positions.chunks(MEMBERS).skip(1).zip(rewards.chunks(MEMBERS)).map(|(x, h)| (mean(x), mean(h))).collect();

    let replay = agent.replay();
    let data = (0..replay.len()).filter_map(|i| replay.get(i)).map(|t| t.obs[0]).collect();
    Ok(Belief { heights, plan, data })
}

fn floats(tensor: Tensor<1>) -> Result<Vec<f32>> {
    tensor.into_data().try_into_vec().context("a tensor of floats")
}

/// The results of one stage, over all seeds and episodes.
struct Stage {
    name: &'static str,
    walks: Vec<Walk>,
}

impl Stage {
    /// The share of episodes that fall (%).
    fn falls(&self) -> f64 {
        100.0 * self.walks.iter().filter(|walk| walk.fell).count() as f64 / self.walks.len() as f64
    }

    /// Mean final position of episodes (m): a walker that stays where it is never falls.
    fn end(&self) -> f64 {
        self.walks.iter().filter_map(|walk| walk.positions.last()).map(|x| f64::from(*x)).sum::<f64>()
            / self.walks.len() as f64
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let both: Vec<[Lives; 2]> = (0..args.seeds)
        .into_par_iter()
        .map(|seed| Ok([live(seed, Replan::OpenLoop)?, live(seed, Replan::EveryStep)?]))
        .collect::<Result<_>>()?;
    let stages = [
        ("random data, open loop", 0, 0),
        ("random data, replanned", 1, 0),
        ("iterated, open loop", 0, 1),
        ("iterated, replanned", 1, 1),
        ("lighter, open loop", 0, 2),
        ("lighter, replanned", 1, 2),
    ]
    .map(|(name, replan, life)| Stage {
        name,
        walks: both.iter().flat_map(|lives| lives[replan].walks[life].clone()).collect(),
    });
    println!("{} seeds, {EPISODES} episodes each", args.seeds);
    for stage in &stages {
        let (name, falls, end) = (stage.name, stage.falls(), stage.end());
        println!("{name:<24} falls in {falls:>5.1} % of episodes, ends at {end:.2} m on average");
    }
    let first = both.first().context("--seeds: at least one")?;
    let picture = picture(&first[1].beliefs, &stages, args.seeds);
    fs::write(&args.out, picture.svg()).with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

const STAYS: Colour = Colour::Series(0);
const FALLS: Colour = Colour::Series(1);
const MODEL: Colour = Colour::Series(2);
const PLAN: Colour = Colour::Series(3);

fn picture(beliefs: &[Belief; 2], stages: &[Stage; 6], seeds: u64) -> Picture {
    let mut charts = vec![
        ("after 300 random steps".to_owned(), hill(&beliefs[0])),
        ("after 600 of its own".to_owned(), hill(&beliefs[1])),
    ];
    charts.extend(stages.iter().map(|stage| (stage.name.to_owned(), walked(stage))));
    let legend = [
        (Key::Line, Colour::Ink, "the hill, its edge at 2 m"),
        (Key::Thin, MODEL, "what the model's members believe"),
        (Key::Dot, PLAN, "where a plan expects to go"),
        (Key::Dot, Colour::Muted, "data"),
        (Key::Line, STAYS, "walk that stays up"),
        (Key::Line, FALLS, "walk that falls"),
        (Key::Band, FALLS, "past the edge"),
    ];
    let [random, replanned, iterated, both, blind, watched] = stages.each_ref().map(Stage::falls);
    let caption = format!(
        "Above: one seed's model, five networks that learned height, motion and end from the data below them. Below: the first \
         walk of each of {seeds} seeds. Falls, of all {} walks of a stage: on random data {random:.0} % (open loop: the plan is carried \
         out blindly) and {replanned:.0} % (replanned at every step), since no member has seen an edge; once the agent learned from its own \
         falls {iterated:.0} % and {both:.0} %. Then the walker is lighter than it learned, and each step leads {LIGHTER} m instead of 0.1 m: \
         {blind:.0} % and {watched:.0} %. The model is as wrong in both; replanning sees where the last step really led.",
        stages[0].walks.len(),
    );
    Picture {
        title: "Planning on a learned model, at a cliff".to_owned(),
        legend: legend.map(|(key, colour, word)| (key, colour, word.to_owned())).to_vec(),
        columns: 2,
        charts,
        caption,
    }
}

/// The true hill, and the hill as the model predicts it.
fn hill(belief: &Belief) -> Chart {
    let config = tasks::CliffConfig::default();
    let floor = config.slope * config.edge - config.drop;
    let mut chart =
        Chart::new(Size::Panel(210.0), "height over position, true and believed", "position (m)", "height (m)");
    chart.x_range = Some((config.wall, config.edge + 0.3));
    chart.y_range = Some((floor - 0.7, config.edge + 0.5));
    chart.marks.push(beyond(config.edge, config.edge + 0.3, (floor - 0.7, config.edge + 0.5)));
    let truth = vec![
        (config.wall, config.slope * config.wall),
        (config.edge, config.slope * config.edge),
        (config.edge, floor),
        (config.edge + 0.3, floor),
    ];
    chart.marks.push(Mark::Line(Colour::Ink, Style::Thick, truth));
    chart.marks.extend(belief.heights.iter().map(|member| Mark::Line(MODEL, Style::Thin, member.clone())));
    chart.marks.push(Mark::Dots(PLAN, belief.plan.clone()));
    // There are so many that each drawn one stands for a few.
    let every = belief.data.len().div_ceil(150).max(1);
    let data = belief.data.iter().step_by(every).map(|x| (f64::from(*x), floor - 0.45)).collect();
    chart.marks.push(Mark::Dots(Colour::Muted, data));
    chart
}

/// The first walk of each seed.
fn walked(stage: &Stage) -> Chart {
    let config = tasks::CliffConfig::default();
    let steps = f64::from(STEPS);
    let mut chart = Chart::new(Size::Panel(190.0), stage.name, "step", "position (m)");
    chart.x_range = Some((0.0, steps));
    chart.y_range = Some((-0.5, config.edge + 0.3));
    chart.marks.push(beyond(0.0, steps, (config.edge, config.edge + 0.3)));
    let mut ends = Points::new();
    for walk in stage.walks.iter().step_by(EPISODES) {
        let points: Points = walk.positions.iter().enumerate().map(|(t, x)| (t as f64, f64::from(*x))).collect();
        ends.extend(points.last().filter(|_| walk.fell));
        let colour = if walk.fell { FALLS } else { STAYS };
        chart.marks.push(Mark::Line(colour, Style::Thin, points));
    }
    chart.marks.push(Mark::Crosses(FALLS, ends));
    chart
}

/// Where there is no ground.
fn beyond(from: f64, to: f64, (low, high): (f64, f64)) -> Mark {
    Mark::Band(FALLS, vec![(from, low, high), (to, low, high)])
}
