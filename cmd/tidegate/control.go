package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/tidegate/tidegate/access"
	"github.com/tidegate/tidegate/access/ledger"
	"github.com/tidegate/tidegate/workflows"
	"github.com/tidegate/tidegate/workflows/forge"
)

// clock tells the time.
type clock = func() time.Time

// controlConfig is what the control side is made of.
type controlConfig struct {
	Ledger   *ledger.Ledger
	Forge    forge.Config
	Temporal client.Options
	Rules    workflows.Rules
	Minters  []leaser
	Webhook  access.Secret
	Proxies  []netip.Prefix // before the webhook
	Log      *slog.Logger
	Signals  *signals
}

// control is the running control side: it plans, counts, mints and revokes.
// Webhook is its door for the forge.
type control struct {
	Webhook http.Handler

	flows   *workflows.Control
	client  client.Client
	minters map[string]leaser
	repo    int64
	main    string // the main branch's full ref
	log     *slog.Logger
	events  chan received
	signals *controlSignals
	done    sync.WaitGroup
	cancel  context.CancelFunc
}

// startControl joins forge, policies, ledger and minters to the workflows.
func startControl(ctx context.Context, cfg controlConfig) (*control, error) {
	c := &control{log: cfg.Log, minters: map[string]leaser{}, events: make(chan received, 1024)}
	var err error
	if c.signals, err = newControlSignals(cfg.Signals); err != nil {
		return nil, err
	}
	cfg.Forge.Transport, cfg.Temporal.MetricsHandler = c.signals.hub.watch(cfg.Forge.Transport), c.signals.orchestrate.handler()
	gh, err := forge.New(cfg.Forge)
	if err != nil {
		return nil, err
	}
	if c.repo, err = gh.Repo(ctx); err != nil {
		return nil, fmt.Errorf("find repository %s/%s: %w", cfg.Forge.Owner, cfg.Forge.Repo, err)
	}
	if c.client, err = client.DialContext(ctx, cfg.Temporal); err != nil {
		return nil, fmt.Errorf("reach temporal at %s: %w", cfg.Temporal.HostPort, err)
	}
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := c.start(ctx, cfg, gh); err != nil {
		c.cancel()
		c.client.Close()
		return nil, err
	}
	return c, nil
}

func (c *control) start(ctx context.Context, cfg controlConfig, gh *forge.Forge) error {
	changed, err := cfg.Ledger.Changed(ctx)
	if err != nil {
		return err
	}
	minters := map[string]workflows.Minter{}
	for _, m := range cfg.Minters {
		c.minters[m.Kind()], minters[m.Kind()] = m, m
	}
	hook, err := forge.NewWebhook(forge.WebhookConfig{
		Secret: cfg.Webhook, Repo: c.repo, OnEvent: c.take, Proxies: cfg.Proxies, Log: cfg.Log,
		Result: func(result string) { c.signals.deliveries.WithLabelValues(result).Inc() },
		Keep:   func(ctx context.Context, e forge.Event) error { return c.keepPushers(ctx, cfg.Ledger, e) },
		Seen: func(ctx context.Context, delivery string) (bool, error) {
			first, err := cfg.Ledger.Once(ctx, "delivery", delivery)
			return !first, err
		},
	})
	if err != nil {
		return err
	}
	c.Webhook = hook
	c.main = "refs/heads/" + cmp.Or(cfg.Forge.MainBranch, "main")
	c.flows, err = workflows.Start(ctx, workflows.Config{
		Client: c.client, Changed: changed,
		Activities: workflows.Activities{
			Repo: c.repo, Forge: gh, Policies: policy{}, Ledger: controlLedger{cfg.Ledger}, Minters: minters,
			Rules: cfg.Rules, Log: cfg.Log, Signals: c.signals.Signals,
		},
	})
	if err != nil {
		return err
	}
	c.done.Go(func() { c.hints(ctx) })
	return nil
}

// Close ends the control side and waits for it. Open grants stay open: their
// gateways end them, and the next start goes on.
func (c *control) Close() error {
	c.flows.Stop()
	c.cancel()
	c.done.Wait()
	c.client.Close()
	var errs []error
	for _, m := range c.minters {
		if closer, ok := m.(interface{ Close() error }); ok {
			errs = append(errs, closer.Close())
		}
	}
	return errors.Join(errs...)
}

// keepPushers stores who pushed before the delivery is answered: the queue of
// hints may drop.
// Whoever merges "pushes" the branch's commits to main and is no author of
// them: pushes to main say nothing here.
func (c *control) keepPushers(ctx context.Context, l *ledger.Ledger, e forge.Event) error {
	if e.Kind != forge.EventPush || e.Ref == c.main || e.Sender.ID == 0 {
		return nil
	}
	if err := l.Pushed(ctx, c.repo, e.Pushed(), e.Sender); err != nil {
		return fmt.Errorf("remember who pushed %s: %w", e.After, err)
	}
	return nil
}

// take queues a webhook's event. A full queue drops it: reconciling finds
// what a hint would only have found sooner.
func (c *control) take(e forge.Event) {
	select {
	case c.events <- received{e, time.Now()}:
	default:
		c.signals.hintsLost.WithLabelValues("queue").Inc()
		c.log.Warn("webhook event dropped: the queue is full; reconciling will find it", "event", e.Kind)
	}
}

// hints hands events on in their order.
func (c *control) hints(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-c.events:
			ctx, span := c.signals.delivery(ctx, c.repo, e)
			err := c.flows.Hint(ctx, c.hintOf(e.Event))
			span.Done(err)
			if err != nil {
				c.signals.hintsLost.WithLabelValues("temporal").Inc()
				c.log.Warn("hint not taken; reconciling will find it", "event", e.Kind, "error", err)
			}
		}
	}
}

// hintOf is an event in the workflows' words.
func (c *control) hintOf(e forge.Event) workflows.Hint {
	h := workflows.Hint{Kind: workflows.HintComment, Ref: workflows.Ref{Repo: c.repo, Number: e.Number}}
	switch e.Kind {
	case forge.EventPush:
		h.Kind = workflows.HintPush
	case forge.EventPull:
		h.Kind = workflows.HintPull
	}
	return h
}

// temporalLog brings the Temporal SDK's log into ours; its debug lines stay out.
type temporalLog struct{ *slog.Logger }

func (l temporalLog) Debug(string, ...any) {}
