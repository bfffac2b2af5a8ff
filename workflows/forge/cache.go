package forge

import (
	"container/list"
	"sync"
)

// lru keeps the values used last, up to a total cost.
type lru[T any] struct {
	mu    sync.Mutex
	most  int
	cost  int
	order *list.List // the front was used last
	byKey map[string]*list.Element
}

type kept[T any] struct {
	key   string
	value T
	cost  int
}

func newLRU[T any](most int) *lru[T] {
	return &lru[T]{most: most, order: list.New(), byKey: map[string]*list.Element{}}
}

func (c *lru[T]) get(key string) (value T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(kept[T]).value, true
}

func (c *lru[T]) put(key string, value T, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[key]; ok {
		c.drop(e)
	}
	if cost > c.most {
		return
	}
	c.byKey[key] = c.order.PushFront(kept[T]{key, value, cost})
	for c.cost += cost; c.cost > c.most; {
		c.drop(c.order.Back())
	}
}

func (c *lru[T]) drop(e *list.Element) {
	old := c.order.Remove(e).(kept[T])
	delete(c.byKey, old.key)
	c.cost -= old.cost
}
