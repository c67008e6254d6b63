//! `mbrl doctor`: what this build and this machine can do, what is missing, and how to get it.

use std::{fs, io::Write as _, path::Path, process::Command};

use anyhow::Result;

use mbrl_policy::experiment::{DEFAULT_DEVICE, DEVICES, device_name, open_device};

use crate::console;

/// Prints the findings. `true` if the default device of experiments works.
pub(crate) fn examine() -> Result<bool> {
    let profile = if cfg!(debug_assertions) { "debug build: slow; `cargo build --release`" } else { "release build" };
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    console::out(format_args!("mbrl {} ({profile}), {os} {arch}", env!("CARGO_PKG_VERSION")))?;

    console::out("\ndevices:")?;
    let mut works = false;
    for (word, built_in) in DEVICES {
        let found = if built_in { open_device(word).map(|device| device_name(&device)) } else { Ok(None) };
        works |= word == DEFAULT_DEVICE && built_in && found.is_ok();
        let default = if word == DEFAULT_DEVICE { " (default)" } else { "" };
        line(
            word,
            &match found {
                _ if !built_in => {
                    format!("not part of this build: cargo build --release --features {word}{}", needs(word))
                }
                Ok(Some(name)) => format!("works: {name}{default}"),
                Ok(None) => format!("works{default}"),
                Err(error) => format!("{}{}", console::chain(&error.into()), needs(word)),
            },
        )?;
    }

    console::out("\nmachine:")?;
    line("threads", &std::thread::available_parallelism().map_or("unknown".into(), |n| n.to_string()))?;
    line("processor", &processor())?;
    line("memory", &memory().map_or("unknown".into(), |(free, all)| format!("{} of {} free", gib(free), gib(all))))?;
    line("disk", &free_disk().map_or("unknown".into(), |free| format!("{} free in this folder", gib(free))))?;
    line(
        "runs/",
        &match writable(Path::new("runs")) {
            Ok(()) => "can be written".into(),
            Err(error) => format!("cannot be written ({error}); give `mbrl train` another place by --out"),
        },
    )?;
    line("MuJoCo", &mujoco())?;

    if !works {
        console::out(format_args!("\nthe default device, {DEFAULT_DEVICE}, does not work"))?;
    }
    Ok(works)
}

fn line(name: &str, text: &str) -> Result<()> {
    console::out(format_args!("  {name:<10} {text}"))
}

/// What a device needs besides the build.
fn needs(word: &str) -> &'static str {
    match word {
        "wgpu" if cfg!(target_os = "linux") => {
            "\n             needs a Vulkan driver; without a GPU, Debian's mesa-vulkan-drivers and libvulkan1 give one in \
             software"
        }
        "cuda" => "\n             needs an NVIDIA GPU with its driver and the CUDA toolkit",
        _ => "",
    }
}

/// The engine of this build, and the folder of its models.
#[cfg(feature = "mujoco")]
fn mujoco() -> String {
    mbrl_env::mujoco::about().unwrap_or_else(|error| format!("{error}{NEWLINE}to fetch what is missing: {GET_MUJOCO}"))
}

/// How to get the engine.
#[cfg(not(feature = "mujoco"))]
fn mujoco() -> String {
    let build = "cargo build --release --features mujoco";
    match std::env::var_os(MUJOCO_FOLDER) {
        None => format!("not part of this build: {GET_MUJOCO}{NEWLINE}then {build}"),
        Some(folder) if holds_mujoco(Path::new(&folder)) => {
            format!("not part of this build: {build}{NEWLINE}the library is in {}", Path::new(&folder).display())
        }
        Some(folder) => format!(
            "not part of this build, and {MUJOCO_FOLDER} = {}{NEWLINE}holds no {}: {GET_MUJOCO}{NEWLINE}then {build}",
            Path::new(&folder).display(),
            libmujoco()
        ),
    }
}

/// Fetches library and models, and sets the variables that say where they are.
const GET_MUJOCO: &str = r#"eval "$(crates/mbrl-env/scripts/get-mujoco)""#;
/// Pads to the column where a line's text begins.
const NEWLINE: &str = "\n             ";

/// The path in which the linker looks for the library.
#[cfg(not(feature = "mujoco"))]
const MUJOCO_FOLDER: &str = "MUJOCO_DYNAMIC_LINK_DIR";

/// The file that the linker needs.
#[cfg(not(feature = "mujoco"))]
fn libmujoco() -> String {
    let (prefix, extension) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_EXTENSION);
    format!("{prefix}mujoco.{extension}")
}

#[cfg(not(feature = "mujoco"))]
fn holds_mujoco(folder: &Path) -> bool {
    folder.join(libmujoco()).is_file()
}

/// The vector instructions that the roll-out engine can use here (see `multiversion` in `mbrl-model`).
#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    // The names must be literals.
    macro_rules! detect {
        ($($name:tt)*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    let features = detect!("avx2" "fma" "avx512f" "avx512vl" "avx512bw" "avx512dq");
    let present: Vec<&str> = features.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    let chosen = match present.len() {
        6 => "avx512",
        _ if present.contains(&"avx2") && present.contains(&"fma") => "avx2",
        _ => "baseline x86-64",
    };
    format!(
        "{}; roll-outs run on {chosen}",
        if present.is_empty() { "neither avx2 nor avx512".into() } else { present.join(" ") }
    )
}
#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    "the compiler's baseline for this architecture".into()
}

/// Free and installed memory (bytes), if the system has `/proc/meminfo`.
fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib =
        |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok());
    Some((kib("MemAvailable:")? * 1024, kib("MemTotal:")? * 1024))
}

/// Free space on the disk of the current folder (bytes), if the system has POSIX's `df`.
fn free_disk() -> Option<u64> {
    let output = Command::new("df").args(["-Pk", "."]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Whether files can be created in a folder or, if it does not exist, whether it can be created.
fn writable(folder: &Path) -> std::io::Result<()> {
    let name = format!(".mbrl-doctor-{}", std::process::id());
    if folder.exists() {
        let probe = folder.join(name);
        let written = fs::File::create_new(&probe).and_then(|mut file| file.write_all(b"probe"));
        let removed = fs::remove_file(&probe);
        written.and(removed)
    } else {
        fs::create_dir(&name).and_then(|()| fs::remove_dir(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_found_out_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        writable(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // A regular file, in which nobody can create a file, not even root.
        let file = folder.path().join("runs");
        fs::write(&file, "").unwrap();
        assert!(writable(&file).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_disk_are_plausible() {
        let (free, all) = memory().unwrap();
        assert!(0 < free && free <= all);
        assert!(free_disk().is_some());
    }
}
