//! The world as the loops see it: every observation, reward and action is checked on its way through.

use std::time::{Duration, Instant};

use mbrl_env::{
    Env, EnvError, EnvSpec, History, Info, MAX_PAST, Rng, Situation, Snapshot, Step, Transition, World, check_action,
};

use rayon::prelude::*;

use crate::{ActMode, Acted, Agent, AgentError, Turn, means::Means};

/// A snapshot where `agent` needs one.
fn snapshot_for(agent: &dyn Agent, world: &World) -> Result<Option<Snapshot>, AgentError> {
    if !agent.needs_snapshot() {
        return Ok(None);
    }
    match world.simulator() {
        Some(simulator) => Ok(Some(simulator.save())),
        None => Err(AgentError::Config {
            field: "world",
            value: world.spec().name.clone(),
            rule: "a simulator, because the agent plans with its snapshots",
        }),
    }
}

/// A running episode.
#[derive(Debug)]
pub(crate) struct Episode {
    obs: Vec<f32>,
    past: History,
    info: Means,
    pub(crate) summary: EpisodeSummary,
    /// How often the agent acted.
    acted: u64,
    /// Why the episode, or the first plan in it that failed, broke down.
    trouble: Option<AgentError>,
}

/// An episode of one of several environments in lockstep.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    pub(crate) slot: usize,
    pub(crate) world: &'a mut World,
    pub(crate) episode: &'a mut Episode,
    pub(crate) rng: &'a mut Rng,
}

/// Lets the agent act once in each of several environments, and steps them on all threads; as [`Episode::step`], in the order
/// of the seats, whose slots rise.
pub(crate) fn step_together(
    mut seats: Vec<Seat<'_>>,
    agent: &mut dyn Agent,
    mode: ActMode,
    env_step: u64,
) -> Result<Vec<Option<(Transition, Info)>>, AgentError> {
    let acting = || |seat: &&mut Seat<'_>| !seat.episode.is_broken();
    let mut snapshots = Vec::with_capacity(seats.len());
    for seat in seats.iter_mut().filter(acting()) {
        snapshots.push(snapshot_for(agent, seat.world)?);
    }
    let start = Instant::now();
    let each = seats.iter_mut().filter(acting()).zip(&snapshots);
    let turns: Vec<Turn<'_>> = each
        .map(|(Seat { slot, episode, rng, .. }, snapshot)| {
            let situation = episode.situation(snapshot.as_ref());
            Turn { slot: *slot, situation, rng }
        })
        .collect();
    let count = turns.len();
    let mut acted = if count == 0 { Vec::new() } else { agent.act_batch(turns, mode)? };
    if acted.len() != count {
        let (value, rule) = (acted.len().to_string(), "an action for each environment in which it is the agent's turn");
        return Err(AgentError::Config { field: "act_batch", value, rule });
    }
    // Of the time that they took together each gets its share.
    let share = start.elapsed() / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let mut acted = acted.drain(..);
    let mut chosen = Vec::with_capacity(seats.len());
    for seat in &mut seats {
        chosen.push(match seat.episode.is_broken() {
            true => None,
            false => match acted.next() {
                Some(acted) => Some(seat.episode.acted(acted, share, agent.name(), seat.world)?),
                None => None,
            },
        });
    }
    let advance = |(seat, action): (Seat<'_>, Option<Vec<f32>>)| match action {
        Some(action) => seat.episode.advance(seat.world, action, env_step),
        None => Ok(None),
    };
    seats.into_par_iter().zip(chosen).map(advance).collect()
}

/// The result of an episode.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct EpisodeSummary {
    /// Undiscounted sum of rewards.
    pub total_reward: f64,
    /// Steps.
    pub length: u64,
    /// The task reached an end state.
    pub terminated: bool,
    /// The episode was cut from outside: by a time limit, by the end of the run's budget of steps, or because it broke down.
    pub truncated: bool,
    /// The end of the run's budget cut it: the return is not that of a whole episode.
    pub cut: bool,
    /// Why the episode broke down, where it did: the engine diverged, or an observation or a reward was no number. The step at
    /// which it did so is dropped, so the return is not that of a whole episode.
    pub breakdown: Option<String>,
    /// Steps whose plan failed ([`Agent::take_plan_failure`]).
    pub failed_plans: u64,
    /// Wall time in the environment's steps.
    pub env_time: Duration,
    /// Wall time in the agent's choices of actions: planning, mostly.
    pub act_time: Duration,
    /// What else the environment reported ([`Step::info`](mbrl_env::Step)): the mean of each name over the steps that gave it,
    /// in the order of the names. Known when the episode is over.
    pub info: Vec<(String, f64)>,
}

impl EpisodeSummary {
    /// Whether the return is that of a whole episode.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.cut && self.breakdown.is_none()
    }

    /// What `metrics.jsonl` records of it as the episode with this number, counted from 1.
    #[must_use]
    pub fn scalars(&self, index: u64) -> Vec<(String, f64)> {
        let numbers = [
            ("episode/index", index as f64),
            ("episode/return", self.total_reward),
            ("episode/length", self.length as f64),
            ("episode/terminated", f64::from(u8::from(self.terminated))),
            ("episode/truncated", f64::from(u8::from(self.truncated))),
            ("episode/cut", f64::from(u8::from(self.cut))),
            ("episode/breakdown", f64::from(u8::from(self.breakdown.is_some()))),
            ("episode/env_s", self.env_time.as_secs_f64()),
            ("episode/act_s", self.act_time.as_secs_f64()),
        ];
        let numbers = numbers.into_iter().map(|(name, value)| (name.to_owned(), value));
        numbers.chain(self.info.iter().map(|(name, mean)| (format!("reward/{name}"), *mean))).collect()
    }
}

impl Episode {
    /// Resets the world with a seed. `env_step` is for messages. An episode may break down here already.
    pub(crate) fn begin(
        world: &mut World,
        agent: &mut dyn Agent,
        seed: u64,
        env_step: u64,
    ) -> Result<Self, AgentError> {
        let episode = Self::reset(world, seed, env_step);
        agent.begin_episode();
        episode
    }

    /// As [`begin`](Self::begin); the agent is told separately.
    pub(crate) fn reset(world: &mut World, seed: u64, env_step: u64) -> Result<Self, AgentError> {
        let reset = world.reset(Some(seed)).map_err(AgentError::from);
        let reset = reset.and_then(|obs| check_obs(world.spec(), &obs, " of the reset", env_step).map(|()| obs));
        let mut episode = Self {
            obs: Vec::new(),
            past: History::default(),
            info: Means::default(),
            summary: EpisodeSummary::default(),
            acted: 0,
            trouble: None,
        };
        match reset {
            Ok(obs) => episode.obs = obs,
            Err(error) => episode.break_down(error)?,
        }
        Ok(episode)
    }

    /// Ends the episode by what broke it down; other errors are passed on.
    fn break_down(&mut self, error: AgentError) -> Result<(), AgentError> {
        if !error.is_breakdown() {
            return Err(error);
        }
        self.summary.breakdown = Some(error.to_string());
        self.summary.truncated = true;
        self.trouble = Some(error);
        Ok(())
    }

    /// Lets the agent act once, after this many steps; `None` where the episode broke down, at this step or at its reset.
    pub(crate) fn step(
        &mut self,
        world: &mut World,
        agent: &mut dyn Agent,
        mode: ActMode,
        rng: &mut Rng,
        env_step: u64,
    ) -> Result<Option<(Transition, Info)>, AgentError> {
        if self.is_broken() {
            return Ok(None);
        }
        let snapshot = snapshot_for(agent, world)?;
        let start = Instant::now();
        let action = agent.act(&self.situation(snapshot.as_ref()), mode, rng)?;
        let acted = Acted { action, failure: agent.take_plan_failure() };
        let action = self.acted(acted, start.elapsed(), agent.name(), world)?;
        self.advance(world, action, env_step)
    }

    /// Whether it broke down.
    pub(crate) fn is_broken(&self) -> bool {
        self.summary.breakdown.is_some()
    }

    fn situation<'a>(&'a self, snapshot: Option<&'a Snapshot>) -> Situation<'a> {
        Situation { past: &self.past, snapshot, ..Situation::of(&self.obs) }
    }

    /// Records an action that took this much time, and checks it.
    fn acted(&mut self, acted: Acted, elapsed: Duration, agent: &str, world: &World) -> Result<Vec<f32>, AgentError> {
        let Acted { action, failure } = acted;
        self.summary.act_time += elapsed;
        self.acted += 1;
        if let Some(failure) = failure {
            self.summary.failed_plans += 1;
            self.trouble.get_or_insert(failure.into());
        }
        match check_action(world.spec(), &action) {
            Ok(()) => Ok(action),
            Err(source) => Err(AgentError::Action { agent: agent.to_owned(), action, source }),
        }
    }

    /// Steps the world; `None` where the episode breaks down.
    fn advance(
        &mut self,
        world: &mut World,
        action: Vec<f32>,
        env_step: u64,
    ) -> Result<Option<(Transition, Info)>, AgentError> {
        let start = Instant::now();
        let step = world.step(&action);
        self.summary.env_time += start.elapsed();
        let spec = world.spec();
        let checked =
            step.map_err(AgentError::from).and_then(|step| check_step(spec, &step, env_step + 1).map(|()| step));
        let step = match checked {
            Ok(step) => step,
            Err(error) => return self.break_down(error).map(|()| None),
        };
        let obs = std::mem::replace(&mut self.obs, step.obs.clone());
        self.past.push(obs.clone(), action.clone(), MAX_PAST);
        self.summary.total_reward += step.reward;
        self.summary.length += 1;
        self.summary.terminated = step.terminated;
        self.summary.truncated = step.truncated;
        for (name, value) in &step.info {
            self.info.add(name, *value);
        }
        let transition = Transition {
            obs,
            action,
            reward: step.reward,
            next_obs: step.obs,
            terminated: step.terminated,
            truncated: step.truncated,
        };
        Ok(Some((transition, step.info)))
    }

    /// Whether the episode was in vain: it broke down, or no plan in it worked.
    pub(crate) fn is_failure(&self) -> bool {
        let planless = self.acted > 0 && self.summary.failed_plans == self.acted;
        planless || self.summary.breakdown.is_some()
    }

    /// Why the episode, or the first plan in it that failed, broke down.
    pub(crate) fn trouble(&mut self) -> Option<AgentError> {
        self.trouble.take()
    }

    /// Its result, when it is over.
    pub(crate) fn finish(&mut self) -> EpisodeSummary {
        let mut info = self.info.take();
        info.sort_by(|a, b| a.0.cmp(&b.0));
        EpisodeSummary { info, ..std::mem::take(&mut self.summary) }
    }
}

fn check_step(spec: &EnvSpec, step: &Step, env_step: u64) -> Result<(), AgentError> {
    check_obs(spec, &step.obs, "", env_step)?;
    let value = step.reward;
    if !value.is_finite() {
        return Err(non_finite(spec, "reward".to_owned(), value, env_step));
    }
    // Models, and whatever else learns, hold it in the narrower type.
    if !(value as f32).is_finite() {
        return Err(AgentError::HugeReward { env: spec.name.clone(), value, env_step });
    }
    Ok(())
}

fn check_obs(spec: &EnvSpec, obs: &[f32], whose: &str, env_step: u64) -> Result<(), AgentError> {
    if obs.len() != spec.obs.width() {
        let what = format!("observation of {}", spec.name);
        return Err(EnvError::Width { what, expected: spec.obs.width(), actual: obs.len() }.into());
    }
    match obs.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(non_finite(spec, format!("observation[{index}]{whose}"), f64::from(obs[index]), env_step)),
    }
}

fn non_finite(spec: &EnvSpec, what: String, value: f64, env_step: u64) -> AgentError {
    AgentError::NonFiniteWorld { env: spec.name.clone(), what, value, env_step }
}
