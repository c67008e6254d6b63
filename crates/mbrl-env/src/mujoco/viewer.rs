//! The engine's own window.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use mujoco_rs::{
    prelude::{MjData, MjModel},
    viewer::{MjViewer, MjViewerBuilder, MjViewerError},
};

use super::{
    Model, Sim,
    render::{check_gl_variable, check_same_model, drawable, state_to_draw},
    sim::STATE,
};
use crate::EnvError;

/// A window that shows a simulation as it is stepped, no faster than real time. F1 lists its keys.
///
/// It draws its own simulation, set to the state to be shown: clicking and dragging never changes the original
/// simulation. The window belongs to the main thread, and there is one per process.
pub struct Viewer {
    window: MjViewer,
    data: MjData<Arc<MjModel>>,
    model: Model,
    /// When the last state was shown, and its time (s).
    shown: Option<(Instant, f64)>,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Viewer {
    /// Opens the window.
    ///
    /// # Errors
    /// [`EnvError::Engine`] on a thread other than the main one, without a screen, or for a model that the engine cannot
    /// draw.
    pub fn open(model: &Model, title: &str) -> Result<Self, EnvError> {
        if thread::current().name() != Some("main") {
            return Err(EnvError::Engine { reason: "the viewer's window belongs to the main thread".into() });
        }
        check_gl_variable()?;
        // The size of its screenshots.
        let drawn = drawable(model, 1920, 1080)?;
        let builder = MjViewerBuilder::new().window_name(title.to_owned());
        let window = builder.build_passive(&drawn).map_err(|error| failed(&error))?;
        let data = MjData::try_new(Arc::new(drawn)).map_err(|error| EnvError::Engine { reason: error.to_string() })?;
        Ok(Self { window, data, model: model.clone(), shown: None })
    }

    /// Shows a simulation of the viewer's model, and waits for the simulated time since the last one to pass. Returns whether
    /// the window is still open: once it is closed, nothing happens here.
    ///
    /// # Errors
    /// [`EnvError::Engine`] for a simulation of another model or a failing driver, [`EnvError::Simulation`] for a simulation
    /// whose state is not finite.
    pub fn show(&mut self, sim: &Sim) -> Result<bool, EnvError> {
        check_same_model(&self.model, sim)?;
        if !self.window.running() {
            return Ok(false);
        }
        let state = state_to_draw(sim)?;
        self.data.set_state(&state, STATE).map_err(|error| EnvError::Engine { reason: error.to_string() })?;
        self.data.forward_kinematics();
        self.window.sync_data(&mut self.data);
        self.window.render().map_err(|error| failed(&error))?;
        // Time goes back where an episode begins.
        if let Some((before, time)) = self.shown
            && let Ok(passed) = Duration::try_from_secs_f64(sim.time() - time)
        {
            thread::sleep(passed.saturating_sub(before.elapsed()));
        }
        self.shown = Some((Instant::now(), sim.time()));
        Ok(self.window.running())
    }
}

fn failed(error: &MjViewerError) -> EnvError {
    let cause = error.source().map_or_else(String::new, |source| format!(" ({source})"));
    EnvError::Engine { reason: format!("no window: {error}{cause}; it needs a screen with OpenGL") }
}
