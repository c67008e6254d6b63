//! Reads settings out of a TOML table so that each error carries the dotted name of its key.
//!
//! TOML's own reader names lines, which `--set` and resolved experiments do not have, and reports an unknown key without the
//! nearest known one.

use mbrl_env::nearest::suggest;
use std::fmt::{self, Display};

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
        Unexpected, VariantAccess, Visitor, value::SeqDeserializer,
    },
    forward_to_deserialize_any,
};
use toml::{Table, Value};

use super::ExperimentError;

/// Reads a value of any type from a table, below `path` (empty for a whole experiment).
pub(super) fn read<T: DeserializeOwned>(table: Table, path: &str) -> Result<T, ExperimentError> {
    T::deserialize(Setting(Value::Table(table))).map_err(|fault| fault.under(path, true).into())
}

/// Reads with a given function, which treats the settings in its own way.
pub(super) fn read_by<T>(table: Table, by: impl FnOnce(Setting) -> Result<T, Fault>) -> Result<T, ExperimentError> {
    by(Setting(Value::Table(table))).map_err(Into::into)
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    /// Dotted name of the value at fault; empty for the one being read.
    path: String,
    /// Whether the path leads to the value itself rather than to a table around it.
    exact: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Unknown { field: String, known: &'static [&'static str] },
    Missing { field: &'static str },
    Wrong { found: String, expected: String },
    Other(String),
}

impl Fault {
    fn new(what: What) -> Self {
        Self { path: String::new(), exact: true, what }
    }

    fn wrong(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(What::Wrong { found: found.into(), expected: expected.into() })
    }

    /// The fault as seen from one level up; `is_table` where the key holds a table.
    fn under(mut self, key: &str, is_table: bool) -> Self {
        if self.path.is_empty() && is_table {
            self.exact = false;
        }
        self.path = join(key, &self.path);
        self
    }
}

fn join(head: &str, tail: &str) -> String {
    [head, tail].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

impl From<Fault> for ExperimentError {
    fn from(fault: Fault) -> Self {
        let Fault { path, exact, what } = fault;
        match what {
            What::Unknown { field, known } => {
                let known: Vec<String> = known.iter().map(|name| join(&path, name)).collect();
                let key = join(&path, &field);
                let mut hint = suggest(&key, known.iter().map(String::as_str));
                if hint.is_empty() && !known.is_empty() {
                    hint = format!("; known keys: {}", known.join(", "));
                }
                Self::UnknownKey { key, hint }
            }
            What::Missing { field } => Self::Missing { what: format!("key `{}`", join(&path, field)) },
            What::Wrong { found, expected } if exact => Self::Value { key: path, value: found, rule: expected },
            What::Wrong { found, expected } => Self::ValueIn { section: path, value: found, rule: expected },
            What::Other(reason) => Self::Refused { key: path, reason },
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        Self::new(What::Other(text.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(described(found), plain(expected))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(described(found), plain(expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = suggest(variant, expected.iter().copied());
        Self::wrong(format!("{variant:?}"), format!("one of {}{hint}", expected.join(", ")))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::Unknown { field: field.to_owned(), known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Missing { field })
    }
}

/// A value as it would be typed.
fn described(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(word) => format!("{word:?}"),
        Unexpected::Signed(n) => n.to_string(),
        Unexpected::Unsigned(n) => n.to_string(),
        Unexpected::Float(x) => format!("{x:?}"),
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

/// The names of Rust's types mean nothing to someone who writes TOML.
fn plain(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, at least 0".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        _ if text.starts_with("struct ") => "a table".into(),
        _ => text,
    }
}

/// A value of a TOML document.
pub(super) struct Setting(Value);

impl<'de> IntoDeserializer<'de, Fault> for Setting {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Setting {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(word) => visitor.visit_string(word),
            Value::Integer(n) => visitor.visit_i64(n),
            Value::Float(x) => visitor.visit_f64(x),
            Value::Boolean(b) => visitor.visit_bool(b),
            Value::Datetime(date) => visitor.visit_string(date.to_string()),
            Value::Array(values) => {
                let mut sequence = SeqDeserializer::new(values.into_iter().map(Setting));
                let read = visitor.visit_seq(&mut sequence)?;
                sequence.end()?;
                Ok(read)
            }
            Value::Table(table) => visitor.visit_map(Entries { rest: table.into_iter(), next: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let forms = || format!("one of {}", variants.join(", "));
        match self.0 {
            Value::String(word) => visitor.visit_enum(Variant { word, content: None }),
            Value::Table(table) if table.len() == 1 => {
                let mut entries = table.into_iter();
                let Some((word, content)) = entries.next() else { return Err(Fault::wrong("a table", forms())) };
                visitor.visit_enum(Variant { word, content: Some(content) })
            }
            other => Err(Fault::wrong(other.to_string(), forms())),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// A word, or a table of one entry: `"every-step"`, `{ every = 3 }`.
struct Variant {
    word: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let name = seed.deserialize(self.word.as_str().into_deserializer())?;
        Ok((name, self))
    }
}

impl Variant {
    /// The value of a variant that has one.
    fn content(self) -> Result<Setting, Fault> {
        let Self { word, content } = self;
        content.map(Setting).ok_or_else(|| Fault::wrong(format!("{word:?}"), format!("{{ {word} = … }}")))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Fault::wrong(format!("{{ {} = … }}", self.word), format!("{:?}", self.word))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_any(visitor)
    }
}

/// The entries of a table. Faults in a value are reported with its key.
struct Entries {
    rest: toml::map::IntoIter<String, Value>,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.next = self.rest.next();
        let Some((key, _)) = &self.next else { return Ok(None) };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((key, value)) = self.next.take() else { return Err(de::Error::custom("a value without a key")) };
        let is_table = value.is_table();
        seed.deserialize(Setting(value)).map_err(|fault| fault.under(&key, is_table))
    }
}
