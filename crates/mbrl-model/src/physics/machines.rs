//! Machines that are known by their equations.

use mbrl_env::Field;

use super::{Named, Num, Parameter, Physics};
use crate::ModelError;

/// The machines of this crate: names and descriptions.
pub const MACHINES: &[(&str, &str)] = &[
    ("pendulum", "a bob on a rod without mass, hanging at angle 0"),
    ("pendulum-rod", "the same as a uniform rod"),
    ("cart-pole", "a cart with a pole, hanging at angle 0"),
    ("two-link-arm", "two uniform rods on a table"),
    ("dc-motor", "a motor under a voltage, with viscous and Coulomb friction"),
    ("dc-motor-current", "the same with a measured current and an inductance"),
];

/// A machine by its name in [`MACHINES`], with another number of integrator steps per period than its own where that is given.
///
/// # Errors
/// [`ModelError::Config`] for an unknown name.
pub fn machine(name: &str, substeps: Option<usize>) -> Result<Box<dyn Physics>, ModelError> {
    if substeps == Some(0) {
        return Err(ModelError::Config { field: "substeps", value: "0".into(), rule: "at least 1".into() });
    }
    let or = |own: usize| substeps.unwrap_or(own);
    Ok(match name {
        "pendulum" | "pendulum-rod" => {
            let own = Pendulum { rod: name != "pendulum", ..Pendulum::default() };
            Box::new(Pendulum { substeps: or(own.substeps), ..own })
        }
        "cart-pole" => Box::new(CartPole { substeps: or(CartPole::default().substeps) }),
        "two-link-arm" => Box::new(TwoLinkArm { substeps: or(TwoLinkArm::default().substeps) }),
        "dc-motor" | "dc-motor-current" => {
            let own = if name == "dc-motor" { DcMotor::default() } else { DcMotor::with_current() };
            Box::new(DcMotor { substeps: or(own.substeps), ..own })
        }
        _ => {
            let known: Vec<&str> = MACHINES.iter().map(|(name, _)| *name).collect();
            let rule = format!("one of {}", known.join(", ")).into();
            return Err(ModelError::Config { field: "model", value: name.into(), rule });
        }
    })
}

/// A pendulum with a torque on its pivot and viscous friction.
///
/// Parameters `mass`, `length`, `friction` (unknown), `gravity` (known, 9.81 m/s²). A bob of mass m at the end of a rod of length l without mass,
/// or a uniform rod:
///
/// ```text
/// bob:  m l² θ̈ = τ − b θ̇ − m g l sin θ            rod:  m l²/3 θ̈ = τ − b θ̇ − m g l/2 sin θ
/// ```
///
/// Without a torque, mass and friction are not determined, only their ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pendulum {
    /// A uniform rod instead of a bob.
    pub rod: bool,
    /// As in the task `pendulum`: a rod, 0 upright, observed as cosine and sine, integrated by the semi-implicit Euler method, with a
    /// speed of at most 8 rad/s. Gravity is 10 m/s², friction known to be 0.
    pub gymnasium: bool,
    /// Steps of the integrator per period.
    pub substeps: usize,
}

impl Default for Pendulum {
    fn default() -> Self {
        Self { rod: false, gymnasium: false, substeps: 2 }
    }
}

impl Pendulum {
    /// A uniform rod.
    #[must_use]
    pub fn rod() -> Self {
        Self { rod: true, ..Self::default() }
    }

    /// The one of the task `pendulum`.
    #[must_use]
    pub fn gymnasium() -> Self {
        Self { rod: true, gymnasium: true, substeps: 1 }
    }
}

impl Physics for Pendulum {
    fn name(&self) -> &str {
        match (self.gymnasium, self.rod) {
            (true, _) => "pendulum-gymnasium",
            (_, true) => "pendulum-rod",
            _ => "pendulum",
        }
    }

    fn parameters(&self) -> Vec<Parameter> {
        let friction = match self.gymnasium {
            true => Parameter::known("friction", "N m s/rad", 0.0),
            false => Parameter::unknown("friction", "N m s/rad", 0.1),
        };
        vec![
            Parameter::unknown("mass", "kg", 1.0),
            Parameter::unknown("length", "m", 1.0),
            friction,
            Parameter::known("gravity", "m/s²", if self.gymnasium { 10.0 } else { 9.81 }),
        ]
    }

    fn state(&self) -> Vec<Field> {
        vec![Field::angle("angle"), Field::linear("angular_velocity", "rad/s")]
    }

    fn actions(&self) -> Vec<Field> {
        vec![Field::linear("torque", "N m")]
    }

    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
        let (inertia, centre) = if self.rod { (1.0 / 3.0, 0.5) } else { (1.0, 1.0) };
        let inertia = p["mass"] * p["length"].square() * inertia;
        let weight = p["mass"] * p["gravity"] * p["length"] * if self.gymnasium { -centre } else { centre };
        let torque = u["torque"] - p["friction"] * x["angular_velocity"] - weight * x["angle"].sin();
        vec![x["angular_velocity"], torque / inertia]
    }

    fn substeps(&self) -> usize {
        self.substeps
    }

    fn step(&self, p: &Named, x: &Named, u: &Named, period: f64) -> Vec<Num> {
        if !self.gymnasium {
            return super::runge_kutta(|x| self.rate(p, x, u), x, period, self.substeps);
        }
        let torque = u.with(&[u["torque"].clamp(-2.0, 2.0)]);
        let speed = (x["angular_velocity"] + self.rate(p, x, &torque)[1] * period).clamp(-8.0, 8.0);
        vec![x["angle"] + speed * period, speed]
    }

    fn observations(&self) -> Vec<Field> {
        match self.gymnasium {
            true => vec![
                Field::linear("cos_angle", ""),
                Field::linear("sin_angle", ""),
                Field::linear("angular_velocity", "rad/s"),
            ],
            false => self.state(),
        }
    }

    fn observe(&self, x: &Named) -> Vec<Num> {
        match self.gymnasium {
            true => vec![x["angle"].cos(), x["angle"].sin(), x["angular_velocity"]],
            false => x.values().to_vec(),
        }
    }

    fn state_of(&self, o: &Named) -> Vec<Num> {
        match self.gymnasium {
            true => vec![o["sin_angle"].atan2(o["cos_angle"]), o["angular_velocity"]],
            false => o.values().to_vec(),
        }
    }
}

/// A cart that is pushed along a rail, with a pole on a hinge, both with viscous friction: the equations of the task `cartpole-swingup`,
/// without the ends of its rail.
///
/// Parameters `cart_mass` M, `pole_mass` m, `length` l (from the hinge to the pole's centre of mass), `cart_friction` d, `hinge_friction` h
/// (unknown); `inertia_ratio` κ (known; the pole's inertia about its centre over m l², 1/3 for a uniform rod), `gravity`, `gear` (known;
/// newtons per unit of action). The centre of mass is at `(x − l sin θ, −l cos θ)`; θ = 0 hangs:
///
/// ```text
/// (M + m) ẍ  −  m l cos θ θ̈  =  F − d ẋ − m l sin θ θ̇²        −m l cos θ ẍ  +  (1 + κ) m l² θ̈  =  −h θ̇ − m g l sin θ
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CartPole {
    /// Steps of the integrator per period.
    pub substeps: usize,
}

impl Default for CartPole {
    fn default() -> Self {
        Self { substeps: 2 }
    }
}

impl Physics for CartPole {
    fn name(&self) -> &str {
        "cart-pole"
    }

    fn parameters(&self) -> Vec<Parameter> {
        vec![
            Parameter::unknown("cart_mass", "kg", 1.0),
            Parameter::unknown("pole_mass", "kg", 0.3),
            Parameter::unknown("length", "m", 0.5),
            Parameter::unknown("cart_friction", "N s/m", 0.1),
            Parameter::unknown("hinge_friction", "N m s/rad", 0.01),
            Parameter::known("inertia_ratio", "", 1.0 / 3.0),
            Parameter::known("gravity", "m/s²", 9.81),
            Parameter::known("gear", "N", 1.0),
        ]
    }

    fn state(&self) -> Vec<Field> {
        vec![
            Field::linear("position", "m"),
            Field::angle("angle"),
            Field::linear("velocity", "m/s"),
            Field::linear("angular_velocity", "rad/s"),
        ]
    }

    fn actions(&self) -> Vec<Field> {
        vec![Field::linear("force", "")]
    }

    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
        let (sin, cos) = (x["angle"].sin(), x["angle"].cos());
        let (v, w) = (x["velocity"], x["angular_velocity"]);
        let moment = p["pole_mass"] * p["length"];
        let pivot = (p["inertia_ratio"] + 1.0) * moment * p["length"];
        let total = p["cart_mass"] + p["pole_mass"];
        let coupling = -(moment * cos);
        let on_cart = p["gear"] * u["force"] - p["cart_friction"] * v - moment * sin * w.square();
        let on_pole = -(p["hinge_friction"] * w) - moment * p["gravity"] * sin;
        let determinant = total * pivot - coupling.square();
        let acceleration = (pivot * on_cart - coupling * on_pole) / determinant;
        let angular = (total * on_pole - coupling * on_cart) / determinant;
        vec![v, w, acceleration, angular]
    }

    fn substeps(&self) -> usize {
        self.substeps
    }
}

/// An arm of two uniform rods with a motor in each joint and viscous friction: the equations of the task `reacher`, and gravity where it is not 0.
///
/// Parameters `upper_mass`, `lower_mass`, `friction` (unknown); `upper_length`, `lower_length`, `rotor_inertia` (of each joint), `gravity` (0: on a table;
/// otherwise downwards, against the angle of π/2), `gear` (known; newton metres per unit of action).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TwoLinkArm {
    /// Steps of the integrator per period.
    pub substeps: usize,
}

impl Default for TwoLinkArm {
    fn default() -> Self {
        Self { substeps: 4 }
    }
}

impl Physics for TwoLinkArm {
    fn name(&self) -> &str {
        "two-link-arm"
    }

    fn parameters(&self) -> Vec<Parameter> {
        vec![
            Parameter::unknown("upper_mass", "kg", 0.1),
            Parameter::unknown("lower_mass", "kg", 0.1),
            Parameter::unknown("friction", "N m s/rad", 0.01),
            Parameter::known("upper_length", "m", 0.1),
            Parameter::known("lower_length", "m", 0.11),
            Parameter::known("rotor_inertia", "kg m²", 0.001),
            Parameter::known("gravity", "m/s²", 0.0),
            Parameter::known("gear", "N m", 1.0),
        ]
    }

    fn state(&self) -> Vec<Field> {
        vec![
            Field::angle("shoulder"),
            Field::angle("elbow"),
            Field::linear("shoulder_velocity", "rad/s"),
            Field::linear("elbow_velocity", "rad/s"),
        ]
    }

    fn actions(&self) -> Vec<Field> {
        vec![Field::linear("shoulder_torque", ""), Field::linear("elbow_torque", "")]
    }

    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
        let (m1, m2, l1, l2) = (p["upper_mass"], p["lower_mass"], p["upper_length"], p["lower_length"]);
        let (v1, v2) = (x["shoulder_velocity"], x["elbow_velocity"]);
        let (c1, c2) = (l1 * 0.5, l2 * 0.5);
        let (about1, about2) = (m1 * l1.square() / 3.0, m2 * l2.square() / 3.0);
        let (sin, cos) = (x["elbow"].sin(), x["elbow"].cos());
        let m11 = about1 + about2 + m2 * (l1.square() + 2.0 * l1 * c2 * cos) + p["rotor_inertia"];
        let m12 = about2 + m2 * l1 * c2 * cos;
        let m22 = about2 + p["rotor_inertia"];
        let h = m2 * l1 * c2 * sin;
        let fall2 = m2 * c2 * p["gravity"] * (x["shoulder"] + x["elbow"]).cos();
        let fall1 = (m1 * c1 + m2 * l1) * p["gravity"] * x["shoulder"].cos() + fall2;
        let f1 = p["gear"] * u["shoulder_torque"] - p["friction"] * v1 + h * (2.0 * v1 * v2 + v2.square()) - fall1;
        let f2 = p["gear"] * u["elbow_torque"] - p["friction"] * v2 - h * v1.square() - fall2;
        let determinant = m11 * m22 - m12.square();
        vec![v1, v2, (m22 * f1 - m12 * f2) / determinant, (m11 * f2 - m12 * f1) / determinant]
    }

    fn substeps(&self) -> usize {
        self.substeps
    }
}

/// A DC motor under a voltage, with viscous and Coulomb friction.
///
/// Parameters `inertia` J, `torque_constant` k, `resistance` R, `viscous_friction` b, `coulomb_friction` c (unknown), `smooth_speed` (known, 1 rad/s:
/// within it Coulomb friction passes from one sign to the other, so that it has a derivative); with a measured current also `inductance` L (unknown).
///
/// ```text
/// J ω̇ = k i − b ω − c tanh(ω / ω_s)        i = (V − k ω) / R,  or measured:  L i̇ = V − R i − k ω
/// ```
///
/// Speed alone determines three numbers, `k/(R J)`, `(k²/R + b)/J` and `c/J`: give `resistance` and `torque_constant` from the data sheet, or
/// measure the current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DcMotor {
    /// Whether the current is measured too.
    pub current: bool,
    /// Steps of the integrator per period.
    pub substeps: usize,
}

impl Default for DcMotor {
    fn default() -> Self {
        Self { current: false, substeps: 4 }
    }
}

impl DcMotor {
    /// One whose current is measured.
    #[must_use]
    pub fn with_current() -> Self {
        Self { current: true, substeps: 16 }
    }
}

impl Physics for DcMotor {
    fn name(&self) -> &str {
        if self.current { "dc-motor-current" } else { "dc-motor" }
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = vec![
            Parameter::unknown("inertia", "kg m²", 1e-4),
            Parameter::unknown("torque_constant", "N m/A", 0.05),
            Parameter::unknown("resistance", "Ω", 1.0),
            Parameter::unknown("viscous_friction", "N m s/rad", 1e-5),
            Parameter::unknown("coulomb_friction", "N m", 1e-3),
            Parameter::known("smooth_speed", "rad/s", 1.0),
        ];
        if self.current {
            parameters.push(Parameter::unknown("inductance", "H", 1e-3));
        }
        parameters
    }

    fn state(&self) -> Vec<Field> {
        let current = self.current.then(|| Field::linear("current", "A"));
        [Field::linear("speed", "rad/s")].into_iter().chain(current).collect()
    }

    fn actions(&self) -> Vec<Field> {
        vec![Field::linear("voltage", "V")]
    }

    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
        let speed = x["speed"];
        let driven = u["voltage"] - p["torque_constant"] * speed;
        let current = if self.current { x["current"] } else { driven / p["resistance"] };
        let friction = p["viscous_friction"] * speed + p["coulomb_friction"] * (speed / p["smooth_speed"]).tanh();
        let mut rate = vec![(p["torque_constant"] * current - friction) / p["inertia"]];
        if self.current {
            rate.push((driven - p["resistance"] * current) / p["inductance"]);
        }
        rate
    }

    fn substeps(&self) -> usize {
        self.substeps
    }
}
