//! Pictures of simulations: they show the state that is there, and leave it as it is.
//!
//! They need EGL and a driver (Debian's libegl1 and libgl1-mesa-dri).
#![cfg(all(feature = "mujoco", target_os = "linux"))]

use std::collections::BTreeSet;

use mbrl_env::{
    Env, EnvError, Frame, Rng, Simulator,
    mujoco::{Camera, Model, MujocoEnv, Renderer, Sim, View},
    tasks::{self, Options, TaskEntry},
};

/// A red ball on a slide before a green one that stands still, seen from the front.
const BALLS: &str = r#"<mujoco>
    <worldbody>
      <light pos="0 -3 3" dir="0 1 -1"/>
      <camera name="front" pos="0 -3 0" xyaxes="1 0 0 0 0 1"/>
      <geom name="still" pos="0 0 0.8" size="0.2" rgba="0 1 0 1"/>
      <body name="ball"><joint name="slide" type="slide" axis="1 0 0"/><geom size="0.3" rgba="1 0 0 1"/></body>
    </worldbody>
    <actuator><motor joint="slide" ctrlrange="-1 1"/></actuator>
  </mujoco>"#;

fn front() -> Camera {
    Camera::Named("front".into())
}

fn balls() -> (Model, Sim) {
    let model = Model::from_xml(BALLS).unwrap();
    let sim = Sim::new(&model).unwrap();
    (model, sim)
}

/// The middle of the pixels that satisfy `is`, in parts of width and height.
fn middle(frame: &Frame, is: impl Fn(&[u8]) -> bool) -> Option<[f64; 2]> {
    let width = frame.width() as usize;
    let found: Vec<usize> = (0..frame.rgb().len() / 3).filter(|i| is(&frame.rgb()[3 * i..3 * i + 3])).collect();
    let mean = |of: &dyn Fn(usize) -> usize| found.iter().map(|i| of(*i) as f64).sum::<f64>() / found.len() as f64;
    let sides = [f64::from(frame.width()), f64::from(frame.height())];
    (!found.is_empty()).then(|| [(mean(&|i| i % width) + 0.5) / sides[0], (mean(&|i| i / width) + 0.5) / sides[1]])
}

fn red(pixel: &[u8]) -> bool {
    pixel[0] > 60 && pixel[1] < 20 && pixel[2] < 20
}

fn green(pixel: &[u8]) -> bool {
    pixel[1] > 60 && pixel[0] < 20 && pixel[2] < 20
}

/// By the laws of perspective: from 3 m away, under 45° of height, one metre is 1 / (2 · 3 · tan 22.5°) = 0.402 of the
/// picture's height. The balls' shading moves the middles by less than 0.02.
#[test]
fn things_are_seen_where_they_are() {
    let (model, mut sim) = balls();
    let metre = 1.0 / (6.0 * 22.5_f64.to_radians().tan());
    for (width, height) in [(160, 120), (301, 203)] {
        let renderer = Renderer::new(&model, width, height, &front()).unwrap();
        let aspect = f64::from(height) / f64::from(width);
        for x in [-0.6, 0.0, 0.6] {
            sim.set_state(&[x], &[0.0]).unwrap();
            let frame = renderer.draw(&sim).unwrap();
            assert_eq!((frame.width(), frame.height()), (width, height));
            let near = |found: [f64; 2], x: f64, y: f64| (found[0] - x).abs() < 0.02 && (found[1] - y).abs() < 0.02;
            let (ball, still) = (middle(&frame, red).unwrap(), middle(&frame, green).unwrap());
            assert!(near(ball, 0.5 + x * metre * aspect, 0.5), "{x}: {ball:?}");
            // The first row is the upper one.
            assert!(near(still, 0.5, 0.5 - 0.8 * metre), "{still:?}");
        }
    }
}

#[test]
fn a_camera_that_follows_keeps_its_body_in_the_middle() {
    let (model, mut sim) = balls();
    let view = View { elevation: 0.0, distance: 3.0, lookat: [0.0; 3], ..View::of(&model) };
    let following = View { follow: Some("ball".into()), ..view };
    let draw = |view: View, sim: &Sim| {
        let frame = Renderer::new(&model, 160, 120, &Camera::Free(view)).unwrap().draw(sim).unwrap();
        middle(&frame, red)
    };
    sim.set_state(&[100.0], &[0.0]).unwrap();
    assert_eq!(draw(view, &sim), None);
    let at = draw(following, &sim).unwrap();
    assert!((at[0] - 0.5).abs() < 0.02, "{at:?}");
}

#[test]
fn every_task_shows_itself_and_its_movements() {
    let mut drawn = 0;
    // `process` is what its options say.
    for entry in tasks::entries().iter().filter(|entry| entry.name() != mbrl_env::process::TASK) {
        let mut env = entry.make(&Options::new()).unwrap().env;
        let spec = env.spec().clone();
        env.reset(Some(0)).unwrap();
        let first = match env.render(120, 90) {
            Err(EnvError::NoPicture { .. }) => continue,
            first => first.unwrap(),
        };
        drawn += 1;
        let colours: BTreeSet<&[u8]> = first.rgb().chunks(3).collect();
        assert!(colours.len() > 20, "{}: {} colours", entry.name(), colours.len());
        assert_eq!(env.render(120, 90).unwrap(), first, "{}: the same state", entry.name());
        let push: Vec<f32> = (0..spec.actions.width()).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        for _ in 0..10 {
            if env.step(&push).unwrap().episode_over() {
                break;
            }
        }
        assert_ne!(env.render(120, 90).unwrap(), first, "{}: ten steps later", entry.name());
        env.reset(Some(0)).unwrap();
        assert_eq!(env.render(120, 90).unwrap(), first, "{}: the same start", entry.name());
    }
    let is_drawn = |entry: &&TaskEntry| entry.needs() == Some("mujoco") || entry.name().ends_with("-pixels");
    assert_eq!(drawn, tasks::entries().iter().filter(is_drawn).count());
}

/// Bits of all observations and rewards of a run of random actions, some of them after a restore.
fn run(env: &mut dyn Simulator, draws: bool) -> Vec<u64> {
    let (spec, mut rng, mut bits) = (env.spec().clone(), Rng::new(3), Vec::new());
    let look = |env: &mut dyn Simulator| {
        if draws {
            env.render(16, 12).unwrap();
        }
    };
    env.reset(Some(1)).unwrap();
    let mut kept = env.save();
    for step in 0..24 {
        look(env);
        if step % 8 == 4 {
            kept = env.save();
        }
        if step % 8 == 7 {
            env.restore(&kept).unwrap();
            look(env);
        }
        let step = env.step(&spec.actions.sample(&mut rng).unwrap()).unwrap();
        bits.extend(step.obs.iter().map(|x| u64::from(x.to_bits())));
        bits.push(step.reward.to_bits());
        if step.episode_over() {
            env.reset(None).unwrap();
        }
    }
    bits
}

#[test]
fn drawing_changes_no_bit_of_a_run() {
    for name in ["HalfCheetah-v5", "Hopper-v5", "pets-pusher"] {
        let env = tasks::make(name).unwrap().env.into_simulator().unwrap();
        let (mut watched, mut alone) = (env.boxed_clone(), env.boxed_clone());
        assert_eq!(run(&mut *watched, true), run(&mut *alone, false), "{name}");
    }
}

#[test]
fn after_a_restore_the_restored_state_is_drawn_in_clones_and_other_threads_too() {
    let mut env = tasks::make("Hopper-v5").unwrap().env.into_simulator().unwrap();
    env.reset(Some(0)).unwrap();
    for _ in 0..3 {
        env.step(&[1.0, -1.0, 0.5]).unwrap();
    }
    let (there, seen) = (env.save(), env.render(80, 60).unwrap());
    for _ in 0..5 {
        env.step(&[-1.0, 1.0, -0.5]).unwrap();
    }
    assert_ne!(env.render(80, 60).unwrap(), seen);
    env.restore(&there).unwrap();
    assert_eq!(env.render(80, 60).unwrap(), seen);
    let mut clone = env.boxed_clone();
    clone.restore(&there).unwrap();
    // Several at a time, and one that was used here before.
    let mut more: Vec<_> = (0..2).map(|_| clone.boxed_clone()).collect();
    more.push(clone);
    more.push(env);
    std::thread::scope(|scope| {
        for mut env in more {
            let seen = &seen;
            scope.spawn(move || {
                assert_eq!(env.render(80, 60).unwrap(), *seen);
                // Another size and back.
                assert_ne!(env.render(60, 80).unwrap(), *seen);
                assert_eq!(env.render(80, 60).unwrap(), *seen);
            });
        }
    });
}

#[test]
fn an_environment_of_ones_own_has_a_camera_of_ones_own() {
    let build = |camera: Option<Camera>| {
        let builder = MujocoEnv::builder(Model::from_xml(BALLS).unwrap());
        let mut env = camera.into_iter().fold(builder, |builder, camera| builder.camera(camera)).build().unwrap();
        env.reset(Some(0)).unwrap();
        env.render(64, 48)
    };
    let (own, whole) = (build(Some(front())).unwrap(), build(None).unwrap());
    assert_ne!(own, whole);
    assert!(middle(&whole, red).is_some() && middle(&whole, green).is_some());
    let told = build(Some(Camera::Named("back".into()))).unwrap_err().to_string();
    assert_eq!(told, "MJCF text has no camera `back`; it has: front");
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let (model, sim) = balls();
    let told = |result: Result<Renderer, EnvError>| result.unwrap_err().to_string();
    for (width, height, expected) in
        [(0, 10, "width = 0"), (10, 0, "height = 0"), (4097, 10, "width = 4097"), (10, u32::MAX, "height = 4294967295")]
    {
        let found = told(Renderer::new(&model, width, height, &front()));
        assert!(found.starts_with(expected), "{found}");
    }
    let view = |change: fn(&mut View)| {
        let mut view = View::of(&model);
        change(&mut view);
        told(Renderer::new(&model, 8, 8, &Camera::Free(view)))
    };
    assert!(view(|v| v.follow = Some("bal".into())).contains("no body `bal`"));
    assert!(view(|v| v.distance = 0.0).contains("distance = 0"));
    assert!(view(|v| v.lookat[1] = f64::NAN).contains("NaN"));

    let other = Sim::new(&balls().0).unwrap();
    let renderer = Renderer::new(&model, 8, 8, &front()).unwrap();
    assert!(renderer.draw(&other).unwrap_err().to_string().contains("another model"));
    assert!(renderer.draw(&sim).is_ok());
}

/// Settings on which the engine ends the process, or never comes to an end.
#[test]
fn models_that_the_engine_cannot_draw_are_refused() {
    let with = |visual: &str, worldbody: &str| {
        let text = BALLS.replace("<worldbody>", &format!("<visual>{visual}</visual><worldbody>{worldbody}"));
        Model::from_xml(&text).map(|model| Renderer::new(&model, 16, 16, &front()).map(drop))
    };
    for visual in [
        r#"<quality numslices="-1"/>"#,
        r#"<quality numstacks="0"/>"#,
        r#"<quality numquads="100000"/>"#,
        r#"<map znear="1e-30"/>"#,
        r#"<map znear="2" zfar="1"/>"#,
    ] {
        let told = with(visual, "").unwrap().unwrap_err().to_string();
        assert!(told.contains("cannot be drawn"), "{visual}: {told}");
    }
    // Sizes of buffers that no driver has are cut down: they are not of the picture that was asked for.
    for visual in [
        r#"<global offwidth="2000000" offheight="2000000"/>"#,
        r#"<global offwidth="0" offheight="-5"/>"#,
        r#"<quality shadowsize="2000000000" offsamples="100000"/>"#,
        r#"<quality shadowsize="-3" offsamples="-2"/>"#,
        r#"<global fovy="179.9"/>"#,
    ] {
        with(visual, "").unwrap().unwrap();
    }
}

/// As large as it gets, with the engine's shadows and smoothed edges.
#[test]
fn the_largest_picture_can_be_drawn() {
    let (model, sim) = balls();
    let frame = Renderer::new(&model, 4096, 4096, &front()).unwrap().draw(&sim).unwrap();
    let at = middle(&frame, red).unwrap();
    assert!((at[0] - 0.5).abs() < 0.02 && (at[1] - 0.5).abs() < 0.02, "{at:?}");
}
