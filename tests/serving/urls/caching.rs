//! Fetched images in the cache, and what becomes of URLs that fail for good.

use embark_sidecar::pb::client::{
    CacheControl, InvalidateRequest, ItemKeys, OnMiss, Source, invalidate_request::Scope,
};

use super::*;

/// Fetches of one host at a time, as the sidecar has it.
const PER_HOST: usize = 16;
const HELD: &str = "http://good.test/held";

fn no_cache(url: &str) -> EmbedRequest {
    let cache = Some(CacheControl { no_cache: true, ..Default::default() });
    EmbedRequest { cache, ..request(&[url]) }
}

fn on_miss(url: &str, on_miss: OnMiss) -> EmbedRequest {
    EmbedRequest { on_miss: on_miss.into(), ..request(&[url]) }
}

#[test]
fn an_image_is_found_again_by_its_url_and_fetched_again_without_the_cache() {
    network::run(async || {
        let world = World::new(LONG).await;
        let url = "http://good.test/good.png";
        let first = world.ask(url).await.unwrap();
        is_good(&first);
        assert_eq!(first.source(), Source::Computed);
        for spelling in [url, "HTTP://GOOD.test:80/a/../good.png#b"] {
            assert_eq!(world.ask(spelling).await.unwrap().source(), Source::HitMemory);
        }
        assert_eq!(world.web.count("/good.png"), 1);
        assert_eq!(world.call(no_cache(url)).await.unwrap().source(), Source::Computed);
        assert_eq!(world.web.count("/good.png"), 2);
        // The same file by its bytes is another key.
        let bytes = Item { input: Some(Input::Image(png([204, 102, 51]))) };
        let bytes = EmbedRequest { items: vec![bytes], ..EmbedRequest::default() };
        assert_eq!(world.call(bytes).await.unwrap().source(), Source::Computed);
        world.sidecar.stop().await;
    });
}

#[test]
fn many_callers_of_one_url_cost_one_fetch() {
    network::run(async || {
        let world = World::new(LONG).await;
        let mut client = world.sidecar.embeddings().await;
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.embed(request(&[HELD])).await })
            })
            .collect();
        until("it is asked for", async || world.web.count("/held") == 1).await;
        // All are there before it comes: a call that was sent later than them is answered.
        client.embed(request(&["http://good.test/good.png"])).await.unwrap();
        world.web.release();
        let mut computed = 0;
        for caller in callers {
            let result = caller.await.unwrap().unwrap().into_inner().results.remove(0);
            is_good(&result);
            computed += usize::from(result.source() == Source::Computed);
        }
        assert_eq!((computed, world.web.count("/held")), (1, 1));
        world.sidecar.stop().await;
    });
}

#[test]
fn who_asks_without_the_cache_while_it_is_fetched_has_it_fetched_again() {
    network::run(async || {
        let world = World::new(LONG).await;
        let (first, second) = tokio::join!(world.ask(HELD), async {
            until("it is asked for", async || world.web.count("/held") == 1).await;
            let (again, ()) = tokio::join!(world.call(no_cache(HELD)), async {
                until("it is asked for again", async || world.web.count("/held") == 2).await;
                world.web.release();
            });
            again
        });
        is_good(&first.unwrap());
        assert_eq!(second.unwrap().source(), Source::Computed);
        world.sidecar.stop().await;
    });
}

#[test]
fn fetches_of_one_host_are_bounded_and_those_of_others_go_past() {
    network::run(async || {
        let world = World::new(LONG).await;
        world.names.set("other.test", &[PRIVATE]);
        let client = world.sidecar.embeddings().await;
        let calls: Vec<_> = (0..3 * PER_HOST)
            .map(|number| {
                let (mut client, url) = (client.clone(), format!("{HELD}?{number}"));
                tokio::spawn(async move { client.embed(request(&[&url])).await })
            })
            .collect();
        until("as many are fetched as may", async || world.web.under_way().0 == PER_HOST).await;
        is_good(&world.ask("http://other.test/good.png").await.unwrap());
        assert_eq!(world.web.under_way().0, PER_HOST);
        world.web.release();
        for call in calls {
            is_good(&call.await.unwrap().unwrap().into_inner().results[0]);
        }
        // The one of the other host was beside them.
        assert!(world.web.under_way().1 <= PER_HOST + 1, "{:?}", world.web.under_way());
        world.sidecar.stop().await;
    });
}

#[test]
fn the_default_vector_comes_at_once_and_the_image_behind_it() {
    network::run(async || {
        let world = World::with(LONG, |m| m.with("/spec/cache/onMiss", "ReturnDefault")).await;
        let first = world.ask(HELD).await.unwrap();
        assert_eq!((first.source(), first.vector), (Source::Default, vec![0.0; 3]));
        until("it is asked for", async || world.web.count("/held") == 1).await;
        assert_eq!(world.ask(HELD).await.unwrap().source(), Source::Default);
        world.web.release();
        until("it is remembered", async || {
            world.ask(HELD).await.unwrap().source() == Source::HitMemory
        })
        .await;
        is_good(&world.ask(HELD).await.unwrap());
        assert_eq!(world.web.count("/held"), 1);
        world.sidecar.stop().await;
    });
}

#[test]
fn other_ways_to_miss_hold_for_urls_too() {
    network::run(async || {
        let world = World::new(LONG).await;
        let refused = world.call(on_miss(HELD, OnMiss::Fail)).await.unwrap_err();
        refusal::metadata(&refused, Code::NotFound, "MISS");
        assert!(world.web.seen().is_empty());
        let budget = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
        let patient = EmbedRequest { wait_budget: budget, ..on_miss(HELD, OnMiss::Wait) };
        assert_eq!(world.call(patient).await.unwrap().source(), Source::Default);
        world.web.release();
        until("it is remembered", async || world.call(on_miss(HELD, OnMiss::Fail)).await.is_ok())
            .await;
        assert_eq!(world.web.count("/held"), 1);
        world.sidecar.stop().await;
    });
}

#[test]
fn what_nobody_waits_for_any_more_is_not_fetched_to_its_end() {
    network::run(async || {
        let world = World::new(LONG).await;
        let mut client = world.sidecar.embeddings().await;
        let call = tokio::spawn(async move { client.embed(request(&[HELD])).await });
        until("it is asked for", async || world.web.under_way().0 == 1).await;
        call.abort();
        until("the connection has ended", async || world.web.under_way().0 == 0).await;
        until("it is counted", async || {
            world.sidecar.metric("embark_fetches_total", &["outcome=\"given_up\""]).await > 0.5
        })
        .await;
        world.sidecar.stop().await;
    });
}

/// With an hour of memory of what failed.
async fn remembering() -> World {
    World::with(LONG, |manifest| {
        manifest.with("/spec/cache/negativeTTL", "1h").with("/spec/cache/allowInvalidation", true)
    })
    .await
}

#[test]
fn what_failed_for_good_is_not_tried_again_for_as_long_as_it_is_remembered() {
    network::run(async || {
        let world = remembering().await;
        for path in ["/404", "/410", "/html", "/svg-as-bytes", "/chunked"] {
            let url = format!("http://good.test{path}");
            let first = world.ask(&url).await.unwrap_err();
            let again = world.ask(&url).await.unwrap_err();
            assert_eq!((again.code(), again.message()), (first.code(), first.message()));
            assert_eq!(world.web.count(path), 1, "{path}");
        }
        let remembered = world.sidecar.metric("embark_negative_answers_total", &[]).await;
        assert_eq!(remembered.to_string(), "5");
        // By its own place in another request.
        let request = request(&["http://good.test/good.png", "http://good.test/404"]);
        let results = world.sidecar.call(request).await.unwrap().results;
        let message = &results[1].error.as_ref().unwrap().message;
        assert!(message.starts_with("items[1].image_url: "), "{message}");
        // What may pass, and what a URL leads to, is not remembered.
        for path in ["/500", "/to?http://127.0.0.1/"] {
            let url = format!("http://good.test{path}");
            for count in 1..3 {
                world.ask(&url).await.unwrap_err();
                assert_eq!(world.web.count(path), count, "{path}");
            }
        }
        // Nor is what is no image by its bytes tried again.
        let bytes = Item { input: Some(Input::Image(b"no image".to_vec())) };
        let bytes = EmbedRequest { items: vec![bytes], ..EmbedRequest::default() };
        for _ in 0..2 {
            let refused = world.call(bytes.clone()).await.unwrap_err();
            let bad = Code::InvalidArgument;
            refusal::of_field(&refused, bad, "IMAGE_UNDECODABLE", "items[0].image");
        }
        let remembered = world.sidecar.metric("embark_negative_answers_total", &[]).await;
        assert_eq!(remembered.to_string(), "7");
        world.sidecar.stop().await;
    });
}

#[test]
fn without_negative_ttl_everything_is_tried_again() {
    network::run(async || {
        let world = World::new(LONG).await;
        for count in 1..4 {
            world.ask("http://good.test/404").await.unwrap_err();
            assert_eq!(world.web.count("/404"), count);
        }
        world.sidecar.stop().await;
    });
}

#[test]
fn a_caller_may_have_it_tried_again_and_so_may_an_invalidation() {
    network::run(async || {
        let world = remembering().await;
        let url = "http://good.test/404";
        world.ask(url).await.unwrap_err();
        world.call(no_cache(url)).await.unwrap_err();
        assert_eq!(world.web.count("/404"), 2);
        let young = Some(prost_types::Duration::default());
        let cache = Some(CacheControl { max_age: young, ..Default::default() });
        until("it is older than that", async || {
            world.call(EmbedRequest { cache, ..request(&[url]) }).await.unwrap_err();
            world.web.count("/404") == 3
        })
        .await;
        let item = request(&[url]).items;
        for (scope, count) in [(Scope::Items(ItemKeys { items: item }), 4), (Scope::All(true), 5)] {
            let forget = InvalidateRequest { scope: Some(scope), ..Default::default() };
            world.sidecar.cache().await.invalidate(forget).await.unwrap();
            // What is tried within the millisecond of an invalidation is not remembered.
            world.ask(url).await.unwrap_err();
            assert_eq!(world.web.count("/404"), count);
        }
        world.sidecar.stop().await;
    });
}

#[test]
fn a_policy_that_changes_counts_at_once() {
    network::run(async || {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::start().await;
        names.set("good.test", &[PRIVATE]);
        let web = Web::start(answer).await;
        let with = |ttl: &'static str, epoch: u32| {
            move |manifest: Manifest| {
                manifest.with("/spec/cache/negativeTTL", ttl).with("/spec/cache/epoch", epoch)
            }
        };
        let sidecar = Sidecar::start(&options(folder.path(), LONG, with("1h", 0))).await;
        let ask = async || sidecar.call(request(&["http://good.test/404"])).await.unwrap_err();
        ask().await;
        ask().await;
        assert_eq!(web.count("/404"), 1);
        // It is read once a second; until then nothing is asked.
        for (ttl, epoch) in [("0s", 0), ("1h", 1)] {
            let applied = sidecar.metric("embark_policy_reloads_total", &["applied"]).await;
            options(folder.path(), LONG, with(ttl, epoch));
            until("it is followed", async || {
                sidecar.metric("embark_policy_reloads_total", &["applied"]).await > applied + 0.5
            })
            .await;
            ask().await;
        }
        assert_eq!(web.count("/404"), 3, "switched off, and then of another epoch");
        ask().await;
        assert_eq!(web.count("/404"), 3);
        sidecar.stop().await;
    });
}

#[test]
fn who_takes_the_default_vector_takes_it_of_what_failed_too() {
    network::run(async || {
        let world = remembering().await;
        let url = "http://good.test/404";
        let default = || world.call(on_miss(url, OnMiss::Default));
        assert_eq!(default().await.unwrap().source(), Source::Default);
        until("it has failed", async || {
            let failed = world.call(on_miss(url, OnMiss::Fail)).await.unwrap_err();
            failed.message().contains("404")
        })
        .await;
        assert_eq!(default().await.unwrap().source(), Source::Default);
        world.ask(url).await.unwrap_err();
        assert_eq!(world.web.count("/404"), 1);
        world.sidecar.stop().await;
    });
}
