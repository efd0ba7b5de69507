// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"net/netip"
	"time"

	"sluice/packet"
	"sluice/policy/nft"
)

// metaKey is a key of meta, ctKey one of ct.
type (
	metaKey uint8
	ctKey   uint8
)

const (
	metaLength metaKey = iota + 1
	metaProtocol
	metaPriority
	metaMark
	metaIIF
	metaIIFName
	metaIIFType
	metaIIFGroup
	metaIIFKind
	metaOIF
	metaOIFName
	metaOIFType
	metaOIFGroup
	metaOIFKind
	metaSKUID
	metaSKGID
	metaNFTrace
	metaIBRName
	metaOBRName
	metaPktType
	metaCPU
	metaRandom
	metaNFProto
	metaL4Proto
	metaSDIF
	metaSDIFName
	metaTime
	metaDay
	metaHour
)

const (
	ctKeyState ctKey = iota + 1
	ctKeyDirection
	ctKeyStatus
	ctKeyMark
	ctKeyExpiration
	ctKeyL3Proto
	ctKeyProtocol
	ctKeySaddr
	ctKeyDaddr
	ctKeyProtoSrc
	ctKeyProtoDst
	ctKeyLabel
	ctKeyPackets
	ctKeyBytes
	ctKeyAvgPkt
	ctKeyZone
	ctKeyID
)

// metaNames are nft's words for the keys that can be asked for.
func metaNames() map[string]metaKey {
	return map[string]metaKey{
		"length": metaLength, "protocol": metaProtocol, "priority": metaPriority, "mark": metaMark,
		"iif": metaIIF, "iifname": metaIIFName, "iiftype": metaIIFType, "iifgroup": metaIIFGroup, "iifkind": metaIIFKind,
		"oif": metaOIF, "oifname": metaOIFName, "oiftype": metaOIFType, "oifgroup": metaOIFGroup, "oifkind": metaOIFKind,
		"skuid": metaSKUID, "skgid": metaSKGID, "nftrace": metaNFTrace, "ibrname": metaIBRName, "obrname": metaOBRName,
		"pkttype": metaPktType, "cpu": metaCPU, "random": metaRandom, "nfproto": metaNFProto, "l4proto": metaL4Proto,
		"sdif": metaSDIF, "sdifname": metaSDIFName, "time": metaTime, "day": metaDay, "hour": metaHour,
	}
}

func ctNames() map[string]ctKey {
	return map[string]ctKey{
		"state": ctKeyState, "direction": ctKeyDirection, "status": ctKeyStatus, "mark": ctKeyMark,
		"expiration": ctKeyExpiration, "l3proto": ctKeyL3Proto, "protocol": ctKeyProtocol,
		"saddr": ctKeySaddr, "daddr": ctKeyDaddr, "proto-src": ctKeyProtoSrc, "proto-dst": ctKeyProtoDst,
		"label": ctKeyLabel, "packets": ctKeyPackets, "bytes": ctKeyBytes, "avgpkt": ctKeyAvgPkt,
		"zone": ctKeyZone, "id": ctKeyID,
	}
}

// meta reads what is known of the packet besides its bytes.
func (e *Evaluator) meta(in *inst) (value, bool) {
	p := e.p
	v := &p.Frame.View
	switch metaKey(in.aux) {
	case metaL4Proto:
		return value{0, uint64(e.proto)}, v.Is(packet.ViewIP) && !e.opaque
	case metaNFProto:
		return value{0, uint64(e.family)}, true
	case metaProtocol:
		return value{0, uint64(etherType(v))}, true
	case metaMark:
		return value{0, uint64(p.Mark)}, true
	case metaPriority:
		return value{0, uint64(p.Priority)}, true
	case metaPktType:
		return value{0, uint64(p.PktType)}, true
	case metaNFTrace:
		return value{0, bit(p.Trace)}, true
	default:
		return e.metaDevice(in)
	}
}

// metaDevice reads what is known of the packet's devices.
func (e *Evaluator) metaDevice(in *inst) (value, bool) {
	p := e.p
	switch metaKey(in.aux) {
	case metaIIF, metaIIFName, metaIIFType, metaIIFGroup, metaIIFKind, metaSDIF, metaSDIFName:
		return p.In.ask(metaKey(in.aux))
	case metaOIF, metaOIFName, metaOIFType, metaOIFGroup, metaOIFKind:
		return p.Out.ask(metaKey(in.aux) - metaOIF + metaIIF)
	case metaIBRName:
		return p.In.bridge()
	case metaOBRName:
		return p.Out.bridge()
	default:
		return e.metaVolatile(in)
	}
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// etherType is skb->protocol: the kernel has taken the outer tag off.
func etherType(v *packet.View) uint16 {
	if v.Tags > 1 {
		return v.TPID[1]
	}
	return v.EtherType
}

// ask is what is known of a device. Where there is none its name is empty, and its
// number 0; anything else ends the rule.
func (d *Device) ask(key metaKey) (value, bool) {
	if d == nil {
		return value{}, key == metaIIF || key == metaIIFName
	}
	switch key {
	case metaIIF:
		return value{0, uint64(d.Index)}, true
	case metaIIFName:
		return d.name, true
	case metaIIFType:
		return value{0, uint64(d.Type)}, true
	case metaIIFGroup:
		return value{0, uint64(d.Group)}, true
	case metaIIFKind:
		return d.kind, true
	default:
	}
	return value{}, false // it is no slave of a VRF
}

func (d *Device) bridge() (value, bool) {
	if d == nil || d.Bridge == nil {
		return value{}, false
	}
	return d.Bridge.name, true
}

// metaVolatile reads what another packet of the flow may have otherwise.
func (e *Evaluator) metaVolatile(in *inst) (value, bool) {
	p := e.p
	switch metaKey(in.aux) {
	case metaLength:
		e.rec.Volatile |= ByLength
		return value{0, uint64(e.length())}, true
	case metaSKUID:
		e.rec.Volatile |= BySocket
		return value{0, uint64(p.UID)}, p.Socket
	case metaSKGID:
		e.rec.Volatile |= BySocket
		return value{0, uint64(p.GID)}, p.Socket
	case metaCPU:
		e.rec.Volatile |= ByCPU
		return value{0, uint64(p.CPU)}, true
	case metaRandom:
		e.rec.Volatile |= ByRandom
		return value{0, e.draw() >> 32}, true
	default:
	}
	e.rec.Volatile |= ByTime
	const day = 24 * 3600
	switch metaKey(in.aux) {
	case metaTime:
		return value{0, uint64(p.Wall / second)}, true
	case metaHour:
		return value{0, uint64(p.Wall/second) % day}, true
	case metaDay: // 1 January 1970 was a Thursday
		local := p.Wall/second + int64(p.Zone)
		return value{0, uint64(local/day+int64(time.Thursday)) % 7}, true
	default:
	}
	return value{}, false
}

// addrValue is an address as it lies in registers; false if it isn't n bytes long.
func addrValue(a netip.Addr, n uint8) (value, bool) {
	switch {
	case a.Is4() && n == 4:
		b := a.As4()
		return value{0, uint64(binary.BigEndian.Uint32(b[:]))}, true
	case a.Is6() && n == 16:
		b := a.As16()
		return number(b[:]), true
	}
	return value{}, false
}

func addrOf(v value, v6 bool) netip.Addr {
	if v6 {
		var b [16]byte
		v.put(b[:])
		return netip.AddrFrom16(b)
	}
	var b [4]byte
	v.put(b[:])
	return netip.AddrFrom4(b)
}

func familyOf(a netip.Addr) nft.Family {
	if a.Is4() {
		return nft.FamilyIP
	}
	return nft.FamilyIP6
}

// fib asks the routes.
func (e *Evaluator) fib(f *nft.FIB) (value, bool) {
	p := e.p
	v := &p.Frame.View
	if p.Env == nil || p.Env.FIB == nil || !v.Is(packet.ViewIP) {
		return value{}, false
	}
	q := FIBQuery{Addr: v.DstAddr(p.Frame.Bytes()), Source: f.SAddr, Mark: f.Mark, IIF: f.IIF, OIF: f.OIF, Type: f.Result == "type"}
	if f.SAddr {
		q.Addr = v.SrcAddr(p.Frame.Bytes())
	}
	e.rec.Routes = true
	a := p.Env.FIB(p, &q)
	switch {
	case f.Result == "type":
		return value{0, uint64(a.Type)}, true
	case f.Exists:
		return value{0, bit(a.Device != nil)}, true
	case f.Result == "oifname":
		return a.Device.ask(metaIIFName)
	}
	return a.Device.ask(metaIIF)
}

// route reads what is known of the packet's route.
func (e *Evaluator) route(r *nft.RT) (value, bool) {
	p := e.p
	if p.Env == nil || p.Env.Route == nil {
		return value{}, false
	}
	e.rec.Routes = true
	a := p.Env.Route(p)
	switch r.Key {
	case "mtu":
		return value{0, uint64(a.MTU)}, a.MTU != 0
	case "classid":
		return value{0, uint64(a.ClassID)}, true
	case "nexthop":
		return addrValue(a.NextHop, uint8(r.Bytes()))
	case "ipsec": // there is none
		return value{}, a.MTU != 0
	}
	return value{}, false
}
