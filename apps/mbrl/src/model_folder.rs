//! `model.toml` and `model.bin`: a model that was fitted to a log.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use mbrl_env::{Rng, data::Layout};
use mbrl_model::{Ensemble, EnsembleConfig, FitConfig};
use mbrl_policy::{Device, write_atomically};
use serde::{Deserialize, Serialize};
use toml::Table;

/// Version of the format. A newer one is refused.
const FORMAT: u32 = 1;
const CARD: &str = "model.toml";
const WEIGHTS: &str = "model.bin";

/// What is to know about a fitted model besides its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    /// Names of the entries of an observation.
    pub(crate) obs: Vec<String>,
    /// Names of the entries of an action.
    pub(crate) actions: Vec<String>,
    /// Seed of everything that was drawn.
    pub(crate) seed: u64,
    /// Which columns the log was read by.
    pub(crate) layout: Layout,
    pub(crate) data: DataCard,
    pub(crate) result: ResultCard,
    pub(crate) model: EnsembleConfig,
    pub(crate) fit: FitConfig,
}

/// What the model was fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataCard {
    pub(crate) file: String,
    pub(crate) rows: u64,
    pub(crate) transitions: usize,
    pub(crate) episodes: usize,
    /// Whether the transitions held out were whole episodes.
    pub(crate) holdout_episodes: bool,
}

/// How the fit went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultCard {
    pub(crate) epochs: usize,
    pub(crate) train_rows: usize,
    pub(crate) holdout_rows: usize,
    pub(crate) train_loss: f32,
    /// Mean squared error of each member, in the units of its targets.
    pub(crate) errors: Vec<f32>,
    /// The same over all members, for each column of the targets: those of the observation, then reward and end.
    pub(crate) column_errors: Vec<f32>,
    pub(crate) seconds: f64,
}

/// The file: the card, and what must hold before it can be read.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// Version of the program that wrote it.
    version: String,
    /// CRC-32C of the weights' file.
    checksum: u32,
    #[serde(flatten)]
    card: Card,
}

/// Whether a folder claims to hold a model.
pub(crate) fn is_model(folder: &Path) -> bool {
    folder.join(CARD).exists()
}

/// Writes both files into a folder that nothing looks at yet.
pub(crate) fn write(folder: &Path, card: &Card, model: &Ensemble) -> Result<()> {
    let weights = model.save()?;
    let stored = Stored {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        checksum: crc32c::crc32c(&weights),
        card: card.clone(),
    };
    write_atomically(&folder.join(WEIGHTS), &weights)?;
    write_atomically(&folder.join(CARD), toml::to_string(&stored)?.as_bytes())?;
    Ok(())
}

/// A model with its weights on `device`.
pub(crate) fn read(folder: &Path, device: &Device) -> Result<(Card, Ensemble)> {
    let path = folder.join(CARD);
    let named = || path.display().to_string();
    let text = fs::read_to_string(&path).with_context(named)?;
    // A newer format may have other fields.
    let table: Table = toml::from_str(&text).with_context(named)?;
    match table.get("format").and_then(toml::Value::as_integer) {
        Some(format) if format == i64::from(FORMAT) => {}
        Some(format) => bail!("{}: format {format}, this program reads format {FORMAT}", named()),
        None => bail!("{}: no model of this program, `format` is missing", named()),
    }
    let Stored { checksum, card, .. } = toml::from_str(&text).with_context(named)?;

    let path = folder.join(WEIGHTS);
    let named = || path.display().to_string();
    let weights = fs::read(&path).with_context(named)?;
    let found = crc32c::crc32c(&weights);
    if found != checksum {
        bail!("{}: damaged, expected checksum {checksum:08x}, found {found:08x}", named());
    }
    // The weights drawn here are replaced at once.
    let mut model =
        card.model.init(card.obs.len(), card.actions.len(), device, &mut Rng::new(0)).with_context(named)?;
    model.load(&weights).with_context(named)?;
    Ok((card, model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_comes_back_and_what_is_wrong_with_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let config = EnsembleConfig { members: 2, hidden: vec![4], ..EnsembleConfig::default() };
        let model = config.init(2, 1, &Device::flex(), &mut Rng::new(3)).unwrap();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let card = Card {
            obs: names(&["x", "v"]),
            actions: names(&["u"]),
            seed: 3,
            layout: Layout { obs: names(&["x", "v"]), time: Some(String::new()), ..Layout::default() },
            data: DataCard { file: "a.csv".into(), rows: 9, transitions: 8, episodes: 1, holdout_episodes: false },
            result: ResultCard {
                epochs: 1,
                train_rows: 7,
                holdout_rows: 1,
                train_loss: 0.5,
                errors: vec![0.25, 0.1],
                column_errors: vec![0.125, 0.2],
                seconds: 1.5,
            },
            model: config,
            fit: FitConfig::default(),
        };
        write(folder.path(), &card, &model).unwrap();
        assert!(is_model(folder.path()));
        let (read_card, read_model) = read(folder.path(), &Device::flex()).unwrap();
        assert_eq!(read_card, card);
        assert_eq!(read_model.save().unwrap(), model.save().unwrap());

        let refused = |name: &str, bytes: &[u8], word: &str| {
            let path = folder.path().join(name);
            let before = fs::read(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            let error = crate::say::chain(&read(folder.path(), &Device::flex()).unwrap_err());
            assert!(error.contains(name) && error.contains(word), "{error}");
            fs::write(&path, before).unwrap();
        };
        let text = fs::read_to_string(folder.path().join(CARD)).unwrap();
        refused(CARD, text.replace("format = 1", "format = 2\nshards = 3").as_bytes(), "format 2");
        refused(CARD, b"name = 1", "`format` is missing");
        refused(CARD, text.replace("seed = 3", "").as_bytes(), "seed");
        refused(WEIGHTS, b"", "damaged");
    }
}
