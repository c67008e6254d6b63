//! Where a simulation is looked at from.

use super::Model;
use crate::{EnvError, check_finite};

/// Where a picture of a simulation is taken from.
#[derive(Debug, Clone, PartialEq)]
pub enum Camera {
    /// A camera that the model brings along, by its name.
    Named(String),
    /// One in free space.
    Free(View),
}

/// A camera in free space, by the point that it looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// What it looks at (m).
    pub lookat: [f64; 3],
    /// How far away it is from there (m).
    pub distance: f64,
    /// Direction that it looks into, about the vertical: 0 along x, 90 along y (degrees).
    pub azimuth: f64,
    /// How far it looks up: −90 straight down (degrees).
    pub elevation: f64,
    /// Body with which it moves: the horizontal place of the centre of mass of all that hangs on it is added to `lookat`.
    /// Its height is not, so that hops can be seen.
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

/// A camera of which all parts are known to be there.
#[derive(Debug, Clone)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "what draws is to be had on Linux alone"))]
pub(super) enum Placed {
    Fixed(usize),
    Free(View, Option<usize>),
}

impl Camera {
    /// Finds what it names.
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
