//! Section `[knowledge]`: which parts of a task's knowledge are used.

use mbrl_env::{Knowledge, WrappersConfig};
use serde::{Deserialize, Serialize};

use super::ExperimentError;

/// Which parts of a task's [knowledge](mbrl_env::Knowledge) its model and other learners use: all of them by default. Each switch
/// changes a run where the task has such a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KnowledgeConfig {
    /// Whether networks use its [features](mbrl_env::Features) (default true).
    pub features: bool,
    /// Whether fits use its [symmetries](mbrl_env::Augment) (default true).
    pub symmetries: bool,
    /// Whether columns that it [knows](mbrl_env::Known) are left out of what is learned (default true).
    pub known: bool,
}

impl Default for KnowledgeConfig {
    fn default() -> Self {
        Self { features: true, symmetries: true, known: true }
    }
}

impl KnowledgeConfig {
    /// What is used of `all` in a world with such wrappers.
    pub(super) fn used(self, mut all: Knowledge, wrappers: &WrappersConfig) -> Result<Knowledge, ExperimentError> {
        all.features = all.features.filter(|_| self.features);
        all.augment = all.augment.filter(|_| self.symmetries);
        all.known = all.known.filter(|_| self.known);
        // Limits of actions change no step.
        let limits = WrappersConfig { action_limits: wrappers.action_limits.clone(), ..WrappersConfig::default() };
        if let Some(known) = all.known.as_ref().filter(|_| *wrappers != limits) {
            let rule = format!(
                "false, since with [wrappers] a step is no longer the one that `{}` knows the columns {:?} of",
                known.name(),
                known.columns()
            );
            return Err(ExperimentError::rule("knowledge.known", true, rule));
        }
        Ok(all)
    }
}
