//! Linear equations, solved by matrix-vector products alone.

/// Squared norm of the residual below which nothing is left to do (mjrl).
const TOLERANCE: f64 = 1e-10;

/// Solves `A x = b` for a symmetric positive definite `A`, known only by its products, with at most `iterations` conjugate-gradient steps
/// from 0 (Hestenes and Stiefel 1952). After as many as `A` has different eigenvalues the solution is exact but for rounding.
///
/// ```
/// use mbrl_policy::conjugate_gradients;
///
/// let x = conjugate_gradients(|v| vec![2.0 * v[0], 4.0 * v[1]], &[2.0, 2.0], 2);
/// assert!((x[0] - 1.0).abs() < 1e-9 && (x[1] - 0.5).abs() < 1e-9);
/// ```
#[must_use]
pub fn conjugate_gradients(product: impl Fn(&[f64]) -> Vec<f64>, b: &[f64], iterations: usize) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut x = vec![0.0; b.len()];
    let (mut residual, mut direction) = (b.to_vec(), b.to_vec());
    let mut square = dot(b, b);
    for _ in 0..iterations {
        if square < TOLERANCE {
            break;
        }
        let image = product(&direction);
        let curvature = dot(&direction, &image);
        // Due to rounding, `A` no longer appears positive definite.
        if curvature <= 0.0 {
            break;
        }
        let step = square / curvature;
        for i in 0..x.len() {
            x[i] += step * direction[i];
            residual[i] -= step * image[i];
        }
        let next = dot(&residual, &residual);
        let share = next / square;
        for (direction, residual) in direction.iter_mut().zip(&residual) {
            *direction = residual + share * *direction;
        }
        square = next;
    }
    x
}

#[cfg(test)]
mod tests {
    use mbrl_env::Rng;

    use super::*;

    /// By elimination with pivots.
    fn dense(matrix: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
        let n = b.len();
        let mut rows: Vec<Vec<f64>> =
            matrix.iter().zip(b).map(|(row, b)| row.iter().copied().chain([*b]).collect()).collect();
        for i in 0..n {
            let pivot = (i..n).max_by(|a, b| rows[*a][i].abs().total_cmp(&rows[*b][i].abs())).unwrap();
            rows.swap(i, pivot);
            let pivot = rows[i].clone();
            for row in &mut rows[i + 1..] {
                let factor = row[i] / pivot[i];
                row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
        let mut x = vec![0.0; n];
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|j| rows[i][j] * x[j]).sum();
            x[i] = (rows[i][n] - known) / rows[i][i];
        }
        x
    }

    #[test]
    fn it_finds_what_elimination_finds() {
        let mut rng = Rng::new(3);
        for n in [1, 2, 5, 12] {
            let factor: Vec<Vec<f64>> = (0..n).map(|_| (0..n).map(|_| rng.normal_f64()).collect()).collect();
            let entry = |i: usize, j: usize| {
                (0..n).map(|k| factor[i][k] * factor[j][k]).sum::<f64>() + if i == j { 0.5 } else { 0.0 }
            };
            let matrix: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect();
            let b: Vec<f64> = (0..n).map(|_| rng.normal_f64()).collect();
            let product = |v: &[f64]| matrix.iter().map(|row| row.iter().zip(v).map(|(a, v)| a * v).sum()).collect();
            let (found, exact) = (conjugate_gradients(product, &b, 3 * n), dense(&matrix, &b));
            for (found, exact) in found.iter().zip(&exact) {
                assert!((found - exact).abs() < 1e-4 * (1.0 + exact.abs()), "{n}: {found} and {exact}");
            }
        }
        assert_eq!(conjugate_gradients(|v| v.to_vec(), &[0.0, 0.0], 10), [0.0, 0.0]);
    }
}
