//! Forward kinematics: positions of a robot's points from its joint angles.

use crate::{
    robot::{Axis, Body},
    scalar::{Scalar, Vector, dot, each, subtract},
};

/// The way from the world to a point of a robot: translations, rotations and joints, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    parts: Vec<Part>,
    /// The bodies on the way, by name, and the number of parts after which each of their frames begins.
    bodies: Vec<(String, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// Along the axes of the frame so far (m).
    Shift([f64; 3]),
    /// About an axis of it, by a fixed angle given by its sine and cosine.
    Turn(Axis, f64, f64),
    /// About an axis of it, by the angle of a joint times ±1.
    Joint(Axis, f64, usize),
}

/// A frame: its axes and its origin in the world.
#[derive(Debug, Clone)]
pub struct Frame<S> {
    /// Its axes, as columns.
    pub axes: [Vector<S>; 3],
    /// Its origin (m).
    pub origin: Vector<S>,
}

impl<S: Scalar> Frame<S> {
    /// The world's.
    fn world(like: &S) -> Self {
        let unit = |i: usize| each(|j| like.like(f64::from(u8::from(i == j))));
        Self { axes: [unit(0), unit(1), unit(2)], origin: each(|_| like.like(0.0)) }
    }

    /// Where a point of the frame is in the world.
    pub fn point(&self, at: &[f64; 3]) -> Vector<S> {
        let mut point = self.origin.clone();
        advance(&mut point, &self.axes, at);
        point
    }

    /// A point of the world, in the frame's own coordinates.
    pub fn inside(&self, point: &Vector<S>) -> Vector<S> {
        let away = subtract(point, &self.origin);
        each(|i| dot(&self.axes[i], &away))
    }

    fn turn(&mut self, axis: Axis, sin: &S, cos: &S) {
        let [x, y, z] = &mut self.axes;
        let (a, b) = match axis {
            Axis::X => (y, z),
            Axis::Y => (z, x),
            Axis::Z => (x, y),
        };
        S::turn(a, b, sin, cos);
    }
}

impl Chain {
    /// The chain to a robot's site or to the frame of one of its bodies; joints are numbered by `order`. `None` if the robot has no such part.
    #[must_use]
    pub fn to(robot: &Body, name: &str, order: &[&str]) -> Option<Self> {
        let has = |body: &Body| body.name == name || body.sites.iter().any(|(site, _)| site == name);
        let path = robot.path(&has)?;
        let (mut parts, mut bodies) = (Vec::new(), Vec::new());
        for body in &path {
            if body.position != [0.0; 3] {
                parts.push(Part::Shift(body.position));
            }
            bodies.push((body.name.clone(), parts.len()));
            for (axis, angle) in &body.turns {
                parts.push(fixed(*axis, *angle));
            }
            if let Some(joint) = &body.joint {
                let index = order.iter().position(|known| *known == joint.name)?;
                parts.extend(hinge(joint.axis, index));
            }
        }
        let site = path.last()?.sites.iter().find(|(site, _)| site == name);
        parts.extend(site.map(|(_, at)| Part::Shift(*at)));
        Some(Self { parts, bodies })
    }

    /// The number of parts after which the frames of some bodies on the way begin, in the order of the chain.
    pub(crate) fn stops(&self, bodies: &[&str]) -> Vec<usize> {
        self.bodies.iter().filter(|(name, _)| bodies.contains(&name.as_str())).map(|(_, at)| *at).collect()
    }

    /// The frame at the end of the chain, from all joint angles (rad).
    pub fn frame<S: Scalar>(&self, angles: &[S]) -> Frame<S> {
        let mut frame = Frame::world(&angles[0]);
        self.follow(angles, &mut frame, &[], &mut Vec::new());
        frame
    }

    /// The origins of the bodies (m) that begin at these [`stops`](Self::stops), and a point of the last frame.
    pub(crate) fn points<S: Scalar>(&self, angles: &[S], stops: &[usize], last: &[f64; 3]) -> Vec<Vector<S>> {
        let (mut frame, mut points) = (Frame::world(&angles[0]), Vec::with_capacity(stops.len() + 1));
        self.follow(angles, &mut frame, stops, &mut points);
        points.push(frame.point(last));
        points
    }

    /// Moves a frame along the chain, and appends its origins at the stops. In place: a frame of lanes is large.
    fn follow<S: Scalar>(&self, angles: &[S], frame: &mut Frame<S>, stops: &[usize], origins: &mut Vec<Vector<S>>) {
        let mut stops = stops.iter().peekable();
        for (number, part) in self.parts.iter().enumerate() {
            while stops.next_if_eq(&&number).is_some() {
                origins.push(frame.origin.clone());
            }
            match part {
                Part::Shift(by) => advance(&mut frame.origin, &frame.axes, by),
                Part::Turn(axis, sin, cos) => {
                    let (sin, cos) = (angles[0].like(*sin), angles[0].like(*cos));
                    frame.turn(*axis, &sin, &cos);
                }
                Part::Joint(axis, sign, index) => {
                    let (sin, cos) = angles[*index].sin_cos();
                    frame.turn(*axis, &sin.scale(*sign), &cos);
                }
            }
        }
        for _ in stops {
            origins.push(frame.origin.clone());
        }
    }

    /// The joints that move the end, in ascending order.
    #[must_use]
    pub fn joints(&self) -> Vec<usize> {
        let mut found: Vec<usize> = self
            .parts
            .iter()
            .filter_map(|part| if let Part::Joint(.., index) = part { Some(*index) } else { None })
            .collect();
        found.sort_unstable();
        found
    }
}

/// Moves a point along axes.
fn advance<S: Scalar>(point: &mut Vector<S>, axes: &[Vector<S>; 3], by: &[f64; 3]) {
    for (axis, by) in axes.iter().zip(by) {
        if *by != 0.0 {
            S::advance(point, axis, *by);
        }
    }
}

fn fixed(axis: Axis, angle: f64) -> Part {
    let (sin, cos) = angle.sin_cos();
    Part::Turn(axis, sin, cos)
}

/// A hinge about any direction.
fn hinge(axis: [f64; 3], index: usize) -> Vec<Part> {
    match axis {
        [x, 0.0, 0.0] => vec![Part::Joint(Axis::X, x.signum(), index)],
        [0.0, y, 0.0] => vec![Part::Joint(Axis::Y, y.signum(), index)],
        [0.0, 0.0, z] => vec![Part::Joint(Axis::Z, z.signum(), index)],
        [x, y, z] => {
            // The frame is rotated so that the direction is its x axis, and back.
            let mut there = vec![(Axis::Z, y.atan2(x))];
            if z != 0.0 {
                there.push((Axis::Y, -z.atan2(x.hypot(y))));
            }
            let back = there.iter().rev().map(|(axis, angle)| fixed(*axis, -angle));
            let mut parts: Vec<Part> = there.iter().map(|(axis, angle)| fixed(*axis, *angle)).collect();
            parts.push(Part::Joint(Axis::X, 1.0, index));
            parts.extend(back);
            parts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::robot::{ClawConfig, HandConfig, Joint};

    fn tip(robot: &Body, name: &str, order: &[&str], angles: &[f64]) -> [f64; 3] {
        Chain::to(robot, name, order).unwrap().frame(angles).origin
    }

    fn assert_near(found: [f64; 3], expected: [f64; 3]) {
        let near = found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12);
        assert!(near, "{found:?}, expected {expected:?}");
    }

    #[test]
    fn a_stretched_finger_is_the_sum_of_its_links_and_a_flexed_one_points_up() {
        let (robot, order) = (HandConfig::default().body(), HandConfig::names());
        let mut angles = vec![0.0; 24];
        assert_near(tip(&robot, "MFtip", &order, &angles), [0.099 + 0.045 + 0.025 + 0.026, -0.0115, 0.25]);
        angles[7] = std::f64::consts::FRAC_PI_2; // MFJ2
        assert_near(tip(&robot, "MFtip", &order, &angles), [0.099, -0.0115, 0.25 + 0.045 + 0.025 + 0.026]);
        // The wrist turns about its own axis, 34 mm before the palm's origin.
        let mut angles = vec![0.0; 24];
        angles[0] = 0.1;
        let out = 0.034 + 0.099 + 0.096;
        let (sin, cos) = 0.1_f64.sin_cos();
        let (x, y) = (-0.034 + cos * out + sin * 0.0115, sin * out - cos * 0.0115);
        assert_near(tip(&robot, "MFtip", &order, &angles), [x, y, 0.25]);
    }

    #[test]
    fn a_claws_finger_hangs_and_bends_inwards() {
        let robot = ClawConfig::default().body();
        let mut angles = vec![0.0; 9];
        let (x, y) = (0.055 * 0.5, 0.055 * 0.75_f64.sqrt());
        assert_near(tip(&robot, "C0tip", &ClawConfig::JOINTS, &angles), [x, y, 0.215 - 0.17]);
        angles[1] = 0.3; // positive is inwards
        let bent = tip(&robot, "C0tip", &ClawConfig::JOINTS, &angles);
        assert!(bent[0].hypot(bent[1]) < 0.055 - 0.03, "{bent:?}");
    }

    /// Rodrigues' formula.
    fn about(axis: [f64; 3], angle: f64, point: [f64; 3]) -> [f64; 3] {
        let length = axis.map(|a| a * a).iter().sum::<f64>().sqrt();
        let k = axis.map(|a| a / length);
        let (sin, cos) = angle.sin_cos();
        let along: f64 = (0..3).map(|i| k[i] * point[i]).sum();
        let cross = |i: usize| k[(i + 1) % 3] * point[(i + 2) % 3] - k[(i + 2) % 3] * point[(i + 1) % 3];
        std::array::from_fn(|i| point[i] * cos + cross(i) * sin + k[i] * along * (1.0 - cos))
    }

    #[test]
    fn hinges_turn_about_any_direction_and_frames_in_any_order() {
        let at = [0.3, -0.2, 0.5];
        for axis in [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8], [-0.48, 0.6, -0.64]] {
            let turns = vec![(Axis::Z, 0.4), (Axis::X, -1.1), (Axis::Z, 0.7), (Axis::Y, 0.2)];
            let joint = Joint { name: "J".into(), axis, ..Joint::default() };
            let sites = vec![("tip".to_owned(), at)];
            let body = Body { joint: Some(joint), turns: turns.clone(), sites, ..Body::default() };
            let unit = |axis: Axis| std::array::from_fn(|i| f64::from(u8::from(i == axis.index())));
            // The last rotation is within the frame of the ones before it.
            let turned = |point| turns.iter().rev().fold(point, |point, (axis, by)| about(unit(*axis), *by, point));
            assert_near(tip(&body, "tip", &["J"], &[0.9]), turned(about(axis, 0.9, at)));
        }
    }

    #[test]
    fn a_part_that_is_not_there_has_no_chain() {
        assert!(Chain::to(&ClawConfig::default().body(), "FFtip", &ClawConfig::JOINTS).is_none());
        let thumb = Chain::to(&HandConfig::default().body(), "THtip", &HandConfig::names()).unwrap();
        assert_eq!(thumb.joints(), [0, 1, 19, 20, 21, 22, 23]);
    }
}
