//! Actions in [−1, 1] and in the environment's units.

use mbrl_env::{ActionSpace, BoxSpace};

use crate::AgentError;

/// Between actions in [−1, 1], as networks make and see them, and those of an environment: `a = centre + half · u`.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionScale {
    space: BoxSpace,
    centre: Vec<f32>,
    half: Vec<f32>,
}

impl ActionScale {
    /// For a space of actions.
    ///
    /// # Errors
    /// [`AgentError::Config`] for discrete actions and for a box without bounds.
    pub fn new(actions: &ActionSpace) -> Result<Self, AgentError> {
        let refuse = |value: String, rule| Err(AgentError::Config { field: "actions", value, rule });
        let space = match actions {
            ActionSpace::Box(space) if space.is_bounded() => space.clone(),
            ActionSpace::Box(_) => return refuse("unbounded".into(), "finite bounds: a policy fills the whole range"),
            ActionSpace::Discrete(n) => {
                let rule = "real numbers within bounds: these policies and critics know no choices; plan instead, with \
                            agent.kind = \"model-based\"";
                return refuse(format!("{n} choices"), rule);
            }
            other => return refuse(format!("{other:?}"), "real numbers within bounds"),
        };
        // Halves first: the range of huge bounds is beyond `f32`.
        let both = || space.low().iter().zip(space.high());
        let centre = both().map(|(low, high)| 0.5 * low + 0.5 * high).collect();
        let half = both().map(|(low, high)| 0.5 * high - 0.5 * low).collect();
        Ok(Self { centre, half, space })
    }

    /// The environment's bounds.
    #[must_use]
    pub fn space(&self) -> &BoxSpace {
        &self.space
    }

    /// A, entries of an action.
    #[must_use]
    pub fn width(&self) -> usize {
        self.centre.len()
    }

    /// Half the range of each entry: what an action moves for a move of 1 in [−1, 1].
    #[must_use]
    pub fn half(&self) -> &[f32] {
        &self.half
    }

    /// Actions `[N, A]` in [−1, 1] become those of the environment.
    pub fn to_env(&self, actions: &mut [f32]) {
        let (low, high) = (self.space.low(), self.space.high());
        for row in actions.chunks_exact_mut(self.width()) {
            for (i, a) in row.iter_mut().enumerate() {
                // So −1 and 1 are the bounds to the bit; in between rounding may lead out of them.
                *a = (low[i] * (0.5 - 0.5 * *a) + high[i] * (0.5 + 0.5 * *a)).clamp(low[i], high[i]);
            }
        }
    }

    /// Appends actions `[N, A]` of the environment as those in [−1, 1]; 0 for an entry that is fixed. Actions outside the bounds
    /// are not clipped.
    pub fn to_unit(&self, actions: &[f32], into: &mut Vec<f32>) {
        for row in actions.chunks_exact(self.width()) {
            let scaled = row.iter().zip(self.centre.iter().zip(&self.half));
            into.extend(scaled.map(|(a, (centre, half))| if *half > 0.0 { (a - centre) / half } else { 0.0 }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_ends_and_back_again_is_the_same() {
        let space = BoxSpace::new([-2.0, 0.1, 5.0, -3e38], [2.0, 0.7, 5.0, 3e38]).unwrap();
        let scale = ActionScale::new(&ActionSpace::Box(space.clone())).unwrap();
        let mut actions = vec![-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 0.3, 0.0];
        let unit = actions.clone();
        scale.to_env(&mut actions);
        assert_eq!(&actions[..4], space.low());
        assert_eq!(&actions[4..8], space.high());
        assert!((actions[9] - 0.55).abs() < 1e-6 && actions[8] == 0.0);
        let mut back = Vec::new();
        scale.to_unit(&actions, &mut back);
        for (i, (back, unit)) in back.iter().zip(&unit).enumerate() {
            let expected = if i % 4 == 2 { 0.0 } else { *unit };
            assert!((back - expected).abs() < 1e-6, "{i}: {back} and {expected}");
        }
    }

    #[test]
    fn choices_and_ranges_without_end_are_refused() {
        let told = |space| ActionScale::new(&space).unwrap_err().to_string();
        let choices = told(ActionSpace::Discrete(3));
        assert!(choices.contains("actions = 3 choices") && choices.contains("agent.kind"), "{choices}");
        assert!(told(ActionSpace::Box(BoxSpace::unbounded(2))).contains("finite bounds"));
    }
}
