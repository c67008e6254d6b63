//! NumPy: `.npz` archives of arrays `[N]` and `[N, W]`, of episodes `[E, T, W]` or parallel environments `[T, N, W]`;
//! `.npy` files of a structured or a 2-D array.

use std::{
    io::{self, Cursor, ErrorKind, Read, Seek},
    path::Path,
};

use npyz::{DType, Endianness, NpyFile, NpyHeader, Order, TypeChar, TypeStr, npz::NpzArchive};

use super::{
    DataError, Layout, ReadOptions,
    input::Input,
    layout::{Field, Kind, Part},
    table::Table,
};

/// Bytes per row. More than this means a damaged header, not a reason to request so much memory.
const LARGEST_ROW: usize = 1 << 28;

/// A file or bytes.
trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

fn source(input: &Input) -> io::Result<Box<dyn Source + '_>> {
    Ok(match &input.bytes {
        Some(bytes) => Box::new(Cursor::new(bytes.as_slice())),
        None => Box::new(io::BufReader::new(std::fs::File::open(&input.path)?)),
    })
}

/// An archive as `np.savez` and `np.savez_compressed` write it.
pub(super) fn read_npz(input: &Input, layout: &Layout, options: &ReadOptions) -> Result<Table, DataError> {
    let path = input.path.as_path();
    let failed = |error| failed(path, error);
    let mut archive = NpzArchive::new(source(input).map_err(failed)?).map_err(failed)?;
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let mut headers = Vec::with_capacity(names.len());
    let mut fields = Vec::with_capacity(names.len());
    for name in names {
        // An array that cannot be understood matters only if it is needed.
        let header = match archive.by_name(&name) {
            Ok(file) => file.map(|file| file.header().clone()).ok_or_else(|| "nothing".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        fields.push(Field::new(name, Kind::Other(String::new())));
        headers.push(header);
    }
    // The observation's shape determines whether rows are `[N]`, or `[E, T]` or `[T, N]`.
    let obs = layout.obs_columns(options.stored.as_ref(), path, &fields);
    let header_of = |name: &String| fields.iter().position(|f| f.name == *name).and_then(|i| headers[i].as_ref().ok());
    let axes = match obs.first().and_then(header_of).map(|header| header.shape().len()) {
        Some(3) => 2,
        _ => 1,
    };
    for (field, header) in fields.iter_mut().zip(&headers) {
        field.kind = match header {
            Ok(header) => array_kind(header, axes),
            Err(error) => Kind::Other(format!("{error} (an array of objects? store numbers, by np.savez)")),
        };
    }
    let plan = layout.plan(options.stored.as_ref(), path, &fields)?;

    let mut arrays = Vec::with_capacity(plan.uses.len());
    for used in &plan.uses {
        let Some(file) = archive.by_name(&used.name).map_err(failed)? else {
            return Err(failed(ErrorKind::UnexpectedEof.into()));
        };
        let header = file.header().clone();
        arrays.push(Array { lead: header.shape()[..axes].to_vec(), values: values(file, &header, path)? });
    }
    let mut table = Table::new(path, plan);
    match axes {
        1 => by_rows(&mut table, arrays)?,
        _ => by_episodes(&mut table, arrays, options)?,
    }
    Ok(table)
}

/// An array with its leading axes, which are rows.
struct Array {
    lead: Vec<u64>,
    values: Vec<f64>,
}

/// Arrays `[N]`. If there is one more observation than steps, it is the last one of an episode.
fn by_rows(table: &mut Table, arrays: Vec<Array>) -> Result<(), DataError> {
    let lengths: Vec<(String, u64)> =
        table.plan.uses.iter().zip(&arrays).map(|(u, array)| (u.name.clone(), array.lead[0])).collect();
    let rows = table.plan.of(Part::Obs).map(|(i, _)| lengths[i].1).max().unwrap_or(0);
    for (index, array) in arrays.into_iter().enumerate() {
        let used = &table.plan.uses[index];
        let mut values = array.values;
        match rows.checked_sub(array.lead[0]) {
            Some(0) => {}
            Some(1) if used.part != Part::Obs => values.resize(rows as usize * used.width, f64::NAN),
            // A row more than observations where there are next ones: nothing is lost.
            _ => return Err(DataError::Lengths { path: table.path.clone(), lengths }),
        }
        // The episode of the last observation is that of the step before it.
        if used.part == Part::Episode && array.lead[0] + 1 == rows && rows > 1 {
            values[rows as usize - 1] = values[rows as usize - 2];
        }
        table.columns[index].values = values;
    }
    let shorter: Vec<&str> = lengths.iter().filter(|(_, n)| *n + 1 == rows).map(|(name, _)| name.as_str()).collect();
    if !shorter.is_empty() {
        table.notes.push(format!("{rows} observations of {} steps: the last one ends an episode", rows - 1));
    }
    table.rows = rows as usize;
    Ok(())
}

/// Arrays `[E, T, …]`, one episode each, or `[T, N, …]`, parallel environments. Observations change less along the time
/// than across episodes.
fn by_episodes(table: &mut Table, arrays: Vec<Array>, options: &ReadOptions) -> Result<(), DataError> {
    let lengths = || {
        let entry = |(u, array): (&super::layout::Use, &Array)| (format!("{} {:?}", u.name, array.lead), array.lead[0]);
        table.plan.uses.iter().zip(&arrays).map(entry).collect::<Vec<_>>()
    };
    let Some((obs, Part::Obs)) = table.plan.uses.first().map(|u| (&arrays[0], u.part)) else {
        return Err(DataError::Empty { path: table.path.clone() });
    };
    let lead = [obs.lead[0] as usize, obs.lead[1] as usize];
    if lead.contains(&0) {
        return Err(DataError::Empty { path: table.path.clone() });
    }
    let width = table.plan.uses[0].width;
    let time = match options.time_axis {
        Some(axis @ (0 | 1)) => axis,
        Some(axis) => {
            let reason = format!("time_axis = {axis}: expected 0 or 1");
            return Err(DataError::Format { path: table.path.clone(), reason });
        }
        // One episode, or one environment.
        None if lead[0] == 1 => 1,
        None if lead[1] == 1 => 0,
        None => {
            let change = |axis| mean_change(&obs.values, lead, width, axis);
            usize::from(change(1) < change(0))
        }
    };
    let (steps, episodes) = (lead[time], lead[1 - time]);
    table.notes.push(match time {
        1 => format!("arrays {lead:?}: {episodes} episodes of {steps} rows each (axis 1 is the time)"),
        _ => format!("arrays {lead:?}: {episodes} environments side by side, {steps} rows each (axis 0 is the time)"),
    });
    let mut columns = Vec::with_capacity(arrays.len());
    for (used, array) in table.plan.uses.iter().zip(&arrays) {
        let own = [array.lead[0] as usize, array.lead[1] as usize];
        // One more observation than steps.
        let shorter = own[time] + 1 == steps && used.part != Part::Obs;
        if own[1 - time] != episodes || own[time] != steps && !shorter {
            return Err(DataError::Lengths { path: table.path.clone(), lengths: lengths() });
        }
        let mut values = Vec::with_capacity(steps * episodes * used.width);
        for episode in 0..episodes {
            for step in 0..steps {
                if step == own[time] {
                    values.resize(values.len() + used.width, f64::NAN);
                    continue;
                }
                let row = if time == 1 { episode * own[1] + step } else { step * own[1] + episode };
                values.extend_from_slice(&array.values[row * used.width..][..used.width]);
            }
        }
        columns.push(values);
    }
    for (column, values) in table.columns.iter_mut().zip(columns) {
        column.values = values;
    }
    table.rows = steps * episodes;
    table.breaks = (1..episodes).map(|episode| episode * steps).collect();
    Ok(())
}

/// Mean square of the changes along an axis.
fn mean_change(values: &[f64], lead: [usize; 2], width: usize, axis: usize) -> f64 {
    let row = |i: usize, j: usize| &values[(i * lead[1] + j) * width..][..width];
    let (mut sum, mut count) = (0.0, 0_u64);
    for i in 0..lead[0] - usize::from(axis == 0) {
        for j in 0..lead[1] - usize::from(axis == 1) {
            let next = if axis == 0 { row(i + 1, j) } else { row(i, j + 1) };
            for change in next.iter().zip(row(i, j)).map(|(b, a)| (b - a).powi(2)).filter(|c| c.is_finite()) {
                sum += change;
                count += 1;
            }
        }
    }
    sum / count as f64
}

/// One array: records with named fields, or a matrix whose columns the layout names.
pub(super) fn read_npy(input: &Input, layout: &Layout, options: &ReadOptions) -> Result<Table, DataError> {
    let path = input.path.as_path();
    let failed = |error| failed(path, error);
    let file = NpyFile::new(source(input).map_err(failed)?).map_err(failed)?;
    let header = file.header().clone();
    let malformed = |reason: String| Err(DataError::Format { path: path.to_owned(), reason });
    let shape = header.shape();

    // Byte offset within a row, and number type of each column.
    let (mut fields, mut places): (Vec<Field>, Vec<(usize, Option<Number>)>) = (Vec::new(), Vec::new());
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
                    None => Kind::Other(unusable(&field.dtype)),
                };
                // An object has no size, and a single one turns the whole array into a pickle.
                let after = field.dtype.num_bytes().map_or(usize::MAX, |size| size.saturating_add(offset));
                if after > LARGEST_ROW {
                    let (name, dtype) = (field.name, field.dtype.descr());
                    return malformed(format!(
                        "field `{name}` of dtype {dtype}, expected numbers or text of a fixed size"
                    ));
                }
                fields.push(Field::new(field.name, kind));
                places.push((offset, number));
                offset = after;
            }
            offset
        }
        (dtype, [_] | [_, _]) => {
            let Some(number) = plain(&dtype).and_then(Number::of) else {
                return malformed(format!("{}, expected integers, floats or booleans", unusable(&dtype)));
            };
            let width = shape.get(1).map_or(1, |width| *width as usize);
            if layout.names.len() != width {
                let given = layout.names.len();
                return malformed(format!("an array of {width} columns without names; the layout names {given}"));
            }
            for (i, name) in layout.names.iter().enumerate() {
                fields.push(Field::new(name.clone(), Kind::Numbers(1)));
                places.push((i * number.size, Some(number)));
            }
            width * number.size
        }
        _ => return malformed(format!("an array of shape {shape:?}, expected one or two dimensions")),
    };

    let plan = layout.plan(options.stored.as_ref(), path, &fields)?;
    let mut table = Table::new(path, plan);
    let rows = shape[0];
    let bytes = ordered_bytes(file, &header, row_size, path)?;
    for (column, used) in table.columns.iter_mut().zip(&table.plan.uses) {
        let (offset, Some(number)) = places[used.field] else { continue };
        for row in bytes.chunks_exact(row_size.max(1)) {
            column.values.extend(row[offset..].chunks_exact(number.size).take(used.width).map(|b| number.read(b)));
        }
    }
    table.rows = rows as usize;
    Ok(table)
}

fn failed(path: &Path, source: io::Error) -> DataError {
    match source.kind() {
        // Errors of NumPy's format or of the archive, not of the operating system.
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::Other | ErrorKind::InvalidInput => {
            DataError::Format { path: path.to_owned(), reason: source.to_string() }
        }
        _ => DataError::Io { path: path.to_owned(), source },
    }
}

/// What an array of an archive can be used for, if its first `axes` axes are rows.
fn array_kind(header: &NpyHeader, axes: usize) -> Kind {
    let shape = header.shape();
    match plain(&header.dtype()).and_then(Number::of) {
        None => Kind::Other(unusable(&header.dtype())),
        Some(_) if shape.len() == axes => Kind::Numbers(1),
        Some(number) if shape.len() == axes + 1 && shape[axes] <= (LARGEST_ROW / number.size) as u64 => {
            Kind::Numbers(shape[axes] as usize)
        }
        Some(_) => Kind::Other(format!("an array of shape {shape:?}")),
    }
}

/// A description of a type, with advice.
fn unusable(dtype: &DType) -> String {
    let is_long =
        plain(dtype).is_some_and(|t| t.type_char() == TypeChar::Float && t.num_bytes().is_some_and(|n| n > 8));
    let advice =
        if is_long { " (a long double differs from machine to machine: store it by .astype('f8'))" } else { "" };
    format!("dtype {}{advice}", dtype.descr())
}

fn plain(dtype: &DType) -> Option<&TypeStr> {
    match dtype {
        DType::Plain(single) => Some(single),
        _ => None,
    }
}

/// How a number is stored in bytes.
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
    /// `None` for types that are not numbers, and for floats beyond 64 bits.
    fn of(dtype: &TypeStr) -> Option<Self> {
        let size = dtype.num_bytes()?;
        let form = match (dtype.type_char(), size) {
            (TypeChar::Float, 2 | 4 | 8) => Form::Float,
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
            Form::Float if self.size == 2 => super::half(bits as u16),
            Form::Float if self.size == 4 => f64::from(f32::from_bits(bits as u32)),
            Form::Float => f64::from_bits(bits),
            // The shift back extends the sign.
            Form::Signed => ((bits << unused) as i64 >> unused) as f64,
            Form::Unsigned => bits as f64,
        }
    }
}

/// All numbers of an array, row by row.
fn values<R: Read>(file: NpyFile<R>, header: &NpyHeader, path: &Path) -> Result<Vec<f64>, DataError> {
    let Some(number) = plain(&header.dtype()).and_then(Number::of) else { return Ok(Vec::new()) };
    let row: u64 = header.shape().iter().skip(1).product();
    let bytes = ordered_bytes(file, header, number.size * row as usize, path)?;
    Ok(bytes.chunks_exact(number.size).map(|bytes| number.read(bytes)).collect())
}

/// The bytes of an array in rows of `row_size`, with the last axis varying fastest.
fn ordered_bytes<R: Read>(
    file: NpyFile<R>,
    header: &NpyHeader,
    row_size: usize,
    path: &Path,
) -> Result<Vec<u8>, DataError> {
    let rows = header.shape().first().copied().unwrap_or(0);
    let size = rows.saturating_mul(row_size as u64);
    let mut input = file.into_inner();
    let mut bytes = Vec::new();
    // No more than is there: a header may claim anything.
    (&mut input).take(size).read_to_end(&mut bytes).map_err(|error| failed(path, error))?;
    let malformed = |reason| Err(DataError::Format { path: path.to_owned(), reason });
    if (bytes.len() as u64) < size {
        return malformed(format!("ends at row {} of {rows}", bytes.len() / row_size.max(1)));
    }
    // An archive checks its checksums at the end.
    if input.read(&mut [0]).map_err(|error| failed(path, error))? != 0 {
        return malformed(format!("an array goes on after its {rows} rows"));
    }
    let shape: Vec<usize> = header.shape().iter().map(|n| *n as usize).collect();
    if header.order() != Order::Fortran || shape.len() < 2 || bytes.is_empty() {
        return Ok(bytes);
    }
    let count: usize = shape.iter().product();
    let entry = bytes.len() / count;
    let mut ordered = vec![0; bytes.len()];
    // The position of each entry in column-major order.
    let mut index = vec![0; shape.len()];
    for place in ordered.chunks_exact_mut(entry) {
        let at = index.iter().zip(&shape).rev().fold(0, |at, (i, n)| at * n + i);
        place.copy_from_slice(&bytes[at * entry..][..entry]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(ordered)
}
