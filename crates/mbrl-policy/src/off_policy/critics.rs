//! Critics: networks that estimate the discounted return of an action, and the target networks that follow them.

use burn::tensor::Tensor;
use mbrl_env::Rng;
use mbrl_model::{
    Activation,
    mlp::{Adam, AdamConfig, HostMlp, MlpConfig, Pass, Rows, Tape},
};
use serde::{Deserialize, Serialize};

use crate::{
    AgentError, CheckpointReader, CheckpointWriter,
    policy::{check_learning_rate, init_network, load_network},
};

/// How the values of several critics become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// The least: against the overestimation that comes from choosing the best of noisy values (TD3, SAC).
    Min,
    /// The lesser of two that are drawn for each batch: less pessimistic than the least of many (REDQ, DHMBPO). For targets only.
    Pair,
    /// Their mean.
    Mean,
    /// The first one's (what TD3's actor climbs).
    First,
}

/// The critics' networks, and how they learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CriticsConfig {
    /// Number of critics (default: 2; TD3, SAC).
    pub count: usize,
    /// Widths of the hidden layers (default: 256, 256; SAC, TD3).
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers (default: ReLU; SAC, TD3).
    pub activation: Activation,
    /// Whether hidden layers are normalised, which keeps the values of untried actions within bounds (default: no; SAC.
    /// DroQ and most learners since: yes).
    pub layer_norm: bool,
    /// Dropout probability of hidden units in learning passes, including those for the targets (default: 0; DroQ: 0.01).
    pub dropout: f32,
    /// Adam's step size (default 3e-4; SAC).
    pub learning_rate: f32,
    /// Share of the way that the target networks move towards the critics after each update, τ (default: 0.005; SAC, TD3).
    pub tracking: f32,
    /// How targets reduce the values of the target networks (default: `"min"`).
    pub target: Reduction,
    /// Which value of the critics the actor climbs (default: `"min"`; SAC).
    pub actor: Reduction,
    /// Whether networks output values in units of the range that rewards so far allow, `[low, high] / (1 − γ)` with 0 in it (default: no;
    /// DHMBPO: yes). Adam moves an output of normalised layers by some hundredths per update, however wrong it is: without these units, critics learn
    /// too slowly where values are in the hundreds.
    pub scaled: bool,
    /// Whether values stay as they are while these units change, and begin at 0, as in Pop-Art (van Hasselt et al. 2016). Otherwise they
    /// begin in the middle of the range and grow with it, and only learning brings them down (default: no). Needs `scaled`.
    pub keep_values: bool,
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
            scaled: false,
            keep_values: false,
        }
    }
}

impl CriticsConfig {
    /// As in TD3: the actor climbs the first critic.
    #[must_use]
    pub fn td3() -> Self {
        Self { actor: Reduction::First, ..Self::default() }
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// [`AgentError::Config`] or [`AgentError::Model`], naming the field.
    pub fn validate(&self) -> Result<(), AgentError> {
        let refuse = |field, value: String, rule| Err(AgentError::Config { field, value, rule });
        if self.actor == Reduction::Pair {
            return refuse(
                "actor",
                "\"pair\"".into(),
                "\"min\", \"mean\" or \"first\": pairs are drawn for targets alone",
            );
        }
        if self.count == 0 {
            return refuse("count", "0".into(), "at least 1 critic");
        }
        if self.target == Reduction::Pair && self.count == 1 {
            return refuse("target", "\"pair\"".into(), "\"min\", \"mean\" or \"first\", or a count of at least 2");
        }
        check_learning_rate(self.learning_rate)?;
        if !(self.tracking > 0.0 && self.tracking <= 1.0) {
            return refuse("tracking", self.tracking.to_string(), "a share above 0, at most 1");
        }
        if self.keep_values && !self.scaled {
            return refuse(
                "keep_values",
                "true".into(),
                "false, or values in units that change: critics.scaled = true",
            );
        }
        Ok(self.network(1).validate()?)
    }

    fn network(&self, inputs: usize) -> MlpConfig {
        MlpConfig {
            members: self.count,
            activation: self.activation,
            layer_norm: self.layer_norm,
            dropout: self.dropout,
            ..MlpConfig::new(inputs, self.hidden.clone(), 1)
        }
    }

    /// Critics with fresh weights, for inputs of width `inputs` and actions of width `actions`; the target networks start equal to them.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, inputs: usize, actions: usize, rng: &mut Rng) -> Result<Critics, AgentError> {
        self.validate()?;
        let network = self.network(inputs + actions);
        let mut network = init_network(&network, rng)?;
        if self.scaled {
            // All values begin in the middle of their range (DHMBPO).
            let mut parameters = network.parameters();
            let last = self.count * (self.hidden.last().copied().unwrap_or(inputs + actions) + 1);
            let from = parameters.len() - last;
            parameters[from..].fill(0.0);
            network.set_parameters(&parameters);
        }
        let adam = AdamConfig { learning_rate: self.learning_rate, ..AdamConfig::default() };
        Ok(Critics {
            adam: Adam::new(&network, adam),
            target: network.clone(),
            network,
            widths: [inputs, actions],
            range: Range::default(),
            config: self.clone(),
        })
    }
}

/// E critics `Q(s, a)`, their target networks, and the state of their optimizer. Made by [`CriticsConfig::init`].
///
/// They see [inputs](crate::Inputs) `[N, I]` and actions in [−1, 1], `[N, A]`.
#[derive(Debug, Clone)]
pub struct Critics {
    network: HostMlp,
    target: HostMlp,
    adam: Adam,
    widths: [usize; 2],
    /// What outputs mean.
    range: Range,
    config: CriticsConfig,
}

/// Values that rewards allow: an output `u` of a network means `centre + half · u`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    /// Least and largest value, 0 within; nothing is known yet where both are 0.
    ends: [f32; 2],
    centre: f32,
    half: f32,
}

impl Default for Range {
    /// Outputs are values.
    fn default() -> Self {
        Self { ends: [0.0; 2], centre: 0.0, half: 1.0 }
    }
}

impl Range {
    fn new(ends: [f32; 2]) -> Self {
        Self { ends, centre: 0.5 * (ends[0] + ends[1]), half: 0.5 * (ends[1] - ends[0]) }
    }

    /// Whether outputs are values as they are.
    pub(super) fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// What an output of 0 means.
    pub(super) fn centre(self) -> f32 {
        self.centre
    }

    /// What an output of 1 means on top of it.
    pub(super) fn half(self) -> f32 {
        self.half
    }

    /// What outputs mean, in their place.
    pub(crate) fn apply(self, outputs: &mut [f32]) {
        if !self.is_plain() {
            outputs.iter_mut().for_each(|output| *output = self.centre + self.half * *output);
        }
    }

    /// As [`apply`](Self::apply), on tensors.
    pub(crate) fn apply_tensor(self, outputs: Tensor<2>) -> Tensor<2> {
        outputs * self.half + self.centre
    }
}

/// Share of the way that the range goes towards that of each batch (DHMBPO: its step size).
const RANGE_RATE: f32 = 3e-4;
/// Share of a batch's rewards, at either end, that is left out of the range (DHMBPO).
const TAIL: f32 = 0.01;

/// Values of critics, and what their gradients need. When reused, it allocates little.
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
const RANGE: &str = "range.bin";

impl Critics {
    /// Takes a batch's rewards into the range of values, if values are [scaled](CriticsConfig::scaled). Call it before an update.
    pub fn observe_rewards(&mut self, rewards: &[f64], discount: f32) {
        if !self.config.scaled || rewards.is_empty() {
            return;
        }
        let mut sorted: Vec<f32> = rewards.iter().map(|reward| *reward as f32).collect();
        sorted.sort_by(f32::total_cmp);
        let left_out = (TAIL * sorted.len() as f32) as usize;
        // With a discount of 1 there is no bound: a thousand steps.
        let steps = 1.0 / (1.0 - discount).max(1e-3);
        let low = (sorted[left_out] * steps).min(0.0);
        let high = (sorted[sorted.len() - 1 - left_out] * steps).max(0.0);
        let [before_low, before_high] = self.range.ends;
        let ends = if self.range == Range::default() {
            [low, high]
        } else {
            [before_low + RANGE_RATE * (low - before_low), before_high + RANGE_RATE * (high - before_high)]
        };
        // Without a reward there is no scale.
        if ends[1] > ends[0] {
            let (before, now) = (self.range, Range::new(ends));
            if self.config.keep_values {
                let (scale, shift) = (before.half / now.half, (before.centre - now.centre) / now.half);
                self.network.transform_outputs(scale, shift);
                self.target.transform_outputs(scale, shift);
            }
            self.range = now;
        }
    }

    /// What outputs of the networks mean.
    pub(crate) fn range(&self) -> Range {
        self.range
    }

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

    /// The critics' networks, mutable.
    pub fn network_mut(&mut self) -> &mut HostMlp {
        &mut self.network
    }

    /// The critics' networks and their optimizer, mutable.
    pub(super) fn learned_mut(&mut self) -> (&mut HostMlp, &mut Adam) {
        (&mut self.network, &mut self.adam)
    }

    /// The target networks.
    #[must_use]
    pub fn target(&self) -> &HostMlp {
        &self.target
    }

    /// The target networks, mutable.
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

    /// The critics' values of actions, without dropout: [`CriticPass::values`]. With `tape`, gradients can be taken.
    pub fn values(&self, inputs: &[f32], actions: &[f32], tape: bool, pass: &mut CriticPass) {
        self.pass(inputs, actions, Pass::Infer, tape, pass);
    }

    /// As [`values`](Self::values), with dropout as when the critics learn, and a tape.
    pub fn values_to_learn(&self, inputs: &[f32], actions: &[f32], key: u64, pass: &mut CriticPass) {
        self.pass(inputs, actions, Self::learning(key), true, pass);
    }

    fn pass(&self, inputs: &[f32], actions: &[f32], kind: Pass, tape: bool, pass: &mut CriticPass) {
        self.join(inputs, actions, &mut pass.rows);
        let kept = tape.then_some(&mut pass.tape);
        pass.values = self.network.forward(Rows::Shared(&pass.rows), kind, kept);
        self.range.apply(&mut pass.values);
    }

    /// Values `[N]` of the target networks, reduced as targets need them, with dropout as when the critics learn.
    pub fn target_values(&self, inputs: &[f32], actions: &[f32], key: u64, pass: &mut CriticPass) -> Vec<f32> {
        self.join(inputs, actions, &mut pass.rows);
        let mut values = self.target.forward(Rows::Shared(&pass.rows), Self::learning(key), None);
        self.range.apply(&mut values);
        if self.config.target == Reduction::Pair {
            let [first, second] = pair(self.config.count, key);
            let rows = values.len() / self.config.count;
            let [first, second] = [first, second].map(|critic| &values[critic * rows..][..rows]);
            return reduce(&[first, second].concat(), 2, Reduction::Min);
        }
        reduce(&values, self.config.count, self.config.target)
    }

    /// For values with a tape: the one that the actor climbs, `[N]`, and the gradients of `Σ weight · value` with respect to the
    /// inputs `[N, I]` and the actions `[N, A]`, but not to the networks' weights.
    #[must_use]
    pub fn actor_gradient(&self, pass: &CriticPass, weight: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let count = self.config.count;
        let values = reduce(&pass.values, count, self.config.actor);
        let rows = values.len();
        let weight = weight * self.range.half;
        let grad_out = match self.config.actor {
            Reduction::Mean => vec![weight / count as f32; count * rows],
            Reduction::First => {
                let mut gradients = vec![0.0; count * rows];
                gradients[..rows].fill(weight);
                gradients
            }
            Reduction::Min | Reduction::Pair => {
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

    /// One step of Adam on half the mean squared error between values `[E, N]` and targets `[N]`, for each critic; returns its mean
    /// over the critics before the step.
    pub fn step(&mut self, inputs: &[f32], actions: &[f32], targets: &[f32], key: u64, pass: &mut CriticPass) -> f64 {
        self.values_to_learn(inputs, actions, key, pass);
        let rows = targets.len();
        let mut loss = 0.0;
        let mut gradients = Vec::with_capacity(pass.values.len());
        for (value, target) in pass.values.iter().zip(targets.iter().cycle()) {
            let error = value - target;
            loss += 0.5 * f64::from(error) * f64::from(error);
            gradients.push(self.range.half * error / rows as f32);
        }
        self.network.step(&mut pass.tape, &gradients, false, &mut self.adam);
        loss / pass.values.len() as f64
    }

    /// Moves the target networks towards the critics.
    pub fn track(&mut self) {
        self.target.track(&self.network, self.config.tracking);
    }

    /// Writes networks and optimizer.
    ///
    /// # Errors
    /// Errors of input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put(NETWORK, &self.network.save())?;
        into.put(TARGET, &self.target.save())?;
        into.put(ADAM, &self.adam.save(&self.network))?;
        if self.config.scaled {
            into.put(RANGE, &self.range.ends.map(f32::to_le_bytes).concat())?;
        }
        Ok(())
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of another shape.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        load_network(&mut self.network, from, NETWORK)?;
        load_network(&mut self.target, from, TARGET)?;
        self.adam.load(&self.network, from.get(ADAM)?).map_err(|e| from.refuse(ADAM, e.to_string()))?;
        if self.config.scaled {
            let numbers: Vec<f32> =
                from.get(RANGE)?.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let [low, high] = numbers[..] else { return Err(from.refuse(RANGE, "expected two numbers".into())) };
            self.range = if high > low { Range::new([low, high]) } else { Range::default() };
        }
        Ok(())
    }
}

/// Two different critics of `count`, by a key.
pub(super) fn pair(count: usize, key: u64) -> [usize; 2] {
    let mut rng = Rng::new(key);
    let first = rng.below(count);
    if count == 1 { [first, first] } else { [first, (first + 1 + rng.below(count - 1)) % count] }
}

/// As [`reduce`], on tensors: `[E, N]` → `[N]`.
pub(crate) fn reduce_tensor(values: Tensor<2>, reduction: Reduction) -> Tensor<1> {
    let reduced = match reduction {
        Reduction::Min | Reduction::Pair => values.min_dim(0),
        Reduction::First => values.narrow(0, 0, 1),
        Reduction::Mean => values.mean_dim(0),
    };
    reduced.squeeze_dim(0)
}

/// One value of each row of `[E, N]`. A NaN of any critic is kept.
pub(crate) fn reduce(values: &[f32], count: usize, reduction: Reduction) -> Vec<f32> {
    let rows = values.len() / count;
    let mut reduced = values[..rows].to_vec();
    for critic in values[rows..].chunks_exact(rows.max(1)) {
        for (least, value) in reduced.iter_mut().zip(critic) {
            match reduction {
                Reduction::Min | Reduction::Pair if *value < *least || value.is_nan() => *least = *value,
                Reduction::Min | Reduction::Pair | Reduction::First => {}
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
    fn two_of_several_are_drawn_evenly_and_differ() {
        let mut counts = [[0; 4]; 4];
        for key in 0..6000 {
            let [first, second] = pair(4, key);
            counts[first][second] += 1;
        }
        for (first, counts) in counts.iter().enumerate() {
            for (second, count) in counts.iter().enumerate() {
                // 500 of 6,000 each, within 5 standard deviations.
                let expected = if first == second { 0..1 } else { 390..610 };
                assert!(expected.contains(count), "{first} and {second}: {count}");
            }
        }
        assert_eq!(pair(1, 3), [0, 0]);
    }

    #[test]
    fn values_come_in_units_of_what_rewards_allow_and_the_gradient_is_theirs() {
        let config = CriticsConfig {
            count: 3,
            hidden: vec![8],
            activation: Activation::Silu,
            actor: Reduction::Mean,
            scaled: true,
            ..CriticsConfig::default()
        };
        let mut rng = Rng::new(3);
        let mut critics = config.init(2, 1, &mut rng).unwrap();
        let (inputs, actions) = ([0.3, -0.2, 1.0, 0.5], [0.1, -0.7]);
        let mut pass = CriticPass::default();
        critics.values(&inputs, &actions, false, &mut pass);
        let plain = pass.values.clone();
        // One in two hundred is an outlier on each side.
        let mut rewards = vec![1.0; 100];
        rewards.extend(vec![3.0; 98]);
        rewards.extend([-1e6, 1e6]);
        critics.observe_rewards(&rewards, 0.99);
        assert!((critics.range.ends[1] - 300.0).abs() < 0.1 && critics.range.ends[0] == 0.0, "{:?}", critics.range);
        critics.values(&inputs, &actions, true, &mut pass);
        for (value, plain) in pass.values.iter().zip(&plain) {
            assert!(*plain == 0.0 && (value - 150.0).abs() < 0.1, "{value} for {plain}");
        }
        // Weights of the last layer that say something.
        let mut parameters = critics.network.parameters();
        let from = parameters.len() - 3 * 9;
        parameters[from..].iter_mut().for_each(|weight| *weight = rng.normal());
        critics.network.set_parameters(&parameters);
        critics.values(&inputs, &actions, true, &mut pass);
        let (_, _, by_actions) = critics.actor_gradient(&pass, 1.0);
        let value = |by: f32| {
            let mut pass = CriticPass::default();
            critics.values(&inputs, &[actions[0] + by, actions[1]], false, &mut pass);
            reduce(&pass.values, 3, Reduction::Mean)[0]
        };
        let difference = (value(1e-2) - value(-1e-2)) / 2e-2;
        assert!((by_actions[0] - difference).abs() < 0.02 * difference.abs().max(1.0), "{by_actions:?}, {difference}");
        // Constant targets far from 0 are met in few steps, and not without the scale.
        let learned = |scaled: bool| {
            let mut critics =
                CriticsConfig { scaled, layer_norm: true, ..config.clone() }.init(2, 1, &mut Rng::new(3)).unwrap();
            critics.observe_rewards(&rewards, 0.99);
            (0..500).map(|key| critics.step(&inputs, &actions, &[250.0, 280.0], key, &mut CriticPass::default())).last()
        };
        let (with, without) = (learned(true).unwrap(), learned(false).unwrap());
        assert!(with < 500.0 && without > 20_000.0, "{with} with, {without} without");
    }

    #[test]
    fn values_are_kept_while_their_units_change() {
        let config = CriticsConfig { hidden: vec![8], scaled: true, keep_values: true, ..CriticsConfig::default() };
        let (inputs, actions) = ([0.3, -0.2, 1.0, 0.5], [0.1, -0.7]);
        let values = |critics: &Critics| {
            let mut pass = CriticPass::default();
            critics.values(&inputs, &actions, false, &mut pass);
            let slow = critics.target_values(&inputs, &actions, 0, &mut CriticPass::default());
            [pass.values, slow].concat()
        };
        let mut critics = config.init(2, 1, &mut Rng::new(3)).unwrap();
        critics.observe_rewards(&[0.0, 1.0, 2.0], 0.99);
        assert!(values(&critics).iter().all(|value| value.abs() < 1e-4), "they begin at 0: {:?}", values(&critics));
        for key in 0..300 {
            critics.step(&inputs, &actions, &[40.0, 60.0], key, &mut CriticPass::default());
            critics.track();
        }
        let before = values(&critics);
        let ends = critics.range.ends;
        (0..3000).for_each(|_| critics.observe_rewards(&[-3.0, 1.0, 9.0], 0.99));
        assert!(critics.range.ends[1] > 2.0 * ends[1] && critics.range.ends[0] < -100.0, "{:?}", critics.range);
        for (value, before) in values(&critics).iter().zip(&before) {
            assert!((value - before).abs() < 0.05, "{value}, before {before}");
        }
        let alone = CriticsConfig { count: 1, target: Reduction::Pair, ..config.clone() };
        let error = alone.validate().unwrap_err().to_string();
        assert!(error.contains("target = \"pair\""), "{error}");
        let plain = CriticsConfig { scaled: false, ..config };
        let error = plain.init(2, 1, &mut Rng::new(3)).unwrap_err().to_string();
        assert!(error.contains("keep_values = true"), "{error}");
    }

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
