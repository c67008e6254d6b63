//! NumPy: `.npz` archives of arrays `[N]` and `[N, W]`; `.npy` files of a structured or a 2-D array.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read},
    path::Path,
};

use npyz::{DType, Endianness, NpyFile, NpyHeader, Order, TypeChar, TypeStr, npz::NpzArchive};

use super::{
    DataError, Layout, Log, Place,
    assemble::{Assembler, Row},
    layout::{Field, Kind, Plan},
};

/// Bytes a row. More than that is a damaged header, and no reason to ask for so much memory.
const LARGEST_ROW: usize = 1 << 28;

/// An archive as `np.savez` and `np.savez_compressed` write it.
pub(super) fn read_npz(path: &Path, layout: &Layout) -> Result<Log, DataError> {
    let failed = |error| failed(path, error);
    let mut archive = NpzArchive::open(path).map_err(failed)?;
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let mut headers = Vec::with_capacity(names.len());
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        // An array that cannot be understood matters only if it is needed.
        let header = match archive.by_name(&name) {
            Ok(file) => file.map(|file| file.header().clone()).ok_or_else(|| "nothing".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let kind = match &header {
            Ok(header) => array_kind(header),
            Err(error) => Kind::Other(error.clone()),
        };
        fields.push(Field { name, kind });
        headers.push(header.ok());
    }
    let plan = layout.plan(path, &fields)?;

    let length = |field: usize| headers[field].as_ref().map_or(0, |header| header.shape()[0]);
    let lengths: Vec<(String, u64)> = plan.uses.iter().map(|u| (u.name.clone(), length(u.field))).collect();
    let rows = lengths.first().map_or(0, |first| first.1);
    if lengths.iter().any(|(_, length)| *length != rows) {
        return Err(DataError::Lengths { path: path.to_owned(), lengths });
    }

    // Each array is read through an opening of its own, so that rows can be put together as they come.
    let mut archives =
        plan.uses.iter().map(|_| NpzArchive::open(path)).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let mut streams = Vec::with_capacity(archives.len());
    let mut cells = Vec::with_capacity(archives.len());
    for (archive, column) in archives.iter_mut().zip(&plan.uses) {
        let Some(file) = archive.by_name(&column.name).map_err(failed)? else { continue };
        let header = file.header().clone();
        let Some(number) = plain(&header.dtype()).and_then(Number::of) else { continue };
        cells.push(Cell { stream: streams.len(), offset: 0, number });
        streams.push(Stream::new(file, &header, number.size * column.width).map_err(failed)?);
    }
    assemble(path, &plan, rows, &mut streams, &cells)
}

/// One array: records with named fields, or a matrix whose columns the layout names.
pub(super) fn read_npy(path: &Path, layout: &Layout) -> Result<Log, DataError> {
    let failed = |error| failed(path, error);
    let file = NpyFile::new(BufReader::new(File::open(path).map_err(failed)?)).map_err(failed)?;
    let header = file.header().clone();
    let malformed = |reason: String| Err(DataError::Format { path: path.to_owned(), reason });
    let shape = header.shape();

    // Name, byte within a row, and meaning of each column.
    let mut columns: Vec<(Field, usize, Option<Number>)> = Vec::new();
    let row_size = match (header.dtype(), shape) {
        (DType::Record(record), [_]) => {
            let mut offset = 0;
            for field in record {
                let (width, number) = match &field.dtype {
                    DType::Array(width, inner) => (*width as usize, plain(inner).and_then(Number::of)),
                    single => (1, plain(single).and_then(Number::of)),
                };
                let kind = match number {
                    Some(_) => Kind::Numbers(width),
                    None => Kind::Other(format!("dtype {}", field.dtype.descr())),
                };
                // An object has no size, and one makes a pickle of the whole array.
                let after = field.dtype.num_bytes().map_or(usize::MAX, |size| size.saturating_add(offset));
                if after > LARGEST_ROW {
                    let (name, dtype) = (field.name, field.dtype.descr());
                    return malformed(format!(
                        "field `{name}` of dtype {dtype}, expected numbers or text of a fixed size"
                    ));
                }
                columns.push((Field { name: field.name, kind }, offset, number));
                offset = after;
            }
            offset
        }
        (dtype, [_] | [_, _]) => {
            let Some(number) = plain(&dtype).and_then(Number::of) else {
                return malformed(format!("dtype {}, expected integers, floats or booleans", dtype.descr()));
            };
            let width = shape.get(1).map_or(1, |width| *width as usize);
            if layout.names.len() != width {
                let given = layout.names.len();
                return malformed(format!("an array of {width} columns without names; the layout names {given}"));
            }
            for (i, name) in layout.names.iter().enumerate() {
                let field = Field { name: name.clone(), kind: Kind::Numbers(1) };
                columns.push((field, i * number.size, Some(number)));
            }
            width * number.size
        }
        _ => return malformed(format!("an array of shape {shape:?}, expected one or two dimensions")),
    };

    let (fields, places): (Vec<Field>, Vec<_>) = columns.into_iter().map(|(f, o, n)| (f, (o, n))).unzip();
    let plan = layout.plan(path, &fields)?;
    let cell = |field: usize| places[field].1.map(|number| Cell { stream: 0, offset: places[field].0, number });
    let cells: Vec<Cell> = plan.uses.iter().filter_map(|column| cell(column.field)).collect();
    let rows = shape[0];
    let mut streams = [Stream::new(file, &header, row_size).map_err(failed)?];
    assemble(path, &plan, rows, &mut streams, &cells)
}

fn failed(path: &Path, source: io::Error) -> DataError {
    match source.kind() {
        // What NumPy's format or the archive say is wrong, not the operating system.
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::Other | ErrorKind::InvalidInput => {
            DataError::Format { path: path.to_owned(), reason: source.to_string() }
        }
        _ => DataError::Io { path: path.to_owned(), source },
    }
}

/// What an array of an archive can be used for.
fn array_kind(header: &NpyHeader) -> Kind {
    match (header.shape(), plain(&header.dtype()).and_then(Number::of)) {
        ([_], Some(_)) => Kind::Numbers(1),
        ([_, width], Some(number)) if *width <= (LARGEST_ROW / number.size) as u64 => Kind::Numbers(*width as usize),
        (shape, _) => Kind::Other(format!("an array of shape {shape:?} and dtype {}", header.dtype().descr())),
    }
}

fn plain(dtype: &DType) -> Option<&TypeStr> {
    match dtype {
        DType::Plain(single) => Some(single),
        _ => None,
    }
}

/// How a number stands in bytes.
#[derive(Debug, Clone, Copy)]
struct Number {
    form: Form,
    size: usize,
    big_endian: bool,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Float,
    Signed,
    /// Booleans as well.
    Unsigned,
}

impl Number {
    /// `None` for what is no number, and for floats of other sizes than 32 and 64 bits.
    fn of(dtype: &TypeStr) -> Option<Self> {
        let size = dtype.num_bytes()?;
        let form = match (dtype.type_char(), size) {
            (TypeChar::Float, 4 | 8) => Form::Float,
            (TypeChar::Int, 1 | 2 | 4 | 8) => Form::Signed,
            (TypeChar::Uint, 1 | 2 | 4 | 8) | (TypeChar::Bool, 1) => Form::Unsigned,
            _ => return None,
        };
        Some(Self { form, size, big_endian: dtype.endianness() == Endianness::Big })
    }

    fn read(self, bytes: &[u8]) -> f64 {
        let mut little = [0; 8];
        little[..self.size].copy_from_slice(&bytes[..self.size]);
        if self.big_endian {
            little[..self.size].reverse();
        }
        let bits = u64::from_le_bytes(little);
        let unused = 64 - 8 * self.size as u32;
        match self.form {
            Form::Float if self.size == 4 => f64::from(f32::from_bits(bits as u32)),
            Form::Float => f64::from_bits(bits),
            // The shift back drags the sign along.
            Form::Signed => ((bits << unused) as i64 >> unused) as f64,
            Form::Unsigned => bits as f64,
        }
    }
}

/// Where a column stands within the row of a stream.
#[derive(Debug, Clone, Copy)]
struct Cell {
    stream: usize,
    offset: usize,
    number: Number,
}

/// An array as rows of bytes.
struct Stream<'a> {
    input: BufReader<Box<dyn Read + 'a>>,
    /// The whole array where it is stored column by column, and its rows.
    columns: Option<(Vec<u8>, usize)>,
    row: Vec<u8>,
    /// Bytes of an entry, for `columns`.
    entry: usize,
}

impl<'a> Stream<'a> {
    fn new<R: Read + 'a>(file: NpyFile<R>, header: &NpyHeader, row_size: usize) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(1 << 16, Box::new(file.into_inner()) as Box<dyn Read + 'a>);
        let shape = header.shape();
        let columns = match (header.order(), shape) {
            (Order::Fortran, [rows, width]) if *width > 1 => {
                let mut bytes = Vec::new();
                let size = rows.saturating_mul(row_size as u64);
                (&mut input).take(size).read_to_end(&mut bytes)?;
                if (bytes.len() as u64) < size {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Some((bytes, *rows as usize))
            }
            _ => None,
        };
        let entry = row_size / shape.get(1).map_or(1, |width| (*width as usize).max(1));
        Ok(Self { input, columns, row: vec![0; row_size], entry })
    }

    /// Fetches row `r`; rows come in order.
    fn fetch(&mut self, r: usize) -> io::Result<()> {
        let Some((bytes, rows)) = &self.columns else { return self.input.read_exact(&mut self.row) };
        for (column, entry) in self.row.chunks_exact_mut(self.entry).enumerate() {
            entry.copy_from_slice(&bytes[(column * rows + r) * self.entry..][..self.entry]);
        }
        Ok(())
    }

    /// Whether it ends here; an archive compares its checksums at the end.
    fn ended(&mut self) -> io::Result<bool> {
        Ok(self.input.read(&mut [0])? == 0)
    }
}

fn assemble(path: &Path, plan: &Plan, rows: u64, streams: &mut [Stream<'_>], cells: &[Cell]) -> Result<Log, DataError> {
    let mut log = Assembler::new(path, plan)?;
    let mut row = Row::new(plan);
    for r in 0..rows {
        for stream in streams.iter_mut() {
            stream.fetch(r as usize).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => {
                    let reason = format!("ends at row {r} of {rows}");
                    DataError::Format { path: path.to_owned(), reason }
                }
                _ => failed(path, error),
            })?;
        }
        row.clear();
        for (column, cell) in plan.uses.iter().zip(cells) {
            let bytes = &streams[cell.stream].row[cell.offset..];
            for (i, bytes) in bytes.chunks_exact(cell.number.size).take(column.width).enumerate() {
                row.number(column, i, cell.number.read(bytes))
                    .map_err(|fault| fault.at(path, Place::Row(r), column))?;
            }
        }
        log.push(&mut row, &|| Place::Row(r))?;
    }
    for stream in streams {
        if !stream.ended().map_err(|error| failed(path, error))? {
            let reason = format!("an array goes on after its {rows} rows");
            return Err(DataError::Format { path: path.to_owned(), reason });
        }
    }
    log.finish()
}
