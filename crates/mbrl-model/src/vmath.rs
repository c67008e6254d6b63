//! Elementary functions that vectorise: branch-free, without calls, to about one unit in the last place of an `f32`.
//!
//! The compiler turns a loop over them into vector code for whatever processor the calling function was compiled for
//! (see `multiversion` at the call sites). No fused multiply-add is written, so every processor gives the same bits.

use std::f32::consts::{LN_2, LOG2_E};

pub(crate) use mbrl_env::lanes::sin_cos;

/// Adding and subtracting 1.5·2²³ rounds to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// e^x for x in [−87, 88]; beyond, it stays at the value there.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let t = x.clamp(-87.0, 88.0) * LOG2_E;
    let n = (t + ROUND) - ROUND;
    let f = t - n;
    // Taylor series of 2^f on [-1/2, 1/2]; the first term left out is 1.2e-7.
    let p = f * 0.000_154_035_3 + 0.001_333_355_8;
    let p = f * p + 0.009_618_129;
    let p = f * p + 0.055_504_11;
    let p = f * p + 0.240_226_5;
    let p = f * p + LN_2;
    let p = f * p + 1.0;
    f32::from_bits((((n as i32) + 127) << 23) as u32) * p
}

/// Natural logarithm of a positive normal number (Cephes `logf`).
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    // Mantissa in [sqrt(1/2), sqrt(2)): subtract the bits of sqrt(1/2) before the exponent is cut off.
    let shifted = x.to_bits().wrapping_sub(0x3f35_04f3);
    let e = ((shifted as i32) >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let z = m * m;
    let p = m * 7.037_683_6e-2 - 1.151_461e-1;
    let p = m * p + 1.167_699_9e-1;
    let p = m * p - 1.242_014_1e-1;
    let p = m * p + 1.424_932_3e-1;
    let p = m * p - 1.666_805_8e-1;
    let p = m * p + 2.000_071_5e-1;
    let p = m * p - 2.499_999_4e-1;
    let p = m * p + 3.333_333e-1;
    let y = m * z * p - 2.121_944_4e-4 * e - 0.5 * z;
    m + y + 0.693_359_4 * e
}

/// ln(1 + e^x).
#[inline(always)]
pub(crate) fn softplus(x: f32) -> f32 {
    // `max` and the bit tricks of `ln` would hide a NaN.
    if x.is_nan() { x } else { x.max(0.0) + ln(1.0 + exp(-x.abs())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error over a grid, relative to max(|reference|, `floor`).
    fn worst(from: f32, to: f32, floor: f64, f: impl Fn(f32) -> f32, reference: impl Fn(f64) -> f64) -> f64 {
        let n = 200_001;
        (0..n)
            .map(|i| {
                let x = from + (to - from) * i as f32 / (n - 1) as f32;
                let want = reference(f64::from(x));
                (f64::from(f(x)) - want).abs() / want.abs().max(floor)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn elementary_functions_are_accurate() {
        // A unit in the last place is 6e-8 to 1.2e-7; the argument's own rounding adds |x| times that to an exponential.
        assert!(worst(-1.0, 1.0, 0.0, exp, f64::exp) < 4e-7);
        assert!(worst(-80.0, 80.0, 0.0, exp, f64::exp) < 6e-6);
        assert!(worst(1e-6, 10.0, 1e-2, ln, f64::ln) < 2e-6);
        assert!(worst(-4.0, 4.0, 1e-3, |x| sin_cos(x).0, f64::sin) < 3e-6);
        assert!(worst(-4.0, 4.0, 1e-3, |x| sin_cos(x).1, f64::cos) < 3e-6);
        assert!(worst(-8000.0, 8000.0, 1.0, |x| sin_cos(x).0, f64::sin) < 2e-6);
        assert!(worst(-8000.0, 8000.0, 1.0, |x| sin_cos(x).1, f64::cos) < 2e-6);
        assert!(worst(-15.0, 20.0, 1e-3, softplus, |x| x.exp().ln_1p()) < 2e-4);
        assert!(worst(-15.0, 20.0, 1.0, softplus, |x| x.exp().ln_1p()) < 5e-7);
    }

    #[test]
    fn extremes_stay_finite_and_nan_stays_nan() {
        for x in [-1e30f32, -200.0, 200.0, 1e30] {
            assert!(exp(x).is_finite() && softplus(-x.abs()) >= 0.0, "{x}");
        }
        for f in [exp, softplus] {
            assert!(f(f32::NAN).is_nan());
        }
        assert!(softplus(f32::NEG_INFINITY) == 0.0 && softplus(1e30) == 1e30);
        assert!(sin_cos(1e30).0.abs() <= 1.0 && sin_cos(f32::NAN).0.is_nan());
    }
}
