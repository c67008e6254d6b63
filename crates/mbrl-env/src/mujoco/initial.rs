//! Where episodes begin.

use mujoco_rs::prelude::MjtObjBase;

use super::Model;
use crate::EnvError;

/// A state in which an episode begins, at time 0: the model's own ([`Model::initial_state`]) or one of its keyframes
/// ([`Model::keyframe`]), possibly changed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InitialState {
    /// Positions, `[nq]`.
    pub qpos: Vec<f64>,
    /// Velocities, `[nv]`.
    pub qvel: Vec<f64>,
    /// Activations of actuators that have a state of their own (filters, muscles), `[na]`.
    pub act: Vec<f64>,
    /// Controls before the first action, `[nu]`.
    pub ctrl: Vec<f64>,
    /// Positions of mocap bodies (m), `[nmocap]`; [`Model::mocap`] gives a body's index.
    pub mocap_pos: Vec<[f64; 3]>,
    /// Orientations of mocap bodies (unit quaternions, real part first), `[nmocap]`.
    pub mocap_quat: Vec<[f64; 4]>,
}

impl Model {
    /// The model's own initial state.
    #[must_use]
    pub fn initial_state(&self) -> InitialState {
        let inner = self.inner();
        let count = inner.nmocap() as usize;
        let (mut mocap_pos, mut mocap_quat) = (vec![[0.0; 3]; count], vec![[1.0, 0.0, 0.0, 0.0]; count]);
        for (body, mocap) in inner.body_mocapid().iter().enumerate() {
            if let Ok(mocap) = usize::try_from(*mocap) {
                (mocap_pos[mocap], mocap_quat[mocap]) = (inner.body_pos()[body], inner.body_quat()[body]);
            }
        }
        InitialState {
            qpos: inner.qpos0().to_vec(),
            qvel: vec![0.0; self.nv()],
            act: vec![0.0; inner.na() as usize],
            ctrl: vec![0.0; self.nu()],
            mocap_pos,
            mocap_quat,
        }
    }

    /// The state of a keyframe, except for its time.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`], listing the known ones.
    pub fn keyframe(&self, name: &str) -> Result<InitialState, EnvError> {
        let inner = self.inner();
        let key = self.find("keyframe", MjtObjBase::mjOBJ_KEY, name, inner.nkey() as usize)?;
        let of = |all: &[f64], width: usize| all[key * width..(key + 1) * width].to_vec();
        let count = inner.nmocap() as usize;
        Ok(InitialState {
            qpos: of(inner.key_qpos(), self.nq()),
            qvel: of(inner.key_qvel(), self.nv()),
            act: of(inner.key_act(), inner.na() as usize),
            ctrl: of(inner.key_ctrl(), self.nu()),
            mocap_pos: of(inner.key_mpos(), 3 * count).as_chunks().0.to_vec(),
            mocap_quat: of(inner.key_mquat(), 4 * count).as_chunks().0.to_vec(),
        })
    }

    /// Index of a mocap body among the mocap bodies.
    ///
    /// # Errors
    /// [`EnvError::UnknownName`] for a name that belongs to no mocap body, listing those that do.
    pub fn mocap(&self, body: &str) -> Result<usize, EnvError> {
        let ids = self.inner().body_mocapid();
        if let Some(mocap) = self.body(body).ok().and_then(|id| usize::try_from(ids[id]).ok()) {
            return Ok(mocap);
        }
        let name_of = |id: usize| self.inner().id_to_name(MjtObjBase::mjOBJ_BODY, id);
        let known: Vec<&str> = (0..ids.len()).filter(|id| ids[*id] >= 0).filter_map(name_of).collect();
        let known = if known.is_empty() { "none with a name".to_owned() } else { known.join(", ") };
        Err(EnvError::UnknownName {
            origin: self.origin().into(),
            what: "mocap body",
            name: body.into(),
            known: known.into(),
        })
    }
}
