//! Pixels as the first convolution wants them.

use super::config::Shapes;

/// Where the numbers of a frame go in the rows of the first convolution.
///
/// Rows of an image are squares in the order in which later convolutions join them, 2 × 2 at a time: the inputs of such a convolution
/// then lie side by side in the outputs of the one before it, and no number moves between two convolutions.
#[derive(Debug, Clone)]
pub(super) struct Patches {
    /// Place of each number of the first frame in an image's rows; those of the next frame follow at a distance of `stride`.
    places: Vec<usize>,
    /// Numbers of one frame in a square.
    stride: usize,
    frames: usize,
}

impl Patches {
    pub(super) fn new(shapes: &Shapes, patch: usize, convolutions: usize, frames: usize) -> Self {
        let [height, width, channels] = shapes.image;
        let stride = patch * patch * channels;
        let mut places = Vec::with_capacity(shapes.pixels());
        for y in 0..height {
            for x in 0..width {
                let square = order([y / patch, x / patch], width / patch, convolutions - 1);
                let within = (y % patch * patch + x % patch) * channels;
                places.extend((0..channels).map(|c| square * stride * frames + within + c));
            }
        }
        Self { places, stride, frames }
    }

    /// Numbers of an image of all frames.
    pub(super) fn len(&self) -> usize {
        self.places.len() * self.frames
    }

    /// Puts a frame of an image, the oldest being 0, into its rows.
    pub(super) fn put<T: Copy>(&self, frame: &[T], number: usize, image: &mut [f32], scale: impl Fn(T) -> f32) {
        for (value, place) in frame.iter().zip(&self.places) {
            image[place + number * self.stride] = scale(*value);
        }
    }
}

/// Number of the square in row and column `[y, x]` of a grid, where `joins` times 2 × 2 neighbours follow each other.
fn order([y, x]: [usize; 2], columns: usize, joins: usize) -> usize {
    if joins == 0 {
        return y * columns + x;
    }
    let side = 1 << joins;
    let block = y / side * (columns / side) + x / side;
    let within = (0..joins).fold(0, |sum, bit| sum | (x >> bit & 1) << (2 * bit) | (y >> bit & 1) << (2 * bit + 1));
    (block << (2 * joins)) + within
}

/// An intensity from 0 to 255, as networks see it.
pub(super) fn scaled(level: f32) -> f32 {
    level / 255.0 - 0.5
}

/// The nearest byte to an intensity.
#[cfg(feature = "train")]
pub(super) fn byte(level: f32) -> u8 {
    // Saturating, and 0 of a NaN.
    level.round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_joined_lie_side_by_side() {
        // 8 × 16 pixels, squares of 2: a grid of 4 × 8 that is joined twice, into 1 × 2 places.
        let shapes = Shapes { image: [8, 16, 1], middle: vec![], half_range: vec![] };
        let patches = Patches::new(&shapes, 2, 3, 2);
        assert_eq!(patches.len(), 2 * 8 * 16);
        let mut image = vec![-1.0; patches.len()];
        let frame: Vec<usize> = (0..8 * 16).collect();
        patches.put(&frame, 0, &mut image, |i| i as f32);
        patches.put(&frame, 1, &mut image, |i| 1000.0 + i as f32);
        // Each number once, and the second frame beside the first.
        let mut sorted = image.clone();
        sorted.sort_by(f32::total_cmp);
        assert!(sorted[..128].iter().enumerate().all(|(i, v)| *v == i as f32));
        for square in image.chunks(8) {
            assert_eq!(square[..4].iter().map(|v| v + 1000.0).collect::<Vec<_>>(), square[4..]);
        }
        // The squares of each group, of whatever size, cover a square of pixels.
        for (count, side) in [(1, 2), (4, 4), (16, 8)] {
            for group in image.chunks(8 * count) {
                let of: Vec<usize> = group.iter().filter(|v| **v < 1000.0).map(|v| *v as usize).collect();
                let (ys, xs): (Vec<_>, Vec<_>) = of.iter().map(|i| (i / 16, i % 16)).unzip();
                for values in [ys, xs] {
                    let (low, high) = (values.iter().min().unwrap(), values.iter().max().unwrap());
                    assert_eq!((low % side, high - low), (0, side - 1), "{count}");
                }
            }
        }
    }
}
