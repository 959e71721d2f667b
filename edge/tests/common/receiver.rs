//! A receiver of notifications, which answers as a test wants it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// A request that a receiver got.
#[derive(Clone, Debug)]
pub struct Got {
    pub path: String,
    pub fields: BTreeMap<String, String>,
    pub body: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver: what it has got, and how it answers.
#[derive(Clone)]
pub struct Receiver {
    pub port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<Answers>>,
}

pub type Answers = Box<dyn FnMut(&Got) -> String + Send>;

impl Receiver {
    pub fn start(answer: impl FnMut(&Got) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            got: Arc::default(),
            answer: Arc::new(Mutex::new(Box::new(answer))),
        };
        let serving = receiver.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = serving.clone();
                // Who is killed breaks off.
                thread::spawn(move || stream.and_then(|stream| serving.serve(stream)));
            }
        });
        receiver
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let fields: BTreeMap<String, String> = lines[1..]
                .iter()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let mut body = vec![0; fields["content-length"].parse().unwrap()];
            stream.read_exact(&mut body)?;
            let path = lines[0].split(' ').nth(1).unwrap().to_owned();
            let got = Got { path, fields, body: String::from_utf8(body).unwrap() };
            let answer = (self.answer.lock().unwrap())(&got);
            self.got.lock().unwrap().push(got);
            stream.get_mut().write_all(answer.as_bytes())?;
        }
    }

    pub fn answer(&self, answer: impl FnMut(&Got) -> String + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// `user item`, or `user`, of each request to a webhook.
    pub fn told(&self) -> Vec<String> {
        let told = |got: &Got| {
            let data = &got.json()["data"];
            let item = data["item_id"].as_str().unwrap_or_default();
            format!("{} {item}", data["user_id"].as_str().unwrap()).trim().to_owned()
        };
        self.got().iter().map(told).collect()
    }
}

/// A response.
pub fn response(status: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len())
}

/// Takes everything.
pub fn fine(_: &Got) -> String {
    response(204, "", "")
}
