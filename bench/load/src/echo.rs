//! The loopback limit: read a request, write as many bytes as the real answer has, with one epoll loop a core.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::options::Options;

/// Loops: one a core of the small machines this runs on, as nginx has workers.
const LOOPS: usize = 2;
/// Events taken from the kernel at once; nginx's default.
const EVENTS: usize = 512;

/// Serves until it is stopped by a signal.
pub fn run(options: &Options) -> Result<(), String> {
    let listener = TcpListener::bind(&options.address).map_err(|e| format!("{}: {e}", options.address))?;
    let mut loops = Vec::with_capacity(LOOPS);
    for _ in 0..LOOPS {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let poll = std::sync::Arc::new(poll);
        let (hand_over, taken) = mpsc::channel::<TcpStream>();
        let (shared, answer) = (std::sync::Arc::clone(&poll), answer(options.bytes));
        thread::spawn(move || turn(&shared, &taken, &answer));
        loops.push((poll, hand_over));
    }
    let mut numbers = [0_u64; LOOPS];
    for (index, stream) in listener.incoming().flatten().enumerate() {
        let (poll, hand_over) = &loops[index % LOOPS];
        let number = &mut numbers[index % LOOPS];
        let registered = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| stream.try_clone());
        let Ok(watched) = registered else { continue };
        // The channel keeps the order of the numbers: the loop finds connection N at index N of its list.
        if hand_over.send(stream).is_ok() {
            let _ = epoll::add(poll, &watched, EventData::new_u64(*number), EventFlags::IN);
            *number += 1;
        }
    }
    Ok(())
}

fn turn(poll: &impl std::os::fd::AsFd, taken: &mpsc::Receiver<TcpStream>, answer: &[u8]) {
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        if epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), None).is_err() {
            continue;
        }
        streams.extend(taken.try_iter().map(Some));
        for event in &events {
            let slot = event.data.u64() as usize;
            let Some(place) = streams.get_mut(slot) else { continue };
            if place.as_mut().is_some_and(|stream| !serve(stream, answer)) {
                *place = None;
            }
        }
    }
}

/// One request, one answer; false when the client is gone.
fn serve(stream: &mut TcpStream, answer: &[u8]) -> bool {
    let mut buffer = [0; 4096];
    // wrk sends a request only after the answer to the last: one read is one request.
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(_) => write(stream, answer),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Large answers fill the socket's buffer: blocking for a moment is simplest, and CPU is all that is measured.
fn write(stream: &mut TcpStream, answer: &[u8]) -> bool {
    match stream.write(answer) {
        Ok(count) if count == answer.len() => true,
        Ok(count) => {
            let _ = stream.set_nonblocking(false);
            let done = stream.write_all(&answer[count..]).is_ok();
            let _ = stream.set_nonblocking(true);
            done
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// An answer of `bytes` bytes in all, or the smallest there is.
fn answer(bytes: usize) -> Vec<u8> {
    let head = |body: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
    let body = bytes.saturating_sub(head(bytes).len());
    let mut answer = head(body).into_bytes();
    answer.resize(answer.len() + body, b'x');
    answer
}
