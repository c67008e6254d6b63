//! Frames between a driver and a robot; described in `docs/robot-protocol.md`.

use super::{Acted, Measurement, SafeCommand};

/// Version of the protocol.
pub const WIRE_VERSION: u16 = 1;
/// Longest body of a frame in bytes: longer ones are not frames.
const LONGEST_FRAME: usize = 1 << 16;

const HELLO: u8 = 1;
const COMMAND: u8 = 2;
const MEASUREMENT: u8 = 3;
const STOP: u8 = 4;
const OVER: u8 = 1;
const UNKNOWN: u64 = u64::MAX;
const ITSELF: u64 = u64::MAX - 1;

/// What a robot says about itself when a driver connects.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// Version of the protocol that it speaks.
    pub version: u16,
    /// Width of its observations.
    pub obs: u16,
    /// Width of its commands.
    pub actions: u16,
    /// Its control period (s).
    pub period: f64,
    /// Its name.
    pub name: String,
}

/// A frame, as the other end reads it.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// A robot introduces itself.
    Hello(Hello),
    /// A command of a control period.
    Command {
        /// Number of the control period.
        tick: u64,
        /// The command, `[A]`.
        action: Vec<f32>,
    },
    /// A measurement.
    Measurement(Measurement),
    /// An emergency stop.
    Stop {
        /// Number of the control period.
        tick: u64,
    },
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend(body);
    frame.extend(crc32fast::hash(body).to_le_bytes());
    frame
}

fn put(body: &mut Vec<u8>, values: &[f32]) {
    body.extend(u16::try_from(values.len()).unwrap_or(u16::MAX).to_le_bytes());
    values.iter().for_each(|value| body.extend(value.to_le_bytes()));
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![HELLO];
        body.extend(self.version.to_le_bytes());
        body.extend(self.obs.to_le_bytes());
        body.extend(self.actions.to_le_bytes());
        body.extend(self.period.to_le_bytes());
        body.extend(self.name.as_bytes());
        framed(&body)
    }
}

impl SafeCommand {
    /// The frame of the command.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![if self.action().is_some() { COMMAND } else { STOP }];
        body.extend(self.tick().to_le_bytes());
        if let Some(action) = self.action() {
            put(&mut body, action);
        }
        framed(&body)
    }
}

impl Measurement {
    /// The frame of the measurement, without session and snapshot.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = vec![MEASUREMENT];
        body.extend(self.sequence.to_le_bytes());
        body.extend(self.time.to_le_bytes());
        let acted = match self.acted {
            Acted::Unknown => UNKNOWN,
            Acted::Itself => ITSELF,
            Acted::Command(tick) => tick,
        };
        body.extend(acted.to_le_bytes());
        body.push(if self.over { OVER } else { 0 });
        put(&mut body, &self.obs);
        framed(&body)
    }
}

/// Takes bytes as they come and gives frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words that follow "sent". Nothing that comes after is a frame for sure: connect anew.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let Some(length) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > LONGEST_FRAME {
            return Err(format!("a frame of {length} bytes, expected 1 to {LONGEST_FRAME}"));
        }
        if self.bytes.len() < length + 8 {
            return Ok(None);
        }
        let rest = self.bytes.split_off(length + 8);
        let frame = std::mem::replace(&mut self.bytes, rest);
        let (body, sum) = frame[4..].split_at(length);
        if sum != crc32fast::hash(body).to_le_bytes() {
            return Err("a frame whose checksum is wrong".to_owned());
        }
        let mut body = Body(body);
        let kind = body.u8()?;
        let frame = match kind {
            HELLO => Frame::Hello(Hello {
                version: body.u16()?,
                obs: body.u16()?,
                actions: body.u16()?,
                period: f64::from_bits(body.u64()?),
                name: String::from_utf8_lossy(std::mem::take(&mut body.0)).replace(char::is_control, ""),
            }),
            COMMAND => Frame::Command { tick: body.u64()?, action: body.floats()? },
            STOP => Frame::Stop { tick: body.u64()? },
            MEASUREMENT => {
                let (sequence, time) = (body.u64()?, f64::from_bits(body.u64()?));
                let acted = match body.u64()? {
                    UNKNOWN => Acted::Unknown,
                    ITSELF => Acted::Itself,
                    tick => Acted::Command(tick),
                };
                let over = body.u8()? & OVER != 0;
                let obs = body.floats()?;
                Frame::Measurement(Measurement { sequence, time, obs, acted, over, ..Measurement::default() })
            }
            other => return Err(format!("a frame of the unknown kind {other}")),
        };
        if !body.0.is_empty() {
            return Err(format!("a frame of kind {kind} with {} bytes too many", body.0.len()));
        }
        Ok(Some(frame))
    }
}

/// What is left of a body.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("a frame that ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.take().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }

    fn floats(&mut self) -> Result<Vec<f32>, String> {
        let count = self.u16()?;
        (0..count).map(|_| self.take().map(f32::from_le_bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<Frame>, String> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        // Byte by byte: a socket cuts where it likes.
        for byte in bytes {
            decoder.take(&[*byte]);
            frames.extend(decoder.next_frame()?);
        }
        Ok(frames)
    }

    #[test]
    fn what_is_sent_is_what_arrives_however_it_is_cut() {
        let hello = Hello { version: 1, obs: 3, actions: 2, period: 0.02, name: "arm é".into() };
        let mut measured = Measurement::new(7, -1.5, [0.25, f32::NAN, f32::NEG_INFINITY]).with_over(true);
        let mut bytes = hello.encode();
        bytes.extend(measured.encode());
        measured.acted = Acted::Command(41);
        bytes.extend(measured.encode());
        measured.acted = Acted::Itself;
        bytes.extend(measured.encode());
        let frames = decoded(&bytes).unwrap();
        assert_eq!(frames.len(), 4);
        assert!(matches!(&frames[0], Frame::Hello(found) if *found == hello));
        for (frame, acted) in frames[1..].iter().zip([Acted::Unknown, Acted::Command(41), Acted::Itself]) {
            let Frame::Measurement(found) = frame else { panic!("{frame:?}") };
            assert_eq!((found.sequence, found.time, found.over, found.acted), (7, -1.5, true, acted));
            let bits = |obs: &[f32]| obs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found.obs), bits(&measured.obs));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let good = Measurement::new(1, 0.0, [1.0]).encode();
        let mut flipped = good;
        flipped[9] ^= 1;
        assert!(decoded(&flipped).unwrap_err().contains("checksum"));
        assert!(decoded(&[0, 0, 0, 0]).unwrap_err().contains("0 bytes"));
        assert!(decoded(&[255; 4]).unwrap_err().contains("4294967295 bytes"));
        assert!(decoded(&framed(&[9])).unwrap_err().contains("unknown kind 9"));
        assert!(decoded(&framed(&[STOP, 1, 2])).unwrap_err().contains("too early"));
        assert!(decoded(&framed(&[STOP, 0, 0, 0, 0, 0, 0, 0, 0, 5])).unwrap_err().contains("1 bytes too many"));
        // A vector that says it is longer than the frame.
        assert!(decoded(&framed(&[COMMAND, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0])).unwrap_err().contains("too early"));
    }
}
