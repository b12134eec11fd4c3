//! The rules of the agent: it is known to be there, it is on its way, or the session says why not.

use chrono::{DateTime, TimeDelta, Utc};

use super::TimelineEvent;
use super::{Action, AgentTerms, Deciding, Dispatch, Job, Observation, Participant, SOON};
use crate::{AgentStatus, EndReason, OnAgentHangup, SessionStatus};

/// After so long without a job nobody took a dispatch: LiveKit asks its nodes for five seconds.
const TAKEN_WITHIN: TimeDelta = TimeDelta::seconds(6);

/// LiveKit's word for a participant that left of its own accord.
const HANGUP: &str = "CLIENT_INITIATED";

impl Deciding<'_> {
    pub(super) fn keep_agent(&mut self, seen: &Observation) {
        let Some(terms) = self.session.terms.agent else { return };
        if self.state.agent_status == AgentStatus::Unavailable || !seen.room {
            return;
        }
        if let Some(agent) = self.agent_in(seen) {
            self.see_agent(agent);
        } else {
            self.miss_agent(terms);
        }
        if self.state.is_over() {
            return;
        }
        match self.state.agent_status {
            AgentStatus::Dispatched => self.bring_agent(terms, seen),
            AgentStatus::Waiting => self.delete_dispatches(seen),
            _ => self.keep_one_dispatch(seen),
        }
    }

    /// The agent that is there: of two the one that is known. One whose leaving was told may still
    /// be shown for a moment, and is not there.
    fn agent_in<'s>(&self, seen: &'s Observation) -> Option<&'s Participant> {
        let is = |agent: &&Participant, known: &Option<String>| {
            known.as_deref() == Some(agent.identity.as_str())
        };
        let there = || seen.agents().filter(|agent| !is(agent, &self.state.agent_left_identity));
        there().find(|agent| is(agent, &self.state.agent_identity)).or_else(|| there().next())
    }

    fn see_agent(&mut self, agent: &Participant) {
        let known = self.state.agent_identity.as_deref() == Some(agent.identity.as_str());
        if self.state.agent_status == AgentStatus::Ready && known {
            return;
        }
        self.state.agent_status = AgentStatus::Ready;
        self.state.agent_identity = Some(agent.identity.clone());
        self.tell_of(TimelineEvent::AgentJoined, agent);
    }

    fn miss_agent(&mut self, terms: AgentTerms) {
        match self.state.agent_status {
            AgentStatus::Ready if !self.is_leaving_known() => {
                // Its webhook may be under way, and only that tells a hang-up from a death.
                self.state.agent_left_at = Some(self.now);
                self.state.agent_left_identity.clone_from(&self.state.agent_identity);
                self.state.agent_left_reason = None;
                self.tell(TimelineEvent::AgentLeft);
            }
            AgentStatus::Ready if self.has_hung_up() => self.let_agent_go(terms),
            AgentStatus::Ready if !self.is_agent_gone_unexplained() => self.lose_agent(),
            // It came and went between two looks.
            AgentStatus::Dispatched if self.has_hung_up() && self.left_since_wanted() => {
                self.let_agent_go(terms);
            }
            AgentStatus::Left | AgentStatus::Waiting if self.has_user_come_since() => {
                self.want_agent();
            }
            _ => {}
        }
    }

    /// Whether the leaving that is known is that of the agent last seen.
    fn is_leaving_known(&self) -> bool {
        self.state.agent_left_at.is_some()
            && self.state.agent_left_identity == self.state.agent_identity
    }

    fn has_hung_up(&self) -> bool {
        self.state.agent_left_reason.as_deref() == Some(HANGUP)
    }

    /// Whether an agent is gone, and there is still time for somebody to tell why.
    pub(super) fn is_agent_gone_unexplained(&self) -> bool {
        self.state.agent_status == AgentStatus::Ready
            && self.is_leaving_known()
            && self.state.agent_left_reason.is_none()
            && self.state.agent_left_at.is_some_and(|left| self.now < left + SOON)
    }

    fn left_since_wanted(&self) -> bool {
        self.state.agent_left_at.is_some()
            && self.state.agent_left_at >= self.state.agent_wanted_since
    }

    fn has_user_come_since(&self) -> bool {
        self.state.is_user_there() && self.state.user_joined_at > self.state.agent_left_at
    }

    fn let_agent_go(&mut self, terms: AgentTerms) {
        self.state.agent_status = AgentStatus::Left;
        let with_user = self.state.agent_left_at.is_some_and(|at| self.state.was_user_there(at));
        if terms.on_hangup == OnAgentHangup::End && with_user {
            self.finish(SessionStatus::Ended, EndReason::AgentLeft);
        }
    }

    /// Somebody else ended it: a worker that died, a node. While a user waits for it, or none has
    /// come yet, it is replaced.
    fn lose_agent(&mut self) {
        if self.state.is_user_there() || self.state.user_joined_at.is_none() {
            self.want_agent();
        } else {
            self.state.agent_status = AgentStatus::Waiting;
        }
    }

    /// Wants it once more, with a deadline of its own; it is asked for when a look shows that nobody
    /// is on the way.
    fn want_agent(&mut self) {
        self.state.agent_status = AgentStatus::Dispatched;
        self.state.agent_wanted_since = Some(self.now);
        self.state.last_dispatch_at = None;
    }

    pub(super) fn agent_deadline(&self) -> Option<DateTime<Utc>> {
        let terms = self.session.terms.agent?;
        let wanted = self.state.agent_status == AgentStatus::Dispatched;
        let since = self.state.agent_wanted_since.filter(|_| wanted)?;
        Some(since + terms.deadline)
    }

    fn bring_agent(&mut self, terms: AgentTerms, seen: &Observation) {
        if self.agent_deadline().is_some_and(|deadline| self.now >= deadline) {
            self.state.agent_status = AgentStatus::Unavailable;
            self.tell(TimelineEvent::AgentUnavailable);
            if terms.required {
                self.finish(SessionStatus::Failed, EndReason::AgentUnavailable);
            } else {
                self.delete_dispatches(seen);
            }
            return;
        }
        let Some(dispatches) = &seen.dispatches else { return };
        if dispatches.iter().any(|dispatch| self.is_live(dispatch)) {
            // Taken: a cold agent may need ten seconds, and to ask again would kill it.
            self.keep_one_dispatch(seen);
            return;
        }
        let waited = |asked: DateTime<Utc>| self.now >= asked + TAKEN_WITHIN;
        if self.state.last_dispatch_at.is_none_or(waited) {
            self.delete_dispatches(seen);
            self.actions.push(Action::Dispatch);
            self.state.last_dispatch_at = Some(self.now);
            self.tell(TimelineEvent::AgentDispatched);
        }
    }

    /// Whether a worker is at it. A dead agent's job is shown as running for ever.
    fn is_live(&self, dispatch: &Dispatch) -> bool {
        let gone = self.state.agent_left_identity.as_deref();
        let is_gone = |job: &Job| {
            !job.participant_identity.is_empty() && gone == Some(job.participant_identity.as_str())
        };
        dispatch.jobs.iter().any(|job| job.is_live && !is_gone(job))
    }

    fn delete_dispatches(&mut self, seen: &Observation) {
        let all = seen.dispatches.iter().flatten();
        self.actions.extend(all.map(|dispatch| Action::DeleteDispatch(dispatch.id.clone())));
    }

    /// Of two that a worker is at, keeps the one whose agent is in the room, else the older.
    fn keep_one_dispatch(&mut self, seen: &Observation) {
        let all = seen.dispatches.iter().flatten();
        let live: Vec<_> = all.filter(|dispatch| self.is_live(dispatch)).collect();
        let is_in_room = |dispatch: &Dispatch| {
            let identity = self.state.agent_identity.as_deref();
            dispatch.jobs.iter().any(|job| identity == Some(job.participant_identity.as_str()))
        };
        let kept = live.iter().min_by_key(|dispatch| {
            (!is_in_room(dispatch), dispatch.created_at, dispatch.id.clone())
        });
        let kept = kept.map(|dispatch| dispatch.id.clone());
        let others = live.iter().filter(|dispatch| Some(&dispatch.id) != kept.as_ref());
        let others: Vec<_> =
            others.map(|dispatch| Action::DeleteDispatch(dispatch.id.clone())).collect();
        self.actions.extend(others);
    }
}
