// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sluice/api"
	"sluice/packet"
	"sluice/qdisc"
)

// What a burst and what waits may be at most, as parts of what the rate lets through in
// a second. Runtimes ask for bursts of 512 MB, which is no bound at all for seconds.
const (
	burstPart = 100 // 10 ms
	queuePart = 40  // 25 ms, as in the reference plugin
	// queueFrames may wait at any rate: what TCP begins with, and some more.
	queueFrames = 16
	maxBurst    = 1 << 31
)

// shape gives an attachment the disciplines that a runtime's bandwidth means.
func (c *cniRecord) shape(rec *attachmentRecord) error {
	if c == nil || c.Bandwidth == nil {
		return nil
	}
	b := c.Bandwidth
	for _, d := range []struct {
		field       string
		rate, burst uint64
		to          **qdisc.Spec
	}{
		{"bandwidth.ingressRate", b.IngressRate, b.IngressBurst, &rec.Egress},
		{"bandwidth.egressRate", b.EgressRate, b.EgressBurst, &rec.Ingress},
	} {
		if d.rate == 0 {
			continue
		}
		spec := bounded(d.rate/8, d.burst/8, rec.MTU)
		if d.rate < 8 {
			return refuse(api.CodeInvalid, d.field, "%d: want 8 bits a second at least, or 0 for no bound", d.rate)
		}
		if err := qdisc.Check(spec); err != nil {
			return refuse(api.CodeInvalid, d.field, "%s", err)
		}
		*d.to = spec
	}
	return nil
}

// bounded is a tbf of a rate in bytes a second. Its burst is no more than 10 ms of the
// rate, so that the first second keeps it, too, and no less than a frame, without which
// nothing would pass.
func bounded(rate, burst uint64, mtu int) *qdisc.Spec {
	frame := uint64(mtu + packet.EthernetLen + 2*packet.VLANLen)
	most := rate / burstPart
	if burst == 0 || burst > most {
		burst = most
	}
	burst = min(max(burst, frame), maxBurst)
	limit := max(rate/queuePart, queueFrames*frame) + burst
	return &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{
		Kind: "tbf", Handle: qdisc.MakeHandle(1, 0), Parent: qdisc.Root,
		TBF: &qdisc.TBF{Rate: qdisc.Rate{Bytes: rate}, Burst: burst, Limit: int64(min(limit, 1<<40))},
	}}}
}
