//! Text: one row per line, with fields separated by commas, semicolons, tabs, bars or blanks.

use std::io::{self, BufRead, Cursor, Read};

use super::{
    DataError, Layout, Place, ReadOptions,
    input::Input,
    layout::{Field, Kind, Part},
    table::{Table, is_nothing, number},
};

/// Number of bytes examined to detect the format of a file.
const HEAD: usize = 1 << 16;
/// Number of lines of these.
const LINES: usize = 60;
/// Longest unit in a row of units.
const LONGEST_UNIT: usize = 12;

/// The separator of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Separator {
    Byte(u8),
    /// Any number of blanks and tabs.
    Blanks,
}

impl Separator {
    fn name(self) -> String {
        match self {
            Self::Byte(b'\t') => "tabs".into(),
            Self::Byte(byte) => format!("`{}`", char::from(byte)),
            Self::Blanks => "blanks".into(),
        }
    }
}

pub(super) fn read(input: &Input, layout: &Layout, options: &ReadOptions) -> Result<Table, DataError> {
    let path = &input.path;
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let malformed = |reason: String| DataError::Format { path: path.to_owned(), reason };
    let mut file = input.open().map_err(io)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(io)?;
    let mut notes = Vec::new();
    let file: Box<dyn BufRead> = match utf16(&head) {
        Some(big_endian) => {
            file.read_to_end(&mut head).map_err(io)?;
            head = decoded(&head, big_endian).ok_or_else(|| malformed("text in UTF-16 that is damaged".into()))?;
            notes.push("text in UTF-16".to_owned());
            Box::new(Cursor::new(head.clone()))
        }
        None => {
            if let Some(at) = head.iter().position(|byte| *byte == 0) {
                let reason = format!("byte {at} is 0: no text, expected CSV, Parquet, .npz or .npy");
                return Err(malformed(reason));
            }
            Box::new(Cursor::new(head.clone()).chain(file))
        }
    };
    if head.starts_with(b"\xef\xbb\xbf") {
        head.drain(..3);
    }

    let shown: Vec<&[u8]> = sample(&head);
    let separator = match options.delimiter {
        Some(' ') => Separator::Blanks,
        Some(character) => Separator::Byte(
            u8::try_from(character)
                .map_err(|_| malformed(format!("delimiter = {character}: expected an ASCII character")))?,
        ),
        None => sniffed(&shown),
    };
    if separator != Separator::Byte(b',') {
        notes.push(format!("fields separated by {}", separator.name()));
    }

    let mut lines = Lines { file, separator, line: 0, next_line: 1, cells: Cells::default(), text: Vec::new() };
    // The head: comments, then names.
    let (mut comment, mut comments) = (Vec::new(), 0);
    loop {
        if !lines.next().map_err(io)? {
            return Err(DataError::Empty { path: path.to_owned() });
        }
        if let Some(text) = comment_of(&lines.text) {
            comment = text.to_vec();
            comments += 1;
        } else if !lines.is_blank() {
            break;
        }
    }
    if comments > 0 {
        notes.push(format!("{comments} lines of comment above the data"));
    }
    let first = lines.cells.words();
    let is_numeric = |word: &String| number(word).is_some() || is_nothing(word);
    // Only numbers: no names. (An empty field in a header is a name that was left out.)
    let headless = first.iter().all(is_numeric) && first.iter().any(|word| !is_nothing(word));
    let width = first.len();
    let names = if !layout.names.is_empty() {
        if layout.names.len() != width {
            let given = layout.names.len();
            return Err(malformed(format!("{width} columns; the layout names {given}")));
        }
        layout.names.clone()
    } else if headless {
        let mut cells = Cells::default();
        cells.split(&comment, separator);
        let mut words = cells.words();
        // `np.savetxt` puts the names into a comment, and commas where the data may have blanks.
        if words.len() != width {
            cells.split(&comment, Separator::Byte(b','));
            words = cells.words();
        }
        if words.len() != width || words.iter().any(is_numeric) {
            let reason = format!(
                "line {} holds numbers, expected the names of the {width} columns; where there are none, name them \
                 (`names` of the layout)",
                lines.line
            );
            return Err(malformed(reason));
        }
        notes.push("names from the comment above the data".into());
        words
    } else {
        first.clone()
    };
    let header = (!headless).then(|| first.clone());
    let mut fields: Vec<Field> = names.iter().map(|name| Field::new(name.trim(), Kind::Numbers(1))).collect();
    // Empty names are replaced.
    fields.iter_mut().filter(|field| field.name.is_empty()).for_each(|field| field.name = "(no name)".into());

    let plan = layout.plan(options.stored.as_ref(), path, &fields)?;
    let mut table = Table::new(path, plan);
    let mut decimal_commas = None;
    let mut pending_break = false;
    let mut is_first = true;
    let mut held = headless;
    let mut repeated_headers = 0;
    loop {
        // The first line without names is a row.
        if !std::mem::take(&mut held) && !lines.next().map_err(io)? {
            break;
        }
        if lines.is_blank() || lines.cells.are_empty() {
            pending_break = true;
            continue;
        }
        if comment_of(&lines.text).is_some() {
            continue;
        }
        if header.as_ref().is_some_and(|header| lines.cells.equal(header)) {
            // Files that were concatenated.
            repeated_headers += 1;
            pending_break = true;
            continue;
        }
        let found = lines.cells.len();
        // A separator after the last field.
        let trailing = found == width + 1 && lines.cells.get(width).is_empty();
        if found != width && !trailing {
            let at = Place::Line(lines.line);
            return Err(DataError::Fields { path: path.to_owned(), at, expected: width, actual: found });
        }
        if std::mem::take(&mut is_first) && !headless {
            let used = table.plan.uses.iter().filter(|u| matches!(u.part, Part::Obs | Part::Action));
            let words: Vec<String> = used.map(|u| lines.cells.word(u.field)).collect();
            let is_unit = |word: &String| !is_numeric(word) && word.chars().count() <= LONGEST_UNIT;
            if words.iter().all(is_unit) && lines.next_is_numeric(&table) {
                for used in &mut table.plan.uses {
                    used.unit = lines.cells.word(used.field).trim_matches(['[', ']', '(', ')']).to_owned();
                }
                notes.push(format!("line {} holds the units", lines.line));
                continue;
            }
        }
        if std::mem::take(&mut pending_break) && table.rows > 0 {
            table.breaks.push(table.rows);
        }
        table.lines.push(lines.line);
        for index in 0..table.plan.uses.len() {
            let cell = lines.cells.get(table.plan.uses[index].field);
            if decimal_commas.is_none() && cell.contains(&b',') && !table.plan.uses[index].part.is_flag() {
                decimal_commas = Some(String::from_utf8_lossy(cell).trim().to_owned());
            }
            table.text(index, cell).map_err(|fault| table.fault(table.rows, index, fault))?;
        }
        table.rows += 1;
    }
    // A program that writes each line end twice.
    if 2 * table.breaks.len() > table.rows && table.breaks.len() > 3 {
        table.breaks.clear();
        notes.push("blank lines between all rows end no episode".into());
    }
    if let Some(cell) = decimal_commas.filter(|cell| number(cell).is_some()) {
        notes.push(format!("decimal commas, as in {cell}"));
    }
    if repeated_headers > 0 {
        notes.push(format!("the header comes again {repeated_headers} times: each begins an episode"));
    }
    table.notes = notes;
    Ok(table)
}

/// Whether a head is UTF-16, and if so, whether it is big-endian.
fn utf16(head: &[u8]) -> Option<bool> {
    match head {
        [0xff, 0xfe, ..] => Some(false),
        [0xfe, 0xff, ..] => Some(true),
        // Without a byte order mark: every other byte of plain letters is 0.
        [first, 0, second, 0, ..] if first.is_ascii() && second.is_ascii() => Some(false),
        [0, first, 0, second, ..] if first.is_ascii() && second.is_ascii() && *first != 0 => Some(true),
        _ => None,
    }
}

fn decoded(bytes: &[u8], big_endian: bool) -> Option<Vec<u8>> {
    let unit = |pair: &[u8]| match big_endian {
        true => u16::from_be_bytes([pair[0], pair[1]]),
        false => u16::from_le_bytes([pair[0], pair[1]]),
    };
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2).map(unit);
    let text: Result<String, _> = char::decode_utf16(units).collect();
    Some(text.ok()?.trim_start_matches('\u{feff}').as_bytes().to_vec())
}

/// The text of a comment line.
fn comment_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii_start();
    // A spreadsheet's declaration of the separator.
    if line.len() <= 6 && line.to_ascii_lowercase().starts_with(b"sep=") {
        return Some(b"");
    }
    let rest = [&b"#"[..], b"%", b"//"].iter().find_map(|mark| line.strip_prefix(*mark))?;
    // A name such as `#time` is a comment, a code such as `#N/A` is not.
    (!line.to_ascii_lowercase().starts_with(b"#n/a")).then(|| rest.trim_ascii())
}

/// The first lines that are not empty, without comments and without the line in which the head breaks off.
fn sample(head: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = head.split(|byte| matches!(byte, b'\n' | b'\r')).collect();
    if head.len() >= HEAD && lines.len() > 1 {
        lines.pop();
    }
    lines.retain(|line| !line.trim_ascii().is_empty() && comment_of(line).is_none());
    lines.truncate(LINES);
    lines
}

/// The separator with which most lines have as many fields as the first one, most of them numbers.
fn sniffed(lines: &[&[u8]]) -> Separator {
    let candidates = [
        Separator::Byte(b','),
        Separator::Byte(b';'),
        Separator::Byte(b'\t'),
        Separator::Byte(b'|'),
        Separator::Blanks,
    ];
    let mut best = (0.0, 0.0, Separator::Byte(b','));
    for separator in candidates {
        let mut cells = Cells::default();
        let (mut first, mut alike, mut numeric, mut all) = (0, 0, 0, 0_usize);
        for (i, line) in lines.iter().enumerate() {
            cells.split(line, separator);
            if i == 0 {
                first = cells.len();
            }
            alike += usize::from(cells.len() == first);
            for word in cells.words() {
                numeric += usize::from(number(&word).is_some() || is_nothing(&word));
                all += 1;
            }
        }
        if first < 2 {
            continue;
        }
        let score = (alike as f64 / lines.len() as f64, numeric as f64 / all.max(1) as f64, separator);
        // Fields of other separators may contain blanks, so blanks are chosen only if nothing else fits.
        let is_better = (score.0, score.1) > (best.0, best.1);
        if is_better && !(separator == Separator::Blanks && best.0 > 0.5) {
            best = score;
        }
    }
    best.2
}

/// The fields of a line.
#[derive(Debug, Default)]
struct Cells {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Cells {
    /// Splits a line. Quoted fields may contain separators, line ends and, doubled, quotes.
    fn split(&mut self, line: &[u8], separator: Separator) {
        self.bytes.clear();
        self.ends.clear();
        let line = if separator == Separator::Blanks { line.trim_ascii() } else { line };
        let is_apart = |byte: u8| match separator {
            Separator::Byte(separator) => byte == separator,
            Separator::Blanks => byte == b' ' || byte == b'\t',
        };
        let mut at = 0;
        loop {
            // One field: blanks before a quote do not belong to it.
            let start = at + line[at..].iter().take_while(|byte| **byte == b' ' && !is_apart(**byte)).count();
            if line.get(start) == Some(&b'"') {
                at = start + 1;
                while let Some(&byte) = line.get(at) {
                    at += 1;
                    if byte == b'"' {
                        if line.get(at) != Some(&b'"') {
                            break;
                        }
                        at += 1;
                    }
                    self.bytes.push(byte);
                }
            }
            while let Some(&byte) = line.get(at).filter(|byte| !is_apart(**byte)) {
                self.bytes.push(byte);
                at += 1;
            }
            self.ends.push(self.bytes.len());
            if at >= line.len() {
                return;
            }
            at += 1;
            if separator == Separator::Blanks {
                at += line[at..].iter().take_while(|byte| is_apart(**byte)).count();
            }
        }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    fn word(&self, i: usize) -> String {
        String::from_utf8_lossy(self.get(i)).trim().to_owned()
    }

    fn words(&self) -> Vec<String> {
        (0..self.len()).map(|i| self.word(i)).collect()
    }

    fn equal(&self, words: &[String]) -> bool {
        self.len() == words.len() && words.iter().enumerate().all(|(i, w)| self.get(i).trim_ascii() == w.as_bytes())
    }

    /// Whether all fields are empty, as in the blank rows of a spreadsheet.
    fn are_empty(&self) -> bool {
        self.bytes.trim_ascii().is_empty()
    }
}

/// A text, read line by line; a quoted field may continue over several.
struct Lines {
    file: Box<dyn BufRead>,
    separator: Separator,
    /// Number of the line on which the present one began, from 1.
    line: u64,
    /// Number of the next one.
    next_line: u64,
    text: Vec<u8>,
    cells: Cells,
}

impl Lines {
    /// Goes to the next line; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        self.line = self.next_line;
        self.text.clear();
        if !self.append()? {
            return Ok(false);
        }
        if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
            self.text.drain(..3);
        }
        // An odd number of quotes: the field continues.
        while self.text.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
            self.text.push(b'\n');
            if !self.append()? {
                break;
            }
        }
        self.cells.split(&self.text, self.separator);
        Ok(true)
    }

    /// Appends a line without its end, which is `\n`, `\r\n` or `\r`.
    fn append(&mut self) -> io::Result<bool> {
        let mut some = false;
        loop {
            let block = self.file.fill_buf()?;
            if block.is_empty() {
                self.next_line += u64::from(some);
                return Ok(some);
            }
            some = true;
            let Some(end) = block.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.text.extend_from_slice(block);
                let length = block.len();
                self.file.consume(length);
                continue;
            };
            self.text.extend_from_slice(&block[..end]);
            let is_return = block[end] == b'\r';
            self.file.consume(end + 1);
            if is_return && self.file.fill_buf()?.first() == Some(&b'\n') {
                self.file.consume(1);
            }
            self.next_line += 1;
            return Ok(true);
        }
    }

    fn is_blank(&self) -> bool {
        self.text.trim_ascii().is_empty()
    }

    /// Whether the next line holds numbers where the plan needs them.
    fn next_is_numeric(&mut self, table: &Table) -> bool {
        let Ok(block) = self.file.fill_buf() else { return false };
        let end = block.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(block.len());
        let mut cells = Cells::default();
        cells.split(&block[..end], self.separator);
        let mut used = table.plan.uses.iter().filter(|u| matches!(u.part, Part::Obs | Part::Action));
        used.all(|u| u.field < cells.len() && number(&cells.word(u.field)).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u64, Vec<String>)> {
        let file = Box::new(Cursor::new(text.as_bytes().to_vec()));
        let separator = Separator::Byte(b',');
        let mut lines = Lines { file, separator, line: 0, next_line: 1, cells: Cells::default(), text: Vec::new() };
        let mut found = Vec::new();
        while lines.next().unwrap() {
            found.push((lines.line, lines.cells.words()));
        }
        found
    }

    #[test]
    fn lines_are_those_of_an_editor() {
        let row = |line: u64, words: &[&str]| (line, words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(lines("a\n1\n2\n"), [row(1, &["a"]), row(2, &["1"]), row(3, &["2"])]);
        assert_eq!(lines("a\r\n\r\n2"), [row(1, &["a"]), row(2, &[""]), row(3, &["2"])]);
        assert_eq!(lines("a\r1\r2\r"), [row(1, &["a"]), row(2, &["1"]), row(3, &["2"])]);
        assert_eq!(lines("a,\"1\n\"\n2"), [row(1, &["a", "1"]), row(3, &["2"])]);
        assert_eq!(lines("\"x\"\"y\", \"b, c\" ,"), [row(1, &["x\"y", "b, c", ""])]);
    }

    #[test]
    fn separators_are_found() {
        let of = |text: &str| sniffed(&sample(text.as_bytes()));
        assert_eq!(of("x,v\n1,2\n"), Separator::Byte(b','));
        assert_eq!(of("x;v\n0,1;0,2\n"), Separator::Byte(b';'));
        // Without names, commas alone would give each line the same number of fields.
        assert_eq!(of("0,1;0,2;0,3\n0,1;0,2;0,3\n"), Separator::Byte(b';'));
        assert_eq!(of("x\tv y\n1\t2\n"), Separator::Byte(b'\t'));
        assert_eq!(of("x|v\n1|2\n"), Separator::Byte(b'|'));
        assert_eq!(of("  x   v\n 1.0  -2.0\n10.0 2.0\n"), Separator::Blanks);
        assert_eq!(of("x, v, u\n1, 2, 3\n"), Separator::Byte(b','));
        assert_eq!(of("x\n1\n"), Separator::Byte(b','));
        assert_eq!(of("# a; b; c\nx,note\n1,a;b\n2,c;d\n"), Separator::Byte(b','));
    }
}
