// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of what clients may ask for.
const (
	// rate is how many queries a client may send in a second, in the long run and at
	// once: more than a resolver library ever does, and some percent of a CPU.
	rate = 4000
	// maxClientOpen and maxOpen are how many queries may wait for an upstream, of one
	// client and of all.
	maxClientOpen = 64
	maxOpen       = 1024
	// maxClients is how many clients are remembered.
	maxClients = 8192
)

// Client is who asks: a container by its port, or an address if it is none's.
type Client struct {
	Port uint16
	Addr netip.Addr
}

// key is what a client is limited by.
func (c Client) key() Client {
	if c.Port != 0 {
		return Client{Port: c.Port}
	}
	if c.Addr.Is6() { // who has one address of a subnet may have all of it
		if p, err := c.Addr.Prefix(64); err == nil {
			return Client{Addr: p.Addr()}
		}
	}
	return c
}

// limits are the clients' accounts.
type limits struct {
	mu sync.Mutex
	// +checklocks:mu
	clients map[Client]*account
	// +checklocks:mu
	open int
	// +checklocks:mu
	swept time.Duration
}

type account struct {
	tokens float64
	filled time.Duration
	open   int
}

// admit reports whether a client may send a query now.
func (l *limits) admit(c Client, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account(c.key(), now)
	if a == nil {
		return false
	}
	a.tokens = min(rate, a.tokens+(now-a.filled).Seconds()*rate)
	a.filled = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}

// take reports whether one more query of a client may wait.
func (l *limits) take(c Client, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account(c.key(), now)
	if a == nil || a.open >= maxClientOpen || l.open >= maxOpen {
		return false
	}
	a.open++
	l.open++
	return true
}

// put undoes take.
func (l *limits) put(c Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.clients[c.key()]; a != nil { // it has a query open, so it was not swept
		a.open--
	}
	l.open--
}

// account is a client's; nil if there are too many.
//
// +checklocks:l.mu
func (l *limits) account(c Client, now time.Duration) *account {
	if a := l.clients[c]; a != nil {
		return a
	}
	if len(l.clients) >= maxClients {
		l.sweep(now)
	}
	if len(l.clients) >= maxClients {
		return nil
	}
	if l.clients == nil {
		l.clients = make(map[Client]*account)
	}
	a := &account{tokens: rate, filled: now}
	l.clients[c] = a
	return a
}

// sweep forgets those whose account is as a new one's would be, once a second.
//
// +checklocks:l.mu
func (l *limits) sweep(now time.Duration) {
	if now-l.swept < time.Second && l.swept != 0 {
		return
	}
	l.swept = now
	for c, a := range l.clients {
		if a.open == 0 && now-a.filled >= time.Second {
			delete(l.clients, c)
		}
	}
}

func (l *limits) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}
