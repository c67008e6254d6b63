//! Values of expressions: for one transition in `f64`, and for a batch as tensors.

use burn::tensor::{Bool, Tensor};

use super::parse::{Call, Comparison, Node, Operator, Whose};

/// The value for one transition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Truth(bool),
}

/// `base` to the power of `exponent`, as both forms compute it.
fn power(base: f64, exponent: f64) -> f64 {
    base.powf(exponent)
}

fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

/// The value of a function of numbers. The parser has counted the arguments.
pub(super) fn call(function: Call, x: &[f64]) -> f64 {
    match function {
        Call::Sin => x[0].sin(),
        Call::Cos => x[0].cos(),
        Call::Tan => x[0].tan(),
        Call::Asin => x[0].asin(),
        Call::Acos => x[0].acos(),
        Call::Atan => x[0].atan(),
        Call::Atan2 => x[0].atan2(x[1]),
        Call::Abs => x[0].abs(),
        Call::Exp => x[0].exp(),
        Call::Log => x[0].ln(),
        Call::Sqrt => x[0].sqrt(),
        Call::Sign => sign(x[0]),
        Call::Min => x.iter().copied().reduce(lesser).unwrap_or(f64::NAN),
        Call::Max => x.iter().copied().reduce(greater).unwrap_or(f64::NAN),
        Call::Clamp => lesser(greater(x[0], x[1]), x[2]),
    }
}

/// NaN where one of the two is.
fn lesser(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

fn greater(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

pub(super) fn operate(operator: Operator, a: f64, b: f64) -> f64 {
    match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::Power => power(a, b),
    }
}

pub(super) fn compare(comparison: Comparison, a: f64, b: f64) -> bool {
    match comparison {
        Comparison::Less => a < b,
        Comparison::LessEqual => a <= b,
        Comparison::Greater => a > b,
        Comparison::GreaterEqual => a >= b,
        Comparison::Equal => a == b,
        Comparison::NotEqual => a != b,
    }
}

pub(super) fn of_one(node: &Node, obs: &[f64], action: &[f64], next: &[f64]) -> Value {
    let number = |node: &Node| match of_one(node, obs, action, next) {
        Value::Number(number) => number,
        Value::Truth(truth) => f64::from(u8::from(truth)),
    };
    let truth = |node: &Node| number(node) != 0.0;
    match node {
        Node::Number(number) => Value::Number(*number),
        Node::Truth(truth) => Value::Truth(*truth),
        Node::Column(whose, column) => Value::Number(match whose {
            Whose::Before => obs[*column],
            Whose::Action => action[*column],
            Whose::After => next[*column],
        }),
        Node::Negate(a) => Value::Number(-number(a)),
        Node::Operate(operator, a, b) => Value::Number(operate(*operator, number(a), number(b))),
        Node::Call(function, arguments) => {
            Value::Number(call(*function, &arguments.iter().map(number).collect::<Vec<_>>()))
        }
        Node::If(condition, a, b) => Value::Number(if truth(condition) { number(a) } else { number(b) }),
        Node::Compare(comparison, a, b) => Value::Truth(compare(*comparison, number(a), number(b))),
        Node::And(a, b) => Value::Truth(truth(a) && truth(b)),
        Node::Or(a, b) => Value::Truth(truth(a) || truth(b)),
        Node::Not(a) => Value::Truth(!truth(a)),
    }
}

/// A batch of transitions.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) obs: &'a Tensor<2>,
    pub(super) actions: &'a Tensor<2>,
    pub(super) next_obs: &'a Tensor<2>,
}

/// One number per row, or the same for all.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "few at a time, and mostly the large one")]
enum Numbers {
    Same(f64),
    Rows(Tensor<1>),
}

/// One truth per row, or the same for all.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "few at a time, and mostly the large one")]
enum Truths {
    Same(bool),
    Rows(Tensor<1, Bool>),
}

impl Rows<'_> {
    /// `[N]`.
    pub(super) fn numbers(&self, node: &Node) -> Tensor<1> {
        let numbers = match self.number(node) {
            // A comparison in place of a number.
            None => match self.truth(node) {
                Truths::Same(truth) => Numbers::Same(f64::from(u8::from(truth))),
                Truths::Rows(truths) => Numbers::Rows(truths.float()),
            },
            Some(numbers) => numbers,
        };
        self.all(numbers)
    }

    /// `[N]`.
    pub(super) fn truths(&self, node: &Node) -> Tensor<1, Bool> {
        let zeros = || Tensor::<1, Bool>::zeros([self.obs.dims()[0]], &self.obs.device());
        match self.number(node) {
            Some(numbers) => self.all(numbers).not_equal_elem(0.0),
            None => match self.truth(node) {
                Truths::Same(false) => zeros(),
                Truths::Same(true) => zeros().bool_not(),
                Truths::Rows(truths) => truths,
            },
        }
    }

    fn all(&self, numbers: Numbers) -> Tensor<1> {
        match numbers {
            Numbers::Same(number) => Tensor::full([self.obs.dims()[0]], number, &self.obs.device()),
            Numbers::Rows(rows) => rows,
        }
    }

    /// The numbers of a node; `None` where it is a truth.
    fn number(&self, node: &Node) -> Option<Numbers> {
        Some(match node {
            Node::Number(number) => Numbers::Same(*number),
            Node::Column(whose, column) => {
                let rows = match whose {
                    Whose::Before => self.obs,
                    Whose::Action => self.actions,
                    Whose::After => self.next_obs,
                };
                Numbers::Rows(rows.clone().select_dim::<1>(1, *column))
            }
            Node::Negate(a) => match self.number(a)? {
                Numbers::Same(a) => Numbers::Same(-a),
                Numbers::Rows(a) => Numbers::Rows(-a),
            },
            Node::Operate(..) => {
                // A long sum leans to the left: down its side without recursion, and up again.
                let (mut first, mut rest) = (node, Vec::new());
                while let Node::Operate(operator, a, b) = first {
                    rest.push((*operator, b));
                    first = a;
                }
                let mut value = self.number(first)?;
                for (operator, b) in rest.into_iter().rev() {
                    value = self.operated(operator, value, self.number(b)?);
                }
                value
            }
            Node::Call(function, arguments) => {
                let arguments: Option<Vec<Numbers>> = arguments.iter().map(|argument| self.number(argument)).collect();
                self.called(*function, arguments?)
            }
            Node::If(condition, a, b) => match self.truth(condition) {
                Truths::Same(true) => self.number(a)?,
                Truths::Same(false) => self.number(b)?,
                Truths::Rows(holds) => {
                    let (a, b) = (self.all(self.number(a)?), self.all(self.number(b)?));
                    Numbers::Rows(b.mask_where(holds, a))
                }
            },
            Node::Truth(_) | Node::Compare(..) | Node::And(..) | Node::Or(..) | Node::Not(_) => return None,
        })
    }

    fn operated(&self, operator: Operator, a: Numbers, b: Numbers) -> Numbers {
        use Numbers::{Rows, Same};
        let rows = match (operator, a, b) {
            (_, Same(a), Same(b)) => return Same(operate(operator, a, b)),
            (Operator::Add, Rows(a), Same(b)) | (Operator::Add, Same(b), Rows(a)) => a + b,
            (Operator::Add, Rows(a), Rows(b)) => a + b,
            (Operator::Subtract, Rows(a), Same(b)) => a - b,
            (Operator::Subtract, Same(a), Rows(b)) => -b + a,
            (Operator::Subtract, Rows(a), Rows(b)) => a - b,
            (Operator::Multiply, Rows(a), Same(b)) | (Operator::Multiply, Same(b), Rows(a)) => a * b,
            (Operator::Multiply, Rows(a), Rows(b)) => a * b,
            (Operator::Divide, Rows(a), Same(b)) => a / b,
            (Operator::Divide, Same(a), Rows(b)) => self.all(Same(a)) / b,
            (Operator::Divide, Rows(a), Rows(b)) => a / b,
            (Operator::Power, Rows(a), Same(b)) => raised(a, b),
            // A positive base: e^(b log a) has the gradient too.
            (Operator::Power, Same(a), Rows(b)) if a > 0.0 => (b * a.ln()).exp(),
            (Operator::Power, a, Rows(b)) => self.all(a).powf(b),
        };
        Rows(rows)
    }

    fn called(&self, function: Call, arguments: Vec<Numbers>) -> Numbers {
        let same: Option<Vec<f64>> = arguments
            .iter()
            .map(|argument| match argument {
                Numbers::Same(number) => Some(*number),
                Numbers::Rows(_) => None,
            })
            .collect();
        if let Some(numbers) = same {
            return Numbers::Same(call(function, &numbers));
        }
        if let (Call::Clamp, [Numbers::Rows(x), Numbers::Same(low), Numbers::Same(high)]) = (function, &arguments[..])
            && low <= high
        {
            return Numbers::Rows(x.clone().clamp(*low, *high));
        }
        let mut rows = arguments.into_iter().map(|argument| self.all(argument));
        // The parser has counted the arguments.
        let mut next = || rows.next().expect("an argument");
        Numbers::Rows(match function {
            Call::Sin => next().sin(),
            Call::Cos => next().cos(),
            Call::Tan => next().tan(),
            Call::Asin => next().asin(),
            Call::Acos => next().acos(),
            Call::Atan => next().atan(),
            Call::Atan2 => {
                let (y, x) = (next(), next());
                // At (0, 0) it is 0 and has no gradient.
                let nowhere = (y.clone().abs() + x.clone().abs()).equal_elem(0.0);
                y.atan2(x.mask_fill(nowhere, 1.0))
            }
            Call::Abs => next().abs(),
            Call::Exp => next().exp(),
            Call::Log => next().log(),
            Call::Sqrt => root(next()),
            Call::Sign => next().sign(),
            Call::Min => rows.reduce(Tensor::min_pair).expect("an argument"),
            Call::Max => rows.reduce(Tensor::max_pair).expect("an argument"),
            Call::Clamp => next().max_pair(next()).min_pair(next()),
        })
    }

    /// The truths of a node; a number is one where it is not 0.
    fn truth(&self, node: &Node) -> Truths {
        match node {
            Node::Truth(truth) => Truths::Same(*truth),
            Node::Not(a) => match self.truth(a) {
                Truths::Same(a) => Truths::Same(!a),
                Truths::Rows(a) => Truths::Rows(a.bool_not()),
            },
            Node::And(..) | Node::Or(..) => {
                let (mut first, mut rest) = (node, Vec::new());
                while let Node::And(a, b) | Node::Or(a, b) = first {
                    rest.push((matches!(first, Node::And(..)), b));
                    first = a;
                }
                let mut value = self.truth(first);
                for (is_and, b) in rest.into_iter().rev() {
                    value = joined(is_and, value, self.truth(b));
                }
                value
            }
            Node::Compare(comparison, a, b) => {
                let (Some(a), Some(b)) = (self.number(a), self.number(b)) else { return Truths::Same(false) };
                if let (Numbers::Same(a), Numbers::Same(b)) = (&a, &b) {
                    return Truths::Same(compare(*comparison, *a, *b));
                }
                let (a, b) = (self.all(a), self.all(b));
                Truths::Rows(match comparison {
                    Comparison::Less => a.lower(b),
                    Comparison::LessEqual => a.lower_equal(b),
                    Comparison::Greater => a.greater(b),
                    Comparison::GreaterEqual => a.greater_equal(b),
                    Comparison::Equal => a.equal(b),
                    Comparison::NotEqual => a.not_equal(b),
                })
            }
            number => match self.number(number) {
                Some(Numbers::Same(number)) => Truths::Same(number != 0.0),
                Some(Numbers::Rows(rows)) => Truths::Rows(rows.not_equal_elem(0.0)),
                None => Truths::Same(false),
            },
        }
    }
}

/// Both of two truths, or either.
fn joined(is_and: bool, a: Truths, b: Truths) -> Truths {
    match (a, b) {
        // False decides `and`, true decides `or`; the other value decides nothing.
        (Truths::Same(same), other) | (other, Truths::Same(same)) => {
            if same == is_and {
                other
            } else {
                Truths::Same(same)
            }
        }
        (Truths::Rows(a), Truths::Rows(b)) => Truths::Rows(if is_and { a.bool_and(b) } else { a.bool_or(b) }),
    }
}

/// The square root; its gradient is 0 at 0, where that of the formula is infinite, for example at a distance of 0.
fn root(x: Tensor<1>) -> Tensor<1> {
    let zero = x.clone().equal_elem(0.0);
    x.mask_fill(zero.clone(), 1.0).sqrt().mask_fill(zero, 0.0)
}

/// Rows to a constant power. Integer powers are computed by products, so that negative numbers have a value and a gradient too.
fn raised(x: Tensor<1>, exponent: f64) -> Tensor<1> {
    const LARGEST: f64 = 32.0;
    if exponent == 0.5 {
        return root(x);
    }
    if exponent == 0.0 {
        return x.ones_like();
    }
    if exponent.fract() != 0.0 || exponent.abs() > LARGEST {
        return x.powf_scalar(exponent);
    }
    let mut left = exponent.abs() as u32;
    let (mut square, mut product) = (x, None::<Tensor<1>>);
    loop {
        if left & 1 == 1 {
            product = Some(match product {
                None => square.clone(),
                Some(product) => product * square.clone(),
            });
        }
        left >>= 1;
        if left == 0 {
            break;
        }
        square = square.square();
    }
    // At least one bit is set.
    let product = product.expect("a power above 0");
    if exponent < 0.0 { product.recip() } else { product }
}
