//! Learn a model of the pendulum from scratch and swing it up by planning.
//!
//! What you learn: how a task, an ensemble, a planner and the learning loop fit together, and how an observer watches
//! a run. Run it with `cargo run --release -p mbrl-policy --example learn_and_plan`; it takes about a minute. You
//! should see a random episode of about −1400, one of a model that has seen nothing but that, and from the third on
//! returns of about −130, which is as good as it gets from the bottom.

use std::sync::atomic::AtomicBool;

use mbrl_env::{Env, tasks};
use mbrl_model::{EnsembleConfig, FitConfig, MemberRule, Propagation};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{AgentError, Device, EpisodeSummary, Goal, ModelBasedConfig, Moment, Observer, TrainConfig};

/// Prints a line an episode.
struct Print;

impl Observer for Print {
    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        println!("step {:4}  return {:8.1}  ({:.0} s)", at.env_step, episode.total_reward, at.wall_s);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut task = tasks::make("pendulum")?;
    let spec = task.env.spec().clone();

    // A run of 1000 real steps; all its randomness comes from seed 0.
    let mut training = TrainConfig::default().init(1000, 0)?;

    // The model: five small networks that predict how the observation changes.
    let model = EnsembleConfig { hidden: vec![100, 100], ..EnsembleConfig::default() };
    let model = model.init(spec.obs.width(), spec.actions.width(), &Device::flex(), &mut training.split_rng())?;

    // The planner: the cross-entropy method, each candidate followed by one particle a member.
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 5 };
    let planner = CemConfig { horizon: 15, population: 100, elites: 10, iterations: 3, ..CemConfig::default() };
    let mpc = Mpc::new(Box::new(planner.init(&spec.actions, propagation)?), Replan::EveryStep)?;

    // The agent: 200 random steps, then a fit after each episode and a plan at each step.
    let fit = FitConfig { batch_size: 64, max_epochs: 50, ..FitConfig::default() };
    let mut agent = ModelBasedConfig::default().init(&spec, model, fit, Goal::of_task(&task), mpc)?;

    training.run(&mut task.env, &mut agent, None, &mut Print, &AtomicBool::new(false))?;
    println!("{} transitions seen", agent.replay().len());
    Ok(())
}
