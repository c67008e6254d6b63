//! Fitting a model to data.
//!
//! One trainer for every model whose parameters Burn can differentiate: bootstrap batches for each member, a holdout, MBPO's stopping
//! rule, the best snapshot of each member. What is fitted need not be a dynamics model, and its data need not be transitions: a
//! policy can be fitted to what another did, physics to windows of episodes.
//!
//! ## References
//! \[1\] Janner et al. (2019), *When to Trust Your Model: Model-Based Policy Optimization* (MBPO), NeurIPS;
//! `mbpo/models/bnn.py` for the stopping rule.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use burn::{
    grad_clipping::GradientClippingConfig,
    module::Module,
    optim::{AdamConfig, GradientsParams, ModuleOptimizer},
    tensor::{Int, Tensor, TensorData},
};
use mbrl_env::Rng;
use serde::{Deserialize, Serialize};
use tracing::{debug, debug_span};

use crate::ModelError;

/// Examples that a model makes of its data, numbered from 0: transitions, windows of episodes, texts. The trainer knows how many there
/// are and draws their indices; the model knows what they are.
pub trait Examples {
    /// How many there are, `N`.
    fn count(&self) -> usize;

    /// Those to validate on, in rising order, where the data says which. Otherwise (default) the trainer holds out a random share.
    fn holdout(&self) -> Option<&[usize]> {
        None
    }

    /// The group of each example, `[N]`, where examples of a group share data, as windows of one episode do. Then whole groups are held out,
    /// so that no data is used for both training and validation: as many as fit into [`FitConfig::holdout`], or else the smallest. With a
    /// single group, nothing is held out. By default each example is a group of its own.
    fn groups(&self) -> Option<&[usize]> {
        None
    }
}

/// Examples that are rows of two tables, on the model's device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pairs {
    /// Inputs of a network, `[N, in]`.
    pub inputs: Tensor<2>,
    /// The outputs that it should give, `[N, out]`.
    pub targets: Tensor<2>,
    holdout: Option<Vec<usize>>,
}

impl Pairs {
    /// Pairs of `inputs` `[N, in]` and `targets` `[N, out]`.
    #[must_use]
    pub fn new(inputs: Tensor<2>, targets: Tensor<2>) -> Self {
        Self { inputs, targets, holdout: None }
    }

    /// Says which rows to validate on, in rising order.
    #[must_use]
    pub fn with_holdout(self, rows: Option<Vec<usize>>) -> Self {
        Self { holdout: rows, ..self }
    }

    /// The rows of a batch: inputs `[E, B, in]`, targets `[E, B, out]`.
    #[must_use]
    pub fn batch(&self, batch: &FitBatch<'_>) -> [Tensor<3>; 2] {
        self.select(batch.rows).map(|rows| {
            let width = rows.dims()[1];
            rows.reshape([batch.members, batch.size(), width])
        })
    }

    /// Some rows: inputs `[n, in]`, targets `[n, out]`.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> [Tensor<2>; 2] {
        let index: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &self.inputs.device());
        [&self.inputs, &self.targets].map(|table| table.clone().select(0, index.clone()))
    }
}

impl Examples for Pairs {
    fn count(&self) -> usize {
        self.inputs.dims()[0]
    }

    fn holdout(&self) -> Option<&[usize]> {
        self.holdout.as_deref()
    }
}

/// A batch of examples for each member.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FitBatch<'a> {
    /// Their indices, `[E·B]`, member by member.
    pub rows: &'a [usize],
    /// Members, `E`.
    pub members: usize,
    /// Key for whatever the model draws in this fit, such as copies of the examples under a symmetry.
    pub key: u64,
    /// Optimizer step within the fit, from 0.
    pub step: u32,
}

impl<'a> FitBatch<'a> {
    /// A batch of the first step of a fit; `rows` `[E·B]`.
    #[must_use]
    pub fn new(rows: &'a [usize], members: usize, key: u64) -> Self {
        Self { rows, members, key, step: 0 }
    }

    /// The same rows at another step.
    #[must_use]
    pub fn at_step(self, step: u32) -> Self {
        Self { step, ..self }
    }

    /// Examples per member, `B`.
    #[must_use]
    pub fn size(&self) -> usize {
        self.rows.len() / self.members.max(1)
    }
}

/// What [`fit`](fit()) can fit: a dynamics model, and anything else that has parameters, data and a loss.
///
/// The trainer owns the loop; the model says what its parameters are, what the loss of a batch is and which members are good.
/// The model does not change before [`finish`](Self::finish), so a fit that fails leaves it as it was.
pub trait Fit {
    /// The data that it is fitted to.
    type Data: ?Sized;
    /// The examples that it makes of the data.
    type Examples: Examples;
    /// The parameters that the optimizer updates.
    type Parameters: Module;
    /// What else is learned from the data, such as statistics of its columns.
    type Statistics;

    /// Name, for messages.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// Members that are fitted, `E`; each gets its own batches.
    fn members(&self) -> usize;

    /// Examples and statistics of a data set.
    ///
    /// # Errors
    /// [`ModelError::Width`] where the data has other columns than the model.
    fn prepare(&self, data: &Self::Data) -> Result<(Self::Examples, Self::Statistics), ModelError>;

    /// The present parameters, without gradients.
    fn parameters(&self) -> Self::Parameters;

    /// Loss of one batch per member, `[1]`.
    fn loss(&self, parameters: &Self::Parameters, examples: &Self::Examples, batch: &FitBatch<'_>) -> Tensor<1>;

    /// Mean squared error of each member on the same examples, for each column of its outputs, `[E, out]`. Early stopping and the
    /// choice of elites use its mean over columns.
    fn error(&self, parameters: &Self::Parameters, examples: &Self::Examples, rows: &[usize]) -> Tensor<2>;

    /// `new` for the members marked in `take`, `[E]`, `old` for the others.
    fn choose(old: Self::Parameters, new: Self::Parameters, take: &[bool]) -> Self::Parameters;

    /// The model's own optimizer steps, starting from its present parameters: the same loss and the same Adam as here, only
    /// faster. Default: `None`, and Burn differentiates [`loss`](Self::loss).
    fn stepper(&self, examples: &Self::Examples, config: &FitConfig) -> Option<Box<dyn Stepper<Self::Parameters>>> {
        let _ = (examples, config);
        None
    }

    /// Takes over fitted parameters; `errors` `[E]` are those of [`error`](Self::error), averaged over columns.
    fn finish(&mut self, parameters: Self::Parameters, statistics: Self::Statistics, errors: &[f32]);
}

/// Optimizer steps without Burn's autodiff; made by [`Fit::stepper`].
pub trait Stepper<P> {
    /// One step on a batch of examples; its loss.
    fn step(&mut self, batch: &FitBatch<'_>) -> f32;

    /// Sets the learning rate of the next steps.
    fn set_learning_rate(&mut self, rate: f64);

    /// As [`Fit::error`], for examples given by their rows: `[E]` of `[out]`.
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
    /// Fraction of the learning rate that is left at the last step that the fit may take; the rate falls linearly (default 1: it stays constant).
    pub final_rate: f64,
    /// Rows per batch and member (default 256).
    pub batch_size: usize,
    /// Maximum number of passes over the data (default 200; MBPO sets none and limits time instead).
    pub max_epochs: usize,
    /// Maximum number of optimizer steps, 0 for no limit (default 0).
    pub max_steps: usize,
    /// Fraction of the transitions held out for validation (default 0.2), unless the data says which
    /// ([`Dataset::with_holdout`](crate::Dataset::with_holdout)); in [whole groups](Examples::groups) where examples share data. With 0, or
    /// a single group, every epoch is kept and `max_epochs` alone
    /// ends the fit (PETS).
    pub holdout: f32,
    /// Maximum number of transitions held out (default 5000).
    pub max_holdout: usize,
    /// Stop after more than this many epochs in which no member improved (default 5).
    pub patience: usize,
    /// What counts as an improvement: the holdout error fell by this fraction (default 0.01).
    pub improvement: f32,
    /// Whether each member draws its own training set with replacement (default true); otherwise every member sees all rows, each in its own order.
    pub bootstrap: bool,
    /// Largest norm of the gradient of each weight array, 0 for no clipping (default 0). With clipping, ensembles on a CPU use
    /// Burn's autodiff instead of their own steps, which are several times as fast.
    pub grad_clip: f32,
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            final_rate: 1.0,
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
            false => Err(ModelError::Config { field, value: value.to_string(), rule: Cow::Borrowed(rule) }),
        };
        let finite = |v: f32| v.is_finite() && v >= 0.0;
        rule(
            self.learning_rate.is_finite() && self.learning_rate > 0.0,
            "learning_rate",
            &self.learning_rate,
            "a positive finite number",
        )?;
        rule((0.0..=1.0).contains(&self.final_rate), "final_rate", &self.final_rate, "a fraction in [0, 1]")?;
        rule(self.batch_size > 0, "batch_size", &self.batch_size, "at least 1")?;
        rule(self.max_epochs > 0, "max_epochs", &self.max_epochs, "at least 1")?;
        rule((0.0..1.0).contains(&self.holdout), "holdout", &self.holdout, "a fraction in [0, 1)")?;
        rule(finite(self.improvement), "improvement", &self.improvement, "a finite number of at least 0")?;
        rule(finite(self.grad_clip), "grad_clip", &self.grad_clip, "a finite number of at least 0")
    }

    /// The learning rate at a step of a fit to `rows` rows.
    fn rate_at(&self, step: usize, rows: usize) -> f64 {
        if self.final_rate == 1.0 {
            return self.learning_rate;
        }
        let most = self.max_epochs.saturating_mul(rows.div_ceil(self.batch_size));
        let last = if self.max_steps == 0 { most } else { most.min(self.max_steps) } - 1;
        let gone = step as f64 / last.max(1) as f64;
        self.learning_rate * (1.0 - (1.0 - self.final_rate) * gone)
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
    /// Examples trained on.
    pub train_rows: usize,
    /// Examples held out.
    pub holdout_rows: usize,
    /// Mean loss over the last epoch.
    pub train_loss: f32,
    /// Mean squared error of each member's kept weights, `[E]`, in the units of the model's targets: on the holdout, or on
    /// (at most 5000) training rows where nothing is held out.
    pub errors: Vec<f32>,
    /// The same, averaged over members, for each column of the targets.
    pub column_errors: Vec<f32>,
    /// Wall-clock time.
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
    /// Mean squared error of each member at present, `[E]`, as in [`FitReport::errors`]; without a holdout, on a few training
    /// rows.
    pub errors: &'a [f32],
}

/// Fits `model` to `data`, starting from its present weights.
///
/// The optimizer starts afresh at each fit: its state need not be kept between fits, and moments of the old data do not steer
/// its first steps on new data.
///
/// # Errors
/// [`ModelError::Config`], [`ModelError::Width`], [`ModelError::TooLittleData`] (fewer than 2 examples) leave the model unchanged.
/// [`ModelError::Diverged`] names the step at which the loss became NaN or infinite; the model then holds the best weights of
/// the earlier epochs or, where there are none, the weights from before the fit.
pub fn fit<M: Fit>(model: &mut M, data: &M::Data, config: &FitConfig, rng: &mut Rng) -> Result<FitReport, ModelError> {
    fit_watched(model, data, config, rng, &mut |_| {})
}

/// [`fit`](fit()), reporting each epoch.
///
/// # Errors
/// As [`fit`](fit()).
pub fn fit_watched<M: Fit>(
    model: &mut M,
    data: &M::Data,
    config: &FitConfig,
    rng: &mut Rng,
    watch: &mut dyn FnMut(&Epoch<'_>),
) -> Result<FitReport, ModelError> {
    config.validate()?;
    let began = Instant::now();
    let (examples, statistics) = model.prepare(data)?;
    let count = examples.count();
    if count < 2 {
        return Err(ModelError::TooLittleData { actual: count, needed: 2 });
    }
    let _span = debug_span!("fit", model = %model.name(), rows = count).entered();
    // From a copy: a fit that draws nothing with the key gets the same random numbers as without it.
    let key = rng.clone().key();
    let split = Split::draw(&examples, config, rng);
    if split.train().is_empty() {
        return Err(ModelError::TooLittleData { actual: 0, needed: 1 });
    }
    let mut report = FitReport::new(split.train().len(), split.held);
    let mut trainer = Trainer::new(&*model, examples, config, key);
    let mut bags = bags(split.train(), trainer.members, config.bootstrap, rng);
    let mut best: Option<Best<M::Parameters>> = None;
    let mut epochs_without = 0;
    let mut fault = None;
    while report.epochs < config.max_epochs {
        for bag in &mut bags {
            let order = rng.permutation(bag.len());
            *bag = order.into_iter().map(|i| bag[i]).collect();
        }
        let losses = trainer.epoch(&bags, &mut report.steps);
        if let Some(bad) = losses.iter().position(|l| !l.is_finite()) {
            let step = report.steps - losses.len() + bad;
            fault = Some(ModelError::Diverged { step, epoch: report.epochs, value: losses[bad] });
            break;
        }
        let parameters = trainer.parameters();
        let errors = trainer.errors(&parameters, split.validation(config.batch_size));
        if errors.iter().flatten().any(|e| !e.is_finite()) {
            // The last step of the epoch broke the weights; its own loss was still finite.
            fault = Some(ModelError::Diverged { step: report.steps - 1, epoch: report.epochs, value: f32::NAN });
            break;
        }
        report.epochs += 1;
        report.train_loss = losses.iter().sum::<f32>() / losses.len() as f32;
        debug!(epoch = report.epochs, loss = report.train_loss, ?errors, "fit");
        let means: Vec<f32> = errors.iter().map(|columns| mean(columns)).collect();
        watch(&Epoch { number: report.epochs, train_loss: report.train_loss, errors: &means });

        let new = Best { parameters, errors };
        let (kept, improved) = match best.take() {
            Some(best) if split.held > 0 => best.improved::<M>(new, config.improvement),
            // Nothing to compare with, or nothing to compare by.
            _ => (new, true),
        };
        best = Some(kept);
        epochs_without = if improved { 0 } else { epochs_without + 1 };
        if report.steps == config.max_steps || epochs_without > config.patience {
            break;
        }
    }
    if let Some(Best { parameters, mut errors }) = best {
        if split.held == 0 {
            let rows = &split.train()[..split.train().len().min(5000)];
            // After a fault the model's own steps have continued, to weights that are not kept.
            errors =
                if fault.is_some() { trainer.errors_of(&parameters, rows) } else { trainer.errors(&parameters, rows) };
        }
        drop(trainer);
        report.errors = errors.iter().map(|columns| mean(columns)).collect();
        let members = errors.len() as f32;
        report.column_errors =
            (0..errors[0].len()).map(|c| errors.iter().map(|columns| columns[c]).sum::<f32>() / members).collect();
        model.finish(parameters, statistics, &report.errors);
    }
    report.elapsed = began.elapsed();
    fault.map_or(Ok(report), Err)
}

/// Rows in the order in which they were drawn, those held out in front.
struct Split {
    order: Vec<usize>,
    held: usize,
}

impl Split {
    fn draw(examples: &impl Examples, config: &FitConfig, rng: &mut Rng) -> Self {
        let count = examples.count();
        let mut order = rng.permutation(count);
        if let Some(chosen) = examples.holdout() {
            let mut is_chosen = vec![false; count];
            chosen.iter().for_each(|&row| is_chosen[row] = true);
            order.sort_by_key(|&row| !is_chosen[row]);
            // Rows beyond the limit are not trained on either.
            order.drain(config.max_holdout.min(chosen.len())..chosen.len());
            return Self { order, held: chosen.len().min(config.max_holdout) };
        }
        let held = match (config.holdout * count as f32) as usize {
            0 if config.holdout > 0.0 => 1.min(config.max_holdout),
            rows => rows.min(config.max_holdout),
        };
        match examples.groups() {
            Some(groups) if held > 0 => Self::by_groups(order, held, groups, rng),
            _ => Self { order, held },
        }
    }

    /// Whole groups, drawn at random, as many as fit into `most` rows; the smallest where none fits. With a single group, nothing is held out.
    fn by_groups(mut order: Vec<usize>, most: usize, groups: &[usize], rng: &mut Rng) -> Self {
        let mut sizes = BTreeMap::new();
        groups.iter().for_each(|group| *sizes.entry(*group).or_insert(0) += 1);
        let sizes: Vec<(usize, usize)> = sizes.into_iter().collect();
        if sizes.len() == 1 {
            return Self { order, held: 0 };
        }
        let drawn: Vec<(usize, usize)> = rng.permutation(sizes.len()).into_iter().map(|i| sizes[i]).collect();
        let (mut chosen, mut held) = (HashSet::new(), 0);
        for (group, size) in &drawn {
            if held + size <= most {
                chosen.insert(*group);
                held += size;
            }
        }
        if let Some((group, size)) = drawn.iter().min_by_key(|(_, size)| size).filter(|_| held == 0) {
            chosen.insert(*group);
            held = *size;
        }
        order.sort_by_key(|&row| !chosen.contains(&groups[row]));
        Self { order, held }
    }

    fn train(&self) -> &[usize] {
        &self.order[self.held..]
    }

    /// Rows that epochs are judged on. Without a holdout nothing is decided by the error: a few rows show whether the weights
    /// are still finite.
    fn validation(&self, batch_size: usize) -> &[usize] {
        if self.held > 0 { &self.order[..self.held] } else { &self.train()[..self.train().len().min(batch_size)] }
    }
}

/// What updates the parameters.
enum Optimizer<P> {
    /// The model's own steps.
    Own(Box<dyn Stepper<P>>),
    /// Burn's autodiff of the loss, and its Adam. The parameters are absent only while they are being updated.
    Burn { adam: Box<ModuleOptimizer>, parameters: Option<P> },
}

/// The examples, and what is fitted to them.
struct Trainer<'a, M: Fit> {
    model: &'a M,
    config: &'a FitConfig,
    examples: M::Examples,
    members: usize,
    key: u64,
    optimizer: Optimizer<M::Parameters>,
}

impl<'a, M: Fit> Trainer<'a, M> {
    fn new(model: &'a M, examples: M::Examples, config: &'a FitConfig, key: u64) -> Self {
        let optimizer = match model.stepper(&examples, config) {
            Some(own) => Optimizer::Own(own),
            None => {
                let mut adam = AdamConfig::new().with_epsilon(1e-8);
                if config.grad_clip > 0.0 {
                    adam = adam.with_grad_clipping(Some(GradientClippingConfig::Norm(config.grad_clip)));
                }
                Optimizer::Burn { adam: Box::new(adam.init()), parameters: Some(model.parameters().train()) }
            }
        };
        Self { model, config, examples, members: model.members(), key, optimizer }
    }

    /// One pass over the bags, or up to the limit on `steps`, which are counted; returns the losses of its batches.
    fn epoch(&mut self, bags: &[Vec<usize>], steps: &mut usize) -> Vec<f32> {
        let (mut losses, mut tensors) = (Vec::new(), Vec::new());
        let rows = bags.first().map_or(0, Vec::len);
        for from in (0..rows).step_by(self.config.batch_size) {
            let to = (from + self.config.batch_size).min(rows);
            let rows: Vec<usize> = bags.iter().flat_map(|bag| &bag[from..to]).copied().collect();
            let batch = FitBatch::new(&rows, self.members, self.key).at_step(*steps as u32);
            let rate = self.config.rate_at(*steps, bags[0].len());
            match &mut self.optimizer {
                Optimizer::Own(stepper) => {
                    stepper.set_learning_rate(rate);
                    losses.push(stepper.step(&batch));
                }
                Optimizer::Burn { adam, parameters } => {
                    let before = parameters.take().expect("put back after each step");
                    let loss = self.model.loss(&before, &self.examples, &batch);
                    tensors.push(loss.clone().inner());
                    let gradients = GradientsParams::from_grads(loss.backward(), &before);
                    *parameters = Some(adam.step(rate, before, gradients));
                }
            }
            *steps += 1;
            if *steps == self.config.max_steps {
                break;
            }
        }
        // Losses are read once per epoch: on a GPU each read waits for all work before it.
        if !tensors.is_empty() {
            losses = crate::ensemble::to_vec(Tensor::cat(tensors, 0));
        }
        losses
    }

    /// The parameters as they now are, without gradients.
    fn parameters(&self) -> M::Parameters {
        match &self.optimizer {
            Optimizer::Own(stepper) => stepper.parameters(),
            Optimizer::Burn { parameters, .. } => parameters.as_ref().expect("put back after each step").valid(),
        }
    }

    /// Errors on some rows, `[E]` of `[out]`: of the given parameters, or of those that the model's own steps have reached.
    fn errors(&self, parameters: &M::Parameters, rows: &[usize]) -> Vec<Vec<f32>> {
        if let Optimizer::Own(stepper) = &self.optimizer {
            return stepper.errors(rows);
        }
        self.errors_of(parameters, rows)
    }

    /// Errors on some rows, `[E]` of `[out]`, of the given parameters.
    fn errors_of(&self, parameters: &M::Parameters, rows: &[usize]) -> Vec<Vec<f32>> {
        let errors = self.model.error(parameters, &self.examples, rows);
        let columns = errors.dims()[1];
        crate::ensemble::to_vec(errors).chunks(columns).map(<[f32]>::to_vec).collect()
    }
}

/// Each member's best parameters so far, and their errors, `[E]` of `[out]`.
struct Best<P> {
    parameters: P,
    errors: Vec<Vec<f32>>,
}

impl<P> Best<P> {
    /// With the members of `new` that are better by the fraction `improvement`, and whether there are any.
    fn improved<M: Fit<Parameters = P>>(mut self, new: Self, improvement: f32) -> (Self, bool) {
        let better = |(new, old): (&Vec<f32>, &Vec<f32>)| {
            let (new, old) = (mean(new), mean(old));
            (old - new) / old.abs().max(1e-30) > improvement
        };
        let take: Vec<bool> = new.errors.iter().zip(&self.errors).map(better).collect();
        if !take.contains(&true) {
            return (self, false);
        }
        for ((kept, new), take) in self.errors.iter_mut().zip(new.errors).zip(&take) {
            if *take {
                *kept = new;
            }
        }
        (Self { parameters: M::choose(self.parameters, new.parameters, &take), errors: self.errors }, true)
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    struct Grouped(Vec<usize>);

    impl Examples for Grouped {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn groups(&self) -> Option<&[usize]> {
            Some(&self.0)
        }
    }

    #[test]
    fn groups_are_held_out_whole_and_one_is_left() {
        let of = |lengths: &[usize]| {
            Grouped(lengths.iter().enumerate().flat_map(|(group, length)| vec![group; *length]).collect())
        };
        // Rows trained on and held out; of unequal groups that fit into 10 rows.
        for (lengths, holdout, wanted) in [
            (&[7; 10][..], 0.2, Some([56, 14])),
            (&[7; 10], 0.25, Some([56, 14])),
            (&[7; 10], 0.05, Some([63, 7])),
            (&[3, 9, 1, 5, 12], 0.35, None),
            (&[900, 25, 25, 25, 25], 0.1, Some([900, 100])),
            (&[4, 4], 0.9, Some([4, 4])),
            (&[8], 0.2, Some([8, 0])),
            (&[7; 10], 0.0, Some([70, 0])),
        ] {
            let examples = of(lengths);
            let mut drawn = BTreeSet::new();
            for seed in 0..40 {
                let config = FitConfig { holdout, ..FitConfig::default() };
                let split = Split::draw(&examples, &config, &mut Rng::new(seed));
                let (held, train) = (&split.order[..split.held], split.train());
                match wanted {
                    Some(wanted) => assert_eq!([train.len(), held.len()], wanted),
                    None => assert!((1..=10).contains(&held.len()), "{}", held.len()),
                }
                assert_eq!(train.len() + held.len(), examples.count());
                let groups: BTreeSet<usize> = held.iter().map(|row| examples.0[*row]).collect();
                assert!(
                    train.iter().all(|row| !groups.contains(&examples.0[*row])),
                    "{lengths:?}: a group on both sides"
                );
                drawn.insert(groups);
            }
            let one = holdout == 0.0 || lengths.len() == 1 || lengths[0] == 900;
            assert!(one || drawn.len() > 1, "always the same groups");
        }
        for holdout in [0.2, 0.001] {
            let config = FitConfig { holdout, max_holdout: 0, ..FitConfig::default() };
            assert_eq!(Split::draw(&of(&[7; 10]), &config, &mut Rng::new(0)).held, 0);
        }
    }
}
