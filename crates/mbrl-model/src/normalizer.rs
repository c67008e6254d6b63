//! Standardisation of columns.

use serde::{Deserialize, Serialize};

/// Mean and standard deviation of each column, from sums in double precision.
///
/// A column whose spread is below what its own magnitude can resolve in `f32` counts as constant: its standard deviation
/// is 1, so that it becomes 0 instead of amplified rounding (mbrl-lib's rule is `std < 1e-12 → 1` in `f64`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalizer {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Normalizer {
    /// Leaves `width` columns as they are.
    #[must_use]
    pub fn identity(width: usize) -> Self {
        Self { mean: vec![0.0; width], std: vec![1.0; width] }
    }

    /// Statistics of `rows`, `[N, width]` row by row. Without rows: the identity.
    ///
    /// ```
    /// use mbrl_model::Normalizer;
    /// let n = Normalizer::of(&[1.0, 5.0, 3.0, 5.0], 2);
    /// assert_eq!((n.mean(), n.std()), (&[2.0, 5.0][..], &[1.0, 1.0][..])); // the second column is constant
    /// ```
    #[must_use]
    pub fn of(rows: &[f32], width: usize) -> Self {
        let n = rows.len() / width.max(1);
        if n == 0 {
            return Self::identity(width);
        }
        let mut mean = vec![0f64; width];
        for row in rows.chunks_exact(width) {
            for (m, &v) in mean.iter_mut().zip(row) {
                *m += f64::from(v);
            }
        }
        for m in &mut mean {
            *m /= n as f64;
        }
        // Two passes: the difference of two large sums would lose a small spread.
        let mut var = vec![0f64; width];
        for row in rows.chunks_exact(width) {
            for ((s, &m), &v) in var.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(v) - m).powi(2);
            }
        }
        let std = var.iter().zip(&mean).map(|(s, m)| {
            let std = (s / n as f64).sqrt();
            if std < 1e-8 + 1e-6 * m.abs() { 1.0 } else { std as f32 }
        });
        let std = std.collect();
        Self { mean: mean.iter().map(|&m| m as f32).collect(), std }
    }

    pub(crate) fn from_parts(mean: Vec<f32>, std: Vec<f32>) -> Self {
        Self { mean, std }
    }

    /// Means, one a column.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviations, one a column, all positive.
    #[must_use]
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// `(x − mean) / std` on each row of `[N, width]`, in place.
    pub fn normalize(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((v, m), s) in row.iter_mut().zip(&self.mean).zip(&self.std) {
                *v = (*v - m) / s;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_columns_have_mean_0_and_std_1() {
        let mut rng = mbrl_env::Rng::new(0);
        let mut rows: Vec<f32> =
            (0..3000).map(|i| [1e3, -2.0, 0.0][i % 3] + [0.5, 30.0, 1e-4][i % 3] * rng.normal()).collect();
        let before = rows.clone();
        let n = Normalizer::of(&rows, 3);
        n.normalize(&mut rows);
        let again = Normalizer::of(&rows, 3);
        for c in 0..3 {
            assert!(again.mean()[c].abs() < 1e-3 && (again.std()[c] - 1.0).abs() < 1e-3, "{again:?}");
        }
        for (i, (y, x)) in rows.iter().zip(&before).enumerate() {
            let back = y * n.std()[i % 3] + n.mean()[i % 3];
            assert!((back - x).abs() <= 1e-6 * x.abs().max(1.0), "{back} {x}");
        }
    }

    #[test]
    fn a_constant_column_is_not_divided_by_nearly_nothing() {
        // 0.1 is not a float: its mean over many rows differs from it by rounding.
        let rows = vec![0.1f32; 1001];
        assert_eq!(Normalizer::of(&rows, 1).std(), &[1.0]);
        // A large constant with the smallest possible flicker.
        let flicker: Vec<f32> = (0..1000).map(|i| if i % 2 == 0 { 1e4 } else { 1e4 + 0.000_976_562_5 }).collect();
        assert_eq!(Normalizer::of(&flicker, 1).std(), &[1.0]);
    }
}
