//! Noise in bulk: random numbers as a function of (key, step, row, dimension).
//!
//! Not of threads, blocks or devices: the loop over `sample`, the fused engine and every backend draw the same numbers.
//! Philox4x32-10 with the counter (row, block of four dimensions, step, stream) makes four uniform words, two Box-Muller
//! pairs make four normals of them.

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) mod device;

use std::f32::consts::SQRT_2;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::tensor::{Device, Tensor, TensorData};
use multiversion::multiversion;

use crate::vmath::{ln, sin_cos};

/// Rows that are drawn side by side, one a vector lane.
const LANES: usize = 16;
/// Sets normals apart from other uses of the same key.
pub(crate) const STREAM: u32 = 0x6d62_726c;

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Distribution {
    /// Standard normals.
    Normal,
    /// Uniform in (0, 1), both ends excluded.
    Uniform,
    /// Standard normals, given that they lie within ± `limit`: uniform numbers through the inverse distribution function.
    Truncated { limit: f32, mass: f32 },
}

impl Distribution {
    /// Sets the uses of a key apart.
    fn stream(self) -> u32 {
        match self {
            Self::Normal => STREAM,
            Self::Uniform | Self::Truncated { .. } => STREAM + 1,
        }
    }
}

/// Which rows are drawn for: `count` of them, where each run of `candidates` stands at `first` of its own `population` of rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) count: usize,
    pub(crate) candidates: usize,
    pub(crate) population: usize,
    pub(crate) first: usize,
}

/// Standard normals `[rows, dims]`, made on `device`; on a CPU those of [`fill_normal`] at step 0 to the bit, on a GPU up to
/// rounding.
///
/// On GPUs this needs the crate's feature `wgpu` or `cuda`; without it, numbers are made on the host and uploaded.
///
/// ```
/// use burn::tensor::Device;
/// let noise = mbrl_model::normals(7, [350, 30 * 6], &Device::flex());
/// assert_eq!(noise.dims(), [350, 180]);
/// ```
#[must_use]
pub fn normals(key: u64, [rows, dims]: [usize; 2], device: &Device) -> Tensor<2> {
    draw(Distribution::Normal, key, 0, Rows::whole(rows), dims, device)
}

/// Uniform numbers in (0, 1) `[rows, dims]`, made on `device` as [`normals`] are: odd multiples of 2⁻²⁴.
#[must_use]
pub fn uniforms(key: u64, [rows, dims]: [usize; 2], device: &Device) -> Tensor<2> {
    draw(Distribution::Uniform, key, 0, Rows::whole(rows), dims, device)
}

/// Standard normals `[rows, dims]`, given that they lie within ±`limit`, made on `device` as [`normals`] are.
///
/// By the inverse of the distribution function: one draw each and no rejection, so that every device draws the same. An
/// infinite limit gives [`normals`].
///
/// # Panics
/// If the limit is not above 0.
///
/// ```
/// use burn::tensor::Device;
/// let noise = mbrl_model::truncated_normals(7, [350, 30 * 6], 2.0, &Device::flex());
/// assert!(noise.abs().max().into_scalar::<f32>() <= 2.0);
/// ```
#[must_use]
pub fn truncated_normals(key: u64, [rows, dims]: [usize; 2], limit: f32, device: &Device) -> Tensor<2> {
    assert!(limit > 0.0, "normals truncated at {limit}: expected a limit above 0");
    let distribution = if limit.is_infinite() {
        Distribution::Normal
    } else {
        Distribution::Truncated { limit, mass: erf(f64::from(limit) * FRAC_1_SQRT_2) as f32 }
    };
    draw(distribution, key, 0, Rows::whole(rows), dims, device)
}

/// The error function of a number from 0 on, by its power series; 1 where it is that in single precision.
fn erf(x: f64) -> f64 {
    if x > 4.0 {
        return 1.0;
    }
    let (mut power, mut sum) = (x, x);
    for n in 1..100 {
        power *= -x * x / f64::from(n);
        sum += power / f64::from(2 * n + 1);
    }
    FRAC_2_SQRT_PI * sum
}

impl Rows {
    /// All rows of a population.
    fn whole(count: usize) -> Self {
        Self { count, candidates: count, population: count, first: 0 }
    }
}

/// Noise `[rows, dims]`.
pub(crate) fn draw(
    distribution: Distribution,
    key: u64,
    step: u32,
    rows: Rows,
    dims: usize,
    device: &Device,
) -> Tensor<2> {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let Some(noise) = device::draw(distribution, key, step, rows, dims, device) {
        return noise;
    }
    let mut noise = vec![0f32; rows.count * dims];
    for (run, noise) in noise.chunks_mut((rows.candidates * dims).max(1)).enumerate() {
        fill_rows(distribution, key, step, (run * rows.population + rows.first) as u32, dims, noise);
    }
    Tensor::from_data(TensorData::new(noise, [rows.count, dims]), device)
}

/// Writes the normals of rows `first_row..first_row + out.len() / dims` at `step` into `out`, `[rows, dims]`.
///
/// ```
/// use mbrl_model::fill_normal;
/// let (mut all, mut part) = (vec![0.0; 6 * 3], vec![0.0; 2 * 3]);
/// fill_normal(7, 0, 0, 3, &mut all);
/// fill_normal(7, 0, 4, 3, &mut part); // rows 4 and 5 alone
/// assert_eq!(all[4 * 3..], part);
/// ```
///
/// # Panics
/// If `dims` does not divide the length of `out`.
pub fn fill_normal(key: u64, step: u32, first_row: usize, dims: usize, out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    assert!(dims > 0 && out.len().is_multiple_of(dims), "noise of {} values in rows of {dims}", out.len());
    fill_rows(Distribution::Normal, key, step, first_row as u32, dims, out);
}

fn fill_rows(distribution: Distribution, key: u64, step: u32, first_row: u32, dims: usize, out: &mut [f32]) {
    match distribution {
        Distribution::Normal => fill::<NORMAL>(key, step, first_row, dims, [0.0; 2], out),
        Distribution::Uniform => fill::<UNIFORM>(key, step, first_row, dims, [0.0; 2], out),
        Distribution::Truncated { limit, mass } => fill::<TRUNCATED>(key, step, first_row, dims, [limit, mass], out),
    }
}

/// [`Distribution`]s, where they must be known when the code is compiled.
const NORMAL: u32 = 0;
const UNIFORM: u32 = 1;
const TRUNCATED: u32 = 2;

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn fill<const KIND: u32>(key: u64, step: u32, first_row: u32, dims: usize, [limit, mass]: [f32; 2], out: &mut [f32]) {
    for (group, rows) in out.chunks_mut(LANES * dims).enumerate() {
        let row = first_row.wrapping_add((group * LANES) as u32);
        for block in 0..dims.div_ceil(4) {
            let drawn = match KIND {
                NORMAL => four_normals(key, step, row, block as u32),
                UNIFORM => four_uniforms(key, step, row, block as u32),
                _ => four_uniforms(key, step, row, block as u32).map(|u| u.map(|u| truncated(u, limit, mass))),
            };
            let width = (dims - 4 * block).min(4);
            for (lane, values) in rows.chunks_exact_mut(dims).enumerate() {
                for d in 0..width {
                    values[4 * block + d] = drawn[d][lane];
                }
            }
        }
    }
}

/// The normals of a tile of rows, dimension by dimension: of row `first_row + r` and dimension `d` in `out[d][r]`, for the
/// first `rows` of its rows (others may be written too). To be inlined where the processor's registers are known.
#[inline(always)]
pub(crate) fn fill_normal_lanes<const TILE: usize>(
    key: u64,
    step: u32,
    first_row: u32,
    rows: usize,
    out: &mut [[f32; TILE]],
) {
    for (block, out) in out.chunks_mut(4).enumerate() {
        for from in (0..rows).step_by(LANES) {
            let normals = four_normals(key, step, first_row.wrapping_add(from as u32), block as u32);
            for (out, normals) in out.iter_mut().zip(&normals) {
                out[from..from + LANES].copy_from_slice(normals);
            }
        }
    }
}

/// Random words of a tile of rows: four of each, for a block of four dimensions.
#[inline(always)]
pub(crate) fn fill_words_lanes<const TILE: usize>(
    key: u64,
    step: u32,
    first_row: u32,
    block: u32,
    out: &mut [[u32; TILE]; 4],
) {
    for from in (0..TILE).step_by(LANES) {
        let words = philox_lanes(key, step, first_row.wrapping_add(from as u32), block, STREAM + 2);
        for (out, words) in out.iter_mut().zip(&words) {
            out[from..from + LANES].copy_from_slice(words);
        }
    }
}

/// Four random words of a row, of a stream apart from that of [`fill_words_lanes`].
pub(crate) fn four_words(key: u64, step: u32, row: u32, block: u32) -> [u32; 4] {
    mbrl_env::philox4x32([row, block, step, STREAM + 3], [key as u32, (key >> 32) as u32])
}

/// Four normals for each of [`LANES`] rows.
#[inline(always)]
fn four_normals(key: u64, step: u32, row: u32, block: u32) -> [[f32; LANES]; 4] {
    let words = philox_lanes(key, step, row, block, Distribution::Normal.stream());
    let mut normals = [[0.0; LANES]; 4];
    for pair in 0..2 {
        for lane in 0..LANES {
            // 24 bits: in (0, 1], so that the logarithm is finite, and in [0, 1).
            let u = ((words[2 * pair][lane] >> 8) + 1) as i32 as f32 * (1.0 / 16_777_216.0);
            let v = (words[2 * pair + 1][lane] >> 8) as i32 as f32 * (1.0 / 16_777_216.0);
            let radius = (-2.0 * ln(u)).max(0.0).sqrt();
            let (sin, cos) = sin_cos(std::f32::consts::TAU * v);
            normals[2 * pair][lane] = radius * cos;
            normals[2 * pair + 1][lane] = radius * sin;
        }
    }
    normals
}

/// Four uniform numbers for each of [`LANES`] rows.
#[inline(always)]
fn four_uniforms(key: u64, step: u32, row: u32, block: u32) -> [[f32; LANES]; 4] {
    let words = philox_lanes(key, step, row, block, Distribution::Uniform.stream());
    // 23 bits and a half: exact, in (0, 1), symmetric.
    words.map(|words| words.map(|word| ((word >> 9) as i32 as f32 + 0.5) * (1.0 / 8_388_608.0)))
}

/// Where the standard normals within ±`limit`, whose probability is `mass`, have a share of `u` below.
#[inline(always)]
fn truncated(u: f32, limit: f32, mass: f32) -> f32 {
    let p = (2.0 * u - 1.0) * mass;
    (inverse_erf(p) * SQRT_2).clamp(-limit, limit)
}

/// The inverse error function within (−1, 1), to 4e-7 of its value.
///
/// Polynomials of Giles (2012), *Approximating the erfinv function*, GPU Computing Gems, single precision.
#[inline(always)]
fn inverse_erf(p: f32) -> f32 {
    let w = -ln((1.0 - p) * (1.0 + p));
    let (a, b) = (w - 2.5, w.max(5.0).sqrt() - 3.0);
    let middle = MIDDLE.iter().fold(0.0, |sum, c| sum * a + c);
    let ends = ENDS.iter().fold(0.0, |sum, c| sum * b + c);
    p * if w < 5.0 { middle } else { ends }
}

const MIDDLE: [f32; 9] = [
    2.810_226_4e-8,
    3.432_739_4e-7,
    -3.523_387_7e-6,
    -4.391_506_5e-6,
    2.185_808_7e-4,
    -1.253_725e-3,
    -4.177_681_6e-3,
    0.246_640_73,
    1.501_409_4,
];
const ENDS: [f32; 9] = [
    -2.002_142_6e-4,
    1.009_505_6e-4,
    1.349_343_2e-3,
    -3.673_428_4e-3,
    5.739_507_7e-3,
    -7.622_461_3e-3,
    9.438_870_5e-3,
    1.001_674,
    2.832_976_8,
];

/// [`mbrl_env::philox4x32`] for [`LANES`] rows at once, laid out so that it vectorises.
#[inline(always)]
fn philox_lanes(key: u64, step: u32, row: u32, block: u32, stream: u32) -> [[u32; LANES]; 4] {
    const M: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    let (mut k0, mut k1) = (key as u32, (key >> 32) as u32);
    let mut c = [[0u32; LANES], [block; LANES], [step; LANES], [stream; LANES]];
    for (lane, r) in c[0].iter_mut().enumerate() {
        *r = row.wrapping_add(lane as u32);
    }
    for _ in 0..10 {
        #[expect(clippy::needless_range_loop, reason = "four arrays in step: this form vectorises")]
        for lane in 0..LANES {
            let p0 = M[0] * u64::from(c[0][lane]);
            let p1 = M[1] * u64::from(c[2][lane]);
            c[0][lane] = (p1 >> 32) as u32 ^ c[1][lane] ^ k0;
            c[1][lane] = p1 as u32;
            c[2][lane] = (p0 >> 32) as u32 ^ c[3][lane] ^ k1;
            c[3][lane] = p0 as u32;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_philox() {
        let lanes = philox_lanes(0x0123_4567_89ab_cdef, 3, 40, 2, STREAM);
        for lane in 0..LANES {
            let one = mbrl_env::philox4x32([40 + lane as u32, 2, 3, STREAM], [0x89ab_cdef, 0x0123_4567]);
            assert_eq!(lanes.map(|word| word[lane]), one);
        }
    }

    #[test]
    fn every_part_is_a_part_of_the_whole() {
        for dims in [1, 3, 4, 7, 18] {
            let mut all = vec![0.0; 100 * dims];
            fill_normal(11, 5, 0, dims, &mut all);
            for (from, rows) in [(0, 1), (1, 33), (17, 16), (99, 1)] {
                let mut part = vec![0.0; rows * dims];
                fill_normal(11, 5, from, dims, &mut part);
                assert_eq!(part, all[from * dims..(from + rows) * dims]);
            }
        }
    }

    #[test]
    fn tiles_hold_the_same_normals() {
        for (dims, rows) in [(1, 32), (6, 20), (17, 3)] {
            let mut by_row = vec![0.0; rows * dims];
            fill_normal(11, 5, 40, dims, &mut by_row);
            let mut lanes = vec![[0.0; 32]; dims];
            fill_normal_lanes(11, 5, 40, rows, &mut lanes);
            for r in 0..rows {
                for d in 0..dims {
                    assert_eq!(lanes[d][r], by_row[r * dims + d]);
                }
            }
        }
    }

    fn devices() -> Vec<Device> {
        vec![
            Device::flex(),
            #[cfg(feature = "wgpu")]
            Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
            #[cfg(feature = "cuda")]
            Device::cuda(0),
        ]
    }

    #[test]
    fn every_device_makes_the_same_noise() {
        for device in devices() {
            for (count, candidates, population, first, dims) in
                [(1, 1, 1, 0, 1), (70, 70, 70, 0, 3), (60, 20, 50, 7, 18), (5000, 5000, 5000, 0, 4), (0, 0, 0, 0, 4)]
            {
                let truncated = |limit, mass| Distribution::Truncated { limit, mass };
                let truncated = [truncated(2.0, 0.954_499_7), truncated(6.0, 1.0)];
                for distribution in [Distribution::Normal, Distribution::Uniform].into_iter().chain(truncated) {
                    let key = 0x0123_4567_89ab_cdef;
                    let rows = Rows { count, candidates, population, first };
                    let made = crate::ensemble::to_vec(draw(distribution, key, 3, rows, dims, &device));
                    // One row after the other.
                    let mut wanted = vec![0.0; count * dims];
                    for (row, out) in wanted.chunks_mut(dims).enumerate() {
                        let of_all = row / candidates * population + first + row % candidates;
                        fill_rows(distribution, key, 3, of_all as u32, dims, out);
                    }
                    // Normals reach 5.8: a few units in the last place of such numbers. Uniform numbers are exact.
                    let bound = if distribution == Distribution::Uniform { 0.0 } else { 3e-6 };
                    // Not the largest difference: a maximum hides a NaN.
                    let near = made.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= bound);
                    assert!(made.len() == wanted.len() && near, "{distribution:?}, {count} x {dims} on {device:?}");
                }
            }
        }
    }

    #[test]
    fn uniform_numbers_are_uniform_and_never_at_the_ends() {
        let mut all = vec![0.0; 400_000];
        fill_rows(Distribution::Uniform, 5, 0, 0, 4, &mut all);
        assert!(all.iter().all(|u| *u > 0.0 && *u < 1.0));
        let mut counts = [0i32; 10];
        all.iter().for_each(|u| counts[(u * 10.0) as usize] += 1);
        // Standard deviation 190; five of them.
        assert!(counts.iter().all(|c| (c - 40_000).abs() < 950), "{counts:?}");
        let between_dims = all.chunks(4).map(|r| f64::from(r[0] - 0.5) * f64::from(r[1] - 0.5)).sum::<f64>() / 1e5;
        // Standard error 1/12/√1e5.
        assert!(between_dims.abs() < 5.0 * 2.7e-4, "{between_dims}");
        // Not the words of normals.
        let mut normals = vec![0.0; 400_000];
        fill_normal(5, 0, 0, 4, &mut normals);
        let product = all.iter().zip(&normals).map(|(u, n)| f64::from(u - 0.5) * f64::from(n.abs())).sum::<f64>() / 4e5;
        assert!(product.abs() < 5.0 * 0.29 / 4e5f64.sqrt(), "{product}");
    }

    #[test]
    fn truncated_normals_stay_inside_and_have_the_right_moments() {
        // Variance of a normal truncated at ±c: 1 − 2 c φ(c) / (2 Φ(c) − 1).
        for (limit, variance) in
            [(2.0, 0.773_741), (1.0, 0.291_125), (1.5, 0.551_528), (3.5, 0.993_886), (0.1, 0.003_329)]
        {
            let drawn = crate::ensemble::to_vec(truncated_normals(4, [1000, 200], limit, &Device::flex()));
            assert!(drawn.iter().all(|x| x.abs() <= limit));
            assert!(drawn.iter().any(|x| x.abs() > 0.95 * limit), "nothing near {limit}");
            let moment = |k: i32| drawn.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / drawn.len() as f64;
            // Standard errors of 200,000 draws: σ/447 of the mean; of the variance at most 0.0032 at 3.5, where the fourth
            // moment is 2.9.
            let std: f64 = f64::sqrt(variance);
            assert!(moment(1).abs() < 5.0 * std / 447.0, "mean {} at {limit}", moment(1));
            let error = 5.0 * ((moment(4) - moment(2).powi(2)) / 2e5).sqrt();
            assert!((moment(2) - variance).abs() < error, "variance {} at {limit}", moment(2));
        }
        let all = crate::ensemble::to_vec(truncated_normals(4, [1000, 200], f32::INFINITY, &Device::flex()));
        assert!(all.iter().any(|x| x.abs() > 4.0));
    }

    #[test]
    fn error_functions_undo_each_other() {
        for (x, value) in
            [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (9.0, 1.0)]
        {
            assert!((erf(x) - value).abs() < 1e-9, "erf({x}) = {}", erf(x));
        }
        for x in (0..=3400).map(|i| i as f32 * 1e-3) {
            let p = erf(f64::from(x)) as f32;
            // The rounding of p, times the slope of the inverse, beside its own error.
            let slope = f64::from(x * x).exp() / FRAC_2_SQRT_PI;
            let bound = 1e-6 * f64::from(x) + 1.2e-7 * slope * f64::from(p);
            assert!(f64::from((inverse_erf(p) - x).abs()) <= bound, "{} of erf({x})", inverse_erf(p));
        }
    }

    #[test]
    fn it_is_standard_normal_and_uncorrelated() {
        let (rows, dims) = (100_000, 4);
        let mut a = vec![0.0; rows * dims];
        let mut b = a.clone();
        fill_normal(1, 0, 0, dims, &mut a);
        fill_normal(1, 1, 0, dims, &mut b);
        let n = a.len() as f64;
        let moment = |k: i32| a.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n;
        // Standard errors with n = 4e5: 0.0016, 0.0022, 0.0061, 0.0155; five of each.
        assert!(moment(1).abs() < 0.008, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.011, "{}", moment(2));
        assert!(moment(3).abs() < 0.031, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.078, "{}", moment(4));
        let between_steps = a.iter().zip(&b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>() / n;
        let between_dims = a.chunks(4).map(|r| f64::from(r[0]) * f64::from(r[1])).sum::<f64>() / rows as f64;
        assert!(between_steps.abs() < 0.008 && between_dims.abs() < 0.016, "{between_steps} {between_dims}");
        let beyond = a.iter().filter(|v| v.abs() > 3.0).count() as f64 / n;
        assert!((beyond - 0.0027).abs() < 0.0005, "{beyond}");
    }
}
