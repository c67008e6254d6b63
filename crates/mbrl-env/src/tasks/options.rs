//! Options of a task: plain data in any format.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        self, IntoDeserializer, Visitor,
        value::{Error, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use crate::EnvError;

/// Options of a task by name: plain data, converted from any format.
///
/// ```
/// use mbrl_env::tasks::{self, Options};
/// use serde::Deserialize;
///
/// let options = Options::deserialize(serde_json::json!({ "edge": 1.0 }))?; // or of toml::Table, and so on
/// assert_eq!(options, Options::new().with("edge", 1.0));
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// Infinite numbers are kept if the format has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Options(BTreeMap<String, OptionValue>);

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a boolean, a number, a text, a list or a map")]
#[non_exhaustive]
pub enum OptionValue {
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Any other number, infinities included.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<OptionValue>),
    /// Named values.
    Map(BTreeMap<String, OptionValue>),
    /// Nothing, as JSON's `null`.
    Nothing,
}

impl Options {
    /// No options: each keeps its default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more option, or another value for an existing one.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<OptionValue>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Without the options with these names.
    #[must_use]
    pub fn without(mut self, names: &[&str]) -> Self {
        self.0.retain(|name, _| !names.contains(&name.as_str()));
        self
    }

    /// Whether there are no options.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of an option.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.0.get(name)
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OptionValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The options as a configuration of the task `task`; with `#[serde(default, deny_unknown_fields)]` on it, options that are left out
    /// keep their defaults and unknown ones are refused.
    ///
    /// # Errors
    /// [`EnvError::Options`], naming task and option.
    pub fn read<'de, T: Deserialize<'de>>(&'de self, task: &str) -> Result<T, EnvError> {
        T::deserialize(map(&self.0)).map_err(|error| refused(task, &error))
    }

    /// Refuses all options, for a task that takes none.
    ///
    /// # Errors
    /// [`EnvError::Options`] if there is one, naming it.
    pub fn expect_none(&self, task: &str) -> Result<(), EnvError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(option) => {
                let reason = format!("unknown option `{option}`, this task takes none");
                Err(EnvError::Options { task: task.to_owned(), reason })
            }
        }
    }

    /// The options of the task `task` from any format.
    pub(super) fn of<'de, D: Deserializer<'de>>(task: &str, options: D) -> Result<Self, EnvError> {
        Self::deserialize(options).map_err(|error| refused(task, &error))
    }
}

fn refused(task: &str, error: &dyn fmt::Display) -> EnvError {
    // Some formats put the location on a separate line.
    let reason = error.to_string().trim_end().replace('\n', " ");
    EnvError::Options { task: task.to_owned(), reason }
}

macro_rules! from {
    ($($Type:ty => $Variant:ident),+) => {$(
        impl From<$Type> for OptionValue {
            fn from(value: $Type) -> Self {
                Self::$Variant(value.into())
            }
        }
    )+};
}

from!(bool => Bool, i64 => Integer, i32 => Integer, u32 => Integer, f64 => Float, f32 => Float, String => Text, &str => Text);

impl<T: Into<Self>> From<Vec<T>> for OptionValue {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

/// Errors about a value name its option.
struct Named<'de>(&'de str, &'de OptionValue);

fn map<'de>(
    options: &'de BTreeMap<String, OptionValue>,
) -> MapDeserializer<'de, impl Iterator<Item = (&'de str, Named<'de>)>, Error> {
    MapDeserializer::new(options.iter().map(|(name, value)| (name.as_str(), Named(name, value))))
}

impl<'de> IntoDeserializer<'de, Error> for Named<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Named<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.tell(self.1.deserialize_any(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.tell(self.1.deserialize_option(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.tell(self.1.deserialize_newtype_struct(name, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.tell(self.1.deserialize_enum(name, variants, visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl Named<'_> {
    fn tell<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| de::Error::custom(format_args!("{}: {error}", self.0)))
    }
}

impl<'de> IntoDeserializer<'de, Error> for &'de OptionValue {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de OptionValue {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            OptionValue::Bool(value) => visitor.visit_bool(*value),
            // Unsigned where possible, as for numbers of steps.
            OptionValue::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            OptionValue::Float(value) => visitor.visit_f64(*value),
            OptionValue::Text(value) => visitor.visit_borrowed_str(value),
            OptionValue::List(values) => {
                let mut list = SeqDeserializer::new(values.iter());
                let value = visitor.visit_seq(&mut list)?;
                list.end()?;
                Ok(value)
            }
            OptionValue::Map(values) => {
                let mut named = map(values);
                let value = visitor.visit_map(&mut named)?;
                named.end()?;
                Ok(value)
            }
            OptionValue::Nothing => visitor.visit_unit(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            OptionValue::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            OptionValue::Text(variant) => visitor.visit_enum(variant.as_str().into_deserializer()),
            OptionValue::Map(values) => visitor.visit_enum(de::value::MapAccessDeserializer::new(map(values))),
            _ => Err(de::Error::custom("expected the name of a variant")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Plain,
        Every(u32),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        range: (f64, f64),
        steps: u32,
        mode: Mode,
        name: Option<String>,
        nested: BTreeMap<String, f32>,
        flag: bool,
    }

    impl Default for Config {
        fn default() -> Self {
            let (mode, nested) = (Mode::Plain, BTreeMap::new());
            Self { range: (0.0, 1.0), steps: 7, mode, name: None, nested, flag: false }
        }
    }

    #[test]
    fn a_configuration_is_read_out_of_any_format() {
        let json = serde_json::json!({
            "range": [-1, 2.5], "steps": 3, "mode": { "every": 4 }, "name": "x", "nested": { "a": 1 }, "flag": true
        });
        let options = Options::deserialize(json).unwrap();
        let expected = Config {
            range: (-1.0, 2.5),
            steps: 3,
            mode: Mode::Every(4),
            name: Some("x".into()),
            nested: BTreeMap::from([("a".into(), 1.0)]),
            flag: true,
        };
        assert_eq!(options.read::<Config>("task").unwrap(), expected);
        // Its own output is read back.
        let again: Options = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
        assert_eq!(again, options);
        assert_eq!(Options::new().read::<Config>("task").unwrap(), Config::default());
        let nothing = Options::new().with("name", OptionValue::Nothing).with("mode", "plain");
        assert_eq!(nothing.read::<Config>("task").unwrap(), Config::default());
    }

    #[test]
    fn infinities_survive() {
        let options = Options::new().with("range", vec![f64::NEG_INFINITY, f64::INFINITY]);
        assert_eq!(options.read::<Config>("task").unwrap().range, (f64::NEG_INFINITY, f64::INFINITY));
    }

    #[test]
    fn what_is_wrong_is_told_with_task_and_option() {
        for (options, words) in [
            (Options::new().with("steps", -1), "steps: "),
            (Options::new().with("steps", 1.5), "steps: "),
            (Options::new().with("flag", "yes"), "flag: "),
            (Options::new().with("range", vec![1.0]), "range: "),
            (Options::new().with("range", vec![1.0, 2.0, 3.0]), "range: "),
            (Options::new().with("mode", "often"), "mode: unknown variant `often`"),
            (Options::new().with("speed", 1.0), "unknown field `speed`"),
        ] {
            let told = options.read::<Config>("swim").unwrap_err().to_string();
            assert!(told.starts_with("options of the task swim: ") && told.contains(words), "{told}");
        }
        let told = Options::new().with("speed", 1).expect_none("swim").unwrap_err().to_string();
        assert!(told.contains("`speed`"), "{told}");
    }
}
