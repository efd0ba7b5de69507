// SPDX-License-Identifier: Apache-2.0

package bridge

import "sync/atomic"

// Rate is a limit. Zero is none.
type Rate struct {
	PPS   uint32 `json:"pps,omitempty"`   // frames in a second; an offload frame counts as its segments
	Burst uint32 `json:"burst,omitempty"` // frames at once; 0: a tenth of PPS, at least 1
}

// Storm limits what a port may have flooded, each kind by itself. Zero is no
// limit.
type Storm struct {
	Broadcast Rate `json:"broadcast,omitzero"`
	Multicast Rate `json:"multicast,omitzero"` // any other group
	Unknown   Rate `json:"unknown,omitzero"`   // unicast to a station that nobody knows
}

// floodKind is why a frame is flooded.
type floodKind uint8

const (
	floodUnknown floodKind = iota
	floodMulticast
	floodBroadcast

	floodKinds = 3
)

// rates is the limits by kind.
func (s *Storm) rates() [floodKinds]Rate {
	return [floodKinds]Rate{floodUnknown: s.Unknown, floodMulticast: s.Multicast, floodBroadcast: s.Broadcast}
}

// meter measures one kind by the generic cell rate algorithm (ITU-T I.371): the
// word is the time, in nanoseconds, at which the bucket is full again. Workers
// share it without a lock.
type meter struct{ full atomic.Int64 }

// allow takes n frames out of the bucket; false if they are not in it, and
// nothing is taken. A full bucket lets any one frame pass, or an offload frame
// larger than it never would.
func (m *meter) allow(r Rate, n int, now int64) bool {
	const second = 1e9
	if r.PPS == 0 {
		return true
	}
	burst := int64(r.Burst)
	if burst == 0 {
		burst = max(1, int64(r.PPS/10))
	}
	size, cost := burst*second/int64(r.PPS), int64(n)*second/int64(r.PPS)
	for {
		full := m.full.Load()
		if full > now && full-now+cost > size {
			return false
		}
		if m.full.CompareAndSwap(full, max(full, now)+cost) {
			return true
		}
	}
}
