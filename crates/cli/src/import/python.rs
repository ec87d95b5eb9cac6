//! gunicorn.conf.py is a program: the project's Python runs it and tells what it has set.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use super::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::patience;
use crate::python::Surroundings;

/// Runs the file as gunicorn does and prints its globals. What the file itself prints goes to standard error. Of a function it
/// tells "a function", of a class the nearest name that is not the file's own; what JSON cannot hold becomes text.
const PROGRAM: &str = r#"
import ast, json, os, sys, traceback, types
path = sys.argv[1]
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.chdir(os.path.dirname(os.path.abspath(path)))
sys.path.insert(0, os.getcwd())
OWN = "__config__"
names = {"__builtins__": __builtins__, "__name__": OWN, "__file__": os.path.abspath(path), "__doc__": None}
try:
    with open(os.path.basename(path), "rb") as file:
        tree = compile(file.read(), path, "exec", ast.PyCF_ONLY_AST)
    exec(compile(tree, path, "exec"), names, names)
except Exception as error:
    # Without the frame of this program, which is nobody's but ours.
    traceback.print_exception(type(error), error, error.__traceback__.tb_next)
    sys.exit(1)

# What does not stand there as it is: it was called, looked up, made of such, or set under a condition.
computed = set()
def is_computed(value):
    return any(
        isinstance(part, (ast.Call, ast.Attribute)) or (isinstance(part, ast.Name) and part.id in computed)
        for part in ast.walk(value)
    )
for statement in tree.body:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        continue
    for node in ast.walk(statement):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node is not statement or is_computed(node.value):
                computed.update(name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))

def text(value):
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else repr(value)

def plain(value):
    if isinstance(value, type):
        return next((base.__name__ for base in value.__mro__ if base.__module__ != OWN), "a class")
    if callable(value):
        return "a function"
    try:
        return json.loads(json.dumps(value, default=text, skipkeys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(value)

json.dump(
    [
        # What was imported (a class, a function of another module) is no hook of this file, unless it has the name of one.
        {
            "name": name,
            "value": plain(value),
            "imported": callable(value) and getattr(value, "__module__", None) != OWN,
            "computed": name in computed,
        }
        for name, value in names.items()
        if not name.startswith("_") and value is not None and not isinstance(value, types.ModuleType)
    ],
    out,
)
"#;

/// What the file has set.
#[derive(Debug, Deserialize)]
pub(super) struct Global {
    pub(super) name: String,
    pub(super) value: Json,
    /// A function or class from elsewhere.
    pub(super) imported: bool,
    /// Its value may be another one on another machine.
    pub(super) computed: bool,
}

/// A configuration that takes longer does more than to configure.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What `file` sets, in its order.
pub(super) fn globals(file: &Path, context: &Context) -> Result<Vec<Global>> {
    let python = context.python.clone().unwrap_or_else(|| Surroundings::real().interpreter(&context.dir));
    let failed = |detail: String| {
        Failure::new(Exit::Failure, format!("{} cannot be run", file.display())).detail(detail)
    };
    if !file.is_file() {
        return Err(Failure::new(Exit::Usage, format!("there is no file {}", file.display())));
    }
    let mut command = Command::new(&python);
    command.args(["-c", PROGRAM]).arg(file).stdin(Stdio::null());
    let ended = patience::output(&mut command, TIME_MAX)
        .map_err(|error| failed(error).hint("--python PATH names another Python"))?;
    // What the file prints is for whoever wrote it; so is its traceback.
    anstream::eprint!("{}", String::from_utf8_lossy(&ended.stderr));
    if !ended.status.success() {
        let detail = format!("{} ended with {}; its traceback is above", python.display(), ended.status);
        return Err(failed(detail)
            .hint("gunicorn could not read it either, or it needs another Python: --python PATH"));
    }
    serde_json::from_slice(&ended.stdout).map_err(|error| failed(error.to_string()))
}
