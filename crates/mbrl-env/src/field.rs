//! What the columns of observations and actions are.

use std::{collections::BTreeSet, f32::consts::TAU, sync::Arc};

use serde::{Deserialize, Serialize};

/// A named part of an observation or an action: one column, or several that belong together, such as a position in space or
/// an image.
///
/// ```
/// use mbrl_env::{Field, FieldKind};
///
/// let position = Field::linear("position", "m");
/// let heading = Field::angle("heading").with_turn(360.0).wrapping(); // a compass: 359° is followed by 0°
/// let gripper = Field::linear("gripper", "m").with_shape([3]);
/// assert_eq!((position.width(), gripper.width()), (1, 3));
/// assert_eq!(gripper.column_names(), ["gripper[0]", "gripper[1]", "gripper[2]"]);
/// assert_eq!((heading.kind, &*heading.unit), (FieldKind::Angle { turn: 360.0, wraps: true }, "deg"));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Field {
    /// Name, unique within the observation or the action, as used in reports, files and messages.
    pub name: Arc<str>,
    /// Unit, such as `m/s`; empty for a number without one.
    pub unit: Arc<str>,
    /// Shape; empty for a single number. The field has as many columns as the shape has entries, in row-major order.
    pub shape: Vec<usize>,
    /// What its numbers are.
    pub kind: FieldKind,
}

/// What the numbers of a [`Field`] are.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FieldKind {
    /// Numbers on a line. An angle within a limited range, such as that of a joint with stops, counts as such.
    Linear,
    /// Angles that can turn all the way round: one more turn is the same state. Models see them as sine and cosine.
    Angle {
        /// One turn in the field's unit: 2π for rad, 360 for degrees.
        turn: f32,
        /// Whether the value jumps by a turn in the data, so that it never leaves one turn.
        wraps: bool,
    },
    /// 0 or 1.
    Flag,
    /// Intensities of pixels.
    Pixels,
}

impl Field {
    fn new(name: impl Into<Arc<str>>, unit: impl Into<Arc<str>>, kind: FieldKind) -> Self {
        Self { name: name.into(), unit: unit.into(), shape: Vec::new(), kind }
    }

    /// A number on a line, in a unit (empty for none).
    #[must_use]
    pub fn linear(name: impl Into<Arc<str>>, unit: impl Into<Arc<str>>) -> Self {
        Self::new(name, unit, FieldKind::Linear)
    }

    /// An angle in radians that can turn all the way round; its value does not wrap.
    #[must_use]
    pub fn angle(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, "rad", FieldKind::Angle { turn: TAU, wraps: false })
    }

    /// A flag: 0 or 1.
    #[must_use]
    pub fn flag(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, "", FieldKind::Flag)
    }

    /// An image, of shape `[height, width, channels]` for example.
    #[must_use]
    pub fn pixels(name: impl Into<Arc<str>>, shape: impl Into<Vec<usize>>) -> Self {
        Self::new(name, "", FieldKind::Pixels).with_shape(shape)
    }

    /// With several columns.
    #[must_use]
    pub fn with_shape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.shape = shape.into();
        self
    }

    /// In another unit.
    #[must_use]
    pub fn with_unit(mut self, unit: impl Into<Arc<str>>) -> Self {
        self.unit = unit.into();
        self
    }

    /// An angle whose turn is `turn`; 360 also makes the unit `deg` where it is `rad`.
    #[must_use]
    pub fn with_turn(mut self, turn: f32) -> Self {
        let wraps = matches!(self.kind, FieldKind::Angle { wraps: true, .. });
        self.kind = FieldKind::Angle { turn, wraps };
        if turn == 360.0 && &*self.unit == "rad" {
            self.unit = "deg".into();
        }
        self
    }

    /// An angle whose value jumps by one turn in the data, as an arc tangent does.
    #[must_use]
    pub fn wrapping(mut self) -> Self {
        let turn = if let FieldKind::Angle { turn, .. } = self.kind { turn } else { TAU };
        self.kind = FieldKind::Angle { turn, wraps: true };
        self
    }

    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// A name for each column: the field's own for a single number, else with an index, `gripper[2]` or `camera[4,7,0]`.
    #[must_use]
    pub fn column_names(&self) -> Vec<String> {
        if self.shape.is_empty() {
            return vec![String::from(&*self.name)];
        }
        let index = |mut column: usize| {
            let mut digits: Vec<String> = Vec::with_capacity(self.shape.len());
            for &size in self.shape.iter().rev() {
                digits.push((column % size).to_string());
                column /= size;
            }
            digits.reverse();
            digits.join(",")
        };
        (0..self.width()).map(|column| format!("{}[{}]", self.name, index(column))).collect()
    }
}

/// A column that is an angle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AngleColumn {
    /// Index of the column.
    pub column: usize,
    /// One turn in the column's unit: 2π for rad, 360 for degrees.
    pub turn: f32,
    /// Whether the value jumps by a turn in the data.
    pub wraps: bool,
}

impl AngleColumn {
    /// An angle in radians that does not wrap.
    #[must_use]
    pub fn radians(column: usize) -> Self {
        Self { column, turn: TAU, wraps: false }
    }
}

/// The columns of `fields` that are angles.
pub(crate) fn angles(fields: &[Field]) -> Vec<AngleColumn> {
    let mut found = Vec::new();
    let mut start = 0;
    for field in fields {
        let end = start + field.width();
        if let FieldKind::Angle { turn, wraps } = field.kind {
            found.extend((start..end).map(|column| AngleColumn { column, turn, wraps }));
        }
        start = end;
    }
    found
}

/// One field per column, all under one name: the default where no fields were given.
pub(crate) fn unnamed(name: &str, width: usize) -> Vec<Field> {
    vec![Field::linear(name, "").with_shape([width])]
}

/// What is wrong with fields that should describe `width` columns.
pub(crate) fn fault(fields: &[Field], width: usize) -> Option<String> {
    let columns: usize = fields.iter().map(Field::width).sum();
    if columns != width {
        return Some(format!("{columns} columns in {} fields, expected {width} columns", fields.len()));
    }
    let mut seen = BTreeSet::new();
    for field in fields {
        if field.name.is_empty() {
            return Some("a field without a name".into());
        }
        if !seen.insert(&*field.name) {
            return Some(format!("two fields are called `{}`, expected a name for each", field.name));
        }
        if let FieldKind::Angle { turn, .. } = field.kind
            && !(turn > 0.0 && turn.is_finite())
        {
            return Some(format!("a turn of `{}` is {turn}, expected a positive number", field.name));
        }
    }
    None
}

/// Makes names unique by appending numbers.
#[cfg(feature = "mujoco")]
pub(crate) fn with_unique_names(mut fields: Vec<Field>) -> Vec<Field> {
    let mut seen = BTreeSet::new();
    for field in &mut fields {
        let plain = field.name.clone();
        let mut number = 2;
        while !seen.insert(field.name.clone()) {
            field.name = format!("{plain}_{number}").into();
            number += 1;
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_an_image_are_counted_in_rows() {
        let camera = Field::pixels("camera", [2, 2, 3]);
        let names = camera.column_names();
        assert_eq!((camera.width(), names.len()), (12, 12));
        assert_eq!((&*names[0], &*names[5], &*names[11]), ("camera[0,0,0]", "camera[0,1,2]", "camera[1,1,2]"));
        assert!(Field::linear("nothing", "").with_shape([0]).column_names().is_empty());
    }

    #[test]
    fn angles_are_counted_over_fields_of_any_width() {
        let fields = [
            Field::linear("p", "m").with_shape([3]),
            Field::angle("joint").with_shape([2]),
            Field::linear("compass", "deg").with_turn(360.0).wrapping(),
        ];
        let turned = |column| AngleColumn { column, turn: TAU, wraps: false };
        assert_eq!(angles(&fields), [turned(3), turned(4), AngleColumn { column: 5, turn: 360.0, wraps: true }]);
        assert_eq!(AngleColumn::radians(3), turned(3));
    }
}
