//! A model learned without reward, by going where it is uncertain; then goals that it was never told of.
//!
//! An arm and a point mass explore: once where the members of their model disagree, once at random, without reward or goal. Then each gets
//! three goals, with no further real step: the planner plans to them in the model, and a policy for each is learned from what the model imagines
//! from the data. Run it with `cargo run --release -p mbrl-explore`; it leaves `explore.svg` with the places that were explored.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

use std::{fs, path::PathBuf, sync::Arc, sync::atomic::AtomicBool};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Parser;
use mbrl_env::{
    Env, Replay, Rng, Situation, Tensor, reward_fn,
    tasks::{self, Reacher, ReacherReward},
};
use mbrl_model::{Dataset, Ensemble, FitConfig, MemberRule, Propagation, fit};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{
    ActMode, ActorConfig, Agent, CriticsConfig, Goal, Imagining, MbpoConfig, MpcAgent, Reduction, Report, ReportKind,
    RolloutConfig, SacConfig,
    experiment::{Experiment, Registry},
};
use plot::{Chart, Colour, Key, Mark, Picture, Size};

/// Number of start states for each goal.
const EPISODES: u64 = 10;

#[derive(Debug, Parser)]
#[command(about = "Explores without reward, then reaches goals that nobody told the model of")]
struct Args {
    /// Number of seeds, each with its own data, model and policies.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Real steps of each exploration (default: the experiment's, 2,000 for the arm and 3,000 for the point mass).
    #[arg(long)]
    steps: Option<u64>,
    /// Number of updates of each policy.
    #[arg(long, default_value_t = 3000)]
    updates: u64,
    /// Passes over the data in the fit with which the goals are reached (earlier fits use the experiment's number, 40).
    #[arg(long, default_value_t = 200)]
    epochs: usize,
    /// Only this world: reacher or point-mass.
    #[arg(long)]
    world: Option<String>,
    /// The picture, of the first seed.
    #[arg(long, default_value = "explore.svg")]
    out: PathBuf,
}

/// A world to explore, and the goals set afterwards.
struct Place {
    task: &'static str,
    text: &'static str,
    goals: [[f32; 2]; 3],
    /// A goal is reached if an episode ends nearer than this (m).
    near: f32,
    /// The position.
    at: fn(&[f32]) -> [f32; 2],
    goal: fn([f32; 2]) -> Goal,
    size: f64,
}

const PLACES: [Place; 2] = [
    Place {
        task: "reacher",
        text: include_str!("../../mbrl/experiments/explore-reacher.toml"),
        goals: [[0.12, 0.12], [-0.15, 0.05], [0.0, -0.17]],
        near: 0.02,
        at: Reacher::tip,
        goal: |target| Goal::new(Arc::new(ReacherReward::to(target))),
        size: 0.23,
    },
    Place {
        task: "point-mass",
        text: include_str!("../../mbrl/experiments/explore-point-mass.toml"),
        goals: [[0.7, 0.7], [0.7, -0.6], [-0.7, 0.7]],
        near: 0.1,
        at: |obs| [obs[0], obs[1]],
        goal: |target| {
            Goal::new(Arc::new(reward_fn(move |_, _, next: Tensor<2>| {
                let off = |i: usize| next.clone().narrow(1, i, 1) - target[i];
                -(off(0).square() + off(1).square() + 1e-12).sqrt().squeeze_dim::<1>(1)
            })))
        },
        size: 1.05,
    },
];

/// The data of an exploration: where members disagree, or at random all the time.
fn explore(experiment: &Experiment, registry: &Registry) -> Result<Replay> {
    let mut parts = experiment.build_on(registry, &Device::flex())?;
    parts.training.run(&mut parts.task.env, &mut *parts.agent, None, &mut (), &AtomicBool::new(false))?;
    Ok(parts.agent.learned().context("an agent that learns a model")?.replay.clone())
}

struct Silent;

impl Report for Silent {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

/// The results for the three goals: how many episodes ended there, and at what distance (m, medians).
#[derive(Debug, Default)]
struct Found {
    reached: [u64; 3],
    distance: [f32; 3],
}

/// Distances from the goal at which episodes from fixed starts end (m), the smallest first.
fn distances(place: &Place, target: [f32; 2], agent: &mut dyn Agent) -> Result<Vec<f32>> {
    let mut task = tasks::make(place.task)?;
    let mut all = Vec::new();
    for seed in 1000..1000 + EPISODES {
        let mut rng = Rng::new(seed);
        let mut obs = task.env.reset(Some(seed))?;
        agent.begin_episode();
        loop {
            let action = agent.act(&Situation::of(&obs), ActMode::Evaluate, &mut rng)?;
            let step = task.env.step(&action)?;
            obs.clone_from(&step.obs);
            if step.episode_over() {
                break;
            }
        }
        let [x, y] = (place.at)(&obs);
        all.push((x - target[0]).hypot(y - target[1]));
    }
    all.sort_by(f32::total_cmp);
    Ok(all)
}

/// For each goal, episodes that were planned to it, and episodes of a policy for it; both with this one model.
fn goals(place: &Place, experiment: &Experiment, data: &Replay, args: &Args, seed: u64) -> Result<[Found; 2]> {
    let task = tasks::make(place.task)?;
    let spec = task.env.spec();
    let sections = experiment.agent.model_based().context("an agent that learns a model")?;
    let mut rng = Rng::new(seed);
    let mut model: Ensemble = sections.model.init_for_task(spec, &task.knowledge, &Device::flex(), &mut rng)?;
    let config = FitConfig { max_epochs: args.epochs, ..sections.fit.clone() };
    fit(&mut model, &Dataset::of_replay(data, 0)?, &config, &mut rng)?;
    let mut found = [Found::default(), Found::default()];
    let note = |found: &mut Found, i: usize, distances: &[f32]| {
        found.reached[i] = distances.iter().filter(|distance| **distance < place.near).count() as u64;
        found.distance[i] = distances[distances.len() / 2];
    };
    for (i, target) in place.goals.into_iter().enumerate() {
        let planner = CemConfig {
            horizon: sections.planner.horizon(),
            population: 100,
            elites: 10,
            iterations: 4,
            ..CemConfig::default()
        };
        let planner = planner.init(&spec.actions, sections.propagation)?;
        let mpc = Mpc::new(Box::new(planner), Replan::EveryStep)?;
        let mut planned = MpcAgent::new(&model, (place.goal)(target), spec.actions.clone(), mpc);
        note(&mut found[0], i, &distances(place, target, &mut planned)?);

        let policy = ActorConfig { hidden: vec![128, 128], learning_rate: 1e-3, ..ActorConfig::default() };
        let critics = CriticsConfig {
            hidden: vec![128, 128],
            layer_norm: true,
            scaled: true,
            actor: Reduction::Mean,
            learning_rate: 1e-3,
            ..CriticsConfig::default()
        };
        let sac = SacConfig { initial_temperature: 0.1, ..SacConfig::default() };
        let policy = sac.init(spec, &policy, &critics, &mut rng)?;
        let propagation = Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 };
        let imagining = Imagining { goal: (place.goal)(target), rollout: RolloutConfig::default(), propagation };
        let learner = MbpoConfig::default().init(spec, model.clone(), sections.fit.clone(), imagining, policy)?;
        let mut learner = learner.with_data(data.clone())?;
        learner.practise(args.updates, &mut rng, &mut Silent)?;
        note(&mut found[1], i, &distances(place, target, &mut learner)?);
    }
    Ok(found)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut charts = Vec::new();
    for place in PLACES.iter().filter(|place| args.world.as_deref().is_none_or(|world| world == place.task)) {
        let registry = Registry::new().tasks(tasks::entries()).experiments(&[(place.task, place.text)]);
        for seed in args.seed..args.seed + args.seeds {
            let mut curious = registry.load(place.task, &[&format!("seed={seed}")])?;
            curious.steps = args.steps.unwrap_or(curious.steps);
            let all_random = format!("agent.random_steps={}", curious.steps + 1);
            let random = curious.overridden(&[&all_random])?;
            // The second word is short enough for a panel's heading.
            for (how, short, experiment) in
                [("where members disagree", "curious", curious), ("at random", "at random", random)]
            {
                let data = explore(&experiment, &registry)?;
                let [planned, policies] = goals(place, &experiment, &data, &args, seed)?;
                println!(
                    "{} seed {seed}, explored {how}: planned {:?}, by policies {:?} of {EPISODES} episodes each",
                    place.task, planned.reached, policies.reached
                );
                println!(
                    "  median distance from the goals at the end (m): planned {:.3?}, by policies {:.3?}",
                    planned.distance, policies.distance
                );
                if seed == args.seed {
                    charts.push((format!("{}, {short}", place.task), chart(place, &data)));
                }
            }
        }
    }
    let legend = [(Key::Dot, Colour::Series(0), "explored"), (Key::Ring, Colour::Series(1), "goals, told afterwards")];
    let picture = Picture {
        title: "A model learned without reward".to_owned(),
        legend: legend.map(|(key, colour, word)| (key, colour, word.to_owned())).to_vec(),
        columns: 2,
        charts,
        caption: "Places in the data of an exploration without any reward. A model of these data then serves all goals, with no further real \
                  step."
            .to_owned(),
    };
    fs::write(&args.out, picture.svg()).with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

/// The places that were explored, and the goals.
fn chart(place: &Place, data: &Replay) -> Chart {
    let mut chart = Chart::new(Size::Panel(330.0), "places that were explored", "x (m)", "y (m)");
    chart.x_range = Some((-place.size, place.size));
    chart.y_range = Some((-place.size, place.size));
    let columns = data.columns();
    let point = |[x, y]: [f32; 2]| (f64::from(x), f64::from(y));
    let places = columns.next_obs.chunks(columns.obs_width).map(|obs| point((place.at)(obs))).collect();
    chart.marks.push(Mark::Dots(Colour::Series(0), places));
    chart.marks.push(Mark::Rings(Colour::Series(1), place.goals.map(point).to_vec()));
    chart
}
