//! What the engine says, kept off the terminal and out of files of its own.
//!
//! Left alone, MuJoCo prints its warnings and appends them to `MUJOCO_LOG.TXT` in the working folder. Here they become
//! parts of typed errors.
#![allow(unsafe_code, reason = "the engine's handler is a global of the C library")]

use std::{cell::RefCell, sync::Once};

use mujoco_rs::{
    logging::set_log_handler,
    wrappers::mj_logging::{MjLogMessage, MjtLogLevel},
};

thread_local! {
    /// The last warning on this thread.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes the engine's messages from now on; every way into the engine begins here.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: no model exists before this runs, and without one nothing of this crate is in the engine; `Once` holds
        // back other threads that are about to load one.
        unsafe { set_log_handler(handle) };
    });
}

fn handle(message: &MjLogMessage) {
    match message.level() {
        // The process ends when this returns; the reason must not be lost.
        MjtLogLevel::mjLOG_ERROR => eprintln!("MuJoCo cannot go on: {}", message.subject()),
        MjtLogLevel::mjLOG_WARNING => LAST.set(Some(message.subject().to_owned())),
        _ => {}
    }
}

/// The last warning on this thread, once.
pub(super) fn take_warning() -> Option<String> {
    LAST.take()
}
