//! Data that an agent collects, and the model that it fits to them: the part that all model-based learners share, however they act.

use std::{cmp::Ordering, time::Instant};

use mbrl_env::{EnvError, Replay, Rng, Transition};
use mbrl_model::{Dataset, FitConfig, FitReport, LearnedModel, ModelError, fit_watched};
use serde::{Deserialize, Serialize};

use crate::{
    AgentError, CheckpointReader, CheckpointWriter, FitSchedule, Learned, ModelBasedConfig, Phase, Report, ReportKind,
    Tensor,
};

/// Collects transitions and fits a model to all of them when a fit is due. [`ModelBased`](crate::ModelBased) plans with the
/// model; others learn a policy in it.
///
/// With several environments each episode enters the data whole, when it ends, and a fit that is due waits until there are data; with
/// [`FitSchedule::Episode`] it waits until all running episodes are over.
#[derive(Debug)]
pub struct ModelLearner<M> {
    config: ModelBasedConfig,
    fit: FitConfig,
    model: M,
    replay: Replay,
    /// Episodes that are running, one per slot, where there are several: the replay gets them whole.
    running: Vec<Vec<Transition>>,
    progress: Progress,
    /// With several environments: an episode has ended since the last fit, and a fit is due when none is running. Never so at a checkpoint.
    ended: bool,
    /// Whether the user was warned that the model has learned nothing.
    warned: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Real steps observed.
    steps: u64,
    /// Whether a fit has succeeded: until then the agent acts at random.
    fitted: bool,
    /// A fit comes with the next update.
    #[serde(default)]
    due: bool,
}

const PROGRESS: &str = "agent.json";
const MODEL: &str = "model.bin";
const REPLAY: &str = "replay";

impl<M: LearnedModel> ModelLearner<M> {
    /// An untrained learner.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule.
    pub fn new(config: &ModelBasedConfig, model: M, fit: FitConfig) -> Result<Self, AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if config.random_steps == 0 {
            return refuse("random_steps", "0".into(), "at least 1: a model cannot be fitted to nothing");
        }
        if config.fit_every == FitSchedule::Steps(0) {
            return refuse("fit_every", "0".into(), "\"episode\" or at least 1 step");
        }
        if config.replay_capacity < 2 {
            let rule = "at least 2 transitions: a model cannot be fitted to fewer";
            return refuse("replay_capacity", config.replay_capacity.to_string(), rule);
        }
        fit.validate()?;
        let spec = model.spec();
        let replay = Replay::new(spec.obs, spec.action, config.replay_capacity)?;
        Ok(Self {
            replay: if model.sees_pixels() { replay.in_bytes() } else { replay },
            config: config.clone(),
            fit,
            model,
            running: Vec::new(),
            progress: Progress::default(),
            ended: false,
            warned: false,
        })
    }

    /// For this many environments in lockstep.
    #[must_use]
    pub fn in_lockstep(mut self, slots: usize) -> Self {
        self.running = if slots > 1 { vec![Vec::new(); slots] } else { Vec::new() };
        self
    }

    /// With existing data, and the model taken as fitted to them.
    ///
    /// # Errors
    /// [`AgentError::Env`] for data of different widths or without a transition.
    pub fn with_data(mut self, data: Replay) -> Result<Self, AgentError> {
        mbrl_env::check_width("observation", self.replay.obs_width(), data.obs_width())?;
        mbrl_env::check_width("action", self.replay.action_width(), data.action_width())?;
        if data.is_empty() {
            return Err(EnvError::TooLittleData { what: "a model's learner", actual: 0, needed: 1 }.into());
        }
        self.progress = Progress { steps: data.len() as u64, fitted: true, ..Progress::default() };
        self.replay = data;
        Ok(self)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &M {
        &self.model
    }

    /// All data so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Whether the model was fitted: until then its predictions mean nothing.
    #[must_use]
    pub fn is_fitted(&self) -> bool {
        self.progress.fitted
    }

    /// Real steps observed.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.progress.steps
    }

    /// What it has learned, for reports.
    #[must_use]
    pub fn learned(&self) -> Learned<'_> {
        Learned::new(&self.model, self.progress.fitted, &self.replay)
    }

    /// Takes in a step of an environment.
    ///
    /// # Errors
    /// [`AgentError::Env`] for a transition that the data cannot hold.
    pub fn observe(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        if self.running.is_empty() {
            self.replay.push(transition)?;
            self.progress.steps += 1;
            self.progress.due |= self.fit_due(transition);
            return Ok(());
        }
        self.running[slot].push(transition.clone());
        self.progress.steps += 1;
        self.progress.due |= self.config.fit_every != FitSchedule::Episode && self.fit_due(transition);
        if transition.episode_over() { self.take_in(slot) } else { Ok(()) }
    }

    /// The running episode of an environment broke down: it ends with its last step, as truncated.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub fn truncate_episode(&mut self, slot: usize) -> Result<(), AgentError> {
        if self.running.is_empty() {
            self.replay.truncate_episode();
            let begun = self.progress.steps >= self.config.random_steps;
            self.progress.due |= begun && self.config.fit_every == FitSchedule::Episode;
            return Ok(());
        }
        if let Some(last) = self.running[slot].last_mut() {
            last.truncated = true;
        }
        self.take_in(slot)
    }

    /// Puts the episode of a slot into the data.
    fn take_in(&mut self, slot: usize) -> Result<(), AgentError> {
        let episode = std::mem::take(&mut self.running[slot]);
        self.replay.push_episode(&episode)?;
        self.ended |= self.config.fit_every == FitSchedule::Episode;
        Ok(())
    }

    fn fit_due(&self, transition: &Transition) -> bool {
        let Some(since) = self.progress.steps.checked_sub(self.config.random_steps) else { return false };
        match self.config.fit_every {
            FitSchedule::Episode => transition.episode_over(),
            FitSchedule::Steps(n) => since % n == 0,
        }
    }

    /// Fits a copy, so that a failed fit is never visible. Returns, with the report, the model's error relative to
    /// that of "nothing changes", where it is known.
    fn fit_model(&mut self, rng: &mut Rng, watch: &mut dyn Report) -> Result<(FitReport, Option<f64>), ModelError> {
        let mut model = self.model.clone();
        let data = Dataset::of_replay(&self.replay, model.past())?;
        if self.config.reinitialize {
            model.reinitialize(rng);
        }
        let of = self.fit.max_epochs;
        let report = fit_watched(&mut model, &data, &self.fit, rng, &mut |epoch| {
            watch.progress(Phase::Fitting { epoch: epoch.number, epochs: of });
        })?;
        let ratio = error_ratio(&model, &data)?;
        self.model = model;
        Ok((report, ratio))
    }

    /// Fits if a fit is due, and reports the results; returns whether the model has changed.
    ///
    /// # Errors
    /// [`AgentError::Model`] for data that the model cannot be fitted to. A fit that diverges is no error: the model stays as it was.
    pub fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<bool, AgentError> {
        // Asked here, where the steps of all environments are known.
        if self.ended && self.running.iter().all(Vec::is_empty) {
            self.ended = false;
            self.progress.due |= self.progress.steps >= self.config.random_steps;
        }
        // A single transition, for example of an episode that broke down at once, is nothing to fit to: the fit waits for more.
        if !self.progress.due || self.replay.len() < 2 {
            return Ok(false);
        }
        self.progress.due = false;
        let start = Instant::now();
        let result = self.fit_model(rng, report);
        report.scalar(ReportKind::Fit, "model/fit_s", start.elapsed().as_secs_f64());
        report.scalar(ReportKind::Fit, "model/transitions", self.replay.len() as f64);
        let is_fitted = result.is_ok();
        match result {
            Ok((fitted, ratio)) => {
                self.progress.fitted = true;
                report_fit(&fitted, &self.model, report);
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
            // The agent continues with the model of the previous fit: a lost fit costs little, a lost run everything.
            Err(error @ ModelError::Diverged { .. }) => {
                tracing::warn!(env_step = self.progress.steps, "{error}");
                report.scalar(ReportKind::Fit, "model/diverged", 1.0);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(is_fitted)
    }

    /// Takes over a model that another learner saved, as fitted; the data stay.
    ///
    /// # Errors
    /// [`AgentError::Model`] for bytes that are damaged or of another model; nothing changes then.
    pub fn take_model(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        self.model.load(bytes)?;
        self.progress.fitted = true;
        Ok(())
    }

    /// Writes data, model and progress.
    ///
    /// # Errors
    /// Errors of input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put_replay(REPLAY, &self.replay)?;
        into.put_lasting(MODEL, &self.model.save()?)?;
        into.put_json(PROGRESS, &self.progress)
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of different widths.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let (progress, replay) = self.read_data(from)?;
        self.model.load(from.get(MODEL)?).map_err(|e| from.refuse(MODEL, e.to_string()))?;
        self.running.iter_mut().for_each(Vec::clear);
        (self.replay, self.progress, self.ended) = (replay, progress, false);
        Ok(())
    }

    /// Takes over the data that [`save`](Self::save) wrote, possibly with another model: this one learns from them at the next
    /// [`update`](Self::update).
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of different widths; nothing changes then.
    pub fn take_data(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let (progress, mut replay) = self.read_data(from)?;
        if replay.capacity() != self.config.replay_capacity {
            // As many of the newest as this one keeps.
            let spec = self.model.spec();
            let own = Replay::new(spec.obs, spec.action, self.config.replay_capacity)?;
            let all = std::mem::replace(&mut replay, if self.replay.is_in_bytes() { own.in_bytes() } else { own });
            (0..all.len()).filter_map(|place| all.get(place)).try_for_each(|step| replay.push(&step))?;
        }
        self.running.iter_mut().for_each(Vec::clear);
        (self.replay, self.ended) = (replay, false);
        self.progress = Progress { fitted: false, due: true, ..progress };
        Ok(())
    }

    /// Steps and data of a checkpoint.
    fn read_data(&self, from: &CheckpointReader) -> Result<(Progress, Replay), AgentError> {
        let progress = from.get_json(PROGRESS)?;
        let replay = from.get_replay(REPLAY)?;
        if replay.is_in_bytes() != self.replay.is_in_bytes() {
            let kind = |replay: &Replay| if replay.is_in_bytes() { "bytes" } else { "numbers" };
            let reason = format!("expected observations in {}, found {}", kind(&self.replay), kind(&replay));
            return Err(from.refuse(REPLAY, reason));
        }
        let widths = (self.replay.obs_width(), self.replay.action_width());
        if (replay.obs_width(), replay.action_width()) != widths {
            let found = (replay.obs_width(), replay.action_width());
            let reason = format!("expected observations and actions of widths {widths:?}, found {found:?}");
            return Err(from.refuse(REPLAY, reason));
        }
        Ok((progress, replay))
    }
}

/// Rows that [`error_ratio`] looks at.
const COMPARED: usize = 512;

/// The error of a model's predictions relative to that of the guess that nothing changes: the mean over columns of the ratio of
/// their root mean squares, on some of the data that it was fitted to. 1 or more means that nothing useful was learned. `None` where
/// nothing changes, and for a model whose state is not the observation.
fn error_ratio(model: &impl LearnedModel, data: &Dataset) -> Result<Option<f64>, ModelError> {
    let spec = model.spec();
    if data.past_steps() > 0 || spec.state != spec.obs || spec.view != spec.obs {
        return Ok(None);
    }
    let (o, a, device) = (spec.obs, spec.action, &spec.device);
    let stride = data.len().div_ceil(COMPARED);
    let rows: Vec<usize> = (0..data.len()).step_by(stride).collect();
    let of = |values: &[f32], width: usize| -> Vec<f32> {
        rows.iter().flat_map(|row| &values[row * width..][..width]).copied().collect()
    };
    let (obs, next) = (of(data.obs(), o), of(data.next_obs(), o));
    let tensor = |values: &[f32], width| Tensor::<1>::from_floats(values, device).reshape([rows.len(), width]);
    let predicted = model.predict(tensor(&obs, o), tensor(&of(data.actions(), a), a))?.mean;
    let predicted: Vec<f32> = predicted.into_data().iter().collect();
    // Of angles that jump the difference would have to be taken the short way round; what is known is not predicted.
    let jumps = |column: usize| spec.angles.iter().any(|angle| angle.wraps && angle.column == column);
    let columns = (0..o).filter(|column| !jumps(*column) && !spec.known.contains(column));
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

fn report_fit(fitted: &FitReport, model: &impl LearnedModel, report: &mut dyn Report) {
    report.scalar(ReportKind::Fit, "model/epochs", fitted.epochs as f64);
    report.scalar(ReportKind::Fit, "model/optimizer_steps", fitted.steps as f64);
    report.scalar(ReportKind::Fit, "model/train_rows", fitted.train_rows as f64);
    report.scalar(ReportKind::Fit, "model/holdout_rows", fitted.holdout_rows as f64);
    report.scalar(ReportKind::Fit, "model/train_loss", f64::from(fitted.train_loss));
    let errors = || fitted.errors.iter().map(|e| f64::from(*e));
    report.scalar(ReportKind::Fit, "model/mse", errors().sum::<f64>() / fitted.errors.len() as f64);
    report.scalar(ReportKind::Fit, "model/mse_best", errors().fold(f64::INFINITY, f64::min));
    // Behind what else is predicted.
    let heads = [(model.learns_reward(), "model/mse_reward"), (model.learns_termination(), "model/mse_end")];
    let heads: Vec<&str> = heads.iter().filter(|(learned, _)| *learned).map(|(_, name)| *name).collect();
    let first = fitted.column_errors.len().saturating_sub(heads.len());
    for (name, error) in heads.into_iter().zip(&fitted.column_errors[first..]) {
        report.scalar(ReportKind::Fit, name, f64::from(*error));
    }
}
