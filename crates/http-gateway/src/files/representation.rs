//! What is sent of a file: bytes in a coding, with validators and headers that are made once.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::conditional::{Validators, whole_seconds};
use super::entry::Identity;
use super::media_type::{self, MediaType};
use super::mount::{Kind, Mount};
use super::root::{OpenError, Wait};
use super::{path, read};
use crate::encoding::Coding;
use crate::message::{Body, FileBody, Headers};

/// Files up to this size are kept in memory; larger ones are kept open and sent by the kernel.
///
/// Two costs meet here: copying into the socket, and what `sendfile` costs for each page. Over loopback 100 kB take 25 µs of
/// CPU from memory and 30 µs by `sendfile`; over TLS and HTTP/2 the bytes go through memory anyway. Beyond this size few files
/// of a site are asked for often, and each would push many small ones out.
pub(super) const IN_MEMORY_MAX: u64 = 256 << 10;

/// Where bytes come from.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// From memory.
    Memory(Bytes),
    /// From an open file.
    Open(Arc<File>),
}

impl Content {
    /// Would the same bytes be sent, given that both come from one inode? What is open is read when it is sent.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Memory(bytes), Self::Memory(others)) => bytes == others,
            (Self::Open(_), Self::Open(_)) => true,
            _ => false,
        }
    }
}

/// What is sent: bytes in a coding, their validators and headers.
#[derive(Debug)]
pub(super) struct Representation {
    /// Of a 200.
    pub(super) headers: Headers,
    /// Of a 304 (RFC 9110, 15.4.5).
    pub(super) not_modified: Headers,
    pub(super) etag: Box<[u8]>,
    pub(super) modified: Option<SystemTime>,
    pub(super) media_type: &'static str,
    pub(super) size: u64,
    pub(super) content: Content,
}

impl Representation {
    pub(super) fn validators(&self) -> Validators<'_> {
        Validators { etag: &self.etag, modified: self.modified }
    }

    /// A part of it, or all, as a body.
    pub(super) fn body(&self, start: u64, len: u64) -> Body {
        match &self.content {
            Content::Memory(bytes) => {
                let all = 0..bytes.len();
                let end = start.saturating_add(len).min(bytes.len() as u64) as usize;
                let range = (start as usize).min(end)..end;
                Body::Bytes(if range == all { bytes.clone() } else { bytes.slice(range) })
            }
            Content::Open(file) => Body::File(FileBody { file: Arc::clone(file), offset: start, len }),
        }
    }

    /// About what it costs in memory.
    pub(super) fn weight(&self) -> u64 {
        /// Two sets of headers and this struct, measured roughly.
        const OVERHEAD: u64 = 1536;
        OVERHEAD
            + match &self.content {
                Content::Memory(bytes) => bytes.len() as u64,
                Content::Open(_) => 0,
            }
    }
}

/// Reads a file: all of it when it is small.
pub(super) fn content(file: File, size: u64, wait: Wait) -> Result<Content, OpenError> {
    if size > IN_MEMORY_MAX {
        return Ok(Content::Open(Arc::new(file)));
    }
    read::read(&file, 0, size, wait).map(|bytes| Content::Memory(bytes.into()))
}

/// All that the headers of a representation depend on.
pub(super) struct Recipe<'a> {
    pub(super) mount: &'a Mount,
    /// Relative to the mount, without a sibling's extension.
    pub(super) path: &'a [u8],
    /// The file whose bytes these are, or were made from.
    pub(super) file: Identity,
    /// Other codings exist or may be made.
    pub(super) varies: bool,
    pub(super) coding: Coding,
    /// In seconds.
    pub(super) max_age: u64,
}

impl Recipe<'_> {
    /// Makes a representation. `tag` is the opaque part of another entity tag that these bytes follow from; without it one
    /// is made.
    pub(super) fn make(&self, content: Content, tag: Option<&[u8]>) -> Representation {
        let size = match &content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Open(_) => self.file.size,
        };
        let tag = tag.map_or_else(|| tag_of(&content, &self.file), <[u8]>::to_vec);
        // RFC 9110, 8.8.3.3: a strong tag differs between codings.
        let suffix = if self.coding == Coding::Identity { "" } else { self.coding.token() };
        let dash: &[u8] = if suffix.is_empty() { b"" } else { b"-" };
        let etag = [b"\"", tag.as_slice(), dash, suffix.as_bytes(), b"\""].concat().into_boxed_slice();
        let modified = self.file.is_dated().then(|| {
            let date = UNIX_EPOCH + Duration::from_secs(self.file.modified.0.max(0) as u64);
            whole_seconds(date, SystemTime::now())
        });
        let media = media_type::of(self.path);
        let not_modified = self.common(&etag, modified, &media);
        let mut headers = Headers::with_capacity(12, 512);
        headers.push(b"Content-Type", media.value.as_bytes());
        headers.push(b"Content-Length", itoa::Buffer::new().format(size).as_bytes());
        if self.coding != Coding::Identity {
            headers.push(b"Content-Encoding", self.coding.token().as_bytes());
        }
        headers.push(b"Accept-Ranges", b"bytes");
        not_modified.iter().for_each(|(name, value)| headers.push(name, value));
        Representation { headers, not_modified, etag, modified, media_type: media.value, size, content }
    }

    /// The headers of 200 and 304 alike.
    fn common(&self, etag: &[u8], modified: Option<SystemTime>, media: &MediaType) -> Headers {
        let mut headers = Headers::with_capacity(8, 256);
        headers.push(b"ETag", etag);
        if let Some(modified) = modified {
            headers.push(b"Last-Modified", httpdate::fmt_http_date(modified).as_bytes());
        }
        if self.varies {
            headers.push(b"Vary", b"Accept-Encoding");
        }
        match self.mount.plan.kind {
            Kind::Static => {
                self.cache_control(&mut headers);
                // They are public already; fonts and modules are not used across origins (a CDN) without it.
                headers.push(b"Access-Control-Allow-Origin", b"*");
            }
            Kind::Media => {
                self.cache_control(&mut headers);
                headers.push(b"X-Content-Type-Options", b"nosniff");
                if media.active {
                    // What a user has uploaded may be looked at, but does not act in the site's name.
                    headers.push(b"Content-Security-Policy", b"sandbox");
                }
            }
            // What the app sends is the app's to say.
            Kind::Accel => {}
        }
        headers
    }

    fn cache_control(&self, headers: &mut Headers) {
        if self.mount.plan.hashed && path::is_hashed(self.path) {
            // A year: RFC 9111 names no bound, but long past this the value is no better. `immutable`: RFC 8246.
            headers.push(b"Cache-Control", b"public, max-age=31536000, immutable");
        } else if self.max_age == 0 {
            headers.push(b"Cache-Control", b"no-cache");
        } else {
            headers.push(b"Cache-Control", format!("public, max-age={}", self.max_age).as_bytes());
        }
    }
}

/// The opaque part of an entity tag.
///
/// Of what is in memory: from the bytes, so that every host says the same, whatever the dates. Of large files: size and date,
/// to the nanosecond; where the date says nothing, the inode's own.
fn tag_of(content: &Content, file: &Identity) -> Vec<u8> {
    match content {
        Content::Memory(bytes) => {
            let hash = twox_hash::XxHash3_64::oneshot(bytes);
            format!("{:x}-{hash:016x}", bytes.len()).into_bytes()
        }
        Content::Open(_) => {
            let (seconds, nanoseconds) = if file.is_dated() { file.modified } else { file.changed };
            format!("{:x}-{seconds:x}.{nanoseconds:x}", file.size).into_bytes()
        }
    }
}
