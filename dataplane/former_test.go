// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/json"
	"testing"
)

// formerSnapshot is what a dataplane of the first builds says that it has.
const formerSnapshot = `{"generation":6,"namespaces":[
 {"name":"black","bridge":{"index":1,"mac":"02:00:00:00:00:01","mtu":1500,"ageingSeconds":300},"addresses":["10.44.0.1/24"]},
 {"name":"blue","bridge":{"index":2,"mac":"02:00:00:00:00:02","mtu":1500},"addresses":["10.44.0.1/24","fd44::1/64"],"echo":true,
  "ports":[{"index":3,"name":"red","mac":"02:00:00:00:00:03","mtu":1500,"offload":true,"addresses":["10.44.0.2"]}]}]}`

// TestSnapshotOfTheFirstBuilds: their ports are found, so that an upgrade hands over
// and kills nobody.
func TestSnapshotOfTheFirstBuilds(t *testing.T) {
	a := answer{message: message{body: encode(inventory{Snapshot: json.RawMessage(formerSnapshot)})}}
	s, _, err := a.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if names := portNames(s); len(names) != 1 || names[3] != "red" {
		t.Errorf("ports: %v", names)
	}
	if n := s.Namespaces[1].Networks; len(n) != 1 || n[0].Name != "blue" || !n[0].Echo || len(n[0].Addresses) != 2 {
		t.Errorf("blue: %+v", n)
	}
}
