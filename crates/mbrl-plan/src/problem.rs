//! A planning problem: a model, a goal, bounds. Borrowed for each call, so all of it can change between two steps.

use std::fmt;

use burn::tensor::Tensor;
use mbrl_env::{ActionSpace, Reward, Termination, Value};
use mbrl_model::Dynamics;

use crate::{ActionRate, Disagreement, Propose};

/// A planning problem: maximise the expected discounted sum of rewards over a horizon of actions.
///
/// Made by [`Problem::new`]; each option has a method `with_…`, and its field can be set as well.
///
/// ```
/// use mbrl_plan::{ActionSpace, BoxSpace, Device, Problem, Tensor, dynamics_fn, reward_fn, termination_fn, value_fn};
///
/// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1);
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
/// let near_zero = reward_fn(|_, _, next: Tensor<2>| -next.abs().squeeze_dim::<1>(1));
/// let fell = termination_fn(|_, _, next: Tensor<2>| next.greater_elem(2.0).squeeze_dim(1));
/// let later = value_fn(|obs: Tensor<2>| obs.abs().squeeze_dim::<1>(1) * -10.0);
/// let problem = Problem::new(&model, &actions)
///     .with_reward(&near_zero)
///     .with_termination(&fell)
///     .with_after_termination(-100.0)
///     .with_terminal_value(&later)
///     .with_discount(0.99);
/// # assert_eq!(problem.discount, 0.99);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Problem<'a> {
    /// The model: how actions change the state.
    pub dynamics: &'a dyn Dynamics,
    /// The reward; `None` asks the model (learned reward heads, simulators).
    pub reward: Option<&'a dyn Reward>,
    /// The actions that may be taken, in the environment's units.
    pub actions: &'a ActionSpace,
    /// When a trajectory is over; `None` asks the model, and a model without a rule never ends one.
    pub termination: Option<&'a dyn Termination>,
    /// Reward of each step after the terminal one (PDDM's tasks: −500; default 0). The terminal step's own reward is counted.
    pub after_termination: f32,
    /// Expected return beyond the horizon, counted where the trajectory is not over.
    pub terminal_value: Option<&'a dyn Value>,
    /// Discount per step, in (0, 1] (default 1).
    pub discount: f32,
    /// Extra reward of each planned step, for planning only: evaluations ignore it. It is added to the reward of the problem or
    /// of the model; where neither gives one, it is the whole reward.
    pub shaping: Option<&'a dyn Reward>,
    /// The bonus for going where the members of an ensemble disagree, on top of the reward. Where neither the problem nor
    /// the model gives a reward, this is the whole reward: exploration for its own sake.
    pub disagreement: Option<&'a Disagreement>,
    /// What changes of the action cost, and how large they may be. Every planner respects both.
    pub action_rate: Option<ActionRate>,
    /// Action sequences to be tried among the candidates, in environment units `[M, H, A]`: a policy's, say.
    pub proposals: Option<Tensor<3>>,
    /// The source of further such sequences, made anew for each plan, besides those of `proposals`: a policy, say.
    pub proposer: Option<&'a dyn Propose>,
}

impl<'a> Problem<'a> {
    /// A problem without reward, termination, terminal value, shaping, disagreement, action rate, proposals or proposer, undiscounted.
    #[must_use]
    pub fn new(dynamics: &'a dyn Dynamics, actions: &'a ActionSpace) -> Self {
        Self {
            dynamics,
            reward: None,
            actions,
            termination: None,
            after_termination: 0.0,
            terminal_value: None,
            discount: 1.0,
            shaping: None,
            disagreement: None,
            action_rate: None,
            proposals: None,
            proposer: None,
        }
    }

    /// Sets the reward.
    #[must_use]
    pub fn with_reward(mut self, reward: &'a dyn Reward) -> Self {
        self.reward = Some(reward);
        self
    }

    /// Sets the rule for when a trajectory is over.
    #[must_use]
    pub fn with_termination(mut self, termination: &'a dyn Termination) -> Self {
        self.termination = Some(termination);
        self
    }

    /// Sets the reward of each step after the terminal one.
    #[must_use]
    pub fn with_after_termination(mut self, reward: f32) -> Self {
        self.after_termination = reward;
        self
    }

    /// Sets the expected return beyond the horizon.
    #[must_use]
    pub fn with_terminal_value(mut self, value: &'a dyn Value) -> Self {
        self.terminal_value = Some(value);
        self
    }

    /// Discounts rewards, by a factor in (0, 1] per step.
    #[must_use]
    pub fn with_discount(mut self, discount: f32) -> Self {
        self.discount = discount;
        self
    }

    /// Adds a reward that only planning uses.
    #[must_use]
    pub fn with_shaping(mut self, shaping: &'a dyn Reward) -> Self {
        self.shaping = Some(shaping);
        self
    }

    /// Adds a bonus for disagreement.
    #[must_use]
    pub fn with_disagreement(mut self, disagreement: &'a Disagreement) -> Self {
        self.disagreement = Some(disagreement);
        self
    }

    /// Lets changes of the action cost `weight` times their square, and keeps each within `limit` (infinity for no limit), both in half
    /// ranges of the action: plans become smooth, and the limit holds for the actions that [`Mpc`](crate::Mpc) hands out, with any planner.
    ///
    /// The last action is that of the situation's [past](mbrl_env::Situation::past).
    ///
    /// ```
    /// use mbrl_plan::{
    ///     ActionSpace, BoxSpace, Device, History, IcemConfig, Planner, Problem, Propagation, Rng, Situation, Tensor, dynamics_fn,
    ///     reward_fn,
    /// };
    ///
    /// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a);
    /// let reward = reward_fn(|_, _, next: Tensor<2>| next.squeeze_dim(1));
    /// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 10.0)?);
    /// let problem = Problem::new(&model, &actions).with_reward(&reward).with_action_rate(0.0, 0.25);
    /// let past = History { obs: vec![vec![0.0]], actions: vec![vec![-10.0]] };
    /// let here = Situation { past: &past, ..Situation::of(&[0.0]) };
    /// let mut planner = IcemConfig { horizon: 3, ..IcemConfig::default() }.init(&actions, Propagation::MEAN)?;
    /// let plan = planner.plan(&here, &problem, &mut Rng::new(0))?;
    /// // From −10 up by at most a quarter of half the range per step.
    /// assert!(plan.action(0)[0] <= -7.5 && plan.action(1)[0] <= -5.0 && plan.action(2)[0] <= -2.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_action_rate(mut self, weight: f32, limit: f32) -> Self {
        self.action_rate = Some(ActionRate::new(weight, limit));
        self
    }

    /// Adds sequences `[M, H, A]`, in environment units, to the candidates.
    #[must_use]
    pub fn with_proposals(mut self, proposals: Tensor<3>) -> Self {
        self.proposals = Some(proposals);
        self
    }

    /// Lets `proposer` add sequences to the candidates of each plan.
    #[must_use]
    pub fn with_proposer(mut self, proposer: &'a dyn Propose) -> Self {
        self.proposer = Some(proposer);
        self
    }
}

impl fmt::Debug for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("dynamics", self.dynamics.spec())
            .field("reward", &self.reward.is_some())
            .field("actions", self.actions)
            .field("termination", &self.termination.is_some())
            .field("after_termination", &self.after_termination)
            .field("terminal_value", &self.terminal_value.is_some())
            .field("discount", &self.discount)
            .field("shaping", &self.shaping.is_some())
            .field("disagreement", &self.disagreement)
            .field("action_rate", &self.action_rate)
            .field("proposals", &self.proposals.as_ref().map(Tensor::dims))
            .field("proposer", &self.proposer.is_some())
            .finish()
    }
}
