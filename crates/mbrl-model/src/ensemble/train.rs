//! How an ensemble is fitted: examples, likelihood, elites.

use std::{ops::Range, sync::Arc};

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, activation},
};

use mbrl_env::Knowledge;

use super::{
    Emphasis, Ensemble, Head, Heads, Network, Wrap,
    copies::{Copies, Shaper, Transitions},
    delta, elite_count, is_cpu,
    stepper::HostStepper,
    to_vec,
};
use crate::{
    Dataset, Examples, Fit, FitBatch, FitConfig, ModelError, Normalizer, Pairs, Stepper,
    dynamics::check_size,
    normalizer::{Moments, magnitudes},
};

/// Statistics of an ensemble's inputs and targets.
#[derive(Debug, Clone)]
pub struct EnsembleStatistics {
    inputs: Normalizer,
    targets: Normalizer,
    /// Where values of angles that jump lie.
    wraps: Vec<Wrap>,
    /// What was subtracted from the observations, `[O]`.
    offset: Vec<f64>,
}

/// How much more the cross-entropy of a termination counts than its likelihood says.
///
/// Where the world is nearly free of noise, a Gaussian of standard deviation σ pulls at the shared layers with gradients of
/// order 1/σ, the termination with gradients of order 1. Measured on a linear system without noise, three networks of 2·32 units,
/// 3000 steps, terminations of a fresh 1000 transitions that are predicted wrongly: 26 with a weight of 1, 12 with 10, and with 100 the dynamics
/// suffer. Squared errors vanish as they are fitted: 2 wrong with 1, and the reward suffers from 10.
pub(super) fn end_weight(head: Head) -> f64 {
    match head {
        Head::Gaussian => 10.0,
        Head::Deterministic => 1.0,
    }
}

/// What statistics are made of.
struct Sums {
    inputs: Moments,
    targets: Moments,
    input_magnitudes: Vec<f32>,
    /// Of the observations and rewards that targets are made of: a change smaller than the resolution of `f32` there is rounding.
    target_magnitudes: Vec<f32>,
}

impl Sums {
    fn of(inputs: &[f32], targets: &[f32], of: &Transitions<'_>, shaper: &Shaper) -> Self {
        let (width, targets_width, o) = (shaper.seen.width(), shaper.targets_width(), shaper.obs);
        let observed = magnitudes(of.obs.chunks_exact(o).chain(of.next_obs.chunks_exact(o)), o);
        let mut target_magnitudes: Vec<f32> = shaper.predicted.columns.iter().map(|&c| observed[c]).collect();
        if shaper.reward {
            target_magnitudes.extend(magnitudes(of.rewards.chunks(1), 1));
        }
        Self {
            inputs: Moments::of(inputs, width),
            targets: Moments::of(targets, targets_width),
            input_magnitudes: magnitudes(inputs.chunks_exact(width), width),
            target_magnitudes,
        }
    }

    fn join(&mut self, other: &Self) {
        self.inputs.join(&other.inputs);
        self.targets.join(&other.targets);
        for (mine, other) in [
            (&mut self.input_magnitudes, &other.input_magnitudes),
            (&mut self.target_magnitudes, &other.target_magnitudes),
        ] {
            mine.iter_mut().zip(other).for_each(|(mine, other)| *mine = mine.max(*other));
        }
    }
}

/// What an ensemble makes of transitions: rows of standardised inputs and targets and, where the task has symmetries or states are
/// predicted, what batches are made of instead.
#[derive(Debug, Clone)]
pub struct EnsembleExamples {
    /// Of the transitions as they are.
    pairs: Pairs,
    copies: Option<Arc<Copies>>,
}

impl Examples for EnsembleExamples {
    fn count(&self) -> usize {
        self.pairs.count()
    }

    fn holdout(&self) -> Option<&[usize]> {
        self.pairs.holdout()
    }
}

impl EnsembleExamples {
    /// Inputs `[E, B, in]` and targets `[E, B, out]` to train on; `means` are what the members predict for inputs `[E, n, in]`.
    fn batch(&self, batch: &FitBatch<'_>, means: &dyn Fn(Tensor<3>) -> Tensor<3>) -> [Tensor<3>; 2] {
        let Some(copies) = &self.copies else { return self.pairs.batch(batch) };
        let device = self.pairs.inputs.device();
        let tensor = |values: Vec<f32>, width: usize| {
            let shape = [batch.members, values.len() / (batch.members * width), width];
            Tensor::<3>::from_data(TensorData::new(values, shape), &device)
        };
        let width = self.pairs.inputs.dims()[1];
        copies.draw(batch, &|inputs| to_vec(means(tensor(inputs.to_vec(), width)))).map(|values| {
            let width = values.len() / batch.rows.len().max(1);
            tensor(values, width)
        })
    }

    pub(super) fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    pub(super) fn copies(&self) -> Option<Arc<Copies>> {
        self.copies.clone()
    }
}

impl Ensemble {
    fn shaper(&self) -> Shaper {
        Shaper {
            seen: self.seen.clone(),
            predicted: self.predicted.clone(),
            wraps: self.wraps.clone(),
            delta: delta(&self.config, self.spec.obs),
            obs: self.spec.obs,
            action: self.spec.action,
            reward: self.config.reward,
            past: self.spec.state - self.spec.obs,
        }
    }

    /// PETS: `Σ_members mean[(μ − y)² e^{−lv} + lv] + 0.01·Σ(max_lv − min_lv) + Σ_layers decay·½‖W‖²`; squared error for a
    /// deterministic head. With [`nll_beta`](super::EnsembleConfig::nll_beta) the terms in brackets are weighted by `e^{β lv}`, without a gradient; with an
    /// [`emphasis`](super::EnsembleConfig::emphasis) those of some columns by a number. `inputs` `[E, B, in]`, `targets` `[E, B, out]`.
    ///
    /// The mean over D columns of a Gaussian is, up to a constant, 2/D times a negative log-likelihood. A termination's
    /// cross-entropy is a negative log-likelihood too and gets the same factor, times [`end_weight`].
    pub(super) fn loss_of(&self, network: &Network, inputs: Tensor<3>, targets: Tensor<3>) -> Tensor<1> {
        let members = self.config.members as f64;
        let Heads { mean, log_var, end } = network.heads(inputs, &self.config);
        let columns = mean.dims()[2];
        let described = if end.is_some() { targets.clone().narrow(2, 0, columns) } else { targets.clone() };
        let square = (mean - described).square();
        let weighed = |terms: Tensor<3>| {
            if self.config.emphasis.columns.is_empty() {
                return terms;
            }
            let (weights, device) = (TensorData::new(self.error_weights(), [1, 1, columns]), terms.device());
            terms * Tensor::from_data(weights, &device)
        };
        let mut loss = match log_var {
            None => weighed(square).mean() * members,
            Some(log_var) => {
                let mut terms = square * log_var.clone().neg().exp() + log_var.clone();
                if self.config.nll_beta > 0.0 {
                    terms = terms * (log_var.detach() * self.config.nll_beta).exp();
                }
                let likelihood = weighed(terms).mean() * members;
                match self.config.learn_bounds && self.config.bounds_weight > 0.0 {
                    true => {
                        let gap = network.max_log_var.val() - network.min_log_var.val();
                        likelihood + gap.sum() * self.config.bounds_weight
                    }
                    false => likelihood,
                }
            }
        };
        if let Some(logit) = end {
            // −ln p of a logit z and a termination y: ln(1 + e^z) − y z.
            let cross_entropy = activation::softplus(logit.clone(), 1.0) - logit * targets.narrow(2, columns, 1);
            loss = loss + cross_entropy.mean() * (members * end_weight(self.config.head) * 2.0 / columns as f64);
        }
        for (weight, &decay) in network.weights.iter().zip(&self.config.weight_decay) {
            if decay > 0.0 {
                loss = loss + weight.val().square().sum() * (0.5 * decay);
            }
        }
        loss
    }

    /// What an error of each column of the mean counts in the loss.
    pub(super) fn error_weights(&self) -> Vec<f32> {
        let Emphasis { columns, weight } = &self.config.emphasis;
        let of = |column: &usize| if columns.contains(column) { *weight } else { 1.0 };
        let reward = self.config.reward.then_some(1.0);
        self.predicted.columns.iter().map(of).chain(reward).collect()
    }

    /// Squared errors of each member on the same rows of inputs `[N, in]` and targets `[N, out]`, averaged over rows, `[E, out]`.
    pub(super) fn error_of(&self, network: &Network, [inputs, targets]: [Tensor<2>; 2]) -> Tensor<2> {
        let inputs = inputs.unsqueeze::<3>().repeat_dim(0, self.config.members);
        let Heads { mean, end, .. } = network.heads(inputs, &self.config);
        let predicted = match end {
            None => mean,
            Some(logit) => Tensor::cat(vec![mean, activation::sigmoid(logit)], 2),
        };
        let square: Tensor<3> = (predicted - targets.unsqueeze::<3>()).square();
        square.mean_dim(1).squeeze_dim(1)
    }
}

impl Fit for Ensemble {
    type Data = Dataset;
    type Examples = EnsembleExamples;
    type Parameters = Network;
    type Statistics = EnsembleStatistics;

    fn name(&self) -> &str {
        &self.spec.name
    }

    fn members(&self) -> usize {
        self.config.members
    }

    /// Statistics are those over all copies where the task has symmetries. Where values of angles that jump lie is seen in the
    /// transitions as they are, which is where roll-outs start.
    fn prepare(&self, data: &Dataset) -> Result<(EnsembleExamples, EnsembleStatistics), ModelError> {
        let (obs, action) = (self.spec.obs, self.spec.action);
        check_size("columns of obs", obs, data.obs_width())?;
        check_size("columns of actions", action, data.action_width())?;
        check_size("past steps of the data", self.config.past, data.past_steps())?;
        let wanted = |learned: bool, what, there: bool| match learned && !there {
            true => Err(ModelError::MissingData { what }),
            false => Ok(()),
        };
        wanted(self.config.reward, "rewards", data.rewards().is_some())?;
        wanted(self.config.termination, "terminations", data.terminated().is_some())?;
        wanted(self.config.hallucinated_steps > 0, "episodes", data.has_episodes())?;
        if data.offset().iter().any(|offset| *offset != 0.0) {
            let Knowledge { features, augment, known, .. } = &self.knowledge;
            let parts =
                [("features", features.is_some()), ("symmetries", augment.is_some()), ("known", known.is_some())];
            if let Some((field, _)) = parts.into_iter().find(|(_, there)| *there) {
                let (value, rule) = ("data with an offset".into(), "data in the task's own units".into());
                return Err(ModelError::Config { field, value, rule });
            }
        }

        let rows = || data.obs().chunks_exact(obs).chain(data.next_obs().chunks_exact(obs));
        let wraps: Vec<Wrap> = self.wraps.iter().map(|wrap| wrap.seen(rows())).collect();
        let shaper = Shaper { wraps: wraps.clone(), ..self.shaper() };
        let all = shaper.transitions(data);
        let (mut inputs, mut targets) = (shaper.inputs(&all), shaper.targets(&all));
        let targets_width = shaper.targets_width();
        let mut sums = Sums::of(&inputs, &targets, &all, &shaper);
        if let Some(augment) = &self.knowledge.augment {
            // One copy of everything at a time.
            for copy in 1..augment.copies() {
                let copied = all.copied(copy, &**augment, &shaper);
                sums.join(&Sums::of(&shaper.inputs(&copied), &shaper.targets(&copied), &copied, &shaper));
            }
        }
        let statistics = EnsembleStatistics {
            inputs: sums.inputs.normalizer(&sums.input_magnitudes),
            targets: if self.config.normalize_targets {
                sums.targets.normalizer(&sums.target_magnitudes)
            } else {
                Normalizer::identity(targets_width)
            },
            wraps,
            offset: data.offset().to_vec(),
        };
        statistics.inputs.normalize(&mut inputs);
        statistics.targets.normalize(&mut targets);
        let ends = data.terminated().filter(|_| self.config.termination).unwrap_or_default();
        let ends: Vec<f32> = ends.iter().map(|&end| f32::from(u8::from(end))).collect();
        if !ends.is_empty() {
            let rows = targets.chunks_exact(targets_width).zip(&ends);
            targets = rows.flat_map(|(row, &end)| row.iter().copied().chain([end])).collect();
        }
        let upload = |values: Vec<f32>| {
            let width = values.len() / data.len();
            Tensor::from_data(TensorData::new(values, [data.len(), width]), &self.spec.device)
        };
        let pairs = Pairs::new(upload(inputs), upload(targets)).with_holdout(data.holdout().map(<[usize]>::to_vec));
        let augment = self.knowledge.augment.clone().filter(|augment| augment.copies() > 1);
        let most = self.config.hallucinated_steps;
        let copies = (augment.is_some() || most > 0).then(|| {
            let before = |episode: Range<usize>| (0..episode.len()).map(|at| at.min(most) as u32);
            let before = if most > 0 { data.episodes().flat_map(before).collect() } else { Vec::new() };
            let (inputs, targets) = (statistics.inputs.clone(), statistics.targets.clone());
            Arc::new(Copies { augment, all: all.into_owned(), ends, shaper, inputs, targets, before })
        });
        Ok((EnsembleExamples { pairs, copies }, statistics))
    }

    fn parameters(&self) -> Network {
        self.network.clone()
    }

    fn loss(&self, network: &Network, examples: &EnsembleExamples, batch: &FitBatch<'_>) -> Tensor<1> {
        let means = |inputs: Tensor<3>| network.valid().heads(inputs, &self.config).mean;
        let [inputs, targets] = examples.batch(batch, &means);
        self.loss_of(network, inputs, targets)
    }

    /// Columns of the observation that are predicted, then the reward, then the termination by the squared error of its probability (Brier's
    /// score); of the transitions as they are.
    fn error(&self, network: &Network, examples: &EnsembleExamples, rows: &[usize]) -> Tensor<2> {
        self.error_of(network, examples.pairs.select(rows))
    }

    /// On a CPU with the engine on; only Burn clips norms of gradients.
    fn stepper(&self, examples: &EnsembleExamples, config: &FitConfig) -> Option<Box<dyn Stepper<Network>>> {
        let own = self.use_engine && is_cpu(&self.spec.device) && config.grad_clip == 0.0;
        own.then(|| Box::new(HostStepper::new(&self.network, &self.config, self.error_weights(), examples)) as Box<_>)
    }

    fn choose(old: Network, new: Network, take: &[bool]) -> Network {
        let device = old.max_log_var.val().device();
        let mask: Vec<bool> = take.to_vec();
        let mask = Tensor::<1, burn::tensor::Bool>::from_data(TensorData::new(mask, [take.len()]), &device);
        let mask = mask.reshape([take.len(), 1, 1]);
        let pick = |(old, new): (Param<Tensor<3>>, Param<Tensor<3>>)| {
            let shape = new.val().dims();
            let value = old.val().mask_where(mask.clone().expand(shape), new.val());
            old.map(|_| value)
        };
        Network {
            weights: old.weights.into_iter().zip(new.weights).map(pick).collect(),
            biases: old.biases.into_iter().zip(new.biases).map(pick).collect(),
            // Shared by the members: the newest.
            max_log_var: new.max_log_var,
            min_log_var: new.min_log_var,
        }
    }

    fn finish(&mut self, network: Network, statistics: EnsembleStatistics, errors: &[f32]) {
        let mut elites: Vec<usize> = (0..self.config.members).collect();
        elites.sort_by(|&a, &b| errors[a].total_cmp(&errors[b]));
        elites.truncate(elite_count(&self.config));
        if elites.len() == self.config.members {
            // All of them: their order carries nothing, and in place no gather is needed.
            elites.sort_unstable();
        }
        (self.wraps, self.offset) = (statistics.wraps, statistics.offset);
        self.install(network, statistics.inputs, statistics.targets, elites);
    }
}
