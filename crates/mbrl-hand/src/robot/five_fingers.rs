//! A right hand with five fingers and 24 joints.

use std::f64::consts::FRAC_PI_4;

use super::{Axis, Body, Geom, Joint, Shape};

/// Contact bits: 1 is any shape of the hand, 2 any object, 128 the last link of a finger, which touches the palm.
const HAND: u32 = 1;
const OBJECT: u32 = 2;
const TIP: u32 = 128;
const DIGITS: [(&str, u32); 5] = [("FF", 4), ("MF", 8), ("RF", 16), ("LF", 32), ("TH", 64)];

const LINKS: [[f64; 4]; 3] = [[0.75, 0.72, 0.68, 1.0], [0.70, 0.66, 0.62, 1.0], [0.45, 0.70, 0.55, 1.0]];
const PALM: [f64; 4] = [0.80, 0.76, 0.70, 1.0];

/// Angles of some joints by their names (rad); the others are 0, or at the stop nearest to 0.
pub type Pose = &'static [(&'static str, f64)];

/// A right hand, palm up, built from capsules and boxes: 24 hinges, each with a position servo; no tendons, no meshes.
///
/// Joints, link lengths, knuckles and ranges are those of a robot hand of human size (wrist 2, four fingers with 4 each, the little
/// finger's metacarpal, thumb 5); palm, masses, servos and poses are our own. In the palm's frame x points to the
/// fingertips, y to the little finger, z out of the palm; the origin lies on the axis of `WRJ0`. Flexing a finger lifts its tip out of the palm.
///
/// ```
/// use mbrl_hand::robot::HandConfig;
///
/// let hand = HandConfig::default().body();
/// assert_eq!(hand.joints().len(), 24);
/// assert!(hand.mjcf().contains("FFtip"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HandConfig {
    /// Height of the wrist, which is fixed in the world (default: 0.25 m).
    pub height: f64,
    /// Roll of the forearm about x: −1.75 rests the hand on the little finger's edge, for writing (default: 0).
    pub roll: f64,
    /// Angle by which the palm's sides are turned up, which keeps balls from rolling off sideways, as they do on a flat palm (default:
    /// 0.4 rad).
    pub cup: f64,
    /// Stiffness of the servos of the wrist and the fingers (default: 6 and 1 N m/rad).
    pub kp: [f64; 2],
    /// Damping of the joints of the wrist and the fingers (default: 0.4 and 0.045 N m s/rad).
    pub damping: [f64; 2],
    /// Rotor inertia (default: 0.004 and 0.0008 kg m², which keeps stiff servos stable at 4 ms).
    pub armature: [f64; 2],
    /// Dry friction (default: 0 and 0.001 N m).
    pub frictionloss: [f64; 2],
    /// Largest torque (default: 10 and 2 N m).
    pub force: [f64; 2],
}

impl Default for HandConfig {
    fn default() -> Self {
        Self {
            height: 0.25,
            roll: 0.0,
            cup: 0.4,
            kp: [6.0, 1.0],
            damping: [0.4, 0.045],
            armature: [0.004, 0.0008],
            frictionloss: [0.0, 0.001],
            force: [10.0, 2.0],
        }
    }
}

impl HandConfig {
    /// Names and stops of the joints (rad), in the order of positions and actions.
    pub const JOINTS: [(&'static str, f64, f64); 24] = [
        ("WRJ1", -0.52, 0.17),
        ("WRJ0", -0.79, 0.61),
        ("FFJ3", -0.44, 0.44),
        ("FFJ2", 0.0, 1.6),
        ("FFJ1", 0.0, 1.6),
        ("FFJ0", 0.0, 1.6),
        ("MFJ3", -0.44, 0.44),
        ("MFJ2", 0.0, 1.6),
        ("MFJ1", 0.0, 1.6),
        ("MFJ0", 0.0, 1.6),
        ("RFJ3", -0.44, 0.44),
        ("RFJ2", 0.0, 1.6),
        ("RFJ1", 0.0, 1.6),
        ("RFJ0", 0.0, 1.6),
        ("LFJ4", 0.0, 0.7),
        ("LFJ3", -0.44, 0.44),
        ("LFJ2", 0.0, 1.6),
        ("LFJ1", 0.0, 1.6),
        ("LFJ0", 0.0, 1.6),
        ("THJ4", -1.0, 1.0),
        ("THJ3", 0.0, 1.3),
        ("THJ2", -0.26, 0.26),
        ("THJ1", -0.52, 0.52),
        ("THJ0", 0.0, 1.571),
    ];

    /// The fingertips, as points by name: first, middle, ring and little finger, thumb.
    pub const TIPS: [&'static str; 5] = ["FFtip", "MFtip", "RFtip", "LFtip", "THtip"];

    /// Lengths of a finger's links: proximal, middle, distal to the tip.
    pub const FINGER: [f64; 3] = [0.045, 0.025, 0.026];
    /// Radii of a finger's links.
    pub const FINGER_RADIUS: [f64; 3] = [0.010, 0.0085, 0.0080];
    /// Lengths of the thumb's links.
    pub const THUMB: [f64; 3] = [0.038, 0.032, 0.0275];
    /// Radii of the thumb's links.
    pub const THUMB_RADIUS: [f64; 3] = [0.012, 0.0105, 0.0095];

    /// Angles of all joints in a pose.
    #[must_use]
    pub fn angles(pose: Pose) -> Vec<f64> {
        let of = |(name, low, high): (&str, f64, f64)| {
            let given = pose.iter().find(|(known, _)| *known == name);
            given.map_or(0.0, |(_, angle)| *angle).clamp(low, high)
        };
        Self::JOINTS.into_iter().map(of).collect()
    }

    /// Names of the joints in their order.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Self::JOINTS.iter().map(|(name, ..)| *name).collect()
    }

    fn joint(&self, name: &str, axis: [f64; 3]) -> Option<Joint> {
        let (_, low, high) = Self::JOINTS.into_iter().find(|(known, ..)| *known == name)?;
        let of = |pair: [f64; 2]| pair[usize::from(!name.starts_with("WR"))];
        Some(Joint {
            name: name.to_owned(),
            axis,
            range: [low, high],
            damping: of(self.damping),
            armature: of(self.armature),
            frictionloss: of(self.frictionloss),
            kp: of(self.kp),
            force: of(self.force),
        })
    }

    /// The wrist and everything attached to it, fixed in the world at its forearm.
    #[must_use]
    pub fn body(&self) -> Body {
        let wrist = Body {
            name: "wrist".into(),
            position: [-0.034, 0.0, 0.0],
            joint: self.joint("WRJ1", [0.0, 0.0, 1.0]),
            geoms: vec![Geom {
                shape: Shape::Capsule { from: [0.0, -0.012, 0.0], to: [0.0, 0.012, 0.0], radius: 0.016 },
                mass: 0.3,
                touches: [0, 0],
                rgba: [0.5, 0.5, 0.5, 1.0],
            }],
            children: vec![self.palm()],
            ..Body::default()
        };
        Body {
            name: "mount".into(),
            position: [0.0, 0.0, self.height],
            turns: if self.roll == 0.0 { Vec::new() } else { vec![(Axis::X, self.roll)] },
            geoms: vec![Geom {
                shape: Shape::Capsule { from: [-0.16, 0.0, 0.0], to: [-0.05, 0.0, 0.0], radius: 0.03 },
                mass: 1.0,
                touches: [0, 0],
                rgba: [0.35, 0.35, 0.4, 1.0],
            }],
            children: vec![wrist],
            ..Body::default()
        }
    }

    /// Three slabs along the hand: a middle one, and one turned up at each of its edges.
    fn palm(&self) -> Body {
        // Half of the thickness, of the middle slab's width and of a side slab's width; length.
        let (t, m, s, length) = (0.011, 0.016, 0.014, 0.090);
        let slab = |x: [f64; 2], y: f64, z: f64, half_width: f64, roll: f64, mass: f64| Geom {
            shape: Shape::Box { centre: [(x[0] + x[1]) / 2.0, y, z], half: [(x[1] - x[0]) / 2.0, half_width, t], roll },
            mass,
            touches: [HAND, OBJECT | TIP],
            rgba: PALM,
        };
        let side = |sign: f64, x: [f64; 2], mass: f64, origin: [f64; 2]| {
            let (sin, cos) = self.cup.sin_cos();
            let (y, z) = (sign * (m + s * cos + t * sin), t + s * sin - t * cos);
            slab([x[0] - origin[0], x[1] - origin[0]], y - origin[1], z, s, sign * self.cup, mass)
        };
        let metacarpal = [0.040, 0.018];
        let little = Body {
            name: "LFmeta".into(),
            position: [metacarpal[0], metacarpal[1], 0.0],
            // Lifts the little finger's edge and flexes it a little.
            joint: self.joint("LFJ4", [0.8, -0.6, 0.0]),
            geoms: vec![side(1.0, [metacarpal[0], metacarpal[0] + 0.050 - 0.006], 0.04, metacarpal)],
            children: vec![self.finger("LF", [0.050, 0.016])],
            ..Body::default()
        };
        Body {
            name: "palm".into(),
            position: [0.034, 0.0, 0.0],
            joint: self.joint("WRJ0", [0.0, -1.0, 0.0]),
            geoms: vec![
                slab([-0.012, length], 0.0, 0.0, m, 0.0, 0.15),
                side(-1.0, [-0.012, length - 0.006], 0.08, [0.0; 2]),
                side(1.0, [-0.012, metacarpal[0] - 0.002], 0.05, [0.0; 2]),
            ],
            children: vec![
                self.finger("FF", [0.094, -0.034]),
                self.finger("MF", [0.099, -0.0115]),
                self.finger("RF", [0.096, 0.0115]),
                little,
                self.thumb(),
            ],
            ..Body::default()
        }
    }

    fn link(digit: &str, link: usize, from: f64, to: f64, radius: f64, mass: f64) -> Geom {
        let own = DIGITS.iter().find(|(name, _)| *name == digit).map_or(0, |(_, bit)| *bit);
        let others: u32 = DIGITS.iter().map(|(_, bit)| bit).sum::<u32>() - own;
        let is = HAND | own | if link == 2 { TIP } else { 0 };
        Geom {
            shape: Shape::Capsule { from: [from, 0.0, 0.0], to: [to, 0.0, 0.0], radius },
            mass,
            touches: [is, OBJECT | others],
            rgba: LINKS[link],
        }
    }

    /// Knuckle (sideways, J3), proximal (J2), middle (J1) and distal link (J0).
    fn finger(&self, digit: &str, at: [f64; 2]) -> Body {
        const MASS: [f64; 3] = [0.015, 0.011, 0.008];
        let (length, radius) = (Self::FINGER, Self::FINGER_RADIUS);
        let link = |i: usize, to: f64| Self::link(digit, i, 0.0, to, radius[i], MASS[i]);
        let flexing = |joint: &str| self.joint(&format!("{digit}{joint}"), [0.0, -1.0, 0.0]);
        let distal = Body {
            name: format!("{digit}distal"),
            position: [length[1], 0.0, 0.0],
            joint: flexing("J0"),
            geoms: vec![link(2, length[2] - radius[2])],
            sites: vec![(format!("{digit}tip"), [length[2], 0.0, 0.0])],
            ..Body::default()
        };
        let middle = Body {
            name: format!("{digit}middle"),
            position: [length[0], 0.0, 0.0],
            joint: flexing("J1"),
            geoms: vec![link(1, length[1])],
            children: vec![distal],
            ..Body::default()
        };
        let proximal = Body {
            name: format!("{digit}proximal"),
            joint: flexing("J2"),
            geoms: vec![link(0, length[0])],
            children: vec![middle],
            ..Body::default()
        };
        Body {
            name: format!("{digit}knuckle"),
            position: [at[0], at[1], 0.0],
            // Towards the little finger for all fingers.
            joint: self.joint(&format!("{digit}J3"), [0.0, 0.0, 1.0]),
            inertia: Some((0.008, [1e-6; 3])),
            children: vec![proximal],
            ..Body::default()
        }
    }

    /// Rolls about its own axis (J4), lifts (J3, J2) and bends towards the fingers (J1, J0); its frame is turned outwards
    /// by 45°.
    fn thumb(&self) -> Body {
        const MASS: [f64; 3] = [0.018, 0.015, 0.012];
        let (length, radius) = (Self::THUMB, Self::THUMB_RADIUS);
        let link = |i: usize, from: f64, to: f64| Self::link("TH", i, from, to, radius[i], MASS[i]);
        let distal = Body {
            name: "THdistal".into(),
            position: [length[1], 0.0, 0.0],
            joint: self.joint("THJ0", [0.0, 0.0, 1.0]),
            geoms: vec![link(2, 0.0, length[2] - radius[2])],
            sites: vec![("THtip".into(), [length[2], 0.0, 0.0])],
            ..Body::default()
        };
        let middle = Body {
            name: "THmiddle".into(),
            joint: self.joint("THJ1", [0.0, 0.0, 1.0]),
            geoms: vec![link(1, 0.0, length[1])],
            children: vec![distal],
            ..Body::default()
        };
        let hub = Body {
            name: "THhub".into(),
            position: [length[0], 0.0, 0.0],
            joint: self.joint("THJ2", [0.0, -1.0, 0.0]),
            inertia: Some((0.004, [1e-6; 3])),
            children: vec![middle],
            ..Body::default()
        };
        let proximal = Body {
            name: "THproximal".into(),
            joint: self.joint("THJ3", [0.0, -1.0, 0.0]),
            geoms: vec![link(0, 0.004, length[0])],
            children: vec![hub],
            ..Body::default()
        };
        Body {
            name: "THbase".into(),
            position: [0.027, -0.036, 0.010],
            turns: vec![(Axis::Z, -FRAC_PI_4)],
            joint: self.joint("THJ4", [1.0, 0.0, 0.0]),
            inertia: Some((0.010, [2e-6; 3])),
            children: vec![proximal],
            ..Body::default()
        }
    }
}
