//! Streams of a connection that share a bandwidth, routes that have their own. The clock is tokio's, and jumps.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::message::Body;
use crate::spool::{SpoolLimits, spool};
use crate::testing;

const SECOND: Duration = Duration::from_secs(1);

fn limits(bandwidth: Option<u64>, bandwidth_after: u64) -> Limits {
    Limits { bandwidth, bandwidth_after, ..Limits::default() }
}

fn taken(bandwidth: Option<Bandwidth>) -> Arc<Taken> {
    Arc::new(Taken { bandwidth, ..Taken::default() })
}

fn response(route: Option<&Arc<Taken>>) -> Response {
    let mut response = testing::response(200, Body::Bytes(Bytes::from_static(b"x")));
    response.trail.route = route.cloned();
    response
}

/// Sends so many bytes, and says how long it took.
async fn send(mut pace: Box<Pace>, mut bytes: u64) -> Duration {
    let began = Instant::now();
    while bytes > 0 {
        let now = pace.allow(bytes).await;
        assert!(now > 0 && now <= bytes);
        pace.spent(now);
        bytes -= now;
    }
    began.elapsed()
}

#[track_caller]
fn assert_about(took: Duration, expected: Duration) {
    let off = took.abs_diff(expected);
    // Tokio's timers have a millisecond's grain, and there are sixteen steps a second.
    assert!(off <= expected / 50 + Duration::from_millis(80), "{took:?}, and not {expected:?}");
}

#[test]
fn without_the_setting_nothing_is_made() {
    let paces = Paces::default();
    assert!(paces.of(&limits(None, 0), &mut response(None)).is_none());
    let lifted = taken(Some(Bandwidth { rate: 0, after: 0 }));
    assert!(paces.of(&limits(Some(1024), 0), &mut response(Some(&lifted))).is_none());
    assert!(paces.0.get().is_none());
}

#[tokio::test(start_paused = true)]
async fn one_answer_after_another() {
    let paces = Paces::default();
    let limits = limits(Some(100_000), 0);
    let pace = || paces.of(&limits, &mut response(None)).unwrap();
    assert_about(send(pace(), 1_000_000).await, 10 * SECOND);
    assert_about(send(pace(), 500_000).await, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_beginning_goes_at_full_speed_and_silence_earns_another_one() {
    let paces = Paces::default();
    let limits = limits(Some(100_000), 1_000_000);
    let pace = || paces.of(&limits, &mut response(None)).unwrap();
    assert_about(send(pace(), 1_200_000).await, 2 * SECOND);
    assert_about(send(pace(), 100_000).await, SECOND);
    sleep(5 * SECOND).await;
    assert_about(send(pace(), 600_000).await, SECOND);
}

#[tokio::test(start_paused = true)]
async fn streams_share_and_take_turns() {
    let paces = Paces::default();
    let limits = limits(Some(100_000), 0);
    let pace = || paces.of(&limits, &mut response(None)).unwrap();
    let (one, other, small) = tokio::join!(send(pace(), 500_000), send(pace(), 500_000), send(pace(), 5_000));
    assert_about(one, 10 * SECOND);
    assert_about(other, 10 * SECOND);
    assert!(small < SECOND, "{small:?}: it waits for a turn, not for the others' ends");
}

#[tokio::test(start_paused = true)]
async fn a_route_has_a_bandwidth_of_its_own() {
    let paces = Paces::default();
    let limits = limits(Some(100_000), 0);
    let slow = taken(Some(Bandwidth { rate: 10_000, after: 0 }));
    let plain = taken(None);
    let pace = |route: &Arc<Taken>| paces.of(&limits, &mut response(Some(route))).unwrap();
    let (slowly, also, usual) =
        tokio::join!(send(pace(&slow), 50_000), send(pace(&slow), 50_000), send(pace(&plain), 500_000));
    assert_about(slowly.max(also), 10 * SECOND);
    assert_about(usual, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_he_waits_takes_nothing_along() {
    let paces = Paces::default();
    let limits = limits(Some(100_000), 0);
    let pace = || paces.of(&limits, &mut response(None)).unwrap();
    let sending = send(pace(), 300_000);
    for _ in 0..1000 {
        let mut other = pace();
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            _ = other.allow(1_000_000) => {}
        }
    }
    assert_about(sending.await, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_would_hold_a_worker_does_not_wait() {
    let spooled = SpoolLimits { memory_bytes: 1000, disk_bytes: 0, dir: std::env::temp_dir() };
    let (mut writer, stream) = spool(spooled);
    writer.holds_a_slot();
    let mut streamed = testing::response(200, Body::Empty);
    streamed.body = Body::Stream(stream);
    let paces = Paces::default();
    let mut pace = paces.of(&limits(Some(1024), 0), &mut streamed).unwrap();
    let began = Instant::now();
    assert_eq!(pace.allow(1024).await, 1024);
    pace.spent(1024);
    let filling = async {
        sleep(SECOND / 10).await;
        writer.push(Bytes::from(vec![0; 600]), || {}).await.unwrap();
    };
    let (bytes, ()) = tokio::join!(pace.allow(5000), filling);
    assert_eq!(bytes, 5000);
    assert_eq!(pace.allow(5000).await, 5000);
    assert_about(began.elapsed(), SECOND / 10);
    writer.end(Ok(()));
    assert_eq!(pace.allow(5000).await, 1024, "the worker is free: there is no hurry any more");
    assert_about(began.elapsed(), SECOND);
}
