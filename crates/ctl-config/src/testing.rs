//! Tests of one table: from the text of a `quintet.toml` to what it means, or what is wrong with it.

use crate::{Loaded, Sources, TextFile, load};

/// A file and nothing else.
pub(crate) fn sources(text: &str) -> Sources {
    let file = TextFile { path: "/srv/shop/quintet.toml".into(), text: text.into() };
    Sources { file: Some(file), working_dir: "/srv/shop".into(), ..Sources::default() }
}

/// What a good file means.
#[track_caller]
pub(crate) fn loaded(text: &str) -> Loaded {
    load(&sources(text)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// All that is wrong with a file.
#[track_caller]
pub(crate) fn wrong(text: &str) -> String {
    load(&sources(text)).map_or_else(|problems| problems.to_string(), |_| panic!("it was accepted: {text}"))
}
