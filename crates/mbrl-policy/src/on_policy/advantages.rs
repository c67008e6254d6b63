//! How much better actions were than expected.

/// Advantages of the steps of an episode by generalised advantage estimation (Schulman et al. 2016), `[T]`:
/// `Σ_k (γλ)^k (r_{t+k} + γ V(s_{t+k+1}) − V(s_{t+k}))`. With λ = 1 they are discounted returns less their expectation, with λ = 0
/// errors of one step.
///
/// `values` are those of the states before each step and after the last one, `[T + 1]`; where the episode was truncated the last one
/// stands for all that would have followed, where it terminated it must be 0.
///
/// ```
/// use mbrl_policy::advantages;
///
/// // Without an expectation and discount: what is still to come.
/// assert_eq!(advantages(&[1.0, 2.0, 4.0], &[0.0; 4], 1.0, 1.0), [7.0, 6.0, 4.0]);
/// ```
///
/// # Panics
/// If there is not one value more than rewards.
#[must_use]
pub fn advantages(rewards: &[f64], values: &[f64], discount: f64, lambda: f64) -> Vec<f64> {
    assert_eq!(values.len(), rewards.len() + 1, "one value for each state");
    let mut found = vec![0.0; rewards.len()];
    let mut later = 0.0;
    for t in (0..rewards.len()).rev() {
        let error = rewards[t] + discount * values[t + 1] - values[t];
        later = error + discount * lambda * later;
        found[t] = later;
    }
    found
}

/// Discounted sums of the rewards of an episode from each step on, `[T]`, what comes after it being worth `after`.
pub(super) fn returns(rewards: &[f64], after: f64, discount: f64) -> Vec<f64> {
    let mut sums = vec![0.0; rewards.len()];
    let mut sum = after;
    for (place, reward) in sums.iter_mut().zip(rewards).rev() {
        sum = reward + discount * sum;
        *place = sum;
    }
    sums
}

/// To mean 0 and standard deviation 1 (1e-6 is added to it; mjrl).
pub(super) fn standardise(values: &mut [f64]) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    values.iter_mut().for_each(|v| *v = (*v - mean) / (std + 1e-6));
}

#[cfg(test)]
mod tests {
    use super::*;

    const REWARDS: [f64; 3] = [1.0, -2.0, 0.5];
    const VALUES: [f64; 4] = [0.3, 1.1, -0.7, 2.0];

    #[test]
    fn the_two_ends_are_returns_and_errors_of_one_step() {
        let close = |a: &[f64], b: &[f64]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
        let full: Vec<f64> = returns(&REWARDS, VALUES[3], 0.9).iter().zip(VALUES).map(|(r, v)| r - v).collect();
        close(&advantages(&REWARDS, &VALUES, 0.9, 1.0), &full);
        let single: Vec<f64> = (0..3).map(|t| REWARDS[t] + 0.9 * VALUES[t + 1] - VALUES[t]).collect();
        close(&advantages(&REWARDS, &VALUES, 0.9, 0.0), &single);
        // In between, by the sum that defines them.
        let sum: f64 = (0..3).map(|k| (0.9_f64 * 0.8).powi(k as i32) * single[k]).sum();
        close(&advantages(&REWARDS, &VALUES, 0.9, 0.8)[..1], &[sum]);
        close(&returns(&REWARDS, 2.0, 0.5), &[1.0 - 1.0 + 0.125 + 0.25, -2.0 + 0.25 + 0.5, 1.5]);
    }

    #[test]
    fn standardised_values_have_mean_zero_and_deviation_one() {
        let mut values = [1.0, 2.0, 6.0, 7.0];
        standardise(&mut values);
        let mean: f64 = values.iter().sum::<f64>() / 4.0;
        let square: f64 = values.iter().map(|v| v * v).sum::<f64>() / 4.0;
        assert!(mean.abs() < 1e-12 && (square - 1.0).abs() < 1e-5);
        // Of equal ones nothing is left.
        let mut flat = [3.0; 4];
        standardise(&mut flat);
        assert_eq!(flat, [0.0; 4]);
    }
}
