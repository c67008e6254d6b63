//! Sizes that no machine has the memory for are refused before anything is allocated.

use mbrl_model::EnsembleConfig;
use mbrl_plan::PlannerConfig;

use super::ExperimentError;
use crate::limits::{LARGEST, fits_memory, product};

/// Refuses plans whose roll-outs no machine has the memory for.
pub(super) fn check_plan(
    planner: &PlannerConfig,
    particles: usize,
    obs: usize,
    action: usize,
) -> Result<(), ExperimentError> {
    let (candidates, horizon) = (planner.candidates(), planner.horizon());
    let rollout = [candidates, horizon, particles, obs.saturating_add(action)];
    if !fits_memory(&rollout) {
        return Err(ExperimentError::rule(
            "candidates · horizon · particles",
            format!("{candidates} · {horizon} · {particles}"),
            format!("roll-outs of at most {LARGEST} numbers; make planner.population or planner.horizon smaller"),
        ));
    }
    Ok(())
}

/// Refuses a model of an environment with these widths that no machine has the memory for.
///
/// # Errors
/// [`ExperimentError::Value`].
pub fn check_weights(model: &EnsembleConfig, obs: usize, action: usize) -> Result<(), ExperimentError> {
    let EnsembleConfig { members, hidden, angles, past, .. } = model;
    // Each observation with its angles and each action; out come means and log-variances, reward and termination.
    let step = obs.saturating_add(angles.columns().len()).saturating_add(action);
    let fits = |members: usize, past: usize| {
        let widths = [&[step.saturating_mul(past.saturating_add(1))][..], hidden, &[2 * obs + 3]].concat();
        let weights = widths
            .windows(2)
            .try_fold(0_u64, |sum, layer| sum.checked_add(product(&[members, layer[0].saturating_add(1), layer[1]])?));
        weights.is_some_and(|numbers| numbers <= LARGEST)
    };
    // The key to make smaller: the model would fit without it.
    let (key, value) = match () {
        () if fits(*members, *past) => return Ok(()),
        () if fits(*members, 0) => ("model.past", past.to_string()),
        () if fits(1, *past) => ("model.members", members.to_string()),
        () => ("model.hidden", format!("{hidden:?}")),
    };
    Err(ExperimentError::rule(key, value, format!("a model of at most {LARGEST} weights")))
}

/// Refuses networks of a policy or of critics that no machine has the memory for: `members` of them, from `inputs` to `outputs`.
pub(super) fn check_networks(
    key: &str,
    hidden: &[usize],
    [members, inputs, outputs]: [usize; 3],
) -> Result<(), ExperimentError> {
    let widths = [&[inputs][..], hidden, &[outputs]].concat();
    let weights = widths
        .windows(2)
        .try_fold(0_u64, |sum, layer| sum.checked_add(product(&[members, layer[0].saturating_add(1), layer[1]])?));
    if weights.is_some_and(|numbers| numbers <= LARGEST) {
        return Ok(());
    }
    Err(ExperimentError::rule(key, format!("{hidden:?}"), format!("networks of at most {LARGEST} weights")))
}
