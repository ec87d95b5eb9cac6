//! The command line: commands and their help. The flags of settings come from the table in `ctl-config`.

mod upstream;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgAction, Command, value_parser};
use ctl_config::settings::all;
use ctl_config::{Kind, Setting};

/// Width of help: reads well, and does not depend on the terminal where the reference is made from it.
pub(crate) const HELP_WIDTH: usize = 100;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "Runs a Django project: TLS, HTTP, static files, workers, in one program";

const AFTER: &str = "\
Start here:
  quintet run                     serve this directory on http://127.0.0.1:8000
  quintet dev                     the same while you write it: restarts, tracebacks, queries
  quintet check                   would this project run here, and run well?
  quintet config show             every setting, its value, and where it came from

`quintet help exit-codes` and `quintet help configuration` tell more.";

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("quintet")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(AFTER)
        .styles(STYLES)
        .max_term_width(HELP_WIDTH)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(run())
        .subcommand(dev())
        .subcommand(check())
        .subcommand(config())
        .subcommand(routes())
        .subcommand(import())
        .subcommands(instance_commands())
        .subcommand(bans())
        .subcommand(upstream::command())
        .subcommand(
            Command::new("version")
                .about("Print the version")
                .arg(json("Print an object with name and version")),
        )
        .subcommand(
            Command::new("help")
                .about("Print the help of a command, or a page: exit-codes, configuration, signals")
                .arg(Arg::new("topic").num_args(0..).help("A command or a page")),
        )
        .subcommand(
            Command::new("internal-gateway")
                .hide(true)
                .about("The gateway process; started by the supervisor"),
        )
        .subcommand(
            Command::new("internal-docs")
                .hide(true)
                .about("Write the reference pages that are made from the code")
                .arg(Arg::new("dir").required(true).value_parser(value_parser!(PathBuf))),
        )
}

fn run() -> Command {
    with_settings(Command::new("run").about("Serve a project until it is told to stop").long_about(
        "Serve a project until it is told to stop.\n\n\
         Without configuration it finds manage.py, the settings module and the Python of the project, chooses workers and \
         threads for this machine (its cores, its memory, the limits of its container), and prints what it decided and \
         why.",
    ))
    .after_help(
        "Examples:
  quintet run                                      the Django project in this directory
  quintet run mysite --bind 0.0.0.0:8000           another directory, every interface
  quintet run --app hello:app                      a WSGI or ASGI app without Django
  quintet run --bind unix:/run/shop.sock           behind another proxy on this machine
  quintet run --tls-certificate cert.pem --tls-key key.pem --bind :443
  quintet run --set timeouts.app=2m                any other setting

Signals: TERM and INT stop in order, HUP reloads, TTIN and TTOU add and take away a worker. See `quintet help signals`.",
    )
}

fn dev() -> Command {
    with_settings(Command::new("dev").about("Serve a project to the one who writes it").long_about(
        "Serve a project to the one who writes it.\n\n\
         As `quintet run`, with one worker that is restarted whenever a file of the project changes. Requests wait for the new \
         code; code that does not import is shown in the browser until the next change. Each request is a line with its time, \
         its database queries and theirs. DEBUG is as the settings say. Pools and limits of workers do not count here.",
    ))
    .after_help(
        "Examples:
  quintet dev                          the Django project in this directory
  quintet dev --settings shop.settings.local --bind 0.0.0.0:8000
  quintet dev --set timeouts.app=30s   as in production; else a breakpoint may take its time

Watched: *.py, quintet.toml, pyproject.toml and .env in the project, and imported packages elsewhere that are not installed. \
         Templates need no restart. Ctrl-C ends it at once.",
    )
}

fn check() -> Command {
    with_settings(Command::new("check").about("Tell whether this project would run here, and run well").long_about(
        "Tell whether this project would run here, and run well.\n\n\
         Looks at configuration, Python, the app's import, its databases and migrations, static files, addresses, and the \
         limits of the system. Starts nothing that stays. Takes the same flags as `quintet run`.",
    ))
    .arg(json("Print the findings as an object"))
    .after_help("Exit code 0: it would run; 1: a finding is a failure; 2: the command line is wrong.")
}

fn config() -> Command {
    Command::new("config")
        .about("Show the effective configuration, or its schema")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_settings(Command::new("show").about("Print every setting, its value, and where it came from"))
                .arg(json("Print an object"))
                .arg(
                    Arg::new("changed")
                        .long("changed")
                        .action(ArgAction::SetTrue)
                        .help("Only what is not the default"),
                )
                .after_help("Strength, weakest first: default, quintet.toml, environment (QUINTET_SECTION_NAME), command line."),
        )
        .subcommand(
            Command::new("schema").about("Print the JSON Schema of quintet.toml").after_help(
                "For editors: put `#:schema ./quintet.schema.json` on the first line of quintet.toml after\n  \
                 quintet config schema > quintet.schema.json",
            ),
        )
}

fn routes() -> Command {
    Command::new("routes")
        .about("Print the table of routes, or which route takes a URL and why")
        .long_about(
            "Print the table of routes, or which route takes a URL and why.\n\n\
             Reads the configuration as `quintet run` would; no instance need run. With a URL (or a path of this site) each \
             route says whether it takes the request, and if not, which of its conditions does not hold; then what the \
             route that does makes of it: the app's pool and the path that it sees, a file, a redirect, an answer.",
        )
        .arg(Arg::new("url").value_name("URL").help("A URL or a path, for example https://example.org/cart/ or /cart/"))
        .arg(Arg::new("method").long("method").value_name("METHOD").help("The request's method [default: GET]"))
        .arg(
            Arg::new("header")
                .long("header")
                .value_name("NAME: VALUE")
                .action(ArgAction::Append)
                .help("A header field of the request (may be repeated)"),
        )
        .arg(json("Print an object"))
        .arg(project_dir().long("project-dir"))
        .arg(config_file())
        .arg(set())
        .after_help(
            "Examples:
  quintet routes                                        every route, in order
  quintet routes https://example.org/cart/              which one takes this, and why not those before it
  quintet routes /api/orders --method POST --header 'X-Beta: 1'
  quintet routes //admin/                               a path that others may read as /admin/",
        )
}

fn import() -> Command {
    let kinds = crate::import::KINDS;
    let known: Vec<_> = kinds.iter().map(|(kind, what)| format!("\n  {kind:<10} {what}")).collect();
    let known = known.concat();
    Command::new("import")
        .about("Print the quintet.toml that does what another server's configuration does")
        .long_about(format!(
            "Print the quintet.toml that does what another server's configuration does.\n\n\
             Reads a file of gunicorn, uWSGI, NGINX Unit, nginx or a Procfile, or a command line of gunicorn, uvicorn, \
             Hypercorn, Daphne, Granian or uWSGI. Every option is carried, or named with the reason why not; none is dropped \
             in silence. Kinds of files, chosen by name and content unless --as says it:{known}"
        ))
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .required_unless_present("command")
                .conflicts_with("command")
                .help("The file to import"),
        )
        .arg(Arg::new("command").value_name("COMMAND").last(true).num_args(1..).help("The command line to import"))
        .arg(
            Arg::new("as")
                .long("as")
                .value_name("KIND")
                .value_parser(kinds.map(|(kind, _)| kind))
                .help("What kind of file it is"),
        )
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write to this file, which must not be there yet [default: standard output]"),
        )
        .arg(
            Arg::new("python")
                .long("python")
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .help("The Python that runs gunicorn.conf.py [default: the active environment, .venv, python3]"),
        )
        .after_help(
            "Examples:
  quintet import gunicorn.conf.py
  quintet import /etc/nginx/sites-enabled/shop --output quintet.toml
  quintet import Procfile
  quintet import -- gunicorn shop.wsgi -w 4 --threads 2 --timeout 60
  quintet import -- granian --interface wsgi shop.wsgi:application --workers 4

Exit code 0: printed, whether or not all could be carried; 1: gunicorn.conf.py failed; 2: the file \
             cannot be read, its form is wrong, or --output is there already.",
        )
}

fn instance_commands() -> [Command; 5] {
    let found = "The instance is found by its project directory, as it was given to `quintet run`, or by --runtime-dir.";
    [
        instance(Command::new("status").about("Show a running instance: addresses, workers, requests"))
            .arg(json("Print an object"))
            .after_help(format!("{found}\nExit code 5: nothing is running there.")),
        instance(Command::new("reload").about("Replace the code of a running instance without losing a request"))
            .arg(
                Arg::new("module")
                    .long("module")
                    .value_name("NAME")
                    .help("Only this [[module]]; \"default\" is the app of [app] [default: all of them]"),
            )
            .after_help(format!(
                "New workers import the code as it is now; when they are ready, the old ones finish and go. If the new \
                 code cannot be imported, the old keeps serving and the traceback is shown (exit code 3). Of several apps each \
                 does so by itself.\n\n{found}"
            )),
        scale(found),
        instance(Command::new("stop").about("Stop a running instance in order")).after_help(format!(
            "Readiness goes off, requests in flight are finished, within server.drain_timeout.\n\n{found}"
        )),
        upgrade(found),
    ]
}

fn scale(found: &str) -> Command {
    let workers = Arg::new("workers")
        .value_name("WORKERS")
        .required(true)
        .allow_negative_numbers(true)
        .value_parser(crate::instance::parse_change)
        .help("How many: +1 or -1 from what there are now, or a number");
    let pool = Arg::new("pool").long("pool").value_name("NAME").help("The pool [default: the default pool]");
    let command = Command::new("scale")
        .about("Add workers to a running instance, or take some away, until the next reload")
        .long_about(
            "Add workers to a running instance, or take some away, until the next reload.\n\n\
             A pool with a fixed number has another number then. In one that scales (workers.max above workers.count) the order \
             is the new lower bound: load may bring more workers, up to the upper one. A reload, an upgrade and a new start \
             go back to what is configured. Workers that go finish their requests first.\n\n\
             workers.max, workers.memory_total_max and workers.db_connections_max are not passed: the order is refused, \
             with the reason (exit code 1).",
        );
    instance(command.arg(workers)).arg(pool).after_help(format!(
        "Examples:
  quintet scale +1                   one more; SIGTTIN does the same
  quintet scale -1                   one fewer; SIGTTOU does the same
  quintet scale 4 --pool reports     four workers for this pool

{found}"
    ))
}

fn upgrade(found: &str) -> Command {
    instance(
        Command::new("upgrade")
            .about("Replace the program of a running instance without losing a request")
            .long_about(
                "Replace the program of a running instance without losing a request.\n\n\
                 The instance starts the program that lies on disk now, with the command line, environment and directory that it \
                 was started with itself. The new one reads the configuration, imports the app, starts its own workers, and \
                 shares the listening sockets. When all its workers serve, the old one accepts nothing more, finishes its \
                 requests and goes. WebSockets are closed with code 1012 after workers.long_lived_grace.\n\n\
                 If the new program does not get so far (it exits, its configuration has errors, the app does not import, it takes \
                 too long), the old one goes on as if nothing had happened, and the reason is shown here.",
            ),
    )
    .arg(
        Arg::new("program")
            .long("program")
            .value_name("PATH")
            .value_parser(value_parser!(PathBuf))
            .help("The new program [default: where the running one was started from]"),
    )
    .after_help(format!(
        "Examples:
  pip install --upgrade quintet && quintet upgrade
  quintet upgrade --program /opt/quintet-1.3/bin/quintet

For new code of the app alone `quintet reload` is enough.

The process that was started by hand, by a container or by a process manager stays and hands signals on to the new one, \
         so that nobody misses it; systemd is told of the new main process instead.

{found}
Exit code 2: the new program did not take over; 3: it could not import the app."
    ))
}

fn bans() -> Command {
    let address = |help: &'static str| Arg::new("address").value_name("ADDRESS").required(true).help(help);
    Command::new("bans")
        .about("Show and change who is shut out of a running instance")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            instance(Command::new("list").about("Show who is banned, for how long, and by whom"))
                .arg(json("Print an object")),
        )
        .subcommand(
            instance(
                Command::new("add")
                    .about("Ban a client, or change how long it is banned")
                    .arg(address("Its address; of IPv6 the /64 around it")),
            )
            .arg(Arg::new("for").long("for").value_name("TIME").help("For how long [default: bans.time]")),
        )
        .subcommand(instance(
            Command::new("remove")
                .about("Ban a client no longer, and forget that it was")
                .arg(address("Its address; of IPv6 the /64 around it")),
        ))
        .after_help(
            "Examples:
  quintet bans list
  quintet bans add 203.0.113.9 --for 2h
  quintet bans remove 203.0.113.9

Bans outlive restarts and upgrades. Ranges, and bans without an end, stand in the file that bans.deny_file names.
Exit code 5: nothing is running there.",
        )
}

fn instance(command: Command) -> Command {
    let runtime_dir = all().find(|setting| setting.key == "server.runtime_dir");
    command.arg(project_dir()).args(runtime_dir.and_then(setting_flag)).arg(config_file())
}

/// PROJECT_DIR, --config, --set, and a flag for each setting that has one.
fn with_settings(command: Command) -> Command {
    command.arg(project_dir()).args(all().filter_map(setting_flag)).arg(config_file()).arg(set())
}

fn set() -> Arg {
    Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help_heading("Configuration")
        .help("Any other setting, for example timeouts.app=2m; `quintet config show` lists them")
}

fn project_dir() -> Arg {
    Arg::new("project_dir")
        .value_name("PROJECT_DIR")
        .value_parser(value_parser!(PathBuf))
        .help("The directory with manage.py and quintet.toml [default: the current one]")
}

fn config_file() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help_heading("Configuration")
        .help("The configuration file [default: quintet.toml in PROJECT_DIR, if there] [env: QUINTET_CONFIG]")
}

fn json(help: &'static str) -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help(help)
}

fn setting_flag(setting: &'static Setting) -> Option<Arg> {
    let (flag, value_name) = setting.flag?;
    let mut help = setting.summary().replace('`', "");
    if let Kind::Choice(choices) = setting.kind {
        let words: Vec<_> = choices.iter().map(|choice| choice.word).collect();
        let _ = write!(help, ": {}", words.join(", "));
    }
    let default = ctl_config::reference::default_text(setting).replace(['`', '"', '[', ']'], "");
    if default != "none" {
        let _ = write!(help, " [default: {default}]");
    }
    let heading = match setting.section {
        "app" => "Project",
        "workers" => "Workers",
        "log" => "Logs",
        "tls" => "HTTPS",
        _ => "Listening",
    };
    let action = if setting.kind.is_list() { ArgAction::Append } else { ArgAction::Set };
    let help = if setting.kind.is_list() { format!("{help} (may be repeated)") } else { help };
    Some(Arg::new(flag).long(flag).value_name(value_name).action(action).help_heading(heading).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }
}
