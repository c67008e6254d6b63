//! Reach a target with a two-link arm, simulated by its equations of motion.

use std::{array, sync::Arc};

use burn::tensor::{Tensor, TensorData};

use super::{Episode, column, distance, named, runge_kutta};
use crate::{ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Reward, Role, Shape, Sketch, Step, check_action};

pub(super) const NAME: &str = "reacher";

/// Lengths of the two links (m).
const LINKS: [f64; 2] = [0.1, 0.11];
/// Torque of one unit of action (N·m).
const GEAR: f64 = 0.1;
const ACTION_COST: f64 = 0.02;
const TIME_STEP: f64 = 0.01;
const STEPS_PER_ACTION: usize = 4;
/// Targets lie within this distance of the base (m).
const TARGET_RADIUS: f64 = 0.2;
const START_ANGLE: f64 = 0.1;
const START_SPEED: f64 = 0.005;

/// A two-link arm that lies on a table and brings its tip to a target, a new one in each episode.
///
/// **This is not MuJoCo's Reacher.** Links, starts, targets, episode length and shape of the reward are those of
/// Gymnasium's `Reacher-v5`; the masses, motors, control period, units of action and observation are not, so returns
/// cannot be compared. `Reacher-v5` gives each joint an inertia of 1 kg·m², a thousand times that of its links, so its two
/// joints hardly affect each other; here they do.
///
/// # Action
/// | Num | Action | Min | Max | Joint | Unit |
/// | --- | --- | --- | --- | --- | --- |
/// | 0 | torque of the shoulder, clipped | −1 | 1 | hinge | 0.1 N·m |
/// | 1 | torque of the elbow, clipped | −1 | 1 | hinge | 0.1 N·m |
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | angle of the shoulder θ₁, 0 along x, not wrapped | −∞ | ∞ | rad |
/// | 1 | angle of the elbow θ₂, 0 stretched, not wrapped | −∞ | ∞ | rad |
/// | 2 | θ̇₁ | −∞ | ∞ | rad/s |
/// | 3 | θ̇₂ | −∞ | ∞ | rad/s |
/// | 4 | target x | −0.2 | 0.2 | m |
/// | 5 | target y | −0.2 | 0.2 | m |
///
/// The state is the observation, in double precision. [`Reacher::tip`] and [`Reacher::tips`] say where the tip is.
///
/// # Dynamics
/// Uniform rods with l₁ = 0.1 m and l₂ = 0.11 m, m = 0.1 kg each, with centres at c = l/2 and I = m l²/12 about them; a rotor
/// with J = 0.001 kg·m² on each joint; damping of b = 0.01 N·m·s/rad; no gravity, no friction, no joint limits, and the links
/// may pass over each other. Lagrange's equations give `M(θ₂) θ̈ + C(θ, θ̇) = τ − b θ̇` with
///
/// ```text
/// M₁₁ = I₁ + m₁ c₁² + I₂ + m₂ (l₁² + c₂² + 2 l₁ c₂ cos θ₂) + J        C₁ = −h (2 θ̇₁ θ̇₂ + θ̇₂²)
/// M₁₂ = M₂₁ = I₂ + m₂ (c₂² + l₁ c₂ cos θ₂)                            C₂ = h θ̇₁²
/// M₂₂ = I₂ + m₂ c₂² + J                                               h = m₂ l₁ c₂ sin θ₂
/// ```
///
/// They are integrated by the classical Runge-Kutta method at 0.01 s, four steps per action. One unit of action accelerates the
/// outstretched arm, with its elbow held, at 26 rad/s² and drives it to 10 rad/s at most: the other side is some 0.7 s away.
///
/// # Reward
/// `−‖tip − target‖ − 0.02 ‖a‖²`, from the action and the observation *after* the step. `Reacher-v5` has the same form with
/// weights 1 and 1, and its motors give 200 rad/s² for one unit of action; the acceleration that costs 0.02 here, 26 rad/s², costs
/// (26/200)² = 0.017 there.
///
/// # Start
/// Both angles uniform in ±0.1 rad, both speeds in ±0.005 rad/s, the target uniform in the disc of 0.2 m around the base:
/// upstream's distributions, drawn from our own generator. Targets within 1 cm of the base, one in 400, are out of reach,
/// because the links differ in length.
///
/// # End
/// Never terminates; the task's time limit is 50 steps (2 s).
///
/// ```
/// use mbrl_env::{Env, tasks::Reacher};
/// let mut env = Reacher::new();
/// let obs = env.set_state([0.0, std::f64::consts::FRAC_PI_2, 0.0, 0.0, 0.1, 0.11])?;
/// let [x, y] = Reacher::tip(&obs);
/// assert!((x - 0.1).abs() < 1e-6 && (y - 0.11).abs() < 1e-6); // at the target
/// assert!(env.step(&[0.0, 0.0])?.reward.abs() < 1e-12);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reacher {
    spec: Arc<EnvSpec>,
    episode: Episode<6>,
}

impl Reacher {
    /// An arm that awaits its first reset.
    #[must_use]
    pub fn new() -> Self {
        let (free, target) = (f32::INFINITY, TARGET_RADIUS as f32);
        let high = [free, free, free, free, target, target];
        let obs = BoxSpace::new(high.map(|bound| -bound), high).expect("constant bounds");
        let actions = ActionSpace::Box(BoxSpace::symmetric(2, 1.0).expect("constant bounds"));
        let fields = [
            Field::angle("shoulder"),
            Field::angle("elbow"),
            Field::linear("shoulder_velocity", "rad/s"),
            Field::linear("elbow_velocity", "rad/s"),
            Field::linear("target_x", "m"),
            Field::linear("target_y", "m"),
        ];
        let torques = [Field::linear("shoulder_torque", "0.1 N m"), Field::linear("elbow_torque", "0.1 N m")];
        let spec = EnvSpec::new(NAME, obs, actions, TIME_STEP * STEPS_PER_ACTION as f64);
        let spec = named(spec, fields, torques);
        Self { spec: Arc::new(spec), episode: Episode::new() }
    }

    /// Where the tip is (m), from an observation `[O]`.
    ///
    /// # Panics
    /// If the observation has fewer than two entries.
    #[must_use]
    pub fn tip(obs: &[f32]) -> [f32; 2] {
        joints([obs[0].into(), obs[1].into()])[1].map(|entry| entry as f32)
    }

    /// Where the tips are (m), from observations `[N, O]` → `[N, 2]`.
    #[must_use]
    pub fn tips(obs: &Tensor<2>) -> Tensor<2> {
        let (shoulder, elbow) = (column(obs, 0), column(obs, 1));
        let (sin, cos) = (shoulder.clone().sin(), shoulder.cos());
        let (sin_elbow, cos_elbow) = (elbow.clone().sin(), elbow.cos());
        // Not computed from the angles' sum, which overflows where a model's predictions diverge.
        let along = cos_elbow * LINKS[1] + LINKS[0];
        let across = sin_elbow * LINKS[1];
        let x = cos.clone() * along.clone() - sin.clone() * across.clone();
        let y = sin * along + cos * across;
        Tensor::stack(vec![x, y], 1)
    }

    /// The state (θ₁, θ₂, θ̇₁, θ̇₂, target x, target y), in rad, rad/s and m.
    #[must_use]
    pub fn state(&self) -> [f64; 6] {
        self.episode.state
    }

    /// Begins an episode at a state (θ₁, θ₂, θ̇₁, θ̇₂, target x, target y) and returns the observation there.
    ///
    /// # Errors
    /// [`EnvError::NonFinite`], and [`EnvError::Config`] if the target is not in the disc of targets.
    pub fn set_state(&mut self, state: [f64; 6]) -> Result<Vec<f32>, EnvError> {
        let away = state[4].hypot(state[5]);
        if away > TARGET_RADIUS {
            let rule = "a target within 0.2 m of the base";
            return Err(EnvError::Config { field: "distance of the target", value: away.to_string(), rule });
        }
        self.episode.begin_at(NAME, state)?;
        Ok(self.observation())
    }

    fn observation(&self) -> Vec<f32> {
        self.episode.state.iter().map(|&entry| entry as f32).collect()
    }
}

impl Default for Reacher {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for Reacher {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.episode.begin(seed, |rng| {
            let [shoulder, elbow] = array::from_fn(|_| rng.uniform_f64(-START_ANGLE, START_ANGLE));
            let [shoulder_speed, elbow_speed] = array::from_fn(|_| rng.uniform_f64(-START_SPEED, START_SPEED));
            let [x, y] = loop {
                let [x, y]: [f64; 2] = array::from_fn(|_| rng.uniform_f64(-TARGET_RADIUS, TARGET_RADIUS));
                if x.hypot(y) < TARGET_RADIUS {
                    break [x, y];
                }
            };
            [shoulder, elbow, shoulder_speed, elbow_speed, x, y]
        });
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.episode.require_running(NAME)?;
        check_action(&self.spec, action)?;
        let action = [action[0], action[1]].map(|torque| f64::from(torque.clamp(-1.0, 1.0)));
        let [shoulder, elbow, shoulder_speed, elbow_speed, x, y] = self.episode.state;
        let mut arm = [shoulder, elbow, shoulder_speed, elbow_speed];
        for _ in 0..STEPS_PER_ACTION {
            arm = ARM.advanced(arm, action.map(|torque| GEAR * torque));
        }
        self.episode.state = [arm[0], arm[1], arm[2], arm[3], x, y];

        let [_, tip] = joints([arm[0], arm[1]]);
        let away = (tip[0] - x).hypot(tip[1] - y);
        let reward = -away - ACTION_COST * (action[0].powi(2) + action[1].powi(2));
        Ok(Step::new(self.observation(), reward).with_info("distance", away))
    }
}

simulator_by_clone!(Reacher);

/// Where elbow and tip are.
fn joints([shoulder, elbow]: [f64; 2]) -> [[f64; 2]; 2] {
    let ((sin, cos), (sin_both, cos_both)) = (shoulder.sin_cos(), (shoulder + elbow).sin_cos());
    let at = [LINKS[0] * cos, LINKS[0] * sin];
    [at, [at[0] + LINKS[1] * cos_both, at[1] + LINKS[1] * sin_both]]
}

/// The two links; symbols as in the documentation of [`Reacher`].
#[derive(Debug, Clone, Copy)]
struct Arm {
    /// m (kg).
    masses: [f64; 2],
    /// J (kg·m²).
    rotor: f64,
    /// b (N·m·s/rad).
    damping: f64,
}

const ARM: Arm = Arm { masses: [0.1, 0.1], rotor: 1e-3, damping: 0.01 };

impl Arm {
    /// M, for an elbow angle.
    fn mass_matrix(&self, elbow: f64) -> [[f64; 2]; 2] {
        let [c1, c2] = LINKS.map(|length| length / 2.0);
        let [i1, i2]: [f64; 2] = array::from_fn(|i| self.masses[i] * LINKS[i].powi(2) / 12.0);
        let ([m1, m2], [l1, _]) = (self.masses, LINKS);
        let second = i2 + m2 * c2.powi(2);
        let coupling = m2 * l1 * c2 * elbow.cos();
        let m11 = i1 + m1 * c1.powi(2) + m2 * l1.powi(2) + second + 2.0 * coupling + self.rotor;
        [[m11, second + coupling], [second + coupling, second + self.rotor]]
    }

    /// θ̈ under torques τ (N·m).
    fn accelerations(&self, [_, elbow, w1, w2]: [f64; 4], torques: [f64; 2]) -> [f64; 2] {
        let h = self.masses[1] * LINKS[0] * LINKS[1] / 2.0 * elbow.sin();
        let on_first = torques[0] - self.damping * w1 + h * (2.0 * w1 * w2 + w2.powi(2));
        let on_second = torques[1] - self.damping * w2 - h * w1.powi(2);
        let [[m11, m12], [_, m22]] = self.mass_matrix(elbow);
        // Positive: the mass matrix is positive definite.
        let determinant = m11 * m22 - m12.powi(2);
        [(m22 * on_first - m12 * on_second) / determinant, (m11 * on_second - m12 * on_first) / determinant]
    }

    /// (θ₁, θ₂, θ̇₁, θ̇₂) one time step later.
    fn advanced(&self, state: [f64; 4], torques: [f64; 2]) -> [f64; 4] {
        runge_kutta(state, TIME_STEP, |state| {
            let [a1, a2] = self.accelerations(state, torques);
            [state[2], state[3], a1, a2]
        })
    }
}

/// [`Reacher`]'s reward, from the action and the observation after the step.
///
/// The goal is not part of the model: [`to`](Self::to) sets another one at any time, also for a model that was learned
/// without any reward.
///
/// ```
/// use mbrl_env::{Device, Reward, Tensor, tasks::ReacherReward};
/// // The arm lies along x, its tip at (0.21, 0); the target that it sees is there too.
/// let obs = Tensor::<2>::from_floats([[0.0, 0.0, 0.0, 0.0, 0.21, 0.0]], &Device::flex());
/// let rest = Tensor::<2>::zeros([1, 2], &Device::flex());
/// let pays = |reward: ReacherReward| reward.reward(obs.clone(), rest.clone(), obs.clone()).into_scalar::<f32>();
/// assert!(pays(ReacherReward::default()).abs() < 1e-5);
/// assert!((pays(ReacherReward::to([0.21, 0.1])) + 0.1).abs() < 1e-5);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReacherReward {
    target: Option<[f32; 2]>,
}

impl ReacherReward {
    /// The reward for your own target `[x, y]` (m) in place of the one in the observation. A target out of reach is a
    /// goal too: to be as near to it as possible.
    #[must_use]
    pub fn to(target: [f32; 2]) -> Self {
        Self { target: Some(target) }
    }
}

impl Reward for ReacherReward {
    fn reward(&self, _: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        let target = match self.target {
            None => next_obs.clone().narrow(1, 4, 2),
            Some(target) => Tensor::from_data(TensorData::new(target.to_vec(), [1, 2]), &next_obs.device()),
        };
        let effort = actions.clamp(-1.0, 1.0).square().sum_dim(1).squeeze_dim::<1>(1);
        -(distance(Reacher::tips(&next_obs), target) + effort * ACTION_COST)
    }
}

/// The arm and its target, from above.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    let [elbow, tip] = joints([obs[0].into(), obs[1].into()]).map(|joint| joint.map(|entry| entry as f32));
    Sketch {
        view: [-0.24, -0.24, 0.24, 0.24],
        shapes: vec![
            Shape::Disc { role: Role::Goal, at: [obs[4], obs[5]], radius: 0.012 },
            Shape::Line { role: Role::Body, points: vec![[0.0, 0.0], elbow, tip], width: 0.014 },
            Shape::Disc { role: Role::Ground, at: [0.0, 0.0], radius: 0.01 },
            Shape::Disc { role: Role::Body, at: tip, radius: 0.009 },
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::Rng;

    const FRICTIONLESS: Arm = Arm { damping: 0.0, ..ARM };

    /// Kinetic energy from the velocities of the links' centres, not from the formula of M.
    fn energy(arm: &Arm, [shoulder, elbow, w1, w2]: [f64; 4]) -> f64 {
        let across =
            |angle: f64, length: f64, speed: f64| [-length * speed * angle.sin(), length * speed * angle.cos()];
        let first = across(shoulder, LINKS[0] / 2.0, w1);
        let (to_elbow, from_elbow) =
            (across(shoulder, LINKS[0], w1), across(shoulder + elbow, LINKS[1] / 2.0, w1 + w2));
        let second = [to_elbow[0] + from_elbow[0], to_elbow[1] + from_elbow[1]];
        let inertia = |i: usize| arm.masses[i] * LINKS[i].powi(2) / 12.0;
        let square = |v: [f64; 2]| v[0].powi(2) + v[1].powi(2);
        0.5 * (arm.masses[0] * square(first) + inertia(0) * w1.powi(2))
            + 0.5 * (arm.masses[1] * square(second) + inertia(1) * (w1 + w2).powi(2))
            + 0.5 * arm.rotor * (w1.powi(2) + w2.powi(2))
    }

    /// About the base; the rotor of the elbow turns with θ̇₂ alone, so it does not act on the shoulder.
    fn momentum(arm: &Arm, [_, elbow, w1, w2]: [f64; 4]) -> f64 {
        let [first, _] = arm.mass_matrix(elbow);
        first[0] * w1 + first[1] * w2
    }

    #[test]
    fn energy_and_momentum_are_conserved_without_friction_and_torque() {
        let mut rng = Rng::new(0);
        for _ in 0..20 {
            let mut state = array::from_fn(|i| rng.uniform_f64(-1.0, 1.0) * if i < 2 { PI } else { 6.0 });
            let (start, turning) = (energy(&FRICTIONLESS, state), momentum(&FRICTIONLESS, state));
            for _ in 0..400 {
                state = FRICTIONLESS.advanced(state, [0.0; 2]);
            }
            // Runge-Kutta's error over these 4 s at speeds of up to 10 rad/s; a wrong sign in C is off by tens of per cent.
            let drift = (energy(&FRICTIONLESS, state) / start - 1.0).abs();
            assert!(drift < 1e-4, "energy off by {drift:e}");
            let lost = (momentum(&FRICTIONLESS, state) - turning).abs() / (start * FRICTIONLESS.rotor).sqrt();
            assert!(lost < 1e-4, "momentum off by {lost:e}");
        }
    }

    #[test]
    fn work_of_the_motors_less_that_of_the_damping_is_the_change_of_energy() {
        let mut rng = Rng::new(1);
        for _ in 0..200 {
            let state: [f64; 4] = array::from_fn(|_| rng.uniform_f64(-4.0, 4.0));
            let torques: [f64; 2] = array::from_fn(|_| rng.uniform_f64(-GEAR, GEAR));
            let power: f64 = (0..2).map(|i| (torques[i] - ARM.damping * state[2 + i]) * state[2 + i]).sum();
            // Along the flow, by central differences: of (θ̇, θ̈).
            let [a1, a2] = ARM.accelerations(state, torques);
            let rate = [state[2], state[3], a1, a2];
            let at = |time: f64| energy(&ARM, array::from_fn(|i| state[i] + time * rate[i]));
            let change = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((change - power).abs() < 1e-6 * (1.0 + power.abs()), "{change} W, expected {power} W");
        }
    }

    #[test]
    fn the_mass_matrix_is_symmetric_positive_definite_and_that_of_the_energy() {
        for degree in 0..360 {
            let elbow = f64::from(degree).to_radians();
            let [[m11, m12], [m21, m22]] = ARM.mass_matrix(elbow);
            assert_eq!(m12, m21);
            assert!(m11 > 0.0 && m11 * m22 - m12 * m21 > 1e-7, "at {degree}°: {m11} {m12} {m22}");
            for (w1, w2) in [(1.0, 0.0), (0.0, 1.0), (2.0, -3.0)] {
                let by_matrix = 0.5 * (m11 * w1 * w1 + 2.0 * m12 * w1 * w2 + m22 * w2 * w2);
                assert!((by_matrix - energy(&ARM, [0.7, elbow, w1, w2])).abs() < 1e-12);
            }
        }
        // The figures of the documentation.
        let [[m11, ..], _] = ARM.mass_matrix(0.0);
        assert!((GEAR / m11 - 26.0).abs() < 0.5, "{} rad/s²", GEAR / m11);
    }

    #[test]
    fn a_target_out_of_its_disc_is_refused() {
        let mut env = Reacher::new();
        assert!(matches!(env.set_state([0.0, 0.0, 0.0, 0.0, 0.15, 0.15]), Err(EnvError::Config { .. })));
        assert!(matches!(env.set_state([f64::NAN, 0.0, 0.0, 0.0, 0.1, 0.1]), Err(EnvError::NonFinite { .. })));
    }

    #[test]
    fn starts_are_where_they_should_be() {
        let (mut env, mut near) = (Reacher::new(), 0);
        for seed in 0..500 {
            let obs = env.reset(Some(seed)).unwrap();
            assert!(obs[..2].iter().all(|angle| angle.abs() <= 0.1) && obs[2..4].iter().all(|w| w.abs() <= 0.005));
            let away = obs[4].hypot(obs[5]);
            assert!(away <= 0.2);
            near += i32::from(away < 0.1);
        }
        // Uniform in the disc: a quarter of the targets in its inner half. Standard deviation 9.7; four of them.
        assert!((near - 125).abs() < 39, "{near}");
    }

    /// Angles that bring the tip to a target, with the elbow to the left.
    fn inverse([x, y]: [f64; 2]) -> [f64; 2] {
        let [l1, l2] = LINKS;
        let cos = ((x * x + y * y - l1 * l1 - l2 * l2) / (2.0 * l1 * l2)).clamp(-1.0, 1.0);
        let elbow = cos.acos();
        [y.atan2(x) - (l2 * elbow.sin()).atan2(l1 + l2 * cos), elbow]
    }

    #[test]
    fn a_random_agent_stays_away_and_a_simple_controller_arrives() {
        let (mut env, mut rng) = (Reacher::new(), Rng::new(0));
        let (mut random, mut scripted) = (0.0, 0.0);
        for seed in 0..50 {
            env.reset(Some(seed)).unwrap();
            for _ in 0..50 {
                random += env.step(&env.spec().actions.sample(&mut rng).unwrap()).unwrap().reward / 50.0;
            }
            // A spring to the angles of the target, and a brake.
            env.reset(Some(seed)).unwrap();
            let wrap = |angle: f64| (angle + PI).rem_euclid(2.0 * PI) - PI;
            let mut distance = f64::NAN;
            for _ in 0..50 {
                let state = env.state();
                let goal = inverse([state[4], state[5]]);
                let torque = |i: usize| (6.0 * wrap(goal[i] - state[i]) - 0.9 * state[2 + i]) as f32;
                let step = env.step(&[torque(0), torque(1)]).unwrap();
                scripted += step.reward / 50.0;
                distance = step.info["distance"];
            }
            assert!(distance < 0.02, "{distance} m from the target of seed {seed}");
        }
        println!("random {random}, scripted {scripted}");
        assert!(random < -8.0, "{random}");
        assert!(scripted > -4.0, "{scripted}");
    }
}
