//! The life of a conversation.
//!
//! ```text
//!            the client's Close, echoed                 all is sent
//!  Open ───────────────────────────────────► Ending ────────────────► over
//!   │  └── a broken rule, no answer to a ping ──►▲
//!   │ our Close: the app's, or the drain's       │ the client's Close, or it did not come in time
//!   └───────────────────────────► Closing ───────┘
//! ```
//!
//! Both directions move by themselves: a client that does not read still has its close frame seen, and one that sends without
//! pause does not hold up the app's messages. What is bounded: output (a gathered write and one fragment; of unanswered pings
//! only the last is kept), input (nothing is read while the app has not taken what came before), and every wait: for a pong, for
//! output to move, for the client's close frame, for an app that is slow to hear that its client is gone.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{End, Gone, Terms, Wire};
use crate::drain::Drain;
use crate::websocket::close::{self, Violation, may_be_sent};
use crate::websocket::decode::{Decoder, Event};
use crate::websocket::encode::{Outgoing, put_close, put_ping, put_pong};
use crate::websocket::{AppSession, FromApp, FromClient};

/// Frames that are ready at once are gathered up to this before they are written.
const GATHER_BYTES: usize = 64 << 10;

/// The client has this long to answer our close frame, and to take it: a round trip, and what a sleeping phone needs.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Longer than any deadline: what the alarm is set to at first.
const FAR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Our close frame is out or on its way; once it is, the client's is waited for until then.
    Closing(Option<Instant>),
    /// What is in `out` is the last of it.
    Ending(End),
}

/// See the head of this file.
pub(super) struct Conversation<'w, W> {
    wire: &'w mut W,
    decoder: Decoder,
    to_app: Sender<FromClient>,
    from_app: Receiver<FromApp>,
    terms: Terms,
    state: State,
    /// Whole frames.
    out: BytesMut,
    /// Something of `out` has not been handed on.
    sending: bool,
    /// When output moved, or began to wait.
    moved: Instant,
    /// The app's message that is being sent.
    outgoing: Option<Outgoing>,
    /// The answer to the client's last ping. RFC 6455, 5.5.3: earlier ones need none.
    pong: Option<Bytes>,
    /// A message for which the app has no room: nothing is read meanwhile.
    held: Option<FromClient>,
    /// The last that the app hears; the first reason counts.
    farewell: Option<FromClient>,
    /// There has been a farewell.
    told: bool,
    /// When the client gave a sign of life, or was listened to again.
    heard: Instant,
    /// When it was asked for one.
    asked: Option<Instant>,
    /// The question is still behind other output: no answer can have come.
    asking: bool,
    /// When our close frame follows the beginning of a drain.
    leave_at: Option<Instant>,
    sent: u64,
}

/// What was waited for.
enum Happened {
    /// Bytes came.
    Read,
    /// All output has been handed on.
    Sent,
    Gone,
    /// The app has taken what was held for it, or is not there any more.
    Taken,
    /// `None`: the app's worker died.
    Said(Option<FromApp>),
    Alarm,
    Drain,
}

impl<'w, W: Wire> Conversation<'w, W> {
    pub(super) fn new(wire: &'w mut W, app: AppSession, terms: Terms) -> Self {
        let now = Instant::now();
        Self {
            wire,
            decoder: Decoder::new(terms.message_bytes_max, terms.deflate.is_some()),
            to_app: app.to_app,
            from_app: app.from_app,
            terms,
            state: State::Open,
            out: BytesMut::new(),
            sending: false,
            moved: now,
            outgoing: None,
            pong: None,
            held: None,
            farewell: None,
            told: false,
            heard: now,
            asked: None,
            asking: false,
            leave_at: None,
            sent: 0,
        }
    }

    /// Bytes of frames that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Talks until it is over.
    pub(super) async fn run(&mut self, mut drain: Drain) -> End {
        let mut alarm = pin!(sleep_until(Instant::now() + FAR));
        loop {
            self.hear();
            self.speak();
            if let (State::Ending(end), false) = (self.state, self.sending) {
                return end;
            }
            if !self.sending {
                self.out = BytesMut::new();
            }
            if self.wire.buffered().is_empty() {
                self.wire.release();
            }
            match self.wait(alarm.as_mut(), &mut drain).await {
                Happened::Read => {
                    self.heard = Instant::now();
                    self.asked = None;
                }
                Happened::Sent => {
                    if std::mem::take(&mut self.asking) {
                        self.asked = self.asked.map(|_| Instant::now());
                    }
                    if self.state == State::Closing(None) {
                        self.state = State::Closing(Some(Instant::now() + CLOSE_WAIT));
                    }
                }
                Happened::Gone => return self.lost(),
                Happened::Taken => {
                    // While nothing was read the client could not give a sign of life.
                    self.heard = Instant::now();
                    self.asked = self.asked.map(|_| self.heard);
                }
                Happened::Said(said) => self.say(said),
                Happened::Drain => self.leave_at = Some(Instant::now() + self.terms.grace),
                Happened::Alarm => {
                    if self.ring(Instant::now()) {
                        return self.lost();
                    }
                }
            }
        }
    }

    /// May more be taken from the client?
    fn reads(&self) -> bool {
        match self.state {
            State::Open => self.held.is_none(),
            // Only the close frame counts now.
            State::Closing(_) => true,
            State::Ending(_) => false,
        }
    }

    /// Is there room for more of the app's?
    fn asks_app(&self) -> bool {
        self.state == State::Open && self.outgoing.is_none() && self.out.len() < GATHER_BYTES
    }

    async fn wait(&mut self, mut alarm: Pin<&mut Sleep>, drain: &mut Drain) -> Happened {
        let (reads, asks_app, deadline) = (self.reads(), self.asks_app(), self.deadline());
        let leaving = self.leave_at.is_some() || self.state != State::Open;
        let Self { wire, out, sending, moved, sent, to_app, from_app, held, farewell, .. } = self;
        let bytes = poll_fn(|context| {
            if *sending {
                let before = out.len();
                let result = wire.poll_send(context, out);
                if out.len() < before {
                    *sent += (before - out.len()) as u64;
                    *moved = Instant::now();
                }
                match result {
                    Poll::Ready(Ok(())) => {
                        *sending = false;
                        return Poll::Ready(Happened::Sent);
                    }
                    Poll::Ready(Err(Gone)) => return Poll::Ready(Happened::Gone),
                    Poll::Pending => {}
                }
            }
            match reads.then(|| wire.poll_fill(context)) {
                Some(Poll::Ready(Ok(()))) => Poll::Ready(Happened::Read),
                Some(Poll::Ready(Err(Gone))) => Poll::Ready(Happened::Gone),
                Some(Poll::Pending) | None => Poll::Pending,
            }
        });
        tokio::select! {
            happened = bytes => happened,
            said = from_app.recv(), if asks_app => Happened::Said(said),
            permit = to_app.reserve(), if held.is_some() || farewell.is_some() => {
                let message = held.take().or_else(|| farewell.take());
                match (permit, message) {
                    (Ok(permit), Some(message)) => permit.send(message),
                    (Ok(_), None) => {}
                    // The app is not interested any more.
                    (Err(_), _) => *farewell = None,
                }
                Happened::Taken
            }
            () = poll_fn(|context| poll_alarm(alarm.as_mut(), context, deadline)) => Happened::Alarm,
            () = drain.begun(), if !leaving => Happened::Drain,
        }
    }

    /// What the client has said so far.
    fn hear(&mut self) {
        while self.reads() && !self.wire.buffered().is_empty() {
            match self.decoder.decode(self.wire.buffered()) {
                Ok((taken, event)) => {
                    self.wire.consume(taken);
                    if let Some(event) = event {
                        self.heed(event);
                    }
                }
                Err(Violation { code, why }) => self.fail(code, why, code),
            }
        }
    }

    fn heed(&mut self, event: Event) {
        match event {
            Event::Close(said) => {
                // RFC 6455, 5.5.1: answered with the same code, unless it is an answer itself.
                let (code, reason) = said.unwrap_or((close::NO_CODE, String::new()));
                if self.state == State::Open {
                    self.put_last(code, "");
                }
                self.tell_closed(code, reason);
                self.state = State::Ending(End::Closed);
            }
            _ if self.state != State::Open => {}
            Event::Message(kind, bytes) => self.deliver(FromClient::Message(kind, bytes)),
            Event::Ping(payload) => self.pong = Some(payload),
            // The bytes it came in were a sign of life already.
            Event::Pong => {}
        }
    }

    fn deliver(&mut self, message: FromClient) {
        match self.to_app.try_send(message) {
            Err(TrySendError::Full(message)) => self.held = Some(message),
            // An app that is not interested any more will say how it ends.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
        }
    }

    /// The app will hear this when it has taken what came before.
    fn tell_closed(&mut self, code: u16, reason: String) {
        if !std::mem::replace(&mut self.told, true) {
            self.farewell = Some(FromClient::Closed { code, reason });
        }
    }

    /// Gathers what is ready to be sent.
    fn speak(&mut self) {
        while self.out.len() < GATHER_BYTES && self.state == State::Open {
            if let Some(payload) = self.pong.take() {
                put_pong(&mut self.out, &payload);
            } else if let Some(outgoing) = &mut self.outgoing {
                if !outgoing.put_frame(&mut self.out) {
                    self.outgoing = None;
                }
            } else {
                match self.from_app.try_recv() {
                    Ok(said) => self.say(Some(said)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => self.say(None),
                }
            }
        }
        if !self.sending && !self.out.is_empty() {
            self.sending = true;
            self.moved = Instant::now();
        }
    }

    /// What the app says; `None`: its worker died.
    fn say(&mut self, said: Option<FromApp>) {
        match said {
            Some(FromApp::Message(kind, bytes)) => {
                self.outgoing = Some(Outgoing::new(kind, bytes, self.terms.deflate));
            }
            Some(FromApp::Close { code, reason }) if code == close::NO_CODE || may_be_sent(code) => {
                self.close(code, &reason);
            }
            Some(FromApp::Close { code, .. }) => {
                tracing::warn!(
                    code,
                    "the app closed a WebSocket with a code that must not be sent: 1011 was sent"
                );
                self.close(close::INTERNAL_ERROR, "");
            }
            None => self.close(close::INTERNAL_ERROR, "the app went away"),
        }
    }

    /// The last frame; a message that was on its way breaks off.
    fn put_last(&mut self, code: u16, reason: &str) {
        (self.outgoing, self.pong) = (None, None);
        put_close(&mut self.out, code, reason);
    }

    /// Begins the closing handshake (RFC 6455, 7.1.2).
    fn close(&mut self, code: u16, reason: &str) {
        self.put_last(code, reason);
        self.state = State::Closing(None);
    }

    /// Fails the connection (RFC 6455, 7.1.7): says why, and waits for nothing.
    fn fail(&mut self, code: u16, why: &'static str, told: u16) {
        if self.state == State::Open {
            self.put_last(code, why);
        }
        self.tell_closed(told, why.to_owned());
        self.state = State::Ending(End::Failed);
    }

    /// The client is gone.
    fn lost(&mut self) -> End {
        self.tell_closed(close::ABNORMAL, String::new());
        End::Gone
    }

    /// How long output may stand still.
    fn send_patience(&self) -> Duration {
        match self.state {
            State::Ending(_) => self.terms.write_timeout.min(CLOSE_WAIT),
            // The process is about to end.
            State::Closing(_) if self.leave_at.is_some() => self.terms.write_timeout.min(CLOSE_WAIT),
            _ => self.terms.write_timeout,
        }
    }

    /// When the client must be asked for a sign of life, or must have given one. Only while we listen.
    fn ping_deadline(&self) -> Option<Instant> {
        let interval = self.terms.ping_interval?;
        let listens = self.state == State::Open && self.held.is_none();
        listens.then(|| match self.asked {
            None => self.heard + interval,
            // A client on a slow line takes its time to take what comes before: as long as it does take, it is there.
            Some(asked) if self.asking => asked.max(self.moved) + self.terms.ping_timeout,
            Some(asked) => asked + self.terms.ping_timeout,
        })
    }

    /// When something must be done at the latest.
    fn deadline(&self) -> Instant {
        let closing = if let State::Closing(until) = self.state { until } else { None };
        let leaving = self.leave_at.filter(|_| self.state == State::Open);
        let stuck = self.sending.then(|| self.moved + self.send_patience());
        let first = [closing, leaving, stuck, self.ping_deadline()].into_iter().flatten().min();
        first.unwrap_or_else(|| Instant::now() + FAR)
    }

    /// Does what is due. `true`: nothing can be done any more.
    fn ring(&mut self, now: Instant) -> bool {
        if self.sending && now >= self.moved + self.send_patience() {
            return true;
        }
        if let State::Closing(Some(until)) = self.state
            && now >= until
        {
            self.tell_closed(close::ABNORMAL, String::new());
            self.state = State::Ending(End::Failed);
        }
        if self.ping_deadline().is_some_and(|deadline| now >= deadline) {
            if self.asked.is_some() {
                self.fail(close::INTERNAL_ERROR, "a ping was not answered", close::ABNORMAL);
            } else {
                put_ping(&mut self.out);
                self.asked = Some(now);
                self.asking = true;
            }
        }
        if self.state == State::Open && self.leave_at.is_some_and(|at| now >= at) {
            self.close(close::GOING_AWAY, "the server goes away");
            self.tell_closed(close::GOING_AWAY, String::new());
        }
        false
    }

    /// An app that has no room for its last message hears it later, without its client's connection.
    pub(super) fn say_farewell(self) {
        let Self { to_app, from_app, held, farewell, terms, .. } = self;
        let mut rest = held.into_iter().chain(farewell);
        while let Some(message) = rest.next() {
            if let Err(TrySendError::Full(message)) = to_app.try_send(message) {
                let telling = async move {
                    for message in std::iter::once(message).chain(rest) {
                        if to_app.send(message).await.is_err() {
                            return;
                        }
                    }
                    drop(from_app);
                };
                drop(tokio::spawn(timeout(terms.app_timeout, telling)));
                return;
            }
        }
    }
}

/// One alarm for all deadlines: it may ring too early, and is then set again; moving it for each message would cost each.
fn poll_alarm(mut alarm: Pin<&mut Sleep>, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
    if alarm.deadline() > deadline {
        alarm.as_mut().reset(deadline);
    }
    loop {
        ready!(alarm.as_mut().poll(context));
        if alarm.deadline() >= deadline {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(deadline);
    }
}
