//! Which reactor this thread is: a number, so that a request can prefer a slot of its own reactor.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Numbers this thread; once, when a reactor starts.
pub fn set_current(number: usize) {
    CURRENT.set(number);
}

/// The number of the reactor that runs the calling task.
pub fn current() -> usize {
    CURRENT.get()
}
