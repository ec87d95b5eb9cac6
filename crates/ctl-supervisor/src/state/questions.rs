//! `quintet bans` and `quintet upstream`: what only the gateway can answer. It is handed on; a gateway that does not answer is told of.
//!
//! What the gateway does about bans it keeps itself. Who is drained is kept here, for the next gateway and for an heir: as long as
//! the instance lives, whoever took a server out does not find it back.

use std::time::{Duration, Instant};

use ctl_admin::words::{BansAnswer, BansRequest, Drained, Reply, ToGateway, UpstreamAnswer, UpstreamRequest};

use super::State;
use crate::event::{Action, ClientId};

/// The gateway answers from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The number of a question whose answer nobody waits for: the admin HTTP has asked.
const NOBODY: ClientId = ClientId::MAX;

/// Who waits for an answer, and until when.
#[derive(Debug, Default)]
pub(super) struct Questions(Vec<(Instant, ClientId)>);

impl Questions {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|(deadline, _)| *deadline).min()
    }
}

impl State {
    pub(super) fn bans_asked(&mut self, client: Option<ClientId>, request: &BansRequest, now: Instant) {
        let Some(client) = client else { return };
        let request = request.clone();
        self.ask_gateway(client, ToGateway::Bans { number: client, request }, now);
    }

    pub(super) fn upstream_asked(
        &mut self,
        client: Option<ClientId>,
        request: &UpstreamRequest,
        now: Instant,
    ) {
        let number = client.unwrap_or(NOBODY);
        if self.heir.is_some() {
            // It was told at its start who is drained.
            return self.unanswered(number, "an upgrade is under way");
        }
        let request = request.clone();
        self.ask_gateway(number, ToGateway::Upstream { number, request }, now);
    }

    fn ask_gateway(&mut self, number: ClientId, question: ToGateway, now: Instant) {
        if !self.gateway.runs() {
            return self.unanswered(number, "the gateway does not run at the moment");
        }
        if number != NOBODY {
            self.questions.0.push((now + ANSWER_TIMEOUT, number));
        }
        self.out.push(Action::TellGateway(question));
    }

    pub(super) fn bans_answered(&mut self, number: u64, answer: BansAnswer) {
        let reply = match answer {
            BansAnswer::List { bans, total } => Reply::Bans { bans, total },
            BansAnswer::Done { text } => Reply::Done { text },
            BansAnswer::Failed { text } => Reply::Failed { text, app: false },
        };
        self.answered(number, reply);
    }

    pub(super) fn upstream_answered(&mut self, number: u64, answer: UpstreamAnswer) {
        let reply = match answer {
            UpstreamAnswer::Done { text, drained } => {
                // Also when nobody waits for the answer any more: it is so.
                self.drained = drained;
                Reply::Done { text }
            }
            UpstreamAnswer::Failed { text } => Reply::Failed { text, app: false },
        };
        self.answered(number, reply);
    }

    /// `number` is the client who asked; he may have been told already that there is no answer.
    fn answered(&mut self, number: u64, reply: Reply) {
        let before = self.questions.0.len();
        self.questions.0.retain(|(_, client)| *client != number);
        if self.questions.0.len() < before {
            self.out.push(Action::Reply { client: number, reply });
        }
    }

    /// Servers of upstreams that get no new requests, for an heir.
    pub(crate) fn drained(&self) -> &[Drained] {
        &self.drained
    }

    pub(super) fn overdue_questions(&mut self, now: Instant) {
        let late = self.questions.0.extract_if(.., |(deadline, _)| *deadline <= now);
        let late: Vec<_> = late.map(|(_, client)| client).collect();
        for client in late {
            self.unanswered(client, "the gateway has not answered");
        }
    }

    /// The gateway has gone, and all that it was asked with it.
    pub(super) fn forget_questions(&mut self) {
        for (_, client) in std::mem::take(&mut self.questions).0 {
            self.unanswered(client, "the gateway has just ended");
        }
    }

    fn unanswered(&mut self, client: ClientId, why: &str) {
        if client == NOBODY {
            return;
        }
        let text = format!("{why}\nhint: try again in a moment; `quintet status` shows whether it runs");
        self.out.push(Action::Reply { client, reply: Reply::Failed { text, app: false } });
    }
}
