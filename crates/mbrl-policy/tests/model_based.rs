//! The agent that learns its model: when it fits, that it learns, that it resumes, and what it does when a fit is lost.

mod common;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use common::{Point, metrics};
use mbrl_env::{Env, Info, Rng, Situation, Transition, reward_fn};
use mbrl_model::{EnsembleConfig, FitConfig, MemberRule, Propagation};
use mbrl_plan::{CemConfig, Disagreement, Mpc, Replan};
use mbrl_policy::{
    ActMode, Agent, AgentError, CheckpointReader, Checkpoints, Device, EpisodeSummary, FitSchedule, Goal, Learner,
    ModelBased, ModelBasedConfig, Moment, Observer, Outcome, Phase, PlanningAgent, RandomAgent, Report, ReportKind,
    RunFiles, Scalars, Tensor, TrainConfig, Training, WhichCheckpoint, evaluate, start_seeds,
};

fn learner(config: &ModelBasedConfig, fit: FitConfig, rng: &mut Rng) -> Result<ModelBased, AgentError> {
    let spec = Point::new().spec().clone();
    let model = EnsembleConfig { members: 2, hidden: vec![16], ..Default::default() };
    let model = model.init(1, 1, &Device::flex(), rng)?;
    let propagation = Propagation { rule: MemberRule::TsInf, noise: true, particles: 2 };
    let planner = CemConfig { horizon: 5, population: 30, elites: 4, iterations: 3, ..Default::default() };
    let mpc = Mpc::new(Box::new(planner.init(&spec.actions, propagation)?), Replan::EveryStep)?;
    let goal = Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| -next.powi_scalar(2).squeeze_dim::<1>(1))));
    config.init(&spec, model, fit, goal, mpc)
}

fn quick_fit() -> FitConfig {
    FitConfig { learning_rate: 1e-2, max_epochs: 30, batch_size: 16, holdout: 0.0, ..Default::default() }
}

fn config(fit_every: FitSchedule) -> ModelBasedConfig {
    ModelBasedConfig { random_steps: 25, fit_every, ..Default::default() }
}

/// Where fits and plans happened, and returns.
#[derive(Default)]
struct Diary {
    fits: Vec<u64>,
    diverged: usize,
    /// `model/mse` and `model/mse_best` of each fit.
    errors: Vec<(f64, f64)>,
    plans: Vec<u64>,
    returns: Vec<f64>,
    stop_at: Option<(u64, Arc<AtomicBool>)>,
}

impl Observer for Diary {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        if let Some((step, stop)) = &self.stop_at {
            stop.store(at.env_step >= *step, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
    fn on_episode(&mut self, _: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        self.returns.push(episode.total_reward);
        Ok(())
    }
    fn on_fit(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.fits.push(at.env_step);
        let told = |name: &str| scalars.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        self.errors.extend(told("model/mse").zip(told("model/mse_best")));
        // A network never predicts to the bit.
        assert!(told("model/unchanged_ratio").is_none_or(|ratio| ratio > 0.0), "{scalars:?}");
        self.diverged += usize::from(scalars.iter().any(|(name, _)| *name == "model/diverged"));
        Ok(())
    }
    fn on_plan(&mut self, at: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.plans.push(at.env_step);
        let steps = scalars.iter().find(|(name, _)| *name == "plan/model_steps").unwrap().1;
        // Two particles of 30 candidates over 5 steps, at most 3 times.
        assert!((300.0..=900.0).contains(&steps), "{steps}");
        Ok(())
    }
}

fn run(training: &mut Training, learner: &mut ModelBased, diary: &mut Diary) -> Outcome {
    let mut env = Point::world(10);
    training.run(&mut env, learner, None, diary, &AtomicBool::new(false)).unwrap()
}

#[test]
fn fits_when_due_and_plans_only_after_the_first_fit() {
    for (fit_every, fits, first_plan) in [
        // 25 random steps end inside of the third episode, which is finished at random.
        (FitSchedule::Episode, vec![30, 40, 50, 52], 40),
        (FitSchedule::Steps(10), vec![25, 35, 45], 30),
    ] {
        let mut training = TrainConfig::default().init(52, 0).unwrap();
        let mut agent = learner(&config(fit_every), quick_fit(), &mut training.split_rng()).unwrap();
        let mut diary = Diary::default();
        run(&mut training, &mut agent, &mut diary);
        assert_eq!(diary.fits, fits);
        assert_eq!(diary.plans.first(), Some(&first_plan));
        assert_eq!(agent.replay().len(), 52);
        // Two members: the better one's error lies below the mean of the two.
        assert_eq!(diary.errors.len(), fits.len());
        assert!(diary.errors.iter().all(|(mean, best)| best < mean && *best > 0.0), "{:?}", diary.errors);
    }
}

#[test]
fn the_oldest_transitions_are_forgotten_beyond_the_capacity() {
    let mut training = TrainConfig::default().init(52, 0).unwrap();
    let config = ModelBasedConfig { replay_capacity: 17, ..config(FitSchedule::Episode) };
    let mut agent = learner(&config, quick_fit(), &mut training.split_rng()).unwrap();
    run(&mut training, &mut agent, &mut Diary::default());
    assert_eq!(agent.replay().len(), 17);
}

#[test]
fn disagreement_is_paid_in_training_alone_and_costs_always() {
    let mut training = TrainConfig::default().init(40, 1).unwrap();
    let mut agent = learner(&config(FitSchedule::Episode), quick_fit(), &mut training.split_rng()).unwrap();
    run(&mut training, &mut agent, &mut Diary::default());
    let mut act = |weight: Option<f32>, mode: ActMode| {
        agent.goal_mut().disagreement = weight.map(|weight| Disagreement { weight, scale: vec![0.01] });
        agent.begin_episode();
        agent.act(&Situation::of(&[0.3]), mode, &mut Rng::new(5)).unwrap()
    };
    let plain = act(None, ActMode::Evaluate);
    assert_eq!(act(None, ActMode::Explore), plain);
    assert_eq!(act(Some(1e3), ActMode::Evaluate), plain, "an evaluation explores");
    assert_ne!(act(Some(1e3), ActMode::Explore), plain);
    let careful = act(Some(-1e3), ActMode::Explore);
    assert_ne!(careful, plain);
    assert_eq!(act(Some(-1e3), ActMode::Evaluate), careful, "the cost of what is not known is gone");
}

#[test]
fn learns_to_stay_at_the_goal() {
    let mut training = TrainConfig::default().init(80, 1).unwrap();
    let mut agent = learner(&config(FitSchedule::Episode), quick_fit(), &mut training.split_rng()).unwrap();
    run(&mut training, &mut agent, &mut Diary::default());
    let mut env = Point::world(20);
    let actions = env.spec().actions.clone();
    let seeds = start_seeds(0, 10);
    let learned = evaluate(&mut env, &mut agent, &seeds).unwrap().return_mean();
    let random = evaluate(&mut env, &mut RandomAgent::new(actions), &seeds).unwrap().return_mean();
    // The best there is: straight to 0 at 0.1 a step.
    let best: f64 = seeds
        .iter()
        .map(|seed| {
            let start = f64::from(env.reset(Some(*seed)).unwrap()[0].abs());
            (1..=20).map(|t| -(start - 0.1 * f64::from(t)).max(0.0).powi(2)).sum::<f64>()
        })
        .sum::<f64>()
        / 10.0;
    assert!(learned > best - 0.15 * (best - random).abs(), "learned {learned}, best {best}, random {random}");
}

#[test]
fn resumed_runs_are_the_same_bit_for_bit() {
    for reinitialize in [false, true] {
        let agent_config = ModelBasedConfig { reinitialize, ..config(FitSchedule::Steps(10)) };
        let run = |folder: &Path, stop_at: Option<u64>| {
            let mut training =
                TrainConfig { eval_every: 30, eval_episodes: 2, ..Default::default() }.init(52, 7).unwrap();
            let mut agent = learner(&agent_config, quick_fit(), &mut training.split_rng()).unwrap();
            let (mut files, _) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let mut diary = Diary { stop_at: stop_at.map(|step| (step, stop.clone())), ..Default::default() };
            let mut env = Point::world(10);
            training.run(&mut env, &mut agent, Some(&mut files), &mut diary, &stop).unwrap()
        };
        let whole = tempfile::tempdir().unwrap();
        run(whole.path(), None);
        for stop_at in [5, 27, 38, 51] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(run(folder.path(), Some(stop_at)), Outcome::Stopped);
            run(folder.path(), None);
            assert_eq!(metrics(folder.path()), metrics(whole.path()), "stopped at {stop_at}");
        }
    }
}

#[test]
fn a_fit_that_waits_for_data_is_not_forgotten_by_a_resume() {
    let step = |obs: f32, terminated: bool| Transition {
        obs: vec![obs],
        action: vec![0.5],
        reward: 0.0,
        next_obs: vec![obs + 0.05],
        terminated,
        truncated: false,
    };
    let config = ModelBasedConfig { random_steps: 1, ..config(FitSchedule::Episode) };
    let fresh = || learner(&config, quick_fit(), &mut Rng::new(3)).unwrap();
    let mut agent = fresh();
    // An episode of one step: a fit is due, and has too little data.
    agent.observe(&step(0.0, true)).unwrap();
    agent.update(&mut Rng::new(4), &mut Silent).unwrap();
    assert!(!agent.is_planning());
    let folder = tempfile::tempdir().unwrap();
    let written = Checkpoints::in_folder(folder.path()).write(1, None, None, |writer| agent.save(writer)).unwrap();
    let mut resumed = fresh();
    resumed.load(&CheckpointReader::open(&written).unwrap()).unwrap();
    // In the middle of the next episode no other fit is due.
    for agent in [&mut agent, &mut resumed] {
        agent.observe(&step(0.1, false)).unwrap();
        agent.update(&mut Rng::new(5), &mut Silent).unwrap();
        assert!(agent.is_planning());
    }
    assert_eq!(agent.model().save().unwrap(), resumed.model().save().unwrap());
}

#[test]
fn a_refit_begins_where_the_data_end_and_a_stop_leaves_out_the_evaluation() {
    let (from, places) = (tempfile::tempdir().unwrap(), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let trained = |steps: u64, folder: &Path| {
        let mut training =
            TrainConfig { eval_every: 30, eval_episodes: 2, ..Default::default() }.init(steps, 7).unwrap();
        let mut agent = learner(&config(FitSchedule::Steps(10)), quick_fit(), &mut training.split_rng()).unwrap();
        let (files, _) = RunFiles::open(folder, &mut training, &mut agent).unwrap();
        (training, agent, files)
    };
    let (mut training, mut agent, mut files) = trained(52, from.path());
    training.run(&mut Point::world(10), &mut agent, Some(&mut files), &mut (), &AtomicBool::new(false)).unwrap();
    let before = agent.model().save().unwrap();
    for (place, stop) in places.iter().zip([false, true]) {
        let (mut training, mut agent, mut files) = trained(70, place.path());
        let (worlds, stop) = (&mut [Point::world(10)], AtomicBool::new(stop));
        let which = WhichCheckpoint::Last;
        training.refit(from.path(), which, worlds, &mut agent, &mut files, &mut (), &stop).unwrap();
        assert_eq!((training.env_step(), training.stored_step(), agent.replay().len()), (52, Some(52), 52));
        assert_ne!(agent.model().save().unwrap(), before);
        let events: Vec<_> = metrics(place.path()).iter().map(|line| line["event"].clone()).collect();
        assert_eq!(events, if stop.into_inner() { vec!["fit"] } else { vec!["fit", "eval"] });
        drop(files);
        // The evaluation that was left out comes first, and what goes on from there is the same.
        let (mut training, mut agent, mut files) = trained(70, place.path());
        assert_eq!(training.env_step(), 52);
        training.run(&mut Point::world(10), &mut agent, Some(&mut files), &mut (), &AtomicBool::new(false)).unwrap();
    }
    let [whole, stopped] = places.map(|place| metrics(place.path()));
    assert!(whole.len() > 2);
    assert_eq!(whole, stopped);
}

#[test]
fn a_lost_fit_is_reported_and_the_run_goes_on() {
    let mut training = TrainConfig::default().init(40, 0).unwrap();
    let lost = FitConfig { learning_rate: 1e30, ..quick_fit() };
    let mut agent = learner(&config(FitSchedule::Episode), lost, &mut training.split_rng()).unwrap();
    let before = agent.model().save().unwrap();
    let mut diary = Diary::default();
    assert_eq!(run(&mut training, &mut agent, &mut diary), Outcome::Finished);
    assert_eq!((diary.fits.len(), diary.diverged), (2, 2));
    // The weights of before, and no planning with a model that was never fitted.
    assert_eq!(agent.model().save().unwrap(), before);
    assert!(diary.plans.is_empty() && !agent.is_fitted());
}

#[test]
fn each_rule_of_the_configuration_is_checked() {
    let refused = |config: ModelBasedConfig| match learner(&config, quick_fit(), &mut Rng::new(0)).unwrap_err() {
        AgentError::Config { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(refused(ModelBasedConfig { random_steps: 0, ..Default::default() }), "random_steps");
    assert_eq!(refused(config(FitSchedule::Steps(0))), "fit_every");
    assert_eq!(refused(ModelBasedConfig { replay_capacity: 0, ..Default::default() }), "replay_capacity");
    let error = learner(&Default::default(), FitConfig { batch_size: 0, ..quick_fit() }, &mut Rng::new(0)).unwrap_err();
    assert!(error.to_string().contains("batch_size"), "{error}");
}

#[test]
fn a_model_of_another_width_is_refused() {
    let spec = Point::new().spec().clone();
    let model = EnsembleConfig { members: 1, hidden: vec![4], ..Default::default() };
    let model = model.init(3, 1, &Device::flex(), &mut Rng::new(0)).unwrap();
    let planner = CemConfig::default().init(&spec.actions, Propagation::MEAN).unwrap();
    let mpc = Mpc::new(Box::new(planner), Replan::EveryStep).unwrap();
    let goal = Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    let error = ModelBasedConfig::default().init(&spec, model, quick_fit(), goal, mpc).unwrap_err().to_string();
    assert!(error.contains("= 3: expected 1"), "{error}");
}

#[test]
fn a_schedule_is_a_word_or_a_number() {
    use serde_json::{from_str, to_string};
    for (schedule, text) in [(FitSchedule::Episode, "\"episode\""), (FitSchedule::Steps(50), "50")] {
        assert_eq!(to_string(&schedule).unwrap(), text);
        assert_eq!(from_str::<FitSchedule>(text).unwrap(), schedule);
    }
    for text in ["\"sometimes\"", "-1", "true"] {
        assert!(from_str::<FitSchedule>(text).unwrap_err().to_string().contains("number of steps"), "{text}");
    }
}

/// Epochs and episodes as they are told, and the events between them.
#[derive(Default)]
struct Phases(Vec<String>);

impl Observer for Phases {
    fn on_phase(&mut self, at: Moment, phase: Phase) {
        self.0.push(match phase {
            Phase::Fitting { epoch, epochs } => format!("{} fitting {epoch}/{epochs}", at.env_step),
            Phase::Evaluating { episode, episodes } => format!("{} evaluating {episode}/{episodes}", at.env_step),
            phase => format!("{phase:?}"),
        });
    }
    fn on_fit(&mut self, at: Moment, _: &Scalars) -> Result<(), AgentError> {
        self.0.push(format!("{} fitted", at.env_step));
        Ok(())
    }
    fn on_eval(&mut self, at: Moment, _: &mbrl_policy::Evaluation) -> Result<(), AgentError> {
        self.0.push(format!("{} evaluated", at.env_step));
        Ok(())
    }
}

#[test]
fn observers_are_told_how_far_a_fit_and_an_evaluation_are() {
    let train = TrainConfig { eval_every: 30, eval_episodes: 2, ..TrainConfig::default() };
    let mut training = train.init(30, 0).unwrap();
    let fit = FitConfig { max_epochs: 3, ..quick_fit() };
    let mut learner = learner(&config(FitSchedule::Episode), fit, &mut training.split_rng()).unwrap();
    let mut phases = Phases::default();
    // One of several observers, as in the program.
    let mut observers: Vec<&mut dyn Observer> = vec![&mut phases];
    training.run(&mut Point::world(10), &mut learner, None, &mut observers, &AtomicBool::new(false)).unwrap();
    let expected = [
        "30 fitting 1/3",
        "30 fitting 2/3",
        "30 fitting 3/3",
        "30 fitted",
        "30 evaluating 0/2",
        "30 evaluating 1/2",
        "30 evaluating 2/2",
        "30 evaluated",
    ];
    assert_eq!(phases.0, expected);
}

struct Silent;

impl Report for Silent {
    fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
}

#[test]
fn an_episode_that_broke_down_ends_in_the_data_and_is_fitted_to_once_the_random_steps_are_over() {
    for (steps, fitted) in [(10_u8, false), (30, true)] {
        let mut rng = Rng::new(3);
        let mut agent = learner(&config(FitSchedule::Episode), quick_fit(), &mut rng).unwrap();
        assert_eq!(agent.name(), "model-based");
        for step in 0..steps {
            let x = 0.01 * f32::from(step);
            let (obs, action, next_obs) = (vec![x], vec![0.1], vec![x + 0.01]);
            let transition = Transition { obs, action, reward: 0.0, next_obs, terminated: false, truncated: false };
            agent.observe(&transition).unwrap();
        }
        agent.truncate_episode().unwrap();
        let learned = agent.learned().unwrap();
        assert_eq!((learned.replay.len(), learned.is_fitted), (usize::from(steps), false));
        assert!(learned.replay.get(usize::from(steps) - 1).unwrap().truncated);
        agent.update(&mut rng, &mut Silent).unwrap();
        assert_eq!(agent.is_fitted(), fitted, "{steps} of 25 random steps");
    }
}

#[test]
fn a_run_tells_its_budget_and_its_time() {
    let mut agent = learner(&config(FitSchedule::Episode), quick_fit(), &mut Rng::new(3)).unwrap();
    let mut training = TrainConfig::default().init(20, 0).unwrap();
    run(&mut training, &mut agent, &mut Diary::default());
    assert_eq!((training.steps(), training.env_step(), training.episode()), (20, 20, 2));
    assert!(training.wall_s() > 0.0);
}
