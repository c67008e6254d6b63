//! Pictures of a simulation, drawn without a window.

use std::{
    fmt,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use mujoco_rs::{prelude::MjModel, wrappers::mj_model::MjtTexture};

use super::{Camera, Model, Sim, camera::Placed, sim::STATE};
use crate::{EnvError, Frame};

/// Largest number of pixels per side: every driver for OpenGL 3 or later supports it; with more than a driver supports, the engine
/// would end the process.
const MAX_SIDE: u32 = 4096;

/// Draws simulations of a [`Model`] from a [`Camera`], without a window: with EGL, on Linux.
///
/// An OpenGL context belongs to a thread, so each renderer has its own thread, with its own simulation that it sets
/// to the state to be drawn. Drawing never changes the original simulation; the picture shows the end of its last
/// step, including the positions of bodies.
///
/// The machine needs EGL and a driver; a software driver is enough. Debian's packages: `libegl1 libgl1-mesa-dri`.
///
/// ```no_run
/// use mbrl_env::mujoco::{Camera, Model, Renderer, Sim, View};
/// let model = Model::load("robot.xml")?;
/// let camera = Camera::Free(View { elevation: -20.0, ..View::of(&model) });
/// let mut sim = Sim::new(&model)?;
/// let renderer = Renderer::new(&model, 640, 480, &camera)?;
/// sim.step(&[0.1], 100)?;
/// renderer.draw(&sim)?.write_png("robot.png")?;
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
pub struct Renderer {
    model: Model,
    width: u32,
    height: u32,
    /// `None` once the renderer is dropped: the thread ends when there is no sender.
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// A state to be drawn, and where the pixels go.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "what draws is to be had on Linux alone"))]
struct Order {
    state: Box<[f64]>,
    pixels: Sender<Result<Vec<u8>, EnvError>>,
}

impl fmt::Debug for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renderer")
            .field("model", &self.model)
            .field("width", &self.width)
            .field("height", &self.height)
            .finish_non_exhaustive()
    }
}

impl Renderer {
    /// A renderer for pictures of this size.
    ///
    /// # Errors
    /// [`EnvError::Config`] for a side of 0 or above 4096 pixels, or an invalid camera; [`EnvError::UnknownName`]
    /// for one that the model does not have; [`EnvError::Engine`] if EGL or its driver is missing, or for a model that the
    /// engine cannot draw.
    pub fn new(model: &Model, width: u32, height: u32, camera: &Camera) -> Result<Self, EnvError> {
        for (field, side) in [("width", width), ("height", height)] {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(EnvError::Config { field, value: side.to_string(), rule: "1 to 4096 pixels" });
            }
        }
        let placed = camera.place(model)?;
        let drawn = drawable(model, width, height)?;
        let (orders, waiting) = mpsc::channel();
        let (ready, answer) = mpsc::channel();
        let work = move || serve(drawn, (width, height), &placed, &ready, &waiting);
        let spawned = thread::Builder::new().name("mujoco renderer".into()).spawn(work);
        let thread = spawned.map_err(|e| EnvError::Engine { reason: format!("the renderer's thread: {e}") })?;
        answer.recv().map_err(|_| ended())??;
        Ok(Self { model: model.clone(), width, height, orders: Some(orders), thread: Some(thread) })
    }

    /// Pixels per row.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Draws a simulation of the renderer's model.
    ///
    /// # Errors
    /// [`EnvError::Engine`] for a simulation of another model or a failing driver, [`EnvError::Simulation`] for a simulation
    /// whose state is not finite.
    pub fn draw(&self, sim: &Sim) -> Result<Frame, EnvError> {
        check_same_model(&self.model, sim)?;
        let state = state_to_draw(sim)?;
        let (pixels, drawn) = mpsc::channel();
        let orders = self.orders.as_ref().ok_or_else(ended)?;
        orders.send(Order { state, pixels }).map_err(|_| ended())?;
        Frame::new(self.width, self.height, drawn.recv().map_err(|_| ended())??)
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        self.orders = None;
        // The driver's own memory must be freed before the process ends.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ended() -> EnvError {
    EnvError::Engine { reason: "the renderer's thread ended".into() }
}

/// Refuses to draw a simulation of another model.
pub(super) fn check_same_model(model: &Model, sim: &Sim) -> Result<(), EnvError> {
    if Arc::ptr_eq(sim.model().inner(), model.inner()) {
        return Ok(());
    }
    let reason = format!("a simulation of another model was to be drawn as one of {}", model.origin());
    Err(EnvError::Engine { reason })
}

/// Everything on which the picture depends.
pub(super) fn state_to_draw(sim: &Sim) -> Result<Box<[f64]>, EnvError> {
    let state = sim.data().state(STATE);
    if state.iter().any(|x| !x.is_finite()) {
        return Err(EnvError::Simulation { time: sim.time(), reason: "the state to be drawn is not finite".into() });
    }
    Ok(state)
}

/// Refuses settings that make the engine look for OpenGL outside the present context, where it would end the process.
#[cfg(any(target_os = "linux", feature = "mujoco-viewer"))]
pub(super) fn check_gl_variable() -> Result<(), EnvError> {
    match std::env::var_os("MUJOCO_GL").filter(|gl| gl != "egl" && !gl.is_empty()) {
        Some(other) => {
            let reason = format!("MUJOCO_GL is {other:?}: pictures are drawn by EGL, leave it unset");
            Err(EnvError::Engine { reason })
        }
        None => Ok(()),
    }
}

/// A copy of a model for pictures of this size; refuses a model on which the engine would end the process.
pub(super) fn drawable(model: &Model, width: u32, height: u32) -> Result<MjModel, EnvError> {
    // Sizes of the engine's tables; a skybox takes one more entry.
    const TEXTURES: i64 = 1000;
    const MATERIALS: i64 = 997;
    // The limit of software drivers.
    const TEXTURE_SIDE: i32 = 8192;
    // The engine's defaults are 28, 16 and 4.
    const PIECES: std::ops::RangeInclusive<i32> = 1..=1000;
    // The engine's default; with a software driver, shadows take the longest.
    const MAX_SHADOW: i32 = 4096;

    let inner = model.inner();
    let refuse =
        |reason: String| Err(EnvError::Engine { reason: format!("{} cannot be drawn: {reason}", model.origin()) });
    for (what, count, most) in [("textures", inner.ntex(), TEXTURES), ("materials", inner.nmat(), MATERIALS)] {
        if count > most {
            return refuse(format!("{count} {what}, at most {most}"));
        }
    }
    for ((width, height), kind) in inner.tex_width().iter().zip(inner.tex_height()).zip(inner.tex_type()) {
        // The six sides of a cube are stacked vertically.
        let sides = if *kind == MjtTexture::mjTEXTURE_2D { 1 } else { 6 };
        if *width > TEXTURE_SIDE || height / sides > TEXTURE_SIDE {
            return refuse(format!("a texture of {width} × {height} pixels, at most {TEXTURE_SIDE} a side"));
        }
    }
    let visual = inner.vis();
    let quality = &visual.quality;
    for (name, value) in
        [("numslices", quality.numslices), ("numstacks", quality.numstacks), ("numquads", quality.numquads)]
    {
        if !PIECES.contains(&value) {
            return refuse(format!("`<quality {name}>` is {value}, expected {} to {}", PIECES.start(), PIECES.end()));
        }
    }
    let (near, far, extent) = (visual.map.znear, visual.map.zfar, inner.stat().extent as f32);
    if !(near * extent > 1e-9 && far > near && (far * extent).is_finite()) {
        return refuse(format!("`<map znear zfar>` are {near} and {far} of an extent of {extent} m"));
    }

    let mut copy = MjModel::clone(inner);
    let visual = copy.vis_mut();
    // Both fit: at most 4096.
    visual.global.offwidth = width as i32;
    visual.global.offheight = height as i32;
    // More than four times the picture's resolution would not be visible.
    let shadow = (4 * width.max(height) as i32).min(MAX_SHADOW);
    visual.quality.shadowsize = visual.quality.shadowsize.clamp(0, shadow);
    visual.quality.offsamples = visual.quality.offsamples.clamp(0, 16);
    Ok(copy)
}

#[cfg(not(target_os = "linux"))]
fn serve(_: MjModel, _: (u32, u32), _: &Placed, ready: &Sender<Result<(), EnvError>>, _: &Receiver<Order>) {
    let reason = "drawing without a window works only on Linux (EGL)".into();
    let _ = ready.send(Err(EnvError::Engine { reason }));
}

/// The renderer's thread: carries out orders until no sender is left.
#[cfg(target_os = "linux")]
fn serve(
    model: MjModel,
    size: (u32, u32),
    camera: &Placed,
    ready: &Sender<Result<(), EnvError>>,
    orders: &Receiver<Order>,
) {
    let mut studio = match studio::Studio::new(model, size, camera) {
        Ok(studio) => studio,
        Err(error) => {
            // The receiver is still waiting for this.
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(())).is_err() {
        return;
    }
    for order in orders {
        let _ = order.pixels.send(studio.draw(&order.state));
    }
}

#[cfg(target_os = "linux")]
mod studio {
    use std::{error::Error, sync::Arc};

    use mujoco_rs::{
        prelude::{MjData, MjModel, MjtCamera, MjvCamera},
        renderer::{MjRenderer, RendererError},
    };

    use super::{EnvError, Placed, STATE, check_gl_variable};

    /// Number of visible objects besides the model's geoms: as many as Gymnasium has room for.
    const DECORATIONS: u32 = 1000;

    /// Draws states, using its own simulation.
    pub(super) struct Studio<'a> {
        renderer: MjRenderer,
        data: MjData<Arc<MjModel>>,
        camera: &'a Placed,
    }

    impl<'a> Studio<'a> {
        pub(super) fn new(model: MjModel, (width, height): (u32, u32), camera: &'a Placed) -> Result<Self, EnvError> {
            check_gl_variable()?;
            let builder = MjRenderer::builder().width(width).height(height).num_visual_internal_geom(DECORATIONS);
            let renderer = builder.build(&model).map_err(|error| failed(&error))?;
            let data =
                MjData::try_new(Arc::new(model)).map_err(|error| EnvError::Engine { reason: error.to_string() })?;
            Ok(Self { renderer, data, camera })
        }

        pub(super) fn draw(&mut self, state: &[f64]) -> Result<Vec<u8>, EnvError> {
            self.data.set_state(state, STATE).map_err(|error| EnvError::Engine { reason: error.to_string() })?;
            self.data.forward_kinematics();
            self.renderer.set_camera(self.camera_now());
            self.renderer.sync_data(&mut self.data).map_err(|error| failed(&error))?;
            self.renderer.render().map_err(|error| failed(&error))?;
            Ok(self.renderer.rgb_flat().unwrap_or_default().to_vec())
        }

        /// The engine's own cameras follow a body with a lag; this one depends on the state alone.
        fn camera_now(&self) -> MjvCamera {
            match self.camera {
                Placed::Fixed(id) => MjvCamera::new_fixed(*id),
                Placed::Free(view, follow) => {
                    let mut camera = MjvCamera {
                        type_: MjtCamera::mjCAMERA_FREE as i32,
                        lookat: view.lookat,
                        distance: view.distance,
                        azimuth: view.azimuth,
                        elevation: view.elevation,
                        ..MjvCamera::default()
                    };
                    if let Some(body) = follow {
                        let [x, y, _] = self.data.subtree_com()[*body];
                        camera.lookat[0] += x;
                        camera.lookat[1] += y;
                    }
                    camera
                }
            }
        }
    }

    fn failed(error: &RendererError) -> EnvError {
        let cause = error.source().map_or_else(String::new, |source| format!(" ({source})"));
        let reason = format!(
            "no picture: {error}{cause}; it needs EGL and a driver (software does), \
             Debian's packages libegl1 and libgl1-mesa-dri"
        );
        EnvError::Engine { reason }
    }
}
