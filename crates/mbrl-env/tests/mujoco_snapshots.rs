//! Snapshots are exact: from one on, 500 steps give the same bits, in the same simulator and in clones of any past.
#![cfg(feature = "mujoco")]

use std::thread;

use mbrl_env::{
    Delay, Env, Noise, Rng, Simulator, TimeLimit,
    mujoco::{Model, MujocoEnv},
    tasks,
};

const BEFORE: usize = 100;
const AFTER: usize = 500;

fn actions(env: &dyn Simulator, count: usize, rng: &mut Rng) -> Vec<Vec<f32>> {
    (0..count).map(|_| env.spec().actions.sample(rng).unwrap()).collect()
}

/// Every bit of what the steps gave, with a reset at each end.
fn go_on(env: &mut dyn Simulator, actions: &[Vec<f32>]) -> Vec<u64> {
    let mut bits = Vec::new();
    for action in actions {
        let step = env.step(action).unwrap();
        bits.extend(step.obs.iter().map(|x| u64::from(x.to_bits())));
        bits.extend([step.reward.to_bits(), u64::from(step.terminated), u64::from(step.truncated)]);
        bits.extend(step.info.values().map(|x| x.to_bits()));
        if step.episode_over() {
            let start = env.reset(None).unwrap();
            bits.extend(start.iter().map(|x| u64::from(x.to_bits())));
        }
    }
    bits
}

fn simulator(task: &str) -> Box<dyn Simulator> {
    tasks::make(task).unwrap().env.into_simulator().unwrap()
}

fn assert_exact(name: &str, mut env: Box<dyn Simulator>) {
    let mut rng = Rng::new(1);
    // Made before anything happens, and used only at the end.
    let mut early = env.boxed_clone();
    env.reset(Some(11)).unwrap();
    let before = actions(&*env, BEFORE, &mut rng);
    go_on(&mut *env, &before);
    let saved = env.save();
    let after = actions(&*env, AFTER, &mut rng);
    let expected = go_on(&mut *env, &after);

    env.restore(&saved).unwrap();
    assert!(go_on(&mut *env, &after) == expected, "{name}: restored in place");
    // In the midst of another episode, of other random numbers.
    env.reset(Some(12)).unwrap();
    go_on(&mut *env, &before[..37]);
    let mut late = env.boxed_clone();
    env.restore(&saved).unwrap();
    assert!(go_on(&mut *env, &after) == expected, "{name}: restored after another episode");
    // Clones, each on a thread of its own.
    late.reset(Some(13)).unwrap();
    thread::scope(|scope| {
        for (what, clone) in [("a clone that has done nothing", &mut early), ("a clone of another past", &mut late)] {
            let (saved, after, expected) = (&saved, &after, &expected);
            scope.spawn(move || {
                clone.restore(saved).unwrap();
                assert!(go_on(&mut **clone, after) == *expected, "{name}: {what}");
            });
        }
    });
}

#[test]
fn of_every_task() {
    // `process` is what its options say.
    for entry in tasks::entries().iter().filter(|entry| entry.name() != mbrl_env::process::TASK) {
        assert_exact(entry.name(), simulator(entry.name()));
    }
}

#[test]
fn midway_in_wrappers() {
    let task = || simulator("Hopper-v5");
    let width = task().spec().obs.width();
    assert_exact("noise", Box::new(Noise::new(task()).on_actions([0.1; 3]).unwrap()));
    assert_exact("delay of actions", Box::new(Delay::actions(task(), 3)));
    let seen_late = Delay::observations(Noise::new(task()).on_observations(vec![0.01; width]).unwrap(), 2);
    assert_exact("delay of noisy observations", Box::new(TimeLimit::new(seen_late, 7).unwrap()));
}

/// Whatever of the engine has a state or takes short cuts: integrators, activations, delays, mocap bodies, equality
/// constraints, contacts, bodies that sleep.
#[test]
fn of_every_part_of_the_engine() {
    let plane = r#"<geom type="plane" size="5 5 1"/>"#;
    let arm = r#"<body pos="0 0 1"><joint name="j" type="hinge" axis="0 1 0" range="-90 90" frictionloss="0.1" damping="0.1"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.9" size="0.05"/>
        <body pos="0 0 -0.9"><joint name="k" type="ball"/><geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.05"/>
          <site name="tip" pos="0 0 -0.5"/></body></body>"#;
    let motor = r#"<motor joint="j" ctrlrange="-1 1"/>"#;
    let scene = |option: &str, bodies: &str, actuators: &str, more: &str| {
        format!(
            "<mujoco><option timestep=\"0.005\"{option}<worldbody>{plane}{bodies}</worldbody>\
             <actuator>{actuators}</actuator>{more}</mujoco>"
        )
    };
    let ball = r#"<body pos="0.3 0 1.5"><freejoint/><geom size="0.2" condim="6"/></body>"#;
    let balls = ball.repeat(2).replacen("0.3 0 1.5", "0 3 0.2", 1);
    let models = [
        ("Euler", scene("/>", arm, motor, "")),
        ("RK4", scene(" integrator=\"RK4\"/>", arm, motor, "")),
        ("implicit", scene(" integrator=\"implicit\"/>", arm, motor, "")),
        ("implicitfast", scene(" integrator=\"implicitfast\"/>", arm, motor, "")),
        ("Newton with contacts", scene("/>", &[arm, &balls].concat(), motor, "")),
        ("PGS with contacts", scene(" solver=\"PGS\"/>", &[arm, &balls].concat(), motor, "")),
        ("CG with elliptic cones", scene(" solver=\"CG\" cone=\"elliptic\"/>", &[arm, &balls].concat(), motor, "")),
        ("sleep", scene("><flag sleep=\"enable\"/></option>", &[arm, &balls].concat(), motor, "")),
        (
            "activations",
            scene(
                "/>",
                arm,
                r#"<general joint="j" ctrlrange="-1 1" dyntype="integrator" gainprm="5" actlimited="true" actrange="-1 1"/>
                   <general joint="j" ctrlrange="-1 1" dyntype="filter" dynprm="0.1" gainprm="5"/>
                   <position joint="j" ctrlrange="-1 1" kp="5" timeconst="0.2"/>"#,
                "",
            ),
        ),
        ("a delayed motor", scene("/>", arm, r#"<motor joint="j" ctrlrange="-1 1" nsample="8" delay="0.02"/>"#, "")),
        (
            "a mocap body and a weld",
            scene(
                "/>",
                &[arm, r#"<body name="m" mocap="true" pos="0 0 2"/>"#, &ball.replace("<body", "<body name=\"b\"")]
                    .concat(),
                motor,
                r#"<equality><weld body1="m" body2="b"/></equality>"#,
            ),
        ),
    ];
    for (name, text) in models {
        let model = Model::from_xml(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sleeps = name == "sleep";
        let env = MujocoEnv::builder(model)
            .frame_skip(3)
            .observe(|sim, obs| {
                obs.extend(sim.qpos().iter().chain(sim.qvel()));
                obs.extend(sim.data().act());
            })
            .start(|_, qvel, rng| qvel[0] += rng.uniform_f64(-1.0, 1.0))
            .reward(move |sim, _| {
                // The ball that lies still is asleep when the state is saved, or this would show nothing.
                assert!(!sleeps || sim.time() < 1.0 || sim.data().ntree_awake() < 3, "nothing sleeps");
                sim.xpos(1)[2]
            })
            .build()
            .unwrap();
        assert_exact(name, Box::new(TimeLimit::new(env, 170).unwrap()));
    }
}
