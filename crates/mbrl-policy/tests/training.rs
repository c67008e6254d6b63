//! The loop: what it counts, what it tells, what it leaves on the disk, and what it refuses.

mod common;

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{Counter, Point, metrics};
use mbrl_env::{Env, EnvError, EnvSpec, Info, Rng, Situation, Step, TimeLimit, Transition};
use mbrl_plan::PlanError;
use mbrl_policy::{
    ActMode, Agent, AgentError, CheckpointReader, Checkpoints, EpisodeSummary, Evaluation, EvaluationEpisode, FORMAT,
    Goal, Learner, MAX_EPISODES, Moment, MpcAgent, Observer, Outcome, Phase, Provenance, RandomAgent, Report,
    ReportKind, RunFiles, Scalars, TrainConfig, Training, WhichCheckpoint, World, evaluate, start_seeds,
};

/// Writes down what it is told.
#[derive(Default)]
struct Diary(Vec<String>);

impl Observer for Diary {
    fn on_step(&mut self, at: Moment, transition: &Transition, _: &Info) -> Result<(), AgentError> {
        self.0.push(format!("step {} over {}", at.env_step, transition.episode_over()));
        Ok(())
    }
    fn on_episode(&mut self, at: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        self.0.push(format!("episode {} length {} truncated {}", at.episode, episode.length, episode.truncated));
        Ok(())
    }
    fn on_plan(&mut self, _: Moment, scalars: &Scalars) -> Result<(), AgentError> {
        self.0.push(format!("plan {scalars:?}"));
        Ok(())
    }
    fn on_fit(&mut self, at: Moment, _: &Scalars) -> Result<(), AgentError> {
        self.0.push(format!("fit at {}", at.env_step));
        Ok(())
    }
    fn on_eval(&mut self, at: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
        self.0.push(format!("eval at {} of {}", at.env_step, evaluation.episodes.len()));
        Ok(())
    }
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

#[test]
fn counts_every_real_step_and_no_other() {
    let config = TrainConfig { eval_every: 8, eval_episodes: 2, ..Default::default() };
    let mut training = config.init(14, 1).unwrap();
    let (mut env, mut learner, mut diary) = (Point::world(6), Counter::new(), Diary::default());
    let outcome = training.run(&mut env, &mut learner, None, &mut diary, &never()).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!((training.env_step(), training.episode()), (14, 3));
    let events: Vec<&str> = diary.0.iter().map(String::as_str).filter(|e| !e.ends_with("over false")).collect();
    assert_eq!(
        events,
        [
            "step 6 over true",
            "episode 1 length 6 truncated true",
            "plan [(\"plan/model_steps\", 3.5)]",
            // 8 lies inside of this episode, 10 too.
            "fit at 10",
            "step 12 over true",
            "episode 2 length 6 truncated true",
            "plan [(\"plan/model_steps\", 9.5)]",
            "eval at 12 of 2",
            // Cut by the end of the budget: truncated, not terminated.
            "step 14 over true",
            "episode 3 length 2 truncated true",
            "plan [(\"plan/model_steps\", 13.5)]",
            "eval at 14 of 2",
        ]
    );
    assert_eq!(learner.seen.len(), 14);
    assert!(learner.seen[13].truncated && !learner.seen[13].terminated);
    // The last observation of an episode is its own, not that of the next reset.
    assert_ne!(learner.seen[5].next_obs, learner.seen[6].obs);
    assert_eq!(learner.seen[4].next_obs, learner.seen[5].obs);
}

#[test]
fn evaluating_changes_nothing_of_the_training() {
    let run = |eval_every| {
        let config = TrainConfig { eval_every, eval_episodes: 3, ..Default::default() };
        let (mut env, mut learner) = (Point::world(5), Counter::new());
        config.init(30, 4).unwrap().run(&mut env, &mut learner, None, &mut (), &never()).unwrap();
        learner.seen
    };
    assert_eq!(run(0), run(1));
}

#[test]
fn evaluation_starts_are_the_same_for_every_agent_and_prefixes_of_each_other() {
    let mut env = Point::world(4);
    let starts = |agent: &mut dyn Agent, env: &mut World, n| {
        let found = evaluate(env, agent, &start_seeds(9, n)).unwrap();
        found.episodes.into_iter().map(|e| e.transitions[0].obs[0]).collect::<Vec<_>>()
    };
    let random = starts(&mut RandomAgent::new(env.spec().actions.clone()), &mut env, 5);
    env.reset(Some(77)).unwrap();
    let still = starts(&mut Still, &mut env, 3);
    assert_eq!(random[..3], still);
    assert!(random.windows(2).all(|w| w[0] != w[1]));
    assert_ne!(start_seeds(9, 2), start_seeds(10, 2));
}

#[test]
fn what_an_agent_draws_in_an_evaluation_depends_on_the_start_alone() {
    let mut env = Point::world(4);
    let mut agent = RandomAgent::new(env.spec().actions.clone());
    let mut actions = |seeds: &[u64]| {
        let found = evaluate(&mut env, &mut agent, seeds).unwrap();
        let of = |e: &EvaluationEpisode| e.transitions.iter().map(|t| t.action[0]).collect::<Vec<_>>();
        found.episodes.iter().map(of).collect::<Vec<_>>()
    };
    let (forth, back) = (actions(&[5, 6]), actions(&[6, 5]));
    assert_eq!((&forth[0], &forth[1]), (&back[1], &back[0]));
    assert_ne!(forth[0], forth[1]);
}

#[test]
fn evaluation_numbers_are_those_of_its_episodes() {
    let mut env = Point::world(4);
    let found = evaluate(&mut env, &mut Still, &start_seeds(0, 2)).unwrap();
    // Standing still at x pays −x² four times.
    let expected: Vec<f64> =
        found.episodes.iter().map(|e| -4.0 * f64::from(e.transitions[0].obs[0] * e.transitions[0].obs[0])).collect();
    let (a, b) = (expected[0], expected[1]);
    assert!(found.returns().zip([a, b]).all(|(r, e)| (r - e).abs() < 1e-6));
    assert!((found.return_mean() - 0.5 * (a + b)).abs() < 1e-6);
    assert!((found.return_std() - 0.5 * (a - b).abs()).abs() < 1e-6);
    assert_eq!(found.length_mean(), 4.0);
    let (low, high) = (expected[0].min(expected[1]), expected[0].max(expected[1]));
    assert!(high - low > 1e-3, "the episodes differ");
    let scalars = found.scalars();
    let told = |name: &str| scalars.iter().find(|(known, _)| known == name).unwrap().1;
    for (name, value) in [
        ("eval/return_mean", 0.5 * (low + high)),
        ("eval/return_std", 0.5 * (high - low)),
        ("eval/return_min", low),
        ("eval/return_max", high),
        ("eval/length_mean", 4.0),
        ("eval/episodes", 2.0),
    ] {
        assert!((told(name) - value).abs() < 1e-6, "{name}: {} instead of {value}", told(name));
    }
    assert!(evaluate(&mut env, &mut Still, &[]).is_err());
}

/// Stops the run when a number of steps was taken, as Ctrl-C would.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
        self.1.store(at.env_step >= self.0, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn stopped_at_any_step_and_resumed_gives_the_same_metrics() {
    const STEPS: u64 = 23;
    let config = TrainConfig { eval_every: 10, eval_episodes: 2, checkpoint_episodes: 2, ..Default::default() };
    let run = |folder: &std::path::Path, stop_at: u64| {
        let stop = never();
        let (mut env, mut learner) = (Point::world(4), Counter::new());
        let mut training = config.init(STEPS, 3).unwrap();
        let (mut files, damaged) = RunFiles::open(folder, &mut training, &mut learner).unwrap();
        assert!(damaged.is_empty());
        let mut observer = StopAt(stop_at, &stop);
        let outcome = training.run(&mut env, &mut learner, Some(&mut files), &mut observer, &stop).unwrap();
        (outcome, learner.seen)
    };
    let whole = tempfile::tempdir().unwrap();
    let (outcome, seen) = run(whole.path(), u64::MAX);
    assert_eq!(outcome, Outcome::Finished);
    let expected = metrics(whole.path());
    assert_eq!(expected.iter().filter(|line| line["event"] == "episode").count(), 6);
    for stop_at in 1..STEPS {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(folder.path(), stop_at).0, Outcome::Stopped);
        let (outcome, again) = run(folder.path(), u64::MAX);
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(metrics(folder.path()), expected, "stopped at {stop_at}");
        assert_eq!(again, seen);
    }
}

/// Takes a run in `folder` as far as `steps`, or stops it after `stop_at` of them.
fn go(folder: &Path, config: &TrainConfig, steps: u64, stop_at: u64) -> Result<(Training, Outcome), AgentError> {
    let stop = never();
    let (mut env, mut learner) = (Point::world(4), Counter::new());
    let mut training = config.init(steps, 3)?.described("task = \"point\"\nlimit = 4\n");
    let (mut files, _) = RunFiles::open(folder, &mut training, &mut learner)?;
    let outcome = training.run(&mut env, &mut learner, Some(&mut files), &mut StopAt(stop_at, &stop), &stop)?;
    Ok((training, outcome))
}

#[test]
fn a_run_of_another_seed_setting_or_environment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig::default();
    go(folder.path(), &config, 8, u64::MAX).unwrap();
    let open = |training: &mut Training| RunFiles::open(folder.path(), training, &mut Counter::new()).map(drop);
    let refused = |seed, settings: &str| {
        let mut training = config.init(8, seed).unwrap().described(settings);
        let error = open(&mut training).unwrap_err().to_string();
        assert!(error.contains("run.json"), "{error}");
        error
    };
    let error = refused(4, "task = \"point\"\nlimit = 4\n");
    assert!(error.contains("seed 4, found 3"), "{error}");
    let error = refused(3, "task = \"point\"\nlimit = 5\n");
    assert!(error.contains("setting `limit = 5`, found `limit = 4`"), "{error}");
    let error = refused(3, "task = \"point\"\n");
    assert!(error.contains("setting nothing, found `limit = 4`"), "{error}");

    // More steps are another matter: the run goes on. In another environment it does not.
    let mut training = config.init(12, 3).unwrap().described("task = \"point\"\nlimit = 4\n");
    open(&mut training).unwrap();
    assert_eq!(training.stored_step(), Some(8));
    let (mut other, seeds) = Resets::world();
    let error = training.run(&mut other, &mut Counter::new(), None, &mut (), &never()).unwrap_err();
    assert!(matches!(&error, AgentError::World { expected, actual } if expected == "point" && actual == "resets"));
    assert!(seeds.lock().unwrap().is_empty());
}

#[test]
fn a_description_of_an_earlier_version_is_compared_as_it_reads_today() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig::default();
    go(folder.path(), &config, 8, u64::MAX).unwrap();
    fn rewrite(old: &str) -> Option<String> {
        let known = old.contains("speed") || !old.contains("limit");
        (!known).then(|| format!("{old}speed = 1\n"))
    }
    let open = |settings: &str, rewrite: fn(&str) -> Option<String>| {
        let mut training = config.init(12, 3).unwrap().described(settings).upgrading(rewrite);
        let (mut files, _) = RunFiles::open(folder.path(), &mut training, &mut Counter::new())?;
        let (mut env, mut learner) = (Point::world(4), Counter::new());
        training.run(&mut env, &mut learner, Some(&mut files), &mut (), &never())
    };
    let today = "task = \"point\"\nlimit = 4\nspeed = 1\n";
    let refused = open(today, |_| None).unwrap_err().to_string();
    assert!(refused.contains("setting `speed = 1`, found nothing"), "{refused}");
    // What differs apart from that is still told.
    for (from, to) in [("speed = 1", "speed = 2"), ("limit = 4", "limit = 5")] {
        let refused = open(&today.replace(from, to), rewrite).unwrap_err().to_string();
        assert!(refused.contains(&format!("setting `{to}`, found `{from}`")), "{refused}");
    }
    assert_eq!(open(today, rewrite).unwrap(), Outcome::Finished);
    // The checkpoints that it wrote are of today.
    assert_eq!(open(today, |_| None).unwrap(), Outcome::Finished);
}

/// Episodes of one step; writes down the seeds of its resets.
struct Resets {
    inner: Point,
    spec: EnvSpec,
    seeds: Arc<Mutex<Vec<u64>>>,
}

impl Resets {
    /// A world of it, and its notes.
    fn world() -> (World, Arc<Mutex<Vec<u64>>>) {
        let (inner, seeds) = (Point::new(), Arc::default());
        let mut spec = inner.spec().clone();
        spec.name = "resets".into();
        (World::from_env(Self { inner, spec, seeds: Arc::clone(&seeds) }), seeds)
    }
}

impl Env for Resets {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.seeds.lock().unwrap().extend(seed);
        self.inner.reset(seed)
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        Ok(self.inner.step(action)?.with_truncated(true))
    }
}

#[test]
fn no_run_is_judged_on_start_states_that_it_learns_from() {
    for seed in [0, 3] {
        let (mut env, seeds) = Resets::world();
        let mut training = TrainConfig::default().init(200, seed).unwrap();
        // As programs do that draw the weights of a model first; the keys then are off by one.
        let _ = training.split_rng();
        training.run(&mut env, &mut Counter::new(), None, &mut (), &never()).unwrap();
        let seeds = seeds.lock().unwrap();
        assert_eq!(seeds.len(), 200);
        let judged = start_seeds(seed, 200);
        assert!(seeds.iter().all(|key| !judged.contains(key)), "seed {seed}");
    }
}

#[test]
fn two_at_once_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = TrainConfig::default().init(8, 3).unwrap();
    let (mut env, mut learner) = (Point::world(4), Counter::new());
    let (mut files, _) = RunFiles::open(folder.path(), &mut training, &mut learner).unwrap();
    training.run(&mut env, &mut learner, Some(&mut files), &mut (), &never()).unwrap();
    let record = fs::read(folder.path().join("metrics.jsonl")).unwrap();
    let second = || RunFiles::open(folder.path(), &mut training.clone(), &mut Counter::new()).map(drop);
    let error = second().unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    assert!(matches!(error, AgentError::InUse { path } if path == folder.path()));
    assert_eq!(fs::read(folder.path().join("metrics.jsonl")).unwrap(), record);
    drop(files);
    second().unwrap();
}

#[test]
fn a_run_whose_checkpoints_are_gone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { checkpoint_episodes: 2, ..Default::default() };
    go(folder.path(), &config, 23, 13).unwrap();
    fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    let record = fs::read(folder.path().join("metrics.jsonl")).unwrap();
    let error = go(folder.path(), &config, 23, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("checkpoints: there is no checkpoint") && error.contains("3 episodes"), "{error}");
    assert_eq!(fs::read(folder.path().join("metrics.jsonl")).unwrap(), record);
}

#[test]
fn a_stopped_run_tells_its_newest_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { checkpoint_episodes: 2, ..Default::default() };
    for (stop_at, stored) in [(7, None), (10, Some(8)), (15, Some(8)), (18, Some(16))] {
        let (training, outcome) = go(folder.path(), &config, 23, stop_at).unwrap();
        assert_eq!((training.stored_step(), outcome), (stored, Outcome::Stopped), "stopped at {stop_at}");
    }
    assert_eq!(go(folder.path(), &config, 23, u64::MAX).unwrap().0.stored_step(), Some(23));
}

/// Lets evaluations pass, and stops in the next one after so many of its episodes.
struct StopInEvaluation<'a> {
    pass: usize,
    after: usize,
    stop: &'a AtomicBool,
    begun: usize,
}

impl Observer for StopInEvaluation<'_> {
    fn on_phase(&mut self, _: Moment, phase: Phase) {
        let Phase::Evaluating { episode, .. } = phase else { return };
        self.begun += usize::from(episode == 0);
        if self.begun > self.pass && episode == self.after {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_run_stopped_in_an_evaluation_goes_on_with_it() {
    let config = TrainConfig { eval_every: 8, eval_episodes: 3, checkpoint_episodes: 100, ..Default::default() };
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    go(whole.path(), &config, 23, u64::MAX).unwrap();
    let mut came_to = Vec::new();
    // In each of the three evaluations twice: before its first episode, and after two. The last one ends the run.
    for (pass, after) in [(0, 0), (0, 2), (1, 0), (0, 2), (1, 0), (0, 2)] {
        let stop = never();
        let (mut env, mut learner) = (Point::world(4), Counter::new());
        let mut training = config.init(23, 3).unwrap().described("task = \"point\"\nlimit = 4\n");
        let (mut files, _) = RunFiles::open(stopped.path(), &mut training, &mut learner).unwrap();
        let before = learner.seen.len();
        let mut observer = StopInEvaluation { pass, after, stop: &stop, begun: 0 };
        let outcome = training.run(&mut env, &mut learner, Some(&mut files), &mut observer, &stop).unwrap();
        assert_eq!((outcome, training.is_finished()), (Outcome::Stopped, false));
        assert_eq!(training.stored_step(), Some(training.env_step()));
        came_to.push((before, learner.seen.len()));
    }
    // No step was taken twice.
    assert_eq!(came_to, [(0, 8), (8, 8), (8, 16), (16, 16), (16, 23), (23, 23)]);
    let (training, outcome) = go(stopped.path(), &config, 23, u64::MAX).unwrap();
    assert_eq!((outcome, training.is_finished()), (Outcome::Finished, true));
    assert_eq!(metrics(stopped.path()), metrics(whole.path()));
    // What is stored afterwards no longer says that it is due.
    let opened = |folder: &Path| {
        let mut training = config.init(23, 3).unwrap().described("task = \"point\"\nlimit = 4\n");
        RunFiles::open(folder, &mut training, &mut Counter::new()).unwrap();
        (training.is_finished(), training.best())
    };
    assert_eq!(opened(stopped.path()), opened(whole.path()));
    assert!(opened(stopped.path()).0);
}

#[test]
fn every_state_of_the_disk_that_a_kill_can_leave_goes_on_to_the_same_metrics() {
    let config = TrainConfig { eval_every: 10, eval_episodes: 2, ..Default::default() };
    let whole = tempfile::tempdir().unwrap();
    go(whole.path(), &config, 23, u64::MAX).unwrap();
    let expected = metrics(whole.path());

    /// A run that was stopped, and its checkpoints.
    fn stopped(config: &TrainConfig, at: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        go(folder.path(), config, 23, at).unwrap();
        let checkpoints = folder.path().join("checkpoints");
        (folder, checkpoints)
    }
    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let goes_on = |folder: &Path, kill: &str| {
        assert_eq!(go(folder, &config, 23, u64::MAX).unwrap().1, Outcome::Finished, "{kill}");
        assert_eq!(metrics(folder), expected, "{kill}");
        let left = |folder: &Path| {
            let names = fs::read_dir(folder.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(left(folder), left(whole.path()), "{kill}");
    };

    let (folder, checkpoints) = stopped(&config, 6);
    fs::rename(checkpoints.join("4"), checkpoints.join("4.partial")).unwrap();
    goes_on(folder.path(), "before the first checkpoint got its name");

    let (folder, checkpoints) = stopped(&config, 14);
    copy(&checkpoints.join("12"), &checkpoints.join("16.partial"));
    fs::remove_file(checkpoints.join("16.partial/manifest.json")).unwrap();
    goes_on(folder.path(), "in the middle of writing");

    let (folder, checkpoints) = stopped(&config, 14);
    fs::rename(checkpoints.join("12"), checkpoints.join("12.partial")).unwrap();
    goes_on(folder.path(), "before the renaming: the metrics are longer than recorded");

    let (folder, checkpoints) = stopped(&config, 14);
    let (_earlier, old) = stopped(&config, 6);
    copy(&old.join("4"), &checkpoints.join("4"));
    goes_on(folder.path(), "before the old one was forgotten");

    let (folder, checkpoints) = stopped(&config, 14);
    copy(&old.join("4"), &checkpoints.join("4"));
    fs::remove_file(checkpoints.join("4/manifest.json")).unwrap();
    goes_on(folder.path(), "while the old one was forgotten");

    let (folder, _) = stopped(&config, 14);
    let record = folder.path().join("metrics.jsonl");
    let mut bytes = fs::read(&record).unwrap();
    bytes.extend(br#"{"event":"episode","env_st"#);
    fs::write(&record, bytes).unwrap();
    goes_on(folder.path(), "in the middle of a line");
}

/// A point whose episodes of six steps break down in the step `at` of each episode of which `when` says so, or at their reset
/// where `at` is 0.
struct Brittle {
    inner: TimeLimit<Point>,
    how: &'static str,
    at: u32,
    when: fn(u32) -> bool,
    episode: u32,
    step: u32,
}

impl Brittle {
    fn world(how: &'static str, at: u32, when: fn(u32) -> bool) -> World {
        World::from_env(Self { inner: Point::limited(6), how, at, when, episode: 0, step: 0 })
    }

    fn breaks(&self) -> bool {
        (self.when)(self.episode) && self.step == self.at
    }

    fn diverged() -> EnvError {
        EnvError::Simulation { time: 0.3, reason: "diverged".into() }
    }
}

impl Env for Brittle {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        (self.episode, self.step) = (self.episode + 1, 0);
        let obs = self.inner.reset(seed)?;
        if self.breaks() { Err(Self::diverged()) } else { Ok(obs) }
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.step += 1;
        let mut step = self.inner.step(action)?;
        if self.breaks() {
            match self.how {
                "engine" => return Err(Self::diverged()),
                "observation" => step.obs[0] = f32::NAN,
                "reward" => step.reward = f64::INFINITY,
                "huge" => step.reward = 1e300,
                _ => return Err(EnvError::Width { what: "observation".into(), expected: 1, actual: 2 }),
            }
        }
        Ok(step)
    }
}

/// Events of a run of 20 steps, and what the learner saw.
fn brittle_run(mut world: World) -> (Vec<String>, Vec<Transition>) {
    let config = TrainConfig { max_breakdowns: 3, ..Default::default() };
    let (mut learner, mut diary) = (Counter::new(), Diary::default());
    config.init(20, 1).unwrap().run(&mut world, &mut learner, None, &mut diary, &never()).unwrap();
    let episodes = diary.0.into_iter().filter(|event| event.starts_with("episode")).collect();
    (episodes, learner.seen)
}

#[test]
fn an_episode_that_breaks_down_ends_as_truncated_without_its_last_step() {
    for how in ["engine", "observation", "reward", "huge"] {
        let (episodes, seen) = brittle_run(Brittle::world(how, 4, |episode| episode == 2));
        let lengths = ["1 length 6", "2 length 3", "3 length 6", "4 length 5"];
        assert_eq!(episodes, lengths.map(|told| format!("episode {told} truncated true")), "{how}");
        assert_eq!(seen.len(), 20, "{how}: a step that is dropped does not count");
        let ends: Vec<usize> = (0..20).filter(|i| seen[*i].truncated).collect();
        assert_eq!(ends, [5, 8, 14, 19], "{how}");
        assert!(seen.iter().all(|t| t.reward.abs() < 10.0 && t.next_obs[0].is_finite()), "{how}");
    }
}

#[test]
fn an_episode_may_break_down_before_its_first_step() {
    for at in [0, 1] {
        let (episodes, seen) = brittle_run(Brittle::world("engine", at, |episode| episode == 1 || episode == 3));
        let lengths: Vec<&str> = episodes.iter().map(|told| told.split(' ').nth(3).unwrap()).collect();
        assert_eq!(lengths, ["0", "6", "0", "6", "6", "2"], "at step {at}");
        assert_eq!(seen.len(), 20);
    }
}

#[test]
fn a_broken_run_that_was_stopped_goes_on_to_the_same_metrics() {
    let config = TrainConfig { max_breakdowns: 20, eval_every: 10, eval_episodes: 3, ..Default::default() };
    // Whether an episode breaks down must depend on nothing that a new process does not know: on its start.
    struct ByStart(Brittle);
    impl Env for ByStart {
        fn spec(&self) -> &EnvSpec {
            self.0.spec()
        }
        fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
            self.0.at = match seed.unwrap_or_default() % 4 {
                0 | 1 => 0,
                2 => 3,
                _ => u32::MAX,
            };
            self.0.reset(seed)
        }
        fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
            self.0.step(action)
        }
    }
    let run = |folder: &Path, stop_at: u64| {
        let stop = never();
        let inner = Brittle { inner: Point::limited(6), how: "engine", at: 0, when: |_| true, episode: 0, step: 0 };
        let (mut world, mut learner) = (World::from_env(ByStart(inner)), Counter::new());
        let mut training = config.init(60, 3).unwrap();
        let (mut files, _) = RunFiles::open(folder, &mut training, &mut learner).unwrap();
        let mut observer = StopAt(stop_at, &stop);
        training.run(&mut world, &mut learner, Some(&mut files), &mut observer, &stop).unwrap();
        learner.seen
    };
    let whole = tempfile::tempdir().unwrap();
    let seen = run(whole.path(), u64::MAX);
    let lines = metrics(whole.path());
    let broken = lines.iter().filter(|line| line["event"] == "episode" && line["episode/breakdown"] == 1);
    let lengths: Vec<u64> = broken.map(|line| line["episode/length"].as_u64().unwrap()).collect();
    assert!(lengths.contains(&0) && lengths.contains(&2), "both kinds of breakdowns happen: {lengths:?}");
    for stop_at in (1..60).step_by(4) {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), stop_at);
        assert_eq!(run(folder.path(), u64::MAX), seen, "stopped at {stop_at}");
        assert_eq!(metrics(folder.path()), lines, "stopped at {stop_at}");
    }
}

#[test]
fn too_many_breakdowns_in_a_row_and_other_errors_end_the_run() {
    let run = |mut world: World| {
        let config = TrainConfig { max_breakdowns: 3, ..Default::default() };
        config.init(40, 1).unwrap().run(&mut world, &mut Counter::new(), None, &mut (), &never())
    };
    assert!(run(Brittle::world("engine", 2, |episode| episode % 3 != 0)).is_ok(), "two in a row are not three");
    for at in [0, 2] {
        match run(Brittle::world("engine", at, |episode| episode > 1)).unwrap_err() {
            AgentError::BrokeDown { episodes, env_step, source } => {
                assert_eq!((episodes, env_step), (3, if at == 0 { 6 } else { 9 }));
                assert!(source.to_string().contains("diverged"), "{source}");
            }
            other => panic!("{other}"),
        }
    }
    // The world is at fault, not the episode.
    let error = run(Brittle::world("width", 2, |episode| episode == 2)).unwrap_err();
    assert!(matches!(error, AgentError::Env(EnvError::Width { .. })), "{error}");
}

#[test]
fn an_evaluation_counts_breakdowns_and_leaves_them_out() {
    let mut world = Brittle::world("reward", 3, |episode| episode == 2);
    let found = evaluate(&mut world, &mut Still, &start_seeds(0, 3)).unwrap();
    assert_eq!((found.breakdowns(), found.returns().count(), found.length_mean()), (1, 2, 6.0));
    let broken = &found.episodes[1];
    assert!(broken.summary.truncated && broken.summary.breakdown.as_deref().is_some_and(|why| why.contains("reward")));
    assert!(broken.transitions.len() == 2 && broken.transitions[1].truncated);
    let told = |name: &str| found.scalars().into_iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!((told("eval/breakdowns"), told("eval/episodes")), (1.0, 3.0));
    assert!((told("eval/return_mean") - found.returns().sum::<f64>() / 2.0).abs() < 1e-12);

    let mut world = Brittle::world("engine", 0, |_| true);
    let found = evaluate(&mut world, &mut Still, &start_seeds(0, 2)).unwrap();
    assert!(found.breakdowns() == 2 && found.return_mean().is_nan());
}

/// Plans of this agent fail when `fails` says so, by the number of the act.
struct Unplanned(Counter, fn(usize) -> bool, usize);

impl Agent for Unplanned {
    fn act(&mut self, s: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        self.2 += 1;
        self.0.act(s, mode, rng)
    }
    fn take_plan_failure(&mut self) -> Option<PlanError> {
        (self.1)(self.2).then_some(PlanError::NoFiniteReturn { population: 8, iteration: 0 })
    }
}

impl Learner for Unplanned {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.0.observe(transition)
    }
    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.0.truncate_episode()
    }
    fn update(&mut self, _: &mut Rng, _: &mut dyn Report) -> Result<(), AgentError> {
        Ok(())
    }
    fn save(&self, into: &mut mbrl_policy::CheckpointWriter) -> Result<(), AgentError> {
        self.0.save(into)
    }
    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        self.0.load(from)
    }
}

#[test]
fn plans_that_fail_are_counted_and_end_a_run_where_none_works() {
    let run = |fails: fn(usize) -> bool| {
        let mut diary = Diary::default();
        let config = TrainConfig { max_breakdowns: 3, ..Default::default() };
        let mut agent = Unplanned(Counter::new(), fails, 0);
        let ended = config.init(18, 0).unwrap().run(&mut Point::world(6), &mut agent, None, &mut diary, &never());
        let plans = diary.0.into_iter().filter(|event| event.starts_with("plan")).collect::<Vec<_>>();
        (ended, plans)
    };
    let (ended, plans) = run(|act| act <= 8);
    assert_eq!(ended.unwrap(), Outcome::Finished);
    assert_eq!(plans, ["plan [(\"plan/failed\", 6.0)]", "plan [(\"plan/failed\", 2.0)]"]);
    let (ended, _) = run(|_| true);
    assert!(matches!(ended, Err(AgentError::BrokeDown { episodes: 3, env_step: 18, .. })), "{ended:?}");

    let mut agent = Unplanned(Counter::new(), |act| act <= 8, 0);
    let found = evaluate(&mut Point::world(6), &mut agent, &start_seeds(0, 3)).unwrap();
    assert_eq!((found.failed_plans(), found.breakdowns()), (8, 0));
}

#[test]
fn an_mpc_agent_whose_plan_fails_goes_on_with_the_last_one_and_then_at_random() {
    use mbrl_env::reward_fn;
    use mbrl_model::{Propagation, dynamics_fn};
    use mbrl_plan::{CemConfig, Mpc, Replan};
    use mbrl_policy::{Device, Tensor};

    // Beyond 1 the model knows nothing.
    let model = dynamics_fn(1, 1, &Device::flex(), |s: Tensor<2>, a: Tensor<2>| {
        let nothing = s.clone().greater_elem(1.0);
        (s + a * 0.1).mask_fill(nothing, f32::NAN)
    });
    let actions = Point::new().spec().actions.clone();
    let goal = Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1))));
    let planner = CemConfig { horizon: 3, population: 30, elites: 5, ..Default::default() };
    let planner = planner.init(&actions, Propagation::MEAN).unwrap();
    let mut agent = MpcAgent::new(model, goal, actions, Mpc::new(Box::new(planner), Replan::EveryStep).unwrap());
    let mut rng = Rng::new(5);
    let mut act = |agent: &mut MpcAgent<_>, x: f32| {
        let action = agent.act(&Situation::of(&[x]), ActMode::Explore, &mut rng).unwrap();
        (action[0], agent.take_plan_failure().is_some(), agent.last_plan().is_some())
    };
    agent.begin_episode();
    let (towards, failed, planned) = act(&mut agent, 0.0);
    assert!(towards > 0.5 && !failed && planned);
    for _ in 0..2 {
        let (rest, failed, planned) = act(&mut agent, 2.0);
        assert!(rest > 0.5 && failed && !planned, "the rest of the plan goes the same way: {rest}");
    }
    let drawn: Vec<f32> = (0..20).map(|_| act(&mut agent, 2.0).0).collect();
    assert!(drawn.iter().any(|a| *a < -0.5) && drawn.iter().any(|a| *a > 0.5), "at random: {drawn:?}");
    let (towards, failed, planned) = act(&mut agent, 0.0);
    assert!(towards > 0.5 && !failed && planned);
}

/// Does nothing.
struct Still;

impl Agent for Still {
    fn act(&mut self, _: &Situation<'_>, _: ActMode, _: &mut Rng) -> Result<Vec<f32>, AgentError> {
        Ok(vec![0.0])
    }
}

/// Chooses what it was given.
struct Silly(Vec<f32>);

impl Agent for Silly {
    fn name(&self) -> &str {
        "silly"
    }
    fn act(&mut self, _: &Situation<'_>, _: ActMode, _: &mut Rng) -> Result<Vec<f32>, AgentError> {
        Ok(self.0.clone())
    }
}

#[test]
fn an_agent_that_chooses_no_action_is_named() {
    for (action, expected) in [(vec![f32::NAN], "NaN"), (vec![0.0, 0.0], "2 entries, expected 1")] {
        let error = evaluate(&mut Point::world(3), &mut Silly(action), &[0]).unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains("silly") && why.contains(expected), "{error}: {why}");
    }
}

/// Plans with snapshots it never gets.
struct Snapshots;

impl Agent for Snapshots {
    fn needs_snapshot(&self) -> bool {
        true
    }
    fn act(&mut self, situation: &Situation<'_>, _: ActMode, _: &mut Rng) -> Result<Vec<f32>, AgentError> {
        assert!(situation.snapshot.is_some());
        Ok(vec![0.5])
    }
}

#[test]
fn snapshots_come_from_simulators_alone() {
    let mut simulator = World::from_simulator(Point::limited(3));
    assert!(evaluate(&mut simulator, &mut Snapshots, &[0]).is_ok());
    let error = evaluate(&mut Point::world(3), &mut Snapshots, &[0]).unwrap_err().to_string();
    assert!(error.contains("point") && error.contains("simulator"), "{error}");
}

#[test]
fn a_disk_that_cannot_be_written_names_the_file_and_keeps_the_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig::default();
    let run = |steps| {
        let mut training = config.init(steps, 3).unwrap();
        let (mut env, mut learner) = (Point::world(4), Counter::new());
        let (mut files, _) = RunFiles::open(folder.path(), &mut training, &mut learner)?;
        training.run(&mut env, &mut learner, Some(&mut files), &mut (), &never())
    };
    run(8).unwrap();
    let before = metrics(folder.path());
    // A file where the next checkpoint's folder has to go: as unwritable for root as for anyone.
    fs::write(folder.path().join("checkpoints/12.partial"), "").unwrap();
    let error = run(20).unwrap_err().to_string();
    assert!(error.contains("12.partial"), "{error}");
    assert!(folder.path().join("checkpoints/8/manifest.json").exists());
    fs::remove_file(folder.path().join("checkpoints/12.partial")).unwrap();
    run(20).unwrap();
    assert_eq!(metrics(folder.path())[..before.len()], before);
}

#[test]
fn each_rule_of_the_configuration_is_checked() {
    let refused = |config: TrainConfig, steps| match config.init(steps, 0).unwrap_err() {
        AgentError::Config { field, .. } => field,
        other => panic!("{other}"),
    };
    let config = TrainConfig::default;
    assert_eq!(refused(config(), 0), "steps");
    for eval_episodes in [0, MAX_EPISODES + 1, usize::MAX] {
        assert_eq!(refused(TrainConfig { eval_every: 1, eval_episodes, ..config() }, 1), "eval_episodes");
    }
    assert_eq!(refused(TrainConfig { checkpoint_episodes: 0, ..config() }, 1), "checkpoint_episodes");
    assert_eq!(refused(TrainConfig { max_breakdowns: 0, ..config() }, 1), "max_breakdowns");
}

#[test]
fn mpc_reaches_the_goal_and_follows_a_new_one() {
    use mbrl_env::reward_fn;
    use mbrl_model::{Propagation, dynamics_fn};
    use mbrl_plan::{CemConfig, Mpc, Replan};
    use mbrl_policy::{Device, Tensor};
    use std::sync::Arc;

    let mut env = Point::new();
    let actions = env.spec().actions.clone();
    let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1);
    let at = |goal: f32| {
        let reward = move |_, _, next: Tensor<2>| -(next - goal).abs().squeeze_dim::<1>(1);
        Goal::new(Arc::new(reward_fn(reward)))
    };
    let planner = CemConfig { horizon: 5, population: 50, elites: 5, ..Default::default() };
    let planner = planner.init(&actions, Propagation::MEAN).unwrap();
    let mut agent = MpcAgent::new(model, at(0.0), actions, Mpc::new(Box::new(planner), Replan::EveryStep).unwrap());
    let mut rng = Rng::new(5);
    let mut obs = env.reset(Some(1)).unwrap();
    agent.begin_episode();
    for goal in [0.0_f32, 0.5] {
        *agent.goal_mut() = at(goal);
        for _ in 0..20 {
            let action = agent.act(&Situation::of(&obs), ActMode::Evaluate, &mut rng).unwrap();
            assert!(agent.last_plan().is_some());
            obs = env.step(&action).unwrap().obs;
        }
        assert!((obs[0] - goal).abs() < 0.03, "at {} instead of {goal}", obs[0]);
    }
}

/// A learner whose files cannot be written.
struct Failing(Counter);

impl Agent for Failing {
    fn act(&mut self, s: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        self.0.act(s, mode, rng)
    }
}

impl Learner for Failing {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.0.observe(transition)
    }
    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.0.truncate_episode()
    }
    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.0.update(rng, report)
    }
    fn save(&self, _: &mut mbrl_policy::CheckpointWriter) -> Result<(), AgentError> {
        Err(AgentError::Io { path: "model.bin".into(), source: std::io::ErrorKind::StorageFull.into() })
    }
    fn load(&mut self, from: &mbrl_policy::CheckpointReader) -> Result<(), AgentError> {
        self.0.load(from)
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_no_half_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut training = TrainConfig::default().init(8, 0).unwrap();
    let (mut env, mut learner) = (Point::world(4), Failing(Counter::new()));
    let (mut files, _) = RunFiles::open(folder.path(), &mut training, &mut learner).unwrap();
    let error = training.run(&mut env, &mut learner, Some(&mut files), &mut (), &never()).unwrap_err().to_string();
    assert!(error.contains("model.bin"), "{error}");
    assert_eq!(fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 0);
}

/// Writes down what its actions are for, and whether it is told of the past as it was.
#[derive(Default)]
struct Modes {
    modes: Vec<ActMode>,
    /// Observations and actions of the episode under way.
    past: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Agent for Modes {
    fn begin_episode(&mut self) {
        self.past.clear();
    }
    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        self.modes.push(mode);
        let told = situation.past.obs.iter().cloned().zip(situation.past.actions.iter().cloned());
        assert!(told.eq(self.past.iter().cloned()), "one past step for each step taken, oldest first");
        let action = vec![rng.uniform(-1.0, 1.0)];
        self.past.push((situation.obs.to_vec(), action.clone()));
        Ok(action)
    }
}

impl Learner for Modes {
    fn observe(&mut self, _: &Transition) -> Result<(), AgentError> {
        Ok(())
    }
    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        Ok(())
    }
    fn update(&mut self, _: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        // Names of run time; the mean over an episode of four is that of 1 to 4 twice.
        report.scalar(ReportKind::Policy, &format!("policy/{}", "loss"), self.past.len() as f64);
        Ok(())
    }
    fn save(&self, _: &mut mbrl_policy::CheckpointWriter) -> Result<(), AgentError> {
        Ok(())
    }
    fn load(&mut self, _: &mbrl_policy::CheckpointReader) -> Result<(), AgentError> {
        Ok(())
    }
}

#[test]
fn training_explores_and_evaluations_do_not() {
    let config = TrainConfig { eval_every: 4, eval_episodes: 1, ..Default::default() };
    let mut learner = Modes::default();
    config.init(8, 0).unwrap().run(&mut Point::world(4), &mut learner, None, &mut (), &never()).unwrap();
    let (explore, judged) = ([ActMode::Explore; 4], [ActMode::Evaluate; 4]);
    assert_eq!(learner.modes, [explore, judged, explore, judged].concat());
    learner.modes.clear();
    evaluate(&mut Point::world(4), &mut learner, &[3]).unwrap();
    assert_eq!(learner.modes, judged);
}

/// A point that tells how far it is, and something at its first step alone.
struct Telling(Point, u32);

impl Env for Telling {
    fn spec(&self) -> &EnvSpec {
        self.0.spec()
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.1 = 0;
        self.0.reset(seed)
    }
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.1 += 1;
        let step = self.0.step(action)?;
        let told = step.with_info("count", f64::from(self.1));
        Ok(if self.1 == 1 { told.with_info("begun", 5.0) } else { told })
    }
}

/// Writes down what the environment told.
#[derive(Default)]
struct Told(Vec<f64>, Vec<Vec<(String, f64)>>);

impl Observer for Told {
    fn on_step(&mut self, _: Moment, _: &Transition, info: &Info) -> Result<(), AgentError> {
        self.0.push(info["count"]);
        Ok(())
    }
    fn on_episode(&mut self, _: Moment, episode: &EpisodeSummary) -> Result<(), AgentError> {
        self.1.push(episode.info.clone());
        Ok(())
    }
}

#[test]
fn what_the_environment_tells_is_averaged_over_each_episode() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { eval_every: 6, eval_episodes: 2, ..Default::default() };
    let mut training = config.init(6, 0).unwrap();
    let mut env = World::from_env(TimeLimit::new(Telling(Point::new(), 0), 4).unwrap());
    let (mut learner, mut told) = (Modes::default(), Told::default());
    let (mut files, _) = RunFiles::open(folder.path(), &mut training, &mut learner).unwrap();
    training.run(&mut env, &mut learner, Some(&mut files), &mut told, &never()).unwrap();
    assert_eq!(told.0, [1.0, 2.0, 3.0, 4.0, 1.0, 2.0]);
    let of = |begun: f64, count: f64| vec![("begun".to_owned(), begun), ("count".to_owned(), count)];
    assert_eq!(told.1, [of(5.0, 2.5), of(5.0, 1.5)]);
    let lines = metrics(folder.path());
    let seen = |event: &str| -> Vec<(f64, f64)> {
        let of_event = lines.iter().filter(|line| line["event"] == event);
        of_event.map(|line| (line["reward/begun"].as_f64().unwrap(), line["reward/count"].as_f64().unwrap())).collect()
    };
    assert_eq!(seen("episode"), [(5.0, 2.5), (5.0, 1.5)]);
    assert_eq!(seen("eval"), [(5.0, 2.5)]);
    // Policies report means per episode too, in an event of their own.
    let policy: Vec<f64> =
        lines.iter().filter(|l| l["event"] == "policy").map(|l| l["policy/loss"].as_f64().unwrap()).collect();
    assert_eq!(policy, [2.5, 1.5]);
}

#[test]
fn evaluations_come_where_an_episode_reaches_a_multiple_and_at_the_end() {
    // Episodes of 4 steps: 4, 8, 12, 16, 20, 23.
    for (eval_every, expected) in
        [(1, vec![4, 8, 12, 16, 20, 23]), (5, vec![8, 12, 16, 20, 23]), (10, vec![12, 20, 23]), (100, vec![23])]
    {
        let config = TrainConfig { eval_every, eval_episodes: 1, ..Default::default() };
        let mut diary = Diary::default();
        config.init(23, 0).unwrap().run(&mut Point::world(4), &mut Counter::new(), None, &mut diary, &never()).unwrap();
        let found: Vec<u64> =
            diary.0.iter().filter_map(|line| line.strip_prefix("eval at ")?.split(' ').next()?.parse().ok()).collect();
        assert_eq!(found, expected, "every {eval_every}");
    }
}

#[test]
fn the_start_states_of_evaluations_are_those_of_the_evaluations_seed() {
    struct Starts(Vec<Vec<u64>>);
    impl Observer for Starts {
        fn on_eval(&mut self, _: Moment, evaluation: &Evaluation) -> Result<(), AgentError> {
            self.0.push(evaluation.episodes.iter().map(|episode| episode.seed).collect());
            Ok(())
        }
    }
    for eval_seed in [0, 9] {
        let config = TrainConfig { eval_every: 4, eval_episodes: 3, eval_seed, ..Default::default() };
        let mut starts = Starts(Vec::new());
        config.init(8, 1).unwrap().run(&mut Point::world(4), &mut Counter::new(), None, &mut starts, &never()).unwrap();
        assert_eq!(starts.0, vec![start_seeds(eval_seed, 3); 2]);
    }
}

#[test]
fn a_run_says_what_it_was_made_with() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig::default();
    let starts =
        || -> Vec<u64> { Provenance::of_run(folder.path()).unwrap().iter().map(|start| start.env_step).collect() };
    go(folder.path(), &config, 23, 10).unwrap();
    assert_eq!(starts(), [0]);
    go(folder.path(), &config, 23, u64::MAX).unwrap();
    assert_eq!(starts(), [0, 8]);
    // A finished run is not started again.
    go(folder.path(), &config, 23, u64::MAX).unwrap();
    assert_eq!(starts(), [0, 8]);
}

#[test]
fn a_checkpoint_of_the_first_format_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { eval_every: 10, eval_episodes: 1, ..Default::default() };
    let whole = tempfile::tempdir().unwrap();
    go(whole.path(), &config, 23, u64::MAX).unwrap();
    go(folder.path(), &config, 23, 14).unwrap();
    let manifest = folder.path().join("checkpoints/12/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let today = format!("\"format\": {FORMAT}");
    assert!(text.contains(&today), "{text}");
    // It held the step of the next evaluation besides.
    let checkpoints = Checkpoints::in_folder(folder.path().join("checkpoints"));
    let reader = CheckpointReader::open(&folder.path().join("checkpoints/12")).unwrap();
    let mut state: serde_json::Value = reader.get_json("run.json").unwrap();
    assert!(state.get("next_eval").is_none());
    state["next_eval"] = 20.into();
    for later in ["breakdowns", "metrics_crc32", "best"] {
        assert!(state.as_object_mut().unwrap().remove(later).is_some(), "{later}");
    }
    let seen = reader.get("seen.bin").unwrap().to_vec();
    checkpoints
        .write(12, None, None, |into| {
            into.put("seen.bin", &seen)?;
            into.put_json("run.json", &state)
        })
        .unwrap();
    let text = fs::read_to_string(&manifest).unwrap().replace(&today, "\"format\": 1");
    assert!(!text.contains(&today));
    fs::write(&manifest, text).unwrap();
    go(folder.path(), &config, 23, u64::MAX).unwrap();
    assert_eq!(metrics(folder.path()), metrics(whole.path()));
}

#[test]
fn a_checkpoint_of_ones_choice_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { eval_every: 4, eval_episodes: 2, ..Default::default() };
    go(folder.path(), &config, 40, u64::MAX).unwrap();
    let found: Vec<(u64, f64)> = metrics(folder.path())
        .iter()
        .filter(|line| line["event"] == "eval")
        .map(|line| (line["env_step"].as_u64().unwrap(), line["eval/return_mean"].as_f64().unwrap()))
        .collect();
    let best = found.iter().copied().reduce(|best, other| if other.1 > best.1 { other } else { best }).unwrap();
    assert!(found.len() == 10 && best.0 < 36, "the best is none of the newest: {found:?}");
    let opened = |which| {
        let mut training = config.init(40, 3).unwrap().described("task = \"point\"\nlimit = 4\n");
        let mut learner = Counter::new();
        training.restore_from(folder.path(), which, &mut learner).map(|_| {
            assert_eq!(learner.seen.len() as u64, training.env_step());
            (training.env_step(), training.best())
        })
    };
    assert_eq!(opened(WhichCheckpoint::Last).unwrap().0, 40);
    assert_eq!(opened(WhichCheckpoint::Step(36)).unwrap().0, 36);
    let (step, told) = opened(WhichCheckpoint::Best).unwrap();
    let told = told.unwrap();
    assert_eq!((step, told.env_step, told.return_mean.to_bits()), (best.0, best.0, best.1.to_bits()));
    let error = opened(WhichCheckpoint::Step(7)).unwrap_err().to_string();
    assert!(error.contains("no checkpoint of step 7") && error.contains(&format!("{}, 36, 40", best.0)), "{error}");

    // Without an evaluation there is no best one.
    let plain = tempfile::tempdir().unwrap();
    go(plain.path(), &TrainConfig::default(), 8, u64::MAX).unwrap();
    let mut training = TrainConfig::default().init(8, 3).unwrap().described("task = \"point\"\nlimit = 4\n");
    let error = training.restore_from(plain.path(), WhichCheckpoint::Best, &mut Counter::new()).unwrap_err();
    assert!(error.to_string().contains("no evaluation"), "{error}");
}

#[test]
fn a_run_whose_folder_goes_away_ends_at_that_episode() {
    /// Does something to the folder after so many steps.
    struct Meddler<'a>(u64, &'a dyn Fn());
    impl Observer for Meddler<'_> {
        fn on_step(&mut self, at: Moment, _: &Transition, _: &Info) -> Result<(), AgentError> {
            if at.env_step == self.0 {
                (self.1)();
            }
            Ok(())
        }
    }
    let meddled = |meddle: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        let config = TrainConfig { checkpoint_episodes: 5, ..Default::default() };
        let (mut env, mut learner) = (Point::world(4), Counter::new());
        let mut training = config.init(40, 3).unwrap();
        let (mut files, _) = RunFiles::open(&run, &mut training, &mut learner).unwrap();
        let act = || meddle(&run);
        let ended =
            training.run(&mut env, &mut learner, Some(&mut files), &mut Meddler(10, &act), &never()).unwrap_err();
        (ended.to_string(), training.env_step(), folder)
    };
    let (error, step, folder) = meddled(&|run| fs::rename(run, run.with_file_name("renamed")).unwrap());
    assert!(error.contains("metrics.jsonl: is gone") && step == 12, "{error} at {step}");
    assert!(!folder.path().join("run").exists(), "nothing is made anew under the old name");
    let (error, step, _folder) = meddled(&|run| fs::remove_file(run.join("metrics.jsonl")).unwrap());
    assert!(error.contains("metrics.jsonl: is gone") && step == 12, "{error} at {step}");
}

#[test]
fn a_record_that_was_changed_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig::default();
    go(folder.path(), &config, 23, 10).unwrap();
    let path = folder.path().join("metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"episode/length\":4", "\"episode/length\":5", 1)).unwrap();
    let error = go(folder.path(), &config, 23, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl") && error.contains("was changed"), "{error}");
    fs::write(&path, text).unwrap();
    go(folder.path(), &config, 23, u64::MAX).unwrap();
}

#[test]
fn what_a_kill_left_is_tidied_up_unless_somebody_works_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { eval_every: 4, eval_episodes: 2, ..Default::default() };
    go(folder.path(), &config, 40, u64::MAX).unwrap();
    let kept: Vec<u64> = Checkpoints::in_folder(folder.path().join("checkpoints")).steps().unwrap();
    assert_eq!(kept.len(), 3, "two and the best one");
    let (half, file) = (folder.path().join("checkpoints/44.partial"), folder.path().join("curve.svg.partial"));
    fs::create_dir(&half).unwrap();
    fs::write(&file, "<svg").unwrap();
    // One that is younger may be somebody's who writes it this instant.
    let young = folder.path().join("report.html.partial");
    fs::write(&young, "<html").unwrap();
    let hour = std::time::Duration::from_secs(3600);
    fs::File::open(&file).unwrap().set_modified(std::time::SystemTime::now() - hour).unwrap();
    let mut training = config.init(48, 3).unwrap().described("task = \"point\"\nlimit = 4\n");
    // Somebody else is at work.
    let lock = fs::File::open(folder.path().join("lock")).unwrap();
    lock.lock().unwrap();
    RunFiles::tidy(folder.path());
    assert!(half.exists() && file.exists());
    lock.unlock().unwrap();
    RunFiles::tidy(folder.path());
    assert!(!half.exists() && !file.exists() && young.exists());
    assert_eq!(Checkpoints::in_folder(folder.path().join("checkpoints")).steps().unwrap(), kept);
    // So does who goes on.
    fs::create_dir(&half).unwrap();
    RunFiles::open(folder.path(), &mut training, &mut Counter::new()).unwrap();
    assert!(!half.exists());
}
