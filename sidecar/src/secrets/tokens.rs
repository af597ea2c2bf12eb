//! Bearer tokens that callers show. Several may be in force, so that one can be replaced without a call being refused.

use blake3::Hash;

use super::Content;

/// The most tokens that are in force at a time.
const MOST: usize = 64;

/// Fewer characters can be guessed.
const SHORTEST: usize = 16;

/// Tokens that open the door; kept as hashes, which are compared in constant time.
pub struct Tokens(Vec<Hash>);

// === impl Tokens ===

impl Tokens {
    /// Reads a file with a token a line; blank lines are passed over.
    ///
    /// # Errors
    /// There is none, there are too many, or one has characters that no header can carry.
    pub fn parse(contents: &[Content]) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for content in contents {
            for (number, line) in (1..).zip(lines(&content.bytes)) {
                let is_token = line.iter().all(u8::is_ascii_graphic) && !line.starts_with(b"#");
                if !is_token || line.len() < SHORTEST {
                    let allowed = format!(
                        "a token has {SHORTEST} or more visible ASCII characters, no spaces, and no # at its start"
                    );
                    return Err(content.wrong(format!("token {number} is none; {allowed}")));
                }
                tokens.push(blake3::hash(line));
            }
            if tokens.is_empty() || tokens.len() > MOST {
                let found = tokens.len();
                let sentence = format!("has {found} tokens; it must have 1 to {MOST}, a line each");
                return Err(content.wrong(sentence));
            }
        }
        Ok(Tokens(tokens))
    }

    /// Whether it is one of them. Each is compared, so that the time says nothing.
    pub fn know(&self, token: &[u8]) -> bool {
        let hash = blake3::hash(token);
        self.0.iter().fold(false, |known, other| known | (*other == hash))
    }
}

// === free functions ===

/// The lines that are not blank, without what is blank around them.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Named, Rotating},
        *,
    };

    fn tokens(text: &[u8]) -> Result<Rotating<Tokens>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        Rotating::read(vec![Named { argument: "--token-file", path }], Tokens::parse)
    }

    #[test]
    fn each_line_is_a_token_and_nothing_else_is() {
        let tokens = tokens(b"  first-0123456789\r\n\nsecond-0123456789").unwrap().load();
        for (token, known) in [
            ("first-0123456789", true),
            ("second-0123456789", true),
            ("first-012345678", false),
            ("", false),
            ("first-0123456789 ", false),
        ] {
            assert_eq!(tokens.know(token.as_bytes()), known, "{token:?}");
        }
    }

    #[test]
    fn a_file_without_tokens_is_refused_and_no_token_is_told() {
        for (text, what) in [
            (&b""[..], "has 0 tokens; it must have 1 to 64"),
            (b"\n \n", "has 0 tokens"),
            (b"good-0123456789-good\nse cret-0123456789", "token 2 is none"),
            (b"#secret-0123456789", "token 1 is none"),
            (b"short-secret", "token 1 is none"),
            ("sécret-0123456789".as_bytes(), "token 1 is none"),
            (&b"0123456789abcdef\n".repeat(65), "has 65 tokens"),
        ] {
            let error = tokens(text).err().unwrap();
            assert!(error.contains(what) && !error.contains("cret"), "{error}");
        }
    }
}
