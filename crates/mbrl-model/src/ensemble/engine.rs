//! The fused CPU roll-out engine.
//!
//! An immutable snapshot of an ensemble's weights walks blocks of rows through all layers and all steps of the horizon
//! before it takes the next block, so that activations stay in the second-level cache: normalise, layers, bias and
//! activation in one pass, change, noise, next step. Blocks are shared out over the threads of the current rayon pool;
//! which thread takes which block changes no bit, because rows are independent and noise is a function of
//! (key, step, row, dimension).

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    config::{Activation, Head},
    kernel::matmul,
    members::Members,
};
use crate::{noise::fill_normal, vmath};

/// Bytes of one activation of a block: two of them and a layer's weights share the second-level cache.
const BLOCK_BYTES: usize = 96 * 1024;

/// One member's layer on the host.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[in, out]`, row by row.
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Everything a roll-out needs, on the host.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// One list of layers for each member that roll-outs draw from.
    pub(crate) members: Vec<Vec<Layer>>,
    pub(crate) activation: Activation,
    pub(crate) head: Head,
    pub(crate) obs: usize,
    pub(crate) action: usize,
    /// Observation columns fed as they are, then those fed as sine and cosine.
    pub(crate) plain: Vec<usize>,
    pub(crate) angles: Vec<usize>,
    pub(crate) input_mean: Vec<f32>,
    pub(crate) input_std: Vec<f32>,
    pub(crate) target_mean: Vec<f32>,
    pub(crate) target_std: Vec<f32>,
    /// 1 for columns predicted as a change, 0 for the others.
    pub(crate) delta: Vec<f32>,
    pub(crate) max_log_var: Vec<f32>,
    pub(crate) min_log_var: Vec<f32>,
}

/// What to roll out. Starts and actions that have fewer rows than there are trajectories repeat.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    /// `[P·K, S]`, `[K, S]`, or `[1, S]`.
    pub(crate) start: &'a [f32],
    /// `[H, P·K, A]` or `[H, K, A]`.
    pub(crate) actions: &'a [f32],
    pub(crate) horizon: usize,
    pub(crate) candidates: usize,
    pub(crate) particles: usize,
    pub(crate) noise: bool,
    pub(crate) key: u64,
    pub(crate) first_step: u32,
    /// Whose turn it is, one a step.
    pub(crate) turns: &'a [Members],
}

/// Scratch of one block.
struct Scratch {
    input: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    noise: Vec<f32>,
    /// Raw log-variances of a block, and its bounds and scales, a row for each row: flat arrays vectorise.
    log_var: Vec<f32>,
    tiles: [Vec<f32>; 3],
    /// Heads of a block whose rows belong to several members, and the rows gathered for one of them.
    out: Vec<f32>,
    gathered: Vec<f32>,
    rows: Vec<usize>,
}

impl Engine {
    /// `[H+1, P·K, S]`, the start included.
    pub(crate) fn rollout(&self, work: &Work<'_>) -> Vec<f32> {
        let (s, n) = (self.obs, work.candidates * work.particles);
        let slab = n * s;
        let mut all = vec![0f32; (work.horizon + 1) * slab];
        for (row, out) in all[..slab].chunks_exact_mut(s).enumerate() {
            let from = row * s % work.start.len();
            out.copy_from_slice(&work.start[from..from + s]);
        }
        let blocks = self.blocks(work);
        let start = &all[..slab];
        let parts: Vec<Vec<f32>> = blocks
            .par_iter()
            .map_init(|| self.scratch(), |scratch, &(from, rows)| self.block(work, start, from, rows, scratch))
            .collect();
        for (&(from, rows), part) in blocks.iter().zip(&parts) {
            for (t, states) in part.chunks_exact(rows * s).enumerate() {
                let at = (t + 1) * slab + from * s;
                all[at..at + rows * s].copy_from_slice(states);
            }
        }
        all
    }

    /// Rows of a block: as many as keep an activation within [`BLOCK_BYTES`].
    fn block_rows(&self) -> usize {
        let widest = self.members[0].iter().map(|l| l.inputs.max(l.outputs)).max().unwrap_or(1);
        (BLOCK_BYTES / (4 * widest)).clamp(16, 256)
    }

    /// (first row, rows) of each block; none crosses from one particle to the next, so that its rows share a member.
    fn blocks(&self, work: &Work<'_>) -> Vec<(usize, usize)> {
        let most = self.block_rows();
        let by_particle = work.turns.iter().all(|t| matches!(t, Members::Particles(_)));
        let (lanes, lane) =
            if by_particle { (work.particles, work.candidates) } else { (1, work.candidates * work.particles) };
        let cuts = lane.div_ceil(most).max(1);
        let mut blocks = Vec::with_capacity(lanes * cuts);
        for p in 0..lanes {
            for c in 0..cuts {
                let (from, to) = (lane * c / cuts, lane * (c + 1) / cuts);
                if to > from {
                    blocks.push((p * lane + from, to - from));
                }
            }
        }
        blocks
    }

    fn scratch(&self) -> Scratch {
        Scratch {
            input: Vec::new(),
            a: Vec::new(),
            b: Vec::new(),
            noise: Vec::new(),
            log_var: Vec::new(),
            tiles: [const { Vec::new() }; 3],
            out: Vec::new(),
            gathered: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// All steps of one block: `[H, rows, S]`.
    fn block(&self, work: &Work<'_>, start: &[f32], from: usize, rows: usize, scratch: &mut Scratch) -> Vec<f32> {
        let s = self.obs;
        let outputs = self.members[0].last().map_or(0, |l| l.outputs);
        let mut states = vec![0f32; work.horizon * rows * s];
        let noisy = work.noise && self.head == Head::Gaussian;
        if noisy {
            for (tile, row) in scratch.tiles.iter_mut().zip([&self.max_log_var, &self.min_log_var, &self.target_std]) {
                tile.clear();
                (0..rows).for_each(|_| tile.extend_from_slice(row));
            }
        }
        for t in 0..work.horizon {
            let (before, now) = states.split_at_mut(t * rows * s);
            let state = if t == 0 { &start[from * s..(from + rows) * s] } else { &before[(t - 1) * rows * s..] };
            let next = &mut now[..rows * s];
            let step = work.actions.len() / work.horizon;
            self.fill_inputs(state, &work.actions[t * step..(t + 1) * step], from, &mut scratch.input);
            scratch.out.resize(rows * outputs, 0.0);
            match &work.turns[t] {
                Members::Particles(turns) => {
                    let member = turns[from / work.candidates];
                    self.layers(member, &scratch.input, rows, &mut scratch.a, &mut scratch.b);
                    scratch.out.copy_from_slice(&scratch.a[..rows * outputs]);
                    self.place_means(state, &scratch.out, outputs, next);
                }
                Members::Rows(turns) => {
                    self.layers_by_row(&turns[from..from + rows], rows, scratch);
                    self.place_means(state, &scratch.out, outputs, next);
                }
                Members::All => {
                    // The mean of the members' means; no noise is drawn.
                    next.fill(0.0);
                    let share = 1.0 / self.members.len() as f32;
                    for member in 0..self.members.len() {
                        self.layers(member, &scratch.input, rows, &mut scratch.a, &mut scratch.b);
                        for (sum, out) in next.chunks_exact_mut(s).zip(scratch.a.chunks_exact(outputs)) {
                            for (sum, out) in sum.iter_mut().zip(out) {
                                *sum += share * out;
                            }
                        }
                    }
                    scratch.out.resize(rows * s, 0.0);
                    scratch.out.copy_from_slice(next);
                    self.place_means(state, &scratch.out, s, next);
                    continue;
                }
            }
            if noisy {
                scratch.noise.resize(rows * s, 0.0);
                fill_normal(work.key, work.first_step + t as u32, from, s, &mut scratch.noise);
                scratch.log_var.clear();
                scratch.out.chunks_exact(2 * s).for_each(|out| scratch.log_var.extend_from_slice(&out[s..]));
                let [max, min, std] = &scratch.tiles;
                add_noise(&scratch.log_var, &scratch.noise, [max, min, std], next);
            }
        }
        states
    }

    /// Network inputs of a block: plain columns, sines, cosines, actions; standardised.
    fn fill_inputs(&self, state: &[f32], actions: &[f32], from: usize, input: &mut Vec<f32>) {
        let (s, a) = (self.obs, self.action);
        let width = self.input_mean.len();
        let (plain, angles) = (self.plain.len(), self.angles.len());
        input.resize(state.len() / s * width, 0.0);
        for (r, (x, state)) in input.chunks_exact_mut(width).zip(state.chunks_exact(s)).enumerate() {
            if angles == 0 {
                x[..s].copy_from_slice(state);
            } else {
                for (x, &c) in x.iter_mut().zip(&self.plain) {
                    *x = state[c];
                }
                for (i, &c) in self.angles.iter().enumerate() {
                    (x[plain + i], x[plain + angles + i]) = vmath::sin_cos(state[c]);
                }
            }
            let at = (from + r) * a % actions.len();
            x[plain + 2 * angles..].copy_from_slice(&actions[at..at + a]);
            for ((x, m), d) in x.iter_mut().zip(&self.input_mean).zip(&self.input_std) {
                *x = (*x - m) / d;
            }
        }
    }

    /// One member's layers on `[rows, in]`; the result is left in `a`, `[rows, out]`.
    fn layers(&self, member: usize, input: &[f32], rows: usize, a: &mut Vec<f32>, b: &mut Vec<f32>) {
        let layers = &self.members[member];
        let widest = layers.iter().map(|l| l.outputs).max().unwrap_or(0);
        a.resize(rows * widest, 0.0);
        b.resize(rows * widest, 0.0);
        for (i, layer) in layers.iter().enumerate() {
            let from: &[f32] = if i == 0 { input } else { a };
            matmul(rows, layer.inputs, layer.outputs, from, &layer.weight, b);
            let out = &mut b[..rows * layer.outputs];
            match self.activation {
                _ if i + 1 == layers.len() => add_bias(out, &layer.bias),
                Activation::Silu => add_bias_silu(out, &layer.bias),
                Activation::Relu => add_bias_relu(out, &layer.bias),
                Activation::Tanh => add_bias_tanh(out, &layer.bias),
            }
            std::mem::swap(a, b);
        }
    }

    /// Layers of a block whose rows belong to different members: gathered, walked and put back member by member.
    fn layers_by_row(&self, turns: &[usize], rows: usize, scratch: &mut Scratch) {
        let width = self.input_mean.len();
        let outputs = scratch.out.len() / rows;
        for member in 0..self.members.len() {
            scratch.rows.clear();
            scratch.rows.extend((0..rows).filter(|&r| turns[r] == member));
            if scratch.rows.is_empty() {
                continue;
            }
            scratch.gathered.clear();
            for &r in &scratch.rows {
                scratch.gathered.extend_from_slice(&scratch.input[r * width..(r + 1) * width]);
            }
            self.layers(member, &scratch.gathered, scratch.rows.len(), &mut scratch.a, &mut scratch.b);
            for (&r, out) in scratch.rows.iter().zip(scratch.a.chunks_exact(outputs)) {
                scratch.out[r * outputs..(r + 1) * outputs].copy_from_slice(out);
            }
        }
    }

    /// `next = delta · state + target_mean + target_std · mean`, the means being the first columns of rows of `width`.
    fn place_means(&self, state: &[f32], out: &[f32], width: usize, next: &mut [f32]) {
        let s = self.obs;
        for ((next, state), out) in next.chunks_exact_mut(s).zip(state.chunks_exact(s)).zip(out.chunks_exact(width)) {
            for d in 0..s {
                next[d] = self.delta[d] * state[d] + (self.target_mean[d] + self.target_std[d] * out[d]);
            }
        }
    }
}

/// Adds `target_std · e^(log_var / 2) · noise`, with the log-variance softly bounded.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_noise(log_var: &[f32], noise: &[f32], [max, min, target_std]: [&[f32]; 3], next: &mut [f32]) {
    let n = next.len();
    let (log_var, noise) = (&log_var[..n], &noise[..n]);
    let (max, min, target_std) = (&max[..n], &min[..n], &target_std[..n]);
    for i in 0..n {
        let bounded = max[i] - vmath::softplus(max[i] - log_var[i]);
        let bounded = min[i] + vmath::softplus(bounded - min[i]);
        next[i] += target_std[i] * vmath::exp(0.5 * bounded) * noise[i];
    }
}

macro_rules! add_bias_then {
    ($name:ident, $f:expr) => {
        #[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
        fn $name(rows: &mut [f32], bias: &[f32]) {
            for row in rows.chunks_exact_mut(bias.len()) {
                for (v, &b) in row.iter_mut().zip(bias) {
                    *v = $f(*v + b);
                }
            }
        }
    };
}
add_bias_then!(add_bias, std::convert::identity);
add_bias_then!(add_bias_silu, vmath::silu);
add_bias_then!(add_bias_relu, vmath::relu);
add_bias_then!(add_bias_tanh, vmath::tanh);
