//! An agent that plans through a model at every step: model-predictive control.

use mbrl_env::{ActionSpace, Rng, Situation, Transition};
use mbrl_model::Dynamics;
use mbrl_plan::{Mpc, PlanError, PlanSummary};

use crate::{ActMode, Agent, AgentError, CheckpointReader, CheckpointWriter, Goal, Learner, Report, ReportKind};

/// Plans through any model towards any goal; how often it replans is the [`Mpc`]'s.
///
/// Where a plan fails because the model diverges ([`PlanError::is_breakdown`]), the rest of the last plan of the episode stands in
/// for it, or, where that is used up, a random action, and [`take_plan_failure`](Agent::take_plan_failure) says why.
///
/// It acts the same in both [`ActMode`]s: what it tries out is the planner's noise.
///
/// As a [`Learner`] it learns nothing: a [`Training`](crate::Training) then records, evaluates and resumes what planning with a
/// given model comes to, that with the simulator itself for one.
///
/// ```
/// use mbrl_env::{Env, tasks};
/// use mbrl_model::{Propagation, SimulatorModel};
/// use mbrl_plan::{IcemConfig, Mpc, Replan};
/// use mbrl_policy::{Device, Goal, MpcAgent, TrainConfig};
/// # use std::sync::atomic::AtomicBool;
///
/// let mut task = tasks::make("pendulum")?;
/// let actions = task.env.spec().actions.clone();
/// let model = SimulatorModel::new(task.env.require_simulator()?.boxed_clone(), &Device::flex());
/// let planner = IcemConfig { horizon: 5, ..IcemConfig::default() }.init(&actions, Propagation::MEAN)?;
/// let mpc = Mpc::new(Box::new(planner), Replan::EveryStep)?;
/// let mut agent = MpcAgent::new(model, Goal::of_model(), actions, mpc);
///
/// let mut training = TrainConfig::default().init(20, 0)?;
/// training.run(&mut task.env, &mut agent, None, &mut (), &AtomicBool::new(false))?;
/// assert!(agent.last_plan().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MpcAgent<D> {
    dynamics: D,
    goal: Goal,
    actions: ActionSpace,
    mpc: Mpc,
    last_plan: Option<PlanSummary>,
    failure: Option<PlanError>,
}

impl<D: Dynamics> MpcAgent<D> {
    /// An agent that acts in `actions`.
    #[must_use]
    pub fn new(dynamics: D, goal: Goal, actions: ActionSpace, mpc: Mpc) -> Self {
        Self { dynamics, goal, actions, mpc, last_plan: None, failure: None }
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

    /// Tells what the last `act` planned, where it did.
    pub(crate) fn report_plan(&self, report: &mut dyn Report) {
        let Some(plan) = self.last_plan else { return };
        report.scalar(ReportKind::Plan, "plan/ms", plan.stats.elapsed.as_secs_f64() * 1e3);
        report.scalar(ReportKind::Plan, "plan/iterations", plan.stats.iterations as f64);
        report.scalar(ReportKind::Plan, "plan/model_steps", plan.stats.model_steps as f64);
        report.scalar(ReportKind::Plan, "plan/best_return", f64::from(plan.best_return));
    }
}

impl<D: Dynamics> Agent for MpcAgent<D> {
    fn name(&self) -> &str {
        "mpc"
    }

    fn begin_episode(&mut self) {
        self.mpc.reset();
        (self.last_plan, self.failure) = (None, None);
    }

    fn act(&mut self, situation: &Situation<'_>, _: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        let problem = self.goal.problem(&self.dynamics, &self.actions);
        match self.mpc.act(situation, &problem, rng) {
            Ok(acted) => {
                (self.last_plan, self.failure) = (acted.plan, None);
                Ok(acted.action)
            }
            Err(error) if error.is_breakdown() => {
                let action = match self.mpc.fall_back() {
                    Some(action) => action,
                    // Where nothing can be drawn either, the plan is what failed.
                    None => match self.actions.sample(rng) {
                        Ok(action) => action,
                        Err(_) => return Err(error.into()),
                    },
                };
                (self.last_plan, self.failure) = (None, Some(error));
                Ok(action)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take_plan_failure(&mut self) -> Option<PlanError> {
        self.failure.take()
    }

    fn needs_snapshot(&self) -> bool {
        self.dynamics.spec().needs_snapshot
    }
}

impl<D: Dynamics> Learner for MpcAgent<D> {
    fn observe(&mut self, _: &Transition) -> Result<(), AgentError> {
        Ok(())
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        Ok(())
    }

    fn update(&mut self, _: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.report_plan(report);
        Ok(())
    }

    /// Nothing to write: checkpoints are of episode ends, and the next episode begins without a plan and a warm start.
    fn save(&self, _: &mut CheckpointWriter) -> Result<(), AgentError> {
        Ok(())
    }

    fn load(&mut self, _: &CheckpointReader) -> Result<(), AgentError> {
        self.begin_episode();
        Ok(())
    }
}
