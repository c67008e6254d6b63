//! Roll-outs of a policy in a model: data that costs no step in the world.

use std::borrow::Cow;

use mbrl_env::Batch;
use mbrl_model::{Draw, Dynamics, ModelError};

use crate::{AgentError, Goal, Tensor};

/// Imagined roll-outs of N rows over T steps. A row is alive until it has terminated, or left what is finite; what stands in a
/// step in which it is not alive means nothing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rollouts {
    /// O, entries of an observation.
    pub obs_width: usize,
    /// A, entries of an action.
    pub action_width: usize,
    /// N, the number of rows.
    pub rows: usize,
    /// Observations, the first ones included, `[T+1, N, O]`.
    pub obs: Vec<f32>,
    /// Actions in the environment's units, `[T, N, A]`.
    pub actions: Vec<f32>,
    /// Rewards, `[T, N]`.
    pub rewards: Vec<f32>,
    /// Whether the step led to an end state, `[T, N]`.
    pub terminated: Vec<bool>,
    /// Whether the row took part in the step, `[T, N]`.
    pub alive: Vec<bool>,
    /// Steps that were thrown away because the model gave a NaN or an infinity; their rows end before them.
    pub broken: usize,
}

impl Rollouts {
    /// T, the number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.rewards.len().checked_div(self.rows).unwrap_or(0)
    }

    /// The steps in which rows were alive, as transitions: step by step, in each in the order of the rows. None is truncated: a row
    /// that has not terminated goes on, in a learner's targets, with its value.
    #[must_use]
    pub fn to_batch(&self) -> Batch {
        let (o, a, n) = (self.obs_width, self.action_width, self.rows);
        let steps: Vec<usize> = (0..self.alive.len()).filter(|step| self.alive[*step]).collect();
        let rows = |values: &[f32], width: usize, ahead: usize| -> Vec<f32> {
            steps.iter().flat_map(|step| &values[(step + ahead * n) * width..][..width]).copied().collect()
        };
        Batch {
            obs_width: o,
            action_width: a,
            obs: rows(&self.obs, o, 0).into(),
            actions: rows(&self.actions, a, 0).into(),
            rewards: steps.iter().map(|step| f64::from(self.rewards[*step])).collect(),
            next_obs: rows(&self.obs, o, 1).into(),
            terminated: steps.iter().map(|step| self.terminated[*step]).collect(),
            truncated: Cow::Owned(vec![false; steps.len()]),
        }
    }
}

/// Rolls a policy out in a model for `steps` steps from observations `starts` `[N, O]`.
///
/// `act` chooses for observations `[n, O]` of the rows that are still alive, at a step from 0, actions `[n, A]` in the environment's
/// units. Rewards and ends are the goal's, or the model's where it leaves them open; without either, nothing ends.
///
/// # Errors
/// [`AgentError::Config`] for a model whose state is more than an observation; as [`Dynamics::sample`], and whatever keeps `act` from
/// choosing.
pub fn imagine(
    model: &dyn Dynamics,
    goal: &Goal,
    act: &mut dyn FnMut(&[f32], usize) -> Result<Vec<f32>, AgentError>,
    starts: &[f32],
    steps: usize,
    draw: Draw,
) -> Result<Rollouts, AgentError> {
    let spec = model.spec();
    check_markov(model)?;
    let (o, a) = (spec.obs, spec.action);
    let n = starts.len() / o;
    if !starts.len().is_multiple_of(o) {
        let what = "entries of the last start";
        return Err(ModelError::Width { what, expected: o, actual: starts.len() % o }.into());
    }
    let mut all = Rollouts {
        obs_width: o,
        action_width: a,
        rows: n,
        obs: vec![0.0; (steps + 1) * n * o],
        actions: vec![0.0; steps * n * a],
        rewards: vec![0.0; steps * n],
        terminated: vec![false; steps * n],
        alive: vec![false; steps * n],
        broken: 0,
    };
    all.obs[..n * o].copy_from_slice(starts);
    let mut alive: Vec<usize> = (0..n).collect();
    let mut obs = starts.to_vec();
    for t in 0..steps {
        if alive.is_empty() {
            break;
        }
        let actions = act(&obs, t)?;
        if actions.len() != alive.len() * a {
            let what = "entries of the policy's actions";
            return Err(ModelError::Width { what, expected: alive.len() * a, actual: actions.len() }.into());
        }
        let step = step(model, goal, &obs, &actions, draw.later(t))?;
        let (mut still, mut next_obs) = (Vec::with_capacity(alive.len()), Vec::with_capacity(obs.len()));
        for (i, &row) in alive.iter().enumerate() {
            let next = &step.next[i * o..][..o];
            if !step.rewards[i].is_finite() || next.iter().any(|value| !value.is_finite()) {
                all.broken += 1;
                continue;
            }
            let place = t * n + row;
            all.alive[place] = true;
            all.rewards[place] = step.rewards[i];
            all.terminated[place] = step.terminated[i];
            all.actions[place * a..][..a].copy_from_slice(&actions[i * a..][..a]);
            all.obs[(place + n) * o..][..o].copy_from_slice(next);
            if !step.terminated[i] {
                still.push(row);
                next_obs.extend_from_slice(next);
            }
        }
        (alive, obs) = (still, next_obs);
    }
    Ok(all)
}

/// Refuses a model whose state is more than an observation: its roll-outs cannot start from observations alone.
pub(crate) fn check_markov(model: &dyn Dynamics) -> Result<(), AgentError> {
    let spec = model.spec();
    if spec.state == spec.obs && !spec.needs_snapshot {
        return Ok(());
    }
    let rule = "0: roll-outs of a policy start from single observations";
    Err(AgentError::Config { field: "past", value: "more".into(), rule })
}

struct Step {
    next: Vec<f32>,
    rewards: Vec<f32>,
    terminated: Vec<bool>,
}

fn step(model: &dyn Dynamics, goal: &Goal, obs: &[f32], actions: &[f32], draw: Draw) -> Result<Step, AgentError> {
    let spec = model.spec();
    let tensor = |values: &[f32], width: usize| {
        Tensor::<1>::from_floats(values, &spec.device).reshape([values.len() / width, width])
    };
    let (now, done) = (tensor(obs, spec.obs), tensor(actions, spec.action));
    let step = model.sample(now.clone(), done.clone(), draw)?;
    let next = model.observe(step.next);
    let rewards = match (&goal.reward, step.reward) {
        (Some(reward), _) => reward.reward(now.clone(), done.clone(), next.clone()),
        (None, Some(reward)) => reward,
        (None, None) => return Err(no_reward()),
    };
    let terminated = match (&goal.termination, step.terminated) {
        (Some(termination), _) => Some(termination.terminated(now, done, next.clone())),
        (None, learned) => learned,
    };
    let rows = obs.len() / spec.obs;
    Ok(Step {
        next: next.into_data().iter().collect(),
        rewards: rewards.into_data().iter().collect(),
        terminated: terminated.map_or_else(|| vec![false; rows], |ends| ends.into_data().iter().collect()),
    })
}

/// Neither goal nor model says what a step is worth.
pub(crate) fn no_reward() -> AgentError {
    let rule = "true for the model: the goal leaves the reward to it";
    AgentError::Config { field: "reward", value: "false".into(), rule }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mbrl_env::{reward_fn, termination_fn};
    use mbrl_model::{Device, Propagation, dynamics_fn};

    use super::*;

    fn goal() -> Goal {
        let column = |next: Tensor<2>| next.squeeze_dim::<1>(1);
        let over = |_, _, next: Tensor<2>| next.greater_elem(2.5).squeeze_dim::<1>(1);
        let mut goal = Goal::new(Arc::new(reward_fn(move |_, _, next: Tensor<2>| column(next))));
        goal.termination = Some(Arc::new(termination_fn(over)));
        goal
    }

    #[test]
    fn rows_go_on_until_they_end() {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
        let mut asked = Vec::new();
        let mut act = |obs: &[f32], t: usize| {
            asked.push((obs.to_vec(), t));
            Ok(vec![1.0; obs.len()])
        };
        let all = imagine(&model, &goal(), &mut act, &[0.0, 1.0, 2.0], 4, Draw::new(Propagation::MEAN, 0)).unwrap();
        assert_eq!(asked, [(vec![0.0, 1.0, 2.0], 0), (vec![1.0, 2.0], 1), (vec![2.0], 2)]);
        assert_eq!(all.alive, [[true; 3], [true, true, false], [true, false, false], [false; 3]].concat());
        assert_eq!(
            all.terminated,
            [[false, false, true], [false, true, false], [true, false, false], [false; 3]].concat()
        );
        let batch = all.to_batch();
        assert_eq!(*batch.obs, [0.0, 1.0, 2.0, 1.0, 2.0, 2.0]);
        assert_eq!(*batch.next_obs, [1.0, 2.0, 3.0, 2.0, 3.0, 3.0]);
        assert_eq!(*batch.rewards, [1.0, 2.0, 3.0, 2.0, 3.0, 3.0]);
        assert_eq!(*batch.terminated, [false, false, true, false, true, true]);
        assert_eq!((all.steps(), all.broken, batch.len()), (4, 0, 6));
        assert!(!batch.truncated.iter().any(|cut| *cut));
    }

    #[test]
    fn what_is_not_finite_is_no_data() {
        let model = dynamics_fn(1, 1, &Device::flex(), |s: Tensor<2>, a| (s - 1.0).recip() + a);
        let mut act = |obs: &[f32], _: usize| Ok(vec![0.0; obs.len()]);
        let all = imagine(&model, &goal(), &mut act, &[1.0, 0.0], 2, Draw::new(Propagation::MEAN, 0)).unwrap();
        assert_eq!((all.broken, all.alive.clone()), (1, vec![false, true, false, true]));
        assert_eq!(*all.to_batch().next_obs, [-1.0, -0.5]);
    }

    #[test]
    fn a_world_without_rewards_is_refused() {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
        let mut act = |obs: &[f32], _: usize| Ok(vec![0.0; obs.len()]);
        let error =
            imagine(&model, &Goal::of_model(), &mut act, &[1.0], 2, Draw::new(Propagation::MEAN, 0)).unwrap_err();
        assert!(error.to_string().starts_with("reward = false: expected true for the model"), "{error}");
    }
}
