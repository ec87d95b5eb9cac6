//! What a setting is, and the macros that turn the table in [`crate::settings`] and those of repeated tables into types and rows.

use serde_json::Value as Json;

use crate::raw::{Fault, Input};
use crate::settings::{Config, SECTIONS};
use crate::tables;
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

/// A row of a table: of the settings, or of the keys of a repeated table (`[[worker_pool]]`).
#[derive(Debug)]
pub struct Setting {
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
    /// Errors do not show how it was written.
    pub(crate) is_secret: bool,
    pub(crate) check: Option<Check>,
    pub(crate) access: Access,
}

/// The three functions that reach a field. The number says which of the tables of one name is meant; of a section there is one.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) read: fn(&mut Config, usize, Input<'_>) -> Result<(), Fault>,
    pub(crate) get_json: fn(&Config, usize) -> Json,
    pub(crate) get_number: fn(&Config, usize) -> Option<u64>,
}

impl Setting {
    pub(crate) const fn new(path: [&'static str; 3], doc: &'static str, kind: Kind, access: Access) -> Self {
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
            is_secret: false,
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

    /// It may hold a password.
    pub(crate) const fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// Its key and name, where the field cannot have the same one (`match` is a word of Rust).
    pub(crate) const fn named(mut self, key: &'static str, name: &'static str) -> Self {
        self.key = key;
        self.name = name;
        self
    }

    /// The value in `config`, for machines; of a repeated table, in the one of this number.
    ///
    /// # Panics
    ///
    /// Where there are not so many of them.
    pub fn json(&self, config: &Config, index: usize) -> Json {
        (self.access.get_json)(config, index)
    }

    /// The value in `config`, for people.
    pub(crate) fn text(&self, config: &Config, index: usize) -> String {
        json_text(&self.json(config, index))
    }

    /// What it is while nobody sets it.
    pub fn default_json(&self) -> Json {
        self.json(&tables::one_of_each(), 0)
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

/// Turns the table of settings into [`Config`], a struct a section, [`SECTIONS`] and [`TABLES`](crate::settings::TABLES).
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
    )+
    tables {
        $($(#[doc = $table_doc:literal])+ $table:ident: $Record:ty,)+
    }) => {
        /// The effective configuration: a field a section of `quintet.toml`.
        #[derive(Debug, Clone, Default, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default)]
        pub struct Config {
            $($(#[doc = $section_doc])+ pub $section: $Section,)+
            $($(#[doc = $table_doc])+ pub $table: Vec<$Record>,)+
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
                            read: |config, _, input| {
                                config.$section.$field = $crate::value::Value::read(input)?;
                                Ok(())
                            },
                            get_json: |config, _| $crate::value::Value::json(&config.$section.$field),
                            get_number: |config, _| $crate::value::Value::number(&config.$section.$field),
                        },
                    )
                    $(.$option($($argument),*))*
                ),+],
            }
        ),+];

        /// Every table that may be there several times.
        pub static TABLES: &[$crate::tables::Table] = &[$(
            $crate::tables::Table::of::<$Record>(
                |config| config.$table.push(<$Record>::default()),
                |config| config.$table.len(),
                |config, index, given| {
                    config.$table.get_mut(index).into_iter().for_each(|record| {
                        $crate::tables::Rules::complete(record, given);
                    });
                },
            )
        ),+];
    };
}

/// Turns the keys of a repeated table, `[[worker_pool]]`, into its struct and its `KEYS`. Rows are as in [`settings!`]; what else
/// it says is in [`Rules`](crate::tables::Rules), and a row of `tables` there makes it known.
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

        impl $crate::tables::Record for $Record {
            const TABLE: &'static str = stringify!($section);
            const DOC: &'static str = concat!($($record_doc, "\n"),+);
            const KEYS: &'static [$crate::define::Setting] = &[$(
                $crate::define::Setting::new(
                    [
                        concat!(stringify!($section), ".", stringify!($field)),
                        stringify!($section),
                        stringify!($field),
                    ],
                    concat!($($doc, "\n"),+),
                    <$Type as $crate::value::Value>::KIND,
                    $crate::define::Access {
                        read: |config, index, input| {
                            config.$section[index].$field = $crate::value::Value::read(input)?;
                            Ok(())
                        },
                        get_json: |config, index| $crate::value::Value::json(&config.$section[index].$field),
                        get_number: |config, index| $crate::value::Value::number(&config.$section[index].$field),
                    },
                )
                $(.$option($($argument),*))*
            ),+];
        }
    };
}

pub(crate) use {record, settings};
