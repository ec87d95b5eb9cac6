//! Real processes: a supervisor with stand-ins for the gateway and the workers, seen from outside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "whatever goes wrong here fails the test")]

#[path = "stories/cast.rs"]
mod cast;
#[path = "stories/stage.rs"]
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ctl_admin::client::{self, ClientError};

use stage::{Guarded, Instance, SOON, code, get, is_alive, kill};

/// Not a test: the stories start this program again in another role.
#[test]
#[ignore = "the stories start it as a process of its own"]
fn rehearsal() {
    match std::env::var(cast::ROLE).as_deref() {
        Ok("supervisor") => stage::supervisor(),
        Ok("gateway") => cast::gateway(),
        Ok("worker") => cast::worker(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_starts_serves_tells_and_stops_in_order() {
    let mut instance = Instance::start(&[]);
    assert_eq!(instance.get(), "generation 1");
    let status = instance
        .wait_for("both slots", |status| status.gateway.as_ref().is_some_and(|gateway| gateway.slots == 2));
    assert_eq!(status.pid, instance.pid());
    assert!(status.workers.iter().all(|worker| worker.memory_mib.is_some_and(|mib| mib > 0)), "{status:?}");
    let banner = instance.stderr();
    let expected = format!(
        "quintet 0.0.0 serves shop.wsgi:application (WSGI, Python 3.12.1)\n  {}\n  unix:",
        status.addresses[0]
    );
    assert!(banner.starts_with(&expected), "{banner}");
    assert!(banner.contains("\n  a line from the command\nready in "), "{banner}");

    let text = client::stop(&instance.run_dir(), SOON, |_| {}).unwrap();
    assert_eq!(text, "stopped");
    assert_eq!(code(instance.wait()), 0);
    instance.assert_no_warning();
    instance.assert_nothing_left();
}

#[test]
fn both_signals_stop_it() {
    for signal in ["-TERM", "-INT"] {
        let mut instance = Instance::start(&[]);
        instance.signal(signal);
        assert_eq!(code(instance.wait()), 0);
        instance.assert_nothing_left();
    }
}

#[test]
fn an_app_that_does_not_import_is_shown_and_nothing_stays() {
    let mut instance = Instance::launch(&[("worker", "fail"), ("workers", "4")]);
    assert_eq!(code(instance.wait()), 3);
    let shown = instance.stderr();
    let expected = "Traceback (most recent call last):\nImportError: no cello\n\
                    error: shop.wsgi cannot be imported\nhint: pip install cello\n";
    assert_eq!(shown, expected, "the traceback first, once, and nothing else");
    assert!(!instance.run_dir().exists());
}

#[test]
fn a_worker_that_crashes_while_importing_is_an_app_that_does_not_import() {
    let mut instance = Instance::launch(&[("worker", "crash")]);
    assert_eq!(code(instance.wait()), 3);
    let shown = instance.stderr();
    assert!(shown.contains("ended while it started: signal SIGABRT"), "{shown}");
}

#[test]
fn an_app_that_imports_for_ever_is_given_up() {
    let mut instance = Instance::launch(&[("worker", "hang"), ("start_timeout_ms", "300")]);
    assert_eq!(code(instance.wait()), 3);
    let shown = instance.stderr();
    assert!(
        shown.contains("was not ready after 0.3 s") && shown.contains("workers.start_timeout"),
        "{shown}"
    );
}

#[test]
fn a_gateway_that_cannot_run_says_why() {
    let mut instance = Instance::launch(&[("gateway", "fail")]);
    assert_eq!(code(instance.wait()), 1);
    let shown = instance.stderr();
    assert!(
        shown.ends_with("error: the certificate is bad\ndetail: it has expired\nhint: renew it\n"),
        "{shown}"
    );

    let mut instance = Instance::launch(&[("gateway", "crash")]);
    assert_eq!(code(instance.wait()), 1);
    let shown = instance.stderr();
    assert!(
        shown.contains("the gateway does not start\ndetail: 5 attempts, the last: signal SIGABRT"),
        "{shown}"
    );
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let mut instance = Instance::start(&[]);
    let victim = instance.status().unwrap().workers[0].clone();
    kill("-KILL", victim.pid);
    let status = instance.wait_for("a replacement", |status| {
        status.workers.iter().filter(|worker| worker.state == "ready").count() == 2
            && status.workers.iter().all(|worker| worker.pid != victim.pid)
    });
    assert!(status.workers.iter().all(|worker| worker.worker != victim.worker), "numbers are not used twice");
    let log = instance.stderr();
    let died = format!("worker {} (pid {}) died after", victim.worker, victim.pid);
    assert!(log.contains(&died) && log.contains("signal SIGKILL") && log.contains("hint="), "{log}");
    assert_eq!(instance.get(), "generation 1");
}

#[test]
fn a_gateway_that_dies_refuses_nobody() {
    let mut instance = Instance::start(&[]);
    let before = instance.status().unwrap();
    let address = before.addresses[0].strip_prefix("http://").unwrap().parse().unwrap();
    let back = Arc::new(AtomicBool::new(false));
    let is_back = Arc::clone(&back);
    let deadline = Instant::now() + Duration::from_secs(60);
    let client = thread::spawn(move || {
        let (mut answered, mut cut) = (0, 0);
        // All through the crash, and for a while with the new gateway, however slow this machine is now.
        while !(is_back.load(Ordering::Relaxed) && answered > 20) && Instant::now() < deadline {
            // Who was connected may be cut off; who connects is never refused.
            match get(address) {
                Ok(text) if text == "generation 1" => answered += 1,
                Ok(_) => cut += 1,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => cut += 1,
                Err(error) => panic!("{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
        (answered, cut)
    });
    kill("-KILL", before.gateway_pid.unwrap());
    let after = instance.wait_for("another gateway with both workers", |status| {
        status.gateway_restarts == 1 && status.gateway.as_ref().is_some_and(|gateway| gateway.slots == 2)
    });
    let workers = |status: &ctl_admin::words::Status| {
        status.workers.iter().map(|worker| worker.pid).collect::<Vec<_>>()
    };
    assert_eq!(workers(&before), workers(&after), "the workers stay");
    back.store(true, Ordering::Relaxed);
    let (answered, cut) = client.join().unwrap();
    assert!(answered > 20 && cut <= 1, "{answered} answered, {cut} cut");
}

#[test]
fn a_reload_replaces_every_worker() {
    for by_signal in [false, true] {
        let mut instance = Instance::start(&[("workers", "3")]);
        let before = instance.status().unwrap();
        if by_signal {
            instance.signal("-HUP");
        } else {
            let mut steps = Vec::new();
            let text =
                client::reload(&instance.run_dir(), None, SOON, |step| steps.push(step.to_owned())).unwrap();
            assert!(text.starts_with("generation 2 serves"), "{text}");
            let expected = [1, 2, 3].map(|new| format!("{new} of 3 workers run the new code"));
            assert_eq!(steps, expected);
        }
        let after = instance.wait_for("all are new", |status| {
            status.workers.len() == 3 && status.workers.iter().all(|worker| worker.generation == 2)
        });
        assert_eq!((after.generation, after.gateway_pid), (2, before.gateway_pid));
        assert_eq!(instance.get(), "generation 2");
        assert!(before.workers.iter().all(|worker| !is_alive(worker.pid)));
        instance.assert_no_warning();
    }
}

#[test]
fn a_reload_of_code_that_does_not_import_changes_nothing() {
    let mut instance = Instance::start(&[]);
    let before = instance.status().unwrap();
    instance.write("worker", "fail");
    let Err(ClientError::Failed { text, app: true }) =
        client::reload(&instance.run_dir(), None, SOON, |_| {})
    else {
        panic!("it should have failed");
    };
    assert!(text.contains("ImportError: no cello") && text.contains("the old code keeps serving"), "{text}");
    let after = instance.wait_for("the new one is gone", |status| status.workers.len() == 2);
    let pids = |status: &ctl_admin::words::Status| {
        status.workers.iter().map(|worker| worker.pid).collect::<Vec<_>>()
    };
    assert_eq!((after.generation, pids(&after)), (1, pids(&before)));
    assert_eq!(instance.get(), "generation 1");

    instance.write("worker", "fine");
    client::reload(&instance.run_dir(), None, SOON, |_| {}).unwrap();
    assert_eq!(instance.wait_for("new code", |status| status.workers.len() == 2).generation, 3);
}

#[test]
fn reloads_that_are_asked_for_during_one_are_one_more() {
    let mut instance = Instance::start(&[("workers", "3")]);
    let dir = instance.run_dir();
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let dir = dir.clone();
            thread::spawn(move || client::reload(&dir, None, SOON, |_| {}).unwrap())
        })
        .collect();
    for asked in asking {
        asked.join().unwrap();
    }
    let generation = instance.status().unwrap().generation;
    assert!((2..=3).contains(&generation), "{generation}");
}

#[test]
fn nobody_outlives_a_supervisor_that_is_killed() {
    let mut instance = Instance::start(&[]);
    instance.signal("-KILL");
    assert_eq!(code(instance.wait()), -9);
    instance.assert_children_end();
    // What it left behind does not hinder the next one.
    let mut command = stage::supervisor_command(instance.dir.path());
    let mut next = Guarded::spawn(&mut command);
    let status = loop {
        match client::status(&instance.run_dir()) {
            Ok(status) if status.state == "serving" => break status,
            _ => thread::sleep(Duration::from_millis(10)),
        }
    };
    assert_eq!(status.pid, next.0.id());
    client::stop(&instance.run_dir(), SOON, |_| {}).unwrap();
    next.0.wait().unwrap();
    instance.assert_nothing_left();
}

#[test]
fn who_does_not_go_is_killed() {
    let mut instance =
        Instance::start(&[("worker", "stubborn"), ("gateway", "endless"), ("drain_timeout_ms", "200")]);
    let begin = Instant::now();
    instance.signal("-TERM");
    thread::sleep(Duration::from_millis(300));
    instance.signal("-TERM");
    thread::sleep(Duration::from_millis(100));
    instance.signal("-TERM");
    assert_eq!(code(instance.wait()), 0);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    instance.assert_nothing_left();
}

#[test]
fn a_second_instance_is_refused() {
    let instance = Instance::start(&[]);
    let other = stage::stage(&[]);
    std::os::unix::fs::symlink(instance.run_dir(), other.path().join("run")).unwrap();
    let mut command = stage::supervisor_command(other.path());
    assert_eq!(code(command.status().unwrap()), 1);
    let shown = std::fs::read_to_string(other.path().join("stderr")).unwrap();
    let expected = format!("already running for this project (pid {})", instance.pid());
    assert!(shown.contains(&expected) && shown.contains("quintet stop"), "{shown}");
}

#[test]
fn sockets_of_systemd_are_used_instead_of_addresses() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir = stage::stage(&[]);
    // As systemd does: descriptor 3, and the process id that will be the program's.
    let mut command = std::process::Command::new("/bin/sh");
    command.args([
        "-c",
        "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web exec \"$@\"",
        "sh",
    ]);
    let supervisor = stage::supervisor_command(dir.path());
    command.arg(supervisor.get_program()).args(supervisor.get_args());
    command.envs(supervisor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(std::os::fd::OwnedFd::from(listener)).stdout(std::process::Stdio::null());
    command.stderr(std::fs::File::create(dir.path().join("stderr")).unwrap());
    let mut process = Guarded::spawn(&mut command);
    assert_eq!(get(address).unwrap(), "generation 1");
    let run_dir = dir.path().join("run");
    assert_eq!(client::status(&run_dir).unwrap().addresses, [format!("http://{address}")]);
    client::stop(&run_dir, SOON, |_| {}).unwrap();
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn a_unit_without_its_sockets_is_told_so() {
    let mut instance = Instance::launch(&[("bind", "systemd")]);
    assert_eq!(code(instance.wait()), 4);
    let shown = instance.stderr();
    assert!(shown.contains("systemd has passed no sockets") && shown.contains(".socket unit"), "{shown}");
    assert!(!instance.run_dir().exists());
}

#[test]
fn workers_run_as_the_user_that_is_configured() {
    let who = "echo uid $(id -u), home $HOME, cwd $(pwd) >&2";
    let mut instance = Instance::launch(&[("user", "nobody"), ("worker_sh", who)]);
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if root {
        assert_eq!(code(instance.wait()), 3, "the worker says no more than that");
        let shown = instance.stderr();
        let id = std::process::Command::new("id").args(["-u", "nobody"]).output().unwrap().stdout;
        let uid = format!("uid {},", String::from_utf8(id).unwrap().trim());
        assert!(shown.contains(&uid) && !shown.contains("home /root"), "{shown}");
    } else {
        assert_eq!(code(instance.wait()), 1);
        assert!(
            instance.stderr().contains("only root can start processes as another user"),
            "{}",
            instance.stderr()
        );
    }
}

#[test]
fn what_an_app_leaves_behind_is_reaped_and_goes_with_the_instance() {
    // A helper that has left its worker's process group, and outlives it.
    let mut instance = Instance::start(&[("helper", "setsid sleep 600 & echo $! > helper.pid")]);
    let helper =
        std::fs::read_to_string(instance.dir.path().join("helper.pid")).unwrap().trim().parse().unwrap();
    let worker = instance.status().unwrap().workers[0].pid;
    kill("-KILL", worker);
    instance.wait_for("a replacement", |status| status.workers.iter().all(|known| known.pid != worker));
    assert!(is_alive(helper), "a restart of a worker does not end what the app has started");
    instance.seen.push(helper);
    instance.signal("-TERM");
    assert_eq!(code(instance.wait()), 0);
    instance.assert_nothing_left();
}

#[test]
fn strange_clients_of_the_control_socket_hinder_nobody() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    let mut instance = Instance::start(&[]);
    let connect = || UnixStream::connect(instance.run_dir().join("control.sock")).unwrap();
    // More than are listened to at a time, and they say nothing.
    let silent: Vec<_> = (0..40).map(|_| connect()).collect();
    let mut flood = connect();
    flood.set_write_timeout(Some(SOON)).unwrap();
    let line = vec![b'x'; ctl_admin::LINE_BYTES_MAX + 2];
    assert!(
        flood.write_all(&line).and_then(|()| flood.write_all(&line)).is_err(),
        "a line without end is not taken"
    );
    let begin = Instant::now();
    let status = instance.wait_for("an answer for the others", |status| status.workers.len() == 2);
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert_eq!(status.state, "serving");
    for mut client in silent.iter().take(32) {
        client.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "who says nothing is closed");
    }
}

#[test]
fn the_service_manager_hears_how_it_goes() {
    let dir = stage::stage(&[]);
    let path = dir.path().join("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let mut command = stage::supervisor_command(dir.path());
    let mut process = Guarded::spawn(command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000"));
    let run_dir = dir.path().join("run");
    // The first line of the next message.
    let hear = || {
        let mut bytes = [0; 256];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).lines().next().unwrap().to_owned()
    };
    // The next that is more than a sign of life.
    let news = || (0..200).map(|_| hear()).find(|line| line != "WATCHDOG=1").unwrap();
    assert_eq!(news(), "READY=1");
    assert_eq!([hear(), hear(), hear()], ["WATCHDOG=1"; 3]);
    let reload = {
        let run_dir = run_dir.clone();
        thread::spawn(move || client::reload(&run_dir, None, SOON, |_| {}).unwrap())
    };
    assert_eq!(news(), "RELOADING=1");
    assert_eq!(news(), "READY=1");
    reload.join().unwrap();
    let stop = thread::spawn(move || client::stop(&run_dir, SOON, |_| {}).unwrap());
    assert_eq!(news(), "STOPPING=1");
    stop.join().unwrap();
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn what_a_script_started_before_it_became_the_supervisor_is_spared() {
    let dir = stage::stage(&[]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "sleep 600 & echo $! > \"$QUINTET_REHEARSAL_SCRIPT/before.pid\"; exec \"$@\"", "sh"]);
    let supervisor = stage::supervisor_command(dir.path());
    command.arg(supervisor.get_program()).args(supervisor.get_args());
    command.envs(supervisor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut process = Guarded::spawn(&mut command);
    let run_dir = dir.path().join("run");
    let deadline = Instant::now() + SOON;
    while client::stop(&run_dir, SOON, |_| {}).is_err() {
        assert!(Instant::now() < deadline, "it does not run");
        thread::sleep(Duration::from_millis(10));
    }
    process.0.wait().unwrap();
    let before = std::fs::read_to_string(dir.path().join("before.pid")).unwrap().trim().parse().unwrap();
    assert!(is_alive(before));
    kill("-KILL", before);
}
