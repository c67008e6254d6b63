//! One run: an experiment and a folder.

use std::{
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::{Context, Result, bail};
use mbrl_env::{Env, Situation, tasks::Task};
use mbrl_model::{Draw, Dynamics, Precision, Propagation, SimulatorModel, Start, is_cpu};
use mbrl_plan::Mpc;
use mbrl_policy::{
    AgentError, Device, Evaluation, Learner, ModelBased, MpcAgent, Observer, Outcome, RunFiles, Tensor, Training,
    evaluate, start_seeds, write_atomically,
};

use crate::{
    chart, device,
    experiment::{DynamicsConfig, Experiment, LearnedConfig},
    folder,
    progress::Display,
    record::Record,
    tensorboard::TensorBoardWriter,
    trajectories::TrajectoryWriter,
};

pub(crate) const EXPERIMENT: &str = "experiment.toml";
pub(crate) const METRICS: &str = "metrics.jsonl";
const CURVE: &str = "curve.svg";

/// What an experiment is made of, built before anything is written: whatever is wrong with it comes out here.
#[derive(Debug)]
struct Parts {
    task: Task,
    training: Training,
    agent: PlanningAgent,
}

/// The agent of a run.
#[derive(Debug)]
pub(crate) enum PlanningAgent {
    /// Learns its model.
    Learned(Box<ModelBased>),
    /// Plans with the simulator itself.
    GroundTruth(Box<MpcAgent<SimulatorModel>>),
}

impl PlanningAgent {
    fn learner(&mut self) -> &mut dyn Learner {
        match self {
            Self::Learned(agent) => &mut **agent,
            Self::GroundTruth(agent) => &mut **agent,
        }
    }

    /// The agent where it learns its model.
    pub(crate) fn learned(&self) -> Option<&ModelBased> {
        match self {
            Self::Learned(agent) => Some(agent),
            Self::GroundTruth(_) => None,
        }
    }
}

impl Experiment {
    fn build(&self) -> Result<Parts> {
        let device = device::open(&self.device)?;
        let task = self.make_task()?;
        let spec = task.env.spec();
        self.check_sizes(spec.obs.width(), spec.actions.width())?;
        let training = self.train.init(self.steps, self.seed).context("section [train]")?;
        let mut training = training.described(self.settings()?).rewriting(Self::settings_today);
        let agent = match &self.dynamics {
            DynamicsConfig::Ensemble(learned) => {
                PlanningAgent::Learned(Box::new(self.learning_agent(learned, &task, &device, &mut training)?))
            }
            DynamicsConfig::Simulator => PlanningAgent::GroundTruth(Box::new(self.ground_truth_agent(&task, &device)?)),
        };
        Ok(Parts { task, training, agent })
    }

    fn learning_agent(
        &self,
        learned: &LearnedConfig,
        task: &Task,
        device: &Device,
        training: &mut Training,
    ) -> Result<ModelBased> {
        let spec = task.env.spec();
        let LearnedConfig { agent, model: config, fit, propagation } = learned;
        let mut model = config.init_for(spec, device, &mut training.split_rng()).context("section [model]")?;
        if self.precision == Precision::Bf16 && !is_cpu(device) {
            bail!("precision = \"bf16\": roll-outs on a CPU; on device = {:?} they multiply in f32", self.device);
        }
        model.set_precision(self.precision);
        // One imagined step: whether particles and members go together shows in a roll-out only.
        let start = vec![0.0; spec.obs.width()];
        let actions = Tensor::zeros([1, 1, spec.actions.width()], device);
        let draw = Draw::new(*propagation, 0);
        model.rollout(Start::Situation(Situation::of(&start)), actions, draw).context("section [propagation]")?;
        let mpc = self.mpc(task, *propagation)?;
        let goal = self.goal.init(task, Some(config)).context("section [goal]")?;
        agent.init(spec, model, fit.clone(), goal, mpc).context("section [agent], [fit] or [model]")
    }

    fn ground_truth_agent(&self, task: &Task, device: &Device) -> Result<MpcAgent<SimulatorModel>> {
        self.check_no_gradients()?;
        if self.precision == Precision::Bf16 {
            bail!("precision = \"bf16\": roll-outs of a learned model, and dynamics = \"simulator\" has none");
        }
        let simulator =
            task.env.require_simulator().context("dynamics = \"simulator\" plans with the environment itself")?;
        let model = SimulatorModel::new(simulator.boxed_clone(), device);
        let mpc = self.mpc(task, Propagation::MEAN)?;
        let goal = self.goal.init(task, None).context("section [goal]")?;
        Ok(MpcAgent::new(model, goal, task.env.spec().actions.clone(), mpc))
    }

    fn mpc(&self, task: &Task, propagation: Propagation) -> Result<Mpc> {
        let actions = &task.env.spec().actions;
        let planner = self.planner.init(actions, propagation, self.goal.aggregate, &self.refinement);
        Mpc::new(planner.context("section [planner]")?, self.mpc.replan).context("section [mpc]")
    }

    /// Whether the experiment can run, found out without writing anything.
    pub(crate) fn check(&self) -> Result<()> {
        // Folders are called after it.
        let mut parts = Path::new(&self.name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == &*self.name) {
            bail!("name = {:?}: a name that a folder can have", self.name);
        }
        self.build().map(drop)
    }
}

/// The folder of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
    pub(crate) experiment: Experiment,
}

/// How a run ended here.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    /// All steps had been taken before.
    pub(crate) was_finished: bool,
    pub(crate) record: Record,
    pub(crate) env_step: u64,
    /// Step of the newest checkpoint.
    pub(crate) stored_step: Option<u64>,
    pub(crate) wall_s: f64,
}

impl RunFolder {
    /// Makes a folder that holds the resolved experiment from the moment at which it exists.
    ///
    /// `place` is taken where it is free or empty; otherwise, with `next_free`, the first free one of `place-2`,
    /// `place-3`, …
    pub(crate) fn create(place: &Path, next_free: bool, experiment: Experiment) -> Result<Self> {
        let path = folder::create(place, next_free, |partial| {
            write_atomically(&partial.join(EXPERIMENT), experiment.to_toml()?.as_bytes())?;
            Ok(())
        })?;
        Ok(Self { path, experiment })
    }

    /// The folder of an earlier run.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = path.join(EXPERIMENT);
        if !file.exists() {
            bail!("{}: no folder of a run, {EXPERIMENT} is missing", path.display());
        }
        Ok(Self { path: path.to_owned(), experiment: Experiment::from_file(&file)? })
    }

    /// A short name, for lines and titles.
    pub(crate) fn label(&self) -> String {
        self.path.file_name().map_or_else(|| self.experiment.name.clone(), |n| n.to_string_lossy().into_owned())
    }

    /// Trains from wherever the run stands, on `threads` threads; with `tensorboard`, event files are written too.
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
        let Parts { mut task, mut training, mut agent } = self.experiment.build()?;
        let learner = agent.learner();
        let (mut files, damaged) = RunFiles::open(&self.path, &mut training, learner)?;
        warn(&damaged, display);
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
            training.run(&mut task.env, learner, Some(&mut files), &mut observers, stop)?
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
            wall_s: training.wall_s(),
        })
    }

    /// Evaluates the newest whole checkpoint. Nothing is written.
    pub(crate) fn evaluate(&self, episodes: usize, seed: u64, threads: usize, display: &Display) -> Result<Evaluated> {
        in_pool(threads, || {
            let Restored { mut task, mut agent, env_step, damaged } = self.restored()?;
            warn(&damaged, display);
            let evaluation = evaluate(&mut task.env, agent.learner(), &start_seeds(seed, episodes))?;
            Ok(Evaluated { evaluation, env_step })
        })?
    }

    /// The task, and the agent as the newest whole checkpoint has it. Nothing is written.
    pub(crate) fn restored(&self) -> Result<Restored> {
        let Parts { task, mut training, mut agent } = self.experiment.build()?;
        let damaged = training.restore(&self.path, agent.learner())?;
        if training.stored_step().is_none() {
            bail!("{}: no checkpoint yet", self.path.display());
        }
        Ok(Restored { task, agent, env_step: training.env_step(), damaged })
    }
}

/// What the newest whole checkpoint of a run holds.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) task: Task,
    pub(crate) agent: PlanningAgent,
    pub(crate) env_step: u64,
    /// What is wrong with newer checkpoints.
    pub(crate) damaged: Vec<AgentError>,
}

/// An evaluation and the age of what was evaluated.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) evaluation: Evaluation,
    pub(crate) env_step: u64,
}

/// Runs `work` on a pool of its own, so that runs side by side do not share threads.
pub(crate) fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    // Deep computation graphs recurse.
    const STACK: usize = 16 << 20;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build()?;
    Ok(pool.install(work))
}

pub(crate) fn warn(damaged: &[AgentError], display: &Display) {
    for error in damaged {
        display.note(&format!("warning: damaged checkpoint passed over: {error}"));
    }
}
