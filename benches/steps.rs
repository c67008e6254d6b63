//! Updates and complete steps of SAC on the pendulum, as `peers/stable_baselines_sac.py` measures them for other libraries: wall-clock
//! time and processor time, one thread. `benches/beside-peers` runs the two alternately.
//!
//! `cargo bench -p mbrl-benches --bench steps`. One JSON object per line `{"library", "work", "ms", "cpu_ms"}`, medians of five times 200.

use std::{fs, time::Instant};

use mbrl_env::{Env, Rng, Situation, Transition, tasks};
use mbrl_policy::{
    ActMode, ActorConfig, Agent, CriticsConfig, Learner, ModelFree, ModelFreeConfig, OffPolicy, Report, ReportKind,
    Sac, SacConfig,
};

const COUNT: u32 = 200;
const REPEATS: usize = 5;

struct Quiet;

impl Report for Quiet {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

/// Milliseconds that this thread has run; NaN if the system does not report it.
fn cpu_ms() -> f64 {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = told.as_deref().and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    ns.map_or(f64::NAN, |ns| ns * 1e-6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(work: &str, mut one: impl FnMut()) {
    (0..COUNT).for_each(|_| one());
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let (from, before) = (Instant::now(), cpu_ms());
        (0..COUNT).for_each(|_| one());
        wall.push(from.elapsed().as_secs_f64() * 1e3 / f64::from(COUNT));
        cpu.push((cpu_ms() - before) / f64::from(COUNT));
    }
    let (ms, cpu_ms) = (median(wall), median(cpu));
    println!(r#"{{"library": "mbrl", "work": "{work}", "ms": {ms:.3}, "cpu_ms": {cpu_ms:.3}}}"#);
}

fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut rng = Rng::new(0);
    let mut task = tasks::make("pendulum")?;
    let spec = task.env.spec().clone();
    let sac = || SacConfig::default().init(&spec, &ActorConfig::default(), &CriticsConfig::default(), &mut Rng::new(0));
    let mut agent: ModelFree<Sac> = ModelFreeConfig::default().init(&spec, sac()?)?;
    let mut obs = task.env.reset(Some(0))?;
    let mut step = |rng: &mut Rng, agent: &mut ModelFree<Sac>| {
        let action = agent.act(&Situation::of(&obs), ActMode::Explore, rng).expect("an action");
        let step = task.env.step(&action).expect("a step");
        let (terminated, truncated) = (step.terminated, step.truncated);
        let (reward, next_obs) = (step.reward, step.obs.clone());
        let transition = Transition { obs: obs.clone(), action, reward, next_obs, terminated, truncated };
        agent.observe(&transition).expect("room");
        agent.update(rng, &mut Quiet).expect("an update");
        obs = if transition.episode_over() { task.env.reset(None).expect("a start") } else { step.obs };
    };
    (0..400).for_each(|_| step(&mut rng, &mut agent));
    let mut learner = sac()?;
    measure("update", || {
        let batch = agent.replay().sample_batch(256, &mut rng).expect("a batch");
        learner.improve(&batch, None, &mut rng, &mut Quiet).expect("an update");
    });
    measure("step", || step(&mut rng, &mut agent));
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(run)
}
