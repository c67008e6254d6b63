//! Gradients of parameters, and Adam's step on them while they are in cache.

use std::ops::Range;

use super::{
    Adam, HostMlp, Tape,
    dropout::Dropout,
    host::{Layer, Params, each, gather_gradient, scatter},
    kernel::{Lanes, Packed, TILE, run_gradients},
    norm::Norm,
    tape::{State, Tile},
};

/// Inputs whose gradients of all outputs are summed before the next ones': of 512 rows they are a quarter of a megabyte, which
/// stays in the second-level cache.
const INPUTS: usize = 128;

impl HostMlp {
    /// One step of Adam for gradients of the outputs `grad_out` `[E, B, out]`; with `want_grad_in` it returns the gradients of
    /// the inputs `[E, B, in]` at the weights before the step. The tape is used up.
    ///
    /// # Panics
    /// As [`input_grad`](Self::input_grad); if `adam` is another network's.
    pub fn step(&mut self, tape: &mut Tape, grad_out: &[f32], want_grad_in: bool, adam: &mut Adam) -> Option<Vec<f32>> {
        let gradients = self.backward(tape, grad_out, want_grad_in);
        self.update(tape, adam);
        gradients
    }

    /// Gradients of the inputs `[E, B, in]`, if they are wanted, given those of the outputs `[E, B, out]`. The tape keeps the gradients of
    /// the layers until [`step_over`](Self::step_over): for a network that is applied several times before it is updated, such as a recurrent one.
    ///
    /// # Panics
    /// As [`input_grad`](Self::input_grad).
    pub fn go_back(&self, tape: &mut Tape, grad_out: &[f32], want_grad_in: bool) -> Option<Vec<f32>> {
        let gradients = self.backward(tape, grad_out, want_grad_in);
        tape.state = State::Back;
        gradients
    }

    /// One step of Adam for the sum of the gradients that were propagated [back](Self::go_back) over several passes. The tapes are used up.
    ///
    /// # Panics
    /// If gradients were not propagated back over one of the tapes; if `adam` belongs to another network.
    pub fn step_over(&mut self, tapes: &mut [Tape], adam: &mut Adam) {
        assert!(
            tapes.iter().all(|tape| tape.state == State::Back),
            "a tape without gradients: expected those over which gradients have gone back since the last step"
        );
        let members = self.config().members;
        let per_member: usize = tapes.iter().map(|tape| tape.tiles.len() / members).sum();
        let mut all = Tape { batch: per_member * TILE, ..Tape::new() };
        for member in 0..members {
            for tape in &mut *tapes {
                let count = tape.tiles.len() / members;
                all.tiles.extend(tape.tiles[member * count..][..count].iter_mut().map(std::mem::take));
            }
        }
        self.update(&mut all, adam);
        // Room for the next passes.
        let mut tiles = all.tiles.into_iter();
        for member in 0..members {
            for tape in &mut *tapes {
                let count = tape.tiles.len() / members;
                tape.tiles[member * count..][..count].iter_mut().zip(&mut tiles).for_each(|(tile, used)| *tile = used);
                tape.state = State::Spent;
            }
        }
    }

    /// Gradients of all parameters, in the order of [`parameters`](Self::parameters), given those of the outputs `[E, B, out]`:
    /// the product of the transposed Jacobian with `grad_out`. The tape does not change.
    ///
    /// # Panics
    /// As [`input_grad`](Self::input_grad).
    #[must_use]
    pub fn grads(&self, tape: &Tape, grad_out: &[f32]) -> Vec<f32> {
        let mut tape = tape.clone();
        self.backward(&mut tape, grad_out, false);
        let mut gradients = self.zeros();
        self.write_gradients(&tape, &mut gradients);
        self.flat(&gradients)
    }

    fn backward(&self, tape: &mut Tape, grad_out: &[f32], want_grad_in: bool) -> Option<Vec<f32>> {
        tape.check(self);
        let (batch, width, outputs) = (tape.batch, self.config().inputs, self.config().outputs);
        self.check_outputs(batch, grad_out);
        let dropout = Dropout::of(self.config(), tape.pass);
        let tiles = batch.div_ceil(TILE);
        let (back, front) = (self.back(), want_grad_in.then(|| self.front()));
        let work: Vec<_> = tape.tiles.iter_mut().enumerate().collect();
        each(
            self.serial(batch),
            work,
            || (),
            |(), (i, tile)| {
                let member = i / tiles;
                if let Some(gradients) = tile.gradients.last_mut() {
                    gather_gradient(grad_out, outputs, [member, batch, i % tiles * TILE], gradients);
                }
                let front = front.map(|front| &front[member]);
                self.backward_tile(member, &back[member], front, dropout.as_ref(), tile);
            },
        );
        want_grad_in.then(|| {
            let mut gradients = vec![0.0; self.config().members * batch * width];
            let rows = gradients.chunks_mut((batch * width).max(1)).flat_map(|rows| rows.chunks_mut(TILE * width));
            for (tile, rows) in tape.tiles.iter().zip(rows) {
                scatter(&tile.back, width, rows);
            }
            gradients
        })
    }

    /// Adam's step, where gradients have gone back through all tiles.
    pub(crate) fn update(&mut self, tape: &mut Tape, adam: &mut Adam) {
        self.update_with_constants(tape, adam, &(0..0));
    }

    /// As [`update`](Self::update); the weights of some outputs of the last layer stay 0.
    pub(crate) fn update_with_constants(&mut self, tape: &mut Tape, adam: &mut Adam, constant: &Range<usize>) {
        let serial = self.serial(tape.batch);
        let rates = adam.begin();
        let decay = |l: usize| adam.config.decay.get(l).copied().unwrap_or(0.0);
        let norms = norm_gradients(&tape.tiles, self.members.len());
        if adam.config.clip > 0.0 {
            let mut gradients = adam.gradients.take().unwrap_or_else(|| self.zeros());
            self.write_gradients(tape, &mut gradients);
            let moments = adam.first.iter_mut().zip(&mut adam.second);
            for ((layers, gradients), (first, second)) in self.members.iter_mut().zip(&mut gradients).zip(moments) {
                clip(layers, gradients, decay, adam.config.clip);
                for (((layer, gradient), first), second) in layers.iter_mut().zip(gradients).zip(first).zip(second) {
                    for (((values, gradient), first), second) in
                        arrays(layer).into_iter().zip(arrays(gradient)).zip(arrays(first)).zip(arrays(second))
                    {
                        rates.step([values, first, second], gradient, 0.0);
                    }
                }
            }
            adam.gradients = Some(gradients);
        } else {
            let batch = tape.batch.div_ceil(TILE);
            let pairs = pairs(&tape.tiles, self.members[0].len(), batch);
            let mut tasks = Vec::new();
            let moments = adam.first.iter_mut().zip(&mut adam.second);
            let layers = self
                .members
                .iter_mut()
                .zip(moments)
                .flat_map(|(layers, (first, second))| layers.iter_mut().zip(first).zip(second).enumerate());
            for (pairs, (l, ((layer, first), second))) in pairs.iter().zip(layers) {
                let (panel, inputs) = (layer.packed.panel, layer.packed.inputs);
                let weight = [&mut layer.packed.weight, &mut first.packed.weight, &mut second.packed.weight];
                let bias = [&mut layer.packed.bias, &mut first.packed.bias, &mut second.packed.bias];
                push_tasks(
                    &mut tasks,
                    pairs,
                    decay(l),
                    [panel, inputs],
                    weight.map(|w| &mut w[..]),
                    bias.map(|b| &mut b[..]),
                );
            }
            each(serial, tasks, Default::default, |scratch: &mut (Vec<f32>, Vec<f32>), mut task| {
                let (weight, bias) = scratch;
                weight.resize(task.weight[0].len(), 0.0);
                bias.resize(task.bias[0].len(), 0.0);
                run_gradients(task.pairs, task.place, weight, bias);
                rates.step(task.weight.each_mut().map(|w| &mut **w), weight, task.decay);
                rates.step(task.bias.each_mut().map(|b| &mut **b), bias, 0.0);
            });
            for (member, norms) in norms.iter().enumerate() {
                for (l, gradients) in norms.iter().enumerate() {
                    let norms = [&mut self.members, &mut adam.first, &mut adam.second].map(|p| &mut p[member][l].norm);
                    if let [Some(values), Some(first), Some(second)] = norms {
                        rates.step([&mut values.gain, &mut first.gain, &mut second.gain], &gradients.gain, 0.0);
                        rates.step([&mut values.shift, &mut first.shift, &mut second.shift], &gradients.shift, 0.0);
                    }
                }
            }
        }
        clear(&mut self.members, constant);
        self.transpose(serial);
        tape.state = State::Spent;
    }

    /// Gradients of all parameters, where they have gone back through all tiles.
    pub(crate) fn write_gradients(&self, tape: &Tape, gradients: &mut Params) {
        let pairs = pairs(&tape.tiles, self.members[0].len(), tape.batch.div_ceil(TILE));
        let mut tasks = Vec::new();
        for (pairs, layer) in pairs.iter().zip(gradients.iter_mut().flatten()) {
            let Packed { panel, inputs, weight, bias, .. } = &mut layer.packed;
            push_tasks(&mut tasks, pairs, 0.0, [*panel, *inputs], [weight], [bias]);
        }
        each(
            self.serial(tape.batch),
            tasks,
            || (),
            |(), mut task: Task<'_, 1>| {
                let ([weight], [bias]) =
                    (task.weight.each_mut().map(std::mem::take), task.bias.each_mut().map(std::mem::take));
                run_gradients(task.pairs, task.place, weight, bias);
            },
        );
        for (layers, norms) in gradients.iter_mut().zip(norm_gradients(&tape.tiles, self.members.len())) {
            for (layer, norm) in layers.iter_mut().zip(norms) {
                layer.norm = Some(norm);
            }
        }
    }
}

/// The arrays of a layer.
fn arrays(layer: &mut Layer) -> Vec<&mut [f32]> {
    let mut arrays = vec![&mut layer.packed.weight[..], &mut layer.packed.bias[..]];
    if let Some(norm) = &mut layer.norm {
        arrays.extend([&mut norm.gain[..], &mut norm.shift[..]]);
    }
    arrays
}

/// Adds weight decay to a member's gradients and scales them down to a norm of `most`.
fn clip(layers: &[Layer], gradients: &mut [Layer], decay: impl Fn(usize) -> f32, most: f32) {
    let mut square = 0.0;
    for (l, (layer, gradient)) in layers.iter().zip(&mut *gradients).enumerate() {
        for (gradient, value) in gradient.packed.weight.iter_mut().zip(&layer.packed.weight) {
            *gradient += decay(l) * value;
        }
        for array in arrays(gradient) {
            square += array.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
        }
    }
    let norm = square.sqrt() as f32;
    if norm > most {
        for array in gradients.iter_mut().flat_map(arrays) {
            array.iter_mut().for_each(|g| *g *= most / norm);
        }
    }
}

/// Inputs and gradients of each tile, for each layer of each member.
fn pairs(tiles: &[Tile], layers: usize, per_member: usize) -> Vec<Vec<(&[Lanes], &[Lanes])>> {
    let members = tiles.chunks(per_member.max(1));
    members
        .flat_map(|tiles| (0..layers).map(move |l| tiles.iter().map(|t| (&*t.inputs[l], &*t.gradients[l])).collect()))
        .collect()
}

/// Gradients of gains and shifts, for each normalised layer of each member: sums over its tiles, in their order.
fn norm_gradients(tiles: &[Tile], members: usize) -> Vec<Vec<Norm>> {
    let layers = tiles.first().map_or(0, |tile| tile.norms.len());
    let sum = |tiles: &[Tile], l: usize, side: usize| {
        let mut sums = tiles[0].norms[l].gradients()[side].to_vec();
        for tile in &tiles[1..] {
            for (sum, gradient) in sums.iter_mut().zip(tile.norms[l].gradients()[side]) {
                *sum += gradient;
            }
        }
        sums
    };
    tiles
        .chunks((tiles.len() / members).max(1))
        .map(|tiles| (0..layers).map(|l| Norm { gain: sum(tiles, l, 0), shift: sum(tiles, l, 1) }).collect())
        .collect()
}

/// Some inputs of a panel of weights, in `N` arrays (values; or values, first and second moments), and what its gradients are
/// sums over.
struct Task<'a, const N: usize> {
    pairs: &'a [(&'a [Lanes], &'a [Lanes])],
    /// First input, first output, width.
    place: [usize; 3],
    weight: [&'a mut [f32]; N],
    /// The panel's, with its first inputs; otherwise empty.
    bias: [&'a mut [f32]; N],
    decay: f32,
}

/// The tasks of a layer: its inputs by [`INPUTS`], of these all panels.
/// Sets weights of the last layers to 0, those of some outputs.
pub(crate) fn clear(members: &mut Params, outputs: &Range<usize>) {
    if !outputs.is_empty() {
        members.iter_mut().filter_map(|layers| layers.last_mut()).for_each(|last| last.packed.clear(outputs));
    }
}

fn push_tasks<'a, const N: usize>(
    tasks: &mut Vec<Task<'a, N>>,
    pairs: &'a [(&'a [Lanes], &'a [Lanes])],
    decay: f32,
    [panel, inputs]: [usize; 2],
    weight: [&'a mut [f32]; N],
    bias: [&'a mut [f32]; N],
) {
    let mut weights = split(weight, panel * inputs);
    let mut biases = split(bias, panel);
    let widths: Vec<usize> = biases.iter().map(|bias| bias[0].len()).collect();
    for first in (0..inputs).step_by(INPUTS) {
        let count = INPUTS.min(inputs - first);
        for (i, (weights, biases)) in weights.iter_mut().zip(&mut biases).enumerate() {
            let width = widths[i];
            let weight = weights.each_mut().map(|rest| {
                let (front, back) = std::mem::take(rest).split_at_mut(count * width);
                *rest = back;
                front
            });
            let bias = biases.each_mut().map(std::mem::take);
            tasks.push(Task { pairs, place: [first, i * panel, width], weight, bias, decay });
        }
    }
}

/// `N` arrays in pieces of `size`.
fn split<const N: usize>(arrays: [&mut [f32]; N], size: usize) -> Vec<[&mut [f32]; N]> {
    let mut rest = arrays;
    let mut pieces = Vec::new();
    while !rest[0].is_empty() {
        pieces.push(rest.each_mut().map(|rest| {
            let all = std::mem::take(rest);
            let (front, back) = all.split_at_mut(size.min(all.len()));
            *rest = back;
            front
        }));
    }
    pieces
}
