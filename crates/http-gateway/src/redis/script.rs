//! Scripts by their digest: a few words travel instead of the whole text, which is sent again when the server has forgotten it.

use std::fmt::Write as _;

use http_redis::{Value, encode};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::Trouble;
use super::link::Link;

/// A script that the server runs as a whole.
pub(crate) struct Script {
    text: &'static str,
    /// SHA-1 in hexadecimal: that is how Redis names it.
    name: String,
}

/// What can be a word of a command.
pub(crate) trait Word {
    /// Its bytes, appended.
    fn put(&self, out: &mut Vec<u8>);
}

impl Word for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
    }
}

impl Word for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        let mut name = String::new();
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
            // A String takes everything.
            let _ = write!(name, "{byte:02x}");
        }
        Self { text, name }
    }

    /// Its answer. The caller bounds the time.
    pub(super) async fn run<W: Word>(
        &self,
        link: &Link,
        keys: &[String],
        args: &[W],
    ) -> Result<Value, Trouble> {
        match link.answer(Self::command(b"EVALSHA", self.name.as_bytes(), keys, args)).await {
            Err(Trouble::Refused(why)) if why.starts_with("NOSCRIPT") => {
                link.answer(Self::command(b"EVAL", self.text.as_bytes(), keys, args)).await
            }
            answer => answer,
        }
    }

    fn command<W: Word>(verb: &[u8], script: &[u8], keys: &[String], args: &[W]) -> Vec<u8> {
        let count = keys.len().to_string();
        let mut words: Vec<Vec<u8>> = Vec::with_capacity(args.len());
        for arg in args {
            let mut word = Vec::new();
            arg.put(&mut word);
            words.push(word);
        }
        let all: Vec<&[u8]> = [verb, script, count.as_bytes()]
            .into_iter()
            .chain(keys.iter().map(String::as_bytes))
            .chain(words.iter().map(Vec::as_slice))
            .collect();
        let mut out = Vec::new();
        encode(&mut out, &all);
        out
    }
}
