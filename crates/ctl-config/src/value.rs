//! How a value of each type is read, written and described.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::duration::{self, duration_text, parse_duration};
use crate::problem::nearest;
use crate::raw::{Fault, Input, Raw};
use crate::size::{self, parse_size, size_text};

/// The shape of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path; relative to the file that names it, or to the current directory in environment and flags.
    Path,
    /// true or false.
    Switch,
    /// A whole number.
    Count,
    /// Bytes.
    Size,
    /// Time, exact to the millisecond.
    Duration,
    /// See [`crate::BindAddress`].
    Address,
    /// One of these words.
    Choice(&'static [Choice]),
    /// Several of the same kind.
    List(&'static Kind),
    /// May be left open. For counts the word for that is "auto".
    Optional(&'static Kind),
}

/// A word of a [`Kind::Choice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// As written.
    pub word: &'static str,
    /// What it does.
    pub doc: &'static str,
}

impl Kind {
    /// In words, for documentation: `duration`, `size`, `list of addresses`.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Path => "path".into(),
            Self::Switch => "true or false".into(),
            Self::Count => "whole number".into(),
            Self::Size => "size".into(),
            Self::Duration => "duration".into(),
            Self::Address => "address".into(),
            Self::Choice(choices) => {
                let words: Vec<_> = choices.iter().map(|choice| format!("\"{}\"", choice.word)).collect();
                words.join(", ")
            }
            Self::List(Self::Address) => "list of addresses".into(),
            Self::List(_) => "list of texts".into(),
            Self::Optional(Self::Count) => "whole number or \"auto\"".into(),
            Self::Optional(inner) => inner.describe(),
        }
    }

    /// Whether a flag of this kind may be given more than once.
    pub fn is_list(self) -> bool {
        matches!(self, Self::List(_))
    }
}

/// What the table of settings needs from the type of a field.
pub(crate) trait Value: Sized {
    const KIND: Kind;

    fn read(input: Input<'_>) -> Result<Self, Fault>;

    /// For `config show --json` and, as text, for people.
    fn json(&self) -> Json;

    /// Counts, bytes or milliseconds, to be compared with the allowed range.
    fn number(&self) -> Option<u64> {
        None
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Switch;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        match input.raw {
            Raw::Switch(on) => Ok(*on),
            Raw::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(Fault::new(format!("\"{word}\" is neither true nor false"))),
            },
            Raw::Text(word) if matches!(word.as_str(), "true" | "false") => {
                Err(Fault::new(format!("\"{word}\" is a text")).hint(format!("without quotes: {word}")))
            }
            other => Err(Fault::new(format!("{} is neither true nor false", other.describe()))
                .hint("true or false, without quotes")),
        }
    }

    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Value for u32 {
    const KIND: Kind = Kind::Count;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        let fault = || Fault::new(format!("{} is not a whole number", input.raw.describe()));
        let range = || Fault::new(format!("{} is out of range", input.raw.describe()));
        match input.raw {
            Raw::Integer(number) => Self::try_from(*number).map_err(|_| range()),
            Raw::Word(word) if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) => {
                word.parse().map_err(|_| range())
            }
            Raw::Text(word) if word.parse::<Self>().is_ok() => {
                Err(fault().hint(format!("without quotes: {word}")))
            }
            _ => Err(fault()),
        }
    }

    fn json(&self) -> Json {
        (*self).into()
    }

    fn number(&self) -> Option<u64> {
        Some(u64::from(*self))
    }
}

/// Every `u64` among the settings is a size in bytes.
impl Value for u64 {
    const KIND: Kind = Kind::Size;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        let fault = || Fault::new(format!("{} is not a size", input.raw.describe()));
        match input.raw {
            Raw::Integer(number) => Self::try_from(*number).map_err(|_| fault().hint(size::HOW)),
            Raw::Word(text) | Raw::Text(text) => {
                parse_size(text).ok_or_else(|| match size::one_letter_unit(text) {
                    Some(binary) => fault().hint(format!("write the unit in full: {binary}")),
                    None => fault().hint(size::HOW),
                })
            }
            _ => Err(fault().hint(size::HOW)),
        }
    }

    fn json(&self) -> Json {
        size_text(*self).into()
    }

    fn number(&self) -> Option<u64> {
        Some(*self)
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        let parsed = match input.raw {
            Raw::Integer(number) => parse_duration(&number.to_string()),
            Raw::Float(number) => parse_duration(&number.to_string()),
            Raw::Word(text) | Raw::Text(text) => parse_duration(text),
            _ => None,
        };
        parsed.ok_or_else(|| {
            Fault::new(format!("{} is not a duration", input.raw.describe())).hint(duration::HOW)
        })
    }

    fn json(&self) -> Json {
        duration_text(*self).into()
    }

    fn number(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        read_text(input).map(str::to_owned)
    }

    fn json(&self) -> Json {
        self.as_str().into()
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Path;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        match read_text(input)? {
            "" => Err(Fault::new("an empty text is not a path")),
            path => Ok(input.resolve(path)),
        }
    }

    fn json(&self) -> Json {
        path_text(self).into()
    }
}

/// A program: a path, or a name that PATH is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Program(pub PathBuf);

impl Value for Program {
    const KIND: Kind = Kind::Path;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        match read_text(input)? {
            name if !name.is_empty() && !name.contains('/') => Ok(Self(name.into())),
            _ => PathBuf::read(input).map(Self),
        }
    }

    fn json(&self) -> Json {
        self.0.json()
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = Kind::Optional(&T::KIND);

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        match (T::KIND, input.raw) {
            (Kind::Count, Raw::Word(word) | Raw::Text(word)) if word == "auto" => Ok(None),
            (Kind::Count, _) => T::read(input).map(Some).map_err(|fault| {
                if fault.hint.is_none() { fault.hint("a whole number or \"auto\"") } else { fault }
            }),
            _ => T::read(input).map(Some),
        }
    }

    fn json(&self) -> Json {
        match self {
            Some(value) => value.json(),
            None if matches!(T::KIND, Kind::Count) => "auto".into(),
            None => Json::Null,
        }
    }

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(Value::number)
    }
}

impl<T: Value> Value for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        let one = |raw: &Raw| T::read(Input { raw, base: input.base });
        match input.raw {
            Raw::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (raw, span) in items {
                    match raw {
                        Raw::Word(_) => list.extend(Self::read(Input { raw, base: input.base })?),
                        raw => list.push(one(raw).map_err(|fault| fault.at(span.clone()))?),
                    }
                }
                Ok(list)
            }
            Raw::Word(words) => words
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(|word| one(&Raw::Word(word.to_owned())))
                .collect(),
            raw => one(raw).map(|value| vec![value]),
        }
    }

    fn json(&self) -> Json {
        self.iter().map(Value::json).collect()
    }
}

fn read_text(input: Input<'_>) -> Result<&str, Fault> {
    match input.raw {
        Raw::Word(text) | Raw::Text(text) if text.contains('\0') => {
            Err(Fault::new("a text must not hold a NUL"))
        }
        Raw::Word(text) | Raw::Text(text) => Ok(text),
        other => {
            let described = other.describe();
            Err(Fault::new(format!("{described} is not a text")).hint("texts are written in quotes"))
        }
    }
}

/// A word that is one of `kind`'s choices.
pub(crate) fn read_word(input: Input<'_>, kind: Kind) -> Result<&str, Fault> {
    let word = match input.raw {
        Raw::Word(text) | Raw::Text(text) => text.as_str(),
        Raw::Switch(false) => "off",
        Raw::Switch(true) => "on",
        _ => "",
    };
    let Kind::Choice(choices) = kind else {
        return Ok(word);
    };
    if choices.iter().any(|choice| choice.word == word) {
        return Ok(word);
    }
    let words: Vec<_> = choices.iter().map(|choice| choice.word).collect();
    let hint = match nearest(word, words.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? One of: {}", words.join(", ")),
        None => format!("one of: {}", words.join(", ")),
    };
    Err(Fault::new(format!("{} is not known here", input.raw.describe())).hint(hint))
}

pub(crate) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A value for people: texts as they are, lists with commas, what is left open as `unset`.
pub(crate) fn json_text(json: &Json) -> String {
    match json {
        Json::Null => "unset".into(),
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(json_text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
