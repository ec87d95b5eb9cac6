//! Settings that are one of a few words.

/// Defines an enum of words: the type, its serde form, and its [`crate::value::Value`].
macro_rules! choice {
    (
        $(#[doc = $enum_doc:literal])+
        $Name:ident {
            $(#[doc = $first_doc:literal])+
            $First:ident = $first:literal,
            $($(#[doc = $doc:literal])+ $Variant:ident = $word:literal,)*
        }
    ) => {
        $(#[doc = $enum_doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $Name {
            $(#[doc = $first_doc])+
            #[default]
            #[serde(rename = $first)]
            $First,
            $($(#[doc = $doc])+ #[serde(rename = $word)] $Variant,)*
        }

        impl $Name {
            /// As written in the configuration.
            pub const fn word(self) -> &'static str {
                match self {
                    Self::$First => $first,
                    $(Self::$Variant => $word,)*
                }
            }
        }

        impl $crate::value::Value for $Name {
            const KIND: $crate::value::Kind = $crate::value::Kind::Choice(&[
                $crate::value::Choice { word: $first, doc: concat!($($first_doc, "\n"),+) },
                $($crate::value::Choice { word: $word, doc: concat!($($doc, "\n"),+) },)*
            ]);

            fn read(input: $crate::raw::Input<'_>) -> Result<Self, $crate::raw::Fault> {
                match $crate::value::read_word(input, Self::KIND)? {
                    $first => Ok(Self::$First),
                    $($word => Ok(Self::$Variant),)*
                    word => Err($crate::raw::Fault::new(format!("\"{word}\" is not one of the words"))),
                }
            }

            fn json(&self) -> ::serde_json::Value {
                self.word().into()
            }
        }
    };
}

pub(crate) use choice;
