//! The noise of [`super`] made where it is used: one kernel, for every GPU that Burn computes on.
//!
//! Its words are the host's to the bit. Logarithm, sine and cosine are the host's polynomials, since those of a GPU may be off
//! by 2⁻¹¹; what still differs is what a compiler fuses.

use std::f32::consts::{FRAC_PI_2, SQRT_2};

use burn::{
    backend::{Dispatch, TensorMetadata, backend_extension, tensor::FloatTensor},
    tensor::{DType, Device, Tensor},
};
use burn_cubecl::{
    CubeBackend,
    cubecl::{self, calculate_cube_count_elemwise, prelude::*},
    ops::numeric::empty_device_contiguous_dtype,
};

use super::{Distribution, ENDS, MIDDLE, NORMAL, Rows, TRUNCATED, UNIFORM};

/// Noise `[rows, dims]` where `device` is one that Burn compiles kernels for, and computes in `f32`.
pub(super) fn draw(
    distribution: Distribution,
    key: u64,
    step: u32,
    rows: Rows,
    dims: usize,
    device: &Device,
) -> Option<Tensor<2>> {
    let device = &device.clone().without_autodiff();
    if !matches!(device.as_dispatch(), burn::backend::DispatchDevice::Cube(_)) {
        return None;
    }
    let like = Tensor::<2>::empty([rows.count, dims], device);
    // The kernel counts in 32 bits.
    if like.dtype() != DType::F32 || u32::try_from(rows.count * dims.next_multiple_of(4)).is_err() {
        return None;
    }
    if rows.count * dims == 0 {
        return Some(like);
    }
    Some(Tensor::from_dispatch(Dispatch::noise(like.into_dispatch(), distribution, key, step, rows)))
}

#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
trait Noise: burn::backend::Backend {
    /// Noise in the shape and on the device of `like`, whose values are not read.
    #[fusion(dtype = like, shape = like)]
    fn noise(like: FloatTensor<Self>, distribution: Distribution, key: u64, step: u32, rows: Rows)
    -> FloatTensor<Self>;
}

impl Noise for CubeBackend {
    fn noise(
        like: FloatTensor<Self>,
        distribution: Distribution,
        key: u64,
        step: u32,
        rows: Rows,
    ) -> FloatTensor<Self> {
        let shape = like.shape();
        let dims = shape[1];
        let out = empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, like.dtype);
        let units = rows.count * dims.div_ceil(4);
        let cube = CubeDim::new(&out.client, units);
        let (kind, limit, mass) = match distribution {
            Distribution::Normal => (NORMAL, 0.0, 0.0),
            Distribution::Uniform => (UNIFORM, 0.0, 0.0),
            Distribution::Truncated { limit, mass } => (TRUNCATED, limit, mass),
        };
        let cubes = calculate_cube_count_elemwise(&out.client, units, cube);
        fill::launch(
            &out.client,
            cubes,
            cube,
            out.clone().into_tensor_arg(),
            rows.count as u32,
            dims as u32,
            dims.div_ceil(4) as u32,
            rows.candidates as u32,
            rows.population as u32,
            rows.first as u32,
            step,
            distribution.stream(),
            key as u32,
            (key >> 32) as u32,
            limit,
            mass,
            kind,
        );
        out
    }
}

/// A unit for each row and block of four dimensions.
#[cube(launch)]
fn fill(
    out: &mut cubecl::prelude::Tensor<f32>,
    rows: u32,
    dims: u32,
    blocks: u32,
    candidates: u32,
    population: u32,
    first: u32,
    step: u32,
    stream: u32,
    key_low: u32,
    key_high: u32,
    limit: f32,
    mass: f32,
    #[comptime] kind: u32,
) {
    let unit = ABSOLUTE_POS as u32;
    if unit >= rows * blocks {
        terminate!();
    }
    let row = unit / blocks;
    let block = unit % blocks;
    // The number of the row in the whole population.
    let counted = row / candidates * population + first + row % candidates;
    let (c0, c1, c2, c3) = words(counted, block, step, stream, key_low, key_high);
    let at = (row * dims + 4 * block) as usize;
    let end = ((row + 1) * dims) as usize;
    if comptime!(kind == NORMAL) {
        let (a, b) = normals(c0, c1);
        let (c, d) = normals(c2, c3);
        put(out, at, end, a);
        put(out, at + 1, end, b);
        put(out, at + 2, end, c);
        put(out, at + 3, end, d);
    } else {
        put(out, at, end, single(c0, limit, mass, kind));
        put(out, at + 1, end, single(c1, limit, mass, kind));
        put(out, at + 2, end, single(c2, limit, mass, kind));
        put(out, at + 3, end, single(c3, limit, mass, kind));
    }
}

/// Four words of a row and a block of four dimensions (Philox4x32-10).
#[cube]
pub(crate) fn words(row: u32, block: u32, step: u32, stream: u32, key_low: u32, key_high: u32) -> (u32, u32, u32, u32) {
    let mut c0 = row;
    let mut c1 = block;
    let mut c2 = step;
    let mut c3 = stream;
    let mut k0 = key_low;
    let mut k1 = key_high;
    for _ in 0..10u32 {
        let high0 = u32::mul_hi(c0, 0xD251_1F53u32);
        let low0 = c0 * 0xD251_1F53u32;
        let high1 = u32::mul_hi(c2, 0xCD9E_8D57u32);
        let low1 = c2 * 0xCD9E_8D57u32;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E37_79B9u32;
        k1 += 0xBB67_AE85u32;
    }
    (c0, c1, c2, c3)
}

/// A number of one word.
#[cube]
fn single(word: u32, limit: f32, mass: f32, #[comptime] kind: u32) -> f32 {
    // The middle of one of 2²³ equal parts of (0, 1).
    let u = (f32::cast_from(word >> 9) + 0.5f32) * (1.0f32 / 8_388_608.0f32);
    if comptime!(kind == UNIFORM) { u } else { truncated(u, limit, mass) }
}

/// As [`super::truncated`].
#[cube]
fn truncated(u: f32, limit: f32, mass: f32) -> f32 {
    let p = (2.0f32 * u - 1.0f32) * mass;
    let w = -ln((1.0f32 - p) * (1.0f32 + p));
    let a = w - 2.5f32;
    let b = f32::sqrt(f32::max(w, 5.0f32)) - 3.0f32;
    let mut middle = 0.0f32;
    let mut ends = 0.0f32;
    #[unroll]
    for i in 0..9usize {
        middle = middle * a + comptime!(MIDDLE[i]);
        ends = ends * b + comptime!(ENDS[i]);
    }
    let x = p * select(w < 5.0f32, middle, ends) * SQRT_2;
    f32::max(f32::min(x, limit), -limit)
}

#[cube]
fn put(out: &mut cubecl::prelude::Tensor<f32>, at: usize, end: usize, value: f32) {
    if at < end {
        out[at] = value;
    }
}

/// Two normals of two words (Box-Muller).
#[cube]
pub(crate) fn normals(first: u32, second: u32) -> (f32, f32) {
    let u = f32::cast_from((first >> 8) + 1) * (1.0f32 / 16_777_216.0f32);
    let v = f32::cast_from(second >> 8) * (1.0f32 / 16_777_216.0f32);
    let radius = f32::sqrt(f32::max(-2.0f32 * ln(u), 0.0f32));
    // Quarters of a turn, and what is left of one around its middle.
    let quarter = f32::floor(v * 4.0f32 + 0.5f32);
    let r = (v * 4.0f32 - quarter) * FRAC_PI_2;
    let z = r * r;
    let sin = ((z * -1.951_529_6e-4f32 + 8.332_161e-3f32) * z - 1.666_665_5e-1f32) * z * r + r;
    let cos = ((z * 2.443_315_7e-5f32 - 1.388_731_6e-3f32) * z + 4.166_664_6e-2f32) * z * z - 0.5f32 * z + 1.0f32;
    let quadrant = u32::cast_from(quarter);
    let swap = quadrant & 1 == 1;
    let a = select(swap, cos, sin);
    let b = select(swap, sin, cos);
    (radius * select((quadrant + 1) & 2 == 2, -b, b), radius * select(quadrant & 2 == 2, -a, a))
}

/// As [`crate::vmath::ln`].
#[cube]
pub(crate) fn ln(x: f32) -> f32 {
    let shifted = u32::reinterpret(x) - 0x3f35_04f3u32;
    let e = f32::cast_from(i32::reinterpret(shifted) >> 23);
    let m = f32::reinterpret((shifted & 0x007f_ffffu32) + 0x3f35_04f3u32) - 1.0f32;
    let z = m * m;
    let p = m * 7.037_683_6e-2f32 - 1.151_461e-1f32;
    let p = m * p + 1.167_699_9e-1f32;
    let p = m * p - 1.242_014_1e-1f32;
    let p = m * p + 1.424_932_3e-1f32;
    let p = m * p - 1.666_805_8e-1f32;
    let p = m * p + 2.000_071_5e-1f32;
    let p = m * p - 2.499_999_4e-1f32;
    let p = m * p + 3.333_333e-1f32;
    let y = m * z * p - 2.121_944_4e-4f32 * e - 0.5f32 * z;
    m + y + 0.693_359_4f32 * e
}
