//! A director that a program describes in Rust, with a scheduler, a check and a callback of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lvs::backend::Members;
use lvs::director::{
    AdminConfig, ChangeOrigin, CheckConfig, Director, DirectorConfig, DirectorConfigBuilder,
    DirectorEvent, DirectorEvents, RealServer, SchedulerConfig, ServerChange, ServiceConfig,
    ServiceConfigBuilder, VrrpConfig,
};
use lvs::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};
use lvs::scheduler::{CompileError, PickContext, Picker, Scheduler};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::drop::until;
use crate::{ANY, ask, listens, server};

/// Selects the newest usable member.
#[derive(Debug)]
struct Newest;

#[derive(Debug)]
struct NewestPicker;

impl Scheduler for Newest {
    fn name(&self) -> &str {
        "newest"
    }

    fn compile(
        &self,
        _members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(NewestPicker))
    }
}

impl Picker for NewestPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        (0..cx.members().len()).find(|&position| cx.is_usable(position))
    }
}

/// Passes for the servers of a list.
#[derive(Debug)]
struct Listed(BTreeSet<SocketAddr>, Arc<AtomicU64>);

impl Check for Listed {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        self.1.fetch_add(1, Ordering::Relaxed);
        match self.0.contains(&context.address()) {
            true => Ok(CheckReport::up()),
            false => Err(CheckFailure::new(CheckFailureKind::Mismatch, "not on the list")),
        }
    }
}

fn around(service: ServiceConfigBuilder) -> DirectorConfigBuilder {
    DirectorConfig::builder().workers(1).admin(AdminConfig::builder(ANY)).service(service)
}

/// Reads events until there is one of this kind.
async fn find(
    events: &mut DirectorEvents,
    is_wanted: impl Fn(&DirectorEvent) -> bool,
) -> DirectorEvent {
    loop {
        let event = events.next().await.expect("the director runs").expect("few events");
        if is_wanted(&event) {
            return event;
        }
    }
}

#[tokio::test]
async fn a_program_embeds_a_director() {
    let servers = [server(b'a').await, server(b'b').await, server(b'c').await];
    let checks = Arc::new(AtomicU64::new(0));
    // The newest server is on no list.
    let listed = Listed(servers[..2].iter().copied().collect(), Arc::clone(&checks));
    let (ended, mut records) = mpsc::unbounded_channel();
    let web = ServiceConfig::tcp("web")
        .listen(ANY)
        .scheduler(SchedulerConfig::custom(Newest))
        .health(CheckConfig::custom(listed).interval(Duration::from_millis(20)))
        .on_end(move |record| {
            let _ = ended.send(record.backend.as_ref().map(ToString::to_string));
        })
        .server(servers[0])
        .server(RealServer::builder(servers[1]).weight(3))
        .server(servers[2]);
    let config = around(web.clone()).build().expect("valid");
    let director = Director::start(config.clone()).await.expect("it starts");

    let listen = listens(&director);
    let mut events = director.events();
    while director.status().services[0].servers.iter().all(|server| server.state != "down") {
        events.next().await.expect("the director runs").expect("few events");
    }
    assert_eq!(ask(listen).await.expect("served"), b'b', "the newest that its check finds up");
    assert_eq!(records.recv().await.expect("a record"), Some(servers[1].to_string()));
    let status = director.status();
    assert_eq!((&*status.services[0].scheduler, status.services[0].totals.accepted), ("newest", 1));
    assert!(checks.load(Ordering::Relaxed) >= 1);

    // Clones of what the program made are the same: nothing else is replaced.
    assert!(director.reload(config).await.expect("valid").is_unchanged());
    let other = around(web.clone().on_end(|_| {}).server(server(b'd').await));
    let summary = director.reload(other.build().expect("valid")).await.expect("it is applied");
    assert_eq!(summary.to_string(), "service web: updated servers, forwarding");
    let renamed = around(web.scheduler(SchedulerConfig::custom(Newest)));
    let summary = director.reload(renamed.build().expect("valid")).await.expect("it is applied");
    assert_eq!(summary.to_string(), "service web: updated servers, scheduler, forwarding");
    assert_eq!(listens(&director), listen);

    // The events tell of all of it, and end with the director.
    let mut events = director.events();
    director
        .change_server("web", &servers[0].to_string(), ServerChange::new().with_weight(2))
        .expect("the server exists");
    let is_change = |event: &DirectorEvent| match event {
        DirectorEvent::Operator(change) => change.origin == ChangeOrigin::Program,
        _ => false,
    };
    find(&mut events, is_change).await;
    let router = VrrpConfig::builder("no-such-link", 1)
        .addresses(["10.88.0.100/24".parse().expect("an address")]);
    let refused = DirectorConfig::builder().service(ServiceConfig::tcp("web").listen(ANY));
    let refused = refused.vrrp(router).build().expect("valid");
    director.reload(refused).await.expect_err("there is no such interface");
    let event = find(&mut events, |event| matches!(event, DirectorEvent::Reload(_))).await;
    assert!(event.is_alert() && event.to_string().contains("refused"), "{event}");

    let admin = director.admin_address().expect("it has one");
    drop(director);
    while events.next().await.is_some() {}
    for address in [listen, admin] {
        // The director ends in the background.
        let is_closed = async || TcpStream::connect(address).await.is_err();
        until("the listener is closed", is_closed).await;
    }
}

/// Panics when it is compiled.
#[derive(Debug)]
struct Panics;

impl Scheduler for Panics {
    fn name(&self) -> &str {
        "panics"
    }

    fn compile(
        &self,
        _members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        panic!("a fault of the program")
    }
}

#[tokio::test]
async fn a_reload_that_panics_is_an_error_and_the_director_goes_on() {
    let web = ServiceConfig::tcp("web").listen(ANY).server(server(b'a').await);
    let config = around(web.clone()).build().expect("valid");
    let director = Director::start(config.clone()).await.expect("it starts");
    director.set_dropped_log_lines(Arc::new(AtomicU64::new(7)));
    let listen = listens(&director);
    let other = around(web.scheduler(SchedulerConfig::custom(Panics))).build().expect("valid");
    for n in 1..3 {
        let error = director.reload(other.clone()).await.expect_err("it panics");
        assert_eq!(error.to_string(), "the reload panicked: a fault of the program");
        assert_eq!(director.status().task_restarts["reload"], n);
        assert_eq!(ask(listen).await.expect("served"), b'a');
    }
    assert!(director.reload(config).await.expect("valid").is_unchanged());
    let status = director.status();
    assert_eq!((status.dropped_log_lines, status.task_restarts["health monitor"]), (7, 0));
    director.stop(Duration::ZERO).await;
}
