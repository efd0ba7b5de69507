// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// plainTwin is the slow bridge with all settings of ports, but without bounds,
// ages, snooping and limits, which have twins or tests of their own. It takes a
// frame apart, the bridge's tag and what is behind it, and puts it together again
// for each port.
type plainTwin struct {
	ports  map[uint16]PortConfig
	known  map[place]uint16
	static map[place]StaticEntry
}

// opened is a frame taken apart.
type opened struct {
	in       uint16
	dst, src packet.MAC
	tags     []pt.VLANTag // as it came
	vid      uint16
	outer    uint16 // TPID of the bridge's tag; 0: none
	priority uint16 // and DEI
	inner    []pt.VLANTag
}

func listed(ranges []VIDRange, vid uint16) bool {
	return slices.ContainsFunc(ranges, func(r VIDRange) bool { return r.First <= vid && vid <= r.Last })
}

func isAware(p PortConfig) bool {
	return p.VLAN.PVID+uint16(len(p.VLAN.Tagged)+len(p.VLAN.Untagged)) > 0
}

func leavesUntagged(p PortConfig, vid uint16) bool {
	return listed(p.VLAN.Untagged, vid) || vid != 0 && vid == p.VLAN.PVID && !listed(p.VLAN.Tagged, vid)
}

func inVLAN(p PortConfig, vid uint16) bool {
	return !isAware(p) || leavesUntagged(p, vid) || listed(p.VLAN.Tagged, vid)
}

func tpidOf(p PortConfig) uint16 {
	if p.VLAN.QinQ && isAware(p) {
		return packet.EtherTypeQinQ
	}
	return packet.EtherTypeVLAN
}

// open finds the frame's VLAN; false if the port does not take it.
func (w *plainTwin) open(o *opened) bool {
	p := w.ports[o.in]
	o.inner = o.tags
	if len(o.tags) > 0 && o.tags[0].TPID == tpidOf(p) {
		o.outer, o.vid, o.priority, o.inner = o.tags[0].TPID, o.tags[0].TCI&0xfff, o.tags[0].TCI&0xf000, o.tags[1:]
	}
	if isAware(p) && o.vid == 0 {
		o.vid = p.VLAN.PVID
	}
	return !isAware(p) || o.vid != 0 && inVLAN(p, o.vid)
}

// closed is the frame as it leaves by a port; false if it may not.
func (w *plainTwin) closed(o *opened, to PortConfig) ([]pt.VLANTag, bool) {
	tpid := tpidOf(to)
	switch {
	case !isAware(to) && o.vid == 0:
		return o.tags, true
	case !isAware(to) && o.outer != 0:
		tpid = o.outer
	case !inVLAN(to, o.vid):
		return nil, false
	case isAware(to) && leavesUntagged(to, o.vid):
		return o.inner, true
	}
	all := append([]pt.VLANTag{{TPID: tpid, TCI: o.priority | o.vid}}, o.inner...)
	return all, len(all) <= 2
}

// deliver is why a port does not get the frame, and else what it gets.
func (w *plainTwin) deliver(o *opened, index uint16) (string, trace.Reason) {
	to, from := w.ports[index], w.ports[o.in]
	if index == o.in && to.Flags&Hairpin == 0 {
		return "", trace.SamePort
	}
	if to.Flags&from.Flags&Isolated != 0 {
		return "", trace.Isolated
	}
	tags, ok := w.closed(o, to)
	if !ok {
		return "", trace.VLANEgress
	}
	mirror := to.MirrorOut
	if _, member := w.ports[mirror]; !member || mirror == index {
		mirror = 0
	}
	return show(index, tags, mirror), trace.None
}

// show is a port and the tags that it gets.
func show(port uint16, tags []pt.VLANTag, mirror uint16) string {
	s := fmt.Sprintf("%d mirror %d", port, mirror)
	for _, t := range tags {
		s += fmt.Sprintf(" %04x:%d", t.TPID, t.TCI)
	}
	return s
}

func (w *plainTwin) input(o *opened) []string {
	from, member := w.ports[o.in]
	bpdu := slices.Contains([]uint64{0x0180c2000000, 0x0180c2000008, 0x01000ccccccd}, o.dst.Key())
	switch {
	case !member:
		return []string{trace.PortRemoved.String()}
	case o.src.IsMulticast() || o.src.IsZero():
		return []string{trace.SourceMulticast.String()}
	case bpdu && from.Flags&FilterBPDU != 0 && o.dst.IsReserved():
		return []string{trace.BPDU.String()}
	case o.dst.IsReserved():
		return []string{trace.ReservedMulticast.String()}
	case !w.open(o):
		return []string{trace.VLANIngress.String()}
	case bpdu && from.Flags&FilterBPDU != 0:
		return []string{trace.BPDU.String()}
	}
	if r := w.learn(o, from); r != trace.None {
		return []string{r.String()}
	}
	to, known := w.at(place{o.dst, o.vid})
	if o.dst.IsMulticast() || !known {
		return w.flood(o)
	}
	if _, member := w.ports[to]; !member {
		return []string{trace.PortRemoved.String()}
	}
	out, r := w.deliver(o, to)
	if r != trace.None {
		return []string{r.String()}
	}
	return []string{out}
}

func (w *plainTwin) at(p place) (uint16, bool) {
	if s, ok := w.static[p]; ok {
		return s.Port, true
	}
	port, ok := w.known[p]
	return port, ok
}

func (w *plainTwin) learn(o *opened, from PortConfig) trace.Reason {
	p := place{o.src, o.vid}
	s, static := w.speaker(p)
	elsewhere := static && s.Port != o.in
	here, known := w.at(p)
	switch {
	case elsewhere && s.Own:
		return trace.SourceOwnMAC
	case from.Flags&Locked != 0 && (elsewhere || !known || here != o.in):
		return trace.Locked
	case elsewhere || from.Flags&(Locked|NoLearning) != 0:
		return trace.None
	}
	if _, itself := w.static[p]; itself {
		return trace.None
	}
	w.known[p] = o.in
	return trace.None
}

// speaker is the static entry that says who may use a MAC: the one in the VLAN, or
// else the one without.
func (w *plainTwin) speaker(p place) (StaticEntry, bool) {
	if s, ok := w.static[p]; ok {
		return s, true
	}
	s, ok := w.static[place{mac: p.mac}]
	return s, ok
}

// flood asks every port, the local one last; the first that refuses says why, if
// none gets it.
func (w *plainTwin) flood(o *opened) []string {
	var ports, local []uint16
	for i, p := range w.ports {
		if !p.Local {
			ports = append(ports, i)
		} else if o.dst.IsMulticast() {
			local = append(local, i)
		}
	}
	slices.Sort(ports)
	why, all := trace.NoPort, []string(nil)
	for _, i := range append(ports, local...) {
		out, r := w.deliver(o, i)
		if w.off(o, i) {
			r = trace.FloodOff
		}
		if r == trace.None {
			all = append(all, out)
		} else if i != o.in && why == trace.NoPort {
			why = r
		}
	}
	if all == nil {
		return []string{why.String()}
	}
	slices.Sort(all)
	return all
}

func (w *plainTwin) off(o *opened, i uint16) bool {
	fl, ours := w.ports[i].Flags, w.ports[o.in].Local
	switch {
	case o.dst.IsBroadcast():
		return fl&NoBroadcastFlood != 0 && !ours
	case o.dst.IsMulticast():
		return fl&NoMulticastFlood != 0 && !ours
	}
	return fl&NoUnicastFlood != 0
}

// bout is a bridge and its twin under random settings and frames.
type bout struct {
	t   *testing.T
	rnd *rand.Rand
	b   *Bridge
	w   *plainTwin
}

// randomVLAN is aware in two of three cases.
func randomVLAN(rnd *rand.Rand) VLAN {
	var v VLAN
	if rnd.IntN(3) == 0 {
		return v
	}
	v.PVID = uint16(rnd.IntN(3))
	v.QinQ = rnd.IntN(4) == 0
	for range rnd.IntN(3) {
		first := uint16(1 + rnd.IntN(3))
		r := VIDRange{first, first + uint16(rnd.IntN(2))}
		if rnd.IntN(2) == 0 {
			v.Tagged = append(v.Tagged, r)
		} else {
			v.Untagged = append(v.Untagged, r)
		}
	}
	return v
}

func (d *bout) setPorts() {
	var list []PortConfig
	old := d.w.ports
	d.w.ports = map[uint16]PortConfig{}
	plain := d.rnd.IntN(4) == 0
	for i := uint16(1); i <= 6; i++ {
		c := PortConfig{Index: i, Local: i == 6}
		if !plain {
			c.VLAN = randomVLAN(d.rnd)
			c.Flags = PortFlags(d.rnd.Uint32()&d.rnd.Uint32()) &^ (Suppress | FastLeave)
			c.MirrorOut = uint16(d.rnd.IntN(30))
		}
		if d.rnd.IntN(6) > 0 {
			list = append(list, c)
			d.w.ports[i] = c
		}
	}
	for i := range old {
		if _, stays := d.w.ports[i]; stays {
			continue
		}
		for p, port := range d.w.known {
			if port == i {
				delete(d.w.known, p)
			}
		}
		for p, s := range d.w.static {
			if s.Port == i {
				delete(d.w.static, p)
			}
		}
	}
	d.b.SetPorts(list)
}

func (d *bout) setStatic() {
	var list []StaticEntry
	old := d.w.static
	d.w.static = map[place]StaticEntry{}
	for n := range 8 {
		e := StaticEntry{MAC: station(n), VLAN: uint16(d.rnd.IntN(3)), Port: uint16(1 + d.rnd.IntN(5))}
		if n == 7 {
			e.MAC, e.Port, e.Own = ownMAC, 6, true
		}
		if d.rnd.IntN(2) == 0 {
			list = append(list, e)
			d.w.static[place{e.MAC, e.VLAN}] = e
		}
	}
	for p, e := range d.w.static {
		if old[p] == e {
			continue
		}
		maps.DeleteFunc(d.w.known, func(q place, _ uint16) bool {
			return q == p || q.mac == p.mac && p.vlan == 0
		})
	}
	d.b.SetStatic(list)
}

func (d *bout) mac() packet.MAC {
	odd := []packet.MAC{broadcast, broadcast, group, reserved, {}, {1, 0x80, 0xc2}, {1, 0, 0x0c, 0xcc, 0xcc, 0xcd}, ownMAC}
	if n := d.rnd.IntN(24); n < len(odd) {
		return odd[n]
	}
	return station(d.rnd.IntN(20))
}

func (d *bout) frame() {
	o := &opened{in: uint16(1 + d.rnd.IntN(7)), dst: d.mac(), src: d.mac()}
	for range d.rnd.IntN(3) {
		tag := pt.VLANTag{TPID: packet.EtherTypeVLAN, TCI: uint16(d.rnd.IntN(5) | d.rnd.IntN(2)<<13)}
		if d.rnd.IntN(3) == 0 {
			tag.TPID = packet.EtherTypeQinQ
		}
		o.tags = append(o.tags, tag)
	}
	layers := []pt.Layer{pt.EtherHdr{Src: o.src, Dst: o.dst}}
	for _, t := range o.tags {
		layers = append(layers, t)
	}
	bytes := pt.Build(append(layers, pt.IPv4Hdr{}, pt.UDPHdr{})...)
	copy(bytes[6:], o.src[:]) // the builder has a default for zero
	copy(bytes, o.dst[:])
	f := pt.Frame(bytes)
	v := d.b.Input(o.in, f, 0)
	got := results(&v, bytes)
	want := d.w.input(o)
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Fatalf("port %d, %v -> %v, tags %v (-twin +bridge):\n%s\n%+v", o.in, o.src, o.dst, o.tags, diff, d.w.ports)
	}
	if v.Src.Valid() && v.Dst.Valid() {
		d.replay(o, &v, bytes)
	}
}

// replay asks the twin again what a flow cache would remember.
func (d *bout) replay(o *opened, v *Verdict, bytes []byte) {
	kept := Verdict{Action: v.Action, Reason: v.Reason, Port: v.Port, Tag: v.Tag, Mirror: v.Mirror}
	again := &opened{in: o.in, dst: o.dst, src: o.src, tags: o.tags}
	if diff := cmp.Diff(d.w.input(again), results(&kept, bytes)); diff != "" {
		d.t.Fatalf("replayed (-twin +verdict):\n%s", diff)
	}
}

// results applies what a verdict says to copies of the frame.
func results(v *Verdict, bytes []byte) []string {
	var all []string
	add := func(o Output) {
		f := pt.Frame(bytes)
		if !o.Tag.Apply(f) {
			all = append(all, "tag can't be applied")
			return
		}
		var tags []pt.VLANTag
		for i := range f.View.Tags {
			tags = append(tags, pt.VLANTag{TPID: f.View.TPID[i], TCI: f.View.TCI[i]})
		}
		all = append(all, show(o.Port, tags, o.Mirror))
	}
	switch v.Action {
	case Forward:
		add(Output{v.Port, v.Mirror, v.Tag})
	case Flood:
		var c Cursor
		for o, ok := v.Next(&c); ok; o, ok = v.Next(&c) {
			add(o)
		}
	default:
		return []string{v.Reason.String()}
	}
	slices.Sort(all)
	return all
}

func TestSettingsAndTwinAgree(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			d := &bout{
				t: t, rnd: rand.New(rand.NewPCG(seed, 21)), b: New(Options{}),
				w: &plainTwin{known: map[place]uint16{}, static: map[place]StaticEntry{}},
			}
			for n := range 3000 {
				if n%50 == 0 {
					d.setPorts()
				}
				if n%70 == 0 {
					d.setStatic()
				}
				d.frame()
			}
			d.check()
		})
	}
}

// check compares what was learned.
func (d *bout) check() {
	got := map[place]uint16{}
	for _, e := range d.b.Entries(nil, 0) {
		if e.Kind == Dynamic {
			got[place{e.MAC, e.VLAN}] = e.Port
		}
	}
	if diff := cmp.Diff(d.w.known, got, cmp.AllowUnexported(place{})); diff != "" {
		d.t.Errorf("(-twin +bridge):\n%s", diff)
	}
}
