//! A physics for the trainer and for learners: the gradient of the errors over windows updates the logarithms of its parameters.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use mbrl_env::Rng;

use super::{PhysicsModel, formula::Formula};
use crate::{Dataset, Dynamics, Examples, Fit, FitBatch, LearnedModel, ModelError, dynamics::check_size};

/// What the trainer updates: logarithms of the unknown parameters.
#[derive(Module, Debug)]
pub struct PhysicsLogs {
    /// `[1, P]`.
    logs: Param<Tensor<2>>,
}

/// Windows of transitions, starting from measured first states.
#[derive(Debug, Clone)]
pub struct PhysicsWindows {
    steps: usize,
    /// Logarithms, observation, action → next observation.
    formula: Formula,
    /// `[W, O]`.
    starts: Tensor<2>,
    /// `[W, steps · A]`.
    actions: Tensor<2>,
    /// `[W, steps · O]`.
    truth: Tensor<2>,
    /// Standard deviation of each column's change in a step, `[O]`: what errors are measured in.
    scale: Vec<f32>,
    holdout: Option<Vec<usize>>,
}

impl Examples for PhysicsWindows {
    fn count(&self) -> usize {
        self.starts.dims()[0]
    }

    fn holdout(&self) -> Option<&[usize]> {
        self.holdout.as_deref()
    }
}

impl PhysicsModel {
    /// Squared errors of windows by their numbers, `[n, O]`, averaged over steps.
    fn squares(&self, logs: Tensor<2>, examples: &PhysicsWindows, rows: &[usize]) -> Tensor<2> {
        let spec = self.spec();
        let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let index = Tensor::<1, burn::tensor::Int>::from_data(TensorData::new(index, [rows.len()]), &spec.device);
        let [starts, actions, truth] =
            [&examples.starts, &examples.actions, &examples.truth].map(|table| table.clone().select(0, index.clone()));
        let unknown = logs.dims()[1];
        let values = logs.exp().repeat_dim(0, rows.len());
        let column = |table: &Tensor<2>, c: usize| table.clone().narrow(1, c, 1);
        let values: Vec<Tensor<2>> = (0..unknown).map(|c| column(&values, c)).collect();
        let mut obs: Vec<Tensor<2>> = (0..spec.obs).map(|c| column(&starts, c)).collect();
        let mut sums: Vec<Option<Tensor<2>>> = vec![None; spec.obs];
        for t in 0..examples.steps {
            let acted = (0..spec.action).map(|c| column(&actions, t * spec.action + c));
            let inputs: Vec<Tensor<2>> = values.iter().cloned().chain(obs).chain(acted).collect();
            obs = examples.formula.tensors(&inputs);
            for (c, sum) in sums.iter_mut().enumerate() {
                let mut off = obs[c].clone() - column(&truth, t * spec.obs + c);
                if let Some(angle) = spec.angles.iter().find(|angle| angle.column == c) {
                    let turns = (off.clone().detach() / angle.turn).round();
                    off = off - turns * angle.turn;
                }
                let square = (off / examples.scale[c]).square();
                *sum = Some(match sum.take() {
                    Some(sum) => sum + square,
                    None => square,
                });
            }
        }
        Tensor::cat(sums.into_iter().flatten().collect(), 1) / examples.steps as f32
    }
}

/// Fits by gradients, for learners that collect data and fit again and again. [`identify`](super::identify()) needs less data, and gives standard errors.
///
/// Windows of [`with_window`](PhysicsModel::with_window) steps, or of the longest episode where that is shorter, begin at measured states. Logarithms
/// of parameters change by at most about the learning rate per optimizer step: 1e-2 is a good value.
impl Fit for PhysicsModel {
    type Data = Dataset;
    type Examples = PhysicsWindows;
    type Parameters = PhysicsLogs;
    type Statistics = ();

    fn name(&self) -> &str {
        &self.spec().name
    }

    fn members(&self) -> usize {
        1
    }

    fn prepare(&self, data: &Dataset) -> Result<(PhysicsWindows, ()), ModelError> {
        let spec = self.spec();
        let (o, a) = (spec.obs, spec.action);
        check_size("columns of obs", o, data.obs_width())?;
        check_size("columns of actions", a, data.action_width())?;
        let unknown = self.unknown();
        if unknown.is_empty() {
            let rule = "one at least that is to be fitted".into();
            return Err(ModelError::Config { field: "parameters", value: "all known".into(), rule });
        }
        let longest = data.episodes().map(|episode| episode.len()).max().unwrap_or(1);
        let steps = self.window.min(longest);
        let starts = data.windows(steps);
        let offset: Vec<f32> = data.offset().iter().map(|offset| *offset as f32).collect();
        let rows = |values: &[f32], width: usize, count: usize, offset: &[f32]| {
            let all = starts.iter().flat_map(|start| &values[start * width..(start + count) * width]);
            let all: Vec<f32> = all.zip((0..width).cycle()).map(|(x, c)| x + offset.get(c).unwrap_or(&0.0)).collect();
            Tensor::from_data(TensorData::new(all, [starts.len(), count * width]), &spec.device)
        };
        let scale = (0..o).map(|c| {
            let changes = data.obs().iter().zip(data.next_obs()).skip(c).step_by(o);
            let turn = spec.angles.iter().find(|angle| angle.column == c).map(|angle| angle.turn);
            let changes = changes.map(|(x, y)| match turn {
                Some(turn) => (y - x) - turn * ((y - x) / turn).round(),
                None => y - x,
            });
            let square = changes.map(|x| f64::from(x).powi(2)).sum::<f64>() / data.len() as f64;
            if square > 0.0 { square.sqrt() as f32 } else { 1.0 }
        });
        let holdout = data.held_windows(&starts, steps);
        let (values, free) = (self.values(), unknown.len());
        let formula = Formula::record(free + o + a, free, |n| {
            let mut all: Vec<super::Num> = values.iter().map(|value| (*value).into()).collect();
            unknown.iter().zip(n).for_each(|(&i, n)| all[i] = *n);
            all.extend(&n[free..]);
            self.equations().moved.replay(&all)
        });
        let windows = PhysicsWindows {
            steps,
            formula,
            starts: rows(data.obs(), o, 1, &offset),
            actions: rows(data.actions(), a, steps, &[]),
            truth: rows(data.next_obs(), o, steps, &offset),
            scale: scale.collect(),
            holdout,
        };
        Ok((windows, ()))
    }

    fn parameters(&self) -> PhysicsLogs {
        let values = self.values();
        let logs: Vec<f32> = self.unknown().into_iter().map(|i| values[i].ln() as f32).collect();
        let count = logs.len();
        PhysicsLogs { logs: Param::from_data(TensorData::new(logs, [1, count]), &self.spec().device) }
    }

    fn loss(&self, parameters: &PhysicsLogs, examples: &PhysicsWindows, batch: &FitBatch<'_>) -> Tensor<1> {
        self.squares(parameters.logs.val(), examples, batch.rows).mean()
    }

    fn error(&self, parameters: &PhysicsLogs, examples: &PhysicsWindows, rows: &[usize]) -> Tensor<2> {
        self.squares(parameters.logs.val(), examples, rows).mean_dim(0)
    }

    fn choose(old: PhysicsLogs, new: PhysicsLogs, take: &[bool]) -> PhysicsLogs {
        if take[0] { new } else { old }
    }

    fn finish(&mut self, parameters: PhysicsLogs, (): (), _: &[f32]) {
        let logs: Vec<f32> = parameters.logs.val().into_data().iter::<f32>().collect();
        let mut values = self.values();
        for (&i, log) in self.unknown().iter().zip(&logs) {
            values[i] = f64::from(*log).exp();
        }
        // The trainer hands over finite parameters; one beyond the range of numbers stays what it was.
        let _ = self.set_values(&values);
    }
}

impl LearnedModel for PhysicsModel {
    /// Back to the guesses: there is nothing to draw.
    fn reinitialize(&mut self, _: &mut Rng) {
        self.begin_again();
    }

    fn save(&self) -> Result<Vec<u8>, ModelError> {
        // Their bits: numbers stored as text would lose the last one.
        let named: Vec<(&str, u64)> = self.parameters().iter().map(|p| (p.name.as_str(), p.value.to_bits())).collect();
        serde_json::to_vec(&named).map_err(|error| ModelError::Storage(error.to_string()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let storage = |error: String| ModelError::Storage(error);
        let named: Vec<(String, u64)> = serde_json::from_slice(bytes).map_err(|error| storage(error.to_string()))?;
        if !named.iter().map(|(name, _)| name).eq(self.parameters().iter().map(|p| &p.name)) {
            let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            return Err(storage(format!(
                "parameters {}: those of another model than {}",
                names.join(", "),
                self.spec().name
            )));
        }
        self.set_values(&named.into_iter().map(|(_, bits)| f64::from_bits(bits)).collect::<Vec<_>>())
    }
}
