// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"encoding/json"
	"testing"

	"sluice/packet"
	"sluice/trace"
)

func TestPermanent(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	set := func(static ...Static) {
		x.Prepare(Config{Devices: []Device{theDevice()}, Static: static}).Commit()
	}
	x.Resolve(dev, ip4(1), ping(7, 1), 0, out)
	put(x, ip4(2), Reachable, macB(2), 0)
	_, learned, _ := x.Lookup(dev, ip4(2), 0)
	put(x, ip4(3), Reachable, macB(3), 0)
	_, other, _ := x.Lookup(dev, ip4(3), 0)
	set(Static{dev, ip4(1), macA(1), false}, Static{dev, ip4(2), macA(2), false}, Static{dev + 1, ip4(3), macA(3), false})
	if learned.Valid() || !other.Valid() {
		t.Errorf("learned %v, other %v", learned.Valid(), other.Valid())
	}
	mac, one, ok := x.Lookup(dev, ip4(1), 0)
	if !ok || mac != macA(1) || x.State(dev, ip4(1)) != Permanent {
		t.Errorf("%v %v", mac, ok)
	}
	out.take()
	x.Tick(1, out, out.fail)
	wantWords(t, out, "to "+macA(1).String()) // what waited for it
	x.Input(dev, parsed(arp(packet.ARPOpRequest, 1, macB(1), own4, packet.MAC{}, packet.Broadcast()), 3), own, 9, out)
	if r := x.Resolve(dev, ip4(1), ping(7, 2), 9, out); r.Reason != trace.None {
		t.Errorf("%+v", r)
	}
	wantWords(t, out, "to "+macA(1).String())

	set(Static{dev, ip4(1), macA(1), false}, Static{dev, ip4(2), macB(2), false})
	_, two, _ := x.Lookup(dev, ip4(2), 0)
	if !one.Valid() || !two.Valid() || two.MAC() != macB(2) {
		t.Error("an unchanged permanent entry lost its ref")
	}
	set(Static{dev, ip4(2), macB(2), true})
	if one.Valid() || two.Valid() || x.State(dev, ip4(1)) != None {
		t.Error("a permanent entry that left is there")
	}
	checkBooks(t, x)
}

func TestDevicesLeave(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	second := theDevice()
	second.Index++
	x.Prepare(Config{Devices: []Device{theDevice(), second}}).Commit()
	x.Resolve(dev, ip4(1), ping(7, 1), 0, out)
	x.Resolve(dev+1, ip4(1), ping(7, 1), 0, out)
	put(x, ip4(2), Reachable, macA(2), 0)
	_, ref, _ := x.Lookup(dev, ip4(2), 0)
	moved := second
	moved.Addrs = nil // neither of these ends its entries
	x.Prepare(Config{Devices: []Device{moved}}).Commit()
	if ref.Valid() || x.State(dev+1, ip4(1)) != Incomplete || x.Stats().Entries != 1 {
		t.Errorf("%v %v %+v", ref.Valid(), x.State(dev+1, ip4(1)), x.Stats())
	}
	x.Tick(0, out, out.fail)
	if len(out.failed) != 1 || out.failed[0].Reason != trace.PortRemoved || out.failed[0].Device != dev {
		t.Errorf("%+v", out.failed)
	}
	moved.MAC = someone
	x.Prepare(Config{Devices: []Device{moved}}).Commit()
	if x.Stats().Entries != 0 {
		t.Errorf("%+v", x.Stats())
	}
	x.Input(dev, parsed(arp(1, 1, macA(1), own4, packet.MAC{}, packet.Broadcast()), 3), own, 0, out)
	if x.Stats().Entries != 0 {
		t.Error("heard on a device that left")
	}
	checkBooks(t, x)
}

func TestFlush(t *testing.T) {
	x, out := newWorld(Limits{}, Static{dev, ip4(9), macA(9), false}), &tape{}
	put(x, ip4(1), Reachable, macA(1), 0)
	put(x, ip4(2), Stale, macA(2), 0)
	put(x, ip6(2), Stale, macA(2), 0)
	x.Resolve(dev, ip4(3), ping(7, 1), 0, out)
	_, ref, _ := x.Lookup(dev, ip4(1), 0)
	if n := x.Flush(dev, ip4(1)); n != 1 || ref.Valid() {
		t.Errorf("%d, %v", n, ref.Valid())
	}
	if n := x.Flush(dev+1, ip4(2)); n != 0 {
		t.Errorf("%d", n)
	}
	if n := x.Flush(0, pt0()); n != 0 {
		t.Errorf("%d", n)
	}
	if n := x.Flush(0, Entry{}.Addr); n != 3 {
		t.Errorf("%d", n)
	}
	x.Tick(0, out, out.fail)
	if len(out.failed) != 1 || out.failed[0].Addr != ip4(3) || x.State(dev, ip4(9)) != Permanent {
		t.Errorf("%+v", out.failed)
	}
	checkBooks(t, x)
}

func TestEntryAsJSON(t *testing.T) {
	x := newWorld(Limits{})
	put(x, ip4(1), Stale, macA(1), 10)
	text, err := json.Marshal(x.Entries(nil, 12))
	want := `[{"device":10,"addr":"10.9.0.11","mac":"02:aa:00:00:00:01","state":"stale","used":2,"confirmed":2,"updated":2}]`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	var back []Entry
	if err := json.Unmarshal(text, &back); err != nil || back[0] != x.Entries(nil, 12)[0] {
		t.Errorf("%+v, %v", back, err)
	}
	var s State
	if err := s.UnmarshalText([]byte("noarp")); err == nil {
		t.Error("unknown state read")
	}
	if State(99).String() != "unknown" || State(99).Usable() {
		t.Error("unknown state")
	}
}
