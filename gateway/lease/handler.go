package lease

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// Bounds for one gateway. A gateway that comes back lets its people reconnect
// at this rate; a broken-into one reads the open grants no faster.
const (
	perSecond   = 50
	burst       = 200
	maxInFlight = 64
)

// Config is what a Handler needs. Log and Now have good defaults.
type Config struct {
	// Minter checks the grant's signed row and makes the credential.
	Minter gateway.Minter

	// Gateway says which enrolled gateway asks, from its certificate. An
	// error is an *access.Error, and nothing is answered.
	Gateway func(*http.Request) (name string, err error)

	// Given keeps that a credential is about to leave. An error keeps it here.
	Given func(ctx context.Context, g Given) error

	// Certify vouches for the key with which a gateway signs recordings. Where
	// it is nil nobody's is.
	Certify func(ctx context.Context, gateway string, key ed25519.PublicKey) (Certified, error)

	Log *slog.Logger
	Now func() time.Time
}

// Given is one credential that left, for the audit log: no secret.
type Given struct {
	Gateway    string
	Grant      access.GrantKey
	Generation int
	Session    string
}

// handler answers the questions of gateways.
type handler struct {
	Config
	mu   sync.Mutex
	seen map[string]*meter // by gateway: only enrolled ones get here
}

// Handler answers gateways. It is for a listener that demands and verifies
// client certificates.
func Handler(c Config) (http.Handler, error) {
	if c.Minter == nil || c.Gateway == nil || c.Given == nil {
		return nil, errors.New("lease handler: want a Minter, Gateway and Given")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &handler{Config: c, seen: map[string]*meter{}}
	mux := http.NewServeMux()
	mux.Handle("POST "+Path, h.answer(h.lease))
	if c.Certify != nil {
		mux.Handle("POST "+CertifyPath, h.answer(h.certify))
	}
	return mux, nil
}

// answer lets enrolled gateways ask one kind of question.
func (h *handler) answer(of func(r *http.Request, gateway string) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, err := h.Gateway(r)
		if err != nil {
			h.refuse(w, r, name, err)
			return
		}
		done, err := h.enter(name)
		if err != nil {
			h.refuse(w, r, name, err)
			return
		}
		defer done()
		said, err := of(r, name)
		if err != nil {
			h.refuse(w, r, name, err)
			return
		}
		reply(w, http.StatusOK, said)
	}
}

func misunderstood(err error) error {
	return &access.Error{Code: access.CodeInvalid, Message: "The question was not understood; gateway and control side may be of different versions.", Cause: err}
}

func (h *handler) lease(r *http.Request, name string) (any, error) {
	var q question
	if err := decode(r.Body, maxQuestion, &q); err != nil {
		return nil, misunderstood(err)
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	l, err := h.Minter.Lease(r.Context(), q.Grant, q.Session)
	if err != nil {
		return nil, err
	}
	if err := h.Given(r.Context(), Given{Gateway: name, Grant: l.Grant, Generation: l.Generation, Session: l.Session}); err != nil {
		return nil, err
	}
	h.Log.Info("credential handed out", "gateway", name, "grant", l.Grant.String(), "session", l.Session)
	return toWire(l), nil
}

func (h *handler) certify(r *http.Request, name string) (any, error) {
	var q recorderKey
	if err := decode(r.Body, maxQuestion, &q); err != nil {
		return nil, misunderstood(err)
	}
	if len(q.Key) != ed25519.PublicKeySize {
		return nil, access.Errorf(access.CodeInvalid, "Got a recorder's key of %d bytes, want %d.", len(q.Key), ed25519.PublicKeySize)
	}
	c, err := h.Certify(r.Context(), name, q.Key)
	if err != nil {
		return nil, err
	}
	h.Log.Info("recorder certified", "gateway", name)
	return c, nil
}

// refuse answers with the code and the sentence; the cause stays in the log.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, name string, err error) {
	code := access.CodeOf(err)
	h.Log.Warn("question refused", "path", r.URL.Path, "gateway", name, "remote", r.RemoteAddr, "code", string(code), "error", err)
	status, ok := statuses[code]
	if !ok {
		status = http.StatusInternalServerError
	}
	message := access.Message(err)
	reply(w, status, refusal{code, strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a gateway that went away asks again
}

// meter bounds how much one gateway asks.
type meter struct {
	tokens   float64
	last     time.Time
	inFlight int
}

// enter counts one question; done ends it.
func (h *handler) enter(name string) (done func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.Now()
	m := h.seen[name]
	if m == nil {
		m = &meter{tokens: burst, last: now}
		h.seen[name] = m
	}
	m.tokens = min(burst, m.tokens+now.Sub(m.last).Seconds()*perSecond)
	m.last = now
	if m.tokens < 1 || m.inFlight >= maxInFlight {
		return nil, access.Errorf(access.CodeUnavailable, "Too many sessions open through this gateway at once. Try again in a moment.")
	}
	m.tokens--
	m.inFlight++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		m.inFlight--
	}, nil
}
