//! Plans, executed action by action.

use std::fmt;

use mbrl_env::{Rng, Situation};
use mbrl_model::is_cpu;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{PlanError, PlanStats, Planner, Problem, error::require};

/// When a new plan is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Replan {
    /// At every step: model-predictive control (default). Corrects for the model's errors at every step, at the cost of a plan
    /// per step.
    #[default]
    EveryStep,
    /// After this many steps, or when the plan is used up if that is sooner.
    Every(usize),
    /// Once per episode; the plan is then followed open loop. When it is used up before the episode ends, a new one is made.
    OpenLoop,
}

/// An action, and the plan that was made for it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MpcAction {
    /// The action to execute, `[A]`, in environment units.
    pub action: Vec<f32>,
    /// The summary of the plan, where one was made for this step.
    pub plan: Option<PlanSummary>,
}

/// What a plan cost and promises.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PlanSummary {
    /// What it cost.
    pub stats: PlanStats,
    /// The return that the model predicts for the best sequence that was scored, as in
    /// [`Plan::best_return`](crate::Plan::best_return).
    pub best_return: f32,
}

impl MpcAction {
    /// An action `[A]` in environment units, and the plan that was made for it, if one was.
    #[must_use]
    pub fn new(action: Vec<f32>, plan: Option<PlanSummary>) -> Self {
        Self { action, plan }
    }
}

impl PlanSummary {
    /// The summary of a plan.
    #[must_use]
    pub fn new(stats: PlanStats, best_return: f32) -> Self {
        Self { stats, best_return }
    }
}

/// Hands out the actions of a planner's plans, one per step, and plans anew when [`Replan`] says so.
///
/// The problem is passed at each step: changes of the goal, the model or the bounds take effect with the next plan.
///
/// ```
/// use mbrl_plan::{
///     ActionSpace, BoxSpace, CemConfig, Device, Mpc, Problem, Propagation, Replan, Rng, Situation, Tensor,
///     dynamics_fn, reward_fn,
/// };
///
/// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1);
/// let reward = reward_fn(|_, _, next: Tensor<2>| -next.abs().squeeze_dim(1));
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
/// let problem = Problem::new(&model, &actions).with_reward(&reward);
///
/// let planner = CemConfig { horizon: 5, ..CemConfig::default() }.init(&actions, Propagation::MEAN)?;
/// let mut mpc = Mpc::new(Box::new(planner), Replan::EveryStep)?;
/// let mut rng = Rng::new(0);
/// let mut x = 0.5;
/// for _ in 0..20 {
///     x += 0.1 * mpc.act(&Situation::of(&[x]), &problem, &mut rng)?.action[0];
/// }
/// assert!(x.abs() < 0.02);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mpc {
    planner: Box<dyn Planner>,
    replan: Replan,
    /// Actions of the running plan, `[H, A]` in row-major order; empty where there is none.
    actions: Vec<f32>,
    width: usize,
    /// How many of them were handed out.
    executed: usize,
    /// Steps executed since the planner was last told of them.
    untold: usize,
}

impl Mpc {
    /// Control with a planner.
    ///
    /// # Errors
    /// [`PlanError::Config`] for [`Replan::Every`] with 0 steps.
    pub fn new(planner: Box<dyn Planner>, replan: Replan) -> Result<Self, PlanError> {
        require(replan != Replan::Every(0), "replan", "every 0 steps", "at least 1 step")?;
        Ok(Self { planner, replan, actions: Vec::new(), width: 1, executed: 0, untold: 0 })
    }

    /// The next action.
    ///
    /// # Errors
    /// An error of the planner. The rest of the last plan is kept for [`fall_back`](Self::fall_back), and the next call
    /// plans anew.
    pub fn act(
        &mut self,
        situation: &Situation<'_>,
        problem: &Problem<'_>,
        rng: &mut Rng,
    ) -> Result<MpcAction, PlanError> {
        let horizon = self.actions.len() / self.width;
        let last = match self.replan {
            Replan::EveryStep => 1,
            Replan::Every(steps) => steps,
            Replan::OpenLoop => horizon,
        };
        let mut summary = None;
        if self.executed >= last.min(horizon) {
            // Cleared first, so that after an error the planner is not advanced twice over the same steps.
            let untold = std::mem::take(&mut self.untold);
            if untold > 0 {
                self.planner.advance(untold);
            }
            let mut plan = self.planner.plan(situation, problem, rng)?;
            plan.check()?;
            // Planners respect the limit themselves; for one that does not, it is enforced here.
            if let Some(rate) = problem.action_rate {
                rate.hold(problem.actions, situation, &mut plan.actions)?;
            }
            summary = Some(PlanSummary::new(plan.stats, plan.best_return));
            self.width = plan.shape[1];
            self.actions = plan.actions;
            self.executed = 0;
        }
        let action = self.actions[self.executed * self.width..][..self.width].to_vec();
        self.executed += 1;
        self.untold += 1;
        Ok(MpcAction { action, plan: summary })
    }

    /// The next action `[A]` from the rest of the last plan, for a step at which [`act`](Self::act) failed. `None` where
    /// nothing is left: then choose an action in another way. The planner will be told that a step was executed.
    pub fn fall_back(&mut self) -> Option<Vec<f32>> {
        self.untold += 1;
        let action = self.actions.get(self.executed * self.width..)?.get(..self.width)?.to_vec();
        self.executed += 1;
        Some(action)
    }

    /// `steps` steps passed without a call: the actions of the running plan were executed meanwhile, or others in their place. The
    /// plan continues after them, and so does the planner's warm start. For control loops that do not wait for a plan.
    pub fn skip(&mut self, steps: usize) {
        self.untold = self.untold.saturating_add(steps);
        // Nothing is left of a plan beyond its end, however large `steps` is.
        self.executed = self.executed.saturating_add(steps).min(self.actions.len() / self.width);
    }

    /// The rest of the running plan, `[h, A]` in row-major order: the actions that follow the one handed out last.
    #[must_use]
    pub fn ahead(&self) -> &[f32] {
        self.actions.get(self.executed * self.width..).unwrap_or_default()
    }

    /// Width of an action of the running plan, `A`; 1 before the first.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// A new episode begins: forgets the running plan, and makes the planner forget its warm start.
    pub fn reset(&mut self) {
        self.actions.clear();
        (self.executed, self.untold) = (0, 0);
        self.planner.reset();
    }
}

/// One of several environments that are controlled in lockstep.
#[derive(Debug)]
pub struct LockstepSlot<'a> {
    /// Its controller, with a planner and a warm start of its own.
    pub mpc: &'a mut Mpc,
    /// Its situation.
    pub situation: Situation<'a>,
    /// Its random number generator.
    pub rng: &'a mut Rng,
}

/// The next action of each of several environments that share a problem: [`Mpc::act`] for each, on all threads at once where the
/// model is on a CPU. Each gets the same bits as if it were alone.
///
/// Threads that one plan leaves idle, between its chunks and while its sampler draws, work on another. A batch of plans
/// therefore takes the time of its model steps, spread evenly over the threads.
///
/// ```
/// use mbrl_plan::{
///     ActionSpace, BoxSpace, CemConfig, Device, LockstepSlot, Mpc, Problem, Propagation, Replan, Rng, Situation, Tensor,
///     act_in_lockstep, dynamics_fn, reward_fn,
/// };
///
/// let model = dynamics_fn(1, 1, &Device::flex(), |s, a| s + a * 0.1);
/// let reward = reward_fn(|_, _, next: Tensor<2>| -next.abs().squeeze_dim(1));
/// let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0)?);
/// let problem = Problem::new(&model, &actions).with_reward(&reward);
/// let planner = CemConfig { horizon: 5, ..CemConfig::default() };
///
/// let mut states = [[-0.5], [0.7]];
/// let mut rngs = [Rng::new(0), Rng::new(1)];
/// let mut mpcs = Vec::new();
/// for _ in &states {
///     mpcs.push(Mpc::new(Box::new(planner.init(&actions, Propagation::MEAN)?), Replan::EveryStep)?);
/// }
/// for _ in 0..20 {
///     let each = mpcs.iter_mut().zip(&states).zip(&mut rngs);
///     let slots = each.map(|((mpc, state), rng)| LockstepSlot { mpc, situation: Situation::of(state), rng });
///     let acted = act_in_lockstep(slots.collect(), &problem);
///     for (state, action) in states.iter_mut().zip(acted) {
///         state[0] += 0.1 * action?.action[0];
///     }
/// }
/// assert!(states.iter().all(|state| state[0].abs() < 0.02));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn act_in_lockstep(slots: Vec<LockstepSlot<'_>>, problem: &Problem<'_>) -> Vec<Result<MpcAction, PlanError>> {
    let act = |slot: LockstepSlot<'_>| slot.mpc.act(&slot.situation, problem, slot.rng);
    // Several threads would only take turns on a GPU.
    if is_cpu(&problem.dynamics.spec().device) {
        slots.into_par_iter().map(act).collect()
    } else {
        slots.into_iter().map(act).collect()
    }
}

impl fmt::Debug for Mpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpc")
            .field("replan", &self.replan)
            .field("executed", &self.executed)
            .field("actions", &self.actions)
            .finish_non_exhaustive()
    }
}
