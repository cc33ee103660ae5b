//! Overload: three times as much as a service can answer, and what comes after.
//!
//! The service has 64 seats, takes one for 40 ms, and lets the others queue; its callers wait for a second. Calls come when
//! they are due, whether or not others were answered (an open loop), so a service that stalls cannot slow them down. Once they
//! come from tonic's channels, which leave everything to the server, and once from the mesh's, whose breakers hear of it.

use super::{
    Row,
    echo::{Line, Manner, Served, Side},
    median, micros, percentile,
};
use mesh::client::not_sent;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tonic::Code;

const SEATS: usize = 64;
const TAKES: Duration = Duration::from_millis(40);
/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// As many processes call, each with a connection: 32 times 128 calls are more than are ever taken at once.
const CHANNELS: usize = 32;
/// At its peak each seat is taken, and as many calls wait for one.
const AT_PEAK: usize = 2 * SEATS;
/// How often it is looked which calls are due.
const TICK: Duration = Duration::from_millis(2);
/// The time after an overload is looked at in pieces.
const PIECE: Duration = Duration::from_millis(500);
/// By when all must be as it was.
const NORMAL: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Shed,
    /// Without being sent: the breaker is open.
    Refused,
    Late,
    Other(Code),
}

struct Call {
    /// When it was due, since the beginning.
    due: Duration,
    took: Duration,
    end: End,
}

pub(crate) async fn run(whole: Duration) -> anyhow::Result<()> {
    for side in [Side::Bare, Side::Mesh] {
        callers(side, whole).await?;
    }
    Ok(())
}

async fn callers(side: Side, whole: Duration) -> anyhow::Result<()> {
    let busy = Manner::Busy(Arc::new(Semaphore::new(SEATS)), TAKES);
    let served = Served::start(Side::Mesh, busy)?;
    let mut lines = Vec::new();
    for _ in 0..CHANNELS {
        lines.push(Line::of(side, served.address).await?);
    }
    let peak = peak(&lines, (whole / 6).max(Duration::from_secs(1))).await?;
    let calm = (whole / 6).max(Duration::from_secs(1));
    let after = NORMAL + NORMAL / 2;
    let after = after.min(whole.max(4 * PIECE));
    let phases = [(0.7 * peak, calm), (3.0 * peak, whole), (0.7 * peak, after)];
    let calls = offer(&lines, &phases).await?;

    let (from, to) = (calm, calm + whole);
    let overload: Vec<_> = calls.iter().filter(|call| (from..to).contains(&call.due)).collect();
    let count = |end: End| overload.iter().filter(|call| call.end == end).count();
    // what was answered meanwhile, not what waited at its end
    let meanwhile = |call: &&Call| (from..to).contains(&(call.due + call.took));
    let answered = calls.iter().filter(|call| call.end == End::Answered).filter(meanwhile).count();
    let answered = f64::from(u32::try_from(answered)?) / whole.as_secs_f64();
    let share = 100.0 * answered / peak;
    let usual = p50(calls.iter().filter(|call| call.due < from));
    let normal = normal_from(&calls, to, usual, after);
    let mut refusals: Vec<_> = overload
        .iter()
        .filter(|call| call.end == End::Shed)
        .map(|call| micros(call.took))
        .collect();
    let name = if side == Side::Mesh { "the mesh's callers" } else { "tonic's callers" };
    Row::new(format!("goodput at three times the peak, {name}"), "≥ 90 %").met(
        share >= 90.0,
        format!(
            "{share:.1} % of {peak:.0}/s; of {} calls {} answered, {} shed (p99 {:.1} ms), {} refused by breakers, {} late, {} otherwise",
            overload.len(),
            count(End::Answered),
            count(End::Shed),
            percentile(&mut refusals, 99) / 1e3,
            count(End::Refused),
            count(End::Late),
            overload.iter().filter(|call| matches!(call.end, End::Other(_))).count(),
        ),
    );
    if let Some(call) = overload.iter().find(|call| matches!(call.end, End::Other(_))) {
        println!("\notherwise: {:?}\n", call.end);
    }
    Row::new(format!("normal after it, {name}"), "≤ 10 s").met(
        normal.is_some_and(|normal| normal <= NORMAL),
        match normal {
            Some(normal) => format!("{:.1} s", normal.as_secs_f64()),
            None => format!("not within {:.1} s", after.as_secs_f64()),
        },
    );
    Ok(())
}

/// Answers a second when as many ask as can be answered, each again when it was answered.
async fn peak(lines: &[Line], time: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for line in lines.iter().cycle().take(AT_PEAK) {
        let line = line.clone();
        tasks.spawn(async move {
            let mut answered = 0_u32;
            while begun.elapsed() < time {
                answered += u32::from(line.ask(Some(PATIENCE)).await.is_ok());
            }
            answered
        });
    }
    let answered: u32 = tasks.join_all().await.into_iter().sum();
    Ok(f64::from(answered) / begun.elapsed().as_secs_f64())
}

/// So many calls a second for so long, one phase after the other; none waits for another.
async fn offer(lines: &[Line], phases: &[(f64, Duration)]) -> anyhow::Result<Vec<Call>> {
    let (mut tasks, mut calls) = (JoinSet::new(), Vec::new());
    let (begun, mut at) = (Instant::now(), Duration::ZERO);
    let mut lines = lines.iter().cycle();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (rate, time) in phases {
        let mut sent = 0_u32;
        let end = at + *time;
        while begun.elapsed() < end {
            tick.tick().await;
            loop {
                let due = at + Duration::from_secs_f64(f64::from(sent) / rate);
                if due > begun.elapsed().min(end) {
                    break;
                }
                sent += 1;
                let line = lines.next().expect("there are some").clone();
                tasks.spawn(async move {
                    let answer = line.ask(Some(PATIENCE)).await;
                    Call { due, took: begun.elapsed().saturating_sub(due), end: End::of(answer) }
                });
            }
            while let Some(call) = tasks.try_join_next() {
                calls.push(call?);
            }
        }
        at = end;
    }
    calls.extend(tasks.join_all().await);
    Ok(calls)
}

/// How long after `to` it is until everything is answered as quickly as before.
fn normal_from(calls: &[Call], to: Duration, usual: f64, after: Duration) -> Option<Duration> {
    let pieces: u32 = (1..).take_while(|piece| PIECE * *piece <= after).count().try_into().ok()?;
    let normal = |piece: u32| {
        let (from, to) = (to + PIECE * piece, to + PIECE * (piece + 1));
        let piece: Vec<_> = calls.iter().filter(|call| (from..to).contains(&call.due)).collect();
        let answered = piece.iter().filter(|call| call.end == End::Answered).count();
        // one in a hundred may be somebody else's fault
        answered * 100 >= piece.len() * 99 && p50(piece.into_iter()) <= 2.0 * usual
    };
    let bad = (0..pieces).rev().find(|piece| !normal(*piece));
    match bad {
        None => Some(Duration::ZERO),
        Some(bad) if bad + 1 < pieces => Some(PIECE * (bad + 1)),
        Some(_) => None,
    }
}

fn p50<'a>(calls: impl Iterator<Item = &'a Call>) -> f64 {
    median(calls.map(|call| micros(call.took)).collect())
}

impl End {
    fn of(answer: Result<(), tonic::Status>) -> Self {
        match answer {
            Ok(()) => Self::Answered,
            Err(status) if not_sent(&status) => Self::Refused,
            Err(status) => match status.code() {
                Code::ResourceExhausted => Self::Shed,
                // tonic says of its own deadlines that it cancelled the call
                Code::DeadlineExceeded | Code::Cancelled => Self::Late,
                code => Self::Other(code),
            },
        }
    }
}
