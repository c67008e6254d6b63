//! Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905).
//!
//! ```text
//! y  = r + γ (1 − terminated) (min Q'(s', a') − α log π(a'|s')),   a' ~ π(s')
//! Q: ½ mean (Q(s, a) − y)²          π: mean (α log π(u|s) − min Q(s, u)),  u ~ π(s)
//! α: −log α · mean (log π(u|s) + H)  with the target H of the entropy       Q' ← (1 − τ) Q' + τ Q
//! ```
//!
//! Within an update all use the temperature from before it; the actor climbs the critics after their step, as in
//! Stable-Baselines3. Log-probabilities, and with them H, are of actions in [−1, 1].

use std::sync::Arc;

use mbrl_env::{Batch, EnvSpec, Rng, Value};
use serde::{Deserialize, Serialize};

use super::{
    ActorCritic, CriticPass, Critics, CriticsConfig, Lookahead, OffPolicy, PolicyValue, Prepared, bootstrapped,
    check_loss, mean, step_critics,
};
use crate::{
    Actor, ActorConfig, ActorHead, ActorPass, AgentError, CheckpointReader, CheckpointWriter, Policy, PolicyDraw,
    Report, ReportKind,
};

/// Constants of SAC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SacConfig {
    /// γ (default: 0.99).
    pub discount: f32,
    /// Weight of the entropy α at the start (default: 1, softlearning and Stable-Baselines3).
    pub initial_temperature: f32,
    /// Whether α is learned, so that the entropy stays near its target (default: yes).
    pub learn_temperature: bool,
    /// Adam's step size for log α (default 3e-4).
    pub temperature_learning_rate: f32,
    /// Target of the entropy in nats for each entry of an action (default: −1, so −A in all).
    pub target_entropy: f32,
    /// Least and largest log of the policy's standard deviations (default: −20, 2).
    pub log_std: [f32; 2],
    /// Actor and temperature learn in every n-th update, where n is this number (default: 1).
    pub actor_every: u64,
}

impl Default for SacConfig {
    fn default() -> Self {
        Self {
            discount: 0.99,
            initial_temperature: 1.0,
            learn_temperature: true,
            temperature_learning_rate: 3e-4,
            target_entropy: -1.0,
            log_std: [-20.0, 2.0],
            actor_every: 1,
        }
    }
}

impl SacConfig {
    /// An untrained learner for an environment like `spec`.
    ///
    /// # Errors
    /// [`AgentError::Config`] for actions that are discrete or have no bounds, or a value that breaks a rule.
    pub fn init(
        &self,
        spec: &EnvSpec,
        actor: &ActorConfig,
        critics: &CriticsConfig,
        rng: &mut Rng,
    ) -> Result<Sac, AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if !(0.0..=1.0).contains(&self.discount) {
            return refuse("discount", self.discount.to_string(), "a number in [0, 1]");
        }
        if !(self.initial_temperature > 0.0 && self.initial_temperature.is_finite()) {
            return refuse("initial_temperature", self.initial_temperature.to_string(), "a finite number above 0");
        }
        if !(self.temperature_learning_rate >= 0.0 && self.temperature_learning_rate.is_finite()) {
            let value = self.temperature_learning_rate.to_string();
            return refuse("temperature_learning_rate", value, "a finite number of at least 0");
        }
        if !self.target_entropy.is_finite() {
            return refuse("target_entropy", self.target_entropy.to_string(), "a finite number of nats");
        }
        if self.actor_every == 0 {
            return refuse("actor_every", "0".into(), "at least 1");
        }
        let actor = actor.init(spec, ActorHead::Gaussian { log_std: self.log_std }, rng)?;
        let critics = critics.init(actor.inputs().width(), actor.action_width(), rng)?;
        Ok(Sac {
            config: self.clone(),
            actor,
            critics,
            temperature: Temperature::new(self.initial_temperature),
            updates: 0,
            prepared: Prepared::default(),
            actor_pass: ActorPass::default(),
            critic_pass: CriticPass::default(),
        })
    }
}

/// log α and Adam's moments of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Temperature {
    log: f32,
    first: f32,
    second: f32,
    steps: u32,
}

impl Temperature {
    fn new(value: f32) -> Self {
        Self { log: value.ln(), first: 0.0, second: 0.0, steps: 0 }
    }

    fn value(&self) -> f32 {
        self.log.exp()
    }

    /// One step of Adam against a gradient of log α.
    fn step(&mut self, gradient: f32, learning_rate: f32) {
        const BETAS: [f32; 2] = [0.9, 0.999];
        const EPSILON: f32 = 1e-8;
        self.steps = self.steps.saturating_add(1);
        self.first = BETAS[0] * self.first + (1.0 - BETAS[0]) * gradient;
        self.second = BETAS[1] * self.second + (1.0 - BETAS[1]) * gradient * gradient;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let first = self.first / (1.0 - BETAS[0].powi(steps));
        let second = self.second / (1.0 - BETAS[1].powi(steps));
        self.log -= learning_rate * first / (second.sqrt() + EPSILON);
    }

    fn save(&self) -> Vec<u8> {
        let numbers = [self.log, self.first, self.second].map(f32::to_bits);
        numbers.into_iter().chain([self.steps]).flat_map(u32::to_le_bytes).collect()
    }

    fn load(bytes: &[u8]) -> Option<Self> {
        let [log, first, second, steps] =
            bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let [log, first, second] = [log, first, second].map(f32::from_bits);
        let whole = bytes.len() == 16 && [log, first, second].iter().all(|x| x.is_finite());
        whole.then_some(Self { log, first, second, steps })
    }
}

/// Soft actor-critic. Made by [`SacConfig::init`].
///
/// ```
/// use mbrl_env::{Env, Replay, Rng, collect, tasks};
/// use mbrl_policy::{ActMode, ActorConfig, CriticsConfig, OffPolicy, PolicyDraw, Report, ReportKind, SacConfig};
///
/// struct Quiet;
/// impl Report for Quiet {
///     fn scalar(&mut self, _: ReportKind, _: &str, _: f64) {}
/// }
///
/// let task = tasks::make("pendulum")?;
/// let mut rng = Rng::new(0);
/// let small = ActorConfig { hidden: vec![16], ..ActorConfig::default() };
/// let critics = CriticsConfig { hidden: vec![16], ..CriticsConfig::default() };
/// let mut sac = SacConfig::default().init(task.env.spec(), &small, &critics, &mut rng)?;
///
/// let mut replay = Replay::new(3, 1, 100)?;
/// # let (obs, next_obs) = (vec![1.0, 0.0, 0.0], vec![1.0, 0.0, 0.1]);
/// # replay.push(&mbrl_env::Transition { obs, action: vec![2.0], reward: -1.0, next_obs, terminated: false, truncated: false })?;
/// // … push transitions, then:
/// sac.improve(&replay.sample_batch(32, &mut rng)?, None, &mut rng, &mut Quiet)?;
/// let action = sac.policy().act(&[1.0, 0.0, 0.0], ActMode::Evaluate, PolicyDraw::new(0));
/// assert!(action[0].abs() <= 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sac {
    pub(super) config: SacConfig,
    pub(super) actor: Actor,
    pub(super) critics: Critics,
    temperature: Temperature,
    pub(super) updates: u64,
    prepared: Prepared,
    actor_pass: ActorPass,
    critic_pass: CriticPass,
}

impl Sac {
    /// The policy.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The policy, mutable.
    pub fn actor_mut(&mut self) -> &mut Actor {
        &mut self.actor
    }

    /// The critics.
    #[must_use]
    pub fn critics(&self) -> &Critics {
        &self.critics
    }

    /// The critics, mutable.
    pub fn critics_mut(&mut self) -> &mut Critics {
        &mut self.critics
    }

    /// Weight of the entropy, α.
    #[must_use]
    pub fn temperature(&self) -> f32 {
        self.temperature.value()
    }

    /// Updates so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Targets of the critics `[B]`: what [`improve`](OffPolicy::improve) uses unless a [`Lookahead`] gives others.
    fn targets(&mut self, batch: &Batch, alpha: f32, draw: u64, dropout: u64) -> Vec<f32> {
        let Self { config, actor, critics, prepared, actor_pass, critic_pass, .. } = self;
        let parts = ActorCritic { actor, critics, temperature: alpha, discount: config.discount };
        let values = parts.next_values(&prepared.next_inputs, [draw, dropout], actor_pass, critic_pass);
        bootstrapped(&batch.rewards, &batch.terminated, config.discount, &values)
    }

    /// The temperature's step after actions of this mean log-probability, where it is learned.
    pub(super) fn learn_temperature(&mut self, log_prob: f64) {
        if self.config.learn_temperature {
            let target = f64::from(self.config.target_entropy) * self.actor.action_width() as f64;
            self.temperature.step(-(log_prob + target) as f32, self.config.temperature_learning_rate);
        }
    }

    /// The actor's own step; its loss. Log-probabilities are left in the pass.
    fn step_actor(&mut self, alpha: f32, draw: u64, dropout: u64) -> (f64, f64) {
        let Self { actor, critics, prepared, actor_pass, critic_pass, .. } = self;
        actor.sample(&prepared.inputs, PolicyDraw::new(draw), true, actor_pass);
        critics.values_to_learn(&prepared.inputs, actor_pass.actions(), dropout, critic_pass);
        let share = 1.0 / actor_pass.log_probs().len() as f32;
        let (values, _, by_action) = critics.actor_gradient(critic_pass, -share);
        let (value, log_prob) = (mean(&values), mean(actor_pass.log_probs()));
        let by_log_prob = vec![alpha * share; values.len()];
        let grad_out = actor.pull(actor_pass, &by_action, &by_log_prob);
        actor.step(actor_pass, &grad_out);
        (f64::from(alpha) * log_prob - value, value)
    }
}

const TEMPERATURE: &str = "temperature.bin";
const UPDATES: &str = "updates.bin";

impl OffPolicy for Sac {
    fn name(&self) -> &str {
        "sac"
    }

    fn policy(&self) -> &dyn Policy {
        &self.actor
    }

    fn parts(&self) -> ActorCritic<'_> {
        let Self { actor, critics, .. } = self;
        ActorCritic { actor, critics, temperature: self.temperature.value(), discount: self.config.discount }
    }

    fn value(&self) -> Arc<dyn Value> {
        Arc::new(PolicyValue::new(&self.actor, &self.critics))
    }

    fn observe(&mut self, obs: &[f32]) {
        self.actor.observe(obs);
    }

    fn improve(
        &mut self,
        batch: &Batch,
        look: Option<&dyn Lookahead>,
        rng: &mut Rng,
        report: &mut dyn Report,
    ) -> Result<(), AgentError> {
        self.prepared.fill(batch, &self.actor)?;
        self.critics.observe_rewards(&batch.rewards, self.config.discount);
        let [next_draw, next_dropout, dropout, draw, actor_dropout] = std::array::from_fn(|_| rng.key());
        let alpha = self.temperature.value();
        let given = look.map(|look| look.targets(batch, self.parts(), rng)).transpose()?;
        let targets = match given.flatten() {
            Some(targets) => targets,
            None => self.targets(batch, alpha, next_draw, next_dropout),
        };
        let Self { critics, prepared, critic_pass, .. } = self;
        step_critics(critics, prepared, &targets, (dropout, self.updates), critic_pass, report)?;
        if self.updates.is_multiple_of(self.config.actor_every) {
            let given = look.map(|look| look.actor_loss(batch, self.parts(), rng)).transpose()?;
            let (loss, log_prob) = match given.flatten() {
                Some(gradient) => {
                    let pass = &mut self.actor_pass;
                    self.actor.sample(&gradient.inputs, PolicyDraw::new(draw), true, pass);
                    self.actor.step(pass, &gradient.grad_out);
                    (gradient.loss, mean(&gradient.log_probs))
                }
                None => {
                    let (loss, _) = self.step_actor(alpha, draw, actor_dropout);
                    (loss, mean(self.actor_pass.log_probs()))
                }
            };
            check_loss("actor/loss", loss, self.updates)?;
            self.learn_temperature(log_prob);
            report.scalar(ReportKind::Policy, "actor/loss", loss);
            report.scalar(ReportKind::Policy, "actor/entropy", -log_prob);
            report.scalar(ReportKind::Policy, "actor/temperature", f64::from(alpha));
        }
        self.critics.track();
        self.updates += 1;
        Ok(())
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.scope("actor", |into| self.actor.save(into))?;
        into.scope("critics", |into| self.critics.save(into))?;
        into.put(TEMPERATURE, &self.temperature.save())?;
        save_updates(self.updates, into)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        self.actor.load(&from.scope("actor"))?;
        self.critics.load(&from.scope("critics"))?;
        let broken = || from.refuse(TEMPERATURE, "no whole temperature with its moments".into());
        self.temperature = Temperature::load(from.get(TEMPERATURE)?).ok_or_else(broken)?;
        self.updates = load_updates(from)?;
        Ok(())
    }
}

/// Reads the number of updates from a checkpoint.
pub(super) fn load_updates(from: &CheckpointReader) -> Result<u64, AgentError> {
    let bytes = from.get(UPDATES)?.try_into();
    bytes.map(u64::from_le_bytes).map_err(|_| from.refuse(UPDATES, "expected a number of 8 bytes".into()))
}

/// Writes the number of updates into a checkpoint.
pub(super) fn save_updates(updates: u64, into: &mut CheckpointWriter) -> Result<(), AgentError> {
    into.put(UPDATES, &updates.to_le_bytes())
}
