//! A simulation: a model in a state, stepped with its warnings heard.

use std::{fmt, sync::Arc};

use mujoco_rs::prelude::{MjData, MjModel, MjtState};

use super::{Model, log};
use crate::{EnvError, check_width};

/// All that the engine's next step depends on.
pub(super) const STATE: u32 = MjtState::mjSTATE_INTEGRATION as u32;

/// A [`Model`] in a state.
///
/// After a step, `qpos` and `qvel` are new while what was computed from them on the way (positions of bodies and sites,
/// forces) is of the beginning of the engine's last step, as everywhere with MuJoCo; after [`set_state`](Self::set_state)
/// all of it is of one moment.
pub struct Sim {
    data: MjData<Arc<MjModel>>,
    model: Model,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("model", &self.model).field("time", &self.time()).finish_non_exhaustive()
    }
}

impl Clone for Sim {
    fn clone(&self) -> Self {
        Self { data: self.data.clone(), model: self.model.clone() }
    }
}

impl Sim {
    /// A simulation in the model's initial state.
    ///
    /// # Errors
    /// [`EnvError::Engine`] where there is no memory for it.
    pub fn new(model: &Model) -> Result<Self, EnvError> {
        let data = MjData::try_new(model.inner().clone()).map_err(|e| EnvError::Engine { reason: e.to_string() })?;
        Ok(Self { data, model: model.clone() })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The engine's own data, for whatever has no method here.
    #[must_use]
    pub fn data(&self) -> &MjData<Arc<MjModel>> {
        &self.data
    }

    /// Time since the start (s).
    #[must_use]
    pub fn time(&self) -> f64 {
        self.data.time()
    }

    /// Positions, `[nq]`.
    #[must_use]
    pub fn qpos(&self) -> &[f64] {
        self.data.qpos()
    }

    /// Velocities, `[nv]`.
    #[must_use]
    pub fn qvel(&self) -> &[f64] {
        self.data.qvel()
    }

    /// Controls of the last step, `[nu]`.
    #[must_use]
    pub fn ctrl(&self) -> &[f64] {
        self.data.ctrl()
    }

    /// Position of a body's frame (m). Panics, as its siblings do, for an index that the model has not.
    #[must_use]
    pub fn xpos(&self, body: usize) -> [f64; 3] {
        self.data.xpos()[body]
    }

    /// Position of a site (m).
    #[must_use]
    pub fn site_xpos(&self, site: usize) -> [f64; 3] {
        self.data.site_xpos()[site]
    }

    /// Position of a geom (m).
    #[must_use]
    pub fn geom_xpos(&self, geom: usize) -> [f64; 3] {
        self.data.geom_xpos()[geom]
    }

    /// Readings of all sensors.
    #[must_use]
    pub fn sensors(&self) -> &[f64] {
        self.data.sensordata()
    }

    /// Puts positions `[nq]` and velocities `[nv]` into the model's initial state, at time 0, and computes what follows
    /// from them.
    ///
    /// # Errors
    /// [`EnvError::Width`] or [`EnvError::Malformed`] for numbers that are not finite, before anything changes;
    /// [`EnvError::Simulation`] for a state that the engine cannot evaluate.
    pub fn set_state(&mut self, qpos: &[f64], qvel: &[f64]) -> Result<(), EnvError> {
        check_width("qpos", self.model.nq(), qpos.len())?;
        check_width("qvel", self.model.nv(), qvel.len())?;
        for (what, values) in [("qpos", qpos), ("qvel", qvel)] {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let reason = format!("entry {index} is {}, expected a finite number", values[index]);
                return Err(EnvError::Malformed { what, reason });
            }
        }
        self.data.reset();
        self.data.qpos_mut().copy_from_slice(qpos);
        self.data.qvel_mut().copy_from_slice(qvel);
        self.data.forward();
        self.check()
    }

    /// `count` steps of the engine under controls `[nu]`, which it clips to its limits.
    ///
    /// # Errors
    /// [`EnvError::Width`] or [`EnvError::NonFinite`] before anything changes; [`EnvError::Simulation`] where the state
    /// diverges or the engine's buffers are full: the state is then of no use.
    pub fn step(&mut self, ctrl: &[f32], count: u32) -> Result<(), EnvError> {
        check_width("ctrl", self.model.nu(), ctrl.len())?;
        crate::check_finite("ctrl", ctrl)?;
        for (to, from) in self.data.ctrl_mut().iter_mut().zip(ctrl) {
            *to = f64::from(*from);
        }
        for _ in 0..count {
            self.data.step();
        }
        self.check()
    }

    /// Computes forces on bodies (`cfrc_ext` among them), which a step leaves out.
    pub fn compute_body_forces(&mut self) {
        self.data.rne_post_constraint();
    }

    /// What the engine has warned of since the state was set.
    fn check(&self) -> Result<(), EnvError> {
        let fail = |reason: String| Err(EnvError::Simulation { time: self.time(), reason });
        if self.data.warning().iter().any(|warning| warning.number > 0) {
            let said = log::take_warning().unwrap_or_else(|| "the engine warned of it before".into());
            return fail(said);
        }
        if self.qpos().iter().chain(self.qvel()).any(|x| !x.is_finite()) {
            return fail("a position or velocity is not finite".into());
        }
        // Full, it would end the process.
        let (used, all) = (self.data.maxuse_arena(), self.model.inner().narena());
        if used > all / 2 {
            return fail(format!("contacts and constraints need {used} of {all} bytes: raise `<size memory>`"));
        }
        Ok(())
    }

    /// All that the next step depends on.
    pub(super) fn state(&self) -> Box<[f64]> {
        self.data.state(STATE)
    }

    /// Goes back to a state that a simulation of the same model was in.
    pub(super) fn set_whole_state(&mut self, state: &[f64]) -> Result<(), EnvError> {
        if self.data.warning().iter().any(|warning| warning.number > 0) {
            self.data.reset();
        }
        self.data.set_state(state, STATE).map_err(|e| EnvError::Engine { reason: e.to_string() })
    }

    /// Computes positions and forces of the present state, for a state that was restored.
    pub(super) fn refresh(&mut self) {
        self.data.forward();
    }
}
