//! For platforms without Unix processes: none can be started.

use std::{process::Command, time::Duration};

use super::ProcessFault;

#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline;

impl Deadline {
    pub(super) fn after(_: f64, _: &'static str) -> Self {
        Self
    }
}

/// Never made.
#[derive(Debug)]
pub(super) enum Server {}

impl Server {
    pub(super) fn spawn(_: Command, _: Duration, _: bool) -> Result<Self, ProcessFault> {
        Err(ProcessFault::Platform)
    }

    pub(super) fn send(&mut self, _: &[u8], _: Deadline) -> Result<(), ProcessFault> {
        match *self {}
    }

    pub(super) fn hello(&mut self, _: Deadline) -> Result<(), ProcessFault> {
        match *self {}
    }

    pub(super) fn receive(&mut self, _: Deadline) -> Result<(u8, &[u8]), ProcessFault> {
        match *self {}
    }

    pub(super) fn has_more(&self) -> bool {
        match *self {}
    }

    pub(super) fn said(&self) -> String {
        match *self {}
    }

    pub(super) fn abandon(&mut self) {
        match *self {}
    }

    pub(super) fn stop(&mut self, _: &[u8]) {
        match *self {}
    }
}
