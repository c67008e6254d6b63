//! Frames as PNG files, still and animated.

use std::{
    io::{self, Write},
    path::Path,
};

use png::{BitDepth, ColorType, Encoder, EncodingError};

use crate::{EnvError, Frame, atomic_file};

impl Frame {
    /// The picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// [`EnvError::Config`] for a picture without pixels, which PNG cannot hold.
    pub fn png(&self) -> Result<Vec<u8>, EnvError> {
        self.check_not_empty()?;
        let mut bytes = Vec::new();
        let mut write = || {
            let mut writer = encoder(&mut bytes, self).write_header()?;
            writer.write_image_data(self.rgb())?;
            writer.finish()
        };
        write().map_err(|error| EnvError::Stream { what: "picture", source: io_error(error) })?;
        Ok(bytes)
    }

    /// Writes a PNG file; an existing one survives a failure.
    ///
    /// # Errors
    /// [`EnvError::Io`], and those of [`png`](Self::png).
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), EnvError> {
        let (path, bytes) = (path.as_ref(), self.png()?);
        atomic_file::write_bytes(path, &bytes).map_err(|source| EnvError::Io { path: path.to_owned(), source })
    }

    fn check_not_empty(&self) -> Result<(), EnvError> {
        if self.width() > 0 && self.height() > 0 {
            return Ok(());
        }
        let value = format!("{} × {}", self.width(), self.height());
        Err(EnvError::Config { field: "size", value, rule: "at least one pixel" })
    }
}

/// Writes frames of one size as an animated PNG that repeats for ever, `period` seconds per frame (rounded to a millisecond).
/// Browsers show it like any picture; programs without support for animation show the first frame.
///
/// The frames are requested one by one, so they need not fit into memory. The file is moved into its place once it is complete.
///
/// ```
/// use mbrl_env::{EnvError, Frame, write_animation};
///
/// let folder = std::env::temp_dir().join("mbrl-doc-animation");
/// std::fs::create_dir_all(&folder).unwrap();
/// let grey = |level: u8| Frame::new(4, 2, vec![level; 4 * 2 * 3]);
/// write_animation(folder.join("brighter.png"), 0.04, (0..50).map(|i| grey(5 * i)))?;
/// # Ok::<(), EnvError>(())
/// ```
///
/// # Errors
/// [`EnvError::Config`] for no frame, a frame of another size, or a period that is not between 1 ms and 65 s;
/// [`EnvError::Io`]; and that of a frame.
pub fn write_animation(
    path: impl AsRef<Path>,
    period: f64,
    frames: impl ExactSizeIterator<Item = Result<Frame, EnvError>>,
) -> Result<(), EnvError> {
    let path = path.as_ref();
    let milliseconds = (1e3 * period).round();
    if !(1.0..=f64::from(u16::MAX)).contains(&milliseconds) {
        return Err(EnvError::Config {
            field: "period",
            value: period.to_string(),
            rule: "a time between 0.001 and 65 s",
        });
    }
    let refused = |value: String, rule| EnvError::Config { field: "frames", value, rule };
    let count = u32::try_from(frames.len()).map_err(|_| refused(frames.len().to_string(), "fewer than 2^32"))?;
    let mut frames = frames;
    let first = frames.next().ok_or_else(|| refused("none".into(), "at least one"))??;
    first.check_not_empty()?;
    let broken = |source| EnvError::Io { path: path.to_owned(), source };
    let failed = |error| broken(io_error(error));
    atomic_file::write(path, broken, |output| {
        let mut encoder = encoder(output, &first);
        encoder.set_animated(count, 0).map_err(failed)?;
        encoder.set_frame_delay(milliseconds as u16, 1000).map_err(failed)?;
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(first.rgb()).map_err(failed)?;
        for frame in frames {
            let frame = frame?;
            if (frame.width(), frame.height()) != (first.width(), first.height()) {
                let value = format!("one of {} × {}", frame.width(), frame.height());
                return Err(refused(value, "frames of the first one's size"));
            }
            writer.write_image_data(frame.rgb()).map_err(failed)?;
        }
        writer.finish().map_err(failed)
    })
}

fn encoder<'a, W: Write + 'a>(output: W, frame: &Frame) -> Encoder<'a, W> {
    let mut encoder = Encoder::new(output, frame.width(), frame.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder
}

fn io_error(error: EncodingError) -> io::Error {
    match error {
        EncodingError::IoError(source) => source,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::BufReader};

    use super::*;

    fn frame(width: u32, height: u32, level: u8) -> Frame {
        let bytes = 3 * width * height;
        Frame::new(width, height, (0..bytes).map(|i| (i as u8).wrapping_add(level)).collect()).unwrap()
    }

    /// Frames, and the delay of the last one in seconds.
    fn read(path: &Path) -> (Vec<Frame>, f64) {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
        let count = reader.info().animation_control().map_or(1, |control| control.num_frames);
        let mut delay = 0.0;
        let frames = (0..count).map(|_| {
            let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut bytes).unwrap();
            if let Some(control) = reader.info().frame_control() {
                delay = f64::from(control.delay_num) / f64::from(control.delay_den);
            }
            Frame::new(info.width, info.height, bytes).unwrap()
        });
        (frames.collect(), delay)
    }

    #[test]
    fn pictures_are_read_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("still.png");
        frame(5, 3, 7).write_png(&path).unwrap();
        assert_eq!(read(&path).0, [frame(5, 3, 7)]);
        let path = folder.path().join("moving.png");
        write_animation(&path, 0.04, (0..4).map(|i| Ok(frame(5, 3, i)))).unwrap();
        assert_eq!(read(&path), ((0..4).map(|i| frame(5, 3, i)).collect(), 0.04));
    }

    #[test]
    fn a_failure_leaves_the_file_that_was_there_and_no_remains() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("moving.png");
        frame(2, 2, 0).write_png(&path).unwrap();
        let told = |result: Result<(), EnvError>| result.unwrap_err().to_string();
        let broken = |i| if i < 2 { Ok(frame(2, 2, i)) } else { Err(EnvError::NoPicture { env: "x".into() }) };
        assert_eq!(told(write_animation(&path, 0.1, (0..3).map(broken))), "x draws no pictures");
        let grows = |i: u8| Ok(frame(2, 2 + u32::from(i), i));
        assert!(told(write_animation(&path, 0.1, (0..3).map(grows))).contains("2 × 3"));
        assert!(told(write_animation(&path, 0.1, (0..0).map(grows))).contains("none"));
        for period in [0.0, -1.0, f64::NAN, 100.0] {
            assert!(told(write_animation(&path, period, (0..1).map(grows))).contains("period"));
        }
        assert!(told(frame(0, 2, 0).write_png(&path)).contains("0 × 2"));
        assert_eq!(read(&path).0, [frame(2, 2, 0)]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = folder.path().join("missing").join("a.png");
        assert!(told(frame(2, 2, 0).write_png(&nowhere)).contains("a.png"));
    }
}
