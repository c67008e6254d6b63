//! LeRobot's folders (v2 and v3): `meta/info.json` describes the Parquet files below `data/`.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    DataError,
    input::{Described, Files},
};

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    codebase_version: String,
    #[serde(default)]
    fps: Option<f64>,
    #[serde(default)]
    total_frames: Option<u64>,
    #[serde(default)]
    features: Map<String, Value>,
}

/// Whether a folder is such a data set; if so, adds what its description says.
pub(super) fn describe(folder: &Path, files: &mut Files) -> Result<bool, DataError> {
    let path = folder.join("meta").join("info.json");
    if !path.is_file() || !folder.join("data").is_dir() {
        return Ok(false);
    }
    let text = fs::read_to_string(&path).map_err(|source| DataError::Io { path: path.clone(), source })?;
    let info: Info = serde_json::from_str(&text)
        .map_err(|error| DataError::Format { path: path.clone(), reason: format!("damaged: {error}") })?;
    files.notes.push(format!("{}: a data set of LeRobot {}", folder.display(), info.codebase_version));
    let period = info.fps.filter(|fps| *fps > 0.0).map(f64::recip);
    files.described.push(Described { folder: folder.to_owned(), description: path, period, rows: info.total_frames });
    for (name, feature) in info.features {
        let mut names = Vec::new();
        strings(&feature["names"], &mut names);
        files.entries.push((name, names));
    }
    Ok(true)
}

/// The names in `["x", "y"]` or `{"motors": ["x", "y"]}`.
fn strings(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::String(name) => names.push(name.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, names)),
        Value::Object(values) => values.values().for_each(|value| strings(value, names)),
        _ => {}
    }
}
