//! Planning beside the control loop, which does not wait for plans.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use mbrl_env::{History, MAX_PAST, Rng, Simulator, Situation, Snapshot};
use mbrl_model::{Draw, Dynamics, Propagation, Start, Tensor};

use super::{DriveError, error::refuse};
use crate::{ActMode, Agent, AgentError, Learner};

/// What is known when a plan is requested, and what the plan is for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PlanRequest {
    /// The control period that the plan's first action is for.
    pub tick: u64,
    /// The newest measurement, `[O]`.
    pub obs: Vec<f32>,
    /// Measurements and commands before it.
    pub past: History,
    /// The complete state, where the robot is a simulator in the same process.
    pub snapshot: Option<Snapshot>,
    /// Commands that were sent and have not acted yet when `obs` was measured, oldest first, `[D][A]`: they will have acted when the plan
    /// begins.
    pub pending: Vec<Vec<f32>>,
    /// An episode begins: forget what belongs to the last one.
    pub begins: bool,
}

/// What was planned.
#[derive(Debug)]
#[non_exhaustive]
pub struct PlanReply {
    /// The control period that the first action is for.
    pub tick: u64,
    /// Actions from then on, `[H][A]`; or why there are none.
    pub actions: Result<Vec<Vec<f32>>, AgentError>,
    /// Wall time that it took.
    pub elapsed: Duration,
}

/// Chooses actions from some control period on. It runs on a thread of its own.
pub trait Pilot: Send {
    /// Actions from `request.tick` on, `[H][A]`, at least one. Further ones are used when a later plan does not come in time.
    ///
    /// # Errors
    /// Whatever keeps it from choosing; the driver falls back and asks again.
    fn plan(&mut self, request: &PlanRequest) -> Result<Vec<Vec<f32>>, AgentError>;
}

impl<F: FnMut(&PlanRequest) -> Result<Vec<Vec<f32>>, AgentError> + Send> Pilot for F {
    fn plan(&mut self, request: &PlanRequest) -> Result<Vec<Vec<f32>>, AgentError> {
        self(request)
    }
}

/// How a pilot predicts the state in which its action will act.
#[derive(Default)]
#[non_exhaustive]
pub enum Foresight {
    /// It does not: it plans from the measurement, as if commands acted at once.
    #[default]
    Off,
    /// By the mean predictions of a model under the commands that are still under way.
    Model(Box<dyn Dynamics>),
    /// By a simulator, which starts at the snapshot that the measurement carries.
    Simulator(Box<dyn Simulator>),
    /// By the model that the learner has learned.
    Learned,
}

impl fmt::Debug for Foresight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::Model(_) => "Model(..)",
            Self::Simulator(_) => "Simulator(..)",
            Self::Learned => "Learned",
        })
    }
}

enum Who {
    Agent(Box<dyn Agent>),
    Learner(Box<dyn Learner>),
}

impl Who {
    fn agent(&mut self) -> &mut dyn Agent {
        match self {
            Self::Agent(agent) => &mut **agent,
            Self::Learner(learner) => &mut **learner,
        }
    }
}

/// A pilot that asks an agent: each plan is the agent's action in the state in which it will act, and what the agent
/// [intends to do](Agent::ahead) after that.
pub struct AgentPilot {
    who: Who,
    foresight: Foresight,
    rng: Rng,
    mode: ActMode,
    /// The control period of the first step of this episode that the agent does not know of.
    next: Option<u64>,
}

impl fmt::Debug for AgentPilot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.who {
            Who::Agent(agent) => agent.name(),
            Who::Learner(learner) => learner.name(),
        };
        f.debug_struct("AgentPilot").field("agent", &name).field("foresight", &self.foresight).finish_non_exhaustive()
    }
}

impl AgentPilot {
    /// A pilot for any agent.
    ///
    /// # Errors
    /// [`DriveError::Config`] for [`Foresight::Learned`], which needs a learner, and for a model that does not predict observations.
    pub fn new(agent: Box<dyn Agent>, foresight: Foresight, rng: Rng) -> Result<Self, DriveError> {
        match &foresight {
            Foresight::Learned => {
                return refuse("foresight", "Learned", "a pilot of a learner (AgentPilot::of_learner)");
            }
            Foresight::Model(model) => check_model(&**model)?,
            Foresight::Off | Foresight::Simulator(_) => {}
        }
        Ok(Self { who: Who::Agent(agent), foresight, rng, mode: ActMode::Evaluate, next: None })
    }

    /// A pilot for what a learner has learned; it learns nothing more.
    ///
    /// # Errors
    /// [`DriveError::Config`] for [`Foresight::Learned`] of a learner without a fitted model, and for a model that does not predict
    /// observations.
    pub fn of_learner(learner: Box<dyn Learner>, foresight: Foresight, rng: Rng) -> Result<Self, DriveError> {
        match &foresight {
            Foresight::Learned => match learner.learned().filter(|learned| learned.is_fitted) {
                Some(learned) => check_model(learned.model)?,
                None => return refuse("foresight", "Learned", "a learner with a fitted model"),
            },
            Foresight::Model(model) => check_model(&**model)?,
            Foresight::Off | Foresight::Simulator(_) => {}
        }
        Ok(Self { who: Who::Learner(learner), foresight, rng, mode: ActMode::Evaluate, next: None })
    }
}

fn check_model(model: &dyn Dynamics) -> Result<(), DriveError> {
    let spec = model.spec();
    if spec.view != spec.obs || spec.needs_snapshot {
        return refuse("foresight", &spec.name, "a model that starts at an observation and tells observations");
    }
    Ok(())
}

impl Pilot for AgentPilot {
    fn plan(&mut self, request: &PlanRequest) -> Result<Vec<Vec<f32>>, AgentError> {
        if request.begins {
            self.who.agent().begin_episode();
            self.next = None;
        }
        let ahead = match (&mut self.foresight, &self.who) {
            (Foresight::Off, _) => None,
            (Foresight::Model(model), _) => Some(foresee(&**model, request)?),
            (Foresight::Learned, Who::Learner(learner)) => match learner.learned() {
                Some(learned) => Some(foresee(learned.model, request)?),
                None => None,
            },
            (Foresight::Learned, Who::Agent(_)) => None,
            (Foresight::Simulator(simulator), _) => Some(simulate(&mut **simulator, request)?),
        };
        let (obs, past, snapshot) = match &ahead {
            Some(ahead) => (&ahead.obs, &ahead.past, ahead.snapshot.as_ref()),
            None => (&request.obs, &request.past, request.snapshot.as_ref()),
        };
        let situation = Situation { obs, past, snapshot, belief: None };
        let agent = self.who.agent();
        let gone = self.next.map_or(0, |next| request.tick.saturating_sub(next));
        if gone > 0 {
            agent.skip(gone as usize);
        }
        // A plan that fails leaves its step to what stands in for it.
        self.next = Some(request.tick);
        let mut actions = vec![agent.act(&situation, self.mode, &mut self.rng)?];
        self.next = Some(request.tick.saturating_add(1));
        actions.extend(agent.ahead());
        Ok(actions)
    }
}

/// Where the robot will be.
struct Ahead {
    obs: Vec<f32>,
    past: History,
    snapshot: Option<Snapshot>,
}

/// Follows the commands that are under way through a model.
fn foresee(model: &dyn Dynamics, request: &PlanRequest) -> Result<Ahead, AgentError> {
    let (steps, spec) = (request.pending.len(), model.spec());
    let mut ahead = Ahead { obs: request.obs.clone(), past: request.past.clone(), snapshot: None };
    if steps == 0 {
        return Ok(ahead);
    }
    let flat = request.pending.concat();
    let actions = Tensor::<1>::from_floats(flat.as_slice(), &spec.device).reshape([steps, 1, flat.len() / steps]);
    let here = Situation { obs: &request.obs, past: &request.past, snapshot: None, belief: None };
    let seen = model.rollout(Start::Situation(here), actions, Draw::new(Propagation::MEAN, 0))?;
    let seen: Vec<f32> = seen.obs.into_data().iter().collect();
    for (next, action) in seen.chunks_exact(spec.view).skip(1).zip(&request.pending) {
        let before = std::mem::replace(&mut ahead.obs, next.to_vec());
        ahead.past.push(before, action.clone(), MAX_PAST);
    }
    Ok(ahead)
}

/// Follows them through a simulator.
fn simulate(simulator: &mut dyn Simulator, request: &PlanRequest) -> Result<Ahead, AgentError> {
    let Some(snapshot) = &request.snapshot else {
        let rule = "a link whose measurements carry snapshots: a simulator in the same process";
        return Err(AgentError::Config { field: "foresight", value: "Simulator".into(), rule });
    };
    simulator.restore(snapshot)?;
    let mut ahead = Ahead { obs: request.obs.clone(), past: request.past.clone(), snapshot: None };
    let mut reached = snapshot.clone();
    for action in &request.pending {
        let step = simulator.step(action)?;
        // Nothing can be planned beyond an end: the plan is for the last state before it.
        if step.episode_over() {
            break;
        }
        let before = std::mem::replace(&mut ahead.obs, step.obs);
        ahead.past.push(before, action.clone(), MAX_PAST);
        reached = simulator.save();
    }
    ahead.snapshot = Some(reached);
    Ok(ahead)
}

/// Where plans come from.
pub trait PlanSource: Send + fmt::Debug {
    /// Asks for a plan. Where one is still being made, the newest request is the next one, and those between are dropped.
    fn ask(&mut self, request: PlanRequest, now: Duration);

    /// The next plan that is ready, oldest first.
    ///
    /// # Errors
    /// [`PlannerGone`] where no more plans will come, because the planner panicked.
    fn poll(&mut self, now: Duration) -> Result<Option<PlanReply>, PlannerGone>;
}

/// The planner panicked, and no more plans will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannerGone;

/// A [`Pilot`] on a thread of its own, so that the control loop never waits for it.
#[derive(Debug)]
pub struct PlanThread {
    slot: Arc<Slot>,
    replies: mpsc::Receiver<PlanReply>,
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<SlotState>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    request: Option<PlanRequest>,
    closed: bool,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PlanThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`DriveError::Config`] where the operating system provides none.
    pub fn start(mut pilot: impl Pilot + 'static) -> Result<Self, DriveError> {
        let (sender, replies) = mpsc::channel();
        let slot = Arc::new(Slot::default());
        let inside = Arc::clone(&slot);
        let work = move || {
            loop {
                let mut state = inside.state();
                let request = loop {
                    if state.closed {
                        return;
                    }
                    match state.request.take() {
                        Some(request) => break request,
                        None => state = inside.asked.wait(state).unwrap_or_else(PoisonError::into_inner),
                    }
                };
                drop(state);
                let began = Instant::now();
                // A panic is a planner that is gone: the sender goes with it.
                let Ok(actions) = catch_unwind(AssertUnwindSafe(|| pilot.plan(&request))) else { return };
                if sender.send(PlanReply { tick: request.tick, actions, elapsed: began.elapsed() }).is_err() {
                    return;
                }
            }
        };
        match thread::Builder::new().name("planner".into()).spawn(work) {
            Ok(_) => Ok(Self { slot, replies }),
            Err(error) => refuse("planner", error, "a thread of its own"),
        }
    }
}

impl PlanSource for PlanThread {
    fn ask(&mut self, request: PlanRequest, _: Duration) {
        let mut state = self.slot.state();
        // A beginning is not forgotten with the request that was dropped.
        let begins = request.begins || state.request.as_ref().is_some_and(|waiting| waiting.begins);
        state.request = Some(PlanRequest { begins, ..request });
        self.slot.asked.notify_one();
    }

    fn poll(&mut self, _: Duration) -> Result<Option<PlanReply>, PlannerGone> {
        match self.replies.try_recv() {
            Ok(reply) => Ok(Some(reply)),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(PlannerGone),
        }
    }
}

impl Drop for PlanThread {
    fn drop(&mut self) {
        // A planner that stalls is left to itself.
        self.slot.state().closed = true;
        self.slot.asked.notify_one();
    }
}

/// A [`Pilot`] that plans at once, and whose plans are ready after a time given by a function of the control period: with a simulated
/// clock, a planner that is slow, or stalls, deterministically.
pub struct SimulatedPlanning<P> {
    pilot: P,
    takes: Box<dyn FnMut(u64) -> Duration + Send>,
    /// What is being planned, and when it is ready.
    busy: Option<(Duration, PlanReply)>,
    waiting: Option<PlanRequest>,
}

impl<P> fmt::Debug for SimulatedPlanning<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedPlanning").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl<P: Pilot> SimulatedPlanning<P> {
    /// A plan for the control period k is ready `takes(k)` after it was requested.
    #[must_use]
    pub fn new(pilot: P, takes: impl FnMut(u64) -> Duration + Send + 'static) -> Self {
        Self { pilot, takes: Box::new(takes), busy: None, waiting: None }
    }

    fn begin(&mut self, request: &PlanRequest, now: Duration) {
        let elapsed = (self.takes)(request.tick);
        let actions = self.pilot.plan(request);
        self.busy = Some((now + elapsed, PlanReply { tick: request.tick, actions, elapsed }));
    }
}

impl<P: Pilot> PlanSource for SimulatedPlanning<P> {
    fn ask(&mut self, request: PlanRequest, now: Duration) {
        if self.busy.is_some() {
            let begins = request.begins || self.waiting.as_ref().is_some_and(|waiting| waiting.begins);
            self.waiting = Some(PlanRequest { begins, ..request });
        } else {
            self.begin(&request, now);
        }
    }

    fn poll(&mut self, now: Duration) -> Result<Option<PlanReply>, PlannerGone> {
        if self.busy.as_ref().is_none_or(|(ready, _)| *ready > now) {
            return Ok(None);
        }
        let Some((ready, reply)) = self.busy.take() else { return Ok(None) };
        if let Some(request) = self.waiting.take() {
            self.begin(&request, ready);
        }
        Ok(Some(reply))
    }
}
