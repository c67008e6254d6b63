//! An agent that plans through a model at every step: model-predictive control.

use mbrl_env::{ActionSpace, Rng, Situation, Transition};
use mbrl_model::Dynamics;
use mbrl_plan::{LockstepSlot, Mpc, MpcAction, PlanError, PlanSummary, Problem, act_in_lockstep};

use crate::{
    ActMode, Acted, Agent, AgentError, CheckpointReader, CheckpointWriter, Goal, Learner, Report, ReportKind, Turn,
};

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
    controller: Controller,
}

impl<D: Dynamics> MpcAgent<D> {
    /// An agent that acts in `actions`.
    #[must_use]
    pub fn new(dynamics: D, goal: Goal, actions: ActionSpace, mpc: Mpc) -> Self {
        Self { dynamics, goal, actions, controller: Controller::new(mpc) }
    }

    /// With more controllers, so that it can act in as many more environments side by side.
    #[must_use]
    pub fn with_more(mut self, mpcs: Vec<Mpc>) -> Self {
        self.controller.add(mpcs);
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

    /// What the last `act` planned; `None` where it went on with an older plan. After an `act_batch`, the first of its plans.
    #[must_use]
    pub fn last_plan(&self) -> Option<&PlanSummary> {
        self.controller.last_plans.first()
    }
}

impl<D: Dynamics> Agent for MpcAgent<D> {
    fn name(&self) -> &str {
        "mpc"
    }

    fn begin_episode(&mut self) {
        self.controller.begin_episodes();
    }

    fn act(&mut self, situation: &Situation<'_>, _: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        let problem = self.goal.problem(&self.dynamics, &self.actions);
        self.controller.act(&problem, situation, rng)
    }

    fn slots(&self) -> usize {
        self.controller.slots()
    }

    fn begin_episode_in(&mut self, slot: usize) {
        self.controller.begin_episode(slot);
    }

    fn act_batch(&mut self, turns: Vec<Turn<'_>>, _: ActMode) -> Result<Vec<Acted>, AgentError> {
        let problem = self.goal.problem(&self.dynamics, &self.actions);
        self.controller.act_batch(&problem, turns)
    }

    fn take_plan_failure(&mut self) -> Option<PlanError> {
        self.controller.take_failure()
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
        self.controller.report(report);
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

/// Acts by plans, in one environment or in several, and finds another action where a plan breaks down.
#[derive(Debug)]
pub(crate) struct Controller {
    /// One per environment.
    mpcs: Vec<Mpc>,
    /// Those of the last `act` or `act_batch`.
    last_plans: Vec<PlanSummary>,
    failure: Option<PlanError>,
}

impl Controller {
    pub(crate) fn new(mpc: Mpc) -> Self {
        Self { mpcs: vec![mpc], last_plans: Vec::new(), failure: None }
    }

    pub(crate) fn add(&mut self, mpcs: Vec<Mpc>) {
        self.mpcs.extend(mpcs);
    }

    pub(crate) fn slots(&self) -> usize {
        self.mpcs.len()
    }

    pub(crate) fn begin_episodes(&mut self) {
        self.mpcs.iter_mut().for_each(Mpc::reset);
        self.last_plans.clear();
        self.failure = None;
    }

    pub(crate) fn begin_episode(&mut self, slot: usize) {
        self.mpcs[slot].reset();
    }

    pub(crate) fn act(
        &mut self,
        problem: &Problem<'_>,
        situation: &Situation<'_>,
        rng: &mut Rng,
    ) -> Result<Vec<f32>, AgentError> {
        let mpc = &mut self.mpcs[0];
        let acted = mpc.act(situation, problem, rng);
        let (acted, plan) = stand_in(acted, mpc, problem.actions, rng)?;
        self.last_plans.clear();
        self.last_plans.extend(plan);
        self.failure = acted.failure;
        Ok(acted.action)
    }

    pub(crate) fn act_batch(
        &mut self,
        problem: &Problem<'_>,
        mut turns: Vec<Turn<'_>>,
    ) -> Result<Vec<Acted>, AgentError> {
        let chosen: Vec<usize> = turns.iter().map(|turn| turn.slot).collect();
        let mut mpcs: Vec<&mut Mpc> =
            self.mpcs.iter_mut().enumerate().filter(|(slot, _)| chosen.contains(slot)).map(|(_, mpc)| mpc).collect();
        let each = mpcs.iter_mut().zip(&mut turns);
        let slots = each.map(|(mpc, turn)| LockstepSlot { mpc, situation: turn.situation, rng: turn.rng }).collect();
        let acted = act_in_lockstep(slots, problem);
        self.last_plans.clear();
        let mut all = Vec::with_capacity(acted.len());
        for ((acted, mpc), turn) in acted.into_iter().zip(mpcs).zip(turns) {
            let (acted, plan) = stand_in(acted, mpc, problem.actions, turn.rng)?;
            self.last_plans.extend(plan);
            all.push(acted);
        }
        Ok(all)
    }

    pub(crate) fn take_failure(&mut self) -> Option<PlanError> {
        self.failure.take()
    }

    /// Tells what the last plans came to.
    pub(crate) fn report(&self, report: &mut dyn Report) {
        for plan in &self.last_plans {
            report.scalar(ReportKind::Plan, "plan/ms", plan.stats.elapsed.as_secs_f64() * 1e3);
            report.scalar(ReportKind::Plan, "plan/iterations", plan.stats.iterations as f64);
            report.scalar(ReportKind::Plan, "plan/model_steps", plan.stats.model_steps as f64);
            report.scalar(ReportKind::Plan, "plan/best_return", f64::from(plan.best_return));
        }
    }
}

/// The action that was planned or, where the plan broke down, another one and why.
fn stand_in(
    acted: Result<MpcAction, PlanError>,
    mpc: &mut Mpc,
    actions: &ActionSpace,
    rng: &mut Rng,
) -> Result<(Acted, Option<PlanSummary>), AgentError> {
    match acted {
        Ok(acted) => Ok((Acted { action: acted.action, failure: None }, acted.plan)),
        Err(error) if error.is_breakdown() => {
            let action = match mpc.fall_back() {
                Some(action) => action,
                // Where nothing can be drawn either, the plan is what failed.
                None => match actions.sample(rng) {
                    Ok(action) => action,
                    Err(_) => return Err(error.into()),
                },
            };
            Ok((Acted { action, failure: Some(error) }, None))
        }
        Err(error) => Err(error.into()),
    }
}
