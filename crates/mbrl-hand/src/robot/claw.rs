//! A claw with three fingers and nine joints.

use std::f64::consts::{FRAC_PI_3, TAU};

use super::{Axis, Body, Geom, Joint, Shape};

/// Three equal fingers that hang from a disc, 120° apart, each with a joint that swings it sideways (J0) and two that bend it
/// in its radial plane (J1, J2, inwards).
///
/// ```
/// use mbrl_hand::robot::ClawConfig;
///
/// assert_eq!(ClawConfig::default().body().joints().len(), 9);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ClawConfig {
    /// Height of the disc (default: 0.215 m).
    pub height: f64,
    /// Distance of the fingers from the disc's middle (default: 0.055 m).
    pub radius: f64,
    /// Stiffness of the servos (default: 2 N m/rad).
    pub kp: f64,
    /// Damping (default: 0.1 N m s/rad).
    pub damping: f64,
    /// Rotor inertia (default: 0.001 kg m²).
    pub armature: f64,
    /// Largest torque (default: 4 N m).
    pub force: f64,
}

impl Default for ClawConfig {
    fn default() -> Self {
        Self { height: 0.215, radius: 0.055, kp: 2.0, damping: 0.1, armature: 0.001, force: 4.0 }
    }
}

impl ClawConfig {
    /// Names of the joints in their order.
    pub const JOINTS: [&'static str; 9] = ["C0J0", "C0J1", "C0J2", "C1J0", "C1J1", "C1J2", "C2J0", "C2J1", "C2J2"];
    /// The tips, as points by name: centres of the round ends.
    pub const TIPS: [&'static str; 3] = ["C0tip", "C1tip", "C2tip"];
    /// Stops of a finger's joints (rad).
    pub const RANGE: [[f64; 2]; 3] = [[-0.48, 0.48], [-1.57, 1.57], [-1.57, 1.57]];
    /// A finger at rest (rad).
    pub const REST: [f64; 3] = [0.0, -0.7, 1.0];
    /// Lengths of a finger's links.
    pub const LINK: [f64; 3] = [0.050, 0.060, 0.070];
    /// Radii of a finger's links.
    pub const LINK_RADIUS: [f64; 3] = [0.012, 0.012, 0.010];

    /// Direction of a finger from the middle: in the gaps between the arms of a valve at angle 0 (rad).
    #[must_use]
    pub fn direction(finger: usize) -> f64 {
        FRAC_PI_3 + TAU / 3.0 * finger as f64
    }

    /// The disc and its fingers.
    #[must_use]
    pub fn body(&self) -> Body {
        Body {
            name: "base".into(),
            position: [0.0, 0.0, self.height],
            geoms: vec![Geom {
                shape: Shape::Cylinder { centre: [0.0; 3], radius: 0.075, half_height: 0.006 },
                mass: 0.1,
                touches: [0, 0],
                rgba: [0.7, 0.75, 0.8, 0.25],
            }],
            children: (0..3).map(|finger| self.finger(finger)).collect(),
            ..Body::default()
        }
    }

    fn finger(&self, finger: usize) -> Body {
        const MASS: [f64; 3] = [0.09, 0.09, 0.03];
        const COLOUR: [[f64; 4]; 3] = [[0.55, 0.58, 0.62, 1.0], [0.6, 0.64, 0.68, 1.0], [0.45, 0.70, 0.55, 1.0]];
        let (length, radius) = (Self::LINK, Self::LINK_RADIUS);
        let own = 4 << finger;
        let joint = |j: usize, axis: [f64; 3]| Joint {
            name: format!("C{finger}J{j}"),
            axis,
            range: Self::RANGE[j],
            damping: self.damping,
            armature: self.armature,
            frictionloss: 0.0,
            kp: self.kp,
            force: self.force,
        };
        let link = |i: usize, to: f64| Geom {
            shape: Shape::Capsule { from: [0.0; 3], to: [0.0, 0.0, -to], radius: radius[i] },
            mass: MASS[i],
            touches: [1 | own, 2 | (28 - own)],
            rgba: COLOUR[i],
        };
        let end = length[2] - radius[2];
        let last = Body {
            name: format!("C{finger}c"),
            position: [0.0, 0.0, -length[1]],
            joint: Some(joint(2, [0.0, 1.0, 0.0])),
            geoms: vec![link(2, end)],
            sites: vec![(format!("C{finger}tip"), [0.0, 0.0, -end])],
            ..Body::default()
        };
        let middle = Body {
            name: format!("C{finger}b"),
            position: [0.0, 0.0, -length[0]],
            joint: Some(joint(1, [0.0, 1.0, 0.0])),
            geoms: vec![link(1, length[1])],
            children: vec![last],
            ..Body::default()
        };
        let direction = Self::direction(finger);
        Body {
            name: format!("C{finger}a"),
            position: [self.radius * direction.cos(), self.radius * direction.sin(), 0.0],
            turns: vec![(Axis::Z, direction)],
            joint: Some(joint(0, [1.0, 0.0, 0.0])),
            geoms: vec![link(0, length[0])],
            children: vec![middle],
            ..Body::default()
        }
    }
}
