//! Reads expressions.

use std::{iter::Peekable, str::CharIndices};

use super::{
    ColumnNames, ExpressionError,
    evaluate::{call, compare, operate},
};
use crate::nearest::{did_you_mean, nearest, suggest};

/// Deepest nesting: each level is a recursive call of the parser and of the evaluation.
const DEEPEST: usize = 100;
/// Most words and signs: the tree of a long sum is as deep as the sum has terms.
const MOST: usize = 2000;
/// Longest text (bytes).
const LONGEST: usize = 20_000;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Number(f64),
    Truth(bool),
    Column(Whose, usize),
    Negate(Box<Node>),
    Operate(Operator, Box<Node>, Box<Node>),
    Call(Call, Vec<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
}

impl Node {
    /// How many nodes it is made of.
    fn size(&self) -> usize {
        1 + match self {
            Self::Number(_) | Self::Truth(_) | Self::Column(..) => 0,
            Self::Negate(inner) | Self::Not(inner) => inner.size(),
            Self::Operate(_, left, right)
            | Self::Compare(_, left, right)
            | Self::And(left, right)
            | Self::Or(left, right) => left.size() + right.size(),
            Self::Call(_, inner) => inner.iter().map(Self::size).sum(),
            Self::If(condition, yes, no) => condition.size() + yes.size() + no.size(),
        }
    }
}

/// Whose column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Before,
    After,
    Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Atan2,
    Abs,
    Exp,
    Log,
    Sqrt,
    Sign,
    Min,
    Max,
    Clamp,
}

/// Names of functions, and how many arguments they take.
const CALLS: &[(&str, Call, usize, usize)] = &[
    ("sin", Call::Sin, 1, 1),
    ("cos", Call::Cos, 1, 1),
    ("tan", Call::Tan, 1, 1),
    ("asin", Call::Asin, 1, 1),
    ("acos", Call::Acos, 1, 1),
    ("atan", Call::Atan, 1, 1),
    ("atan2", Call::Atan2, 2, 2),
    ("abs", Call::Abs, 1, 1),
    ("exp", Call::Exp, 1, 1),
    ("log", Call::Log, 1, 1),
    ("sqrt", Call::Sqrt, 1, 1),
    ("sign", Call::Sign, 1, 1),
    ("min", Call::Min, 1, usize::MAX),
    ("max", Call::Max, 1, usize::MAX),
    ("clamp", Call::Clamp, 3, 3),
];

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Truth,
}

impl Node {
    fn kind(&self) -> Kind {
        match self {
            Self::Truth(_) | Self::Compare(..) | Self::And(..) | Self::Or(..) | Self::Not(_) => Kind::Truth,
            _ => Kind::Number,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Word(String),
    Quoted(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn told(&self) -> String {
        match self {
            Self::Number(number) => format!("`{number}`"),
            Self::Word(word) => format!("`{word}`"),
            Self::Quoted(word) => format!("`\"{word}\"`"),
            Self::Symbol(symbol) => format!("`{symbol}`"),
            Self::End => "the end".into(),
        }
    }
}

const SYMBOLS: &[&str] = &[
    "<=", ">=", "==", "!=", "**", "&&", "||", "<", ">", "+", "-", "*", "/", "^", "(", ")", "[", "]", ",", ".", "=",
    "!", "%",
];

/// Parses a text of the given kind.
pub(super) fn parse(text: &str, columns: &ColumnNames, kind: Kind) -> Result<Node, ExpressionError> {
    let fail = |at: usize, reason: String| {
        let letter = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
        Err(ExpressionError { text: text.to_owned(), letter, reason })
    };
    if text.len() > LONGEST {
        let told = text.chars().take(60).collect::<String>() + "…";
        let reason = format!("{} bytes, expected at most {LONGEST}", text.len());
        return Err(ExpressionError { text: told, letter: 1, reason });
    }
    let tokens = match tokens(text) {
        Ok(tokens) => tokens,
        Err((at, reason)) => return fail(at, reason),
    };
    if tokens.len() > MOST {
        return fail(0, format!("{} words and signs, expected at most {MOST}", tokens.len()));
    }
    let mut parser = Parser { tokens: &tokens, at: 0, columns, depth: 0, doubled: 0 };
    let read = parser.any().and_then(|(node, begin)| match parser.peek() {
        Token::End => of_kind(node, begin, kind),
        other => {
            let hint = match other {
                Token::Symbol("=") => "; whether two numbers are equal is `==`",
                Token::Symbol("%") => ", and there is no remainder",
                _ => "",
            };
            Err((parser.place(), format!("found {}, expected an operator or the end{hint}", other.told())))
        }
    });
    read.or_else(|(at, reason)| fail(at, reason))
}

type Fault = (usize, String);

fn of_kind(node: Node, at: usize, kind: Kind) -> Result<Node, Fault> {
    match (node.kind(), kind) {
        (found, expected) if found == expected => Ok(node),
        (_, Kind::Number) => Err((at, "found a comparison, expected a number: `if(…, 1, 0)` converts it".into())),
        (_, Kind::Truth) => Err((at, "found a number, expected a comparison, such as `next.x > 1`".into())),
    }
}

/// The tokens of a text, each with the byte where it begins.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let mut found = Vec::new();
    let mut letters = text.char_indices().peekable();
    while let Some(&(at, letter)) = letters.peek() {
        if letter.is_whitespace() {
            letters.next();
        } else if letter.is_ascii_digit()
            || letter == '.' && text[at + 1..].starts_with(|c: char| c.is_ascii_digit()) && !ends_a_name(&found)
        {
            found.push((at, Token::Number(number(text, at, &mut letters)?)));
        } else if letter.is_alphabetic() || letter == '_' {
            let word: String = std::iter::from_fn(|| {
                letters.next_if(|(_, c)| (c.is_alphanumeric() || *c == '_') && !"²³".contains(*c)).map(|(_, c)| c)
            })
            .collect();
            found.push((at, Token::Word(word)));
        } else if letter == '"' || letter == '`' || letter == '\'' {
            letters.next();
            let word: String = std::iter::from_fn(|| letters.next_if(|(_, c)| *c != letter).map(|(_, c)| c)).collect();
            if letters.next().is_none() {
                return Err((at, format!("a name that begins with {letter} and does not end")));
            }
            found.push((at, Token::Quoted(word)));
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| text[at..].starts_with(**symbol)) {
            for _ in symbol.chars() {
                letters.next();
            }
            found.push((at, Token::Symbol(symbol)));
        } else {
            let hint = match letter {
                '×' | '·' => ": multiplication is `*`",
                '÷' => ": division is `/`",
                '−' | '–' => ": the minus sign is `-`",
                '≤' | '≥' => ": comparisons are `<=` and `>=`",
                '²' | '³' => ": powers are `^2` and `^3`",
                _ => "",
            };
            return Err((at, format!("found `{letter}`, which means nothing here{hint}")));
        }
    }
    found.push((text.len(), Token::End));
    Ok(found)
}

/// Whether a dot after these tokens separates words.
fn ends_a_name(tokens: &[(usize, Token)]) -> bool {
    matches!(tokens.last(), Some((_, Token::Word(_) | Token::Quoted(_) | Token::Symbol("]"))))
}

fn number(text: &str, at: usize, letters: &mut Peekable<CharIndices<'_>>) -> Result<f64, Fault> {
    let mut end = at;
    let mut before = ' ';
    while let Some((place, letter)) = letters.next_if(|(_, c)| {
        c.is_alphanumeric() || *c == '.' || *c == '_' || (matches!(c, '+' | '-') && matches!(before, 'e' | 'E'))
    }) {
        end = place + letter.len_utf8();
        before = letter;
    }
    let word = &text[at..end];
    match word.parse::<f64>() {
        Ok(number) if (number as f32).is_finite() => Ok(number),
        _ if word.ends_with(char::is_alphabetic) && word.starts_with(|c: char| c.is_ascii_digit()) => {
            Err((at, format!("found `{word}`, expected a number; a product needs its `*`")))
        }
        _ => Err((at, format!("found `{word}`, expected a finite number"))),
    }
}

#[derive(Debug)]
struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    at: usize,
    columns: &'a ColumnNames,
    depth: usize,
    /// Parts in the middle of chains of comparisons.
    doubled: usize,
}

/// A node, and the byte where its text begins.
type Read = Result<(Node, usize), Fault>;

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a Token {
        &self.tokens[self.at].1
    }

    fn place(&self) -> usize {
        self.tokens[self.at].0
    }

    fn next(&mut self) -> &'a Token {
        let token = self.peek();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// Takes a symbol if it comes next.
    fn takes(&mut self, symbol: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Symbol(next) if *next == symbol);
        if is_next {
            self.next();
        }
        is_next
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Word(next) if next == word);
        if is_next {
            self.next();
        }
        is_next
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.takes(symbol) {
            return Ok(());
        }
        Err((self.place(), format!("found {}, expected `{symbol}`", self.peek().told())))
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Read) -> Read {
        if self.depth >= DEEPEST {
            return Err((self.place(), format!("more than {DEEPEST} levels of brackets and signs")));
        }
        self.depth += 1;
        let found = read(self);
        self.depth -= 1;
        found
    }

    /// `or`, which has the lowest precedence.
    fn any(&mut self) -> Read {
        self.deeper(|parser| {
            let mut left = parser.all()?;
            loop {
                parser.refuse_symbol("||", "or")?;
                if !parser.takes_word("or") {
                    return Ok(left);
                }
                left = parser.joined(left, Self::all, Node::Or)?;
            }
        })
    }

    fn all(&mut self) -> Read {
        let mut left = self.not()?;
        loop {
            self.refuse_symbol("&&", "and")?;
            if !self.takes_word("and") {
                return Ok(left);
            }
            left = self.joined(left, Self::not, Node::And)?;
        }
    }

    fn refuse_symbol(&self, symbol: &str, word: &str) -> Result<(), Fault> {
        match self.peek() {
            Token::Symbol(next) if *next == symbol => {
                Err((self.place(), format!("found `{symbol}`, expected `{word}`")))
            }
            _ => Ok(()),
        }
    }

    /// Two truths.
    fn joined(
        &mut self,
        (left, at): (Node, usize),
        right: fn(&mut Self) -> Read,
        join: fn(Box<Node>, Box<Node>) -> Node,
    ) -> Read {
        let left = of_kind(left, at, Kind::Truth)?;
        let (right, right_at) = right(self)?;
        Ok((join(left.into(), of_kind(right, right_at, Kind::Truth)?.into()), at))
    }

    fn not(&mut self) -> Read {
        let at = self.place();
        self.refuse_symbol("!", "not")?;
        if !self.takes_word("not") {
            return self.comparison();
        }
        self.deeper(|parser| {
            let (node, inner) = parser.not()?;
            Ok((Node::Not(of_kind(node, inner, Kind::Truth)?.into()), at))
        })
    }

    fn comparison(&mut self) -> Read {
        let (left, at) = self.sum()?;
        let mut left = left;
        let mut found: Option<Node> = None;
        loop {
            let comparison = match self.peek() {
                Token::Symbol("<") => Comparison::Less,
                Token::Symbol("<=") => Comparison::LessEqual,
                Token::Symbol(">") => Comparison::Greater,
                Token::Symbol(">=") => Comparison::GreaterEqual,
                Token::Symbol("==") => Comparison::Equal,
                Token::Symbol("!=") => Comparison::NotEqual,
                _ => return Ok((found.unwrap_or(left), at)),
            };
            self.next();
            left = of_kind(left, at, Kind::Number)?;
            if found.is_some() {
                // It is in the middle of a chain, so it occurs twice: chains within chains would double it each time.
                self.doubled += left.size();
                if self.doubled > MOST {
                    return Err((
                        at,
                        format!("chains of comparisons within each other, of more than {MOST} parts in all"),
                    ));
                }
            }
            let (right, right_at) = self.sum()?;
            let right = of_kind(right, right_at, Kind::Number)?;
            let one = folded(Node::Compare(comparison, left.into(), right.clone().into()), at)?;
            // `a < b < c` means both comparisons.
            found = Some(match found {
                None => one,
                Some(before) => Node::And(before.into(), one.into()),
            });
            left = right;
        }
    }

    fn sum(&mut self) -> Read {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Token::Symbol("+") => Operator::Add,
                Token::Symbol("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            self.next();
            left = self.operated(left, operator, Self::product)?;
        }
    }

    fn product(&mut self) -> Read {
        let mut left = self.signed()?;
        loop {
            let operator = match self.peek() {
                Token::Symbol("*") => Operator::Multiply,
                Token::Symbol("/") => Operator::Divide,
                _ => return Ok(left),
            };
            self.next();
            left = self.operated(left, operator, Self::signed)?;
        }
    }

    fn operated(&mut self, (left, at): (Node, usize), operator: Operator, right: fn(&mut Self) -> Read) -> Read {
        let left = of_kind(left, at, Kind::Number)?;
        let (right, right_at) = right(self)?;
        let right = of_kind(right, right_at, Kind::Number)?;
        Ok((folded(Node::Operate(operator, left.into(), right.into()), at)?, at))
    }

    fn signed(&mut self) -> Read {
        let at = self.place();
        let negative = match self.peek() {
            Token::Symbol("-") => true,
            Token::Symbol("+") => false,
            _ => return self.power(),
        };
        self.next();
        self.deeper(|parser| {
            let (node, inner) = parser.signed()?;
            let node = of_kind(node, inner, Kind::Number)?;
            Ok((if negative { folded(Node::Negate(node.into()), at)? } else { node }, at))
        })
    }

    fn power(&mut self) -> Read {
        let left = self.atom()?;
        if self.takes("^") || self.takes("**") {
            // Right-associative, and signs of exponents bind more tightly.
            return self.deeper(|parser| parser.operated(left, Operator::Power, Self::signed));
        }
        Ok(left)
    }

    fn atom(&mut self) -> Read {
        let at = self.place();
        match self.next() {
            Token::Number(number) => Ok((Node::Number(*number), at)),
            Token::Symbol("(") => {
                let (node, _) = self.any()?;
                self.expect(")")?;
                Ok((node, at))
            }
            Token::Quoted(name) => Ok((self.column(Whose::Before, name, at)?, at)),
            Token::Word(word) => self.word(word, at),
            other => {
                let told = if *other == Token::End { "the end".into() } else { other.told() };
                Err((at, format!("found {told}, expected a number, a name, a function or `(`")))
            }
        }
    }

    fn word(&mut self, word: &str, at: usize) -> Read {
        if matches!(self.peek(), Token::Symbol("(")) {
            return self.call(word, at);
        }
        let whose = match word {
            "next" => Some(Whose::After),
            "action" => Some(Whose::Action),
            "obs" => Some(Whose::Before),
            _ => None,
        };
        if let Some(whose) = whose {
            if self.takes(".") {
                let place = self.place();
                return match self.next() {
                    Token::Word(name) | Token::Quoted(name) => Ok((self.column(whose, name, place)?, at)),
                    other => Err((place, format!("found {}, expected the name of a column", other.told()))),
                };
            }
            if let Some(index) = self.index()? {
                return Ok((self.numbered(whose, &index, at)?, at));
            }
        }
        match word {
            "pi" => return Ok((Node::Number(std::f64::consts::PI), at)),
            "true" | "false" => return Ok((Node::Truth(word == "true"), at)),
            "and" | "or" | "not" | "if" => {
                return Err((at, format!("found `{word}`, expected a number, a name, a function or `(`")));
            }
            _ => {}
        }
        Ok((self.column(Whose::Before, word, at)?, at))
    }

    /// `[2]` or `[1, 0, 2]`, if it comes next.
    fn index(&mut self) -> Result<Option<Vec<usize>>, Fault> {
        if !self.takes("[") {
            return Ok(None);
        }
        let mut index = Vec::new();
        loop {
            let place = self.place();
            match self.next() {
                Token::Number(number) if number.fract() == 0.0 && *number >= 0.0 && *number < 1e9 => {
                    index.push(*number as usize);
                }
                other => {
                    return Err((place, format!("found {}, expected the number of a column, from 0", other.told())));
                }
            }
            if !self.takes(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(Some(index))
    }

    fn names(&self, whose: Whose) -> (&'a [String], &'static str) {
        match whose {
            Whose::Before | Whose::After => (&self.columns.obs, "observation"),
            Whose::Action => (&self.columns.actions, "action"),
        }
    }

    /// `obs[2]`: the third of all columns.
    fn numbered(&self, whose: Whose, index: &[usize], at: usize) -> Result<Node, Fault> {
        let (names, what) = self.names(whose);
        match index {
            [column] if *column < names.len() => Ok(Node::Column(whose, *column)),
            [column] => Err((
                at,
                format!("the {what} has no column {column}; it has {}: 0 to {}", names.len(), names.len() as i64 - 1),
            )),
            _ => Err((at, format!("found {} numbers, expected one, that of a column of the {what}", index.len()))),
        }
    }

    /// A column by its name, and an index that may follow it.
    fn column(&mut self, whose: Whose, name: &str, at: usize) -> Result<Node, Fault> {
        let (names, what) = self.names(whose);
        let found = |name: &str| names.iter().position(|known| known == name);
        if let Some(index) = self.index()? {
            let digits: Vec<String> = index.iter().map(ToString::to_string).collect();
            let full = format!("{name}[{}]", digits.join(","));
            return match found(&full) {
                Some(column) => Ok(Node::Column(whose, column)),
                None => Err((at, self.unknown(whose, &full, what))),
            };
        }
        match found(name) {
            Some(column) => Ok(Node::Column(whose, column)),
            None => Err((at, self.unknown(whose, name, what))),
        }
    }

    fn unknown(&self, whose: Whose, name: &str, what: &str) -> String {
        let (names, _) = self.names(whose);
        let others: Vec<String> = match whose {
            // It may be a column of the action.
            Whose::Before => self
                .columns
                .actions
                .iter()
                .filter(|known| *known == name)
                .map(|known| format!("action.{known}"))
                .collect(),
            Whose::After => Vec::new(),
            Whose::Action => self.columns.obs.iter().filter(|known| *known == name).cloned().collect(),
        };
        let mut near: Vec<String> =
            nearest(name, names.iter().map(String::as_str)).into_iter().map(str::to_owned).collect();
        // A field of several columns without an index.
        if near.is_empty() && names.iter().any(|known| known.starts_with(&format!("{name}["))) {
            near = vec![format!("{name}[0]")];
        }
        near = others.into_iter().chain(near).collect();
        if near.is_empty() && CALLS.iter().any(|(known, ..)| *known == name) {
            near = vec![format!("{name}(…)")];
        }
        let hint = did_you_mean(&near);
        let shown: Vec<&str> = names.iter().take(30).map(String::as_str).collect();
        let more = if names.len() > 30 { ", …" } else { "" };
        let known = format!("{}{more}", shown.join(", "));
        let separator = if hint.is_empty() { "; it has: " } else { " It has: " };
        format!("the {what} has no column `{name}`{hint}{separator}{known}")
    }

    fn call(&mut self, word: &str, at: usize) -> Read {
        self.expect("(")?;
        let mut arguments = Vec::new();
        if !self.takes(")") {
            loop {
                arguments.push(self.any()?);
                if !self.takes(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        let count = arguments.len();
        let wrong = |expected: &str| Err((at, format!("`{word}` of {count} numbers, expected {expected}")));
        if word == "if" {
            let Ok([(condition, a), (yes, b), (no, c)]) = <[_; 3]>::try_from(arguments) else {
                return wrong("three: `if(comparison, number, number)`");
            };
            let (yes, no) = (of_kind(yes, b, Kind::Number)?, of_kind(no, c, Kind::Number)?);
            return Ok((Node::If(of_kind(condition, a, Kind::Truth)?.into(), yes.into(), no.into()), at));
        }
        let Some((_, function, least, most)) = CALLS.iter().find(|(known, ..)| *known == word) else {
            let known: Vec<&str> = CALLS.iter().map(|(known, ..)| *known).chain(["if"]).collect();
            let hint = suggest(word, known.iter().copied());
            return Err((at, format!("no function `{word}`{hint}; there are: {}", known.join(", "))));
        };
        if count < *least || count > *most {
            return wrong(&match (*least, *most) {
                (1, usize::MAX) => "at least one".into(),
                (least, _) => least.to_string(),
            });
        }
        let numbers: Result<Vec<Node>, Fault> =
            arguments.into_iter().map(|(node, at)| of_kind(node, at, Kind::Number)).collect();
        Ok((folded(Node::Call(*function, numbers?), at)?, at))
    }
}

/// Replaces a node of numbers alone by its value, which must be finite: `1/0` is a mistake.
fn folded(node: Node, at: usize) -> Result<Node, Fault> {
    let constant = |node: &Node| if let Node::Number(number) = node { Some(*number) } else { None };
    let value = match &node {
        Node::Negate(a) => constant(a).map(|a| -a),
        Node::Operate(operator, a, b) => constant(a).zip(constant(b)).map(|(a, b)| operate(*operator, a, b)),
        Node::Call(function, arguments) => {
            let numbers: Option<Vec<f64>> = arguments.iter().map(constant).collect();
            numbers.map(|numbers| call(*function, &numbers))
        }
        Node::Compare(comparison, a, b) => {
            return Ok(match constant(a).zip(constant(b)) {
                Some((a, b)) => Node::Truth(compare(*comparison, a, b)),
                None => node,
            });
        }
        _ => None,
    };
    match value {
        // Tensors hold single-precision numbers.
        Some(value) if !(value as f32).is_finite() => {
            Err((at, format!("the expression that begins here is {value}, expected a finite number")))
        }
        value => Ok(value.map_or(node, Node::Number)),
    }
}
