//! A log as a real machine writes it: a pendulum driven by smooth random torques, its sensors noisy, as CSV.
//!
//! ```text
//! cargo run --release -p mbrl-env --example make_log -- log.csv 1000000
//! mbrl fit log.csv
//! ```
//!
//! Ten columns: episode, step, time (s), cosine and sine of the angle, speed (rad/s), torque (N m), reward and end flags. An
//! episode has 200 steps and a last row that holds the last observation alone. A million rows are about 80 MB.

use std::{
    error::Error,
    fs::File,
    io::{BufWriter, Write},
};

use mbrl_env::{Env, Rng, tasks};

/// Standard deviation of the sensors' noise.
const NOISE: f32 = 0.01;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or("usage: make_log FILE.csv [ROWS] [SEED]")?;
    let rows: u64 = words.next().as_deref().unwrap_or("10000").parse()?;
    let seed: u64 = words.next().as_deref().unwrap_or("0").parse()?;

    let mut rng = Rng::new(seed);
    let mut pendulum = tasks::make("pendulum")?.env;
    let mut file = BufWriter::new(File::create(&path)?);
    writeln!(file, "episode,step,time,obs_0,obs_1,obs_2,action_0,reward,terminated,truncated")?;
    let mut written = 0;
    for episode in 0.. {
        if written >= rows {
            break;
        }
        let mut obs = pendulum.reset(Some(seed ^ episode << 20))?;
        let mut torque = 0.0;
        for step in 0_u16.. {
            let seen: Vec<String> = obs.iter().map(|x| (x + NOISE * rng.normal()).to_string()).collect();
            write!(file, "{episode},{step},{},{}", f32::from(step) * 0.05, seen.join(","))?;
            written += 1;
            if step == 200 {
                writeln!(file, ",,,,")?;
                break;
            }
            // Wanders within ±2 N m, forgetting itself in about ten steps.
            torque = (0.9 * torque + rng.normal()).clamp(-2.0, 2.0);
            let after = pendulum.step(&[torque])?;
            writeln!(file, ",{torque},{},{},{}", after.reward, after.terminated, after.truncated)?;
            obs = after.obs;
            if written == rows {
                break;
            }
        }
    }
    file.flush()?;
    println!("{written} rows in {path}");
    Ok(())
}
