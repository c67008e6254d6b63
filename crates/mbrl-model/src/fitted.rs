//! A fitted model in a folder: its weights and a description.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use mbrl_env::{
    ActionSpace, BoxSpace, Rng, atomic_file,
    data::{DataReport, Layout},
};
use serde::{Deserialize, Serialize};

#[cfg(feature = "train")]
use crate::FitConfig;
use crate::{Ensemble, EnsembleConfig, ModelError};

/// Version of the format. A newer one is refused; 1 had no units, offsets, period or report.
const FORMAT: u32 = 3;
const CARD: &str = "model.toml";
const WEIGHTS: &str = "model.bin";

/// An ensemble that was fitted to a log, with the names, units, offsets and ranges of its columns: what `mbrl fit` writes.
///
/// The folder holds `model.toml` (a [`ModelCard`]) and `model.bin` (the weights).
///
/// ```
/// use mbrl_env::{Rng, data::Layout};
/// use mbrl_model::{Device, Dynamics, EnsembleConfig, FittedModel, ModelCard};
///
/// let device = Device::flex();
/// let config = EnsembleConfig { members: 2, hidden: vec![8], ..EnsembleConfig::default() };
/// let ensemble = config.init(2, 1, &device, &mut Rng::new(0))?;
/// let card = ModelCard::new(["x", "v"], ["u"], config, Layout::default());
/// let folder = tempfile::tempdir().unwrap();
/// FittedModel::new(card, ensemble)?.save(folder.path())?;
///
/// let fitted = FittedModel::open(folder.path(), &device)?;
/// let obs = fitted.obs_of(&[("v", -0.5), ("x", 2.0)])?; // by name, in any order
/// assert_eq!(obs, [2.0, -0.5]);
/// assert_eq!(fitted.model().spec().obs, 2);
/// # Ok::<(), mbrl_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct FittedModel {
    card: ModelCard,
    model: Ensemble,
}

/// The description of a fitted model: everything but its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelCard {
    /// Names of the entries of an observation, `[O]`.
    pub obs: Vec<String>,
    /// Names of the entries of an action, `[A]`.
    pub actions: Vec<String>,
    /// Units of the observation's entries, `[O]`; empty strings where none were given.
    #[serde(default)]
    pub obs_units: Vec<String>,
    /// Units of the action's entries, `[A]`.
    #[serde(default)]
    pub action_units: Vec<String>,
    /// What was subtracted from the log's observations to give the model's, `[O]`: see [`FittedModel::obs`].
    #[serde(default)]
    pub obs_offset: Vec<f64>,
    /// Median time step of the log, in the log's unit, where it has a time.
    #[serde(default)]
    pub period: Option<f64>,
    /// Seed of all random draws.
    pub seed: u64,
    /// Which columns of the log were read.
    pub layout: Layout,
    /// What the model was fitted to.
    pub data: DataCard,
    /// How the fit went.
    pub result: ResultCard,
    /// The model's configuration.
    pub model: EnsembleConfig,
    /// How it was fitted.
    #[cfg(feature = "train")]
    #[serde(default)]
    pub fit: FitConfig,
    /// What was found in the log.
    #[serde(default)]
    pub report: DataReport,
}

impl ModelCard {
    /// A card with names only; everything else can be set, and is empty by default.
    pub fn new<S: Into<String>, const O: usize, const A: usize>(
        obs: [S; O],
        actions: [S; A],
        model: EnsembleConfig,
        layout: Layout,
    ) -> Self {
        Self {
            obs: obs.map(Into::into).to_vec(),
            actions: actions.map(Into::into).to_vec(),
            obs_units: Vec::new(),
            action_units: Vec::new(),
            obs_offset: Vec::new(),
            period: None,
            seed: 0,
            layout,
            data: DataCard::default(),
            result: ResultCard::default(),
            model,
            #[cfg(feature = "train")]
            fit: FitConfig::default(),
            report: DataReport::default(),
        }
    }
}

/// What a model was fitted to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataCard {
    /// The file, or the first of several.
    pub file: String,
    /// Rows.
    pub rows: u64,
    /// Transitions.
    pub transitions: usize,
    /// Episodes.
    pub episodes: usize,
    /// Whether the transitions held out were whole episodes.
    pub holdout_episodes: bool,
}

/// How a fit went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResultCard {
    /// Passes over the data.
    pub epochs: usize,
    /// Transitions fitted to.
    pub train_rows: usize,
    /// Transitions held out.
    pub holdout_rows: usize,
    /// Loss of the last epoch.
    pub train_loss: f32,
    /// Mean squared error of each member, in the units of its targets.
    pub errors: Vec<f32>,
    /// The same over all members, for each column of the targets: those of the observation, then reward and termination.
    pub column_errors: Vec<f32>,
    /// Wall-clock time (s).
    pub seconds: f64,
}

/// The file: the card, and what must hold before it can be read.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// Version of the program that wrote it.
    version: String,
    /// CRC-32 of the weights' file, as in checkpoints; until format 2, CRC-32C.
    checksum: u32,
    #[serde(flatten)]
    card: ModelCard,
}

/// CRC-32C (Castagnoli), bit by bit: of files of earlier formats.
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

impl FittedModel {
    /// A model and its card, to be [saved](Self::save).
    ///
    /// # Errors
    /// [`ModelError::Width`] where the number of names, units or offsets differs from the model's number of columns; units and
    /// offsets may be left out.
    pub fn new(mut card: ModelCard, model: Ensemble) -> Result<Self, ModelError> {
        let spec = crate::Dynamics::spec(&model);
        let (obs, action) = (spec.obs, spec.action);
        let width = |what, expected: usize, actual: usize| match actual == expected {
            true => Ok(()),
            false => Err(ModelError::Width { what, expected, actual }),
        };
        width("names of the observation", obs, card.obs.len())?;
        width("names of the action", action, card.actions.len())?;
        for (what, units, expected) in [
            ("units of the observation", &mut card.obs_units, obs),
            ("units of the action", &mut card.action_units, action),
        ] {
            if units.is_empty() {
                units.resize(expected, String::new());
            }
            width(what, expected, units.len())?;
        }
        if card.obs_offset.is_empty() {
            card.obs_offset.resize(obs, 0.0);
        }
        width("offsets of the observation", obs, card.obs_offset.len())?;
        Ok(Self { card, model })
    }

    /// Whether a folder claims to hold a model.
    #[must_use]
    pub fn is_in(folder: impl AsRef<Path>) -> bool {
        folder.as_ref().join(CARD).exists()
    }

    /// The model of a folder, with its weights on `device`.
    ///
    /// # Errors
    /// [`ModelError::Io`] where a file cannot be read; [`ModelError::File`] where one is damaged, or written by a newer
    /// version.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let folder = folder.as_ref();
        let path = folder.join(CARD);
        let broken = |path: &Path, reason: String| ModelError::File { path: path.to_owned(), reason };
        let text = fs::read_to_string(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        // A newer format may have other fields.
        let table: toml::Table = toml::from_str(&text).map_err(|error| broken(&path, error.to_string()))?;
        let format = match table.get("format").and_then(toml::Value::as_integer) {
            Some(format) if (1..=i64::from(FORMAT)).contains(&format) => format,
            Some(format) => {
                return Err(broken(&path, format!("format {format}, this program reads formats 1 to {FORMAT}")));
            }
            None => return Err(broken(&path, "no model of this program, `format` is missing".into())),
        };
        let Stored { checksum, card, .. } = toml::from_str(&text).map_err(|error| broken(&path, error.to_string()))?;

        let path = folder.join(WEIGHTS);
        let weights = fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let found = if format <= 2 { crc32c(&weights) } else { crc32fast::hash(&weights) };
        if found != checksum {
            return Err(broken(&path, format!("damaged, expected checksum {checksum:08x}, found {found:08x}")));
        }
        let fits = |error: ModelError| broken(&path, error.to_string());
        let of_card = folder.join(CARD);
        // The weights drawn here are replaced at once.
        let mut model = card.model.init(card.obs.len(), card.actions.len(), device, &mut Rng::new(0)).map_err(fits)?;
        model.load(&weights).map_err(fits)?;
        Self::new(card, model).map_err(|error| broken(&of_card, error.to_string()))
    }

    /// Writes both files into a folder, which is created if it does not exist. The card, without which there is no model, is written last.
    ///
    /// # Errors
    /// [`ModelError::Io`] where a file cannot be written, [`ModelError::Storage`] where the model cannot be stored.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), ModelError> {
        let folder = folder.as_ref();
        let io = |path: &Path| {
            let path: PathBuf = path.to_owned();
            move |source| ModelError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        let weights = self.model.save()?;
        let stored = Stored {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            checksum: crc32fast::hash(&weights),
            card: self.card.clone(),
        };
        let card = toml::to_string(&stored).map_err(|error| ModelError::Storage(error.to_string()))?;
        for (name, bytes) in [(WEIGHTS, weights.as_slice()), (CARD, card.as_bytes())] {
            let path = folder.join(name);
            atomic_file::write_bytes(&path, bytes).map_err(io(&path))?;
        }
        Ok(())
    }

    /// The model: a [`Dynamics`](crate::Dynamics), to plan with.
    #[must_use]
    pub fn model(&self) -> &Ensemble {
        &self.model
    }

    /// The model alone.
    #[must_use]
    pub fn into_model(self) -> Ensemble {
        self.model
    }

    /// The model's description.
    #[must_use]
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Names of the entries of an observation, `[O]`.
    #[must_use]
    pub fn obs_names(&self) -> &[String] {
        &self.card.obs
    }

    /// Names of the entries of an action, `[A]`.
    #[must_use]
    pub fn action_names(&self) -> &[String] {
        &self.card.actions
    }

    /// Index of an observation's entry by its name.
    #[must_use]
    pub fn obs_index(&self, name: &str) -> Option<usize> {
        self.card.obs.iter().position(|known| known == name)
    }

    /// Median time step of the log, in the log's unit, where it has a time: the period to act with.
    #[must_use]
    pub fn period(&self) -> Option<f64> {
        self.card.period
    }

    /// Lowest and highest value of each entry of the observations that it was fitted to, in the log's units, `[O]`; empty where
    /// the card does not record them. Beyond these ranges the model extrapolates.
    #[must_use]
    pub fn obs_ranges(&self) -> Vec<(f64, f64)> {
        self.ranges("observation")
    }

    /// The same for the actions, `[A]`.
    #[must_use]
    pub fn action_ranges(&self) -> Vec<(f64, f64)> {
        self.ranges("action")
    }

    fn ranges(&self, part: &str) -> Vec<(f64, f64)> {
        let columns = self.card.report.columns.iter().filter(|column| column.part == part);
        columns.map(|column| (column.low, column.high)).collect()
    }

    /// The actions that it was fitted to, as a space to plan in.
    ///
    /// # Errors
    /// [`ModelError::Env`] where an action never changed, or the card does not record its range.
    pub fn action_space(&self) -> Result<ActionSpace, ModelError> {
        let ranges = self.action_ranges();
        let low: Vec<f32> = ranges.iter().map(|range| range.0 as f32).collect();
        let high: Vec<f32> = ranges.iter().map(|range| range.1 as f32).collect();
        mbrl_env::check_width("ranges of the action", self.card.actions.len(), ranges.len())?;
        Ok(ActionSpace::Box(BoxSpace::new(low, high)?))
    }

    /// An observation in the log's units, `[O]`, as the model sees it: without its offsets.
    ///
    /// # Errors
    /// [`ModelError::Width`] for another number of entries.
    pub fn obs(&self, values: &[f64]) -> Result<Vec<f32>, ModelError> {
        crate::dynamics::check_size("entries of the observation", self.card.obs.len(), values.len())?;
        Ok(values.iter().zip(&self.card.obs_offset).map(|(value, offset)| (value - offset) as f32).collect())
    }

    /// The same from names and values, in any order.
    ///
    /// # Errors
    /// [`ModelError::Column`] for a name that the model does not know, or one that is left out.
    pub fn obs_of(&self, values: &[(&str, f64)]) -> Result<Vec<f32>, ModelError> {
        let unknown =
            |name: &str, rule| ModelError::Column { name: name.to_owned(), rule, known: self.card.obs.clone() };
        if let Some((name, _)) = values.iter().find(|(name, _)| self.obs_index(name).is_none()) {
            return Err(unknown(name, "a column of the observation"));
        }
        let of = |name: &String| values.iter().find(|(given, _)| given == name).map(|(_, value)| *value);
        let found = self.card.obs.iter().map(|name| of(name).ok_or_else(|| unknown(name, "a value")));
        self.obs(&found.collect::<Result<Vec<f64>, _>>()?)
    }

    /// An observation of the model in the log's units, `[O]`.
    ///
    /// # Errors
    /// [`ModelError::Width`] for another number of entries.
    pub fn values(&self, obs: &[f32]) -> Result<Vec<f64>, ModelError> {
        crate::dynamics::check_size("entries of the observation", self.card.obs.len(), obs.len())?;
        Ok(obs.iter().zip(&self.card.obs_offset).map(|(value, offset)| f64::from(*value) + offset).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted() -> FittedModel {
        let config = EnsembleConfig { members: 2, hidden: vec![4], ..EnsembleConfig::default() };
        let model = config.init(2, 1, &Device::flex(), &mut Rng::new(3)).unwrap();
        let mut card = ModelCard::new(["x", "v"], ["u"], config, Layout::default());
        card.obs_offset = vec![5.3e6, 0.0];
        card.period = Some(0.02);
        card.data = DataCard { file: "a.csv".into(), rows: 9, transitions: 8, episodes: 1, holdout_episodes: false };
        card.result = ResultCard { errors: vec![0.25, 0.1], train_loss: 0.5, ..ResultCard::default() };
        FittedModel::new(card, model).unwrap()
    }

    #[test]
    fn a_model_of_the_format_before_is_read_and_its_damage_noticed() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
        let folder = tempfile::tempdir().unwrap();
        fitted().save(folder.path()).unwrap();
        let card = folder.path().join(CARD);
        let weights = fs::read(folder.path().join(WEIGHTS)).unwrap();
        let text = fs::read_to_string(&card).unwrap();
        let (now, before) = (crc32fast::hash(&weights), crc32c(&weights));
        let text = text.replace(&format!("checksum = {now}"), &format!("checksum = {before}"));
        fs::write(&card, text.replace("format = 3", "format = 2")).unwrap();
        FittedModel::open(folder.path(), &Device::flex()).unwrap();
        fs::write(&card, &text).unwrap();
        assert!(FittedModel::open(folder.path(), &Device::flex()).is_err(), "another checksum belongs to format 3");
    }

    #[test]
    fn a_model_comes_back_and_what_is_wrong_with_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let fitted = fitted();
        fitted.save(folder.path()).unwrap();
        assert!(FittedModel::is_in(folder.path()));
        let again = FittedModel::open(folder.path(), &Device::flex()).unwrap();
        assert_eq!(again.card(), fitted.card());
        assert_eq!(again.model().save().unwrap(), fitted.model().save().unwrap());

        let refused = |name: &str, bytes: &[u8], word: &str| {
            let path = folder.path().join(name);
            let before = fs::read(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            let error = FittedModel::open(folder.path(), &Device::flex()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(word), "{error}");
            fs::write(&path, before).unwrap();
        };
        let text = fs::read_to_string(folder.path().join(CARD)).unwrap();
        refused(CARD, text.replace("format = 3", "format = 4\nshards = 3").as_bytes(), "format 4");
        refused(CARD, b"name = 1", "`format` is missing");
        refused(CARD, text.replace("seed = 0", "").as_bytes(), "seed");
        refused(CARD, text.replace("obs_offset = [5300000.0, 0.0]", "obs_offset = [1.0]").as_bytes(), "offsets");
        refused(WEIGHTS, b"", "damaged");
    }

    #[test]
    fn a_folder_of_the_first_format_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let fitted = fitted();
        fitted.save(folder.path()).unwrap();
        let path = folder.path().join(CARD);
        let text = fs::read_to_string(&path).unwrap();
        let begin = text.find("[report]").unwrap();
        let rest = text[begin..].find("\n[model]").or(text[begin..].find("\n[fit]"));
        let end = rest.map_or(text.len(), |at| begin + at);
        let weights = fs::read(folder.path().join(WEIGHTS)).unwrap();
        let checksum = format!("checksum = {}", crc32c(&weights));
        let old: String = format!("{}{}", &text[..begin], &text[end..])
            .replace(&format!("checksum = {}", crc32fast::hash(&weights)), &checksum)
            .lines()
            .filter(|line| !["obs_units", "action_units", "obs_offset", "period"].iter().any(|w| line.starts_with(w)))
            .map(|line| format!("{}\n", line.replace("format = 3", "format = 1")))
            .collect();
        assert!(!old.contains("offset") && old.contains("format = 1") && old.contains(&checksum), "{old}");
        fs::write(&path, old).unwrap();
        let again = FittedModel::open(folder.path(), &Device::flex()).unwrap();
        assert_eq!((again.card().obs_offset.as_slice(), again.period()), (&[0.0, 0.0][..], None));
    }

    #[test]
    fn observations_go_in_and_out_by_name_without_their_offset() {
        let fitted = fitted();
        let obs = fitted.obs_of(&[("v", 0.5), ("x", 5_300_000.25)]).unwrap();
        assert_eq!(obs, [0.25, 0.5]);
        assert_eq!(fitted.values(&obs).unwrap(), [5_300_000.25, 0.5]);
        let told = fitted.obs_of(&[("x", 0.0)]).unwrap_err().to_string();
        assert_eq!(told, "column `v`: expected a value; the model has `x`, `v`");
        let told = fitted.obs_of(&[("x", 0.0), ("w", 0.0)]).unwrap_err().to_string();
        assert!(told.contains("column `w`: expected a column of the observation"), "{told}");
        assert!(fitted.action_space().is_err());
    }
}
