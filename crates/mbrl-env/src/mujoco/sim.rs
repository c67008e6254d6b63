//! A simulation: a model in a state, whose steps report the engine's warnings as errors.

use std::{fmt, sync::Arc};

use mujoco_rs::{
    error::MjDataError,
    prelude::{MjData, MjModel, MjtState},
    wrappers::mj_model::MjtEnableBit,
};

use super::{InitialState, Model, engine};
use crate::{EnvError, check_width};

/// Everything on which the engine's next step depends, except for what [`WHOLE`] enables.
pub(super) const STATE: u32 = MjtState::mjSTATE_INTEGRATION as u32;

/// Features that keep more than that from step to step: which bodies sleep, which parts of soft bodies touch.
const WHOLE: i32 = MjtEnableBit::mjENBL_SLEEP as i32 | MjtEnableBit::mjENBL_IPC as i32;

/// The magnitude above which the engine considers a state diverged (`mjMAXVAL`).
const DIVERGED: f64 = 1e10;

/// A state to go back to.
pub(super) enum State {
    Numbers(Box<[f64]>),
    Whole(Box<MjData<Arc<MjModel>>>),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(numbers) => f.debug_tuple("Numbers").field(numbers).finish(),
            Self::Whole(_) => f.write_str("Whole(..)"),
        }
    }
}

/// A [`Model`] in a state.
///
/// After a step, `qpos` and `qvel` are new, while quantities computed from them (positions of bodies and sites,
/// forces) belong to the beginning of the engine's last step, as everywhere with MuJoCo; after [`set_state`](Self::set_state)
/// all of them belong to the same moment.
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
    /// [`EnvError::Engine`] if the engine makes none.
    pub fn new(model: &Model) -> Result<Self, EnvError> {
        let data = MjData::try_new(model.inner().clone()).map_err(|e| EnvError::Engine { reason: e.to_string() })?;
        Ok(Self { data, model: model.clone() })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The engine's own data, for everything that has no method here.
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

    /// Numbers that belong to the state and that the engine does not read, as many as the model's `<size nuserdata>` says: the goal
    /// of an episode, for example.
    #[must_use]
    pub fn userdata(&self) -> &[f64] {
        self.data.userdata()
    }

    /// The same, mutable.
    pub fn userdata_mut(&mut self) -> &mut [f64] {
        self.data.userdata_mut()
    }

    /// Positions, mutable; quantities computed from them follow with the next step.
    pub fn qpos_mut(&mut self) -> &mut [f64] {
        self.data.qpos_mut()
    }

    /// Velocities, mutable.
    pub fn qvel_mut(&mut self) -> &mut [f64] {
        self.data.qvel_mut()
    }

    /// Positions of mocap bodies (m), mutable; [`Model::mocap`] gives a body's index.
    pub fn mocap_pos_mut(&mut self) -> &mut [[f64; 3]] {
        self.data.mocap_pos_mut()
    }

    /// Orientations of mocap bodies (unit quaternions, real part first), mutable.
    pub fn mocap_quat_mut(&mut self) -> &mut [[f64; 4]] {
        self.data.mocap_quat_mut()
    }

    /// Position of a body's frame (m). Panics, as its siblings do, for an index that the model does not have.
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

    /// Puts positions `[nq]` and velocities `[nv]` into the model's initial state, at time 0, and computes the quantities that
    /// depend on them.
    ///
    /// # Errors
    /// As [`set_initial_state`](Self::set_initial_state).
    pub fn set_state(&mut self, qpos: &[f64], qvel: &[f64]) -> Result<(), EnvError> {
        check_state([("qpos", self.model.nq(), qpos), ("qvel", self.model.nv(), qvel)])?;
        self.data.reset();
        self.data.qpos_mut().copy_from_slice(qpos);
        self.data.qvel_mut().copy_from_slice(qvel);
        self.refresh()
    }

    /// Goes to a state, at time 0, and computes the quantities that depend on it.
    ///
    /// # Errors
    /// [`EnvError::Width`], or [`EnvError::Malformed`] for numbers that are not within ±1e10, beyond which the engine considers a state
    /// diverged, before anything changes; [`EnvError::Simulation`] for a state that the engine cannot evaluate.
    pub fn set_initial_state(&mut self, state: &InitialState) -> Result<(), EnvError> {
        let InitialState { qpos, qvel, act, ctrl, mocap_pos, mocap_quat } = state;
        let inner = self.model.inner();
        let (na, count) = (inner.na() as usize, inner.nmocap() as usize);
        check_state([
            ("qpos", self.model.nq(), qpos),
            ("qvel", self.model.nv(), qvel),
            ("act", na, act),
            ("ctrl", self.model.nu(), ctrl),
            ("mocap_pos", 3 * count, mocap_pos.as_flattened()),
            ("mocap_quat", 4 * count, mocap_quat.as_flattened()),
        ])?;
        self.data.reset();
        self.data.qpos_mut().copy_from_slice(qpos);
        self.data.qvel_mut().copy_from_slice(qvel);
        self.data.act_mut().copy_from_slice(act);
        self.data.ctrl_mut().copy_from_slice(ctrl);
        self.data.mocap_pos_mut().copy_from_slice(mocap_pos);
        self.data.mocap_quat_mut().copy_from_slice(mocap_quat);
        self.refresh()
    }

    /// `count` steps of the engine under controls `[nu]`, which it clips to its limits.
    ///
    /// # Errors
    /// [`EnvError::Width`] or [`EnvError::NonFinite`] before anything changes; [`EnvError::Simulation`] if the state
    /// diverges, the engine's buffers are full or it cannot continue: the state is then unusable.
    pub fn step(&mut self, ctrl: &[f32], count: u32) -> Result<(), EnvError> {
        check_width("ctrl", self.model.nu(), ctrl.len())?;
        crate::check_finite("ctrl", ctrl)?;
        for (to, from) in self.data.ctrl_mut().iter_mut().zip(ctrl) {
            *to = f64::from(*from);
        }
        self.advance(count)
    }

    /// `count` steps of the engine under the present settings.
    ///
    /// # Errors
    /// [`EnvError::Simulation`], as [`step`](Self::step).
    pub fn advance(&mut self, count: u32) -> Result<(), EnvError> {
        let time = self.time();
        let outcome = engine::step(&mut self.data, count);
        self.check(time, outcome)
    }

    pub(super) fn data_mut(&mut self) -> &mut MjData<Arc<MjModel>> {
        &mut self.data
    }

    /// Computes forces on bodies (including `cfrc_ext`), which a step leaves out.
    ///
    /// # Errors
    /// [`EnvError::Simulation`] if the engine cannot.
    pub fn compute_body_forces(&mut self) -> Result<(), EnvError> {
        let time = self.time();
        let outcome = engine::body_forces(&mut self.data);
        self.check(time, outcome)
    }

    /// Whether the engine completed its calls, begun at `time`, and what it has warned of since the state was set.
    fn check(&self, time: f64, outcome: Result<(), String>) -> Result<(), EnvError> {
        let fail = |reason: String| Err(EnvError::Simulation { time, reason });
        if let Err(reason) = outcome {
            return fail(reason);
        }
        if self.data.warning().iter().any(|warning| warning.number > 0) {
            let said = engine::take_warning().unwrap_or_else(|| "the engine issued a warning earlier".into());
            return fail(said);
        }
        if self.qpos().iter().chain(self.qvel()).any(|x| !x.is_finite()) {
            return fail("a position or velocity is not finite".into());
        }
        Ok(())
    }

    /// Everything on which the next step depends.
    pub(super) fn state(&self) -> State {
        match self.model.inner().opt().enableflags & WHOLE {
            0 => State::Numbers(self.data.state(STATE)),
            _ => State::Whole(Box::new(self.data.clone())),
        }
    }

    /// Goes back to a state that a simulation of the same model was in.
    pub(super) fn set_whole_state(&mut self, state: &State) -> Result<(), EnvError> {
        let refused = |reason: MjDataError| EnvError::Engine { reason: reason.to_string() };
        match state {
            State::Numbers(numbers) => {
                if self.data.warning().iter().any(|warning| warning.number > 0) {
                    self.data.reset();
                }
                self.data.set_state(numbers, STATE).map_err(refused)
            }
            State::Whole(data) => data.copy_to(&mut self.data).map_err(refused),
        }
    }

    /// Computes positions and forces of the present state.
    pub(super) fn refresh(&mut self) -> Result<(), EnvError> {
        let time = self.time();
        let outcome = engine::forward(&mut self.data);
        self.check(time, outcome)
    }
}

/// Refuses parts of a state (name, width and values) that have the wrong width or that the engine would consider diverged.
fn check_state<const N: usize>(parts: [(&'static str, usize, &[f64]); N]) -> Result<(), EnvError> {
    for (what, width, values) in parts {
        check_width(what, width, values.len())?;
        // NaN is in no range.
        if let Some(index) = values.iter().position(|value| !(-DIVERGED..=DIVERGED).contains(value)) {
            let reason = format!("entry {index} is {}, expected a number within ±{DIVERGED:e}", values[index]);
            return Err(EnvError::Malformed { what, reason });
        }
    }
    Ok(())
}
