//! Cameras that look at a simulation.

use super::Model;
use crate::{EnvError, check_finite};

/// The camera that takes a picture of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub enum Camera {
    /// A camera that the model defines, by its name.
    Named(String),
    /// One in free space.
    Free(View),
}

/// A camera in free space, given by the point that it looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// What it looks at (m).
    pub lookat: [f64; 3],
    /// Its distance from that point (m).
    pub distance: f64,
    /// Its viewing direction about the vertical: 0 along x, 90 along y (degrees).
    pub azimuth: f64,
    /// How far it looks up: −90 straight down (degrees).
    pub elevation: f64,
    /// Body that it follows: the horizontal position of the centre of mass of the body and everything attached to it is added to `lookat`.
    /// The height is not, so that hops can be seen.
    pub follow: Option<String>,
}

impl View {
    /// The whole model, as the engine frames it.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let (statistic, global) = (model.inner().stat(), &model.inner().vis().global);
        Self {
            lookat: statistic.center,
            // The engine's own factor (`mjv_defaultFreeCamera`).
            distance: 1.5 * statistic.extent,
            azimuth: f64::from(global.azimuth),
            elevation: f64::from(global.elevation),
            follow: None,
        }
    }
}

/// A camera whose parts are all known to exist.
#[derive(Debug, Clone)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "what draws is to be had on Linux alone"))]
pub(super) enum Placed {
    Fixed(usize),
    Free(View, Option<usize>),
}

impl Camera {
    /// Finds the camera or body that it names.
    pub(super) fn place(&self, model: &Model) -> Result<Placed, EnvError> {
        match self {
            Self::Named(name) => Ok(Placed::Fixed(model.camera(name)?)),
            Self::Free(view) => {
                let [x, y, z] = view.lookat;
                check_finite("camera", &[x, y, z, view.distance, view.azimuth, view.elevation].map(|v| v as f32))?;
                if view.distance <= 0.0 {
                    let (field, value) = ("distance", view.distance.to_string());
                    return Err(EnvError::Config { field, value, rule: "a positive number of metres" });
                }
                let follow = view.follow.as_deref().map(|name| model.body(name)).transpose()?;
                Ok(Placed::Free(view.clone(), follow))
            }
        }
    }
}
