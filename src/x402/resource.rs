//! Resources: the URL that a payment is made for, and when two of them are the same.

/// The URL of a resource: what challenges show, and what a v2 payment's `resource.url` must equal.
///
/// Built on `public_url` where the configuration has one, else on the request's own scheme and authority. The path is
/// taken as it is given, which is normalised; its query and fragment are left out, so that one route has one resource however it is called.
///
/// `https://api.example.com/v1/reports/7`
pub fn resource_url(public_url: Option<&str>, scheme: &str, authority: &str, path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    match public_url {
        Some(base) => [base.trim_end_matches('/'), "/", path].concat(),
        None => {
            let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
            format!("{scheme}://{}/{path}", without_default_port(&scheme, &authority))
        }
    }
}

/// Whether two resource URLs are the same: scheme and host without case, a default port dropped, an empty path as `/`,
/// query and fragment ignored, and the path exactly.
pub fn same_resource(one: &str, other: &str) -> bool {
    match (Parts::of(one), Parts::of(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

#[derive(PartialEq, Eq)]
struct Parts<'a> {
    scheme: String,
    authority: String,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path),
            None => (rest, ""),
        };
        let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
        let authority = without_default_port(&scheme, &authority).to_owned();
        (!authority.is_empty()).then_some(Self { scheme, authority, path })
    }
}

/// Both in lower case.
fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_on_the_request_or_on_the_public_url() {
        assert_eq!(
            resource_url(None, "HTTP", "Api.Example.com:80", "/v1/x?q=1"),
            "http://api.example.com/v1/x"
        );
        assert_eq!(
            resource_url(None, "http", "127.0.0.1:4121", "/exact"),
            "http://127.0.0.1:4121/exact"
        );
        assert_eq!(
            resource_url(Some("https://api.example.com/"), "http", "10.0.0.1", "/V1/x#f"),
            "https://api.example.com/V1/x"
        );
    }

    #[test]
    fn scheme_host_default_port_and_query_do_not_matter_and_the_path_does() {
        let same = [
            ("https://a.b/x", "HTTPS://A.B:443/x"),
            ("http://a.b:80", "http://a.b/"),
            ("http://[::1]:80/x", "http://[::1]/x?y=1#z"),
        ];
        for (one, other) in same {
            assert!(same_resource(one, other), "{one} {other}");
        }
        let different = [
            ("https://a.b/x", "http://a.b/x"),
            ("https://a.b/x", "https://a.b/X"),
            ("https://a.b/x", "https://a.b/x/"),
            ("https://a.b/x", "https://a.b:80/x"),
            ("https://a.b/x", "https://a.b@evil/x"),
            ("x", "x"),
            ("http:///x", "http:///x"),
        ];
        for (one, other) in different {
            assert!(!same_resource(one, other), "{one} {other}");
        }
    }
}
