//! Optimizer steps of an ensemble on a CPU, without Burn: forward, backward and Adam by hand on the kernels of the engine.
//!
//! A step has two phases. Tiles of rows walk forward through all layers and back, each in cache and on one thread, and leave
//! their inputs and gradients of each layer. Panels of weights then sum their gradients over all rows and take Adam's step
//! while they are in cache. Tiles and panels are shared out over the threads of the current rayon pool; sums are taken in
//! an order that does not depend on it. The tests compare loss and gradients with Burn's autodiff.

use std::mem;

use multiversion::multiversion;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use burn::tensor::{Tensor, TensorData};

use super::{
    Network,
    config::{Activation, EnsembleConfig, Head},
    kernel::{Lanes, Packed, TILE, activate_with_slope, layer, weight_gradients},
    to_vec,
    train::end_weight,
};
use crate::{Examples, Stepper, vmath};

const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;
/// Multiply-adds of a step below which threads cost more than they bring.
const SERIAL: usize = 1 << 19;

/// Shape and values of all members' weights of a layer, `[E, in, out]`, and their biases.
type Arrays = ([usize; 3], Vec<f32>, Vec<f32>);

/// Moments of the gradients of a weight array.
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

#[derive(Debug)]
struct Layer {
    packed: Packed,
    /// The transposed weights; of the first layer, through which nothing goes back, those that it began with.
    back: Packed,
    weight: Moments,
    bias: Moments,
    decay: f32,
}

/// The bounds of the log-variance, shared by the members: the upper ones, then the lower ones.
#[derive(Debug)]
struct Bounds {
    values: [Vec<f32>; 2],
    moments: [Moments; 2],
    /// Whether they are learned, and the weight of their distance in the loss.
    learned: Option<f32>,
}

/// One tile of one member's batch: what phase one leaves for phase two.
#[derive(Debug, Default)]
struct Tile {
    /// Inputs of each layer, `[in]`.
    inputs: Vec<Vec<Lanes>>,
    /// Of each layer `[out]`: slopes of the activation, then gradients of what goes into it.
    gradients: Vec<Vec<Lanes>>,
    /// What the last layer says, `[out]`.
    out: Vec<Lanes>,
    /// Gradients on their way back through a layer, `[in]`.
    back: Vec<Lanes>,
    loss: f64,
    /// Gradients of the bounds.
    bounds: [Vec<f32>; 2],
}

/// The loss and its settings, shared by all tiles of a step.
#[derive(Debug)]
struct Objective {
    activation: Activation,
    head: Head,
    /// Columns of the mean.
    columns: usize,
    /// Weight of a termination's cross-entropy beside the mean over the columns, where it is learned.
    end: Option<f32>,
}

#[derive(Debug)]
pub(super) struct HostStepper {
    members: Vec<Vec<Layer>>,
    bounds: Bounds,
    objective: Objective,
    learning_rate: f32,
    steps: i32,
    /// `[N, in]` and `[N, out]`.
    inputs: Vec<f32>,
    targets: Vec<f32>,
    widths: [usize; 2],
    tiles: Vec<Tile>,
    /// What it was made of, for names and devices of what is given back.
    network: Network,
}

impl HostStepper {
    pub(super) fn new(network: &Network, config: &EnsembleConfig, examples: &Examples, learning_rate: f64) -> Self {
        let layers: Vec<Arrays> = network
            .weights
            .iter()
            .zip(&network.biases)
            .map(|(weight, bias)| (weight.val().dims(), to_vec(weight.val()), to_vec(bias.val())))
            .collect();
        let member = |e: usize| {
            let layer = |(l, ([_, inputs, outputs], weight, bias)): (usize, &Arrays)| {
                let size = inputs * outputs;
                let packed = Packed::new(&weight[e * size..(e + 1) * size], &bias[e * outputs..(e + 1) * outputs]);
                let decay = config.weight_decay.get(l).copied().unwrap_or(0.0);
                Layer {
                    back: packed.transposed(),
                    packed,
                    weight: Moments::new(size),
                    bias: Moments::new(*outputs),
                    decay,
                }
            };
            layers.iter().enumerate().map(layer).collect()
        };
        let values = [to_vec(network.max_log_var.val()), to_vec(network.min_log_var.val())];
        let columns = values[0].len();
        let learned = (config.head == Head::Gaussian && config.learn_bounds).then_some(config.bounds_weight);
        Self {
            members: (0..config.members).map(member).collect(),
            bounds: Bounds { moments: [(); 2].map(|()| Moments::new(columns)), values, learned },
            objective: Objective {
                activation: config.activation,
                head: config.head,
                columns,
                end: config.termination.then(|| (end_weight(config.head) * 2.0 / columns as f64) as f32),
            },
            learning_rate: learning_rate as f32,
            steps: 0,
            widths: [examples.inputs.dims()[1], examples.targets.dims()[1]],
            inputs: to_vec(examples.inputs.clone()),
            targets: to_vec(examples.targets.clone()),
            tiles: Vec::new(),
            network: network.clone(),
        }
    }

    /// Phase one: the loss of a batch, and in the tiles what its gradients are made of.
    fn walk(&mut self, rows: &[usize]) -> f64 {
        let batch = rows.len() / self.members.len();
        let per_member = batch.div_ceil(TILE);
        self.tiles.resize_with(self.members.len() * per_member, Tile::default);
        let mut tiles = mem::take(&mut self.tiles);
        let walk = |(i, tile): (usize, &mut Tile)| {
            let (member, first) = (i / per_member, i % per_member * TILE);
            let rows = &rows[member * batch + first..member * batch + (first + TILE).min(batch)];
            pulp::Arch::new().dispatch(Walk { stepper: self, member, rows, batch, tile });
        };
        if self.serial(batch) {
            tiles.iter_mut().enumerate().for_each(walk);
        } else {
            tiles.par_iter_mut().enumerate().for_each(walk);
        }
        self.tiles = tiles;
        let mut loss: f64 = self.tiles.iter().map(|tile| tile.loss).sum();
        if let Some(weight) = self.bounds.learned.filter(|weight| *weight > 0.0) {
            let [max, min] = &self.bounds.values;
            loss += f64::from(weight) * max.iter().zip(min).map(|(max, min)| f64::from(max - min)).sum::<f64>();
        }
        let decay = |layer: &Layer| match layer.decay > 0.0 {
            true => 0.5 * f64::from(layer.decay) * f64::from(sum_of_squares(&layer.packed.weight)),
            false => 0.0,
        };
        loss + self.members.iter().flatten().map(decay).sum::<f64>()
    }

    fn serial(&self, batch: usize) -> bool {
        let weights: usize = self.members.iter().flatten().map(|layer| layer.packed.weight.len()).sum();
        weights * batch < SERIAL
    }

    /// Phase two: `apply` gets the gradients of each panel of weights with what they belong to.
    fn reduce(&mut self, batch: usize, apply: impl Fn(Panel<'_>, &mut [f32], &mut [f32]) + Sync) {
        let serial = self.serial(batch);
        let per_member = batch.div_ceil(TILE);
        let mut panels = Vec::new();
        for (layers, tiles) in self.members.iter_mut().zip(self.tiles.chunks(per_member)) {
            for (l, layer) in layers.iter_mut().enumerate() {
                let Layer { packed, weight, bias, decay, .. } = layer;
                let (width, size) = (packed.panel, packed.panel * packed.inputs);
                let weights = packed.weight.chunks_mut(size).zip(weight.first.chunks_mut(size));
                let weights = weights.zip(weight.second.chunks_mut(size));
                let biases = packed.bias.chunks_mut(width).zip(bias.first.chunks_mut(width));
                let biases = biases.zip(bias.second.chunks_mut(width));
                for (i, (((weight, first), second), ((bias, bias_first), bias_second))) in
                    weights.zip(biases).enumerate()
                {
                    panels.push(Panel {
                        tiles,
                        layer: l,
                        from: i * width,
                        weight: [weight, first, second],
                        bias: [bias, bias_first, bias_second],
                        decay: *decay,
                    });
                }
            }
        }
        let one = |scratch: &mut (Vec<f32>, Vec<f32>), panel: Panel<'_>| {
            let (weight, bias) = scratch;
            weight.resize(panel.weight[0].len(), 0.0);
            bias.resize(panel.bias[0].len(), 0.0);
            pulp::Arch::new().dispatch(Gradients { panel: &panel, weight, bias });
            apply(panel, weight, bias);
        };
        if serial {
            let mut scratch = Default::default();
            panels.into_iter().for_each(|panel| one(&mut scratch, panel));
        } else {
            panels.into_par_iter().for_each_init(Default::default, one);
        }
    }

    /// Transposes the new weights.
    fn transpose(&mut self, batch: usize) {
        let serial = self.serial(batch);
        let layers = self.members.iter_mut().flat_map(|layers| layers.iter_mut().skip(1));
        let panels = layers.flat_map(|Layer { packed, back, .. }| {
            let packed = &*packed;
            back.panels().enumerate().map(move |(i, panel)| (packed, i, panel))
        });
        if serial {
            panels.for_each(|(packed, i, panel)| packed.transpose_panel(i, panel));
        } else {
            let panels: Vec<_> = panels.collect();
            panels.into_par_iter().with_min_len(8).for_each(|(packed, i, panel)| packed.transpose_panel(i, panel));
        }
    }

    /// The gradients of the bounds.
    fn bound_gradients(&self) -> [Vec<f32>; 2] {
        let mut gradients = [(); 2].map(|()| vec![0.0; self.objective.columns]);
        let Some(weight) = self.bounds.learned else { return gradients };
        for (side, sign) in [1.0, -1.0].into_iter().enumerate() {
            gradients[side].fill(sign * weight.max(0.0));
            for tile in &self.tiles {
                for (sum, gradient) in gradients[side].iter_mut().zip(&tile.bounds[side]) {
                    *sum += gradient;
                }
            }
        }
        gradients
    }
}

impl Stepper<Network> for HostStepper {
    fn step(&mut self, rows: &[usize]) -> f32 {
        let loss = self.walk(rows);
        self.steps = self.steps.saturating_add(1);
        let adam = Adam::new(self.learning_rate, self.steps);
        self.reduce(rows.len() / self.members.len(), |panel, weight, bias| {
            let [values, first, second] = panel.weight;
            adam.step(values, first, second, weight, panel.decay);
            let [values, first, second] = panel.bias;
            adam.step(values, first, second, bias, 0.0);
        });
        self.transpose(rows.len() / self.members.len());
        if self.bounds.learned.is_some() {
            let mut gradients = self.bound_gradients();
            for ((values, moments), gradients) in
                self.bounds.values.iter_mut().zip(&mut self.bounds.moments).zip(&mut gradients)
            {
                adam.step(values, &mut moments.first, &mut moments.second, gradients, 0.0);
            }
        }
        loss as f32
    }

    fn errors(&self, rows: &[usize]) -> Vec<Vec<f32>> {
        let width = self.objective.columns + usize::from(self.objective.end.is_some());
        let tiles = rows.len().div_ceil(TILE);
        let sums: Vec<Vec<f64>> = (0..self.members.len() * tiles)
            .into_par_iter()
            .map_init(Tile::default, |tile, i| {
                let rows = &rows[i % tiles * TILE..(i % tiles * TILE + TILE).min(rows.len())];
                pulp::Arch::new().dispatch(Errors { stepper: self, member: i / tiles, rows, tile })
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
        let of = |l: usize, values: &dyn Fn(&Packed) -> Vec<f32>, shape: [usize; 3]| {
            tensor(self.members.iter().flat_map(|layers| values(&layers[l].packed)).collect(), shape)
        };
        let network = self.network.clone();
        let weights = network.weights.into_iter().enumerate().map(|(l, param)| {
            let value = of(l, &Packed::unpacked, param.val().dims());
            param.map(|_| value)
        });
        let biases = network.biases.into_iter().enumerate().map(|(l, param)| {
            let value = of(l, &|packed| packed.bias.clone(), param.val().dims());
            param.map(|_| value)
        });
        let [max, min] = self.bounds.values.clone().map(|values| tensor(values, [1, 1, self.objective.columns]));
        Network {
            weights: weights.collect(),
            biases: biases.collect(),
            max_log_var: network.max_log_var.map(|_| max),
            min_log_var: network.min_log_var.map(|_| min),
        }
    }
}

/// A panel of a layer's weights with its moments (values, first, second), and the tiles that its gradients are sums over.
struct Panel<'a> {
    tiles: &'a [Tile],
    layer: usize,
    /// Its first output.
    from: usize,
    weight: [&'a mut [f32]; 3],
    bias: [&'a mut [f32]; 3],
    decay: f32,
}

struct Gradients<'a, 'p> {
    panel: &'a Panel<'p>,
    weight: &'a mut [f32],
    bias: &'a mut [f32],
}

impl WithSimd for Gradients<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Panel { tiles, layer, from, .. } = *self.panel;
        let mut pairs: Vec<(&[Lanes], &[Lanes])> = Vec::with_capacity(tiles.len());
        for tile in tiles {
            pairs.push((&tile.inputs[layer], &tile.gradients[layer]));
        }
        weight_gradients(simd, &pairs, from, self.weight, self.bias);
    }
}

impl Tile {
    /// Inputs of some rows, the last one in the lanes beyond, through all layers.
    #[inline(always)]
    fn forward<S: Simd>(&mut self, simd: S, stepper: &HostStepper, member: usize, rows: &[usize]) {
        let layers = &stepper.members[member];
        self.inputs.resize(layers.len(), Vec::new());
        self.gradients.resize(layers.len(), Vec::new());
        let width = stepper.widths[0];
        self.inputs[0].resize(width, [0.0; TILE]);
        gather(&stepper.inputs, width, rows, &mut self.inputs[0]);
        for (l, Layer { packed, .. }) in layers.iter().enumerate() {
            let (before, after) = self.inputs.split_at_mut(l + 1);
            let out = match after.first_mut() {
                Some(next) => next,
                None => &mut self.out,
            };
            out.resize(packed.outputs(), [0.0; TILE]);
            layer(simd, packed, None, &before[l], out, TILE);
            self.gradients[l].resize(packed.outputs(), [0.0; TILE]);
            if l + 1 < layers.len() {
                activate_with_slope(simd, stepper.objective.activation, out, &mut self.gradients[l]);
            }
        }
    }

    /// The tile's share of the loss, and the gradients of the last layer's outputs; 0 in the lanes beyond `rows`.
    fn judge(&mut self, stepper: &HostStepper, rows: &[usize], batch: usize) {
        let Objective { head, columns, end, .. } = stepper.objective;
        let width = stepper.widths[1];
        let n = rows.len();
        let share = 1.0 / (batch * columns) as f32;
        let last = self.gradients.len() - 1;
        let gradients = &mut self.gradients[last];
        gradients.fill([0.0; TILE]);
        let mut loss = [0.0; TILE];
        let mut target = [0.0; TILE];
        for side in &mut self.bounds {
            side.clear();
        }
        for column in 0..columns {
            for (target, row) in target.iter_mut().zip(rows) {
                *target = stepper.targets[row * width + column];
            }
            match head {
                Head::Deterministic => {
                    squared_error(&self.out[column], &target, share, &mut loss[..n], &mut gradients[column][..n]);
                }
                Head::Gaussian => {
                    let bounds = [&stepper.bounds.values[0], &stepper.bounds.values[1]].map(|side| side[column]);
                    let (means, log_vars) = gradients.split_at_mut(columns);
                    let mut sides = [[0.0; TILE]; 2];
                    let [max, min] = &mut sides;
                    likelihood(
                        [&self.out[column], &self.out[columns + column], &target],
                        bounds,
                        share,
                        [
                            &mut loss[..n],
                            &mut means[column][..n],
                            &mut log_vars[column][..n],
                            &mut max[..n],
                            &mut min[..n],
                        ],
                    );
                    for (bounds, side) in self.bounds.iter_mut().zip(&sides) {
                        bounds.push(side.iter().sum());
                    }
                }
            }
        }
        if let (Some(weight), Some(logit)) = (end, self.out.last()) {
            for (target, row) in target.iter_mut().zip(rows) {
                *target = stepper.targets[row * width + columns];
            }
            let last = gradients.len() - 1;
            cross_entropy(logit, &target, weight / batch as f32, &mut loss[..n], &mut gradients[last][..n]);
        }
        self.loss = loss.iter().map(|loss| f64::from(*loss)).sum();
    }
}

/// Some rows of `all`, column by column, the last one in the lanes beyond. Never in line: see the engine's.
#[inline(never)]
fn gather(all: &[f32], width: usize, rows: &[usize], columns: &mut [Lanes]) {
    for lane in 0..TILE {
        let row = rows[lane.min(rows.len() - 1)];
        for (column, value) in columns.iter_mut().zip(&all[row * width..(row + 1) * width]) {
            column[lane] = *value;
        }
    }
}

/// Phase one of a tile.
struct Walk<'a> {
    stepper: &'a HostStepper,
    member: usize,
    rows: &'a [usize],
    batch: usize,
    tile: &'a mut Tile,
}

impl WithSimd for Walk<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { stepper, member, rows, batch, tile } = self;
        tile.forward(simd, stepper, member, rows);
        tile.judge(stepper, rows, batch);
        let layers = &stepper.members[member];
        for l in (1..layers.len()).rev() {
            let (before, after) = tile.gradients.split_at_mut(l);
            let inputs = layers[l].packed.inputs;
            if tile.back.len() < inputs {
                tile.back.resize(inputs, [0.0; TILE]);
            }
            layer(simd, &layers[l].back, None, &after[0], &mut tile.back, TILE);
            for (slope, gradient) in before[l - 1].iter_mut().zip(&tile.back) {
                for (slope, gradient) in slope.iter_mut().zip(gradient) {
                    *slope *= gradient;
                }
            }
        }
    }
}

/// Sums of a tile's squared errors, for each column; for a termination those of its probability.
struct Errors<'a> {
    stepper: &'a HostStepper,
    member: usize,
    rows: &'a [usize],
    tile: &'a mut Tile,
}

impl WithSimd for Errors<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let Self { stepper, member, rows, tile } = self;
        tile.forward(simd, stepper, member, rows);
        let (columns, width) = (stepper.objective.columns, stepper.widths[1]);
        let mut sums = Vec::with_capacity(columns + 1);
        for column in 0..columns + usize::from(stepper.objective.end.is_some()) {
            let is_end = column == columns;
            let said = if is_end { &tile.out[tile.out.len() - 1] } else { &tile.out[column] };
            let mut sum = 0.0;
            for (said, row) in said.iter().zip(rows) {
                let said = if is_end { 1.0 / (1.0 + vmath::exp(-said)) } else { *said };
                let error = f64::from(said - stepper.targets[row * width + column]);
                sum += error * error;
            }
            sums.push(sum);
        }
        sums
    }
}

/// One step of Adam, bias-corrected.
struct Adam {
    rate: f32,
    epsilon: f32,
}

impl Adam {
    fn new(learning_rate: f32, step: i32) -> Self {
        let root = (1.0 - BETAS[1].powi(step)).sqrt();
        Self { rate: learning_rate * root / (1.0 - BETAS[0].powi(step)), epsilon: EPSILON * root }
    }

    fn step(&self, values: &mut [f32], first: &mut [f32], second: &mut [f32], gradients: &[f32], decay: f32) {
        adam(values, first, second, gradients, [self.rate, self.epsilon, decay]);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn adam(
    values: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    gradients: &[f32],
    [rate, epsilon, decay]: [f32; 3],
) {
    for (((value, first), second), gradient) in values.iter_mut().zip(first).zip(second).zip(gradients) {
        let gradient = gradient + decay * *value;
        *first = BETAS[0] * *first + (1.0 - BETAS[0]) * gradient;
        *second = BETAS[1] * *second + (1.0 - BETAS[1]) * gradient * gradient;
        *value -= rate * *first / (second.sqrt() + epsilon);
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
/// log-variance, and of its upper and lower bound.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn likelihood(
    [mean, raw, target]: [&[f32]; 3],
    [max, min]: [f32; 2],
    share: f32,
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
    use crate::{Dataset, Fit, FitConfig, ensemble::Ensemble};

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
        let mut configs = Vec::new();
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
                    // The bounds bite.
                    max_log_var: 0.2,
                    min_log_var: -0.7,
                    normalize_targets: true,
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
                let mut host = HostStepper::new(&model.network, &config, &examples, 1e-3);
                let loss = host.walk(&rows);
                let bounds = host.bound_gradients();
                // Gradients take the places of what they are gradients of.
                host.reduce(batch, |panel, weight, bias| {
                    for (value, gradient) in panel.weight[0].iter_mut().zip(weight) {
                        *value = *gradient + panel.decay * *value;
                    }
                    panel.bias[0].copy_from_slice(bias);
                });
                let gradients = host.parameters();

                let network = model.network.clone().train();
                let index = Tensor::from_data(
                    TensorData::new(rows.iter().map(|&row| row as i32).collect::<Vec<_>>(), [rows.len()]),
                    &device,
                );
                let batched = |x: &Tensor<2>| {
                    let width = x.dims()[1];
                    x.clone().select(0, index.clone()).reshape([config.members, batch, width])
                };
                let want = model.loss(&network, batched(&examples.inputs), batched(&examples.targets));
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
