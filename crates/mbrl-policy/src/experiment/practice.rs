//! Section `[practice]`: other forms of the task that are learned from.

use mbrl_env::{Env, tasks::Options};
use serde::{Deserialize, Serialize};

use super::{Experiment, ExperimentError, Registry};

/// Other options of the task in some of the environments that an agent learns in, such as goals that move more slowly or in another direction. The
/// dynamics are the same there, and the data come from states that the agent does not yet reach by itself. Evaluations use only the task
/// itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PracticeConfig {
    /// The number of `train.environments` that have them (default 0).
    pub environments: usize,
    /// Options of the task there, in place of those in `[task_options]`.
    pub task_options: Options,
}

impl PracticeConfig {
    /// The experiment in these environments; `None` where there are none.
    pub(super) fn of(
        &self,
        experiment: &Experiment,
        registry: &Registry,
    ) -> Result<Option<Experiment>, ExperimentError> {
        let all = experiment.train.environments;
        if self.environments == 0 {
            return match self.task_options.is_empty() {
                true => Ok(None),
                false => Err(ExperimentError::rule(
                    "practice.environments",
                    0,
                    "at least 1 where there is [practice.task_options]",
                )),
            };
        }
        if self.environments >= all {
            let rule = format!("less than train.environments = {all}: evaluations need one of the task itself");
            return Err(ExperimentError::rule("practice.environments", self.environments, rule));
        }
        let mut other = experiment.clone();
        for (name, value) in self.task_options.iter() {
            other.task_options = other.task_options.with(name, value.clone());
        }
        let [here, there] = [experiment, &other].map(|one| one.make_task(registry));
        let (here, there) = (here?, there.map_err(ExperimentError::within("[practice]"))?);
        let [here, there] = [here.env.spec(), there.env.spec()];
        if here.fields != there.fields || here.obs != there.obs || here.actions != there.actions {
            let rule = "options that leave observations and actions as they are";
            return Err(ExperimentError::rule("practice.task_options", "other columns or bounds", rule));
        }
        Ok(Some(other))
    }
}
