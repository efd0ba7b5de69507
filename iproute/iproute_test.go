// SPDX-License-Identifier: Apache-2.0

package iproute_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/bridge"
	"sluice/bridge/guard"
	"sluice/bridge/snoop"
	"sluice/iproute"
	"sluice/routing"
)

// say parses a command whose first word is the object, and shows what was understood.
func say(line string) string {
	words := strings.Fields(line)
	var out any
	var err error
	switch object, rest := words[0], words[1:]; object {
	case "neigh":
		var c iproute.NeighbourChange
		c, err = iproute.ParseNeighbour(rest)
		out = fmt.Sprintf("%v %v %v %v %v", c.Op, c.Addr, c.MAC, c.Dev, c.To)
	case "fdb":
		var c iproute.StationChange
		c, err = iproute.ParseFDB(rest)
		out = fmt.Sprintf("%v %v", c.Op, c.Station)
	case "vlan":
		var c iproute.VLANChange
		c, err = iproute.ParseVLAN(rest)
		out = fmt.Sprintf("%v %v %v pvid=%v untagged=%v", c.Op, c.Dev, c.VIDs, c.PVID, c.Untagged)
	case "mdb":
		var c iproute.GroupChange
		c, err = iproute.ParseMDB(rest)
		out = fmt.Sprintf("%v dev %v %v", c.Op, c.Bridge, c.Group)
	case "addr":
		var c iproute.AddressChange
		c, err = iproute.ParseAddress(rest)
		out = fmt.Sprintf("%v %v %v", c.Op, c.Prefix, c.Dev)
	case "link", "vrf":
		parse := iproute.ParseLink
		if object == "vrf" {
			parse = iproute.ParseVRF
		}
		var c iproute.LinkChange
		c, err = parse(rest, nil)
		out = fmt.Sprintf("%v %s %s table=%d peer=%s@%s mtu=%d master=%s%v said=%v",
			c.Op, c.Name, c.Type, c.Table, c.Peer, c.PeerNamespace, c.MTU, c.Master, c.NoMaster, c.Said)
	}
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprint(out)
}

func TestCommands(t *testing.T) {
	for line, want := range map[string]string{
		"neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev blue":                  "add 10.1.0.9 02:00:00:00:00:09 blue invalid Prefix",
		"neigh replace fd01::9 lladdr 02:00:00:00:00:09 nud permanent dev blue": "replace fd01::9 02:00:00:00:00:09 blue invalid Prefix",
		"neigh del 10.1.0.9 dev blue":                                           "del 10.1.0.9 00:00:00:00:00:00 blue invalid Prefix",
		"neigh flush dev blue":                                                  "flush invalid IP 00:00:00:00:00:00 blue invalid Prefix",
		"neigh flush to 10.0.0.0/8":                                             "flush invalid IP 00:00:00:00:00:00  10.0.0.0/8",
		"neigh add 10.1.0.9 dev blue":                                           "error: needs lladdr",
		"neigh add 10.1.0.9 lladdr 02:00:00:00:00:09":                           "error: needs dev",
		"neigh add 10.1.0.9 lladdr 01:00:00:00:00:09 dev blue":                  `error: "01:00:00:00:00:09": not a unicast link-layer address`,
		"neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 nud reachable dev b":       `error: "reachable": only permanent neighbours can be set`,
		"neigh add 224.0.0.1 lladdr 02:00:00:00:00:09 dev b":                    `error: "224.0.0.1": nobody's address`,
		"neigh -6 add 10.1.0.9 lladdr 02:00:00:00:00:09 dev b":                  `error: "10.1.0.9": not of the family of the line`,
		"neigh show": `error: "show": want add, change, delete, replace, flush`,
		"fdb add 02:00:00:00:00:09 dev red vlan 10 master static":  "add 02:00:00:00:00:09 dev red vlan 10 static",
		"fdb del 02:00:00:00:00:09 dev red":                        "del 02:00:00:00:00:09 dev red static",
		"fdb flush dev red":                                        "flush 00:00:00:00:00:00 dev red static",
		"fdb add 02:00:00:00:00:09 vlan 10":                        "error: needs dev",
		"fdb add 02:00:00:00:00:09 dev red dynamic":                `error: "dynamic": only static entries can be set`,
		"fdb add 02:00:00:00:00:09 dev red vlan 4095":              `error: "4095": want a number from 1 to 4094`,
		"vlan add dev red vid 10 pvid untagged":                    "add red {10 10} pvid=true untagged=true",
		"vlan add dev red vid 10-20":                               "add red {10 20} pvid=false untagged=false",
		"vlan del vid 10 dev red":                                  "del red {10 10} pvid=false untagged=false",
		"vlan add dev red vid 10-20 pvid":                          `error: "pvid": of one VLAN only`,
		"vlan add dev red":                                         "error: needs vid",
		"vlan add vid 20-10 dev red":                               `error: "20-10": want VLANs from 1 to 4094, as 10 or 20-29`,
		"mdb add dev blue port red grp 239.1.1.1 permanent vid 10": "add dev blue port red grp 239.1.1.1 vid 10 permanent",
		"mdb del dev blue port red grp ff05::1":                    "del dev blue port red grp ff05::1 permanent",
		"mdb add dev blue port red grp 10.0.0.1":                   `error: "10.0.0.1": not a multicast group that is forwarded by membership`,
		"mdb add dev blue grp 239.1.1.1":                           "error: needs port",
		"mdb add dev blue port red grp 239.1.1.1 temp":             `error: "temp": only permanent entries can be set`,
		"addr add 10.255.0.1/31 dev to-edge":                       "add 10.255.0.1/31 to-edge",
		"addr del fd00::1/127 dev to-edge":                         "del fd00::1/127 to-edge",
		"addr add 127.0.0.1/8 dev to-edge":                         `error: "127.0.0.1/8": not an address that a device can have`,
		"addr add 10.255.0.1/31":                                   "error: needs dev",
		"vrf add red table 10":                                     "0 red vrf table=10 peer=@ mtu=0 master=false said=[]",
		"vrf del red":                                              "1 red vrf table=0 peer=@ mtu=0 master=false said=[]",
		"vrf add red":                                              "error: needs table",
		"vrf add red table 10 mtu 3":                               `error: "mtu": unknown word`,
		"link add red type vrf table 10":                           "0 red vrf table=10 peer=@ mtu=0 master=false said=[]",
		"link add a mtu 1400 type veth peer name b netns edge":     "0 a veth table=0 peer=b@edge mtu=1400 master=false said=[]",
		"link add a type veth peer name b":                         "error: needs netns, the namespace of the other end",
		"link add a type dummy":                                    `error: "dummy": want type vrf or veth`,
		"link add 0123456789abcdef type vrf table 3":               `error: "0123456789abcdef": not a device name`,
		"link del dev red":                                         "1 red  table=0 peer=@ mtu=0 master=false said=[]",
		"link set dev web mtu 9000 master red":                     "2 web  table=0 peer=@ mtu=9000 master=redfalse said=[]",
		"link set web nomaster rp_filter 2":                        "2 web  table=0 peer=@ mtu=0 master=true said=[[rp_filter 2]]",
		"link set cart isolated on mirror store":                   "2 cart  table=0 peer=@ mtu=0 master=false said=[[isolated on] [mirror_in store] [mirror_out store]]",
		"link set cart":                                            "error: needs what to set",
		"link set cart color red":                                  `error: "color": unknown word`,
		"link set cart isolated":                                   `error: "isolated": needs an argument`,
	} {
		if got := say(line); got != want {
			t.Errorf("%s\n got %s\nwant %s", line, got, want)
		}
	}
}

func TestSettings(t *testing.T) {
	s, err := iproute.ParseSettings(iproute.OfPort, strings.Fields(
		"isolated on learning off guard ip,mac storm_broadcast 100/50 mcast_router always clamp_mss pmtu table main guard_allow 10.9.3.0/16 mcast_fast_leave true"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "clamp_mss pmtu fastleave on guard mac,ip guard_allow 10.9.0.0/16 isolated on learning off mcast_router 2 storm_broadcast 100/50 table 254"
	if got := strings.Join(s.Words(), " "); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if f := s.Flags(); f != bridge.Isolated|bridge.NoLearning|bridge.FastLeave|bridge.FilterBPDU {
		t.Errorf("flags %b", f)
	}
	if s.Guard() != guard.MAC|guard.IP || s.MSS() != 1 || s.Router() != snoop.RouterAlways || s.Table() != routing.TableMain {
		t.Errorf("%v: guard %b, MSS %d, router %v, table %d", s, s.Guard(), s.MSS(), s.Router(), s.Table())
	}
	if got := s.Storm(); got != (bridge.Storm{Broadcast: bridge.Rate{PPS: 100, Burst: 50}}) {
		t.Errorf("storm %+v", got)
	}
	var none iproute.Settings
	if none.Guard() != guard.All || none.Flags() != bridge.FilterBPDU {
		t.Errorf("by default: guard %b, flags %b", none.Guard(), none.Flags())
	}
	back := s.With(iproute.Settings{"guard": "off", "isolated": iproute.Default})
	if back.Guard() != 0 || back.Is("isolated") || !s.Is("isolated") || back.Is("learning") {
		t.Errorf("changed to %v", back)
	}
}

func TestSettingsRefuse(t *testing.T) {
	for line, want := range map[string]string{
		"isolated yes":            `"yes": no value of isolated: want on or off`,
		"storm_unknown 10/0":      `"10/0": no value of storm_unknown: want off, or frames in a second, as 100 or 100/50 with a burst`,
		"table local":             `"local": no value of table: want a table or off`,
		"rp_filter strict":        `"rp_filter": unknown word`,
		"master red":              "mtu and master are no settings of a port",
		"mirror_in a/b":           `"a/b": no value of mirror_in: want a port or off`,
		"guard_allow 10.0.0.0/33": `"10.0.0.0/33": no value of guard_allow: want prefixes, as 10.9.0.0/16,fd09::/64, or off`,
	} {
		if _, err := iproute.ParseSettings(iproute.OfPort, strings.Fields(line), nil); fmt.Sprint(err) != want {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

// TestVLANs follows bridge(8) step by step.
func TestVLANs(t *testing.T) {
	var v *iproute.VLAN
	for _, step := range []struct{ line, want string }{
		{"add dev red vid 10 pvid untagged", "pvid 10 tagged  untagged 10"},
		{"add dev red vid 20-29", "pvid 10 tagged 20-29 untagged 10"},
		{"add dev red vid 11 pvid", "pvid 11 tagged 11,20-29 untagged 10"},
		{"add dev red vid 11", "pvid 0 tagged 11,20-29 untagged 10"},
		{"del dev red vid 22-24", "pvid 0 tagged 11,20-21,25-29 untagged 10"},
		{"del dev red vid 22", "no such file or directory"},
		{"add dev red vid 22-24 untagged", "pvid 0 tagged 11,20-21,25-29 untagged 10,22-24"},
		{"del dev red vid 20-29", "pvid 0 tagged 11 untagged 10"},
		{"del dev red vid 10-11", iproute.ErrLastVLAN.Error()},
		{"flush dev red", "pvid 0 tagged  untagged "},
	} {
		c, err := iproute.ParseVLAN(strings.Fields(step.line))
		if err != nil {
			t.Fatal(err)
		}
		next, err := v.With(c)
		got := fmt.Sprint(err)
		if err == nil {
			v = next
			got = fmt.Sprintf("pvid %d tagged %s untagged %s", v.PVID, v.Tagged, v.Untagged)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.line, diff)
		}
	}
	if v.Aware() {
		t.Error("a flushed port filters VLANs")
	}
	access := iproute.VLAN{PVID: 7}
	if next, err := access.With(iproute.VLANChange{VIDs: bridge.VIDRange{First: 8, Last: 8}}); err != nil || next.Untagged.String() != "7" || next.Tagged.String() != "8" {
		t.Errorf("an access port becomes %+v, %v", next, err)
	}
}

func TestExpandVRF(t *testing.T) {
	table := func(name string) (routing.TableID, bool) { return 10, name == "red" }
	got, err := iproute.ExpandVRF(strings.Fields("add default via 10.0.0.1 vrf red"), table)
	if err != nil || strings.Join(got, " ") != "add default via 10.0.0.1 table 10" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := iproute.ExpandVRF(strings.Fields("add default vrf blue"), table); fmt.Sprint(err) != `"blue": no VRF of that name` {
		t.Error(err)
	}
}
