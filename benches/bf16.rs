//! Roll-outs with bfloat16 products beside those in `f32`.
//!
//! `cargo bench -p mbrl-benches --bench bf16 -- speed`: forward passes and control steps of the benches `forward` and `plan`,
//! alternating in one process. Median times, and the median and the quartiles of the ratios of turns.
//!
//! `… -- error TASK`: a model is fitted to 20 episodes of random actions; on 20 others, its error after k steps and the
//! difference that rounding makes.
#![allow(missing_docs, reason = "a program")]

use std::{env::args, hint::black_box, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use mbrl_benches::{ControlStep, SHAPES, normal};
use mbrl_env::{Env, Replay, Rng, Transition, collect, tasks};
use mbrl_model::{
    Angles, Dataset, Draw, Dynamics, EnsembleConfig, FitConfig, MemberRule, Precision, Propagation, Start, fit,
};

const ROUNDS: usize = 15;
/// Number of steps of a roll-out whose error is measured.
const HORIZON: usize = 25;

fn main() {
    let words: Vec<String> = args().skip(1).filter(|word| !word.starts_with("--")).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["speed"] => speed(),
        ["error", task] => error(task),
        _ => eprintln!("speed, or error TASK"),
    }
}

fn speed() {
    let device = Device::flex();
    println!("{:<28} {:>10} {:>10} {:>8}   quartiles", "", "f32, ms", "bf16, ms", "ratio");
    for shape in SHAPES {
        let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: shape.members }, 0);
        let states = normal(shape.rows, shape.obs, 1, &device);
        let actions: Tensor<3> = normal(shape.rows, shape.action, 2, &device).unsqueeze();
        let models = [Precision::F32, Precision::Bf16].map(|precision| {
            let mut model = shape.ensemble(&device);
            model.set_precision(precision);
            model
        });
        // A turn lasts about 50 ms.
        let repeats = (10_000_000_000 / shape.flop()).max(1);
        by_turns(&format!("forward/{}", shape.name), repeats, |i| {
            let start = Start::States(states.clone());
            black_box(models[i].rollout(start, actions.clone(), draw).expect("a roll-out").obs);
        });
    }
    let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|precision| ControlStep::all(precision, &device));
    for (exact, rounded) in exact.into_iter().zip(rounded) {
        let mut steps = [exact, rounded];
        let repeats = (50_000 / steps[0].model_steps).max(1);
        by_turns(&format!("plan/{}", steps[0].name), repeats, |i| steps[i].run());
    }
}

fn by_turns(name: &str, repeats: u64, mut run: impl FnMut(usize)) {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let begin = Instant::now();
            (0..repeats).for_each(|_| run(which));
            // The first round warms up.
            if round > 0 {
                times[which].push(begin.elapsed().as_secs_f64() * 1e3 / repeats as f64);
            }
        }
    }
    let mut ratios: Vec<f64> = times[0].iter().zip(&times[1]).map(|(f32, bf16)| f32 / bf16).collect();
    let at = |values: &mut Vec<f64>, share: f64| {
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * share).round() as usize]
    };
    let quartiles = [0.25, 0.5, 0.75].map(|share| at(&mut ratios, share));
    let [f32, bf16] = times.map(|mut times| at(&mut times, 0.5));
    println!("{name:<28} {f32:>10.3} {bf16:>10.3} {:>8.2}   {:.2} to {:.2}", quartiles[1], quartiles[0], quartiles[2]);
}

/// PETS's networks on `name`, one member at a time without noise: what a particle of a plan sees.
fn error(name: &str) {
    let device = Device::flex();
    let task = tasks::make(name).expect("a task");
    let spec = task.env.spec().clone();
    let (o, a) = (spec.obs.width(), spec.actions.width());
    let episodes = |seeds: std::ops::Range<u64>| {
        collect(task.env.require_simulator().expect("a simulator"), seeds, |_, rng| {
            spec.actions.sample(rng).expect("bounded actions")
        })
        .expect("episodes")
    };
    let mut replay = Replay::new(o, a, 1_000_000).expect("a replay");
    for episode in episodes(0..20) {
        replay.push_episode(&episode).expect("an episode");
    }
    let data = Dataset::of_replay(&replay, 0).expect("data");
    let mut rng = Rng::new(0);
    // As in the experiments on these tasks.
    let angles = match name {
        "cartpole-swingup" => vec![1],
        "pets-halfcheetah" => vec![2],
        _ => Vec::new(),
    };
    let angles = Angles::radians(angles);
    let config = EnsembleConfig { normalize_targets: true, angles, ..EnsembleConfig::default() };
    let mut model = config.init(o, a, &device, &mut rng).expect("a model");
    let settings = FitConfig { batch_size: 64, holdout: 0.0, max_epochs: 40, ..FitConfig::default() };
    fit(&mut model, &data, &settings, &mut rng).expect("a fit");

    // All sections of HORIZON steps, one after the other.
    let held_out = episodes(1000..1020);
    let stretches: Vec<&[Transition]> = held_out.iter().flat_map(|episode| episode.chunks_exact(HORIZON)).collect();
    let starts = stretches.len();
    let tensor = |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &device);
    let start = tensor(stretches.iter().flat_map(|s| s[0].obs.clone()).collect(), [starts, o]);
    let actions = (0..HORIZON).flat_map(|t| stretches.iter().flat_map(move |s| s[t].action.clone())).collect();
    let actions: Tensor<3> = tensor(actions, [HORIZON * starts, a]).reshape([HORIZON, starts, a]);
    let members = model.spec().members;
    let draw = Draw::new(Propagation { rule: MemberRule::TsInf, noise: false, particles: members }, 0);
    let mut imagined = |precision| -> Vec<f32> {
        model.set_precision(precision);
        let obs = model.rollout(Start::States(start.clone()), actions.clone(), draw).expect("a roll-out").obs;
        obs.try_into_vec_as().expect("floats")
    };
    let (exact, rounded) = (imagined(Precision::F32), imagined(Precision::Bf16));

    // Columns are measured in units of their own spread.
    let columns: Vec<Vec<f32>> =
        (0..o).map(|c| held_out.iter().flatten().map(|transition| transition.next_obs[c]).collect()).collect();
    let spread: Vec<f64> = columns
        .iter()
        .map(|column| {
            let mean =
                |f: &dyn Fn(f64) -> f64| column.iter().map(|x| f(f64::from(*x))).sum::<f64>() / column.len() as f64;
            let centre = mean(&|x| x);
            mean(&|x| (x - centre).powi(2)).sqrt()
        })
        .collect();
    let rms = |k: usize, gap: &dyn Fn(usize, usize, usize) -> f32| {
        let mut sum = 0.0;
        for (member, s, c) in (0..members).flat_map(|m| (0..starts).flat_map(move |s| (0..o).map(move |c| (m, s, c)))) {
            let at = ((k * members + member) * starts + s) * o + c;
            sum += (f64::from(gap(at, s, c)) / spread[c].max(1e-9)).powi(2);
        }
        (sum / (members * starts * o) as f64).sqrt()
    };
    println!("{name}: {} transitions, {starts} stretches held out, {members} members", data.len());
    println!("{:>3} {:>12} {:>12} {:>12} {:>12} {:>8}", "k", "nothing", "f32", "bf16", "bf16 − f32", "share");
    for k in [1, 2, 5, 10, HORIZON] {
        let truth = |s: usize, c: usize| stretches[s][k - 1].next_obs[c];
        let nothing = rms(k, &|_, s, c| stretches[s][0].obs[c] - truth(s, c));
        let [of_exact, of_rounded] = [&exact, &rounded].map(|obs| rms(k, &|at, s, c| obs[at] - truth(s, c)));
        let gap = rms(k, &|at, _, _| rounded[at] - exact[at]);
        println!("{k:>3} {nothing:>12.6} {of_exact:>12.6} {of_rounded:>12.6} {gap:>12.6} {:>8.3}", gap / of_exact);
    }
}
