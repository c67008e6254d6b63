//! Behaviour cloning: a policy fitted to the actions of another one, such as a planner or a person.

use mbrl_env::{EnvError, Replay, Rng};
use serde::{Deserialize, Serialize};

use crate::{Actor, ActorHead, ActorPass, AgentError, Policy, PolicyDraw};

/// How a policy is fitted to recorded actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloningConfig {
    /// Passes over the data at most (default: 100).
    pub max_epochs: usize,
    /// Transitions per batch (default: 256).
    pub batch_size: usize,
    /// Share of the episodes in the holdout, at least one where there are two (default: 0.1). With 0, or a single episode,
    /// the loss of the last epoch decides.
    pub holdout: f64,
    /// Epochs without a better loss after which the fit ends (default: 10). The best weights are kept.
    pub patience: usize,
}

impl Default for CloningConfig {
    fn default() -> Self {
        Self { max_epochs: 100, batch_size: 256, holdout: 0.1, patience: 10 }
    }
}

/// The result of a fit.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CloningReport {
    /// Passes over the data.
    pub epochs: usize,
    /// Loss of the kept weights on the holdout, or of their epoch where there is none: for a Gaussian head the mean of −log π(u|s) (nats,
    /// for actions in [−1, 1]), for a deterministic one the mean squared distance of actions in [−1, 1].
    pub loss: f64,
}

impl CloningConfig {
    /// Fits `actor` to the observations and actions of `data`, from the weights that it has. The statistics of its inputs, where there are
    /// any, become those of the data that it is fitted to.
    ///
    /// # Errors
    /// [`AgentError::Config`] for a value that breaks a rule; [`AgentError::Env`] for data of different widths or without a transition;
    /// [`AgentError::Diverged`] where the loss is not finite. The actor then is as it was.
    pub fn fit(&self, actor: &mut Actor, data: &Replay, rng: &mut Rng) -> Result<CloningReport, AgentError> {
        for (field, value) in
            [("max_epochs", self.max_epochs), ("batch_size", self.batch_size), ("patience", self.patience)]
        {
            if value == 0 {
                return Err(AgentError::Config { field, value: "0".into(), rule: "at least 1" });
            }
        }
        if actor.is_averaged() {
            let rule = "0 for a policy to be cloned: a fit is too short for averaged weights to catch up";
            return Err(AgentError::Config { field: "averaging", value: "above 0".into(), rule });
        }
        mbrl_env::check_width("observation", actor.obs_width(), data.obs_width())?;
        mbrl_env::check_width("action", actor.action_width(), data.action_width())?;
        if data.is_empty() {
            return Err(EnvError::TooLittleData { what: "a policy to be cloned", actual: 0, needed: 1 }.into());
        }
        let (train, held) = data.split_episodes(self.holdout, rng)?;
        let mut fitted = actor.clone();
        fitted.observe_anew(&data.gather(train.iter().copied()).obs);
        let (train, held) = (Rows::of(&fitted, data, &train), Rows::of(&fitted, data, &held));
        let mut pass = ActorPass::default();
        let mut best: Option<(f64, Actor)> = None;
        let (mut epochs, mut waited, mut steps) = (0, 0, 0);
        while epochs < self.max_epochs && waited < self.patience {
            let order = rng.permutation(train.len());
            let mut sum = 0.0;
            for rows in order.chunks(self.batch_size) {
                let batch = train.pick(rows);
                let (loss, grad_out) = batch.loss(&fitted, &mut pass);
                if !loss.is_finite() {
                    return Err(AgentError::Diverged { what: "cloning loss", loss, updates: steps });
                }
                fitted.step(&mut pass, &grad_out);
                sum += loss * rows.len() as f64;
                steps += 1;
            }
            epochs += 1;
            waited += 1;
            let loss = if held.len() == 0 { sum / train.len() as f64 } else { held.loss(&fitted, &mut pass).0 };
            if best.as_ref().is_none_or(|(least, _)| loss < *least) {
                best = Some((loss, fitted.clone()));
                waited = 0;
            }
        }
        match best {
            Some((loss, fitted)) => {
                *actor = fitted;
                Ok(CloningReport { epochs, loss })
            }
            None => Err(AgentError::Diverged { what: "cloning loss", loss: f64::NAN, updates: steps }),
        }
    }
}

/// Inputs `[N, I]` and actions `[N, A]` in [−1, 1].
struct Rows {
    inputs: Vec<f32>,
    actions: Vec<f32>,
    widths: [usize; 2],
}

impl Rows {
    fn of(actor: &Actor, data: &Replay, positions: &[usize]) -> Self {
        let batch = data.gather(positions.iter().copied());
        let (mut inputs, mut actions) = (Vec::new(), Vec::new());
        actor.inputs().prepare(&batch.obs, &mut inputs);
        actor.scale().to_unit(&batch.actions, &mut actions);
        Self { inputs, actions, widths: [actor.inputs().width(), actor.action_width()] }
    }

    fn len(&self) -> usize {
        self.actions.len() / self.widths[1]
    }

    fn pick(&self, rows: &[usize]) -> Self {
        let of = |values: &[f32], width: usize| -> Vec<f32> {
            rows.iter().flat_map(|row| &values[row * width..][..width]).copied().collect()
        };
        let widths = self.widths;
        Self { inputs: of(&self.inputs, widths[0]), actions: of(&self.actions, widths[1]), widths }
    }

    /// The loss and its gradients with respect to the outputs; the pass has a tape.
    fn loss(&self, actor: &Actor, pass: &mut ActorPass) -> (f64, Vec<f32>) {
        actor.sample(&self.inputs, PolicyDraw::new(0), true, pass);
        let rows = self.len() as f64;
        match actor.head() {
            ActorHead::Gaussian { .. } => {
                let (log_probs, mut gradients) = actor.log_likelihood(pass, &self.actions);
                gradients.iter_mut().for_each(|g| *g = -*g);
                (-log_probs.iter().map(|l| f64::from(*l)).sum::<f64>() / rows, gradients)
            }
            ActorHead::Deterministic { .. } => {
                let count = self.actions.len() as f64;
                let off: Vec<f32> = pass.actions().iter().zip(&self.actions).map(|(a, b)| a - b).collect();
                let loss = off.iter().map(|x| f64::from(x * x)).sum::<f64>() / count;
                let by_action: Vec<f32> = off.iter().map(|x| 2.0 * x / count as f32).collect();
                (loss, actor.pull(pass, &by_action, &[]))
            }
        }
    }
}
