//! The fused CPU roll-out engine.
//!
//! An immutable snapshot of an ensemble's weights walks a tile of rows through all layers and all steps of the horizon
//! before it takes the next tile: normalise, layers with bias and activation, change, noise, next step, all in cache and
//! feature by feature ([`crate::mlp::kernel`]). Units of work are shared out over the threads of the current rayon pool and
//! write straight into the result; which thread takes which unit changes no bit, because rows are independent and noise
//! is a function of (key, step, row, dimension).

use std::mem;

use multiversion::multiversion;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    angles::Wrap,
    assignment::Assignment,
    bf16::{self, Pairs, Rounded},
    config::Head,
    inputs::Inputs,
    predicted::Predicted,
};
use crate::{
    Activation, Chunk,
    mlp::kernel::{self, Columns, Lanes, Packed, TILE},
    noise::fill_normal_lanes,
    vmath,
};

/// Tiles of a unit whose rows belong to different members, so that the rows of a member fill tiles of their own.
const GATHERED_TILES: usize = 16;

/// A layer's weights, in the precision of its products.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    F32(Packed),
    Bf16(Rounded),
}

impl Layer {
    fn outputs(&self) -> usize {
        match self {
            Self::F32(layer) => layer.outputs(),
            Self::Bf16(layer) => layer.outputs,
        }
    }
}

/// Everything a roll-out needs, on the host.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    /// One list of layers for each member that roll-outs draw from.
    pub(crate) members: Vec<Vec<Layer>>,
    pub(crate) activation: Activation,
    pub(crate) head: Head,
    /// Whether there is a column for the reward, and one for the logit of a termination.
    pub(crate) reward: bool,
    pub(crate) termination: bool,
    /// Widths; the state is the observation, then past pairs of an observation and an action.
    pub(crate) state: usize,
    pub(crate) obs: usize,
    pub(crate) action: usize,
    /// What the networks see.
    pub(crate) seen: Inputs,
    /// What they predict, and what else is known.
    pub(crate) predicted: Predicted,
    /// Predicted columns of the observation that jump by a turn.
    pub(crate) wraps: Vec<Wrap>,
    pub(crate) input_mean: Vec<f32>,
    pub(crate) input_std: Vec<f32>,
    pub(crate) target_mean: Vec<f32>,
    pub(crate) target_std: Vec<f32>,
    /// 1 for columns of the observation predicted as a change, 0 for the others, `[O]`.
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
    /// Where these candidates stand in their population, whose rows index the noise.
    pub(crate) chunk: Chunk,
    /// Which member moves which row, for each step.
    pub(crate) assignments: &'a [Assignment],
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

/// Rows that are walked together, all of one particle, and where their steps go: a slice for each step, none without such a
/// head.
struct Unit<'a> {
    from: usize,
    rows: usize,
    obs: Vec<&'a mut [f32]>,
    reward: Vec<&'a mut [f32]>,
    terminated: Vec<&'a mut [bool]>,
}

/// Scratch of a thread. All arrays are `[tiles, columns]` but those of a network's layers, which serve one tile at a time.
#[derive(Default)]
struct Scratch {
    state: Vec<Lanes>,
    action: Vec<Lanes>,
    input: Columns,
    out: Vec<Lanes>,
    next: Vec<Lanes>,
    hidden: Hidden,
    /// Rows gathered for a member, and where they stand in their unit.
    gathered: Columns,
    rows: Vec<usize>,
    noise: Vec<Lanes>,
    /// Spread of the members around their running mean, and sum of their variances, of a unit that follows their mixture.
    between: Vec<Lanes>,
    within: Vec<Lanes>,
    /// Values of the known columns of a tile.
    known: Vec<Lanes>,
}

/// A layer's inputs and outputs, and its inputs as bfloat16.
#[derive(Default)]
struct Hidden {
    a: Columns,
    b: Columns,
    pairs: Vec<Pairs>,
}

impl Engine {
    pub(crate) fn rollout(&self, work: &Work<'_>) -> Imagination {
        let (s, o, n) = (self.state, self.obs, work.candidates * work.particles);
        let slab = n * o;
        let mut obs = vec![0f32; (work.horizon + 1) * slab];
        let mut reward = self.reward.then(|| vec![0f32; work.horizon * n]);
        let mut terminated = self.termination.then(|| vec![false; work.horizon * n]);
        let (start, steps) = obs.split_at_mut(slab);
        for (row, out) in start.chunks_exact_mut(o).enumerate() {
            let from = row * s % work.start.len();
            out.copy_from_slice(&work.start[from..from + o]);
        }
        let mut units = Self::units(work);
        split_slices(&mut units, steps, slab, o, |unit| &mut unit.obs);
        split_slices(&mut units, reward.as_deref_mut().unwrap_or_default(), n, 1, |unit| &mut unit.reward);
        split_slices(&mut units, terminated.as_deref_mut().unwrap_or_default(), n, 1, |unit| &mut unit.terminated);
        units.into_par_iter().for_each_init(Scratch::default, |scratch, unit| {
            pulp::Arch::new().dispatch(Walk { engine: self, work, unit, scratch });
        });
        Imagination { obs, reward, terminated }
    }

    /// None crosses from one particle to the next, so that its rows share a member.
    fn units<'a>(work: &Work<'_>) -> Vec<Unit<'a>> {
        let (candidates, horizon) = (work.candidates, work.horizon);
        let by_row = work.assignments.iter().any(|assignment| matches!(assignment, Assignment::Rows(_)));
        let most = if by_row { GATHERED_TILES * TILE } else { TILE };
        let unit = move |particle: usize, first: usize| Unit {
            from: particle * candidates + first,
            rows: most.min(candidates - first),
            obs: Vec::with_capacity(horizon),
            reward: Vec::new(),
            terminated: Vec::new(),
        };
        (0..work.particles)
            .flat_map(|particle| (0..candidates).step_by(most).map(move |first| unit(particle, first)))
            .collect()
    }
}

/// Shares the slabs of all steps out to the units that write them.
fn split_slices<'a, T>(
    units: &mut [Unit<'a>],
    steps: &'a mut [T],
    slab: usize,
    width: usize,
    of: impl for<'u> Fn(&'u mut Unit<'a>) -> &'u mut Vec<&'a mut [T]>,
) {
    for mut rest in steps.chunks_exact_mut(slab.max(1)) {
        for unit in &mut *units {
            let own;
            (own, rest) = mem::take(&mut rest).split_at_mut(unit.rows * width);
            of(unit).push(own);
        }
    }
}

/// A unit's way through all steps.
struct Walk<'a, 'w> {
    engine: &'w Engine,
    work: &'w Work<'w>,
    unit: Unit<'a>,
    scratch: &'w mut Scratch,
}

impl WithSimd for Walk<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { engine, work, mut unit, scratch } = self;
        let (s, o, a, d) = (engine.state, engine.obs, engine.action, engine.predicted.count());
        let (outputs, targets) = (engine.members[0].last().map_or(0, Layer::outputs), engine.target_mean.len());
        let noisy = work.noise && engine.head == Head::Gaussian;
        let tiles = unit.rows.div_ceil(TILE);
        let (particle, first) = (unit.from / work.candidates, unit.from % work.candidates);
        // Where noise is indexed by rows of the whole population.
        let first_row = (particle * work.chunk.population + work.chunk.first + first) as u32;

        scratch.state.resize(tiles * s, [0.0; TILE]);
        scratch.action.resize(tiles * a, [0.0; TILE]);
        scratch.input.resize(tiles * engine.input_mean.len());
        scratch.next.resize(tiles * o, [0.0; TILE]);
        scratch.noise.resize(tiles * d, [0.0; TILE]);
        gather(work.start, s, unit.from, unit.rows, &mut scratch.state);
        for t in 0..work.horizon {
            let step = work.actions.len() / work.horizon;
            gather(&work.actions[t * step..(t + 1) * step], a, unit.from, unit.rows, &mut scratch.action);
            engine.fill_inputs(tiles, scratch);
            // Columns of `scratch.out`, and where in the last one a termination begins: a logit above 0, or a probability above 1/2.
            let (width, certain) = match &work.assignments[t] {
                Assignment::Particles(members) => {
                    engine.network(simd, members[particle], tiles, unit.rows, scratch);
                    (outputs, 0.0)
                }
                Assignment::Rows(members) => {
                    engine.network_by_row(simd, &members[unit.from..unit.from + unit.rows], tiles, outputs, scratch);
                    (outputs, 0.0)
                }
                all => {
                    engine.mean_over_members(simd, tiles, unit.rows, all == &Assignment::Mixture, noisy, scratch);
                    (targets + usize::from(engine.termination), 0.5)
                }
            };
            engine.place_means(width, scratch);
            if let Some(reward) = unit.reward.get_mut(t) {
                let (mean, std) = (engine.target_mean[d], engine.target_std[d]);
                for (reward, out) in reward.chunks_mut(TILE).zip(scratch.out.chunks_exact(width)) {
                    for (reward, out) in reward.iter_mut().zip(&out[d]) {
                        *reward = mean + std * out;
                    }
                }
            }
            if let Some(terminated) = unit.terminated.get_mut(t) {
                for (terminated, out) in terminated.chunks_mut(TILE).zip(scratch.out.chunks_exact(width)) {
                    for (terminated, out) in terminated.iter_mut().zip(&out[width - 1]) {
                        *terminated = *out > certain;
                    }
                }
            }
            let mixture = work.assignments[t] == Assignment::Mixture;
            if match &work.assignments[t] {
                Assignment::All => false,
                Assignment::Mixture => noisy || engine.members.len() > 1,
                _ => noisy,
            } {
                for (tile, noise) in scratch.noise.chunks_exact_mut(d).enumerate() {
                    let rows = (unit.rows - tile * TILE).min(TILE);
                    let first_row = first_row.wrapping_add((tile * TILE) as u32);
                    fill_normal_lanes(work.key, work.first_step + t as u32, first_row, rows, noise);
                }
                if mixture {
                    engine.add_mixture_noise(scratch);
                } else {
                    engine.add_noise(width, scratch);
                }
            }
            for wrap in &engine.wraps {
                for tile in scratch.next.chunks_exact_mut(o) {
                    wrap.place(&mut tile[wrap.column]);
                }
            }
            engine.complete(scratch);
            scatter(&scratch.next, o, unit.obs[t]);
            engine.shift(scratch);
        }
    }
}

/// Rows `from..from + rows` of `all`, which repeat, tile by tile and column by column. The lanes beyond a tile's rows repeat
/// the last one. Never inlined, like [`scatter`]: with AVX-512 the compiler would use its gathers and scatters, which are
/// slower than single loads and stores.
#[inline(never)]
fn gather(all: &[f32], width: usize, from: usize, rows: usize, tiles: &mut [Lanes]) {
    let mut row = from * width % all.len().max(1);
    for (tile, columns) in tiles.chunks_exact_mut(width.max(1)).enumerate() {
        let rows = (rows - tile * TILE).min(TILE);
        for r in 0..TILE {
            for (column, value) in columns.iter_mut().zip(&all[row..row + width]) {
                column[r] = *value;
            }
            if r + 1 < rows || (r + 1 == TILE && rows == TILE) {
                row += width;
                if row == all.len() {
                    row = 0;
                }
            }
        }
    }
}

/// Tiles, column by column, as rows.
#[inline(never)]
fn scatter(tiles: &[Lanes], width: usize, rows: &mut [f32]) {
    for (columns, rows) in tiles.chunks_exact(width).zip(rows.chunks_mut(width * TILE)) {
        for (r, row) in rows.chunks_exact_mut(width).enumerate() {
            for (value, column) in row.iter_mut().zip(columns) {
                *value = column[r];
            }
        }
    }
}

impl Engine {
    /// Network inputs: plain columns, sines, cosines, actions, features; standardised.
    #[inline(always)]
    fn fill_inputs(&self, tiles: usize, scratch: &mut Scratch) {
        let (s, a, width) = (self.state, self.action, self.input_mean.len());
        let (plain, angles) = (self.seen.plain.len(), self.seen.angles.len());
        for tile in 0..tiles {
            let state = &scratch.state[tile * s..(tile + 1) * s];
            let input = &mut scratch.input[tile * width..(tile + 1) * width];
            for (x, &c) in input.iter_mut().zip(&self.seen.plain) {
                *x = state[c];
            }
            for (i, &(c, scale)) in self.seen.angles.iter().enumerate() {
                let (sines, cosines) = input.split_at_mut(plain + angles);
                sin_cos(&state[c], scale, &mut sines[plain + i], &mut cosines[i]);
            }
            let action = &scratch.action[tile * a..(tile + 1) * a];
            let (columns, features) = input.split_at_mut(plain + 2 * angles + a);
            columns[plain + 2 * angles..].copy_from_slice(action);
            if let Some(known) = &self.seen.features {
                known.tile(&state[..self.obs], action, features);
            }
            for ((x, mean), std) in input.iter_mut().zip(&self.input_mean).zip(&self.input_std) {
                for x in x {
                    *x = (*x - mean) / std;
                }
            }
        }
    }

    /// One member's layers on a tile's inputs; what the last one gives is left in `a`.
    #[inline(always)]
    fn layers<S: Simd>(
        &self,
        simd: S,
        member: usize,
        input: &[Lanes],
        rows: usize,
        Hidden { a, b, pairs }: &mut Hidden,
    ) {
        let layers = &self.members[member];
        let widest = layers.iter().map(Layer::outputs).max().unwrap_or(0);
        a.resize(widest);
        b.resize(widest);
        for (i, weights) in layers.iter().enumerate() {
            let from: &[Lanes] = if i == 0 { input } else { a };
            let activation = (i + 1 < layers.len()).then_some(self.activation);
            match weights {
                Layer::F32(weights) => kernel::layer(simd, weights, activation, from, b, rows),
                Layer::Bf16(weights) => bf16::layer(simd, weights, activation, from, pairs, b, rows),
            }
            mem::swap(a, b);
        }
    }

    /// One member's heads for all tiles, in `scratch.out`.
    #[inline(always)]
    fn network<S: Simd>(&self, simd: S, member: usize, tiles: usize, rows: usize, scratch: &mut Scratch) {
        let (width, outputs) = (self.input_mean.len(), self.members[member].last().map_or(0, Layer::outputs));
        scratch.out.resize(tiles * outputs, [0.0; TILE]);
        for tile in 0..tiles {
            let input = &scratch.input[tile * width..(tile + 1) * width];
            let rows = (rows - tile * TILE).min(TILE);
            self.layers(simd, member, input, rows, &mut scratch.hidden);
            scratch.out[tile * outputs..(tile + 1) * outputs].copy_from_slice(&scratch.hidden.a[..outputs]);
        }
    }

    /// Heads of rows that belong to different members, in `scratch.out`: gathered, walked and put back member by member.
    #[inline(always)]
    fn network_by_row<S: Simd>(
        &self,
        simd: S,
        assigned: &[usize],
        tiles: usize,
        outputs: usize,
        scratch: &mut Scratch,
    ) {
        let width = self.input_mean.len();
        scratch.out.resize(tiles * outputs, [0.0; TILE]);
        scratch.gathered.resize(width);
        for member in 0..self.members.len() {
            scratch.rows.clear();
            for (row, &of) in assigned.iter().enumerate() {
                if of == member {
                    scratch.rows.push(row);
                }
            }
            for from in (0..scratch.rows.len()).step_by(TILE) {
                let rows = &scratch.rows[from..(from + TILE).min(scratch.rows.len())];
                for (lane, row) in rows.iter().enumerate() {
                    let input = &scratch.input[row / TILE * width..];
                    for (gathered, input) in scratch.gathered.iter_mut().zip(input) {
                        gathered[lane] = input[row % TILE];
                    }
                }
                self.layers(simd, member, &scratch.gathered, rows.len(), &mut scratch.hidden);
                for (lane, row) in rows.iter().enumerate() {
                    let out = &mut scratch.out[row / TILE * outputs..];
                    for (out, a) in out.iter_mut().zip(&scratch.hidden.a[..outputs]) {
                        out[row % TILE] = a[lane];
                    }
                }
            }
        }
    }

    /// The mean of the members' means and, behind them, of their probabilities of a termination, in `scratch.out`
    /// `[tiles, targets (+ 1)]`. For their `mixture` also the sums over members of squared distances from the mean and, where
    /// it is `noisy`, of variances: `scratch.between` and `scratch.within`, each `[tiles, D]`, in the network's units.
    #[inline(always)]
    fn mean_over_members<S: Simd>(
        &self,
        simd: S,
        tiles: usize,
        rows: usize,
        mixture: bool,
        noisy: bool,
        scratch: &mut Scratch,
    ) {
        let (targets, inputs) = (self.target_mean.len(), self.input_mean.len());
        let width = targets + usize::from(self.termination);
        let spread = if mixture { self.predicted.count() } else { 0 };
        for (sums, width) in [(&mut scratch.out, width), (&mut scratch.between, spread), (&mut scratch.within, spread)]
        {
            sums.clear();
            sums.resize(tiles * width, [0.0; TILE]);
        }
        let share = 1.0 / self.members.len() as f32;
        for tile in 0..tiles {
            let input = &scratch.input[tile * inputs..(tile + 1) * inputs];
            let mean = &mut scratch.out[tile * width..(tile + 1) * width];
            let between = &mut scratch.between[tile * spread..(tile + 1) * spread];
            let within = &mut scratch.within[tile * spread..(tile + 1) * spread];
            for member in 0..self.members.len() {
                self.layers(simd, member, input, (rows - tile * TILE).min(TILE), &mut scratch.hidden);
                let out = &scratch.hidden.a;
                if member > 0 {
                    // Squares around the running mean (Welford): a small spread beside a large mean is not cancelled.
                    let before = member as f32;
                    let (to_mean, weight) = (1.0 / (share * before), before / (before + 1.0));
                    for ((between, out), mean) in between.iter_mut().zip(&**out).zip(&*mean) {
                        for r in 0..TILE {
                            let gap = out[r] - to_mean * mean[r];
                            between[r] += weight * gap * gap;
                        }
                    }
                }
                if noisy {
                    let bounds = self.max_log_var.iter().zip(&self.min_log_var);
                    for ((within, out), (&max, &min)) in within.iter_mut().zip(&out[targets..]).zip(bounds) {
                        add_variance(out, [max, min], within);
                    }
                }
                for (mean, out) in mean[..targets].iter_mut().zip(&**out) {
                    for r in 0..TILE {
                        mean[r] += share * out[r];
                    }
                }
                if self.termination {
                    let logit = &out[self.members[member].last().map_or(0, Layer::outputs) - 1];
                    add_probability(logit, share, &mut mean[targets]);
                }
            }
        }
    }

    /// `next = delta · obs + target_mean + target_std · mean`, the means being the first of `width` columns.
    #[inline(always)]
    fn place_means(&self, width: usize, scratch: &mut Scratch) {
        let tiles = scratch.next.chunks_exact_mut(self.obs).zip(scratch.state.chunks_exact(self.state));
        for ((next, state), out) in tiles.zip(scratch.out.chunks_exact(width)) {
            for (d, &c) in self.predicted.columns.iter().enumerate() {
                let (delta, mean, std) = (self.delta[c], self.target_mean[d], self.target_std[d]);
                for r in 0..TILE {
                    next[c][r] = delta * state[c][r] + (mean + std * out[d][r]);
                }
            }
        }
    }

    /// Fills in the columns that are known.
    #[inline(always)]
    fn complete(&self, scratch: &mut Scratch) {
        if self.predicted.known.is_none() {
            return;
        }
        let tiles = scratch.next.chunks_exact_mut(self.obs).zip(scratch.state.chunks_exact(self.state));
        for ((next, state), action) in tiles.zip(scratch.action.chunks_exact(self.action)) {
            self.predicted.complete(&state[..self.obs], action, next, &mut scratch.known);
        }
    }

    /// Adds `target_std · e^(log_var / 2) · noise`, with the log-variance softly bounded.
    #[inline(always)]
    fn add_noise(&self, width: usize, scratch: &mut Scratch) {
        let targets = self.target_mean.len();
        let noise = scratch.noise.chunks_exact(self.predicted.count());
        let tiles = scratch.next.chunks_exact_mut(self.obs).zip(noise);
        for ((next, noise), out) in tiles.zip(scratch.out.chunks_exact(width)) {
            for (d, &c) in self.predicted.columns.iter().enumerate() {
                let scales = [self.max_log_var[d], self.min_log_var[d], self.target_std[d]];
                add_noise(&out[targets + d], &noise[d], scales, &mut next[c]);
            }
        }
    }

    /// Adds noise of the spread that [`mean_over_members`](Self::mean_over_members) found.
    #[inline(always)]
    fn add_mixture_noise(&self, scratch: &mut Scratch) {
        let (share, width) = (1.0 / self.members.len() as f32, self.predicted.count());
        let spread = scratch.between.chunks_exact(width).zip(scratch.within.chunks_exact(width));
        let tiles = scratch.next.chunks_exact_mut(self.obs).zip(scratch.noise.chunks_exact(width));
        for ((next, noise), (between, within)) in tiles.zip(spread) {
            for (d, &c) in self.predicted.columns.iter().enumerate() {
                let std = self.target_std[d];
                for r in 0..TILE {
                    next[c][r] += std * (share * (between[d][r] + within[d][r])).sqrt() * noise[d][r];
                }
            }
        }
    }

    /// Moves states on to the next observations: what was present becomes past, the oldest pair is forgotten.
    #[inline(always)]
    fn shift(&self, scratch: &mut Scratch) {
        let (s, o, a) = (self.state, self.obs, self.action);
        let pair = o + a;
        let tiles = scratch.state.chunks_exact_mut(s).zip(scratch.next.chunks_exact(o));
        for (tile, (state, next)) in tiles.enumerate() {
            if s > o {
                state.copy_within(o..s - pair, o + pair);
                state.copy_within(..o, o);
                state[2 * o..o + pair].copy_from_slice(&scratch.action[tile * a..(tile + 1) * a]);
            }
            state[..o].copy_from_slice(next);
        }
    }
}

// Separate functions on slices: when inlined, loops over a known number of lanes are unrolled before they can be vectorised.

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn sin_cos(x: &[f32], scale: f32, sin: &mut [f32], cos: &mut [f32]) {
    for ((x, sin), cos) in x.iter().zip(sin).zip(cos) {
        (*sin, *cos) = vmath::sin_cos(*x * scale);
    }
}

/// Adds `target_std · e^(log_var / 2) · noise` of one column.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_noise(log_var: &[f32], noise: &[f32], [max, min, target_std]: [f32; 3], next: &mut [f32]) {
    for ((log_var, noise), next) in log_var.iter().zip(noise).zip(next) {
        *next += target_std * vmath::exp(0.5 * bounded(*log_var, max, min)) * noise;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_variance(log_var: &[f32], [max, min]: [f32; 2], sum: &mut [f32]) {
    for (log_var, sum) in log_var.iter().zip(sum) {
        *sum += vmath::exp(bounded(*log_var, max, min));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_probability(logit: &[f32], share: f32, sum: &mut [f32]) {
    for (logit, sum) in logit.iter().zip(sum) {
        *sum += share / (1.0 + vmath::exp(-logit));
    }
}

/// A log-variance, softly bounded (PETS).
#[inline(always)]
fn bounded(log_var: f32, max: f32, min: f32) -> f32 {
    let below_max = max - vmath::softplus(max - log_var);
    min + vmath::softplus(below_max - min)
}
