//! Tells the binary and its tests where the engine of the feature `mujoco` is.

fn main() {
    const VARIABLE: &str = "MUJOCO_DYNAMIC_LINK_DIR";
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if let (Some(_), Ok(folder)) = (std::env::var_os("CARGO_FEATURE_MUJOCO"), std::env::var(VARIABLE)) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
