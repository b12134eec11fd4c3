// A service that starts LiveKit sessions, as a peer of Greenroom for `cargo xtask bench peers`.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/livekit/protocol/livekit"
)

// Limits of one request.
const (
	maxBody     = 64 << 10
	readTimeout = 10 * time.Second
	idleTimeout = 60 * time.Second
)

// server holds what all requests share.
type server struct {
	pool       *pgxpool.Pool
	rooms      livekit.RoomService
	livekitURL string
	apiKey     string
	apiSecret  string
	authSecret []byte
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s, err := newServer(ctx)
	if err != nil {
		return err
	}
	defer s.pool.Close()
	listener, err := net.Listen("tcp", os.Getenv("LISTEN"))
	if err != nil {
		return err
	}
	service := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
	}
	log.Printf("listening on %s", listener.Addr())
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = service.Shutdown(grace)
	}()
	if err := service.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func newServer(ctx context.Context) (*server, error) {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	size, err := strconv.ParseInt(os.Getenv("POOL_SIZE"), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("POOL_SIZE: %w", err)
	}
	// pgx prepares each statement once per connection by default.
	config.MaxConns, config.MinConns = int32(size), int32(size)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{MaxIdleConns: 64, MaxIdleConnsPerHost: 64, IdleConnTimeout: idleTimeout},
	}
	url := os.Getenv("LIVEKIT_URL")
	return &server{
		pool:       pool,
		rooms:      livekit.NewRoomServiceProtobufClient(strings.Replace(url, "ws", "http", 1), client),
		livekitURL: url,
		apiKey:     os.Getenv("LIVEKIT_API_KEY"),
		apiSecret:  os.Getenv("LIVEKIT_API_SECRET"),
		authSecret: []byte(os.Getenv("AUTH_JWT_SECRET")),
	}, nil
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.pool.Ping(r.Context()); err != nil {
			writeProblem(w, http.StatusServiceUnavailable, "database_unavailable")
		}
	})
	mux.HandleFunc("POST /api/v1/sessions/start", s.authenticated(s.startSession))
	mux.HandleFunc("GET /api/v1/sessions/{id}", s.authenticated(s.getSession))
	mux.HandleFunc("GET /api/v1/sessions", s.authenticated(s.listSessions))
	mux.HandleFunc("POST /webhooks/livekit", s.receiveWebhook)
	return mux
}
