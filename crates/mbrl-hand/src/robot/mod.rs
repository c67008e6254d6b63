//! Robots as data: bodies, joints, servos and shapes with their units, from which MJCF and kinematics are generated.
//!
//! Lengths are in metres, angles in radians, masses in kilograms, torques in newton metres.

mod claw;
mod five_fingers;

use std::fmt::Write;

pub use claw::ClawConfig;
pub use five_fingers::{HandConfig, Pose};

use crate::task::reorient::about;

/// An axis of a body's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// The first.
    X,
    /// The second.
    Y,
    /// The third.
    Z,
}

/// A hinge and the servo that drives it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Joint {
    /// Name; its servo is called `A_` followed by the name.
    pub name: String,
    /// Direction of the axis in the body's frame, of length 1.
    pub axis: [f64; 3],
    /// Stops (rad).
    pub range: [f64; 2],
    /// Damping (N m s/rad).
    pub damping: f64,
    /// Inertia of the rotor, added to that of the bodies it moves (kg m²).
    pub armature: f64,
    /// Dry friction (N m).
    pub frictionloss: f64,
    /// Stiffness of the servo (N m/rad).
    pub kp: f64,
    /// Its largest torque (N m).
    pub force: f64,
}

/// A shape of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Geom {
    /// The geometry.
    pub shape: Shape,
    /// Mass (kg).
    pub mass: f64,
    /// Bits for what it is, and bits for what it touches: two shapes can touch if what one is shares a bit with what the other touches.
    pub touches: [u32; 2],
    /// Colour: red, green, blue, opacity.
    pub rgba: [f64; 4],
}

/// Geometry in the body's frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A cylinder with round ends, by the centres of the two spheres.
    Capsule {
        /// One end.
        from: [f64; 3],
        /// The other end.
        to: [f64; 3],
        /// Radius.
        radius: f64,
    },
    /// A box that is turned about x.
    Box {
        /// Its centre.
        centre: [f64; 3],
        /// Half of its side lengths.
        half: [f64; 3],
        /// Angle about x.
        roll: f64,
    },
    /// An upright cylinder.
    Cylinder {
        /// Its centre.
        centre: [f64; 3],
        /// Radius.
        radius: f64,
        /// Half of its height.
        half_height: f64,
    },
}

/// A body and its children.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Body {
    /// Name.
    pub name: String,
    /// Its position in the frame of its parent.
    pub position: [f64; 3],
    /// Its orientation there: rotations about these axes, one after the other.
    pub turns: Vec<(Axis, f64)>,
    /// Its joint; without one it is fixed.
    pub joint: Option<Joint>,
    /// Mass and moments of inertia at its origin, for a body whose shapes give none.
    pub inertia: Option<(f64, [f64; 3])>,
    /// Shapes.
    pub geoms: Vec<Geom>,
    /// Points, by name.
    pub sites: Vec<(String, [f64; 3])>,
    /// Its children.
    pub children: Vec<Body>,
}

impl Axis {
    /// Its index.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

impl Body {
    /// All joints of the tree, in the order of its bodies.
    #[must_use]
    pub fn joints(&self) -> Vec<&Joint> {
        let mut found: Vec<&Joint> = self.joint.iter().collect();
        found.extend(self.children.iter().flat_map(Body::joints));
        found
    }

    /// The bodies from this one to the one for which `is_it` returns true, both included.
    #[must_use]
    pub fn path(&self, is_it: &dyn Fn(&Body) -> bool) -> Option<Vec<&Body>> {
        if is_it(self) {
            return Some(vec![self]);
        }
        self.children.iter().find_map(|child| child.path(is_it)).map(|below| [vec![self], below].concat())
    }

    /// As MJCF.
    #[must_use]
    pub fn mjcf(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let _ = write!(out, "<body name=\"{}\" pos=\"{}\"", self.name, numbers(&self.position));
        out.push_str(&orientation(&self.turns));
        out.push('>');
        if let Some(Joint { name, axis, range, damping, armature, frictionloss, .. }) = &self.joint {
            let (axis, range) = (numbers(axis), numbers(range));
            let _ = write!(
                out,
                "<joint name=\"{name}\" type=\"hinge\" axis=\"{axis}\" range=\"{range}\" damping=\"{damping}\" \
                 armature=\"{armature}\" frictionloss=\"{frictionloss}\"/>"
            );
        }
        if let Some((mass, moments)) = &self.inertia {
            let moments = numbers(moments);
            let _ = write!(out, "<inertial pos=\"0 0 0\" mass=\"{mass}\" diaginertia=\"{moments}\"/>");
        }
        for geom in &self.geoms {
            geom.write(out);
        }
        for (name, at) in &self.sites {
            let _ = write!(out, "<site name=\"{name}\" pos=\"{}\" size=\"0.003\"/>", numbers(at));
        }
        for child in &self.children {
            child.write(out);
        }
        out.push_str("</body>\n");
    }

    /// The servos of the joints with these names, in this order, as MJCF.
    #[must_use]
    pub fn servos(&self, order: &[&str]) -> String {
        let joints = self.joints();
        let mut out = String::new();
        for name in order {
            if let Some(Joint { kp, range, force, .. }) = joints.iter().find(|joint| joint.name == *name) {
                let range = numbers(range);
                let _ = writeln!(
                    out,
                    "<position name=\"A_{name}\" joint=\"{name}\" kp=\"{kp}\" ctrlrange=\"{range}\" \
                     forcerange=\"{} {force}\"/>",
                    -force
                );
            }
        }
        out
    }
}

/// An orientation in MJCF: Euler angles if the rotations are about x, y and z in this order, otherwise a quaternion.
fn orientation(turns: &[(Axis, f64)]) -> String {
    if turns.is_empty() {
        return String::new();
    }
    if turns.is_sorted_by(|(a, _), (b, _)| a.index() < b.index()) {
        let mut euler = [0.0; 3];
        for (axis, angle) in turns {
            euler[axis.index()] = *angle;
        }
        return format!(" euler=\"{}\"", numbers(&euler));
    }
    let quaternion =
        turns.iter().fold([1.0, 0.0, 0.0, 0.0], |before, (axis, angle)| product(before, about(axis.index(), *angle)));
    format!(" quat=\"{}\"", numbers(&quaternion))
}

/// Product of quaternions: the second rotation is within the frame of the first.
fn product([a, b, c, d]: [f64; 4], [e, f, g, h]: [f64; 4]) -> [f64; 4] {
    [
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    ]
}

impl Geom {
    fn write(&self, out: &mut String) {
        let _ = match &self.shape {
            Shape::Capsule { from, to, radius } => {
                write!(out, "<geom type=\"capsule\" fromto=\"{}\" size=\"{radius}\"", numbers(&[*from, *to].concat()))
            }
            Shape::Box { centre, half, roll } => {
                let (centre, half) = (numbers(centre), numbers(half));
                write!(out, "<geom type=\"box\" pos=\"{centre}\" size=\"{half}\" euler=\"{roll} 0 0\"")
            }
            Shape::Cylinder { centre, radius, half_height } => {
                let centre = numbers(centre);
                write!(out, "<geom type=\"cylinder\" pos=\"{centre}\" size=\"{radius} {half_height}\"")
            }
        };
        let [is, touches] = self.touches;
        let (mass, rgba) = (self.mass, numbers(&self.rgba));
        let _ = write!(out, " mass=\"{mass}\" contype=\"{is}\" conaffinity=\"{touches}\" rgba=\"{rgba}\"/>");
    }
}

/// Numbers as MJCF writes them.
pub(crate) fn numbers(values: &[f64]) -> String {
    values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
}
