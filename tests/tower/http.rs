//! Bodies that hold the lease, and what their end means.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use lvs::backend::OutcomeCounts;
use lvs::tower::{GrpcStatusClassifier, HeaderKey, HttpStatusClassifier};
use tower::service_fn;

use crate::world::*;

/// A body that says what it is told to.
#[derive(Clone, Debug, Default)]
struct Said(VecDeque<Word>);

#[derive(Clone, Debug)]
enum Word {
    Bytes,
    Trailers(&'static str),
    Error,
}

impl Body for Said {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|word| match word {
            Word::Bytes => Ok(Frame::data(Bytes::from_static(b"bytes"))),
            Word::Trailers(status) => {
                let status = status.parse().expect("a value");
                let name = HeaderName::from_static("grpc-status");
                Ok(Frame::trailers(HeaderMap::from_iter([(name, status)])))
            }
            Word::Error => Err(io::ErrorKind::BrokenPipe.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is counted while the body is read as far as told, and after.
async fn read(words: &[Word], frames: usize) -> (u32, OutcomeCounts) {
    let set = BackendSet::new();
    let said = Said(words.to_vec().into());
    let instance = service_fn(move |_: Request<()>| {
        let said = said.clone();
        async move { Ok::<_, Infallible>(Response::new(said)) }
    });
    set.insert(Spec::new("a", instance)).expect("a new name");
    let service = Balance::new(Balancer::new(&set, RoundRobin).expect("takes any set"));
    let service = service.classify(GrpcStatusClassifier).until_body_end();
    let response = service.oneshot(Request::new(())).await.expect("ready");
    let mut body = response.into_body();
    for _ in 0..frames {
        let _ = body.frame().await;
    }
    let during = load(&set);
    drop(body);
    assert_eq!(load(&set), 0);
    (during, set.snapshot().backends()[0].outcomes())
}

#[tokio::test]
async fn the_lease_lasts_until_the_last_byte() {
    use Word::{Bytes, Error, Trailers};
    let ok = |outcomes: OutcomeCounts| (outcomes.ok, outcomes.failures(), outcomes.cancelled);
    for (words, frames, during, wanted) in [
        (&[][..], 0, 0, (1, 0, 0)),
        (&[Bytes, Bytes], 0, 1, (0, 0, 1)),
        (&[Bytes, Bytes], 1, 1, (0, 0, 1)),
        (&[Bytes, Bytes], 2, 0, (1, 0, 0)),
        (&[Bytes, Trailers("0")], 2, 0, (1, 0, 0)),
        (&[Bytes, Trailers("14")], 2, 0, (0, 1, 0)),
        (&[Bytes, Trailers("5")], 2, 0, (1, 0, 0)),
        (&[Bytes, Error, Bytes], 2, 0, (0, 1, 0)),
    ] {
        let (load, outcomes) = read(words, frames).await;
        assert_eq!((load, ok(outcomes)), (during, wanted), "{words:?} read {frames}");
    }
}

#[tokio::test]
async fn a_header_is_a_key_and_a_status_an_outcome() {
    let set = BackendSet::new();
    for name in ["a", "b", "c"] {
        let instance = service_fn(move |_: Request<()>| async move {
            let response = Response::builder().status(if name == "a" { 503 } else { 200 });
            Ok::<_, Infallible>(response.body(name).expect("a status"))
        });
        set.insert(Spec::new(name, instance)).expect("a new name");
    }
    let balancer = Balancer::new(&set, lvs::scheduler::Maglev::new()).expect("takes any set");
    let service = Balance::new(balancer)
        .key(HeaderKey::new(HeaderName::from_static("x-user")))
        .classify(HttpStatusClassifier);
    let ask = async |user: usize| {
        let request = Request::builder().header("x-user", user).body(()).expect("a request");
        service.clone().oneshot(request).await.expect("ready").into_body()
    };
    let mut failures = 0;
    for user in 0..50 {
        let home = ask(user).await;
        failures += u64::from(home == "a") * 2;
        assert_eq!(ask(user).await, home);
    }
    assert!(failures > 0);
    let snapshot = set.snapshot();
    let outcomes = snapshot.find(&"a".into()).expect("in the set").outcomes();
    assert_eq!((outcomes.failures(), outcomes.ok), (failures, 0));
}
