//! An identified machine in a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use mbrl_env::{atomic_file, data::Layout};
use serde::{Deserialize, Serialize};

use super::{Bound, Estimate, Identification, PhysicsModel, machine};
use crate::ModelError;

const FILE: &str = "physics.toml";
const FORMAT: u32 = 1;

/// One of this crate's [machines](super::MACHINES) with the parameters that were found for it: what `mbrl identify` writes.
///
/// ```
/// use mbrl_model::{
///     Dataset, Device, IdentifiedModel, IdentifyConfig, PhysicsModel, identify, machine,
/// };
///
/// // A motor that runs down: speed times 0.9 per step.
/// let speeds: Vec<f32> = (0..40).map(|t| 50.0 * 0.9f32.powi(t)).collect();
/// let data = Dataset::new(&speeds[..39], [0.0; 39], &speeds[1..], 1, 1)?.with_episodes(&[39])?;
/// let device = Device::flex();
/// let model = PhysicsModel::new(machine("dc-motor", None)?, 0.01, &device)?;
/// let model = model.with_known("torque_constant", 0.01)?.with_known("resistance", 1.0)?.with_known("inertia", 1e-4)?;
/// let found = identify(&model, &data, &IdentifyConfig::default())?;
///
/// let folder = tempfile::tempdir().unwrap();
/// IdentifiedModel::new("dc-motor", None, &found)?.save(folder.path())?;
/// let again = IdentifiedModel::open(folder.path(), &device)?;
/// assert_eq!(again.model().values(), found.model.values());
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct IdentifiedModel {
    card: Card,
    model: PhysicsModel,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Card {
    format: u32,
    version: String,
    machine: String,
    #[serde(default)]
    substeps: Option<usize>,
    /// Seconds per step.
    period: f64,
    /// Standard deviation of the noise of each column of the observations.
    noise: Vec<f64>,
    undetermined: Vec<String>,
    #[serde(default)]
    layout: Layout,
    parameters: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    name: String,
    unit: String,
    value: f64,
    /// Absent where the data do not determine it; 0 where it was known.
    #[serde(default)]
    std_error: Option<f64>,
    fitted: bool,
}

impl IdentifiedModel {
    /// The result of [`identify`](super::identify()) for the machine of that name (one of [`MACHINES`](super::MACHINES)), made with `substeps` as in
    /// [`machine`](super::machine), to be [saved](Self::save).
    ///
    /// # Errors
    /// [`ModelError::Config`] for a name that is not a machine's.
    pub fn new(name: &str, substeps: Option<usize>, found: &Identification) -> Result<Self, ModelError> {
        machine(name, substeps)?;
        let entry = |estimate: &Estimate| Entry {
            name: estimate.name.clone(),
            unit: estimate.unit.clone(),
            value: estimate.value,
            std_error: estimate.std_error.is_finite().then_some(estimate.std_error),
            fitted: estimate.fitted,
        };
        let at_bounds = found.estimates.iter().filter_map(|estimate| {
            let bound = match estimate.at_bound? {
                Bound::Lower => "lower",
                Bound::Upper => "upper",
            };
            Some(format!("{}: at the {bound} bound of the search", estimate.name))
        });
        let card = Card {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            machine: name.into(),
            substeps,
            period: found.model.period(),
            noise: found.noise.clone(),
            undetermined: found.undetermined.iter().map(ToString::to_string).chain(at_bounds).collect(),
            layout: Layout::default(),
            parameters: found.estimates.iter().map(entry).collect(),
        };
        Ok(Self { card, model: found.model.clone() })
    }

    /// With the columns of the log that it was found from.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.card.layout = layout;
        self
    }

    /// The columns of the log that it was found from.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.card.layout
    }

    /// The model with the parameters that were found, to plan with.
    #[must_use]
    pub fn model(&self) -> &PhysicsModel {
        &self.model
    }

    /// The model alone, without the name and the columns.
    #[must_use]
    pub fn into_model(self) -> PhysicsModel {
        self.model
    }

    /// Whether a folder holds one.
    #[must_use]
    pub fn is_in(folder: impl AsRef<Path>) -> bool {
        folder.as_ref().join(FILE).is_file()
    }

    /// Writes `physics.toml` into a folder, which is created if it does not exist.
    ///
    /// # Errors
    /// [`ModelError::Io`] where it cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), ModelError> {
        let folder = folder.as_ref();
        let io = |path: PathBuf| move |source| ModelError::Io { path, source };
        fs::create_dir_all(folder).map_err(io(folder.to_owned()))?;
        let text = toml::to_string(&self.card).map_err(|error| ModelError::Storage(error.to_string()))?;
        let path = folder.join(FILE);
        atomic_file::write_bytes(&path, text.as_bytes()).map_err(io(path.clone()))
    }

    /// Reads the `physics.toml` of a folder; tensors of the model live on `device`.
    ///
    /// # Errors
    /// [`ModelError::Io`] where there is none; [`ModelError::File`] where the file is damaged or newer, or holds impossible numbers.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let path = folder.as_ref().join(FILE);
        let text = fs::read_to_string(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let broken = |reason: String| ModelError::File { path: path.clone(), reason };
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = toml::from_str(&text).map_err(|error| broken(error.message().to_owned()))?;
        if format > FORMAT {
            return Err(broken(format!("format {format}: expected {FORMAT} at most, a newer version wrote it")));
        }
        let card: Card = toml::from_str(&text).map_err(|error| broken(error.message().to_owned()))?;
        let fits = |error: ModelError| broken(error.to_string());
        let physics = machine(&card.machine, card.substeps).map_err(fits)?;
        let mut model = PhysicsModel::new(physics, card.period, device).map_err(fits)?;
        let names = |model: &PhysicsModel| model.parameters().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        if names(&model) != card.parameters.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>() {
            return Err(broken(format!("expected the parameters {}", names(&model).join(", "))));
        }
        let errors =
            card.parameters.iter().filter_map(|entry| Some((format!("std_error of {}", entry.name), entry.std_error?)));
        let noise =
            model.fields().iter().zip(&card.noise).map(|(field, noise)| (format!("noise of {}", field.name), *noise));
        if let Some((what, bad)) = errors.chain(noise).find(|(_, number)| !(*number >= 0.0 && number.is_finite())) {
            return Err(broken(format!("{what} = {bad}: expected a finite number of at least 0")));
        }
        if card.noise.len() != model.fields().len() {
            let (found, columns) = (card.noise.len(), model.fields().len());
            return Err(broken(format!("noise of {found} columns: expected {columns}, those of the observation")));
        }
        for Entry { name, value, fitted, .. } in &card.parameters {
            let with = if *fitted { PhysicsModel::with_unknown } else { PhysicsModel::with_known };
            model = with(model, name, *value).map_err(fits)?;
        }
        Ok(Self { card, model })
    }
}
