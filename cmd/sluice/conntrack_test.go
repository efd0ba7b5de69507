// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"sluice/api"
)

// connections serves what is asked of connections.
func (a *answers) connections(mux *http.ServeMux) {
	mux.HandleFunc(api.PathConnections, func(w http.ResponseWriter, r *http.Request) {
		a.asked.add("%s", r.URL.RequestURI())
		switch words := r.FormValue("words"); {
		case strings.Contains(words, "frob"):
			api.WriteError(w, &api.Error{Code: api.CodeInvalid, Field: "words", Message: `Error: argument "frob" is wrong: want a protocol, as tcp or 17`})
		case a.empty:
			api.WritePage(w, new(api.Page))
		case r.FormValue("from") == "0": // the list is in parts, one of them empty
			writeConnections(w, r.FormValue("lines") == "1", 7, connections()[:1])
		case r.FormValue("from") == "7":
			writeConnections(w, r.FormValue("lines") == "1", 9, nil)
		default:
			writeConnections(w, r.FormValue("lines") == "1", 0, connections()[1:])
		}
	})
	mux.HandleFunc(api.PathConnDelete, func(w http.ResponseWriter, r *http.Request) {
		var req api.DeleteConnectionsRequest
		if err := api.ReadRequest(r.Body, &req); err != nil {
			api.WriteError(w, err)
			return
		}
		a.asked.add("delete %s in %s", strings.Join(req.Words, " "), req.Namespace)
		if a.empty {
			api.WritePage(w, new(api.Page))
			return
		}
		next := uint64(0)
		if req.From == 0 {
			next = 5
		}
		writeConnections(w, req.Lines, next, connections()[req.From/5:1])
	})
	mux.HandleFunc(api.PathConnStats, func(w http.ResponseWriter, r *http.Request) {
		a.asked.add("stats ?%s", r.URL.RawQuery)
		api.WriteReply(w, api.ConnectionStats{Entries: 2, Max: 65536, Insert: 7, Line: "cpu=0   \tfound=0 invalid=0 insert=7"})
	})
	mux.HandleFunc(api.PathConnEvents, connectionEvents)
	serveWords(mux, api.PathNAT, a, []api.NATRule{
		{Namespace: "shop", Hook: "postrouting", Rule: "postrouting oifname wan masquerade", Active: true, Line: "postrouting oifname wan masquerade"},
		{Namespace: "shop", Hook: "prerouting", Rule: "publish tcp 8080 to web:80", Published: true, Active: true, Line: "prerouting publish tcp 8080 to web:80 at 10.44.0.3"},
	})
	serveWords(mux, api.PathBindings, a, []api.Binding{{
		Namespace: "shop", Proto: "udp", Inside: netip.MustParseAddrPort("10.44.0.3:5000"), Outside: netip.MustParseAddrPort("192.0.2.1:5000"), Connections: 2,
		Line: "udp 10.44.0.3:5000 -> 192.0.2.1:5000 connections=2",
	}})
	serveWords(mux, api.PathServices, a, []api.Service{{
		Namespace: "shop", Name: "web", Listen: []string{"tcp 10.96.0.10:80"}, Persistent: 300,
		Backends: []api.ServiceBackend{{Addr: netip.MustParseAddr("10.44.0.3"), Port: 8080, Weight: 2, State: "ready", Active: 1, Conns: 7, InPackets: 70, OutPackets: 60, InBytes: 7000, OutBytes: 60000}},
		Line:     "web tcp 10.96.0.10:80 persistent 300\n    -> 10.44.0.3:8080 weight 2 state ready active 1 conns 7 in 70 packets 7000 bytes out 60 packets 60000 bytes",
	}})
	serveWords(mux, api.PathPublished, a, []api.Published{{
		Namespace: "shop", Proto: "tcp", Port: 8080, To: "web", ToPort: 80, Addresses: []netip.Addr{netip.MustParseAddr("10.44.0.3")},
		Line: "tcp 8080 to web:80 at 10.44.0.3",
	}})
}

// connectionEvents has three, and ends badly.
func connectionEvents(w http.ResponseWriter, r *http.Request) {
	const line = "    [NEW] udp      17 30 src=10.44.0.3 dst=192.0.2.9 sport=5000 dport=53 [UNREPLIED] src=192.0.2.9 dst=192.0.2.1 sport=53 dport=5000"
	p := &api.Page{Next: 9, Lost: 3, Entries: 1}
	switch r.FormValue("from") {
	case "0":
		p = &api.Page{Next: 5}
	case "5":
		switch {
		case r.FormValue("lines") != "1":
			b, _ := json.Marshal(api.ConnectionEvent{Time: clock(), Kind: "new", Connection: connections()[1], Line: line})
			p.Body = append(b, '\n')
		case strings.Contains(r.FormValue("words"), "timestamp"):
			p.Body = []byte("[1793620800.000000]\t" + line + "\n")
		default:
			p.Body = []byte(line + "\n")
		}
	default:
		api.WriteError(w, &api.Error{Code: api.CodeInternal, Message: "the end of the test"})
		return
	}
	api.WritePage(w, p)
}

// writeConnections is a part of a list.
func writeConnections(w http.ResponseWriter, lines bool, next uint64, all []api.Connection) {
	p := &api.Page{Next: next, Entries: len(all)}
	for i := range all {
		b := []byte(all[i].Line)
		if !lines {
			b, _ = json.Marshal(all[i])
		}
		p.Body = append(append(p.Body, b...), '\n')
	}
	api.WritePage(w, p)
}

func connections() []api.Connection {
	a := netip.MustParseAddr
	return []api.Connection{{
		Namespace: "shop", Family: "ipv4", Proto: "tcp", ProtoNum: 6, Timeout: 431999, Age: 12, State: "ESTABLISHED", Status: []string{"SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT"},
		Original: api.ConnectionWay{Src: a("10.44.0.3"), Dst: a("192.0.2.9"), Sport: 40000, Dport: 80, Packets: 5, Bytes: 300},
		Reply:    api.ConnectionWay{Src: a("192.0.2.9"), Dst: a("192.0.2.1"), Sport: 80, Dport: 40000, Packets: 4, Bytes: 5000},
		Zone:     1, ID: 77, Link: "web",
		Line: "tcp      6 431999 ESTABLISHED src=10.44.0.3 dst=192.0.2.9 sport=40000 dport=80 packets=5 bytes=300 src=192.0.2.9 dst=192.0.2.1 sport=80 dport=40000 packets=4 bytes=5000 [ASSURED] mark=0 zone=1 use=1",
	}, {
		Namespace: "shop", Family: "ipv4", Proto: "udp", ProtoNum: 17, Timeout: 29, Status: []string{"CONFIRMED"},
		Original: api.ConnectionWay{Src: a("10.44.0.3"), Dst: a("192.0.2.9"), Sport: 5000, Dport: 53, Packets: 1, Bytes: 60},
		Reply:    api.ConnectionWay{Src: a("192.0.2.9"), Dst: a("192.0.2.1"), Sport: 53, Dport: 5000},
		Zone:     1, ID: 78, Link: "web",
		Line: "udp      17 29 src=10.44.0.3 dst=192.0.2.9 sport=5000 dport=53 packets=1 bytes=60 [UNREPLIED] src=192.0.2.9 dst=192.0.2.1 sport=53 dport=5000 packets=0 bytes=0 mark=0 zone=1 use=1",
	}}
}

// TestConntrackAsks sees the options of conntrack(8) go to the daemon as they are.
func TestConntrackAsks(t *testing.T) {
	for line, want := range map[string]string{
		"conntrack -L -p tcp --dport 80":                 "/v1/connections?from=0&lines=1&words=-L+-p+tcp+--dport+80",
		"-n shop -4 conntrack -L conntrack -o json,id":   "/v1/connections?from=0&namespace=shop&words=-f+ipv4+-L+conntrack+-o+id",
		"conntrack -L --output=json -n 192.0.2.1 -m 1/3": "/v1/connections?from=0&words=-L+--output%3Dtext+-n+192.0.2.1+-m+1%2F3",
		"-n shop conntrack -C -p udp":                    "stats ?namespace=shop&words=-C+-p+udp",
		"conntrack -S":                                   "stats ?",
		"-n shop conntrack -D -s 10.44.0.0/24":           "delete -D -s 10.44.0.0/24 in shop",
		"conntrack -F":                                   "delete -F in ",
	} {
		a := answers{asked: new(log)}
		session(t, a.listen(t), line, "")
		if got := a.asked.take(); len(got) == 0 || got[0] != want {
			t.Errorf("%s asks\n%s\nnot\n%s", line, got, want)
		}
	}
}
