package postgres

import (
	"context"
	"crypto/rand"
	"sync"
)

// cancelKey is the process id and the secret that a client was given: random,
// the target's own stay with the gateway. Protocol 3.2 has the longer one.
type cancelKey string

const (
	shortKey = 4 + 4
	longKey  = 4 + 32
)

// keyring finds the session that a cancel request means.
type keyring struct {
	mu      sync.Mutex
	bridges map[cancelKey]*bridge
}

func (k *keyring) add(b *bridge, size int) cancelKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		random := make([]byte, size)
		_, _ = rand.Read(random) // never fails
		random[0] &= 0x7f        // a process id is positive
		key := cancelKey(random)
		if _, taken := k.bridges[key]; !taken {
			k.bridges[key] = b
			return key
		}
	}
}

func (k *keyring) remove(key cancelKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.bridges, key)
}

// cancel does what a cancel request asks. One with an unknown key is as
// silent as one that helped.
func (k *keyring) cancel(ctx context.Context, key cancelKey) error {
	k.mu.Lock()
	b := k.bridges[key]
	k.mu.Unlock()
	if b == nil {
		return nil
	}
	return b.cancel(ctx)
}

// cancel ends the wait for a person's answer, or else asks the target.
func (b *bridge) cancel(ctx context.Context) error {
	b.mu.Lock()
	waiting := b.waiting
	b.mu.Unlock()
	if waiting != nil {
		waiting()
		return nil
	}
	return b.up.cancel(ctx)
}
