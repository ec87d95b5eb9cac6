//! `quintet bans`: questions that only the gateway can answer. They are handed on; a gateway that does not answer is told of.

use std::time::{Duration, Instant};

use ctl_admin::words::{BansAnswer, BansRequest, Reply, ToGateway};

use super::State;
use crate::event::{Action, ClientId};

/// The gateway answers from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

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
        if self.gateway.runs() {
            self.questions.0.push((now + ANSWER_TIMEOUT, client));
            let request = request.clone();
            self.out.push(Action::TellGateway(ToGateway::Bans { number: client, request }));
        } else {
            self.bans_unanswered(client, "the gateway does not run at the moment");
        }
    }

    /// `number` is the client who asked; he may have been told already that there is no answer.
    pub(super) fn bans_answered(&mut self, number: u64, answer: BansAnswer) {
        let before = self.questions.0.len();
        self.questions.0.retain(|(_, client)| *client != number);
        if self.questions.0.len() == before {
            return;
        }
        let reply = match answer {
            BansAnswer::List { bans, total } => Reply::Bans { bans, total },
            BansAnswer::Done { text } => Reply::Done { text },
            BansAnswer::Failed { text } => Reply::Failed { text, app: false },
        };
        self.out.push(Action::Reply { client: number, reply });
    }

    pub(super) fn overdue_bans(&mut self, now: Instant) {
        let late = self.questions.0.extract_if(.., |(deadline, _)| *deadline <= now);
        let late: Vec<_> = late.map(|(_, client)| client).collect();
        for client in late {
            self.bans_unanswered(client, "the gateway has not answered");
        }
    }

    /// The gateway has gone, and all that it was asked with it.
    pub(super) fn forget_bans_asked(&mut self) {
        for (_, client) in std::mem::take(&mut self.questions).0 {
            self.bans_unanswered(client, "the gateway has just ended");
        }
    }

    fn bans_unanswered(&mut self, client: ClientId, why: &str) {
        let text = format!("{why}\nhint: try again in a moment; `quintet status` shows whether it runs");
        self.out.push(Action::Reply { client, reply: Reply::Failed { text, app: false } });
    }
}
