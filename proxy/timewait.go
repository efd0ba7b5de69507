// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Theory of operation.
//
// An endpoint in TIME-WAIT has a timer of the stack's, and each starts a goroutine when it
// expires: thousands a second, if a container begins so many connections, and to wake
// threads for them takes longer than to serve a connection. So they are ended by who
// admits new connections, two for each, and by the tick.
//
// The stack leaves a SYN alone that is for such an endpoint, unless somebody listens. The
// container has chosen the port anew, and no segment of its is late: the old connection
// ends with that SYN (RFC 9293 §3.6.1 has conditions for it that are met then).

// timeWaitTicks is how long a closed connection is remembered. Its container is
// microseconds away. The stack's own time is to be longer.
const timeWaitTicks = 1

const (
	// enoughWaits is how many are remembered for their whole time; beyond that the oldest
	// go. A container that has so many at once gets through them before the other timers
	// of the first expire, which are a fifth of a second long, and start goroutines, too.
	enoughWaits = 128
	// maxWaits is how many the tick ends at once.
	maxWaits = 1 << 16
)

// timeWaits are the endpoints that have only to be forgotten. The lock is a leaf. The
// zero value has none.
type timeWaits struct {
	mu sync.Mutex
	// +checklocks:mu
	byID map[stack.TransportEndpointID]*tcp.Endpoint
	// +checklocks:mu
	queue []timeWait // the oldest first; what is not in byID any more has ended
}

type timeWait struct {
	id    stack.TransportEndpointID
	ep    *tcp.Endpoint
	since uint32 // ticks
}

// add takes note of an endpoint, if it is in TIME-WAIT.
func (t *timeWaits) add(id stack.TransportEndpointID, ep *tcp.Endpoint, now uint32) {
	if ep.EndpointState() != tcp.StateTimeWait {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID = make(map[stack.TransportEndpointID]*tcp.Endpoint)
	}
	t.byID[id] = ep
	t.queue = append(t.queue, timeWait{id, ep, now})
}

// take takes out the endpoint of an id; nil: there is none.
func (t *timeWaits) take(id *stack.TransportEndpointID) *tcp.Endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	ep := t.byID[*id]
	delete(t.byID, *id)
	return ep
}

// next takes one out of the queue whose time is over by so many ticks, or that
// is one too many; false: there is none. The endpoint is nil if it has ended.
func (t *timeWaits) next(now, by uint32) (ep *tcp.Endpoint, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 || len(t.queue) <= enoughWaits && now-t.queue[0].since <= timeWaitTicks+by {
		return nil, false
	}
	w := t.queue[0]
	t.queue[0] = timeWait{}
	if t.queue = t.queue[1:]; len(t.queue) == 0 {
		t.queue = nil
	}
	if t.byID[w.id] != w.ep {
		return nil, true
	}
	delete(t.byID, w.id)
	return w.ep, true
}

// end ends up to n of those whose time is over by so many ticks.
func (t *timeWaits) end(n int, now, by uint32) {
	for range n {
		ep, ok := t.next(now, by)
		if !ok {
			return
		}
		if ep != nil {
			endTimeWait(ep)
		}
	}
}

// Renew is told of a SYN before it is delivered: what is remembered of an earlier
// connection of the same ports ends.
func (p *Proxy) Renew(id *stack.TransportEndpointID) {
	if ep := p.waits.take(id); ep != nil {
		endTimeWait(ep)
	}
}
