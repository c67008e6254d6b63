//! Small symmetric matrices, row by row in double precision.

/// Solves `a x = b` for a positive definite `a` `[n, n]` and several right-hand sides, the rows of `b` `[m, n]`, in place. Returns
/// whether `a` was positive definite.
pub(super) fn solve(a: &[f64], n: usize, b: &mut [f64]) -> bool {
    let Some(l) = cholesky(a, n) else { return false };
    for x in b.chunks_exact_mut(n.max(1)) {
        for i in 0..n {
            let sum: f64 = (0..i).map(|j| l[i * n + j] * x[j]).sum();
            x[i] = (x[i] - sum) / l[i * n + i];
        }
        for i in (0..n).rev() {
            let sum: f64 = (i + 1..n).map(|j| l[j * n + i] * x[j]).sum();
            x[i] = (x[i] - sum) / l[i * n + i];
        }
    }
    true
}

/// The lower triangle L of `a = L Lᵀ`; `None` where `a` is not positive definite.
fn cholesky(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let rest = a[i * n + j] - sum;
            if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                l[i * n + i] = rest.sqrt();
            } else {
                l[i * n + j] = rest / l[j * n + j];
            }
        }
    }
    Some(l)
}

/// Eigenvalues `[n]` of a symmetric `a` `[n, n]` and its eigenvectors, as rows `[n, n]`: Jacobi's rotations.
pub(super) fn eigen(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = a.to_vec();
    let mut v: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i % (n + 1) == 0))).collect();
    for _ in 0..100 {
        let off: f64 = (0..n * n).filter(|i| i / n != i % n).map(|i| a[i] * a[i]).sum();
        let diagonal: f64 = (0..n).map(|i| a[i * n + i] * a[i * n + i]).sum();
        if off <= 1e-30 * diagonal {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (v[p * n + k], v[q * n + k]);
                    (v[p * n + k], v[q * n + k]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), v)
}

/// A basis of the space that the rows span, of which each has a column for itself (reduced row echelon form): a few words tell it.
pub(super) fn reduced(mut rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let width = rows.first().map_or(0, Vec::len);
    for done in 0..rows.len().min(width) {
        // The largest entry of all that is left, so that nothing is divided by little.
        let entry = |r: usize, c: usize, rows: &[Vec<f64>]| rows[r][c].abs();
        let places = (done..rows.len()).flat_map(|r| (0..width).map(move |c| (r, c)));
        let Some((r, c)) = places.max_by(|a, b| entry(a.0, a.1, &rows).total_cmp(&entry(b.0, b.1, &rows))) else {
            break;
        };
        rows.swap(done, r);
        let pivot = rows[done][c];
        rows[done].iter_mut().for_each(|x| *x /= pivot);
        let top = rows[done].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != done) {
            let factor = row[c];
            row.iter_mut().zip(&top).for_each(|(x, t)| *x -= factor * t);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_solved_and_matrices_taken_apart() {
        let a = [4.0, 1.0, -0.5, 1.0, 3.0, 0.2, -0.5, 0.2, 2.0];
        let mut x = [1.0, -2.0, 0.5, 0.0, 1.0, 0.0];
        let b = x;
        assert!(solve(&a, 3, &mut x));
        for (x, b) in x.chunks(3).zip(b.chunks(3)) {
            for i in 0..3 {
                let sum: f64 = (0..3).map(|j| a[i * 3 + j] * x[j]).sum();
                assert!((sum - b[i]).abs() < 1e-12);
            }
        }
        assert!(!solve(&[1.0, 2.0, 2.0, 1.0], 2, &mut [1.0, 1.0]), "not positive definite");

        let (values, vectors) = eigen(&a, 3);
        for (value, v) in values.iter().zip(vectors.chunks(3)) {
            for i in 0..3 {
                let sum: f64 = (0..3).map(|j| a[i * 3 + j] * v[j]).sum();
                assert!((sum - value * v[i]).abs() < 1e-12, "{value}");
            }
        }
        let rows = reduced(vec![vec![0.5, 0.5, 1.0, 0.0], vec![0.5, 0.5, -1.0, 0.0]]);
        assert_eq!(rows, [[0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]);
    }
}
