//! Layer norm of a tile, forward and back.

use pulp::Simd;

use super::kernel::{Columns, Lanes, TILE, dispatched};

/// Added to the variance of a layer before its root is taken (PyTorch's and Burn's default).
pub(crate) const VARIANCE_FLOOR: f32 = 1e-5;

/// Gain and shift of a normalised layer.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) gain: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

/// What a tile keeps of a normalised layer, for the backward pass.
#[derive(Debug, Default, Clone)]
pub(crate) struct NormTape {
    /// Units less their mean, over their standard deviation, `[out]`.
    pub(crate) standard: Columns,
    /// 1 over the standard deviation of each row's units, one feature.
    pub(crate) scale: Columns,
    /// Gradients of gains and shifts, summed over the tile's rows.
    pub(crate) gradients: [Vec<f32>; 2],
}

dispatched! {
    /// [`forward`].
    run_forward<'a> = forward { norm: &'a Norm, units: &'a mut [Lanes], tape: Option<&'a mut NormTape> }
}
dispatched! {
    /// [`backward`].
    run_backward<'a> = backward { norm: &'a Norm, tape: &'a NormTape, gradients: &'a mut [Lanes] }
}
dispatched! {
    /// [`tangent`].
    run_tangent<'a> = tangent { norm: &'a Norm, tape: &'a NormTape, change: &'a Norm, units: &'a mut [Lanes] }
}
dispatched! {
    /// [`sum`].
    run_sum<'a> = sum { tape: &'a mut NormTape, gradients: &'a [Lanes] }
}

/// Normalises units in place.
#[inline(always)]
fn forward<S: Simd>(simd: S, norm: &Norm, units: &mut [Lanes], tape: Option<&mut NormTape>) {
    let per_tile = TILE / S::F32_LANES;
    let share = simd.splat_f32s(1.0 / units.len() as f32);
    let floor = simd.splat_f32s(VARIANCE_FLOOR);
    let one = simd.splat_f32s(1.0);
    let mut tape = tape;
    if let Some(tape) = &mut tape {
        tape.standard.resize(units.len());
        tape.scale.resize(1);
    }
    let (x, _) = S::as_mut_simd_f32s(units.as_flattened_mut());
    for v in 0..per_tile {
        let mut mean = simd.splat_f32s(0.0);
        for x in x.chunks_exact(per_tile) {
            mean = simd.add_f32s(mean, x[v]);
        }
        mean = simd.mul_f32s(mean, share);
        let mut variance = simd.splat_f32s(0.0);
        for x in x.chunks_exact_mut(per_tile) {
            x[v] = simd.sub_f32s(x[v], mean);
            variance = simd.mul_add_e_f32s(x[v], x[v], variance);
        }
        let scale = simd.div_f32s(one, simd.sqrt_f32s(simd.mul_add_e_f32s(variance, share, floor)));
        if let Some(tape) = &mut tape {
            S::as_mut_simd_f32s(tape.scale.as_flattened_mut()).0[v] = scale;
            let (standard, _) = S::as_mut_simd_f32s(tape.standard.as_flattened_mut());
            for (standard, x) in standard.chunks_exact_mut(per_tile).zip(x.chunks_exact(per_tile)) {
                standard[v] = simd.mul_f32s(x[v], scale);
            }
        }
        for ((x, gain), shift) in x.chunks_exact_mut(per_tile).zip(&norm.gain).zip(&norm.shift) {
            let standard = simd.mul_f32s(x[v], scale);
            x[v] = simd.mul_add_e_f32s(standard, simd.splat_f32s(*gain), simd.splat_f32s(*shift));
        }
    }
}

/// Gradients of what came out become those of what went in.
#[inline(always)]
fn backward<S: Simd>(simd: S, norm: &Norm, tape: &NormTape, gradients: &mut [Lanes]) {
    let per_tile = TILE / S::F32_LANES;
    let share = simd.splat_f32s(-1.0 / gradients.len() as f32);
    let (g, _) = S::as_mut_simd_f32s(gradients.as_flattened_mut());
    let (standard, _) = S::as_simd_f32s(tape.standard.as_flattened());
    let (scale, _) = S::as_simd_f32s(tape.scale.as_flattened());
    for v in 0..per_tile {
        let (mut sum, mut along) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for ((g, x), gain) in g.chunks_exact_mut(per_tile).zip(standard.chunks_exact(per_tile)).zip(&norm.gain) {
            g[v] = simd.mul_f32s(g[v], simd.splat_f32s(*gain));
            sum = simd.add_f32s(sum, g[v]);
            along = simd.mul_add_e_f32s(g[v], x[v], along);
        }
        let (sum, along) = (simd.mul_f32s(sum, share), simd.mul_f32s(along, share));
        for (g, x) in g.chunks_exact_mut(per_tile).zip(standard.chunks_exact(per_tile)) {
            let centred = simd.mul_add_e_f32s(x[v], along, simd.add_f32s(g[v], sum));
            g[v] = simd.mul_f32s(centred, scale[v]);
        }
    }
}

/// A change of what goes in becomes the change of what comes out, with changes of gain and shift.
#[inline(always)]
fn tangent<S: Simd>(simd: S, norm: &Norm, tape: &NormTape, change: &Norm, units: &mut [Lanes]) {
    let per_tile = TILE / S::F32_LANES;
    let share = simd.splat_f32s(-1.0 / units.len() as f32);
    let (t, _) = S::as_mut_simd_f32s(units.as_flattened_mut());
    let (standard, _) = S::as_simd_f32s(tape.standard.as_flattened());
    let (scale, _) = S::as_simd_f32s(tape.scale.as_flattened());
    for v in 0..per_tile {
        let (mut sum, mut along) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for (t, x) in t.chunks_exact(per_tile).zip(standard.chunks_exact(per_tile)) {
            sum = simd.add_f32s(sum, t[v]);
            along = simd.mul_add_e_f32s(t[v], x[v], along);
        }
        let (sum, along) = (simd.mul_f32s(sum, share), simd.mul_f32s(along, share));
        let learned = norm.gain.iter().zip(&change.gain).zip(&change.shift);
        for ((t, x), ((gain, gain_change), shift_change)) in
            t.chunks_exact_mut(per_tile).zip(standard.chunks_exact(per_tile)).zip(learned)
        {
            let centred = simd.mul_add_e_f32s(x[v], along, simd.add_f32s(t[v], sum));
            let moved = simd.mul_f32s(centred, simd.mul_f32s(scale[v], simd.splat_f32s(*gain)));
            let by_gain = simd.mul_add_e_f32s(x[v], simd.splat_f32s(*gain_change), simd.splat_f32s(*shift_change));
            t[v] = simd.add_f32s(moved, by_gain);
        }
    }
}

/// Gradients of gains and shifts, from those of what came out, summed over the tile's rows.
#[inline(always)]
fn sum<S: Simd>(simd: S, tape: &mut NormTape, gradients: &[Lanes]) {
    let [gains, shifts] = &mut tape.gradients;
    gains.clear();
    shifts.clear();
    for (g, x) in gradients.iter().zip(&*tape.standard) {
        let (mut gain, mut shift) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for (g, x) in S::as_simd_f32s(g).0.iter().zip(S::as_simd_f32s(x).0) {
            gain = simd.mul_add_e_f32s(*g, *x, gain);
            shift = simd.add_f32s(shift, *g);
        }
        gains.push(simd.reduce_sum_f32s(gain));
        shifts.push(simd.reduce_sum_f32s(shift));
    }
}
