//! Properties that hold for all observations and reports.

use proptest::prelude::*;

use super::*;

/// A fact with the second of LiveKit's report.
type Report = (Fact, i64);

fn report() -> impl Strategy<Value = Report> {
    let reason =
        prop_oneof![Just(None), Just(Some(CLIENT_INITIATED)), Just(Some("CONNECTION_TIMEOUT"))];
    let fact = prop_oneof![
        Just(Fact::RoomFinished),
        Just(Fact::UserJoined { identity: USER.to_owned(), sid: "PA_1".to_owned() }),
        Just(Fact::UserLeft { identity: USER.to_owned(), sid: "PA_1".to_owned(), reason: None }),
        reason.prop_map(|reason| Fact::AgentLeft {
            identity: AGENT.to_owned(),
            sid: "PA_2".to_owned(),
            reason: reason.map(str::to_owned),
        }),
    ];
    (fact, 11_i64..400)
}

fn any_observation() -> impl Strategy<Value = Option<Observation>> {
    let job = (any::<bool>(), prop_oneof![Just(""), Just(AGENT), Just("agent-AJ_2")]);
    let owner = prop_oneof![
        8 => Just(DispatchOwner::Session),
        1 => Just(DispatchOwner::Unnamed),
        1 => Just(DispatchOwner::Other),
    ];
    let dispatches = prop::collection::vec((owner, prop::collection::vec(job, 0..3)), 0..3);
    let present = prop::sample::subsequence(vec![USER, AGENT, "agent-AJ_2", "recorder"], 0..=4);
    let some = (any::<bool>(), present, prop::option::of(dispatches)).prop_map(
        |(has_room, present, listed)| {
            let mut observation = if has_room { room(&present) } else { no_room() };
            observation.dispatches = listed.map(|listed| {
                let numbered = listed.into_iter().zip(0_i64..);
                let number = |((owner, jobs), n)| {
                    let jobs: Vec<(bool, &str)> = jobs;
                    Dispatch { owner, ..dispatch(&format!("AD_{n}"), n, &jobs) }
                };
                numbered.map(number).collect()
            });
            observation
        },
    );
    prop::option::weighted(0.9, some)
}

fn any_session() -> impl Strategy<Value = TrackedSession> {
    let required = any::<bool>();
    let ends_on_hangup = any::<bool>();
    (
        prop_oneof![Just(started()), Just(active()), Just(on_join(started()))],
        required,
        ends_on_hangup,
    )
        .prop_map(|(session, required, ends_on_hangup)| {
            with_agent_policy(session, |agent| {
                agent.required = required;
                agent.on_hangup =
                    if ends_on_hangup { OnAgentHangup::End } else { OnAgentHangup::Keep };
            })
        })
}

/// Decides with the same observation until the session needs no further check.
fn decide_until_done(
    mut session: TrackedSession,
    observation: &Observation,
    mut now: DateTime<Utc>,
) -> TrackedSession {
    for _ in 0..10_000 {
        let decision = decide(&session, Some(observation), now);
        session.state = decision.state;
        match decision.check_at {
            Some(next) => now = now.max(next),
            None => return session,
        }
    }
    panic!("the session still needs checks: {session:#?}");
}

proptest! {
    #[test]
    fn decision_is_independent_of_fact_order_and_duplicates(
        reports in prop::collection::vec(report(), 0..8),
        doubled in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        keys in prop::collection::vec(any::<u32>(), 16),
        observation in any_observation(),
    ) {
        let decide_after = |reports: &[Report]| {
            let mut session = active();
            for (fact, second) in reports {
                session.state.learn(fact, at(*second), at(401));
            }
            decide(&session, observation.as_ref(), at(401))
        };
        // The later of two departures in the same second is undefined, and so is a second
        // departure of the same agent without a reason, so exclude these cases.
        let departures = reports.iter().filter(|(fact, _)| matches!(fact, Fact::AgentLeft { .. }));
        let mut seconds: Vec<_> = departures.clone().map(|(_, second)| *second).collect();
        seconds.sort_unstable();
        prop_assume!(seconds.windows(2).all(|pair| pair[0] != pair[1]));
        let is_explained =
            |(fact, _): &Report| !matches!(fact, Fact::AgentLeft { reason: None, .. });
        prop_assume!(seconds.len() <= 1 || departures.clone().all(is_explained));

        let mut again = reports.clone();
        if !reports.is_empty() {
            again.extend(doubled.iter().map(|index| index.get(&reports).clone()));
        }
        let mut shuffled: Vec<_> = again.into_iter().zip(keys.into_iter().cycle()).collect();
        shuffled.sort_by_key(|(_, key)| *key);
        let shuffled: Vec<_> = shuffled.into_iter().map(|(report, _)| report).collect();
        prop_assert_eq!(decide_after(&reports), decide_after(&shuffled));
    }

    #[test]
    fn outcome_of_closed_session_never_changes(
        session in any_session(), observations in prop::collection::vec(any_observation(), 1..40),
    ) {
        let (mut session, mut now, mut ended) = (session, at(11), None);
        for observation in observations {
            let decision = decide(&session, observation.as_ref(), now);
            if let Some((status, reason, ended_at)) = ended {
                prop_assert_eq!(decision.state.status, status);
                prop_assert_eq!(decision.state.end_reason, reason);
                prop_assert_eq!(decision.state.ended_at, ended_at);
                prop_assert!(decision.events.is_empty());
                prop_assert!(decision.actions.iter().all(|action| *action == Action::DeleteRoom));
            } else if decision.state.is_over() {
                ended = Some((decision.state.status, decision.state.end_reason, decision.state.ended_at));
            }
            session.state = decision.state;
            now += seconds(13);
        }
    }

    #[test]
    fn next_check_is_set_until_room_of_closed_session_is_gone(
        session in any_session(), observations in prop::collection::vec(any_observation(), 1..40),
    ) {
        let (mut session, mut now) = (session, at(11));
        for observation in observations {
            let decision = decide(&session, observation.as_ref(), now);
            session.state = decision.state;
            match (decision.check_at, session.state.next_check_at) {
                (Some(next), Some(stored)) => {
                    prop_assert!(now < next, "a check that is due at once would repeat");
                    prop_assert!(next <= stored, "{next} is after {stored}");
                }
                (next, stored) => {
                    prop_assert_eq!(next, stored);
                    prop_assert!(session.state.is_over() && session.state.room_gone_at.is_some());
                }
            }
            now += seconds(13);
        }
    }

    #[test]
    fn at_most_one_dispatch_and_only_with_room_and_dispatch_list(
        session in any_session(), observations in prop::collection::vec(any_observation(), 1..40),
    ) {
        let (mut session, mut now) = (session, at(11));
        for observation in observations {
            let decision = decide(&session, observation.as_ref(), now);
            let dispatching = decision.actions.iter().filter(|action| action.dispatches_agent());
            prop_assert!(dispatching.count() <= 1);
            if decision.actions.iter().any(Action::dispatches_agent) {
                let recorded = decision.state.last_dispatch_at;
                prop_assert_eq!(recorded, Some(now), "the dispatch is recorded");
            }
            if decision.actions.contains(&Action::Dispatch) {
                let is_listed = |observation: &Observation| {
                    observation.room.is_some() && observation.dispatches.is_some()
                };
                prop_assert!(observation.as_ref().is_some_and(is_listed));
            }
            session.state = decision.state;
            now += seconds(3);
        }
    }

    /// The store takes the sid of a departure from the latest join of an earlier decision or report.
    #[test]
    fn no_decision_contains_both_a_join_and_a_departure(
        session in any_session(), observations in prop::collection::vec(any_observation(), 1..40),
    ) {
        use TimelineEvent::{AgentJoined, AgentLeft, UserJoined, UserLeft};
        let (mut session, mut now) = (session, at(11));
        for observation in observations {
            let decision = decide(&session, observation.as_ref(), now);
            let has = |kind| decision.events.iter().any(|event| event.event == kind);
            prop_assert!(!(has(UserJoined) && has(UserLeft)));
            prop_assert!(!(has(AgentJoined) && has(AgentLeft)));
            session.state = decision.state;
            now += seconds(13);
        }
    }

    #[test]
    fn every_session_ends_if_its_room_stays_missing(
        session in any_session(), first in any_observation(), after in 11_i64..500,
    ) {
        let first = first.unwrap_or_default();
        let state = decide(&session, Some(&first), at(after)).state;
        let session = decide_until_done(TrackedSession { state, ..session }, &no_room(), at(after + 1));
        prop_assert!(session.state.is_over());
        prop_assert!(session.state.ended_at.is_some() && session.state.end_reason.is_some());
    }
}
