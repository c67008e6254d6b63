//! Planning with a closure: swings a pendulum up with a motor too weak to lift it directly.
//!
//! Shows what planning needs: a model, a reward and bounds, about twenty lines. Nothing is learned here.
//! Runs for about a second: `cargo run --release -p mbrl-plan --example plan_closure`. You should see the angle pump up
//! over some swings, reach 0 (upright) and stay there.

use mbrl_plan::{
    ActionSpace, BoxSpace, CemConfig, Device, Mpc, Problem, Propagation, Replan, Rng, Situation, Tensor, dynamics_fn,
    reward_fn,
};

/// Control period (s).
const DT: f32 = 0.05;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // States [N, 2]: angle from upright (rad), speed (rad/s). Actions [N, 1]: torque (N·m) on a rod of 1 kg and 1 m.
    let model = dynamics_fn(2, 1, &Device::flex(), |s, a| {
        let (angle, speed) = (s.clone().narrow(1, 0, 1), s.narrow(1, 1, 1));
        let speed = speed + (angle.clone().sin() * 15.0 + a * 3.0) * DT;
        Tensor::cat(vec![angle + speed.clone() * DT, speed], 1)
    });
    let reward = reward_fn(|_, a: Tensor<2>, next: Tensor<2>| {
        let (angle, speed) = (next.clone().narrow(1, 0, 1), next.narrow(1, 1, 1));
        (angle.cos() - speed.clone() * speed * 0.01 - a.clone() * a * 0.001).squeeze_dim(1)
    });
    let actions = ActionSpace::Box(BoxSpace::symmetric(1, 2.0)?);
    let problem = Problem::new(&model, &actions).with_reward(&reward);

    let planner = CemConfig::default().init(&actions, Propagation::MEAN)?;
    let mut mpc = Mpc::new(Box::new(planner), Replan::EveryStep)?;
    let mut rng = Rng::new(0);
    let (mut angle, mut speed) = (std::f32::consts::PI, 0.0f32); // hanging, at rest

    for step in 0..120 {
        let torque = mpc.act(&Situation::of(&[angle, speed]), &problem, &mut rng)?.action[0];
        speed += DT * (15.0 * angle.sin() + 3.0 * torque);
        angle += DT * speed;
        if step % 5 == 0 {
            // The tip's height, from hanging (left) to upright (right).
            let column = (20.0 * (1.0 + angle.cos())).round() as usize;
            println!(
                "{:4.1} s  |{:>column$}o{:>rest$}|  torque {torque:5.2}",
                DT * step as f32,
                "",
                "",
                rest = 40 - column
            );
        }
    }
    let short_of_upright = (1.0 - angle.cos()).abs();
    println!("after 6 s: {short_of_upright:.4} m short of upright, speed {speed:.3} rad/s");
    if short_of_upright > 0.01 {
        return Err("the pendulum is not upright".into());
    }
    Ok(())
}
