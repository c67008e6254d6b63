//! The value of a state under the policy: the baseline from which advantages are measured.

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

/// Inputs are cut off here (mjrl).
const CLIP: f32 = 10.0;
/// Powers of the time that it sees, in thousands of steps (mjrl).
const POWERS: usize = 4;

const NETWORK: &str = "network.bin";
const SCALE: &str = "scale.bin";

/// The network of a value baseline, and how it is fitted to each batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaselineConfig {
    /// Widths of the hidden layers (default: 128, 128; mjrl).
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers (default: ReLU; mjrl).
    pub activation: Activation,
    /// Adam's step size (default 1e-3; mjrl). Adam begins anew with each batch.
    pub learning_rate: f32,
    /// Steps per minibatch (default: 64; mjrl).
    pub batch_size: usize,
    /// Passes over a batch (default: 5; mjrl's programs have 2 for batches many times as large).
    pub epochs: usize,
}

impl Default for BaselineConfig {
    fn default() -> Self {
        Self { hidden: vec![128, 128], activation: Activation::Relu, learning_rate: 1e-3, batch_size: 64, epochs: 5 }
    }
}

impl BaselineConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`AgentError::Config`] or [`AgentError::Model`], naming the field.
    pub fn validate(&self) -> Result<(), AgentError> {
        check_learning_rate(self.learning_rate)?;
        if !(1..=1 << 20).contains(&self.batch_size) {
            let (value, rule) = (self.batch_size.to_string(), "1 to 1048576 steps");
            return Err(AgentError::Config { field: "batch_size", value, rule });
        }
        Ok(MlpConfig::new(1, self.hidden.clone(), 1).validate()?)
    }

    /// A baseline with fresh weights for a policy's inputs of this width.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, inputs: usize, rng: &mut Rng) -> Result<Baseline, AgentError> {
        self.validate()?;
        let network =
            MlpConfig { activation: self.activation, ..MlpConfig::new(inputs + POWERS, self.hidden.clone(), 1) };
        Ok(Baseline { network: init_network(&network, rng)?, config: self.clone(), inputs, mean: 0.0, std: 0.0 })
    }
}

/// A value network. It outputs values in units of the returns' standard deviation, whatever the scale of rewards; when that changes, its
/// last layer is rescaled so that its values do not (van Hasselt et al. 2016). Before the first fit it gives 0.
#[derive(Debug, Clone)]
pub struct Baseline {
    config: BaselineConfig,
    network: HostMlp,
    /// I, entries of a policy's input.
    inputs: usize,
    mean: f64,
    /// 0 before the first fit.
    std: f64,
}

impl Baseline {
    /// Appends its inputs for the consecutive states of an episode, `[T, I + 4]`, from the policy's inputs `[T, I]`.
    pub fn prepare(&self, inputs: &[f32], into: &mut Vec<f32>) {
        for (t, row) in inputs.chunks_exact(self.inputs).enumerate() {
            into.extend(row.iter().map(|x| x.clamp(-CLIP, CLIP)));
            let time = t as f32 / 1000.0;
            into.extend((1..=POWERS as i32).map(|power| time.powi(power)));
        }
    }

    /// Entries of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.inputs + POWERS
    }

    /// Values `[N]` of rows `[N, I + 4]`.
    ///
    /// # Panics
    /// If the rows are not whole.
    #[must_use]
    pub fn values(&self, rows: &[f32]) -> Vec<f64> {
        if self.std == 0.0 {
            return vec![0.0; rows.len() / self.width()];
        }
        let outputs = self.network.forward(Rows::Shared(rows), Pass::Infer, None);
        outputs.into_iter().map(|v| self.mean + self.std * f64::from(v)).collect()
    }

    /// Fits it to returns `[N]` of rows `[N, I + 4]`, in minibatches of an order drawn anew for each pass, and returns the share of the
    /// returns' variance that it left unexplained before.
    ///
    /// # Panics
    /// If there is not one return for each row.
    pub fn fit(&mut self, rows: &[f32], returns: &[f64], rng: &mut Rng) -> f64 {
        let count = returns.len();
        assert_eq!(rows.len(), count * self.width(), "rows of {count} returns");
        let mean = returns.iter().sum::<f64>() / count as f64;
        let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / count as f64;
        let missed = self.values(rows).iter().zip(returns).map(|(v, r)| (v - r).powi(2)).sum::<f64>() / count as f64;
        // Returns that are all alike have no unit of their own.
        self.rescale(mean, if variance > 0.0 { variance.sqrt() } else { 1.0 });
        let wanted: Vec<f32> = returns.iter().map(|r| ((r - self.mean) / self.std) as f32).collect();
        let config = AdamConfig { learning_rate: self.config.learning_rate, ..AdamConfig::default() };
        let mut adam = Adam::new(&self.network, config);
        let mut tape = Tape::new();
        for _ in 0..self.config.epochs {
            for picked in rng.permutation(count).chunks(self.config.batch_size) {
                let outputs =
                    self.network.forward(Rows::Picked { of: rows, rows: picked }, Pass::Infer, Some(&mut tape));
                let scale = 2.0 / picked.len() as f32;
                let gradients: Vec<f32> =
                    outputs.iter().zip(picked).map(|(v, row)| scale * (v - wanted[*row])).collect();
                self.network.step(&mut tape, &gradients, false, &mut adam);
            }
        }
        if variance > 0.0 { missed / variance } else { 0.0 }
    }

    /// Another mean and unit for the same values.
    fn rescale(&mut self, mean: f64, std: f64) {
        if self.std > 0.0 {
            let mut parameters = self.network.parameters();
            let last = self.network.config().hidden.last().unwrap_or(&self.width()) + 1;
            let (from, bias) = (parameters.len() - last, parameters.len() - 1);
            let ratio = self.std / std;
            parameters[from..].iter_mut().for_each(|weight| *weight = (f64::from(*weight) * ratio) as f32);
            parameters[bias] += ((self.mean - mean) / std) as f32;
            self.network.set_parameters(&parameters);
        }
        (self.mean, self.std) = (mean, std);
    }

    /// Writes network and scale.
    ///
    /// # Errors
    /// Errors of input and output.
    pub fn save(&self, into: &mut CheckpointWriter) -> Result<(), AgentError> {
        into.put(NETWORK, &self.network.save())?;
        into.put(SCALE, &[self.mean, self.std].map(f64::to_le_bytes).concat())
    }

    /// Restores what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`AgentError::Checkpoint`] for content that is missing, damaged or of another shape.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), AgentError> {
        let numbers: Vec<f64> = from.get(SCALE)?.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        let [mean, std] = numbers[..] else {
            return Err(from.refuse(SCALE, "expected a mean and a standard deviation".to_owned()));
        };
        if !(mean.is_finite() && std >= 0.0 && std.is_finite()) {
            return Err(from.refuse(SCALE, format!("mean {mean}, standard deviation {std}: expected finite numbers")));
        }
        load_network(&mut self.network, from, NETWORK)?;
        (self.mean, self.std) = (mean, std);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(rng: &mut Rng) -> (Vec<f32>, Vec<f64>) {
        let inputs: Vec<f32> = (0..400).map(|_| rng.uniform(-1.0, 1.0)).collect();
        let returns = inputs.chunks(2).map(|row| 500.0 + 100.0 * f64::from(row[0] * row[0] - row[1])).collect();
        (inputs, returns)
    }

    #[test]
    fn it_learns_returns_of_any_size_and_keeps_what_it_says_when_the_unit_changes() {
        let mut rng = Rng::new(2);
        let config =
            BaselineConfig { hidden: vec![32, 32], epochs: 60, learning_rate: 3e-3, ..BaselineConfig::default() };
        let mut baseline = config.init(2, &mut rng).unwrap();
        let (inputs, returns) = data(&mut rng);
        let mut rows = Vec::new();
        baseline.prepare(&inputs, &mut rows);
        assert!(baseline.values(&rows).iter().all(|v| *v == 0.0));
        assert!(baseline.fit(&rows, &returns, &mut rng) > 10.0, "0 explains nothing");
        let values = baseline.values(&rows);
        let missed = baseline.fit(&rows, &returns, &mut rng);
        assert!(missed < 0.05, "{missed}");
        let before = baseline.values(&rows);
        baseline.rescale(-20.0, 7.0);
        for (before, after) in before.iter().zip(baseline.values(&rows)) {
            assert!((before - after).abs() < 1e-2, "{before} and {after}");
        }
        assert!((values[0] - returns[0]).abs() < 60.0);
    }

    #[test]
    fn it_sees_inputs_cut_off_and_powers_of_the_time() {
        let baseline = BaselineConfig::default().init(1, &mut Rng::new(0)).unwrap();
        let mut rows = Vec::new();
        baseline.prepare(&[0.5, -40.0, 3.0], &mut rows);
        assert_eq!(rows[..5], [0.5, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(rows[5], -10.0);
        let t = 2e-3_f32;
        assert_eq!(rows[10..15], [3.0, t, t.powi(2), t.powi(3), t.powi(4)]);
    }
}
