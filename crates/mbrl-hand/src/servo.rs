//! From actions to servo commands.

use crate::{scalar::Scalar, scene::PERIOD};

/// How an action in [−1, 1]ᴬ becomes commanded angles: stretched over the range on either side of the rest pose, then limited to
/// the angle that the joint may turn in a step from where it is.
///
/// `c = rest + scale · a · (high − rest)` for a > 0, `rest + scale · a · (rest − low)` otherwise; then
/// `c = q + clip(c − q, ± speed · 0.1 s)`, within the stops. The limit on the speed bounds the servos' forces.
#[derive(Debug, Clone, PartialEq)]
pub struct Servo {
    /// Angles that action 0 commands (rad).
    pub rest: Vec<f64>,
    /// Stops (rad).
    pub low: Vec<f64>,
    /// Stops (rad).
    pub high: Vec<f64>,
    /// Share of the range that is used.
    pub scale: f64,
    /// Largest speed (rad/s).
    pub speed: f64,
}

impl Servo {
    /// The number of joints.
    #[must_use]
    pub fn width(&self) -> usize {
        self.rest.len()
    }

    /// The angle commanded to a joint by its action, with the joint at `angle` (rad).
    pub fn command<S: Scalar>(&self, joint: usize, action: &S, angle: &S) -> S {
        let (rest, low, high) = (self.rest[joint], self.low[joint], self.high[joint]);
        let up = action.clamp(0.0, 1.0).scale(self.scale * (high - rest));
        let down = action.clamp(-1.0, 0.0).scale(self.scale * (rest - low));
        let step = self.speed * PERIOD;
        let by = ((up + down).shift(rest) - angle.clone()).clamp(-step, step);
        (angle.clone() + by).clamp(low, high)
    }

    /// The angles commanded by an action `[A]`, with the joints at `angles` (rad).
    pub fn commands(&self, action: &[f32], angles: &[f64], commands: &mut [f64]) {
        for (joint, command) in commands.iter_mut().enumerate() {
            *command = self.command(joint, &f64::from(action[joint]), &angles[joint]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_the_formula() {
        let servo = Servo { rest: vec![0.2], low: vec![-0.4], high: vec![1.2], scale: 0.5, speed: 3.0 };
        let command = |action: f64, angle: f64| servo.command(0, &action, &angle);
        let near =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        near(command(0.0, 0.2), 0.2);
        near(command(0.4, 0.2), 0.2 + 0.5 * 0.4 * 1.0);
        near(command(-1.0, 0.2), 0.2 - 0.5 * 0.6);
        near(command(1.0, 0.2), 0.5); // 0.7 without the limit on the speed
        near(command(9.0, 0.5), 0.7); // as 1
        near(command(-1.0, 1.19), 0.89);
        near(command(0.0, 1.6), 1.2); // beyond the stop: back to it at most
    }
}
