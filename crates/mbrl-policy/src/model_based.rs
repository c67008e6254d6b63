//! The agent that learns its model while it plans with it (PETS, PDDM).
//!
//! ```text
//! act at random until the first fit
//! after each real step: append it to the data; where a fit is due, fit the ensemble to all data
//! then: plan through the ensemble at every step, execute the first action
//! ```
//!
//! | | PETS \[1\] | PDDM \[2\] | mbrl-lib's PETS |
//! |---|---|---|---|
//! | [`random_steps`](ModelBasedConfig::random_steps) | one episode | 20 to 200 episodes | one episode |
//! | [`fit_every`](ModelBasedConfig::fit_every) | episode | 20 to 40 episodes | 50 steps |
//! | [`reinitialize`](ModelBasedConfig::reinitialize) | no | yes | no |
//!
//! A model with heads learns rewards and ends from the same data; where the [`Goal`] leaves one of them open, plans go by the
//! model's own. A model that looks back reads the past of each step within its episode.
//!
//! ## References
//! \[1\] Chua et al. (2018), *Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics
//! Models*, NeurIPS.
//! \[2\] Nagabandi et al. (2019), *Deep Dynamics Models for Learning Dexterous Manipulation*, CoRL.

use std::{cmp::Ordering, fmt, time::Instant};

use mbrl_env::{EnvSpec, Replay, Rng, Situation, Transition};
use mbrl_model::{Dataset, Ensemble, FitConfig, FitReport, ModelError, fit_watched};
use mbrl_plan::{Mpc, PlanError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    ActMode, Acted, Agent, AgentError, CheckpointReader, CheckpointWriter, Goal, Learned, Learner, MpcAgent,
    RandomAgent, Report, ReportKind, Tensor, Turn,
};

/// When the model is fitted, once the random steps are over. Written `"episode"`, or a number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitSchedule {
    /// At each episode end.
    Episode,
    /// After so many real steps, in the middle of an episode too.
    Steps(u64),
}

impl Serialize for FitSchedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Episode => serializer.serialize_str("episode"),
            Self::Steps(n) => serializer.serialize_u64(*n),
        }
    }
}

impl<'de> Deserialize<'de> for FitSchedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = FitSchedule;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"episode\" or a number of steps")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<FitSchedule, E> {
                if word == "episode" {
                    Ok(FitSchedule::Episode)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(word), &self))
                }
            }
            fn visit_u64<E: de::Error>(self, steps: u64) -> Result<FitSchedule, E> {
                Ok(FitSchedule::Steps(steps))
            }
            fn visit_i64<E: de::Error>(self, steps: i64) -> Result<FitSchedule, E> {
                u64::try_from(steps)
                    .map(FitSchedule::Steps)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(steps), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How an agent collects data and when it fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelBasedConfig {
    /// Real steps before the first fit, taken at random (default: 200, one episode of PETS's cart-pole). With
    /// [`FitSchedule::Episode`] the running episode is finished at random first.
    pub random_steps: u64,
    /// When the model is fitted (default: at each episode end, PETS).
    pub fit_every: FitSchedule,
    /// Whether each fit starts from fresh weights (PDDM) instead of the last ones (default: false, PETS).
    pub reinitialize: bool,
    /// Transitions that are kept; the oldest are forgotten (default: 1 000 000, which none of the papers reaches).
    pub replay_capacity: usize,
}

impl Default for ModelBasedConfig {
    fn default() -> Self {
        Self { random_steps: 200, fit_every: FitSchedule::Episode, reinitialize: false, replay_capacity: 1_000_000 }
    }
}

impl ModelBasedConfig {
    /// An agent that knows nothing yet, for an environment like `spec`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule and for a goal without reward where the model learns none,
    /// [`AgentError::Model`] for a model of other widths.
    pub fn init(
        &self,
        spec: &EnvSpec,
        model: Ensemble,
        fit: FitConfig,
        goal: Goal,
        mpc: Mpc,
    ) -> Result<ModelBased, AgentError> {
        spec.check()?;
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if self.random_steps == 0 {
            return refuse("random_steps", "0".into(), "at least 1: a model cannot be fitted to nothing");
        }
        if self.fit_every == FitSchedule::Steps(0) {
            return refuse("fit_every", "0".into(), "\"episode\" or at least 1 step");
        }
        if self.replay_capacity < 2 {
            let rule = "at least 2 transitions: a model cannot be fitted to fewer";
            return refuse("replay_capacity", self.replay_capacity.to_string(), rule);
        }
        fit.validate()?;
        if goal.reward.is_none() && !model.config().reward {
            return refuse("reward", "false".into(), "true for the model: the goal leaves the reward to it");
        }
        let widths = mbrl_model::Dynamics::spec(&model);
        for (what, expected, actual) in [
            ("observation of the model", spec.obs.width(), widths.obs),
            ("action of the model", spec.actions.width(), widths.action),
        ] {
            if expected != actual {
                return Err(ModelError::Width { what, expected, actual }.into());
            }
        }
        Ok(ModelBased {
            config: self.clone(),
            fit,
            explorer: RandomAgent::new(spec.actions.clone()),
            replay: Replay::new(spec.obs.width(), spec.actions.width(), self.replay_capacity)?,
            planner: MpcAgent::new(model, goal, spec.actions.clone(), mpc),
            running: Vec::new(),
            progress: Progress { steps: 0, fitted: false },
            due: false,
            warned: false,
        })
    }
}

/// Collects, fits, plans and appends. Made by [`ModelBasedConfig::init`].
#[derive(Debug)]
pub struct ModelBased {
    config: ModelBasedConfig,
    fit: FitConfig,
    explorer: RandomAgent,
    planner: MpcAgent<Ensemble>,
    replay: Replay,
    /// Episodes that are running, one per slot, where there are several: the replay gets them whole.
    running: Vec<Vec<Transition>>,
    progress: Progress,
    /// A fit comes with the next update.
    due: bool,
    /// It was said that the model has learned nothing.
    warned: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Real steps observed.
    steps: u64,
    /// Whether a fit has succeeded: until then the agent acts at random.
    fitted: bool,
}

const PROGRESS: &str = "agent.json";
const MODEL: &str = "model.bin";
const REPLAY: &str = "replay";

impl ModelBased {
    /// The model.
    #[must_use]
    pub fn model(&self) -> &Ensemble {
        self.planner.dynamics()
    }

    /// All data so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Whether the model was fitted: until then the agent acts at random.
    #[must_use]
    pub fn is_fitted(&self) -> bool {
        self.progress.fitted
    }

    /// With more controllers: it then acts in as many more environments side by side. Its data then holds whole episodes, each as
    /// it ends, and a fit that is due comes when there are some; with [`FitSchedule::Episode`] it comes when all running
    /// episodes are over.
    #[must_use]
    pub fn with_more(mut self, mpcs: Vec<Mpc>) -> Self {
        self.planner = self.planner.with_more(mpcs);
        self.running = vec![Vec::new(); self.planner.slots()];
        self
    }

    /// Puts the episode of a slot into the data.
    fn take_in(&mut self, slot: usize) -> Result<(), AgentError> {
        let episode = std::mem::take(&mut self.running[slot]);
        self.replay.push_episode(&episode)?;
        let all_over = self.running.iter().all(Vec::is_empty);
        let begun = self.progress.steps >= self.config.random_steps;
        self.due |= self.config.fit_every == FitSchedule::Episode && all_over && begun;
        Ok(())
    }

    fn fit_due(&self, transition: &Transition) -> bool {
        let Some(since) = self.progress.steps.checked_sub(self.config.random_steps) else { return false };
        match self.config.fit_every {
            FitSchedule::Episode => transition.episode_over(),
            FitSchedule::Steps(n) => since % n == 0,
        }
    }

    /// Fits a copy, so that the planner never sees a model that did not come out well. Besides the report: the model's error
    /// beside that of "nothing changes", where it can be told.
    fn fit_model(&mut self, rng: &mut Rng, watch: &mut dyn Report) -> Result<(FitReport, Option<f64>), ModelError> {
        let mut model = self.planner.dynamics().clone();
        let data = Dataset::of_replay(&self.replay, model.config().past)?;
        if self.config.reinitialize {
            model.reinitialize(rng);
        }
        let of = self.fit.max_epochs;
        let report = fit_watched(&mut model, &data, &self.fit, rng, &mut |epoch| watch.progress(epoch.number, of))?;
        let ratio = error_ratio(&model, &data)?;
        *self.planner.dynamics_mut() = model;
        Ok((report, ratio))
    }
}

impl Agent for ModelBased {
    fn name(&self) -> &str {
        "model-based"
    }

    fn begin_episode(&mut self) {
        self.planner.begin_episode();
    }

    fn slots(&self) -> usize {
        self.planner.slots()
    }

    fn begin_episode_in(&mut self, slot: usize) {
        self.planner.begin_episode_in(slot);
    }

    fn act_batch(&mut self, turns: Vec<Turn<'_>>, mode: ActMode) -> Result<Vec<Acted>, AgentError> {
        if self.progress.fitted { self.planner.act_batch(turns, mode) } else { self.explorer.act_batch(turns, mode) }
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        if self.progress.fitted {
            self.planner.act(situation, mode, rng)
        } else {
            self.explorer.act(situation, mode, rng)
        }
    }

    fn take_plan_failure(&mut self) -> Option<PlanError> {
        self.planner.take_plan_failure()
    }
}

impl Learner for ModelBased {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.replay.push(transition)?;
        self.progress.steps += 1;
        self.due = self.fit_due(transition);
        Ok(())
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.replay.truncate_episode();
        let begun = self.progress.steps >= self.config.random_steps;
        self.due |= begun && self.config.fit_every == FitSchedule::Episode;
        Ok(())
    }

    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        if self.running.is_empty() {
            return self.observe(transition);
        }
        self.running[slot].push(transition.clone());
        self.progress.steps += 1;
        self.due |= self.config.fit_every != FitSchedule::Episode && self.fit_due(transition);
        if transition.episode_over() { self.take_in(slot) } else { Ok(()) }
    }

    fn truncate_episode_in(&mut self, slot: usize) -> Result<(), AgentError> {
        if self.running.is_empty() {
            return self.truncate_episode();
        }
        if let Some(last) = self.running[slot].last_mut() {
            last.truncated = true;
        }
        self.take_in(slot)
    }

    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.planner.report_plan(report);
        // One transition, of an episode that broke down at once say, is nothing to fit to.
        if !std::mem::take(&mut self.due) || self.replay.len() < 2 {
            return Ok(());
        }
        let start = Instant::now();
        let result = self.fit_model(rng, report);
        report.scalar(ReportKind::Fit, "model/fit_s", start.elapsed().as_secs_f64());
        report.scalar(ReportKind::Fit, "model/transitions", self.replay.len() as f64);
        match result {
            Ok((fitted, ratio)) => {
                self.progress.fitted = true;
                report_fit(&fitted, self.model(), report);
                if let Some(ratio) = ratio {
                    report.scalar(ReportKind::Fit, "model/unchanged_ratio", ratio);
                    // NaN too.
                    if ratio.partial_cmp(&1.0) != Some(Ordering::Less) && !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(
                            env_step = self.progress.steps,
                            "the model errs {ratio:.1} times as much as the guess that nothing changes, on its own data: it has \
                             learned nothing of use; where observations are large or small numbers, \
                             model.normalize_targets = true may help"
                        );
                    }
                }
            }
            // The agent goes on with the model of the fit before: a lost fit costs little, a lost run everything.
            Err(error @ ModelError::Diverged { .. }) => {
                tracing::warn!(env_step = self.progress.steps, "{error}");
                report.scalar(ReportKind::Fit, "model/diverged", 1.0);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put_replay(REPLAY, &self.replay)?;
        into.put_lasting(MODEL, &self.model().save()?)?;
        into.put_json(PROGRESS, &self.progress)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let progress = from.get_json(PROGRESS)?;
        let replay = from.get_replay(REPLAY)?;
        let widths = (self.replay.obs_width(), self.replay.action_width());
        if (replay.obs_width(), replay.action_width()) != widths {
            let found = (replay.obs_width(), replay.action_width());
            let reason = format!("expected observations and actions of widths {widths:?}, found {found:?}");
            return Err(from.refuse(REPLAY, reason));
        }
        self.planner.dynamics_mut().load(from.get(MODEL)?).map_err(|e| from.refuse(MODEL, e.to_string()))?;
        self.planner.begin_episode();
        self.running.iter_mut().for_each(Vec::clear);
        self.replay = replay;
        self.progress = progress;
        self.due = false;
        Ok(())
    }

    fn learned(&self) -> Option<Learned<'_>> {
        Some(Learned::new(self.model(), self.progress.fitted, &self.replay))
    }
}

/// Rows that [`error_ratio`] looks at.
const COMPARED: usize = 512;

/// The error of a model's predictions beside that of the guess that nothing changes: the mean over columns of the ratio of their
/// root mean squares, on some of the data that it was fitted to. 1 or more says that nothing of use was learned. `None` where
/// nothing changes, and for a model that looks back.
fn error_ratio(model: &Ensemble, data: &Dataset) -> Result<Option<f64>, ModelError> {
    if data.past_steps() > 0 {
        return Ok(None);
    }
    let spec = mbrl_model::Dynamics::spec(model);
    let (o, a, device) = (spec.obs, spec.action, &spec.device);
    let stride = data.len().div_ceil(COMPARED);
    let rows: Vec<usize> = (0..data.len()).step_by(stride).collect();
    let of = |values: &[f32], width: usize| -> Vec<f32> {
        rows.iter().flat_map(|row| &values[row * width..][..width]).copied().collect()
    };
    let (obs, next) = (of(data.obs(), o), of(data.next_obs(), o));
    let tensor = |values: &[f32], width| Tensor::<1>::from_floats(values, device).reshape([rows.len(), width]);
    let predicted = mbrl_model::Dynamics::predict(model, tensor(&obs, o), tensor(&of(data.actions(), a), a))?.mean;
    let predicted: Vec<f32> = predicted.into_data().iter().collect();
    // Of angles that jump the difference would have to be taken the short way round.
    let columns = (0..o).filter(|column| !spec.angles.iter().any(|angle| angle.wraps && angle.column == *column));
    let ratios = columns.filter_map(|column| {
        let square_sum = |guess: &[f32]| -> f64 {
            let of_column = guess.iter().zip(&next).skip(column).step_by(o);
            of_column.map(|(guess, next)| f64::from(guess - next).powi(2)).sum()
        };
        let unchanged = square_sum(&obs);
        (unchanged > 0.0).then(|| (square_sum(&predicted) / unchanged).sqrt())
    });
    let ratios: Vec<f64> = ratios.collect();
    Ok((!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64))
}

fn report_fit(fitted: &FitReport, model: &Ensemble, report: &mut dyn Report) {
    report.scalar(ReportKind::Fit, "model/epochs", fitted.epochs as f64);
    report.scalar(ReportKind::Fit, "model/optimizer_steps", fitted.steps as f64);
    report.scalar(ReportKind::Fit, "model/train_rows", fitted.train_rows as f64);
    report.scalar(ReportKind::Fit, "model/holdout_rows", fitted.holdout_rows as f64);
    report.scalar(ReportKind::Fit, "model/train_loss", f64::from(fitted.train_loss));
    let errors = || fitted.errors.iter().map(|e| f64::from(*e));
    report.scalar(ReportKind::Fit, "model/mse", errors().sum::<f64>() / fitted.errors.len() as f64);
    report.scalar(ReportKind::Fit, "model/mse_best", errors().fold(f64::INFINITY, f64::min));
    // Behind the columns of the observation.
    let config = model.config();
    let heads = [(config.reward, "model/mse_reward"), (config.termination, "model/mse_end")];
    let heads = heads.iter().filter(|(learned, _)| *learned);
    for ((_, name), error) in heads.zip(&fitted.column_errors[mbrl_model::Dynamics::spec(model).obs..]) {
        report.scalar(ReportKind::Fit, name, f64::from(*error));
    }
}
