package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// devState is what `tidegate dev` keeps across restarts: ports, names and the
// tokens of the pocket GitHub's people. Mark tells `serve` to keep away.
type devState struct {
	Mark         string            `json:"mark"`
	Installation string            `json:"installation"`
	Ports        map[string]int    `json:"ports"`
	HubTokens    map[string]string `json:"hub_tokens"`
	AdminSecret  string            `json:"admin_secret"`

	path string
}

// devFile is where a folder of dev says that it is one.
const devFile = "dev.json"

// devMark stands in everything that dev makes and serve must refuse.
const devMark = "tidegate-dev"

// The people of the play. bob and carol own the data, mallory is a valid
// identity without a grant, ci is a job.
var devPeople = []string{"alice", "bob", "carol", "mallory", "ci"}

// openDevState reads the folder's state or makes a new one.
func openDevState(dir string) (*devState, error) {
	s := &devState{path: filepath.Join(dir, devFile)}
	text, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, s.make(dir)
	case err != nil:
		return nil, fmt.Errorf("read dev state: %w", err)
	}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read dev state %s: %w; remove the folder to start afresh", s.path, err)
	}
	if s.Mark != devMark {
		return nil, fmt.Errorf("read dev state %s: it is not of `tidegate dev`; choose another --dir", s.path)
	}
	return s, s.addPorts()
}

// devPorts are the parts that listen.
var devPorts = []string{"hub", "issuer", "webhook", "gateway", "postgres", "temporal", "metrics", "gateway-ssh", "sshd", "console"}

// addPorts chooses ports for parts that a folder of an older version lacks.
func (s *devState) addPorts() error {
	missing := slices.DeleteFunc(slices.Clone(devPorts), func(name string) bool { return s.Ports[name] != 0 })
	if len(missing) == 0 {
		return nil
	}
	if err := s.choosePorts(missing...); err != nil {
		return err
	}
	return s.write()
}

func (s *devState) write() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode dev state: %w", err)
	}
	return writeNew(s.path, text)
}

func (s *devState) make(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make dev folder: %w", err)
	}
	s.Mark, s.Installation, s.AdminSecret = devMark, "dev"+strings.ToLower(rand.Text()[:5]), rand.Text()
	s.HubTokens = map[string]string{}
	for _, who := range append([]string{"admin", "tidegate-bot"}, devPeople...) {
		s.HubTokens[who] = "hub_" + rand.Text()
	}
	if err := s.choosePorts(devPorts...); err != nil {
		return err
	}
	return s.write()
}

// choosePorts takes free loopback ports, all held open until all are chosen.
// One that is kept for a part that does not listen at the moment is not free.
func (s *devState) choosePorts(names ...string) error {
	if s.Ports == nil {
		s.Ports = map[string]int{}
	}
	kept := slices.Collect(maps.Values(s.Ports))
	for len(names) > 0 {
		l, err := listenSomewhere()
		if err != nil {
			return err
		}
		defer l.Close()
		if port := l.Addr().(*net.TCPAddr).Port; !slices.Contains(kept, port) {
			s.Ports[names[0]], names = port, names[1:]
		}
	}
	return nil
}

// Ports that are kept are chosen below those that a kernel gives to outgoing
// connections (32768 on Linux, more elsewhere): one of these could have the
// port when its part starts.
const (
	firstPort = 12_000
	lastPort  = 32_000
)

// listenSomewhere listens at a free loopback port that is to be kept.
func listenSomewhere() (net.Listener, error) {
	var err error
	for range 100 {
		var l net.Listener
		port := firstPort + mathrand.IntN(lastPort-firstPort)
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("choose ports: %w", err)
}

// addr is the loopback address of a part.
func (s *devState) addr(name string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Ports[name]))
}

// url is the loopback URL of a part.
func (s *devState) url(name string) string { return "http://" + s.addr(name) }

// target is the address of dev's own database, as policies name it.
func (s *devState) target() string { return s.addr("postgres") + "/orders" }
