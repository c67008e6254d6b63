//! A half-cheetah that acts at random, in a window until it is closed.
//!
//! ```text
//! eval "$(crates/mbrl-env/scripts/get-mujoco)"
//! cargo run --release -p mbrl-env --features mujoco-viewer --example mujoco_viewer
//! ```

use mbrl_env::{
    Env, EnvError, Rng,
    mujoco::{HalfCheetahConfig, Viewer},
};

fn main() -> Result<(), EnvError> {
    let mut env = HalfCheetahConfig::default().init()?;
    let (actions, mut rng) = (env.spec().actions.clone(), Rng::new(0));
    let mut viewer = Viewer::open(env.sim().model(), "HalfCheetah-v5")?;
    env.reset(Some(0))?;
    while viewer.show(env.sim())? {
        env.step(&actions.sample(&mut rng)?)?;
    }
    Ok(())
}
