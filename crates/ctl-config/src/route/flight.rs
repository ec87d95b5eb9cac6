//! `single_flight` and `idempotency` of a route: what becomes of requests while another is under way, and of those that come again.

use crate::choice::choice;
use crate::limit;
use crate::problem::{Place, Problem};
use crate::raw::Fault;
use crate::route::Route;

/// In one line. Each holds a connection, and the last one waits for all before it.
const QUEUE_MAX: usize = 1000;

/// The word of `single_flight_by` for everybody together.
pub const ANYONE: &str = "anyone";

choice! {
    /// Whether requests must have an Idempotency-Key.
    Idempotency {
        /// Requests without the field are served as ever.
        Optional = "optional",
        /// POST and PATCH without the field are answered 400.
        Required = "required",
    }
}

/// What a request does while another of the same user is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SingleFlight {
    /// It shares the answer of an equal one.
    Join,
    /// It waits for its turn, behind so many at most.
    Queue(usize),
    /// It is refused.
    Reject,
    /// It goes, and the other is broken off.
    CancelPrevious,
}

impl SingleFlight {
    /// Reads `join`, `queue(3)`, `reject`, `cancel_previous`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "join" => return Ok(Self::Join),
            "reject" => return Ok(Self::Reject),
            "cancel_previous" => return Ok(Self::CancelPrevious),
            _ => {}
        }
        let fault = || {
            Fault::new(format!("\"{text}\" is no way to fly alone"))
                .hint("\"join\", \"queue(5)\", \"reject\" or \"cancel_previous\"")
        };
        let waiting =
            text.strip_prefix("queue(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(fault)?;
        let waiting: usize = waiting.trim().parse().map_err(|_| fault())?;
        if (1..=QUEUE_MAX).contains(&waiting) {
            return Ok(Self::Queue(waiting));
        }
        Err(Fault::new(format!("{waiting} cannot wait in a line"))
            .hint(format!("1 to {QUEUE_MAX}; \"reject\" lets nobody wait")))
    }
}

pub(super) fn check_single_flight(text: &str) -> Result<(), Fault> {
    SingleFlight::parse(text).map(drop)
}

pub(super) fn check_by(text: &str) -> Result<(), Fault> {
    if text == ANYONE {
        return Ok(());
    }
    limit::check_by(text).map_err(|_| {
        Fault::new(format!("\"{text}\" tells nobody from others"))
            .hint("user, address, path, header:NAME as header:X-Api-Key, or anyone")
    })
}

/// What does not go together.
pub(super) fn together(
    route: &Route,
    is_given: impl Fn(&str) -> bool,
    place: impl Fn(&str) -> Option<Place>,
    problems: &mut Vec<Problem>,
) {
    let mut wrong = |key: &str, message: String, hint: &str| {
        problems.push(Problem::new(message).hint(hint).at(place(key)));
    };
    if is_given("single_flight_by") && route.single_flight.is_none() && route.idempotency.is_none() {
        wrong(
            "single_flight_by",
            "route.single_flight_by: nothing flies alone on this route".to_owned(),
            "it goes with single_flight or idempotency",
        );
    }
    if route.single_flight_by.len() > 1 && route.single_flight_by.iter().any(|by| by == ANYONE) {
        wrong(
            "single_flight_by",
            format!("route.single_flight_by: \"{ANYONE}\" is everybody, whatever else there is"),
            "it stands alone: [\"anyone\"]",
        );
    }
    let Some(_) = route.idempotency else { return };
    if route.single_flight.as_deref() == Some("cancel_previous") {
        wrong(
            "single_flight",
            "route.single_flight: what has an Idempotency-Key is never broken off".to_owned(),
            "its answer is kept for who asks again: \"queue(5)\", \"reject\" or \"join\" go together with idempotency",
        );
    }
    if route.single_flight_by.iter().any(|by| by == ANYONE) {
        wrong(
            "single_flight_by",
            "route.single_flight_by: the keys of all users would be one".to_owned(),
            "with idempotency an answer belongs to who asked: user, address or header:NAME",
        );
    }
    let takes = |method: &String| matches!(method.as_str(), "POST" | "PATCH");
    if !route.method.is_empty() && !route.method.iter().any(takes) {
        wrong(
            "idempotency",
            "route.idempotency: the route takes neither POST nor PATCH".to_owned(),
            "only these are not idempotent by themselves: leave it away",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;
    use crate::testing::{sources, wrong};

    #[test]
    fn policies() {
        #[track_caller]
        fn check(text: &str, expected: Option<SingleFlight>) {
            assert_eq!(SingleFlight::parse(text).ok(), expected, "{text}");
        }
        check("join", Some(SingleFlight::Join));
        check("queue(1)", Some(SingleFlight::Queue(1)));
        check("queue( 20 )", Some(SingleFlight::Queue(20)));
        check("reject", Some(SingleFlight::Reject));
        check("cancel_previous", Some(SingleFlight::CancelPrevious));
        for text in ["", "queue", "queue()", "queue(0)", "queue(1001)", "queue(-1)", "queue(3", "Join"] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_written_is_taken() {
        for text in [
            "[[route]]\npath = \"/report\"\nsingle_flight = \"join\"\nsingle_flight_by = [\"anyone\"]\n",
            "[[route]]\npath = \"/pay\"\nidempotency = \"required\"\nsingle_flight = \"queue(3)\"\n",
            "[[route]]\npath = \"/pay\"\nidempotency = \"optional\"\nsingle_flight_by = [\"header:X-Api-Key\"]\n",
        ] {
            assert!(load(&sources(text)).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let text = "[[route]]\npath = \"/a\"\nsingle_flight = \"wait\"\n\
                    [[route]]\npath = \"/b\"\nsingle_flight_by = [\"ip\"]\n\
                    [[route]]\npath = \"/c\"\nidempotency = \"yes\"\n";
        insta::assert_snapshot!(wrong(text));
        let text = "[[route]]\npath = \"/a\"\nsingle_flight_by = [\"user\"]\n\
                    [[route]]\npath = \"/b\"\nsingle_flight = \"join\"\nsingle_flight_by = [\"user\", \"anyone\"]\n\
                    [[route]]\npath = \"/c\"\nsingle_flight = \"cancel_previous\"\nidempotency = \"optional\"\n\
                    [[route]]\npath = \"/d\"\nidempotency = \"optional\"\nsingle_flight_by = [\"anyone\"]\nmethod = [\"GET\"]\n\
                    [[route]]\npath = \"/e\"\nredirect = \"/f\"\nsingle_flight = \"reject\"\nidempotency = \"required\"\n";
        insta::assert_snapshot!(wrong(text));
    }
}
