//! Every task of the registry keeps the contracts, and their rewards and ends are fit for planning.

use mbrl_env::{
    AngleColumn, Device, Env, EnvError, Reward, Rng, Role, Shape, Step, Tensor, Termination, World, check,
    tasks::{
        self, CartPole, CartPoleReward, CartPoleSwingup, CartPoleSwingupReward, CartPoleTermination, CliffConfig,
        MountainCarReward, MountainCarTermination, Options, Pendulum, PendulumReward, PointMassReward, Reacher,
        ReacherReward, Task, TaskEntry,
    },
};
use serde_json::json;

fn tensor<const N: usize, const D: usize>(rows: [[f32; D]; N]) -> Tensor<2> {
    Tensor::from_data(rows, &Device::flex())
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The tasks of this build that are one without options: `process` is what its options say.
fn available() -> Vec<TaskEntry> {
    tasks::entries()
        .into_iter()
        .filter(|entry| entry.is_available() && entry.name() != mbrl_env::process::TASK)
        .collect()
}

#[test]
fn all_tasks_keep_the_contracts() {
    for entry in available() {
        let mut task = entry.make(&Options::new()).unwrap();
        assert_eq!(task.env.spec().name, entry.name());
        check::check_env(&mut task.env).unwrap();
        check::check_simulator(task.env.simulator_mut().unwrap()).unwrap();
        // Without a batch reward there is nothing to compare.
        let Some(reward) = task.reward.as_deref() else { continue };
        let (termination, device, mut rng) = (task.termination.as_deref(), Device::flex(), Rng::new(0));
        // The step that fails pays the environment's user and not the planner: upstream's convention.
        let agrees = if entry.name() == "cartpole" {
            check::check_reward_agrees_until_termination(&mut task.env, reward, termination, 20, &device, &mut rng)
        } else {
            check::check_reward_agrees(&mut task.env, reward, termination, 20, &device, &mut rng)
        };
        agrees.unwrap();
    }
}

#[test]
fn every_column_of_every_task_has_a_name_and_a_unit_of_its_own() {
    for entry in available() {
        let spec = entry.make(&Options::new()).unwrap().env.spec().clone();
        let names = spec.column_names();
        assert_eq!((names.len(), spec.action_names().len()), (spec.obs.width(), spec.actions.width()));
        assert!(names.iter().all(|name| !name.starts_with("obs[")), "{}: {names:?}", entry.name());
        assert!(spec.action_names().iter().all(|name| !name.starts_with("action[")), "{}", entry.name());
        assert!(spec.max_steps.is_some(), "{}", entry.name());
    }
    let angles = |name| tasks::make(name).unwrap().env.spec().angles();
    assert_eq!(angles("cartpole-swingup"), [AngleColumn::radians(1)]);
    assert_eq!(angles("reacher"), [AngleColumn::radians(0), AngleColumn::radians(1)]);
    // Sine and cosine are no angles, and neither is one of at most 12 degrees.
    assert!(angles("pendulum").is_empty() && angles("cartpole").is_empty());
}

/// One more turn of an angle is the same state: the same step follows, and the same reward.
#[test]
fn an_angle_after_one_more_turn_moves_in_the_same_way() {
    /// Starts at a state, and gives the observation and what a step gives there.
    type From = fn(&[f64]) -> (Vec<f32>, Step);
    fn swingup(state: &[f64]) -> (Vec<f32>, Step) {
        let mut env = CartPoleSwingup::new();
        (env.set_state(state.try_into().unwrap()).unwrap(), env.step(&[1.3]).unwrap())
    }
    fn reacher(state: &[f64]) -> (Vec<f32>, Step) {
        let mut env = Reacher::new();
        (env.set_state(state.try_into().unwrap()).unwrap(), env.step(&[0.4, -0.7]).unwrap())
    }
    let tasks: [(&str, From, &[f64]); 2] = [
        ("cartpole-swingup", swingup, &[0.3, 2.1, -0.5, 1.7]),
        ("reacher", reacher, &[0.4, 1.2, 0.8, -2.0, 0.1, 0.05]),
    ];
    for (name, step, state) in tasks {
        let spec = tasks::make(name).unwrap().env.spec().clone();
        let angles = spec.angles();
        assert!(!angles.is_empty());
        let (start, plain) = step(state);
        for (column, field) in spec.fields.iter().enumerate() {
            let angle = angles.iter().find(|angle| angle.column == column);
            // Target and cart do not turn; whatever is no angle is moved as far, and something must come of it.
            let turn = angle.map_or(0.02, |angle| f64::from(angle.turn));
            let mut turned = state.to_vec();
            turned[column] += turn;
            let (turned_start, after) = step(&turned);
            let moved = turned_start[column] - start[column];
            assert!((f64::from(moved) - turn).abs() < 1e-5, "{name}: {} is not column {column}", field.name);
            let mut differences = plain.obs.iter().zip(&after.obs).map(|(a, b)| f64::from(b - a)).collect::<Vec<_>>();
            differences[column] -= turn;
            differences.push(after.reward - plain.reward);
            let largest = differences.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            match angle {
                // A turn is rounded to f32: 2e-7 of angle, by slopes of at most a hundred.
                Some(_) => assert!(largest < 2e-5, "{name}: {} by one turn: {differences:?}", field.name),
                None => assert!(largest > 1e-4 || column == 0, "{name}: {} changes nothing", field.name),
            }
        }
    }
}

#[test]
fn tasks_that_this_build_lacks_are_known_by_name() {
    for entry in tasks::entries() {
        match (entry.needs(), entry.is_available()) {
            (Some("mujoco"), available) => assert_eq!(available, cfg!(feature = "mujoco"), "{}", entry.name()),
            (needs, available) => assert!(needs.is_none() && available, "{}", entry.name()),
        }
        if !entry.is_available() {
            let refused = tasks::make(entry.name()).unwrap_err();
            assert!(matches!(&refused, EnvError::NeedsFeature { feature: "mujoco", .. }), "{refused}");
            let text = refused.to_string();
            assert!(text.contains(entry.name()) && text.contains("docs/mujoco.md"), "{text}");
        }
    }
    let mut names: Vec<String> = tasks::entries().iter().map(|entry| entry.name().to_owned()).collect();
    assert_eq!(names.len(), 25);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 25);
}

#[test]
fn a_table_of_ones_own_is_made_when_the_program_runs() {
    let named = |number: u32| {
        TaskEntry::new(format!("cliff-{number}"), "a hill of its own", move |options| {
            let config: CliffConfig = options.read("cliff")?;
            let edge = f64::from(number) + config.edge;
            Ok(Task::new(World::from_env(CliffConfig { edge, drop: 50.0, ..config }.init()?)))
        })
    };
    let entries: Vec<TaskEntry> = (1..4).map(named).collect();
    assert_eq!(entries[2].name(), "cliff-3");
    let task = entries[2].make(&Options::new().with("edge", 5.0)).unwrap();
    assert_eq!(task.env.spec().obs.high()[0], 8.1);
    assert!(task.env.simulator().is_none() && task.reward.is_none());
    let refused = task.env.into_simulator().map(drop).unwrap_err().to_string();
    assert!(refused.contains("cliff is not a simulator"), "{refused}");
}

#[test]
fn options_shape_a_task_and_unknown_ones_are_named() {
    let edge = |options| {
        let mut task = tasks::make_with("cliff", options)?;
        task.env.reset(Some(0))?;
        for steps in 1.. {
            let step = task.env.step(&[1.0])?;
            if step.terminated {
                return Ok::<_, EnvError>((steps, task.sketch.is_some()));
            }
        }
        unreachable!()
    };
    assert!(edge(json!({})).unwrap().0 >= 20);
    assert!(edge(json!({})).unwrap().1);
    // The start lies within half a step of 0, and the sketch is of the default shape.
    let (steps, sketched) = edge(json!({ "edge": 1 })).unwrap();
    assert!((10..=11).contains(&steps) && !sketched, "{steps}");

    for (task, options, words) in [
        ("cliff", json!({ "hedge": 1.0 }), ["cliff", "`hedge`", "`edge`"]),
        ("cliff", json!({ "edge": "far" }), ["cliff", "far", "f64"]),
        ("pendulum", json!({ "gravity": 9.8 }), ["pendulum", "`gravity`", "none"]),
    ] {
        let refused = tasks::make_with(task, options).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, EnvError::Options { .. }), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    let broken = tasks::make_with("cliff", json!({ "edge": -1.0 })).unwrap_err();
    assert!(matches!(broken, EnvError::Config { field: "edge", .. }));
    // Of two mistakes the name is the first to be corrected.
    let unknown = tasks::make_with("pendulun", json!({ "gravity": 9.8 })).unwrap_err();
    assert!(matches!(unknown, EnvError::UnknownTask { .. }));
}

#[test]
fn every_task_ends_at_its_time_limit() {
    for entry in available() {
        let mut task = entry.make(&Options::new()).unwrap();
        let max_steps = task.env.spec().max_steps.unwrap();
        let (mut longest, still) = (0, vec![0.0; task.env.spec().actions.width()]);
        for seed in 0..20 {
            if longest == max_steps {
                break;
            }
            task.env.reset(Some(seed)).unwrap();
            for length in 1.. {
                // No force: the cart-pole's pole falls over, the others go on to the limit.
                let step = task.env.step(&still).unwrap();
                assert_eq!(step.truncated, length == max_steps, "{} at {length}", entry.name());
                assert!(!step.terminated || task.termination.is_some());
                if step.episode_over() {
                    longest = longest.max(length);
                    break;
                }
            }
        }
        assert!(longest == max_steps || task.termination.is_some());
    }
}

#[test]
fn an_unknown_task_is_named_beside_the_known_ones() {
    match tasks::make("acrobot") {
        Err(error @ EnvError::UnknownTask { .. }) => {
            let text = error.to_string();
            assert!(text.contains("`acrobot`"), "{text}");
            assert!(tasks::entries().iter().all(|entry| text.contains(entry.name())), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_tasks_snapshot_is_refused() {
    let mut pendulum = tasks::make("pendulum").unwrap().env.into_simulator().unwrap();
    let snapshot = tasks::make("cartpole").unwrap().env.require_simulator().unwrap().save();
    pendulum.reset(Some(0)).unwrap();
    assert!(matches!(pendulum.restore(&snapshot), Err(EnvError::ForeignSnapshot { .. })));
    assert!(pendulum.step(&[0.0]).is_ok());
}

#[test]
fn a_state_that_is_no_number_is_refused() {
    let mut env = Pendulum::new();
    assert!(matches!(env.set_state([f64::NAN, 0.0]), Err(EnvError::NonFinite { index: 0, .. })));
    assert!(matches!(env.step(&[0.0]), Err(EnvError::NeedsReset { .. })));
}

#[test]
fn the_failing_step_pays_one_in_the_environment_and_nothing_in_planning() {
    let mut env = CartPole::new();
    let before = env.set_state([2.39, 1.0, 0.0, 0.0]).unwrap();
    let step = env.step(&[0.0]).unwrap();
    assert_eq!((step.reward, step.terminated), (1.0, true));
    let row = |obs: &[f32]| Tensor::<1>::from_data(obs, &Device::flex()).unsqueeze::<2>();
    let reward = CartPoleReward.reward(row(&before), tensor([[0.0]]), row(&step.obs));
    assert_eq!(values(reward), [0.0]);
}

#[test]
fn cartpole_ends_on_each_side_and_at_nan() {
    let limit = 12.0_f32.to_radians();
    let next = tensor([
        [0.0, 9.0, 0.0, 9.0],
        [2.39, 0.0, 0.99 * limit, 0.0],
        [2.41, 0.0, 0.0, 0.0],
        [-2.41, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.01 * limit, 0.0],
        [0.0, 0.0, -1.01 * limit, 0.0],
        [f32::NAN, 0.0, 0.0, 0.0],
        [0.0, 0.0, f32::NAN, 0.0],
    ]);
    let ends = CartPoleTermination.terminated(next.clone(), Tensor::zeros([8, 1], &Device::flex()), next);
    let ends: Vec<bool> = ends.into_data().iter::<bool>().collect();
    assert_eq!(ends, [false, false, true, true, true, true, true, true]);
}

#[test]
fn rewards_are_what_the_formulas_say() {
    // Pendulum: hanging, at 2 rad/s, with torque 1: −(π² + 0.4 + 0.001).
    let (obs, action) = (tensor([[-1.0, 0.0, 2.0]]), tensor([[1.0]]));
    let reward = values(PendulumReward.reward(obs.clone(), action, obs))[0];
    let expected = -(std::f32::consts::PI.powi(2) + 0.401);
    assert!((reward - expected).abs() < 1e-5, "{reward}, expected {expected}");
    // Swing-up: pole to the side with its tip at x = 0, so 0.6 m below the target; one unit of action.
    let quarter = std::f32::consts::FRAC_PI_2;
    let next = tensor([[0.6, quarter, 0.0, 0.0]]);
    let reward = values(CartPoleSwingupReward.reward(next.clone(), tensor([[1.0]]), next))[0];
    assert!((reward - ((-1.0_f32).exp() - 0.01)).abs() < 1e-6, "{reward}");
    // Reacher: upper arm along x, forearm along y, so the tip is at (0.1, 0.11); full torques.
    let next = tensor([[0.0, quarter, 3.0, -3.0, 0.1, -0.09]]);
    let actions = tensor([[1.0, -1.0]]);
    let reward = values(ReacherReward::default().reward(next.clone(), actions.clone(), next.clone()))[0];
    assert!((reward + 0.2 + 0.04).abs() < 1e-6, "{reward}");
    let reward = values(ReacherReward::to([0.1, 0.41]).reward(next.clone(), actions, next))[0];
    assert!((reward + 0.3 + 0.04).abs() < 1e-6, "{reward}");
    // Point mass: 3-4-5 triangle at the goal's scale; just inside of the goal and just outside.
    let next = tensor([[0.4, 0.3, 1.0, 1.0], [0.7, 0.601, 0.0, 0.0], [0.599, 0.7, 0.0, 0.0]]);
    let none = Tensor::zeros([3, 2], &Device::flex());
    let shaped = values(PointMassReward::Shaped.reward(next.clone(), none.clone(), next.clone()));
    assert!((shaped[0] + 0.5).abs() < 1e-6 && (shaped[1] + 0.099).abs() < 1e-6, "{shaped:?}");
    assert_eq!(values(PointMassReward::Sparse.reward(next.clone(), none, next)), [0.0, 1.0, 0.0]);
    // Mountain car: on the way, arrived, rolled back over the goal; half the force.
    let next = tensor([[0.44, 0.01], [0.46, 0.0], [0.46, -0.01]]);
    let reward = values(MountainCarReward.reward(next.clone(), tensor([[0.5], [0.5], [0.5]]), next));
    assert_eq!(reward, [-0.025, 99.975, -0.025]);
}

#[test]
fn new_tasks_end_where_they_should() {
    let ends = |rule: &dyn Termination, next: Tensor<2>| -> Vec<bool> {
        let actions = Tensor::zeros([next.dims()[0], 1], &Device::flex());
        rule.terminated(next.clone(), actions, next).into_data().iter::<bool>().collect()
    };
    let next = tensor([[0.45, 0.0], [0.45, -1e-4], [0.449, 0.07], [f32::NAN, 0.0], [0.5, f32::NAN]]);
    assert_eq!(ends(&MountainCarTermination, next), [true, false, false, false, false]);
    let next = tensor([[1.9], [2.05], [-1.0], [2.0], [f32::NAN]]);
    assert_eq!(ends(&CliffConfig::default().termination(), next), [false, true, false, false, true]);
}

#[test]
fn the_arms_tips_are_the_same_in_batches_and_one_by_one() {
    let (mut rng, n) = (Rng::new(0), 100);
    let obs: Vec<f32> = (0..n * 6).map(|_| rng.uniform(-7.0, 7.0)).collect();
    let batch = Reacher::tips(&Tensor::<1>::from_data(obs.as_slice(), &Device::flex()).reshape([n, 6]));
    assert_eq!(batch.dims(), [n, 2]);
    let batch: Vec<f32> = batch.into_data().iter::<f32>().collect();
    for (row, tips) in obs.chunks(6).zip(batch.chunks(2)) {
        let tip = Reacher::tip(row);
        assert!((tip[0] - tips[0]).abs() < 1e-6 && (tip[1] - tips[1]).abs() < 1e-6, "{tip:?} {tips:?}");
    }
}

#[test]
fn gradients_are_finite_at_the_goal() {
    // The root in a distance has none of its own there.
    let reacher = tensor([[0.0, 0.0, 0.0, 0.0, 0.21, 0.0]]);
    let point = tensor([[0.7, 0.7, 0.0, 0.0]]);
    let rewards: [(&dyn Reward, Tensor<2>); 3] = [
        (&ReacherReward::default(), reacher.clone()),
        (&ReacherReward::to([0.21, 0.0]), reacher),
        (&PointMassReward::Shaped, point),
    ];
    for (reward, next) in rewards {
        let next = next.autodiff().require_grad();
        let gradients = reward.reward(next.clone(), tensor([[0.0, 0.0]]).autodiff(), next.clone()).sum().backward();
        let gradient: Vec<f32> = next.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
        assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
    }
}

/// The points of a shape, and its half width.
fn extent(shape: &Shape) -> (Role, Vec<[f32; 2]>, f32) {
    match shape {
        Shape::Line { role, points, width } => {
            assert!(points.len() >= 2 && *width > 0.0);
            (*role, points.clone(), width / 2.0)
        }
        Shape::Disc { role, at, radius } => {
            assert!(*radius > 0.0);
            (*role, vec![*at], *radius)
        }
        Shape::Polygon { role, points } => {
            assert!(points.len() >= 3);
            (*role, points.clone(), 0.0)
        }
    }
}

#[test]
fn every_task_is_drawn_within_its_view() {
    let mut undrawn = Vec::new();
    for entry in available() {
        let mut task = entry.make(&Options::new()).unwrap();
        let max_steps = task.env.spec().max_steps.unwrap();
        let Some(draw) = task.sketch else {
            undrawn.push(entry.name().to_owned());
            continue;
        };
        let mut rng = Rng::new(0);
        let mut bodies = Vec::new();
        for seed in 0..5 {
            let mut obs = task.env.reset(Some(seed)).unwrap();
            let view = draw(&obs).view;
            for _ in 0..max_steps {
                let sketch = draw(&obs);
                assert_eq!(sketch.view, view, "{}", entry.name());
                let [x0, y0, x1, y1] = view;
                for shape in &sketch.shapes {
                    let (role, points, around) = extent(shape);
                    for [x, y] in &points {
                        let inside = x0 <= x - around && x + around <= x1 && y0 <= y - around && y + around <= y1;
                        assert!(inside, "{}: {shape:?} of {obs:?} is not within {view:?}", entry.name());
                    }
                    if role == Role::Body {
                        bodies.push(points);
                    }
                }
                let step = task.env.step(&task.env.spec().actions.sample(&mut rng).unwrap()).unwrap();
                obs = step.obs;
                if step.terminated || step.truncated {
                    break;
                }
            }
        }
        assert!(bodies.windows(2).any(|pair| pair[0] != pair[1]), "{}: nothing moves", entry.name());
    }
    // Tasks that are seen as pictures need none, and the engine's have pictures instead.
    undrawn.retain(|name| !name.ends_with("-pixels"));
    assert_eq!(undrawn.is_empty(), !cfg!(feature = "mujoco"), "{undrawn:?}");
}

#[test]
fn sketches_show_the_tips_where_the_rewards_have_them() {
    let bodies = |name: &str, obs: &[f32]| -> Vec<[f32; 2]> {
        let sketch = tasks::make(name).unwrap().sketch.unwrap()(obs);
        let shapes = sketch.shapes.iter().map(extent).filter(|(role, ..)| *role == Role::Body);
        shapes.flat_map(|(_, points, _)| points).collect()
    };
    let shows = |name: &str, obs: &[f32], tip: [f32; 2]| {
        let points = bodies(name, obs);
        assert!(
            points.iter().any(|point| (point[0] - tip[0]).hypot(point[1] - tip[1]) < 1e-6),
            "{name}: {tip:?} is not among {points:?}"
        );
    };
    shows("pendulum", &[1.0, 0.0, 0.0], [0.0, 1.0]);
    shows("pendulum", &[0.0, 0.5, 0.0], [-1.0, 0.0]);
    shows("cartpole", &[1.0, 0.0, 0.1, 0.0], [1.0 + 0.1_f32.sin(), 0.1_f32.cos()]);
    // To the side, the tip is 0.6 m to the left of the cart: where the reward has it.
    shows("cartpole-swingup", &[0.6, std::f32::consts::FRAC_PI_2, 0.0, 0.0], [0.0, 0.0]);
    let arm = [0.3, 1.0, 0.0, 0.0, 0.1, 0.1];
    shows("reacher", &arm, Reacher::tip(&arm));
    shows("point-mass-sparse", &[0.2, -0.9, 0.0, 0.0], [0.2, -0.9]);
    // The walker's disc of 0.06 m stands on the ground: on the hill, and fallen.
    shows("cliff", &[1.0], [1.0, 1.06]);
    shows("cliff", &[2.05], [2.05, -1.94]);
}

#[test]
fn rewards_have_no_nan_at_the_ends_of_the_number_line() {
    let extremes = [0.0, -0.0, 1e-40, 1.0, -1e20, 3e38, -3e38];
    let (own, fixed) = (ReacherReward::default(), ReacherReward::to([0.1, 0.1]));
    let rewards: [(&dyn Reward, usize, f32); 9] = [
        (&PendulumReward, 3, 0.0),
        (&CartPoleReward, 4, 1.0),
        (&CartPoleSwingupReward, 4, 1.0),
        (&own, 6, 0.0),
        (&fixed, 6, 0.0),
        (&PointMassReward::Shaped, 4, 0.0),
        (&PointMassReward::Sparse, 4, 1.0),
        (&MountainCarReward, 2, 100.0),
        (&CliffConfig::default().reward(), 1, 2.0),
    ];
    for (reward, width, best) in rewards {
        let mut rng = Rng::new(0);
        let n = 500;
        let mut draw = |width: usize| {
            let entries: Vec<f32> = (0..n * width).map(|_| extremes[rng.below(extremes.len())]).collect();
            Tensor::<1>::from_data(entries.as_slice(), &Device::flex()).reshape([n, width])
        };
        let rewards = values(reward.reward(draw(width), draw(2), draw(width)));
        assert_eq!(rewards.len(), n);
        assert!(rewards.iter().all(|reward| !reward.is_nan() && *reward <= best), "{rewards:?}");
    }
}

#[test]
fn gradients_of_rewards_are_those_of_finite_differences() {
    let (own, fixed) = (ReacherReward::default(), ReacherReward::to([0.1, 0.1]));
    let rewards: [(&dyn Reward, usize, usize); 7] = [
        (&PendulumReward, 3, 1),
        (&CartPoleSwingupReward, 4, 1),
        (&own, 6, 2),
        (&fixed, 6, 2),
        (&PointMassReward::Shaped, 4, 2),
        (&MountainCarReward, 2, 1),
        (&CliffConfig::default().reward(), 1, 1),
    ];
    for (reward, width, actions) in rewards {
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            // Away from 0: there the pendulum's angle jumps or turns fast, and differences do not give the slope.
            let mut draw = |n| {
                let entry = |_| rng.uniform(0.5, 1.5) * if rng.below(2) == 0 { 1.0 } else { -1.0 };
                (0..n).map(entry).collect::<Vec<f32>>()
            };
            let mut inputs = [draw(width), draw(actions), draw(width)];
            // Within the bounds of every task: beyond them the cost has a kink.
            inputs[1].iter_mut().for_each(|action| *action *= 0.6);
            let row = |entries: &[f32]| Tensor::<1>::from_data(entries, &Device::flex()).unsqueeze::<2>();
            let tracked = inputs.each_ref().map(|entries| row(entries).autodiff().require_grad());
            let [obs, action, next] = tracked.clone();
            let gradients = reward.reward(obs, action, next).sum().backward();
            for (which, tracked) in tracked.iter().enumerate() {
                // An input that the reward does not use has no gradient.
                let gradient: Vec<f32> = match tracked.grad(&gradients) {
                    Some(gradient) => gradient.into_data().iter::<f32>().collect(),
                    None => vec![0.0; inputs[which].len()],
                };
                for (entry, gradient) in gradient.iter().enumerate() {
                    let at = |offset: f32| {
                        let mut moved = inputs.clone();
                        moved[which][entry] += offset;
                        f64::from(values(reward.reward(row(&moved[0]), row(&moved[1]), row(&moved[2])))[0])
                    };
                    // Truncation of about 1e-4, rounding of about 1e-6 / 1e-2.
                    let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                    let error = (slope - f64::from(*gradient)).abs();
                    assert!(error < 5e-3 * slope.abs().max(1.0), "{slope} by differences, {gradient} by autodiff");
                }
            }
        }
    }
}

#[test]
fn the_pendulums_gradient_is_finite_where_its_angle_is_not_defined() {
    let obs = tensor([[0.0, 0.0, 1.0]]).autodiff().require_grad();
    let gradients = PendulumReward.reward(obs.clone(), tensor([[0.0]]).autodiff(), obs.clone()).sum().backward();
    let gradient: Vec<f32> = obs.grad(&gradients).unwrap().into_data().iter::<f32>().collect();
    assert!(gradient.iter().all(|slope| slope.is_finite()), "{gradient:?}");
    assert!((gradient[2] + 0.2).abs() < 1e-6);
}
