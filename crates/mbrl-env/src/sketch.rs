//! Simple pictures of observations: for reports, animations and examples.

use serde::{Deserialize, Serialize};

/// Draws an observation.
pub type SketchFn = fn(&[f32]) -> Sketch;

/// A picture in the task's own coordinates, `y` upwards.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    /// Lower left and upper right corner, `[x0, y0, x1, y1]` (m); the same for all observations of a task.
    pub view: [f32; 4],
    /// Its shapes, back to front.
    pub shapes: Vec<Shape>,
}

/// What a shape stands for; pictures choose the colours accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// What the agent moves.
    Body,
    /// Where it should go.
    Goal,
    /// What it must not touch.
    Obstacle,
    /// The ground it stands on, rails, walls.
    Ground,
}

/// A shape of a [`Sketch`]; lengths in metres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A line through points.
    Line {
        /// What it stands for.
        role: Role,
        /// Its points `[x, y]`, at least two.
        points: Vec<[f32; 2]>,
        /// Its width.
        width: f32,
    },
    /// A filled disc.
    Disc {
        /// What it stands for.
        role: Role,
        /// Centre `[x, y]`.
        at: [f32; 2],
        /// Radius.
        radius: f32,
    },
    /// A filled polygon.
    Polygon {
        /// What it stands for.
        role: Role,
        /// Its corners `[x, y]`.
        points: Vec<[f32; 2]>,
    },
}
