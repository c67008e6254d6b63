//! Nothing that safe code does with MuJoCo ends the process: errors say what is wrong, and after them all goes on.
#![cfg(feature = "mujoco")]

use std::{env, fs, panic, path::Path, process::Command};

use mbrl_env::{
    Env, EnvError, Rng, Simulator, Step,
    mujoco::{Model, MujocoEnv, Sim, models_folder},
    tasks,
};

const MASS: &str = r#"<mujoco>
  <worldbody>
    <body name="mass"><joint name="slide" type="slide" axis="1 0 0"/><geom name="ball" size="0.1" mass="1"/><site name="top"/></body>
  </worldbody>
  <actuator><motor name="push" joint="slide" ctrlrange="-1 1" ctrllimited="true"/></actuator>
</mujoco>"#;

/// [`MASS`] with more in front of its world.
fn mass_with(more: &str) -> String {
    MASS.replace("<worldbody>", &format!("{more}<worldbody>"))
}

/// Free balls, all in one place: each touches each.
fn crowd(balls: usize, memory: &str) -> Result<Model, EnvError> {
    let ball = r#"<body><freejoint/><geom size="0.5" condim="6"/></body>"#.repeat(balls);
    let text = format!(
        r#"<mujoco><size memory="{memory}"/><worldbody>{ball}
             <body><joint name="x" type="slide"/><geom size="0.1" contype="0" conaffinity="0"/></body></worldbody>
           <actuator><motor joint="x"/></actuator></mujoco>"#
    );
    Model::from_xml(&text)
}

/// A pendulum that throws itself about until the numbers do not suffice: torques of 1e9 Nm.
fn violent() -> MujocoEnv {
    let text = r#"<mujoco>
      <option timestep="0.05" integrator="Euler"/>
      <worldbody>
        <body><joint name="a" type="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 1" size="0.05"/>
          <body pos="0 0 1"><joint type="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 1" size="0.05"/></body>
        </body>
      </worldbody>
      <actuator><motor joint="a" gear="1e9" ctrlrange="-1 1"/></actuator>
    </mujoco>"#;
    let model = Model::from_xml(text).unwrap();
    MujocoEnv::builder(model)
        .name("violent")
        .start(|qpos, _, rng| qpos[0] = rng.uniform_f64(-1.0, 1.0))
        .build()
        .unwrap()
}

/// Steps under full torque until something breaks.
fn until_error(env: &mut dyn Env) -> EnvError {
    (0..1000).find_map(|_| env.step(&[1.0]).err()).expect("it breaks down")
}

fn bits(step: &Step) -> Vec<u32> {
    step.obs.iter().map(|x| x.to_bits()).chain([(step.reward as f32).to_bits()]).collect()
}

#[test]
fn broken_models_are_refused_with_the_engines_reason() {
    let cheetah = fs::read_to_string(models_folder().unwrap().join("half_cheetah.xml")).unwrap();
    let cases = [
        ("nothing", String::new(), "empty file"),
        ("cut short", cheetah[..cheetah.len() / 2].to_owned(), "XML parse error"),
        ("no MJCF", "<html></html>".to_owned(), "Unrecognized XML model type"),
        ("NUL inside", mass_with("\0"), "XML"),
        ("unknown element", mass_with("<wheels/>"), "wheels"),
        ("unknown attribute", MASS.replace("axis=", "axle="), "axle"),
        ("no number", MASS.replace("1 0 0", "one 0 0"), "axis"),
        ("NaN", MASS.replace("size=\"0.1\"", "size=\"nan\""), "size"),
        ("too few numbers", MASS.replace("1 0 0", "1 0"), "axis"),
        ("negative mass", MASS.replace("mass=\"1\"", "mass=\"-1\""), "mass"),
        ("no mass", MASS.replace("mass=\"1\"", "mass=\"0\""), "mass"),
        ("no such joint", MASS.replace("joint=\"slide\"", "joint=\"slid\""), "slid"),
        ("name used twice", MASS.replace("</worldbody>", "<body name=\"mass\"/></worldbody>"), "mass"),
        ("missing mesh", mass_with("<asset><mesh name=\"m\" file=\"no-such.stl\"/></asset>"), "no-such.stl"),
        (
            "missing height field",
            mass_with("<asset><hfield name=\"h\" file=\"no.png\" size=\"1 1 1 1\"/></asset>"),
            "no.png",
        ),
        ("missing plugin", mass_with("<extension><plugin plugin=\"no.such\"/></extension>"), "no.such"),
        ("missing file", mass_with("<include file=\"no-such.xml\"/>"), "no-such.xml"),
        ("zero timestep", mass_with("<option timestep=\"0\"/>"), "timestep"),
        ("negative timestep", mass_with("<option timestep=\"-0.01\"/>"), "timestep"),
        ("infinite timestep", mass_with("<option timestep=\"inf\"/>"), "timestep"),
        ("memory beyond all machines", mass_with("<size memory=\"4000000G\"/>"), "memory"),
    ];
    for (what, text, needle) in cases {
        match Model::from_xml(&text) {
            Err(EnvError::Malformed { what: "MJCF text", reason }) => {
                assert!(reason.contains(needle), "{what}: {reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn files_that_are_no_models_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let told = |path: &Path| Model::load(path).unwrap_err();

    assert!(matches!(told(&path("none.xml")), EnvError::Io { .. }));
    assert!(matches!(told(folder.path()), EnvError::Io { .. }), "a folder");
    assert!(matches!(told(Path::new("a\0b.xml")), EnvError::Io { .. }), "a NUL character");

    fs::write(path("latin.xml"), [&b"<mujoco><worldbody><body name=\"caf\xe9\"/></worldbody></mujoco>"[..]].concat())
        .unwrap();
    let latin = told(&path("latin.xml")).to_string();
    assert!(latin.contains("latin.xml") && latin.contains("UTF-8"), "{latin}");

    fs::write(path("self.xml"), "<mujoco><include file=\"self.xml\"/></mujoco>").unwrap();
    let itself = told(&path("self.xml")).to_string();
    assert!(itself.contains("self.xml"), "{itself}");

    fs::write(path("broken.xml"), "<mujoco><worldbody>").unwrap();
    let broken = told(&path("broken.xml")).to_string();
    assert!(broken.contains("broken.xml") && broken.contains("XML"), "{broken}");

    let deep = 100_000;
    fs::write(
        path("deep.xml"),
        format!("<mujoco>{}{}</mujoco>", "<worldbody>".repeat(deep), "</worldbody>".repeat(deep)),
    )
    .unwrap();
    assert!(matches!(told(&path("deep.xml")), EnvError::Format { .. }));

    #[cfg(target_os = "linux")]
    {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let path = folder.path().join(OsStr::from_bytes(b"\xff.xml"));
        fs::write(&path, MASS).unwrap();
        let named = told(&path).to_string();
        assert!(named.contains("UTF-8"), "{named}");
    }
}

#[test]
fn unknown_parts_are_answered_with_the_known_ones() {
    let model = Model::from_xml(MASS).unwrap();
    let told = [model.body("x"), model.joint("x\0y"), model.actuator(""), model.site("ö"), model.geom("ball ")];
    let told = told.map(|found| found.unwrap_err().to_string());
    let expected = [
        "MJCF text has no body `x`; it has: world, mass",
        "MJCF text has no joint `x\0y`; it has: slide",
        "MJCF text has no actuator ``; it has: push",
        "MJCF text has no site `ö`; it has: top",
        "MJCF text has no geom `ball `; it has: ball",
    ];
    assert_eq!(told, expected);
    let nameless = Model::from_xml("<mujoco/>").unwrap();
    assert_eq!(nameless.joint("x").unwrap_err().to_string(), "MJCF text has no joint `x`; it has: none with a name");
}

#[test]
fn models_without_something_to_see_or_to_do_make_no_environment() {
    let cases = [
        ("<mujoco/>".to_owned(), "observes nothing"),
        (
            MASS.replace("<motor name=\"push\" joint=\"slide\" ctrlrange=\"-1 1\" ctrllimited=\"true\"/>", ""),
            "no actuator",
        ),
    ];
    for (text, needle) in cases {
        let told = MujocoEnv::builder(Model::from_xml(&text).unwrap()).build().unwrap_err().to_string();
        assert!(told.contains(needle), "{told}");
    }
    let still = MujocoEnv::builder(Model::from_xml(MASS).unwrap()).frame_skip(0).build().unwrap_err();
    assert!(matches!(still, EnvError::Config { field: "frame_skip", .. }));
}

#[test]
fn states_and_controls_are_checked_before_the_engine_sees_them() {
    let mut sim = Sim::new(&Model::from_xml(MASS).unwrap()).unwrap();
    sim.set_state(&[0.5], &[0.0]).unwrap();
    assert!(matches!(sim.set_state(&[], &[0.0]), Err(EnvError::Width { .. })));
    assert!(matches!(sim.set_state(&[0.0], &[0.0, 0.0]), Err(EnvError::Width { .. })));
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e11, -1e300] {
        assert!(matches!(sim.set_state(&[bad], &[0.0]), Err(EnvError::Malformed { what: "qpos", .. })));
        assert!(matches!(sim.set_state(&[0.0], &[bad]), Err(EnvError::Malformed { what: "qvel", .. })));
    }
    assert!(matches!(sim.step(&[], 1), Err(EnvError::Width { .. })));
    assert!(matches!(sim.step(&[0.0; 2], 1), Err(EnvError::Width { .. })));
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(matches!(sim.step(&[bad], 1), Err(EnvError::NonFinite { .. })));
    }
    assert_eq!((sim.qpos(), sim.time()), (&[0.5][..], 0.0), "refusals change nothing");
    // Within its limits a control may be asked for at any size: it is clipped.
    sim.step(&[f32::MAX], 1).unwrap();
    // Without limits it may not.
    let unlimited = MASS.replace("ctrlrange=\"-1 1\" ctrllimited=\"true\"", "");
    let mut sim = Sim::new(&Model::from_xml(&unlimited).unwrap()).unwrap();
    let told = sim.step(&[f32::MAX], 1).unwrap_err().to_string();
    assert!(told.contains("CTRL"), "{told}");
}

/// What the engine cannot do would end the process: here contacts leave too little memory for the solver.
#[test]
fn a_fatal_error_of_the_engine_is_an_error_as_often_as_it_comes() {
    let crowded = crowd(60, "11M").unwrap();
    let calm = Model::from_xml(MASS).unwrap();
    for _ in 0..3 {
        let mut sim = Sim::new(&crowded).unwrap();
        for _ in 0..3 {
            let told = sim.step(&[0.0], 1).unwrap_err();
            assert!(matches!(&told, EnvError::Simulation { reason, .. } if reason.contains("out of memory")), "{told}");
            let copy = sim.clone();
            assert_eq!(copy.qpos(), sim.qpos());
        }
        // Another simulation on this thread goes on as if nothing had been.
        let mut sim = Sim::new(&calm).unwrap();
        sim.step(&[1.0], 10).unwrap();
        assert!(sim.qpos()[0] > 0.0);
    }
    // Apart, the balls have room: the same simulation works after the error.
    let mut sim = Sim::new(&crowded).unwrap();
    assert!(sim.step(&[0.0], 1).is_err());
    let mut qpos = crowded.inner().qpos0().to_vec();
    for (index, pose) in qpos.as_chunks_mut::<7>().0.iter_mut().enumerate() {
        pose[0] = 2.0 * index as f64;
    }
    let qvel = vec![0.0; crowded.nv()];
    let mut fresh = Sim::new(&crowded).unwrap();
    for sim in [&mut sim, &mut fresh] {
        sim.set_state(&qpos, &qvel).unwrap();
        sim.step(&[1.0], 20).unwrap();
    }
    assert_eq!(sim.qpos(), fresh.qpos());
}

/// Contacts, constraints or the solver's own numbers: whatever of a crowd does not fit, no size of the memory ends the
/// process, and enough of it is enough.
#[test]
fn no_size_of_the_memory_ends_the_process() {
    for memory in ["1K", "3K", "10K", "100K", "300K", "1M", "3M", "5M", "7M", "9M", "12M", "15M"] {
        match crowd(60, memory) {
            Ok(model) => {
                let told = Sim::new(&model).unwrap().step(&[0.0], 1).unwrap_err();
                assert!(
                    matches!(&told, EnvError::Simulation { reason, .. } if reason.contains("memory")),
                    "{memory}: {told}"
                );
            }
            Err(error) => assert!(error.to_string().contains("memory"), "{memory}: {error}"),
        }
    }
    Sim::new(&crowd(60, "30M").unwrap()).unwrap().step(&[0.0], 1).unwrap();
}

#[test]
fn a_diverged_episode_is_over_and_the_next_is_as_new() {
    let mut env = violent();
    env.reset(Some(1)).unwrap();
    let told = until_error(&mut env).to_string();
    assert!(told.contains("broke down at") && told.contains("unstable"), "{told}");
    assert!(!told.contains("at 0.000 s"), "the time is of the last step that was well: {told}");
    let again = env.step(&[0.0]).unwrap_err();
    assert!(matches!(again, EnvError::NeedsReset { why: "the episode is over", .. }));

    let mut fresh = violent();
    assert_eq!(env.reset(Some(2)).unwrap(), fresh.reset(Some(2)).unwrap());
    for _ in 0..20 {
        assert_eq!(bits(&env.step(&[1e-9]).unwrap()), bits(&fresh.step(&[1e-9]).unwrap()));
    }
    // Of the generator too.
    assert_eq!(env.reset(None).unwrap(), fresh.reset(None).unwrap());
}

#[test]
fn a_diverged_simulation_restores_what_was_saved_before() {
    let mut env = violent();
    env.reset(Some(1)).unwrap();
    let gentle = [1e-9];
    env.step(&gentle).unwrap();
    let saved = env.save();
    let expected: Vec<_> = (0..20).map(|_| bits(&env.step(&gentle).unwrap())).collect();
    until_error(&mut env);
    let over = env.save();
    env.restore(&saved).unwrap();
    let restored: Vec<_> = (0..20).map(|_| bits(&env.step(&gentle).unwrap())).collect();
    assert_eq!(restored, expected);
    env.restore(&over).unwrap();
    assert!(matches!(env.step(&gentle), Err(EnvError::NeedsReset { .. })), "saved after the breakdown");
}

#[test]
fn snapshots_of_another_model_are_foreign_even_of_the_same_text() {
    let env = |text: &str| MujocoEnv::builder(Model::from_xml(text).unwrap()).build().unwrap();
    let (mut one, mut other) = (env(MASS), env(MASS));
    one.reset(Some(0)).unwrap();
    other.reset(Some(0)).unwrap();
    assert!(matches!(other.restore(&one.save()), Err(EnvError::ForeignSnapshot { .. })));
    let mut clone = one.boxed_clone();
    clone.restore(&one.save()).unwrap();
    // The same model under other rules: what these have measured means something else there.
    let model = Model::from_xml(MASS).unwrap();
    let mut plain = MujocoEnv::builder(model.clone()).build().unwrap();
    let change = |before: &[f64], sim: &Sim, _: &[f32]| sim.qpos()[0] - before[0];
    let moves = MujocoEnv::builder(model).reward_of_change(|sim, measured| measured.push(sim.qpos()[0]), change);
    let mut moves = moves.build().unwrap();
    plain.reset(Some(0)).unwrap();
    moves.reset(Some(0)).unwrap();
    assert!(matches!(moves.restore(&plain.save()), Err(EnvError::ForeignSnapshot { .. })));
}

#[test]
fn rules_that_break_their_word_are_named_and_end_the_episode() {
    let model = || Model::from_xml(MASS).unwrap();
    let moved = |sim: &Sim| sim.time() > 0.015;

    let mut grows = MujocoEnv::builder(model())
        .observe(move |sim, obs| obs.resize(if moved(sim) { 3 } else { 2 }, 0.0))
        .build()
        .unwrap();
    let mut blind = MujocoEnv::builder(model())
        .observe(move |sim, obs| obs.push(if moved(sim) { f64::NAN } else { 0.0 }))
        .build()
        .unwrap();
    // Finite in `f64` alone.
    let mut huge = MujocoEnv::builder(model())
        .observe(move |sim, obs| obs.push(if moved(sim) { 1e300 } else { 0.0 }))
        .build()
        .unwrap();
    let mut greedy =
        MujocoEnv::builder(model()).reward(move |sim, _| if moved(sim) { f64::INFINITY } else { 0.0 }).build().unwrap();
    let cases = [
        (&mut grows, "observation has 3 entries, expected 2"),
        (&mut blind, "entry 0 of the observation is NaN"),
        (&mut huge, "entry 0 of the observation is inf"),
        (&mut greedy, "the reward is inf"),
    ];
    for (env, needle) in cases {
        env.reset(Some(0)).unwrap();
        let told = until_error(env).to_string();
        assert!(told.contains(needle), "{told}");
        assert!(matches!(env.step(&[0.0]), Err(EnvError::NeedsReset { why: "the episode is over", .. })), "{needle}");
        env.reset(Some(0)).unwrap();
        env.step(&[0.0]).unwrap();
    }

    // A start that is no state, or cannot be observed.
    for start in [f64::NAN, 1e300] {
        let mut lost = MujocoEnv::builder(model()).start(move |qpos, _, _| qpos[0] = start).build().unwrap();
        assert!(matches!(lost.reset(Some(0)), Err(EnvError::Malformed { what: "qpos", .. })));
        assert!(matches!(lost.step(&[0.0]), Err(EnvError::NeedsReset { why: "no episode has begun", .. })));
    }
}

#[test]
fn a_panic_of_a_rule_ends_the_episode_and_no_more() {
    let mut env = MujocoEnv::builder(Model::from_xml(MASS).unwrap())
        .reward(|sim, _| if sim.time() > 0.015 { panic!("a rule of one's own") } else { 0.0 })
        .build()
        .unwrap();
    let mut fresh = env.clone();
    env.reset(Some(0)).unwrap();
    let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| until_error(&mut env))).unwrap_err();
    assert_eq!(caught.downcast_ref::<&str>(), Some(&"a rule of one's own"));
    assert!(matches!(env.step(&[0.0]), Err(EnvError::NeedsReset { .. })));
    assert_eq!(env.reset(Some(3)).unwrap(), fresh.reset(Some(3)).unwrap());
    assert_eq!(bits(&env.step(&[1.0]).unwrap()), bits(&fresh.step(&[1.0]).unwrap()));
}

/// By itself the engine prints its warnings and appends them to a file in the working folder.
#[test]
fn the_engine_neither_prints_nor_writes() {
    const CHILD: &str = "MBRL_TEST_QUIET";
    if env::var_os(CHILD).is_some() {
        let mut env = violent();
        env.reset(Some(1)).unwrap();
        until_error(&mut env);
        assert!(Sim::new(&crowd(60, "11M").unwrap()).unwrap().step(&[0.0], 1).is_err());
        assert!(Sim::new(&crowd(60, "1M").unwrap()).unwrap().step(&[0.0], 1).is_err());
        assert!(Model::from_xml(&mass_with("<wheels/>")).is_err());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ran = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_engine_neither_prints_nor_writes", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        // Everything that the engine could tell of itself.
        .env("MUJOCO_LOG_TOPICS", "sleep,compile,step")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    assert_eq!(err, "");
    let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() == 3 && lines[0] == "running 1 test", "more than the test's own lines: {out}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a file was written");
}

/// Numbers for an attribute that were once right.
const STRANGE: &[&str] = &[
    "nan",
    "inf",
    "-inf",
    "0",
    "-1",
    "1e300",
    "-1e300",
    "1e-300",
    "1e10",
    "1e20",
    "",
    "abc",
    "1 2 3",
    "2147483647",
    "0.5",
];

/// Settings that change what the engine does.
const SETTINGS: &[&str] = &[
    r#"<option integrator="RK4"/>"#,
    r#"<option integrator="implicit"/>"#,
    r#"<option integrator="implicitfast"/>"#,
    r#"<option solver="PGS" noslip_iterations="5"/>"#,
    r#"<option solver="CG" cone="elliptic" iterations="0"/>"#,
    r#"<option jacobian="sparse" impratio="0"/>"#,
    r#"<option timestep="1e-300"/>"#,
    r#"<option timestep="1e300"/>"#,
    r#"<option><flag sleep="enable" energy="enable" multiccd="enable"/></option>"#,
    r#"<option><flag autoreset="disable"/></option>"#,
    r#"<size memory="1"/>"#,
    r#"<size memory="20K"/>"#,
    r#"<size nconmax="1" njmax="1"/>"#,
];

/// Gymnasium's models with one to three errors: other numbers, cut files, other bytes, lines lost or doubled, settings.
fn mutated(text: &str, rng: &mut Rng) -> String {
    let mut text = text.to_owned();
    let pick = |rng: &mut Rng, below: usize| rng.below(below);
    for _ in 0..=pick(rng, 3) {
        match pick(rng, 10) {
            0..6 => {
                let starts: Vec<usize> = text.match_indices("=\"").map(|(at, _)| at + 2).collect();
                let Some(&from) = starts.get(pick(rng, starts.len().max(1))) else { continue };
                let to = text[from..].find('"').map_or(text.len(), |length| from + length);
                let mut words: Vec<&str> = text[from..to].split_whitespace().collect();
                let strange = STRANGE[pick(rng, STRANGE.len())];
                if words.is_empty() {
                    words.push(strange);
                } else {
                    let word = pick(rng, words.len());
                    words[word] = strange;
                }
                let words = words.join(" ");
                text.replace_range(from..to, &words);
            }
            6 => text.truncate(pick(rng, text.len().max(1))),
            7 => {
                let at = pick(rng, text.len().max(1));
                let other = char::from(1 + pick(rng, 126) as u8).to_string();
                if at < text.len() {
                    text.replace_range(at..=at, &other);
                }
            }
            8 => {
                let mut lines: Vec<&str> = text.lines().collect();
                let line = pick(rng, lines.len().max(1));
                match lines.get(line).copied() {
                    Some(_) if pick(rng, 2) == 0 => drop(lines.remove(line)),
                    Some(doubled) => lines.insert(line, doubled),
                    None => {}
                }
                text = lines.join("\n");
            }
            _ => {
                let setting = SETTINGS[pick(rng, SETTINGS.len())];
                text = text.replacen("<worldbody>", &format!("{setting}<worldbody>"), 1);
            }
        }
    }
    text
}

/// Loads and steps; whether there was a model, and whether it ran.
fn try_out(text: &str, rng: &mut Rng) -> (bool, bool) {
    let Ok(model) = Model::from_xml(text) else { return (false, false) };
    let Ok(mut sim) = Sim::new(&model) else { return (true, false) };
    let _ = sim.set_state(&vec![1e9; model.nq()], &vec![-1e9; model.nv()]);
    let _ = sim.set_state(model.inner().qpos0(), &vec![0.0; model.nv()]);
    let mut ran = true;
    for exponent in 0..10 {
        let ctrl: Vec<f32> =
            (0..model.nu()).map(|_| rng.uniform_f64(-1.0, 1.0) as f32 * 10_f32.powi(exponent)).collect();
        ran &= sim.step(&ctrl, 2).and_then(|()| sim.compute_body_forces()).is_ok();
    }
    (true, ran)
}

fn mutants(count: u64) {
    let mut texts: Vec<String> = fs::read_dir(models_folder().unwrap())
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    texts.sort();
    let mut rng = Rng::new(0);
    let (mut loaded, mut ran) = (0, 0);
    for _ in 0..count {
        let text = mutated(&texts[rng.below(texts.len())], &mut rng);
        let outcome = try_out(&text, &mut rng);
        loaded += u64::from(outcome.0);
        ran += u64::from(outcome.1);
    }
    // The errors are of all kinds: some refused, some found out when it runs, some harmless.
    assert!(loaded < count && ran < loaded && ran > 0, "{loaded} loaded and {ran} ran of {count}");
}

#[test]
fn models_with_errors_in_them_never_end_the_process() {
    mutants(300);
}

#[test]
#[ignore = "twenty thousand models take about a minute"]
fn many_models_with_errors_in_them_never_end_the_process() {
    mutants(20_000);
}

#[test]
fn options_of_tasks_that_break_a_rule_are_named() {
    let told = |name, options| tasks::make_with(name, options).map(|_| ()).unwrap_err().to_string();
    let missing = told("HalfCheetah-v5", serde_json::json!({ "xml_file": "no-such.xml" }));
    assert!(missing.contains("no-such.xml") && missing.contains("get-mujoco"), "{missing}");
    let other = told("Hopper-v5", serde_json::json!({ "frame_skip": 0 }));
    assert!(other.contains("frame_skip = 0"), "{other}");
}
