//! Requests of routes that look at what is sent twice: see [`crate::flight`].

use std::sync::Arc;
use std::time::Duration;

use ctl_telemetry::metrics as m;
use http_limits::{KeyHasher, Policy, parse_key};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::errand::{Cargo, Errand};
use super::{
    Asks, Gateway, GatherError, GatherLimits, Payload, RequestBody, Response, Terms, Trail, error_for, gather,
};
use crate::flight::{
    Arrived, Begun, Fingerprinted, Gathered, Known, Outcome, Place, Problem, Rules, Told, Waiting, key,
};
use crate::message::{Body, BodyLength};
use crate::route::{Comes, Route};

/// What a part of a key is.
mod kind {
    pub(super) const ROUTE: u8 = 32;
    pub(super) const KEY: u8 = 33;
    pub(super) const REQUEST: u8 = 34;
    pub(super) const CERTIFICATE: u8 = 35;
    pub(super) const VOUCHED: u8 = 36;
}

/// The field by which an answer tells that it was given before, as others name it.
const REPLAYED: &str = "Idempotent-Replayed";

/// A request that may come in, and where it goes.
#[derive(Clone, Copy)]
pub(super) struct Trip<'a> {
    pub(super) rules: &'a Rules,
    pub(super) route: &'a Route,
    pub(super) comes: Comes<'a>,
    pub(super) asks: Asks<'a>,
}

/// A key of a client's own, as it was sent.
type OwnKey = Vec<u8>;

/// A body, and what it was.
type Read = (Payload, u64);

impl Gateway {
    /// Does what the route has decided, one request at a time, or once for each key.
    pub(super) async fn flown<B: RequestBody>(
        &self,
        trip: Trip<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        let own = match own_key(trip) {
            Ok(own) => own,
            Err(problem) => {
                m::IDEMPOTENCY_MALFORMED_TOTAL.inc();
                return self.says(problem, trip, trail);
            }
        };
        let whose = self.guard.whose(self.guard.seed(), &trip.rules.whose, trip.comes.head, trail);
        let (Some(policy), Some(mut line)) = (trip.rules.policy, whose) else {
            return self.take_off(None, own, None, trip, body, trail).await;
        };
        line.part(kind::ROUTE, trip.route.taken().name.as_bytes());
        if let Policy::Join(_) = policy {
            return self.join(line, policy, own, trip, body, trail).await;
        }
        match self.flights.arrive(line.key(), policy) {
            Arrived::Leads(place) => self.take_off(Some(place), own, None, trip, body, trail).await,
            Arrived::Waits(waiting) => self.wait(waiting, own, trip, body, trail).await,
            // Nobody joins here.
            Arrived::Shares(_) => self.take_off(None, own, None, trip, body, trail).await,
            Arrived::Refused => {
                m::FLIGHT_REFUSED_TOTAL.inc();
                let problem = if policy == Policy::Reject { Problem::UnderWay } else { Problem::LineFull };
                self.says(problem, trip, trail)
            }
        }
    }

    /// Its turn comes when those before it are done. The body is read first: a client that waits could not be heard leaving otherwise.
    async fn wait<B: RequestBody>(
        &self,
        mut waiting: Waiting,
        own: Option<OwnKey>,
        trip: Trip<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        m::FLIGHT_QUEUED_TOTAL.inc();
        let since = Instant::now();
        let read = match self.read(trip, body).await {
            Ok(read) => read,
            Err(error) => return Self::body_failed(&error, trip.comes.head, trail),
        };
        let patience = trip.route.patience().unwrap_or(self.config.timeouts.queue);
        let told = tokio::select! {
            biased;
            told = waiting.told() => told,
            () = body.closed() => return gone(trip, trail),
            () = sleep(patience.saturating_sub(since.elapsed())) => {
                m::FLIGHT_REFUSED_TOTAL.inc();
                return self.says(Problem::LineSlow, trip, trail);
            }
        };
        trail.queue_wait += since.elapsed();
        let place = match told {
            Told::Turn(place) => Some(place),
            Told::Shares(_) => None,
        };
        // It waits no more: who comes next is not to be counted behind it.
        drop(waiting);
        self.take_off(place, own, Some(read), trip, body, trail).await
    }

    /// Equal requests share one answer.
    async fn join<B: RequestBody>(
        &self,
        mut line: KeyHasher,
        policy: Policy,
        own: Option<OwnKey>,
        trip: Trip<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        let (payload, fingerprint) = match self.read(trip, body).await {
            Ok(read) => read,
            Err(error) => return Self::body_failed(&error, trip.comes.head, trail),
        };
        key(&mut line, trip.comes.head, trip.comes.identity, fingerprint);
        who_besides(&mut line, trip);
        let (arrived, since) = (self.flights.arrive(line.key(), policy), Instant::now());
        let outcome = match arrived {
            Arrived::Leads(place) => {
                let read = (payload, fingerprint);
                return self.send(Some(place), own, read, trip, body, trail).await;
            }
            Arrived::Waits(mut waiting) => {
                // Longer than who leads may take until its answer begins; one that takes longer is not worth waiting for.
                let patience = self.config.timeouts.queue + self.longest(trip.route);
                let told = tokio::select! {
                    biased;
                    told = waiting.told() => told,
                    () = body.closed() => return gone(trip, trail),
                    () = sleep(patience) => Told::Shares(Outcome::Alone),
                };
                match told {
                    Told::Shares(outcome) => outcome,
                    // Nobody waits for a turn here.
                    Told::Turn(_) => Outcome::Alone,
                }
            }
            Arrived::Shares(outcome) => outcome,
            Arrived::Refused => Outcome::Alone,
        };
        trail.queue_wait += since.elapsed();
        if let Outcome::Same(answer) = outcome
            && answer.is_for(trip.comes.head)
        {
            m::FLIGHT_JOINED_TOTAL.inc();
            return answer.again(trail);
        }
        m::FLIGHT_ALONE_TOTAL.inc();
        self.take_off(None, own, Some((payload, fingerprint)), trip, body, trail).await
    }

    /// It goes: by itself, or by the hand of who keeps its key. `read`: its body, where that has been read.
    async fn take_off<B: RequestBody>(
        &self,
        place: Option<Arc<Place>>,
        own: Option<OwnKey>,
        read: Option<Read>,
        trip: Trip<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        match (own, read) {
            (None, None) => self.fly(place, trip, body, trail).await,
            (None, Some((payload, _))) => {
                let mut body = Gathered { payload: Some(payload), client: Some(body) };
                self.fly(place, trip, &mut body, trail).await
            }
            (own, Some(read)) => self.send(place, own, read, trip, body, trail).await,
            (own, None) => match self.read(trip, body).await {
                Ok(read) => self.send(place, own, read, trip, body, trail).await,
                Err(error) => Self::body_failed(&error, trip.comes.head, trail),
            },
        }
    }

    /// It does itself what the route has decided.
    async fn fly<B: RequestBody>(
        &self,
        place: Option<Arc<Place>>,
        trip: Trip<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        let terms = Terms { flight: place.as_ref(), ..trip.asks.terms };
        let asks = Asks { terms, ..trip.asks };
        let Some(held) = &place else {
            return self.follow(trip.route.way(trip.comes), asks, body, trail).await;
        };
        let has_body = body.length() != BodyLength::None;
        let response = tokio::select! {
            biased;
            () = held.superseded() => None,
            response = self.follow(trip.route.way(trip.comes), asks, body, trail) => Some(response),
        };
        let Some(response) = response else {
            let mut response = self.says(Problem::Superseded, trip, trail);
            response.close = has_body;
            return response;
        };
        if let Body::Stream(stream) = &response.body
            && !response.trail.lasts
        {
            if let Some(cutter) = stream.cutter() {
                held.cuts(cutter);
            }
            stream.hold(Box::new(place));
        }
        response
    }

    /// A task does it, and the answer comes from there: its client may leave. Only who has a new key, or none, gets so far.
    async fn send<B: RequestBody>(
        &self,
        place: Option<Arc<Place>>,
        own: Option<OwnKey>,
        (payload, fingerprint): Read,
        trip: Trip<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Response {
        let held = match own {
            None => None,
            Some(own) => match self.begin(&own, fingerprint, trip, trail).await {
                Begun::First(held) => Some(held),
                begun => return self.not_again(begun, trip, trail),
            },
        };
        let Some(gateway) = self.own.upgrade() else { return error_for(trip.comes.head, 503, trail) };
        let joins = matches!(trip.rules.policy, Some(Policy::Join(_)));
        let _cares = place.as_ref().map(|place| place.cares());
        let (to_client, from_errand) = oneshot::channel();
        let errand = Errand {
            gateway,
            route: trip.route.number(),
            connection: trip.asks.connection.clone(),
            identity: trip.comes.identity.clone().into_owned(),
            head: trip.comes.head.clone(),
            payload: Some(payload),
            trail: trail.clone(),
        };
        tokio::spawn(errand.run(Cargo { place, joins, held }, to_client));
        tokio::select! {
            biased;
            answered = from_errand => answered.unwrap_or_else(|_| error_for(trip.comes.head, 502, trail)),
            () = body.closed() => gone(trip, trail),
        }
    }

    /// Has this key been used?
    async fn begin(&self, own: &OwnKey, body: u64, trip: Trip<'_>, trail: &Trail) -> Begun {
        let Trip { rules, route, comes: Comes { head, identity, .. }, .. } = trip;
        // Who cannot be told from others still has a key that nobody else can guess.
        let seed = self.keys.seed();
        let whose = self.guard.whose(seed, &rules.whose, head, trail);
        let mut key = whose.unwrap_or_else(|| seed.hasher());
        key.part(kind::ROUTE, route.taken().name.as_bytes());
        key.part(kind::KEY, own);
        who_besides(&mut key, trip);
        let mut fingerprint = seed.hasher();
        let content_type = head.headers.get("content-type").unwrap_or_default();
        let host = &identity.host;
        for part in [head.method.as_bytes(), host, &head.target, content_type, &body.to_le_bytes()] {
            fingerprint.part(kind::REQUEST, part);
        }
        // Who shares a password with others shares their keys, and must not get their answers: it is another request then (422).
        self.guard.session(head, |session| fingerprint.part(kind::REQUEST, session));
        self.keys.begin(key.key(), fingerprint.key()).await
    }

    /// The answer to who has used his key before.
    fn not_again(&self, begun: Begun, trip: Trip<'_>, trail: &Trail) -> Response {
        let (counter, problem) = match begun {
            Begun::Again(Known::Answer(answer)) => {
                m::IDEMPOTENCY_REPLAYED_TOTAL.inc();
                let mut response = answer.again(trail);
                response.headers.set(REPLAYED, b"true");
                return response;
            }
            Begun::Again(Known::TooLarge) => (&m::IDEMPOTENCY_SPENT_TOTAL, Problem::KeySpent),
            Begun::Again(Known::Doubtful) | Begun::First(_) => {
                (&m::IDEMPOTENCY_SPENT_TOTAL, Problem::KeyDoubtful)
            }
            Begun::Outstanding => (&m::IDEMPOTENCY_OUTSTANDING_TOTAL, Problem::KeyOutstanding),
            Begun::Differs => (&m::IDEMPOTENCY_DIFFERS_TOTAL, Problem::KeyDiffers),
            Begun::Full => (&m::IDEMPOTENCY_FULL_TOTAL, Problem::KeysFull),
        };
        counter.inc();
        self.says(problem, trip, trail)
    }

    /// All of the body, and what it was.
    async fn read<B: RequestBody>(&self, trip: Trip<'_>, body: &mut B) -> Result<Read, GatherError> {
        let mut body = Fingerprinted::new(body, self.keys.seed());
        let payload = gather(&mut body, self.gathering(trip.route)).await?;
        Ok((payload, body.fingerprint()))
    }

    fn gathering(&self, route: &Route) -> GatherLimits<'_> {
        GatherLimits {
            body_bytes_max: route.body_bytes_max().unwrap_or(self.config.limits.body_max),
            memory_bytes: self.config.buffers.request_memory,
            dir: &self.spool_dir,
        }
    }

    /// How long an app may take to begin its answer.
    fn longest(&self, route: &Route) -> Duration {
        route.app_timeout().unwrap_or(self.config.timeouts.app)
    }

    fn says(&self, problem: Problem, trip: Trip<'_>, trail: &Trail) -> Response {
        self.problems.response(problem, trip.comes.head, trail)
    }
}

/// Who asks may be known by more than what he sends: by his certificate, and by what was said of him when he was let in. Nobody gets an answer that
/// was made for somebody else.
fn who_besides(key: &mut KeyHasher, trip: Trip<'_>) {
    if let Some(shown) = trip.comes.certificate {
        key.part(kind::CERTIFICATE, shown.fingerprint.as_bytes());
    }
    for value in trip.route.forward_auth().into_iter().flat_map(|auth| auth.said(trip.comes.head)) {
        key.part(kind::VOUCHED, value);
    }
}

/// The key that a client has given its request, where it is heard.
fn own_key(trip: Trip<'_>) -> Result<Option<OwnKey>, Problem> {
    let Some(required) = trip.rules.hears_key(&trip.comes.head.method) else { return Ok(None) };
    let mut sent = trip.comes.head.headers.all("idempotency-key");
    match (sent.next(), sent.next()) {
        (None, _) if required => Err(Problem::KeyMissing),
        (None, _) => Ok(None),
        (Some(value), None) => parse_key(value).map(Some).map_err(|_| Problem::KeyMalformed),
        (Some(_), Some(_)) => Err(Problem::KeyMalformed),
    }
}

/// For the log: nobody is left to read it.
fn gone(trip: Trip<'_>, trail: &Trail) -> Response {
    let mut response = error_for(trip.comes.head, 499, trail);
    response.close = true;
    response
}
