//! The tasks and the named experiments of a program.

use std::{fs, path::Path};

use mbrl_env::{
    AngleColumn, Env,
    nearest::suggest,
    process,
    tasks::{Options, Task, TaskEntry},
};
use mbrl_model::{Angles, EnsembleConfig};
use toml::{Table, Value};

use super::{Experiment, ExperimentError, Study, overrides};

/// The tasks and the named experiments of a program, joined from wherever they come.
///
/// ```
/// use mbrl_policy::experiment::Registry;
///
/// let registry = Registry::new().tasks(mbrl_env::tasks::entries());
/// let error = registry.load("pets-cartpole", &[]).unwrap_err();
/// assert!(error.to_string().starts_with("unknown experiment `pets-cartpole`"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Registry {
    tasks: Vec<TaskEntry>,
    experiments: Vec<(String, String)>,
    studies: Vec<(String, String)>,
}

impl Registry {
    /// A registry without tasks and experiments.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With more tasks. One of a name that is there already takes its place.
    #[must_use]
    pub fn tasks(mut self, entries: impl IntoIterator<Item = TaskEntry>) -> Self {
        for entry in entries {
            self.tasks.retain(|known| known.name() != entry.name());
            self.tasks.push(entry);
        }
        self
    }

    /// With more experiments, by name and text. One of a name that is there already takes its place.
    #[must_use]
    pub fn experiments(mut self, experiments: &[(&str, &str)]) -> Self {
        for (name, text) in experiments {
            self.experiments.retain(|(known, _)| known != name);
            self.experiments.push(((*name).to_owned(), (*text).to_owned()));
        }
        self
    }

    /// With more studies, by name and text. One of a name that is there already takes its place.
    #[must_use]
    pub fn studies(mut self, studies: &[(&str, &str)]) -> Self {
        for (name, text) in studies {
            self.studies.retain(|(known, _)| known != name);
            self.studies.push(((*name).to_owned(), (*text).to_owned()));
        }
        self
    }

    /// The names of the studies, in the order in which they came.
    pub fn study_names(&self) -> impl Iterator<Item = &str> {
        self.studies.iter().map(|(name, _)| name.as_str())
    }

    /// A study by name, or one of a file whose path ends in `.toml`.
    ///
    /// # Errors
    /// [`ExperimentError::UnknownStudy`], with the nearest names; [`ExperimentError::Io`]; what is wrong with the text.
    pub fn load_study(&self, name_or_path: &str) -> Result<Study, ExperimentError> {
        if name_or_path.ends_with(".toml") {
            return Study::from_file(Path::new(name_or_path));
        }
        let found = self.studies.iter().find(|(name, _)| name == name_or_path);
        let (name, text) = found.ok_or_else(|| ExperimentError::UnknownStudy {
            name: name_or_path.to_owned(),
            hint: suggest(name_or_path, self.study_names()),
        })?;
        Study::named(text, name, name)
    }

    /// The tasks, in the order in which they came.
    #[must_use]
    pub fn task_entries(&self) -> &[TaskEntry] {
        &self.tasks
    }

    /// The names of the experiments, in the order in which they came.
    pub fn experiment_names(&self) -> impl Iterator<Item = &str> {
        self.experiments.iter().map(|(name, _)| name.as_str())
    }

    /// Makes a task with options.
    ///
    /// # Errors
    /// [`ExperimentError::UnknownTask`]; errors of the task for its options.
    pub fn make_task(&self, name: &str, options: &Options) -> Result<Task, ExperimentError> {
        let names = || self.tasks.iter().map(|entry| entry.name());
        let entry = self.tasks.iter().find(|entry| entry.name() == name);
        let entry = entry.ok_or_else(|| ExperimentError::UnknownTask {
            name: name.to_owned(),
            hint: self.of_gymnasium(name).unwrap_or_else(|| suggest(name, names())),
            known: names().collect::<Vec<_>>().join(", "),
        })?;
        Ok(entry.make(options)?)
    }

    /// An experiment by name, or one of a file whose path ends in `.toml`, with overrides `key=value` in order; those of
    /// `agent.kind` and `planner.kind` come first, because the other keys depend on them.
    ///
    /// # Errors
    /// [`ExperimentError::UnknownExperiment`] and [`ExperimentError::Io`]; what is wrong with the text or an override, naming
    /// the key. Columns in `model.angles` that are not the task's are refused, unless an override names them.
    pub fn load(&self, name_or_path: &str, overrides: &[&str]) -> Result<Experiment, ExperimentError> {
        self.load_with_notes(name_or_path, overrides).map(|(experiment, _)| experiment)
    }

    /// As [`load`](Self::load), with a note for each override that left other settings out: another planner keeps the values of
    /// the keys that both planners have.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_notes(
        &self,
        name_or_path: &str,
        overrides: &[&str],
    ) -> Result<(Experiment, Vec<String>), ExperimentError> {
        let (name, text) = self.source(name_or_path)?;
        let mut experiment = Experiment::from_toml(&text).map_err(ExperimentError::within(name_or_path))?;
        if experiment.name.is_empty() {
            experiment.name = name;
        }
        let mut notes = Vec::new();
        let experiment = overrides::apply(experiment, overrides, &mut notes)?;
        if !overrides.iter().any(|word| overrides::key_of(word) == "model.angles") {
            self.check_angles(&experiment)?;
        }
        Ok((experiment, notes))
    }

    /// Refuses a text whose angles are not the task's: those of another task, mostly.
    fn check_angles(&self, experiment: &Experiment) -> Result<(), ExperimentError> {
        let Some((EnsembleConfig { angles: Angles::Columns(given), .. }, _)) = experiment.agent.learned_model() else {
            return Ok(());
        };
        // The reason why a task cannot be made is reported where the task is needed.
        let Ok(task) = experiment.make_task(self) else { return Ok(()) };
        let spec = task.env.spec();
        if *given == spec.angles() {
            return Ok(());
        }
        let columns = |angles: &[AngleColumn]| format!("{:?}", angles.iter().map(|a| a.column).collect::<Vec<_>>());
        let (given, found) = (columns(given), columns(&spec.angles()));
        let told =
            format!("\"task\", which are {found} of {}; to overrule the task, --set model.angles={given}", spec.name);
        Err(ExperimentError::rule("model.angles", given, told))
    }

    /// Name and text of an experiment, or of a file whose path ends in `.toml`.
    ///
    /// # Errors
    /// [`ExperimentError::UnknownExperiment`], with the nearest names; [`ExperimentError::Io`].
    pub fn source(&self, name_or_path: &str) -> Result<(String, String), ExperimentError> {
        if name_or_path.ends_with(".toml") {
            let path = Path::new(name_or_path);
            let text =
                fs::read_to_string(path).map_err(|source| ExperimentError::Io { path: path.to_owned(), source })?;
            return Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text));
        }
        let found = self.experiments.iter().find(|(name, _)| name == name_or_path);
        found.cloned().ok_or_else(|| ExperimentError::UnknownExperiment {
            name: name_or_path.to_owned(),
            hint: self.hint(name_or_path),
        })
    }

    /// What a name that no experiment has may have meant.
    fn hint(&self, name: &str) -> String {
        if self.tasks.iter().any(|task| task.name() == name) {
            return match self.experiments_on(name) {
                None => format!("; `{name}` is a task: an experiment with task = \"{name}\" is on it"),
                Some(experiments) => format!("; `{name}` is a task, and on it are {experiments}"),
            };
        }
        self.of_gymnasium(name).unwrap_or_else(|| suggest(name, self.experiment_names()))
    }

    /// What to do with the id of an environment of Gymnasium; `None` for any other name.
    fn of_gymnasium(&self, name: &str) -> Option<String> {
        if !is_gymnasium_id(name) || !self.tasks.iter().any(|task| task.name() == process::TASK) {
            return None;
        }
        let taken = match self.on_task(process::TASK).first() {
            Some(experiment) => format!("the experiment `{experiment}` with --set task_options.id={name}"),
            None => format!("an experiment with task = \"process\" and task_options.id={name}"),
        };
        let mut hint = format!(
            "; `{name}` looks like an environment of Gymnasium, which runs in a process of its own: {taken} and, where Gymnasium is in \
             another Python than python3, task_options.python=PATH (docs/guides/your-own-environment-in-python.md)"
        );
        // Tasks say whose they are.
        let own = self.tasks.iter().find(|task| task.summary().contains(&format!("Gymnasium's {name}")));
        if let Some(task) = own.map(TaskEntry::name) {
            let experiments = self.experiments_on(task).map_or(String::new(), |found| format!(": {found}"));
            hint += &format!("; without Python it is the task `{task}`{experiments}");
        }
        Some(hint)
    }

    /// The names of the experiments on a task.
    fn on_task(&self, task: &str) -> Vec<&str> {
        let is_on_it = |text: &str| {
            text.parse::<Table>().is_ok_and(|table| table.get("task").and_then(Value::as_str) == Some(task))
        };
        self.experiments.iter().filter(|(_, text)| is_on_it(text)).map(|(name, _)| name.as_str()).collect()
    }

    /// The experiments on a task, as text.
    fn experiments_on(&self, task: &str) -> Option<String> {
        let found = self.on_task(task);
        (!found.is_empty()).then(|| format!("`{}`", found.join("`, `")))
    }
}

/// Whether a name has the form of Gymnasium's ids: `CartPole-v1`, `module:Reach-v0`.
#[must_use]
pub fn is_gymnasium_id(name: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "_-.:/".contains(c));
    name.rsplit_once("-v").is_some_and(|(word, version)| {
        is_word(word)
            && word.contains(|c: char| c.is_alphabetic())
            && !version.is_empty()
            && version.chars().all(|c| c.is_ascii_digit())
    })
}
