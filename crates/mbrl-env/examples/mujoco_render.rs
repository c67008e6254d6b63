//! A robot that acts at random, as an animated PNG: `mujoco_render [TASK] [FILE] [STEPS]`.

use mbrl_env::{Env, EnvError, Rng, tasks, write_animation};

fn main() -> Result<(), EnvError> {
    let words: Vec<String> = std::env::args().collect();
    let word = |i: usize, otherwise: &str| words.get(i).map_or_else(|| otherwise.to_owned(), String::clone);
    let (name, path) = (word(1, "HalfCheetah-v5"), word(2, "robot.png"));
    let steps: usize = word(3, "100").parse().unwrap_or(100);

    let mut env = tasks::make(&name)?.env;
    let (spec, mut rng) = (env.spec().clone(), Rng::new(0));
    env.reset(Some(0))?;
    let frames = (0..steps).map(|_| {
        let frame = env.render(480, 360)?;
        if env.step(&spec.actions.sample(&mut rng)?)?.episode_over() {
            env.reset(None)?;
        }
        Ok(frame)
    });
    write_animation(&path, spec.control_period, frames)?;
    println!("{path}");
    Ok(())
}
