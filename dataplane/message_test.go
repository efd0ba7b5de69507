// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/netstack"
	"sluice/routing"
)

func TestHeader(t *testing.T) {
	h := header{kind: kindApply, fds: 3, id: 1<<40 + 5, len: 4}
	b := append(h.bytes(), "body"...)
	if len(b) != headerLen+4 {
		t.Fatalf("header of %d bytes", len(b)-4)
	}
	got, body, err := decodeHeader(b)
	if err != nil || got != h || string(body) != "body" {
		t.Errorf("%+v with %q, %v", got, body, err)
	}
}

func TestHeaderRefuses(t *testing.T) {
	good := header{kind: kindPing, len: 2}.bytes()
	good = append(good, "{}"...)
	if _, _, err := decodeHeader(good); err != nil {
		t.Fatal(err)
	}
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"half a header":             good[:headerLen-1],
		"another magic":             change(0, 'X'),
		"kind zero":                 change(4, 0),
		"a kind to come":            change(4, byte(numKinds)),
		"an unknown flag":           change(5, 2),
		"too many fds":              change(6, 0, maxFDs+1),
		"a length beyond the body":  change(16, 0, 0, 0, 3),
		"a length within the body":  change(16, 0, 0, 0, 1),
		"a length beyond all bound": change(16, 0xff, 0xff, 0xff, 0xff),
		"memfd and a body as well":  change(5, flagMemfd),
		"no body":                   good[:headerLen],
	} {
		if _, _, err := decodeHeader(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeIsBounded(t *testing.T) {
	bomb := []byte("[" + strings.Repeat("{},", maxItems+1) + "{}]")
	var rows []FDBEntry
	if err := decode(bomb, &rows); !errors.Is(err, ErrProtocol) || rows != nil {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	deep := []byte(strings.Repeat("[", 100_000))
	var any any
	if err := decode(deep, &any); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

// TestLargestSnapshotFits holds MaxBody and maxItems to what they promise.
func TestLargestSnapshotFits(t *testing.T) {
	var all []*cable
	for i := range netstack.MaxIndex {
		if i+1 != bridgeIndex {
			all = append(all, &cable{index: uint16(i + 1)})
		}
	}
	s := snapshot(1, all...)
	for i := range 250_000 { // config.MaxRoutes
		c, err := routing.ParseRoute(fmt.Sprintf("add 2001:db8:1234:%x:%x::/80 via 2001:db8:ffff:ffff:ffff:ffff:ffff:9 dev blue metric 1024 table 100", i>>16, i&0xffff))
		if err != nil {
			t.Fatal(err)
		}
		s.Namespaces[0].Routing.Routes = append(s.Namespaces[0].Routing.Routes, *c.Route)
	}
	b := encode(s)
	if len(b) > MaxBody*9/10 {
		t.Errorf("%d ports make a body of %d bytes, %d are allowed", len(all), len(b), MaxBody)
	}
	var got netstack.Snapshot
	if err := decode(b, &got); err != nil {
		t.Errorf("%d ports: %v", len(all), err)
	}
}

func TestOptions(t *testing.T) {
	o := options{
		stage: 2, listen: true, counters: true, workers: 3, flows: 5, busyPoll: 50_000,
		level: -4, owner: 1000, build: "abc_-123",
	}
	got, err := parseOptions(o.args())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o, got, cmp.AllowUnexported(options{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBuildID(t *testing.T) {
	id := BuildID()
	if id == "unknown" || len(id) != 20 || id != BuildID() {
		t.Errorf("build id %q", id)
	}
	for name, note := range map[string][]byte{
		"nothing":        nil,
		"another's note": note("GNU\x00", "a/b"),
		"cut off":        note("Go\x00\x00", "a/b")[:18],
		"empty":          note("Go\x00\x00", ""),
	} {
		if id, err := noteID(note, binary.LittleEndian); err == nil {
			t.Errorf("%s: build id %q", name, id)
		}
	}
	if id, err := noteID(note("Go\x00\x00", "action/main/content"), binary.LittleEndian); err != nil || id != "content" {
		t.Errorf("build id %q, %v", id, err)
	}
	if _, err := readBuildID("/dev/null"); err == nil {
		t.Error("/dev/null has a build id")
	}
}

func note(name, desc string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, 4)
	return append(append(b, name...), desc...)
}

// FuzzMessage gives bytes to both ends of the control connection, as a message
// and, if they are one, as what the other side says.
func FuzzMessage(f *testing.F) {
	stack, err := netstack.New(netstack.Options{Workers: 1, FlowEntries: 64})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(stack.Close)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := unpack(b, nil)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		again := append(header{kind: m.kind, id: m.id, len: uint32(len(m.body))}.bytes(), m.body...)
		if !bytes.Equal(again, b) {
			t.Errorf("encoded again it is\n%q, it was\n%q", again, b)
		}
		toAgent(t, m)
		toDataplane(t, stack, m)
	})
}

// toAgent delivers m to a client that waits for an answer.
func toAgent(t *testing.T, m message) {
	t.Helper()
	c := &Client{events: make(chan Event, 1), pending: map[uint64]*call{
		m.id: {answer: make(chan message, 1), wantFDs: m.id%2 == 0},
	}}
	if err := c.dispatch(m); err != nil {
		return
	}
	select {
	case e := <-c.events:
		if len(e.Message) > maxText+3 || len(e.Attrs) > maxAttrs {
			t.Errorf("event is out of bounds: %+v", e)
		}
	default:
	}
	a := answer{message: m}
	if s, _, err := a.snapshot(); err == nil {
		if files, err := a.sockets(s); err == nil && len(files) > 0 {
			t.Error("sockets out of nowhere")
		}
	}
	var no *RefusedError
	if err := refused(m.body); !errors.As(err, &no) && !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

// toDataplane lets a session answer m.
func toDataplane(t *testing.T, stack *netstack.Netstack, m message) {
	t.Helper()
	s := &session{srv: &server{stack: stack}, staged: make(map[uint16]int)}
	if _, err := s.do(m); err != nil {
		var no *RefusedError
		if !errors.As(err, &no) && !errors.Is(err, ErrProtocol) {
			t.Errorf("error of another kind: %v", err)
		}
	}
}
