//! CSV: comma-separated, the first line names the columns.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::{
    DataError, Layout, Log, Place,
    assemble::{Assembler, Row},
    layout::{Field, Kind},
};

pub(super) fn read(path: &Path, layout: &Layout) -> Result<Log, DataError> {
    let open = || File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source });
    let mut reader = ReaderBuilder::new().flexible(true).buffer_capacity(1 << 16).from_reader(open()?);
    let failed = |error: ::csv::Error| match error.into_kind() {
        ErrorKind::Io(source) => DataError::Io { path: path.to_owned(), source },
        other => DataError::Format { path: path.to_owned(), reason: format!("{other:?}") },
    };
    let header = reader.byte_headers().map_err(failed)?;
    if header.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    let names = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned());
    let fields: Vec<Field> = names.map(|name| Field { name, kind: Kind::Numbers(1) }).collect();
    if fields.iter().all(|field| field.name.parse::<f64>().is_ok()) {
        let reason = "line 1 holds numbers, expected the names of the columns".into();
        return Err(DataError::Format { path: path.to_owned(), reason });
    }

    let plan = layout.plan(path, &fields)?;
    let mut log = Assembler::new(path, &plan)?;
    let mut row = Row::new(&plan);
    let mut record = ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(failed)? {
        let at = || {
            let (byte, line) = record.position().map_or((0, 0), |position| (position.byte(), position.line()));
            Place::Line(open().ok().and_then(|file| line_at(BufReader::new(file), byte).ok()).unwrap_or(line))
        };
        if record.len() != fields.len() {
            let (expected, actual) = (fields.len(), record.len());
            return Err(DataError::Fields { path: path.to_owned(), at: at(), expected, actual });
        }
        row.clear();
        for (index, column) in plan.uses.iter().enumerate() {
            row.text(column, &record[column.field], index).map_err(|fault| fault.at(path, at(), column))?;
        }
        log.push(&mut row, &at)?;
    }
    log.finish()
}

/// Number of the line on which a record begins that was read from `byte` on. The reader counts the blank lines before a
/// record, and the second half of a Windows line end, as parts of it.
fn line_at(mut file: impl BufRead, byte: u64) -> io::Result<u64> {
    let (mut line, mut at, mut last) = (1, 0, b' ');
    loop {
        let block = file.fill_buf()?;
        if block.is_empty() {
            return Ok(line);
        }
        for &character in block {
            match character {
                b'\r' => line += 1,
                b'\n' => line += u64::from(last != b'\r'),
                _ if at >= byte => return Ok(line),
                _ => {}
            }
            last = character;
            at += 1;
        }
        let read = block.len();
        file.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_an_editor() {
        // As the reader reports them: each record from the end of the one before it.
        for (text, byte, expected) in [
            ("a\n1\n2\n", 4, 3),
            ("a\n1\n\n\n2\n", 4, 5),
            ("a\r\n1\r\n2\r\n", 5, 3),
            ("a\r\n1\r\n\r\n2\r\n", 5, 4),
            ("a\r1\r2\r", 4, 3),
            ("a\n\"1\n\"\n2", 6, 4),
        ] {
            assert_eq!(line_at(text.as_bytes(), byte).unwrap(), expected, "{text:?}");
        }
    }
}
