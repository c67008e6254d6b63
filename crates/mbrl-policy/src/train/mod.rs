//! The learning loop: act, observe, learn, record.
//!
//! ```text
//! until the budget of steps is used up:
//!     reset the world with a seed from the run's generator
//!     until the episode is over:
//!         act -> step -> observe -> update (fits where the agent says it is time to)
//!     evaluate, where due; write a checkpoint, where due
//! ```
//!
//! A plain environment has no state that could be stored in the middle of an episode, so checkpoints are written at
//! episode ends. When an evaluation is stopped, a checkpoint is written as well, and the run continues with that evaluation.
//! A run that was stopped or killed continues from the newest checkpoint and repeats what came after it, with the same random
//! numbers: its metrics are those of a run that was never interrupted, bit for bit, wall times aside.

mod run_files;
mod stored;

use std::{
    iter::repeat,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use mbrl_env::{Env, Info, Rng, Transition};
use serde::{Deserialize, Serialize};

pub(crate) use self::run_files::CHECKPOINTS;
use self::run_files::checkpoints_of;
pub use self::{
    run_files::RunFiles,
    stored::{Best, WhichCheckpoint},
};
use crate::{
    ActMode, AgentError, CheckpointReader, EpisodeSummary, EvaluationEpisode, Learner, Moment, Observer, Phase, Report,
    ReportKind, World,
    evaluate::{check_episodes, evaluate_until},
    means::Means,
    start_seeds,
    world::{Episode, Seat, step_together},
};

/// When a run evaluates its agent and writes checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Number of environments side by side, in lockstep (default: 1): each step plans for all of them in one batch, on all
    /// threads. They begin and end episodes in rounds, and the agent learns from a round's data as if the episodes had come one
    /// after the other. With more environments it therefore acts on older knowledge, and the run takes less time.
    pub environments: usize,
    /// Evaluates at the first episode end at or after each multiple of this many real steps, and at the end of the run;
    /// 0 for never (default: 0, as in PETS, whose training episodes are its results).
    pub eval_every: u64,
    /// Episodes of an evaluation (default: 20).
    pub eval_episodes: usize,
    /// Seed of the evaluations' start states, which are the same at every evaluation and for every agent (default: 0).
    pub eval_seed: u64,
    /// Writes a checkpoint after this many episodes, and at the end of the run (default: 1).
    pub checkpoint_episodes: u64,
    /// Consecutive episodes that may break down, or in which no plan works, before the run ends with an error (default: 50: even if
    /// nine episodes in ten break down, a run still continues in all but one case in 200).
    pub max_breakdowns: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            environments: 1,
            eval_every: 0,
            eval_episodes: 20,
            eval_seed: 0,
            checkpoint_episodes: 1,
            max_breakdowns: 50,
        }
    }
}

impl TrainConfig {
    /// Whether an episode from step `began` to step `ended` reaches the next evaluation.
    fn evaluates(&self, began: u64, ended: u64, last: bool) -> bool {
        self.eval_every > 0 && (last || ended / self.eval_every > began / self.eval_every)
    }

    /// A run of `steps` real steps, random ones included. All of its random numbers come from `seed`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule.
    pub fn init(&self, steps: u64, seed: u64) -> Result<Training, AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if steps == 0 {
            return refuse("steps", steps.to_string(), "at least 1");
        }
        if !(1..=MAX_ENVIRONMENTS).contains(&self.environments) {
            return refuse("environments", self.environments.to_string(), "1 to 1024");
        }
        if self.eval_every > 0 && check_episodes(self.eval_episodes).is_err() {
            let rule = "1 to 100000 episodes, where eval_every is not 0";
            return refuse("eval_episodes", self.eval_episodes.to_string(), rule);
        }
        if self.checkpoint_episodes == 0 {
            return refuse("checkpoint_episodes", self.checkpoint_episodes.to_string(), "at least 1");
        }
        if self.max_breakdowns == 0 {
            return refuse("max_breakdowns", self.max_breakdowns.to_string(), "at least 1");
        }
        Ok(Training {
            config: self.clone(),
            steps,
            evaluated: self.environments,
            stored: None,
            upgrade: |_| None,
            state: State {
                description: String::new(),
                environment: String::new(),
                agent: String::new(),
                seed,
                rng: Rng::new(seed),
                env_step: 0,
                episode: 0,
                breakdowns: 0,
                _next_eval: None,
                metrics_length: 0,
                metrics_crc32: None,
                best: None,
                evaluation_due: false,
                wall_s: 0.0,
            },
        })
    }
}

/// A run of the learning loop, between two episodes.
#[derive(Debug, Clone)]
pub struct Training {
    config: TrainConfig,
    steps: u64,
    /// Step of the newest checkpoint.
    stored: Option<u64>,
    state: State,
    upgrade: fn(&str) -> Option<String>,
    /// In how many of the environments it evaluates.
    evaluated: usize,
}

/// All that a checkpoint holds besides the learner.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    description: String,
    environment: String,
    agent: String,
    seed: u64,
    rng: Rng,
    env_step: u64,
    episode: u64,
    /// Episodes in a row that broke down or in which no plan worked, up to now. Checkpoints before format 3 have none.
    #[serde(default)]
    breakdowns: u64,
    /// Of format 1; it follows from the steps.
    #[serde(default, skip_serializing, rename = "next_eval")]
    _next_eval: Option<u64>,
    metrics_length: u64,
    /// Of these bytes. Checkpoints before format 3 have none.
    #[serde(default)]
    metrics_crc32: Option<u32>,
    /// The best evaluation so far. Checkpoints before format 3 have none.
    #[serde(default)]
    best: Option<Best>,
    /// The evaluation after these steps was stopped, and comes first when the run continues.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    evaluation_due: bool,
    wall_s: f64,
}

const STATE: &str = "run.json";

/// Each has a planner and an episode of its own in memory.
const MAX_ENVIRONMENTS: usize = 1024;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were taken.
    Finished,
    /// The stop flag was raised. The newest checkpoint is that of [`Training::stored_step`]; the learner may have seen later
    /// steps, so continue from the files with a fresh learner ([`RunFiles::open`]).
    Stopped,
}

impl Training {
    /// Describes what the run is made of: settings, one per line. The description goes into the checkpoints, and those of a
    /// run with a different description are refused. Leave out what may change from one start to the next, such as the
    /// number of steps.
    #[must_use]
    pub fn described(mut self, settings: impl Into<String>) -> Self {
        self.state.description = settings.into();
        self
    }

    /// Upgrades the settings stored in an old checkpoint: keys added since get their defaults. `None`, the default, compares
    /// them as they stand.
    #[must_use]
    pub fn upgrading(mut self, upgrade: fn(&str) -> Option<String>) -> Self {
        self.upgrade = upgrade;
        self
    }

    /// Evaluates only in the first `worlds` environments (at least 1; default: all): the others are variations of the task.
    #[must_use]
    pub fn evaluating_in(mut self, worlds: usize) -> Self {
        self.evaluated = worlds.max(1);
        self
    }

    /// Real steps at the newest checkpoint; `None` before the first one.
    #[must_use]
    pub fn stored_step(&self) -> Option<u64> {
        self.stored
    }

    /// The best evaluation so far; `None` before the first one.
    #[must_use]
    pub fn best(&self) -> Option<Best> {
        self.state.best
    }

    /// Real steps taken, at the last episode end.
    #[must_use]
    pub fn env_step(&self) -> u64 {
        self.state.env_step
    }

    /// Real steps this run will take.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Finished episodes.
    #[must_use]
    pub fn episode(&self) -> u64 {
        self.state.episode
    }

    /// Wall time so far (s), at the last episode end.
    #[must_use]
    pub fn wall_s(&self) -> f64 {
        self.state.wall_s
    }

    /// A stream of random numbers for what is drawn before the first episode, such as the weights of a model.
    #[must_use]
    pub fn split_rng(&mut self) -> Rng {
        self.state.rng.split()
    }

    /// Whether all steps were taken, and the evaluation at their end, if there is one, was not stopped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state.env_step >= self.steps && !self.state.evaluation_due
    }

    /// Runs until all steps are taken or `stop` is raised, which is checked before every step. A stopped evaluation starts over
    /// when the run continues; no training step before it is repeated.
    ///
    /// An episode that the end of the budget cuts counts as truncated. So does one that breaks down
    /// ([`EpisodeSummary::breakdown`](crate::EpisodeSummary)): the step at which it does so is dropped and does not count.
    /// Episodes that break down and plans that fail are counted, with a warning. With `files`, metrics and checkpoints go
    /// there; `observer` is told everything as well.
    ///
    /// # Errors
    /// Errors of the agent, environment, files or observer; [`AgentError::BrokeDown`] where too many episodes in a row break down or
    /// have no plan that works ([`TrainConfig::max_breakdowns`]); [`AgentError::World`] for a run that began in another
    /// environment. The files on disk stay whole.
    pub fn run(
        &mut self,
        world: &mut World,
        learner: &mut dyn Learner,
        files: Option<&mut RunFiles>,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Outcome, AgentError> {
        self.run_together(std::slice::from_mut(world), learner, files, observer, stop)
    }

    /// As [`run`](Self::run), in several environments of one kind in lockstep: one action in each, one batched plan for all, and
    /// steps on all threads.
    ///
    /// All begin an episode together, and begin the next one when all episodes are over; an environment that is done earlier waits.
    /// Checkpoints therefore lie between two rounds of episodes, and runs continue bit for bit, whatever the number of threads. Each
    /// environment has its own stream of random numbers. With one environment this is [`run`](Self::run).
    ///
    /// # Errors
    /// As [`run`](Self::run); [`AgentError::Config`] for a number of environments other than [`TrainConfig::environments`], and for
    /// more than the agent [can act in](crate::Agent::slots).
    pub fn run_together(
        &mut self,
        worlds: &mut [World],
        learner: &mut dyn Learner,
        mut files: Option<&mut RunFiles>,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Outcome, AgentError> {
        self.check_worlds(worlds, learner)?;
        let clock = Clock { start: Instant::now(), before: self.state.wall_s };
        let (began, now) = (&self.state.environment, &worlds[0].spec().name);
        if !began.is_empty() && began != now {
            return Err(AgentError::World { expected: began.clone(), actual: now.clone() });
        }
        self.state.environment.clone_from(now);
        self.state.agent = learner.name().to_owned();
        if self.state.evaluation_due {
            let due = Due { evaluation: true, checkpoint: true };
            if !self.store(due, self.state.clone(), worlds, learner, &mut files, observer, stop, &clock)? {
                return Ok(Outcome::Stopped);
            }
        }
        while !self.is_finished() {
            // The state as it will be at the end of this round; taken over only then.
            let mut state = self.state.clone();
            let began = state.env_step;
            let endless = worlds.iter().any(|world| world.spec().max_steps.is_none());
            let mut round = Round { training: self, files: &mut files, observer, clock: &clock, stop, began, endless };
            let finished = match &mut *worlds {
                [world] => round.episode(world, learner, &mut state)?,
                worlds => round.episodes(worlds, learner, &mut state)?,
            };
            let last = state.env_step >= self.steps;
            let per = self.config.checkpoint_episodes;
            let due = Due {
                evaluation: self.config.evaluates(began, state.env_step, last),
                checkpoint: last || state.episode / per > self.state.episode / per,
            };
            if !finished || !self.store(due, state, worlds, learner, &mut files, observer, stop, &clock)? {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// Refuses another number of environments than this run has, or than the agent can act in.
    fn check_worlds(&self, worlds: &[World], learner: &dyn Learner) -> Result<(), AgentError> {
        let refuse = |rule| {
            let value = self.config.environments.to_string();
            Err(AgentError::Config { field: "environments", value, rule })
        };
        if worlds.len() != self.config.environments {
            return refuse("as many worlds as there are passed");
        }
        if worlds.len() > learner.slots() {
            return refuse("at most as many as the agent can act in");
        }
        worlds.iter().try_for_each(|world| world.spec().check())?;
        Ok(())
    }

    /// What follows a round of episodes: evaluates and writes a checkpoint, where they are due. `false` where the evaluation was
    /// stopped: it is still due, and the checkpoint, which is written in any case, says so.
    #[expect(clippy::too_many_arguments, reason = "all that a round has")]
    fn store(
        &mut self,
        due: Due,
        mut state: State,
        worlds: &mut [World],
        learner: &mut dyn Learner,
        files: &mut Option<&mut RunFiles>,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
        clock: &Clock,
    ) -> Result<bool, AgentError> {
        let mut is_best = false;
        let was_due = state.evaluation_due;
        if due.evaluation {
            let seeds = start_seeds(self.config.eval_seed, self.config.eval_episodes);
            let mut phase = Phase::Evaluating { episode: 0, episodes: seeds.len() };
            observer.on_phase(clock.moment(&state), phase);
            let mut watch = |_: &EvaluationEpisode| {
                if let Phase::Evaluating { episode, .. } = &mut phase {
                    *episode += 1;
                }
                observer.on_phase(clock.moment(&state), phase);
            };
            let evaluated = self.evaluated.min(worlds.len());
            let evaluation = evaluate_until(&mut worlds[..evaluated], learner, &seeds, stop, &mut watch)?;
            state.evaluation_due = evaluation.is_none();
            if let Some(evaluation) = &evaluation {
                tell(files, observer, |o| o.on_eval(clock.moment(&state), evaluation))?;
            }
            if let Some(evaluation) = evaluation.filter(|found| Best::is_beaten_by(state.best.as_ref(), found)) {
                let (return_mean, breakdowns) = (evaluation.return_mean(), evaluation.breakdowns());
                state.best = Some(Best { env_step: state.env_step, return_mean, breakdowns });
                is_best = true;
            }
        }
        let due_changes = state.evaluation_due != was_due;

        state.wall_s = clock.moment(&state).wall_s;
        self.state = state;
        if let Some(files) = files.as_deref_mut() {
            files.metrics.check_in_place()?;
        }
        if let Some(files) = files
            && (due.checkpoint || is_best || due_changes)
            // An episode without a step leaves what there is; resuming repeats it.
            && (due_changes || self.stored != Some(self.state.env_step))
        {
            files.metrics.sync()?;
            self.state.metrics_length = files.metrics.length();
            self.state.metrics_crc32 = Some(files.metrics.crc32());
            let best = self.state.best.map(|best| best.env_step);
            files.checkpoints.write(self.state.env_step, best, self.stored, |writer| {
                writer.put_json(STATE, &self.state)?;
                learner.save(writer)
            })?;
            self.stored = Some(self.state.env_step);
        }
        Ok(!self.state.evaluation_due)
    }

    /// Warns of an episode in which something broke down; an error where there were too many in a row.
    fn go_on_after(&self, trouble: AgentError, state: &State, summary: &EpisodeSummary) -> Result<(), AgentError> {
        let State { env_step, episode, breakdowns, .. } = *state;
        if summary.breakdown.is_some() {
            tracing::warn!(env_step, "episode {episode} broke down and ends as truncated: {trouble}");
        }
        if summary.failed_plans > 0 {
            let (failed, length) = (summary.failed_plans, summary.length);
            tracing::warn!(
                env_step,
                "episode {episode}: {failed} plans failed in {length} steps, the rest of the last plan or random actions \
                 stand in: {trouble}"
            );
        }
        if breakdowns >= self.config.max_breakdowns {
            return Err(AgentError::BrokeDown { episodes: breakdowns, env_step, source: Box::new(trouble) });
        }
        Ok(())
    }

    /// Begins where another run stands, with its data and nothing that it learned: fits the model of `learner` to them,
    /// evaluates it, if the settings say so, and writes a checkpoint, from which the run continues ([`run`](Self::run)). This is a way to try
    /// another model, or another fit, without a new real step.
    ///
    /// `files` belong to a new run; those in `folder` stay as they are. Returns what is wrong with newer checkpoints of the other run that had
    /// to be passed over. A fit that has begun is completed and kept; if `stop` is raised, the evaluation waits until the run continues.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] as for [`restore_from`](Self::restore_from), for data of different widths, and for a run that has taken
    /// more steps than this one is to take; [`AgentError::NoRefit`] for a learner that learns no model, or more than a model. Errors of fits,
    /// environments and files.
    #[expect(clippy::too_many_arguments, reason = "those of a run, and where it begins")]
    pub fn refit(
        &mut self,
        folder: &Path,
        which: WhichCheckpoint,
        worlds: &mut [World],
        learner: &mut dyn Learner,
        files: &mut RunFiles,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Vec<AgentError>, AgentError> {
        self.check_worlds(worlds, learner)?;
        let Some((reader, damaged)) = Self::find(folder, which)? else {
            let reason = "no checkpoint yet".to_owned();
            return Err(AgentError::Checkpoint { path: folder.join(CHECKPOINTS), reason });
        };
        let other: State = reader.get_json(STATE)?;
        if other.env_step > self.steps {
            let (taken, steps) = (other.env_step, self.steps);
            return Err(reader.refuse(STATE, format!("expected at most steps = {steps}, found {taken} steps taken")));
        }
        if !learner.take_data(&reader)? {
            let rule = "an agent that plans in its model (model-based), without [value] and [distil]";
            return Err(AgentError::NoRefit { agent: learner.name().to_owned(), rule });
        }
        let clock = Clock { start: Instant::now(), before: 0.0 };
        let mut state = self.state.clone();
        (state.env_step, state.episode) = (other.env_step, other.episode);
        (state.environment, state.agent) = (worlds[0].spec().name.clone(), learner.name().to_owned());
        let files = &mut Some(files);
        let mut round =
            Round { training: self, files, observer, clock: &clock, stop, began: state.env_step, endless: false };
        round.update(learner, &mut state, &mut Reported::default())?;
        if let Some(learned) = learner.learned().filter(|learned| !learned.is_fitted) {
            let rule =
                if learned.replay.len() < 2 { "at least two transitions" } else { "a fit that does not diverge" };
            return Err(AgentError::NoRefit { agent: learner.name().to_owned(), rule });
        }
        let due = Due { evaluation: self.config.eval_every > 0, checkpoint: true };
        self.store(due, state, worlds, learner, files, observer, stop, &clock)?;
        Ok(damaged)
    }

    /// Restores the newest whole checkpoint in a run's folder, learner included, if there is one; writes
    /// nothing. Returns what is wrong with newer checkpoints that had to be passed over.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for checkpoints that are foreign, newer than this program, of another run or all
    /// damaged, naming the file; [`AgentError::Io`] for one that cannot be read.
    pub fn restore(&mut self, folder: &Path, learner: &mut dyn Learner) -> Result<Vec<AgentError>, AgentError> {
        self.restore_from(folder, WhichCheckpoint::Last, learner)
    }

    /// As [`restore`](Self::restore), for a checkpoint of your choice: to inspect an agent, not to continue from there.
    ///
    /// # Errors
    /// As [`restore`](Self::restore); [`AgentError::Checkpoint`] where the requested one does not exist, naming those that do.
    pub fn restore_from(
        &mut self,
        folder: &Path,
        which: WhichCheckpoint,
        learner: &mut dyn Learner,
    ) -> Result<Vec<AgentError>, AgentError> {
        let Some((reader, damaged)) = Self::find(folder, which)? else { return Ok(Vec::new()) };
        self.load(&reader, learner)?;
        Ok(damaged)
    }

    /// A checkpoint of a run, and what is wrong with newer ones; `None` where there is none yet.
    fn find(folder: &Path, which: WhichCheckpoint) -> Result<Option<(CheckpointReader, Vec<AgentError>)>, AgentError> {
        let checkpoints = checkpoints_of(folder);
        let (step, damaged) = match which {
            WhichCheckpoint::Last => return Ok(checkpoints.newest()?.map(|newest| (newest.reader, newest.damaged))),
            WhichCheckpoint::Step(step) => (step, Vec::new()),
            WhichCheckpoint::Best => {
                let Some(newest) = checkpoints.newest()? else { return Ok(None) };
                let state: State = newest.reader.get_json(STATE)?;
                let none =
                    || newest.reader.refuse(STATE, "no evaluation so far, so there is no best checkpoint".into());
                (state.best.ok_or_else(none)?.env_step, newest.damaged)
            }
        };
        let steps = checkpoints.steps()?;
        if steps.is_empty() {
            return Ok(None);
        }
        if !steps.contains(&step) {
            let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
            let reason = format!("no checkpoint of step {step}; there are those of steps {}", steps.join(", "));
            return Err(AgentError::Checkpoint { path: folder.join(CHECKPOINTS), reason });
        }
        Ok(Some((CheckpointReader::open(&folder.join(CHECKPOINTS).join(step.to_string()))?, damaged)))
    }

    fn load(&mut self, reader: &CheckpointReader, learner: &mut dyn Learner) -> Result<(), AgentError> {
        let mut state: State = reader.get_json(STATE)?;
        if let Some(description) = (self.upgrade)(&state.description) {
            state.description = description;
        }
        for (what, expected, found) in [
            ("seed", self.state.seed.to_string(), state.seed.to_string()),
            ("agent", learner.name().to_owned(), state.agent.clone()),
            setting(&self.state.description, &state.description),
        ] {
            if expected != found {
                return Err(reader.refuse(STATE, format!("expected a run with {what} {expected}, found {found}")));
            }
        }
        learner.load(reader)?;
        self.stored = Some(state.env_step);
        self.state = state;
        Ok(())
    }
}

/// What follows a round of episodes.
#[derive(Clone, Copy)]
struct Due {
    evaluation: bool,
    checkpoint: bool,
}

/// The state of a round of episodes while it runs.
struct Round<'a, 'b> {
    training: &'a Training,
    files: &'a mut Option<&'b mut RunFiles>,
    observer: &'a mut dyn Observer,
    clock: &'a Clock,
    stop: &'a AtomicBool,
    /// Real steps before it.
    began: u64,
    /// Nothing limits the episodes of an environment.
    endless: bool,
}

impl Round<'_, '_> {
    /// One episode; `false` where it was stopped.
    fn episode(&mut self, world: &mut World, learner: &mut dyn Learner, state: &mut State) -> Result<bool, AgentError> {
        let mut reported = Reported::default();
        let mut episode = Episode::begin(world, learner, state.rng.key(), state.env_step)?;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let step = episode.step(world, learner, ActMode::Explore, &mut state.rng, state.env_step)?;
            let over = self.take_in(0, step, &mut episode, learner, state)?;
            if over {
                self.finish(&mut episode, state, &mut reported)?;
            }
            self.update(learner, state, &mut reported)?;
            if over {
                break;
            }
        }
        self.tell_reported(state, reported)?;
        Ok(true)
    }

    /// One episode in each of several environments; `false` where it was stopped.
    fn episodes(
        &mut self,
        worlds: &mut [World],
        learner: &mut dyn Learner,
        state: &mut State,
    ) -> Result<bool, AgentError> {
        let mut reported = Reported::default();
        let mut episodes = Vec::with_capacity(worlds.len());
        for (slot, world) in worlds.iter_mut().enumerate() {
            let (seed, rng) = (state.rng.key(), state.rng.split());
            episodes.push((Episode::reset(world, seed, state.env_step)?, rng, false));
            learner.begin_episode_in(slot);
        }
        while episodes.iter().any(|(.., over)| !over) {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            // The budget may end within a round: the last steps are those of the first environments.
            let left = usize::try_from(self.training.steps - state.env_step).unwrap_or(usize::MAX);
            let running: Vec<usize> = (0..episodes.len()).filter(|slot| !episodes[*slot].2).take(left).collect();
            let all = worlds.iter_mut().zip(&mut episodes).enumerate().filter(|(slot, _)| running.contains(slot));
            let seats = all.map(|(slot, (world, (episode, rng, _)))| Seat { slot, world, episode, rng }).collect();
            let stepped = step_together(seats, learner, ActMode::Explore, state.env_step)?;
            for (slot, step) in running.into_iter().zip(stepped) {
                let (episode, _, over) = &mut episodes[slot];
                *over = self.take_in(slot, step, episode, learner, state)?;
                if *over {
                    self.finish(episode, state, &mut reported)?;
                }
            }
            if state.env_step >= self.training.steps {
                // Those whose turn no longer came.
                for (slot, (episode, _, over)) in episodes.iter_mut().enumerate().filter(|(_, (.., over))| !over) {
                    *over = true;
                    if episode.summary.length > 0 {
                        learner.truncate_episode_in(slot)?;
                        (episode.summary.truncated, episode.summary.cut) = (true, true);
                        self.finish(episode, state, &mut reported)?;
                    }
                }
            }
            self.update(learner, state, &mut reported)?;
        }
        self.tell_reported(state, reported)?;
        Ok(true)
    }

    /// Takes in a step of an environment; whether its episode is over.
    fn take_in(
        &mut self,
        slot: usize,
        step: Option<(Transition, Info)>,
        episode: &mut Episode,
        learner: &mut dyn Learner,
        state: &mut State,
    ) -> Result<bool, AgentError> {
        let Some((mut transition, info)) = step else {
            if episode.summary.length > 0 {
                learner.truncate_episode_in(slot)?;
            }
            return Ok(true);
        };
        state.env_step += 1;
        if state.env_step >= self.training.steps && !transition.episode_over() {
            transition.truncated = true;
            episode.summary.truncated = true;
            episode.summary.cut = true;
        }
        learner.observe_in(slot, &transition)?;
        if self.endless && state.env_step - self.began == self.training.steps.div_ceil(2) {
            tracing::warn!(
                env_step = state.env_step,
                "this episode has taken half of the budget, and nothing limits it: what waits for the end of an episode (fits of \
                 agent.fit_every = \"episode\", evaluations, checkpoints) does not happen; put a TimeLimit around the environment"
            );
        }
        self.observer.on_step(Moment { slot, ..self.clock.moment(state) }, &transition, &info)?;
        Ok(transition.episode_over())
    }

    /// Tells of an episode that is over.
    fn finish(&mut self, episode: &mut Episode, state: &mut State, reported: &mut Reported) -> Result<(), AgentError> {
        state.episode += 1;
        state.breakdowns = if episode.is_failure() { state.breakdowns + 1 } else { 0 };
        let trouble = episode.trouble();
        let summary = episode.finish();
        reported.failed_plans += summary.failed_plans;
        tell(self.files, self.observer, |o| o.on_episode(self.clock.moment(state), &summary))?;
        match trouble {
            Some(trouble) => self.training.go_on_after(trouble, state, &summary),
            None => Ok(()),
        }
    }

    /// Lets the agent learn.
    fn update(
        &mut self,
        learner: &mut dyn Learner,
        state: &mut State,
        reported: &mut Reported,
    ) -> Result<(), AgentError> {
        let at = self.clock.moment(state);
        let observer = &mut *self.observer;
        let mut watch = |phase| observer.on_phase(at, phase);
        let Reported { plans, policies, .. } = reported;
        let mut numbers = Numbers { plans, policies, fit: Vec::new(), watch: &mut watch };
        learner.update(&mut state.rng, &mut numbers)?;
        let fit = numbers.fit;
        if fit.is_empty() {
            return Ok(());
        }
        tell(self.files, self.observer, |o| o.on_fit(self.clock.moment(state), &fit))
    }

    /// Tells of the plans and the policy of the round.
    fn tell_reported(&mut self, state: &State, mut reported: Reported) -> Result<(), AgentError> {
        let (mut plan, policy) = (reported.plans.take(), reported.policies.take());
        if reported.failed_plans > 0 {
            plan.push(("plan/failed".to_owned(), reported.failed_plans as f64));
        }
        if !plan.is_empty() {
            tell(self.files, self.observer, |o| o.on_plan(self.clock.moment(state), &plan))?;
        }
        if !policy.is_empty() {
            tell(self.files, self.observer, |o| o.on_policy(self.clock.moment(state), &policy))?;
        }
        Ok(())
    }
}

/// What was reported in a round of episodes.
#[derive(Default)]
struct Reported {
    plans: Means,
    policies: Means,
    failed_plans: u64,
}

/// The first line that two descriptions differ in, as expected and as found.
fn setting(expected: &str, found: &str) -> (&'static str, String, String) {
    let lines = |text| str::lines(text).map(Some).chain(repeat(None));
    let longer = expected.lines().count().max(found.lines().count());
    let (expected, found) = lines(expected).zip(lines(found)).take(longer).find(|(e, f)| e != f).unwrap_or_default();
    let word = |line: Option<&str>| line.map_or("nothing".to_owned(), |line| format!("`{line}`"));
    ("setting", word(expected), word(found))
}

/// Tells the files first, so that an observer that reads them finds the event.
fn tell(
    files: &mut Option<&mut RunFiles>,
    observer: &mut dyn Observer,
    mut event: impl FnMut(&mut dyn Observer) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    if let Some(files) = files {
        event(&mut files.metrics)?;
    }
    event(observer)
}

struct Clock {
    start: Instant,
    before: f64,
}

impl Clock {
    fn moment(&self, state: &State) -> Moment {
        let elapsed: Duration = self.start.elapsed();
        let wall_s = self.before + elapsed.as_secs_f64();
        Moment { env_step: state.env_step, episode: state.episode, wall_s, slot: 0 }
    }
}

/// What an update reported.
struct Numbers<'a> {
    plans: &'a mut Means,
    policies: &'a mut Means,
    fit: Vec<(String, f64)>,
    /// Told how far long work is.
    watch: &'a mut dyn FnMut(Phase),
}

impl Report for Numbers<'_> {
    fn progress(&mut self, phase: Phase) {
        (self.watch)(phase);
    }

    fn scalar(&mut self, kind: ReportKind, name: &str, value: f64) {
        match kind {
            ReportKind::Plan => self.plans.add(name, value),
            ReportKind::Policy => self.policies.add(name, value),
            ReportKind::Fit => self.fit.push((name.to_owned(), value)),
        }
    }
}
