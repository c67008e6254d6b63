//! Run a policy that `mbrl export` wrote, on one observation or on many.
//!
//! What you learn: that a trained policy needs one file and this crate alone, no task, no run folder, no device.
//!
//! ```sh
//! mbrl train sac-pendulum && mbrl export runs/sac-pendulum-0 --out policy.safetensors
//! cargo run --release -p mbrl-policy --example run_policy -- policy.safetensors 1 0 0
//! ```
//!
//! Without an observation, lines of numbers from standard input are answered one by one. You should see the file's description and
//! an action with its name and unit; `run_policy.py` beside this file computes the same with NumPy.

use std::{env, io, path::Path};

use mbrl_policy::ExportedPolicy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = env::args().skip(1);
    let file = words.next().ok_or("usage: run_policy FILE.safetensors [OBSERVATION…]")?;
    let policy = ExportedPolicy::load(Path::new(&file))?;
    let info = policy.info();
    eprintln!(
        "{} after {} steps of {}; observation {}; an action every {} s",
        info.agent,
        info.env_step,
        info.task,
        info.obs_names.join(", "),
        info.control_period
    );

    let answer = |numbers: &[String]| -> Result<(), Box<dyn std::error::Error>> {
        let obs = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<f32>, _>>()?;
        let action = policy.action(&obs)?;
        for ((value, name), unit) in action.iter().zip(&info.action_names).zip(&info.action_units) {
            println!("{name} = {value} {unit}");
        }
        Ok(())
    };
    let obs: Vec<String> = words.collect();
    if !obs.is_empty() {
        return answer(&obs);
    }
    for line in io::stdin().lines() {
        answer(&line?.split_whitespace().map(str::to_owned).collect::<Vec<_>>())?;
    }
    Ok(())
}
