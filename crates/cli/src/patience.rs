//! Running a helper process that must end in time.
//!
//! Without threads: the supervisor runs in this very process afterwards, and it wants to be alone.

use std::io::{ErrorKind, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What is kept of each output; a helper that says more has gone wrong.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// The end of a pipe follows the end of the process at once, but for a grandchild that holds it open.
const GRACE: Duration = Duration::from_millis(500);

/// Between two looks at whether the process has ended: short against the start of a Python.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

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
    let mut pipes =
        Pipes { stdout: child.stdout.take(), stderr: child.stderr.take(), heard: [Vec::new(), Vec::new()] };
    match wait(&mut child, &mut pipes, patience) {
        Ok(status) => {
            let [stdout, stderr] = pipes.heard;
            Ok(Ended { status, stdout, stderr })
        }
        Err(error) => {
            // It may have ended by itself in between, which is as good.
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("{program} {error}"))
        }
    }
}

fn wait(child: &mut Child, pipes: &mut Pipes, patience: Duration) -> Result<ExitStatus, String> {
    let mut deadline = Instant::now() + patience;
    let mut ended = None;
    loop {
        if ended.is_none() {
            ended = child.try_wait().map_err(|error| format!("cannot be waited for: {error}"))?;
            if ended.is_some() {
                deadline = Instant::now() + GRACE;
            }
        }
        if let (Some(status), true) = (ended, pipes.ended()) {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return ended.ok_or_else(|| format!("did not end within {} s", patience.as_secs()));
        }
        pipes.hear();
    }
}

/// Both outputs; a pipe that has ended is gone.
struct Pipes {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    heard: [Vec<u8>; 2],
}

impl Pipes {
    fn ended(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Takes what has come, or waits for a moment.
    fn hear(&mut self) {
        let ready = |fd: &mut PollFd<'_>| !fd.revents().is_empty();
        let (mut stdout_ready, mut stderr_ready) = (false, false);
        {
            let mut fds = Vec::with_capacity(2);
            fds.extend(self.stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            fds.extend(self.stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            // Interrupted or not: what is ready is said again the next time.
            let _ = poll(&mut fds, Some(&STEP));
            let mut fds = fds.iter_mut();
            if self.stdout.is_some() {
                stdout_ready = fds.next().is_some_and(ready);
            }
            if self.stderr.is_some() {
                stderr_ready = fds.next().is_some_and(ready);
            }
        }
        let [stdout, stderr] = &mut self.heard;
        if stdout_ready {
            take(&mut self.stdout, stdout);
        }
        if stderr_ready {
            take(&mut self.stderr, stderr);
        }
    }
}

/// One read of a pipe that is ready, so that it does not wait.
fn take(pipe: &mut Option<impl Read>, heard: &mut Vec<u8>) {
    let mut chunk = [0; 16 << 10];
    match pipe.as_mut().map(|pipe| pipe.read(&mut chunk)) {
        Some(Ok(read)) if read > 0 => {
            let room = OUTPUT_BYTES_MAX.saturating_sub(heard.len()).min(read);
            heard.extend_from_slice(&chunk[..room]);
        }
        Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
        _ => *pipe = None,
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
    fn much_output_is_taken_and_cut() {
        let ended =
            output(&mut shell("head -c 5000000 /dev/zero; echo end >&2"), Duration::from_secs(10)).unwrap();
        assert_eq!((ended.stdout.len(), ended.stderr.as_slice()), (OUTPUT_BYTES_MAX, &b"end\n"[..]));
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
