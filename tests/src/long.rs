//! Runs that take as long as they are given, and whose choices can be repeated.

use std::time::Duration;

use tokio::time::Instant;

use crate::Random;

/// Whether there is time for more: `EMBARK_TEST_LONG=1`.
pub fn is_long() -> bool {
    std::env::var_os("EMBARK_TEST_LONG").is_some_and(|value| value == "1")
}

/// How long a run of random deeds lasts: 90 seconds, or ten minutes.
pub fn lasts() -> Duration {
    Duration::from_secs(if is_long() { 600 } else { 90 })
}

/// Choices by `EMBARK_TEST_SEED`, or by a seed that is printed, so that a failure can be repeated.
#[expect(clippy::print_stdout, reason = "what a test prints is shown when it fails")]
pub fn random() -> Random {
    let given = std::env::var("EMBARK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("EMBARK_TEST_SEED={seed}");
    Random::new(seed)
}

/// Blows at something large while small deeds go on: in any order, and each kind once before any comes again.
#[derive(Debug)]
pub struct Blows<T> {
    kinds: Vec<T>,
    left: Vec<T>,
    struck: Vec<T>,
    between: Duration,
    next: Instant,
}

// === impl Blows ===

impl<T: Clone + PartialEq> Blows<T> {
    /// Blows of these kinds, the first one after this time.
    pub fn new(kinds: &[T], between: Duration) -> Self {
        let (left, struck, next) = (Vec::new(), Vec::new(), Instant::now() + between);
        Blows { kinds: kinds.to_vec(), left, struck, between, next }
    }

    /// The blow whose time has come.
    pub fn due(&mut self, random: &mut Random) -> Option<T> {
        if Instant::now() < self.next {
            return None;
        }
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            random.shuffle(&mut self.left);
        }
        self.left.pop()
    }

    /// A blow has come; the next is due when the time between two has passed.
    pub fn came(&mut self, blow: T) {
        self.struck.push(blow);
        self.next = Instant::now() + self.between;
    }

    /// Whether there were as many as there are kinds.
    pub fn are_enough(&self) -> bool {
        self.struck.len() >= self.kinds.len()
    }

    /// The kinds that did not come.
    pub fn missing(&self) -> Vec<T> {
        self.kinds.iter().filter(|kind| !self.struck.contains(kind)).cloned().collect()
    }
}
