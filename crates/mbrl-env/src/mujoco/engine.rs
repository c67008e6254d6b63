//! Calls into the engine that may fail, and the reasons it gives.
//!
//! By default, MuJoCo prints warnings, appends them to `MUJOCO_LOG.TXT` in the working folder, and ends the process on a fatal
//! error: when contacts leave no memory for the solver, or two surfaces touch along no direction. No check of a
//! model foresees these. Here a warning is kept for a typed error, and a fatal error leaves the engine as a panic, without
//! a panic's message, that [`guarded`] turns into an error.
//!
//! The engine's own compiler and its Python package leave in the same way, by `longjmp`. A panic requires that
//! the frames between are C, own nothing and have unwind tables: this holds for everything called here, on the
//! platforms for which the engine is built (x86-64 and 64-bit ARM). Its parts in C++ are the compiler, which has its own
//! way out, and plugins and thread pools, which are not used here.
//!
//! In a program built with `panic = "abort"` the process ends, after a line on standard error.
#![allow(unsafe_code, reason = "fatal errors of a C library")]

use std::{
    cell::{Cell, RefCell},
    ffi::{CStr, c_char, c_int},
    panic::{self, AssertUnwindSafe},
    process,
    sync::{Arc, Once},
};

use mujoco_rs::{
    mujoco_c::{mjData, mjModel},
    prelude::{MjData, MjModel},
};

/// The beginning of `mjLogMessage`.
#[repr(C)]
struct Message {
    level: c_int,
    topic: c_int,
    subject: [c_char; 1024],
}

const WARNING: c_int = 2;
const ERROR: c_int = 3;

type Handler = unsafe extern "C-unwind" fn(*const Message);

// As in mujoco-rs, except that they may unwind.
unsafe extern "C-unwind" {
    fn mju_setLogHandler(handler: Option<Handler>) -> Option<Handler>;
    fn mj_makeData(model: *const mjModel) -> *mut mjData;
    fn mj_deleteData(data: *mut mjData);
    fn mj_forward(model: *const mjModel, data: *mut mjData);
    fn mj_step(model: *const mjModel, data: *mut mjData);
    fn mj_rnePostConstraint(model: *const mjModel, data: *mut mjData);
}

thread_local! {
    /// The last warning on this thread.
    static WARNED: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this thread is in a call that a panic may leave.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// A fatal error of the engine: the payload of the panic.
struct Fatal(String);

/// Receives the engine's messages from now on; every use of the engine begins here.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the global is written once, before this crate has a model, and `Once` blocks other threads that are
        // about to load one.
        unsafe { mju_setLogHandler(Some(handle)) };
    });
}

/// # Safety
/// `message` comes from the engine and is valid during the call.
unsafe extern "C-unwind" fn handle(message: *const Message) {
    // SAFETY: as above; `Message` is the beginning of the engine's struct, and the engine ends the text with a NUL.
    let (level, said) = unsafe { ((*message).level, CStr::from_ptr((&raw const (*message).subject).cast())) };
    // Not always UTF-8: it may contain names of the model's parts, cut off anywhere.
    let said = || said.to_string_lossy().split_whitespace().collect::<Vec<_>>().join(" ");
    match level {
        WARNING => WARNED.set(Some(said())),
        ERROR if GUARDED.get() && cfg!(panic = "unwind") => panic::resume_unwind(Box::new(Fatal(said()))),
        ERROR => {
            // The process must not continue, and the reason must not be lost.
            eprintln!("MuJoCo cannot go on: {}", said());
            process::exit(1);
        }
        _ => {}
    }
}

/// Takes the last warning on this thread.
pub(super) fn take_warning() -> Option<String> {
    WARNED.take()
}

/// Runs calls into the engine; the error is its reason for aborting them.
fn guarded<T>(calls: impl FnOnce() -> T) -> Result<T, String> {
    WARNED.set(None);
    GUARDED.set(true);
    // Anything left half done is reset or discarded below.
    let outcome = panic::catch_unwind(AssertUnwindSafe(calls));
    GUARDED.set(false);
    outcome.map_err(|payload| match payload.downcast::<Fatal>() {
        Ok(fatal) => fatal.0,
        Err(payload) => panic::resume_unwind(payload),
    })
}

/// Runs calls on data. After an error, the data is in the model's initial state.
fn on_data(data: &mut MjData<Arc<MjModel>>, calls: impl FnOnce(*const mjModel, *mut mjData)) -> Result<(), String> {
    let model: *const mjModel = data.model().ffi();
    // SAFETY: the pointer lives in this function alone, and `calls` are steps and evaluations, which keep the data valid.
    let raw: *mut mjData = unsafe { data.ffi_mut() };
    let outcome = guarded(|| calls(model, raw));
    if outcome.is_err() {
        // Frees the stack too.
        data.reset();
    }
    outcome
}

/// Refuses a model for which the memory does not suffice.
pub(super) fn try_data(model: &MjModel) -> Result<(), String> {
    // SAFETY: the model is valid; the data belongs to this function alone and is deleted.
    guarded(|| unsafe {
        let data = mj_makeData(model.ffi());
        if !data.is_null() {
            mj_deleteData(data);
        }
    })
}

/// Computes what follows from the state.
pub(super) fn forward(data: &mut MjData<Arc<MjModel>>) -> Result<(), String> {
    // SAFETY: model and data belong together.
    on_data(data, |model, data| unsafe { mj_forward(model, data) })
}

/// `count` steps.
pub(super) fn step(data: &mut MjData<Arc<MjModel>>, count: u32) -> Result<(), String> {
    on_data(data, |model, data| {
        for _ in 0..count {
            // SAFETY: model and data belong together.
            unsafe { mj_step(model, data) };
        }
    })
}

/// Computes forces on bodies.
pub(super) fn body_forces(data: &mut MjData<Arc<MjModel>>) -> Result<(), String> {
    // SAFETY: model and data belong together.
    on_data(data, |model, data| unsafe { mj_rnePostConstraint(model, data) })
}
