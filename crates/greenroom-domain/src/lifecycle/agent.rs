//! The rules for the agent: presence, dispatch, departure, and surplus dispatches.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Action, AgentPolicy, DecisionBuilder, Dispatch, DispatchOwner, JOB_ASSIGNMENT_TIMEOUT, Job,
    Observation, Participant, RECHECK_INTERVAL, TimelineEvent,
};
use crate::{AgentStatus, EndReason, OnAgentHangup, SessionStatus};

/// Maximum time between the departure of a user and the departure of an agent that leaves because
/// its user left.
const AGENT_EXIT_WINDOW: TimeDelta = TimeDelta::seconds(10);

/// LiveKit's disconnect reason for a participant that disconnected itself.
const CLIENT_INITIATED: &str = "CLIENT_INITIATED";

impl DecisionBuilder<'_> {
    pub(super) fn reconcile_agent(&mut self, observation: &Observation) {
        let Some(policy) = self.session.policy.agent else { return };
        if observation.room.is_none() {
            return;
        }
        if self.state.agent_status == AgentStatus::Unavailable {
            // Repeat until no dispatch is listed: a slow agent could still join.
            self.delete_dispatches(observation);
            return;
        }
        // `schedule` then checks again soon, because LiveKit lists the second agent's job up to
        // five seconds late, and deleting its dispatch removes that agent.
        self.has_several_agents = observation.agents().count() > 1;
        self.is_agent_rejoining = self.is_rejoining(observation);
        if let Some(agent) = self.session_agent(observation) {
            self.observe_agent(agent);
        } else if !self.is_agent_rejoining {
            self.handle_missing_agent(policy, observation);
        }
        if self.state.is_over() {
            return;
        }
        match self.state.agent_status {
            AgentStatus::Dispatched => self.ensure_dispatch(policy, observation),
            // Before the first join, the dispatch is that of the on_join token: LiveKit lists the
            // room before the user.
            AgentStatus::Waiting if self.state.user_joined_at.is_some() => {
                self.delete_dispatches(observation);
            }
            _ => self.delete_surplus_dispatches(observation),
        }
    }

    /// Picks the session's agent. If several agents are present, prefers one without a listed
    /// dispatch, because deleting a dispatch removes its agent, and then the agent already known.
    ///
    /// While an unlisted agent may be foreign, only a known or listed agent qualifies. If a webhook
    /// reported the departure of an agent, the agent is ignored, although LiveKit may list it for a
    /// moment longer. An agent that one observation missed still qualifies.
    fn session_agent<'o>(&self, observation: &'o Observation) -> Option<&'o Participant> {
        let is_departure_reported = self.state.agent_left_reason.is_some();
        let departed = self.state.agent_left_identity.as_deref().filter(|_| is_departure_reported);
        let is_known = |agent: &Participant| {
            self.state.agent_identity.as_deref() == Some(agent.identity.as_str())
        };
        let is_listed = |agent: &Participant| {
            observation.own_dispatches().any(|dispatch| dispatch.has_job_for(&agent.identity))
        };
        let may_be_foreign = observation.may_contain_foreign_agents();
        observation
            .agents()
            .filter(|agent| departed != Some(agent.identity.as_str()))
            .filter(|agent| !may_be_foreign || is_known(agent) || is_listed(agent))
            .min_by_key(|agent| (is_listed(agent), !is_known(agent)))
    }

    /// Returns whether the agent is joining again, with the identity that it had. LiveKit has closed
    /// the previous connection by then.
    fn is_rejoining(&self, observation: &Observation) -> bool {
        let agent = self.state.agent_identity.as_deref();
        self.state.agent_status == AgentStatus::Ready
            && observation.participants.iter().any(|participant| {
                !participant.is_active && Some(participant.identity.as_str()) == agent
            })
    }

    fn observe_agent(&mut self, agent: &Participant) {
        let is_known = self.state.agent_identity.as_deref() == Some(agent.identity.as_str());
        if self.state.agent_left_identity.as_deref() == Some(agent.identity.as_str()) {
            self.state.agent_left_at = None;
            self.state.agent_left_identity = None;
            self.state.agent_left_reason = None;
        }
        if self.state.agent_status == AgentStatus::Ready && is_known {
            return;
        }
        self.state.agent_status = AgentStatus::Ready;
        self.state.agent_identity = Some(agent.identity.clone());
        self.emit_for(TimelineEvent::AgentJoined, &agent.sid);
    }

    fn handle_missing_agent(&mut self, policy: AgentPolicy, observation: &Observation) {
        match self.state.agent_status {
            AgentStatus::Ready if !self.is_departure_known() => {
                // Wait for the webhook: only its reason distinguishes a hang-up from a crash.
                self.state.agent_left_at = Some(self.now);
                self.state.agent_left_identity.clone_from(&self.state.agent_identity);
                self.state.agent_left_reason = None;
                self.emit(TimelineEvent::AgentLeft);
            }
            AgentStatus::Ready if self.has_hung_up() => self.accept_hangup(policy),
            AgentStatus::Ready if !self.is_departure_unexplained() => self.handle_lost_agent(),
            // The agent joined and left between two observations.
            AgentStatus::Dispatched
                if self.has_hung_up()
                    && self.left_since_requested()
                    && !self.has_foreign_agent_left(observation) =>
            {
                self.accept_hangup(policy);
            }
            AgentStatus::Left | AgentStatus::Waiting if self.has_user_rejoined() => {
                self.request_agent();
            }
            _ => {}
        }
    }

    /// Returns whether the recorded departure is that of the agent last observed.
    fn is_departure_known(&self) -> bool {
        self.state.agent_left_at.is_some()
            && self.state.agent_left_identity == self.state.agent_identity
    }

    fn has_hung_up(&self) -> bool {
        self.state.agent_left_reason.as_deref() == Some(CLIENT_INITIATED)
    }

    /// Returns whether the agent is gone and its webhook with the reason may still arrive.
    pub(super) fn is_departure_unexplained(&self) -> bool {
        self.state.agent_status == AgentStatus::Ready
            && self.is_departure_known()
            && self.state.agent_left_reason.is_none()
            && self.state.agent_left_at.is_some_and(|left| self.now < left + RECHECK_INTERVAL)
    }

    /// Returns whether the agent that left last was foreign.
    fn has_foreign_agent_left(&self, observation: &Observation) -> bool {
        self.state
            .agent_left_identity
            .as_deref()
            .is_some_and(|agent| observation.is_foreign_agent(agent))
    }

    fn left_since_requested(&self) -> bool {
        self.state.agent_left_at.is_some()
            && self.state.agent_left_at >= self.state.agent_wanted_since
    }

    /// Returns whether the agent left because its user did. An agent built with livekit-agents
    /// disconnects when its user leaves.
    fn left_with_user(&self) -> bool {
        let departures = self.state.agent_left_at.zip(self.state.user_left_at);
        departures.is_some_and(|(agent, user)| user <= agent && agent - user <= AGENT_EXIT_WINDOW)
    }

    fn has_user_rejoined(&self) -> bool {
        self.state.is_user_present() && self.state.user_joined_at > self.state.agent_left_at
    }

    fn accept_hangup(&mut self, policy: AgentPolicy) {
        // The agent left because the user did, and the user is back already.
        if self.state.is_user_present() && self.left_with_user() {
            self.request_agent();
            return;
        }
        self.state.agent_status = AgentStatus::Left;
        let was_user_present =
            self.state.agent_left_at.is_some_and(|at| self.state.was_user_present(at));
        if policy.on_hangup == OnAgentHangup::End && was_user_present {
            self.finish(SessionStatus::Ended, EndReason::AgentLeft);
        }
    }

    /// Handles an agent that left without hanging up, for example because its worker crashed.
    /// Replaces it if the user is present or has not joined yet, otherwise when the user rejoins.
    fn handle_lost_agent(&mut self) {
        if self.state.is_user_present() || self.state.user_joined_at.is_none() {
            self.request_agent();
        } else {
            self.state.agent_status = AgentStatus::Waiting;
        }
    }

    /// Requests the agent with a new deadline. [`Self::ensure_dispatch`] dispatches it if no agent
    /// is pending.
    fn request_agent(&mut self) {
        self.state.agent_status = AgentStatus::Dispatched;
        self.state.agent_wanted_since = Some(self.now);
        self.state.last_dispatch_at = None;
    }

    pub(super) fn agent_deadline(&self) -> Option<DateTime<Utc>> {
        let policy = self.session.policy.agent?;
        let is_requested = self.state.agent_status == AgentStatus::Dispatched;
        let requested_at = self.state.agent_wanted_since.filter(|_| is_requested)?;
        Some(requested_at + policy.deadline)
    }

    /// Returns the time after which the latest dispatch counts as lost if it has no job.
    fn dispatch_lost_at(&self) -> Option<DateTime<Utc>> {
        self.state.last_dispatch_at.map(|dispatched| dispatched + JOB_ASSIGNMENT_TIMEOUT)
    }

    /// Returns the time of the next dispatch if no worker accepts the latest one.
    pub(super) fn next_dispatch_at(&self) -> Option<DateTime<Utc>> {
        let is_requested = self.state.agent_status == AgentStatus::Dispatched;
        self.dispatch_lost_at().filter(|_| is_requested)
    }

    fn ensure_dispatch(&mut self, policy: AgentPolicy, observation: &Observation) {
        if self.agent_deadline().is_some_and(|deadline| self.now >= deadline) {
            self.state.agent_status = AgentStatus::Unavailable;
            self.emit(TimelineEvent::AgentUnavailable);
            if policy.required {
                self.finish(SessionStatus::Failed, EndReason::AgentUnavailable);
            } else {
                self.delete_dispatches(observation);
            }
            return;
        }
        if observation.dispatches.is_none() {
            return;
        }
        if observation.own_dispatches().any(|dispatch| self.is_live(dispatch)) {
            // A worker accepted the dispatch. A cold agent may need ten seconds to join, and
            // dispatching again would delete this dispatch and kill the agent.
            self.delete_surplus_dispatches(observation);
            return;
        }
        if self.dispatch_lost_at().is_none_or(|lost| self.now >= lost) {
            self.delete_dispatches(observation);
            self.actions.push(Action::Dispatch);
            self.state.last_dispatch_at = Some(self.now);
            self.emit(TimelineEvent::AgentDispatched);
        }
    }

    /// Returns whether a job of the dispatch is pending or running. LiveKit lists the job of a
    /// departed agent as running indefinitely, so that job does not count.
    fn is_live(&self, dispatch: &Dispatch) -> bool {
        let departed = self.state.agent_left_identity.as_deref();
        let has_departed = |job: &Job| {
            !job.participant_identity.is_empty()
                && departed == Some(job.participant_identity.as_str())
        };
        dispatch.jobs.iter().any(|job| job.is_live && !has_departed(job))
    }

    fn delete_dispatches(&mut self, observation: &Observation) {
        self.actions.extend(observation.own_dispatches().map(Dispatch::delete));
    }

    /// Deletes the dispatches that LiveKit added, because any unnamed worker would accept them.
    pub(super) fn delete_unnamed_dispatches(&mut self, observation: &Observation) {
        self.actions
            .extend(observation.dispatches_of(DispatchOwner::Unnamed).map(Dispatch::delete));
    }

    /// Deletes all but one of the dispatches that workers have accepted. Keeps the dispatch of the
    /// session's agent, otherwise the oldest. Also deletes the dispatch of a second agent in the
    /// room.
    fn delete_surplus_dispatches(&mut self, observation: &Observation) {
        let live: Vec<_> =
            observation.own_dispatches().filter(|dispatch| self.is_live(dispatch)).collect();
        let current_agent = self.state.agent_identity.as_deref();
        let current_agent = current_agent.filter(|_| self.state.agent_status == AgentStatus::Ready);
        let is_current =
            |dispatch: &Dispatch| current_agent.is_some_and(|agent| dispatch.has_job_for(agent));
        let kept = live.iter().min_by_key(|dispatch| {
            (!is_current(dispatch), dispatch.created_at, dispatch.id.clone())
        });
        let kept = kept.map(|dispatch| dispatch.id.clone());
        let is_second = |dispatch: &Dispatch| {
            current_agent.is_some()
                && !is_current(dispatch)
                && observation.agents().any(|agent| dispatch.has_job_for(&agent.identity))
        };
        // With two agents in the room, a dispatch without a job brought the second one: LiveKit
        // repeated the dispatch when it opened the room again, and lists the job late. A dispatch
        // of the last six seconds may have brought either agent.
        let are_jobless_surplus =
            self.has_several_agents && self.dispatch_lost_at().is_none_or(|at| self.now >= at);
        // If the current agent's dispatch is listed, delete all others, including those of departed
        // agents: `is_live` knows only the latest departure, and would later count the jobs of
        // earlier agents as running.
        let is_current_listed = observation.own_dispatches().any(is_current);
        let is_surplus = |dispatch: &&Dispatch| {
            let is_kept = Some(&dispatch.id) == kept.as_ref();
            if is_current_listed {
                return !is_kept;
            }
            if dispatch.jobs.is_empty() {
                return current_agent.is_some() && are_jobless_surplus;
            }
            self.is_live(dispatch) && (!is_kept || is_second(dispatch))
        };
        let surplus = observation.own_dispatches().filter(is_surplus).map(Dispatch::delete);
        let surplus: Vec<_> = surplus.collect();
        self.actions.extend(surplus);
    }
}

impl Dispatch {
    fn delete(&self) -> Action {
        Action::DeleteDispatch(self.id.clone())
    }
}
