//! Plans, executed action by action.

use std::fmt;

use mbrl_env::{Rng, Situation};
use serde::{Deserialize, Serialize};

use crate::{PlanError, PlanStats, Planner, Problem, error::require, host::to_host};

/// When a new plan is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Replan {
    /// At every step: model-predictive control (default). Corrects for the model's errors at every step, and costs a plan
    /// at every step.
    #[default]
    EveryStep,
    /// After this many steps, or when the plan is used up if that is sooner.
    Every(usize),
    /// Once an episode, then the plan is followed blindly. When it is used up and the episode goes on, a new one is made.
    OpenLoop,
}

/// An action, and the plan that was made for it.
#[derive(Debug, Clone, PartialEq)]
pub struct MpcAction {
    /// The action to execute, `[A]`, in environment units.
    pub action: Vec<f32>,
    /// What planning gave, where a plan was made for this step.
    pub plan: Option<PlanSummary>,
}

/// What a plan cost and promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanSummary {
    /// What it cost.
    pub stats: PlanStats,
    /// What the model expects of the best candidate seen.
    pub predicted_return: f32,
}

/// Hands out the actions of a planner's plans, one a step, and plans anew when [`Replan`] says so.
///
/// The problem is passed at each step: a goal, a model or bounds that changed count from the next plan on.
///
/// ```
/// use mbrl_env::{ActionSpace, BoxSpace, Rng, Situation, reward_fn};
/// use mbrl_model::{Propagation, dynamics_fn};
/// use mbrl_plan::{CemConfig, Device, Mpc, Problem, Replan, Tensor};
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
}

impl Mpc {
    /// Control with a planner.
    ///
    /// # Errors
    /// [`PlanError::Config`] for [`Replan::Every`] with 0 steps.
    pub fn new(planner: Box<dyn Planner>, replan: Replan) -> Result<Self, PlanError> {
        require(replan != Replan::Every(0), "replan", "every 0 steps", "at least 1 step")?;
        Ok(Self { planner, replan, actions: Vec::new(), width: 1, executed: 0 })
    }

    /// The next action.
    ///
    /// # Errors
    /// An error of the planner. The running plan is then forgotten, and the next call plans anew.
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
            self.actions.clear();
            let executed = std::mem::take(&mut self.executed);
            if executed > 0 {
                self.planner.advance(executed);
            }
            let plan = self.planner.plan(situation, problem, rng)?;
            let [horizon, width] = plan.actions.dims();
            require(horizon > 0 && width > 0, "plan", format!("[{horizon}, {width}]"), "at least one action")?;
            self.width = width;
            self.actions = to_host(plan.actions);
            summary = Some(PlanSummary { stats: plan.stats, predicted_return: plan.predicted_return });
        }
        let action = self.actions[self.executed * self.width..][..self.width].to_vec();
        self.executed += 1;
        Ok(MpcAction { action, plan: summary })
    }

    /// A new episode begins: forgets the running plan, and the planner its warm start.
    pub fn reset(&mut self) {
        self.actions.clear();
        self.executed = 0;
        self.planner.reset();
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
