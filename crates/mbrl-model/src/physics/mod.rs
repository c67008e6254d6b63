//! Physics with unknown parameters: equations of motion that are written down once, and the fit of their parameters to measurements.

mod file;
mod formula;
mod identify;
#[cfg(feature = "train")]
mod learn;
mod linear;
mod machines;
mod model;

use std::{fmt, ops::Index, sync::Arc};

use mbrl_env::Field;

pub use file::IdentifiedModel;
pub use formula::Num;
pub use identify::{Bound, Estimate, Identification, IdentifyConfig, Undetermined, identify};
#[cfg(feature = "train")]
pub use learn::{PhysicsLogs, PhysicsWindows};
pub use machines::{CartPole, DcMotor, MACHINES, Pendulum, TwoLinkArm, machine};
pub use model::PhysicsModel;

/// A constant of a physics: a mass, a length, a coefficient of friction.
///
/// A parameter that is fitted is positive by construction (its logarithm is fitted), and starts from a guess of its order of magnitude.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// Name, as used in equations, messages and files.
    pub name: String,
    /// Unit; empty for a number without one.
    pub unit: String,
    /// Its value: the known value, the guess that a fit starts from, or the fitted value.
    pub value: f64,
    /// Whether it is to be fitted.
    pub fitted: bool,
}

impl Parameter {
    /// A constant that is known.
    #[must_use]
    pub fn known(name: impl Into<String>, unit: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), value, fitted: false }
    }

    /// A constant that is to be fitted, starting from a guess; for most, a guess within a factor of ten is close enough.
    #[must_use]
    pub fn unknown(name: impl Into<String>, unit: impl Into<String>, guess: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), value: guess, fitted: true }
    }
}

/// Numbers of a formula under their names: `x["angle"]`.
///
/// # Panics
/// `x["…"]` for a name that does not exist: a mistake in the equations, which shows when the model is made.
#[derive(Debug, Clone)]
pub struct Named {
    names: Arc<[String]>,
    values: Vec<Num>,
}

impl Named {
    fn new(names: &Arc<[String]>, values: &[Num]) -> Self {
        assert_eq!(names.len(), values.len(), "numbers for the names {names:?}");
        Self { names: names.clone(), values: values.to_vec() }
    }

    /// All of them, in their order.
    #[must_use]
    pub fn values(&self) -> &[Num] {
        &self.values
    }

    /// The same names with other numbers.
    #[must_use]
    pub fn with(&self, values: &[Num]) -> Self {
        Self::new(&self.names, values)
    }
}

impl Index<&str> for Named {
    type Output = Num;
    fn index(&self, name: &str) -> &Num {
        match self.names.iter().position(|known| known == name) {
            Some(index) => &self.values[index],
            None => panic!("no `{name}` here; there are `{}`", self.names.join("`, `")),
        }
    }
}

impl Index<usize> for Named {
    type Output = Num;
    fn index(&self, index: usize) -> &Num {
        &self.values[index]
    }
}

/// Equations of motion with constants, some of which are unknown: what a [`PhysicsModel`] is made from.
///
/// Methods are called when the model is made, not at every step: they write down a formula, in [`Num`]s, which is then evaluated in
/// double precision with exact derivatives (fits), in tiles of rows (roll-outs on a CPU) and in tensors (gradients). So all evaluations
/// agree, and nothing is derived by hand.
///
/// A complete example, a cart that is pushed along a track:
///
/// ```
/// use mbrl_model::{Device, Dynamics, Field, Named, Num, Parameter, Physics, PhysicsModel};
///
/// struct Cart;
///
/// impl Physics for Cart {
///     fn name(&self) -> &str {
///         "cart"
///     }
///     fn parameters(&self) -> Vec<Parameter> {
///         vec![Parameter::unknown("mass", "kg", 1.0), Parameter::unknown("friction", "N s/m", 0.1)]
///     }
///     fn state(&self) -> Vec<Field> {
///         vec![Field::linear("position", "m"), Field::linear("speed", "m/s")]
///     }
///     fn actions(&self) -> Vec<Field> {
///         vec![Field::linear("force", "N")]
///     }
///     fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
///         vec![x["speed"], (u["force"] - p["friction"] * x["speed"]) / p["mass"]]
///     }
/// }
///
/// let model = PhysicsModel::new(Cart, 0.02, &Device::flex())?;
/// assert_eq!((model.spec().state, model.spec().action), (2, 1));
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
pub trait Physics: Send + Sync {
    /// Name, for messages and files.
    fn name(&self) -> &str;

    /// Its constants.
    fn parameters(&self) -> Vec<Parameter>;

    /// The numbers of the state: names and units.
    fn state(&self) -> Vec<Field>;

    /// The numbers of the action: names and units.
    fn actions(&self) -> Vec<Field>;

    /// The time derivative of each number of the state, in its unit per second, `[S]`.
    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num>;

    /// Steps of the integrator per control period (default 1). Take more where the period is long compared with how fast the state changes.
    fn substeps(&self) -> usize {
        1
    }

    /// The state after a control period of `period` seconds under a constant action. Default: [`runge_kutta`] of [`rate`](Self::rate).
    fn step(&self, p: &Named, x: &Named, u: &Named, period: f64) -> Vec<Num> {
        runge_kutta(|x| self.rate(p, x, u), x, period, self.substeps())
    }

    /// What is measured of the state (default: the state).
    fn observations(&self) -> Vec<Field> {
        self.state()
    }

    /// The measured numbers, without noise (default: the state).
    fn observe(&self, x: &Named) -> Vec<Num> {
        x.values().to_vec()
    }

    /// The state that an observation determines or, where it does not determine everything, a guess (default: the observation). A model
    /// plans from this state; a fit only starts from it.
    fn state_of(&self, o: &Named) -> Vec<Num> {
        o.values().to_vec()
    }
}

impl<P: Physics + ?Sized> Physics for Box<P> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn parameters(&self) -> Vec<Parameter> {
        (**self).parameters()
    }
    fn state(&self) -> Vec<Field> {
        (**self).state()
    }
    fn actions(&self) -> Vec<Field> {
        (**self).actions()
    }
    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
        (**self).rate(p, x, u)
    }
    fn substeps(&self) -> usize {
        (**self).substeps()
    }
    fn step(&self, p: &Named, x: &Named, u: &Named, period: f64) -> Vec<Num> {
        (**self).step(p, x, u, period)
    }
    fn observations(&self) -> Vec<Field> {
        (**self).observations()
    }
    fn observe(&self, x: &Named) -> Vec<Num> {
        (**self).observe(x)
    }
    fn state_of(&self, o: &Named) -> Vec<Num> {
        (**self).state_of(o)
    }
}

impl fmt::Debug for dyn Physics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Physics").field(&self.name()).finish()
    }
}

/// The classical Runge-Kutta method of fourth order: `substeps` steps that together take `period` seconds.
#[must_use]
pub fn runge_kutta(rate: impl Fn(&Named) -> Vec<Num>, x: &Named, period: f64, substeps: usize) -> Vec<Num> {
    let h = period / substeps as f64;
    let moved = |x: &Named, rate: &[Num], by: f64| -> Named {
        x.with(&x.values().iter().zip(rate).map(|(x, rate)| *x + *rate * by).collect::<Vec<_>>())
    };
    let mut x = x.clone();
    for _ in 0..substeps {
        let a = rate(&x);
        let b = rate(&moved(&x, &a, 0.5 * h));
        let c = rate(&moved(&x, &b, 0.5 * h));
        let d = rate(&moved(&x, &c, h));
        let slope: Vec<Num> = (0..a.len()).map(|i| (a[i] + 2.0 * b[i] + 2.0 * c[i] + d[i]) / 6.0).collect();
        x = moved(&x, &slope, h);
    }
    x.values().to_vec()
}
