//! Optimizer steps of an ensemble on a CPU, without Burn: the heads' loss and its gradient by hand, and [`HostMlp`] below them.
//!
//! A step has two phases. Tiles of rows walk forward through all layers, are judged and walk back, each in cache and on one
//! thread. Panels of weights then sum their gradients over all rows and take Adam's step while they are in cache. The tests compare
//! loss and gradients with Burn's autodiff.

use std::{ops::Range, sync::Arc};

use multiversion::multiversion;
use rayon::prelude::*;

use burn::tensor::{Tensor, TensorData};

use super::{
    Network,
    config::{EnsembleConfig, Head},
    copies::Copies,
    to_vec,
    train::{EnsembleExamples, end_weight},
};
use crate::{
    FitBatch, Stepper,
    mlp::{
        Adam, AdamConfig, HostMlp, Pass, Rows, Tape, Tile, gather,
        kernel::{Columns, TILE},
    },
    vmath,
};

/// Moments of the gradients of an array.
#[derive(Debug, Clone)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Moments {
    fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }
}

/// The bounds of the log-variance, shared by the members: the upper ones, then the lower ones.
#[derive(Debug)]
struct Bounds {
    values: [Vec<f32>; 2],
    moments: [Moments; 2],
    /// Whether they are learned, and the weight of their distance in the loss.
    learned: Option<f32>,
}

/// What is found of a tile besides the gradients of its outputs.
#[derive(Debug, Default)]
struct Verdict {
    /// Targets, column by column.
    targets: Columns,
    loss: f64,
    /// Gradients of the bounds.
    bounds: [Vec<f32>; 2],
}

/// The loss and its settings, shared by all tiles of a step.
#[derive(Debug)]
struct Objective {
    head: Head,
    /// β of the β-likelihood.
    beta: f32,
    /// Columns of the mean.
    columns: usize,
    /// The weight of an error in each column.
    weights: Vec<f32>,
    /// Weight of a termination's cross-entropy beside the mean over the columns, where it is learned.
    end: Option<f32>,
}

#[derive(Debug)]
pub(super) struct HostStepper {
    layers: HostMlp,
    adam: Adam,
    tape: Tape,
    /// One for each tile of the tape.
    verdicts: Vec<Verdict>,
    bounds: Bounds,
    objective: Objective,
    /// Outputs of the last layer whose weights stay 0.
    constant: Range<usize>,
    /// `[N, in]` and `[N, out]`, of the transitions as they are.
    inputs: Vec<f32>,
    targets: Vec<f32>,
    /// What is trained on instead where there are symmetries, or states are predicted.
    copies: Option<Arc<Copies>>,
    /// Width of the targets.
    width: usize,
    /// What it was made from, for names and devices of what is returned.
    network: Network,
}

impl HostStepper {
    /// `weights`: the weight of an error in each column of the mean.
    pub(super) fn new(
        network: &Network,
        config: &EnsembleConfig,
        weights: Vec<f32>,
        examples: &EnsembleExamples,
    ) -> Self {
        let (copies, examples) = (examples.copies(), examples.pairs());
        let inputs = examples.inputs.dims()[1];
        let outputs = network.biases.last().map_or(0, |bias| bias.val().dims()[2]);
        let layers = HostMlp::from_params(&config.mlp(inputs, outputs), [&network.weights, &network.biases, &[], &[]]);
        let adam = AdamConfig { decay: config.weight_decay.clone(), ..AdamConfig::default() };
        let values = [to_vec(network.max_log_var.val()), to_vec(network.min_log_var.val())];
        let columns = values[0].len();
        let learned = (config.head == Head::Gaussian && config.learn_bounds).then_some(config.bounds_weight);
        Self {
            adam: Adam::new(&layers, adam),
            layers,
            tape: Tape::new(),
            verdicts: Vec::new(),
            bounds: Bounds { moments: [(); 2].map(|()| Moments::new(columns)), values, learned },
            objective: Objective {
                head: config.head,
                beta: config.nll_beta,
                columns,
                weights,
                end: config.termination.then(|| (end_weight(config.head) * 2.0 / columns as f64) as f32),
            },
            constant: config.constant_outputs(columns - usize::from(config.reward)),
            width: examples.targets.dims()[1],
            inputs: to_vec(examples.inputs.clone()),
            targets: to_vec(examples.targets.clone()),
            copies,
            network: network.clone(),
        }
    }

    /// Phase one: the loss of a batch; its gradients have then gone back through all tiles.
    fn walk(&mut self, of: &FitBatch<'_>) -> f64 {
        let Self { layers, tape, verdicts, objective, bounds, inputs, targets, copies, width, .. } = self;
        let members = layers.config().members;
        let batch = of.rows.len() / members;
        // Copies stand in the order of the batch.
        let copied = copies.as_ref().map(|copies| {
            let order: Vec<usize> = (0..of.rows.len()).collect();
            (copies.draw(of, &|inputs| layers.forward(Rows::Own(inputs), Pass::Infer, None)), order)
        });
        let (inputs, targets, rows) = match &copied {
            None => (&*inputs, &*targets, of.rows),
            Some(([inputs, targets], order)) => (inputs, targets, &order[..]),
        };
        let tiles = batch.div_ceil(TILE);
        tape.begin(layers, batch, Pass::Infer);
        verdicts.resize_with(tape.tiles.len(), Verdict::default);
        let judge = Judge { objective, bounds: &bounds.values, batch };
        let back = layers.back();
        let walk = |(i, (tile, verdict)): (usize, (&mut Tile, &mut Verdict))| {
            let (member, row) = (i / tiles, i % tiles * TILE);
            layers.fill(Rows::Picked { of: inputs, rows }, member, row, batch, tile);
            let rows = &rows[member * batch + row..member * batch + (row + TILE).min(batch)];
            verdict.targets.resize(*width);
            gather(targets, *width, rows, &mut verdict.targets);
            layers.forward_tile(member, 0, None, tile);
            judge.judge(rows.len(), tile, verdict);
            layers.backward_tile(member, &back[member], None, None, tile);
        };
        let work = tape.tiles.iter_mut().zip(verdicts.iter_mut());
        if layers.serial(batch) {
            work.enumerate().for_each(walk);
        } else {
            let work: Vec<_> = work.collect();
            work.into_par_iter().enumerate().for_each(walk);
        }
        let mut loss: f64 = verdicts.iter().map(|verdict| verdict.loss).sum();
        if let Some(weight) = bounds.learned.filter(|weight| *weight > 0.0) {
            let [max, min] = &bounds.values;
            loss += f64::from(weight) * max.iter().zip(min).map(|(max, min)| f64::from(max - min)).sum::<f64>();
        }
        let decays = &self.adam.config().decay;
        let decay = |weights: &Vec<_>| -> Vec<f64> { weights.iter().zip(decays).map(of_decay).collect() };
        loss + layers.members.iter().flat_map(decay).sum::<f64>()
    }

    /// Sums of a tile's squared errors, for each column; for a termination those of its probability.
    fn squares(&self, rows: &[usize], tile: &Tile) -> Vec<f64> {
        let (columns, width) = (self.objective.columns, self.width);
        let mut sums = Vec::with_capacity(columns + 1);
        for column in 0..columns + usize::from(self.objective.end.is_some()) {
            let is_end = column == columns;
            let said = if is_end { &tile.out[tile.out.len() - 1] } else { &tile.out[column] };
            let mut sum = 0.0;
            for (said, row) in said.iter().zip(rows) {
                let said = if is_end { 1.0 / (1.0 + vmath::exp(-said)) } else { *said };
                let error = f64::from(said - self.targets[row * width + column]);
                sum += error * error;
            }
            sums.push(sum);
        }
        sums
    }

    /// The gradients of the bounds.
    fn bound_gradients(&self) -> [Vec<f32>; 2] {
        let mut gradients = [(); 2].map(|()| vec![0.0; self.objective.columns]);
        let Some(weight) = self.bounds.learned else { return gradients };
        for (side, sign) in [1.0, -1.0].into_iter().enumerate() {
            gradients[side].fill(sign * weight.max(0.0));
            for verdict in &self.verdicts {
                for (sum, gradient) in gradients[side].iter_mut().zip(&verdict.bounds[side]) {
                    *sum += gradient;
                }
            }
        }
        gradients
    }
}

impl Stepper<Network> for HostStepper {
    fn step(&mut self, batch: &FitBatch<'_>) -> f32 {
        let loss = self.walk(batch);
        self.layers.update_with_constants(&mut self.tape, &mut self.adam, &self.constant);
        if self.bounds.learned.is_some() {
            let gradients = self.bound_gradients();
            for ((values, moments), gradients) in
                self.bounds.values.iter_mut().zip(&mut self.bounds.moments).zip(&gradients)
            {
                self.adam.rates().step([values, &mut moments.first, &mut moments.second], gradients, 0.0);
            }
        }
        loss as f32
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.adam.set_learning_rate(rate as f32);
    }

    fn errors(&self, rows: &[usize]) -> Vec<Vec<f32>> {
        let width = self.objective.columns + usize::from(self.objective.end.is_some());
        let (members, tiles) = (self.layers.config().members, rows.len().div_ceil(TILE));
        let sums: Vec<Vec<f64>> = (0..members * tiles)
            .into_par_iter()
            .map_init(Tape::new, |tape, i| {
                let rows = &rows[i % tiles * TILE..(i % tiles * TILE + TILE).min(rows.len())];
                tape.room(&self.layers);
                let tile = &mut tape.tiles[0];
                tile.inputs[0].resize(self.layers.config().inputs);
                gather(&self.inputs, self.layers.config().inputs, rows, &mut tile.inputs[0]);
                self.layers.forward_tile(i / tiles, 0, None, tile);
                self.squares(rows, tile)
            })
            .collect();
        let mean = |tiles: &[Vec<f64>], column: usize| {
            (tiles.iter().map(|tile| tile[column]).sum::<f64>() / rows.len() as f64) as f32
        };
        sums.chunks(tiles.max(1)).map(|tiles| (0..width).map(|column| mean(tiles, column)).collect()).collect()
    }

    fn parameters(&self) -> Network {
        let device = self.network.max_log_var.val().device();
        let tensor = |values: Vec<f32>, shape: [usize; 3]| Tensor::from_data(TensorData::new(values, shape), &device);
        let flat = self.layers.parameters();
        let mut rest = &flat[..];
        let mut next = |shape: [usize; 3]| {
            let (values, tail) = rest.split_at(shape.iter().product());
            rest = tail;
            tensor(values.to_vec(), shape)
        };
        let network = self.network.clone();
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for (weight, bias) in network.weights.into_iter().zip(network.biases) {
            let value = next(weight.val().dims());
            weights.push(weight.map(|_| value));
            let value = next(bias.val().dims());
            biases.push(bias.map(|_| value));
        }
        let [max, min] = self.bounds.values.clone().map(|values| tensor(values, [1, 1, self.objective.columns]));
        Network {
            weights,
            biases,
            max_log_var: network.max_log_var.map(|_| max),
            min_log_var: network.min_log_var.map(|_| min),
        }
    }
}

/// A layer's share of the loss, for the decay of its weights.
fn of_decay((layer, decay): (&crate::mlp::Layer, &f32)) -> f64 {
    match *decay > 0.0 {
        true => 0.5 * f64::from(*decay) * f64::from(sum_of_squares(&layer.packed.weight)),
        false => 0.0,
    }
}

/// What a tile's outputs are judged by.
struct Judge<'a> {
    objective: &'a Objective,
    /// Values of the bounds.
    bounds: &'a [Vec<f32>; 2],
    batch: usize,
}

impl Judge<'_> {
    /// The tile's share of the loss, and the gradients of the last layer's outputs; 0 in the lanes beyond its `n` rows.
    fn judge(&self, n: usize, tile: &mut Tile, verdict: &mut Verdict) {
        let Objective { head, beta, columns, end, ref weights } = *self.objective;
        let mean = 1.0 / (self.batch * columns) as f32;
        let last = tile.gradients.len() - 1;
        let (gradients, out, targets) = (&mut tile.gradients[last], &tile.out, &verdict.targets);
        gradients.fill([0.0; TILE]);
        let mut loss = [0.0; TILE];
        for side in &mut verdict.bounds {
            side.clear();
        }
        for (column, weight) in weights.iter().enumerate() {
            let (target, share) = (&targets[column], mean * weight);
            match head {
                Head::Deterministic => {
                    squared_error(&out[column], target, share, &mut loss[..n], &mut gradients[column][..n]);
                }
                Head::Gaussian => {
                    let bounds = [&self.bounds[0], &self.bounds[1]].map(|side| side[column]);
                    let (means, log_vars) = gradients.split_at_mut(columns);
                    let mut sides = [[0.0; TILE]; 2];
                    let [max, min] = &mut sides;
                    likelihood(
                        [&out[column], &out[columns + column], target],
                        bounds,
                        [share, beta],
                        [
                            &mut loss[..n],
                            &mut means[column][..n],
                            &mut log_vars[column][..n],
                            &mut max[..n],
                            &mut min[..n],
                        ],
                    );
                    for (bounds, side) in verdict.bounds.iter_mut().zip(&sides) {
                        bounds.push(side.iter().sum());
                    }
                }
            }
        }
        if let (Some(weight), Some(logit)) = (end, out.last()) {
            let last = gradients.len() - 1;
            let share = weight / self.batch as f32;
            cross_entropy(logit, &targets[columns], share, &mut loss[..n], &mut gradients[last][..n]);
        }
        verdict.loss = loss.iter().map(|loss| f64::from(*loss)).sum();
    }
}

/// Squared errors `(mean − target)²` times `share`, and their gradients.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn squared_error(mean: &[f32], target: &[f32], share: f32, loss: &mut [f32], gradient: &mut [f32]) {
    for (((mean, target), loss), gradient) in mean.iter().zip(target).zip(loss).zip(gradient) {
        let error = mean - target;
        *loss += share * error * error;
        *gradient = 2.0 * share * error;
    }
}

/// `(mean − target)² e^{−lv} + lv` times `share` with the softly bounded log-variance lv; gradients of the mean, of the raw
/// log-variance, and of its upper and lower bound. The share is weighted by `e^{β lv}`, which is held fixed.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn likelihood(
    [mean, raw, target]: [&[f32]; 3],
    [max, min]: [f32; 2],
    [share, beta]: [f32; 2],
    [loss, means, log_vars, maxima, minima]: [&mut [f32]; 5],
) {
    let n = loss.len();
    let (mean, raw, target) = (&mean[..n], &raw[..n], &target[..n]);
    let (means, log_vars, maxima, minima) = (&mut means[..n], &mut log_vars[..n], &mut maxima[..n], &mut minima[..n]);
    for i in 0..n {
        let below_max = max - vmath::softplus(max - raw[i]);
        let log_var = min + vmath::softplus(below_max - min);
        let upper = 1.0 / (1.0 + vmath::exp(raw[i] - max));
        let lower = 1.0 / (1.0 + vmath::exp(min - below_max));
        let precision = vmath::exp(-log_var);
        let share = if beta > 0.0 { share * vmath::exp(beta * log_var) } else { share };
        let error = mean[i] - target[i];
        let scaled = error * precision;
        loss[i] += share * (error * scaled + log_var);
        means[i] = 2.0 * share * scaled;
        let gradient = share * (1.0 - error * scaled);
        log_vars[i] = gradient * lower * upper;
        maxima[i] = gradient * lower * (1.0 - upper);
        minima[i] = gradient * (1.0 - lower);
    }
}

/// The cross-entropy of terminations under logits times `share`, and its gradient.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn cross_entropy(logit: &[f32], end: &[f32], share: f32, loss: &mut [f32], gradient: &mut [f32]) {
    for (((logit, end), loss), gradient) in logit.iter().zip(end).zip(loss).zip(gradient) {
        *loss += share * (vmath::softplus(*logit) - logit * end);
        *gradient = share * (1.0 / (1.0 + vmath::exp(-logit)) - end);
    }
}

fn sum_of_squares(values: &[f32]) -> f32 {
    // Sixteen sums side by side: a single one could not be vectorised.
    let mut sums = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * value;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use burn::{module::Module, tensor::Device};
    use mbrl_env::Rng;

    use super::*;
    use crate::{Activation, Dataset, Emphasis, Fit, FitConfig, Variance, ensemble::Ensemble};

    fn data(rows: usize, obs: usize, action: usize, past: usize, rng: &mut Rng) -> Dataset {
        assert_eq!(past, 0);
        let mut column = |width: usize| (0..rows * width).map(|_| rng.normal()).collect::<Vec<f32>>();
        let (now, actions, next, rewards) = (column(obs), column(action), column(obs), column(1));
        let ends: Vec<bool> = now.chunks(obs).map(|row| row[0] > 0.5).collect();
        Dataset::new(now, actions, next, obs, action)
            .and_then(|data| data.with_rewards(rewards))
            .and_then(|data| data.with_terminated(ends))
            .unwrap()
    }

    /// Every setting that the loss depends on, in turn.
    fn configs() -> Vec<EnsembleConfig> {
        let mut configs = vec![EnsembleConfig {
            members: 2,
            hidden: vec![24, 17],
            variance: Variance::Column,
            weight_decay: vec![0.03; 3],
            reward: true,
            termination: true,
            max_log_var: 0.2,
            min_log_var: -0.7,
            normalize_targets: true,
            emphasis: Emphasis { columns: vec![1, 3], weight: 3.0 },
            ..EnsembleConfig::default()
        }];
        for (i, head) in [Head::Gaussian, Head::Deterministic].into_iter().enumerate() {
            for (j, activation) in [Activation::Silu, Activation::Relu, Activation::Tanh].into_iter().enumerate() {
                // The widest on several threads.
                let hidden: Vec<usize> = [vec![24, 17], vec![], vec![150, 150]][(i + j) % 3].clone();
                configs.push(EnsembleConfig {
                    members: 1 + (i + j) % 3,
                    weight_decay: if j == 1 { Vec::new() } else { vec![0.03; hidden.len() + 1] },
                    hidden,
                    activation,
                    head,
                    reward: j > 0,
                    termination: j != 1,
                    learn_bounds: j != 2,
                    nll_beta: if head == Head::Gaussian { [0.0, 0.5, 1.0][j] } else { 0.0 },
                    // The bounds bite.
                    max_log_var: 0.2,
                    min_log_var: -0.7,
                    normalize_targets: true,
                    emphasis: Emphasis { columns: vec![2], weight: [2.5, 0.2, 4.0][j] },
                    ..EnsembleConfig::default()
                });
            }
        }
        configs
    }

    fn near(what: &str, host: &Tensor<3>, burn: &Tensor<3>) {
        let (host, burn) = (to_vec(host.clone()), to_vec(burn.clone()));
        assert_eq!(host.len(), burn.len());
        let scale = burn.iter().fold(1e-6f32, |scale, value| scale.max(value.abs()));
        for (host, burn) in host.iter().zip(&burn) {
            assert!((host - burn).abs() <= 2e-5 * scale, "{what}: {host} and {burn}, magnitude {scale}");
        }
    }

    #[test]
    fn loss_and_gradients_are_those_of_autodiff() {
        let device = Device::flex();
        for (trial, config) in configs().into_iter().enumerate() {
            let mut rng = Rng::new(trial as u64);
            let model = config.init(4, 2, &device, &mut rng).unwrap();
            let (examples, _) = model.prepare(&data(300, 4, 2, 0, &mut rng)).unwrap();
            // A whole tile, less than one, several with a rest.
            for batch in [32, 5, 77] {
                let rows: Vec<usize> = (0..config.members * batch).map(|_| rng.below(300)).collect();
                let mut host = HostStepper::new(&model.network, &config, model.error_weights(), &examples);
                let loss = host.walk(&FitBatch::new(&rows, config.members, 0));
                let bounds = host.bound_gradients();
                // Gradients take the places of what they are gradients of.
                let mut gradients = host.layers.zeros();
                host.layers.write_gradients(&host.tape, &mut gradients);
                for (layers, gradients) in host.layers.members.iter().zip(&mut gradients) {
                    for ((layer, gradient), decay) in layers.iter().zip(gradients).zip(&config.weight_decay) {
                        for (gradient, value) in gradient.packed.weight.iter_mut().zip(&layer.packed.weight) {
                            *gradient += decay * value;
                        }
                    }
                }
                crate::mlp::clear(&mut gradients, &host.constant);
                host.layers.members = gradients;
                let gradients = host.parameters();

                let network = model.network.clone().train();
                let want = model.loss(&network, &examples, &FitBatch::new(&rows, config.members, 0));
                let value = f64::from(to_vec(want.clone().inner())[0]);
                assert!((loss - value).abs() <= 2e-5 * value.abs().max(1.0), "{loss} and {value} of {config:?}");
                let all = want.backward();
                let of = |param: &burn::module::Param<Tensor<3>>| param.val().grad(&all).unwrap();
                for (l, (weight, bias)) in network.weights.iter().zip(&network.biases).enumerate() {
                    near(&format!("weights {l} of {config:?}"), &gradients.weights[l].val(), &of(weight));
                    near(&format!("biases {l} of {config:?}"), &gradients.biases[l].val(), &of(bias));
                }
                if config.head == Head::Gaussian && config.learn_bounds {
                    for (param, gradient) in [&network.max_log_var, &network.min_log_var].into_iter().zip(bounds) {
                        let width = gradient.len();
                        let gradient = Tensor::from_data(TensorData::new(gradient, [1, 1, width]), &device);
                        near(&format!("bounds of {config:?}"), &gradient, &of(param));
                    }
                }
            }
        }
    }

    #[test]
    fn a_fit_is_burns_fit_and_threads_change_no_bit() {
        let device = Device::flex();
        for (trial, config) in configs().into_iter().enumerate() {
            let fitted = |engine: bool, threads: usize| {
                let mut rng = Rng::new(trial as u64);
                let mut model: Ensemble = config.init(4, 2, &device, &mut rng).unwrap();
                model.set_engine(engine);
                let data = data(300, 4, 2, 0, &mut rng);
                let settings = FitConfig { batch_size: 50, max_epochs: 4, ..FitConfig::default() };
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let report = pool.install(|| crate::fit(&mut model, &data, &settings, &mut rng)).unwrap();
                let weights: Vec<f32> = model.network.weights.iter().flat_map(|w| to_vec(w.val())).collect();
                (report, weights)
            };
            let (host, burn) = (fitted(true, 2), fitted(false, 2));
            assert_eq!((host.0.epochs, host.0.steps), (burn.0.epochs, burn.0.steps));
            let near = |a: f32, b: f32| (a - b).abs() <= 1e-3 * b.abs().max(0.1);
            assert!(near(host.0.train_loss, burn.0.train_loss), "{:?} and {:?}", host.0, burn.0);
            for (host, burn) in host.0.errors.iter().zip(&burn.0.errors) {
                assert!(near(*host, *burn), "{host} and {burn} of {config:?}");
            }
            for (host, burn) in host.0.column_errors.iter().zip(&burn.0.column_errors) {
                assert!(near(*host, *burn), "{host} and {burn} of {config:?}");
            }
            let bits = |weights: Vec<f32>| weights.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(host.1), bits(fitted(true, 1).1));
        }
    }
}
