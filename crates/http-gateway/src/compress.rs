//! Answers of the app compressed on their way to the client: zstd, gzip or brotli, as the client accepts them.
//!
//! [`judge`] decides (pure), [`head`] changes the fields, [`encoder`] makes the bytes, [`packing`] stands between a streamed body and
//! its driver. Files are not compressed here: theirs is done once and kept ([`crate::files`]).
//!
//! What holds: no step on a reactor is longer than about half a millisecond; nothing that an app has sent waits for what it has not
//! sent yet; the memory of all encoders is counted and bounded. Why these codings, levels and bounds: docs/decisions/0017.

mod encoder;
mod head;
mod judge;
mod media_type;
mod packing;

use std::sync::Arc;

use bytes::Bytes;
use ctl_config::Config;
use ctl_telemetry::metrics as m;
use tokio::sync::Semaphore;
use tracing::error;

use crate::encoding::Coding;
use crate::message::{Body, RequestHead, Response};
use judge::{Rules, Verdict};
pub(crate) use packing::Packing;

/// See above.
pub(crate) struct Compression {
    rules: Rules,
    /// Turns for bodies that are compressed off the reactor: no more at a time than there are cores.
    turns: Arc<Semaphore>,
}

impl Compression {
    /// `None`: it is turned off, everywhere.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let wanted =
            config.compression.enabled || config.route.iter().any(|route| route.compress == Some(true));
        wanted
            .then(|| Self { rules: Rules::new(&config.compression), turns: Arc::new(Semaphore::new(cores)) })
    }

    /// Makes the response what goes out.
    pub(crate) async fn apply(&self, request: &RequestHead, response: &mut Response) {
        match self.rules.judge(request, response) {
            Verdict::Leave => {
                if self.rules.is_wanted(response) {
                    head::not_modified(request, response);
                }
            }
            Verdict::AsItIs => head::varies(&mut response.headers),
            // Boxed: what is not compressed need not carry its room.
            Verdict::Pack(coding) => Box::pin(self.pack(coding, response)).await,
        }
    }

    async fn pack(&self, coding: Coding, response: &mut Response) {
        match std::mem::replace(&mut response.body, Body::Empty) {
            Body::Bytes(bytes) => match self.whole(coding, bytes).await {
                Ok(packed) => {
                    head::packed(&mut response.headers, coding);
                    response.body = Body::Bytes(packed);
                    count(coding);
                }
                Err(bytes) => response.body = Body::Bytes(bytes),
            },
            Body::Stream(mut stream) => {
                let announced = head::announced(&response.headers).unwrap_or_default();
                if stream.pack(coding, announced) {
                    head::packed(&mut response.headers, coding);
                    count(coding);
                }
                response.body = Body::Stream(stream);
            }
            // The answer to a HEAD: the fields that GET has.
            empty => {
                head::packed(&mut response.headers, coding);
                response.body = empty;
            }
        }
        head::varies(&mut response.headers);
    }

    /// A whole body, compressed; an error holds it as it was.
    async fn whole(&self, coding: Coding, bytes: Bytes) -> Result<Bytes, Bytes> {
        if bytes.len() <= encoder::at_once_bytes(coding) {
            return pack(coding, &bytes).ok_or(bytes);
        }
        // Boxed: it is rare, and every request would carry its room.
        Box::pin(async {
            // The turn goes along with the work: a client that leaves does not let another one in before it is done.
            let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return Err(bytes) };
            let input = bytes.clone();
            let work = tokio::task::spawn_blocking(move || {
                let packed = pack(coding, &input);
                drop(turn);
                packed
            });
            work.await.ok().flatten().ok_or(bytes)
        })
        .await
    }
}

fn pack(coding: Coding, bytes: &[u8]) -> Option<Bytes> {
    encoder::whole(coding, bytes)
        // Memory is all that it can lack.
        .inspect_err(|error| error!("a response could not be compressed, and is sent as it is: {error}"))
        .ok()
        .map(Bytes::from)
}

fn count(coding: Coding) {
    match coding {
        Coding::Identity => {}
        Coding::Gzip => m::COMPRESSED_GZIP_TOTAL.inc(),
        Coding::Zstd => m::COMPRESSED_ZSTD_TOTAL.inc(),
        Coding::Brotli => m::COMPRESSED_BROTLI_TOTAL.inc(),
    }
}

#[cfg(test)]
mod tests;
