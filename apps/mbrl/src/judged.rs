//! An agent on a task, for commands that judge it and do not train: from a run or a file, with its own settings or others.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mbrl_env::{Env, tasks::Task};
use mbrl_policy::{
    ExportedAgent, Learner,
    experiment::{Experiment, ModelBasedSections, Parts, RewardSource},
};

use crate::{console, registry::registry, run::Restored};

/// Parts of an experiment that judging its agent does not read, and the way to set each.
const NOT_EVALUATED: [(&str, &str); 9] = [
    ("seed", "--seed N draws other start states"),
    ("name", "the run keeps its own"),
    ("summary", "the run keeps its own"),
    ("steps", "mbrl resume RUN --steps N trains on"),
    ("agent", "mbrl refit RUN --set agent.… trains on with it"),
    ("model", "mbrl refit RUN --set model.… fits another model to the run's data"),
    ("fit", "mbrl refit RUN --set fit.… fits another model to the run's data"),
    ("train", "--episodes N and --threads N set what is needed here"),
    ("practice", "mbrl refit RUN --set practice.… trains on with it"),
];

/// The key of a setting, `key=value`.
fn key_of(word: &str) -> &str {
    word.split('=').next().unwrap_or_default().trim()
}

/// An agent on a task.
pub(crate) struct Judged {
    pub(crate) experiment: Experiment,
    pub(crate) env_step: u64,
    pub(crate) task: Task,
    pub(crate) agent: Box<dyn Learner>,
}

impl Judged {
    /// From a run's checkpoint.
    pub(crate) fn of_run(experiment: Experiment, Restored { task, agent, env_step, .. }: Restored) -> Self {
        Self { experiment, env_step, task, agent }
    }

    /// From a file of `mbrl export`; on the device of these settings, where they name one, since this build may lack the agent's own.
    pub(crate) fn of_file(path: &Path, words: &[String]) -> Result<Self> {
        let exported = ExportedAgent::load(path)?;
        let device: Vec<&str> = words.iter().map(String::as_str).filter(|word| key_of(word) == "device").collect();
        let experiment = exported.experiment().overridden(&device)?;
        Self::with_model(experiment, &exported).with_context(|| path.display().to_string())
    }

    fn with_model(experiment: Experiment, exported: &ExportedAgent) -> Result<Self> {
        let Parts { task, mut agent, .. } = experiment.build(registry())?;
        exported.install(&mut *agent)?;
        Ok(Self { experiment, env_step: exported.env_step(), task, agent })
    }

    /// Whether an experiment has another task, or this one with other options.
    pub(crate) fn is_of_other_task(&self, other: &Experiment) -> bool {
        self.experiment.task != other.task || self.experiment.task_options != other.task_options
    }

    /// Whether its plans use a reward that its model has learned.
    pub(crate) fn has_learned_reward(&self) -> bool {
        let of_model = |sections: &ModelBasedSections| sections.goal.reward == Some(RewardSource::Model);
        self.experiment.agent.model_based().is_some_and(of_model)
    }

    /// The same model with other settings of the experiment, for example on another task.
    pub(crate) fn elsewhere(&self, words: &[String]) -> Result<Self> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for word in &words {
            let key = key_of(word);
            let section = key.split('.').next().unwrap_or_default().trim();
            let unread = NOT_EVALUATED.iter().find(|(known, _)| *known == section && key != "agent.kind");
            if let Some((_, way)) = unread {
                bail!("--set {word}: {section} is not read here, expected a setting of task, goal or planner: {way}");
            }
        }
        let exported = ExportedAgent::new(&self.experiment, self.env_step, &*self.agent).context("--set")?;
        let (there, notes) = self.experiment.overridden_with_notes(&words)?;
        notes.iter().for_each(|note| console::note(format_args!("note: {note}")));
        let (own, other) = (self.task.env.spec(), there.make_task(registry())?.env);
        let (from, to) = (self.experiment.task.clone(), there.task.clone());
        for (what, own, other) in [
            ("observations", own.column_names(), other.spec().column_names()),
            ("actions", own.action_names(), other.spec().action_names()),
        ] {
            let differ = own.iter().zip(&other).find(|(own, other)| own != other);
            let told = match differ {
                Some((own, other)) => format!("{own:?} here is {other:?} there"),
                None if own.len() != other.len() => format!("{} columns here, {} there", own.len(), other.len()),
                None => continue,
            };
            bail!("--set: the model of {from} cannot be used on {to}, expected the same {what}: {told}");
        }
        let moved = self.is_of_other_task(&there);
        let judged = Self::with_model(there, &exported).with_context(|| format!("the model of {from} on {to}"))?;
        if moved && judged.has_learned_reward() {
            console::note(
                "note: plans use the reward that the model learned in its own task; --set goal.reward=task uses the other task's reward",
            );
        }
        Ok(judged)
    }
}
