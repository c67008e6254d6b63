//! Words for devices: `flex`, `ndarray`, `wgpu[:n]`, `cuda[:n]`.

use super::ExperimentError;
use crate::Device;

/// The default device, where tensors live unless an experiment names another.
pub const DEFAULT_DEVICE: &str = "flex";

/// The words for devices, without numbers, and whether each is part of this build.
pub const DEVICES: [(&str, bool); 4] = [
    ("flex", cfg!(feature = "flex")),
    ("ndarray", cfg!(feature = "ndarray")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("cuda", cfg!(feature = "cuda")),
];

type Result<T> = std::result::Result<T, ExperimentError>;

/// The name that a GPU reports; `None` for other devices.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[must_use]
pub fn device_name(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}
/// The name that a GPU reports; `None` for other devices.
#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
#[must_use]
pub fn device_name(_: &Device) -> Option<String> {
    None
}

/// Opens a device by its word, `flex`, `ndarray`, `wgpu[:n]` or `cuda[:n]`, so that a missing one is noticed before any work
/// begins. The crate's features of these names say which are part of a build.
///
/// # Errors
/// [`ExperimentError::Device`] for a word that is not known, and for a device that is not part of this build or not there.
pub fn open_device(word: &str) -> Result<Device> {
    let (kind, index) = match word.split_once(':') {
        None => (word, None),
        Some((kind, n)) => match n.parse::<usize>() {
            Ok(n) => (kind, Some(n)),
            Err(_) => return Err(refused(word, format!("the number of a device behind the colon, found `{n}`"))),
        },
    };
    if index.is_some() && matches!(kind, "flex" | "ndarray") {
        return Err(refused(word, format!("{kind} without a number: it is one device")));
    }
    match kind {
        "flex" => flex(),
        "ndarray" => ndarray(),
        "wgpu" => wgpu(word, index),
        "cuda" => cuda(word, index),
        _ => Err(refused(word, "flex, ndarray, wgpu[:n] or cuda[:n]".into())),
    }
}

fn refused(word: &str, rule: String) -> ExperimentError {
    ExperimentError::Device { word: word.to_owned(), rule }
}

#[allow(dead_code, reason = "every backend may be built in")]
fn not_built(kind: &str) -> Result<Device> {
    let rule = format!("a device of this build; `{kind}` comes with `cargo build --features {kind}`");
    Err(refused(kind, rule))
}

#[cfg(feature = "flex")]
fn flex() -> Result<Device> {
    Ok(Device::flex())
}
#[cfg(not(feature = "flex"))]
fn flex() -> Result<Device> {
    not_built("flex")
}

#[cfg(feature = "ndarray")]
#[allow(deprecated, reason = "a second, independent CPU backend, to compare with")]
fn ndarray() -> Result<Device> {
    Ok(Device::ndarray())
}
#[cfg(not(feature = "ndarray"))]
fn ndarray() -> Result<Device> {
    not_built("ndarray")
}

#[cfg(feature = "wgpu")]
fn wgpu(word: &str, index: Option<usize>) -> Result<Device> {
    use burn::tensor::DeviceKind;
    let kind = index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
    probed(word, "a Vulkan, Metal or DirectX 12 driver", move || Device::wgpu(kind.clone()))
}
#[cfg(not(feature = "wgpu"))]
fn wgpu(_: &str, _: Option<usize>) -> Result<Device> {
    not_built("wgpu")
}

#[cfg(feature = "cuda")]
fn cuda(word: &str, index: Option<usize>) -> Result<Device> {
    probed(word, "an NVIDIA GPU with its driver and the CUDA toolkit", move || Device::cuda(index.unwrap_or(0)))
}
#[cfg(not(feature = "cuda"))]
fn cuda(_: &str, _: Option<usize>) -> Result<Device> {
    not_built("cuda")
}

/// Runs a small computation: the GPU backends open their device with the first one, and panic where there is none.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn probed(word: &str, needs: &str, make: impl FnOnce() -> Device + Send + 'static) -> Result<Device> {
    use crate::Tensor;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let probe = std::thread::spawn(move || {
        let device = make();
        let sum: f32 = Tensor::<1>::from_floats([1.0, 2.0], &device).sum().into_scalar();
        (device, sum)
    })
    .join();
    std::panic::set_hook(hook);
    match probe {
        Ok((device, sum)) if sum == 3.0 => Ok(device),
        Ok((_, sum)) => Err(refused(word, format!("a device that computes 1 + 2 = 3; this one says {sum}"))),
        Err(_) => Err(refused(word, format!("a device of this machine; this one needs {needs}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_words_are_named() {
        for (word, expected) in
            [("tpu", "\"tpu\": expected flex, "), ("wgpu:x", "found `x`"), ("flex:1", "without a number")]
        {
            let error = open_device(word).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_outside_of_the_build_names_its_feature() {
        assert!(open_device("cuda:1").unwrap_err().to_string().contains("--features cuda"));
    }
}
