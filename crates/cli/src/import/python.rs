//! gunicorn.conf.py is a program: the project's Python runs it and tells what it has set.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use super::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Runs the file as gunicorn does and prints its globals. What the file itself prints goes to standard error. Functions
/// and classes are told by the text "a function"; what JSON cannot hold by its repr.
const PROGRAM: &str = r#"
import json, os, sys, traceback, types
path = sys.argv[1]
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.chdir(os.path.dirname(os.path.abspath(path)))
sys.path.insert(0, os.getcwd())
names = {"__builtins__": __builtins__, "__name__": "__config__", "__file__": os.path.abspath(path), "__doc__": None}
try:
    with open(os.path.basename(path), "rb") as file:
        exec(compile(file.read(), path, "exec"), names, names)
except Exception as error:
    # Without the frame of this program, which is nobody's but ours.
    traceback.print_exception(type(error), error, error.__traceback__.tb_next)
    sys.exit(1)
told = []
for name, value in names.items():
    if name.startswith("_") or value is None or isinstance(value, types.ModuleType):
        continue
    if callable(value):
        # What was imported (a class, a function of another module) is no hook of this file.
        if getattr(value, "__module__", None) != "__config__":
            continue
        value = "a function"
    told.append((name, value))
json.dump(told, out, default=repr)
"#;

/// A configuration that takes longer does more than to configure.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Names and values that `file` sets, in its order.
pub(super) fn globals(file: &Path, context: &Context) -> Result<Vec<(String, Json)>> {
    let python = context.python.clone().unwrap_or_else(|| interpreter(&context.dir));
    let failed = |detail: String| {
        Failure::new(Exit::Failure, format!("{} cannot be run", file.display())).detail(detail)
    };
    if !file.is_file() {
        return Err(Failure::new(Exit::Usage, format!("there is no file {}", file.display())));
    }
    let mut child = Command::new(&python)
        .args(["-c", PROGRAM])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            failed(format!("{}: {error}", python.display())).hint("name the project's Python: --python PATH")
        })?;
    let Some(mut pipe) = child.stdout.take() else { return Err(failed("it has no output".into())) };
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        // Nobody listens any more when it took too long.
        let _ = tell.send(pipe.by_ref().take(super::BYTES_MAX).read_to_string(&mut text).map(|_| text));
    });
    let Ok(text) = told.recv_timeout(TIME_MAX) else {
        // It may have ended just now; then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("it did not end within {} seconds", TIME_MAX.as_secs())));
    };
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    // The thread has sent all it had.
    let _ = reader.join();
    if !status.success() {
        return Err(failed(format!("{} ended with {status}; its traceback is above", python.display()))
            .hint("gunicorn could not read it either, or it needs another Python: --python PATH"));
    }
    let text = text.map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// The Python of the project: its environment, the active one, the system's.
fn interpreter(dir: &Path) -> std::path::PathBuf {
    let active = std::env::var_os("VIRTUAL_ENV").map(|dir| Path::new(&dir).join("bin/python"));
    let own = [".venv", "venv"].map(|name| dir.join(name).join("bin/python"));
    active.into_iter().chain(own).find(|path| path.is_file()).unwrap_or_else(|| "python3".into())
}
