//! The rules of the agent: it is known to be there, it is on its way, or the session says why not.

use chrono::{DateTime, TimeDelta, Utc};

use super::TimelineEvent;
use super::{
    Action, AgentPolicy, DecisionBuilder, Dispatch, DispatchOwner, Job, Observation, Participant,
    RECHECK_INTERVAL,
};
use crate::{AgentStatus, EndReason, OnAgentHangup, SessionStatus};

/// After so long without a job nobody took a dispatch: LiveKit asks its nodes for five seconds.
const JOB_ASSIGNMENT_TIMEOUT: TimeDelta = TimeDelta::seconds(6);

/// How soon an agent that leaves because its user has left is gone.
const AGENT_EXIT_WINDOW: TimeDelta = TimeDelta::seconds(10);

/// LiveKit's word for a participant that left of its own accord.
const CLIENT_INITIATED: &str = "CLIENT_INITIATED";

impl DecisionBuilder<'_> {
    pub(super) fn reconcile_agent(&mut self, seen: &Observation) {
        let Some(policy) = self.session.policy.agent else { return };
        if seen.room.is_none() {
            return;
        }
        if self.state.agent_status == AgentStatus::Unavailable {
            // Until that is seen: one that is slow would come all the same.
            self.delete_dispatches(seen);
            return;
        }
        // LiveKit shows the job of the second some seconds late, and so what would take it back.
        self.has_several_agents = seen.agents().count() > 1;
        if let Some(agent) = self.session_agent(seen) {
            self.observe_agent(agent);
        } else {
            self.handle_missing_agent(policy, seen);
        }
        if self.state.is_over() {
            return;
        }
        match self.state.agent_status {
            AgentStatus::Dispatched => self.ensure_dispatch(policy, seen),
            // Not what the user's token asks for, whose room is shown before its user is.
            AgentStatus::Waiting if self.state.user_joined_at.is_some() => {
                self.delete_dispatches(seen);
            }
            _ => self.delete_surplus_dispatches(seen),
        }
    }

    /// The agent that is there: of several the one that stays, which is one that nothing listed
    /// would take back, else the one that is known. While an agent may be somebody else's, only one
    /// that is known or listed is the session's. One whose leaving was told may still be shown for
    /// a moment, and is not there; one that a look had only missed is there again.
    fn session_agent<'s>(&self, seen: &'s Observation) -> Option<&'s Participant> {
        let told = self.state.agent_left_reason.is_some();
        let left = self.state.agent_left_identity.as_deref().filter(|_| told);
        let is_known =
            |one: &Participant| self.state.agent_identity.as_deref() == Some(one.identity.as_str());
        let is_listed = |one: &Participant| {
            seen.own_dispatches().any(|dispatch| dispatch.has_job_for(&one.identity))
        };
        let may_be_foreign = seen.may_contain_foreign_agents();
        seen.agents()
            .filter(|one| left != Some(one.identity.as_str()))
            .filter(|one| !may_be_foreign || is_known(one) || is_listed(one))
            .min_by_key(|one| (is_listed(one), !is_known(one)))
    }

    fn observe_agent(&mut self, agent: &Participant) {
        let known = self.state.agent_identity.as_deref() == Some(agent.identity.as_str());
        if self.state.agent_left_identity.as_deref() == Some(agent.identity.as_str()) {
            self.state.agent_left_at = None;
            self.state.agent_left_identity = None;
            self.state.agent_left_reason = None;
        }
        if self.state.agent_status == AgentStatus::Ready && known {
            return;
        }
        self.state.agent_status = AgentStatus::Ready;
        self.state.agent_identity = Some(agent.identity.clone());
        self.emit_for(TimelineEvent::AgentJoined, &agent.sid);
    }

    fn handle_missing_agent(&mut self, policy: AgentPolicy, seen: &Observation) {
        match self.state.agent_status {
            AgentStatus::Ready if !self.is_departure_known() => {
                // Its webhook may be under way, and only that tells a hang-up from a death.
                self.state.agent_left_at = Some(self.now);
                self.state.agent_left_identity.clone_from(&self.state.agent_identity);
                self.state.agent_left_reason = None;
                self.emit(TimelineEvent::AgentLeft);
            }
            AgentStatus::Ready if self.has_hung_up() => self.accept_hangup(policy),
            AgentStatus::Ready if !self.is_departure_unexplained() => self.handle_lost_agent(),
            // It came and went between two looks.
            AgentStatus::Dispatched
                if self.has_hung_up()
                    && self.left_since_requested()
                    && !self.has_foreign_agent_left(seen) =>
            {
                self.accept_hangup(policy);
            }
            AgentStatus::Left | AgentStatus::Waiting if self.has_user_rejoined() => {
                self.request_agent();
            }
            _ => {}
        }
    }

    /// Whether the leaving that is known is that of the agent last seen.
    fn is_departure_known(&self) -> bool {
        self.state.agent_left_at.is_some()
            && self.state.agent_left_identity == self.state.agent_identity
    }

    fn has_hung_up(&self) -> bool {
        self.state.agent_left_reason.as_deref() == Some(CLIENT_INITIATED)
    }

    /// Whether an agent is gone, and there is still time for somebody to tell why.
    pub(super) fn is_departure_unexplained(&self) -> bool {
        self.state.agent_status == AgentStatus::Ready
            && self.is_departure_known()
            && self.state.agent_left_reason.is_none()
            && self.state.agent_left_at.is_some_and(|left| self.now < left + RECHECK_INTERVAL)
    }

    /// Whether it was somebody else's agent that left last.
    fn has_foreign_agent_left(&self, seen: &Observation) -> bool {
        self.state.agent_left_identity.as_deref().is_some_and(|agent| seen.is_foreign_agent(agent))
    }

    fn left_since_requested(&self) -> bool {
        self.state.agent_left_at.is_some()
            && self.state.agent_left_at >= self.state.agent_wanted_since
    }

    /// Whether the agent's leaving followed the user's: agents of livekit-agents close behind theirs.
    fn left_with_user(&self) -> bool {
        let since_user = self.state.agent_left_at.zip(self.state.user_left_at);
        since_user.is_some_and(|(agent, user)| user <= agent && agent - user <= AGENT_EXIT_WINDOW)
    }

    fn has_user_rejoined(&self) -> bool {
        self.state.is_user_present() && self.state.user_joined_at > self.state.agent_left_at
    }

    fn accept_hangup(&mut self, policy: AgentPolicy) {
        // It left because the user had, who is back already.
        if self.state.is_user_present() && self.left_with_user() {
            self.request_agent();
            return;
        }
        self.state.agent_status = AgentStatus::Left;
        let with_user = self.state.agent_left_at.is_some_and(|at| self.state.was_user_present(at));
        if policy.on_hangup == OnAgentHangup::End && with_user {
            self.finish(SessionStatus::Ended, EndReason::AgentLeft);
        }
    }

    /// Somebody else ended it: a worker that died, a node. While a user waits for it, or none has
    /// come yet, it is replaced.
    fn handle_lost_agent(&mut self) {
        if self.state.is_user_present() || self.state.user_joined_at.is_none() {
            self.request_agent();
        } else {
            self.state.agent_status = AgentStatus::Waiting;
        }
    }

    /// Wants it once more, with a deadline of its own; it is asked for when a look shows that nobody
    /// is on the way.
    fn request_agent(&mut self) {
        self.state.agent_status = AgentStatus::Dispatched;
        self.state.agent_wanted_since = Some(self.now);
        self.state.last_dispatch_at = None;
    }

    pub(super) fn agent_deadline(&self) -> Option<DateTime<Utc>> {
        let policy = self.session.policy.agent?;
        let wanted = self.state.agent_status == AgentStatus::Dispatched;
        let since = self.state.agent_wanted_since.filter(|_| wanted)?;
        Some(since + policy.deadline)
    }

    /// From when a dispatch of ours whose job is not shown has reached nobody.
    fn dispatch_lost_at(&self) -> Option<DateTime<Utc>> {
        self.state.last_dispatch_at.map(|asked| asked + JOB_ASSIGNMENT_TIMEOUT)
    }

    /// When an agent that was asked for, and that no worker has taken, is asked for again.
    pub(super) fn next_dispatch_at(&self) -> Option<DateTime<Utc>> {
        let wanted = self.state.agent_status == AgentStatus::Dispatched;
        self.dispatch_lost_at().filter(|_| wanted)
    }

    fn ensure_dispatch(&mut self, policy: AgentPolicy, seen: &Observation) {
        if self.agent_deadline().is_some_and(|deadline| self.now >= deadline) {
            self.state.agent_status = AgentStatus::Unavailable;
            self.emit(TimelineEvent::AgentUnavailable);
            if policy.required {
                self.finish(SessionStatus::Failed, EndReason::AgentUnavailable);
            } else {
                self.delete_dispatches(seen);
            }
            return;
        }
        if seen.dispatches.is_none() {
            return;
        }
        if seen.own_dispatches().any(|dispatch| self.is_live(dispatch)) {
            // Taken: a cold agent may need ten seconds, and to ask again would kill it.
            self.delete_surplus_dispatches(seen);
            return;
        }
        if self.dispatch_lost_at().is_none_or(|lost| self.now >= lost) {
            self.delete_dispatches(seen);
            self.actions.push(Action::Dispatch);
            self.state.last_dispatch_at = Some(self.now);
            self.emit(TimelineEvent::AgentDispatched);
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
        self.actions.extend(seen.own_dispatches().map(Dispatch::delete));
    }

    /// An agent that LiveKit asked for of itself is nobody's the session knows.
    pub(super) fn delete_unnamed_dispatches(&mut self, seen: &Observation) {
        self.actions.extend(seen.dispatches_of(DispatchOwner::Unnamed).map(Dispatch::delete));
    }

    /// Of several that workers are at, keeps the one whose agent is in the room, else the oldest. None
    /// is kept whose agent stands in the room beside the one that stays.
    fn delete_surplus_dispatches(&mut self, seen: &Observation) {
        let live: Vec<_> = seen.own_dispatches().filter(|one| self.is_live(one)).collect();
        let staying = self.state.agent_identity.as_deref();
        let staying = staying.filter(|_| self.state.agent_status == AgentStatus::Ready);
        let is_staying =
            |dispatch: &Dispatch| staying.is_some_and(|agent| dispatch.has_job_for(agent));
        let kept = live.iter().min_by_key(|dispatch| {
            (!is_staying(dispatch), dispatch.created_at, dispatch.id.clone())
        });
        let kept = kept.map(|dispatch| dispatch.id.clone());
        let is_second = |dispatch: &Dispatch| {
            staying.is_some()
                && !is_staying(dispatch)
                && seen.agents().any(|agent| dispatch.has_job_for(&agent.identity))
        };
        // Where the one that stays is listed, no other is left: a dead agent's would count as taken
        // once the agent after it has gone, too. Nor is one whose job is not shown yet, where a
        // second agent is in the room: LiveKit, opening the room again, has asked by it of itself.
        let unshown_is_second =
            self.has_several_agents && self.dispatch_lost_at().is_none_or(|at| self.now >= at);
        let is_staying_listed = seen.own_dispatches().any(is_staying);
        let is_superfluous = |one: &&Dispatch| {
            let is_kept = Some(&one.id) == kept.as_ref();
            if is_staying_listed {
                return !is_kept;
            }
            if one.jobs.is_empty() {
                return staying.is_some() && unshown_is_second;
            }
            self.is_live(one) && (!is_kept || is_second(one))
        };
        let superfluous = seen.own_dispatches().filter(is_superfluous).map(Dispatch::delete);
        let superfluous: Vec<_> = superfluous.collect();
        self.actions.extend(superfluous);
    }
}

impl Dispatch {
    fn delete(&self) -> Action {
        Action::DeleteDispatch(self.id.clone())
    }
}
