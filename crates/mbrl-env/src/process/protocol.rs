//! The messages on the pipes: frames, and the specification that the process sends of its environment. `docs/process-protocol.md`
//! describes them for those who write the other side.

use serde::Deserialize;

use super::ProcessFault;
use crate::{ActionSpace, BoxSpace, EnvSpec, Field, FieldKind};

/// The version spoken here.
pub(super) const PROTOCOL: u32 = 1;
/// Precedes the first frame of the process.
pub(super) const MAGIC: &[u8] = b"\x89mbrl-env\r\n";
/// Largest frame (bytes): an observation of eight million numbers. The first four bytes of a text, read as a length, give more.
pub(super) const MAX_FRAME: usize = 64 << 20;
/// How much a process may print before it says hello (bytes).
pub(super) const MAX_PREAMBLE: usize = 1 << 20;

pub(super) const HELLO: u8 = 1;
pub(super) const RESET: u8 = 2;
pub(super) const STEP: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const SPEC: u8 = 17;
pub(super) const OBSERVATION: u8 = 18;
pub(super) const TRANSITION: u8 = 19;
pub(super) const ERROR: u8 = 20;

/// The name of a kind of frame, for messages.
pub(super) fn kind_name(kind: u8) -> String {
    match kind {
        SPEC => "a specification".into(),
        OBSERVATION => "the observation of a reset".into(),
        TRANSITION => "the outcome of a step".into(),
        ERROR => "an error".into(),
        other => format!("a message of the unknown kind {other}"),
    }
}

/// Begins a frame in `out`; [`end`] completes it.
pub(super) fn begin(out: &mut Vec<u8>, kind: u8) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
}

/// Writes the length of the frame in `out`.
pub(super) fn end(out: &mut [u8]) {
    // Frames sent are far below the limit: an action, a seed or a short text.
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_le_bytes());
}

/// Reads a payload from the front.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], ProcessFault> {
        match self.0.split_at_checked(count) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => {
                let reason = format!("{count} more bytes were expected where {} are left", self.0.len());
                Err(ProcessFault::Malformed { reason })
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProcessFault> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ProcessFault> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn count(&mut self) -> Result<usize, ProcessFault> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn f64(&mut self) -> Result<f64, ProcessFault> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// So many doubles, each rounded once.
    pub(super) fn rounded(&mut self, count: usize) -> Result<Vec<f32>, ProcessFault> {
        let bytes = self.take(count.saturating_mul(8))?;
        let (numbers, _) = bytes.as_chunks::<8>();
        Ok(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect())
    }

    pub(super) fn finish(self) -> Result<(), ProcessFault> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(ProcessFault::Malformed { reason: format!("{} bytes too many", self.0.len()) })
    }
}

#[derive(Debug, Deserialize)]
struct Told {
    protocol: u32,
}

/// What a process reports about its environment.
#[derive(Debug, Deserialize)]
pub(super) struct ToldSpec {
    name: String,
    observation: ToldColumns,
    action: ToldAction,
    control_period: Option<f64>,
    max_steps: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct ToldColumns {
    fields: Vec<ToldField>,
    low: Vec<Option<f64>>,
    high: Vec<Option<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum ToldAction {
    Box(ToldColumns),
    Discrete { n: usize, fields: Vec<ToldField> },
}

#[derive(Debug, Deserialize)]
struct ToldField {
    name: String,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    shape: Vec<usize>,
    #[serde(default)]
    kind: ToldKind,
    turn: Option<f32>,
    #[serde(default)]
    wraps: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ToldKind {
    #[default]
    Linear,
    Angle,
    Flag,
    Pixels,
}

impl ToldField {
    fn field(self) -> Field {
        let mut field = Field::linear(self.name, self.unit).with_shape(self.shape);
        field.kind = match self.kind {
            ToldKind::Linear => FieldKind::Linear,
            ToldKind::Angle => {
                let turn = self.turn.unwrap_or(if &*field.unit == "deg" { 360.0 } else { std::f32::consts::TAU });
                FieldKind::Angle { turn, wraps: self.wraps }
            }
            ToldKind::Flag => FieldKind::Flag,
            ToldKind::Pixels => FieldKind::Pixels,
        };
        field
    }
}

impl ToldSpec {
    /// Reads the JSON of a specification.
    pub(super) fn read(json: &[u8]) -> Result<Self, ProcessFault> {
        let reason = |error: serde_json::Error| ProcessFault::Spec { reason: error.to_string() };
        let told: Told = serde_json::from_slice(json).map_err(reason)?;
        if told.protocol != PROTOCOL {
            return Err(ProcessFault::Version { found: told.protocol });
        }
        serde_json::from_slice(json).map_err(reason)
    }

    /// As an environment's specification; `period` (s) is that of the options, which overrides the process.
    pub(super) fn spec(self, period: Option<f64>) -> Result<EnvSpec, ProcessFault> {
        const HUGE: usize = 1 << 23;
        let refuse = |reason: String| Err(ProcessFault::Spec { reason });
        if self.name.trim().is_empty() || self.name.contains(char::is_control) {
            return refuse(format!("name {:?}, expected a word", self.name));
        }
        let ToldColumns { fields, low, high } = self.observation;
        let bound = |bound: &Option<f64>, none: f32| bound.map_or(none, |bound| bound as f32);
        let lows: Vec<f32> = low.iter().map(|low| bound(low, f32::NEG_INFINITY)).collect();
        let highs: Vec<f32> = high.iter().map(|high| bound(high, f32::INFINITY)).collect();
        if lows.is_empty() || lows.len() > HUGE {
            return refuse(format!("an observation of {} columns, expected 1 to {HUGE}", lows.len()));
        }
        let told = |error: crate::EnvError| ProcessFault::Spec { reason: error.to_string() };
        let obs = BoxSpace::new(lows, highs).map_err(told)?;
        let (actions, action_fields) = match self.action {
            ToldAction::Discrete { n: 0, .. } => return refuse("0 discrete actions, expected some".into()),
            ToldAction::Discrete { n, fields } => (ActionSpace::Discrete(n), fields),
            ToldAction::Box(ToldColumns { fields, low, high }) => {
                if low.is_empty() {
                    return refuse("an action without columns, expected at least one".into());
                }
                let all = |bounds: &[Option<f64>], none: f32| bounds.iter().map(|b| bound(b, none)).collect::<Vec<_>>();
                let (low, high) = (all(&low, f32::NEG_INFINITY), all(&high, f32::INFINITY));
                (ActionSpace::Box(BoxSpace::new(low, high).map_err(told)?), fields)
            }
        };
        let period = period.or(self.control_period).unwrap_or(1.0);
        if !(period > 0.0 && period.is_finite()) {
            return refuse(format!("control period {period} s, expected a positive number"));
        }
        if self.max_steps == Some(0) {
            return refuse("max_steps 0, expected at least 1, or nothing".into());
        }
        let all = |fields: Vec<ToldField>| fields.into_iter().map(ToldField::field).collect::<Vec<_>>();
        let spec = EnvSpec::new(self.name, obs, actions, period).with_fields(all(fields));
        let mut spec = spec.and_then(|spec| spec.with_action_fields(all(action_fields))).map_err(told)?;
        spec.max_steps = self.max_steps;
        Ok(spec)
    }
}
