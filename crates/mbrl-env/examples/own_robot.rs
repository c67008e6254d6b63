//! A robot of one's own in MuJoCo: a MJCF text and three closures.
//!
//! ```text
//! eval "$(crates/mbrl-env/scripts/get-mujoco)"
//! cargo run --release -p mbrl-env --features mujoco --example own_robot
//! ```

use mbrl_env::{
    Env, EnvError, Field, Rng, TimeLimit, check,
    mujoco::{Model, MujocoEnv},
};

/// An arm of one joint that should point upwards; its motor is too weak to lift it at once.
const MJCF: &str = r#"
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body name="arm" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" damping="0.05"/>
      <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.03" mass="1"/>
      <site name="hand" pos="0 0 -0.5"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="shoulder" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>
</mujoco>"#;

fn main() -> Result<(), EnvError> {
    let model = Model::from_xml(MJCF)?;
    let hand = model.site("hand")?;
    let env = MujocoEnv::builder(model)
        .name("lift")
        .frame_skip(5)
        .observe(|sim, obs| {
            let (sin, cos) = sim.qpos()[0].sin_cos();
            obs.extend([sin, cos, sim.qvel()[0]]);
        })
        .fields([
            Field::linear("sin_angle", ""),
            Field::linear("cos_angle", ""),
            Field::linear("angular_velocity", "rad/s"),
        ])
        .start(|qpos, _, rng| qpos[0] = rng.uniform_f64(-0.1, 0.1))
        .reward(move |sim, action| sim.site_xpos(hand)[2] - 1.5 - 0.001 * f64::from(action[0]).powi(2))
        .build()?;
    let mut env = TimeLimit::new(env, 200)?;
    check::check_env(&mut env)?;
    check::check_simulator(&mut env)?;

    let mut rng = Rng::new(0);
    env.reset(Some(0))?;
    let mut total = 0.0;
    loop {
        let step = env.step(&env.spec().actions.sample(&mut rng)?)?;
        total += step.reward;
        if step.episode_over() {
            println!("random torques: return {total:.1}; the hand is at {:.2} m", env.inner().sim().site_xpos(hand)[2]);
            return Ok(());
        }
    }
}
