//! `[redis]`: where Redis or Valkey is, and how its address keeps its secret.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::load::Loaded;
use crate::problem::Problem;
use crate::raw::{Fault, Input};
use crate::value::{Kind, Value};

/// Where Redis listens when nobody says otherwise.
const DEFAULT_PORT: u16 = 6379;

/// Redis numbers its databases; nobody has more.
const DATABASE_MAX: u32 = 65_535;

const HOW: &str = "for example redis://10.0.0.5:6379/0, rediss://user:password@cache.example.org (TLS) or \
                   unix:///run/redis/redis.sock; what is special in a password is written as %40 for @";

/// An address that may hold a password: shown without it, and the errors that it causes never repeat it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

/// What an address says.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// Where to connect.
    pub host: RedisHost,
    /// Who we are; without one Redis takes us for its user `default`.
    pub user: Option<String>,
    /// The secret.
    pub password: Option<String>,
    /// The number of the database.
    pub database: u32,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisHost {
    /// A name or an address, the latter without brackets.
    Tcp {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// `rediss`.
        tls: bool,
    },
    /// A socket of this machine.
    Unix(PathBuf),
}

impl SecretUrl {
    /// What it says.
    pub fn address(&self) -> Result<RedisAddress, Fault> {
        RedisAddress::parse(&self.0)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.0))
    }
}

impl Value for SecretUrl {
    const KIND: Kind = Kind::Text;

    fn read(input: Input<'_>) -> Result<Self, Fault> {
        let url = Self(String::read(input).map_err(|_| Fault::new("this is not a text").hint(HOW))?);
        url.address()?;
        Ok(url)
    }

    fn json(&self) -> Json {
        without_secrets(&self.0).into()
    }
}

impl RedisAddress {
    /// Reads `redis://`, `rediss://` and `unix://`. What is wrong is told without repeating anything of it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |what: &str| Fault::new(what).hint(HOW);
        let text = text.trim();
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| fault("this is not an address of Redis"))?;
        // A password may hold an @ that somebody forgot to write as %40: the last one ends it.
        let (user_info, place) =
            rest.rsplit_once('@').map_or((None, rest), |(info, place)| (Some(info), place));
        let decoded = |text: &str| {
            percent_decoded(text).ok_or_else(|| fault("a % in it is not followed by two digits"))
        };
        let (user, password) = match user_info {
            None => (None, None),
            Some(info) => {
                let (user, password) = info.split_once(':').unwrap_or((info, ""));
                let some = |text: &str| decoded(text).map(|text| Some(text).filter(|text| !text.is_empty()));
                (some(user)?, some(password)?)
            }
        };
        let (host, database) = match scheme {
            "unix" => {
                let (path, query) = place.split_once('?').unwrap_or((place, ""));
                if !path.starts_with('/') {
                    return Err(fault("the path of a socket begins with a slash"));
                }
                (
                    RedisHost::Unix(decoded(path)?.into()),
                    query.strip_prefix("db=").unwrap_or(query).to_owned(),
                )
            }
            "redis" | "rediss" => {
                let (host, database) = place.split_once('/').unwrap_or((place, ""));
                let (host, port) =
                    host_and_port(host).ok_or_else(|| fault("its host or port cannot be read"))?;
                (RedisHost::Tcp { host, port, tls: scheme == "rediss" }, database.to_owned())
            }
            _ => return Err(fault("it begins with none of redis://, rediss:// and unix://")),
        };
        let database = match database.as_str() {
            "" => 0,
            number => number
                .parse()
                .ok()
                .filter(|number| *number <= DATABASE_MAX)
                .ok_or_else(|| fault("its database is no number"))?,
        };
        Ok(Self { host, user, password, database })
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Without user and password: for messages.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            RedisHost::Unix(path) => write!(f, "{}", path.display()),
            RedisHost::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            RedisHost::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return None,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    (!host.is_empty() && host.bytes().all(plain)).then(|| (host.to_owned(), port))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// A text in which what stands between `://` and the last `@` behind it is not to be read: addresses with passwords, also those
/// that are not understood.
pub(crate) fn without_secrets(text: &str) -> String {
    let hidden = || {
        let start = text.find("://")? + "://".len();
        let end = start + text[start..].rfind('@')?;
        Some(format!("{}***{}", &text[..start], &text[end..]))
    };
    hidden().unwrap_or_else(|| text.to_owned())
}

/// The rules between these settings.
pub(crate) fn check(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let redis = &loaded.config.redis;
    if redis.url.is_some() && redis.url_file.is_some() {
        let problem = Problem::new("redis.url_file: there is redis.url as well").hint("one of the two");
        problems.push(problem.at(loaded.place("redis.url_file")));
    }
    let without_tls = redis
        .url
        .as_ref()
        .and_then(|url| url.address().ok())
        .is_some_and(|address| !matches!(address.host, RedisHost::Tcp { tls: true, .. }));
    if redis.tls_ca.is_some() && without_tls {
        let problem = Problem::new("redis.tls_ca: the connection to Redis does not speak TLS")
            .hint("redis.url begins with rediss:// where it does");
        problems.push(problem.at(loaded.place("redis.tls_ca")));
    }
}

/// The common beginning of all keys.
pub(crate) fn check_key_prefix(text: &str) -> Result<(), Fault> {
    crate::tables::check_name(text, "the prefix of keys", "shop")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{loaded, wrong};
    use crate::{Sources, load};

    #[test]
    fn addresses() {
        #[track_caller]
        fn check(text: &str, shown: &str, user: Option<&str>, password: Option<&str>, database: u32) {
            let address = RedisAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!((address.user.as_deref(), address.password.as_deref()), (user, password), "{text}");
            assert_eq!(address.database, database, "{text}");
        }
        check("redis://cache", "cache:6379", None, None, 0);
        check("redis://cache/3", "cache:6379", None, None, 3);
        check("rediss://u:p@10.0.0.5:7000/", "10.0.0.5:7000", Some("u"), Some("p"), 0);
        check("redis://:p@[2001:db8::1]:7000/1", "[2001:db8::1]:7000", None, Some("p"), 1);
        check("redis://u:a%40b@c@host", "host:6379", Some("u"), Some("a@b@c"), 0);
        check("unix:///run/redis.sock?db=2", "/run/redis.sock", None, None, 2);
        check("unix://:p@/run/redis.sock", "/run/redis.sock", None, Some("p"), 0);
        let tls = |text| matches!(RedisAddress::parse(text).unwrap().host, RedisHost::Tcp { tls: true, .. });
        assert!(tls("rediss://host") && !tls("redis://host"));
        for text in [
            "",
            "host:6379",
            "http://host",
            "redis://",
            "redis://host:port",
            "redis://host:0",
            "redis://host/x",
            "redis://a b",
            "redis://host/70000",
            "unix://redis.sock",
            "redis://u:%4@host",
            "redis://[::1",
        ] {
            assert!(RedisAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_shown_nowhere() {
        let secret = "pa55word";
        let text = format!("[redis]\nurl = \"redis://shop:{secret}@cache:7000/1\"\n");
        let config = loaded(&text).config;
        let url = config.redis.url.clone().unwrap();
        assert_eq!(url.address().unwrap().password.as_deref(), Some(secret));
        let setting = crate::define::find("redis.url").unwrap();
        let shown = [
            format!("{config:?}"),
            format!("{:?}", url.address()),
            setting.json(&config, 0).to_string(),
            setting.text(&config, 0),
        ];
        assert_eq!(shown[3], "redis://***@cache:7000/1");
        let broken = [
            text.replace("redis://", "mysql://"),
            text.replace("7000", "port"),
            text.replace("/1\"", "/1"),
            text.replace(
                &format!("\"redis://shop:{secret}@cache:7000/1\""),
                &format!("[\"redis://u:{secret}@h\"]"),
            ),
        ];
        let environment = vec![("QUINTET_REDIS_URL".to_owned(), format!("redis://shop:{secret}@cache:x"))];
        let from_environment = load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
        assert!(from_environment.contains("QUINTET_REDIS_URL"), "{from_environment}");
        let problems = broken.iter().map(|text| wrong(text)).chain([from_environment]);
        for text in shown.into_iter().chain(problems) {
            assert!(!text.contains(secret), "{text}");
        }
        // The gateway gets it as it is.
        let kept: crate::Config = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(kept, config);
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let text =
            "[redis]\nurl = \"redis://cache\"\nurl_file = \"/run/secrets/redis\"\ntls_ca = \"ca.pem\"\n";
        insta::assert_snapshot!(wrong(text), @r#"
        error: redis.url_file: there is redis.url as well
          --> quintet.toml:3:12
           |
         3 | url_file = "/run/secrets/redis"
           |            ^^^^^^^^^^^^^^^^^^^^
        hint: one of the two

        error: redis.tls_ca: the connection to Redis does not speak TLS
          --> quintet.toml:4:10
           |
         4 | tls_ca = "ca.pem"
           |          ^^^^^^^^
        hint: redis.url begins with rediss:// where it does
        "#);
    }
}
