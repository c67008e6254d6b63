//! Learners: whole updates beside PyTorch's, gradients beside finite differences, what ends and what is cut.

use std::{borrow::Cow, sync::Mutex};

use mbrl_env::{ActionSpace, Batch, BoxSpace, EnvSpec, Rng};
use mbrl_model::Activation;
use mbrl_policy::{
    ActMode, ActorConfig, ActorCritic, ActorGradient, AgentError, CheckpointReader, Checkpoints, CriticPass,
    CriticsConfig, Lookahead, OffPolicy, PolicyDraw, Reduction, Report, ReportKind, Sac, SacConfig, Td3, Td3Config,
};
use serde::Deserialize;

/// As the script writes it.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    kind: String,
    seed: u64,
    obs: usize,
    low: Vec<f32>,
    high: Vec<f32>,
    hidden: Vec<usize>,
    critics: usize,
    layer_norm: bool,
    activation: Activation,
    learning_rate: f32,
    tracking: f32,
    discount: f32,
    target: Reduction,
    climbs: Reduction,
    log_std: [f32; 2],
    temperature: f32,
    target_entropy: f32,
    actor_every: u64,
    target_noise: f32,
    noise_clip: f32,
    start: Networks,
    batches: Vec<Rows>,
    losses: Vec<Losses>,
    end: Networks,
}

#[derive(Debug, Deserialize)]
struct Networks {
    actor: Vec<f32>,
    critics: Vec<f32>,
    #[serde(default)]
    target: Vec<f32>,
    #[serde(default)]
    target_actor: Vec<f32>,
    #[serde(default)]
    log_alpha: f32,
}

#[derive(Debug, Deserialize)]
struct Rows {
    obs: Vec<f32>,
    actions: Vec<f32>,
    rewards: Vec<f64>,
    next_obs: Vec<f32>,
    terminated: Vec<bool>,
}

#[derive(Debug, Deserialize)]
struct Losses {
    critic: f64,
    actor: Option<f64>,
}

/// What was reported, in its order.
#[derive(Default)]
struct Told(Vec<(String, f64)>);

impl Report for Told {
    fn scalar(&mut self, kind: ReportKind, name: &str, value: f64) {
        assert_eq!(kind, ReportKind::Policy);
        self.0.push((name.to_owned(), value));
    }
}

impl Told {
    fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("fixtures/off-policy.json")).unwrap()
}

impl Case {
    fn spec(&self) -> EnvSpec {
        let actions = ActionSpace::Box(BoxSpace::new(self.low.clone(), self.high.clone()).unwrap());
        EnvSpec::new("fixture", BoxSpace::unbounded(self.obs), actions, 0.1)
    }

    fn parts(&self) -> (ActorConfig, CriticsConfig) {
        let (hidden, learning_rate) = (self.hidden.clone(), self.learning_rate);
        let actor = ActorConfig { hidden: hidden.clone(), learning_rate, ..ActorConfig::default() };
        let critics = CriticsConfig {
            count: self.critics,
            hidden,
            activation: self.activation,
            layer_norm: self.layer_norm,
            dropout: 0.0,
            learning_rate,
            tracking: self.tracking,
            target: self.target,
            actor: self.climbs,
            scaled: false,
            keep_values: false,
        };
        (actor, critics)
    }

    fn sac(&self) -> Sac {
        let config = SacConfig {
            discount: self.discount,
            initial_temperature: self.temperature,
            learn_temperature: true,
            temperature_learning_rate: self.learning_rate,
            target_entropy: self.target_entropy,
            log_std: self.log_std,
            actor_every: self.actor_every,
        };
        let (actor, critics) = self.parts();
        let mut sac = config.init(&self.spec(), &actor, &critics, &mut Rng::new(0)).unwrap();
        sac.actor_mut().network_mut().set_parameters(&self.start.actor);
        sac.critics_mut().network_mut().set_parameters(&self.start.critics);
        sac.critics_mut().target_mut().set_parameters(&self.start.critics);
        sac
    }

    fn td3(&self) -> Td3 {
        let config = Td3Config {
            discount: self.discount,
            exploration_noise: 0.1,
            target_noise: self.target_noise,
            noise_clip: self.noise_clip,
            actor_every: self.actor_every,
        };
        let (actor, critics) = self.parts();
        let mut td3 = config.init(&self.spec(), &actor, &critics, &mut Rng::new(0)).unwrap();
        td3.actor_mut().network_mut().set_parameters(&self.start.actor);
        td3.target_actor_mut().set_parameters(&self.start.actor);
        td3.critics_mut().network_mut().set_parameters(&self.start.critics);
        td3.critics_mut().target_mut().set_parameters(&self.start.critics);
        td3
    }

    fn batch(&self, number: usize) -> Batch {
        let rows = &self.batches[number];
        Batch {
            obs_width: self.obs,
            action_width: self.low.len(),
            obs: Cow::Owned(rows.obs.clone()),
            actions: Cow::Owned(rows.actions.clone()),
            rewards: Cow::Owned(rows.rewards.clone()),
            next_obs: Cow::Owned(rows.next_obs.clone()),
            terminated: Cow::Owned(rows.terminated.clone()),
            // Cut from outside or not: it makes no difference.
            truncated: Cow::Owned(rows.terminated.iter().enumerate().map(|(i, end)| !end && i % 2 == 0).collect()),
        }
    }
}

/// A parameter whose gradient is nearly 0 takes Adam's step by the sign of rounding: one or two of hundreds may be off.
fn near(what: &str, found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let off = found.iter().zip(wanted).filter(|(a, b)| (*a - *b).abs() > 2e-4).count();
    assert!(off * 100 <= found.len(), "{what}: {off} of {} numbers are off", found.len());
}

#[test]
fn updates_are_those_of_another_implementation() {
    let cases = cases();
    assert!(cases.len() >= 4);
    for case in &cases {
        let mut rng = Rng::new(case.seed);
        let (mut sac, mut td3) = match &*case.kind {
            "sac" => (Some(case.sac()), None),
            _ => (None, Some(case.td3())),
        };
        for (number, wanted) in case.losses.iter().enumerate() {
            let mut told = Told::default();
            let batch = case.batch(number);
            match (&mut sac, &mut td3) {
                (Some(sac), _) => sac.improve(&batch, None, &mut rng, &mut told).unwrap(),
                (_, Some(td3)) => td3.improve(&batch, None, &mut rng, &mut told).unwrap(),
                _ => unreachable!("there is one of them"),
            }
            let what = |part: &str| format!("{}, update {number}, {part}", case.name);
            let critic = told.get("critic/loss").unwrap();
            assert!((critic - wanted.critic).abs() < 1e-3 * wanted.critic, "{}: {critic}", what("critics"));
            match (told.get("actor/loss"), wanted.actor) {
                (None, None) => {}
                (Some(found), Some(wanted)) => {
                    assert!(
                        (found - wanted).abs() < 1e-3 * wanted.abs().max(1.0),
                        "{}: {found}, {wanted}",
                        what("actor")
                    );
                }
                other => panic!("{}: {other:?}", what("actor")),
            }
        }
        let of = sac.as_ref().map(Sac::parts).or(td3.as_ref().map(Td3::parts)).unwrap();
        let ActorCritic { actor, critics, .. } = of;
        near(&format!("{}, actor", case.name), &actor.network().parameters(), &case.end.actor);
        near(&format!("{}, critics", case.name), &critics.network().parameters(), &case.end.critics);
        near(&format!("{}, targets", case.name), &critics.target().parameters(), &case.end.target);
        if let Some(td3) = &td3 {
            near(
                &format!("{}, the actor's slow copy", case.name),
                &td3.target_actor().parameters(),
                &case.end.target_actor,
            );
        }
        if let Some(sac) = &sac {
            let log = sac.temperature().ln();
            assert!((log - case.end.log_alpha).abs() < 1e-5, "{}: {log}", case.name);
        }
    }
}

#[test]
fn the_actor_climbs_what_it_is_told_to() {
    let mut rng = Rng::new(3);
    for (reduction, layer_norm, dropout) in
        [(Reduction::Min, false, 0.0), (Reduction::Mean, true, 0.2), (Reduction::First, true, 0.0)]
    {
        let config = CriticsConfig {
            count: 3,
            hidden: vec![12, 9],
            activation: Activation::Tanh,
            layer_norm,
            dropout,
            actor: reduction,
            ..CriticsConfig::default()
        };
        let critics = config.init(4, 2, &mut rng).unwrap();
        const ROWS: usize = 35;
        let (inputs, actions): (Vec<f32>, Vec<f32>) =
            ((0..4 * ROWS).map(|_| rng.normal()).collect(), (0..2 * ROWS).map(|_| rng.uniform(-1.0, 1.0)).collect());
        let mut pass = CriticPass::default();
        let mut values = |inputs: &[f32], actions: &[f32]| {
            critics.values_to_learn(inputs, actions, 5, &mut pass);
            critics.actor_gradient(&pass, 0.5)
        };
        let (_, by_input, by_action) = values(&inputs, &actions);
        let sum = |values: Vec<f32>| values.iter().map(|v| 0.5 * f64::from(*v)).sum::<f64>();
        for i in 0..actions.len() {
            let mut moved = |by: f32| {
                let mut actions = actions.clone();
                actions[i] += by;
                sum(values(&inputs, &actions).0)
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((f64::from(by_action[i]) - difference).abs() < 2e-3, "{reduction:?}, action {i}: {difference}");
        }
        for i in 0..inputs.len() {
            let mut moved = |by: f32| {
                let mut inputs = inputs.clone();
                inputs[i] += by;
                sum(values(&inputs, &actions).0)
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((f64::from(by_input[i]) - difference).abs() < 2e-3, "{reduction:?}, input {i}: {difference}");
        }
    }
}

fn spec() -> EnvSpec {
    EnvSpec::new("small", BoxSpace::unbounded(2), ActionSpace::Box(BoxSpace::symmetric(1, 2.0).unwrap()), 0.1)
}

fn small() -> (ActorConfig, CriticsConfig) {
    let actor = ActorConfig { hidden: vec![8], ..ActorConfig::default() };
    (actor, CriticsConfig { hidden: vec![8], learning_rate: 0.0, ..CriticsConfig::default() })
}

fn one_batch(terminated: bool, truncated: bool, next: f32) -> Batch {
    Batch {
        obs_width: 2,
        action_width: 1,
        obs: Cow::Owned(vec![0.1, 0.2]),
        actions: Cow::Owned(vec![1.0]),
        rewards: Cow::Owned(vec![3.0]),
        next_obs: Cow::Owned(vec![next, 0.4]),
        terminated: Cow::Owned(vec![terminated]),
        truncated: Cow::Owned(vec![truncated]),
    }
}

#[test]
fn what_was_cut_bootstraps_and_what_ended_does_not() {
    let (actor, critics) = small();
    let sac = SacConfig::default().init(&spec(), &actor, &critics, &mut Rng::new(1)).unwrap();
    let td3 = Td3Config::default().init(&spec(), &actor, &critics, &mut Rng::new(1)).unwrap();
    let loss = |learner: &mut dyn OffPolicy, batch: &Batch| {
        let mut told = Told::default();
        learner.improve(batch, None, &mut Rng::new(4), &mut told).map(|()| told.get("critic/loss").unwrap())
    };
    let learners: [Box<dyn Fn() -> Box<dyn OffPolicy>>; 2] =
        [Box::new(move || Box::new(sac.clone())), Box::new(move || Box::new(td3.clone()))];
    for learner in learners {
        let of = |terminated, truncated, next| loss(&mut *learner(), &one_batch(terminated, truncated, next)).unwrap();
        assert_eq!(of(false, true, 0.3), of(false, false, 0.3), "a cut changes nothing");
        assert_ne!(of(false, false, 0.3), of(false, false, 0.9), "what comes next counts");
        assert_eq!(of(true, false, 0.3), of(true, false, 0.9), "nothing comes after an end");
        // Not even a NaN; without an end it is named.
        assert!(of(true, false, f32::NAN).is_finite());
        let error = loss(&mut *learner(), &one_batch(false, false, f32::NAN)).unwrap_err();
        assert!(matches!(error, AgentError::Diverged { what: "critic/loss", updates: 0, .. }), "{error}");
    }
}

#[test]
fn the_temperature_rises_where_the_entropy_is_too_small_and_falls_where_it_is_too_large() {
    let (actor, critics) = small();
    let after = |target_entropy: f32, learn_temperature: bool| {
        let config = SacConfig { target_entropy, learn_temperature, ..SacConfig::default() };
        let mut sac = config.init(&spec(), &actor, &critics, &mut Rng::new(1)).unwrap();
        for seed in 0..5 {
            sac.improve(&one_batch(false, false, 0.3), None, &mut Rng::new(seed), &mut Told::default()).unwrap();
        }
        sac.temperature()
    };
    assert!(after(5.0, true) > 1.001);
    assert!(after(-50.0, true) < 0.999);
    assert_eq!(after(5.0, false), 1.0);
}

/// Gives other targets and another loss, and remembers that it was asked.
#[derive(Default)]
struct Given {
    targets: Option<Vec<f32>>,
    gradient: Option<ActorGradient>,
    seen: Mutex<Vec<(f32, f32)>>,
}

impl Lookahead for Given {
    fn targets(&self, _: &Batch, of: ActorCritic<'_>, _: &mut Rng) -> Result<Option<Vec<f32>>, AgentError> {
        self.seen.lock().unwrap().push((of.temperature, of.discount));
        Ok(self.targets.clone())
    }

    fn actor_loss(&self, _: &Batch, _: ActorCritic<'_>, _: &mut Rng) -> Result<Option<ActorGradient>, AgentError> {
        Ok(self.gradient.clone())
    }
}

#[test]
fn a_look_ahead_gives_targets_and_the_actors_gradient() {
    let (actor, critics) = small();
    let sac = SacConfig::default().init(&spec(), &actor, &critics, &mut Rng::new(1)).unwrap();
    let td3 = Td3Config::default().init(&spec(), &actor, &critics, &mut Rng::new(1)).unwrap();
    let run = |look: Option<&dyn Lookahead>| {
        let (mut sac, mut told) = (sac.clone(), Told::default());
        sac.improve(&one_batch(false, false, 0.3), look, &mut Rng::new(2), &mut told).unwrap();
        (sac.actor().network().parameters(), told)
    };
    let (alone, told_alone) = run(None);
    let nothing = Given::default();
    let (same, told) = run(Some(&nothing));
    assert_eq!((same, told.0), (alone, told_alone.0.clone()), "one that gives nothing changes nothing");
    assert_eq!(*nothing.seen.lock().unwrap(), [(1.0, 0.99)]);

    // Half the square of Q − y, so two targets give two losses and Q.
    let by = |target: f32| {
        run(Some(&Given { targets: Some(vec![target]), ..Given::default() })).1.get("critic/loss").unwrap()
    };
    let value = told_alone.get("critic/value").unwrap();
    assert!((by(7.0) - by(-7.0) + 14.0 * value).abs() < 1e-3 * by(7.0).abs(), "{} {} {value}", by(7.0), by(-7.0));

    let gradient = ActorGradient {
        inputs: vec![0.1, 0.2, 0.5, 0.6],
        grad_out: vec![1.0, 0.0, 1.0, 0.0],
        log_probs: vec![0.5, 0.5],
        loss: 2.5,
    };
    let look = Given { gradient: Some(gradient.clone()), ..Given::default() };
    let (moved, told) = run(Some(&look));
    assert_eq!((told.get("actor/loss"), told.get("actor/entropy")), (Some(2.5), Some(-0.5)));
    // Against the gradient: the mean's bias goes down by Adam's first step, the deviation's stays.
    let before = sac.actor().network().parameters();
    let last = before.len() - 2;
    assert!((before[last] - moved[last] - 3e-4).abs() < 1e-6 && before[last + 1] == moved[last + 1]);

    let mut td3 = td3;
    let gradient = ActorGradient { grad_out: vec![1.0, 1.0], log_probs: Vec::new(), ..gradient };
    let look = Given { gradient: Some(gradient), ..Given::default() };
    for _ in 0..2 {
        let mut told = Told::default();
        td3.improve(&one_batch(false, false, 0.3), Some(&look), &mut Rng::new(2), &mut told).unwrap();
        assert_eq!(told.get("actor/loss"), (td3.updates() == 2).then_some(2.5));
    }
}

#[test]
fn saved_and_loaded_it_goes_on_to_the_same_bits_and_threads_change_none() {
    let (mut actor, mut critics) = small();
    (actor.hidden, critics.hidden) = (vec![80, 70], vec![80, 70]);
    actor.averaging = 0.3;
    (actor.normalize, critics.dropout, critics.layer_norm, critics.learning_rate) = (true, 0.1, true, 1e-3);
    let sac = || SacConfig::default().init(&spec(), &actor, &critics, &mut Rng::new(1)).unwrap();
    let td3 = || Td3Config::default().init(&spec(), &actor, &critics, &mut Rng::new(1)).unwrap();
    let mut rng = Rng::new(8);
    let rows = 64;
    let mut column = |width: usize| Cow::Owned((0..rows * width).map(|_| rng.normal()).collect::<Vec<f32>>());
    let batch = Batch {
        obs_width: 2,
        action_width: 1,
        obs: column(2),
        actions: column(1),
        rewards: Cow::Owned(vec![0.5; rows]),
        next_obs: column(2),
        terminated: Cow::Owned((0..rows).map(|i| i % 9 == 0).collect()),
        truncated: Cow::Owned(vec![false; rows]),
    };
    let go = |learner: &mut dyn OffPolicy, from: u64, to: u64| {
        for seed in from..to {
            learner.observe(&batch.obs[..10 * (seed as usize + 1)]);
            learner.improve(&batch, None, &mut Rng::new(seed), &mut Told::default()).unwrap();
        }
    };
    let bits = |learner: &dyn OffPolicy| {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_folder(folder.path());
        let place = checkpoints.write(1, None, None, |into| learner.save(into)).unwrap();
        let reader = CheckpointReader::open(&place).unwrap();
        let manifest = std::fs::read_to_string(place.join("manifest.json")).unwrap();
        (reader, manifest)
    };
    let check = |mut whole: Box<dyn OffPolicy>, mut first: Box<dyn OffPolicy>, mut second: Box<dyn OffPolicy>| {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool(1).install(|| go(&mut *whole, 0, 5));
        pool(2).install(|| go(&mut *first, 0, 3));
        let (reader, _) = bits(&*first);
        second.load(&reader).unwrap();
        let act = |learner: &dyn OffPolicy| learner.policy().act(&[0.3, -2.0], ActMode::Evaluate, PolicyDraw::new(0));
        assert_eq!(act(&*first), act(&*second), "with the statistics of its inputs");
        pool(2).install(|| go(&mut *second, 3, 5));
        // The manifest has a checksum of each file.
        assert_eq!(bits(&*whole).1, bits(&*second).1);
        assert_ne!(bits(&*whole).1, bits(&*first).1);
    };
    check(Box::new(sac()), Box::new(sac()), Box::new(sac()));
    check(Box::new(td3()), Box::new(td3()), Box::new(td3()));
    // Of another shape it is refused.
    let other = ActorConfig { hidden: vec![7], ..ActorConfig::default() };
    let mut other = SacConfig::default().init(&spec(), &other, &critics, &mut Rng::new(1)).unwrap();
    let error = other.load(&bits(&sac()).0).unwrap_err().to_string();
    assert!(error.contains("actor.network.bin"), "{error}");
}

#[test]
fn bad_settings_are_refused_by_name() {
    let (actor, critics) = small();
    let told = |config: SacConfig| config.init(&spec(), &actor, &critics, &mut Rng::new(0)).unwrap_err().to_string();
    let usual = SacConfig::default;
    for (error, start) in [
        (told(SacConfig { discount: 1.5, ..usual() }), "discount = 1.5"),
        (told(SacConfig { initial_temperature: 0.0, ..usual() }), "initial_temperature = 0"),
        (told(SacConfig { temperature_learning_rate: f32::NAN, ..usual() }), "temperature_learning_rate = NaN"),
        (told(SacConfig { target_entropy: f32::INFINITY, ..usual() }), "target_entropy = inf"),
        (told(SacConfig { actor_every: 0, ..usual() }), "actor_every = 0"),
    ] {
        assert!(error.starts_with(start), "{error}");
    }
    let critic = |config: CriticsConfig| config.init(2, 1, &mut Rng::new(0)).unwrap_err().to_string();
    for (error, part) in [
        (critic(CriticsConfig { count: 0, ..CriticsConfig::default() }), "count = 0"),
        (critic(CriticsConfig { tracking: 0.0, ..CriticsConfig::default() }), "tracking = 0"),
        (critic(CriticsConfig { learning_rate: -1.0, ..CriticsConfig::default() }), "learning_rate = -1"),
        (critic(CriticsConfig { dropout: 1.0, ..CriticsConfig::default() }), "dropout = 1"),
        (critic(CriticsConfig { hidden: vec![0], ..CriticsConfig::default() }), "hidden = [0]"),
    ] {
        assert!(error.contains(part), "{error}");
    }
    let td3 = |config: Td3Config| config.init(&spec(), &actor, &critics, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(td3(Td3Config { target_noise: -1.0, ..Td3Config::default() }).starts_with("target_noise = -1"));
    assert!(td3(Td3Config { noise_clip: f32::NAN, ..Td3Config::default() }).starts_with("noise_clip = NaN"));
    let choices = EnvSpec::new("choices", BoxSpace::unbounded(2), ActionSpace::Discrete(2), 0.1);
    let error = SacConfig::default().init(&choices, &actor, &critics, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(error.contains("actions = 2 choices"), "{error}");
}
