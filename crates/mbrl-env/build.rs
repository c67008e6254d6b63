//! Tells tests and examples where the engine of the feature `mujoco` lies.

use std::{env, path::Path};

const VARIABLE: &str = "MUJOCO_DYNAMIC_LINK_DIR";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if env::var_os("CARGO_FEATURE_MUJOCO").is_none() {
        return;
    }
    // Where it is missing, `mujoco-rs` stops the build.
    let Ok(folder) = env::var(VARIABLE) else { return };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    // `scripts/get-mujoco` puts the models of the tasks beside it.
    if let Some(home) = Path::new(&folder).parent() {
        println!("cargo::rustc-env=MBRL_MUJOCO_MODELS_DEFAULT={}", home.join("models").display());
    }
}
