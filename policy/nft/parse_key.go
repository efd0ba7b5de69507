// SPDX-License-Identifier: Apache-2.0

package nft

import "strings"

// metaKey is what a key of meta yields.
type metaKey struct {
	spec Spec
	// bare: it is listed without the word meta.
	bare bool
	// set: it can be set.
	set bool
}

// metaTable has the keys of meta.
var metaTable = map[string]metaKey{
	"length":    {spec: Spec{TypeInteger, 32, true}},
	"protocol":  {spec: Spec{TypeEtherType, 16, false}},
	"priority":  {spec: Spec{TypeClassID, 32, true}, set: true},
	"mark":      {spec: Spec{TypeMark, 32, true}, set: true},
	"iif":       {spec: Spec{TypeIfIndex, 32, true}, bare: true},
	"iifname":   {spec: Spec{TypeIfName, 128, true}, bare: true},
	"iiftype":   {spec: Spec{TypeARPHrd, 16, true}},
	"oif":       {spec: Spec{TypeIfIndex, 32, true}, bare: true},
	"oifname":   {spec: Spec{TypeIfName, 128, true}, bare: true},
	"oiftype":   {spec: Spec{TypeARPHrd, 16, true}},
	"skuid":     {spec: Spec{TypeUID, 32, true}},
	"skgid":     {spec: Spec{TypeGID, 32, true}},
	"nftrace":   {spec: Spec{TypeInteger, 1, true}, set: true},
	"rtclassid": {spec: Spec{TypeRealm, 32, true}},
	"nfproto":   {spec: Spec{TypeNFProto, 8, true}},
	"l4proto":   {spec: Spec{TypeInetProto, 8, true}},
	"ibrname":   {spec: Spec{TypeIfName, 128, true}},
	"obrname":   {spec: Spec{TypeIfName, 128, true}},
	"pkttype":   {spec: Spec{TypePktType, 8, true}, set: true},
	"cpu":       {spec: Spec{TypeInteger, 32, true}},
	"iifgroup":  {spec: Spec{TypeDevGroup, 32, true}, bare: true},
	"oifgroup":  {spec: Spec{TypeDevGroup, 32, true}, bare: true},
	"cgroup":    {spec: Spec{TypeInteger, 32, true}},
	"random":    {spec: Spec{TypeInteger, 32, false}},
	"secpath":   {spec: Spec{TypeBoolean, 8, true}},
	"iifkind":   {spec: Spec{TypeIfName, 128, true}},
	"oifkind":   {spec: Spec{TypeIfName, 128, true}},
	"ibrpvid":   {spec: Spec{TypeInteger, 16, true}},
	"ibrvproto": {spec: Spec{TypeEtherType, 16, false}},
	"time":      {spec: Spec{TypeTimeDate, 64, true}},
	"day":       {spec: Spec{TypeTimeDay, 8, true}},
	"hour":      {spec: Spec{TypeTimeHour, 32, true}},
	"sdif":      {spec: Spec{TypeIfIndex, 32, true}},
	"sdifname":  {spec: Spec{TypeIfName, 128, true}},
}

// unqualifiedMetaNames may stand without the word meta.
var unqualifiedMetaNames = []string{
	"mark", "iif", "iifname", "iiftype", "oif", "oifname", "oiftype", "skuid", "skgid", "nftrace",
	"rtclassid", "ibriport", "obriport", "ibrname", "obrname", "ibridgename", "obridgename", "pkttype",
	"cpu", "iifgroup", "oifgroup", "cgroup", "ipsec", "time", "day", "hour",
}

// metaAlias is the name that a key is listed by.
func metaAlias(s string) string {
	switch s {
	case "ibriport", "ibridgename":
		return "ibrname"
	case "obriport", "obridgename":
		return "obrname"
	case "ipsec":
		return "secpath"
	default:
		return s
	}
}

// meta reads "meta mark".
func (p *parser) meta(token) Expr {
	p.next()
	t := p.word("key of meta")
	x := metaOf(t.text)
	if x == nil {
		if t.text == "secmark" || t.text == "bri_iifpvid" {
			fail(t.pos, "meta %s is not supported", t.text)
		}
		fail(t.pos, "syntax error, unexpected %s, known keys are length, protocol, priority, mark, iif, oif, iifname, oifname, iiftype, oiftype, skuid, skgid, nftrace, rtclassid, nfproto, l4proto, ibrname, obrname, pkttype, cpu, iifgroup, oifgroup, cgroup, random, ipsec, iifkind, oifkind, ibrpvid, ibrvproto, time, day, hour, sdif, sdifname", t.text)
	}
	return x
}

// bareMeta reads "iifname".
func (p *parser) bareMeta(t token) Expr {
	if t.text == "ipsec" && (p.peekIs(1, "in") || p.peekIs(1, "out")) {
		fail(t.pos, "ipsec expressions are not supported")
	}
	p.next()
	return metaOf(t.text)
}

func metaOf(key string) Expr {
	key = metaAlias(key)
	k, ok := metaTable[key]
	if !ok {
		return nil
	}
	return &Meta{Spec: k.spec, Key: key}
}

// ctKey is what a key of ct yields.
type ctKey struct {
	spec Spec
	// dir: it may have a direction; must: it must.
	dir, must bool
	set       bool
}

// ctTable has the keys of ct.
var ctTable = map[string]ctKey{
	"state":      {spec: Spec{TypeCTState, 32, true}},
	"direction":  {spec: Spec{TypeCTDir, 8, true}},
	"status":     {spec: Spec{TypeCTStatus, 32, true}},
	"mark":       {spec: Spec{TypeMark, 32, true}, set: true},
	"expiration": {spec: Spec{TypeTime, 32, true}},
	"helper":     {spec: Spec{TypeString, 128, true}},
	"l3proto":    {spec: Spec{TypeNFProto, 8, true}, dir: true},
	"protocol":   {spec: Spec{TypeInetProto, 8, false}, dir: true},
	"saddr":      {spec: Spec{TypeInvalid, 0, false}, dir: true, must: true},
	"daddr":      {spec: Spec{TypeInvalid, 0, false}, dir: true, must: true},
	"proto-src":  {spec: Spec{TypeInetService, 16, false}, dir: true, must: true},
	"proto-dst":  {spec: Spec{TypeInetService, 16, false}, dir: true, must: true},
	"label":      {spec: Spec{TypeCTLabel, 128, true}, set: true},
	"packets":    {spec: Spec{TypeInteger, 64, true}, dir: true},
	"bytes":      {spec: Spec{TypeInteger, 64, true}, dir: true},
	"avgpkt":     {spec: Spec{TypeInteger, 64, true}, dir: true},
	"zone":       {spec: Spec{TypeInteger, 16, true}, dir: true, set: true},
	"event":      {spec: Spec{TypeCTEvent, 32, true}, set: true},
	"id":         {spec: Spec{TypeInteger, 32, true}},
}

// ct reads "ct state", "ct original ip saddr".
func (p *parser) ct(token) Expr {
	p.next()
	x := &CT{}
	switch {
	case p.accept("original"):
		x.Dir = DirOriginal
	case p.accept("reply"):
		x.Dir = DirReply
	}
	if p.is("ip") || p.is("ip6") {
		x.Family = familyTable[p.next().text]
	}
	t := p.word("key of ct")
	k, ok := ctTable[ctAlias(t.text)]
	if !ok {
		fail(t.pos, "syntax error, unexpected %s, known keys are state, direction, status, mark, expiration, helper, label, l3proto, saddr, daddr, protocol, proto-src, proto-dst, bytes, packets, avgpkt, zone, event, id", t.text)
	}
	x.Key, x.Spec = ctAlias(t.text), k.spec
	if x.Family != FamilyNone && x.Key != "saddr" && x.Key != "daddr" {
		fail(t.pos, "syntax error, unexpected %s, expecting saddr or daddr", t.text)
	}
	return x
}

func ctAlias(s string) string {
	if s == "l3proto" || !strings.HasPrefix(s, "proto_") {
		return s
	}
	return strings.Replace(s, "_", "-", 1)
}

// fib reads "fib saddr . iif oif".
func (p *parser) fib(token) Expr {
	p.next()
	x := &FIB{}
	flags := map[string]*bool{"saddr": &x.SAddr, "daddr": &x.DAddr, "mark": &x.Mark, "iif": &x.IIF, "oif": &x.OIF}
	for {
		t := p.word("saddr, daddr, mark, iif or oif")
		if flags[t.text] == nil {
			fail(t.pos, "syntax error, unexpected '%s', expecting saddr, daddr, mark, iif or oif", t.text)
		}
		if *flags[t.text] {
			fail(t.pos, "flag '%s' used more than once", t.text)
		}
		*flags[t.text] = true
		if !p.accept(".") {
			break
		}
	}
	t := p.word("oif, oifname or type")
	x.Result = t.text
	spec, ok := fibSpec(t.text)
	if !ok {
		fail(t.pos, "syntax error, unexpected '%s', expecting oif, oifname or type", t.text)
	}
	x.Spec = spec
	if x.SAddr == x.DAddr {
		fail(t.pos, "fib: need saddr or daddr, not both")
	}
	if x.IIF && x.OIF {
		fail(t.pos, "fib: iif and oif can not be used together")
	}
	return x
}

// fibSpec is the type of a result of fib.
func fibSpec(result string) (Spec, bool) {
	switch result {
	case "oif":
		return Spec{TypeIfIndex, 32, true}, true
	case "oifname":
		return Spec{TypeIfName, 128, true}, true
	case "type":
		return Spec{TypeFIBAddr, 32, true}, true
	}
	return Spec{}, false
}

// rt reads "rt mtu", or the routing header's "rt type".
func (p *parser) rt(t token) Expr {
	f := p.peek(1)
	if _, ok := extensionTable["rt"].find(f.text); ok && f.kind == tokWord {
		return p.extension(t, extensionTable["rt"])
	}
	x := &RT{}
	if n := p.peek(1); n.text == "ip" || n.text == "ip6" {
		x.Family = familyTable[n.text]
		if !p.peekIs(2, "nexthop") {
			return nil
		}
		p.next()
		f = p.peek(1)
	}
	spec, ok := rtSpec(f.text, x.Family)
	if !ok {
		return nil
	}
	x.Key, x.Spec = f.text, spec
	p.next()
	p.next()
	return x
}

// rtSpec is the type of a key of rt.
func rtSpec(key string, f Family) (Spec, bool) {
	switch key {
	case "classid":
		return Spec{TypeRealm, 32, true}, true
	case "nexthop":
		return rtNexthop(f), true
	case "mtu":
		return Spec{TypeInteger, 16, true}, true
	case "ipsec":
		return Spec{TypeBoolean, 8, true}, true
	}
	return Spec{}, false
}

func rtNexthop(f Family) Spec {
	switch f {
	case FamilyIP:
		return Spec{TypeIPv4Addr, 32, false}
	case FamilyIP6:
		return Spec{TypeIPv6Addr, 128, false}
	default:
		return Spec{}
	}
}

// numgen reads "numgen inc mod 2 offset 1".
func (p *parser) numgen(token) Expr {
	p.next()
	x := &Numgen{Spec: Spec{Type: TypeInteger, Bits: 32, Host: true}}
	switch {
	case p.accept("random"):
		x.Random = true
	case p.accept("inc"):
	default:
		p.unexpected("inc or random")
	}
	x.Mod, x.Offset = p.modulus()
	return x
}

// modulus reads "mod 2", and offset if there is one.
func (p *parser) modulus() (mod, offset uint32) {
	p.expect("mod")
	mod = uint32(p.number(32))
	if mod == 0 {
		fail(p.last.pos, "the modulus can't be 0")
	}
	offset = p.offset()
	return mod, offset
}

func (p *parser) offset() uint32 {
	if p.accept("offset") {
		return uint32(p.number(32))
	}
	return 0
}

// jhash reads "jhash ip saddr mod 2 seed 0xdead offset 1".
func (p *parser) jhash(token) Expr {
	p.next()
	x := &Hash{Spec: Spec{Type: TypeInteger, Bits: 32, Host: true}, Of: p.concat(true)}
	p.expect("mod")
	x.Mod = uint32(p.number(32))
	if x.Mod == 0 {
		fail(p.last.pos, "the modulus can't be 0")
	}
	if p.accept("seed") {
		x.Seed, x.Seeded = uint32(p.number(32)), true
	}
	x.Offset = p.offset()
	return x
}

// symhash reads "symhash mod 2".
func (p *parser) symhash(token) Expr {
	p.next()
	x := &Hash{Spec: Spec{Type: TypeInteger, Bits: 32, Host: true}}
	x.Mod, x.Offset = p.modulus()
	return x
}

// familyTable has the families by name.
var familyTable = map[string]Family{
	"ip": FamilyIP, "ip6": FamilyIP6, "inet": FamilyInet, "arp": FamilyARP, "bridge": FamilyBridge, "netdev": FamilyNetdev,
}

// String is the family's name.
func (f Family) String() string {
	for name, family := range familyTable {
		if family == f {
			return name
		}
	}
	return "unknown"
}
