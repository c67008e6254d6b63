//! One run: an experiment and a folder.

use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, Result, bail};
use mbrl_env::tasks::Task;
use mbrl_policy::{
    AgentError, Best, Learner, Observer, Outcome, RunFiles, WhichCheckpoint,
    experiment::{Experiment, Parts, is_gymnasium_id},
    write_atomically,
};

use crate::{
    chart, console, folder, progress::Display, record::Record, registry::registry, tensorboard::TensorBoardWriter,
    trajectories::TrajectoryWriter,
};

pub(crate) use mbrl_policy::experiment::EXPERIMENT_FILE as EXPERIMENT;
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(crate) const CURVE: &str = "curve.svg";
/// The folder of a run's copy of another run whose value function its plans end with.
const VALUE: &str = "value";

/// The folder of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
    pub(crate) experiment: Experiment,
    /// Whether the budget was raised and the folder does not say so yet.
    pub(crate) longer: bool,
}

/// How a run ended here.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    /// Whether all steps had been taken before.
    pub(crate) was_finished: bool,
    pub(crate) record: Record,
    pub(crate) env_step: u64,
    /// Step of the newest checkpoint.
    pub(crate) stored_step: Option<u64>,
    /// The best evaluation.
    pub(crate) best: Option<Best>,
    pub(crate) wall_s: f64,
}

impl RunFolder {
    /// Makes a folder that holds the resolved experiment from the moment it exists.
    ///
    /// Uses `place` if it is free or empty; otherwise, with `next_free`, the first free one of `place-2`,
    /// `place-3`, …
    ///
    /// If plans end with the value function of another run, the files needed from it are copied into the folder, which is then self-contained.
    pub(crate) fn create(place: &Path, next_free: bool, mut experiment: Experiment) -> Result<Self> {
        let path = folder::create(place, next_free, |partial| {
            if let Some((run, which)) = experiment.value_run() {
                let (run, copy) = (run.to_owned(), partial.join(VALUE));
                fs::create_dir(&copy).with_context(|| format!("folder {VALUE}"))?;
                let toml = run.join(EXPERIMENT);
                fs::copy(&toml, copy.join(EXPERIMENT)).with_context(|| toml.display().to_string())?;
                let step = RunFiles::copy_checkpoint(&run, which, &copy)?;
                let step = step.with_context(|| format!("{}: no checkpoint yet", run.display()))?;
                console::note(format_args!("note: plans end in the value of {} after {step} steps", run.display()));
                experiment = experiment.clone().with_value_run(VALUE, WhichCheckpoint::Step(step));
            }
            write_atomically(&partial.join(EXPERIMENT), experiment.to_toml()?.as_bytes())?;
            Ok(())
        })?;
        Ok(Self { experiment: placed(experiment, &path), path, longer: false })
    }

    /// The folder of an earlier run, without leftovers of a kill.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = path.join(EXPERIMENT);
        if !file.exists() {
            let name = path.display().to_string();
            if !path.exists() && is_gymnasium_id(&name) {
                bail!(
                    "{name} looks like an environment of Gymnasium, expected the folder of a run; `mbrl train {name}` says how it is run"
                );
            }
            bail!("{name} is not a run folder: {EXPERIMENT} not found");
        }
        let experiment = Experiment::from_file(&file)?;
        RunFiles::tidy(path);
        Ok(Self { path: path.to_owned(), experiment: placed(experiment, path), longer: false })
    }

    /// With a budget of `steps` real steps, not less than before. The folder says so from the next training on.
    pub(crate) fn with_steps(mut self, steps: u64) -> Result<Self> {
        let before = self.experiment.steps;
        if steps < before {
            bail!("--steps = {steps}: expected at least {before}, the budget of {}", self.path.display());
        }
        (self.experiment.steps, self.longer) = (steps, steps > before);
        Ok(self)
    }

    /// A short name, for lines and titles.
    pub(crate) fn label(&self) -> String {
        self.path.file_name().map_or_else(|| self.experiment.name.clone(), |n| n.to_string_lossy().into_owned())
    }

    /// Trains from the present step of the run, on `threads` threads; with `tensorboard`, event files are written too.
    pub(crate) fn train(
        &self,
        threads: usize,
        display: &Display,
        stop: &AtomicBool,
        tensorboard: bool,
    ) -> Result<Ended> {
        in_pool(threads, || self.train_here(display, stop, tensorboard))?
    }

    fn train_here(&self, display: &Display, stop: &AtomicBool, tensorboard: bool) -> Result<Ended> {
        let Parts { task, more, mut training, mut agent, .. } = self.experiment.build(registry())?;
        let mut worlds = vec![task.env];
        worlds.extend(more);
        let learner = &mut *agent;
        let (mut files, damaged) = RunFiles::open(&self.path, &mut training, learner)?;
        warn(&damaged, display);
        if self.longer {
            // The picture marks a run as finished.
            match fs::remove_file(self.path.join(CURVE)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context("curve.svg"),
                _ => {}
            }
            let mut experiment = self.experiment.clone();
            if let Some((_, which)) = experiment.value_run().filter(|(run, _)| *run == self.path.join(VALUE)) {
                experiment = experiment.with_value_run(VALUE, which);
            }
            write_atomically(&self.path.join(EXPERIMENT), experiment.to_toml()?.as_bytes())?;
        }
        let was_finished = training.is_finished();
        let outcome = if was_finished {
            Outcome::Finished
        } else {
            let mut progress = display.run(&self.label(), &training);
            let mut trajectories = TrajectoryWriter::new(&self.path);
            let mut events =
                if tensorboard { Some(TensorBoardWriter::create(&self.path, training.env_step())?) } else { None };
            let mut observers: Vec<&mut dyn Observer> = vec![&mut progress, &mut trajectories];
            observers.extend(events.as_mut().map(|events| events as &mut dyn Observer));
            training.run_together(&mut worlds, learner, Some(&mut files), &mut observers, stop)?
        };
        let record = Record::read(&self.path.join(METRICS))?;
        if outcome == Outcome::Finished && !(was_finished && self.path.join(CURVE).exists()) {
            let title = format!("{}, seed {}", self.experiment.name, self.experiment.seed);
            chart::draw_run(&self.path.join(CURVE), &title, &record)?;
        }
        Ok(Ended {
            outcome,
            was_finished,
            record,
            env_step: training.env_step(),
            stored_step: training.stored_step(),
            best: training.best(),
            wall_s: training.wall_s(),
        })
    }

    /// The task, and the agent from a checkpoint. Nothing is written.
    pub(crate) fn restored(&self, which: WhichCheckpoint) -> Result<Restored> {
        let Parts { task, mut training, mut agent, .. } = self.experiment.build(registry())?;
        let damaged = training.restore_from(&self.path, which, &mut *agent)?;
        if training.stored_step().is_none() {
            bail!("{}: no checkpoint yet", self.path.display());
        }
        Ok(Restored { task, agent, env_step: training.env_step(), damaged })
    }
}

/// The experiment of a run in a folder, with the path to the folder's copy of another run's value function, if any.
fn placed(experiment: Experiment, folder: &Path) -> Experiment {
    match experiment.value_run() {
        Some((run, which)) if run == Path::new(VALUE) => experiment.with_value_run(folder.join(VALUE), which),
        _ => experiment,
    }
}

/// The content of a run's checkpoint.
pub(crate) struct Restored {
    pub(crate) task: Task,
    pub(crate) agent: Box<dyn Learner>,
    pub(crate) env_step: u64,
    /// Errors of newer checkpoints.
    pub(crate) damaged: Vec<AgentError>,
}

impl fmt::Debug for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restored").field("agent", &self.agent.name()).field("env_step", &self.env_step).finish()
    }
}

/// Runs `work` on a separate thread pool, so that runs side by side do not share threads.
pub(crate) fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    // Deep computation graphs recurse.
    const STACK: usize = 16 << 20;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build()?;
    Ok(pool.install(work))
}

pub(crate) fn warn(damaged: &[AgentError], display: &Display) {
    for error in damaged {
        display.note(&format!("warning: damaged checkpoint passed over: {}", console::chain_of(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A study treats a run with a picture as finished, and would leave the rest of a longer one undone.
    #[test]
    fn a_run_that_goes_on_has_no_picture_until_it_is_finished_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("run");
        let experiment = registry().load("smoke", &["steps=200", "agent.random_steps=1000"]).unwrap();
        let train = |folder: &RunFolder, stop: bool| {
            folder.train(1, &Display::new(), &AtomicBool::new(stop), false).unwrap().outcome
        };
        assert_eq!(train(&RunFolder::create(&place, false, experiment).unwrap(), false), Outcome::Finished);
        assert!(place.join(CURVE).exists());
        let longer = || RunFolder::open(&place).unwrap().with_steps(400).unwrap();
        assert_eq!(train(&longer(), true), Outcome::Stopped);
        assert!(!place.join(CURVE).exists());
        assert_eq!(train(&longer(), false), Outcome::Finished);
        assert!(place.join(CURVE).exists());
    }
}
