//! A layer of products of bfloat16, summed in `f32`: twice the products an instruction where the processor has AVX512-BF16.
//!
//! Weights and inputs are rounded to the nearest bfloat16 (ties to even), an `f32` whose significand has 8 bits instead of
//! 24: a relative error of at most 2⁻⁸ each. Two inputs of a row share a register's lane and meet the same two weights,
//! and [`TILE`] rows stand side by side, as in [`crate::mlp::kernel`]. Products of bfloat16 are exact in `f32`; sums, biases and
//! activations are `f32`'s. Without AVX512-BF16 plain arithmetic in the same order computes the same bits, without a gain.
//! Only where numbers are subnormal, which the instruction takes for 0, do the two differ.

use multiversion::{multiversion, target::match_target};
use pulp::Simd;

use crate::{
    Activation,
    mlp::kernel::{Lanes, TILE, activate},
};

/// Outputs whose sums stay in registers at once, beside two registers of inputs and one of weights.
const PANEL: usize = 12;
/// Rows of a register.
const REGISTER: usize = 16;

/// Two features of the rows of a tile as bfloat16, the first one in the lower halves.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Pairs([u32; TILE]);

/// A layer's rounded weights in the order in which they are read: panels of outputs, within them pair by pair of inputs.
#[derive(Debug, Clone)]
pub(crate) struct Rounded {
    inputs: usize,
    pub(super) outputs: usize,
    weight: Vec<u32>,
    bias: Vec<f32>,
}

impl Rounded {
    /// Of `weight` `[in, out]` and `bias` `[out]`. An odd last input has a weight of 0 beside it.
    pub(crate) fn new(weight: &[f32], bias: &[f32]) -> Self {
        let outputs = bias.len();
        let inputs = weight.len() / outputs.max(1);
        let at = |input: usize, output: usize| if input < inputs { weight[input * outputs + output] } else { 0.0 };
        let mut packed = Vec::with_capacity(inputs.div_ceil(2) * outputs);
        for from in (0..outputs).step_by(PANEL) {
            for first in (0..inputs).step_by(2) {
                packed.extend((from..(from + PANEL).min(outputs)).map(|j| pair(at(first, j), at(first + 1, j))));
            }
        }
        Self { inputs, outputs, weight: packed, bias: bias.to_vec() }
    }
}

/// `y = activation(x · W + b)` of the first `rows` rows of a tile: `x` `[in]`, `y` `[out]`, as [`crate::mlp::kernel::layer`].
#[inline(always)]
pub(super) fn layer<S: Simd>(
    simd: S,
    layer: &Rounded,
    activation: Option<Activation>,
    x: &[Lanes],
    pairs: &mut Vec<Pairs>,
    y: &mut [Lanes],
    rows: usize,
) {
    let inputs = layer.inputs.div_ceil(2);
    pairs.resize(inputs, Pairs([0; TILE]));
    round(&x[..layer.inputs], pairs);
    for ((weight, bias), y) in layer
        .weight
        .chunks((PANEL * inputs).max(1))
        .zip(layer.bias.chunks(PANEL))
        .zip(y[..layer.outputs].chunks_mut(PANEL))
    {
        products(weight, bias, pairs, y, rows.div_ceil(REGISTER));
        activate(simd, activation, y);
    }
}

/// The bits of the nearest bfloat16, in the upper half: ties to even, NaN stays NaN.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    // Quiet, with the upper digits of its payload: adding could carry over into another number.
    let nan = (bits | 0x40_0000) & 0xffff_0000;
    if x.is_nan() { nan } else { rounded }
}

#[inline(always)]
fn pair(first: f32, second: f32) -> u32 {
    nearest(second) | nearest(first) >> 16
}

/// The two numbers of a pair.
#[inline(always)]
fn halves(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

/// Inputs by twos; 0 beside an odd last one.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn round(x: &[Lanes], pairs: &mut [Pairs]) {
    for (x, Pairs(pairs)) in x.chunks(2).zip(pairs) {
        match x {
            [first, second] => {
                for (pair_, (first, second)) in pairs.iter_mut().zip(first.iter().zip(second)) {
                    *pair_ = pair(*first, *second);
                }
            }
            _ => {
                for (pair_, first) in pairs.iter_mut().zip(&x[0]) {
                    *pair_ = pair(*first, 0.0);
                }
            }
        }
    }
}

/// One panel of outputs for the first `registers` of rows; what stands in the other rows means nothing.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx512bf16+avx2+fma", "x86_64+avx2+fma"))]
fn products(weight: &[u32], bias: &[f32], x: &[Pairs], y: &mut [Lanes], registers: usize) {
    match_target! {
        "x86_64+avx512f+avx512bf16" => x86::panel(weight, bias, x, y, registers),
        _ => portable(weight, bias, x, y, registers),
    }
}

/// In the instruction's order: of each pair the second product first, each sum rounded to nearest.
#[inline(always)]
fn portable(weight: &[u32], bias: &[f32], x: &[Pairs], y: &mut [Lanes], registers: usize) {
    let rows = registers * REGISTER;
    for (j, (y, start)) in y.iter_mut().zip(bias).enumerate() {
        let mut sums = [*start; TILE];
        for (weight, Pairs(x)) in weight.chunks_exact(bias.len()).zip(x) {
            let [first, second] = halves(weight[j]);
            for (sum, x) in sums.iter_mut().zip(x) {
                let x = halves(*x);
                *sum += x[1] * second;
                *sum += x[0] * first;
            }
        }
        y[..rows].copy_from_slice(&sums[..rows]);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{
        arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_set1_ps},
        array,
    };

    use bytemuck::cast;

    use super::{Lanes, Pairs, REGISTER};
    use crate::mlp::kernel::of_width;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn panel(weight: &[u32], bias: &[f32], x: &[Pairs], y: &mut [Lanes], registers: usize) {
        match registers {
            1 => registers_of::<1>(weight, bias, x, y),
            _ => registers_of::<2>(weight, bias, x, y),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn registers_of<const V: usize>(weight: &[u32], bias: &[f32], x: &[Pairs], y: &mut [Lanes]) {
        of_width!(bias.len(), sums::<V, _>(weight, bias, x, y));
    }

    /// `M` outputs times `V` registers of rows, all sums in registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn sums<const V: usize, const M: usize>(weight: &[u32], bias: &[f32], x: &[Pairs], y: &mut [Lanes]) {
        let mut sums = [[_mm512_set1_ps(0.0); V]; M];
        for (sum, bias) in sums.iter_mut().zip(bias) {
            *sum = [_mm512_set1_ps(*bias); V];
        }
        let (weight, _) = weight.as_chunks::<M>();
        for (weight, Pairs(x)) in weight.iter().zip(x) {
            let (x, _) = x.as_chunks::<REGISTER>();
            let x: [__m512bh; V] = array::from_fn(|v| cast(x[v]));
            for m in 0..M {
                let weight: __m512bh = cast(_mm512_set1_epi32(weight[m].cast_signed()));
                for v in 0..V {
                    sums[m][v] = _mm512_dpbf16_ps(sums[m][v], x[v], weight);
                }
            }
        }
        for (sums, y) in sums.iter().zip(y) {
            for (sum, y) in sums.iter().zip(y.as_chunks_mut::<REGISTER>().0) {
                *y = cast(*sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Rng;
    use pulp::WithSimd;

    use super::*;
    use crate::mlp::kernel::{self, Packed};

    struct Run<'a> {
        layer: &'a Rounded,
        activation: Option<Activation>,
        x: &'a [Lanes],
        rows: usize,
    }

    impl WithSimd for Run<'_> {
        type Output = Vec<Lanes>;
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<Lanes> {
            let mut y = vec![[f32::NAN; TILE]; self.layer.outputs];
            // What stood there before does not matter.
            let mut pairs = vec![Pairs([0x7fc0_7fc0; TILE]); 3];
            layer(simd, self.layer, self.activation, self.x, &mut pairs, &mut y, self.rows);
            y
        }
    }

    fn run(layer: &Rounded, activation: Option<Activation>, x: &[Lanes], rows: usize) -> Vec<Lanes> {
        pulp::Arch::new().dispatch(Run { layer, activation, x, rows })
    }

    struct Exact<'a>(&'a Packed, &'a [Lanes]);

    impl WithSimd for Exact<'_> {
        type Output = Vec<Lanes>;
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<Lanes> {
            let mut y = vec![[f32::NAN; TILE]; self.0.outputs()];
            kernel::layer(simd, self.0, None, self.1, &mut y, TILE);
            y
        }
    }

    fn normal(count: usize, rng: &mut Rng) -> Vec<f32> {
        (0..count).map(|_| rng.normal()).collect()
    }

    fn tile(inputs: usize, rng: &mut Rng) -> Vec<Lanes> {
        (0..inputs).map(|_| std::array::from_fn(|_| rng.normal())).collect()
    }

    /// Rows, inputs, outputs: odd, even and 1; panels that are whole and not; registers that are.
    const SHAPES: [[usize; 3]; 9] = [
        [1, 1, 1],
        [3, 5, 2],
        [16, 2, 12],
        [17, 6, 33],
        [32, 200, 8],
        [9, 3, 12],
        [32, 1, 25],
        [31, 7, 11],
        [32, 201, 13],
    ];

    #[test]
    fn the_nearest_bfloat16_is_taken_and_even_of_two() {
        let nearest = |x: f32| f32::from_bits(nearest(x));
        // Neighbours of 1 are 2⁻⁷ above and 2⁻⁸ below.
        let ulp = 1.0 / 128.0;
        for (x, want) in [
            (1.0, 1.0),
            (1.0 + 0.49 * ulp, 1.0),
            (1.0 + 0.5 * ulp, 1.0),
            (1.0 + 0.51 * ulp, 1.0 + ulp),
            (1.0 + 1.5 * ulp, 1.0 + 2.0 * ulp),
            (-1.0 - 1.5 * ulp, -1.0 - 2.0 * ulp),
            (1.0 - 0.25 * ulp, 1.0),
            (-0.0, -0.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            assert_eq!(nearest(x).to_bits(), f32::to_bits(want), "{x}");
        }
        for bits in [0x7fc0_0000, 0x7f80_0001, 0x7fff_ffff, 0xffff_ffff, 0xff80_0001] {
            assert!(nearest(f32::from_bits(bits)).is_nan(), "{bits:x}");
        }
        let mut rng = Rng::new(0);
        for _ in 0..10_000 {
            let x = rng.normal() * (8.0 * rng.normal()).exp();
            assert!((nearest(x) - x).abs() <= x.abs() / 256.0, "{x}");
            assert_eq!(halves(pair(x, -x)), [nearest(x), nearest(-x)]);
        }
    }

    #[test]
    fn it_is_the_product_of_rounded_numbers() {
        let rounded = |x: f32| f64::from(f32::from_bits(nearest(x)));
        let mut rng = Rng::new(1);
        for [rows, inputs, outputs] in SHAPES {
            let (weight, bias) = (normal(inputs * outputs, &mut rng), normal(outputs, &mut rng));
            let x = tile(inputs, &mut rng);
            let y = run(&Rounded::new(&weight, &bias), None, &x, rows);
            for r in 0..rows {
                for j in 0..outputs {
                    let products = || (0..inputs).map(|i| rounded(x[i][r]) * rounded(weight[i * outputs + j]));
                    let want = products().sum::<f64>() + f64::from(bias[j]);
                    // Each of n sums is off by 2⁻²⁴ of itself at most, and none is larger than all terms' magnitudes.
                    let terms = products().map(f64::abs).sum::<f64>() + f64::from(bias[j].abs());
                    let bound = (inputs + 1) as f64 * 2f64.powi(-24) * terms;
                    let error = (f64::from(y[j][r]) - want).abs();
                    assert!(error <= bound, "row {r}, output {j} of {rows}, {inputs} to {outputs}: {error} > {bound}");
                }
            }
        }
    }

    #[test]
    fn it_is_near_the_product_in_f32() {
        let mut rng = Rng::new(2);
        let mut worst = 0f32;
        for [_, inputs, outputs] in SHAPES {
            let (weight, bias) = (normal(inputs * outputs, &mut rng), normal(outputs, &mut rng));
            let x = tile(inputs, &mut rng);
            let y = run(&Rounded::new(&weight, &bias), None, &x, TILE);
            let exact = pulp::Arch::new().dispatch(Exact(&Packed::new(&weight, &bias), &x));
            for r in 0..TILE {
                for j in 0..outputs {
                    // Both factors are off by 2⁻⁸ of themselves at most, their product by twice that and a little.
                    let terms = (0..inputs).map(|i| (x[i][r] * weight[i * outputs + j]).abs()).sum::<f32>();
                    let bound = 2f32.powi(-7) * 1.01 * terms + 1e-5 * bias[j].abs();
                    let error = (y[j][r] - exact[j][r]).abs();
                    assert!(error <= bound, "row {r}, output {j}, {inputs} to {outputs}: {error} > {bound}");
                    worst = worst.max(error / terms);
                }
            }
        }
        // It is bfloat16 indeed: of single products the error comes near the bound.
        assert!(worst > 2f32.powi(-8), "{worst}");
    }

    #[test]
    fn rows_depend_neither_on_their_place_nor_on_others() {
        let mut rng = Rng::new(3);
        for [_, inputs, outputs] in SHAPES {
            let layer = Rounded::new(&normal(inputs * outputs, &mut rng), &normal(outputs, &mut rng));
            let x = tile(inputs, &mut rng);
            let whole = run(&layer, Some(Activation::Silu), &x, TILE);
            let turned: Vec<Lanes> = x.iter().map(|x| std::array::from_fn(|r| x[(r + 5) % TILE])).collect();
            for rows in [1, 15, 16, 17, TILE] {
                let part = run(&layer, Some(Activation::Silu), &turned, rows);
                for (part, whole) in part.iter().zip(&whole) {
                    for r in 0..rows {
                        assert_eq!(part[r].to_bits(), whole[(r + 5) % TILE].to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn plain_arithmetic_computes_the_same() {
        let mut rng = Rng::new(4);
        for inputs in [1, 2, 7, 200, 501] {
            for outputs in 1..=PANEL {
                let (weight, bias) = (normal(inputs * outputs, &mut rng), normal(outputs, &mut rng));
                let layer = Rounded::new(&weight, &bias);
                let mut x = vec![Pairs([0; TILE]); inputs.div_ceil(2)];
                round(&tile(inputs, &mut rng), &mut x);
                for registers in [1, 2] {
                    let (mut here, mut plain) = (vec![[0.0; TILE]; outputs], vec![[0.0; TILE]; outputs]);
                    products(&layer.weight, &bias, &x, &mut here, registers);
                    portable(&layer.weight, &bias, &x, &mut plain, registers);
                    assert_eq!(here, plain, "{inputs} to {outputs}");
                }
            }
        }
    }

    #[test]
    fn nan_and_infinity_stay() {
        for (x, want) in [(f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY), (f32::MIN, f32::NEG_INFINITY)] {
            for place in 0..3 {
                let mut tile = vec![[1.0; TILE]; 3];
                tile[place][7] = x;
                let y = run(&Rounded::new(&[1.0; 3], &[0.0]), None, &tile, TILE);
                assert_eq!((y[0][6], y[0][8]), (3.0, 3.0));
                assert!(y[0][7] == want || y[0][7].is_nan() && want.is_nan(), "{x}: {}", y[0][7]);
            }
        }
    }
}
