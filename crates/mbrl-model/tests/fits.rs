//! The trainer fits what is no ensemble and no model of dynamics: a policy that another one is cloned into, and physics to windows of
//! episodes.
#![cfg(feature = "train")]

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use mbrl_env::Rng;
use mbrl_model::{
    Dataset, Device, Examples, Fit, FitBatch, FitConfig, ModelError, Pairs, fit,
    mlp::{Mlp, MlpConfig, Pass},
};

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

fn table(values: &[f32], width: usize) -> Tensor<2> {
    let shape = [values.len() / width, width];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

/// Two networks that say what another policy would do.
struct Clones {
    networks: Mlp,
    errors: Vec<f32>,
}

impl Clones {
    /// `[E, N, 2]` → `[E, N, 1]`, within ±1.
    fn act(networks: &Mlp, obs: Tensor<3>) -> Tensor<3> {
        networks.forward(obs, Pass::Infer).tanh()
    }
}

impl Fit for Clones {
    type Data = Dataset;
    type Examples = Pairs;
    type Parameters = Mlp;
    type Statistics = ();

    fn members(&self) -> usize {
        2
    }
    fn prepare(&self, data: &Dataset) -> Result<(Pairs, ()), ModelError> {
        // What was seen and what was done; what came of it does not matter.
        Ok((Pairs::new(table(data.obs(), 2), table(data.actions(), 1)), ()))
    }
    fn parameters(&self) -> Mlp {
        self.networks.clone()
    }
    fn loss(&self, networks: &Mlp, examples: &Pairs, batch: &FitBatch<'_>) -> Tensor<1> {
        let [obs, actions] = examples.batch(batch);
        (Self::act(networks, obs) - actions).square().mean() * 2.0
    }
    fn error(&self, networks: &Mlp, examples: &Pairs, rows: &[usize]) -> Tensor<2> {
        let [obs, actions] = examples.select(rows);
        let said = Self::act(networks, obs.unsqueeze::<3>().repeat_dim(0, 2));
        (said - actions.unsqueeze::<3>()).square().mean_dim(1).squeeze_dim(1)
    }
    fn choose(old: Mlp, new: Mlp, take: &[bool]) -> Mlp {
        // Both or none: enough here.
        if take.iter().all(|take| *take) { new } else { old }
    }
    fn finish(&mut self, networks: Mlp, (): (), errors: &[f32]) {
        (self.networks, self.errors) = (networks, errors.to_vec());
    }
}

#[test]
fn a_policy_is_cloned_by_the_same_trainer() {
    let mut rng = Rng::new(1);
    let obs: Vec<f32> = (0..1200).map(|_| rng.uniform(-1.0, 1.0)).collect();
    let expert = |row: &[f32]| (2.0 * row[0] - row[1] * row[1]).tanh();
    let actions: Vec<f32> = obs.chunks(2).map(expert).collect();
    let data = Dataset::new(obs.clone(), actions, obs, 2, 1).unwrap();
    let config = MlpConfig { members: 2, ..MlpConfig::new(2, vec![24, 24], 1) };
    let networks = config.init(&Device::flex(), &mut rng).unwrap();
    let mut clones = Clones { networks, errors: Vec::new() };
    let settings = FitConfig { batch_size: 64, max_epochs: 100, patience: 20, ..FitConfig::default() };
    let report = fit(&mut clones, &data, &settings, &mut rng).unwrap();
    assert_eq!((report.train_rows, report.holdout_rows, clones.errors.len()), (480, 120, 2));
    let fresh = [[0.3, 0.5], [-0.6, 0.1], [0.0, -0.9]];
    let said = host(Clones::act(&clones.networks, table(fresh.as_flattened(), 2).unsqueeze::<3>().repeat_dim(0, 2)));
    for (i, said) in said.iter().enumerate() {
        let wanted = expert(&fresh[i % 3]);
        assert!((said - wanted).abs() < 0.05, "{said}, the expert does {wanted}");
    }
}

/// Steps of a window.
const STEPS: usize = 8;
const DT: f32 = 0.1;

/// A slider, `x' = x + v' dt`, `v' = v + (k a − c v) dt`, of which gain k and friction c are not known. Two guesses.
struct Slider {
    constants: Constants,
}

#[derive(Module, Debug)]
struct Constants {
    /// Logarithms of k and c, which are positive, `[E, 2]`.
    logs: Param<Tensor<2>>,
}

/// Windows of episodes.
struct Windows {
    /// Position and speed at their starts, `[W, 2]`.
    starts: Vec<f32>,
    /// `[W, STEPS]`.
    actions: Vec<f32>,
    /// What was seen after each step, `[W, STEPS · 2]`.
    truth: Vec<f32>,
    holdout: Vec<usize>,
}

impl Examples for Windows {
    fn count(&self) -> usize {
        self.starts.len() / 2
    }
    fn holdout(&self) -> Option<&[usize]> {
        Some(&self.holdout)
    }
}

impl Windows {
    fn pick(values: &[f32], width: usize, rows: &[usize]) -> Tensor<2> {
        table(&rows.iter().flat_map(|row| &values[row * width..][..width]).copied().collect::<Vec<f32>>(), width)
    }

    /// Squared errors of all steps under constants `[n, 2]`, one pair per row, `[n, STEPS · 2]`.
    fn squares(&self, rows: &[usize], logs: Tensor<2>) -> Tensor<2> {
        let starts = Self::pick(&self.starts, 2, rows);
        let (actions, truth) = (Self::pick(&self.actions, STEPS, rows), Self::pick(&self.truth, 2 * STEPS, rows));
        let [gain, friction] = [0, 1].map(|c| logs.clone().narrow(1, c, 1).exp());
        let [mut x, mut v] = [0, 1].map(|c| starts.clone().narrow(1, c, 1));
        let mut said = Vec::new();
        for t in 0..STEPS {
            v = v.clone() + (gain.clone() * actions.clone().narrow(1, t, 1) - friction.clone() * v) * DT;
            x = x + v.clone() * DT;
            said.extend([x.clone(), v.clone()]);
        }
        (Tensor::cat(said, 1) - truth).square()
    }
}

impl Fit for Slider {
    type Data = Dataset;
    type Examples = Windows;
    type Parameters = Constants;
    type Statistics = ();

    fn members(&self) -> usize {
        2
    }
    fn prepare(&self, data: &Dataset) -> Result<(Windows, ()), ModelError> {
        let starts = data.windows(STEPS);
        // Windows that touch a row which is held out.
        let held = data.holdout().unwrap_or_default();
        let touches = |start: &usize| held.iter().any(|row| (*start..start + STEPS).contains(row));
        let rows = |values: &[f32], width: usize, steps: usize| -> Vec<f32> {
            starts.iter().flat_map(|start| &values[start * width..(start + steps) * width]).copied().collect()
        };
        let windows = Windows {
            starts: rows(data.obs(), 2, 1),
            actions: rows(data.actions(), 1, STEPS),
            truth: rows(data.next_obs(), 2, STEPS),
            holdout: (0..starts.len()).filter(|i| touches(&starts[*i])).collect(),
        };
        Ok((windows, ()))
    }
    fn parameters(&self) -> Constants {
        self.constants.clone()
    }
    fn loss(&self, constants: &Constants, examples: &Windows, batch: &FitBatch<'_>) -> Tensor<1> {
        let logs = constants.logs.val().unsqueeze_dim::<3>(1).repeat_dim(1, batch.size());
        let shape = [batch.rows.len(), 2];
        examples.squares(batch.rows, logs.reshape(shape)).mean() * 2.0
    }
    fn error(&self, constants: &Constants, examples: &Windows, rows: &[usize]) -> Tensor<2> {
        let of = |e: usize| {
            let logs = constants.logs.val().narrow(0, e, 1).repeat_dim(0, rows.len());
            examples.squares(rows, logs).mean_dim(0)
        };
        Tensor::cat(vec![of(0), of(1)], 0)
    }
    fn choose(old: Constants, new: Constants, take: &[bool]) -> Constants {
        let (old, new) = (host(old.logs.val()), host(new.logs.val()));
        let picked: Vec<f32> = (0..4).map(|i| if take[i / 2] { new[i] } else { old[i] }).collect();
        Constants { logs: Param::from_data(TensorData::new(picked, [2, 2]), &Device::flex()) }
    }
    fn finish(&mut self, constants: Constants, (): (), _: &[f32]) {
        self.constants = constants;
    }
}

#[test]
fn physics_is_fitted_to_windows_of_episodes() {
    let (gain, friction) = (1.7, 0.4);
    let mut rng = Rng::new(1);
    let (mut obs, mut actions, mut next) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let [mut x, mut v] = [rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0)];
        for _ in 0..30 {
            let a = rng.uniform(-1.0, 1.0);
            obs.extend([x, v]);
            actions.push(a);
            v += (gain * a - friction * v) * DT;
            x += v * DT;
            next.extend([x, v]);
        }
    }
    let data = Dataset::new(obs, actions, next, 2, 1).unwrap().with_episodes(&[30; 10]).unwrap();
    // The last two episodes are held out.
    let data = data.with_holdout((240..300).collect::<Vec<_>>()).unwrap();
    let logs = Param::from_data(TensorData::new(vec![0.0, 0.0, 0.3, -0.5], [2, 2]), &Device::flex());
    let mut slider = Slider { constants: Constants { logs } };
    let settings = FitConfig { learning_rate: 0.02, batch_size: 32, patience: 15, ..FitConfig::default() };
    let report = fit(&mut slider, &data, &settings, &mut rng).unwrap();
    // 23 windows of 8 steps in an episode of 30; none crosses from one to the next.
    assert_eq!((report.train_rows, report.holdout_rows), (8 * 23, 2 * 23));
    for guess in host(slider.constants.logs.val()).chunks(2) {
        let found = [guess[0].exp(), guess[1].exp()];
        assert!((found[0] / gain - 1.0).abs() < 0.01 && (found[1] / friction - 1.0).abs() < 0.02, "{found:?}");
    }
}
