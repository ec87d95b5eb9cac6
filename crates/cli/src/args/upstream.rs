//! `quintet upstream`: its words and its help.

use clap::{Arg, ArgAction, Command};

use super::{instance, json};

pub(super) fn command() -> Command {
    let upstream = || Arg::new("upstream").value_name("UPSTREAM").required(true).help("The upstream's name");
    let server = || {
        Arg::new("server")
            .value_name("SERVER")
            .required(true)
            .help("The server as `quintet upstream list` shows it; http:// may be left away")
    };
    let list =
        Command::new("list").about("Show the servers of each upstream, what they do and how they fare");
    let drain = Command::new("drain")
        .about("Give a server no new requests")
        .long_about(
            "Give a server no new requests; those that it works on end as ever.\n\n\
             Where clients belong to servers (sticky_cookie) its own still come to it, as with other proxies: their sessions may live in its \
             memory. With --all they go to other servers, too.\n\n\
             It stays so when the gateway is started again and after `quintet upgrade`, until `quintet upstream undrain`. A new start \
             of the instance goes back to the configuration.",
        )
        .arg(upstream())
        .arg(server());
    let undrain = Command::new("undrain")
        .about("Give a server requests again, slowly at first (slow_start)")
        .arg(upstream())
        .arg(server());
    Command::new("upstream")
        .about("Show the servers behind a running instance, take one out, put it back")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(instance(list).arg(json("Print an object")))
        .subcommand(
            instance(drain)
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .help("Clients that belong to it go to other servers, too"),
                )
                .arg(
                    Arg::new("wait").long("wait").value_name("TIME").help(
                        "Return when it works on nothing any more, or fail after this time (exit code 1)",
                    ),
                ),
        )
        .subcommand(instance(undrain))
        .after_help(
            "Examples:
  quintet upstream list
  quintet upstream drain api 10.0.0.1:8000
  quintet upstream drain api 10.0.0.1:8000 --all --wait 60s && ssh 10.0.0.1 reboot
  quintet upstream undrain api 10.0.0.1:8000

Exit code 5: nothing is running there.",
        )
}
