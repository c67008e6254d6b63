//! Agents that plan, in files of their own: a resolved experiment, which defines how they act, and the model that they learned.

use std::{fs, path::Path};

use super::{CHECKSUM, refused, safetensors::File};
use crate::{AgentError, Learner, experiment::Experiment, files::io_error, write_atomically};

/// What the files say that they are.
const FORMAT: &str = "mbrl-agent";
const VERSION: &str = "1";
/// The model, in the bytes of its own format.
const MODEL: &str = "model";

/// An agent that plans in the model that it learned, without the data and the checkpoints of its run: experiment and model in one
/// safetensors file. The model is one tensor of bytes, in this program's own format; the experiment is TOML in the metadata. The agent
/// plans as the run that it was made from does, bit for bit.
///
/// `mbrl export RUN` writes such files, and `mbrl eval FILE` runs them.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportedAgent {
    experiment: Experiment,
    env_step: u64,
    model: Vec<u8>,
}

impl ExportedAgent {
    /// The agent of an experiment as it is after this many real steps.
    ///
    /// # Errors
    /// [`AgentError::Untransferable`] for an agent that has no model yet, or that has learned more than a model; an error of
    /// writing the model.
    pub fn new(experiment: &Experiment, env_step: u64, learner: &dyn Learner) -> Result<Self, AgentError> {
        let kind = experiment.agent.kind();
        let model = learner.planned_model()?.ok_or_else(|| AgentError::Untransferable { kind: kind.to_owned() })?;
        Ok(Self { experiment: experiment.clone(), env_step, model })
    }

    /// The resolved experiment.
    #[must_use]
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// Real environment steps that it learned from.
    #[must_use]
    pub fn env_step(&self) -> u64 {
        self.env_step
    }

    /// Gives its model to a learner that was built by an experiment: its own, or one on another task with the same observations and actions.
    ///
    /// # Errors
    /// [`AgentError::Untransferable`] for a learner that does not plan in a model alone; [`AgentError::Model`] for a model of different widths or
    /// with other features.
    pub fn install(&self, learner: &mut dyn Learner) -> Result<(), AgentError> {
        match learner.plan_in(&self.model)? {
            true => Ok(()),
            false => Err(AgentError::Untransferable { kind: learner.name().to_owned() }),
        }
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// [`AgentError::PolicyFile`] where there is something already; [`AgentError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), AgentError> {
        if path.symlink_metadata().is_ok() {
            return Err(refused(path, "exists; choose another name, or remove it first".into()));
        }
        write_atomically(path, &self.to_bytes()?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`AgentError::PolicyFile`] for a file that is cut, damaged, of another program or of another version of the format, naming what was
    /// found; [`AgentError::Io`] for one that cannot be read.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        Self::parse(&fs::read(path).map_err(io_error(path))?).map_err(|reason| refused(path, reason))
    }

    /// The content of a file. Equal agents give equal bytes.
    ///
    /// # Errors
    /// [`AgentError::PolicyFile`] for an experiment that cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, AgentError> {
        let experiment =
            self.experiment.to_toml().map_err(|error| refused(Path::new("exported agent"), error.to_string()))?;
        let mut file = File::default();
        for (key, word) in [
            ("format", FORMAT.to_owned()),
            ("format_version", VERSION.to_owned()),
            ("program", format!("mbrl {}", env!("CARGO_PKG_VERSION"))),
            ("task", self.experiment.task.clone()),
            ("agent", self.experiment.agent.kind().to_owned()),
            ("env_step", self.env_step.to_string()),
            ("experiment", experiment),
        ] {
            file.words.insert(key.to_owned(), word);
        }
        file.bytes.insert(MODEL.to_owned(), self.model.clone());
        let sum = file.checksum(CHECKSUM);
        file.words.insert(CHECKSUM.to_owned(), format!("{sum:08x}"));
        Ok(file.to_bytes())
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut file = File::of_bytes(bytes)?;
        file.check(FORMAT, VERSION, CHECKSUM)?;
        let word = |key: &str| file.words.get(key).ok_or_else(|| format!("{key}: expected in the metadata"));
        let env_step = word("env_step")?;
        let env_step = env_step.parse().map_err(|_| format!("env_step = {env_step}: expected a number"))?;
        let experiment = Experiment::from_toml(word("experiment")?).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            format!("experiment: {error}{cause}")
        })?;
        let model = file.bytes.remove(MODEL).ok_or_else(|| format!("{MODEL}: expected a tensor of bytes (U8)"))?;
        Ok(Self { experiment, env_step, model })
    }
}
