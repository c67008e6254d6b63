//! Network inputs and columns that need not be learned, written once as formulas and used as tensors, tiles and gradients.

use burn::tensor::Tensor;
use mbrl_env::{Features, Known, KnownAt, KnownGrads, Lanes};

use crate::scalar::{Dual, Scalar, Wide};

/// Number of derivatives computed at once.
const AT_ONCE: usize = 16;

/// Where a formula's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Obs(usize),
    Action(usize),
    /// A predicted column of the next observation: for known columns only.
    Next(usize),
}

/// A part of a formula that depends on a few inputs.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) inputs: Vec<Input>,
    pub(crate) width: usize,
}

/// A formula that is computed from observation and action, block by block.
pub(crate) trait Formula: Send + Sync {
    fn name(&self) -> &'static str;
    fn blocks(&self) -> &[Block];
    /// Appends the values of a block.
    fn evaluate<S: Scalar>(&self, block: usize, inputs: &[S], out: &mut Vec<S>);

    fn width(&self) -> usize {
        self.blocks().iter().map(|block| block.width).sum()
    }

    /// The values `[N, W]` for `obs` `[N, O]`, `actions` `[N, A]` and `next` `[N, O]`.
    fn batch(&self, [obs, actions, next]: [&Tensor<2>; 3]) -> Tensor<2>
    where
        Self: Sized,
    {
        let mut out = Vec::with_capacity(self.width());
        for (number, block) in self.blocks().iter().enumerate() {
            let column = |input: &Input| match input {
                Input::Obs(column) => obs.clone().narrow(1, *column, 1),
                Input::Action(column) => actions.clone().narrow(1, *column, 1),
                Input::Next(column) => next.clone().narrow(1, *column, 1),
            };
            let inputs: Vec<Tensor<2>> = block.inputs.iter().map(column).collect();
            self.evaluate(number, &inputs, &mut out);
        }
        Tensor::cat(out, 1)
    }

    /// The values for a tile.
    fn of_tile(&self, at: KnownAt<'_>, out: &mut [Lanes])
    where
        Self: Sized,
    {
        let (mut inputs, mut values) = (Vec::new(), Vec::with_capacity(out.len()));
        for (number, block) in self.blocks().iter().enumerate() {
            inputs.clear();
            inputs.extend(block.inputs.iter().map(|input| Wide(*input.lanes(at))));
            self.evaluate(number, &inputs, &mut values);
        }
        for (out, Wide(value)) in out.iter_mut().zip(values) {
            *out = value;
        }
    }

    /// Pulls a gradient with respect to the values back to the inputs, and adds it there.
    fn pull(&self, at: KnownAt<'_>, grad: &[Lanes], into: KnownGrads<'_>)
    where
        Self: Sized,
    {
        let mut first = 0;
        let mut values: Vec<Dual<AT_ONCE>> = Vec::new();
        for (number, block) in self.blocks().iter().enumerate() {
            for followed in (0..block.inputs.len()).step_by(AT_ONCE) {
                let input = |(index, input): (usize, &Input)| {
                    let lanes = input.lanes(at);
                    match index.checked_sub(followed) {
                        Some(k) if k < AT_ONCE => Dual::input(lanes, k),
                        _ => Dual::of(lanes),
                    }
                };
                let inputs: Vec<Dual<AT_ONCE>> = block.inputs.iter().enumerate().map(input).collect();
                values.clear();
                self.evaluate(number, &inputs, &mut values);
                let rest = block.inputs[followed..].iter().take(AT_ONCE);
                for (k, input) in rest.enumerate() {
                    let into = match input {
                        Input::Obs(column) => &mut into.obs[*column],
                        Input::Action(column) => &mut into.actions[*column],
                        Input::Next(column) => &mut into.next[*column],
                    };
                    for (value, grad) in values.iter().zip(&grad[first..]) {
                        for ((into, slope), grad) in into.iter_mut().zip(&value.tangent[k].0).zip(grad) {
                            *into += slope * grad;
                        }
                    }
                }
            }
            first += block.width;
        }
    }
}

impl Input {
    fn lanes<'a>(self, at: KnownAt<'a>) -> &'a Lanes {
        match self {
            Self::Obs(column) => &at.obs[column],
            Self::Action(column) => &at.actions[column],
            Self::Next(column) => &at.next[column],
        }
    }
}

/// A formula as features of a task.
pub(crate) struct FormulaFeatures<F> {
    pub(crate) formula: F,
    /// Columns that the features replace: the network does not see them.
    pub(crate) replaces: Vec<usize>,
}

impl<F: Formula> Features for FormulaFeatures<F> {
    fn name(&self) -> &str {
        self.formula.name()
    }

    fn width(&self) -> usize {
        self.formula.width()
    }

    fn replaces(&self) -> &[usize] {
        &self.replaces
    }

    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>) -> Tensor<2> {
        // No feature reads the next observation.
        self.formula.batch([&obs, &actions, &obs])
    }

    fn tile(&self, obs: &[Lanes], actions: &[Lanes], out: &mut [Lanes]) {
        self.formula.of_tile(KnownAt { obs, actions, next: &[] }, out);
    }

    fn pullback(
        &self,
        obs: &[Lanes],
        actions: &[Lanes],
        grad: &[Lanes],
        into: &mut [Lanes],
        into_actions: &mut [Lanes],
    ) {
        let into = KnownGrads { obs: into, actions: into_actions, next: &mut [] };
        self.formula.pull(KnownAt { obs, actions, next: &[] }, grad, into);
    }
}

/// A formula as known columns of a task.
pub(crate) struct FormulaKnown<F> {
    pub(crate) formula: F,
    /// The columns, in ascending order, as many as the formula has values.
    pub(crate) columns: Vec<usize>,
}

impl<F: Formula> Known for FormulaKnown<F> {
    fn name(&self) -> &str {
        self.formula.name()
    }

    fn columns(&self) -> &[usize] {
        &self.columns
    }

    fn tensor(&self, obs: Tensor<2>, actions: Tensor<2>, next: Tensor<2>) -> Tensor<2> {
        self.formula.batch([&obs, &actions, &next])
    }

    fn tile(&self, obs: &[Lanes], actions: &[Lanes], next: &[Lanes], out: &mut [Lanes]) {
        self.formula.of_tile(KnownAt { obs, actions, next }, out);
    }

    fn pullback(&self, at: KnownAt<'_>, grad: &[Lanes], into: KnownGrads<'_>) {
        self.formula.pull(at, grad, into);
    }
}

/// Columns that are constant throughout an episode.
pub(crate) struct Constant {
    name: &'static str,
    blocks: Vec<Block>,
}

impl Constant {
    pub(crate) fn known(name: &'static str, columns: Vec<usize>) -> FormulaKnown<Self> {
        let block = |column: &usize| Block { inputs: vec![Input::Obs(*column)], width: 1 };
        let blocks = columns.iter().map(block).collect();
        FormulaKnown { formula: Self { name, blocks }, columns }
    }
}

impl Formula for Constant {
    fn name(&self) -> &'static str {
        self.name
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn evaluate<S: Scalar>(&self, _: usize, inputs: &[S], out: &mut Vec<S>) {
        out.push(inputs[0].clone());
    }
}
