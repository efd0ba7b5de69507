// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"math/big"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// constantWriter writes a constant of some type.
type constantWriter func(p *printer, v *Value) string

// writerTable has the types whose constants have a way of their own.
var writerTable = map[Type]constantWriter{
	TypeIPv4Addr:    addrText,
	TypeIPv6Addr:    addrText,
	TypeEtherAddr:   etherText,
	TypeLLAddr:      etherText,
	TypeInetService: serviceText,
	TypeInetProto:   protoText,
	TypeTime:        timeValue,
	TypeTimeDate:    dateText,
	TypeTimeHour:    hourText,
	TypeIfIndex:     ifIndexText,
	TypeClassID:     classIDText,
	TypeCTLabel:     labelText,
	TypeDevGroup:    devGroupText,
}

// writerOf is the text by the type's own way, "" if it has none.
func (p *printer) writerOf(v *Value) string {
	if write := writerTable[v.Type]; write != nil {
		return write(p, v)
	}
	return ""
}

func addrText(_ *printer, v *Value) string {
	a, _ := netip.AddrFromSlice([]byte(v.Data))
	if d := v.Data; len(d) == 16 && isZero(d[:12]) && !isZero(d[12:14]) {
		v4, _ := netip.AddrFromSlice([]byte(d[12:]))
		return "::" + v4.String() // as inet_ntop(3)
	}
	return a.String()
}

func etherText(_ *printer, v *Value) string {
	var parts []string
	for i := range len(v.Data) {
		parts = append(parts, fmt.Sprintf("%02x", v.Data[i]))
	}
	return strings.Join(parts, ":")
}

func serviceText(p *printer, v *Value) string {
	if p.Services {
		if name, ok := nameOf(serviceNames, v.Uint()); ok {
			return "\"" + name + "\""
		}
	}
	return strconv.FormatUint(v.Uint(), 10)
}

func protoText(p *printer, v *Value) string {
	if !p.NumericProto {
		if name, ok := nameOf(symbolTable[TypeInetProto], v.Uint()); ok {
			return name
		}
	}
	return strconv.FormatUint(v.Uint(), 10)
}

func timeValue(p *printer, v *Value) string {
	ms := v.Uint()
	if p.NumericTime {
		return strconv.FormatUint(ms/1000, 10) + "s"
	}
	return timeText(time.Duration(ms) * time.Millisecond)
}

// time writes a time, in seconds if times are to be numbers.
func (p *printer) time(d time.Duration) string {
	if p.NumericTime {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return timeText(d)
}

// timeText writes a time with units.
func timeText(d time.Duration) string {
	ms := d.Milliseconds()
	if ms == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		name string
		ms   int64
	}{{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}} {
		if n := ms / u.ms; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			ms %= u.ms
		}
	}
	return b.String()
}

func dateText(p *printer, v *Value) string {
	s := int64(v.Uint() / 1e9)
	if p.NumericTime {
		return strconv.FormatInt(s, 10)
	}
	return "\"" + time.Unix(s, 0).UTC().Format("2006-01-02 15:04:05") + "\""
}

func hourText(p *printer, v *Value) string {
	s := v.Uint()
	if p.NumericTime {
		return strconv.FormatUint(s, 10)
	}
	if s%60 != 0 {
		return fmt.Sprintf("\"%02d:%02d:%02d\"", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("\"%02d:%02d\"", s/3600, s/60%60)
}

func ifIndexText(p *printer, v *Value) string {
	n := uint32(v.Uint())
	if p.Env != nil && p.Env.IfName != nil {
		if name, ok := p.Env.IfName(n); ok {
			return "\"" + name + "\""
		}
	}
	return strconv.FormatUint(uint64(n), 10)
}

func classIDText(_ *printer, v *Value) string {
	switch n := v.Uint(); n {
	case 0:
		return "none"
	case 0xffffffff:
		return "root"
	default:
		return fmt.Sprintf("%x:%x", n>>16, n&0xffff)
	}
}

// labelText writes the number of a bit, or several bits in hexadecimal.
func labelText(_ *printer, v *Value) string {
	n, at := 0, 0
	for i := range len(v.Data) {
		if v.Data[i] != 0 {
			n += bits.OnesCount8(v.Data[i])
			at = (len(v.Data)-1-i)*8 + bits.TrailingZeros8(v.Data[i])
		}
	}
	if n == 1 {
		return strconv.Itoa(at)
	}
	return "0x" + big.NewInt(0).SetBytes([]byte(v.Data)).Text(16)
}

func devGroupText(_ *printer, v *Value) string {
	if v.Uint() == 0 {
		return "\"default\""
	}
	return strconv.FormatUint(v.Uint(), 10)
}
