// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"sluice/api"
)

// answers is a daemon that always says the same, so that what is tested is how
// it is shown. The lists below are in the order in which a daemon sends them.
type answers struct {
	status api.Status
	empty  bool // nothing is declared or attached
	asked  *log // may be nil
}

// listen serves a on a socket of its own and returns the path.
func (a *answers) listen(t *testing.T) string {
	t.Helper()
	// A socket's path has 108 bytes: t.TempDir() may be longer.
	dir, err := os.MkdirTemp("", "slt-cli-")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: a.mux(), ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
		os.RemoveAll(dir)
	})
	return path
}

func (a *answers) mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc(api.PathAttach, attach)
	mux.HandleFunc(api.PathDetach, detach)
	mux.HandleFunc(api.PathApply, apply)
	mux.HandleFunc(api.PathNetworkDel, deleteNetwork)
	mux.HandleFunc(api.PathShutdown, func(w http.ResponseWriter, _ *http.Request) { api.WriteReply(w, struct{}{}) })
	mux.HandleFunc(api.PathStatus, func(w http.ResponseWriter, _ *http.Request) { api.WriteReply(w, a.status) })
	serveList(mux, api.PathLinks, a, links, func(l api.Link) string { return l.Network })
	serveList(mux, api.PathNetworks, a, networks, func(n api.Network) string { return n.Name })
	serveList(mux, api.PathDNSNames, a, dnsNames, func(api.DNSName) string { return "" })
	serveList(mux, api.PathDNSStats, a, dnsStats, func(api.DNSStats) string { return "" })
	serveList(mux, api.PathTrees, a, trees, func(api.Share) string { return "" })
	serveList(mux, api.PathUplinks, a, uplinks, func(api.Uplink) string { return "" })
	a.routing(mux)
	a.connections(mux)
	a.rulesets(mux)
	serveList(mux, api.PathAddresses, a, addresses, func(d api.Address) string { return d.Network })
	mux.HandleFunc(api.PathSockets, a.sockets)
	return mux
}

// serveList answers with the items of the network that is asked for.
func serveList[T any](mux *http.ServeMux, path string, a *answers, items func(stats bool) []T, of func(T) string) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		network := r.FormValue("network")
		var out []T
		for _, item := range items(r.FormValue("stats") == "1") {
			if !a.empty && (network == "" || network == of(item)) {
				out = append(out, item)
			}
		}
		api.WriteReply(w, out)
	})
}

// sockets answers with one of those that are asked for in each part.
func (a *answers) sockets(w http.ResponseWriter, r *http.Request) {
	network := r.FormValue("network")
	all := slices.DeleteFunc(sockets(false), func(s api.Socket) bool { return a.empty || network != "" && network != s.Network })
	var p api.Page
	if n, _ := strconv.Atoi(r.FormValue("from")); n < len(all) {
		p.Body, _ = json.Marshal(all[n])
		p.Body = append(p.Body, '\n')
		p.Entries, p.Next = 1, uint64(n+1)
	}
	api.WritePage(w, &p)
}

// attach gives what was asked for, and refuses two things.
func attach(w http.ResponseWriter, r *http.Request) {
	var req api.AttachRequest
	if err := api.ReadRequest(r.Body, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	switch {
	case req.Network == "nosuch":
		api.WriteError(w, &api.Error{Code: api.CodeNotFound, Field: "network", Message: "network nosuch does not exist"})
		return
	case req.IP == netip.MustParseAddr("10.44.0.2"):
		api.WriteError(w, &api.Error{Code: api.CodeInUse, Field: "ip", Message: "10.44.0.2 is in use by green"})
		return
	}
	link := links(false)[0]
	if req.IfName != "" {
		link.IfName = req.IfName
	}
	if req.Name != "" {
		link.Name = req.Name
	}
	if req.Tap != nil {
		link.Tap, link.HostIfName, link.Netns = true, "", req.Netns
	}
	if req.MTU != 0 {
		link.MTU = req.MTU
	}
	if req.MAC != "" {
		link.MAC = req.MAC
	}
	link.Netns, link.Offload = req.Netns, *req.Offload
	api.WriteReply(w, api.AttachReply{Attachment: link.Attachment, Gateways: networks(false)[0].Gateways, GatewayMAC: networks(false)[0].MAC})
}

func detach(w http.ResponseWriter, r *http.Request) {
	var req api.DetachRequest
	if err := api.ReadRequest(r.Body, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	if req.Netns != "red" && req.Name != "red" {
		api.WriteError(w, &api.Error{Code: api.CodeNotFound, Field: "netns", Message: "nothing is attached to " + req.Netns})
		return
	}
	api.WriteReply(w, links(false)[0].Attachment)
}

func apply(w http.ResponseWriter, r *http.Request) {
	var req api.ApplyRequest
	if err := api.ReadRequest(r.Body, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	switch req.YAML {
	case "networks: []\n":
		api.WriteReply(w, api.ApplyReply{})
	case "networs: []\n":
		api.WriteError(w, &api.Error{Code: api.CodeInvalid, Field: "networs", Message: `line 1: unknown field "networs"`})
	default:
		api.WriteReply(w, api.ApplyReply{Changes: []api.Change{
			{Action: "add", Network: "blue"},
			{Action: "change", Network: "black", Field: "mtu", From: "1500", To: "9000"},
			{Action: "remove", Network: "old"},
			{Action: "add", Object: "route", Namespace: "shop", Entry: "10.0.0.0/8 via 192.0.2.9 dev black"},
		}})
	}
}

func deleteNetwork(w http.ResponseWriter, r *http.Request) {
	var req api.DeleteNetworkRequest
	if err := api.ReadRequest(r.Body, &req); err != nil {
		api.WriteError(w, err)
		return
	}
	if req.Name == "blue" {
		api.WriteError(w, &api.Error{Code: api.CodeInvalid, Field: "name", Message: "network blue is declared by the daemon's file: leave it out there, see apply"})
		return
	}
	api.WriteReply(w, api.ApplyReply{Changes: []api.Change{{Action: "remove", Network: req.Name}}})
}

func statusRunning() api.Status {
	return api.Status{
		Version: "v0.1.0", Build: "4f1c22a", PID: 812, Started: clock().Add(-3*time.Hour - 2*time.Minute),
		RunDir: "/run/sluice", StateDir: "/var/lib/sluice", Networks: 2, Attachments: 3,
		Dataplane: api.DataplaneStatus{
			State: "running", PID: 821, Build: "4f1c22a", Adopted: true,
			Workers: 2, Generation: 17, Restarts: 1, LastGapMicros: 3217, Spare: 838,
		},
	}
}

func statusDown() api.Status {
	s := statusRunning()
	s.Dataplane = api.DataplaneStatus{State: "backoff"}
	s.Failed, s.ConfigError = 1, "/etc/sluice/sluice.yaml: networks: [2:1] unknown field"
	return s
}

// clock is when all of this happens.
func clock() time.Time { return time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC) }

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func links(stats bool) []api.Link {
	out := []api.Link{{Attachment: api.Attachment{
		ID: "01", Name: "red", Network: "blue", Netns: "/run/netns/red", IfName: "eth0", HostIfName: "sl3",
		Port: 3, MAC: "02:00:00:00:00:03", MTU: 1500, Addresses: prefixes("10.44.0.3/24", "fd44::3/64"),
		Offload: true, State: api.StateReady, Namespace: "default", Settings: settings(),
	}}, {Attachment: api.Attachment{
		ID: "02", Name: "green", Network: "black", Netns: "pid:4711", IfName: "eth1", HostIfName: "sl4",
		Port: 4, MAC: "02:00:00:00:00:04", MTU: 9000, Addresses: prefixes("192.0.2.9/28"),
		State: api.StateCreating, Namespace: "shop",
	}}}
	if stats {
		out[0].Stats = &api.Stats{
			RX:       api.Direction{Packets: 741_512, Bytes: 1_073_750_211, Batches: 20_133, GSO: 16_402},
			TX:       api.Direction{Packets: 91_100, Bytes: 6_012_600, Batches: 18_040, GSO: 0},
			FlowHits: 107_914, FlowMisses: 12, Flooded: 6, Learned: 1,
			Drops: map[string]uint64{"tx_full": 211, "malformed_ipv4": 4, "nft_drop": 17, "nft_reject": 1},
			DroppedBy: map[string]api.RuleDrop{
				"nft_drop":   {Table: "inet filter", Chain: "forward", Handle: 9, Rule: "tcp dport 81 counter drop", Pos: "/etc/sluice/filter.nft:21"},
				"nft_reject": {Port: true, Table: "netdev own", Handle: 4},
			},
		}
		out[1].Stats = &api.Stats{
			Drops:     map[string]uint64{"nft_drop": 2},
			DroppedBy: map[string]api.RuleDrop{"nft_drop": {Namespace: "core", Table: "inet filter", Chain: "forward"}},
		}
	}
	return out
}

func networks(stats bool) []api.Network {
	out := []api.Network{{
		Name: "blue", Namespace: "default", Subnets: prefixes("10.44.0.0/24", "fd44::/64"),
		Gateways: []netip.Addr{netip.MustParseAddr("10.44.0.1"), netip.MustParseAddr("fd44::1")},
		Port:     1, MAC: "02:00:00:00:00:01", MTU: 1500, AgeingSeconds: 300, FDBMax: 4096, FDBMaxPerPort: 1024,
		Echo: true, Attachments: 1,
	}, {
		Name: "black", Namespace: "shop", Subnets: prefixes("192.0.2.0/28"), Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Port: 2, MAC: "02:00:00:00:00:02", MTU: 9000, AgeingSeconds: 60, FDBMax: 64, FDBMaxPerPort: 8, Attachments: 1,
	}}
	if stats {
		out[0].Stats = &api.Stats{
			RX:    api.Direction{Packets: 9, Bytes: 882, Batches: 9},
			TX:    api.Direction{Packets: 9, Bytes: 882, Batches: 9},
			Drops: map[string]uint64{"local_checksum": 1},
		}
		out[1].Stats = &api.Stats{}
	}
	return out
}

func addresses(bool) []api.Address {
	return []api.Address{
		{Network: "blue", Prefix: netip.MustParsePrefix("10.44.0.1/24"), Kind: "gateway", Link: "blue", MAC: "02:00:00:00:00:01"},
		{Network: "blue", Prefix: netip.MustParsePrefix("fd44::1/64"), Kind: "gateway", Link: "blue", MAC: "02:00:00:00:00:01"},
		{Network: "blue", Prefix: netip.MustParsePrefix("10.44.0.3/24"), Kind: "attachment", Link: "red", MAC: "02:00:00:00:00:03"},
		{Network: "blue", Prefix: netip.MustParsePrefix("fd44::3/64"), Kind: "attachment", Link: "red", MAC: "02:00:00:00:00:03"},
		{Network: "black", Prefix: netip.MustParsePrefix("192.0.2.1/28"), Kind: "gateway", Link: "black", MAC: "02:00:00:00:00:02"},
	}
}

func sockets(bool) []api.Socket {
	return []api.Socket{
		{Network: "blue", Proto: "udp", State: "unconn", Local: netip.MustParseAddrPort("10.44.0.1:7")},
		{Network: "blue", Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort("10.44.0.1:7")},
		{Network: "blue", Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort("[fd44::1]:7")},
		{
			Network: "blue", Proto: "tcp", State: "estab",
			Local: netip.MustParseAddrPort("10.44.0.1:7"), Remote: netip.MustParseAddrPort("10.44.0.3:41712"),
		},
	}
}

func uplinks(stats bool) []api.Uplink {
	up := api.Uplink{
		Namespace: "default", IfIndex: 5, Name: "out", Type: "host", IfName: "sluice-out", HostIfName: "sl6", Port: 6, MTU: 1500,
		MAC: "02:00:00:00:00:05", Addresses: []netip.Prefix{netip.MustParsePrefix("100.127.0.0/31")},
		PeerMAC: "02:00:00:00:00:06", Peers: []netip.Addr{netip.MustParseAddr("100.127.0.1")},
		DefaultRoute: true, HostRoutes: []netip.Prefix{netip.MustParsePrefix("10.44.0.0/24")}, Masquerade: true, HostForwards: true,
		State: api.StateReady,
		Line: "5: out@sluice-out: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 state READY\n    link/ether 02:00:00:00:00:05 peer 02:00:00:00:00:06\n" +
			"    inet 100.127.0.0 peer 100.127.0.1/31\n    type host default_route on masquerade on forwarding on\n    host_route 10.44.0.0/24 dev sluice-out",
	}
	if stats {
		up.Stats = &api.Stats{RX: api.Direction{Packets: 3, Bytes: 300}, Drops: map[string]uint64{"guard_arp": 1}}
	}
	return []api.Uplink{up}
}

func trees(bool) []api.Share {
	return []api.Share{
		{Of: "node", Name: "node", Rate: 1e9, Ceil: 1e9, Line: "rate 1Gbit ceil 1Gbit burst 500Kb cburst 500Kb quantum 70000", Bytes: 1514, Packets: 1},
		{Of: "namespace", Namespace: "shop", Name: "shop", Depth: 1, Rate: 3e8, Ceil: 1e9, Line: "rate 300Mbit ceil 1Gbit burst 150Kb cburst 500Kb quantum 70000", Bytes: 1514, Packets: 1},
		{Of: "container", Namespace: "shop", Name: "red", Depth: 2, Rate: 8000, Ceil: 1e9, Line: "rate 8Kbit ceil 1Gbit burst 1600b cburst 500Kb quantum 70000", Bytes: 1514, Packets: 1, Drops: 3, Borrowed: 1},
		{From: true, Of: "namespace", Namespace: "shop", Name: "shop", Rate: 1e8, Ceil: 1e8, Line: "rate 100Mbit ceil 100Mbit burst 50000b cburst 50000b quantum 12500"},
	}
}
