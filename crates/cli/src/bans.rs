//! `quintet bans`: who is shut out of a running instance, and changing it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use clap::ArgMatches;
use ctl_admin::client;
use ctl_admin::words::{BanRow, BansRequest};
use ctl_config::{Style, parse_duration};

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::instance;
use crate::{print, print_json};

/// The longest ban by hand: nobody is shut out for ever.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The command.
pub(crate) fn run(matches: &ArgMatches) -> Result<Exit> {
    match matches.subcommand() {
        Some(("add", matches)) => {
            let address = address(matches)?;
            let seconds = matches.get_one::<String>("for").map(|text| time(text)).transpose()?;
            change(matches, BansRequest::Add { address, seconds })
        }
        Some(("remove", matches)) => {
            let address = address(matches)?;
            change(matches, BansRequest::Remove { address })
        }
        Some((_, matches)) => list(matches),
        // clap lets nobody leave it away.
        None => Err(Failure::new(Exit::Usage, "list, add or remove?").hint("quintet help bans")),
    }
}

fn list(matches: &ArgMatches) -> Result<Exit> {
    let instance = instance::find(matches)?;
    let (bans, total) =
        client::bans(&instance.runtime_dir).map_err(|error| instance::refused(error, &instance))?;
    if matches.get_flag("json") {
        return print_json(&serde_json::json!({ "bans": bans, "total": total }));
    }
    print(&text(&bans, total, Style::COLOUR))
}

fn change(matches: &ArgMatches, request: BansRequest) -> Result<Exit> {
    let instance = instance::find(matches)?;
    let done = client::change_bans(&instance.runtime_dir, request)
        .map_err(|error| instance::refused(error, &instance))?;
    print(&format!("{done}\n"))
}

fn address(matches: &ArgMatches) -> Result<IpAddr> {
    let text = matches.get_one::<String>("address").map_or("", String::as_str);
    // As `list` shows it, so that a line of it can be given back.
    let plain = text.strip_suffix("/64").filter(|text| text.contains(':')).unwrap_or(text);
    plain.parse().map_err(|_| {
        let failure = Failure::new(Exit::Usage, format!("\"{text}\" is not an address"));
        if text.contains('/') {
            return failure.hint("ranges stand in the file that bans.deny_file names");
        }
        failure.hint("for example 192.0.2.1 or 2001:db8::1, which stands for its /64")
    })
}

fn time(text: &str) -> Result<u64> {
    let time = parse_duration(text).filter(|time| (Duration::from_secs(1)..=TIME_MAX).contains(time));
    time.map(|time| time.as_secs()).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("\"{text}\" is not a time for a ban"))
            .hint("from 1s to 365d, for example 1h")
    })
}

fn text(bans: &[BanRow], total: u64, style: Style) -> String {
    let Style { quiet, reset, .. } = style;
    if bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let width = bans.iter().map(|ban| ban.client.len()).max().unwrap_or_default().max("client".len());
    let mut out = format!("{quiet}{:<width$}  {:>9}  {:>5}  for{reset}\n", "client", "free in", "times");
    for BanRow { client, ends_in_s, times, by } in bans {
        // A String takes everything.
        let _ = writeln!(out, "{client:<width$}  {:>9}  {times:>5}  {by}", left(*ends_in_s));
    }
    let more = total.saturating_sub(bans.len() as u64);
    if more > 0 {
        let _ = writeln!(out, "{quiet}and {more} more{reset}");
    }
    out
}

/// `59 s`, `12 min`, `3 h`, `2 d`, rounded up: then he is surely free.
fn left(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds.div_ceil(60)),
        7200..=172_799 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} d", seconds.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(client: &str, ends_in_s: u64, times: u32, by: &str) -> BanRow {
        BanRow { client: client.to_owned(), ends_in_s, times, by: by.to_owned() }
    }

    #[test]
    fn the_list() {
        let bans = [
            row("2001:db8:1:2::/64", 86_400, 1, "operator"),
            row("192.0.2.1", 1190, 2, "offences"),
            row("192.0.2.7", 5, 1, "offences"),
        ];
        insta::assert_snapshot!(text(&bans, 5, Style::default()), @r"
        client               free in  times  for
        2001:db8:1:2::/64       24 h      1  operator
        192.0.2.1             20 min      2  offences
        192.0.2.7                5 s      1  offences
        and 2 more
        ");
        assert_eq!(text(&[], 0, Style::default()), "nobody is banned\n");
    }

    #[test]
    fn times() {
        assert_eq!(["1s", "90m", "365d"].map(|text| time(text).unwrap()), [1, 5400, 31_536_000]);
        assert!(["", "0s", "366d", "soon"].iter().all(|text| time(text).is_err()));
    }
}
