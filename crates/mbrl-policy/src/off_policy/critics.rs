//! Critics: networks that say the discounted return of an action, and their slow copies that targets come from.

use mbrl_env::Rng;
use mbrl_model::{
    Activation,
    mlp::{Adam, AdamConfig, HostMlp, MlpConfig, Pass, Rows, Tape},
};
use serde::{Deserialize, Serialize};

use crate::{
    AgentError, CheckpointReader, CheckpointWriter,
    policy::{init_network, load_network},
};

/// What becomes of several critics' values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// The least: against values that are too high because the best is chosen among noisy ones (TD3, SAC).
    Min,
    /// Their mean.
    Mean,
    /// The first one's (what TD3's actor climbs).
    First,
}

/// What critics look like, and how they learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CriticsConfig {
    /// How many there are (default: 2; TD3, SAC).
    pub count: usize,
    /// Widths of the hidden layers (default: 256, 256; SAC, TD3).
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers (default: ReLU; SAC, TD3).
    pub activation: Activation,
    /// Whether hidden layers are normalised, which keeps values of actions that were never tried within bounds (default: no; SAC.
    /// DroQ and most learners since: yes).
    pub layer_norm: bool,
    /// Probability that a hidden unit is dropped in passes that learn, those of the targets among them (default: 0; DroQ: 0.01).
    pub dropout: f32,
    /// Adam's step size (default 3e-4; SAC).
    pub learning_rate: f32,
    /// Share of the way that the slow copies go to the critics after each update, τ (default: 0.005; SAC, TD3).
    pub tracking: f32,
    /// What targets make of the slow copies' values (default: `"min"`).
    pub target: Reduction,
    /// Which value of the critics the actor climbs (default: `"min"`; SAC).
    pub actor: Reduction,
}

impl Default for CriticsConfig {
    fn default() -> Self {
        Self {
            count: 2,
            hidden: vec![256, 256],
            activation: Activation::Relu,
            layer_norm: false,
            dropout: 0.0,
            learning_rate: 3e-4,
            tracking: 0.005,
            target: Reduction::Min,
            actor: Reduction::Min,
        }
    }
}

impl CriticsConfig {
    /// As TD3 has them: the actor climbs the first critic.
    #[must_use]
    pub fn td3() -> Self {
        Self { actor: Reduction::First, ..Self::default() }
    }

    /// Critics with fresh weights, of inputs of width `inputs` and actions of width `actions`; the slow copies are the same.
    ///
    /// # Errors
    /// [`AgentError::Config`] or [`AgentError::Model`] for a value that breaks a rule.
    pub fn init(&self, inputs: usize, actions: usize, rng: &mut Rng) -> Result<Critics, AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if self.count == 0 {
            return refuse("count", "0".into(), "at least 1 critic");
        }
        if !(self.learning_rate >= 0.0 && self.learning_rate.is_finite()) {
            return refuse("learning_rate", self.learning_rate.to_string(), "a finite number of at least 0");
        }
        if !(self.tracking > 0.0 && self.tracking <= 1.0) {
            return refuse("tracking", self.tracking.to_string(), "a share above 0, at most 1");
        }
        let network = MlpConfig {
            members: self.count,
            activation: self.activation,
            layer_norm: self.layer_norm,
            dropout: self.dropout,
            ..MlpConfig::new(inputs + actions, self.hidden.clone(), 1)
        };
        let network = init_network(&network, rng)?;
        let adam = AdamConfig { learning_rate: self.learning_rate, ..AdamConfig::default() };
        Ok(Critics {
            adam: Adam::new(&network, adam),
            target: network.clone(),
            network,
            widths: [inputs, actions],
            config: self.clone(),
        })
    }
}

/// Critics `Q(s, a)`, E of them, their slow copies, and the state of their optimizer. Made by [`CriticsConfig::init`].
///
/// They see [inputs](crate::Inputs) `[N, I]` and actions in [−1, 1], `[N, A]`.
#[derive(Debug, Clone)]
pub struct Critics {
    network: HostMlp,
    target: HostMlp,
    adam: Adam,
    widths: [usize; 2],
    config: CriticsConfig,
}

/// Values that critics gave, and what gradients need of them. Used again and again, it allocates little.
#[derive(Debug, Clone, Default)]
pub struct CriticPass {
    tape: Tape,
    rows: Vec<f32>,
    values: Vec<f32>,
}

impl CriticPass {
    /// Each critic's values, `[E, N]`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

const NETWORK: &str = "network.bin";
const TARGET: &str = "target.bin";
const ADAM: &str = "adam.bin";

impl Critics {
    /// What they were made from.
    #[must_use]
    pub fn config(&self) -> &CriticsConfig {
        &self.config
    }

    /// The critics' networks.
    #[must_use]
    pub fn network(&self) -> &HostMlp {
        &self.network
    }

    /// The critics' networks, to be set.
    pub fn network_mut(&mut self) -> &mut HostMlp {
        &mut self.network
    }

    /// The slow copies.
    #[must_use]
    pub fn target(&self) -> &HostMlp {
        &self.target
    }

    /// The slow copies, to be set.
    pub fn target_mut(&mut self) -> &mut HostMlp {
        &mut self.target
    }

    /// A pass that learns, of a key.
    fn learning(key: u64) -> Pass {
        Pass::Train { key }
    }

    /// Inputs and actions side by side, as critics see them.
    fn join(&self, inputs: &[f32], actions: &[f32], rows: &mut Vec<f32>) {
        let [i, a] = self.widths;
        rows.clear();
        for (input, action) in inputs.chunks_exact(i).zip(actions.chunks_exact(a)) {
            rows.extend_from_slice(input);
            rows.extend_from_slice(action);
        }
    }

    /// What the critics say of actions, all units present: [`CriticPass::values`]. With `tape`, gradients can be taken.
    pub fn values(&self, inputs: &[f32], actions: &[f32], tape: bool, pass: &mut CriticPass) {
        self.pass(inputs, actions, Pass::Infer, tape, pass);
    }

    /// As [`values`](Self::values), with units dropped as when the critics learn, and a tape.
    pub fn values_to_learn(&self, inputs: &[f32], actions: &[f32], key: u64, pass: &mut CriticPass) {
        self.pass(inputs, actions, Self::learning(key), true, pass);
    }

    fn pass(&self, inputs: &[f32], actions: &[f32], kind: Pass, tape: bool, pass: &mut CriticPass) {
        self.join(inputs, actions, &mut pass.rows);
        let kept = tape.then_some(&mut pass.tape);
        pass.values = self.network.forward(Rows::Shared(&pass.rows), kind, kept);
    }

    /// Values `[N]` of the slow copies, reduced as targets need them, with units dropped as when the critics learn.
    pub fn target_values(&self, inputs: &[f32], actions: &[f32], key: u64, pass: &mut CriticPass) -> Vec<f32> {
        self.join(inputs, actions, &mut pass.rows);
        let values = self.target.forward(Rows::Shared(&pass.rows), Self::learning(key), None);
        reduce(&values, self.config.count, self.config.target)
    }

    /// Of values that came with a tape: the one the actor climbs, `[N]`, and the gradients of `Σ weight · value` by the inputs
    /// `[N, I]` and the actions `[N, A]`; none of the weights.
    #[must_use]
    pub fn actor_gradient(&self, pass: &CriticPass, weight: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let count = self.config.count;
        let values = reduce(&pass.values, count, self.config.actor);
        let rows = values.len();
        let grad_out = match self.config.actor {
            Reduction::Mean => vec![weight / count as f32; count * rows],
            Reduction::First => {
                let mut gradients = vec![0.0; count * rows];
                gradients[..rows].fill(weight);
                gradients
            }
            Reduction::Min => {
                let mut gradients = vec![0.0; count * rows];
                for row in 0..rows {
                    // Of equal ones the first.
                    let least = (1..count).fold(0, |least, e| {
                        if pass.values[e * rows + row] < pass.values[least * rows + row] { e } else { least }
                    });
                    gradients[least * rows + row] = weight;
                }
                gradients
            }
        };
        let each = self.network.input_grad(&pass.tape, &grad_out);
        let [i, a] = self.widths;
        let (mut inputs, mut actions) = (vec![0.0; rows * i], vec![0.0; rows * a]);
        for member in each.chunks_exact((rows * (i + a)).max(1)) {
            let sums = inputs.chunks_exact_mut(i).zip(actions.chunks_exact_mut(a));
            for (row, (inputs, actions)) in member.chunks_exact(i + a).zip(sums) {
                inputs.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                actions.iter_mut().zip(&row[i..]).for_each(|(sum, x)| *sum += x);
            }
        }
        (values, inputs, actions)
    }

    /// One step of Adam on half the mean squared error of values `[E, N]` beside targets `[N]`, for each critic; its mean over the
    /// critics before the step.
    pub fn step(&mut self, inputs: &[f32], actions: &[f32], targets: &[f32], key: u64, pass: &mut CriticPass) -> f64 {
        self.values_to_learn(inputs, actions, key, pass);
        let rows = targets.len();
        let mut loss = 0.0;
        let mut gradients = Vec::with_capacity(pass.values.len());
        for (value, target) in pass.values.iter().zip(targets.iter().cycle()) {
            let error = value - target;
            loss += 0.5 * f64::from(error) * f64::from(error);
            gradients.push(error / rows as f32);
        }
        self.network.step(&mut pass.tape, &gradients, false, &mut self.adam);
        loss / pass.values.len() as f64
    }

    /// Moves the slow copies towards the critics.
    pub fn track(&mut self) {
        self.target.track(&self.network, self.config.tracking);
    }

    /// Writes networks and optimizer.
    ///
    /// # Errors
    /// Input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put(NETWORK, &self.network.save())?;
        into.put(TARGET, &self.target.save())?;
        into.put(ADAM, &self.adam.save(&self.network))
    }

    /// Goes back to what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for what is not there, damaged or of another shape.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        load_network(&mut self.network, from, NETWORK)?;
        load_network(&mut self.target, from, TARGET)?;
        self.adam.load(&self.network, from.get(ADAM)?).map_err(|e| from.refuse(ADAM, e.to_string()))
    }
}

/// One value of each row of `[E, N]`. A NaN of any critic is kept.
pub(crate) fn reduce(values: &[f32], count: usize, reduction: Reduction) -> Vec<f32> {
    let rows = values.len() / count;
    let mut reduced = values[..rows].to_vec();
    for critic in values[rows..].chunks_exact(rows.max(1)) {
        for (least, value) in reduced.iter_mut().zip(critic) {
            match reduction {
                Reduction::Min if *value < *least || value.is_nan() => *least = *value,
                Reduction::Min | Reduction::First => {}
                Reduction::Mean => *least += value,
            }
        }
    }
    if reduction == Reduction::Mean {
        reduced.iter_mut().for_each(|sum| *sum /= count as f32);
    }
    reduced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_and_the_mean_of_each_row_and_a_nan_stays() {
        let values = [1.0, 5.0, 3.0, 2.0, 4.0, f32::NAN];
        let least = reduce(&values, 2, Reduction::Min);
        assert_eq!((least[0], least[1], least[2].is_nan()), (1.0, 4.0, true));
        assert_eq!(reduce(&values, 2, Reduction::Mean)[..2], [1.5, 4.5]);
        assert_eq!(reduce(&values, 2, Reduction::First), values[..3]);
        assert_eq!(reduce(&values[..3], 1, Reduction::Min), values[..3]);
    }
}
