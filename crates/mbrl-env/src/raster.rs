//! Sketches as pictures, on the CPU: a camera view for tasks that have no renderer.

use std::fmt;

use crate::{EnvError, Frame, Role, Shape, Sketch};

/// Draws sketches as pictures of one size, with smooth edges: a pixel shows the share of it that a shape covers, so even a movement
/// of less than a pixel is visible.
///
/// ```
/// use mbrl_env::{Raster, Role, Shape, Sketch};
///
/// // A disc of radius 1 in the middle of 4 × 4 metres, 8 × 8 pixels.
/// let disc = Shape::Disc { role: Role::Body, at: [0.0, 0.0], radius: 1.0 };
/// let sketch = Sketch { view: [-2.0, -2.0, 2.0, 2.0], shapes: vec![disc] };
/// let pixels = Raster::gray(8, 8)?.draw(&sketch);
/// assert_eq!((pixels.len(), pixels[0], pixels[8 * 4 + 4]), (64, 0, 255));
/// // Of radius 1 m, π of 16 m²: as much of the picture is bright.
/// let bright = pixels.iter().map(|x| f32::from(*x) / 255.0).sum::<f32>() / 64.0;
/// assert!((bright - std::f32::consts::PI / 16.0).abs() < 0.01, "{bright}");
/// # Ok::<(), mbrl_env::EnvError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Raster {
    width: usize,
    height: usize,
    channels: usize,
}

impl Raster {
    /// Gray pictures, one byte per pixel.
    ///
    /// # Errors
    /// [`EnvError::Config`] for a side of 0 or above 4096 pixels.
    pub fn gray(width: usize, height: usize) -> Result<Self, EnvError> {
        Self::new(width, height, 1)
    }

    /// Coloured pictures, three bytes per pixel: red, green and blue.
    ///
    /// # Errors
    /// As [`gray`](Self::gray).
    pub fn coloured(width: usize, height: usize) -> Result<Self, EnvError> {
        Self::new(width, height, 3)
    }

    fn new(width: usize, height: usize, channels: usize) -> Result<Self, EnvError> {
        const MOST: usize = 4096;
        for (field, value) in [("width", width), ("height", height)] {
            if !(1..=MOST).contains(&value) {
                let rule = "a number of pixels from 1 to 4096";
                return Err(EnvError::Config { field, value: value.to_string(), rule });
            }
        }
        Ok(Self { width, height, channels })
    }

    /// Shape of a picture, `[height, width, channels]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    /// The picture, `[height, width, channels]`, from the top. The sketch's view lies in its middle, as large as it fits.
    #[must_use]
    pub fn draw(&self, sketch: &Sketch) -> Vec<u8> {
        let [x0, y0, x1, y1] = sketch.view;
        // Metres per pixel.
        let scale = ((x1 - x0) / self.width as f32).max((y1 - y0) / self.height as f32).max(f32::MIN_POSITIVE);
        let (left, top) =
            (0.5 * (x0 + x1) - 0.5 * scale * self.width as f32, 0.5 * (y0 + y1) + 0.5 * scale * self.height as f32);
        let mut picture = vec![0.0_f32; self.width * self.height * self.channels];
        for shape in &sketch.shapes {
            let paint = self.paint(shape);
            for (i, pixel) in picture.chunks_exact_mut(self.channels).enumerate() {
                let (row, column) = (i / self.width, i % self.width);
                let at = [left + scale * (column as f32 + 0.5), top - scale * (row as f32 + 0.5)];
                // The edge runs through the pixel where its middle is less than half a pixel away.
                let covered = (0.5 - distance(shape, at) / scale).clamp(0.0, 1.0);
                for (value, paint) in pixel.iter_mut().zip(paint) {
                    *value += covered * (paint - *value);
                }
            }
        }
        picture.iter().map(|value| (255.0 * value).round() as u8).collect()
    }

    /// The picture as a [`Frame`]: a gray picture has its level in all three colours.
    ///
    /// # Errors
    /// None for a picture of this size.
    pub fn frame(&self, sketch: &Sketch) -> Result<Frame, EnvError> {
        let pixels = self.draw(sketch);
        let rgb = if self.channels == 3 { pixels } else { pixels.into_iter().flat_map(|level| [level; 3]).collect() };
        Frame::new(self.width as u32, self.height as u32, rgb)
    }

    /// Red, green and blue, or the level of gray, from 0 to 1.
    fn paint(&self, shape: &Shape) -> [f32; 3] {
        let role = match shape {
            Shape::Line { role, .. } | Shape::Disc { role, .. } | Shape::Polygon { role, .. } => role,
        };
        let (gray, colour) = match role {
            Role::Body => (1.0, [1.0, 1.0, 1.0]),
            Role::Goal => (0.4, [0.2, 0.7, 0.3]),
            Role::Obstacle => (0.6, [0.8, 0.25, 0.2]),
            Role::Ground => (0.5, [0.4, 0.5, 0.7]),
        };
        if self.channels == 3 { colour } else { [gray; 3] }
    }
}

impl fmt::Debug for Raster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raster({} × {} × {})", self.height, self.width, self.channels)
    }
}

/// How far a point is from the edge of a shape, negative inside.
fn distance(shape: &Shape, at: [f32; 2]) -> f32 {
    match shape {
        Shape::Line { points, width, .. } => {
            let legs = points.windows(2).map(|ends| to_segment(at, ends[0], ends[1]));
            legs.fold(f32::INFINITY, f32::min) - 0.5 * width
        }
        Shape::Disc { at: centre, radius, .. } => (at[0] - centre[0]).hypot(at[1] - centre[1]) - radius,
        Shape::Polygon { points, .. } => {
            let edges = || points.iter().zip(points.iter().cycle().skip(1));
            let near = edges().map(|(from, to)| to_segment(at, *from, *to)).fold(f32::INFINITY, f32::min);
            // A ray to the right crosses the edge of a shape an odd number of times if the point is inside.
            let crossed = edges().filter(|(from, to)| {
                (from[1] > at[1]) != (to[1] > at[1])
                    && at[0] < from[0] + (at[1] - from[1]) / (to[1] - from[1]) * (to[0] - from[0])
            });
            if crossed.count() % 2 == 1 { -near } else { near }
        }
    }
}

/// How far a point is from a segment.
fn to_segment(at: [f32; 2], from: [f32; 2], to: [f32; 2]) -> f32 {
    let (along, aside) = ([to[0] - from[0], to[1] - from[1]], [at[0] - from[0], at[1] - from[1]]);
    let square = along[0] * along[0] + along[1] * along[1];
    let share = if square > 0.0 { (aside[0] * along[0] + aside[1] * along[1]) / square } else { 0.0 };
    let share = share.clamp(0.0, 1.0);
    (aside[0] - share * along[0]).hypot(aside[1] - share * along[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32) -> Sketch {
        let points = vec![[x, -1.0], [x + 2.0, -1.0], [x + 2.0, 1.0], [x, 1.0]];
        Sketch { view: [-4.0, -4.0, 4.0, 4.0], shapes: vec![Shape::Polygon { role: Role::Body, points }] }
    }

    #[test]
    fn an_edge_that_moves_by_a_part_of_a_pixel_shows_in_that_part() {
        // One pixel per metre: the square covers columns 4 and 5, rows 3 and 4.
        let raster = Raster::gray(8, 8).unwrap();
        let at = |x: f32, row: usize, column: usize| raster.draw(&square(x))[row * 8 + column];
        assert_eq!([3, 4, 5, 6].map(|column| at(0.0, 3, column)), [0, 255, 255, 0]);
        assert_eq!([3, 4, 5, 6].map(|column| at(0.25, 3, column)), [0, 191, 255, 64]);
        assert_eq!(at(0.0, 2, 4), 0);
    }

    #[test]
    fn up_is_up_and_the_view_keeps_its_proportions() {
        let high = Shape::Disc { role: Role::Body, at: [0.0, 0.8], radius: 0.1 };
        let sketch = Sketch { view: [-1.0, -1.0, 1.0, 1.0], shapes: vec![high] };
        // Twice as wide as high: the view is in the middle half.
        let pixels = Raster::gray(40, 20).unwrap().draw(&sketch);
        let brightest = (0..pixels.len()).max_by_key(|i| pixels[*i]).unwrap();
        assert!((1..=2).contains(&(brightest / 40)) && (19..=20).contains(&(brightest % 40)), "{brightest}");
        let coloured = Raster::coloured(40, 20).unwrap().draw(&sketch);
        assert_eq!(coloured.len(), 3 * pixels.len());
        assert_eq!(coloured[3 * brightest], pixels[brightest]);
        let error = Raster::gray(0, 20).unwrap_err().to_string();
        assert_eq!(error, "width = 0: expected a number of pixels from 1 to 4096");
    }
}
