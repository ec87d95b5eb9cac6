//! What a setting is, and the macro that turns the table in [`crate::settings`] into types and rows.

use serde_json::Value as Json;

use crate::raw::{Fault, Input};
use crate::settings::{Config, SECTIONS};
use crate::value::{Kind, json_text};

/// A table of `quintet.toml`.
#[derive(Debug)]
pub struct Section {
    /// As written between [ and ].
    pub name: &'static str,
    /// Paragraphs for the reference.
    pub doc: &'static str,
    /// Its settings, in the order of the reference.
    pub settings: &'static [Setting],
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// With `quintet reload`, without a lost request.
    Live,
    /// When the instance is stopped and started again.
    Restart,
}

/// A rule of one value, as text; of a list, of each item.
type Check = fn(&str) -> Result<(), Fault>;

/// A row of a table: of the settings, or of the keys of a repeated table (`[[worker_pool]]`), whose values are in `Of`.
#[derive(Debug)]
pub struct Setting<Of = Config> {
    /// `section.name`.
    pub key: &'static str,
    /// The table it stands in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it does; the first sentence stands alone in `--help`.
    pub doc: &'static str,
    /// The shape of its value.
    pub kind: Kind,
    /// The version that brought it.
    pub since: &'static str,
    /// When a change takes effect.
    pub reload: Reload,
    /// Long flag without dashes, and how its value is called in `--help`.
    pub flag: Option<(&'static str, &'static str)>,
    /// What happens while it is left open.
    pub otherwise: Option<&'static str>,
    /// A value as it would stand in `quintet.toml`.
    pub example: Option<&'static str>,
    /// Smallest, largest, and why: written like a value.
    pub range: Option<(&'static str, &'static str, &'static str)>,
    pub(crate) check: Option<Check>,
    pub(crate) access: Access<Of>,
}

/// The three functions that reach a field.
#[derive(Debug)]
pub(crate) struct Access<Of> {
    pub(crate) read: fn(&mut Of, Input<'_>) -> Result<(), Fault>,
    pub(crate) get_json: fn(&Of) -> Json,
    pub(crate) get_number: fn(&Of) -> Option<u64>,
}

impl<Of> Setting<Of> {
    pub(crate) const fn new(
        path: [&'static str; 3],
        doc: &'static str,
        kind: Kind,
        access: Access<Of>,
    ) -> Self {
        let [key, section, name] = path;
        Self {
            key,
            section,
            name,
            doc,
            kind,
            since: "0.1",
            reload: Reload::Restart,
            flag: None,
            otherwise: None,
            example: None,
            range: None,
            check: None,
            access,
        }
    }

    pub(crate) const fn live(mut self) -> Self {
        self.reload = Reload::Live;
        self
    }

    pub(crate) const fn flag(mut self, long: &'static str, value: &'static str) -> Self {
        self.flag = Some((long, value));
        self
    }

    pub(crate) const fn otherwise(mut self, text: &'static str) -> Self {
        self.otherwise = Some(text);
        self
    }

    pub(crate) const fn example(mut self, toml: &'static str) -> Self {
        self.example = Some(toml);
        self
    }

    pub(crate) const fn between(
        mut self,
        least: &'static str,
        most: &'static str,
        why: &'static str,
    ) -> Self {
        self.range = Some((least, most, why));
        self
    }

    pub(crate) const fn checked(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// Its key and name, where the field cannot have the same one (`match` is a word of Rust).
    pub(crate) const fn named(mut self, key: &'static str, name: &'static str) -> Self {
        self.key = key;
        self.name = name;
        self
    }

    /// The value in `values`, for machines.
    pub fn json(&self, values: &Of) -> Json {
        (self.access.get_json)(values)
    }

    /// The value in `values`, for people.
    pub fn text(&self, values: &Of) -> String {
        json_text(&self.json(values))
    }

    /// The first sentence of [`Self::doc`].
    pub fn summary(&self) -> String {
        let doc = plain_doc(self.doc);
        let paragraph = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        match paragraph.find(". ") {
            Some(end) => paragraph[..end].to_owned(),
            None => paragraph.trim_end_matches('.').to_owned(),
        }
    }
}

impl Setting {
    /// The variable of the environment: `QUINTET_TIMEOUTS_QUEUE`.
    pub fn environment_name(&self) -> String {
        format!("QUINTET_{}_{}", self.section.to_ascii_uppercase(), self.name.to_ascii_uppercase())
    }
}

/// A documentation comment without the space that rustdoc leaves at the start of each line.
pub(crate) fn plain_doc(doc: &str) -> String {
    let lines: Vec<_> = doc.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n").trim().to_owned()
}

/// Every setting in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The setting `section.name`.
pub fn find(key: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.key == key)
}

/// Turns the table of settings into [`Config`], a struct a section, and [`SECTIONS`].
///
/// A row is `/// documentation`, `name: Type = default`, then options that are methods of [`Setting`].
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        [$section:ident] $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $Type:ty = $default:expr $(, $option:ident($($argument:expr),*))*;
            )+
        }
    )+) => {
        /// The effective configuration: a field a section of `quintet.toml`.
        #[derive(Debug, Clone, Default, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $Section,)+
            /// Classes of workers for some paths, in the order of the file; the first that matches a path takes it.
            pub worker_pool: Vec<$crate::pool::WorkerPool>,
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
            #[serde(default)]
            pub struct $Section {
                $($(#[doc = $doc])+ pub $field: $Type,)+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($field: $default,)+ }
                }
            }
        )+

        /// Every section with its settings.
        pub static SECTIONS: &[$crate::define::Section] = &[$(
            $crate::define::Section {
                name: stringify!($section),
                doc: concat!($($section_doc, "\n"),+),
                settings: &[$(
                    $crate::define::Setting::new(
                        [
                            concat!(stringify!($section), ".", stringify!($field)),
                            stringify!($section),
                            stringify!($field),
                        ],
                        concat!($($doc, "\n"),+),
                        <$Type as $crate::value::Value>::KIND,
                        $crate::define::Access {
                            read: |config: &mut Config, input| {
                                config.$section.$field = $crate::value::Value::read(input)?;
                                Ok(())
                            },
                            get_json: |config: &Config| $crate::value::Value::json(&config.$section.$field),
                            get_number: |config: &Config| $crate::value::Value::number(&config.$section.$field),
                        },
                    )
                    $(.$option($($argument),*))*
                ),+],
            }
        ),+];
    };
}

/// Turns the table of a repeated section, `[[worker_pool]]`, into its struct and `KEYS`. Rows are as in [`settings!`].
macro_rules! record {
    (
        $(#[doc = $record_doc:literal])+
        [[$section:ident]] $Record:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $Type:ty = $default:expr $(, $option:ident($($argument:expr),*))*;
            )+
        }
    ) => {
        $(#[doc = $record_doc])+
        #[derive(Debug, Clone, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default)]
        pub struct $Record {
            $($(#[doc = $doc])+ pub $field: $Type,)+
        }

        impl Default for $Record {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Its documentation.
        pub const DOC: &str = concat!($($record_doc, "\n"),+);

        /// Its keys, in the order of the reference.
        pub static KEYS: &[$crate::define::Setting<$Record>] = &[$(
            $crate::define::Setting::new(
                [
                    concat!(stringify!($section), ".", stringify!($field)),
                    stringify!($section),
                    stringify!($field),
                ],
                concat!($($doc, "\n"),+),
                <$Type as $crate::value::Value>::KIND,
                $crate::define::Access {
                    read: |record: &mut $Record, input| {
                        record.$field = $crate::value::Value::read(input)?;
                        Ok(())
                    },
                    get_json: |record: &$Record| $crate::value::Value::json(&record.$field),
                    get_number: |record: &$Record| $crate::value::Value::number(&record.$field),
                },
            )
            $(.$option($($argument),*))*
        ),+];
    };
}

pub(crate) use {record, settings};
