//! The agent that learns from real transitions alone: that it learns, when it does, that it resumes, that judging it explores nothing.

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use common::{Point, metrics};
use mbrl_env::{
    ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Info, Rng, Situation, Step, Transition, World, tasks,
    tasks::{Task, TaskEntry},
};
use mbrl_policy::{
    ActMode, ActorConfig, Agent, AgentError, CriticsConfig, Learner, ModelFree, ModelFreeConfig, Moment, Observer,
    OffPolicy, Outcome, RandomAgent, Report, ReportKind, RunFiles, Sac, SacConfig, Td3, Td3Config, TrainConfig,
    evaluate, experiment::Registry, start_seeds,
};

fn networks() -> (ActorConfig, CriticsConfig) {
    let actor = ActorConfig { hidden: vec![24, 24], learning_rate: 3e-3, ..ActorConfig::default() };
    let critics = CriticsConfig { hidden: vec![24, 24], learning_rate: 3e-3, ..CriticsConfig::default() };
    (actor, critics)
}

fn sac(config: &ModelFreeConfig, slots: usize) -> ModelFree<Sac> {
    let (actor, critics) = networks();
    let spec = Point::new().spec().clone();
    let sac = SacConfig { discount: 0.9, temperature_learning_rate: 3e-3, ..SacConfig::default() };
    let sac = sac.init(&spec, &actor, &critics, &mut Rng::new(5)).unwrap();
    config.init(&spec, sac).unwrap().in_lockstep(slots)
}

fn td3(config: &ModelFreeConfig) -> ModelFree<Td3> {
    let (actor, critics) = networks();
    let spec = Point::new().spec().clone();
    let td3 = Td3Config { discount: 0.9, ..Td3Config::default() };
    config.init(&spec, td3.init(&spec, &actor, &critics, &mut Rng::new(5)).unwrap()).unwrap()
}

fn small() -> ModelFreeConfig {
    ModelFreeConfig { random_steps: 40, batch_size: 32, ..ModelFreeConfig::default() }
}

fn worlds(slots: usize) -> Vec<World> {
    (0..slots).map(|slot| Point::world(if slot % 3 == 2 { 9 } else { 15 })).collect()
}

#[test]
fn both_learn_to_go_to_the_middle() {
    let seeds = start_seeds(3, 10);
    let random =
        evaluate(&mut Point::world(15), &mut RandomAgent::new(Point::new().spec().actions.clone()), &seeds).unwrap();
    // Straight to 0, by at most 0.1 per step.
    let best: f64 = random
        .episodes
        .iter()
        .map(|episode| {
            let mut x = f64::from(episode.transitions[0].obs[0].abs());
            (0..15)
                .map(|_| {
                    x = (x - 0.1).max(0.0);
                    -x * x
                })
                .sum::<f64>()
        })
        .sum::<f64>()
        / 10.0;
    let config = small();
    let learners: [Box<dyn Learner>; 2] = [Box::new(sac(&config, 1)), Box::new(td3(&config))];
    for mut learner in learners {
        let mut training = TrainConfig::default().init(900, 1).unwrap();
        training.run(&mut Point::world(15), &mut *learner, None, &mut (), &AtomicBool::new(false)).unwrap();
        let found = evaluate(&mut Point::world(15), &mut *learner, &seeds).unwrap().return_mean();
        // A tenth of what there is to win may be lost.
        assert!(
            found > best - 0.1 * (best - random.return_mean()) - 0.05,
            "{}: {found}, best {best}, random {}",
            learner.name(),
            random.return_mean()
        );
    }
}

struct Quiet;

impl Report for Quiet {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

#[test]
fn it_learns_as_often_as_it_is_told_to() {
    let transition = |x: f32| Transition {
        obs: vec![x],
        action: vec![0.5],
        reward: 0.0,
        next_obs: vec![x + 0.05],
        terminated: false,
        truncated: false,
    };
    for (update_every, updates, slots, expected) in
        [(1, 1, 1, 60), (1, 3, 1, 180), (7, 2, 1, 18), (1, 1, 4, 60), (7, 2, 4, 18), (30, 1, 4, 2), (1, 0, 1, 0)]
    {
        let config = ModelFreeConfig { update_every, updates, ..small() };
        let mut agent = sac(&config, slots);
        let mut rng = Rng::new(0);
        for step in 0..100 {
            agent.observe_in(step % slots, &transition(step as f32)).unwrap();
            // In lockstep it is asked after a step of each environment.
            if (step + 1) % slots == 0 {
                agent.update(&mut rng, &mut Quiet).unwrap();
            }
            if step < 40 {
                assert_eq!(agent.learner().updates(), 0, "it waits for the random steps");
            }
        }
        assert_eq!(agent.learner().updates(), expected, "{updates} every {update_every} in {slots}");
    }
}

#[test]
fn it_explores_where_it_learns_and_never_where_it_is_judged() {
    let mut agent = sac(&small(), 1);
    let mut rng = Rng::new(0);
    let situation = [0.4];
    let mut act = |agent: &mut ModelFree<Sac>, mode| agent.act(&Situation::of(&situation), mode, &mut rng).unwrap()[0];
    let judged = act(&mut agent, ActMode::Evaluate);
    assert_eq!(judged, act(&mut agent, ActMode::Evaluate));
    let explored: Vec<f32> = (0..400).map(|_| act(&mut agent, ActMode::Explore)).collect();
    // Uniform at first: the policy's own noise would be uniform in no interval.
    let below = explored.iter().filter(|a| **a < -0.5).count();
    assert!((60..140).contains(&below), "{below} of 400 below -0.5");
    let mut training = TrainConfig::default().init(60, 1).unwrap();
    training.run(&mut Point::world(15), &mut agent, None, &mut (), &AtomicBool::new(false)).unwrap();
    assert_eq!(act(&mut agent, ActMode::Evaluate), act(&mut agent, ActMode::Evaluate));
    assert_ne!(act(&mut agent, ActMode::Explore), act(&mut agent, ActMode::Explore));
    let seeds = start_seeds(0, 3);
    let mut judge = || evaluate(&mut Point::world(15), &mut agent, &seeds).unwrap();
    let (first, second) = (judge(), judge());
    assert!(first.returns().eq(second.returns()));
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

fn go(folder: &Path, slots: usize, stop_at: u64) -> (ModelFree<Sac>, Outcome) {
    let config = TrainConfig {
        environments: slots,
        eval_every: 50,
        eval_episodes: 2,
        checkpoint_episodes: 3,
        ..TrainConfig::default()
    };
    let mut agent = sac(&ModelFreeConfig { replay_capacity: 70, ..small() }, slots);
    let mut training = config.init(130, 3).unwrap();
    let (mut files, damaged) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
    assert!(damaged.is_empty());
    let stop = AtomicBool::new(false);
    let mut observer = StopAt(stop_at, &stop);
    let outcome =
        training.run_together(&mut worlds(slots), &mut agent, Some(&mut files), &mut observer, &stop).unwrap();
    (agent, outcome)
}

/// All that it has learned.
fn bits(agent: &ModelFree<Sac>) -> Vec<u32> {
    let (actor, critics) = (agent.learner().actor().network(), agent.learner().critics());
    let all = [actor.parameters(), critics.network().parameters(), critics.target().parameters()].concat();
    all.into_iter().chain([agent.learner().temperature()]).map(f32::to_bits).collect()
}

#[test]
fn stopped_at_any_step_and_resumed_it_goes_on_to_the_same_bits_on_any_number_of_threads() {
    for slots in [1, 3] {
        let whole = tempfile::tempdir().unwrap();
        let (agent, _) = in_pool(1, || go(whole.path(), slots, u64::MAX));
        let expected = metrics(whole.path());
        let policy: Vec<_> = expected.iter().filter(|line| line["event"] == "policy").collect();
        assert!(policy.len() > 2 && policy.iter().all(|line| line["critic/loss"].is_f64()), "{policy:?}");
        for stop_at in [1, 14, 15, 47, 63, 90, 129] {
            let folder = tempfile::tempdir().unwrap();
            let (_, outcome) = in_pool(2, || go(folder.path(), slots, stop_at));
            assert_eq!(outcome, Outcome::Stopped);
            let (resumed, _) = in_pool(2, || go(folder.path(), slots, u64::MAX));
            assert_eq!(metrics(folder.path()), expected, "{slots} environments, stopped at step {stop_at}");
            assert_eq!(resumed.replay().columns(), agent.replay().columns());
            assert_eq!(bits(&resumed), bits(&agent));
        }
    }
}

#[test]
fn in_several_environments_each_transition_stands_alone_and_none_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (agent, _) = go(folder.path(), 3, u64::MAX);
    assert_eq!((agent.replay().len(), agent.replay().pushed()), (70, 130));
    assert!(agent.replay().episodes().all(|episode| episode.len() == 1));
    let alone = tempfile::tempdir().unwrap();
    let (agent, _) = go(alone.path(), 1, u64::MAX);
    assert!(agent.replay().episodes().all(|episode| episode.len() <= 15) && agent.replay().episodes().count() <= 6);
}

#[test]
fn bad_settings_are_refused_by_name() {
    let spec = Point::new().spec().clone();
    let learner = |spec| {
        let (actor, critics) = networks();
        SacConfig::default().init(spec, &actor, &critics, &mut Rng::new(5)).unwrap()
    };
    let told = |config: ModelFreeConfig| config.init(&spec, learner(&spec)).unwrap_err().to_string();
    assert!(told(ModelFreeConfig { update_every: 0, ..small() }).starts_with("update_every = 0"));
    assert!(told(ModelFreeConfig { batch_size: 0, ..small() }).starts_with("batch_size = 0"));
    assert!(told(ModelFreeConfig { replay_capacity: 0, ..small() }).starts_with("replay_capacity = 0"));
    let pendulum = tasks::make("pendulum").unwrap().env.spec().clone();
    let error = small().init(&spec, learner(&pendulum)).unwrap_err().to_string();
    assert!(error.contains("observation of the policy"), "{error}");
}

#[test]
fn what_it_expects_of_a_state_is_the_critics_value_of_the_mean_action() {
    let mut agent = sac(&small(), 1);
    let mut training = TrainConfig::default().init(60, 1).unwrap();
    training.run(&mut Point::world(15), &mut agent, None, &mut (), &AtomicBool::new(false)).unwrap();
    let obs = mbrl_policy::Tensor::<1>::from_floats([0.3, -0.7, 0.0], &mbrl_policy::Device::flex()).reshape([3, 1]);
    let told: Vec<f32> = agent.learner().value().value(obs).into_data().iter().collect();
    let sac = agent.learner();
    let actions = sac.actor().mean(&[0.3, -0.7, 0.0]);
    let mut pass = mbrl_policy::CriticPass::default();
    sac.critics().values(&[0.3, -0.7, 0.0], &actions, false, &mut pass);
    let least: Vec<f32> = (0..3).map(|row| pass.values()[row].min(pass.values()[3 + row])).collect();
    assert_eq!(told, least);
}

/// A world whose actions are three choices.
struct Choices(EnvSpec);

impl Env for Choices {
    fn spec(&self) -> &EnvSpec {
        &self.0
    }

    fn reset(&mut self, _: Option<u64>) -> Result<Vec<f32>, EnvError> {
        Ok(vec![0.0])
    }

    fn step(&mut self, _: &[f32]) -> Result<Step, EnvError> {
        Ok(Step::new([0.0], 0.0))
    }
}

#[test]
fn an_experiment_with_choices_or_a_bad_value_is_refused_by_name() {
    let choices = TaskEntry::new("choices", "three choices", |_| {
        let spec = EnvSpec::new("choices", BoxSpace::unbounded(1), ActionSpace::Discrete(3), 0.1);
        Ok(Task::new(World::from_env(Choices(spec))))
    });
    let text = "task = \"pendulum\"\nsteps = 10\n[agent]\nkind = \"sac\"\n";
    let registry = Registry::new().tasks(tasks::entries()).tasks([choices]).experiments(&[("sac", text)]);
    let told = |words: &[&str]| match registry.load("sac", words) {
        Ok(experiment) => experiment.build_on(&registry, &mbrl_policy::Device::flex()).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    for kind in ["agent.kind=sac", "agent.kind=td3"] {
        let error = told(&[kind, "task=choices"]);
        assert!(error.contains("choices, whose actions are 3 choices") && error.contains("model-based"), "{error}");
    }
    for (words, part) in [
        (vec!["policy.learning_rate=-1"], "policy.learning_rate = -1"),
        (vec!["critics.count=0"], "critics.count = 0"),
        (vec!["critics.dropout=1"], "critics.dropout = 1"),
        (vec!["critics.hidden=[100000000, 100000000]"], "critics.hidden = "),
        (vec!["policy.hidden=[0]"], "policy.hidden = [0]"),
        (vec!["sac.log_std=[2, -20]"], "sac.log_std = "),
        (vec!["sac.discount=2"], "sac.discount = 2"),
        (vec!["agent.kind=td3", "td3.exploration_noise=-1"], "td3.exploration_noise = -1"),
        (vec!["agent.batch_size=0"], "agent.batch_size = 0"),
        (vec!["critics.layer_nom=true"], "did you mean `critics.layer_norm`"),
        (vec!["planner.horizon=3"], "unknown key `planner.horizon`"),
    ] {
        let error = told(&words);
        assert!(error.contains(part), "{words:?}: {error}");
    }
}
