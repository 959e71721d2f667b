//! The server that decides, as one worker sees it.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, RedisError};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::Config;
use crate::decide::{Answer, Outcome, Plan, Verdict};
use crate::limits::Charge;

/// Why the server did not answer.
#[derive(Debug)]
pub enum Fault {
    /// Not in time.
    Deadline,
    /// It cannot be reached, or broke off.
    Connection(String),
    /// It answered with an error.
    Refused(String),
}

/// A handle of the connection of one worker. Clones share it.
#[derive(Clone, Debug)]
pub struct Redis {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    deadline: Duration,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// A handle that connects when it is first used.
    ///
    /// # Errors
    /// When a URL cannot be read.
    pub fn new(config: &Config) -> Result<Self, String> {
        let url = config.redis_url.first().ok_or("no REDIS_URL")?;
        let client = Client::open(url.as_str()).map_err(|error| error.to_string())?;
        let shared =
            Shared { client, deadline: config.decision_timeout, connection: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Charges everything in `plan`, and says what that comes to.
    pub async fn decide(&self, plan: Plan) -> Verdict {
        let mut outcomes = Vec::new();
        let answers = match plan.together.as_slice() {
            [] => Ok(Vec::new()),
            [charge] => self.take(charge).await.map(|answer| vec![answer]),
            charges => self.take_all(charges).await,
        };
        match answers {
            Ok(answers) => outcomes.extend(
                plan.together
                    .into_iter()
                    .zip(answers)
                    .map(|(charge, answer)| Outcome { charge, answer: Some(answer) }),
            ),
            Err(_) => outcomes
                .extend(plan.together.into_iter().map(|charge| Outcome { charge, answer: None })),
        }
        for charge in plan.apart {
            let answer = self.take(&charge).await.ok();
            outcomes.push(Outcome { charge, answer });
        }
        Verdict::new(outcomes)
    }

    /// `CL.TAKE`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn take(&self, charge: &Charge) -> Result<Answer, Fault> {
        let mut command = redis::cmd("CL.TAKE");
        group(&mut command, charge);
        self.call(&command).await.map(answer)
    }

    /// `CL.PEEK`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn peek(&self, charge: &Charge) -> Result<Answer, Fault> {
        let mut command = redis::cmd("CL.PEEK");
        group(&mut command, charge);
        self.call(&command).await.map(answer)
    }

    /// `CL.GIVE`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn give(&self, charge: &Charge) -> Result<Answer, Fault> {
        let mut command = redis::cmd("CL.GIVE");
        command.arg(&*charge.key).arg(charge.cost);
        self.call(&command).await.map(answer)
    }

    /// `CL.SETTLE`: `reserved` tokens were taken, and `charge` is what was used.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn settle(&self, charge: &Charge, reserved: u64) -> Result<Answer, Fault> {
        let mut command = redis::cmd("CL.SETTLE");
        command.arg(&*charge.key).arg(reserved).arg(charge.cost);
        for argument in &charge.limit.arguments {
            command.arg(argument);
        }
        self.call(&command).await.map(answer)
    }

    /// `CL.TAKEALL`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn take_all(&self, charges: &[Charge]) -> Result<Vec<Answer>, Fault> {
        let mut command = redis::cmd("CL.TAKEALL");
        for (index, charge) in charges.iter().enumerate() {
            if index > 0 {
                command.arg("AND");
            }
            group(&mut command, charge);
        }
        type Reply = (i64, i64, i64, Vec<[i64; 5]>);
        let (_, _, _, answers): Reply = self.call(&command).await?;
        Ok(answers.into_iter().map(answer).collect())
    }

    /// Sends `command` and waits for its reply, within the deadline.
    ///
    /// # Errors
    /// When there is no answer, or an error.
    pub async fn call<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        timeout(self.shared.deadline, self.ask(command)).await.map_err(|_| Fault::Deadline)?
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let mut connection = self.connection().await?;
        let reply = command.query_async(&mut connection).await;
        if reply.as_ref().is_err_and(RedisError::is_unrecoverable_error) {
            *self.shared.connection.lock().await = None;
        }
        reply.map_err(fault)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, Fault> {
        let mut connection = self.shared.connection.lock().await;
        if let Some(connection) = connection.as_ref() {
            return Ok(connection.clone());
        }
        let made = self.shared.client.get_multiplexed_async_connection().await.map_err(fault)?;
        Ok(connection.insert(made).clone())
    }
}

fn fault(error: RedisError) -> Fault {
    match error.code() {
        Some(_) => Fault::Refused(error.to_string()),
        None => Fault::Connection(error.to_string()),
    }
}

/// One group of a command: key, tokens and policy.
fn group(command: &mut Cmd, charge: &Charge) {
    command.arg(&*charge.key).arg(charge.cost);
    for argument in &charge.limit.arguments {
        command.arg(argument);
    }
    if charge.limit.keep > 0 {
        command.arg("KEEP").arg(charge.limit.keep);
    }
}

fn answer([taken, capacity, remaining, retry_after_ms, reset_after_ms]: [i64; 5]) -> Answer {
    Answer { taken, capacity, remaining, retry_after_ms, reset_after_ms }
}
