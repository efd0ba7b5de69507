// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"sluice/qdisc"
)

// unit is a suffix and its factor.
type unit struct {
	name   string
	factor float64
}

// The suffixes, without regard to case. Of rates the base is one bit in a second.
var (
	rateTable = [...]unit{
		{"bit", 1},
		{"kibit", 1 << 10},
		{"kbit", 1e3},
		{"mibit", 1 << 20},
		{"mbit", 1e6},
		{"gibit", 1 << 30},
		{"gbit", 1e9},
		{"tibit", 1 << 40},
		{"tbit", 1e12},
		{"bps", 8},
		{"kibps", 8 << 10},
		{"kbps", 8e3},
		{"mibps", 8 << 20},
		{"mbps", 8e6},
		{"gibps", 8 << 30},
		{"gbps", 8e9},
		{"tibps", 8 << 40},
		{"tbps", 8e12},
	}
	sizeTable = [...]unit{
		{"b", 1},
		{"k", 1 << 10},
		{"kb", 1 << 10},
		{"m", 1 << 20},
		{"mb", 1 << 20},
		{"g", 1 << 30},
		{"gb", 1 << 30},
		{"kbit", 1 << 7},
		{"mbit", 1 << 17},
		{"gbit", 1 << 27},
	}
	timeTable = [...]unit{
		{"s", 1e9},
		{"sec", 1e9},
		{"secs", 1e9},
		{"ms", 1e6},
		{"msec", 1e6},
		{"msecs", 1e6},
		{"us", 1e3},
		{"usec", 1e3},
		{"usecs", 1e3},
		{"ns", 1},
		{"nsec", 1},
		{"nsecs", 1},
	}
)

// scaled reads a number with one of the suffixes; without one its factor is bare.
func scaled(word string, units []unit, bare float64) (float64, error) {
	i := strings.LastIndexAny(word, "0123456789.") + 1
	x, err := strconv.ParseFloat(word[:i], 64)
	if err != nil || x < 0 {
		return 0, errors.New("want a number with a unit")
	}
	if i == len(word) {
		return x * bare, nil
	}
	for _, u := range units {
		if strings.EqualFold(word[i:], u.name) {
			return x * u.factor, nil
		}
	}
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.name)
	}
	return 0, fmt.Errorf("unit %q, want one of %s", word[i:], strings.Join(names, ", "))
}

// rate reads bits or bytes in a second, as bytes in a second.
func rate(word string) (uint64, error) {
	if strings.HasSuffix(word, "%") {
		return 0, errors.New("a percentage needs the speed of a device, which a port doesn't have")
	}
	x, err := scaled(word, rateTable[:], 1)
	if err == nil && (x/8 >= 1<<53 || x != 0 && x < 8) {
		err = errors.New("want 8bit to 9007Tbps")
	}
	return uint64(x / 8), err
}

// size reads bytes.
func size(word string) (uint64, error) {
	x, err := scaled(word, sizeTable[:], 1)
	if err == nil && x > math.MaxUint32 {
		err = errors.New("want less than 4gb")
	}
	return uint64(x), err
}

func size32(word string) (uint32, error) {
	x, err := size(word)
	return uint32(x), err
}

func sizeInt(word string) (int64, error) {
	x, err := size(word)
	return int64(x), err
}

// maxTime bounds times: 292 years are enough for an int64 and for nobody.
const maxTime = 1e15

// duration reads ns; a number without a unit is of us.
func duration(word string) (int64, error) { return durationOf(word, 1e3) }

// nanos is duration where a number without a unit is of ns, as netem has it.
func nanos(word string) (int64, error) { return durationOf(word, 1) }

func durationOf(word string, bare float64) (int64, error) {
	x, err := scaled(word, timeTable[:], bare)
	if err == nil && x > maxTime {
		err = errors.New("want at most 1000000s")
	}
	return int64(math.Round(x)), err
}

// percent reads a share: 10% or 10.
func percent(word string) (qdisc.Percent, error) {
	x, err := strconv.ParseFloat(strings.TrimSuffix(word, "%"), 64)
	if err != nil || !(x >= 0 && x <= 100) {
		return 0, errors.New("want 0% to 100%")
	}
	return qdisc.Percent(math.Round(x / 100 * math.MaxUint32)), nil
}

// rateText is bytes in a second as tc prints them: in bits, by the thousand.
func rateText(bytes uint64) string {
	names := [...]string{"", "K", "M", "G", "T"}
	x, i := bytes*8, 0
	for ; i < len(names)-1 && x >= 1000; i++ {
		if x%1000 != 0 && x < 1000*1000 {
			break
		}
		x /= 1000
	}
	return fmt.Sprintf("%d%sbit", x, names[i])
}

// sizeText is bytes as tc prints them.
func sizeText(n uint64) string {
	x := float64(n)
	if m := math.RoundToEven(x / (1 << 20)); n >= 1<<20 && math.Abs(m*(1<<20)-x) < 1024 {
		return fmt.Sprintf("%gMb", m)
	}
	if k := math.RoundToEven(x / 1024); n >= 1024 && math.Abs(k*1024-x) < 16 {
		return fmt.Sprintf("%gKb", k)
	}
	return fmt.Sprintf("%db", n)
}

// usText is ns as tc prints times that it counts in us.
func usText(ns int64) string {
	us := ns / 1000
	switch {
	case us >= 1_000_000:
		return fmt.Sprintf("%.3gs", float64(us)/1e6)
	case us >= 1000:
		return fmt.Sprintf("%.3gms", float64(us)/1e3)
	}
	return fmt.Sprintf("%dus", us)
}

// nsText is ns as tc prints times that it counts in ns.
func nsText(ns int64) string {
	x := float64(ns)
	switch {
	case ns >= 1e9:
		return fmt.Sprintf("%.3gs", x/1e9)
	case ns >= 1e6:
		return fmt.Sprintf("%.3gms", x/1e6)
	case ns >= 1e3:
		return fmt.Sprintf("%.3gus", x/1e3)
	}
	return fmt.Sprintf("%dns", ns)
}

// percentText is a share as tc prints it.
func percentText(p qdisc.Percent) string {
	return fmt.Sprintf("%g%%", float64(float32(100*float64(p)/math.MaxUint32)))
}

// tickTime is the us of a burst as they come back from the kernel: tc counts it in ticks of 64 ns
// that are made of whole us, and makes whole us of them again.
func tickTime(rate, bytes uint64) (us uint64) {
	us = uint64(1e6 * float64(bytes) / float64(rate))
	return uint64(float64(uint64(float64(us)*15.625)) / 15.625)
}

// burstBytes is a burst as tc shows it.
func burstBytes(rate, bytes uint64) uint64 {
	return uint64(float64(rate) * float64(tickTime(rate, bytes)) / 1e6)
}

// bucketTime is the us of a burst of tbf and police, which the kernel counts itself,
// with what it costs beyond its bytes.
func bucketTime(r qdisc.Rate, bytes uint64) (us uint64) {
	ns := uint64(1e9 * float64(r.Cost(uint32(min(bytes, math.MaxUint32)))) / float64(r.Bytes))
	return uint64(float64(ns>>6) / 15.625)
}

// bucketBytes is such a burst as tc shows it.
func bucketBytes(r qdisc.Rate, bytes uint64) uint64 {
	return uint64(float64(r.Bytes) * float64(bucketTime(r, bytes)) / 1e6)
}
