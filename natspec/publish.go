// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"net/netip"
	"strings"

	"sluice/nat"
	"sluice/packet"
	"sluice/routing"
)

// Publish is a published port, or a range of them: what comes to an own address of
// the namespace goes to a container. Its text is "tcp 8080 to web:80".
type Publish struct {
	Proto uint8 // TCP, UDP or SCTP
	// Addr is one of the namespace's addresses; zero: any of them.
	Addr  netip.Addr
	Ports nat.PortRange
	// To is the attachment, ToPorts as many of its ports as Ports.
	To      string
	ToPorts nat.PortRange
}

// ParsePublish reads "tcp 8080 to web:80", "udp 10.0.0.1:5000-5010 to game" or
// "tcp [fd00::1]:443 to web:8443".
func ParsePublish(text string) (Publish, error) {
	var p Publish
	w := &words{list: strings.Fields(text)}
	if len(text) > MaxStatement {
		return p, &routing.ParseError{Reason: "too long"}
	}
	if err := p.outside(w); err != nil {
		return p, err
	}
	if err := w.expect("to"); err != nil {
		return p, err
	}
	if err := p.inside(w); err != nil {
		return p, err
	}
	if w.take() != "" {
		return p, w.wrong("nothing may follow here")
	}
	return p, nil
}

// ParsePublished reads what a published port is found by: "tcp 8080", with or
// without the rest.
func ParsePublished(text string) (Publish, error) {
	if strings.Contains(" "+text+" ", " to ") {
		return ParsePublish(text)
	}
	var p Publish
	w := &words{list: strings.Fields(text)}
	if err := p.outside(w); err != nil {
		return p, err
	}
	if w.take() != "" {
		return p, w.wrong("want to and the container, or nothing")
	}
	return p, nil
}

func (p *Publish) outside(w *words) error {
	proto, ok := protocol(w.take())
	if !ok || proto != packet.ProtoTCP && proto != packet.ProtoUDP && proto != packet.ProtoSCTP {
		return w.wrong("want tcp, udp or sctp")
	}
	p.Proto = proto
	text := w.take()
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		if p.Addr, ok = address(unbracket(text[:i])); !ok || p.Addr.Is6() && text[0] != '[' {
			return w.wrong("want an address before the port, as 192.0.2.1:80 or [fd00::1]:80")
		}
		text = text[i+1:]
	}
	if p.Ports, ok = portRange(text); !ok {
		return w.wrong("want a port or a range, as 80 or 8000-8010")
	}
	return nil
}

func (p *Publish) inside(w *words) error {
	name, ports, given := strings.Cut(w.take(), ":")
	if p.To = name; name == "" {
		return w.wrong("want the name of a container's attachment, and maybe its port, as web:80")
	}
	if p.ToPorts = p.Ports; !given {
		return nil
	}
	to, ok := portRange(ports)
	if !ok || to.Max-to.Min != p.Ports.Max-p.Ports.Min {
		return w.wrong("want as many of the container's ports as are published")
	}
	p.ToPorts = to
	return nil
}

// Outside is the text of what is published: "tcp 8080".
func (p Publish) Outside() string {
	text := ProtocolName(p.Proto) + " "
	if p.Addr.Is6() {
		text += "[" + p.Addr.String() + "]:"
	} else if p.Addr.IsValid() {
		text += p.Addr.String() + ":"
	}
	return text + portsText(p.Ports)
}

// String is the whole text.
func (p Publish) String() string { return p.Outside() + " to " + p.To + ":" + portsText(p.ToPorts) }

// MarshalText is the text.
func (p Publish) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the text.
func (p *Publish) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePublish(string(text))
	return err
}

// Same reports whether two are published at the same place.
func (p Publish) Same(o Publish) bool {
	return p.Proto == o.Proto && p.Addr == o.Addr && p.Ports == o.Ports
}

// Overlaps reports whether some packet is for both.
func (p Publish) Overlaps(o Publish) bool {
	return p.Proto == o.Proto && p.Ports.Min <= o.Ports.Max && o.Ports.Min <= p.Ports.Max &&
		(!p.Addr.IsValid() || !o.Addr.IsValid() || p.Addr == o.Addr)
}

// Rules are those that send what is published to a container with these addresses,
// the first of each family: what comes from elsewhere, and what the namespace's own
// stack sends.
func (p Publish) Rules(container []netip.Addr) []nat.Rule {
	var out []nat.Rule
	var v4, v6 bool
	for _, a := range container {
		have := map[bool]*bool{true: &v4, false: &v6}[a.Is4()]
		if *have || p.Addr.IsValid() && p.Addr.Is4() != a.Is4() {
			continue
		}
		*have = true
		for _, hook := range []nat.Hook{nat.Prerouting, nat.Output} {
			out = append(out, p.rule(hook, a))
		}
	}
	return out
}

func (p Publish) rule(hook nat.Hook, to netip.Addr) nat.Rule {
	r := nat.Rule{
		Name: "publish " + p.String(), Hook: hook, Kind: nat.DNAT, Shift: p.Ports.Min != p.Ports.Max,
		Match:  nat.Match{Protos: []uint8{p.Proto}, DstPorts: []nat.PortRange{p.Ports}, Own: nat.Yes},
		Target: nat.Target{Addrs: nat.One(to), Ports: p.ToPorts},
	}
	if p.Addr.IsValid() {
		r.Match.Dst = []netip.Prefix{netip.PrefixFrom(p.Addr, p.Addr.BitLen())}
	}
	return r
}

// Hairpin is the rule that lets a container reach a port that is published for
// itself, or for a neighbour on its network: the answer has to come back this way.
func Hairpin() nat.Rule {
	return nat.Rule{Name: "publish: hairpin", Hook: nat.Postrouting, Match: nat.Match{Hairpin: nat.Yes}, Kind: nat.Masquerade}
}

// Leaving is the rule of an uplink that hides what leaves by it: masquerade by its
// device, which has this name and number.
func Leaving(device string, index uint16) nat.Rule {
	return nat.Rule{
		Name: "uplink " + device + ": masquerade", Hook: nat.Postrouting, Match: nat.Match{Out: []uint16{index}}, Kind: nat.Masquerade,
	}
}
