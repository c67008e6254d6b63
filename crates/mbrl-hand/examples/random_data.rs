//! Which random actions keep the object: `random_data [ROLLOUTS] [TASK...]`, roll-outs of 30 steps.

use std::process::ExitCode;

use mbrl_env::{EnvError, collect_with, tasks::Options};
use mbrl_hand::{RandomActions, tasks};

const STEPS: u32 = 30;

fn shares(task: &str, rollouts: u64) -> Result<(), EnvError> {
    let entries = tasks();
    let Some(entry) = entries.iter().find(|entry| entry.name() == task) else {
        return Err(EnvError::UnknownTask { name: task.into(), known: "those of mbrl-hand".into() });
    };
    let task_of = entry.make(&Options::new().with("max_steps", STEPS))?;
    let simulator = task_of.env.require_simulator()?;
    let width = simulator.spec().actions.width();
    for (name, way) in [
        ("smooth, sigma 0.15, beta 0.3", RandomActions::Smooth { sigma: 0.15, beta: 0.3 }),
        ("smooth, sigma 0.1, beta 0.3", RandomActions::Smooth { sigma: 0.1, beta: 0.3 }),
        ("smooth, sigma 0.2, beta 0.3", RandomActions::Smooth { sigma: 0.2, beta: 0.3 }),
        ("smooth, sigma 0.3, beta 0.3", RandomActions::Smooth { sigma: 0.3, beta: 0.3 }),
        ("smooth, sigma 0.3, beta 0.6", RandomActions::Smooth { sigma: 0.3, beta: 0.6 }),
        ("velocity 0.05 to 0.15, held 2", RandomActions::Velocity { speed: [0.05, 0.15], hold: 2 }),
        ("uniform", RandomActions::Uniform),
    ] {
        let episodes = collect_with(simulator, 0..rollouts, || way.policy(width))?;
        let kept = episodes.iter().filter(|episode| episode.iter().all(|step| !step.terminated)).count();
        println!(
            "{task}: {name}: {kept} of {} kept, {:.1} %",
            episodes.len(),
            100.0 * kept as f64 / episodes.len() as f64
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rollouts = words.first().and_then(|word| word.parse().ok()).unwrap_or(500);
    let named: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let all = if named.is_empty() { vec!["baoding", "reorient", "write"] } else { named };
    for task in all {
        if let Err(error) = shares(task, rollouts) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
