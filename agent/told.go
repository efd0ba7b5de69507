// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/dataplane"
	"sluice/packet"
)

// What the dataplane tells goes to the terminal of root, and the dataplane may be
// in an attacker's hands. So nothing of it is passed on as text: words are
// those of a list, and everything else is parsed and written anew.

// maxTold bounds the neighbours or sockets of one network that are listed, far
// above what its host stack can hold.
const maxTold = 1 << 16

// maxBuild bounds the text of a build identifier.
const maxBuild = 128

// unknownWord stands for a word that is on no list.
const unknownWord = "unknown"

func fdbKinds() []string   { return []string{"none", "dynamic", "static", "own"} }
func sockProtos() []string { return []string{"tcp", "udp", "icmp"} }
func neighStates() []string {
	return []string{"incomplete", "reachable", "stale", "delay", "probe", "permanent", "failed", "none"}
}

func sockStates() []string {
	return []string{
		"listen", "syn-sent", "syn-recv", "estab", "fin-wait-1", "fin-wait-2", "time-wait", "close-wait", "last-ack",
		"closing", "unconn",
	}
}

// word returns a word in lower case if it is on the list.
func word(s string, list []string) string {
	if i := slices.Index(list, strings.ToLower(s)); i >= 0 {
		return list[i]
	}
	return unknownWord
}

// mac writes a MAC address anew. What is none is empty, as one that is unresolved.
func mac(s string) string {
	m, err := packet.ParseMAC(s)
	if err != nil {
		return ""
	}
	return m.String()
}

// addrPort drops the zone, which can be any text.
func addrPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// build accepts what Go's linker writes (base64url and slashes).
func build(s string) string {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_/.+=", r)
	}
	if len(s) > maxBuild || strings.ContainsFunc(s, odd) {
		return unknownWord
	}
	return s
}

// maxFDB is the most entries that a network's table can have: what it may learn,
// in whole sets, and one for each port and gateway.
func (n *networkRecord) maxFDB() int { return 2*n.FDBMax + counterSlots }

func publicFDB(n *networkRecord, names map[uint16]string, e *dataplane.FDBEntry) api.FDBEntry {
	out := api.FDBEntry{
		Namespace: n.space(), Network: n.Name, MAC: mac(e.MAC), VLAN: e.VLAN, Port: e.Port, Link: names[e.Port],
		Kind: word(e.Kind, fdbKinds()), AgeSeconds: e.AgeSeconds, Flags: []string{},
	}
	out.IfName, out.Master = out.Link, out.Network
	switch out.Kind {
	case "own":
		out.EntryState = "permanent"
	case "static":
		out.EntryState = "static"
	}
	out.Line = fdbLine(&out)
	return out
}

func publicNeighbour(n *networkRecord, e *dataplane.Neighbour) api.Neighbour {
	out := api.Neighbour{
		Namespace: n.space(), Network: n.Name, Addr: e.Addr.WithZone(""), MAC: mac(e.MAC), State: word(e.State, neighStates()),
	}
	out.Dst, out.Dev, out.LLAddr = out.Addr.String(), out.Network, out.MAC
	out.Line = neighbourLine(&out)
	return out
}

func publicSocket(n *networkRecord, e *dataplane.Socket) api.Socket {
	return api.Socket{
		Network: n.Name, Proto: word(e.Proto, sockProtos()), State: word(e.State, sockStates()),
		Local: addrPort(e.Local), Remote: addrPort(e.Remote), RecvQ: max(0, e.RecvQ),
	}
}
