package postgres

import "sync"

// recent keeps what was used lately, in two generations: when the younger one
// is full, it becomes the older one, and the older one is forgotten. It is
// safe for concurrent use.
type recent[V any] struct {
	maxEntries, maxBytes int // of one generation; bytes of keys

	mu    sync.Mutex
	young map[string]V
	old   map[string]V
	bytes int
}

// get finds a value. The key is bytes, so that looking up copies nothing.
func (c *recent[V]) get(key []byte) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.young[string(key)]; ok {
		return v, true
	}
	v, ok := c.old[string(key)]
	if ok {
		c.add(string(key), v)
	}
	return v, ok
}

func (c *recent[V]) put(key string, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(key, v)
}

func (c *recent[V]) add(key string, v V) {
	if len(key) > c.maxBytes {
		return
	}
	if c.young == nil || len(c.young) >= c.maxEntries || c.bytes+len(key) > c.maxBytes {
		c.old, c.young, c.bytes = c.young, make(map[string]V), 0
	}
	c.young[key] = v
	c.bytes += len(key)
}
