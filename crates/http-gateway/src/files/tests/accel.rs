//! Files that the app has sent with a field of its answer.

use super::*;

#[tokio::test]
async fn sent_on_the_apps_word() {
    let mut site = Site::new();
    site.config.files.media = Media::Public;
    site.write("private/a b.pdf", "0123456789").write("media/m.png", "png").write("secret", "s");
    let files = site.files();
    let private = site.path("private");
    let send = async |name: &str, value: &str, fields: &[(&str, &str)]| {
        let mut headers = Headers::default();
        for (name, value) in [
            ("Content-Type", "application/pdf"),
            ("Content-Length", "0"),
            ("Content-Disposition", "attachment"),
            ("Set-Cookie", "a=b"),
            ("ETag", "\"of an empty body\""),
        ] {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers.push(name.as_bytes(), value.as_bytes());
        let response = files.accel(&head("GET", "/download/", fields), "id", 200, &mut headers).await;
        assert!(!headers.contains(name));
        response.unwrap()
    };
    for (name, value) in [
        ("X-Accel-Redirect", "/protected/a%20b.pdf".to_owned()),
        ("x-accel-redirect", "/protected/a b.pdf?x".to_owned()),
        ("X-Sendfile", private.join("a b.pdf").display().to_string()),
    ] {
        let response = send(name, &value, &[]).await;
        assert_eq!((response.status, body(&response)), (200, b"0123456789".to_vec()), "{value}");
        assert_eq!(field(&response, "content-type").unwrap(), "application/pdf");
        assert_eq!(field(&response, "content-disposition").unwrap(), "attachment");
        assert_eq!(field(&response, "set-cookie").unwrap(), "a=b");
        assert_eq!(response.headers.all("content-length").collect::<Vec<_>>(), [b"10"]);
        assert!(field(&response, "cache-control").is_none(), "the app's to say");
        let etag = field(&response, "etag").unwrap();
        assert_ne!(etag, "\"of an empty body\"");
        let response = send(name, &value, &[("If-None-Match", &etag)]).await;
        assert_eq!((response.status, field(&response, "content-length")), (304, None));
        let response = send(name, &value, &[("Range", "bytes=2-3")]).await;
        assert_eq!((response.status, body(&response)), (206, b"23".to_vec()));
        assert_eq!(response.headers.all("content-length").collect::<Vec<_>>(), [b"2"]);
    }
    // What the app has done is done: conditions are for reading.
    let mut headers = Headers::default();
    headers.push(b"X-Accel-Redirect", b"/protected/a%20b.pdf");
    let conditions = [("If-None-Match", "*"), ("If-Match", "\"other\""), ("Range", "bytes=0-1")];
    for (method, status) in [("POST", 200), ("GET", 404)] {
        let response = files
            .accel(&head(method, "/download/", &conditions), "id", status, &mut headers.clone())
            .await
            .unwrap();
        assert_eq!((response.status, body(&response)), (status, b"0123456789".to_vec()));
    }
    assert_eq!(send("X-Accel-Redirect", "/media/m.png", &[]).await.status, 200);
    assert_eq!(send("X-Accel-Redirect", "/protected/none", &[]).await.status, 404);
    for (name, value) in [
        ("X-Accel-Redirect", "/elsewhere/x".to_owned()),
        ("X-Accel-Redirect", "/protected/../secret".to_owned()),
        ("X-Sendfile", site.path("secret").display().to_string()),
        ("X-Sendfile", private.join("../secret").display().to_string()),
        ("X-Sendfile", "/etc/passwd".to_owned()),
        ("X-Sendfile", String::new()),
    ] {
        assert_eq!(send(name, &value, &[]).await.status, 500, "{value}");
    }
    let mut none = Headers::default();
    assert!(files.accel(&head("GET", "/", &[]), "id", 200, &mut none).await.is_none());
    assert_eq!(status(&files, "GET", "/protected/a%20b.pdf").await, None, "never for clients");
}

#[test]
fn accel_settings() {
    for (entry, good) in [
        ("/p/=/srv", true),
        ("/p=/srv/x", true),
        ("/p/", false),
        ("p/=/srv", false),
        ("/p/=srv", false),
        ("", false),
    ] {
        assert_eq!(crate::files::accel::plan(&[entry.to_owned()]).is_ok(), good, "{entry}");
    }
}
