//! Plans that continue where the last one stopped.

use serde::{Deserialize, Serialize};

/// What fills the end of a plan that was shifted by the executed steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Tail {
    /// The middle of the action range (default; mbrl-lib, and PETS's zeros where the range is symmetric).
    #[default]
    Middle,
    /// The last action, repeated (PDDM, iCEM).
    Last,
}

/// Shifts a plan `[H, A]` in units of half the action range by `executed` steps, in place.
pub(crate) fn shift(plan: &mut [f32], width: usize, executed: usize, tail: Tail) {
    let gone = executed.saturating_mul(width).min(plan.len());
    let last = plan[plan.len() - width..].to_vec();
    plan.copy_within(gone.., 0);
    let kept = plan.len() - gone;
    for action in plan[kept..].chunks_exact_mut(width) {
        match tail {
            Tail::Middle => action.fill(0.0),
            Tail::Last => action.copy_from_slice(&last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_moves_up_by_whole_actions() {
        let plan = [1.0, -1.0, 2.0, -2.0, 3.0, -3.0];
        let shifted = |executed, tail| {
            let mut plan = plan;
            shift(&mut plan, 2, executed, tail);
            plan
        };
        assert_eq!(shifted(0, Tail::Middle), plan);
        assert_eq!(shifted(1, Tail::Middle), [2.0, -2.0, 3.0, -3.0, 0.0, 0.0]);
        assert_eq!(shifted(1, Tail::Last), [2.0, -2.0, 3.0, -3.0, 3.0, -3.0]);
        assert_eq!(shifted(2, Tail::Last), [3.0, -3.0, 3.0, -3.0, 3.0, -3.0]);
        assert_eq!(shifted(9, Tail::Middle), [0.0; 6]);
        assert_eq!(shifted(9, Tail::Last), [3.0, -3.0, 3.0, -3.0, 3.0, -3.0]);
    }
}
