//! Twin delayed deep deterministic policy gradients (Fujimoto et al. 2018, ICML).
//!
//! ```text
//! y = r + γ (1 − terminated) min Q'(s', clip(π'(s') + clip(σ ε, −c, c), −1, 1))
//! Q: ½ mean (Q(s, a) − y)²          every second update  π: −mean Q₁(s, π(s)),  π' and Q' ← (1 − τ) · + τ ·
//! ```

use std::sync::Arc;

use mbrl_env::{Batch, EnvSpec, Rng, Value};
use mbrl_model::{
    fill_normal,
    mlp::{HostMlp, Pass, Rows},
};
use serde::{Deserialize, Serialize};

use super::{
    ActorCritic, CriticPass, Critics, CriticsConfig, Lookahead, OffPolicy, PolicyValue, Prepared, bootstrapped,
    check_loss, mean,
    sac::{load_updates, save_updates},
    step_critics,
};
use crate::{
    Actor, ActorConfig, ActorHead, ActorPass, AgentError, CheckpointReader, CheckpointWriter, Policy, PolicyDraw,
    Report, ReportKind, policy::load_network,
};

/// Constants of TD3, for actions in [−1, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Td3Config {
    /// γ (default: 0.99).
    pub discount: f32,
    /// Standard deviation of the exploration noise (default: 0.1).
    pub exploration_noise: f32,
    /// Standard deviation of the noise on target actions, σ (default: 0.2).
    pub target_noise: f32,
    /// Bound of that noise, c (default: 0.5).
    pub noise_clip: f32,
    /// The actor learns, and the target networks move, in every n-th update, where n is this number (default: 2).
    pub actor_every: u64,
}

impl Default for Td3Config {
    fn default() -> Self {
        Self { discount: 0.99, exploration_noise: 0.1, target_noise: 0.2, noise_clip: 0.5, actor_every: 2 }
    }
}

impl Td3Config {
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
    ) -> Result<Td3, AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if !(0.0..=1.0).contains(&self.discount) {
            return refuse("discount", self.discount.to_string(), "a number in [0, 1]");
        }
        for (field, value) in [("target_noise", self.target_noise), ("noise_clip", self.noise_clip)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(field, value.to_string(), "a finite number of at least 0");
            }
        }
        if self.actor_every == 0 {
            return refuse("actor_every", "0".into(), "at least 1");
        }
        let head = ActorHead::Deterministic { exploration: self.exploration_noise };
        let actor = actor.init(spec, head, rng)?;
        let critics = critics.init(actor.inputs().width(), actor.action_width(), rng)?;
        Ok(Td3 {
            config: self.clone(),
            target: actor.network().clone(),
            actor,
            critics,
            updates: 0,
            prepared: Prepared::default(),
            actor_pass: ActorPass::default(),
            critic_pass: CriticPass::default(),
        })
    }
}

/// Twin delayed deep deterministic policy gradients. Made by [`Td3Config::init`].
///
/// The actor climbs what [`CriticsConfig::actor`] says; as published it is the first critic's value ([`CriticsConfig::td3`]).
#[derive(Debug, Clone)]
pub struct Td3 {
    pub(super) config: Td3Config,
    pub(super) actor: Actor,
    /// The target network of the actor.
    pub(super) target: HostMlp,
    pub(super) critics: Critics,
    pub(super) updates: u64,
    prepared: Prepared,
    actor_pass: ActorPass,
    critic_pass: CriticPass,
}

impl Td3 {
    /// The policy.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The policy, mutable.
    pub fn actor_mut(&mut self) -> &mut Actor {
        &mut self.actor
    }

    /// The target network of the policy.
    #[must_use]
    pub fn target_actor(&self) -> &HostMlp {
        &self.target
    }

    /// The target network of the policy, mutable.
    pub fn target_actor_mut(&mut self) -> &mut HostMlp {
        &mut self.target
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

    /// Updates so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    fn targets(&mut self, batch: &Batch, draw: u64, dropout: u64) -> Vec<f32> {
        let Self { config, actor, target, critics, prepared, critic_pass, .. } = self;
        let mut actions = target.forward(Rows::Shared(&prepared.next_inputs), Pass::Infer, None);
        let mut noise = vec![0.0; actions.len()];
        fill_normal(draw, 0, 0, actor.action_width(), &mut noise);
        for (action, noise) in actions.iter_mut().zip(noise) {
            let noise = (config.target_noise * noise).clamp(-config.noise_clip, config.noise_clip);
            *action = (action.tanh() + noise).clamp(-1.0, 1.0);
        }
        let values = critics.target_values(&prepared.next_inputs, &actions, dropout, critic_pass);
        bootstrapped(&batch.rewards, &batch.terminated, config.discount, &values)
    }

    fn step_actor(&mut self, dropout: u64) -> f64 {
        let Self { actor, critics, prepared, actor_pass, critic_pass, .. } = self;
        actor.sample(&prepared.inputs, PolicyDraw::new(0), true, actor_pass);
        critics.values_to_learn(&prepared.inputs, actor_pass.actions(), dropout, critic_pass);
        let rows = critic_pass.values().len() / critics.config().count;
        let (values, _, by_action) = critics.actor_gradient(critic_pass, -1.0 / rows as f32);
        let grad_out = actor.pull(actor_pass, &by_action, &[]);
        actor.step(actor_pass, &grad_out);
        -mean(&values)
    }
}

const TARGET: &str = "actor-target.bin";

impl OffPolicy for Td3 {
    fn name(&self) -> &str {
        "td3"
    }

    fn policy(&self) -> &dyn Policy {
        &self.actor
    }

    fn parts(&self) -> ActorCritic<'_> {
        let Self { actor, critics, .. } = self;
        ActorCritic { actor, critics, temperature: 0.0, discount: self.config.discount }
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
        let [draw, next_dropout, dropout, actor_dropout] = std::array::from_fn(|_| rng.key());
        let given = look.map(|look| look.targets(batch, self.parts(), rng)).transpose()?;
        let targets = match given.flatten() {
            Some(targets) => targets,
            None => self.targets(batch, draw, next_dropout),
        };
        let Self { critics, prepared, critic_pass, .. } = self;
        step_critics(critics, prepared, &targets, (dropout, self.updates), critic_pass, report)?;
        self.updates += 1;
        if !self.updates.is_multiple_of(self.config.actor_every) {
            return Ok(());
        }
        let given = look.map(|look| look.actor_loss(batch, self.parts(), rng)).transpose()?;
        let loss = match given.flatten() {
            Some(gradient) => {
                let pass = &mut self.actor_pass;
                self.actor.sample(&gradient.inputs, PolicyDraw::new(0), true, pass);
                self.actor.step(pass, &gradient.grad_out);
                gradient.loss
            }
            None => self.step_actor(actor_dropout),
        };
        check_loss("actor/loss", loss, self.updates)?;
        report.scalar(ReportKind::Policy, "actor/loss", loss);
        self.critics.track();
        self.target.track(self.actor.network(), self.critics.config().tracking);
        Ok(())
    }

    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.scope("actor", |into| self.actor.save(into))?;
        into.scope("critics", |into| self.critics.save(into))?;
        into.put(TARGET, &self.target.save())?;
        save_updates(self.updates, into)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        self.actor.load(&from.scope("actor"))?;
        self.critics.load(&from.scope("critics"))?;
        load_network(&mut self.target, from, TARGET)?;
        self.updates = load_updates(from)?;
        Ok(())
    }
}
