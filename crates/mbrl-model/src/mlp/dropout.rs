//! Which units a training pass drops: a function of (key, member, layer, row, unit), not of threads or tiles.

use multiversion::multiversion;

use super::{
    MlpConfig, Pass,
    kernel::{Columns, TILE},
};
use crate::{
    noise::{fill_words_lanes, four_words},
    vmath::ln,
};

/// Probability up to which the places of dropped units are drawn one after the other, instead of a word for each unit: with one
/// in a thousand, as in DHMBPO, the words take a sixth of an update.
const SPARSE: f32 = 0.03;

/// The dropout of a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    key: u64,
    layers: usize,
    /// Units whose word of 32 random bits is below this are dropped.
    below: u32,
    /// −1 / ln(1 − p) where p is small: units until the next dropped one are drawn with it.
    apart: Option<f32>,
    /// The units that are kept are multiplied by it.
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
                apart: (config.dropout <= SPARSE).then(|| (-1.0 / (-f64::from(config.dropout)).ln_1p()) as f32),
                scale: 1.0 / (1.0 - config.dropout),
            }),
            _ => None,
        }
    }

    /// For each unit of a tile whose first row in the batch is `row`: a bit for each row, 1 where the unit is kept.
    pub(crate) fn keep(&self, member: usize, layer: usize, row: usize, keep: &mut [u32]) {
        let step = (member * self.layers + layer) as u32;
        match self.apart {
            Some(apart) => fill_sparse(self.key, step, row as u32, apart, keep),
            None => fill_keep(self.key, step, row as u32, self.below, keep),
        }
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

/// Numbers of trials between successes are geometric: ⌊ln(u) / ln(1 − p)⌋ fail before the next.
fn fill_sparse(key: u64, step: u32, row: u32, apart: f32, keep: &mut [u32]) {
    keep.fill(u32::MAX);
    let places = keep.len() * TILE;
    let (mut place, mut block) = (0_usize, 0);
    while place < places {
        for word in four_words(key, step, row, block) {
            // The middle of one of 2²³ equal parts of (0, 1).
            let u = ((word >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0);
            // A probability of next to nothing leads beyond every number.
            place = place.saturating_add((-ln(u) * apart) as usize);
            if let Some(keep) = keep.get_mut(place / TILE) {
                *keep &= !(1 << (place % TILE));
            }
            place = place.saturating_add(1);
        }
        block += 1;
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

/// What a tile keeps of its dropout, for the backward pass.
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

    #[test]
    fn rare_units_are_dropped_at_their_rate_each_row_and_unit_alike() {
        for p in [f32::MIN_POSITIVE, 1e-3, 0.01, 0.03] {
            let config = MlpConfig { members: 2, dropout: p, ..MlpConfig::new(1, vec![64, 64], 1) };
            let (mut rows, mut units, mut pairs, mut all) = ([0u32; TILE], [0u32; 64], 0u32, 0u32);
            const KEYS: u64 = 1500;
            for key in 0..KEYS {
                let dropout = Dropout::of(&config, Pass::Train { key }).unwrap();
                assert!(dropout.apart.is_some());
                let mut keep = [0; 64];
                for (member, layer, row) in [(0, 0, 0), (1, 0, 0), (0, 1, 32)] {
                    dropout.keep(member, layer, row, &mut keep);
                    for (unit, keep) in keep.iter().enumerate() {
                        units[unit] += keep.count_zeros();
                        (0..TILE).for_each(|r| rows[r] += !keep >> r & 1);
                        pairs += (!keep & (!keep >> 1)).count_ones();
                        all += keep.count_zeros();
                    }
                }
            }
            let trials = 3.0 * KEYS as f64 * 64.0 * TILE as f64;
            // Five standard deviations of a binomial count.
            let near = |what: &str, count: u32, trials: f64, p: f64| {
                let expected = trials * p;
                let off = (f64::from(count) - expected).abs();
                assert!(
                    off <= 5.0 * (expected * (1.0 - p)).sqrt() + 1.0,
                    "{what} at {p}: {count}, expected {expected}"
                );
            };
            let p = f64::from(p);
            near("all", all, trials, p);
            units.iter().for_each(|count| near("a unit", *count, trials / 64.0, p));
            rows.iter().for_each(|count| near("a row", *count, trials / TILE as f64, p));
            near("neighbours", pairs, trials * (TILE as f64 - 1.0) / TILE as f64, p * p);
        }
    }
}
