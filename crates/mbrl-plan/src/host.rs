//! Between tensors and host numbers.

use burn::tensor::{Device, Tensor, TensorData};

/// The entries of a tensor in row-major order.
pub(crate) fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("data of the type that it was just converted to")
}

/// A tensor of host numbers in row-major order.
pub(crate) fn to_device<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
