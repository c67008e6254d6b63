//! What is particular to tasks on MuJoCo: options, rewards and ends in batches. That they keep the contract as they are is
//! in `tests/tasks.rs`, that they equal Gymnasium's in `tests/gymnasium.rs`.
#![cfg(feature = "mujoco")]

use std::fs;

use mbrl_env::{
    Device, Env, EnvError, Form, LimitsConfig, Rng, Tensor, Transition, check, collect,
    mujoco::{
        AntConfig, Camera, HalfCheetahConfig, HumanoidConfig, InvertedDoublePendulumConfig, Model, MujocoEnv,
        ReacherConfig, Sim, SwimmerConfig, View, Walker2dConfig,
    },
    tasks::{self, Task},
};
use serde_json::{Value, json};

fn with_positions() -> Value {
    json!({ "exclude_current_positions_from_observation": false })
}

#[test]
fn rewards_and_ends_in_batches_agree_with_the_steps() {
    for name in [
        "InvertedPendulum-v5",
        "Reacher-v5",
        "Pusher-v5",
        "pets-halfcheetah",
        "pets-pusher",
        "pets-reacher",
        "pddm-halfcheetah",
    ] {
        let mut task = tasks::make(name).unwrap();
        let reward = task.reward.expect("its observation holds what it needs");
        let (termination, mut rng) = (task.termination.as_deref(), Rng::new(0));
        check::check_reward_agrees(&mut task.env, &*reward, termination, 3, &Device::flex(), &mut rng)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// With the position in the observation, a reward is a difference of positions that are rounded to `f32`: half a unit in
/// the last place of each, over the time of a step.
#[test]
fn rewards_of_runners_agree_up_to_the_rounding_of_the_position() {
    for name in ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5"] {
        let task = tasks::make_with(name, with_positions()).unwrap();
        assert!(tasks::make(name).unwrap().reward.is_none(), "{name}: without the position it cannot be known");
        let (spec, reward) = (task.env.spec().clone(), task.reward.unwrap());
        let episodes =
            collect(task.env.require_simulator().unwrap(), 0..5, |_, rng| spec.actions.sample(rng).unwrap()).unwrap();
        let mut compared = 0;
        for t in episodes.iter().flatten() {
            let row = |x: &[f32]| Tensor::<1>::from_floats(x, &Device::flex()).unsqueeze::<2>();
            let batch = reward.reward(row(&t.obs), row(&t.action), row(&t.next_obs)).into_scalar::<f32>();
            let ulps = f64::from(f32::EPSILON) * f64::from(t.obs[0].abs().max(t.next_obs[0].abs()));
            let tolerance = 1e-5 + ulps / spec.control_period;
            assert!((f64::from(batch) - t.reward).abs() < tolerance, "{name}: {batch} and {}", t.reward);
            compared += 1;
        }
        assert!(compared >= 50, "{name}: {compared}");
    }
}

/// By the same random actions, in the same world: what was clipped differs, and nothing else.
#[test]
fn velocities_are_told_whole_where_they_are_not_clipped() {
    for (name, options, first) in [
        ("Walker2d-v5", json!({}), 8),
        ("Hopper-v5", json!({ "healthy_angle_range": [-3.0, 3.0], "healthy_z_range": [0.1, 9.0] }), 5),
    ] {
        let seen = [true, false].map(|clip| {
            let mut options = options.clone();
            options["clip_velocities"] = json!(clip);
            let task = tasks::make_with(name, options).unwrap();
            let actions = task.env.spec().actions.clone();
            collect(task.env.require_simulator().unwrap(), 0..5, |_, rng| actions.sample(rng).unwrap())
                .unwrap()
                .concat()
        });
        assert_eq!(seen[0].len(), seen[1].len(), "{name}");
        let mut beyond = 0;
        for (clipped, whole) in seen[0].iter().zip(&seen[1]) {
            assert_eq!((clipped.reward, clipped.terminated), (whole.reward, whole.terminated), "{name}");
            for (column, (clipped, whole)) in clipped.next_obs.iter().zip(&whole.next_obs).enumerate() {
                beyond += usize::from(column >= first && whole.abs() > 10.0);
                let expected = if column < first { *whole } else { whole.clamp(-10.0, 10.0) };
                assert_eq!(*clipped, expected, "{name}: column {column}");
            }
        }
        assert!(beyond > 0, "{name}: nothing was clipped");
    }
}

#[test]
#[ignore = "4 seconds"]
fn options_keep_the_contract() {
    let reduced = json!({
        "include_cinert_in_observation": false,
        "include_cvel_in_observation": false,
        "include_qfrc_actuator_in_observation": false,
        "include_cfrc_ext_in_observation": false,
        "contact_cost_weight": 0.0,
    });
    for (name, options, width) in [
        ("HalfCheetah-v5", with_positions(), 18),
        ("Hopper-v5", with_positions(), 12),
        ("Walker2d-v5", with_positions(), 18),
        ("Swimmer-v5", with_positions(), 10),
        ("Ant-v5", with_positions(), 107),
        ("Ant-v5", json!({ "include_cfrc_ext_in_observation": false, "main_body": "aux_1" }), 27),
        ("Ant-v5", json!({ "include_cfrc_ext_in_observation": false, "contact_cost_weight": 0.0 }), 27),
        ("Humanoid-v5", with_positions(), 350),
        ("Humanoid-v5", reduced, 45),
    ] {
        let mut task = tasks::make_with(name, options).unwrap();
        assert_eq!(task.env.spec().obs.width(), width, "{name}");
        check::check_env(&mut task.env).unwrap();
        check::check_simulator(task.env.simulator_mut().unwrap()).unwrap();
    }
}

/// Random steps of some episodes, and whether the batch rule ends each.
fn ends(task: &Task, episodes: u64) -> Vec<(Transition, bool)> {
    let actions = &task.env.spec().actions;
    let steps = collect(task.env.require_simulator().unwrap(), 0..episodes, |_, rng| actions.sample(rng).unwrap())
        .unwrap()
        .concat();
    let rows = |of: fn(&Transition) -> &[f32]| {
        let entries: Vec<f32> = steps.iter().flat_map(of).copied().collect();
        Tensor::<1>::from_floats(&entries[..], &Device::flex()).reshape([steps.len() as i32, -1])
    };
    let rule = task.termination.as_ref().expect("the task ends");
    let ended = rule.terminated(rows(|t| &t.obs), rows(|t| &t.action), rows(|t| &t.next_obs)).into_data();
    let ended: Vec<bool> = ended.iter::<bool>().collect();
    steps.into_iter().zip(ended).collect()
}

#[test]
fn ends_in_batches_agree_with_the_steps() {
    for name in ["Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"] {
        for options in [json!({}), with_positions()] {
            let seen = ends(&tasks::make_with(name, options).unwrap(), 4);
            assert!(seen.iter().all(|(step, ended)| step.terminated == *ended), "{name}");
            assert!(seen.iter().any(|(step, _)| step.terminated) && seen.iter().any(|(step, _)| !step.terminated));
        }
        // What does not end has no rule, and goes on.
        let mut task = tasks::make_with(name, json!({ "terminate_when_unhealthy": false })).unwrap();
        let (actions, mut rng) = (task.env.spec().actions.clone(), Rng::new(0));
        task.env.reset(Some(0)).unwrap();
        let goes_on = (0..100).all(|_| !task.env.step(&actions.sample(&mut rng).unwrap()).unwrap().terminated);
        assert!(task.termination.is_none() && goes_on, "{name}");
    }
}

/// The tip that the environment judges is up to 0.1 mm away from the one in the observation, and falls by some 50 mm a step
/// when it passes the height: the two disagree about one episode in 500, here at most about three of 300.
#[test]
fn ends_of_the_double_pendulum_hardly_ever_disagree() {
    let seen = ends(&tasks::make("InvertedDoublePendulum-v5").unwrap(), 300);
    assert_eq!(seen.iter().filter(|(step, _)| step.terminated).count(), 300);
    let apart = seen.iter().filter(|(step, ended)| step.terminated != *ended).count();
    assert!(apart <= 3, "{apart} of {} steps", seen.len());
}

#[test]
fn an_ant_of_numbers_that_are_not_finite_has_ended() {
    let task = tasks::make("Ant-v5").unwrap();
    let width = task.env.spec().obs.width();
    let ended = |column: usize, value: f32| {
        let mut obs = vec![0.5; width];
        obs[column] = value;
        let obs = Tensor::<1>::from_floats(&obs[..], &Device::flex()).unsqueeze::<2>();
        let actions = Tensor::zeros([1, 8], &Device::flex());
        task.termination.as_ref().unwrap().terminated(obs.clone(), actions, obs).into_scalar::<bool>()
    };
    assert!(!ended(0, 0.5) && ended(0, 0.1) && ended(0, 1.1) && !ended(0, 1.0));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // Joints and velocities; forces are no part of the state.
        assert!(ended(5, value) && ended(26, value) && !ended(27, value), "{value}");
    }
}

#[test]
fn angles_are_the_hinges_that_turn_all_the_way_round() {
    for (name, options, expected) in [
        ("HalfCheetah-v5", json!({}), vec![1]),
        ("HalfCheetah-v5", with_positions(), vec![2]),
        ("pets-halfcheetah", json!({}), vec![2]),
        ("pets-reacher", json!({}), vec![4, 6]),
        ("Hopper-v5", json!({}), vec![]),
        // Where no fall ends an episode, the pitch is free.
        ("Hopper-v5", json!({ "terminate_when_unhealthy": false }), vec![1]),
        ("Walker2d-v5", with_positions(), vec![]),
        ("pddm-halfcheetah", json!({}), vec![]),
        ("InvertedPendulum-v5", json!({}), vec![]),
        ("Reacher-v5", json!({}), vec![]),
        ("Ant-v5", json!({}), vec![]),
    ] {
        let angles = tasks::make_with(name, options).unwrap().env.spec().angles();
        assert_eq!(angles.iter().map(|angle| angle.column).collect::<Vec<_>>(), expected, "{name}");
    }
}

#[test]
fn columns_are_called_by_joints_bodies_and_actuators() {
    let named = |name: &str, columns: &[(usize, &str, &str)], action: &str| {
        let spec = tasks::make(name).unwrap().env.spec().clone();
        let (names, actions) = (spec.column_names(), spec.action_names());
        let units: Vec<&str> = spec.fields.iter().flat_map(|f| std::iter::repeat_n(&*f.unit, f.width())).collect();
        for (column, called, unit) in columns {
            assert_eq!((&*names[*column], units[*column]), (*called, *unit), "{name}");
        }
        assert_eq!(actions[0], action, "{name}");
    };
    let cheetah =
        [(0, "rootz", "m"), (1, "rooty", "rad"), (8, "rootx_velocity", "m/s"), (16, "ffoot_velocity", "rad/s")];
    named("HalfCheetah-v5", &cheetah, "bthigh");
    named("pets-halfcheetah", &[(0, "mean_velocity", "m/s"), (1, "rootz", "m"), (2, "rooty", "rad")], "bthigh");
    let ant = [(0, "root_z", "m"), (1, "root_qw", ""), (13, "root_vx", "m/s"), (27, "torso_torque[0]", "N m")];
    named("Ant-v5", &ant, "hip_4");
    named("Ant-v5", &[(30, "torso_force[0]", "N"), (33, "front_left_leg_torque[0]", "N m")], "hip_4");
    named("Humanoid-v5", &[(45, "torso_inertia[0]", ""), (347, "left_lower_arm_force[2]", "N")], "abdomen_y");
    named(
        "Reacher-v5",
        &[(0, "cos_joint0", ""), (3, "sin_joint1", ""), (4, "target_x", "m"), (9, "target_to_fingertip_y", "m")],
        "joint0",
    );
    named("InvertedDoublePendulum-v5", &[(1, "sin_hinge", ""), (8, "slider_constraint_force", "N")], "slide");
    named(
        "Pusher-v5",
        &[(0, "r_shoulder_pan_joint", "rad"), (14, "tips_arm_x", "m"), (20, "goal_x", "m")],
        "r_shoulder_pan_joint",
    );
}

/// One more turn of the pitch or the heading is the same state of the simulation.
#[test]
fn an_angle_of_a_robot_after_one_more_turn_moves_in_the_same_way() {
    let after = |mut env: MujocoEnv, qpos: &[f64], action: &[f32]| {
        env.set_state(qpos, &vec![0.1; env.sim().model().nv()]).unwrap();
        (env.spec().angles(), env.step(action).unwrap())
    };
    for (make, joint, qpos, action) in [
        (
            (|| HalfCheetahConfig::default().init().unwrap()) as fn() -> MujocoEnv,
            2,
            vec![0.0, 0.1, 0.4, 0.1, -0.2, 0.1, 0.2, 0.1, 0.0],
            vec![0.5; 6],
        ),
        (|| SwimmerConfig::default().init().unwrap(), 2, vec![0.0, 0.0, 0.7, 0.2, -0.3], vec![0.5, -0.5]),
    ] {
        let mut turned = qpos.clone();
        turned[joint] += f64::from(std::f32::consts::TAU);
        let ((angles, plain), (_, more)) = (after(make(), &qpos, &action), after(make(), &turned, &action));
        assert_eq!(angles.len(), 1);
        for (column, (a, b)) in plain.obs.iter().zip(&more.obs).enumerate() {
            let turn = if column == angles[0].column { angles[0].turn } else { 0.0 };
            assert!((b - a - turn).abs() < 1e-3 * (1.0 + a.abs()), "column {column}: {a} and {b}");
        }
        assert!((plain.reward - more.reward).abs() < 1e-3, "{} and {}", plain.reward, more.reward);
    }
}

#[test]
fn the_swimmers_heading_is_an_angle() {
    for (options, config) in [
        (json!({}), SwimmerConfig::default()),
        (
            with_positions(),
            SwimmerConfig { exclude_current_positions_from_observation: false, ..SwimmerConfig::default() },
        ),
    ] {
        let angles = tasks::make_with("Swimmer-v5", options).unwrap().env.spec().angles();
        let obs = config.init().unwrap().set_state(&[0.1, 0.2, 7.0, 0.3, 0.4], &[0.0; 5]).unwrap();
        assert_eq!(angles.iter().map(|angle| obs[angle.column]).collect::<Vec<_>>(), [7.0]);
    }
}

#[test]
fn starts_are_where_gymnasium_draws_them() {
    let mut pusher = tasks::make("Pusher-v5").unwrap().env;
    let mut reacher = tasks::make("Reacher-v5").unwrap().env;
    for seed in 0..200 {
        let obs = pusher.reset(Some(seed)).unwrap();
        assert!(obs[..7].iter().all(|angle| *angle == 0.0) && obs[7..14].iter().all(|v| v.abs() <= 0.005));
        let (object, goal) = (&obs[17..20], &obs[20..23]);
        let away = [object[0] - goal[0], object[1] - goal[1]];
        assert!(away[0].abs() <= 0.2 && (-0.3..=0.0).contains(&away[1]) && away[0].hypot(away[1]) > 0.17, "{away:?}");
        let obs = reacher.reset(Some(seed)).unwrap();
        assert!(obs[2..4].iter().all(|sine| sine.abs() <= 0.1) && obs[6..8].iter().all(|v| v.abs() <= 0.005));
        assert!(obs[4].hypot(obs[5]) < 0.2, "target {:?}", &obs[4..6]);
    }
}

#[test]
fn options_that_make_no_task_are_refused() {
    for (name, options, words) in [
        ("Ant-v5", json!({ "healthy_range": [0.2, 1.0] }), "unknown field `healthy_range`"),
        (
            "Ant-v5",
            json!({ "healthy_z_range": [1.0, 0.2] }),
            "healthy_z_range = (1, 0.2): expected a lower end below the upper one",
        ),
        ("Ant-v5", json!({ "contact_force_range": [1.0, 1.0] }), "contact_force_range = (1, 1)"),
        ("Ant-v5", json!({ "main_body": "tail" }), "has no body `tail`; it has: world, torso"),
        ("Ant-v5", json!({ "main_body": 14 }), "has 14 bodies"),
        ("Ant-v5", json!({ "main_body": -1 }), "options of the task Ant-v5"),
        ("Ant-v5", json!({ "frame_skip": 0 }), "frame_skip = 0: expected at least 1"),
        ("Humanoid-v5", json!({ "contact_cost_range": [2.0, 1.0] }), "contact_cost_range = (2, 1)"),
        (
            "Humanoid-v5",
            json!({ "reset_noise_scale": -0.1 }),
            "reset_noise_scale = -0.1: expected a finite number of at least 0",
        ),
        ("Walker2d-v5", json!({ "healthy_angle_range": [0.5, 0.5] }), "healthy_angle_range = (0.5, 0.5)"),
        ("Swimmer-v5", json!({ "frame_skip": -1 }), "options of the task Swimmer-v5"),
        (
            "Pusher-v5",
            json!({ "xml_file": "reacher.xml" }),
            "4 positions and 4 velocities, expected at least 11 and 11",
        ),
        ("Reacher-v5", json!({ "xml_file": "ant.xml" }), "has no body `fingertip`"),
        ("Reacher-v5", json!({ "xml_file": "no.xml" }), "no.xml: no such model"),
        ("InvertedDoublePendulum-v5", json!({ "xml_file": "hopper.xml" }), "has no site"),
        (
            "Humanoid-v5",
            json!({ "xml_file": "swimmer.xml" }),
            "5 positions and 5 velocities, expected at least 3 and 6",
        ),
    ] {
        let refused = tasks::make_with(name, &options).unwrap_err().to_string();
        assert!(refused.contains(words), "{name} {options}: {refused}");
    }
    // The rules read by index.
    let folder = tempfile::tempdir().unwrap();
    let slide = folder.path().join("slide.xml");
    let body = r#"<body><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1"/></body>"#;
    let motor = r#"<motor joint="x" ctrlrange="-1 1"/>"#;
    let mjcf = format!("<mujoco><worldbody>{body}</worldbody><actuator>{motor}</actuator></mujoco>");
    fs::write(&slide, mjcf).unwrap();
    for entry in tasks::entries().iter().filter(|entry| entry.name().ends_with("-v5")) {
        match tasks::make_with(entry.name(), json!({ "xml_file": slide })) {
            Ok(mut task) => check::check_env(&mut task.env).unwrap(),
            Err(error) => {
                assert!(error.to_string().contains("1 positions and 1 velocities, expected at least"), "{error}");
            }
        }
    }
    // JSON has no NaN and no infinity.
    let refused = |result: Result<_, EnvError>| result.map(|_| ()).unwrap_err().to_string();
    let nan = f64::NAN;
    for (told, field) in [
        (refused(AntConfig { contact_cost_weight: nan, ..Default::default() }.init()), "contact_cost_weight"),
        (refused(AntConfig { reset_noise_scale: f64::INFINITY, ..Default::default() }.init()), "reset_noise_scale"),
        (refused(HumanoidConfig { contact_cost_range: (nan, 1.0), ..Default::default() }.init()), "contact_cost_range"),
        (refused(Walker2dConfig { ctrl_cost_weight: nan, ..Default::default() }.init()), "ctrl_cost_weight"),
        (refused(SwimmerConfig { forward_reward_weight: nan, ..Default::default() }.init()), "forward_reward_weight"),
        (refused(ReacherConfig { reward_dist_weight: nan, ..Default::default() }.init()), "reward_dist_weight"),
        (refused(InvertedDoublePendulumConfig { healthy_reward: nan, ..Default::default() }.init()), "healthy_reward"),
    ] {
        assert!(told.starts_with(field), "{told}");
    }
}

const HINGE: &str = r#"<mujoco><worldbody><body><joint name="hinge" axis="0 1 0" damping="0.1" range="-60 90"/>
    <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.03"/></body></worldbody>ACTUATORS</mujoco>"#;

fn hinge(actuators: &str) -> Model {
    Model::from_xml(&HINGE.replace("ACTUATORS", actuators)).unwrap()
}

#[test]
fn controls_are_limited_by_what_makes_a_difference() {
    let limits = |actuator: &str| {
        let limits = hinge(&format!("<actuator>{actuator}</actuator>")).control_limits().unwrap();
        (limits.low()[0], limits.high()[0])
    };
    let free = (f32::NEG_INFINITY, f32::INFINITY);
    let range = (-60_f32.to_radians(), 90_f32.to_radians());
    assert_eq!(limits(r#"<motor joint="hinge"/>"#), free);
    assert_eq!(limits(r#"<motor joint="hinge" forcerange="-2 4"/>"#), (-2.0, 4.0));
    assert_eq!(limits(r#"<general joint="hinge" gainprm="4" forcerange="-2 4"/>"#), (-0.5, 1.0));
    // The control is integrated: its limits say nothing about the force.
    assert_eq!(limits(r#"<general joint="hinge" dyntype="integrator" forcerange="-2 4"/>"#), free);
    assert_eq!(limits(r#"<muscle joint="hinge" ctrllimited="false" lengthrange="0.1 1"/>"#), (0.0, 1.0));
    let close = |(a, b): (f32, f32), (c, d): (f32, f32)| (a - c).abs() < 1e-6 && (b - d).abs() < 1e-6;
    assert!(close(limits(r#"<position joint="hinge" kp="7"/>"#), range));
    assert!(close(limits(r#"<position joint="hinge" kp="7" gear="-2"/>"#), (-2.0 * range.1, -2.0 * range.0)));
    assert_eq!(limits(r#"<velocity joint="hinge" kv="7"/>"#), free);
    assert_eq!(limits(r#"<position joint="hinge" kp="7" ctrlrange="-9 9"/>"#), (-9.0, 9.0));

    // Beyond the limits found, nothing changes.
    let weak = hinge(r#"<actuator><motor joint="hinge" forcerange="-2 4"/></actuator>"#);
    let swing = |control: f32| {
        let mut sim = Sim::new(&weak).unwrap();
        sim.step(&[control], 20).unwrap();
        sim.qpos()[0]
    };
    assert_eq!(swing(4.0), swing(400.0));
    assert_ne!(swing(4.0), swing(3.9));
}

#[test]
fn actuators_without_limits_get_them_by_the_builder() {
    let free = || MujocoEnv::builder(hinge(r#"<actuator><motor name="lift" joint="hinge"/></actuator>"#)).name("arm");
    let mut env = free().build().unwrap();
    check::check_env(&mut env).unwrap();
    let told = env.spec().require_limited_actions().unwrap_err().to_string();
    assert!(told.starts_with("actions of arm: no limits for lift: expected finite ones"), "{told}");

    let range = r#"<actuator><motor joint="hinge" ctrlrange="-0.5 0.5"/></actuator>"#;
    let mut by_model = MujocoEnv::builder(hinge(range)).build().unwrap();
    let mut by_name =
        free().control_limits(LimitsConfig::Named([("lift".into(), [-0.5, 0.5])].into())).build().unwrap();
    assert_eq!(by_name.spec().actions, by_model.spec().actions);
    check::check_env(&mut by_name).unwrap();
    check::check_simulator(&mut by_name).unwrap();
    for env in [&mut by_model, &mut by_name] {
        env.reset(Some(0)).unwrap();
    }
    for action in [0.3, -0.7, 5.0] {
        assert_eq!(by_name.step(&[action]).unwrap().obs, by_model.step(&[action]).unwrap().obs);
    }
    let locked = free().control_limits(LimitsConfig::All([0.2, 0.2])).build().unwrap();
    assert_eq!(locked.spec().actions.sample(&mut Rng::new(0)).unwrap(), [0.2]);
    assert!(free().control_limits(LimitsConfig::Named([("push".into(), [-0.5, 0.5])].into())).build().is_err());
}

#[test]
fn episodes_begin_at_a_keyframe_activations_and_all() {
    let model = hinge(
        r#"<actuator><general joint="hinge" dyntype="filter" dynprm="0.1" gainprm="5" ctrlrange="-1 1"/></actuator>
           <keyframe><key name="bent" qpos="0.7" qvel="0.2" act="0.4" ctrl="0.3"/></keyframe>"#,
    );
    let mut env = MujocoEnv::builder(model.clone())
        .keyframe("bent")
        .observe(|sim, obs| obs.extend([sim.qpos()[0], sim.qvel()[0], sim.data().act()[0], sim.ctrl()[0]]))
        .build()
        .unwrap();
    check::check_env(&mut env).unwrap();
    check::check_simulator(&mut env).unwrap();
    for _ in 0..2 {
        assert_eq!(env.reset(Some(0)).unwrap(), [0.7, 0.2, 0.4, 0.3]);
        env.step(&[1.0]).unwrap();
    }
    let told = MujocoEnv::builder(model).keyframe("bend").build().unwrap_err().to_string();
    assert_eq!(told, "MJCF text has no keyframe `bend`; it has: bent");
}

/// A gripper that is welded to a mocap body, as in Gymnasium-Robotics' Fetch, and a goal that is another.
const WELDED: &str = r#"<mujoco><option timestep="0.01"/><worldbody>
    <body name="goal" mocap="true" pos="1 0 0"><geom size="0.05" contype="0" conaffinity="0"/></body>
    <body name="hand" mocap="true" pos="0 0 0.5"/>
    <body name="gripper" pos="0 0 0.5"><freejoint/><geom size="0.1"/></body></worldbody>
    <equality><weld body1="hand" body2="gripper" solref="0.02 1"/></equality></mujoco>"#;

#[test]
fn a_robot_without_actuators_is_moved_by_a_mocap_body() {
    let model = Model::from_xml(WELDED).unwrap();
    let told = MujocoEnv::builder(model.clone()).build().unwrap_err().to_string();
    assert!(
        told.contains("has no actuator: expected an `<actuator>` section") && told.contains("mocap_actions"),
        "{told}"
    );
    let (goal, gripper) = (model.mocap("goal").unwrap(), model.body("gripper").unwrap());
    let told = model.mocap("gripper").unwrap_err().to_string();
    assert_eq!(told, "MJCF text has no mocap body `gripper`; it has: goal, hand");

    let mut env = MujocoEnv::builder(model)
        .frame_skip(10)
        .start_state(move |state, rng| state.mocap_pos[goal][1] = rng.uniform_f64(-0.2, 0.2))
        .observe(move |sim, obs| {
            obs.extend(sim.xpos(gripper));
            obs.extend(sim.data().mocap_pos()[goal]);
        })
        .mocap_actions("hand", 0.05)
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(env.spec().action_names(), ["hand_dx", "hand_dy", "hand_dz"]);
    check::check_env(&mut env).unwrap();
    check::check_simulator(&mut env).unwrap();
    let start = env.reset(Some(1)).unwrap();
    let mut obs = start.clone();
    for _ in 0..10 {
        // Four times what a step may do.
        obs = env.step(&[0.2, 0.0, 0.0]).unwrap().obs;
    }
    assert!((obs[0] - 0.5).abs() < 0.1, "10 steps of 0.05 m: {obs:?}");
    assert_eq!(obs[3..], start[3..], "the goal stays where the episode put it");
    assert_ne!(env.reset(None).unwrap()[4], start[4]);
}

#[test]
fn a_scene_has_the_visible_solids_where_they_are() {
    let model = Model::from_xml(
        r#"<mujoco>
             <asset><material name="red" rgba="1 0 0 1"/></asset>
             <worldbody>
               <geom type="plane" size="0 2 .1" rgba=".5 .6 .7 1"/>
               <body name="ball" pos="0 0 1">
                 <joint name="slide" type="slide" axis="1 0 0"/>
                 <geom type="sphere" size=".1" material="red"/>
                 <geom type="capsule" fromto="0 0 0 0 .4 0" size=".02" rgba="0 1 0 .5"/>
                 <geom type="box" size=".1 .1 .1" group="3"/>
                 <geom type="box" size=".1 .1 .1" rgba="0 0 0 0"/>
                 <site name="target" type="box" pos="0 0 .3" size=".01 .02 .03" rgba="0 0 1 1"/>
               </body>
             </worldbody>
           </mujoco>"#,
    )
    .unwrap();
    let mut sim = Sim::new(&model).unwrap();
    sim.set_state(&[0.25], &[0.0]).unwrap();
    let view = View { lookat: [1.0, 2.0, 3.0], distance: 4.0, azimuth: 30.0, elevation: -10.0, follow: None };
    let scene = sim.scene(&Camera::Free(view));
    assert_eq!((scene.lookat, scene.distance), ([1.0, 2.0, 3.0], 4.0));
    assert_eq!((scene.azimuth, scene.elevation), (30.0, -10.0));
    let forms: Vec<Form> = scene.solids.iter().map(|solid| solid.form).collect();
    // Neither what is in a hidden group nor what is not to be seen.
    assert_eq!(forms, [Form::Plane, Form::Ellipsoid, Form::Capsule, Form::Box]);
    let [plane, ball, capsule, target] = &scene.solids[..] else { unreachable!("counted above") };
    // An endless side has an end in pictures.
    assert_eq!(plane.size, [1.0, 1.0, 0.0]);
    assert_eq!((ball.size, ball.colour, ball.at), ([0.1; 3], [1.0, 0.0, 0.0, 1.0], [0.25, 0.0, 1.0]));
    assert_eq!((capsule.size, capsule.colour), ([0.02, 0.02, 0.2], [0.0, 1.0, 0.0, 0.5]));
    assert!(near(capsule.at, [0.25, 0.2, 1.0]));
    // Its axis, the third column of its rotation, lies along y.
    assert!(capsule.axes[5].abs() > 0.999, "{:?}", capsule.axes);
    assert_eq!(target.size, [0.01, 0.02, 0.03]);
    assert!(near(target.at, [0.25, 0.0, 1.3]));
}

fn near(found: [f32; 3], expected: [f32; 3]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6)
}

#[test]
fn a_task_shows_its_scene_through_its_wrappers_and_is_not_changed_by_it() {
    let mut task = mbrl_env::tasks::make("Reacher-v5").unwrap();
    task.env.reset(Some(3)).unwrap();
    let first = task.env.scene().unwrap();
    let step = task.env.step(&[0.5, -0.5]).unwrap();
    let second = task.env.scene().unwrap();
    assert_eq!(first.solids.len(), second.solids.len());
    assert_ne!(first, second);
    let mut alone = mbrl_env::tasks::make("Reacher-v5").unwrap();
    alone.env.reset(Some(3)).unwrap();
    assert_eq!(alone.env.step(&[0.5, -0.5]).unwrap(), step);
}
