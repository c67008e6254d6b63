//! A random agent in every task.
//!
//! You learn: how tasks are made and stepped, how a replay is filled and asked, what a random agent is worth (the yardstick
//! for everything that learns).
//! Run time: under a second.
//! You should see: a line for each task with the mean return and its standard deviation over 100 episodes, near −1250 for
//! `pendulum`, 24 for `cartpole`, −4 for `cartpole-swingup`, −11 for `reacher`, −192 for `point-mass`, 0 for
//! `point-mass-sparse` and `cliff`, −33 for `mountain-car`.
//!
//! ```text
//! cargo run --release -p mbrl-env --example random_agent
//! ```

use mbrl_env::{
    Env, EnvError, Replay, Rng, Transition,
    tasks::{self, Options},
};

const EPISODES: u64 = 100;

fn main() -> Result<(), EnvError> {
    for entry in tasks::entries().iter().filter(|entry| entry.is_available()) {
        let mut task = entry.make(&Options::new())?;
        let spec = task.env.spec().clone();
        let mut rng = Rng::new(0);
        let mut replay = Replay::new(spec.obs.width(), spec.actions.width(), 1_000_000)?;

        for seed in 0..EPISODES {
            let mut obs = task.env.reset(Some(seed))?;
            loop {
                let action = spec.actions.sample(&mut rng)?;
                let step = task.env.step(&action)?;
                let transition = Transition {
                    obs,
                    action,
                    reward: step.reward,
                    next_obs: step.obs,
                    terminated: step.terminated,
                    truncated: step.truncated,
                };
                replay.push(&transition)?;
                if transition.episode_over() {
                    break;
                }
                obs = transition.next_obs;
            }
        }

        let rewards = replay.columns().rewards;
        let returns: Vec<f64> = replay.episodes().map(|episode| rewards[episode].iter().sum()).collect();
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (returns.len() - 1) as f64;
        println!("{:<18} {mean:>8.1} ± {:<6.1} {}", entry.name(), variance.sqrt(), entry.summary());
    }
    Ok(())
}
