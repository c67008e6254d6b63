//! Scenes as MJCF: a robot, the objects it handles, and how the engine steps them.

use std::f64::consts::TAU;

use mbrl_env::{EnvError, Rng};
use serde::{Deserialize, Serialize};

use crate::robot::{Body, ClawConfig, HandConfig, numbers};

/// Settings of the engine's steps, as far as a task leaves them open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PhysicsConfig {
    /// Time step of the engine, a divisor of 0.1 s (default: 0.004 s; 0.0025 s costs half as much again and scores no
    /// better).
    pub timestep: f64,
    /// Maximum number of iterations of the contact solver per step (default: 20).
    pub iterations: u32,
    /// Maximum number of steps of its line search (default: 20).
    pub ls_iterations: u32,
    /// Whether the solver starts from the last step's forces (default: true).
    pub warm_start: bool,
}

impl Default for PhysicsConfig {
    fn default() -> Self {
        Self { timestep: 0.004, iterations: 20, ls_iterations: 20, warm_start: true }
    }
}

/// Time between two actions, in all tasks (s).
pub const PERIOD: f64 = 0.1;

impl PhysicsConfig {
    /// Steps of the engine per action.
    ///
    /// # Errors
    /// [`EnvError::Config`] for a time step that does not divide 0.1 s, or for zero iterations.
    pub fn frame_skip(&self) -> Result<u32, EnvError> {
        let refuse = |field, value: String, rule| Err(EnvError::Config { field, value, rule });
        for (field, count) in [("iterations", self.iterations), ("ls_iterations", self.ls_iterations)] {
            if count == 0 {
                return refuse(field, "0".into(), "at least 1");
            }
        }
        let steps = PERIOD / self.timestep;
        let whole = steps.round();
        if (1.0..=1000.0).contains(&whole) && (steps - whole).abs() < 1e-6 * whole {
            return Ok(whole as u32);
        }
        refuse("timestep", self.timestep.to_string(), "0.1 s divided by a whole number, at most 1000: 0.004, 0.0025")
    }
}

/// Physics that are not known exactly, drawn for each of several variants of a task; every episode uses one of them.
///
/// Factors are uniform in 1 ± the given width. The same seed gives the same variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomizeConfig {
    /// Seed of the variants, apart from that of the episodes (default: 0).
    pub seed: u64,
    /// How many variants there are (default: 16).
    pub variants: usize,
    /// Width of the factor on the mass of the handled object, and of the one on the robot's masses (default: 0).
    pub mass: f64,
    /// Width of the factor on all sliding friction (default: 0).
    pub friction: f64,
    /// Width of the factor on each servo's stiffness (default: 0).
    pub kp: f64,
    /// Largest delay of actions, in steps; drawn from 0 on (default: 0).
    pub delay: usize,
}

impl Default for RandomizeConfig {
    fn default() -> Self {
        Self { seed: 0, variants: 16, mass: 0.0, friction: 0.0, kp: 0.0, delay: 0 }
    }
}

impl RandomizeConfig {
    /// Refuses settings from which no variant can be drawn.
    ///
    /// # Errors
    /// [`EnvError::Config`].
    pub fn check(&self) -> Result<(), EnvError> {
        if !(1..=1000).contains(&self.variants) {
            let value = self.variants.to_string();
            return Err(EnvError::Config { field: "randomize.variants", value, rule: "1 to 1000" });
        }
        let widths = [("randomize.mass", self.mass), ("randomize.friction", self.friction), ("randomize.kp", self.kp)];
        match widths.iter().find(|(_, width)| !(0.0..1.0).contains(width)) {
            None if self.delay > 100 => {
                let value = self.delay.to_string();
                Err(EnvError::Config { field: "randomize.delay", value, rule: "at most 100 steps" })
            }
            None => Ok(()),
            Some((field, width)) => {
                Err(EnvError::Config { field, value: width.to_string(), rule: "a width from 0 to below 1" })
            }
        }
    }

    /// The variants.
    #[must_use]
    pub fn draw(&self) -> Vec<Variation> {
        let mut rng = Rng::new(self.seed);
        let mut variant = |_| {
            let mut factor = |width: f64| 1.0 + rng.uniform_f64(-width, width);
            let (object_mass, robot_mass, friction) = (factor(self.mass), factor(self.mass), factor(self.friction));
            let kp = (0..24).map(|_| factor(self.kp)).collect();
            Variation { object_mass, robot_mass, friction, kp, delay: rng.below(self.delay + 1) }
        };
        (0..self.variants).map(&mut variant).collect()
    }
}

/// One variant of the physics: factors on the task's values.
#[derive(Debug, Clone, PartialEq)]
pub struct Variation {
    /// On the mass of the handled object.
    pub object_mass: f64,
    /// On the robot's masses.
    pub robot_mass: f64,
    /// On sliding friction.
    pub friction: f64,
    /// On each servo's stiffness, in the order of the joints.
    pub kp: Vec<f64>,
    /// Delay of actions, in steps.
    pub delay: usize,
}

impl Default for Variation {
    /// The task without variation.
    fn default() -> Self {
        Self { object_mass: 1.0, robot_mass: 1.0, friction: 1.0, kp: vec![1.0; 24], delay: 0 }
    }
}

impl Variation {
    /// The robot in this variant.
    #[must_use]
    pub fn of(&self, mut robot: Body, order: &[&str]) -> Body {
        self.change(&mut robot, order);
        robot
    }

    fn change(&self, body: &mut Body, order: &[&str]) {
        if let Some(joint) = &mut body.joint {
            let index = order.iter().position(|name| *name == joint.name);
            joint.kp *= index.and_then(|index| self.kp.get(index)).copied().unwrap_or(1.0);
        }
        body.geoms.iter_mut().for_each(|geom| geom.mass *= self.robot_mass);
        if let Some((mass, _)) = &mut body.inertia {
            *mass *= self.robot_mass;
        }
        body.children.iter_mut().for_each(|child| self.change(child, order));
    }
}

/// How surfaces touch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Contacts {
    /// Sliding, torsional, rolling.
    pub(crate) friction: [f64; 3],
    /// Elliptic friction cones, with this ratio of frictional to normal impedance.
    pub(crate) elliptic: Option<f64>,
    /// Time constant and damping ratio.
    pub(crate) solref: [f64; 2],
    /// Impedance.
    pub(crate) solimp: [f64; 3],
    /// Whether the floor touches the robot too.
    pub(crate) floor_touches_robot: bool,
}

impl Default for Contacts {
    fn default() -> Self {
        Self {
            friction: [1.0, 0.005, 0.0001],
            elliptic: None,
            solref: [0.02, 1.0],
            solimp: [0.9, 0.95, 0.001],
            floor_touches_robot: false,
        }
    }
}

/// How many numbers an episode keeps in the engine's state.
pub(crate) const MEMORY: usize = 16;

/// The whole model.
pub(crate) fn mjcf(
    physics: &PhysicsConfig,
    contacts: &Contacts,
    robot: &Body,
    order: &[&str],
    objects: &str,
) -> String {
    let PhysicsConfig { timestep, iterations, ls_iterations, warm_start } = physics;
    let (cone, impratio) = contacts.elliptic.map_or(("pyramidal", 1.0), |ratio| ("elliptic", ratio));
    let (friction, solref, solimp) =
        (numbers(&contacts.friction), numbers(&contacts.solref), numbers(&contacts.solimp));
    let flag = if *warm_start { "" } else { "<flag warmstart=\"disable\"/>" };
    let floor = if contacts.floor_touches_robot { 3 } else { 2 };
    let (body, servos) = (robot.mjcf(), robot.servos(order));
    format!(
        r#"<mujoco model="hand"><compiler angle="radian" autolimits="true" eulerseq="xyz"/>
<option timestep="{timestep}" cone="{cone}" impratio="{impratio}" integrator="implicitfast" iterations="{iterations}" ls_iterations="{ls_iterations}">{flag}</option>
<size memory="4M" nuserdata="{MEMORY}"/>
<default><geom friction="{friction}" solref="{solref}" solimp="{solimp}" condim="3"/><site rgba="0 0 0 0"/></default>
<visual><headlight ambient=".45 .45 .45" diffuse=".5 .5 .5"/></visual>
<asset><texture name="sky" type="skybox" builtin="gradient" rgb1=".9 .93 .97" rgb2=".6 .7 .8" width="64" height="64"/>
<texture name="dice" type="cube" builtin="flat" mark="cross" width="64" height="64" rgb1=".85 .55 .25" rgb2=".85 .55 .25" markrgb="0 0 0"/>
<material name="dice" texture="dice"/></asset>
<worldbody><light pos="0 -0.3 1.2" dir="0 .2 -1" diffuse=".6 .6 .6"/>
<geom type="plane" size="1 1 .1" rgba=".55 .6 .62 1" contype="4096" conaffinity="{floor}"/>
{body}{objects}</worldbody>
<actuator>{servos}</actuator></mujoco>"#
    )
}

/// A sphere that shows a target and touches nothing.
pub(crate) fn marker(name: &str, radius: f64, rgba: &str) -> String {
    format!(
        r#"<body name="{name}" mocap="true"><geom type="sphere" size="{radius}" contype="0" conaffinity="0" rgba="{rgba}"/></body>
"#
    )
}

/// Radius of a Baoding ball (m).
pub(crate) const BALL_RADIUS: f64 = 0.028;

/// Where the balls are dropped, just above their resting places in our own hand (m).
pub(crate) const BALLS_AT: [[f64; 3]; 2] = [[0.045, -0.02, 0.30], [0.085, 0.02, 0.30]];

/// Two Baoding balls, `ball0` and `ball1`, of 28 mm radius and 43 g.
pub(crate) fn balls(variation: &Variation, friction: [f64; 3], at: [[f64; 3]; 2]) -> String {
    let (r, mass, friction) = (BALL_RADIUS, 0.043 * variation.object_mass, numbers(&friction));
    let ball = |i: usize, rgba: &str| {
        let at = numbers(&at[i]);
        let (half, thin) = (r * 0.93, r * 0.12);
        format!(
            r#"<body name="ball{i}" pos="{at}"><freejoint name="ball{i}"/><geom type="sphere" size="{r}" mass="{mass}" condim="4" friction="{friction}" contype="2" conaffinity="3" rgba="{rgba}"/>
<geom type="capsule" fromto="0 0 -{half} 0 0 {half}" size="{thin}" mass="1e-6" contype="0" conaffinity="0" rgba="0 0 0 1"/></body>
{}"#,
            marker(&format!("target{i}"), 0.006, rgba)
        )
    };
    ball(0, "1 .75 .2 1") + &ball(1, ".85 .35 .35 1")
}

/// Half of the cube's side (m).
pub(crate) const CUBE_HALF: f64 = 0.0285;

/// Where the cube is dropped, and where its target is shown, for our own hand (m).
pub(crate) const CUBE_AT: [[f64; 3]; 2] = [[0.098, 0.0, 0.30], [0.098, 0.16, 0.30]];

/// A cube of 57 mm and 50 g with bevelled edges, and its target beside the hand.
pub(crate) fn cube(variation: &Variation, at: [[f64; 3]; 2]) -> String {
    let [at, shown] = at.map(|at| numbers(&at));
    let (h, mass) = (CUBE_HALF, 0.05 * variation.object_mass);
    let inside = h - 0.004;
    let part = |size: [f64; 3]| {
        let (size, mass) = (numbers(&size), mass / 4.0);
        format!(
            r#"<geom type="box" size="{size}" mass="{mass}" condim="4" contype="2" conaffinity="3" material="dice"/>"#
        )
    };
    let moment = mass * (2.0 * h) * (2.0 * h) / 6.0;
    let out = h * 1.25;
    let axis = |to: [f64; 3], rgba: &str| {
        let to = numbers(&to);
        format!(
            r#"<geom type="capsule" fromto="0 0 0 {to}" size=".003" mass="0" contype="0" conaffinity="0" rgba="{rgba}"/>"#
        )
    };
    let axes =
        axis([out, 0.0, 0.0], "1 0 0 1") + &axis([0.0, out, 0.0], "0 .7 0 1") + &axis([0.0, 0.0, out], "0 0 1 1");
    let parts = part([h, inside, inside]) + &part([inside, h, inside]) + &part([inside, inside, h]);
    format!(
        r#"<body name="cube" pos="{at}"><freejoint name="cube"/><inertial pos="0 0 0" mass="{mass}" diaginertia="{moment} {moment} {moment}"/>{parts}{axes}</body>
<body name="target" mocap="true" pos="{shown}"><geom type="box" size="{h} {h} {h}" contype="0" conaffinity="0" material="dice" rgba="1 1 1 .6"/>{axes}</body>
"#
    )
}

/// Where the pencil is held: its middle (m) and orientation. Its tip then stands on the paper, z = 0.
pub(crate) const PENCIL_AT: ([f64; 3], [f64; 4]) = ([0.100, 0.0689, 0.0699], [0.9960, -0.0895, 0.0, 0.0]);
/// The centre of the tip's sphere, along the pencil's axis from its middle (m).
pub(crate) const PENCIL_TIP: f64 = -0.069;
/// Radius of the tip (m): the height of its centre on the paper.
pub(crate) const PENCIL_TIP_RADIUS: f64 = 0.002;

/// A pencil of 130 mm and 12 g whose tip slides on the paper; its axis points from the tip to the blunt end.
pub(crate) fn pencil(variation: &Variation) -> String {
    let (radius, half, mass, tip) = (0.0055, 0.065 - 0.0055, 0.012 * variation.object_mass, PENCIL_TIP);
    let (at, turned) = (numbers(&PENCIL_AT.0), numbers(&PENCIL_AT.1));
    let (grip, slide) = (1.2 * variation.friction, 0.3 * variation.friction);
    format!(
        r#"<body name="pencil" pos="{at}" quat="{turned}"><freejoint name="pencil"/>
<geom type="capsule" fromto="0 0 -{half} 0 0 {half}" size="{radius}" mass="{mass}" condim="4" friction="{grip} 0.01 0.0001" contype="2" conaffinity="3" rgba=".95 .8 .2 1"/>
<geom type="sphere" pos="0 0 {tip}" size="{PENCIL_TIP_RADIUS}" mass="0.0005" priority="1" condim="3" friction="{slide} 0.005 0.0001" contype="2" conaffinity="2" rgba=".1 .1 .1 1"/>
<geom type="capsule" fromto="0 0 {tip} 0 0 -{half}" size="0.002" mass="0" contype="0" conaffinity="0" rgba=".3 .2 .1 1"/></body>
{}"#,
        marker("target", 0.004, "0 .8 0 1")
    )
}

/// A valve: a hub with three arms on a hinge with dry friction, 55 mm above the floor; the first arm is orange.
pub(crate) fn valve(variation: &Variation) -> String {
    let (z, length, radius) = (0.055, 0.065, 0.012);
    let arm = |k: usize, rgba: &str| {
        let angle = TAU / 3.0 * k as f64;
        let (x, y, mass) = (length * angle.cos(), length * angle.sin(), 0.03 * variation.object_mass);
        format!(
            r#"<geom type="capsule" fromto="0 0 0 {x} {y} 0" size="{radius}" mass="{mass}" contype="2" conaffinity="3" rgba="{rgba}"/>"#
        )
    };
    let arms = arm(0, "1 .6 .2 1") + &arm(1, ".9 .9 .9 1") + &arm(2, ".9 .9 .9 1");
    let (half, down) = (z / 2.0 * 0.9, -z / 2.0);
    format!(
        r#"<body name="valve" pos="0 0 {z}"><joint name="valve" type="hinge" axis="0 0 1" range="-6.28 6.28" damping="0.1" frictionloss="0.05" armature="2e-4"/>{arms}
<geom type="cylinder" size="0.018 {half}" pos="0 0 {down}" contype="0" conaffinity="0" mass="0.02" rgba=".4 .4 .4 1"/></body>
<body name="target" mocap="true" pos="0 0 {z}"><geom type="capsule" fromto="0.02 0 0.02 0.09 0 0.02" size=".003" contype="0" conaffinity="0" rgba="0 .8 0 1"/></body>
"#
    )
}

/// The five-fingered hand's scene.
pub(crate) fn hand_scene(
    physics: &PhysicsConfig,
    contacts: &Contacts,
    hand: &HandConfig,
    variation: &Variation,
    objects: &str,
) -> String {
    let order = HandConfig::names();
    let robot = variation.of(hand.body(), &order);
    mjcf(physics, &varied(contacts, variation), &robot, &order, objects)
}

/// The claw's scene.
pub(crate) fn claw_scene(physics: &PhysicsConfig, contacts: &Contacts, variation: &Variation, objects: &str) -> String {
    let robot = variation.of(ClawConfig::default().body(), &ClawConfig::JOINTS);
    mjcf(physics, &varied(contacts, variation), &robot, &ClawConfig::JOINTS, objects)
}

fn varied(contacts: &Contacts, variation: &Variation) -> Contacts {
    let mut contacts = contacts.clone();
    contacts.friction[0] *= variation.friction;
    contacts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_depend_on_their_seed_alone_and_keep_to_their_widths() {
        let config =
            RandomizeConfig { seed: 3, mass: 0.3, friction: 0.2, kp: 0.1, delay: 2, ..RandomizeConfig::default() };
        let (drawn, again) = (config.draw(), config.draw());
        assert_eq!(drawn, again);
        assert_ne!(drawn, RandomizeConfig { seed: 4, ..config }.draw());
        let within = |factor: f64, width: f64| (factor - 1.0).abs() <= width && factor != 1.0;
        for variation in &drawn {
            assert!(within(variation.object_mass, 0.3) && within(variation.robot_mass, 0.3));
            assert!(within(variation.friction, 0.2) && variation.kp.iter().all(|kp| within(*kp, 0.1)));
        }
        let delays: Vec<bool> = (0..=2).map(|d| drawn.iter().any(|variation| variation.delay == d)).collect();
        assert_eq!(delays, [true; 3]);
        assert_eq!(RandomizeConfig::default().draw()[5], Variation::default());
    }

    #[test]
    fn a_variant_scales_what_it_names() {
        let variation = Variation { robot_mass: 1.5, kp: vec![2.0; 24], ..Variation::default() };
        let (plain, changed) =
            (HandConfig::default().body(), variation.of(HandConfig::default().body(), &HandConfig::names()));
        for (plain, changed) in plain.joints().iter().zip(changed.joints()) {
            assert_eq!(2.0 * plain.kp, changed.kp);
        }
        assert_eq!(1.5 * plain.geoms[0].mass, changed.geoms[0].mass);
        let light = Variation { object_mass: 0.5, ..Variation::default() };
        assert!(balls(&light, [1.0; 3], BALLS_AT).contains("mass=\"0.0215\""));
    }

    #[test]
    fn a_time_step_divides_the_period() {
        let skip = |timestep| PhysicsConfig { timestep, ..PhysicsConfig::default() }.frame_skip();
        assert_eq!((skip(0.004).unwrap(), skip(0.0025).unwrap(), skip(0.1).unwrap()), (25, 40, 1));
        for bad in [0.003, 0.0, -0.004, f64::NAN, 0.2] {
            assert!(skip(bad).unwrap_err().to_string().starts_with(&format!("timestep = {bad}")), "{bad}");
        }
    }
}
