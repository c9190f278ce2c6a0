//! HTTP: bodies that hold the lease, keys and statuses.

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

/// A body with the given frames.
#[derive(Clone, Debug, Default)]
struct ScriptedBody(VecDeque<BodyFrame>);

#[derive(Clone, Debug)]
enum BodyFrame {
    Bytes,
    Trailers(&'static str),
    Error,
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(|frame| match frame {
            BodyFrame::Bytes => Ok(Frame::data(Bytes::from_static(b"bytes"))),
            BodyFrame::Trailers(status) => {
                let status = status.parse().expect("a value");
                let name = HeaderName::from_static("grpc-status");
                Ok(Frame::trailers(HeaderMap::from_iter([(name, status)])))
            }
            BodyFrame::Error => Err(io::ErrorKind::BrokenPipe.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads `count` frames of a body; returns the load before the body is dropped, and the outcomes
/// after it.
async fn read(frames: &[BodyFrame], count: usize) -> (u32, OutcomeCounts) {
    let set = BackendSet::new();
    let body = ScriptedBody(frames.to_vec().into());
    let instance = service_fn(move |_: Request<()>| {
        let body = body.clone();
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    set.insert(Spec::new("a", instance)).expect("a new name");
    let service = Balance::new(
        Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set"),
    );
    let service = service.classify(GrpcStatusClassifier).until_body_end();
    let response = service.oneshot(Request::new(())).await.expect("ready");
    let mut body = response.into_body();
    for _ in 0..count {
        let _ = body.frame().await;
    }
    let during = load(&set);
    drop(body);
    assert_eq!(load(&set), 0);
    (during, set.snapshot().backends()[0].outcomes())
}

#[tokio::test]
async fn the_lease_ends_with_the_last_byte_of_the_body() {
    use BodyFrame::{Bytes, Error, Trailers};
    let counts = |outcomes: OutcomeCounts| (outcomes.ok, outcomes.failures(), outcomes.cancelled);
    for (frames, count, expected_load, expected_counts) in [
        (&[][..], 0, 0, (1, 0, 0)),
        (&[Bytes, Bytes], 0, 1, (0, 0, 1)),
        (&[Bytes, Bytes], 1, 1, (0, 0, 1)),
        (&[Bytes, Bytes], 2, 0, (1, 0, 0)),
        (&[Bytes, Trailers("0")], 2, 0, (1, 0, 0)),
        (&[Bytes, Trailers("14")], 2, 0, (0, 1, 0)),
        (&[Bytes, Trailers("5")], 2, 0, (1, 0, 0)),
        (&[Bytes, Error, Bytes], 2, 0, (0, 1, 0)),
    ] {
        let (load, outcomes) = read(frames, count).await;
        let expected = (expected_load, expected_counts);
        assert_eq!((load, counts(outcomes)), expected, "{count} frames of {frames:?}");
    }
}

#[tokio::test]
async fn a_header_is_the_key_and_the_status_decides_the_outcome() {
    let set = BackendSet::new();
    for name in ["a", "b", "c"] {
        let instance = service_fn(move |_: Request<()>| async move {
            let response = Response::builder().status(if name == "a" { 503 } else { 200 });
            Ok::<_, Infallible>(response.body(name).expect("a status"))
        });
        set.insert(Spec::new(name, instance)).expect("a new name");
    }
    let balancer =
        Balancer::new(&set, lvs::scheduler::Maglev::new()).expect("the scheduler accepts any set");
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
