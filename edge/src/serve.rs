//! Workers and listeners: one thread with its own event loop, its own listeners and its own
//! connection to Redis for each processor, so that a decision never changes threads.

mod connections;
mod grpc;
mod listen;
mod stall;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use axum::http::Uri;
use futures_util::join;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use self::listen::{check_apart, check_free, connections, listen};
use crate::adaptive::Loops;
use crate::admin;
use crate::background::Background;
use crate::config::Config;
use crate::http::proxy::Upstream;
use crate::http::{self, App, Front, Proxy};
use crate::redis::Redis;
use crate::reload;
use crate::rls::calls::Calls;
use crate::seat::Seats;
use crate::service::Service;

/// Connections to the address for operators, at most.
const OPS_CONNECTIONS: usize = 256;

/// How long the collector of traces may take, when the service ends.
const LAST_TRACES: Duration = Duration::from_secs(1);

/// Where one worker lets connections in.
struct Door {
    http: TcpListener,
    grpc: TcpListener,
    ops: Option<TcpListener>,
    proxy: Option<(TcpListener, Upstream)>,
    rooms: Rooms,
}

/// How many connections each address has, over all workers: a flood of one leaves the others usable.
#[derive(Clone)]
struct Rooms {
    http: Arc<Seats>,
    grpc: Arc<Seats>,
    ops: Arc<Seats>,
    proxy: Arc<Seats>,
}

/// Serves until SIGTERM or SIGINT, and lets open requests end.
///
/// # Errors
/// When an address cannot be listened on, or no event loop can be made.
pub fn serve(service: Service) -> io::Result<()> {
    let service = Arc::new(service);
    let workers = match service.config.workers {
        // The other processors are for Redis and for whoever asks. The fewer workers, the more of
        // what comes in shares a turn of an event loop, and a write to Redis.
        0 => thread::available_parallelism()?.get().div_ceil(2),
        count => count,
    };
    let config = &service.config;
    let (http, grpc, ops) = (config.http_addr, config.grpc_addr, config.ops_addr);
    let upstream = config.proxy_addr.zip(config.upstream.as_ref());
    let mut own = vec![("HTTP_ADDR", http), ("GRPC_ADDR", grpc), ("OPS_ADDR", ops)];
    own.extend(config.proxy_addr.map(|address| ("PROXY_ADDR", address)));
    check_apart(&own)?;
    for (_, address) in own {
        check_free(address)?;
    }
    let background = Background::new(Arc::clone(&service)).map_err(io::Error::other)?;
    let loops = Loops::new(Arc::clone(&service)).map_err(io::Error::other)?;
    let runtime = runtime()?;
    // Before anybody can see that the service is there, and end it.
    let signals = {
        let _context = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        )
    };
    let room = |most| Arc::new(Seats::new(most));
    let most = connections(config.max_connections, addresses(config));
    let rooms =
        Rooms { http: room(most), grpc: room(most), ops: room(OPS_CONNECTIONS), proxy: room(most) };
    let threads: Vec<thread::JoinHandle<io::Result<()>>> = (0..workers)
        .map(|index| {
            let service = Arc::clone(&service);
            let redis = Redis::new(&service.config, Arc::clone(&service.health))
                .map_err(io::Error::other)?;
            let app = App::new(service, redis);
            let door = Door {
                http: listen(http)?,
                grpc: listen(grpc)?,
                ops: (index == 0).then(|| listen(ops)).transpose()?,
                proxy: upstream.map(|(address, uri)| door_of_proxy(address, uri)).transpose()?,
                rooms: rooms.clone(),
            };
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || work(app, door))
        })
        .collect::<io::Result<_>>()?;
    // On this thread, which decides nothing.
    let (stop, stopped) = oneshot::channel();
    let exporter = service.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
    let export = exporter.map(|exporter| runtime.spawn(exporter.run(stopped)));
    let background = runtime.spawn({
        let end = EndsAll(Arc::clone(&service));
        async move {
            background.run().await;
            drop(end);
        }
    });
    let loops = runtime.spawn({
        let end = EndsAll(Arc::clone(&service));
        async move {
            loops.run().await;
            drop(end);
        }
    });
    let ended = runtime.block_on(async {
        wait_for_end(&service, signals).await;
        // They end with the service, or have broken off before.
        join!(background, loops)
    });
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a worker panicked"))??;
    }
    if let Some(export) = export {
        let _ = stop.send(());
        // What the collector has not taken by then is lost.
        let _ = runtime.block_on(async { timeout(LAST_TRACES, export).await });
    }
    match ended {
        (Ok(()), Ok(())) => Ok(()),
        _ => Err(io::Error::other("what runs in the background panicked")),
    }
}

/// How many sockets may be open for each connection that is let in: those of both addresses, and of
/// what is handed on both of the client's and of the backend's.
fn addresses(config: &Config) -> u64 {
    if config.proxy_addr.is_some() { 4 } else { 2 }
}

fn door_of_proxy(address: SocketAddr, uri: &Uri) -> io::Result<(TcpListener, Upstream)> {
    Ok((listen(address)?, Upstream::new(uri).map_err(io::Error::other)?))
}

fn runtime() -> io::Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Waits for a signal to end, and passes it on. After SIGTERM the service says that it ends
/// before it begins to: whoever sends it requests needs time to notice.
async fn wait_for_end(
    service: &Service,
    (mut terminate, mut interrupt, hangup): (Signal, Signal, Signal),
) {
    tokio::select! {
        _ = terminate.recv() => {
            service.end();
            tokio::select! {
                () = sleep(service.config.drain_notice.min(service.config.drain)) => {}
                _ = interrupt.recv() => {}
                () = service.draining() => {}
            }
        }
        _ = interrupt.recv() => {}
        () = service.draining() => {}
        never = reload::watch(service, hangup) => match never {},
    }
    service.drain();
}

/// One worker's life.
fn work(app: App, door: Door) -> io::Result<()> {
    let _end = EndsAll(Arc::clone(&app.service));
    runtime()?.block_on(serve_all(app, door))
}

/// Ends all when one worker cannot go on, even if it panics, rather than leave its share of
/// the work alone.
struct EndsAll(Arc<Service>);

impl Drop for EndsAll {
    fn drop(&mut self) {
        self.0.drain();
    }
}

async fn serve_all(app: App, door: Door) -> io::Result<()> {
    app.redis.connect();
    let server = || connections::server(app.service.config.client_timeout);
    let ops = async {
        match door.ops {
            Some(ops) => {
                let pages = admin::routes(&app).map_err(io::Error::other)?;
                let handler = TowerToHyperService::new(http::ops::router(app.clone(), pages));
                let service = Arc::clone(&app.service);
                connections::serve(ops, server(), handler, door.rooms.ops, service).await
            }
            None => Ok(()),
        }
    };
    let grpc = async {
        let calls = Calls::new(Arc::clone(&app.service), app.redis.clone())?;
        grpc::serve(door.grpc, calls, door.rooms.grpc, &app.service).await
    };
    let front = Front::new(app.clone());
    let handler = service_fn(move |request| front.clone().answer(request));
    let service = Arc::clone(&app.service);
    let http = connections::serve(door.http, server(), handler, door.rooms.http, service);
    let proxy = async {
        let Some((listener, upstream)) = door.proxy else { return Ok(()) };
        let proxy = Proxy::new(app.clone(), upstream);
        let handler = service_fn(move |request| proxy.clone().answer(request));
        // On HTTP/2 a client that takes nothing of an answer lets no write wait, and would keep its
        // places in flight.
        let server = server().http1_only();
        connections::serve(listener, server, handler, door.rooms.proxy, Arc::clone(&app.service))
            .await
    };
    let served = tokio::try_join!(http, grpc, ops, proxy).map(|_| ());
    app.redis.end().await;
    served
}
