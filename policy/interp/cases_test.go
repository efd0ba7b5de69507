// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// verdicts are what the kernel did with a trial.
type verdicts struct {
	packets []outcome
	listing string
	conns   string
}

// differs compares what both have counted, and the connections.
func (b *both) differs(t testing.TB, said *verdicts) string {
	t.Helper()
	found := b.beside(t, said.listing)
	ours := connections(b.ours)
	if ours != said.conns && tracks(b.rs) {
		found = append(found, fmt.Sprintf("connections:\nengine:\n%s\nkernel:\n%s", ours, said.conns))
	}
	return strings.Join(found, "\n")
}

// tracks reports whether some rule asks about connections: otherwise the kernel knows
// none.
func tracks(rs *nft.Ruleset) bool {
	var all strings.Builder
	rs.List(&all, nil)
	return strings.Contains(all.String(), " ct ") || strings.Contains(all.String(), "\tct ")
}

// connections are the router's, as the kernel's are written.
func connections(r *router) string {
	var all []string
	r.table.Entries(nil, uint32(r.now/1e9), func(e *conntrack.Entry) bool {
		o := &e.Original
		all = append(all, connection(o.Proto, o.Src.String(), o.Dst.String(), o.SrcPort, o.DstPort, e.State, e.Mark))
		return true
	})
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// connection is a line about a connection. Of queries there is no identifier, since
// the library doesn't say the kernel's.
func connection(proto uint8, src, dst string, sport, dport uint16, state string, mark uint32) string {
	if proto != packet.ProtoTCP && proto != packet.ProtoUDP {
		sport, dport = 0, 0
	}
	return fmt.Sprintf("%d %s:%d %s:%d %s mark %d", proto, src, sport, dst, dport, state, mark)
}

// jsonCase is a trial in the file of cases.
type jsonCase struct {
	Text    string
	Packets []jsonPacket
	Listing string
	Conns   string
}

type jsonPacket struct {
	In    int
	Frame []byte
	What  string
	Sum   uint64 `json:",omitempty"` // of what came out
}

func sum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

func appendCase(to []byte, tr *trial, said *verdicts) []byte {
	c := jsonCase{Text: tr.text, Listing: said.listing, Conns: said.conns}
	for i, s := range tr.shots {
		p := jsonPacket{In: s.in, Frame: s.frame, What: said.packets[i].what}
		if len(said.packets[i].out) > 0 {
			p.Sum = sum(said.packets[i].out)
		}
		c.Packets = append(c.Packets, p)
	}
	b, err := json.Marshal(&c)
	if err != nil {
		panic(err)
	}
	return append(append(to, b...), '\n')
}

func packed(b []byte) []byte {
	var all bytes.Buffer
	z, _ := gzip.NewWriterLevel(&all, gzip.BestCompression)
	_, _ = z.Write(b)
	_ = z.Close()
	return all.Bytes()
}

// TestCasesOfTheKernel plays what the kernel was asked once, see NFT_EXPORT: so the
// engine is held against it also where there is no privilege to ask again.
func TestCasesOfTheKernel(t *testing.T) {
	f, err := os.Open("testdata/cases.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rulesets, packets := 0, 0
	for d := json.NewDecoder(z); ; rulesets++ {
		var c jsonCase
		if err := d.Decode(&c); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		b := newBoth(t, load(t, c.Text))
		said := &verdicts{listing: c.Listing, conns: c.Conns}
		b.ours.resets = tracks(b.rs)
		for i, p := range c.Packets {
			b.ev.Pin()
			b.ev.Begin(nil)
			got := canonical(b.ours.pass(p.Frame, p.In), p.Frame)
			b.ev.Unpin()
			if got.what != p.What || len(got.out) > 0 && sum(got.out) != p.Sum {
				t.Fatalf("packet %d, %s by m%d: %v, the kernel said %s, sum %x\n%s", i, pt.Describe(p.Frame), p.In, got, p.What, p.Sum, c.Text)
			}
			packets++
		}
		if what := b.differs(t, said); what != "" {
			t.Errorf("%s\n%s", what, c.Text)
		}
	}
	t.Logf("%d cases, %d packets", rulesets, packets)
	if packets < 2000 {
		t.Errorf("only %d packets", packets)
	}
}

func mustLoad(text string) *nft.Ruleset {
	cmds, err := nft.Parse("test", text, nil)
	if err != nil {
		panic(err)
	}
	res, err := new(nft.Ruleset).Apply(cmds, nil)
	if err != nil {
		panic(err)
	}
	return res.Ruleset
}
