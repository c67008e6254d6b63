//! Targets of values: λ-returns.

/// The λ-returns `[T]` of a trajectory of T steps, to which a value of its states is fitted.
///
/// ```text
/// G_t = r_t + γ ((1 − λ) V(s_{t+1}) + λ G_{t+1}),    G_T = V(s_T)
/// ```
///
/// With λ = 1 these are Monte Carlo returns, with λ = 0 one-step targets of temporal differences (Sutton and Barto, *Reinforcement Learning*,
/// second edition, chapter 12). `next_values` are V of the states after each step, `[T]`. Where the last step `terminated`, nothing
/// follows it; a trajectory that was cut continues with the value of its last state.
///
/// # Panics
/// If there is not one value for each reward.
///
/// ```
/// use mbrl_policy::lambda_returns;
///
/// // Three steps of 1, then the end: 1 + γ + γ², whatever the values say.
/// assert_eq!(lambda_returns(&[1.0; 3], &[9.0; 3], true, 0.5, 1.0), [1.75, 1.5, 1.0]);
/// // One-step targets.
/// assert_eq!(lambda_returns(&[1.0; 3], &[2.0, 4.0, 8.0], false, 0.5, 0.0), [2.0, 3.0, 5.0]);
/// ```
#[must_use]
pub fn lambda_returns(rewards: &[f32], next_values: &[f32], terminated: bool, discount: f32, lambda: f32) -> Vec<f32> {
    assert_eq!(rewards.len(), next_values.len(), "a value for each reward");
    let mut returns = vec![0.0; rewards.len()];
    let last = rewards.len().wrapping_sub(1);
    let mut later = 0.0;
    for t in (0..rewards.len()).rev() {
        let ahead = match t == last {
            true if terminated => 0.0,
            true => next_values[t],
            false => (1.0 - lambda) * next_values[t] + lambda * later,
        };
        later = rewards[t] + discount * ahead;
        returns[t] = later;
    }
    returns
}

/// Consecutive states with the rewards of their steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    /// Observations, the last one included, `[T+1, O]`.
    pub obs: Vec<f32>,
    /// Rewards, `[T]`.
    pub rewards: Vec<f32>,
    /// Whether the last step led to an end state.
    pub terminated: bool,
}

impl Trajectory {
    /// T, the number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.rewards.len()
    }
}

#[cfg(test)]
mod tests {
    use mbrl_env::Rng;

    use super::*;

    /// A chain of three states: stay with 1/2, go on with 1/2, the end behind the last; a step from state i earns i + 1.
    const STATES: usize = 3;

    /// V of the chain, by its linear equations, from the last state back.
    fn exact(discount: f64) -> [f64; STATES] {
        let mut values = [0.0; STATES];
        let mut next = 0.0;
        for (i, value) in values.iter_mut().enumerate().rev() {
            // V_i = (i + 1) + γ (V_i + V_{i+1}) / 2.
            *value = ((i + 1) as f64 + 0.5 * discount * next) / (1.0 - 0.5 * discount);
            next = *value;
        }
        values
    }

    /// States visited from the first one, for at most `limit` steps, and whether the end was met.
    fn walk(rng: &mut Rng, limit: usize) -> (Vec<usize>, bool) {
        let mut visited = vec![0];
        while visited.len() <= limit {
            let state = visited[visited.len() - 1] + usize::from(rng.uniform(0.0, 1.0) < 0.5);
            visited.push(state);
            if state == STATES {
                return (visited, true);
            }
        }
        (visited, false)
    }

    /// Values that lambda-returns of a table lead to, by many walks.
    fn learned(lambda: f32, discount: f32, limit: usize) -> [f64; STATES] {
        let mut rng = Rng::new(3);
        let mut table = [0.0f64; STATES + 1];
        // Nobody may ask what the end is worth.
        table[STATES] = 77.0;
        for sweep in 0..60 {
            let (mut sums, mut counts) = ([0.0f64; STATES], [0.0f64; STATES]);
            for _ in 0..if sweep < 50 { 200 } else { 20_000 } {
                let (visited, over) = walk(&mut rng, limit);
                let rewards: Vec<f32> = visited[..visited.len() - 1].iter().map(|state| (state + 1) as f32).collect();
                let next: Vec<f32> = visited[1..].iter().map(|state| table[*state] as f32).collect();
                let targets = lambda_returns(&rewards, &next, over, discount, lambda);
                for (state, target) in visited.iter().zip(targets) {
                    sums[*state] += f64::from(target);
                    counts[*state] += 1.0;
                }
            }
            for i in 0..STATES {
                if counts[i] > 0.0 {
                    table[i] = sums[i] / counts[i];
                }
            }
        }
        [table[0], table[1], table[2]]
    }

    #[test]
    fn the_fixed_point_is_the_value_of_the_chain_for_any_lambda_and_any_cut() {
        let exact = exact(0.9);
        for (lambda, limit) in [(0.0, 50), (0.0, 3), (0.7, 4), (0.95, 50), (1.0, 4), (1.0, 50)] {
            let learned = learned(lambda, 0.9, limit);
            for (i, (learned, exact)) in learned.iter().zip(exact).enumerate() {
                let off = (learned - exact).abs();
                assert!(off < 0.03 * exact, "λ = {lambda}, cut at {limit}, state {i}: {learned} for {exact}");
            }
        }
    }

    #[test]
    fn true_values_stay_what_they_are() {
        // In a chain without chance the λ-return of the true values is the true value, for each λ.
        let (discount, rewards) = (0.9f32, [1.0, 2.0, 3.0, 4.0]);
        let mut values = [0.0f32; 5];
        for t in (0..4).rev() {
            values[t] = rewards[t] + discount * values[t + 1];
        }
        for lambda in [0.0, 0.3, 0.95, 1.0] {
            for (steps, terminated) in [(4, true), (3, false), (1, false)] {
                let returns = lambda_returns(&rewards[..steps], &values[1..=steps], terminated, discount, lambda);
                for (value, got) in values.iter().zip(returns) {
                    assert!((value - got).abs() < 1e-5, "λ = {lambda}: {got} for {value}");
                }
            }
        }
        assert!(lambda_returns(&[], &[], false, 0.9, 0.5).is_empty());
    }
}
