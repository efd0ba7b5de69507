// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"bytes"
	"math/rand/v2"
)

// The times of RFC 4861 §10, in seconds.
const (
	maxInitialInterval = 16 // MAX_INITIAL_RTR_ADVERT_INTERVAL
	maxInitial         = 3  // MAX_INITIAL_RTR_ADVERTISEMENTS
	maxFinal           = 3  // MAX_FINAL_RTR_ADVERTISEMENTS
	minDelay           = 3  // MIN_DELAY_BETWEEN_RAS
)

// schedule is when multicast adverts are due, RFC 4861 §6.2.4 to §6.2.6.
// Differences of times are taken as signed numbers, so that the count of seconds
// may wrap.
type schedule struct {
	rng     *rand.Rand
	next    uint32
	last    uint32 // when the last one was sent, if any was
	sent    bool
	begin   bool  // due at once: the next Tick says when that is
	initial uint8 // how many are still to be sent soon after one another
	finals  uint8 // how many are still to be sent after the end

	// changed is what the initial ones say instead of the advert: with what is
	// no more. nil: nothing is gone.
	changed []byte
	ended   saying // what the final ones say
}

// saying is a message and who says it. Without bytes there is none.
type saying struct {
	link  link
	bytes []byte
}

// change begins anew when adverts change, and does not when they don't.
func (t *schedule) change(old, next *advert) {
	switch {
	case next == nil && old == nil:
	case next == nil:
		t.begin, t.initial, t.changed = true, 0, nil
		t.finals, t.ended = maxFinal, saying{old.link, old.final}
	case old == nil:
		t.restart(nil)
	case old.link.mac != next.link.mac || old.link.local != next.link.local || !bytes.Equal(old.message, next.message):
		t.restart(next.without(old))
	}
}

func (t *schedule) restart(changed []byte) {
	t.begin, t.initial, t.changed = true, maxInitial, changed
	t.finals, t.ended = 0, saying{}
}

// due is what is to be sent now, if anything is.
func (t *schedule) due(a *advert, now uint32) saying {
	if t.begin {
		t.begin = false
		t.next = t.soonest(now)
	}
	if int32(now-t.next) < 0 {
		return saying{}
	}
	if a != nil {
		return t.send(a, now)
	}
	if t.finals == 0 {
		return saying{}
	}
	t.finals--
	t.last, t.sent, t.next = now, true, now+minDelay
	return t.ended
}

// soonest is the first second from now on that is not too close to the last
// advert.
func (t *schedule) soonest(now uint32) uint32 {
	if t.sent && now-t.last < minDelay {
		return t.last + minDelay
	}
	return now
}

// send takes the advert of now and sets the time of the next.
func (t *schedule) send(a *advert, now uint32) saying {
	said := saying{a.link, a.message}
	interval := a.min + t.rng.Uint32N(a.max-a.min+1)
	if t.initial > 0 {
		t.initial--
		interval = min(interval, maxInitialInterval)
		if t.changed != nil {
			said.bytes = t.changed
		}
	}
	t.begin, t.last, t.sent, t.next = false, now, true, now+interval
	return said
}

// asked is what is to be sent at once to all, since somebody without an address
// asked; nothing if that has to wait, RFC 4861 §6.2.6.
func (t *schedule) asked(a *advert, now uint32) saying {
	soonest := t.soonest(now)
	if soonest == now {
		return t.send(a, now)
	}
	if !t.begin && int32(soonest-t.next) < 0 {
		t.next = soonest
	}
	return saying{}
}
