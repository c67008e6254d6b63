//! Helpers for black-box tests: a folder, commands run in it, and their output.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Map, Value};

/// A smaller budget than that of `smoke`, under its name: two random episodes, two fits, a few plans.
pub(crate) const QUICK: [&str; 10] = [
    "--set",
    "name=smoke",
    "--set",
    "steps=500",
    "--set",
    "planner.population=8",
    "--set",
    "planner.elites=2",
    "--set",
    "fit.max_epochs=2",
];

/// A separate folder, removed after the test.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// `mbrl` with these arguments, in this folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mbrl"));
        command.current_dir(self.0.path()).args(words);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Said {
        Said::of(&self.command(words).output().unwrap())
    }

    /// `mbrl` with a limit on the size of files in blocks (512 or 1024 bytes, as the shell counts): a full disk.
    #[cfg(unix)]
    pub(crate) fn run_in_blocks(&self, blocks: u32, words: &[&str]) -> Said {
        let mut command = Command::new("sh");
        // If ignored, the signal becomes an error of the write.
        let script = r#"trap "" XFSZ; ulimit -f "$0" && exec "$@""#;
        command.current_dir(self.0.path()).args(["-c", script, &blocks.to_string(), env!("CARGO_BIN_EXE_mbrl")]);
        Said::of(&command.args(words).output().unwrap())
    }

    /// `mbrl train smoke` with a quick budget.
    pub(crate) fn train(&self, words: &[&str]) -> Said {
        self.run(&[&["train", "smoke"], &QUICK[..], words].concat())
    }

    /// The lines of a run's metrics, without wall-clock times.
    pub(crate) fn metrics(&self, run: &str) -> Vec<Map<String, Value>> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| {
                let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
                for key in mbrl_policy::WALL_TIME_KEYS {
                    line.remove(key);
                }
                line
            })
            .collect()
    }

    /// Every file in this folder and below, with its content.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(self.0.path(), &mut files);
        files
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            collect(&path, files);
        } else {
            let bytes = fs::read(&path).unwrap();
            files.insert(path, bytes);
        }
    }
}

/// The output of a command, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// An error that names every one of `words`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is missing: {self:#?}");
        }
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }
}
