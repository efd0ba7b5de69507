// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/qdisc"
)

// TestDeclare wants lines to make what the same commands make one after the other.
func TestDeclare(t *testing.T) {
	egress, ingress, err := Declare([]string{
		"root handle 1: htb default 20",
		"class add parent 1: classid 1:20 htb rate 8mbit",
		"from root tbf rate 4mbit burst 32kb latency 50ms",
		"qdisc parent 1:20 fq_codel",
		"filter parent 1: protocol ip u32 match ip dst 10.0.0.1/32 classid 1:20",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[bool]*qdisc.Spec{false: {}, true: {}}
	for _, line := range []string{
		"qdisc add dev x root handle 1: htb default 20",
		"class add dev x parent 1: classid 1:20 htb rate 8mbit",
		"qdisc add dev x from root tbf rate 4mbit burst 32kb latency 50ms",
		"qdisc add dev x parent 1:20 fq_codel",
		"filter add dev x parent 1: protocol ip u32 match ip dst 10.0.0.1/32 classid 1:20",
	} {
		c, err := Parse(strings.Fields(line))
		if err == nil {
			want[c.Ingress], err = c.Apply(want[c.Ingress])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(egress, want[false]) || !reflect.DeepEqual(ingress, want[true]) {
		t.Errorf("got %+v and %+v\nwant %+v and %+v", egress, ingress, want[false], want[true])
	}
	if egress, ingress, err = Declare(nil); egress != nil || ingress != nil || err != nil {
		t.Errorf("of nothing: %v, %v, %v", egress, ingress, err)
	}
	if _, _, err = Declare(slices.Repeat([]string{"root pfifo"}, MaxLines+1)); err == nil {
		t.Error("very many lines were read")
	}
}

func TestDeclareRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                     "want root",
		"root tbf burst 10kb":  "rate",
		"dev x root pfifo":     "dev: the port is known",
		"root red":             "red",
		"parent 7:1 pfifo":     "7:",
		"del root":             "parent: want root",
		"class classid 1:1":    "parent",
		"root pfifo limit few": "limit",
		"root pfifo\x00":       "pfifo",
	} {
		_, _, err := Declare([]string{"from root pfifo", line})
		if e, ok := errors.AsType[*LineError](err); !ok || e.Line != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", line, err, want)
		}
	}
}
