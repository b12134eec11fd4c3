package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
)

// Timeouts of a room, in seconds.
const (
	emptyTimeout     = 300
	departureTimeout = 60
)

// claims are the claims of a caller's token.
type claims struct {
	OrganizationID uuid.UUID `json:"org_id"`
	UserID         string    `json:"user_id,omitempty"`
	jwt.RegisteredClaims
}

var parser = jwt.NewParser(
	jwt.WithValidMethods([]string{"HS256"}),
	jwt.WithExpirationRequired(),
	jwt.WithLeeway(10*time.Second),
)

// authenticated verifies the caller's token before each request.
func (s *server) authenticated(next func(http.ResponseWriter, *http.Request, *claims)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		var caller claims
		key := func(*jwt.Token) (any, error) { return s.authSecret, nil }
		if _, err := parser.ParseWithClaims(token, &caller, key); !found || err != nil || caller.OrganizationID == uuid.Nil {
			writeProblem(w, http.StatusUnauthorized, "unauthenticated")
			return
		}
		next(w, r, &caller)
	}
}

// joinToken signs the token with which the user joins the room.
func (s *server) joinToken(session *session, template *template) (string, error) {
	metadata, err := json.Marshal(map[string]any{
		"session_id": session.ID, "session_template_id": session.TemplateID, "user_id": session.UserID,
	})
	if err != nil {
		return "", err
	}
	allow := true
	grant := &auth.VideoGrant{
		RoomJoin: true, Room: session.Room, CanPublish: &allow, CanSubscribe: &allow, CanPublishData: &allow,
	}
	token := auth.NewAccessToken(s.apiKey, s.apiSecret).
		SetIdentity(session.Identity).
		SetValidFor(time.Until(session.TokenExpiry)).
		SetVideoGrant(grant).
		SetMetadata(string(metadata)).
		SetRoomConfig(&livekit.RoomConfiguration{
			EmptyTimeout: emptyTimeout, DepartureTimeout: departureTimeout, Agents: template.agents(),
		})
	if session.ParticipantName != nil {
		token.SetName(*session.ParticipantName)
	}
	return token.ToJWT()
}

// createRoom opens the room with its agent in one call.
func (s *server) createRoom(ctx context.Context, session *session, template *template) error {
	token, err := auth.NewAccessToken(s.apiKey, s.apiSecret).
		SetVideoGrant(&auth.VideoGrant{RoomCreate: true}).
		SetValidFor(time.Minute).
		ToJWT()
	if err != nil {
		return err
	}
	ctx, err = twirp.WithHTTPRequestHeaders(ctx, http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		return err
	}
	_, err = s.rooms.CreateRoom(ctx, &livekit.CreateRoomRequest{
		Name: session.Room, EmptyTimeout: emptyTimeout, DepartureTimeout: departureTimeout, Agents: template.agents(),
	})
	return err
}

func (t *template) agents() []*livekit.RoomAgentDispatch {
	if t.AgentName == nil {
		return nil
	}
	return []*livekit.RoomAgentDispatch{{AgentName: *t.AgentName, Metadata: t.AgentMetadata}}
}
