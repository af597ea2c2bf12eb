//! Which URLs may be fetched. Pure: it knows no network. The same look at a caller's URL and at where a server redirects to.

use embark_crds::contract::ImageUrls;
use url::{Host, Url};

use crate::error::{Error, ErrorKind};

/// The field of an item that a failure of its URL names.
pub const URL_FIELD: &str = "image_url";
/// The longest URL that is read, in bytes.
pub const MAX_URL_BYTES: usize = 8192;
/// Ports of hosts that are allowed without one.
const USUAL_PORTS: [u16; 2] = [80, 443];
/// So many of the allowed hosts are told to who gave another.
const MOST_TOLD: usize = 8;

/// A URL that is allowed: http or https, of an allowed host and port, without credentials and fragment, spelled as the URL
/// standard has it. Two spellings of one URL are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUrl(Url);

// === impl ImageUrl ===

impl ImageUrl {
    /// The URL that a text means, if it is allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`]: it is none. [`ErrorKind::UrlNotAllowed`].
    pub fn parse(text: &str, allowed: &ImageUrls) -> Result<Self, Error> {
        fits(text)?;
        let url = Url::parse(text).map_err(|error| malformed(text, &error.to_string()))?;
        judge(url, allowed)
    }

    /// Where a server redirects to, if that is allowed.
    ///
    /// # Errors
    /// As [`ImageUrl::parse`]; what a server says is no caller's fault: [`ErrorKind::UrlFailed`] where it is no URL.
    pub fn redirected(&self, location: &str, allowed: &ImageUrls) -> Result<Self, Error> {
        let failed = |why: &str| {
            let allowed = format!("is redirected to what is no URL: {why}");
            Error::of_field(ErrorKind::UrlFailed, URL_FIELD, &self.shown(), allowed)
        };
        fits(location).map_err(|error| failed(&error.allowed))?;
        let next = self.0.join(location).map_err(|error| failed(&error.to_string()))?;
        if self.0.scheme() == "https" && next.scheme() == "http" {
            let allowed = "is redirected to from https, which goes to https alone";
            return Err(Error::of_field(
                ErrorKind::UrlNotAllowed,
                URL_FIELD,
                &public(&next),
                allowed,
            ));
        }
        judge(next, allowed)
    }

    /// The URL as it is sent.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Its host.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The address that its host is, if it is one.
    pub fn literal(&self) -> Option<std::net::IpAddr> {
        match self.0.host()? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    /// What of it may be told on: not its query, which may be as good as a password.
    pub fn shown(&self) -> String {
        public(&self.0)
    }
}

// === free functions ===

/// What is said of a URL to who asks a model that takes none.
pub fn no_urls() -> Error {
    let allowed = "is given; the model takes no URLs (spec.input.image.urls)";
    Error::of_field(ErrorKind::UrlNotAllowed, URL_FIELD, "a URL", allowed)
}

/// Whether a text may be read as a URL. The standard drops spaces and control characters: a text with them is not what it
/// looks like.
fn fits(text: &str) -> Result<(), Error> {
    if text.len() > MAX_URL_BYTES {
        let given = format!("{} bytes", text.len());
        let allowed = format!("are given; at most {MAX_URL_BYTES} are allowed");
        return Err(Error::of_field(ErrorKind::Malformed, URL_FIELD, &given, allowed));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(malformed(text, "it has spaces or control characters"));
    }
    Ok(())
}

/// The URL without what is not sent, if it is allowed.
fn judge(mut url: Url, allowed: &ImageUrls) -> Result<ImageUrl, Error> {
    let refused = |allowed: String| {
        Err(Error::of_field(ErrorKind::UrlNotAllowed, URL_FIELD, &public(&url), allowed))
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refused("is not allowed; http and https are".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("has a user or a password, which no URL may have".to_owned());
    }
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return refused("has no host".to_owned());
    };
    if !allowed.allowed_hosts.iter().any(|rule| allows(rule, &host, port)) {
        let told: Vec<&str> =
            allowed.allowed_hosts.iter().take(MOST_TOLD).map(String::as_str).collect();
        let more = if allowed.allowed_hosts.len() > MOST_TOLD { " …" } else { "" };
        let hosts = if told.is_empty() { "none".to_owned() } else { told.join(", ") + more };
        return refused(format!(
            "is of a host or port that is not allowed; allowed: {hosts} (spec.input.image.urls.allowedHosts)"
        ));
    }
    url.set_fragment(None);
    // Its spelling may be longer than the text was.
    if url.as_str().len() > MAX_URL_BYTES {
        return Err(malformed(&public(&url), "it is too long once it is spelled out"));
    }
    Ok(ImageUrl(url))
}

/// Whether a rule is for a host and port: `name`, `*.suffix`, either with `:port`.
fn allows(rule: &str, host: &Host<&str>, port: u16) -> bool {
    let (name, is_port) = match rule.split_once(':') {
        Some((name, written)) => (name, written.parse() == Ok(port)),
        None => (rule, USUAL_PORTS.contains(&port)),
    };
    let name = name.to_ascii_lowercase();
    let is_host = match (host, name.strip_prefix('*')) {
        // A suffix with its dot, so that it begins where a label does.
        (Host::Domain(host), Some(suffix)) => {
            let below = host.strip_suffix(suffix);
            suffix.starts_with('.') && below.is_some_and(|below| below.split('.').all(is_label))
        }
        (Host::Domain(host), None) => **host == *name,
        (Host::Ipv4(host), None) => host.to_string() == name,
        (Host::Ipv4(_), Some(_)) | (Host::Ipv6(_), _) => false,
    };
    is_port && is_host
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
}

fn malformed(text: &str, why: &str) -> Error {
    // What stands before an @ may be a password.
    let shown = text.rsplit('@').next().unwrap_or_default();
    let shown = shown.split(['?', '#']).next().unwrap_or_default();
    let allowed = format!("is no URL that is read ({why}); http://host/path is one");
    Error::of_field(ErrorKind::Malformed, URL_FIELD, shown, allowed)
}

/// A URL without what may be secret.
fn public(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = if url.cannot_be_a_base() { "…" } else { url.path() };
    format!("{}://{host}{port}{path}", url.scheme())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn allowing(hosts: &[&str]) -> ImageUrls {
        let allowed_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        ImageUrls { allowed_hosts, allowed_cidrs: vec![], timeout: Duration::from_secs(2) }
    }

    const HOSTS: [&str; 6] = [
        "images.example.com",
        "*.cdn.example.com",
        "Ports.example.com:8080",
        "*.many.example.com:8443",
        "10.1.2.3",
        "xn--bcher-kva.example",
    ];

    /// What a text is read as, or why it is not.
    fn read(text: &str) -> Result<String, ErrorKind> {
        let url = ImageUrl::parse(text, &allowing(&HOSTS));
        url.map(|url| url.as_str().to_owned()).map_err(|error| error.kind)
    }

    #[test]
    fn what_is_allowed_is_spelled_in_one_way_and_its_fragment_is_not_sent() {
        for (text, expected) in [
            ("http://images.example.com/a.png", "http://images.example.com/a.png"),
            ("HTTPS://IMAGES.EXAMPLE.COM:443/a", "https://images.example.com/a"),
            ("http://images.example.com:443/a", "http://images.example.com:443/a"),
            ("https://images.example.com:80", "https://images.example.com:80/"),
            ("http://images.example.com/a?b=c#d", "http://images.example.com/a?b=c"),
            (
                "http://images.example.com/%61/../b c".trim_end_matches(" c"),
                "http://images.example.com/b",
            ),
            ("http://images。example.com/", "http://images.example.com/"),
            ("http://ｉmages.example.com/", "http://images.example.com/"),
            ("http:images.example.com", "http://images.example.com/"),
            ("http:\\\\images.example.com\\a", "http://images.example.com/a"),
            ("https://a.cdn.example.com/", "https://a.cdn.example.com/"),
            ("https://a.b.cdn.example.com/", "https://a.b.cdn.example.com/"),
            ("http://ports.example.com:8080/", "http://ports.example.com:8080/"),
            ("http://a.many.example.com:8443/", "http://a.many.example.com:8443/"),
            ("http://10.1.2.3/", "http://10.1.2.3/"),
            ("http://0x0a010203/", "http://10.1.2.3/"),
            ("http://012.1.0x2.3/", "http://10.1.2.3/"),
            ("http://167838211/", "http://10.1.2.3/"),
            ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        for text in [
            "ftp://images.example.com/a.png",
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "gopher://images.example.com/",
            "javascript:alert(1)",
            "blob:http://images.example.com/a",
            "http://user@images.example.com/",
            "http://user:word@images.example.com/",
            "http://:word@images.example.com/",
            "http://images.example.com@evil.example/",
            "http://images.example.com:8080/",
            "http://images.example.com:22/",
            "http://images.example.com.evil.example/",
            "http://evilimages.example.com/",
            "http://a.images.example.com/",
            "http://images.example.com./",
            "http://example.com/",
            "http://cdn.example.com/",
            "http://evilcdn.example.com/",
            "http://.cdn.example.com/",
            "http://a..cdn.example.com/",
            "http://a.cdn.example.com:8443/",
            "http://ports.example.com/",
            "http://many.example.com:8443/",
            "http://evil.example\\@images.example.com/",
            "http://10.1.2.4/",
            "http://127.0.0.1/",
            "http://0177.0.0.1/",
            "http://2130706433/",
            "http://localhost/",
            "http://[::1]/",
            "http://[::ffff:10.1.2.3]/",
            "http://b\u{fc}cher.evil.example/",
        ] {
            assert_eq!(read(text), Err(ErrorKind::UrlNotAllowed), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_malformed() {
        let long = format!("http://images.example.com/{}", "a".repeat(MAX_URL_BYTES));
        // Three bytes for one once it is spelled out.
        let grows = format!("http://images.example.com/{}", "ä".repeat(MAX_URL_BYTES / 2 - 100));
        for text in [
            "",
            "a.png",
            "//images.example.com/a",
            "http://",
            "http:///",
            "http://images.example.com:99999/",
            "http://images.example.com:a/",
            "http://images .example.com/",
            " http://images.example.com/",
            "http://images.example.com/\r\nhost: evil",
            "http://images.example.com/\0",
            "http://images.exa\tmple.com/",
            "http://[::1/",
            "http://256.256.256.256/",
            "http://a%00b.cdn.example.com/",
            long.as_str(),
            grows.as_str(),
        ] {
            assert_eq!(read(text), Err(ErrorKind::Malformed), "{:.80}", text);
        }
    }

    #[test]
    fn redirects_are_judged_alike() {
        let allowed = allowing(&HOSTS);
        let from = |text| ImageUrl::parse(text, &allowed).unwrap();
        let to = |from: &ImageUrl, location: &str| {
            let next = from.redirected(location, &allowed);
            next.map(|url| url.as_str().to_owned()).map_err(|error| error.kind)
        };
        let (plain, secure) =
            (from("http://images.example.com/a/b"), from("https://images.example.com/a/b"));
        assert_eq!(to(&plain, "c").as_deref(), Ok("http://images.example.com/a/c"));
        assert_eq!(to(&plain, "/c#d").as_deref(), Ok("http://images.example.com/c"));
        assert_eq!(to(&plain, "//a.cdn.example.com").as_deref(), Ok("http://a.cdn.example.com/"));
        assert!(to(&plain, "https://images.example.com/").is_ok());
        assert_eq!(to(&secure, "http://images.example.com/"), Err(ErrorKind::UrlNotAllowed));
        for location in ["http://127.0.0.1/", "//169.254.169.254/", "file:///etc/passwd"] {
            assert_eq!(to(&plain, location), Err(ErrorKind::UrlNotAllowed), "{location}");
        }
        assert_eq!(to(&plain, "http://["), Err(ErrorKind::UrlFailed));
        assert_eq!(to(&plain, "a b"), Err(ErrorKind::UrlFailed));
    }

    #[test]
    fn a_wildcard_is_for_no_address_and_nothing_is_allowed_by_default() {
        let refused = |text, hosts: &[&str]| ImageUrl::parse(text, &allowing(hosts)).is_err();
        assert!(refused("http://10.0.0.1/", &["*.0.0.1", "*.1"]));
        assert!(refused("http://a.example/", &[]));
        assert!(refused("http://a.example/", &["*example", "*"]));
    }

    #[test]
    fn no_secret_is_told_and_no_long_list() {
        let hosts: Vec<String> =
            (0..64).map(|n| format!("{n}.{}.example", "h".repeat(200))).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        for text in [
            "http://user:pa55@evil.example/a?sig=pa55",
            "http://user:pa55@/a?sig=pa55",
            "http://evil.example:99999/?pa55",
        ] {
            let error = ImageUrl::parse(text, &allowing(&hosts)).unwrap_err();
            assert!(!error.message.contains("pa55"), "{error}");
            assert!(error.message.len() < 3_000 && error.field == URL_FIELD);
            assert!(error.message.starts_with("image_url: "), "{error}");
        }
    }
}
