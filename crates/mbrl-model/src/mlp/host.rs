//! The networks on a CPU: forward passes, input gradients, forward-mode products.

use std::{iter, mem, sync::OnceLock};

use burn::{
    module::Param,
    tensor::{Device, Tensor, TensorData},
};
use mbrl_env::Rng;
use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    Mlp, MlpConfig, Pass, Rows, Tape,
    config::{Array, draw_weights},
    dropout::{Dropout, Kept},
    kernel::{
        Columns, Lanes, Packed, TILE, run_activate as activate, run_activate_with_slope as activate_with_slope,
        run_layer as layer, run_times_slope as times_slope,
    },
    norm::{self, Norm, NormTape},
    tape::{State, Tile},
};
use crate::{ModelError, ensemble::to_vec};

/// Multiply-adds of a pass below which threads cost more than they gain.
const SERIAL: usize = 1 << 19;

/// A layer of one member.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) packed: Packed,
    pub(crate) norm: Option<Norm>,
}

/// Layers of all members: parameters, or a number for each of them, such as a gradient.
pub(crate) type Params = Vec<Vec<Layer>>;

/// Several multilayer perceptrons on a CPU, packed for its registers; the same as [`Mlp`] without Burn.
///
/// Rows are handled in tiles of 32, each of which walks through all layers in cache, on the threads of the current rayon pool. The
/// number of threads changes no bit.
#[derive(Debug, Clone)]
pub struct HostMlp {
    config: MlpConfig,
    pub(crate) members: Params,
    /// Transposed weights of all layers but the first, and of the first: they carry gradients back. Made on demand.
    back: OnceLock<Vec<Vec<Packed>>>,
    front: OnceLock<Vec<Packed>>,
}

impl HostMlp {
    pub(crate) fn new(config: &MlpConfig, rng: &mut Rng) -> Self {
        let mut flat = Vec::with_capacity(config.parameters());
        for (array, shape) in config.arrays() {
            match array {
                Array::Weight => flat.extend(draw_weights(shape, rng)),
                Array::Gain => flat.extend(iter::repeat_n(1.0, shape.iter().product())),
                Array::Bias | Array::Shift => flat.extend(iter::repeat_n(0.0, shape.iter().product())),
            }
        }
        Self::from_flat(config, &flat)
    }

    fn from_flat(config: &MlpConfig, flat: &[f32]) -> Self {
        Self { members: shaped(config, flat), config: config.clone(), back: OnceLock::new(), front: OnceLock::new() }
    }

    /// The same networks as a Burn module's.
    #[must_use]
    pub fn of(mlp: &Mlp) -> Self {
        Self::from_params(mlp.config(), [&mlp.weights, &mlp.biases, &mlp.gains, &mlp.shifts])
    }

    /// Of one tensor `[E, rows, out]` per layer: weights, biases, gains, shifts.
    pub(crate) fn from_params(config: &MlpConfig, tensors: [&[Param<Tensor<3>>]; 4]) -> Self {
        let mut flat = Vec::with_capacity(config.parameters());
        let mut read = [0; 4];
        for (array, _) in config.arrays() {
            let kind = array as usize;
            flat.extend(to_vec(tensors[kind][read[kind]].val()));
            read[kind] += 1;
        }
        Self::from_flat(config, &flat)
    }

    /// The same networks as a Burn module on `device`.
    #[must_use]
    pub fn to_mlp(&self, device: &Device) -> Mlp {
        let mut mlp = Mlp::empty(&self.config);
        let flat = self.parameters();
        let mut rest = &flat[..];
        for (array, shape) in self.config.arrays() {
            let (values, tail) = rest.split_at(shape.iter().product());
            rest = tail;
            let param = Param::from_data(TensorData::new(values.to_vec(), shape), device);
            match array {
                Array::Weight => &mut mlp.weights,
                Array::Bias => &mut mlp.biases,
                Array::Gain => &mut mlp.gains,
                Array::Shift => &mut mlp.shifts,
            }
            .push(param);
        }
        mlp
    }

    /// The configuration that it was made from.
    #[must_use]
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }

    /// All parameters, [`MlpConfig::parameters`] of them: layer by layer the weights `[E, in, out]`, then biases and, of
    /// normalised layers, gains and shifts, each `[E, out]`.
    #[must_use]
    pub fn parameters(&self) -> Vec<f32> {
        self.flat(&self.members)
    }

    /// Sets all parameters, in the order of [`parameters`](Self::parameters).
    ///
    /// # Panics
    /// If their number differs.
    pub fn set_parameters(&mut self, parameters: &[f32]) {
        self.members = self.shaped(parameters);
        self.changed();
    }

    pub(crate) fn flat(&self, params: &Params) -> Vec<f32> {
        let mut flat = Vec::with_capacity(self.config.parameters());
        let mut l = 0;
        let mut arrays = self.config.arrays().peekable();
        while let Some((array, _)) = arrays.next() {
            for layers in params {
                let layer = &layers[l];
                match (array, &layer.norm) {
                    (Array::Weight, _) => flat.extend(layer.packed.unpacked()),
                    (Array::Bias, _) => flat.extend(&layer.packed.bias),
                    (Array::Gain, Some(norm)) => flat.extend(&norm.gain),
                    (Array::Shift, Some(norm)) => flat.extend(&norm.shift),
                    _ => {}
                }
            }
            l += usize::from(arrays.peek().is_some_and(|(next, _)| *next == Array::Weight));
        }
        flat
    }

    pub(crate) fn shaped(&self, flat: &[f32]) -> Params {
        shaped(&self.config, flat)
    }

    /// 0 for each parameter.
    pub(crate) fn zeros(&self) -> Params {
        let mut zeros = self.members.clone();
        for layer in zeros.iter_mut().flatten() {
            layer.packed.weight.fill(0.0);
            layer.packed.bias.fill(0.0);
            if let Some(norm) = &mut layer.norm {
                norm.gain.fill(0.0);
                norm.shift.fill(0.0);
            }
        }
        zeros
    }

    /// Outputs `[E, B, out]` for inputs. A training pass drops units where the configuration says so. With a `tape`, gradients
    /// can be taken.
    ///
    /// # Panics
    /// If the inputs are not whole rows, or rows that are picked do not exist.
    pub fn forward(&self, inputs: Rows<'_>, pass: Pass, tape: Option<&mut Tape>) -> Vec<f32> {
        let batch = inputs.batch(&self.config);
        let width = self.config.outputs;
        let mut outputs = vec![0.0; self.config.members * batch * width];
        let dropout = Dropout::of(&self.config, pass);
        let slices = self.slices(&mut outputs, batch, width);
        let tiles = batch.div_ceil(TILE);
        let serial = self.serial(batch);
        if let Some(tape) = tape {
            tape.begin(self, batch, pass);
            let work: Vec<_> = tape.tiles.iter_mut().zip(slices).enumerate().collect();
            each(
                serial,
                work,
                || (),
                |(), (i, (tile, out))| {
                    let (member, row) = (i / tiles, i % tiles * TILE);
                    self.fill(inputs, member, row, batch, tile);
                    self.forward_tile(member, row, dropout.as_ref(), tile);
                    scatter(&tile.out, width, out);
                },
            );
            tape.state = State::Ready;
        } else {
            let work: Vec<_> = slices.into_iter().enumerate().collect();
            each(serial, work, Scratch::default, |scratch, (i, out)| {
                let (member, row) = (i / tiles, i % tiles * TILE);
                scratch.a.resize(self.config.inputs);
                inputs.gather(self.config.inputs, member, batch, row, &mut scratch.a);
                let rows = (batch - row).min(TILE);
                self.infer_tile(member, [row, rows], dropout.as_ref(), scratch);
                scatter(&scratch.a, width, out);
            });
        }
        outputs
    }

    /// Inputs of a tile.
    pub(crate) fn fill(&self, inputs: Rows<'_>, member: usize, row: usize, batch: usize, tile: &mut Tile) {
        let width = self.config.inputs;
        tile.inputs[0].resize(width);
        inputs.gather(width, member, batch, row, &mut tile.inputs[0]);
    }

    /// Gradients of the inputs `[E, B, in]`, given those of the outputs `[E, B, out]`, but none of the weights: whatever
    /// precedes this network can learn through it.
    ///
    /// # Panics
    /// If the tape is not from a forward pass of this network since its last step, or `grad_out` has another size.
    #[must_use]
    pub fn input_grad(&self, tape: &Tape, grad_out: &[f32]) -> Vec<f32> {
        tape.check(self);
        let (width, outputs, tiles) = (self.config.inputs, self.config.outputs, tape.batch.div_ceil(TILE));
        self.check_outputs(tape.batch, grad_out);
        let dropout = Dropout::of(&self.config, tape.pass);
        let mut gradients = vec![0.0; self.config.members * tape.batch * width];
        let (back, front) = (self.back(), self.front());
        let work: Vec<_> = tape.tiles.iter().zip(self.slices(&mut gradients, tape.batch, width)).enumerate().collect();
        each(self.serial(tape.batch), work, Scratch::default, |scratch, (i, (tile, out))| {
            let member = i / tiles;
            scratch.a.resize(outputs);
            gather_gradient(grad_out, outputs, [member, tape.batch, i % tiles * TILE], &mut scratch.a);
            self.input_grad_tile(member, &back[member], &front[member], dropout.as_ref(), tile, scratch);
            scatter(&scratch.a, width, out);
        });
        gradients
    }

    /// How outputs `[E, B, out]` change as the parameters move along `change` (in the order of [`parameters`](Self::parameters)),
    /// the inputs being those of the tape: the product of the Jacobian with `change`, as natural gradients need it.
    /// [`grads`](Self::grads) is its transpose.
    ///
    /// # Panics
    /// As [`input_grad`](Self::input_grad); if `change` has another size.
    #[must_use]
    pub fn jvp(&self, tape: &Tape, change: &[f32]) -> Vec<f32> {
        tape.check(self);
        let (width, tiles) = (self.config.outputs, tape.batch.div_ceil(TILE));
        let dropout = Dropout::of(&self.config, tape.pass);
        let change = self.shaped(change);
        let mut linear = self.members.clone();
        linear.iter_mut().flatten().for_each(|layer| layer.packed.bias.fill(0.0));
        let mut outputs = vec![0.0; self.config.members * tape.batch * width];
        let work: Vec<_> = tape.tiles.iter().zip(self.slices(&mut outputs, tape.batch, width)).enumerate().collect();
        each(self.serial(tape.batch), work, Scratch::default, |scratch, (i, (tile, out))| {
            let (linear, change) = (&linear[i / tiles], &change[i / tiles]);
            self.tangent_tile(linear, change, dropout.as_ref(), tile, scratch);
            scatter(&scratch.a, width, out);
        });
        outputs
    }

    /// Makes every output `y` of the networks `scale · y + shift`, by weights and biases of their last layers.
    pub fn transform_outputs(&mut self, scale: f32, shift: f32) {
        for layer in self.members.iter_mut().filter_map(|layers| layers.last_mut()) {
            layer.packed.weight.iter_mut().for_each(|weight| *weight *= scale);
            layer.packed.bias.iter_mut().for_each(|bias| *bias = scale * *bias + shift);
        }
        self.changed();
    }

    /// Moves each parameter by the share `tau` of the way to that of `of`: `θ ← (1 − τ) θ + τ θ'`, for target networks.
    ///
    /// # Panics
    /// If the two have different shapes.
    pub fn track(&mut self, of: &Self, tau: f32) {
        assert!(self.config.arrays().eq(of.config.arrays()), "tracking {:?} by {:?}", of.config, self.config);
        for (layer, of) in self.members.iter_mut().flatten().zip(of.members.iter().flatten()) {
            toward(&mut layer.packed.weight, &of.packed.weight, tau);
            toward(&mut layer.packed.bias, &of.packed.bias, tau);
            if let (Some(norm), Some(of)) = (&mut layer.norm, &of.norm) {
                toward(&mut norm.gain, &of.gain, tau);
                toward(&mut norm.shift, &of.shift, tau);
            }
        }
        self.changed();
    }

    /// Parameters as bytes, with the configuration that they belong to; [`load`](Self::load) and [`open`](Self::open) give back the same bits.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.config).expect("a configuration is plain data");
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        bytes.extend(self.parameters().iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// The network that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`ModelError::Storage`] for bytes that are not a complete record of a network.
    pub fn open(bytes: &[u8]) -> Result<Self, ModelError> {
        let broken = |what: &str| ModelError::Storage(format!("not a whole network: {what}"));
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin with MBRLMLP1"))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| broken("it ends in the header"))?;
        let (header, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| broken("it ends in the header"))?;
        let config: MlpConfig = serde_json::from_slice(header).map_err(|e| broken(&e.to_string()))?;
        config.validate()?;
        let (values, sum) = rest.split_last_chunk::<4>().ok_or_else(|| broken("it ends in its parameters"))?;
        if values.len() != 4 * config.parameters() {
            let expected = 4 * config.parameters();
            return Err(broken(&format!("{} bytes of parameters, expected {expected}", values.len())));
        }
        if crc32fast::hash(&bytes[..bytes.len() - 4]) != u32::from_le_bytes(*sum) {
            return Err(broken("its checksum is wrong"));
        }
        let values: Vec<f32> = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Self::from_flat(&config, &values))
    }

    /// Restores what [`save`](Self::save) wrote, from a network of the same configuration. On an error nothing changes.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`ModelError::Storage`] for a network of another configuration.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let network = Self::open(bytes)?;
        if network.config != self.config {
            let (expected, actual) = (&self.config, &network.config);
            return Err(ModelError::Storage(format!("weights of a network {actual:?}: expected {expected:?}")));
        }
        *self = network;
        Ok(())
    }

    /// Whether a pass is too small for threads.
    pub(crate) fn serial(&self, batch: usize) -> bool {
        self.config.parameters() * batch < SERIAL || rayon::current_num_threads() == 1
    }

    /// Shares `[E, B, width]` out to tiles.
    fn slices<'a>(&self, all: &'a mut [f32], batch: usize, width: usize) -> Vec<&'a mut [f32]> {
        all.chunks_mut((batch * width).max(1)).flat_map(|member| member.chunks_mut(TILE * width)).collect()
    }

    pub(crate) fn check_outputs(&self, batch: usize, grad_out: &[f32]) {
        let expected = [self.config.members, batch, self.config.outputs];
        assert!(
            grad_out.len() == expected.iter().product::<usize>(),
            "gradients of outputs = {}: expected {expected:?}",
            grad_out.len()
        );
    }

    /// Transposed weights of all layers but the first.
    pub(crate) fn back(&self) -> &[Vec<Packed>] {
        let of = |layers: &Vec<Layer>| layers.iter().skip(1).map(|layer| layer.packed.transposed()).collect();
        self.back.get_or_init(|| self.members.iter().map(of).collect())
    }

    /// Transposed weights of the first layer.
    pub(crate) fn front(&self) -> &[Packed] {
        self.front.get_or_init(|| self.members.iter().map(|layers| layers[0].packed.transposed()).collect())
    }

    /// Forgets transposed weights.
    fn changed(&mut self) {
        (self.back, self.front) = (OnceLock::new(), OnceLock::new());
    }

    /// Writes the transposed weights anew, where there were some.
    pub(crate) fn transpose(&mut self, serial: bool) {
        self.front = OnceLock::new();
        let Some(mut back) = self.back.take() else { return };
        let layers = self.members.iter().zip(&mut back).flat_map(|(layers, back)| layers[1..].iter().zip(back));
        let panels = layers.flat_map(|(layer, back)| {
            let packed = &layer.packed;
            back.panels().enumerate().map(move |(i, panel)| (packed, i, panel))
        });
        if serial {
            panels.for_each(|(packed, i, panel)| packed.transpose_panel(i, panel));
        } else {
            let panels: Vec<_> = panels.collect();
            panels.into_par_iter().with_min_len(8).for_each(|(packed, i, panel)| packed.transpose_panel(i, panel));
        }
        self.back = OnceLock::from(back);
    }

    /// A tile, whose inputs are there, through all layers.
    pub(crate) fn forward_tile(&self, member: usize, row: usize, dropout: Option<&Dropout>, tile: &mut Tile) {
        let layers = &self.members[member];
        for (l, Layer { packed, norm }) in layers.iter().enumerate() {
            let (before, after) = tile.inputs.split_at_mut(l + 1);
            let out = match after.first_mut() {
                Some(next) => next,
                None => &mut tile.out,
            };
            out.resize(packed.outputs());
            layer(packed, None, &before[l], out, TILE);
            if l + 1 < layers.len() {
                if let Some(dropout) = dropout {
                    tile.kept[l].drop(dropout, member, l, row, out);
                }
                if let Some(norm) = norm {
                    norm::run_forward(norm, out, Some(&mut tile.norms[l]));
                }
                activate_with_slope(self.config.activation, out, &mut tile.gradients[l]);
            }
        }
        tile.gradients[layers.len() - 1].resize(self.config.outputs);
    }

    /// A tile, whose gradients of outputs are there, back through all layers; gradients take the places of slopes. With `front`,
    /// the transposed weights of the first layer, gradients of inputs are left in `back`.
    pub(crate) fn backward_tile(
        &self,
        member: usize,
        back: &[Packed],
        front: Option<&Packed>,
        dropout: Option<&Dropout>,
        tile: &mut Tile,
    ) {
        let layers = &self.members[member];
        for l in (1..layers.len()).rev() {
            let (before, after) = tile.gradients.split_at_mut(l);
            tile.back.resize(layers[l].packed.inputs);
            layer(&back[l - 1], None, &after[0], &mut tile.back, TILE);
            times_slope(self.config.activation, &tile.inputs[l], &before[l - 1], &mut tile.back);
            if let Some(norm) = &layers[l - 1].norm {
                norm::run_sum(&mut tile.norms[l - 1], &tile.back);
                norm::run_backward(norm, &tile.norms[l - 1], &mut tile.back);
            }
            if let Some(dropout) = dropout {
                dropout.apply(&tile.kept[l - 1].bits, &mut tile.back);
            }
            // What was the slopes' place is the next layer's scratch.
            mem::swap(&mut before[l - 1], &mut tile.back);
        }
        if let Some(front) = front {
            tile.back.resize(layers[0].packed.inputs);
            layer(front, None, &tile.gradients[0], &mut tile.back, TILE);
        }
    }

    /// Without a tape: the inputs are in `scratch.a`, and so are the outputs.
    fn infer_tile(
        &self,
        member: usize,
        [row, rows]: [usize; 2],
        dropout: Option<&Dropout>,
        Scratch { a, b, kept }: &mut Scratch,
    ) {
        let layers = &self.members[member];
        for (l, Layer { packed, norm }) in layers.iter().enumerate() {
            b.resize(packed.outputs());
            let activation = (l + 1 < layers.len()).then_some(self.config.activation);
            if activation.is_none() || (norm.is_none() && dropout.is_none()) {
                layer(packed, activation, a, b, rows);
            } else {
                layer(packed, None, a, b, TILE);
                if let Some(dropout) = dropout {
                    kept.drop(dropout, member, l, row, b);
                }
                if let Some(norm) = norm {
                    norm::run_forward(norm, b, None);
                }
                activate(activation, b);
            }
            mem::swap(a, b);
        }
    }

    /// Gradients of outputs in `scratch.a` become those of inputs.
    fn input_grad_tile(
        &self,
        member: usize,
        back: &[Packed],
        front: &Packed,
        dropout: Option<&Dropout>,
        tile: &Tile,
        Scratch { a, b, .. }: &mut Scratch,
    ) {
        let layers = &self.members[member];
        for l in (1..layers.len()).rev() {
            b.resize(layers[l].packed.inputs);
            layer(&back[l - 1], None, a, b, TILE);
            times_slope(self.config.activation, &tile.inputs[l], &tile.gradients[l - 1], b);
            if let Some(norm) = &layers[l - 1].norm {
                norm::run_backward(norm, &tile.norms[l - 1], b);
            }
            if let Some(dropout) = dropout {
                dropout.apply(&tile.kept[l - 1].bits, b);
            }
            mem::swap(a, b);
        }
        b.resize(layers[0].packed.inputs);
        layer(front, None, a, b, TILE);
        mem::swap(a, b);
    }

    /// The change of a tile's outputs as the parameters move along `change`, in `scratch.a`; `linear` are the layers without biases.
    fn tangent_tile(
        &self,
        linear: &[Layer],
        change: &[Layer],
        dropout: Option<&Dropout>,
        tile: &Tile,
        Scratch { a, b, .. }: &mut Scratch,
    ) {
        let mut sum = Columns::default();
        for (l, (Layer { packed, norm }, change)) in linear.iter().zip(change).enumerate() {
            b.resize(packed.outputs());
            layer(&change.packed, None, &tile.inputs[l], b, TILE);
            if l > 0 {
                sum.resize(packed.outputs());
                layer(packed, None, a, &mut sum, TILE);
                for (b, sum) in b.iter_mut().zip(&*sum) {
                    b.iter_mut().zip(sum).for_each(|(b, sum)| *b += sum);
                }
            }
            if l + 1 < linear.len() {
                if let Some(dropout) = dropout {
                    dropout.apply(&tile.kept[l].bits, b);
                }
                if let (Some(norm), Some(change)) = (norm, &change.norm) {
                    norm::run_tangent(norm, &tile.norms[l], change, b);
                }
                times_slope(self.config.activation, &tile.inputs[l + 1], &tile.gradients[l], b);
            }
            mem::swap(a, b);
        }
    }
}

const MAGIC: &[u8; 8] = b"MBRLMLP1";

/// Parameters in the order of [`HostMlp::parameters`], packed.
fn shaped(config: &MlpConfig, flat: &[f32]) -> Params {
    assert!(flat.len() == config.parameters(), "parameters = {}: expected {}", flat.len(), config.parameters());
    let mut rest = flat;
    let mut take = |len: usize| {
        let (front, back) = rest.split_at(len);
        rest = back;
        front
    };
    let mut members: Params = vec![Vec::new(); config.members];
    let last = config.hidden.len();
    for (l, [inputs, outputs]) in config.layers().enumerate() {
        let weights = take(config.members * inputs * outputs);
        let biases = take(config.members * outputs);
        for ((layers, weight), bias) in
            members.iter_mut().zip(weights.chunks_exact(inputs * outputs)).zip(biases.chunks_exact(outputs))
        {
            layers.push(Layer { packed: Packed::new(weight, bias), norm: None });
        }
        if config.layer_norm && l < last {
            let (gains, shifts) = (take(config.members * outputs), take(config.members * outputs));
            for ((layers, gain), shift) in
                members.iter_mut().zip(gains.chunks_exact(outputs)).zip(shifts.chunks_exact(outputs))
            {
                layers[l].norm = Some(Norm { gain: gain.to_vec(), shift: shift.to_vec() });
            }
        }
    }
    members
}

/// Work on this thread, or shared out over the pool's.
pub(super) fn each<T: Send, C>(
    serial: bool,
    work: Vec<T>,
    scratch: impl Fn() -> C + Sync + Send,
    one: impl Fn(&mut C, T) + Sync + Send,
) {
    if serial {
        let mut scratch = scratch();
        work.into_iter().for_each(|item| one(&mut scratch, item));
    } else {
        work.into_par_iter().for_each_init(scratch, one);
    }
}

/// Scratch of a thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) a: Columns,
    b: Columns,
    kept: Kept,
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn toward(values: &mut [f32], of: &[f32], tau: f32) {
    for (value, of) in values.iter_mut().zip(of) {
        *value = (1.0 - tau) * *value + tau * of;
    }
}

/// Columns of a block that is transposed at once: a cache line of each row.
const BLOCK: usize = 16;

/// Some rows of `all`, column by column; the lanes beyond repeat the last one. Never inlined, like [`scatter`]: with AVX-512
/// the compiler would use its gathers and scatters, which are slower than single loads and stores.
///
/// Lines of all rows are read before they are transposed, so that the waits for memory overlap.
#[inline(never)]
pub(crate) fn gather(all: &[f32], width: usize, rows: &[usize], columns: &mut [Lanes]) {
    let last = rows.len() - 1;
    for (i, columns) in columns.chunks_mut(BLOCK).enumerate() {
        let mut block = [[0.0; BLOCK]; TILE];
        for (lane, block) in block.iter_mut().enumerate() {
            let from = rows[lane.min(last)] * width + i * BLOCK;
            if columns.len() == BLOCK {
                block.copy_from_slice(&all[from..from + BLOCK]);
            } else {
                block[..columns.len()].copy_from_slice(&all[from..from + columns.len()]);
            }
        }
        for (c, column) in columns.iter_mut().enumerate() {
            for (value, block) in column.iter_mut().zip(&block) {
                *value = block[c];
            }
        }
    }
}

/// A tile's gradients of outputs, 0 in the lanes beyond its rows.
pub(super) fn gather_gradient(all: &[f32], width: usize, [member, batch, row]: [usize; 3], columns: &mut [Lanes]) {
    let count = (batch - row).min(TILE);
    let first = member * batch + row;
    let mut rows = [0; TILE];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = first + i;
    }
    gather(all, width, &rows[..count], columns);
    if count < TILE {
        columns.iter_mut().for_each(|column| column[count..].fill(0.0));
    }
}

/// A tile's columns as rows.
#[inline(never)]
pub(super) fn scatter(columns: &[Lanes], width: usize, rows: &mut [f32]) {
    for (r, row) in rows.chunks_exact_mut(width).enumerate() {
        for (value, column) in row.iter_mut().zip(columns) {
            *value = column[r];
        }
    }
}

impl NormTape {
    /// Gradients of gains and shifts, `[out]` each, of one tile.
    pub(crate) fn gradients(&self) -> [&[f32]; 2] {
        [&self.gradients[0], &self.gradients[1]]
    }
}
