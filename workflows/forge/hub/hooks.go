package hub

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	hookTimeout   = 10 * time.Second
	hookQueue     = 4096
	keptDelivery  = 2000
	keptResponse  = 4 << 10
	hookID        = 1
	statusWaiting = "pending"
)

// delivery is one attempt to tell the webhook something.
type delivery struct {
	ID             int64
	GUID           string
	Event, Action  string
	Payload        json.RawMessage
	Delivered      time.Time
	Redelivery     bool
	Duration       float64
	Status         string
	StatusCode     int
	Request, Reply map[string]string
	ReplyBody      string
}

type target struct{ URL, Secret string }

// courier delivers webhooks: one goroutine, in order, once each.
type courier struct {
	hub    *Hub
	client *http.Client
	stop   context.CancelFunc
	done   sync.WaitGroup
	queue  chan *delivery

	mu     sync.Mutex
	target target
}

func newCourier(h *Hub, t target) *courier {
	ctx, stop := context.WithCancel(context.Background())
	c := &courier{hub: h, stop: stop, queue: make(chan *delivery, hookQueue), target: t,
		client: &http.Client{Timeout: hookTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	c.done.Go(func() { c.run(ctx) })
	return c
}

func (c *courier) setTarget(t target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = t
}

func (c *courier) current() target {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.target
}

// close ends the delivery under way and waits.
func (c *courier) close() {
	c.stop()
	c.done.Wait()
	c.client.CloseIdleConnections()
}

// enqueue never blocks: what finds the queue full stays in the log as not
// delivered, and the receiver's reconcile finds it.
func (c *courier) enqueue(list []*delivery) {
	for _, d := range list {
		select {
		case c.queue <- d:
		default:
			c.hub.log.Warn("webhook queue is full", "event", d.Event, "delivery", d.GUID)
		}
	}
}

func (c *courier) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-c.queue:
			c.deliver(ctx, *d)
		}
	}
}

func (c *courier) deliver(ctx context.Context, d delivery) {
	t := c.current()
	if t.URL == "" {
		return
	}
	start := time.Now()
	d.Status, d.StatusCode = c.post(ctx, t, &d)
	d.Duration = time.Since(start).Round(time.Millisecond).Seconds()
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.keepDelivery(&d)
	if err := c.hub.store.flush(); err != nil {
		c.hub.log.Error("log delivery", "delivery", d.GUID, "error", err)
	}
}

func (c *courier) post(ctx context.Context, t target, d *delivery) (string, int) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(d.Payload))
	if err != nil {
		return "invalid URL", 0
	}
	mac := hmac.New(sha256.New, []byte(t.Secret))
	mac.Write(d.Payload)
	d.Request = map[string]string{
		"Accept": "*/*", "Content-Type": "application/json", "User-Agent": "GitHub-Hookshot/hub",
		"X-GitHub-Delivery": d.GUID, "X-GitHub-Event": d.Event, "X-GitHub-Hook-ID": strconv.Itoa(hookID),
		"X-GitHub-Hook-Installation-Target-ID":   strconv.FormatInt(c.hub.cfg.RepoID, 10),
		"X-GitHub-Hook-Installation-Target-Type": "repository",
	}
	if t.Secret != "" {
		d.Request["X-Hub-Signature-256"] = "sha256=" + hex.EncodeToString(mac.Sum(nil))
	}
	for k, v := range d.Request {
		req.Header.Set(k, v)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return "failed to connect to host", 0
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, keptResponse)) // kept for people to look at
	d.ReplyBody, d.Reply = string(body), map[string]string{"Content-Type": res.Header.Get("Content-Type")}
	if res.StatusCode < 300 {
		return "OK", res.StatusCode
	}
	return http.StatusText(res.StatusCode), res.StatusCode
}

// emit queues an event; it leaves when the request's records are committed.
func (h *Hub) emit(event, action string, payload obj, by User) {
	payload["repository"], payload["sender"] = h.repoView(), h.userView(by)
	payload["organization"] = obj{"login": h.cfg.Owner, "id": h.cfg.OwnerID, "node_id": nodeID("Organization", h.cfg.OwnerID),
		"url": h.apiBase() + "/orgs/" + h.cfg.Owner, "repos_url": h.apiBase() + "/orgs/" + h.cfg.Owner + "/repos",
		"events_url": h.apiBase() + "/orgs/" + h.cfg.Owner + "/events", "hooks_url": h.apiBase() + "/orgs/" + h.cfg.Owner + "/hooks",
		"issues_url": h.apiBase() + "/orgs/" + h.cfg.Owner + "/issues", "members_url": h.apiBase() + "/orgs/" + h.cfg.Owner + "/members{/member}",
		"public_members_url": h.apiBase() + "/orgs/" + h.cfg.Owner + "/public_members{/member}", "avatar_url": h.htmlBase() + "/avatars/o", "description": nil}
	payload["installation"] = obj{"id": h.cfg.App.InstallationID, "node_id": nodeID("Installation", h.cfg.App.InstallationID)}
	if action != "" {
		payload["action"] = action
	}
	data, err := json.Marshal(payload)
	if err != nil {
		h.log.Error("encode event", "event", event, "error", err)
		return
	}
	h.post(&delivery{GUID: uuid.NewString(), Event: event, Action: action, Payload: data})
}

func (h *Hub) post(d *delivery) {
	if h.hook.current().URL == "" {
		return
	}
	d.ID, d.Delivered, d.Status = h.store.newID(), h.now(), statusWaiting
	h.keepDelivery(d)
	h.outbox = append(h.outbox, d)
}

func (h *Hub) keepDelivery(d *delivery) {
	h.store.deliveries[d.ID] = d
	h.store.put("delivery", d.ID, d)
	for len(h.store.deliveries) > keptDelivery {
		oldest := d.ID
		for id := range h.store.deliveries {
			oldest = min(oldest, id)
		}
		delete(h.store.deliveries, oldest)
		h.store.drop("delivery", oldest)
	}
}

func (h *Hub) hookRoutes() []route {
	out := []route{{"GET /repos/{owner}/{repo}/hooks", RoleAdmin, listHooks}}
	for _, at := range []string{"/repos/{owner}/{repo}/hooks/{hook}", "/app/hook"} {
		out = append(out,
			route{"GET " + at + "/deliveries", roleNone, asApp(listDeliveries)},
			route{"GET " + at + "/deliveries/{id}", RoleRead, getDelivery},
			route{"POST " + at + "/deliveries/{id}/attempts", RoleWrite, redeliver})
	}
	return out
}

// listHooks shows the one webhook, if it leads anywhere. Its secret is never
// shown.
func listHooks(c *call) error {
	var all []target
	if t := c.hook.current(); t.URL != "" {
		all = append(all, t)
	}
	return list(c, all, shown(c.hookView))
}

func (h *Hub) hookView(t target) obj {
	at, created := h.repoURL()+"/hooks/"+strconv.Itoa(hookID), stamp(h.store.meta.Created)
	return obj{"type": "Repository", "id": hookID, "name": "web", "active": true, "events": []string{"*"},
		"config":     obj{"content_type": "json", "insecure_ssl": "0", "url": t.URL, "secret": "********"},
		"updated_at": created, "created_at": created, "url": at, "test_url": at + "/tests", "ping_url": at + "/pings",
		"deliveries_url": at + "/deliveries", "last_response": obj{"code": nil, "status": "unused", "message": nil}}
}

func listDeliveries(c *call) error {
	all := sorted(c.store.deliveries, func(d *delivery) (int64, bool) { return d.ID, true })
	slices.Reverse(all)
	return list(c, all, shown(c.deliveryView))
}

func (h *Hub) deliveryView(d *delivery) obj {
	return obj{"id": d.ID, "guid": d.GUID, "delivered_at": stamp(d.Delivered), "redelivery": d.Redelivery,
		"duration": d.Duration, "status": d.Status, "status_code": d.StatusCode, "event": d.Event, "action": orNil(d.Action),
		"installation_id": h.cfg.App.InstallationID, "repository_id": h.cfg.RepoID, "throttled_at": nil}
}

func (c *call) delivery() (*delivery, error) {
	id, err := c.id("id")
	if err != nil {
		return nil, err
	}
	d, ok := c.store.deliveries[id]
	if !ok {
		return nil, notFound
	}
	return d, nil
}

func getDelivery(c *call) error {
	d, err := c.delivery()
	if err != nil {
		return err
	}
	o := c.deliveryView(d)
	o["url"] = c.hook.current().URL
	o["request"] = obj{"headers": d.Request, "payload": d.Payload}
	o["response"] = obj{"headers": d.Reply, "payload": orNil(d.ReplyBody)}
	return c.reply(http.StatusOK, o)
}

// redeliver sends the same bytes under the same GUID again.
func redeliver(c *call) error {
	d, err := c.delivery()
	if err != nil {
		return err
	}
	c.post(&delivery{GUID: d.GUID, Event: d.Event, Action: d.Action, Payload: d.Payload, Redelivery: true})
	return c.reply(http.StatusAccepted, obj{})
}
