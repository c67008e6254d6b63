//! Standardisation of columns.

use serde::{Deserialize, Serialize};

/// Mean and standard deviation of each column, from sums in double precision.
///
/// A column whose spread is at most 8 times the resolution of `f32` at its largest magnitude, `8 ε · max |x|`, counts as
/// constant: its standard deviation is 1, so that it becomes 0 instead of amplified rounding (mbrl-lib's rule is
/// `std < 1e-12 → 1` in `f64`). The rule does not depend on units: metres and micrometres are standardised to the same numbers.
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
        Self::beside(rows, &magnitudes(rows.chunks_exact(width.max(1)), width))
    }

    /// Statistics of `rows`, `[N, width]`, that were computed from values of these magnitudes, one for each column, as changes
    /// of an observation are: a spread that rounding explains counts as constant.
    #[must_use]
    pub(crate) fn beside(rows: &[f32], magnitudes: &[f32]) -> Self {
        Moments::of(rows, magnitudes.len()).normalizer(magnitudes)
    }

    pub(crate) fn from_parts(mean: Vec<f32>, std: Vec<f32>) -> Self {
        Self { mean, std }
    }

    /// Means, one per column.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviations, one per column, all positive.
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

/// Sums over rows in double precision, of which those over several blocks of rows can be joined.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    rows: f64,
    mean: Vec<f64>,
    /// Sums of squared distances from the mean.
    squares: Vec<f64>,
}

impl Moments {
    /// Of `rows`, `[N, width]`.
    pub(crate) fn of(rows: &[f32], width: usize) -> Self {
        let (mut mean, mut squares) = (vec![0f64; width], vec![0f64; width]);
        let n = (rows.len() / width.max(1)) as f64;
        if n == 0.0 {
            return Self { rows: n, mean, squares };
        }
        for row in rows.chunks_exact(width) {
            for (m, &v) in mean.iter_mut().zip(row) {
                *m += f64::from(v);
            }
        }
        for m in &mut mean {
            *m /= n;
        }
        // Two passes: the difference of two large sums would lose a small spread.
        for row in rows.chunks_exact(width) {
            for ((s, &m), &v) in squares.iter_mut().zip(&mean).zip(row) {
                *s += (f64::from(v) - m).powi(2);
            }
        }
        Self { rows: n, mean, squares }
    }

    /// Adds those of other rows (Chan, Golub and LeVeque 1979).
    #[cfg(feature = "train")]
    pub(crate) fn join(&mut self, other: &Self) {
        let all = self.rows + other.rows;
        if all == 0.0 {
            return;
        }
        for c in 0..self.mean.len() {
            let apart = other.mean[c] - self.mean[c];
            self.mean[c] += apart * other.rows / all;
            self.squares[c] += other.squares[c] + apart * apart * self.rows * other.rows / all;
        }
        self.rows = all;
    }

    /// The normalizer of such rows, whose columns were computed from values of these magnitudes.
    pub(crate) fn normalizer(&self, magnitudes: &[f32]) -> Normalizer {
        if self.rows == 0.0 {
            return Normalizer::identity(self.mean.len());
        }
        let std = self.squares.iter().zip(magnitudes).map(|(s, &magnitude)| {
            let std = (s / self.rows).sqrt();
            // Nor has it a spread where `f32` has no standard deviation for it.
            let constant =
                std <= 8.0 * f64::from(f32::EPSILON) * f64::from(magnitude) || std < f64::from(f32::MIN_POSITIVE);
            if constant { 1.0 } else { std as f32 }
        });
        Normalizer { std: std.collect(), mean: self.mean.iter().map(|&m| m as f32).collect() }
    }
}

/// The largest magnitude of each column.
pub(crate) fn magnitudes<'a>(rows: impl Iterator<Item = &'a [f32]>, width: usize) -> Vec<f32> {
    let mut largest = vec![0f32; width];
    for row in rows {
        largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
    }
    largest
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
    fn statistics_of_blocks_join_to_those_of_the_whole() {
        let mut rng = mbrl_env::Rng::new(3);
        let rows: Vec<f32> = (0..900).map(|i| if i < 300 { 100.0 } else { -3.0 } + rng.normal()).collect();
        let whole = Normalizer::of(&rows, 3);
        for cut in [0, 300, 450, 900] {
            let mut joined = Moments::of(&rows[..cut], 3);
            joined.join(&Moments::of(&rows[cut..], 3));
            let joined = joined.normalizer(&[200.0; 3]);
            for c in 0..3 {
                assert!((joined.mean()[c] / whole.mean()[c] - 1.0).abs() < 1e-6, "{joined:?} {whole:?}");
                assert!((joined.std()[c] / whole.std()[c] - 1.0).abs() < 1e-6, "{joined:?} {whole:?}");
            }
        }
    }

    #[test]
    fn a_constant_column_is_not_divided_by_nearly_nothing() {
        // 0.1 is not a float: its mean over many rows differs from it by rounding.
        let rows = vec![0.1f32; 1001];
        assert_eq!(Normalizer::of(&rows, 1).std(), &[1.0]);
        // In whatever unit a column comes, its numbers are the same.
        let wave = |unit: f32| -> Vec<f32> { (0..1000).map(|i| unit * (i as f32 * 0.1).sin()).collect() };
        for unit in [1e-9, 1e-3, 1.0, 1e6] {
            let n = Normalizer::of(&wave(unit), 1);
            assert!((n.std()[0] / unit - std::f32::consts::FRAC_1_SQRT_2).abs() < 0.01, "{unit}: {n:?}");
        }
        // Changes of 1e-5 are rounding beside values of 100, and are none beside values of 1.
        let changes: Vec<f32> = wave(1e-5);
        assert_eq!(Normalizer::beside(&changes, &[100.0]).std(), &[1.0]);
        assert!(Normalizer::beside(&changes, &[1.0]).std()[0] < 1e-5);
        // A large constant with the smallest possible flicker.
        let flicker: Vec<f32> = (0..1000).map(|i| if i % 2 == 0 { 1e4 } else { 1e4 + 0.000_976_562_5 }).collect();
        assert_eq!(Normalizer::of(&flicker, 1).std(), &[1.0]);
    }
}
