//! The available engine, in one line.

use super::{ENGINE_VERSION, model::ready, models_folder};
use crate::EnvError;

/// Version of the engine and folder of the tasks' models, if both are as they should be.
///
/// # Errors
/// [`EnvError::Engine`], with how to get what is missing.
pub fn about() -> Result<String, EnvError> {
    ready()?;
    Ok(format!("works: version {ENGINE_VERSION}, models in {}", models_folder()?.display()))
}
