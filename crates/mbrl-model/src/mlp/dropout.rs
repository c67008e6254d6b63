//! Which units a training pass drops: a function of (key, member, layer, row, unit), not of threads or tiles.

use multiversion::multiversion;

use super::{
    MlpConfig, Pass,
    kernel::{Columns, TILE},
};
use crate::noise::fill_words_lanes;

/// The dropout of a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    key: u64,
    layers: usize,
    /// Units whose word of 32 random bits is below are dropped.
    below: u32,
    /// What is left is multiplied by it.
    scale: f32,
}

impl Dropout {
    /// `None` where nothing is dropped.
    pub(crate) fn of(config: &MlpConfig, pass: Pass) -> Option<Self> {
        match pass {
            Pass::Train { key } if config.dropout > 0.0 => Some(Self {
                key,
                layers: config.hidden.len(),
                below: (f64::from(config.dropout) * 4_294_967_296.0) as u32,
                scale: 1.0 / (1.0 - config.dropout),
            }),
            _ => None,
        }
    }

    /// Of a tile whose first row of the batch is `row`, for each unit: a bit for each row, 1 where it is kept.
    pub(crate) fn keep(&self, member: usize, layer: usize, row: usize, keep: &mut [u32]) {
        let step = (member * self.layers + layer) as u32;
        fill_keep(self.key, step, row as u32, self.below, keep);
    }

    /// Drops units of a tile, or those of their gradients.
    pub(crate) fn apply(&self, keep: &[u32], units: &mut [[f32; TILE]]) {
        for (unit, keep) in units.iter_mut().zip(keep) {
            mask(unit, *keep, self.scale);
        }
    }

    /// What units `[E, N, width]` of a layer are multiplied by.
    pub(crate) fn factors(&self, layer: usize, [members, rows, width]: [usize; 3]) -> Vec<f32> {
        let mut factors = vec![0.0; members * rows * width];
        let mut keep = vec![0; width];
        for (i, row) in factors.chunks_exact_mut(width).enumerate() {
            let (member, r) = (i / rows, i % rows);
            self.keep(member, layer, r / TILE * TILE, &mut keep);
            for (factor, keep) in row.iter_mut().zip(&keep) {
                *factor = if keep >> (r % TILE) & 1 == 1 { self.scale } else { 0.0 };
            }
        }
        factors
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn fill_keep(key: u64, step: u32, row: u32, below: u32, keep: &mut [u32]) {
    for (block, keep) in keep.chunks_mut(4).enumerate() {
        let mut words = [[0u32; TILE]; 4];
        fill_words_lanes(key, step, row, block as u32, &mut words);
        for (keep, words) in keep.iter_mut().zip(&words) {
            let mut bits = 0;
            for (r, word) in words.iter().enumerate() {
                bits |= u32::from(*word >= below) << r;
            }
            *keep = bits;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn mask(unit: &mut [f32; TILE], keep: u32, scale: f32) {
    for (r, x) in unit.iter_mut().enumerate() {
        *x = if keep >> r & 1 == 1 { *x * scale } else { 0.0 };
    }
}

/// What a tile keeps of its dropout, for the way back.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kept {
    pub(crate) bits: Vec<u32>,
}

impl Kept {
    /// Drops units of a tile and remembers which.
    pub(crate) fn drop(&mut self, dropout: &Dropout, member: usize, layer: usize, row: usize, units: &mut Columns) {
        self.bits.resize(units.len(), 0);
        dropout.keep(member, layer, row, &mut self.bits);
        dropout.apply(&self.bits, units);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn members_layers_tiles_and_keys_drop_other_units() {
        let config = MlpConfig { members: 2, dropout: 0.5, ..MlpConfig::new(1, vec![4, 4, 4], 1) };
        let mut seen = HashSet::new();
        for key in [0, 1, 1 << 32] {
            let dropout = Dropout::of(&config, Pass::Train { key }).unwrap();
            for (member, layer, row) in (0..2).flat_map(|m| (0..3).flat_map(move |l| [0, 32, 64].map(|r| (m, l, r)))) {
                let mut keep = [0; 4];
                dropout.keep(member, layer, row, &mut keep);
                assert!(keep.iter().all(|unit| seen.insert(*unit)), "{key}, {member}, {layer}, {row}: {keep:x?}");
            }
        }
        assert!(Dropout::of(&config, Pass::Infer).is_none());
    }
}
