//! Parquet: flat columns, lists of the same length in each row, and rows that are complete episodes (lists of lists).

use std::{cell::Cell, fs::File, panic, sync::Once};

use ::parquet::{
    basic::{LogicalType, TimeUnit, Type},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    schema::types::ColumnDescriptor,
};

use super::{
    DataError, Layout, ReadOptions,
    input::Input,
    layout::{Field, Kind, Part, Use},
    table::{Fault, NUMBER, Table},
};

/// Rows that are decoded at a time.
const BLOCK: usize = 4096;

thread_local! {
    /// Whether a panic of this thread is caught and reported as an error.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn read(input: &Input, layout: &Layout, options: &ReadOptions) -> Result<Table, DataError> {
    // The library panics on some damaged pages ("Decoder for dict should have been set"). This is reported as an error, and not
    // printed as well.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    CAUGHT.set(true);
    let caught = panic::catch_unwind(|| whole(input, layout, options));
    CAUGHT.set(false);
    caught.unwrap_or_else(|cause| {
        let said = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
        let reason = format!("damaged: {}", said.unwrap_or("it cannot be decoded"));
        Err(DataError::Format { path: input.path.clone(), reason })
    })
}

fn whole(input: &Input, layout: &Layout, options: &ReadOptions) -> Result<Table, DataError> {
    let path = input.path.as_path();
    if input.bytes.is_some() {
        let reason = "a Parquet file packed by gzip; unpack it: gunzip".to_owned();
        return Err(DataError::Format { path: path.to_owned(), reason });
    }
    let failed = |error: ParquetError| DataError::Format { path: path.to_owned(), reason: error.to_string() };
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    let file = SerializedFileReader::new(file).map_err(failed)?;
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let mut fields = Vec::with_capacity(schema.num_columns());
    for column in schema.columns() {
        fields.push(Field::new(name(column), Kind::Other(String::new())));
    }
    let obs = layout.obs_columns(options.stored.as_ref(), path, &fields);
    let is_obs = |field: &Field| obs.first() == Some(&field.name);
    // If the observation is a list of lists, a row is an episode.
    let nested = fields.iter().zip(schema.columns()).any(|(f, column)| is_obs(f) && column.max_rep_level() == 2);
    for (leaf, (field, column)) in fields.iter_mut().zip(schema.columns()).enumerate() {
        field.kind = kind(&file, leaf, column, nested).map_err(failed)?;
    }

    let plan = layout.plan(options.stored.as_ref(), path, &fields)?;
    let mut table = Table::new(path, plan);
    let mut episodes: Vec<Vec<Vec<f64>>> = table.plan.uses.iter().map(|_| Vec::new()).collect();
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).map_err(failed)?;
        for (index, rows_of) in episodes.iter_mut().enumerate() {
            let field = table.plan.uses[index].field;
            let mut block = Block::new(&schema.column(field));
            let mut reader = group.get_column_reader(field).map_err(failed)?;
            loop {
                let rows = block.fill(&mut reader, BLOCK).map_err(failed)?;
                if rows == 0 {
                    break;
                }
                for _ in 0..rows {
                    if nested {
                        let row = rows_of.len();
                        let used = &table.plan.uses[index];
                        let values = block.episode(used).map_err(|fault| table.fault(row, index, fault))?;
                        rows_of.push(values);
                    } else {
                        let row = table.columns[index].values.len() / table.plan.uses[index].width;
                        block.next(&mut table, index).map_err(|fault| table.fault(row, index, fault))?;
                    }
                }
            }
        }
    }
    if nested {
        return unrolled(table, episodes);
    }
    let rows = |(i, used): (usize, &Use)| (used.name.clone(), (table.columns[i].values.len() / used.width) as u64);
    let lengths: Vec<(String, u64)> = table.plan.uses.iter().enumerate().map(rows).collect();
    table.rows = lengths.first().map_or(0, |first| first.1 as usize);
    if lengths.iter().any(|(_, length)| *length != table.rows as u64) {
        let reason = format!("damaged: columns of different lengths, {lengths:?}");
        return Err(DataError::Format { path: path.to_owned(), reason });
    }
    Ok(table)
}

/// Splits a table with one row per episode into rows.
fn unrolled(mut table: Table, episodes: Vec<Vec<Vec<f64>>>) -> Result<Table, DataError> {
    let count = episodes.first().map_or(0, Vec::len);
    for episode in 0..count {
        let obs = table.plan.uses.iter().position(|u| u.part == Part::Obs).unwrap_or(0);
        let steps = episodes[obs].get(episode).map_or(0, Vec::len) / table.plan.uses[obs].width;
        if table.rows > 0 {
            table.breaks.push(table.rows);
        }
        for (index, rows_of) in episodes.iter().enumerate() {
            let Use { width, part, name, .. } = table.plan.uses[index].clone();
            let values = rows_of.get(episode).map_or(&[][..], Vec::as_slice);
            let own = values.len() / width;
            let column = &mut table.columns[index].values;
            match own {
                _ if own == steps => column.extend_from_slice(values),
                // One more observation than steps.
                _ if own + 1 == steps && part != Part::Obs => {
                    column.extend_from_slice(values);
                    column.resize(column.len() + width, f64::NAN);
                }
                // One for the whole episode.
                1 if !part.is_vector() => column.resize(column.len() + steps, values[0]),
                _ => {
                    let reason =
                        format!("row {episode} (from 0): `{name}` has {own} steps, the observation has {steps}");
                    return Err(DataError::Format { path: table.path.clone(), reason });
                }
            }
        }
        table.rows += steps;
    }
    table.notes.push(format!("a row is an episode: {count} of them"));
    Ok(table)
}

/// Name of a column: its path; for a list, without the levels below it.
fn name(column: &ColumnDescriptor) -> String {
    let parts = column.path().parts();
    if column.max_rep_level() == 0 { parts.join(".") } else { parts[0].clone() }
}

/// How the numbers of a column are to be read.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    Plain,
    Unsigned,
    /// Multiplied by this factor.
    Scaled(f64),
    Half,
}

fn meaning(column: &ColumnDescriptor) -> Meaning {
    match column.logical_type_ref() {
        Some(LogicalType::Integer(int)) if !int.is_signed => Meaning::Unsigned,
        Some(LogicalType::Decimal(decimal)) => Meaning::Scaled(10f64.powi(-decimal.scale)),
        Some(LogicalType::Timestamp(stamp)) => Meaning::Scaled(seconds(&stamp.unit)),
        Some(LogicalType::Time(time)) => Meaning::Scaled(seconds(&time.unit)),
        Some(LogicalType::Float16) => Meaning::Half,
        _ => Meaning::Plain,
    }
}

fn seconds(unit: &TimeUnit) -> f64 {
    match unit {
        TimeUnit::MILLIS => 1e-3,
        TimeUnit::MICROS => 1e-6,
        TimeUnit::NANOS => 1e-9,
    }
}

/// What a column can be used for. The first row determines the length of lists.
fn kind(
    file: &SerializedFileReader<File>,
    leaf: usize,
    column: &ColumnDescriptor,
    nested: bool,
) -> Result<Kind, ParquetError> {
    let physical = column.physical_type();
    let is_number = match physical {
        Type::BOOLEAN | Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE => true,
        Type::FIXED_LEN_BYTE_ARRAY | Type::BYTE_ARRAY => {
            matches!(column.logical_type_ref(), Some(LogicalType::Decimal(_) | LogicalType::Float16))
        }
        Type::INT96 => false,
    };
    let depth = column.max_rep_level();
    let most = if nested { 2 } else { 1 };
    if depth > most {
        return Ok(Kind::Other("lists of lists".into()));
    }
    Ok(match physical {
        _ if is_number && depth == most => {
            let mut first = Block::new(column);
            let rows = match file.num_row_groups() {
                0 => 0,
                _ => first.fill(&mut file.get_row_group(0)?.get_column_reader(leaf)?, 1)?,
            };
            // Entries up to the next inner list.
            let inner = first.repetitions.iter().skip(1).take_while(|r| **r >= depth).count();
            let is_there = |level: &&i16| **level >= first.entry_level;
            let length = first.levels.iter().take(inner + 1).filter(is_there).count();
            // A file without rows is refused for that reason later.
            Kind::Numbers(if rows == 0 { 1 } else { length })
        }
        _ if is_number => Kind::Numbers(1),
        Type::BYTE_ARRAY if depth == 0 => Kind::Text,
        Type::INT96 => Kind::Other("times as INT96 (store them as timestamps of 64 bits, or as seconds)".into()),
        _ => Kind::Other(format!("values of type {physical}")),
    })
}

/// Rows of one column.
#[derive(Debug)]
struct Block {
    numbers: Vec<f64>,
    texts: Vec<Vec<u8>>,
    /// Definition level of each entry: `max_level` where there is a value.
    levels: Vec<i16>,
    max_level: i16,
    /// For lists: 0 where a row begins.
    repetitions: Vec<i16>,
    depth: i16,
    /// Definition level from which on an entry exists in its list, possibly as a null.
    entry_level: i16,
    meaning: Meaning,
    /// Whether the bytes are text; decimals are numbers in bytes.
    is_text: bool,
    /// Read position, in `levels` (or in values if there are none) and in values.
    at: usize,
    value: usize,
}

impl Block {
    fn new(column: &ColumnDescriptor) -> Self {
        let max_level = column.max_def_level();
        let meaning = meaning(column);
        Self {
            numbers: Vec::new(),
            texts: Vec::new(),
            levels: Vec::new(),
            max_level,
            repetitions: Vec::new(),
            depth: column.max_rep_level(),
            entry_level: max_level - i16::from(column.self_type().is_optional()),
            is_text: column.physical_type() == Type::BYTE_ARRAY && matches!(meaning, Meaning::Plain),
            meaning,
            at: 0,
            value: 0,
        }
    }

    /// Decodes the next rows, at most `rows`, and returns their number.
    fn fill(&mut self, reader: &mut ColumnReader, rows: usize) -> Result<usize, ParquetError> {
        self.levels.clear();
        self.repetitions.clear();
        self.texts.clear();
        self.numbers.clear();
        (self.at, self.value) = (0, 0);
        let meaning = self.meaning;
        let integer = move |value: i64| match meaning {
            Meaning::Unsigned => value as u64 as f64,
            Meaning::Scaled(factor) => scaled(value as f64, factor),
            _ => value as f64,
        };
        match reader {
            ColumnReader::BoolColumnReader(reader) => self.decode(reader, rows, |v| f64::from(u8::from(*v))),
            ColumnReader::Int32ColumnReader(reader) => match meaning {
                Meaning::Unsigned => self.decode(reader, rows, |v| f64::from(*v as u32)),
                _ => self.decode(reader, rows, move |v| integer(i64::from(*v))),
            },
            ColumnReader::Int64ColumnReader(reader) => self.decode(reader, rows, move |v| integer(*v)),
            ColumnReader::FloatColumnReader(reader) => self.decode(reader, rows, |v| f64::from(*v)),
            ColumnReader::DoubleColumnReader(reader) => self.decode(reader, rows, |v| *v),
            ColumnReader::ByteArrayColumnReader(reader) if self.is_text => {
                let mut values = Vec::new();
                let (levels, repetitions) = (&mut self.levels, &mut self.repetitions);
                let (rows, ..) = reader.read_records(rows, Some(levels), Some(repetitions), &mut values)?;
                self.texts.extend(values.iter().map(|value| value.data().to_vec()));
                Ok(rows)
            }
            ColumnReader::ByteArrayColumnReader(reader) => self.decode(reader, rows, |v| bytes(v.data(), meaning)),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                self.decode(reader, rows, |v| bytes(v.data(), meaning))
            }
            // Never part of a plan: its kind is `Other`.
            ColumnReader::Int96ColumnReader(_) => Ok(0),
        }
    }

    fn decode<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        number: impl Fn(&T::T) -> f64,
    ) -> Result<usize, ParquetError> {
        let mut values = Vec::new();
        let (levels, repetitions) = (&mut self.levels, &mut self.repetitions);
        let (rows, ..) = reader.read_records(rows, Some(levels), Some(repetitions), &mut values)?;
        self.numbers.extend(values.iter().map(number));
        Ok(rows)
    }

    /// The fault of a damaged file that declares values it does not hold.
    fn broken() -> Fault {
        Fault::new("levels without values", "a column that is whole")
    }

    fn level(&self, at: usize) -> Result<i16, Fault> {
        if self.max_level == 0 { Ok(0) } else { self.levels.get(at).copied().ok_or_else(Self::broken) }
    }

    fn number(&self, value: usize) -> Result<f64, Fault> {
        self.numbers.get(value).copied().ok_or_else(Self::broken)
    }

    /// Appends the next row of this column.
    fn next(&mut self, table: &mut Table, index: usize) -> Result<(), Fault> {
        let level = self.level(self.at)?;
        let width = table.plan.uses[index].width;
        if self.depth == 0 {
            self.at += 1;
            if level < self.max_level {
                table.columns[index].push(f64::NAN);
                return Ok(());
            }
            self.value += 1;
            return match self.texts.get(self.value - 1) {
                Some(text) => table.text(index, text),
                None => {
                    let value = self.number(self.value - 1)?;
                    table.columns[index].push(value);
                    Ok(())
                }
            };
        }
        let rest = self.repetitions.get(self.at + 1..).unwrap_or_default();
        let length = 1 + rest.iter().take_while(|repetition| **repetition > 0).count();
        if level < self.entry_level && length == 1 {
            // No list, or an empty one.
            self.at += 1;
            table.columns[index].values.extend(std::iter::repeat_n(f64::NAN, width));
            return Ok(());
        }
        if length != width {
            let expected = format!("a list of {width}, as in the first row");
            return Err(Fault::new(format!("a list of {length}"), expected));
        }
        for i in 0..length {
            if self.level(self.at + i)? < self.max_level {
                return Err(Fault::new("a null within a list", NUMBER));
            }
            let value = self.number(self.value + i)?;
            table.columns[index].push(value);
        }
        self.at += length;
        self.value += length;
        Ok(())
    }

    /// Appends the next row of a column whose rows are episodes, `[T, width]`.
    fn episode(&mut self, used: &Use) -> Result<Vec<f64>, Fault> {
        let start = self.at;
        let rest = self.repetitions.get(start + 1..).unwrap_or_default();
        let length = if self.depth == 0 { 1 } else { 1 + rest.iter().take_while(|r| **r > 0).count() };
        self.at += length;
        let mut values = Vec::with_capacity(length);
        for (inner, i) in (start..start + length).enumerate() {
            let level = self.level(i)?;
            if level < self.entry_level && length == 1 {
                // No list, or an empty one.
                return Ok(Vec::new());
            }
            let begins = self.repetitions.get(i).is_some_and(|repetition| *repetition < self.depth);
            if self.depth == 2 && begins && inner % used.width != 0 {
                return Err(Fault::new("lists of different lengths", format!("lists of {}", used.width)));
            }
            if level < self.max_level {
                values.push(f64::NAN);
                continue;
            }
            values.push(self.number(self.value)?);
            self.value += 1;
        }
        match values.len() % used.width {
            0 => Ok(values),
            _ => Err(Fault::new("lists of different lengths", format!("lists of {}", used.width))),
        }
    }
}

/// `value · factor`, as a division where the factor is a negative power of ten: exact to the last bit.
fn scaled(value: f64, factor: f64) -> f64 {
    if factor < 1.0 { value / (1.0 / factor).round() } else { value * factor }
}

/// A decimal (big-endian two's complement), or a float of 16 bits.
fn bytes(bytes: &[u8], meaning: Meaning) -> f64 {
    match (meaning, bytes) {
        (Meaning::Half, [low, high]) => super::half(u16::from_le_bytes([*low, *high])),
        (Meaning::Scaled(factor), _) => {
            let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { -1_i128 } else { 0 };
            scaled(bytes.iter().fold(sign, |value, byte| value << 8 | i128::from(*byte)) as f64, factor)
        }
        _ => f64::NAN,
    }
}
