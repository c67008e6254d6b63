//! Gains and costs of a portfolio, and the certainty of differences.

use mbrl_env::Rng;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 4000;

/// Trades to target weights `[n]`, then lets prices move by `gross` `[n]`, the price after over the price before. Each dollar that is bought or
/// sold costs `cost`. Returns the factor by which wealth grows and the traded amount, as a share of wealth; `weights` `[n]`
/// become the target weights after the price moves.
pub(crate) fn trade(weights: &mut [f64], target: &[f64], gross: &[f64], cost: f64) -> (f64, f64) {
    let turnover: f64 = weights.iter().zip(target).map(|(held, target)| (target - held).abs()).sum();
    let grown: f64 = target.iter().zip(gross).map(|(target, gross)| target * gross).sum();
    for ((weight, target), gross) in weights.iter_mut().zip(target).zip(gross) {
        *weight = target * gross / grown;
    }
    ((1.0 - cost * turnover) * grown, turnover)
}

/// The path of a portfolio, week by week.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Path {
    /// Logarithms of the factors by which wealth grew.
    pub(crate) growth: Vec<f64>,
    /// Traded amounts, as shares of wealth: bought and sold together.
    pub(crate) turnover: Vec<f64>,
}

impl Path {
    pub(crate) fn push(&mut self, (factor, turnover): (f64, f64)) {
        self.growth.push(factor.ln());
        self.turnover.push(turnover);
    }

    /// Wealth at the beginning, which is 1, and after each week.
    pub(crate) fn wealth(&self) -> Vec<f64> {
        let mut log = 0.0;
        let after = self.growth.iter().map(|growth| {
            log += growth;
            f64::exp(log)
        });
        std::iter::once(1.0).chain(after).collect()
    }
}

/// The figures of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    /// Return per year, compounded.
    pub(crate) annual: f64,
    /// Standard deviation of weekly returns, per year.
    pub(crate) volatility: f64,
    /// Mean weekly return over its standard deviation, per year, with an interest rate of 0.
    pub(crate) sharpe: f64,
    /// The largest loss from a peak, of weekly wealth.
    pub(crate) drawdown: f64,
    /// Traded amount per year, in units of wealth.
    pub(crate) turnover: f64,
    /// Final wealth from an initial wealth of 1.
    pub(crate) wealth: f64,
}

impl Figures {
    /// For a path of this many years.
    pub(crate) fn of(path: &Path, years: f64) -> Self {
        let weeks = path.growth.len() as f64;
        let returns: Vec<f64> = path.growth.iter().map(|growth| growth.exp_m1()).collect();
        let mean = returns.iter().sum::<f64>() / weeks;
        let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (weeks - 1.0).max(1.0);
        let per_year = weeks / years;
        let wealth = path.wealth();
        let (mut peak, mut drawdown) = (0.0, 0.0);
        for wealth in &wealth {
            peak = f64::max(peak, *wealth);
            drawdown = f64::max(drawdown, 1.0 - wealth / peak);
        }
        Self {
            annual: (path.growth.iter().sum::<f64>() / years).exp_m1(),
            volatility: (variance * per_year).sqrt(),
            sharpe: mean / variance.sqrt() * per_year.sqrt(),
            drawdown,
            turnover: path.turnover.iter().sum::<f64>() / years,
            wealth: wealth.last().copied().unwrap_or(1.0),
        }
    }
}

/// A mean of a series and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// Circular block bootstrap of the mean (Politis and Romano 1992): series are assembled from blocks of `block` successive values, with
    /// the beginning following the end, so that dependence within a block is preserved. The interval consists of
    /// percentiles. The same numbers always give the same interval.
    pub(crate) fn of(values: &[f64], block: usize) -> Self {
        let (n, mut rng) = (values.len(), Rng::new(0));
        // Sums of the first values, twice round.
        let mut sums = vec![0.0];
        for i in 0..2 * n {
            sums.push(sums[i] + values[i % n]);
        }
        let block = block.clamp(1, n);
        let mut means: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let mut left = n;
                let mut sum = 0.0;
                while left > 0 {
                    let (start, length) = (rng.below(n), block.min(left));
                    sum += sums[start + length] - sums[start];
                    left -= length;
                }
                sum / n as f64
            })
            .collect();
        means.sort_by(f64::total_cmp);
        let tail = RESAMPLES / 40;
        Self { mean: sums[n] / n as f64, low: means[tail - 1], high: means[RESAMPLES - tail] }
    }

    /// In other units.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { mean: self.mean * factor, low: self.low * factor, high: self.high * factor }
    }

    /// Whether it contains 0: no difference has been found.
    pub(crate) fn holds_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three weeks by hand, with two assets and a cost of 1 %: all of A; half of each; half of each.
    #[test]
    fn wealth_is_the_product_of_weighted_returns_less_costs() {
        let mut weights = vec![0.5, 0.5];
        let mut path = Path::default();
        path.push(trade(&mut weights, &[1.0, 0.0], &[1.2, 0.5], 0.01));
        assert_eq!(weights, [1.0, 0.0]);
        path.push(trade(&mut weights, &[0.5, 0.5], &[1.1, 0.9], 0.01));
        assert!((weights[0] - 0.55).abs() < 1e-12 && (weights[1] - 0.45).abs() < 1e-12, "{weights:?}");
        path.push(trade(&mut weights, &[0.5, 0.5], &[0.8, 1.0], 0.01));
        // Half of the wealth is sold and bought twice, then 5 % of it.
        let by_hand = [0.99 * 1.2, 0.99 * 1.2 * 0.99 * 1.0, 0.99 * 1.2 * 0.99 * 1.0 * 0.999 * 0.9];
        for (wealth, by_hand) in path.wealth()[1..].iter().zip(by_hand) {
            assert!((wealth - by_hand).abs() < 1e-12, "{wealth}, not {by_hand}");
        }
        assert!((path.turnover[0] - 1.0).abs() < 1e-12 && (path.turnover[2] - 0.1).abs() < 1e-12);
        let figures = Figures::of(&path, 0.5);
        assert!((figures.wealth - by_hand[2]).abs() < 1e-12);
        assert!((figures.annual - (by_hand[2].powi(2) - 1.0)).abs() < 1e-12);
        assert!((figures.drawdown - (1.0 - 0.99 * 0.999 * 0.9)).abs() < 1e-12);
        assert!((figures.turnover - 2.0 * 2.1).abs() < 1e-12);
        // Returns of 18.8 %, −1 % and −10.09 %.
        let returns = [0.188, -0.01, -0.1009];
        let mean = returns.iter().sum::<f64>() / 3.0;
        let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 2.0;
        assert!((figures.volatility - (6.0 * variance).sqrt()).abs() < 1e-9);
        assert!((figures.sharpe - mean / variance.sqrt() * 6f64.sqrt()).abs() < 1e-9);
    }

    /// For independent values: ± 1.96 standard errors. For a slowly moving series, the spread of block sums, which is known.
    #[test]
    fn intervals_are_those_of_the_closed_form() {
        let mut rng = Rng::new(3);
        let n = 1200;
        let values: Vec<f64> = (0..n).map(|_| 0.3 + rng.normal_f64()).collect();
        let mut slow = vec![0.0];
        for value in &values[1..] {
            slow.push(0.9 * slow[slow.len() - 1] + value);
        }
        for (values, block) in [(&values, 1), (&slow, 40)] {
            let mean = values.iter().sum::<f64>() / n as f64;
            let blocks = (0..n).map(|start| (0..block).map(|i| values[(start + i) % n] - mean).sum::<f64>());
            let variance = blocks.map(|sum| sum * sum).sum::<f64>() / n as f64 / (n * block) as f64;
            let found = Interval::of(values, block);
            assert!((found.mean - mean).abs() < 1e-12);
            for half in [mean - found.low, found.high - mean] {
                assert!((half / (1.96 * variance.sqrt()) - 1.0).abs() < 0.08, "{half}, block {block}");
            }
        }
        // Blocks of one value make the slow series appear much more certain than it is.
        let [short, long] = [1, 40].map(|block| Interval::of(&slow, block));
        assert!(long.high - long.low > 2.5 * (short.high - short.low));
    }
}
