//! Physics with unknown parameters: masses, lengths and frictions of a cart-pole from noisy measurements, and plans with the estimates.
//!
//! The equations are known, their constants are not. Some trajectories of a second each are measured under random forces, with noise of 1 % of
//! each column's range. Four models are made from them: the equations with their constants identified; an ensemble that knows nothing about
//! physics; equations that are wrong on purpose, without the friction of the hinge; and the latter with an ensemble for their residuals. iCEM
//! plans with each, and with the equations with the true constants. Run it with `cargo run --release -p mbrl-identify`; it takes some minutes
//! and leaves `identify.svg`.

#[path = "../../mbrl/src/plot/mod.rs"]
mod plot;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Parser;
use mbrl_env::{Env, Rng, tasks};
use mbrl_model::{
    Angles, CartPole, Dataset, Dynamics, EnsembleConfig, Fit, FitConfig, Identification, IdentifyConfig, MemberRule,
    PhysicsModel, Propagation, Residual, fit, identify,
};
use mbrl_plan::{IcemConfig, Mpc, Replan};
use mbrl_policy::{Goal, MpcAgent, evaluate, start_seeds};
use plot::{Chart, Colour, Key, Mark, Picture, Points, Size, Style};

const TASK: &str = "cartpole-swingup";
/// Transitions per trajectory: one second.
const STEPS: usize = 25;
/// Noise of a measurement, as a share of its column's range.
const NOISE: f64 = 0.01;
/// Planning horizon in steps.
const HORIZON: usize = 25;

#[derive(Debug, Parser)]
#[command(about = "Draws what is found of a cart-pole's constants, and what plans with it are worth")]
struct Args {
    /// Numbers of transitions to learn from, in rising order.
    #[arg(long, value_delimiter = ',', default_value = "25,50,100,200,400", value_parser = clap::value_parser!(u32).range(2..))]
    transitions: Vec<u32>,
    /// Number of start states by which plans are judged.
    #[arg(long, default_value_t = 5)]
    episodes: usize,
    /// Identify and plan with only the equations, without ensembles.
    #[arg(long)]
    physics_alone: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "identify.svg")]
    out: PathBuf,
}

/// The equations, with guesses up to three times off.
fn guessed() -> Result<PhysicsModel> {
    let mut model = PhysicsModel::new(CartPole::default(), 0.04, &Device::flex())?;
    // As measured with scales or given in a data sheet: the pole is not a uniform rod.
    for (name, value) in [("gear", 100.0), ("inertia_ratio", 0.18875 / (5.0186 * 0.09))] {
        model = model.with_known(name, value)?;
    }
    for (name, guess) in
        [("cart_mass", 5.0), ("pole_mass", 10.0), ("length", 0.5), ("cart_friction", 3.0), ("hinge_friction", 0.5)]
    {
        model = model.with_unknown(name, guess)?;
    }
    Ok(model)
}

/// The true constants of the task.
fn true_model() -> Result<PhysicsModel> {
    Ok(guessed()?.with_values(&[10.472, 5.0186, 0.3, 1.0, 1.0, 0.18875 / (5.0186 * 0.09), 9.81, 100.0])?)
}

/// Noisy measurements of trajectories under random forces, each held for 0.2 s.
fn measured(transitions: usize, seed: u64) -> Result<Dataset> {
    let mut env = tasks::make(TASK)?.env;
    let mut rng = Rng::new(seed);
    let episodes = transitions.div_ceil(STEPS);
    let (mut obs, mut actions) = (Vec::new(), Vec::new());
    for episode in 0..episodes {
        obs.push(env.reset(Some(1000 + seed + episode as u64))?);
        let mut force = 0.0;
        for t in 0..STEPS {
            if t % 5 == 0 {
                force = rng.uniform(-0.6, 0.6);
            }
            actions.push(force);
            obs.push(env.step(&[force])?.obs);
        }
    }
    let width = obs[0].len();
    let range = |c: usize| {
        let column = || obs.iter().map(|row| row[c]);
        column().fold(f32::MIN, f32::max) - column().fold(f32::MAX, f32::min)
    };
    let noise: Vec<f32> = (0..width).map(|c| NOISE as f32 * range(c)).collect();
    obs.iter_mut().for_each(|row| row.iter_mut().zip(&noise).for_each(|(x, noise)| *x += noise * rng.normal()));
    let rows = |first: usize| -> Vec<f32> {
        obs.chunks(STEPS + 1).flat_map(|episode| episode[first..first + STEPS].concat()).collect()
    };
    Ok(Dataset::new(rows(0), actions, rows(1), width, 1)?.with_episodes(&vec![STEPS; episodes])?)
}

/// The mean return of plans with a model.
fn judged<D: Dynamics>(model: D, episodes: usize) -> Result<f64> {
    let mut task = tasks::make(TASK)?;
    let actions = task.env.spec().actions.clone();
    let members = model.spec().members;
    let propagation = match members {
        1 => Propagation::MEAN,
        _ => Propagation { rule: MemberRule::TsInf, noise: false, particles: members },
    };
    let config = IcemConfig {
        horizon: HORIZON,
        population: 64,
        elites: 10,
        iterations: 4,
        noise_exponent: 2.0,
        ..IcemConfig::default()
    };
    let mpc = Mpc::new(Box::new(config.init(&actions, propagation)?), Replan::EveryStep)?;
    let mut agent = MpcAgent::new(model, Goal::of_task(&task), actions, mpc);
    Ok(evaluate(&mut task.env, &mut agent, &start_seeds(0, episodes))?.return_mean())
}

fn learned<M: Fit<Data = Dataset>>(mut model: M, data: &Dataset, seed: u64) -> Result<M> {
    let config = FitConfig { batch_size: 32, max_epochs: 150, holdout: 0.0, ..FitConfig::default() };
    fit(&mut model, data, &config, &mut Rng::new(seed))?;
    Ok(model)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let truth = true_model()?;
    let best = judged(&truth, args.episodes)?;
    println!("the true constants: return {best:.1}");
    let names = [
        "constants identified",
        "an ensemble",
        "no friction in the hinge",
        "no friction in the hinge, and an ensemble",
    ];
    let mut returns: [Points; 4] = Default::default();
    let mut found = Vec::new();
    for &transitions in &args.transitions {
        let transitions = transitions as usize;
        let data = measured(transitions, args.seed)?;
        let identified = identify(&guessed()?, &data, &IdentifyConfig::default())?;
        println!("{} transitions in {} trajectories", identified.transitions, identified.windows);
        for estimate in identified.estimates.iter().filter(|estimate| estimate.fitted) {
            let truth = truth.value(&estimate.name)?;
            println!(
                "  {} {:.4} ± {:.4} {}, truth {truth}",
                estimate.name, estimate.value, estimate.std_error, estimate.unit
            );
        }
        let mut told = |which: usize, reached: f64| {
            println!("  {}: return {reached:.1}", names[which]);
            returns[which].push((transitions as f64, reached));
        };
        told(0, judged(&identified.model, args.episodes)?);
        if !args.physics_alone {
            let config = EnsembleConfig {
                members: 3,
                hidden: vec![64, 64],
                normalize_targets: true,
                angles: Angles::radians([1]),
                ..EnsembleConfig::default()
            };
            let ensemble = config.init(4, 1, &Device::flex(), &mut Rng::new(args.seed))?;
            told(1, judged(learned(ensemble.clone(), &data, args.seed)?, args.episodes)?);
            let wrong =
                identify(&guessed()?.with_known("hinge_friction", 0.0)?, &data, &IdentifyConfig::default())?.model;
            told(2, judged(&wrong, args.episodes)?);
            told(3, judged(learned(Residual::new(wrong, ensemble)?, &data, args.seed)?, args.episodes)?);
        }
        found.push(identified);
    }
    fs::write(&args.out, picture(&truth, &found, &returns, best, names)?.svg())
        .with_context(|| args.out.display().to_string())?;
    println!("picture: {}", args.out.display());
    Ok(())
}

/// Estimates over their true values, and returns.
fn picture(
    truth: &PhysicsModel,
    found: &[Identification],
    returns: &[Points; 4],
    best: f64,
    names: [&str; 4],
) -> Result<Picture> {
    let mut estimates = Chart::new(Size::Panel(300.0), "estimates over true values", "transitions", "estimate / truth");
    (estimates.log_x, estimates.y_range) = (true, Some((0.0, 2.0)));
    let unknown: Vec<String> = truth
        .parameters()
        .iter()
        .filter(|parameter| parameter.fitted)
        .map(|parameter| parameter.name.clone())
        .collect();
    let mut legend = Vec::new();
    for (i, name) in unknown.iter().enumerate() {
        let value = truth.value(name)?;
        let (mut points, mut whiskers) = (Points::new(), Vec::new());
        for found in found {
            let estimate = found.estimate(name)?;
            // Side by side.
            let x = found.transitions as f64 * 1.05f64.powi(i as i32 - 2);
            let (low, high) = estimate.interval();
            points.push((x, (estimate.value / value).min(2.0)));
            whiskers.push((x, (low / value).min(2.0), (high / value).min(2.0)));
        }
        estimates.marks.push(Mark::Whiskers(Colour::Series(i), whiskers));
        estimates.marks.push(Mark::Dots(Colour::Series(i), points));
        legend.push((Key::Dot, Colour::Series(i), name.clone()));
    }
    let mut plans = Chart::new(Size::Panel(300.0), "returns of plans", "transitions", "mean return");
    plans.log_x = true;
    let ends: Vec<f64> = found.iter().map(|found| found.transitions as f64).collect();
    if let (Some(first), Some(last)) = (ends.first(), ends.last()) {
        plans.marks.push(Mark::Line(Colour::Muted, Style::Dashed, vec![(*first, best), (*last, best)]));
        legend.push((Key::Dashed, Colour::Muted, "plans with the true constants".into()));
    }
    for (i, points) in returns.iter().enumerate().filter(|(_, points)| !points.is_empty()) {
        plans.marks.push(Mark::Line(Colour::Series(i), Style::Thin, points.clone()));
        plans.marks.push(Mark::Dots(Colour::Series(i), points.clone()));
        legend.push((Key::Line, Colour::Series(i), format!("plans: {}", names[i])));
    }
    Ok(Picture {
        title: "A cart-pole's constants from noisy measurements, and what plans with them are worth".into(),
        legend,
        columns: 2,
        charts: vec![
            ("What was found, with 95 % intervals".into(), estimates),
            ("What plans with it are worth".into(), plans),
        ],
        caption: format!(
            "Cart-pole swing-up. Trajectories of {STEPS} transitions, noise of {} % of each column's range, first states unknown. iCEM \
             looks {HORIZON} steps ahead.",
            NOISE * 100.0
        ),
    })
}
