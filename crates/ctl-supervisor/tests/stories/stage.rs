//! A running instance, with eyes and hands for the tests.

use std::env;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ctl_admin::client;
use ctl_admin::words::Status;
use ctl_supervisor::{Outcome, RunPlan};
use ctl_telemetry::logging::{Format, LevelFilter};
use tempfile::TempDir;

use crate::cast::{ROLE, SCRIPT, script};

/// For everything that happens in milliseconds on an idle machine; this one may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The supervisor's role: an instance as the behaviour files say.
pub(crate) fn supervisor() -> ! {
    // What is worth a warning is seen by the tests that read standard error.
    ctl_telemetry::logging::init(Format::Text, LevelFilter::WARN).unwrap();
    let number = |name: &str, default: u64| script(name).parse().unwrap_or(default);
    let dir = PathBuf::from(env::var_os(SCRIPT).unwrap());
    let own = env::current_exe().unwrap().into_os_string();
    let role = |role: &str| {
        // Through env(1), which becomes the program: the role is all that tells them apart.
        let assignment = format!("{ROLE}={role}");
        let args = ["/usr/bin/env".into(), assignment.into(), own.clone()];
        Some(
            args.into_iter()
                .chain(["--exact", "rehearsal", "--ignored", "--nocapture"].map(Into::into))
                .collect(),
        )
    };
    let mut config = ctl_config::Config::default();
    config.server.bind = vec![
        ctl_config::BindAddress::Tcp { host: "127.0.0.1".into(), port: 0 },
        ctl_config::BindAddress::Unix(dir.join("site.sock")),
    ];
    if script("bind") == "systemd" {
        config.server.bind = vec![ctl_config::BindAddress::Systemd];
    }
    config.server.drain_timeout = Duration::from_millis(number("drain_timeout_ms", 5000));
    config.workers.start_timeout = Duration::from_millis(number("start_timeout_ms", 10_000));
    config.workers.preload = script("preload") == "yes";
    if !script("user").is_empty() {
        config.workers.user = Some(script("user"));
    }
    let outcome = ctl_supervisor::run(RunPlan {
        config,
        version: "0.0.0".into(),
        dir: dir.clone(),
        python: "python3".into(),
        app: None,
        settings: None,
        workers: number("workers", 2) as u32,
        threads: 1,
        runtime_dir: dir.join("run"),
        worker_env: Vec::new(),
        modules: Vec::new(),
        dev: false,
        banner: Box::new(|_| vec!["a line from the command".into()]),
        gateway_command: role("gateway"),
        worker_command: match script("worker_sh") {
            sh if sh.is_empty() => role("worker"),
            sh => Some(["/bin/sh", "-c", &sh].map(Into::into).to_vec()),
        },
        reload_config: None,
    });
    if let Outcome::Failed(problem) = &outcome {
        eprintln!("error: {problem}\ndetail: {}\nhint: {}", problem.detail, problem.hint);
    }
    std::process::exit(outcome.exit_code().into());
}

/// A supervisor that does not outlive a test that fails.
pub(crate) struct Guarded(pub(crate) Child);

impl Guarded {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Its children see the end of their control sockets.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An instance, killed with everything it started when dropped.
pub(crate) struct Instance {
    pub(crate) dir: TempDir,
    process: Guarded,
    /// Children seen so far, for the last check.
    pub(crate) seen: Vec<u32>,
}

/// What is to be written into the behaviour files before the start.
pub(crate) type Script<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn stage(script: Script<'_>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in script {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

pub(crate) fn supervisor_command(dir: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "rehearsal", "--ignored", "--nocapture"])
        .env(ROLE, "supervisor")
        .env(SCRIPT, dir);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(dir.join("stderr")).unwrap());
    command
}

impl Instance {
    /// Starts one and returns at once.
    pub(crate) fn launch(script: Script<'_>) -> Self {
        let dir = stage(script);
        let process = Guarded::spawn(&mut supervisor_command(dir.path()));
        Self { dir, process, seen: Vec::new() }
    }

    /// Starts one and waits until it serves.
    pub(crate) fn start(script: Script<'_>) -> Self {
        let mut instance = Self::launch(script);
        let workers =
            script.iter().find(|(name, _)| *name == "workers").map_or(2, |(_, n)| n.parse().unwrap());
        instance.wait_for("it serves", |status| {
            status.state == "serving"
                && status.workers.iter().filter(|worker| worker.state == "ready").count() == workers
        });
        instance
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    pub(crate) fn status(&mut self) -> Option<Status> {
        let status = client::status(&self.run_dir()).ok()?;
        let pids = status.workers.iter().map(|worker| worker.pid).chain(status.gateway_pid);
        self.seen.extend(pids.filter(|pid| *pid != 0));
        Some(status)
    }

    pub(crate) fn wait_for(&mut self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + SOON;
        let mut last = None;
        while Instant::now() < deadline {
            last = self.status();
            if let Some(status) = last.take_if(|status| is(status)) {
                return status;
            }
            if let Some(code) = self.process.0.try_wait().unwrap() {
                panic!("waiting until {what}: it ended with {code}:\n{}", self.stderr());
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("not seen: {what}: {last:?}\n{}", self.stderr());
    }

    /// One request. The address is the first that it listens on.
    pub(crate) fn get(&mut self) -> String {
        let url = self.status().unwrap().addresses[0].clone();
        get(url.strip_prefix("http://").unwrap().parse().unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, self.pid());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if let Some(status) = self.process.0.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end:\n{}", self.stderr());
    }

    /// Nothing went wrong, as far as it has noticed.
    pub(crate) fn assert_no_warning(&self) {
        let stderr = self.stderr();
        assert!(!stderr.contains("WARN") && !stderr.contains("ERROR"), "{stderr}");
    }

    /// No child is left, nor any file.
    pub(crate) fn assert_nothing_left(&self) {
        self.assert_children_end();
        assert!(!self.run_dir().exists(), "the runtime directory is left");
        assert!(!self.dir.path().join("site.sock").exists(), "the socket is left");
    }

    pub(crate) fn assert_children_end(&self) {
        assert!(!self.seen.is_empty());
        let deadline = Instant::now() + SOON;
        for pid in &self.seen {
            while is_alive(*pid) {
                assert!(
                    Instant::now() < deadline,
                    "process {pid} has outlived its supervisor:\n{}",
                    self.stderr()
                );
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

pub(crate) fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// There, and not a zombie that nobody has waited for yet.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap())
}
