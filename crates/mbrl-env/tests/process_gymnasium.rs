//! Gymnasium's environments through a process give what they give in Python, number by number.
//!
//! Needs a Python with `gymnasium[mujoco]` 1.4.0, named by `MBRL_GYMNASIUM_PYTHON`; without it the tests print so and pass.
#![cfg(unix)]

use std::{env, fs, process::Command};

use mbrl_env::{
    ActionSpace, ColumnNames, Device, Env, Expression, Rng, check, collect_in, process::ProcessConfig, tasks,
};

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");
const STEPS: usize = 1000;

/// Steps in Python alone: reads actions, writes observations and rewards as doubles, and flags.
const ALONE: &str = r#"
import struct, sys
import numpy as np
import gymnasium

target, actions_file, out = sys.argv[1:]
if target == "own":
    sys.path.insert(0, ".")
    from own import Own
    env = Own()
else:
    env = gymnasium.make(target)
discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
width = 1 if discrete else env.action_space.shape[0]
actions = np.fromfile(actions_file, "<f4").reshape(-1, width)
with open(out, "wb") as file:
    def put(obs, reward, flags):
        obs = np.asarray(obs, "<f8").reshape(-1)
        file.write(struct.pack("<dd", reward, flags) + obs.tobytes())
    episode = 0
    obs, _ = env.reset(seed=episode)
    put(obs, 0.0, -1.0)
    for action in actions:
        action = int(action[0]) if discrete else action.astype(env.action_space.dtype)
        obs, reward, terminated, truncated, _ = env.step(action)
        put(obs, float(reward), float(terminated) + 2.0 * float(truncated))
        if terminated or truncated:
            episode += 1
            obs, _ = env.reset(seed=episode)
            put(obs, 0.0, -1.0)
"#;

/// A class of one's own, with parts of every kind in its observation.
const OWN: &str = r#"
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

class Own(gymnasium.Env):
    metadata = {"render_fps": 25}
    observation_space = Box(-np.inf, np.inf, (2, 3), np.float64)
    action_space = Box(np.array([-1.0, -3.0]), np.array([1.0, 3.0]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=(2, 3))
        self.steps = 0
        return self.state.copy(), {}

    def step(self, action):
        assert action.dtype == np.float64 and action.shape == (2,), action
        self.steps += 1
        self.state = 0.9 * self.state + 0.1 * self.np_random.normal(size=(2, 3)) + 0.1 * action.sum()
        return self.state.copy(), float(-(self.state**2).sum()), bool(self.steps % 37 == 0), self.steps >= 90, {"sum": self.state.sum()}
"#;

fn python() -> Option<String> {
    let python = env::var("MBRL_GYMNASIUM_PYTHON").ok();
    if python.is_none() {
        println!("skipped: MBRL_GYMNASIUM_PYTHON names no Python with gymnasium[mujoco]==1.4.0");
    }
    python
}

fn by_id(python: &str, id: &str) -> ProcessConfig {
    ProcessConfig { id: Some(id.into()), python: Some(python.into()), ..ProcessConfig::default() }
}

/// As Python does it, through the bridge: rewards, flags, observations.
fn bridged(env: &mut impl Env, actions: &[Vec<f32>]) -> Vec<(f64, f64, Vec<f32>)> {
    let mut episode = 0;
    let mut found = vec![(0.0, -1.0, env.reset(Some(episode)).unwrap())];
    for action in actions {
        let step = env.step(action).unwrap();
        let flags = f64::from(u8::from(step.terminated)) + 2.0 * f64::from(u8::from(step.truncated));
        let over = step.episode_over();
        found.push((step.reward, flags, step.obs));
        if over {
            episode += 1;
            found.push((0.0, -1.0, env.reset(Some(episode)).unwrap()));
        }
    }
    found
}

#[test]
#[ignore = "needs a Python with Gymnasium"]
fn the_first_thousand_transitions_are_pythons_own() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("alone.py"), ALONE).unwrap();
    fs::write(folder.path().join("own.py"), OWN).unwrap();
    fs::write(folder.path().join("serve_own.py"), "from own import Own\nfrom mbrl_env import serve\nserve(Own())")
        .unwrap();
    for target in ["CartPole-v1", "Pendulum-v1", "HalfCheetah-v5", "MountainCarContinuous-v0", "Acrobot-v1", "own"] {
        let config = if target == "own" {
            ProcessConfig {
                command: vec![python.clone(), "serve_own.py".into()],
                directory: Some(folder.path().to_owned()),
                env: [("PYTHONPATH".to_owned(), SHIM.to_owned())].into(),
                max_steps: Some(0),
                ..ProcessConfig::default()
            }
        } else {
            by_id(&python, target)
        };
        let mut env = config.task().unwrap().env;
        let mut rng = Rng::new(1);
        let space = env.spec().actions.clone();
        let actions: Vec<Vec<f32>> = (0..STEPS).map(|_| space.sample(&mut rng).unwrap()).collect();
        let bytes: Vec<u8> = actions.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        fs::write(folder.path().join("actions"), bytes).unwrap();
        let mut alone = Command::new(&python);
        alone.current_dir(folder.path()).args(["alone.py", target, "actions", "out"]);
        assert!(alone.status().unwrap().success());
        let numbers = fs::read(folder.path().join("out")).unwrap();
        let numbers: Vec<f64> = numbers.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let rows = numbers.chunks(2 + env.spec().obs.width());
        let found = bridged(&mut env, &actions);
        assert_eq!((found.len(), found.len() > STEPS), (rows.len(), true), "{target}");
        for (index, (row, (reward, flags, obs))) in rows.zip(&found).enumerate() {
            assert_eq!((row[0].to_bits(), row[1]), (reward.to_bits(), *flags), "{target}, row {index}");
            let expected: Vec<u32> = row[2..].iter().map(|x| (*x as f32).to_bits()).collect();
            let obs: Vec<u32> = obs.iter().map(|x| x.to_bits()).collect();
            assert_eq!(obs, expected, "{target}, row {index}");
        }
        println!("{target}: {} rows are equal", found.len());
    }
}

#[test]
#[ignore = "needs a Python with Gymnasium"]
fn what_gymnasium_knows_arrives() {
    let Some(python) = python() else { return };
    let spec = |id: &str| by_id(&python, id).init().unwrap().spec().clone();
    let pendulum = spec("Pendulum-v1");
    assert_eq!((&*pendulum.name, pendulum.control_period, pendulum.max_steps), ("Pendulum-v1", 0.05, Some(200)));
    assert_eq!((pendulum.obs.high(), pendulum.column_names().len()), (&[1.0, 1.0, 8.0][..], 3));
    assert_eq!(pendulum.actions, ActionSpace::Box(mbrl_env::BoxSpace::symmetric(1, 2.0).unwrap()));
    let cartpole = spec("CartPole-v1");
    assert_eq!(
        (cartpole.actions, cartpole.control_period, cartpole.max_steps),
        (ActionSpace::Discrete(2), 0.02, Some(500))
    );
    let cheetah = spec("HalfCheetah-v5");
    assert_eq!((cheetah.obs.width(), cheetah.control_period, cheetah.max_steps), (17, 0.05, Some(1000)));
    // Spaces that are no rows become some, or are refused.
    assert_eq!(spec("FrozenLake-v1").obs.width(), 16);
    assert_eq!(spec("Blackjack-v1").column_names().len(), 32 + 11 + 2);
    for (id, words) in [("NoSuchEnv-v0", "NoSuchEnv"), ("no_module:Foo-v0", "no_module")] {
        let told = by_id(&python, id).task().unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
    }
    let mut config = by_id(&python, "HalfCheetah-v5");
    config.make = Some(r#"{"exclude_current_positions_from_observation": false}"#.into());
    assert_eq!(config.init().unwrap().spec().obs.width(), 18);
    for id in ["Pendulum-v1", "CartPole-v1", "MountainCarContinuous-v0", "HalfCheetah-v5"] {
        check::check_env(&mut by_id(&python, id).task().unwrap().env).unwrap();
    }
}

#[test]
#[ignore = "needs a Python with Gymnasium"]
fn expressions_say_what_gymnasium_pays() {
    let Some(python) = python() else { return };
    let device = Device::flex();
    let mut pendulum = by_id(&python, "Pendulum-v1").task().unwrap().env;
    let text = "-(atan2(obs[1], obs[0])^2 + 0.1 * obs[2]^2 + 0.001 * action[0]^2)";
    let reward = Expression::reward(text, &ColumnNames::of(&pendulum)).unwrap();
    check::check_reward_agrees(&mut pendulum, &reward, None, 3, &device, &mut Rng::new(0)).unwrap();
    let mut cartpole = by_id(&python, "CartPole-v1").task().unwrap().env;
    let names = ColumnNames::of(&cartpole);
    let reward = Expression::reward("1", &names).unwrap();
    let fallen = Expression::termination("abs(next[0]) > 2.4 or abs(next[2]) > 12 * pi / 180", &names).unwrap();
    check::check_reward_agrees(&mut cartpole, &reward, Some(&fallen), 10, &device, &mut Rng::new(0)).unwrap();
}

#[test]
#[ignore = "needs a Python with Gymnasium"]
fn several_processes_collect_side_by_side() {
    let Some(python) = python() else { return };
    let make = || Ok(by_id(&python, "Pendulum-v1").task()?.env);
    let policy = || |_obs: &[f32], rng: &mut Rng| vec![rng.uniform(-2.0, 2.0)];
    let episodes = collect_in(make, 0..6, policy).unwrap();
    assert!(episodes.iter().all(|episode| episode.len() == 200));
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(episodes, one.install(|| collect_in(make, 0..6, policy)).unwrap());
    assert!(tasks::entries().iter().any(|entry| entry.name() == "process"));
}
