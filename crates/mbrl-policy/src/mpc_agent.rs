//! An agent that plans through a model at every step: model-predictive control.

use mbrl_env::{ActionSpace, Rng, Situation};
use mbrl_model::Dynamics;
use mbrl_plan::{Mpc, MpcAction, PlanSummary};

use crate::{ActMode, Agent, AgentError, Goal};

/// Plans through any model towards any goal; how often it replans is the [`Mpc`]'s.
///
/// It acts the same in both [`ActMode`]s: what it tries out is the planner's noise.
#[derive(Debug)]
pub struct MpcAgent<D> {
    dynamics: D,
    goal: Goal,
    actions: ActionSpace,
    mpc: Mpc,
    last_plan: Option<PlanSummary>,
    snapshots: bool,
}

impl<D: Dynamics> MpcAgent<D> {
    /// An agent that acts in `actions`.
    #[must_use]
    pub fn new(dynamics: D, goal: Goal, actions: ActionSpace, mpc: Mpc) -> Self {
        Self { dynamics, goal, actions, mpc, last_plan: None, snapshots: false }
    }

    /// Asks the loops for the simulator's snapshot at every step: for models that are the simulator.
    #[must_use]
    pub fn with_snapshots(mut self) -> Self {
        self.snapshots = true;
        self
    }

    /// The model.
    #[must_use]
    pub fn dynamics(&self) -> &D {
        &self.dynamics
    }

    /// The model, to be changed.
    pub fn dynamics_mut(&mut self) -> &mut D {
        &mut self.dynamics
    }

    /// The goal, to be changed; the next plan goes by it.
    pub fn goal_mut(&mut self) -> &mut Goal {
        &mut self.goal
    }

    /// What the last `act` planned; `None` where it went on with an older plan.
    #[must_use]
    pub fn last_plan(&self) -> Option<&PlanSummary> {
        self.last_plan.as_ref()
    }
}

impl<D: Dynamics> Agent for MpcAgent<D> {
    fn name(&self) -> &str {
        "mpc"
    }

    fn begin_episode(&mut self) {
        self.mpc.reset();
        self.last_plan = None;
    }

    fn act(&mut self, situation: &Situation<'_>, _: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        let problem = self.goal.problem(&self.dynamics, &self.actions);
        let MpcAction { action, plan } = self.mpc.act(situation, &problem, rng)?;
        self.last_plan = plan;
        Ok(action)
    }

    fn needs_snapshot(&self) -> bool {
        self.snapshots
    }
}
