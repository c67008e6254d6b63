//! Learners that improve a policy on batches of transitions, wherever these come from.

mod critics;
mod device;
mod sac;
mod td3;
mod value;

use std::sync::Arc;

use mbrl_env::{Batch, Rng, Value};

pub use critics::{CriticPass, Critics, CriticsConfig, Reduction};
pub(crate) use critics::{reduce, reduce_tensor};
pub use device::{OnDevice, OnHost};
pub use sac::{Sac, SacConfig};
pub use td3::{Td3, Td3Config};
pub use value::PolicyValue;

use crate::{Actor, ActorPass, AgentError, CheckpointReader, CheckpointWriter, Policy, PolicyDraw, Report, ReportKind};

/// Improves a policy on batches of transitions of any origin: real ones, imagined ones, both.
///
/// It knows no environment and keeps no data: [`ModelFree`](crate::ModelFree) feeds it real transitions.
pub trait OffPolicy: Send {
    /// Name, for messages and metrics.
    fn name(&self) -> &str;

    /// The policy that acts, in imagined roll-outs too.
    fn policy(&self) -> &dyn Policy;

    /// The current actor and critics, which a [`Lookahead`] goes through.
    fn parts(&self) -> ActorCritic<'_>;

    /// Its current value of states.
    fn value(&self) -> Arc<dyn Value>;

    /// Takes real observations `[N, O]` into the statistics of the inputs. Called once for each real step.
    fn observe(&mut self, obs: &[f32]);

    /// One update on a batch, whose actions are in the environment's units. A truncated transition counts like any other; nothing
    /// follows a terminated one. `look` adds what a model knows.
    ///
    /// # Errors
    /// [`AgentError::Env`] for rows of different widths; [`AgentError::Diverged`] where losses are no longer finite.
    fn improve(
        &mut self,
        batch: &Batch,
        look: Option<&dyn Lookahead>,
        rng: &mut Rng,
        report: &mut dyn Report,
    ) -> Result<(), AgentError>;

    /// Writes everything that `load` needs to continue bit for bit.
    ///
    /// # Errors
    /// Errors of input and output.
    fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError>;

    /// Restores what `save` wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of another shape.
    fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError>;
}

/// The parts of a learner that a [`Lookahead`] goes through.
#[derive(Debug, Clone, Copy)]
pub struct ActorCritic<'a> {
    /// What acts.
    pub actor: &'a Actor,
    /// The critics that the actor climbs, and the target networks that targets come from.
    pub critics: &'a Critics,
    /// Weight of the entropy, α; 0 for learners without.
    pub temperature: f32,
    /// γ.
    pub discount: f32,
}

impl ActorCritic<'_> {
    /// Soft values of states `[B]`, by the target networks: `Q(s, a) − α log π(a | s)` with a drawn from the actor. Keys of the draw and of
    /// the critics' dropout.
    pub(crate) fn next_values(
        &self,
        inputs: &[f32],
        [draw, dropout]: [u64; 2],
        pass: &mut ActorPass,
        critic_pass: &mut CriticPass,
    ) -> Vec<f32> {
        self.actor.sample(inputs, PolicyDraw::new(draw), false, pass);
        let mut values = self.critics.target_values(inputs, pass.actions(), dropout, critic_pass);
        for (value, log_prob) in values.iter_mut().zip(pass.log_probs()) {
            *value -= self.temperature * log_prob;
        }
        values
    }
}

/// What a model adds to an update: other targets for the critics, another loss for the actor.
pub trait Lookahead: Sync {
    /// Targets of the critics `[B]`, in place of the learner's `r + γ (1 − terminated) V(s')`: value expansion. `None` (default)
    /// leaves them.
    ///
    /// # Errors
    /// Errors of the model.
    fn targets(&self, batch: &Batch, of: ActorCritic<'_>, rng: &mut Rng) -> Result<Option<Vec<f32>>, AgentError> {
        let _ = (batch, of, rng);
        Ok(None)
    }

    /// The actor's step, in place of the one on `α log π − Q` at the batch's observations: gradients through a model. `None` (default)
    /// leaves it.
    ///
    /// # Errors
    /// Errors of the model.
    fn actor_loss(
        &self,
        batch: &Batch,
        of: ActorCritic<'_>,
        rng: &mut Rng,
    ) -> Result<Option<ActorGradient>, AgentError> {
        let _ = (batch, of, rng);
        Ok(None)
    }
}

/// The gradient of an actor's loss with respect to its outputs, over any rows.
#[derive(Debug, Clone)]
pub struct ActorGradient {
    /// Inputs of the actor, `[M, I]`: see [`Inputs::prepare`](crate::Inputs::prepare).
    pub inputs: Vec<f32>,
    /// Gradients of its outputs there, as [`Actor::pull`] gives them.
    pub grad_out: Vec<f32>,
    /// Log-probabilities of what was drawn, `[L]`: what the temperature learns from. Empty for learners without.
    pub log_probs: Vec<f32>,
    /// The loss.
    pub loss: f64,
}

/// A batch as networks see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prepared {
    /// `[B, I]`.
    inputs: Vec<f32>,
    next_inputs: Vec<f32>,
    /// In [−1, 1], `[B, A]`.
    actions: Vec<f32>,
}

impl Prepared {
    fn fill(&mut self, batch: &Batch, actor: &Actor) -> Result<(), AgentError> {
        mbrl_env::check_width("observation", actor.obs_width(), batch.obs_width)?;
        mbrl_env::check_width("action", actor.action_width(), batch.action_width)?;
        for column in [&mut self.inputs, &mut self.next_inputs, &mut self.actions] {
            column.clear();
        }
        actor.inputs().prepare(&batch.obs, &mut self.inputs);
        actor.inputs().prepare(&batch.next_obs, &mut self.next_inputs);
        actor.scale().to_unit(&batch.actions, &mut self.actions);
        Ok(())
    }
}

/// The critics' step of an update towards targets `[B]`, told to a report.
fn step_critics(
    critics: &mut Critics,
    prepared: &Prepared,
    targets: &[f32],
    (dropout, updates): (u64, u64),
    pass: &mut CriticPass,
    report: &mut dyn Report,
) -> Result<(), AgentError> {
    let loss = critics.step(&prepared.inputs, &prepared.actions, targets, dropout, pass);
    report.scalar(ReportKind::Policy, "critic/loss", loss);
    report.scalar(ReportKind::Policy, "critic/value", mean(pass.values()));
    check_loss("critic/loss", loss, updates)
}

/// `r + γ (1 − terminated) V(s')`, `[B]`.
pub(crate) fn bootstrapped(rewards: &[f64], terminated: &[bool], discount: f32, next_values: &[f32]) -> Vec<f32> {
    let each = rewards.iter().zip(terminated).zip(next_values);
    // Selected, not multiplied: a non-finite value must not come through.
    each.map(|((reward, end), value)| *reward as f32 + if *end { 0.0 } else { discount * value }).collect()
}

/// Refuses losses that are no longer finite.
fn check_loss(what: &'static str, loss: f64, updates: u64) -> Result<(), AgentError> {
    if loss.is_finite() { Ok(()) } else { Err(AgentError::Diverged { what, loss, updates }) }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64
}
