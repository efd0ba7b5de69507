// SPDX-License-Identifier: Apache-2.0

package iproute_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice/iproute"
	"sluice/routing"
)

// FuzzCommands: any words are refused with a *routing.ParseError, or understood; and
// what was understood of an entry is understood again when it is written out.
func FuzzCommands(f *testing.F) {
	for _, line := range []string{
		"add 10.1.0.9 lladdr 02:00:00:00:00:09 dev blue nud permanent", "flush to 10.0.0.0/8 dev b",
		"add 02:00:00:00:00:09 dev red vlan 10 master static", "add dev red vid 10-20 pvid untagged",
		"add dev blue port red grp 239.1.1.1 permanent vid 10", "add a mtu 1400 type veth peer name b netns edge",
		"set dev web isolated on guard mac,ip storm_broadcast 100/50", "add 10.255.0.1/31 dev x", "add red table 10",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Fields(line)
		station, err1 := iproute.ParseFDB(words)
		neighbour, err2 := iproute.ParseNeighbour(words)
		group, err3 := iproute.ParseMDB(words)
		_, err4 := iproute.ParseVLAN(words)
		_, err5 := iproute.ParseLink(words, nil)
		_, err6 := iproute.ParseVRF(words, nil)
		_, err7 := iproute.ParseAddress(words)
		for i, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
			if _, ok := errors.AsType[*routing.ParseError](err); err != nil && !ok {
				t.Fatalf("parser %d: %T %v", i, err, err)
			}
		}
		if err1 == nil && !station.MAC.IsZero() {
			again, err := iproute.ParseStation(strings.Fields(station.String()))
			if err != nil || again != station.Station {
				t.Fatalf("%v is %v, %v", station.Station, again, err)
			}
		}
		if err2 == nil && !neighbour.MAC.IsZero() && neighbour.Addr.IsValid() {
			text := strings.Fields(strings.TrimSuffix(neighbour.String(), " PERMANENT"))
			if again, err := iproute.ParseStaticNeighbour(text); err != nil || again != neighbour.Neighbour {
				t.Fatalf("%v is %v, %v", neighbour.Neighbour, again, err)
			}
		}
		if err3 == nil {
			if again, err := iproute.ParseGroup(strings.Fields(group.String())); err != nil || again != group.Group {
				t.Fatalf("%v is %v, %v", group.Group, again, err)
			}
		}
	})
}

// FuzzSettings: what is understood is in one spelling.
func FuzzSettings(f *testing.F) {
	f.Add("isolated on guard mac,ip storm_broadcast 100/50 mirror a table 7 guard_allow 10.0.0.1,fd00::/8")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := iproute.ParseSettings(iproute.OfPort, strings.Fields(line), nil)
		if err != nil {
			return
		}
		again, err := iproute.ParseSettings(iproute.OfPort, s.Words(), nil)
		if err != nil || !slices.Equal(again.Words(), s.Words()) {
			t.Fatalf("%v is %v, %v", s.Words(), again.Words(), err)
		}
		_, _, _, _, _ = s.Flags(), s.Guard(), s.Storm(), s.Allowed(), s.MSS()
	})
}

// FuzzVIDs: the text of a set is one of the same set.
func FuzzVIDs(f *testing.F) {
	f.Add("10,20-29,30")
	f.Fuzz(func(t *testing.T, text string) {
		var v, again iproute.VIDs
		if v.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(v.String())); err != nil || !slices.Equal(v, again) {
			t.Fatalf("%s is %v, then %v, %v", text, v, again, err)
		}
	})
}
