use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::progress::Display;

pub(crate) fn write(_: &[PathBuf], _: Option<&Path>, _: usize, _: &Display) -> Result<PathBuf> {
    bail!("not yet")
}
