//! The figures that each command measures.

use super::figure::{Figure, Measure};
use super::{
    agent, callers, comparison, deadlines, growth, limits, live, members, memory, names, overload,
    pages, peers, poisoned, troubles, waits, webhooks,
};

/// The figures of `cargo xtask bench keeper`.
pub fn keeper() -> Vec<Figure> {
    vec![
        figure("agent", "dispatching agents, by starts and by hand", |env| {
            Box::pin(agent::measure(env))
        }),
        figure("deadlines", "reconciling 10,000 sessions", |env| Box::pin(deadlines::measure(env))),
        figure("live", "reconciling 10,000 and 100,000 sessions, 15 minutes", |env| {
            Box::pin(live::measure(env))
        }),
        figure("webhooks", "sending webhooks", |env| Box::pin(webhooks::measure(env))),
        troubles(),
        figure("waits", "holding 1,000 requests", |env| Box::pin(waits::measure(env))),
    ]
}

/// The figure of `cargo xtask bench keeper --quick`.
pub fn keeper_quick() -> Vec<Figure> {
    vec![troubles()]
}

fn troubles() -> Figure {
    figure("troubles", "reconciling sessions while LiveKit is in trouble", |env| {
        Box::pin(troubles::measure(env))
    })
}

/// The figures of `cargo xtask bench starts`.
pub fn starts() -> Vec<Figure> {
    vec![
        figure("limits", "starting with and without limits", |env| Box::pin(limits::measure(env))),
        figure("poisoned", "starting with and without bad requests", |env| {
            Box::pin(poisoned::measure(env))
        }),
        figure("members", "starting with slow commits", |env| Box::pin(members::measure(env))),
        figure("memory", "starting 100,000 sessions", |env| Box::pin(memory::measure(env))),
        figure("callers", "verifying tokens", |env| Box::pin(callers::measure(env))),
        figure("pages", "listing 1,000,000 sessions", |env| Box::pin(pages::measure(env))),
        figure("names", "generating room names", |_| {
            Box::pin(std::future::ready(names::measure()))
        }),
    ]
}

/// The figure of `cargo xtask bench growth`.
pub fn growth() -> Vec<Figure> {
    vec![figure("growth", "alternating a large and a small database", |env| {
        Box::pin(growth::measure(env))
    })]
}

/// The figure of `cargo xtask bench overload`.
pub fn overload() -> Vec<Figure> {
    vec![figure("overload", "offering up to ten times the capacity", |env| {
        Box::pin(overload::measure(env))
    })]
}

/// The figures of `cargo xtask bench peers`.
pub fn peers() -> Vec<Figure> {
    vec![
        figure("peers", "alternating all targets", |env| Box::pin(peers::measure(env))),
        figure("rooms", "opening rooms, alternating with Go", |env| {
            Box::pin(peers::measure_rooms(env))
        }),
    ]
}

/// The figure of `cargo xtask bench starts --against`.
pub fn against() -> Vec<Figure> {
    vec![figure("against", "alternating both builds", |env| Box::pin(comparison::measure(env)))]
}

fn figure(name: &'static str, description: &'static str, measure: Measure) -> Figure {
    Figure { name, description, measure }
}
