//! The statistic of all charts and tables: the mean over the seeds with a 95 % bootstrap interval.
//!
//! The mean, because papers report it, and because its interval is informative for the usual three to ten seeds:
//! resampled medians of so few take only a handful of values.

use mbrl_env::Rng;

/// Number of resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A mean and, for two or more values, its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) mean: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

/// Percentile bootstrap of the mean of `n` values. The same resamples serve every point of a curve, so that its band does not
/// jitter, and every run of the program, so that the same runs give the same picture.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    /// Indices of the drawn values, `n` per resample.
    picks: Vec<usize>,
    n: usize,
}

impl Bootstrap {
    pub(crate) fn new(n: usize) -> Self {
        let mut rng = Rng::new(0);
        let picks = if n > 1 { (0..RESAMPLES * n).map(|_| rng.below(n)).collect() } else { Vec::new() };
        Self { picks, n }
    }

    /// The estimate for `n` values.
    pub(crate) fn estimate(&self, values: &[f64]) -> Estimate {
        debug_assert_eq!(values.len(), self.n);
        let mut means: Vec<f64> = self
            .picks
            .chunks(self.n.max(1))
            .map(|picks| picks.iter().map(|i| values[*i]).sum::<f64>() / self.n as f64)
            .collect();
        Estimate { mean: mean(values), interval: percentiles(&mut means) }
    }
}

/// The 2.5 and 97.5 % quantiles of resampled figures; `None` for fewer than 40.
pub(crate) fn percentiles(resampled: &mut [f64]) -> Option<(f64, f64)> {
    resampled.sort_by(f64::total_cmp);
    let tail = resampled.len() / 40;
    (tail > 0).then(|| (resampled[tail - 1], resampled[resampled.len() - tail]))
}

/// Mean and interval of some values; `None` without values.
pub(crate) fn estimate(values: &[f64]) -> Option<Estimate> {
    (!values.is_empty()).then(|| Bootstrap::new(values.len()).estimate(values))
}

/// NaN without values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For two values, a quarter of the resamples holds only one of them; for three, a 27th: both more than 2.5 %.
    #[test]
    fn intervals_of_two_or_three_values_reach_from_the_lowest_to_the_highest() {
        assert_eq!(estimate(&[3.0, 1.0]), Some(Estimate { mean: 2.0, interval: Some((1.0, 3.0)) }));
        assert_eq!(estimate(&[9.0, 3.0, 0.0]), Some(Estimate { mean: 4.0, interval: Some((0.0, 9.0)) }));
        assert_eq!(estimate(&[5.0; 4]).unwrap().interval, Some((5.0, 5.0)));
        assert_eq!(estimate(&[7.0]), Some(Estimate { mean: 7.0, interval: None }));
        assert_eq!(estimate(&[]), None);
    }

    /// For many values the mean is Gaussian: ± 1.96 σ/√n.
    #[test]
    fn intervals_of_many_values_are_those_of_a_gaussian_mean() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let std = (values.iter().map(|v| (v - 9.5).powi(2)).sum::<f64>() / 400.0).sqrt();
        let Some(Estimate { mean, interval: Some((low, high)) }) = estimate(&values) else { panic!() };
        let half = 1.96 * std / 20.0;
        assert!((mean - 9.5).abs() < 1e-12 && (mean - low - half).abs() < 0.1 * half, "{low}, {half}");
        assert!((high - mean - half).abs() < 0.1 * half, "{high}, {half}");
    }
}
