// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/netstack"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// tracking is a snapshot that leads port 5353 of the gateway to its echo service.
func tracking(generation uint64, cables ...*cable) *netstack.Snapshot {
	s := snapshot(generation, cables...)
	s.Namespaces[0].Connections = netstack.ConnectionsSpec{Track: true, Zone: 5, Rules: []nat.Rule{{
		Name: "redirect", Hook: nat.Prerouting, Kind: nat.Redirect,
		Match:  nat.Match{Own: nat.Yes, Protos: []uint8{packet.ProtoUDP}, DstPorts: []nat.PortRange{{Min: 5353, Max: 5353}}},
		Target: nat.Target{Ports: nat.PortRange{Min: 7, Max: 7}},
		Map:    nil,
	}}}
	return s
}

// asks lets a container send a datagram to port 5353 of the gateway, and expects the
// echo from there.
func (c *cable) asks(t *testing.T) {
	t.Helper()
	b := pt.UDP4(pt.Packet{
		SrcMAC: mac(c.index), DstMAC: mac(bridgeIndex), Src: netip.AddrFrom4([4]byte{10, 44, 1, byte(c.index)}), Dst: pt.IP("10.44.0.1"),
		SrcPort: 1000, DstPort: 5353, Payload: []byte("hello"),
	})
	if _, err := unix.Write(c.container, append(make([]byte, packet.VnetLen), b...)); err != nil {
		t.Fatal(err)
	}
	for {
		buf := make([]byte, 2048)
		n, err := c.read(buf)
		if err != nil {
			t.Fatalf("no echo: %v", err)
		}
		f := pt.Frame(buf[packet.VnetLen:n])
		if f.View.Proto != packet.ProtoUDP {
			continue // neighbour discovery
		}
		pt.Check(t, f, pt.IPv4(pt.Src("10.44.0.1")), pt.UDP(pt.SrcPort(5353), pt.DstPort(1000)), pt.Data("hello"))
		return
	}
}

func connFileAt(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := conntrack.CreateFile(path, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// seen are the connections of a zone in a file that a dataplane works on.
func seen(t *testing.T, f *os.File, zone uint16) (all []conntrack.Entry) {
	t.Helper()
	v, err := conntrack.NewView(f)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	v.Entries(&conntrack.Filter{HasZone: true, Zone: zone, Proto: packet.ProtoUDP}, 0, 0, func(e *conntrack.Entry) bool {
		all = append(all, *e)
		return true
	})
	return all
}

// only is the one connection that there has to be, with so many packets there and back.
func only(t *testing.T, f *os.File, packets uint64) conntrack.Entry {
	t.Helper()
	all := seen(t, f, 5)
	if len(all) != 1 {
		t.Fatalf("connections %+v", all)
	}
	e := all[0]
	if e.Packets != [2]uint64{packets, packets} || e.Original.DstPort != 5353 || e.Reply.SrcPort != 7 || e.Port != 1 {
		t.Errorf("%+v, want %d packets", e, packets)
	}
	return e
}

func TestConnectionQueries(t *testing.T) {
	file := connFileAt(t, filepath.Join(t.TempDir(), "connections"))
	c := starts(t, StartConfig{Connections: file})
	if ended, err := c.DeleteConnections(soon(t), nil, []uint32{1, 2}); err != nil || len(ended) != 0 {
		t.Errorf("without tracking: %v, %v", ended, err)
	}
	ports := plugAll(t, 2)
	if err := c.Apply(soon(t), tracking(1, ports...), filesOf(ports...)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ConnEvents(soon(t)); err != nil {
		t.Fatal(err)
	}
	ports[0].asks(t)
	is := only(t, file, 1)
	var events []conntrack.Event
	e, err := c.ConnEvents(soon(t))
	conntrack.DecodeEvents(e.Events, func(ev *conntrack.Event) { events = append(events, *ev) })
	if err != nil || len(events) < 2 || events[0].Kind != conntrack.EventNew || events[0].Entry.Zone != 5 || e.Lost != 0 || e.More {
		t.Errorf("events %+v, %v", events, err)
	}
	if err := c.CloseConnEvents(soon(t)); err != nil {
		t.Error(err)
	}
	if s, err := c.ConnStats(soon(t)); err != nil || s.Table.Entries != 1 || s.Cap != 4096 {
		t.Errorf("stats %+v, %v", s, err)
	}
	if _, err := c.Bindings(soon(t)); err != nil {
		t.Error(err)
	}
	other := &conntrack.Filter{HasZone: true, Zone: 6}
	if ended, err := c.DeleteConnections(soon(t), other, []uint32{is.ID}); len(ended) != 0 || err != nil {
		t.Errorf("deleted %d of another zone, %v", ended, err)
	}
	var no *RefusedError
	if _, err := c.DeleteConnections(soon(t), nil, make([]uint32, MaxDelete+1)); !errors.As(err, &no) {
		t.Errorf("too many at once: %v", err)
	}
	if ended, err := c.DeleteConnections(soon(t), nil, []uint32{is.ID, is.ID + 4096, 77}); !slices.Equal(ended, []uint32{is.ID}) || err != nil {
		t.Errorf("deleted %d, %v", ended, err)
	}
	if left := seen(t, file, 5); len(left) != 0 {
		t.Errorf("%+v is left", left)
	}
}

// TestConnectionsOutliveTheProcess that is killed, and one that hands over, which has
// a file of its own.
func TestConnectionsOutliveTheProcess(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	path := filepath.Join(filepath.Dir(cfg.Listen), "connections")
	cfg.Connections = connFileAt(t, path)
	ports := plugAll(t, 2)
	first := starts(t, cfg)
	if err := first.Apply(soon(t), tracking(1, ports...), filesOf(ports...)); err != nil {
		t.Fatal(err)
	}
	ports[0].asks(t)
	only(t, cfg.Connections, 1)
	kill(t, first)

	second := starts(t, cfg)
	if err := second.Apply(soon(t), tracking(1, ports...), filesOf(ports...)); err != nil {
		t.Fatal(err)
	}
	ports[0].asks(t)
	only(t, cfg.Connections, 2)

	if _, err := Handover(soon(t), second, cfg); err == nil {
		t.Fatal("two processes on one file")
	}
	cfg.Connections = connFileAt(t, path+".next")
	third, err := Handover(soon(t), second, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, third) })
	adopted(t, third)
	ports[0].asks(t)
	only(t, cfg.Connections, 3)
	third.Close()

	again := adopts(t, cfg.Listen)
	adopted(t, again)
	if f := again.ConnectionFile(); f == nil || !sameFile(t, f, cfg.Connections) {
		t.Error("the file of an adopted process is another")
	}
	only(t, again.ConnectionFile(), 3)
	kill(t, again)
}
