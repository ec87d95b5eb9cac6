//! Requests that are worked on by a task of their own, because others than their client want the answer.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Asks, Gateway, NoBody, Payload, RequestHead, Response, Terms, Trail, error_for};
use crate::client::Identity;
use crate::error_page::wants_html;
use crate::flight::{Answer, Gathered, Held, LastWord, Outcome, Place, Recorded, record};
use crate::message::{AnsweredBy, Body, Connection};
use crate::route::Comes;
use crate::spool::{BodyStream, Piece, spool};

/// The longest streamed answer that is shared. Those who joined wait until it is complete; who asks for more than this had better ask
/// by himself.
const SHARED_BYTES_MAX: u64 = 4 << 20;

/// A request without its client. Early hints go nowhere, and the app does not hear whether the client is still there.
pub(super) struct Errand {
    pub(super) gateway: Arc<Gateway>,
    /// By its number.
    pub(super) route: usize,
    pub(super) connection: Connection,
    pub(super) identity: Identity<'static>,
    pub(super) head: RequestHead,
    pub(super) payload: Option<Payload>,
    pub(super) trail: Trail,
}

/// Who else wants to know.
pub(super) struct Cargo {
    pub(super) place: Option<Arc<Place>>,
    /// Equal requests get the answer.
    pub(super) joins: bool,
    /// It is kept for who asks again.
    pub(super) held: Option<Held>,
}

impl Cargo {
    /// Those who joined get this.
    fn settle(&self, outcome: &Outcome) {
        if let Some(place) = self.place.as_ref().filter(|_| self.joins) {
            place.settle(outcome);
        }
    }
}

impl Errand {
    /// Until the app has said everything.
    pub(super) async fn run(mut self, cargo: Cargo, to_client: oneshot::Sender<Response>) {
        let place = cargo.place.clone();
        let response = match &place {
            // Nobody but those who ask now wants it.
            Some(place) if cargo.joins && cargo.held.is_none() => tokio::select! {
                biased;
                response = self.ask(Some(place)) => response,
                () = place.abandoned() => return,
            },
            place => self.ask(place.as_ref()).await,
        };
        drop(place);
        self.deliver(response, cargo, to_client).await;
    }

    async fn ask(&mut self, place: Option<&Arc<Place>>) -> Response {
        let Self { gateway, route, connection, identity, head, payload, trail } = self;
        let Some(route) = gateway.routes.as_ref().and_then(|routes| routes.number(*route)) else {
            return error_for(head, 500, trail);
        };
        let client = trail.client.map_or_else(String::new, |client| client.to_string());
        let came = trail.clone();
        let comes = Comes {
            head,
            identity,
            certificate: connection.certificate.as_deref(),
            client: &client,
            trail: &came,
            html: wants_html(head),
        };
        let terms = Terms { flight: place, ..Terms::default() };
        let asks = Asks { connection, identity, head, terms, about: None };
        let mut body = Gathered::<NoBody> { payload: payload.take(), client: None };
        gateway.follow(route.way(comes), asks, &mut body, trail).await
    }

    /// To its client, and to all others.
    async fn deliver(self, mut response: Response, cargo: Cargo, to_client: oneshot::Sender<Response>) {
        let asked = cargo.joins.then(|| self.head.clone());
        let answer = Answer::new(&response, asked);
        let pieces = match std::mem::replace(&mut response.body, Body::Empty) {
            Body::Empty => Vec::new(),
            Body::Bytes(bytes) => {
                response.body = Body::Bytes(bytes.clone());
                vec![Piece::Bytes(bytes)]
            }
            Body::File(file) => {
                response.body = Body::File(file.clone());
                vec![Piece::File(file)]
            }
            // It lasts, and each client wants his own.
            Body::Stream(stream) if response.trail.lasts => {
                response.body = Body::Stream(stream);
                cargo.settle(&Outcome::Alone);
                self.finish(answer.status, response.trail.by, cargo, None);
                let _client_gone = to_client.send(response);
                return;
            }
            Body::Stream(stream) => return self.stream(stream, response, answer, cargo, to_client).await,
        };
        let by = response.trail.by;
        self.finish(answer.status, by, cargo, Some(answer.with(pieces)));
        // Behind the others: who asks again as soon as he has read it finds it known.
        let _client_gone = to_client.send(response);
    }

    async fn stream(
        self,
        stream: BodyStream,
        mut response: Response,
        answer: Answer,
        cargo: Cargo,
        to_client: oneshot::Sender<Response>,
    ) {
        let (writer, body) = spool(self.gateway.dispatcher.spool.clone());
        let (by, status) = (response.trail.by, response.status);
        response.body = Body::Stream(body);
        let _client_gone = to_client.send(response);
        let bytes_max = match &cargo.held {
            Some(held) if !cargo.joins => held.answer_bytes_max(),
            _ => SHARED_BYTES_MAX,
        };
        let too_large = || cargo.settle(&Outcome::Alone);
        let is_wanted =
            || cargo.held.is_some() || cargo.place.as_ref().is_some_and(|place| place.is_wanted());
        let (recorded, last): (_, LastWord) = record(stream, writer, bytes_max, too_large, is_wanted).await;
        match recorded {
            Recorded::Whole(pieces) => self.finish(status, by, cargo, Some(answer.with(pieces))),
            Recorded::TooLarge => self.finish(status, by, cargo, None),
            Recorded::Broken => {
                // Each of those who joined would meet the same: a worker that died of it.
                let lost = error_for(&self.head, 502, &self.trail);
                cargo.settle(&Outcome::Same(Arc::new(whole(&lost))));
                self.finish(502, AnsweredBy::Gateway, cargo, None);
            }
        }
        last.say();
    }

    /// Tells those who wait, and who keeps it.
    fn finish(&self, status: u16, by: AnsweredBy, mut cargo: Cargo, answer: Option<Answer>) {
        if let Some(held) = cargo.held.take() {
            held.answered(status, by == AnsweredBy::Gateway, self.trail.begun, answer.as_ref());
        }
        cargo.settle(&answer.map_or(Outcome::Alone, |answer| Outcome::Same(Arc::new(answer))));
    }
}

/// An answer of ours.
fn whole(response: &Response) -> Answer {
    let body = match &response.body {
        Body::Bytes(bytes) => vec![Piece::Bytes(bytes.clone())],
        Body::Empty | Body::File(_) | Body::Stream(_) => Vec::new(),
    };
    Answer::new(response, None).with(body)
}
