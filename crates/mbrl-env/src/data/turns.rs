//! Wrapped angles whose turns count: a cable that winds up, a joint with several turns behind a single-turn encoder.
//!
//! A compass is the same after a turn, and a model that sees its sine and cosine loses nothing. If a spring counts the
//! turns, sine and cosine are not enough: the column must be unwrapped. The data decide which case it is: the changes of the
//! observation are fitted by a linear function of everything that a periodic model sees, once with and once without the
//! unwrapped angle.

/// Number of rows examined.
const ROWS: usize = 20_000;
/// Maximum number of columns of such a function; with more, nothing is decided.
const TERMS: usize = 64;
/// Share of the squared error that the unwrapped angle must explain.
const SHARE: f64 = 0.5;
/// Rows per term below which a function would fit anything.
const ROWS_A_TERM: usize = 20;

/// A step: what a periodic model sees of it, the unwrapped angle, and how the observation changed.
pub(super) struct Step {
    pub(super) seen: Vec<f64>,
    pub(super) angle: f64,
    pub(super) changes: Vec<f64>,
}

/// The value of an angle that continues from `before` by less than half a turn.
pub(super) fn unwrapped(before: f64, value: f64, turn: f64) -> f64 {
    value + turn * ((before - value) / turn).round()
}

/// Whether an unwrapped angle explains more than its sine and cosine.
pub(super) fn count(steps: &[Step]) -> bool {
    let Some(first) = steps.first() else { return false };
    let (terms, targets) = (first.seen.len() + 2, first.changes.len());
    if terms > TERMS || steps.len() < ROWS_A_TERM * terms {
        return false;
    }
    let rows: Vec<Vec<f64>> = steps
        .iter()
        .step_by(steps.len().div_ceil(ROWS))
        .map(|step| [&[1.0], step.seen.as_slice(), &[step.angle]].concat())
        .collect();
    (0..targets).any(|target| {
        let values: Vec<f64> =
            steps.iter().step_by(steps.len().div_ceil(ROWS)).map(|step| step.changes[target]).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let all: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let without = residual(&rows, &values, terms - 1);
        let with = residual(&rows, &values, terms);
        // If the fit is already exact to the last digit, nothing more is needed.
        without > 1e-6 * all && with < (1.0 - SHARE) * without
    })
}

/// Squared error of the best linear function of the first `terms` entries of each row.
fn residual(rows: &[Vec<f64>], values: &[f64], terms: usize) -> f64 {
    // Gram-Schmidt on columns, twice for accuracy: columns that add nothing new drop out.
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(terms);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let project = |basis: &[Vec<f64>], column: &mut [f64]| {
        for _ in 0..2 {
            for direction in basis {
                let share = dot(direction, column);
                column.iter_mut().zip(direction).for_each(|(c, d)| *c -= share * d);
            }
        }
    };
    for term in 0..terms {
        let mut column: Vec<f64> = rows.iter().map(|row| row[term]).collect();
        let before = dot(&column, &column);
        project(&basis, &mut column);
        let after = dot(&column, &column);
        if after > 1e-10 * before {
            let length = after.sqrt();
            column.iter_mut().for_each(|c| *c /= length);
            basis.push(column);
        }
    }
    let mut rest = values.to_vec();
    project(&basis, &mut rest);
    dot(&rest, &rest)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// An angle that is driven back and forth over several turns; a spring or a pendulum's weight affects its speed.
    fn steps(force: fn(f64) -> f64) -> Vec<Step> {
        let mut state = 3_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 23) - 1.0
        };
        let (mut angle, mut speed) = (0.0_f64, 0.0_f64);
        (0..2000)
            .map(|_| {
                let torque = random();
                let before = (angle, speed);
                speed += 0.1 * (force(angle) - 0.05 * speed + 4.0 * torque) + 0.01 * random();
                angle += 0.1 * speed;
                let seen = vec![before.0.sin(), before.0.cos(), before.1, torque];
                Step { seen, angle: before.0, changes: vec![angle - before.0, speed - before.1] }
            })
            .collect()
    }

    #[test]
    fn turns_count_where_a_spring_does_and_not_where_weight_pulls() {
        let spring = steps(|angle| -0.3 * angle);
        assert!(spring.iter().any(|step| step.angle.abs() > TAU), "more than a turn");
        assert!(count(&spring));
        let weight = steps(|angle| 2.0 * angle.sin());
        assert!(weight.iter().any(|step| step.angle.abs() > TAU), "more than a turn");
        assert!(!count(&weight));
        assert!(!count(&spring[..50]), "of few rows nothing is said");
        assert!(!count(&[]));
    }

    #[test]
    fn an_angle_goes_on_the_short_way() {
        assert!((unwrapped(3.1, -3.1, TAU) - (TAU - 3.1)).abs() < 1e-12);
        assert!((unwrapped(725.0, 3.0, 360.0) - 723.0).abs() < 1e-12);
        assert_eq!(unwrapped(0.1, 0.2, TAU), 0.2);
    }
}
