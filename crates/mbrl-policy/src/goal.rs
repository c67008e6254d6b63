//! What an agent is to achieve, owned; a [`Problem`] borrows it for one control step.

use std::{fmt, sync::Arc};

use mbrl_env::{ActionSpace, Reward, Termination, Value, tasks::Task};
use mbrl_model::{Bool, Dynamics, Tensor};
use mbrl_plan::{Disagreement, Problem};

use crate::AgentError;

/// Reward, end and value by which an agent plans.
///
/// A model does not know the goal, so a goal can be exchanged at any time, in the middle of an episode too.
#[derive(Clone)]
pub struct Goal {
    /// What is rewarded; `None` asks the model.
    pub reward: Option<Arc<dyn Reward>>,
    /// When a trajectory is over; `None` asks the model, and where that gives none, never.
    pub termination: Option<Arc<dyn Termination>>,
    /// Reward of each step after the terminal one (default 0; PDDM's tasks: −500).
    pub after_termination: f32,
    /// Expected return beyond the planning horizon.
    pub terminal_value: Option<Arc<dyn Value>>,
    /// Discount a step, in (0, 1] (default 1, PETS and PDDM).
    pub discount: f32,
    /// What a planned step earns on top of the reward, as [`Problem::shaping`]; evaluations do not count it (default:
    /// nothing).
    pub shaping: Option<Arc<dyn Reward>>,
    /// What is paid for going where the members of the model disagree (default: nothing).
    pub disagreement: Option<Disagreement>,
}

impl Goal {
    /// To collect a reward.
    #[must_use]
    pub fn new(reward: Arc<dyn Reward>) -> Self {
        Self { reward: Some(reward), ..Self::of_model() }
    }

    /// To collect the model's own reward until its own end: of a model that has learned them, or that is the simulator.
    #[must_use]
    pub fn of_model() -> Self {
        Self {
            reward: None,
            termination: None,
            after_termination: 0.0,
            terminal_value: None,
            discount: 1.0,
            shaping: None,
            disagreement: None,
        }
    }

    /// The goal of a task of the registry. The reward is the model's where the task gives none.
    #[must_use]
    pub fn of_task(task: &Task) -> Self {
        Self { reward: task.reward.clone(), termination: task.termination.clone(), ..Self::of_model() }
    }

    /// Rewards `[N]` of steps of N rows: the goal's, where it says them, otherwise what the model has `learned`.
    ///
    /// # Errors
    /// [`AgentError::Config`] where neither says what a step is worth.
    pub(crate) fn rewards(
        &self,
        [obs, actions, next]: [Tensor<2>; 3],
        learned: Option<Tensor<1>>,
    ) -> Result<Tensor<1>, AgentError> {
        match &self.reward {
            Some(reward) => Ok(reward.reward(obs, actions, next)),
            None => learned.ok_or_else(no_reward),
        }
    }

    /// Whether steps of N rows ended, `[N]`: by the goal, where it says so, otherwise by what the model has `learned`; without either, none.
    pub(crate) fn ends(&self, [obs, actions, next]: [Tensor<2>; 3], learned: Option<Tensor<1, Bool>>) -> Vec<bool> {
        let rows = obs.dims()[0];
        let ends = match &self.termination {
            Some(termination) => Some(termination.terminated(obs, actions, next)),
            None => learned,
        };
        ends.map_or_else(|| vec![false; rows], |ends| ends.into_data().iter().collect())
    }

    /// The planning problem of reaching this goal in a world that moves as `dynamics` says.
    #[must_use]
    pub fn problem<'a>(&'a self, dynamics: &'a dyn Dynamics, actions: &'a ActionSpace) -> Problem<'a> {
        let mut problem = Problem::new(dynamics, actions);
        problem.reward = self.reward.as_deref();
        problem.termination = self.termination.as_deref();
        problem.after_termination = self.after_termination;
        problem.terminal_value = self.terminal_value.as_deref();
        problem.discount = self.discount;
        problem.shaping = self.shaping.as_deref();
        problem.disagreement = self.disagreement.as_ref();
        problem
    }
}

/// Neither goal nor model says what a step is worth.
pub(crate) fn no_reward() -> AgentError {
    let rule = "true for the model: the goal leaves the reward to it";
    AgentError::Config { field: "reward", value: "false".into(), rule }
}

impl fmt::Debug for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Goal")
            .field("reward", &self.reward.is_some())
            .field("termination", &self.termination.is_some())
            .field("after_termination", &self.after_termination)
            .field("terminal_value", &self.terminal_value.is_some())
            .field("discount", &self.discount)
            .field("shaping", &self.shaping.is_some())
            .field("disagreement", &self.disagreement)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::{BoxSpace, reward_fn, termination_fn, value_fn};
    use mbrl_model::{Device, Propagation, dynamics_fn};

    use super::*;

    /// The return of going from 0 by one step of 1 at a time, four times, in a world without bounds.
    fn scored(goal: &Goal) -> f32 {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let problem = goal.problem(&model, &actions);
        let plan = Tensor::<3>::ones([1, 4, 1], &Device::flex());
        let here = mbrl_env::Situation::of(&[0.0]);
        let found = mbrl_plan::returns(&problem, &here, plan, Propagation::MEAN, 0).unwrap();
        found.per_particle.into_scalar()
    }

    #[test]
    fn a_problem_is_scored_by_all_that_the_goal_says() {
        let column = |next: Tensor<2>| next.squeeze_dim::<1>(1);
        let pays = move |_, _, next: Tensor<2>| column(next);
        let plain = || Goal::new(Arc::new(reward_fn(pays)));
        // At 1, 2, 3, 4.
        assert_eq!(scored(&plain()), 10.0);
        assert_eq!(scored(&Goal { discount: 0.5, ..plain() }), 1.0 + 1.0 + 0.75 + 0.5);
        let over = |_, _, next: Tensor<2>| next.greater_elem(1.5).squeeze_dim::<1>(1);
        let ends = || Goal { termination: Some(Arc::new(termination_fn(over))), ..plain() };
        assert_eq!(scored(&ends()), 1.0 + 2.0);
        assert_eq!(scored(&Goal { after_termination: -5.0, ..ends() }), 1.0 + 2.0 - 10.0);
        let worth = value_fn(move |obs: Tensor<2>| column(obs) * 100.0);
        assert_eq!(scored(&Goal { terminal_value: Some(Arc::new(worth)), ..plain() }), 10.0 + 400.0);
        let shaped = reward_fn(move |_, _, next: Tensor<2>| column(next) * 10.0);
        assert_eq!(scored(&Goal { shaping: Some(Arc::new(shaped)), ..plain() }), 10.0 + 100.0);
    }

    #[test]
    fn a_problem_pays_for_disagreement_as_the_goal_does() {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
        let mut goal = Goal::new(Arc::new(reward));
        assert!(goal.problem(&model, &actions).disagreement.is_none());
        let disagreement = Disagreement { weight: 2.0, scale: vec![0.5] };
        goal.disagreement = Some(disagreement.clone());
        assert_eq!(goal.problem(&model, &actions).disagreement, Some(&disagreement));
    }
}
