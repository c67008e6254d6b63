//! Equations that are written down once and evaluated in several ways: in double precision with exact derivatives (fits), in tiles of 32
//! rows (roll-outs on a CPU), in tensors (gradients by Burn, GPUs).

use std::{
    cell::RefCell,
    collections::HashMap,
    ops::{Add, Div, Mul, Neg, Sub},
    sync::atomic::{AtomicU32, Ordering},
};

use burn::tensor::Tensor;
use mbrl_env::lanes::{Lanes, TILE, sin_cos};
use multiversion::multiversion;

use crate::vmath;

/// A number of a formula while it is written down: the result of an operation, or a constant.
///
/// The usual operators and functions are there, also with `f64` on either side. A `Num` has no value yet, so a formula cannot branch on
/// one; instead of an `if`, use a [`clamp`](Self::clamp), or a [`tanh`](Self::tanh) of a small width, which has a derivative too.
///
/// # Panics
/// If it is used after the method that received it has returned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Num(Kind);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Constant(f64),
    Node { recording: u32, index: u32 },
}

/// An operation on the results of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Input(u32),
    Constant(f64),
    Unary(Unary, u32),
    Binary(Binary, u32, u32),
    AtLeast(u32, f64),
    AtMost(u32, f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unary {
    Neg,
    Sin,
    Cos,
    Exp,
    Ln,
    Sqrt,
    Tanh,
    Abs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Atan2,
}

/// Equal operations on equal operands are one.
type Known = (u8, u64, u64);

impl Op {
    fn key(self) -> Known {
        match self {
            Self::Input(i) => (0, i.into(), 0),
            Self::Constant(value) => (1, value.to_bits(), 0),
            Self::AtLeast(a, low) => (2, a.into(), low.to_bits()),
            Self::AtMost(a, high) => (3, a.into(), high.to_bits()),
            Self::Unary(unary, a) => (10 + unary as u8, a.into(), 0),
            Self::Binary(binary, a, b) => (30 + binary as u8, a.into(), b.into()),
        }
    }

    fn operands(self) -> [Option<u32>; 2] {
        match self {
            Self::Input(_) | Self::Constant(_) => [None, None],
            Self::Unary(_, a) | Self::AtLeast(a, _) | Self::AtMost(a, _) => [Some(a), None],
            Self::Binary(_, a, b) => [Some(a), Some(b)],
        }
    }

    /// The same with other operands.
    fn renamed(self, of: impl Fn(u32) -> u32) -> Self {
        match self {
            Self::Input(_) | Self::Constant(_) => self,
            Self::Unary(unary, a) => Self::Unary(unary, of(a)),
            Self::AtLeast(a, low) => Self::AtLeast(of(a), low),
            Self::AtMost(a, high) => Self::AtMost(of(a), high),
            Self::Binary(binary, a, b) => Self::Binary(binary, of(a), of(b)),
        }
    }
}

impl Unary {
    fn of(self, x: f64) -> f64 {
        match self {
            Self::Neg => -x,
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Exp => x.exp(),
            Self::Ln => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Tanh => x.tanh(),
            Self::Abs => x.abs(),
        }
    }

    /// Its derivative at `x`, where its value is `y`.
    fn slope(self, x: f64, y: f64) -> f64 {
        match self {
            Self::Neg => -1.0,
            Self::Sin => x.cos(),
            Self::Cos => -x.sin(),
            Self::Exp => y,
            Self::Ln => 1.0 / x,
            Self::Sqrt => 0.5 / y,
            Self::Tanh => 1.0 - y * y,
            Self::Abs => x.signum(),
        }
    }
}

impl Binary {
    fn of(self, x: f64, y: f64) -> f64 {
        match self {
            Self::Add => x + y,
            Self::Sub => x - y,
            Self::Mul => x * y,
            Self::Div => x / y,
            Self::Atan2 => x.atan2(y),
        }
    }

    /// Its derivatives with respect to both.
    fn slopes(self, x: f64, y: f64) -> [f64; 2] {
        match self {
            Self::Add => [1.0, 1.0],
            Self::Sub => [1.0, -1.0],
            Self::Mul => [y, x],
            Self::Div => [1.0 / y, -x / (y * y)],
            Self::Atan2 => {
                let square = x * x + y * y;
                [y / square, -x / square]
            }
        }
    }
}

/// `max` that keeps a NaN.
fn at_least(x: f64, low: f64) -> f64 {
    if x < low { low } else { x }
}

fn at_most(x: f64, high: f64) -> f64 {
    if x > high { high } else { x }
}

/// What is being written down on this thread.
#[derive(Default)]
struct Recording {
    number: u32,
    ops: Vec<Op>,
    known: HashMap<Known, u32>,
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Recording {
    fn push(&mut self, op: Op) -> u32 {
        let next = self.ops.len() as u32;
        let index = *self.known.entry(op.key()).or_insert(next);
        if index == next {
            self.ops.push(op);
        }
        index
    }

    fn index(&mut self, num: Num) -> u32 {
        match num.0 {
            Kind::Constant(value) => self.push(Op::Constant(value)),
            Kind::Node { recording, index } => {
                assert!(recording == self.number, "a number of another formula, which is written already");
                index
            }
        }
    }
}

fn recorded(op: impl FnOnce(&mut Recording) -> Op) -> Num {
    RECORDING.with_borrow_mut(|recording| {
        let recording = recording.as_mut().expect("a number of a formula that is written already");
        let op = op(recording);
        Num(Kind::Node { recording: recording.number, index: recording.push(op) })
    })
}

impl Num {
    fn constant(self) -> Option<f64> {
        if let Kind::Constant(value) = self.0 { Some(value) } else { None }
    }

    fn unary(self, unary: Unary) -> Self {
        match self.constant() {
            Some(value) => unary.of(value).into(),
            None => recorded(|r| Op::Unary(unary, r.index(self))),
        }
    }

    fn binary(self, binary: Binary, other: Self) -> Self {
        match (self.constant(), other.constant(), binary) {
            (Some(x), Some(y), _) => binary.of(x, y).into(),
            (Some(0.0), _, Binary::Add) | (Some(1.0), _, Binary::Mul) => other,
            (_, Some(0.0), Binary::Add | Binary::Sub) | (_, Some(1.0), Binary::Mul | Binary::Div) => self,
            (_, Some(y), Binary::Div) => self * (1.0 / y),
            _ => recorded(|r| {
                let a = r.index(self);
                Op::Binary(binary, a, r.index(other))
            }),
        }
    }

    /// Sine.
    #[must_use]
    pub fn sin(self) -> Self {
        self.unary(Unary::Sin)
    }

    /// Cosine.
    #[must_use]
    pub fn cos(self) -> Self {
        self.unary(Unary::Cos)
    }

    /// e to the power of it.
    #[must_use]
    pub fn exp(self) -> Self {
        self.unary(Unary::Exp)
    }

    /// Natural logarithm.
    #[must_use]
    pub fn ln(self) -> Self {
        self.unary(Unary::Ln)
    }

    /// Square root; its derivative at 0 is infinite.
    #[must_use]
    pub fn sqrt(self) -> Self {
        self.unary(Unary::Sqrt)
    }

    /// Hyperbolic tangent: of a speed over a small one, a smooth sign.
    #[must_use]
    pub fn tanh(self) -> Self {
        self.unary(Unary::Tanh)
    }

    /// Magnitude.
    #[must_use]
    pub fn abs(self) -> Self {
        self.unary(Unary::Abs)
    }

    /// Its square.
    #[must_use]
    pub fn square(self) -> Self {
        self * self
    }

    /// Angle of the point (`x`, `self`).
    #[must_use]
    pub fn atan2(self, x: impl Into<Self>) -> Self {
        self.binary(Binary::Atan2, x.into())
    }

    /// Held within limits; there its derivative is 0.
    #[must_use]
    pub fn clamp(self, low: f64, high: f64) -> Self {
        self.at_least(low).at_most(high)
    }

    fn at_least(self, low: f64) -> Self {
        match self.constant() {
            Some(value) => at_least(value, low).into(),
            None => recorded(|r| Op::AtLeast(r.index(self), low)),
        }
    }

    fn at_most(self, high: f64) -> Self {
        match self.constant() {
            Some(value) => at_most(value, high).into(),
            None => recorded(|r| Op::AtMost(r.index(self), high)),
        }
    }
}

impl From<f64> for Num {
    fn from(value: f64) -> Self {
        Self(Kind::Constant(value))
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident),*) => {$(
        impl $Trait for Num {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.binary(Binary::$Trait, other)
            }
        }
        impl $Trait<f64> for Num {
            type Output = Self;
            fn $method(self, other: f64) -> Self {
                self.binary(Binary::$Trait, other.into())
            }
        }
        impl $Trait<Num> for f64 {
            type Output = Num;
            fn $method(self, other: Num) -> Num {
                Num::from(self).binary(Binary::$Trait, other)
            }
        }
    )*};
}

operators!(Add add, Sub sub, Mul mul, Div div);

impl Neg for Num {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(Unary::Neg)
    }
}

/// Outputs as a function of inputs.
#[derive(Debug, Clone)]
pub(super) struct Formula {
    inputs: usize,
    /// Each works on earlier ones; those that know the first `fixed` inputs alone come first.
    ops: Vec<Op>,
    invariant: usize,
    fixed: usize,
    outputs: Vec<u32>,
}

impl Formula {
    /// Writes down what `write` makes of `inputs` numbers. The first `fixed` of them change seldom: what depends on them alone is
    /// computed once for all rows by [`Slopes`].
    pub(super) fn record(inputs: usize, fixed: usize, write: impl FnOnce(&[Num]) -> Vec<Num>) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let outer = RECORDING.replace(Some(Recording { number, ..Recording::default() }));
        assert!(outer.is_none(), "a formula is written within another");
        // What a panic in `write` leaves behind does not disturb another recording.
        struct Clear;
        impl Drop for Clear {
            fn drop(&mut self) {
                RECORDING.set(None);
            }
        }
        let clear = Clear;
        let numbers: Vec<Num> = (0..inputs as u32).map(|i| recorded(|_| Op::Input(i))).collect();
        let outputs = write(&numbers);
        let (ops, outputs) = RECORDING.with_borrow_mut(|recording| {
            let recording = recording.as_mut().expect("set above");
            let outputs: Vec<u32> = outputs.into_iter().map(|num| recording.index(num)).collect();
            (std::mem::take(&mut recording.ops), outputs)
        });
        drop(clear);
        Self::sorted(inputs, fixed, &ops, &outputs)
    }

    /// Without what no output needs, and with what the fixed inputs decide in front.
    fn sorted(inputs: usize, fixed: usize, ops: &[Op], outputs: &[u32]) -> Self {
        let mut needed = vec![false; ops.len()];
        outputs.iter().for_each(|&i| needed[i as usize] = true);
        for (i, op) in ops.iter().enumerate().rev() {
            if needed[i] {
                op.operands().into_iter().flatten().for_each(|a| needed[a as usize] = true);
            }
        }
        let mut varies = vec![false; ops.len()];
        for (i, op) in ops.iter().enumerate() {
            varies[i] = match op {
                Op::Input(input) => *input as usize >= fixed,
                op => op.operands().into_iter().flatten().any(|a| varies[a as usize]),
            };
        }
        let mut place = vec![u32::MAX; ops.len()];
        let mut order: Vec<usize> = (0..ops.len()).filter(|&i| needed[i] && !varies[i]).collect();
        let invariant = order.len();
        order.extend((0..ops.len()).filter(|&i| needed[i] && varies[i]));
        for (new, &old) in order.iter().enumerate() {
            place[old] = new as u32;
        }
        let renamed = |op: Op| op.renamed(|a| place[a as usize]);
        Self {
            inputs,
            fixed,
            invariant,
            ops: order.iter().map(|&i| renamed(ops[i])).collect(),
            outputs: outputs.iter().map(|&i| place[i as usize]).collect(),
        }
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The same operations once more, within another formula.
    pub(super) fn replay(&self, inputs: &[Num]) -> Vec<Num> {
        assert_eq!(inputs.len(), self.inputs, "inputs of a formula");
        let mut results: Vec<Num> = Vec::with_capacity(self.ops.len());
        for &op in &self.ops {
            let at = |a: u32| results[a as usize];
            results.push(match op {
                Op::Input(i) => inputs[i as usize],
                Op::Constant(value) => value.into(),
                Op::Unary(unary, a) => at(a).unary(unary),
                Op::Binary(binary, a, b) => at(a).binary(binary, at(b)),
                Op::AtLeast(a, low) => at(a).at_least(low),
                Op::AtMost(a, high) => at(a).at_most(high),
            });
        }
        self.outputs.iter().map(|&i| results[i as usize]).collect()
    }

    /// With the fixed inputs put in, of the others alone.
    pub(super) fn bind(&self, fixed: &[f64]) -> Self {
        assert_eq!(fixed.len(), self.fixed, "fixed inputs of a formula");
        Self::record(self.inputs - self.fixed, 0, |rest| {
            let all: Vec<Num> = fixed.iter().map(|&value| value.into()).chain(rest.iter().copied()).collect();
            self.replay(&all)
        })
    }

    /// Outputs for columns `[N, 1]`; gradients pass through.
    pub(super) fn tensors(&self, inputs: &[Tensor<2>]) -> Vec<Tensor<2>> {
        assert_eq!(inputs.len(), self.inputs, "inputs of a formula");
        let mut results: Vec<Column> = Vec::with_capacity(self.ops.len());
        for &op in &self.ops {
            let at = |a: u32| &results[a as usize];
            results.push(match op {
                Op::Input(i) => Column::Rows(inputs[i as usize].clone()),
                Op::Constant(value) => Column::Same(value),
                Op::Unary(unary, a) => at(a).unary(unary),
                Op::Binary(binary, a, b) => at(a).binary(binary, at(b)),
                Op::AtLeast(a, low) => at(a).map(|x| at_least(x, low), |x| x.clamp_min(low)),
                Op::AtMost(a, high) => at(a).map(|x| at_most(x, high), |x| x.clamp_max(high)),
            });
        }
        let column = |i: &u32| match &results[*i as usize] {
            Column::Rows(rows) => rows.clone(),
            Column::Same(value) => inputs[0].zeros_like() + *value,
        };
        self.outputs.iter().map(column).collect()
    }
}

/// A column of a batch, or a number that all rows share.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "made once per operation and passed on by value")]
enum Column {
    Rows(Tensor<2>),
    Same(f64),
}

impl Column {
    fn map(&self, same: impl FnOnce(f64) -> f64, rows: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        match self {
            Self::Rows(x) => Self::Rows(rows(x.clone())),
            Self::Same(x) => Self::Same(same(*x)),
        }
    }

    fn unary(&self, unary: Unary) -> Self {
        self.map(
            |x| unary.of(x),
            |x| match unary {
                Unary::Neg => -x,
                Unary::Sin => x.sin(),
                Unary::Cos => x.cos(),
                Unary::Exp => x.exp(),
                Unary::Ln => x.log(),
                Unary::Sqrt => x.sqrt(),
                Unary::Tanh => x.tanh(),
                Unary::Abs => x.abs(),
            },
        )
    }

    fn binary(&self, binary: Binary, other: &Self) -> Self {
        let rows = match (self, other) {
            (Self::Same(x), Self::Same(y)) => return Self::Same(binary.of(*x, *y)),
            (Self::Rows(x), Self::Rows(y)) => {
                let (x, y) = (x.clone(), y.clone());
                match binary {
                    Binary::Add => x + y,
                    Binary::Sub => x - y,
                    Binary::Mul => x * y,
                    Binary::Div => x / y,
                    Binary::Atan2 => x.atan2(y),
                }
            }
            (Self::Rows(x), Self::Same(y)) => {
                let x = x.clone();
                match binary {
                    Binary::Add => x + *y,
                    Binary::Sub => x - *y,
                    Binary::Mul => x * *y,
                    Binary::Div => x / *y,
                    Binary::Atan2 => x.clone().atan2(x.zeros_like() + *y),
                }
            }
            (Self::Same(x), Self::Rows(y)) => {
                let y = y.clone();
                match binary {
                    Binary::Add => y + *x,
                    Binary::Sub => -y + *x,
                    Binary::Mul => y * *x,
                    Binary::Div => y.recip() * *x,
                    Binary::Atan2 => (y.zeros_like() + *x).atan2(y),
                }
            }
        };
        Self::Rows(rows)
    }
}

/// Evaluates a formula in double precision, with exact derivatives in `width` directions (0: values alone).
#[derive(Debug)]
pub(super) struct Slopes<'a> {
    formula: &'a Formula,
    width: usize,
    /// Of each operation.
    values: Vec<f64>,
    /// `[ops, width]`.
    slopes: Vec<f64>,
    /// Operations whose derivatives are not all 0.
    moves: Vec<bool>,
}

impl<'a> Slopes<'a> {
    /// For fixed inputs and their derivatives, `[fixed]` and `[fixed, width]`; without `slopes` they have none.
    pub(super) fn new(formula: &'a Formula, fixed: &[f64], slopes: &[f64], width: usize) -> Self {
        let ops = formula.ops.len();
        let mut new =
            Self { formula, width, values: vec![0.0; ops], slopes: vec![0.0; ops * width], moves: vec![false; ops] };
        new.evaluate(0..formula.invariant, (fixed, slopes), 0);
        new
    }

    /// For the other inputs and their derivatives, `[inputs]` and `[n, width]`: those of the first `n` inputs, the others have none.
    pub(super) fn set(&mut self, inputs: &[f64], slopes: &[f64]) {
        self.evaluate(self.formula.invariant..self.formula.ops.len(), (inputs, slopes), self.formula.fixed);
    }

    fn evaluate(&mut self, ops: std::ops::Range<usize>, (inputs, slopes): (&[f64], &[f64]), first: usize) {
        let k = self.width;
        for i in ops {
            let op = self.formula.ops[i];
            let value = |a: u32| self.values[a as usize];
            let (y, factors) = match op {
                Op::Input(input) => {
                    let input = input as usize - first;
                    self.values[i] = inputs[input];
                    if let Some(row) = slopes.get(input * k..(input + 1) * k).filter(|row| !row.is_empty()) {
                        self.slopes[i * k..][..k].copy_from_slice(row);
                        self.moves[i] = true;
                    }
                    continue;
                }
                Op::Constant(constant) => (constant, [0.0; 2]),
                Op::Unary(unary, a) => {
                    let x = value(a);
                    let y = unary.of(x);
                    (y, [if k > 0 && self.moves[a as usize] { unary.slope(x, y) } else { 0.0 }, 0.0])
                }
                Op::Binary(binary, a, b) => {
                    let (x, z) = (value(a), value(b));
                    (binary.of(x, z), if k > 0 { binary.slopes(x, z) } else { [0.0; 2] })
                }
                Op::AtLeast(a, low) => (at_least(value(a), low), [f64::from(u8::from(value(a) >= low)), 0.0]),
                Op::AtMost(a, high) => (at_most(value(a), high), [f64::from(u8::from(value(a) <= high)), 0.0]),
            };
            self.values[i] = y;
            if k == 0 {
                continue;
            }
            let (earlier, own) = self.slopes.split_at_mut(i * k);
            let own = &mut own[..k];
            let mut moved = false;
            for (operand, factor) in op.operands().into_iter().zip(factors) {
                let Some(a) = operand.map(|a| a as usize).filter(|&a| self.moves[a]) else { continue };
                let of = &earlier[a * k..][..k];
                if moved {
                    own.iter_mut().zip(of).for_each(|(own, of)| *own += factor * of);
                } else {
                    own.iter_mut().zip(of).for_each(|(own, of)| *own = factor * of);
                }
                moved = true;
            }
            self.moves[i] = moved;
        }
    }

    /// The outputs, `[outputs]`.
    pub(super) fn values(&self, into: &mut [f64]) {
        self.formula.outputs.iter().zip(into).for_each(|(&i, into)| *into = self.values[i as usize]);
    }

    /// Their derivatives, `[outputs, width]`.
    pub(super) fn slopes(&self, into: &mut [f64]) {
        let k = self.width;
        for (&i, into) in self.formula.outputs.iter().zip(into.chunks_exact_mut(k.max(1))) {
            match self.moves[i as usize] {
                true => into.copy_from_slice(&self.slopes[i as usize * k..][..k]),
                false => into.fill(0.0),
            }
        }
    }
}

/// A formula without fixed inputs, for tiles of 32 rows: results that nobody needs any more make room for others.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// What to compute, on places instead of operations, and where it goes.
    steps: Vec<(Op, u32)>,
    places: usize,
    outputs: Vec<u32>,
}

impl Program {
    pub(super) fn new(formula: &Formula) -> Self {
        let ops = &formula.ops;
        let mut last = vec![0; ops.len()];
        for (i, op) in ops.iter().enumerate() {
            op.operands().into_iter().flatten().for_each(|a| last[a as usize] = i);
        }
        formula.outputs.iter().for_each(|&i| last[i as usize] = usize::MAX);
        let (mut place, mut free, mut places) = (vec![0u32; ops.len()], Vec::new(), 0);
        let mut steps = Vec::with_capacity(ops.len());
        for (i, op) in ops.iter().enumerate() {
            // Results go to places of their own before those of the operands are free.
            place[i] = free.pop().unwrap_or_else(|| {
                places += 1;
                places - 1
            });
            steps.push((op.renamed(|a| place[a as usize]), place[i]));
            let mut ends: Vec<u32> = op.operands().into_iter().flatten().filter(|&a| last[a as usize] == i).collect();
            ends.dedup();
            free.extend(ends.into_iter().map(|a| place[a as usize]));
        }
        Self { steps, places: places as usize, outputs: formula.outputs.iter().map(|&i| place[i as usize]).collect() }
    }

    /// Room for its results.
    pub(super) fn room(&self) -> Vec<Lanes> {
        vec![[0.0; TILE]; self.places]
    }

    /// Outputs of 32 rows; `inputs` `[inputs]` and `outputs` `[outputs]` are columns.
    pub(super) fn run(&self, inputs: &[Lanes], room: &mut [Lanes], outputs: &mut [Lanes]) {
        run_steps(&self.steps, inputs, room);
        self.outputs.iter().zip(outputs).for_each(|(&i, output)| *output = room[i as usize]);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2", "x86_64+avx2"))]
fn run_steps(steps: &[(Op, u32)], inputs: &[Lanes], room: &mut [Lanes]) {
    for &(op, place) in steps {
        let at = |a: u32| &room[a as usize];
        let result = match op {
            Op::Input(i) => inputs[i as usize],
            Op::Constant(value) => [value as f32; TILE],
            Op::AtLeast(a, low) => mapped(at(a), |x| if x < low as f32 { low as f32 } else { x }),
            Op::AtMost(a, high) => mapped(at(a), |x| if x > high as f32 { high as f32 } else { x }),
            Op::Unary(unary, a) => match unary {
                Unary::Neg => mapped(at(a), |x| -x),
                Unary::Sin => mapped(at(a), |x| sin_cos(x).0),
                Unary::Cos => mapped(at(a), |x| sin_cos(x).1),
                Unary::Exp => mapped(at(a), vmath::exp),
                Unary::Ln => mapped(at(a), f32::ln),
                Unary::Sqrt => mapped(at(a), f32::sqrt),
                Unary::Tanh => mapped(at(a), tanh),
                Unary::Abs => mapped(at(a), f32::abs),
            },
            Op::Binary(binary, a, b) => match binary {
                Binary::Add => joined(at(a), at(b), |x, y| x + y),
                Binary::Sub => joined(at(a), at(b), |x, y| x - y),
                Binary::Mul => joined(at(a), at(b), |x, y| x * y),
                Binary::Div => joined(at(a), at(b), |x, y| x / y),
                Binary::Atan2 => joined(at(a), at(b), f32::atan2),
            },
        };
        room[place as usize] = result;
    }
}

#[inline(always)]
fn mapped(x: &Lanes, f: impl Fn(f32) -> f32) -> Lanes {
    let mut out = [0.0; TILE];
    for (out, x) in out.iter_mut().zip(x) {
        *out = f(*x);
    }
    out
}

#[inline(always)]
fn joined(x: &Lanes, y: &Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    let mut out = [0.0; TILE];
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        *out = f(*x, *y);
    }
    out
}

/// Hyperbolic tangent: its series near 0, where the exponential would cancel digits.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let z = x * x;
    let near = x * (1.0 + z * (-1.0 / 3.0 + z * (2.0 / 15.0 + z * (-17.0 / 315.0 + z * (62.0 / 2835.0)))));
    let e = vmath::exp(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    // `exp` bounds its argument, a NaN too.
    if x.is_nan() {
        x
    } else if z < 0.09 {
        near
    } else {
        far
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    /// One of each operation, on one fixed and two other inputs.
    fn everything() -> Formula {
        Formula::record(3, 1, |n| {
            let &[p, x, y] = n else { unreachable!() };
            let wave = (p * x + 0.3).sin() * (2.0 * y).cos() - (x / 3.0).exp();
            let bent = ((x.square() + p + 1.0).ln() / (y.square() + 0.5)).sqrt() + (x * p).tanh();
            let turned = x.atan2(y.abs() + 0.7) + (y.abs() + 1.0).atan2(x);
            vec![wave - bent * turned, (x - y).clamp(-0.4, 0.9) + p.exp(), 1.0 - -x, p * 2.0, 4.0.into()]
        })
    }

    fn rows() -> Vec<[f64; 2]> {
        (0..TILE).map(|i| [0.11 * i as f64 - 1.73, 1.3 - 0.083 * i as f64]).collect()
    }

    fn doubles(formula: &Formula, p: f64, row: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; formula.outputs()];
        let mut slopes = Slopes::new(formula, &[p], &[], 0);
        slopes.set(row, &[]);
        slopes.values(&mut out);
        out
    }

    #[test]
    fn tiles_and_tensors_give_what_doubles_give() {
        let (formula, p) = (everything(), 0.8);
        let bound = formula.bind(&[p]);
        let device = Device::flex();
        let column = |d: usize| -> Lanes { std::array::from_fn(|i| rows()[i][d] as f32) };
        let mut tile = vec![[0.0; TILE]; 5];
        let program = Program::new(&bound);
        assert!(
            program.places < bound.ops.len() / 2,
            "places are used again: {} of {}",
            program.places,
            bound.ops.len()
        );
        program.run(&[column(0), column(1)], &mut program.room(), &mut tile);
        let tensor = |lanes: Lanes| Tensor::<1>::from_floats(lanes, &device).unsqueeze_dim::<2>(1);
        let of = |inputs: &[Tensor<2>], formula: &Formula| -> Vec<Vec<f32>> {
            formula.tensors(inputs).into_iter().map(|t| t.into_data().iter::<f32>().collect()).collect()
        };
        let tensors = of(&[tensor(column(0)), tensor(column(1))], &bound);
        let unbound = of(&[tensor([p as f32; TILE]), tensor(column(0)), tensor(column(1))], &formula);
        for (i, row) in rows().iter().enumerate() {
            for (c, expected) in doubles(&formula, p, row).into_iter().enumerate() {
                for (what, found) in [("tile", tile[c][i]), ("tensors", tensors[c][i]), ("unbound", unbound[c][i])] {
                    let off = (f64::from(found) - expected).abs();
                    assert!(
                        off < 1e-5 * (1.0 + expected.abs()),
                        "{what}, row {i}, output {c}: {found}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn derivatives_are_central_differences() {
        let (formula, p, step) = (everything(), 0.8, 1e-6);
        let mut found = [0.0; 15];
        // Three directions: each input.
        let mut slopes = Slopes::new(&formula, &[p], &[0.0, 0.0, 1.0], 3);
        for row in rows() {
            slopes.set(&row, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
            slopes.slopes(&mut found);
            let moved = |d: usize, by: f64| {
                let mut row = row;
                if d < 2 {
                    row[d] += by;
                }
                doubles(&formula, if d == 2 { p + by } else { p }, &row)
            };
            for d in 0..3 {
                let (up, down) = (moved(d, step), moved(d, -step));
                for c in 0..5 {
                    let (expected, found) = ((up[c] - down[c]) / (2.0 * step), found[c * 3 + d]);
                    assert!(
                        (found - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                        "{row:?}: d{c}/d{d} = {found}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn tanh_is_that_of_the_standard_library() {
        for i in -4000..4000 {
            let x = i as f32 * 0.005;
            assert!((tanh(x) - x.tanh()).abs() <= 2e-7, "{x}: {} {}", tanh(x), x.tanh());
        }
        assert!(tanh(f32::NAN).is_nan() && tanh(f32::INFINITY) == 1.0);
    }

    #[test]
    #[should_panic(expected = "written already")]
    fn a_number_of_another_formula_is_refused() {
        let mut kept = None;
        Formula::record(1, 0, |n| {
            kept = Some(n[0]);
            n.to_vec()
        });
        Formula::record(1, 0, |n| vec![n[0] + kept.unwrap()]);
    }
}
