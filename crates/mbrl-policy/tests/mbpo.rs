//! A policy learned in a learned model: that it is, from how few real steps, that it resumes, and what it refuses.

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{Point, metrics};
use mbrl_env::{Env, Info, Rng, Transition, World, reward_fn};
use mbrl_model::{Device, Ensemble, EnsembleConfig, FitConfig, MemberRule, Propagation, Tensor};
use mbrl_plan::ActionRate;
use mbrl_policy::{
    ActorConfig, AgentError, CriticsConfig, FitSchedule, Goal, GrowingLength, Imagining, Learner, Mbpo, MbpoConfig,
    Moment, Observer, OffPolicy, Outcome, Phase, RandomAgent, RolloutConfig, RolloutLength, RolloutStarts, RunFiles,
    Sac, SacConfig, Td3Config, TrainConfig, evaluate, start_seeds,
};

const TS1: Propagation = Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 };

fn networks() -> (ActorConfig, CriticsConfig) {
    let actor = ActorConfig { hidden: vec![24, 24], learning_rate: 3e-3, ..ActorConfig::default() };
    let critics =
        CriticsConfig { hidden: vec![24, 24], learning_rate: 3e-3, layer_norm: true, ..CriticsConfig::default() };
    (actor, critics)
}

fn sac() -> Sac {
    let (actor, critics) = networks();
    let config = SacConfig { discount: 0.9, temperature_learning_rate: 3e-3, ..SacConfig::default() };
    config.init(Point::new().spec(), &actor, &critics, &mut Rng::new(5)).unwrap()
}

fn model(reward: bool) -> Ensemble {
    let config = EnsembleConfig { members: 3, hidden: vec![24, 24], reward, ..EnsembleConfig::default() };
    config.init(1, 1, &Device::flex(), &mut Rng::new(2)).unwrap()
}

fn goal() -> Goal {
    Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| -next.square().squeeze_dim::<1>(1))))
}

fn imagining(goal: Goal, rollout: &RolloutConfig) -> Imagining {
    Imagining { goal, rollout: rollout.clone(), propagation: TS1 }
}

fn fit() -> FitConfig {
    FitConfig { batch_size: 32, max_epochs: 30, ..FitConfig::default() }
}

fn small(training_rollout: usize) -> MbpoConfig {
    MbpoConfig {
        random_steps: 45,
        fit_every: FitSchedule::Steps(45),
        batch_size: 32,
        real_share: 0.1,
        training_rollout,
        ..MbpoConfig::default()
    }
}

fn rollout() -> RolloutConfig {
    RolloutConfig { length: RolloutLength::Fixed(4), every: 5, count: 32, keep: 6, ..RolloutConfig::default() }
}

fn agent(config: &MbpoConfig, rollout: &RolloutConfig, learned_reward: bool) -> Mbpo<Ensemble, Sac> {
    let spec = Point::limited(15).spec().clone();
    let goal = if learned_reward { Goal::of_model() } else { goal() };
    config.init(&spec, model(learned_reward), fit(), imagining(goal, rollout), sac()).unwrap()
}

fn train(learner: &mut dyn Learner, steps: u64) -> f64 {
    let mut training = TrainConfig::default().init(steps, 1).unwrap();
    training.run(&mut Point::world(15), learner, None, &mut (), &AtomicBool::new(false)).unwrap();
    evaluate(&mut Point::world(15), learner, &start_seeds(3, 10)).unwrap().return_mean()
}

/// Returns of the best policy, straight to 0 by 0.1 per step, and of a random one.
fn bounds() -> [f64; 2] {
    let mut random = RandomAgent::new(Point::new().spec().actions.clone());
    let random = evaluate(&mut Point::world(15), &mut random, &start_seeds(3, 10)).unwrap();
    let best = random.episodes.iter().map(|episode| {
        let mut x = f64::from(episode.transitions[0].obs[0].abs());
        let mut earned = 0.0;
        for _ in 0..15 {
            x = (x - 0.1).max(0.0);
            earned -= x * x;
        }
        earned
    });
    [best.sum::<f64>() / 10.0, random.return_mean()]
}

#[test]
fn a_policy_is_learned_from_fewer_real_steps_than_the_same_learner_needs_alone() {
    let [best, random] = bounds();
    // A fifth of what there is to win may be lost.
    let enough = best - 0.2 * (best - random);
    let steps = 180;
    let spec = Point::limited(15).spec().clone();
    let mut alone =
        mbrl_policy::ModelFreeConfig { random_steps: 45, batch_size: 32, ..mbrl_policy::ModelFreeConfig::default() }
            .init(&spec, sac())
            .unwrap();
    let found = train(&mut alone, steps);
    assert!(found < best - 0.4 * (best - random), "alone, too: {found}, {enough} is enough");
    let (actor, critics) = networks();
    let td3 = Td3Config { discount: 0.9, ..Td3Config::default() };
    let td3 = || td3.init(&spec, &actor, &critics, &mut Rng::new(5)).unwrap();
    let many = MbpoConfig { updates: 8, ..small(0) };
    let looking = MbpoConfig { updates: 4, ..small(3) };
    let of =
        |config: &MbpoConfig| config.init(&spec, model(false), fit(), imagining(goal(), &rollout()), td3()).unwrap();
    let learners: [(&str, Box<dyn Learner>); 5] = [
        ("imagined data for SAC", Box::new(agent(&many, &rollout(), false))),
        ("gradients through the model", Box::new(agent(&looking, &rollout(), false))),
        ("a learned reward", Box::new(agent(&looking, &rollout(), true))),
        ("gradients for TD3", Box::new(of(&looking))),
        ("gradients from real states", Box::new(agent(&looking, &RolloutConfig { count: 0, ..rollout() }, false))),
    ];
    for (what, mut learner) in learners {
        let found = train(&mut *learner, steps);
        assert!(found > enough, "{what}: {found}, expected at least {enough} (best {best}, random {random})");
    }
    // TD3's actor learns half as often, without the noise that SAC has.
    let found = train(&mut of(&many), steps);
    assert!(found > 0.5 * (best + random), "imagined data for TD3: {found} (best {best}, random {random})");
}

/// Raises a flag at a step.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        self.1.fetch_or(at.env_step == self.0, Ordering::Relaxed);
        Ok(())
    }
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn go(folder: &Path, training_rollout: usize, slots: usize, stop_at: u64) -> (Mbpo<Ensemble, Sac>, Outcome) {
    let config = TrainConfig {
        environments: slots,
        eval_every: 50,
        eval_episodes: 2,
        checkpoint_episodes: 2,
        ..TrainConfig::default()
    };
    let penalty = if training_rollout == 0 { 0.1 } else { 0.0 };
    let rollout = RolloutConfig { penalty, stop_at: 3.0, ..rollout() };
    let (real_targets, imagined_targets) = (training_rollout > 0, slots > 1);
    let agent_config = MbpoConfig { real_targets, imagined_targets, ..small(training_rollout) };
    let mut agent = agent(&agent_config, &rollout, true).in_lockstep(slots);
    let mut training = config.init(120, 3).unwrap();
    let (mut files, damaged) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
    assert!(damaged.is_empty());
    let stop = AtomicBool::new(false);
    let mut worlds: Vec<World> = (0..slots).map(|_| Point::world(15)).collect();
    let outcome =
        training.run_together(&mut worlds, &mut agent, Some(&mut files), &mut StopAt(stop_at, &stop), &stop).unwrap();
    (agent, outcome)
}

#[test]
fn stopped_and_resumed_it_goes_on_to_the_same_bits_on_any_number_of_threads() {
    for (training_rollout, slots) in [(0, 1), (2, 1), (2, 3)] {
        let whole = tempfile::tempdir().unwrap();
        let (agent, _) = in_pool(1, || go(whole.path(), training_rollout, slots, u64::MAX));
        let expected = metrics(whole.path());
        let policy: Vec<_> = expected.iter().filter(|line| line["event"] == "policy").collect();
        assert!(policy.len() > 1 && policy.iter().all(|line| line["critic/loss"].is_f64()), "{policy:?}");
        assert!(agent.imagined() > 0);
        let bits = |agent: &Mbpo<Ensemble, Sac>| -> Vec<u32> {
            let parts = agent.policy().parts();
            let all = [parts.actor.network().parameters(), parts.critics.network().parameters()].concat();
            all.into_iter().chain([parts.temperature]).map(f32::to_bits).collect()
        };
        for stop_at in [20, 46, 70, 95, 119] {
            let folder = tempfile::tempdir().unwrap();
            let (_, outcome) = in_pool(2, || go(folder.path(), training_rollout, slots, stop_at));
            assert_eq!(outcome, Outcome::Stopped);
            let (resumed, _) = in_pool(2, || go(folder.path(), training_rollout, slots, u64::MAX));
            assert_eq!(
                metrics(folder.path()),
                expected,
                "{training_rollout} ahead, {slots} slots, stopped at {stop_at}"
            );
            assert_eq!((bits(&resumed), resumed.imagined()), (bits(&agent), agent.imagined()));
        }
    }
}

#[test]
fn updates_are_as_many_as_was_said_and_those_of_the_random_steps_come_after_the_first_fit() {
    for (catch_up, expected) in [(true, 2 * 90), (false, 2 * 46)] {
        let config = MbpoConfig { updates: 2, catch_up, ..small(1) };
        let mut agent = agent(&config, &rollout(), false);
        train(&mut agent, 90);
        assert_eq!(agent.policy().updates(), expected, "catch_up = {catch_up}");
    }
}

/// Updates as they are told.
#[derive(Default)]
struct Updates(Vec<[u64; 3]>);

impl Observer for Updates {
    fn on_phase(&mut self, at: Moment, phase: Phase) {
        if let Phase::Updating { update, updates } = phase {
            self.0.push([at.env_step, update, updates]);
        }
    }
}

#[test]
fn observers_are_told_of_the_updates_that_follow_the_first_fit_and_not_of_the_few_per_step() {
    let config = MbpoConfig { updates: 3, ..small(1) };
    let mut told = Updates::default();
    let mut training = TrainConfig::default().init(60, 1).unwrap();
    let mut agent = agent(&config, &rollout(), false);
    training.run(&mut Point::world(15), &mut agent, None, &mut told, &AtomicBool::new(false)).unwrap();
    let expected: Vec<[u64; 3]> = (1..=135).map(|update| [45, update, 135]).collect();
    assert_eq!(told.0, expected);
}

#[test]
fn what_counts_in_plans_alone_is_refused() {
    let goal = Goal { action_rate: Some(ActionRate::new(1.0, 2.0)), ..goal() };
    let imagining = imagining(goal, &rollout());
    let error = small(1).init(Point::limited(15).spec(), model(false), fit(), imagining, sac()).unwrap_err();
    assert!(error.to_string().starts_with("goal = action_rate: expected none of shaping"), "{error}");
}

#[test]
fn bad_settings_are_refused_by_name() {
    let error = serde_json::from_str::<RolloutLength>("-1").unwrap_err().to_string();
    assert!(error.starts_with("a number of steps, or { from = 1"), "{error}");
    let spec = Point::limited(15).spec().clone();
    let told = |config: MbpoConfig, rollout: RolloutConfig, propagation: Propagation| {
        let imagining = Imagining { goal: goal(), rollout, propagation };
        config.init(&spec, model(false), fit(), imagining, sac()).unwrap_err().to_string()
    };
    let of_agent = |config| told(config, rollout(), TS1);
    let of_rollout = |rollout| told(small(0), rollout, TS1);
    let growing = |from, to, over| RolloutLength::Growing(GrowingLength { from, to, over });
    for (found, expected) in [
        (of_agent(MbpoConfig { batch_size: 0, ..small(0) }), "batch_size = 0"),
        (of_agent(MbpoConfig { real_share: 1.5, ..small(0) }), "real_share = 1.5"),
        (of_agent(MbpoConfig { real_targets: true, real_share: 0.0, ..small(3) }), "real_targets = true"),
        (of_agent(MbpoConfig { imagined_targets: true, real_share: 1.0, ..small(3) }), "imagined_targets = true"),
        (of_agent(MbpoConfig { random_steps: 0, ..small(0) }), "random_steps = 0"),
        (of_rollout(RolloutConfig { every: 0, ..rollout() }), "rollout.every = 0"),
        (of_rollout(RolloutConfig { keep: 0, ..rollout() }), "rollout.keep = 0"),
        (of_rollout(RolloutConfig { length: RolloutLength::Fixed(0), ..rollout() }), "rollout.length = 0"),
        (of_rollout(RolloutConfig { length: growing(1, 2, [5, 5]), ..rollout() }), "rollout.length.over = [5, 5]"),
        (of_rollout(RolloutConfig { penalty: f32::NAN, ..rollout() }), "rollout.penalty = NaN"),
        (of_rollout(RolloutConfig { stop_at: -1.0, ..rollout() }), "rollout.stop_at = -1"),
        // Gradients through the model earn rewards of their own, from which nothing is taken.
        (told(small(3), RolloutConfig { penalty: 0.5, ..rollout() }, TS1), "rollout.penalty = 0.5"),
        (of_rollout(RolloutConfig { penalty: 0.5, count: 0, ..rollout() }), "rollout.penalty = 0.5"),
        (
            of_rollout(RolloutConfig { length: RolloutLength::Fixed(1 << 40), count: 3, keep: 2, ..rollout() }),
            "rollout.length = 1099511627776, rollout.count = 3, rollout.keep = 2",
        ),
        (told(small(0), rollout(), Propagation { particles: 4, ..TS1 }), "propagation.particles = 4"),
        (of_agent(MbpoConfig { updates: 0, ..small(0) }), "updates = 0"),
        // Half a transition of a batch of 32 is one, less is none.
        (of_agent(MbpoConfig { real_share: 0.015, ..small(0) }), "real_share = 0.015"),
        (
            of_agent(MbpoConfig { training_rollout: 1 << 40, ..small(0) }),
            "training_rollout = 1099511627776, batch_size = 32",
        ),
        (of_rollout(RolloutConfig { stop_at: 1.0, count: 0, ..rollout() }), "rollout.stop_at = 1"),
    ] {
        assert!(found.starts_with(&format!("{expected}: expected ")), "{found}; {expected}");
    }
    let penalised = imagining(goal(), &RolloutConfig { penalty: 0.5, ..rollout() });
    small(0).init(&spec, model(false), fit(), penalised.clone(), sac()).unwrap();
    let alone = EnsembleConfig { members: 1, hidden: vec![8], ..EnsembleConfig::default() };
    let alone = alone.init(1, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
    let error = small(0).init(&spec, alone, fit(), penalised, sac()).unwrap_err().to_string();
    assert!(error.starts_with("rollout.penalty = 0.5: expected 0, or a model of at least 2 members"), "{error}");
    let endless = Point::new().spec().clone();
    let whole = RolloutConfig { starts: RolloutStarts::Episodes, ..rollout() };
    let error = small(0).init(&endless, model(false), fit(), imagining(goal(), &whole), sac()).unwrap_err().to_string();
    assert!(error.starts_with("rollout.starts = \"episodes\": expected "), "{error}");
    let past = EnsembleConfig { past: 1, ..EnsembleConfig::default() };
    let past = past.init(1, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
    let error = small(0).init(&spec, past, fit(), imagining(goal(), &rollout()), sac()).unwrap_err().to_string();
    assert!(error.starts_with("past = "), "{error}");
    let error = small(0).init(&spec, model(false), fit(), imagining(Goal::of_model(), &rollout()), sac()).unwrap_err();
    assert!(error.to_string().starts_with("reward = false"), "{error}");
}
