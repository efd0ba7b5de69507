// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// constants reads the constants of some types that have a way of their own;
// what it returns is the number as bytes.
var constantTable = map[Type]func(s string, env *Env) (string, error){
	TypeIPv4Addr:    parseIPv4,
	TypeIPv6Addr:    parseIPv6,
	TypeEtherAddr:   parseEther,
	TypeLLAddr:      parseEther,
	TypeInetService: parseService,
	TypeTime:        parseTimeConstant,
	TypeTimeDate:    parseDate,
	TypeTimeHour:    parseHour,
	TypeTimeDay:     parseDay,
	TypeIfIndex:     parseIfIndex,
	TypeClassID:     parseClassID,
	TypeCTLabel:     parseLabel,
	TypeInetProto:   parseProto,
	TypeDevGroup:    parseDevGroup,
	TypeUID:         parseUser,
	TypeGID:         parseUser,
}

// words are an error as nft says it, with a capital letter.
type words string

func (w words) Error() string { return string(w) }

func says(format string, args ...any) error { return words(fmt.Sprintf(format, args...)) }

// constant is the value that a word means in spec.
func constant(s string, spec Spec, env *Env) (*Value, error) {
	if spec.Type.stringy() {
		return stringConstant(s, spec)
	}
	if n, ok := symbolNumber(spec.Type, s); ok {
		return number(big.NewInt(0).SetUint64(n), spec)
	}
	if parse := constantTable[spec.Type]; parse != nil {
		data, err := parse(s, env)
		if err != nil {
			return nil, err
		}
		return number(big.NewInt(0).SetBytes([]byte(data)), spec)
	}
	n, ok := parseNumber(s)
	if !ok {
		return nil, says("Could not parse %s", spec.Type.info().desc)
	}
	return number(n, spec)
}

// parseNumber reads a number in decimal, octal or hexadecimal.
func parseNumber(s string) (*big.Int, bool) {
	s = strings.ToLower(s)
	if s == "" || !isDigit(s[0]) || len(s) > 60 || strings.ContainsAny(s, "_o") || strings.HasPrefix(s, "0b") {
		return nil, false
	}
	return big.NewInt(0).SetString(s, 0)
}

// number puts n into a value of the width of spec.
func number(n *big.Int, spec Spec) (*Value, error) {
	if n.BitLen() > int(spec.Bits) {
		maximum := big.NewInt(1)
		maximum.Lsh(maximum, uint(spec.Bits)).Sub(maximum, big.NewInt(1))
		return nil, says("Value %s exceeds valid range 0-%s", n, maximum)
	}
	return &Value{Spec: spec, Data: string(n.FillBytes(make([]byte, spec.Bytes())))}, nil
}

// smallValue is a value that is known to fit.
func smallValue(n uint64, spec Spec) *Value {
	b := make([]byte, spec.Bytes())
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte(n)
		n >>= 8
	}
	return &Value{Spec: spec, Data: string(b)}
}

// Uint is the number of a value of up to 64 bits.
func (v *Value) Uint() uint64 { return uintOf(v.Data) }

func uintOf(data string) uint64 {
	var n uint64
	for i := range len(data) {
		n = n<<8 | uint64(data[i])
	}
	return n
}

// stringConstant is a name, or with an asterisk the beginning of one.
func stringConstant(s string, spec Spec) (*Value, error) {
	v := &Value{Spec: spec}
	if s == "" {
		return nil, says("Empty string is not allowed")
	}
	if v.Bits == 0 {
		v.Bits = 128
	}
	size := v.Bytes()
	if rest, ok := strings.CutSuffix(s, "*"); ok {
		if esc, ok := strings.CutSuffix(rest, "\\"); ok {
			s = esc + "*"
		} else {
			v.Wildcard, s = true, rest
			if s == "" {
				return nil, says("All-wildcard strings are not supported")
			}
		}
	}
	if len(s) > size || len(s) == size && spec.Type == TypeIfName {
		return nil, says("String exceeds maximum length of %d", size-1)
	}
	v.Data = s + strings.Repeat("\x00", size-len(s))
	return v, nil
}

// text is the string of a value.
func (v *Value) text() string {
	s, _, _ := strings.Cut(v.Data, "\x00")
	if v.Wildcard {
		return s + "*"
	}
	if strings.HasSuffix(s, "*") {
		return s[:len(s)-1] + "\\*"
	}
	return s
}

// symbolNumber finds the number that a name has in a type.
func symbolNumber(t Type, name string) (uint64, bool) {
	return lookUp(symbolTable[t], name)
}

// lookUp finds a name in a list of names and numbers.
func lookUp(list, name string) (uint64, bool) {
	for list != "" {
		var n, number string
		n, list, _ = strings.Cut(list, " ")
		number, list, _ = strings.Cut(list, " ")
		if n == name {
			v, err := strconv.ParseUint(number, 10, 64)
			return v, err == nil
		}
	}
	return 0, false
}

// nameOf finds the first name of a number.
func nameOf(list string, n uint64) (string, bool) {
	want := strconv.FormatUint(n, 10)
	for list != "" {
		var name, number string
		name, list, _ = strings.Cut(list, " ")
		number, list, _ = strings.Cut(list, " ")
		if number == want {
			return name, true
		}
	}
	return "", false
}

func parseIPv4(s string, _ *Env) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return string(a.AsSlice()), nil
	}
	if n, ok := parseNumber(s); ok && n.BitLen() <= 32 {
		return string(n.Bytes()), nil
	}
	return "", says("Could not resolve hostname: %q is not an IPv4 address", s)
}

func parseIPv6(s string, _ *Env) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() && a.Zone() == "" {
		return string(a.AsSlice()), nil
	}
	return "", says("Could not resolve hostname: %q is not an IPv6 address", s)
}

func parseEther(s string, _ *Env) (string, error) {
	if mac := parseMAC(s); mac != "" {
		return mac, nil
	}
	return "", fmt.Errorf("%q is not an Ethernet address", s)
}

func parseService(s string, _ *Env) (string, error) {
	if n, ok := parseNumber(s); ok {
		if n.BitLen() > 16 {
			return "", says("Service out of range")
		}
		return string(n.Bytes()), nil
	}
	n, ok := lookUp(serviceNames, s)
	if !ok {
		return "", says("Could not resolve service: Servname %q is not known", s)
	}
	return bytesOf(n), nil
}

func bytesOf(n uint64) string { return string(big.NewInt(0).SetUint64(n).Bytes()) }

func parseProto(s string, _ *Env) (string, error) {
	if n, ok := parseNumber(s); ok {
		if n.BitLen() > 8 {
			return "", says("Unsupported protocol number %s", n)
		}
		return string(n.Bytes()), nil
	}
	switch s {
	case "icmpv6":
		return "\x3a", nil
	case "comp":
		return "\x6c", nil
	}
	return "", says("Could not resolve protocol name %q", s)
}

// parseTimeConstant reads a time in seconds or with units; it is kept in
// milliseconds.
func parseTimeConstant(s string, _ *Env) (string, error) {
	d, ok := parseTime(s)
	if !ok {
		return "", fmt.Errorf("%q is not a time", s)
	}
	return bytesOf(uint64(d / time.Millisecond)), nil
}

// parseTime reads "1d2h3m4s5ms", or a number of seconds.
func parseTime(s string) (time.Duration, bool) {
	if n, ok := parseNumber(s); ok {
		if n.BitLen() > 32 {
			return 0, false
		}
		return time.Duration(n.Int64()) * time.Second, true
	}
	if s == "" || timeLen(s) != len(s) {
		return 0, false
	}
	var total time.Duration
	for s != "" {
		i := 0
		for isDigit(s[i]) {
			i++
		}
		n, err := strconv.ParseUint(s[:i], 10, 32)
		unit := s[i : i+unitLen(s[i:])]
		if err != nil {
			return 0, false
		}
		total += time.Duration(n) * timeUnit(unit)
		s = s[i+len(unit):]
	}
	return total, total >= 0 && total < 100*365*24*time.Hour
}

func timeUnit(s string) time.Duration {
	const day = 24 * time.Hour
	switch s {
	case "w":
		return 7 * day
	case "d":
		return day
	case "h":
		return time.Hour
	case "m":
		return time.Minute
	case "s":
		return time.Second
	default:
		return time.Millisecond
	}
}

// parseDate reads a point in time; it is kept in nanoseconds since 1970.
func parseDate(s string, _ *Env) (string, error) {
	if n, ok := parseNumber(s); ok && !strings.Contains(s, "-") {
		return string(n.Mul(n, big.NewInt(1e9)).Bytes()), nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil && t.Unix() >= 0 {
			return bytesOf(uint64(t.UnixNano())), nil
		}
	}
	return "", fmt.Errorf("%q is not a date as \"2006-01-02 15:04:05\"", s)
}

// parseHour reads a time of day; it is kept in seconds.
func parseHour(s string, _ *Env) (string, error) {
	if n, ok := parseNumber(s); ok {
		if n.Cmp(big.NewInt(86399)) > 0 {
			return "", fmt.Errorf("%q is not a time of day", s)
		}
		return string(n.Bytes()), nil
	}
	s = strings.TrimSuffix(s, ":60")
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			return bytesOf(uint64(t.Hour()*3600 + t.Minute()*60 + t.Second())), nil
		}
	}
	return "", fmt.Errorf("%q is not a time of day as \"15:04:05\"", s)
}

func parseDay(s string, _ *Env) (string, error) {
	if len(s) >= 3 {
		list := symbolTable[TypeTimeDay]
		for i := range uint64(7) {
			if name, _ := nameOf(list, i); len(s) <= len(name) && strings.EqualFold(name[:len(s)], s) {
				return bytesOf(i), nil
			}
		}
	}
	if n, ok := parseNumber(s); ok && n.Cmp(big.NewInt(6)) <= 0 {
		return string(n.Bytes()), nil
	}
	return "", fmt.Errorf("%q is not a day of the week", s)
}

// parseIfIndex asks for the index of a network interface.
func parseIfIndex(s string, env *Env) (string, error) {
	if n, ok := parseNumber(s); ok {
		return string(n.Bytes()), nil
	}
	if env != nil && env.IfIndex != nil {
		if n, ok := env.IfIndex(s); ok {
			return bytesOf(uint64(n)), nil
		}
	}
	return "", says("Interface does not exist")
}

// parseClassID reads a class of tc(8): major:minor in hexadecimal.
func parseClassID(s string, _ *Env) (string, error) {
	switch s {
	case "none":
		return "", nil
	case "root":
		return "\xff\xff\xff\xff", nil
	}
	major, minor, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint("0"+major, 16, 32)
	b, err2 := strconv.ParseUint("0"+minor, 16, 32)
	if n, isNumber := parseNumber(s); isNumber && !ok {
		return string(n.Bytes()), nil
	}
	if err1 != nil || err2 != nil || !ok || a > 0xffff || b > 0xffff {
		return "", says("Could not parse priority %q: want major:minor", s)
	}
	return bytesOf(a<<16 | b), nil
}

// parseLabel reads the number of a bit, or all of them in hexadecimal.
func parseLabel(s string, _ *Env) (string, error) {
	n, ok := parseNumber(s)
	if !ok {
		return "", fmt.Errorf("%q is not a connection label: want the number of a bit", s)
	}
	if strings.HasPrefix(s, "0x") {
		return string(n.Bytes()), nil
	}
	if n.Cmp(big.NewInt(127)) > 0 {
		return "", fmt.Errorf("%q is not a connection label: want 0 to 127", s)
	}
	return string(big.NewInt(0).Lsh(big.NewInt(1), uint(n.Uint64())).Bytes()), nil
}

// parseUser reads the number of a user or a group; the only name known is root.
func parseUser(s string, _ *Env) (string, error) {
	if s == "root" {
		return "", nil
	}
	if n, ok := parseNumber(s); ok {
		return string(n.Bytes()), nil
	}
	return "", says("User or group %q does not exist: give its number", s)
}

func parseDevGroup(s string, _ *Env) (string, error) {
	if s == "default" {
		return "", nil
	}
	if n, ok := parseNumber(s); ok {
		return string(n.Bytes()), nil
	}
	return "", fmt.Errorf("%q is not a device group", s)
}
