// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"sluice/dataplane"
)

const evil = "\x1b]0;owned\x07\u202e"

// TestNothingOfTheDataplanesTextIsPassedOn fills every text of a reply with
// what a terminal would obey.
func TestNothingOfTheDataplanesTextIsPassedOn(t *testing.T) {
	zoned := netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(evil), 7)
	for name, public := range map[string]any{
		"fdb":       publicFDB(&networkRecord{Name: "blue"}, nil, &dataplane.FDBEntry{MAC: evil, Kind: evil}),
		"neighbour": publicNeighbour(&networkRecord{Name: "blue"}, &dataplane.Neighbour{Addr: zoned.Addr(), MAC: evil, State: evil}),
		"socket":    publicSocket(&networkRecord{Name: "blue"}, &dataplane.Socket{Proto: evil, State: evil, Local: zoned, Remote: zoned}),
		"build":     build(evil),
		"long":      build(strings.Repeat("owned", maxBuild)),
	} {
		text, err := json.Marshal(public)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "owned") || strings.Contains(string(text), `\u`) {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestHonestRepliesAreKept(t *testing.T) {
	addr := netip.MustParseAddrPort("10.44.0.1:7")
	if e := publicFDB(&networkRecord{Name: "blue"}, map[uint16]string{3: "red"}, &dataplane.FDBEntry{MAC: "02:00:00:00:00:03", Port: 3, Kind: "static"}); e.MAC != "02:00:00:00:00:03" || e.Kind != "static" || e.Link != "red" {
		t.Errorf("%+v", e)
	}
	if e := publicNeighbour(&networkRecord{Name: "blue"}, &dataplane.Neighbour{Addr: addr.Addr(), State: "incomplete"}); e.MAC != "" || e.State != "incomplete" || e.Addr != addr.Addr() {
		t.Errorf("%+v", e)
	}
	if e := publicSocket(&networkRecord{Name: "blue"}, &dataplane.Socket{Proto: "tcp", State: "SYN-RECV", Local: addr}); e.Proto != "tcp" || e.State != "syn-recv" || e.Local != addr || e.Remote.IsValid() {
		t.Errorf("%+v", e)
	}
	if id := dataplane.BuildID(); build(id) != id {
		t.Errorf("build %q is %q", id, build(id))
	}
}
