//! Learned rewards and terminations: what a roll-out makes of the members' predictions.

use super::*;

/// Rewards and probabilities of a termination that each member predicts, `[E][N]`.
fn said(model: &Ensemble, states: &Tensor<2>, actions: &Tensor<2>) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let members = model.elites.len();
    let rows = states.dims()[0];
    let inputs = model.network_inputs(states.clone(), actions.clone()).unsqueeze::<3>().repeat_dim(0, members);
    let step = model.step(inputs);
    let split = |part: Option<Tensor<3>>| to_vec(part.unwrap()).chunks(rows).map(<[f32]>::to_vec).collect();
    (split(step.reward), split(step.end))
}

#[test]
fn the_reward_is_the_mean_and_an_end_a_probability_above_one_half() {
    let device = Device::flex();
    let mut model = ensemble(&extended(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 11);
    let mut rng = Rng::new(1);
    let rows = 200;
    let (states, actions) = (normal(rows, model.spec.state, &device, &mut rng), normal(rows, 2, &device, &mut rng));
    let (rewards, ends) = said(&model, &states, &actions);
    let mean = |of: &[Vec<f32>], row: usize| of.iter().map(|member| member[row]).sum::<f32>() / 5.0;
    for engine in [true, false] {
        model.set_engine(engine);
        let sample = |members, particles, noise| {
            let draw = Draw::new(Propagation { rule: members, noise, particles }, 3);
            let repeated = |t: &Tensor<2>| t.clone().repeat_dim(0, particles);
            let step = model.sample(repeated(&states), repeated(&actions), draw).unwrap();
            (to_vec(step.reward.unwrap()), to_bools(step.terminated.unwrap()))
        };
        for (members, particles, noise) in [(MemberRule::Expectation, 1, false), (MemberRule::Ds, 2, true)] {
            let (reward, terminated) = sample(members, particles, noise);
            for row in 0..rows * particles {
                assert!((reward[row] - mean(&rewards, row % rows)).abs() < 1e-5);
                assert_eq!(terminated[row], mean(&ends, row % rows) > 0.5);
            }
        }
        // The member of a particle speaks for it, and noise is not for rewards.
        let (reward, terminated) = sample(MemberRule::TsInf, 5, true);
        for row in 0..5 * rows {
            assert!((reward[row] - rewards[row / rows][row % rows]).abs() < 1e-5);
            assert_eq!(terminated[row], ends[row / rows][row % rows] > 0.5);
        }
        // Or else the test above says nothing.
        let over = terminated.iter().filter(|end| **end).count();
        assert!((rows..4 * rows).contains(&over), "{over}");
    }
}

#[cfg(feature = "train")]
#[test]
fn gradients_flow_through_the_reward() {
    let device = Device::flex();
    let model = ensemble(&extended(config(Activation::Silu, Head::Gaussian)), 4, 2, &device, 11);
    let mut rng = Rng::new(1);
    let state = normal(1, model.spec.state, &device, &mut rng);
    let plan = normal(3, 2, &device, &mut rng).reshape([3, 1, 2]);
    let draw = Draw::new(Propagation { rule: MemberRule::Ds, noise: true, particles: 2 }, 3);
    let paid = |plan: Tensor<3>| model.rollout(Start::States(state.clone()), plan, draw).unwrap().reward.unwrap().sum();
    let tracked = plan.clone().autodiff().require_grad();
    let gradients = paid(tracked.clone()).backward();
    let gradient = to_vec(tracked.grad(&gradients).unwrap());
    let largest = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
    for (i, gradient) in gradient.iter().enumerate() {
        let moved = |by: f32| {
            let mut plan = to_vec(plan.clone());
            plan[i] += by;
            paid(Tensor::from_data(TensorData::new(plan, [3, 1, 2]), &device)).into_scalar::<f32>()
        };
        let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((gradient - difference).abs() < 0.01 * largest, "entry {i}: {gradient} and {difference}");
    }
}
