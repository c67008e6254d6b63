//! Push a point mass round obstacles to a goal.

use std::{array, sync::Arc};

use burn::tensor::{Tensor, TensorData};

use super::{Episode, distance, named};
use crate::{ActionSpace, BoxSpace, Env, EnvError, EnvSpec, Field, Reward, Role, Shape, Sketch, Step, check_action};

pub(super) const NAME: &str = "point-mass";
pub(super) const SPARSE_NAME: &str = "point-mass-sparse";

/// Half the side of the room (m).
const ROOM: f64 = 1.0;
/// Centre and radius of each obstacle (m). They are farther from each other and from the walls than the mass moves in a step, so it
/// touches one of them at a time.
const OBSTACLES: [([f64; 2], f64); 2] = [([-0.1, 0.0], 0.3), ([0.5, 0.15], 0.2)];
const GOAL: [f64; 2] = [0.7, 0.7];
const GOAL_RADIUS: f64 = 0.1;
const START: [f64; 2] = [-0.7, -0.7];
const START_SPREAD: f64 = 0.1;
/// N·s/m; the mass is 1 kg, one unit of action 1 N.
const DAMPING: f64 = 1.0;
const TIME_STEP: f64 = 0.02;
const STEPS_PER_ACTION: usize = 5;

/// A mass in a square room with two round obstacles, pushed from one corner to the other.
///
/// # Action
/// | Num | Action | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | force along x, clipped | −1 | 1 | N |
/// | 1 | force along y, clipped | −1 | 1 | N |
///
/// # Observation
/// | Num | Observation | Min | Max | Unit |
/// | --- | --- | --- | --- | --- |
/// | 0 | x | −1 | 1 | m |
/// | 1 | y | −1 | 1 | m |
/// | 2 | ẋ | −∞ | ∞ | m/s |
/// | 3 | ẏ | −∞ | ∞ | m/s |
///
/// The state is the observation, in double precision.
///
/// # Dynamics
/// A point of 1 kg with a damping of 1 N·s/m, so 1 m/s at most along an axis; semi-implicit Euler at 0.02 s, five steps per
/// action of 0.1 s. Walls at ±1 m; obstacles with a radius of 0.3 m around (−0.1, 0) and of 0.2 m around (0.5, 0.15), the first on
/// the straight line to the goal. Walls and obstacles block: a mass that runs into one is put back on its surface, loses its
/// velocity into it and keeps its velocity along it. Nothing else happens: a contact does not terminate the episode and costs only time.
///
/// # Reward
/// From the observation *after* the step. [`PointMass::new`]: `−‖position − goal‖`. [`PointMass::sparse`]: 1 within
/// 0.1 m of the goal, 0 elsewhere. The goal is at (0.7, 0.7).
///
/// # Start
/// x and y uniform in −0.7 ± 0.1, at rest.
///
/// # End
/// Never terminates, not even at the goal; the task's time limit is 100 steps (10 s).
///
/// ```
/// use mbrl_env::{Env, tasks::PointMass};
/// let mut env = PointMass::new().sparse();
/// env.set_state([0.7, 0.7, 0.0, 0.0])?;
/// assert_eq!(env.step(&[0.0, 0.0])?.reward, 1.0);
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PointMass {
    spec: Arc<EnvSpec>,
    episode: Episode<4>,
    reward: PointMassReward,
}

impl PointMass {
    /// A mass that awaits its first reset, rewarded by its distance to the goal.
    #[must_use]
    pub fn new() -> Self {
        Self::with(NAME, PointMassReward::Shaped)
    }

    /// A mass that is rewarded only at the goal. It has not begun an episode.
    #[must_use]
    pub fn sparse(self) -> Self {
        Self::with(SPARSE_NAME, PointMassReward::Sparse)
    }

    fn with(name: &str, reward: PointMassReward) -> Self {
        let high = [ROOM as f32, ROOM as f32, f32::INFINITY, f32::INFINITY];
        let obs = BoxSpace::new(high.map(|bound| -bound), high).expect("constant bounds");
        let actions = ActionSpace::Box(BoxSpace::symmetric(2, 1.0).expect("constant bounds"));
        let fields = [
            Field::linear("x", "m"),
            Field::linear("y", "m"),
            Field::linear("x_velocity", "m/s"),
            Field::linear("y_velocity", "m/s"),
        ];
        let forces = [Field::linear("x_force", "N"), Field::linear("y_force", "N")];
        let spec = EnvSpec::new(name, obs, actions, TIME_STEP * STEPS_PER_ACTION as f64);
        let spec = named(spec, fields, forces);
        Self { spec: Arc::new(spec), episode: Episode::new(), reward }
    }

    /// The reward, as a batch function.
    #[must_use]
    pub fn reward(&self) -> PointMassReward {
        self.reward
    }

    /// The state (x, y, ẋ, ẏ), in m and m/s.
    #[must_use]
    pub fn state(&self) -> [f64; 4] {
        self.episode.state
    }

    /// Begins an episode at a state (x, y, ẋ, ẏ) and returns the observation there.
    ///
    /// # Errors
    /// [`EnvError::NonFinite`], and [`EnvError::Config`] if the mass is in a wall or an obstacle.
    pub fn set_state(&mut self, state: [f64; 4]) -> Result<Vec<f32>, EnvError> {
        let [x, y, ..] = state;
        // A mass that was put back may be below the surface by a rounding error.
        let in_obstacle = |(centre, radius): &([f64; 2], f64)| (x - centre[0]).hypot(y - centre[1]) < *radius - 1e-9;
        if x.abs() > ROOM || y.abs() > ROOM || OBSTACLES.iter().any(in_obstacle) {
            let (value, rule) = (format!("({x}, {y})"), "a place within the walls and outside of the obstacles");
            return Err(EnvError::Config { field: "position", value, rule });
        }
        self.episode.begin_at(&self.spec.name, state)?;
        Ok(self.observation())
    }

    fn observation(&self) -> Vec<f32> {
        self.episode.state.iter().map(|&entry| entry as f32).collect()
    }
}

impl Default for PointMass {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for PointMass {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, EnvError> {
        self.episode.begin(seed, |rng| {
            let [x, y] = START.map(|middle| middle + rng.uniform_f64(-START_SPREAD, START_SPREAD));
            [x, y, 0.0, 0.0]
        });
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.episode.require_running(&self.spec.name)?;
        check_action(&self.spec, action)?;
        let force = [action[0], action[1]].map(|force| f64::from(force.clamp(-1.0, 1.0)));
        for _ in 0..STEPS_PER_ACTION {
            self.episode.state = advanced(self.episode.state, force);
        }
        let [x, y, ..] = self.episode.state;
        let away = (x - GOAL[0]).hypot(y - GOAL[1]);
        let reward = match self.reward {
            PointMassReward::Shaped => -away,
            PointMassReward::Sparse => f64::from(u8::from(away <= GOAL_RADIUS)),
        };
        Ok(Step::new(self.observation(), reward).with_info("distance", away))
    }
}

simulator_by_clone!(PointMass);

/// One time step, then any wall or obstacle in the way.
fn advanced([x, y, vx, vy]: [f64; 4], force: [f64; 2]) -> [f64; 4] {
    let mut velocity: [f64; 2] = array::from_fn(|i| {
        let speed = [vx, vy][i];
        speed + TIME_STEP * (force[i] - DAMPING * speed)
    });
    let mut position: [f64; 2] = array::from_fn(|i| [x, y][i] + TIME_STEP * velocity[i]);
    for (centre, radius) in OBSTACLES {
        let offset: [f64; 2] = array::from_fn(|i| position[i] - centre[i]);
        let depth = offset[0].hypot(offset[1]);
        // A step is shorter than a radius, so the centre is never reached.
        if depth < radius && depth > 0.0 {
            let normal = offset.map(|entry| entry / depth);
            position = array::from_fn(|i| centre[i] + radius * normal[i]);
            let inwards = (velocity[0] * normal[0] + velocity[1] * normal[1]).min(0.0);
            velocity = array::from_fn(|i| velocity[i] - inwards * normal[i]);
        }
    }
    for i in 0..2 {
        if position[i].abs() > ROOM {
            position[i] = position[i].clamp(-ROOM, ROOM);
            velocity[i] = if position[i] > 0.0 { velocity[i].min(0.0) } else { velocity[i].max(0.0) };
        }
    }
    [position[0], position[1], velocity[0], velocity[1]]
}

/// [`PointMass`]'s reward, from the observation after the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PointMassReward {
    /// Minus the distance to the goal (m).
    #[default]
    Shaped,
    /// 1 at the goal, 0 elsewhere: it carries no gradient.
    Sparse,
}

impl Reward for PointMassReward {
    fn reward(&self, _: Tensor<2>, _: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        let goal = TensorData::new(GOAL.map(|entry| entry as f32).to_vec(), [1, 2]);
        let goal = Tensor::from_data(goal, &next_obs.device());
        let away = distance(next_obs.narrow(1, 0, 2), goal);
        match self {
            Self::Shaped => -away,
            Self::Sparse => away.lower_equal_elem(GOAL_RADIUS).float(),
        }
    }
}

/// The room with its obstacles, the goal and the mass.
pub(super) fn sketch(obs: &[f32]) -> Sketch {
    let (room, single) = (ROOM as f32, |point: [f64; 2]| point.map(|entry| entry as f32));
    let corners = vec![[-room, -room], [room, -room], [room, room], [-room, room], [-room, -room]];
    let mut shapes = vec![
        Shape::Line { role: Role::Ground, points: corners, width: 0.02 },
        Shape::Disc { role: Role::Goal, at: single(GOAL), radius: GOAL_RADIUS as f32 },
    ];
    for (centre, radius) in OBSTACLES {
        shapes.push(Shape::Disc { role: Role::Obstacle, at: single(centre), radius: radius as f32 });
    }
    shapes.push(Shape::Disc { role: Role::Body, at: [obs[0], obs[1]], radius: 0.03 });
    Sketch { view: [-1.1, -1.1, 1.1, 1.1], shapes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn energy([_, _, vx, vy]: [f64; 4]) -> f64 {
        0.5 * (vx * vx + vy * vy)
    }

    #[test]
    fn nothing_is_entered_and_contact_adds_no_energy() {
        let mut rng = Rng::new(0);
        let (mut touched_obstacle, mut touched_wall, mut env) = (0, 0, PointMass::new());
        for _ in 0..200 {
            let angle = rng.uniform_f64(0.0, 6.3);
            let start: [f64; 2] = array::from_fn(|i| START[i] + 0.2 * [angle.cos(), angle.sin()][i]);
            let push: [f64; 2] = array::from_fn(|_| rng.uniform_f64(-1.5, 1.5));
            env.set_state([start[0], start[1], push[0], push[1]]).unwrap();
            let mut state = env.state();
            for _ in 0..500 {
                let next = advanced(state, [0.0; 2]);
                let [x, y, ..] = next;
                for (centre, radius) in OBSTACLES {
                    let depth = radius - (x - centre[0]).hypot(y - centre[1]);
                    assert!(depth < 1e-12, "{next:?} is {depth} m deep");
                    touched_obstacle += u32::from(depth > -1e-12);
                }
                assert!(x.abs() <= ROOM && y.abs() <= ROOM);
                touched_wall += u32::from(x.abs() == ROOM || y.abs() == ROOM);
                assert!(energy(next) <= energy(state), "{state:?} -> {next:?}");
                // An episode may begin at any state that the mass reaches.
                env.set_state(next).unwrap();
                state = next;
            }
        }
        assert!(touched_obstacle > 20 && touched_wall > 20, "{touched_obstacle} and {touched_wall} contacts");
    }

    #[test]
    fn far_from_everything_the_mass_moves_as_its_equation_says() {
        // v = 1 − exp(−t) under 1 N from rest, x = t − 1 + exp(−t); Euler's error is of the order of the time step.
        let mut env = PointMass::new();
        env.set_state([-0.9, -0.9, 0.0, 0.0]).unwrap();
        for _ in 0..10 {
            env.step(&[1.0, 0.0]).unwrap();
        }
        let [x, y, vx, vy] = env.state();
        let decay = (-1.0_f64).exp();
        assert!((vx - (1.0 - decay)).abs() < 0.01 && (x + 0.9 - decay).abs() < 0.01, "{x} {vx}");
        assert_eq!((y, vy), (-0.9, 0.0));
    }

    #[test]
    fn a_wall_keeps_the_velocity_along_it() {
        let [x, _, vx, vy] = advanced([0.999, 0.9, 1.0, -0.5], [0.0; 2]);
        assert_eq!((x, vx), (ROOM, 0.0));
        assert!((vy + 0.49).abs() < 1e-12);
        // Against the middle of an obstacle: all velocity is lost.
        let [x, y, vx, vy] = advanced([-0.405, 0.0, 1.0, 0.0], [0.0; 2]);
        assert!((x + 0.4).abs() < 1e-12 && y == 0.0 && vx.abs() < 1e-12 && vy == 0.0, "{x} {vx}");
    }

    #[test]
    fn starts_in_walls_and_obstacles_are_refused() {
        let mut env = PointMass::new();
        for at in [[0.0, 0.0], [1.1, 0.0], [0.0, -1.1], [0.5, 0.0]] {
            assert!(matches!(env.set_state([at[0], at[1], 0.0, 0.0]), Err(EnvError::Config { .. })), "{at:?}");
        }
    }

    /// Mean returns, shaped and sparse.
    fn returns(mut policy: impl FnMut([f64; 4]) -> [f32; 2]) -> [f64; 2] {
        [PointMass::new(), PointMass::new().sparse()].map(|mut env| {
            let mut sum = 0.0;
            for seed in 0..50 {
                env.reset(Some(seed)).unwrap();
                for _ in 0..100 {
                    sum += env.step(&policy(env.state())).unwrap().reward / 50.0;
                }
            }
            sum
        })
    }

    #[test]
    fn a_random_agent_does_not_find_the_goal_and_a_detour_does() {
        let mut rng = Rng::new(0);
        let random = returns(|_| array::from_fn(|_| rng.uniform(-1.0, 1.0)));
        // Straight up beside the obstacle, then to the goal.
        let scripted = returns(|[x, y, vx, vy]| {
            let to = if x < 0.0 && y < 0.5 { [-0.5, 0.7] } else { GOAL };
            array::from_fn(|i| (4.0 * (to[i] - [x, y][i]) - 3.0 * [vx, vy][i]) as f32)
        });
        println!("random {random:?}, scripted {scripted:?}");
        // 100 steps at 2 m, less a margin for chance.
        assert!(random[0] < -150.0 && random[1] < 3.0, "{random:?}");
        assert!(scripted[0] > -75.0 && scripted[1] > 45.0, "{scripted:?}");
    }
}
