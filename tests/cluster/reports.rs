//! What pods say of themselves, and what becomes of it: conditions in their words, a policy that reaches them at once, and no
//! more writes than that takes. A test says itself that a pod runs, and what it answers.

use embark_crds::contract::report::{DiskState, ModelReport, ModelState};
use embark_tests::{
    ApiProxy, Speaker,
    api_proxy::{Call, Verb},
    cluster::{ControlPlane, Namespace},
    operator::{Alone, Operator},
    sidecar::until,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{INSTANCE, MODELS, STATUS, World, lines, name};

const NAME: &str = "quickstart";
/// Which policy a pod is to follow.
const POLICY: &str = "embark.dev/policy-hash";
/// The most characters of a condition's message.
const MESSAGE: usize = 1024;
/// Polls of each pod while all is watched for writes. One that is ready is asked every 15 s.
const POLLS: usize = 6;
/// How often the share of hits is written at most, in seconds.
const HITS_EVERY: u64 = 60;

/// A model whose pods speak.
struct Pool {
    world: World,
    alone: Alone,
    proxy: ApiProxy,
    /// The pods, each with its process.
    pods: Vec<(String, Speaker)>,
    _namespace: Namespace,
}

// === impl Pool ===

impl Pool {
    /// A model with so many pods. Their processes are ready at once, but Kubernetes was not told of that.
    async fn start(prefix: &str, replicas: usize) -> Pool {
        let namespace = ControlPlane::shared().await.namespace(prefix).await;
        let (alone, proxy) = Alone::start_through_proxy(&namespace).await;
        let world = World::of(&namespace).await;
        world.model(NAME, &json!({"replicas": replicas})).await;
        let mut pods = Vec::new();
        for pod in pods_of(&world, NAME, replicas).await {
            pods.push((pod, speaker(&world, NAME).await));
        }
        Pool { world, alone, proxy, pods, _namespace: namespace }
    }

    /// Says that the pods run, and whether Kubernetes finds them ready.
    async fn run(&self, are_ready: bool) {
        for (pod, speaker) in &self.pods {
            run(&self.world, pod, (speaker, are_ready)).await;
        }
    }

    /// Waits until a condition is so, and says so in these words; empty: in any.
    async fn says(&self, type_: &str, [status, reason, message]: [&str; 3]) {
        until(&format!("{type_} is {status}, {reason}: {message}"), async || {
            let found = self.world.condition(NAME, type_).await;
            let is_said = message.is_empty() || found["message"] == message;
            is_said && [&found["status"], &found["reason"]] == [status, reason]
        })
        .await;
    }

    /// The writes to pods since a mark.
    fn touched(&self, mark: usize) -> Vec<Call> {
        let writes = self.proxy.writes(mark, self.world.namespace());
        writes.into_iter().filter(|write| write.is(Verb::Patch, "pods")).collect()
    }
}

#[tokio::test]
async fn changed_policy_is_patched_onto_each_pod_once() {
    let pool = Pool::start("policy", 2).await;
    let world = &pool.world;
    // They are asked most often while they are at work.
    pool.pods.iter().for_each(|(_, pod)| pod.say(|said| said.state = ModelState::Warming));
    pool.run(false).await;
    follow(world, NAME, pool.pods.iter().map(|(_, pod)| pod)).await;
    assert_eq!(lines(&pool.touched(0)), "");
    for (change, ttl) in ["1h", "2h"].into_iter().enumerate() {
        let before = policy(world, NAME).await["desiredHash"].clone();
        world.edit(NAME, &json!({"cache": {"ttl": ttl}})).await;
        until("another policy is wanted", async || {
            let now = policy(world, NAME).await;
            now["desiredHash"] != before && now["podsCurrent"] == 0
        })
        .await;
        let wanted = policy(world, NAME).await["desiredHash"].clone();
        for (pod, _) in &pool.pods {
            until("the pod is told of it", async || {
                world.get("pods", pod).await["metadata"]["annotations"][POLICY] == wanted
            })
            .await;
        }
        // Whatever else the pods say meanwhile, once was enough.
        let (pod, speaker) = &pool.pods[0];
        let mut mark = 0;
        for number in 0..2 {
            mark = pool.proxy.mark();
            let message = format!("policy {change} cannot be read: {number}");
            speaker.say_of_cache(|cache| cache.message = message.clone());
            let words = format!("pod {pod}: {message}");
            pool.says("CacheHealthy", ["False", "PolicyRefused", &words]).await;
        }
        assert_eq!(lines(&pool.touched(mark)), "");
        speaker.say_of_cache(|cache| cache.message.clear());
        follow(world, NAME, pool.pods.iter().map(|(_, pod)| pod)).await;
        pool.says("CacheHealthy", ["True", "Healthy", ""]).await;
        assert_eq!(lines(&pool.touched(mark)), "");
    }
    pool.alone.stop().await;
}

#[tokio::test]
async fn trouble_of_a_cache_is_told_in_the_pods_own_words_and_leaves_the_model_ready() {
    let pool = Pool::start("cache", 1).await;
    let (pod, speaker) = &pool.pods[0];
    let full = "entries cannot be written: No space left on device (os error 28)";
    speaker.say_of_cache(|cache| {
        cache.disk.state = DiskState::Degraded;
        cache.disk.message = full.to_owned();
    });
    pool.run(true).await;
    follow(&pool.world, NAME, [speaker]).await;
    let words = format!("pod {pod}: {full}");
    pool.says("CacheHealthy", ["False", "DiskDegraded", &words]).await;
    pool.says("Ready", ["True", "Serving", ""]).await;
    let refused = "spec.cache.epoch: 1 is lower than 2, which was followed before";
    speaker.say_of_cache(|cache| {
        cache.disk.state = DiskState::Healthy;
        cache.disk.message.clear();
        cache.message = refused.to_owned();
    });
    let words = format!("pod {pod}: {refused}");
    pool.says("CacheHealthy", ["False", "PolicyRefused", &words]).await;
    pool.says("Ready", ["True", "Serving", ""]).await;
    speaker.say_of_cache(|cache| cache.message.clear());
    pool.says("CacheHealthy", ["True", "Healthy", ""]).await;
    pool.alone.stop().await;
}

#[tokio::test]
async fn failed_self_test_is_told_in_the_pods_own_words_cut_and_cleaned() {
    let pool = Pool::start("self-test", 1).await;
    let (pod, speaker) = &pool.pods[0];
    let failed = "spec.selfTest[0]: the cosine is 0.12; it must be at least 0.80";
    speaker.say(|said| {
        said.state = ModelState::Failed;
        said.message = failed.to_owned();
    });
    pool.run(false).await;
    let words = format!("pod {pod}: {failed}");
    for type_ in ["Ready", "ModelVerified"] {
        pool.says(type_, ["False", "ModelFailed", &words]).await;
    }
    until("an event tells of it", async || {
        let events = pool.world.list("events").await;
        events.iter().any(|event| event["reason"] == "ModelFailed" && event["note"] == *words)
    })
    .await;
    let long = format!("\u{1b}[31mno\u{0} such\r\nlayer\u{9}{}", "é".repeat(3 * MESSAGE));
    speaker.say(|said| said.message = long);
    let begin = format!("pod {pod}: [31mno such layer é");
    until("the words are cut", async || {
        let message = pool.world.condition(NAME, "Ready").await["message"].clone();
        message.as_str().is_some_and(|message| message.starts_with(&begin))
    })
    .await;
    for type_ in ["Ready", "ModelVerified"] {
        let message = pool.world.condition(NAME, type_).await["message"].clone();
        let message = message.as_str().unwrap();
        assert_eq!(message.chars().count(), MESSAGE, "{message}");
        assert!(message.ends_with("é…") && !message.contains(char::is_control), "{message}");
    }
    speaker.say(|said| {
        said.state = ModelState::Ready;
        said.message.clear();
    });
    pool.run(true).await;
    follow(&pool.world, NAME, [speaker]).await;
    pool.says("Ready", ["True", "Serving", ""]).await;
    pool.says("ModelVerified", ["True", "Verified", ""]).await;
    pool.alone.stop().await;
}

#[tokio::test]
async fn nothing_is_written_while_pods_that_speak_say_nothing_new_but_hits_now_and_then() {
    // Of its own: it takes time, in which others can have theirs.
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace("speaking").await;
    let (operator, proxy) = Operator::start_through_proxy(&namespace).await;
    let world = World::of(&namespace).await;
    let mut speakers = Vec::new();
    for model in ["steady", "moving"] {
        world.model(model, &json!({})).await;
        let speaker = speaker(&world, model).await;
        speaker.moves(match model {
            "steady" => |said: &mut ModelReport| {
                said.queue.items += 1;
                let cache = said.cache.as_mut().unwrap();
                cache.memory.entries += 1;
                cache.disk.bytes += 1;
                (cache.recent.items, cache.recent.hits) =
                    (cache.memory.entries * 2, cache.memory.entries);
                cache.recent.hit_percent = Some(50);
            },
            _ => |said: &mut ModelReport| {
                let recent = &mut said.cache.as_mut().unwrap().recent;
                recent.items = 100;
                recent.hits = (recent.hits + 1) % 100;
                recent.hit_percent = u8::try_from(recent.hits).ok();
            },
        });
        let pod = pods_of(&world, model, 1).await.remove(0);
        run(&world, &pod, (&speaker, true)).await;
        speakers.push(speaker);
    }
    for model in ["steady", "moving"] {
        until("the model serves, and its hits are told of", async || {
            let told = world.get(MODELS, model).await;
            let ready = world.condition(model, "Ready").await;
            told["status"]["cache"]["hitPercent"].is_number()
                && told["status"]["policy"]["podsCurrent"] == 1
                && ready["reason"] == "Serving"
        })
        .await;
    }
    world.rest(&proxy).await;
    let (mark, began, before) = (proxy.mark(), Instant::now(), versions(&world).await);
    let hits = world.get(MODELS, "moving").await["status"]["cache"]["hitPercent"].clone();
    tokio::join!(speakers[0].is_asked(POLLS), speakers[1].is_asked(POLLS), async {
        until("hits that move are told of", async || {
            world.get(MODELS, "moving").await["status"]["cache"]["hitPercent"] != hits
        })
        .await;
    });
    let (writes, passed) = (proxy.writes(mark, world.namespace()), began.elapsed().as_secs());
    // What was told of just before may be written just after.
    let most = usize::try_from(passed / HITS_EVERY).unwrap() + 2;
    assert!(writes.len() <= most, "in {passed} s: {}", lines(&writes));
    let is_of_hits = |write: &Call| write.resource == STATUS && write.name == "moving";
    assert!(writes.iter().all(is_of_hits), "{}", lines(&writes));
    assert_eq!(versions(&world).await, before);
    operator.stop().await;
}

/// The versions of all that nothing was to be written of: pods, children, and the model whose numbers alone move.
async fn versions(world: &World) -> Vec<Value> {
    let mut all = world.children().await;
    all.extend(world.list("pods").await.into_iter().map(|pod| ("pods", pod)));
    all.push((MODELS, world.get(MODELS, "steady").await));
    let version = |(kind, object): &(&str, Value)| {
        json!([kind, object["metadata"]["name"], object["metadata"]["resourceVersion"]])
    };
    all.iter().map(version).collect()
}

/// The names of a model's pods, once there are so many.
pub(crate) async fn pods_of(world: &World, model: &str, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    until(&format!("{model} has {count} pods"), async || {
        let mut pods = world.list("pods").await;
        pods.retain(|pod| pod["metadata"]["labels"][INSTANCE] == model);
        names = pods.iter().map(|pod| name(pod).to_owned()).collect();
        names.len() == count
    })
    .await;
    names
}

/// A process that serves a model as its spec says.
pub(crate) async fn speaker(world: &World, model: &str) -> Speaker {
    let speaker = Speaker::start(model).await;
    until("the model's space and policy are told", async || {
        let status = world.get(MODELS, model).await["status"].clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (space, policy) = (text(&status["spaceID"]), text(&status["policy"]["desiredHash"]));
        let is_told = !space.is_empty() && !policy.is_empty();
        speaker.say(|said| (said.space_id, said.policy_hash) = (space, policy));
        is_told
    })
    .await;
    speaker
}

/// Says that a pod runs as this process, and whether Kubernetes finds it ready.
pub(crate) async fn run(world: &World, pod: &str, (speaker, is_ready): (&Speaker, bool)) {
    world.merge("pods/status", pod, &speaker.status(is_ready)).await.unwrap();
}

/// Lets pods follow the policy that is wanted, and waits until that is told.
async fn follow<'a>(world: &World, model: &str, pods: impl IntoIterator<Item = &'a Speaker>) {
    let mut count = 0;
    let wanted = policy(world, model).await["desiredHash"].clone();
    let wanted = wanted.as_str().expect("it is told");
    for pod in pods {
        pod.say(|said| said.policy_hash = wanted.to_owned());
        count += 1;
    }
    until("the pods are said to follow", async || {
        let policy = policy(world, model).await;
        policy["podsCurrent"] == count && policy["podsTotal"] == count
    })
    .await;
}

async fn policy(world: &World, model: &str) -> Value {
    world.get(MODELS, model).await["status"]["policy"].clone()
}
