//! The environments against their contracts, kinematics against the engine, and symmetries against the physics.
#![cfg(feature = "mujoco")]

use mbrl_env::{
    Device, Env, Rng, Simulator, check,
    mujoco::{Model, Sim},
    tasks::{Options, Task},
};
use mbrl_hand::{
    Chain, Servo, Variation,
    robot::{Axis, Body, ClawConfig, HandConfig, Joint},
    task::{BaodingConfig, ReorientConfig, ValveConfig, WriteConfig},
    tasks,
};

const NAMES: [&str; 4] = ["valve", "baoding", "reorient", "write"];

fn make(name: &str, options: &Options) -> Task {
    let entries = tasks();
    let entry = entries.iter().find(|entry| entry.name() == name).unwrap();
    entry.make(options).unwrap()
}

fn simulator(name: &str, options: &Options) -> Box<dyn Simulator> {
    make(name, options).env.into_simulator().unwrap()
}

#[test]
fn environments_keep_their_contracts() {
    for name in NAMES {
        let mut task = make(name, &Options::new());
        check::check_env(&mut task.env).unwrap();
        check::check_simulator(task.env.simulator_mut().unwrap()).unwrap();
        let (reward, termination) = (task.reward.as_deref().unwrap(), task.termination.as_deref());
        check::check_reward_agrees(&mut task.env, reward, termination, 4, &Device::flex(), &mut Rng::new(0)).unwrap();
    }
}

#[test]
fn goals_and_targets_are_known() {
    let options = |name: &str| match name {
        "baoding" => vec![
            Options::new(),
            Options::new().with("goal", "mixed"),
            Options::new().with("goal", "place"),
            Options::new().with("goal", "mixed").with("lead", 0.8),
        ],
        "write" => vec![Options::new().with("path", "unseen"), Options::new().with("path", "figure-eight")],
        _ => vec![Options::new()],
    };
    for name in NAMES {
        for options in options(name) {
            let mut task = make(name, &options);
            let known = task.knowledge.known.clone().unwrap();
            check::check_known(&*known, &mut task.env, 2, &Device::flex(), &mut Rng::new(0)).unwrap();
        }
    }
}

#[test]
fn targets_wait_for_balls_that_lie_still() {
    use std::f64::consts::{PI, TAU};
    let wrapped = |angle: f64| (angle + PI).rem_euclid(TAU) - PI;
    // On the circle that the ellipse is made of: the phase of the first target, and by how much it is ahead of the balls.
    let phases = |obs: &[f32], side: f64| {
        let [x, y] = [0.036, 0.022];
        let at = |k: usize| f64::from(obs[k]);
        let target = (at(61) / y).atan2((at(60) - 0.062) / x);
        let balls = ((at(49) - at(55)) / y).atan2((at(48) - at(54)) / x);
        (target, side * wrapped(target - balls))
    };
    for (goal, side) in [("counter-clockwise", 1.0), ("clockwise", -1.0)] {
        let mut env = simulator("baoding", &Options::new().with("goal", goal).with("lead", 0.8));
        let mut obs = env.reset(Some(3)).unwrap();
        let (mut full, mut still) = (0, 0);
        for step in 0..60 {
            let (before, ahead) = phases(&obs, side);
            obs = env.step(&[0.0; 24]).unwrap().obs;
            let moved = side * wrapped(phases(&obs, side).0 - before);
            match ahead {
                ..0.399 => {
                    assert!((moved - TAU / 60.0).abs() < 1e-5, "{goal}, step {step}: {moved} at {ahead}");
                    full += 1;
                }
                0.801.. => {
                    assert!(moved.abs() < 1e-5, "{goal}, step {step}: {moved} at {ahead}");
                    still += 1;
                }
                _ => assert!((-1e-5..TAU / 60.0 + 1e-5).contains(&moved), "{goal}, step {step}: {moved} at {ahead}"),
            }
        }
        // The other way round balls lag from the start on.
        assert!(still > 2 && (full > 2 || side < 0.0), "{goal}: {full} steps by the clock, {still} without any");
    }
}

/// The largest distance of a point by kinematics from the engine's site, over random angles beyond the stops too.
fn off(mjcf: &str, robot: &Body, order: &[&str], tips: &[&str]) -> f64 {
    let model = Model::from_xml(mjcf).unwrap();
    let mut sim = Sim::new(&model).unwrap();
    let mut rng = Rng::new(0);
    let mut worst = 0.0_f64;
    for _ in 0..50 {
        let mut qpos = model.initial_state().qpos;
        qpos[..order.len()].iter_mut().for_each(|q| *q = rng.uniform_f64(-1.6, 1.6));
        sim.set_state(&qpos, &vec![0.0; model.nv()]).unwrap();
        for tip in tips {
            let truth = sim.site_xpos(model.site(tip).unwrap());
            let found = Chain::to(robot, tip, order).unwrap().frame(&qpos[..order.len()]).origin;
            worst = worst.max((0..3).map(|i| (found[i] - truth[i]).abs()).fold(0.0, f64::max));
        }
    }
    worst
}

#[test]
fn kinematics_are_the_engines() {
    let plain = Variation::default();
    let hand = off(
        &BaodingConfig::default().mjcf(&plain),
        &HandConfig::default().body(),
        &HandConfig::names(),
        &HandConfig::TIPS,
    );
    let writing = HandConfig { height: 0.0824, roll: -1.75, ..HandConfig::default() };
    let rolled = off(&WriteConfig::default().mjcf(&plain), &writing.body(), &HandConfig::names(), &HandConfig::TIPS);
    let claw = off(
        &ValveConfig::default().mjcf(&plain),
        &ClawConfig::default().body(),
        &ClawConfig::JOINTS,
        &ClawConfig::TIPS,
    );
    println!("largest difference: hand {hand:e}, rolled {rolled:e}, claw {claw:e} m");
    assert!(hand < 1e-9 && rolled < 1e-9 && claw < 1e-9);
}

#[test]
fn kinematics_of_hinges_and_frames_in_any_direction_are_the_engines() {
    let link = |name: &str, axis, turns, children| Body {
        name: name.into(),
        position: [0.1, -0.2, 0.3],
        turns,
        joint: Some(Joint { name: format!("{name}J"), axis, range: [-2.0, 2.0], ..Joint::default() }),
        inertia: Some((0.1, [1e-4; 3])),
        children,
        ..Body::default()
    };
    let mut far = link("far", [-0.48, 0.6, -0.64], vec![(Axis::Y, 0.3), (Axis::X, -1.1), (Axis::Y, 0.7)], Vec::new());
    far.sites.push(("tip".into(), [0.2, 0.1, -0.3]));
    let middle = link("middle", [0.0, 0.6, 0.8], vec![(Axis::X, 0.5), (Axis::Z, -0.4)], vec![far]);
    let near = link("near", [0.0, 0.0, -1.0], vec![(Axis::Z, 2.0), (Axis::Z, -0.7)], vec![middle]);
    let mjcf = format!("<mujoco><compiler angle=\"radian\"/><worldbody>{}</worldbody></mujoco>", near.mjcf());
    let worst = off(&mjcf, &near, &["nearJ", "middleJ", "farJ"], &["tip"]);
    assert!(worst < 1e-9, "{worst:e}");
}

#[test]
fn at_rest_every_object_stays_for_ten_seconds() {
    for (name, at) in [("baoding", 48), ("reorient", 48), ("write", 48), ("valve", 18)] {
        for seed in 0..5 {
            let mut env = simulator(name, &Options::new().with("max_steps", 100));
            let first = env.reset(Some(seed)).unwrap();
            let action = vec![0.0; env.spec().actions.width()];
            let mut last = first.clone();
            for step in 0..100 {
                let outcome = env.step(&action).unwrap();
                assert!(!outcome.terminated, "{name}, seed {seed}: over after {step} steps");
                last = outcome.obs;
            }
            let moved = (0..if name == "valve" { 1 } else { 3 }).map(|k| (last[at + k] - first[at + k]).abs());
            let moved = moved.fold(0.0, f32::max);
            println!("{name}, seed {seed}: moved by {moved}");
            assert!(moved < 0.01, "{name}, seed {seed}: moved by {moved}");
        }
    }
}

#[test]
fn a_minute_of_random_targets_stays_finite() {
    for name in NAMES {
        let mut env = simulator(name, &Options::new().with("max_steps", 600));
        let mut rng = Rng::new(7);
        let mut obs = env.reset(Some(1)).unwrap();
        for _ in 0..600 {
            assert!(obs.iter().all(|x| x.is_finite()));
            let action = env.spec().actions.sample(&mut rng).unwrap();
            let step = env.step(&action).unwrap();
            assert!(step.reward.is_finite());
            obs = if step.episode_over() { env.reset(None).unwrap() } else { step.obs };
        }
    }
}

/// Positions and velocities under a symmetry.
type Map<'a> = &'a dyn Fn(&[f64], &[f64]) -> (Vec<f64>, Vec<f64>);

/// Steps two simulations of one model side by side, the second from the mapped start under mapped actions, and tells how far the
/// mapped end is from the second's.
fn parted(
    (mjcf, servo): (&str, &Servo),
    qpos: &[f64],
    map: Map<'_>,
    map_action: &dyn Fn(&mut [f32]),
    steps: usize,
) -> f64 {
    let model = Model::from_xml(mjcf).unwrap();
    let (mut first, mut second) = (Sim::new(&model).unwrap(), Sim::new(&model).unwrap());
    first.set_state(qpos, &vec![0.0; model.nv()]).unwrap();
    let (mapped, still) = map(first.qpos(), first.qvel());
    second.set_state(&mapped, &still).unwrap();
    let mut rng = Rng::new(5);
    let width = servo.width();
    let command = |sim: &mut Sim, action: &[f32]| {
        let mut commands = vec![0.0; width];
        servo.commands(action, &sim.qpos()[..width], &mut commands);
        // Both get what single precision makes of it.
        let commands: Vec<f32> = commands.iter().map(|c| *c as f32).collect();
        sim.step(&commands, 25).unwrap();
    };
    for _ in 0..steps {
        let mut action: Vec<f32> = (0..width).map(|_| rng.uniform(-0.5, 0.5)).collect();
        command(&mut first, &action);
        map_action(&mut action);
        command(&mut second, &action);
    }
    let (expected, _) = map(first.qpos(), first.qvel());
    // A quaternion and its negative are one orientation; signs are made alike by the largest part.
    expected.iter().zip(second.qpos()).map(|(e, q)| (e.abs() - q.abs()).abs()).fold(0.0, f64::max)
}

#[test]
fn the_valves_symmetries_are_those_of_its_physics() {
    let config = ValveConfig::default();
    let augment = config.knowledge().augment.unwrap();
    let mut qpos: Vec<f64> = config.servo().rest;
    qpos.iter_mut().enumerate().for_each(|(j, q)| *q += 0.05 * (j as f64).sin());
    qpos.push(0.2);
    let mjcf = config.mjcf(&Variation::default());
    assert_eq!(augment.copies(), 6);
    for (copy, cone) in (1..6).flat_map(|copy| [(copy, "pyramidal"), (copy, "elliptic")]) {
        let mjcf = mjcf.replace("pyramidal", cone);
        let map = |qpos: &[f64], qvel: &[f64]| {
            let mut obs: Vec<f32> = qpos[..9].iter().chain(&qvel[..9]).map(|x| *x as f32).collect();
            obs.extend([qpos[9] as f32, qvel[9] as f32, 0.0]);
            augment.observation(copy, &mut obs);
            let of = |range: std::ops::Range<usize>| obs[range].iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
            ([of(0..9), of(18..19)].concat(), [of(9..18), of(19..20)].concat())
        };
        let qpos: Vec<f64> = qpos.iter().map(|q| f64::from(*q as f32)).collect();
        let apart = parted((&mjcf, &config.servo()), &qpos, &map, &|action| augment.action(copy, action), 10);
        println!("copy {copy}, {cone}: {apart:e} apart after ten steps");
        // Pyramids of friction stand along directions that do not turn with the claw; mirrored they are the same.
        let most = if cone == "elliptic" || copy == 3 { 1e-6 } else { 0.01 };
        assert!(apart < most, "copy {copy}, {cone}: {apart}");
    }
}

#[test]
fn exchanged_balls_go_as_the_others_did() {
    let config = BaodingConfig::default();
    let mjcf = config.mjcf(&Variation::default());
    let mut qpos = Model::from_xml(&mjcf).unwrap().initial_state().qpos;
    qpos[..24].copy_from_slice(&config.servo().rest);
    let map = |qpos: &[f64], qvel: &[f64]| {
        let (mut q, mut v) = (qpos.to_vec(), qvel.to_vec());
        q[24..].rotate_left(7);
        v[24..].rotate_left(6);
        (q, v)
    };
    let apart = parted((&mjcf, &config.servo()), &qpos, &map, &|_| (), 10);
    println!("{apart:e} apart after ten steps");
    assert!(apart < 1e-4, "{apart}");
}

#[test]
fn a_cube_with_other_names_for_its_sides_goes_the_same_way() {
    let config = ReorientConfig::default();
    let mjcf = config.mjcf(&Variation::default());
    let mut qpos = Model::from_xml(&mjcf).unwrap().initial_state().qpos;
    qpos[..24].copy_from_slice(&config.servo().rest);
    let half = std::f64::consts::FRAC_1_SQRT_2;
    for turn in [[half, half, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [half, 0.0, 0.0, -half], [0.0, 1.0, 0.0, 0.0]] {
        let map = |qpos: &[f64], qvel: &[f64]| {
            let (mut q, v) = (qpos.to_vec(), qvel.to_vec());
            let ([a, b, c, d], [w, x, y, z]) = ([q[27], q[28], q[29], q[30]], turn);
            q[27..31].copy_from_slice(&[
                a * w - b * x - c * y - d * z,
                a * x + b * w + c * z - d * y,
                a * y - b * z + c * w + d * x,
                a * z + b * y - c * x + d * w,
            ]);
            (q, v)
        };
        let apart = parted((&mjcf, &config.servo()), &qpos, &map, &|_| (), 6);
        println!("{turn:?}: {apart:e} apart after six steps");
        assert!(apart < 1e-3, "{turn:?}: {apart}");
    }
}

#[test]
fn variants_differ_and_each_episode_is_in_one_of_them() {
    let randomize = serde_json::json!({ "randomize": {
        "seed": 1, "variants": 4, "mass": 0.3, "friction": 0.3, "kp": 0.2, "delay": 1 } });
    let options: Options = serde_json::from_value(randomize).unwrap();
    let mut env = simulator("valve", &options);
    check::check_env(&mut *env).unwrap();
    check::check_simulator(&mut *env).unwrap();
    let run = |env: &mut dyn Simulator, seed: u64| {
        env.reset(Some(seed)).unwrap();
        (0..10).map(|_| env.step(&[0.3; 9]).unwrap().obs[18]).collect::<Vec<_>>()
    };
    let mut again = simulator("valve", &options);
    let runs: Vec<Vec<f32>> = (0..4).map(|seed| run(&mut *env, seed)).collect();
    assert_eq!(runs, (0..4).map(|seed| run(&mut *again, seed)).collect::<Vec<_>>());
    let other: Options =
        serde_json::from_value(serde_json::json!({ "randomize": { "seed": 2, "friction": 0.3 } })).unwrap();
    assert_ne!(runs[0], run(&mut *simulator("valve", &other), 0));
}

#[test]
fn sensors_add_noise_to_what_they_measure_alone() {
    let options: Options =
        serde_json::from_value(serde_json::json!({ "sensors": { "joints": 0.01, "positions": 0.002 } })).unwrap();
    let (mut plain, mut noisy) = (simulator("baoding", &Options::new()), simulator("baoding", &options));
    let (truth, seen) = (plain.reset(Some(3)).unwrap(), noisy.reset(Some(3)).unwrap());
    for (column, (truth, seen)) in truth.iter().zip(&seen).enumerate() {
        let is_measured = column < 24 || (48..51).contains(&column) || (54..57).contains(&column);
        assert_eq!(truth != seen, is_measured, "column {column}");
        assert!((truth - seen).abs() < 0.06);
    }
    // Late actions: the first step is that of action 0.
    let mut late = simulator("valve", &Options::new().with("action_delay", 1));
    let mut prompt = simulator("valve", &Options::new());
    late.reset(Some(0)).unwrap();
    prompt.reset(Some(0)).unwrap();
    assert_eq!(late.step(&[0.5; 9]).unwrap().obs, prompt.step(&[0.0; 9]).unwrap().obs);
    assert_eq!(late.step(&[0.1; 9]).unwrap().obs, prompt.step(&[0.5; 9]).unwrap().obs);
}

#[test]
fn a_cube_has_the_goals_that_are_named_and_no_others() {
    let of = |name: &str, goals: serde_json::Value| -> Vec<Vec<f32>> {
        let options: Options = serde_json::from_value(serde_json::json!({ "goals": goals })).unwrap();
        let mut env = make(name, &options).env;
        // The goal's first two axes.
        (0..12).map(|seed| env.reset(Some(seed)).unwrap()[69..75].to_vec()).collect()
    };
    let drawn = |goals: serde_json::Value| of("reorient", goals);
    // A turn about y leaves the goal's second axis, y; one about z leaves both axes level.
    let (s, c) = (0.7_f32.sin(), 0.7_f32.cos());
    for goal in drawn(serde_json::json!("half-down")) {
        for (found, meant) in goal.iter().zip([c, 0.0, -s, 0.0, 1.0, 0.0]) {
            assert!((found - meant).abs() < 1e-6, "{goal:?}");
        }
    }
    let (s, c) = (1.5_f32.sin(), 1.5_f32.cos());
    for goal in drawn(serde_json::json!(["left"])) {
        for (found, meant) in goal.iter().zip([c, s, 0.0, -s, c, 0.0]) {
            assert!((found - meant).abs() < 1e-6, "{goal:?}");
        }
    }
    let both = drawn(serde_json::json!(["up", "down"]));
    assert!(both.iter().any(|goal| goal[2] > 0.0) && both.iter().any(|goal| goal[2] < 0.0), "{both:?}");
    // A number stands for the first of them.
    assert_eq!(drawn(serde_json::json!(2)), drawn(serde_json::json!(["left", "right"])));
    assert_eq!(drawn(serde_json::json!(4)), drawn(serde_json::json!(["left", "right", "up", "down"])));
}

#[test]
fn options_that_cannot_be_are_refused_by_name() {
    let refused = |name: &str, options: Options| {
        let entries = tasks();
        entries.iter().find(|entry| entry.name() == name).unwrap().make(&options).unwrap_err().to_string()
    };
    let physics = |timestep: f64| -> Options {
        serde_json::from_value(serde_json::json!({ "physics": { "timestep": timestep } })).unwrap()
    };
    assert!(refused("valve", physics(0.003)).starts_with("timestep = 0.003: expected 0.1 s divided"));
    assert!(
        refused("reorient", Options::new().with("goals", 3))
            .contains("goals: invalid value: integer `3`, expected 2, 4, 8, a name such as \"down\"")
    );
    let goals = |goals: serde_json::Value| {
        refused("reorient", serde_json::from_value(serde_json::json!({ "goals": goals })).unwrap())
    };
    assert!(goals(serde_json::json!([])).starts_with("goals = []: expected at least one"));
    assert!(goals(serde_json::json!(["up", "up"])).ends_with("expected each goal at most once"));
    assert!(goals(serde_json::json!("upwards")).contains("goals: unknown variant `upwards`, expected one of `left`"));
    assert!(refused("baoding", Options::new().with("period", 0.0)).starts_with("period = 0: expected"));
    assert!(refused("write", Options::new().with("path", "square")).contains("path: unknown variant `square`"));
    let wide: Options = serde_json::from_value(serde_json::json!({ "randomize": { "mass": 1.0 } })).unwrap();
    assert!(refused("valve", wide).starts_with("randomize.mass = 1: expected"));
    let noise: Options = serde_json::from_value(serde_json::json!({ "sensors": { "velocities": -1.0 } })).unwrap();
    for name in ["valve", "baoding", "reorient", "write"] {
        assert!(refused(name, noise.clone()).starts_with("sensors.velocities = -1: expected"), "{name}");
    }
}
