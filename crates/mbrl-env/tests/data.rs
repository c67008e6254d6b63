//! Files of other programs become the transitions that are in them, or an error that says where they do not.

#![cfg(all(feature = "csv", feature = "numpy", feature = "parquet"))]

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use mbrl_env::{
    Replay, Transition,
    data::{self, DataError, Layout, Log},
};
use npyz::WriterBuilder;
use parquet::{
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType},
    file::writer::{SerializedFileWriter, SerializedRowGroupWriter},
    schema::parser::parse_message_type,
};
use proptest::prelude::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Reads a text as a file `log.csv`.
fn csv(text: &str, layout: &Layout) -> Result<Log, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    fs::write(&path, text).unwrap();
    data::read(path, layout)
}

fn machine() -> Layout {
    Layout { obs: names(&["x", "v"]), actions: names(&["u"]), ..Layout::default() }
}

/// The error of a CSV file about a machine, which must hold every word.
#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = csv(text, &machine()).unwrap_err().to_string();
    for word in ["log.csv"].iter().chain(words) {
        assert!(error.contains(word), "`{word}` is missing: {error}");
    }
}

fn replay(obs: usize, action: usize, episodes: &[Vec<Transition>]) -> Replay {
    let mut replay = Replay::new(obs, action, usize::MAX).unwrap();
    for episode in episodes {
        for step in episode {
            replay.push(step).unwrap();
        }
        replay.end_episode();
    }
    replay
}

fn lengths(replay: &Replay) -> Vec<usize> {
    replay.episodes().map(|episode| episode.len()).collect()
}

/// What `fixtures/make_logs.py` wrote.
fn fixture_log(has_next: bool) -> Replay {
    let steps: Vec<Transition> = (0..7_u8)
        .map(|t| {
            let x = f32::from(t);
            let obs = vec![x / 8.0, -x / 4.0, 0.1 * x];
            Transition {
                next_obs: obs.iter().map(|x| x + 0.0625).collect(),
                obs,
                action: vec![x / 2.0, 1.0 - x],
                reward: 0.1 * f64::from(t),
                terminated: t == 3,
                truncated: t == 6,
            }
        })
        .collect();
    if has_next {
        return replay(3, 2, &[steps[..4].to_vec(), steps[4..].to_vec()]);
    }
    let follow = |episode: &[Transition]| {
        episode.windows(2).map(|w| Transition { next_obs: w[1].obs.clone(), ..w[0].clone() }).collect()
    };
    replay(3, 2, &[follow(&steps[..4]), follow(&steps[4..])])
}

#[test]
fn reads_what_pandas_pyarrow_and_numpy_write() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs");
    let columns =
        "episode obs_0 obs_1 obs_2 action_0 action_1 next_obs_0 next_obs_1 next_obs_2 reward terminated truncated";
    let matrix = Layout { names: columns.split(' ').map(str::to_owned).collect(), ..Layout::default() };
    let usual = Layout::default();
    for (name, layout) in [
        ("pandas.csv", &usual),
        ("pandas-snappy.parquet", &usual),
        ("pandas-zstd.parquet", &usual),
        ("lists-zstd.parquet", &usual),
        ("lists-v2.parquet", &usual),
        ("d4rl.npz", &usual),
        ("odd.npz", &usual),
        ("record.npy", &usual),
        ("matrix.npy", &matrix),
        ("matrix-columns.npy", &matrix),
    ] {
        let log = data::read(folder.join(name), layout).unwrap();
        assert_eq!((log.rows, log.dropped, log.has_rewards), (7, 0, true), "{name}");
        assert_eq!(log.replay, fixture_log(true), "{name}");
    }
}

#[test]
fn without_next_observations_the_next_row_of_the_episode_gives_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs/lists-zstd.parquet");
    // Under other names the next observations are not found, and the rows must do.
    let text = fs::read_to_string(path.with_file_name("pandas.csv")).unwrap().replace("next_obs_", "later_");
    let log = csv(&text, &Layout::default()).unwrap();
    assert_eq!(log.replay, fixture_log(false));
    assert_eq!((log.rows, log.dropped), (7, 2));
    assert_eq!(log.layout.obs, names(&["obs_0", "obs_1", "obs_2"]));
    assert_eq!(log.action_names, names(&["action_0", "action_1"]));

    let log = data::read(&path, &Layout::default()).unwrap();
    assert_eq!(log.obs_names, names(&["observation[0]", "observation[1]", "observation[2]"]));
}

#[test]
fn a_last_observation_alone_keeps_the_end() {
    // As `mbrl train` writes the episodes of an evaluation: two files' worth, told apart by the flag and the step.
    let text = "step,x,v,u,reward,terminated,truncated\n\
                0,0,0,1,0.5,false,false\n\
                1,1,0,2,0.5,true,false\n\
                2,2,0,,,,\n\
                0,5,0,1,0.5,false,false\n\
                1,6,0,1,0.5,false,true\n\
                2,7,0,,,,\n";
    let log = csv(text, &machine()).unwrap();
    assert_eq!((log.rows, log.replay.len(), log.dropped), (6, 4, 0));
    let end = log.replay.get(1).unwrap();
    assert_eq!((end.next_obs, end.terminated, end.truncated), (vec![2.0, 0.0], true, false));
    let end = log.replay.get(3).unwrap();
    assert_eq!((end.next_obs, end.terminated, end.truncated), (vec![7.0, 0.0], false, true));
    assert_eq!(lengths(&log.replay), [2, 2]);

    // Without them the flags end the episodes all the same, and no transition reaches across.
    let rows = text.lines().filter(|line| !line.ends_with(",,,,")).collect::<Vec<_>>().join("\n");
    let log = csv(&rows, &machine()).unwrap();
    assert_eq!((lengths(&log.replay), log.dropped), (vec![1, 1], 2));
    assert_eq!(log.replay.get(1).unwrap().obs, [5.0, 0.0]);
}

#[test]
fn episodes_are_told_by_column_flags_or_time() {
    let rows = |header: &str, cells: [&str; 4]| {
        let mut text = format!("x,v,u,{header}\n");
        for (i, cell) in cells.iter().enumerate() {
            writeln!(text, "{i},0,1,{cell}").unwrap();
        }
        csv(&text, &machine()).unwrap()
    };
    for (header, cells, expected) in [
        ("other", ["7", "7", "8", "8"], &[3][..]),
        ("episode", ["7", "7", "8", "8"], &[1, 1]),
        ("episode_id", ["a", "a", "a", "b b"], &[2]),
        ("time", ["0.0", "0.1", "0.0", "0.1"], &[1, 1]),
        // A clock may stand still.
        ("t", ["1", "1", "2", "2"], &[3]),
        ("terminated", ["0", "1", "0", "0"], &[1, 1]),
        ("truncated", ["False", "True", "False", "False"], &[1, 1]),
        ("dones", ["0.0", "1.0", "0.0", "0.0"], &[1, 1]),
    ] {
        let log = rows(header, cells);
        assert_eq!(lengths(&log.replay), expected, "{header}");
        assert_eq!(log.rows - log.dropped, log.replay.len() as u64, "{header}");
    }
    // What is observed or done is nothing else by its name; named twice, it is both.
    let text = "t,v,u\n20.5,0,1\n20.4,0,1\n20.6,0,1\n";
    let layout = Layout { obs: names(&["t", "v"]), ..machine() };
    assert_eq!(lengths(&csv(text, &layout).unwrap().replay), [2]);
    assert_eq!(lengths(&csv(text, &Layout { time: Some("t".into()), ..layout }).unwrap().replay), [1]);
    // Switched off, the column means nothing.
    let text = "x,v,u,time\n0,0,1,noon\n1,0,1,morning\n";
    assert!(csv(text, &machine()).unwrap_err().to_string().contains("line 2, column `time`: found `noon`"));
    assert_eq!(csv(text, &Layout { time: Some(String::new()), ..machine() }).unwrap().replay.len(), 1);
    let text = "x,v,u,next_x\n0,0,1,9\n1,0,1,9\n";
    let log = csv(text, &Layout { next_obs: names(&[""]), ..machine() }).unwrap();
    assert_eq!(log.replay.get(0).unwrap().next_obs, [1.0, 0.0]);
}

#[test]
fn done_does_not_teach_an_end_state() {
    let text =
        "x,v,u,next_x,next_v,terminated,done\n0,0,1,1,0,false,true\n5,0,1,6,0,true,true\n7,0,1,8,0,false,false\n";
    let log = csv(text, &machine()).unwrap();
    let flags: Vec<_> = (0..3).map(|i| log.replay.get(i).unwrap()).map(|t| (t.terminated, t.truncated)).collect();
    assert_eq!(flags, [(false, true), (true, false), (false, false)]);
    assert_eq!((lengths(&log.replay), log.dropped), (vec![1, 1, 1], 0));
    assert!(!log.has_rewards);
}

#[test]
fn numbers_of_a_csv_file_are_rounded_once() {
    // Halfway between two floats but for a digit that a rounding to 64 bits in between loses.
    let log = csv("x,v,u\n1.000000059604644775390625000001,1e-46,-0.0\n1,1,1\n", &machine()).unwrap();
    assert_eq!(log.replay.get(0).unwrap().obs, [1.000_000_1, 0.0]);
}

#[test]
fn odd_but_sound_csv_files() {
    // A byte order mark, Windows line ends, blanks, quotes, blank lines, columns that nobody asked for, no last line end.
    let text = "\u{feff}x, v ,u,note\r\n 1.5,\"2\",+3,\"a, b\"\r\n\r\n-1e3, .5 ,0,\"x\"\"y\"";
    let log = csv(text, &machine()).unwrap();
    let step = log.replay.get(0).unwrap();
    assert_eq!((step.obs, step.action, step.next_obs), (vec![1.5, 2.0], vec![3.0], vec![-1000.0, 0.5]));
}

#[test]
fn malformed_csv_files_are_named_by_line_and_column() {
    refused("x,v,u\n1,2,3\n1,2\n", &["line 3", "2 fields, expected 3"]);
    refused("x,v,u\n1,2,3\n1,2,3,4\n", &["line 3", "4 fields, expected 3"]);
    refused("x,v,u\n1,2,3\n1,2,abc\n", &["line 3", "column `u`", "found `abc`", "a finite number"]);
    refused("x,v,u\n1,NaN,3\n", &["line 2", "column `v`", "found `NaN`"]);
    refused("x,v,u\n1,2,3\n-inf,2,3\n", &["line 3", "column `x`", "found `-inf`"]);
    refused("x,v,u\n1,1e39,3\n", &["line 2", "column `v`", "found `1e39`", "32-bit"]);
    refused("x,v,u\n1,2,3\n,2,3\n", &["line 3", "column `x`", "found nothing"]);
    refused("x,v,u,reward\n1,2,,0.5\n1,2,3,1\n", &["line 2", "column `u`", "found nothing", "leaves out the step"]);
    refused("x,v,u,terminated\n1,2,3,2\n", &["line 2", "column `terminated`", "found `2`", "true or false"]);
    refused("x,v,u,terminated\n1,2,3,maybe\n", &["found `maybe`", "true or false"]);
    refused("x,v,u,episode\n1,2,3,\n", &["line 2", "column `episode`", "found nothing"]);
    // The line is that of an editor: after blank lines, Windows line ends and line ends in quotes.
    refused("x,v,u\n\n1,2,3\n\n\n1,2,?\n", &["line 6"]);
    refused("x,v,u\r\n1,2,3\r\n1,2,?\r\n", &["line 3"]);
    refused("x,v,u,note\n1,2,3,\"a\nb\"\n1,2,?,\n", &["line 4"]);
    refused("x,v,u\n1,2,3\n1,\"2,3\n1,2,3\n", &["line 3", "2 fields, expected 3"]);
}

#[test]
fn what_is_missing_is_named_beside_what_is_there() {
    refused("", &["no rows"]);
    refused("x,v,u\n", &["no rows"]);
    refused("x,v,u\n1,2,3\n", &["no transition in 1 rows"]);
    refused("1,2,3\n1,2,3\n", &["line 1 holds numbers"]);
    refused("X,w,u\n1,2,3\n", &["no column `x`, `v`", "did you mean `X`?", "the file has `X`, `w`, `u`"]);
    refused("x,v,u,v\n1,2,3,4\n", &["more than one column `v`"]);
    refused("x,v,u,next_v\n1,2,3,4\n", &["no column `next_x`"]);
    let usual = |text: &str| csv(text, &Layout::default()).unwrap_err().to_string();
    assert!(usual("x,v,u\n1,2,3\n").contains("no column `obs_0`; the file has `x`, `v`, `u`"));
    // A gap is no shorter observation.
    assert!(usual("obs_0,obs_2,action_0\n1,2,3\n").contains("no column `obs_1`"));
    assert!(usual("obs_0,u\n1,2\n").contains("no column `action_0`"));
    let layout = Layout { next_obs: names(&["v"]), ..machine() };
    let error = csv("x,v,u\n1,2,3\n", &layout).unwrap_err().to_string();
    assert!(error.contains("next observation has 1 entries, expected 2"), "{error}");

    for (name, expected) in [
        ("log.xlsx", "extension `xlsx`, expected csv, parquet, npz or npy"),
        ("log", "extension ``"),
        ("missing.csv", "missing.csv: No such file"),
        ("missing.parquet", "missing.parquet: No such file"),
        ("missing.npz", "missing.npz: No such file"),
    ] {
        let error = data::read(name, &Layout::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn episodes_that_are_mixed_are_refused() {
    refused(
        "x,v,u,episode\n1,2,3,a\n1,2,3,a\n1,2,3,b\n1,2,3,a\n",
        &["line 5", "episode `a` comes again", "sort the rows by episode"],
    );
}

/// Writes arrays `[rows, widths]` of an archive.
fn npz(path: &Path, arrays: &[(&str, &[u64], Vec<f64>)]) {
    let mut archive = npyz::npz::NpzWriter::create(path).unwrap();
    for (name, shape, values) in arrays {
        let mut array =
            archive.array::<f64>(name, Default::default()).unwrap().default_dtype().shape(shape).begin_nd().unwrap();
        array.extend(values.iter().copied()).unwrap();
        array.finish().unwrap();
    }
}

#[test]
fn malformed_archives_are_named_by_array_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.npz");
    let refused = |arrays: &[(&str, &[u64], Vec<f64>)], words: &[&str]| {
        npz(&path, arrays);
        let error = data::read(&path, &Layout::default()).unwrap_err().to_string();
        for word in ["log.npz"].iter().chain(words) {
            assert!(error.contains(word), "`{word}` is missing: {error}");
        }
    };
    let obs = ("observations", &[3, 2][..], vec![0.0; 6]);
    let actions = ("actions", &[3][..], vec![0.0; 3]);
    refused(&[obs.clone(), ("actions", &[2], vec![0.0; 2])], &["different lengths: `observations` 3, `actions` 2"]);
    refused(std::slice::from_ref(&obs), &["no column `action_0`; the file has `observations`"]);
    let nan = ("rewards", &[3][..], vec![0.0, f64::NAN, 0.0]);
    refused(&[obs.clone(), actions.clone(), nan], &["row 1 (from 0)", "column `rewards`", "found NaN"]);
    let large = ("observations", &[3, 2][..], vec![0.0, 0.0, 0.0, 0.0, 0.0, 1e300]);
    refused(&[large, actions.clone()], &["row 2 (from 0)", "column `observations`", "32-bit"]);
    let flag = ("terminals", &[3][..], vec![0.0, 0.5, 1.0]);
    refused(&[obs.clone(), actions.clone(), flag], &["row 1", "`terminals`", "found 0.5", "0, 1"]);
    refused(&[("observations", &[3, 1, 2], vec![0.0; 6]), actions.clone()], &["shape [3, 1, 2]", "expected numbers"]);
    refused(&[("observations", &[0, 2], vec![]), ("actions", &[0], vec![])], &["no rows"]);
    refused(
        &[("observations", &[0, 1 << 60], vec![]), ("actions", &[0], vec![])],
        &["`observations`", "expected numbers"],
    );
    let wide = ("rewards", &[3, 2][..], vec![0.0; 6]);
    refused(&[obs, actions, wide], &["column `rewards`: 2 numbers a row, expected one number a row"]);
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs");
    for name in ["d4rl.npz", "record.npy", "matrix-columns.npy", "lists-zstd.parquet"] {
        let layout = match name {
            "matrix-columns.npy" => {
                let columns = ["obs_0", "obs_1", "action_0"].into_iter().map(str::to_owned);
                Layout { names: columns.chain((3..12).map(|i| i.to_string())).collect(), ..Layout::default() }
            }
            _ => Layout::default(),
        };
        let bytes = fs::read(fixtures.join(name)).unwrap();
        let path = folder.path().join(name);
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            data::read(&path, &layout)
        };
        assert!(read(&bytes).is_ok(), "{name}");
        assert!(matches!(read(&bytes[..bytes.len() - 9]), Err(DataError::Format { .. })), "{name} cut");
        assert!(matches!(read(b"neither"), Err(DataError::Format { .. })), "{name} foreign");
    }
    // One bit of a stored array: its checksum tells.
    let mut bytes = fs::read(fixtures.join("d4rl.npz")).unwrap();
    let at = bytes.windows(4).position(|w| w == 0.125_f32.to_le_bytes()).unwrap();
    bytes[at] ^= 1;
    let path = folder.path().join("flipped.npz");
    fs::write(&path, &bytes).unwrap();
    let error = data::read(&path, &Layout::default()).unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
    // Records with an object among them are stored as a pickle, not as rows.
    for (field, word) in [("'|O'", "|O"), ("'<f4', (1152921504606846976,)", "1152921504606846976")] {
        let header = format!(
            "{{'descr': [('obs', '<f4'), ('action', '<f4'), ('note', {field})], 'fortran_order': False, 'shape': (3,), }}\n"
        );
        let length = (header.len() as u16).to_le_bytes();
        let path = folder.path().join("records.npy");
        fs::write(&path, [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), &[0; 64]].concat()).unwrap();
        let error = data::read(&path, &Layout::default()).unwrap_err().to_string();
        assert!(error.contains("field `note` of dtype") && error.contains(word), "{error}");
    }
    // A matrix without names.
    let error = data::read(fixtures.join("matrix.npy"), &Layout::default()).unwrap_err().to_string();
    assert!(error.contains("12 columns without names; the layout names 0"), "{error}");
}

/// Whatever stands in a file, reading it ends in a replay or an error.
#[test]
fn no_byte_of_a_file_makes_reading_panic() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs");
    let mut read = [0, 0];
    for name in ["pandas.csv", "pandas-zstd.parquet", "lists-v2.parquet", "odd.npz", "d4rl.npz", "record.npy"] {
        let bytes = fs::read(fixtures.join(name)).unwrap();
        let path = folder.path().join(name);
        let mut rng = mbrl_env::Rng::new(7);
        for _ in 0..100 {
            let mut damaged = bytes.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(damaged.len());
                damaged[at] = rng.below(256) as u8;
            }
            fs::write(&path, &damaged).unwrap();
            read[usize::from(data::read(&path, &Layout::default()).is_ok())] += 1;
        }
    }
    // Both happen: some bytes are padding, most are not.
    assert!(read[0] > 125 && read[1] > 25, "{read:?}");
}

type Group<'a> = SerializedRowGroupWriter<'a, File>;

/// Writes a Parquet file of one group of rows.
fn parquet(path: &Path, message: &str, fill: impl FnOnce(&mut Group<'_>)) {
    let schema = Arc::new(parse_message_type(message).unwrap());
    let mut file = SerializedFileWriter::new(File::create(path).unwrap(), schema, Default::default()).unwrap();
    let mut group = file.next_row_group().unwrap();
    fill(&mut group);
    group.close().unwrap();
    file.close().unwrap();
}

fn column<T: DataType>(group: &mut Group<'_>, values: &[T::T], levels: Option<&[i16]>, repetitions: Option<&[i16]>) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, levels, repetitions).unwrap();
    column.close().unwrap();
}

#[test]
fn malformed_parquet_files_are_named_by_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.parquet");
    let refused = |words: &[&str]| {
        let error = data::read(&path, &Layout::default()).unwrap_err().to_string();
        for word in ["log.parquet"].iter().chain(words) {
            assert!(error.contains(word), "`{word}` is missing: {error}");
        }
    };
    let flat = "message log { REQUIRED FLOAT obs_0; OPTIONAL DOUBLE action_0; }";
    parquet(&path, flat, |group| {
        column::<FloatType>(group, &[0.0, 1.0, f32::INFINITY], None, None);
        column::<DoubleType>(group, &[0.0; 3], Some(&[1, 1, 1]), None);
    });
    refused(&["row 2 (from 0)", "column `obs_0`", "found inf"]);

    let list = "message log {
        OPTIONAL GROUP obs (LIST) { REPEATED GROUP list { OPTIONAL FLOAT element; } }
        REQUIRED DOUBLE action;
    }";
    let lists = |levels: &[i16], repetitions: &[i16]| {
        let values = vec![0.5; levels.iter().filter(|level| **level == 3).count()];
        let rows = repetitions.iter().filter(|repetition| **repetition == 0).count();
        parquet(&path, list, |group| {
            column::<FloatType>(group, &values, Some(levels), Some(repetitions));
            column::<DoubleType>(group, &vec![0.0; rows], None, None);
        });
    };
    lists(&[3, 3, 3, 3], &[0, 1, 0, 1]);
    assert_eq!(data::read(&path, &Layout::default()).unwrap().replay.obs_width(), 2);
    lists(&[3, 3, 3, 3, 3], &[0, 1, 0, 1, 1]);
    refused(&["row 1", "column `obs`", "found a list of 3, expected a list of 2"]);
    lists(&[3, 3, 3, 2], &[0, 1, 0, 1]);
    refused(&["row 1", "column `obs`", "a null within a list"]);
    lists(&[3, 2, 3, 3], &[0, 1, 0, 1]);
    refused(&["row 0", "column `obs`", "a null within a list"]);
    lists(&[3, 3, 0], &[0, 1, 0]);
    refused(&["row 1", "column `obs`", "found nothing"]);
    lists(&[1, 3, 3], &[0, 0, 1]);
    refused(&["column `obs`: 0 numbers a row"]);

    // A list of records, of which one is null: no list that ends early.
    let records = "message log {
        REQUIRED GROUP obs (LIST) { REPEATED GROUP list { OPTIONAL GROUP element { OPTIONAL FLOAT x; } } }
        REQUIRED DOUBLE action;
    }";
    parquet(&path, records, |group| {
        column::<FloatType>(group, &[0.5; 3], Some(&[3, 3, 1, 3]), Some(&[0, 1, 0, 1]));
        column::<DoubleType>(group, &[0.0; 2], None, None);
    });
    refused(&["row 1", "column `obs`", "a null within a list"]);

    let text = "message log { REQUIRED FLOAT obs; REQUIRED BYTE_ARRAY action (UTF8); }";
    parquet(&path, text, |group| {
        column::<FloatType>(group, &[0.0], None, None);
        column::<ByteArrayType>(group, &[ByteArray::from("left")], None, None);
    });
    refused(&["column `action`: text, expected numbers"]);
}

/// Observation, action and reward.
type DrawnStep = (Vec<f32>, f32, f64);

/// Transitions of episodes, each ended in some way, where each begins where the one before it ended.
fn episodes() -> impl Strategy<Value = Vec<Vec<Transition>>> {
    let number = || any::<f32>().prop_filter("finite", |x| x.is_finite());
    let obs = proptest::collection::vec(number(), 2);
    let step = (obs.clone(), number(), any::<f64>().prop_filter("finite", |x| x.is_finite()));
    let episode = (proptest::collection::vec(step, 1..6), obs, any::<[bool; 2]>());
    let transitions = |(steps, last, [terminated, truncated]): (Vec<DrawnStep>, Vec<f32>, [bool; 2])| {
        let count = steps.len();
        let following: Vec<Vec<f32>> = steps.iter().skip(1).map(|step| step.0.clone()).chain([last]).collect();
        let joined = steps.into_iter().zip(following).enumerate();
        let transition = |(i, ((obs, action, reward), next_obs))| Transition {
            obs,
            action: vec![action],
            reward,
            next_obs,
            terminated: terminated && i + 1 == count,
            truncated: truncated && i + 1 == count,
        };
        joined.map(transition).collect::<Vec<_>>()
    };
    proptest::collection::vec(episode.prop_map(transitions), 1..5)
}

fn write_csv(path: &Path, episodes: &[Vec<Transition>], with_next: bool) {
    let mut text = String::from("episode,obs_0,obs_1,action_0,reward,terminated,truncated");
    text.push_str(if with_next { ",next_obs_0,next_obs_1\n" } else { "\n" });
    for (number, episode) in episodes.iter().enumerate() {
        for t in episode {
            let (x, u, n) = (&t.obs, &t.action, &t.next_obs);
            write!(text, "{number},{},{},{},{},{},{}", x[0], x[1], u[0], t.reward, t.terminated, t.truncated).unwrap();
            if with_next {
                write!(text, ",{},{}", n[0], n[1]).unwrap();
            }
            text.push('\n');
        }
        if !with_next {
            let last = &episode[episode.len() - 1].next_obs;
            writeln!(text, "{number},{},{},,,,", last[0], last[1]).unwrap();
        }
    }
    fs::write(path, text).unwrap();
}

fn write_npz(path: &Path, episodes: &[Vec<Transition>]) {
    let steps: Vec<&Transition> = episodes.iter().flatten().collect();
    let n = steps.len() as u64;
    let numbers = |part: fn(&Transition) -> Vec<f64>| steps.iter().flat_map(|t| part(t)).collect::<Vec<f64>>();
    let vectors = |part: fn(&Transition) -> &[f32]| steps.iter().flat_map(|t| part(t)).map(|x| f64::from(*x)).collect();
    let ids = episodes.iter().enumerate().flat_map(|(i, episode)| vec![i as f64; episode.len()]).collect();
    npz(
        path,
        &[
            ("observations", &[n, 2], vectors(|t| &t.obs)),
            ("actions", &[n, 1], vectors(|t| &t.action)),
            ("next_observations", &[n, 2], vectors(|t| &t.next_obs)),
            ("rewards", &[n], numbers(|t| vec![t.reward])),
            ("terminals", &[n], numbers(|t| vec![f64::from(u8::from(t.terminated))])),
            ("timeouts", &[n], numbers(|t| vec![f64::from(u8::from(t.truncated))])),
            ("episode", &[n], ids),
        ],
    );
}

/// Lists of observations; a row of nothing else ends each episode.
fn write_parquet(path: &Path, episodes: &[Vec<Transition>]) {
    let message = "message log {
        REQUIRED BYTE_ARRAY episode (UTF8);
        REQUIRED GROUP obs (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
        OPTIONAL FLOAT action;
        OPTIONAL DOUBLE reward;
        OPTIONAL BOOLEAN terminated;
        OPTIONAL BOOLEAN truncated;
    }";
    let steps: Vec<&Transition> = episodes.iter().flatten().collect();
    let (mut ids, mut obs, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for (i, episode) in episodes.iter().enumerate() {
        ids.extend(vec![ByteArray::from(format!("run {i}").into_bytes()); episode.len() + 1]);
        obs.extend(episode.iter().flat_map(|t| t.obs.clone()));
        obs.extend(&episode[episode.len() - 1].next_obs);
        given.extend(vec![1; episode.len()]);
        given.push(0);
    }
    let repetitions: Vec<i16> = (0..obs.len()).map(|i| (i % 2) as i16).collect();
    parquet(path, message, |group| {
        column::<ByteArrayType>(group, &ids, None, None);
        column::<FloatType>(group, &obs, Some(&vec![1; obs.len()]), Some(&repetitions));
        column::<FloatType>(group, &steps.iter().map(|t| t.action[0]).collect::<Vec<_>>(), Some(&given), None);
        column::<DoubleType>(group, &steps.iter().map(|t| t.reward).collect::<Vec<_>>(), Some(&given), None);
        column::<BoolType>(group, &steps.iter().map(|t| t.terminated).collect::<Vec<_>>(), Some(&given), None);
        column::<BoolType>(group, &steps.iter().map(|t| t.truncated).collect::<Vec<_>>(), Some(&given), None);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(episodes in episodes()) {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| -> PathBuf { folder.path().join(name) };
        write_csv(&place("next.csv"), &episodes, true);
        write_csv(&place("rows.csv"), &episodes, false);
        write_npz(&place("log.npz"), &episodes);
        write_parquet(&place("log.parquet"), &episodes);
        let expected = replay(2, 1, &episodes);
        for name in ["next.csv", "rows.csv", "log.npz", "log.parquet"] {
            let log = data::read(place(name), &Layout::default()).unwrap();
            prop_assert_eq!(&log.replay, &expected, "{}", name);
            prop_assert_eq!(log.dropped, 0);
        }
    }
}

#[test]
fn parquet_files_of_many_blocks_and_groups() {
    // More rows than are decoded at a time, in two groups, the last one short.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.parquet");
    let schema = "message log { REQUIRED FLOAT obs; REQUIRED FLOAT action; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Default::default()).unwrap();
    for rows in [0..9000_u16, 9000..9100] {
        let mut group = file.next_row_group().unwrap();
        let values: Vec<f32> = rows.map(f32::from).collect();
        column::<FloatType>(&mut group, &values, None, None);
        column::<FloatType>(&mut group, &values, None, None);
        group.close().unwrap();
    }
    file.close().unwrap();
    let log = data::read(&path, &Layout::default()).unwrap();
    assert_eq!((log.rows, log.replay.len()), (9100, 9099));
    let columns = log.replay.columns();
    assert!(columns.obs.iter().zip(0_u16..).all(|(x, i)| *x == f32::from(i)));
    assert!(columns.next_obs.iter().zip(1_u16..).all(|(x, i)| *x == f32::from(i)));
}
