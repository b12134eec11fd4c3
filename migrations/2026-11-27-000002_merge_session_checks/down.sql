-- `not valid`: existing rows satisfy the two constraints, and are not scanned.
alter table sessions
  drop constraint sessions_lifecycle,
  drop constraint sessions_values,
  add constraint sessions_status_check check (status in ('pending', 'active', 'ended', 'expired', 'failed')) not valid,
  add constraint sessions_end_reason_check check (
    end_reason in ('requested', 'user_left', 'room_closed', 'max_duration', 'join_window', 'agent_unavailable',
                   'agent_left', 'livekit_error')) not valid,
  add constraint sessions_check check ((ended_at is not null) = (status in ('ended', 'expired', 'failed'))) not valid,
  add constraint sessions_check1 check ((end_reason is not null) = (status in ('ended', 'expired', 'failed'))) not valid,
  add constraint sessions_check2 check (next_check_at is not null or status in ('ended', 'expired', 'failed')) not valid,
  add constraint sessions_agent_status_check check (
    agent_status in ('none', 'waiting', 'dispatched', 'ready', 'left', 'unavailable')) not valid,
  add constraint sessions_room_creation_check check (room_creation in ('on_start', 'on_join')) not valid,
  add constraint sessions_enabled_panels_check check (array_position(enabled_panels, null) is null) not valid,
  add constraint sessions_revision check (revision between 0 and 4611686018427387903) not valid;
