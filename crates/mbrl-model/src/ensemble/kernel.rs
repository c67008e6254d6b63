//! The matrix product of the roll-out engine: the one place of this crate where unsafe code is allowed.
#![allow(unsafe_code)]

/// `c = a × b` for row-major `a` `[rows, inner]`, `b` `[inner, cols]`, `c` `[rows, cols]`, on the calling thread.
///
/// # Panics
/// If a slice is shorter than its shape says.
pub(super) fn matmul(rows: usize, inner: usize, cols: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    assert!(a.len() >= rows * inner && b.len() >= inner * cols && c.len() >= rows * cols);
    // SAFETY: the assertion above makes every address inside its slice, `c` is borrowed mutably and so disjoint from `a`
    // and `b`, and the strides are those of dense row-major arrays.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            inner,
            c.as_mut_ptr(),
            1,
            cols as isize,
            false,
            a.as_ptr(),
            1,
            inner as isize,
            b.as_ptr(),
            1,
            cols as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_product_by_hand() {
        for (rows, inner, cols) in [(1, 1, 1), (3, 5, 2), (17, 6, 33), (40, 200, 8)] {
            let value = |i: usize| ((i * 7 + 3) % 11) as f32 - 5.0;
            let a: Vec<f32> = (0..rows * inner).map(value).collect();
            let b: Vec<f32> = (0..inner * cols).map(|i| value(i + 1)).collect();
            let mut c = vec![f32::NAN; rows * cols];
            super::matmul(rows, inner, cols, &a, &b, &mut c);
            for r in 0..rows {
                for k in 0..cols {
                    // Small integers: exact in any order.
                    let want: f32 = (0..inner).map(|i| a[r * inner + i] * b[i * cols + k]).sum();
                    assert_eq!(c[r * cols + k], want);
                }
            }
        }
    }
}
