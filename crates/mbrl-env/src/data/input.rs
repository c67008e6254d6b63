//! Finds the input files and their formats: the first bytes decide, whatever the names say.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use super::DataError;

/// Files that are read from a folder.
const EXTENSIONS: [&str; 9] = ["csv", "tsv", "tab", "parquet", "npz", "npy", "h5", "hdf5", "feather"];
/// Files that are read if there are none of those; next to them they count as notes.
const OTHERS: [&str; 3] = ["txt", "dat", "gz"];

/// A file, or its content if it had to be unpacked.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) bytes: Option<Vec<u8>>,
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Parquet,
    Npz,
    Npy,
}

impl Input {
    /// Opens a file, unpacks it if it is packed, and detects its format.
    pub(super) fn new(path: &Path) -> Result<(Self, Format), DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut input = Self { path: path.to_owned(), bytes: None };
        let mut head = input.head().map_err(io)?;
        if head.starts_with(b"\x1f\x8b") {
            input.bytes = Some(unpacked(path)?);
            head = input.head().map_err(io)?;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        Ok((input, format(path, &head, &extension)?))
    }

    fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.open()?.take(128).read_to_end(&mut head)?;
        Ok(head)
    }

    pub(super) fn open(&self) -> io::Result<Box<dyn BufRead>> {
        Ok(match &self.bytes {
            Some(bytes) => Box::new(Cursor::new(bytes.clone())),
            None => Box::new(BufReader::with_capacity(1 << 16, File::open(&self.path)?)),
        })
    }
}

/// The format, from the first bytes.
fn format(path: &Path, head: &[u8], extension: &str) -> Result<Format, DataError> {
    let foreign = |what: &str, advice: &str| {
        let name = path.display();
        let reason =
            format!("{what}; expected CSV, Parquet, .npz or .npy{}", advice.replace("FILE", &name.to_string()));
        Err(DataError::Format { path: path.to_owned(), reason })
    };
    let begins = |magic: &[u8]| head.starts_with(magic);
    if begins(b"PAR1") {
        return Ok(Format::Parquet);
    }
    if begins(b"\x93NUMPY") {
        return Ok(Format::Npy);
    }
    if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") {
        return match extension {
            "xlsx" | "xlsm" | "ods" => foreign(
                "a workbook",
                ". To convert it: python -c \"import pandas as pd; pd.read_excel('FILE').to_csv('log.csv', index=False)\"",
            ),
            _ => Ok(Format::Npz),
        };
    }
    if begins(b"\x89HDF\r\n\x1a\n") {
        return foreign("an HDF5 file", HDF5);
    }
    let others: [(&[u8], &str, &str); 13] = [
        (
            b"ARROW1",
            "a Feather file",
            ". To convert it: python -c \"import pandas as pd; pd.read_feather('FILE').to_parquet('log.parquet')\"",
        ),
        (b"Obj\x01", "an Avro file", ""),
        (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel", ". Save it as CSV"),
        (b"BZh", "packed by bzip2", ". Unpack it: bunzip2 -k FILE"),
        (b"\x28\xb5\x2f\xfd", "packed by zstd", ". Unpack it: zstd -d FILE"),
        (b"\xfd7zXZ", "packed by xz", ". Unpack it: unxz -k FILE"),
        (b"#ROSBAG", "a ROS bag", ". Write its topics into one table, for example with the Python package rosbags"),
        (b"\x89MCAP", "an MCAP file", ". Write its topics into one table, for example with the Python package mcap"),
        (b"ULog", "a log of PX4", ". To convert it: pip install pyulog, then ulog2csv FILE"),
        (
            b"SQLite format 3",
            "an SQLite database",
            ". Export the table as CSV: sqlite3 -header -csv FILE 'select * from TABLE'",
        ),
        (
            b"MATLAB",
            "a MATLAB file",
            ". To convert it: python -c \"import numpy as np, scipy.io as s; np.savez('log.npz', **{k: v for k, v in s.loadmat('FILE').items() if k[0] != '_'})\"",
        ),
        (b"\x80\x04\x95", "a Python pickle", ". Store its arrays by np.savez"),
        (b"\x80\x05\x95", "a Python pickle", ". Store its arrays by np.savez"),
    ];
    if let Some((_, what, advice)) = others.iter().find(|(magic, ..)| begins(magic)) {
        return foreign(what, advice);
    }
    let expected = match extension {
        "parquet" => "Parquet, which begins with PAR1",
        "npz" => ".npz, which is a zip archive",
        "npy" => ".npy, which begins with \\x93NUMPY",
        "h5" | "hdf5" => "HDF5",
        "xlsx" | "xls" | "ods" | "feather" | "mcap" | "bag" | "mat" | "pkl" => "what its name says",
        _ if head.trim_ascii_start().starts_with(b"{") => {
            return foreign(
                "JSON",
                ". To convert it: python -c \"import pandas as pd; pd.read_json('FILE', lines=True).to_csv('log.csv', index=False)\"",
            );
        }
        _ => return Ok(Format::Text),
    };
    if head.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    Err(DataError::Format { path: path.to_owned(), reason: format!("damaged: not {expected}") })
}

/// Advice for an HDF5 file: in those of D4RL and robomimic, every group that holds actions becomes a separate file.
const HDF5: &str = ". To convert it into a folder of .npz files, one an episode: python -c \"import h5py, numpy as np, os; \
    os.makedirs('log'); f = h5py.File('FILE'); g = []; f.visit(lambda n: g.append(n) if n.split('/')[-1] == 'actions' \
    else None); [np.savez('log/%06d.npz' % i, **{('observations' if k == 'obs' else k): (np.concatenate([np.atleast_2d(\
    np.asarray(v[s]).T).T for s in sorted(v)], 1) if hasattr(v, 'keys') else v[()]) for k, v in f[n].parent.items() \
    if k in ('obs', 'observations', 'actions', 'rewards', 'dones', 'terminals', 'terminations', 'timeouts', \
    'truncations')}) for i, n in enumerate(g)]\"";

#[cfg(not(any(feature = "csv", feature = "numpy", feature = "parquet")))]
fn unpacked(path: &Path) -> Result<Vec<u8>, DataError> {
    Err(DataError::NotBuilt { path: path.to_owned(), feature: "csv" })
}

#[cfg(any(feature = "csv", feature = "numpy", feature = "parquet"))]
fn unpacked(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    flate2::bufread::MultiGzDecoder::new(BufReader::new(file))
        .read_to_end(&mut bytes)
        .map_err(|error| DataError::Format { path: path.to_owned(), reason: format!("damaged gzip file: {error}") })?;
    Ok(bytes)
}

/// A data set: its files in their order, and its own description.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) paths: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
    /// Names of the entries of vector columns.
    pub(super) entries: Vec<(String, Vec<String>)>,
    pub(super) described: Vec<Described>,
}

/// What a folder's description says about the files below it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) folder: PathBuf,
    pub(super) description: PathBuf,
    /// Seconds per row.
    pub(super) period: Option<f64>,
    /// Total number of rows of its files.
    pub(super) rows: Option<u64>,
}

impl Files {
    /// Seconds per row, if all files are described and all descriptions agree.
    pub(super) fn period(&self) -> Option<f64> {
        let period = self.described.first()?.period;
        let told = |path: &PathBuf| self.described.iter().any(|of| of.period == period && path.starts_with(&of.folder));
        period.filter(|_| self.paths.iter().all(told))
    }
}

/// All files that the words refer to: files, folders, patterns with `*` and `?`.
pub(super) fn files(words: &[PathBuf]) -> Result<Files, DataError> {
    let mut found = Files::default();
    for word in words {
        let io = |source| DataError::Io { path: word.clone(), source };
        if word.is_dir() {
            let before = found.paths.len();
            #[cfg(feature = "parquet")]
            let is_data_set = super::lerobot::describe(word, &mut found)?;
            #[cfg(not(feature = "parquet"))]
            let is_data_set = false;
            let folder = if is_data_set { word.join("data") } else { word.clone() };
            for extensions in [&EXTENSIONS[..], &OTHERS] {
                if found.paths.len() == before {
                    collect(&folder, extensions, &mut found.paths).map_err(io)?;
                }
            }
            if found.paths.len() == before {
                let reason = format!("a folder without a log, expected files that end in .{}", EXTENSIONS.join(", ."));
                return Err(DataError::Format { path: word.clone(), reason });
            }
        } else if !word.exists() && word.to_string_lossy().contains(['*', '?']) {
            let before = found.paths.len();
            matching(word, &mut found.paths).map_err(io)?;
            if found.paths.len() == before {
                let reason = "no file of this pattern".to_owned();
                return Err(DataError::Format { path: word.clone(), reason });
            }
        } else {
            found.paths.push(word.clone());
        }
    }
    Ok(found)
}

/// The logs of a folder and its subfolders, in the order of their names; numbers in names count as numbers.
fn collect(folder: &Path, extensions: &[&str], paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_cached_key(|path| natural(&path.file_name().unwrap_or_default().to_string_lossy()));
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, extensions, paths)?;
        } else if is_named(&name.to_lowercase(), extensions) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Whether a name has one of these extensions, packed or not.
fn is_named(name: &str, extensions: &[&str]) -> bool {
    let bare = name.strip_suffix(".gz").unwrap_or(name);
    let ends = |name: &str| name.rsplit_once('.').is_some_and(|(_, end)| extensions.contains(&end));
    ends(name) || ends(bare)
}

/// A sort key that puts `run10` after `run9`: numbers by their value, before anything that is not a number.
fn natural(name: &str) -> Vec<(Option<char>, u128)> {
    let mut key = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > 0 {
            key.push((None, rest[..digits].parse().unwrap_or(u128::MAX)));
            rest = &rest[digits..];
        } else {
            key.push((Some(first), 0));
            rest = &rest[first.len_utf8()..];
        }
    }
    key
}

/// The files that match a pattern whose last component contains `*` or `?`.
fn matching(pattern: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let folder = pattern.parent().filter(|folder| !folder.as_os_str().is_empty());
    let pattern: Vec<char> = pattern.file_name().unwrap_or_default().to_string_lossy().chars().collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let name = entry?.file_name();
        let characters: Vec<char> = name.to_string_lossy().chars().collect();
        let path = folder.map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name));
        if matches(&pattern, &characters) && path.is_file() {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    paths.extend(found);
    Ok(())
}

fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        (['?', rest @ ..], [_, others @ ..]) => matches(rest, others),
        ([wanted, rest @ ..], [found, others @ ..]) => wanted == found && matches(rest, others),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_their_order() {
        let is = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        assert!(is("a*.csv", "a1.csv") && is("*", "x") && is("a?c", "abc") && is("*b*", "abc"));
        assert!(!is("a*.csv", "b.csv") && !is("a?c", "ac") && !is("a", "ab"));
        let mut names = ["run10", "run9", "run9b", "b", "run"];
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, ["b", "run", "run9", "run9b", "run10"]);
    }
}
