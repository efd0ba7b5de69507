// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"slices"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// sentFrame is a frame as a stack has sent it, without a View.
func sentFrame(p []byte) *packet.Frame {
	f := pt.Frame(p)
	f.View = packet.View{}
	return f
}

// TestJoinEnds: an end goes with the data before it, with a right sum, if it is of the same
// connection and follows at once; all else stays as it is, in its order.
func TestJoinEnds(t *testing.T) {
	tcp := func(change func(*pt.TCPHdr), payload string) []byte {
		h := pt.TCPHdr{SrcPort: 80, DstPort: 2, Seq: 5, Ack: 7, Flags: pt.ACK | pt.PSH, Window: 9, Options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}}
		if change != nil {
			change(&h)
		}
		return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, h, pt.Payload(payload))
	}
	end := func(change func(*pt.TCPHdr), payload string) []byte {
		return tcp(func(h *pt.TCPHdr) {
			h.Seq, h.Flags = 8, pt.FIN|pt.ACK
			if change != nil {
				change(h)
			}
		}, payload)
	}
	six := func(flags uint8, seq uint32, payload string) []byte {
		return pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.TCPHdr{SrcPort: 80, DstPort: 2, Seq: seq, Ack: 7, Flags: flags}, pt.Payload(payload))
	}
	for name, tc := range map[string]struct {
		data, fin []byte
		want      bool
	}{
		"that follows":           {tcp(nil, "abc"), end(nil, ""), true},
		"of IPv6":                {six(pt.ACK, 5, "abc"), six(pt.FIN|pt.ACK, 8, ""), true},
		"of the other family":    {tcp(nil, "abc"), six(pt.FIN|pt.ACK, 8, ""), false},
		"after a gap":            {tcp(nil, "abc"), end(func(h *pt.TCPHdr) { h.Seq++ }, ""), false},
		"with data":              {tcp(nil, "abc"), end(nil, "d"), false},
		"that acknowledges more": {tcp(nil, "abc"), end(func(h *pt.TCPHdr) { h.Ack++ }, ""), false},
		"of another window":      {tcp(nil, "abc"), end(func(h *pt.TCPHdr) { h.Window++ }, ""), false},
		"of another port":        {tcp(nil, "abc"), end(func(h *pt.TCPHdr) { h.DstPort++ }, ""), false},
		"by a reset":             {tcp(nil, "abc"), end(func(h *pt.TCPHdr) { h.Flags = pt.RST | pt.ACK }, ""), false},
		"after none":             {tcp(nil, ""), end(func(h *pt.TCPHdr) { h.Seq = 5 }, ""), false},
		"after another":          {tcp(func(h *pt.TCPHdr) { h.Flags |= pt.FIN }, "abc"), end(nil, ""), false},
	} {
		frames := []packet.Frame{*sentFrame(tc.data), *sentFrame(tc.fin), *sentFrame(tcp(nil, "behind"))}
		before := [][]byte{slices.Clone(frames[0].Bytes()), slices.Clone(frames[1].Bytes()), slices.Clone(frames[2].Bytes())}
		taken := []waiting{{kind: kindTCP, port: 1}, {kind: kindTCP, port: 2}, {kind: kindTCP, port: 3}}
		n := joinEnds(taken, frames)
		if (n == 2) != tc.want || !tc.want && n != 3 {
			t.Errorf("an end %s: %d frames", name, n)
			continue
		}
		if !bytes.Equal(frames[n-1].Bytes(), before[2]) || taken[n-1].port != 3 {
			t.Errorf("an end %s: the frame behind it is another", name)
		}
		if !tc.want {
			if !bytes.Equal(frames[0].Bytes(), before[0]) || !bytes.Equal(frames[1].Bytes(), before[1]) {
				t.Errorf("an end %s: a frame was changed", name)
			}
			continue
		}
		f := &frames[0]
		if f.View.Parse(f.Bytes()) != 0 || !packet.VerifyL4(f.Bytes(), &f.View) || f.Bytes()[f.View.L4+13]&(flagFIN|flagACK) != flagFIN|flagACK {
			t.Errorf("an end %s: % x", name, f.Bytes())
		}
	}
}

// TestJoinEndsOfConnections: nothing but TCP of a stack is looked at.
func TestJoinEndsOfConnections(t *testing.T) {
	a := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{Seq: 5, Flags: pt.ACK}, pt.Payload("abc"))
	b := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{Seq: 8, Flags: pt.FIN | pt.ACK})
	for _, kinds := range [][2]kind{{kindTCP, kindFrame}, {kindFrame, kindTCP}} {
		frames := []packet.Frame{*sentFrame(a), *sentFrame(b)}
		if n := joinEnds([]waiting{{kind: kinds[0]}, {kind: kinds[1]}}, frames); n != 2 {
			t.Errorf("%v: %d frames", kinds, n)
		}
	}
	short := make([]packet.Frame, 2)
	for i := range short {
		short[i].SetBuf(make([]byte, packet.BufLen))
		short[i].Reset(packet.Headroom, i*packet.EthernetLen)
	}
	if n := joinEnds([]waiting{{kind: kindTCP}, {kind: kindTCP}}, short); n != 2 {
		t.Errorf("of nothing: %d frames", n)
	}
}
