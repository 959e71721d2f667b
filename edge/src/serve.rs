//! Workers and listeners: one thread with its own event loop, its own listeners and its own
//! connection to Redis for each processor, so that a decision never changes threads.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::http::{self, App};
use crate::redis::Redis;
use crate::reload;
use crate::rls;
use crate::service::Service;

/// Serves until SIGTERM or SIGINT, and lets open requests end.
///
/// # Errors
/// When an address cannot be listened on, or no event loop can be made.
pub fn serve(service: Service) -> io::Result<()> {
    let service = Arc::new(service);
    let workers = match service.config.workers {
        0 => thread::available_parallelism()?.get(),
        count => count,
    };
    let threads: Vec<thread::JoinHandle<io::Result<()>>> = (0..workers)
        .map(|index| {
            let service = Arc::clone(&service);
            // The address is taken here, so that one that is in use ends the service at once.
            let listener = listen(service.config.http_addr)?;
            let grpc = listen(service.config.grpc_addr)?;
            let ops = (index == 0).then(|| listen(service.config.ops_addr)).transpose()?;
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || work(service, listener, grpc, ops))
        })
        .collect::<io::Result<_>>()?;
    runtime()?.block_on(wait_for_end(&service))?;
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a worker panicked"))??;
    }
    Ok(())
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Waits for a signal to end, and passes it on.
async fn wait_for_end(service: &Service) -> io::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        failed = reload::watch(service) => failed?,
    }
    service.end();
    Ok(())
}

/// A listener that shares its address with those of the other workers.
fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// One worker's life.
fn work(
    service: Arc<Service>,
    http: StdListener,
    grpc: StdListener,
    ops: Option<StdListener>,
) -> io::Result<()> {
    let redis = Redis::new(&service.config).map_err(io::Error::other)?;
    let app = App { service, redis };
    runtime()?.block_on(async {
        let pages = async {
            match ops {
                Some(ops) => accept(ops, http::ops::router(app.clone()), &app.service).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(
            accept(http, http::router(app.clone()), &app.service),
            rls::server::accept(grpc, Arc::clone(&app.service), app.redis.clone()),
            pages,
        )
        .map(|_| ())
    })
}

/// Serves what comes in at `listener` until the service ends, and what is open then for as
/// long as may be.
async fn accept(listener: StdListener, router: Router, service: &Service) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let open = GracefulShutdown::new();
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, most likely: give those that are open time to end.
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = service.ended() => break,
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection broke off");
            }
        });
    }
    if timeout(service.config.drain, open.shutdown()).await.is_err() {
        tracing::warn!("requests were still open at the end of DRAIN");
    }
    Ok(())
}
