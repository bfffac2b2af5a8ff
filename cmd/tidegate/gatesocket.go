package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/gateway"
)

// A running gateway answers on a socket in its state folder. Who may enter the
// folder may use it: it needs no other part, and no network.
const (
	runDir     = "run" // 0700, so that the socket is nobody else's from its first moment
	socketName = "gateway.sock"

	maxSocketPath = 100 // bytes; kernels take 104 to 108
	socketTimeout = 10 * time.Second
)

// socketPath is absolute: it must not depend on where tidegate is started.
func socketPath(stateDir string) string { return filepath.Join(stateDir, runDir, socketName) }

// closing asks a gateway to end sessions: those that all of it fits. All must
// be said where nothing else is.
type closing struct {
	Grant   string `json:"grant,omitempty"`
	Person  string `json:"person,omitempty"`
	Session string `json:"session,omitempty"`
	All     bool   `json:"all,omitempty"`
	Why     string `json:"why"`
}

func (c closing) check() error {
	if some := c.Grant != "" || c.Person != "" || c.Session != ""; some == c.All {
		return errors.New("want --grant, --person or --session, or else --all")
	}
	if c.Why == "" || len(c.Why) > access.MaxWhy {
		return fmt.Errorf("want a reason of 1 to %d bytes", access.MaxWhy)
	}
	return nil
}

func (c closing) matches(s access.SessionInfo) bool {
	return (c.Grant == "" || c.Grant == s.Grant.ID) &&
		(c.Person == "" || equalLogin(c.Person, s.Person.Login)) &&
		(c.Session == "" || c.Session == s.ID)
}

// closed is the answer.
type closed struct {
	Sessions []access.SessionInfo `json:"sessions"` // that were ended
}

// gateStatus is how a gateway is.
type gateStatus struct {
	Ready    string `json:"ready,omitempty"` // why it opens nothing; empty if it does
	Sessions int    `json:"sessions"`
}

// openSocket serves the socket until the house closes.
func (h *house) openSocket(stateDir string, srv *gateway.Server) error {
	l, err := listenSocket(socketPath(stateDir))
	if err != nil {
		return err
	}
	return h.serveDoor(l, httpDoor{Part: "gateway socket", Handler: socketHandler(srv, h.log.With("part", "gateway"))})
}

// listenSocket takes the place of a socket that a killed process left. Two
// processes never use one state folder at a time.
func listenSocket(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("listen for `tidegate gateway`: got the path %q, want an absolute one", path)
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen for `tidegate gateway`: the path %s has %d bytes and a socket's may have %d; choose a shorter state folder", path, len(path), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder for the gateway's socket: %w", err)
	}
	info, err := os.Lstat(filepath.Dir(path))
	if err == nil {
		err = private(filepath.Dir(path), info, "700")
	}
	if err != nil {
		return nil, fmt.Errorf("use %s for the gateway's socket: %w", filepath.Dir(path), err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for `tidegate gateway`: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the gateway's socket: %w", err), l.Close())
	}
	return l, nil
}

func socketHandler(srv *gateway.Server, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := gateStatus{Sessions: len(srv.Sessions())}
		if err := srv.Ready(); err != nil {
			s.Ready = access.Message(err)
		}
		_ = encodeOne(w, s) // who asked may be gone
	})
	mux.HandleFunc("POST /close", func(w http.ResponseWriter, r *http.Request) {
		var c closing
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&c)
		if err == nil {
			err = c.check()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		done := closed{Sessions: []access.SessionInfo{}}
		srv.CloseWhere(func(s access.SessionInfo) bool {
			if !c.matches(s) {
				return false
			}
			done.Sessions = append(done.Sessions, s)
			return true
		}, "An operator closed this session: "+c.Why)
		for _, s := range done.Sessions {
			log.Warn("session closed by an operator", "session", s.ID, "grant", s.Grant.String(), "person", s.Person.Login, "why", c.Why)
		}
		_ = encodeOne(w, done) // the sessions are ended, whoever hears of it
	})
	return mux
}

// askGateway calls a running gateway over its socket.
func askGateway(ctx context.Context, stateDir, method, path string, in, out any) error {
	socket := socketPath(stateDir)
	if _, err := os.Lstat(socket); err != nil {
		return fmt.Errorf("find the gateway: %s: %s; is it running, and are you the user that runs it?", socket, plainly(err))
	}
	ctx, cancel := context.WithTimeout(ctx, socketTimeout)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask the gateway: %w", err)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("ask the gateway at %s: %w; is it running?", socket, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("ask the gateway: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the gateway answered %s: %s", res.Status, text)
	}
	return json.Unmarshal(text, out)
}
