//! Learning a policy in a learned model.
//!
//! ```text
//! act at random until the first fit, by the policy from then on
//! after each real step: append it to the data; where a fit is due, fit the model to all data
//!   every so many steps: roll the policy out in the model from states of the data; keep the last so many of such generations
//!   improve the policy on batches of imagined and real transitions, `updates` times
//! ```
//!
//! | | starts of roll-outs | steps of a roll-out | updates per real step | gradients through the model |
//! |---|---|---|---|---|
//! | MBPO \[1\] | all states seen | 1, growing | 20 to 40 | no |
//! | DHMBPO \[2\] (default) | all states seen | 20 | 1 | 3 to 5 steps |
//! | SVG \[3\] | real states alone (`rollout.count = 0`) | – | 1 | 1 to 9 steps |
//!
//! With each imagined step the model's errors grow, while states that the policy itself does not reach become rarer. Where roll-outs start
//! and how far they go therefore decides what the policy learns from ([`RolloutStarts`]).
//!
//! ## References
//! \[1\] Janner et al. (2019), *When to Trust Your Model: Model-Based Policy Optimization*, NeurIPS.
//! \[2\] Kubo et al. (2025), *Double Horizon Model-Based Policy Optimization*, arXiv 2512.15439.
//! \[3\] Amos et al. (2021), *On the model-based stochastic value gradient for continuous reinforcement learning*, L4DC.

mod config;
mod generations;

use mbrl_env::{Replay, Rng, Situation, Transition};
use mbrl_model::{Draw, DynamicsSpec, Ensemble, LearnedModel, Propagation};
use serde::{Deserialize, Serialize};

pub use self::config::{GrowingLength, Imagining, MbpoConfig, RolloutConfig, RolloutLength, RolloutStarts};
use self::generations::{Generations, concat};
use crate::{
    ActMode, Agent, AgentError, CheckpointReader, CheckpointWriter, Goal, Learned, LearnedValue, Learner, ModelLearner,
    ModelLookahead, OffPolicy, Phase, PolicyDraw, PolicyNetwork, RandomAgent, Report, ReportKind,
    imagine::{Imagination, Rollouts, imagine},
    policy::follow,
};

/// Collects, fits, imagines and improves a policy on what it imagines. Made by [`MbpoConfig::init`].
#[derive(Debug)]
pub struct Mbpo<M = Ensemble, L = crate::Sac> {
    learner: ModelLearner<M>,
    config: MbpoConfig,
    rollout: RolloutConfig,
    /// The task's time limit, in steps.
    limit: Option<u32>,
    propagation: Propagation,
    goal: Goal,
    explorer: RandomAgent,
    policy: L,
    slots: usize,
    imagined: Generations,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Real steps whose updates were made.
    learned: u64,
    /// Updates since the last generation of roll-outs.
    since: u64,
    /// Updates in all.
    updates: u64,
    /// The model has changed since the last generation; a new one waits for the next update.
    #[serde(default)]
    fresh: bool,
}

/// From this many updates at once on, displays are told how far they are.
const TOLD: u64 = 100;
const PROGRESS: &str = "mbpo.json";
const IMAGINED: &str = "imagined.bin";

impl<M: LearnedModel, L: OffPolicy> Mbpo<M, L> {
    /// For this many environments in lockstep.
    #[must_use]
    pub fn in_lockstep(mut self, slots: usize) -> Self {
        self.slots = slots.max(1);
        self.learner = self.learner.in_lockstep(slots);
        self
    }

    /// With existing data, and its model taken as fitted to them: a policy can then be learned without a further real step
    /// ([`practise`](Self::practise)).
    ///
    /// # Errors
    /// [`AgentError::Env`] for data of different widths or without a transition.
    pub fn with_data(mut self, data: Replay) -> Result<Self, AgentError> {
        self.policy.observe(&data.columns().obs);
        self.learner = self.learner.with_data(data)?;
        self.progress.learned = self.learner.steps();
        Ok(self)
    }

    /// Improves the policy this many times with what the model imagines from the data so far, without a real step.
    ///
    /// # Errors
    /// As those of an update; [`AgentError::Config`] where the model was never fitted.
    pub fn practise(&mut self, updates: u64, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        if !self.learner.is_fitted() {
            let rule = "a model that was fitted, or data by with_data";
            return Err(AgentError::Config { field: "model", value: "never fitted".into(), rule });
        }
        self.progress.fresh |= self.imagined.len() == 0;
        self.learn(updates, rng, report)
    }

    /// Updates the policy, with new generations of roll-outs when they are due, or at once if the model has changed.
    fn learn(&mut self, updates: u64, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let every = self.rollout.every * self.config.updates;
        for update in 1..=updates {
            if self.rollout.count > 0 && (self.progress.fresh || self.progress.since >= every) {
                self.imagine(rng, report)?;
                (self.progress.fresh, self.progress.since) = (false, 0);
            }
            self.improve(rng, report)?;
            self.progress.since += 1;
            self.progress.updates += 1;
            if updates >= TOLD {
                report.progress(Phase::Updating { update, updates });
            }
        }
        Ok(())
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &M {
        self.learner.model()
    }

    /// The learner that improves the policy.
    #[must_use]
    pub fn policy(&self) -> &L {
        &self.policy
    }

    /// Real data so far.
    #[must_use]
    pub fn replay(&self) -> &Replay {
        self.learner.replay()
    }

    /// Imagined transitions that are kept.
    #[must_use]
    pub fn imagined(&self) -> usize {
        self.imagined.len()
    }

    /// A generation of roll-outs.
    fn imagine(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let replay = self.learner.replay();
        let positions: Vec<usize> = match self.rollout.starts {
            RolloutStarts::Seen => (0..self.rollout.count).map(|_| rng.below(replay.len())).collect(),
            RolloutStarts::Initial | RolloutStarts::Episodes => {
                let mut first: Vec<usize> = replay.episodes().map(|episode| episode.start).collect();
                // A full replay has cut the beginning off its oldest episode.
                if replay.pushed() > replay.len() as u64 && first.len() > 1 {
                    first.remove(0);
                }
                (0..self.rollout.count).map(|_| first[rng.below(first.len())]).collect()
            }
        };
        let steps = match (self.rollout.starts, self.limit) {
            (RolloutStarts::Episodes, Some(limit)) => limit as usize,
            _ => self.rollout.length.at(self.learner.steps()),
        };
        let starts = replay.gather(positions).obs;
        let scale = match self.rollout.penalty > 0.0 || self.rollout.stop_at > 0.0 {
            true => Some(changes(replay, self.learner.model().spec())),
            false => None,
        };
        let (key, draw) = (rng.key(), Draw::new(self.propagation, rng.key()));
        let policy = self.policy.policy();
        let mut act =
            |obs: &[f32], t: usize| Ok(policy.act(obs, ActMode::Explore, PolicyDraw::new(key).at_step(t as u32)));
        let imagination = Imagination {
            model: self.learner.model(),
            goal: &self.goal,
            scale: scale.as_deref(),
            penalty: self.rollout.penalty,
            stop_at: self.rollout.stop_at,
        };
        let rollouts = imagination.roll_out(&mut act, &starts, steps, draw)?;
        let batch = rollouts.to_batch();
        let rows = rollouts.rows.max(1) as f64;
        report.scalar(ReportKind::Policy, "imagined/steps", batch.len() as f64 / rows);
        report.scalar(ReportKind::Policy, "imagined/broken", rollouts.broken as f64 / rows);
        if !batch.is_empty() {
            let reward = batch.rewards.iter().sum::<f64>() / batch.len() as f64;
            report.scalar(ReportKind::Policy, "imagined/reward", reward);
            self.imagined.push(batch, self.rollout.keep);
        }
        Ok(())
    }

    /// One update of the policy.
    fn improve(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let size = self.config.batch_size;
        let real = match self.imagined.len() {
            0 => size,
            _ => self.config.real_rows(),
        };
        let imagined = self.imagined.draw(size - real, rng);
        let replay = self.learner.replay();
        let real: Vec<usize> = (0..real).map(|_| rng.below(replay.len())).collect();
        if self.config.training_rollout == 0 {
            let mut batches = self.imagined.gather(&imagined);
            if !real.is_empty() {
                batches.push(replay.gather(real));
            }
            return self.policy.improve(&concat(batches), None, rng, report);
        }
        let real = replay.gather(real);
        let MbpoConfig { real_targets, imagined_targets, training_rollout: steps, .. } = self.config;
        // What critics learn as it came stands last.
        let (mut obs, mut came) = (Vec::new(), Vec::new());
        if imagined_targets {
            came = self.imagined.gather(&imagined);
        } else {
            obs = self.imagined.observations(&imagined);
        }
        if real_targets {
            came.push(real);
        } else {
            obs.extend_from_slice(&real.obs);
        }
        let came = (!came.is_empty()).then(|| concat(came));
        obs.extend(came.iter().flat_map(|came| came.obs.iter()));
        let draw = Draw::new(self.propagation, rng.key());
        let mut look = ModelLookahead::new(self.learner.model(), &self.goal, self.policy.parts(), &obs, steps, draw)?;
        if let Some(came) = &came {
            look = look.with_transitions(came)?;
        }
        self.policy.improve(look.batch(), Some(&look), rng, report)
    }
}

/// Standard deviations of the changes of each column, `[O]`, those of angles that wrap taken the short way round. Infinite, so that the
/// column does not count, where the model knows the next value or the column changes by less than a millionth of its largest value.
fn changes(replay: &Replay, spec: &DynamicsSpec) -> Vec<f32> {
    let columns = replay.columns();
    let (o, n) = (columns.obs_width, columns.len() as f64);
    let mut sums = vec![[0.0f64; 2]; o];
    let mut largest = vec![0.0f64; o];
    for (now, next) in columns.obs.chunks(o).zip(columns.next_obs.chunks(o)) {
        for column in 0..o {
            let change = spec.difference(column, f64::from(next[column]) - f64::from(now[column]));
            let [sum, square] = sums[column];
            sums[column] = [sum + change, square + change * change];
            largest[column] = largest[column].max(f64::from(next[column]).abs());
        }
    }
    let std = |[sum, square]: [f64; 2]| (square / n - (sum / n).powi(2)).max(0.0).sqrt();
    let scale = |column: usize| match std(sums[column]) {
        std if std > 1e-6 * largest[column] && !spec.known.contains(&column) => std as f32,
        _ => f32::INFINITY,
    };
    (0..o).map(scale).collect()
}

impl<M: LearnedModel, L: OffPolicy> Agent for Mbpo<M, L> {
    fn name(&self) -> &str {
        "mbpo"
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        if mode == ActMode::Explore && !self.learner.is_fitted() {
            return self.explorer.act(situation, mode, rng);
        }
        follow(self.policy.policy(), situation, mode, rng)
    }

    fn slots(&self) -> usize {
        self.slots
    }
}

impl<M: LearnedModel, L: OffPolicy> Learner for Mbpo<M, L> {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.observe_in(0, transition)
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.truncate_episode_in(0)
    }

    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        self.learner.observe(slot, transition)?;
        self.policy.observe(&transition.obs);
        Ok(())
    }

    fn truncate_episode_in(&mut self, slot: usize) -> Result<(), AgentError> {
        self.learner.truncate_episode(slot)
    }

    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        self.progress.fresh |= self.learner.update(rng, report)?;
        let steps = self.learner.steps();
        if !self.learner.is_fitted() {
            if !self.config.catch_up {
                self.progress.learned = steps;
            }
            return Ok(());
        }
        let due = (steps - self.progress.learned) * self.config.updates;
        self.progress.learned = steps;
        self.learn(due, rng, report)
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        self.learner.save(into)?;
        into.put_json(PROGRESS, &self.progress)?;
        into.put(IMAGINED, &self.imagined.save())?;
        into.scope("learner", |into| self.policy.save(into))
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let progress = from.get_json(PROGRESS)?;
        let spec = self.learner.model().spec();
        let imagined = Generations::load(from.get(IMAGINED)?, [spec.obs, spec.action])
            .ok_or_else(|| from.refuse(IMAGINED, "no whole generations of imagined transitions".into()))?;
        self.learner.load(from)?;
        self.policy.load(&from.scope("learner"))?;
        (self.progress, self.imagined) = (progress, imagined);
        Ok(())
    }

    fn learned(&self) -> Option<Learned<'_>> {
        Some(self.learner.learned())
    }

    fn value(&self) -> Option<LearnedValue> {
        Some(LearnedValue::new(self.policy.value(), self.policy.parts().discount))
    }

    fn roll_out_in_model(&self, starts: &[f32], steps: usize, key: u64) -> Result<Option<Rollouts>, AgentError> {
        if !self.learner.is_fitted() {
            return Ok(None);
        }
        let mut rng = Rng::new(key);
        let (act_key, draw) = (rng.key(), Draw::new(self.propagation, rng.key()));
        let policy = self.policy.policy();
        let mut act =
            |obs: &[f32], t: usize| Ok(policy.act(obs, ActMode::Evaluate, PolicyDraw::new(act_key).at_step(t as u32)));
        imagine(self.learner.model(), &self.goal, &mut act, starts, steps, draw).map(Some)
    }

    fn policy_network(&self) -> Option<PolicyNetwork> {
        Some(self.policy.parts().actor.clone().into())
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::{ActionSpace, AngleColumn, BoxSpace, EnvSpec};
    use mbrl_model::{Device, EnsembleConfig, FitConfig};

    use super::*;
    use crate::{ActorConfig, CriticsConfig, SacConfig};

    struct Quiet;

    impl Report for Quiet {
        fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
    }

    /// Episodes of six steps that start at 0 and count up.
    fn agent(rollout: RolloutConfig) -> Mbpo<Ensemble, crate::Sac> {
        agent_that_keeps(1000, rollout)
    }

    fn agent_that_keeps(replay_capacity: usize, rollout: RolloutConfig) -> Mbpo<Ensemble, crate::Sac> {
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, 1.0).unwrap());
        let mut spec = EnvSpec::new("line", BoxSpace::unbounded(1), actions, 0.1);
        spec.max_steps = Some(6);
        let mut rng = Rng::new(0);
        let config = EnsembleConfig { members: 2, hidden: vec![8], reward: true, ..EnsembleConfig::default() };
        let model = config.init(1, 1, &Device::flex(), &mut rng).unwrap();
        let actor = ActorConfig { hidden: vec![8], ..ActorConfig::default() };
        let critics = CriticsConfig { hidden: vec![8], ..CriticsConfig::default() };
        let sac = SacConfig::default().init(&spec, &actor, &critics, &mut rng).unwrap();
        let imagining = Imagining { goal: Goal::of_model(), rollout, propagation: Propagation::MEAN };
        let config = MbpoConfig { random_steps: 1000, replay_capacity, ..MbpoConfig::default() };
        let mut agent = config.init(&spec, model, FitConfig::default(), imagining, sac).unwrap();
        for _ in 0..4 {
            for x in 0..6 {
                let (obs, next_obs) = (vec![x as f32], vec![x as f32 + 1.0]);
                let transition =
                    Transition { obs, action: vec![0.0], reward: 0.0, next_obs, terminated: false, truncated: x == 5 };
                agent.observe(&transition).unwrap();
            }
        }
        agent
    }

    #[test]
    fn roll_outs_start_where_they_are_told_to_and_go_as_far() {
        let length = RolloutLength::Fixed(3);
        for (starts, steps) in [(RolloutStarts::Seen, 3), (RolloutStarts::Initial, 3), (RolloutStarts::Episodes, 6)] {
            let mut agent = agent(RolloutConfig { starts, length, count: 40, ..RolloutConfig::default() });
            agent.imagine(&mut Rng::new(1), &mut Quiet).unwrap();
            assert_eq!(agent.imagined(), 40 * steps, "{starts:?}");
            let first = &agent.imagined.0[0].obs[..40];
            let late = first.iter().filter(|x| **x > 0.0).count();
            // Five of six states are no initial ones; 4 standard deviations from it.
            let expected = if starts == RolloutStarts::Seen { 24..=40 } else { 0..=0 };
            assert!(expected.contains(&late), "{starts:?}: {first:?}");
        }
    }

    #[test]
    fn an_episode_whose_beginning_is_lost_is_no_initial_state() {
        // Of 24 transitions the last 15 are kept: the oldest episode begins at 3.
        let length = RolloutLength::Fixed(1);
        let rollout = RolloutConfig { starts: RolloutStarts::Initial, length, count: 40, ..RolloutConfig::default() };
        let mut agent = agent_that_keeps(15, rollout);
        assert_eq!(agent.replay().get(0).unwrap().obs, [3.0]);
        agent.imagine(&mut Rng::new(1), &mut Quiet).unwrap();
        assert!(agent.imagined.0[0].obs[..40].iter().all(|x| *x == 0.0));
    }

    #[test]
    fn a_generation_that_a_fit_calls_for_waits_for_the_next_update() {
        let mut agent = agent(RolloutConfig { length: RolloutLength::Fixed(3), count: 5, ..RolloutConfig::default() });
        let mut rng = Rng::new(1);
        agent.progress.fresh = true;
        // An episode broke down: a fit, and no step whose update would come.
        agent.learn(0, &mut rng, &mut Quiet).unwrap();
        assert_eq!(agent.imagined(), 0);
        agent.learn(1, &mut rng, &mut Quiet).unwrap();
        assert_eq!(agent.imagined(), 15);
        agent.learn(1, &mut rng, &mut Quiet).unwrap();
        assert_eq!(agent.imagined(), 15);
    }

    #[test]
    fn changes_are_measured_per_column_and_columns_that_need_no_model_do_not_count() {
        let mut replay = Replay::new(4, 1, 10).unwrap();
        for change in [-1.0f32, 1.0, -1.0, 1.0] {
            // One that changes, one that does not, an angle that jumps at 360, and one that is known.
            let obs = vec![5.0, 7.0, 180.0 + 179.0 * change, 0.0];
            let next_obs = vec![5.0 + 2.0 * change, 7.0, 180.0 - 179.0 * change, change];
            let transition =
                Transition { obs, action: vec![0.0], reward: 0.0, next_obs, terminated: false, truncated: false };
            replay.push(&transition).unwrap();
        }
        let mut spec = DynamicsSpec::new("test", 4, 1, &Device::flex());
        spec.angles = vec![AngleColumn { column: 2, turn: 360.0, wraps: true }];
        spec.known = vec![3];
        let scale = changes(&replay, &spec);
        assert!((scale[0] - 2.0).abs() < 1e-6 && (scale[2] - 2.0).abs() < 1e-4, "{scale:?}");
        assert_eq!([scale[1], scale[3]], [f32::INFINITY; 2]);
    }
}
