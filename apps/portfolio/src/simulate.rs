//! Prices with a known law, for tests.

use mbrl_env::Rng;

use crate::prices::Weeks;

/// The process behind the log returns of a week.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Nothing can be predicted: independent normal numbers.
    Noise,
    /// A week depends on the one before: `r' = φ r + noise`.
    Momentum { phi: f64 },
    /// The first asset grows, the others do not.
    Growing { drift: f64 },
}

/// Weeks of `n` assets, whose noise has a standard deviation of 2 %.
pub(crate) fn weeks(kind: &Kind, n: usize, count: usize, seed: u64) -> Weeks {
    let mut rng = Rng::new(seed);
    let mut returns: Vec<f64> = Vec::new();
    for week in 0..count {
        for asset in 0..n {
            let noise = 0.02 * rng.normal_f64();
            returns.push(match *kind {
                Kind::Noise => noise,
                Kind::Momentum { phi } if week > 0 => phi * returns[(week - 1) * n + asset] + noise,
                Kind::Momentum { .. } => noise,
                Kind::Growing { drift } => 0.25 * noise + if asset == 0 { drift } else { 0.0 },
            });
        }
    }
    let date = |week: usize| {
        format!("{:04}-{:02}-{:02}", 2000 + week / 48, 1 + week % 48 / 4, 1 + 7 * (week % 4)).parse().unwrap()
    };
    Weeks { dates: (0..=count).map(date).collect(), returns, width: n }
}
