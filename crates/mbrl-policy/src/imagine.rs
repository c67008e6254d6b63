//! Roll-outs of a policy in a model: data that costs no step in the world.

use std::{borrow::Cow, fmt};

use mbrl_env::Batch;
use mbrl_model::{Draw, Dynamics, MemberRule, ModelError};

use crate::{AgentError, Goal, Tensor};

/// Imagined roll-outs of N rows over T steps. A row is alive until it has terminated or is no longer finite; its entries
/// mean nothing in a step in which it is not alive.
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

    /// The steps in which rows were alive, as transitions: step by step, and within a step in the order of the rows. None is truncated: in
    /// a learner's targets, a row that has not terminated continues with its value.
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

/// What acts in a roll-out: for observations `[n, O]` at a step, counted from 0, it chooses actions `[n, A]` in the environment's units.
pub type Act<'a> = dyn FnMut(&[f32], usize) -> Result<Vec<f32>, AgentError> + 'a;

/// Rolls a policy out in a model: [`Imagination::roll_out`] with a model and a goal, and nothing else.
///
/// # Errors
/// As [`Imagination::roll_out`].
pub fn imagine(
    model: &dyn Dynamics,
    goal: &Goal,
    act: &mut Act<'_>,
    starts: &[f32],
    steps: usize,
    draw: Draw,
) -> Result<Rollouts, AgentError> {
    Imagination::new(model, goal).roll_out(act, starts, steps, draw)
}

/// Where and by which rules policies are rolled out.
///
/// ```
/// use std::sync::Arc;
///
/// use mbrl_env::reward_fn;
/// use mbrl_model::{Device, Draw, Propagation, Tensor, dynamics_fn};
/// use mbrl_policy::{Goal, Imagination};
///
/// // A point on a line that earns where it stands, and a policy that steps by 1.
/// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
/// let goal = Goal::new(Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1))));
/// let mut policy = |obs: &[f32], _: usize| Ok(vec![1.0; obs.len()]);
/// let draw = Draw::new(Propagation::MEAN, 0);
/// let rollouts = Imagination::new(&model, &goal).roll_out(&mut policy, &[0.0, 10.0], 3, draw)?;
/// assert_eq!(rollouts.rewards, [1.0, 11.0, 2.0, 12.0, 3.0, 13.0]);
/// # Ok::<(), mbrl_policy::AgentError>(())
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Imagination<'a> {
    /// How states move.
    pub model: &'a dyn Dynamics,
    /// Rewards and ends; the model's where the goal leaves them open. Without either, nothing ends.
    pub goal: &'a Goal,
    /// The unit of the members' disagreement in each column of the observation, `[O]`, such as a standard deviation of the data. `None`
    /// (default) where it is not needed.
    pub scale: Option<&'a [f32]>,
    /// Rewards are lowered by this times the variance of the members' means, the mean over columns in units of `scale` (default: 0).
    pub penalty: f32,
    /// Rows end before a step on which that variance is above this; 0 for never (default).
    pub stop_at: f32,
}

impl fmt::Debug for Imagination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Imagination");
        f.field("model", &self.model.spec().name).field("goal", self.goal).field("scale", &self.scale);
        f.field("penalty", &self.penalty).field("stop_at", &self.stop_at).finish()
    }
}

impl<'a> Imagination<'a> {
    /// In a model, for a goal.
    #[must_use]
    pub fn new(model: &'a dyn Dynamics, goal: &'a Goal) -> Self {
        Self { model, goal, scale: None, penalty: 0.0, stop_at: 0.0 }
    }

    /// Rolls a policy out for `steps` steps from observations `starts` `[N, O]`.
    ///
    /// For observations `[n, O]` of the rows that are still alive, at a step counted from 0, `act` chooses actions `[n, A]` in the environment's
    /// units. With [`MemberRule::TsInf`] a row's place in the batch determines its member: `act` is then also asked about rows that are over, at
    /// their last state, and its answers for them are not used.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a model whose state is more than an observation; as [`Dynamics::sample`], and whatever keeps `act`
    /// from choosing.
    pub fn roll_out(
        &self,
        act: &mut Act<'_>,
        starts: &[f32],
        steps: usize,
        draw: Draw,
    ) -> Result<Rollouts, AgentError> {
        let spec = self.model.spec();
        check_markov(self.model)?;
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
        let stay = draw.propagation.rule == MemberRule::TsInf;
        let (mut batch, mut over): (Vec<usize>, _) = ((0..n).collect(), vec![false; n]);
        let mut obs = starts.to_vec();
        for t in 0..steps {
            if over.iter().all(|over| *over) {
                break;
            }
            let actions = act(&obs, t)?;
            if actions.len() != batch.len() * a {
                let what = "entries of the policy's actions";
                return Err(ModelError::Width { what, expected: batch.len() * a, actual: actions.len() }.into());
            }
            let step = self.step(&obs, &actions, draw.later(t))?;
            let (mut still, mut next_obs) = (Vec::with_capacity(batch.len()), Vec::with_capacity(obs.len()));
            for (i, &row) in batch.iter().enumerate() {
                let (before, next) = (&obs[i * o..][..o], &step.next[i * o..][..o]);
                if !over[row] {
                    over[row] = true;
                    if step.stops[i] {
                        // It ends before this step.
                    } else if !step.rewards[i].is_finite() || next.iter().any(|value| !value.is_finite()) {
                        all.broken += 1;
                    } else {
                        let place = t * n + row;
                        all.alive[place] = true;
                        all.rewards[place] = step.rewards[i];
                        all.terminated[place] = step.terminated[i];
                        all.actions[place * a..][..a].copy_from_slice(&actions[i * a..][..a]);
                        all.obs[(place + n) * o..][..o].copy_from_slice(next);
                        over[row] = step.terminated[i];
                    }
                }
                if !over[row] || stay {
                    still.push(row);
                    next_obs.extend_from_slice(if over[row] { before } else { next });
                }
            }
            (batch, obs) = (still, next_obs);
        }
        Ok(all)
    }

    fn step(&self, obs: &[f32], actions: &[f32], draw: Draw) -> Result<Step, AgentError> {
        let (model, goal, spec) = (self.model, self.goal, self.model.spec());
        let rows = obs.len() / spec.obs;
        let tensor =
            |values: &[f32], width: usize| Tensor::<1>::from_floats(values, &spec.device).reshape([rows, width]);
        let (now, done) = (tensor(obs, spec.obs), tensor(actions, spec.action));
        let variance = match self.scale {
            Some(scale) => self.disagreement(now.clone(), done.clone(), scale)?,
            None => vec![0.0; rows],
        };
        let step = model.sample(now.clone(), done.clone(), draw)?;
        let next = model.observe(step.next);
        let steps = [now, done, next.clone()];
        let rewards = goal.rewards(steps.clone(), step.reward)?;
        let terminated = goal.ends(steps, step.terminated);
        let paid = |(reward, variance): (f32, &f32)| reward - self.penalty * variance;
        Ok(Step {
            next: next.into_data().iter().collect(),
            rewards: rewards.into_data().iter().zip(&variance).map(paid).collect(),
            terminated,
            stops: variance.iter().map(|variance| self.stop_at > 0.0 && *variance > self.stop_at).collect(),
        })
    }

    /// The variance of the members' means in units of `scale`, the mean over the columns whose scale is finite, `[N]`; 0 for a model without
    /// members.
    fn disagreement(&self, obs: Tensor<2>, actions: Tensor<2>, scale: &[f32]) -> Result<Vec<f32>, AgentError> {
        let (rows, o) = (obs.dims()[0], self.model.spec().obs);
        if scale.len() != o {
            return Err(ModelError::Width { what: "entries of the scale", expected: o, actual: scale.len() }.into());
        }
        let Some(std) = self.model.predict(obs, actions)?.epistemic_std else { return Ok(vec![0.0; rows]) };
        let std: Vec<f32> = std.into_data().iter().collect();
        let count = scale.iter().filter(|scale| scale.is_finite()).count().max(1) as f32;
        let of = |row: &[f32]| row.iter().zip(scale).map(|(std, scale)| (std / scale).powi(2)).sum::<f32>() / count;
        Ok(std.chunks(o).map(of).collect())
    }
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
    /// Members disagree too much.
    stops: Vec<bool>,
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
    fn by_ts_infinity_rows_keep_their_members_when_others_end() {
        let config =
            mbrl_model::EnsembleConfig { members: 3, hidden: vec![8], ..mbrl_model::EnsembleConfig::default() };
        let model = config.init(1, 1, &Device::flex(), &mut mbrl_env::Rng::new(0)).unwrap();
        let starts: Vec<f32> = (0..12).map(|row| [9.0, 0.3, -0.2][row % 3] + 0.01 * row as f32).collect();
        let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: 1 }, 3);
        let go = |goal: &Goal| {
            let mut act = |obs: &[f32], _: usize| Ok(vec![0.1; obs.len()]);
            imagine(&model, goal, &mut act, &starts, 4, draw).unwrap()
        };
        let (ends, never) = (go(&goal()), go(&Goal { termination: None, ..goal() }));
        // Every third row ends in the first step; the others go where they go without it.
        assert_eq!(ends.alive.iter().filter(|alive| **alive).count(), 12 + 3 * 8);
        for place in (0..48).filter(|place| ends.alive[*place]) {
            assert_eq!(ends.obs[place + 12], never.obs[place + 12], "step {}, row {}", place / 12, place % 12);
        }
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

    #[test]
    fn where_members_disagree_it_costs_or_ends() {
        // Members that were never fitted: they disagree.
        let config =
            mbrl_model::EnsembleConfig { members: 3, hidden: vec![8], ..mbrl_model::EnsembleConfig::default() };
        let model = config.init(1, 1, &Device::flex(), &mut mbrl_env::Rng::new(0)).unwrap();
        let starts = [0.0, 1.0, 2.0, -2.0];
        let draw = Draw::new(Propagation::MEAN, 0);
        let goal = Goal { termination: None, ..goal() };
        let go = |imagination: Imagination<'_>| {
            imagination.roll_out(&mut |obs, _| Ok(vec![0.5; obs.len()]), &starts, 1, draw).unwrap()
        };
        let plain = go(Imagination::new(&model, &goal));
        let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &Device::flex()).reshape([4, 1]);
        let spread = model.predict(tensor(&starts), tensor(&[0.5; 4])).unwrap().epistemic_std.unwrap();
        let variance: Vec<f32> = spread.into_data().iter::<f32>().map(|std| (std / 0.5) * (std / 0.5)).collect();
        let scaled = Imagination { scale: Some(&[0.5]), ..Imagination::new(&model, &goal) };
        let paid = go(Imagination { penalty: 3.0, ..scaled });
        for (row, variance) in variance.iter().enumerate() {
            let wanted = plain.rewards[row] - 3.0 * variance;
            assert!((paid.rewards[row] - wanted).abs() < 1e-5, "{paid:?}, expected {wanted} in row {row}");
        }
        let mut sorted = variance.clone();
        sorted.sort_by(f32::total_cmp);
        let between = 0.5 * (sorted[1] + sorted[2]);
        let stopped = go(Imagination { stop_at: between, ..scaled });
        assert_eq!(stopped.alive, variance.iter().map(|variance| *variance <= between).collect::<Vec<_>>());
    }
}
