//! Rows for tests.

use mbrl_env::Rng;

/// Observations `[N, O]` and actions `[N, A]`, uniform within ± `scale`, except for numbers near 0, where commands have a kink.
pub(crate) fn rows(o: usize, a: usize, n: usize, scale: f32) -> (Vec<f32>, Vec<f32>) {
    let mut rng = Rng::new(1);
    let mut draw = |count: usize| -> Vec<f32> {
        let mut one = || {
            let x = rng.uniform(-scale, scale);
            x + 0.02 * x.signum()
        };
        (0..count).map(|_| one()).collect()
    };
    (draw(n * o), draw(n * a))
}
