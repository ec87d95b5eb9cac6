//! Running a helper process that must end in time.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What is kept of each output; a helper that says more has gone wrong.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How.
    pub(crate) status: ExitStatus,
    /// Standard output, up to 4 MiB.
    pub(crate) stdout: Vec<u8>,
    /// Standard error, up to 4 MiB.
    pub(crate) stderr: Vec<u8>,
}

/// Runs `command` to its end, or kills it after `patience`. The error is one line for people.
pub(crate) fn output(command: &mut Command, patience: Duration) -> Result<Ended, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let status = match wait(&mut child, patience) {
        Ok(status) => status,
        Err(error) => {
            // It may have ended by itself in between, which is as good.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{program} {error}"));
        }
    };
    Ok(Ended { status, stdout: collect(stdout), stderr: collect(stderr) })
}

/// What a pipe has brought so far, and whether it has ended.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

type Shared = Arc<(Mutex<Heard>, Condvar)>;

fn drain(mut pipe: impl Read + Send + 'static) -> Shared {
    let shared = Shared::default();
    let heard = Arc::clone(&shared);
    thread::spawn(move || {
        let mut chunk = [0; 8192];
        loop {
            // A pipe that cannot be read any more has ended.
            let read = pipe.read(&mut chunk).unwrap_or(0);
            let mut state = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
            let room = OUTPUT_BYTES_MAX.saturating_sub(state.bytes.len()).min(read);
            state.bytes.extend_from_slice(&chunk[..room]);
            if read == 0 {
                state.ended = true;
                heard.1.notify_all();
                return;
            }
        }
    });
    shared
}

/// What was heard. A grandchild may hold the pipe open after the process itself has ended: then it is what came until
/// a moment later.
fn collect(shared: Option<Shared>) -> Vec<u8> {
    /// The end of a pipe follows the end of the process at once.
    const GRACE: Duration = Duration::from_millis(500);
    let Some(shared) = shared else { return Vec::new() };
    let state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut state, _) = shared
        .1
        .wait_timeout_while(state, GRACE, |heard| !heard.ended)
        .unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut state.bytes)
}

fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus, String> {
    /// Short against the start of a Python, long against a system call.
    const STEP: Duration = Duration::from_millis(2);
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if start.elapsed() >= patience => {
                return Err(format!("did not end within {} s", patience.as_secs()));
            }
            Ok(None) => thread::sleep(STEP),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_and_the_status() {
        let ended = output(&mut shell("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).unwrap();
        assert_eq!((ended.stdout.as_slice(), ended.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn patience_ends() {
        let start = Instant::now();
        let error = output(&mut shell("exec sleep 30"), Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("did not end"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hold_us() {
        let start = Instant::now();
        let ended = output(&mut shell("echo early; sleep 20 & exit 0"), Duration::from_secs(10)).unwrap();
        assert_eq!(ended.stdout, b"early\n");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_does_not_start() {
        let error = output(&mut Command::new("/nowhere/python"), Duration::from_secs(1)).unwrap_err();
        assert!(error.contains("cannot be started"), "{error}");
    }
}
