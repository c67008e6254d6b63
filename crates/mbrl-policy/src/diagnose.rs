//! Why an agent falls short of what its task allows.
//!
//! Four questions, each answered with numbers at states that the agent itself visits:
//!
//! - **The model**: how large are its errors there, compared with its own data ([`Diagnosis::own`], [`Diagnosis::data`])? Are its observations
//!   clipped ([`Diagnosis::at_ends`]), so that no model could know more?
//! - **The plans**: what does the model promise for a plan, and what does the simulator pay ([`PlanDiagnosis`])? What would the same planner have
//!   found with the simulator as its model? And is more promised for plans, which were searched for, than for actions that were not?
//! - **The policy**: what does it earn in the model, and what in the world, from the same states ([`PolicyDiagnosis`])?
//! - **The values**: what return do the critics expect from a state, and what return followed ([`ValueDiagnosis`])?
//!
//! If plans keep their promise and earn what plans in the simulator earn, the model is not at fault: what is missing is the planner's
//! horizon or search. A plan that promises much more than it keeps, where other actions do not, exploits the model's errors. Values that are
//! too high either match what the policy earns in the model, and then the model is too optimistic, or exceed it, and then the critics are.

use mbrl_env::{
    ActionSpace, History, MAX_PAST, Replay, Rng, Simulator, Situation, Snapshot, Transition, World, data::share_at_ends,
};
use mbrl_model::{
    Dynamics, DynamicsSpec, EvaluateConfig, ModelEvaluation, Propagation, SimulatorModel, evaluate as evaluate_model,
};
use mbrl_plan::{Aggregate, PlanError, Planner, Problem, returns};
use serde::Serialize;

use crate::{
    ActMode, Agent, AgentError, Device, Goal, Learned, LearnedValue, Learner, Tensor, TerminalValue,
    model_based::as_judged, start_seeds, world::Episode,
};

/// How much is looked at.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DiagnoseConfig {
    /// Episodes of the agent whose states are looked at (default: 5).
    pub episodes: usize,
    /// States from which plans are made, spread evenly over these episodes (default: 24).
    pub plans: usize,
    /// Steps over which a policy is followed in the model, at most half of the longest episode (default: 200, the time that a discount of 0.995
    /// looks ahead).
    pub ahead: usize,
    /// Steps before each of these states from which planners plan too, so that their search has a warm start (default: 4).
    pub warm: usize,
    /// How the model is judged (default: as by [`EvaluateConfig`], with at most 100 starts).
    pub evaluate: EvaluateConfig,
    /// Seed of the start states, which are those of an evaluation, and of all that is drawn (default: 0).
    pub seed: u64,
}

impl Default for DiagnoseConfig {
    fn default() -> Self {
        let evaluate = EvaluateConfig { starts: 100, ..EvaluateConfig::default() };
        Self { episodes: 5, plans: 24, ahead: 200, warm: 4, evaluate, seed: 0 }
    }
}

/// What plans are judged with: how the agent plans, and how it would plan with the simulator.
pub struct Planning {
    /// What plans are to achieve.
    pub goal: Goal,
    /// The agent's planner, for the model; fresh.
    pub planner: Box<dyn Planner>,
    /// How the agent's plans carry uncertainty through the model.
    pub propagation: Propagation,
    /// The same planner for the simulator; `None` where it needs gradients.
    pub with_simulator: Option<Box<dyn Planner>>,
}

impl std::fmt::Debug for Planning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planning")
            .field("goal", &self.goal)
            .field("propagation", &self.propagation)
            .finish_non_exhaustive()
    }
}

/// What was found. Made by [`Visited::diagnose`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Returns of the agent's episodes.
    pub returns: Vec<f64>,
    /// The model at the states of these episodes.
    pub own: Option<ModelEvaluation>,
    /// The model at the states that it was fitted to.
    pub data: Option<ModelEvaluation>,
    /// Share of these states in which each column is exactly at its lowest or highest value, `[O]`
    /// ([`share_at_ends`](mbrl_env::data::share_at_ends)): from clipped observations the model cannot know what comes next.
    pub at_ends: Option<Vec<f64>>,
    /// Plans, where the agent plans and its world is a simulator.
    pub plans: Option<PlanDiagnosis>,
    /// The policy in the model, where the agent has both: what [`Visited::policy_in_model`] says.
    pub policy: Option<PolicyDiagnosis>,
    /// Values, where the agent has critics.
    pub values: Option<ValueDiagnosis>,
}

/// Return of sequences of actions, averaged over the states they start from: as promised by the model, and as paid by the simulator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Promise {
    /// By the model.
    pub promised: f64,
    /// In the simulator.
    pub kept: f64,
}

impl Promise {
    /// The part of the promise that is not kept.
    #[must_use]
    pub fn excess(&self) -> f64 {
        self.promised - self.kept
    }

    fn add(&mut self, other: Self) {
        self.promised += other.promised;
        self.kept += other.kept;
    }

    fn over(self, n: f64) -> Self {
        Self { promised: self.promised / n, kept: self.kept / n }
    }
}

/// Plans of one planner in two worlds, the model and the simulator, from the same states.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlanDiagnosis {
    /// States that were planned from.
    pub states: usize,
    /// Steps of a plan, `H`.
    pub horizon: usize,
    /// Plans of the agent's planner in the model: the last of [`along`](Self::along).
    pub plans: Promise,
    /// Random sequences of actions, which nobody searched for.
    pub random: Promise,
    /// The return of plans for which the same planner searched the simulator itself; `None` where the planner needs gradients.
    pub with_simulator: Option<f64>,
    /// The first h = 1, …, H steps of the plans.
    pub along: Vec<Promise>,
    /// Distance of the model's state from the simulator's after h steps of a plan: the root mean square over columns, each in units of its
    /// standard deviation at the agent's own states, averaged over the plans.
    pub distance: Vec<f64>,
}

impl PlanDiagnosis {
    /// How much less the plans earn than those of the same planner in the simulator.
    #[must_use]
    pub fn regret(&self) -> Option<f64> {
        self.with_simulator.map(|best| best - self.plans.kept)
    }

    /// The regret as a share of how much more plans in the simulator earn than random actions: 0 where the model costs nothing, 1 where it is
    /// worth nothing. `None` where those plans earn no more.
    #[must_use]
    pub fn share_lost(&self) -> Option<f64> {
        let gain = self.with_simulator? - self.random.kept;
        (gain > 0.0).then(|| self.regret().unwrap_or_default() / gain)
    }

    /// The first step of the horizon after which at least a tenth of the plans' whole excess has built up; `None` where they keep what they
    /// promise.
    #[must_use]
    pub fn goes_wrong_at(&self) -> Option<usize> {
        let whole = self.plans.excess();
        let scale = self.plans.kept.abs().max(self.plans.promised.abs());
        if whole <= 0.01 * scale {
            return None;
        }
        self.along.iter().position(|promise| promise.excess() >= 0.1 * whole).map(|place| place + 1)
    }
}

/// A policy in two worlds, the model and the one in which it acts, from the same states: its return in the model is what is promised.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PolicyDiagnosis {
    /// States that it started from.
    pub states: usize,
    /// Discounted rewards of the first h = 1, …, T steps, mean over the states.
    pub along: Vec<Promise>,
    /// Share of the states from which it has not come to an end state within h = 1, …, T steps.
    pub alive: Vec<Promise>,
}

impl PolicyDiagnosis {
    /// T, the number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.along.len()
    }

    /// Discounted rewards of all steps.
    #[must_use]
    pub fn earned(&self) -> Promise {
        self.along.last().copied().unwrap_or_default()
    }

    /// Share of the states from which no end was met.
    #[must_use]
    pub fn survived(&self) -> Promise {
        self.alive.last().copied().unwrap_or_default()
    }
}

/// Critics compared with actual returns: `V(s)` and the discounted rewards from there on. Where an episode was cut, the value of its last state
/// stands for what would have followed. Bonuses for entropy are in the values and not in the rewards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ValueDiagnosis {
    /// States.
    pub states: usize,
    /// Mean of the values.
    pub expected: f64,
    /// Mean of the actual returns.
    pub earned: f64,
    /// Root mean square of their difference.
    pub rmse: f64,
    /// Their correlation over states; NaN where one of them does not vary.
    pub correlation: f64,
}

/// A state that the agent visited.
#[derive(Debug)]
struct Visit {
    obs: Vec<f32>,
    past: History,
    snapshot: Option<Snapshot>,
}

impl Visit {
    fn situation(&self) -> Situation<'_> {
        Situation { past: &self.past, snapshot: self.snapshot.as_ref(), ..Situation::of(&self.obs) }
    }
}

/// An episode of the agent.
#[derive(Debug)]
struct Walk {
    visits: Vec<Visit>,
    transitions: Vec<Transition>,
}

/// Episodes of an agent, with the states that it visited. Made by [`DiagnoseConfig::visit`].
#[derive(Debug)]
pub struct Visited {
    config: DiagnoseConfig,
    walks: Vec<Walk>,
}

impl DiagnoseConfig {
    /// Lets an agent run its episodes in `world`, without exploring.
    ///
    /// # Errors
    /// [`AgentError::Config`] without episodes or plans; errors of the agent and the world.
    pub fn visit(&self, world: &mut World, agent: &mut dyn Agent) -> Result<Visited, AgentError> {
        for (field, count) in [("episodes", self.episodes), ("plans", self.plans), ("ahead", self.ahead)] {
            if count == 0 {
                return Err(AgentError::Config { field, value: "0".into(), rule: "at least 1" });
            }
        }
        Ok(Visited { walks: self.walk(world, agent)?, config: self.clone() })
    }

    fn walk(&self, world: &mut World, agent: &mut dyn Agent) -> Result<Vec<Walk>, AgentError> {
        let mut walks = Vec::new();
        for seed in start_seeds(self.seed, self.episodes) {
            let mut rng = Rng::new(seed).split();
            let mut episode = Episode::begin(world, agent, seed, 0)?;
            let (mut visits, mut transitions, mut past) = (Vec::new(), Vec::<Transition>::new(), History::default());
            loop {
                let snapshot = world.simulator().map(Simulator::save);
                let Some((step, _)) = episode.step(world, agent, ActMode::Evaluate, &mut rng, 0)? else { break };
                visits.push(Visit { obs: step.obs.clone(), past: past.clone(), snapshot });
                past.push(step.obs.clone(), step.action.clone(), MAX_PAST);
                let over = step.episode_over();
                transitions.push(step);
                if over {
                    break;
                }
            }
            agent.begin_episode();
            walks.push(Walk { visits, transitions });
        }
        Ok(walks)
    }
}

impl Visited {
    /// Examines what the agent learned at the states that it visited. `learned` and `value` are what the agent reports of itself
    /// ([`Learner::learned`](crate::Learner::learned), [`Learner::value`](crate::Learner::value)); tensors live on `device`. Plans end in the
    /// value where there is one.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a model with memory, and where no episode had a step; errors of the model and the planners.
    pub fn diagnose(
        &self,
        world: &World,
        device: &Device,
        learned: Option<Learned<'_>>,
        planning: Option<Planning>,
        value: Option<&LearnedValue>,
    ) -> Result<Diagnosis, AgentError> {
        let learned = learned.filter(|learned| learned.is_fitted);
        if let Some(model) = learned.map(|learned| learned.model).filter(|model| model.spec().belief > 0) {
            let (value, rule) = (model.spec().name.clone(), "one without memory: plans start in single states");
            return Err(AgentError::Config { field: "model", value, rule });
        }
        let Self { config, walks } = self;
        let returns = walks.iter().map(|walk| walk.transitions.iter().map(|step| step.reward).sum()).collect();
        let mut rng = Rng::new(config.seed ^ u64::from_be_bytes(*b"diagnose"));
        let own_data = replay_of(walks)?;
        let (mut own, mut data, mut at_ends) = (None, None, None);
        if let Some(learned) = learned {
            let columns = learned.replay.columns();
            let column =
                |c: usize| columns.obs.chunks(columns.obs_width).map(|obs| f64::from(obs[c])).collect::<Vec<_>>();
            at_ends = Some((0..columns.obs_width).map(|c| share_at_ends(&column(c))).collect());
            own = Some(evaluate_model(learned.model, &own_data, &config.evaluate, &mut rng)?);
            data = Some(evaluate_model(learned.model, learned.replay, &config.evaluate, &mut rng)?);
        }
        let plans = match (planning, learned.zip(own.as_ref()), world.simulator()) {
            (Some(mut planning), Some((learned, own)), Some(simulator)) => {
                if let Some(LearnedValue { value, .. }) = value {
                    planning.goal.terminal_value = Some(TerminalValue::of_any_goal(value.clone()));
                }
                Some(config.plans(planning, learned.model, simulator, walks, &own.column_std, &mut rng)?)
            }
            _ => None,
        };
        let values = value.and_then(|value| judge_values(value, walks, device));
        Ok(Diagnosis { returns, own, data, at_ends, plans, policy: None, values })
    }

    /// Follows the agent's policy in its model, from states that it visited in the world, and compares what it earns there with what it
    /// earned in the world; rewards are discounted as its values are. `None` where the agent has no policy or no fitted model.
    ///
    /// The model's noise is drawn, so that ends come by chance as they do in training. States from which too few steps were seen before a
    /// time limit are left out.
    ///
    /// # Errors
    /// Errors of the model.
    pub fn policy_in_model(&self, learner: &dyn Learner) -> Result<Option<PolicyDiagnosis>, AgentError> {
        let Self { config, walks } = self;
        let longest = walks.iter().map(|walk| walk.transitions.len()).max().unwrap_or(0);
        let steps = config.ahead.min(longest.div_ceil(2));
        let all: Vec<&[Transition]> = walks.iter().flat_map(|walk| onwards(&walk.transitions, steps)).collect();
        let behind = spread(&all, config.evaluate.starts);
        let count = behind.len();
        let starts: Vec<f32> = behind.iter().flat_map(|steps| steps[0].obs.iter().copied()).collect();
        let key = Rng::new(config.seed ^ u64::from_be_bytes(*b"dreaming")).key();
        if count == 0 {
            return Ok(None);
        }
        let Some(rollouts) = learner.roll_out_in_model(&starts, steps, key)? else { return Ok(None) };
        let discount = learner.value().map_or(1.0, |value| f64::from(value.discount));
        let (mut along, mut alive) = (vec![Promise::default(); steps], vec![Promise::default(); steps]);
        for (row, came) in behind.iter().enumerate() {
            let (mut sums, mut weight) = (Promise::default(), 1.0);
            let (mut promised_on, mut kept_on) = (true, true);
            for h in 0..steps {
                let place = h * count + row;
                if rollouts.alive[place] {
                    sums.promised += weight * f64::from(rollouts.rewards[place]);
                }
                promised_on &= rollouts.alive[place] && !rollouts.terminated[place];
                sums.kept += came.get(h).map_or(0.0, |step| weight * step.reward);
                kept_on &= came.get(h).is_some_and(|step| !step.terminated);
                weight *= discount;
                along[h].add(sums);
                let share = |on: bool| f64::from(u8::from(on));
                alive[h].add(Promise { promised: share(promised_on), kept: share(kept_on) });
            }
        }
        let mean = |sums: Vec<Promise>| sums.into_iter().map(|sum| sum.over(count as f64)).collect();
        Ok(Some(PolicyDiagnosis { states: count, along: mean(along), alive: mean(alive) }))
    }
}

/// What followed each step of an episode for which the next `steps` steps, or all up to an end state, are known.
fn onwards(transitions: &[Transition], steps: usize) -> impl Iterator<Item = &[Transition]> {
    (0..known(transitions, steps)).map(move |start| &transitions[start..transitions.len().min(start + steps)])
}

/// From how many steps of an episode, the first ones, the next `steps` steps are known, or all up to an end state.
fn known(transitions: &[Transition], steps: usize) -> usize {
    match transitions.last() {
        Some(last) if !last.terminated => (transitions.len() + 1).saturating_sub(steps),
        _ => transitions.len(),
    }
}

/// This many of them, spread evenly, or all where there are fewer.
fn spread<T: Copy>(all: &[T], count: usize) -> Vec<T> {
    let count = count.min(all.len());
    (0..count).map(|i| all[i * all.len() / count]).collect()
}

impl DiagnoseConfig {
    fn plans(
        &self,
        Planning { goal, mut planner, propagation, mut with_simulator }: Planning,
        model: &dyn Dynamics,
        simulator: &dyn Simulator,
        walks: &[Walk],
        scale: &[f64],
        rng: &mut Rng,
    ) -> Result<PlanDiagnosis, AgentError> {
        let actions = simulator.spec().actions.clone();
        let truth = SimulatorModel::new(simulator.boxed_clone(), &model.spec().device);
        // A bonus for disagreement, or a cost of changes of the action, is not part of what a plan earns.
        let judged = Goal { disagreement: None, action_rate: None, ..goal.clone() };
        let searched = as_judged(ActMode::Evaluate, goal.problem(model, &actions)?);
        // The simulator has no members that could disagree; all else is what the agent searches by.
        let mut searched_there = goal.problem(&truth, &actions)?;
        searched_there.disagreement = None;
        let imagined = Judge { problem: judged.problem(model, &actions)?, propagation, model };
        let real = Judge { problem: judged.problem(&truth, &actions)?, propagation: Propagation::MEAN, model: &truth };

        let first = walks.iter().find_map(|walk| walk.visits.first()).ok_or_else(no_steps)?;
        let horizon = warm_plan(&mut *planner, &searched, std::slice::from_ref(first), rng)?.len() / actions.width();
        let starts = self.starts(walks, horizon);
        let mut sums = Sums::default();
        for &(walk, place) in &starts {
            let visits = &walks[walk].visits[place.saturating_sub(self.warm)..=place];
            let start = visits[visits.len() - 1].situation();
            let plan = warm_plan(&mut *planner, &searched, visits, rng)?;
            let random = random_sequence(&actions, horizon, rng)?;
            let key = rng.key();
            let judged = |sequence: &[f32], steps: usize| -> Result<Promise, PlanError> {
                Ok(Promise {
                    promised: imagined.returns(&start, sequence, steps, key)?,
                    kept: real.returns(&start, sequence, steps, key)?,
                })
            };
            sums.random.add(judged(&random, horizon)?);
            sums.along.resize(horizon, Promise::default());
            sums.distance.resize(horizon, 0.0);
            for (h, along) in sums.along.iter_mut().enumerate() {
                along.add(judged(&plan, h + 1)?);
            }
            let [foreseen, came] = [&imagined, &real].map(|judge| judge.states(&start, &plan, horizon));
            let (foreseen, came) = (foreseen?, came?);
            for (h, distance) in sums.distance.iter_mut().enumerate() {
                *distance += apart(&foreseen[h], &came[h], scale, model.spec());
            }
            if let Some(planner) = &mut with_simulator {
                let best = warm_plan(&mut **planner, &searched_there, visits, rng)?;
                sums.best += real.returns(&start, &best, horizon, key)?;
            }
        }
        let n = starts.len() as f64;
        let mean = |promise: Promise| promise.over(n);
        let along: Vec<Promise> = sums.along.into_iter().map(mean).collect();
        Ok(PlanDiagnosis {
            states: starts.len(),
            horizon,
            plans: along.last().copied().unwrap_or_default(),
            random: mean(sums.random),
            with_simulator: with_simulator.is_some().then_some(sums.best / n),
            along,
            distance: sums.distance.into_iter().map(|distance| distance / n).collect(),
        })
    }

    /// Episode and step of the states that are planned from, spread evenly. Nothing is paid beyond a time limit, which no model knows: states
    /// from which a plan of `horizon` steps would meet it are left out, where there are others.
    fn starts(&self, walks: &[Walk], horizon: usize) -> Vec<(usize, usize)> {
        let among = |whole: bool| -> Vec<(usize, usize)> {
            let of = |(walk, Walk { visits, transitions }): (usize, &Walk)| {
                let first = self.warm.min(visits.len().saturating_sub(1));
                let end = if whole { known(transitions, horizon) } else { visits.len() };
                (first..end).map(move |place| (walk, place)).collect::<Vec<_>>()
            };
            walks.iter().enumerate().flat_map(of).collect()
        };
        let all = Some(among(true)).filter(|all| !all.is_empty()).unwrap_or_else(|| among(false));
        spread(&all, self.plans)
    }
}

#[derive(Default)]
struct Sums {
    random: Promise,
    best: f64,
    along: Vec<Promise>,
    distance: Vec<f64>,
}

/// A world that sequences of actions are judged in.
struct Judge<'a> {
    problem: Problem<'a>,
    propagation: Propagation,
    model: &'a dyn Dynamics,
}

impl Judge<'_> {
    /// Return of the first `steps` steps of a sequence `[H, A]`.
    fn returns(&self, from: &Situation<'_>, sequence: &[f32], steps: usize, key: u64) -> Result<f64, PlanError> {
        let width = self.problem.actions.width();
        let device = &self.model.spec().device;
        let candidate = Tensor::<1>::from_floats(&sequence[..steps * width], device).reshape([1, steps, width]);
        let scored = returns(&self.problem, from, candidate, self.propagation, key)?;
        Ok(f64::from(scored.aggregate(Aggregate::Mean).into_scalar::<f32>()))
    }

    /// States after each step, by the expectation, `[H][V]`.
    fn states(&self, from: &Situation<'_>, sequence: &[f32], horizon: usize) -> Result<Vec<Vec<f32>>, AgentError> {
        let width = self.problem.actions.width();
        let device = &self.model.spec().device;
        let actions = Tensor::<1>::from_floats(sequence, device).reshape([horizon, 1, width]);
        let draw = mbrl_model::Draw::new(Propagation::MEAN, 0);
        let obs = self.model.rollout(mbrl_model::Start::Situation(*from), actions, draw)?.obs;
        let view = obs.dims()[2];
        let all: Vec<f32> = obs.into_data().iter().collect();
        Ok(all.chunks(view).skip(1).map(<[f32]>::to_vec).collect())
    }
}

/// A plan from the last of successive states, with the warm start of plans from those before.
fn warm_plan(
    planner: &mut dyn Planner,
    problem: &Problem<'_>,
    visits: &[Visit],
    rng: &mut Rng,
) -> Result<Vec<f32>, PlanError> {
    planner.reset();
    let (last, before) = visits.split_last().expect("there is a state to plan from");
    for visit in before {
        planner.plan(&visit.situation(), problem, rng)?;
        planner.advance(1);
    }
    Ok(planner.plan(&last.situation(), problem, rng)?.actions)
}

fn random_sequence(actions: &ActionSpace, horizon: usize, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
    let mut sequence = Vec::new();
    for _ in 0..horizon {
        sequence.extend(actions.sample(rng)?);
    }
    Ok(sequence)
}

fn no_steps() -> AgentError {
    let value = "all broke down at their start".into();
    AgentError::Config { field: "episodes", value, rule: "one that has a step" }
}

fn replay_of(walks: &[Walk]) -> Result<Replay, AgentError> {
    let steps = || walks.iter().flat_map(|walk| &walk.transitions);
    let first = steps().next().ok_or_else(no_steps)?;
    let mut replay = Replay::new(first.obs.len(), first.action.len(), steps().count())?;
    for walk in walks {
        for step in &walk.transitions {
            replay.push(step)?;
        }
        replay.end_episode();
    }
    Ok(replay)
}

/// Root mean square difference over the columns that vary and that the model does not know, each in units of `scale`; of angles that wrap
/// the short way round.
fn apart(a: &[f32], b: &[f32], scale: &[f64], spec: &DynamicsSpec) -> f64 {
    let counts = |column: &usize| scale[*column] > 0.0 && !spec.known.contains(column);
    let difference = |column: usize| spec.difference(column, f64::from(a[column]) - f64::from(b[column]));
    let squares: Vec<f64> =
        (0..scale.len()).filter(counts).map(|column| (difference(column) / scale[column]).powi(2)).collect();
    (squares.iter().sum::<f64>() / squares.len().max(1) as f64).sqrt()
}

fn judge_values(
    LearnedValue { value, discount }: &LearnedValue,
    walks: &[Walk],
    device: &Device,
) -> Option<ValueDiagnosis> {
    let (mut expected, mut earned) = (Vec::new(), Vec::new());
    for Walk { transitions, .. } in walks {
        let Some(last) = transitions.last() else { continue };
        let mut rows: Vec<f32> = transitions.iter().flat_map(|step| step.obs.iter().copied()).collect();
        rows.extend_from_slice(&last.next_obs);
        let shape = [transitions.len() + 1, last.obs.len()];
        let found: Vec<f32> =
            value.value(Tensor::<1>::from_floats(&rows[..], device).reshape(shape)).into_data().iter().collect();
        let mut came = if last.terminated { 0.0 } else { f64::from(found[transitions.len()]) };
        let mut behind: Vec<f64> = Vec::with_capacity(transitions.len());
        for step in transitions.iter().rev() {
            came = step.reward + f64::from(*discount) * came;
            behind.push(came);
        }
        expected.extend(found[..transitions.len()].iter().map(|value| f64::from(*value)));
        earned.extend(behind.into_iter().rev());
    }
    let n = expected.len() as f64;
    if expected.is_empty() {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n;
    let (e, g) = (mean(&expected), mean(&earned));
    let pairs = || expected.iter().zip(&earned);
    let product = |f: fn(f64, f64) -> f64| pairs().map(|(a, b)| f(a - e, b - g)).sum::<f64>() / n;
    let correlation = product(|a, b| a * b) / (product(|a, _| a * a) * product(|_, b| b * b)).sqrt();
    let rmse = (pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n).sqrt();
    Some(ValueDiagnosis { states: expected.len(), expected: e, earned: g, rmse, correlation })
}
