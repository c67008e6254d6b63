//! Pictures that an environment draws of itself.

use crate::EnvError;

/// A picture: `height` rows of `width` pixels, from the top, three bytes per pixel: red, green and blue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Frame {
    /// A picture from its bytes, `[height, width, 3]`.
    ///
    /// # Errors
    /// [`EnvError::Width`] for a wrong number of bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, EnvError> {
        crate::check_width("picture", 3 * width as usize * height as usize, rgb.len())?;
        Ok(Self { width, height, rgb })
    }

    /// Pixels per row.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}
