//! The interfaces for acting and learning.

use std::{fmt, sync::Arc};

use mbrl_env::{ActionSpace, Replay, Rng, Situation, Transition, Value};
use mbrl_model::Dynamics;
use mbrl_plan::PlanError;

use crate::{AgentError, CheckpointReader, CheckpointWriter, Phase, PolicyNetwork, Rollouts};

/// What an action is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActMode {
    /// To learn from: the agent may explore.
    Explore,
    /// To be judged by: the agent does its best.
    Evaluate,
}

/// What a reported number is about, which decides how it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReportKind {
    /// Planning: averaged over the steps of the episode that reported it.
    Plan,
    /// A policy that learns: averaged over the updates of the episode.
    Policy,
    /// A fit: all numbers of one update form an event of their own.
    Fit,
}

/// Receives the numbers that an agent reports; names are `group/name`, listed in `docs/metrics.md`.
///
/// ```
/// use mbrl_policy::{Report, ReportKind};
///
/// struct Print;
///
/// impl Report for Print {
///     fn scalar(&mut self, kind: ReportKind, name: &str, value: f64) {
///         println!("{kind:?} {name} = {value}");
///     }
/// }
///
/// Print.scalar(ReportKind::Fit, "critic/loss", 0.25);
/// ```
pub trait Report {
    /// Progress of long work, such as a fit. For displays; does nothing by default.
    fn progress(&mut self, _phase: Phase) {}

    /// One number.
    fn scalar(&mut self, kind: ReportKind, name: &str, value: f64);
}

/// Chooses actions.
pub trait Agent: Send {
    /// Name, for messages.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// An episode begins: forget what belongs to the last one.
    fn begin_episode(&mut self) {}

    /// Chooses an action `[A]`, in the environment's units.
    ///
    /// # Errors
    /// Whatever keeps the agent from choosing.
    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError>;

    /// Why the last action is a substitute: its plan failed, and the rest of an older plan or a random action replaces it.
    /// Such steps are counted. `None` (default) for an action that was chosen as intended.
    fn take_plan_failure(&mut self) -> Option<PlanError> {
        None
    }

    /// Actions that it intends to take after the one that it chose last, `[h][A]`, as far as it knows: the rest of its plan. They are used
    /// when the next plan is late. Empty by default.
    fn ahead(&self) -> Vec<Vec<f32>> {
        Vec::new()
    }

    /// `steps` steps of the running episode passed without a call of [`act`](Self::act), for example because its last answer took several
    /// control periods. Meanwhile the actions [ahead](Self::ahead) were executed, or others in their place. Planners shift their plans by that
    /// many steps. Does nothing by default.
    fn skip(&mut self, steps: usize) {
        let _ = steps;
    }

    /// Number of environments that it can act in side by side, each with an episode of its own (default: 1). Agents that keep nothing
    /// of an episode return [`usize::MAX`].
    fn slots(&self) -> usize {
        1
    }

    /// As [`begin_episode`](Self::begin_episode), for one of several environments; by default there is only one.
    fn begin_episode_in(&mut self, slot: usize) {
        let _ = slot;
        self.begin_episode();
    }

    /// Chooses an action for each of several environments, at most one per slot, in ascending order of the slots. Each gets the
    /// action that it would get alone. By default they are handled one by one.
    ///
    /// # Errors
    /// Whatever keeps the agent from choosing one of them.
    fn act_batch(&mut self, turns: Vec<Turn<'_>>, mode: ActMode) -> Result<Vec<Acted>, AgentError> {
        let mut act = |turn: Turn<'_>| {
            let action = self.act(&turn.situation, mode, turn.rng)?;
            Ok(Acted { action, failure: self.take_plan_failure() })
        };
        turns.into_iter().map(&mut act).collect()
    }

    /// Whether situations must carry the simulator's snapshot.
    fn needs_snapshot(&self) -> bool {
        false
    }
}

/// One of several environments in which it is the agent's turn to act.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Which environment, from 0.
    pub slot: usize,
    /// Where it stands.
    pub situation: Situation<'a>,
    /// Its generator.
    pub rng: &'a mut Rng,
}

/// An action that was chosen.
#[derive(Debug)]
pub struct Acted {
    /// The action, `[A]`, in the environment's units.
    pub action: Vec<f32>,
    /// Why the plan failed, if it did and another action replaces it, as in [`Agent::take_plan_failure`].
    pub failure: Option<PlanError>,
}

/// An agent that learns, and decides itself when to fit.
pub trait Learner: Agent {
    /// Takes in one real step.
    ///
    /// # Errors
    /// Whatever the agent cannot take in.
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError>;

    /// The running episode broke down in the step after the last one observed. That step is lost: the data must end the episode with
    /// the last one observed, as truncated. An update follows.
    ///
    /// # Errors
    /// Whatever the agent cannot take in.
    fn truncate_episode(&mut self) -> Result<(), AgentError>;

    /// As [`observe`](Self::observe), for one of several environments that run in lockstep; by default there is only one.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        let _ = slot;
        self.observe(transition)
    }

    /// As [`truncate_episode`](Self::truncate_episode), for one of several environments; by default there is only one.
    ///
    /// # Errors
    /// As [`truncate_episode`](Self::truncate_episode).
    fn truncate_episode_in(&mut self, slot: usize) -> Result<(), AgentError> {
        let _ = slot;
        self.truncate_episode()
    }

    /// Called after each real step (in lockstep, after a step of each environment): fits when a fit is due, and reports the results.
    ///
    /// # Errors
    /// Whatever keeps the agent from learning.
    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError>;

    /// Writes everything that `load` needs to continue bit for bit.
    ///
    /// # Errors
    /// Errors of input and output.
    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError>;

    /// Restores what `save` wrote.
    ///
    /// # Errors
    /// A truncated, foreign or newer checkpoint.
    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError>;

    /// Takes over the data, and nothing else, from the checkpoint of another learner, whatever its model is; the next
    /// [update](Self::update) learns from them. Returns `false` (default) if it learns no model, or more than a model.
    ///
    /// # Errors
    /// A checkpoint without data, or with data of different widths.
    fn take_data(&mut self, from: &CheckpointReader) -> Result<bool, AgentError> {
        let _ = from;
        Ok(false)
    }

    /// The model that it learns and the data that it has, for reports; `None` (default) where it learns no model.
    fn learned(&self) -> Option<Learned<'_>> {
        None
    }

    /// The values that it assigns to states, for diagnoses; `None` (default) where it has none.
    fn value(&self) -> Option<LearnedValue> {
        None
    }

    /// Its policy rolled out in its model, acting as in evaluations, for diagnoses: from observations `starts` `[N, O]`, over `steps` steps.
    /// Noise is drawn from `key`. `None` (default) where it has no policy, or no fitted model.
    ///
    /// # Errors
    /// As [`imagine`](crate::imagine()).
    fn roll_out_in_model(&self, starts: &[f32], steps: usize, key: u64) -> Result<Option<Rollouts>, AgentError> {
        let _ = (starts, steps, key);
        Ok(None)
    }

    /// The policy that it learns, as it is now, to be [exported](crate::ExportedPolicy); `None` (default) for agents that plan.
    fn policy_network(&self) -> Option<PolicyNetwork> {
        None
    }

    /// The model that it plans in, as bytes, where that is all it has learned: to be [exported](crate::ExportedAgent), or used on another
    /// task. `None` (default) where there is no such model, or none yet.
    ///
    /// # Errors
    /// What keeps the model from being written.
    fn planned_model(&self) -> Result<Option<Vec<u8>>, AgentError> {
        Ok(None)
    }

    /// From now on, plans in a model that another learner [gave](Self::planned_model). Returns `false` (default) if it plans in no model of
    /// its own.
    ///
    /// # Errors
    /// [`AgentError::Model`] for bytes that are damaged or of another model; nothing changes then.
    fn plan_in(&mut self, model: &[u8]) -> Result<bool, AgentError> {
        let _ = model;
        Ok(false)
    }
}

/// The values that an agent assigns to states.
#[derive(Clone)]
#[non_exhaustive]
pub struct LearnedValue {
    /// The value of a state.
    pub value: Arc<dyn Value>,
    /// Its discount per step.
    pub discount: f32,
}

impl LearnedValue {
    /// A value of discounted rewards.
    #[must_use]
    pub fn new(value: Arc<dyn Value>, discount: f32) -> Self {
        Self { value, discount }
    }
}

impl fmt::Debug for LearnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LearnedValue").field("discount", &self.discount).finish_non_exhaustive()
    }
}

/// What an agent has learned of its world.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Learned<'a> {
    /// The model.
    pub model: &'a dyn Dynamics,
    /// Whether it was fitted: until then its predictions mean nothing.
    pub is_fitted: bool,
    /// All data so far.
    pub replay: &'a Replay,
}

impl fmt::Debug for Learned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transitions = self.replay.len();
        f.debug_struct("Learned").field("is_fitted", &self.is_fitted).field("transitions", &transitions).finish()
    }
}

impl<'a> Learned<'a> {
    /// A model, and the data it is learned from.
    #[must_use]
    pub fn new(model: &'a dyn Dynamics, is_fitted: bool, replay: &'a Replay) -> Self {
        Self { model, is_fitted, replay }
    }
}

/// Acts at random: the baseline, and the first explorer. Uniformly, unless it is told to act [smoothly](Self::smooth).
#[derive(Debug, Clone)]
pub struct RandomAgent {
    actions: ActionSpace,
    /// Standard deviation in half ranges, and the share that is new per step.
    smooth: Option<[f32; 2]>,
}

impl RandomAgent {
    /// A random agent for an action space.
    #[must_use]
    pub fn new(actions: ActionSpace) -> Self {
        Self { actions, smooth: None }
    }

    /// Lets actions wander around the middle of their ranges: they are normal, with standard deviation `sigma` in half ranges, and at each
    /// step only a share `beta` of an action is new; the rest is the last action's. Values beyond the range are clipped. This way balls in a
    /// hand stay there, whereas uniform actions throw them out. A `sigma` of 0 means uniform actions.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a negative `sigma`, a `beta` outside (0, 1], and actions without bounds.
    pub fn smooth(mut self, sigma: f32, beta: f32) -> Result<Self, AgentError> {
        let refuse = |field, value: f32, rule| Err(AgentError::Config { field, value: value.to_string(), rule });
        if !(sigma.is_finite() && sigma >= 0.0) {
            return refuse("random_sigma", sigma, "a finite number of at least 0");
        }
        if !(beta > 0.0 && beta <= 1.0) {
            return refuse("random_beta", beta, "a number in (0, 1]");
        }
        let bounded = matches!(&self.actions, ActionSpace::Box(space) if space.is_bounded());
        if sigma > 0.0 && !bounded {
            return refuse("random_sigma", sigma, "0 for actions that are choices or have no bounds");
        }
        self.smooth = (sigma > 0.0).then_some([sigma, beta]);
        Ok(self)
    }
}

impl Agent for RandomAgent {
    fn name(&self) -> &str {
        "random"
    }

    fn act(&mut self, situation: &Situation<'_>, _: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        let (ActionSpace::Box(space), Some([sigma, beta])) = (&self.actions, self.smooth) else {
            return Ok(self.actions.sample(rng)?);
        };
        let kept = 1.0 - beta;
        // Keeps the standard deviation constant.
        let fresh = (1.0 - kept * kept).sqrt() * sigma;
        let last = situation.past.actions.last();
        let bounds = space.low().iter().zip(space.high());
        Ok(bounds
            .enumerate()
            .map(|(i, (low, high))| {
                let (centre, half) = (0.5 * (low + high), 0.5 * (high - low));
                let before = last.map_or(0.0, |action| if half > 0.0 { (action[i] - centre) / half } else { 0.0 });
                (centre + half * (kept * before + fresh * rng.normal())).clamp(*low, *high)
            })
            .collect())
    }

    fn slots(&self) -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::{BoxSpace, History};

    use super::*;

    #[test]
    fn smooth_actions_have_their_spread_and_their_memory() {
        let actions = ActionSpace::Box(BoxSpace::new(vec![-1.0, 0.0], vec![1.0, 10.0]).unwrap());
        let mut agent = RandomAgent::new(actions.clone()).smooth(0.2, 0.3).unwrap();
        let (mut past, mut rng, mut all) = (History::default(), Rng::new(4), Vec::new());
        for _ in 0..20_000 {
            let action =
                agent.act(&Situation { past: &past, ..Situation::of(&[]) }, ActMode::Explore, &mut rng).unwrap();
            past.push(Vec::new(), action.clone(), 1);
            all.push([action[0], (action[1] - 5.0) / 5.0]);
        }
        for i in 0..2 {
            let n = all.len() as f32;
            let variance = all.iter().map(|a| a[i] * a[i]).sum::<f32>() / n;
            let lagged = all.windows(2).map(|pair| pair[0][i] * pair[1][i]).sum::<f32>() / n;
            assert!((variance.sqrt() - 0.2).abs() < 0.01, "{variance}");
            assert!((lagged / variance - 0.7).abs() < 0.03, "{}", lagged / variance);
        }
        // Wide ones are clipped at the bounds; a sigma of 0 is uniform.
        let mut wide = RandomAgent::new(actions.clone()).smooth(9.0, 1.0).unwrap();
        let action = wide.act(&Situation::of(&[]), ActMode::Explore, &mut rng).unwrap();
        assert!((-1.0..=1.0).contains(&action[0]) && (0.0..=10.0).contains(&action[1]));
        let mut plain = RandomAgent::new(actions.clone()).smooth(0.0, 1.0).unwrap();
        let mut uniform = RandomAgent::new(actions.clone());
        let drawn =
            |agent: &mut RandomAgent| agent.act(&Situation::of(&[]), ActMode::Explore, &mut Rng::new(1)).unwrap();
        assert_eq!(drawn(&mut plain), drawn(&mut uniform));
        for (sigma, beta, field) in
            [(-1.0, 0.5, "random_sigma"), (f32::NAN, 0.5, "random_sigma"), (0.1, 0.0, "random_beta")]
        {
            let error = RandomAgent::new(actions.clone()).smooth(sigma, beta).unwrap_err();
            assert!(matches!(error, AgentError::Config { field: named, .. } if named == field));
        }
        assert!(RandomAgent::new(ActionSpace::Discrete(3)).smooth(0.1, 0.5).is_err());
    }
}
