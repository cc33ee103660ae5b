//! What the mesh costs beside bare tonic, and how soon it says no.

use super::{
    Row,
    echo::{Line, Manner, Served, Side, ask, channel},
    median, micros, percentile,
};
use anyhow::ensure;
use mesh::{Policies, client::not_sent};
use std::{array, time::Duration};
use tokio::{
    task::{JoinSet, yield_now},
    time::Instant,
};
use tonic::Code;

/// Calls at once: what a service that is busy has under way.
const CALLERS: usize = 16;
/// Odd, for the medians; enough that a disturbance of a few rounds is not in them.
const ROUNDS: usize = 11;
/// Client and server.
const WAYS: [(Side, Side); 4] = [
    (Side::Bare, Side::Bare),
    (Side::Mesh, Side::Bare),
    (Side::Bare, Side::Mesh),
    (Side::Mesh, Side::Mesh),
];
const NAMES: [&str; 4] = [
    "tonic alone",
    "the mesh's client, tonic's server",
    "tonic's client, the mesh's server",
    "the mesh's client and server",
];
/// Calls that are held until more are refused: more than a process takes that has just started.
const HOLD: usize = 1_024;
/// What one connection carries.
const STREAMS: usize = 128;
/// Answers of the shedding server that are timed.
const REFUSALS: usize = 2_000;

/// What was seen of a way in one round.
#[derive(Clone, Copy, Default)]
struct Seen {
    rate: f64,
    p50: f64,
    /// With one call at a time.
    alone: f64,
}

/// All ways in turn, in several rounds: what disturbs the machine disturbs all of them.
pub(crate) async fn calls(slice: Duration) -> anyhow::Result<()> {
    let bare = Served::start(Side::Bare, Manner::Well)?;
    let ours = Served::start(Side::Mesh, Manner::Well)?;
    let mut lines = Vec::new();
    for (client, server) in WAYS {
        let served = if server == Side::Mesh { &ours } else { &bare };
        let line = Line::of(client, served.address).await?;
        run(&line, CALLERS, slice).await?; // warms up
        lines.push(line);
    }
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut seen = [Seen::default(); 4];
        for turn in 0..WAYS.len() {
            // nobody always comes after the same one
            let way = (turn + round) % WAYS.len();
            let many = run(&lines[way], CALLERS, slice).await?;
            let one = run(&lines[way], 1, slice / 2).await?;
            seen[way] = Seen { rate: many.0, p50: many.1, alone: one.1 };
        }
        rounds.push(seen);
    }
    let of = |figure: &dyn Fn(&[Seen; 4]) -> f64| median(rounds.iter().map(figure).collect());
    println!("\n{CALLERS} calls at a time, one connection, medians of {ROUNDS} rounds:\n");
    println!(
        "| way | calls/s | of tonic's | p50 µs | more | p50 µs of one call at a time | more |"
    );
    println!("|---|---|---|---|---|---|---|");
    // compared within a round
    let figures: [_; 4] = array::from_fn(|way| {
        let share = of(&|round| 100.0 * round[way].rate / round[0].rate);
        let more = of(&|round| round[way].p50 - round[0].p50);
        let alone = of(&|round| round[way].alone - round[0].alone);
        (share, more, alone)
    });
    for (way, (share, more, alone)) in figures.iter().enumerate() {
        let rate = of(&|round| round[way].rate);
        let (p50, one) = (of(&|round| round[way].p50), of(&|round| round[way].alone));
        println!(
            "| {} | {rate:.0} | {share:.1} % | {p50:.0} | {more:+.0} | {one:.0} | {alone:+.0} |",
            NAMES[way]
        );
    }
    let (share, more, alone) = figures[3];
    println!();
    Row::head();
    Row::new("calls/s of bare tonic's", "≥ 90 %").met(share >= 90.0, format!("{share:.1} %"));
    Row::new("p50 more than bare tonic's, 16 at a time", "≤ 40 µs")
        .met(more <= 40.0, format!("{more:+.0} µs"));
    Row::new("p50 more than bare tonic's, one at a time", "≤ 40 µs")
        .met(alone <= 40.0, format!("{alone:+.0} µs"));
    Ok(())
}

/// Calls a second, and the median of their times in microseconds.
async fn run(line: &Line, callers: usize, time: Duration) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let line = line.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while begun.elapsed() < time {
                let asked = Instant::now();
                line.ask(None).await?;
                times.push(micros(asked.elapsed()));
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(some) = tasks.join_next().await {
        times.extend(some??);
    }
    let count = u32::try_from(times.len())?;
    Ok((f64::from(count) / begun.elapsed().as_secs_f64(), median(times)))
}

/// The open breaker, asked through a generated client's whole way.
pub(crate) async fn breaker(slice: Duration) -> anyhow::Result<()> {
    let served = Served::start(Side::Mesh, Manner::Failing(1, <_>::default()))?;
    let channel = channel(served.address, Policies::default())?;
    while !channel.refuses() {
        ensure!(ask(channel.clone(), None).await.is_err(), "it fails always");
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < slice {
        let asked = Instant::now();
        let answer = ask(channel.clone(), None).await;
        let took = micros(asked.elapsed());
        // the others are probes
        if answer.is_err_and(|status| not_sent(&status)) {
            times.push(took);
        }
        yield_now().await;
    }
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    Row::new("an open breaker's answer, p50", "≤ 10 µs")
        .met(p50 <= 10.0, format!("{p50:.1} µs (p99 {p99:.1} µs)"));
    Ok(())
}

/// What is too much, asked one at a time while as much is under way as is taken.
pub(crate) async fn shed() -> anyhow::Result<()> {
    let served = Served::start(Side::Mesh, Manner::Never)?;
    let mut held = JoinSet::new();
    for _connection in 0..HOLD / STREAMS {
        let line = Line::bare(served.address).await?;
        for _stream in 0..STREAMS {
            let line = line.clone();
            held.spawn(async move { line.ask(None).await });
        }
    }
    // as soon as one of them is refused there is no room, and nothing ends by itself
    let refused = held.join_next().await.expect("there are some")?;
    ensure!(refused.is_err(), "it never answers");
    let line = Line::bare(served.address).await?;
    let mut times = Vec::new();
    while times.len() < REFUSALS {
        let asked = Instant::now();
        let answer = line.ask(None).await;
        let took = micros(asked.elapsed());
        let code = answer.as_ref().err().map(tonic::Status::code);
        ensure!(
            code == Some(Code::ResourceExhausted),
            "{} were shed, then {answer:?}",
            times.len()
        );
        times.push(took);
    }
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    Row::new("a shed answer at its client, p99", "< 1 ms")
        .met(p99 < 1_000.0, format!("{p99:.0} µs (p50 {p50:.0} µs)"));
    Ok(())
}
