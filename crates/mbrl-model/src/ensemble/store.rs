//! Ensembles as bytes.
//!
//! Layout: magic, length of a JSON header, the header (what the weights belong to), the statistics as little-endian `f32`
//! (text would not keep every bit), the weights as Burn's record.

use burn::{module::Module, store::ModuleRecord, tensor::Bytes};
use serde::{Deserialize, Serialize};

use super::{Ensemble, EnsembleConfig, angles::Wrap};
use crate::{ModelError, Normalizer};

const MAGIC: &[u8; 8] = b"MBRLENS1";

#[derive(Serialize, Deserialize)]
struct Header {
    config: EnsembleConfig,
    obs: usize,
    action: usize,
    elites: Vec<usize>,
    /// Since angles may wrap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wraps: Vec<Wrap>,
    /// What was subtracted from the observations, as bits of `f64`: text would not keep every bit. Only where it is not 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    offset: Vec<u64>,
    /// Name and width of the features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    features: Option<(String, usize)>,
    /// Name and columns of what is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    known: Option<(String, Vec<usize>)>,
}

impl Ensemble {
    /// Name and columns of what is known, as they are stored.
    fn known_header(&self) -> Option<(String, Vec<usize>)> {
        self.known().map(|known| (known.name().to_owned(), known.columns().to_vec()))
    }

    /// Weights, statistics and elites as bytes; [`load`](Self::load) gives back the same bits.
    ///
    /// # Errors
    /// [`ModelError::Storage`] where Burn cannot write its record.
    pub fn save(&self) -> Result<Vec<u8>, ModelError> {
        let storage = |e: &dyn std::fmt::Display| ModelError::Storage(e.to_string());
        let header = Header {
            config: self.config.clone(),
            obs: self.spec.obs,
            action: self.spec.action,
            elites: self.elites.clone(),
            wraps: self.wraps.clone(),
            offset: match self.offset.iter().all(|offset| *offset == 0.0) {
                true => Vec::new(),
                false => self.offset.iter().map(|offset| offset.to_bits()).collect(),
            },
            features: self.features().map(|features| (features.name().to_owned(), features.width())),
            known: self.known_header(),
        };
        let header = serde_json::to_vec(&header).map_err(|e| storage(&e))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        for values in [self.inputs.mean(), self.inputs.std(), self.targets.mean(), self.targets.std()] {
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        let record = self.network.clone().into_record().into_bytes().map_err(|e| storage(&e))?;
        bytes.extend_from_slice(&record);
        Ok(bytes)
    }

    /// Restores what [`save`](Self::save) wrote, from an ensemble of the same widths and layers. On an error nothing
    /// changes.
    ///
    /// # Errors
    /// [`ModelError::Storage`] for bytes that are not a complete record of an ensemble; [`ModelError::Record`] for one of another
    /// shape.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let broken = |what: &str| ModelError::Storage(format!("not a whole ensemble: {what}"));
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin with MBRLENS1"))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| broken("it ends in the header"))?;
        let (header, mut rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| broken("it ends in the header"))?;
        let header: Header = serde_json::from_slice(header).map_err(|e| broken(&e.to_string()))?;
        let features = self.features().map(|features| (features.name().to_owned(), features.width()));
        if features != header.features {
            let named = |features: &Option<(String, usize)>| match features {
                Some((name, width)) => format!("the features `{name}` ({width} columns)"),
                None => "no features".to_owned(),
            };
            let (expected, found) = (named(&features), named(&header.features));
            return Err(ModelError::Storage(format!("weights of an ensemble with {found}, expected {expected}")));
        }
        let known = self.known_header();
        if known != header.known {
            let named = |known: &Option<(String, Vec<usize>)>| match known {
                Some((name, columns)) => format!("the known columns `{name}` ({columns:?})"),
                None => "no known columns".to_owned(),
            };
            let (expected, found) = (named(&known), named(&header.known));
            return Err(ModelError::Storage(format!("weights of an ensemble with {found}, expected {expected}")));
        }
        // Features that replace columns replace the same ones, and what is known is the same: they have one name.
        let count = self.predicted.known_columns().len();
        let shape = |config: &EnsembleConfig, obs: usize, action| {
            let mut shape = vec![config.members, config.inputs(obs, action)];
            shape.extend(&config.hidden);
            shape.push(config.outputs(obs.saturating_sub(count)));
            shape
        };
        let expected = shape(&self.config, self.spec.obs, self.spec.action);
        let actual = shape(&header.config, header.obs, header.action);
        if expected != actual {
            return Err(ModelError::Record { what: "ensemble [members, layer widths…]".into(), expected, actual });
        }
        // What gives the same weights another meaning.
        let meaning = |c: &EnsembleConfig| {
            format!(
                "activation {:?}, head {:?}, variance {:?}, angles {:?}, no_delta {:?}, normalize_targets {}, reward {}, \
                 termination {}, past {}",
                c.activation,
                c.head,
                c.variance,
                c.angles.columns(),
                c.no_delta,
                c.normalize_targets,
                c.reward,
                c.termination,
                c.past
            )
        };
        let (expected, actual) = (meaning(&self.config), meaning(&header.config));
        if expected != actual {
            return Err(ModelError::Storage(format!("weights of an ensemble with {actual}, expected {expected}")));
        }
        let mut elites = header.elites.clone();
        elites.sort_unstable();
        elites.dedup();
        if elites.is_empty() || elites.len() != header.elites.len() || elites.iter().any(|&e| e >= self.config.members)
        {
            return Err(broken("its elites are not members, each once"));
        }
        let places = |wraps: &[Wrap]| wraps.iter().map(|wrap| (wrap.column, wrap.turn)).collect::<Vec<_>>();
        if places(&header.wraps) != places(&self.wraps) || header.wraps.iter().any(|wrap| !wrap.low.is_finite()) {
            return Err(broken("its angles that wrap are not those of its settings"));
        }
        let offset: Vec<f64> = header.offset.iter().map(|bits| f64::from_bits(*bits)).collect();
        if ![0, self.spec.obs].contains(&offset.len()) || offset.iter().any(|offset| !offset.is_finite()) {
            return Err(broken("its offsets are not finite, one for each column"));
        }
        let mut floats = |n: usize| -> Result<Vec<f32>, ModelError> {
            let (head, tail) = rest.split_at_checked(4 * n).ok_or_else(|| broken("it ends in the statistics"))?;
            rest = tail;
            Ok(head.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let (inputs, targets) = (self.inputs.mean().len(), self.targets.mean().len());
        let inputs = Normalizer::from_parts(floats(inputs)?, floats(inputs)?);
        let targets = Normalizer::from_parts(floats(targets)?, floats(targets)?);
        let sound = |n: &Normalizer| {
            n.mean().iter().all(|m| m.is_finite()) && n.std().iter().all(|s| s.is_finite() && *s > 0.0)
        };
        if !sound(&inputs) || !sound(&targets) {
            return Err(broken("its statistics are not finite and positive"));
        }
        let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(rest.to_vec()))
            .map_err(|e| ModelError::Storage(e.to_string()))?;
        let network =
            self.network.clone().try_load_record(record).map_err(|e| ModelError::Storage(e.to_string()))?.valid();
        (self.wraps, self.offset) = (header.wraps, offset);
        self.install(network, inputs, targets, header.elites);
        Ok(())
    }
}
