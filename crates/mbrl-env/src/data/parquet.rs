//! Parquet: flat columns, and lists of the same length in each row.

use std::{fs::File, panic, path::Path};

use ::parquet::{
    basic::{LogicalType, Type},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    schema::types::ColumnDescriptor,
};

use super::{
    DataError, Layout, Log, Place,
    assemble::{Assembler, Fault, NUMBER, Row},
    layout::{Field, Kind, Use},
};

/// Rows that are decoded at a time.
const BLOCK: usize = 4096;

pub(super) fn read(path: &Path, layout: &Layout) -> Result<Log, DataError> {
    // The library panics on some damaged pages ("Decoder for dict should have been set").
    panic::catch_unwind(|| read_whole(path, layout)).unwrap_or_else(|cause| {
        let said = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
        let reason = format!("damaged: {}", said.unwrap_or("it cannot be decoded"));
        Err(DataError::Format { path: path.to_owned(), reason })
    })
}

fn read_whole(path: &Path, layout: &Layout) -> Result<Log, DataError> {
    let failed = |error: ParquetError| DataError::Format { path: path.to_owned(), reason: error.to_string() };
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    let file = SerializedFileReader::new(file).map_err(failed)?;
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let mut fields = Vec::with_capacity(schema.num_columns());
    for (leaf, column) in schema.columns().iter().enumerate() {
        fields.push(Field { name: name(column), kind: kind(&file, leaf, column).map_err(failed)? });
    }

    let plan = layout.plan(path, &fields)?;
    let mut log = Assembler::new(path, &plan)?;
    let mut row = Row::new(&plan);
    let mut blocks: Vec<Block> = plan.uses.iter().map(|column| Block::new(&schema.column(column.field))).collect();
    let mut r = 0;
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).map_err(failed)?;
        let mut readers = plan
            .uses
            .iter()
            .map(|column| group.get_column_reader(column.field))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        loop {
            let mut counts = Vec::with_capacity(blocks.len());
            for (block, reader) in blocks.iter_mut().zip(&mut readers) {
                counts.push(block.fill(reader, BLOCK).map_err(failed)?);
            }
            if counts.iter().any(|count| *count != counts[0]) {
                let reason = format!("columns of different lengths in the {BLOCK} rows from row {r} on");
                return Err(DataError::Format { path: path.to_owned(), reason });
            }
            if counts[0] == 0 {
                break;
            }
            for _ in 0..counts[0] {
                row.clear();
                for (index, (column, block)) in plan.uses.iter().zip(&mut blocks).enumerate() {
                    block.next(&mut row, column, index).map_err(|fault| fault.at(path, Place::Row(r), column))?;
                }
                log.push(&mut row, &|| Place::Row(r))?;
                r += 1;
            }
        }
    }
    log.finish()
}

/// Name of a column: its path, that of a list without the levels below it.
fn name(column: &ColumnDescriptor) -> String {
    let parts = column.path().parts();
    if column.max_rep_level() == 0 { parts.join(".") } else { parts[0].clone() }
}

/// What a column can be used for. How long lists are says the first row.
fn kind(file: &SerializedFileReader<File>, leaf: usize, column: &ColumnDescriptor) -> Result<Kind, ParquetError> {
    let physical = column.physical_type();
    let number = matches!(physical, Type::BOOLEAN | Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE)
        && !matches!(column.logical_type_ref(), Some(LogicalType::Decimal(_)));
    Ok(match column.max_rep_level() {
        0 if number => Kind::Numbers(1),
        0 if physical == Type::BYTE_ARRAY => Kind::Text,
        1 if number => {
            let mut first = Block::new(column);
            let rows = match file.num_row_groups() {
                0 => 0,
                _ => first.fill(&mut file.get_row_group(0)?.get_column_reader(leaf)?, 1)?,
            };
            let length = first.levels.iter().filter(|level| **level >= first.entry_level).count();
            // A file without rows is refused for that.
            Kind::Numbers(if rows == 0 { 1 } else { length })
        }
        0 | 1 => Kind::Other(format!("values of type {physical}")),
        _ => Kind::Other("lists of lists".into()),
    })
}

/// Rows of one column.
#[derive(Debug)]
struct Block {
    numbers: Vec<f64>,
    texts: Vec<ByteArray>,
    /// Definition level of each entry: `max_level` where there is a value.
    levels: Vec<i16>,
    max_level: i16,
    /// For lists: 0 where a row begins.
    repetitions: Vec<i16>,
    is_list: bool,
    /// Definition level from which on an entry exists in its list, if only as a null.
    entry_level: i16,
    is_unsigned: bool,
    /// How far it was taken, in `levels` (or values where there are none) and values.
    at: usize,
    value: usize,
}

impl Block {
    fn new(column: &ColumnDescriptor) -> Self {
        let max_level = column.max_def_level();
        Self {
            numbers: Vec::new(),
            texts: Vec::new(),
            levels: Vec::new(),
            max_level,
            repetitions: Vec::new(),
            is_list: column.max_rep_level() > 0,
            entry_level: max_level - i16::from(column.self_type().is_optional()),
            is_unsigned: matches!(column.logical_type_ref(), Some(LogicalType::Integer(int)) if !int.is_signed),
            at: 0,
            value: 0,
        }
    }

    /// Decodes the next rows, at most `rows`, and says how many there are.
    fn fill(&mut self, reader: &mut ColumnReader, rows: usize) -> Result<usize, ParquetError> {
        self.levels.clear();
        self.repetitions.clear();
        self.texts.clear();
        (self.at, self.value) = (0, 0);
        let is_unsigned = self.is_unsigned;
        match reader {
            ColumnReader::BoolColumnReader(reader) => self.numbers(reader, rows, |v| f64::from(u8::from(*v))),
            ColumnReader::Int32ColumnReader(reader) => {
                self.numbers(reader, rows, |v| if is_unsigned { f64::from(*v as u32) } else { f64::from(*v) })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.numbers(reader, rows, |v| if is_unsigned { *v as u64 as f64 } else { *v as f64 })
            }
            ColumnReader::FloatColumnReader(reader) => self.numbers(reader, rows, |v| f64::from(*v)),
            ColumnReader::DoubleColumnReader(reader) => self.numbers(reader, rows, |v| *v),
            ColumnReader::ByteArrayColumnReader(reader) => {
                let (levels, repetitions) = (&mut self.levels, &mut self.repetitions);
                Ok(reader.read_records(rows, Some(levels), Some(repetitions), &mut self.texts)?.0)
            }
            // Never part of a plan: their kind is `Other`.
            ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => Ok(0),
        }
    }

    fn numbers<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        number: impl Fn(&T::T) -> f64,
    ) -> Result<usize, ParquetError> {
        let mut values = Vec::new();
        let (levels, repetitions) = (&mut self.levels, &mut self.repetitions);
        let (rows, ..) = reader.read_records(rows, Some(levels), Some(repetitions), &mut values)?;
        self.numbers.clear();
        self.numbers.extend(values.iter().map(number));
        Ok(rows)
    }

    /// Puts the next row of this column.
    fn next(&mut self, row: &mut Row, column: &Use, index: usize) -> Result<(), Fault> {
        let level = if self.max_level == 0 { 0 } else { self.levels[self.at] };
        if !self.is_list {
            self.at += 1;
            if level < self.max_level {
                return row.nothing(column, index);
            }
            self.value += 1;
            return match self.texts.get(self.value - 1) {
                Some(text) => row.text(column, text.data(), index),
                None => row.number(column, 0, self.numbers[self.value - 1]),
            };
        }
        let rest = &self.repetitions[self.at + 1..];
        let length = 1 + rest.iter().take_while(|repetition| **repetition > 0).count();
        if level < self.entry_level && length == 1 {
            // No list, or an empty one.
            self.at += 1;
            return row.nothing(column, index);
        }
        if length != column.width {
            let expected = format!("a list of {}, as in the first row", column.width);
            return Err(Fault::new(format!("a list of {length}"), expected));
        }
        for i in 0..length {
            if self.levels[self.at + i] < self.max_level {
                return Err(Fault::new("a null within a list", NUMBER));
            }
            row.number(column, i, self.numbers[self.value + i])?;
        }
        self.at += length;
        self.value += length;
        Ok(())
    }
}
