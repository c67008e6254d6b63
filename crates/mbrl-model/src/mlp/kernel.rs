//! The products of a layer for a tile of rows, whatever the processor: forward, backward, gradients of its weights.
//!
//! Activations of a tile are stored feature by feature, [`TILE`] rows side by side: a register holds one feature of several
//! rows. Weights are broadcast, so widths waste nothing, and what follows a product (bias, activation, standardising, noise) is
//! plain arithmetic on registers. A tile's activations and a panel of weights fit the first-level cache; of each output
//! the products are added in the order of the inputs, so that a row's result depends neither on its place nor on the other
//! rows, and is the same on every processor with fused multiply-adds.

use std::ops::{Deref, DerefMut, Range};

// A tile is that of the features that the engine computes on the way: rows side by side, and one feature of them.
pub(crate) use mbrl_env::{Lanes, TILE};
use pulp::{Simd, WithSimd};

use super::Activation;

/// Features of the rows of a tile, on the boundary of a cache line: a register that is loaded across two lines costs two
/// loads, and gradients of weights are sums of such loads (164 against 213 GFLOP/s on Zen 5).
#[derive(Debug, Default)]
pub(crate) struct Columns {
    data: Vec<f32>,
    from: usize,
    len: usize,
}

impl Columns {
    /// Bytes of a cache line.
    const LINE: usize = 64;

    pub(crate) fn new(len: usize) -> Self {
        let mut columns = Self::default();
        columns.resize(len);
        columns
    }

    /// `len` features; what they hold is anything.
    pub(crate) fn resize(&mut self, len: usize) {
        let spare = Self::LINE / size_of::<f32>();
        if self.data.len() < len * TILE + spare {
            self.data = vec![0.0; len * TILE + spare];
            self.from = self.data.as_ptr().align_offset(Self::LINE).min(spare);
        }
        self.len = len;
    }
}

impl Clone for Columns {
    fn clone(&self) -> Self {
        let mut columns = Self::new(self.len);
        columns.copy_from_slice(self);
        columns
    }
}

impl Deref for Columns {
    type Target = [Lanes];

    #[inline(always)]
    fn deref(&self) -> &[Lanes] {
        self.data[self.from..self.from + self.len * TILE].as_chunks().0
    }
}

impl DerefMut for Columns {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [Lanes] {
        self.data[self.from..self.from + self.len * TILE].as_chunks_mut().0
    }
}

/// Registers of rows that a panel of outputs is accumulated for at once.
const REGISTERS: usize = 2;

/// Outputs whose sums stay in registers at once: as many as the processor has registers for.
const fn panel<S: Simd>() -> usize {
    match S::F32_LANES {
        // 32 registers: 24 sums, two of rows, weights. NEON, AVX-512.
        4 | 16 => 12,
        // 16 registers: 12 sums. AVX.
        _ => 6,
    }
}

/// A layer's weights in the order in which they are read: panels of outputs, within them input by input.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Outputs of a panel; the last one may have fewer.
    pub(crate) panel: usize,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Packed {
    /// Of `weight` `[in, out]` and `bias` `[out]`.
    pub(crate) fn new(weight: &[f32], bias: &[f32]) -> Self {
        struct Width;
        impl WithSimd for Width {
            type Output = usize;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> usize {
                panel::<S>()
            }
        }
        let (outputs, panel) = (bias.len(), pulp::Arch::new().dispatch(Width));
        let inputs = weight.len() / outputs.max(1);
        let mut packed = Vec::with_capacity(weight.len());
        for from in (0..outputs).step_by(panel) {
            let to = (from + panel).min(outputs);
            for row in weight.chunks_exact(outputs) {
                packed.extend_from_slice(&row[from..to]);
            }
        }
        Self { inputs, outputs, panel, weight: packed, bias: bias.to_vec() }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// The transposed weights, without biases: what carries gradients back.
    pub(crate) fn transposed(&self) -> Self {
        let mut back = Self {
            inputs: self.outputs,
            outputs: self.inputs,
            panel: self.panel,
            weight: vec![0.0; self.weight.len()],
            bias: vec![0.0; self.inputs],
        };
        for (i, panel) in back.panels().enumerate() {
            self.transpose_panel(i, panel);
        }
        back
    }

    /// Sets the weights of some outputs to 0.
    pub(crate) fn clear(&mut self, outputs: &Range<usize>) {
        let (inputs, width) = (self.inputs.max(1), self.panel);
        for (i, panel) in self.panels().enumerate() {
            let columns = panel.len() / inputs;
            let within = |output: usize| output.saturating_sub(i * width).min(columns);
            let cleared = within(outputs.start)..within(outputs.end);
            panel.chunks_exact_mut(columns).for_each(|row| row[cleared.clone()].fill(0.0));
        }
    }

    /// The weights panel by panel, `[in, width]` each.
    pub(crate) fn panels(&mut self) -> std::slice::ChunksMut<'_, f32> {
        self.weight.chunks_mut((self.panel * self.inputs).max(1))
    }

    /// Writes a panel of the transposed weights, `[out, width]`.
    pub(crate) fn transpose_panel(&self, index: usize, panel: &mut [f32]) {
        let (from, width) = (index * self.panel, panel.len() / self.outputs.max(1));
        for (weight, panel) in
            self.weight.chunks((self.panel * self.inputs).max(1)).zip(panel.chunks_mut((self.panel * width).max(1)))
        {
            let columns = panel.len() / width;
            for (k, row) in weight.chunks_exact(columns).skip(from).take(width).enumerate() {
                for (j, value) in row.iter().enumerate() {
                    panel[j * width + k] = *value;
                }
            }
        }
    }

    /// The weights as they were given, `[in, out]`.
    pub(crate) fn unpacked(&self) -> Vec<f32> {
        let mut rows = vec![0.0; self.weight.len()];
        for (i, panel) in self.weight.chunks(self.panel * self.inputs.max(1)).enumerate() {
            let (from, width) = (i * self.panel, panel.len() / self.inputs);
            for (row, weights) in rows.chunks_exact_mut(self.outputs).zip(panel.chunks_exact(width)) {
                row[from..from + width].copy_from_slice(weights);
            }
        }
        rows
    }
}

/// `y = activation(x · W + b)` of the first `rows` rows of a tile: `x` `[in]`, `y` `[out]`. What stands in other rows is
/// computed too as far as it shares their registers.
#[inline(always)]
pub(crate) fn layer<S: Simd>(
    simd: S,
    layer: &Packed,
    activation: Option<Activation>,
    x: &[Lanes],
    y: &mut [Lanes],
    rows: usize,
) {
    let registers = rows.div_ceil(S::F32_LANES);
    let per_tile = TILE / S::F32_LANES;
    let (x, _) = S::as_simd_f32s(x[..layer.inputs].as_flattened());
    let (y, _) = S::as_mut_simd_f32s(y[..layer.outputs].as_flattened_mut());
    for ((from, weight), y) in (0..layer.outputs)
        .step_by(layer.panel)
        .zip(layer.weight.chunks(layer.panel * layer.inputs.max(1)))
        .zip(y.chunks_mut(layer.panel * per_tile))
    {
        let to = (from + layer.panel).min(layer.outputs);
        let bias = &layer.bias[from..to];
        let mut at = 0;
        while at + REGISTERS <= registers {
            sums::<S, REGISTERS>(simd, weight, bias, x, y, at);
            at += REGISTERS;
        }
        while at < registers {
            sums::<S, 1>(simd, weight, bias, x, y, at);
            at += 1;
        }
        activate_registers(simd, activation, y);
    }
}

/// `y` becomes `activation(y)`.
#[inline(always)]
pub(crate) fn activate<S: Simd>(simd: S, activation: Option<Activation>, y: &mut [Lanes]) {
    activate_registers(simd, activation, S::as_mut_simd_f32s(y.as_flattened_mut()).0);
}

#[inline(always)]
fn activate_registers<S: Simd>(simd: S, activation: Option<Activation>, y: &mut [S::f32s]) {
    match activation {
        None => {}
        Some(Activation::Silu) => {
            for v in y {
                *v = silu(simd, *v);
            }
        }
        Some(Activation::Relu) => {
            for v in y {
                *v = relu(simd, *v);
            }
        }
        Some(Activation::Tanh) => {
            for v in y {
                *v = tanh(simd, *v);
            }
        }
        Some(Activation::Elu) => {
            for v in y {
                *v = elu(simd, *v);
            }
        }
        Some(Activation::Mish) => {
            for v in y {
                *v = mish_with_slope(simd, *v).0;
            }
        }
    }
}

/// Calls a function whose second generic argument is a width from 1 to 12 known at run time.
macro_rules! of_width {
    ($width:expr, $function:ident::<$S:ident, _ $(, $V:tt)?>($($argument:expr),* $(,)?)) => {
        match $width {
            1 => $function::<$S, 1 $(, $V)?>($($argument),*),
            2 => $function::<$S, 2 $(, $V)?>($($argument),*),
            3 => $function::<$S, 3 $(, $V)?>($($argument),*),
            4 => $function::<$S, 4 $(, $V)?>($($argument),*),
            5 => $function::<$S, 5 $(, $V)?>($($argument),*),
            6 => $function::<$S, 6 $(, $V)?>($($argument),*),
            7 => $function::<$S, 7 $(, $V)?>($($argument),*),
            8 => $function::<$S, 8 $(, $V)?>($($argument),*),
            9 => $function::<$S, 9 $(, $V)?>($($argument),*),
            10 => $function::<$S, 10 $(, $V)?>($($argument),*),
            11 => $function::<$S, 11 $(, $V)?>($($argument),*),
            _ => $function::<$S, 12 $(, $V)?>($($argument),*),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use of_width;

/// One panel of outputs for the `V` registers of rows from `at`.
#[inline(always)]
fn sums<S: Simd, const V: usize>(simd: S, weight: &[f32], bias: &[f32], x: &[S::f32s], y: &mut [S::f32s], at: usize) {
    of_width!(bias.len(), panel_sums::<S, _, V>(simd, weight, bias, x, y, at));
}

/// `M` outputs times `V` registers of rows, all sums in registers.
#[inline(always)]
fn panel_sums<S: Simd, const M: usize, const V: usize>(
    simd: S,
    weight: &[f32],
    bias: &[f32],
    x: &[S::f32s],
    y: &mut [S::f32s],
    at: usize,
) {
    let per_tile = TILE / S::F32_LANES;
    // There are exactly as many; stating it once keeps the sums out of memory.
    let Some(bias) = bias.first_chunk::<M>() else { return };
    let mut sums = [[simd.splat_f32s(0.0); V]; M];
    for m in 0..M {
        sums[m] = [simd.splat_f32s(bias[m]); V];
    }
    let (weight, _) = weight.as_chunks::<M>();
    for (weight, x) in weight.iter().zip(x.chunks_exact(per_tile)) {
        let Some(x) = x[at..].first_chunk::<V>() else { return };
        for m in 0..M {
            let weight = simd.splat_f32s(weight[m]);
            for v in 0..V {
                sums[m][v] = simd.mul_add_e_f32s(weight, x[v], sums[m][v]);
            }
        }
    }
    for (sum, y) in sums.iter().zip(y.chunks_exact_mut(per_tile)) {
        y[at..at + V].copy_from_slice(sum);
    }
}

/// Whether the slope of an activation can be told from what comes out of it, so that it need not be kept.
const fn slope_shows(activation: Activation) -> bool {
    match activation {
        Activation::Relu | Activation::Tanh | Activation::Elu => true,
        Activation::Silu | Activation::Mish => false,
    }
}

/// `z` becomes `activation(z)`, and `slope` its derivative where [`times_slope`] needs it.
#[inline(always)]
fn activate_with_slope<S: Simd>(simd: S, activation: Activation, z: &mut [Lanes], slope: &mut Columns) {
    if slope_shows(activation) {
        return activate(simd, Some(activation), z);
    }
    slope.resize(z.len());
    let (z, _) = S::as_mut_simd_f32s(z.as_flattened_mut());
    let (slope, _) = S::as_mut_simd_f32s(slope.as_flattened_mut());
    let one = simd.splat_f32s(1.0);
    for (z, slope) in z.iter_mut().zip(slope) {
        let x = *z;
        (*z, *slope) = if activation == Activation::Mish {
            mish_with_slope(simd, x)
        } else {
            let sigmoid = simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))));
            let y = simd.mul_f32s(x, sigmoid);
            (y, simd.mul_add_e_f32s(y, simd.sub_f32s(one, sigmoid), sigmoid))
        };
    }
}

/// Gradients (or changes) of what came out of an activation, `y`, become those of what went in.
#[inline(always)]
fn times_slope<S: Simd>(simd: S, activation: Activation, y: &[Lanes], slope: &[Lanes], gradients: &mut [Lanes]) {
    let (y, _) = S::as_simd_f32s(y.as_flattened());
    let (gradients, _) = S::as_mut_simd_f32s(gradients.as_flattened_mut());
    let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    match activation {
        Activation::Silu | Activation::Mish => {
            let (slope, _) = S::as_simd_f32s(slope.as_flattened());
            for (gradient, slope) in gradients.iter_mut().zip(slope) {
                *gradient = simd.mul_f32s(*slope, *gradient);
            }
        }
        Activation::Relu => {
            for (gradient, y) in gradients.iter_mut().zip(y) {
                *gradient = simd.select_f32s(simd.greater_than_f32s(*y, zero), *gradient, zero);
            }
        }
        Activation::Tanh => {
            for (gradient, y) in gradients.iter_mut().zip(y) {
                *gradient = simd.mul_f32s(simd.sub_f32s(one, simd.mul_f32s(*y, *y)), *gradient);
            }
        }
        Activation::Elu => {
            for (gradient, y) in gradients.iter_mut().zip(y) {
                *gradient = simd.mul_f32s(simd.min_f32s(simd.add_f32s(*y, one), one), *gradient);
            }
        }
    }
}

/// The gradients of weights `[inputs, width]` of a panel, of the inputs from `first` on, whose first output is `from`: sums over
/// the rows of all tiles of an input times the gradient of an output. Tiles are pairs of inputs `[in]` and gradients `[out]`.
#[inline(always)]
fn weight_gradients<S: Simd>(
    simd: S,
    tiles: &[(&[Lanes], &[Lanes])],
    first: usize,
    from: usize,
    width: usize,
    weight: &mut [f32],
) {
    match width {
        // Four inputs by six outputs: 24 sums as well, of 10 loads instead of 14.
        12 => {
            block_gradients::<S, 4, 6>(simd, tiles, [first, from, 0, 12], weight);
            block_gradients::<S, 4, 6>(simd, tiles, [first, from, 6, 12], weight);
        }
        _ => of_width!(width, panel_gradients::<S, _>(simd, tiles, first, from, weight)),
    }
}

#[inline(always)]
fn panel_gradients<S: Simd, const M: usize>(
    simd: S,
    tiles: &[(&[Lanes], &[Lanes])],
    first: usize,
    from: usize,
    weight: &mut [f32],
) {
    block_gradients::<S, 2, M>(simd, tiles, [first, from, 0, M], weight);
}

/// Those of `J` outputs, the panel's from `column` on, `K` inputs at a time.
#[inline(always)]
fn block_gradients<S: Simd, const K: usize, const J: usize>(
    simd: S,
    tiles: &[(&[Lanes], &[Lanes])],
    [first, from, column, width]: [usize; 4],
    weight: &mut [f32],
) {
    let from = from + column;
    let inputs = weight.len() / width;
    for (group, weight) in weight.chunks_exact_mut(K * width).enumerate() {
        let sums = products::<S, K, J>(simd, tiles, first + K * group, from);
        put::<K, J>(&sums, column, width, weight);
    }
    for i in inputs / K * K..inputs {
        let sums = products::<S, 1, J>(simd, tiles, first + i, from);
        put::<1, J>(&sums, column, width, &mut weight[i * width..(i + 1) * width]);
    }
}

#[inline(always)]
fn put<const K: usize, const J: usize>(sums: &[[f32; J]; K], column: usize, width: usize, weight: &mut [f32]) {
    for (weight, sums) in weight.chunks_exact_mut(width).zip(sums) {
        weight[column..column + J].copy_from_slice(sums);
    }
}

/// Sums over rows of `K` inputs times `J` gradients, all sums in registers.
#[inline(always)]
fn products<S: Simd, const K: usize, const J: usize>(
    simd: S,
    tiles: &[(&[Lanes], &[Lanes])],
    first: usize,
    from: usize,
) -> [[f32; J]; K] {
    let per_tile = TILE / S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); J]; K];
    for (x, dy) in tiles {
        let (x, _) = S::as_simd_f32s(x[first..first + K].as_flattened());
        let (dy, _) = S::as_simd_f32s(dy[from..from + J].as_flattened());
        for v in 0..per_tile {
            for k in 0..K {
                for j in 0..J {
                    sums[k][j] = simd.mul_add_e_f32s(x[k * per_tile + v], dy[j * per_tile + v], sums[k][j]);
                }
            }
        }
    }
    let mut out = [[0.0; J]; K];
    sum_lanes(simd, sums.as_flattened(), out.as_flattened_mut());
    out
}

/// The gradients of the biases of a panel whose first output is `from`.
#[inline(always)]
fn bias_gradients<S: Simd>(simd: S, tiles: &[(&[Lanes], &[Lanes])], from: usize, bias: &mut [f32]) {
    for (j, bias) in bias.iter_mut().enumerate() {
        let mut sum = simd.splat_f32s(0.0);
        for (_, dy) in tiles {
            let (dy, _) = S::as_simd_f32s(&dy[from + j]);
            for dy in dy {
                sum = simd.add_f32s(sum, *dy);
            }
        }
        *bias = simd.reduce_sum_f32s(sum);
    }
}

/// The sum of each register's lanes, at most 24 of them.
#[inline(always)]
fn sum_lanes<S: Simd>(simd: S, sums: &[S::f32s], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(v4) = (&simd as &dyn std::any::Any).downcast_ref::<pulp::x86::V4>() {
        let zero = bytemuck::cast(simd.splat_f32s(0.0));
        let mut at = 0;
        while at < sums.len() {
            let mut some = [zero; 16];
            let mut i = 0;
            while i < 16 && at + i < sums.len() {
                some[i] = bytemuck::cast(sums[at + i]);
                i += 1;
            }
            let all = if i > 8 { x86::sixteen(*v4, some) } else { x86::eight(*v4, some) };
            out[at..at + i].copy_from_slice(&all[..i]);
            at += 16;
        }
        return;
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = simd.reduce_sum_f32s(*sum);
    }
}

/// Sums of the lanes of many registers at once, by halving them together: 45 instructions for sixteen instead of 130. The
/// order is that of [`Simd::reduce_sum_f32s`] (lanes 8 apart, 4, 2, 1), and so are the bits.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::__m512;

    use bytemuck::cast;
    use pulp::x86::V4;

    #[inline(always)]
    fn halves(v4: V4, a: __m512, b: __m512) -> __m512 {
        let x = v4.avx512f;
        x._mm512_add_ps(x._mm512_shuffle_f32x4::<0x44>(a, b), x._mm512_shuffle_f32x4::<0xee>(a, b))
    }

    #[inline(always)]
    fn quarters(v4: V4, a: __m512, b: __m512) -> __m512 {
        let x = v4.avx512f;
        x._mm512_add_ps(x._mm512_shuffle_f32x4::<0x88>(a, b), x._mm512_shuffle_f32x4::<0xdd>(a, b))
    }

    #[inline(always)]
    fn pairs(v4: V4, a: __m512, b: __m512) -> __m512 {
        let x = v4.avx512f;
        x._mm512_add_ps(cast(x._mm512_unpacklo_pd(cast(a), cast(b))), cast(x._mm512_unpackhi_pd(cast(a), cast(b))))
    }

    #[inline(always)]
    fn singles(v4: V4, a: __m512, b: __m512) -> __m512 {
        let x = v4.avx512f;
        x._mm512_add_ps(x._mm512_shuffle_ps::<0x88>(a, b), x._mm512_shuffle_ps::<0xdd>(a, b))
    }

    /// The sums of sixteen registers, in their order.
    #[inline(always)]
    pub(super) fn sixteen(v4: V4, r: [__m512; 16]) -> [f32; 16] {
        let a = quarters(v4, halves(v4, r[0], r[4]), halves(v4, r[8], r[12]));
        let b = quarters(v4, halves(v4, r[1], r[5]), halves(v4, r[9], r[13]));
        let c = quarters(v4, halves(v4, r[2], r[6]), halves(v4, r[10], r[14]));
        let d = quarters(v4, halves(v4, r[3], r[7]), halves(v4, r[11], r[15]));
        cast(singles(v4, pairs(v4, a, b), pairs(v4, c, d)))
    }

    /// The sums of the first eight registers, in their order.
    #[inline(always)]
    pub(super) fn eight(v4: V4, r: [__m512; 16]) -> [f32; 16] {
        // Fours of lanes belong to 0, 4, 1, 5, then to 2, 6, 3, 7.
        let a = quarters(v4, halves(v4, r[0], r[4]), halves(v4, r[1], r[5]));
        let b = quarters(v4, halves(v4, r[2], r[6]), halves(v4, r[3], r[7]));
        let both = pairs(v4, a, b);
        let sums = singles(v4, both, both);
        let x = v4.avx512f;
        let order = x._mm512_setr_epi32(0, 8, 1, 9, 4, 12, 5, 13, 0, 0, 0, 0, 0, 0, 0, 0);
        cast(x._mm512_permutexvar_ps(order, sums))
    }
}

/// A function of registers as one of slices: for the processor at hand, compiled once for each kind of registers.
macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident<$a:lifetime> = $function:path { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        pub(crate) fn $name<$a>($($field: $type),*) {
            struct Call<$a> {
                $($field: $type),*
            }

            impl<$a> pulp::WithSimd for Call<$a> {
                type Output = ();

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, simd: S) {
                    let Self { $($field),* } = self;
                    $function(simd, $($field),*);
                }
            }

            pulp::Arch::new().dispatch(Call { $($field),* });
        }
    };
}
pub(crate) use dispatched;

dispatched! {
    /// [`layer`].
    run_layer<'a> = layer {
        weights: &'a Packed,
        activation: Option<Activation>,
        x: &'a [Lanes],
        y: &'a mut [Lanes],
        rows: usize,
    }
}
dispatched! {
    /// [`activate`].
    run_activate<'a> = activate { activation: Option<Activation>, y: &'a mut [Lanes] }
}
dispatched! {
    /// [`activate_with_slope`].
    run_activate_with_slope<'a> = activate_with_slope {
        activation: Activation,
        z: &'a mut [Lanes],
        slope: &'a mut Columns,
    }
}
dispatched! {
    /// [`times_slope`].
    run_times_slope<'a> = times_slope {
        activation: Activation,
        y: &'a [Lanes],
        slope: &'a [Lanes],
        gradients: &'a mut [Lanes],
    }
}
dispatched! {
    /// [`gradients_of_panel`].
    run_gradients<'a> = gradients_of_panel {
        tiles: &'a [(&'a [Lanes], &'a [Lanes])],
        place: [usize; 3],
        weight: &'a mut [f32],
        bias: &'a mut [f32],
    }
}

/// The gradients of weights and biases of a panel, at `[first input, first output, width]`.
#[inline(always)]
fn gradients_of_panel<S: Simd>(
    simd: S,
    tiles: &[(&[Lanes], &[Lanes])],
    [first, from, width]: [usize; 3],
    weight: &mut [f32],
    bias: &mut [f32],
) {
    weight_gradients(simd, tiles, first, from, width, weight);
    bias_gradients(simd, tiles, from, bias);
}

/// e^x for x in [−87, 88]; beyond, it stays at the value there. As [`crate::vmath::exp`], with fused multiply-adds.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5·2²³ rounds to the nearest integer and leaves it in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = simd.min_f32s(simd.max_f32s(x, simd.splat_f32s(-87.0)), simd.splat_f32s(88.0));
    let log2_e = simd.splat_f32s(std::f32::consts::LOG2_E);
    let shifted = simd.mul_add_e_f32s(x, log2_e, simd.splat_f32s(ROUND));
    let n = simd.sub_f32s(shifted, simd.splat_f32s(ROUND));
    let f = simd.mul_add_e_f32s(x, log2_e, simd.neg_f32s(n));
    // Taylor series of 2^f on [-1/2, 1/2]; the first term left out is 1.2e-7.
    let mut p = simd.splat_f32s(0.000_154_035_3);
    for c in [0.001_333_355_8, 0.009_618_129, 0.055_504_11, 0.240_226_5, std::f32::consts::LN_2, 1.0] {
        p = simd.mul_add_e_f32s(p, f, simd.splat_f32s(c));
    }
    let n = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p), n))
}

/// x / (1 + e^-x). NaN stays NaN.
#[inline(always)]
fn silu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(x, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))))
}

/// max(x, 0). NaN stays NaN.
#[inline(always)]
fn relu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_f32s(x, zero), zero, x)
}

/// Hyperbolic tangent (Cephes `tanhf`: a polynomial near 0, the exponential elsewhere). NaN stays NaN.
#[inline(always)]
fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let z = simd.mul_f32s(x, x);
    let mut p = simd.splat_f32s(-5.704_988_7e-3);
    for c in [2.063_908_8e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = simd.mul_add_e_f32s(p, z, simd.splat_f32s(c));
    }
    let near = simd.mul_add_e_f32s(simd.mul_f32s(x, z), p, x);
    let e = exp(simd, simd.add_f32s(x, x));
    let far = simd
        .sub_f32s(simd.splat_f32s(1.0), simd.div_f32s(simd.splat_f32s(2.0), simd.add_f32s(e, simd.splat_f32s(1.0))));
    let size = simd.abs_f32s(x);
    // Where x is NaN it is not above: the polynomial's NaN is taken.
    simd.select_f32s(simd.greater_than_or_equal_f32s(size, simd.splat_f32s(0.625)), far, near)
}

/// e^x − 1 below 0, x above. NaN stays NaN.
#[inline(always)]
fn elu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let below = simd.sub_f32s(exp(simd, x), simd.splat_f32s(1.0));
    simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(0.0)), below, x)
}

/// x tanh(ln(1 + e^x)), and its slope. NaN stays NaN.
#[inline(always)]
fn mish_with_slope<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let (one, two) = (simd.splat_f32s(1.0), simd.splat_f32s(2.0));
    // tanh(ln(1 + e)) = (e² + 2e) / (e² + 2e + 2), which is 1 in `f32` long before e² overflows.
    let e = exp(simd, simd.min_f32s(x, simd.splat_f32s(30.0)));
    let n = simd.mul_f32s(e, simd.add_f32s(e, two));
    let t = simd.div_f32s(n, simd.add_f32s(n, two));
    let sigmoid = simd.div_f32s(e, simd.add_f32s(one, e));
    let bend = simd.mul_f32s(sigmoid, simd.sub_f32s(one, simd.mul_f32s(t, t)));
    (simd.mul_f32s(x, t), simd.mul_add_e_f32s(x, bend, t))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run<'a> {
        packed: &'a Packed,
        activation: Option<Activation>,
        x: &'a [Lanes],
        y: &'a mut [Lanes],
        rows: usize,
    }

    impl WithSimd for Run<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            layer(simd, self.packed, self.activation, self.x, self.y, self.rows);
        }
    }

    #[test]
    fn it_is_the_product_by_hand() {
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 2), (17, 6, 33), (32, 200, 8), (9, 3, 12), (32, 1, 25)] {
            let value = |i: usize| ((i * 7 + 3) % 11) as f32 - 5.0;
            let weight: Vec<f32> = (0..inputs * outputs).map(|i| value(i + 1)).collect();
            let bias: Vec<f32> = (0..outputs).map(value).collect();
            let x: Vec<Lanes> = (0..inputs).map(|i| std::array::from_fn(|r| value(r * inputs + i))).collect();
            let packed = Packed::new(&weight, &bias);
            assert_eq!((packed.inputs, packed.outputs()), (inputs, outputs));
            {
                assert_eq!(packed.unpacked(), weight);
                let turned = |i: usize| weight[i % inputs * outputs + i / inputs];
                let turned: Vec<f32> = (0..inputs * outputs).map(turned).collect();
                assert_eq!(packed.transposed().unpacked(), turned);
            }
            let mut y = vec![[f32::NAN; TILE]; outputs];
            pulp::Arch::new().dispatch(Run { packed: &packed, activation: None, x: &x, y: &mut y, rows });
            for r in 0..rows {
                for j in 0..outputs {
                    // Small integers: exact in any order.
                    let want: f32 = (0..inputs).map(|i| x[i][r] * weight[i * outputs + j]).sum::<f32>() + bias[j];
                    assert_eq!(y[j][r], want, "row {r}, output {j} of {rows} rows, {inputs} to {outputs}");
                }
            }
        }
    }

    #[test]
    fn activations_are_accurate_and_nan_stays_nan() {
        let one = Packed::new(&[1.0], &[0.0]);
        let apply = |activation, x: Lanes| {
            let mut y = [[0.0; TILE]];
            let run = Run { packed: &one, activation: Some(activation), x: &[x], y: &mut y, rows: TILE };
            pulp::Arch::new().dispatch(run);
            y[0]
        };
        let all = [Activation::Silu, Activation::Relu, Activation::Tanh, Activation::Elu, Activation::Mish];
        for activation in all {
            // 1 is taken off e^x, which is near 1 itself.
            let tolerance = if activation == Activation::Elu { 2e-4 } else { 2e-6 };
            let exact = |x: f64| match activation {
                Activation::Silu => x / (1.0 + (-x).exp()),
                Activation::Relu => x.max(0.0),
                Activation::Tanh => x.tanh(),
                Activation::Elu if x > 0.0 => x,
                Activation::Elu => x.exp_m1(),
                Activation::Mish => x * x.exp().ln_1p().tanh(),
            };
            for step in 0..4000 {
                let x: Lanes = std::array::from_fn(|lane| (step * TILE + lane) as f32 / 3200.0 - 20.0);
                for (x, y) in x.iter().zip(apply(activation, x)) {
                    let want = exact(f64::from(*x));
                    let error = (f64::from(y) - want).abs() / want.abs().max(1e-3);
                    assert!(error < tolerance, "{activation:?}({x}) = {y}, not {want}");
                }
            }
            for x in [-1e30, -200.0, 200.0, 1e30] {
                let y = apply(activation, [x; TILE])[0];
                assert!(
                    y.is_finite() && (y - exact(f64::from(x)) as f32).abs() <= 1e-6 * x.abs(),
                    "{activation:?}({x}) = {y}"
                );
            }
            assert!(apply(activation, [f32::NAN; TILE]).iter().all(|y| y.is_nan()));
        }
    }
}
