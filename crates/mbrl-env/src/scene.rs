//! The bodies of a simulation as plain solids: for pictures that can be turned.

use serde::{Deserialize, Serialize};

/// A simulation as solids in their places, and where to look at it from first.
///
/// Every scene of an environment has the same solids in the same order: only their places differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scene {
    /// The solids.
    pub solids: Vec<Solid>,
    /// The point that the view looks at (m).
    pub lookat: [f32; 3],
    /// Distance from that point (m).
    pub distance: f32,
    /// Viewing direction about the vertical: 0 along x, 90 along y (degrees).
    pub azimuth: f32,
    /// Elevation of the viewing direction: −90 straight down (degrees).
    pub elevation: f32,
}

/// A solid in its place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Solid {
    /// Its form.
    pub form: Form,
    /// Half its extents along its own axes (m): for a ball, its radius three times; for a capsule and a cylinder along z, their radius
    /// twice and half the length of the straight part; for a plane, 0 in z.
    pub size: [f32; 3],
    /// Red, green, blue and opacity, 0 to 1.
    pub colour: [f32; 4],
    /// Place of its centre (m).
    pub at: [f32; 3],
    /// Its own axes, as columns of a rotation in row-major order.
    pub axes: [f32; 9],
}

/// The form of a [`Solid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Form {
    /// A flat rectangle.
    Plane,
    /// A ball or, stretched along its axes, an ellipsoid.
    Ellipsoid,
    /// A cylinder with round ends.
    Capsule,
    /// A cylinder.
    Cylinder,
    /// A box; a mesh is represented by its bounding box.
    Box,
}

impl Scene {
    /// Solids, looked at from a distance (m) in a direction (degrees).
    #[must_use]
    pub fn new(solids: Vec<Solid>, lookat: [f32; 3], distance: f32, [azimuth, elevation]: [f32; 2]) -> Self {
        Self { solids, lookat, distance, azimuth, elevation }
    }
}

impl Solid {
    /// A solid at the origin, its axes those of the world.
    #[must_use]
    pub fn new(form: Form, size: [f32; 3], colour: [f32; 4]) -> Self {
        Self { form, size, colour, at: [0.0; 3], axes: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0] }
    }

    /// In another place.
    #[must_use]
    pub fn at(mut self, at: [f32; 3], axes: [f32; 9]) -> Self {
        (self.at, self.axes) = (at, axes);
        self
    }
}
