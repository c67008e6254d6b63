//! The file format safetensors: the length of a header (`u64`, little-endian), the header (JSON), the numbers.
//!
//! A hundred lines are less than a dependency, and tensors and words come out in one order, so that equal policies are equal files.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Headers longer than this are none (the format's own limit).
const LONGEST_HEADER: u64 = 100_000_000;
const METADATA: &str = "__metadata__";
const WHAT: &str = "no whole file of safetensors";

/// Numbers with a shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

impl Array {
    /// One column.
    pub(super) fn of(values: &[f32]) -> Self {
        Self { shape: vec![values.len()], values: values.to_vec() }
    }
}

/// What a file holds: words by their keys, arrays and plain bytes by their names.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct File {
    pub(super) words: BTreeMap<String, String>,
    pub(super) arrays: BTreeMap<String, Array>,
    pub(super) bytes: BTreeMap<String, Vec<u8>>,
}

impl File {
    /// The same bytes for the same content.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let words =
            self.words.iter().map(|(key, word)| (key.clone(), Value::from(word.as_str()))).collect::<Map<_, _>>();
        let mut header = Map::from_iter([(METADATA.to_owned(), Value::Object(words))]);
        let mut from = 0;
        for (name, Array { shape, values }) in &self.arrays {
            let to = from + 4 * values.len();
            header.insert(
                name.clone(),
                serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, to] }),
            );
            from = to;
        }
        for (name, bytes) in &self.bytes {
            let to = from + bytes.len();
            let entry = serde_json::json!({ "dtype": "U8", "shape": [bytes.len()], "data_offsets": [from, to] });
            header.insert(name.clone(), entry);
            from = to;
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        // So that the numbers are aligned.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(self.arrays.values().flat_map(|array| &array.values).flat_map(|value| value.to_le_bytes()));
        bytes.extend(self.bytes.values().flatten());
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) or another program wrote; otherwise what is wrong with it.
    pub(super) fn of_bytes(bytes: &[u8]) -> Result<Self, String> {
        let broken = |what: &str| format!("{WHAT}: {what}");
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| broken("it ends in the header"))?;
        let length = u64::from_le_bytes(*length);
        if length > LONGEST_HEADER {
            return Err(broken("it does not begin with the length of a header"));
        }
        let (header, body) = rest.split_at_checked(length as usize).ok_or_else(|| broken("it ends in the header"))?;
        let mut header: Map<String, Value> =
            serde_json::from_slice(header).map_err(|error| broken(&format!("its header is no JSON ({error})")))?;
        let words = match header.remove(METADATA) {
            None => BTreeMap::new(),
            Some(words) => serde_json::from_value(words).map_err(|_| broken("its metadata are not all text"))?,
        };
        let mut places = Vec::with_capacity(header.len());
        for (name, entry) in header {
            let dtype = entry.get("dtype").and_then(Value::as_str).unwrap_or("none");
            let width = match dtype {
                "F32" => 4_usize,
                "U8" => 1,
                _ => return Err(format!("tensor {name}: dtype = {dtype}: expected F32 or U8")),
            };
            let numbers = |key: &str| -> Option<Vec<usize>> {
                let list = entry.get(key)?.as_array()?;
                list.iter().map(|n| usize::try_from(n.as_u64()?).ok()).collect()
            };
            let (shape, offsets) = (numbers("shape"), numbers("data_offsets"));
            let (Some(shape), Some(&[from, to])) = (shape, offsets.as_deref()) else {
                return Err(broken(&format!("tensor {name} has no shape or no place")));
            };
            let size = shape.iter().try_fold(width, |size, width| size.checked_mul(*width));
            if to.checked_sub(from).is_none_or(|length| Some(length) != size) {
                return Err(broken(&format!("tensor {name} of shape {shape:?} at bytes {from} to {to}")));
            }
            places.push((from, to, name, shape, width));
        }
        places.sort_unstable();
        let mut end = 0;
        let (mut arrays, mut plain) = (BTreeMap::new(), BTreeMap::new());
        for (from, to, name, shape, width) in places {
            let Some(part) = body.get(from..to).filter(|_| from == end) else {
                return Err(broken(&format!("{} bytes of numbers, and tensor {name} at {from} to {to}", body.len())));
            };
            if width == 1 {
                plain.insert(name, part.to_vec());
            } else {
                let values = part.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                arrays.insert(name, Array { shape, values });
            }
            end = to;
        }
        if end != body.len() {
            return Err(broken(&format!("{} bytes of numbers, and tensors of {end}", body.len())));
        }
        Ok(Self { words, arrays, bytes: plain })
    }

    /// CRC-32 of all words but `except`, by key, each with what names it, and of all numbers.
    pub(super) fn checksum(&self, except: &str) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        for (key, word) in self.words.iter().filter(|(key, _)| *key != except) {
            for part in [key, word] {
                sum.update(part.as_bytes());
                sum.update(&[0]);
            }
        }
        for value in self.arrays.values().flat_map(|array| &array.values) {
            sum.update(&value.to_le_bytes());
        }
        self.bytes.values().for_each(|bytes| sum.update(bytes));
        sum.finalize()
    }

    /// Refuses a file that says it is something else, of another version, or that is not what its checksum says.
    pub(super) fn check(&self, format: &str, version: &str, checksum: &str) -> Result<(), String> {
        let word = |key: &str| self.words.get(key).map(String::as_str);
        match (word("format"), word("format_version")) {
            (Some(found), Some(of)) if found == format && of == version => {}
            (Some(found), of) if found == format => {
                let of = of.unwrap_or("none");
                return Err(format!("format_version = {of}: expected {version}, the version that this program reads"));
            }
            (found, _) => {
                let way = match found {
                    Some("mbrl-policy") => {
                        "; it holds a policy: evaluate the run that it is from, or act with `ExportedPolicy`"
                    }
                    Some("mbrl-agent") => "; it holds an agent that plans: `mbrl eval FILE`, or `ExportedAgent`",
                    _ => "",
                };
                return Err(format!(
                    "format = {}: expected {format}, as `mbrl export` writes it{way}",
                    found.map_or("none".to_owned(), |found| format!("{found:?}"))
                ));
            }
        }
        let (sum, told) = (format!("{:08x}", self.checksum(checksum)), word(checksum));
        match told {
            Some(told) if told == sum => Ok(()),
            told => Err(format!("damaged: its checksum is {sum}, and it says {}", told.unwrap_or("none"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(header: &str, body: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), body].concat()
    }

    #[test]
    fn files_of_other_programs_are_read_in_any_order() {
        let header = r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                         "a":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},"__metadata__":{"format":"pt"}}"#;
        let body: Vec<u8> = [1.0_f32, 2.0, 3.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let file = File::of_bytes(&written(header, &body)).unwrap();
        assert_eq!(file.arrays["b"], Array::of(&[1.0]));
        assert_eq!(file.arrays["a"], Array { shape: vec![2, 1], values: vec![2.0, 3.0] });
        assert_eq!(file.words["format"], "pt");
        assert_eq!(File::of_bytes(&file.to_bytes()), Ok(file));
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let one =
            |entry: &str, body: &[u8]| File::of_bytes(&written(&format!(r#"{{"a":{entry}}}"#), body)).unwrap_err();
        let f32s = r#""dtype":"F32","shape":"#;
        for (entry, body, said) in [
            (format!(r#"{{{f32s}[1],"data_offsets":[0,4]}}"#), &[0; 3][..], "3 bytes of numbers"),
            (format!(r#"{{{f32s}[1],"data_offsets":[0,4]}}"#), &[0; 5], "5 bytes of numbers, and tensors of 4"),
            (format!(r#"{{{f32s}[1],"data_offsets":[4,8]}}"#), &[0; 8], "tensor a at 4 to 8"),
            (format!(r#"{{{f32s}[2],"data_offsets":[0,4]}}"#), &[0; 4], "of shape [2]"),
            (format!(r#"{{{f32s}[1],"data_offsets":[4,0]}}"#), &[0; 4], "at bytes 4 to 0"),
            (format!(r#"{{{f32s}[9223372036854775807,9],"data_offsets":[0,4]}}"#), &[0; 4], "of shape"),
            (format!(r#"{{{f32s}[-1],"data_offsets":[0,4]}}"#), &[0; 4], "no shape"),
            (r#"{"dtype":"F16","shape":[1],"data_offsets":[0,2]}"#.to_owned(), &[0; 2], "dtype = F16: expected F32"),
            ("3".to_owned(), &[], "dtype = none"),
        ] {
            let error = one(&entry, body);
            assert!(error.contains(said), "{entry}: {error}, expected {said}");
        }
        let header = File::of_bytes(&written("{\"a\":", &[])).unwrap_err();
        assert!(header.contains("its header is no JSON"), "{header}");
        assert!(File::of_bytes(b"PK\x03\x04 some other file").unwrap_err().contains("length of a header"));
    }
}
