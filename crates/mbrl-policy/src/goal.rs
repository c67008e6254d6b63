//! What an agent is to achieve, owned; a [`Problem`] borrows it for one control step.

use std::{fmt, sync::Arc};

use mbrl_env::{ActionSpace, Reward, Termination, Value, tasks::Task};
use mbrl_model::{Bool, Dynamics, Tensor};
use mbrl_plan::{ActionRate, Disagreement, Problem, Propose};

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
    /// Reward of each step after the terminal one, up to the horizon of the plan (default 0; PDDM's tasks: −500). Learned values do not
    /// count it: for them, nothing follows an end.
    pub after_termination: f32,
    /// Expected return beyond the planning horizon, learned for this goal: for another one it is refused.
    pub terminal_value: Option<TerminalValue>,
    /// What proposes sequences to the planner, such as a policy ([`PolicyProposals`](crate::PolicyProposals)). They are tried like any other,
    /// so proposals that were meant for another goal cost time but do no harm.
    pub proposals: Option<Arc<dyn Propose>>,
    /// Discount per step, in (0, 1] (default 1, PETS and PDDM).
    pub discount: f32,
    /// What a planned step earns on top of the reward, as [`Problem::shaping`]; evaluations do not count it (default:
    /// nothing).
    pub shaping: Option<Arc<dyn Reward>>,
    /// What is paid for going where the members of the model disagree (default: nothing).
    pub disagreement: Option<Disagreement>,
    /// What changes of the action cost in plans, and how large they may be (default: nothing, and any size).
    pub action_rate: Option<ActionRate>,
}

impl Goal {
    /// To collect a reward.
    #[must_use]
    pub fn new(reward: Arc<dyn Reward>) -> Self {
        Self { reward: Some(reward), ..Self::of_model() }
    }

    /// To collect the model's own reward until its own end: for a model that has learned them, or that is the simulator.
    #[must_use]
    pub fn of_model() -> Self {
        Self {
            reward: None,
            termination: None,
            after_termination: 0.0,
            terminal_value: None,
            proposals: None,
            discount: 1.0,
            shaping: None,
            disagreement: None,
            action_rate: None,
        }
    }

    /// The goal of a task of the registry. The reward is the model's where the task gives none.
    #[must_use]
    pub fn of_task(task: &Task) -> Self {
        Self { reward: task.reward.clone(), termination: task.termination.clone(), ..Self::of_model() }
    }

    /// Rewards `[N]` of steps of N rows: the goal's, where it defines them, otherwise what the model has `learned`.
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

    /// Whether steps of N rows ended, `[N]`: by the goal's rule, where it has one, otherwise by what the model has `learned`; without either, none.
    pub(crate) fn ends(&self, [obs, actions, next]: [Tensor<2>; 3], learned: Option<Tensor<1, Bool>>) -> Vec<bool> {
        let rows = obs.dims()[0];
        let ends = match &self.termination {
            Some(termination) => Some(termination.terminated(obs, actions, next)),
            None => learned,
        };
        ends.map_or_else(|| vec![false; rows], |ends| ends.into_data().iter().collect())
    }

    /// What the goal pays for, which identifies its values.
    #[must_use]
    pub fn key(&self) -> GoalKey {
        GoalKey {
            reward: self.reward.clone(),
            termination: self.termination.clone(),
            shaping: self.shaping.clone(),
            after_termination: self.after_termination,
            discount: self.discount,
        }
    }

    /// Lets plans end in a value that was learned for this goal, as it is now.
    #[must_use]
    pub fn with_terminal_value(mut self, value: Arc<dyn Value>) -> Self {
        self.terminal_value = Some(TerminalValue::learned_for(value, self.key()));
        self
    }

    /// Lets a proposer add sequences to each plan's candidates.
    #[must_use]
    pub fn with_proposals(mut self, proposals: Arc<dyn Propose>) -> Self {
        self.proposals = Some(proposals);
        self
    }

    /// Whether its terminal value, if any, was learned for what it pays now.
    #[must_use]
    pub fn has_own_value(&self) -> bool {
        self.terminal_value.as_ref().is_none_or(|value| value.fits(&self.key()))
    }

    /// The planning problem of reaching this goal in a world with these `dynamics`.
    ///
    /// # Errors
    /// [`AgentError::Config`] where the terminal value was learned for another goal.
    pub fn problem<'a>(
        &'a self,
        dynamics: &'a dyn Dynamics,
        actions: &'a ActionSpace,
    ) -> Result<Problem<'a>, AgentError> {
        if !self.has_own_value() {
            let rule = "a value of this goal: learn it anew, or plan without (terminal_value = None)";
            let value = "one learned for another goal".into();
            return Err(AgentError::Config { field: "terminal_value", value, rule });
        }
        let mut problem = Problem::new(dynamics, actions);
        problem.reward = self.reward.as_deref();
        problem.termination = self.termination.as_deref();
        problem.after_termination = self.after_termination;
        problem.terminal_value = self.terminal_value.as_ref().map(|value| &*value.value);
        problem.proposer = self.proposals.as_deref();
        problem.discount = self.discount;
        problem.shaping = self.shaping.as_deref();
        problem.disagreement = self.disagreement.as_ref();
        problem.action_rate = self.action_rate;
        Ok(problem)
    }
}

/// A value, and the goal that it was learned for.
#[derive(Clone)]
pub struct TerminalValue {
    value: Arc<dyn Value>,
    of: Option<GoalKey>,
}

impl TerminalValue {
    /// A value that was learned for a goal: with any other goal, plans refuse it.
    #[must_use]
    pub fn learned_for(value: Arc<dyn Value>, goal: GoalKey) -> Self {
        Self { value, of: Some(goal) }
    }

    /// A value that its author vouches for, whatever the goal, such as a distance to be kept small in any case.
    #[must_use]
    pub fn of_any_goal(value: Arc<dyn Value>) -> Self {
        Self { value, of: None }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &Arc<dyn Value> {
        &self.value
    }

    /// Whether it is a value of such a goal.
    #[must_use]
    pub fn fits(&self, goal: &GoalKey) -> bool {
        self.of.as_ref().is_none_or(|of| of == goal)
    }
}

impl fmt::Debug for TerminalValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalValue").field("bound", &self.of.is_some()).finish_non_exhaustive()
    }
}

/// What a goal pays for: its very reward, termination and shaping (the same objects, not equal ones), what comes after a termination, and the
/// discount. Values are bound to it.
#[derive(Clone)]
pub struct GoalKey {
    // Kept alive, so that no other object can take their address.
    reward: Option<Arc<dyn Reward>>,
    termination: Option<Arc<dyn Termination>>,
    shaping: Option<Arc<dyn Reward>>,
    after_termination: f32,
    discount: f32,
}

impl PartialEq for GoalKey {
    fn eq(&self, other: &Self) -> bool {
        fn same<T: ?Sized>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other)),
                (None, None) => true,
                _ => false,
            }
        }
        same(self.reward.as_ref(), other.reward.as_ref())
            && same(self.termination.as_ref(), other.termination.as_ref())
            && same(self.shaping.as_ref(), other.shaping.as_ref())
            && self.after_termination == other.after_termination
            && self.discount == other.discount
    }
}

impl fmt::Debug for GoalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoalKey").field("reward", &self.reward.is_some()).finish_non_exhaustive()
    }
}

/// Neither goal nor model says what a step is worth.
pub(crate) fn no_reward() -> AgentError {
    let rule = "true for the model, because the goal uses the model's reward";
    AgentError::Config { field: "reward", value: "false".into(), rule }
}

impl fmt::Debug for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Goal")
            .field("reward", &self.reward.is_some())
            .field("termination", &self.termination.is_some())
            .field("after_termination", &self.after_termination)
            .field("terminal_value", &self.terminal_value)
            .field("proposals", &self.proposals.is_some())
            .field("discount", &self.discount)
            .field("shaping", &self.shaping.is_some())
            .field("disagreement", &self.disagreement)
            .field("action_rate", &self.action_rate)
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
        let problem = goal.problem(&model, &actions).unwrap();
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
        assert_eq!(scored(&plain().with_terminal_value(Arc::new(worth))), 10.0 + 400.0);
        let shaped = reward_fn(move |_, _, next: Tensor<2>| column(next) * 10.0);
        assert_eq!(scored(&Goal { shaping: Some(Arc::new(shaped)), ..plain() }), 10.0 + 100.0);
    }

    #[test]
    fn a_value_of_another_goal_is_refused() {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let pays = || Arc::new(reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim::<1>(1)));
        let worth = Arc::new(value_fn(|obs: Tensor<2>| obs.squeeze_dim::<1>(1)));
        let goal = Goal::new(pays()).with_terminal_value(worth.clone());
        goal.problem(&model, &actions).unwrap();
        let over = |_, _, next: Tensor<2>| next.greater_elem(1.5).squeeze_dim::<1>(1);
        let others = [
            // The same equation, and still another object: nobody can tell.
            Goal { reward: Some(pays()), ..goal.clone() },
            Goal { reward: None, ..goal.clone() },
            Goal { shaping: Some(pays()), ..goal.clone() },
            Goal { termination: Some(Arc::new(termination_fn(over))), ..goal.clone() },
            Goal { after_termination: -1.0, ..goal.clone() },
            Goal { discount: 0.9, ..goal },
        ];
        for other in others {
            let error = other.problem(&model, &actions).unwrap_err().to_string();
            assert!(error.starts_with("terminal_value = one learned for another goal: expected a value of"), "{error}");
            Goal { terminal_value: None, ..other.clone() }.problem(&model, &actions).unwrap();
            let any = Some(TerminalValue::of_any_goal(worth.clone()));
            Goal { terminal_value: any, ..other }.problem(&model, &actions).unwrap();
        }
    }

    #[test]
    fn a_problem_pays_for_disagreement_as_the_goal_does() {
        let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
        let mut goal = Goal::new(Arc::new(reward));
        assert!(goal.problem(&model, &actions).unwrap().disagreement.is_none());
        let disagreement = Disagreement { weight: 2.0, scale: vec![0.5] };
        goal.disagreement = Some(disagreement.clone());
        assert_eq!(goal.problem(&model, &actions).unwrap().disagreement, Some(&disagreement));
    }
}
