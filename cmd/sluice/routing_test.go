// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"sluice/api"
)

// log is what a daemon was asked for, in order.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(format string, args ...any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// take returns what was asked for since the last time.
func (l *log) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// routing serves what the words of ip(8) and bridge(8) ask for.
func (a *answers) routing(mux *http.ServeMux) {
	mux.HandleFunc(api.PathCommand, a.command)
	mux.HandleFunc(api.PathRouteGet, func(w http.ResponseWriter, r *http.Request) {
		a.asked.add("%s", r.URL.RequestURI())
		switch words := r.FormValue("words"); words {
		case "":
			api.WriteError(w, &api.Error{Code: api.CodeInvalid, Message: "Error: Needs an address."})
		case "10.9.0.1":
			api.WriteReply(w, routeGet())
		case "10.9.0.2":
			api.WriteReply(w, api.RouteGet{Namespace: "default", Type: "blackhole", Dst: words, Route: &routes()[2], Line: "blackhole " + words})
		default:
			api.WriteReply(w, api.RouteGet{Namespace: "default", Type: "unreachable", Dst: words, Line: "unreachable " + words})
		}
	})
	serveWords(mux, api.PathRoutes, a, routes())
	serveWords(mux, api.PathRules, a, rules())
	serveWords(mux, api.PathVRFs, a, []api.VRF{{Namespace: "default", Name: "red", Table: 100, TableName: "100", Devices: []string{"blue"}, Line: "red               100"}})
	serveWords(mux, api.PathNeighbours, a, neighbours())
	serveWords(mux, api.PathFDB, a, fdb())
	serveWords(mux, api.PathVLANs, a, vlans())
	mux.HandleFunc(api.PathQueueing, func(w http.ResponseWriter, r *http.Request) {
		api.WriteReply(w, api.Queueing{Text: r.URL.Query().Get("words") + "\n"})
	})
	serveWords(mux, api.PathMDB, a, []api.MDBEntry{{Namespace: "default", Dev: "blue", Port: "red", Group: "239.1.1.1", State: "permanent", Line: "dev blue port red grp 239.1.1.1 permanent"}})
	serveWords(mux, api.PathDevices, a, devices())
	mux.HandleFunc(api.PathNamespaces, func(w http.ResponseWriter, _ *http.Request) {
		if a.empty {
			api.WriteReply(w, []api.Namespace{})
			return
		}
		api.WriteReply(w, []api.Namespace{
			{Name: "default", Networks: []string{"blue"}, Uplinks: []string{"out"}, Links: []string{"to-shop"}, VRFs: []string{"red"}, Tables: map[string]uint32{"red": 100, "uplink": 20}, Routes: 12, Rules: 8},
			{Name: "shop", Networks: []string{"black"}, Uplinks: []string{}, Links: []string{}, VRFs: []string{}, Tables: map[string]uint32{}, Rules: 6},
		})
	})
}

// serveWords answers with those items that have all words that aren't keywords in
// their text, which is more or less what a daemon does.
func serveWords[T any](mux *http.ServeMux, path string, a *answers, items []T) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		a.asked.add("%s", r.URL.RequestURI())
		var out []T
		for _, item := range items {
			text := fmt.Sprintf("%+v ", item)
			keyword := func(word string) bool {
				return slices.Contains([]string{"-4", "-6", "dev", "br", "to", "type", "vlan", "table", "all"}, word)
			}
			fits := !slices.ContainsFunc(strings.Fields(r.FormValue("words")), func(word string) bool {
				return !keyword(word) && !strings.Contains(text, word+" ")
			})
			ours := strings.Contains(strings.Replace(text, "{", " ", 1), " Namespace:"+r.FormValue("namespace"))
			if !a.empty && fits && ours {
				out = append(out, item)
			}
		}
		api.WriteReply(w, out)
	})
}

// command refuses what has the word "taken".
func (a *answers) command(w http.ResponseWriter, r *http.Request) {
	var req api.CommandRequest
	if err := api.ReadRequest(r.Body, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	reply := api.CommandReply{Failed: []api.CommandFault{}}
	for i, c := range req.Commands {
		a.asked.add("%s%s %s%s", map[bool]string{true: "force "}[req.Force], c.Object, strings.Join(c.Words, " "), map[bool]string{false: " in " + req.Namespace}[req.Namespace == ""])
		switch {
		case !slices.Contains(c.Words, "taken"):
			reply.Done++
		case !req.Force:
			api.WriteError(w, &api.Error{Code: api.CodeExists, Message: "RTNETLINK answers: File exists", Index: &i})
			return
		default:
			reply.Failed = append(reply.Failed, api.CommandFault{Index: i, Message: "RTNETLINK answers: File exists"})
		}
	}
	api.WriteReply(w, reply)
}

func routes() []api.Route {
	return []api.Route{
		{
			Namespace: "default", Family: "inet", Type: "unicast", Dst: "default", Table: "main", Protocol: "boot", Scope: "global", Flags: []string{},
			NextHops: []api.NextHop{{Gateway: "10.44.0.9", Dev: "blue", Weight: 1, Flags: []string{}}, {Gateway: "10.44.0.10", Dev: "blue", Weight: 2, Flags: []string{}}},
			Line:     "default \n\tnexthop via 10.44.0.9 dev blue weight 1 \n\tnexthop via 10.44.0.10 dev blue weight 2 ",
		},
		{Namespace: "default", Family: "inet", Type: "unicast", Dst: "10.44.0.0/24", Dev: "blue", Table: "main", Protocol: "kernel", Scope: "link", Prefsrc: "10.44.0.1", Flags: []string{}, Line: "10.44.0.0/24 dev blue proto kernel scope link src 10.44.0.1 "},
		{Namespace: "shop", Family: "inet", Type: "blackhole", Dst: "10.0.0.0/8", Table: "main", Protocol: "static", Scope: "global", Flags: []string{}, Line: "blackhole 10.0.0.0/8 proto static "},
	}
}

func rules() []api.Rule {
	return []api.Rule{
		{Namespace: "default", Family: "inet", Priority: 0, Src: "all", Table: "local", Line: "0:\tfrom all lookup local"},
		{Namespace: "default", Family: "inet", Priority: 32766, Src: "all", Table: "main", Line: "32766:\tfrom all lookup main"},
	}
}

func routeGet() *api.RouteGet {
	return &api.RouteGet{
		Namespace: "default", Type: "unicast", Dst: "10.9.0.1", Gateway: "10.44.0.9", Dev: "blue", Prefsrc: "10.44.0.1", Table: "main", MTU: 1500,
		Rule: &rules()[1], Route: &routes()[0],
		Line: "10.9.0.1 via 10.44.0.9 dev blue src 10.44.0.1 \n    cache \n    rule 32766:\tfrom all lookup main",
	}
}

func neighbours() []api.Neighbour {
	return []api.Neighbour{
		{Namespace: "default", Network: "blue", Dev: "blue", Addr: netip.MustParseAddr("10.44.0.3"), MAC: "02:00:00:00:00:03", State: "reachable", Line: "10.44.0.3 dev blue lladdr 02:00:00:00:00:03 REACHABLE"},
		{Namespace: "default", Network: "blue", Dev: "blue", Addr: netip.MustParseAddr("fd44::3"), MAC: "02:00:00:00:00:03", State: "stale", Line: "fd44::3 dev blue lladdr 02:00:00:00:00:03 STALE"},
		{Namespace: "default", Network: "black", Dev: "black", Addr: netip.MustParseAddr("192.0.2.14"), State: "incomplete", Line: "192.0.2.14 dev black INCOMPLETE"},
	}
}

func fdb() []api.FDBEntry {
	return []api.FDBEntry{
		{Namespace: "default", Network: "blue", MAC: "02:00:00:00:00:01", Port: 1, Link: "blue", Kind: "own", Line: "02:00:00:00:00:01 dev blue permanent"},
		{Namespace: "default", Network: "blue", MAC: "02:00:00:00:00:03", Port: 3, Link: "red", Kind: "static", Line: "02:00:00:00:00:03 dev red master blue static"},
		{Namespace: "default", Network: "blue", MAC: "02:00:00:00:00:99", VLAN: 10, Port: 3, Link: "red", Kind: "dynamic", AgeSeconds: 12, Line: "02:00:00:00:00:99 dev red vlan 10 master blue dynamic used 12"},
		{Namespace: "default", Network: "black", MAC: "02:00:00:00:00:02", Port: 2, Link: "black", Kind: "own", Line: "02:00:00:00:00:02 dev black permanent"},
	}
}

func vlans() []api.VLANPort {
	return []api.VLANPort{{
		Namespace: "default", Network: "blue", IfName: "red",
		VLANs: []api.VLANEntry{{VLAN: 10, Flags: []string{"PVID", "Egress Untagged"}}, {VLAN: 20, VLANEnd: 29}},
		Line:  "red               10 PVID Egress Untagged\n                  20-29",
	}}
}

func devices() []api.Device {
	return []api.Device{
		{Namespace: "default", IfIndex: 1, IfName: "blue", Kind: "network", MTU: 1500, MAC: "02:00:00:00:00:01", Addresses: prefixes("10.44.0.1/24"), Line: "1: blue: mtu 1500 network"},
		{Namespace: "shop", IfIndex: 2, IfName: "black", Kind: "network", MTU: 9000, MAC: "02:00:00:00:00:02", Addresses: prefixes("192.0.2.1/28"), Line: "2: black: mtu 9000 network"},
		{Namespace: "default", IfIndex: 5, IfName: "to-shop", Kind: "link", MTU: 1500, Addresses: prefixes("10.255.0.1/30"), Peer: "to-default", PeerNamespace: "shop", Line: "5: to-shop@to-default: mtu 1500 link-netns shop"},
		{Namespace: "default", IfName: "red", Kind: "vrf", Table: "100", Line: "red: vrf table 100"},
	}
}

func settings() *api.PortSettings {
	return &api.PortSettings{
		Guard: []string{"mac", "ip"}, GuardAllow: prefixes("10.9.0.0/16"), Learning: true, Flood: true, McastFlood: true, BcastFlood: true,
		BPDUFilter: true, McastRouter: 1, Storm: api.Storm{Broadcast: "100/50"}, ClampMSS: "off", MirrorIn: "green", Table: "uplink",
	}
}
