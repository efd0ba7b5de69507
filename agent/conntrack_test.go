// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/conntrack"
	"sluice/dataplane"
	"sluice/nat"
	"sluice/natspec"
	pt "sluice/packet/packettest"
)

// shopNAT is shop with what is said of connections.
var shopNAT = strings.Replace(shop, "tables: {blue: 100}", `tables: {blue: 100}
    conntrack: {profile: rfc, filtering: endpoint, linger: 120s, quotaPerPort: 1000}
    nat:
      - postrouting oifname to-edge masquerade
      - prerouting iifname to-edge tcp dport 8443 dnat to 10.50.0.9:443
    publish: ["tcp 8080 to cart:80", "udp 5000-5010 to cart"]`, 1)

// ruleTexts are the rules of a namespace as they are told to the dataplane.
func ruleTexts(s *state, namespace string) (out []string) {
	for _, r := range s.connectionsSpec(s.namespace(namespace), "").Rules {
		text := r.Hook.String() + " " + r.Name
		if r.Target.Addrs.Min.IsValid() {
			text += " at " + r.Target.Addrs.Min.String()
		}
		out = append(out, text)
	}
	return out
}

func TestConnectionsFollowAttachments(t *testing.T) {
	d := newDesk(t, shopNAT)
	st := mustRead(t, d.store)
	spec := st.connectionsSpec(st.namespace("shop"), "")
	if !spec.Track || spec.Zone != 1 || spec.Profile != "rfc" || spec.Filtering != "endpoint" || spec.Linger != 120 || len(spec.Rules) != 2 {
		t.Errorf("without containers: %+v", spec)
	}
	if out := spec.Rules[0].Match.Out; !slices.Equal(out, []uint16{st.namespace("shop").Links[0].Index}) {
		t.Errorf("the device has number %v", out)
	}
	if edge := st.connectionsSpec(st.namespace("edge"), ""); edge.Track {
		t.Errorf("edge: %+v", edge)
	}
	d.attach("web", "cart")
	want := []string{
		"postrouting postrouting oifname to-edge masquerade",
		"prerouting prerouting iifname to-edge tcp dport 8443 dnat to 10.50.0.9:443 at 10.50.0.9",
		"prerouting publish tcp 8080 to cart:80 at 10.50.0.2", "output publish tcp 8080 to cart:80 at 10.50.0.2",
		"prerouting publish tcp 8080 to cart:80 at fd50::2", "output publish tcp 8080 to cart:80 at fd50::2",
		"prerouting publish udp 5000-5010 to cart:5000-5010 at 10.50.0.2", "output publish udp 5000-5010 to cart:5000-5010 at 10.50.0.2",
		"prerouting publish udp 5000-5010 to cart:5000-5010 at fd50::2", "output publish udp 5000-5010 to cart:5000-5010 at fd50::2",
		"postrouting publish: hairpin",
	}
	st = mustRead(t, d.store)
	if diff := cmp.Diff(want, ruleTexts(st, "shop")); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	port := st.snapshot("").Namespaces[2].Networks[1].Ports[0]
	if port.Connections.Quota != 1000 || port.Tenure == 0 || port.Tenure == ^uint32(0) {
		t.Errorf("the port is %+v", port)
	}
	if _, err := nat.Compile(st.connectionsSpec(st.namespace("shop"), "").Rules); err != nil {
		t.Error(err)
	}
	if again := d.declare(shopNAT); len(again) != 0 {
		t.Errorf("the same file changes %v", again)
	}
}

func TestPublishCommands(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	d.must("publish add tcp 8080 to cart:80", "publish add tcp 10.50.0.1:81-82 to db:1081-1082", "publish add udp 8080 to cart")
	for line, want := range map[string]struct {
		code api.Code
		text string
	}{
		"publish add tcp 8000-8100 to store": {api.CodeExists, "Error: Port tcp 8080 is published for cart already."},
		"publish add tcp 82 to store":        {api.CodeExists, "Error: Port tcp 10.50.0.1:81-82 is published for db already."},
		"publish del tcp 9":                  {api.CodeNotFound, "Error: Port tcp 9 is not published."},
		"publish del tcp 8080 to other:80":   {api.CodeNotFound, "Error: Port tcp 8080 is not published."},
		"publish add icmp 8 to cart":         {api.CodeInvalid, `Error: argument "icmp" is wrong: want tcp, udp or sctp`},
		"publish frob":                       {api.CodeInvalid, `Error: argument "frob" is wrong: want add or del`},
	} {
		_, err := d.do(false, line)
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Code != want.code || !strings.EqualFold(e.Message, want.text) {
			t.Errorf("%s: %+v, want %+v", line, err, want)
		}
	}
	st := mustRead(t, d.store)
	if got := lines(st.namespace("shop").Connections.Published); !slices.Equal(got, []string{
		"tcp 8080 to cart:80", "tcp 10.50.0.1:81-82 to db:1081-1082", "udp 8080 to cart:8080",
	}) {
		t.Errorf("published: %q", got)
	}
	d.must("publish del tcp 8080", "publish del udp 8080 to cart")
	got := d.declare(shop)
	if diff := cmp.Diff([]string{"remove publish tcp 10.50.0.1:81-82 to db:1081-1082 in shop"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestZonesStay keeps a namespace's zone while it lives, and gives a namespace of the
// same name another one when it comes again.
func TestZonesStay(t *testing.T) {
	d := newDesk(t, shop)
	zone := func(name string) uint16 { return mustRead(t, d.store).namespace(name).Connections.Zone }
	d.must("publish add tcp 8080 to cart:80")
	first := zone("shop")
	d.must("publish del tcp 8080")
	d.declare(shop)
	d.must("publish add tcp 8081 to cart:80")
	if first == 0 || zone("shop") != first || zone("edge") != 0 {
		t.Errorf("zones %d, then %d", first, zone("shop"))
	}
	d.declare("networks: []")
	d.declare(shopNAT)
	if again := zone("shop"); again == first || again == 0 {
		t.Errorf("zone %d after %d", again, first)
	}
	d.declare(strings.Replace(shopNAT, "conntrack: {", "conntrack: {track: true, ", 1))
	d.declare(strings.Replace(shop, "tables: {blue: 100}", "conntrack: {track: true}", 1))
	if st := mustRead(t, d.store); !st.connectionsSpec(st.namespace("shop"), "").Track {
		t.Error("nothing is tracked")
	}
	d.declare(strings.Replace(shop, "tables: {blue: 100}", "conntrack: {track: false}", 1))
	if _, err := d.do(false, "publish add tcp 1 to cart"); err == nil {
		t.Error("published where nothing is tracked")
	}
}

// TestTakenBack undoes a transaction, as is done when the dataplane refuses it.
func TestConnectionsTakenBack(t *testing.T) {
	d := newDesk(t, shop)
	before := mustRead(t, d.store)
	undo, err := d.store.attempt(func(tx *txn) error {
		e, err := newEditor(tx, "shop", &d.sets)
		if err != nil {
			return err
		}
		if err := e.publish(strings.Fields("add tcp 80 to cart")); err != nil {
			return err
		}
		return e.finish()
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(mustRead(t, d.store).namespace("shop").Connections.Published) != 1 {
		t.Fatal("nothing is published")
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	after := mustRead(t, d.store)
	if diff := cmp.Diff(before.namespace("shop").Connections.settings(), after.namespace("shop").Connections.settings()); diff != "" || after.namespace("shop").Connections.Zone != 0 {
		t.Errorf("%+v", after.namespace("shop").Connections)
	}
}

// TestWatchNumbersEvents: a listener that comes too late hears how many it missed, and
// one that comes again hears only what is new.
func TestWatchNumbersEvents(t *testing.T) {
	w := connWatch{first: 1, next: 1, ring: make([]watched, watchRing)}
	r := &connRequest{Request: &natspec.Request{Kinds: [3]bool{true, false, true}}}
	table, err := conntrack.NewTable(conntrack.Config{Entries: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	all := table.Watch()
	defer all.Close()
	var c conntrack.Conn
	hear := func(kinds ...conntrack.EventKind) {
		e := new(dataplane.ConnEvents)
		for _, k := range kinds {
			c = happens(t, table, c, k)
		}
		e.Events, _ = all.Read(nil, 100)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.hear(e, time.Time{})
	}
	ask := func(after uint64) *connPage {
		p := &connPage{connRequest: r}
		p.Next = after
		w.collect(p)
		return p
	}
	hear(conntrack.EventNew)
	if out := ask(0); out.Entries != 0 || out.Next != 2 {
		t.Errorf("from now on: %+v", out.Page)
	}
	hear(conntrack.EventUpdate, conntrack.EventDestroy, conntrack.EventNew)
	if out := ask(2); out.Entries != 2 || out.Next != 5 || out.Lost != 0 || strings.Count(string(out.Body), "\n") != 2 || !strings.Contains(string(out.Body), `"kind":"destroy"`) {
		t.Errorf("after 2: %+v %s", out.Page, out.Body)
	}
	w.mu.Lock()
	w.hear(&dataplane.ConnEvents{Lost: 7}, time.Time{})
	w.mu.Unlock()
	hear(conntrack.EventDestroy)
	if out := ask(2); out.Entries != 1 || out.Lost != 10 {
		t.Errorf("after a loss: %+v", out.Page)
	}
	if out := ask(99); out.Entries != 0 || out.Next != 13 {
		t.Errorf("of another daemon's numbers: %+v", out.Page)
	}
	for range watchRing {
		hear(conntrack.EventNew, conntrack.EventDestroy)
	}
	got, lost, parts := 0, 0, 0
	for p := ask(12); ; p, parts = ask(p.Next), parts+1 {
		if got, lost = got+p.Entries, lost+int(p.Lost); p.Next == 13+2*watchRing {
			break
		}
	}
	if got != watchRing || lost != watchRing+1 || parts < 10 {
		t.Errorf("of %d events %d in %d parts, %d lost", 2*watchRing+1, got, parts, lost)
	}
}

// happens lets something happen to a connection.
func happens(t *testing.T, table *conntrack.Table, c conntrack.Conn, k conntrack.EventKind) conntrack.Conn {
	t.Helper()
	switch k {
	case conntrack.EventNew:
		return connectionIn(t, table, 1, pt.TCP4(pt.Packet{Src: netip.MustParseAddr("10.0.0.1"), SrcPort: 5, DstPort: 80, Flags: pt.SYN}), 1000)
	case conntrack.EventUpdate:
		f := pt.Frame(pt.TCP4(pt.Packet{Dst: netip.MustParseAddr("10.0.0.1"), SrcPort: 80, DstPort: 5, Flags: pt.SYN | pt.ACK, Ack: 1}))
		c.Packet(conntrack.Reply, f, 1000)
	case conntrack.EventDestroy:
		c.Delete(1000)
	}
	return c
}

// connectionIn lets a connection begin in a table.
func connectionIn(tb testing.TB, table *conntrack.Table, zone uint16, frame []byte, now uint32) conntrack.Conn {
	tb.Helper()
	var n conntrack.Pending
	table.Look(&conntrack.Packet{Frame: pt.Frame(frame), Now: now, Zone: zone}, &n)
	if !n.Active() {
		tb.Fatal("the packet begins no connection")
	}
	c, out := table.Confirm(&n, now)
	if out != conntrack.Inserted {
		tb.Fatalf("outcome %d", out)
	}
	return c
}
