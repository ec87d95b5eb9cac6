//! Certificates of clients: what holds between `[tls]` and the routes that want one.

use crate::Route;
use crate::choice::choice;
use crate::load::Loaded;
use crate::problem::Problem;
use crate::route::{Change, HeaderEdit, Piece};
use crate::tables::Record as _;

choice! {
    /// Whether TLS clients are asked who they are.
    ClientVerify {
        /// They are not asked.
        Off = "off",
        /// They are asked. Who shows nothing is served, too; a certificate that is not good ends the handshake.
        Optional = "optional",
        /// Without a good certificate there is no connection.
        Require = "require",
    }
}

/// Rules of `[tls]`.
pub(crate) fn tls(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let tls = &loaded.config.tls;
    let mut wrong = |key: &str, message: &str, hint: &str| {
        problems.push(
            Problem::new(format!("tls.{key}: {message}")).hint(hint).at(loaded.place(&format!("tls.{key}"))),
        );
    };
    if tls.client_verify == ClientVerify::Off {
        if tls.client_ca.is_some() {
            let hint = "client_verify = \"require\", or \"optional\" for sites that serve others, too";
            wrong("client_ca", "clients are not asked for certificates", hint);
        } else if tls.client_crl.is_some() {
            wrong(
                "client_crl",
                "clients are not asked for certificates",
                "set client_verify and client_ca, too",
            );
        }
    } else if tls.client_ca.is_none() {
        let hint =
            "set client_ca to a file with the certificates of the authorities that sign those of clients";
        wrong("client_verify", "nobody says which clients are to be believed", hint);
    } else if !loaded.config.speaks_tls() {
        let hint = "set tls.certificate and tls.key, or write a [[certificate]]";
        wrong("client_verify", "there is no certificate of our own, so TLS is off", hint);
    }
}

/// Rules of routes.
pub(crate) fn routes(loaded: &Loaded, problems: &mut Vec<Problem>) {
    if loaded.config.tls.client_verify != ClientVerify::Off {
        return;
    }
    for (index, route) in loaded.config.route.iter().enumerate() {
        let named =
            [("request_headers", &route.request_headers), ("response_headers", &route.response_headers)];
        let named = named.into_iter().filter(|(_, edits)| edits.iter().any(|edit| names_certificate(edit)));
        let wanting = route.client_certificate.then_some("client_certificate");
        for key in wanting.into_iter().chain(named.map(|(key, _)| key)) {
            let problem = Problem::new(format!("route.{key}: clients are not asked for certificates"))
                .hint("set tls.client_verify = \"optional\" and tls.client_ca");
            problems.push(problem.at(loaded.place_in(Route::TABLE, index, key)));
        }
    }
}

/// Does a change of a header say something of the client's certificate?
pub fn names_certificate(edit: &str) -> bool {
    let of_certificate =
        |piece: &Piece| matches!(piece, Piece::Of(placeholder) if placeholder.is_of_certificate());
    match HeaderEdit::parse(edit).map(|edit| edit.change) {
        Ok(Change::Add(value) | Change::Set(value)) => value.pieces().iter().any(of_certificate),
        Ok(Change::Remove) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{loaded, wrong};

    const OWN: &str = "[tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";

    #[test]
    fn what_is_wrong_is_explained() {
        let mut problems = Vec::new();
        for text in [
            "client_ca = \"ca.pem\"\n".to_owned(),
            "client_crl = \"crl.pem\"\n".to_owned(),
            "client_verify = \"require\"\n".to_owned(),
            "client_verify = \"on\"\n".to_owned(),
            "[[route]]\nclient_certificate = true\nrequest_headers = [\"X-A: {path}\", \"Client-Cert: {client_cert}\"]\n".to_owned(),
        ] {
            problems.push(wrong(&format!("{OWN}{text}")));
        }
        problems.push(wrong("[tls]\nclient_verify = \"optional\"\nclient_ca = \"ca.pem\"\n"));
        insta::assert_snapshot!(problems.join("\n---\n"));
    }

    #[test]
    fn what_belongs_together() {
        let text = "client_verify = \"optional\"\nclient_ca = \"ca.pem\"\nclient_crl = \"crl.pem\"\n\
                    [[route]]\nclient_certificate = true\nrequest_headers = \"X-Who: {client_cert_subject}\"\n";
        let loaded = loaded(&format!("{OWN}{text}"));
        assert_eq!(loaded.config.tls.client_ca.as_deref(), Some(std::path::Path::new("/srv/shop/ca.pem")));
    }
}
