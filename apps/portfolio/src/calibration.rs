//! Whether predicted distributions are right: the share of returns within their intervals, and the likelihood of the actual returns.

use std::f64::consts::{PI, SQRT_2};

/// A normal distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Gaussian {
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

impl Gaussian {
    /// The share of the distribution below a value: the probability integral transform (PIT), uniform in [0, 1] if the distribution is right.
    pub(crate) fn below(&self, value: f64) -> f64 {
        0.5 * erfc(-(value - self.mean) / (self.std * SQRT_2))
    }

    /// The logarithm of the density at a value.
    pub(crate) fn log_density(&self, value: f64) -> f64 {
        -0.5 * (((value - self.mean) / self.std).powi(2) + (2.0 * PI).ln()) - self.std.ln()
    }
}

/// 1 − erf, to 1.2e-7 of its value (Press et al., *Numerical Recipes*, the Chebyshev fit `erfcc`).
fn erfc(x: f64) -> f64 {
    const FIT: [f64; 10] = [
        -1.26551223,
        1.00002368,
        0.37409196,
        0.09678418,
        -0.18628806,
        0.27886807,
        -1.13520398,
        1.48851587,
        -0.82215223,
        0.17087277,
    ];
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let power = FIT.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let tail = t * (power - x * x).exp();
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// The outcome of predictions: for every return its PIT, and the logarithm of its predicted density.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scores {
    pub(crate) pits: Vec<f64>,
    pub(crate) logs: Vec<f64>,
}

impl Scores {
    pub(crate) fn push(&mut self, predicted: Gaussian, came: f64) {
        self.pits.push(predicted.below(came));
        self.logs.push(predicted.log_density(came));
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.pits.extend(&others.pits);
        self.logs.extend(&others.logs);
    }

    /// The share of returns within the central interval that should hold `share` of them.
    pub(crate) fn coverage(&self, share: f64) -> f64 {
        let inside = self.pits.iter().filter(|pit| (**pit - 0.5).abs() <= 0.5 * share).count();
        inside as f64 / self.pits.len() as f64
    }

    /// The mean logarithm of the density (the log score): the higher, the better.
    pub(crate) fn log_score(&self) -> f64 {
        self.logs.iter().sum::<f64>() / self.logs.len() as f64
    }

    /// Shares of the PITs in `bins` equal parts of [0, 1], relative to their nominal shares: 1 everywhere if predictions are right.
    pub(crate) fn histogram(&self, bins: usize) -> Vec<f64> {
        let mut counts = vec![0.0; bins];
        for pit in &self.pits {
            counts[((pit * bins as f64) as usize).min(bins - 1)] += bins as f64 / self.pits.len() as f64;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Rng;

    use super::*;

    #[test]
    fn shares_below_are_those_of_the_tables() {
        let normal = Gaussian { mean: 1.0, std: 2.0 };
        for (z, share) in [(0.0, 0.5), (1.0, 0.841_344_7), (1.959_964, 0.975), (-1.644_854, 0.05), (-4.0, 3.167_12e-5)]
        {
            assert!((normal.below(1.0 + 2.0 * z) - share).abs() < 2e-7, "{z}");
        }
        assert!((normal.log_density(3.0) - (-0.5 - (2.0 * PI).sqrt().ln() - 2f64.ln())).abs() < 1e-12);
    }

    /// 40,000 draws: the standard error of a share is at most 0.0025.
    #[test]
    fn right_predictions_cover_what_they_say_and_narrow_ones_less() {
        let mut rng = Rng::new(5);
        let (mut right, mut narrow) = (Scores::default(), Scores::default());
        for i in 0..40_000 {
            let (mean, std) = (f64::from(i % 7), 0.5 + f64::from(i % 3));
            let came = mean + std * rng.normal_f64();
            right.push(Gaussian { mean, std }, came);
            narrow.push(Gaussian { mean, std: 0.5 * std }, came);
        }
        for share in [0.5, 0.8, 0.95] {
            assert!((right.coverage(share) - share).abs() < 0.01, "{share}");
        }
        assert!(right.histogram(10).iter().all(|bin| (bin - 1.0).abs() < 0.07));
        // P(|z| < 1.96 / 2) = 0.673.
        assert!((narrow.coverage(0.95) - 0.673).abs() < 0.01);
        assert!(narrow.histogram(10)[0] > 2.0);
        // The loss from half the standard deviation: ln 2 − 3/2.
        assert!((narrow.log_score() - right.log_score() - (2f64.ln() - 1.5)).abs() < 0.02);
    }
}
