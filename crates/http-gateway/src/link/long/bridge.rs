//! An accepted WebSocket between the protocol's driver and its stream of the long link.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep;

use super::{End, Item, LinkGone, LongStream};
use crate::websocket::close::ABNORMAL;
use crate::websocket::{FromApp, FromClient};

/// Passes messages both ways until either side has ended. A client that reads slowly, or an app that does, stops the other
/// direction of nobody. `patience`: how long an app may go on without taking what its client, which is gone, has said last.
pub(crate) async fn bridge(
    mut stream: LongStream,
    mut from_client: Receiver<FromClient>,
    to_client: Sender<FromApp>,
    patience: Duration,
) {
    let closed = tokio::select! {
        // The worker's end first: behind it there is nobody to tell anything.
        biased;
        () = to_driver(&stream, &to_client) => return,
        closed = to_app(&stream, &mut from_client) => closed,
        // An app that takes nothing would hold its place for good.
        () = late(&to_client, patience) => (ABNORMAL, String::new()),
    };
    let (code, reason) = closed;
    stream.send_close(code, &reason);
}

/// Until the app has closed or its worker is gone, or the client takes nothing any more.
async fn to_driver(stream: &LongStream, to_client: &Sender<FromApp>) {
    loop {
        let said = match stream.next().await {
            Ok(Item::Message(kind, bytes)) => FromApp::Message(kind, bytes),
            // Nothing else comes in a session.
            Ok(Item::Head(_) | Item::Piece(_)) => continue,
            Err(End::Close(code, reason)) => {
                let _the_client_is_gone = to_client.send(FromApp::Close { code, reason }).await;
                return;
            }
            // The driver sees the end without a Close.
            Err(End::Complete(_) | End::Aborted | End::Lost) => return,
        };
        if to_client.send(said).await.is_err() {
            // The driver has ended. What the client has said last still goes to the app, which may speak on until it hears of
            // it: nobody listens, but its end must be seen.
            while stream.next().await.is_ok() {}
            return;
        }
    }
}

/// Until the client has closed, or its driver is gone (1006: RFC 6455, 7.1.5). How it closed.
async fn to_app(stream: &LongStream, from_client: &mut Receiver<FromClient>) -> (u16, String) {
    loop {
        match from_client.recv().await {
            Some(FromClient::Message(kind, bytes)) => {
                if stream.send_message(kind, &bytes).await == Err(LinkGone) {
                    // The other direction will see how it ended.
                    return std::future::pending().await;
                }
            }
            Some(FromClient::Closed { code, reason }) => return (code, reason),
            None => return (ABNORMAL, String::new()),
        }
    }
}

/// Resolves when the driver has been gone for `patience`.
async fn late(to_client: &Sender<FromApp>, patience: Duration) {
    to_client.closed().await;
    sleep(patience).await;
}
