//! The cache against a model of it that forgets no rule and judges everything anew: random fills, invalidations, epochs,
//! policies and times.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::*;

/// Keys that there are.
const KEYS: u64 = 5;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Time goes on.
    Pass(u64),
    /// A computation begins, and ends at once.
    Fill(u64),
    /// A computation begins.
    Begin(u64),
    /// One that had begun ends.
    End(usize),
    /// Everything made so long ago, or longer, is forgotten.
    ForgetAll { ago: u64 },
    /// Some keys' entries are.
    Forget { keys: BTreeSet<u64>, ago: u64 },
    /// Another epoch is asked for: a higher one, or the first.
    Epoch { is_higher: bool },
    /// Other ages count.
    Policy { ttl: u64, jitter: u8, stale: u64 },
    /// Somebody looks a key up.
    LookUp(u64),
    /// The process ends in order, and another begins.
    Restart,
}

fn steps(restarts: u32) -> impl Strategy<Value = Vec<Step>> {
    let keys = prop::collection::btree_set(0..KEYS, 1..3);
    let policy = (0_u64..3_000, prop_oneof![Just(0_u8), Just(10), Just(100)], 0_u64..2_000);
    let step = prop_oneof![
        6 => (1_u64..1_500).prop_map(Step::Pass),
        8 => (0..KEYS).prop_map(Step::Fill),
        3 => (0..KEYS).prop_map(Step::Begin),
        3 => any::<usize>().prop_map(Step::End),
        1 => (0_u64..2_000).prop_map(|ago| Step::ForgetAll { ago }),
        2 => (keys, 0_u64..2_000).prop_map(|(keys, ago)| Step::Forget { keys, ago }),
        1 => prop::bool::weighted(0.7).prop_map(|is_higher| Step::Epoch { is_higher }),
        1 => policy.prop_map(|(ttl, jitter, stale)| Step::Policy { ttl, jitter, stale }),
        16 => (0..KEYS).prop_map(Step::LookUp),
        restarts => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

/// What was computed.
#[derive(Clone, Copy, Debug)]
struct Filled {
    key: u64,
    created_ms: u64,
    epoch: u64,
    value: u64,
    /// Whether it is in memory, and on disk: a restart loses the one, and a rule on its key the other, whatever its age.
    tiers: [bool; 2],
}

/// What is known of a cache, and nothing thrown away.
#[derive(Default)]
struct Naive {
    filled: Vec<Filled>,
    /// Keys, or all, and the time until which their entries do not count.
    rules: Vec<(Option<BTreeSet<u64>>, u64)>,
    epoch: u64,
}

impl Naive {
    fn counts(&self, entry: &Filled) -> bool {
        let covers = |(keys, before_ms): &(Option<BTreeSet<u64>>, u64)| {
            keys.as_ref().is_none_or(|keys| keys.contains(&entry.key))
                && entry.created_ms <= *before_ms
        };
        entry.epoch == self.epoch && !self.rules.iter().any(covers)
    }

    fn fill(&mut self, entry: Filled) {
        if self.counts(&entry) {
            self.filled.push(entry);
        }
    }

    /// A tier loses the entries of some keys.
    fn lose(&mut self, tier: Tier, keys: impl Fn(u64) -> bool) {
        for entry in self.filled.iter_mut().filter(|entry| keys(entry.key)) {
            entry.tiers[tier as usize] = false;
        }
    }

    /// What was filled last, its age, and whether it is stale; unless it is too old, or does not count.
    fn look_up(
        &mut self,
        number: u64,
        policy: &CachePolicy,
        now_ms: u64,
    ) -> Option<(u64, u64, bool)> {
        let at = self.filled.iter().rposition(|entry| entry.key == number)?;
        let last = &self.filled[at];
        let age = now_ms - last.created_ms;
        let jitter = f64::from(policy.ttl_jitter_percent) / 100.0 * key(number).unit();
        let lifetime = milliseconds(policy.ttl) * (1.0 - jitter);
        let is_stale = age as f64 >= lifetime.floor();
        let is_over = age as f64 >= lifetime.floor() + milliseconds(policy.stale_while_revalidate);
        if !self.counts(last) || is_over || last.tiers == [false; 2] {
            return None;
        }
        let found = (last.value, age, is_stale);
        self.filled[at].tiers[Tier::Memory as usize] = true;
        Some(found)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// A cache beside its model.
struct Pair {
    bench: Bench,
    mode: CacheMode,
    policy: Arc<LivePolicy>,
    cache: Arc<Cache>,
    naive: Naive,
    /// Computations under way.
    under_way: Vec<(Operation, u64)>,
    /// Computations so far; each brings another vector.
    computed: u64,
}

impl Pair {
    async fn new(mode: CacheMode) -> Self {
        let (bench, policy) = (Bench::new(), live());
        let cache = Self::open(&bench, mode, &policy).await;
        let naive = Naive::default();
        Pair { bench, mode, policy, cache, naive, under_way: Vec::new(), computed: 0 }
    }

    async fn open(bench: &Bench, mode: CacheMode, policy: &Arc<LivePolicy>) -> Arc<Cache> {
        let storage = CacheStorage { mode, memory_bytes: 1 << 20, disk_bytes: 64 << 20 };
        let config = CacheConfig { storage, dimensions: DIMENSIONS, folder: bench.folder() };
        let (policy, clock) = (Arc::clone(policy), bench.clock.clone());
        Cache::open(config, policy, clock, CacheMetrics::default()).await
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Pass(time) => self.pass(time),
            Step::Fill(key) => {
                let operation = self.cache.begin();
                self.end(operation, key);
            }
            Step::Begin(key) => self.under_way.push((self.cache.begin(), key)),
            Step::End(number) => {
                if !self.under_way.is_empty() {
                    let at = number % self.under_way.len();
                    let (operation, key) = self.under_way.swap_remove(at);
                    self.end(operation, key);
                }
            }
            Step::ForgetAll { ago } => {
                let before_ms = self.bench.clock.now_ms() - ago;
                self.cache.invalidate_all(before_ms).await.expect("it holds");
                self.naive.rules.push((None, before_ms));
                self.pass(1);
            }
            Step::Forget { keys, ago } => {
                let before_ms = self.bench.clock.now_ms() - ago;
                let numbers = keys.iter().copied().map(key).collect();
                // So that it is known what the rules take the place of.
                assert!(self.cache.flush(SOON).await);
                self.naive.lose(Tier::Disk, |key| keys.contains(&key));
                self.cache.invalidate_items(numbers, before_ms).await.expect("it holds");
                self.naive.rules.push((Some(keys), before_ms));
                self.pass(1);
            }
            Step::Epoch { is_higher } => self.ask_for_epoch(is_higher).await,
            Step::Policy { ttl, jitter, stale } => {
                let of = Duration::from_millis;
                let ages = CachePolicy {
                    ttl: of(ttl),
                    ttl_jitter_percent: jitter,
                    stale_while_revalidate: of(stale),
                    ..self.policy.load().cache.clone()
                };
                self.policy.replace(ages);
            }
            Step::LookUp(number) => self.look_up(number).await,
            Step::Restart => {
                self.under_way.clear();
                self.naive.lose(Tier::Memory, |_| true);
                assert!(self.cache.close(SOON).await);
                self.cache = Self::open(&self.bench, self.mode, &self.policy).await;
            }
        }
    }

    fn pass(&self, time: u64) {
        self.bench.clock.turn_to(self.bench.clock.now_ms() + time);
    }

    fn end(&mut self, operation: Operation, number: u64) {
        self.computed += 1;
        let entry = operation.entry(&embedding(self.computed));
        self.naive.fill(Filled {
            key: number,
            created_ms: entry.created_ms,
            epoch: entry.epoch,
            value: self.computed,
            tiers: [true, self.mode == CacheMode::MemoryAndDisk],
        });
        self.cache.fill(&operation, key(number), entry);
    }

    async fn ask_for_epoch(&mut self, is_higher: bool) {
        let epoch = if is_higher { self.naive.epoch + 1 } else { 0 };
        self.cache.raise_epoch(epoch).await.expect("it holds");
        self.policy.replace(CachePolicy { epoch, ..self.policy.load().cache.clone() });
        self.naive.epoch = self.naive.epoch.max(epoch);
    }

    async fn look_up(&mut self, number: u64) {
        let mut hit = memory(&self.cache, number);
        if hit.is_none() && self.mode == CacheMode::MemoryAndDisk {
            assert!(self.cache.flush(SOON).await);
            hit = disk(&self.cache, number);
        }
        let found = hit.map(|hit| {
            let value = hit.entry.vector.values().next().expect("a value");
            (value, hit.age_ms, hit.is_stale)
        });
        let policy = &self.policy.load().cache;
        let expected = self.naive.look_up(number, policy, self.bench.clock.now_ms());
        let expected = expected.map(|(value, age_ms, is_stale)| (value as f32, age_ms, is_stale));
        assert_eq!(found, expected, "key {number}");
    }
}

/// Lets both live, and looks at every key in the end.
fn equal(mode: CacheMode, steps: Vec<Step>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::new(mode).await;
        for step in steps {
            pair.step(step).await;
        }
        for number in 0..KEYS {
            pair.look_up(number).await;
        }
        pair.under_way.clear();
        // No rule on items outlives what it is kept for.
        let rules = &pair.cache.memory.rules;
        while rules.items() > 0 {
            drop(pair.cache.begin());
        }
        assert!(pair.cache.close(SOON).await);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn lookups_in_memory_equal_those_of_a_model_that_forgets_no_rule(steps in steps(0)) {
        equal(CacheMode::Memory, steps);
    }
}

proptest! {
    // Files are slow.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn lookups_in_both_tiers_and_after_restarts_equal_those_of_the_model(steps in steps(2)) {
        equal(CacheMode::MemoryAndDisk, steps);
    }
}
