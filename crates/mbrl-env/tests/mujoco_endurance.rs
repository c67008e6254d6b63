//! Random steps over all tasks on MuJoCo, as many as there is time for.
#![cfg(feature = "mujoco")]

use std::env;

use mbrl_env::{
    Env, EnvError, Rng, process,
    tasks::{self, Options},
};

/// Over all tasks; another number in this variable: `MBRL_STEPS=10000000`, best with `--release`.
const STEPS: (&str, usize) = ("MBRL_STEPS", 200_000);

/// Nothing ends the process, every number is finite, and breakdowns of the simulation are what they are called, and rare.
#[test]
#[ignore = "200,000 steps take about 20 seconds"]
fn random_steps_over_all_tasks() {
    let steps = env::var(STEPS.0).map_or(STEPS.1, |steps| steps.parse().expect("a number of steps"));
    // `process` is what its options say.
    let entries: Vec<_> = tasks::entries().into_iter().filter(|entry| entry.name() != process::TASK).collect();
    let share = steps.div_ceil(entries.len());
    let mut rng = Rng::new(0);
    for entry in &entries {
        let name = entry.name();
        let mut env = entry.make(&Options::new()).unwrap().env;
        let actions = env.spec().actions.clone();
        let (mut episodes, mut breakdowns) = (1_u32, 0_u32);
        env.reset(Some(rng.key())).unwrap();
        for step in 0..share {
            let over = match env.step(&actions.sample(&mut rng).unwrap()) {
                Ok(step) => {
                    assert!(step.reward.is_finite() && step.obs.iter().all(|x| x.is_finite()), "{name}: {step:?}");
                    step.episode_over()
                }
                Err(EnvError::Simulation { time, reason }) => {
                    eprintln!("{name}: step {step}, at {time} s: {reason}");
                    breakdowns += 1;
                    true
                }
                Err(other) => panic!("{name}: step {step}: {other}"),
            };
            if over {
                env.reset(None).unwrap();
                episodes += 1;
            }
        }
        println!("{name}: {share} steps, {episodes} episodes, {breakdowns} breakdowns");
        assert!(breakdowns <= episodes / 100, "{name}: {breakdowns} of {episodes} episodes broke down");
    }
}
