//! A physics of one's own: how well a room keeps its warmth, from a day of measurements.
//!
//! You learn: writing equations with unknown constants, finding these with standard errors, predicting with what was found.
//! Runs in a second: `cargo run --release -p mbrl-model --example own_physics --features flex`
//! You should see three constants with errors of some percent, each near its truth.

use mbrl_model::{
    Dataset, Device, Draw, Dynamics, Field, IdentifyConfig, Named, Num, Parameter, Physics, PhysicsModel, Propagation,
    Rng, Start, Tensor, identify,
};

/// A radiator warms a room, and the room the street: two temperatures above that of the street, one heating power.
struct Room;

impl Physics for Room {
    fn name(&self) -> &str {
        "room"
    }

    fn parameters(&self) -> Vec<Parameter> {
        vec![
            Parameter::unknown("room_capacity", "kJ/K", 1000.0),
            Parameter::unknown("exchange", "kW/K", 0.1),
            Parameter::unknown("loss", "kW/K", 0.1),
            Parameter::known("radiator_capacity", "kJ/K", 60.0),
        ]
    }

    fn state(&self) -> Vec<Field> {
        vec![Field::linear("room", "K"), Field::linear("radiator", "K")]
    }

    fn actions(&self) -> Vec<Field> {
        vec![Field::linear("power", "kW")]
    }

    fn rate(&self, p: &Named, x: &Named, u: &Named) -> Vec<Num> {
        let exchanged = p["exchange"] * (x["radiator"] - x["room"]);
        let lost = p["loss"] * x["room"];
        vec![(exchanged - lost) / p["room_capacity"], (u["power"] - exchanged) / p["radiator_capacity"]]
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A measurement every five minutes for a day; the heating is switched at random; thermometers are off by 0.2 K.
    let (device, mut rng, steps) = (Device::flex(), Rng::new(0), 288);
    let guess = PhysicsModel::new(Room, 300.0, &device)?;
    let truth = guess.clone().with_values(&[2500.0, 0.15, 0.05, 60.0])?;
    let power: Vec<f32> = (0..steps / 12).flat_map(|_| [3.0 * rng.uniform(0.0, 1.0).round(); 12]).collect();
    let actions = Tensor::<1>::from_floats(power.as_slice(), &device).reshape([steps, 1, 1]);
    let start = Start::States(Tensor::from_floats([[15.0, 20.0]], &device));
    let motion = truth.rollout(start, actions, Draw::new(Propagation::MEAN, 0))?.obs;
    let measured: Vec<f32> = motion.into_data().iter::<f32>().map(|x| x + 0.2 * rng.normal()).collect();
    let data = Dataset::new(&measured[..2 * steps], power, &measured[2..], 2, 1)?.with_episodes(&[steps])?;

    let found = identify(&guess, &data, &IdentifyConfig::default().with_window(0))?;
    for estimate in found.estimates.iter().filter(|estimate| estimate.fitted) {
        let truth = truth.value(&estimate.name)?;
        println!(
            "{:14} {:9.4} ± {:.4} {}, truth {truth}",
            estimate.name, estimate.value, estimate.std_error, estimate.unit
        );
        if (estimate.value - truth).abs() > 4.0 * estimate.std_error {
            return Err(format!("{} is off", estimate.name).into());
        }
    }
    println!("noise of the thermometers: {:.3} K and {:.3} K", found.noise[0], found.noise[1]);

    // How warm the room is after an hour with the heating off.
    let warm = Start::States(Tensor::from_floats([[20.0, 20.0]], &device));
    let cooling = found.model.rollout(warm, Tensor::zeros([12, 1, 1], &device), Draw::new(Propagation::MEAN, 0))?.obs;
    let last: Vec<f32> = cooling.into_data().iter().collect();
    println!("an hour without heating leaves {:.2} K of 20 K", last[24]);
    Ok(())
}
