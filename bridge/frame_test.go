// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/binary"
	"testing"

	"sluice/packet"
)

// etherTypeTest is the type of the frames of these tests, one for local
// experiments (IEEE 802).
const etherTypeTest = 0x88b5

// station is the MAC of host n; it is the same for the same n.
func station(n int) packet.MAC {
	return packet.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}
}

var (
	broadcast = packet.Broadcast()
	group     = packet.MAC{1, 0, 0x5e, 1, 2, 3}
	reserved  = packet.MAC{1, 0x80, 0xc2, 0, 0, 0x0e}
	ownMAC    = packet.MAC{2, 0xff, 0, 0, 0, 1}
)

// frameBytes is a frame of 60 bytes or more with the payload; VLAN 0 is
// untagged.
func frameBytes(dst, src packet.MAC, vlan uint16, payload uint64) []byte {
	b := append(dst[:], src[:]...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(b, packet.EtherTypeVLAN)
		b = binary.BigEndian.AppendUint16(b, vlan)
	}
	b = binary.BigEndian.AppendUint16(b, etherTypeTest)
	b = binary.BigEndian.AppendUint64(b, payload)
	return append(b, make([]byte, 60-22)...)
}

// framer makes parsed frames in one buffer: each is good until the next.
type framer struct {
	f   packet.Frame
	buf []byte
}

func newFramer() *framer { return &framer{buf: make([]byte, packet.BufLen)} }

func (fr *framer) frame(dst, src packet.MAC, vlan uint16) *packet.Frame {
	return fr.parse(frameBytes(dst, src, vlan, 0))
}

func (fr *framer) parse(b []byte) *packet.Frame {
	fr.f.SetBuf(fr.buf)
	copy(fr.buf[packet.Headroom:], b)
	fr.f.Reset(packet.Headroom, len(b))
	fr.f.View.Parse(fr.f.Bytes())
	return &fr.f
}

// localPort is the local port of the bridges of these tests.
const localPort = 100

// testBridge has ports 1 to n, the local port, and its own MAC on it.
func testBridge(n int, o Options) *Bridge {
	b := New(o)
	b.SetPorts(members(n))
	b.SetStatic([]StaticEntry{{MAC: ownMAC, Port: localPort, Own: true}})
	return b
}

func members(n int) []PortConfig {
	all := []PortConfig{{Index: localPort, MTU: 1500, Local: true}}
	for i := range n {
		all = append(all, PortConfig{Index: uint16(i + 1), MTU: 1500})
	}
	return all
}

// hear lets the bridge hear a broadcast of a station and returns the verdict.
func hear(t testing.TB, b *Bridge, in uint16, mac packet.MAC, now Tick) Verdict {
	t.Helper()
	return b.Input(in, newFramer().frame(broadcast, mac, 0), now)
}
