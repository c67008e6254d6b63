//! Fits that show transitions from states that the members predict.

use mbrl_env::Knowledge;

use super::{
    knowledge::{Mirrors, all, fitting::data},
    *,
};
use crate::{Dataset, Fit, FitBatch, FitConfig, Residual, ensemble::train::EnsembleExamples, fit};

const MEMBERS: usize = 3;
/// Transitions of three episodes.
const LENGTHS: [usize; 3] = [1, 3, 40];
const ROWS: usize = 44;
const MOST: usize = 4;

fn config() -> EnsembleConfig {
    EnsembleConfig {
        members: MEMBERS,
        // It jumps, and in the data it does.
        angles: Angles::Columns(vec![AngleColumn { column: 0, turn: 2.0, wraps: true }]),
        hallucinated_steps: MOST,
        normalize_targets: true,
        reward: true,
        termination: true,
        ..super::config(Activation::Silu, Head::Gaussian)
    }
}

/// A model with the statistics of `data`, and what it makes of that.
fn prepared(knowledge: &Knowledge, data: &Dataset) -> (Ensemble, EnsembleExamples) {
    let mut model = config().init_with(4, 2, knowledge, &Device::flex(), &mut Rng::new(2)).unwrap();
    let (_, statistics) = model.prepare(data).unwrap();
    let network = model.network.clone();
    model.finish(network, statistics, &[0.0; MEMBERS]);
    let (examples, _) = model.prepare(data).unwrap();
    (model, examples)
}

/// One member of a model, as a model of its own.
fn alone(model: &Ensemble, member: usize, knowledge: &Knowledge) -> Ensemble {
    let config = EnsembleConfig { members: 1, ..model.config.clone() };
    let mut one = config.init_with(4, 2, knowledge, &Device::flex(), &mut Rng::new(0)).unwrap();
    one.wraps = model.wraps.clone();
    one.install(model.network.select(&[member]), model.inputs.clone(), model.targets.clone(), vec![0]);
    one
}

fn tensor(rows: &[f32], width: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len() / width, width]), &Device::flex())
}

/// Inputs and targets of all rows as copy number `copy`, the states predicted by `member` over `steps` steps; of rows whose episode has fewer
/// before them, anything.
fn shown(member: &Ensemble, data: &Dataset, steps: usize, copy: usize) -> [Vec<f32>; 2] {
    use mbrl_env::Augment;
    let copied = |rows: &[f32], width: usize, map: &dyn Fn(&mut [f32])| {
        let mut rows = rows.to_vec();
        rows.chunks_mut(width).for_each(map);
        rows
    };
    let obs = copied(data.obs(), 4, &|row| Mirrors.observation(copy, row));
    let next = copied(data.next_obs(), 4, &|row| Mirrors.observation(copy, row));
    let actions = copied(data.actions(), 2, &|row| Mirrors.action(copy, row));
    let earlier = |all: &[f32], width: usize, back: usize| -> Vec<f32> {
        (0..ROWS).flat_map(|row| &all[row.saturating_sub(back) * width..][..width]).copied().collect()
    };
    let mut states = earlier(&obs, 4, steps);
    for step in 0..steps {
        let acts = earlier(&actions, 2, steps - step);
        states = to_vec(member.predict(tensor(&states, 4), tensor(&acts, 2)).unwrap().mean);
    }
    let inputs = to_vec(member.network_inputs(tensor(&states, 4), tensor(&actions, 2)));
    let delta = delta(&member.config, 4);
    let columns = &member.predicted.columns;
    let mut targets = Vec::new();
    for row in 0..ROWS {
        let change = |column: usize| {
            let change = next[row * 4 + column] - delta[column] * states[row * 4 + column];
            match member.wraps.iter().find(|wrap| wrap.column == column) {
                Some(wrap) => change - wrap.turn * (change / wrap.turn).round(),
                None => change,
            }
        };
        let reward = Mirrors.reward(copy, data.rewards().unwrap()[row]);
        let said = columns.iter().map(|column| change(*column)).chain([reward]);
        let scaled = said.zip(member.targets.mean()).zip(member.targets.std()).map(|((x, mean), std)| (x - mean) / std);
        targets.extend(scaled.chain([f32::from(u8::from(data.terminated().unwrap()[row]))]));
    }
    [inputs, targets]
}

#[test]
fn predicted_angles_lie_where_those_of_the_data_do_from_the_first_fit_on() {
    let signed = data(ROWS, 1);
    // From 0 to a whole turn, where a fresh model expects them within ± half a turn.
    let from_zero = |rows: &[f32]| -> Vec<f32> {
        rows.chunks(4).flat_map(|row| [row[0].rem_euclid(2.0), row[1], row[2], row[3]]).collect()
    };
    let (obs, next) = (from_zero(signed.obs()), from_zero(signed.next_obs()));
    let data = Dataset::new(obs, signed.actions().to_vec(), next, 4, 2).unwrap();
    let data = data.with_rewards(signed.rewards().unwrap().to_vec()).unwrap();
    let data = data.with_terminated(signed.terminated().unwrap().to_vec()).unwrap().with_episodes(&LENGTHS).unwrap();
    let mut model = config().init_with(4, 2, &Knowledge::none(), &Device::flex(), &mut Rng::new(2)).unwrap();
    let rows: Vec<usize> = (0..MEMBERS * 100).map(|i| i % ROWS).collect();
    let drawn = |model: &Ensemble| {
        let (examples, statistics) = model.prepare(&data).unwrap();
        let width = model.seen.width();
        let says = |inputs: &[f32]| {
            let inputs = TensorData::new(inputs.to_vec(), [MEMBERS, inputs.len() / (MEMBERS * width), width]);
            to_vec(model.network.heads(Tensor::from_data(inputs, &Device::flex()), &model.config).mean)
        };
        let batch = FitBatch::new(&rows, MEMBERS, 7).at_step(3);
        (examples.copies().unwrap().draw(&batch, &says), statistics)
    };
    let (first, statistics) = drawn(&model);
    let network = model.network.clone();
    model.finish(network, statistics, &[0.0; MEMBERS]);
    assert_eq!(first, drawn(&model).0);
}

#[test]
fn a_member_is_shown_its_own_predictions_and_never_those_across_episodes() {
    let data = data(ROWS, 1).with_episodes(&LENGTHS).unwrap();
    let begin = |row: usize| {
        if row < 1 {
            0
        } else if row < 4 {
            1
        } else {
            4
        }
    };
    for (knowledge, copies) in [(all(), 3), (Knowledge::none(), 1)] {
        let (model, examples) = prepared(&knowledge, &data);
        let width = model.seen.width();
        let says = |inputs: &[f32]| {
            let inputs = TensorData::new(inputs.to_vec(), [MEMBERS, inputs.len() / (MEMBERS * width), width]);
            to_vec(model.network.heads(Tensor::from_data(inputs, &Device::flex()), &model.config).mean)
        };
        // Many for each row: the members' shares of rows that go on differ.
        let rows: Vec<usize> = (0..MEMBERS * 400).map(|i| (i * 7 + i / 9) % ROWS).collect();
        let [inputs, targets] = examples.copies().unwrap().draw(&FitBatch::new(&rows, MEMBERS, 7).at_step(3), &says);
        let outputs = targets.len() / rows.len();
        let mut counts = [0; MOST + 1];
        for member in 0..MEMBERS {
            let one = alone(&model, member, &knowledge);
            let ways: Vec<(usize, [Vec<f32>; 2])> = (0..=MOST)
                .flat_map(|steps| (0..copies).map(move |copy| (steps, copy)))
                .map(|(steps, copy)| (steps, shown(&one, &data, steps, copy)))
                .collect();
            for i in member * 400..(member + 1) * 400 {
                let row = rows[i];
                let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
                let found = ways.iter().find(|(_, [seen, said])| {
                    near(&inputs[i * width..][..width], &seen[row * width..][..width])
                        && near(&targets[i * outputs..][..outputs], &said[row * outputs..][..outputs])
                });
                let (steps, _) = found.unwrap_or_else(|| panic!("member {member}, transition {row}: shown otherwise"));
                assert!(*steps <= row - begin(row), "{steps} steps before transition {row}, across an episode's end");
                if row - begin(row) >= MOST {
                    counts[*steps] += 1;
                }
            }
        }
        // 36 of 44 rows have all steps before them: 196 expected of each, standard deviation 12.5.
        assert!(counts.iter().all(|count| (146..247).contains(count)), "{counts:?}");
    }
}

#[test]
fn a_state_that_is_no_number_is_not_shown() {
    let data = data(ROWS, 1).with_episodes(&LENGTHS).unwrap();
    let (_, examples) = prepared(&Knowledge::none(), &data);
    let rows: Vec<usize> = (0..MEMBERS * ROWS).map(|i| i % ROWS).collect();
    let columns = 6;
    let nothing = |inputs: &[f32]| vec![f32::NAN; inputs.len() * columns];
    let drawn = examples.copies().unwrap().draw(&FitBatch::new(&rows, MEMBERS, 0), &nothing);
    for (drawn, table) in drawn.iter().zip([&examples.pairs().inputs, &examples.pairs().targets]) {
        assert_eq!(drawn[..], to_vec(table.clone()).repeat(MEMBERS));
    }
}

#[test]
fn fits_need_episodes_and_models_without_a_past_or_a_base() {
    let device = Device::flex();
    let mut model = config().init(4, 2, &device, &mut Rng::new(0)).unwrap();
    let told = fit(&mut model, &data(ROWS, 1), &FitConfig::default(), &mut Rng::new(0)).unwrap_err().to_string();
    assert!(told.contains("episodes"), "{told}");
    let past = EnsembleConfig { past: 1, ..config() };
    let told = past.init(4, 2, &device, &mut Rng::new(0)).unwrap_err().to_string();
    assert!(told.starts_with("hallucinated_steps = 4: expected 0 with past steps"), "{told}");
    let plain =
        EnsembleConfig { no_delta: Vec::new(), angles: Angles::Task, reward: false, termination: false, ..config() };
    let of = |config: &EnsembleConfig| config.init(4, 2, &device, &mut Rng::new(0)).unwrap();
    let base = of(&EnsembleConfig { members: 1, head: Head::Deterministic, hallucinated_steps: 0, ..plain.clone() });
    let told = Residual::new(base, of(&plain)).unwrap_err().to_string();
    assert!(told.contains("hallucinated_steps"), "{told}");
}
