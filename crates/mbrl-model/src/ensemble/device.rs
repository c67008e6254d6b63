//! The fused roll-out on a GPU: one kernel for a whole horizon.
//!
//! As tensors a step takes some forty launches, most of them too small to fill a GPU. Here a workgroup takes a tile of
//! candidates of one particle through all steps of the horizon: activations stay in shared memory, every unit sums four
//! columns of a few rows in registers, weights come from the cache, and noise is made where it is used. The numbers are those
//! of [`rollout_by_steps`](crate::rollout_by_steps) up to rounding.

use burn::{
    backend::{Dispatch, DispatchDevice, backend_extension, tensor::FloatTensor},
    tensor::{DType, Shape, Tensor, TensorData, s},
};
use burn_cubecl::{
    CubeBackend,
    cubecl::{self, prelude::*},
    kernel::into_contiguous,
    ops::numeric::empty_device_contiguous_dtype,
};

use tracing::trace_span;

use super::{Assignment, Ensemble, Head, to_vec};
use crate::{
    Activation, Draw, ModelError, Start, Trajectories,
    dynamics::{check_particles, check_size, start_rows},
    noise::{STREAM, device as noise},
};

/// Units of a workgroup.
const UNITS: usize = 256;
/// Rows of a tile, from the most to the fewest: more rows reuse a weight more often, fewer make more tiles.
const TILES: [usize; 4] = [64, 32, 16, 8];
/// Rows of which a unit has sums in registers, at most.
const SHARE: usize = 16;
/// Shared memory that GPUs of desktops have (bytes): the smallest tile must fit.
const SHARED: usize = 32 << 10;

/// Four columns of a row.
type Four = Vector<f32, Const<4>>;

/// What the kernel is compiled for. Widths that end in `blocks` count blocks of four columns, the last one filled with zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// Rows of a tile.
    rows: usize,
    /// Inputs, hidden layers, outputs: those are means, then log-variances, then the logit of a termination, each from a
    /// block of its own on.
    blocks: Vec<usize>,
    activation: Activation,
    /// Whether normals are drawn.
    noise: bool,
    obs: usize,
    action: usize,
    /// Inputs that are columns of the observation, and those that are sines (and cosines) of them.
    plain: usize,
    angles: usize,
    reward: bool,
    termination: bool,
    wraps: bool,
}

impl Layout {
    fn inputs(&self) -> usize {
        self.plain + 2 * self.angles + self.action
    }
    /// Predicted columns, the reward included.
    fn targets(&self) -> usize {
        self.obs + usize::from(self.reward)
    }
    /// Blocks of the means.
    fn means(&self) -> usize {
        self.targets().div_ceil(4)
    }
    /// Blocks of a row in shared memory. One more than a multiple of eight, so that rows start in different banks.
    fn stride(&self) -> usize {
        let widest = self.blocks.iter().copied().max().unwrap_or(0);
        widest.next_multiple_of(8) + 1
    }
    /// Columns that a step gives: the observation, the reward, the logit of a termination.
    fn width(&self) -> usize {
        self.targets() + usize::from(self.termination)
    }
    /// Blocks of a member's weights: for each layer its rows, then its biases.
    fn member(&self) -> usize {
        self.layer(self.blocks.len() - 1)
    }
    /// Where a layer's weights start.
    fn layer(&self, layer: usize) -> usize {
        self.blocks.windows(2).take(layer).map(|pair| (4 * pair[0] + 1) * pair[1]).sum()
    }
    /// Whether a tile fits in shared memory of so many bytes, and its sums in registers.
    fn fits(&self, memory: usize) -> bool {
        let share = |&blocks: &usize| self.rows / parts(blocks, self.rows);
        let bytes = self.rows * (16 * self.stride() + 4 * self.obs);
        bytes <= memory && self.blocks[1..].iter().all(|blocks| share(blocks) <= SHARE)
    }
    /// Where each of the constants starts, in the order of [`Fused::new`].
    fn at(&self, constant: Constant) -> usize {
        let (inputs, targets, obs) = (self.inputs(), self.targets(), self.obs);
        let widths =
            [self.plain + self.angles, self.angles, inputs, inputs, targets, targets, targets, targets, obs, obs, obs];
        widths[..constant as usize].iter().sum()
    }
}

/// Rows of numbers that do not change while weights stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Constant {
    /// Columns of the observation that are inputs, plain ones first.
    Columns,
    Radians,
    InputMean,
    InputStd,
    TargetMean,
    TargetStd,
    MaxLogVar,
    MinLogVar,
    /// 1 for columns that are predicted as a change.
    Delta,
    /// Of columns that jump: where they start, and their turn; a turn of 0 for the others.
    Low,
    Turn,
}

/// What is the same for all roll-outs of an ensemble, on its device.
#[derive(Debug)]
pub(crate) struct Fused {
    layout: Layout,
    /// Blocks of four `[members · blocks · 4]`.
    weights: Tensor<1>,
    constants: Tensor<1>,
}

impl Fused {
    /// `None` where the kernel is not usable: another kind of device, known columns, features, past steps, wide layers.
    pub(crate) fn new(model: &Ensemble) -> Option<Self> {
        let (config, device) = (&model.config, &model.spec.device);
        let cube = matches!(device.as_dispatch(), DispatchDevice::Cube(_));
        let served = model.predicted.known.is_none() && model.seen.features.is_none() && config.past == 0;
        if !cube || !served || Tensor::<1>::empty([1], device).dtype() != DType::F32 {
            return None;
        }
        let gaussian = config.head == Head::Gaussian;
        let obs = model.spec.obs;
        let mut layout = Layout {
            rows: TILES[TILES.len() - 1],
            blocks: Vec::new(),
            activation: config.activation,
            noise: gaussian,
            obs,
            action: model.spec.action,
            plain: model.seen.plain.len(),
            angles: model.seen.angles.len(),
            reward: config.reward,
            termination: config.termination,
            wraps: !model.wraps.is_empty(),
        };
        let means = layout.means();
        let outputs = means * (1 + usize::from(gaussian)) + usize::from(config.termination);
        layout.blocks.push(layout.inputs().div_ceil(4));
        layout.blocks.extend(config.hidden.iter().map(|width| width.div_ceil(4)));
        layout.blocks.push(outputs);
        if layout.blocks[1..].iter().any(|&blocks| blocks > UNITS) || !layout.fits(SHARED) {
            return None;
        }

        // Where an output of the last layer stands: means, log-variances and the logit start a block each.
        let targets = layout.targets();
        let place = |column: usize| match column {
            c if c < targets => c,
            c if gaussian && c < 2 * targets => 4 * means + c - targets,
            _ => 4 * (outputs - 1),
        };
        let network = &model.device_weights.network;
        let mut weights = vec![0f32; 4 * (model.elites.len() * layout.member() + 4 * UNITS)];
        let last = network.weights.len() - 1;
        for (i, (weight, bias)) in network.weights.iter().zip(&network.biases).enumerate() {
            let [_, from, to] = weight.val().dims();
            let (weight, bias, row) = (to_vec(weight.val()), to_vec(bias.val()), 4 * layout.blocks[i + 1]);
            for (member, weights) in weights.chunks_exact_mut(4 * layout.member()).take(model.elites.len()).enumerate()
            {
                let weights = &mut weights[4 * layout.layer(i)..];
                for column in 0..to {
                    let at = if i == last { place(column) } else { column };
                    for input in 0..from {
                        weights[input * row + at] = weight[(member * from + input) * to + column];
                    }
                    weights[4 * layout.blocks[i] * row + at] = bias[member * to + column];
                }
            }
        }

        let columns = model.seen.plain.iter().chain(model.seen.angles.iter().map(|(column, _)| column));
        let wrap = |column: usize| model.wraps.iter().find(|wrap| wrap.column == column);
        let bounds = |bound: &burn::module::Param<Tensor<3>>| to_vec(bound.val());
        let constants = [
            columns.map(|&column| column as f32).collect(),
            model.seen.angles.iter().map(|(_, scale)| *scale).collect(),
            model.inputs.mean().to_vec(),
            model.inputs.std().to_vec(),
            model.targets.mean().to_vec(),
            model.targets.std().to_vec(),
            bounds(&network.max_log_var),
            bounds(&network.min_log_var),
            super::delta(config, obs),
            (0..obs).map(|c| wrap(c).map_or(0.0, |wrap| wrap.low)).collect::<Vec<f32>>(),
            (0..obs).map(|c| wrap(c).map_or(0.0, |wrap| wrap.turn)).collect(),
        ]
        .concat();
        let upload = |values: Vec<f32>| {
            let shape = [values.len()];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        Some(Self { layout, weights: upload(weights), constants: upload(constants) })
    }

    /// The roll-out; `None` where rows of a particle are moved by several members.
    pub(crate) fn rollout(
        &self,
        model: &Ensemble,
        from: &Start<'_>,
        actions: &Tensor<3>,
        draw: Draw,
    ) -> Result<Option<Trajectories>, ModelError> {
        let _span = trace_span!("imagine", model = "ensemble").entered();
        let [horizon, candidates, width] = actions.dims();
        let particles = draw.propagation.particles;
        let rows = particles * candidates;
        check_particles(particles, rows)?;
        if horizon == 0 || rows == 0 || u32::try_from((horizon + 1) * rows * self.layout.width()).is_err() {
            return Ok(None);
        }
        check_size("columns of actions", model.spec.action, width)?;
        let mut members = Vec::with_capacity(horizon * particles);
        for t in 0..horizon {
            let Assignment::Particles(assigned) = model.assign(&draw.later(t), rows)? else { return Ok(None) };
            members.extend(assigned.iter().map(|&member| member as f32));
        }
        let device = &model.spec.device;
        let from = match from {
            Start::States(states) => Start::States(states.clone()),
            Start::Situation(situation) => Start::Situation(*situation),
        };
        let start = start_rows(model, from, candidates)?;
        let members = Tensor::<1>::from_data(TensorData::new(members, [horizon * particles]), device);
        let chunk = draw.chunk_of(candidates);
        let call = Call {
            layout: Layout { noise: self.layout.noise && draw.propagation.noise, ..self.layout.clone() },
            horizon,
            candidates,
            particles,
            population: chunk.population as u32,
            first: chunk.first as u32,
            step: draw.step,
            key: draw.key,
        };
        let tensors = [start.into_dispatch(), actions.clone().into_dispatch(), members.into_dispatch()];
        let [start, actions, members] = tensors;
        let (weights, constants) = (self.weights.clone().into_dispatch(), self.constants.clone().into_dispatch());
        let out = Tensor::<3>::from_dispatch(Dispatch::walk(start, actions, members, weights, constants, call));
        let (obs, layout) = (self.layout.obs, &self.layout);
        let column = |at: usize| out.clone().slice(s![1.., .., at..=at]).squeeze_dim::<2>(2);
        Ok(Some(Trajectories {
            reward: layout.reward.then(|| column(obs)),
            // A probability above 1/2.
            terminated: layout.termination.then(|| column(layout.targets()).greater_elem(0.0)),
            cut: None,
            obs: if layout.width() == obs { out } else { out.narrow(2, 0, obs) },
        }))
    }
}

/// A roll-out.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    layout: Layout,
    horizon: usize,
    candidates: usize,
    particles: usize,
    population: u32,
    first: u32,
    step: u32,
    key: u64,
}

/// The shape of a roll-out's results.
fn out_shape(call: &Call) -> Shape {
    Shape::new([call.horizon + 1, call.particles * call.candidates, call.layout.width()])
}

#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
trait Walk: burn::backend::Backend {
    /// Observations, rewards and logits of terminations `[H + 1, P·K, width]`; the first instant has observations alone.
    #[fusion(dtype = actions, shape = out_shape(call))]
    fn walk(
        start: FloatTensor<Self>,
        actions: FloatTensor<Self>,
        members: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        constants: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self>;
}

impl Walk for CubeBackend {
    fn walk(
        start: FloatTensor<Self>,
        actions: FloatTensor<Self>,
        members: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        constants: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        let (start, actions) = (into_contiguous(start), into_contiguous(actions));
        let client = actions.client.clone();
        let hardware = &client.properties().hardware;
        let mut layout = call.layout.clone();
        // The largest tile of which every processor gets one, or the smallest.
        let processors = hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
        for rows in TILES {
            layout.rows = rows;
            let tiles = call.particles * call.candidates.div_ceil(rows);
            if layout.fits(hardware.max_shared_memory_size) && tiles >= processors {
                break;
            }
        }
        let shape = out_shape(&call);
        let out = empty_device_contiguous_dtype(client.clone(), actions.device.clone(), shape, actions.dtype);
        let tiles = call.candidates.div_ceil(layout.rows) as u32;
        let single = start.meta.shape()[0] == 1;
        walk::launch(
            &client,
            CubeCount::Static(tiles, call.particles as u32, 1),
            CubeDim::new_1d(UNITS as u32),
            start.into_buffer_arg(),
            actions.into_buffer_arg(),
            members.into_buffer_arg(),
            weights.into_buffer_arg(),
            constants.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            call.horizon,
            call.candidates,
            call.particles,
            usize::from(!single),
            call.population,
            call.first,
            call.step,
            call.key as u32,
            (call.key >> 32) as u32,
            layout,
        );
        out
    }
}

/// A workgroup for each tile of candidates (x) of each particle (y).
#[cube(launch)]
fn walk(
    start: &[f32],
    actions: &[f32],
    members: &[f32],
    weights: &[Four],
    constants: &[f32],
    out: &mut [f32],
    horizon: usize,
    candidates: usize,
    particles: usize,
    // 1 where every candidate has a start of its own.
    starts: usize,
    population: u32,
    first: u32,
    step: u32,
    key_low: u32,
    key_high: u32,
    #[comptime] layout: Layout,
) {
    let rows = comptime!(layout.rows);
    let obs = comptime!(layout.obs);
    let width = comptime!(layout.width());
    let stride = comptime!(layout.stride());
    let layers = comptime!(layout.blocks.len() - 1);
    let unit = UNIT_POS as usize;
    let particle = CUBE_POS_Y as usize;
    let from = CUBE_POS_X as usize * rows;
    let count = candidates * particles;
    let mut x = Shared::<[Four]>::new_slice(comptime!(layout.rows * layout.stride()));
    let mut state = Shared::<[f32]>::new_slice(comptime!(layout.rows * layout.obs));

    for i in range_stepped(unit, rows * obs, UNITS) {
        let row = i / obs;
        let column = i % obs;
        let candidate = from + row;
        // Rows beyond the last candidate repeat it; nothing is written of them.
        let value = start[usize::min(candidate, candidates - 1) * starts * obs + column];
        state[i] = value;
        if candidate < candidates {
            out[(particle * candidates + candidate) * width + column] = value;
        }
    }
    for t in 0..horizon {
        sync_cube();
        see(&mut x, &state, actions, constants, t * candidates, from, candidates, comptime!(layout.clone()));
        let member = usize::cast_from(members[t * particles + particle]) * comptime!(layout.member());
        #[unroll]
        for layer in 0..layers {
            sync_cube();
            dense(
                &mut x,
                weights,
                member + comptime!(layout.layer(layer)),
                comptime!(layout.blocks[layer]),
                comptime!(layout.blocks[layer + 1]),
                rows,
                stride,
                comptime!((layer + 1 < layers).then_some(layout.activation)),
            );
        }
        sync_cube();
        let at = (t + 1) * count + particle * candidates;
        let seed = particle as u32 * population + first;
        go_on(
            &x,
            &mut state,
            constants,
            out,
            at,
            from,
            candidates,
            seed,
            step + t as u32,
            key_low,
            key_high,
            comptime!(layout.clone()),
        );
    }
}

/// Standardised inputs of a tile.
#[cube]
fn see(
    x: &mut Shared<[Four]>,
    state: &Shared<[f32]>,
    actions: &[f32],
    constants: &[f32],
    before: usize,
    from: usize,
    candidates: usize,
    #[comptime] layout: Layout,
) {
    let (obs, action, inputs) = comptime!((layout.obs, layout.action, layout.inputs()));
    let (plain, angles) = comptime!((layout.plain, layout.angles));
    let blocks = comptime!(layout.blocks[0]);
    let columns = comptime!(layout.at(Constant::Columns));
    let radians = comptime!(layout.at(Constant::Radians));
    let mean = comptime!(layout.at(Constant::InputMean));
    let std = comptime!(layout.at(Constant::InputStd));
    for i in range_stepped(UNIT_POS as usize, comptime!(layout.rows * layout.blocks[0]), UNITS) {
        let row = i / blocks;
        let block = i % blocks;
        let candidate = usize::min(from + row, candidates - 1);
        let mut four = Four::new(0.0f32);
        #[unroll]
        for lane in 0..4usize {
            let input = 4 * block + lane;
            let mut value = 0.0f32;
            if input < plain {
                let column = usize::cast_from(constants[columns + input]);
                value = state[row * obs + column];
            } else if input < plain + 2 * angles {
                let angle = (input - plain) % comptime!(usize::max(layout.angles, 1));
                let column = usize::cast_from(constants[columns + plain + angle]);
                let turned = state[row * obs + column] * constants[radians + angle];
                if input < plain + angles {
                    value = f32::sin(turned);
                } else {
                    value = f32::cos(turned);
                }
            } else if input < inputs {
                value = actions[(before + candidate) * action + input - (plain + 2 * angles)];
            }
            if input < inputs {
                value = (value - constants[mean + input]) / constants[std + input];
            }
            four.insert(lane, value);
        }
        x[row * comptime!(layout.stride()) + block] = four;
    }
}

/// A layer of a tile, in place: sums stay in registers until all units have read their inputs.
#[cube]
fn dense(
    x: &mut Shared<[Four]>,
    weights: &[Four],
    from: usize,
    #[comptime] inputs: usize,
    #[comptime] outputs: usize,
    #[comptime] rows: usize,
    #[comptime] stride: usize,
    #[comptime] activation: Option<Activation>,
) {
    // Units share the columns first, then the rows.
    let parts = comptime!(parts(outputs, rows));
    let share = comptime!(rows / parts);
    let unit = UNIT_POS as usize;
    let block = unit % outputs;
    let row = unit / outputs * share;
    let busy = unit < comptime!(outputs * parts);
    let mut sums = Array::<Four>::new(share);
    if busy {
        let bias = weights[from + comptime!(4 * inputs * outputs) + block];
        #[unroll]
        for r in 0..share {
            sums[r] = bias;
        }
        // The weights of the next four inputs are under way while these are used. Behind the last ones stand the biases, and
        // zeros at the end of all.
        let mut now = Array::<Four>::new(4usize);
        let mut next = Array::<Four>::new(4usize);
        #[unroll]
        for lane in 0..4usize {
            now[lane] = weights[from + block + lane * outputs];
        }
        for k in 0..inputs {
            let at = from + block + 4 * (k + 1) * outputs;
            #[unroll]
            for lane in 0..4usize {
                next[lane] = weights[at + lane * outputs];
            }
            #[unroll]
            for r in 0..share {
                let four = x[(row + r) * stride + k];
                #[unroll]
                for lane in 0..4usize {
                    sums[r] = fma(now[lane], Four::new(four.extract(lane)), sums[r]);
                }
            }
            #[unroll]
            for lane in 0..4usize {
                now[lane] = next[lane];
            }
        }
    }
    sync_cube();
    if busy {
        #[unroll]
        for r in 0..share {
            x[(row + r) * stride + block] = activated(sums[r], activation);
        }
    }
}

/// In how many parts of equal size the units divide a tile's rows, when each part has a unit for every block of columns.
fn parts(blocks: usize, rows: usize) -> usize {
    let most = (UNITS / blocks).clamp(1, rows);
    // Rows are a power of two.
    1 << most.ilog2()
}

#[cube]
fn activated(x: Four, #[comptime] activation: Option<Activation>) -> Four {
    let zero = Four::new(0.0f32);
    let one = Four::new(1.0f32);
    match comptime!(activation) {
        None => x,
        Some(Activation::Silu) => x / (one + Four::exp(zero - x)),
        Some(Activation::Relu) => max(x, zero),
        Some(Activation::Tanh) => Four::tanh(x),
        Some(Activation::Elu) => max(x, zero) + Four::exp(min(x, zero)) - one,
        Some(Activation::Mish) => {
            // tanh(ln(1 + e)) is a ratio of polynomials in e; beyond 20 it is 1.
            let e = Four::exp(min(x, Four::new(20.0f32)));
            let n = e * (e + Four::new(2.0f32));
            x * n / (n + Four::new(2.0f32))
        }
    }
}

/// The next observations of a tile, with the last layer's other outputs.
#[cube]
fn go_on(
    x: &Shared<[Four]>,
    state: &mut Shared<[f32]>,
    constants: &[f32],
    out: &mut [f32],
    at: usize,
    from: usize,
    candidates: usize,
    seed: u32,
    step: u32,
    key_low: u32,
    key_high: u32,
    #[comptime] layout: Layout,
) {
    let obs = comptime!(layout.obs);
    let (width, stride) = comptime!((layout.width(), layout.stride()));
    let blocks = comptime!(layout.obs.div_ceil(4));
    let target_mean = comptime!(layout.at(Constant::TargetMean));
    let target_std = comptime!(layout.at(Constant::TargetStd));
    for i in range_stepped(UNIT_POS as usize, comptime!(layout.rows * layout.obs.div_ceil(4)), UNITS) {
        let row = i / blocks;
        let block = i % blocks;
        let candidate = from + row;
        let mean = x[row * stride + block];
        let mut noise = Four::new(0.0f32);
        if comptime!(layout.noise) {
            let (c0, c1, c2, c3) = noise::words(seed + candidate as u32, block as u32, step, STREAM, key_low, key_high);
            let (a, b) = noise::normals(c0, c1);
            let (c, d) = noise::normals(c2, c3);
            noise.insert(0usize, a);
            noise.insert(1usize, b);
            noise.insert(2usize, c);
            noise.insert(3usize, d);
        }
        #[unroll]
        for lane in 0..4usize {
            let column = 4 * block + lane;
            if column < obs {
                let scale = constants[target_std + column];
                let change = mean.extract(lane) * scale + constants[target_mean + column];
                let now = state[row * obs + column];
                let mut next = now * constants[comptime!(layout.at(Constant::Delta)) + column] + change;
                if comptime!(layout.noise) {
                    let raw = x[row * stride + comptime!(layout.means()) + block].extract(lane);
                    let max = constants[comptime!(layout.at(Constant::MaxLogVar)) + column];
                    let min = constants[comptime!(layout.at(Constant::MinLogVar)) + column];
                    let log_var = min + softplus(max - softplus(max - raw) - min);
                    next += f32::exp(0.5f32 * log_var) * scale * noise.extract(lane);
                }
                if comptime!(layout.wraps) {
                    let turn = constants[comptime!(layout.at(Constant::Turn)) + column];
                    if turn > 0.0f32 {
                        let low = constants[comptime!(layout.at(Constant::Low)) + column];
                        next -= turn * f32::floor((next - low) / turn);
                    }
                }
                state[row * obs + column] = next;
                if candidate < candidates {
                    out[(at + candidate) * width + column] = next;
                }
            }
        }
    }
    if comptime!(layout.reward || layout.termination) {
        for row in range_stepped(UNIT_POS as usize, comptime!(layout.rows), UNITS) {
            let candidate = from + row;
            if candidate < candidates {
                if comptime!(layout.reward) {
                    let mean = x[row * stride + comptime!(layout.obs / 4)].extract(comptime!(layout.obs % 4));
                    let scaled = mean * constants[target_std + obs] + constants[target_mean + obs];
                    out[(at + candidate) * width + obs] = scaled;
                }
                if comptime!(layout.termination) {
                    let last = comptime!(layout.blocks[layout.blocks.len() - 1] - 1);
                    out[(at + candidate) * width + comptime!(layout.targets())] =
                        x[row * stride + last].extract(0usize);
                }
            }
        }
    }
}

#[cube]
fn softplus(x: f32) -> f32 {
    f32::max(x, 0.0f32) + noise::ln(1.0f32 + f32::exp(-f32::abs(x)))
}
