//! Who is told what.

use super::*;

fn flights() -> Arc<Flights> {
    Flights::new(Seed::from_bytes([5; 16]))
}

fn leads(arrived: Arrived) -> Arc<Place> {
    match arrived {
        Arrived::Leads(place) => place,
        other => panic!("{other:?}"),
    }
}

fn waits(arrived: Arrived) -> Waiting {
    match arrived {
        Arrived::Waits(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_place_goes_to_the_next_who_is_still_there() {
    let flights = flights();
    let first = leads(flights.arrive(1, Policy::Queue(5)));
    let [mut second, third, mut fourth] = std::array::from_fn(|_| waits(flights.arrive(1, Policy::Queue(5))));
    assert_eq!(flights.len(), (1, 3));
    drop(third);
    let copy = Arc::clone(&first);
    drop(first);
    assert_eq!(flights.len(), (1, 2), "somebody holds it");
    drop(copy);
    let Told::Turn(place) = second.told().await else { panic!("its turn") };
    drop(second);
    drop(place);
    assert_eq!(flights.len(), (1, 0));
    // One that was told and did not hear it any more gives it on.
    let mut fifth = waits(flights.arrive(1, Policy::Queue(5)));
    let Told::Turn(place) = fourth.told().await else { panic!("its turn") };
    let sixth = waits(flights.arrive(1, Policy::Queue(5)));
    drop(place);
    drop(sixth);
    let Told::Turn(place) = fifth.told().await else { panic!("its turn") };
    drop((place, fourth, fifth));
    assert_eq!(flights.len(), (0, 0));
    let first = leads(flights.arrive(1, Policy::Queue(5)));
    let [second, third] = std::array::from_fn(|_| waits(flights.arrive(1, Policy::Queue(5))));
    drop(first);
    drop(second);
    assert_eq!(flights.len(), (1, 0), "the third leads, and has not heard it yet");
    drop(third);
    assert_eq!(flights.len(), (0, 0));
}

#[tokio::test]
async fn those_who_joined_are_told_before_it_is_over() {
    let flights = flights();
    let first = leads(flights.arrive(1, Policy::Join(9)));
    let mut second = waits(flights.arrive(1, Policy::Join(9)));
    first.settle(&Outcome::Alone);
    assert!(matches!(second.told().await, Told::Shares(Outcome::Alone)));
    assert!(matches!(flights.arrive(1, Policy::Join(9)), Arrived::Shares(Outcome::Alone)));
    drop(second);
    assert_eq!(flights.len(), (1, 0));
    drop(first);
    assert_eq!(flights.len(), (0, 0));
}

#[tokio::test]
async fn nobody_joins_what_was_abandoned() {
    let flights = flights();
    let first = leads(flights.arrive(1, Policy::Join(9)));
    let cares = first.cares();
    let second = waits(flights.arrive(1, Policy::Join(9)));
    drop(cares);
    assert!(first.is_wanted());
    drop(second);
    first.abandoned().await;
    let _leads = leads(flights.arrive(1, Policy::Join(9)));
    drop(first);
    assert_eq!(flights.len(), (1, 0));
}

#[tokio::test]
async fn who_is_superseded_hears_of_it_once_and_ends_nothing() {
    let flights = flights();
    let first = leads(flights.arrive(1, Policy::CancelPrevious));
    let second = leads(flights.arrive(1, Policy::CancelPrevious));
    first.superseded().await;
    drop(first);
    assert!(matches!(flights.arrive(1, Policy::Reject), Arrived::Refused));
    drop(second);
    assert_eq!(flights.len(), (0, 0));
}
