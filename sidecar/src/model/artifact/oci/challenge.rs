//! What a registry says when it wants to know who asks, and what it gives for the answer.

use serde::Deserialize;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user's name and password.
    Basic,
    /// A token that is given elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// Whom for.
        service: Option<String>,
        /// What for.
        scope: Option<String>,
    },
}

/// A token, under either of the names that it goes by.
#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

// === impl Challenge ===

impl Challenge {
    /// Reads one, such as `Bearer realm="https://…",service="…"`; `None`: it is of no kind that is known.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (kind, parameters) = text.split_once(' ').unwrap_or((text, ""));
        if kind.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !kind.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = parameters.trim_start();
        while let Some((name, value, after)) = parameter(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after;
        }
        Some(Challenge::Bearer { realm: realm?, service, scope })
    }
}

// === free functions ===

/// The token of an answer.
pub(super) fn token(bytes: &[u8]) -> Option<String> {
    let given: Given = serde_json::from_slice(bytes).ok()?;
    given.token.or(given.access_token).filter(|token| !token.is_empty())
}

/// A name, its value, and what follows.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => quoted_value(quoted)?,
        None => {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].trim().to_owned(), &rest[end..])
        }
    };
    Some((name.trim(), value, rest.trim_start_matches([',', ' '])))
}

/// A value up to its closing quote, and what follows that.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (index, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some((value, &text[index + 1..])),
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (service, scope) = (owned(service), owned(scope));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn challenges_are_read() {
        for (text, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a/token\",service=\"b\",scope=\"repository:c/d:pull,push\"",
                bearer("https://a/token", Some("b"), Some("repository:c/d:pull,push")),
            ),
            ("bearer realm=a, service=b", bearer("a", Some("b"), None)),
            ("Bearer realm=\"a\\\"b\"", bearer("a\"b", None, None)),
            ("Bearer service=\"b\"", None),
            ("Bearer realm=\"a", None),
            ("Bearer", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn tokens_go_by_two_names() {
        for (json, expected) in [
            (r#"{"token": "a", "access_token": "b"}"#, Some("a")),
            (r#"{"access_token": "b", "expires_in": 300}"#, Some("b")),
            (r#"{"token": ""}"#, None),
            (r#"{"token": 1}"#, None),
            ("token", None),
        ] {
            assert_eq!(token(json.as_bytes()).as_deref(), expected, "{json}");
        }
    }
}
