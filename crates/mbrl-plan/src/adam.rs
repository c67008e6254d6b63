//! # Adam, for many points at once
//!
//! Each point has its own moments and its own count of steps, so no point depends on another. The arithmetic is done on the
//! host: the points are few numbers compared with the roll-outs that score them, and the result for each has to be read there
//! anyway.
//!
//! ## References
//! \[1\] Kingma, Ba (2015), *Adam: A Method for Stochastic Optimization*, ICLR. arXiv:1412.6980

/// Decay of the mean of the gradients \[1\].
const BETA1: f32 = 0.9;
/// Decay of the mean of their squares \[1\].
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// The moments of the gradients of K points of D numbers.
#[derive(Debug, Clone)]
pub(crate) struct Adam {
    /// `[K, D]`.
    mean: Vec<f32>,
    /// `[K, D]`.
    square: Vec<f32>,
    /// Steps since the moments were empty, `[K]`.
    steps: Vec<i32>,
}

impl Adam {
    pub(crate) fn new(points: usize, len: usize) -> Self {
        Self { mean: vec![0.0; points * len], square: vec![0.0; points * len], steps: vec![0; points] }
    }

    /// Moves point `k` uphill. The first step is `rate` in every dimension whatever the gradient's size; later ones are
    /// hardly longer.
    pub(crate) fn step(&mut self, k: usize, point: &mut [f32], gradient: &[f32], rate: f32) {
        let row = k * point.len()..(k + 1) * point.len();
        self.steps[k] += 1;
        // The moments start from 0: divided by the total weight of the gradients so far, they are means.
        let seen = |beta: f32| (1.0 - f64::from(beta).powi(self.steps[k])) as f32;
        let (seen1, seen2) = (seen(BETA1), seen(BETA2));
        let moments = self.mean[row.clone()].iter_mut().zip(&mut self.square[row]);
        for ((x, g), (mean, square)) in point.iter_mut().zip(gradient).zip(moments) {
            *mean += (1.0 - BETA1) * (g - *mean);
            *square += (1.0 - BETA2) * (g * g - *square);
            *x += rate * (*mean / seen1) / ((*square / seen2).sqrt() + EPSILON);
        }
    }

    /// Forgets the moments of point `k`.
    pub(crate) fn forget(&mut self, k: usize) {
        let len = self.mean.len() / self.steps.len();
        self.mean[k * len..(k + 1) * len].fill(0.0);
        self.square[k * len..(k + 1) * len].fill(0.0);
        self.steps[k] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        let mut adam = Adam::new(1, 2);
        let mut point = [0.0, 5.0];
        // Whatever its size, the first gradient gives a step of the rate.
        adam.step(0, &mut point, &[1e-3, -40.0], 0.5);
        assert!((point[0] - 0.5).abs() < 1e-5 && (point[1] - 4.5).abs() < 1e-6, "{point:?}");
        adam.step(0, &mut point, &[-2e-3, -40.0], 0.5);
        // Mean (0.09·1 − 0.1·2) / 0.19, mean square (0.000999·1 + 0.001·4) / 0.001999, in units of the first gradient.
        let expected = 0.5 + 0.5 * (-0.11 / 0.19) / (0.004_999f32 / 0.001_999).sqrt();
        assert!((point[0] - expected).abs() < 1e-4 && (point[1] - 4.0).abs() < 1e-6, "{point:?}, {expected}");
    }

    #[test]
    fn points_are_independent_and_a_forgotten_one_is_new() {
        let gradients = [[1.0, -2.0], [0.5, 0.3], [-4.0, 1.0]];
        let run = |adam: &mut Adam, k| {
            let mut point = [0.0; 2];
            gradients.iter().for_each(|g| adam.step(k, &mut point, g, 0.1));
            point
        };
        let alone = run(&mut Adam::new(1, 2), 0);
        let mut adam = Adam::new(3, 2);
        adam.step(0, &mut [0.0; 2], &[1e9, -1e9], 1.0);
        assert_eq!(run(&mut adam, 1), alone);
        assert_ne!(run(&mut adam, 1), alone, "it goes on with its moments");
        adam.forget(1);
        assert_eq!(run(&mut adam, 1), alone);
    }
}
