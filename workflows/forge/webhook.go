package forge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-github/v60/github"

	"github.com/tidegate/tidegate/access"
)

const (
	maxDelivery = 1 << 20
	maxInFlight = 16   // deliveries that GitHub signed
	maxCommits  = 2048 // that GitHub puts into one push event
)

var deliveryPattern = regexp.MustCompile(`\A[A-Za-z0-9-]{1,64}\z`)

// The kinds of event.
const (
	EventPull       = "pull"       // a pull request or one of its reviews
	EventPush       = "push"       // a branch moved
	EventComment    = "comment"    // in a pull request
	EventMembership = "membership" // a team changed
	EventCheck      = "check"      // somebody asked for a check again, or pressed a button
)

// Event is a hint that something changed: look there. Only what can't be asked
// for later is more than a hint: who pushed which commits.
type Event struct {
	Kind    string      `json:"kind"`
	Action  string      `json:"action,omitempty"` // GitHub's: "opened", "edited"
	Number  int         `json:"number,omitempty"`
	Comment int64       `json:"comment,omitempty"`
	Commits []string    `json:"commits,omitempty"` // that a push brought
	Sender  access.User `json:"sender"`
	Ref     string      `json:"ref,omitempty"`
	Before  string      `json:"before,omitempty"`
	After   string      `json:"after,omitempty"`
}

// Pushed lists the commits that a push brought, the new head among them.
func (e Event) Pushed() []string {
	commits := slices.Clone(e.Commits)
	if shaPattern.MatchString(e.After) && strings.Trim(e.After, "0") != "" && !slices.Contains(commits, e.After) {
		commits = append(commits, e.After)
	}
	return commits
}

// WebhookConfig says what a Webhook believes and where events go.
type WebhookConfig struct {
	Secret access.Secret
	Repo   int64
	// Seen stores a delivery's id and reports whether it was stored before.
	Seen func(ctx context.Context, delivery string) (bool, error)
	// Keep stores what can't be asked for later, who pushed, before the
	// delivery counts as seen; nil keeps nothing.
	Keep func(ctx context.Context, e Event) error
	// OnEvent takes an event; it must not wait for work to be done.
	OnEvent func(Event)
	// Result counts a delivery by what became of it: one of Results. Nil counts nothing.
	Result func(string)
	// Proxies are believed what they say in X-Forwarded-For.
	Proxies []netip.Prefix
	Log     *slog.Logger
}

// Results are what may become of a delivery: taken as an event, seen before,
// without a use here, refused for what it is, or failed on our side and to be
// sent again.
func Results() []string { return []string{"taken", "repeated", "unused", "refused", "failed"} }

const (
	sayTaken    = "Taken."
	sayRepeated = "Taken before."
)

func resultOf(status int, say string) string {
	switch {
	case status >= 500:
		return "failed"
	case status >= 400:
		return "refused"
	case say == sayTaken:
		return "taken"
	case say == sayRepeated:
		return "repeated"
	}
	return "unused"
}

// Webhook receives GitHub's deliveries. It is an http.Handler.
type Webhook struct {
	cfg    WebhookConfig
	bodies *bodies
	slots  chan struct{}
}

// NewWebhook refuses an empty secret: everybody could sign with it.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	if cfg.Secret.IsZero() {
		return nil, errors.New("make webhook: got an empty secret, want the one that GitHub signs with")
	}
	if cfg.Repo <= 0 || cfg.Seen == nil || cfg.OnEvent == nil {
		return nil, errors.New("make webhook: got no repository, Seen or OnEvent, want all three")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Result == nil {
		cfg.Result = func(string) {}
	}
	return &Webhook{cfg: cfg, bodies: &bodies{within: bodyTime, proxies: cfg.Proxies}, slots: make(chan struct{}, maxInFlight)}, nil
}

// ServeHTTP answers 202 to what it took or need not take, and says why otherwise.
func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, say := h.take(w, r)
	h.cfg.Result(resultOf(status, say))
	if status >= 400 {
		h.cfg.Log.Warn("refuse webhook", "status", status, "why", say, "delivery", clip(line(r.Header.Get("X-GitHub-Delivery")), 64))
	}
	switch status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "10")
	}
	http.Error(w, say, status)
}

func (h *Webhook) take(w http.ResponseWriter, r *http.Request) (status int, say string) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, "Want POST."
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return http.StatusUnsupportedMediaType, "Want application/json: set the webhook's content type."
	}
	delivery, event := r.Header.Get("X-GitHub-Delivery"), r.Header.Get("X-GitHub-Event")
	if !deliveryPattern.MatchString(delivery) || event == "" {
		return http.StatusBadRequest, "Want the headers X-GitHub-Delivery and X-GitHub-Event."
	}
	sig, ok := signatureOf(r.Header.Get("X-Hub-Signature-256"))
	if !ok {
		return http.StatusUnauthorized, sayUnsigned
	}
	body, status, say := h.bodies.read(w, r)
	if status != 0 {
		return status, say
	}
	if !h.signed(sig, body) {
		return http.StatusUnauthorized, sayUnsigned
	}
	select { // not before: these places are GitHub's alone
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return http.StatusServiceUnavailable, "Too many deliveries at once."
	}
	return h.hand(r.Context(), delivery, event, body)
}

const sayUnsigned = "Want X-Hub-Signature-256 made with the webhook's secret."

// signatureOf reads a signature of SHA-256; there is no other.
func signatureOf(header string) ([]byte, bool) {
	given, ok := strings.CutPrefix(header, "sha256=")
	sig, err := hex.DecodeString(given)
	return sig, ok && err == nil && len(sig) == sha256.Size
}

// signed checks the signature over the raw body.
func (h *Webhook) signed(sig, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(h.cfg.Secret.Reveal()))
	mac.Write(body)
	return hmac.Equal(sig, mac.Sum(nil))
}

// hand turns a delivery that GitHub signed into an event, once.
func (h *Webhook) hand(ctx context.Context, delivery, event string, body []byte) (status int, say string) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		return http.StatusBadRequest, "The body is not JSON as GitHub writes it."
	}
	// Teams belong to the organization: their events may name no repository.
	if p.Repository == nil && !organizational(event) || p.Repository != nil && p.Repository.ID != h.cfg.Repo {
		return http.StatusAccepted, "Not about the repository served here."
	}
	if !understood(event) {
		return http.StatusAccepted, "Not an event that is used here."
	}
	e, ok := p.event(event)
	if !ok {
		return http.StatusAccepted, "Nothing to do."
	}
	if h.cfg.Keep != nil {
		if err := h.cfg.Keep(ctx, e); err != nil {
			h.cfg.Log.Error("keep what a delivery says", "delivery", delivery, "error", err)
			return http.StatusServiceUnavailable, "The delivery could not be kept; send it again."
		}
	}
	seen, err := h.cfg.Seen(ctx, delivery)
	if err != nil {
		h.cfg.Log.Error("remember delivery", "delivery", delivery, "error", err)
		return http.StatusServiceUnavailable, "The delivery could not be remembered; send it again."
	}
	if seen {
		return http.StatusAccepted, sayRepeated
	}
	h.cfg.OnEvent(e)
	return http.StatusAccepted, sayTaken
}

func organizational(event string) bool {
	return event == "membership" || event == "team" || event == "organization"
}

func understood(event string) bool {
	switch event {
	case "pull_request", "pull_request_review", "push", "issue_comment", "check_run":
		return true
	}
	return organizational(event)
}

// payload is what is used of GitHub's deliveries. They are read by hand:
// go-github's types want fields that GitHub's own examples have otherwise.
type payload struct {
	Repository *struct {
		ID int64 `json:"id"`
	} `json:"repository"`
	Action  string         `json:"action"`
	Number  int            `json:"number"`
	Sender  account        `json:"sender"`
	Ref     string         `json:"ref"`
	Before  string         `json:"before"`
	After   string         `json:"after"`
	Commits []pushedCommit `json:"commits"`
	Pull    struct {
		Number int `json:"number"`
		Head   struct {
			Ref string `json:"ref"`
			SHA string `json:"sha"`
		} `json:"head"`
	} `json:"pull_request"`
	Issue struct {
		Number int       `json:"number"`
		Pull   *struct{} `json:"pull_request"` // only pull requests have it
	} `json:"issue"`
	Comment struct {
		ID int64 `json:"id"`
	} `json:"comment"`
	CheckRun struct {
		Head  string `json:"head_sha"`
		Pulls []struct {
			Number int `json:"number"`
		} `json:"pull_requests"`
	} `json:"check_run"`
}

type account struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Type  string `json:"type"`
}

type pushedCommit struct {
	ID string `json:"id"`
}

// event keeps what is used of a delivery; ok is false for those without a use.
func (p *payload) event(kind string) (e Event, ok bool) {
	e = Event{Action: p.Action, Sender: user(&github.User{ID: &p.Sender.ID, Login: &p.Sender.Login, Type: &p.Sender.Type})}
	switch kind {
	case "pull_request", "pull_request_review":
		e.Kind, e.Number, e.Before = EventPull, p.Pull.Number, p.Before
		e.After, e.Ref = p.Pull.Head.SHA, p.Pull.Head.Ref
		return e, e.Number > 0
	case "push":
		e.Kind, e.Ref, e.Before, e.After = EventPush, p.Ref, p.Before, p.After
		for _, c := range p.Commits[:min(len(p.Commits), maxCommits)] {
			if shaPattern.MatchString(c.ID) {
				e.Commits = append(e.Commits, c.ID)
			}
		}
		return e, true
	case "issue_comment":
		e.Kind, e.Number, e.Comment = EventComment, p.Issue.Number, p.Comment.ID
		return e, p.Issue.Pull != nil && e.Number > 0
	case "check_run":
		e.Kind, e.After = EventCheck, p.CheckRun.Head
		if list := p.CheckRun.Pulls; len(list) == 1 {
			e.Number = list[0].Number
		}
		return e, e.Action == "rerequested" || e.Action == "requested_action"
	}
	e.Kind = EventMembership
	return e, organizational(kind)
}
