//! The trainer itself, seen by a model that records what it is given and says what it is told to say.
#![cfg(feature = "train")]

use std::sync::Mutex;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use mbrl_env::Rng;
use mbrl_model::{Dataset, Device, Epoch, Fit, FitBatch, FitConfig, ModelError, Pairs, Stepper, fit, fit_watched};

const MEMBERS: usize = 2;

#[derive(Module, Debug)]
struct Weights {
    /// `[E, 1]`; counts optimizer steps, since its gradient is constant.
    w: Param<Tensor<2>>,
}

/// Rows of the training set are known by their input, which is their number.
struct Recorder {
    weights: Weights,
    /// Rows of each batch and member.
    seen: Mutex<Vec<Vec<Vec<f32>>>>,
    held: Mutex<Vec<f32>>,
    /// Key and step of each batch.
    drawn: Mutex<Vec<(u64, u32)>>,
    /// Errors that each epoch reports, `[epoch][E]`; the last one repeats.
    script: Vec<[f32; MEMBERS]>,
    epoch: Mutex<usize>,
    /// The loss becomes NaN at this step.
    poison: Option<usize>,
    finished: Option<(Vec<f32>, Vec<f32>)>,
}

impl Recorder {
    fn new(script: &[[f32; MEMBERS]]) -> Self {
        let device = Device::flex();
        let weights = Weights { w: Param::from_data(TensorData::new(vec![0f32; MEMBERS], [MEMBERS, 1]), &device) };
        let script = script.to_vec();
        Self {
            weights,
            seen: Mutex::default(),
            held: Mutex::default(),
            drawn: Mutex::default(),
            script,
            epoch: Mutex::new(0),
            poison: None,
            finished: None,
        }
    }

    /// What each member saw in each epoch, sorted.
    fn epochs(&self, batches: usize) -> Vec<Vec<Vec<f32>>> {
        let seen = self.seen.lock().unwrap();
        seen.chunks(batches)
            .map(|epoch| {
                (0..MEMBERS)
                    .map(|e| {
                        let mut rows: Vec<f32> = epoch.iter().flat_map(|batch| batch[e].clone()).collect();
                        rows.sort_by(f32::total_cmp);
                        rows
                    })
                    .collect()
            })
            .collect()
    }
}

fn values<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.try_into_vec_as::<f32>().unwrap()
}

impl Fit for Recorder {
    type Data = Dataset;
    type Examples = Pairs;
    type Parameters = Weights;
    type Statistics = ();

    fn members(&self) -> usize {
        MEMBERS
    }
    fn prepare(&self, data: &Dataset) -> Result<(Pairs, ()), ModelError> {
        let rows: Vec<f32> = (0..data.len()).map(|r| r as f32).collect();
        let column = || Tensor::from_data(TensorData::new(rows.clone(), [rows.len(), 1]), &Device::flex());
        Ok((Pairs::new(column(), column()).with_holdout(data.holdout().map(<[usize]>::to_vec)), ()))
    }
    fn parameters(&self) -> Weights {
        self.weights.clone()
    }
    fn loss(&self, weights: &Weights, examples: &Pairs, batch: &FitBatch<'_>) -> Tensor<1> {
        let mut seen = self.seen.lock().unwrap();
        self.drawn.lock().unwrap().push((batch.key, batch.step));
        let [inputs, _] = examples.batch(batch);
        let rows = values(inputs);
        seen.push(rows.chunks(rows.len() / MEMBERS).map(<[f32]>::to_vec).collect());
        let poison = if self.poison == Some(seen.len() - 1) { f32::NAN } else { 1.0 };
        weights.w.val().sum() * poison
    }
    fn error(&self, _: &Weights, examples: &Pairs, rows: &[usize]) -> Tensor<2> {
        let [inputs, _] = examples.select(rows);
        *self.held.lock().unwrap() = values(inputs);
        let mut epoch = self.epoch.lock().unwrap();
        let errors = self.script[(*epoch).min(self.script.len() - 1)];
        *epoch += 1;
        // Two columns that mean to the scripted error.
        let errors = Tensor::<1>::from_floats(errors, &Device::flex()).unsqueeze_dim::<2>(1);
        Tensor::cat(vec![errors.clone() * 0.5, errors * 1.5], 1)
    }
    fn choose(old: Weights, new: Weights, take: &[bool]) -> Weights {
        let (old, new) = (values(old.w.val()), values(new.w.val()));
        let picked: Vec<f32> = (0..MEMBERS).map(|e| if take[e] { new[e] } else { old[e] }).collect();
        Weights { w: Param::from_data(TensorData::new(picked, [MEMBERS, 1]), &Device::flex()) }
    }
    fn finish(&mut self, weights: Weights, (): (), errors: &[f32]) {
        self.finished = Some((values(weights.w.val()), errors.to_vec()));
    }
}

fn data(rows: usize) -> Dataset {
    Dataset::new(vec![0.0; rows], vec![0.0; rows], vec![0.0; rows], 1, 1).unwrap()
}

#[test]
fn each_member_keeps_its_own_bag_of_rows_and_never_sees_the_holdout() {
    // The trap: a bag drawn again on every pass would show each member all rows in the end.
    for bootstrap in [true, false] {
        let mut model = Recorder::new(&[[1.0, 1.0], [0.5, 0.5], [0.2, 0.2]]);
        let config = FitConfig { batch_size: 16, max_epochs: 3, bootstrap, ..FitConfig::default() };
        let report = fit(&mut model, &data(100), &config, &mut Rng::new(1)).unwrap();
        assert_eq!((report.train_rows, report.holdout_rows, report.steps), (80, 20, 15));
        let epochs = model.epochs(5);
        assert_eq!(epochs.len(), 3);
        assert!(epochs.iter().all(|epoch| epoch == &epochs[0]), "the bags changed between epochs");
        assert_eq!(epochs[0][0] == epochs[0][1], !bootstrap);
        let held = model.held.lock().unwrap().clone();
        for member in &epochs[0] {
            assert_eq!(member.len(), 80);
            assert!(member.iter().all(|row| !held.contains(row)), "a held-out row was trained on");
            let mut distinct = member.clone();
            distinct.dedup();
            // With replacement 63 % of the rows are expected in a bag: 51 of 80, standard deviation 3.
            assert!(if bootstrap { (36..66).contains(&distinct.len()) } else { distinct.len() == 80 });
        }
        // The order differs from epoch to epoch.
        let seen = model.seen.lock().unwrap();
        assert_ne!(seen[0], seen[5]);
    }
}

#[test]
fn what_a_model_draws_itself_goes_by_the_fit_and_the_step() {
    let drawn = |seed: u64| {
        let mut model = Recorder::new(&[[1.0, 1.0]]);
        let config = FitConfig { batch_size: 40, max_epochs: 2, ..FitConfig::default() };
        fit(&mut model, &data(100), &config, &mut Rng::new(seed)).unwrap();
        model.drawn.into_inner().unwrap()
    };
    let (first, other) = (drawn(1), drawn(2));
    assert_eq!(first.iter().map(|(_, step)| *step).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(first.iter().all(|(key, _)| *key == first[0].0) && first[0].0 != other[0].0);
    assert_eq!(first, drawn(1));
}

#[test]
fn each_member_keeps_its_best_epoch() {
    // Member 0 is best after the second epoch, member 1 after the third.
    let mut model = Recorder::new(&[[1.0, 1.0], [0.5, 1.2], [0.6, 0.4], [0.499, 0.5]]);
    let config = FitConfig { batch_size: 80, max_epochs: 4, learning_rate: 1.0, ..FitConfig::default() };
    let report = fit(&mut model, &data(100), &config, &mut Rng::new(1)).unwrap();
    let (weights, errors) = model.finished.unwrap();
    // 0.499 is an improvement of less than 1 %.
    assert_eq!((errors.as_slice(), report.errors.as_slice()), (&[0.5, 0.4][..], &[0.5, 0.4][..]));
    // Adam moves a weight with a constant gradient by the learning rate a step, one step an epoch.
    assert!((weights[0] + 2.0).abs() < 1e-3 && (weights[1] + 3.0).abs() < 1e-3, "{weights:?}");
}

#[test]
fn it_stops_after_more_than_patience_epochs_without_an_improvement() {
    let mut model = Recorder::new(&[[1.0, 1.0], [0.5, 0.5], [0.5, 0.5]]);
    let config = FitConfig { batch_size: 80, max_epochs: 100, patience: 4, ..FitConfig::default() };
    // Two epochs that improve, then five that do not.
    assert_eq!(fit(&mut model, &data(100), &config, &mut Rng::new(1)).unwrap().epochs, 7);
}

#[test]
fn a_divergence_keeps_the_best_epochs_before() {
    let mut model = Recorder::new(&[[1.0, 1.0], [0.5, 0.5], [0.7, 0.7]]);
    model.poison = Some(7);
    let config = FitConfig { batch_size: 40, max_epochs: 10, learning_rate: 1.0, ..FitConfig::default() };
    match fit(&mut model, &data(100), &config, &mut Rng::new(1)) {
        Err(ModelError::Diverged { step: 7, epoch: 3, .. }) => {}
        other => panic!("{other:?}"),
    }
    let (weights, errors) = model.finished.unwrap();
    assert_eq!(errors, [0.5, 0.5]);
    assert!((weights[0] + 4.0).abs() < 1e-3, "{weights:?}");
}

#[test]
fn rows_that_are_held_out_are_validated_on_and_never_trained_on() {
    let chosen: Vec<usize> = (0..100).filter(|row| row % 10 == 7).collect();
    for (max_holdout, held_rows) in [(5000, 10), (4, 4)] {
        let mut model = Recorder::new(&[[1.0, 1.0]]);
        let data = data(100).with_holdout(chosen.clone()).unwrap();
        let config = FitConfig { batch_size: 90, max_epochs: 1, bootstrap: false, max_holdout, ..FitConfig::default() };
        let mut watched = Vec::new();
        let watch = &mut |epoch: &Epoch<'_>| watched.push((epoch.number, epoch.errors.to_vec()));
        let report = fit_watched(&mut model, &data, &config, &mut Rng::new(1), watch).unwrap();
        assert_eq!((report.train_rows, report.holdout_rows), (90, held_rows));
        assert_eq!(watched, [(1, vec![1.0, 1.0])]);
        let held = model.held.lock().unwrap().clone();
        assert!(held.len() == held_rows && held.iter().all(|row| row % 10.0 == 7.0), "{held:?}");
        let trained = &model.epochs(1)[0][0];
        assert!(trained.len() == 90 && trained.iter().all(|row| row % 10.0 != 7.0), "{trained:?}");
    }
    for (rows, word) in [(vec![3, 3], "row 3"), (vec![100], "row 100"), ((0..100).collect(), "all 100")] {
        let error = data(100).with_holdout(rows).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

/// Moves its weight by steps of its own; the error of a weight is the weight.
#[derive(Default)]
struct Mover {
    errors: Vec<f32>,
}

struct Moves(f32);

fn weights(w: f32) -> Weights {
    Weights { w: Param::from_data(TensorData::new(vec![w, 2.0 * w], [MEMBERS, 1]), &Device::flex()) }
}

impl Stepper<Weights> for Moves {
    fn step(&mut self, batch: &FitBatch<'_>) -> f32 {
        self.0 = if batch.step == 7 { f32::NAN } else { self.0 + 1.0 };
        self.0
    }
    fn set_learning_rate(&mut self, _: f64) {}
    fn errors(&self, _: &[usize]) -> Vec<Vec<f32>> {
        vec![vec![self.0], vec![2.0 * self.0]]
    }
    fn parameters(&self) -> Weights {
        weights(self.0)
    }
}

impl Fit for Mover {
    type Data = Dataset;
    type Examples = Pairs;
    type Parameters = Weights;
    type Statistics = ();

    fn members(&self) -> usize {
        MEMBERS
    }
    fn prepare(&self, data: &Dataset) -> Result<(Pairs, ()), ModelError> {
        let column = || Tensor::<1>::from_floats(data.obs(), &Device::flex()).unsqueeze_dim(1);
        Ok((Pairs::new(column(), column()), ()))
    }
    fn parameters(&self) -> Weights {
        weights(0.0)
    }
    fn loss(&self, _: &Weights, _: &Pairs, _: &FitBatch<'_>) -> Tensor<1> {
        unreachable!("its own steps are taken")
    }
    fn error(&self, weights: &Weights, _: &Pairs, _: &[usize]) -> Tensor<2> {
        weights.w.val()
    }
    fn choose(old: Weights, _: Weights, _: &[bool]) -> Weights {
        old
    }
    fn stepper(&self, _: &Pairs, _: &FitConfig) -> Option<Box<dyn Stepper<Weights>>> {
        Some(Box::new(Moves(0.0)))
    }
    fn finish(&mut self, _: Weights, (): (), errors: &[f32]) {
        self.errors = errors.to_vec();
    }
}

#[test]
fn after_a_divergence_members_are_judged_by_the_weights_that_are_kept() {
    // Three batches an epoch; what steps have come to in the third epoch is no number, and what is kept is of the second.
    let config = FitConfig { batch_size: 40, max_epochs: 10, holdout: 0.0, ..FitConfig::default() };
    let mut model = Mover::default();
    match fit(&mut model, &data(100), &config, &mut Rng::new(1)) {
        Err(ModelError::Diverged { step: 7, epoch: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(model.errors, [6.0, 12.0]);
}
