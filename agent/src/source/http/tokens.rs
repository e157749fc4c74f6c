//! Bearer tokens: a file that says which SHA-256 belongs to whom, and who shows one.
//!
//! ```text
//! # name:sha256 of the token, in hexadecimal            printf %s "$TOKEN" | sha256sum
//! lab-system:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ```
//!
//! The tokens themselves are nowhere on this machine. A name may stand there twice, so that a token can be replaced without a gap. Comparison
//! looks at every entry whole, whatever was found before. The file is looked at every `HTTP_TOKENS_INTERVAL`; one that cannot be used leaves
//! what was read before in place (condition `feed_tokens_invalid`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::config::files::{Secret, read_secret};
use crate::limits::HTTP_TOKENS_MAX;
use crate::record::{Digest, FeedId, Name};
use crate::secrets::Reference;
use crate::source::http::HttpSettings;
use crate::source::tls::{Mark, mark};
use crate::status::board::Board;
use crate::status::condition::Code;

/// What a tokens file says.
#[derive(Clone, Default)]
pub struct Tokens(Vec<(Name, [u8; 32])>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Tokens {
    /// The error is the end of a sentence that begins with the key's name; no hash is repeated.
    pub fn load(path: &Path) -> Result<Self, String> {
        Self::of(&read_secret(path, Secret::File)?)
    }

    /// The same from the bytes.
    pub fn of(bytes: &[u8]) -> Result<Self, String> {
        Self::parse(std::str::from_utf8(bytes).map_err(|_| "names a file that is not text; write lines of name:sha256".to_owned())?)
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = line.split_once(':').and_then(|(name, hash)| {
                let hash: Digest = hash.trim().to_ascii_lowercase().parse().ok()?;
                Some((Name::new(name.trim()).ok()?, hash.0))
            });
            let wrong = "is not name:sha256, a name of a-z, 0-9 and - and 64 hexadecimal digits";
            tokens.push(entry.ok_or_else(|| format!("names a file whose line {index} {wrong}"))?);
        }
        match tokens.len() {
            0 => Err("names a file without any token; add lines of name:sha256".to_owned()),
            n if n > HTTP_TOKENS_MAX => Err(format!("names a file of more than {HTTP_TOKENS_MAX} tokens; divide it among feeds")),
            _ => Ok(Self(tokens)),
        }
    }

    /// Whose token this is.
    pub fn owner(&self, token: &str) -> Option<&Name> {
        let shown: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut owner = None;
        for (name, hash) in &self.0 {
            let differs = hash.iter().zip(shown).fold(0, |differs, (a, b)| differs | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                owner = Some(name);
            }
        }
        owner
    }
}

/// The token in an `Authorization` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Where the lines stand.
#[derive(Clone, Debug)]
pub enum Lines {
    File(PathBuf),
    /// A secret of this gateway.
    Secret(Reference),
}

impl Lines {
    /// `None`: the feed asks for no token.
    pub fn of(settings: &HttpSettings) -> Option<Self> {
        let file = settings.tokens_file.clone().map(Self::File);
        file.or_else(|| settings.tokens_credential.clone().map(Self::Secret))
    }

    fn marks(&self) -> Vec<Option<Mark>> {
        match self {
            Self::File(path) => vec![mark(path)],
            Self::Secret(secret) => secret.marks(),
        }
    }

    fn load(&self) -> Result<Tokens, String> {
        match self {
            Self::File(path) => Tokens::load(path),
            Self::Secret(secret) => Tokens::of(&secret.read()?).map_err(|why| why.replacen("a file", "a secret", 1)),
        }
    }
}

impl std::fmt::Display for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "`tokens_file` ({})", path.display()),
            Self::Secret(_) => f.write_str("`tokens_credential`"),
        }
    }
}

/// The tokens of one feed, with the file (or the secret) looked after.
#[derive(Debug)]
pub struct TokensFile {
    lines: Lines,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    tokens: Arc<Tokens>,
    read_from: Vec<Option<Mark>>,
    failed: bool,
}

impl TokensFile {
    pub fn open(lines: Lines) -> Result<Self, String> {
        let read_from = lines.marks();
        let tokens = lines.load().map_err(|why| format!("{lines} {why}"))?;
        Ok(Self { lines, current: Mutex::new(Current { tokens: Arc::new(tokens), read_from, failed: false }) })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The changed file could not be used when it was looked at last.
    pub fn has_failed(&self) -> bool {
        self.current().failed
    }

    pub fn owner(&self, token: &str) -> Option<Name> {
        let tokens = Arc::clone(&self.current().tokens);
        tokens.owner(token).cloned()
    }

    /// Reads the file again if it changed. Blocks.
    pub fn look(&self, feed: &FeedId, board: &Board) {
        let now = self.lines.marks();
        if self.current().read_from == now && !self.current().failed {
            return;
        }
        let loaded = self.lines.load();
        let mut current = self.current();
        match loaded {
            Ok(tokens) => {
                *current = Current { tokens: Arc::new(tokens), read_from: now, failed: false };
                drop(current);
                board.clear(Code::FeedTokensInvalid, feed.as_str());
                tracing::info!(%feed, "the tokens file changed and is in use");
            }
            Err(why) => {
                current.failed = true;
                drop(current);
                let text = format!("the changed tokens cannot be used, those read before stay valid: {} {why}", self.lines);
                board.raise(Code::FeedTokensInvalid, feed.as_str(), text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"; // of `test`

    #[test]
    fn a_token_belongs_to_the_name_its_hash_stands_with() {
        let other = "0".repeat(64);
        let tokens = Tokens::parse(&format!("# comment\n\nlab: {TEST}\npump:{other}\r\nlab:{other}\n")).unwrap();
        assert_eq!(tokens.owner("test").map(Name::as_str), Some("lab"));
        assert!(tokens.owner("Test").is_none() && tokens.owner("").is_none());
        assert!(!format!("{tokens:?}").contains(TEST));
        assert!(Tokens::parse(&format!("lab:{}\n", TEST.to_uppercase())).unwrap().owner("test").is_some());
    }

    #[test]
    fn a_file_that_cannot_be_meant_is_refused_without_its_content() {
        for text in ["", "# only\n", "lab", "lab:xyz", "Lab System:00", &format!("lab:{}", &TEST[1..]), TEST] {
            let why = Tokens::parse(text).unwrap_err();
            assert!(!why.contains(TEST) && !why.contains("xyz"), "{why}");
        }
    }

    #[test]
    fn only_the_bearer_scheme_counts() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for other in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }

    #[test]
    fn a_changed_file_is_used_and_a_broken_one_leaves_the_old_in_place() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(&format!("old:{TEST}\n"));
        let feed = FeedId::new("f").unwrap();
        let board = Board::new([feed.clone()]);
        let file = TokensFile::open(Lines::File(path.clone())).unwrap();
        write("broken\n");
        file.look(&feed, &board);
        assert_eq!(board.conditions()[0].code, "feed_tokens_invalid");
        assert_eq!(file.owner("test").as_ref().map(Name::as_str), Some("old"));
        write(&format!("renamed:{TEST}\n"));
        file.look(&feed, &board);
        assert!(board.conditions().is_empty());
        assert_eq!(file.owner("test").as_ref().map(Name::as_str), Some("renamed"));
    }
}
