//! Checks that the forms of knowledge agree with each other and with the world.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Augment, Features, Known, KnownAt, KnownGrads, Lanes, TILE};
use crate::{Env, EnvError, Reward, Rng, check::trial_actions, check_width};

/// Relative to max(1, |value|): tensor and tile round differently.
const FORMS: f32 = 1e-4;
/// For a gradient, relative to max(1, |gradient|): central differences in single precision are accurate to three digits.
const GRADIENTS: f32 = 1e-2;
/// Half of the width of a difference, relative to max(1, |x|): a wide one, which rounding hardly affects, and a narrow one for
/// functions with kinks within millimetres. A gradient must agree with one of them.
const STEPS: [f32; 2] = [5e-3, 5e-4];

fn broken(name: &str, reason: String) -> EnvError {
    EnvError::Check { what: name.to_owned(), reason }
}

/// Checks [`Features`] on N rows, `obs` `[N, O]` and `actions` `[N, A]`, given with their widths `[O, A]`:
///
/// - tensor and tile have the declared width and agree, to 1e-4;
/// - a row's features depend on this row alone;
/// - the pullback agrees with finite differences of the tile, to 1e-2;
/// - the pullback adds to the existing values;
/// - replaced columns are columns of the observation.
///
/// Choose rows where the features are smooth.
///
/// # Errors
/// [`EnvError::Check`] for a broken rule, [`EnvError::Width`] for rows that do not fit the widths.
pub fn check_features(
    features: &dyn Features,
    obs: &[f32],
    actions: &[f32],
    [o, a]: [usize; 2],
    device: &Device,
) -> Result<(), EnvError> {
    let fail = |reason: String| Err(broken(features.name(), reason));
    if let Some(column) = features.replaces().iter().find(|column| **column >= o) {
        return fail(format!("it replaces column {column}, expected one of {o} columns of the observation"));
    }
    let rows = Rows::new(&[(obs, o), (actions, a)])?;
    let tensor = features.tensor(rows.tensor(obs, o, device), rows.tensor(actions, a, device));
    let form = |[obs, actions]: [&[Lanes]; 2]| {
        let mut out = vec![[f32::NAN; TILE]; features.width()];
        features.tile(obs, actions, &mut out);
        out
    };
    let [obs, actions] = [rows.tiles(obs, o), rows.tiles(actions, a)];
    compare_forms(features.name(), features.width(), tensor, rows.count, |tile| form([&obs[tile], &actions[tile]]))?;
    for (obs, actions) in obs.iter().zip(&actions) {
        let together = [obs.clone(), actions.clone()].concat();
        let of = |all: &[Lanes]| form([&all[..o], &all[o..]]);
        let pull = |grad: &[Lanes], into: &mut [Lanes]| {
            let (grad_obs, grad_actions) = into.split_at_mut(o);
            features.pullback(obs, actions, grad, grad_obs, grad_actions);
        };
        differentiate(features.name(), &together, features.width(), of, pull)?;
    }
    Ok(())
}

/// Checks [`Augment`] on N rows, `obs` `[N, O]`, `actions` `[N, A]` and `next_obs` `[N, O]`, given with their widths `[O, A]`:
///
/// - there is at least one copy, copy 0 changes nothing, the others give finite numbers, and none of them leaves every row
///   unchanged;
/// - rows that differ stay different;
/// - with a `reward`, a transition and its copies have the same reward, to 1e-4, unless the reward is mapped.
///
/// Whether the world behaves the same under a copy cannot be checked here.
///
/// # Errors
/// [`EnvError::Check`] for a broken rule, [`EnvError::Width`] for rows that do not fit the widths.
pub fn check_augment(
    augment: &dyn Augment,
    obs: &[f32],
    actions: &[f32],
    next_obs: &[f32],
    [o, a]: [usize; 2],
    reward: Option<&dyn Reward>,
    device: &Device,
) -> Result<(), EnvError> {
    let fail = |reason: String| Err(broken(augment.name(), reason));
    if augment.copies() == 0 {
        return fail("0 copies, expected the transition itself at least".into());
    }
    let rows = Rows::new(&[(obs, o), (actions, a), (next_obs, o)])?;
    let paid = |obs: &[f32], actions: &[f32], next: &[f32]| -> Option<Vec<f32>> {
        let reward = reward?;
        let rewards =
            reward.reward(rows.tensor(obs, o, device), rows.tensor(actions, a, device), rows.tensor(next, o, device));
        Some(rewards.into_data().iter::<f32>().collect())
    };
    let original = paid(obs, actions, next_obs);
    for copy in 0..augment.copies() {
        let mapped = |rows: &[f32], width: usize, map: &dyn Fn(usize, &mut [f32])| {
            let mut rows = rows.to_vec();
            rows.chunks_exact_mut(width).for_each(|row| map(copy, row));
            rows
        };
        let observation = |copy: usize, row: &mut [f32]| augment.observation(copy, row);
        let action = |copy: usize, row: &mut [f32]| augment.action(copy, row);
        let (new_obs, new_next) = (mapped(obs, o, &observation), mapped(next_obs, o, &observation));
        let new_actions = mapped(actions, a, &action);
        for (what, values) in [("observation", &new_obs), ("action", &new_actions), ("next observation", &new_next)] {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return fail(format!("copy {copy} of an {what} holds {value}, expected finite numbers"));
            }
        }
        let same = new_obs == obs && new_actions == actions && new_next == next_obs;
        match (copy, same) {
            (0, false) => return fail("copy 0 changes the transition, expected it as it is".into()),
            (1.., true) => return fail(format!("copy {copy} changes nothing, expected another transition")),
            _ => {}
        }
        for (row, other) in (1..rows.count).map(|row| (row, row - 1)) {
            let of = |rows: &[f32], row: usize| rows[row * o..(row + 1) * o].to_vec();
            if of(obs, row) != of(obs, other) && of(&new_obs, row) == of(&new_obs, other) {
                return fail(format!("copy {copy} makes one observation of rows {other} and {row}"));
            }
        }
        if let (Some(original), Some(found)) = (&original, paid(&new_obs, &new_actions, &new_next)) {
            for (row, (was, found)) in original.iter().zip(found).enumerate() {
                let expected = augment.reward(copy, *was);
                if (found - expected).abs() > FORMS * expected.abs().max(1.0) {
                    return fail(format!("copy {copy} of row {row} earns {found}, expected {expected}"));
                }
            }
        }
    }
    Ok(())
}

/// Checks [`Known`] on `episodes` episodes of its environment under random actions, up to 200 steps each:
///
/// - its columns are columns of the observation, in rising order, and not all of them;
/// - its values are those of the world, to 1e-4, and do not depend on their own columns in the next observation;
/// - tensor and tile agree, to 1e-4, and a row's values depend on this row alone;
/// - the pullback agrees with finite differences of the tile, to 1e-2, and adds to the existing values.
///
/// # Errors
/// [`EnvError::Check`] for a broken rule, or what the environment itself returns.
pub fn check_known(
    known: &dyn Known,
    env: &mut dyn Env,
    episodes: usize,
    device: &Device,
    rng: &mut Rng,
) -> Result<(), EnvError> {
    let fail = |reason: String| Err(broken(known.name(), reason));
    let spec = env.spec().clone();
    let (o, a, c) = (spec.obs.width(), spec.actions.width(), known.columns().len());
    let rising = known.columns().windows(2).all(|pair| pair[0] < pair[1]);
    if c == 0 || c >= o || !rising || known.columns().iter().any(|column| *column >= o) {
        return fail(format!(
            "columns {:?}, expected some of the {o} columns of the observation, not all, in rising order",
            known.columns()
        ));
    }
    let (mut obs, mut actions, mut next) = (Vec::new(), Vec::new(), Vec::new());
    let trial = trial_actions(&spec.actions);
    for _ in 0..episodes {
        let mut now = env.reset(Some(rng.key()))?;
        for _ in 0..200 {
            let action = trial.sample(rng)?;
            let step = env.step(&action)?;
            obs.extend_from_slice(&now);
            actions.extend_from_slice(&action);
            next.extend_from_slice(&step.obs);
            if step.episode_over() {
                break;
            }
            now = step.obs;
        }
    }
    let rows = Rows::new(&[(&obs, o), (&actions, a), (&next, o)])?;
    let tensor =
        known.tensor(rows.tensor(&obs, o, device), rows.tensor(&actions, a, device), rows.tensor(&next, o, device));
    let form = |all: &[Lanes]| {
        let mut out = vec![[f32::NAN; TILE]; c];
        known.tile(&all[..o], &all[o..o + a], &all[o + a..], &mut out);
        out
    };
    let tiles: Vec<Vec<Lanes>> = rows
        .tiles(&obs, o)
        .into_iter()
        .zip(rows.tiles(&actions, a))
        .zip(rows.tiles(&next, o))
        .map(|((obs, actions), next)| [obs, actions, next].concat())
        .collect();
    compare_forms(known.name(), c, tensor, rows.count, |tile| form(&tiles[tile]))?;
    for row in 0..rows.count {
        let values = form(&tiles[row / TILE]);
        for (value, column) in values.iter().zip(known.columns()) {
            let (found, truth) = (value[row % TILE], next[row * o + column]);
            if (found - truth).abs() > FORMS * truth.abs().max(1.0) || found.is_nan() {
                let name = &spec.column_names()[*column];
                return fail(format!("`{name}` becomes {found} after step {row}, and {truth} in {}", spec.name));
            }
        }
    }
    // As a model calls it: the columns of the values themselves hold NaN.
    for all in &tiles {
        let mut asked = all.clone();
        known.columns().iter().for_each(|column| asked[o + a + column] = [f32::NAN; TILE]);
        if form(&asked) != form(all) {
            return fail(
                "its values depend on their own columns in the next observation; they may use only the other columns"
                    .into(),
            );
        }
    }
    // The first tiles are enough: each costs two evaluations per column.
    for all in tiles.iter().take(4) {
        let pull = |grad: &[Lanes], into: &mut [Lanes]| {
            let (grad_obs, rest) = into.split_at_mut(o);
            let (grad_actions, grad_next) = rest.split_at_mut(a);
            let at = KnownAt { obs: &all[..o], actions: &all[o..o + a], next: &all[o + a..] };
            known.pullback(at, grad, KnownGrads { obs: grad_obs, actions: grad_actions, next: grad_next });
        };
        differentiate(known.name(), all, c, form, pull)?;
    }
    Ok(())
}

/// Rows to check on.
struct Rows {
    count: usize,
}

impl Rows {
    fn new(parts: &[(&[f32], usize)]) -> Result<Self, EnvError> {
        let count = parts[0].0.len() / parts[0].1.max(1);
        if count == 0 {
            return Err(EnvError::TooLittleData { what: "a check", actual: 0, needed: 1 });
        }
        for (values, width) in parts {
            check_width("rows under check", count * width, values.len())?;
        }
        Ok(Self { count })
    }

    fn tensor(&self, values: &[f32], width: usize, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [self.count, width]), device)
    }

    /// Tiles `[width]` of lanes; the last one repeats its last row.
    fn tiles(&self, values: &[f32], width: usize) -> Vec<Vec<Lanes>> {
        let tile = |first: usize| -> Vec<Lanes> {
            let row = |lane: usize| (first + lane).min(self.count - 1);
            (0..width).map(|column| std::array::from_fn(|lane| values[row(lane) * width + column])).collect()
        };
        (0..self.count).step_by(TILE).map(tile).collect()
    }
}

/// Whether tensor and tiles have the width and agree, and lanes do not mix.
fn compare_forms(
    name: &str,
    width: usize,
    tensor: Tensor<2>,
    count: usize,
    tile: impl Fn(usize) -> Vec<Lanes>,
) -> Result<(), EnvError> {
    if tensor.dims() != [count, width] {
        let reason = format!("the tensor has the shape {:?}, expected {:?}", tensor.dims(), [count, width]);
        return Err(broken(name, reason));
    }
    let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
    for row in 0..count {
        let found = tile(row / TILE);
        for column in 0..width {
            let (expected, found) = (values[row * width + column], found[column][row % TILE]);
            if (found - expected).abs() > FORMS * expected.abs().max(1.0) || found.is_nan() {
                let reason = format!("column {column} of row {row} is {found} as a tile and {expected} as a tensor");
                return Err(broken(name, reason));
            }
        }
    }
    Ok(())
}

/// Whether a pullback agrees with finite differences of its function, lane by lane, and adds to the existing values.
fn differentiate(
    name: &str,
    at: &[Lanes],
    width: usize,
    form: impl Fn(&[Lanes]) -> Vec<Lanes>,
    pullback: impl Fn(&[Lanes], &mut [Lanes]),
) -> Result<(), EnvError> {
    let before = 0.25;
    // A direction of the output that differs from column to column and lane to lane.
    let weight = |column: usize, lane: usize| 0.5 + ((column * 7 + lane * 3) % 11) as f32 / 11.0;
    let grad: Vec<Lanes> = (0..width).map(|column| std::array::from_fn(|lane| weight(column, lane))).collect();
    let mut found = vec![[before; TILE]; at.len()];
    pullback(&grad, &mut found);
    for (input, found) in found.iter().enumerate() {
        // Each lane moves by itself: if lanes mixed, the sum over all would show in each.
        let moved = |by: f32| {
            let mut moved = at.to_vec();
            let mut steps = [0.0; TILE];
            for lane in 0..TILE {
                let x = at[input][lane];
                moved[input][lane] = x + by * x.abs().max(1.0);
                steps[lane] = moved[input][lane] - x;
            }
            (form(&moved), steps)
        };
        let sides = STEPS.map(|step| (moved(step), moved(-step)));
        for lane in 0..TILE {
            let expected = sides.each_ref().map(|((up, plus), (down, minus))| {
                let difference: f32 =
                    (0..width).map(|column| grad[column][lane] * (up[column][lane] - down[column][lane])).sum();
                difference / (plus[lane] - minus[lane])
            });
            let gradient = found[lane] - before;
            let close =
                expected.iter().any(|expected| (gradient - expected).abs() <= GRADIENTS * expected.abs().max(1.0));
            if !close {
                let expected = expected[0];
                let reason = format!(
                    "the gradient with respect to input {input} of row {lane} is {gradient}, expected {expected} by finite \
                     differences (observations first, then actions, then next observations; it is added to what is there)"
                );
                return Err(broken(name, reason));
            }
        }
    }
    Ok(())
}
