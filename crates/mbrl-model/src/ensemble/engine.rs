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
    /// Whether there is a column for the reward, and one for the logit of an end.
    pub(crate) reward: bool,
    pub(crate) termination: bool,
    /// Widths; the state is the observation, then past pairs of an observation and an action.
    pub(crate) state: usize,
    pub(crate) obs: usize,
    pub(crate) action: usize,
    /// State columns fed as they are, then those fed as sine and cosine.
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

/// What was rolled out.
#[derive(Debug)]
pub(crate) struct Imagination {
    /// `[H+1, P·K, O]`, the start included.
    pub(crate) obs: Vec<f32>,
    /// `[H, P·K]`, where there is a head for it.
    pub(crate) reward: Option<Vec<f32>>,
    /// `[H, P·K]`, where there is a head for it.
    pub(crate) terminated: Option<Vec<bool>>,
}

/// All steps of one block of rows.
struct Part {
    /// `[H, rows, O]`.
    obs: Vec<f32>,
    /// `[H, rows]`, or nothing without such a head.
    reward: Vec<f32>,
    terminated: Vec<bool>,
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
    /// Spread of the members around their running mean, and sum of their variances, of a block that follows their mixture.
    between: Vec<f32>,
    within: Vec<f32>,
    /// States of a block that are wider than its observations.
    state: Vec<f32>,
}

impl Engine {
    pub(crate) fn rollout(&self, work: &Work<'_>) -> Imagination {
        let (s, o, n) = (self.state, self.obs, work.candidates * work.particles);
        let slab = n * o;
        let mut all = vec![0f32; (work.horizon + 1) * slab];
        for (row, out) in all[..slab].chunks_exact_mut(o).enumerate() {
            let from = row * s % work.start.len();
            out.copy_from_slice(&work.start[from..from + o]);
        }
        let blocks = self.blocks(work);
        let start = &all[..slab];
        let parts: Vec<Part> = blocks
            .par_iter()
            .map_init(|| self.scratch(), |scratch, &(from, rows)| self.block(work, start, from, rows, scratch))
            .collect();
        let mut reward = self.reward.then(|| vec![0f32; work.horizon * n]);
        let mut terminated = self.termination.then(|| vec![false; work.horizon * n]);
        for (&(from, rows), part) in blocks.iter().zip(&parts) {
            for (t, obs) in part.obs.chunks_exact(rows * o).enumerate() {
                let at = (t + 1) * slab + from * o;
                all[at..at + rows * o].copy_from_slice(obs);
                let at = t * n + from;
                if let Some(reward) = &mut reward {
                    reward[at..at + rows].copy_from_slice(&part.reward[t * rows..(t + 1) * rows]);
                }
                if let Some(terminated) = &mut terminated {
                    terminated[at..at + rows].copy_from_slice(&part.terminated[t * rows..(t + 1) * rows]);
                }
            }
        }
        Imagination { obs: all, reward, terminated }
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
            between: Vec::new(),
            within: Vec::new(),
            state: Vec::new(),
        }
    }

    /// All steps of one block.
    fn block(&self, work: &Work<'_>, start: &[f32], from: usize, rows: usize, scratch: &mut Scratch) -> Part {
        let (s, o) = (self.state, self.obs);
        let outputs = self.members[0].last().map_or(0, |l| l.outputs);
        let targets = self.target_mean.len();
        let mut obs = vec![0f32; work.horizon * rows * o];
        let mut reward = Vec::with_capacity(if self.reward { work.horizon * rows } else { 0 });
        let mut terminated = Vec::with_capacity(if self.termination { work.horizon * rows } else { 0 });
        let noisy = work.noise && self.head == Head::Gaussian;
        if noisy {
            for (tile, row) in scratch.tiles.iter_mut().zip([&self.max_log_var, &self.min_log_var, &self.target_std]) {
                tile.clear();
                (0..rows).for_each(|_| tile.extend_from_slice(&row[..o]));
            }
        }
        // Where the state is the observation, it is read where the last step left it.
        let mut wide = std::mem::take(&mut scratch.state);
        wide.clear();
        if s > o {
            for row in from..from + rows {
                let at = row * s % work.start.len();
                wide.extend_from_slice(&work.start[at..at + s]);
            }
        }
        for t in 0..work.horizon {
            let (before, now) = obs.split_at_mut(t * rows * o);
            let state = match t {
                _ if s > o => &wide[..],
                0 => &start[from * o..(from + rows) * o],
                _ => &before[(t - 1) * rows * o..],
            };
            let next = &mut now[..rows * o];
            let step = work.actions.len() / work.horizon;
            let actions = &work.actions[t * step..(t + 1) * step];
            self.fill_inputs(state, actions, from, &mut scratch.input);
            // Rows of `scratch.out`, and where in them an end begins: a logit above 0, or a probability above 1/2.
            let (width, certain) = match &work.turns[t] {
                Members::Particles(turns) => {
                    let member = turns[from / work.candidates];
                    self.layers(member, &scratch.input, rows, &mut scratch.a, &mut scratch.b);
                    scratch.out.resize(rows * outputs, 0.0);
                    scratch.out.copy_from_slice(&scratch.a[..rows * outputs]);
                    (outputs, 0.0)
                }
                Members::Rows(turns) => {
                    scratch.out.resize(rows * outputs, 0.0);
                    self.layers_by_row(&turns[from..from + rows], rows, scratch);
                    (outputs, 0.0)
                }
                turns => {
                    self.mean_over_members(rows, turns == &Members::Mixture, noisy, scratch);
                    (targets + usize::from(self.termination), 0.5)
                }
            };
            self.place_means(state, &scratch.out, width, next);
            if self.reward {
                let (mean, std) = (self.target_mean[o], self.target_std[o]);
                reward.extend(scratch.out.chunks_exact(width).map(|out| mean + std * out[o]));
            }
            if self.termination {
                terminated.extend(scratch.out.chunks_exact(width).map(|out| out[width - 1] > certain));
            }
            match &work.turns[t] {
                Members::All => {}
                Members::Mixture => self.add_mixture_noise(work, t, from, noisy, scratch, next),
                _ if noisy => {
                    scratch.noise.resize(rows * o, 0.0);
                    fill_normal(work.key, work.first_step + t as u32, from, o, &mut scratch.noise);
                    scratch.log_var.clear();
                    let log_var = |out: &[f32]| scratch.log_var.extend_from_slice(&out[targets..targets + o]);
                    scratch.out.chunks_exact(outputs).for_each(log_var);
                    let [max, min, std] = &scratch.tiles;
                    add_noise(&scratch.log_var, &scratch.noise, [max, min, std], next);
                }
                _ => {}
            }
            if s > o {
                self.shift(&mut wide, actions, from, next);
            }
        }
        scratch.state = wide;
        Part { obs, reward, terminated }
    }

    /// Moves a block's states on to the next observations: what was present becomes past, the oldest pair is forgotten.
    fn shift(&self, states: &mut [f32], actions: &[f32], from: usize, next: &[f32]) {
        let (s, o, a) = (self.state, self.obs, self.action);
        let pair = o + a;
        for (r, (state, next)) in states.chunks_exact_mut(s).zip(next.chunks_exact(o)).enumerate() {
            let at = (from + r) * a % actions.len();
            state.copy_within(o..s - pair, o + pair);
            state.copy_within(..o, o);
            state[2 * o..o + pair].copy_from_slice(&actions[at..at + a]);
            state[..o].copy_from_slice(next);
        }
    }

    /// The mean of the members' means and, behind them, of their probabilities of an end, in `scratch.out`
    /// `[rows, targets (+ 1)]`. For their `mixture` also the sums over members of squared distances from the mean and, where
    /// it is `noisy`, of variances: `scratch.between` and `scratch.within`, each `[rows, O]`, in the network's units.
    fn mean_over_members(&self, rows: usize, mixture: bool, noisy: bool, scratch: &mut Scratch) {
        let (o, targets) = (self.obs, self.target_mean.len());
        let width = targets + usize::from(self.termination);
        let outputs = self.members[0].last().map_or(0, |l| l.outputs);
        let spread = if mixture { o } else { 0 };
        for (sums, width) in [(&mut scratch.out, width), (&mut scratch.between, spread), (&mut scratch.within, spread)]
        {
            sums.clear();
            sums.resize(rows * width, 0.0);
        }
        let share = 1.0 / self.members.len() as f32;
        for member in 0..self.members.len() {
            self.layers(member, &scratch.input, rows, &mut scratch.a, &mut scratch.b);
            for (row, out) in scratch.a[..rows * outputs].chunks_exact(outputs).enumerate() {
                let mean = &mut scratch.out[row * width..(row + 1) * width];
                let sums = row * o..(row + 1) * o;
                if mixture && member > 0 {
                    // Squares around the running mean (Welford): a small spread beside a large mean is not cancelled.
                    let before = member as f32;
                    let (to_mean, weight) = (1.0 / (share * before), before / (before + 1.0));
                    for (d, between) in scratch.between[sums.clone()].iter_mut().enumerate() {
                        let gap = out[d] - to_mean * mean[d];
                        *between += weight * gap * gap;
                    }
                }
                if mixture && noisy {
                    for (d, within) in scratch.within[sums].iter_mut().enumerate() {
                        *within += vmath::exp(bounded(out[targets + d], self.max_log_var[d], self.min_log_var[d]));
                    }
                }
                for (mean, out) in mean[..targets].iter_mut().zip(out) {
                    *mean += share * out;
                }
                if self.termination {
                    mean[targets] += share / (1.0 + vmath::exp(-out[outputs - 1]));
                }
            }
        }
    }

    /// Adds noise of the spread that [`mean_over_members`](Self::mean_over_members) found.
    fn add_mixture_noise(
        &self,
        work: &Work<'_>,
        t: usize,
        from: usize,
        noisy: bool,
        scratch: &mut Scratch,
        next: &mut [f32],
    ) {
        if self.members.len() == 1 && !noisy {
            return;
        }
        let o = self.obs;
        scratch.noise.resize(next.len(), 0.0);
        fill_normal(work.key, work.first_step + t as u32, from, o, &mut scratch.noise);
        let share = 1.0 / self.members.len() as f32;
        for (i, next) in next.iter_mut().enumerate() {
            let variance = share * (scratch.between[i] + scratch.within[i]);
            *next += self.target_std[i % o] * variance.sqrt() * scratch.noise[i];
        }
    }

    /// Network inputs of a block: plain columns, sines, cosines, actions; standardised.
    fn fill_inputs(&self, state: &[f32], actions: &[f32], from: usize, input: &mut Vec<f32>) {
        let (s, a) = (self.state, self.action);
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

    /// `next = delta · obs + target_mean + target_std · mean`, the means being the first columns of rows of `width`.
    fn place_means(&self, state: &[f32], out: &[f32], width: usize, next: &mut [f32]) {
        let (s, o) = (self.state, self.obs);
        for ((next, state), out) in next.chunks_exact_mut(o).zip(state.chunks_exact(s)).zip(out.chunks_exact(width)) {
            for d in 0..o {
                next[d] = self.delta[d] * state[d] + (self.target_mean[d] + self.target_std[d] * out[d]);
            }
        }
    }
}

/// A log-variance, softly bounded (PETS).
#[inline(always)]
fn bounded(log_var: f32, max: f32, min: f32) -> f32 {
    let below_max = max - vmath::softplus(max - log_var);
    min + vmath::softplus(below_max - min)
}

/// Adds `target_std · e^(log_var / 2) · noise`, with the log-variance softly bounded.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_noise(log_var: &[f32], noise: &[f32], [max, min, target_std]: [&[f32]; 3], next: &mut [f32]) {
    let n = next.len();
    let (log_var, noise) = (&log_var[..n], &noise[..n]);
    let (max, min, target_std) = (&max[..n], &min[..n], &target_std[..n]);
    for i in 0..n {
        let bounded = bounded(log_var[i], max[i], min[i]);
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
