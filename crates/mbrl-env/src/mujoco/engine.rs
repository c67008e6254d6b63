//! Calls into the engine that may fail, and what it says about that.
//!
//! Left alone, MuJoCo prints warnings, appends them to `MUJOCO_LOG.TXT` in the working folder, and ends the process where it
//! cannot go on: where contacts leave no memory for the solver, or two surfaces touch along no direction. No check of a
//! model foresees these. Here a warning is kept for a typed error, and what the engine cannot do leaves it as a panic, without
//! a panic's message, that [`guarded`] turns into an error.
//!
//! The ways out of the engine's own compiler and of its Python package are the same, by `longjmp`. For a panic it needs that
//! the frames between are C, own nothing and have tables for unwinding: so it is with all that is called here, on the
//! platforms that the engine is built for (x86-64 and 64-bit ARM). Its parts in C++ are the compiler, which has a way out
//! of its own, and plugins and pools of threads, which are out of reach here.
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

/// `mjLogMessage`'s beginning.
#[repr(C)]
struct Message {
    level: c_int,
    topic: c_int,
    subject: [c_char; 1024],
}

const WARNING: c_int = 2;
const ERROR: c_int = 3;

type Handler = unsafe extern "C-unwind" fn(*const Message);

// As in mujoco-rs, but for the way out.
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
    /// This thread is in a call that a panic may leave.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What the engine cannot do: the payload of the panic.
struct Fatal(String);

/// Takes the engine's messages from now on; every way into the engine begins here.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the global is written once, before this crate has a model, and `Once` holds back other threads that are
        // about to load one.
        unsafe { mju_setLogHandler(Some(handle)) };
    });
}

/// # Safety
/// `message` is the engine's, alive during the call.
unsafe extern "C-unwind" fn handle(message: *const Message) {
    // SAFETY: as above; `Message` is the beginning of what it points to, which the engine ends with a NUL.
    let (level, said) = unsafe { ((*message).level, CStr::from_ptr((&raw const (*message).subject).cast())) };
    // Not always UTF-8: names of the model's parts may be in it, cut anywhere.
    let said = || said.to_string_lossy().split_whitespace().collect::<Vec<_>>().join(" ");
    match level {
        WARNING => WARNED.set(Some(said())),
        ERROR if GUARDED.get() && cfg!(panic = "unwind") => panic::resume_unwind(Box::new(Fatal(said()))),
        ERROR => {
            // The process must not go on; the reason must not be lost.
            eprintln!("MuJoCo cannot go on: {}", said());
            process::exit(1);
        }
        _ => {}
    }
}

/// The last warning on this thread, once.
pub(super) fn take_warning() -> Option<String> {
    WARNED.take()
}

/// Runs calls into the engine; the error is its reason for leaving them in the middle.
fn guarded<T>(calls: impl FnOnce() -> T) -> Result<T, String> {
    WARNED.set(None);
    GUARDED.set(true);
    // What is left in the middle is reset or forgotten below.
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
    // SAFETY: the pointer lives in this function alone, and `calls` are steps and evaluations, which keep the data whole.
    let raw: *mut mjData = unsafe { data.ffi_mut() };
    let outcome = guarded(|| calls(model, raw));
    if outcome.is_err() {
        // Frees the stack too.
        data.reset();
    }
    outcome
}

/// Refuses a model for which there is no memory.
pub(super) fn try_data(model: &MjModel) -> Result<(), String> {
    // SAFETY: the model is whole; the data is of this function alone and deleted.
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
