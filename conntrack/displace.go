// SPDX-License-Identifier: Apache-2.0

package conntrack

import "sluice/packet"

// Displace ends the connection whose answers are what those of n are to be, so that n
// can be confirmed with that Reply: one of TCP that is closed and whose source is
// translated, if n begins behind what it has sent. So a range of ports that sources share
// is not used up by connections that wait for their timeout (nf_nat_used_tuple_harder of
// Linux); one whose own source it is that comes to the same server gets another port of
// it, or the server might take segments of the old connection for the new one's. False if
// it stays.
func (t *Table) Displace(n *Pending, reply Tuple, now uint32) bool {
	if !n.active || reply.Proto != packet.ProtoTCP || n.state != tcpSynSent {
		return false
	}
	c, d := t.Find(n.Zone, reply)
	if c == (Conn{}) || d != Reply || !c.record().acquireIf(c.want) {
		return false
	}
	r := c.record()
	defer r.release()
	// SYN_SENT2 counts as closed: its number is beyond that of TIME_WAIT, in the kernel too.
	if r.state.Load() < tcpTimeWait || Status(r.status.Load())&(FixedTimeout|SrcNAT) != SrcNAT ||
		int32(n.track.peer[Original].end-r.track.peer[Original].end) <= 0 {
		return false
	}
	c.until(r, now, now) // Confirm finds it over
	return true
}
