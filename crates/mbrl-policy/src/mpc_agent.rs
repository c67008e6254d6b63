//! An agent that plans through a model at every step: model-predictive control.

use mbrl_env::{ActionSpace, Rng, Situation, Transition};
use mbrl_model::{Dynamics, ModelError, Tensor, belief_of};
use mbrl_plan::{LockstepSlot, Mpc, MpcAction, PlanError, PlanSummary, Problem, act_in_lockstep};

use crate::{
    ActMode, Acted, Agent, AgentError, CheckpointReader, CheckpointWriter, Goal, Learner, PlanningAgent, Report,
    ReportKind, Turn,
};

/// Plans through any model towards any goal; the [`Mpc`] determines how often it replans.
///
/// Where a plan fails because the model diverges ([`PlanError::is_breakdown`]), the rest of the last plan of the episode replaces
/// it, or, where that is used up, a random action, and [`take_plan_failure`](Agent::take_plan_failure) says why.
///
/// Through an episode it maintains the belief of a model with [memory](Dynamics#models-with-memory), separately in each slot.
///
/// It acts the same in both [`ActMode`]s: the planner's noise is its only exploration.
///
/// As a [`Learner`] it learns nothing: a [`Training`](crate::Training) then records, evaluates and resumes planning with a
/// given model, such as the simulator itself.
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

    /// With more controllers, so that it can act in that many more environments side by side.
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

    /// The model, mutable.
    pub fn dynamics_mut(&mut self) -> &mut D {
        &mut self.dynamics
    }

    /// The goal, mutable; the next plan follows it.
    pub fn goal_mut(&mut self) -> &mut Goal {
        &mut self.goal
    }

    /// The plan of the last `act`; `None` where it continued an older plan. After an `act_batch`, the first of its plans.
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
        let problem = self.goal.problem(&self.dynamics, &self.actions)?;
        self.controller.act(&problem, situation, rng)
    }

    fn ahead(&self) -> Vec<Vec<f32>> {
        self.controller.ahead()
    }

    fn skip(&mut self, steps: usize) {
        self.controller.skip(steps);
    }

    fn slots(&self) -> usize {
        self.controller.slots()
    }

    fn begin_episode_in(&mut self, slot: usize) {
        self.controller.begin_episode(slot);
    }

    fn act_batch(&mut self, turns: Vec<Turn<'_>>, _: ActMode) -> Result<Vec<Acted>, AgentError> {
        let problem = self.goal.problem(&self.dynamics, &self.actions)?;
        self.controller.act_batch(&problem, turns)
    }

    fn take_plan_failure(&mut self) -> Option<PlanError> {
        self.controller.take_failure()
    }

    fn needs_snapshot(&self) -> bool {
        self.dynamics.spec().needs_snapshot
    }
}

impl<D: Dynamics> PlanningAgent for MpcAgent<D> {
    fn goal(&self) -> &Goal {
        &self.goal
    }

    fn goal_mut(&mut self) -> &mut Goal {
        &mut self.goal
    }

    fn planned_in(&self) -> &dyn Dynamics {
        &self.dynamics
    }

    fn is_planning(&self) -> bool {
        true
    }

    fn replace_controllers(&mut self, mpcs: Vec<Mpc>) {
        self.controller.replace(mpcs);
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
    /// What a model with memory believes in the running episode of each environment, `[B]`.
    beliefs: Vec<Option<Vec<f32>>>,
    /// Those of the last `act` or `act_batch`.
    last_plans: Vec<PlanSummary>,
    failure: Option<PlanError>,
}

impl Controller {
    pub(crate) fn new(mpc: Mpc) -> Self {
        Self { mpcs: vec![mpc], beliefs: vec![None], last_plans: Vec::new(), failure: None }
    }

    pub(crate) fn add(&mut self, mpcs: Vec<Mpc>) {
        self.mpcs.extend(mpcs);
        self.beliefs.resize(self.mpcs.len(), None);
    }

    pub(crate) fn slots(&self) -> usize {
        self.mpcs.len()
    }

    /// What is left of the running plan of the first environment.
    pub(crate) fn ahead(&self) -> Vec<Vec<f32>> {
        let mpc = &self.mpcs[0];
        mpc.ahead().chunks_exact(mpc.width()).map(<[f32]>::to_vec).collect()
    }

    /// Steps passed in the first environment without a call.
    pub(crate) fn skip(&mut self, steps: usize) {
        self.mpcs[0].skip(steps);
        if steps > 0 {
            // It followed none of them.
            self.beliefs[0] = None;
        }
    }

    /// Replaces the planners from the next step on, by as many.
    pub(crate) fn replace(&mut self, mpcs: Vec<Mpc>) {
        self.mpcs = mpcs;
    }

    pub(crate) fn begin_episodes(&mut self) {
        self.mpcs.iter_mut().for_each(Mpc::reset);
        self.forget_beliefs();
        self.last_plans.clear();
        self.failure = None;
    }

    pub(crate) fn begin_episode(&mut self, slot: usize) {
        self.mpcs[slot].reset();
        self.beliefs[slot] = None;
    }

    /// The model has changed: its beliefs about running episodes are made anew, from the past that situations hold.
    pub(crate) fn forget_beliefs(&mut self) {
        self.beliefs.fill(None);
    }

    /// Lets a model with memory follow each episode to where it now stands.
    fn follow(&mut self, model: &dyn Dynamics, turns: &[(usize, Situation<'_>)]) -> Result<(), ModelError> {
        let spec = model.spec();
        if spec.belief == 0 {
            return Ok(());
        }
        let (mut fresh, mut running) = (Vec::new(), Vec::new());
        for (i, (slot, here)) in turns.iter().enumerate() {
            match (here.past.actions.last(), &self.beliefs[*slot]) {
                (None, _) => fresh.push(i),
                (Some(_), Some(_)) => running.push(i),
                // The episode began without this model.
                (Some(_), None) => {
                    let belief = belief_of(model, &Situation { belief: None, ..*here })?;
                    self.beliefs[*slot] = Some(rows_of(belief, 1, spec.belief)?);
                }
            }
        }
        let rows = |of: &[usize], width: usize, row: &dyn Fn(usize) -> Vec<f32>| {
            let values: Vec<f32> = of.iter().flat_map(|i| row(*i)).collect();
            check_width("rows for the filter", of.len() * width, values.len())?;
            Ok::<_, ModelError>(Tensor::<1>::from_floats(values.as_slice(), &spec.device).reshape([of.len(), width]))
        };
        let obs = |i: usize| turns[i].1.obs.to_vec();
        let mut followed = Vec::new();
        if !fresh.is_empty() {
            followed.push((model.begin(rows(&fresh, spec.obs, &obs)?)?, fresh));
        }
        if !running.is_empty() {
            let beliefs = rows(&running, spec.belief, &|i| self.beliefs[turns[i].0].clone().unwrap_or_default())?;
            let last = |i: usize| turns[i].1.past.actions.last().cloned().unwrap_or_default();
            let actions = rows(&running, spec.action, &last)?;
            followed.push((model.follow(beliefs, actions, rows(&running, spec.obs, &obs)?)?, running));
        }
        for (beliefs, of) in followed {
            let beliefs = rows_of(beliefs, of.len(), spec.belief)?;
            for (belief, i) in beliefs.chunks_exact(spec.belief).zip(of) {
                self.beliefs[turns[i].0] = Some(belief.to_vec());
            }
        }
        Ok(())
    }

    pub(crate) fn act(
        &mut self,
        problem: &Problem<'_>,
        situation: &Situation<'_>,
        rng: &mut Rng,
    ) -> Result<Vec<f32>, AgentError> {
        self.follow(problem.dynamics, &[(0, *situation)])?;
        let situation = Situation { belief: self.beliefs[0].as_deref().or(situation.belief), ..*situation };
        let mpc = &mut self.mpcs[0];
        let acted = mpc.act(&situation, problem, rng);
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
        let standing: Vec<_> = turns.iter().map(|turn| (turn.slot, turn.situation)).collect();
        self.follow(problem.dynamics, &standing)?;
        let beliefs = &self.beliefs;
        let mut mpcs: Vec<&mut Mpc> =
            self.mpcs.iter_mut().enumerate().filter(|(slot, _)| chosen.contains(slot)).map(|(_, mpc)| mpc).collect();
        let each = mpcs.iter_mut().zip(&mut turns);
        let slots = each.map(|(mpc, turn)| {
            let belief = beliefs[turn.slot].as_deref().or(turn.situation.belief);
            LockstepSlot { mpc, situation: Situation { belief, ..turn.situation }, rng: turn.rng }
        });
        let slots = slots.collect();
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

    /// Reports the results of the last plans.
    pub(crate) fn report(&self, report: &mut dyn Report) {
        for plan in &self.last_plans {
            report.scalar(ReportKind::Plan, "plan/ms", plan.stats.elapsed.as_secs_f64() * 1e3);
            report.scalar(ReportKind::Plan, "plan/iterations", plan.stats.iterations as f64);
            report.scalar(ReportKind::Plan, "plan/model_steps", plan.stats.model_steps as f64);
            report.scalar(ReportKind::Plan, "plan/best_return", f64::from(plan.best_return));
        }
    }
}

/// So many beliefs of a width on the host.
fn rows_of(beliefs: Tensor<2>, rows: usize, width: usize) -> Result<Vec<f32>, ModelError> {
    let [found, columns] = beliefs.dims();
    check_width("rows of the beliefs", rows, found)?;
    check_width("columns of the beliefs", width, columns)?;
    Ok(beliefs.into_data().iter().collect())
}

fn check_width(what: &'static str, expected: usize, actual: usize) -> Result<(), ModelError> {
    if expected == actual { Ok(()) } else { Err(ModelError::Width { what, expected, actual }) }
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
