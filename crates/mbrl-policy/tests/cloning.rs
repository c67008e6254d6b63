//! Behaviour cloning: the fitted policy is the one that acted, and its spread the spread of what was done.

use mbrl_env::{ActionSpace, BoxSpace, EnvSpec, Replay, Rng, Transition};
use mbrl_policy::{ActMode, Actor, ActorConfig, ActorHead, AgentError, CloningConfig, Policy, PolicyDraw};

const HEADS: [ActorHead; 2] =
    [ActorHead::Gaussian { log_std: [-5.0, 2.0] }, ActorHead::Deterministic { exploration: 0.1 }];
const SPREAD: f32 = 0.2;

fn spec() -> EnvSpec {
    let actions = ActionSpace::Box(BoxSpace::new([-3.0, 0.0], [1.0, 4.0]).unwrap());
    EnvSpec::new("cloned", BoxSpace::unbounded(2), actions, 0.1)
}

/// What the teacher means to do, before it is squashed into [−1, 1].
fn meant(obs: &[f32]) -> [f32; 2] {
    [0.8 * obs[0] - 0.3, (obs[0] * obs[1]).clamp(-1.0, 1.0)]
}

fn in_units(unit: [f32; 2]) -> [f32; 2] {
    [-1.0 + 2.0 * unit[0], 2.0 + 2.0 * unit[1]]
}

/// Episodes of twenty steps of a teacher whose means are spread.
fn taught(episodes: usize, spread: f32) -> Replay {
    let mut rng = Rng::new(4);
    let mut replay = Replay::new(2, 2, 20 * episodes).unwrap();
    for step in 0..20 * episodes {
        let obs = vec![rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)];
        let action = in_units(meant(&obs).map(|z| (z + spread * rng.normal()).tanh())).to_vec();
        let next_obs = obs.clone();
        let truncated = step % 20 == 19;
        replay.push(&Transition { obs, action, reward: 0.0, next_obs, terminated: false, truncated }).unwrap();
    }
    replay
}

fn student(head: ActorHead) -> Actor {
    let config = ActorConfig { hidden: vec![32, 32], learning_rate: 3e-3, normalize: true, ..ActorConfig::default() };
    config.init(&spec(), head, &mut Rng::new(1)).unwrap()
}

#[test]
fn a_student_does_what_its_teacher_does() {
    let data = taught(60, SPREAD);
    for head in HEADS {
        let mut actor = student(head);
        let report = CloningConfig::default().fit(&mut actor, &data, &mut Rng::new(2)).unwrap();
        assert!(report.epochs > 10);
        let mut rng = Rng::new(7);
        let obs: Vec<f32> = (0..400).map(|_| rng.uniform(-1.2, 1.2)).collect();
        let acted = actor.act(&obs, ActMode::Evaluate, PolicyDraw::new(0));
        let squares: f32 = obs
            .chunks(2)
            .zip(acted.chunks(2))
            .flat_map(|(obs, acted)| {
                let wanted = in_units(meant(obs).map(f32::tanh));
                [acted[0] - wanted[0], acted[1] - wanted[1]]
            })
            .map(|off| off * off)
            .sum();
        // The actions have a range of 4 and a spread of up to 0.4.
        let off = (squares / 400.0).sqrt();
        assert!(off < 0.12, "{head:?}: {off}");
        if let ActorHead::Gaussian { .. } = head {
            // Of means that are right the best loss is the entropy of what the teacher did.
            let ways: Vec<f32> = actor.act(&[0.2, 0.1].repeat(4000), ActMode::Explore, PolicyDraw::new(5));
            let z: Vec<f32> = ways.chunks(2).map(|a| ((a[0] + 1.0) / 2.0).atanh()).collect();
            let mean = z.iter().sum::<f32>() / 4000.0;
            let std = (z.iter().map(|z| (z - mean).powi(2)).sum::<f32>() / 4000.0).sqrt();
            assert!((std - SPREAD).abs() < 0.06, "{std}");
        }
    }
}

#[test]
fn inputs_are_standardised_by_the_data_of_the_last_fit_alone() {
    // A fit of all data goes on from one of half of them, which must not count twice.
    let (half, all) = (taught(10, SPREAD), taught(20, SPREAD));
    let config = CloningConfig { max_epochs: 1, holdout: 0.0, ..CloningConfig::default() };
    let [mut once, mut twice] = [student(HEADS[0]), student(HEADS[0])];
    config.fit(&mut twice, &half, &mut Rng::new(2)).unwrap();
    let early = twice.inputs().statistics().map(|of| of.map(<[f32]>::to_vec));
    config.fit(&mut twice, &all, &mut Rng::new(3)).unwrap();
    config.fit(&mut once, &all, &mut Rng::new(3)).unwrap();
    assert_eq!(twice.inputs().statistics(), once.inputs().statistics());
    assert_ne!(twice.inputs().statistics().map(|of| of.map(<[f32]>::to_vec)), early);
}

#[test]
fn it_stops_in_time_keeps_the_best_and_depends_on_no_thread() {
    // Four episodes are learned by heart.
    let data = taught(4, 0.5);
    let config = CloningConfig { max_epochs: 400, batch_size: 16, holdout: 0.5, patience: 15 };
    let go = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut actor = student(HEADS[0]);
            let report = config.fit(&mut actor, &data, &mut Rng::new(2)).unwrap();
            (report, actor.network().parameters())
        })
    };
    let (report, parameters) = go(1);
    assert!(report.epochs < 400, "{report:?}");
    assert_eq!(go(2), (report.clone(), parameters));
    let long = CloningConfig { patience: 400, ..config.clone() };
    let mut actor = student(HEADS[0]);
    let found = long.fit(&mut actor, &data, &mut Rng::new(2)).unwrap();
    assert!(found.epochs == 400 && found.loss <= report.loss);
}

#[test]
fn what_cannot_be_fitted_is_refused_and_the_policy_stays() {
    let mut actor = student(HEADS[0]);
    let before = actor.network().parameters();
    let mut told = |config: CloningConfig, data: &Replay| config.fit(&mut actor, data, &mut Rng::new(2)).unwrap_err();
    let data = taught(2, 0.1);
    for (field, config) in [
        ("max_epochs", CloningConfig { max_epochs: 0, ..CloningConfig::default() }),
        ("batch_size", CloningConfig { batch_size: 0, ..CloningConfig::default() }),
        ("patience", CloningConfig { patience: 0, ..CloningConfig::default() }),
        ("fraction", CloningConfig { holdout: 1.0, ..CloningConfig::default() }),
    ] {
        let error = told(config, &data).to_string();
        assert!(error.starts_with(field), "{error}");
    }
    let empty = told(CloningConfig::default(), &Replay::new(2, 2, 5).unwrap());
    assert!(empty.to_string().contains("a policy to be cloned"), "{empty}");
    let narrow = told(CloningConfig::default(), &Replay::new(2, 1, 5).unwrap());
    assert!(matches!(narrow, AgentError::Env(_)), "{narrow}");
    assert_eq!(before, actor.network().parameters());
    let config = ActorConfig { hidden: vec![8], averaging: 0.1, ..ActorConfig::default() };
    let mut averaged = config.init(&spec(), HEADS[0], &mut Rng::new(0)).unwrap();
    let error = CloningConfig::default().fit(&mut averaged, &data, &mut Rng::new(2)).unwrap_err().to_string();
    assert!(error.starts_with("averaging = above 0: expected 0"), "{error}");
}
