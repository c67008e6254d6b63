//! Rewards and terminations as text: expressions over named columns.

mod evaluate;
mod parse;

use std::fmt;

use burn::tensor::{Bool, Tensor};

use crate::{Env, EnvSpec, Reward, Termination};

use evaluate::{Rows, Value};
use parse::{Kind, Node};

/// An expression that cannot be parsed: where, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`, letter {letter}: {reason}")]
#[non_exhaustive]
pub struct ExpressionError {
    /// The expression.
    pub text: String,
    /// The character at fault, counted from 1.
    pub letter: usize,
    /// What was expected and what was found.
    pub reason: String,
}

/// The names of the columns of observations and actions, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames {
    obs: Vec<String>,
    actions: Vec<String>,
}

impl ColumnNames {
    /// From the names of the observation's columns and of the action's.
    pub fn new<O: Into<String>, A: Into<String>>(
        obs: impl IntoIterator<Item = O>,
        actions: impl IntoIterator<Item = A>,
    ) -> Self {
        Self { obs: obs.into_iter().map(Into::into).collect(), actions: actions.into_iter().map(Into::into).collect() }
    }

    /// Those of an environment.
    #[must_use]
    pub fn of(env: &(impl Env + ?Sized)) -> Self {
        Self::of_spec(env.spec())
    }

    /// Those of a specification.
    #[must_use]
    pub fn of_spec(spec: &EnvSpec) -> Self {
        Self { obs: spec.column_names(), actions: spec.action_names() }
    }
}

/// A reward or a termination as an expression over named columns.
///
/// Its value in batches is that of [`number`](Self::number) and [`holds`](Self::holds) up to the rounding of `f32`. Gradients are those
/// of the formula; they are 0 where a root or an absolute value has none (at 0), and for `sign` and comparisons.
///
/// # What can be written
///
/// | | |
/// | --- | --- |
/// | `NAME`, `next.NAME`, `action.NAME` | a column of the observation before the step, of the one after it, of the action |
/// | `NAME[2]` | a column of a field with several; `obs[2]`, `next[2]`, `action[2]` count all columns from 0 |
/// | `"a name"` | any name in quotes (or backquotes), for example one with spaces or dots in it |
/// | `1`, `0.5`, `1e-3`, `pi` | numbers |
/// | `+ - * / ^` | `^` binds closest and to the right: `-x^2` is `-(x^2)`, `2^3^2` is `2^9` |
/// | `< <= > >= == !=` | comparisons; `-1 < x < 1` is both of them |
/// | `not`, `and`, `or` | of comparisons, in this order of precedence; `true`, `false` |
/// | `if(c, a, b)` | `a` where the comparison `c` holds, else `b` |
/// | `sin cos tan asin acos atan abs exp log sqrt sign` | of one number; `log` is the natural one |
/// | `atan2(y, x)`, `clamp(x, low, high)`, `min(…)`, `max(…)` | of several |
///
/// A reward is a number, a termination a comparison.
///
/// ```
/// use mbrl_env::{ColumnNames, Device, Expression, Reward, Tensor};
///
/// let columns = ColumnNames::new(["angle", "velocity"], ["torque"]);
/// let cost = Expression::reward("-(angle^2 + 0.1 * next.velocity^2) - 0.001 * action.torque^2", &columns)?;
/// assert_eq!(cost.number(&[2.0, 0.0], &[1.0], &[0.0, 1.0]), -4.0 - 0.1 - 0.001);
///
/// // In batches, on any device, with gradients.
/// let device = Device::flex();
/// let row = |numbers: &[f32]| Tensor::<1>::from_data(numbers, &device).reshape([1, -1]);
/// let paid = cost.reward(row(&[2.0, 0.0]), row(&[1.0]), row(&[0.0, 1.0])).into_scalar::<f32>();
/// assert!((paid + 4.101).abs() < 1e-6);
///
/// let error = Expression::termination("abs(next.angel) > 1", &columns).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`abs(next.angel) > 1`, letter 10: the observation has no column `angel`; did you mean `angle`? It has: angle, velocity"
/// );
/// # Ok::<(), mbrl_env::ExpressionError>(())
/// ```
///
/// ```
/// use mbrl_env::{ColumnNames, Expression, tasks};
///
/// let task = tasks::make("cartpole")?;
/// let fallen = Expression::termination("not -0.2 <= next.angle <= 0.2", &ColumnNames::of(&task.env))?;
/// assert!(fallen.holds(&[0.0; 4], &[0.0], &[0.0, 0.0, 0.3, 0.0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Expression {
    text: String,
    node: Node,
}

impl Expression {
    /// Parses an expression that gives a number per transition.
    ///
    /// # Errors
    /// [`ExpressionError`], naming the character, the word and similar ones.
    pub fn reward(text: &str, columns: &ColumnNames) -> Result<Self, ExpressionError> {
        Self::read(text, columns, Kind::Number)
    }

    /// Parses an expression that gives a comparison per transition.
    ///
    /// # Errors
    /// [`ExpressionError`], naming the character, the word and similar ones.
    pub fn termination(text: &str, columns: &ColumnNames) -> Result<Self, ExpressionError> {
        Self::read(text, columns, Kind::Truth)
    }

    fn read(text: &str, columns: &ColumnNames, kind: Kind) -> Result<Self, ExpressionError> {
        Ok(Self { text: text.to_owned(), node: parse::parse(text, columns, kind)? })
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number for one transition, in `f64`: `obs` `[O]`, `action` `[A]`, `next_obs` `[O]`. A comparison is 1 where it holds, else 0.
    ///
    /// # Panics
    /// Where a slice is shorter than the columns.
    #[must_use]
    pub fn number(&self, obs: &[f64], action: &[f64], next_obs: &[f64]) -> f64 {
        match evaluate::of_one(&self.node, obs, action, next_obs) {
            Value::Number(number) => number,
            Value::Truth(holds) => f64::from(u8::from(holds)),
        }
    }

    /// Whether a comparison holds for one transition.
    ///
    /// # Panics
    /// Where a slice is shorter than the columns.
    #[must_use]
    pub fn holds(&self, obs: &[f64], action: &[f64], next_obs: &[f64]) -> bool {
        self.number(obs, action, next_obs) != 0.0
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Reward for Expression {
    fn reward(&self, obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1> {
        Rows { obs: &obs, actions: &actions, next_obs: &next_obs }.numbers(&self.node)
    }
}

impl Termination for Expression {
    fn terminated(&self, obs: Tensor<2>, actions: Tensor<2>, next_obs: Tensor<2>) -> Tensor<1, Bool> {
        Rows { obs: &obs, actions: &actions, next_obs: &next_obs }.truths(&self.node)
    }
}
