//! A robot and its world, compiled from MJCF.

use std::{fmt, fs, path::Path, sync::Arc};

use mujoco_rs::{
    error::MjModelError,
    prelude::{MjModel, MjtObjBase},
};

use super::engine;
use crate::EnvError;

/// The version of the engine that this crate is built for.
pub const ENGINE_VERSION: &str = "3.17.0";

/// A compiled model: cheap to clone, shared by all its simulations, immutable.
///
/// ```
/// use mbrl_env::mujoco::Model;
/// let model = Model::from_xml(
///     r#"<mujoco>
///          <worldbody>
///            <body name="mass"><joint name="slide" type="slide" axis="1 0 0"/><geom size="0.1"/></body>
///          </worldbody>
///          <actuator><motor joint="slide" ctrlrange="-1 1" ctrllimited="true"/></actuator>
///        </mujoco>"#,
/// )?;
/// assert_eq!((model.nq(), model.nv(), model.nu()), (1, 1, 1));
/// assert_eq!(model.body("mass")?, 1); // the world is body 0
/// let unknown = model.body("mas").unwrap_err().to_string();
/// assert_eq!(unknown, "MJCF text has no body `mas`; it has: world, mass");
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Clone)]
pub struct Model {
    inner: Arc<MjModel>,
    origin: Arc<str>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("origin", &self.origin)
            .field("nq", &self.nq())
            .field("nv", &self.nv())
            .field("nu", &self.nu())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Compiles an MJCF (or URDF) file; files that it includes are looked up in the same folder.
    ///
    /// # Errors
    /// [`EnvError::Io`] for a file that cannot be read, [`EnvError::Format`] for one that the engine refuses, with its
    /// reason, [`EnvError::Engine`] for another version of the engine.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, EnvError> {
        let path = path.as_ref();
        ready()?;
        // Read here first: the engine does not distinguish a missing file from an unreadable one.
        fs::read(path).map_err(|source| EnvError::Io { path: path.to_owned(), source })?;
        let refused = |reason: String| EnvError::Format { path: path.to_owned(), reason };
        match path.to_str() {
            None => return Err(refused("the path is no UTF-8, as the engine needs it".into())),
            Some(text) if text.contains('\0') => return Err(refused("the path holds a NUL character".into())),
            Some(_) => {}
        }
        let model = MjModel::from_xml(path).map_err(|error| refused(in_one_line(&error)))?;
        Self::checked(model, &path.display().to_string()).map_err(refused)
    }

    /// Compiles MJCF text.
    ///
    /// # Errors
    /// [`EnvError::Malformed`] for text that the engine refuses, with its reason, [`EnvError::Engine`] for another
    /// version of the engine.
    pub fn from_xml(text: &str) -> Result<Self, EnvError> {
        ready()?;
        let refused = |reason: String| EnvError::Malformed { what: "MJCF text", reason };
        let model = MjModel::from_xml_string(text).map_err(|error| refused(in_one_line(&error)))?;
        Self::checked(model, "MJCF text").map_err(refused)
    }

    /// Refuses models from which no simulation can be made.
    fn checked(model: MjModel, origin: &str) -> Result<Self, String> {
        if model.nplugin() > 0 {
            return Err("it uses plugins of the engine, which are not loaded here".into());
        }
        if !(model.opt().timestep.is_finite() && model.opt().timestep > 0.0) {
            return Err(format!("timestep {}: a positive number of seconds", model.opt().timestep));
        }
        // Names are read as `str` later.
        let names: Vec<u8> = model.names().iter().map(|char| *char as u8).collect();
        if let Err(error) = std::str::from_utf8(&names) {
            return Err(format!("its names are no UTF-8: {error}"));
        }
        engine::try_data(&model)?;
        Ok(Self { inner: Arc::new(model), origin: origin.into() })
    }

    /// Its origin: a path, or `MJCF text`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Number of entries of the position vector `qpos`.
    #[must_use]
    pub fn nq(&self) -> usize {
        self.inner.qpos0().len()
    }

    /// Number of degrees of freedom: entries of the velocity vector `qvel`.
    #[must_use]
    pub fn nv(&self) -> usize {
        self.inner.nv() as usize
    }

    /// Number of controls.
    #[must_use]
    pub fn nu(&self) -> usize {
        self.inner.nu() as usize
    }

    /// Duration of one step of the engine (s).
    #[must_use]
    pub fn timestep(&self) -> f64 {
        self.inner.opt().timestep
    }

    /// Index of a body.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`], listing the known ones; the same holds for the other look-ups.
    pub fn body(&self, name: &str) -> Result<usize, EnvError> {
        self.find("body", MjtObjBase::mjOBJ_BODY, name, self.inner.nbody() as usize)
    }

    /// Index of a joint.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`].
    pub fn joint(&self, name: &str) -> Result<usize, EnvError> {
        self.find("joint", MjtObjBase::mjOBJ_JOINT, name, self.inner.njnt() as usize)
    }

    /// Index of an actuator.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`].
    pub fn actuator(&self, name: &str) -> Result<usize, EnvError> {
        self.find("actuator", MjtObjBase::mjOBJ_ACTUATOR, name, self.inner.nactuator() as usize)
    }

    /// Index of a site.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`].
    pub fn site(&self, name: &str) -> Result<usize, EnvError> {
        self.find("site", MjtObjBase::mjOBJ_SITE, name, self.inner.nsite() as usize)
    }

    /// Index of a geom.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`].
    pub fn geom(&self, name: &str) -> Result<usize, EnvError> {
        self.find("geom", MjtObjBase::mjOBJ_GEOM, name, self.inner.ngeom() as usize)
    }

    /// Index of a camera.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`].
    pub fn camera(&self, name: &str) -> Result<usize, EnvError> {
        self.find("camera", MjtObjBase::mjOBJ_CAMERA, name, self.inner.ncam() as usize)
    }

    /// The engine's own model, for everything that has no method here.
    #[must_use]
    pub fn inner(&self) -> &Arc<MjModel> {
        &self.inner
    }

    pub(super) fn find(
        &self,
        what: &'static str,
        kind: MjtObjBase,
        name: &str,
        count: usize,
    ) -> Result<usize, EnvError> {
        let found = if name.contains('\0') { None } else { self.inner.name_to_id(kind, name) };
        found.ok_or_else(|| {
            let known: Vec<&str> = (0..count).filter_map(|id| self.inner.id_to_name(kind, id)).collect();
            let known = if known.is_empty() { String::from("none with a name") } else { known.join(", ") };
            EnvError::UnknownName { origin: (*self.origin).into(), what, name: name.into(), known: known.into() }
        })
    }
}

/// The engine's message about a model, without the wrapper's prefix.
fn in_one_line(error: &MjModelError) -> String {
    let said = match error {
        MjModelError::LoadFailed(said) => said.clone(),
        other => other.to_string(),
    };
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Makes sure that the engine has the right version and its messages are received.
pub(super) fn ready() -> Result<(), EnvError> {
    check_version(mujoco_rs::mujoco_version())?;
    engine::install();
    Ok(())
}

fn check_version(found: &str) -> Result<(), EnvError> {
    if found == ENGINE_VERSION {
        return Ok(());
    }
    let reason = format!(
        "the library is version {found}, this build needs {ENGINE_VERSION}: \
         `crates/mbrl-env/scripts/get-mujoco` fetches it; look at LD_LIBRARY_PATH too"
    );
    Err(EnvError::Engine { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_with_both() {
        assert!(check_version(ENGINE_VERSION).is_ok());
        let told = check_version("3.9.1").unwrap_err().to_string();
        assert!(told.contains("3.9.1") && told.contains(ENGINE_VERSION), "{told}");
    }
}
