//! Swing a pole on a cart up and hold it: PETS's cart-pole, in closed form.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Episode, cart_and_pole, column, named, runge_kutta};
use crate::{ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Reward, Role, Shape, Sketch, Step, check_action};

pub(super) const NAME: &str = "cartpole-swingup";

/// Length of the pole in the reward (m): the target for the pole's tip is this far above the middle of the rail.
const POLE_LENGTH: f64 = 0.6;
const ACTION_COST: f64 = 0.01;
const MAX_ACTION: f32 = 3.0;
/// Force of one unit of action (N).
const GEAR: f64 = 100.0;
/// Half the length of the rail (m).
const RAIL: f64 = 2.5;
const TIME_STEP: f64 = 0.02;
const STEPS_PER_ACTION: usize = 2;
const START_STD: f64 = 0.1;

/// The cart-pole of PETS \[1\]: a heavy cart on a short rail, a hanging pole, 8 s to swing it up and hold it.
///
/// PETS runs `cartpole.xml` in MuJoCo. Here the same two bodies move by their equations of motion, with the masses that
/// MuJoCo 3.17 computes from that file.
///
/// # Action
/// | Num | Action | Min | Max | Joint | Unit |
/// | --- | --- | --- | --- | --- | --- |
/// | 0 | force on the cart, clipped | −3 | 3 | slide | 100 N |
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | cart position x | −2.5 | 2.5 | m |
/// | 1 | pole angle θ, 0 hanging, not wrapped | −∞ | ∞ | rad |
/// | 2 | cart velocity ẋ | −∞ | ∞ | m/s |
/// | 3 | pole velocity θ̇ | −∞ | ∞ | rad/s |
///
/// The state is the observation, in double precision.
///
/// # Dynamics
/// Cart M = 10.472 kg, pole m = 5.0186 kg, its centre of mass l = 0.3 m from the pivot, its inertia about that centre
/// I = 0.18875 kg·m², damping d = 1 N·s/m on the slide and h = 1 N·m·s/rad on the hinge, g = 9.81 m/s², force F.
/// The reward puts the tip at `(x − 0.6 sin θ, −0.6 cos θ)`, so the centre of mass is at `(x − l sin θ, −l cos θ)` and
/// moves with `(ẋ − l θ̇ cos θ, l θ̇ sin θ)`. Hence
///
/// ```text
/// T = ½ (M + m) ẋ² − m l cos θ ẋ θ̇ + ½ (I + m l²) θ̇²        V = −m g l cos θ
/// ```
///
/// and Lagrange's equations give
///
/// ```text
/// (M + m) ẍ  −  m l cos θ θ̈   =  F − d ẋ − m l sin θ θ̇²
/// −m l cos θ ẍ  +  (I + m l²) θ̈  =  −h θ̇ − m g l sin θ
/// ```
///
/// They are integrated by the classical Runge-Kutta method at 0.02 s, two steps per action.
///
/// At the ends of the rail, ±2.5 m, the cart stops at once: its position is clamped and its velocity becomes 0. The impact
/// acts on the cart alone, so the pole keeps its angular momentum `(I + m l²) θ̇ − m l cos θ ẋ`, and while the cart is
/// pushed against the stop the pole swings as from a fixed pivot. The stop therefore never adds energy. (MuJoCo's stop is
/// a stiff spring.)
///
/// # Reward
/// `exp(−‖tip − (0, 0.6)‖² / 0.36) − 0.01 a²`, with the observation *after* the step; at most 1, 0.018 when hanging in the
/// middle.
///
/// # Start
/// N(0, 0.1²) in all four entries: the cart near the middle, the pole hanging.
///
/// # End
/// Never terminates; the task's time limit is 200 steps.
///
/// ## References
/// \[1\] Chua et al. (2018), *Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics Models*,
/// arXiv:1805.12114; `dmbrl/env/cartpole.py` and `dmbrl/env/assets/cartpole.xml` of the authors' code.
#[derive(Debug, Clone)]
pub struct CartPoleSwingup {
    spec: Arc<EnvSpec>,
    episode: Episode<4>,
}

impl CartPoleSwingup {
    /// A cart-pole that awaits its first reset.
    #[must_use]
    pub fn new() -> Self {
        let high = [RAIL as f32, f32::INFINITY, f32::INFINITY, f32::INFINITY];
        let obs = BoxSpace::new(high.map(|bound| -bound), high).expect("constant bounds");
        let actions = ActionSpace::Box(BoxSpace::symmetric(1, MAX_ACTION).expect("constant bounds"));
        let fields = [
            Field::linear("position", "m"),
            Field::angle("angle"),
            Field::linear("velocity", "m/s"),
            Field::linear("angular_velocity", "rad/s"),
        ];
        let spec = EnvSpec::new(NAME, obs, actions, TIME_STEP * STEPS_PER_ACTION as f64);
        let spec = named(spec, fields, [Field::linear("force", "100 N")]);
        Self { spec: Arc::new(spec), episode: Episode::new() }
    }

    /// The state (x, θ, ẋ, θ̇), in m, rad, m/s and rad/s.
    #[must_use]
    pub fn state(&self) -> [f64; 4] {
        self.episode.state
    }

    /// Begins an episode at a state (x, θ, ẋ, θ̇) and returns the observation there.
    ///
    /// # Errors
    /// [`EnvError::NonFinite`], and [`EnvError::Config`] if the cart is off the rail.
    pub fn set_state(&mut self, state: [f64; 4]) -> Result<Vec<f32>, EnvError> {
        if state[0].abs() > RAIL {
            let rule = "a place within the rail, 2.5 m to either side";
            return Err(EnvError::Config { field: "cart position", value: state[0].to_string(), rule });
        }
        self.episode.begin_at(NAME, state)?;
        Ok(self.observation())
    }

    fn observation(&self) -> Vec<f32> {
        self.episode.state.iter().map(|&entry| entry as f32).collect()
    }
}

impl Default for CartPoleSwingup {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for CartPoleSwingup {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.episode.begin(seed, |rng| std::array::from_fn(|_| START_STD * rng.normal_f64()));
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.episode.require_running(NAME)?;
        check_action(&self.spec, action)?;
        let action = f64::from(action[0].clamp(-MAX_ACTION, MAX_ACTION));
        for _ in 0..STEPS_PER_ACTION {
            self.episode.state = PETS.advanced(self.episode.state, GEAR * action);
        }
        let [x, theta, ..] = self.episode.state;
        let (tip_x, tip_y) = (x - POLE_LENGTH * theta.sin(), -POLE_LENGTH * theta.cos());
        let distance2 = tip_x.powi(2) + (tip_y - POLE_LENGTH).powi(2);
        let reward = (-distance2 / POLE_LENGTH.powi(2)).exp() - ACTION_COST * action.powi(2);
        Ok(Step::new(self.observation(), reward))
    }
}

simulator_by_clone!(CartPoleSwingup);

/// The cart on its rail, the pole, and where its tip should be.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    let (x, theta) = (obs[0], obs[1]);
    let (length, rail) = (POLE_LENGTH as f32, RAIL as f32);
    let [cart, pole] = cart_and_pole(x, [x - length * theta.sin(), -length * theta.cos()]);
    Sketch {
        view: [-3.2, -0.8, 3.2, 0.8],
        shapes: vec![
            Shape::Line { role: Role::Ground, points: vec![[-rail, 0.0], [rail, 0.0]], width: 0.02 },
            Shape::Disc { role: Role::Goal, at: [0.0, length], radius: 0.06 },
            cart,
            pole,
        ],
    }
}

/// The two bodies; symbols as in the documentation of [`CartPoleSwingup`].
#[derive(Debug, Clone, Copy)]
struct CartAndPole {
    /// M (kg).
    cart_mass: f64,
    /// m (kg).
    pole_mass: f64,
    /// l (m).
    centre: f64,
    /// I (kg·m²), about the centre of mass.
    inertia: f64,
    /// d (N·s/m).
    slide_damping: f64,
    /// h (N·m·s/rad).
    hinge_damping: f64,
    /// g (m/s²).
    gravity: f64,
}

/// From PETS's model file, computed by MuJoCo 3.17 (density 1000 kg/m³). There the centre of mass lies 0.5 mm off the pole's axis; this
/// offset is left out here.
const PETS: CartAndPole = CartAndPole {
    cart_mass: 10.472,
    pole_mass: 5.0186,
    centre: 0.3,
    inertia: 0.18875,
    slide_damping: 1.0,
    hinge_damping: 1.0,
    gravity: 9.81,
};

impl CartAndPole {
    /// Inertia about the pivot, I + m l².
    fn pivot_inertia(&self) -> f64 {
        self.inertia + self.pole_mass * self.centre.powi(2)
    }

    /// The right-hand sides of the equations of motion, for (x, θ, ẋ, θ̇).
    fn loads(&self, [_, theta, x_dot, theta_dot]: [f64; 4], force: f64) -> [f64; 2] {
        let ml = self.pole_mass * self.centre;
        [
            force - self.slide_damping * x_dot - ml * theta.sin() * theta_dot.powi(2),
            -self.hinge_damping * theta_dot - ml * self.gravity * theta.sin(),
        ]
    }

    /// (ẍ, θ̈) of a free cart.
    fn accelerations(&self, state: [f64; 4], force: f64) -> [f64; 2] {
        let [on_cart, on_pole] = self.loads(state, force);
        let (total, coupling) = (self.cart_mass + self.pole_mass, -self.pole_mass * self.centre * state[1].cos());
        let pivot = self.pivot_inertia();
        // Positive: the mass matrix is positive definite.
        let determinant = total * pivot - coupling.powi(2);
        [(pivot * on_cart - coupling * on_pole) / determinant, (total * on_pole - coupling * on_cart) / determinant]
    }

    /// One step of the Runge-Kutta method, then the stop.
    fn advanced(&self, state: [f64; 4], force: f64) -> [f64; 4] {
        let [x, _, x_dot, _] = state;
        let held = x.abs() >= RAIL && x * x_dot >= 0.0 && x * self.accelerations(state, force)[0] >= 0.0;
        let rate = |state: [f64; 4]| {
            let [x_acc, theta_acc] = if held {
                [0.0, self.loads(state, force)[1] / self.pivot_inertia()]
            } else {
                self.accelerations(state, force)
            };
            [state[2], state[3], x_acc, theta_acc]
        };
        self.stopped(runge_kutta(state, TIME_STEP, rate))
    }

    /// The state after the impact with the rail's end, if the cart ran into it.
    fn stopped(&self, [x, theta, x_dot, theta_dot]: [f64; 4]) -> [f64; 4] {
        if x.abs() < RAIL {
            return [x, theta, x_dot, theta_dot];
        }
        let x_clamped = x.clamp(-RAIL, RAIL);
        if x * x_dot <= 0.0 {
            return [x_clamped, theta, x_dot, theta_dot];
        }
        let kept = theta_dot - self.pole_mass * self.centre * theta.cos() / self.pivot_inertia() * x_dot;
        [x_clamped, theta, 0.0, kept]
    }
}

/// [`CartPoleSwingup`]'s reward, from the action and the observation after the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CartPoleSwingupReward;

impl Reward for CartPoleSwingupReward {
    fn reward(&self, _: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        let (x, theta) = (column(&next_obs, 0), column(&next_obs, 1));
        let tip_x = x - theta.clone().sin() * POLE_LENGTH;
        let below = theta.cos() * POLE_LENGTH + POLE_LENGTH;
        let distance2 = tip_x.square() + below.square();
        let force = column(&actions, 0).clamp(-MAX_ACTION, MAX_ACTION);
        (distance2 * (-1.0 / POLE_LENGTH.powi(2))).exp() - force.square() * ACTION_COST
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::Rng;

    const FRICTIONLESS: CartAndPole = CartAndPole { slide_damping: 0.0, hinge_damping: 0.0, ..PETS };

    /// Kinetic and potential energy from the velocities of the two bodies' centres, not from the formula of `T`.
    fn energy(body: &CartAndPole, [_, theta, x_dot, theta_dot]: [f64; 4]) -> f64 {
        let velocity = [x_dot - body.centre * theta_dot * theta.cos(), body.centre * theta_dot * theta.sin()];
        0.5 * body.cart_mass * x_dot.powi(2)
            + 0.5 * body.pole_mass * (velocity[0].powi(2) + velocity[1].powi(2))
            + 0.5 * body.inertia * theta_dot.powi(2)
            - body.pole_mass * body.gravity * body.centre * theta.cos()
    }

    #[test]
    fn energy_and_momentum_are_conserved_without_friction_and_force() {
        // Released from the side, at rest: the pole falls through the bottom and comes back, the cart stays near
        // its start. A wrong sign of the coupling would lose several joules in the first swing.
        let mut state = [0.0, 2.5, 0.0, 0.0];
        let (before, scale) = (energy(&FRICTIONLESS, state), PETS.pole_mass * PETS.gravity * PETS.centre);
        for _ in 0..500 {
            state = FRICTIONLESS.advanced(state, 0.0);
            // Runge-Kutta's error at this step size: 5e-5 over these 10 s (measured).
            let drift = (energy(&FRICTIONLESS, state) - before).abs();
            assert!(drift < 2e-4 * scale, "drift of {drift} J at {state:?}");
            let [_, theta, x_dot, theta_dot] = state;
            let momentum =
                (PETS.cart_mass + PETS.pole_mass) * x_dot - PETS.pole_mass * PETS.centre * theta.cos() * theta_dot;
            assert!(momentum.abs() < 1e-3, "momentum {momentum} kg·m/s");
        }
    }

    #[test]
    fn small_swings_have_the_period_of_a_physical_pendulum() {
        // Linearised with a free cart: ω² = m g l / (J − (m l)²/(M + m)).
        let ml = PETS.pole_mass * PETS.centre;
        let reduced = PETS.pivot_inertia() - ml.powi(2) / (PETS.cart_mass + PETS.pole_mass);
        let period = 2.0 * PI * (reduced / (ml * PETS.gravity)).sqrt();

        let mut state = [0.0, 0.01, 0.0, 0.0];
        let (mut crossings, mut time) = (Vec::new(), 0.0);
        while crossings.len() < 11 {
            let next = FRICTIONLESS.advanced(state, 0.0);
            if state[1] > 0.0 && next[1] <= 0.0 {
                crossings.push(time + TIME_STEP * state[1] / (state[1] - next[1]));
            }
            (state, time) = (next, time + TIME_STEP);
        }
        let measured = (crossings[10] - crossings[0]) / 10.0;
        assert!((measured / period - 1.0).abs() < 1e-4, "{measured} s, expected {period} s");
    }

    #[test]
    fn a_force_moves_the_centre_of_mass_and_damping_takes_energy() {
        // From rest, hanging: F = (M + m) ẍ − m l θ̈, and the pole, swept along, lags behind (its tip moves back).
        let [x_acc, theta_acc] = PETS.accelerations([0.0; 4], 300.0);
        let total = PETS.cart_mass + PETS.pole_mass;
        assert!((total * x_acc - PETS.pole_mass * PETS.centre * theta_acc - 300.0).abs() < 1e-9);
        assert!(x_acc > 0.0 && theta_acc > 0.0, "tip at x − 0.6 sin θ must lag: {theta_acc}");

        let mut state = [0.0, 2.5, 0.3, 0.0];
        for _ in 0..200 {
            let next = PETS.advanced(state, 0.0);
            assert!(energy(&PETS, next) <= energy(&PETS, state) + 1e-9);
            state = next;
        }
    }

    #[test]
    fn the_rail_holds_and_adds_no_energy() {
        let mut state = [2.0, 1.0, 3.0, -2.0];
        let mut blows = 0;
        for _ in 0..400 {
            let next = FRICTIONLESS.advanced(state, 0.0);
            blows += u32::from(next[0].abs() == RAIL && state[0].abs() < RAIL);
            assert!(next[0].abs() <= RAIL);
            assert!(energy(&FRICTIONLESS, next) <= energy(&FRICTIONLESS, state) + 1e-3, "{state:?} -> {next:?}");
            state = next;
        }
        assert!(blows > 0, "the test never reached the rail");

        // The impact itself: the pole's angular momentum is conserved, and no energy is gained.
        let mut rng = Rng::new(0);
        for _ in 0..200 {
            let mut draw = || rng.uniform_f64(-4.0, 4.0);
            let (theta, x_dot, theta_dot) = (draw(), draw(), draw());
            let state = [x_dot.signum() * (RAIL + 0.01), theta, x_dot, theta_dot];
            let [x, theta, x_dot_after, theta_dot_after] = PETS.stopped(state);
            assert_eq!((x, theta, x_dot_after), (x_dot.signum() * RAIL, state[1], 0.0));
            let momentum = PETS.pivot_inertia() * theta_dot - PETS.pole_mass * PETS.centre * theta.cos() * x_dot;
            assert!((PETS.pivot_inertia() * theta_dot_after - momentum).abs() < 1e-9);
            assert!(energy(&PETS, [x, theta, x_dot_after, theta_dot_after]) <= energy(&PETS, state));
        }

        // Pushed against the stop, the pole swings as from a fixed pivot and the cart does not move.
        let mut state = [RAIL, 0.5, 0.0, 0.0];
        let before = energy(&FRICTIONLESS, state);
        for _ in 0..200 {
            state = FRICTIONLESS.advanced(state, 300.0);
            assert_eq!((state[0], state[2]), (RAIL, 0.0));
        }
        assert!((energy(&FRICTIONLESS, state) - before).abs() < 1e-3);
    }

    #[test]
    fn hanging_and_upright_pay_what_the_formula_says() {
        let mut env = CartPoleSwingup::new();
        // At rest in either equilibrium nothing moves, so the reward of the step is that of the state.
        env.set_state([0.0; 4]).unwrap();
        assert!((env.step(&[0.0]).unwrap().reward - (-4.0_f64).exp()).abs() < 1e-12);
        env.set_state([0.0, PI, 0.0, 0.0]).unwrap();
        assert!((env.step(&[0.0]).unwrap().reward - 1.0).abs() < 1e-12);
        assert!(matches!(env.set_state([2.6, 0.0, 0.0, 0.0]), Err(EnvError::Config { .. })));
    }

    #[test]
    fn a_random_agent_gets_less_than_40() {
        let (mut env, mut rng) = (CartPoleSwingup::new(), Rng::new(0));
        let episodes = 300;
        let mut sum = 0.0;
        for episode in 0..episodes {
            env.reset(Some(episode)).unwrap();
            for _ in 0..200 {
                sum += env.step(&env.spec().actions.sample(&mut rng).unwrap()).unwrap().reward;
            }
        }
        // −4.3 here: the actions cost 6.
        let mean = sum / episodes as f64;
        assert!(mean < 40.0, "{mean}");
    }
}
