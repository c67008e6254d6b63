//! Several environments in lockstep: the same bits as one by one, whole episodes in the data, exact resumption.

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use common::{Point, metrics};
use mbrl_env::{ActionSpace, BoxSpace, Device, Env, Info, Rng, Situation, Tensor, Transition, World, reward_fn};
use mbrl_model::{Dynamics, EnsembleConfig, FitConfig, Head, Propagation, dynamics_fn};
use mbrl_plan::{CemConfig, Mpc, Replan};
use mbrl_policy::{
    ActMode, Agent, AgentError, FitSchedule, Goal, Learner, ModelBased, ModelBasedConfig, ModelLearner, Moment,
    MpcAgent, Observer, Outcome, Report, ReportKind, RunFiles, TrainConfig, Turn, evaluate, evaluate_together,
    start_seeds,
};

fn actions() -> ActionSpace {
    ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap())
}

fn goal() -> Goal {
    Goal::new(std::sync::Arc::new(reward_fn(|_, _, next: Tensor<2>| -next.square().squeeze_dim::<1>(1))))
}

fn mpc(replan: Replan) -> Mpc {
    let planner = CemConfig { horizon: 4, population: 40, elites: 4, iterations: 2, ..CemConfig::default() };
    Mpc::new(Box::new(planner.init(&actions(), Propagation::MEAN).unwrap()), replan).unwrap()
}

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Of 16 environments some sit out now and then; each of the others gets what it would get alone.
#[test]
fn a_batch_of_plans_is_the_plans_one_by_one() {
    let replan = Replan::Every(2);
    let planner = || {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1);
        MpcAgent::new(model, goal(), actions(), mpc(replan))
    };
    let alone: Vec<Vec<f32>> = (0..16)
        .map(|slot| {
            let (mut agent, mut rng, mut x) = (planner(), Rng::new(slot), slot as f32 / 16.0);
            let acted = (0..6).filter(|step| (slot + step) % 5 > 0).map(|_| {
                let action = agent.act(&Situation::of(&[x]), ActMode::Explore, &mut rng).unwrap()[0];
                x += 0.1 * action;
                action
            });
            acted.collect()
        })
        .collect();
    for threads in [1, 3] {
        let together = in_pool(threads, || {
            let mut agent = planner().with_more((1..16).map(|_| mpc(replan)).collect());
            assert_eq!(agent.slots(), 16);
            let mut rngs: Vec<Rng> = (0..16).map(Rng::new).collect();
            let mut xs: Vec<[f32; 1]> = (0..16_u8).map(|slot| [f32::from(slot) / 16.0]).collect();
            let mut acted = vec![Vec::new(); 16];
            for step in 0..6 {
                let each = xs.iter().zip(&mut rngs).enumerate().filter(|(slot, _)| (slot + step) % 5 > 0);
                let turns = each.map(|(slot, (x, rng))| Turn { slot, situation: Situation::of(x), rng });
                let turns: Vec<Turn<'_>> = turns.collect();
                let slots: Vec<usize> = turns.iter().map(|turn| turn.slot).collect();
                for (slot, one) in slots.iter().zip(agent.act_batch(turns, ActMode::Explore).unwrap()) {
                    acted[*slot].push(one.action[0]);
                    xs[*slot][0] += 0.1 * one.action[0];
                }
            }
            acted
        });
        assert_eq!(together, alone, "{threads} threads");
    }
}

/// A model-based agent for the point in `environments` of them.
fn learner(environments: usize, fit_every: FitSchedule) -> ModelBased {
    let config = ModelBasedConfig { random_steps: 60, fit_every, ..ModelBasedConfig::default() };
    let model = EnsembleConfig {
        members: 2,
        hidden: vec![8],
        head: Head::Deterministic,
        weight_decay: vec![],
        ..EnsembleConfig::default()
    };
    let model = model.init(1, 1, &Device::flex(), &mut Rng::new(9)).unwrap();
    let fit = FitConfig { max_epochs: 3, ..FitConfig::default() };
    let agent = config.init(Point::limited(15).spec(), model, fit, goal(), mpc(Replan::EveryStep)).unwrap();
    if environments == 1 { agent } else { agent.with_more((1..environments).map(|_| mpc(Replan::EveryStep)).collect()) }
}

struct Silent;

impl Report for Silent {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

#[test]
fn a_fit_that_is_due_waits_for_the_first_whole_episode() {
    let config = ModelBasedConfig { random_steps: 4, fit_every: FitSchedule::Steps(1000), ..Default::default() };
    let model = EnsembleConfig { members: 2, hidden: vec![8], ..EnsembleConfig::default() };
    let model = model.init(1, 1, &Device::flex(), &mut Rng::new(9)).unwrap();
    let mut learner =
        ModelLearner::new(&config, model, FitConfig { max_epochs: 1, ..Default::default() }).unwrap().in_lockstep(2);
    let (mut rng, mut fits) = (Rng::new(0), Vec::new());
    for t in 0..6 {
        for slot in 0..2 {
            let (obs, next_obs) = (vec![t as f32], vec![t as f32 + 1.0]);
            let step =
                Transition { obs, action: vec![0.0], reward: 0.0, next_obs, terminated: false, truncated: t == 5 };
            learner.observe(slot, &step).unwrap();
            if learner.update(&mut rng, &mut Silent).unwrap() {
                fits.push((t, slot));
            }
        }
    }
    assert_eq!(fits, [(5, 0)]);
}

#[test]
fn a_fit_per_episode_waits_for_environments_that_have_yet_to_take_their_first_step() {
    let config = ModelBasedConfig { random_steps: 1, fit_every: FitSchedule::Episode, ..Default::default() };
    let model = EnsembleConfig { members: 2, hidden: vec![8], ..EnsembleConfig::default() };
    let model = model.init(1, 1, &Device::flex(), &mut Rng::new(9)).unwrap();
    let mut learner =
        ModelLearner::new(&config, model, FitConfig { max_epochs: 1, ..Default::default() }).unwrap().in_lockstep(2);
    let (mut rng, mut fits) = (Rng::new(0), Vec::new());
    // Whether the episodes of both environments are over, step by step: in the second round the first one ends at once.
    let rounds: [&[(usize, bool)]; 3] = [&[(0, true), (1, true)], &[(0, true), (1, false)], &[(1, true)]];
    for steps in rounds {
        for (slot, truncated) in steps {
            let (obs, next_obs) = (vec![0.0], vec![1.0]);
            let step =
                Transition { obs, action: vec![0.0], reward: 0.0, next_obs, terminated: false, truncated: *truncated };
            learner.observe(*slot, &step).unwrap();
        }
        fits.push(learner.update(&mut rng, &mut Silent).unwrap());
    }
    assert_eq!(fits, [true, false, true]);
}

/// What its model says of some steps.
fn believed(agent: &ModelBased) -> Vec<f32> {
    let column = |values: [f32; 4]| Tensor::<1>::from_floats(values, &Device::flex()).reshape([4, 1]);
    let (states, actions) = (column([-0.5, 0.0, 0.3, 0.9]), column([1.0, 0.2, -0.4, 0.0]));
    agent.model().predict(states, actions).unwrap().mean.into_data().iter().collect()
}

/// Points whose episodes have 15 steps, and 9 in every third environment.
fn worlds(environments: usize) -> Vec<World> {
    (0..environments).map(|slot| Point::world(if slot % 3 == 2 { 9 } else { 15 })).collect()
}

fn config(environments: usize) -> TrainConfig {
    TrainConfig { environments, eval_every: 100, eval_episodes: 5, checkpoint_episodes: 4, ..TrainConfig::default() }
}

/// Remembers every step and where it was taken; raises a flag at one.
struct Steps<'a> {
    seen: Vec<(usize, Transition)>,
    stop: &'a AtomicBool,
    at: u64,
}

impl Observer for Steps<'_> {
    fn on_step(&mut self, at: Moment, transition: &Transition, _: &Info) -> Result<(), AgentError> {
        self.seen.push((at.slot, transition.clone()));
        if at.env_step == self.at {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

type Seen = Vec<(usize, Transition)>;

/// Trains in four environments until `steps`, or until it is stopped at a step.
fn go(folder: &Path, fit_every: FitSchedule, steps: u64, stop_at: u64) -> (ModelBased, Seen, Outcome) {
    let (config, mut agent) = (config(4), learner(4, fit_every));
    let mut training = config.init(steps, 3).unwrap();
    let (mut files, damaged) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
    assert!(damaged.is_empty());
    let stop = AtomicBool::new(false);
    let mut seen = Steps { seen: Vec::new(), stop: &stop, at: stop_at };
    let outcome = training.run_together(&mut worlds(4), &mut agent, Some(&mut files), &mut seen, &stop).unwrap();
    (agent, seen.seen, outcome)
}

#[test]
fn data_holds_whole_episodes_and_the_budget_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (agent, seen, outcome) = go(folder.path(), FitSchedule::Episode, 200, u64::MAX);
    assert_eq!((outcome, seen.len()), (Outcome::Finished, 200));
    // Rounds of 15 + 15 + 9 + 15 steps; 200 = 3 · 54 + 38.
    let lengths: Vec<usize> = agent.replay().episodes().map(|episode| episode.len()).collect();
    let mut expected = [9, 15, 15, 15].repeat(3);
    // The fourth is cut: after nine steps of four environments two are left, for the first two; the third is whole.
    expected.extend([9, 10, 10, 9]);
    let mut found = lengths.clone();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for (number, episode) in agent.replay().episodes().enumerate() {
        let last = episode.end - 1;
        for row in episode.clone() {
            let t = agent.replay().get(row).unwrap();
            assert_eq!(t.episode_over(), row == last, "episode {number} of {lengths:?}");
            if row < last {
                assert_eq!(t.next_obs, agent.replay().get(row + 1).unwrap().obs, "episode {number} is torn");
            }
        }
    }
    // One fit after each round from the 60th step on, at its end.
    let fits: Vec<f64> = metrics(folder.path())
        .iter()
        .filter(|line| line["event"] == "fit")
        .map(|line| line["model/transitions"].as_f64().unwrap())
        .collect();
    assert_eq!(fits, [108.0, 162.0, 200.0]);
}

#[test]
fn stopped_at_any_step_and_resumed_it_goes_on_to_the_same_bits_on_any_number_of_threads() {
    for fit_every in [FitSchedule::Episode, FitSchedule::Steps(40)] {
        let whole = tempfile::tempdir().unwrap();
        let (agent, ..) = in_pool(1, || go(whole.path(), fit_every, 200, u64::MAX));
        let expected = metrics(whole.path());
        assert!(expected.iter().any(|line| line["event"] == "fit"));
        for stop_at in [1, 53, 54, 55, 110, 130, 199] {
            let folder = tempfile::tempdir().unwrap();
            let (.., outcome) = in_pool(2, || go(folder.path(), fit_every, 200, stop_at));
            assert_eq!(outcome, Outcome::Stopped);
            let (resumed, ..) = in_pool(3, || go(folder.path(), fit_every, 200, u64::MAX));
            assert_eq!(metrics(folder.path()), expected, "stopped at step {stop_at}");
            assert_eq!(resumed.replay(), agent.replay());
            assert_eq!(believed(&resumed), believed(&agent));
        }
    }
}

#[test]
fn an_evaluation_side_by_side_is_that_of_one_environment() {
    let folder = tempfile::tempdir().unwrap();
    let (mut agent, ..) = go(folder.path(), FitSchedule::Episode, 120, u64::MAX);
    let seeds = start_seeds(5, 7);
    let one = evaluate(&mut Point::world(15), &mut agent, &seeds).unwrap();
    let mut several: Vec<World> = (0..4).map(|_| Point::world(15)).collect();
    let mut told = Vec::new();
    let together = evaluate_together(&mut several, &mut agent, &seeds, &mut |episode| told.push(episode.seed)).unwrap();
    assert_eq!(told, seeds);
    for (one, other) in one.episodes.iter().zip(&together.episodes) {
        assert_eq!((one.seed, &one.transitions), (other.seed, &other.transitions));
    }
    assert!(evaluate_together(&mut [], &mut agent, &seeds, &mut |_| {}).is_err());
}

#[test]
fn more_environments_than_there_are_or_than_an_agent_acts_in_are_refused() {
    let run = |environments: usize, passed: usize, agent: &mut dyn Learner| {
        let mut training = config(environments).init(50, 0).unwrap();
        let never = AtomicBool::new(false);
        training.run_together(&mut worlds(passed), agent, None, &mut (), &never).unwrap_err().to_string()
    };
    let agent = || learner(2, FitSchedule::Episode);
    assert_eq!(run(2, 1, &mut agent()), "environments = 2: expected as many worlds as there are passed");
    assert_eq!(run(3, 3, &mut agent()), "environments = 3: expected at most as many as the agent can act in");
    assert_eq!(config(0).init(50, 0).unwrap_err().to_string(), "environments = 0: expected 1 to 1024");
}
