//! Whether robots from files (MJCF, URDF) make environments: `check_robot FILE…`.
//!
//! Prints for each file what it is made of and what stands in the way. A robot without actuators is moved by its first
//! mocap body, where it has one.
//!
//! ```text
//! eval "$(crates/mbrl-env/scripts/get-mujoco)"
//! cargo run --release -p mbrl-env --features mujoco --example check_robot -- robot.xml
//! ```

use std::process::ExitCode;

use mbrl_env::{
    Env, EnvError, EnvSpec, check,
    mujoco::{Model, MujocoEnv},
};

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() {
        eprintln!("check_robot FILE…");
        return ExitCode::FAILURE;
    }
    let mut code = ExitCode::SUCCESS;
    for file in &files {
        match examine(file) {
            Ok(spec) => println!("{file}: passes; {}", summary(&spec)),
            Err(error) => {
                println!("{file}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn examine(file: &str) -> Result<EnvSpec, EnvError> {
    let model = Model::load(file)?;
    let mocap = (0..model.inner().nbody() as usize).find(|body| model.inner().body_mocapid()[*body] >= 0);
    let mut builder = MujocoEnv::builder(model.clone()).name(file).frame_skip(5);
    if let (0, Some(body)) = (model.nu(), mocap) {
        let name = model.inner().id_to_name(mbrl_env::mujoco::mujoco_rs::prelude::MjtObjBase::mjOBJ_BODY, body);
        builder = builder.mocap_actions(name.unwrap_or_default(), 0.01)?;
    }
    let mut env = builder.build()?;
    check::check_env(&mut env)?;
    check::check_simulator(&mut env)?;
    Ok(env.spec().clone())
}

/// Sizes, and what a user has to give.
fn summary(spec: &EnvSpec) -> String {
    let sizes = format!("{} observations, {} actions", spec.obs.width(), spec.actions.width());
    match spec.require_limited_actions() {
        Ok(()) => sizes,
        Err(error) => format!("{sizes}; to plan, give limits: {error}"),
    }
}
