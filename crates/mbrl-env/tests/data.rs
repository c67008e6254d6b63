//! Files of other programs become the transitions that are in them, or an error that says where they do not.
#![allow(clippy::result_large_err, reason = "errors of reading say where and what")]
#![cfg(all(feature = "csv", feature = "numpy", feature = "parquet"))]

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use mbrl_env::{
    Replay, Transition,
    data::{self, DataError, EndCause, Layout, Log, Missing, ReadOptions},
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
    // A guess that is no number is none, one of a few cells is an error; switched off, the column means nothing.
    let text = "x,v,u,time\n0,0,1,noon\n1,0,1,morning\n";
    let log = csv(text, &machine()).unwrap();
    assert_eq!(log.report.notes, ["`time` is not used as the time: `noon` is no number"]);
    let named = Layout { time: Some("time".into()), ..machine() };
    let error = csv(text, &named).unwrap_err().to_string();
    assert!(error.contains("line 2, column `time` (time): found `noon`"), "{error}");
    let error = csv(&text.replace("noon", "7").replace("1,0,1,morning\n", "1,0,1,8\n1,0,1,x\n"), &machine());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("line 4, column `time` (taken for: time, by its name): found `x`"), "{error}");
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
    let text = "\u{feff}\r\nx, v ,u,note\r\n\r\n 1.5,\"2\",+3,\"a, b\"\r\n-1e3, .5 ,0,\"x\"\"y\"";
    let log = csv(text, &machine()).unwrap();
    let step = log.replay.get(0).unwrap();
    assert_eq!((step.obs, step.action, step.next_obs), (vec![1.5, 2.0], vec![3.0], vec![-1000.0, 0.5]));
}

#[test]
fn malformed_csv_files_are_named_by_line_and_column() {
    refused("x,v,u\n1,2,3\n1,2\n", &["line 3", "2 fields, expected 3"]);
    refused("x,v,u\n1,2,3\n1,2,3,4\n", &["line 3", "4 fields, expected 3"]);
    refused("x,v,u\n1,2,3\n1,2,abc\n", &["line 3", "column `u`", "found `abc`", "a finite number"]);
    refused("x,v,u\n1,NaN,3\n", &["line 2", "column `v`", "found nothing"]);
    refused("x,v,u\n1,2,3\n-inf,2,3\n", &["line 3", "column `x`", "found -inf"]);
    refused("x,v,u\n1,1e39,3\n", &["line 2", "column `v`", "found 1e39", "32-bit"]);
    refused("x,v,u\n1,2,3\n,2,3\n", &["line 3", "column `x`", "found nothing"]);
    refused("x,v,u,reward\n1,2,,0.5\n1,2,3,1\n", &["line 2", "column `u`", "found nothing", "leaves out the step"]);
    refused("x,v,u,terminated\n1,2,3,2\n", &["line 2", "column `terminated`", "found 2", "true or false"]);
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
        ("missing", "missing: No such file"),
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
    refused(&[obs.clone(), ("actions", &[1], vec![0.0])], &["different lengths: `observations` 3, `actions` 1"]);
    refused(std::slice::from_ref(&obs), &["no column `action_0`; the file has `observations`"]);
    let nan = ("rewards", &[3][..], vec![0.0, f64::NAN, 0.0]);
    refused(&[obs.clone(), actions.clone(), nan], &["row 1 (from 0)", "column `rewards`", "found nothing"]);
    let large = ("observations", &[3, 2][..], vec![0.0, 0.0, 0.0, 0.0, 0.0, 1e300]);
    refused(&[large, actions.clone()], &["row 2 (from 0)", "column `observations`", "32-bit"]);
    let flag = ("terminals", &[3][..], vec![0.0, 0.5, 1.0]);
    refused(&[obs.clone(), actions.clone(), flag], &["row 1", "`terminals`", "found 0.5", "0, 1"]);
    refused(
        &[("observations", &[3, 1, 2], vec![0.0; 6]), actions.clone()],
        &["column `actions`: an array of shape [3]", "expected numbers"],
    );
    refused(&[("observations", &[0, 2], vec![]), ("actions", &[0], vec![])], &["no rows"]);
    for lead in [[0, 3], [4, 0]] {
        let shape = [lead[0], lead[1], 1];
        refused(&[("observations", &shape, vec![]), ("actions", &shape, vec![])], &["no rows"]);
    }
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

/// A pendulum, say: `[x, v, u]` of a row, smooth within an episode, elsewhere at the start of another.
fn state(episode: usize, step: usize) -> [f64; 3] {
    let (phase, t) = (1.7 * episode as f64, 0.1 * step as f64);
    [(t + phase).sin(), (t + phase).cos(), (3.0 * t).sin()]
}

/// `time,x,v,u` at some times.
fn timed(times: &[f64]) -> String {
    let mut text = String::from("time,x,v,u\n");
    for (i, time) in times.iter().enumerate() {
        let [x, v, u] = state(0, i);
        writeln!(text, "{time},{x},{v},{u}").unwrap();
    }
    text
}

fn read_as(name: &str, bytes: &[u8], layout: &Layout, options: &ReadOptions) -> Result<Log, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    data::read_all(&[path], layout, options)
}

#[test]
fn rows_that_do_not_follow_each_other_are_not_joined() {
    let regular: Vec<f64> = (0..60).map(|i| 0.02 * f64::from(i)).collect();
    let log = csv(&timed(&regular), &machine()).unwrap();
    assert_eq!((lengths(&log.replay), log.report.clock.as_ref().unwrap().longest_gap), (vec![59], 0.0));
    assert!((log.period.unwrap() - 0.02).abs() < 1e-9);
    // A row left out; a pause; a second run behind the first.
    let missing: Vec<f64> = regular.iter().copied().enumerate().filter(|(i, _)| *i != 20).map(|(_, t)| t).collect();
    let pause: Vec<f64> = regular.iter().enumerate().map(|(i, t)| t + if i < 30 { 0.0 } else { 980.0 }).collect();
    let twice = [&regular[..30], &regular[..30]].concat();
    for (times, expected, cause) in [
        (&missing, vec![19, 38], EndCause::TimeGap),
        (&pause, vec![29, 29], EndCause::TimeGap),
        (&twice, vec![29, 29], EndCause::TimeBack),
    ] {
        let log = csv(&timed(times), &machine()).unwrap();
        assert_eq!(lengths(&log.replay), expected);
        assert_eq!(log.report.causes, [(cause, 1), (EndCause::File, 1)].into());
    }
    let wide = ReadOptions::default().with_max_gap(2.5);
    assert_eq!(lengths(&read_as("a.csv", timed(&missing).as_bytes(), &machine(), &wide).unwrap().replay), [58]);
    let error = read_as("a.csv", b"x\n", &machine(), &wide.with_max_gap(0.5)).unwrap_err().to_string();
    assert!(error.contains("no column"), "{error}");
    let text = timed(&missing);
    let error = read_as("a.csv", text.as_bytes(), &machine(), &ReadOptions::default().with_max_gap(f64::NAN));
    assert!(error.unwrap_err().to_string().starts_with("max_gap = NaN: expected a number"));

    // A row that comes twice with its time is one row.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(10, lines[9]);
    let log = csv(&lines.join("\n"), &machine()).unwrap();
    assert_eq!((lengths(&log.replay), log.report.repeated_rows), (vec![19, 38], 1));
    // Without a time it may be that nothing moves.
    let still = "x,v,u\n1,0,0\n1,0,0\n1,0,0\n";
    let log = csv(still, &machine()).unwrap();
    assert_eq!((log.replay.len(), log.report.repeated_rows, log.report.equal_rows), (2, 0, 2));
}

#[test]
fn blank_lines_headers_and_rows_in_turns_divide_episodes() {
    let row = |episode: usize, step: usize| {
        let [x, v, u] = state(episode, step);
        format!("{x},{v},{u}\n")
    };
    let block = |episode: usize| (0..10).map(|step| row(episode, step)).collect::<String>();
    let expected = csv(&format!("x,v,u\n{}", block(0)), &machine()).unwrap().replay;
    for between in ["\n", "\n\n", ",,\n", "x,v,u\n", "  \n"] {
        let text = format!("x,v,u\n{}{between}{}", block(0), block(1));
        let log = csv(&text, &machine()).unwrap();
        assert_eq!(lengths(&log.replay), [9, 9], "{between:?}");
        assert_eq!(log.replay.get(3), expected.get(3));
        assert_eq!(log.report.causes[&EndCause::Break], 1);
    }
    // A program that ends its lines twice.
    let text = format!("x,v,u\n{}", block(0)).replace('\n', "\r\r\n");
    assert_eq!(csv(&text, &machine()).unwrap().replay, expected);

    // Three episodes row by row, with and without a column that tells.
    let mut named = String::from("episode,time,x,v,u\n");
    for step in 0..10 {
        for episode in 0..3 {
            write!(named, "{episode},{:.2},{}", 0.02 * step as f64, row(episode, step)).unwrap();
        }
    }
    let unnamed: String = named.lines().map(|line| format!("{}\n", line.split_once(',').unwrap().1)).collect();
    for text in [named, unnamed] {
        let log = csv(&text, &machine()).unwrap();
        assert_eq!(lengths(&log.replay), [9, 9, 9], "{}", log.report);
        assert_eq!(log.replay.get(3), expected.get(3));
        assert!(log.report.clock.is_some());
    }
}

#[test]
fn a_guess_that_fails_is_told_and_costs_nothing() {
    // A temperature, then a counter: the second one is the time.
    let mut text = String::from("x,v,u,step,t\n");
    for i in 0..200 {
        let [x, v, u] = state(0, i);
        writeln!(text, "{x},{v},{u},{i},{}", 20.0 + (0.3 * i as f64).sin()).unwrap();
    }
    let log = csv(&text, &machine()).unwrap();
    assert_eq!((lengths(&log.replay), log.report.sources().as_str()), (vec![199], "no episode column, time `step`"));
    assert!(log.report.notes[0].starts_with("`t` is not used as the time"), "{:?}", log.report.notes);
    // Named, it is an error that names the column.
    let error = csv(&text, &Layout { time: Some("t".into()), ..machine() }).unwrap_err().to_string();
    assert!(error.contains("column `t` (time): it does not rise"), "{error}");
    // An episode column that is another number in each row.
    let log = csv(&text.replace("step,t", "episode,other"), &machine()).unwrap();
    assert_eq!(lengths(&log.replay), [199]);
    assert!(log.report.notes[0].starts_with("`episode` is not an episode column"), "{:?}", log.report.notes);
}

#[test]
fn a_row_that_lacks_a_value_is_refused_or_left_out() {
    let mut rows: Vec<String> = (0..20).map(|i| format!("{},{i},0,1", 0.1 * f64::from(i))).collect();
    let text = |rows: &[String]| format!("time,x,v,u\n{}\n", rows.join("\n"));
    rows[5] = "0.5,NaN,0,1".into();
    rows[6] = "0.6,,0,1".into();
    rows[12] = "1.2,12,0,inf".into();
    let error = csv(&text(&rows), &machine()).unwrap_err().to_string();
    assert!(error.contains("line 7, column `x`: found nothing") && error.contains("3 of 20 rows"), "{error}");
    let drop = ReadOptions::default().with_missing(Missing::Drop);
    let log = read_as("a.csv", text(&rows).as_bytes(), &machine(), &drop).unwrap();
    // Rows 0–4, then 7–11 with 12 as the last observation, then 13–19.
    assert_eq!((lengths(&log.replay), log.report.missing_rows), (vec![4, 5, 6], 3));
    assert_eq!(log.replay.get(8).unwrap().next_obs, [12.0, 0.0]);
    assert_eq!(log.report.causes[&EndCause::MissingValue], 2);
    assert_eq!((log.report.columns[0].missing, log.report.columns[2].missing), (2, 1));
}

#[test]
fn a_last_observation_without_a_step_may_say_nan_everywhere() {
    let csv_text = "x,v,u,reward,terminated\n0,0,1,1,0\n1,0,1,1,1\n2,0,nan,NaN,NaN\n5,0,1,1,0\n6,0,1,1,0\n7,0,NA,,1\n";
    let log = csv(csv_text, &machine()).unwrap();
    assert_eq!((lengths(&log.replay), log.dropped, log.report.ends), (vec![2, 2], 0, 2));
    assert_eq!(log.replay.get(1).unwrap().next_obs, [2.0, 0.0]);
    // The flag of the last observation is that of the step that led to it (RLDS writes it so).
    assert!(log.replay.get(3).unwrap().terminated);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.npz");
    let nan = f64::NAN;
    npz(
        &path,
        &[
            ("observations", &[4, 1], vec![0.0, 1.0, 5.0, 6.0]),
            ("actions", &[4, 1], vec![1.0, nan, 1.0, nan]),
            ("episode", &[4], vec![0.0, 0.0, 1.0, 1.0]),
        ],
    );
    let log = data::read(&path, &Layout::default()).unwrap();
    assert_eq!((lengths(&log.replay), log.dropped), (vec![1, 1], 0));
    // Ends in rows that nothing follows are counted.
    let log = csv("x,v,u,terminated\n0,0,1,0\n1,0,1,1\n5,0,1,0\n6,0,1,0\n7,0,1,1\n", &machine()).unwrap();
    assert_eq!((log.report.ends, log.report.dropped_ends, log.dropped), (0, 2, 2));
}

#[test]
fn arrays_of_episodes_environments_and_one_observation_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.npz");
    let (episodes, steps) = (3, 12);
    let fill = |time_first: bool, n: usize, of: &dyn Fn(usize, usize) -> Vec<f64>| -> Vec<f64> {
        match time_first {
            true => (0..n).flat_map(|t| (0..episodes).flat_map(move |e| of(e, t))).collect(),
            false => (0..episodes).flat_map(|e| (0..n).flat_map(move |t| of(e, t))).collect(),
        }
    };
    let obs = |e: usize, t: usize| state(e, t)[..2].to_vec();
    let act = |e: usize, t: usize| state(e, t)[2..].to_vec();
    let shape = |time_first: bool, n: usize, width: u64| match time_first {
        true => [n as u64, episodes as u64, width],
        false => [episodes as u64, n as u64, width],
    };
    for time_first in [false, true] {
        for more in [0, 1] {
            npz(
                &path,
                &[
                    ("observations", &shape(time_first, steps + more, 2), fill(time_first, steps + more, &obs)),
                    ("actions", &shape(time_first, steps, 1), fill(time_first, steps, &act)),
                    (
                        "rewards",
                        &shape(time_first, steps, 1)[..2],
                        fill(time_first, steps, &|e, t| vec![state(e, t)[0]]),
                    ),
                ],
            );
            let log = data::read(&path, &Layout::default()).unwrap();
            assert_eq!(lengths(&log.replay), [steps - 1 + more; 3], "{}", log.report);
            let second = log.replay.get(steps - 1 + more).unwrap();
            assert_eq!(second.obs, state(1, 0)[..2].iter().map(|x| *x as f32).collect::<Vec<_>>());
            assert_eq!(second.next_obs[0], state(1, 1)[0] as f32);
            assert_eq!(second.reward, state(1, 0)[0]);
        }
    }
    let wrong = ReadOptions::default().with_time_axis(1);
    let log = data::read_all(std::slice::from_ref(&path), &Layout::default(), &wrong);
    assert!(log.unwrap_err().to_string().contains("different lengths"), "13 observations of 3 environments");

    // One episode with one observation more than steps; one environment.
    npz(
        &path,
        &[
            ("observations", &[4, 2], vec![0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0]),
            ("actions", &[3, 1], vec![1.0; 3]),
            ("rewards", &[3], vec![1.0; 3]),
        ],
    );
    let log = data::read(&path, &Layout::default()).unwrap();
    assert_eq!((lengths(&log.replay), log.dropped, log.replay.get(2).unwrap().next_obs[0]), (vec![3], 0, 3.0));
    npz(
        &path,
        &[
            ("observations", &[3, 1, 2], vec![0.0, 0.0, 1.0, 0.0, 2.0, 0.0]),
            ("actions", &[3, 1, 1], vec![1.0; 3]),
            ("dones", &[3, 1], vec![0.0; 3]),
        ],
    );
    assert_eq!(lengths(&data::read(&path, &Layout::default()).unwrap().replay), [2]);
}

#[test]
fn episodes_of_one_length_are_seen_by_their_jumps_and_starts_by_their_flag() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.npz");
    let rows = |of: &dyn Fn(usize, usize) -> Vec<f64>| -> Vec<f64> {
        (0..4).flat_map(|e| (0..25).flat_map(move |t| of(e, t))).collect()
    };
    let obs = ("observations", &[100, 2][..], rows(&|e, t| vec![state(e, t)[0] + 9.0 * e as f64, state(e, t)[1]]));
    let actions = ("actions", &[100, 1][..], rows(&|e, t| vec![state(e, t)[2]]));
    npz(&path, &[obs.clone(), actions.clone()]);
    let log = data::read(&path, &Layout::default()).unwrap();
    assert_eq!(lengths(&log.replay), [24; 4]);
    assert_eq!(log.report.causes[&EndCause::Jump], 3);
    let starts = ("episode_starts", &[100][..], rows(&|e, t| vec![f64::from(u8::from(t == 0 && e != 2))]));
    npz(&path, &[obs, actions, starts]);
    let log = data::read(&path, &Layout::default()).unwrap();
    assert_eq!((lengths(&log.replay), log.report.causes[&EndCause::Start]), (vec![24, 49, 24], 2));
    // Said by hand.
    let by_hand = ReadOptions::default().with_episode_rows(10);
    let text: String = "x,v,u\n".to_owned() + &"1,2,3\n".repeat(25);
    assert_eq!(lengths(&read_as("a.csv", text.as_bytes(), &machine(), &by_hand).unwrap().replay), [9, 9, 4]);
}

#[test]
fn texts_are_read_however_their_fields_are_apart() {
    let rows = [["0.5", "-1.25", "3"], ["1.5", "0.25", "-2"], ["2.5", "1e-3", "0"]];
    let expected = csv("x,v,u\n0.5,-1.25,3\n1.5,0.25,-2\n2.5,1e-3,0\n", &machine()).unwrap().replay;
    let text = |separator: &str, head: &str| {
        let lines: Vec<String> = rows.iter().map(|row| row.join(separator)).collect();
        format!("{}\n{}\n", head.replace(',', separator), lines.join("\n"))
    };
    let utf16 = |text: &str, mark: bool, big: bool| -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    let plain = text(",", "x,v,u");
    let mut gz = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzEncoder::new(plain.as_bytes(), flate2::Compression::default()),
        &mut gz,
    )
    .unwrap();
    for (name, bytes) in [
        ("a.csv", text(";", "x,v,u").into_bytes()),
        ("a.csv", text(";", "x,v,u").replace('.', ",").into_bytes()),
        ("a.csv", "x,v,u\n\"0,5\",\"-1,25\",3\n\"1,5\",\"0,25\",-2\n\"2,5\",\"1e-3\",0\n".as_bytes().to_vec()),
        ("a.tsv", text("\t", "x,v,u").into_bytes()),
        ("a.txt", text("|", "x,v,u").into_bytes()),
        ("a.dat", text("   ", "x,v,u").into_bytes()),
        ("no-extension", plain.clone().into_bytes()),
        ("a.csv", format!("sep=;\r\n{}", text(";", "x,v,u")).into_bytes()),
        ("a.csv", format!("# rig A\n% 50 Hz\n{plain}# the end\n").into_bytes()),
        ("a.csv", plain.replace("x,v,u\n", "x,v,u\nm,m/s,N\n").into_bytes()),
        // As `np.savetxt` writes it.
        ("a.txt", format!("# {}", text(" ", "x,v,u")).into_bytes()),
        ("a.csv", utf16(&plain, true, false)),
        ("a.csv", utf16(&plain, true, true)),
        ("a.csv", utf16(&plain, false, false)),
        ("a.csv.gz", gz.clone()),
        ("a.csv", gz),
        // A separator behind the last field.
        ("a.csv", plain.replace('\n', ",\n").replace("u,", "u").into_bytes()),
    ] {
        let log = read_as(name, &bytes, &machine(), &ReadOptions::default());
        let log = log.unwrap_or_else(|error| panic!("{name} {:?}: {error}", String::from_utf8_lossy(&bytes)));
        assert_eq!(log.replay, expected, "{name} {:?}", String::from_utf8_lossy(&bytes));
    }
    let log = csv(&plain.replace("x,v,u\n", "x,v,u\nm,m/s,N\n"), &machine()).unwrap();
    assert_eq!((log.obs_units, log.action_units), (names(&["m", "m/s"]), names(&["N"])));
    // Without names, or under others.
    let headless = plain.replace("x,v,u\n", "");
    let named = Layout { names: names(&["x", "v", "u"]), ..machine() };
    assert_eq!(csv(&headless, &named).unwrap().replay, expected);
    assert_eq!(csv(&plain.replace('x', "y"), &named).unwrap().replay, expected);
    let error = csv(&headless, &machine()).unwrap_err().to_string();
    assert!(error.contains("line 1 holds numbers") && error.contains("3 columns"), "{error}");
    // Said by hand.
    let tabs = ReadOptions::default().with_delimiter('\t');
    let error = read_as("a.csv", plain.as_bytes(), &machine(), &tabs).unwrap_err().to_string();
    assert!(error.contains("no column `x`"), "{error}");
    // True and false are numbers too.
    let log = csv("x,v,u\nTrue,1,0\nFALSE,0,1\n", &machine()).unwrap();
    assert_eq!((log.replay.get(0).unwrap().obs, log.replay.get(0).unwrap().next_obs), (vec![1.0, 1.0], vec![0.0, 0.0]));
}

#[test]
fn what_is_something_else_is_told_with_a_way_out() {
    let machine = machine();
    let options = ReadOptions::default();
    for (name, bytes, words) in [
        ("a.h5", &b"\x89HDF\r\n\x1a\n____"[..], &["an HDF5 file", "h5py", "np.savez"][..]),
        ("a.xlsx", b"PK\x03\x04____", &["a workbook", "pd.read_excel('", "to_csv"]),
        ("a.zst", b"\x28\xb5\x2f\xfd____", &["packed by zstd", "zstd -d"]),
        ("a.json", b"{\"x\": 1}", &["JSON", "pd.read_json"]),
        ("a.feather", b"ARROW1____", &["a Feather file", "to_parquet"]),
        ("a.csv", b"x,v,u\n1,2\x003\n", &["byte 9 is 0"]),
        ("a.npz", b"x,v,u\n1,2,3\n", &["damaged: not .npz"]),
        ("a.csv.gz", b"\x1f\x8b\x08____", &["damaged gzip file"]),
    ] {
        let error = read_as(name, bytes, &machine, &options).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is missing: {error}");
        }
    }
    // What it is decides, not its name.
    let log = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs/pandas-zstd.parquet");
    let bytes = fs::read(log).unwrap();
    assert_eq!(read_as("a.csv", &bytes, &Layout::default(), &options).unwrap().replay, fixture_log(true));
}

#[test]
fn a_large_position_keeps_its_small_changes() {
    let mut text = String::from("x,v,u\n");
    let x = |i: i32| 5_300_000.0 + 0.001 * f64::from(i % 40 - 20);
    for i in 0..200 {
        writeln!(text, "{:.4},{},0", x(i), f64::from(i)).unwrap();
    }
    let log = csv(&text, &machine()).unwrap();
    assert!((log.obs_offset[0] - 5_300_000.0).abs() < 1.0 && log.obs_offset[1] == 0.0, "{:?}", log.obs_offset);
    assert!(!log.report.columns[0].too_fine);
    let step = log.replay.get(3).unwrap();
    assert!((f64::from(step.next_obs[0] - step.obs[0]) - 0.001).abs() < 1e-6);
    // Another log is read by the same offset.
    let stored = ReadOptions::default().with_obs_offset(log.obs_offset.clone());
    let again = read_as("a.csv", text.as_bytes(), &machine(), &stored).unwrap();
    assert_eq!(again.replay, log.replay);
    let other = ReadOptions::default().with_obs_offset([0.0, 0.0]);
    let plain = read_as("a.csv", text.as_bytes(), &machine(), &other).unwrap();
    assert!(plain.report.columns[0].too_fine && plain.report.to_string().contains("WARNING"), "{}", plain.report);
    assert!(read_as("a.csv", text.as_bytes(), &machine(), &other.with_obs_offset([0.0])).is_err());
}

#[test]
fn angles_are_columns_by_name() {
    let mut text = String::from("x,v,u\n");
    for i in 0..200 {
        let heading = (7.0 * f64::from(i)).rem_euclid(360.0);
        writeln!(text, "{:.4},{heading},{}", (0.1 * f64::from(i)).sin(), f64::from(i).sin()).unwrap();
    }
    let log = csv(&text, &machine()).unwrap();
    assert!(log.angles.is_empty() && log.report.to_string().contains("--angles-deg"), "{}", log.report);
    let layout = Layout { angles: names(&["x"]), angles_deg: names(&["v"]), ..machine() };
    let log = csv(&text, &layout).unwrap();
    let found: Vec<_> = log.angles.iter().map(|a| (a.column, a.turn, a.wraps)).collect();
    assert_eq!(found, [(0, std::f32::consts::TAU, false), (1, 360.0, true)]);
    let error = csv(&text, &Layout { angles: names(&["y"]), ..machine() }).unwrap_err().to_string();
    assert!(error.contains("no column `y`"), "{error}");
}

#[test]
fn an_angle_whose_turns_count_is_unwrapped_along_each_episode() {
    // A joint with a spring, behind an encoder of one turn; two episodes.
    let mut text = String::from("episode,x,v,u\n");
    let mut truth = Vec::new();
    let mut random = mbrl_env::Rng::new(1);
    for episode in 0..2 {
        let (mut angle, mut speed) = (1.0_f64, 0.0_f64);
        for _ in 0..600 {
            let torque = f64::from(random.uniform(-1.0, 1.0));
            let wrapped = (angle + 180.0).rem_euclid(360.0) - 180.0;
            writeln!(text, "{episode},{wrapped},{speed},{torque}").unwrap();
            truth.push(angle);
            speed += 0.1 * (-0.3 * angle - 0.05 * speed + 400.0 * torque);
            angle += 0.1 * speed;
        }
    }
    assert!(truth.iter().any(|angle| angle.abs() > 360.0));
    let layout = Layout { angles_deg: names(&["x"]), ..machine() };
    let log = csv(&text, &layout).unwrap();
    assert!(log.angles.is_empty() && log.layout.multi_turn == ["x"], "{}", log.report);
    assert!(log.report.notes.iter().any(|note| note.contains("the turns of `x` count")));
    for position in [0, 300, 598, 599, 1000] {
        let row = if position < 599 { position } else { position + 1 };
        let found = log.replay.get(position).unwrap();
        assert!(
            (f64::from(found.obs[0]) - truth[row]).abs() < 1e-3
                && (f64::from(found.next_obs[0]) - truth[row + 1]).abs() < 1e-3
        );
    }
    // Another log is read in the same way, however short; one of a compass is not.
    let stored = ReadOptions::default().with_stored(log.layout);
    let again = read_as("a.csv", text.as_bytes(), &Layout::default(), &stored).unwrap();
    assert_eq!(again.replay, log.replay);
    let error = csv(&text, &Layout { multi_turn: names(&["x"]), ..machine() }).unwrap_err().to_string();
    assert!(error.starts_with("multi_turn = x: expected angles"), "{error}");
}

#[test]
fn names_with_commas_and_usual_names_of_others() {
    let text = "time [s],Position [m],\"Velocity (m/s), filtered\",u\n0,0,0,1\n1,1,1,1\n2,2,2,2\n";
    for obs in [&["Position [m]", "Velocity (m/s), filtered"][..], &["Position [m],\"Velocity (m/s), filtered\""]] {
        let log = csv(text, &Layout { obs: names(obs), actions: names(&["u"]), ..Layout::default() }).unwrap();
        assert_eq!(log.layout.obs, names(&["Position [m]", "Velocity (m/s), filtered"]));
        assert_eq!((log.obs_units, log.period), (names(&["m", ""]), Some(1.0)));
    }
    // Rows that are counted say nothing of the time that they take.
    for (column, period) in [("time", Some(1.0)), ("step", None), ("Frame_Index", None)] {
        let text = format!("{column},x,u\n0,0,1\n1,1,1\n2,2,2\n");
        let layout = Layout { obs: names(&["x"]), actions: names(&["u"]), ..Layout::default() };
        let log = csv(&text, &layout).unwrap();
        assert_eq!((log.period, log.report.sources()), (period, format!("no episode column, time `{column}`")));
    }
    let text = "observation.state,action,next.reward,next.done,timestamp,episode_index\n1,1,0.5,0,0.0,0\n2,1,0.5,1,0.1,0\n3,1,0.5,0,0.0,1\n4,1,0.5,1,0.1,1\n";
    let log = csv(text, &Layout::default()).unwrap();
    assert!(log.has_rewards);
    assert_eq!(
        log.report.sources(),
        "episodes by `episode_index`, time `timestamp`, reward `next.reward`, done `next.done`"
    );
}

#[test]
fn folders_patterns_and_what_is_wrong_in_one_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    for i in [1, 2, 10] {
        fs::write(place(&format!("run{i}.csv")), format!("x,v,u\n{i},0,1\n{i}.5,0,1\n")).unwrap();
    }
    fs::write(place("notes.md"), "no log").unwrap();
    fs::write(place("readme.txt"), "no log either").unwrap();
    let options = ReadOptions::default();
    let starts = |paths: &[PathBuf]| -> Vec<f32> {
        let log = data::read_all(paths, &machine(), &options).unwrap();
        assert_eq!(log.report.causes[&EndCause::File], log.report.episodes);
        (0..log.replay.len()).map(|i| log.replay.get(i).unwrap().obs[0]).collect()
    };
    assert_eq!(starts(&[folder.path().to_owned()]), [1.0, 2.0, 10.0]);
    assert_eq!(starts(&[place("run?.csv")]), [1.0, 2.0]);
    assert_eq!(starts(&[place("run10.csv"), place("run*1.csv")]), [10.0, 1.0]);

    let refused = |paths: &[PathBuf], words: &[&str]| {
        let error = data::read_all(paths, &machine(), &options).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is missing: {error}");
        }
    };
    refused(&[place("*.parquet")], &["no file of this pattern"]);
    refused(&[], &["paths = []"]);
    fs::write(place("run3.csv"), "x,v,u\n1,0,1\n2,0\n").unwrap();
    refused(&[folder.path().to_owned()], &["run3.csv, line 3"]);
    fs::write(place("run3.csv"), "x,v,u,reward\n1,0,1,0\n2,0,1,0\n").unwrap();
    refused(&[folder.path().to_owned()], &["run3.csv: reward `reward`, expected none as in the files before"]);
    let empty = tempfile::tempdir().unwrap();
    refused(&[empty.path().to_owned()], &["a folder without a log"]);
}

#[test]
fn a_folder_of_lerobot() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let message = "message log {
        REQUIRED GROUP observation.state (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
        REQUIRED GROUP action (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
        REQUIRED FLOAT timestamp; REQUIRED INT64 frame_index; REQUIRED INT64 episode_index; REQUIRED BOOLEAN next.done;
    }";
    let info = r#"{"codebase_version": "v2.1", "fps": 10, "total_frames": 8, "features": {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["shoulder", "elbow"]}},
        "action": {"dtype": "float32", "shape": [1], "names": ["torque"]}}}"#;
    fs::write(path("meta/info.json"), info).unwrap();
    parquet(&path("meta/tasks.parquet"), "message log { REQUIRED INT64 task; }", |group| {
        column::<parquet::data_type::Int64Type>(group, &[1], None, None);
    });
    for episode in 0..2 {
        let file = path(&format!("data/chunk-000/episode_00000{episode}.parquet"));
        parquet(&file, message, |group| {
            let obs: Vec<f32> = (0..4).flat_map(|t| state(episode, t)[..2].to_vec()).map(|x| x as f32).collect();
            let ones = [1; 8];
            column::<FloatType>(group, &obs, Some(&ones), Some(&[0, 1, 0, 1, 0, 1, 0, 1]));
            column::<FloatType>(group, &[0.5; 4], Some(&ones[..4]), Some(&[0; 4]));
            column::<FloatType>(group, &[0.0, 0.1, 0.2, 0.3], None, None);
            column::<parquet::data_type::Int64Type>(group, &[0, 1, 2, 3], None, None);
            column::<parquet::data_type::Int64Type>(group, &[episode as i64; 4], None, None);
            column::<BoolType>(group, &[false, false, false, true], None, None);
        });
    }
    let log = data::read(folder.path(), &Layout::default()).unwrap();
    assert_eq!((lengths(&log.replay), &log.obs_names), (vec![3, 3], &names(&["shoulder", "elbow"])));
    assert_eq!((log.action_names, log.replay.get(3).unwrap().obs[0]), (names(&["torque"]), state(1, 0)[0] as f32));
    assert!((log.period.unwrap() - 0.1).abs() < 1e-6);
    // Two of them: each has the rows that its own description tells of.
    let other = tempfile::tempdir().unwrap();
    for name in ["meta/info.json", "data/chunk-000/episode_000000.parquet", "data/chunk-000/episode_000001.parquet"] {
        let copy = other.path().join(name);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path(name), copy).unwrap();
    }
    let both = [folder.path().to_owned(), other.path().to_owned()];
    let log = data::read_all(&both, &Layout::default(), &ReadOptions::default()).unwrap();
    assert_eq!(lengths(&log.replay), [3, 3, 3, 3]);
    fs::remove_file(other.path().join("data/chunk-000/episode_000001.parquet")).unwrap();
    let error = data::read_all(&both, &Layout::default(), &ReadOptions::default()).unwrap_err().to_string();
    let described = other.path().join("meta/info.json").display().to_string();
    assert!(error.contains(&format!("{described}: 8 rows by this description, the files hold 4")), "{error}");
    // One file less than the description tells of, and one that is cut.
    let last = path("data/chunk-000/episode_000001.parquet");
    let bytes = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    let error = data::read(folder.path(), &Layout::default()).unwrap_err().to_string();
    assert!(error.contains("info.json: 8 rows by this description, the files hold 4"), "{error}");
    fs::write(&last, &bytes[..bytes.len() - 20]).unwrap();
    let error = data::read(folder.path(), &Layout::default()).unwrap_err().to_string();
    assert!(error.contains("episode_000001.parquet"), "{error}");
}

#[test]
fn parquet_files_whose_rows_are_episodes_and_decimals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.parquet");
    let message = "message log {
        REQUIRED GROUP obs (LIST) { REPEATED GROUP list {
            REQUIRED GROUP element (LIST) { REPEATED GROUP list { REQUIRED DOUBLE element; } } } }
        REQUIRED GROUP action (LIST) { REPEATED GROUP list { REQUIRED DOUBLE element; } }
    }";
    // Episodes of three and of two observations of two numbers; of two steps, and of two.
    parquet(&path, message, |group| {
        let obs: Vec<f64> = (0..10).map(f64::from).collect();
        column::<DoubleType>(group, &obs, Some(&[2; 10]), Some(&[0, 2, 1, 2, 1, 2, 0, 2, 1, 2]));
        column::<DoubleType>(group, &[0.5; 4], Some(&[1; 4]), Some(&[0, 1, 0, 1]));
    });
    let log = data::read(&path, &Layout::default()).unwrap();
    assert_eq!((lengths(&log.replay), log.dropped), (vec![2, 1], 1));
    assert_eq!(log.replay.get(1).unwrap().next_obs, [4.0, 5.0]);
    assert_eq!(log.replay.get(2).unwrap().obs, [6.0, 7.0]);

    let decimal = "message log { REQUIRED INT32 obs (DECIMAL(9, 3)); REQUIRED INT64 action (DECIMAL(18, 1));
        REQUIRED INT64 time (TIMESTAMP(MILLIS, true)); }";
    parquet(&path, decimal, |group| {
        column::<parquet::data_type::Int32Type>(group, &[1500, -250], None, None);
        column::<parquet::data_type::Int64Type>(group, &[5, 5], None, None);
        column::<parquet::data_type::Int64Type>(group, &[1_000_000, 1_000_020], None, None);
    });
    let log = data::read(&path, &Layout::default()).unwrap();
    let step = log.replay.get(0).unwrap();
    assert_eq!((step.obs, step.action, step.next_obs), (vec![1.5], vec![0.5], vec![-0.25]));
    assert!((log.period.unwrap() - 0.02).abs() < 1e-9);
}

#[test]
fn columns_of_another_log_are_taken_where_they_are_there() {
    let stored = csv(
        "run,clock,x,v,u\n1,0,0,0,1\n1,1,1,0,1\n2,0,5,0,1\n2,1,6,0,1\n",
        &Layout { episode: Some("run".into()), time: Some("clock".into()), ..machine() },
    )
    .unwrap();
    let options = ReadOptions::default().with_stored(stored.layout);
    let log = read_as("a.csv", b"x,v,u\n0,0,1\n1,0,1\n", &Layout::default(), &options).unwrap();
    assert_eq!((log.replay.len(), log.report.sources().as_str()), (1, "no episode column, no time"));
    let log = read_as("a.csv", b"run,x,v,u\n0,0,0,1\n1,1,0,1\n1,2,0,1\n", &Layout::default(), &options).unwrap();
    assert_eq!((log.replay.len(), log.report.sources().as_str()), (1, "episodes by `run`, no time"));
    // What is typed must be there.
    let typed = Layout { episode: Some("lap".into()), ..Layout::default() };
    assert!(read_as("a.csv", b"x,v,u\n0,0,1\n1,0,1\n", &typed, &options).is_err());
}
