//! Columns of a tile, and elementary functions on them: for writing [`Features`](crate::Features) and [`Known`](crate::Known)
//! that cost little compared with a network.
//!
//! ```
//! use mbrl_env::lanes::{self, Lanes, TILE};
//!
//! // Of 32 arms of length 2 at their angles the heights of the hands.
//! let angles: Lanes = std::array::from_fn(|r| 0.1 * r as f32);
//! let (mut sin, mut cos) = ([0.0; TILE], [0.0; TILE]);
//! lanes::sin_cos_of(&angles, &mut sin, &mut cos);
//! assert!((2.0 * sin[3] - 2.0 * 0.3f32.sin()).abs() < 1e-6);
//! ```

use std::f32::consts::FRAC_2_PI;

use multiversion::multiversion;

pub use crate::knowledge::{Lanes, TILE};

/// Adding and subtracting 1.5·2²³ rounds to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// Sine and cosine (Cephes `sinf`, `cosf`), to about one unit in the last place of an `f32`, for arguments up to ±8192; beyond, they stay
/// at the values there. Branch-free and without calls, so that a loop over it is vectorised. Every processor gives the
/// same bits.
#[must_use]
#[inline(always)]
pub fn sin_cos(x: f32) -> (f32, f32) {
    let x = x.clamp(-8192.0, 8192.0);
    let rounded = x * FRAC_2_PI + ROUND;
    let n = rounded - ROUND;
    // π/2 in three parts, so that the products are exact.
    let r = ((x - n * 1.570_312_5) - n * 4.837_513e-4) - n * 7.549_79e-8;
    let z = r * r;
    let s = ((z * -1.951_529_6e-4 + 8.332_161e-3) * z - 1.666_665_5e-1) * z * r + r;
    let c = ((z * 2.443_315_7e-5 - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    // The sum's last bits are those of n.
    let quadrant = rounded.to_bits();
    // All ones where sine and cosine are swapped.
    let swap = (quadrant & 1).wrapping_neg();
    let pick = |this: f32, other: f32| f32::from_bits((this.to_bits() & !swap) | (other.to_bits() & swap));
    let (a, b) = (pick(s, c), pick(c, s));
    let flip = |v: f32, when: u32| f32::from_bits(v.to_bits() ^ ((when & 2) << 30));
    (flip(a, quadrant), flip(b, quadrant.wrapping_add(1)))
}

/// [`sin_cos`] of a whole column.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2", "x86_64+avx2"))]
pub fn sin_cos_of(x: &Lanes, sin: &mut Lanes, cos: &mut Lanes) {
    for ((x, sin), cos) in x.iter().zip(sin).zip(cos) {
        (*sin, *cos) = sin_cos(*x);
    }
}
