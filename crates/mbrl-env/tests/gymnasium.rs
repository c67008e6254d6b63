//! The tasks on MuJoCo do what Gymnasium's do, number by number.
//!
//! `scripts/gymnasium-fixtures` records Gymnasium's own runs; here the same starts and actions must give the same. The
//! engine is the same library, so positions and velocities agree to the bit; rewards and infos may differ in the last
//! bits, where NumPy sums in another order.
#![cfg(feature = "mujoco")]

use std::{collections::BTreeMap, env, fs, path::Path};

use mbrl_env::{
    Env,
    mujoco::{
        AntConfig, HalfCheetahConfig, HopperConfig, HumanoidConfig, InvertedDoublePendulumConfig,
        InvertedPendulumConfig, MujocoEnv, PusherConfig, ReacherConfig, SwimmerConfig, Walker2dConfig,
    },
    tasks,
};
use serde::Deserialize;
use serde_json::{Value, from_value};

/// What positions, velocities, rewards and infos may differ by.
const TOLERANCE: f64 = 1e-9;

const TASKS: &[&str] = &[
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
];

fn bare(task: &str, options: Value) -> MujocoEnv {
    macro_rules! init {
        ($Config:ty) => {
            from_value::<$Config>(options).unwrap().init()
        };
    }
    let env = match task {
        "Ant-v5" => init!(AntConfig),
        "HalfCheetah-v5" => init!(HalfCheetahConfig),
        "Hopper-v5" => init!(HopperConfig),
        "Humanoid-v5" => init!(HumanoidConfig),
        "InvertedDoublePendulum-v5" => init!(InvertedDoublePendulumConfig),
        "InvertedPendulum-v5" => init!(InvertedPendulumConfig),
        "Pusher-v5" => init!(PusherConfig),
        "Reacher-v5" => init!(ReacherConfig),
        "Swimmer-v5" => init!(SwimmerConfig),
        "Walker2d-v5" => init!(Walker2dConfig),
        _ => panic!("{task} is not among the tasks here"),
    };
    env.unwrap()
}

/// First line of a recording.
#[derive(Deserialize)]
struct Head {
    task: String,
    options: Value,
    actions: usize,
    nq: usize,
    nv: usize,
    obs: usize,
    infos: Vec<String>,
}

/// A line of a recording.
struct Record<'a> {
    is_start: bool,
    action: &'a [f64],
    qpos: &'a [f64],
    qvel: &'a [f64],
    obs: &'a [f64],
    reward: f64,
    terminated: bool,
    truncated: bool,
    infos: &'a [f64],
}

impl Head {
    fn width(&self) -> usize {
        self.actions + self.nq + self.nv + self.obs + self.infos.len() + 4
    }

    fn record<'a>(&self, mut row: &'a [f64]) -> Record<'a> {
        let mut take = |count: usize| row.split_off(..count).unwrap();
        Record {
            is_start: take(1)[0] == 0.0,
            action: take(self.actions),
            qpos: take(self.nq),
            qvel: take(self.nv),
            obs: take(self.obs),
            reward: take(1)[0],
            terminated: take(1)[0] != 0.0,
            truncated: take(1)[0] != 0.0,
            infos: take(self.infos.len()),
        }
    }
}

/// Largest differences of a task.
#[derive(Default)]
struct Seen {
    qpos: f64,
    qvel: f64,
    reward: f64,
    infos: f64,
    steps: usize,
    episodes: usize,
    terminated: usize,
    truncated: usize,
}

fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    // NaN counts as infinitely far.
    let apart = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b).abs() };
    ours.iter().zip(theirs).map(apart).fold(0.0, |most, d| if d <= most { most } else { d })
}

fn compare(path: &Path, all: &mut BTreeMap<String, Seen>) {
    let bytes = fs::read(path).unwrap();
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let head: Head = serde_json::from_slice(&bytes[..line]).unwrap();
    let (numbers, rest) = bytes[line + 1..].as_chunks::<8>();
    assert!(rest.is_empty());
    let numbers: Vec<f64> = numbers.iter().map(|number| f64::from_le_bytes(*number)).collect();
    let (mut env, limit) = (bare(&head.task, head.options.clone()), tasks::make(&head.task).unwrap().max_steps);
    let seen = all.entry(head.task.clone()).or_default();
    let mut elapsed = 0;
    for (index, row) in numbers.chunks(head.width()).enumerate() {
        let record = head.record(row);
        let at = || format!("{}, record {index}", path.display());
        let rounded: Vec<u32> = record.obs.iter().map(|x| (*x as f32).to_bits()).collect();
        let same = |obs: &[f32]| {
            let apart = obs.iter().zip(&rounded).position(|(ours, theirs)| ours.to_bits() != *theirs);
            assert!(obs.len() == rounded.len() && apart.is_none(), "{}: observation, entry {apart:?}", at());
        };
        if record.is_start {
            same(&env.set_state(record.qpos, record.qvel).unwrap());
            (elapsed, seen.episodes) = (0, seen.episodes + 1);
            continue;
        }
        let action: Vec<f32> = record.action.iter().map(|a| *a as f32).collect();
        let step = env.step(&action).unwrap_or_else(|error| panic!("{}: {error}", at()));
        elapsed += 1;
        same(&step.obs);
        assert_eq!(step.terminated, record.terminated, "{}: terminated", at());
        assert_eq!(elapsed == limit, record.truncated, "{}: truncated", at());
        let told: Vec<f64> =
            head.infos.iter().map(|name| step.info.get(&**name).copied().unwrap_or(f64::NAN)).collect();
        for (most, what, ours, theirs) in [
            (&mut seen.qpos, "qpos", env.sim().qpos(), record.qpos),
            (&mut seen.qvel, "qvel", env.sim().qvel(), record.qvel),
            (&mut seen.reward, "reward", &[step.reward], &[record.reward]),
            (&mut seen.infos, "infos", &told, record.infos),
        ] {
            let apart = difference(ours, theirs);
            assert!(apart <= TOLERANCE, "{}: {what} differs by {apart:e}: {ours:?}, Gymnasium {theirs:?}", at());
            *most = most.max(apart);
        }
        seen.steps += 1;
        seen.terminated += usize::from(record.terminated);
        seen.truncated += usize::from(record.truncated);
    }
}

#[test]
#[ignore = "needs the fixtures of scripts/gymnasium-fixtures in MBRL_GYMNASIUM_FIXTURES; 15 seconds"]
fn every_task_equals_gymnasiums() {
    let folder = env::var_os("MBRL_GYMNASIUM_FIXTURES").expect("MBRL_GYMNASIUM_FIXTURES names the folder of fixtures");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut all = BTreeMap::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "f64")) {
        compare(path, &mut all);
    }
    println!("| task | steps | episodes | terminated | truncated | qpos | qvel | reward | infos |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (task, seen) in &all {
        let Seen { qpos, qvel, reward, infos, steps, episodes, terminated, truncated } = seen;
        println!(
            "| {task} | {steps} | {episodes} | {terminated} | {truncated} | {qpos:.1e} | {qvel:.1e} | {reward:.1e} | {infos:.1e} |"
        );
        // Ten seeds of the task as it is.
        assert!(*steps >= 10_000, "{task}: {steps} steps");
    }
    assert_eq!(all.keys().map(String::as_str).collect::<Vec<_>>(), TASKS);
}
