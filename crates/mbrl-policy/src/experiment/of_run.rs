//! `value.source = "run"`: what the agent of another run expects of states.

use std::{collections::BTreeMap, sync::Arc};

use super::{AgentConfig, Experiment, ExperimentError, GoalConfig, RewardSource, agent::Site};
use crate::{GivenValue, GuidedConfig, PolicyNetwork, ValueSource};

/// The experiment in a run's folder.
const EXPERIMENT: &str = "experiment.toml";

/// The value, and the policy, of the run that `guide` names.
pub(super) fn value_of_run(guide: &GuidedConfig, site: &Site<'_>) -> Result<GivenValue, ExperimentError> {
    let folder = &guide.value.run;
    let refuse = |rule: String| ExperimentError::rule("value.run", format!("{:?}", folder.display().to_string()), rule);
    let file = folder.join(EXPERIMENT);
    if !file.is_file() {
        return Err(refuse(format!("the folder of a run, which holds {EXPERIMENT}")));
    }
    let there = Experiment::from_file(&file)?;
    let here = site.experiment;
    if guide_of(&there.agent).is_some_and(|guide| guide.value.source == ValueSource::Run) {
        return Err(refuse("a run whose agent learned its value itself".into()));
    }
    let (ours, theirs) = (world(here)?, world(&there)?);
    if let Some(key) = ours.keys().chain(theirs.keys()).find(|key| ours.get(*key) != theirs.get(*key)) {
        let shown =
            |of: &BTreeMap<String, String>| of.get(key).map_or("not set".to_owned(), |value| format!("= {value}"));
        return Err(refuse(format!(
            "a run of the same task, but {key} is {} there and {} here",
            shown(&theirs),
            shown(&ours)
        )));
    }
    if rewards(&here.agent) != rewards(&there.agent) {
        return Err(refuse("a run that learned from the same rewards: goal.reward, goal.cost and goal.shaping".into()));
    }
    let (mut training, mut agent) = there.beginning(site.task, site.device)?;
    let restored = training.restore_from(folder, guide.value.checkpoint, &mut *agent);
    let damaged = restored.map_err(ExperimentError::section("[value]"))?;
    for error in damaged {
        tracing::warn!("value.run: damaged checkpoint passed over: {error}");
    }
    let Some(step) = training.stored_step() else { return Err(refuse("a run with a checkpoint".into())) };
    let Some(value) = agent.value() else {
        let told = "the run of an agent that has values: \"sac\", \"td3\", \"mbpo\", or one with [value]";
        return Err(refuse(format!("{told}; that of \"{}\" has none after {step} steps", there.agent.kind())));
    };
    let given = GivenValue::new(value, format!("{}, seed {}, step {step}", there.name, there.seed));
    Ok(match agent.policy_network() {
        Some(PolicyNetwork::Actor(actor)) => given.with_policy(Arc::new(actor)),
        Some(PolicyNetwork::Stochastic(policy)) => given.with_policy(Arc::new(policy)),
        None => given,
    })
}

/// What is around an agent that plans.
fn guide_of(agent: &AgentConfig) -> Option<GuidedConfig> {
    match agent {
        AgentConfig::ModelBased(sections) => Some(sections.guide()),
        AgentConfig::GroundTruth(sections) => Some(sections.guide()),
        _ => None,
    }
}

/// What world an experiment is in: its keys with their values.
fn world(of: &Experiment) -> Result<BTreeMap<String, String>, ExperimentError> {
    let speaks_of_it =
        |key: &str| key == "task" || ["task_options.", "wrappers."].iter().any(|section| key.starts_with(section));
    Ok(of.flat()?.into_iter().filter(|(key, _)| speaks_of_it(key)).collect())
}

/// What an agent is paid in place of the task's own reward, and beside it.
fn rewards<'a>(agent: &'a AgentConfig) -> (Option<&'a str>, &'a [f32], &'a str) {
    let formula = |source: &'a Option<RewardSource>| match source {
        Some(RewardSource::Expression(text)) => Some(text.as_str()),
        _ => None,
    };
    let of_goal = |goal: &'a GoalConfig| (formula(&goal.reward), goal.cost.as_slice(), goal.shaping.as_str());
    match agent {
        AgentConfig::ModelBased(sections) => of_goal(&sections.goal),
        AgentConfig::GroundTruth(sections) => of_goal(&sections.goal),
        AgentConfig::Mbpo(sections) => (formula(&sections.goal.reward), &[], ""),
        _ => (None, &[], ""),
    }
}
