//! The cost of looking ahead, and what can replace it: return against time per action.
//!
//! A policy, its critics and a model are learned on the cart-pole swing-up (`dhmbpo-cartpole-swingup`, some 1,200 real steps). Then iCEM plans
//! in the model over 3 to 25 steps, without a terminal value and with the critics' value at the end; a policy is distilled from the longest
//! plans; and the policy that was learned in the model acts by itself. Run it with `cargo run --release -p mbrl-horizon`; it takes some
//! minutes and leaves `horizon.svg`.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

use std::{
    fs,
    path::PathBuf,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use clap::Parser;
use mbrl_env::{Env, Rng, Situation, tasks};
use mbrl_model::{Ensemble, MemberRule, Propagation};
use mbrl_plan::{IcemConfig, Mpc, Replan};
use mbrl_policy::{
    ActMode, ActorConfig, Agent, DistilConfig, DistilRole, Goal, GuidedConfig, Imagining, MpcAgent, OffPolicy,
    TrainConfig,
    experiment::{AgentConfig, Registry},
    start_seeds,
};
use plot::{Chart, Colour, Key, Mark, Picture, Size, Style};

const TASK: &str = "cartpole-swingup";
/// Planning horizons in steps.
const HORIZONS: [usize; 5] = [3, 5, 10, 15, 25];

#[derive(Debug, Parser)]
#[command(about = "Draws return against time per action: planners with and without a value, and policies")]
struct Args {
    /// Number of real steps from which model, policy and critics are learned.
    #[arg(long, default_value_t = 1200)]
    steps: u64,
    /// Number of real steps of the distillation.
    #[arg(long, default_value_t = 3000)]
    distil: u64,
    /// Number of start states.
    #[arg(long, default_value_t = 5)]
    episodes: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "horizon.svg")]
    out: PathBuf,
}

/// Milliseconds per action and the mean return.
type Point = (f64, f64);

/// Lets an agent act from fixed start states.
fn judged(agent: &mut dyn Agent, episodes: usize) -> Result<Point> {
    let mut task = tasks::make(TASK)?;
    let (mut time, mut steps, mut sum) = (Duration::ZERO, 0u32, 0.0);
    let seeds = start_seeds(0, episodes);
    for seed in &seeds {
        let mut rng = Rng::new(*seed);
        let mut obs = task.env.reset(Some(*seed))?;
        agent.begin_episode();
        loop {
            let start = Instant::now();
            let action = agent.act(&Situation::of(&obs), ActMode::Evaluate, &mut rng)?;
            time += start.elapsed();
            steps += 1;
            let step = task.env.step(&action)?;
            sum += step.reward;
            obs.clone_from(&step.obs);
            if step.episode_over() {
                break;
            }
        }
    }
    Ok((1e3 * time.as_secs_f64() / f64::from(steps), sum / seeds.len() as f64))
}

fn planning(model: &Ensemble, horizon: usize, goal: Goal) -> Result<MpcAgent<Ensemble>> {
    let actions = tasks::make(TASK)?.env.spec().actions.clone();
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: model.config().members };
    let config =
        IcemConfig { horizon, population: 40, elites: 10, iterations: 3, noise_exponent: 2.0, ..IcemConfig::default() };
    let mpc = Mpc::new(Box::new(config.init(&actions, propagation)?), Replan::EveryStep)?;
    Ok(MpcAgent::new(model.clone(), goal, actions, mpc))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let text = include_str!("../../mbrl/experiments/dhmbpo-cartpole-swingup.toml");
    let registry = Registry::new().tasks(tasks::entries()).experiments(&[("learn", text)]);
    let experiment = registry.load("learn", &["train.eval_every=0"])?;
    let AgentConfig::Mbpo(learn) = &experiment.agent else { bail!("expected a policy in a learned model") };
    let mut task = tasks::make(TASK)?;
    let spec = task.env.spec().clone();
    let mut training = experiment.train.init(args.steps, args.seed)?;
    let model = learn.model.init_for_task(&spec, &task.knowledge, &Device::flex(), &mut training.split_rng())?;
    let policy = learn.sac.init(&spec, &learn.policy, &learn.critics, &mut training.split_rng())?;
    let goal = || Goal { discount: learn.sac.discount, ..Goal::of_task(&task) };
    let imagining = Imagining { goal: goal(), rollout: learn.rollout.clone(), propagation: learn.propagation };
    let mut agent = learn.agent.init(&spec, model, learn.fit.clone(), imagining, policy)?;
    let plain = goal();
    training.run(&mut task.env, &mut agent, None, &mut (), &AtomicBool::new(false))?;

    let told = |word: &str, (ms, mean): Point| {
        println!("{word}: {ms:.3} ms per action, return {mean:.1}");
        (ms, mean)
    };
    let learned = told("policy learned in the model", judged(&mut agent, args.episodes)?);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for horizon in HORIZONS {
        let bare = judged(&mut planning(agent.model(), horizon, plain.clone())?, args.episodes)?;
        without.push(told(&format!("{horizon} steps ahead"), bare));
        let valued = plain.clone().with_terminal_value(agent.policy().value());
        let point = judged(&mut planning(agent.model(), horizon, valued)?, args.episodes)?;
        with.push(told(&format!("{horizon} steps ahead and the value"), point));
    }
    let distil = DistilConfig { role: DistilRole::Act, warm_up: 600, ..DistilConfig::default() };
    let policy = ActorConfig { hidden: vec![128, 128], learning_rate: 1e-3, normalize: true, ..ActorConfig::default() };
    let guide = GuidedConfig { distil, policy, ..GuidedConfig::default() };
    let teacher = planning(agent.model(), HORIZONS[HORIZONS.len() - 1], plain)?;
    let mut training = TrainConfig::default().init(args.distil, args.seed)?;
    let mut guided = guide.init(&spec, Box::new(teacher), Vec::new(), &mut training.split_rng())?;
    training.run(&mut task.env, &mut guided, None, &mut (), &AtomicBool::new(false))?;
    let distilled = told("policy distilled from 25 steps", judged(&mut guided, args.episodes)?);

    fs::write(&args.out, picture(&[without, with, vec![distilled], vec![learned]]).svg())
        .with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

fn picture(series: &[Vec<Point>; 4]) -> Picture {
    let mut chart = Chart::new(Size::Panel(360.0), "return against time per action", "ms per action", "mean return");
    chart.log_x = true;
    for (i, points) in series.iter().enumerate() {
        let mut points = points.clone();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if points.len() > 1 {
            chart.marks.push(Mark::Line(Colour::Series(i), Style::Thin, points.clone()));
        }
        chart.marks.push(Mark::Dots(Colour::Series(i), points));
    }
    let legend = [
        "plans without a value",
        "plans that end in a value",
        "policy distilled from plans",
        "policy learned in the model",
    ];
    let legend = legend.iter().enumerate().map(|(i, word)| (Key::Dot, Colour::Series(i), (*word).to_owned()));
    Picture {
        title: "What looking ahead costs, and what replaces it".to_owned(),
        legend: legend.collect(),
        columns: 1,
        charts: vec![(String::new(), chart)],
        caption: format!(
            "Cart-pole swing-up, one learned model. iCEM looks {} steps ahead, from left to right; the value is that of the critics \
             that learned in the same model.",
            HORIZONS.map(|steps| steps.to_string()).join(", ")
        ),
    }
}
