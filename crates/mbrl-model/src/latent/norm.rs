//! What keeps latents at one scale: on the host, with a backward pass, and in Burn.

use burn::tensor::{Tensor, activation};

use super::config::{GROUP, LatentNorm};
use crate::vmath;

/// Added to a variance before its root is taken.
const FLOOR: f32 = 1e-5;

impl LatentNorm {
    /// Normalises rows of `width` in place. `scales` gets what [`back`](Self::back) needs besides.
    pub(super) fn forward(self, rows: &mut [f32], width: usize, scales: &mut Vec<f32>) {
        scales.clear();
        match self {
            Self::Layer => {
                for row in rows.chunks_exact_mut(width) {
                    let mean = row.iter().sum::<f32>() / width as f32;
                    row.iter_mut().for_each(|x| *x -= mean);
                    let variance = row.iter().map(|x| x * x).sum::<f32>() / width as f32;
                    let scale = 1.0 / (variance + FLOOR).sqrt();
                    row.iter_mut().for_each(|x| *x *= scale);
                    scales.push(scale);
                }
            }
            Self::Simplex => {
                for group in rows.chunks_exact_mut(GROUP) {
                    let most = group.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
                    group.iter_mut().for_each(|x| *x = vmath::exp(*x - most));
                    let share = 1.0 / group.iter().sum::<f32>();
                    group.iter_mut().for_each(|x| *x *= share);
                }
            }
        }
    }

    /// Gradients of what came out, normalised as `rows`, become those of what went in.
    #[cfg(feature = "train")]
    pub(super) fn back(self, rows: &[f32], width: usize, scales: &[f32], gradients: &mut [f32]) {
        match self {
            Self::Layer => {
                let rows = rows.chunks_exact(width).zip(scales);
                for ((row, scale), gradients) in rows.zip(gradients.chunks_exact_mut(width)) {
                    let mean = gradients.iter().sum::<f32>() / width as f32;
                    let along = gradients.iter().zip(row).map(|(g, x)| g * x).sum::<f32>() / width as f32;
                    gradients.iter_mut().zip(row).for_each(|(g, x)| *g = scale * (*g - mean - along * x));
                }
            }
            Self::Simplex => {
                for (group, gradients) in rows.chunks_exact(GROUP).zip(gradients.chunks_exact_mut(GROUP)) {
                    let along: f32 = gradients.iter().zip(group).map(|(g, x)| g * x).sum();
                    gradients.iter_mut().zip(group).for_each(|(g, x)| *g = x * (*g - along));
                }
            }
        }
    }

    /// The same of `[N, width]` in Burn.
    pub(super) fn tensor(self, rows: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Layer => {
                let centred = rows.clone() - rows.mean_dim(1);
                let variance = centred.clone().square().mean_dim(1);
                centred / (variance + FLOOR).sqrt()
            }
            Self::Simplex => {
                let [count, width] = rows.dims();
                activation::softmax(rows.reshape([count * width / GROUP, GROUP]), 1).reshape([count, width])
            }
        }
    }

    /// Whether a step adds to a latent.
    pub(super) fn adds(self) -> bool {
        self == Self::Layer
    }
}
