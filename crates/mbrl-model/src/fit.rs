//! Fitting a model to transitions.
//!
//! One trainer for every model whose parameters Burn can differentiate: bootstrap batches a member, a holdout, MBPO's stopping
//! rule, the best snapshot of each member.
//!
//! ## References
//! \[1\] Janner et al. (2019), *When to Trust Your Model: Model-Based Policy Optimization* (MBPO), NeurIPS;
//! `mbpo/models/bnn.py` for the stopping rule.

use std::time::{Duration, Instant};

use burn::{
    grad_clipping::GradientClippingConfig,
    module::Module,
    optim::{AdamConfig, GradientsParams},
    tensor::{Device, Int, Tensor, TensorData},
};
use mbrl_env::Rng;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::{Dataset, Dynamics, ModelError};

/// Rows that a model makes of transitions to fit on, on its device.
#[derive(Debug, Clone)]
pub struct Examples {
    /// What goes into the loss's model, `[N, in]`.
    pub inputs: Tensor<2>,
    /// What should come out, `[N, out]`.
    pub targets: Tensor<2>,
}

/// A model that [`fit`](fit()) can fit.
///
/// The trainer owns the loop; the model says what its parameters are, what a batch costs and which members are good.
/// Nothing of the model changes before [`finish`](Self::finish), so a fit that fails leaves it whole.
pub trait Fit: Dynamics {
    /// What the optimizer moves.
    type Parameters: Module;
    /// What is learned from the data besides, such as statistics of its columns.
    type Statistics;

    /// Members that are fitted, `E`; each gets its own batches.
    fn members(&self) -> usize;

    /// Examples and statistics of a data set.
    ///
    /// # Errors
    /// [`ModelError::Width`] where the data has other columns than the model.
    fn prepare(&self, data: &Dataset) -> Result<(Examples, Self::Statistics), ModelError>;

    /// The present parameters, without gradients.
    fn parameters(&self) -> Self::Parameters;

    /// Loss of one batch a member: `inputs` `[E, B, in]`, `targets` `[E, B, out]` → `[1]`.
    fn loss(&self, parameters: &Self::Parameters, inputs: Tensor<3>, targets: Tensor<3>) -> Tensor<1>;

    /// Mean squared error of each member on the same rows, a column: `inputs` `[N, in]`, `targets` `[N, out]` → `[E, out]`.
    /// Stopping and elites go by its mean over columns.
    fn error(&self, parameters: &Self::Parameters, inputs: Tensor<2>, targets: Tensor<2>) -> Tensor<2>;

    /// `new` for the members marked in `take`, `[E]`, `old` for the others.
    fn choose(old: Self::Parameters, new: Self::Parameters, take: &[bool]) -> Self::Parameters;

    /// Optimizer steps of the model's own, from its present parameters on: of the same loss by the same Adam as here, only
    /// faster. Default: `None`, Burn differentiates [`loss`](Self::loss).
    fn stepper(&self, examples: &Examples, config: &FitConfig) -> Option<Box<dyn Stepper<Self::Parameters>>> {
        let _ = (examples, config);
        None
    }

    /// Takes over fitted parameters; `errors` `[E]` are those of [`error`](Self::error), meant over columns.
    fn finish(&mut self, parameters: Self::Parameters, statistics: Self::Statistics, errors: &[f32]);
}

/// Optimizer steps without Burn's autodiff; made by [`Fit::stepper`].
pub trait Stepper<P> {
    /// One step on a batch of examples, `rows` `[E·B]` member by member; its loss.
    fn step(&mut self, rows: &[usize]) -> f32;

    /// As [`Fit::error`], of examples by their rows: `[E]` of `[out]`.
    fn errors(&self, rows: &[usize]) -> Vec<Vec<f32>>;

    /// The parameters after the steps so far.
    fn parameters(&self) -> P;
}

/// How to fit. Defaults are MBPO's \[1\].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FitConfig {
    /// Learning rate of Adam (default 1e-3).
    pub learning_rate: f64,
    /// Rows of a batch, a member (default 256).
    pub batch_size: usize,
    /// Most passes over the data (default 200; MBPO sets none and limits time instead).
    pub max_epochs: usize,
    /// Most optimizer steps, 0 for no limit (default 0).
    pub max_steps: usize,
    /// Fraction of the transitions held out for validation (default 0.2), unless the data says which
    /// ([`Dataset::with_holdout`]). With 0 every epoch is kept and `max_epochs` alone
    /// ends the fit (PETS).
    pub holdout: f32,
    /// Most transitions held out (default 5000).
    pub max_holdout: usize,
    /// Stop after more than this many epochs in which no member improved (default 5).
    pub patience: usize,
    /// What counts as an improvement: the holdout error fell by this fraction (default 0.01).
    pub improvement: f32,
    /// Whether each member draws its own training set with replacement (default true); otherwise all see all, each in its
    /// own order.
    pub bootstrap: bool,
    /// Largest norm of the gradient of each weight array, 0 for no clipping (default 0). With clipping, ensembles on a CPU take
    /// Burn's autodiff instead of their own steps, which are several times as fast.
    pub grad_clip: f32,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            batch_size: 256,
            max_epochs: 200,
            max_steps: 0,
            holdout: 0.2,
            max_holdout: 5000,
            patience: 5,
            improvement: 0.01,
            bootstrap: true,
            grad_clip: 0.0,
        }
    }
}

impl FitConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// [`ModelError::Config`], naming the field.
    pub fn validate(&self) -> Result<(), ModelError> {
        let rule = |ok: bool, field, value: &dyn std::fmt::Display, rule| match ok {
            true => Ok(()),
            false => Err(ModelError::Config { field, value: value.to_string(), rule }),
        };
        let finite = |v: f32| v.is_finite() && v >= 0.0;
        rule(
            self.learning_rate.is_finite() && self.learning_rate > 0.0,
            "learning_rate",
            &self.learning_rate,
            "a positive finite number",
        )?;
        rule(self.batch_size > 0, "batch_size", &self.batch_size, "at least 1")?;
        rule(self.max_epochs > 0, "max_epochs", &self.max_epochs, "at least 1")?;
        rule((0.0..1.0).contains(&self.holdout), "holdout", &self.holdout, "a fraction in [0, 1)")?;
        rule(finite(self.improvement), "improvement", &self.improvement, "a finite number of at least 0")?;
        rule(finite(self.grad_clip), "grad_clip", &self.grad_clip, "a finite number of at least 0")
    }
}

/// What a fit did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FitReport {
    /// Passes over the training rows.
    pub epochs: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Rows trained on.
    pub train_rows: usize,
    /// Rows held out.
    pub holdout_rows: usize,
    /// Mean loss over the last epoch.
    pub train_loss: f32,
    /// Mean squared error of each member's kept weights, `[E]`, in the units of the model's targets: on the holdout, or on
    /// (at most 5000) training rows where nothing is held out.
    pub errors: Vec<f32>,
    /// The same, meant over members, for each column of the targets.
    pub column_errors: Vec<f32>,
    /// Wall time.
    pub elapsed: Duration,
}

impl FitReport {
    /// The report of a fit that has not begun: no steps yet, a loss of NaN.
    #[must_use]
    pub fn new(train_rows: usize, holdout_rows: usize) -> Self {
        Self {
            epochs: 0,
            steps: 0,
            train_rows,
            holdout_rows,
            train_loss: f32::NAN,
            errors: Vec::new(),
            column_errors: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }
}

/// An epoch of a fit that has just ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// Mean loss over its batches.
    pub train_loss: f32,
    /// Mean squared error of each member as it now is, `[E]`, as in [`FitReport::errors`]; without a holdout on a few training
    /// rows.
    pub errors: &'a [f32],
}

/// Fits `model` to `data`, from its present weights on.
///
/// The optimizer starts afresh at each fit: nothing of it needs to be kept between fits, and its first steps on new data are
/// not steered by moments of the old.
///
/// # Errors
/// [`ModelError::Config`], [`ModelError::Width`], [`ModelError::TooLittleData`] (fewer than 2 transitions) change nothing.
/// [`ModelError::Diverged`] names the step at which the loss became NaN or infinite; the model then holds the best weights
/// of the epochs before, or what it held before the fit where there is none.
pub fn fit<M: Fit>(model: &mut M, data: &Dataset, config: &FitConfig, rng: &mut Rng) -> Result<FitReport, ModelError> {
    fit_watched(model, data, config, rng, &mut |_| {})
}

/// [`fit`](fit()), telling of each epoch.
///
/// # Errors
/// As [`fit`](fit()).
pub fn fit_watched<M: Fit>(
    model: &mut M,
    data: &Dataset,
    config: &FitConfig,
    rng: &mut Rng,
    watch: &mut dyn FnMut(&Epoch<'_>),
) -> Result<FitReport, ModelError> {
    config.validate()?;
    if data.len() < 2 {
        return Err(ModelError::TooLittleData { actual: data.len(), needed: 2 });
    }
    let began = Instant::now();
    let (examples, statistics) = model.prepare(data)?;
    let device = model.spec().device.clone();
    let members = model.members();

    let mut order = rng.permutation(data.len());
    let held = match (config.holdout * data.len() as f32) as usize {
        _ if data.holdout().is_some() => {
            // Held out rows in front, as they are drawn; those that are too many are not trained on either.
            let chosen = data.holdout().unwrap_or_default();
            let mut is_chosen = vec![false; data.len()];
            chosen.iter().for_each(|&row| is_chosen[row] = true);
            order.sort_by_key(|&row| !is_chosen[row]);
            order.drain(config.max_holdout.min(chosen.len())..chosen.len());
            chosen.len().min(config.max_holdout)
        }
        0 if config.holdout > 0.0 => 1,
        rows => rows.min(config.max_holdout),
    };
    let (holdout, train) = order.split_at(held);
    // Without a holdout nothing is decided by the error: a few rows show whether the weights are still finite.
    let validation = if held > 0 { holdout } else { &train[..train.len().min(config.batch_size)] };

    let mut adam = AdamConfig::new().with_epsilon(1e-8);
    if config.grad_clip > 0.0 {
        adam = adam.with_grad_clipping(Some(GradientClippingConfig::Norm(config.grad_clip)));
    }
    let mut optimizer = adam.init();
    let mut parameters = model.parameters().train();
    let mut stepper = model.stepper(&examples, config);
    let mut bags = bags(train, members, config.bootstrap, rng);

    // Each member's errors, a column.
    let validate =
        |stepper: Option<&dyn Stepper<M::Parameters>>, model: &M, parameters: &M::Parameters, rows: &[usize]| {
            if let Some(stepper) = stepper {
                return stepper.errors(rows);
            }
            let rows = index(rows, &device);
            let errors = model.error(
                parameters,
                examples.inputs.clone().select(0, rows.clone()),
                examples.targets.clone().select(0, rows),
            );
            let columns = errors.dims()[1];
            crate::ensemble::to_vec(errors).chunks(columns).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
    let mut best: Option<(M::Parameters, Vec<Vec<f32>>)> = None;
    let mut report = FitReport::new(train.len(), held);
    let mut epochs_without = 0;
    let mut fault = None;
    'fit: while report.epochs < config.max_epochs {
        for bag in &mut bags {
            let order = rng.permutation(bag.len());
            *bag = order.into_iter().map(|i| bag[i]).collect();
        }
        let (mut losses, mut tensors) = (Vec::new(), Vec::new());
        let mut out_of_steps = false;
        for from in (0..train.len()).step_by(config.batch_size) {
            let to = (from + config.batch_size).min(train.len());
            let rows: Vec<usize> = bags.iter().flat_map(|bag| &bag[from..to]).copied().collect();
            if let Some(stepper) = &mut stepper {
                losses.push(stepper.step(&rows));
            } else {
                let rows = index(&rows, &device);
                let batch = |t: &Tensor<2>| {
                    let width = t.dims()[1];
                    t.clone().select(0, rows.clone()).reshape([members, to - from, width])
                };
                let loss = model.loss(&parameters, batch(&examples.inputs), batch(&examples.targets));
                tensors.push(loss.clone().inner());
                let gradients = GradientsParams::from_grads(loss.backward(), &parameters);
                parameters = optimizer.step(config.learning_rate, parameters, gradients);
            }
            report.steps += 1;
            out_of_steps = report.steps == config.max_steps;
            if out_of_steps {
                break;
            }
        }
        // Losses are read once an epoch: on a GPU each read waits for all work before it.
        if !tensors.is_empty() {
            losses = crate::ensemble::to_vec(Tensor::cat(tensors, 0));
        }
        if let Some(bad) = losses.iter().position(|l| !l.is_finite()) {
            let step = report.steps - losses.len() + bad;
            fault = Some(ModelError::Diverged { step, epoch: report.epochs, value: losses[bad] });
            break 'fit;
        }
        let plain = stepper.as_ref().map_or_else(|| parameters.valid(), |stepper| stepper.parameters());
        let errors = validate(stepper.as_deref(), model, &plain, validation);
        if errors.iter().flatten().any(|e| !e.is_finite()) {
            // The last step of the epoch broke the weights; its own loss was still finite.
            fault = Some(ModelError::Diverged { step: report.steps - 1, epoch: report.epochs, value: f32::NAN });
            break 'fit;
        }
        report.epochs += 1;
        report.train_loss = losses.iter().sum::<f32>() / losses.len() as f32;
        debug!(epoch = report.epochs, loss = report.train_loss, ?errors, "fit");
        let means: Vec<f32> = errors.iter().map(|columns| mean(columns)).collect();
        watch(&Epoch { number: report.epochs, train_loss: report.train_loss, errors: &means });

        best = Some(match best.take() {
            None => (plain, errors),
            Some(_) if held == 0 => (plain, errors),
            Some((kept, mut kept_errors)) => {
                let better = |(new, old): (&Vec<f32>, &Vec<f32>)| {
                    let (new, old) = (mean(new), mean(old));
                    (old - new) / old.abs().max(1e-30) > config.improvement
                };
                let take: Vec<bool> = errors.iter().zip(&kept_errors).map(better).collect();
                let improved = take.contains(&true);
                epochs_without = if improved { 0 } else { epochs_without + 1 };
                for (e, (kept, new)) in kept_errors.iter_mut().zip(errors).enumerate() {
                    if take[e] {
                        *kept = new;
                    }
                }
                let kept = if improved { M::choose(kept, plain, &take) } else { kept };
                (kept, kept_errors)
            }
        });
        if out_of_steps || epochs_without > config.patience {
            break;
        }
    }
    if let Some((parameters, mut errors)) = best {
        if held == 0 {
            errors = validate(stepper.as_deref(), model, &parameters, &train[..train.len().min(5000)]);
        }
        report.errors = errors.iter().map(|columns| mean(columns)).collect();
        let members = errors.len() as f32;
        report.column_errors =
            (0..errors[0].len()).map(|c| errors.iter().map(|columns| columns[c]).sum::<f32>() / members).collect();
        model.finish(parameters, statistics, &report.errors);
    }
    report.elapsed = began.elapsed();
    fault.map_or(Ok(report), Err)
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// The rows that each member trains on.
fn bags(train: &[usize], members: usize, bootstrap: bool, rng: &mut Rng) -> Vec<Vec<usize>> {
    let bag = |_| match bootstrap {
        true => (0..train.len()).map(|_| train[rng.below(train.len())]).collect(),
        false => train.to_vec(),
    };
    (0..members).map(bag).collect()
}

fn index(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
    let n = rows.len();
    Tensor::from_data(TensorData::new(rows, [n]), device)
}
