//! Bodies that have been read already, and what they were.

use bytes::Bytes;
use http_limits::{KeyHasher, Seed};

use crate::message::{BodyError, BodyLength, Headers, RequestBody};
use crate::request_body::Payload;

/// A body that is hashed while it is read.
pub(crate) struct Fingerprinted<'a, B> {
    body: &'a mut B,
    hasher: KeyHasher,
}

impl<'a, B: RequestBody> Fingerprinted<'a, B> {
    pub(crate) fn new(body: &'a mut B, seed: Seed) -> Self {
        Self { body, hasher: seed.hasher() }
    }

    /// Of what has been read.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.hasher.key()
    }
}

impl<B: RequestBody> RequestBody for Fingerprinted<'_, B> {
    fn length(&self) -> BodyLength {
        self.body.length()
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let piece = self.body.chunk().await?;
        if let Some(piece) = &piece {
            self.hasher.stream(piece);
        }
        Ok(piece)
    }

    async fn closed(&mut self) {
        self.body.closed().await;
    }
}

/// A body of which all has been read. Its client is still there.
pub(crate) struct Gathered<'a, B> {
    pub(crate) payload: Option<Payload>,
    /// `None`: there is no client who could leave.
    pub(crate) client: Option<&'a mut B>,
}

impl<B: RequestBody> RequestBody for Gathered<'_, B> {
    fn length(&self) -> BodyLength {
        match &self.payload {
            None | Some(Payload::Empty) => BodyLength::None,
            Some(Payload::Memory(bytes)) => BodyLength::Known(bytes.len() as u64),
            Some(Payload::File(_, len)) => BodyLength::Known(*len),
            Some(Payload::Stream(_)) => BodyLength::Unknown,
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(None)
    }

    async fn closed(&mut self) {
        match &mut self.client {
            Some(client) => client.closed().await,
            None => std::future::pending().await,
        }
    }

    fn gathered(&mut self) -> Option<Payload> {
        self.payload.take()
    }

    async fn inform(&mut self, status: u16, headers: &Headers) {
        if let Some(client) = &mut self.client {
            client.inform(status, headers).await;
        }
    }
}
