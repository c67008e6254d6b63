//! # Coloured noise: Gaussian sequences with a power-law spectrum
//!
//! The effect of white noise on a machine averages out within a few steps. Noise whose power falls with the frequency as
//! f^−β pushes in one direction for longer, and so reaches states that white noise of the same spread never reaches.
//!
//! | `colorednoise.powerlaw_psd_gaussian` \[1\] | here |
//! |---|---|
//! | `exponent` | `exponent`, β |
//! | `size[-1]` | `horizon`, H |
//! | `fmin = 0`, raised to 1/H | the same: the constant part has the power of the slowest oscillation, 1/H |
//!
//! Difference from the package: the variance at each step is 1. The package leaves the constant part out of its normalisation, so
//! that its variance at a large β is 1.25 (the version of 2020) or 1.5 (later ones, in which the constant part is drawn
//! with its full power, as here). With a standard deviation taken from the settings of iCEM's authors, the noise is therefore
//! smaller here, by a factor of up to √1.25.
//!
//! ## References
//! \[1\] Timmer, König (1995), *On generating power law noise*, Astronomy and Astrophysics 300, 707-710, as in the
//! Python package `colorednoise`.

use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor};
use mbrl_env::Rng;
use mbrl_model::normals;

use crate::{PlanError, error::require, host::to_device};

/// Stationary Gaussian noise in time with mean 0, variance 1 and a power spectrum proportional to f^−β, independent
/// from one sample and action dimension to another.
///
/// ```
/// use mbrl_plan::{ColouredNoise, Device, Rng};
///
/// let noise = ColouredNoise::new(2.0, 30)?;
/// let sequences = noise.sample(100, 4, &Device::flex(), &mut Rng::new(0));
/// assert_eq!(sequences.dims(), [100, 30, 4]);
/// # Ok::<(), mbrl_plan::PlanError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ColouredNoise {
    horizon: usize,
    /// Oscillations `[H, H]`, one per row, each scaled by its share of the power: a sequence is their sum weighted by
    /// standard normals. `None` for white noise.
    basis: Option<Vec<f32>>,
}

impl ColouredNoise {
    /// Noise over `horizon` steps with a spectrum of f^−`exponent`: 0 is white, 1 pink, 2 brown.
    ///
    /// # Errors
    /// [`PlanError::Config`] for a horizon of 0, or an exponent that is negative or not finite.
    pub fn new(exponent: f32, horizon: usize) -> Result<Self, PlanError> {
        require(horizon > 0, "horizon", horizon, "at least one step")?;
        require(exponent.is_finite() && exponent >= 0.0, "noise_exponent", exponent, "a finite number of at least 0")?;
        Ok(Self { horizon, basis: (exponent > 0.0).then(|| basis(f64::from(exponent), horizon)) })
    }

    /// Sequences for `width` dimensions, `[population, H, width]`, made on `device`; `H²` multiplications per dimension unless
    /// white.
    #[must_use]
    pub fn sample(&self, population: usize, width: usize, device: &Device, rng: &mut Rng) -> Tensor<3> {
        let shape = [population, self.horizon, width];
        match &self.basis {
            None => white(shape, device, rng),
            Some(basis) => mixed(basis, shape, device, rng),
        }
    }
}

/// Standard normals of the shape `[K, H, A]`.
pub(crate) fn white([population, horizon, width]: [usize; 3], device: &Device, rng: &mut Rng) -> Tensor<3> {
    normals(rng.key(), [population, horizon * width], device).reshape([population, horizon, width])
}

/// Sequences `[K, H, A]`, each the sum of the rows of `basis` `[H, H]` weighted by standard normals.
pub(crate) fn mixed(
    basis: &[f32],
    [population, horizon, width]: [usize; 3],
    device: &Device,
    rng: &mut Rng,
) -> Tensor<3> {
    let weights = normals(rng.key(), [population * width, horizon], device);
    let sequences = weights.matmul(to_device(basis.to_vec(), [horizon, horizon], device));
    sequences.reshape([population, width, horizon]).swap_dims(1, 2)
}

/// The constant, a cosine and a sine for each frequency k/H between 0 and 1/2, and for even H the alternation, of
/// frequency 1/2. A cosine and its sine share the power k^−β; the constant and the alternation, which have no partner,
/// stand for half of theirs, so that β = 0 gives white noise.
fn basis(exponent: f64, horizon: usize) -> Vec<f32> {
    let alone = |k: usize| k == 0 || 2 * k == horizon;
    // Relative to the slowest oscillation, so that nothing overflows, however large the exponent is.
    let share = |k: usize| (k.max(1) as f64).powf(-exponent) * if alone(k) { 0.5 } else { 1.0 };
    // At each step the squares of a pair sum to its share, as the square of a lone one does.
    let total: f64 = (0..=horizon / 2).map(share).sum();
    let mut rows = Vec::with_capacity(horizon * horizon);
    for k in 0..=horizon / 2 {
        let amplitude = (share(k) / total).sqrt();
        let quarters: &[f64] = if alone(k) { &[0.0] } else { &[0.0, 0.25] };
        for quarter in quarters {
            let turns = |t: usize| (k * t % horizon) as f64 / horizon as f64 - quarter;
            rows.extend((0..horizon).map(|t| (amplitude * (TAU * turns(t)).cos()) as f32));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::to_host;

    fn draws(exponent: f32, horizon: usize, count: usize) -> Vec<Vec<f32>> {
        let (noise, mut rng) = (ColouredNoise::new(exponent, horizon).unwrap(), Rng::new(5));
        rows(noise.sample(count, 1, &Device::flex(), &mut rng))
    }

    fn rows(sequences: Tensor<3>) -> Vec<Vec<f32>> {
        let [_, horizon, width] = sequences.dims();
        to_host(sequences).chunks(horizon * width).map(<[f32]>::to_vec).collect()
    }

    /// Mean of the product of steps `s` and `t`.
    fn covariance(draws: &[Vec<f32>], s: usize, t: usize) -> f64 {
        draws.iter().map(|x| f64::from(x[s]) * f64::from(x[t])).sum::<f64>() / draws.len() as f64
    }

    #[test]
    fn every_step_has_mean_0_and_variance_1_at_any_exponent_and_horizon() {
        for exponent in [0.0, 0.25, 1.0, 2.0, 3.5, 200.0] {
            for horizon in [1, 2, 3, 4, 7, 30] {
                let drawn = draws(exponent, horizon, 4000);
                for t in [0, horizon / 2, horizon - 1] {
                    // Standard errors of 4000 draws: 0.016 of the mean, 0.022 of the variance; five of them.
                    let mean = drawn.iter().map(|x| f64::from(x[t])).sum::<f64>() / 4000.0;
                    let variance = covariance(&drawn, t, t);
                    assert!(mean.abs() < 0.08, "mean {mean} at β {exponent}, H {horizon}, step {t}");
                    assert!(
                        (variance - 1.0).abs() < 0.11,
                        "variance {variance} at β {exponent}, H {horizon}, step {t}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_spectrum_falls_with_the_exponent() {
        for (horizon, exponent) in [(64, 0.5f32), (64, 1.0), (64, 2.0), (64, 3.5), (31, 2.0)] {
            let drawn = draws(exponent, horizon, 2000);
            // Periodogram at k: its mean is proportional to k^−β; the logarithms' slope by least squares.
            let points: Vec<(f64, f64)> = (1..horizon.div_ceil(2))
                .map(|k| {
                    let power = |x: &Vec<f32>| {
                        let part = |quarter: f64| -> f64 {
                            let angle = |t: usize| TAU * (k as f64 * t as f64 / horizon as f64 - quarter);
                            x.iter().enumerate().map(|(t, v)| f64::from(*v) * angle(t).cos()).sum()
                        };
                        part(0.0).powi(2) + part(0.25).powi(2)
                    };
                    ((k as f64).ln(), drawn.iter().map(power).sum::<f64>().ln())
                })
                .collect();
            let n = points.len() as f64;
            let centre = points.iter().fold((0.0, 0.0), |c, p| (c.0 + p.0 / n, c.1 + p.1 / n));
            let slope = points.iter().map(|p| (p.0 - centre.0) * (p.1 - centre.1)).sum::<f64>()
                / points.iter().map(|p| (p.0 - centre.0).powi(2)).sum::<f64>();
            // Each point's standard error is 1/√2000 = 0.022 and the abscissae spread by about 0.8 over 15 and more
            // points: 0.007 of the slope.
            assert!((slope + f64::from(exponent)).abs() < 0.04, "slope {slope} at β {exponent}, H {horizon}");
        }
    }

    #[test]
    fn an_exponent_of_0_is_white_on_both_ways() {
        // The basis is not used at 0; it must agree with the white noise that is.
        for horizon in [1, 2, 3, 8, 9, 30] {
            let rows = basis(0.0, horizon);
            for s in 0..horizon {
                for t in 0..horizon {
                    let product: f32 = rows.chunks_exact(horizon).map(|row| row[s] * row[t]).sum();
                    assert!((product - f32::from(u8::from(s == t))).abs() < 1e-5, "{product} at {s}, {t} of {horizon}");
                }
            }
        }
        let drawn = draws(0.0, 20, 4000);
        for lag in [1, 2, 5, 19] {
            // Standard error 0.016; five of them.
            let product = covariance(&drawn, 0, lag);
            assert!(product.abs() < 0.08, "autocovariance {product} at lag {lag}");
        }
    }

    #[test]
    fn more_colour_gives_slower_sequences() {
        let at_lag_1 = [0.0, 0.5, 1.0, 2.0, 3.0].map(|exponent| covariance(&draws(exponent, 30, 4000), 10, 11));
        assert!(at_lag_1.windows(2).all(|pair| pair[1] > pair[0] + 0.05), "{at_lag_1:?}");
        assert!(at_lag_1[4] > 0.9, "{at_lag_1:?}");
    }

    #[test]
    fn dimensions_are_independent_and_draws_repeat() {
        let (noise, device) = (ColouredNoise::new(2.0, 5).unwrap(), Device::flex());
        let drawn = rows(noise.sample(4000, 3, &device, &mut Rng::new(7)));
        for (s, t) in [(0, 1), (0, 2), (4, 6), (12, 14)] {
            // Standard error 0.016; five of them.
            let product = covariance(&drawn, s, t);
            assert!(product.abs() < 0.08, "covariance {product} of entries {s} and {t}");
        }
        let mut rng = Rng::new(7);
        assert_eq!(rows(noise.sample(4000, 3, &device, &mut rng)), drawn);
        assert_ne!(rows(noise.sample(4000, 3, &device, &mut rng)), drawn);
    }

    #[test]
    fn each_rule_has_its_error() {
        let fails = |exponent, horizon| ColouredNoise::new(exponent, horizon).unwrap_err().to_string();
        assert_eq!(fails(1.0, 0), "horizon = 0: expected at least one step");
        for bad in [-0.5, f32::NAN, f32::INFINITY] {
            assert_eq!(fails(bad, 5), format!("noise_exponent = {bad}: expected a finite number of at least 0"));
        }
    }
}
