//! What choosing a route costs: `cargo run --release -p quintet-http-gateway --example routes [ROUTES [ROUNDS]]`.

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use ctl_config::{Sources, TextFile, load};
use http_gateway::message::{Headers, Method, RequestHead, Version};
use http_gateway::route::{Asked, Choice, Routes};

fn routes(count: usize, path: impl Fn(usize) -> String) -> Result<Routes, Box<dyn Error>> {
    let mut text = String::new();
    for index in 0..count {
        writeln!(text, "[[route]]\npath = \"{}\"\nrespond = \"\"", path(index))?;
    }
    let file = TextFile { path: "/quintet.toml".into(), text };
    let sources = Sources { file: Some(file), working_dir: "/".into(), ..Sources::default() };
    Ok(Routes::new(&load(&sources)?.config)?.ok_or("there are no routes")?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let count = arguments.next().transpose()?.unwrap_or(100).max(1);
    let rounds = arguments.next().transpose()?.unwrap_or(100_000).max(1);
    let mut headers = Headers::default();
    headers.push(b"host", b"shop.example.org");
    let globs = routes(count, |index| format!("/section-{index}/*"))?;
    let regexes = routes(count, |index| format!("~^/section-{index}/[0-9]+$"))?;
    for (name, routes, target) in [
        ("globs, none matches", &globs, "/catalogue/product/7?page=2"),
        ("globs, the last one", &globs, &*format!("/section-{}/7", count - 1)),
        ("globs, escapes", &globs, "/catalogue/caf%C3%A9/7"),
        ("globs, a path of many readings", &globs, "/a/../b;c//d%2Fe"),
        ("expressions, none matches", &regexes, "/catalogue/product/7?page=2"),
        ("expressions, the last one", &regexes, &*format!("/section-{}/7", count - 1)),
    ] {
        let head = RequestHead {
            method: Method::Get,
            target: target.into(),
            version: Version::Http11,
            headers: headers.clone(),
        };
        let began = Instant::now();
        let mut taken = 0;
        for _ in 0..rounds {
            let asked = Asked::new(black_box(&head), b"shop.example.org", false);
            taken += usize::from(matches!(routes.choose(&asked), Choice::Route(_)));
        }
        let nanos = began.elapsed().as_nanos() / rounds as u128;
        println!("{nanos:>8} ns  {count} {name} ({taken} of {rounds} taken)");
    }
    Ok(())
}
