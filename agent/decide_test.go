// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/api"
	"sluice/packet"
)

// oneNetwork is a state with the network blue and an attachment red of it.
func oneNetwork() *state {
	return &state{
		networks: []networkRecord{{
			Name:     "blue",
			Subnets:  []netip.Prefix{netip.MustParsePrefix("10.44.0.0/29"), netip.MustParsePrefix("fd44::/64")},
			Gateways: []netip.Addr{netip.MustParseAddr("10.44.0.1"), netip.MustParseAddr("fd44::1")},
			Last:     make([]netip.Addr, 2), MTU: 1500, Port: 1, MAC: packet.MAC{2, 0, 0, 0, 0, 1},
		}},
		attachments: []attachmentRecord{{
			ID: "0badcafe", Name: "red", Network: "blue", Netns: "/run/netns/red", NS: nsIdentity{Cookie: 7}, IfName: "eth0", Port: 2,
			MAC:       packet.MAC{2, 0, 0, 0, 0, 2},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.44.0.2/29"), netip.MustParsePrefix("fd44::2/64")},
			MTU:       1500, State: api.StateReady,
		}},
	}
}

func TestDecideFillsEverything(t *testing.T) {
	st := oneNetwork()
	got, n, err := decide(st, &api.AttachRequest{Netns: "tan"}, nsIdentity{Cookie: 8}, "id1", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &attachmentRecord{
		ID: "id1", Name: "tan", Network: "blue", Netns: "/run/netns/tan", NS: nsIdentity{Cookie: 8}, IfName: "eth0",
		Port: 3, MTU: 1500, Offload: true, State: api.StateCreating, MAC: got.MAC,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.44.0.3/29"), netip.MustParsePrefix("fd44::3/64")},
	}
	comparable := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	if diff := cmp.Diff(want, got, comparable, cmp.AllowUnexported(attachmentRecord{})); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if got.MAC[0]&3 != 2 {
		t.Errorf("MAC %s is not local unicast", got.MAC)
	}
	last := []netip.Addr{netip.MustParseAddr("10.44.0.3"), netip.MustParseAddr("fd44::3")}
	if diff := cmp.Diff(last, n.Last, comparable); diff != "" {
		t.Errorf("last leases (-want +got):\n%s", diff)
	}
	if st.networks[0].Last[0].IsValid() {
		t.Error("the state itself was changed")
	}
}

func TestDecideNames(t *testing.T) {
	tests := map[string]struct{ netns, ifname, want string }{
		"namespace":                   {"tan", "", "tan"},
		"its base name is taken":      {"/var/run/netns/red", "", "red-eth0"},
		"another interface":           {"tan", "eth1", "tan-eth1"},
		"a process":                   {"pid:12", "", "pid-12"},
		"a path of a process":         {"/proc/12/ns/net", "", "net"},
		"signs that names don't have": {"/x/büro 7", "", "b-ro-7"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, _, err := decide(oneNetwork(), &api.AttachRequest{Netns: tt.netns, IfName: tt.ifname}, nsIdentity{Cookie: 8}, "id1", nil)
			if err != nil || got.Name != tt.want {
				t.Errorf("got %+v, %v; want name %s", got, err, tt.want)
			}
		})
	}
}

func TestDecideRefuses(t *testing.T) {
	addr := netip.MustParseAddr
	full := oneNetwork()
	for i := 3; i < 7; i++ {
		full.attachments = append(full.attachments, attachmentRecord{
			Network: "blue", Name: fmt.Sprint(i), Port: uint16(i), Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.44.0.%d/29", i))},
		})
	}
	ports := oneNetwork()
	for i := uint16(3); i < counterSlots; i++ {
		ports.attachments = append(ports.attachments, attachmentRecord{Name: fmt.Sprint(i), Port: i})
	}
	several, only4, only6 := oneNetwork(), oneNetwork(), oneNetwork()
	several.networks = append(several.networks, networkRecord{Name: "green"})
	only4.networks[0].Subnets = only4.networks[0].Subnets[:1]
	only6.networks[0].Subnets, only6.networks[0].Gateways = only6.networks[0].Subnets[1:], only6.networks[0].Gateways[1:]

	tests := map[string]struct {
		st    *state
		r     api.AttachRequest
		code  api.Code
		field string
		want  string
	}{
		"no network":             {new(state), api.AttachRequest{}, api.CodeNotFound, "network", "no network is declared; apply a file first"},
		"which network":          {several, api.AttachRequest{}, api.CodeInvalid, "network", "there are 2 networks; say which one"},
		"unknown network":        {several, api.AttachRequest{Network: "x"}, api.CodeNotFound, "network", `no network "x"`},
		"interface name":         {oneNetwork(), api.AttachRequest{IfName: "a/b"}, api.CodeInvalid, "ifname", `"a/b" is not an interface name: 1 to 15 printable ASCII characters without space, /, : and %, not ., .., all or default`},
		"name with a space":      {oneNetwork(), api.AttachRequest{Name: "a b"}, api.CodeInvalid, "name", `"a b": 1 to 128 of A-Z, a-z, 0-9, ., _ and -, beginning with a letter or digit`},
		"name taken":             {oneNetwork(), api.AttachRequest{Name: "red"}, api.CodeExists, "name", `the name "red" is taken`},
		"name is an identifier":  {oneNetwork(), api.AttachRequest{Name: "0badcafe"}, api.CodeExists, "name", `the name "0badcafe" is taken`},
		"MTU too large":          {oneNetwork(), api.AttachRequest{MTU: 1501}, api.CodeOutOfRange, "mtu", "1501 is out of range; network blue allows 1280 to 1500"},
		"MTU too small for IPv6": {oneNetwork(), api.AttachRequest{MTU: 1279}, api.CodeOutOfRange, "mtu", "1279 is out of range; network blue allows 1280 to 1500"},
		"MTU negative":           {only4, api.AttachRequest{MTU: -1}, api.CodeOutOfRange, "mtu", "-1 is out of range; network blue allows 576 to 1500"},
		"MAC is no MAC":          {oneNetwork(), api.AttachRequest{MAC: "02:00"}, api.CodeInvalid, "mac", `"02:00" is not a unicast MAC address, as 02:00:00:00:00:01`},
		"MAC is multicast":       {oneNetwork(), api.AttachRequest{MAC: "03:00:00:00:00:01"}, api.CodeInvalid, "mac", `"03:00:00:00:00:01" is not a unicast MAC address, as 02:00:00:00:00:01`},
		"MAC of the gateway":     {oneNetwork(), api.AttachRequest{MAC: "02:00:00:00:00:01"}, api.CodeInUse, "mac", "02:00:00:00:00:01 is in use in network blue"},
		"IPv6 for IPv4":          {oneNetwork(), api.AttachRequest{IP: addr("fd44::7")}, api.CodeInvalid, "ip", "fd44::7 is not an IPv4 address"},
		"IPv4 for IPv6":          {oneNetwork(), api.AttachRequest{IP6: addr("10.44.0.3")}, api.CodeInvalid, "ip6", "10.44.0.3 is not an IPv6 address"},
		"mapped IPv4 for IPv6":   {oneNetwork(), api.AttachRequest{IP6: addr("::ffff:10.44.0.3")}, api.CodeInvalid, "ip6", "::ffff:10.44.0.3 is not an IPv6 address"},
		"network has no IPv6":    {only4, api.AttachRequest{IP6: addr("fd44::7")}, api.CodeOutOfRange, "ip6", "network blue has no IPv6 subnet"},
		"network has no IPv4":    {only6, api.AttachRequest{IP: addr("10.44.0.3")}, api.CodeOutOfRange, "ip", "network blue has no IPv4 subnet"},
		"address outside":        {oneNetwork(), api.AttachRequest{IP: addr("10.45.0.3")}, api.CodeOutOfRange, "ip", "10.45.0.3 is outside the subnet 10.44.0.0/29"},
		"broadcast address":      {oneNetwork(), api.AttachRequest{IP: addr("10.44.0.7")}, api.CodeOutOfRange, "ip", "10.44.0.7 is the broadcast address of 10.44.0.0/29"},
		"anycast address":        {oneNetwork(), api.AttachRequest{IP6: addr("fd44::")}, api.CodeOutOfRange, "ip6", "fd44:: is the subnet-router anycast address of fd44::/64"},
		"address of the gateway": {oneNetwork(), api.AttachRequest{IP: addr("10.44.0.1")}, api.CodeInUse, "ip", "10.44.0.1 is the gateway of 10.44.0.0/29"},
		"address in use":         {oneNetwork(), api.AttachRequest{IP6: addr("fd44::2")}, api.CodeInUse, "ip6", "fd44::2 is in use by red"},
		"no address left":        {full, api.AttachRequest{}, api.CodeExhausted, "ip", "no address is free in 10.44.0.0/29"},
		"no port left":           {ports, api.AttachRequest{}, api.CodeExhausted, "", "no port number is left: 4095 networks, links, VRFs, uplinks and attachments"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.r.Netns = "tan"
			rec, _, err := decide(tt.st, &tt.r, nsIdentity{Cookie: 8}, "id1", nil)
			e, ok := errors.AsType[*api.Error](err)
			if !ok {
				t.Fatalf("got %+v, %v", rec, err)
			}
			if diff := cmp.Diff(api.Error{Code: tt.code, Field: tt.field, Message: tt.want}, *e); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecideSameInterfaceOfANamespace(t *testing.T) {
	// The same namespace by another path: its identity tells.
	_, _, err := decide(oneNetwork(), &api.AttachRequest{Netns: "pid:77"}, nsIdentity{Cookie: 7}, "id1", nil)
	if api.CodeOf(err) != api.CodeExists || err.Error() != "eth0 in pid:77 is attached already, as red" {
		t.Errorf("got %v", err)
	}
	// Another namespace by the same path.
	if _, _, err = decide(oneNetwork(), &api.AttachRequest{Netns: "red"}, nsIdentity{Cookie: 9}, "id1", nil); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestFindAttachment(t *testing.T) {
	st := oneNetwork()
	st.attachments = append(st.attachments, attachmentRecord{ID: "2", Name: "two", Netns: "/run/netns/two", IfName: "eth0"},
		attachmentRecord{ID: "3", Name: "three", Netns: "/run/netns/two", IfName: "eth1"},
		attachmentRecord{ID: "4", Name: "four", Netns: "/run/netns/slt-4", NS: nsIdentity{Cookie: 4}, IfName: "eth0"},
		attachmentRecord{ID: "5", Name: "five", Netns: "/run/netns/slt-4", NS: nsIdentity{Cookie: 5}, IfName: "eth1"})
	tests := map[string]struct {
		r     api.DetachRequest
		want  string
		code  api.Code
		field string
	}{
		"by name":                 {api.DetachRequest{Name: "two"}, "two", "", ""},
		"by identifier":           {api.DetachRequest{Name: "3"}, "three", "", ""},
		"by namespace":            {api.DetachRequest{Netns: "red"}, "red", "", ""},
		"by path and interface":   {api.DetachRequest{Netns: "/run/netns/two", IfName: "eth1"}, "three", "", ""},
		"nothing said":            {api.DetachRequest{}, "", api.CodeInvalid, "netns"},
		"no such name":            {api.DetachRequest{Name: "x"}, "", api.CodeNotFound, "name"},
		"no such namespace":       {api.DetachRequest{Netns: "slt-none"}, "", api.CodeNotFound, "netns"},
		"no such interface":       {api.DetachRequest{Netns: "two", IfName: "eth7"}, "", api.CodeNotFound, "ifname"},
		"which of two namespaces": {api.DetachRequest{Netns: "slt-4", IfName: "eth0"}, "", api.CodeInvalid, "name"},
		"which of two interfaces": {api.DetachRequest{Netns: "two"}, "", api.CodeInvalid, "ifname"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rec, err := findAttachment(st, &tt.r)
			if err == nil {
				if rec.Name != tt.want {
					t.Errorf("got %s, want %s", rec.Name, tt.want)
				}
				return
			}
			if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != tt.code || e.Field != tt.field {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestIfNames(t *testing.T) {
	for name, want := range map[string]bool{
		"eth0": true, "a": true, "a.b-c_d@e": true, "abcdefghijklmno": true, "alles": true, "...": true,
		".": false, "..": false, "all": false, "default": false, "abcdefghijklmnop": false,
		"à": false, "a b": false, "a\tb": false, "a\x00": false, "a\x7f": false, "a\xff": false, "a\u00a0b": false,
		"a/b": false, "eth0:1": false, "eth%d": false,
	} {
		_, _, err := decide(oneNetwork(), &api.AttachRequest{Netns: "tan", IfName: name}, nsIdentity{Cookie: 8}, "id1", nil)
		e, _ := errors.AsType[*api.Error](err)
		if want != (err == nil) || !want && (e == nil || e.Field != "ifname" || e.Code != api.CodeInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDecideSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		r    api.AttachRequest
		want string // the error's field and message; else nothing
	}{
		"all": {r: api.AttachRequest{
			Set: []string{"isolated", "on", "guard", "mac"}, VLAN: []string{"vid 10 pvid untagged", "vid 20-29"}, FDB: []string{"02:00:00:00:00:99"},
			MDB: []string{"239.1.1.1"}, Table: "100", RouteTable: 7,
		}},
		"unknown setting":   {api.AttachRequest{Set: []string{"color", "red"}}, `set: "color": unknown word`},
		"setting of nobody": {api.AttachRequest{Set: []string{"mirror_in", "nobody"}}, `set: mirror_in: no port "nobody" in network blue`},
		"no table":          {api.AttachRequest{Table: "nowhere"}, `table: "nowhere": no value of table: want a table or off`},
		"VLAN":              {api.AttachRequest{VLAN: []string{"10"}}, `vlan: "10": "10": unknown word`},
		"VLAN of another":   {api.AttachRequest{VLAN: []string{"vid 10 dev x"}}, `vlan: "vid 10 dev x": the port is known`},
		"FDB":               {api.AttachRequest{FDB: []string{"10"}}, `fdb: "10": want MAC [vlan V]`},
		"MDB":               {api.AttachRequest{MDB: []string{"10"}}, `mdb: "10": want GROUP [vid V]`},
		"main table inside": {api.AttachRequest{RouteTable: 254}, "route_table: 254 is one of the tables default, main and local"},
		"configure":         {api.AttachRequest{Configure: "dhcp"}, `configure: "dhcp": want static or none`},
		"table and none":    {api.AttachRequest{Configure: "none", RouteTable: 7}, "route_table: the container makes its routes itself"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.r.Netns = "new"
			rec, _, err := decide(oneNetwork(), &tt.r, nsIdentity{Cookie: 99}, "id", nil)
			got := ""
			if e, ok := errors.AsType[*api.Error](err); ok {
				got = e.Field + ": " + e.Message
			}
			if got != tt.want {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if err == nil && (rec.Settings["table"] != "100" || rec.Settings["guard"] != "mac" || rec.VLAN.Tagged.String() != "20-29" || len(rec.Stations) != 1 || len(rec.Groups) != 1) {
				t.Errorf("%+v", rec)
			}
		})
	}
}
