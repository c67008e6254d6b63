//! Words for devices: `flex`, `ndarray`, `wgpu[:n]`, `cuda[:n]`.

use anyhow::{Result, anyhow, bail};
use mbrl_policy::Device;

/// The words without numbers, and whether each is part of this build.
pub(crate) const WORDS: [(&str, bool); 4] = [
    ("flex", cfg!(feature = "flex")),
    ("ndarray", cfg!(feature = "ndarray")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("cuda", cfg!(feature = "cuda")),
];

/// What a GPU calls itself; `None` for other devices.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn name(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}
#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
pub(crate) fn name(_: &Device) -> Option<String> {
    None
}

/// Opens a device, so that a missing one is noticed before any work begins.
pub(crate) fn open(word: &str) -> Result<Device> {
    let (kind, index) = match word.split_once(':') {
        None => (word, None),
        Some((kind, n)) => {
            let n: usize = n.parse().map_err(|_| anyhow!("device `{word}`: `{n}` is no number of a device"))?;
            (kind, Some(n))
        }
    };
    if index.is_some() && matches!(kind, "flex" | "ndarray") {
        bail!("device `{word}`: {kind} is one device and takes no number");
    }
    match kind {
        "flex" => flex(),
        "ndarray" => ndarray(),
        "wgpu" => wgpu(word, index),
        "cuda" => cuda(word, index),
        _ => bail!("unknown device `{word}`; known devices: flex, ndarray, wgpu[:n], cuda[:n]"),
    }
}

#[allow(dead_code, reason = "every backend may be built in")]
fn not_built(kind: &str) -> Result<Device> {
    bail!("device `{kind}` is not part of this build; build with `--features {kind}`")
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
    use mbrl_policy::Tensor;
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
        Ok((_, sum)) => bail!("device `{word}` computes 1 + 2 = {sum}"),
        Err(_) => bail!("device `{word}` is not available; it needs {needs}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_words_are_named() {
        for (word, expected) in
            [("tpu", "unknown device `tpu`"), ("wgpu:x", "`x` is no number"), ("flex:1", "takes no number")]
        {
            let error = open(word).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_outside_of_the_build_names_its_feature() {
        assert!(open("cuda:1").unwrap_err().to_string().contains("--features cuda"));
    }
}
