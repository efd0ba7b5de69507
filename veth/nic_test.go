// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// wire makes an interface wan0 in one namespace whose other end is in a second one.
func wire(t *testing.T) (home, hostNS netns.NsHandle) {
	t.Helper()
	home, hostNS = kt.NewNS(t), kt.NewNS(t)
	kt.RunIn(t, home, "ip", "link", "add", "wan0", "mtu", "1400", "type", "veth", "peer", "name", "far0")
	kt.RunIn(t, home, "ip", "link", "set", "wan0", "alias", "to the world", "up")
	kt.RunIn(t, home, "ip", "link", "set", "far0", "up")
	return home, hostNS
}

func TestNICGoesAndComesBack(t *testing.T) {
	home, hostNS := wire(t)
	before := kt.RunIn(t, home, "ip", "-d", "link", "show", "wan0")
	n := veth.NIC{HomeNS: home, HostNS: hostNS, Name: "wan0", HostName: "sl7", ID: "abc", MTU: 1300}
	for range 2 { // once more after a kill
		mac, mtu, err := n.Take()
		if err != nil || mtu != 1300 || !strings.Contains(before, mac.String()) {
			t.Fatalf("mac %s, mtu %d, %v; it was %s", mac, mtu, err, before)
		}
	}
	if out := kt.RunIn(t, hostNS, "ip", "link", "show", "sl7"); !strings.Contains(out, "NOARP,ALLMULTI,UP") && !strings.Contains(out, "NOARP") || !strings.Contains(out, "ALLMULTI") {
		t.Errorf("among the host ends: %s", out)
	}
	ends, err := veth.HostEnds(hostNS)
	if err != nil || len(ends) != 1 || ends[0].NIC != "wan0" || ends[0].Alias != "abc" || ends[0].Name != "sl7" {
		t.Errorf("host ends: %+v, %v", ends, err)
	}
	if err := veth.DeletePairs(hostNS, "sl7"); !errors.Is(err, veth.ErrConfig) {
		t.Errorf("an interface of the host was deleted as a pair: %v", err)
	}
	for range 2 {
		if err := n.GiveBack(); err != nil {
			t.Fatal(err)
		}
	}
	if after := kt.RunIn(t, home, "ip", "-d", "link", "show", "wan0"); state(after) != state(before) {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}

// state leaves out what depends on the other end's carrier.
func state(s string) string {
	var out []string
	for w := range strings.FieldsSeq(s) {
		if !strings.Contains(w, "UP") && w != "UNKNOWN" && w != "DOWN" && w != "LOWERLAYERDOWN" {
			out = append(out, w)
		}
	}
	return strings.Join(out, " ")
}

func TestNICGoesHomeByItsAlias(t *testing.T) {
	home, hostNS := wire(t)
	n := veth.NIC{HomeNS: home, HostNS: hostNS, Name: "wan0", HostName: "sl7", ID: "abc"}
	if _, _, err := n.Take(); err != nil {
		t.Fatal(err)
	}
	if err := veth.RemoveEnd(hostNS, home, "sl7"); err != nil {
		t.Fatal(err)
	}
	if out := kt.RunIn(t, home, "ip", "link", "show", "wan0"); !strings.Contains(out, "alias to the world") || !strings.Contains(out, ",UP") {
		t.Errorf("at home: %s", out)
	}
}

// TestNICThatWasHalfTaken is a kill between the alias and the move.
func TestNICThatWasHalfTaken(t *testing.T) {
	home, hostNS := wire(t)
	kt.RunIn(t, home, "ip", "link", "set", "wan0", "alias", "nic abc wan0 1400 up to the world", "down")
	n := veth.NIC{HomeNS: home, HostNS: hostNS, Name: "wan0", HostName: "sl7", ID: "abc"}
	if err := n.GiveBack(); err != nil {
		t.Fatal(err)
	}
	if out := kt.RunIn(t, home, "ip", "link", "show", "wan0"); !strings.Contains(out, "alias to the world") || !strings.Contains(out, ",UP") {
		t.Errorf("at home: %s", out)
	}
}

func TestNICShared(t *testing.T) {
	home, hostNS := wire(t)
	n := veth.NIC{HomeNS: home, HostNS: hostNS, Name: "wan0", HostName: "sl8", ID: "def", HostIndex: 1 << 20, Share: "bridge", MAC: mac(9)}
	for range 2 {
		got, mtu, err := n.Take()
		if errors.Is(err, veth.ErrNoMacvlan) {
			t.Skip(err)
		}
		if err != nil || got != mac(9) || mtu != 1400 {
			t.Fatalf("mac %s, mtu %d, %v", got, mtu, err)
		}
	}
	if out := kt.RunIn(t, home, "ip", "link", "show", "wan0"); !strings.Contains(out, "wan0") {
		t.Errorf("the interface below is gone: %s", out)
	}
	for range 2 {
		if err := n.GiveBack(); err != nil {
			t.Fatal(err)
		}
	}
	if ends, err := veth.HostEnds(hostNS); err != nil || len(ends) != 0 {
		t.Errorf("left: %+v, %v", ends, err)
	}
}

func TestNICThatIsNotThere(t *testing.T) {
	home, hostNS := wire(t)
	n := veth.NIC{HomeNS: home, HostNS: hostNS, Name: "wan1", HostName: "sl7", ID: "abc"}
	if _, _, err := n.Take(); !errors.Is(err, veth.ErrNoNIC) {
		t.Errorf("error: %v", err)
	}
	if err := n.GiveBack(); err != nil {
		t.Errorf("nothing to give back: %v", err)
	}
}
