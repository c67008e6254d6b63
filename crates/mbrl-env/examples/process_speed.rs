//! What an environment in a process costs beside Python alone:
//!
//! ```sh
//! cargo run --release -p mbrl-env --example process_speed -- python3 Pendulum-v1 HalfCheetah-v5
//! ```
//!
//! The first word is a Python with Gymnasium; the others are ids, or `nothing` for an environment whose step does nothing. Both
//! sides take random actions, drawn before, in bursts of 25 steps, in turns; rates are medians over bursts, so that what else runs
//! on the machine has little part in them: few bursts are interrupted. Times are those of single steps.

use std::{env, error::Error, process::Command, time::Instant};

use mbrl_env::{Env, Rng, World, process::ProcessConfig};

const TURNS: usize = 15;
/// Steps of a burst, and bursts in a turn.
const STEPS: usize = 25;
const BURSTS: usize = 200;

/// Prints the rate of each burst (1/s).
const ALONE: &str = r#"
import sys, time
import gymnasium
env = gymnasium.make(sys.argv[1])
steps, bursts = int(sys.argv[2]), int(sys.argv[3])
env.reset(seed=0)
for burst in range(bursts + 1):
    actions = [env.action_space.sample() for _ in range(steps)]
    began = time.perf_counter()
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            env.reset()
    if burst > 0:
        print(steps / (time.perf_counter() - began))
"#;

const NOTHING: &str = "class Nothing:
    fields, action_low, action_high, action_fields, max_steps = 3, -1.0, 1.0, 1, 200
    def reset(self, seed=None):
        return [0.0, 0.0, 0.0]
    def step(self, action):
        return [0.0, 0.0, 0.0], 0.0, False
";

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// A burst: seconds of each step, and steps per second with all that is between them.
fn bridged(world: &mut World, actions: &[Vec<f32>]) -> Result<(Vec<f64>, f64), Box<dyn Error>> {
    let mut times = Vec::with_capacity(actions.len());
    let began = Instant::now();
    for action in actions {
        let asked = Instant::now();
        let step = world.step(action)?;
        times.push(asked.elapsed().as_secs_f64());
        if step.episode_over() {
            world.reset(None)?;
        }
    }
    Ok((times, actions.len() as f64 / began.elapsed().as_secs_f64()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let python = words.next().ok_or("expected a Python, and ids of Gymnasium")?;
    let folder = env::temp_dir().join(format!("process_speed-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("nothing.py"), NOTHING)?;
    println!(
        "{:<16} {:>9} {:>9} {:>12} {:>12} {:>6}",
        "", "p50 (µs)", "p99 (µs)", "bridge (1/s)", "Python (1/s)", "ratio"
    );
    for id in words {
        let target =
            if id == "nothing" { format!("{}:Nothing", folder.join("nothing.py").display()) } else { id.clone() };
        let config = ProcessConfig { id: Some(target), python: Some(python.clone()), ..ProcessConfig::default() };
        let mut world = config.task()?.env;
        let mut rng = Rng::new(0);
        let space = world.spec().actions.clone();
        let actions = (0..STEPS).map(|_| space.sample(&mut rng)).collect::<Result<Vec<_>, _>>()?;
        world.reset(Some(0))?;
        bridged(&mut world, &actions)?;
        let (mut all, mut ours, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            for _ in 0..BURSTS {
                let (times, rate) = bridged(&mut world, &actions)?;
                all.extend(times);
                ours.push(rate);
            }
            if id != "nothing" {
                let words = ["-c", ALONE, &id, &STEPS.to_string(), &BURSTS.to_string()];
                let output = Command::new(&python).args(words).output()?;
                let rates = String::from_utf8(output.stdout)?;
                alone.extend(rates.lines().map(str::parse).collect::<Result<Vec<f64>, _>>()?);
            }
        }
        all.sort_by(f64::total_cmp);
        let at = |share: f64| 1e6 * all[(share * all.len() as f64) as usize];
        let (ours, alone) = (median(ours), if alone.is_empty() { f64::NAN } else { median(alone) });
        println!("{id:<16} {:>9.1} {:>9.1} {ours:>12.0} {alone:>12.0} {:>6.2}", at(0.5), at(0.99), ours / alone);
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
