//! The tasks on MuJoCo do what Gymnasium's do, number by number.
//!
//! `scripts/gymnasium-fixtures` records Gymnasium's own runs; here the same starts and actions must give the same. The
//! engine is the same library, so positions and velocities agree to the bit; rewards and infos may differ in the last
//! bits, where NumPy sums in another order.
#![cfg(feature = "mujoco")]

use std::{collections::BTreeMap, env, fs, path::Path};

use mbrl_env::{
    ActionSpace, Env,
    mujoco::{
        AntConfig, HalfCheetahConfig, HopperConfig, HumanoidConfig, InvertedDoublePendulumConfig,
        InvertedPendulumConfig, MujocoEnv, PusherConfig, ReacherConfig, SwimmerConfig, Walker2dConfig,
    },
    tasks,
};
use serde::Deserialize;
use serde_json::{Value, from_value, json};

/// What positions, velocities, rewards and infos may differ by.
const TOLERANCE: f64 = 1e-9;

/// By task: rewards of three steps, printed by `scripts/gymnasium-fixtures --rewards`.
const REWARDS: &[(&str, [f64; 3])] = &[
    ("Ant-v5", [-1.1188802002120086, -0.8546667963535399, -0.639125882590613]),
    ("HalfCheetah-v5", [-0.6921748498970601, -1.2442998220657102, -1.1994298401564873]),
    ("Hopper-v5", [0.5708382503414209, 0.5046762546451165, 0.5156464877956802]),
    ("Humanoid-v5", [4.4282995738141055, 4.428292734742214, 4.42836927587683]),
    ("InvertedDoublePendulum-v5", [9.206730834487285, 9.010664563454917, 8.930049150834394]),
    ("InvertedPendulum-v5", [1.0, 1.0, 0.0]),
    ("Pusher-v5", [-1.5134122257244755, -1.528354194678153, -1.4824465959557807]),
    ("Reacher-v5", [-1.277437914458678, -0.5042192343472882, -0.2887307798111635]),
    ("Swimmer-v5", [-0.3606666745233532, -0.29556220074739925, -0.21848507394248928]),
    ("Walker2d-v5", [0.4321016017458288, -0.05700358850130072, -0.44721059855976186]),
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
    let (mut env, limit) =
        (bare(&head.task, head.options.clone()), tasks::make(&head.task).unwrap().env.spec().max_steps);
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
        assert_eq!(Some(elapsed) == limit, record.truncated, "{}: truncated", at());
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
    let tasks: Vec<&str> = REWARDS.iter().map(|(task, _)| *task).collect();
    assert_eq!(all.keys().map(String::as_str).collect::<Vec<_>>(), tasks);
}

/// A taste of the recordings for runs without them. The tolerance tells what is easily mistaken: costs of controls in `f64`
/// move the rewards of HalfCheetah and Pusher by 10⁻⁸, in `f32` those of Humanoid; Ant's position at the end of a step, and
/// not where the engine last computed it, moves its rewards by 10⁻³.
#[test]
fn first_rewards_are_gymnasiums() {
    for (task, rewards) in REWARDS {
        let mut env = bare(task, json!({}));
        let model = env.sim().model().clone();
        let qvel: Vec<f64> = (0..model.nv()).map(|i| ((3 * i % 7) as f64 - 3.0) / 8.0).collect();
        env.set_state(model.inner().qpos0(), &qvel).unwrap();
        let ActionSpace::Box(space) = env.spec().actions.clone() else { panic!("{task}: controls are numbers") };
        for (step, expected) in rewards.iter().enumerate() {
            let eighths = (0..model.nu()).map(|i| ((5 * i + 3 * step) % 17) as f32 - 8.0);
            let action: Vec<f32> = eighths.zip(space.high()).map(|(eighths, high)| eighths / 8.0 * high).collect();
            let reward = env.step(&action).unwrap().reward;
            assert!((reward - expected).abs() < TOLERANCE, "{task}, step {step}: {reward}, Gymnasium {expected}");
        }
    }
}
