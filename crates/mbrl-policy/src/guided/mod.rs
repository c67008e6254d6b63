//! Planner and policy together.
//!
//! A planner sees as far as its horizon and takes milliseconds; a value sees further, and a policy takes microseconds. [`Guided`] adds them
//! to any planning agent, each as a setting:
//!
//! - **Plans end in a value** ([`ValueConfig`]): learned from λ-returns of the real episodes or of episodes imagined in the model, by a
//!   critic that learns from the same data with soft actor-critic, or earlier by another agent ([`GivenValue`]).
//! - **A policy is distilled from the plans** ([`DistilConfig`]) and acts in their place, or proposes sequences to the planner. While it
//!   learns to act, it acts itself, and the planner says what it would have done: data aggregation (DAgger \[1\]), so that the policy learns
//!   what to do in the states that its own mistakes lead to.
//!
//! Both are learned for one goal. If the goal changes during a run, anything learned for the old goal is discarded: at the next update the
//! value is learned anew, from the same data with the new goal's rewards.
//!
//! ## References
//! \[1\] Ross, Gordon, Bagnell (2011), *A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning*, AISTATS.
//! \[2\] Lowrey et al. (2019), *Plan Online, Learn Offline: Efficient Learning and Exploration via Model-Based Control*, ICLR.
//! \[3\] Hansen et al. (2024), *TD-MPC2: Scalable, Robust World Models for Continuous Control*, ICLR.

mod config;

use std::{fmt, sync::Arc, time::Instant};

use mbrl_env::{Batch, Replay, Rng, Situation, Transition, Value};
use mbrl_model::{Draw, Dynamics, MemberRule, Propagation, Tensor};
use mbrl_plan::{Mpc, PlanError};
use serde::{Deserialize, Serialize};

pub use self::config::{DistilConfig, DistilRole, GuidedConfig, ValueConfig, ValueSource, WarmUpBy};
use crate::{
    ActMode, Acted, Actor, Agent, AgentError, CheckpointReader, CheckpointWriter, CloningConfig, FitSchedule,
    GivenValue, Goal, GoalKey, Learned, LearnedValue, Learner, OffPolicy, Policy, PolicyDraw, PolicyNetwork,
    PolicyProposals, Report, ReportKind, Sac, TerminalValue, Trajectory, Turn, ValueLearner, imagine::Imagination,
    policy::follow,
};

/// A planning agent, to which [`Guided`] can add a value and a policy.
pub trait PlanningAgent: Learner {
    /// What it plans for.
    fn goal(&self) -> &Goal;

    /// Its goal, mutable; the next plan follows it.
    fn goal_mut(&mut self) -> &mut Goal;

    /// The model that it plans in.
    fn planned_in(&self) -> &dyn Dynamics;

    /// Whether it plans: not before its model was fitted.
    fn is_planning(&self) -> bool;

    /// Replaces its planners from the next step on, one per environment.
    fn replace_controllers(&mut self, mpcs: Vec<Mpc>);
}

/// A policy that learns from plans.
#[derive(Debug)]
struct Student {
    actor: Actor,
    /// Real transitions with the planner's actions in place of those that were taken.
    labels: Replay,
    /// Whether it was fitted to plans of the present goal.
    learned: bool,
}

/// Of one environment.
#[derive(Debug, Default)]
struct Slot {
    /// Steps of the running episode, where whole episodes go into the data.
    running: Vec<Transition>,
    /// As the running steps, with the planner's actions.
    labelled: Vec<Transition>,
    /// What the planner would do now.
    label: Option<Vec<f32>>,
    /// The planner acts in this episode, whatever the policy has learned; not drawn yet where `None`.
    by_expert: Option<bool>,
    /// In the middle of an episode.
    underway: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Real steps.
    steps: u64,
    /// Real steps whose critic's updates were made.
    updated: u64,
    /// Whether the value was learned for the present goal.
    valued: bool,
    /// Whether the policy was.
    distilled: bool,
    /// Whether the present goal is the original one.
    first_goal: bool,
    /// Value and policy are to be learned with the next update.
    #[serde(default)]
    due: [bool; 2],
}

/// Name of the words about where a given value comes from.
const ORIGIN: &str = "value-origin";

const PROGRESS: &str = "guided.json";
const DATA: &str = "seen";
const LABELS: &str = "labels";

/// A planning agent with a value that its plans end in, a policy that is distilled from them, or both. Made by
/// [`GuidedConfig::init`].
pub struct Guided {
    config: GuidedConfig,
    agent: Box<dyn PlanningAgent>,
    /// Planners that take over after the warm-up.
    later: Vec<Mpc>,
    /// Real data, where the agent keeps none.
    data: Option<Replay>,
    slots: Vec<Slot>,
    net: Option<ValueLearner>,
    critic: Option<Sac>,
    /// The untrained critic, to begin anew with for another goal.
    untaught: Option<Sac>,
    /// A value that another agent has learned.
    given: Option<GivenValue>,
    student: Option<Student>,
    /// The goal that all of these learned for.
    learned_for: GoalKey,
    of_first_goal: bool,
    progress: Progress,
    /// Whether the warm-up is over.
    warm: bool,
}

impl fmt::Debug for Guided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Guided");
        f.field("agent", &self.agent.name()).field("config", &self.config).field("progress", &self.progress);
        f.finish_non_exhaustive()
    }
}

impl Guided {
    /// What it plans for.
    #[must_use]
    pub fn goal(&self) -> &Goal {
        self.agent.goal()
    }

    /// Its goal, mutable, in the middle of an episode too. From the next step on, anything learned for another goal is discarded; the next
    /// update learns the value anew.
    pub fn goal_mut(&mut self) -> &mut Goal {
        self.agent.goal_mut()
    }

    /// The critic with its policy, where values are a critic's; it may not have learned anything yet.
    #[must_use]
    pub fn critic(&self) -> Option<&Sac> {
        self.critic.as_ref()
    }

    /// Adds a value that another agent has learned for the present goal, and its policy's proposals. Plans end in the value at once. It learns
    /// nothing here; if the goal changes, it is no longer used and plans continue without it.
    #[must_use]
    pub fn with_value(mut self, given: GivenValue) -> Self {
        (self.net, self.critic, self.untaught) = (None, None, None);
        self.learned_for = self.agent.goal().key();
        (self.given, self.progress.valued) = (Some(given), true);
        self.hand_over();
        self
    }

    /// The value of states that its plans end in; `None` where none was learned for the present goal.
    #[must_use]
    pub fn value(&self) -> Option<Arc<dyn Value>> {
        if self.agent.goal().key() != self.learned_for || !self.progress.valued {
            return None;
        }
        match (&self.given, &self.net, &self.critic) {
            (Some(given), ..) => Some(given.value.value.clone()),
            (None, Some(net), _) => Some(Arc::new(net.snapshot())),
            (None, None, Some(critic)) => Some(critic.value()),
            (None, None, None) => None,
        }
    }

    /// The policy that was distilled from plans; `None` where none was learned for the present goal.
    #[must_use]
    pub fn policy(&self) -> Option<&Actor> {
        let student = self.student.as_ref().filter(|student| student.learned)?;
        (self.agent.goal().key() == self.learned_for).then_some(&student.actor)
    }

    /// Real data so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        match (&self.data, self.agent.learned()) {
            (Some(data), _) => data,
            (None, Some(learned)) => learned.replay,
            (None, None) => unreachable!("an agent without data gets a replay"),
        }
    }

    /// Checks that the value of another run was handed over: plans without it would look like plans with it.
    fn check_given(&self) -> Result<(), AgentError> {
        if self.config.value.source == ValueSource::Run && self.given.is_none() {
            let rule = "a value that was handed over before the first action (Guided::with_value)";
            return Err(AgentError::Config { field: "value.source", value: "\"run\"".into(), rule });
        }
        Ok(())
    }

    /// Discards what was learned for a goal other than the present one.
    fn sync(&mut self) {
        let key = self.agent.goal().key();
        if key == self.learned_for {
            return;
        }
        (self.learned_for, self.of_first_goal) = (key, false);
        (self.progress.valued, self.progress.distilled) = (false, false);
        self.forget();
        for slot in &mut self.slots {
            slot.labelled.clear();
            slot.label = None;
        }
        self.progress.due = [self.net.is_some(), false];
        let goal = self.agent.goal_mut();
        goal.proposals = None;
        if !goal.has_own_value() {
            goal.terminal_value = None;
        }
    }

    /// Value, critic and policy begin anew: they learned for another goal. A critic's updates so far are repeated with the next update.
    fn forget(&mut self) {
        if let Some(net) = &mut self.net {
            net.forget();
        }
        if let Some(mut critic) = self.untaught.clone() {
            // The statistics of inputs do not depend on the goal.
            critic.observe(&self.replay().columns().obs);
            self.critic = Some(critic);
            self.progress.updated = 0;
        }
        if let Some(student) = &mut self.student {
            student.learned = false;
            // Plans for another goal teach nothing.
            student.labels.clear();
        }
    }

    /// Lets plans use what was learned.
    fn hand_over(&mut self) {
        if self.progress.steps < self.config.value.warm_up {
            return;
        }
        if let Some(value) = self.value() {
            self.agent.goal_mut().terminal_value = Some(TerminalValue::learned_for(value, self.learned_for.clone()));
        }
        let proposals = self.config.value.proposals;
        let proposer = match (&self.given, &self.critic) {
            (Some(given), _) => given.policy.clone(),
            (None, Some(critic)) => Some(Arc::new(critic.parts().actor.clone()) as Arc<dyn Policy>),
            (None, None) => None,
        };
        if let Some(policy) = proposer.filter(|_| proposals > 0 && self.progress.valued) {
            self.agent.goal_mut().proposals = Some(Arc::new(PolicyProposals::new(policy, proposals)));
        }
        let propose = self.config.distil.role == DistilRole::Propose;
        if let Some(actor) = self.policy().filter(|_| propose).cloned() {
            let proposals = PolicyProposals::new(Arc::new(actor), self.config.distil.proposals);
            self.agent.goal_mut().proposals = Some(Arc::new(proposals));
        }
    }

    /// What acts in place of the planner now, if anything does.
    fn stand_in(&self, slot: usize, mode: ActMode) -> Option<(&dyn Policy, ActMode)> {
        let value = &self.config.value;
        if self.config.distil.role == DistilRole::Act
            && let Some(actor) = self.policy()
            && (mode == ActMode::Evaluate || self.slots[slot].by_expert == Some(false))
        {
            return Some((actor, ActMode::Evaluate));
        }
        let warming = mode == ActMode::Explore && self.progress.steps < value.warm_up;
        match &self.critic {
            Some(critic) if warming && value.warm_up_by == WarmUpBy::Policy => {
                Some((critic.policy(), ActMode::Explore))
            }
            _ => None,
        }
    }

    /// Whether plans are requested although another acts: the policy learns from them.
    fn labels(&self, mode: ActMode) -> bool {
        mode == ActMode::Explore && self.student.is_some() && self.agent.is_planning()
    }

    /// Draws, once per episode, who acts in it.
    fn draw_actor(&mut self, slot: usize, mode: ActMode, rng: &mut Rng) {
        let share = self.config.distil.expert_share;
        if mode == ActMode::Evaluate || self.slots[slot].by_expert.is_some() {
            return;
        }
        let expert = match share {
            0.0 => false,
            share => rng.uniform(0.0, 1.0) < share,
        };
        self.slots[slot].by_expert = Some(expert);
    }

    /// Rewards and ends of a batch by the present goal, where it defines them; otherwise as they were.
    fn judged(&self, batch: &mut Batch) {
        let (goal, device) = (self.agent.goal(), &self.agent.planned_in().spec().device);
        if goal.reward.is_none() && goal.termination.is_none() && goal.shaping.is_none() || batch.is_empty() {
            return;
        }
        let rows = batch.len();
        let tensor = |values: &[f32], width| Tensor::<1>::from_floats(values, device).reshape([rows, width]);
        let now = tensor(&batch.obs, batch.obs_width);
        let actions = tensor(&batch.actions, batch.action_width);
        let next = tensor(&batch.next_obs, batch.obs_width);
        if let Some(reward) = &goal.reward {
            let rewards = reward.reward(now.clone(), actions.clone(), next.clone());
            batch.rewards = rewards.into_data().iter::<f32>().map(f64::from).collect();
        }
        if let Some(shaping) = &goal.shaping {
            let extra = shaping.reward(now.clone(), actions.clone(), next.clone()).into_data();
            let paid = batch.rewards.iter().zip(extra.iter::<f32>()).map(|(reward, extra)| reward + f64::from(extra));
            batch.rewards = paid.collect();
        }
        if goal.termination.is_some() {
            batch.terminated = goal.ends([now, actions, next], None).into();
        }
    }

    /// All real episodes, with what the present goal says of them.
    fn episodes(&self) -> Vec<Trajectory> {
        let replay = self.replay();
        let mut all = Vec::new();
        for episode in replay.episodes() {
            let mut steps = replay.gather(episode);
            self.judged(&mut steps);
            let (o, count) = (steps.obs_width, steps.len());
            let mut from = 0;
            // The present goal may see an end where the episode went on.
            for t in 0..count {
                if t + 1 < count && !steps.terminated[t] {
                    continue;
                }
                let mut obs = steps.obs[from * o..(t + 1) * o].to_vec();
                obs.extend_from_slice(&steps.next_obs[t * o..(t + 1) * o]);
                let rewards = steps.rewards[from..=t].iter().map(|reward| *reward as f32).collect();
                all.push(Trajectory { obs, rewards, terminated: steps.terminated[t] });
                from = t + 1;
            }
        }
        all
    }

    /// Episodes that the distilled policy imagines from states of the data.
    fn imagined(&self, rng: &mut Rng) -> Result<Vec<Trajectory>, AgentError> {
        let Some(policy) = self.policy().filter(|_| self.agent.is_planning()) else { return Ok(Vec::new()) };
        let ValueConfig { count, length, .. } = self.config.value;
        let replay = self.replay();
        let starts = replay.gather((0..count).map(|_| rng.below(replay.len()))).obs;
        let mut act = |obs: &[f32], _: usize| Ok(policy.act(obs, ActMode::Evaluate, PolicyDraw::new(0)));
        let propagation = Propagation { rule: MemberRule::Ts1, noise: true, particles: 1 };
        let draw = Draw::new(propagation, rng.key());
        let model = self.agent.planned_in();
        let all = Imagination::new(model, self.agent.goal()).roll_out(&mut act, &starts, length, draw)?;
        let (o, n) = (all.obs_width, all.rows);
        let mut trajectories = Vec::with_capacity(n);
        for row in 0..n {
            let steps = (0..length).take_while(|t| all.alive[t * n + row]).count();
            if steps == 0 {
                continue;
            }
            let obs = (0..=steps).flat_map(|t| &all.obs[(t * n + row) * o..][..o]).copied().collect();
            let rewards = (0..steps).map(|t| all.rewards[t * n + row]).collect();
            trajectories.push(Trajectory { obs, rewards, terminated: all.terminated[(steps - 1) * n + row] });
        }
        Ok(trajectories)
    }

    /// Learns the value anew, from the data so far and for the present goal, as an update does when it is due. Returns whether there was
    /// anything to learn from.
    ///
    /// # Errors
    /// Errors of the model, where episodes are imagined.
    pub fn learn_value(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<bool, AgentError> {
        self.sync();
        let start = Instant::now();
        let trajectories = match self.config.value.source {
            ValueSource::Imagined => self.imagined(rng)?,
            _ => self.episodes(),
        };
        let Some(learned) = self.net.as_mut().and_then(|net| net.learn(&trajectories, rng)) else { return Ok(false) };
        self.progress.valued = true;
        let told = [
            ("value/states", learned.states as f64),
            ("value/mean", learned.mean),
            ("value/unexplained", learned.unexplained),
            ("value/loss", learned.loss),
            ("value/fit_s", start.elapsed().as_secs_f64()),
        ];
        told.into_iter().for_each(|(name, number)| report.scalar(ReportKind::Fit, name, number));
        Ok(true)
    }

    /// Fits the policy to all plans so far; returns whether there were any.
    fn learn_policy(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<bool, AgentError> {
        let Some(student) = self.student.as_mut().filter(|student| student.labels.len() > 1) else {
            return Ok(false);
        };
        let start = Instant::now();
        let DistilConfig { max_epochs, batch_size, holdout, patience, .. } = self.config.distil;
        let cloning = CloningConfig { max_epochs, batch_size, holdout, patience };
        let done = cloning.fit(&mut student.actor, &student.labels, rng)?;
        (student.learned, self.progress.distilled) = (true, true);
        let told = [
            ("distil/plans", student.labels.len() as f64),
            ("distil/epochs", done.epochs as f64),
            ("distil/loss", done.loss),
            ("distil/fit_s", start.elapsed().as_secs_f64()),
        ];
        told.into_iter().for_each(|(name, number)| report.scalar(ReportKind::Fit, name, number));
        Ok(true)
    }

    /// Updates of the critic that real steps since the last ones call for.
    fn learn_critic(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let size = self.config.value.batch_size;
        let steps = self.progress.steps;
        if self.critic.is_none() || self.replay().len() < size {
            self.progress.updated = steps;
            return Ok(());
        }
        let due = (steps - self.progress.updated) * self.config.value.updates;
        self.progress.updated = steps;
        for _ in 0..due {
            let mut batch = self.replay().sample_batch(size, rng)?;
            self.judged(&mut batch);
            if let Some(critic) = &mut self.critic {
                critic.improve(&batch, None, rng, report)?;
                self.progress.valued = true;
            }
        }
        Ok(())
    }

    /// Takes an episode, or a step where there is one environment, into the data.
    fn take_in(&mut self, slot: usize, over: bool) -> Result<(), AgentError> {
        let [labelled, running] =
            [std::mem::take(&mut self.slots[slot].labelled), std::mem::take(&mut self.slots[slot].running)];
        let several = self.slots.len() > 1;
        for (replay, steps) in
            [(self.data.as_mut(), running), (self.student.as_mut().map(|student| &mut student.labels), labelled)]
        {
            let Some(replay) = replay else { continue };
            if several {
                replay.push_episode(&steps)?;
            } else {
                steps.iter().try_for_each(|step| replay.push(step))?;
                // Where a plan failed, labels have a gap: what comes after it is an episode of its own.
                if over {
                    replay.end_episode();
                }
            }
        }
        Ok(())
    }
}

/// Whether something is due after a step.
fn due(every: FitSchedule, steps: u64, over: bool) -> bool {
    match every {
        FitSchedule::Episode => over,
        FitSchedule::Steps(n) => steps.is_multiple_of(n),
    }
}

impl Agent for Guided {
    fn name(&self) -> &str {
        "guided"
    }

    fn begin_episode(&mut self) {
        self.agent.begin_episode();
        self.slots.iter_mut().for_each(|slot| (slot.by_expert, slot.label) = (None, None));
    }

    fn begin_episode_in(&mut self, slot: usize) {
        self.agent.begin_episode_in(slot);
        (self.slots[slot].by_expert, self.slots[slot].label) = (None, None);
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        self.check_given()?;
        self.sync();
        self.draw_actor(0, mode, rng);
        let labels = self.labels(mode);
        if self.stand_in(0, mode).is_some() && !labels {
            self.slots[0].label = None;
            let Some((policy, how)) = self.stand_in(0, mode) else { unreachable!("asked above") };
            return follow(policy, situation, how, rng);
        }
        let planned = self.agent.act(situation, mode, rng)?;
        self.slots[0].label = labels.then(|| planned.clone());
        match self.stand_in(0, mode) {
            Some((policy, how)) => follow(policy, situation, how, rng),
            None => Ok(planned),
        }
    }

    fn act_batch(&mut self, mut turns: Vec<Turn<'_>>, mode: ActMode) -> Result<Vec<Acted>, AgentError> {
        self.check_given()?;
        self.sync();
        for turn in &mut turns {
            self.draw_actor(turn.slot, mode, turn.rng);
        }
        let labels = self.labels(mode);
        let (mut planned, mut acted) = (Vec::new(), Vec::new());
        for turn in turns {
            let slot = turn.slot;
            match self.stand_in(slot, mode) {
                Some((policy, how)) => {
                    let action = follow(policy, &turn.situation, how, turn.rng)?;
                    acted.push((slot, Some(action)));
                    if labels {
                        planned.push(turn);
                    } else {
                        self.slots[slot].label = None;
                    }
                }
                None => {
                    acted.push((slot, None));
                    planned.push(turn);
                }
            }
        }
        let places: Vec<usize> = planned.iter().map(|turn| turn.slot).collect();
        let plans = if planned.is_empty() { Vec::new() } else { self.agent.act_batch(planned, mode)? };
        let mut plans: Vec<(usize, Acted)> = places.into_iter().zip(plans).collect();
        for (slot, plan) in &plans {
            self.slots[*slot].label = (labels && plan.failure.is_none()).then(|| plan.action.clone());
        }
        let mut all = Vec::with_capacity(acted.len());
        for (slot, action) in acted {
            let plan = plans.iter().position(|(place, _)| *place == slot).map(|at| plans.swap_remove(at).1);
            match (action, plan) {
                (Some(action), plan) => all.push(Acted { action, failure: plan.and_then(|plan| plan.failure) }),
                (None, Some(plan)) => all.push(plan),
                (None, None) => {
                    let (value, rule) = ("too few".into(), "an action for each environment whose turn it is");
                    return Err(AgentError::Config { field: "act_batch", value, rule });
                }
            }
        }
        Ok(all)
    }

    fn ahead(&self) -> Vec<Vec<f32>> {
        // A policy that acts in the plan's place has no plan.
        if self.stand_in(0, ActMode::Evaluate).is_some() { Vec::new() } else { self.agent.ahead() }
    }

    fn skip(&mut self, steps: usize) {
        self.agent.skip(steps);
    }

    fn take_plan_failure(&mut self) -> Option<PlanError> {
        let failure = self.agent.take_plan_failure();
        if failure.is_some() {
            // The substitute for a plan is nothing to learn from.
            self.slots[0].label = None;
        }
        failure
    }

    fn needs_snapshot(&self) -> bool {
        self.agent.needs_snapshot()
    }
}

impl Learner for Guided {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.observe_in(0, transition)
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.truncate_episode_in(0)
    }

    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        self.agent.observe_in(slot, transition)?;
        self.progress.steps += 1;
        if let Some(net) = &mut self.net {
            net.observe(&transition.obs);
        }
        if let Some(critic) = &mut self.critic {
            critic.observe(&transition.obs);
        }
        let over = transition.episode_over();
        let place = &mut self.slots[slot];
        place.underway = !over;
        if self.data.is_some() {
            place.running.push(transition.clone());
        }
        if let Some(label) = place.label.take() {
            place.labelled.push(Transition { action: label, ..transition.clone() });
        }
        if self.slots.len() == 1 || over {
            self.take_in(slot, over)?;
        }
        let (steps, distil) = (self.progress.steps, &self.config.distil);
        self.progress.due[0] |= self.net.is_some() && due(self.config.value.every, steps, over);
        self.progress.due[1] |= self.student.is_some() && steps >= distil.warm_up && due(distil.every, steps, over);
        Ok(())
    }

    fn truncate_episode_in(&mut self, slot: usize) -> Result<(), AgentError> {
        self.agent.truncate_episode_in(slot)?;
        let place = &mut self.slots[slot];
        place.underway = false;
        for last in [place.running.last_mut(), place.labelled.last_mut()].into_iter().flatten() {
            last.truncated = true;
        }
        if let Some(data) = self.data.as_mut().filter(|_| self.slots.len() == 1) {
            // Before the episode is ended there.
            data.truncate_episode();
        }
        self.take_in(slot, true)?;
        let (steps, distil) = (self.progress.steps, &self.config.distil);
        self.progress.due[0] |= self.net.is_some() && self.config.value.every == FitSchedule::Episode;
        self.progress.due[1] |=
            self.student.is_some() && steps >= distil.warm_up && distil.every == FitSchedule::Episode;
        Ok(())
    }

    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.agent.update(rng, report)?;
        self.sync();
        let [value, policy] = std::mem::take(&mut self.progress.due);
        let had_value = self.progress.valued;
        let distilled = policy && self.learn_policy(rng, report)?;
        // After the policy, which acts in what is imagined.
        let valued = value && !self.replay().is_empty() && self.learn_value(rng, report)?;
        // Environments in lockstep give no data and no labels before an episode is over.
        self.progress.due = [value && !valued, policy && !distilled && self.slots.len() > 1];
        self.learn_critic(rng, report)?;
        let warm = self.progress.steps >= self.config.value.warm_up;
        if warm && !self.later.is_empty() {
            self.agent.replace_controllers(std::mem::take(&mut self.later));
        }
        let begins_to_count = warm && !self.warm || self.progress.valued && !had_value;
        self.warm = warm;
        // A critic changes at every step: plans use it as it was when their episodes began.
        let between_episodes = self.slots.iter().all(|slot| !slot.underway);
        if valued || distilled || begins_to_count || between_episodes {
            self.hand_over();
        }
        Ok(())
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        self.agent.save(into)?;
        into.put_json(PROGRESS, &Progress { first_goal: self.of_first_goal, ..self.progress })?;
        if let Some(data) = &self.data {
            into.put_replay(DATA, data)?;
        }
        if let Some(given) = &self.given {
            into.put(ORIGIN, given.origin.as_bytes())?;
        }
        if let Some(net) = &self.net {
            into.scope("value", |into| net.save(into))?;
        }
        if let Some(critic) = &self.critic {
            into.scope("critic", |into| critic.save(into))?;
        }
        if let Some(student) = &self.student {
            into.put_replay(LABELS, &student.labels)?;
            into.scope("policy", |into| student.actor.save(into))?;
        }
        Ok(())
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        self.agent.load(from)?;
        let progress: Progress = from.get_json(PROGRESS)?;
        if let Some(data) = &mut self.data {
            *data = from.get_replay(DATA)?;
        }
        if let Some(given) = &self.given {
            let before = String::from_utf8_lossy(from.get(ORIGIN)?);
            if before != given.origin {
                let now = &given.origin;
                let reason = format!("expected a run whose plans end in the value of {now}, found that of {before}");
                return Err(from.refuse(ORIGIN, reason));
            }
        }
        if let Some(net) = &mut self.net {
            net.load(&from.scope("value"))?;
        }
        if let Some(critic) = &mut self.critic {
            critic.load(&from.scope("critic"))?;
        }
        if let Some(student) = &mut self.student {
            student.labels = from.get_replay(LABELS)?;
            student.actor.load(&from.scope("policy"))?;
            student.learned = progress.distilled;
        }
        self.progress = progress;
        self.slots.iter_mut().for_each(|slot| *slot = Slot::default());
        // A checkpoint does not say which goal replaced the first one: nothing learned for it is kept.
        (self.learned_for, self.of_first_goal) = (self.agent.goal().key(), true);
        if !progress.first_goal {
            (self.progress.valued, self.progress.distilled) = (false, false);
            self.progress.due[0] = self.net.is_some();
            self.forget();
            if self.given.is_some() {
                // It was handed over before anyone knew of the other goal.
                let goal = self.agent.goal_mut();
                (goal.terminal_value, goal.proposals) = (None, None);
            }
        }
        if self.progress.steps >= self.config.value.warm_up && !self.later.is_empty() {
            self.agent.replace_controllers(std::mem::take(&mut self.later));
        }
        self.warm = self.progress.steps >= self.config.value.warm_up;
        self.hand_over();
        Ok(())
    }

    fn learned(&self) -> Option<Learned<'_>> {
        self.agent.learned()
    }

    fn value(&self) -> Option<LearnedValue> {
        let discount = match (&self.given, &self.net, &self.critic) {
            (Some(given), ..) => given.value.discount,
            (None, Some(net), _) => net.config().discount,
            (None, None, Some(critic)) => critic.parts().discount,
            (None, None, None) => return None,
        };
        Self::value(self).map(|value| LearnedValue::new(value, discount))
    }

    fn policy_network(&self) -> Option<PolicyNetwork> {
        self.policy().cloned().map(PolicyNetwork::from)
    }
}
