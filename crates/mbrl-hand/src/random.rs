//! Random actions that keep the handled object: the first data for a learned model.

use mbrl_env::Rng;

/// How actions in [−1, 1]ᴬ are drawn, independently for each episode; [`policy`](Self::policy) makes the policies that
/// [`collect_with`](mbrl_env::collect_with) needs.
///
/// Data in which the balls have fallen teach nothing about them, and uniform actions drop them within a second. Which kind of actions
/// keeps the object depends on the task ([`best`](Self::best)); `docs/hand.md` has the shares.
///
/// ```
/// use mbrl_env::Rng;
/// use mbrl_hand::RandomActions;
///
/// let mut policy = RandomActions::best("baoding").policy(24);
/// let action = policy(&[], &mut Rng::new(0));
/// assert!(action.len() == 24 && action.iter().all(|a| (-1.0..=1.0).contains(a)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RandomActions {
    /// Each action uniform, drawn anew at each step.
    Uniform,
    /// Noise of standard deviation `sigma` that forgets a share `beta` of itself per step: targets that wander slowly around rest.
    Smooth {
        /// Standard deviation.
        sigma: f32,
        /// Share that is new per step, in (0, 1].
        beta: f32,
    },
    /// Targets that move by a velocity in either direction, drawn anew every `hold` steps, and then stay: PDDM's method, which moves by
    /// 0.05 to 0.15 per step.
    Velocity {
        /// Smallest and largest speed (per step).
        speed: [f32; 2],
        /// Steps between two draws.
        hold: usize,
    },
}

impl RandomActions {
    /// The kind that keeps the object longest, by task; smooth noise where nothing is known.
    #[must_use]
    pub fn best(task: &str) -> Self {
        match task {
            "valve" => Self::Uniform,
            "write" => Self::Smooth { sigma: 0.15, beta: 0.3 },
            "reorient" | "reorient-adroit" => Self::Smooth { sigma: 0.3, beta: 0.6 },
            _ => Self::Smooth { sigma: 0.2, beta: 0.3 },
        }
    }

    /// A policy with `width` actions, for one episode.
    pub fn policy(self, width: usize) -> impl FnMut(&[f32], &mut Rng) -> Vec<f32> {
        let mut at = vec![0.0_f32; width];
        let mut step = 0;
        move |_, rng| {
            match self {
                Self::Uniform => at.iter_mut().for_each(|a| *a = rng.uniform(-1.0, 1.0)),
                Self::Smooth { sigma, beta } => {
                    let kept = 1.0 - beta;
                    // Keeps the standard deviation constant.
                    let fresh = (1.0 - kept * kept).sqrt() * sigma;
                    at.iter_mut().for_each(|a| *a = kept * *a + fresh * rng.normal());
                }
                Self::Velocity { speed: [low, high], hold } => {
                    if step % hold.max(1) == 0 {
                        for a in &mut at {
                            let side = if rng.below(2) == 0 { -1.0 } else { 1.0 };
                            let by = side * rng.uniform(low, high) * hold.max(1) as f32;
                            *a = (*a + by).clamp(-1.0, 1.0);
                        }
                    }
                }
            }
            step += 1;
            at.iter().map(|a| a.clamp(-1.0, 1.0)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(way: RandomActions, steps: usize) -> Vec<f32> {
        let (mut policy, mut rng) = (way.policy(1), Rng::new(4));
        (0..steps).map(|_| policy(&[], &mut rng)[0]).collect()
    }

    #[test]
    fn smooth_noise_has_its_spread_and_its_memory() {
        let found = drawn(RandomActions::Smooth { sigma: 0.2, beta: 0.3 }, 20_000);
        let n = found.len() as f32;
        let variance = found.iter().map(|a| a * a).sum::<f32>() / n;
        let lagged = found.windows(2).map(|pair| pair[0] * pair[1]).sum::<f32>() / n;
        assert!((variance.sqrt() - 0.2).abs() < 0.01, "{variance}");
        assert!((lagged / variance - 0.7).abs() < 0.03, "{}", lagged / variance);
    }

    #[test]
    fn velocities_are_held_and_lie_within_their_limits() {
        let found = drawn(RandomActions::Velocity { speed: [0.05, 0.15], hold: 2 }, 400);
        for pair in found.chunks_exact(2) {
            assert_eq!(pair[0], pair[1]);
        }
        for pair in found.chunks_exact(2).map(|pair| pair[0]).collect::<Vec<_>>().windows(2) {
            let by = (pair[1] - pair[0]).abs();
            assert!(by < 0.3 + 1e-6 && (by > 0.1 - 1e-6 || pair[1].abs() == 1.0), "{pair:?}");
        }
    }
}
