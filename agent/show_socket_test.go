// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"sluice/api"
)

// TestSocketsInParts: each socket is in one part, no part is longer than its room and one
// entry, and no network is listed again but to go on in it.
func TestSocketsInParts(t *testing.T) {
	sizes := map[string]int{"a": 3, "b": 0, "c": 40, "d": 1, "e": 20}
	all := []*networkRecord{{Name: "c", Port: 9}, {Name: "a", Port: 4}, {Name: "b", Port: 5}, {Name: "e", Port: 300}, {Name: "d", Port: 12}}
	for room := 1; room < 6000; room += 7 {
		var got []string
		parts, lists := 0, 0
		for from := uint64(0); ; parts++ {
			p := socketPart{from: from, room: room}
			p.list = func(n *networkRecord) (out []api.Socket, err error) {
				lists++
				for i := range sizes[n.Name] {
					out = append(out, api.Socket{Network: n.Name, RecvQ: i})
				}
				return out, nil
			}
			if err := p.make(all); err != nil {
				t.Fatal(err)
			}
			var s api.Socket
			for line := range bytes.Lines(p.Body) {
				if err := json.Unmarshal(line, &s); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(s.Network, s.RecvQ))
			}
			if len(p.Body) > room+100 {
				t.Fatalf("a part of %d bytes for %d", len(p.Body), room)
			}
			if p.Next == 0 {
				break
			}
			if p.Next <= from {
				t.Fatalf("after %#x comes %#x", from, p.Next)
			}
			from = p.Next
		}
		var want []string
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			for i := range sizes[name] {
				want = append(want, fmt.Sprint(name, i))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("with room for %d: %q, want %q", room, got, want)
		}
		if most := len(all) + parts; lists > most {
			t.Errorf("with room for %d in %d parts: listed %d times", room, parts+1, lists)
		}
	}
}

// TestSocketsThatWent: a list that got shorter between two parts ends.
func TestSocketsThatWent(t *testing.T) {
	p := socketPart{from: 9<<32 | 50, room: 50, list: func(n *networkRecord) ([]api.Socket, error) {
		return make([]api.Socket, 2), nil
	}}
	if err := p.make([]*networkRecord{{Port: 4}, {Port: 9}, {Port: 9 + 1}}); err != nil || p.Entries != 1 || p.Next != 10<<32|1 {
		t.Errorf("%d entries, next %#x, %v", p.Entries, p.Next, err)
	}
}
