package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/webhook"
)

const (
	maxKey   = 255
	maxName  = 128
	maxLimit = 200
)

// Reads the current template and inserts the session in one statement. No row: the template is
// unknown. A row without a session: the idempotency key has been used.
const insertSession = `
	with template as (
		select id, agent_name, agent_metadata::text as agent_metadata, room_creation,
		       join_window_seconds, token_ttl_seconds
		from templates where organization_id = $1 and id = $2 and archived_at is null
	), inserted as (
		insert into sessions (id, organization_id, template_id, user_id, metadata, room_name, participant_identity,
		                      participant_name, token_expiry, join_by, idempotency_key, request_hash)
		select $3, $1, id, $4, $5, $6, $7, $8, now() + make_interval(secs => token_ttl_seconds),
		       now() + make_interval(secs => join_window_seconds), $9, $10
		from template
		on conflict (organization_id, idempotency_key) where idempotency_key is not null do nothing
		returning token_expiry, join_by
	)
	select agent_name, agent_metadata, room_creation, token_expiry, join_by
	from template left join inserted on true`

const columns = `id, template_id, user_id, metadata, room_name, participant_identity, participant_name, status,
	token_expiry, join_by, created_at, started_at, ended_at`

// Columns that only a replay needs come last.
const selectByKey = `select ` + columns + `, request_hash from sessions
	where organization_id = $1 and idempotency_key = $2`

const selectByID = `select ` + columns + ` from sessions where organization_id = $1 and id = $2`

const selectPage = `select ` + columns + ` from sessions where organization_id = $1
	order by created_at desc, id desc limit $2 offset $3`

type template struct {
	AgentName     *string
	AgentMetadata string
	RoomCreation  string
}

type session struct {
	ID              uuid.UUID       `json:"id"`
	TemplateID      uuid.UUID       `json:"session_template_id"`
	UserID          *string         `json:"user_id"`
	Metadata        json.RawMessage `json:"metadata"`
	Room            string          `json:"room_name"`
	Identity        string          `json:"participant_identity"`
	ParticipantName *string         `json:"participant_name"`
	Status          string          `json:"status"`
	TokenExpiry     time.Time       `json:"token_expiry"`
	JoinBy          time.Time       `json:"join_by"`
	CreatedAt       time.Time       `json:"created_at"`
	StartedAt       *time.Time      `json:"started_at"`
	EndedAt         *time.Time      `json:"ended_at"`
}

// startRequest is the body of a start.
type startRequest struct {
	TemplateID      uuid.UUID                  `json:"session_template_id"`
	UserID          *string                    `json:"user_id"`
	ParticipantName *string                    `json:"participant_name"`
	Metadata        map[string]json.RawMessage `json:"metadata"`
}

// startedSession has the field names of Greenroom and of LiveKit's token source.
type startedSession struct {
	SessionID        uuid.UUID `json:"session_id"`
	Room             string    `json:"room_name"`
	Identity         string    `json:"participant_identity"`
	AccessToken      string    `json:"access_token"`
	ParticipantToken string    `json:"participant_token"`
	LiveKitURL       string    `json:"livekit_url"`
	ServerURL        string    `json:"server_url"`
	TokenExpiry      time.Time `json:"token_expiry"`
	JoinBy           time.Time `json:"join_by"`
}

func (s *server) startSession(w http.ResponseWriter, r *http.Request, caller *claims) {
	request, hash, err := decodeStart(w, r)
	key := r.Header.Get("Idempotency-Key")
	if err != nil || len(key) > maxKey || !request.valid() {
		writeProblem(w, http.StatusUnprocessableEntity, "invalid_request")
		return
	}
	if caller.UserID != "" {
		request.UserID = &caller.UserID
	}
	started, template, err := s.insert(r, caller, request, key, hash)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		writeProblem(w, http.StatusNotFound, "template_not_found")
		return
	case errors.Is(err, errKeyReused):
		writeProblem(w, http.StatusConflict, "idempotency_key_reused")
		return
	case err != nil:
		writeFailure(w, "insert session", err)
		return
	}
	if template.RoomCreation == "on_start" {
		if err := s.openRoom(r, caller, started, template); err != nil {
			log.Printf("failed to open room %s: %v", started.Room, err)
			writeProblem(w, http.StatusServiceUnavailable, "livekit_unavailable")
			return
		}
	}
	token, err := s.joinToken(started, template)
	if err != nil {
		writeFailure(w, "sign token", err)
		return
	}
	writeJSON(w, http.StatusCreated, &startedSession{
		SessionID: started.ID, Room: started.Room, Identity: started.Identity,
		AccessToken: token, ParticipantToken: token, LiveKitURL: s.livekitURL, ServerURL: s.livekitURL,
		TokenExpiry: started.TokenExpiry, JoinBy: started.JoinBy,
	})
}

func decodeStart(w http.ResponseWriter, r *http.Request) (*startRequest, []byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, nil, err
	}
	var request startRequest
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, nil, err
	}
	hash := sha256.Sum256(body)
	return &request, hash[:], nil
}

func (r *startRequest) valid() bool {
	short := func(text *string) bool { return text == nil || (*text != "" && len(*text) <= maxName) }
	return r.TemplateID != uuid.Nil && short(r.UserID) && short(r.ParticipantName)
}

var errKeyReused = errors.New("the idempotency key belongs to another request")

// insert stores the session, or returns the one that was stored with the same key.
func (s *server) insert(
	r *http.Request, caller *claims, request *startRequest, key string, hash []byte,
) (*session, *template, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, nil, err
	}
	started := &session{
		ID: id, TemplateID: request.TemplateID, UserID: request.UserID, ParticipantName: request.ParticipantName,
		Room: "session-" + id.String(), Identity: "guest-" + id.String()[24:],
	}
	if request.UserID != nil {
		started.Identity = *request.UserID
	}
	if request.Metadata != nil {
		if started.Metadata, err = json.Marshal(request.Metadata); err != nil {
			return nil, nil, err
		}
	}
	var storedKey *string
	if key != "" {
		storedKey = &key
	}
	var used template
	var expiry, joinBy *time.Time
	err = s.pool.QueryRow(r.Context(), insertSession, caller.OrganizationID, request.TemplateID, id, request.UserID,
		started.Metadata, started.Room, started.Identity, request.ParticipantName, storedKey, hash).
		Scan(&used.AgentName, &used.AgentMetadata, &used.RoomCreation, &expiry, &joinBy)
	if err != nil {
		return nil, nil, err
	}
	if expiry == nil {
		started, err = s.replay(r, caller, key, hash)
		return started, &used, err
	}
	started.TokenExpiry, started.JoinBy = *expiry, *joinBy
	return started, &used, nil
}

func (s *server) replay(r *http.Request, caller *claims, key string, hash []byte) (*session, error) {
	var stored []byte
	row := s.pool.QueryRow(r.Context(), selectByKey, caller.OrganizationID, key)
	earlier, err := scanSession(row, &stored)
	if err == nil && string(stored) != string(hash) {
		err = errKeyReused
	}
	return earlier, err
}

// openRoom opens the room before the answer and records the outcome.
func (s *server) openRoom(r *http.Request, caller *claims, session *session, template *template) error {
	const opened = `update sessions set room_created_at = now() where organization_id = $1 and id = $2`
	const failed = `update sessions set status = 'failed', ended_at = now() where organization_id = $1 and id = $2`
	if err := s.createRoom(r.Context(), session, template); err != nil {
		_, stored := s.pool.Exec(r.Context(), failed, caller.OrganizationID, session.ID)
		return errors.Join(err, stored)
	}
	_, err := s.pool.Exec(r.Context(), opened, caller.OrganizationID, session.ID)
	return err
}

func (s *server) getSession(w http.ResponseWriter, r *http.Request, caller *claims) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		writeProblem(w, http.StatusBadRequest, "invalid_request")
		return
	}
	found, err := scanSession(s.pool.QueryRow(r.Context(), selectByID, caller.OrganizationID, id))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		writeProblem(w, http.StatusNotFound, "session_not_found")
	case err != nil:
		writeFailure(w, "select session", err)
	default:
		writeJSON(w, http.StatusOK, found)
	}
}

func (s *server) listSessions(w http.ResponseWriter, r *http.Request, caller *claims) {
	limit, errLimit := number(r, "limit", 50)
	offset, errOffset := number(r, "offset", 0)
	if errLimit != nil || errOffset != nil || limit < 1 || limit > maxLimit || offset < 0 {
		writeProblem(w, http.StatusBadRequest, "invalid_request")
		return
	}
	rows, err := s.pool.Query(r.Context(), selectPage, caller.OrganizationID, limit, offset)
	if err != nil {
		writeFailure(w, "list sessions", err)
		return
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*session, error) { return scanSession(row) })
	if err != nil {
		writeFailure(w, "list sessions", err)
		return
	}
	writeJSON(w, http.StatusOK, page)
}

func number(r *http.Request, name string, absent int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	return strconv.Atoi(text)
}

// scanSession reads the columns of a session, and further ones after them.
func scanSession(row pgx.Row, more ...any) (*session, error) {
	var s session
	targets := []any{&s.ID, &s.TemplateID, &s.UserID, &s.Metadata, &s.Room, &s.Identity, &s.ParticipantName, &s.Status,
		&s.TokenExpiry, &s.JoinBy, &s.CreatedAt, &s.StartedAt, &s.EndedAt}
	return &s, row.Scan(append(targets, more...)...)
}

// receiveWebhook updates the session of LiveKit's event.
func (s *server) receiveWebhook(w http.ResponseWriter, r *http.Request) {
	event, err := webhook.ReceiveWebhookEvent(r, auth.NewSimpleKeyProvider(s.apiKey, s.apiSecret))
	if err != nil {
		writeProblem(w, http.StatusUnauthorized, "unauthenticated")
		return
	}
	statement := map[string]string{
		webhook.EventParticipantJoined: `update sessions set status = 'active', started_at = coalesce(started_at, now())
			where room_name = $1 and status = 'pending'`,
		webhook.EventRoomFinished: `update sessions set status = 'ended', ended_at = now()
			where room_name = $1 and status in ('pending', 'active')`,
	}[event.GetEvent()]
	if statement == "" {
		return
	}
	if _, err := s.pool.Exec(r.Context(), statement, event.GetRoom().GetName()); err != nil {
		writeFailure(w, "record webhook", err)
	}
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		writeFailure(w, "encode answer", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func writeFailure(w http.ResponseWriter, action string, err error) {
	log.Printf("failed to %s: %v", action, err)
	writeProblem(w, http.StatusInternalServerError, "internal")
}

func writeProblem(w http.ResponseWriter, status int, code string) {
	body, _ := json.Marshal(map[string]any{"status": status, "code": code})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
