//! The start of a TCP forwarder on worker threads.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::context::{ForwarderContext, WorkerContext};
use super::forwarder::Forwarder;
use super::listener::{AsyncListener, Listener, SharedListener};
use super::socket_options::bind_shared_listener;
use super::worker::run_worker;
use crate::forward::control::ForwarderControl;
use crate::forward::drain_report::DrainReport;
use crate::forward::error::ForwardError;
use crate::forward::running::{RunningForwarder, run_supervised};
use crate::sys::shared_fd::SharedFd;

impl Forwarder {
    /// Starts to serve: clients are accepted when this returns. The forwarder serves until
    /// [`TcpHandle::shutdown`](super::TcpHandle::shutdown), then closes the listener and waits for the open connections, up to the
    /// deadline given there.
    ///
    /// Connections in the kernel's accept queue are accepted before the listener is closed. A failed accept
    /// never ends the forwarder: after a shortage (no descriptor, no memory) it retries with a delay
    /// that doubles from 10 ms to 1 s.
    ///
    /// Needs no runtime: the worker threads have their own.
    ///
    /// # Errors
    /// [`ForwardError::Setting`] if a setting is out of its range, before a connection is accepted;
    /// [`ForwardError::Listener`] if the system refuses an option of the listener;
    /// [`ForwardError::Worker`] if it refuses the threads.
    pub fn start(self) -> Result<RunningForwarder, ForwardError> {
        let Self { mut listeners, owns_port, workers, config, handle } = self;
        config.options.validate()?;
        let pool = workers.pool()?;
        let listener_error = |source| ForwardError::Listener { source };
        let reservation = pool.reserve_listeners(listeners.len(), owns_port);
        while listeners.len() < reservation.count {
            let Some(address) = handle.address else { break };
            let listener = bind_shared_listener(address).map_err(listener_error)?;
            listeners.push(Listener::Tcp(listener));
        }
        for listener in &listeners {
            if let Listener::Tcp(listener) = listener {
                config
                    .options
                    .socket_options
                    .apply_to_listener(listener)
                    .map_err(listener_error)?;
            }
        }
        let listeners = listeners.into_iter().map(SharedListener::new);
        let listeners = listeners.collect::<io::Result<Vec<_>>>().map_err(listener_error)?;
        let context = ForwarderContext::new(config, Arc::clone(&handle.metrics), handle.address);
        // At least a worker for each thread and for each listener: all listeners are served, and all
        // threads serve.
        let count = pool.threads().max(listeners.len());
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let runtime = pool.runtime(number);
            let index = number % listeners.len();
            let registered = {
                let _guard = runtime.enter();
                listeners[index].register().map_err(listener_error)?
            };
            let context = WorkerContext::new(Arc::clone(&context));
            workers.push((runtime, context, (index, registered)));
        }
        handle.control.set_sockets(listeners.into_iter().map(|listener| listener.socket).collect());
        let control = &handle.control;
        let spawn = |(runtime, context, listener): (&Handle, _, _)| {
            runtime.spawn(run_and_restart_worker(context, listener, Arc::clone(control)))
        };
        let tasks = workers.into_iter().map(spawn).collect();
        Ok(RunningForwarder::new(tasks, Arc::clone(control), reservation))
    }

    /// [Starts](Self::start), and serves until the forwarder has drained after a shutdown.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`RunningForwarder`].
    ///
    /// # Cancel safety
    /// As [`RunningForwarder`].
    pub async fn run(self) -> Result<DrainReport, ForwardError> {
        self.start()?.await
    }
}

async fn run_and_restart_worker(
    context: Arc<WorkerContext>,
    (index, listener): (usize, AsyncListener),
    control: Arc<ForwarderControl>,
) -> DrainReport {
    let kind = listener.kind();
    let register = |socket: SharedFd| AsyncListener::register(&socket, kind);
    let run = |listener| run_worker(Arc::clone(&context), listener, Arc::clone(&control));
    run_supervised(&context.config().name, &control, (index, listener), register, run).await
}
