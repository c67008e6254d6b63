//! An environment of one's own, which is no simulator, trained through the experiment library.
//!
//! A heater warms a room: the agent sees the temperature inside and outside and sets the power. The environment could as well
//! be a machine: nothing of it can be saved or restored. What is learned, and how, is an experiment's text; the run folder has
//! metrics, checkpoints and all that `mbrl report` reads.
//!
//! ```text
//! cargo run --release --example own_environment -- runs/heater
//! mbrl report runs/heater
//! ```

use std::{env, error::Error, fs, path::PathBuf, sync::Arc, sync::atomic::AtomicBool};

use mbrl_env::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Rng, Step, Tensor, TimeLimit, World, check_action, reward_fn,
    tasks::{Options, Task, TaskEntry},
};
use mbrl_policy::{AgentError, Device, EpisodeSummary, Moment, Observer, RunFiles, experiment::Registry};

const WANTED: f32 = 21.0;

/// Inside (°C), outside (°C); the power of a heater (kW).
struct Heater {
    spec: EnvSpec,
    rng: Rng,
    inside: f32,
    outside: f32,
}

impl Heater {
    fn new() -> Result<Self, EnvError> {
        let actions = ActionSpace::Box(BoxSpace::new(vec![0.0], vec![3.0])?);
        let spec = EnvSpec::new("heater", BoxSpace::unbounded(2), actions, 300.0)
            .with_fields([Field::linear("inside", "°C"), Field::linear("outside", "°C")])?
            .with_action_fields([Field::linear("power", "kW")])?;
        Ok(Self { spec, rng: Rng::new(0), inside: 15.0, outside: 5.0 })
    }

    fn obs(&self) -> Vec<f32> {
        vec![self.inside, self.outside]
    }
}

impl Env for Heater {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.inside = self.rng.uniform(10.0, 18.0);
        self.outside = self.rng.uniform(-5.0, 10.0);
        Ok(self.obs())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        check_action(&self.spec, action)?;
        let power = action[0].clamp(0.0, 3.0);
        self.inside += 0.4 * power - 0.03 * (self.inside - self.outside);
        self.outside += self.rng.uniform(-0.1, 0.1);
        let (discomfort, energy) = ((self.inside - WANTED).powi(2), 0.1 * power);
        Ok(Step::new(self.obs(), -f64::from(discomfort + energy))
            .with_info("discomfort", f64::from(discomfort))
            .with_info("energy", f64::from(energy)))
    }
}

/// The same reward for plans, in batches.
fn task(_: &Options) -> Result<Task, EnvError> {
    let reward = reward_fn(|_obs, actions: Tensor<2>, next: Tensor<2>| {
        let discomfort = (next.narrow(1, 0, 1) - WANTED).square();
        -(discomfort + actions.clamp(0.0, 3.0) * 0.1).squeeze_dim::<1>(1)
    });
    let env = World::from_env(TimeLimit::new(Heater::new()?, 48)?);
    Ok(Task::new(env).with_reward(Arc::new(reward)))
}

const EXPERIMENT: &str = r#"
    summary = "keep a room at 21 °C"
    task = "heater"
    steps = 480

    [agent]
    random_steps = 96

    [model]
    members = 3
    hidden = [32, 32]
    normalize_targets = true

    [fit]
    max_epochs = 60

    [planner]
    kind = "cem"
    horizon = 6
    population = 60
    elites = 8
    iterations = 3

    [propagation]
    rule = "ts-inf"
    noise = true
    particles = 3

    [train]
    eval_every = 480
    eval_episodes = 3
"#;

/// Prints a line per episode.
struct Lines;

impl Observer for Lines {
    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        let means: Vec<String> = episode.info.iter().map(|(name, mean)| format!("{name} {mean:.2}")).collect();
        println!("step {:>4}  return {:>9.1}  {}", at.env_step, episode.total_reward, means.join("  "));
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args().nth(1).unwrap_or("runs/heater".into()));
    let heater = TaskEntry::new("heater", "keep a room warm", task);
    let registry = Registry::new().tasks([heater]).experiments(&[("heater", EXPERIMENT)]);
    let overrides: Vec<String> = env::args().skip(2).collect();
    let experiment = registry.load("heater", &overrides.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut parts = experiment.build_on(&registry, &Device::flex())?;

    fs::create_dir_all(&folder)?;
    fs::write(folder.join("experiment.toml"), experiment.to_toml()?)?;
    // A run that was stopped goes on from its newest checkpoint.
    let (mut files, _) = RunFiles::open(&folder, &mut parts.training, &mut *parts.agent)?;
    let stop = AtomicBool::new(false);
    parts.training.run(&mut parts.task.env, &mut *parts.agent, Some(&mut files), &mut Lines, &stop)?;
    println!("for the report: mbrl report {}", folder.display());
    Ok(())
}
