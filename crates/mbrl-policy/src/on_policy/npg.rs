//! Natural policy gradients.

use std::mem;

use mbrl_env::{EnvSpec, Rng, Situation, Transition, check_width};
use serde::{Deserialize, Serialize};

use super::{
    Baseline, BaselineConfig, StochasticConfig, StochasticPolicy, advantages,
    advantages::{returns, standardise},
    conjugate_gradients,
};
use crate::{
    ActMode, Acted, Agent, AgentError, CheckpointReader, CheckpointWriter, Learner, Policy, PolicyDraw, PolicyNetwork,
    Report, ReportKind, Turn,
};

/// Constants of natural policy gradients (Kakade 2001; Rajeswaran et al. 2017, whose program mjrl gives the defaults where no
/// other source is named).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NpgConfig {
    /// Real steps of a batch at least: it ends with the episodes that are then running (default: 2000; ours, for small tasks).
    pub batch_steps: u64,
    /// Discount of rewards, γ (default 0.995; mjrl's programs).
    pub discount: f64,
    /// λ of generalised advantage estimation (default 0.97; mjrl's programs).
    pub lambda: f64,
    /// Size δ of an update in the metric of the policy: about twice the divergence of the new policy from the old one (default
    /// 0.01). mjrl's programs have up to 0.1.
    pub step_size: f64,
    /// Multiple of the identity that is added to the Fisher information (default 1e-4).
    pub damping: f64,
    /// Conjugate-gradient steps per update (default: 10).
    pub iterations: usize,
}

impl Default for NpgConfig {
    fn default() -> Self {
        Self { batch_steps: 2000, discount: 0.995, lambda: 0.97, step_size: 0.01, damping: 1e-4, iterations: 10 }
    }
}

impl NpgConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`AgentError::Config`], naming the field.
    pub fn validate(&self) -> Result<(), AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if self.batch_steps == 0 {
            return refuse("batch_steps", "0".into(), "at least 1 step");
        }
        for (field, value) in [("discount", self.discount), ("lambda", self.lambda)] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(field, value.to_string(), "a number from 0 to 1");
            }
        }
        for (field, value) in [("step_size", self.step_size), ("damping", self.damping)] {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(field, value.to_string(), "a finite number above 0");
            }
        }
        if self.iterations == 0 {
            return refuse("iterations", "0".into(), "at least 1 conjugate gradient");
        }
        Ok(())
    }

    /// An untrained learner for an environment like `spec`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for actions without bounds, or a value that breaks a rule.
    pub fn init(
        &self,
        spec: &EnvSpec,
        policy: &StochasticConfig,
        baseline: &BaselineConfig,
        rng: &mut Rng,
    ) -> Result<Npg, AgentError> {
        self.validate()?;
        let policy = policy.init(spec, rng)?;
        let baseline = baseline.init(policy.inputs().width(), rng)?;
        Ok(Npg {
            config: self.clone(),
            policy,
            baseline,
            running: vec![Path::default()],
            drawn: vec![None],
            batch: Vec::new(),
            updates: 0,
        })
    }
}

/// Learns a policy by natural gradients: collects whole episodes with it, moves its parameters by
/// `√(δ / gᵀF⁻¹g) · F⁻¹g`, `g` being the gradient of the mean of standardised advantages times log-probabilities and `F` the Fisher
/// information, and discards the episodes. A step whose divergence is above δ, twice what `F` predicts, is halved until it is not
/// (ours; a nearly singular `F` says little about large steps). Made by [`NpgConfig::init`].
///
/// ```
/// use mbrl_env::{Env, Rng, tasks};
/// use mbrl_policy::{BaselineConfig, NpgConfig, StochasticConfig, TrainConfig};
/// # use std::sync::atomic::AtomicBool;
///
/// let mut task = tasks::make("point-mass")?;
/// let config = NpgConfig { batch_steps: 200, ..NpgConfig::default() };
/// let networks = (StochasticConfig::default(), BaselineConfig::default());
/// let mut npg = config.init(task.env.spec(), &networks.0, &networks.1, &mut Rng::new(0))?;
/// let mut training = TrainConfig::default().init(400, 0)?;
/// training.run(&mut task.env, &mut npg, None, &mut (), &AtomicBool::new(false))?;
/// assert_eq!(npg.updates(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Npg {
    config: NpgConfig,
    policy: StochasticPolicy,
    baseline: Baseline,
    /// Episodes that are running, one per slot.
    running: Vec<Path>,
    /// What was drawn for the next step, before it was clipped at the bounds, per slot.
    drawn: Vec<Option<Vec<f32>>>,
    /// Whole episodes since the last update.
    batch: Vec<Path>,
    updates: u64,
}

/// The steps of an episode.
#[derive(Debug, Clone, Default, PartialEq)]
struct Path {
    /// Before each step and, of a whole one, after the last: `[T + 1, O]`.
    obs: Vec<f32>,
    /// As drawn, `[T, A]`.
    drawn: Vec<f32>,
    rewards: Vec<f64>,
    /// After the last step so far.
    after: Vec<f32>,
    terminated: bool,
}

/// A divergence of this many δ is too far: the Fisher information predicts half of one.
const TOO_FAR: f64 = 1.0;
/// How often a step is halved at most.
const HALVINGS: u32 = 10;

const PROGRESS: &str = "agent.json";
const EPISODES: &str = "episodes.bin";

/// What a checkpoint holds beside networks and episodes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    updates: u64,
    /// Episodes of the batch that is not full yet.
    episodes: usize,
}

impl Npg {
    /// For this many environments in lockstep.
    #[must_use]
    pub fn in_lockstep(mut self, slots: usize) -> Self {
        (self.running, self.drawn) = (vec![Path::default(); slots.max(1)], vec![None; slots.max(1)]);
        self
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &StochasticPolicy {
        &self.policy
    }

    /// The value baseline.
    #[must_use]
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Updates so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Steps of the batch so far.
    fn steps(&self) -> u64 {
        self.batch.iter().map(|path| path.rewards.len() as u64).sum()
    }

    /// The running episode of a slot is over.
    fn end(&mut self, slot: usize) {
        let mut path = mem::take(&mut self.running[slot]);
        if !path.rewards.is_empty() {
            path.obs.append(&mut path.after);
            self.batch.push(path);
        }
    }

    /// One update of policy and baseline from the batch, which is then discarded.
    fn improve(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let paths = mem::take(&mut self.batch);
        let NpgConfig { discount, lambda, step_size, damping, iterations, .. } = self.config;
        let width = self.policy.obs_width();
        let (mut obs, mut drawn, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for path in &paths {
            let mut inputs = Vec::new();
            self.policy.inputs().prepare(&path.obs, &mut inputs);
            let mut seen = Vec::new();
            self.baseline.prepare(&inputs, &mut seen);
            let mut values = self.baseline.values(&seen);
            if let Some(last) = values.last_mut().filter(|_| path.terminated) {
                *last = 0.0;
            }
            weights.extend(advantages(&path.rewards, &values, discount, lambda));
            targets.extend(returns(&path.rewards, values[path.rewards.len()], discount));
            seen.truncate(path.rewards.len() * self.baseline.width());
            rows.append(&mut seen);
            obs.extend_from_slice(&path.obs[..path.rewards.len() * width]);
            drawn.extend_from_slice(&path.drawn);
        }
        standardise(&mut weights);

        let batch = self.policy.batch(&obs);
        let gradient = self.policy.score(&batch, &drawn, &weights);
        let size = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        if !size.is_finite() {
            return Err(AgentError::Diverged { what: "gradient of the policy", loss: size, updates: self.updates });
        }
        let product = |direction: &[f64]| {
            let image = self.policy.fisher_product(&batch, direction);
            image.iter().zip(direction).map(|(image, along)| image + damping * along).collect()
        };
        let natural = conjugate_gradients(product, &gradient, iterations);
        let slope: f64 = gradient.iter().zip(&natural).map(|(g, n)| g * n).sum();
        // Without a gradient there is no direction.
        let mut length = if size > 0.0 { (step_size / (slope.abs() + 1e-20)).sqrt() } else { 0.0 };
        let old = self.policy.clone();
        let theta = old.parameters();
        let mut halvings = 0_u32;
        let (after, divergence) = loop {
            let moved: Vec<f32> =
                theta.iter().zip(&natural).map(|(theta, n)| (f64::from(*theta) + length * n) as f32).collect();
            self.policy.set_parameters(&moved);
            let after = self.policy.batch(&obs);
            let divergence = old.divergence(&batch, &self.policy, &after);
            // NaN is too far too.
            if divergence <= TOO_FAR * step_size || halvings == HALVINGS {
                break (after, divergence);
            }
            halvings += 1;
            length *= 0.5;
        };
        if !divergence.is_finite() {
            self.policy = old;
            let what = "divergence of the new policy from the old one";
            return Err(AgentError::Diverged { what, loss: divergence, updates: self.updates });
        }
        let unexplained = self.baseline.fit(&rows, &targets, rng);
        if !unexplained.is_finite() {
            return Err(AgentError::Diverged { what: "value/unexplained", loss: unexplained, updates: self.updates });
        }
        self.updates += 1;
        for (name, value) in [
            ("policy/steps", weights.len() as f64),
            ("policy/gradient_norm", size),
            ("policy/divergence", divergence),
            ("policy/halvings", f64::from(halvings)),
            ("policy/entropy", self.policy.entropy(&after)),
            ("value/unexplained", unexplained),
        ] {
            report.scalar(ReportKind::Policy, name, value);
        }
        // From the next batch on: this one was drawn with the statistics before.
        self.policy.observe(&obs);
        Ok(())
    }
}

impl Agent for Npg {
    fn name(&self) -> &str {
        "npg"
    }

    fn act(&mut self, situation: &Situation<'_>, mode: ActMode, rng: &mut Rng) -> Result<Vec<f32>, AgentError> {
        let turn = Turn { slot: 0, situation: *situation, rng };
        let acted = self.act_batch(vec![turn], mode)?;
        Ok(acted.into_iter().next().map(|acted| acted.action).unwrap_or_default())
    }

    fn slots(&self) -> usize {
        self.running.len()
    }

    fn act_batch(&mut self, turns: Vec<Turn<'_>>, mode: ActMode) -> Result<Vec<Acted>, AgentError> {
        let mut all = Vec::with_capacity(turns.len());
        for Turn { slot, situation, rng } in turns {
            check_width("observation", self.policy.obs_width(), situation.obs.len())?;
            // Judging draws nothing.
            let key = if mode == ActMode::Explore { rng.key() } else { 0 };
            let mut action = self.policy.draw(situation.obs, mode, PolicyDraw::new(key));
            if mode == ActMode::Explore {
                self.drawn[slot] = Some(action.clone());
            }
            self.policy.to_env(&mut action);
            all.push(Acted { action, failure: None });
        }
        Ok(all)
    }
}

impl Learner for Npg {
    fn observe(&mut self, transition: &Transition) -> Result<(), AgentError> {
        self.observe_in(0, transition)
    }

    fn truncate_episode(&mut self) -> Result<(), AgentError> {
        self.truncate_episode_in(0)
    }

    fn observe_in(&mut self, slot: usize, transition: &Transition) -> Result<(), AgentError> {
        check_width("observation", self.policy.obs_width(), transition.obs.len())?;
        check_width("action", self.policy.action_width(), transition.action.len())?;
        // What others chose counts as if it had been drawn.
        let drawn = self.drawn[slot].take().unwrap_or_else(|| self.policy.of_env(&transition.action));
        let path = &mut self.running[slot];
        path.obs.extend_from_slice(&transition.obs);
        path.drawn.extend(drawn);
        path.rewards.push(transition.reward);
        path.after.clone_from(&transition.next_obs);
        path.terminated = transition.terminated;
        if transition.episode_over() {
            self.end(slot);
        }
        Ok(())
    }

    fn truncate_episode_in(&mut self, slot: usize) -> Result<(), AgentError> {
        self.drawn[slot] = None;
        self.end(slot);
        Ok(())
    }

    fn update(&mut self, rng: &mut Rng, report: &mut dyn Report) -> Result<(), AgentError> {
        let all_over = self.running.iter().all(|path| path.rewards.is_empty());
        if all_over && self.steps() >= self.config.batch_steps { self.improve(rng, report) } else { Ok(()) }
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put_json(PROGRESS, &Progress { updates: self.updates, episodes: self.batch.len() })?;
        let mut bytes = Vec::new();
        for path in &self.batch {
            bytes.extend((path.rewards.len() as u64).to_le_bytes());
            bytes.push(u8::from(path.terminated));
            bytes.extend(path.obs.iter().chain(&path.drawn).flat_map(|value| value.to_le_bytes()));
            bytes.extend(path.rewards.iter().flat_map(|value| value.to_le_bytes()));
        }
        into.put(EPISODES, &bytes)?;
        into.scope("policy", |into| self.policy.save(into))?;
        into.scope("baseline", |into| self.baseline.save(into))
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let Progress { updates, episodes } = from.get_json(PROGRESS)?;
        let (obs, action) = (self.policy.obs_width(), self.policy.action_width());
        let mut rest = from.get(EPISODES)?;
        let mut batch = Vec::new();
        for _ in 0..episodes {
            let path = Path::read(&mut rest, obs, action);
            batch.push(path.ok_or_else(|| from.refuse(EPISODES, format!("expected {episodes} whole episodes")))?);
        }
        if !rest.is_empty() {
            return Err(from.refuse(EPISODES, format!("{} bytes behind {episodes} episodes", rest.len())));
        }
        self.policy.load(&from.scope("policy"))?;
        self.baseline.load(&from.scope("baseline"))?;
        (self.batch, self.updates) = (batch, updates);
        self.running.iter_mut().for_each(|path| *path = Path::default());
        self.drawn.iter_mut().for_each(|drawn| *drawn = None);
        Ok(())
    }

    fn policy_network(&self) -> Option<PolicyNetwork> {
        Some(self.policy.clone().into())
    }
}

impl Path {
    /// The next one in a record.
    fn read(rest: &mut &[u8], obs: usize, action: usize) -> Option<Self> {
        let (steps, tail) = rest.split_first_chunk::<8>()?;
        let steps = usize::try_from(u64::from_le_bytes(*steps)).ok()?;
        let (terminated, mut tail) = tail.split_first()?;
        let mut take = |count: usize, bytes: usize| -> Option<&[u8]> {
            let (taken, left) = tail.split_at_checked(count.checked_mul(bytes)?)?;
            tail = left;
            Some(taken)
        };
        let single =
            |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
        let seen = single(take(steps.checked_add(1)?.checked_mul(obs)?, 4)?);
        let drawn = single(take(steps.checked_mul(action)?, 4)?);
        let rewards = take(steps, 8)?.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        *rest = tail;
        Some(Self { obs: seen, drawn, rewards, after: Vec::new(), terminated: *terminated != 0 })
    }
}
