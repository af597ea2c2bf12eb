//! Answers against those of a model that keeps no more than a vector a key: one caller, any policy, any wish, any time.

use std::sync::atomic::{AtomicU64, Ordering};

use embark_crds::contract::CachePolicy;
use proptest::prelude::*;
use tokio::runtime::Builder;

use super::*;

/// A clock that the test turns.
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Ask {
        value: f32,
        wishes: Wishes,
    },
    /// Everything made so long ago, or longer, is forgotten.
    ForgetAll {
        ago: u64,
    },
    Forget {
        value: f32,
        ago: u64,
    },
    RaiseEpoch,
    Policy {
        ttl: u64,
        stale: u64,
        on_miss: OnMiss,
    },
}

fn values() -> impl Strategy<Value = f32> {
    (2_u8..5).prop_map(f32::from)
}

fn on_miss() -> impl Strategy<Value = OnMiss> {
    prop_oneof![3 => Just(OnMiss::Wait), 2 => Just(OnMiss::ReturnDefault), 1 => Just(OnMiss::Fail)]
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let max_age = prop::option::weighted(0.3, (0_u64..2_000).prop_map(Duration::from_millis));
    let flags = [0.15, 0.15, 0.15].map(prop::bool::weighted);
    (prop::option::weighted(0.4, on_miss()), flags, max_age, any::<bool>()).prop_map(
        |(on_miss, [no_cache, no_store, only], max_age, is_bulk)| Wishes {
            on_miss,
            wait_budget: None,
            // Nobody may ask for both.
            cache: CacheControl { no_cache, no_store, only_if_cached: only && !no_cache, max_age },
            class: if is_bulk { Class::Background } else { Class::Waiting },
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let policy = (0_u64..3_000, 0_u64..2_000, on_miss());
    let step = prop_oneof![
        4 => (1_u64..1_500).prop_map(Step::Pass),
        12 => (values(), wishes()).prop_map(|(value, wishes)| Step::Ask { value, wishes }),
        1 => (0_u64..2_000).prop_map(|ago| Step::ForgetAll { ago }),
        1 => (values(), 0_u64..2_000).prop_map(|(value, ago)| Step::Forget { value, ago }),
        1 => Just(Step::RaiseEpoch),
        2 => policy.prop_map(|(ttl, stale, on_miss)| Step::Policy { ttl, stale, on_miss }),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a caller gets: where it is from, and the number of the run that computed it.
type Answer = Result<(Source, Option<u32>), ErrorKind>;

/// What is known of the vectors.
struct Naive {
    policy: CachePolicy,
    /// By an item's bits: the run that its vector is of, and when that was.
    kept: BTreeMap<u32, (u32, u64)>,
    runs: u32,
}

impl Naive {
    fn forget(&mut self, is_it: impl Fn(u32, u64) -> bool) {
        self.kept.retain(|value, (_, created_ms)| !is_it(*value, *created_ms));
    }

    fn compute(&mut self, value: f32, stores: bool, now_ms: u64) -> u32 {
        self.runs += 1;
        if stores {
            self.kept.insert(value.to_bits(), (self.runs, now_ms));
        }
        self.runs
    }

    fn ask(&mut self, value: f32, wishes: Wishes, now_ms: u64) -> Answer {
        let CacheControl { no_cache, no_store, only_if_cached, max_age } = wishes.cache;
        let on_miss = wishes.on_miss.unwrap_or(self.policy.on_miss);
        let on_miss = if only_if_cached { OnMiss::Fail } else { on_miss };
        let age = |created_ms: u64| Duration::from_millis(now_ms - created_ms);
        let last = self.policy.ttl + self.policy.stale_while_revalidate;
        let kept = self.kept.get(&value.to_bits()).copied().filter(|(_, created_ms)| {
            let age = age(*created_ms);
            !no_cache && age < last && max_age.is_none_or(|max_age| age <= max_age)
        });
        if let Some((run, created_ms)) = kept {
            let is_stale = age(created_ms) >= self.policy.ttl;
            if is_stale && !no_store && on_miss != OnMiss::Fail {
                self.compute(value, true, now_ms);
            }
            let source = if is_stale { Source::Stale } else { Source::HitMemory };
            return Ok((source, Some(run)));
        }
        match on_miss {
            OnMiss::Fail => Err(ErrorKind::Miss),
            OnMiss::Wait => Ok((Source::Computed, Some(self.compute(value, !no_store, now_ms)))),
            OnMiss::ReturnDefault => {
                if !no_store {
                    self.compute(value, true, now_ms);
                }
                Ok((Source::Default, None))
            }
        }
    }
}

/// A sidecar's use case beside its model.
struct Pair {
    fixture: Fixture,
    hands: Arc<Hands>,
    naive: Naive,
}

impl Pair {
    async fn new() -> Self {
        let hands = Arc::new(Hands(AtomicU64::new(1_000_000)));
        let mut contract = contract(CacheMode::Memory);
        contract.policy.ttl_jitter_percent = 0;
        let naive = Naive { policy: contract.policy.clone(), kept: BTreeMap::new(), runs: 0 };
        let unused = Path::new("unused");
        let fixture = Fixture::with_clock(contract, unused, hands.clone()).await;
        Pair { fixture, hands, naive }
    }

    async fn step(&mut self, step: Step) {
        let now_ms = self.hands.now_ms();
        let cache = &self.fixture.runtime().cache;
        match step {
            Step::Pass(time) => self.pass(time),
            Step::Ask { value, wishes } => self.ask(value, wishes).await,
            Step::ForgetAll { ago } => {
                let before_ms = now_ms - ago;
                cache.invalidate_all(before_ms).await.expect("it holds");
                self.naive.forget(|_, created_ms| created_ms <= before_ms);
                self.pass(1);
            }
            Step::Forget { value, ago } => {
                let before_ms = now_ms - ago;
                let key = CacheKey::of_input(&self.fixture.model.space, "", &input(value));
                cache.invalidate_items(vec![key], before_ms).await.expect("it holds");
                let bits = value.to_bits();
                self.naive.forget(|kept, created_ms| kept == bits && created_ms <= before_ms);
                self.pass(1);
            }
            Step::RaiseEpoch => {
                self.naive.policy.epoch += 1;
                self.fixture.model.follow(self.naive.policy.clone()).await;
                self.naive.forget(|_, _| true);
            }
            Step::Policy { ttl, stale, on_miss } => {
                self.naive.policy.ttl = Duration::from_millis(ttl);
                self.naive.policy.stale_while_revalidate = Duration::from_millis(stale);
                self.naive.policy.on_miss = on_miss;
                self.fixture.model.follow(self.naive.policy.clone()).await;
            }
        }
    }

    fn pass(&self, time: u64) {
        self.hands.0.fetch_add(time, Ordering::SeqCst);
    }

    async fn ask(&mut self, value: f32, wishes: Wishes) {
        let reply = self.fixture.call(&[value], wishes).await.expect("a reply");
        let found = reply.items.into_iter().next().expect("an item");
        let found = found.map_err(|error| error.kind).map(|item| {
            let mut values = item.vector.values();
            let (first, run) = (values.next().expect("a value"), values.next().expect("a run"));
            let is_default = item.source == Source::Default;
            assert_eq!(first, if is_default { 0.0 } else { value });
            // Numbers of runs are whole and small.
            (
                item.source,
                (!is_default)
                    .then(|| (0_u32..).find(|n| f64::from(*n) == f64::from(run)).expect("it")),
            )
        });
        self.fixture.settled().await;
        let expected = self.naive.ask(value, wishes, self.hands.now_ms());
        assert_eq!(found, expected, "{value} {wishes:?}");
        assert_eq!(self.fixture.gate.begun(), self.naive.runs, "computed for nobody, or not");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn answers_equal_those_of_a_model_of_one_vector_a_key(steps in steps()) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            for step in steps {
                pair.step(step).await;
            }
        });
    }
}
