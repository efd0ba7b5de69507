// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/test/lab"
)

// These are in the spirit of the kernel's selftests net/forwarding, whose names the
// comments give: kernel hosts, Sluice as the bridge. Tags come from the traffic
// tool's sub-interfaces, so that the kernel needs no 8021q.

// plainFrame is a frame with a payload that no host makes by itself.
func plainFrame(src, dst packet.MAC, text string) []byte {
	return pt.Build(pt.EtherHdr{Src: src, Dst: dst, Type: new(uint16(0x88b5))}, pt.Payload(append([]byte(text), make([]byte, 60)...)))
}

// taggedFrame is the same with a tag.
func taggedFrame(src, dst packet.MAC, vid uint16, text string) []byte {
	return pt.Build(pt.EtherHdr{Src: src, Dst: dst}, pt.VLANTag{TCI: vid, Type: new(uint16(0x88b5))}, pt.Payload(append([]byte(text), make([]byte, 60)...)))
}

func saying(text string) func([]byte) bool {
	return func(b []byte) bool { return bytes.Contains(b, []byte(text)) }
}

// unguarded attaches containers to blue that may send what they like.
func unguarded(d *lab.Daemon, names ...string) (all []*lab.NS) {
	for _, name := range names {
		all = append(all, d.Lab().NS(name).Attach("--network", "blue", "--set", "guard off"))
	}
	return all
}

// TestBridgeVLANAware: a trunk, two access ports of different VLANs and a gateway
// in one of them (bridge_vlan_aware).
//
//	trunk: 10 and 20 tagged ---.         .--- access10 (pvid 10)
//	                           +-- blue -+
//	                    gateway in 10    `--- access20 (pvid 20)
func TestBridgeVLANAware(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue + "    vlan: {pvid: 10, untagged: [\"10\"]}\n")
	access10 := l.NS("access10").Attach("--network", "blue", "--vlan", "vid 10 pvid untagged")
	access20 := l.NS("access20").Attach("--network", "blue", "--vlan", "vid 20 pvid untagged")
	trunk := l.NS("trunk").Attach("--network", "blue", "--vlan", "vid 10", "--vlan", "vid 20", "--set", "guard off")
	access10.Ping(d.Gateway(lab.V4))
	access10.Ping(d.Gateway(lab.V6))
	access20.NoPing(d.Gateway(lab.V4))
	access10.NoPing(access20.IP(lab.V4))
	for i, access := range []*lab.NS{access10, access20} {
		v := trunk.VLAN("10.44.0.20"+fmt.Sprint(i)+"/24", "-vid", fmt.Sprint(10*(i+1)))
		trunk.PingBy(3, access.IP(lab.V4), "-i", "0.05", "-I", "vlan0")
		trunk.TryPingFrom("vlan0", []*lab.NS{access20, access10}[i].IP(lab.V4), 1).Expect(1)
		v.Stop()
	}
	// No tag but the port's own comes in, and none goes out of an access port.
	rec10, recTrunk := access10.Record(), trunk.Record()
	src10, all := pt.HW(access10.MAC()), packet.Broadcast()
	access10.Send(taggedFrame(src10, all, 20, "foreign tag"), plainFrame(src10, all, "untagged"))
	trunk.Send(plainFrame(pt.HW(trunk.MAC()), all, "no native"), taggedFrame(pt.HW(trunk.MAC()), all, 10, "of ten"), taggedFrame(pt.HW(trunk.MAC()), all, 30, "of thirty"))
	rec10.Expect("of ten", 1, func(b []byte) bool { return saying("of ten")(b) && binary.BigEndian.Uint16(b[12:]) == 0x88b5 })
	recTrunk.Expect("untagged", 1, func(b []byte) bool { return saying("untagged")(b) && bytes.Equal(b[12:16], []byte{0x81, 0, 0, 10}) })
	for _, text := range []string{"foreign tag", "no native", "of thirty"} {
		rec10.Expect(text, 0, saying(text))
		recTrunk.Expect(text, 0, saying(text))
	}
	if drops(d, access10.Name(), "vlan_ingress") == 0 || drops(d, trunk.Name(), "vlan_ingress") < 2 {
		t.Errorf("vlan_ingress is not counted: %+v", d.Links())
	}
	d.CLI("vlan").Expect(0, access10.Name(), "10 PVID Egress Untagged", trunk.Name())
	// A VLAN is added and taken away while all is up.
	d.CLI("vlan", "add", "dev", access20.Name(), "vid", "10", "pvid", "untagged").Expect(0)
	access20.Ping(access10.IP(lab.V4))
	d.CLI("vlan", "del", "dev", access20.Name(), "vid", "10").Expect(0)
	access20.NoPing(access10.IP(lab.V4))
}

// TestBridgeVLANUnaware: ports without VLANs pass all tags (bridge_vlan_unaware),
// and an own MAC is learned, and forgotten by flush (learning_test).
func TestBridgeVLANUnaware(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	all := unguarded(d, "red", "green", "brown")
	red, green, brown := all[0], all[1], all[2]
	station := pt.HW("02:00:00:00:66:01")
	recs := []*lab.Recording{green.Record(), brown.Record()}
	red.Send(taggedFrame(pt.HW(red.MAC()), packet.Broadcast(), 77, "any tag"))
	for _, r := range recs {
		r.Expect("any tag", 1, saying("any tag"))
	}
	green.Send(plainFrame(pt.HW(green.MAC()), station, "unknown")) // flooded
	recs[1].Expect("unknown", 1, saying("unknown"))
	red.Send(plainFrame(station, packet.Broadcast(), "here I am"))
	green.Send(plainFrame(pt.HW(green.MAC()), station, "known now"))
	recs[1].Expect("known now", 0, saying("known now"))
	d.CLI("fdb").Expect(0, station.String()+" dev "+red.Name())
	d.CLI("link", "set", red.Name(), "learning", "off").Expect(0)
	d.CLI("fdb", "flush", "dev", red.Name()).Expect(0)
	red.Send(plainFrame(pt.HW("02:00:00:00:66:02"), packet.Broadcast(), "unlearned"))
	recs[1].Expect("unlearned", 1, saying("unlearned"))
	green.Send(plainFrame(pt.HW(green.MAC()), pt.HW("02:00:00:00:66:02"), "flooded again"))
	recs[1].Expect("flooded again", 1, saying("flooded again"))
}

// TestBridgeStickyFDB: a static entry doesn't move to the port that its address is
// heard at (bridge_sticky_fdb), and what is to it goes where it says.
func TestBridgeStickyFDB(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	all := unguarded(d, "red", "green", "brown")
	red, green, brown := all[0], all[1], all[2]
	const sticky = "02:00:00:00:66:11"
	d.CLI("fdb", "add", sticky, "dev", red.Name(), "static").Expect(0)
	rec, other := red.Record(), green.Record()
	green.Send(plainFrame(pt.HW(sticky), packet.Broadcast(), "I moved"))
	brown.Send(plainFrame(pt.HW(brown.MAC()), pt.HW(sticky), "to the sticky"))
	rec.Expect("to the sticky", 1, saying("to the sticky"))
	other.Expect("to the sticky", 0, saying("to the sticky"))
	d.CLI("fdb").Expect(0, sticky+" dev "+red.Name()+" master blue static")
	d.CLI("fdb", "del", sticky, "dev", red.Name()).Expect(0)
	green.Send(plainFrame(pt.HW(sticky), packet.Broadcast(), "now I may"))
	brown.Send(plainFrame(pt.HW(brown.MAC()), pt.HW(sticky), "to the moved"))
	other.Expect("to the moved", 1, saying("to the moved"))
}

// TestBridgePortIsolation: isolated ports reach the others and the gateway, not
// each other (bridge_port_isolation).
func TestBridgePortIsolation(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	red := l.NS("red").Attach("--network", "blue", "--set", "isolated on")
	green := l.NS("green").Attach("--network", "blue", "--set", "isolated on")
	brown := l.NS("brown").Attach("--network", "blue")
	for _, f := range both() {
		red.Ping(brown.IP(f))
		brown.Ping(green.IP(f))
		red.Ping(d.Gateway(f))
		red.NoPing(green.IP(f))
	}
	rec, open := green.Record(), brown.Record()
	red.Send(plainFrame(pt.HW(red.MAC()), packet.Broadcast(), "to all"), plainFrame(pt.HW(red.MAC()), pt.HW(green.MAC()), "to one"))
	open.Expect("to all", 1, saying("to all"))
	rec.Expect("to all", 0, saying("to all"))
	rec.Expect("to one", 0, saying("to one"))
	if drops(d, red.Name(), "isolated") == 0 {
		t.Error("nothing is counted as isolated")
	}
	d.CLI("link", "set", green.Name(), "isolated", "off").Expect(0)
	red.Ping(green.IP(lab.V4))
}

// TestBridgeLockedPort: a locked port lets in only sources that an entry of the FDB
// puts behind it (bridge_locked_port).
func TestBridgeLockedPort(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	all := unguarded(d, "red", "green")
	red, green := all[0], all[1]
	d.CLI("link", "set", red.Name(), "locked", "on", "learning", "off").Expect(0)
	red.Ping(green.IP(lab.V4)) // its own address is one
	const stranger = "02:00:00:00:66:21"
	rec := green.Record()
	red.Send(plainFrame(pt.HW(stranger), packet.Broadcast(), "stranger"))
	rec.Expect("stranger", 0, saying("stranger"))
	if drops(d, red.Name(), "locked") != 1 {
		t.Error("it is not counted as locked")
	}
	d.CLI("fdb", "add", stranger, "dev", red.Name(), "static").Expect(0)
	red.Send(plainFrame(pt.HW(stranger), packet.Broadcast(), "authorised"))
	rec.Expect("authorised", 1, saying("authorised"))
}

// TestBridgeFloods: what is flooded, by kind, storm limits, hairpin and BPDUs
// (bridge_mdb_max and no_forwarding have these).
func TestBridgeFloods(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	all := unguarded(d, "red", "green")
	red, green := all[0], all[1]
	src, rec := pt.HW(red.MAC()), green.Record()
	group := packet.MAC{1, 0, 0x5e, 1, 1, 1}
	kinds := []struct {
		word string
		dst  packet.MAC
	}{{"bcast_flood", packet.Broadcast()}, {"mcast_flood", group}, {"flood", pt.HW("02:00:00:00:66:31")}}
	for _, k := range kinds {
		d.CLI("link", "set", green.Name(), k.word, "off").Expect(0)
		red.Send(plainFrame(src, k.dst, "<"+k.word+"> is off"))
		rec.Expect("<"+k.word+"> is off", 0, saying("<"+k.word+"> is off"))
		d.CLI("link", "set", green.Name(), k.word, "on").Expect(0)
		red.Send(plainFrame(src, k.dst, "<"+k.word+"> is on"))
		rec.Expect("<"+k.word+"> is on", 1, saying("<"+k.word+"> is on"))
	}
	d.CLI("link", "set", red.Name(), "storm_broadcast", "10/20").Expect(0)
	var storm [][]byte
	for range 100 {
		storm = append(storm, plainFrame(src, packet.Broadcast(), "storm"))
	}
	red.Send(storm...)
	d.Lab().Eventually("the first broadcasts", patience, func() bool { return rec.Count(saying("storm")) >= 20 })
	lab.Settle(100*time.Millisecond, rec)
	if n := rec.Count(saying("storm")); n < 20 || n > 60 || drops(d, red.Name(), "storm") == 0 {
		t.Errorf("%d of 100 broadcasts passed a limit of 10 a second and 20 at once", n)
	}
	red.Send(plainFrame(src, packet.MAC{1, 0x80, 0xc2, 0, 0, 0}, "bpdu"))
	rec.Expect("bpdu", 0, saying("bpdu"))
	back := red.Record()
	d.CLI("link", "set", red.Name(), "hairpin", "on", "storm_broadcast", "off").Expect(0)
	red.Send(plainFrame(pt.HW("02:00:00:00:66:32"), packet.Broadcast(), "hairpin"))
	back.Expect("hairpin", 1, saying("hairpin"))
}

// TestBridgeMirror copies what one port sends and is sent to another one.
func TestBridgeMirror(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	tap := d.Lab().NS("tap").Attach("--network", "blue")
	d.CLI("link", "set", red.Name(), "mirror", tap.Name()).Expect(0)
	rec := tap.Record()
	red.Ping(green.IP(lab.V4))
	echo := func(kind byte) func([]byte) bool {
		return func(b []byte) bool { return len(b) > 34 && b[23] == packet.ProtoICMP && b[34] == kind }
	}
	rec.Expect("echo request", 3, echo(8))
	rec.Expect("echo reply", 3, echo(0))
	d.CLI("link", "set", red.Name(), "mirror", "off").Expect(0)
	red.Ping(green.IP(lab.V4))
	rec.Expect("echo request", 3, echo(8))
}

// TestBridgeLocalTermination: what a gateway takes is what is for it
// (local_termination): its MAC, broadcast and its groups, not another MAC.
func TestBridgeLocalTermination(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	red := unguarded(d, "red")[0]
	gw, other := pt.HW(d.Networks()[0].MAC), pt.HW("02:00:00:00:66:41")
	rec := red.Record()
	ping := func(dst packet.MAC, id uint16) []byte {
		return pt.Ping4(pt.Packet{SrcMAC: pt.HW(red.MAC()), DstMAC: dst, Src: red.IP(lab.V4), Dst: d.Gateway(lab.V4), ID: id, Payload: []byte("ping")})
	}
	reply := func(id uint16) func([]byte) bool {
		return func(b []byte) bool { return len(b) > 40 && b[34] == 0 && binary.BigEndian.Uint16(b[38:]) == id }
	}
	red.Ping(d.Gateway(lab.V4))
	red.Send(ping(gw, 1001), ping(other, 1002))
	rec.Expect("reply to the gateway's MAC", 1, reply(1001))
	rec.Expect("reply to another MAC", 0, reply(1002))
	node := pt.IP("ff02::1:ff00:1") // the solicited node of fd44::1
	ns := pt.Build(pt.EtherHdr{Src: pt.HW(red.MAC()), Dst: packet.MAC{0x33, 0x33, 0xff, 0, 0, 1}},
		pt.IPv6Hdr{Src: red.IP(lab.V6), Dst: node, HopLimit: 255},
		pt.ICMPHdr{V6: true, Type: packet.NDNeighbourSol}, pt.Payload(solicit(d.Gateway(lab.V6), red)))
	red.Send(ns)
	rec.Expect("advertisement", 1, func(b []byte) bool {
		return len(b) > 58 && b[12] == 0x86 && b[54] == packet.NDNeighbourAdvert && netip.AddrFrom16([16]byte(b[22:38])) == d.Gateway(lab.V6)
	})
}

// solicit is the body of a neighbour solicitation with the asker's MAC.
func solicit(target netip.Addr, from *lab.NS) []byte {
	a, m := target.As16(), pt.HW(from.MAC())
	return append(append(a[:], 1, 1), m[:]...)
}
