//! What a forward pass stores for the backward pass.

use super::{
    HostMlp, Pass,
    dropout::Kept,
    kernel::{Columns, TILE},
    norm::NormTape,
};

/// What a forward pass stores for gradients: inputs of each layer and slopes of the activations, tile by tile. A tape that is
/// reused allocates nothing.
#[derive(Debug, Clone)]
pub struct Tape {
    pub(crate) tiles: Vec<Tile>,
    pub(crate) batch: usize,
    pub(crate) pass: Pass,
    pub(crate) state: State,
}

/// Whether a tape can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    Ready,
    /// Gradients have been propagated back and have replaced the slopes; the step is still to come.
    Back,
    /// The step has been taken.
    Spent,
}

/// One tile of one member's batch.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tile {
    /// Inputs of each layer, `[in]`.
    pub(crate) inputs: Vec<Columns>,
    /// For each layer `[out]`: slopes of the activation, where outputs do not determine them, then gradients of what goes into it.
    pub(crate) gradients: Vec<Columns>,
    /// Outputs of the last layer, `[out]`.
    pub(crate) out: Columns,
    /// Gradients on their way back through a layer, `[in]`.
    pub(crate) back: Columns,
    pub(crate) norms: Vec<NormTape>,
    pub(crate) kept: Vec<Kept>,
}

impl Tape {
    /// An empty tape.
    #[must_use]
    pub fn new() -> Self {
        Self { tiles: Vec::new(), batch: 0, pass: Pass::Infer, state: State::Empty }
    }

    /// Rows of the last pass, per member.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Room for one tile of any member of `network`, without a pass.
    #[cfg(feature = "train")]
    pub(crate) fn room(&mut self, network: &HostMlp) {
        self.tiles.resize_with(1, Tile::default);
        self.tiles[0].make_room(network);
    }

    /// Room for a pass of `network`.
    pub(crate) fn begin(&mut self, network: &HostMlp, batch: usize, pass: Pass) {
        (self.batch, self.pass, self.state) = (batch, pass, State::Empty);
        self.tiles.resize_with(network.config().members * batch.div_ceil(TILE), Tile::default);
        self.tiles.iter_mut().for_each(|tile| tile.make_room(network));
    }

    pub(crate) fn check(&self, network: &HostMlp) {
        assert!(
            self.state == State::Ready,
            "a tape that is {}: expected one of a forward pass since the last step",
            match self.state {
                State::Empty => "empty",
                State::Back => "waiting for a step",
                State::Ready | State::Spent => "spent by a step",
            }
        );
        let tiles = network.config().members * self.batch.div_ceil(TILE);
        let widths = self.tiles.first().map(|tile| tile.inputs.iter().map(|x| x.len()).collect::<Vec<_>>());
        let expected: Vec<usize> = network.config().layers().map(|[inputs, _]| inputs).collect();
        assert!(
            tiles == self.tiles.len() && widths.is_none_or(|widths| widths == expected),
            "a tape of another network: expected one of {} members with layers of {expected:?} inputs",
            network.config().members
        );
    }
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}

impl Tile {
    fn make_room(&mut self, network: &HostMlp) {
        let layers = network.config().hidden.len() + 1;
        self.inputs.resize_with(layers, Columns::default);
        self.gradients.resize_with(layers, Columns::default);
        self.norms.resize_with(if network.config().layer_norm { layers - 1 } else { 0 }, NormTape::default);
        self.kept.resize_with(layers - 1, Kept::default);
    }
}
