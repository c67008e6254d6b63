//! The file form of a replay: little-endian, versioned, with a checksum.
//!
//! ```text
//! magic "MBRL.RPL"                         8 bytes
//! version                                  u32
//! O, A, capacity, N, episodes E, running   6 × u64
//! episode lengths                          E × u64
//! obs [N, O], actions [N, A]               f32, bit patterns
//! rewards [N]                              f64, bit patterns
//! next_obs [N, O]                          f32, bit patterns
//! terminated + 2 · truncated [N]           u8
//! CRC-32 of everything before              u32
//! ```

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
};

use crc32fast::Hasher;

use super::{Replay, seen::Seen};
use crate::{EnvError, atomic_file};

const MAGIC: &[u8; 8] = b"MBRL.RPL";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 6 * 8;

impl Replay {
    /// Writes everything, so that [`load`](Self::load) restores the same bits. Observations [in bytes](Self::in_bytes) are written, and
    /// read, as numbers.
    ///
    /// # Errors
    /// [`EnvError::Stream`].
    pub fn save(&self, output: &mut impl Write) -> Result<(), EnvError> {
        self.write(output).map_err(stream)
    }

    /// Reads what [`save`](Self::save) wrote, and nothing beyond it.
    ///
    /// # Errors
    /// [`EnvError::Malformed`] for data that is truncated, damaged, of another kind or of a newer version;
    /// [`EnvError::Stream`] where reading fails.
    pub fn load(input: &mut impl Read) -> Result<Self, EnvError> {
        let mut header = Vec::new();
        let mut input = input;
        (&mut input).take(HEADER as u64).read_to_end(&mut header).map_err(stream)?;
        if !header.starts_with(MAGIC) && !MAGIC.starts_with(&header) {
            let found = String::from_utf8_lossy(&header[..header.len().min(8)]).escape_debug().to_string();
            return malformed(format!("not a replay: begins with `{found}`, expected `MBRL.RPL`"));
        }
        // The version comes before the length: a newer header may be shorter.
        if let Some(version) = header.get(8..12) {
            let version = u32::from_le_bytes(version.try_into().expect("4 bytes"));
            if version != VERSION {
                return malformed(format!("format version {version}, this program reads version {VERSION}"));
            }
        }
        if header.len() < HEADER {
            return malformed(format!("truncated: {} bytes, the header has {HEADER}", header.len()));
        }
        let sizes = Sizes::parse(&header[12..]);
        let Some(payload) = sizes.payload() else {
            return malformed(format!("impossible sizes: {sizes:?}"));
        };
        // `take` allocates as data arrives, so damaged sizes do not request memory that is not needed.
        let mut body = Vec::new();
        (&mut input).take(payload + 4).read_to_end(&mut body).map_err(stream)?;
        if (body.len() as u64) < payload + 4 {
            let (actual, expected) = (HEADER + body.len(), HEADER as u64 + payload + 4);
            return malformed(format!("truncated: {actual} bytes, expected {expected}"));
        }
        let (body, checksum) = body.split_at(body.len() - 4);
        let mut crc = Hasher::new();
        crc.update(&header);
        crc.update(body);
        let (stored, computed) = (u32::from_le_bytes(checksum.try_into().expect("4 bytes")), crc.finalize());
        if stored != computed {
            return malformed(format!("damaged: checksum {computed:08x}, expected {stored:08x}"));
        }
        Self::from_body(&sizes, body)
    }

    /// [`save`](Self::save) into a file, which is moved into its place once it is complete, so an existing file
    /// survives a failure.
    ///
    /// # Errors
    /// [`EnvError::Io`], naming the file.
    pub fn save_file(&self, path: impl AsRef<Path>) -> Result<(), EnvError> {
        let path = path.as_ref();
        let failed = |source| EnvError::Io { path: path.to_owned(), source };
        atomic_file::write(path, failed, |output| self.write(output).map_err(failed))
    }

    /// [`load`](Self::load) from a file, which must hold nothing else.
    ///
    /// # Errors
    /// [`EnvError::Format`] or [`EnvError::Io`], naming the file.
    pub fn load_file(path: impl AsRef<Path>) -> Result<Self, EnvError> {
        let path = path.as_ref();
        let io_error = |source| EnvError::Io { path: path.to_owned(), source };
        let format_error = |reason| EnvError::Format { path: path.to_owned(), reason };
        let mut input = BufReader::new(File::open(path).map_err(io_error)?);
        let replay = Self::load(&mut input).map_err(|error| match error {
            EnvError::Stream { source, .. } => io_error(source),
            EnvError::Malformed { reason, .. } => format_error(reason),
            other => other,
        })?;
        match input.read(&mut [0]).map_err(io_error)? {
            0 => Ok(replay),
            _ => Err(format_error("goes on after the end of the replay".into())),
        }
    }

    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let mut output = Checked { inner: output, crc: Hasher::new() };
        let all = self.columns();
        output.write_all(MAGIC)?;
        output.write_all(&VERSION.to_le_bytes())?;
        let sizes = [
            self.obs_width,
            self.action_width,
            self.capacity,
            self.len(),
            self.episodes.len(),
            usize::from(self.running),
        ];
        for size in sizes.iter().chain(&self.episodes) {
            output.write_all(&(*size as u64).to_le_bytes())?;
        }
        // In blocks, so that an unbuffered writer is not called for every number.
        let mut block = Vec::new();
        for column in [&all.obs, &all.actions] {
            write_blocks(&mut output, &mut block, column, |x| x.to_le_bytes())?;
        }
        write_blocks(&mut output, &mut block, &all.rewards, |x| x.to_le_bytes())?;
        write_blocks(&mut output, &mut block, &all.next_obs, |x| x.to_le_bytes())?;
        let flags: Vec<u8> =
            all.terminated.iter().zip(&*all.truncated).map(|(e, c)| u8::from(*e) + 2 * u8::from(*c)).collect();
        output.write_all(&flags)?;
        let checksum = output.crc.finalize();
        output.inner.write_all(&checksum.to_le_bytes())?;
        output.inner.flush()
    }

    /// A replay from a body whose length and checksum are right.
    fn from_body(sizes: &Sizes, body: &[u8]) -> Result<Self, EnvError> {
        let Sizes { obs_width, action_width, capacity, len, episodes, running } = *sizes;
        let mut rest = body;
        let mut take = |count: u64| {
            let (part, after) = rest.split_at(count as usize);
            rest = after;
            part
        };
        let mut replay = Self::new(obs_width as usize, action_width as usize, capacity as usize)
            .or_else(|_| malformed(format!("impossible sizes: {sizes:?}")))?;
        replay.episodes = numbers(take(8 * episodes), u64::from_le_bytes).map(|n| n as usize).collect();
        replay.running = running == 1;
        replay.pushed = len;
        let obs = numbers(take(4 * len * obs_width), f32::from_le_bytes).collect();
        replay.actions = numbers(take(4 * len * action_width), f32::from_le_bytes).collect();
        replay.rewards = numbers(take(8 * len), f64::from_le_bytes).collect();
        let next = numbers(take(4 * len * obs_width), f32::from_le_bytes).collect();
        replay.seen = Seen::Numbers { obs, next };
        let flags = take(len);
        replay.terminated = flags.iter().map(|flag| flag & 1 != 0).collect();
        replay.truncated = flags.iter().map(|flag| flag & 2 != 0).collect();

        let summed = replay.episodes.iter().try_fold(0_usize, |sum, &length| sum.checked_add(length));
        if summed != Some(replay.len()) || replay.episodes.contains(&0) {
            return malformed(format!("the episodes do not add up to its {len} transitions"));
        }
        Ok(replay)
    }
}

/// The numbers of the header.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    obs_width: u64,
    action_width: u64,
    capacity: u64,
    len: u64,
    episodes: u64,
    running: u64,
}

impl Sizes {
    fn parse(bytes: &[u8]) -> Self {
        let mut numbers = numbers(bytes, u64::from_le_bytes);
        let mut next = || numbers.next().expect("the header is whole");
        Self {
            obs_width: next(),
            action_width: next(),
            capacity: next(),
            len: next(),
            episodes: next(),
            running: next(),
        }
    }

    /// Bytes between header and checksum; `None` where no file can have that many, or the sizes contradict each
    /// other.
    fn payload(&self) -> Option<u64> {
        if self.len > self.capacity || self.episodes > self.len || self.running > 1 {
            return None;
        }
        let row = self.obs_width.checked_mul(8)?.checked_add(self.action_width.checked_mul(4)?)?.checked_add(8 + 1)?;
        let total = row.checked_mul(self.len)?.checked_add(self.episodes.checked_mul(8)?)?;
        (total < isize::MAX as u64 - 4).then_some(total)
    }
}

fn numbers<'a, T, const N: usize>(bytes: &'a [u8], parse: impl Fn([u8; N]) -> T + 'a) -> impl Iterator<Item = T> + 'a {
    bytes.chunks_exact(N).map(move |chunk| parse(chunk.try_into().expect("chunks of N bytes")))
}

fn write_blocks<T: Copy, const N: usize>(
    output: &mut impl Write,
    block: &mut Vec<u8>,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    for chunk in values.chunks(8192) {
        block.clear();
        block.extend(chunk.iter().flat_map(|&value| bytes(value)));
        output.write_all(block)?;
    }
    Ok(())
}

fn stream(source: io::Error) -> EnvError {
    EnvError::Stream { what: "replay", source }
}

fn malformed<T>(reason: String) -> Result<T, EnvError> {
    Err(EnvError::Malformed { what: "replay", reason })
}

/// A writer that keeps the checksum of the bytes that it has passed on.
struct Checked<'a, W> {
    inner: &'a mut W,
    /// CRC-32 as in zip and PNG (ISO 3309: reflected, polynomial 0x04C11DB7).
    crc: Hasher,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_data_shorter_than_the_magic_is_refused() {
        for (bytes, expected) in [(&b"{}"[..], "begins with `{}`"), (b"", "truncated: 0 bytes"), (b"MBR", "3 bytes")] {
            let error = Replay::load(&mut &bytes[..]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_checksum_is_the_standard_crc_32() {
        let mut written = Vec::new();
        let mut output = Checked { inner: &mut written, crc: Hasher::new() };
        output.write_all(b"1234").unwrap();
        output.write_all(b"56789").unwrap();
        // CRC-32/ISO-HDLC in catalogues of CRCs.
        assert_eq!(output.crc.finalize(), 0xCBF4_3926);
    }
}
