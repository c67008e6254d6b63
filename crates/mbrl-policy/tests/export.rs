//! Policies in files: the same bits come back, NumPy computes the same, and whatever is wrong with a file is said.

use std::{fs, path::Path};

use mbrl_env::{ActionSpace, BoxSpace, EnvSpec, Field, Rng};
use mbrl_model::Activation;
use mbrl_policy::{
    ActMode, Actor, ActorConfig, ActorHead, AgentError, ExportedPolicy, Policy, PolicyDraw, PolicyInfo,
    StochasticConfig,
};
use serde::Deserialize;

/// An angle in degrees, one in radians, two plain columns of one field; an action of one fixed and two free entries.
fn spec(actions: ActionSpace) -> EnvSpec {
    let width = actions.width();
    let fields = [
        Field::linear("speed", "m/s").with_shape([2]),
        Field::angle("heading").with_turn(360.0),
        Field::angle("hinge"),
    ];
    EnvSpec::new("arm", BoxSpace::unbounded(4), actions, 0.05)
        .with_fields(fields)
        .and_then(|spec| {
            let names = (0..width).map(|i| Field::linear(format!("motor {i}"), "N m")).collect::<Vec<_>>();
            spec.with_action_fields(names)
        })
        .unwrap()
}

fn motors() -> ActionSpace {
    ActionSpace::Box(BoxSpace::new([-2.0, 0.5, -1e30], [2.0, 0.5, 1.0]).unwrap())
}

const GAUSSIAN: ActorHead = ActorHead::Gaussian { log_std: [-5.0, 1.5] };
const DETERMINISTIC: ActorHead = ActorHead::Deterministic { exploration: 0.3 };

fn observations(rows: usize) -> Vec<f32> {
    let mut rng = Rng::new(5);
    (0..rows).flat_map(|_| [rng.normal(), rng.normal(), 180.0 * rng.normal(), 2.0 * rng.normal()]).collect()
}

/// Each kind of policy, with weights that say something.
fn policies() -> Vec<(&'static str, ExportedPolicy)> {
    let mut rng = Rng::new(7);
    let mut all = Vec::new();
    let info = |spec: &EnvSpec| PolicyInfo::of(spec).learned_by("sac", 1234);
    for (name, head, activation, layer_norm, angles, normalize) in [
        ("sac", GAUSSIAN, Activation::Relu, false, true, true),
        ("td3", DETERMINISTIC, Activation::Silu, true, true, false),
        ("elu", GAUSSIAN, Activation::Elu, true, false, true),
        ("mish", DETERMINISTIC, Activation::Mish, false, false, false),
    ] {
        let spec = spec(motors());
        let config =
            ActorConfig { hidden: vec![6, 5], activation, layer_norm, angles, normalize, ..ActorConfig::default() };
        let mut actor = config.init(&spec, head, &mut rng).unwrap();
        actor.observe(&observations(50));
        all.push((name, ExportedPolicy::new(info(&spec), stirred(actor, &mut rng)).unwrap()));
    }
    for (name, actions) in [("npg", motors()), ("choices", ActionSpace::Discrete(4))] {
        let spec = spec(actions);
        let config = StochasticConfig { hidden: vec![6], normalize: true, ..StochasticConfig::default() };
        let mut policy = config.init(&spec, &mut rng).unwrap();
        policy.observe(&observations(50));
        let parameters: Vec<f32> = policy.parameters().iter().map(|_| 0.7 * rng.normal()).collect();
        policy.set_parameters(&parameters);
        all.push((name, ExportedPolicy::new(info(&spec), policy).unwrap()));
    }
    let linear = ActorConfig { hidden: Vec::new(), ..ActorConfig::default() };
    let actor = linear.init(&spec(motors()), GAUSSIAN, &mut rng).unwrap();
    all.push(("linear", ExportedPolicy::new(info(&spec(motors())), actor).unwrap()));
    all
}

/// All parameters other than at first, gains and shifts of layer norm among them.
fn stirred(mut actor: Actor, rng: &mut Rng) -> Actor {
    let parameters: Vec<f32> = actor.network().parameters().iter().map(|x| x + 0.3 * rng.normal()).collect();
    actor.network_mut().set_parameters(&parameters);
    actor
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn load(folder: &Path, bytes: &[u8]) -> Result<ExportedPolicy, AgentError> {
    let path = folder.join("policy.safetensors");
    fs::write(&path, bytes).unwrap();
    ExportedPolicy::load(&path)
}

#[test]
fn a_policy_comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let obs = observations(70);
    for (name, policy) in policies() {
        let path = folder.path().join(format!("{name}.safetensors"));
        policy.save(&path).unwrap();
        let loaded = ExportedPolicy::load(&path).unwrap();
        assert_eq!(loaded.info(), policy.info(), "{name}");
        for mode in [ActMode::Evaluate, ActMode::Explore] {
            let draw = PolicyDraw::new(11).at_step(3);
            assert_eq!(bits(&loaded.act(&obs, mode, draw)), bits(&policy.act(&obs, mode, draw)), "{name}, {mode:?}");
        }
        assert_eq!(loaded.to_bytes(), policy.to_bytes(), "{name}: equal policies are equal files");
    }
}

#[test]
fn it_says_what_it_was_learned_for() {
    let (_, policy) = &policies()[0];
    let info = policy.info();
    assert_eq!(
        (info.task.as_str(), info.agent.as_str(), info.env_step, info.control_period),
        ("arm", "sac", 1234, 0.05)
    );
    assert_eq!(info.obs_names, ["speed[0]", "speed[1]", "heading", "hinge"]);
    assert_eq!(info.obs_units[..2], ["m/s", "m/s"]);
    assert_eq!((info.action_names[2].as_str(), info.action_units[2].as_str()), ("motor 2", "N m"));
}

#[test]
fn observations_and_descriptions_that_do_not_fit_are_refused() {
    let (_, policy) = &policies()[0];
    let error = |obs: &[f32]| policy.action(obs).unwrap_err().to_string();
    assert!(error(&[0.0; 3]).contains("observation of arm"), "{}", error(&[0.0; 3]));
    assert!(error(&[0.0, f32::NAN, 0.0, 0.0]).contains("observation of arm"));
    let other = EnvSpec::new("point", BoxSpace::unbounded(3), motors(), 0.1);
    let actor = ActorConfig::default().init(&spec(motors()), GAUSSIAN, &mut Rng::new(0)).unwrap();
    assert!(matches!(ExportedPolicy::new(PolicyInfo::of(&other), actor), Err(AgentError::Env(_))));
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.safetensors");
    fs::write(&path, "something dear").unwrap();
    let error = policies()[0].1.save(&path).unwrap_err().to_string();
    assert!(error.contains("policy.safetensors") && error.contains("exists"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"something dear");
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for (name, policy) in policies().into_iter().filter(|(name, _)| ["td3", "choices"].contains(name)) {
        let bytes = policy.to_bytes();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            if place % 61 == 0 {
                let error = load(folder.path(), &damaged).unwrap_err();
                assert!(error.to_string().contains("policy.safetensors"), "{name}, byte {place}: {error}");
                assert!(matches!(error, AgentError::PolicyFile { .. }), "{name}, byte {place}: {error}");
                assert!(load(folder.path(), &bytes[..place]).is_err(), "{name}, cut at {place}");
            } else {
                // Without the disk.
                assert!(ExportedPolicy::of_bytes(&damaged).is_err(), "{name}, byte {place}");
            }
        }
        assert!(ExportedPolicy::of_bytes(&[&bytes[..], &[0; 4]].concat()).is_err(), "{name}, longer");
    }
}

#[test]
fn other_formats_and_versions_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = policies()[0].1.to_bytes();
    let told = |bytes: &[u8]| load(folder.path(), bytes).unwrap_err().to_string();
    let swapped = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let place = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = bytes.clone();
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let newer = told(&swapped("\"format_version\":\"1\"", "\"format_version\":\"2\""));
    assert!(newer.contains("format_version = 2: expected 1"), "{newer}");
    let foreign = told(&swapped("\"mbrl-policy\"", "\"pt-modelxxx\""));
    assert!(foreign.contains("format = \"pt-modelxxx\": expected mbrl-policy"), "{foreign}");
    let changed = told(&swapped("\"relu\"", "\"tanh\""));
    assert!(changed.contains("damaged: its checksum"), "{changed}");
    let picture = told(b"\x89PNG\r\n\x1a\n and so on, a picture");
    assert!(picture.contains("no whole file of safetensors"), "{picture}");
    assert!(matches!(ExportedPolicy::load(&folder.path().join("none.safetensors")), Err(AgentError::Io { .. })));
}

/// What `examples/run_policy.py` computes.
#[derive(Deserialize)]
struct Case {
    name: String,
    obs: Vec<Vec<f32>>,
    actions: Vec<Vec<f64>>,
}

/// Files of this version, and what NumPy makes of them. To write them anew: `cargo test -p mbrl-policy --test export -- --ignored`, then
/// `python3 crates/mbrl-policy/scripts/policy-fixture` with NumPy at hand.
#[test]
fn numpy_computes_the_same_from_files_that_stay_readable() {
    let folder = Path::new("tests/fixtures/policies");
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(folder.join("numpy.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 6);
    for Case { name, obs, actions } in cases {
        let policy = ExportedPolicy::load(&folder.join(format!("{name}.safetensors"))).unwrap();
        for (obs, expected) in obs.iter().zip(&actions) {
            for (found, expected) in policy.action(obs).unwrap().iter().zip(expected) {
                let off = (f64::from(*found) - expected).abs();
                assert!(off <= 1e-5 * expected.abs().max(1.0), "{name}: {found}, NumPy {expected}");
            }
        }
    }
}

#[test]
#[ignore = "writes the fixture"]
fn write_the_fixture() {
    let folder = Path::new("tests/fixtures/policies");
    fs::create_dir_all(folder).unwrap();
    for (name, policy) in policies().into_iter().filter(|(name, _)| *name != "linear") {
        fs::write(folder.join(format!("{name}.safetensors")), policy.to_bytes()).unwrap();
    }
}

const TINY: &str = r#"
    task = "pendulum"
    steps = 210

    [model]
    members = 2
    hidden = [16]

    [fit]
    max_epochs = 2

    [planner]
    kind = "cem"
    horizon = 4
    population = 10
    elites = 2

    [propagation]
    rule = "ts-inf"
    noise = true
    particles = 2
"#;

/// An agent that plans comes back with its experiment, plans the same, and every change of a file is found.
#[test]
fn an_agent_that_plans_comes_back_to_the_bit() {
    use std::sync::atomic::AtomicBool;

    use mbrl_policy::{Device, ExportedAgent, evaluate, experiment::Registry, start_seeds};

    let registry = Registry::new().tasks(mbrl_env::tasks::entries()).experiments(&[("tiny", TINY)]);
    let experiment = registry.load("tiny", &[]).unwrap();
    let build = || experiment.build_on(&registry, &Device::flex()).unwrap();
    let mut parts = build();
    let young = ExportedAgent::new(&experiment, 0, &*parts.agent).unwrap_err();
    assert!(young.to_string().contains("after its first fit"), "{young}");
    let never = AtomicBool::new(false);
    parts.training.run(&mut parts.task.env, &mut *parts.agent, None, &mut (), &never).unwrap();
    let exported = ExportedAgent::new(&experiment, 210, &*parts.agent).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.safetensors");
    exported.save(&path).unwrap();
    let loaded = ExportedAgent::load(&path).unwrap();
    assert_eq!(loaded, exported);
    assert_eq!((loaded.env_step(), loaded.experiment()), (210, &experiment));
    let mut other = build();
    loaded.install(&mut *other.agent).unwrap();
    let mut judge = |agent: &mut dyn mbrl_policy::Learner| {
        evaluate(&mut parts.task.env, agent, &start_seeds(0, 2)).unwrap().returns().collect::<Vec<_>>()
    };
    let expected = judge(&mut *parts.agent);
    assert_eq!(judge(&mut *other.agent), expected);
    assert_ne!(judge(&mut *build().agent), expected, "an agent that knows nothing");
    assert!(exported.save(&path).unwrap_err().to_string().contains("exists"));

    // A model of other widths.
    let wider = registry.load("tiny", &["model.hidden=[17]"]).unwrap();
    let mut wider = wider.build_on(&registry, &Device::flex()).unwrap();
    assert!(matches!(loaded.install(&mut *wider.agent), Err(AgentError::Model(_))));
    // A bit error, wherever it is.
    let bytes = fs::read(&path).unwrap();
    let broken = folder.path().join("broken.safetensors");
    for at in [0, 20, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&broken, &changed).unwrap();
        assert!(ExportedAgent::load(&broken).is_err(), "byte {at} of {}", bytes.len());
    }
    assert!(
        ExportedPolicy::load(&path).unwrap_err().to_string().contains("format = \"mbrl-agent\": expected mbrl-policy")
    );
}
