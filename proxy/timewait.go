// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Theory of operation.
//
// An endpoint in TIME-WAIT has a timer of the stack's, and each starts a goroutine when it
// expires: thousands a second, if a container begins so many connections, and to wake
// threads for them takes longer than to serve a connection. So they are ended by who
// admits new connections, two for each, and by the tick.

// timeWaitTicks is how long a closed connection is remembered. Its container is
// microseconds away, and has its ports again soon. The stack's own time is to be longer.
const timeWaitTicks = 1

// timeWaits are the endpoints that have only to be forgotten, the oldest first. The lock
// is a leaf.
type timeWaits struct {
	mu sync.Mutex
	// +checklocks:mu
	queue []timeWait
}

type timeWait struct {
	ep    *tcp.Endpoint
	since uint32 // ticks
}

// add takes note of an endpoint, if it is in TIME-WAIT.
func (t *timeWaits) add(ep *tcp.Endpoint, now uint32) {
	if ep == nil || ep.EndpointState() != tcp.StateTimeWait {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, timeWait{ep, now})
}

// next takes one out whose time is over by so many ticks; nil: there is none.
func (t *timeWaits) next(now, by uint32) *tcp.Endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 || now-t.queue[0].since <= timeWaitTicks+by {
		return nil
	}
	ep := t.queue[0].ep
	t.queue[0].ep = nil
	if t.queue = t.queue[1:]; len(t.queue) == 0 {
		t.queue = nil
	}
	return ep
}

// end ends up to n of those whose time is over by so many ticks.
func (t *timeWaits) end(n int, now, by uint32) {
	for range n {
		ep := t.next(now, by)
		if ep == nil {
			return
		}
		endTimeWait(ep)
	}
}
