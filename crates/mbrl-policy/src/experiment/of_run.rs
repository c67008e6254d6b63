//! `value.source = "run"`: the values that the agent of another run assigns to states.

use std::{collections::BTreeMap, fs, sync::Arc};

use super::{
    AgentConfig, EXPERIMENT_FILE, Experiment, ExperimentError, GoalConfig, ImaginedGoalConfig, RewardSource,
    TerminationSource, agent::Site,
};
use crate::{
    AgentError, GivenValue, GuidedConfig, PolicyNetwork, WhichCheckpoint, checkpoint::MANIFEST, train::CHECKPOINTS,
};

/// The value, and the policy, of the run that `guide` names.
pub(super) fn value_of_run(guide: &GuidedConfig, site: &Site<'_>) -> Result<GivenValue, ExperimentError> {
    let folder = &guide.value.run;
    let refuse = |rule: String| ExperimentError::rule("value.run", format!("{:?}", folder.display().to_string()), rule);
    let file = folder.join(EXPERIMENT_FILE);
    if !file.is_file() {
        return Err(refuse(format!("the folder of a run, which holds {EXPERIMENT_FILE}")));
    }
    let there = Experiment::from_file(&file)?;
    let here = site.experiment;
    if there.value_run().is_some() {
        return Err(refuse("a run whose agent learned its value itself".into()));
    }
    let (ours, theirs) = (world(here)?, world(&there)?);
    if let Some(key) = ours.keys().chain(theirs.keys()).find(|key| ours.get(*key) != theirs.get(*key)) {
        let shown = |of: &BTreeMap<String, String>| of.get(key).map_or("not set".to_owned(), String::clone);
        return Err(refuse(format!(
            "a run of the same task, but {key} is {} there and {} here",
            shown(&theirs),
            shown(&ours)
        )));
    }
    for ((key, ours), (_, theirs)) in goal(&here.agent).into_iter().zip(goal(&there.agent)) {
        if ours != theirs {
            return Err(refuse(format!(
                "a run with the same {key}, but that one has {theirs:?}, and this one {ours:?}"
            )));
        }
    }
    let (mut training, mut agent) = there.beginning(site.task, site.device)?;
    let which = guide.value.checkpoint;
    let whole = |error: &AgentError| format!("an intact checkpoint of that run, but {error}");
    let restored = training.restore_from(folder, which, &mut *agent);
    let damaged = restored.map_err(|error| match which {
        WhichCheckpoint::Last => refuse(format!("a run with an intact checkpoint, but {error}")),
        WhichCheckpoint::Best => ExperimentError::rule("value.checkpoint", "\"best\"", whole(&error)),
        WhichCheckpoint::Step(step) => ExperimentError::rule("value.checkpoint", step, whole(&error)),
    })?;
    for error in damaged {
        tracing::warn!("value.run: damaged checkpoint passed over: {error}");
    }
    let Some(step) = training.stored_step() else { return Err(refuse("a run with a checkpoint".into())) };
    if step <= there.agent.random_steps() {
        let random = there.agent.random_steps();
        return Err(refuse(format!(
            "a run that has learned: after {step} steps that one has taken random actions alone, as it does for {random}"
        )));
    }
    let Some(value) = agent.value() else {
        let told = "the run of an agent that has values: \"sac\", \"td3\", \"mbpo\", or one with [value]";
        return Err(refuse(format!("{told}; that of \"{}\" has none after {step} steps", there.agent.kind())));
    };
    let planned = here.agent.goal_and_value().map(|(goal, _)| goal.discount);
    if let Some(discount) = planned.filter(|discount| *discount != value.discount) {
        tracing::warn!("goal.discount = {discount}: the value that plans end in was learned with {}", value.discount);
    }
    let manifest = folder.join(CHECKPOINTS).join(step.to_string()).join(MANIFEST);
    let bytes = fs::read(&manifest).map_err(|source| ExperimentError::Io { path: manifest, source })?;
    let checksum = crc32fast::hash(&bytes);
    let given =
        GivenValue::new(value, format!("{}, seed {}, step {step}, checksum {checksum:08x}", there.name, there.seed));
    Ok(match agent.policy_network() {
        Some(PolicyNetwork::Actor(actor)) => given.with_policy(Arc::new(actor)),
        Some(PolicyNetwork::Stochastic(policy)) => given.with_policy(Arc::new(policy)),
        None => given,
    })
}

/// The world that an experiment is in: its keys with their values.
fn world(of: &Experiment) -> Result<BTreeMap<String, String>, ExperimentError> {
    let speaks_of_it =
        |key: &str| key == "task" || ["task_options.", "wrappers."].iter().any(|section| key.starts_with(section));
    Ok(of.flat()?.into_iter().filter(|(key, _)| speaks_of_it(key)).collect())
}

/// Formulas that replace the task's reward and terminations, and those that add to its reward.
fn goal(agent: &AgentConfig) -> [(&'static str, String); 4] {
    let reward = |source: &Option<RewardSource>| match source {
        Some(RewardSource::Expression(text)) => text.clone(),
        _ => "the task's".to_owned(),
    };
    let ends = |source: &Option<TerminationSource>| match source {
        Some(TerminationSource::Expression(text)) => text.clone(),
        _ => "the task's".to_owned(),
    };
    let (none, of) = (GoalConfig::default(), |goal: &GoalConfig| {
        [reward(&goal.reward), ends(&goal.termination), format!("{:?}", goal.cost), goal.shaping.clone()]
    });
    let [paid, over, cost, shaping] = match (agent.goal_and_value(), agent) {
        (Some((goal, _)), _) => of(goal),
        (None, AgentConfig::Mbpo(sections)) => {
            let ImaginedGoalConfig { reward, termination } = sections.goal.clone();
            of(&GoalConfig { reward, termination, ..none })
        }
        (None, _) => of(&none),
    };
    [("goal.reward", paid), ("goal.termination", over), ("goal.cost", cost), ("goal.shaping", shaping)]
}
